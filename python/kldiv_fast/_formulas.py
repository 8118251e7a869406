"""The table's formulas, computed by a library's own operations: where the core can't be, and for derivatives of derivatives.

``xp`` is a module with NumPy's names: ``numpy``, ``jax.numpy``, ``torch``, or what stands for one. The rules beside zeros are the core's for every
operation: 0 log 0 is 0, a negative makes the term infinite, and NaN goes through.
"""

import functools
import math

from kldiv_fast._meaning import LOGS
from kldiv_fast._operations import ENTRIES

_NORMALISED = ("counts", "logits")  # forms whose rows are made to sum to 1


def rows(xp, settings, inputs):
    """Each row's divergence along the last axis, of two inputs of one shape and one of the wider dtypes."""
    probs = both_probabilities(xp, settings, inputs)
    found = terms(xp, settings, *probs)
    if settings.epsilon is None:
        found = found + lacking(xp, settings, inputs, probs)
    return xp.sum(found, axis=-1)


def gradients(xp, settings, upstream, inputs, constant):
    """The rows' gradients, times each row's `upstream`, by formulas that a library can differentiate further.

    ``constant(x)`` is `x`, cut off from what it was computed from.
    """
    factor = upstream[..., None]
    probs = both_probabilities(xp, settings, inputs)
    found = _differentiable_slopes(xp, settings, *probs, factor != 0, constant)

    def gradient(form, x, t, slope):
        slope = chained(xp, form, x, t, slope, settings.temperature)
        if settings.epsilon is not None:
            slope = xp.where((x < settings.epsilon) | (x > 1), 0, slope)
        return factor * slope

    return list(map(gradient, settings.forms, inputs, probs, found))


def _differentiable_slopes(xp, settings, t, p, counts, constant):
    """The terms' slopes by probabilities, as functions of them that can be differentiated, where a row counts."""
    at_zero = [constant(x) for x in slopes(xp, settings, t, p)]
    at_zero = [xp.where(xp.isnan(x), 0, x) for x in at_zero]
    # Elsewhere gradients are 0 or don't vary; 1 in the place of t and p keeps NaN out of all further derivatives.
    varies = ((t > 0) & (p > 0)) | ((xp.isnan(t) | xp.isnan(p)) & counts)
    t, p = xp.where(varies, t, 1), xp.where(varies, p, 1)
    found = inner_slopes(xp, settings, t, p)
    return [xp.where(varies, slope, fixed) for slope, fixed in zip(found, at_zero, strict=True)]


def terms(xp, settings, t, p):
    """What each element adds to its row, of clipped inputs (or of any, without a clip)."""
    found = _term(settings, t, p, xp.log)
    has_zero = ((t == 0) | (p == 0)) & xp.isnan(found)
    found = xp.where(has_zero, _term(settings, t, p, lambda x: _bounded_log(xp, x)), found)
    found = xp.where((t == 0) & (p == 0), 0, found)
    found = xp.where((t < 0) | (p < 0), xp.inf, found)
    return settings.scale * xp.where(xp.isnan(t) | xp.isnan(p), xp.nan, found)


def slopes(xp, settings, t, p):
    """The terms' derivatives by t and by p: 0 where the term doesn't vary or is infinite."""
    pairs = ((t, p), (p, t))
    found = inner_slopes(xp, settings, t, p)
    return [_slope(xp, x, other, slope) for (x, other), slope in zip(pairs, found, strict=True)]


def inner_slopes(xp, settings, t, p):
    """The same of positive t and p: the formulas as they stand, which a library can differentiate further."""
    name, swapped = _resolve(settings)
    expressions = ENTRIES[name].slopes
    if swapped:
        by_p, by_t = _evaluate(name, expressions, p, t, settings.beta, xp.log)
    else:
        by_t, by_p = _evaluate(name, expressions, t, p, settings.beta, xp.log)
    return settings.scale * by_t, settings.scale * by_p


def _term(settings, t, p, log):
    name, swapped = _resolve(settings)
    t, p = (p, t) if swapped else (t, p)
    return _evaluate(name, [ENTRIES[name].term], t, p, settings.beta, log)[0]


def _bounded_log(xp, x):
    """Finite, so that 0 times it is 0."""
    tiny = float(xp.finfo(x.dtype).tiny)
    return xp.log(xp.clip(xp.where(xp.isnan(x), 1, x), tiny, 1 / tiny))


def _slope(xp, x, other, slope):
    varies = (x > 0) & ((other > 0) | ((other == 0) & (abs(slope) < xp.inf)))
    return xp.where(xp.isnan(x) | xp.isnan(other), xp.nan, xp.where(varies, slope, 0))


# ---- other forms than probabilities ----


def present(xp, form, x, where, pseudocount):
    """The elements that `where` (or None: all) says are there; others are a probability of 0 in both inputs, which adds 0."""
    if form == "counts" and pseudocount != 0:
        x = x + pseudocount
    return x if where is None else xp.where(where, x, -xp.inf if form in LOGS else 0)


def one_hot(xp, labels, shape, axes, smoothing, dtype, where):
    """Along `axes` of a shape, where `labels` have one element, the classes' probabilities; NaN of a label that is none there."""
    lengths = [n if i in axes else 1 for i, n in enumerate(shape)]
    classes = math.prod(lengths)
    numbers = xp.arange(classes).reshape(lengths)
    cold = smoothing / classes
    hot, cold, nan = (xp.asarray(x, dtype=dtype) for x in (1 - smoothing + cold, cold, xp.nan))
    is_label, is_hot = (labels >= 0) & (labels < classes), labels == numbers
    if where is not None:
        is_label = is_label & ((is_hot & ~where).sum(axis=axes, keepdims=True) == 0)
    return xp.where(is_label, xp.where(is_hot, hot, cold), nan)


def both_probabilities(xp, settings, inputs):
    """Both sides', clipped if they are probabilities."""
    if settings.epsilon is not None:
        return [xp.clip(x, settings.epsilon, 1) for x in inputs]
    return [
        probabilities(xp, form, x, settings.temperature)
        for form, x in zip(settings.forms, inputs, strict=True)
    ]


def probabilities(xp, form, x, temperature):
    """What the numbers of rows stand for, unclipped. Exponentials end at the core's floor: see :func:`lacking`."""
    if form == "counts":
        return x / xp.sum(x, axis=-1, keepdims=True)
    if form not in LOGS:
        return x
    x = _exponents(xp, form, x, temperature)
    t = xp.exp(xp.where(x > -xp.inf, xp.clip(x, _floor(xp, x), xp.inf), x))
    return t / xp.sum(t, axis=-1, keepdims=True) if form == "logits" else t


def lacking(xp, settings, inputs, probs):
    """What each term lacks where an exponential ends at the floor: log t goes on, and the term with it as its slope says."""
    found = 0
    by_probs = slopes(xp, settings, *probs)
    for form, x, t, slope in zip(settings.forms, inputs, probs, by_probs, strict=True):
        if form in LOGS:
            beyond = _exponents(xp, form, x, settings.temperature) - _floor(xp, x)
            ends = (beyond < 0) & (beyond > -xp.inf)
            found = found + xp.where(ends, t * slope * beyond, 0)
    return found


def _exponents(xp, form, x, temperature):
    """Logarithms of probabilities, those of logits but for what makes them sum to 1."""
    if form == "logits":
        x = x / temperature
        x = x - xp.amax(x, axis=-1, keepdims=True)
    return x


def _floor(xp, x):
    """The core's: far enough above the format's range that quotients by its exponential, and by parts of it, stay inside."""
    return -80 if xp.finfo(x.dtype).bits == 32 else -700


def chained(xp, form, x, t, slope, temperature):
    """The derivative by x, from that by the probabilities t that it stands for."""
    if form == "log_probs":
        return t * slope
    if form not in _NORMALISED:
        return slope
    slope = slope - xp.sum(t * slope, axis=-1, keepdims=True)
    if form == "counts":
        return slope / xp.sum(x, axis=-1, keepdims=True)
    return t * slope / temperature


# ---- the table's expressions ----


def _resolve(settings):
    """The operation whose formula is meant, and whether with the arguments swapped."""
    name, swapped = settings.operation, False
    for at, limit, limit_swapped in ENTRIES[name].limits:
        if settings.beta == at:
            name, swapped = limit, limit_swapped
    if name == "kl" and set(settings.forms) <= set(_NORMALISED):
        name = "generalized_kl"  # as in the core: the same sums, of terms that don't cancel
    return name, swapped


def _evaluate(name, expressions, t, p, beta, log):
    names = {"t": t, "p": p, "beta": beta, "log": log}
    for defined, meaning in ENTRIES[name].definitions:
        names[defined] = eval(_compiled(meaning), names)
    return [eval(_compiled(expression), names) for expression in expressions]


@functools.cache
def _compiled(expression):
    return compile(expression, "the table of divergences", "eval")
