"""kldiv_fast.jax: values, gradients, transformations, errors, and the ABI between it and XLA."""

import doctest
import functools
import itertools
import os
import pathlib
import shutil
import subprocess

import kldiv_fast
import numpy as np
import pytest
from oracle import distributions
from pairwise import each as once
from processes import printed, run_python
from test_forms import numbers

jax = pytest.importorskip("jax")

import jax.numpy as jnp
import kldiv_fast.jax as adapter
from jax.test_util import check_grads
from kldiv_fast._meaning import Settings
from kldiv_fast._operations import OPERATIONS
from kldiv_fast.jax import kl

ROOT = pathlib.Path(__file__).parent.parent
HALF_AND_SINGLE = (jnp.float16, jnp.bfloat16, jnp.float32)


def formula(y_true, y_pred):
    """Keras's, in plain jax.numpy."""
    t, p = jnp.clip(y_true, 1e-7, 1), jnp.clip(y_pred, 1e-7, 1)
    return jnp.mean(jnp.sum(t * jnp.log(t / p), axis=-1))


@pytest.fixture
def pair(rng):
    return distributions(rng, (37, 130)), distributions(rng, (37, 130))


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


# Each divergence, with parameters of its own at several values.
EACH = [(row, {}) for row in OPERATIONS if not row.parameters]
EACH += [(row, {"beta": beta}) for row in OPERATIONS if row.parameters for beta in (0.0, 0.3, 1.0)]
EACH_BY_ID = {f"{row.name} {given}": (row, given) for row, given in EACH}
each = pytest.mark.parametrize(("operation", "parameters"), EACH_BY_ID.values(), ids=EACH_BY_ID)


# ---- values ----


@pytest.mark.parametrize("dtype", HALF_AND_SINGLE)
@pytest.mark.parametrize("epsilon", [1e-7, 1e-3, 0, None])
def test_rows_have_the_bits_of_kl(pair, dtype, epsilon):
    true, pred = (x.astype(dtype) for x in pair)
    ours = kl(true, pred, reduction="none", epsilon=epsilon)
    assert isinstance(ours, jax.Array)
    assert ours.dtype == np.float32
    expected = kldiv_fast.kl(true, pred, reduction="none", epsilon=epsilon)
    np.testing.assert_array_equal(ours, expected)


@once(each_operation=EACH_BY_ID, dtype=HALF_AND_SINGLE, call=[{}, {"base": 2}, {"epsilon": None}])
def test_each_has_the_bits_of_numpy(pair, each_operation, call, dtype):
    """Rows, and each row's gradients."""
    operation, parameters = each_operation
    arrays = [x.astype(dtype) + dtype(2**-6) for x in pair]  # no slope beyond float16
    assert_the_bits_of_numpy(operation, arrays, parameters | call)


def assert_the_bits_of_numpy(operation, arrays, keywords):
    keywords = keywords | {"reduction": "none"}
    ours = functools.partial(getattr(adapter, operation.name), **keywords)
    theirs = getattr(kldiv_fast, f"{operation.name}_value_and_grad")
    values, gradients = theirs(*arrays, wrt=("y_true", "y_pred"), **keywords)
    np.testing.assert_array_equal(jax.jit(ours)(*arrays), values)
    found = jax.grad(lambda *x: ours(*x).sum(), (0, 1))(*map(jnp.asarray, arrays))
    for mine, gradient, x in zip(found, gradients, arrays, strict=True):
        assert mine.dtype == x.dtype
        np.testing.assert_array_equal(mine, gradient.astype(x.dtype))


@each
def test_finite_differences_of_each(x64, rng, operation, parameters):
    pair = [rng.uniform(0.2, 0.9, (4, 6)) for _ in range(2)]
    loss = functools.partial(getattr(adapter, operation.name), base=2, **parameters)
    np.testing.assert_allclose(
        loss(*pair), getattr(kldiv_fast, operation.name)(*pair, base=2, **parameters), rtol=1e-15
    )
    check_grads(jax.jit(loss), pair, order=1, modes=["rev"])


def test_float64(x64, pair):
    true, pred = (x.astype(np.float64) for x in pair)
    ours = kl(true, pred, reduction="none")
    assert ours.dtype == np.float64
    np.testing.assert_array_equal(ours, kldiv_fast.kl(true, pred, reduction="none"))
    mixed = kl(true, pair[1], reduction="none")
    np.testing.assert_array_equal(mixed, kldiv_fast.kl(true, pair[1], reduction="none"))
    one_hot, probabilities = [[0, 1]], [[0.25, 0.75]]
    assert kl(one_hot, probabilities) == kldiv_fast.kl(one_hot, probabilities)


def test_jax_own_formula(pair):
    np.testing.assert_allclose(kl(*pair), formula(*pair), rtol=1e-5)


@pytest.mark.parametrize(
    ("true", "pred"),
    [
        ((5, 7), (7,)),
        ((7,), (5, 7)),
        ((3, 1, 7), (5, 7)),
        ((5, 1), (5, 7)),
        ((5, 7, 1), (5, 7)),
        ((7,), (7,)),
        ((), ()),
        ((0, 7), (0, 7)),
        ((4, 0), (4, 0)),
    ],
)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none", "batchmean"])
def test_shapes(rng, true, pred, reduction):
    true, pred = (rng.random(shape, dtype=np.float32) for shape in (true, pred))
    ours = kl(true, pred, reduction=reduction)
    expected = kldiv_fast.kl(true, pred, reduction=reduction)
    assert ours.shape == np.shape(expected)
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, -1, (0, 2), (1, 2), (0, 1, 2)])
def test_axes(rng, axis):
    true, pred = (distributions(rng, (4, 6, 9)) for _ in range(2))
    ours = kl(true, pred, axis=axis, reduction="none")
    expected = kldiv_fast.kl(true, pred, axis=axis, reduction="none")
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


@pytest.mark.parametrize("types", [(np.int32, np.float32), (bool, np.float16), (np.int8, np.int8)])
def test_other_types(rng, types):
    true, pred = (rng.integers(0, 2, (6, 5)).astype(dtype) for dtype in types)
    np.testing.assert_allclose(kl(true, pred), kldiv_fast.kl(true, pred), rtol=1e-6)


REDUCTIONS = ["mean", "sum_over_batch_size", "mean_with_sample_weight", "batchmean", "sum", "none"]
ROWS = (4, 6)
WEIGHTS = [((4, 1), None), (None, (4, 1))] + [  # sample_weight's shape, mask's
    (weight, mask)
    for weight in (None, (4, 6), (6,), ())
    for mask in (None, (4, 6), (6,), (4, 6, 1), ())
    if (weight, mask) != ((6,), (4, 6, 1))  # which do not broadcast
]


@once(reduction=REDUCTIONS, shapes=WEIGHTS)
def test_weights_and_masks(rng, reduction, shapes):
    weight, mask = shapes
    true, pred = (distributions(rng, (*ROWS, 9)) for _ in range(2))
    options = {}
    if weight is not None:
        options["sample_weight"] = rng.random(weight, dtype=np.float32)
    if mask is not None:
        options["mask"] = rng.random(mask) < 0.6
    expected = kldiv_fast.kl(true, pred, reduction=reduction, **options)
    ours = functools.partial(kl, reduction=reduction)
    np.testing.assert_allclose(ours(true, pred, **options), expected, rtol=2e-6)
    jitted = jax.jit(ours)
    np.testing.assert_allclose(jitted(true, pred, **options), expected, rtol=2e-6)


@pytest.mark.parametrize("weight", [(4,), (4, 1)])
def test_one_weight_for_each_of_4_rows(rng, weight):
    true, pred = (distributions(rng, (4, 9)) for _ in range(2))
    weight = rng.random(weight, dtype=np.float32)
    for axes in ((4, 9), (4, 1, 9)):
        a, b = true.reshape(axes), pred.reshape(axes)
        expected = kldiv_fast.kl(a, b, sample_weight=weight, reduction="none")
        np.testing.assert_allclose(
            kl(a, b, sample_weight=weight, reduction="none"), expected, rtol=1e-6
        )


@pytest.mark.parametrize("reduction", ["mean", "mean_with_sample_weight"])
def test_nothing_counts(pair, reduction):
    def loss(pred):
        return kl(pair[0], pred, mask=np.zeros(37, bool), reduction=reduction)

    value, gradient = jax.value_and_grad(loss)(pair[1])
    assert value == 0
    assert not gradient.any()


# ---- gradients ----


@pytest.mark.parametrize("argnums", [0, 1, (0, 1)])
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_gradient_beside_jax_own(pair, argnums, transform):
    ours = transform(jax.grad(kl, argnums))(*pair)
    expected = jax.grad(formula, argnums)(*pair)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), ours, expected
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"axis": 0},
        {"axis": (0, 1), "reduction": "sum"},
        {"epsilon": None},
        {"sample_weight": np.arange(1.0, 5.0), "reduction": "mean_with_sample_weight"},
        {"mask": np.array([1, 0, 1, 1]), "reduction": "none"},
    ],
    ids=str,
)
def test_finite_differences(x64, rng, options):
    true, pred = (rng.uniform(0.2, 0.9, (4, 6)) for _ in range(2))
    loss = functools.partial(kl, **options)
    check_grads(loss, (true, pred), order=1, modes=["rev"])
    check_grads(jax.jit(loss), (true, pred), order=1, modes=["rev"])


def test_finite_differences_in_the_weight(x64, rng):
    true, pred = (distributions(rng, (4, 6), np.float64) for _ in range(2))
    for reduction in REDUCTIONS:

        def loss(weight, reduction=reduction):
            return kl(true, pred, sample_weight=weight, reduction=reduction)

        check_grads(loss, (rng.random(4),), order=1, modes=["rev"])


def test_broadcast_gradients(x64, rng):
    true, pred = (rng.uniform(0.2, 0.9, shape) for shape in ((3, 1, 6), (5, 6)))
    check_grads(kl, (true, pred), order=1, modes=["rev"])


@pytest.mark.parametrize("dtype", HALF_AND_SINGLE)
def test_gradients_have_the_input_dtype(pair, dtype):
    true, pred = (jnp.asarray(x, dtype) + 2**-6 for x in pair)
    ours = jax.grad(kl, (0, 1))(true, pred)
    wide = jax.grad(kl, (0, 1))(true.astype(np.float32), pred.astype(np.float32))
    for gradient, expected in zip(ours, wide, strict=True):
        assert gradient.dtype == dtype
        np.testing.assert_array_equal(gradient, expected.astype(dtype))


def test_one_float16_beside_a_float32(pair):
    true, pred = jnp.asarray(pair[0], jnp.float16), jnp.asarray(pair[1])
    first, second = jax.grad(kl, (0, 1))(true, pred)
    assert (first.dtype, second.dtype) == (jnp.float16, jnp.float32)


def test_the_clip_and_its_bounds():
    epsilon = np.float32(1e-7)
    pred = np.array([[0, epsilon, 0.5, 1, 1.5, -1]], np.float32)
    true = np.full_like(pred, 0.5)
    gradient = jax.grad(kl, argnums=1)(true, pred)
    np.testing.assert_allclose(gradient, [[0, -0.5 / epsilon, -1, -0.5, 0, 0]], rtol=1e-6)
    gradient = jax.grad(kl, argnums=0)(pred, true)
    inside = np.log(pred[0, 1:4] / 0.5) + 1
    np.testing.assert_allclose(gradient, [[0, *inside, 0, 0]], rtol=1e-5)


def test_a_masked_row_is_nowhere(pair):
    true, pred = pair
    pred[3] = np.nan
    mask = np.arange(37) != 3
    value, gradient = jax.value_and_grad(kl, 1)(true, pred, mask=mask)
    np.testing.assert_allclose(value, kldiv_fast.kl(true, pred, mask=mask), rtol=1e-6)
    assert not gradient[3].any()
    assert np.isfinite(gradient).all()
    weights = jax.grad(lambda w: kl(true, pred, mask=mask, sample_weight=w))(jnp.ones(37))
    assert np.isfinite(weights).all()


@pytest.mark.parametrize(
    ("argnums", "name"), [(0, "grad_y_true"), (1, "grad_y_pred"), ((0, 1), "grad_both")]
)
def test_only_the_wanted_gradient_is_computed(pair, argnums, name):
    def loss(true, pred):
        return jax.jit(kl)(true, pred)  # through a jit of the caller's too

    program = jax.jit(jax.grad(loss, argnums)).lower(*pair).as_text()
    calls = {word for word in program.split() if word.startswith("@kldiv_fast_grad")}
    assert [word.split("(")[0] for word in calls] == [f"@kldiv_fast_{name}"]


@pytest.mark.parametrize("argnums", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_a_second_derivative_is_an_error(pair, argnums, transform):
    def first(*operands):
        return jax.grad(kl, argnums[0])(*operands).sum()

    with pytest.raises(ValueError, match=r"kldiv_fast_grad_y_.* cannot be differentiated"):
        transform(jax.grad(first, argnums[1]))(*pair)


@pytest.mark.parametrize(
    "derivative", [jax.hessian, jax.jacfwd, lambda f, i: lambda *x: jax.jvp(f, x, x)]
)
def test_forward_mode_is_an_error(pair, derivative):
    with pytest.raises(TypeError, match="forward-mode"):
        derivative(kl, 1)(*pair)


# ---- transformations ----


@pytest.mark.parametrize("in_axes", [(0, 0), (None, 0), (0, None), (1, 1)])
def test_vmap(rng, in_axes):
    shapes = [(5, 6, 9) if axis is not None else (6, 9) for axis in in_axes]
    true, pred = (distributions(rng, shape) for shape in shapes)
    count = 6 if in_axes == (1, 1) else 5

    def at(x, axis, i):
        return x if axis is None else np.take(x, i, axis)

    pairs = [(at(true, in_axes[0], i), at(pred, in_axes[1], i)) for i in range(count)]
    values = jax.vmap(kl, in_axes)(true, pred)
    np.testing.assert_allclose(values, [kl(*each) for each in pairs], rtol=1e-6)
    gradient = jax.vmap(jax.grad(kl, 1), in_axes)(true, pred)
    np.testing.assert_array_equal(gradient, [jax.grad(kl, 1)(*each) for each in pairs])
    summed = jax.grad(lambda *x: jax.vmap(kl, in_axes)(*x).sum(), 1)(true, pred)
    expected = gradient.sum(0) if in_axes[1] is None else np.moveaxis(gradient, 0, in_axes[1])
    np.testing.assert_allclose(summed, expected, rtol=1e-6)


def test_nested_vmap(rng):
    true, pred = (distributions(rng, (3, 4, 9)) for _ in range(2))
    rows = jax.jit(jax.vmap(jax.vmap(kl)))(true, pred)
    np.testing.assert_array_equal(rows, kldiv_fast.kl(true, pred, reduction="none"))


def test_scan(pair):
    true, start = map(jnp.asarray, pair)

    def step(pred, _):
        value, gradient = jax.value_and_grad(kl, argnums=1)(true, pred)
        return pred - 1e-6 * gradient, value

    end, values = jax.jit(lambda x: jax.lax.scan(step, x, length=20))(start)
    pred = start
    for value in values:
        assert value == jax.jit(kl)(true, pred)
        pred, _ = jax.jit(step)(pred, None)
    np.testing.assert_allclose(end, pred, rtol=1e-6)
    through = jax.jit(jax.grad(lambda x: jax.lax.map(lambda r: kl(true[0], r), x).sum()))(start)
    np.testing.assert_allclose(through, jax.vmap(jax.grad(kl, 1), (None, 0))(true[0], start))


def test_checkpoint_and_donation(pair):
    expected = jax.grad(kl, 1)(*pair)
    np.testing.assert_array_equal(jax.grad(jax.checkpoint(kl), 1)(*pair), expected)
    donating = jax.jit(jax.grad(kl, 1), donate_argnums=1)
    true, pred = map(jnp.asarray, pair)
    np.testing.assert_array_equal(donating(true, pred + 0), expected)


@pytest.mark.parametrize("isa", kldiv_fast.available_isas(), indirect=True)
def test_the_isa_is_the_core_own(isa, pair):
    ours = jax.jit(functools.partial(kl, reduction="none"))(*pair)
    np.testing.assert_array_equal(ours, kldiv_fast.kl(*pair, reduction="none"))


SHARDED = """
import jax, numpy as np, kldiv_fast
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from kldiv_fast.jax import kl
mesh = Mesh(jax.devices(), ("batch",))
assert len(jax.devices()) == 2
rng = np.random.default_rng(0)
arrays = [rng.random((64, 100), dtype=np.float32) for _ in range(2)]
expected = jax.jit(jax.value_and_grad(kl, 1))(*arrays)
for spec in (P("batch"), P(None, "batch"), P()):
    sharded = jax.device_put(arrays, NamedSharding(mesh, spec))
    value, gradient = jax.jit(jax.value_and_grad(kl, 1))(*sharded)
    np.testing.assert_allclose(value, expected[0], rtol=1e-6)
    np.testing.assert_array_equal(gradient, expected[1])

def local(true, pred):
    value, gradient = jax.value_and_grad(kl, 1)(true, pred)
    return jax.lax.pmean(value, "batch"), gradient / 2

both = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=P("batch"), out_specs=(P(), P("batch"))))
sharded = jax.device_put(arrays, NamedSharding(mesh, P("batch")))
value, gradient = both(*sharded)
np.testing.assert_allclose(value, expected[0], rtol=1e-6)
np.testing.assert_allclose(gradient, expected[1], rtol=1e-6)
assert "all-gather" not in both.lower(*sharded).compile().as_text()
print("done")
"""


def test_two_devices():
    assert printed(SHARDED, XLA_FLAGS="--xla_force_host_platform_device_count=2") == "done"


THREADS = """
import threading, jax, jax.numpy as jnp, numpy as np, kldiv_fast
from kldiv_fast.jax import kl
rng = np.random.default_rng(0)
true, pred = (rng.random((700, 1000), dtype=np.float32) for _ in range(2))  # enough for a team

@jax.jit
def descend(pred):
    def step(pred, _):
        value, gradient = jax.value_and_grad(kl, 1)(true, pred)
        return pred - gradient, value
    return jax.lax.scan(step, pred, length=20)[1]

expected = descend(pred)
found = [None] * 4

def work(i):
    for _ in range(3):
        kldiv_fast.kl(true, pred)
        found[i] = np.asarray(descend(pred))

threads = [threading.Thread(target=work, args=(i,)) for i in range(len(found))]
for thread in threads: thread.start()
for thread in threads: thread.join()
for values in found: np.testing.assert_array_equal(values, expected)
print("done")
"""


def test_python_threads_and_scan_never_hang():
    assert printed(THREADS, OMP_NUM_THREADS="2") == "done"


# ---- other forms than probabilities ----

PAIRS = [
    ("probs", "logits"),
    ("counts", "log_probs"),
    ("logits", "logits"),
    ("log_probs", "counts"),
]


def of_forms(rng, forms, dtype=np.float32):
    arrays = [numbers(rng, form, (5, 12), dtype) for form in forms]
    return arrays, {"form": forms} | ({"temperature": 1.5} if "logits" in forms else {})


@once(
    each_operation=EACH_BY_ID, forms={"-".join(pair): pair for pair in PAIRS}, dtype=HALF_AND_SINGLE
)
def test_forms_have_the_bits_of_numpy(rng, each_operation, forms, dtype):
    operation, parameters = each_operation
    arrays, keywords = of_forms(rng, forms, dtype)
    assert_the_bits_of_numpy(operation, arrays, keywords | parameters)


@once(each_operation=EACH_BY_ID, forms={"-".join(pair): pair for pair in PAIRS})
def test_forms_in_float64(x64, rng, each_operation, forms):
    operation, parameters = each_operation
    arrays, keywords = of_forms(rng, forms, np.float64)
    assert_the_bits_of_numpy(operation, arrays, keywords | parameters)


@pytest.mark.parametrize("dtype", HALF_AND_SINGLE)
@pytest.mark.parametrize("integer", [np.uint8, np.int32, np.int64])
def test_integers_are_counts(rng, integer, dtype):
    """More of them than 16 bits hold, or 32."""
    counts = rng.integers(1, min(2**40, np.iinfo(integer).max), (4, 9), integer)
    logits = rng.normal(size=(4, 9)).astype(dtype)
    keywords = {"form": ("counts", "logits"), "reduction": "none"}
    expected = kldiv_fast.kl(counts, logits, **keywords)
    np.testing.assert_array_equal(kl(counts, logits, **keywords), expected)
    keywords["form"] = ("logits", "counts")
    expected = kldiv_fast.kl(logits, counts, **keywords)
    np.testing.assert_allclose(kl(logits, counts, **keywords), expected, rtol=1e-6)
    np.testing.assert_allclose(
        kl(counts, counts[::-1], form="counts"),
        kldiv_fast.kl(counts, counts[::-1], form="counts"),
        rtol=1e-6,
    )


def test_a_mask_of_64_bits(pair):
    mask = np.arange(37) << 32
    ours, expected = (f(*pair, mask=mask) for f in (kl, kldiv_fast.kl))
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


@pytest.mark.parametrize("axis", [0, (0, 2)])
def test_axes_weights_and_masks_of_forms(rng, axis):
    arrays = [numbers(rng, form, (3, 5, 7)) for form in ("counts", "logits")]
    rows = np.delete((3, 5, 7), axis)
    keywords = {"axis": axis, "form": ("counts", "logits"), "temperature": 0.5, "base": 2}
    keywords |= {"reduction": "mean_with_sample_weight"}
    weights = {"sample_weight": rng.random(rows, np.float32), "mask": rng.random(rows) < 0.7}

    def ours(true, pred, weights):
        return kl(true, pred, **keywords, **weights)

    value, gradients = jax.jit(jax.value_and_grad(ours, (0, 1)))(*arrays, weights)
    expected, slopes = kldiv_fast.kl_value_and_grad(
        *arrays, wrt=("y_true", "y_pred"), **keywords, **weights
    )
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for gradient, slope in zip(gradients, slopes, strict=True):
        np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-8)


@once(each_operation=EACH_BY_ID, forms={"-".join(pair): pair for pair in PAIRS})
def test_the_formula_of_forms_is_the_core_meaning(rng, each_operation, forms):
    operation, parameters = each_operation
    operands, _ = of_forms(rng, forms)
    upstream = np.float32(rng.random(5))
    upstream[2] = 0
    settings = Settings(operation.name, None, parameters.get("beta", 0.5), 2.0, *forms, 1.5)
    rows = adapter._formula_rows(settings, *map(jnp.asarray, operands))
    np.testing.assert_allclose(rows, adapter.rows(*operands, settings), rtol=1e-4, atol=1e-5)
    both = ("y_true", "y_pred")
    ours = adapter._formula_gradients(settings, both, *map(jnp.asarray, operands), upstream)
    core = adapter._gradients(*operands, upstream, settings=settings, wanted=both)
    for a, b in zip(ours, core, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        assert not a[2].any()
        assert not b[2].any()


SPECIAL = {
    "probs": [[0.2, 0.3, 0.5], [0.2, 0, 0.8], [0, 0, 0], [1, 0, 0], [0.2, np.nan, 0.5]],
    "counts": [[1, 2, 3], [1, 0, 3], [0, 0, 0], [1, -1, 3], [1, np.inf, 2]],
    "log_probs": [[-1, -2, -3], [-1, -np.inf, -3], [-np.inf] * 3, [-1, -200, -3], [-1, 1, np.nan]],
    "logits": [[1, 2, 3], [1, -np.inf, 3], [-np.inf] * 3, [300, 1, 2], [0, np.inf, 1]],
}
SPECIAL_PAIRS = {"-".join(pair): pair for pair in itertools.product(SPECIAL, repeat=2)}


@once(each_operation=EACH_BY_ID, forms=SPECIAL_PAIRS, dtype=HALF_AND_SINGLE)
def test_the_formula_of_forms_beside_special_values(each_operation, forms, dtype):
    """Rows also where a probability underflows: its logarithm goes on."""
    operation, parameters = each_operation
    pairs = itertools.product(*(SPECIAL[form] for form in forms))
    operands = [jnp.asarray(np.array(x).astype(dtype)) for x in zip(*pairs, strict=True)]
    settings = Settings(operation.name, None, parameters.get("beta", 0.5), 2.0, *forms)
    rows = adapter.rows(*operands, settings)
    ours = adapter._formula_rows(settings, *operands)
    np.testing.assert_allclose(ours, rows, rtol=1e-5, atol=1e-6)
    both, ones = ("y_true", "y_pred"), jnp.ones_like(rows)
    slopes = adapter._formula_gradients(settings, both, *operands, ones)
    core = adapter._gradients(*operands, ones, settings=settings, wanted=both)
    # Of two forms that aren't probabilities the core's own are in float64, where less underflows.
    far = np.any([(x == -200) | (x == 300) for x in operands], (0, 2))
    compared = np.isfinite(rows) & ~far
    assert compared.any()
    for a, b in zip(slopes, core, strict=True):
        a, b = (np.asarray(x.astype(dtype)[compared], np.float32) for x in (a, b))
        np.testing.assert_allclose(a, b, rtol=2 * jnp.finfo(dtype).eps, atol=2e-6)


def test_the_formula_of_many_classes(rng):
    """Where what is far is divided by a sum too, and XLA makes 0 of what is below the format's range."""
    logits = np.float32(rng.normal(size=(2, 4, 20_000)))
    logits[:, ::2, :10] -= 150
    settings = Settings("jeffreys", None, 0.5, 1.0, "logits", "logits")
    rows = jax.jit(functools.partial(adapter._formula_rows, settings))(*logits)
    np.testing.assert_allclose(rows, adapter.rows(*logits, settings), rtol=1e-6)


def test_logits_through_transformations(rng):
    """Beside JAX's own formula, which Optax has too: batched, and in a loop that JAX compiles."""
    teacher, student = (jnp.asarray(rng.normal(size=(3, 4, 7)), jnp.float32) for _ in range(2))

    def theirs(a, b):
        a, b = (jax.nn.log_softmax(x / 2) for x in (a, b))
        return (jnp.exp(a) * (a - b)).sum(-1).mean()

    ours = functools.partial(kl, form="logits", temperature=2)
    expected, slopes = jax.vmap(jax.value_and_grad(theirs, 1))(teacher, student)
    value, found = jax.vmap(jax.value_and_grad(ours, 1))(teacher, student)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(found, slopes, rtol=1e-4, atol=1e-7)

    def step(x, a):
        return x - jax.grad(ours, 1)(a, x), ours(a, x)

    _, losses = jax.jit(lambda x: jax.lax.scan(step, x, teacher))(student[0])
    assert losses.shape == (3,)
    assert losses[0] == value[0]


# ---- other devices ----


@pytest.mark.parametrize("options", [{}, {"form": ("counts", "logits"), "temperature": 2}])
def test_another_platform_gets_the_formula(pair, options):
    program = jax.jit(jax.value_and_grad(functools.partial(kl, **options), (0, 1)))
    exported = jax.export.export(program, platforms=["cuda"])(*pair)
    assert "custom_call" not in exported.mlir_module()
    assert "custom_call" in program.lower(*pair).as_text()


@once(each_operation=EACH_BY_ID, epsilon=[1e-7, 0, None], dtype=HALF_AND_SINGLE)
def test_the_formula_is_the_core_meaning(rng, each_operation, epsilon, dtype):
    operation, parameters = each_operation
    special = [0, 1e-7, 1e-3, 0.5, 1, 1.5, -1, -np.inf, np.nan]
    if epsilon is not None or operation.name == "kl":  # infinity less infinity is the formulas' own
        special.append(np.inf)
    true, pred = (x.ravel()[:, None].astype(dtype) for x in np.meshgrid(special, special))
    upstream = np.float32(rng.random(len(true)))
    upstream[::7] = 0
    operands = (jnp.asarray(true), jnp.asarray(pred))
    settings = Settings(operation.name, epsilon, parameters.get("beta", 0.5), 1 / np.log(2))
    rows = adapter._formula_rows(settings, *operands)
    np.testing.assert_allclose(rows, adapter.rows(*operands, settings), rtol=1e-5, atol=2e-7)
    wanted = ("y_true", "y_pred")
    ours = adapter._formula_gradients(settings, wanted, *operands, upstream)
    core = adapter._gradients(*operands, upstream, settings=settings, wanted=wanted)
    for a, b in zip(ours, core, strict=True):
        a, b = np.asarray(a.astype(dtype), np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=2 * jnp.finfo(dtype).eps, atol=1e-6)


# ---- errors ----


def array(*shape, dtype=np.float32):
    return np.full(shape, 0.5, dtype)


@pytest.mark.parametrize(
    ("operands", "options"),
    [
        ((array(2, 3), array(2, 4)), {}),
        ((array(2, 3, dtype=np.complex64), array(2, 3)), {}),
        ((array(2, 3), np.array([["a", "b", "c"]])), {}),
        ((np.ma.masked_array(array(2, 3)), array(2, 3)), {}),
        (([[0.5], [0.5, 0.5]], array(2, 3)), {}),
        ((array(2, 3), array(2, 3)), {"axis": 2}),
        ((array(2, 3), array(2, 3)), {"axis": "x"}),
        ((array(2, 3), array(2, 3)), {"axis": (0, 0)}),
        ((array(2, 3), array(2, 3)), {"epsilon": 1}),
        ((array(2, 3), array(2, 3)), {"epsilon": -1e-7}),
        ((array(2, 3), array(2, 3)), {"epsilon": "1e-7"}),
        ((array(2, 3), array(2, 3)), {"epsilon": np.nan}),
        ((array(2, 3), array(2, 3)), {"form": "logit"}),
        ((array(2, 3), array(2, 3)), {"form": ("probs", 1)}),
        ((array(2, 3), array(2, 3)), {"temperature": 2}),
        ((array(2, 3), array(2, 3)), {"form": "logits", "temperature": 0}),
        ((array(2, 3), array(2, 3)), {"form": "logits", "temperature": np.inf}),
        ((array(2, 3), array(2, 3)), {"form": ("probs", "logits"), "epsilon": 1e-3}),
        ((array(2, 3), array(2, 3)), {"form": "logits", "mask": array(3, dtype=bool)}),
        ((array(2, 3), array(2, 3)), {"reduction": "average"}),
        ((array(2, 3), array(2, 3)), {"sample_weight": array(3)}),
        ((array(2, 3), array(2, 3)), {"sample_weight": array(2, dtype=np.complex64)}),
        ((array(2, 3), array(2, 3)), {"mask": array(2)}),
        ((array(2, 3), array(2, 3)), {"mask": array(3, dtype=bool)}),
        (
            (array(2, 3), array(2, 3)),
            {"mask": array(3, dtype=bool), "sample_weight": array(2)},
        ),
    ],
)
def test_errors_are_those_of_kl(operands, options):
    with pytest.raises((ValueError, TypeError)) as expected:
        kldiv_fast.kl(*operands, **options)
    with pytest.raises(expected.type) as ours:
        kl(*operands, **options)
    assert str(ours.value) == str(expected.value)


BAD, GOOD = array(2, 2), array(2, 2)
BAD[1, 1] = 0.75


@pytest.mark.parametrize(
    ("y_true", "options"),
    [
        (BAD, {}),
        (BAD.astype(jnp.bfloat16), {"reduction": "none"}),
        (np.array([0, 1]), {"form": ("labels", "probs"), "sample_weight": array(2)}),
        (BAD, {"mask": np.array([False, True])}),
        (BAD, {"where": np.array([[True, True], [False, True]])}),
    ],
    ids=["mean", "bfloat16", "labels", "mask", "where"],
)
def test_validate_has_the_error_of_numpy(y_true, options):
    with pytest.raises(ValueError, match=r"y_\w+ has the sum [\d.]+ in row 1") as expected:
        kldiv_fast.kl(y_true, BAD, validate=True, **options)
    given = {
        name: jnp.asarray(x) if isinstance(x, np.ndarray) else x for name, x in options.items()
    }
    for x in (y_true, jnp.asarray(y_true)):
        with pytest.raises(ValueError) as ours:
            kl(x, jnp.asarray(BAD), validate=True, **given)
        assert str(ours.value) == str(expected.value)
    assert kl(BAD, BAD, validate=False) == kl(BAD[:1], jnp.asarray(BAD[:1]), validate=True) == 0
    with pytest.raises(TypeError, match="validate is 0; expected True or False"):
        kl(BAD, BAD, validate=0)


@pytest.mark.parametrize("transform", [jax.jit, jax.grad, jax.vmap])
@pytest.mark.parametrize("name", ["y_true", "y_pred", "sample_weight"])
def test_validate_is_refused_beside_tracers(transform, name):
    given = {"y_true": GOOD, "y_pred": GOOD, "sample_weight": array(2)}
    function = transform(lambda x: kl(**given | {name: x}, validate=True))
    with pytest.raises(ValueError, match=r"^validate is True where values are not known"):
        function(given[name])


def test_a_traced_epsilon_is_refused(pair):
    with pytest.raises(TypeError, match=r"epsilon is of type .*Tracer"):
        jax.jit(lambda epsilon: kl(*pair, epsilon=epsilon))(1e-7)


def test_other_float_types_are_refused(pair):
    with pytest.raises(TypeError, match="y_pred is of dtype float8_e5m2; expected float16"):
        kl(pair[0], jnp.asarray(pair[1], jnp.float8_e5m2))


@pytest.mark.parametrize(
    ("name", "operands", "options", "message"),
    [
        ("rows", [(2, 3)], {}, "number of operands"),
        ("rows", [(2, 3), (2, 4)], {}, "one shape"),
        ("rows", [(3, 2), (3, 2)], {}, "a result has"),
        ("rows", [(2, 3), (2, 3)], {"epsilon": np.float32(1e-7)}, "epsilon"),
        ("rows", [(2, 3), (2, 3)], {"epsilon": np.float64(1)}, "epsilon"),
        ("rows", [(2, 3), (2, 3)], {"epsilon": None}, "epsilon"),
        ("rows", [(2, 3), (2, 3)], {"operation": "dot"}, "operation"),
        ("rows", [(2, 3), (2, 3)], {"operation": "k"}, "operation"),
        ("rows", [(2, 3), (2, 3)], {"operation": np.float64(0)}, "operation"),
        ("rows", [(2, 3), (2, 3)], {"beta": np.float64(1.5)}, "beta"),
        ("rows", [(2, 3), (2, 3)], {"scale": np.float64(np.inf)}, "scale"),
        ("rows", [(2, 3), (2, 3)], {"scale": "1"}, "scale"),
        ("rows", [(2, 3), (2, 3)], {"true_form": "logit"}, "true_form"),
        ("rows", [(2, 3), (2, 3)], {"true_form": "labels"}, "true_form"),
        ("rows", [(2, 3), (2, 3)], {"pred_form": "labels"}, "pred_form"),
        ("rows", [(2, 3), (2, 3)], {"pred_form": np.float64(0)}, "pred_form"),
        ("rows", [(2, 3), (2, 3)], {"temperature": np.float64(0)}, "temperature"),
        ("rows", [(2, 3), (2, 3)], {"temperature": np.float64(np.nan)}, "temperature"),
        ("rows", [(2, 3), (2, 3)], {"temperature": np.float32(0.7)}, "temperature"),
        ("rows", [(2, 3), (2, 3)], {"temperature": None}, "temperature"),
        ("grad_y_pred", [(2, 3), (2, 3), (3,)], {}, "upstream"),
        ("grad_both", [(2, 3), (2, 3), (2,)], {}, "number of operands"),
    ],
)
def test_the_handler_checks_what_memory_safety_rests_on(name, operands, options, message):
    result = jax.ShapeDtypeStruct((2,) if name == "rows" else (2, 3), np.float32)
    call = jax.ffi.ffi_call(f"kldiv_fast_{name}", result)
    given = {"operation": "kl", "epsilon": np.float64(1e-7)}
    given |= {name: np.float64(x) for name, x in (("beta", 0.5), ("scale", 1), ("temperature", 1))}
    given |= {"true_form": "probs", "pred_form": "probs"} | options
    given = {key: value for key, value in given.items() if value is not None}
    with pytest.raises(Exception, match=f"INVALID_ARGUMENT: kldiv_fast: .*{message}"):
        call(*(jnp.ones(shape) for shape in operands), **given).block_until_ready()


def test_a_missing_jax_names_the_extra():
    done = run_python("import sys; sys.modules['jax'] = None; import kldiv_fast.jax")
    assert done.returncode != 0
    expected = "ImportError: kldiv_fast.jax needs JAX: pip install 'kldiv_fast[jax]'"
    assert done.stderr.strip().splitlines()[-1] == expected


def test_the_package_alone_imports_no_jax():
    assert printed("import kldiv_fast, sys; print('jax' in sys.modules)") == "False"


def test_the_example():
    failures, tried = doctest.testmod(adapter)
    assert tried > 0
    assert failures == 0


# ---- the ABI ----

# Ours, XLA's, and for each field ours and XLA's. XLA's `extension_start` is `extensions` here.
STRUCTS = [
    ("Extension", "Extension_Base", "struct_size type next"),
    ("Version", "Api_Version", "struct_size extensions major:major_version minor:minor_version"),
    ("Metadata", "Metadata", "struct_size version:api_version traits"),
    ("MetadataExtension", "Metadata_Extension", "base:extension_base metadata"),
    ("ErrorArgs", "Error_Create_Args", "struct_size extensions message code:errc"),
    (
        "Api",
        "Api",
        "struct_size extensions version:api_version create_error:XLA_FFI_Error_Create",
    ),
    ("Buffer", "Buffer", "struct_size extensions dtype data rank dims"),
    ("Args", "Args", "struct_size extensions size types values:args"),
    ("Rets", "Rets", "struct_size extensions size types values:rets"),
    ("ByteSpan", "ByteSpan", "data:ptr size:len"),
    ("Scalar", "Scalar", "dtype value"),
    ("Attrs", "Attrs", "struct_size extensions size types names values:attrs"),
    ("CallFrame", "CallFrame", "struct_size extensions api context:ctx stage args rets attrs"),
]
NUMBERS = [
    ("kMajor", "API_MAJOR"),
    ("kCancelled", "Error_Code_CANCELLED"),
    ("kInvalidArgument", "Error_Code_INVALID_ARGUMENT"),
    ("kResourceExhausted", "Error_Code_RESOURCE_EXHAUSTED"),
    ("kInternal", "Error_Code_INTERNAL"),
    ("kF16", "DataType_F16"),
    ("kF32", "DataType_F32"),
    ("kF64", "DataType_F64"),
    ("kBF16", "DataType_BF16"),
    ("kArgBuffer", "ArgType_BUFFER"),
    ("kRetBuffer", "RetType_BUFFER"),
    ("kAttrScalar", "AttrType_SCALAR"),
    ("kAttrString", "AttrType_STRING"),
    ("kExtensionMetadata", "Extension_Metadata"),
]


def abi_assertions():
    yield '#include "xla_abi.hpp"\n#include "xla/ffi/api/c_api.h"'
    for ours, theirs in NUMBERS:
        yield f"static_assert(int(xla_abi::{ours}) == int(XLA_FFI_{theirs}));"
    for ours, theirs, fields in STRUCTS:
        ours, theirs = f"xla_abi::{ours}", f"XLA_FFI_{theirs}"
        for field in fields.split():
            mine, _, other = field.partition(":")
            other = other or mine.replace("extensions", "extension_start")
            yield f"static_assert(offsetof({ours}, {mine}) == offsetof({theirs}, {other}));"
            yield f"static_assert(sizeof({ours}::{mine}) == sizeof({theirs}::{other}));"


def compile_abi(tmp_path, header):
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    (tmp_path / "xla_abi.hpp").write_text(header)
    (tmp_path / "abi.cpp").write_text("\n".join(abi_assertions()))
    command = [compiler, "-std=c++17", "-fsyntax-only", "-I", jax.ffi.include_dir(), "abi.cpp"]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)


def test_the_abi_is_that_of_jaxlib(tmp_path):
    header = (ROOT / "src/adapters/xla_abi.hpp").read_text()
    done = compile_abi(tmp_path, header)
    assert done.returncode == 0, done.stderr


def test_drift_of_the_abi_would_be_seen(tmp_path):
    header = (ROOT / "src/adapters/xla_abi.hpp").read_text()
    for line in ("    void *data;\n", "    int64_t size;\n"):
        done = compile_abi(tmp_path, header.replace(line, "    int32_t extra[2];\n" + line, 1))
        assert "static assertion failed" in done.stderr or "static_assert" in done.stderr
