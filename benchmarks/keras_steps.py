"""Steps of the same Keras model with Keras's loss and with kldiv_fast's, in turn.

KERAS_BACKEND=tensorflow python benchmarks/keras_steps.py [--seconds 5] [--mode graph ...] ...
python benchmarks/keras_steps.py --output docs/steps.md

One backend a process, the one that KERAS_BACKEND names; with --output, a process for each. Prints a
table: the median milliseconds of a step with Keras's loss and with this one, their ratio, and the
ratio of Keras's loss to itself, a third model measured in the same turns: what is left of the
machine's noise. Before anything is timed, both have to train alike.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import kldiv_fast.keras
import numpy as np
from timing import interleaved_medians, machine

BATCHES = 4  # in an evaluation
PACKAGES = ["kldiv_fast", "keras", "tensorflow-cpu", "tensorflow", "torch", "jax", "numpy"]

# Name: inputs, hidden layers, classes, batch.
MODELS = {
    "reuters": (1000, (64, 64), 46, 512),
    "wide": (64, (), 1000, 4096),
}
MODES = {
    "eager": dict(run_eagerly=True, jit_compile=False),
    "graph": dict(jit_compile=False),
    "jit": dict(jit_compile=True),
    "auto": dict(jit_compile="auto"),
}
KERAS = (keras.losses.KLDivergence, keras.metrics.KLDivergence)
OURS = (kldiv_fast.keras.KLDivergence, kldiv_fast.keras.KLDivergenceMetric)
CONTENDERS = {"keras": KERAS, "kldiv_fast": OURS, "keras again": KERAS}


def make_data(name):
    """One batch: inputs, and distributions as targets."""
    inputs, _, classes, batch = MODELS[name]
    rng = np.random.default_rng(20261124)
    x = rng.random((batch, inputs), np.float32)
    y = rng.random((batch, classes), np.float32) ** 4
    y /= y.sum(axis=-1, keepdims=True)
    return x, y


def make_model(name, mode, contender, metric=False):
    inputs, hidden, classes, _ = MODELS[name]
    loss, streaming = CONTENDERS[contender]
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(units, activation="relu") for units in hidden]
    model = keras.Sequential(
        [keras.Input((inputs,)), *layers, keras.layers.Dense(classes, activation="softmax")]
    )
    metrics = [streaming()] if metric else None
    model.compile(optimizer="rmsprop", loss=loss(), metrics=metrics, **MODES[mode])
    return model


def assert_equal(name, results):
    """Every contender's numbers are Keras's."""
    for contender, values in results.items():
        np.testing.assert_allclose(
            values, results["keras"], rtol=1e-4, err_msg=f"{name}: {contender} trains differently"
        )


def train_steps(name, mode):
    """A function for each contender that trains one step on a batch that stands ready."""
    batch = [keras.ops.convert_to_tensor(a) for a in make_data(name)]
    models = {contender: make_model(name, mode, contender) for contender in CONTENDERS}
    losses = {
        c: [float(model.train_on_batch(*batch)) for _ in range(3)] for c, model in models.items()
    }
    assert_equal(name, losses)
    return {c: lambda model=model: model.train_on_batch(*batch) for c, model in models.items()}


def evaluations(name, mode):
    """The same for an evaluation, with loss and metric, of a few batches."""
    x, y = (np.concatenate([a] * BATCHES) for a in make_data(name))
    models = {contender: make_model(name, mode, contender, metric=True) for contender in CONTENDERS}
    keywords = dict(batch_size=MODELS[name][-1], verbose=0)
    assert_equal(name, {c: model.evaluate(x, y, **keywords) for c, model in models.items()})
    return {c: lambda model=model: model.evaluate(x, y, **keywords) for c, model in models.items()}


WORK = {"train": train_steps, "evaluate": evaluations}


def measure(name, mode, work, seconds):
    """Median seconds of each contender."""
    return interleaved_medians(WORK[work](name, mode), seconds)


def line(name, mode, work, medians):
    _, _, classes, batch = MODELS[name]
    base, ours = medians["keras"], medians["kldiv_fast"]
    cells = [keras.config.backend(), f"{batch}x{classes}", work, mode]
    cells += [f"{base * 1e3:.3g}", f"{ours * 1e3:.3g}"]
    cells += [f"{ours / base:.3f}", f"{medians['keras again'] / base:.3f}"]
    return "| " + " | ".join(cells) + " |"


# ---- the page ----

# What Keras's modes come to on each backend. (run_eagerly on JAX traces every step anew, on either loss.)
PAGE_MODES = {"tensorflow": ["eager", "graph", "jit"], "jax": ["jit"], "torch": ["eager", "jit"]}

HEAD = [
    "| backend | size | work | mode | Keras, ms | kldiv_fast, ms | ratio | Keras to itself |",
    "| --- | --- | --- | --- | ---: | ---: | ---: | ---: |",
]

PAGE = """# Training steps

Written by `python benchmarks/keras_steps.py --output docs/steps.md` on {machine}.

One step (`train_on_batch`), or one evaluation of {batches} batches with loss and metric, of the same model with Keras's own
loss and with `kldiv_fast.keras.KLDivergence`: median milliseconds, measured in turn in one run, after both were seen to
train alike. 512x46 is the Reuters classifier (1000-64-64-46), 4096x1000 a single layer on 64 inputs, where the loss is
what counts. *Keras to itself* is a third model, with Keras's loss again: what it differs from 1 is the machine's noise. This
project holds itself to a ratio of at most 1.02.

{table}
"""


def write_page(path, seconds):
    """Every backend in a process of its own."""
    lines = []
    for backend, modes in PAGE_MODES.items():
        command = [sys.executable, __file__, "--seconds", str(seconds), "--mode", *modes]
        done = subprocess.run(
            command,
            env=os.environ | {"KERAS_BACKEND": backend},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        measured = [line for line in done.stdout.splitlines() if line.startswith(f"| {backend} ")]
        print(*measured, sep="\n", flush=True)
        lines += measured
    page = PAGE.format(machine=machine(PACKAGES), batches=BATCHES, table="\n".join(HEAD + lines))
    path.write_text(page)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5, help="for each line of the table")
    parser.add_argument("--mode", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--work", nargs="+", choices=WORK, default=list(WORK))
    parser.add_argument("--output", type=Path, help="write the page, of all backends")
    options = parser.parse_args()
    if options.output:
        return write_page(options.output, options.seconds)
    print(machine(PACKAGES), "\n")
    print(*HEAD, sep="\n")
    for name in options.model:
        for work in options.work:
            for mode in options.mode:
                medians = measure(name, mode, work, options.seconds)
                print(line(name, mode, work, medians), flush=True)


if __name__ == "__main__":
    main()
