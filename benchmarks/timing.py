"""How everything here is timed: in turn, so that a shared machine's drift meets all alike; medians and ratios."""

import os
import platform
import statistics
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

SAMPLE = 20e-6  # seconds; calls shorter than this are timed in batches
LEAST_ROUNDS = 7


def _calls_per_sample(function):
    start = time.perf_counter()
    function()
    once = time.perf_counter() - start
    return max(1, int(SAMPLE / max(once, 1e-9)))


def interleaved_medians(functions, seconds, rest=0):
    """Median seconds of a call of each, from rounds in which every function has its turn.

    `rest`: seconds before each turn. An OpenMP team that was measured goes on spinning for milliseconds, on the cores of
    whatever is measured next.
    """
    for function in functions.values():
        function()
    calls = {name: _calls_per_sample(function) for name, function in functions.items()}
    times = {name: [] for name in functions}
    end = time.perf_counter() + seconds
    rounds = 0
    while time.perf_counter() < end or rounds < LEAST_ROUNDS:
        rounds += 1
        for name, function in functions.items():
            time.sleep(rest)
            function()  # brings the inputs back to where this one would have left them
            start = time.perf_counter()
            for _ in range(calls[name]):
                function()
            times[name].append((time.perf_counter() - start) / calls[name])
    return {name: statistics.median(values) for name, values in times.items()}


def processor():
    """The processor's name, its vector extensions being what matters most."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    fields = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    name = fields.get("model name", platform.processor())
    if "cpu family" in fields:
        name += f" (family {fields['cpu family']}, model {fields['model']})"
    return name


def machine(packages):
    """One line: processor, cores, versions."""
    found = []
    for name in packages:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return (
        f"{processor()}, {os.cpu_count()} cores; Python {platform.python_version()}, "
        + ", ".join(found)
    )
