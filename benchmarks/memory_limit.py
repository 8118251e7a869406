"""The limit beside which kldiv_fast is judged: memory_limit.cpp, compiled for this machine and loaded."""

import ctypes
import functools
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

FUNCTIONS = {4: "read_float32", 8: "read_float64", 2: "read_16bit"}
WRITERS = {4: "write_float32", 8: "write_float64"}
REST = 0.01  # seconds before each turn of what is measured beside these loops, which are OpenMP's


@functools.cache
def _library():
    source = Path(__file__).with_name("memory_limit.cpp")
    folder = tempfile.mkdtemp(prefix="memory_limit_")
    target = os.path.join(folder, "memory_limit.so")
    flags = ["-std=c++17", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"]
    subprocess.run([os.environ.get("CXX", "c++"), *flags, str(source), "-o", target], check=True)
    library = ctypes.CDLL(target)
    for name in FUNCTIONS.values():
        function = getattr(library, name)
        function.restype = ctypes.c_double
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int]
    for name in WRITERS.values():
        function = getattr(library, name)
        function.restype = None
        function.argtypes = [*[ctypes.c_void_p] * 3, ctypes.c_int64, ctypes.c_int, ctypes.c_int]
    return library


def reader(a, b, threads):
    """A function that reads two contiguous arrays of one size once, and adds up what they hold."""
    assert a.flags.c_contiguous and b.flags.c_contiguous and a.nbytes == b.nbytes
    function = getattr(_library(), FUNCTIONS[a.dtype.itemsize])
    arguments = a.ctypes.data, b.ctypes.data, a.size, threads
    if a.dtype in (np.float32, np.float64):
        exact = float(a.sum(dtype=np.float64) + b.sum(dtype=np.float64))
        assert abs(function(*arguments) - exact) <= 1e-4 * abs(exact)
    return functools.partial(function, *arguments)


def writer(a, b, out, threads, streamed):
    """A function that reads two contiguous arrays of one size and writes their sum to a third."""
    assert a.flags.c_contiguous and b.flags.c_contiguous and out.flags.c_contiguous
    assert a.nbytes == b.nbytes == out.nbytes and a.nbytes % 16 == 0 and out.ctypes.data % 16 == 0
    function = getattr(_library(), WRITERS[a.dtype.itemsize])
    arguments = a.ctypes.data, b.ctypes.data, out.ctypes.data, a.size, threads, streamed
    function(*arguments)
    np.testing.assert_array_equal(out, a + b)
    return functools.partial(function, *arguments)
