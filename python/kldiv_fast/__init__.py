"""Kullback-Leibler divergence with the meaning of ``keras.losses.KLDivergence``, on NumPy arrays."""

from kldiv_fast import _core, _kl, _runtime
from kldiv_fast._core import __version__ as __version__
from kldiv_fast._gradient import kl_value_and_grad
from kldiv_fast._kl import get_num_threads, set_num_threads
from kldiv_fast._runtime import (
    available_isas,
    current_isa,
    get_executor,
    set_executor,
    show_runtime,
)

__all__ = [
    "available_isas",
    "current_isa",
    "get_executor",
    "get_num_threads",
    "kl",
    "kl_value_and_grad",
    "set_executor",
    "set_num_threads",
    "show_runtime",
]

kl = _core.with_fast_path(_kl.kl, _kl.DOC)

_runtime.choose_from_environment()
