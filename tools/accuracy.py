"""Write docs/accuracy.md: the error of the log-ratio, and of whole results beside other packages.

python tools/accuracy.py [--output docs/accuracy.md] [--step 1]

Fails if a figure is worse than what the page promises.
"""

import argparse
import functools
import itertools
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import jax.numpy as jnp
import keras
import kldiv_fast
import numkong
import numpy as np
import scipy.spatial.distance
import scipy.special
import torch
import torchmetrics.functional.regression
from kldiv_fast._formulas import terms
from kldiv_fast._meaning import Settings

SOURCE = Path(__file__).parents[1]
sys.path.insert(0, str(SOURCE / "tests"))
from oracle import (
    POSITIVE,
    SCIPYS,
    TERMS,
    exact_form_rows,
    exact_label_rows,
    exact_rows,
    exact_terms,
    oracle,
)

# ---- the log-ratio and the terms ----


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


def in_ulp(found, exact):
    """The greatest error of some doubles."""
    assert all(x == 0 for x, e in zip(found, exact, strict=True) if e == 0)
    pairs = [(float(x), e) for x, e in zip(found, exact, strict=True) if e != 0]
    return max(float(abs(x - e)) / 2.0 ** (math.frexp(float(e))[1] - 53) for x, e in pairs)


def float64_table(rng):
    t, p = hard_pairs(rng)
    rows = [
        "| ISA | divergence | pairs, sampled | greatest error, ulp |",
        "| --- | --- | ---: | ---: |",
    ]
    before = kldiv_fast.current_isa()
    for name in TERMS:
        exact = exact_terms(name, t, p)
        for isa in kldiv_fast.available_isas():
            kldiv_fast._core.select_isa(isa)
            found = getattr(kldiv_fast, name)(t[:, None], p[:, None], reduction="none")
            error = in_ulp(found, exact)
            most = 2 if name == "kl" else 12 if isa == "baseline" else 6
            assert error <= most, (name, isa, error)
            rows.append(f"| {isa} | {name} | {len(exact)} | {error:.2f} |")
    kldiv_fast._core.select_isa(before)
    return rows


# ---- whole results ----

LOW = np.float32(1e-7)
UNIT = 2.0**-24


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
            exact = oracle(t, p, work=np.float32)
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


def by_torch_formula(name):
    """The package's own table has it as it is usually written."""
    term = functools.partial(terms, torch, Settings(name))
    return lambda t, p: term(torch.from_numpy(t), torch.from_numpy(p)).sum(-1).numpy()


def by_torchmetrics(t, p):
    js = torchmetrics.functional.regression.jensen_shannon_divergence
    return js(torch.from_numpy(t), torch.from_numpy(p), reduction="none").numpy()


# Functions of whole rows that packages have for one divergence.
OF_ROWS = {
    "jsd": {
        "SciPy": lambda t, p: scipy.spatial.distance.jensenshannon(t, p, axis=-1) ** 2,
        "torchmetrics": by_torchmetrics,
    }
}


def family(name):
    """By package, what it makes of rows."""
    ours = getattr(kldiv_fast, name)
    # The clip's own kernel, with a bound that no element is below.
    found = {"kldiv_fast": lambda t, p: ours(t, p, reduction="none", epsilon=1e-30)}
    if name in SCIPYS:
        found["SciPy"] = lambda t, p: SCIPYS[name](t, p).sum(-1)
    return found | {"PyTorch": by_torch_formula(name)} | OF_ROWS.get(name, {})


def family_table(rng):
    """Greatest relative error of any row: 5e-7 in float32, 1e-15 in float64."""
    peers = ["SciPy", "torchmetrics", "PyTorch"]
    rows = [
        "| divergence | dtype | off by | classes | kldiv_fast | " + " | ".join(peers) + " |",
        "| --- | --- | ---: | ---: | ---: |" + " ---: |" * len(peers),
    ]
    for name in POSITIVE:
        packages = family(name)
        for dtype, bound in ((np.float32, 5e-7), (np.float64, 1e-15)):
            for delta in (1, 1e-2, 1e-4, 1e-6):
                for classes in (2, 46, 1000) if 1e-6 < delta < 1 else (2, 46, 1000, 10_000_000):
                    cells = family_errors(rng, name, packages, dtype, delta, classes)
                    assert cells["kldiv_fast"] <= bound, (name, dtype, delta, classes, cells)
                    text = [f"{cells[p]:.1e}" if p in cells else "" for p in ("kldiv_fast", *peers)]
                    what = f"{name} | {np.dtype(dtype)} | {delta:g} | {classes:,}"
                    rows.append(f"| {what} | " + " | ".join(text) + " |")
    return rows


# Of the longest row so many classes differ: the oracle takes its time. Odd, so that they meet every lane.
DISTINCT = 5**6


def family_errors(rng, name, packages, dtype, delta, classes):
    count, repeats = max(1, min(100, 200_000 // classes)), max(1, classes // DISTINCT)
    t = rng.uniform(0.5, 1, (count, classes // repeats))
    p = t * (1 + delta * rng.uniform(-0.5, 1, t.shape))
    t, p = ((x / (repeats * x.sum(-1, keepdims=True))).astype(dtype) for x in (t, p))
    exact = repeats * exact_rows(name, t, p, epsilon=None)
    t, p = (np.tile(x, repeats) for x in (t, p))
    assert t.shape[-1] == classes
    differ = exact != 0  # rounded to the dtype some rows are equal: exactly 0
    errors = {}
    for package, function in packages.items():
        with np.errstate(invalid="ignore"):  # SciPy's root of what should be 0
            got = np.asarray(function(t, p), np.longdouble)
        assert package != "kldiv_fast" or np.all(got[~differ] == 0)
        errors[package] = float(np.max(np.abs(got - exact)[differ] / exact[differ]))
    return errors


# ---- logits ----


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def of_log_softmaxes(library, softmax, name):
    """The divergence as it is usually written with rounded log-softmaxes, by a library's functions."""

    def kl(log_t, log_p):
        return (library.exp(log_t) * (log_t - log_p)).sum(-1)

    def rows(a, b, temperature):
        log_t, log_p = softmax(a / temperature), softmax(b / temperature)
        if name == "kl":
            return kl(log_t, log_p)
        log_m = library.logaddexp(log_t, log_p) - math.log(2)
        return (kl(log_t, log_m) + kl(log_p, log_m)) / 2

    return rows


def kl_by_torch(a, b, temperature):
    log_t, log_p = (torch.log_softmax(x / temperature, -1) for x in (a, b))
    kl_div = torch.nn.functional.kl_div
    return kl_div(log_p, log_t, log_target=True, reduction="none").sum(-1)


def of_logits(name, dtype):
    """By package, what it makes of rows of logits. JAX has no float64, unless all of it is asked for."""
    ours = getattr(kldiv_fast, name)
    formula = of_log_softmaxes(torch, functools.partial(torch.log_softmax, dim=-1), name)
    by_torch = kl_by_torch if name == "kl" else formula
    packages = {
        "kldiv_fast": lambda a, b, temperature: ours(
            a, b, form="logits", temperature=temperature, reduction="none"
        ),
        "NumPy": of_log_softmaxes(np, log_softmax, name),
        "PyTorch": lambda a, b, temperature: by_torch(*map(torch.from_numpy, (a, b)), temperature),
        "JAX": of_log_softmaxes(jnp, jax.nn.log_softmax, name),
        "SciPy": of_log_softmaxes(np, functools.partial(scipy.special.log_softmax, axis=-1), name),
    }
    return {x: f for x, f in packages.items() if x != "JAX" or dtype == np.float32}


LOGITS_PACKAGES = list(of_logits("kl", np.float32))


def logits_errors(name, a, b, temperature=1, repeats=1):
    """Greatest relative error of any row, by package, of two arrays of which each row is repeated so often."""
    # A softmax of classes that come again and again is divided by how often: no row's value changes.
    exact = exact_form_rows(name, a, b, ("logits", "logits"), temperature=temperature)
    a, b = (np.tile(x, repeats) for x in (a, b))
    differ = (
        exact > 1e-40
    )  # of rows that are equal, or apart by a constant, mpmath leaves its last digit
    errors = {}
    for package, function in of_logits(name, a.dtype).items():
        got = np.asarray(function(a, b, temperature), np.longdouble)
        assert package != "kldiv_fast" or np.all(got[~differ] == 0)
        errors[package] = float(np.max(np.abs(got - exact)[differ] / exact[differ]))
    return errors


def most_of_logits(name, dtype, delta, classes):
    """What TEXT promises of logits that differ by `delta`, over the temperature."""
    if dtype == np.float32:
        return 1e-5 if (name, delta, classes) == ("kl", 1, 2) else 2e-6
    return 1e-13 if name == "kl" else max(1e-13, (1e4 if classes == 2 else 8) * 2.0**-52 / delta)


# Of the longest rows so many classes differ, as DISTINCT: exponentials take the oracle longer.
DISTINCT_LOGITS = 5**5


def logits_table(rng):
    cases = itertools.product(
        ("kl", "jsd"),
        (np.float32, np.float64),
        (1, 1e-2, 1e-4, 1e-6),
        (2, 46, 1000, 100_000, 1_000_000),
    )
    rows = logits_head("divergence | dtype | off by | classes", "| --- | --- | ---: | ---: |")
    for name, dtype, delta, classes in cases:
        repeats = max(1, classes // DISTINCT_LOGITS)
        shape = max(1, min(100, 3000 // classes)), classes // repeats
        a = 3 * rng.standard_normal(shape)
        b = a + delta * rng.standard_normal(shape)
        cells = logits_errors(name, a.astype(dtype), b.astype(dtype), repeats=repeats)
        most = most_of_logits(name, dtype, delta, classes)
        assert cells["kldiv_fast"] <= most, (name, dtype, delta, classes, cells)
        rows.append(logits_line(f"{name} | {np.dtype(dtype)} | {delta:g} | {classes:,}", cells))
    return rows


def temperatures_table(rng):
    """Off by 0.1, 46 classes. Multiples of 2^-8: float32 holds them with the offset too."""
    cases = itertools.product(("kl", "jsd"), (np.float32, np.float64), (0.1, 1, 100), (0, 10_000))
    head = "divergence | dtype | temperature | added to each"
    rows = logits_head(head, "| --- | --- | ---: | ---: |")
    for name, dtype, temperature, offset in cases:
        a = 3 * rng.standard_normal((50, 46))
        b = a + 0.1 * rng.standard_normal(a.shape)
        a, b = ((np.round(256 * x) / 256 + offset).astype(dtype) for x in (a, b))
        cells = logits_errors(name, a, b, temperature)
        most = most_of_logits(name, dtype, 0.1 / temperature, a.shape[-1])
        assert cells["kldiv_fast"] <= most, (name, dtype, temperature, offset, cells)
        rows.append(
            logits_line(f"{name} | {np.dtype(dtype)} | {temperature:g} | {offset:,}", cells)
        )
    return rows


def own_logits(log_softmax):
    """What of rows of log-softmaxes are the labels' own, with the other sign."""
    return lambda x, labels: -log_softmax(x)[np.arange(len(labels)), labels]


OF_LABELS = {
    "kldiv_fast": lambda x, labels: kldiv_fast.kl(
        labels, x, form=("labels", "logits"), reduction="none"
    ),
    "NumPy": own_logits(log_softmax),
    "PyTorch": lambda x, labels: torch.nn.functional.cross_entropy(
        *map(torch.from_numpy, (x, labels)), reduction="none"
    ),
    "JAX": own_logits(jax.nn.log_softmax),
    "SciPy": own_logits(functools.partial(scipy.special.log_softmax, axis=-1)),
}


def labels_table(rng):
    """At most (8 + above) u in float32, for x - x_label is rounded; in float64 as much of its u."""
    rows = logits_head("dtype | above | classes", "| --- | ---: | ---: |")
    cases = itertools.product((np.float32, np.float64), (-10, 0, 3, 12, 30, 80), (2, 46, 1000))
    for dtype, above, classes in cases:
        x, labels = rng.standard_normal((50, classes)), rng.integers(0, classes, 50)
        x[np.arange(50), labels] += above
        x = x.astype(dtype)
        exact = exact_label_rows(labels, x)
        cells = {}
        for package, function in OF_LABELS.items():
            if package == "JAX" and dtype == np.float64:
                continue
            found = np.asarray(function(x, labels), np.longdouble)
            cells[package] = float(np.max(np.abs(found - exact) / exact))
        most = (8 + abs(above)) * np.finfo(dtype).eps / 2
        assert cells["kldiv_fast"] <= most, (dtype, above, classes, cells)
        rows.append(logits_line(f"{np.dtype(dtype)} | {above} | {classes:,}", cells))
    return rows


def logits_head(what, line):
    packages = " | ".join(LOGITS_PACKAGES)
    return [f"| {what} | {packages} |", line + " ---: |" * len(LOGITS_PACKAGES)]


def logits_line(what, cells):
    text = [f"{cells[p]:.1e}" if p in cells else "" for p in LOGITS_PACKAGES]
    return f"| {what} | " + " | ".join(text) + " |"


TEXT = """# Accuracy

Written by `python tools/accuracy.py`, which fails if a figure here gets worse than what it promises.

## The log-ratio and the terms, float32: every number

The kernel's log(t/p) against the double-precision log1p((t - p)/p), whose argument is the exact difference, and each
divergence's term against the kernel of float64, whose own errors are in the next table. Every float32 in [1e-7, 1] on
either side of 1, and dense sets of pairs; in units of the last place (ulp) of the true value.

{float32}

## The terms, float64: sampled

Against the formulas in mpmath, of whose digits 30 are left where they cancel most: ratios near 1, near the edges of an
exponent's interval, extremes. y_true is a power of two, so that kl's t log(t/p) shows the logarithm's own error.

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
the two are. SciPy's jsd is `jensenshannon(t, p)**2`, whose inputs are normalised again; PyTorch stands for the
formula as it is usually written. The longest row has 15,625 classes that differ, again and again.

{family}

## Logits

The greatest relative error of any row of `form="logits"`, against mpmath. y_true's logits are 3 times normal noise,
y_pred's are these and delta times normal noise, as the dtype holds them: 100 rows of 2 classes, 65 of 46, 3 of 1,000,
one of more. The others compute log-softmaxes first, in the inputs' dtype (NumPy: x - max - log(sum)), and round them:
where two models nearly agree, those roundings are all that is left, and an error of 1 or more means no digit at all.
PyTorch's kl is `kl_div(log_target=True)`. The longest rows have 3,125 classes that differ, again and again.

{logits}

At most 2e-6 in float32, and 1e-13 for kl in float64, or `tools/accuracy.py` fails; but for

- kl in float32 of two classes that are off by 1, at most 1e-5. Where a and b are not near each other a - b is rounded,
  and both classes may by chance differ by nearly the same number: then that rounding is what is left. 1e-5 holds for
  these 100 rows; no bound holds for all.
- jsd in float64, at most 8 * 2^-52 / delta where that is more. It is made of probabilities in float64, so their
  roundings stay while what they differ by shrinks; rows of float32 differ by too much for that to be seen. Two classes
  may again differ by nearly the same number: 10,000 * 2^-52 / delta, which holds for these 100 rows.

A temperature, and a number added to every logit of both rows, which changes no probability: 46 classes, off by 0.1,
rounded to multiples of 2^-8 so that float32 holds the sums exactly. The same promises, for delta over the temperature.

{temperatures}

## Labels beside logits

The greatest relative error of any of 50 rows of `form=("labels", "logits")`, the cross-entropy, against mpmath. Logits are
normal noise, and the label's own is more by `above`: a model that is sure, and right. The others subtract one logarithm
of a whole sum from the label's logit; what the other classes add to it is rounded away. PyTorch's is `cross_entropy`.

{labels}

At most (8 + |above|) u, with u half of the dtype's epsilon, or `tools/accuracy.py` fails: x - x_label is rounded before its
exponential is taken, which moves that by its rounding, about |above| u.

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
        "logits": logits_table(rng),
        "temperatures": temperatures_table(rng),
        "labels": labels_table(rng),
    }
    text = TEXT
    for name, rows in tables.items():
        text = text.replace("{" + name + "}", "\n".join(rows))
    options.output.write_text(text)
    print(text)


if __name__ == "__main__":
    sys.exit(main())
