"""Peak memory beyond inputs of 4 GB in all, in a process of its own."""

import subprocess
import sys

from tables import Goal, table

TITLE = "Memory"
PEAK = """
import numpy as np
from kldiv_fast import kl

def kib(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name + ":"))

rows, classes = {shape}
pair = [np.full((rows, {step} * classes), 1 / classes, np.float32)[:, ::{step}] for _ in range(2)]
labels = np.arange(rows) % classes
small = np.full((512, 2048), 0.25, np.float32)  # first calls: threads begin, code is loaded
for view in (small, small[:, ::2]):
    kl(view, view), kl(view, view, axis=0), kl(view, view, axis=0, reduction="none"), kl(view[:512, :512], view[:512, :512].T)
    for form in ("counts", "log_probs", "logits"):
        kl(view, view, form=form), kl(labels[:512], view, form=("labels", form))
with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")
before = kib("VmRSS")
{call}
print(max(0, kib("VmHWM") - before))
"""
TALL, TALL_HALF, SQUARE = "(1 << 18, 2048)", "(1 << 18, 1024)", "(1 << 14, 1 << 15)"
CASES = {  # name: shape, step between elements, call
    "mean": (TALL, 1, "kl(*pair)"),
    "axis=0": (TALL, 1, "kl(*pair, axis=0)"),
    "axis=0, every row": (TALL, 1, 'kl(*pair, axis=0, reduction="none")'),
    "every second element": (TALL_HALF, 2, "kl(*pair)"),
    "C beside Fortran order": (SQUARE, 1, "kl(pair[0], pair[1].reshape(classes, rows).T)"),
    **{form: (TALL, 1, f"kl(*pair, form={form!r})") for form in ("counts", "log_probs", "logits")},
    "labels beside logits": (
        TALL,
        1,
        'kl(labels, pair[0], form=("labels", "logits")), kl(labels, pair[1], form=("labels", "logits"))',
    ),
}


def peak(shape, step, call):
    """KiB."""
    code = PEAK.format(shape=shape, step=step, call=call)
    command = [sys.executable, "-c", code]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(_):
    from tqdm import tqdm

    return {name: peak(*case) for name, case in tqdm(CASES.items(), desc="memory", unit="case")}


def lines(found):
    def columns(data):
        return ["peak beyond the inputs, KiB"], {(name,): [kib] for name, kib in data.items()}

    yield from table(["4 GB of float32"], found, columns)


def goals(data, isa):
    for name, kib in data.items():
        what = f"peak memory beyond 4 GB of input, {name}, MB"
        yield Goal(what, kib * 1024 / 1e6, 0, 1)
