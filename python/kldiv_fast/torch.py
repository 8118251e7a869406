"""PyTorch: the divergences on CPU tensors, with gradients, in eager code and under ``torch.compile``.

There are two ways to a value. In eager code NumPy's function does all of it, over the tensors' own memory, and the first
derivatives with it. What PyTorch is to see into (``torch.compile``, exports, transforms, derivatives of derivatives) is
made of its own operations around two ops, ``kldiv_fast::rows`` and its gradients ``kldiv_fast::rows_backward``.

``kldiv_fast.keras`` builds on :func:`rows`. Needs the extra ``torch``.
"""

import numpy as np

try:
    import torch
    from torch.autograd import forward_ad
except ImportError as error:
    raise ImportError("kldiv_fast.torch needs PyTorch: pip install 'kldiv_fast[torch]'") from error

import kldiv_fast
from kldiv_fast import _adapters, _core, _formulas, _meaning
from kldiv_fast._arrays import as_array, check_layout, refuse
from kldiv_fast._divergence import prepare
from kldiv_fast._meaning import Settings
from kldiv_fast._operations import OPERATIONS

_NAMES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}
_INTEGERS = (
    torch.bool,
    *(getattr(torch, f"{u}int{bits}") for u in ("", "u") for bits in (8, 16, 32, 64)),
)
_INPUTS = ("y_true", "y_pred")

_TEMPLATE = """\
{title} of distributions, in nats, as a differentiable tensor.

With the meaning of :func:`kldiv_fast.{name}`, which has the formula and its source. Gradients flow
to `y_true`, `y_pred` and `sample_weight`, as far as they require one::

    d row / d y_true = {by_true}
    d row / d y_pred = {by_pred}

(with respect to what other forms stand for: see :func:`kldiv_fast.{name}_value_and_grad`) and 0
where the clip is at work, that is below `epsilon` and above 1 but not at the two bounds, as
``torch.clamp`` has it; with ``epsilon=None`` (and 0), where the row is infinite or would be beyond
zero. A row that is masked or has the weight 0 gets gradients of 0, whatever it holds. Second
derivatives are PyTorch's own of these formulas.

Parameters
----------
y_true, y_pred : torch.Tensor, of shapes (..., classes) that broadcast
    The distributions, in the CPU's memory: float16, bfloat16, float32 or float64 are read in place,
    and integers and bools. A 0-d or 1-d input is one row.
{parameters}{shared}{labels}{validate}
Returns
-------
torch.Tensor
    0-d, or of the rows' shape with ``reduction="none"``. float64 if `y_pred` is float64 or of
    integers, or if `y_true` is float64; otherwise float32.

Raises
------
ValueError
    If shapes do not broadcast, an argument has a value that is not in its range, or `validate` finds
    a row that is not of its form, or is True where values are not known: in compiled code, under
    transformations (``torch.func``, forward-mode derivatives), of fake tensors.
TypeError
    If an argument is of a type or dtype that is not among those above, or lies on another device.

Notes
-----
In eager code a value of which a gradient may be asked is computed together with it, in one pass.
Compiled code, and ``reduction="none"``, computes gradients when they are asked for.

Examples
--------
>>> import torch
>>> from kldiv_fast.torch import {name}
>>> y_true = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
>>> y_pred = torch.tensor([[0.6, 0.4], [0.4, 0.6]])
>>> f"{{{name}(y_true, y_pred).item():.6f}}"
'{value}'
>>> y_true = torch.tensor([[0.0, 1.0], [0.5, 0.5]])
>>> y_pred = torch.tensor([[0.5, 0.5], [0.25, 0.75]], requires_grad=True)
>>> {name}(y_true, y_pred).backward()
>>> y_pred.grad.numpy().round(4)
{gradient}
"""


def _divergence(operation, y_true, y_pred, given):
    # The compiler sees the first of these alone.
    if torch.compiler.is_compiling() or not _is_eager(y_true, y_pred, given):
        return _composed(operation, y_true, y_pred, _adapters.complete(operation, given))
    weighs = torch.is_grad_enabled() and _needs_grad(given.get("sample_weight"))
    if torch.is_grad_enabled() and (y_true.requires_grad or y_pred.requires_grad or weighs):
        if weighs or _meaning.is_none(given.get("reduction", "mean")):
            return _composed(operation, y_true, y_pred, _adapters.complete(operation, given))
        return _apply_eager(y_true, y_pred, operation, given)
    return _tensor(_VALUES[operation](_view(y_true), _view(y_pred), **_read(given)))


# ---- eager code: NumPy's functions, over the tensors' memory ----

_VALUES = {row: getattr(kldiv_fast, row.name) for row in OPERATIONS}
_GRADIENTS = {row: getattr(kldiv_fast, f"{row.name}_value_and_grad") for row in OPERATIONS}

# What stands between a call and its kernel (transforms, tracers, modes), and what a tensor is to the dispatcher (its device
# and layout, whether it wraps another or is negated lazily).
_modes = torch._C._dispatch_tls_local_include_set
_keys = torch._C._dispatch_keys

_PLAIN_MODES, _PLAIN_KEYS = set(), set()
for _inference in (False, True):
    with torch.inference_mode(_inference):
        _PLAIN_MODES.add(_modes().raw_repr())
        _PLAIN_KEYS.add(_keys(torch.empty(0, device="cpu")).raw_repr())

_PLAIN_TYPES = {torch.Tensor, torch.nn.Parameter}
_PLAIN_DTYPES = {*_NAMES, *_INTEGERS}


def _is_eager(y_true, y_pred, given):
    """Whether tensors are memory with numbers in it, and nobody but autograd watches."""
    return (
        _is_plain(y_true)
        and _is_plain(y_pred)
        and _modes().raw_repr() in _PLAIN_MODES
        and forward_ad._current_level < 0
        and (not given or all(_is_plain(x) for x in given.values() if isinstance(x, torch.Tensor)))
    )


def _is_plain(x):
    return (
        type(x) in _PLAIN_TYPES and _keys(x).raw_repr() in _PLAIN_KEYS and x.dtype in _PLAIN_DTYPES
    )


def _needs_grad(x):
    return isinstance(x, torch.Tensor) and x.requires_grad


def _view(x):
    """Its memory as an array. (PyTorch refuses that for what requires a gradient only where one is recorded.)"""
    return as_array(x.detach(), "") if x.dtype is torch.bfloat16 else x.numpy()


def _read(given):
    """The keywords with arrays for tensors."""
    if not given:
        return given
    return {name: _view(x) if isinstance(x, torch.Tensor) else x for name, x in given.items()}


def _tensor(values):
    return torch.from_numpy(np.asarray(values))


_WRT = {
    (True, False): ("y_true",),
    (False, True): ("y_pred",),
    (True, True): ("y_true", "y_pred"),
}


class _Eager(torch.autograd.Function):
    """A value that is one number, with its gradients from the same pass."""

    @staticmethod
    def forward(ctx, y_true, y_pred, operation, given):
        ctx.save_for_backward(y_true, y_pred)
        ctx.call, ctx.dtypes = (operation, given), (y_true.dtype, y_pred.dtype)
        value, ctx.gradients = _Eager.compute(ctx, y_true, y_pred)
        if "validate" in given:  # once is enough
            ctx.call = operation, given | {"validate": False}
        return _tensor(value)

    @staticmethod
    def compute(ctx, y_true, y_pred):
        """NumPy's value, and both gradients, or None for one that nobody needs."""
        operation, given = ctx.call
        wrt_true, wrt_pred, *_ = ctx.needs_input_grad
        value, gradients = _GRADIENTS[operation](
            _view(y_true), _view(y_pred), wrt=_WRT[wrt_true, wrt_pred], **_read(given)
        )
        found = iter(gradients)
        return value, (next(found) if wrt_true else None, next(found) if wrt_pred else None)

    @staticmethod
    def backward(ctx, upstream):
        gradients, ctx.gradients = ctx.gradients, None  # given away, so scaled in place
        if torch.is_grad_enabled() or not _is_plain(upstream):
            return _Eager.differentiate(ctx, upstream)
        if gradients is None:  # a second time
            _, gradients = _Eager.compute(ctx, *(x.detach() for x in ctx.saved_tensors))
        factor = upstream.item()
        (by_true, by_pred), dtypes = gradients, ctx.dtypes
        return (
            _scaled(by_true, factor, dtypes[0]),
            _scaled(by_pred, factor, dtypes[1]),
            None,
            None,
        )

    @staticmethod
    def differentiate(ctx, upstream):
        """The gradients once more, as functions that PyTorch can differentiate or batch."""
        operation, given = ctx.call
        create_graph = torch.is_grad_enabled()
        with torch.enable_grad():
            inputs = [x.view_as(x) for x in ctx.saved_tensors]  # may be one tensor
            value = _composed(operation, *inputs, _adapters.complete(operation, given))
            return *_grad(value, inputs, ctx.needs_input_grad, upstream, create_graph), None, None


def _scaled(gradient, factor, dtype):
    if gradient is None:
        return None
    gradient = torch.from_numpy(gradient)
    if factor == 0:  # whatever the rows hold
        gradient.zero_()
    elif factor != 1:
        gradient.mul_(factor)
    return gradient if gradient.dtype is dtype else gradient.to(dtype)


# Without what PyTorch's own apply does for transforms, which are not at work here.
_apply_eager = super(torch.autograd.Function, _Eager).apply


def _grad(value, inputs, needed, upstream, create_graph):
    """torch.autograd.grad, with None for inputs that need none."""
    wanted = [x for x, is_needed in zip(inputs, needed, strict=False) if is_needed]
    found = iter(
        torch.autograd.grad(value, wanted, upstream, create_graph=create_graph, allow_unused=True)
    )
    return [
        next(found) if is_needed else None for _, is_needed in zip(inputs, needed, strict=False)
    ]


# ---- everything else: PyTorch's operations around ours ----


def _composed(operation, y_true, y_pred, keywords):
    reduction = keywords["reduction"]
    _meaning.check_reduction(reduction)
    settings = _adapters.settings_of(operation, keywords)
    true, pred = _check_tensor(y_true, "y_true"), _check_tensor(y_pred, "y_pred")
    if keywords["validate"]:
        _check_rows(operation, true, pred, keywords)
    if settings.true_form == "labels":
        true, keywords, settings = _one_hot(true, pred, keywords, settings)
    true, pred = _meaning.match_ranks(*_one_dtype(true, pred))
    true, pred = _broadcast(true, pred)
    axes = _meaning.check_axes(keywords["axis"], true.ndim)
    true, pred = _present((true, pred), settings.forms, keywords["where"], keywords["pseudocount"])
    values = rows(_classes_last(true, axes), _classes_last(pred, axes), settings)
    if keywords["sample_weight"] is None and keywords["mask"] is None:
        return _reduce(values, reduction)
    weights = keywords["sample_weight"], keywords["mask"]
    return _reduce_weighted(values, *weights, reduction)


def rows(y_true, y_pred, settings):
    """Each row's divergence along the last axis, of two tensors of one dtype that broadcast."""
    _check_devices(y_true, y_pred)
    if y_true.shape != y_pred.shape:
        y_true, y_pred = torch.broadcast_tensors(y_true, y_pred)
    return _rows_op(y_true, y_pred, *settings)


def rows_by_formula(y_true, y_pred, settings):
    """The same in PyTorch's operations, wherever the tensors are."""
    return _Formula.apply(*torch.broadcast_tensors(y_true, y_pred), settings)


def _check_tensor(x, name):
    if not isinstance(x, torch.Tensor):
        refuse(name, f"of type {type(x).__name__}", f"a tensor: torch.as_tensor({name})")
    check_layout(x, name)
    if x.dtype not in _NAMES and x.dtype not in _INTEGERS:
        refuse(
            name,
            f"of dtype {x.dtype}",
            "float16, bfloat16, float32, float64, an integer type or bool: convert it with .to",
        )
    return x


def _check_devices(y_true, y_pred):
    for name, x in zip(_INPUTS, (y_true, y_pred), strict=True):
        if not (x.is_cpu or x.is_meta):
            refuse(
                name, f"a tensor on the device {x.device}", f"one in the CPU's memory: {name}.cpu()"
            )


def _check_rows(operation, y_true, y_pred, keywords):
    """``validate=True``, by NumPy's own code."""
    _check_devices(y_true, y_pred)
    if torch.compiler.is_compiling() or not _is_eager(y_true, y_pred, keywords):
        _refuse_unknown()
    with torch.no_grad():
        prepare(_view(y_true), _view(y_pred), operation, _read(keywords))


def _refuse_unknown():
    raise ValueError(_adapters.UNKNOWN)


# Not to be traced: what raises while it is traced runs once more in eager code, for which all values are known.
_refuse_unknown._torchdynamo_disable = True
_refuse_unknown._torchdynamo_disable_msg = _adapters.UNKNOWN


def _one_dtype(true, pred):
    """Both in the dtype that they are computed from: kldiv_fast.kl's rules."""
    if true.dtype == pred.dtype and true.dtype in _NAMES:
        return true, pred
    wide = pred.dtype not in _NAMES or torch.float64 in (true.dtype, pred.dtype)
    dtype = torch.float64 if wide else torch.float32
    return true.to(dtype), pred.to(dtype)


def _broadcast(true, pred):
    if true.shape == pred.shape:
        return true, pred
    shape = _meaning.broadcast_shape(true, pred)
    return true.expand(shape), pred.expand(shape)


def _one_hot(labels, pred, keywords, settings):
    """Labels as rows of probabilities: PyTorch's to see through, where nobody knows their values."""
    if labels.dtype not in _INTEGERS or labels.dtype == torch.bool:
        refuse("y_true", f"of dtype {labels.dtype}", "integers, each the label of a row")
    narrow = pred.dtype in _NAMES and keywords["label_smoothing"] == 0
    dtype = pred.dtype if narrow else _one_dtype(pred.new_zeros((), dtype=torch.float32), pred)[1].dtype  # fmt: skip
    if keywords["mask"] is not None:
        keywords = keywords | {"mask": _read_mask(keywords["mask"])}
    keywords = keywords | {"where": _read_where(keywords["where"])}

    def values_of(x):
        return None if torch.compiler.is_compiling() or not _is_plain(x) else _view(x)

    labels = labels.to(torch.int64)
    return _adapters.one_hot(torch, labels, pred, keywords, settings, dtype, values_of)


def _present(inputs, forms, where, pseudocount):
    """Both inputs, of one shape, without what `where` leaves out, and with what is added to counts."""
    where = _read_where(where)
    if where is not None:
        _meaning.check_where(where, inputs[0].shape)
    if pseudocount != 0:  # which 16 bits would round away
        inputs = [x.to(_result_dtype(x)) for x in inputs]
    return [
        _formulas.present(torch, form, x, where, pseudocount)
        for form, x in zip(forms, inputs, strict=True)
    ]


def _classes_last(x, axes):
    if not axes:  # a 0-d input is one row of one class
        return x.reshape(1)
    if axes == (x.ndim - 1,):
        return x
    batch = [i for i in range(x.ndim) if i not in axes]
    return x.permute(*batch, *axes).flatten(start_dim=len(batch))


def _reduce(values, reduction, total_weight=None):
    if reduction is None or reduction == "none":
        return values
    if reduction == "mean_with_sample_weight" and total_weight is not None and values.ndim:
        is_zero = total_weight == 0
        return torch.where(is_zero, 0, values.sum() / torch.where(is_zero, 1, total_weight))
    if reduction == "sum" or not values.numel():
        return values.sum()
    if reduction == "batchmean":
        return values.sum() / (values.shape[0] if values.ndim else 1)
    return values.mean()


def _reduce_weighted(values, sample_weight, mask, reduction):
    """Keras's reduction: weight and mask made equal in rank to each other, then to the rows."""
    dtype = values.dtype
    weights = _read_weights(sample_weight, mask, reduction, dtype)
    (values,), _, weights = _meaning.attach_weights([values], tuple(values.shape), weights)
    weight = weights.weight
    if weights.mask is not None:
        values = torch.where(weights.mask, values, 0)
        weight = torch.where(weights.mask, values.new_ones(()) if weight is None else weight, 0)
    return (_reduce(values * weight, reduction, weight.sum()) * weights.scale).to(dtype)


def _read_weights(sample_weight, mask, reduction, dtype):
    weight = None
    if sample_weight is not None:
        weight = _as_tensor(sample_weight, "sample_weight")
        if weight.dtype not in (torch.float32, torch.float64):
            weight = weight.to(torch.float64)
    if mask is not None:
        mask = _read_mask(mask)

    def scale(mask):
        valid = mask.sum(dtype=torch.float64)
        return torch.where(valid == 0, 0, mask.numel() / valid).to(dtype)

    return _meaning.weights_of(weight, mask, reduction, scale)


def _read_where(where):
    if where is None:
        return None
    where = _as_tensor(where, "where")
    if where.dtype != torch.bool:
        refuse("where", f"of dtype {where.dtype}", "bool: which elements there are")
    return where


def _read_mask(mask):
    mask = _as_tensor(mask, "mask")
    if mask.dtype not in _INTEGERS:
        refuse("mask", f"of dtype {mask.dtype}", "bool, or integers that are 0 where masked")
    return mask != 0


def _as_tensor(x, name):
    if not isinstance(x, torch.Tensor):  # torch.compile can trace PyTorch's own conversion alone
        tracing = torch.compiler.is_compiling()
        x = torch.as_tensor(x if tracing else np.array(as_array(x, name)))
    return _check_tensor(x, name)


# ---- the ops ----

# Registered by hand: fewer layers of Python between a call and the core than torch.library.custom_op has. The arguments
# after the tensors are those of Settings.
_SETTINGS = (
    "str operation, float? epsilon, float beta, float scale, str true_form, str pred_form, "
    "float temperature"
)
_library = torch.library.Library("kldiv_fast", "DEF")
_library.define(f"rows(Tensor y_true, Tensor y_pred, {_SETTINGS}) -> Tensor")
_library.define(
    f"rows_backward(Tensor upstream, Tensor y_true, Tensor y_pred, {_SETTINGS}, "
    "bool wrt_true, bool wrt_pred) -> (Tensor, Tensor)"
)
_rows_op = torch.ops.kldiv_fast.rows.default
_rows_backward_op = torch.ops.kldiv_fast.rows_backward.default

_INDICES = {row.name: row.number for row in OPERATIONS}


def _result_dtype(x):
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _check(y_true, y_pred, settings):
    """What memory safety rests on, for those who call the ops themselves."""
    if settings.operation not in _INDICES:
        names = ", ".join(_INDICES)
        raise ValueError(f"operation is {settings.operation!r}; expected one of: {names}")
    if "labels" in _meaning.check_form(settings.forms):
        raise ValueError("form is 'labels', which are no tensor of y_pred's dtype")
    if y_true.dtype != y_pred.dtype or y_true.dtype not in _NAMES:
        raise TypeError(
            f"y_true and y_pred are of dtypes {y_true.dtype} and {y_pred.dtype}; expected the same, "
            "float16, bfloat16, float32 or float64"
        )
    if y_true.shape != y_pred.shape or y_true.ndim == 0:
        raise ValueError(
            f"y_true and y_pred have shapes {tuple(y_true.shape)} and {tuple(y_pred.shape)}; "
            "expected the same, of at least one axis"
        )


def _run_core(y_true, y_pred, settings, upstream=None, values=None, gradients=(None, None)):
    """The core, on the memory of contiguous tensors; None: a null pointer."""

    def at(x):
        return 0 if x is None else x.data_ptr()

    what, classes = Settings(*settings), y_true.shape[-1]
    _core.rows(
        _NAMES[y_true.dtype], at(y_true), at(y_pred), y_true.numel() // classes, classes, what.epsilon,
        at(upstream), 0, at(values), *map(at, gradients), _INDICES[what.operation], what.beta, what.scale,
        tuple(map(_meaning.FORMS.index, what.forms)), what.temperature,
    )  # fmt: skip


def _rows_fake(y_true, y_pred, *settings):
    _check(y_true, y_pred, Settings(*settings))
    return y_true.new_empty(y_true.shape[:-1], dtype=_result_dtype(y_true))


def _rows_cpu(y_true, y_pred, *settings):
    values = _rows_fake(y_true, y_pred, *settings)
    if y_true.numel() == 0:
        return values.zero_()
    _run_core(y_true.contiguous(), y_pred.contiguous(), settings, values=values)
    return values


def _rows_backward_fake(upstream, y_true, y_pred, *given):
    """A gradient in the input's dtype where asked for, otherwise a tensor of no elements."""
    _, wrt = _settings_and_wrt(given)
    return tuple(
        x.new_empty(x.shape if wanted else (0,))
        for x, wanted in zip((y_true, y_pred), wrt, strict=True)
    )


def _settings_and_wrt(given):
    return Settings(*given[:-2]), given[-2:]


def _rows_backward_cpu(upstream, y_true, y_pred, *given):
    settings, wrt = _settings_and_wrt(given)
    _check(y_true, y_pred, settings)
    dtype = _result_dtype(y_true)
    if upstream.shape != y_true.shape[:-1] or upstream.dtype != dtype:
        raise ValueError(
            f"upstream has shape {tuple(upstream.shape)} and dtype {upstream.dtype}; "
            f"expected {tuple(y_true.shape[:-1])} and {dtype}"
        )
    t, p, u = y_true.contiguous(), y_pred.contiguous(), upstream.contiguous()
    grads = [t.new_empty(t.shape if wanted else (0,), dtype=dtype) for wanted in wrt]
    if t.numel():
        wanted = [g if g.numel() else None for g in grads]
        _run_core(t, p, settings, upstream=u, gradients=wanted)
    return grads[0].to(t.dtype), grads[1].to(t.dtype)


# One forward for each function, with the context in hand: torch.func, which asks for two, would cost every call much
# more than it gives, and says so when it is tried.
class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y_true, y_pred, *settings):
        ctx.settings = settings
        ctx.save_for_backward(y_true, y_pred)
        ctx.save_for_forward(y_true, y_pred)
        with torch._C._AutoDispatchBelowAutograd():
            return _rows_op(y_true, y_pred, *settings)

    @staticmethod
    def backward(ctx, upstream):
        wrt = ctx.needs_input_grad[:2]
        found = _rows_backward_op(upstream, *ctx.saved_tensors, *ctx.settings, *wrt)
        found = [gradient if wanted else None for gradient, wanted in zip(found, wrt, strict=True)]
        return *found, *(None for _ in ctx.settings)

    @staticmethod
    def jvp(ctx, tangent_true, tangent_pred, *_):
        y_true, y_pred = ctx.saved_tensors
        ones = y_true.new_ones(y_true.shape[:-1], dtype=_result_dtype(y_true))
        grads = _rows_backward_op(ones, y_true, y_pred, *ctx.settings, True, True)
        tangents = (tangent_true, tangent_pred)
        return sum((g.to(ones.dtype) * x).sum(-1) for g, x in zip(grads, tangents, strict=True))


class _RowsBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, upstream, y_true, y_pred, *given):
        ctx.settings, ctx.wrt = _settings_and_wrt(given)
        ctx.save_for_backward(upstream, y_true, y_pred)
        with torch._C._AutoDispatchBelowAutograd():
            return _rows_backward_op(upstream, y_true, y_pred, *given)

    @staticmethod
    def backward(ctx, *grad_grads):
        """Second derivatives, rare enough for plain PyTorch, whose own derivatives give all further ones."""
        create_graph = torch.is_grad_enabled()
        with torch.enable_grad():
            inputs = [x.view_as(x) for x in ctx.saved_tensors]  # may be one tensor
            gradients = _gradient_formulas(ctx.settings, *inputs)
            value = sum(
                (gradient * g).sum()
                for gradient, g, wanted in zip(gradients, grad_grads, ctx.wrt, strict=True)
                if wanted
            )
            found = _grad(value, inputs, ctx.needs_input_grad, None, create_graph)
        return *found, *(None for _ in ctx.settings), None, None


class _Formula(torch.autograd.Function):
    """The rows' formula. Derivatives that PyTorch would make of it are NaN beside zeros."""

    @staticmethod
    def forward(ctx, y_true, y_pred, settings):
        ctx.settings = settings
        ctx.save_for_backward(y_true, y_pred)
        return _formulas.rows(torch, settings, [x.to(_result_dtype(x)) for x in (y_true, y_pred)])

    @staticmethod
    def backward(ctx, upstream):
        found = _gradient_formulas(ctx.settings, upstream, *ctx.saved_tensors)
        return *(x.to(y.dtype) for x, y in zip(found, ctx.saved_tensors, strict=True)), None


def _gradient_formulas(settings, upstream, y_true, y_pred):
    """What rows_backward computes, by formulas that PyTorch can differentiate."""
    inputs = [x.to(upstream.dtype) for x in (y_true, y_pred)]
    return _formulas.gradients(torch, settings, upstream, inputs, torch.Tensor.detach)


for _name, _cpu, _fake, _function in (
    ("rows", _rows_cpu, _rows_fake, _Rows),
    ("rows_backward", _rows_backward_cpu, _rows_backward_fake, _RowsBackward),
):
    _library.impl(_name, _cpu, "CPU")
    _library.impl(_name, _function.apply, "Autograd")
    torch.library.register_fake(f"kldiv_fast::{_name}", _fake, lib=_library)


# ---- a function for each row of the table ----

_functions = _adapters.functions(__name__, _divergence, _TEMPLATE)
globals().update(_functions)

__all__ = [*_functions]  # noqa: PLE0604
