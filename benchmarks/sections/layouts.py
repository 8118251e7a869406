"""Each layout against the contiguous case, counted in cache lines that have to be read."""

from kldiv_fast import kl
from peers import make_pair
from tables import Goal, label, noise_of, over, table, us
from timing import interleaved

TITLE = "Layouts"
SHAPES = [(8192, 1000), (100_000, 46), (1000, 8192)]
LINES_READ = {"axis=0": 1, "transposed": 1, "every second element": 2, "y_pred of shape (C,)": 0.5}


def functions(shape):
    n, c = shape
    t, p = make_pair(shape)
    wide_t, wide_p = make_pair((n, 2 * c))
    row = p[0]
    return {
        "contiguous": lambda: kl(t, p, reduction="none"),
        "axis=0": lambda: kl(t, p, axis=0, reduction="none"),
        "transposed": lambda: kl(t.T, p.T),
        "every second element": lambda: kl(wide_t[:, ::2], wide_p[:, ::2]),
        "y_pred of shape (C,)": lambda: kl(t, row),
    }


def measure(seconds):
    return {label(shape): interleaved(functions(shape), seconds) for shape in SHAPES}


def per_byte(times, name):
    return times[name][0] / times["contiguous"][0] / LINES_READ[name]


def lines(found):
    def columns(data):
        rows = {
            (shape, name): [
                *(us(times[name]), over(times[name], times["contiguous"])),
                f"{per_byte(times, name):.2f}",
            ]
            for shape, times in data.items()
            for name in LINES_READ
        }
        return ["us", "times contiguous", "per byte read"], rows

    yield from table(["shape", "layout"], found, columns)


def goals(data, isa):
    for shape, times in data.items():
        for name in LINES_READ:
            ratio = per_byte(times, name)
            noise = noise_of(ratio, times[name], times["contiguous"])
            yield Goal(f"{shape} {name}: times contiguous, per byte", ratio, noise, 1.3)
