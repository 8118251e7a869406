"""What adapters make of the table: for each divergence a function of their library's arrays, documented as NumPy's is."""

import inspect

from kldiv_fast import _meaning
from kldiv_fast._operations import OPERATIONS, docstring

_DEFAULTS = {
    "axis": -1,
    "form": "probs",
    "epsilon": 1e-7,
    "temperature": 1.0,
    "base": None,
    "reduction": "mean",
    "sample_weight": None,
    "mask": None,
    "where": None,
    "pseudocount": 0.0,
}


def functions(module, compute, template):
    """By name, a public function of `module` for each divergence.

    It is ``compute(operation, y_true, y_pred, given)``, with `given` the keywords of the call that
    :func:`complete` makes whole.
    """
    return {row.name: _function(row, module, compute, template) for row in OPERATIONS}


def complete(operation, given):
    """The keywords of a call, with the defaults of those that it leaves out."""
    return _defaults(operation) | given


def settings_of(operation, keywords):
    """The part of a call's keywords that says what is to be computed, checked."""
    forms = _meaning.check_form(keywords["form"])
    if "labels" in forms:
        raise ValueError("form is 'labels', which only the functions of NumPy's arrays take")
    epsilon = _meaning.check_epsilon(keywords["epsilon"], forms)
    return _meaning.Settings(
        operation.name,
        epsilon if forms == _meaning.PROBS else None,
        _meaning.check_beta(keywords.get("beta", 0.5)),
        _meaning.scale_of_base(keywords["base"]),
        *forms,
        _meaning.check_temperature(keywords["temperature"], forms),
    )


def _defaults(operation):
    return operation.defaults() | _DEFAULTS


def _function(operation, module, compute, template):
    defaults = _defaults(operation)

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
