"""Random distributions, and the rows' values in extended precision."""

import numpy as np


def distributions(rng, shape, dtype=np.float32, axis=-1):
    x = rng.gamma(0.5, size=shape) + 1e-12
    return (x / x.sum(axis=axis, keepdims=True)).astype(dtype)


def log_ratio(t, p):
    """log(t/p), from the exact difference where the two are close."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(abs(t - p) < p / 2, np.log1p((t - p) / p), np.log(t) - np.log(p))


def oracle(y_true, y_pred, axis=-1, epsilon=1e-7, work=np.float64):
    """Rows in extended precision. `work` is the type that the kernel clips in: epsilon is rounded to it."""
    low = np.longdouble(work(epsilon))
    t = np.clip(np.asarray(y_true).astype(np.longdouble), low, 1)
    p = np.clip(np.asarray(y_pred).astype(np.longdouble), low, 1)
    t, p = np.broadcast_arrays(t, p)
    return (t * log_ratio(t, p)).sum(axis=axis)


def error_bound(magnitude, elements, in_float32):
    """docs/accuracy.md's bound, for a sum whose terms' magnitudes add up to `magnitude`."""
    single, double = 2.0**-24, 2.0**-53
    additions = (
        8 + elements / 32
    )  # of doubles: trees, segments and pieces; in column mode one for 32 terms
    return (36 * (single if in_float32 else double) + additions * double) * magnitude
