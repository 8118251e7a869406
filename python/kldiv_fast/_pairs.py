"""Matrices of divergences on their way to the core: what belongs to a row alone is computed once, here.

``src/core/pairs.cpp`` has the formulas. They ask for a center near the rows, each row's sum and its divergence from the
center, which are those of :mod:`kldiv_fast._divergence`.
"""

import math
from typing import NamedTuple

import numpy as np

from kldiv_fast import _core
from kldiv_fast._arrays import cast
from kldiv_fast._divergence import prepare
from kldiv_fast._operations import BY_NAME, OPERATIONS

ALL, MIRRORED, CONDENSED = range(3)  # kldiv_layout

_BLOCK = 1 << 16  # elements that are converted together
_SAMPLE = 64  # rows of either side that the center is the mean of
_FAR = 2.0**-3  # from the center: what float32 loses of it is below 2e-7
_UNIFORM = 0.02  # of the center: it is above 0 wherever a row may be

# A pair is computed exactly where its value is below what the two rows have together of these parts: of their divergences
# from the center, to which the error of a product is relative; of the divergences' roots, the size of what is of first
# order; of 1. So the error stays below 4e-6 in float32 and 4e-13 in float64: tests/test_distance.py sweeps over it.
_NEAR = {
    np.dtype(np.float32): (2.0**-3, 0.0, 0.0),
    np.dtype(np.float64): (2.0**-7, 2.0**-12, 2.0**-11),
}
# Without FMA a row times its scale is rounded, in float32 too.
_NEAR_ON_BASELINE = _NEAR | {np.dtype(np.float32): (2.0**-3, 2.0**-5, 0.0)}


def fill_pairs(options, sides, layout, is_root, out):
    """Write the divergences, or their roots, of all pairs of rows of two arrays of two axes."""
    beside = _beside(options, sides, out.dtype)
    _core.pairs(options.core, *sides, out, layout, is_root, *beside)


def _clip(options):
    if "counts" in options.forms or options.epsilon is None:
        return 0.0, math.inf
    return options.epsilon, 1.0


# ---- what the fast way asks for ----


class _Rows(NamedTuple):
    """What there is to know of a side's rows, one number each."""

    scales: np.ndarray  # their elements times it are probabilities
    sums: np.ndarray  # of these, as the core rounds them
    is_plain: np.ndarray  # whether it can compute with them


def _beside(options, sides, dtype):
    """The center, and for each side its rows' scales, bases and least values. Nones: there is no fast way."""
    name = OPERATIONS[options.operation].name
    is_known = name in _BASES and options.forms in (("counts", "counts"), ("probs", "probs"))
    if not is_known or 0 in (*sides[0].shape, *sides[1].shape):
        return None, None, None
    true = _describe(options, sides[0], dtype, name)
    pred = true if sides[1] is sides[0] else _describe(options, sides[1], dtype, name)
    center = _center(options, sides, (true, pred), dtype)
    if center is None:
        return None, None, None
    parts = _BASES[name](options, sides, (true, pred), center)
    stacked = [
        np.stack(
            [
                rows.scales,
                base,
                np.where(rows.is_plain, _least(name, distances, base, center), np.nan),
            ]
        )
        for rows, (distances, base) in zip((true, pred), parts, strict=True)
    ]
    return center, *stacked


def _least(name, distances, base, center):
    near = _NEAR_ON_BASELINE if _core.current_isa() == "baseline" else _NEAR
    part, of_root, of_one = near[center.dtype]
    if name == "jsd":
        # Errors of many classes are of either sign.
        classes = center.sum(dtype=np.float64) ** 2 / np.square(center, dtype=np.float64).sum()
        of_root, part = max(part / 8, part * min(1.0, math.sqrt(32 / classes))), 0.0
    if base is distances:  # which have nothing of the size of 1 in them
        of_one = 0.0
    with np.errstate(invalid="ignore"):  # of rows that are not plain
        return part * distances + of_root * np.sqrt(distances) + of_one


def _describe(options, x, dtype, name):
    info = np.finfo(dtype)
    low, high, total = _extremes_and_sums(options, x, dtype, name == "jsd")
    # Below it a logarithm would be of a subnormal, or of 0.
    least = 0.0 if name == "jsd" else float(info.tiny)
    if options.forms[0] == "counts":
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            scales = 1 / total
            # The core rounds them.
            sums = scales.astype(dtype).astype(np.float64) * total
            bound = float(info.max) ** 0.75
            is_plain = (low >= 0) & (low * scales >= least) & (total > 1 / bound) & (total < bound)
        return _Rows(scales, sums, is_plain)
    is_plain = (low > -np.inf) & (high < np.inf)
    if options.epsilon is None:
        is_plain &= low >= least
    return _Rows(np.ones(len(x)), total, is_plain)


def _extremes_and_sums(options, x, dtype, is_exact):
    """Of each row its least and greatest element, and the sum of what the clip leaves; `is_exact`: added up in float64."""
    low, high, total = np.empty((3, len(x)))
    is_exact |= "probs" in options.forms
    bounds = _clip(options)
    step = max(1, _BLOCK // x.shape[1])
    for i in range(0, len(x), step):
        at = slice(i, i + step)
        rows = x[at] if x.dtype == dtype else cast(x[at], dtype)
        low[at], high[at] = rows.min(axis=1), rows.max(axis=1)
        if bounds[0] > 0:
            rows = rows.clip(*bounds)
        with np.errstate(over="ignore", invalid="ignore"):
            total[at] = rows.sum(axis=1, dtype=np.float64 if is_exact else dtype)
    low += options.pseudocount
    total += options.pseudocount * x.shape[1]
    return low, high, total


def _center(options, sides, described, dtype):
    """Near the mean of some rows of either side, or None: there are none to compute with."""
    center, n = np.zeros(sides[0].shape[1]), 0
    for x, rows in zip(sides, described, strict=True):
        plain = np.flatnonzero(rows.is_plain)
        for i in plain[:: -(-len(plain) // _SAMPLE) or 1]:
            row = (cast(x[i], np.dtype(np.float64)) + options.pseudocount) * rows.scales[i]
            center += row.clip(*_clip(options))
            n += 1
    if not n:
        return None
    center = (1 - _UNIFORM) / n * center + _UNIFORM / len(center)
    return center.clip(*_clip(options)).astype(dtype)


# ---- divergences from the center, and the bases that are made of them ----


def _kl_bases(options, sides, described, center):
    true, pred = _generalized_bases(options, sides, described, center)
    if "counts" in options.forms:  # whose sums are 1
        return true, pred
    sums = [rows.sums - 1 for rows in described]
    return (true[0], true[0] + sums[0]), (pred[0], pred[0] - sums[1])


def _generalized_bases(options, sides, _, center):
    true = _distances("generalized_kl", options, sides[0], center)
    pred = _distances("generalized_kl", options, sides[1], center, swapped=True)
    return (true, true), (pred, pred)


def _jeffreys_bases(options, sides, _, center):
    found = [_distances("jeffreys", options, x, center) for x in sides]
    return [(distances, distances) for distances in found]


def _jsd_bases(options, sides, described, center):
    of_center = center.sum(dtype=np.float64)
    weights = options.beta, 1 - options.beta
    found = []
    for x, rows, weight in zip(sides, described, weights, strict=True):
        distances = _distances("generalized_kl", options, x, center)
        found.append((weight * distances, weight * (distances + (rows.sums - of_center))))
    return found


_BASES = {
    "kl": _kl_bases,
    "generalized_kl": _generalized_bases,
    "jsd": _jsd_bases,
    "jeffreys": _jeffreys_bases,
}


def _distances(name, options, rows, center, swapped=False):
    """Divergences of rows from the center or, swapped, of it from them.

    What is lost of them is lost to every pair: in float32 a rounding divided by the root. Where that is much, in float64.
    """
    found = _divergences(name, options, rows, center, swapped)
    if center.dtype == np.float32:
        near = found < _FAR
        if near.any():
            wide = center.astype(np.float64)
            again = _divergences(name, options, rows, wide, swapped, mask=near)
            np.copyto(found, again, where=near)
    return found


def _divergences(name, options, rows, center, swapped, mask=None):
    sides = [(rows, options.forms[0]), (center, "probs")]
    (true, pred), forms = zip(*(sides[::-1] if swapped else sides), strict=True)
    given = {
        "form": forms,
        "epsilon": None if "counts" in forms else options.epsilon,
        "reduction": "none",
        "num_threads": options.threads or None,
        "mask": mask,
    }
    if "counts" in forms:
        given["pseudocount"] = options.pseudocount
    problem = prepare(true, pred, BY_NAME[name], given)
    values = np.empty(problem.arranged.rows)
    problem.run(values)
    return values
