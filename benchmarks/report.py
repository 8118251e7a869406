"""kldiv_fast beside its peers and beside the machine's limit: measured into benchmarks/results/, from which pages are made.

python benchmarks/report.py [--seconds 2] [--only SECTION ...] [--output FOLDER]

sections/ says what is measured and page.py what is made of it: docs/speed.md, its plots, GOALS.md, and the first table of
README.md and docs/index.md. With --only, the other sections' results stay as they are.
"""

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import kldiv_fast
import page
import results
from sections import SECTIONS
from timing import machine

PACKAGES = ["kldiv_fast", "numpy", "scipy", "tensorflow-cpu", "keras", "torch", "jax", "numba"]
PACKAGES += ["numexpr", "numkong"]


def measured(name, seconds):
    """The section's data, from a process of its own: no section has another's frameworks, nor their threads, beside it."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as one:
        return one.submit(SECTIONS[name].measure, seconds).result()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2, help="for each shape (default: 2)")
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="sections (default: all)"
    )
    parser.add_argument(
        "--output", type=Path, help="folder of all that is written (default: the repository's own)"
    )
    options = parser.parse_args()
    folder = options.output / "results" if options.output else results.FOLDER
    for name in options.only:
        data = measured(name, options.seconds)
        results.update(kldiv_fast.current_isa(), name, machine(PACKAGES), data, folder)
    if options.output:
        page.write(results.read(folder), options.output, options.output / "GOALS.md")
    else:
        page.write_all()


if __name__ == "__main__":
    main()
