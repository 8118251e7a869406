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
import scipy.spatial.distance
import scipy.special
import torch
import torchmetrics.functional.regression

SOURCE = Path(__file__).parents[1]
sys.path.insert(0, str(SOURCE / "tests"))
mpmath.mp.prec = 200  # near 1 half of the bits go into the difference; 100 are left


# ---- the log-ratio ----


def float32_table(step):
    """tests/core/exhaustive.cpp, which fails beyond 2 ulp for the log-ratio and beyond 6 (12 without FMA) for terms."""
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
    head = "| ISA | function | pairs | how many | greatest error, ulp | at t | and p |"
    return [head, "| --- | --- | --- | ---: | ---: | --- | --- |", *done.stdout.splitlines()]


def hard_pairs(rng):
    """Where float64's log-ratio is hardest: near 1, near the edges of the exponent's intervals, at the extremes.

    y_true is a power of two, so that its product with the logarithm is exact and the logarithm's error is seen.
    """
    n = 1000
    near = [
        1 + s * 2.0**-k * rng.uniform(0.5, 1, n)
        for s in (-1, 1)
        for k in (2, 3, 5, 8, 13, 20, 40, 50, 51)
    ]
    edges = [e * (1 + rng.uniform(-1e-6, 1e-6, n)) for e in (2 / 3, 0.75, 4 / 3, 1.5, 2**0.5, 2)]
    unrelated = [10 ** rng.uniform(-7, 7, n) for _ in range(4)]
    ratio = np.concatenate([*near, *edges, *unrelated, [1e-7, 1e7, 1.0]])
    t = 2.0 ** -rng.integers(0, 23, ratio.size)
    return t, np.clip(t / ratio, 1e-7, 1)


def float64_table(rng):
    t, p = hard_pairs(rng)
    exact = [
        mpmath.mpf(float(a)) * mpmath.log(mpmath.mpf(float(a)) / mpmath.mpf(float(b)))
        for a, b in zip(t, p, strict=True)
    ]
    rows = ["| ISA | pairs, sampled | greatest error, ulp |", "| --- | ---: | ---: |"]
    before = kldiv_fast.current_isa()
    for isa in kldiv_fast.available_isas():
        kldiv_fast._core.select_isa(isa)
        ours = kldiv_fast.kl(t[:, None], p[:, None], reduction="none")
        errors = [
            abs(mpmath.mpf(float(x)) - e)
            / mpmath.mpf(2) ** (mpmath.floor(mpmath.log(abs(e), 2)) - 52)
            for x, e in zip(ours, exact, strict=True)
            if e != 0
        ]
        assert all(x == 0 for x, e in zip(ours, exact, strict=True) if e == 0)
        assert max(errors) <= 2, (isa, max(errors))
        rows.append(f"| {isa} | {len(errors)} | {float(max(errors)):.2f} |")
    kldiv_fast._core.select_isa(before)
    return rows


# ---- whole results ----

LOW = np.float32(1e-7)
UNIT = 2.0**-24


def exact_rows(t, p):
    """In extended precision, from the exact difference where the two are close."""
    t, p = (np.clip(x.astype(np.longdouble), np.longdouble(LOW), 1) for x in (t, p))
    near = np.abs(t - p) < p / 2
    return (t * np.where(near, np.log1p((t - p) / p), np.log(t) - np.log(p))).sum(-1)


def magnitude(t, p):
    """The sum of the terms' magnitudes, which is what the bound speaks of."""
    t, p = (np.clip(x.astype(np.float64), LOW, 1) for x in (t, p))
    return np.abs(t * np.log(t / p)).sum(-1)


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
    "NumKong": lambda t, p: np.array(
        [numkong.kullbackleibler(a, b) for a, b in zip(t, p, strict=True)]
    ),
}


def distributions(rng, rows, classes, delta):
    """Rows of y_true, and y_pred unrelated to them (delta None), or every second class more by `delta`, the others less."""
    t = rng.gamma(0.5, size=(rows, classes)) + 1e-12
    p = rng.gamma(0.5, size=(rows, classes)) + 1e-12
    if delta is not None:
        p = t * (1 + delta * np.where(np.arange(classes) % 2, -1, 1))
    return [(x / x.sum(-1, keepdims=True)).astype(np.float32) for x in (t, p)]


def whole_table(rng):
    rows = [
        "| y_pred | classes | " + " | ".join(PACKAGES) + " |",
        "| --- | ---: |" + " ---: |" * len(PACKAGES),
    ]
    for delta, bound in ((None, 1.3e-7), (1e-2, 1e-4), (1e-3, 1e-3), (1e-4, 2e-2), (0.0, 0.0)):
        for classes in (2, 10, 46, 1000, 151_936, 10_000_000):
            count = max(1, min(200, 2_000_000 // classes))
            t, p = distributions(rng, count, classes, delta)
            exact = exact_rows(t, p)
            # Where the clip acts (small probabilities) or nothing is left to differ, no package has digits to keep.
            least = {None: 0.5, 0.0: -1}.get(
                delta, 1e-12
            )  # unrelated: not near each other by chance
            kept = np.abs(exact) > least
            if not kept.any():
                continue
            errors = {}
            for name, function in PACKAGES.items():
                error = np.abs(np.asarray(function(t, p), np.longdouble) - exact)[kept]
                errors[name] = float(np.max(error / np.abs(exact[kept]) if delta != 0 else error))
            cells = " | ".join(f"{error:.1e}" if error else "0" for error in errors.values())
            what = "unrelated" if delta is None else "equal" if delta == 0 else f"off by {delta:g}"
            rows.append(f"| {what} | {classes:,} | {cells} |")
            # Few and skewed classes may leave a value so small beside its terms that no float32 kernel keeps three digits.
            assert classes in (2, 46) or errors["kldiv_fast"] <= bound, (delta, classes, errors)
            ours = np.abs(PACKAGES["kldiv_fast"](t, p) - exact)
            assert np.all(ours <= UNIT * (8 * magnitude(t, p) + 4 * np.abs(exact))), (
                delta,
                classes,
            )
            assert errors["kldiv_fast"] <= errors["NumPy"] + 2 * UNIT, (delta, classes, errors)
    return rows


# ---- the divergences that are never negative ----


def generalized(difference, p):
    """t log(t/p) - t + p of t - p and p, in extended precision: where its parts cancel, by p r^2 (1/2 - r/6 + ...)."""
    r = difference / p
    near = np.abs(r) < 0.02
    small = np.where(near, r, 0)
    series = sum((-small) ** k / ((k + 1) * (k + 2)) for k in range(12)) * small**2
    far = np.where(near, 0, r)
    return p * np.where(near, series, (1 + far) * np.log1p(far) - far)


def exact_jsd(t, p):
    m, half = (t + p) / 2, (t - p) / 2
    return (generalized(half, m) + generalized(-half, m)) / 2


EXACT = {
    "generalized_kl": lambda t, p: generalized(t - p, p),
    "jsd": exact_jsd,
    "jeffreys": lambda t, p: (t - p) * np.log1p((t - p) / p),
}


def by_torch_formula(formula):
    return lambda t, p: formula(torch.from_numpy(t), torch.from_numpy(p)).sum(-1).numpy()


def torch_jsd(t, p):
    m = (t + p) / 2
    return (t * (t / m).log() + p * (p / m).log()) / 2


def by_torchmetrics(t, p):
    js = torchmetrics.functional.regression.jensen_shannon_divergence
    return js(torch.from_numpy(t), torch.from_numpy(p), reduction="none").numpy()


def without_clip(function):
    """The clip's own kernel, with a bound that no element is below."""
    return lambda t, p: function(t, p, reduction="none", epsilon=1e-30)


FAMILY = {
    "generalized_kl": {
        "kldiv_fast": without_clip(kldiv_fast.generalized_kl),
        "SciPy": lambda t, p: scipy.special.kl_div(t, p).sum(-1),
        "PyTorch": by_torch_formula(lambda t, p: t * (t / p).log() - t + p),
    },
    "jsd": {
        "kldiv_fast": without_clip(kldiv_fast.jsd),
        "SciPy": lambda t, p: scipy.spatial.distance.jensenshannon(t, p, axis=-1) ** 2,
        "torchmetrics": by_torchmetrics,
        "PyTorch": by_torch_formula(torch_jsd),
    },
    "jeffreys": {
        "kldiv_fast": without_clip(kldiv_fast.jeffreys),
        "SciPy": lambda t, p: (scipy.special.rel_entr(t, p) + scipy.special.rel_entr(p, t)).sum(-1),
        "PyTorch": by_torch_formula(lambda t, p: (t - p) * (t / p).log()),
    },
}


def family_table(rng):
    """Greatest relative error of any row: 5e-7 in float32, 1e-15 in float64."""
    peers = ["SciPy", "torchmetrics", "PyTorch"]
    rows = [
        "| divergence | dtype | off by | classes | kldiv_fast | " + " | ".join(peers) + " |",
        "| --- | --- | ---: | ---: | ---: |" + " ---: |" * len(peers),
    ]
    for name, packages in FAMILY.items():
        for dtype, bound in ((np.float32, 5e-7), (np.float64, 1e-15)):
            for delta in (1, 1e-2, 1e-4, 1e-6):
                for classes in (2, 46, 1000) if 1e-6 < delta < 1 else (2, 46, 1000, 10_000_000):
                    cells = family_errors(rng, name, packages, dtype, delta, classes)
                    assert cells["kldiv_fast"] <= bound, (name, dtype, delta, classes, cells)
                    text = [f"{cells[p]:.1e}" if p in cells else "" for p in ("kldiv_fast", *peers)]
                    what = f"{name} | {np.dtype(dtype)} | {delta:g} | {classes:,}"
                    rows.append(f"| {what} | " + " | ".join(text) + " |")
    return rows


def family_errors(rng, name, packages, dtype, delta, classes):
    count = max(1, min(100, 200_000 // classes))
    t = rng.uniform(0.5, 1, (count, classes))
    p = t * (1 + delta * rng.uniform(-0.5, 1, (count, classes)))
    t, p = ((x / x.sum(-1, keepdims=True)).astype(dtype) for x in (t, p))
    exact = EXACT[name](t.astype(np.longdouble), p.astype(np.longdouble)).sum(-1)
    differ = exact != 0  # rounded to the dtype some rows are equal: exactly 0
    errors = {}
    for package, function in packages.items():
        with np.errstate(invalid="ignore"):  # SciPy's root of what should be 0
            got = np.asarray(function(t, p), np.longdouble)
        assert package != "kldiv_fast" or np.all(got[~differ] == 0)
        errors[package] = float(np.max(np.abs(got - exact)[differ] / exact[differ]))
    return errors


TEXT = """# Accuracy

Written by `python tools/accuracy.py`, which fails if a figure here gets worse than what it promises.

## The log-ratio and the terms, float32: every number

The kernel's log(t/p) against the double-precision log1p((t - p)/p), whose argument is the exact difference, and the
terms of the divergences that are never negative, against a series in double where their parts cancel. Every
float32 in [1e-7, 1] on either side of 1, and dense sets of pairs; in units of the last place (ulp) of the true value.

{float32}

## The log-ratio, float64: sampled

Against mpmath with 100 bits, where it is hardest: ratios near 1, near the edges of an exponent's interval, extremes.
y_true is a power of two, so that the kernel's t log(t/p) shows the logarithm's own error.

{float64}

## Whole results

float32 inputs; the greatest relative error of any row, against extended precision (for equal inputs: the greatest
value, which should be 0). Unrelated are random distributions at least half a nat apart. Off by delta: every second
class is more probable by that factor, the others less. Rows whose true value is below 1e-12 are left out.

{whole}

## The divergences that are never negative

The greatest relative error of any row, against extended precision, without a clip: y_pred is y_true, each class times
1 + delta * u with u between -0.5 and 1, and both are normalised. At most 5e-7 in float32 and 1e-15 in float64, or
`tools/accuracy.py` fails. No term is below 0, so nothing cancels: the error is a term's own, a few ulp, however near
the two are. SciPy's jsd is `jensenshannon(t, p)**2`, whose inputs are normalised again; PyTorch stands for its
formula as it is usually written.

{family}

## Why, and a bound

Every other package rounds the quotient t/p before it takes the logarithm. That rounding moves the logarithm by up to
u = 2^-24 however small it is, so the result moves by u * sum |t|: nothing beside unrelated distributions, everything
beside nearly equal ones, whose divergence is a sum of terms that cancel down to about delta^2 / 2.

Here s = (t' - p)/(t' + p) is taken from the exact difference (t' is t moved to p's binade, which is exact too, and
Sterbenz' lemma makes t' - p exact), so log(t/p) carries a relative error of at most 2 ulp, 4u, even where it is
near 0. Then, with S = sum |t log(t/p)|:

- the product with t: one rounding (it is fused into the addition, and counted there);
- additions in the element's format: each of 16 lanes takes at most 32 terms, so at most 32u of what the lane holds;
- everything after a segment of 512 elements is in double: 8 additions in trees, and one for each segment
  or piece (along columns: for 32 terms).

Together |error| <= (36u + (8 + n/32) v) S + u |result|, with v = 2^-53 (and u = v for float64 inputs), for any input;
`error_bound` in `tests/oracle.py`. The generated cases of `tests/test_properties.py` and the rows above are held to it.
Roundings that do not conspire stay far below: some 4u S, the logarithm's own.
Relative to the result that is 4u S/|result|: for two distributions off by delta S is about delta and the result about
delta^2 / 2, so the relative error grows like 8u/delta. For equal inputs every term is exactly 0.
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
        "family": family_table(rng),
    }
    text = TEXT
    for name, rows in tables.items():
        text = text.replace("{" + name + "}", "\n".join(rows))
    options.output.write_text(text)
    print(text)


if __name__ == "__main__":
    sys.exit(main())
