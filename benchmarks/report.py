"""All peers on all shapes, in turn, so that the machine's drift meets them alike: one Markdown table of medians.

python benchmarks/report.py [--seconds 2] [--output FILE.md]
"""

import argparse
import os
import platform
import statistics
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from peers import PEERS, SHAPES, agree, make_pair, reference
from tqdm import tqdm

PACKAGES = ["kldiv_fast", "numpy", "scipy", "tensorflow-cpu", "keras", "torch", "jax", "numba"]
PACKAGES += ["numexpr", "numkong"]


def prepare(shape, skipped):
    """The peers that are there and agree, ready to be timed."""
    y_true, y_pred = make_pair(shape)
    exact = reference(y_true, y_pred)
    functions = {}
    for name, make in PEERS.items():
        try:
            function = make(y_true, y_pred)
        except (ImportError, ValueError) as error:
            skipped.add(f"{name} at {shape[0]}x{shape[1]}: {error}")
            continue
        value = float(function())
        if not agree(name, value, exact):
            sys.exit(f"{name} gives {value} at {shape}, expected {exact}")
        functions[name] = function
    return functions


def interleaved_medians(functions, seconds):
    """Median seconds of a call, from rounds in which every function has its turn."""
    times = {name: [] for name in functions}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["kldiv_fast"]) < 7:
        for name, function in functions.items():
            function()  # brings the inputs back to where this peer would have left them
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def processor():
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


def versions():
    for name in PACKAGES:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            continue


def table(results):
    yield "| us per call | " + " | ".join(f"{a}x{b}" for a, b in results) + " |"
    yield "| --- |" + " ---: |" * len(results)
    for name in PEERS:
        cells = []
        for medians in results.values():
            ours = medians["kldiv_fast"]
            cells.append(
                f"{medians[name] * 1e6:.3g} ({medians[name] / ours:.1f}x)"
                if name in medians
                else "-"
            )
        yield f"| {name} | " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2, help="for each shape (default: 2)")
    parser.add_argument("--output", type=Path, help="default: standard output")
    options = parser.parse_args()
    results, skipped = {}, set()
    for shape in tqdm(SHAPES, unit="shape"):
        results[shape] = interleaved_medians(prepare(shape, skipped), options.seconds)
    lines = [
        f"{processor()}, {os.cpu_count()} cores; {', '.join(versions())}.",
        "",
        *table(results),
    ]
    lines += ["", *(f"Left out: {what}." for what in sorted(skipped))]
    text = "\n".join(lines) + "\n"
    if options.output:
        options.output.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
