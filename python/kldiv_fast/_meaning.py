"""What the arguments that all divergences share mean: axes, ranks, reductions, weights, masks.

Written once, for arrays of any library: NumPy's (:mod:`kldiv_fast._divergence`), PyTorch's, JAX's. Only shapes are read and
views made; what needs the library's own arithmetic comes in as a function.
"""

import math
import operator
import sys
from typing import Any, NamedTuple

import numpy as np

from kldiv_fast import _core
from kldiv_fast._arrays import is_float, is_float64

REDUCTIONS = (
    "sum_over_batch_size",
    "mean",
    "mean_with_sample_weight",
    "batchmean",
    "sum",
    "none",
    None,
)

FORMS = tuple(map(sys.intern, _core.forms()))  # by their numbers; interned as names in code are
_FORMS_OF_BOTH = tuple(form for form in FORMS if form != "labels")  # which are y_true's alone
PROBS = ("probs", "probs")
LOGS = ("log_probs", "logits")  # whose -inf is a probability of 0

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
_EPSILON = 1e-7  # of a call that names none


class Settings(NamedTuple):
    """What a divergence is to compute, whatever it is given: what the adapters' ops take beside arrays."""

    operation: str = "kl"
    epsilon: float | None = _EPSILON  # None beside another form than probabilities
    beta: float = 0.5
    scale: float = 1.0
    true_form: str = "probs"
    pred_form: str = "probs"
    temperature: float = 1.0  # of logits

    @property
    def forms(self):
        return self.true_form, self.pred_form

    @property
    def is_plain(self):
        """Whether it is what Keras's own KLDivergence computes, with any epsilon."""
        return self.epsilon is not None and self == Settings(epsilon=self.epsilon)


# ---- one value each ----


def is_none(reduction):
    return reduction is None or reduction == "none"


def check_reduction(reduction):
    if not (reduction is None or isinstance(reduction, str)) or reduction not in REDUCTIONS:
        raise ValueError(
            f"reduction is {reduction!r}; expected one of: {', '.join(map(repr, REDUCTIONS))}"
        )


def check_form(form):
    """y_true's and y_pred's, of one name for both or a pair."""
    pair = (form, form) if isinstance(form, str) else form
    expected = f"expected one of: {', '.join(map(repr, _FORMS_OF_BOTH))}, or a pair of them, or 'labels' and one"
    if not isinstance(pair, (tuple, list)) or not all(isinstance(name, str) for name in pair):
        raise TypeError(f"form is {form!r}; {expected}")
    if len(pair) != 2 or pair[0] not in FORMS or pair[1] not in _FORMS_OF_BOTH:
        raise ValueError(f"form is {form!r}; {expected}")
    return tuple(pair)


def check_temperature(temperature, forms=PROBS):
    expected = "a finite number above 0"
    value = _number(temperature, "temperature", expected, lambda x: 0 < x < math.inf)
    if value != 1 and "logits" not in forms:
        raise ValueError(f"temperature is {temperature!r}, which is for logits alone; expected 1")
    return value


def check_pseudocount(pseudocount, forms=PROBS):
    expected = "a finite number, not below 0"
    value = _number(pseudocount, "pseudocount", expected, lambda x: 0 <= x < math.inf)
    if value != 0 and "counts" not in forms:
        raise ValueError(f"pseudocount is {pseudocount!r}, which is for counts alone; expected 0")
    return value


def check_smoothing(smoothing, forms):
    value = _number(smoothing, "label_smoothing", "a number in [0, 1]", lambda x: 0 <= x <= 1)
    if value != 0 and "labels" not in forms:
        raise ValueError(f"label_smoothing is {smoothing!r}, which is for labels alone; expected 0")
    return value


def check_smoothed(where, smoothing):
    if where is not None and smoothing != 0:
        raise ValueError("label_smoothing is given with where; expected one of them alone")


def check_ignore_class(ignore_class, forms):
    if ignore_class is None:
        return None
    if "labels" not in forms:
        raise ValueError(
            f"ignore_class is {ignore_class!r}, which is for labels alone; expected None"
        )
    try:
        return operator.index(ignore_class)
    except TypeError:
        raise TypeError(
            f"ignore_class is of type {type(ignore_class).__name__}; expected an integer, or None"
        ) from None


def check_epsilon(epsilon, forms=PROBS):
    if epsilon is None:
        return None
    value = _number(epsilon, "epsilon", "a number in [0, 1), or None", lambda x: 0 <= x < 1)
    if value != _EPSILON and forms not in (PROBS, ("labels", "probs")):
        other = next(form for form in forms if form not in ("probs", "labels"))
        raise ValueError(
            f"epsilon is {epsilon!r}, but nothing is clipped beside {other}; expected the default, or None"
        )
    return value


def check_validate(validate):
    if not isinstance(validate, (bool, np.bool_)):
        raise TypeError(f"validate is {validate!r}; expected True or False")


def check_beta(beta):
    return _number(beta, "beta", "a number in [0, 1]", lambda x: 0 <= x <= 1)


def scale_of_base(base):
    """The factor from nats to logarithms to that base."""
    if base is None:
        return 1.0
    expected = "a positive number other than 1, or None"
    base = _number(base, "base", expected, lambda x: 0 < x < math.inf and x != 1)
    return 1 / math.log(base)


def _number(given, name, expected, is_fine):
    if isinstance(given, (bool, str, bytes)):
        raise TypeError(f"{name} is {given!r}; expected {expected}")
    try:
        value = float(given)
    except TypeError:
        raise TypeError(f"{name} is of type {type(given).__name__}; expected {expected}") from None
    except OverflowError:
        value = math.inf
    if not is_fine(value):
        raise ValueError(f"{name} is {given!r}; expected {expected}")
    return value


def check_threads(n, name):
    try:
        value = operator.index(n)
    except TypeError:
        raise TypeError(
            f"{name} is of type {type(n).__name__}; expected an integer of at least 1, or None"
        ) from None
    if value < 1 or isinstance(n, bool):
        raise ValueError(f"{name} is {n!r}; expected an integer of at least 1, or None")
    return min(value, 2**31 - 1)


def check_axes(axis, ndim):
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


def result_dtype(true, pred):
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


def match_ranks(true, pred):
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


def broadcast_shape(true, pred):
    try:
        return broadcast(true.shape, pred.shape)
    except ValueError:
        raise ValueError(
            f"y_true has shape {tuple(true.shape)}, which does not broadcast with "
            f"y_pred's {tuple(pred.shape)}"
        ) from None


def check_where(where, shape):
    """`where` may name no element that the inputs don't have."""
    try:
        fits = broadcast(tuple(where.shape), tuple(shape)) == tuple(shape)
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"where has shape {tuple(where.shape)}; expected one that broadcasts to the inputs' {tuple(shape)}"
        )


def place_labels(labels, pred_shape, axis):
    """Labels with axes of length 1 in the classes' place, of y_pred's rank; and those axes. A view."""
    at = check_axes(axis, len(pred_shape))
    if len(labels.shape) == len(pred_shape) and all(labels.shape[i] == 1 for i in at):
        labels = _drop_axes(labels, at)  # as Keras's sparse losses have it
    rows = tuple(n for i, n in enumerate(pred_shape) if i not in at)
    shape = tuple(labels.shape)
    try:
        broadcast(shape, rows)
    except ValueError:
        fits = False
    else:
        fits = len(shape) <= len(rows)
    if not fits:
        raise ValueError(
            f"y_true has shape {shape}; expected labels that broadcast with the rows' shape {rows}"
        )
    lengths = iter((1,) * (len(rows) - len(shape)) + shape)
    return labels.reshape([1 if i in at else next(lengths) for i in range(len(pred_shape))]), at


def check_values(labels, at, mask, where, shape):
    """Refuse labels (NumPy's, as place_labels gives them) of rows that count which `where`, or None, leaves without a class.

    `shape`: of labels and y_pred together.
    """
    of_rows, classes = labels.squeeze(at), math.prod(shape[i] for i in at)
    check_range(of_rows, mask, classes)
    if where is not None:
        last = np.moveaxis(np.broadcast_to(where, shape), at, range(-len(at), 0))
        check_there(of_rows, mask, last.reshape(*last.shape[: len(shape) - len(at)], classes))


def check_range(labels, mask, classes, first=0):
    """Refuse labels of rows that count (NumPy's arrays, one element a row) which are no class. `first`: the first row's index."""
    if not labels.size or (labels.min() >= 0 and labels.max() < classes):
        return  # without an array of the rows' size
    wrong = ((labels < 0) | (labels >= classes)) & that_count(labels, mask)
    if wrong.any():
        row = np.argwhere(wrong)[0]
        raise ValueError(
            f"y_true has the label {labels[tuple(row)]} in row {row_of(row + first)}; "
            f"expected one in [0, {classes})"
        )


def check_there(labels, mask, where, first=0):
    """Refuse labels of rows that count whose class `where` leaves out: its last axis is the classes', others the rows'.

    `first`: the first row's index.
    """
    labels, counts = (np.broadcast_to(x, where.shape[:-1]) for x in (labels, that_count(labels, mask)))  # fmt: skip
    each = np.where(counts, labels, 0).astype(np.int64)[..., np.newaxis]
    missing = counts & ~np.take_along_axis(where, each, -1)[..., 0]
    if missing.any():
        row = row_of(np.argwhere(missing)[0] + first)
        raise ValueError(
            f"y_true has in row {row} a label whose class where leaves out; expected one of the others"
        )


def that_count(labels, mask):
    """Of each label whether its row counts, as far as a mask tells of labels and not of what they broadcast to."""
    if mask is None:
        return np.ones(labels.shape, bool)
    mask, rows = _same_rank(mask, labels, mask.shape, labels.shape)
    try:
        alike = math.prod(broadcast(mask.shape, rows.shape)) == labels.size
    except ValueError:
        alike = False
    if not alike:
        return np.ones(labels.shape, bool)
    return np.broadcast_to(mask != 0, rows.shape).reshape(labels.shape)


def row_of(index):
    """A row's index, as it is told: a number, or a tuple of several."""
    index = tuple(int(i) for i in index)
    return index[0] if len(index) == 1 else index


def counting(labels, at, ignored, mask):
    """`mask`, without the rows whose label is `ignored`. `labels`: as place_labels gives them."""
    if ignored is None:
        return mask
    labels = _drop_axes(labels, at)
    try:
        counts = labels != ignored
    except OverflowError:  # PyTorch and JAX, of a number that no label of theirs can be
        return mask
    if mask is None:
        return counts
    mask, counts = _same_rank(mask, counts, mask.shape, counts.shape)
    try:
        broadcast(tuple(mask.shape), tuple(counts.shape))
    except ValueError:
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}, which does not broadcast with the labels' {tuple(counts.shape)}"
        ) from None
    return (mask != 0) & counts


def classes_last(x, ndim, axes):
    x = x.reshape((1,) * (ndim - x.ndim) + x.shape) if x.ndim < ndim else x
    if axes == tuple(range(ndim - len(axes), ndim)):
        return x
    return x.transpose([i for i in range(ndim) if i not in axes] + list(axes))


# ---- weights and masks ----


class Weights(NamedTuple):
    """``sample_weight`` and ``mask``, arrays of one library, and what they make of a mean."""

    weight: Any = None
    mask: Any = None
    scale: Any = 1.0  # Keras gives unmasked rows the weight total/valid in a mean


def weights_of(weight, mask, reduction, scale):
    """Both, of matching ranks. `scale` of a mask: all its elements over those that are true, 0 if none is."""
    means = reduction in ("mean", "sum_over_batch_size")
    factor = scale(mask) if mask is not None and means else 1.0
    if weight is not None and mask is not None:
        mask, weight = _match_mask(mask, weight)
    return Weights(weight, mask, factor)


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


def attach_weights(arrays, rows, weights):
    """Arrays of rows, and weights, brought to one rank, by views; and the rows' shape that all broadcast to."""
    given = [x for x in (weights.weight, weights.mask) if x is not None]
    if not given:
        return arrays, rows, weights
    shape = broadcast(*(x.shape for x in given))
    if len(rows) == len(shape) + 1 and rows[-1] == 1:
        if len(shape) == 1:
            given = [x[..., np.newaxis] for x in given]
        else:
            last = len(rows) - 1
            arrays, rows = [_drop_axes(x, (last,)) for x in arrays], rows[:-1]
    elif len(shape) == len(rows) + 1 and shape[-1] == 1:
        if len(rows) == 1:
            arrays, rows = [x[:, np.newaxis] for x in arrays], (*rows, 1)
        else:
            given = [x[..., 0] if x.ndim == len(shape) else x for x in given]
    weight = given.pop(0) if weights.weight is not None else None
    mask = given[0] if given else None
    shapes = (None if x is None else tuple(x.shape) for x in (weight, mask))
    rows = _rows_beside(rows, *shapes)
    return arrays, rows, Weights(weight, mask, weights.scale)


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
                "Classes are left out by where=keep"
            )
        rows = masked
    return rows


def _drop_axes(x, axes):
    return x[tuple(0 if i in axes else slice(None) for i in range(x.ndim))]


def divisor(reduction, rows, weights, sum_of):
    """What the rows' sum is divided by. `sum_of`: the sum over both weights, before they broadcast with the rows."""
    if reduction == "sum" or is_none(reduction):
        return 1
    if reduction == "batchmean":
        return rows[0] if rows else 1
    weighted = weights.weight is not None or weights.mask is not None
    if reduction == "mean_with_sample_weight" and rows and weighted:
        return sum_of(weights.weight, weights.mask)
    return math.prod(rows)
