"""Random distributions, and the rows' values in extended precision: for the tests and tools/accuracy.py."""

import mpmath
import numpy as np
import scipy.special


def distributions(rng, shape, dtype=np.float32, axis=-1):
    x = rng.gamma(0.5, size=shape) + 1e-12
    return (x / x.sum(axis=axis, keepdims=True)).astype(dtype)


def log_ratio(t, p):
    """log(t/p), from the exact difference where the two are close."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(abs(t - p) < p / 2, np.log1p((t - p) / p), np.log(t) - np.log(p))


def oracle(y_true, y_pred, axis=-1, epsilon=1e-7, work=np.float64):
    """Rows in extended precision. `work` is the type that the kernel clips in: epsilon is rounded to it."""
    low = np.longdouble(work(epsilon))
    t = np.clip(np.asarray(y_true).astype(np.longdouble), low, 1)
    p = np.clip(np.asarray(y_pred).astype(np.longdouble), low, 1)
    t, p = np.broadcast_arrays(t, p)
    return (t * log_ratio(t, p)).sum(axis=axis)


def error_bound(magnitude, elements, in_float32):
    """docs/accuracy.md's bound, for a sum whose terms' magnitudes add up to `magnitude`."""
    single, double = 2.0**-24, 2.0**-53
    additions = (
        8 + elements / 32
    )  # of doubles: trees, segments and pieces; in column mode one for 32 terms
    return (36 * (single if in_float32 else double) + additions * double) * magnitude


# ---- every operation of the table, with as many digits as it takes ----

mpmath.mp.dps = 60


def _times_log(x, a, b):
    """x log(a/b), with 0 log 0 = 0."""
    return x * mpmath.log(a / b) if x else mpmath.mpf(0)


def _jsd(t, p, beta):
    if beta in (0, 1):  # the limits of jsd / beta and of jsd / (1 - beta)
        return _times_log(t, t, p) if beta == 0 else _times_log(p, p, t)
    m = beta * t + (1 - beta) * p
    return beta * _times_log(t, t, m) + (1 - beta) * _times_log(p, p, m)


# What an element adds. A line for each operation: the only place outside the package that has its formula.
TERMS = {
    "kl": lambda t, p, beta: _times_log(t, t, p),
    "generalized_kl": lambda t, p, beta: _times_log(t, t, p) - t + p,
    "jsd": _jsd,
    "jeffreys": lambda t, p, beta: _times_log(t - p, t, p),
}

# kl alone has terms below 0: its rows are a sum that cancels where the two nearly agree.
POSITIVE = [name for name in TERMS if name != "kl"]


def _half_of_both(t, p):
    m = (t + p) / 2
    return (scipy.special.rel_entr(t, m) + scipy.special.rel_entr(p, m)) / 2


# The same by SciPy, where it has a function or is made of some: its meaning of zeros is ours.
SCIPYS = {
    "kl": scipy.special.rel_entr,
    "generalized_kl": scipy.special.kl_div,
    "jsd": _half_of_both,
    "jeffreys": lambda t, p: scipy.special.rel_entr(t, p) + scipy.special.rel_entr(p, t),
}


def _clipped(x, epsilon, work):
    x = mpmath.mpf(float(x))
    return x if epsilon is None else min(max(x, mpmath.mpf(float(work(epsilon)))), mpmath.mpf(1))


def exact_terms(name, y_true, y_pred, beta=0.5, epsilon=1e-7, work=np.float64):
    """What each element of two arrays of one shape adds, in mpmath's numbers; `work` as in `oracle`."""
    term, beta = TERMS[name], mpmath.mpf(beta)
    pairs = zip(y_true.ravel(), y_pred.ravel(), strict=True)
    return [term(_clipped(t, epsilon, work), _clipped(p, epsilon, work), beta) for t, p in pairs]


def exact_rows(name, y_true, y_pred, beta=0.5, epsilon=1e-7, work=np.float64):
    """Their rows, each correct to the last bit of a double or nearer."""
    terms, n = exact_terms(name, y_true, y_pred, beta, epsilon, work), y_true.shape[-1]
    sums = [_long_double(mpmath.fsum(terms[i : i + n])) for i in range(0, len(terms), n)]
    return np.array(sums).reshape(y_true.shape[:-1])


def _long_double(x):
    high = float(x)
    return np.longdouble(high) + np.longdouble(float(x - high))


def exact_slopes(name, y_true, y_pred, beta=0.5):
    """Of each term with respect to both, by central differences; inside the clip, no two equal to 0."""
    step, term, beta = mpmath.mpf("1e-20"), TERMS[name], mpmath.mpf(beta)

    def slope(t, p, wrt_true):
        up, down = (
            term(t + sign * step * wrt_true, p + sign * step * (1 - wrt_true), beta)
            for sign in (1, -1)
        )
        return float((up - down) / (2 * step))

    pairs = [
        tuple(mpmath.mpf(float(x)) for x in pair)
        for pair in zip(y_true.ravel(), y_pred.ravel(), strict=True)
    ]
    return [
        np.array([slope(*pair, wrt_true) for pair in pairs]).reshape(y_true.shape)
        for wrt_true in (1, 0)
    ]


# ---- rows of logits ----


def logits_row(y_true, y_pred, temperature=1):
    """kl of the softmaxes of two lists of numbers over a temperature, and its slopes by each of either."""
    scale = 1 / mpmath.mpf(temperature)
    a, b = ([scale * x for x in row] for row in (y_true, y_pred))
    a_sum, b_sum = (mpmath.log(mpmath.fsum(map(mpmath.exp, row))) for row in (a, b))
    t_logs, p_logs = [x - a_sum for x in a], [x - b_sum for x in b]
    pairs = [(mpmath.exp(t), mpmath.exp(p), t - p) for t, p in zip(t_logs, p_logs, strict=True)]
    value = mpmath.fsum(t * ratio for t, _, ratio in pairs)
    by_true = [scale * t * (ratio - value) for t, _, ratio in pairs]
    by_pred = [scale * (p - t) for t, p, _ in pairs]
    return value, by_true, by_pred


def exact_logits(y_true, y_pred, temperature=1):
    """Rows of two finite arrays of rows, and both slopes, each correct to the last bit of a double."""
    rows = [
        logits_row(*([mpmath.mpf(float(v)) for v in x] for x in pair), temperature)
        for pair in zip(y_true, y_pred, strict=True)
    ]
    return [np.array(found, dtype=object).astype(float) for found in zip(*rows, strict=True)]


def exact_label_rows(labels, logits):
    """Of arrays, the logarithm of 1 + the others' exponentials over the label's own."""
    rows = []
    for label, row in zip(labels, logits, strict=True):
        own = mpmath.mpf(float(row[label]))
        others = (mpmath.exp(mpmath.mpf(float(x)) - own) for x in np.delete(row, label))
        rows.append(float(mpmath.log1p(mpmath.fsum(others))))
    return np.array(rows)


# ---- rows of any forms ----


def probabilities(form, row, temperature=1):
    """What a list of finite mpmath numbers stands for."""
    scale = mpmath.mpf(temperature) if form == "logits" else 1
    if form in ("log_probs", "logits"):
        row = [mpmath.exp(x / scale) for x in row]
    total = mpmath.fsum(row) if form in ("counts", "logits") else 1
    return [x / total for x in row]


def form_row(name, rows, forms, beta=0.5, temperature=1):
    """A row's value, of two lists of mpmath numbers."""
    t, p = (probabilities(form, row, temperature) for form, row in zip(forms, rows, strict=True))
    return mpmath.fsum(TERMS[name](x, y, mpmath.mpf(beta)) for x, y in zip(t, p, strict=True))


def as_numbers(x):
    return [mpmath.mpf(float(v)) for v in x]


def exact_form_rows(name, y_true, y_pred, forms, beta=0.5, temperature=1):
    pairs = zip(y_true, y_pred, strict=True)
    return np.array(
        [
            float(form_row(name, [*map(as_numbers, pair)], forms, beta, temperature))
            for pair in pairs
        ]
    )


def exact_form_slopes(name, y_true, y_pred, forms, beta=0.5, temperature=1):
    """By each element of two rows, as central differences."""
    step, rows = mpmath.mpf("1e-20"), [as_numbers(y_true), as_numbers(y_pred)]

    def slope(side, i):
        values = []
        for sign in (1, -1):
            moved = [list(row) for row in rows]
            moved[side][i] += sign * step
            values.append(form_row(name, moved, forms, beta, temperature))
        return float((values[0] - values[1]) / (2 * step))

    return [np.array([slope(side, i) for i in range(len(row))]) for side, row in enumerate(rows)]
