"""Dask arrays: NumPy's values from chunks of any shape, lazily, the same bits whatever the workers, and what is refused."""

import os
import re
import subprocess
import sys
from pathlib import Path

import kldiv_fast
import ml_dtypes
import numpy as np
import pytest
import scipy.sparse
from kldiv_fast import distance
from pairwise import pairwise
from processes import printed
from test_forms import BY_NAME, FORMS

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

import kldiv_fast.dask

ROWS, CLASSES = 7, 1100  # more than two segments of a row
# What docs/scale.md states: the difference is at most that times the terms' size.
BOUND = {np.dtype(np.float32): 3e-7, np.dtype(np.float64): 5e-15}

# Rows' and classes' chunks of y_true and of y_pred.
CHUNKS = {
    "whole rows": ((3, CLASSES), (2, CLASSES)),
    "one block": ((ROWS, CLASSES), (ROWS, CLASSES)),
    "classes cut": ((ROWS, 300), (ROWS, 300)),
    "both cut": ((3, 400), (3, 400)),
    "differing": ((3, 400), (2, 700)),
    "one cut": ((3, CLASSES), (4, 323)),
    "uneven": (((1, 4, 2), (1, 512, 3, 584)), ((7,), (1100,))),
}
KEYWORDS = {
    "mean": {},
    "rows": {"reduction": "none"},
    "sum": {"reduction": "sum", "base": 2},
    "weighed": {"sample_weight": np.arange(7.0), "reduction": "mean_with_sample_weight"},
    "masked": {"mask": np.arange(7) % 3 != 0},
    "both": {"sample_weight": np.arange(7.0), "mask": np.arange(7) % 3, "reduction": "batchmean"},
    "neither": {"mask": np.zeros(7, bool)},
}


@pytest.fixture(autouse=True)
def threaded():
    with dask.config.set(scheduler="threads", num_workers=2):
        yield


def logits(shape, dtype=np.float64):
    """Rows of every kind that a row-wise operation tells apart: alike, shifted, far apart, in order, with what is not there."""
    rng = np.random.default_rng(7)
    a, b = rng.normal(0, 2, (2, *shape))
    b[0] = a[0] + 1e-3 * b[0]
    b[1] = a[1] + 30 + 1e-2 * b[1]
    b[2] = np.where(np.arange(shape[-1]) % 2, a[2], -50)
    a[3], b[3] = np.sort(a[3]) * 10, -np.sort(a[3])
    a[4, ::3] = -np.inf
    return a.astype(dtype), b.astype(dtype)


def inputs(form, dtype=np.float64, shape=(ROWS, CLASSES)):
    """y_true and y_pred, of which the former may be labels."""
    found = []
    for side, x in zip(form, logits(shape), strict=True):
        probs = np.exp(x - x.max(-1, keepdims=True))
        with np.errstate(divide="ignore"):
            of_form = {
                "logits": x,
                "counts": probs * 9,
                "probs": probs / probs.sum(-1, keepdims=True),
                "log_probs": np.log(probs / probs.sum(-1, keepdims=True)),
                "labels": np.arange(shape[0]) * 181 % shape[-1],
            }[side]
        found.append(of_form if side == "labels" else of_form.astype(dtype))
    return found


def lazy(x, chunks):
    return da.from_array(x, chunks=chunks[: x.ndim])


def functions(name):
    return getattr(kldiv_fast, name), getattr(kldiv_fast.dask, name)


def size_of_terms(value, form, name):
    """Of rows of distributions: in kl there are terms that cancel."""
    sides = (form, form) if isinstance(form, str) else form
    made = [
        side in ("counts", "logits") for side in sides
    ]  # to sum to 1, by a divisor that is rounded
    alone = name == "kl" and made[0] != made[1] and "labels" not in sides
    return value + np.sqrt(2 * value) + alone


def agree(found, expected, form="probs", name="kl"):
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    same = np.isinf(expected) | np.isnan(expected)
    np.testing.assert_array_equal(found[same], expected[same])
    found, expected = found[~same], expected[~same]
    bound = BOUND[expected.dtype] * size_of_terms(abs(expected), form, name)
    if form == ("labels", "probs") and expected.dtype == np.float32:
        bound *= 3
    assert (abs(found - expected) <= bound).all(), (found, expected, abs(found - expected) / bound)


def check(name, arrays, lazies, **keywords):
    numpys, ours = functions(name)
    expected = numpys(*arrays, **keywords)
    value = ours(*lazies, **keywords)
    assert isinstance(value, da.Array)
    assert (value.shape, value.dtype) == (expected.shape, expected.dtype)
    agree(value.compute(), expected, keywords.get("form", "probs"), name)


# ---- values ----


@pairwise(
    name=list(BY_NAME),
    true=[*FORMS, "labels"],
    pred=FORMS,
    dtype=[np.float32, np.float64, np.float16],
    chunks={name: CHUNKS[name] for name in ("whole rows", "both cut", "differing")},
)
def test_values(name, true, pred, dtype, chunks):
    arrays = inputs((true, pred), dtype)
    lazies = [lazy(x, c) for x, c in zip(arrays, chunks, strict=True)]
    check(name, arrays, lazies, form=(true, pred), reduction="none")


@pairwise(chunks=CHUNKS, keywords=KEYWORDS, form=["probs", ("labels", "logits")])
def test_reductions(chunks, keywords, form):
    arrays = inputs((form, form) if isinstance(form, str) else form, np.float32)
    lazies = [lazy(x, c) for x, c in zip(arrays, chunks, strict=True)]
    check("kl", arrays, lazies, form=form, **keywords)


@pytest.mark.parametrize("beta", [0, 0.1, 1])
@pytest.mark.parametrize("form", ["logits", "probs", ("labels", "logits")], ids=str)
def test_beta(beta, form):
    arrays = inputs((form, form) if isinstance(form, str) else form)
    check(
        "jsd",
        arrays,
        [lazy(x, (3, 400)) for x in arrays],
        form=form,
        beta=beta,
        reduction="none",
    )


PARAMETERS = {
    "pseudocount": {"form": "counts", "pseudocount": 0.5},
    "temperature": {"form": "logits", "temperature": 3.0},
    "epsilon": {"form": "probs", "epsilon": 1e-3},
    "no clip": {"form": "probs", "epsilon": None},
    "smoothed": {"form": ("labels", "logits"), "label_smoothing": 0.1},
    "smoothed, clipped": {"form": ("labels", "probs"), "label_smoothing": 0.1},
    "ignored": {"form": ("labels", "logits"), "ignore_class": 181},
    "threads": {"form": "logits", "num_threads": 2},
}


@pytest.mark.parametrize("keywords", PARAMETERS.values(), ids=PARAMETERS)
def test_parameters(keywords):
    form = keywords["form"]
    arrays = inputs((form, form) if isinstance(form, str) else form, np.float32)
    lazies = [lazy(x, (3, 400)) for x in arrays]
    check("kl", arrays, lazies, reduction="none", **keywords)
    check("kl", arrays, lazies, **keywords)


def reshaped(form):
    """Rows and classes along two axes each: (7, 1, 22, 50)."""
    return [x.reshape(7, 1, 22, 50) if x.ndim == 2 else x.reshape(7, 1) for x in inputs(form)]


@pytest.mark.parametrize("form", [("logits", "logits"), ("labels", "logits"), ("labels", "probs"), ("probs", "probs")], ids=str)  # fmt: skip
@pytest.mark.parametrize("chunks", [(3, 1, 15, 20), (7, 1, 22, 50)], ids=["cut", "whole"])
def test_several_class_axes(form, chunks):
    arrays = reshaped(form)
    lazies = [lazy(x, chunks) for x in arrays]
    check("kl", arrays, lazies, form=form, axis=(2, 3), reduction="none")
    swapped = [x if x.ndim == 2 else x.transpose(2, 0, 3, 1) for x in arrays]
    lazies = [lazy(x, (12, 4, 30, 1)) for x in swapped]
    check("kl", swapped, lazies, form=form, axis=(0, 2), reduction="none")


def test_layouts_of_blocks():
    """Of one row in blocks that the core reads in other ways: reversed, transposed, strided, foreign, integers."""
    a, b = inputs(("counts", "counts"), np.float32)
    b = np.ceil(b * 1000).astype(">i4")
    for t, p in ((a[:, ::-1], b[:, ::-1]), (np.asfortranarray(a), b), (a[::2, ::2], b[::2, ::2])):
        lazies = [da.from_array(x, chunks=(3, 400), asarray=False) for x in (t, p)]
        check("kl", (t, p), lazies, form="counts", reduction="none")


@pytest.mark.parametrize(
    "shapes",
    [((), ()), ((5,), (5,)), ((3, 5), (5,)), ((5,), (4, 1, 5)), ((3, 1), (1, 5)), ((0, 5), (0, 5)), ((3, 0), (3, 0)), ((3, 1), (3,))],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("form", ["probs", "logits"])
def test_shapes(shapes, form):
    rng = np.random.default_rng(0)
    arrays = [rng.random(shape) for shape in shapes]
    lazies = [da.from_array(x, chunks=2) for x in arrays]
    check("kl", arrays, lazies, form=form, reduction="none")
    check("kl", arrays, [arrays[0], da.from_array(arrays[1])], form=form)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.uint8, np.int64, bool], ids=lambda x: np.dtype(x).name)  # fmt: skip
def test_dtypes(dtype):
    arrays = [np.ceil(x * 20).astype(dtype) for x in np.random.default_rng(0).random((2, 7, 1100))]
    for chunks in ((3, 400), (3, CLASSES)):
        check("kl", arrays, [lazy(x, chunks) for x in arrays], form="counts", reduction="none")


def test_jensenshannon():
    arrays = inputs(("counts", "counts"), np.float32)
    given = {"base": 2, "axis": 1, "keepdims": True}
    found = distance.jensenshannon(*(lazy(x, (3, 400)) for x in arrays), **given)
    assert isinstance(found, da.Array)
    expected = distance.jensenshannon(*arrays, **given)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(found.compute(), expected, rtol=1e-6)


def test_empty_chunks():
    arrays = inputs(("logits", "logits"))
    lazies = [da.from_array(x, chunks=((0, 7, 0), (0, 500, 0, 600))) for x in arrays]
    check("kl", arrays, lazies, form="logits", reduction="none")


WHERE = np.arange(CLASSES) % 5 != 1


@pytest.mark.parametrize("form", [*FORMS, ("labels", "logits"), ("labels", "probs")], ids=str)
@pytest.mark.parametrize("shape", ["row", "all"])
def test_where(form, shape):
    arrays = inputs((form, form) if isinstance(form, str) else form, np.float32)
    where = WHERE if shape == "row" else np.roll(WHERE, 3) & np.ones((ROWS, 1), bool)
    if "labels" in form:
        arrays[0] = np.flatnonzero(where if shape == "row" else where[0])[::100][:ROWS]
    lazies = [lazy(x, (3, 400)) for x in arrays]
    given = {"form": form, "reduction": "none"}
    numpys, ours = functions("kl")
    expected = numpys(*arrays, where=where, **given)
    for there in (where, da.from_array(where, chunks=250)):
        agree(ours(*lazies, where=there, **given).compute(), expected, form)


@pytest.mark.parametrize("reduction", ["mean", "none", "mean_with_sample_weight", "batchmean"])
@pytest.mark.parametrize("kind", ["NumPy's", "Dask's"])
def test_weights_that_broadcast(reduction, kind):
    arrays = inputs(("probs", "probs"))
    lazies = [lazy(x, (3, 400)) for x in arrays]
    weight, mask = np.arange(3.0)[:, np.newaxis] + np.arange(7), np.arange(7) % 2 == 0
    beside = {"sample_weight": weight, "mask": mask}
    given = {"sample_weight": (weight, 2), "mask": (mask, 4)}
    for names in (["sample_weight"], ["mask"], ["sample_weight", "mask"]):
        numpys, ours = functions("kl")
        expected = numpys(*arrays, reduction=reduction, **{name: beside[name] for name in names})
        keywords = {n: da.from_array(x, chunks=c) if kind == "Dask's" else x for n, (x, c) in given.items() if n in names}  # fmt: skip
        found = ours(*lazies, reduction=reduction, **keywords)
        agree(found.compute(), expected)


def test_a_masked_row_may_be_anything():
    arrays = inputs(("labels", "logits"), np.float32)
    arrays[0][3], arrays[1][3] = -7, np.nan
    given = {"form": ("labels", "logits"), "mask": np.arange(ROWS) != 3}
    check("kl", arrays, [lazy(x, (2, 500)) for x in arrays], **given)
    given["mask"] = da.from_array(given["mask"], chunks=5)
    found = kldiv_fast.dask.kl(*(lazy(x, (2, 500)) for x in arrays), **given).compute()
    assert np.isfinite(found)


# ---- how it is computed ----


@pytest.fixture
def uncomputed():
    """Whoever computes fails."""

    def scheduler(*_, **__):
        raise AssertionError("something is computed")

    with dask.config.set(scheduler=scheduler):
        yield


@pytest.mark.parametrize("form", ["logits", ("labels", "probs")], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "none", "mean_with_sample_weight", "batchmean"])
def test_a_call_computes_nothing(uncomputed, form, reduction):
    """And the same call is the same task."""
    rows = da.ones(7, chunks=3)
    given = {"form": form, "reduction": reduction, "sample_weight": rows, "mask": rows > 0}
    x = da.ones((7, 10), chunks=4)
    names = {
        kldiv_fast.kl(rows.astype(int) if "labels" in form else x, x, where=x > 0, **given).name
        for _ in range(2)
    }
    assert len(names) == 1


def test_kl_delegates():
    arrays = inputs(("probs", "probs"))
    a, b = (lazy(x, (3, 400)) for x in arrays)
    for given in (((a, b), {}), ((a, arrays[1]), {}), ((arrays[0], b), {}), (arrays, {"sample_weight": da.ones(7)})):  # fmt: skip
        value = kldiv_fast.kl(*given[0], **given[1])
        assert isinstance(value, da.Array)
        np.testing.assert_allclose(value.compute(), kldiv_fast.kl(*arrays), rtol=1e-12)


def test_nothing_is_rechunked_or_kept():
    """Of blocks that agree, only states go from task to task, and a pair of blocks is one task's."""
    x, y = (da.random.random((8, 100), chunks=(4, 10)) for _ in range(2))
    value = kldiv_fast.dask.kl(x, y)
    assert not any("rechunk" in layer or "concatenate" in layer for layer in value.dask.layers)
    largest = []

    def look(key, result, *_):
        if not key[0].startswith("random"):
            largest.append(result.nbytes)

    with dask.callbacks.Callback(posttask=look):
        value.compute()
    assert max(largest) == 4 * 8  # rows times a sum


@pytest.mark.parametrize("form", ["probs", "logits", "counts"])
def test_the_same_bits_whatever_the_workers(form):
    arrays = inputs((form, form), np.float32)
    value = kldiv_fast.dask.kl(*(lazy(x, (2, 200)) for x in arrays), form=form, reduction="none")
    expected = value.compute(scheduler="sync")
    for workers in (1, 5):
        assert np.array_equal(value.compute(num_workers=workers), expected)


@pytest.mark.parametrize("chunks", [(3, 400), (3, CLASSES)], ids=["cut", "whole"])
def test_a_task_has_one_thread(chunks, monkeypatch):
    seen = []
    monkeypatch.setattr("kldiv_fast.dask.Problem.run", lambda self, out: seen.append(self.options.threads))  # fmt: skip
    monkeypatch.setattr("kldiv_fast.dask._core.reduce", lambda options, *_: seen.append(options[4]))
    lazies = [lazy(x, chunks) for x in inputs(("probs", "probs"))]
    for threads in (None, 3):
        seen.clear()
        kldiv_fast.dask.kl(*lazies, num_threads=threads).compute()
        assert set(seen) == {threads or 1}


# ---- worker processes ----


@pytest.fixture(scope="module")
def client():
    """Of two workers of two threads each, in processes of their own."""
    distributed = pytest.importorskip("distributed")
    given = {"n_workers": 2, "threads_per_worker": 2, "dashboard_address": None}
    with distributed.LocalCluster(**given) as cluster, distributed.Client(cluster) as found:
        yield found


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Running on a single-machine")  # distributed of 2024
@pytest.mark.parametrize("form", [*FORMS, ("labels", "logits")], ids=str)
@pytest.mark.parametrize("chunks", [(2, 300), (2, CLASSES)], ids=["cut", "whole"])
def test_a_cluster_gives_the_same_bits(client, form, chunks):
    arrays = inputs((form, form) if isinstance(form, str) else form, np.float32)
    value = kldiv_fast.dask.kl(*(lazy(x, chunks) for x in arrays), form=form, reduction="none")
    assert np.array_equal(value.compute(scheduler=client), value.compute(scheduler="sync"))


def threads_of_process(dask_worker=None):
    return len(os.listdir("/proc/self/task"))


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_worker_has_more_threads(client):
    """Two workers by two threads: a task brings none of its own, however large its blocks are."""
    x, y = (da.random.random((4000, 1000), chunks=(1000, 1000)) for _ in range(2))
    client.compute(x.sum()).result()  # a worker's own threads are there
    before = client.run(threads_of_process)
    client.compute(kldiv_fast.dask.kl(x, y, form="logits")).result()
    assert client.run(threads_of_process) == before
    if len(os.sched_getaffinity(0)) > 1:  # and it would have been seen
        client.compute(kldiv_fast.dask.kl(x, y, form="logits", num_threads=2)).result()
        after = client.run(threads_of_process)
        assert any(after[worker] > before[worker] for worker in before)


EXAMPLE = Path(__file__).parents[1] / "examples" / "dask_scale.py"


@pytest.mark.long
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], r"mean divergence 1\.0000"),
        (["--cluster", "--gigabytes", "0.5"], r"two workers of 1 GiB: 0\.5 GB in .*, 0 of them done again"),
        (["--cluster", "--blocks", "broadcast", "--rows", "100000", "--gigabytes", "20"], r"20\.0 GB in .*, 0 of them done again"),
        (["--cluster", "--gigabytes", "2", "--kill"], r"worker \d+ is killed.*mean divergence"),
    ],
    ids=["files", "cluster", "large blocks", "killed"],
)  # fmt: skip
def test_the_example(options, said):
    """Which asserts that the value is the expected one."""
    for needed in ("distributed", "zarr"):
        pytest.importorskip(needed)
    command = [sys.executable, str(EXAMPLE), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(said, done.stdout, re.DOTALL), done.stdout


# ---- xarray ----


@pytest.fixture
def xr():
    return pytest.importorskip("xarray")


def test_apply_ufunc(xr):
    arrays = inputs(("probs", "probs"))
    expected = kldiv_fast.kl(*arrays, reduction="none")
    x, y = (xr.DataArray(lazy(a, (3, 1100)), dims=("time", "class")) for a in arrays)
    given = {"input_core_dims": [["class"], ["class"]], "kwargs": {"reduction": "none"}}
    rows = xr.apply_ufunc(kldiv_fast.kl, x, y, dask="parallelized", output_dtypes=[float], **given)
    assert rows.dims == ("time",) and rows.chunks is not None
    np.testing.assert_allclose(rows.values, expected, rtol=1e-12)
    cut = (a.chunk({"class": 300}) for a in (x, y))
    rows = xr.apply_ufunc(kldiv_fast.kl, *cut, dask="allowed", **given)
    assert rows.dims == ("time",) and rows.chunks is not None
    np.testing.assert_allclose(rows.values, expected, rtol=1e-12)


@pytest.mark.parametrize("kind", ["NumPy's", "Dask's"])
def test_what_is_beside_data_arrays(xr, kind):
    """Weights, masks, labels and where: an axis's name is at one place in all, as the errors' advice makes it."""

    def named(x, dims):
        return xr.DataArray(da.from_array(x) if kind == "Dask's" else x, dims=dims)

    x = np.random.default_rng(0).random((4, 4, 4))
    p, weight = named(x, ("time", "place", "class")), np.arange(16.0).reshape(4, 4)
    expected = kldiv_fast.kl(x, x + 1, sample_weight=weight)
    given = {"sample_weight": named(weight, ("time", "place"))}
    assert kldiv_fast.kl(p, p + 1, **given) == pytest.approx(expected)
    for name, dims, advice in (
        ("sample_weight", ("place", "time"), r"sample_weight.transpose\(..., 'time', 'place'\)"),
        ("sample_weight", ("time",), r"sample_weight.expand_dims\(\['place'\]\).transpose\(..., 'time', 'place'\)"),
        ("mask", ("time",), "mask.expand_dims"),
        ("where", ("place", "time", "class"), r"where.transpose\(..., 'time', 'place', 'class'\)"),
    ):  # fmt: skip
        beside = named(np.ones((4,) * len(dims), bool), dims)
        with pytest.raises(ValueError, match=rf"{name} has the axes .*beside \('time', .*expected '.*' at one place in both: {name} = {advice}"):  # fmt: skip
            kldiv_fast.kl(p, p + 1, **{name: beside})
    aligned = named(weight[0], ("time",)).expand_dims(["place"]).transpose(..., "time", "place")
    expected = kldiv_fast.kl(x, x + 1, sample_weight=weight[0][:, np.newaxis])
    assert kldiv_fast.kl(p, p + 1, sample_weight=aligned) == pytest.approx(expected)
    labels = named(np.arange(16).reshape(4, 4) % 4, ("place", "time"))
    with pytest.raises(ValueError, match="y_true has the axes"):
        kldiv_fast.kl(labels, p, **LABELLED)
    value = kldiv_fast.kl(labels.transpose("time", "place"), p, **LABELLED)
    assert value == pytest.approx(kldiv_fast.kl(labels.values.T, x, **LABELLED))


def test_variables(xr):
    arrays = inputs(("probs", "probs"))
    value = kldiv_fast.kl(*(xr.Variable(("time", "class"), lazy(x, (3, 400))) for x in arrays))
    assert isinstance(value, da.Array)
    np.testing.assert_allclose(value.compute(), kldiv_fast.kl(*arrays), rtol=1e-12)


def test_data_arrays(xr):
    arrays = inputs(("probs", "probs"))
    x, y = (xr.DataArray(lazy(a, (3, 400)), dims=("time", "class")) for a in arrays)
    value = kldiv_fast.kl(x, y)
    assert isinstance(value, da.Array)
    np.testing.assert_allclose(value.compute(), kldiv_fast.kl(*arrays), rtol=1e-12)
    with pytest.raises(ValueError, match=r"y_true has the axes \('time', 'class'\), y_pred \('class', 'time'\); expected 'class' at one place in both: y_pred = y_pred.transpose"):  # fmt: skip
        kldiv_fast.kl(x, y.transpose())
    with pytest.raises(ValueError, match="y_true and y_pred have the same classes in another order"):  # fmt: skip
        kldiv_fast.kl(*(z.assign_coords({"class": order}) for z, order in ((x, range(1100)), (y, range(1100)[::-1]))))  # fmt: skip


# ---- bad input ----


def unknown_chunks():
    x = da.ones((4, 3), chunks=2)
    return x[x[:, 0] > 0]


X = da.ones((4, 3), chunks=2)
SPARSE = scipy.sparse.csr_array(np.eye(4, 3))
OF_SPARSE = da.ones((4, 3), chunks=(2, 3)).map_blocks(scipy.sparse.csr_array)
LABELLED = {"form": ("labels", "probs")}
BAD = {
    "unknown chunks": ((unknown_chunks(), X), {}, ValueError, r"y_true has chunks of unknown size along axis 0; expected known ones: y_true.compute_chunk_sizes\(\)"),
    "unknown chunks of a weight": ((X, X), {"sample_weight": unknown_chunks()[:, 0]}, ValueError, "sample_weight has chunks of unknown size"),
    "validate": ((X, X), {"validate": True}, ValueError, "validate is True where values are not known .*a lazy array.*; expected False"),
    "out": ((X, X), {"out": np.empty(4), "reduction": "none"}, ValueError, "out is given beside a Dask array, whose result is lazy; expected None"),
    "sparse": ((SPARSE, X), {"epsilon": None}, TypeError, r"y_true is a sparse array; expected a dense one: y_true.toarray\(\)"),
    "sparse prediction": ((X, SPARSE), {}, TypeError, "y_pred is a sparse array; expected a dense one"),
    "sparse blocks": ((OF_SPARSE, X), {}, TypeError, "y_true is a Dask array of type csr_array; expected one of NumPy's: y_true.map_blocks"),
    "list of Dask's": (([X[0], X[1]], X), {}, TypeError, r"y_true is a list of Dask arrays; expected one: dask.array.stack\(y_true\)"),
    "shapes": ((X, da.ones((4, 2))), {}, ValueError, r"y_true has shape \(4, 3\), which does not broadcast with y_pred's \(4, 2\)"),
    "complex": ((X.astype(complex), X), {}, TypeError, r"y_true is of dtype complex128; expected .*np.real\(y_true\)"),
    "objects": ((X, X.astype(object)), {}, TypeError, "y_pred is of dtype object; expected float16"),
    "masked": ((da.ma.masked_array(X, X > 2), X), {}, TypeError, r"y_true is a Dask array of masked arrays; expected one of plain arrays: dask.array.ma.filled\(y_true, "),
    "list": ((X, [[1], [2, 3]]), {}, ValueError, "y_pred is not a regular array"),
    "axis": ((X, X), {"axis": 2}, ValueError, "axis is 2, out of range for inputs of 2 axes"),
    "reduction": ((X, X), {"reduction": "max"}, ValueError, "reduction is 'max'; expected one of"),
    "beta": ((X, X), {"beta": 0.5}, TypeError, "unexpected keyword argument 'beta'"),
    "threads": ((X, X), {"num_threads": 0}, ValueError, "num_threads is 0; expected an integer of at least 1"),
    "weight": ((X, X), {"sample_weight": da.ones(3)}, ValueError, r"sample_weight has shape \(3,\), which does not broadcast with the rows' shape \(4,\)"),
    "mask": ((X, X), {"mask": da.ones(4)}, TypeError, "mask is of dtype float64; expected bool"),
    "mask of classes": ((X, X), {"mask": da.ones((4, 3), dtype=bool)}, ValueError, "Classes are left out by where=keep"),
    "where": ((X, X), {"where": da.ones((4, 3))}, TypeError, "where is of dtype float64; expected bool"),
    "shape of where": ((X, X), {"where": da.ones((2, 4, 3), dtype=bool)}, ValueError, r"where has shape \(2, 4, 3\); expected one that broadcasts"),
    "labels": ((da.ones(4), X), LABELLED, TypeError, "y_true is of dtype float64; expected integers"),
    "shape of labels": ((da.ones(3, dtype=int), X), LABELLED, ValueError, r"y_true has shape \(3,\); expected labels that broadcast"),
    "smoothed": ((da.ones(4, dtype=int), X), LABELLED | {"where": X > 0, "label_smoothing": 0.1}, ValueError, "label_smoothing is given with where"),
}  # fmt: skip


@pytest.mark.parametrize(("arrays", "keywords", "error", "said"), BAD.values(), ids=BAD)
def test_bad_input(arrays, keywords, error, said, uncomputed):
    with pytest.raises(error, match=said):
        kldiv_fast.kl(*arrays, **keywords)


def test_advice_on_blocks():
    """Of the two errors on what a Dask array is made of."""
    dense = OF_SPARSE.map_blocks(lambda block: block.toarray(), dtype=OF_SPARSE.dtype)
    plain = da.ma.filled(da.ma.masked_array(X, X > 2), 0)
    assert kldiv_fast.kl(dense, plain).compute() == kldiv_fast.kl(np.ones((4, 3)), np.ones((4, 3)))


@pytest.mark.parametrize("chunks", [(2, 2), (2, 3)], ids=["cut", "whole"])
def test_blocks_that_are_other_than_said(chunks):
    def masked(block):
        return np.ma.masked_array(block, block > 2)

    x = X.rechunk(chunks)
    value = kldiv_fast.kl(x.map_blocks(masked, meta=np.empty((0, 0))), x)
    with pytest.raises(TypeError, match="y_true is a masked array; expected a plain array"):
        value.compute()


A = np.full((4, 3), 0.2)
NOT_LAZY = {
    "gradient": (kldiv_fast.kl_value_and_grad, (A, X), {}, "y_pred"),
    "gradient and weight": (kldiv_fast.jsd_value_and_grad, (A, A), {"sample_weight": X[:, 0]}, "sample_weight"),
    "upstream": (kldiv_fast.kl_value_and_grad, (A, A), {"upstream": X[0, 0]}, "upstream"),
    "cdist": (distance.cdist, (A, X), {}, "XB"),
    "pdist": (distance.pdist, (X,), {}, "X"),
}  # fmt: skip


@pytest.mark.parametrize(("function", "arrays", "keywords", "name"), NOT_LAZY.values(), ids=NOT_LAZY)  # fmt: skip
def test_nothing_is_loaded_in_silence(function, arrays, keywords, name, uncomputed):
    with pytest.raises(TypeError, match=rf"^{name} is a Dask array; expected an array in memory here: {name}.compute\(\)"):  # fmt: skip
        function(*arrays, **keywords)


def test_tables(uncomputed):
    frames = pytest.importorskip("dask.dataframe")
    table = frames.from_dask_array(X, columns=list("abc"))
    with pytest.raises(TypeError, match=r"y_true is a Dask table; expected a Dask array: y_true.to_dask_array\(lengths=True\)"):  # fmt: skip
        kldiv_fast.kl(table, X)


def test_labels_of_no_classes():
    none = da.ones((2, 0))
    value = kldiv_fast.kl(np.array([0, 1]), none, **LABELLED)
    with pytest.raises(ValueError, match=r"y_true has the label 0 in row 0; expected one in \[0, 0\)"):  # fmt: skip
        value.compute()
    value = kldiv_fast.kl(np.array([0, 1]), none, mask=np.zeros(2, bool), **LABELLED)
    assert value.compute() == 0


@pytest.mark.parametrize("chunks", [2, (2, 3)], ids=["cut", "whole"])
def test_labels_that_are_none(chunks):
    """Known when they are computed; the row is that of the whole array."""
    labels, p = da.from_array(np.array([0, 1, 2, 3]), chunks=2), X.rechunk(chunks)
    value = kldiv_fast.kl(labels, p, **LABELLED)
    with pytest.raises(ValueError, match=r"y_true has the label 3 in row 3; expected one in \[0, 3\)"):  # fmt: skip
        value.compute()
    labels, where = da.from_array(np.array([0, 1, 2, 1]), chunks=2), np.ones((4, 3), bool)
    where[3, 1] = False
    value = kldiv_fast.kl(labels, p, where=where, **LABELLED)
    with pytest.raises(ValueError, match="y_true has in row 3 a label whose class where leaves out"):  # fmt: skip
        value.compute()


def test_without_dask():
    """It is imported by those who have it imported alone; who asks for it is told the extra."""
    code = """
import sys
import kldiv_fast
assert not any(name.split(".")[0] in ("dask", "xarray") for name in sys.modules)
sys.modules["dask"] = None
try:
    import kldiv_fast.dask
except ImportError as error:
    print(error)
"""
    assert printed(code) == "kldiv_fast.dask needs Dask: pip install 'kldiv_fast[dask]'"
