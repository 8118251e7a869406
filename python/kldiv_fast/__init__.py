"""Divergences of rows, with the meaning of ``keras.losses.KLDivergence`` and SciPy, on NumPy arrays."""

from kldiv_fast import _operations, _runtime
from kldiv_fast._core import __version__ as __version__
from kldiv_fast._runtime import (
    available_isas,
    current_isa,
    get_executor,
    get_num_threads,
    set_executor,
    set_num_threads,
    show_runtime,
)

# kl, kl_value_and_grad and so on, for every row of the table.
_functions = _operations.functions()
globals().update(_functions)

__all__ = [  # noqa: PLE0604
    "available_isas",
    "current_isa",
    "get_executor",
    "get_num_threads",
    "set_executor",
    "set_num_threads",
    "show_runtime",
    *_functions,
]

_runtime.choose_from_environment()
