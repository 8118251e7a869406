"""Rows of scipy.sparse on either side of every divergence: the values of the same rows dense, made so a tile at a time."""

import tracemalloc

import kldiv_fast
import numpy as np
import pytest
import scipy.sparse
from pairwise import pairwise
from test_forms import BY_NAME, functions

RNG = np.random.default_rng(7)
N, CLASSES = 23, 40
REDUCTIONS = ["mean", "sum", "batchmean", "mean_with_sample_weight", "none"]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr("kldiv_fast._sparse._DENSE", 5 * CLASSES)


def counts(n=N, dtype=np.float64):
    found = RNG.integers(0, 9, (n, CLASSES)) * (RNG.random((n, CLASSES)) < 0.3)
    return (found + np.eye(n, CLASSES)).astype(dtype)


def beside(what):
    given = {
        "nothing": {},
        "weights": {"sample_weight": RNG.random(N)},
        "weights of one axis": {"sample_weight": RNG.random((N, 1))},
        "mask": {"mask": np.arange(N) % 3 > 0},
        "where": {"where": np.arange(CLASSES) % 5 > 0},
        "a where of each row": {"where": (np.add.outer(np.arange(N), np.arange(CLASSES)) % 5) > 0},
        "base": {"base": 2},
    }
    return given[what]


def close(a, b, dtype=np.float64):
    assert a.dtype == b.dtype and a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=8 * np.finfo(dtype).eps)


@pairwise(
    name=list(BY_NAME),
    sides={"sparse, dense": (1, 0), "dense, sparse": (0, 1), "both": (1, 1)},
    container=["csr_array", "coo_matrix", "csc_array"],
    reduction=REDUCTIONS,
    given={x: x for x in ["nothing", "weights", "weights of one axis", "mask", "where", "a where of each row", "base"]},
    form=["counts", "probs"],
)  # fmt: skip
def test_the_values_of_dense_rows(name, sides, container, reduction, given, form):
    given = beside(given) | {"reduction": reduction, "form": form}
    if form == "counts":
        given["pseudocount"] = 0.5
    dense = [counts(), counts()]
    rows = [
        getattr(scipy.sparse, container)(x) if is_sparse else x
        for x, is_sparse in zip(dense, sides, strict=True)
    ]
    function = functions(name)[0]
    close(function(*rows, **given), function(*dense, **given))


@pairwise(name=list(BY_NAME), wrt=["y_true", "y_pred"], reduction=REDUCTIONS, shared=[False, True])
def test_gradients(name, wrt, reduction, shared):
    """A row that all others share has the sum of what each makes of it."""
    dense = {"y_true": counts(), "y_pred": counts()}
    if shared:
        dense[wrt] = dense[wrt][:1] + 1
    rows = {side: scipy.sparse.csr_array(x) for side, x in dense.items()}
    given = {"form": "counts", "pseudocount": 1.0, "reduction": reduction, "wrt": wrt}
    gradient = functions(name)[1]
    for ours, exact in zip(gradient(**rows, **given), gradient(**dense, **given), strict=True):
        assert isinstance(ours, (np.ndarray, np.floating)) and ours.shape == exact.shape
        np.testing.assert_allclose(ours, exact, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, bool])
def test_dtypes(dtype):
    x, y = counts(dtype=dtype), counts(dtype=dtype)
    close(
        kldiv_fast.jsd(scipy.sparse.csr_array(x), scipy.sparse.csr_array(y), form="counts"),
        kldiv_fast.jsd(x, y, form="counts"),
        np.float32 if dtype == np.float32 else np.float64,
    )


@pytest.mark.parametrize(
    ("shapes", "axis"),
    [
        (((N, CLASSES), (CLASSES,)), -1),
        (((N, CLASSES), (1, CLASSES)), -1),
        (((1, CLASSES), (N, CLASSES)), 1),
        (((N, CLASSES), (3, N, CLASSES)), -1),
        (((N, CLASSES), (3, N, CLASSES)), 1),
        (((N, CLASSES), (N, CLASSES)), 0),
        (((0, CLASSES), (0, CLASSES)), -1),
        (((CLASSES,), (N, CLASSES)), -1),
    ],
    ids=str,
)
def test_shapes(shapes, axis):
    x, y = (RNG.integers(1, 9, shape).astype(np.float64) for shape in shapes)
    given = {"form": "counts", "axis": axis, "reduction": "none"}
    close(kldiv_fast.kl(scipy.sparse.coo_array(x), y, **given), kldiv_fast.kl(x, y, **given))


def test_labels_beside_them():
    labels = RNG.integers(0, CLASSES, N)
    pred = counts() / 40
    given = {"form": ("labels", "probs"), "reduction": "none"}
    close(
        kldiv_fast.kl(labels, scipy.sparse.csr_array(pred), **given),
        kldiv_fast.kl(labels, pred, **given),
    )


def test_out_and_an_out_in_the_way():
    x, y = scipy.sparse.csr_array(counts()), counts()
    exact = kldiv_fast.kl(x, y, form="counts", pseudocount=1, reduction="none")
    out = np.empty(N)
    assert (
        kldiv_fast.kl(x, y, form="counts", pseudocount=1, reduction="none", out=out) is out
        and (out == exact).all()
    )
    in_the_way = x.data[:N]
    kldiv_fast.kl(x, y, form="counts", pseudocount=1, reduction="none", out=in_the_way)
    assert (in_the_way == exact).all()


@pytest.mark.parametrize("labels", [False, True])
def test_no_array_of_their_size(labels, monkeypatch):
    monkeypatch.undo()
    wide = scipy.sparse.random_array((2000, 20_000), density=1e-3, rng=0, format="csr")
    form = ("labels", "counts") if labels else "counts"
    y_true = np.zeros(2000, int) if labels else wide
    tracemalloc.start()
    value = kldiv_fast.kl(y_true, wide, form=form, pseudocount=1e-3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert value > 0 if labels else value == 0
    assert peak < 2000 * 20_000 * 8 / 16  # two tiles of 4 MB, where one array has 320


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"axis": (0, 1)}, ValueError, r"axis is \(0, 1\); expected one axis, of the sparse array"),
        ({"y_pred": np.ones((N, 3))}, ValueError, "does not broadcast"),
        ({"y_true": scipy.sparse.csr_array(counts() * 1j)}, TypeError, "y_true is of dtype complex128"),
        ({"sample_weight": scipy.sparse.csr_array(np.ones((N, 1)))}, TypeError, "sample_weight is a sparse array"),
        ({"validate": True, "form": "probs"}, ValueError, r"y_true has the .* in row 0; expected probabilities"),
        ({"form": "log_probs", "validate": True}, ValueError, "y_true has the .* in row 0"),
    ],
)  # fmt: skip
def test_what_is_refused(given, error, said):
    given = {"y_true": scipy.sparse.csr_array(counts()), "y_pred": counts()} | given
    with pytest.raises(error, match=said):
        kldiv_fast.kl(**given)


def test_the_row_that_is_wrong_is_named_by_its_number_in_the_whole():
    x = counts()
    x[17, 3] = -1
    with pytest.raises(ValueError, match=r"y_true has the element -1 in row 17"):
        kldiv_fast.kl(scipy.sparse.csr_array(x), counts(), form="counts", validate=True)
