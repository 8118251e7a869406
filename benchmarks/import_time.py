"""Milliseconds that `import kldiv_fast` takes beyond NumPy's own import: python benchmarks/import_time.py [--rounds N]

Target: at most 10 ms. Each import is in a process of its own; the median counts.
"""

import argparse
import statistics
import subprocess
import sys

TARGET = 10  # ms
CODE = """
from time import perf_counter
start = perf_counter()
import numpy
middle = perf_counter()
import kldiv_fast
print(middle - start, perf_counter() - middle)
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    rounds = parser.parse_args().rounds
    runs = [subprocess.check_output([sys.executable, "-c", CODE], text=True) for _ in range(rounds)]
    numpy, ours = (1e3 * statistics.median(float(run.split()[i]) for run in runs) for i in range(2))
    verdict = "met" if ours <= TARGET else "missed"
    print(f"numpy {numpy:.1f} ms, kldiv_fast beyond it {ours:.1f} ms; at most {TARGET}: {verdict}.")


if __name__ == "__main__":
    main()
