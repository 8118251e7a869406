"""Programs that end while threads of theirs are in the middle of a call.

A program is a caller, what a daemon thread calls without end, and an ending, what the main thread does then, at a moment
that the program's number chooses. It must end by itself, by no signal that it doesn't send itself, and with the status
that Python gives. tests/test_robustness.py runs a few, tests/endurance.py hundreds.

python tests/endings.py [--runs 200] [--framework-runs 40] [--only TEXT]
"""

import argparse
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from kldiv_fast import _core

# What every program begins with. `start` returns at the beginning of a daemon thread's first call, or in the middle of one.
BEGIN = """
import atexit, faulthandler, os, random, signal, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from kldiv_fast import kl, kl_value_and_grad

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell began this in the background
number, folder = sys.argv[1:]
random.seed(int(number))
t, p = np.full((20_000, 1000), 0.5, np.float32), np.full((20_000, 1000), 0.25, np.float32)

def start():
    started = threading.Event()
    def work():
        started.set()
        while True:
            call()
    threading.Thread(target=work, daemon=True).start()
    started.wait()
    time.sleep(random.choice([0, random.uniform(0, 0.15)]))

class AtTheEnd:
    def __del__(self, sleep=time.sleep, seconds=random.choice([0, 0.1])):
        sleep(seconds)  # Python's end takes time, in which threads come back from their calls
at_the_end = AtTheEnd()
"""


class Ending(NamedTuple):
    code: str
    status: int


ENDINGS = {
    "exception": Ending("start(); raise RuntimeError", 1),
    "sys.exit": Ending("start(); sys.exit(3)", 3),
    "last line": Ending("start()", 0),
    "SIGTERM's handler": Ending(
        """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
start()
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(60)
""",
        5,
    ),
    "Ctrl-C": Ending("start(); os.kill(os.getpid(), signal.SIGINT); time.sleep(60)", -2),
    "Ctrl-C in a call": Ending(
        """
start()
threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
while True:
    call()
""",
        -2,
    ),
    "faulthandler": Ending(
        "faulthandler.enable(); start(); faulthandler.dump_traceback(); sys.exit(3)", 3
    ),
    "atexit": Ending("atexit.register(call); start(); sys.exit(3)", 3),
    "fork": Ending(
        """
start()
child = os.fork()
if child == 0:
    signal.alarm(50)
    call()
    sys.exit(6)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
""",
        6,
    ),
    "subinterpreter": Ending(
        """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
start()
other = interpreters.create()
code = "try: import kldiv_fast\\nexcept ImportError: pass\\nelse: raise AssertionError"
failed = interpreters.run_string(other, code)  # up to Python 3.12 it raises
interpreters.destroy(other)
sys.exit(9 if failed else 7)
""",
        7,
    ),
    # Python doesn't come to its end, or waits for its threads.
    "os._exit": Ending("start(); os._exit(4)", 4),
    "SIGTERM": Ending("start(); os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", -15),
    "faulthandler's exit": Ending(
        "start(); faulthandler.dump_traceback_later(0.01, exit=True); time.sleep(60)", 1
    ),
    "threads": Ending(
        """
for _ in range(3):
    threading.Thread(target=lambda: [call() for _ in range(2)]).start()
sys.exit(3)
""",
        3,
    ),
    "executor": Ending(
        """
def judge():  # when Python has waited for the threads
    if len({future.result() for future in futures}) != 1:
        os._exit(9)
atexit.register(judge)
executor = ThreadPoolExecutor(3)
futures = [executor.submit(call) for _ in range(4)]
sys.exit(8)
""",
        8,
    ),
}

EVERY = tuple(ENDINGS)
# faulthandler's own thread reads frames without the GIL, and doesn't survive one that is running Python's code.
WITHOUT_WATCHDOG = tuple(ending for ending in EVERY if ending != "faulthandler's exit")
# Up to Python 3.13, a daemon thread that comes back from one of the frameworks' own operations at Python's end ends the
# process (their frames may not be unwound; of TensorFlow's it is those that convert an op's inputs, now and then on a busy
# machine), and PyTorch takes the ops of a library away before. The way from PyTorch into the core is "by address".
NOT_PYTHONS_END = ("os._exit", "SIGTERM", "faulthandler's exit", "threads", "executor")


class Caller(NamedTuple):
    code: str  # makes `call`, whose value is the same each time
    endings: tuple = EVERY
    framework: str = ""


CALLERS = {
    "kl": Caller("call = lambda: kl(t, p)"),
    "rows": Caller("""
out = np.empty(len(t), np.float32)
call = lambda: kl(t, p, reduction="none", out=out)[-1]
"""),
    "weights": Caller("""
weight, mask = np.ones(len(t)), np.arange(len(t)) % 3 > 0
call = lambda: kl(t, p, sample_weight=weight, mask=mask)
"""),
    "gradients": Caller("""
t, p = t[:6000], p[:6000]
call = lambda: kl_value_and_grad(t, p, wrt=("y_true", "y_pred"))[0]
"""),
    "broadcast": Caller("call = lambda: kl(t[:1000, None], p[None, :1000])"),
    "by address": Caller("""
from kldiv_fast import _core
out = np.empty(len(t), np.float32)
true, pred, rows = (x.ctypes.data for x in (t, p, out))
def call():
    _core.rows("float32", true, pred, *t.shape, 1e-7, 0, 0, rows, 0, 0)
    return out[-1]
"""),
    "command": Caller(
        """
import io
from kldiv_fast._cli import main
sys.stdout = io.StringIO()  # Python itself doesn't survive a daemon thread that prints at its end
def call():
    status = main([f"{folder}/t.npy", f"{folder}/p.npy", "--rows", f"{folder}/rows{number}.npy"])
    if status == 130:
        raise KeyboardInterrupt
    return status
call()  # imports parts of Python's library; a child forked meanwhile would wait for them for ever
""",
        WITHOUT_WATCHDOG,
    ),
    "torch": Caller(
        """
import torch
from kldiv_fast.torch import kl
t, p = torch.from_numpy(t), torch.from_numpy(p)
call = lambda: kl(t, p).item()
""",
        NOT_PYTHONS_END,
        "torch",
    ),
    "torch's gradients": Caller(
        """
import torch
from kldiv_fast.torch import kl
t, p = torch.from_numpy(t[:6000]), torch.from_numpy(p[:6000]).requires_grad_()
call = lambda: torch.autograd.grad(kl(t, p), p)[0][-1, -1].item()
""",
        NOT_PYTHONS_END,
        "torch",
    ),
    "JAX": Caller(
        """
import jax
from kldiv_fast.jax import kl
compiled = jax.jit(kl)
call = lambda: float(compiled(t, p))
call()
""",
        NOT_PYTHONS_END,
        "jax",
    ),
    "JAX's gradients": Caller(
        """
import jax
from kldiv_fast.jax import kl
t, p = t[:6000], p[:6000]
compiled = jax.jit(jax.value_and_grad(kl, (0, 1)))
call = lambda: float(compiled(t, p)[0])
call()
""",
        NOT_PYTHONS_END,
        "jax",
    ),
    "TensorFlow": Caller(
        """
import tensorflow as tf
from kldiv_fast._tensorflow import rows
t, p = tf.constant(t), tf.constant(p)
call = lambda: float(rows(t, p)[-1])
""",
        NOT_PYTHONS_END,
        "tensorflow",
    ),
    "tf.function": Caller(
        """
import tensorflow as tf
from kldiv_fast._tensorflow import rows
t, p = tf.constant(t[:6000]), tf.constant(p[:6000])
@tf.function
def compiled():
    with tf.GradientTape() as tape:
        tape.watch(p)
        values = rows(t, p)
    return tape.gradient(values, p)[-1, -1]
call = lambda: float(compiled())
call()
""",
        NOT_PYTHONS_END,
        "tensorflow",
    ),
}

ENVIRONMENTS = [
    {"KLDIV_FAST_EXECUTOR": executor, "OMP_NUM_THREADS": threads, "TF_CPP_MIN_LOG_LEVEL": "3"}
    for threads in ("2", "4")
    for executor in _core.available_executors()
]


class Program(NamedTuple):
    caller: str
    ending: str
    number: int = 0

    def complaint(self, folder):
        """What is wrong with how it ends; None: nothing."""
        code = f"{BEGIN}\n{CALLERS[self.caller].code}\n{ENDINGS[self.ending].code}"
        lap = self.number // len(CALLERS[self.caller].endings)
        environment = ENVIRONMENTS[lap % len(ENVIRONMENTS)]
        wanted = ENDINGS[self.ending].status
        try:
            done = subprocess.run(
                [sys.executable, "-c", code, str(self.number), str(folder)],
                env=os.environ | environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"{self} {environment} hangs"
        if done.returncode == wanted:
            return None
        told = f"ends with {done.returncode} instead of {wanted}\n{done.stderr[-2000:]}"
        return f"{self} {environment} {told}"


def write_inputs(folder):
    """The command's."""
    for name, value in (("t", 0.5), ("p", 0.25)):
        np.save(Path(folder, f"{name}.npy"), np.full((8000, 1000), value, np.float32))


def programs(runs, framework_runs, only=""):
    """So many of each caller, which go through its endings."""
    for name, caller in CALLERS.items():
        if caller.framework and find_spec(caller.framework) is None:
            print(f"endings: no {name}, since {caller.framework} is not installed")
            continue
        for number in range(framework_runs if caller.framework else runs):
            program = Program(name, caller.endings[number % len(caller.endings)], number)
            if only in str(program):
                yield program


def run(runs, framework_runs, only=""):
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        write_inputs(folder)
        told = list(
            pool.map(
                lambda program: program.complaint(folder), programs(runs, framework_runs, only)
            )
        )
    complaints = [complaint for complaint in told if complaint]
    assert not complaints, f"{len(complaints)} of {len(told)}:\n" + "\n\n".join(complaints)
    print(f"endings: {len(told)} programs, each with its own status")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200, help="of each caller")
    parser.add_argument("--framework-runs", type=int, default=40, help="of each framework's caller")
    parser.add_argument("--only", default="", help="programs whose description holds this")
    options = parser.parse_args()
    run(options.runs, options.framework_runs, options.only)


if __name__ == "__main__":
    main()
