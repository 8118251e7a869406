"""What a machine does of docs/scale.md's model, and the model: 10^9 rows of 10^5 classes on 1 to 1,000 machines.

python benchmarks/scale.py

Each input is the best of some runs. The values of blocks were compared with NumPy's before anything was timed.
"""

import time

import dask
import dask.array as da
import kldiv_fast
import kldiv_fast.dask
import numpy as np
from kldiv_fast import _core
from kldiv_fast._divergence import DEFAULTS, Options
from kldiv_fast._operations import BY_NAME

ROWS, CLASSES, ITEM = 10**9, 10**5, 4
BLOCK = 64 << 20  # bytes of one input's block
BLOCK_CLASSES = 10**4  # where the class axis is cut
FORMS = ("probs", "counts", "logits")


def best(function, runs=5):
    found = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return min(found)


def options_of(form):
    return Options.read(BY_NAME["kl"], DEFAULTS | {"form": form, "num_threads": 1}).core


def inputs(form, rows, classes):
    x = np.random.default_rng(0).random((2, rows, classes), dtype=np.float32)
    return x if form == "logits" else x / x.sum(-1, keepdims=True)


def check(form):
    true, pred = inputs(form, 50, 1000)
    found = kldiv_fast.dask.kl(*(da.from_array(x, chunks=(20, 300)) for x in (true, pred)), form=form)  # fmt: skip
    np.testing.assert_allclose(found.compute(), kldiv_fast.kl(true, pred, form=form), rtol=1e-5)


def round_rate(form):
    """Gigabytes a second of one thread in the first round over a block of both inputs."""
    true, pred = inputs(form, BLOCK // ITEM // BLOCK_CLASSES, BLOCK_CLASSES)
    options = options_of(form)
    size, _ = _core.rounds(options, False)
    states = np.empty((len(true), size), np.int64)
    took = best(
        lambda: _core.reduce(options, true, pred, None, 1, (len(true),), states, CLASSES, True)
    )
    return 2 * true.nbytes / took / 1e9


def merge_rate(form):
    """Seconds for a row's state to be merged into another."""
    true, pred = inputs(form, 10_000, 20)
    options = options_of(form)
    states = np.empty((len(true), _core.rounds(options, False)[0]), np.int64)
    _core.reduce(options, true, pred, None, 1, (len(true),), states, 40, True)
    return best(lambda: _core.merge(options, states.copy(), [states], False, None)) / len(true)


def graph_cost():
    """Seconds for each block in making the graph."""
    x = da.ones((4000, 400), chunks=(100, 10))
    return best(lambda: dask.optimize(kldiv_fast.dask.kl(x, x + 1)), 3) / (40 * 40)


def scheduler_rate():
    """Blocks a second that a scheduler of Dask hands out: of blocks that are no work, two worker processes."""
    from distributed import Client, LocalCluster

    x = da.ones((4000, 40), chunks=(2, 40))
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        value = kldiv_fast.dask.kl(x, x + 1)
        client.compute(value).result()
        took = best(lambda: client.compute(kldiv_fast.dask.kl(x, x + 2)).result(), 2)
    return 2000 / took


def show(duration):
    for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60)):
        if duration >= 2 * seconds:
            return f"{duration / seconds:.3g} {unit}"
    return f"{duration:.3g} s"


def main():
    for form in FORMS:
        check(form)
    print(
        "| form | state of a row | rounds at most | one round, one thread | a merge of two states |"
    )
    print("| --- | --- | --- | --- | --- |")
    for form in FORMS:
        size, rounds = _core.rounds(options_of(form), False)
        print(
            f"| `{form}` | {8 * size} bytes | {rounds} | {round_rate(form):.1f} GB/s | "
            f"{merge_rate(form) * 1e9:.0f} ns |"
        )
    per_block, per_second = graph_cost(), scheduler_rate()
    print(
        f"\nA block in the graph: {per_block * 1e6:.0f} us. A scheduler: {per_second:.0f} blocks/s.\n"
    )
    total = 2 * ROWS * CLASSES * ITEM
    for block in (BLOCK, 16 * BLOCK):
        n = total / (2 * block)
        print(f"{n:.3g} blocks of {block >> 20} MiB: made in {show(n * per_block)}, handed out in {show(n / per_second)}")  # fmt: skip
    print("\n| machines | bytes of each | at 0.5 GB/s | at 5 GB/s | at 50 GB/s |")
    print("| --- | --- | --- | --- | --- |")
    for machines in (1, 10, 100, 1000):
        each = total / machines
        times = (each / rate / 1e9 for rate in (0.5, 5, 50))
        print(f"| {machines:,} | {each / 1e12:,.1f} TB | " + " | ".join(map(show, times)) + " |")


if __name__ == "__main__":
    main()
