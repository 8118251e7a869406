"""Matrices of divergences beside SciPy, NumKong, PyTorch and NumPy's product of matrices: prints docs/distance.md's table.

Needs the extra bench. Inputs are made beforehand, PyTorch is compiled, and each peer has all cores that it can use: SciPy and
NumKong use one. Of PyTorch some rows at a time are broadcast, for the whole has no room.
SciPy, whose time is that of a pair times the pairs, is given a twentieth of the rows, and its time taken twenty times.
"""

import argparse

import kldiv_fast
import numkong
import numpy as np
import scipy.spatial.distance
import torch
from kldiv_fast.distance import cdist, pdist
from timing import interleaved_medians, machine
from tqdm import tqdm

SHAPES = [(1000, 1000), (3000, 46)]  # rows of either side, classes
DTYPES = [np.float32, np.float64]
PART = 20  # of SciPy's rows
TOGETHER = 4_000_000  # elements of a broadcast
PEERS = ["kldiv_fast, one thread", "NumPy, product", "NumKong", "SciPy", "torch.compile"]


def rows(n, classes, dtype, seed):
    x = np.random.default_rng(seed).dirichlet(np.ones(classes), n) + 1e-5
    return (x / x.sum(axis=1, keepdims=True)).astype(dtype)


@torch.compile(dynamic=False)
def _torch_kl(t, p):
    return (t[:, None] * (t.log()[:, None] - p.log())).sum(-1)


@torch.compile(dynamic=False)
def _torch_jsd(t, p):
    m = (t[:, None] + p) / 2
    return (torch.xlogy(t, t).sum(-1)[:, None] + torch.xlogy(p, p).sum(-1)) / 2 - torch.xlogy(
        m, m
    ).sum(-1)


def by_torch(function, t, p):
    """All pairs, some rows at a time."""
    step = max(1, TOGETHER // p.numel())
    t = t[: len(t) // step * step].reshape(-1, step, t.shape[1])  # of one shape: compiled once
    return lambda: torch.cat([function(part, p) for part in t])


def calls(n, classes, dtype):
    a, b = rows(n, classes, dtype, 0), rows(n, classes, dtype, 1)
    tensors = torch.from_numpy(a), torch.from_numpy(b)
    jsd_of_torch = by_torch(_torch_jsd, *tensors)
    part_of_wide = a[: n // PART].astype(np.float64), b.astype(np.float64)
    kl = {
        "kldiv_fast": lambda: cdist(a, b, "kl"),
        "NumPy, product": lambda: np.einsum("ij,ij->i", a, np.log(a))[:, None] - a @ np.log(b).T,
        "NumKong": lambda: np.asarray(numkong.cdist(a, b, metric="kld")),
        "torch.compile": by_torch(_torch_kl, *tensors),
    }
    js = {
        "kldiv_fast": lambda: cdist(a, b),
        "kldiv_fast, one thread": lambda: cdist(a, b, num_threads=1),
        "SciPy": lambda: scipy.spatial.distance.cdist(*part_of_wide, "jensenshannon"),
        "torch.compile": lambda: jsd_of_torch().sqrt(),
    }
    half = {"kldiv_fast": lambda: pdist(a)}
    jeffreys = {"kldiv_fast": lambda: cdist(a, b, "jeffreys")}
    return {"kl": kl, "jensenshannon": js, "pdist": half, "jeffreys": jeffreys}


def check(functions):
    """All give the same, to digits that float32 leaves them; NumKong adds an epsilon of its own."""
    exact = np.asarray(functions["kldiv_fast"](), np.float64)
    for name, function in functions.items():
        value = np.asarray(function(), np.float64)
        np.testing.assert_allclose(
            value, exact[: len(value)], rtol=2e-2 if name == "NumKong" else 1e-4, err_msg=name
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="for each group of calls")
    seconds = parser.parse_args().seconds
    print(
        machine(["kldiv_fast", "numpy", "scipy", "numkong", "torch"]),
        f"({kldiv_fast.current_isa()})\n",
    )
    print(f"| metric | rows x rows x classes | dtype | ms | {' | '.join(PEERS)} |")
    print("| --- | --- | --- | ---: |" + " ---: |" * len(PEERS))
    cases = [(shape, dtype) for shape in SHAPES for dtype in DTYPES]
    for (n, classes), dtype in tqdm(cases, unit="case", disable=None):
        for metric, functions in calls(n, classes, dtype).items():
            if seconds:
                check(functions)
            medians = interleaved_medians(functions, seconds, rest=0.02)
            if "SciPy" in medians:
                medians["SciPy"] *= PART
            ours = medians["kldiv_fast"]
            others = [f"{medians[name] / ours:.3g}" if name in medians else "" for name in PEERS]
            cells = [
                metric,
                f"{n}x{n}x{classes}",
                np.dtype(dtype).name,
                f"{ours * 1e3:.4g}",
                *others,
            ]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
