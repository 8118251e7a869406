"""What the numbers are: `form` and `temperature`. Every divergence of every pair of forms, beside mpmath and the table's
formulas in extended precision; what is refused, and how it is told. kl of two rows of logits: test_logits.py.
"""

import functools
import itertools
import math

import kldiv_fast
import ml_dtypes
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from isas import on_each_isa
from kldiv_fast import _core
from kldiv_fast._formulas import _evaluate
from kldiv_fast._meaning import LOGS
from kldiv_fast._operations import ENTRIES, OPERATIONS
from oracle import TERMS, exact_form_rows, exact_form_slopes
from pairwise import each, pairwise
from test_arrays import BROADCASTS, LAYOUTS
from test_family import same
from test_gradient import summed_to, work_type
from test_properties import calls, reduced

BOTH = ("y_true", "y_pred")
FORMS = ["probs", "counts", "log_probs", "logits"]
PAIRS = [pair for pair in itertools.product(FORMS, repeat=2) if pair != ("probs", "probs")]
BY_NAME = {operation.name: operation for operation in OPERATIONS}
INF, NAN = np.inf, np.nan
X = np.full((3, 4), 0.25, np.float32)

each_operation = pytest.mark.parametrize("name", BY_NAME)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
each_pair = pytest.mark.parametrize("forms", PAIRS, ids="-".join)


def functions(name):
    return [getattr(kldiv_fast, name + ending) for ending in ("", "_value_and_grad")]


def both(name, *arrays, **keywords):
    """The rows, or what they are reduced to, and both gradients."""
    return functions(name)[1](*arrays, wrt=BOTH, **keywords)


# ---- numbers of a form, and the formulas in extended precision ----

SCALES = {"probs": 0, "counts": 0, "log_probs": 3, "logits": 3}


def numbers(rng, form, shape, dtype=np.float32):
    """Where both are, distributions that are near each other now and then; zeros and -inf among them elsewhere."""
    x = rng.gamma(0.7, size=shape) + 1e-3
    if form == "counts":
        x = np.ceil(100 * x)
    elif form != "probs":
        x = np.log(x) - (0 if form == "logits" else 4)
    return (np.round(x) if np.dtype(dtype).kind in "biu" else x).astype(dtype)


def pair(rng, forms, shape, dtype=np.float32):
    return [numbers(rng, form, shape, dtype) for form in forms]


def probabilities(form, x, axis, temperature):
    """With log t, which may be more than what an exponential leaves."""
    with np.errstate(all="ignore"):
        if form == "logits":
            x = x / temperature
            x = x - x.max(axis=axis, keepdims=True)
            x = x - np.log(np.exp(x).sum(axis=axis, keepdims=True))
        if form in LOGS:
            return np.exp(x), x
        t = x / x.sum(axis=axis, keepdims=True) if form == "counts" else x
        return t, np.log(np.where(t > 0, t, 1))


def chained(form, x, t, slope, axis, temperature):
    """The derivative by x, from that by the probabilities t that are made of it."""
    dot = (t * slope).sum(axis=axis, keepdims=True)
    if form == "counts":
        return (slope - dot) / x.sum(axis=axis, keepdims=True)
    if form == "logits":
        return t * (slope - dot) / temperature
    return t * slope if form == "log_probs" else slope


def log_or_0(x):
    """0 log 0 is 0; nothing else here is the logarithm of 0."""
    return np.log(np.where(x > 0, x, 1))


def formula(name, arrays, forms, axis=-1, temperature=1.0, beta=0.5, work=None):
    """Rows, both slopes, and how far off either may be. `work`: what is read, where that isn't `arrays`."""
    work = arrays if work is None else work
    unit = unit_of(name, work, forms)
    arrays = np.broadcast_arrays(*(np.asarray(x).astype(np.longdouble) for x in arrays))
    (t, t_log), (p, p_log) = (
        probabilities(form, x, axis, temperature) for form, x in zip(forms, arrays, strict=True)
    )
    expressions = [ENTRIES[name].term, *ENTRIES[name].slopes]
    with np.errstate(all="ignore"):
        terms, *by_probs = _evaluate(name, expressions, t, p, beta, log_or_0)
    off = [(1 + abs(log)) * x * (1 + abs(slope)) for x, log, slope in zip((t, p), (t_log, p_log), by_probs, strict=True)]  # fmt: skip
    rows = terms.sum(axis=axis)
    of_sums = roundings_of_sums(terms.size / max(1, rows.size), unit)
    rows_off = (abs(terms) * (1 + of_sums / ROUNDINGS) + off[0] + off[1]).sum(axis=axis)
    rows_off = ROUNDINGS * unit * rows_off
    if unit != np.finfo(work_type(*work)).eps:  # far rows have float32's digits
        most = np.maximum(1, np.maximum(t.sum(axis=axis), p.sum(axis=axis)))
        rows_off = np.where(rows > 0.49 * most, np.maximum(rows_off, FAR * rows), rows_off)
    slopes, slopes_off = [], []
    for form, x, prob, slope in zip(forms, arrays, (t, p), by_probs, strict=True):
        with np.errstate(all="ignore"):
            # Of a slope by t, where t/p is off: of the order of the slope's own change with log t and log p.
            ratio = np.maximum(t, p) / np.minimum(t, p)
            change = (1 + abs(t_log) + abs(p_log)) * (1 + abs(slope) + ratio)
            scale = {"probs": 1, "counts": 1 / x.sum(axis=axis, keepdims=True)}.get(form, prob)
            dots = (prob * change).sum(axis=axis, keepdims=True)
            slopes.append(chained(form, x, prob, slope, axis, temperature))
        change = change + (dots if form in ("counts", "logits") else 0)
        scale = scale / (temperature if form == "logits" else 1)
        slopes_off.append(ROUNDINGS * unit * scale * change)
    return rows, slopes, rows_off, slopes_off


# Roundings of an element's probability, its term and the sums; of what they are computed in.
ROUNDINGS = 16
# The relative error of rows of float32 that are far apart, neither side of which is given as probabilities.
FAR = 1e-6


def roundings_of_sums(classes, unit):
    """Of terms that are all alike, so that none evens out another: 32 in a lane, then segments of 512 in float64."""
    return 32 / 4 + classes / 512 / 4 * np.finfo(np.float64).eps / unit


def unit_of(name, arrays, forms):
    """float64 where neither side is probabilities, but for kl of logits, which has a way of its own. (Values of rows that
    are far apart are held to FAR instead.)"""
    own = forms == ("logits", "logits") and name in ("kl", "generalized_kl")
    return np.finfo(work_type(*arrays) if own or "probs" in forms else np.float64).eps


def close(name, result, arrays, forms, axis=-1, temperature=1.0, factor=1.0):
    rows, slopes, rows_off, slopes_off = formula(name, arrays, forms, axis, temperature)
    ours, gradients = result
    assert ours.shape == rows.shape
    assert np.all(abs(ours - rows) <= rows_off + np.finfo(ours.dtype).eps * abs(rows))
    for gradient, slope, off, x in zip(gradients, slopes, slopes_off, arrays, strict=True):
        exact, off = (summed_to(factor * v, np.shape(x)) for v in (slope, off))
        allowed = abs(off) + np.finfo(gradient.dtype).eps * summed_to(
            abs(factor * slope), np.shape(x)
        )
        assert gradient.shape == exact.shape
        assert np.all(abs(gradient - exact) <= allowed + 1e-37)


# ---- right ----


PAIRS_BY_ID = {"-".join(pair): pair for pair in PAIRS}


@pairwise(
    isa=kldiv_fast.available_isas(),
    name=list(BY_NAME),
    forms=PAIRS_BY_ID,
    dtype=[np.float32, np.float64],
)
def test_every_divergence_of_every_pair(isa, rng, name, forms, dtype):
    arrays = pair(rng, forms, (4, 47), dtype)
    temperature = 1.5 if "logits" in forms else 1
    keywords = {"form": forms, "temperature": temperature, "reduction": "none"}
    result = both(name, *arrays, **keywords)
    close(name, result, arrays, forms, temperature=temperature)
    assert same(functions(name)[0](*arrays, **keywords), result[0])
    for i, wrt in enumerate(BOTH):
        alone = functions(name)[1](*arrays, wrt=wrt, **keywords)
        assert same(alone, (result[0], result[1][i]))


@pairwise(isa=kldiv_fast.available_isas(), name=list(BY_NAME), forms=PAIRS_BY_ID)
def test_beside_mpmath(isa, name, forms):
    """Values, and slopes as differences of them, whatever the chain of formulas."""
    rng = np.random.default_rng(5)
    arrays = pair(rng, forms, (2, 5), np.float64)
    temperature = 0.7 if "logits" in forms else 1
    beta = {"beta": 0.3} if BY_NAME[name].parameters else {}
    rows, found = both(name, *arrays, form=forms, temperature=temperature, reduction="none", **beta)
    given = (forms, beta.get("beta", 0.5), temperature)
    np.testing.assert_allclose(rows, exact_form_rows(name, *arrays, *given), rtol=1e-13, atol=1e-15)
    for i in range(2):
        slopes = exact_form_slopes(name, *(x[i] for x in arrays), *given)
        for gradient, slope in zip(found, slopes, strict=True):
            np.testing.assert_allclose(
                gradient[i], slope, rtol=1e-12, atol=1e-13 * abs(slope).max()
            )


NEAR = {name: pair for name, pair in PAIRS_BY_ID.items() if "probs" not in pair}


@functools.cache
def near(forms, off, dtype, classes):
    """Rows that stand for distributions which differ by about `off`, as the dtype holds them."""
    rng = np.random.default_rng(20261128)
    log = np.log(rng.dirichlet(np.full(classes, 0.8), 3) + 1e-6)
    log -= np.log(np.exp(log).sum(axis=-1, keepdims=True))
    logs = log, log + off * rng.standard_normal(log.shape)
    made = {
        "counts": lambda x: 1000 * np.exp(x),
        "log_probs": lambda x: x,
        "logits": lambda x: x + 2,
    }
    return [made[form](x).astype(dtype) for form, x in zip(forms, logs, strict=True)]


@pairwise(
    isa=kldiv_fast.available_isas(),
    name=list(BY_NAME),
    forms=NEAR,
    off=[1, 1e-2, 1e-4, 1e-6],
)
def test_digits_however_near(isa, name, forms, off):
    """kl of what is not made to sum to 1 cancels, as its formula does: it is held to what one rounding moves."""
    for classes in (2, 46):
        arrays = near(forms, off, np.float32, classes)
        exact = exact_form_rows(name, *arrays, forms)
        ours = functions(name)[0](*arrays, form=forms, reduction="none")
        normalised = "log_probs" not in forms
        atol = 0 if normalised or name != "kl" else 1e-15
        np.testing.assert_allclose(ours, exact, rtol=2e-6, atol=atol)
        assert np.all(ours >= 0) or not normalised


@each_operation
@pytest.mark.parametrize(
    ("form", "rows"),
    [
        ("counts", [[1e-30, 1e10, 3, 5e-28], [1e10, 1e-29, 7, 2e-30]]),
        ("counts", [[3e38, 2e38, 1e38, 3e38], [3e37, 3e38, 3e38, 1e30]]),
        ("counts", [[1e-40, 3e-40, 2e-41, 1e-39], [3e-39, 3e-42, 3e-38, 1e-40]]),
        ("log_probs", [[12, 13, 11.5, 12.5], [12.5, 11.5, 13, 12]]),
        ("log_probs", [[-12, -13, -11.5, -12.5], [-12.5, -11.5, -13, -12]]),
    ],
    ids=["range", "huge", "tiny", "sum to many", "sum to nothing"],
)
def test_rows_whose_probabilities_float32_has_not(isa, name, form, rows):
    arrays = [np.array([x], np.float32) for x in rows]
    ours = functions(name)[0](*arrays, form=form, reduction="none")
    np.testing.assert_allclose(ours, exact_form_rows(name, *arrays, (form, form)), rtol=1e-6)


def most_alike(classes, first, temperature):
    """Rows of one other class, and all others alike: where all roundings go the same way."""
    arrays = np.zeros((2, 1, classes), np.float32)
    arrays[0, 0, 0], arrays[1, 0, 0] = first
    return *arrays, temperature


@each_operation
@pytest.mark.parametrize(
    ("y_true", "y_pred", "temperature"),
    [
        most_alike(1025, (6.2, 4.7), 0.7),
        most_alike(30721, (80.46928, 71.97462), 7),
        most_alike(128001, (9.3417, 7.93447), 0.7),
        most_alike(128001, (2.5, 8.441), 0.7),
    ],
    ids=["1025", "30721", "128001", "128001 the other way"],
)
def test_roundings_that_all_go_one_way(isa, name, y_true, y_pred, temperature):
    keywords = {"form": "logits", "temperature": temperature, "reduction": "none"}
    ours = functions(name)[0](y_true, y_pred, **keywords)
    wide = (x.astype(np.float64) for x in (y_true, y_pred))
    np.testing.assert_allclose(ours, functions(name)[0](*wide, **keywords), rtol=2e-6)


@each_operation
def test_counts_whose_sum_has_no_normal_inverse(isa, name):
    counts = np.full((2, 1, 5120), 1e36, np.float32)
    counts[1] = 1e30
    counts[0].reshape(10, 512)[:, :16] = 3e38
    counts[1, 0, :16] = 3.1e38
    rows = functions(name)[0](*counts, form="counts", reduction="none")
    exact = functions(name)[0](*counts.astype(np.float64), form="counts", reduction="none")
    np.testing.assert_allclose(rows, exact, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [1e-43, 1e-38])
def test_a_smoothing_that_float32_has_not(isa, rng, smoothing):
    logits = rng.normal(size=(3, 10)).astype(np.float32)
    keywords = {
        "form": ("labels", "logits"),
        "label_smoothing": smoothing,
        "reduction": "none",
        "epsilon": 1e-7,
    }
    rows = kldiv_fast.jeffreys([1, 5, 9], logits, **keywords)
    exact = kldiv_fast.jeffreys([1, 5, 9], logits.astype(np.float64), **keywords)
    np.testing.assert_allclose(rows, exact, rtol=1e-6)


@each_operation
@pytest.mark.parametrize("forms", PAIRS_BY_ID.values(), ids=PAIRS_BY_ID)
def test_any_nan_is_nan(isa, rng, name, forms):
    """Whatever its sign and its other bits, in rows that are far apart."""
    for payload in (0x7FC00001, 0xFFC00001, 0x7FC00101, 0xFFC001FF):
        for side in range(2):
            for dtype in (np.float32, np.float64):
                arrays = [x.astype(dtype) for x in pair(rng, forms, (1, 20), np.float32)]
                arrays[side][0, 7:8] = np.uint32([payload]).view(np.float32)
                if dtype == np.float64:
                    arrays[side].view(np.uint64)[0, 7] |= np.uint64(0x7A2)  # R's NA
                value = functions(name)[0](*arrays, form=forms, epsilon=None)
                assert np.isnan(value), (payload, side, dtype)


@each_operation
@pytest.mark.parametrize("form", ["counts", "log_probs", "logits"])
@each_dtype
def test_equal_rows_are_exactly_0(isa, rng, name, form, dtype):
    x = numbers(rng, form, (5, 300), dtype)
    rows, found = both(name, x, x.copy(), form=form, reduction="none")
    assert not rows.any()
    if form != "log_probs":
        for gradient in found:
            np.testing.assert_allclose(gradient, 0, atol=4 * np.finfo(dtype).eps)


@each_operation
@each_dtype
def test_exponents_beyond_the_format(isa, name, dtype):
    """Probabilities that underflow still have a logarithm, which the others are measured by."""
    far = 1e4 if dtype == np.float32 else 1e5
    rows = {
        "probs": [[0.5, 0.5, 0], [0.25, 0.5, 0.25]],
        "counts": [[1, 1, 0], [1, 2, 1]],
        "log_probs": [[-0.5, -far, -far / 3], [-far, -1, -2]],
        "logits": [[0, -far, -far / 3], [far, 0, 5]],
    }
    for forms in PAIRS:
        arrays = [np.array(rows[form], dtype) for form in forms]
        arrays[1] = arrays[1][::-1]
        for swapped in (arrays, [x[::-1] for x in arrays]):
            if any(form in ("probs", "counts") for form in forms) and name == "jeffreys":
                continue  # infinite beside 0
            kept = [i for i in range(2) if forms[1] in LOGS or np.all(swapped[1][i] > 0)]
            a, b = (x[kept] for x in swapped)
            exact = exact_form_rows(name, a, b, forms)
            ours = functions(name)[0](a, b, form=forms, reduction="none")
            rtol, atol = (2e-6, 1e-30) if dtype == np.float32 else (1e-13, 1e-290)
            np.testing.assert_allclose(ours, exact, rtol=rtol, atol=atol)


def test_known_answers(isa):
    """SciPy's entropy of counts, zeros included; PyTorch's and Keras's below."""
    t, p = np.array([[3, 0, 5, 2]]), np.array([[1, 4, 4, 1]])
    ours = kldiv_fast.kl(t, p, form="counts", reduction="none")
    np.testing.assert_allclose(ours, scipy.stats.entropy(t, p, axis=-1), rtol=1e-14)
    assert kldiv_fast.kl(p, t, form="counts") == INF
    for name, value in (("kl", 0.6348972650), ("jsd", 0.1513580), ("jeffreys", 1.3107027)):
        t, p = np.array([0.7, 0.2, 0.1]), np.array([0.2, 0.3, 0.5])
        given = {"probs": lambda x: x, "counts": lambda x: 7 * x, "log_probs": np.log, "logits": lambda x: np.log(x) + 3}  # fmt: skip
        for forms in PAIRS:
            a, b = (given[form](x) for form, x in zip(forms, (t, p), strict=True))
            assert functions(name)[0](a, b, form=forms) == pytest.approx(value, rel=1e-6)


# ---- special values ----

SPECIAL = {
    "counts of zeros": ("counts", [0, 0, 0], NAN),
    "logits that are all -inf": ("logits", [-INF, -INF, -INF], NAN),
    "an infinite logit": ("logits", [0, INF, 1], NAN),
    "NaN in counts": ("counts", [1, NAN, 2], NAN),
    "NaN in log_probs": ("log_probs", [-1, NAN, -2], NAN),
    "NaN in logits": ("logits", [1, NAN, 2], NAN),
    "a negative count": ("counts", [3, -1, 2], INF),
}


@pairwise(
    isa=kldiv_fast.available_isas(),
    name=list(BY_NAME),
    special=SPECIAL,
    dtype=[np.float32, np.float64, np.float16, ml_dtypes.bfloat16],
)
def test_special_values(isa, name, special, dtype):
    form, row, answer = special
    fine = {"probs": [0.2, 0.3, 0.5], "counts": [1, 2, 3], "log_probs": [-1, -2, -3], "logits": [1, 2, 3]}  # fmt: skip
    for other in FORMS:
        for forms, rows in (
            ((form, other), (row, fine[other])),
            ((other, form), (fine[other], row)),
        ):
            for width in (3, 40):
                a, b = (np.array([x[:2] + x[2:] * (width - 2)], dtype) for x in rows)
                ours = functions(name)[0](a, b, form=forms, reduction="none")
                np.testing.assert_array_equal(ours, answer)


@each_operation
def test_nothing_on_either_side(isa, name):
    """A class that both sides leave out is as if it weren't there; one that y_pred leaves out makes kl infinite."""
    nothing = {"probs": 0, "counts": 0, "log_probs": -INF, "logits": -INF}
    fine = {"probs": [0.2, 0.3, 0.5], "counts": [1, 2, 3], "log_probs": [-1, -2, -3], "logits": [1, 2, 3]}  # fmt: skip
    for forms in PAIRS:
        with_nothing = [np.array([[*fine[form], nothing[form]]]) for form in forms]
        without = [np.array([fine[form]], float) for form in forms]
        keywords = {"form": forms, "reduction": "none"}
        rows, found = both(name, *with_nothing, **keywords)
        expected, slopes = both(name, *without, **keywords)
        np.testing.assert_allclose(rows, expected, rtol=1e-14)
        for gradient, slope in zip(found, slopes, strict=True):
            np.testing.assert_allclose(gradient[:, :3], slope, rtol=1e-12, atol=1e-15)
        a, b = with_nothing[0].copy(), with_nothing[1]
        a[0, 3] = a[0, 2]
        value = functions(name)[0](a, b, **keywords)
        assert np.isfinite(value).all() if is_bounded(name) else np.all(value == INF)


def is_bounded(name):
    """Whether a class that one side alone leaves out adds something finite."""
    try:
        return math.isfinite(TERMS[name](1, 0, 0.5))
    except ZeroDivisionError:
        return False


# ---- layouts, dtypes, axes, broadcasting, threads ----


@pairwise(
    name=list(BY_NAME),
    forms=PAIRS_BY_ID,
    layout=LAYOUTS,
    axis=[-1, 0, (0, 2), (0, 1, 2)],
)
def test_layouts(rng, name, forms, layout, axis):
    shape = (3, 5, 47)
    arrays = pair(rng, forms, shape)
    axes = tuple(a % 3 for a in np.atleast_1d(axis))
    upstream = np.float32(rng.random(np.delete(shape, axes)))
    laid_out = [layout(x) for x in arrays]
    result = both(name, *laid_out, form=forms, axis=axis, reduction="none", upstream=upstream)
    close(name, result, arrays, forms, axes, factor=np.expand_dims(upstream, axes))
    assert same(functions(name)[0](*laid_out, form=forms, axis=axis, reduction="none"), result[0])


@pairwise(
    isa=kldiv_fast.available_isas(),
    forms=PAIRS_BY_ID,
    dtype=["float16", "bfloat16", "int64", "uint8", ">f4", ">f8"],
    shape=[(1, 1), (6,), (40, 10), (5, 1000), (3, 4097), (2, 70_000), (3000, 3)],
)
def test_shapes_and_dtypes(isa, rng, forms, dtype, shape):
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    arrays = [np.abs(x).astype(kind) if kind != np.float16 and np.dtype(kind).kind in "iu" else x.astype(kind) for x in pair(rng, forms, shape)]  # fmt: skip
    native = [x.astype(x.dtype.newbyteorder("=")) for x in arrays]
    name = "jsd" if np.dtype(kind).kind in "iu" else "generalized_kl"  # finite beside zeros
    result = both(name, *arrays, form=forms, reduction="none")
    if name == "jsd":
        exact = formula(name, native, forms)[0]
        np.testing.assert_allclose(result[0], exact, rtol=1e-10, atol=1e-14)
    else:
        close(name, result, native, forms)
    assert result[0].dtype == work_type(*native)


@pytest.mark.parametrize(("a", "b"), BROADCASTS, ids=str)
@pytest.mark.parametrize("forms", [("probs", "logits"), ("counts", "log_probs"), ("logits", "counts")], ids="-".join)  # fmt: skip
def test_broadcasting(isa, rng, a, b, forms):
    """What is made to sum to 1 does so over the classes that the two broadcast to."""
    arrays = [
        np.asarray(numbers(rng, form, shape)) for form, shape in zip(forms, (a, b), strict=True)
    ]
    for axis in (-1, 0, (0, 1)):
        axes = tuple(x % len(np.broadcast_shapes(a, b)) for x in np.atleast_1d(axis))
        for name in ("kl", "jeffreys"):
            result = both(name, *arrays, form=forms, axis=axis, reduction="none")
            close(name, result, arrays, forms, axes)


@each(
    isa=kldiv_fast.available_isas(),
    shape=[(3000, 46), (7, 30_000), (1, 400_000)],
    forms=PAIRS_BY_ID,
)
def test_bits_for_any_number_of_threads(isa, rng, shape, forms):
    arrays = pair(rng, forms, shape)
    for axis in (-1, 0):
        one, *others = (
            both("jsd", *arrays, form=forms, axis=axis, reduction="none", num_threads=n)
            for n in (1, 2, 3)
        )
        assert all(same(one, other) for other in others)


@pairwise(name=list(BY_NAME), forms=PAIRS_BY_ID)
def test_isas_have_the_same_bits(rng, name, forms):
    arrays = pair(rng, forms, (3, 1500))
    found = on_each_isa(lambda: both(name, *arrays, form=forms, reduction="none"))
    found.pop("baseline")
    first, *others = found.values()
    assert all(same(first, other) for other in others)


@pytest.mark.parametrize("forms", [("probs", "logits"), ("counts", "log_probs")], ids="-".join)
def test_weights_and_masks(isa, rng, forms):
    arrays = pair(rng, forms, (6, 30), np.float64)
    weight, mask = rng.random(6), np.array([1, 0, 1, 1, 0, 1], bool)
    for x in arrays:
        x[~mask] = NAN
    kept = [x[mask] for x in arrays]
    rows, found = both("kl", *arrays, form=forms, reduction="none", sample_weight=weight, mask=mask)
    expected, slopes = both("kl", *kept, form=forms, reduction="none", sample_weight=weight[mask])
    np.testing.assert_array_equal(rows[mask], expected)
    assert not rows[~mask].any()
    for gradient, slope in zip(found, slopes, strict=True):
        np.testing.assert_array_equal(gradient[mask], slope)
        assert not gradient[~mask].any()


# ---- labels ----


def one_hot(labels, classes, smoothing=0.0):
    return (1 - smoothing) * np.eye(classes)[labels] + smoothing / classes


@pairwise(
    isa=kldiv_fast.available_isas(),
    name=list(BY_NAME),
    form=FORMS,
    smoothing=[0.0, 0.1],
    dtype=[np.float32, np.float64],
)
def test_labels_are_one_hot_rows(isa, rng, name, form, smoothing, dtype):
    """With Keras's epsilon terms beside probabilities."""
    if name == "jeffreys" and form != "probs" and not smoothing:
        return  # infinite beside 0
    labels, y_pred = rng.integers(0, 47, 30), numbers(rng, form, (30, 47), dtype)
    keywords = {"form": ("labels", form), "label_smoothing": smoothing}
    rows, gradient = functions(name)[1](labels, y_pred, reduction="none", **keywords)
    forms = {"form": ("probs", form)} if form != "probs" else {}
    wide = one_hot(labels, 47, smoothing), y_pred.astype(np.float64)
    expected, slopes = functions(name)[1](*wide, reduction="none", **forms)
    rtol = 2e-6 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(rows, expected, rtol=rtol, atol=rtol / 10)
    np.testing.assert_allclose(gradient, slopes, rtol=4 * rtol, atol=rtol)
    assert rows.dtype == gradient.dtype == dtype
    assert same(functions(name)[0](labels, y_pred, reduction="none", **keywords), rows)


@pytest.mark.parametrize("shape", [(5, 3), (3, 1500), (2, 70_000), (2, 3, 11)], ids=str)
@pytest.mark.parametrize("form", ["probs", "logits"])
def test_labels_however_the_classes_lie(isa, rng, shape, form):
    """A class's number is the same along any axis, backwards, in pieces, for any number of threads."""
    y_pred = numbers(rng, form, shape)
    labels = rng.integers(0, shape[-1], shape[:-1])
    labels.flat[:2] = 0, shape[-1] - 1
    label_kl = functools.partial(kldiv_fast.kl_value_and_grad, form=("labels", form), reduction="none")  # fmt: skip
    rows, gradient = label_kl(labels, y_pred)
    for threads in (1, 2, 3):
        assert same(label_kl(labels, y_pred, num_threads=threads), (rows, gradient))
    for axis in range(len(shape)):
        moved = np.ascontiguousarray(np.moveaxis(y_pred, -1, axis))
        again, by_pred = label_kl(labels, moved, axis=axis)
        np.testing.assert_allclose(again, rows, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(np.moveaxis(by_pred, axis, -1), gradient, rtol=1e-5, atol=1e-7)
    again, by_pred = label_kl(labels, y_pred[..., ::-1].copy()[..., ::-1])
    np.testing.assert_allclose(again, rows, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(by_pred, gradient, rtol=1e-5, atol=1e-7)
    twice = np.repeat(y_pred, 2, axis=-1)[..., ::2]
    assert same(label_kl(labels, twice), (rows, gradient))


def flattened(x, axes):
    """With one class axis, the last, for several: numbered as NumPy's reshape numbers them."""
    last = np.moveaxis(x, axes, range(-len(axes), 0))
    return last.reshape(*last.shape[: -len(axes)], -1)


def laid(x, order, steps):
    """The same array: its axes in memory in an order, backwards where a step is -1, with gaps where it is not 1."""
    room = np.zeros([abs(step) * n for step, n in zip(steps, x.shape, strict=True)], x.dtype)
    room = room.transpose(order).copy().transpose(np.argsort(order))
    view = room[tuple(slice(None, None, step) for step in steps)]
    view[...] = x
    return view


@pytest.mark.parametrize("axis", [(1, 2), (2, 0), (-3, 1), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("form", ["probs", "logits"])
def test_labels_of_several_class_axes(isa, rng, form, axis):
    """A class's number does not depend on how the axes lie in memory, nor on their order among the arguments."""
    y_pred = numbers(rng, form, (3, 4, 5))
    axes = sorted(i % 3 for i in axis)
    flat = flattened(y_pred, axes)
    labels = rng.integers(0, flat.shape[-1], flat.shape[:-1])
    keywords = {"form": ("labels", form), "reduction": "none"}
    rows, gradient = kldiv_fast.kl_value_and_grad(labels, flat, **keywords)
    shape = [1 if i in axes else n for i, n in enumerate(y_pred.shape)]
    for order in itertools.permutations(range(3)):
        for steps in itertools.product((1, -1, -2), repeat=3):
            view = laid(y_pred, order, steps)
            again, by_pred = kldiv_fast.kl_value_and_grad(labels, view, axis=axis, **keywords)
            np.testing.assert_allclose(again, rows, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(flattened(by_pred, axes), gradient, rtol=1e-5, atol=1e-7)
            as_keras = kldiv_fast.kl(labels.reshape(shape), view, axis=axis, **keywords)
            assert same(as_keras, again)


@pytest.mark.parametrize("axis", [(0, 2), (1, 2)], ids=str)
@pytest.mark.parametrize("form", ["probs", "logits"])
def test_labels_of_several_class_axes_in_pieces(isa, rng, form, axis):
    """Long rows are cut, inside a run of neighbours and between runs."""
    y_pred = numbers(rng, form, (3, 3, 60_000))
    flat = flattened(y_pred, axis)
    labels = rng.integers(0, flat.shape[-1], flat.shape[:-1])
    labels[:2] = 0, flat.shape[-1] - 1
    keywords = {"form": ("labels", form), "reduction": "none"}
    rows, gradient = kldiv_fast.kl_value_and_grad(labels, flat, **keywords)
    for order in itertools.permutations(range(3)):
        view = laid(y_pred, order, (1, 1, -1))
        found = [
            kldiv_fast.kl_value_and_grad(labels, view, axis=axis, num_threads=threads, **keywords)
            for threads in (1, 2)
        ]
        assert same(*found)
        again, by_pred = found[0]
        np.testing.assert_allclose(again, rows, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(flattened(by_pred, axis), gradient, rtol=1e-5, atol=1e-7)


def test_labels_of_several_class_axes_that_repeat(rng):
    """Along some the elements are the same again, which have numbers of their own."""
    y_pred = np.broadcast_to(numbers(rng, "logits", (4, 1, 5)), (4, 3, 5))
    labels = np.array([0, 7, 14, 5])
    for array in (y_pred, y_pred.transpose(0, 2, 1)):
        flat = array.reshape(4, -1)
        keywords = {"form": ("labels", "logits"), "reduction": "none"}
        rows, gradient = kldiv_fast.kl_value_and_grad(labels, array, axis=(1, 2), **keywords)
        expected, slopes = kldiv_fast.kl_value_and_grad(labels, flat, **keywords)
        np.testing.assert_allclose(rows, expected, rtol=1e-5)
        np.testing.assert_allclose(gradient.reshape(4, -1), slopes, rtol=1e-5, atol=1e-7)


def test_labels_of_several_class_axes_where_some_are_left_out(rng):
    y_pred, where = numbers(rng, "logits", (6, 3, 4)), rng.random((6, 3, 4)) < 0.7
    labels, there = rng.integers(0, 12, 6), where.reshape(6, 12)
    there[range(6), labels] = True
    keywords = {"form": ("labels", "logits"), "reduction": "none"}
    rows = kldiv_fast.kl(labels, y_pred, axis=(1, 2), where=where, **keywords)
    expected = kldiv_fast.kl(labels, y_pred.reshape(6, 12), where=there, **keywords)
    np.testing.assert_allclose(rows, expected, rtol=1e-5)
    there[4, labels[4]] = False
    with pytest.raises(ValueError, match="y_true has in row 4 a label whose class where leaves"):
        kldiv_fast.kl(labels, y_pred, axis=(1, 2), where=where, **keywords)
    labels[2] = 12
    with pytest.raises(ValueError, match=r"the label 12 in row 2; expected one in \[0, 12\)"):
        kldiv_fast.kl(labels, y_pred, axis=(1, 2), where=where, **keywords)


@pytest.mark.parametrize("temperature", [0.5, 1, 20])
@pytest.mark.parametrize("above", [-200, -3, 0, 3, 12, 30, 60], ids=str)
@each_dtype
def test_digits_of_labels_beside_logits(isa, rng, dtype, above, temperature):
    """The label's logit so far above the others, whose part alone is then the loss: none of its digits is lost."""
    classes = 1000
    logits = rng.standard_normal((20, classes)).astype(dtype)
    labels = rng.integers(0, classes, 20)
    rows = np.arange(20)
    logits[rows, labels] = above
    z = (logits - logits[rows, labels][:, np.newaxis].astype(np.longdouble)) / temperature
    z[rows, labels] = -INF
    exact = np.log1p(np.exp(z).sum(axis=-1))
    # Each exponent is rounded, to a part of it.
    bound = np.finfo(dtype).eps * (20 + abs(np.max(z, axis=-1)) + 10 / temperature)
    keywords = {"form": ("labels", "logits"), "temperature": temperature, "reduction": "none"}
    value, gradient = kldiv_fast.kl_value_and_grad(labels, logits, **keywords)
    nothing = 4 * classes * np.finfo(dtype).tiny  # of exponentials that the format has none of
    assert np.all(abs(value - exact) <= bound * exact + nothing)
    of_label = np.expm1(-exact) / temperature
    off = abs(gradient[rows, labels] - of_label)
    assert np.all(off <= 2 * bound * abs(of_label) + nothing / temperature)


@pytest.mark.parametrize("classes", [2, 3, 17, 600])
@each_dtype
def test_special_values_of_labels_beside_logits(isa, dtype, classes):
    def row(*values):
        x = np.zeros(classes, dtype)
        x[: len(values)] = values
        return x

    rows = [row(1, NAN), row(NAN, 1), row(INF, 1), row(1, INF), row(-INF, 1), row(1, -INF)]
    rows += [np.full(classes, -INF, dtype)]
    value, gradient = kldiv_fast.kl_value_and_grad(
        np.zeros(7, int), np.array(rows), form=("labels", "logits"), reduction="none"
    )
    assert np.isnan(value).tolist() == [True, True, True, True, False, False, True]
    assert value[4] == INF
    np.testing.assert_allclose(value[5], np.log1p(np.exp(-1.0) * (classes - 2)), rtol=1e-6)
    assert np.isnan(gradient[:4]).all(axis=1).tolist() == [True] * 4
    assert gradient[5, 1] == 0
    alone = kldiv_fast.kl([0], np.array([[3]], dtype), form=("labels", "logits"))
    assert alone == 0


@pytest.mark.parametrize("temperature", [1e-300, 1e-39, 1e-30, 1e30, 1e46, 1e300])
@each_dtype
def test_temperatures_of_labels_at_the_format_s_ends(isa, dtype, temperature):
    x = np.array([[3, 3, 1]], dtype)
    value = kldiv_fast.kl([0], x, form=("labels", "logits"), temperature=temperature)
    np.testing.assert_allclose(value, np.log(2 if temperature < 1 else 3), rtol=1e-6)


@pytest.mark.parametrize("shape", [(500, 40), (3, 70_000), (40, 3)], ids=str)
@pytest.mark.parametrize("form", ["logits", "probs"])
def test_isas_have_the_same_bits_of_labels(rng, shape, form):
    labels, y_pred = rng.integers(0, shape[1], shape[0]), numbers(rng, form, shape)
    keywords = {"form": ("labels", form), "reduction": "none"}
    results = on_each_isa(lambda: kldiv_fast.kl_value_and_grad(labels, y_pred, **keywords))
    found = [result for isa, result in results.items() if isa != "baseline"]
    assert all(same(result, found[0]) for result in found)


@pytest.mark.parametrize("dtype", ["int8", "uint8", ">i4", "uint64", "int64"])
def test_labels_of_any_integer_type(rng, dtype):
    labels, logits = rng.integers(0, 12, (4, 5)), numbers(rng, "logits", (4, 5, 12))
    forms = {"form": ("labels", "logits"), "reduction": "none"}
    rows = kldiv_fast.kl(labels, logits, **forms)
    assert same(kldiv_fast.kl(labels.astype(dtype), logits, **forms), rows)
    assert same(kldiv_fast.kl(labels.tolist(), logits, **forms), rows)
    assert same(kldiv_fast.kl(labels[..., np.newaxis], logits, **forms), rows)
    first = kldiv_fast.kl(labels[:1], logits, **forms)
    assert same(first, kldiv_fast.kl(np.tile(labels[:1], (4, 1)), logits, **forms))
    assert kldiv_fast.kl(3, logits[0, 0], form=("labels", "logits")) > 0


def test_labels_that_do_not_count(rng):
    labels, logits = rng.integers(0, 12, 30), numbers(rng, "logits", (30, 12))
    weight, keep = rng.random(30), rng.random(30) < 0.6
    label_kl = functools.partial(kldiv_fast.kl, form=("labels", "logits"))
    ignored = np.where(keep, labels, -100)
    for reduction in ("mean", "sum", "none", "mean_with_sample_weight"):
        for weights in ({}, {"sample_weight": weight}):
            keywords = {"reduction": reduction} | weights
            expected = label_kl(labels, logits, mask=keep, **keywords)
            assert same(label_kl(ignored, logits, ignore_class=-100, **keywords), expected)
            assert same(label_kl(ignored, logits, mask=keep, **keywords), expected)  # not looked at
            half = keep & (np.arange(30) < 15)
            expected = label_kl(labels, logits, mask=half, **keywords)
            ours = label_kl(ignored, logits, ignore_class=-100, mask=np.arange(30) < 15, **keywords)
            assert same(ours, expected)


L = np.array([0, 1, 2])
BAD_LABELS = {
    "beyond": (dict(y_true=L + 2), ValueError, "y_true has the label 4 in row 2; expected one in [0, 4)"),
    "negative": (dict(y_true=[[0, 1, -1]]), ValueError, "y_true has shape (1, 3); expected labels that broadcast"),
    "negative one": (dict(y_true=[0, -1, -1]), ValueError, "y_true has the label -1 in row 1; expected one in [0, 4)"),
    "floats": (dict(y_true=L * 1.0), TypeError, "y_true is of dtype float64; expected integers"),
    "bools": (dict(y_true=L > 1), TypeError, "y_true is of dtype bool; expected integers"),
    "rows": (dict(y_true=L[:2]), ValueError, "y_true has shape (2,); expected labels that broadcast with the rows' shape (3,)"),
    "axes": (dict(axis=(0, 1)), ValueError, "y_true has shape (3,); expected labels that broadcast"),
    "smoothing": (dict(label_smoothing=1.5), ValueError, "label_smoothing is 1.5; expected a number in [0, 1]"),
    "smoothing of none": (dict(label_smoothing=0.1, form="logits", y_true=X), ValueError, "label_smoothing is 0.1, which is for labels alone"),
    "ignored": (dict(ignore_class=1.5), TypeError, "ignore_class is of type float; expected an integer, or None"),
    "ignored of none": (dict(ignore_class=1, form="logits", y_true=X), ValueError, "ignore_class is 1, which is for labels alone"),
    "epsilon": (dict(epsilon=0.1), ValueError, "nothing is clipped beside logits"),
}  # fmt: skip


def test_masks_of_labels_may_have_any_shape_that_masks_have(rng):
    labels, y_pred = np.array([0, 1, 2, 0, -7]), numbers(rng, "probs", (5, 3))
    mask = np.array([True, True, True, True, False])
    label_kl = functools.partial(kldiv_fast.kl, y_pred=y_pred, form=("labels", "probs"))
    value = label_kl(labels, mask=mask)
    for t in (labels, labels[:, np.newaxis]):
        for m in (mask, mask[:, np.newaxis]):
            assert label_kl(t, mask=m) == value
            assert label_kl(t, mask=m, ignore_class=5) == value
            ignoring = label_kl(t, mask=m & (t.reshape(m.shape) != 2))
            assert label_kl(t, mask=m, ignore_class=2) == ignoring
    assert label_kl(labels, mask=np.zeros(1, bool)) == 0
    with pytest.raises(
        ValueError, match=r"mask has shape \(4,\), which does not broadcast with the"
    ):
        label_kl(labels, mask=np.ones(4, bool), ignore_class=0)
    for keywords in ({}, {"ignore_class": 0}):
        with pytest.raises(TypeError, match="mask is of dtype float64; expected bool"):
            label_kl(labels, mask=np.ones(5), **keywords)


@pytest.mark.parametrize(("change", "error", "message"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_bad_labels(change, error, message):
    arguments = {"y_true": L, "y_pred": X, "form": ("labels", "logits")} | change
    for function in functions("kl"):
        with pytest.raises(error) as caught:
            function(**arguments)
        assert str(caught.value).startswith(message) or message in str(caught.value)


def test_labels_have_no_gradient():
    for wrt in ("y_true", BOTH):
        with pytest.raises(ValueError, match="expected 'y_pred': labels have no gradient"):
            kldiv_fast.kl_value_and_grad(L, X, form=("labels", "logits"), wrt=wrt)


def test_the_core_checks_labels():
    run = functools.partial(_core.run, forms=(4, 0))
    for labels in (L.astype(np.int32)[:, np.newaxis], np.ones((3, 4), int)):
        with pytest.raises((TypeError, ValueError), match="labels must"):
            run(labels, X, 1, (3,), None, None, None, 1e-7, 0)
    with pytest.raises(ValueError, match="labels are for y_true alone"):
        _core.run(X, X, 1, (3,), None, None, None, 1e-7, 0, forms=(0, 4))


# ---- others' results ----


def test_torch(rng):
    """kl_div with its input a logarithm, and its target one or not."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    t, p = rng.dirichlet(np.ones(46), (2, 60))
    target, log = torch.from_numpy(t), torch.from_numpy(np.log(p)).requires_grad_()
    loss = functional.kl_div(log, target, reduction="batchmean")
    loss.backward()
    value, gradient = kldiv_fast.kl_value_and_grad(t, np.log(p), form=("probs", "log_probs"))
    np.testing.assert_allclose(value, loss.item(), rtol=1e-12)
    np.testing.assert_allclose(gradient, log.grad.numpy(), rtol=1e-12)
    theirs = functional.kl_div(log, target.log(), log_target=True, reduction="batchmean").item()
    assert kldiv_fast.kl(np.log(t), np.log(p), form="log_probs") == pytest.approx(theirs, rel=1e-12)
    logits = torch.from_numpy(rng.normal(size=(60, 46))).requires_grad_()
    loss = functional.cross_entropy(logits, target)
    loss.backward()
    entropy = scipy.stats.entropy(t, axis=-1).mean()
    value, gradient = kldiv_fast.kl_value_and_grad(t, logits.detach().numpy(), form=("probs", "logits"))  # fmt: skip
    np.testing.assert_allclose(value, loss.item() - entropy, rtol=1e-12)
    np.testing.assert_allclose(gradient, logits.grad.numpy(), rtol=1e-10, atol=1e-16)


def test_torch_labels(rng):
    torch = pytest.importorskip("torch")
    labels, logits = rng.integers(0, 46, 60), rng.normal(size=(60, 46))
    ignored = np.where(rng.random(60) < 0.2, -100, labels)
    tensor = torch.from_numpy(logits).requires_grad_()
    for smoothing in (0.0, 0.2):
        t = one_hot(0, 46, smoothing)
        loss = torch.nn.functional.cross_entropy(
            tensor, torch.from_numpy(ignored), label_smoothing=smoothing
        )
        (slopes,) = torch.autograd.grad(loss, tensor)
        value, gradient = kldiv_fast.kl_value_and_grad(
            ignored, logits, form=("labels", "logits"), ignore_class=-100, label_smoothing=smoothing
        )
        np.testing.assert_allclose(value + scipy.stats.entropy(t), loss.item(), rtol=1e-13)
        np.testing.assert_allclose(gradient, slopes.numpy(), rtol=1e-10, atol=1e-16)


def test_keras_labels(rng):
    """One-hot rows for its KLDivergence; from logits its sparse cross-entropy."""
    keras = pytest.importorskip("keras")
    labels = rng.integers(0, 46, 60)
    p = rng.dirichlet(np.ones(46), 60).astype(np.float32)
    theirs = keras.losses.KLDivergence()(keras.utils.to_categorical(labels, 46), p)
    ours = kldiv_fast.kl(labels, p, form=("labels", "probs"))
    np.testing.assert_allclose(ours, keras.ops.convert_to_numpy(theirs), rtol=1e-6)
    uniform = np.full((1, 46), 1 / 46)
    assert kldiv_fast.kl([3], uniform, form=("labels", "probs")) == pytest.approx(
        3.82858609394495, rel=1e-14
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=7)
    labels[::5] = 7
    theirs = keras.ops.convert_to_numpy(loss(labels, np.log(p)))
    ours = kldiv_fast.kl(labels, np.log(p), form=("labels", "logits"), ignore_class=7)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_keras(rng):
    keras = pytest.importorskip("keras")
    t = rng.dirichlet(np.ones(46), 60).astype(np.float32)
    logits = rng.normal(size=(60, 46)).astype(np.float32)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, reduction=None)
    theirs = keras.ops.convert_to_numpy(loss(t, logits)) - scipy.stats.entropy(t, axis=-1)
    ours = kldiv_fast.kl(t, logits, form=("probs", "logits"), reduction="none")
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


# ---- generated calls ----


def of_any_size(rng, shape, scale, dtype):
    """Counts, and logarithms if they may be negative."""
    x = rng.gamma(0.7, size=shape) * min(scale, 1) + 1e-3
    return np.ceil(x) if dtype.kind in "biu" else x


@given(call=calls(of_any_size), name=st.sampled_from(list(BY_NAME)), forms=st.sampled_from(PAIRS))
def test_any_call(call, name, forms):
    y_true, y_pred, keywords = call
    del keywords["epsilon"]
    arrays, axis = (y_true, y_pred), keywords["axis"]
    rows, _, off, _ = formula(name, arrays, forms, axis)
    beside = {key: keywords[key] for key in ("reduction", "sample_weight", "mask")}
    exact, bound = reduced(rows, off, **beside)
    results = on_each_isa(
        lambda: (
            both(name, *arrays, form=forms, **keywords),
            functions(name)[0](*arrays, form=forms, **keywords),
        )
    )
    for isa, ((value, found), alone) in results.items():
        assert same(value, alone), isa
        rounding = np.finfo(value.dtype).eps * np.abs(exact)
        assert np.all(np.abs(value - exact) <= bound + rounding + 1e-300), isa
        assert [x.shape for x in found] == [x.shape for x in arrays]


# ---- the keywords: from the core's table, through C and through Python ----


def test_the_table():
    assert _core.forms() == [*FORMS, "labels"]


@each_operation
def test_probs_is_the_default(rng, name):
    t, p = rng.random((2, 40, 7), np.float32)
    for function in functions(name):
        plain = function(t, p)
        for form in ("probs", str(b"probs", "ascii"), ("probs", "probs"), ["probs"] * 2):
            assert same(function(t, p, form=form, temperature=1), plain)
            assert same(function(t.tolist(), p, form=form), plain)


KNOWN = "expected one of: 'probs', 'counts', 'log_probs', 'logits', or a pair of them, or 'labels' and one"
BAD = {
    "unknown": (dict(form="logit"), ValueError, f"form is 'logit'; {KNOWN}"),
    "labels of both": (dict(form="labels"), ValueError, f"form is 'labels'; {KNOWN}"),
    "labels of y_pred": (dict(form=("probs", "labels")), ValueError, f"form is ('probs', 'labels'); {KNOWN}"),
    "unknown of two": (dict(form=("probs", "p")), ValueError, f"form is ('probs', 'p'); {KNOWN}"),
    "one of two": (dict(form=("logits",)), ValueError, f"form is ('logits',); {KNOWN}"),
    "three": (dict(form=["probs"] * 3), ValueError, f"form is ['probs', 'probs', 'probs']; {KNOWN}"),
    "none of two": (dict(form=()), ValueError, f"form is (); {KNOWN}"),
    "a number": (dict(form=1), TypeError, f"form is 1; {KNOWN}"),
    "None": (dict(form=None), TypeError, f"form is None; {KNOWN}"),
    "numbers": (dict(form=(0, 1)), TypeError, f"form is (0, 1); {KNOWN}"),
    "a set": (dict(form={"probs"}), TypeError, f"form is {{'probs'}}; {KNOWN}"),
}  # fmt: skip
NUMBER = "expected a finite number above 0"
BAD_TEMPERATURE = {
    "0": (0, ValueError, f"temperature is 0; {NUMBER}"),
    "negative": (-1.5, ValueError, f"temperature is -1.5; {NUMBER}"),
    "NaN": (NAN, ValueError, f"temperature is nan; {NUMBER}"),
    "infinite": (INF, ValueError, f"temperature is inf; {NUMBER}"),
    "beyond a double": (10**400, ValueError, NUMBER),
    "text": ("1", TypeError, f"temperature is '1'; {NUMBER}"),
    "None": (None, TypeError, f"temperature is of type NoneType; {NUMBER}"),
    "a bool": (True, TypeError, f"temperature is True; {NUMBER}"),
    "a list": ([2.0], TypeError, f"temperature is of type list; {NUMBER}"),
}


@each_operation
@pytest.mark.parametrize(("keywords", "error", "message"), BAD.values(), ids=BAD)
def test_bad_forms(name, keywords, error, message):
    for function in functions(name):
        with pytest.raises(error) as caught:
            function(X, X, **keywords)
        assert message == str(caught.value)


@each_operation
@pytest.mark.parametrize(
    ("given", "error", "message"), BAD_TEMPERATURE.values(), ids=BAD_TEMPERATURE
)
def test_bad_temperatures(name, given, error, message):
    for function in functions(name):
        for form in ("probs", "logits", ("counts", "logits")):
            with pytest.raises(error) as caught:
                function(X, X, form=form, temperature=given)
            assert message in str(caught.value)


@each_operation
def test_a_temperature_is_of_logits(name):
    for function in functions(name):
        for keywords in ({}, {"form": "probs"}, {"form": ("counts", "log_probs")}):
            with pytest.raises(
                ValueError, match="temperature is 2, which is for logits alone; expected 1"
            ):
                function(X, X, temperature=2, **keywords)
            function(X, X, temperature=1, **keywords)
            function(X, X, temperature=np.float32(1), **keywords)


@each_pair
def test_nothing_is_clipped_beside_other_forms(rng, forms):
    arrays = pair(rng, forms, (5, 6))
    other = next(form for form in forms if form != "probs")
    for function in functions("kl"):
        plain = function(*arrays, form=forms)
        for epsilon in (1e-7, None):
            assert same(function(*arrays, form=forms, epsilon=epsilon), plain)
            assert same(function(arrays[0].tolist(), arrays[1], form=forms, epsilon=epsilon), plain)
        for epsilon in (0, 0.0, 1e-6, 0.5):
            message = f"epsilon is {epsilon}, but nothing is clipped beside {other}; expected"
            with pytest.raises(ValueError, match=message):
                function(*arrays, form=forms, epsilon=epsilon)
        for epsilon, error in ((-1, ValueError), (NAN, ValueError), ("1e-7", TypeError)):
            with pytest.raises(
                error, match=r"epsilon is .*; expected a number in \[0, 1\), or None"
            ):
                function(*arrays, form=forms, epsilon=epsilon)
