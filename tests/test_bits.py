"""The same bits everywhere: this build beside the committed table that every ISA, compiler and thread count must give.

``tests/core/bits.txt`` was printed by ``tests/core/bits.cpp``; the same program checks NEON (under qemu) and other
compilers: ``python tests/core/run.py``. The portable baseline has no FMA, so it is held to a bound instead. To write it anew:

    cmake -S . -B build/core -DCMAKE_BUILD_TYPE=Release && cmake --build build/core --target bits -j
    build/core/bits > tests/core/bits.txt
"""

import functools
from pathlib import Path

import kldiv_fast
import ml_dtypes
import numpy as np
import pytest
from pairwise import each

ROWS = Path(__file__).with_name("core").joinpath("bits.txt").read_text().splitlines()
# What the core's program alone prints.
CORE = ("pairs/", "blocks/", "fidelity")
# Rows that name no operation are kl's, from before there were others.
TABLE = [
    (["kl"] if len(row.split()) == 7 else []) + row.split()
    for row in ROWS
    if not row.startswith(CORE)
]
OPERATIONS = [name for name, _ in kldiv_fast._core.operations()]


def splitmix64(i):
    with np.errstate(over="ignore"):
        z = (i + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def samples(dtype, first, n):
    """tests/core/inputs.hpp, in NumPy."""
    h = splitmix64(np.arange(first, first + n, dtype=np.uint64))
    x = (((h >> np.uint64(40)) + np.uint64(1)).astype(np.float64) * 2.0**-24) ** 2
    if dtype == "float16":
        return ((h >> np.uint64(32)).astype(np.uint16) % 0x3C01).astype(np.uint16).view(np.float16)
    if dtype == "bfloat16":
        upper = x.astype(np.float32).view(np.uint32) >> 16
        return upper.astype(np.uint16).view(ml_dtypes.bfloat16)
    return x.astype(dtype)


def digest(values):
    values = np.asarray(values, np.float64)
    bits = np.where(np.isnan(values), np.nan, values).view(np.uint64)  # all NaN are one
    return int(splitmix64(bits ^ np.arange(bits.size, dtype=np.uint64)).sum(dtype=np.uint64))


def labels_of(shape):
    """One for each row and for each column, which both have."""
    numbers = splitmix64(np.arange(max(shape), dtype=np.uint64)) >> np.uint64(1)
    return (numbers % np.uint64(min(shape))).astype(np.int64)


def read(row):
    name, dtype, shape, parameter, *expected = row
    rows, classes = map(int, shape.split("x"))
    t, p = (samples(dtype, first, rows * classes).reshape(rows, classes) for first in (0, 1 << 30))
    if "/labels-" in name:
        t = labels_of(p.shape)
    return (t, p, float(parameter), name), [int(x, 16) for x in expected]


def bits(t, p, parameter, name="kl", num_threads=0):
    """What the program prints: the sum, the rows along each axis, in float64, and both gradients.

    ``parameter`` is epsilon, or the temperature where the name has forms: ``kl/logits``, ``jsd/probs-counts``.
    """
    operation, *forms = name.split("/")
    epsilon, options = parameter, {"operation": OPERATIONS.index(operation)}
    if forms:
        numbers = [kldiv_fast._core.forms().index(form) for form in forms[0].split("-")]
        epsilon, options = (
            1e-7,
            {**options, "forms": numbers * (3 - len(numbers)), "temperature": parameter},
        )

    def run(a, b, out, *gradients):
        return kldiv_fast._core.run(
            a, b, 1, (len(a),), None, None, out, epsilon, num_threads, *gradients, **options
        )

    def inputs(axis):
        along = np.moveaxis(p, axis, -1)
        return (t[: len(along), np.newaxis] if t.ndim == 1 else np.moveaxis(t, axis, -1)), along

    def rows(axis):
        # float32 inputs give float32 rows; the core's own are float64.
        out = np.empty(p.shape[1 - axis])
        run(*inputs(axis), out)
        return out

    total = np.array(run(*inputs(1), None))
    grads = np.zeros((2, *p.shape), np.float64 if p.dtype == np.float64 else np.float32)
    upstream = np.ones(len(p))  # for each row: gradients of rows, not of a sum over everything
    by_true = None if t.ndim == 1 else grads[0]
    run(*inputs(1), np.empty(len(p)), upstream, by_true, grads[1])
    return total, rows(1), rows(0), grads.astype(np.float64)


# core/run.py does all of it on each ISA.
@each(isa=kldiv_fast.available_isas(), row={"-".join(row[:4]): row for row in TABLE})
def test_bits_of_the_table(isa, row):
    arguments, expected = read(row)
    total, rows, columns, gradients = bits(*arguments)
    if isa == "baseline":
        kldiv_fast._core.select_isa(kldiv_fast.available_isas()[0])
        others = bits(*arguments)
        # An exponent up to 10 is rounded as much more than its exponential is.
        times = 10 if "/" in arguments[3] else 1
        # A gradient has a difference of exponents as a factor, and is divided by the temperature.
        of_gradients = times / arguments[2] if "/" in arguments[3] else times
        found = zip((total, rows, columns, gradients), others, strict=True)
        for (ours, theirs), n in zip(found, (times, times, times, of_gradients), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=3e-7 * n, atol=5e-7 * n)
    else:
        found = [
            int(total.view(np.uint64)),
            digest(rows),
            digest(columns),
            digest(gradients.ravel()),
        ]
        assert found == expected


def test_bits_for_any_number_of_threads(isa):
    for dtype in ("float32", "float64", "float16", "bfloat16"):
        t, p = (samples(dtype, first, 400_000).reshape(2000, 200) for first in (0, 1 << 30))
        one, *others = (
            [x.tobytes() for x in bits(t, p, 1e-7, num_threads=n)]
            + [kldiv_fast.kl(t, p, num_threads=n).tobytes()]
            for n in (1, 2, 3, 7, 16)
        )
        for many in others:
            assert many == one


# Memory for an array, other than C-contiguous but for the first.
LAYOUTS = {
    "contiguous": np.empty,
    "transposed": lambda shape, dtype: np.empty(shape[::-1], dtype).T,
    "backwards": lambda shape, dtype: np.flip(np.empty(shape, dtype)),
    "every second": lambda shape, dtype: np.empty((*shape[:-1], 2 * shape[-1]), dtype)[..., ::2],
}
# Short and long rows, and such as lie across memory; several axes of rows, which some layouts make one of and others not.
ARRANGED = [((2, 3, 4, 10), -1), ((3, 2, 70_000), -1), ((6, 1, 200_000), -1), ((2, 3, 4, 10), 0), ((4, 3000, 2, 3), 1),
            ((3000, 7, 8), 0), ((200, 40, 4, 6), (0, 1))]  # fmt: skip


def laid_out(x, layout):
    array = LAYOUTS[layout](x.shape, x.dtype)
    array[...] = x
    return array


def bytes_of(found):
    return [np.ascontiguousarray(x).tobytes() for x in found]


@each(isa=kldiv_fast.available_isas(), name=["kl", "jsd"], layout=list(LAYOUTS), arranged=ARRANGED)
def test_bits_for_any_layout_beside_the_rows(isa, rng, name, layout, arranged):
    """Of what is written, of weights, masks and upstream: it must not say how the rows are cut."""
    shape, axis = arranged
    t, p = (
        laid_out(samples("float32", first, np.prod(shape)).reshape(shape), layout)
        for first in (0, 1 << 30)
    )
    value = functools.partial(getattr(kldiv_fast, name), t, p, axis=axis)
    gradients = functools.partial(
        getattr(kldiv_fast, f"{name}_value_and_grad"), t, p, axis=axis, wrt=("y_true", "y_pred")
    )

    def calls(layout, layout_of_mask):
        """Rows alone; weighted rows, their mean, their gradients."""
        rows = LAYOUTS[layout](plain.shape, np.float32)
        value(reduction="none", out=rows)
        beside = {
            "sample_weight": laid_out(weight, layout),
            "mask": laid_out(mask, layout_of_mask),
        }
        out = LAYOUTS[layout_of_mask](plain.shape, np.float32)
        upstream = laid_out(weight[::-1], layout)
        value(reduction="none", out=out, **beside)
        again, grads = gradients(reduction="none", upstream=upstream, **beside)
        return bytes_of([rows, out, value(**beside), again, *grads])

    plain = value(reduction="none")
    weight, mask = rng.random(plain.shape), rng.random(plain.shape) < 0.7
    expected = calls("contiguous", "contiguous")
    assert bytes_of([plain]) == expected[:1]
    assert expected[3] == expected[1]
    for one in LAYOUTS:
        for other in LAYOUTS:
            assert calls(one, other) == expected, (one, other)


@pytest.mark.parametrize("offset", range(0, 64, 7))
def test_bits_for_any_alignment(isa, offset):
    for dtype in (np.float32, np.float64):
        t, p = (samples(np.dtype(dtype).name, first, 5003) for first in (0, 1 << 30))
        moved = []
        for shift, x in ((offset, t), (3 * offset % 64, p)):
            raw = np.empty(x.nbytes + 128, np.uint8)
            start = shift - raw.ctypes.data % 64 + 64
            moved.append(raw[start : start + x.nbytes].view(dtype))
            moved[-1][:] = x
            assert moved[-1].ctypes.data % 64 == shift
        assert kldiv_fast.kl(t, p).tobytes() == kldiv_fast.kl(*moved).tobytes()
