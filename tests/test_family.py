"""Every divergence of the table, by one set of tests: exact values and slopes, known answers, zeros, and that the C call and
the Python behind it give the same bits for whatever they are given.

A new operation needs a line in ``oracle.TERMS`` and none here (and one in ``oracle.SCIPYS``, if SciPy has it).
"""

import functools
import sys

import kldiv_fast
import ml_dtypes
import numpy as np
import pytest
from kldiv_fast import _core
from kldiv_fast._divergence import gradient_function, value_function
from kldiv_fast._meaning import FORMS
from kldiv_fast._operations import OPERATIONS
from oracle import POSITIVE, SCIPYS, TERMS, distributions, exact_rows, exact_slopes
from pairwise import each, pairwise

BY_NAME = {operation.name: operation for operation in OPERATIONS}
BOTH = ("y_true", "y_pred")
PROBS = ("probs", "probs")

each_operation = pytest.mark.parametrize("name", BY_NAME)
each_of_positive_terms = pytest.mark.parametrize("name", POSITIVE)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def value_of(name):
    return getattr(kldiv_fast, name)


def gradients_of(name):
    return functools.partial(getattr(kldiv_fast, f"{name}_value_and_grad"), wrt=BOTH)


def betas(name):
    return [{"beta": b} for b in (0, 0.1, 0.5, 0.9, 1)] if BY_NAME[name].parameters else [{}]


def test_the_oracle_knows_every_operation():
    assert set(TERMS) == set(BY_NAME)


# ---- values ----

OFF = [1, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6]


@functools.cache
def near(off, dtype, classes):
    """Distributions that differ by about `off`, relatively."""
    rng = np.random.default_rng(20261124)
    x = distributions(rng, (4, classes), np.float64)
    y = x * np.exp(off * rng.standard_normal(x.shape))
    return x.astype(dtype), (y / y.sum(-1, keepdims=True)).astype(dtype)


@functools.cache
def exact_near(name, off, dtype, classes, beta):
    t, p = near(off, dtype, classes)
    return exact_rows(name, t, p, beta, work=dtype)


@pairwise(
    isa=kldiv_fast.available_isas(),
    name=POSITIVE,
    dtype=[np.float32, np.float64],
    classes=[2, 46, 1000],
    off=OFF,
)
def test_full_relative_precision_however_near(isa, name, dtype, classes, off):
    t, p = near(off, dtype, classes)
    for keywords in ({"beta": 0.5}, {"beta": 0.1}) if BY_NAME[name].parameters else ({},):
        exact = exact_near(name, off, dtype, classes, keywords.get("beta", 0.5))
        rows = value_of(name)(t, p, reduction="none", **keywords)
        np.testing.assert_allclose(rows, exact, rtol=5e-7 if dtype == np.float32 else 1e-15)
        mean = value_of(name)(t, p, **keywords)
        np.testing.assert_allclose(mean, exact.mean(), rtol=5e-7 if dtype == np.float32 else 1e-15)


@each_operation
@each_dtype
def test_values_of_distributions(isa, rng, name, dtype):
    t, p = distributions(rng, (5, 33), dtype), distributions(rng, (5, 33), dtype)
    t[:, ::7], p[:, 3::11] = 0, 1.5  # beyond the clip
    for keywords in betas(name):
        exact = exact_rows(name, t, p, **keywords, work=dtype)
        rows = value_of(name)(t, p, reduction="none", **keywords)
        np.testing.assert_allclose(rows, exact, rtol=5e-7 if dtype == np.float32 else 2e-15)


@each_of_positive_terms
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_never_negative(isa, rng, name, dtype):
    x = rng.random((2000, 3)).astype(dtype)
    one_up = np.nextafter(x.astype(np.float32), np.float32(2)).astype(dtype)
    for other in (x, one_up, rng.random(x.shape).astype(dtype)):
        for epsilon in (1e-7, 0, None):
            rows = value_of(name)(x, other, epsilon=epsilon, reduction="none")
            assert np.all(rows >= 0)
            assert np.all(value_of(name)(other, x, epsilon=epsilon, reduction="none") >= 0)
    assert not value_of(name)(x, x, reduction="none").any()


@each_operation
def test_base(isa, rng, name):
    t, p = distributions(rng, (6, 20), np.float64), distributions(rng, (6, 20), np.float64)
    for reduction in ("mean", "none"):
        value, gradients = gradients_of(name)(t, p, reduction=reduction)
        for base in (2, 10, 0.5, np.e):
            in_base = value_of(name)(t, p, reduction=reduction, base=base)
            np.testing.assert_allclose(in_base, value / np.log(base), rtol=1e-15)
            again, others = gradients_of(name)(t, p, reduction=reduction, base=base)
            np.testing.assert_array_equal(again, in_base)
            for ours, theirs in zip(others, gradients, strict=True):
                np.testing.assert_allclose(ours, theirs / np.log(base), rtol=1e-14)


# ---- known answers ----

T, S = np.array([0.7, 0.2, 0.1]), np.array([0.2, 0.3, 0.5])
KNOWN = [
    ("jsd", [1, 0], [0.5, 0.5], {}, 0.46450140402245893**2),
    ("jsd", [1, 0, 0], [0, 1, 0], {"base": 2}, 1),
    ("jsd", T, S, {"beta": 0.1}, 0.055890829),
    ("jsd", T, S, {"beta": 0.5}, 0.151358112),
    ("jsd", T, S, {"beta": 0.9}, 0.058398724),
    ("jsd", T, S, {"beta": 0}, 0.634897265),
    ("jsd", T, S, {"beta": 1}, 0.675805895),
    ("kl", T, S, {}, 0.634897265),
    ("jeffreys", T, S, {}, 0.634897265 + 0.675805895),
    ("generalized_kl", T, S, {}, 0.634897265),  # both sum to 1
    ("generalized_kl", [0.0], [0.5], {}, 0.5),
    ("jeffreys", [0.5], [0.25], {}, 0.25 * np.log(2)),
]


@pytest.mark.parametrize(("name", "t", "p", "keywords", "answer"), KNOWN)
def test_known_answers(isa, name, t, p, keywords, answer):
    t, p = np.array(t, np.float64), np.array(p, np.float64)
    value = value_of(name)(t, p, epsilon=None, **keywords)
    digits = 1e-15 if answer in (1, 0.46450140402245893**2) else 1e-8
    assert value == pytest.approx(answer, rel=digits)


@each_of_positive_terms
def test_where_scipy_fails(isa, name):
    """NaN of nearly equal float32 rows (scipy#20083), inf at subnormals (scipy#19436)."""
    t = np.array([0.027501475, 0.055202297], np.float32)
    p = np.array([0.027537677, 0.055334348], np.float32)
    value = value_of(name)(t, p)
    assert 0 < value < 1e-6
    assert value == pytest.approx(exact_rows(name, t, p, work=np.float32)[()], rel=5e-7)
    tiny = value_of("jsd")(np.array([0, 1.0]), np.array([5e-324, 1]), epsilon=None)
    assert 0 <= tiny <= 5e-324


# ---- zeros, as SciPy has them ----


@pytest.mark.parametrize("name", SCIPYS)
@each_dtype
def test_no_clip_has_scipys_meaning_of_zeros(isa, name, dtype):
    values = [0.0, -0.0, 1e-30, 0.25, 0.5, 1, 2, 1e30, -1, np.nan]
    t, p = (x.reshape(-1, 1) for x in np.meshgrid(*[np.array(values, dtype)] * 2))
    ours = value_of(name)(t, p, epsilon=None, reduction="none")
    with np.errstate(all="ignore"):
        theirs = SCIPYS[name](t.astype(np.float64), p.astype(np.float64))[:, 0]
    np.testing.assert_allclose(ours, theirs, rtol=8 * np.finfo(dtype).eps, atol=1e-37)


@pytest.mark.parametrize("name", SCIPYS)
def test_no_clip_of_rows_with_zeros(isa, rng, name):
    t, p = distributions(rng, (8, 100), np.float64), distributions(rng, (8, 100), np.float64)
    t[:, ::7] = 0
    p[:, ::14] = 0
    ours = value_of(name)(t, p, epsilon=None, reduction="none")
    with np.errstate(all="ignore"):
        theirs = SCIPYS[name](t, p).sum(-1)
    np.testing.assert_allclose(ours, theirs, rtol=1e-13)


# ---- jsd's beta ----


def test_beta_at_its_ends_is_kl(isa, rng):
    t, p = distributions(rng, (6, 20)), distributions(rng, (6, 20))
    for beta, (a, b), wrt in ((0, (t, p), BOTH), (1, (p, t), BOTH[::-1])):
        for reduction in ("mean", "none"):
            ours = gradients_of("jsd")(t, p, beta=beta, reduction=reduction)
            theirs = kldiv_fast.kl_value_and_grad(a, b, wrt=wrt, reduction=reduction)
            assert kldiv_fast.jsd(t, p, beta=beta, reduction=reduction).tobytes() == (
                theirs[0].tobytes()
            )
            assert same(ours, theirs)


def test_beta_belongs_to_y_true(isa, rng):
    t, p = distributions(rng, (6, 20), np.float64), distributions(rng, (6, 20), np.float64)
    for beta in (0.1, 0.25, 0.5):
        np.testing.assert_allclose(
            kldiv_fast.jsd(t, p, beta=beta), kldiv_fast.jsd(p, t, beta=1 - beta), rtol=1e-14
        )


# ---- gradients ----


@each_operation
@each_dtype
def test_slopes_are_those_of_central_differences(isa, rng, name, dtype):
    t, p = (0.05 + 0.9 * rng.random((4, 21))).astype(dtype), (0.05 + 0.9 * rng.random((4, 21)))
    p = p.astype(dtype)
    p[0] = t[0] * (1 + dtype(1e-3))  # nearly equal
    upstream = rng.random(4)
    for keywords in betas(name):
        _, ours = gradients_of(name)(t, p, reduction="none", upstream=upstream, **keywords)
        slopes = exact_slopes(name, t, p, keywords.get("beta", 0.5))
        for grad, slope in zip(ours, slopes, strict=True):
            exact = slope * upstream[:, None]
            # The logarithms that 1 cancels keep an absolute error.
            unit = np.finfo(dtype).eps
            np.testing.assert_allclose(grad, exact, rtol=8 * unit, atol=8 * unit)


@each_operation
def test_nothing_flows_beyond_the_clip(isa, name):
    t = np.array([[0, 1.5, 1e-8, 0.5]], np.float64)
    for gradient in gradients_of(name)(t, t[:, ::-1].copy(), reduction="sum")[1]:
        assert gradient.any()
    _, (by_true, by_pred) = gradients_of(name)(t, np.full((1, 4), 0.25), reduction="sum")
    assert not by_true[0, :3].any() and by_true[0, 3] != 0
    assert np.isfinite(by_pred).all()


# ---- the C call and the Python behind it ----


def never(*args, **keywords):
    raise AssertionError(f"left to Python: {keywords}")


@functools.cache
def pair(name, gradients):
    """The function of C with nothing to fall back on, and the Python that any call may go through."""
    make = gradient_function if gradients else value_function
    fallback = make(BY_NAME[name])
    alone = _core.function(BY_NAME[name].number, gradients, fallback.__name__, "", never)
    return alone, fallback


def same(a, b):
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and (
        np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()
    )  # fmt: skip


DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]
LAYOUTS = {
    "C": lambda x: x,
    "F": np.asfortranarray,
    "strided": lambda x: np.repeat(x, 3, axis=-1)[..., ::3],
    "reversed": lambda x: x[..., ::-1].copy()[..., ::-1],
    "transposed": lambda x: np.ascontiguousarray(x.T).T,
}
SHAPES = [((4, 5),) * 2, ((7,),) * 2, ((3, 4, 5),) * 2, ((4, 5), (5,)), ((1, 5), (4, 1)), ((3, 1, 6), (3, 4, 6)),
          ((2, 3, 4), (4,)), ((300, 46),) * 2, ((0, 4),) * 2, ((4, 0),) * 2, ((70, 600), (600,))]  # fmt: skip


def draw(rng, choices):
    return choices[rng.integers(len(choices))]


def array(rng, shape, of_one):
    dtype = of_one if rng.random() < 0.7 else draw(rng, DTYPES)
    x = rng.gamma(0.5, size=shape)
    x.flat[::9] = draw(rng, [0, 1, 1.5, 0.5])
    return LAYOUTS[draw(rng, list(LAYOUTS))](x.astype(dtype))


def any_call(rng, name, gradients):
    shapes, of_one = draw(rng, SHAPES), draw(rng, DTYPES)
    t, p = (array(rng, shape, of_one) for shape in shapes)
    shape = np.broadcast_shapes(t.shape, p.shape)
    count = rng.integers(1, len(shape) + 1)
    axis = tuple(int(a) for a in rng.choice(len(shape), count, replace=False))
    rows = tuple(n for i, n in enumerate(shape) if i not in axis)
    keywords = {
        "axis": draw(rng, [axis, axis[0] if len(axis) == 1 else axis]),
        "epsilon": draw(rng, [1e-7, 0.0, 0, 0.1, None]),
        "base": draw(rng, [None, 2, 10.0]),
        "reduction": draw(rng, ["mean", "sum", "none", None, "batchmean", "sum_over_batch_size",
                                "mean_with_sample_weight"]),
        "num_threads": draw(rng, [None, 1, 2, 5]),
    }  # fmt: skip
    if rng.random() < 0.4:
        dtype = draw(rng, [np.float32, np.float64])
        keywords["sample_weight"] = np.asarray(rng.random(beside(rng, rows)), dtype)
    if rng.random() < 0.4:
        keywords["mask"] = np.asarray(rng.random(beside(rng, rows)) < 0.6)
    if BY_NAME[name].parameters:
        keywords["beta"] = draw(rng, [0, 0.25, 0.5, 1.0])
    forms = tuple(draw(rng, FORMS[:-1]) for _ in BOTH) if rng.random() < 0.6 else PROBS
    keywords["form"] = draw(rng, [forms, list(forms), *forms[: forms[0] == forms[1]]])
    if forms != PROBS:
        keywords["epsilon"] = draw(rng, [1e-7, None])
    if "logits" in forms:
        keywords["temperature"] = draw(rng, [1, 0.5, 3.0])
    if gradients:
        keywords["wrt"] = draw(rng, [*BOTH, BOTH, BOTH[::-1], ["y_true"]])
        keywords["upstream"] = draw(rng, [None, 1.5, -2, np.array(0.3)])
        if keywords["reduction"] in (None, "none") and rng.random() < 0.5:
            dtype = draw(rng, [np.float32, np.float64])
            keywords["upstream"] = np.asarray(rng.normal(size=rows), dtype)
    kept = {"form"} if forms != PROBS else set()  # what other keywords hang on
    return t, p, {k: v for k, v in keywords.items() if k in kept or rng.random() < 0.9}


def beside(rng, rows):
    """A shape that broadcasts to the rows' and has no rank for Keras to match."""
    kept = tuple(n if rng.random() < 0.7 else 1 for n in rows)
    if len(rows) < 2 or rows[-1] == 1 or rng.random() < 0.7 or kept[0] == 0:
        return kept
    return (*kept[1:-1], rows[-1])


def outcome(function, t, p, keywords):
    try:
        return function(t, p, **keywords)
    except (TypeError, ValueError) as error:
        return error


@each(
    isa=kldiv_fast.available_isas(),
    name=list(BY_NAME),
    gradients={"value": False, "value and gradients": True},
)
def test_whatever_is_given_the_bits_are_pythons(isa, name, gradients):
    """In C from end to end wherever Python has no word to say."""
    rng = np.random.default_rng(7)
    alone, fallback = pair(name, gradients)
    in_c = 0
    for _ in range(400):
        t, p, keywords = any_call(rng, name, gradients)
        theirs = outcome(fallback, t, p, keywords)
        if isinstance(theirs, Exception):
            with pytest.raises(type(theirs)):
                kldiv_fast.__dict__[fallback.__name__](t, p, **keywords)
            continue
        assert same(alone(t, p, **keywords), theirs), (t.shape, p.shape, t.dtype, keywords)
        in_c += 1
    assert in_c > 250


# What docs/hot_loop.md names.
LEFT_TO_PYTHON = {
    "integers": lambda t: (t.astype(int), {}),
    "bools": lambda t: (t > 0.1, {}),
    "unaligned": lambda t: (unaligned(t), {}),
    "ranks by an axis of length 1": lambda t: (t, {"sample_weight": np.ones((len(t), 1))}),
    "foreign byte order": lambda t: (t.astype(">f4"), {}),
    "memory map": lambda t: (t.view(np.memmap), {}),
    "labels": lambda t: (np.zeros(len(t), int), {"form": ("labels", "probs")}),
    "list of weights": lambda t: (t, {"sample_weight": [1.0] * len(t)}),
    "integer weights": lambda t: (t, {"sample_weight": np.ones(len(t), int)}),
    "integer mask": lambda t: (t, {"mask": np.ones(len(t), int)}),
    "validate": lambda t: (t, {"validate": True}),
    "number of NumPy": lambda t: (t, {"epsilon": np.float32(0.5)}),
    "list of axes": lambda t: (t, {"axis": [-1]}),
    "out in the way": lambda t: (t, {"reduction": "none", "out": t[:, 0]}),
    "word put together": lambda t: (t, {"reduction": "no-ne".replace("-", "")}),
}


def unaligned(t):
    """The same numbers, a byte off."""
    moved = np.empty(t.nbytes + 1, np.uint8)[1:].view(t.dtype).reshape(t.shape)
    moved[...] = t
    return moved


@pytest.mark.parametrize("make", LEFT_TO_PYTHON.values(), ids=LEFT_TO_PYTHON)
def test_what_is_left_to_python(rng, make):
    t, p = distributions(rng, (6, 5)), distributions(rng, (6, 5))
    alone, fallback = pair("kl", False)
    given, keywords = make(t)
    with pytest.raises(AssertionError, match="left to Python"):
        alone(given, p, **keywords)
    fallback(given, p, **keywords)


def test_a_word_of_the_source_is_read_in_c(rng):
    t, p = distributions(rng, (6, 5)), distributions(rng, (6, 5))
    alone, fallback = pair("kl", False)
    word = sys.intern("no-ne".replace("-", ""))
    assert same(alone(t, p, reduction=word), fallback(t, p, reduction="none"))


@each_operation
def test_out_is_written_in_place(isa, rng, name):
    t, p = distributions(rng, (6, 5)), distributions(rng, (6, 5))
    alone, fallback = pair(name, False)
    with_gradients, behind = pair(name, True)
    rows, gradients = with_gradients(t, p, reduction="none", wrt=BOTH)
    for value, grad in ((alone, with_gradients), (fallback, behind)):
        out = np.empty(6, np.float32)
        assert value(t, p, reduction="none", out=out) is out
        np.testing.assert_array_equal(out, rows)
        outs = [np.empty_like(t), np.empty((5, 6), np.float32).T]
        _, got = grad(t, p, reduction="none", wrt=BOTH, out=outs)
        assert got[0] is outs[0] and got[1] is outs[1]
        assert same(tuple(outs), gradients)
        out, own = np.empty((2, 6), np.float32)[0], np.empty_like(p)
        result = grad(t, p, reduction="none", out=(out, own))
        assert result[0] is out and result[1] is own
        assert same((out, own), (rows, gradients[1]))
        out, outs = np.empty(6, np.float32), [np.empty_like(t), np.empty_like(p)]
        result = grad(t, p, reduction="none", wrt=BOTH, out=(out, outs))
        assert result[0] is out and result[1][0] is outs[0] and result[1][1] is outs[1]
        assert same((out, tuple(outs)), (rows, gradients))


@each_operation
def test_out_that_is_in_the_way(isa, rng, name):
    """What overlaps an input, or another output, is written when all is read."""
    t, p = distributions(rng, (300, 20)), distributions(rng, (300, 20))
    grad = getattr(kldiv_fast, f"{name}_value_and_grad")
    rows, gradient = grad(t, p, reduction="none")
    own = p.copy()
    assert grad(t, own, reduction="none", out=own)[1] is own
    np.testing.assert_array_equal(own, gradient)
    own = t.copy()
    assert value_of(name)(own, p, reduction="none", out=own[:, 0]).base is own
    np.testing.assert_array_equal(own[:, 0], rows)
    repeated = np.lib.stride_tricks.as_strided(np.empty(1, np.float32), (300,), (0,))
    assert (value_of(name)(t, p, reduction="none", out=repeated) == rows[-1]).all()


@each_operation
@pytest.mark.parametrize(
    "of", [([[0.1, 0.9], [0.5, 0.5]], [[0.2, 0.8], [1, 0]]), ([0, 1], (0.25, 0.75))]
)
def test_lists(name, of):
    t, p = of
    alone, fallback = pair(name, False)
    with_gradients, behind = pair(name, True)
    narrow = np.array(p, np.float32)
    for pred in (p, narrow, narrow.astype(np.float64)):
        for keywords in ({}, {"reduction": "none"}, {"axis": 0}):
            assert same(alone(t, pred, **keywords), fallback(t, pred, **keywords))
            ours, theirs = (f(t, pred, wrt=BOTH, **keywords) for f in (with_gradients, behind))
            assert same(ours, theirs)


LISTS = {
    "masked": lambda: [np.ma.masked_array([0.5, 0.5], [True, False])],
    "ragged": lambda: [[0.5, 0.5], [1.0]],
    "deep": lambda: [[0.5, [0.5]], [1.0, 0.0]],
    "text": lambda: [["a", "b"]],
    "complex": lambda: [[1j, 0.5]],
    "empty": lambda: [[]],
    "huge": lambda: [[2**70, 1]],
    "bools": lambda: [[True, False]],
    "numbers of NumPy": lambda: [[np.float64(0.5), np.float32(0.5)]],
    "arrays": lambda: [np.array([0.5, 0.5])],
}


@pytest.mark.parametrize("make", LISTS.values(), ids=LISTS)
@each_operation
def test_odd_lists_are_pythons(name, make):
    fallback = pair(name, False)[1]
    y_pred = np.array([[0.5, 0.5]])
    for arguments in ((make(), y_pred), (y_pred, make())):
        ours, theirs = (outcome(f, *arguments, {}) for f in (value_of(name), fallback))
        if isinstance(theirs, Exception):
            assert type(ours) is type(theirs)
            assert str(ours) == str(theirs)
        else:
            assert same(ours, theirs)


# ---- threads ----


@each_operation
@pytest.mark.parametrize("shape", [(3000, 46), (7, 30_000), (60_000, 3)], ids=str)
def test_bits_for_any_number_of_threads(isa, rng, name, shape):
    t, p = distributions(rng, shape), distributions(rng, shape)
    for axis in (-1, 0):
        one, *others = (
            (value_of(name)(t, p, axis=axis, num_threads=n),
             *gradients_of(name)(t, p, axis=axis, reduction="none", num_threads=n))
            for n in (1, 2, 3, 7)
        )  # fmt: skip
        assert all(same(one, other) for other in others)


# ---- bad arguments ----

BAD = [
    (dict(base=1), ValueError, "base is 1; expected a positive number other than 1, or None"),
    (dict(base=0), ValueError, "base is 0"),
    (dict(base=-2.0), ValueError, "base is -2.0"),
    (dict(base=float("nan")), ValueError, "base is nan"),
    (dict(base=float("inf")), ValueError, "base is inf"),
    (dict(base="2"), TypeError, "base is '2'; expected a positive number"),
    (dict(base=[2]), TypeError, "base is of type list; expected a positive number"),
    (dict(base=True), TypeError, "base is True"),
]
BAD_BETA = [
    (dict(beta=-0.1), ValueError, r"beta is -0.1; expected a number in \[0, 1\]"),
    (dict(beta=1.5), ValueError, "beta is 1.5"),
    (dict(beta=float("nan")), ValueError, "beta is nan"),
    (dict(beta=None), TypeError, "beta is of type NoneType"),
    (dict(beta="half"), TypeError, "beta is 'half'"),
]


@each_operation
def test_bad_arguments_are_named(name):
    x = np.full((3, 2), 0.5)
    takes_beta = "beta" in BY_NAME[name].parameters
    unknown = [(dict(beta=0.5), TypeError, "unexpected keyword argument 'beta'")]
    for function in (value_of(name), gradients_of(name)):
        for keywords, error, message in BAD + (BAD_BETA if takes_beta else unknown):
            with pytest.raises(error, match=message):
                function(x, x, **keywords)
    out = (np.empty(3), np.empty((3, 2)))
    with pytest.raises(ValueError, match=r"out is a pair of rows and gradient.*'none' alone"):
        getattr(kldiv_fast, f"{name}_value_and_grad")(x, x, out=out)
    with pytest.raises(TypeError, match="unexpected keyword argument 'eps'"):
        value_of(name)(x, x, eps=1)
