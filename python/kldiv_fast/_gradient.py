"""The Python face of :func:`kldiv_fast.kl_value_and_grad`: value and gradients from one pass.

An argument that is not broadcast gets its gradient straight from the core. One that is broadcast gets a sum over what
it was broadcast along, a block at a time (:func:`_add_broadcast_gradient`).
"""

import itertools
import math

import numpy as np

from kldiv_fast import _core
from kldiv_fast._kl import arrange, broadcast, check_out, in_the_way, is_none, prepare

_ARGUMENTS = ("y_true", "y_pred")
_BLOCK = 1 << 18  # elements of a gradient that are summed at a time when an argument is broadcast


def kl_value_and_grad(
    y_true,
    y_pred,
    *,
    wrt="y_pred",
    axis=-1,
    epsilon=1e-7,
    reduction="mean",
    sample_weight=None,
    mask=None,
    upstream=None,
    out=None,
    num_threads=None,
):
    """Kullback-Leibler divergence and its gradient, in nats, from one pass over the inputs.

    With t, p and the weights of :func:`kldiv_fast.kl`, and with f, a row's factor: upstream *
    sample_weight / the reduction's divisor, 0 where masked::

        d value / d y_pred = -f * t / p            where epsilon <= y_pred <= 1, else 0
        d value / d y_true = f * (log(t / p) + 1)  where epsilon <= y_true <= 1, else 0

    Parameters
    ----------
    y_true, y_pred, axis, epsilon, reduction, sample_weight, mask, num_threads
        As in :func:`kldiv_fast.kl`.
    wrt : {"y_pred", "y_true"} or a sequence of them, default "y_pred"
        The argument or arguments to differentiate with respect to.
    upstream : array_like, optional
        The derivative of what follows with respect to the value: a number, or with
        ``reduction="none"`` an array that broadcasts to the rows' shape. Default: 1.
    out : ndarray, or a sequence of one for each of `wrt`, optional
        Where to write the gradient: of the argument's shape and the result's dtype. It may overlap
        the inputs. Its content is undefined after an interrupt (Ctrl-C).

    Returns
    -------
    value : numpy.float32, numpy.float64 or ndarray
        The same bits as those of :func:`kldiv_fast.kl`.
    gradient : ndarray, or a tuple of them where `wrt` is a sequence
        Of the argument's shape and the value's dtype: float32 for 16-bit arguments.

    Raises
    ------
    ValueError
        If shapes do not broadcast, or an argument has a value that is not in its range.
    TypeError
        If an argument is of a type or dtype that is not among those above.

    Notes
    -----
    At the bounds of the clip the gradient is the formula's, as with Keras on TensorFlow and PyTorch;
    on JAX it is half of it there. With ``epsilon=None`` (and 0) it is the formula's where both are
    positive and 0 elsewhere, as that of ``jax.scipy.special.rel_entr``. A row whose factor is 0 (masked,
    or of weight 0) has a gradient of 0, whatever it holds. NaN gives NaN. The formulas are the
    derivatives of the loss in [1]_.

    References
    ----------
    .. [1] https://keras.io/api/losses/probabilistic_losses/#kldivergence-class

    Examples
    --------
    >>> import numpy as np
    >>> from kldiv_fast import kl_value_and_grad
    >>> y_true = np.array([[0, 1], [0.5, 0.5]], dtype=np.float32)
    >>> y_pred = np.array([[0.5, 0.5], [0.25, 0.75]], dtype=np.float32)
    >>> value, gradient = kl_value_and_grad(y_true, y_pred)
    >>> print(f"{value:.4f}")
    0.4185
    >>> np.round(gradient, 4)
    array([[-0.    , -1.    ],
           [-1.    , -0.3333]], dtype=float32)
    """
    names = _check_wrt(wrt)
    problem = prepare(y_true, y_pred, axis, epsilon, reduction, sample_weight, mask, num_threads)
    factors = _factors(problem, reduction, upstream)
    given = {"y_true": problem.given_true, "y_pred": problem.given_pred}
    outs = _check_outs(out, wrt, names, given, problem.dtype)
    targets = {name: _target(problem, given, name, outs) for name in names}
    value = _run(problem, reduction, axis, factors, given, targets)
    gradients = tuple(_delivered(targets[name], outs.get(name)) for name in names)
    return value, gradients[0] if isinstance(wrt, str) else gradients


# ---- arguments ----


def _check_wrt(wrt):
    names = (wrt,) if isinstance(wrt, str) else wrt
    try:
        names = tuple(names)
    except TypeError:
        names = ()
    if not names or any(n not in _ARGUMENTS or names.count(n) > 1 for n in names):
        raise ValueError(
            f"wrt is {wrt!r}; expected 'y_pred', 'y_true', or a sequence of one or both"
        )
    return names


def _check_outs(out, wrt, names, given, dtype):
    """The arrays to write to, by name; empty if none were given."""
    if out is None:
        return {}
    outs = (out,) if isinstance(wrt, str) else out
    if not isinstance(outs, (tuple, list)) or len(outs) != len(names):
        raise TypeError(
            f"out is of type {type(out).__name__}; expected a sequence of {len(names)} arrays, as wrt is one"
        )
    for name, array in zip(names, outs, strict=True):
        check_out(array, given[name].shape, dtype)
    return dict(zip(names, outs, strict=True))


def _factors(problem, reduction, upstream):
    """What each row's gradients are multiplied by, in float64, of a shape that broadcasts to the rows'."""
    rows = problem.arranged.rows
    shape = rows if is_none(reduction) else ()
    factors = np.asarray(1.0 if upstream is None else upstream)
    if factors.dtype.kind not in "biuf":
        raise TypeError(f"upstream has dtype {factors.dtype}; expected real numbers")
    try:
        fits = broadcast(factors.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"upstream has shape {factors.shape}; expected one that broadcasts to the value's {shape}"
        )
    scale = problem.scale / problem.divisor if problem.divisor else 0.0
    factors = np.asarray(factors.astype(np.float64) * (1.0 if is_none(reduction) else scale))
    weight = problem.arranged.weights.weight
    return factors if weight is None else np.asarray(factors * weight)


# ---- gradients ----


def _fresh(x, dtype):
    return np.empty_like(x, dtype=dtype, order="K", subok=False)


def _target(problem, given, name, outs):
    """Where the core writes a gradient: in what the caller gave, where it can."""
    out = outs.get(name)
    if out is not None:
        others = [x for other, x in outs.items() if other != name]
        if not in_the_way(out, problem.inputs() + others):
            return out
    return _fresh(given[name], problem.dtype)


def _delivered(target, out):
    if out is None or out is target:
        return target
    out[...] = target
    return out


def _run(problem, reduction, axis, factors, given, targets):
    """The value; the gradients go to `targets`."""
    a = problem.arranged
    # Views of the targets, arranged as the arguments are. (What is not wanted stands in for its own gradient.)
    both = given | targets
    views = arrange(both["y_true"], both["y_pred"], axis, a.weights)
    grad_true = views.true if "y_true" in targets else None
    grad_pred = views.pred if "y_pred" in targets else None
    values = np.empty(a.rows, problem.dtype) if is_none(reduction) else None
    if _in_one_pass(problem, factors, [x for x in (grad_true, grad_pred) if x is not None]):
        total = problem.run(values, factors, grad_true, grad_pred)
    else:
        total = problem.run(values)
        if grad_true is not None:
            _write_gradient(problem, "y_true", factors, grad_true)
        if grad_pred is not None:
            _write_gradient(problem, "y_pred", factors, grad_pred)
    return problem.mean(total) if values is None else values[()]


def _in_one_pass(problem, factors, views):
    """Whether no argument is broadcast, and gradients and factors lie so that the value keeps its bits.

    Its bits depend on the order of summation, and the core makes one axis of two only where all that
    it reads and writes allows it.
    """
    a = problem.arranged
    shape = a.rows + broadcast(a.true.shape, a.pred.shape)[a.true.ndim - a.class_ndim :]
    if any(view.shape != shape for view in views):
        return False
    everything = (a.true, a.pred, *views)
    if factors.ndim == 0 and all(x.shape == shape and x.flags.c_contiguous for x in everything):
        return True
    return _lie_alike(a, shape, factors, views)


def _lie_alike(a, shape, factors, views):
    """Whether views and factors go on from axis to axis, and element by element, where both inputs do."""
    inputs = [np.broadcast_to(x, shape) for x in (a.true, a.pred)]
    # The core goes forwards along an axis that the inputs go backwards along.
    signs = [
        1 if max(strides) > 0 else -1 for strides in zip(*(x.strides for x in inputs), strict=True)
    ]
    axes = [i for i, n in enumerate(shape) if n != 1]

    def continues(x, i, j):
        return signs[i] * x.strides[i] == shape[j] * signs[j] * x.strides[j]

    def is_dense(x, i):
        return signs[i] * x.strides[i] == x.itemsize

    factors = np.broadcast_to(factors, a.rows)
    for i, j in itertools.permutations(axes, 2):
        added = [*views, factors] if max(i, j) < len(a.rows) else views
        if all(continues(x, i, j) for x in inputs) and not all(continues(x, i, j) for x in added):
            return False
    return all(
        all(is_dense(x, i) for x in views) for i in axes if all(is_dense(x, i) for x in inputs)
    )


def _write_gradient(problem, name, factors, view):
    """One gradient alone, its value not wanted, summed over whatever the argument is broadcast along."""
    a = problem.arranged
    shape = broadcast(a.true.shape, a.pred.shape)
    rows = shape[: len(shape) - a.class_ndim]
    if a.weights.mask is not None:
        factors = np.where(a.weights.mask, factors, 0.0)
    factors = _sum_to(np.broadcast_to(factors, a.rows), rows)
    if view.shape == shape:
        _core_gradient(problem, name, a.true, a.pred, factors, view)
        return
    total = np.zeros(view.shape)
    _add_broadcast_gradient(problem, name, a.true, a.pred, factors, total)
    view[...] = total


def _sum_to(x, shape):
    """x summed over the axes along which an array of `shape` is broadcast to x's."""
    x = x.sum(axis=tuple(range(x.ndim - len(shape))))
    axes = tuple(i for i, n in enumerate(shape) if n == 1 and x.shape[i] != 1)
    return np.asarray(x.sum(axis=axes, keepdims=True)) if axes else np.asarray(x)


def _core_gradient(problem, name, true, pred, factors, target):
    rows = target.shape[: target.ndim - problem.arranged.class_ndim]
    grads = (target, None) if name == "y_true" else (None, target)
    _core.run(
        true, pred, problem.arranged.class_ndim, rows, None, None, None, problem.epsilon,
        problem.threads, factors, *grads,
    )  # fmt: skip


def _add_broadcast_gradient(problem, name, true, pred, factors, total):
    """total += the gradient, summed over the axes along which the argument is broadcast, block by block."""
    shape = broadcast(true.shape, pred.shape)
    axes = tuple(i for i, n in enumerate(shape) if total.shape[i] != n)
    size = math.prod(shape)
    if size > _BLOCK and axes:
        axis = max(axes, key=lambda i: shape[i])
        step = max(1, _BLOCK * shape[axis] // size)
        for start in range(0, shape[axis], step):
            block = slice(start, start + step)
            parts = (_along(x, axis, block) for x in (true, pred, factors))
            _add_broadcast_gradient(problem, name, *parts, total)
        return
    gradient = np.empty(shape, problem.dtype)
    _core_gradient(problem, name, true, pred, factors, gradient)
    total += gradient.sum(axis=axes, keepdims=True, dtype=np.float64)


def _along(x, axis, block):
    """A block of x along an axis, or all of x where it has no such axis or is broadcast along it."""
    if axis >= x.ndim or x.shape[axis] == 1:
        return x
    return x[(slice(None),) * axis + (block,)]
