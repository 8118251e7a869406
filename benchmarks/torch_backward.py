"""kldiv_fast.torch beside PyTorch's own formula, eager and compiled: value and gradient of y_pred together.

    python benchmarks/torch_backward.py [--seconds S]

Values and gradients are asserted equal before anything is timed. Ends with an error if the target is missed: five times
the eager formula's speed at 8192 x 1000.
"""

import argparse
import sys

import torch
from kldiv_fast.torch import kl
from peers import make_pair
from timing import interleaved_medians, machine

SHAPES = [(2, 2), (512, 46), (4096, 1000), (8192, 1000)]
TARGET = 5


def formula(y_true, y_pred):
    t, p = y_true.clamp(1e-7, 1), y_pred.clamp(1e-7, 1)
    return (t * (t / p).log()).sum(-1).mean()


def prepare(function, shape):
    """A call that computes the loss and y_pred's gradient, and returns both."""
    y_true, y_pred = (torch.from_numpy(x) for x in make_pair(shape))
    y_pred.requires_grad_()

    def step():
        y_pred.grad = None
        loss = function(y_true, y_pred)
        loss.backward()
        return loss.detach(), y_pred.grad

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5, help="for each shape")
    options = parser.parse_args()
    print(machine(["kldiv_fast", "torch"]))
    functions = {"kldiv_fast": kl, "eager": formula, "torch.compile": torch.compile(formula)}
    for shape in SHAPES:
        steps = {name: prepare(function, shape) for name, function in functions.items()}
        exact = steps["eager"]()
        for step in steps.values():
            torch.testing.assert_close(step(), exact, rtol=1e-4, atol=1e-9)
        medians = interleaved_medians(steps, options.seconds)
        ours = medians["kldiv_fast"]
        line = "  ".join(
            f"{name} {seconds * 1e6:9.1f} us ({seconds / ours:.2f}x)"
            for name, seconds in medians.items()
        )
        print(f"{shape[0]:>5} x {shape[1]:<5} {line}", flush=True)
    if medians["eager"] < TARGET * ours:
        sys.exit(f"missed: {TARGET} times as fast as the eager formula at {SHAPES[-1]}")


if __name__ == "__main__":
    main()
