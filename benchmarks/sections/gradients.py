"""Value and gradient beside a loop that reads two arrays and writes a third, in the better of its two forms."""

import kldiv_fast
import numpy as np
from memory_limit import REST, writer
from peers import LARGE, make_pair
from tables import at_most, credible, label, over, table, us
from timing import interleaved

TITLE = "Gradients"
SHAPES = [(512, 46), (1024, 1000), (4096, 1000), *LARGE]
DTYPES = {"float32": np.float32, "float64": np.float64}
BOTH, LIMITS = "value and gradient", ("limit", "limit past the caches")


def functions(shape, dtype):
    t, p = make_pair(shape, dtype)
    out = np.empty_like(t)
    threads = kldiv_fast.get_num_threads() if t.size > 2**17 else 1
    return {
        BOTH: lambda: kldiv_fast.kl_value_and_grad(t, p, out=out),
        "value": lambda: kldiv_fast.kl(t, p),
        "limit": writer(t, p, out, threads, streamed=False),
        "limit past the caches": writer(t, p, out, threads, streamed=True),
    }


def measure(seconds):
    return {
        label(shape): {
            name: interleaved(functions(shape, dtype), seconds, REST)
            for name, dtype in DTYPES.items()
        }
        for shape in SHAPES
    }


def least(times):
    return min((times[name] for name in LIMITS), key=lambda of: of[0])


def lines(found):
    def columns(data):
        rows = {
            (shape, name): [*map(us, times.values()), over(times[BOTH], least(times))]
            for shape, of in data.items()
            for name, times in of.items()
        }
        heads = [BOTH, "value", *LIMITS]
        return [*(f"{head}, us" for head in heads), "over the lower limit"], rows

    yield "`kl_value_and_grad(t, p, out=...)`; the limit reads two arrays and writes a third."
    yield ""
    yield from table(["shape", "dtype"], found, columns)


def goals(data, isa):
    for shape in map(label, LARGE):
        for name, times in data[shape].items():
            if credible(least(times), times[BOTH]):
                what = f"{shape} {name}: value and gradient, times the limit"
                yield at_most(1.1, what, times[BOTH], least(times))
