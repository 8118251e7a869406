"""Labels of the classes, where tables have them: two inputs are compared by position, which their labels must not contradict.

Labels of rows say nothing: rows are paired by position.
"""

from typing import NamedTuple

from kldiv_fast._arrays import is_a
from kldiv_fast._meaning import check_axes, match_ranks


class _Table(NamedTuple):
    """A table whose axes may have labels."""

    name: str  # the argument's
    library: str
    dims: tuple  # of xarray: the axes' names
    labels: list  # of each axis: an Index of pandas, a list of names or None


def check_labels(y_true, y_pred, ranks, axes):
    """Raise a ValueError if both have labels along a class axis that are not the same.

    Parameters
    ----------
    y_true, y_pred : what the caller gave
    ranks : the number of axes of each, once they were made equal as Keras does it
    axes : the class axes of the shape that the two broadcast to
    """
    true, pred = _read(y_true, "y_true"), _read(y_pred, "y_pred")
    if true is None or pred is None:
        return
    true, pred = (_with_rank(x, rank) for x, rank in zip((true, pred), ranks, strict=True))
    _check_dims(true, pred)
    for axis in axes:
        i, j = (axis - max(ranks) + rank for rank in ranks)
        if i >= 0 and j >= 0 and _contradict(true.labels[i], pred.labels[j]):
            raise ValueError(_words(true, pred, i, j))


def _read(x, name):
    if is_a(x, "pandas", "DataFrame", "Series"):
        return _Table(name, "pandas", (), list(x.axes))
    if is_a(x, "xarray", "DataArray"):
        return _Table(name, "xarray", x.dims, [x.indexes.get(dim) for dim in x.dims])
    if is_a(x, "polars", "DataFrame"):
        by_polars = [f"column_{i}" for i in range(x.width)]  # where nobody gave names
        return _Table(name, "polars", (), [None, x.columns if x.columns != by_polars else None])
    if is_a(x, "pyarrow", "Table", "RecordBatch"):
        return _Table(name, "pyarrow", (), [None, x.schema.names])
    return None


def _with_rank(table, rank):
    """Without the last axis, or with one more, as the array has it."""
    missing = rank - len(table.labels)
    labels = table.labels[:rank] + [None] * missing
    dims = table.dims and table.dims[:rank] + (None,) * missing
    return table._replace(labels=labels, dims=dims)


def _contradict(a, b):
    if a is None or b is None or _numbers_only(a, b) or _numbers_only(b, a):
        return False
    return not (_is_index(a) and _is_index(b) and a.equals(b)) and list(a) != list(b)


def _numbers_only(a, b):
    """Whether `a` is what pandas gives where nobody gave labels, 0 to n-1, beside labels that are no integers."""
    default = is_a(a, "pandas", "RangeIndex") and a.start == 0 and a.step == 1
    return default and getattr(b, "inferred_type", "string") != "integer"


def _is_index(labels):
    return is_a(labels, "pandas", "Index")


def _check_dims(true, pred):
    """xarray names its axes: one name at two places is a transposed array."""
    dim = _misplaced(true.dims, pred.dims)
    if dim is not None:
        aligned = "y_true, y_pred = xr.broadcast(y_true, y_pred)"
        if set(true.dims) == set(pred.dims):
            aligned = "y_pred = y_pred.transpose(*y_true.dims)"
        raise ValueError(
            f"y_true has the axes {true.dims}, y_pred {pred.dims}; expected {dim!r} at one place "
            f"in both: {aligned}"
        )


def _has_dims(x):
    return is_a(x, "xarray", "DataArray")


def _misplaced(dims, others):
    """The last name that both have, at another place from the end; or None."""
    for i, dim in enumerate(reversed(dims)):
        if dim is not None and dim in others and others[::-1].index(dim) != i:
            return dim
    return None


def check_dims(labels, y_pred, arrays, keywords):
    """Raise a ValueError if what xarray names beside y_pred has one of its axes at another place.

    Parameters
    ----------
    labels, y_pred : what the caller gave; None: y_true is rows
    arrays : y_true and y_pred, read
    keywords : the call's, with weights and masks of rows, and `where`, of elements
    """
    beside = {name: keywords[name] for name in ("sample_weight", "mask", "where")}
    beside = {n: x for n, x in ({"y_true": labels} | beside).items() if _has_dims(x)}
    if not beside or not _has_dims(y_pred):
        return
    ranks = [x.ndim for x in match_ranks(*arrays)]
    ndim, rank = max(ranks), ranks[1]
    axes = check_axes(keywords["axis"], ndim)
    dims = (None,) * (ndim - rank) + _with_rank(_read(y_pred, "y_pred"), rank).dims
    of_rows = tuple(dim for i, dim in enumerate(dims) if i not in axes)
    for name, x in beside.items():
        is_of_elements = name == "where" or (name == "y_true" and x.ndim == ndim)
        _check_dims_beside(x, name, dims if is_of_elements else of_rows, y_pred.sizes)


def _check_dims_beside(x, name, expected, sizes):
    if name == "mask" and x.ndim > len(expected):
        return  # of classes, perhaps: its shape is refused
    dims = x.dims
    if len(dims) == len(expected) + 1 and x.shape[-1] == 1:
        dims = dims[:-1]
    elif len(dims) + 1 == len(expected) and sizes.get(expected[-1]) == 1:
        expected = expected[:-1]
    dim = _misplaced(dims, expected)
    if dim is None:
        return
    expected = [x for x in expected if x is not None]
    missing = [x for x in expected if x not in dims]
    aligned = f".expand_dims({missing})" if missing else ""
    aligned += f".transpose(..., {', '.join(map(repr, expected))})"
    raise ValueError(
        f"{name} has the axes {x.dims}, beside {tuple(expected)} of y_pred; expected {dim!r} at one place in both: "
        f"{name} = {name}{aligned}"
    )


# ---- the message: what differs, and what makes it agree ----


def _words(true, pred, i, j):
    a, b = list(true.labels[i]), list(pred.labels[j])
    here, there = set(a), set(b)
    advice = []
    if here == there and len(a) == len(b):
        k = next(k for k in range(len(a)) if a[k] != b[k])
        what = f"the same classes in another order: number {k} is {a[k]!r} and {b[k]!r}"
        aligned = _selected(true, pred, i, j)
    else:
        first = [next((x for x in p if x not in q), None) for p, q in ((a, there), (b, here))]
        alone = zip(("y_true", "y_pred"), first, strict=True)
        what = "other classes: " + ", ".join(
            f"{x!r} in {n} alone" for n, x in alone if x is not None
        )
        aligned = _joined(true, pred, i, j)
    if len(here) == len(a) and len(there) == len(b):
        advice.append(aligned)
    if len(a) == len(b):
        advice.append(_by_position(true, pred, i, j) + " where positions are meant")
    advice = "; or ".join(advice) or "each class once"
    return f"y_true and y_pred have {what}; expected the same classes in one order: {advice}"


def _labels_of(table, axis, library):
    """The expression for an axis's labels, as a table of `library` takes it."""
    expression = {
        "pandas": f"{table.name}.{_PANDAS_AXES[axis]}",
        "xarray": f"{table.name}.indexes[{table.dims[axis]!r}]" if table.dims else "",
        "polars": f"{table.name}.columns",
        "pyarrow": f"{table.name}.schema.names",
    }[table.library]
    same = table.library == library or {table.library, library} <= _INDEXED
    return expression if same else f"list({expression})"


_PANDAS_AXES = ("index", "columns")
_INDEXED = {"pandas", "xarray"}  # whose labels are pandas's Index


def _reindexed(table, axis, labels, more=""):
    if table.library == "xarray":
        return f"{table.name} = {table.name}.reindex({{{table.dims[axis]!r}: {labels}}}{more})"
    return f"{table.name} = {table.name}.reindex({_PANDAS_AXES[axis]}={labels}{more})"


def _selected(true, pred, i, j):
    """y_pred in y_true's order."""
    labels = _labels_of(true, i, pred.library)
    if pred.library in _INDEXED:
        return _reindexed(pred, j, labels)
    return f"y_pred = y_pred.select({labels})"


def _joined(true, pred, i, j):
    """Both with the classes of either, and 0 for those that one of them lacks."""
    if true.library == pred.library == "polars":
        return (
            'both = pl.concat([y_true, y_pred], how="diagonal_relaxed").fill_null(0); '
            "y_true, y_pred = both[: len(y_true)], both[len(y_true) :]"
        )
    others = [x.name for x in (true, pred) if x.library not in _INDEXED]
    if others:  # which have no verb for it: the next message knows one
        return "; ".join(f"{name} = {name}.to_pandas()" for name in others)
    union = f"{_labels_of(true, i, 'pandas')}.union({_labels_of(pred, j, 'pandas')}, sort=False)"
    both = (_reindexed(x, axis, "labels", ", fill_value=0") for x, axis in ((true, i), (pred, j)))
    return "; ".join([f"labels = {union}", *both])


def _by_position(true, pred, i, j):
    if pred.library == "pandas":
        return f"y_pred = y_pred.set_axis({_labels_of(true, i, 'pandas')}, axis={j})"
    return "y_pred = np.asarray(y_pred)"
