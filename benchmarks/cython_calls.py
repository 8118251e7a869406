"""Nanoseconds of a call of the Cython face, by the length of the row: python benchmarks/cython_calls.py [--seconds S]

Target: a row of 10 elements in at most 30 ns. Needs Cython and a C compiler.
"""

import argparse
import importlib
import sys
import tempfile
from functools import partial
from pathlib import Path

import kldiv_fast
import numpy as np
from Cython.Build import cythonize
from setuptools import Distribution, Extension
from timing import interleaved_medians, machine

HERE = Path(__file__).parent
LENGTHS = (1, 10, 46, 100, 1000, 10_000)
TARGET = 30e-9  # seconds, for a row of 10
REPEATS = 1000


def build(folder):
    """The compiled module of cython_loops.pyx."""
    source = Extension("cython_loops", [str(HERE / "cython_loops.pyx")], extra_compile_args=["-O3"])
    extensions = cythonize([source], build_dir=folder, quiet=True)
    distribution = Distribution({"name": "cython_loops", "ext_modules": extensions})
    command = distribution.get_command_obj("build_ext")
    command.build_lib, command.build_temp = folder, folder
    command.ensure_finalized()
    command.run()
    sys.path.insert(0, folder)
    return importlib.import_module("cython_loops")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1, help="for each length (default: 1)")
    seconds = parser.parse_args().seconds
    rng = np.random.default_rng(20261124)
    print(machine(["kldiv_fast", "cython"]) + f"; {kldiv_fast.current_isa()}")
    print("| elements | kl_row_float32, ns | logf in a loop, ns | kldiv_fast.kl, ns |")
    print("| ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        module = build(folder)
        for n in LENGTHS:
            t, p = (rng.random(n, np.float32) + np.float32(0.01) for _ in range(2))
            expected = float(kldiv_fast.kl(t, p))
            np.testing.assert_allclose(module.calls(t, p, 3) / 3, expected, rtol=1e-6)
            np.testing.assert_allclose(module.loops(t, p, 3) / 3, expected, rtol=1e-3)
            times = interleaved_medians(
                {
                    "call": partial(module.calls, t, p, REPEATS),
                    "loop": partial(module.loops, t, p, REPEATS),
                    "python": partial(kldiv_fast.kl, t, p),
                },
                seconds,
            )
            call, loop = times["call"] / REPEATS, times["loop"] / REPEATS
            python = times["python"]
            print(f"| {n} | {call * 1e9:.1f} | {loop * 1e9:.1f} | {python * 1e9:.0f} |", flush=True)
            if n == 10:
                verdict = "met" if call <= TARGET else "missed"
    print(f"\nA row of 10 in at most {TARGET * 1e9:.0f} ns: {verdict}.")


if __name__ == "__main__":
    main()
