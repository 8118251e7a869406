"""From files to the number with Dask, and what does not fit one machine's memory on a cluster.

A .npy file and a zarr store are compared a block at a time, with a progress bar; then more gigabytes than the workers have
of memory, and a worker that is killed in the middle. docs/scale.md says what it printed.

    python examples/dask_scale.py                              two files of its own, .npy and zarr
    python examples/dask_scale.py y_true.npy y_pred.zarr       yours
    python examples/dask_scale.py --cluster [--gigabytes 5] [--blocks broadcast] [--rows 4000] [--kill]

With ``--cluster`` two worker processes of 1 GiB each read so many gigabytes that exist a block at a time: random numbers
made on the fly, or one row again and again, whose values are known. ``--kill`` ends one of the two in the middle, as a
machine may: what it held is done again, and nothing else.
"""

import argparse
import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import dask
import dask.array as da
import kldiv_fast.dask
import numpy as np
from dask.diagnostics import ProgressBar

ROWS, CLASSES = 4000, 1000  # of a file, and of a block: 16 MB


# ---- files ----


class NumpyFile:
    """A .npy file that every task maps into memory for itself: da.from_array would read a memory map as a whole."""

    def __init__(self, path):
        self.path = Path(path).absolute()
        mapped = np.load(self.path, mmap_mode="r")
        self.shape, self.dtype, self.ndim = mapped.shape, mapped.dtype, mapped.ndim

    def __getitem__(self, index):
        return np.load(self.path, mmap_mode="r")[index]

    def __dask_tokenize__(self):
        return str(self.path), self.path.stat().st_mtime_ns


def opened(path):
    """A lazy array of a .npy file or a zarr store, in chunks of at most 32 MiB."""
    with dask.config.set({"array.chunk-size": "32MiB"}):
        if Path(path).suffix == ".npy":
            return da.from_array(NumpyFile(path), chunks="auto")
        return da.from_zarr(str(path))


def write_files(folder):
    """Two arrays of distributions, one of each kind of file."""
    import zarr

    rng = np.random.default_rng(0)
    true, pred = rng.dirichlet(np.ones(CLASSES), (2, ROWS)).astype(np.float32)
    np.save(folder / "y_true.npy", true)
    zarr.save_array(str(folder / "y_pred.zarr"), pred)
    return folder / "y_true.npy", folder / "y_pred.zarr"


def compare_files(true, pred):
    value = kldiv_fast.kl(opened(true), opened(pred))
    with ProgressBar():
        print(f"mean divergence {value.compute():.6f} nats")


# ---- a cluster ----


def uniform(seed, is_random, rows, block_id=None):
    """A block of numbers in [0, 1): each its own, or one row again and again, without memory of its own."""
    rng = np.random.default_rng((seed, block_id[0] if is_random else 0))
    if is_random:
        return rng.random((rows, CLASSES), dtype=np.float32)
    return np.broadcast_to(rng.random(CLASSES, dtype=np.float32), (rows, CLASSES))


def blocks(kind, rows, gigabytes):
    """y_true and y_pred, together so large; the mean divergence of their rows, and how near it is to be found."""
    n = max(1, round(gigabytes * 1e9 / (2 * 4 * rows * CLASSES)))
    is_random = kind == "random"
    given = {
        "dtype": np.float32,
        "chunks": ((rows,) * n, (CLASSES,)),
        "meta": np.empty((0, 0), np.float32),
    }
    inputs = [da.map_blocks(uniform, seed, is_random, rows, **given) for seed in (0, 1)]
    if is_random:  # t log(t/p) of uniform numbers has the mean 1/4
        return *inputs, CLASSES / 4, 5 * CLASSES / np.sqrt(n * rows * CLASSES)
    return *inputs, kldiv_fast.kl(*(uniform(seed, False, 1) for seed in (0, 1))), 1e-3


def local_rate(kind, rows):
    """Gigabytes a second of Dask's threads in one process."""
    true, pred, *_ = blocks(kind, rows, max(1, 8 * rows * CLASSES * 4 / 1e9))
    value = kldiv_fast.kl(true, pred)
    value.compute(scheduler="threads", num_workers=2)
    start = time.perf_counter()
    value.compute(scheduler="threads", num_workers=2)
    return (true.nbytes + pred.nbytes) / 1e9 / (time.perf_counter() - start)


def count_tasks(dask_scheduler):
    """Have the scheduler count how often each task is done."""
    from distributed.diagnostics.plugin import SchedulerPlugin

    class Counter(SchedulerPlugin):
        done = 0

        def transition(self, key, start, finish, *args, **kwargs):
            self.done += start == "processing" and finish == "memory"

    dask_scheduler.add_plugin(Counter(), name="counter")


def tasks_done(dask_scheduler):
    return dask_scheduler.plugins["counter"].done


def kill_one(client, at):
    """End a worker once so many tasks are done."""
    victim = next(iter(client.run(os.getpid).values()))
    while client.run_on_scheduler(tasks_done) < at:
        time.sleep(0.02)
    print(f"worker {victim} is killed")
    os.kill(victim, signal.SIGKILL)


def run_cluster(kind, rows, gigabytes, kills):
    from distributed import Client, LocalCluster

    rate = local_rate(kind, rows)
    print(f"one process, two threads: {rate:.2f} GB/s")
    true, pred, expected, within = blocks(kind, rows, gigabytes)
    size = (true.nbytes + pred.nbytes) / 1e9
    given = {"n_workers": 2, "threads_per_worker": 1, "memory_limit": "1GiB"}
    with LocalCluster(**given, dashboard_address=None) as cluster, Client(cluster) as client:
        client.run_on_scheduler(count_tasks)
        value = kldiv_fast.kl(true, pred)
        (value,) = dask.optimize(value)
        tasks = len(value.__dask_graph__())
        start = time.perf_counter()
        future = client.compute(value)
        if kills:
            threading.Thread(target=kill_one, args=(client, tasks // 3), daemon=True).start()
        found = future.result()
        took = time.perf_counter() - start
        done = client.run_on_scheduler(tasks_done)
    print(f"two workers of 1 GiB: {size:.1f} GB in {took:.1f} s, {size / took:.2f} GB/s")
    print(f"{tasks} tasks, {done - tasks} of them done again")
    print(f"mean divergence {found:.4f}, expected {expected:.4f}")
    assert abs(found - expected) < within


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="y_true and y_pred")
    parser.add_argument("--cluster", action="store_true", help="two workers of 1 GiB each")
    parser.add_argument("--gigabytes", type=float, default=5, help="that they read (%(default)s)")
    parser.add_argument("--blocks", choices=["random", "broadcast"], default="random")
    parser.add_argument("--rows", type=int, default=ROWS, help="of a block (%(default)s)")
    parser.add_argument("--kill", action="store_true", help="one of the workers, in the middle")
    options = parser.parse_args()
    if options.cluster:
        run_cluster(options.blocks, options.rows, options.gigabytes, options.kill)
    elif options.files:
        if len(options.files) != 2:
            parser.error("two files are compared: y_true and y_pred")
        compare_files(*options.files)
    else:
        with tempfile.TemporaryDirectory() as folder:
            compare_files(*write_files(Path(folder)))


if __name__ == "__main__":
    main()
