"""Kullback-Leibler divergence with the meaning of ``keras.losses.KLDivergence``, on NumPy arrays."""

import os as _os

from kldiv_fast import _core, _kl
from kldiv_fast._core import __version__ as __version__
from kldiv_fast._gradient import kl_value_and_grad
from kldiv_fast._kl import get_num_threads, set_num_threads
from kldiv_fast._runtime import available_isas, current_isa, show_runtime

__all__ = [
    "available_isas",
    "current_isa",
    "get_num_threads",
    "kl",
    "kl_value_and_grad",
    "set_num_threads",
    "show_runtime",
]

kl = _core.with_fast_path(_kl.kl, _kl.DOC)


def _force_isa(name: str) -> None:
    if not _core.select_isa(name):
        raise ImportError(
            f"KLDIV_FAST_ISA is {name!r}, which this machine can't run; "
            f"expected one of: {', '.join(available_isas())}"
        )


if _os.environ.get("KLDIV_FAST_ISA"):
    _force_isa(_os.environ["KLDIV_FAST_ISA"])
