"""Write docs/accuracy.md: the error of the log-ratio, and of whole results beside other packages.

python tools/accuracy.py [--output docs/accuracy.md] [--step 1]

Fails if a figure is worse than what the page promises.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import kldiv_fast
import mpmath
import numkong
import numpy as np
import scipy.special
import torch

SOURCE = Path(__file__).parents[1]
mpmath.mp.prec = 100


# ---- the log-ratio ----


def float32_table(step):
    """tests/core/exhaustive.cpp, which fails beyond 2 ulp."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["cmake", "-S", SOURCE, "-B", folder], check=True, capture_output=True)
        subprocess.run(
            ["cmake", "--build", folder, "--target", "exhaustive", "-j2"],
            check=True,
            capture_output=True,
        )
        done = subprocess.run(
            [f"{folder}/exhaustive", str(step)], check=True, capture_output=True, text=True
        )
    head = "| ISA | pairs | how many | greatest error, ulp | at t | and p |"
    return [head, "| --- | --- | ---: | ---: | --- | --- |", *done.stdout.splitlines()]


def hard_pairs(rng):
    """Where float64's log-ratio is hardest: near 1, near the edges of the exponent's intervals, at the extremes."""
    n = 400
    p = rng.uniform(1e-7, 1, n)
    near = [p * (1 + s * 2.0**-k) for s in (-1, 1) for k in (1, 3, 8, 20, 40, 51, 52)]
    edges = [
        np.clip(p * e * (1 + rng.uniform(-1e-6, 1e-6, n)), 1e-7, 1)
        for e in (2 / 3, 0.75, 4 / 3, 1.5, 2**0.5, 2)
    ]
    unrelated = [10 ** rng.uniform(-7, 0, n) for _ in range(4)]
    extremes = [np.full(n, 1e-7), np.ones(n)]
    t = np.concatenate([*near, *edges, *unrelated, *extremes])
    return np.clip(t, 1e-7, 1), np.tile(p, len(t) // n)


def float64_table(rng):
    t, p = hard_pairs(rng)
    exact = [
        mpmath.mpf(float(a)) * mpmath.log(mpmath.mpf(float(a)) / mpmath.mpf(float(b)))
        for a, b in zip(t, p)
    ]
    rows = ["| ISA | pairs, sampled | greatest error of t log(t/p), ulp |", "| --- | ---: | ---: |"]
    before = kldiv_fast.current_isa()
    for isa in kldiv_fast.available_isas():
        kldiv_fast._core.select_isa(isa)
        ours = kldiv_fast.kl(t[:, None], p[:, None], reduction="none")
        errors = [
            abs(mpmath.mpf(float(x)) - e)
            / mpmath.mpf(2) ** (mpmath.floor(mpmath.log(abs(e), 2)) - 52)
            for x, e in zip(ours, exact)
            if e != 0
        ]
        assert all(x == 0 for x, e in zip(ours, exact) if e == 0)
        # The log is within 2 ulp; its product with t is rounded once more, and stands in a binade of its own.
        assert max(errors) <= 4.5, (isa, max(errors))
        rows.append(f"| {isa} | {len(errors)} | {float(max(errors)):.2f} |")
    kldiv_fast._core.select_isa(before)
    return rows


# ---- whole results ----

LOW = np.float32(1e-7)


def exact_rows(t, p):
    """In extended precision, from the exact difference where the two are close."""
    t, p = (np.clip(x.astype(np.longdouble), np.longdouble(LOW), 1) for x in (t, p))
    near = np.abs(t - p) < p / 2
    return (t * np.where(near, np.log1p((t - p) / p), np.log(t) - np.log(p))).sum(-1)


def by_numpy(t, p):
    t, p = np.clip(t, LOW, 1), np.clip(p, LOW, 1)
    return (t * np.log(t / p)).sum(-1)


def by_torch(t, p):
    t, p = (torch.from_numpy(x).clamp(1e-7, 1) for x in (t, p))
    return (t * (t / p).log()).sum(-1).numpy()


PACKAGES = {
    "kldiv_fast": lambda t, p: kldiv_fast.kl(t, p, reduction="none"),
    "NumPy": by_numpy,
    "Keras (TensorFlow)": lambda t, p: keras.losses.kl_divergence(t, p).numpy(),
    "PyTorch": by_torch,
    "SciPy rel_entr": lambda t, p: scipy.special.rel_entr(
        np.clip(t, LOW, 1), np.clip(p, LOW, 1)
    ).sum(-1),
    "NumKong": lambda t, p: np.array([numkong.kullbackleibler(a, b) for a, b in zip(t, p)]),
}


def distributions(rng, rows, classes, delta):
    """Rows of y_true, and y_pred unrelated to them (delta None) or within `delta` of them, relative."""
    t = rng.gamma(0.5, size=(rows, classes)) + 1e-12
    p = (
        rng.gamma(0.5, size=(rows, classes)) + 1e-12
        if delta is None
        else t * (1 + delta * rng.uniform(-1, 1, t.shape))
    )
    return [(x / x.sum(-1, keepdims=True)).astype(np.float32) for x in (t, p)]


def whole_table(rng):
    rows = [
        "| y_pred | classes | " + " | ".join(PACKAGES) + " |",
        "| --- | ---: |" + " ---: |" * len(PACKAGES),
    ]
    for delta, bound in ((None, 1.2e-7), (1e-2, 1e-4), (1e-3, 1e-3), (1e-4, 2e-2), (0.0, 0.0)):
        for classes in (2, 10, 46, 1000, 151_936, 10_000_000):
            count = max(1, min(200, 2_000_000 // classes))
            t, p = distributions(rng, count, classes, delta)
            exact = exact_rows(t, p)
            # Where the clip acts (small probabilities) or nothing is left to differ, no package has digits to keep.
            kept = np.abs(exact) > 1e-12 if delta != 0 else np.full(count, True)
            if not kept.any():
                continue
            errors = {}
            for name, function in PACKAGES.items():
                error = np.abs(np.asarray(function(t, p), np.longdouble) - exact)[kept]
                errors[name] = float(np.max(error / np.abs(exact[kept]) if delta != 0 else error))
            cells = " | ".join(f"{error:.1e}" if error else "0" for error in errors.values())
            what = "unrelated" if delta is None else "equal" if delta == 0 else f"within {delta:g}"
            rows.append(f"| {what} | {classes:,} | {cells} |")
            assert errors["kldiv_fast"] <= bound, (delta, classes, errors)
            unit = 2.0**-23
            assert errors["kldiv_fast"] <= errors["NumPy"] + unit, (delta, classes, errors)
    return rows


TEXT = """# Accuracy

Written by `python tools/accuracy.py`, which fails if a figure here gets worse than what it promises.

## The log-ratio, float32: every number

The kernel's log(t/p) against the double-precision log1p((t - p)/p), whose argument is the exact difference. Every
float32 in [1e-7, 1] on either side of 1, and dense sets of pairs; in units of the last place (ulp) of the true value.

{float32}

## The log-ratio, float64: sampled

Against mpmath with 100 bits, where it is hardest: ratios near 1, near the edges of an exponent's interval, extremes.
What is compared is the term t log(t/p): rounded once more than the logarithm, and up to a factor of two finer in ulp.

{float64}

## Whole results

float32 inputs; the greatest relative error of any row, against extended precision (for equal inputs: the greatest
value, which should be 0). Rows whose true value is below 1e-12 are left out.

{whole}

## Why, and a bound

Every other package rounds the quotient t/p before it takes the logarithm. That rounding moves the logarithm by up to
u = 2^-24 however small it is, so the result moves by u * sum |t|: nothing beside unrelated distributions, everything
beside nearly equal ones, whose divergence is a sum of terms that cancel down to about delta^2 / 2.

Here s = (t' - p)/(t' + p) is taken from the exact difference (t' is t moved to p's binade, which is exact too, and
Sterbenz' lemma makes t' - p exact), so log(t/p) carries a relative error of at most 2 ulp, 4u, even where it is
near 0. Then, with S = sum |t log(t/p)|:

- the product with t: one rounding (it is fused into the addition), at most u of the term or of the sum so far;
- additions in float32: each of 16 lanes takes at most 32 terms, so at most 32u of what the lane holds, u for one term;
- everything after a segment of 512 elements is in double: nothing that float32 could see;
- the result: u/2 of itself.

Together |error| <= (4 + 32) u S at the very worst, and by the usual square-root law of roundings some 8u S;
`tests/test_accuracy.py` and the generated cases of `tests/test_properties.py` hold it to 8u S + 4u |result|.
Relative to the result this is (8u) S/|result|: for two distributions within delta of each other S is about delta
and the result about delta^2 / 2, so the relative error grows like 1/delta. For equal inputs every term is exactly 0.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=SOURCE / "docs" / "accuracy.md")
    parser.add_argument(
        "--step", type=int, default=1, help="every STEP-th float32 (default: 1, all)"
    )
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    tables = {
        "float32": float32_table(options.step),
        "float64": float64_table(rng),
        "whole": whole_table(rng),
    }
    text = TEXT
    for name, rows in tables.items():
        text = text.replace("{" + name + "}", "\n".join(rows))
    options.output.write_text(text)
    print(text)


if __name__ == "__main__":
    sys.exit(main())
