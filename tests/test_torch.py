"""kldiv_fast.torch beside kldiv_fast (values, errors) and beside PyTorch's own formulas (gradients)."""

import functools
import inspect
import itertools
import re

import kldiv_fast
import numpy as np
import pytest
from kldiv_fast import _core, _formulas
from kldiv_fast._meaning import Settings
from kldiv_fast._operations import OPERATIONS
from oracle import distributions
from pairwise import each as each_once
from pairwise import pairwise
from processes import run_python
from test_errors import CASES
from test_forms import numbers

torch = pytest.importorskip("torch")
import kldiv_fast.torch as adapter
from kldiv_fast.torch import kl, rows

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
SHAPES = [(3, 4), (1, 1), (7, 46), (2, 3, 17), (5,), (0, 5), (2, 0), (0, 3, 4), (40, 1000)]
REDUCTIONS = ["mean", "sum", "none", None, "mean_with_sample_weight", "batchmean"]


def tensors(rng, shape, dtype=torch.float32, other=None):
    pair = distributions(rng, shape, np.float64), distributions(rng, other or shape, np.float64)
    return [torch.from_numpy(x).to(dtype) for x in pair]


def formula(y_true, y_pred, epsilon=1e-7):
    t, p = y_true.clamp(epsilon, 1), y_pred.clamp(epsilon, 1)
    return (t * (t / p).log()).sum(-1)


def gradients(function, *inputs):
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    function(*inputs).sum().backward()
    return [x.grad for x in inputs]


def agree(ours, theirs, rtol=2e-6):
    theirs = np.asarray(theirs)
    assert (tuple(ours.shape), ours.numpy().dtype) == (theirs.shape, theirs.dtype)
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=rtol, atol=1e-9)


# ---- values ----


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values(rng, shape, reduction, dtype):
    pair = tensors(rng, shape, dtype)
    if dtype == torch.bfloat16:  # which NumPy can't hold: the same numbers as float32
        arrays = [x.float().numpy() for x in pair]
    else:
        arrays = [x.numpy() for x in pair]
    agree(kl(*pair, reduction=reduction), kldiv_fast.kl(*arrays, reduction=reduction))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((4, 1), (4,)),
        ((4,), (4, 1)),
        ((3, 4, 1), (3, 4)),
        ((2, 3), (3,)),
        ((3, 1), (1, 4)),
        ((), ()),
    ],
    ids=str,
)
def test_broadcasting(rng, a, b):
    pair = [torch.tensor(0.1 + rng.random(shape), dtype=torch.float32) for shape in (a, b)]
    arrays = [x.numpy() for x in pair]
    agree(kl(*pair, reduction="none"), kldiv_fast.kl(*arrays, reduction="none"))


@pytest.mark.parametrize("axis", [0, 1, -1, (0, 2), (1, 2), (2, 0, 1)], ids=str)
def test_axis(rng, axis):
    pair = tensors(rng, (3, 4, 5))
    arrays = [x.numpy() for x in pair]
    ours = kl(*pair, axis=axis, reduction="none")
    agree(ours, kldiv_fast.kl(*arrays, axis=axis, reduction="none"))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (torch.float32, torch.float64),
        (torch.float64, torch.float32),
        (torch.float16, torch.float32),
        (torch.bool, torch.float16),
        (torch.int64, torch.float32),
        (torch.int8, torch.int16),
    ],
    ids=str,
)
def test_dtypes_that_differ(rng, a, b):
    pair = [torch.from_numpy(rng.random((4, 5)) * 3).to(dtype) for dtype in (a, b)]
    arrays = [x.numpy() for x in pair]
    agree(kl(*pair, reduction="none"), kldiv_fast.kl(*arrays, reduction="none"))


WEIGHTS = [
    ((4, 5), (4,)), ((4, 5), (4, 1)), ((4, 5), (1,)), ((4, 5), ()), ((2, 3, 5), (2, 3)),
    ((2, 3, 5), (3,)), ((2, 3, 5), (2, 3, 1)), ((2, 1, 5), (2,)), ((2, 3, 1, 5), (2, 3)), ((5,), (1,)),
]  # fmt: skip


@pytest.mark.parametrize(
    "given", [("sample_weight",), ("mask",), ("sample_weight", "mask")], ids=str
)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("shape", "weight_shape"), WEIGHTS, ids=str)
def test_weights_and_masks(rng, shape, weight_shape, reduction, given):
    pair = tensors(rng, shape)
    arrays = {
        "sample_weight": np.asarray(rng.random(weight_shape), np.float32),
        "mask": np.asarray(rng.random(weight_shape) < 0.6),
    }
    ours = {name: torch.from_numpy(arrays[name]) for name in given}
    theirs = {name: arrays[name] for name in given}
    expected = kldiv_fast.kl(*(x.numpy() for x in pair), reduction=reduction, **theirs)
    agree(kl(*pair, reduction=reduction, **ours), expected)


@pytest.mark.parametrize("reduction", ["mean", "sum", "mean_with_sample_weight"])
def test_all_masked_is_zero_with_gradients_of_zero(rng, reduction):
    y_true, y_pred = tensors(rng, (3, 4))
    y_pred.requires_grad_()
    value = kl(y_true, y_pred, mask=[False] * 3, reduction=reduction)
    value.backward()
    assert value == 0
    assert torch.count_nonzero(y_pred.grad) == 0


def test_a_masked_row_may_hold_nan(rng):
    y_true, y_pred = tensors(rng, (3, 4))
    expected = kl(y_true[:2], y_pred[:2])
    for x in (y_true, y_pred):
        x[2] = torch.nan
    y_pred.requires_grad_()
    value = kl(y_true, y_pred, mask=[1, 1, 0])
    value.backward()
    torch.testing.assert_close(value.detach(), expected)
    assert torch.isfinite(y_pred.grad).all()
    assert torch.count_nonzero(y_pred.grad[2]) == 0


# ---- gradients ----


@pytest.mark.parametrize(
    ("dtype", "rtol"),
    [("float32", 2e-6), ("float64", 1e-14), ("float16", 1e-3), ("bfloat16", 1e-2)],
)
@pytest.mark.parametrize("shape", [(1, 1), (7, 46), (2, 3, 17), (5,), (0, 5), (40, 1000)], ids=str)
def test_gradients(rng, shape, dtype, rtol):
    """In the input's dtype; 16-bit ones rounded once from the formula in float32."""
    pair = tensors(rng, shape, DTYPES[dtype])
    wide = [x.to(torch.promote_types(x.dtype, torch.float32)) for x in pair]
    for mine, theirs in zip(
        gradients(rows_with(1e-7), *pair), gradients(formula, *wide), strict=True
    ):
        assert mine.dtype == DTYPES[dtype]
        torch.testing.assert_close(mine, theirs.to(mine.dtype), rtol=rtol, atol=1e-6)


def rows_with(epsilon, **settings):
    return lambda y_true, y_pred: rows(y_true, y_pred, Settings(epsilon=epsilon, **settings))


def test_gradients_at_the_clip(rng):
    low = np.float32(1e-7)
    edges = [-1.0, 0.0, np.nextafter(low, 0), low, np.nextafter(low, 1), 0.5]
    edges += [1 - 6e-8, 1.0, 1 + 1.2e-7, 2.0, np.inf]
    grid = torch.from_numpy(np.array(np.meshgrid(edges, edges), np.float32).reshape(2, -1, 1))
    for mine, theirs in zip(
        gradients(rows_with(1e-7), *grid), gradients(formula, *grid), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("wrt", [(True, False), (False, True), (True, True)], ids=str)
def test_gradcheck(rng, wrt):
    pair = tensors(rng, (3, 5), torch.float64)
    pair[1][0, 0] = 1.5  # beyond the clip
    for x, needed in zip(pair, wrt, strict=True):
        x.requires_grad_(needed)
    for function in (rows_with(1e-3), kl):
        assert torch.autograd.gradcheck(function, pair)
        assert torch.autograd.gradgradcheck(function, pair)


def test_gradcheck_of_everything_at_once(rng):
    y_true, y_pred = tensors(rng, (3, 1, 4), torch.float64, other=(2, 4))
    weight = torch.from_numpy(rng.random((3, 2)))
    inputs = [x.requires_grad_() for x in (y_true, y_pred, weight)]
    mask = [[True, False], [True, True], [False, True]]
    for reduction in ("mean", "none", "mean_with_sample_weight", "batchmean"):
        assert torch.autograd.gradcheck(
            lambda t, p, w: kl(t, p, sample_weight=w, mask=mask, axis=-1, reduction=reduction),  # noqa: B023
            inputs,
        )


def test_only_the_gradients_asked_for_are_computed_in_place(rng, monkeypatch):
    """Zero-copy: the core is given the tensors' own memory."""
    calls = []
    core = _core.rows
    monkeypatch.setattr(_core, "rows", lambda *a: (calls.append(a), core(*a)))
    for dtype in DTYPES.values():
        y_true, y_pred = tensors(rng, (3, 4), dtype)
        y_pred.requires_grad_()
        calls.clear()
        kl(y_true, y_pred, reduction="none").sum().backward()
        assert len(calls) == 2
        for _, t, p, *_ in calls:
            assert (t, p) == (y_true.data_ptr(), y_pred.data_ptr())
        _, _, _, _, _, _, upstream, _, out, grad_true, grad_pred, *_ = calls[1]
        assert upstream and grad_pred
        assert not out and not grad_true


def test_strides(rng):
    pair = [x.T for x in tensors(rng, (6, 5))]
    agree(kl(*pair, reduction="none"), kldiv_fast.kl(*(x.numpy() for x in pair), reduction="none"))
    for mine, theirs in zip(
        gradients(kl, *pair), gradients(lambda t, p: formula(t, p).mean(), *pair), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_a_lazy_negation_is_not_lost():
    y_true = torch.imag(torch.tensor([[0.25 - 0.5j, 0.75 - 0.5j]]).conj())
    assert y_true.is_neg()
    y_pred = torch.tensor([[0.2, 0.8]])
    torch.testing.assert_close(kl(y_true, y_pred), formula(y_true, y_pred)[0])


def test_forward_mode(rng):
    pair = [x.requires_grad_() for x in tensors(rng, (3, 5), torch.float64)]
    assert torch.autograd.gradcheck(rows_with(1e-3), pair, check_forward_ad=True)


def test_transforms_raise(rng):
    """torch.func finds an error, never a zero."""
    y_true, y_pred = tensors(rng, (3, 4))
    with pytest.raises(RuntimeError, match="functorch transforms"):
        torch.func.grad(kl, argnums=1)(y_true, y_pred)
    with pytest.raises(RuntimeError, match="functorch transforms"):
        torch.func.jvp(lambda p: kl(y_true, p), (y_pred,), (torch.ones_like(y_pred),))


# ---- every divergence of the table ----

# Each with parameters of its own at several values, as (operation, keywords).
EACH = [(row, {}) for row in OPERATIONS if not row.parameters]
EACH += [(row, {"beta": beta}) for row in OPERATIONS if row.parameters for beta in (0.0, 0.3, 1.0)]
EACH_BY_ID = {f"{row.name} {given}": (row, given) for row, given in EACH}
each = pytest.mark.parametrize(("operation", "parameters"), EACH_BY_ID.values(), ids=EACH_BY_ID)
CALLS = [
    {},
    {"reduction": "sum", "base": 2},
    {"axis": 0, "epsilon": 1e-3},
    {"sample_weight": [1.0, 0.5, 2.0], "reduction": "mean_with_sample_weight"},
    {"mask": [True, False, True], "reduction": "batchmean"},
]


def row_formula(operation, parameters, epsilon=1e-7):
    """The table's formula, which PyTorch differentiates."""
    settings = Settings(operation.name, epsilon, parameters.get("beta", 0.5))

    def function(y_true, y_pred):
        t, p = y_true.clamp(epsilon, 1), y_pred.clamp(epsilon, 1)
        return _formulas.terms(torch, settings, t, p).sum(-1)

    return function


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
@pytest.mark.parametrize("call", CALLS, ids=str)
def test_values_and_gradients_are_those_of_numpy(rng, operation, parameters, call, dtype):
    """Bit for bit in eager code, and each gradient alone."""
    pair = tensors(rng, (3, 4), dtype)
    arrays = [x.numpy().copy() for x in pair]
    keywords = parameters | call
    if call.get("axis") == 0:
        pair, arrays = [x.T for x in pair], [x.T for x in arrays]
    ours, theirs = getattr(adapter, operation.name), getattr(kldiv_fast, operation.name)
    expected = theirs(*arrays, **keywords)
    np.testing.assert_array_equal(ours(*pair, **keywords), expected, strict=True)
    rows = ours(*pair, **keywords | {"reduction": "none"})
    np.testing.assert_array_equal(rows, theirs(*arrays, **keywords | {"reduction": "none"}))

    value_and_grad = getattr(kldiv_fast, f"{operation.name}_value_and_grad")
    for wrt in (("y_true",), ("y_pred",), ("y_true", "y_pred")):
        named = dict(zip(("y_true", "y_pred"), pair, strict=True))
        inputs = {name: x.detach().requires_grad_(name in wrt) for name, x in named.items()}
        value = ours(**inputs, **keywords)
        np.testing.assert_array_equal(value.detach(), expected)
        value.backward()
        _, gradients = value_and_grad(*arrays, wrt=wrt, **keywords)
        for name, gradient in zip(wrt, gradients, strict=True):
            np.testing.assert_array_equal(inputs[name].grad, gradient.astype(arrays[0].dtype))


@each
def test_gradients_of_each(rng, operation, parameters):
    """Of first and second order beside PyTorch's derivatives of the formula, and beside differences."""
    pair = tensors(rng, (3, 5), torch.float64)
    pair[0][0, 1], pair[1][1, 0] = 1.5, 0.0  # beyond the clip, on both sides of it
    pair = [x.requires_grad_() for x in pair]
    upstream = torch.rand(3, dtype=torch.float64)

    def derivatives(function):
        first = torch.autograd.grad(function(*pair), pair, upstream, create_graph=True)
        squares = sum((x**2).sum() for x in first)
        second = torch.autograd.grad(squares, pair, create_graph=True)
        return *first, *second, *torch.autograd.grad(second[0].sum(), pair)

    expected = derivatives(row_formula(operation, parameters, 1e-3))
    whole = getattr(adapter, operation.name)
    for_rows = functools.partial(whole, reduction="none", epsilon=1e-3, **parameters)
    torch.testing.assert_close(derivatives(for_rows), expected)
    function = functools.partial(whole, epsilon=1e-3, base=2, **parameters)
    assert torch.autograd.gradcheck(function, pair)
    assert torch.autograd.gradgradcheck(function, pair)
    assert torch.autograd.gradcheck(for_rows, pair, check_forward_ad=True)


@each
@pytest.mark.parametrize("epsilon", [None, 0.0])
def test_zeros_of_each(operation, parameters, epsilon):
    """Values, gradients and their derivatives are finite wherever the row is."""
    edges = torch.tensor([0.0, 1e-3, 0.5, 1.0])
    y_true, y_pred = (x.reshape(-1, 1) for x in torch.meshgrid(edges, edges, indexing="ij"))
    keywords = parameters | {"epsilon": epsilon}
    value = getattr(adapter, operation.name)
    rows = getattr(kldiv_fast, operation.name)(
        y_true.numpy(), y_pred.numpy(), reduction="none", **keywords
    )
    finite = torch.from_numpy(np.isfinite(rows))
    pair = [x[finite].requires_grad_() for x in (y_true, y_pred)]
    first = torch.autograd.grad(value(*pair, **keywords), pair, create_graph=True)
    second = torch.autograd.grad(sum((x**2).sum() for x in first), pair)
    assert all(torch.isfinite(x).all() for x in (*first, *second))


# The compiler takes seconds over each.
@pytest.mark.parametrize(
    ("operation", "parameters"),
    [
        pytest.param(*case, marks=() if case in (EACH[0], EACH[-2]) else pytest.mark.long)
        for case in EACH
    ],
    ids=EACH_BY_ID,
)
def test_compiled_as_eager(rng, operation, parameters):
    pair = tensors(rng, (3, 5))
    function = functools.partial(getattr(adapter, operation.name), base=2, **parameters)
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*pair), function(*pair))
    torch.testing.assert_close(gradients(compiled, *pair), gradients(function, *pair))


def test_signatures():
    for row in OPERATIONS:
        names = list(inspect.signature(getattr(adapter, row.name)).parameters)
        theirs = list(inspect.signature(getattr(kldiv_fast, row.name)).parameters)
        numpys = {"out", "num_threads"}
        assert sorted(names) == sorted(set(theirs) - numpys)
    x = torch.ones(1, 1)
    for wrong in ("out", "beta"):
        with pytest.raises(
            TypeError, match=rf"kl\(\) got an unexpected keyword argument '{wrong}'"
        ):
            kl(x, x, **{wrong: 0.5})


# ---- eager code: what autograd may do with a value and its gradients ----


@pytest.fixture
def pair(rng):
    y_true, y_pred = tensors(rng, (3, 4))
    return y_true, y_pred.requires_grad_()


def test_backward_twice(pair):
    value = kl(*pair)
    first, second = (torch.autograd.grad(value, pair[1], retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(first, second)
    third = torch.autograd.grad(value, pair[1], create_graph=True)[0]
    torch.testing.assert_close(third.detach(), first)


def test_a_factor_of_zero_makes_gradients_of_zero(pair):
    y_true, y_pred = pair[0], pair[1].detach()
    y_pred[0] = torch.nan
    y_pred.requires_grad_()
    (0 * kl(y_true, y_pred)).backward()
    assert torch.count_nonzero(y_pred.grad) == 0


def test_one_tensor_as_both(rng):
    x = tensors(rng, (3, 4), torch.float64)[0].requires_grad_()
    y = (2 * x).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: adapter.jeffreys(x, x), [x])
    assert torch.autograd.gradgradcheck(lambda x: kl(x, x), [x])
    assert torch.count_nonzero(torch.autograd.grad(adapter.jeffreys(y, y), x)[0]) == 0


def test_batched_gradients(pair):
    value = kl(*pair)
    upstreams = torch.tensor([1.0, 2.0])
    once = torch.autograd.grad(value, pair[1], retain_graph=True)[0]
    both = torch.autograd.grad(value, pair[1], upstreams, is_grads_batched=True)[0]
    torch.testing.assert_close(both, torch.stack([once, 2 * once]))


def test_modes(pair):
    y_true, y_pred = pair
    expected = kl(y_true, y_pred).detach()
    with torch.no_grad():
        assert not kl(y_true, y_pred).requires_grad
    with torch.inference_mode():
        value = kl(y_true, y_pred)
        assert value.is_inference()
        assert value == expected
        assert kl(y_true + 0, y_pred) == expected
    with torch.device("meta"):  # what is made, not what is given
        assert kl(y_true, y_pred) == expected
    parameter = torch.nn.Parameter(y_pred.detach())
    kl(y_true, parameter).backward()
    torch.testing.assert_close(parameter.grad, torch.autograd.grad(kl(*pair), y_pred)[0])


def test_what_watches_sees_the_ops(pair):
    """Modes of dispatch and tracers get operations of PyTorch's and ours, not a constant."""
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.utils._python_dispatch import TorchDispatchMode

    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.add(str(function))
            return function(*args, **(kwargs or {}))

    seen = set()
    with Names():
        kl(*pair)
    assert "kldiv_fast.rows.default" in seen
    graph = make_fx(lambda t, p: kl(t, p))(pair[0], pair[1].detach())
    assert "kldiv_fast.rows" in graph.code


# ---- without a clip ----


def rel_entr(y_true, y_pred):
    """The row's value where both are positive, and what is 0 by definition elsewhere."""
    positive = (y_true > 0) & (y_pred > 0)
    t, p = torch.where(positive, y_true, 1), torch.where(positive, y_pred, 1)
    return torch.where(positive, t * (t / p).log(), 0).sum(-1)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "none", "batchmean"])
def test_no_clip(rng, reduction, dtype):
    """kldiv_fast.kl's values and gradients: above 1, at zeros and beyond."""
    y_true, y_pred = (3 * x for x in tensors(rng, (4, 6), dtype))
    y_true[0, 1:3], y_pred[0, 2:4], y_true[1, 0], y_pred[2, 5] = 0, 0, -0.5, torch.nan
    arrays = [x.float().numpy() if dtype == torch.bfloat16 else x.numpy() for x in (y_true, y_pred)]
    keywords = {"epsilon": None, "reduction": reduction}
    agree(kl(y_true, y_pred, **keywords), kldiv_fast.kl(*arrays, **keywords))
    upstream = np.ones(4) if reduction == "none" else None
    wanted = {"wrt": ("y_true", "y_pred"), "upstream": upstream} | keywords
    expected = kldiv_fast.kl_value_and_grad(*arrays, **wanted)[1]
    ours = gradients(lambda t, p: kl(t, p, **keywords), y_true, y_pred)
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, torch.from_numpy(theirs).to(dtype), equal_nan=True)


def test_gradcheck_without_a_clip(rng):
    pair = [(3 * x).requires_grad_() for x in tensors(rng, (3, 5), torch.float64)]
    function = rows_with(None)
    assert torch.autograd.gradcheck(function, pair, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, pair)


@pytest.mark.parametrize("epsilon", [None, 0.0])
def test_second_derivatives_at_zeros(rng, epsilon):
    """Exact beside zeros and 0 there, whatever is asked further."""
    y_true, y_pred = tensors(rng, (4, 6), torch.float64)
    y_true[0, 1:3], y_pred[0, 2:4], y_true[1, 0] = 0, 0, -0.5
    pair = [x.requires_grad_() for x in (y_true, y_pred)]
    factors = [torch.rand(4, 6, dtype=torch.float64) for _ in pair]

    def derivatives(function):
        """Of first, second and third order."""
        value, found = function(*pair).sum(), []
        for _ in range(3):
            grads = torch.autograd.grad(value, pair, create_graph=True)
            found += grads
            value = sum((g * f).sum() for g, f in zip(grads, factors, strict=True))
        return found

    torch.testing.assert_close(derivatives(rows_with(epsilon)), derivatives(rel_entr))


def test_a_masked_row_of_nan_has_second_derivatives_of_zero(rng):
    for epsilon in (None, 1e-7):
        y_true, y_pred = tensors(rng, (2, 4), torch.float64)
        y_true[1, 2], y_pred[1] = torch.nan, torch.nan
        pair = [x.requires_grad_() for x in (y_true, y_pred)]
        value = kl(*pair, mask=[True, False], epsilon=epsilon)
        first = torch.autograd.grad(value, pair, create_graph=True)
        second = torch.autograd.grad(sum((g**2).sum() for g in first), pair)
        for grad in (*first, *second):
            assert torch.isfinite(grad).all()
            assert torch.count_nonzero(grad[1]) == 0
            assert torch.count_nonzero(grad[0]) == 4


# ---- other forms than probabilities ----

PAIRS = [
    ("probs", "logits"),
    ("counts", "log_probs"),
    ("logits", "logits"),
    ("log_probs", "counts"),
]
each_pair = pytest.mark.parametrize("forms", PAIRS, ids="-".join)


def of_forms(rng, forms, shape=(3, 5), dtype=torch.float64):
    pair = [torch.from_numpy(numbers(rng, form, shape, np.float64)).to(dtype) for form in forms]
    temperature = {"temperature": 1.5} if "logits" in forms else {}
    return pair, {"form": forms} | temperature


@pairwise(which=EACH_BY_ID, forms={"-".join(pair): pair for pair in PAIRS}, dtype=DTYPES)
def test_forms_are_those_of_numpy(rng, which, forms, dtype):
    operation, parameters = which
    pair, keywords = of_forms(rng, forms, dtype=dtype)
    keywords = keywords | parameters
    arrays = [adapter._view(x).copy() for x in pair]
    ours, value_and_grad = (
        getattr(adapter, operation.name),
        getattr(kldiv_fast, f"{operation.name}_value_and_grad"),
    )
    for reduction in ("mean", "none"):
        inputs = [x.clone().requires_grad_() for x in pair]
        value = ours(*inputs, reduction=reduction, **keywords)
        expected, found = value_and_grad(
            *arrays, wrt=("y_true", "y_pred"), reduction=reduction, **keywords
        )
        np.testing.assert_array_equal(value.detach(), expected)
        value.sum().backward()
        for x, gradient in zip(inputs, found, strict=True):
            assert torch.equal(x.grad, torch.from_numpy(gradient).to(dtype))


@each
@each_pair
def test_derivatives_of_forms(rng, operation, parameters, forms):
    """Of both orders beside differences, and beside PyTorch's own of the formula."""
    pair, keywords = of_forms(rng, forms, (2, 4))
    pair = [x.requires_grad_() for x in pair]
    whole = functools.partial(getattr(adapter, operation.name), **keywords, **parameters)
    assert torch.autograd.gradcheck(whole, pair)
    assert torch.autograd.gradgradcheck(whole, pair)
    for_rows = functools.partial(whole, reduction="none")
    assert torch.autograd.gradcheck(for_rows, pair, check_forward_ad=True)


def test_distillation(rng):
    """A student's logits beside a teacher's, tokens masked: PyTorch's usual steps."""
    teacher, student = (torch.from_numpy(rng.normal(size=(6, 30))) for _ in range(2))
    student.requires_grad_()
    mask, temperature = torch.tensor([1, 1, 0, 1, 0, 1], dtype=torch.bool), 2.0
    log_t, log_p = ((x / temperature).log_softmax(-1) for x in (teacher, student))
    rows_ = torch.nn.functional.kl_div(log_p, log_t, log_target=True, reduction="none").sum(-1)
    expected = rows_[mask].mean() * temperature**2
    ours = kl(teacher, student, form="logits", temperature=temperature, mask=mask) * temperature**2
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(
        torch.autograd.grad(ours, student), torch.autograd.grad(expected, student)
    )


def test_counts_of_any_size_compiled(rng):
    """Integers that 16 bits don't hold."""
    counts = torch.from_numpy(rng.integers(0, 200_000, (3, 5)))
    logits = torch.from_numpy(rng.normal(size=(3, 5))).to(torch.float16)
    function = functools.partial(kl, form=("counts", "logits"))
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(counts, logits), function(counts, logits))


def test_compiled_logits(rng):
    function = functools.partial(kl, form=("probs", "logits"), temperature=2.0)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    pair, _ = of_forms(rng, ("probs", "logits"))
    torch.testing.assert_close(gradients(compiled, *pair), gradients(function, *pair))


# ---- the ops, and the compiler ----

SETTINGS = [
    Settings(),
    Settings("jsd", None, 0.25, 2.0),
    Settings("kl", None, true_form="counts", pred_form="logits", temperature=2.0),
]


@each_once(dtype=DTYPES, wrt=[(False, False), (True, False), (False, True), (True, True)])
def test_opcheck(rng, wrt, dtype):
    pair = tensors(rng, (3, 5), dtype)
    for x, needed in zip(pair, wrt, strict=True):
        x.requires_grad_(needed)
    for settings in SETTINGS:
        torch.library.opcheck(torch.ops.kldiv_fast.rows.default, (*pair, *settings))
    upstream = torch.rand(3, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    for settings in SETTINGS:
        torch.library.opcheck(
            torch.ops.kldiv_fast.rows_backward.default,
            (upstream, *(x.detach() for x in pair), *settings, *wrt),
        )


def test_opcheck_of_strided_tensors(rng):
    pair = [x.T for x in tensors(rng, (3, 5))]
    torch.library.opcheck(torch.ops.kldiv_fast.rows.default, (*pair, *Settings()))


COMPILERS = [
    "inductor",
    "aot_eager",
]  # the second traces and differentiates as the first, and writes no C++
in_seconds = {("inductor", True, 1e-7), ("aot_eager", False, 1e-7), ("aot_eager", False, None)}


@pytest.mark.parametrize(
    ("backend", "dynamic", "epsilon"),
    [
        pytest.param(*case, marks=() if case in in_seconds else pytest.mark.long)
        for case in itertools.product(COMPILERS, [False, True], [1e-7, None])
    ],
)
def test_compile(rng, backend, dynamic, epsilon):
    compiled = torch.compile(
        lambda t, p, w: kl(t, p.softmax(-1), sample_weight=w, mask=[True], epsilon=epsilon),
        fullgraph=True,
        dynamic=dynamic,
        backend=backend,
    )
    for shape in ((4, 6), (5, 7)):
        y_true, logits = tensors(rng, shape)
        weight = torch.from_numpy(rng.random(shape[0], np.float32))
        arguments = [y_true, logits, weight]
        mine = gradients(compiled, *arguments)
        theirs = gradients(lambda t, p, w: (formula(t, p.softmax(-1)) * w).mean(), *arguments)
        torch.testing.assert_close(mine, theirs)


def test_fake_tensors_have_shapes_and_no_values():
    t = torch.empty(3, 4, device="meta", dtype=torch.bfloat16)
    value = rows(t, t, Settings())
    assert (value.shape, value.dtype, value.is_meta) == ((3,), torch.float32, True)


# ---- rows that are not what their form says ----


def leaf(*rows):
    return torch.tensor(rows, requires_grad=True)


BAD, GOOD = torch.tensor([[0.5, 0.5], [0.5, 0.75]]), torch.full((2, 2), 0.5)
# Every way to a value, of inputs that NumPy refuses.
CALLS = {
    "value": (BAD, GOOD, {}),
    "gradients": (BAD, leaf([0.5, 0.5], [0.25, 0.75]), {}),
    "gradients of rows": (GOOD, leaf([0.5, 0.5], [0.25, 0.5]), {"reduction": "none"}),
    "gradients of weights": (BAD, GOOD, {"sample_weight": leaf(1.0, 2.0)}),
    "bfloat16": (BAD.bfloat16(), leaf([0.5, 0.5], [0.25, 0.75]), {"reduction": None}),
    "labels": (torch.tensor([0, 1]), leaf([0.5, 0.5], [0.5, 0.75]), {"form": ("labels", "probs"), "reduction": "none"}),
    "where": (BAD, leaf([0.5, 0.5], [0.25, 0.75]), {"where": torch.tensor([[True, True], [False, True]]), "reduction": "none"}),
    "axis": (BAD, GOOD, {"axis": 0, "mask": torch.tensor([False, True])}),
}  # fmt: skip


@pytest.mark.parametrize(("y_true", "y_pred", "keywords"), CALLS.values(), ids=CALLS)
def test_validate_has_the_error_of_numpy(y_true, y_pred, keywords):
    arrays = [x.detach() for x in (y_true, y_pred)]
    read = {k: x.detach() if isinstance(x, torch.Tensor) else x for k, x in keywords.items()}
    with pytest.raises(ValueError, match=r"y_\w+ has the sum [\d.]+ in row 1") as expected:
        kldiv_fast.kl(*arrays, **read, validate=True)
    with pytest.raises(ValueError, match=f"^{re.escape(str(expected.value))}$"):
        kl(y_true, y_pred, **keywords, validate=True)
    kl(y_true, y_pred, **keywords, validate=False)
    with pytest.raises(TypeError, match="validate is 0; expected True or False"):
        kl(y_true, y_pred, **keywords, validate=0)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_what_passes_validate_has_its_value_and_gradients(reduction):
    """Of both orders, and of what a mask leaves out."""
    y_true, mask = BAD.clone(), torch.tensor([True, False])
    y_pred = leaf([0.25, 0.75], [0.0, 9.0])
    found = []
    for validate in (False, True):
        value = kl(y_true, y_pred, mask=mask, reduction=reduction, validate=validate).sum()
        twice = [torch.autograd.grad(value, y_pred, retain_graph=True)[0] for _ in range(2)]
        (first,) = torch.autograd.grad(value, y_pred, create_graph=True)
        found.append([value, *twice, first, *torch.autograd.grad(first.sum(), y_pred)])
    torch.testing.assert_close(*found, rtol=0, atol=0)


def exported(function, x):
    module = torch.nn.Module()
    module.forward = function
    return torch.export.export(module, (x,), strict=False)


@pytest.mark.parametrize(
    "call",
    [
        lambda function, x: torch.func.grad(function)(x),
        lambda function, x: torch.func.vmap(function)(x),
        lambda function, x: function(x.to("meta")),
        lambda function, x: torch.compile(function, backend="eager")(x),
        exported,
    ],
    ids=["grad", "vmap", "meta", "compile", "export"],
)
def test_validate_is_refused_where_values_are_not_known(call):
    def function(x):
        return kl(x, x, validate=True)

    with pytest.raises(ValueError, match=r"^validate is True where values are not known"):
        call(function, GOOD)


def test_validate_in_one_graph():
    def compiled(validate):
        function = functools.partial(kl, validate=validate)
        return torch.compile(function, fullgraph=True, backend="eager")

    torch._dynamo.reset()
    assert compiled(False)(GOOD, GOOD) == 0
    with pytest.raises(torch._dynamo.exc.Unsupported, match="validate is True where values are no"):
        compiled(True)(GOOD, GOOD)


# ---- bad input ----

# What PyTorch has no counterpart for: object arrays, strings and the like; and the arguments that its functions lack.
ELSEWHERE = (
    "out",
    "num_threads",
    "unknown",
    "object",
    "string",
    "datetime",
    "longdouble",
    "ragged",
)
SHARED = {
    name: case
    for name, case in CASES.items()
    if not name.startswith((*ELSEWHERE, "None", "masked array"))
}


def as_tensor(x):
    return torch.from_numpy(x) if isinstance(x, np.ndarray) else x


@pytest.mark.parametrize(("change", "error", "message"), SHARED.values(), ids=SHARED)
def test_errors_are_those_of_kl(change, error, message):
    x = torch.full((4, 3), 1 / 3)
    arguments = dict(y_true=x, y_pred=x) | {
        name: as_tensor(value) for name, value in change.items()
    }
    with pytest.raises(error, match=message.replace("of dtype ", r"of dtype (torch\.)?")):
        kl(**arguments)


def test_what_is_no_dense_tensor_is_refused():
    x = torch.full((4, 3), 1 / 3)
    for bad, message in (
        (x.numpy(), "y_true is of type ndarray; expected a tensor"),
        (x.to_sparse(), "y_true is a tensor of layout torch.sparse_coo; expected a dense one"),
        (x.to(torch.float8_e4m3fn), "y_true is of dtype torch.float8_e4m3fn"),
    ):
        with pytest.raises(TypeError, match=message):
            kl(bad, x)
    dense = x.to_sparse().to_dense(), x.to(torch.float8_e4m3fn).to(torch.float32)
    assert all(kl(y_true, y_true) == 0 for y_true in dense)


def test_rows_of_different_lengths():
    """Nested tensors of either layout; what the message says makes them dense."""
    ragged = [torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.5, 0.25])]
    x = torch.full((2, 3), 1 / 3)
    expected = kl(torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.5, 0.25]]), x)
    nested = torch.nested.nested_tensor(ragged, layout=torch.jagged)
    for function in (kl, kldiv_fast.kl):
        with pytest.raises(TypeError, match=r"y_true is a nested tensor; .*: (.*)") as info:
            function(nested, x)
        dense = eval(str(info.value).rpartition(": ")[2], {"torch": torch, "y_true": nested})
        assert function(dense, x) == pytest.approx(expected.item(), rel=1e-6)


def test_weights_of_other_libraries():
    pd = pytest.importorskip("pandas")
    x, y = torch.full((2, 2), 0.5), torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    expected = kl(x, y, sample_weight=torch.tensor([1.0, 2.0]))
    assert kl(x, y, sample_weight=pd.Series([1.0, 2.0], dtype="Float64")) == expected
    with pytest.raises(TypeError, match="mask is a masked array"):
        kl(x, y, mask=np.ma.array([True, False], mask=[True, False]))
    with pytest.raises(ValueError, match="sample_weight has a missing value in row 1"):
        kl(x, y, sample_weight=pd.Series([1.0, None], dtype="Float64"))


def test_another_device_is_refused():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        x, y = torch.empty(2, 3), torch.empty(2, 3, device="cuda")
        with pytest.raises(TypeError, match=r"y_pred is a tensor on the device cuda.*y_pred\.cpu"):
            kl(x, y)


def test_the_ops_check_what_memory_safety_rests_on():
    x, wide = torch.rand(3, 4), torch.rand(3, 4, dtype=torch.float64)
    op, backward = torch.ops.kldiv_fast.rows, torch.ops.kldiv_fast.rows_backward
    with pytest.raises(ValueError, match=r"shapes \(3, 4\) and \(2, 4\)"):
        op(x, x[:2], *Settings())
    with pytest.raises(TypeError, match=r"dtypes torch\.float32 and torch\.float64"):
        op(x, wide, *Settings())
    with pytest.raises(ValueError, match=r"upstream has shape \(2,\)"):
        backward(torch.ones(2), x, x, *Settings(), True, True)
    with pytest.raises(ValueError, match=r"dtype torch\.float64"):
        backward(torch.ones(3, dtype=torch.float64), x, x, *Settings(), True, True)
    for settings, message in (
        (Settings("dot"), "operation is 'dot'; expected one of: kl, "),
        (Settings(epsilon=1.0), "epsilon must lie in"),
        (Settings("jsd", beta=2.0), "beta must lie in"),
        (Settings(true_form="logit"), r"form is \('logit', 'probs'\); expected one of: "),
        (Settings(true_form="labels"), "form is 'labels', which are no tensor of y_pred's dtype"),
        (Settings(temperature=0.0), "temperature must be finite and above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            op(x, x, *settings)


def test_a_missing_torch_is_told():
    done = run_python("import sys; sys.modules['torch'] = None; import kldiv_fast.torch")
    assert done.returncode != 0
    assert "kldiv_fast.torch needs PyTorch: pip install 'kldiv_fast[torch]'" in done.stderr


def test_the_examples_in_the_docstrings():
    import doctest

    import kldiv_fast.torch

    failed, attempted = doctest.testmod(kldiv_fast.torch)
    assert attempted == 9 * len(OPERATIONS)
    assert failed == 0
