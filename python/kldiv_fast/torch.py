"""PyTorch: :func:`kl` on CPU tensors, with gradients, in eager code and under ``torch.compile``.

Two ops do the work, ``kldiv_fast::rows`` and its gradients ``kldiv_fast::rows_backward``; both read the tensors' memory
in place. ``kldiv_fast.keras`` builds on :func:`rows`, everyone else calls :func:`kl`. Needs the extra ``torch``.
"""

import numpy as np

try:
    import torch
except ImportError as error:
    raise ImportError("kldiv_fast.torch needs PyTorch: pip install 'kldiv_fast[torch]'") from error

from kldiv_fast import _core, _meaning
from kldiv_fast._arrays import as_array, check_layout, refuse

__all__ = ["kl"]

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


def kl(y_true, y_pred, *, axis=-1, epsilon=1e-7, reduction="mean", sample_weight=None, mask=None):
    """Kullback-Leibler divergence of distributions, in nats, as a differentiable tensor.

    With the meaning of :func:`kldiv_fast.kl`, which has the formula and its source. Gradients flow
    to `y_true`, `y_pred` and `sample_weight`, as far as they require one::

        d row / d y_true = log(t / p) + 1      d row / d y_pred = -t / p

    and 0 where the clip is at work, that is below `epsilon` and above 1 but not at the two bounds,
    as ``torch.clamp`` has it; with ``epsilon=None`` (and 0), where one of the two is not positive.
    A row that is masked or has the weight 0 gets gradients of 0, whatever it holds. Second
    derivatives are computed by PyTorch's own operations.

    Parameters
    ----------
    y_true, y_pred : torch.Tensor, of shapes (..., classes) that broadcast
        The distributions, in the CPU's memory. Contiguous tensors of one dtype, float16, bfloat16,
        float32 or float64, are read in place; others are copied first, integers and bools as
        floats. A 0-d or 1-d input is one row.
    axis : int or tuple of int, default -1
        The class axes, of the shape that the two broadcast to.
    epsilon : float in [0, 1) or None, default 1e-7
        Lower bound of the clip. None: no clip.
    reduction : str or None, default "mean"
        "mean" or "sum_over_batch_size", "sum", "none" or None, "mean_with_sample_weight",
        "batchmean".
    sample_weight : torch.Tensor or array_like, optional
        A weight for each row, of a shape that broadcasts with the rows.
    mask : torch.Tensor or array_like of bool or integers, optional
        False (0) where a row counts as 0, whatever it holds. A mean is then over the rows that
        count.

    Returns
    -------
    torch.Tensor
        0-d, or of the rows' shape with ``reduction="none"``. float64 if `y_pred` is float64 or of
        integers, or if `y_true` is float64; otherwise float32.

    Raises
    ------
    ValueError
        If shapes do not broadcast, or an argument has a value that is not in its range.
    TypeError
        If an argument is of a type or dtype that is not among those above, or lies on another
        device.

    Examples
    --------
    >>> import torch
    >>> from kldiv_fast.torch import kl
    >>> y_true = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    >>> y_pred = torch.tensor([[0.6, 0.4], [0.4, 0.6]], requires_grad=True)
    >>> loss = kl(y_true, y_pred)
    >>> loss.backward()
    >>> f"{loss.item():.6f}", f"{y_pred.grad[0, 1].item():.6f}"
    ('0.458143', '-1.250000')
    """
    _meaning.check_reduction(reduction)
    epsilon = _meaning.check_epsilon(epsilon)
    true, pred = _check_tensor(y_true, "y_true"), _check_tensor(y_pred, "y_pred")
    true, pred = _meaning.match_ranks(*_one_dtype(true, pred))
    true, pred = _broadcast(true, pred)
    axes = _meaning.check_axes(axis, true.ndim)
    values = rows(_classes_last(true, axes), _classes_last(pred, axes), epsilon)
    if sample_weight is None and mask is None:
        return _reduce(values, reduction)
    return _reduce_weighted(values, sample_weight, mask, reduction)


def rows(y_true, y_pred, epsilon):
    """Each row's divergence along the last axis, of two tensors of one dtype that broadcast."""
    for name, x in (("y_true", y_true), ("y_pred", y_pred)):
        if not (x.is_cpu or x.is_meta):
            refuse(
                name, f"a tensor on the device {x.device}", f"one in the CPU's memory: {name}.cpu()"
            )
    if y_true.shape != y_pred.shape:
        y_true, y_pred = torch.broadcast_tensors(y_true, y_pred)
    return _rows_op(y_true, y_pred, epsilon)


# ---- what kl does before and after the rows ----


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


def _one_dtype(true, pred):
    """Both in the dtype that they are computed from: kldiv_fast.kl's rules."""
    if true.dtype == pred.dtype and true.dtype in _NAMES:
        return true, pred
    if pred.dtype not in _NAMES or torch.float64 in (true.dtype, pred.dtype):
        dtype = torch.float64
    else:
        dtype = torch.float32 if true.dtype in _NAMES else pred.dtype
    return true.to(dtype), pred.to(dtype)


def _broadcast(true, pred):
    if true.shape == pred.shape:
        return true, pred
    shape = _meaning.broadcast_shape(true, pred)
    return true.expand(shape), pred.expand(shape)


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
    values, _, _, weights = _meaning.attach_weights(values, values, tuple(values.shape), weights)
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
        mask = _as_tensor(mask, "mask")
        if mask.dtype not in _INTEGERS:
            refuse("mask", f"of dtype {mask.dtype}", "bool, or integers that are 0 where masked")
        mask = mask != 0

    def scale(mask):
        valid = mask.sum(dtype=torch.float64)
        return torch.where(valid == 0, 0, mask.numel() / valid).to(dtype)

    return _meaning.weights_of(weight, mask, reduction, scale)


def _as_tensor(x, name):
    if not isinstance(x, torch.Tensor):  # torch.compile can trace PyTorch's own conversion alone
        tracing = torch.compiler.is_compiling()
        x = torch.as_tensor(x if tracing else np.array(as_array(x, name)))
    return _check_tensor(x, name)


# ---- the ops ----

# Registered by hand: fewer layers of Python between a call and the core than torch.library.custom_op has.
_library = torch.library.Library("kldiv_fast", "DEF")
_library.define("rows(Tensor y_true, Tensor y_pred, float? epsilon) -> Tensor")
_library.define(
    "rows_backward(Tensor upstream, Tensor y_true, Tensor y_pred, float? epsilon, "
    "bool wrt_true, bool wrt_pred) -> (Tensor, Tensor)"
)
_rows_op = torch.ops.kldiv_fast.rows.default
_rows_backward_op = torch.ops.kldiv_fast.rows_backward.default


def _result_dtype(x):
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _check_pair(y_true, y_pred):
    """What memory safety rests on, for those who call the ops themselves."""
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


def _rows_fake(y_true, y_pred, epsilon):
    _check_pair(y_true, y_pred)
    return y_true.new_empty(y_true.shape[:-1], dtype=_result_dtype(y_true))


def _rows_cpu(y_true, y_pred, epsilon):
    values = _rows_fake(y_true, y_pred, epsilon)
    if y_true.numel() == 0:
        return values.zero_()
    t, p = y_true.contiguous(), y_pred.contiguous()
    _core.rows(
        _NAMES[t.dtype], t.data_ptr(), p.data_ptr(), values.numel(), t.shape[-1], epsilon,
        0, 0, values.data_ptr(), 0, 0,
    )  # fmt: skip
    return values


def _rows_backward_fake(upstream, y_true, y_pred, epsilon, wrt_true, wrt_pred):
    """A gradient in the input's dtype where asked for, otherwise a tensor of no elements."""
    shape = y_true.shape
    return (
        y_true.new_empty(shape if wrt_true else (0,)),
        y_pred.new_empty(shape if wrt_pred else (0,)),
    )


def _rows_backward_cpu(upstream, y_true, y_pred, epsilon, wrt_true, wrt_pred):
    _check_pair(y_true, y_pred)
    dtype = _result_dtype(y_true)
    if upstream.shape != y_true.shape[:-1] or upstream.dtype != dtype:
        raise ValueError(
            f"upstream has shape {tuple(upstream.shape)} and dtype {upstream.dtype}; "
            f"expected {tuple(y_true.shape[:-1])} and {dtype}"
        )
    t, p, u = y_true.contiguous(), y_pred.contiguous(), upstream.contiguous()
    grads = [
        t.new_empty(t.shape if wanted else (0,), dtype=dtype) for wanted in (wrt_true, wrt_pred)
    ]
    if t.numel():
        _core.rows(
            _NAMES[t.dtype], t.data_ptr(), p.data_ptr(), u.numel(), t.shape[-1], epsilon,
            u.data_ptr(), 0, 0, *(g.data_ptr() if g.numel() else 0 for g in grads),
        )  # fmt: skip
    return grads[0].to(t.dtype), grads[1].to(t.dtype)


# One forward for each function, with the context in hand: torch.func, which asks for two, would cost every call much
# more than it gives, and says so when it is tried.
class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y_true, y_pred, epsilon):
        ctx.epsilon = epsilon
        ctx.save_for_backward(y_true, y_pred)
        ctx.save_for_forward(y_true, y_pred)
        with torch._C._AutoDispatchBelowAutograd():
            return _rows_op(y_true, y_pred, epsilon)

    @staticmethod
    def backward(ctx, upstream):
        wrt_true, wrt_pred, _ = ctx.needs_input_grad
        grad_true, grad_pred = _rows_backward_op(
            upstream, *ctx.saved_tensors, ctx.epsilon, wrt_true, wrt_pred
        )
        return grad_true if wrt_true else None, grad_pred if wrt_pred else None, None

    @staticmethod
    def jvp(ctx, tangent_true, tangent_pred, _):
        y_true, y_pred = ctx.saved_tensors
        ones = y_true.new_ones(y_true.shape[:-1], dtype=_result_dtype(y_true))
        grads = _rows_backward_op(ones, y_true, y_pred, ctx.epsilon, True, True)
        tangents = (tangent_true, tangent_pred)
        return sum((g.to(ones.dtype) * x).sum(-1) for g, x in zip(grads, tangents, strict=True))


class _RowsBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, upstream, y_true, y_pred, epsilon, wrt_true, wrt_pred):
        ctx.epsilon, ctx.wrt = epsilon, (wrt_true, wrt_pred)
        ctx.save_for_backward(upstream, y_true, y_pred)
        with torch._C._AutoDispatchBelowAutograd():
            return _rows_backward_op(upstream, y_true, y_pred, epsilon, wrt_true, wrt_pred)

    @staticmethod
    def backward(ctx, grad_grad_true, grad_grad_pred):
        """Second derivatives, rare enough for plain PyTorch, whose own derivatives give all further ones."""
        upstream, y_true, y_pred = ctx.saved_tensors
        u = upstream.unsqueeze(-1)
        t, inside_t = _clip(y_true.to(u.dtype), ctx.epsilon)
        p, inside_p = _clip(y_pred.to(u.dtype), ctx.epsilon)
        # Elsewhere gradients are 0, whatever t and p are; 1 in their place keeps NaN out of all further derivatives.
        varies = ((t > 0) & (p > 0)) | ((t.isnan() | p.isnan()) & (u != 0))
        t, p = torch.where(varies, t, 1), torch.where(varies, p, 1)
        inside_t, inside_p = inside_t & varies, inside_p & varies
        wrt_true, wrt_pred = ctx.wrt
        a = torch.where(inside_t, grad_grad_true, 0) if wrt_true else torch.zeros_like(t)
        b = torch.where(inside_p, grad_grad_pred, 0) if wrt_pred else torch.zeros_like(p)
        for_upstream = (a * ((t / p).log() + 1) - b * t / p).sum(-1)
        for_true = torch.where(inside_t, u * (a / t - b / p), 0)
        for_pred = torch.where(inside_p, u * (b * t / p - a) / p, 0)
        return for_upstream, for_true.to(y_true.dtype), for_pred.to(y_pred.dtype), None, None, None


def _clip(x, epsilon):
    """x clipped, and where that is x itself."""
    if epsilon is None:
        return x, torch.ones_like(x, dtype=torch.bool)
    return x.clamp(epsilon, 1), ~((x < epsilon) | (x > 1))


for _name, _cpu, _fake, _function in (
    ("rows", _rows_cpu, _rows_fake, _Rows),
    ("rows_backward", _rows_backward_cpu, _rows_backward_fake, _RowsBackward),
):
    _library.impl(_name, _cpu, "CPU")
    _library.impl(_name, _function.apply, "Autograd")
    torch.library.register_fake(f"kldiv_fast::{_name}", _fake, lib=_library)
