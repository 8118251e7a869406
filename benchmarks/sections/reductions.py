"""Every row's value, weights and a mask beside the plain mean."""

import numpy as np
from kldiv_fast import kl
from peers import make_pair
from tables import at_most, label, table, us_over
from timing import interleaved

TITLE = "Reductions"
SHAPES = [(800_000, 10), (100_000, 46), (32_000, 256), (8192, 1000), (64, 151_936)]
BOUNDS = {"800000x10": 2, "100000x46": None}
BOUND = 1.15  # of the others


def functions(shape):
    t, p = make_pair(shape)
    rng = np.random.default_rng(1)
    weight, mask = rng.random(shape[0], np.float32), rng.random(shape[0]) < 0.9
    out = np.empty(shape[0], np.float32)
    return {
        "mean": lambda: kl(t, p),
        "none": lambda: kl(t, p, reduction="none", out=out),
        "sample_weight": lambda: kl(t, p, sample_weight=weight),
        "mask": lambda: kl(t, p, mask=mask),
    }


def measure(seconds):
    return {label(shape): interleaved(functions(shape), seconds) for shape in SHAPES}


def lines(found):
    def columns(data):
        rows = {
            (shape,): [us_over(of, times["mean"]) for of in times.values()]
            for shape, times in data.items()
        }
        return next(iter(data.values())), rows

    yield "Microseconds, float32, all threads; in brackets, times the mean."
    yield ""
    yield from table(["shape"], found, columns)


def goals(data, isa):
    for shape, times in data.items():
        bound = BOUNDS.get(shape, BOUND)
        for name in times if bound else ():
            if name != "mean":
                yield at_most(bound, f"{shape} {name}: times the mean", times[name], times["mean"])
