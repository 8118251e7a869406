"""Every kind of call of a hot loop, and what it may cost at most, as a multiple of the plain mean's time.

python benchmarks/calls.py                print the multiples, at 2x2 and 512x46 float32
python benchmarks/calls.py NAME COUNT     make one of them so often: instructions.py counts
"""

import sys

import kldiv_fast
import numpy as np
from kldiv_fast import kl, kl_value_and_grad
from kldiv_fast._operations import OPERATIONS
from timing import interleaved_medians

OTHERS = [operation.name for operation in OPERATIONS if operation.name != "kl"]

# name: at most so many plain means at 2x2, and at 512x46 where something is wanted of it there
CALLS = {
    "mean": (1, 1),
    "none": (2.5, 1.25),
    "none, out": (2, 1.25),
    "weights": (2.5, 1.25),
    "mask": (2.5, 1.25),
    "axis=0": (2, None),
    "epsilon=None": (1.5, None),
    "broadcast row": (2.5, None),
    "float16": (1.5, None),
    "base=2": (1.5, None),
    **dict.fromkeys(OTHERS, (1.3, None)),
    "logits": (2, None),
    "value and gradient": (4, 2.5),
    "value and gradient, out": (3, 2.5),
    "rows and gradient, out": (3, 2.5),
}


def plain(function, t, p):
    return lambda: function(t, p)


def functions(shape):
    """By name, the calls on one pair of arrays."""
    rng = np.random.default_rng(0)
    t, p = rng.dirichlet(np.ones(shape[1]), (2, shape[0])).astype(np.float32)
    half_t, half_p = t.astype(np.float16), p.astype(np.float16)
    row, rows, gradient = p[0], np.empty(len(t), np.float32), np.empty_like(t)
    weight, mask = rng.random(len(t), np.float32), np.ones(len(t), bool)
    return {
        "mean": lambda: kl(t, p),
        "none": lambda: kl(t, p, reduction="none"),
        "none, out": lambda: kl(t, p, reduction="none", out=rows),
        "weights": lambda: kl(t, p, sample_weight=weight),
        "mask": lambda: kl(t, p, mask=mask),
        "axis=0": lambda: kl(t, p, axis=0),
        "epsilon=None": lambda: kl(t, p, epsilon=None),
        "broadcast row": lambda: kl(t, row),
        "float16": lambda: kl(half_t, half_p),
        "base=2": lambda: kl(t, p, base=2),
        **{name: plain(getattr(kldiv_fast, name), t, p) for name in OTHERS},
        "logits": lambda: kl(t, p, form="logits"),
        "value and gradient": lambda: kl_value_and_grad(t, p),
        "value and gradient, out": lambda: kl_value_and_grad(t, p, out=gradient),
        "rows and gradient, out": lambda: kl_value_and_grad(
            t, p, reduction="none", out=(rows, gradient)
        ),
    }


def main():
    if len(sys.argv) == 3:
        call = functions((2, 2))[sys.argv[1]]
        for _ in range(int(sys.argv[2])):
            call()
        return
    for shape in ((2, 2), (512, 46)):
        medians = interleaved_medians(functions(shape), 3)
        for name, median in medians.items():
            multiple, most = median / medians["mean"], CALLS[name][shape != (2, 2)]
            wanted = f"of at most {most}" if most else ""
            print(
                f"{shape[0]}x{shape[1]} {name:24} {median * 1e6:7.3f} us {multiple:5.2f} {wanted}"
            )


if __name__ == "__main__":
    main()
