"""How everything here is timed: in turn, so that a shared machine's drift meets all alike; medians and ratios."""

import math
import os
import platform
import statistics
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

SAMPLE = 20e-6  # seconds; calls shorter than this are timed in batches
CALIBRATION = 100e-6  # seconds, in which a call that is to be batched is timed
LEAST_ROUNDS = 7
ATTEMPTS = 3  # at a set of functions whose rounds were disturbed
STEADY = 1.5  # at most so many times the lower quartile is an undisturbed upper one


def _calls_per_sample(function):
    """By the fastest of some calls: the first ones after another function's turn may take several times as long."""
    fastest, end = math.inf, time.perf_counter() + CALIBRATION
    while time.perf_counter() < end or fastest == math.inf:
        start = time.perf_counter()
        function()
        fastest = min(fastest, time.perf_counter() - start)
    return max(1, int(SAMPLE / max(fastest, 1e-9)))


def quartiles(times):
    """[median, lower quartile, upper quartile], to six digits: what is kept of a call's times."""
    lower, median, upper = statistics.quantiles(times, n=4, method="inclusive")
    return [float(f"{value:.6g}") for value in (median, lower, upper)]


def _rounds(functions, seconds, rest):
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
    return {name: quartiles(values) for name, values in times.items()}


def disturbed(found, limits):
    """Whether other programs had the cores: a call's quartiles are far apart, or a limit is above what reads as much."""
    unsteady = any(upper > STEADY * lower for _, lower, upper in found.values())
    return unsteady or any(found[limit][0] > found[call][0] for limit, call in limits.items())


def interleaved(functions, seconds, rest=0, limits=None, attempts=ATTEMPTS):
    """The quartiles of a call of each, in seconds, from rounds in which every function has its turn.

    Disturbed rounds are measured again, all functions' together; if the last attempt is disturbed too, the one whose
    medians add up to the least is taken. `limits`: by the name of a loop that only reads, that of a call that reads as
    much. `rest`: seconds before each turn. An OpenMP team that was measured goes on spinning for milliseconds, on the
    cores of whatever is measured next.
    """
    found = []
    for _ in range(attempts if seconds else 1):
        found.append(_rounds(functions, seconds, rest))
        if not disturbed(found[-1], limits or {}):
            return found[-1]
    return min(found, key=lambda times: sum(median for median, _, _ in times.values()))


def interleaved_medians(functions, seconds, rest=0):
    """The medians alone."""
    return {name: median for name, (median, _, _) in interleaved(functions, seconds, rest).items()}


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
