"""Speed against size, with the limit drawn in, and the time's growth up to 10^10 elements."""

import kldiv_fast
import numpy as np
from memory_limit import reader
from peers import PEERS, make_pair
from tables import Goal, credible, noise_of, table, us
from timing import interleaved

TITLE = "Growth"
PLOT, PLOT_SHOWS = "size", "Elements per second over size"
COUNTS = [2**k for k in range(7, 27)]
LEAST_LIMIT = 2**14  # below, to call the limit's loop is what takes its time


def at_size(n, threads, seconds):
    t, p = make_pair((1, n))
    functions = {
        "kl": lambda: kldiv_fast.kl(t, p),
        "kl, 1 thread": lambda: kldiv_fast.kl(t, p, num_threads=1),
        "limit": reader(t, p, threads if n > 2**16 else 1),
        "NumPy": PEERS["NumPy"](t, p),
    }
    limits = {"limit": "kl"} if n >= LEAST_LIMIT else {}
    return interleaved(functions, seconds, limits=limits)


def growth(exponent):
    """Of broadcast views of a single number, beyond the memory's size."""
    one = np.full(1, 0.25, np.float32)
    t, p = (np.broadcast_to(x, (10, 10 ** (exponent - 1))) for x in (one, one / 2))
    functions = {"kl": lambda: kldiv_fast.kl(t, p)}
    return interleaved(functions, 0.2 if exponent < 9 else 0)["kl"]


def measure(seconds):
    from tqdm import tqdm

    threads = kldiv_fast.get_num_threads()
    sizes = {
        str(n): at_size(n, threads, seconds / 4) for n in tqdm(COUNTS, desc="sizes", unit="size")
    }
    return {"threads": threads, "sizes": sizes, "growth": {str(e): growth(e) for e in range(2, 11)}}


def lines(found):
    def columns(data):
        rows = {
            (f"10^{exponent}",): [us(times), f"{times[0] / 10 ** int(exponent) * 1e9:.3f}"]
            for exponent, times in data["growth"].items()
        }
        return ["us per call", "ns per element"], rows

    yield "Broadcast views of a single number, beyond the memory's size."
    yield ""
    yield from table(["elements"], found, columns)


def goals(data, isa):
    growth = {int(exponent): times for exponent, times in data["growth"].items()}
    large = [e for e in growth if e > 5]
    most, least = (f(large, key=lambda e: growth[e][0] / 10**e) for f in (max, min))
    ratio = growth[most][0] / growth[least][0] * 10 ** (least - most)
    what = "time per element from 10^6 to 10^10, greatest over least"
    yield Goal(what, ratio, noise_of(ratio, growth[most], growth[least]), 1.5)


def plot(data, pyplot):
    figure, ax = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for name in ("kl", "kl, 1 thread", "limit", "NumPy"):
        speeds = {
            int(n): int(n) / times[name][0] / 1e9
            for n, times in data["sizes"].items()
            if name != "limit" or (int(n) >= LEAST_LIMIT and credible(times["limit"], times["kl"]))
        }
        style = "--" if name == "limit" else "-"
        ax.plot(list(speeds), list(speeds.values()), style, label=name, marker=".")
    title = f"float32, {data['threads']} threads. limit: the time to read both arrays"
    ax.set(xscale="log", yscale="log", xlabel="elements", ylabel="G elements/s", title=title)
    ax.grid(alpha=0.3)
    ax.legend()
    return figure
