"""The divergences of JAX arrays, to differentiate once and to transform.

On a CPU the core runs inside XLA's program, called through XLA's foreign function interface; on
other devices it is the same formula in ``jax.numpy``. Only this module imports JAX. :func:`rows` is
for the other adapters.
"""

import functools
import math

import numpy as np

from kldiv_fast import _adapters, _core, _formulas, _meaning
from kldiv_fast._arrays import BFLOAT16, as_array, is_float, is_sequence, refuse
from kldiv_fast._divergence import prepare
from kldiv_fast._labels import check_labels

try:
    import jax
    import jax.ffi
    import jax.numpy as jnp
except ImportError as error:
    raise ImportError("kldiv_fast.jax needs JAX: pip install 'kldiv_fast[jax]'") from error

_OPERANDS = ("y_true", "y_pred")  # what may be differentiated, in the order of every pair here

for _name, _handler in _core.xla_handlers().items():
    try:
        jax.ffi.register_ffi_target(_name, _handler, platform="cpu")
    except Exception as error:
        raise ImportError(
            f"kldiv_fast.jax can't be used with JAX {jax.__version__}, which refuses its "
            f"functions: {error}"
        ) from error


_TEMPLATE = """\
{title} of probability distributions, in nats, on JAX arrays.

What :func:`kldiv_fast.{name}` computes, with the same arguments, as a function that JAX can
differentiate and transform::

    t = clip(y_true, epsilon, 1)      p = clip(y_pred, epsilon, 1)
{formula}
    result = reduction over the rows of  sample_weight * row

    d row / d y_true = {by_true}
    d row / d y_pred = {by_pred}

Of other forms, t and p are what they stand for, unclipped; gradients are with respect to the
inputs all the same: see :func:`kldiv_fast.{name}_value_and_grad`.

Parameters
----------
y_true, y_pred : array_like, of shapes (..., classes) that broadcast
    The distributions: float16, bfloat16, float32 or float64, or integers or bools. A 0-d or 1-d
    input is one row.
{parameters}{shared}{labels}{validate}
Returns
-------
jax.Array
    Of no axes, or of the rows' shape with ``reduction="none"``. float64 where
    :func:`kldiv_fast.{name}` gives it and ``jax_enable_x64`` is set; otherwise float32, for float16
    and bfloat16 too. Gradients have the dtype of the input that they belong to.

Raises
------
ValueError
    If shapes do not broadcast, an argument has a value that is not in its range, or `validate` finds
    a row that is not of its form, or is True where an argument is a tracer: under ``jax.jit`` and
    ``jax.vmap``, and beside what ``jax.grad`` differentiates.
TypeError
    If an argument is of a type or dtype that is not among those above; from JAX, for forward-mode
    differentiation (``jax.jvp``, ``jax.jacfwd``, ``jax.hessian``).

Notes
-----
Under ``jax.jit`` all arguments but the arrays are static.

Where the clip is at work the gradient is 0. At its very bounds it is that of the inside, as in
TensorFlow and PyTorch; differentiating ``jnp.clip`` gives half of it there. A masked row, and one
whose cotangent is 0, has a gradient of 0, whatever it holds.

Derivatives are reverse-mode and first alone: asked for a second one, JAX raises a ValueError that
names ``kldiv_fast_grad_...``. -t/p can exceed float16's range.

On CPU devices the rows and their gradients are two calls of the core, with its accuracy and its
threads (:func:`kldiv_fast.set_num_threads`). They read what XLA holds without a copy, if the
classes lie along the last axis and nothing broadcasts; otherwise XLA makes one. Only gradients that
are asked for are computed. Ctrl-C ends a call that XLA runs on Python's main thread, as here
outside ``jax.jit``; where XLA runs it on a thread of its own JAX stops waiting, and the result is
finished all the same. On GPUs and TPUs ``jax.numpy`` computes the formula, with their rounding;
gradients there take a probability below e^-80 (e^-700 in float64), of logarithms or logits, for
that. Which of the two it is is decided when a program is lowered for its platform. Under
``jax.jit`` XLA gathers inputs that are sharded over several CPU devices; under ``jax.shard_map``
each device works on its own rows.

Rows are summed up by XLA, in float32 if that is their dtype.

Examples
--------
>>> import jax
>>> import jax.numpy as jnp
>>> import numpy as np
>>> from kldiv_fast.jax import {name}
>>> y_true = jnp.array([[0.0, 1.0], [0.0, 0.0]])
>>> y_pred = jnp.array([[0.6, 0.4], [0.4, 0.6]])
>>> print(f"{{{name}(y_true, y_pred):.6f}}")
{value}
>>> y_true = jnp.array([[0.0, 1.0], [0.5, 0.5]])
>>> y_pred = jnp.array([[0.5, 0.5], [0.25, 0.75]])
>>> gradient = jax.jit(jax.grad({name}, argnums=1))(y_true, y_pred)
>>> np.asarray(gradient).round(4)
{gradient}
"""


def _divergence(operation, y_true, y_pred, given):
    keywords = _adapters.complete(operation, given)
    reduction, sample_weight, mask = (
        keywords[name] for name in ("reduction", "sample_weight", "mask")
    )
    _meaning.check_reduction(reduction)
    settings = _adapters.settings_of(operation, keywords)
    if keywords["validate"]:
        _check_rows(operation, y_true, y_pred, keywords)
    true, pred = _as_arrays(y_true, y_pred, settings.forms)
    are_labels = settings.true_form == "labels"
    if are_labels:
        true, keywords, settings = _one_hot(true, pred, keywords, settings)
        pred, mask = pred.astype(true.dtype), keywords["mask"]
    true, pred = _meaning.match_ranks(true, pred)
    axes = _meaning.check_axes(keywords["axis"], max(true.ndim, pred.ndim))
    if not are_labels:
        check_labels(y_true, y_pred, (true.ndim, pred.ndim), axes)
    shape = _meaning.broadcast_shape(true, pred)
    true, pred = _present(
        (true, pred), shape, settings.forms, keywords["where"], keywords["pseudocount"]
    )
    true, pred = (_rows_by_classes(x, shape, axes) for x in (true, pred))
    values = rows(true, pred, settings)
    weights = _meaning.Weights()
    if sample_weight is not None or mask is not None:
        weights = _read_weights(sample_weight, mask, reduction, values.dtype)
        (values,), _, weights = _meaning.attach_weights([values], values.shape, weights)
    return _reduce(values, weights, reduction)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def rows(y_true, y_pred, settings):
    """Row values over the last axis, of two arrays of one shape and floating dtype.

    They are float64 for float64, else float32. Differentiable once, in reverse mode.
    """
    return _rows(y_true, y_pred, settings=settings)


# ---- rows and their gradients ----


def _forward(y_true, y_pred, settings):
    # JAX says which operands are differentiated. The answer has to be static, so it goes to
    # _backward in the structure of the residuals: as a dictionary's keys, with nothing behind them.
    operands = dict(zip(_OPERANDS, (y_true, y_pred), strict=True))
    wanted = {name: () for name, operand in operands.items() if operand.perturbed}
    y_true, y_pred = y_true.value, y_pred.value
    return rows(y_true, y_pred, settings), (y_true, y_pred, wanted)


def _backward(settings, residuals, upstream):
    y_true, y_pred, wanted = residuals
    if isinstance(upstream, jax.custom_derivatives.SymbolicZero) or not wanted:
        return None, None
    wanted = tuple(name for name in _OPERANDS if name in wanted)
    found = _gradients(y_true, y_pred, upstream, settings=settings, wanted=wanted)
    found = dict(zip(wanted, found, strict=True))
    return tuple(found.get(name) for name in _OPERANDS)


rows.defvjp(_forward, _backward, symbolic_zeros=True)


@functools.partial(jax.jit, static_argnames="settings")
def _rows(y_true, y_pred, *, settings):
    core = functools.partial(_core_rows, settings)
    formula = functools.partial(_formula_rows, settings)
    return jax.lax.platform_dependent(y_true, y_pred, cpu=core, default=formula)


@functools.partial(jax.jit, static_argnames=("settings", "wanted"))
def _gradients(y_true, y_pred, upstream, *, settings, wanted):
    core = functools.partial(_core_gradients, settings, wanted)
    formula = functools.partial(_formula_gradients, settings, wanted)
    found = jax.lax.platform_dependent(y_true, y_pred, upstream, cpu=core, default=formula)
    return [gradient.astype(y_true.dtype) for gradient in found]


def _core_rows(settings, y_true, y_pred):
    formula = functools.partial(_formula_rows, settings)
    return _call("kldiv_fast_rows", settings, formula, y_true, y_pred)


def _core_gradients(settings, wanted, *operands):
    name = "kldiv_fast_grad_" + ("both" if len(wanted) == 2 else wanted[0])
    formula = functools.partial(_formula_gradients, settings, wanted)
    return _call(name, settings, formula, *operands)


def _call(name, settings, formula, *operands):
    # The results have the formula's types, and what else JAX keeps with a type: where in a mesh
    # of devices it varies.
    results = jax.eval_shape(formula, *operands)
    # Rows are independent of each other: a batch of inputs is an input with more rows.
    call = jax.ffi.ffi_call(name, results, vmap_method="broadcast_all")
    numbers = {"beta": settings.beta, "scale": settings.scale, "temperature": settings.temperature}
    numbers["epsilon"] = -1.0 if settings.epsilon is None else settings.epsilon
    return call(
        *operands,
        operation=settings.operation,
        true_form=settings.true_form,
        pred_form=settings.pred_form,
        **{name: np.float64(number) for name, number in numbers.items()},
    )


def _formula_rows(settings, *operands):
    return _formulas.rows(jnp, settings, [_wide(x) for x in operands])


def _formula_gradients(settings, wanted, *operands):
    *inputs, upstream = (_wide(x) for x in operands)
    probs = _formulas.both_probabilities(jnp, settings, inputs)
    factor = upstream[..., jnp.newaxis]

    def gradient(form, x, t, slope):
        slope = _formulas.chained(jnp, form, x, t, slope, settings.temperature)
        beyond = settings.epsilon is not None and ((x < t) | (x > t))
        return jnp.where((factor == 0) | beyond, 0, factor * slope)

    slopes = _formulas.slopes(jnp, settings, *probs)
    found = map(gradient, settings.forms, inputs, probs, slopes)
    return [x for name, x in zip(_OPERANDS, found, strict=True) if name in wanted]


def _wide(x):
    return x.astype(jnp.float64 if x.dtype == jnp.float64 else jnp.float32)


# ---- arrays ----


def _as_array(x, name):
    """`x` as a JAX array of a dtype that :func:`kldiv_fast.kl` takes too."""
    x = _read(x, name)
    if jax.dtypes.canonicalize_dtype(x.dtype).itemsize < x.dtype.itemsize:
        x = x.astype(np.float32)  # JAX would make 32 bits of it, around which integers wrap
    return jnp.asarray(x)


def _read(x, name):
    """`x`, or a NumPy array of what is in it, of such a dtype."""
    if not isinstance(x, jax.Array):
        x = as_array(x, name)
        x = x.view(jnp.bfloat16) if x.dtype == BFLOAT16 else x
    dtype = x.dtype
    if not (dtype.kind in "biu" or dtype in _FLOATS):
        refuse(
            name,
            f"of dtype {dtype}",
            "float16, bfloat16, float32, float64, an integer type or bool: convert it with astype",
        )
    return x


_FLOATS = tuple(map(np.dtype, (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64)))


def _as_arrays(y_true, y_pred, forms):
    """Both, in the one dtype that the core reads them in; labels as they are."""
    labels = forms[0] == "labels"
    true = _read(y_true, "y_true") if labels else _as_array(y_true, "y_true")
    pred = _as_array(y_pred, "y_pred")
    if not is_float(pred.dtype):
        pred = pred.astype(jax.dtypes.canonicalize_dtype(jnp.float64))
    if labels:
        return true, pred
    if is_sequence(y_true):
        true = true.astype(pred.dtype)
    if true.dtype != pred.dtype:
        wide = _meaning.result_dtype(true.dtype, pred.dtype)
        true, pred = true.astype(wide), pred.astype(wide)
    return true, pred


def _check_rows(operation, y_true, y_pred, keywords):
    """``validate=True``, by NumPy's own code."""
    given = {"y_true": y_true, "y_pred": y_pred} | keywords
    if any(isinstance(x, jax.core.Tracer) for x in given.values()):
        raise ValueError(_adapters.UNKNOWN)
    given = {name: np.asarray(x) if isinstance(x, jax.Array) else x for name, x in given.items()}
    prepare(given.pop("y_true"), given.pop("y_pred"), operation, given)


def _one_hot(labels, pred, keywords, settings):
    """Labels as rows of probabilities."""
    if labels.dtype.kind not in "iu":
        refuse("y_true", f"of dtype {labels.dtype}", "integers, each the label of a row")
    dtype = pred.dtype if keywords["label_smoothing"] == 0 else _wide(pred).dtype
    if keywords["mask"] is not None:
        keywords = keywords | {"mask": _read_mask(keywords["mask"])}
    keywords = keywords | {"where": _read_where(keywords["where"])}

    def values_of(x):
        return None if isinstance(x, jax.core.Tracer) else np.asarray(x)

    return _adapters.one_hot(jnp, labels, pred, keywords, settings, dtype, values_of)


def _present(inputs, shape, forms, where, pseudocount):
    """Both inputs without what `where` leaves out, and with what is added to counts."""
    where = _read_where(where)
    if where is not None:
        _meaning.check_where(where, shape)
    if pseudocount != 0:  # which 16 bits would round away
        inputs = [_wide(x) for x in inputs]
    return [
        _formulas.present(jnp, form, x, where, pseudocount)
        for form, x in zip(forms, inputs, strict=True)
    ]


def _rows_by_classes(x, shape, axes):
    """`x` broadcast to `shape`, its class axes made one and moved to the end."""
    x = _meaning.classes_last(jnp.broadcast_to(x, shape), len(shape), axes)
    batch = x.shape[: len(shape) - len(axes)]
    return x.reshape(*batch, math.prod(x.shape[len(batch) :]))


# ---- weights, masks, reductions ----


def _read_weights(sample_weight, mask, reduction, dtype):
    weight = None
    if sample_weight is not None:
        weight = _as_array(sample_weight, "sample_weight").astype(dtype)
    if mask is not None:
        mask = _read_mask(mask)

    def scale(mask):
        return _divide(jnp.asarray(mask.size, dtype), jnp.count_nonzero(mask).astype(dtype))

    return _meaning.weights_of(weight, mask, reduction, scale)


def _read_where(where):
    if where is None:
        return None
    where = jnp.asarray(_read(where, "where"))
    if where.dtype != bool:
        refuse("where", f"of dtype {where.dtype}", "bool: which elements there are")
    return where


def _read_mask(mask):
    mask = _read(mask, "mask")
    if mask.dtype.kind not in "biu":
        refuse("mask", f"of dtype {mask.dtype}", "bool, or integers that are 0 where masked")
    return jnp.asarray(mask.astype(bool))


def _reduce(values, weights, reduction):
    weight = weights.weight
    if weights.mask is not None:
        values = jnp.where(weights.mask, values, 0)
        ones = jnp.ones((), values.dtype)
        weight = jnp.where(weights.mask, ones if weight is None else weight, 0)
    if weight is not None:
        values = values * weight
    if _meaning.is_none(reduction):
        return values
    total = values.sum() * weights.scale
    if reduction == "sum":
        return total
    if reduction == "mean_with_sample_weight" and values.ndim and weight is not None:
        return _divide(total, weight.sum())
    count = values.shape[:1] if reduction == "batchmean" else values.shape
    return total / max(1, math.prod(count))


def _divide(total, divisor):
    """Their quotient; 0 over 0, with a gradient of 0."""
    return jnp.where(divisor == 0, 0, total / jnp.where(divisor == 0, 1, divisor))


# ---- a function for each row of the table ----

_functions = _adapters.functions(__name__, _divergence, _TEMPLATE)
globals().update(_functions)

__all__ = [*_functions]  # noqa: PLE0604
