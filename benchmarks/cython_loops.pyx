# cython: language_level=3, boundscheck=False, wraparound=False
"""The loop that benchmarks/cython_calls.py times: calls of the Cython face, and the same sum written in place."""

from libc.math cimport logf

from kldiv_fast.cython_api cimport kl_row_float32


def calls(const float[::1] t, const float[::1] p, int repeats):
    """The sum over `repeats` calls, so that none can be left out."""
    cdef double total = 0
    cdef float value = 0
    cdef int i, status = 0
    with nogil:
        for i in range(repeats):
            status |= kl_row_float32(&t[0], &p[0], t.shape[0], 1e-7, 1, &value)
            total += value
    if status != 0:
        raise RuntimeError(f"status {status}")
    return total


def loops(const float[::1] t, const float[::1] p, int repeats):
    """What a caller would write without the package: logf, an element at a time."""
    cdef double total = 0
    cdef float value, a, b
    cdef int i
    cdef Py_ssize_t k
    with nogil:
        for i in range(repeats):
            value = 0
            for k in range(t.shape[0]):
                a = min(max(t[k], <float>1e-7), <float>1)
                b = min(max(p[k], <float>1e-7), <float>1)
                value += a * logf(a / b)
            total += value
    return total
