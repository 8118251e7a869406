"""The divergences of Dask arrays, lazily: arrays larger than memory, or than one machine, in chunks of any shape.

Only this module imports Dask. A block of whole rows is one call of the core. Where the class axes are cut, a block leaves
each row's state, some numbers; Dask's own tree reduction merges them, by the core's functions, in the order of the blocks.
An operation that passes over its rows several times has so many rounds of that.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from kldiv_fast import _adapters, _core, _meaning
from kldiv_fast._arrays import (
    as_array,
    cast,
    is_a,
    is_float,
    is_float64,
    is_sequence,
    lazy_part,
    refuse,
)
from kldiv_fast._divergence import (
    Arranged,
    Options,
    Problem,
    check_integers,
    read_mask,
    read_where,
)
from kldiv_fast._labels import check_dims, check_labels

try:
    import dask.array as da
except ImportError as error:
    raise ImportError("kldiv_fast.dask needs Dask: pip install 'kldiv_fast[dask]'") from error


_TEMPLATE = """\
{title} of probability distributions, in nats, on Dask arrays.

What :func:`kldiv_fast.{name}` computes, with the same arguments, as a lazy array::

    t = clip(y_true, epsilon, 1)      p = clip(y_pred, epsilon, 1)
{formula}
    result = reduction over the rows of  sample_weight * row

Of other forms, t and p are what they stand for, unclipped. :func:`kldiv_fast.{name}` itself calls this
function where one of its arguments is a Dask array.

Parameters
----------
y_true, y_pred : dask.array.Array or array_like, of shapes (..., classes) that broadcast
    The distributions, in chunks of any shape: the class axes may be cut too. Chunks that differ are
    aligned by ``dask.array.unify_chunks``; their sizes have to be known. ``xarray.DataArray``
    with a Dask array in it is read as that.
{parameters}{shared}num_threads : int, default 1
    Threads of one task: Dask's scheduler has as many tasks at once as it has threads.
{labels}validate : bool, default False
    Not True: nothing is known before ``compute``.

Returns
-------
dask.array.Array
    Of no axes, or of the rows' shape with ``reduction="none"``; of the dtype of
    :func:`kldiv_fast.{name}`.

Raises
------
ValueError
    If shapes do not broadcast, an argument has a value that is not in its range, a chunk's size is
    unknown or `validate` is True; from ``compute``, if a label is no class.
TypeError
    If an argument is of a type or dtype that is not among those above.

Notes
-----
The bits depend on the chunks, within the rounding that docs/scale.md states, but not on the scheduler
or the number of workers. Forms that take several passes over a row (all but probabilities) keep a
row's blocks until its last one, where the class axes are cut.

Masked rows are computed, and then left out.

Examples
--------
>>> import dask.array as da
>>> import numpy as np
>>> from kldiv_fast.dask import {name}
>>> y_true = da.from_array(np.array([[0.0, 1.0], [0.0, 0.0]], np.float32), chunks=(1, 2))
>>> y_pred = da.from_array(np.array([[0.6, 0.4], [0.4, 0.6]], np.float32), chunks=(2, 1))
>>> value = {name}(y_true, y_pred)
>>> value
dask.array<..., shape=(), dtype=float32, ...>
>>> print(f"{{value.compute():.6f}}")
{value}
"""


def _divergence(operation, y_true, y_pred, given):
    keywords = {"num_threads": None} | _adapters.complete(operation, given)
    if keywords["num_threads"] is None:
        keywords["num_threads"] = 1
    reduction = keywords["reduction"]
    _meaning.check_reduction(reduction)
    options = Options.read(operation, keywords)
    _meaning.check_validate(keywords["validate"])
    if keywords["validate"]:
        raise ValueError(_adapters.UNKNOWN)
    ignored = _meaning.check_ignore_class(keywords["ignore_class"], options.forms)
    pred, true = _read(y_pred, "y_pred"), _read(y_true, "y_true")
    where, mask = read_where(keywords["where"], _read), read_mask(keywords["mask"], _read)
    are_labels = "labels" in options.forms
    if is_sequence(y_pred):
        pred = pred.astype(np.float64)
    if are_labels:
        _meaning.check_smoothed(where, options.smoothing)
        true, mask = _place_labels(true, pred, keywords["axis"], ignored, mask)
    elif is_sequence(y_true) and is_float(pred.dtype):
        true = true.astype(pred.dtype)
    true, pred = _meaning.match_ranks(true, pred)
    axes = _meaning.check_axes(keywords["axis"], max(true.ndim, pred.ndim))
    if not are_labels:
        check_labels(y_true, y_pred, (true.ndim, pred.ndim), axes)
    check_dims(y_true if are_labels else None, y_pred, (true, pred), keywords)
    shape = _meaning.broadcast_shape(true, pred)
    if where is not None:
        _meaning.check_where(where, shape)
    weight = _read_weight(keywords["sample_weight"])
    operands = [
        None if x is None else _meaning.classes_last(x, len(shape), axes)
        for x in (true, pred, where)
    ]
    values = _rows(options, operands, len(axes))
    weights = _meaning.weights_of(weight, mask, reduction, _scale_of_mask)
    (values,), rows, weights = _meaning.attach_weights([values], values.shape, weights)
    dtype = _meaning.result_dtype(true.dtype, pred.dtype)
    return _reduce(values, rows, weights, reduction).astype(dtype)


# ---- rows ----


class _Block(NamedTuple):
    """What a task has to know beside its blocks."""

    options: Options
    class_shape: tuple  # of all blocks together

    @property
    def class_ndim(self):
        return len(self.class_shape)


def _rows(options, operands, class_ndim):
    """Each row's value, float64, of y_true, y_pred and where (or None), batch axes first."""
    if class_ndim == 0:  # one element
        operands, class_ndim = [None if x is None else x[np.newaxis] for x in operands], 1
    chunks, operands = _aligned(operands)
    shape = tuple(map(sum, chunks))
    batch, classes = shape[:-class_ndim], shape[-class_ndim:]
    are_labels = "labels" in options.forms
    if 0 in (batch if are_labels else shape):  # no label is one of no classes
        return da.zeros(batch)
    if are_labels:
        operands += [(_starts(along), (i,)) for i, along in enumerate(chunks)]
    is_cut = any(len(along) > 1 for along in chunks[-class_ndim:])
    rows = _rows_in_rounds if is_cut else _whole_rows
    return rows(_Block(options, classes), operands, chunks[:-class_ndim])


def _aligned(operands):
    """The chunks along each axis, and pairs of arrays in these chunks (or None) and their axes, as blockwise takes them."""
    axes = tuple(range(operands[0].ndim))

    def unify(arrays, **given):
        return da.unify_chunks(*(part for x in arrays for part in (x, axes)), **given)

    operands = [_without_empty_chunks(x) if isinstance(x, da.Array) else x for x in operands]
    lazy = [x for x in operands if isinstance(x, da.Array)]
    along = unify(lazy, warn=False)[0] if lazy else {}
    present = [
        x if isinstance(x, da.Array) else da.from_array(x, chunks=_chunks_beside(x, along))
        for x in operands
        if x is not None
    ]
    along, arrays = unify(present)
    arrays = iter(arrays)
    pairs = [(None, None) if x is None else (next(arrays), axes) for x in operands]
    return [along[axis] for axis in axes], pairs


def _without_empty_chunks(x):
    return x.rechunk(tuple(tuple(n for n in along if n) or (0,) for along in x.chunks))


def _chunks_beside(x, along):
    """Of an array of NumPy, those of the others along axes that it shares with them."""
    if not along:
        return "auto"
    return tuple(along[axis] if sum(along[axis]) == n else n for axis, n in enumerate(x.shape))


def _starts(along):
    """Of each block along an axis, the number of its first element."""
    return da.from_array(np.cumsum((0, *along[:-1])), chunks=1)


def _blockwise(function, out, operands, chunks, **given):
    """da.blockwise of aligned operands, of which some are broadcast. `chunks`: of the result, by axis."""
    pairs = [part for pair in operands for part in pair]
    meta = np.empty((0,) * len(out), given["dtype"])
    return da.blockwise(
        function, out, *pairs, adjust_chunks=chunks, align_arrays=False, meta=meta, **given
    )


# ---- blocks of whole rows ----


def _whole_rows(block, operands, chunks):
    batch, chunks = tuple(range(len(chunks))), dict(enumerate(chunks))
    return _blockwise(functools.partial(_values, block), batch, operands, chunks, dtype=np.float64)


def _values(block, *operands):
    true, pred, where, *starts = map(_alone, operands)
    true, pred, where = _as_arrays(true, pred, where)
    true = _labels_here(block, true, pred, where, starts) if starts else true
    rows = _meaning.broadcast(true.shape, pred.shape)[: -block.class_ndim]
    values = np.empty(rows)
    arranged = Arranged(true, pred, where, block.class_ndim, rows, _meaning.Weights())
    Problem({}, None, arranged, values.dtype, block.options, "none", 1, {}, 0).run(values)
    return values


def _alone(blocks):
    """The one block of an operand, in the lists that blockwise has for axes which are summed over."""
    while isinstance(blocks, list):
        (blocks,) = blocks
    return blocks


# ---- blocks of parts of rows ----


def _rows_in_rounds(block, operands, chunks):
    """The same of blocks that are cut along the class axes.

    What carries on from a block, and from a round to the next, are states, an axis of int64s: see kldiv.h.
    """
    words = len(chunks) + block.class_ndim
    batch, classes = tuple(range(len(chunks))), tuple(range(len(chunks), words))
    chunks = dict(enumerate(chunks)) | dict.fromkeys(classes, 1)
    is_wide = any(is_float64(x.dtype) for x, _ in operands[:2])
    size, rounds = _core.rounds(block.options.core, is_wide)
    before = (None, None)
    for left in reversed(range(rounds)):
        states = _blockwise(
            functools.partial(_states, block, size),
            (*batch, *classes, words),
            [before, *operands],
            chunks,
            new_axes={words: size},
            dtype=np.int64,
        )
        end = functools.partial(_next if left else _last, block)
        summed = classes if left else (*classes, words)
        kept = (*batch, words) if left else batch
        dtype = np.int64 if left else np.float64
        merged = da.reduction(
            states,
            _as_it_is,
            end,
            axis=summed,
            combine=functools.partial(_merged, block),
            concatenate=False,
            dtype=dtype,
            meta=np.empty((0,) * len(kept), dtype),
        )
        before = (merged, kept)
    return merged


def _states(block, size, before, *operands):
    """Of a block's rows after a round, of their states `before` it; None: the first round."""
    true, pred, where, *starts = operands
    true, pred, where = _as_arrays(true, pred, where)
    true = _labels_here(block, true, pred, where, starts, before is None) if starts else true
    rows = _meaning.broadcast(true.shape, pred.shape)[: -block.class_ndim]
    states = np.empty((*rows, size), np.int64) if before is None else before.copy()
    classes = math.prod(block.class_shape)
    _core.reduce(
        *(block.options.core, true, pred, where, block.class_ndim, rows),
        *(states, classes, before is None),
    )
    return states.reshape(*rows, *(1,) * block.class_ndim, size)


def _as_it_is(states, axis, keepdims):
    return states


def _merged(block, parts, axis=None, keepdims=None, ends=False, values=None):
    """The states of neighbouring blocks made one, in their order."""
    first, *others = map(np.ascontiguousarray, _flat(parts))
    states = first.copy()  # what Dask holds may be read by others
    _core.merge(block.options.core, states, others, ends, values)
    return states


def _flat(parts):
    return [x for part in parts for x in _flat(part)] if isinstance(parts, list) else [parts]


def _next(block, parts, axis=None, keepdims=None):
    """What a round leaves of whole rows."""
    states = _merged(block, parts, ends=True)
    return states.reshape(*_batch_of(block, states), states.shape[-1])


def _last(block, parts, axis=None, keepdims=None):
    """The rows' values, after the last round."""
    values = np.empty(_batch_of(block, _flat(parts)[0]))
    _merged(block, parts, ends=True, values=values)
    return values


def _batch_of(block, states):
    return states.shape[: states.ndim - 1 - block.class_ndim]


# ---- labels ----

_ABSENT = np.iinfo(np.int64).min  # stands for the label of a row that doesn't count


def _place_labels(labels, pred, axis, ignored, mask):
    """One for each row, with an axis of length 1 in the classes' place; and the mask, without the rows that are ignored."""
    check_integers(labels)
    labels, at = _meaning.place_labels(labels, pred.shape, axis)
    mask = _meaning.counting(labels, at, ignored, mask)
    if mask is None:
        return labels, mask
    counts = _meaning.that_count(np.squeeze(labels, at), mask)
    return np.where(np.expand_dims(counts, at), labels.astype(np.int64), _ABSENT), mask


def _labels_here(block, labels, pred, where, starts, is_first=True):
    """Labels by number within the block, below 0 of rows whose class is in another. `starts`: where the block is."""
    of_batch = labels.ndim - block.class_ndim
    shape = _meaning.broadcast(labels.shape, pred.shape)
    first = np.concatenate(starts)
    rows = labels.reshape(labels.shape[:of_batch])
    counts = rows != _ABSENT
    if is_first:
        _meaning.check_range(rows, counts, math.prod(block.class_shape), first[:of_batch])
    local = np.zeros(rows.shape, np.int64)
    is_here = counts
    extents = [max(1, n) for n in block.class_shape]
    at = np.unravel_index(np.where(counts, rows, 0).astype(np.int64), extents)
    for i, start, extent in zip(at, first[of_batch:], shape[of_batch:], strict=True):
        local = local * extent + i - start
        is_here = is_here & (i >= start) & (i < start + extent)
    if is_first and where is not None:
        last = np.broadcast_to(where, shape).reshape(*shape[:of_batch], -1)
        _meaning.check_there(local, is_here, last, first[:of_batch])
    return np.where(is_here, local, -1).reshape(labels.shape)


# ---- what comes in ----


def _read(x, name):
    """A Dask array as it is, or a NumPy array, of a dtype that the core reads."""
    x = lazy_part(x)
    if not isinstance(x, da.Array):
        return as_array(x, name)
    _check_blocks(x._meta, name)
    for axis, n in enumerate(x.shape):
        if math.isnan(n):
            raise ValueError(
                f"{name} has chunks of unknown size along axis {axis}; expected known ones: "
                f"{name}.compute_chunk_sizes()"
            )
    return x


def _check_blocks(block, name):
    """Refuse an array by one of its blocks, without elements."""
    if is_a(block, "numpy.ma", "MaskedArray"):
        filled = f"dask.array.ma.filled({name}, ...), and the argument mask to leave rows out"
        refuse(name, "a Dask array of masked arrays", f"one of plain arrays: {filled}")
    if not isinstance(block, np.ndarray):
        dense = f"{name}.map_blocks(lambda block: block.toarray(), dtype={name}.dtype)"
        refuse(name, f"a Dask array of type {type(block).__name__}", f"one of NumPy's: {dense}")
    as_array(block, name)


def _as_arrays(*blocks):
    """y_true's, y_pred's and where's blocks, which may be other than Dask was told."""
    names = ("y_true", "y_pred", "where")
    return [x if x is None else as_array(x, name) for x, name in zip(blocks, names, strict=True)]


def _read_weight(weight):
    if weight is None:
        return None
    weight, float64 = _read(weight, "sample_weight"), np.dtype(np.float64)
    return weight.astype(float64) if isinstance(weight, da.Array) else cast(weight, float64)


# ---- reductions ----


def _scale_of_mask(mask):
    return _quotient(mask.size, np.count_nonzero(mask))


def _sum_of_weights(weight, mask):
    if weight is None:
        return np.count_nonzero(mask)
    return weight.sum() if mask is None else np.where(mask, weight, 0).sum()


def _reduce(values, rows, weights, reduction):
    if weights.weight is not None:
        values = values * weights.weight
    if weights.mask is not None:
        values = da.where(weights.mask, values, 0)
    if _meaning.is_none(reduction):
        return values
    divisor = _meaning.divisor(reduction, rows, weights, _sum_of_weights)
    return _quotient(values.sum() * weights.scale, divisor)


def _quotient(total, divisor):
    """A mean over nothing is 0."""
    is_none = divisor == 0
    return np.where(is_none, 0, total / np.where(is_none, 1, divisor))


# ---- a function for each row of the table ----

_functions = _adapters.functions(__name__, _divergence, _TEMPLATE, num_threads=None)
globals().update(_functions)

__all__ = [*_functions]  # noqa: PLE0604
