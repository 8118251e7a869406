"""Generated calls against the oracle: any dtype, shape, layout, axis, reduction, weight, mask, epsilon, threads.

Each on every ISA: 200 in the plain run; with ``--long`` as many as make 20,000 calls.
"""

import kldiv_fast
import ml_dtypes
import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from isas import on_each_isa
from oracle import error_bound, log_ratio, oracle

DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int64, np.uint8, np.bool_]
LAYOUTS = ["C", "F", "strided", "reversed", "foreign", "transposed"]
REDUCTIONS = ["mean", "sum", "none", "batchmean", "mean_with_sample_weight", "sum_over_batch_size"]


def laid_out(x, layout):
    if layout == "F":
        return np.asfortranarray(x)
    if layout == "strided":
        return np.repeat(x, 3, axis=-1)[..., ::3]
    if layout == "reversed":
        return x[..., ::-1].copy()[..., ::-1]
    if layout == "foreign" and x.dtype.kind in "fiu" and x.dtype.itemsize > 1:
        return x.astype(x.dtype.newbyteorder(">"))
    if layout == "transposed":
        return np.ascontiguousarray(x.T).T
    return x


def probabilities(rng, shape, scale, dtype):
    """Now and then beyond the clip, at either end."""
    x = rng.gamma(0.3, size=shape) * scale
    return np.clip(np.round(x), 0, 2) if dtype.kind in "biu" else x


@st.composite
def arrays(draw, shape, numbers):
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    x = numbers(rng, shape, draw(st.sampled_from([1, 1, 1e-6, 10])), dtype)
    return laid_out(x.astype(dtype), draw(st.sampled_from(LAYOUTS)))


@st.composite
def calls(draw, numbers=probabilities):
    """Any two arrays, of what `numbers` draws, and the keywords of a call."""
    most = draw(st.sampled_from([3, 20, 700]))
    dims = 3 if most < 700 else 2
    both = draw(
        hnp.mutually_broadcastable_shapes(
            num_shapes=2, min_dims=1, max_dims=dims, min_side=1, max_side=most
        )
    )
    short, long = sorted(both.input_shapes, key=len)
    assume(
        len(long) - len(short) != 1 or long[-1] != 1
    )  # Keras's rank rule: tests/test_keras_parity.py
    y_true, y_pred = (draw(arrays(shape, numbers)) for shape in both.input_shapes)
    shape = both.result_shape
    axes = st.lists(st.integers(0, len(shape) - 1), min_size=1, max_size=len(shape), unique=True)
    axis = tuple(sorted(draw(axes)))
    rows = tuple(n for i, n in enumerate(shape) if i not in axis)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    keywords = {
        "axis": axis,
        "epsilon": draw(st.sampled_from([1e-7, 1e-3, 1e-12, 0.25])),
        "reduction": draw(st.sampled_from(REDUCTIONS)),
        "sample_weight": rng.random(rows) if rows and draw(st.booleans()) else None,
        "mask": rng.random(rows) < 0.7 if rows and draw(st.booleans()) else None,
        "num_threads": draw(st.sampled_from([None, 1, 2, 3, 7])),
    }
    return y_true, y_pred, keywords


def expected(y_true, y_pred, work, *, axis, epsilon, reduction, sample_weight, mask, num_threads):
    """The documented meaning, in extended precision; and the sum of the terms' magnitudes, for the bound."""
    low = np.longdouble(work(epsilon))
    t, p = (
        np.clip(np.asarray(x).astype(np.longdouble), low, 1)
        for x in np.broadcast_arrays(y_true, y_pred)
    )
    rows = oracle(y_true, y_pred, axis, epsilon, work)
    size = np.abs(t * log_ratio(t, p)).sum(axis=axis)
    return reduced(rows, size, reduction, sample_weight, mask)


def reduced(rows, size, reduction, sample_weight, mask):
    """What the reduction makes of rows and of their magnitudes."""
    weight = np.ones(rows.shape) if sample_weight is None else sample_weight
    kept = np.ones(rows.shape) if mask is None else mask
    divisor = {"sum": 1, "none": 1, "batchmean": rows.shape[0] if rows.shape else 1}.get(
        reduction, rows.size
    )
    if reduction == "mean_with_sample_weight" and (sample_weight is not None or mask is not None):
        divisor = (weight * kept).sum()
    if reduction in ("mean", "sum_over_batch_size") and mask is not None:
        divisor = divisor * kept.sum() / kept.size
    values, sizes = (x * weight * kept for x in (rows, size))
    if reduction == "none":
        return values, sizes
    return (values.sum() / divisor, sizes.sum() / divisor) if divisor else (0, 0)


@given(call=calls())
def test_any_call(call):
    y_true, y_pred, keywords = call
    # float32 beside integers is computed in float64, but a float32 result is rounded once more.
    narrow = {np.dtype(x) for x in (np.float32, np.float16, ml_dtypes.bfloat16)}
    in_float32 = (
        y_pred.dtype.newbyteorder("=") in narrow and y_true.dtype.newbyteorder("=") != np.float64
    )
    value, size = expected(y_true, y_pred, np.float32 if in_float32 else np.float64, **keywords)
    bound = error_bound(np.asarray(size, np.float64), y_true.size * y_pred.size, in_float32)
    value = np.asarray(value, np.float64)
    for isa, ours in on_each_isa(lambda: kldiv_fast.kl(y_true, y_pred, **keywords)).items():
        # The result's own format, and in a mean the division and the weights, products of doubles.
        rounding = (2.0**-24 if ours.dtype == np.float32 else 2.0**-50) * np.abs(value)
        assert ours.shape == value.shape, isa
        assert np.all(np.abs(ours - value) <= bound + rounding + 1e-300), isa
