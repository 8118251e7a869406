"""The functions of ``cython_api.pxd`` for compiled code: ``from kldiv_fast.cython_api cimport kl_row_float32``.

They are those of the Python module, with the same ISA and the same threads. ``cython_api.pxd``, beside this file,
documents them; Numba (``numba.extending.get_cython_function_address``) and SciPy (``LowLevelCallable.from_cython``)
find them here too.
"""

from kldiv_fast._core import __pyx_capi__

__all__ = ["__pyx_capi__"]
