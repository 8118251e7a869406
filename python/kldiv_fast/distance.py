"""Matrices of divergences: every row beside every other, with the names and the meaning of ``scipy.spatial.distance``.

The arguments are read here; :mod:`kldiv_fast._pairs` computes.
"""

import inspect
from typing import NamedTuple

import numpy as np

import kldiv_fast
from kldiv_fast._arrays import as_array, is_float, is_sequence
from kldiv_fast._divergence import DEFAULTS, Options, check_out, delivered, writable
from kldiv_fast._labels import check_labels
from kldiv_fast._meaning import check_axes, result_dtype
from kldiv_fast._operations import BY_NAME
from kldiv_fast._pairs import ALL, CONDENSED, MIRRORED, fill_pairs
from kldiv_fast._sparse import dense_rows, is_sparse, stand_in, step_of

__all__ = ["cdist", "jensenshannon", "pdist"]


class _Metric(NamedTuple):
    operation: object
    is_root: bool = False

    @property
    def is_symmetric(self):
        return self.operation.name in ("jsd", "jeffreys")


METRICS = {
    "jensenshannon": _Metric(BY_NAME["jsd"], is_root=True),
    "js": _Metric(BY_NAME["jsd"], is_root=True),
    **{name: _Metric(row) for name, row in BY_NAME.items()},
}


# ---- the functions ----


def jensenshannon(p, q, base=None, *, axis=0, keepdims=False):
    """Jensen-Shannon distance, the square root of the divergence, as ``scipy.spatial.distance.jensenshannon`` has it.

    ::

        t = p / sum of p      u = q / sum of q      m = (t + u) / 2
        distance = sqrt((sum t log(t / m) + sum u log(u / m)) / 2)

    Parameters
    ----------
    p, q : array_like, of shapes that broadcast
        Non-negative numbers, which are divided by their sum over `axis`.
    base : float, optional
        The logarithm's base, positive and not 1: with 2 the greatest distance is 1. None: nats,
        under the root.
    axis : int or tuple of int, default 0
        The classes' axis.
    keepdims : bool, default False
        Whether the result keeps that axis, with the length 1.

    Returns
    -------
    numpy.float32 or numpy.float64, or an ndarray of it
        The dtype is that of :func:`kldiv_fast.jsd`. NaN for a row of zeros.

    Raises
    ------
    ValueError, TypeError
        As :func:`kldiv_fast.jsd`.

    Notes
    -----
    Rows that nearly agree keep their digits, where SciPy's may be NaN [2]_.

    References
    ----------
    .. [1] https://docs.scipy.org/doc/scipy/reference/generated/scipy.spatial.distance.jensenshannon.html
    .. [2] https://github.com/scipy/scipy/issues/20083

    Examples
    --------
    >>> from kldiv_fast.distance import jensenshannon
    >>> print(f"{jensenshannon([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], base=2):.6f}")
    1.000000
    >>> print(f"{jensenshannon([1.0, 0.0], [0.5, 0.5]):.6f}")
    0.464501
    """
    given = {"form": "counts", "axis": axis, "base": base, "reduction": "none"}
    distances = np.sqrt(kldiv_fast.jsd(p, q, **given))
    if not keepdims:
        return distances
    return np.expand_dims(distances, check_axes(axis, distances.ndim + np.size(axis)))


_MATRIX = """\
metric : str, default "jensenshannon"
    "jensenshannon" or "js", which are roots; "jsd", "kl", "generalized_kl", "jeffreys": the
    divergences of that name, with the first row as `y_true`.
out : ndarray, optional
    Where to write the result, of its shape and dtype. It may overlap the inputs. Its content is
    undefined after an interrupt (Ctrl-C).
num_threads : int, optional
    At least 1; no more are used than there are processors. Default:
    :func:`kldiv_fast.get_num_threads`. The result does not depend on it.
form : str or a pair of str, default "counts"
    What the rows are, as in :func:`kldiv_fast.kl`: "counts" are divided by their sums, as SciPy
    does it; "probs" are clipped to [`epsilon`, 1], as Keras does it; "log_probs"; "logits".
epsilon, temperature, pseudocount, base
    As in :func:`kldiv_fast.kl`.
beta : float in [0, 1], default 0.5
    Of "jsd", "jensenshannon" and "js": the weight of the first row's side.
"""


def cdist(XA, XB, metric="jensenshannon", *, out=None, num_threads=None, **given):
    """The divergence of each row of one array and each row of another: ``scipy.spatial.distance.cdist`` for distributions.

    Parameters
    ----------
    XA, XB : array_like, of shapes (n, classes) and (m, classes)
        The rows: what :func:`kldiv_fast.kl` reads, or a sparse array of ``scipy.sparse``, of which a
        few rows at a time are made dense.
    {matrix}
    Returns
    -------
    ndarray, of shape (n, m)
        float64 if one of the two is float64, of integers or a list; otherwise float32.

    Raises
    ------
    ValueError
        If the metric is unknown, an input has not two axes, the widths differ, `out` is of another
        shape, or an argument is out of its range.
    TypeError
        If an input is of a type or dtype that is not among those above, or `out` is of another dtype.

    Notes
    -----
    Of counts and probabilities, a row's sum and logarithms are computed once. With a center c above 0
    and g(a, b) = sum a log(a/b) - a + b::

        kl(a, b) = g(a, c) + g(c, b) - sum (a - c) log(b/c)

    where all but the last sum belong to one row. Nothing cancels unless two rows are much nearer to
    each other than to the center, the mean of some rows; such a pair is computed again, by the
    function for rows. So no value of counts is negative or NaN where both rows are finite, not below
    0 and not of zeros, and equal rows are exactly 0 apart. The error, relative to the exact value, is at most 4e-6 in
    float32 and 4e-13 in float64, or that of the function for rows. Memory beyond inputs and result:
    less than 8 MB for each thread, and some numbers for each row.

    Where XA is XB a symmetric metric is computed for one half and copied to the other.

    References
    ----------
    .. [1] https://docs.scipy.org/doc/scipy/reference/generated/scipy.spatial.distance.cdist.html

    Examples
    --------
    >>> import numpy as np
    >>> from kldiv_fast.distance import cdist
    >>> topics = np.array([[8.0, 1.0, 1.0], [1.0, 8.0, 1.0], [4.0, 4.0, 2.0]])
    >>> cdist(topics, topics, "jsd", base=2).round(4)
    array([[0.    , 0.4471, 0.1308],
           [0.4471, 0.    , 0.1308],
           [0.1308, 0.1308, 0.    ]])
    >>> cdist(topics, topics[:1], "kl").round(4)
    array([[0.    ],
           [1.4556],
           [0.4159]])
    """
    metric = _read_metric(metric)
    layout = MIRRORED if XA is XB and _is_mirrored(metric, given) else ALL
    return _matrix(metric, (XA, XB), ("XA", "XB"), layout, out, num_threads, given)


def pdist(X, metric="jensenshannon", *, out=None, num_threads=None, **given):
    """The divergences of all pairs of an array's rows: ``scipy.spatial.distance.pdist`` for distributions.

    Parameters
    ----------
    X : array_like, of shape (n, classes)
        The rows, as in :func:`cdist`.
    {matrix}
    Returns
    -------
    ndarray, of shape (n (n - 1) / 2,)
        Those of the rows 0 and 1, 0 and 2, and so on, 1 and 2, ...: SciPy's condensed form. Of a
        metric that is not symmetric, the row that comes first is `y_true`.

    Raises
    ------
    ValueError, TypeError
        As :func:`cdist`.

    References
    ----------
    .. [1] https://docs.scipy.org/doc/scipy/reference/generated/scipy.spatial.distance.pdist.html

    Examples
    --------
    >>> import numpy as np
    >>> from kldiv_fast.distance import pdist
    >>> pdist(np.array([[8.0, 1.0, 1.0], [1.0, 8.0, 1.0], [4.0, 4.0, 2.0]]), "jsd", base=2).round(4)
    array([0.4471, 0.1308, 0.1308])
    """
    return _matrix(_read_metric(metric), (X, X), ("X", "X"), CONDENSED, out, num_threads, given)


if cdist.__doc__ is not None:  # python -OO
    for _function in (cdist, pdist):
        _function.__doc__ = inspect.cleandoc(_function.__doc__).replace("{matrix}\n", _MATRIX)


# ---- arguments ----


def _read_metric(metric):
    if not isinstance(metric, str):
        raise TypeError(
            f"metric is of type {type(metric).__name__}; expected {_expected_metrics()}"
        )
    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}; expected {_expected_metrics()}")
    return METRICS[metric]


def _expected_metrics():
    return "one of: " + ", ".join(map(repr, METRICS))


def _is_mirrored(metric, given):
    form = given.get("form", "counts")
    is_one_form = isinstance(form, str) or (len(form) == 2 and form[0] == form[1])
    return metric.is_symmetric and given.get("beta", 0.5) == 0.5 and is_one_form


_KEYWORDS = ("form", "epsilon", "temperature", "pseudocount", "base")


def _read_options(metric, num_threads, given):
    operation = metric.operation
    known = (*_KEYWORDS, *operation.parameters)
    for name in given:
        if name not in known:
            raise TypeError(
                f"got an unexpected keyword argument {name!r}; expected {', '.join(known)}"
            )
    keywords = operation.defaults() | DEFAULTS | {"form": "counts"} | given
    options = Options.read(operation, keywords | {"num_threads": num_threads})
    if "labels" in options.forms:
        raise ValueError(f"form is {given['form']!r}; expected one of rows, for labels are no rows")
    return options


def _read_rows(x, name):
    if is_sparse(x):
        as_array(stand_in(x, name), name)  # refuses what can't be read
        rows = x.tocsr()
    else:
        rows = as_array(x, name)
        rows = rows.astype(np.float64) if is_sequence(x) else rows
    if rows.ndim != 2:
        raise ValueError(f"{name} has shape {rows.shape}; expected two axes: rows and classes")
    return rows


def _check_labels(inputs, names):
    try:
        check_labels(*inputs, (2, 2), (1,))
    except ValueError as error:
        words = str(error).replace("y_true", names[0]).replace("y_pred", names[1])
        raise ValueError(words) from None


# ---- a matrix ----


def _matrix(metric, inputs, names, layout, out, num_threads, given):
    options = _read_options(metric, num_threads, given)
    a = _read_rows(inputs[0], names[0])
    b = a if inputs[1] is inputs[0] else _read_rows(inputs[1], names[1])
    if a.shape[1] != b.shape[1]:
        widths = f"{a.shape[1]} and {b.shape[1]}"
        raise ValueError(f"{names[0]} and {names[1]} have {widths} classes; expected the same")
    if b is not a:
        _check_labels(inputs, names)
    n, m = a.shape[0], b.shape[0]
    dtype = result_dtype(a.dtype, b.dtype)
    if not is_float(a.dtype):  # here neither side is the prediction
        dtype = np.dtype(np.float64)
    shape = (n * (n - 1) // 2,) if layout == CONDENSED else (n, m)
    if out is not None:
        check_out(out, shape, dtype)
    dense = [x for x in (a, b) if isinstance(x, np.ndarray)]
    values = writable(out, dense, lambda: np.empty(shape, dtype))
    fill = fill_pairs if len(dense) == 2 else _fill_by_blocks
    fill(options, (a, b), layout, metric.is_root, values)
    return delivered(values, out)


def _fill_by_blocks(options, sides, layout, is_root, out):
    """Of sparse rows: a few at a time made dense, on either side."""
    a, b = sides
    step = step_of(a.shape[1])
    for i in range(0, a.shape[0], step):
        left = dense_rows(a, i, step)
        for j in range(i if layout != ALL else 0, b.shape[0], step):
            right = dense_rows(b, j, step)
            values = np.empty((len(left), len(right)), out.dtype)
            fill_pairs(options, (left, right), ALL, is_root, values)
            _place(values, i, j, layout, out, a.shape[0])


def _place(values, i, j, layout, out, n):
    if layout == CONDENSED:
        for r, row in enumerate(values, i):
            first = max(j, r + 1)
            start = r * (2 * n - r - 1) // 2 + first - r - 1
            found = row[first - j :]
            out[start : start + len(found)] = found
        return
    out[i : i + values.shape[0], j : j + values.shape[1]] = values
    if layout == MIRRORED and i != j:
        out[j : j + values.shape[1], i : i + values.shape[0]] = values.T
