"""kl beside the peers of peers.py, on shapes from 2x2 to 64x151936."""

import math
import sys

from memory_limit import REST
from peers import PEERS, SHAPES, agree, make_pair, reference
from tables import at_least, at_most_us, label, table, us_faster
from timing import interleaved

TITLE = "Beside the peers"
PLOT, PLOT_SHOWS = "latency", "Microseconds to one mean beside the peers"
THREADED = (
    2**17
)  # elements; from here on peers have threads, which spin on in their neighbours' turns
LEAST_RATIO = {
    "Keras eager, tensors in": 15,
    "tf.function": 9,
    "tf.function, XLA": 6,
    "torch.compile": 6,
    "JAX jit": 8,
    "numba": 6,
    "NumPy": 5,
}


def prepare(shape, left_out):
    """The peers that are there and agree, ready to be timed."""
    y_true, y_pred = make_pair(shape)
    exact = reference(y_true, y_pred)
    functions = {}
    for name, make in PEERS.items():
        try:
            function = make(y_true, y_pred)
        except (ImportError, ValueError) as error:
            left_out.add(f"{name} at {label(shape)}: {error}")
            continue
        value = float(function())
        if not agree(name, value, exact):
            sys.exit(f"{name} gives {value} at {shape}, expected {exact}")
        functions[name] = function
    return functions


def measure(seconds):
    from tqdm import tqdm

    left_out = set()
    times = {}
    for shape in tqdm(SHAPES, desc="peers", unit="shape"):
        rest = REST if math.prod(shape) >= THREADED else 0
        times[label(shape)] = interleaved(prepare(shape, left_out), seconds, rest)
    return {"times": times, "left out": sorted(left_out)}


def lines(found):
    def columns(data):
        times = data["times"]
        rows = {
            (name,): [
                us_faster(of[name], of["kldiv_fast"]) if name in of else "-"
                for of in times.values()
            ]
            for name in PEERS
        }
        return times, rows

    yield "Microseconds to one mean; in brackets, how many times kldiv_fast's own."
    yield ""
    yield from table(["us per call"], found, columns)
    yield ""
    for what in sorted({what for data in found.values() for what in data["left out"]}):
        yield f"Left out: {what}."


def goals(data, isa):
    times = data["times"]
    for name, bound in LEAST_RATIO.items():
        for shape, of in times.items():
            if name in of:
                yield at_least(
                    bound, f"{shape}: times faster than {name}", of[name], of["kldiv_fast"]
                )
    small = times["512x46"]
    yield at_most_us(8, "512x46, us", small["kldiv_fast"])
    for name, bound in {"torch eager": 7, "tf.function": 35}.items():
        if name in small:
            yield at_least(
                bound, f"512x46: times faster than {name}", small[name], small["kldiv_fast"]
            )
    yield at_most_us(0.5, "32x10, us", times["32x10"]["kldiv_fast"])


def plot(data, pyplot):
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    for ax, shape in zip(axes, ["2x2", "512x46"], strict=True):
        times = data["times"][shape]
        values = {name: times[name][0] * 1e6 for name in PEERS if name in times}
        ax.barh(list(values), list(values.values()), color=["C1"] + ["C0"] * (len(values) - 1))
        ax.set(xscale="log", xlabel="microseconds per call", title=shape)
        ax.grid(axis="x", alpha=0.3)
    ax.invert_yaxis()  # both, which share it
    return figure
