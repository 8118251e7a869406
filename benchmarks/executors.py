"""The executors side by side: a hot loop, after a pause, on a busy machine, beside a framework, processor time.

python benchmarks/executors.py [--seconds 2]; `report.py` has them as a section.

Every contender is a process of its own, since OpenMP reads how its threads wait but once; they take turns, and whoever
has no turn sleeps.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time

import kldiv_fast
import numpy as np
from timing import quartiles

SHAPES = [(256, 1000), (1024, 1000), (8192, 1000)]
CONTENDERS = {
    "pool": {"KLDIV_FAST_EXECUTOR": "pool"},
    "openmp": {"KLDIV_FAST_EXECUTOR": "openmp"},
    "openmp, passive": {"KLDIV_FAST_EXECUTOR": "openmp", "OMP_WAIT_POLICY": "passive"},
    "pool, passive": {"KLDIV_FAST_EXECUTOR": "pool", "OMP_WAIT_POLICY": "passive"},
}
NEIGHBOURS = {"none": None, "TensorFlow": "tensorflow", "JAX": "jax"}
PAUSE = 5e-3  # seconds, before each call of "after a pause"
PACE = 2e-3  # from one call's begin to the next one's, for the processor time of a call
BUSY = "while True: pass"


# ---- one contender ----


def tensorflow_step():
    import tensorflow as tf

    x = tf.random.normal((512, 1000))
    step = tf.function(lambda: tf.reduce_sum(tf.nn.softmax(x @ tf.transpose(x))))
    return lambda: float(step())


def jax_step():
    import jax

    x = jax.random.normal(jax.random.key(0), (512, 1000))
    step = jax.jit(lambda x: jax.nn.softmax(x @ x.T).sum())
    return lambda: float(step(x))


STEPS = {"none": lambda: None, "TensorFlow": tensorflow_step, "JAX": jax_step}


def seconds_of(calls, call, before):
    """Of each call alone; `before` comes between them, and is not counted."""
    times = []
    for _ in range(calls):
        before()
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def hot(call, step):
    return seconds_of(30, call, lambda: None)


def paused(call, step):
    return seconds_of(10, call, lambda: time.sleep(PAUSE))


def beside(call, step):
    return seconds_of(15, call, step)


def the_step(call, step):
    """The framework's own step, with a call before it."""
    return seconds_of(15, step, call)


def processor(call, step):
    """Seconds of all threads, for one call every PACE seconds."""
    calls, begin, start = 100, time.process_time(), time.perf_counter()
    for i in range(calls):
        call()
        time.sleep(max(0, start + (i + 1) * PACE - time.perf_counter()))
    return [(time.process_time() - begin) / calls]


SCENARIOS = {f.__name__: f for f in (hot, paused, beside, the_step, processor)}


def serve(neighbour):
    """Answer a line with a scenario's name and a shape by a line with its times."""
    rng = np.random.default_rng(0)
    pairs = {shape: rng.random((2, *shape), np.float32) for shape in SHAPES}
    step = STEPS[neighbour]()
    for line in sys.stdin:
        scenario, shape = json.loads(line)
        t, p = pairs[tuple(shape)]
        value = float(kldiv_fast.kl(t, p))
        times = SCENARIOS[scenario](lambda t=t, p=p: kldiv_fast.kl(t, p), step)
        print(json.dumps([value, times]), flush=True)


# ---- all of them ----


class Contender:
    def __init__(self, name, neighbour):
        command = [sys.executable, __file__, "--serve", neighbour]
        environment = os.environ | CONTENDERS[name] | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, scenario, shape):
        self.process.stdin.write(json.dumps([scenario, shape]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)


@contextlib.contextmanager
def contenders(neighbour):
    found = {name: Contender(name, neighbour) for name in CONTENDERS}
    try:
        yield found
    finally:
        for contender in found.values():
            contender.close()


@contextlib.contextmanager
def busy_machine():
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(os.cpu_count())]
    try:
        yield others
    finally:
        for other in others:
            other.kill()
            other.wait()


def measure(found, scenario, shape, seconds):
    """Each contender's quartiles in seconds, from rounds in which every one has its turn."""
    times = {name: [] for name in found}
    values = set()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["pool"]) < 5:
        for name, contender in found.items():
            value, part = contender.ask(scenario, shape)
            values.add(value)
            times[name].append(statistics.median(part))
    if len(values) != 1:
        sys.exit(f"the executors disagree at {shape}: {values}")
    return {name: quartiles(part) for name, part in times.items()}


def rows(seconds):
    """(what, quartiles of each contender) for all that is compared."""
    with contenders("none") as found:
        for what, scenario in (("hot loop", "hot"), ("after a pause of 5 ms", "paused")):
            for shape in SHAPES:
                yield f"{what}, {shape[0]}x{shape[1]}", measure(found, scenario, shape, seconds)
        with busy_machine():
            for shape in SHAPES:
                name = f"busy machine, {shape[0]}x{shape[1]}"
                yield name, measure(found, "hot", shape, 2 * seconds)
        for shape in SHAPES[:2]:
            name = f"processor time, one call every 2 ms, {shape[0]}x{shape[1]}"
            yield name, measure(found, "processor", shape, seconds)
    for neighbour, module in NEIGHBOURS.items():
        if module is None or importlib.util.find_spec(module) is None:
            continue
        with contenders(neighbour) as found:
            name = f"after a step of {neighbour}, 1024x1000"
            yield name, measure(found, "beside", SHAPES[1], seconds)
            name = f"the step of {neighbour} itself"
            yield name, measure(found, "the_step", SHAPES[1], seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2, help="for each line (default: 2)")
    parser.add_argument("--serve", choices=NEIGHBOURS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
    else:
        for what, times in rows(options.seconds):
            cells = (f"{name} {median * 1e6:.0f} us" for name, (median, _, _) in times.items())
            print(f"{what}: {', '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
