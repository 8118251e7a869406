"""kl_value_and_grad: its formula, its derivative by finite differences, the frameworks' own gradients, every layout."""

import kldiv_fast
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from isas import on_each_isa
from kldiv_fast import kl, kl_value_and_grad
from oracle import distributions, log_ratio
from pairwise import pairwise
from test_properties import LAYOUTS, calls, laid_out

BOTH = ("y_true", "y_pred")
REDUCTIONS = ["mean", "sum", "none", "batchmean", "mean_with_sample_weight", "sum_over_batch_size"]


def work_type(y_true, y_pred):
    """What the kernel computes in."""
    narrow = {np.dtype(x) for x in (np.float32, np.float16, ml_dtypes.bfloat16)}
    in_float32 = (
        y_pred.dtype.newbyteorder("=") in narrow and y_true.dtype.newbyteorder("=") != np.float64
    )
    return np.float32 if in_float32 else np.float64


def formula(t, p, factor, epsilon=1e-7):
    """Both gradients in extended precision, of the broadcast shape. `epsilon` as the kernel rounds it."""
    raw = [np.asarray(x).astype(np.longdouble) for x in (t, p)]
    low, high = (np.longdouble(epsilon), 1) if epsilon is not None else (-np.inf, np.inf)
    t, p = np.broadcast_arrays(*(np.clip(x, low, high) for x in raw))
    with np.errstate(all="ignore"):
        by_true, by_pred = factor * (log_ratio(t, p) + 1), -factor * t / p
    if epsilon is None or epsilon == 0:
        varies = (t > 0) & (p > 0)
        by_true, by_pred = (np.where(varies, g, 0) for g in (by_true, by_pred))
        nan = np.isnan(t) | np.isnan(p)
        by_true, by_pred = (np.where(nan, np.nan, g) for g in (by_true, by_pred))
    outside = [(x < low) | (x > high) for x in raw]
    none = np.broadcast_to(factor == 0, t.shape)
    return tuple(np.where(o | none, 0, g) for o, g in zip(outside, (by_true, by_pred), strict=True))


def close(ours, exact, work):
    """A few roundings: of the factor, a product, a quotient; of the logarithm, which 1 may cancel."""
    unit = np.finfo(work).eps
    exact = np.asarray(exact).astype(np.float64)
    np.testing.assert_allclose(
        ours, exact, rtol=4 * unit, atol=8 * unit * np.abs(exact).max(initial=0)
    )


def sample(rng, shape, dtype=np.float32):
    """Distributions with zeros, ones and values beyond the clip among them."""
    x = distributions(rng, shape, np.float64)
    x.flat[::7] = 0
    x.flat[3::11] = 1
    x.flat[5::13] = 1.5
    return x.astype(dtype)


# ---- the derivative of the documented value ----


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("wrt", BOTH)
@pytest.mark.parametrize("weighted", [False, True])
def test_finite_differences(rng, wrt, reduction, weighted):
    """Central differences of the value in extended precision."""
    shape = (3, 4)
    arguments = {name: 0.1 + rng.random(shape) / 2 for name in BOTH}
    weight = rng.random(3) if weighted else None
    mask = np.array([True, False, True]) if weighted else None
    upstream = rng.random(3) if reduction == "none" else 1.7
    keywords = dict(reduction=reduction, sample_weight=weight, mask=mask)
    _, gradient = kl_value_and_grad(**arguments, wrt=wrt, upstream=upstream, **keywords)

    def loss(y_true, y_pred):
        rows = (y_true * np.log(y_true / y_pred)).sum(-1)
        rows = rows * (1 if weight is None else weight) * (1 if mask is None else mask)
        divisor = {"sum": 1, "none": 1}.get(reduction, 3)
        if weighted and reduction in ("mean", "sum_over_batch_size"):
            divisor = 2
        if weighted and reduction == "mean_with_sample_weight":
            divisor = weight[mask].sum()
        return (rows * upstream).sum() / divisor

    step = np.longdouble(1e-6)
    numeric = np.zeros(shape)
    for at in np.ndindex(shape):
        moved = [{n: x.astype(np.longdouble) for n, x in arguments.items()} for _ in range(2)]
        moved[0][wrt][at] += step
        moved[1][wrt][at] -= step
        numeric[at] = (loss(**moved[0]) - loss(**moved[1])) / (2 * step)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-9, atol=1e-10)


# ---- the formula: dtypes, shapes, layouts, ISAs ----

SHAPES = [(1, 1), (2, 2), (32, 10), (7, 17), (100, 46), (50, 48), (5, 1000), (3, 4097), (40000, 3)]
SHAPES += [(6,), (2, 3, 4), (2, 70000)]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes_and_dtypes(isa, rng, shape, dtype):
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    t, p = sample(rng, shape, kind), sample(rng, shape[::-1], kind).reshape(shape)
    rows = shape[:-1]
    upstream = np.round(rng.normal(size=rows), 1)
    work = work_type(t, p)
    values, gradients = kl_value_and_grad(t, p, wrt=BOTH, reduction="none", upstream=upstream)
    exact = formula(t, p, work(upstream)[..., np.newaxis], work(1e-7))
    for ours, theirs in zip(gradients, exact, strict=True):
        assert ours.dtype == work and ours.shape == shape
        close(ours, theirs, work)
    np.testing.assert_array_equal(values, kl(t, p, reduction="none"))
    for reduction in ("mean", "sum"):
        value, gradient = kl_value_and_grad(t, p, reduction=reduction)
        assert value == kl(t, p, reduction=reduction)
        divisor = max(1, t.size // shape[-1]) if reduction == "mean" else 1
        close(gradient, formula(t, p, work(1 / divisor), work(1e-7))[1], work)


@pairwise(
    isa=kldiv_fast.available_isas(),
    layout_t=LAYOUTS,
    layout_p=LAYOUTS,
    axis=[-1, 0, 1, (0, 2), (0, 1, 2)],
)
def test_layouts(isa, rng, layout_t, layout_p, axis):
    shape = (6, 33, 20)
    t, p = laid_out(sample(rng, shape), layout_t), laid_out(sample(rng, shape), layout_p)
    axes = (axis,) if isinstance(axis, int) else axis
    rows = tuple(n for i, n in enumerate(shape) if i not in [a % 3 for a in axes])
    upstream = rng.random(rows)
    values, gradients = kl_value_and_grad(
        t, p, wrt=BOTH, axis=axis, reduction="none", upstream=upstream
    )
    factor = np.expand_dims(np.float32(upstream), tuple(a % 3 for a in axes))
    for ours, exact in zip(gradients, formula(t, p, factor, np.float32(1e-7)), strict=True):
        close(ours, exact, np.float32)
    np.testing.assert_array_equal(values, kl(t, p, axis=axis, reduction="none"))
    mean, _ = kl_value_and_grad(t, p, wrt=BOTH, axis=axis)
    assert mean == kl(t, p, axis=axis)


@pytest.mark.parametrize("dtypes", [("int64", "float32"), ("bool", "float32"), ("float32", "float64"),
                                    ("float16", "float32"), ("float64", "float16"), ("int8", "int8")])  # fmt: skip
@pytest.mark.parametrize("axis", [0, 1])
def test_mixed_dtypes(isa, rng, dtypes, axis):
    """One-hot labels in integers beside float predictions, and other pairs that are converted."""
    t = (rng.random((40, 30)) < 0.1).astype(dtypes[0])
    p = sample(rng, (40, 30)).astype(dtypes[1])
    result = kl(t, p).dtype
    _, gradients = kl_value_and_grad(t, p, wrt=BOTH, axis=axis, reduction="sum")
    exact = formula(t, p, np.float64(1), work_type(t, p)(1e-7))
    for ours, theirs in zip(gradients, exact, strict=True):
        assert ours.dtype == result
        close(ours, theirs, result.type)


def test_large_gradients_go_past_the_caches(isa, rng):
    """Beyond 8 MiB, at any alignment, with whatever remains at the ends of rows and of the array."""
    n = 2_359_001
    t, p = rng.random((2, n), np.float32)
    out = np.empty(n + 3, np.float32)
    for offset in (0, 1, 3):
        value, gradient = kl_value_and_grad(t, p, out=out[offset : offset + n])
        assert value == kl(t, p)
        close(
            gradient[::1009],
            formula(t[::1009], p[::1009], np.float32(1), np.float32(1e-7))[1],
            np.float32,
        )
        close(
            gradient[-40:],
            formula(t[-40:], p[-40:], np.float32(1), np.float32(1e-7))[1],
            np.float32,
        )
    rows, classes = 2356, 1001
    t, p = t[: rows * classes].reshape(rows, classes), p[: rows * classes].reshape(rows, classes)
    values, gradient = kl_value_and_grad(t, p, reduction="none")
    np.testing.assert_array_equal(values, kl(t, p, reduction="none"))
    close(gradient, formula(t, p, np.float32(1), np.float32(1e-7))[1], np.float32)


def uneven_layouts(rng):
    """Calls whose gradients or factors lie otherwise than the inputs do: y_true, y_pred, axis, upstream."""
    t, p = rng.random((2, 90, 100)).astype(np.float16)
    one = np.broadcast_to(0.3, (31, 17, 40))
    many = sample(rng, one.shape, np.float64)
    rows = np.asfortranarray(rng.random((4, 8)))
    stack = sample(rng, (2, 500, 4, 8))
    return {
        "both are packed, one of them in crossed tiles": (t, np.asfortranarray(p), 1, None),
        "one input repeats one number": (one, np.asfortranarray(many), 2, None),
        "and the other goes backwards": (one, many[:, ::-1].copy()[:, ::-1], 2, None),
        "upstream lies across the rows": (*stack, 0, rows),
    }


@pytest.mark.parametrize("case", uneven_layouts(np.random.default_rng(0)))
@pytest.mark.parametrize("wrt", [*BOTH, BOTH])
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_the_value_keeps_its_bits_whatever_the_layout(isa, rng, case, wrt, reduction):
    t, p, axis, upstream = uneven_layouts(rng)[case]
    keywords = {"axis": axis, "reduction": reduction}
    factor = upstream if reduction == "none" else None
    value, _ = kl_value_and_grad(t, p, wrt=wrt, upstream=factor, **keywords)
    np.testing.assert_array_equal(value, kl(t, p, **keywords))


def test_any_number_of_threads(rng):
    t, p = sample(rng, (3000, 200)), sample(rng, (3000, 200))
    one = kl_value_and_grad(t, p, wrt=BOTH, axis=0, num_threads=1)
    for threads in (2, 3, 7):
        other = kl_value_and_grad(t, p, wrt=BOTH, axis=0, num_threads=threads)
        assert one[0] == other[0]
        np.testing.assert_array_equal(one[1], other[1])


# ---- weights, masks, broadcasting ----


@pytest.mark.parametrize("wrt", [*BOTH, BOTH])
@pytest.mark.parametrize(
    ("t_shape", "p_shape"),
    [((4, 5), (5,)), ((5,), (4, 5)), ((3, 1), (1, 4)), ((2, 1, 5), (2, 3, 5)), ((2, 3, 5), (3, 5)),
     ((4, 1), (4, 5)), ((4, 1), (4,)), ((3, 4, 1), (3, 4)), ((600, 700), (700,))],
    ids=str,
)  # fmt: skip
def test_broadcast_arguments(rng, t_shape, p_shape, wrt):
    """A gradient has its argument's shape: it is the sum over what the argument is broadcast along."""
    t, p = sample(rng, t_shape, np.float64), sample(rng, p_shape, np.float64)
    _, gradients = kl_value_and_grad(t, p, wrt=wrt, reduction="sum")
    names = (wrt,) if isinstance(wrt, str) else wrt
    gradients = (gradients,) if isinstance(wrt, str) else gradients
    full_t, full_p = t, p
    if abs(t.ndim - p.ndim) == 1 and max(t, p, key=np.ndim).shape[-1] == 1:  # Keras's rank rule
        longer, shorter = sorted((t, p), key=np.ndim, reverse=True)
        longer, shorter = (
            (longer, shorter[:, None]) if shorter.ndim == 1 else (longer[..., 0], shorter)
        )
        full_t, full_p = (longer, shorter) if t.ndim > p.ndim else (shorter, longer)
    for name, ours in zip(names, gradients, strict=True):
        given = t if name == "y_true" else p
        x = full_t if name == "y_true" else full_p
        exact = formula(full_t, full_p, np.float64(1))[BOTH.index(name)]
        extra = exact.ndim - x.ndim
        axes = (
            *range(extra),
            *(i + extra for i, n in enumerate(x.shape) if n != exact.shape[i + extra]),
        )
        summed = exact.sum(axis=axes).reshape(given.shape)
        assert ours.shape == given.shape
        np.testing.assert_allclose(
            ours, summed.astype(np.float64), rtol=1e-12, atol=1e-12 * np.abs(summed).max()
        )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    ("shape", "weight_shape"),
    [((4, 5), (4,)), ((4, 5), (4, 1)), ((4, 5), ()), ((2, 3, 5), (2, 3)), ((2, 3, 5), (3,)),
     ((2, 3, 5), (2, 1)), ((2, 1, 5), (2, 3)), ((2, 3, 1, 5), (2, 3)), ((5,), (1,)), ((5,), (3,))],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("masked", [False, True])
def test_weights_and_masks(rng, shape, weight_shape, reduction, masked):
    """The value is linear in the rows, so the gradient of each row alone tells the whole."""
    t, p = sample(rng, shape, np.float64), sample(rng, shape, np.float64)
    weight = rng.random(weight_shape)
    mask = rng.random(weight_shape) < 0.6 if masked else None
    keywords = dict(sample_weight=weight, mask=mask, reduction=reduction)
    value = kl(t, p, **keywords)
    upstream = rng.random(np.shape(value))
    ours_value, gradient = kl_value_and_grad(t, p, wrt=BOTH, upstream=upstream, **keywords)
    np.testing.assert_array_equal(ours_value, value)
    # A row's factor, from the value: the derivative of a linear function is its difference.
    rows = kl(t, p, reduction="none")
    factor = np.zeros(rows.shape)
    for at in np.ndindex(rows.shape):
        one = np.array(p)
        one[at] = np.clip(t[at], 1e-7, 1)  # this row's value is 0 then
        change = (value - kl(t, one, **keywords)) * upstream
        factor[at] = np.sum(change) / rows[at]
    exact = formula(t, p, factor[..., np.newaxis])
    for ours, theirs in zip(gradient, exact, strict=True):
        theirs = theirs.astype(np.float64)
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9 * np.abs(theirs).max())


def test_a_masked_or_weightless_row_has_no_gradient_whatever_it_holds(isa):
    for classes in (3, 60, 600):
        for order in "CF":
            t = np.array([np.full(classes, 0.5), np.full(classes, np.nan)], np.float32, order=order)
            for keywords in ({"mask": [True, False]}, {"sample_weight": [1, 0]}):
                _, gradients = kl_value_and_grad(t, t, wrt=BOTH, reduction="sum", **keywords)
                for g, slope in zip(gradients, (1, -1), strict=True):
                    np.testing.assert_array_equal(g[0], slope)
                    np.testing.assert_array_equal(g[1], 0)


# ---- special values ----

SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, 9e-8, 1e-7, 2e-7, 0.5, 1.0, 1.5, -2.0, 3e38]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("epsilon", [1e-7, 0.0, None])
@pytest.mark.parametrize("width", [1, 37, 60])
def test_special_values(isa, dtype, epsilon, width):
    t, p = (x.reshape(-1, 1).astype(dtype) for x in np.meshgrid(SPECIAL, SPECIAL))
    t, p = (np.repeat(x, width, axis=1) for x in (t, p))
    _, gradients = kl_value_and_grad(t, p, wrt=BOTH, epsilon=epsilon, reduction="sum")
    rounded = epsilon if epsilon is None else dtype(epsilon)
    for ours, exact in zip(gradients, formula(t, p, dtype(1), rounded), strict=True):
        with np.errstate(over="ignore"):
            exact = exact.astype(dtype)
        np.testing.assert_allclose(
            ours, exact, rtol=8 * np.finfo(dtype).eps, atol=8 * np.finfo(dtype).eps
        )


def test_finite_at_zeros(isa):
    """With the clip, one-hot labels beside confident predictions never give inf or NaN."""
    t, p = (np.array(x, np.float16) for x in ([[0, 1], [1, 0]], [[1, 0], [1, 0]]))
    for dtype in (np.float16, np.float32, np.float64):
        _, gradients = kl_value_and_grad(t.astype(dtype), p.astype(dtype), wrt=BOTH)
        assert np.isfinite(gradients).all()


# ---- generated calls ----


def row_factors(rows, reduction, sample_weight, mask):
    """What the documented formula multiplies each row with."""
    weight = np.ones(rows) if sample_weight is None else sample_weight
    kept = np.ones(rows) if mask is None else mask
    divisor = {"sum": 1, "none": 1, "batchmean": rows[0] if rows else 1}.get(
        reduction, np.prod(rows)
    )
    if reduction == "mean_with_sample_weight" and (sample_weight is not None or mask is not None):
        divisor = (weight * kept).sum()
    if reduction in ("mean", "sum_over_batch_size") and mask is not None:
        divisor = divisor * kept.sum() / kept.size
    return weight * kept / divisor if divisor else np.zeros(rows)


def summed_to(x, shape):
    extra = x.ndim - len(shape)
    axes = (*range(extra), *(i + extra for i, n in enumerate(shape) if n != x.shape[i + extra]))
    return x.sum(axis=axes).reshape(shape)


@given(call=calls(), wrt=st.sampled_from([*((name,) for name in BOTH), BOTH]))
def test_any_call(call, wrt):
    y_true, y_pred, keywords = call
    results = on_each_isa(
        lambda: (
            *kl_value_and_grad(y_true, y_pred, wrt=wrt, **keywords),
            kl(y_true, y_pred, **keywords),
        )
    )
    for isa, (value, _, alone) in results.items():
        np.testing.assert_array_equal(value, alone, err_msg=isa)
    shape = np.broadcast_shapes(y_true.shape, y_pred.shape)
    axis = keywords["axis"]
    rows = tuple(n for i, n in enumerate(shape) if i not in axis)
    factor = row_factors(rows, *(keywords[k] for k in ("reduction", "sample_weight", "mask")))
    work = work_type(y_true, y_pred)
    exact = formula(y_true, y_pred, np.expand_dims(factor, axis), work(keywords["epsilon"]))
    result = next(iter(results.values()))[0].dtype
    for i, name in enumerate(wrt):
        given_shape = (y_true if name == "y_true" else y_pred).shape
        terms = exact[BOTH.index(name)]
        summed, size = (
            summed_to(x, given_shape).astype(np.float64) for x in (terms, np.abs(terms))
        )
        # Each term has a few roundings, absolute where 1 cancels a logarithm of at most 38.
        unit = np.finfo(work).eps
        slack = summed_to(np.abs(np.broadcast_to(np.expand_dims(factor, axis), shape)), given_shape)
        bound = 4 * unit * size + (80 * unit * slack if name == "y_true" else 0)
        bound += np.finfo(result).eps * np.abs(summed) + np.finfo(result).tiny
        # A sum of several has its terms rounded to the result's type, and their additions in double.
        several = terms.size // max(1, summed.size)
        if several > 1:
            bound += (np.finfo(result).eps + several * 2.0**-53) * size
        for isa, (value, gradients, _) in results.items():
            ours = gradients[i]
            assert ours.shape == given_shape and ours.dtype == value.dtype == result, isa
            assert np.all(np.abs(ours - summed) <= bound), isa


# ---- the frameworks' own gradients ----


def inside(rng, shape):
    """Values in the clip, its bounds among them, and beyond it."""
    t, p = sample(rng, shape), sample(rng, shape)
    p.flat[2::17] = np.float32(1e-7)
    return t, p


def test_tensorflow(rng):
    tf = pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")
    t, p = inside(rng, (60, 46))
    weight = rng.random(60).astype(np.float32)
    true, pred = tf.constant(t), tf.constant(p)
    with tf.GradientTape() as tape:
        tape.watch([true, pred])
        clipped = [tf.clip_by_value(x, 1e-7, 1) for x in (true, pred)]
        rows = tf.reduce_sum(clipped[0] * tf.math.log(clipped[0] / clipped[1]), -1)
        loss = tf.reduce_mean(rows * weight)
    theirs = [g.numpy() for g in tape.gradient(loss, [true, pred])]
    _, ours = kl_value_and_grad(t, p, wrt=BOTH, sample_weight=weight)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)
    if keras.backend.backend() == "tensorflow":
        with tf.GradientTape() as tape:
            tape.watch(pred)
            loss = keras.losses.KLDivergence()(true, pred, sample_weight=weight)
        np.testing.assert_allclose(ours[1], tape.gradient(loss, pred).numpy(), rtol=2e-6, atol=1e-7)


def test_torch(rng):
    torch = pytest.importorskip("torch")
    t, p = inside(rng, (60, 46))
    true, pred = (torch.from_numpy(x).requires_grad_() for x in (t.copy(), p.copy()))
    clipped = [x.clamp(1e-7, 1) for x in (true, pred)]
    (clipped[0] * (clipped[0] / clipped[1]).log()).sum(-1).mean().backward()
    _, ours = kl_value_and_grad(t, p, wrt=BOTH)
    for a, b in zip(ours, (true.grad, pred.grad), strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=2e-6, atol=1e-7)


def test_jax_halves_the_gradient_at_the_bounds(rng):
    jax = pytest.importorskip("jax")
    jnp = pytest.importorskip("jax.numpy")
    t, p = inside(rng, (60, 46))
    low = np.float32(1e-7)

    def loss(true, pred):
        true, pred = jnp.clip(true, low, 1), jnp.clip(pred, low, 1)
        return (true * jnp.log(true / pred)).sum(-1).mean()

    theirs = jax.grad(loss, (0, 1))(t, p)
    _, ours = kl_value_and_grad(t, p, wrt=BOTH)
    for a, b, x in zip(ours, theirs, (t, p), strict=True):
        at_bound = (x == low) | (x == 1)
        assert at_bound.any()
        np.testing.assert_allclose(np.where(at_bound, a / 2, a), b, rtol=2e-6, atol=1e-7)


def test_unclipped_is_the_gradient_of_rel_entr(rng):
    jax = pytest.importorskip("jax")
    special = pytest.importorskip("jax.scipy.special")
    t, p = sample(rng, (20, 12)), sample(rng, (20, 12))
    p[p == 0] = 0.25  # (JAX's own gradient is NaN over a zero)
    theirs = jax.grad(lambda a, b: special.rel_entr(a, b).sum(), (0, 1))(t, p)
    _, ours = kl_value_and_grad(t, p, wrt=BOTH, epsilon=None, reduction="sum")
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6)


# ---- out, and bad input ----


def test_out(rng):
    t, p = sample(rng, (30, 20)), sample(rng, (30, 20))
    value, expected = kl_value_and_grad(t, p, wrt=BOTH)
    outs = [np.empty_like(t), np.empty_like(p)]
    result = kl_value_and_grad(t, p, wrt=BOTH, out=outs)
    assert result[1][0] is outs[0] and result[1][1] is outs[1]
    np.testing.assert_array_equal(outs, expected)
    for out in (np.empty((30, 20), np.float32, "F"), np.empty((60, 40), np.float32)[::2, ::2]):
        again, gradient = kl_value_and_grad(t, p, out=out)
        assert gradient is out and again == value
        np.testing.assert_array_equal(out, expected[1])


def test_out_may_be_the_input_itself(rng):
    t, p = sample(rng, (300, 200)), sample(rng, (300, 200))
    value, expected = kl_value_and_grad(t, p)
    own = p.copy()
    assert kl_value_and_grad(t, own, out=own)[0] == value
    np.testing.assert_array_equal(own, expected)


def test_one_name_in_a_sequence_gives_a_tuple():
    x = np.full(4, 0.25)
    assert isinstance(kl_value_and_grad(x, x, wrt=["y_true"])[1], tuple)
    np.testing.assert_array_equal(kl_value_and_grad(x, x, wrt=["y_true"])[1][0], 1)


def test_empty():
    for shape in ((0, 4), (4, 0), (0, 0)):
        value, gradient = kl_value_and_grad(np.empty(shape), np.empty(shape))
        assert value == 0 and gradient.shape == shape


X = np.full((3, 4), 0.25, np.float32)


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"wrt": "y"}, ValueError, "wrt is 'y'; expected 'y_pred', 'y_true'"),
        ({"wrt": ()}, ValueError, "wrt is ()"),
        ({"wrt": ("y_pred", "y_pred")}, ValueError, "wrt is"),
        ({"wrt": 1}, ValueError, "wrt is 1"),
        ({"wrt": [["y_pred"]]}, ValueError, "wrt is"),
        ({"upstream": [1, 2]}, ValueError, "upstream has shape (2,); expected one that broadcasts to the value's ()"),
        ({"upstream": [1, 2], "reduction": None}, ValueError, "the value's (3,)"),
        ({"upstream": "a"}, TypeError, "upstream has dtype"),
        ({"upstream": 1j}, TypeError, "upstream has dtype complex128"),
        ({"out": X.astype(np.float64)}, TypeError, "out has dtype float64; expected float32"),
        ({"out": X[:2]}, ValueError, "out has shape (2, 4); expected (3, 4)"),
        ({"out": [0.0]}, TypeError, "out is of type list"),
        ({"out": X, "wrt": BOTH}, TypeError, "out is of type ndarray; expected a sequence of 2"),
        ({"out": [X], "wrt": BOTH}, TypeError, "expected a sequence of 2 arrays"),
        ({"reduction": "median"}, ValueError, "reduction is 'median'"),
        ({"axis": 2}, ValueError, "axis is 2"),
    ],
)  # fmt: skip
def test_bad_input(keywords, error, message):
    with pytest.raises(error) as caught:
        kl_value_and_grad(X, X, **keywords)
    assert message in str(caught.value)


def test_read_only_out():
    out = np.empty_like(X)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        kl_value_and_grad(X, X, out=out)


def test_tensors_that_want_a_gradient_are_pointed_to_the_adapter():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="requires a gradient"):
        kl_value_and_grad(torch.full((2, 2), 0.5, requires_grad=True), torch.full((2, 2), 0.5))
