"""The Python side of every divergence: it coerces, checks and words the errors; no formula stands here.

The public functions are C (``src/bindings/divergence.cpp``): they answer what comes as arrays of floats, and hand all else to
:func:`value_function`'s and :func:`gradient_function`'s functions here, which any call may go through, to the same bits.
What happens, in order: arrays in (:mod:`kldiv_fast._arrays`), whose labels agree (:mod:`kldiv_fast._labels`), their axes,
weights and divisor (:mod:`kldiv_fast._meaning`), the core.
"""

import importlib
from typing import NamedTuple

import numpy as np

from kldiv_fast import _core
from kldiv_fast._arrays import (
    as_array,
    cast,
    check_in_memory,
    is_float,
    is_lazy,
    is_sequence,
    refuse,
)
from kldiv_fast._labels import check_dims, check_labels
from kldiv_fast._meaning import (
    FORMS,
    Weights,
    attach_weights,
    broadcast,
    broadcast_shape,
    check_axes,
    check_beta,
    check_epsilon,
    check_form,
    check_ignore_class,
    check_pseudocount,
    check_reduction,
    check_smoothed,
    check_smoothing,
    check_temperature,
    check_threads,
    check_validate,
    check_values,
    check_where,
    classes_last,
    counting,
    divisor,
    is_none,
    match_ranks,
    place_labels,
    result_dtype,
    scale_of_base,
    weights_of,
)
from kldiv_fast._sparse import is_sparse, rows_of, stand_in, tiles
from kldiv_fast._validation import check_rows

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
_UNLABELLED = (np.ndarray, list, tuple, int, float)
_ARGUMENTS = ("y_true", "y_pred")


# ---- the functions ----


def value_function(operation):
    """The function of an :class:`kldiv_fast._operations.Operation` that gives its value."""

    def function(y_true, y_pred, *, out=None, **given):
        if any(map(is_lazy, (y_true, y_pred, *given.values()))):
            if out is not None:
                raise ValueError(
                    "out is given beside a Dask array, whose result is lazy; expected None"
                )
            adapter = importlib.import_module("kldiv_fast.dask")
            return getattr(adapter, operation.name)(y_true, y_pred, **given)
        problem = prepare(y_true, y_pred, operation, given)
        return compute(problem, out)

    function.__name__ = function.__qualname__ = operation.name
    return function


def gradient_function(operation):
    """The one that gives its value and its gradients."""

    def function(y_true, y_pred, *, wrt="y_pred", upstream=None, out=None, **given):
        names = _check_wrt(wrt)
        problem = prepare(y_true, y_pred, operation, given, called="_value_and_grad")
        if "labels" in problem.options.forms and "y_true" in names:
            raise ValueError(f"wrt is {wrt!r}; expected 'y_pred': labels have no gradient")
        value, gradients = _value_and_gradients(problem, wrt, names, upstream, out)
        return value, gradients[0] if isinstance(wrt, str) else gradients

    function.__name__ = function.__qualname__ = f"{operation.name}_value_and_grad"
    return function


# ---- a call ----

# The keywords that all have, whatever they return.
DEFAULTS = {
    "axis": -1,
    "form": "probs",
    "epsilon": 1e-7,
    "temperature": 1.0,
    "base": None,
    "reduction": "mean",
    "sample_weight": None,
    "mask": None,
    "where": None,
    "num_threads": None,
    "pseudocount": 0.0,
    "ignore_class": None,
    "label_smoothing": 0.0,
    "validate": False,
}


class Options(NamedTuple):
    """What the core does, whatever it does it to."""

    operation: int  # the row of the core's table
    epsilon: float | None
    beta: float
    scale: float  # from nats to the base that is asked for
    threads: int
    forms: tuple[str, str]  # y_true's and y_pred's
    temperature: float
    pseudocount: float
    smoothing: float  # of labels

    @property
    def core(self):
        """As the core's functions for rows in blocks take them."""
        forms = tuple(map(FORMS.index, self.forms))
        return (
            self.operation, self.epsilon, self.beta, self.scale, self.threads, forms, self.temperature, self.smoothing,
            self.pseudocount,
        )  # fmt: skip

    @staticmethod
    def read(operation, keywords):
        forms = check_form(keywords["form"])
        threads = keywords["num_threads"]
        return Options(
            operation.number,
            check_epsilon(keywords["epsilon"], forms),
            check_beta(keywords.get("beta", 0.5)),
            scale_of_base(keywords["base"]),
            0 if threads is None else check_threads(threads, "num_threads"),
            forms,
            check_temperature(keywords["temperature"], forms),
            check_pseudocount(keywords["pseudocount"], forms),
            check_smoothing(keywords["label_smoothing"], forms),
        )


class Arranged(NamedTuple):
    """Operands of one rank, batch axes first, as the core wants them: views of what was given."""

    true: np.ndarray
    pred: np.ndarray
    where: np.ndarray | None
    class_ndim: int
    rows: tuple  # the batch's shape, weights and mask included
    weights: Weights


class Problem(NamedTuple):
    """A call, checked: what the core needs, and the arrays that it was made of."""

    given: dict  # y_true and y_pred
    axis: object
    arranged: Arranged
    dtype: np.dtype  # of the result
    options: Options
    reduction: str | None
    divisor: float
    sources: dict  # of sparse rows, for which arrays of their shape stand in `arranged`
    sources_at: int  # the batch's axis that they lie along

    def run(self, out=None, upstream=None, grad_true=None, grad_pred=None, progress=None):
        """The core's sum. `progress` is called with the fraction that is done, now and then, and may end the call by raising."""
        if self.sources:
            return self._run_tiles(out, upstream, grad_true, grad_pred)
        return self._run(self.arranged, out, upstream, grad_true, grad_pred, progress)

    def _run_tiles(self, out, upstream, *gradients):
        """As run: gradients of rows that all tiles share are added up."""
        totals = []
        for tile in tiles(self.arranged, self.sources, self.sources_at):
            views = [tile.cut(g, 1) for g in gradients]
            begun = [
                bool(totals) and g is whole and g is not None
                for g, whole in zip(views, gradients, strict=True)
            ]
            parts = [np.empty_like(g) if more else g for g, more in zip(views, begun, strict=True)]
            totals.append(
                self._run(tile.arranged, tile.cut(out, 0), tile.cut(upstream, 0), *parts, None)
            )
            for g, part, more in zip(views, parts, begun, strict=True):
                if more:
                    g += part
        return sum(totals) if out is None else None

    def _run(self, a, out, upstream, grad_true, grad_pred, progress):
        options = self.options
        forms = tuple(map(FORMS.index, options.forms))
        return _core.run(
            a.true, a.pred, a.class_ndim, a.rows, a.weights.weight, a.weights.mask, out,
            options.epsilon, options.threads, upstream, grad_true, grad_pred, progress,
            options.operation, options.beta, options.scale, forms, options.temperature, options.smoothing,
            options.pseudocount, a.where,
        )  # fmt: skip

    def check_rows(self):
        if not self.sources:
            return check_rows(self.arranged, self.options.forms)
        for tile in tiles(self.arranged, self.sources, self.sources_at):
            check_rows(tile.arranged, self.options.forms, (self.sources_at, tile.first))

    def inputs(self):
        where, weights = self.arranged.where, self.arranged.weights
        beside = (where, weights.weight, weights.mask, *(x.data for x in self.sources.values()))
        return [x for x in (*self.given.values(), *beside) if x is not None]

    def mean(self, total):
        """The reduced value of the rows' sum; a mean over nothing is 0."""
        scale = self.arranged.weights.scale
        return self.dtype.type(total * scale / self.divisor if self.divisor else 0.0)


def prepare(y_true, y_pred, operation, given, called=""):
    """Everything between a call's arguments and the core."""
    defaults = operation.defaults() | DEFAULTS
    for name in given:
        if name not in defaults:
            raise TypeError(
                f"{operation.name}{called}() got an unexpected keyword argument {name!r}"
            )
    keywords = defaults | given
    options = Options.read(operation, keywords)
    axis, reduction = keywords["axis"], keywords["reduction"]
    check_validate(keywords["validate"])
    ignored = check_ignore_class(keywords["ignore_class"], options.forms)
    check_reduction(reduction)
    pred = _read_rows(y_pred, "y_pred")
    true = _read_rows(y_true, "y_true")
    where, mask = read_where(keywords["where"]), read_mask(keywords["mask"])
    if is_sequence(y_pred):
        pred = pred.astype(np.float64)
    if "labels" in options.forms:
        true, mask = _read_labels(true, pred, axis, mask, ignored, where, options.smoothing)
    elif is_sequence(y_true) and is_float(pred.dtype):
        true = cast(true, pred.dtype)  # a list follows y_pred's type, as in Keras
    elif not isinstance(y_true, _UNLABELLED) and not isinstance(y_pred, _UNLABELLED):
        ranks = [x.ndim for x in match_ranks(true, pred)]
        check_labels(y_true, y_pred, ranks, check_axes(axis, max(ranks)))
    check_dims(y_true if "labels" in options.forms else None, y_pred, (true, pred), keywords)
    weights = _read_weights(keywords["sample_weight"], mask, reduction)
    arranged = _arrange(true, pred, axis, weights, where)
    sources, sources_at = _read_sources(y_true, y_pred, axis, (true, pred))
    problem = Problem(
        given={"y_true": true, "y_pred": pred},
        axis=axis,
        arranged=arranged,
        dtype=result_dtype(true.dtype, pred.dtype),
        options=options,
        reduction=reduction,
        divisor=divisor(reduction, arranged.rows, arranged.weights, _core.sum_of_weights),
        sources=sources,
        sources_at=sources_at,
    )
    if keywords["validate"]:
        problem.check_rows()
    return problem


def _read_rows(x, name):
    return as_array(stand_in(x, name) if is_sparse(x) else x, name)


def _read_sources(y_true, y_pred, axis, arrays):
    given = {"true": y_true, "pred": y_pred}
    given = {name: x for name, x in given.items() if is_sparse(x)}
    if not given:
        return {}, 0
    ndim = max(x.ndim for x in match_ranks(*arrays))
    return {name: rows_of(x, f"y_{name}", axis, ndim) for name, x in given.items()}, ndim - 2


def read_where(where, read=as_array):
    """`read`: what makes an array of it, as of the others here."""
    if where is None:
        return None
    where = read(where, "where")
    if where.dtype.kind != "b":
        refuse("where", f"of dtype {where.dtype}", "bool: which elements there are")
    return where


def check_integers(labels):
    if labels.dtype.kind not in "iu":
        refuse("y_true", f"of dtype {labels.dtype}", "integers, each the label of a row")


def _read_labels(labels, pred, axis, mask, ignored, where, smoothing):
    """One for each row, with an axis of length 1 in the classes' place; and the mask, without the rows that are ignored."""
    check_integers(labels)
    check_smoothed(where, smoothing)
    labels, at = place_labels(labels, pred.shape, axis)
    mask = counting(labels, at, ignored, mask)
    shape = broadcast(labels.shape, pred.shape)
    if where is not None:
        check_where(where, shape)
    check_values(labels, at, mask, where, shape)
    return labels.astype(np.int64, copy=False), mask


def _arrange(true, pred, axis, weights, where=None):
    true, pred = match_ranks(true, pred)
    shape = broadcast_shape(true, pred)
    axes = check_axes(axis, len(shape))
    arrays = [true, pred]
    if where is not None:
        check_where(where, shape)
        arrays.append(where)
    arrays = [classes_last(x, len(shape), axes) for x in arrays]
    rows = tuple(n for i, n in enumerate(shape) if i not in axes)
    arrays, rows, weights = attach_weights(arrays, rows, weights)
    return Arranged(*arrays, *([None] if where is None else []), len(axes), rows, weights)


def _read_weights(sample_weight, mask, reduction):
    weight = None
    if sample_weight is not None:
        weight = as_array(sample_weight, "sample_weight")
        if not _is_wide(weight):
            weight = cast(weight, _FLOAT64)
    return weights_of(weight, mask, reduction, _scale_of_mask)


def read_mask(mask, read=as_array):
    if mask is None:
        return None
    mask = read(mask, "mask")
    if mask.dtype.kind not in "biu":
        refuse("mask", f"of dtype {mask.dtype}", "bool, or integers that are 0 where masked")
    return mask.astype(bool, copy=False)


def _is_wide(array):
    return array.dtype in (_FLOAT32, _FLOAT64) and array.flags.aligned


def _scale_of_mask(mask):
    valid = np.count_nonzero(mask)
    return mask.size / valid if valid else 0.0


# ---- values ----


def compute(problem, out=None, progress=None):
    """What the reduction makes of the rows. `progress`: as in Problem.run."""
    if is_none(problem.reduction):
        return _rows(problem, out, progress)
    if out is not None:
        raise ValueError(
            f"out is for reduction='none' alone, not for reduction={problem.reduction!r}"
        )
    return problem.mean(problem.run(progress=progress))


def _rows(problem, out, progress):
    """Every row's value, in a new array (a scalar for one row) or in `out`."""
    shape = problem.arranged.rows
    if out is not None:
        check_out(out, shape, problem.dtype)
    values = writable(out, problem.inputs(), lambda: np.empty(shape, problem.dtype))
    problem.run(values, progress=progress)
    return delivered(values, out)[()] if out is None else delivered(values, out)


def check_out(out, shape, dtype):
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out is of type {type(out).__name__}; expected a NumPy array")
    if out.dtype != dtype:
        raise TypeError(f"out has dtype {out.dtype}; expected {dtype}")
    if out.shape != shape:
        raise ValueError(f"out has shape {out.shape}; expected {shape}")
    if not out.flags.writeable:
        raise ValueError("out is read-only; expected an array that can be written to")


def writable(out, others, fresh):
    """Where the core writes: in what the caller gave, where it can, otherwise in a fresh array."""
    return fresh() if out is None or _in_the_way(out, others) else out


def _in_the_way(out, others):
    """Whether the core can't write there while it reads and writes the others."""
    repeats = any(n > 1 and step == 0 for n, step in zip(out.shape, out.strides, strict=True))
    return repeats or not out.flags.aligned or any(np.may_share_memory(out, x) for x in others)


def delivered(target, out):
    if out is None or out is target:
        return target
    out[...] = target
    return out


# ---- gradients ----


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


def _value_and_gradients(problem, wrt, names, upstream, out):
    """The value, or the rows, and a tuple of gradients: each in its place in `out`, if there is one."""
    factors = _factors(problem, upstream)
    outs = _read_outs(problem, wrt, names, out)
    rows_shape = problem.arranged.rows
    fresh = {name: lambda x=problem.given[name]: _like(x, problem.dtype) for name in names}
    if is_none(problem.reduction):
        fresh["rows"] = lambda: np.empty(rows_shape, problem.dtype)
    targets = {}
    for name, make in fresh.items():
        others = [x for other, x in outs.items() if other != name]
        targets[name] = writable(outs.get(name), [*problem.inputs(), factors, *others], make)
    total = problem.run(targets.get("rows"), factors, *_views(problem, targets))
    found = {name: delivered(target, outs.get(name)) for name, target in targets.items()}
    value = found["rows"] if total is None else problem.mean(total)
    return value if "rows" in outs else value[()], tuple(found[name] for name in names)


def _like(x, dtype):
    return np.empty_like(x, dtype=dtype, order="K", subok=False)


def _views(problem, targets):
    """Views of y_true's and y_pred's target, arranged as the two are; None where there is none."""
    both = problem.given | {name: x for name, x in targets.items() if name != "rows"}
    # What is not wanted stands in for its own gradient.
    views = _arrange(both["y_true"], both["y_pred"], problem.axis, problem.arranged.weights)
    pairs = zip(_ARGUMENTS, (views.true, views.pred), strict=True)
    return [view if name in targets else None for name, view in pairs]


def _read_outs(problem, wrt, names, out):
    """The arrays to write to, by name, "rows" among them where `out` is the pair of rows and gradients."""
    if out is None:
        return {}
    outs = {}
    if _is_pair(wrt, out):
        if not is_none(problem.reduction):
            raise ValueError(
                f"out is a pair of rows and gradient, which is for reduction='none' alone, not for "
                f"reduction={problem.reduction!r}"
            )
        outs["rows"], out = out
        check_out(outs["rows"], problem.arranged.rows, problem.dtype)
    given = (out,) if isinstance(wrt, str) else out
    if not isinstance(given, (tuple, list)) or len(given) != len(names):
        raise TypeError(
            f"out is of type {type(out).__name__}; expected a sequence of {len(names)} arrays, as wrt is one"
        )
    for name, array in zip(names, given, strict=True):
        check_out(array, problem.given[name].shape, problem.dtype)
    return outs | dict(zip(names, given, strict=True))


def _is_pair(wrt, out):
    """Whether `out` is what is returned: the rows, and the gradient or a sequence of gradients."""
    if not isinstance(out, (tuple, list)) or len(out) != 2:
        return False
    return isinstance(wrt, str) or isinstance(out[1], (tuple, list))


def _factors(problem, upstream):
    """What each row's gradients are multiplied by, beside the weights."""
    shape = problem.arranged.rows if is_none(problem.reduction) else ()
    check_in_memory(upstream, "upstream")
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
    if is_none(problem.reduction):
        return factors if _is_wide(factors) else factors.astype(np.float64)
    scale = problem.arranged.weights.scale
    return np.asarray(
        factors.astype(np.float64) * (scale / problem.divisor if problem.divisor else 0.0)
    )
