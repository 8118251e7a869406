"""Each layout against the contiguous case, counted in cache lines that have to be read."""

from kldiv_fast import kl
from peers import make_pair
from tables import Goal, label, noise_of, over, table, us
from timing import interleaved

TITLE = "Layouts"
SHAPES = [(8192, 1000), (100_000, 46), (1000, 8192)]
# name: what it is held against, and how many of its cache lines it reads
LAYOUTS = {
    "axis=0, every row": ("every row", 1),
    "transposed": ("mean", 1),
    "every second element": ("mean", 2),
    "y_pred of shape (C,)": ("mean", 0.5),
}


def functions(shape):
    n, c = shape
    t, p = make_pair(shape)
    wide_t, wide_p = make_pair((n, 2 * c))
    row = p[0]
    return {
        "mean": lambda: kl(t, p),
        "every row": lambda: kl(t, p, reduction="none"),
        "axis=0, every row": lambda: kl(t, p, axis=0, reduction="none"),
        "transposed": lambda: kl(t.T, p.T),
        "every second element": lambda: kl(wide_t[:, ::2], wide_p[:, ::2]),
        "y_pred of shape (C,)": lambda: kl(t, row),
    }


def measure(seconds):
    return {label(shape): interleaved(functions(shape), seconds) for shape in SHAPES}


def per_byte(times, name):
    contiguous, lines_read = LAYOUTS[name]
    return times[name][0] / times[contiguous][0] / lines_read


def lines(found):
    def columns(data):
        rows = {
            (shape, name): [
                *(us(times[name]), over(times[name], times[contiguous])),
                f"{per_byte(times, name):.2f}",
            ]
            for shape, times in data.items()
            for name, (contiguous, _) in LAYOUTS.items()
        }
        return ["us", "times contiguous", "per byte read"], rows

    yield from table(["shape", "layout"], found, columns)


def goals(data, isa):
    for shape, times in data.items():
        for name, (contiguous, _) in LAYOUTS.items():
            ratio = per_byte(times, name)
            noise = noise_of(ratio, times[name], times[contiguous])
            yield Goal(f"{shape} {name}: times contiguous, per byte", ratio, noise, 1.3)
