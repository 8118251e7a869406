"""Matrices of divergences: SciPy's meaning, the family's values, all digits, the same bits whatever the threads and ISA."""

import itertools
import re
import runpy
import tracemalloc
from pathlib import Path

import kldiv_fast
import ml_dtypes
import numpy as np
import pytest
import scipy.sparse
import scipy.spatial.distance
from isas import selected
from kldiv_fast.distance import METRICS, cdist, jensenshannon, pdist
from pairwise import pairwise
from test_properties import laid_out

EXAMPLE = Path(__file__).parents[1] / "examples" / "distances.py"
ROOTS = ("jensenshannon", "js")
ISAS = kldiv_fast.available_isas()
# What distance.cdist's documentation promises.
RTOL = {np.dtype(np.float32): 4e-6, np.dtype(np.float64): 4e-13}


def rows(n, classes, alpha=1.0, dtype=np.float64, seed=0):
    """Distributions, none of whose elements is 0."""
    x = np.random.default_rng(seed).dirichlet(np.full(classes, alpha), n)
    return ((x + 1e-9) / (1 + classes * 1e-9)).astype(dtype)


def by_function(metric, a, b, form="counts", **keywords):
    """The function for rows, on all pairs."""
    function = getattr(kldiv_fast, METRICS[metric].operation.name)
    values = function(a[:, np.newaxis], b, form=form, reduction="none", **keywords)
    return np.sqrt(values) if metric in ROOTS else values


def expected(metric, a, b, form="counts", **keywords):
    """The same in float64."""
    return by_function(metric, *(np.asarray(x, np.float64) for x in (a, b)), form, **keywords)


# ---- SciPy's meaning ----


@pytest.mark.parametrize("metric", ROOTS)
def test_it_is_scipys(metric):
    a, b = 5 * rows(31, 46), 3 * rows(70, 46, seed=1)
    a[3, 5:9] = b[4, 7:] = 0
    theirs = scipy.spatial.distance
    np.testing.assert_allclose(cdist(a, b, metric), theirs.cdist(a, b, metric), rtol=1e-9)
    np.testing.assert_allclose(pdist(a, metric), theirs.pdist(a, metric), rtol=1e-9)
    assert np.array_equal(theirs.squareform(pdist(a, metric)), cdist(a, a, metric))


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("base", [None, 2])
def test_jensenshannon_is_scipys(base, axis, keepdims):
    p, q = 3 * rows(5, 7), rows(5, 7, seed=1)
    ours, theirs = (
        f(p, q, base, axis=axis, keepdims=keepdims)
        for f in (jensenshannon, scipy.spatial.distance.jensenshannon)
    )
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert jensenshannon(p[0], q[0]).shape == ()


def test_what_scipy_loses():
    # https://github.com/scipy/scipy/issues/20083, https://github.com/scipy/scipy/issues/19436
    p = np.array([[0.027501475, 0.055202297]], np.float32)
    q = np.array([[0.027537677, 0.055334348]], np.float32)
    assert 0 < jensenshannon(p, q, axis=1)[0] < 1e-3
    assert 0 < cdist(p, q)[0, 0] < 1e-3
    assert np.isfinite(cdist([[0.0, 1.0]], [[5e-324, 1.0]])).all()


def test_rows_of_zeros_and_what_is_no_number_are_the_familys():
    a, b = rows(9, 5), rows(4, 5, seed=1)
    a[1] = 0
    a[2, 3], a[3, 0], a[4, 1], b[2, 2] = np.nan, np.inf, -0.5, 0
    for metric in METRICS:
        np.testing.assert_allclose(cdist(a, b, metric), expected(metric, a, b), rtol=1e-13)
    assert np.isnan(cdist(a, b)[1]).all()


# ---- values ----


@pairwise(
    isa=ISAS,
    metric=list(METRICS),
    dtype=[np.float32, np.float64],
    alpha=[0.1, 1, 30, 1e4],
    shape=[(3, 2, 7), (100, 40, 5), (13, 130, 46), (97, 31, 1000)],
    form=["counts", "probs", "unclipped"],
)
def test_any_rows(isa, metric, dtype, alpha, shape, form):
    n, m, classes = shape
    a, b = rows(n, classes, alpha, dtype), rows(m, classes, alpha, dtype, seed=1)
    b[m // 2] = a[n // 2]
    b[m // 3] = a[n // 3] * (1 + np.finfo(dtype).eps * np.arange(classes)).astype(dtype)
    given = {"form": "counts" if form == "counts" else "probs"}
    if form == "counts":
        a, b = 100 * a, 3 * b
    else:
        given["epsilon"] = 1e-6 if form == "probs" else None
    with selected(isa):
        found, own = cdist(a, b, metric, **given), by_function(metric, a, b, **given)
    assert found.dtype == dtype
    exact = expected(metric, a, b, **given)
    # Its terms are then of either sign: what is left to the function has the function's digits.
    if metric == "kl" and form != "counts":
        exact = np.where(found == own, found, exact)
    # Of rows that are equal but for their scale the inputs' rounding is all that there is.
    least = np.finfo(dtype).eps ** (1 if metric in ROOTS else 2)
    np.testing.assert_allclose(found, exact, rtol=RTOL[np.dtype(dtype)], atol=10 * least)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_that_nearly_agree_keep_their_digits(metric, dtype):
    """Clusters: most pairs are much nearer to each other than to the center."""
    centers = rows(6, 46, 0.3)
    rng = np.random.default_rng(2)
    x = np.repeat(centers, 8, axis=0) * np.exp(rng.normal(0, 1e-3, (48, 46)))
    x = x.astype(dtype)
    found, exact = cdist(x, x, metric), expected(metric, x, x)
    assert np.array_equal(np.diag(found), np.zeros(48))
    np.testing.assert_allclose(found, exact, rtol=RTOL[np.dtype(dtype)])


@pytest.mark.parametrize("metric", ["kl", "jsd"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_error_anywhere_between_near_and_far(metric, dtype):
    """Where the two ways meet: pairs at all distances, in units of that to the center, of few classes, whose errors don't average."""
    for classes, spread in itertools.product((2, 5, 46), (0.01, 0.1, 1, 5)):
        rng = np.random.default_rng(3)
        a = np.exp(rng.normal(0, spread, (60, classes)))
        b = a[::-1] * np.exp(
            rng.normal(0, 1, (60, classes)) * spread * np.geomspace(1e-3, 1, 60)[:, np.newaxis]
        )
        a, b = a.astype(dtype), b.astype(dtype)
        np.testing.assert_allclose(
            cdist(a, b, metric), expected(metric, a, b), rtol=RTOL[np.dtype(dtype)]
        )


@pytest.mark.parametrize("beta", [0, 0.1, 0.5, 0.9, 1])
def test_beta(beta):
    a, b = rows(20, 46), rows(25, 46, seed=1)
    exact = expected("jsd", a, b, beta=beta)
    np.testing.assert_allclose(cdist(a, b, "jsd", beta=beta), exact, rtol=1e-12)
    condensed = pdist(a, "jsd", beta=beta)
    of_all = expected("jsd", a, a, beta=beta)
    np.testing.assert_allclose(condensed, of_all[np.triu_indices(20, 1)], rtol=1e-12)
    np.testing.assert_allclose(cdist(a, a, "jsd", beta=beta), of_all, rtol=1e-12, atol=1e-30)


@pytest.mark.parametrize("form", ["log_probs", "logits", ("probs", "logits"), ("counts", "probs")])
@pytest.mark.parametrize("metric", METRICS)
def test_other_forms(metric, form):
    a, b = rows(7, 20), rows(9, 20, seed=1)
    pair = (form, form) if isinstance(form, str) else form
    a, b = (
        x if of in ("probs", "counts") else np.log(x) for x, of in zip((a, b), pair, strict=True)
    )
    given = {"temperature": 2.0} if "logits" in pair else {}
    np.testing.assert_allclose(
        cdist(a, b, metric, form=form, **given), expected(metric, a, b, form, **given), rtol=1e-14
    )


@pytest.mark.parametrize("metric", METRICS)
def test_keywords(metric):
    a, b = np.round(20 * rows(12, 9, 0.2)), np.round(20 * rows(5, 9, 0.2, seed=1))
    given = {"pseudocount": 0.5, "base": 2}
    np.testing.assert_allclose(
        cdist(a, b, metric, **given), expected(metric, a, b, **given), rtol=1e-12
    )


# ---- layouts, dtypes, threads ----


@pairwise(
    metric=["jensenshannon", "kl", "jeffreys"],
    dtype=[np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int64, np.uint8],
    layout=["C", "F", "strided", "reversed", "foreign"],
    form=["counts", "logits"],
)
def test_any_dtype_and_layout(metric, dtype, layout, form):
    a, b = ((20 * rows(n, 300, seed=n) * 300 + 1).astype(dtype) for n in (10, 41))
    found = cdist(laid_out(a, layout), laid_out(b, layout), metric, form=form)
    wide = dtype in (np.float64, np.int64, np.uint8)
    assert found.dtype == (np.float64 if wide else np.float32)
    exact = expected(metric, a, b, form)
    rtol = (
        RTOL[found.dtype] if form == "counts" else 1e-12 if wide else 1e-5
    )  # test_logits.py has their bound
    np.testing.assert_allclose(found, exact, rtol=rtol, atol=1e-30)


@pytest.mark.parametrize("metric", ["jensenshannon", "kl", "jeffreys"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_same_bits_on_any_threads_and_isa(metric, dtype):
    a, b = rows(105, 300, dtype=dtype), rows(1030, 300, dtype=dtype, seed=1)
    with selected(ISAS[0]):
        one = cdist(a, b, metric, num_threads=1)
        assert np.array_equal(cdist(a, b, metric, num_threads=2), one)
    for isa in ISAS[1:]:
        with selected(isa):
            found = cdist(a, b, metric)
        if isa != "baseline":
            assert np.array_equal(found, one)
        np.testing.assert_allclose(found, one, rtol=RTOL[np.dtype(dtype)])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parts_and_wholes_agree(metric, dtype):
    """Whose centers differ, and so last bits."""
    a, b = rows(60, 46, dtype=dtype), rows(70, 46, dtype=dtype, seed=1)
    part, whole = cdist(a[:5], b[60:], metric), cdist(a, b, metric)[:5, 60:]
    np.testing.assert_allclose(part, whole, rtol=2 * RTOL[np.dtype(dtype)])


@pytest.mark.parametrize("metric", METRICS)
def test_halves_and_wholes_agree(metric):
    x = rows(130, 33, 0.5)
    whole = cdist(x, x.copy(), metric)
    mirrored = cdist(x, x, metric)
    upper = np.triu_indices(130, 1)
    assert np.array_equal(mirrored[upper], whole[upper])
    assert np.array_equal(pdist(x, metric), whole[upper])
    if metric not in ("kl", "generalized_kl"):
        assert np.array_equal(mirrored, mirrored.T)


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (0, 0, 0), (1, 1, 1)])
def test_no_rows(shape):
    n, m, classes = shape
    assert cdist(np.ones((n, classes)), np.ones((m, classes))).shape == (n, m)
    assert pdist(np.ones((n, classes))).shape == (n * (n - 1) // 2,)


def test_rows_too_long_to_be_prepared():
    a, b = rows(3, 70_000), rows(2, 70_000, seed=1)
    np.testing.assert_allclose(cdist(a, b, "kl"), expected("kl", a, b), rtol=1e-14)


# ---- out ----


def test_out():
    a, b = rows(5, 9), rows(6, 9, seed=1)
    whole = np.full((6, 10), -1.0)
    out = whole[::-1].T[2:7]
    assert cdist(a, b, "kl", out=out) is out
    assert np.array_equal(out, cdist(a, b, "kl"))
    assert (whole[:, :2] == -1).all() and (whole[:, 7:] == -1).all()
    square = rows(9, 9)
    over = square.copy()
    assert np.array_equal(cdist(over, over, out=over), cdist(square, square))
    condensed = np.empty(36)
    assert pdist(square, out=condensed) is condensed
    assert np.array_equal(condensed, pdist(square))


@pytest.mark.parametrize(
    "out, error, said",
    [
        (np.empty((5, 5)), ValueError, r"out has shape \(5, 5\); expected \(5, 6\)"),
        (np.empty((5, 6), np.float32), TypeError, "out has dtype float32; expected float64"),
        ([[0.0]], TypeError, "out is of type list; expected a NumPy array"),
    ],
)
def test_an_out_that_does_not_fit(out, error, said):
    with pytest.raises(error, match=said):
        cdist(rows(5, 9), rows(6, 9), out=out)


# ---- sparse rows ----


@pytest.mark.parametrize("container", ["csr_array", "coo_matrix"])
@pytest.mark.parametrize("metric", ["jensenshannon", "kl"])
def test_sparse_rows(metric, container, monkeypatch):
    monkeypatch.setattr("kldiv_fast._sparse._DENSE", 400)  # ten rows at a time
    dense = np.round(rows(57, 40, 0.1) * 30) + np.eye(57, 40)
    sparse = getattr(scipy.sparse, container)(dense)
    given = {"pseudocount": 1.0}
    exact = cdist(dense, dense, metric, **given)
    for a, b in ((sparse, dense), (dense, sparse), (sparse, sparse)):
        np.testing.assert_allclose(cdist(a, b, metric, **given), exact, rtol=1e-11, atol=1e-30)
    np.testing.assert_allclose(
        pdist(sparse, metric, **given), pdist(dense, metric, **given), rtol=1e-11
    )


@pytest.mark.parametrize("side", ["XA", "XB"])
def test_sparse_rows_that_are_refused_are_named(side):
    given = {"XA": rows(5, 9), "XB": rows(6, 9)}
    given[side] = scipy.sparse.csr_array(given[side] * 1j)
    with pytest.raises(TypeError, match=f"{side} is of dtype complex128"):
        cdist(**given)


# ---- memory ----


def test_no_copy_of_rows_near_the_center():
    a = (100 + np.random.default_rng(0).random((400, 10_000))).astype(np.float32)
    out = np.empty((400, 400), np.float32)
    tracemalloc.start()
    cdist(a, a, "kl", out=out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < a.nbytes / 4


# ---- scikit-learn ----


def test_as_a_metric_of_scikit_learn():
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    x = 9 * rows(12, 20)
    found = sklearn_metrics.pairwise_distances(x, metric=jensenshannon)
    np.testing.assert_allclose(cdist(x, x), found, rtol=1e-12, atol=1e-15)


def test_the_example(tmp_path, capsys, monkeypatch):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    picture = tmp_path / "distances.png"
    monkeypatch.setattr("sys.argv", ["distances.py", "--plot", str(picture)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    printed = capsys.readouterr().out
    accuracy, rand = map(float, re.findall(r" (0\.\d+)$", printed, re.MULTILINE))
    assert accuracy > 0.9
    assert rand > 0.4
    assert picture.stat().st_size > 10_000


# ---- bad input ----


@pytest.mark.parametrize(
    "arguments, keywords, error, said",
    [
        ((np.ones((2, 3)), np.ones((2, 3)), "euclidean"), {}, ValueError, "metric is 'euclidean'; expected one of: 'jensenshannon', 'js', 'kl'"),
        ((np.ones((2, 3)), np.ones((2, 3)), max), {}, TypeError, "metric is of type builtin_function_or_method; expected one of"),
        ((np.ones((2, 3)), np.ones((2, 4))), {}, ValueError, "XA and XB have 3 and 4 classes; expected the same"),
        ((np.ones(3), np.ones((2, 3))), {}, ValueError, r"XA has shape \(3,\); expected two axes"),
        ((np.ones((2, 3)), np.ones((1, 2, 3))), {}, ValueError, r"XB has shape \(1, 2, 3\); expected two axes"),
        ((np.ones((2, 3), complex), np.ones((2, 3))), {}, TypeError, r"XA is of dtype complex128; expected .*np.real\(XA\)"),
        ((np.ones((2, 3)), np.array([[1, None, 2]])), {}, TypeError, r"XB is of dtype object, with None at \(0, 1\); expected numbers"),
        ((np.ones((2, 3)), [[1, 2], [3]]), {}, ValueError, "XB is not a regular array"),
        ((np.ones((2, 3)), np.ones((2, 3))), {"form": "labels"}, ValueError, "form is 'labels'"),
        ((np.ones((2, 3)), np.ones((2, 3))), {"form": ("labels", "probs")}, ValueError, "labels are no rows"),
        ((np.ones((2, 3)), np.ones((2, 3))), {"num_threads": 0}, ValueError, "num_threads is 0"),
        ((np.ones((2, 3)), np.ones((2, 3)), "kl"), {"beta": 0.5}, TypeError, "unexpected keyword argument 'beta'; expected form, epsilon"),
        ((np.ones((2, 3)), np.ones((2, 3))), {"base": 1}, ValueError, "base is 1"),
    ],
)  # fmt: skip
def test_bad_input(arguments, keywords, error, said):
    with pytest.raises(error, match=said):
        cdist(*arguments, **keywords)


def test_tables_whose_columns_differ():
    pandas = pytest.importorskip("pandas")
    a = pandas.DataFrame(rows(3, 2), columns=["x", "y"])
    assert cdist(a, a).shape == (3, 3)
    with pytest.raises(
        ValueError, match=r"XA and XB have the same classes in another order.*XB = XB.reindex"
    ):
        cdist(a, a[["y", "x"]])
