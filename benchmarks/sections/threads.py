"""kl on one thread, on two, on as many as there are."""

import kldiv_fast
from peers import LARGE, make_pair
from tables import at_least, label, over, table, us
from timing import interleaved

TITLE = "Threads"
PLOT, PLOT_SHOWS = "threads", "Speed over threads"
IN_CACHE = (1024, 1000)


def measure(seconds):
    most = kldiv_fast.get_num_threads()
    counts = sorted({1, most, *(2**k for k in range(10) if 2**k < most)})
    times = {}
    for shape in [IN_CACHE, *LARGE]:
        t, p = make_pair(shape)
        functions = {
            str(n): lambda n=n, t=t, p=p: kldiv_fast.kl(t, p, num_threads=n) for n in counts
        }
        times[label(shape)] = interleaved(functions, seconds)
    return times


def lines(found):
    def columns(data):
        rows = {(shape,): [us_over_one(of, n) for n in of] for shape, of in data.items()}
        return data[label(IN_CACHE)], rows

    yield "Microseconds, float32; in brackets, how many times faster than one thread. Beyond cache, memory is the limit."
    yield ""
    yield from table(["shape"], found, columns)


def us_over_one(times, threads):
    """Microseconds and, in brackets, how many times faster than one thread."""
    return f"{us(times[threads])} ({over(times['1'], times[threads])}x)"


def goals(data, isa):
    times = data[label(IN_CACHE)]
    if "2" in times:
        yield at_least(1.85, f"{label(IN_CACHE)}: two threads over one", times["1"], times["2"])


def plot(data, pyplot):
    counts = [int(n) for n in data[label(IN_CACHE)]]
    figure, ax = pyplot.subplots(figsize=(5, 4), layout="constrained")
    for shape, times in data.items():
        ax.plot(counts, [times["1"][0] / of[0] for of in times.values()], marker="o", label=shape)
    ax.plot(counts, counts, ":", color="0.5", label="ideal")
    ax.set(xlabel="threads", ylabel="times faster than one thread", xticks=counts)
    ax.legend()
    return figure
