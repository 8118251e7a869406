"""``validate=True``: whether rows are what their form says. NumPy's own reductions, a block at a time: it is asked for where
something is wrong, not in a hot loop.
"""

import math

import numpy as np

from kldiv_fast._arrays import BFLOAT16, cast
from kldiv_fast._meaning import broadcast, row_of

_BLOCK = 1 << 16  # elements that are looked at together: 512 KiB as float64

# Of a form: which elements it has, by their least and greatest, what they are, and what a row of them sums to 1 by.
_EXPECTED = {
    "probs": (lambda low, high: (low >= 0) & (high <= 1), "probabilities, from 0 to 1", np.asarray),
    "counts": (lambda low, high: (low >= 0) & (high < np.inf), "counts, finite and not below 0", None),
    "log_probs": (lambda _, high: high <= 0, "logarithms of probabilities, at most 0", np.exp),
    "logits": (lambda _, high: high < np.inf, "logits, finite or -inf", None),
}  # fmt: skip


def check_rows(arranged, forms, first=(0, 0)):
    """A ValueError that names the first row which is not what its form says. Rows and classes that are left out may be anything.

    `first`: an axis of the rows, and the number of the first one along it, where these are some of a call's.
    """
    sides = (("y_true", arranged.true), ("y_pred", arranged.pred))
    for (name, x), form in zip(sides, forms, strict=True):
        if form != "labels":  # whose range is always checked
            _check_side(name, x, form, arranged, first)


def _check_side(name, x, form, arranged, first):
    operands = [x] + [np.asarray(True) if given is None else given for given in _present(arranged)]
    # Of the shape that these have together: a row that is broadcast is looked at once, with all its classes.
    of_classes = (arranged.true, arranged.pred)
    of_classes = [side.shape[side.ndim - arranged.class_ndim :] for side in of_classes]
    shape = broadcast(*(operand.shape for operand in operands), *of_classes)
    batch = shape[: len(shape) - arranged.class_ndim]
    operands = [np.broadcast_to(operand, shape) for operand in operands]
    classes = math.prod(shape[len(batch) :])
    tolerance = _tolerance(form, x.dtype, classes)
    step = max(1, _BLOCK // max(1, classes))
    for start in range(0, math.prod(batch), step):
        numbers = np.arange(start, min(start + step, math.prod(batch)))
        index = np.unravel_index(numbers, batch) if batch else ()
        rows = [_rows(operand, index) for operand in operands]
        told = [i + first[1] if axis == first[0] else i for axis, i in enumerate(index)]
        _check_block(name, form, rows, tolerance, told)


def _present(arranged):
    """`where`, and the mask as if it were about classes too."""
    mask = arranged.weights.mask
    return arranged.where, None if mask is None else mask[
        (..., *[np.newaxis] * arranged.class_ndim)
    ]


def _rows(operand, index):
    """Some rows, their classes along one axis: a copy, but for a row that is long and lies in one piece."""
    if len(index) and len(index[0]) > 1:
        return operand[index].reshape(len(index[0]), -1)
    return operand[tuple(i[0] for i in index)].reshape(1, -1)


def _tolerance(form, dtype, classes):
    """How far from 1 a row may sum: what rounding leaves of a row that was divided by its sum.

    Each element is rounded to its dtype, which is a part of it, of a logarithm a part of that; the sum was added up in any
    order, of 16 bits in float32, its n roundings of either sign.
    """
    if dtype == BFLOAT16 or dtype.name == "bfloat16":
        unit, least = 2.0**-7, 0.0
    else:
        info = np.finfo(dtype if dtype.kind == "f" else np.float64)
        unit, least = float(info.eps), float(info.smallest_subnormal)
    of_elements = unit * (1 + (math.log(max(1, classes)) / 2 if form == "log_probs" else 0))
    return of_elements + min(unit, 2.0**-23) * (1 + math.sqrt(classes)) + classes * least / 2


def _check_block(name, form, rows, tolerance, index):
    is_fine, expected, probabilities = _EXPECTED[form]
    n, classes = rows[0].shape
    low, high, total = np.full(n, np.inf), np.full(n, -np.inf), np.zeros(n)
    is_there = np.zeros(n, bool)
    for start in range(0, classes, _BLOCK):
        x, *kept = (operand[:, start : start + _BLOCK] for operand in rows)
        x, kept = cast(x, np.dtype(np.float64)), np.logical_and(*kept)
        is_there |= kept.any(axis=1)
        low = np.minimum(low, x.min(axis=1, initial=np.inf, where=kept))
        high = np.maximum(high, x.max(axis=1, initial=-np.inf, where=kept))
        if probabilities is not None:
            with np.errstate(over="ignore"):
                total += probabilities(x).sum(axis=1, where=kept)
    wrong = is_there & ~is_fine(low, high)
    off = is_there & (abs(total - 1) > tolerance) if probabilities is not None else wrong
    if not (wrong | off).any():
        return
    i = int((wrong | off).argmax())
    where = f"in row {row_of([along[i] for along in index] or (0,))}"
    if not wrong[i]:
        raise ValueError(
            f"{name} has the sum {total[i]:.9g} {where}; expected {expected}, of the sum 1 to within {tolerance:.1g}"
        )
    value = low[i] if not is_fine(low[i], -np.inf) else high[i]
    raise ValueError(f"{name} has the element {value:.9g} {where}; expected {expected}")
