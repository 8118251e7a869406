"""What takes minutes: forks, threads, leaks and ends in numbers. A task of its own; CI runs it after the tests.

python tests/endurance.py [--seconds 60] [--forks 1000] [--calls 1000000] [--endings 200] [--framework-endings 40]
"""

import argparse
import contextlib
import gc
import multiprocessing
import os
import sys
import threading
import time
import warnings

import endings
import kldiv_fast
import numpy as np
from kldiv_fast import jsd, kl

warnings.simplefilter(
    "ignore", DeprecationWarning
)  # Python's own about forks of processes with threads


def pair(rows=1000, classes=1000):
    rng = np.random.default_rng(0)
    return rng.random((2, rows, classes), np.float32)


def forks(rounds):
    """A parent that has used all threads forks; each child is right and ends; the parent keeps its threads."""
    t, p = pair()
    expected = kl(t, p)
    for i in range(rounds):
        assert kl(t, p) == expected  # the parent's threads
        child = os.fork()
        if child == 0:
            os._exit(0 if kl(t, p) == expected and kl(t, p, reduction="sum") > 0 else 1)
        deadline = time.monotonic() + 60
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            assert time.monotonic() < deadline, f"child {i} hangs"
            time.sleep(1e-4)
    print(f"forks: {rounds} children, none hung")


def _in_child(_):
    t, p = pair(300)
    return float(kl(t, p))


def pools():
    t, p = pair(300)
    expected = float(kl(t, p))
    for method in ("fork", "forkserver", "spawn"):
        with multiprocessing.get_context(method).Pool(4) as pool:
            assert pool.map_async(_in_child, range(8)).get(120) == [expected] * 8
    print("pools: fork, forkserver, spawn")


def threads(seconds):
    """16 threads on shared inputs, each with an `out` of its own; errors in some leave the others alone."""
    t, p = pair(200)
    rows, mean = kl(t, p, reduction="none"), kl(t, p)
    end, counts, wrong = time.monotonic() + seconds, [0] * 16, []

    def work(k):
        out = np.empty(len(t), np.float32)
        while time.monotonic() < end and not wrong:
            if k % 4 == 3:
                with contextlib.suppress(ValueError):
                    kl(t, p[:, :3], out=out)
                    wrong.append(f"thread {k}: no error")
            kl(t, p, reduction="none", out=out, num_threads=1 + k % 3)
            if not (np.array_equal(out, rows) and kl(t, p) == mean):
                wrong.append(f"thread {k}: a wrong result")
            counts[k] += 1

    workers = [threading.Thread(target=work, args=[k]) for k in range(16)]
    [worker.start() for worker in workers]
    [worker.join(seconds + 60) for worker in workers]
    assert not wrong, wrong
    assert all(counts), counts
    print(f"threads: {sum(counts)} calls in {seconds} s, all right")


def _refused(*args, **keywords):
    try:
        kl(*args, **keywords)
    except (TypeError, ValueError):
        return
    raise AssertionError(f"{keywords} was accepted")


def paths():
    """One call for every way through the code, right and wrong."""
    t, p = pair(4, 5)
    bad = np.array(["x"] * 5)
    out, weight, mask = np.empty(4, np.float32), np.ones(4), np.ones(4, bool)
    labels = np.array([0, 4, 2, 1])
    yield "fast", lambda: kl(t, p)
    yield "fast, keywords", lambda: kl(t, p, reduction="sum", axis=-1, epsilon=1e-3, num_threads=1)
    yield "none", lambda: kl(t, p, reduction="none")
    yield "out", lambda: kl(t, p, reduction="none", out=out)
    yield "overlapping out", lambda: kl(t, p, reduction="none", out=t[:, 0].copy())
    yield "weights and mask", lambda: kl(t, p, sample_weight=weight, mask=mask)
    yield "axes", lambda: kl(t, p, axis=(0, 1))
    yield "conversion", lambda: kl(t.astype(">f8"), p.astype(np.int64))
    yield "lists", lambda: kl([[0.5, 0.5]], [[0.25, 0.75]])
    yield "no clip", lambda: kl(t, p, epsilon=None)
    yield "logits", lambda: kl(t, p, form="logits", temperature=2.0)
    yield "mixed forms", lambda: jsd(t, p, form=("counts", "log_probs"))
    yield "labels", lambda: kl(labels, p, form=("labels", "probs"))
    yield (
        "labels beside logits",
        lambda: kldiv_fast.kl_value_and_grad(labels, p, form=("labels", "logits")),
    )
    yield "where", lambda: kldiv_fast.kl_value_and_grad(t, p, where=t > 0.1)
    yield "where of logits", lambda: kl(t, p, form="logits", where=t > 0.1)
    yield "pseudocount", lambda: kl(t, p, form="counts", pseudocount=0.5)
    yield "validate", lambda: kl(t, p, form="logits", validate=True)
    yield "rows that are not", lambda: _refused(-t, p, form="counts", validate=True)
    yield "bad where", lambda: _refused(t, p, where=np.ones((2, 2), bool))
    yield "bad labels", lambda: _refused(labels + 5, p, form=("labels", "probs"))
    yield "two forms", lambda: kl([[0.5, 0.5]], [[0.25, 0.75]], form=["logits", "logits"])
    yield "empty", lambda: kl(t[:0], p[:0])
    yield "bad shapes", lambda: _refused(t, p[:, :3])
    yield "bad dtype", lambda: _refused(bad, p[0])
    yield "bad axis", lambda: _refused(t, p, axis=7)
    yield "bad reduction", lambda: _refused(t, p, reduction="median")
    yield "bad epsilon", lambda: _refused(t, p, epsilon=2.0)
    yield "bad out", lambda: _refused(t, p, reduction="none", out=out[:2])
    yield "bad weights", lambda: _refused(t, p, sample_weight=np.ones(7))
    yield "bad form", lambda: _refused(t, p, form=("probs", "labels"))
    yield "bad temperature", lambda: _refused(t, p, temperature=2.0)
    yield "bad threads", lambda: _refused(t, p, num_threads=0)
    yield "bad arguments", lambda: _refused(t)


def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(call, times):
    """Blocks and bytes that so many calls leave behind."""
    gc.collect()
    blocks, memory = sys.getallocatedblocks(), resident()
    for _ in range(times):
        call()
    gc.collect()
    return sys.getallocatedblocks() - blocks, resident() - memory


def leaks(calls):
    """Neither memory nor references grow over so many calls in all, or more."""
    ways = list(paths())
    each = max(100, calls // len(ways))
    for name, call in ways:
        growth(call, each // 4)
        # What Python and NumPy keep of their own fills up first, some 300 blocks of every small size, when chance comes to
        # each; and then no more. A leak goes on.
        for _ in range(5):
            blocks, memory = growth(call, each)
            if blocks < 50 and memory < 2 << 20:
                break
        else:
            raise AssertionError(
                f"{name}: {blocks} blocks, {memory} bytes more after {each} calls, again"
            )
    print(f"leaks: none in {each * len(ways)} calls of {len(ways)} kinds")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--forks", type=int, default=1000)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--endings", type=int, default=200)
    parser.add_argument("--framework-endings", type=int, default=40)
    options = parser.parse_args()
    print(f"ISA {kldiv_fast.current_isa()}, {kldiv_fast.get_num_threads()} threads")
    leaks(options.calls)
    forks(options.forks)
    pools()
    threads(options.seconds)
    endings.run(options.endings, options.framework_endings)


if __name__ == "__main__":
    main()
