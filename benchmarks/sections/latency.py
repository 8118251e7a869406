"""One small call: beside NumKong's, and every kind of call of calls.py."""

import calls
from peers import make_pair
from tables import at_most, ns, over, table, us
from timing import interleaved

TITLE = "One small call"
PLAIN, KEYWORDS = "kl(t, p)", 'kl(t, p, reduction="sum", axis=-1)'
NUMKONG = "numkong.kullbackleibler(row, row)"


def beside_numkong():
    from kldiv_fast import kl
    from numkong import kullbackleibler

    t, p = make_pair((2, 2))
    row_t, row_p = t[0], p[0]
    return {
        PLAIN: lambda: kl(t, p),
        KEYWORDS: lambda: kl(t, p, reduction="sum", axis=-1),
        NUMKONG: lambda: kullbackleibler(row_t, row_p),
    }


def measure(seconds):
    return {
        "numkong": interleaved(beside_numkong(), seconds),
        "2x2": interleaved(calls.functions((2, 2)), seconds),
        "512x46": interleaved(calls.functions((512, 46)), seconds),
    }


def lines(found):
    def one(data):
        return ["ns"], {(f"`{name}`",): [ns(times)] for name, times in data["numkong"].items()}

    def kinds(data):
        small, large = data["2x2"], data["512x46"]
        rows = {
            (name,): [
                *(ns(small[name]), over(small[name], small["mean"])),
                *(us(large[name]), over(large[name], large["mean"])),
            ]
            for name in small
        }
        return ["2x2, ns", "times", "512x46, us", "times"], rows

    yield from table(["2x2 float32"], found, one)
    yield ""
    yield "Every kind of call, float32, and how many times the plain mean of the same run:"
    yield ""
    yield from table(["call"], found, kinds)


def goals(data, isa):
    of = data["numkong"]
    yield at_most(1.3, "2x2, default arguments, over one NumKong call", of[PLAIN], of[NUMKONG])
    yield at_most(2, "2x2, with keywords, over one NumKong call", of[KEYWORDS], of[NUMKONG])
    for name, bounds in calls.CALLS.items():
        for shape, bound in zip(("2x2", "512x46"), bounds, strict=True):
            of = data[shape]
            if bound is not None and name in of and name != "mean":
                yield at_most(bound, f"{shape} {name}, times the mean", of[name], of["mean"])
