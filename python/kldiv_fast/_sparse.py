"""Rows of ``scipy.sparse``: a tile of them at a time is made dense, never the whole.

Among a call's arrays stands for such rows an array of their shape and dtype that takes no memory, its one zero repeated: by
it the call is checked and arranged as any other. The core then sees tile after tile.
"""

from typing import NamedTuple

import numpy as np

from kldiv_fast._arrays import is_a
from kldiv_fast._meaning import check_axes

_DENSE = 1 << 19  # elements that are made dense together


def is_sparse(x):
    return is_a(x, "scipy.sparse", "sparray", "spmatrix")


def stand_in(x, name):
    if x.ndim > 2:
        raise ValueError(f"{name} is a sparse array of {x.ndim} axes; expected one or two")
    return np.broadcast_to(np.zeros((), x.dtype), x.shape)


def step_of(classes):
    """How many rows make a tile."""
    return max(1, _DENSE // max(1, classes))


def dense_rows(x, first, step):
    """Some rows of CSR rows, or of an ndarray."""
    rows = x[first : first + step]
    return rows if isinstance(rows, np.ndarray) else rows.toarray()


def rows_of(x, name, axis, ndim):
    """The rows in CSR form. `axis`: the call's, of the `ndim` axes that its inputs have together."""
    classes = [a - ndim for a in check_axes(axis, ndim)]
    if len(classes) != 1 or classes[0] < -x.ndim:
        raise ValueError(f"axis is {axis!r}; expected one axis, of the sparse array {name}")
    if x.ndim == 1:
        return x.reshape((1, -1)).tocsr()
    return (x if classes == [-1] else x.T).tocsr()


class Tile(NamedTuple):
    """Some rows of a call: its operands, and how to cut from an array beside them what belongs to the same rows."""

    first: int  # of the rows
    arranged: object
    cut: object  # (array, how many class axes it has) -> a view


def tiles(arranged, sources, at):
    """The tiles of an arranged call. `sources`: by name, "true" or "pred"; `at`: the batch's axis that their rows lie along."""
    n, classes = (max(x.shape[i] for x in sources.values()) for i in range(2))
    step = step_of(classes) if n > 1 else None
    for first in range(0, max(1, n), step or 1):
        yield _tile(arranged, sources, at, slice(first, first + step if step else None))


def _tile(arranged, sources, at, part):
    from_end = len(arranged.rows) - at

    def cut(x, class_ndim):
        along = -1 if x is None or part.stop is None else x.ndim - class_ndim - from_end
        if along < 0 or x.shape[along] == 1:
            return x
        return x[(slice(None),) * along + (part,)]

    operands = {name: cut(getattr(arranged, name), 1) for name in ("true", "pred", "where")}
    for name, rows in sources.items():
        dense = (rows if rows.shape[0] == 1 else rows[part]).toarray()
        operands[name] = dense.reshape(operands[name].shape)  # whose other axes are of length 1
    weights = arranged.weights
    weights = weights._replace(weight=cut(weights.weight, 0), mask=cut(weights.mask, 0))
    shape = arranged.rows
    if part.stop is not None:
        shape = (*shape[:at], len(range(shape[at])[part]), *shape[at + 1 :])
    return Tile(part.start, arranged._replace(**operands, weights=weights, rows=shape), cut)
