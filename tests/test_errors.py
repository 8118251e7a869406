"""Bad input: a ValueError or TypeError that names the argument, what came and what was expected."""

import kldiv_fast
import numpy as np
import pytest

X = np.full((4, 3), 1 / 3, np.float32)
ROWS = np.zeros(4, np.float32)


def read_only():
    rows = ROWS.copy()
    rows.flags.writeable = False
    return rows


CASES = {
    "shapes": (dict(y_pred=X[:, :2]), ValueError, r"y_true has shape \(4, 3\).*y_pred's \(4, 2\)"),
    "axis out of range": (dict(axis=2), ValueError, "axis is 2, out of range for inputs of 2 axes"),
    "axis repeated": (dict(axis=(1, -1)), ValueError, "axis is .* names an axis twice"),
    "axis empty": (dict(axis=()), ValueError, "axis is empty"),
    "axis float": (dict(axis=1.0), TypeError, "axis is 1.0; expected an int"),
    "reduction": (dict(reduction="avg"), ValueError, "reduction is 'avg'.*'batchmean', 'sum'"),
    "reduction type": (dict(reduction=3), ValueError, "reduction is 3"),
    "epsilon negative": (dict(epsilon=-1e-9), ValueError, r"epsilon is -1e-09; .*\[0, 1\)"),
    "epsilon NaN": (dict(epsilon=float("nan")), ValueError, "epsilon is nan"),
    "epsilon 1": (dict(epsilon=1.0), ValueError, "epsilon is 1.0"),
    "epsilon str": (dict(epsilon="1e-7"), TypeError, "epsilon is '1e-7'"),
    "epsilon list": (dict(epsilon=[1]), TypeError, "epsilon is of type list"),
    "weight shape": (dict(sample_weight=[1, 2, 3]), ValueError, r"sample_weight has shape \(3,\)"),
    "mask shape": (dict(mask=[True] * 3), ValueError, r"mask has shape \(3,\).*rows' shape \(4,\)"),
    "mask of classes": (dict(mask=X > 0), ValueError, r"\(4, 3\).*leaves out rows\. Classes are"),
    "mask of one row's classes": (
        dict(y_true=X[0], y_pred=X[0], mask=[True] * 3),
        ValueError,
        r"mask has shape \(3,\).* rows' shape \(\); a mask leaves out rows\. Classes are left out",
    ),
    "mask of as many classes as rows": (
        dict(y_true=X[:3], y_pred=X[:3], mask=X[:3] > 0),
        ValueError,
        r"mask has shape \(3, 3\).* rows' shape \(3,\); a mask leaves out rows",
    ),
    "mask that repeats one row": (
        dict(y_true=X[:1], y_pred=X[:1], mask=[True, False]),
        ValueError,
        r"mask has shape \(2,\).* rows' shape \(1,\); a mask leaves out rows",
    ),
    "mask that repeats weighted rows": (
        dict(y_true=X[0], y_pred=X[0], sample_weight=[1.0], mask=[True] * 3),
        ValueError,
        r"mask has shape \(3,\).* rows' shape \(1,\); a mask leaves out rows",
    ),
    "mask beside weight": (
        dict(mask=[True] * 3, sample_weight=[1, 2]),
        ValueError,
        r"mask has shape \(3,\).*sample_weight's \(2,\)",
    ),
    "mask float": (dict(mask=ROWS), TypeError, "mask is of dtype float32"),
    "weight complex": (
        dict(sample_weight=[1j] * 4),
        TypeError,
        "sample_weight is of dtype complex",
    ),
    "out shape": (
        dict(out=ROWS[:3], reduction=None),
        ValueError,
        r"out has shape \(3,\); .*\(4,\)",
    ),
    "out dtype": (dict(out=np.zeros(4), reduction=None), TypeError, "out has dtype float64"),
    "out read-only": (dict(out=read_only(), reduction=None), ValueError, "out is read-only"),
    "out list": (dict(out=[0] * 4, reduction=None), TypeError, "out is of type list"),
    "out with mean": (dict(out=ROWS), ValueError, "out is for reduction='none' alone"),
    "complex": (dict(y_true=X.astype(complex)), TypeError, "y_true is of dtype complex128"),
    "object": (dict(y_true=X.astype(object)), TypeError, "y_true is of dtype object"),
    "string": (dict(y_pred=X.astype(str)), TypeError, "y_pred is of dtype <U"),
    "datetime": (dict(y_pred=X.astype("M8[s]")), TypeError, "y_pred is of dtype datetime64"),
    "longdouble": (dict(y_pred=X.astype(np.longdouble)), TypeError, "y_pred is of dtype"),
    "masked array": (dict(y_true=np.ma.array(X)), TypeError, "y_true is a masked array"),
    "ragged": (dict(y_true=[[1, 2], [3]]), ValueError, "y_true is not a regular array"),
    "None": (dict(y_true=None), TypeError, "y_true is None; expected an array"),
    "num_threads 0": (dict(num_threads=0), ValueError, "num_threads is 0; expected an integer"),
    "num_threads float": (dict(num_threads=1.5), TypeError, "num_threads is of type float"),
    "form": (dict(form="logit"), ValueError, "form is 'logit'; expected one of: 'probs', 'counts'"),
    "form type": (dict(form=1), TypeError, "form is 1; expected one of: 'probs'"),
    "forms": (dict(form=("probs", "logit")), ValueError, "form is .* expected one of: 'probs'"),
    "temperature": (dict(temperature=2), ValueError, "temperature is 2, which is for logits alone"),
    "temperature 0": (
        dict(temperature=0),
        ValueError,
        "temperature is 0; expected a finite number",
    ),
    "temperature type": (dict(temperature="1"), TypeError, "temperature is '1'; expected a finite"),
    "epsilon of logits": (
        dict(form="logits", epsilon=1e-3),
        ValueError,
        "epsilon is 0.001, but nothing is clipped beside logits",
    ),
    "unknown keyword": (dict(eps=1e-7), TypeError, "eps"),
}


@pytest.mark.parametrize(("change", "error", "message"), CASES.values(), ids=CASES)
def test_bad_input(change, error, message):
    arguments = dict(y_true=X, y_pred=X) | change
    before = arguments["out"].copy() if isinstance(arguments.get("out"), np.ndarray) else None
    with pytest.raises(error, match=message):
        kldiv_fast.kl(arguments.pop("y_true"), arguments.pop("y_pred"), **arguments)
    if before is not None:
        np.testing.assert_array_equal(change["out"], before)


def test_a_weight_may_repeat_the_row_as_in_keras():
    x, y = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    rows = kldiv_fast.kl(x, y, sample_weight=[1, 2, 3], mask=[True, True, False], reduction="none")
    np.testing.assert_allclose(rows, kldiv_fast.kl(x, y) * np.array([1, 2, 0]), rtol=1e-15)


def test_missing_argument():
    with pytest.raises(TypeError, match="y_pred"):
        kldiv_fast.kl(X)


def test_inputs_by_keyword():
    assert kldiv_fast.kl(y_true=X, y_pred=X) == 0


def test_set_num_threads():
    for n, error in ((0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError)):
        with pytest.raises(error, match="n is"):
            kldiv_fast.set_num_threads(n)
