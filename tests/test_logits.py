"""kl of two rows of logits beside mpmath and the formulas in extended precision: however near they are, in every layout and
dtype, on every ISA; their gradients.
"""

import functools

import kldiv_fast
import ml_dtypes
import mpmath
import numpy as np
import pytest
import scipy.special
from hypothesis import given
from isas import on_each_isa
from kldiv_fast import generalized_kl, kl, kl_value_and_grad
from oracle import exact_logits, logits_row
from pairwise import pairwise
from test_arrays import BROADCASTS, LAYOUTS
from test_family import same
from test_gradient import row_factors, summed_to, work_type
from test_properties import calls, reduced

BOTH = ("y_true", "y_pred")
REDUCTIONS = ["mean", "sum", "none", "batchmean", "mean_with_sample_weight", "sum_over_batch_size"]
RTOL = {np.float32: 2e-6, np.float64: 1e-13}

logits = functools.partial(kl, form="logits")
gradients = functools.partial(kl_value_and_grad, form="logits", wrt=BOTH)

each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


# ---- the formulas, in extended precision, and what roundings may make of them ----

# Of the format that the kernel computes in: an exponential's, a product's, those of sums of 32 elements.
ROUNDINGS = 20


def log_softmax(x, axis):
    x = x - x.max(axis=axis, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=axis, keepdims=True))


def formula(y_true, y_pred, axis=-1, temperature=1.0):
    """Rows, slopes by both, and how far one rounding of each element's parts moves these."""
    a, b = (
        np.asarray(x).astype(np.longdouble) / temperature
        for x in np.broadcast_arrays(y_true, y_pred)
    )
    t_log, p_log = log_softmax(a, axis), log_softmax(b, axis)
    t, p, ratio = np.exp(t_log), np.exp(p_log), t_log - p_log
    # p - t and the terms t log(t/p) - t + p, which add up to kl, as exact where the two are near each other.
    small = np.where(abs(ratio) < 1, ratio, 0)
    change = np.where(abs(ratio) < 1, t * np.expm1(-small), p - t)
    terms = np.where(abs(ratio) < 1, t * (np.expm1(-small) + small), change + t * ratio)
    rows = terms.sum(axis=axis, keepdims=True)
    slopes = t * (ratio - rows) / temperature, change / temperature
    # An exponential keeps its exponent z but for |z| roundings; a - b has one of its own, p may come from it.
    t_off = (1 - t_log + abs(a - b)) * t
    p_off = (1 - p_log + abs(a - b)) * p
    rows_off = t_off * abs(ratio - rows) + abs(change) * (1 - p_log + abs(a - b)) + terms
    slopes_off = t_off * (1 + abs(ratio) + rows) / temperature, (t_off + p_off) / temperature
    return rows.sum(axis), slopes, rows_off.sum(axis), slopes_off


def second_order(y_true, y_pred, temperature, unit):
    """What is left of a difference of logits that is rounded, where the value itself is nearly 0."""
    t, p = (np.asarray(x).astype(np.longdouble) for x in (y_true, y_pred))
    return (unit * np.abs(t - p).max(initial=0) / temperature) ** 2


def numbers(rng, shape, dtype=np.float32, scale=3):
    x = scale * rng.standard_normal(shape)
    return (np.round(x) if np.dtype(dtype).kind in "biu" else x).astype(dtype)


def pair(rng, shape, dtype=np.float32, scale=3):
    return numbers(rng, shape, dtype, scale), numbers(rng, shape, dtype, scale)


def below(dtype):
    """What is lost of an exponential that the format can't hold, times a ratio, over a temperature."""
    return 1e4 * np.finfo(dtype).tiny


def close_rows(ours, y_true, y_pred, axis=-1, temperature=1.0):
    exact, _, off, _ = formula(y_true, y_pred, axis, temperature)
    unit = np.finfo(work_type(y_true, y_pred)).eps
    bound = ROUNDINGS * unit * off + np.finfo(ours.dtype).eps * exact
    assert ours.shape == exact.shape
    assert np.all(ours >= 0)
    assert np.all(np.abs(ours - exact) <= bound + second_order(y_true, y_pred, temperature, unit))


def close_gradients(ours, y_true, y_pred, factor=1.0, axis=-1, temperature=1.0):
    """`factor`: of each row, of a shape that broadcasts with the slopes'."""
    _, slopes, _, off = formula(y_true, y_pred, axis, temperature)
    unit = np.finfo(work_type(y_true, y_pred)).eps
    for gradient, slope, slope_off in zip(ours, slopes, off, strict=True):
        exact = np.asarray(factor * slope)
        bound = np.abs(factor) * ROUNDINGS * unit * slope_off
        bound = bound + np.finfo(gradient.dtype).eps * abs(exact) + below(gradient.dtype)
        assert gradient.shape == exact.shape
        assert np.all(np.abs(gradient - exact) <= bound)


# ---- values and slopes against mpmath ----

OFF = [1, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6]


@functools.cache
def near(off, dtype, classes):
    """Logits that differ by about `off`, as the dtype holds them."""
    rng = np.random.default_rng(20261124)
    x = numbers(rng, (3, classes), np.float64)
    return x.astype(dtype), (x + off * rng.standard_normal(x.shape)).astype(dtype)


@functools.cache
def exact_near(off, dtype, classes):
    return exact_logits(*near(off, dtype, classes))


@pairwise(
    isa=kldiv_fast.available_isas(),
    dtype=[np.float32, np.float64],
    classes=[2, 10, 46, 1000],
    off=OFF,
)
def test_full_relative_precision_however_near(isa, dtype, classes, off):
    y_true, y_pred = near(off, dtype, classes)
    rows, _, _ = exact_near(off, dtype, classes)
    ours = logits(y_true, y_pred, reduction="none")
    np.testing.assert_allclose(ours, rows, rtol=RTOL[dtype])
    np.testing.assert_allclose(logits(y_true, y_pred), rows.mean(), rtol=RTOL[dtype])


@each_dtype
@pytest.mark.parametrize("off", OFF)
@pytest.mark.parametrize("beyond", [-30, 3, 30])
def test_near_but_for_a_class_that_is_hardly_there(isa, dtype, off, beyond):
    """The differences' range says that the rows are far apart, which they aren't."""
    y_true, y_pred = (x.copy() for x in near(off, dtype, 46))
    y_true[:, 3] = y_pred[:, 3] = -40
    y_pred[:, 3] += beyond
    rows, *slopes = exact_logits(y_true, y_pred)
    value, ours = gradients(y_true, y_pred, reduction="none")
    np.testing.assert_allclose(value, rows, rtol=RTOL[dtype])
    np.testing.assert_allclose(logits(y_true, y_pred, reduction="none"), rows, rtol=RTOL[dtype])
    for gradient, exact, rtol in zip(ours, slopes, (RTOL[dtype], RTOL[dtype] / off), strict=True):
        largest = np.abs(exact).max(axis=-1, keepdims=True)
        np.testing.assert_allclose(gradient / largest, exact / largest, rtol=0, atol=rtol)


LEAST = np.finfo(np.float32).min


@pytest.mark.parametrize(
    ("y_true", "y_pred", "temperature"),
    [
        ([100, LEAST], [0, 0], 0.5),
        ([0, -1e36], [1, 1], 1e-3),
        ([8, 7.9, 7, LEAST], [0.01, -0.1, -1, -30], 0.5),
        ([5, 4.9, 3, LEAST], [1, 0.9, -1, -9], 0.5),
        ([5, LEAST], [0, 0], 0.5),
        ([5, 4.9, LEAST], [4.9, 5, LEAST], 0.5),
        ([2, 1, 0.5], [0.5, 1, 2], 1e30),
    ],
)
@each_dtype
def test_numbers_that_stand_for_nothing(isa, dtype, y_true, y_pred, temperature):
    """The format's least number, as a mask: where the temperature makes it more than the format has. Up to a - b's rounding."""
    y_true, y_pred = np.array([y_true], dtype), np.array([y_pred], dtype)
    rows, *slopes = exact_logits(y_true, y_pred, temperature=temperature)
    value, ours = gradients(y_true, y_pred, temperature=temperature, reduction="none")
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(value, rows, rtol=1000 * eps, atol=1e-45)
    for gradient, exact in zip(ours, slopes, strict=True):
        np.testing.assert_allclose(gradient, exact, rtol=1000 * eps, atol=16 * eps / temperature)


@each_dtype
@pytest.mark.parametrize("temperature", [1e-308, 1e-42, 1e42, 1e60])
@pytest.mark.parametrize("classes", [3, 16, 20])
def test_temperatures_whose_inverse_float32_has_not(isa, rng, dtype, temperature, classes):
    y_true, y_pred = rng.normal(size=(2, 2, classes)).astype(dtype)
    y_pred[:, 1] = 50  # another class than y_true's, for certain
    rows = logits(y_true, y_pred, temperature=temperature, reduction="none")
    assert np.all(rows >= 0) and not np.isnan(rows).any()
    if temperature > 1:
        np.testing.assert_allclose(rows, 0, atol=1e-30)


@each_dtype
@pytest.mark.parametrize("off", OFF)
def test_slopes_however_near(isa, dtype, off):
    """Relative to a row's largest: q - t and log(t/q) - KL change their sign within a row."""
    y_true, y_pred = near(off, dtype, 46)
    _, *slopes = exact_near(off, dtype, 46)
    _, ours = gradients(y_true, y_pred, reduction="none")
    for gradient, exact, rtol in zip(ours, slopes, (RTOL[dtype], RTOL[dtype] / off), strict=True):
        largest = np.abs(exact).max(axis=-1, keepdims=True)
        np.testing.assert_allclose(gradient / largest, exact / largest, rtol=0, atol=rtol)


@each_dtype
@pytest.mark.parametrize("temperature", [0.1, 0.5, 1, 2.0, 100])
def test_temperature(isa, rng, dtype, temperature):
    y_true, y_pred = pair(rng, (4, 46), dtype)
    rows, *_ = exact_logits(y_true, y_pred, temperature)
    keywords = {"temperature": temperature, "reduction": "none"}
    ours, found = gradients(y_true, y_pred, **keywords)
    np.testing.assert_allclose(ours, rows, rtol=RTOL[dtype])
    assert same(ours, logits(y_true, y_pred, **keywords))
    close_gradients(found, y_true, y_pred, temperature=temperature)
    # Never times its square, which is whose loss it is in who says so.
    plain = logits(*(x.astype(np.float64) / temperature for x in (y_true, y_pred)))
    np.testing.assert_allclose(
        logits(y_true, y_pred, temperature=temperature), plain, rtol=RTOL[dtype]
    )


def test_slopes_are_the_derivatives(rng):
    """Central differences of the value, in mpmath, of ours and of the oracle's formulas."""
    y_true, y_pred = pair(rng, (1, 5), np.float64)
    step, temperature = 1e-12, 1.5
    _, ours = gradients(y_true, y_pred, temperature=temperature)
    _, *slopes = exact_logits(y_true, y_pred, temperature)
    for side, (gradient, slope) in enumerate(zip(ours, slopes, strict=True)):
        for i in range(5):
            values = []
            for sign in (1, -1):
                moved = [[mpmath.mpf(v) for v in x[0]] for x in (y_true, y_pred)]
                moved[side][i] += sign * mpmath.mpf(step)
                values.append(logits_row(*moved, temperature)[0])
            numeric = float((values[0] - values[1]) / (2 * mpmath.mpf(step)))
            assert slope[0, i] == pytest.approx(numeric, rel=1e-14, abs=1e-18)
            assert gradient[0, i] == pytest.approx(numeric, rel=1e-12, abs=1e-15)


def test_known_answers(isa):
    """log 2 of two to one, and what softmax makes of logarithms."""
    t, p = np.array([0.7, 0.2, 0.1]), np.array([0.2, 0.3, 0.5])
    assert logits(np.log(t), np.log(p)) == pytest.approx(0.6348972650, rel=1e-9)
    assert logits([0.0, -np.inf], [1.0, 1.0]) == pytest.approx(np.log(2), rel=1e-15)
    assert logits([0.0, -np.inf], [1.0, 1.0], base=2) == pytest.approx(1, rel=1e-15)


# ---- what never fails ----


@each_dtype
@pytest.mark.parametrize("shape", [(5, 1), (5, 2), (3, 46), (2, 1000), (1, 40_000)], ids=str)
def test_equal_logits_are_exactly_0(isa, rng, dtype, shape):
    x = numbers(rng, shape, dtype, 10)
    for temperature in (0.1, 1, 7):
        rows, found = gradients(x, x.copy(), temperature=temperature, reduction="none")
        assert not rows.any()
        assert not logits(x, x, temperature=temperature)
        for gradient in found:
            assert not gradient.any()


@each_dtype
def test_one_class_is_0(isa, rng, dtype):
    y_true, y_pred = pair(rng, (40, 1), dtype, 10)
    rows, found = gradients(y_true, y_pred, reduction="none")
    assert not rows.any()
    assert not found[0].any() and not found[1].any()


@each_dtype
def test_never_negative(isa, rng, dtype):
    unit = np.finfo(dtype).eps
    for off in (0.1, 1e-3, 8 * unit, unit):
        for classes in (2, 3, 17, 300):
            x = numbers(rng, (50, classes), dtype)
            y = (x * (1 + off * rng.standard_normal(x.shape))).astype(dtype)
            assert np.all(logits(x, y, reduction="none") >= 0)


@each_dtype
def test_one_number_added_to_every_logit_changes_nothing(isa, rng, dtype):
    """10^4, where the sums are exact: of multiples of 2^-8 of either side."""
    x, y = (np.round(v * 256) / 256 for v in pair(rng, (4, 100), np.float64))
    exact = formula(x.astype(dtype), y.astype(dtype))[0]
    for shifts in ((1e4, 1e4), (-1e4, -1e4), (1e4, 0), (0, 1e4), (-1e4, 1e4)):
        a, b = ((v + shift).astype(dtype) for v, shift in zip((x, y), shifts, strict=True))
        np.testing.assert_allclose(logits(a, b, reduction="none"), exact, rtol=RTOL[dtype])


@each_dtype
def test_far_apart(isa, dtype):
    """Where one probability is 1 and the others underflow: the largest difference itself."""
    big = np.finfo(dtype).max / 8
    for size in (1e3, big):
        a, b = np.array([[size, 0, 0]], dtype), np.array([[0, size, 0]], dtype)
        np.testing.assert_allclose(logits(a, b), float(dtype(size)), rtol=RTOL[dtype])
        _, (by_true, by_pred) = gradients(a, b)
        np.testing.assert_array_equal(by_pred, [[-1, 1, 0]])
        np.testing.assert_array_equal(by_true, 0)


# ---- rows that go on otherwise than they begin ----

INF, NAN = np.inf, np.nan


def and_then(first, rest):
    """Half of a row, and the other."""
    return np.concatenate([first, rest], axis=-1)


def halves(rng, rows, n, off):
    a = 3 * rng.standard_normal((rows, n))
    return a, a + off * rng.standard_normal(a.shape)


# Of so many rows and half so many classes as are wanted, y_true and y_pred: what the first half promises of the second.
GOES_ON = {
    "rising": lambda a, b, n: (a + np.linspace(0, 60, 2 * n), b + np.linspace(0, 50, 2 * n)),
    "falling": lambda a, b, n: (a - np.linspace(0, 60, 2 * n), b - np.linspace(0, 50, 2 * n)),
    "against each other": lambda a, b, n: (a + np.linspace(0, 9, 2 * n), b - np.linspace(0, 9, 2 * n)),
    "moved a little": lambda a, b, n: (a, b + np.repeat([0, 0.6], n)),
    "moved": lambda a, b, n: (a, b + np.repeat([0, 7], n)),
    "about another number": lambda a, b, n: (a + np.repeat([0, 20], n), b + np.repeat([0, 400], n)),
    "one class": lambda a, b, n: (a, b + 9 * (np.arange(2 * n) == 2 * n - 1)),
    "one class that is all": lambda a, b, n: (a + 50 * (np.arange(2 * n) == 2 * n - 1), b),
    "the same": lambda a, b, n: (a, and_then(b[:, :n], a[:, n:])),
    "the same, and more probable": lambda a, b, n: (a + np.repeat([0, 25], n), and_then(b[:, :n], a[:, n:] + 25)),
    "far apart": lambda a, b, n: (a, and_then(b[:, :n], -a[:, n:])),
}  # fmt: skip


@pairwise(
    isa=kldiv_fast.available_isas(),
    goes_on=list(GOES_ON),
    off=[0, 1e-3, 0.1, 2],
    shape=[(40, 30), (6, 700), (1, 20_000)],
    order=["C", "F"],
    dtype=[np.float32, np.float64],
)
def test_rows_that_go_on_otherwise_than_they_begin(isa, rng, goes_on, off, shape, order, dtype):
    """What is added up ahead, about what the row's beginning shows, stands the test of all of it, or is done anew."""
    (rows, n), temperature = shape, 0.5
    a, b = GOES_ON[goes_on](*halves(rng, rows, 2 * n, off), n)
    a, b = (x.astype(dtype, order=order) for x in (a, b))
    values = logits(a, b, temperature=temperature, reduction="none")
    close_rows(values, a, b, temperature=temperature)
    assert np.all(values >= 0)
    ours, found = gradients(a, b, temperature=temperature, reduction="none")
    assert same(ours, values)
    close_gradients(found, a, b, temperature=temperature)
    for threads in (1, 2):
        again = logits(a, b, temperature=temperature, reduction="none", num_threads=threads)
        assert same(again, values)


@pairwise(
    isa=kldiv_fast.available_isas(),
    moved=[10, 30, 100, 1000, 10_000, 4_000_000],
    part=[1e-3, 0.02, 0.08, 0.11, 0.13, 0.2, 1],
    classes=[1024, 20_000],
    temperature=[1, 0.3],
    dtype=[np.float32, np.float64],
)
def test_rows_whose_beginning_says_nothing_of_them(isa, moved, part, classes, temperature, dtype):
    """Its differences are so far from the others, of which its value is a part, that what is added up about them is noise."""
    a, b = np.zeros((2, 1, classes), dtype)
    a[0, :512], a[0, 512:] = np.linspace(-5, 0, 512), moved
    b[0, 0] = np.log(classes - 512) + part * moved
    exact, *_ = formula(a, b, temperature=temperature)
    values = logits(a, b, temperature=temperature, reduction="none")
    # It may be as little as an eighth of its two parts, whose roundings here all go one way.
    np.testing.assert_allclose(values, exact.astype(float), rtol=2 * RTOL[dtype])


@each_dtype
def test_large_numbers_whose_differences_are_exact(isa, rng, dtype):
    """Beside a beginning of small ones; at 1e8 float32 has but multiples of 8."""
    steps = 8.0 * rng.integers(-1, 2, (1, 2048))
    a, b = (
        and_then(3 * rng.standard_normal((1, 512)), rest).astype(dtype)
        for rest in (1e8 + steps, steps + 1000)
    )
    assert logits(a, b) < RTOL[dtype]
    b[0, 700] += 8
    exact, *_ = formula(a, b)
    np.testing.assert_allclose(logits(a, b), float(exact[0]), rtol=RTOL[dtype])


@each_dtype
@pytest.mark.parametrize("classes", [40, 1400, 20_000])
@pytest.mark.parametrize("off", [0, 1e-3, 1, 4])
def test_rows_that_end_in_nothing(isa, rng, dtype, classes, off):
    """A class that neither has is not there; one that y_true alone has makes the row infinite; NaN goes through."""
    a, b = (x.astype(dtype) for x in halves(rng, 1, classes, off))
    expected = logits(a[:, :-1], b[:, :-1])
    ended = [np.array(x) for x in (a, b)]
    for x in ended:
        x[:, -1] = -INF
    np.testing.assert_allclose(logits(*ended), expected, rtol=RTOL[dtype], atol=1e-30)
    assert logits(a, ended[1]) == INF
    lost = np.log1p(np.exp(np.float64(b[0, -1]) - scipy.special.logsumexp(b[0, :-1].astype(float))))
    np.testing.assert_allclose(logits(ended[0], b), expected + lost, rtol=2 * RTOL[dtype])
    b[:, -1] = NAN
    assert np.isnan(logits(a, b))
    assert np.isnan(logits(b, a))


# ---- special values ----

SPECIAL = {
    "y_pred is -inf where y_true is not": ([0, 1, 2], [0, -INF, 2], INF),
    "both are -inf": ([0, -INF, 1], [0.5, -INF, 2], None),
    "y_true is -inf": ([0, -INF, 1], [0.5, 1, 2], None),
    "y_true is one-hot": ([-INF, 3, -INF], [1, 1, 1], np.log(3)),
    "one-hot, both": ([-INF, 3, -INF], [-INF, -5, -INF], 0),
    "one-hot, elsewhere": ([-INF, 3, -INF], [5, -INF, -INF], INF),
    "y_true is -inf alone": ([-INF] * 3, [0, 1, 2], NAN),
    "y_pred is -inf alone": ([0, 1, 2], [-INF] * 3, NAN),
    "both are -inf alone": ([-INF] * 3, [-INF] * 3, NAN),
    "+inf in y_true": ([0, INF, 1], [0, 1, 2], NAN),
    "+inf in y_pred": ([0, 1, 2], [0, INF, 1], NAN),
    "+inf in both": ([0, INF, 1], [0, INF, 1], NAN),
    "NaN in y_true": ([0, NAN, 1], [0, 1, 2], NAN),
    "NaN in y_pred": ([0, 1, 2], [0, NAN, 2], NAN),
    "NaN beside -inf": ([-INF, 0, 1], [NAN, 1, 2], NAN),
    "+inf beside -inf": ([0, 1, -INF], [0, 1, INF], NAN),
    "NaN beside what is infinite": ([0, 1, NAN], [-INF, 1, 2], NAN),
}


def special_answer(y_true, y_pred, answer):
    """None: what the classes where y_true is not -inf make of it."""
    if answer is not None:
        return answer
    a, b = np.array(y_true, np.longdouble), np.array(y_pred, np.longdouble)
    with np.errstate(all="ignore"):
        t, ratio = np.exp(log_softmax(a, -1)), log_softmax(a, -1) - log_softmax(b, -1)
        return float((t * ratio)[t > 0].sum())


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("case", SPECIAL.values(), ids=SPECIAL)
def test_special_values(isa, dtype, case):
    """Alone, and with their classes at every place of a row of -inf: two vectors and a tail."""
    y_true, y_pred, _ = case
    exact = special_answer(*case)
    work = np.float64 if dtype == np.float64 else np.float32
    for layout in (np.ascontiguousarray, np.asfortranarray):
        a, b = (layout(np.array([x, x], dtype)) for x in (y_true, y_pred))
        np.testing.assert_allclose(logits(a, b, reduction="none"), exact, rtol=RTOL[work])
        np.testing.assert_allclose(logits(a, b), exact, rtol=RTOL[work])
    width = 37
    a, b = np.full((2, width, width), -INF, dtype)
    for i in range(width):
        places = (i + np.array([0, 5, 17])) % width
        a[i, places], b[i, places] = y_true, y_pred
    np.testing.assert_allclose(logits(a, b, reduction="none"), exact, rtol=RTOL[work])
    np.testing.assert_allclose(logits(a.T, b.T, axis=0, reduction="none"), exact, rtol=RTOL[work])


@each_dtype
def test_special_values_in_long_rows(isa, rng, dtype):
    """In any piece of a row that is cut: the first, one in the middle, the last."""
    n = 70_001
    x, y = pair(rng, (1, n), dtype)
    for place in (0, 31_000, n - 1):
        for values, exact in (((0, -INF), INF), ((NAN, 0), NAN), ((0, NAN), NAN), ((INF, 0), NAN), ((0, INF), NAN)):  # fmt: skip
            a, b = x.copy(), y.copy()
            a[0, place], b[0, place] = values
            assert logits(a, b) == exact or (np.isnan(exact) and np.isnan(logits(a, b)))
        a, b = x.copy(), y.copy()
        a[0, : place + 1] = b[0, : place + 1] = -INF
        if place < n - 1:
            close_rows(logits(a, b, reduction="none"), a[:, place + 1 :], b[:, place + 1 :])
        else:
            assert np.isnan(logits(a, b))


def test_gradients_beside_minus_infinity(isa):
    """A class that is absent from both, or from y_true, pulls as its probability does."""
    a, b = np.array([[0, -INF, 1, 2]]), np.array([[0.5, -INF, 2, 1]])
    _, ours = gradients(a, b)
    kept = [0, 2, 3]
    _, without = gradients(a[:, kept], b[:, kept])
    for gradient, other in zip(ours, without, strict=True):
        np.testing.assert_allclose(gradient[:, kept], other, rtol=1e-15, atol=1e-16)
        assert gradient[0, 1] == 0
    b[0, 1] = 0.25
    _, (by_true, by_pred) = gradients(a, b)
    q = np.exp(b[0]) / np.exp(b[0]).sum()
    assert by_pred[0, 1] == pytest.approx(q[1], rel=1e-14)
    assert by_true[0, 1] == 0


def test_nan_goes_through_to_the_gradients(isa, rng):
    a, b = pair(rng, (3, 20))
    a[1, 4] = NAN
    _, ours = gradients(a, b)
    for gradient in ours:
        assert np.isnan(gradient[1]).all()
        assert np.isfinite(gradient[[0, 2]]).all()


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0), (0,)], ids=str)
def test_empty(isa, shape):
    x = np.empty(shape, np.float32)
    assert logits(x, x) == 0
    rows, found = gradients(x, x, reduction="none")
    np.testing.assert_array_equal(rows, np.zeros(shape[:-1]))
    assert found[0].shape == found[1].shape == shape


# ---- layouts, dtypes, axes, broadcasting ----


@pairwise(
    isa=kldiv_fast.available_isas(),
    shape=[(3, 5, 47), (40, 2, 19)],
    of_true=LAYOUTS,
    of_pred=LAYOUTS,
    axis=[-1, 0, 1, (0, 1), (0, 2), (0, 1, 2)],
)
def test_layouts(isa, rng, shape, of_true, of_pred, axis):
    y_true, y_pred = pair(rng, shape)
    axes = tuple(a % 3 for a in np.atleast_1d(axis))
    rows = np.delete(shape, axes)
    upstream = np.float32(rng.random(rows))
    a, b = of_true(y_true), of_pred(y_pred)
    ours = logits(a, b, axis=axis, temperature=1.5, reduction="none")
    close_rows(ours, y_true, y_pred, axes, 1.5)
    again, found = gradients(a, b, axis=axis, temperature=1.5, reduction="none", upstream=upstream)
    assert same(again, ours)
    close_gradients(found, y_true, y_pred, np.expand_dims(upstream, axes), axes, 1.5)
    weight = rng.random(rows)
    weighted = logits(a, b, axis=axis, temperature=1.5, reduction="sum", sample_weight=weight)
    np.testing.assert_allclose(weighted, (ours * weight).sum(dtype=np.float64), rtol=1e-6)


SHAPES = [(1, 1), (2, 2), (32, 10), (7, 17), (100, 46), (50, 48), (5, 1000), (3, 4097), (6,), (2, 3, 4), (2, 70_000), (40_000, 3)]  # fmt: skip


@pairwise(
    isa=kldiv_fast.available_isas(),
    shape=SHAPES,
    dtype=["float32", "float64", "float16", "bfloat16", "int64", "uint8", "bool", ">f4", ">f8", ">f2", ">i4"],
    axis=[-1, 0],
)  # fmt: skip
def test_shapes_and_dtypes(isa, rng, shape, dtype, axis):
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    y_true, y_pred = (
        np.abs(numbers(rng, shape)).astype(kind),
        np.abs(numbers(rng, shape)).astype(kind),
    )
    native = [x.astype(x.dtype.newbyteorder("=")) for x in (y_true, y_pred)]
    ours, found = gradients(y_true, y_pred, axis=axis, reduction="none")
    close_rows(ours, *native, axis=axis)
    close_gradients(found, *native, axis=axis)
    assert ours.dtype == work_type(*native)
    assert same(logits(y_true, y_pred, axis=axis, reduction="none"), ours)


@pytest.mark.parametrize("dtypes", [("int64", "float32"), ("bool", "float32"), ("float32", "float64"),
                                    ("float16", "float32"), ("float64", "float16"), ("int8", "int8")])  # fmt: skip
@pytest.mark.parametrize("axis", [0, 1])
def test_mixed_dtypes(isa, rng, dtypes, axis):
    y_true, y_pred = numbers(rng, (40, 30), dtypes[0]), numbers(rng, (40, 30), dtypes[1])
    ours = logits(y_true, y_pred, axis=axis, reduction="none")
    assert ours.dtype == kl(y_true, y_pred).dtype
    close_rows(ours, y_true, y_pred, axis)


@pytest.mark.parametrize("classes", range(1, 70))
def test_every_tail(isa, rng, classes):
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64):
        y_true, y_pred = pair(rng, (3, classes), dtype)
        rows, found = gradients(y_true, y_pred, reduction="none")
        close_rows(rows, y_true, y_pred)
        close_gradients(found, y_true, y_pred)
        along = logits(y_true.T.copy(), y_pred.T.copy(), axis=0, reduction="none")
        close_rows(along, y_true, y_pred)


@pytest.mark.parametrize(("a", "b"), BROADCASTS, ids=str)
@pytest.mark.parametrize("axis", [-1, 0, (0, 1)], ids=str)
def test_broadcasting(isa, rng, a, b, axis):
    """A softmax is over the classes that the two broadcast to; gradients are summed over what repeats."""
    y_true, y_pred = numbers(rng, a), np.asarray(numbers(rng, b))
    shape = np.broadcast_shapes(a, b)
    axes = tuple(x % len(shape) for x in np.atleast_1d(axis))
    rows, found = gradients(y_true, y_pred, axis=axis, reduction="none")
    close_rows(rows, y_true, y_pred, axes)
    _, slopes, _, _ = formula(y_true, y_pred, axes)
    for gradient, slope, x in zip(found, slopes, (y_true, y_pred), strict=True):
        np.testing.assert_allclose(gradient, summed_to(slope, x.shape), rtol=4e-6, atol=4e-6)


def test_bits_do_not_hang_on_the_layout_of_one_row(isa, rng):
    """Classes side by side or far apart, alone or among others: a row is added up in one order."""
    x, y = pair(rng, (6, 1000))
    rows = logits(x, y, reduction="none")
    assert same(logits(x.copy(), y.copy(), reduction="none"), rows)
    for i in range(6):
        assert logits(x[i], y[i], reduction="none") == rows[i]


# ---- weights, masks, reductions, out ----


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("masked", [False, True], ids=["", "mask"])
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weight"])
def test_reductions(isa, rng, reduction, weighted, masked):
    y_true, y_pred = pair(rng, (4, 5, 30), np.float64)
    weight = rng.random((4, 5)) if weighted else None
    mask = rng.random((4, 5)) < 0.6 if masked else None
    keywords = dict(reduction=reduction, sample_weight=weight, mask=mask)
    rows = formula(y_true, y_pred)[0]
    exact, _ = reduced(rows, rows, **keywords)
    for base, scale in ((None, 1), (2, 1 / np.log(np.longdouble(2)))):
        value, found = gradients(y_true, y_pred, base=base, **keywords)
        np.testing.assert_allclose(value, np.float64(exact * scale), rtol=1e-13)
        assert same(value, logits(y_true, y_pred, base=base, **keywords))
        factor = row_factors((4, 5), **keywords)[..., np.newaxis] * scale
        close_gradients(found, y_true, y_pred, factor)


@pytest.mark.parametrize("axis", [-1, 0])
def test_a_masked_row_is_not_read(isa, rng, axis):
    y_true, y_pred = pair(rng, (5, 40))
    mask = np.array([True, False, True, True, False])
    a, b = y_true.copy(), y_pred.copy()
    a[~mask], b[~mask] = NAN, INF
    a, b = (x if axis == -1 else x.T.copy() for x in (a, b))
    rows, found = gradients(a, b, axis=axis, mask=mask, reduction="none")
    np.testing.assert_array_equal(rows[~mask], 0)
    np.testing.assert_array_equal(rows[mask], logits(y_true, y_pred, reduction="none")[mask])
    for gradient in found:
        gradient = gradient if axis == -1 else gradient.T
        assert not gradient[~mask].any() and np.isfinite(gradient).all()
    np.testing.assert_allclose(
        logits(a, b, axis=axis, mask=mask), logits(y_true[mask], y_pred[mask]), rtol=1e-6
    )


def test_out(isa, rng):
    y_true, y_pred = pair(rng, (30, 20))
    rows, found = gradients(y_true, y_pred, reduction="none")
    out, outs = np.empty(30, np.float32), [np.empty_like(y_true), np.empty((20, 30), np.float32).T]
    result = gradients(y_true, y_pred, reduction="none", out=(out, outs))
    assert result[0] is out and result[1][0] is outs[0] and result[1][1] is outs[1]
    assert same((out, tuple(outs)), (rows, found))
    every_second = np.empty(60, np.float32)[::2]
    assert logits(y_true, y_pred, reduction="none", out=every_second) is every_second
    np.testing.assert_array_equal(every_second, rows)


def test_out_that_is_in_the_way(isa, rng):
    """A gradient where its input stood: read to the end first."""
    y_true, y_pred = pair(rng, (300, 200))
    rows, found = gradients(y_true, y_pred, reduction="none")
    a, b = y_true.copy(), y_pred.copy()
    result = gradients(a, b, reduction="none", out=[a, b])
    assert same((result[0], (a, b)), (rows, found))
    own = y_true.copy()
    logits(own, y_pred, reduction="none", out=own[:, 0][:300])
    np.testing.assert_array_equal(own[:, 0], rows)


def test_one_gradient_of_the_two(isa, rng):
    y_true, y_pred = pair(rng, (30, 20))
    value, (by_true, by_pred) = gradients(y_true, y_pred)
    for name, gradient in (("y_true", by_true), ("y_pred", by_pred)):
        assert same(gradients(y_true, y_pred, wrt=name), (value, gradient))


# ---- threads and ISAs ----


@pytest.mark.parametrize("shape", [(3000, 46), (7, 30_000), (60_000, 3), (1, 400_000)], ids=str)
@pytest.mark.parametrize("axis", [-1, 0])
def test_bits_for_any_number_of_threads(isa, rng, shape, axis):
    y_true, y_pred = pair(rng, shape)
    one, *others = (
        (logits(y_true, y_pred, axis=axis, num_threads=n),
         *gradients(y_true, y_pred, axis=axis, reduction="none", num_threads=n))
        for n in (1, 2, 3)
    )  # fmt: skip
    assert all(same(one, other) for other in others)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_isas_have_the_same_bits(rng, dtype):
    """All that have an FMA; the portable baseline has none."""
    y_true, y_pred = pair(rng, (20, 300), dtype)
    found = on_each_isa(lambda: gradients(y_true, y_pred, reduction="none"))
    found.pop("baseline")
    first, *others = found.values()
    assert all(same(first, other) for other in others)


# ---- others' results ----


@pytest.mark.parametrize("temperature", [1, 2.5])
def test_torch(rng, temperature):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    y_true, y_pred = pair(rng, (60, 46), np.float64)
    a, b = (torch.from_numpy(x).requires_grad_() for x in (y_true.copy(), y_pred.copy()))
    log_t, log_p = ((x / temperature).log_softmax(-1) for x in (a, b))
    for ours, theirs in (("batchmean", "batchmean"), ("sum", "sum"), ("mean", "batchmean")):
        loss = functional.kl_div(log_p, log_t, log_target=True, reduction=theirs)
        value = logits(y_true, y_pred, temperature=temperature, reduction=ours)
        np.testing.assert_allclose(value, loss.item(), rtol=1e-12)
    loss.backward()
    _, found = gradients(y_true, y_pred, temperature=temperature)
    for gradient, x in zip(found, (a, b), strict=True):
        np.testing.assert_allclose(gradient, x.grad.numpy(), rtol=1e-11, atol=1e-15)


def test_keras(rng):
    """The cross-entropy of logits, less the entropy, which does not hang on y_pred."""
    keras = pytest.importorskip("keras")
    y_true, y_pred = pair(rng, (60, 46))
    t = np.exp(log_softmax(y_true.astype(np.float64), -1))
    entropy = -(t * np.log(t)).sum(-1)
    weight = rng.random(60).astype(np.float32)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, reduction=None)
    theirs = keras.ops.convert_to_numpy(loss(t.astype(np.float32), y_pred)) - entropy
    np.testing.assert_allclose(
        logits(y_true, y_pred, reduction="none"), theirs, rtol=1e-5, atol=1e-5
    )
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    theirs = loss(t.astype(np.float32), y_pred, sample_weight=weight) - (entropy * weight).mean()
    ours = logits(y_true, y_pred, sample_weight=weight)
    np.testing.assert_allclose(ours, keras.ops.convert_to_numpy(theirs), rtol=1e-5, atol=1e-5)


def test_kl_of_the_softmaxes_as_probabilities(isa, rng):
    y_true, y_pred = pair(rng, (20, 30), np.float64)
    t, p = (np.exp(log_softmax(x, -1)) for x in (y_true, y_pred))
    theirs = kl(t, p, epsilon=None, reduction="none")
    np.testing.assert_allclose(logits(y_true, y_pred, reduction="none"), theirs, rtol=1e-12)


def test_generalized_kl_is_kl(isa, rng):
    y_true, y_pred = pair(rng, (20, 30))
    for keywords in ({}, {"reduction": "none", "temperature": 2}):
        assert same(
            generalized_kl(y_true, y_pred, form="logits", **keywords),
            logits(y_true, y_pred, **keywords),
        )
    theirs = kldiv_fast.generalized_kl_value_and_grad(y_true, y_pred, form="logits", wrt=BOTH)
    assert same(theirs, gradients(y_true, y_pred))


# ---- generated calls ----


def of_any_size(rng, shape, scale, dtype):
    """Now and then some that are absent; integers of either sign, where the dtype has them."""
    x = 3 * scale * rng.standard_normal(shape)
    if dtype.kind in "biu":
        return np.clip(np.round(np.abs(x) if dtype.kind != "i" else x), -100, 100)
    return x


@given(call=calls(of_any_size))
def test_any_call(call):
    y_true, y_pred, keywords = call
    del keywords["epsilon"]
    axis, reduction = keywords["axis"], keywords["reduction"]
    unit = np.finfo(work_type(y_true, y_pred)).eps
    rows, slopes, rows_off, slopes_off = formula(y_true, y_pred, axis, 0.75)
    rows_off = ROUNDINGS * unit * rows_off + second_order(y_true, y_pred, 0.75, unit)
    beside = {name: keywords[name] for name in ("reduction", "sample_weight", "mask")}
    exact, bound = reduced(rows, rows_off, **beside)
    factor = np.expand_dims(row_factors(rows.shape, **beside), axis)
    results = on_each_isa(
        lambda: (
            *gradients(y_true, y_pred, temperature=0.75, **keywords),
            logits(y_true, y_pred, temperature=0.75, **keywords),
        )
    )
    for isa, (value, found, alone) in results.items():
        assert same(value, alone), (isa, reduction)
        result = np.finfo(value.dtype).eps
        assert np.all(np.abs(value - exact) <= bound + result * np.abs(exact) + 1e-300), isa
        assert np.all(value >= 0), isa
        for gradient, x, slope, off in zip(
            found, (y_true, y_pred), slopes, slopes_off, strict=True
        ):
            terms = factor * slope
            off = np.abs(factor) * ROUNDINGS * unit * off + 2 * result * np.abs(terms)
            summed, allowed = (
                summed_to(each, x.shape) for each in (terms, off + below(value.dtype))
            )
            assert gradient.shape == x.shape, isa
            assert np.all(np.abs(gradient - summed) <= allowed), isa


# ---- what comes through Python ----


def foreign(library, x):
    module = pytest.importorskip(library)
    return {
        "torch": lambda: module.from_numpy(x),
        "tensorflow": lambda: module.constant(x),
        "jax.numpy": lambda: module.asarray(x),
        "pandas": lambda: module.DataFrame(x),
        "polars": lambda: module.DataFrame(x),
        "pyarrow": lambda: module.table({str(i): column for i, column in enumerate(x.T)}),
        "xarray": lambda: module.DataArray(x, dims=["row", "class"]),
    }[library]()


LIBRARIES = ["torch", "tensorflow", "jax.numpy", "pandas", "polars", "pyarrow", "xarray"]


@pytest.mark.parametrize("library", LIBRARIES)
def test_other_libraries(rng, library):
    y_true, y_pred = pair(rng, (6, 5))
    a, b = foreign(library, y_true), foreign(library, y_pred)
    for keywords in ({}, {"temperature": 3, "reduction": "none"}):
        expected = gradients(y_true, y_pred, **keywords)
        assert same(logits(a, b, **keywords), expected[0])
        assert same(gradients(a, b, **keywords), expected)


def test_lists(rng):
    y_true, y_pred = pair(rng, (6, 5), np.float64)
    for a, b in (
        (y_true.tolist(), y_pred.tolist()),
        (y_true.tolist(), y_pred),
        ([list(x) for x in y_true], y_pred),
    ):
        assert same(gradients(a, b, temperature=2), gradients(y_true, y_pred, temperature=2))


def test_masked_arrays_are_refused(rng):
    y_true, y_pred = pair(rng, (6, 5))
    with pytest.raises(TypeError, match="y_true is a masked array"):
        logits(np.ma.array(y_true), y_pred)
