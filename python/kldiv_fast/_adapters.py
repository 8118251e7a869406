"""What adapters make of the table: for each divergence a function of their library's arrays, documented as NumPy's is."""

import inspect

from kldiv_fast import _formulas, _meaning
from kldiv_fast._divergence import DEFAULTS
from kldiv_fast._operations import OPERATIONS, docstring

# NumPy's keywords, but those of its functions alone.
_DEFAULTS = {name: x for name, x in DEFAULTS.items() if name != "num_threads"}

UNKNOWN = (
    "validate is True where values are not known (compiled code, a transformation, a lazy array, a tensor without any); expected False "
    "there: validate the inputs before"
)


def functions(module, compute, template, **more):
    """By name, a public function of `module` for each divergence.

    It is ``compute(operation, y_true, y_pred, given)``, with `given` the keywords of the call that
    :func:`complete` makes whole. `more`: keywords beyond those that all adapters have, with their defaults.
    """
    return {row.name: _function(row, module, compute, template, more) for row in OPERATIONS}


def complete(operation, given):
    """The keywords of a call, with the defaults of those that it leaves out."""
    return _defaults(operation) | given


def settings_of(operation, keywords):
    """The part of a call's keywords that says what is to be computed, checked."""
    forms = _meaning.check_form(keywords["form"])
    _meaning.check_pseudocount(keywords["pseudocount"], forms)
    _meaning.check_ignore_class(keywords["ignore_class"], forms)
    _meaning.check_smoothing(keywords["label_smoothing"], forms)
    _meaning.check_validate(keywords["validate"])
    epsilon = _meaning.check_epsilon(keywords["epsilon"], forms)
    return _meaning.Settings(
        operation.name,
        epsilon if set(forms) <= {"probs", "labels"} else None,
        _meaning.check_beta(keywords.get("beta", 0.5)),
        _meaning.scale_of_base(keywords["base"]),
        *forms,
        _meaning.check_temperature(keywords["temperature"], forms),
    )


def one_hot(xp, labels, pred, keywords, settings, dtype, values_of):
    """Labels as rows of probabilities beside `pred`, of a dtype; the keywords and settings that are then meant.

    ``values_of(x)`` is a NumPy array of what is in `x`, or None where nobody knows yet: a label that is no class, or one that
    ``where`` leaves out, is an error or, there, a row of NaN. The keywords' arrays are the library's.
    """
    ignored = _meaning.check_ignore_class(keywords["ignore_class"], settings.forms)
    smoothing = _meaning.check_smoothing(keywords["label_smoothing"], settings.forms)
    _meaning.check_smoothed(keywords["where"], smoothing)
    labels, at = _meaning.place_labels(labels, pred.shape, keywords["axis"])
    mask = _meaning.counting(labels, at, ignored, keywords["mask"])
    where, shape = keywords["where"], _meaning.broadcast(tuple(labels.shape), tuple(pred.shape))
    if where is not None:
        _meaning.check_where(where, shape)
    known, *beside = [None if x is None else values_of(x) for x in (labels, mask, where)]
    if known is not None:
        _meaning.check_values(known, at, *beside, shape)
    rows = _formulas.one_hot(xp, labels, pred.shape, at, smoothing, dtype, where)
    return rows, keywords | {"mask": mask}, settings._replace(true_form="probs")


def _defaults(operation):
    return operation.defaults() | _DEFAULTS


def _function(operation, module, compute, template, more):
    defaults = _defaults(operation) | more

    def divergence(y_true, y_pred, **given):
        for name in given:
            if name not in defaults:
                raise TypeError(f"{operation.name}() got an unexpected keyword argument {name!r}")
        return compute(operation, y_true, y_pred, given)

    divergence.__name__ = divergence.__qualname__ = operation.name
    divergence.__module__ = module
    divergence.__doc__ = docstring(template, operation)
    divergence.__signature__ = _signature(defaults)
    return divergence


def _signature(defaults):
    kind = inspect.Parameter
    inputs = [kind(name, kind.POSITIONAL_OR_KEYWORD) for name in ("y_true", "y_pred")]
    keywords = [kind(name, kind.KEYWORD_ONLY, default=value) for name, value in defaults.items()]
    return inspect.Signature(inputs + keywords)
