"""Layouts, dtypes, axes, out, threads: every way to hand over the same numbers gives the same answer."""

import functools
import tracemalloc

import kldiv_fast
import numpy as np
import pytest
import scipy.special
from oracle import distributions, oracle
from pairwise import pairwise

ml_dtypes = pytest.importorskip("ml_dtypes")


def close(ours, exact, rtol=2e-7):
    np.testing.assert_allclose(ours, np.asarray(exact, np.float64), rtol=rtol, atol=1e-7)


def misaligned(x):
    raw = np.empty(x.nbytes + 1, np.uint8)[1:]
    y = raw.view(x.dtype).reshape(x.shape)
    y[...] = x
    assert not y.flags.aligned
    return y


def read_only(x):
    y = x.copy()
    y.flags.writeable = False
    return y


LAYOUTS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "every second": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "reversed classes": lambda x: x[..., ::-1].copy()[..., ::-1],
    "reversed rows": lambda x: x[::-1].copy()[::-1],
    "foreign": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "misaligned": misaligned,
    "read-only": read_only,
    "gaps between rows": lambda x: np.concatenate([x, x], axis=-1)[..., : x.shape[-1]],
}


@pairwise(
    isa=kldiv_fast.available_isas(),
    shape=[(3, 5, 47), (40, 2, 19)],
    of_true=LAYOUTS,
    of_pred=LAYOUTS,
    axis=[-1, 0, (0, 1), (0, 2), (0, 1, 2)],
)
def test_layouts(isa, rng, shape, of_true, of_pred, axis):
    y_true, y_pred = distributions(rng, shape), distributions(rng, shape)
    weight = rng.random(np.delete(shape, axis))
    exact = oracle(y_true, y_pred, axis, work=np.float32)
    y_true, y_pred = of_true(y_true), of_pred(y_pred)
    close(kldiv_fast.kl(y_true, y_pred, axis=axis, reduction="none"), exact)
    close(kldiv_fast.kl(y_true, y_pred, axis=axis, reduction="sum"), exact.sum())
    weighted = kldiv_fast.kl(y_true, y_pred, axis=axis, reduction="sum", sample_weight=weight)
    close(weighted, (exact * weight).sum())


@functools.cache
def long_rows(shape):
    """A pair, and its rows' exact values, which take far longer than ours."""
    rng = np.random.default_rng(20261124)
    y_true, y_pred = distributions(rng, shape), distributions(rng, shape)
    return y_true, y_pred, oracle(y_true, y_pred, work=np.float32)


@pairwise(
    isa=kldiv_fast.available_isas(),
    shape=[(2, 9000), (1, 200_001), (70, 50_000), (3, 4096), (3, 32768)],
    layout=LAYOUTS,
)
def test_long_rows(isa, shape, layout):
    y_true, y_pred, exact = long_rows(shape)
    ours = kldiv_fast.kl(layout(y_true), y_pred, reduction="none")
    close(ours, exact)
    close(kldiv_fast.kl(layout(y_true), y_pred), exact.mean())


@pytest.mark.parametrize("classes", range(1, 70))
def test_every_tail(isa, rng, classes):
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64):
        y_true, y_pred = (
            distributions(rng, (3, classes), dtype),
            distributions(rng, (3, classes), dtype),
        )
        work = np.float64 if dtype is np.float64 else np.float32
        exact = oracle(y_true, y_pred, work=work)
        close(kldiv_fast.kl(y_true, y_pred, reduction="none"), exact)
        close(
            kldiv_fast.kl(y_true, y_pred, reduction="none", epsilon=None), rel_entr(y_true, y_pred)
        )
        close(kldiv_fast.kl(y_true.T.copy(), y_pred.T.copy(), axis=0, reduction=None), exact)


def rel_entr(y_true, y_pred):
    return scipy.special.rel_entr(y_true.astype(np.float64), y_pred.astype(np.float64)).sum(-1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_clip_is_rel_entr(isa, dtype):
    limits = np.finfo(dtype)
    values = [np.nan, np.inf, -np.inf, 0.0, -0.0, limits.smallest_subnormal, limits.tiny, 1e-30]
    values += [0.5, 1, 1 + limits.eps, 2, 1e30, limits.max, -1]
    t, p = (x.reshape(-1, 1) for x in np.meshgrid(*[np.array(values, dtype)] * 2))
    ours = kldiv_fast.kl(t, p, epsilon=None, reduction="none")
    with np.errstate(all="ignore"):
        theirs = scipy.special.rel_entr(t, p)[:, 0]
    np.testing.assert_allclose(ours, theirs, rtol=4 * limits.eps)


@pytest.mark.parametrize("epsilon", [0, 1e-45, 1e-300, 1e-30, 1e-3, 0.5])
def test_epsilon(isa, rng, epsilon):
    x, y = distributions(rng, (8, 100), np.float64), distributions(rng, (8, 100), np.float64)
    x[:, ::7], y[:, ::7] = 0, 0
    t, p = np.clip(x, epsilon, 1), np.clip(y, epsilon, 1)
    exact = scipy.special.rel_entr(t, p).sum(-1)
    np.testing.assert_allclose(
        kldiv_fast.kl(x, y, epsilon=epsilon, reduction=None), exact, rtol=1e-13
    )


BROADCASTS = [
    ((4, 6), (6,)),
    ((6,), (4, 6)),
    ((4, 1, 6), (5, 6)),
    ((4, 6), (1, 1)),
    ((3, 1), (1, 6)),
    ((4, 6), ()),
]


@pytest.mark.parametrize(("a", "b"), BROADCASTS, ids=str)
@pytest.mark.parametrize("axis", [-1, 0, (0, 1)], ids=str)
def test_broadcasting(isa, rng, a, b, axis):
    y_true, y_pred = rng.random(a, np.float32), np.asarray(rng.random(b, np.float32))
    close(
        kldiv_fast.kl(y_true, y_pred, axis=axis, reduction="none"),
        oracle(y_true, y_pred, axis, work=np.float32),
    )


@pytest.mark.parametrize(
    "dtype", ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i4", ">f8", "f2"]
)
def test_one_hot_labels_of_any_type(isa, rng, dtype):
    y_pred = distributions(rng, (50, 10))
    y_true = np.eye(10, dtype=dtype)[rng.integers(0, 10, 50)]
    ours = kldiv_fast.kl(y_true, y_pred, reduction="none")
    assert ours.dtype == (np.float64 if dtype == ">f8" else np.float32)
    close(ours, oracle(y_true, y_pred, work=np.float64 if dtype == ">f8" else np.float32))
    assert kldiv_fast.kl(y_true.astype(int), y_pred.round().astype(int)).dtype == np.float64


def test_lists_follow_y_pred(rng):
    y_pred = distributions(rng, (2, 3))
    assert kldiv_fast.kl([[0.0, 1.0, 0.0]] * 2, y_pred).dtype == np.float32
    assert kldiv_fast.kl(y_pred, y_pred.tolist()).dtype == np.float64


def test_zero_d_and_one_d_are_one_row():
    assert kldiv_fast.kl(np.float64(0.5), np.float64(0.25)) == pytest.approx(0.5 * np.log(2))
    x, y = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    assert (
        kldiv_fast.kl(x, y)
        == kldiv_fast.kl(x, y, reduction="sum")
        == kldiv_fast.kl(x, y, reduction="none")
    )


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (2, 0, 3), (0,)], ids=str)
def test_empty(isa, shape):
    x = np.ones(shape, np.float32)
    for reduction in ("mean", "sum", "batchmean", "mean_with_sample_weight"):
        assert kldiv_fast.kl(x, x, reduction=reduction) == 0
    rows = kldiv_fast.kl(x, x, reduction="none")
    np.testing.assert_array_equal(rows, np.zeros(shape[:-1]))


def test_batchmean_divides_by_the_first_batch_axis(rng):
    x, y = distributions(rng, (2, 3, 4)), distributions(rng, (2, 3, 4))
    total = kldiv_fast.kl(x, y, reduction="sum")
    assert kldiv_fast.kl(x, y, reduction="batchmean") == pytest.approx(total / 2)
    assert kldiv_fast.kl(x, y, axis=0, reduction="batchmean") == pytest.approx(
        kldiv_fast.kl(x, y, axis=0, reduction="sum") / 3
    )


@pytest.mark.parametrize("shape", [(3000, 46), (7, 100_000), (1, 1_000_000), (200_000, 3)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_bits_for_any_threads_and_fast_isas(rng, shape, dtype):
    x, y = distributions(rng, shape, dtype), distributions(rng, shape, dtype)
    results = set()
    for name in kldiv_fast.available_isas():
        if name == "baseline":
            continue  # no hardware FMA: it may differ in the last bits
        assert kldiv_fast._core.select_isa(name)
        for threads in (1, 2, 3, 7, 16):
            rows = kldiv_fast.kl(x, y, reduction="none", num_threads=threads)
            mean = kldiv_fast.kl(x, y, num_threads=threads)
            weighted = kldiv_fast.kl(
                x, y, sample_weight=[2.0], reduction="sum", num_threads=threads
            )
            results.add((rows.tobytes(), mean.tobytes(), weighted.tobytes()))
    assert kldiv_fast._core.select_isa(kldiv_fast.available_isas()[0])
    assert len(results) <= 1


def test_alignment_does_not_change_bits(isa, rng):
    x, y = distributions(rng, (100, 333)), distributions(rng, (100, 333))
    expected = kldiv_fast.kl(x, y)
    for shift in range(1, 17):
        buffer = np.empty(x.size + 16, np.float32)
        moved = buffer[shift : shift + x.size].reshape(x.shape)
        moved[...] = x
        assert kldiv_fast.kl(moved, y) == expected
    assert kldiv_fast.kl(misaligned(x), y) == expected
    assert kldiv_fast.kl(x.astype(">f4"), y) == expected


def test_out(isa, rng):
    x, y = distributions(rng, (6, 5, 4)), distributions(rng, (6, 5, 4))
    rows = kldiv_fast.kl(x, y, reduction="none")
    wide = np.zeros((6, 10), np.float32)
    assert kldiv_fast.kl(x, y, reduction="none", out=wide[:, ::2]).base is wide
    np.testing.assert_array_equal(wide[:, ::2], rows)
    assert not wide[:, 1::2].any()
    overlapping = x.copy()
    kldiv_fast.kl(overlapping, y, reduction="none", out=overlapping[..., 0])
    np.testing.assert_array_equal(overlapping[..., 0], rows)


def test_no_temporary_of_the_inputs_size():
    """Broadcast views far larger than memory, read without a copy, with 64-bit indices."""
    row = np.full(1000, 0.001, np.float32)
    huge = np.broadcast_to(row, (300_000, 1000))
    tracemalloc.start()
    assert kldiv_fast.kl(huge, huge) == 0
    assert (
        kldiv_fast.kl(huge[::-1], np.broadcast_to(row.astype(np.float64), huge.shape)[:, ::-1])
        < 1e-9
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6


def test_memory_mapped(tmp_path, rng):
    x, y = distributions(rng, (10, 10)), distributions(rng, (10, 10))
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert kldiv_fast.kl(mapped, y) == kldiv_fast.kl(x, y)


def test_near_equal_distributions_keep_their_digits(isa, rng):
    x = distributions(rng, (20, 1000), np.float64).astype(np.float32)
    y = (x * (1 + 1e-3 * rng.standard_normal(x.shape))).astype(np.float32)
    exact = oracle(x, y, work=np.float32)
    # Against the size of the terms that cancel, float32's rounding alone is 6e-8.
    size = np.abs(x * 1e-3).sum(-1)
    assert np.all(np.abs(kldiv_fast.kl(x, y, reduction=None) - exact) < 1.2e-7 * size)


def test_sixty_four_axes(rng):
    x, y = rng.random((1,) * 62 + (3, 4), np.float32), rng.random((1,) * 62 + (3, 4), np.float32)
    assert kldiv_fast.kl(x, y) == kldiv_fast.kl(x.reshape(3, 4), y.reshape(3, 4))
    with pytest.raises(ValueError, match="too many axes"):  # 64 batch axes beside a class axis
        kldiv_fast.kl(x, y, sample_weight=np.ones((1,) * 63 + (3,)))


LARGE_LAYOUTS = {
    "C": lambda t, p: (t, p),
    "F": lambda t, p: (np.asfortranarray(t), np.asfortranarray(p)),
    "C and F": lambda t, p: (t, np.asfortranarray(p)),
    "every second": lambda t, p: (LAYOUTS["every second"](t), LAYOUTS["every second"](p)),
    "one row of y_pred": lambda t, p: (t, p[0]),
    "one row of y_true": lambda t, p: (t[:1], p),
    "float64 and float32": lambda t, p: (t.astype(np.float64), p),
}


@pairwise(
    isa=kldiv_fast.available_isas(),
    shape=[(70_000, 3), (30_000, 10), (10_000, 46), (300, 1500), (2, 200_000), (40, 9000)],
    axis=[-1, 0],
    layout=LARGE_LAYOUTS,
)
def test_however_the_work_is_cut(isa, rng, shape, axis, layout):
    """Long and many, short and few rows, along both axes: pieces, groups, folded columns, packed tiles."""
    y_true, y_pred = layout(distributions(rng, shape), distributions(rng, shape))
    exact = oracle(y_true, y_pred, axis, work=y_true.dtype.type)
    weight, mask = rng.random(exact.size), rng.random(exact.size) < 0.7
    scale = np.abs(exact).max()

    def check(threads):
        def run(**keywords):
            return kldiv_fast.kl(y_true, y_pred, axis=axis, num_threads=threads, **keywords)

        rows = run(reduction="none")
        np.testing.assert_allclose(rows, exact.astype(np.float64), rtol=3e-7, atol=1e-7 * scale)
        total, weighted, masked = (
            run(reduction="sum", **k) for k in ({}, {"sample_weight": weight}, {"mask": mask})
        )
        np.testing.assert_allclose(total, float(exact.sum()), rtol=3e-7)
        np.testing.assert_allclose(weighted, float((exact * weight).sum()), rtol=3e-7)
        np.testing.assert_allclose(masked, float(exact[mask].sum()), rtol=3e-7)
        return rows.tobytes(), total, weighted, masked

    assert check(1) == check(2) == check(5)
