"""All threads and one, alone and while other processes keep every core busy."""

import executors
from kldiv_fast import kl
from peers import make_pair
from tables import at_most, label, on_each, table, us
from timing import interleaved

TITLE = "A busy machine"
SHAPE = (1024, 1000)


def measure(seconds):
    t, p = make_pair(SHAPE)
    functions = {"all threads": lambda: kl(t, p), "one thread": lambda: kl(t, p, num_threads=1)}
    alone = interleaved(functions, seconds)
    with executors.busy_machine() as others:
        beside = interleaved(functions, 2 * seconds, attempts=1)  # disturbed on purpose
    return {"processes": len(others), "alone": alone, "busy": beside}


def lines(found):
    def columns(data):
        alone, busy = data["alone"], data["busy"]
        return ["alone", "busy"], {(name,): [us(alone[name]), us(busy[name])] for name in alone}

    others = on_each(found, lambda data: data["processes"])
    yield f"{label(SHAPE)} float32, microseconds; busy: beside {others} processes that never rest."
    yield ""
    yield from table([""], found, columns)


def goals(data, isa):
    busy = data["busy"]
    what = f"{label(SHAPE)} on a busy machine: all threads over one"
    yield at_most(1.1, what, busy["all threads"], busy["one thread"])
