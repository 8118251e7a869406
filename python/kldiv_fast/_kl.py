"""The Python face of :func:`kldiv_fast.kl`: it coerces, checks and words the errors.

``kldiv_fast.kl`` itself is a C function that answers the plainest calls and hands all others to :func:`kl` here.
What happens, in order: arrays in (:mod:`kldiv_fast._arrays`), whose labels agree (:mod:`kldiv_fast._labels`), one rank
(:func:`_match_ranks`), class axes last (:func:`_classes_last`), weights beside the rows (:func:`_attach_weights`), the
core, and the normaliser (:func:`_divisor`). :mod:`kldiv_fast._gradient` goes the same way.
"""

import math
import operator
from typing import NamedTuple

import numpy as np

from kldiv_fast import _core
from kldiv_fast._arrays import as_array, cast, is_float, is_float64, is_sequence, refuse
from kldiv_fast._labels import check_labels

REDUCTIONS = (
    "sum_over_batch_size",
    "mean",
    "mean_with_sample_weight",
    "batchmean",
    "sum",
    "none",
    None,
)


_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
_UNLABELLED = (np.ndarray, list, tuple, int, float)


class _Weights(NamedTuple):
    """``sample_weight`` and ``mask`` once they stand beside the rows."""

    weight: np.ndarray | None  # float32 or float64
    mask: np.ndarray | None  # bool
    scale: float  # Keras gives unmasked rows the weight total/valid in a mean


class Arranged(NamedTuple):
    """Operands of one rank, batch axes first, as the core wants them: views of what was given."""

    true: np.ndarray
    pred: np.ndarray
    class_ndim: int
    rows: tuple  # the batch's shape, weights and mask included
    weights: _Weights


class Problem(NamedTuple):
    """A call, checked: what the core needs, and the arrays that it was made of."""

    given_true: np.ndarray
    given_pred: np.ndarray
    arranged: Arranged
    dtype: np.dtype  # of the result
    epsilon: float | None
    threads: int
    divisor: float
    scale: float

    def run(self, out=None, upstream=None, grad_true=None, grad_pred=None, progress=None):
        """`progress` is called with the fraction that is done, now and then, and may end the call by raising."""
        a = self.arranged
        weight, mask = a.weights.weight, a.weights.mask
        return _core.run(
            a.true, a.pred, a.class_ndim, a.rows, weight, mask, out, self.epsilon, self.threads,
            upstream, grad_true, grad_pred, progress,
        )  # fmt: skip

    def inputs(self):
        weights = self.arranged.weights
        given = (self.given_true, self.given_pred, weights.weight, weights.mask)
        return [x for x in given if x is not None]

    def mean(self, total):
        """The reduced value of the rows' sum; a mean over nothing is 0."""
        return self.dtype.type(total * self.scale / self.divisor if self.divisor else 0.0)


def kl(
    y_true,
    y_pred,
    *,
    axis=-1,
    epsilon=1e-7,
    reduction="mean",
    sample_weight=None,
    mask=None,
    out=None,
    num_threads=None,
):
    # Documented below, in DOC.
    problem = prepare(y_true, y_pred, axis, epsilon, reduction, sample_weight, mask, num_threads)
    return compute(problem, reduction, out)


def compute(problem, reduction, out=None, progress=None):
    """What `reduction` makes of the rows. `progress`: as in Problem.run."""
    if is_none(reduction):
        return _rows(problem, out, progress)
    if out is not None:
        raise ValueError(f"out is for reduction='none' alone, not for reduction={reduction!r}")
    return problem.mean(problem.run(progress=progress))


def is_none(reduction):
    return reduction is None or reduction == "none"


def prepare(y_true, y_pred, axis, epsilon, reduction, sample_weight, mask, num_threads):
    """Everything between a call's arguments and the core."""
    _check_reduction(reduction)
    epsilon = _check_epsilon(epsilon)
    threads = 0 if num_threads is None else _check_threads(num_threads, "num_threads")

    pred = as_array(y_pred, "y_pred")
    true = as_array(y_true, "y_true")
    if is_sequence(y_pred):
        pred = pred.astype(np.float64)
    if is_sequence(y_true) and is_float(pred.dtype):
        true = cast(true, pred.dtype)  # a list follows y_pred's type, as in Keras
    if not isinstance(y_true, _UNLABELLED) and not isinstance(y_pred, _UNLABELLED):
        ranks = [x.ndim for x in _match_ranks(true, pred)]
        check_labels(y_true, y_pred, ranks, _check_axes(axis, max(ranks)))

    weights = _Weights(None, None, 1.0)
    if sample_weight is not None or mask is not None:
        weights = _read_weights(sample_weight, mask, reduction)
    arranged = arrange(true, pred, axis, weights)
    return Problem(
        given_true=true,
        given_pred=pred,
        arranged=arranged,
        dtype=_result_dtype(true.dtype, pred.dtype),
        epsilon=epsilon,
        threads=threads,
        divisor=_divisor(reduction, arranged.rows, arranged.weights),
        scale=weights.scale,
    )


def arrange(true, pred, axis, weights):
    true, pred = _match_ranks(true, pred)
    shape = _broadcast_shape(true, pred)
    axes = _check_axes(axis, len(shape))
    true, pred = _classes_last(true, len(shape), axes), _classes_last(pred, len(shape), axes)
    rows = tuple(n for i, n in enumerate(shape) if i not in axes)
    if weights.weight is not None or weights.mask is not None:
        true, pred, rows, weights = _attach_weights(true, pred, rows, weights)
    return Arranged(true, pred, len(axes), rows, weights)


def set_num_threads(n):
    """Set how many threads a call of :func:`kl` may use.

    Parameters
    ----------
    n : int or None
        At least 1. A call never has more threads than OpenMP allows (``OMP_NUM_THREADS``,
        ``threadpoolctl``), nor than the calling thread may use processors.
        None gives the choice back to OpenMP.

    Raises
    ------
    TypeError, ValueError
        If `n` is no integer, or below 1.

    Examples
    --------
    >>> import kldiv_fast
    >>> kldiv_fast.set_num_threads(1)
    >>> kldiv_fast.get_num_threads()
    1
    >>> kldiv_fast.set_num_threads(None)
    """
    _core.set_num_threads(0 if n is None else _check_threads(n, "n"))


def get_num_threads():
    """Threads that a large call of :func:`kl` uses when it names no number.

    Returns
    -------
    int

    Examples
    --------
    >>> import kldiv_fast
    >>> kldiv_fast.get_num_threads() >= 1
    True
    """
    return _core.get_num_threads()


# ---- one value each ----


def _check_reduction(reduction):
    if not (reduction is None or isinstance(reduction, str)) or reduction not in REDUCTIONS:
        raise ValueError(
            f"reduction is {reduction!r}; expected one of: {', '.join(map(repr, REDUCTIONS))}"
        )


def _check_epsilon(epsilon):
    if epsilon is None:
        return None
    if isinstance(epsilon, (bool, str, bytes)):
        raise TypeError(f"epsilon is {epsilon!r}; expected a number in [0, 1), or None")
    try:
        value = float(epsilon)
    except TypeError:
        raise TypeError(
            f"epsilon is of type {type(epsilon).__name__}; expected a number in [0, 1), or None"
        ) from None
    if not 0 <= value < 1:
        raise ValueError(f"epsilon is {epsilon!r}; expected a number in [0, 1), or None")
    return value


def _check_threads(n, name):
    try:
        value = operator.index(n)
    except TypeError:
        raise TypeError(
            f"{name} is of type {type(n).__name__}; expected an integer of at least 1, or None"
        ) from None
    if value < 1 or isinstance(n, bool):
        raise ValueError(f"{name} is {n!r}; expected an integer of at least 1, or None")
    return min(value, 2**31 - 1)


def _check_axes(axis, ndim):
    """Class axes, none negative, in ascending order."""
    try:
        given = (operator.index(axis),) if not isinstance(axis, (tuple, list)) else axis
        given = tuple(operator.index(a) for a in given)
    except TypeError:
        raise TypeError(f"axis is {axis!r}; expected an int or a tuple of ints") from None
    if not given:
        raise ValueError("axis is empty; expected an int or a tuple of at least one int")
    if ndim == 0:  # a 0-d input is one row of one class
        if given in ((-1,), (0,)):
            return ()
        raise ValueError(f"axis is {axis!r}, out of range for 0-d inputs; expected -1 or 0")
    for a in given:
        if not -ndim <= a < ndim:
            raise ValueError(
                f"axis is {axis!r}, out of range for inputs of {ndim} axes; "
                f"expected {-ndim} to {ndim - 1}"
            )
    axes = tuple(sorted(a % ndim for a in given))
    if len(set(axes)) != len(axes):
        raise ValueError(f"axis is {axis!r}, which names an axis twice")
    return axes


# ---- dtypes and shapes ----


def _result_dtype(true, pred):
    """float64 if either is, or if y_pred is no float; else float32. Integers in y_true follow."""
    wide = not is_float(pred) or is_float64(true) or is_float64(pred)
    return _FLOAT64 if wide else _FLOAT32


def _same_rank(a, b, a_shape, b_shape):
    """Keras's squeeze_or_expand_to_same_rank, for things that can be indexed.

    Ranks that differ by one, the longer one ending in an axis of length 1: a shorter one of rank 1
    gets such an axis too, otherwise the longer one loses it.
    """
    if abs(len(a_shape) - len(b_shape)) != 1:
        return a, b
    if len(a_shape) < len(b_shape):
        b, a = _same_rank(b, a, b_shape, a_shape)
    elif a_shape[-1] == 1:
        if len(b_shape) == 1:
            b = b[..., np.newaxis]
        else:
            a = a[..., 0]
    return a, b


def _match_ranks(true, pred):
    return _same_rank(true, pred, true.shape, pred.shape)


def broadcast(*shapes):
    """np.broadcast_shapes, which stops at 32 axes where arrays have up to 64."""
    if all(shape == shapes[0] for shape in shapes):
        return shapes[0]
    ndim = max(map(len, shapes))
    padded = [(1,) * (ndim - len(shape)) + tuple(shape) for shape in shapes]
    result = []
    for extents in zip(*padded, strict=True):
        extent = next((n for n in extents if n != 1), 1)
        if any(n not in (1, extent) for n in extents):
            raise ValueError(f"shapes {shapes} do not broadcast")
        result.append(extent)
    return tuple(result)


def _broadcast_shape(true, pred):
    try:
        return broadcast(true.shape, pred.shape)
    except ValueError:
        raise ValueError(
            f"y_true has shape {tuple(true.shape)}, which does not broadcast with "
            f"y_pred's {tuple(pred.shape)}"
        ) from None


def _classes_last(x, ndim, axes):
    x = x.reshape((1,) * (ndim - x.ndim) + x.shape) if x.ndim < ndim else x
    if axes == tuple(range(ndim - len(axes), ndim)):
        return x
    return x.transpose([i for i in range(ndim) if i not in axes] + list(axes))


# ---- weights and masks ----


def _read_weights(sample_weight, mask, reduction):
    weight, scale = None, 1.0
    if sample_weight is not None:
        weight = as_array(sample_weight, "sample_weight")
        if weight.dtype not in (_FLOAT32, _FLOAT64) or not weight.flags.aligned:
            weight = cast(weight, _FLOAT64)
    if mask is not None:
        mask = as_array(mask, "mask")
        if mask.dtype.kind not in "biu":
            refuse("mask", f"of dtype {mask.dtype}", "bool, or integers that are 0 where masked")
        mask = mask.astype(bool, copy=False)
        if reduction in ("mean", "sum_over_batch_size"):
            valid = np.count_nonzero(mask)
            scale = mask.size / valid if valid else 0.0
        if weight is not None:
            mask, weight = _match_mask(mask, weight)
    return _Weights(weight, mask, scale)


def _match_mask(mask, weight):
    mask, weight = _same_rank(mask, weight, mask.shape, weight.shape)
    try:
        broadcast(mask.shape, weight.shape)
    except ValueError:
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}, which does not broadcast with "
            f"sample_weight's {tuple(weight.shape)}"
        ) from None
    return mask, weight


def _attach_weights(true, pred, rows, weights):
    """Rows and weights brought to one rank, by views, and the shape that both broadcast to."""
    given = [x for x in (weights.weight, weights.mask) if x is not None]
    shape = broadcast(*(x.shape for x in given))
    if len(rows) == len(shape) + 1 and rows[-1] == 1:
        if len(shape) == 1:
            given = [x[..., np.newaxis] for x in given]
        else:
            last = len(rows) - 1
            true, pred, rows = _drop_axis(true, last), _drop_axis(pred, last), rows[:-1]
    elif len(shape) == len(rows) + 1 and shape[-1] == 1:
        if len(rows) == 1:
            true, pred, rows = true[:, np.newaxis], pred[:, np.newaxis], (*rows, 1)
        else:
            given = [x[..., 0] if x.ndim == len(shape) else x for x in given]
    weight = given.pop(0) if weights.weight is not None else None
    mask = given[0] if given else None
    rows = _rows_beside(rows, *(None if x is None else tuple(x.shape) for x in (weight, mask)))
    return true, pred, rows, _Weights(weight, mask, weights.scale)


def _rows_beside(rows, weight, mask):
    """The rows' shape, with a weight's shape and a mask's (or None). A weight may repeat rows, as in Keras; a mask may not."""
    if weight is not None:
        try:
            rows = broadcast(rows, weight)
        except ValueError:
            raise ValueError(
                f"sample_weight has shape {weight}, which does not broadcast with the rows' shape {rows}"
            ) from None
    if mask is not None:
        try:
            masked = broadcast(rows, mask)
        except ValueError:
            masked = None
        if masked is None or math.prod(masked) != math.prod(rows):
            raise ValueError(
                f"mask has shape {mask}, which does not broadcast to the rows' shape {rows}; a mask leaves out rows. "
                "Classes are left out where both are 0: np.where(keep, y_true, 0), np.where(keep, y_pred, 0)"
            )
        rows = masked
    return rows


def _drop_axis(x, axis):
    return x[(slice(None),) * axis + (0,)]


def _divisor(reduction, rows, weights):
    if reduction == "sum" or is_none(reduction):
        return 1
    if reduction == "batchmean":
        return rows[0] if rows else 1
    weighted = weights.weight is not None or weights.mask is not None
    if reduction == "mean_with_sample_weight" and rows and weighted:
        return _sum_of_weights(weights)
    return math.prod(rows)


def _sum_of_weights(weights):
    """Keras's divisor: the sum over sample_weight times mask, before they broadcast with the rows."""
    if weights.weight is None:
        return np.count_nonzero(weights.mask)
    if weights.mask is None:
        return weights.weight.sum(dtype=np.float64)
    return np.where(weights.mask, weights.weight, 0).sum(dtype=np.float64)


# ---- rows ----


def _rows(problem, out, progress):
    """Every row's value, in a new array (a scalar for one row) or in `out`."""
    shape = problem.arranged.rows
    if out is None:
        values = np.empty(shape, problem.dtype)
        problem.run(values, progress=progress)
        return values[()]
    check_out(out, shape, problem.dtype)
    if in_the_way(out, problem.inputs()):
        values = np.empty(shape, problem.dtype)
        problem.run(values, progress=progress)
        out[...] = values
    else:
        problem.run(out, progress=progress)
    return out


def in_the_way(out, inputs):
    """Whether the core can't write there while it reads the inputs."""
    return any(np.may_share_memory(out, x) for x in inputs) or not out.flags.aligned


def check_out(out, shape, dtype):
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out is of type {type(out).__name__}; expected a NumPy array")
    if out.dtype != dtype:
        raise TypeError(f"out has dtype {out.dtype}; expected {dtype}")
    if out.shape != shape:
        raise ValueError(f"out has shape {out.shape}; expected {shape}")
    if not out.flags.writeable:
        raise ValueError("out is read-only; expected an array that can be written to")


# The docstring of kldiv_fast.kl. Its first line is the signature, in the form that inspect.signature reads.
DOC = """\
kl(y_true, y_pred, *, axis=-1, epsilon=1e-07, reduction='mean', sample_weight=None, mask=None, \
out=None, num_threads=None)
--

Kullback-Leibler divergence of probability distributions, in nats.

With the meaning of ``keras.losses.KLDivergence`` [1]_::

    t = clip(y_true, epsilon, 1)      p = clip(y_pred, epsilon, 1)
    row = sum over `axis` of  t * log(t / p)
    result = reduction over the rows of  sample_weight * row

Parameters
----------
y_true, y_pred : array_like, of shapes (..., classes) that broadcast
    The distributions: probabilities, not counts, for values above 1 are clipped to 1. float16,
    bfloat16 (``ml_dtypes``), float32 and float64 arrays are read in place, whatever their strides;
    integers, bools and foreign byte orders are converted a block at a time. CPU tensors of PyTorch,
    TensorFlow and JAX, tables of pandas, polars, pyarrow and xarray, and lists are accepted. Two
    tables whose labels of the classes differ are an error. A 0-d or 1-d input is one row.
axis : int or tuple of int, default -1
    The class axes, of the shape that the two broadcast to.
epsilon : float in [0, 1) or None, default 1e-7
    Lower bound of the clip. None: no clip, and the meaning of ``scipy.special.rel_entr`` summed
    over `axis`: 0 log(0/q) is 0, a positive over 0 is inf, a negative is inf. With 0 the two are
    clipped to [0, 1] and zeros have that meaning too.
reduction : str or None, default "mean"
    "mean" or "sum_over_batch_size": the sum over the number of rows. "sum". "none" or None: every
    row's value. "mean_with_sample_weight": the sum over the sum of the weights. "batchmean": the
    sum over the length of the first batch axis, as in PyTorch. A mean over nothing is 0.
sample_weight : array_like, optional
    A weight for each row, of a shape that broadcasts with the rows. As in Keras, ranks that differ
    by one trailing axis of length 1 are made equal first, and more weights than rows repeat the rows.
mask : array_like of bool or integers, optional
    False (0) where a row counts as 0, whatever it holds, of a shape that broadcasts to the rows'. A
    mean is then over the rows that count.
out : ndarray, optional
    With ``reduction="none"``: where to write the rows, of the result's shape and dtype. It may
    overlap the inputs. Its content is undefined after an interrupt (Ctrl-C).
num_threads : int, optional
    At least 1; no more are used than there are processors. Default: :func:`get_num_threads`. The
    result does not depend on it.

Returns
-------
numpy.float32 or numpy.float64, or an ndarray of it with ``reduction="none"``
    float64 if `y_pred` is float64, an integer array or a list, or if `y_true` is a float64 array;
    otherwise float32.

Raises
------
ValueError
    If shapes do not broadcast, an argument has a value that is not in its range, labels contradict
    each other, or a table has a missing value.
TypeError
    If an argument is of a type or dtype that is not among those above.

Notes
-----
The quotient t/p is never rounded: its logarithm comes from the exact difference of the two, so that
distributions that nearly agree keep their digits. Sums are carried in float64. The result has the
same bits for any number of threads, on AVX2, AVX-512 and NEON.

References
----------
.. [1] https://keras.io/api/losses/probabilistic_losses/#kldivergence-class

Examples
--------
>>> import numpy as np
>>> from kldiv_fast import kl
>>> y_true = np.array([[0, 1], [0, 0]], dtype=np.float32)
>>> y_pred = np.array([[0.6, 0.4], [0.4, 0.6]], dtype=np.float32)
>>> print(f"{kl(y_true, y_pred):.6f}")
0.458143
>>> kl(y_true, y_pred, reduction="none").shape
(2,)
"""
