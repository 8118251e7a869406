"""kldiv_fast.torch beside PyTorch's own formula, eager and compiled: value and gradient of y_pred together.

    python benchmarks/torch_backward.py [--seconds S]

Values and gradients are asserted equal before anything is timed. Then the smallest call, 2 x 2, with and without a
gradient, for each divergence, beside torch.nn.functional.kl_div too. Ends with an error if a target is missed: five times
the eager formula's speed at 8192 x 1000; the smallest call of kl no slower than the eager formula's, and than kl_div's.
"""

import argparse
import sys

import kldiv_fast.torch
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


def kl_div(y_true, log_pred):
    return torch.nn.functional.kl_div(log_pred, y_true, reduction="batchmean")


def time_smallest(seconds):
    """Medians of the value alone and with its gradient, by name."""
    y_true, y_pred = (torch.from_numpy(x) for x in make_pair((2, 2)))
    inputs = {"eager": (formula, y_pred), "kl_div": (kl_div, y_pred.log())}
    for name in kldiv_fast.torch.__all__:
        inputs[name] = getattr(kldiv_fast.torch, name), y_pred

    def with_gradient(function, pred):
        pred = pred.clone().requires_grad_()

        def step():
            pred.grad = None
            function(y_true, pred).backward()

        return step

    forward = {name: lambda f=f, p=p: f(y_true, p) for name, (f, p) in inputs.items()}
    both = {name: with_gradient(*given) for name, given in inputs.items()}
    return interleaved_medians(forward, seconds), interleaved_medians(both, seconds)


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
    missed = medians["eager"] < TARGET * ours
    forward, both = time_smallest(options.seconds)
    for what, found in (("value", forward), ("value and gradient", both)):
        line = "  ".join(f"{name} {seconds * 1e6:.1f} us" for name, seconds in found.items())
        print(f"2 x 2, {what}: {line}", flush=True)
    if forward["kl"] > forward["eager"] or any(x["kl"] > x["kl_div"] for x in (forward, both)):
        sys.exit("missed: the smallest call no slower than PyTorch's own")
    if missed:
        sys.exit(f"missed: {TARGET} times as fast as the eager formula at {SHAPES[-1]}")


if __name__ == "__main__":
    main()
