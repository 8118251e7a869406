"""Both executors side by side: what the top-level executors.py measures."""

import executors
from tables import over, table

TITLE = "Executors"
DEFAULT = """\
The default is the pool, for what surrounds a call: where calls come now and then it takes a small part of OpenMP's processor
time, because OpenMP's threads spin until the next call, and for the same reason a framework's own step takes longer after a
call with OpenMP. In a hot loop of calls of some tens of microseconds OpenMP's spinning threads are the faster ones; calls of a
millisecond take as long with either. On a busy machine either can be faster, from run to run: a region of OpenMP ends with its
last thread, which the operating system may keep waiting for milliseconds, and a helper of the pool may get no core at all,
whose part the caller then does.
"""


def measure(seconds):
    return dict(executors.rows(seconds))


def lines(found):
    def columns(data):
        rows = {
            (what,): [f"{of[0] * 1e6:.0f} ({over(of, times['pool'])}x)" for of in times.values()]
            for what, times in data.items()
        }
        return executors.CONTENDERS, rows

    yield "Microseconds, float32, all threads; passive: `OMP_WAIT_POLICY=passive`. Processor time is that of all"
    yield "threads together. In brackets, times the pool's."
    yield ""
    yield from DEFAULT.splitlines()
    yield ""
    yield from table([""], found, columns)


def goals(data, isa):
    return []
