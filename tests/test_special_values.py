"""Every ordered pair of special values, at every position of a row, on every ISA: NaN is never lost."""

import itertools

import kldiv_fast
import ml_dtypes
import numpy as np
import pytest
import scipy.special
from oracle import log_ratio

EPSILON = 1e-7
DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]


def around(value, dtype):
    """The value as the dtype rounds it, and its neighbours below and above."""
    dtype = np.dtype(dtype)
    integer = np.dtype(f"u{dtype.itemsize}")
    middle = np.array(value, dtype).view(integer).astype(np.int64)
    return [np.array(middle + step).astype(integer).view(dtype)[()] for step in (-1, 0, 1)]


def values(dtype):
    info = ml_dtypes.finfo(dtype)
    special = [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 0.5, -0.25, float(info.max)]
    special += [float(info.smallest_subnormal)]
    return np.array([*special, *around(EPSILON, dtype), *around(1, dtype)], dtype)


def pairs(dtype):
    return np.array(list(itertools.product(values(dtype), repeat=2)), dtype).T


def work_type(dtype):
    return np.float64 if dtype == np.float64 else np.float32


def clipped(t, p, dtype):
    """The formula with NumPy's clip, which keeps NaN, in extended precision."""
    low = np.longdouble(work_type(dtype)(EPSILON))
    t, p = (np.clip(x.astype(np.longdouble), low, 1) for x in (t, p))
    return t * log_ratio(t, p)


def unclipped(t, p, dtype):
    with np.errstate(all="ignore"):
        return scipy.special.rel_entr(t.astype(np.float64), p.astype(np.float64))


def tolerance(dtype):
    return 3e-16 if dtype == np.float64 else 4e-7


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("epsilon", [EPSILON, None])
def test_every_pair_alone(isa, dtype, epsilon):
    t, p = pairs(dtype)
    exact = (unclipped if epsilon is None else clipped)(t, p, dtype)
    rows = kldiv_fast.kl(t[:, None], p[:, None], epsilon=epsilon, reduction="none")
    with np.errstate(over="ignore"):
        exact = exact.astype(rows.dtype)
    smallest = np.finfo(rows.dtype).smallest_subnormal
    np.testing.assert_allclose(rows, exact, rtol=tolerance(dtype), atol=smallest)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("epsilon", [EPSILON, None])
@pytest.mark.parametrize("layout", ["rows", "columns", "strided", "one row"])
def test_every_pair_at_every_position(isa, dtype, epsilon, layout):
    """Among 37 ordinary elements (two vectors of 16 and a tail), wherever the pair stands."""
    t, p = pairs(dtype)
    width = 37
    exact_pair = (unclipped if epsilon is None else clipped)(t, p, dtype)
    for position in range(width):
        true, pred = (np.full((len(x), width), 0.5, dtype) for x in (t, p))
        true[:, position], pred[:, position] = t, p
        with np.errstate(over="ignore"):
            exact = exact_pair.astype(work_type(dtype))
        if layout == "columns":
            true, pred = np.asfortranarray(true), np.asfortranarray(pred)
        if layout == "strided":
            true, pred = (np.repeat(x, 3, axis=1)[:, ::3] for x in (true, pred))
        if layout == "one row":
            picked = [i for i in range(len(t)) if i % 16 == position % 16]
            for i in picked:
                one = kldiv_fast.kl(true[i], pred[i], epsilon=epsilon)
                np.testing.assert_allclose(one, exact[i], rtol=tolerance(dtype), atol=1e-40)
        else:
            rows = kldiv_fast.kl(true, pred, epsilon=epsilon, reduction="none")
            np.testing.assert_allclose(rows, exact, rtol=tolerance(dtype), atol=1e-40)


def test_keras_agrees_where_it_is_right():
    """Keras keeps NaN and clips everything else, as float32 and in one row at a time."""
    keras = pytest.importorskip("keras")
    t, p = pairs(np.float32)
    theirs = keras.ops.convert_to_numpy(keras.losses.kl_divergence(t[:, None], p[:, None]))
    ours = kldiv_fast.kl(t[:, None], p[:, None], reduction="none")
    np.testing.assert_allclose(ours, theirs, rtol=4e-7, atol=2e-7)
