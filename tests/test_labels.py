"""Labels that contradict each other are an error, whose advice is taken from its message and run."""

import itertools

import kldiv_fast
import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")
xr = pytest.importorskip("xarray")

TABLES = {
    "series": pd.Series,
    "nullable": lambda values, labels: pd.Series(values, labels, dtype="Float64"),
    "frame": lambda values, labels: pd.DataFrame([values], columns=labels),
    "polars": lambda values, labels: pl.DataFrame([values], schema=list(labels), orient="row"),
    "pyarrow": lambda values, labels: pa.table({k: [v] for k, v in zip(labels, values, strict=True)}),
    "xarray": lambda values, labels: xr.DataArray([values], dims=("row", "class"), coords={"class": list(labels)}),
}  # fmt: skip
PAIRS = list(itertools.product(TABLES, TABLES))
T, P = [0.5, 0.25, 0.25], [0.125, 0.75, 0.125]


def refusal(y_true, y_pred, **keywords):
    try:
        kldiv_fast.kl(y_true, y_pred, **keywords)
    except ValueError as error:
        return str(error)


def taken(message, y_true, y_pred, by_position=False):
    """Both, as the message's advice, or its last alternative, makes them."""
    names = {"y_true": y_true, "y_pred": y_pred, "np": np, "pl": pl, "xr": xr}
    advice = message.partition("; expected ")[2].partition(": ")[2]
    aligned, _, position = advice.rpartition("; or ") if "; or " in advice else (advice, "", advice)
    code = position.removesuffix(" where positions are meant") if by_position else aligned
    exec(code, names)  # noqa: S102
    return names["y_true"], names["y_pred"]


def aligned(y_true, y_pred, **keywords):
    """Both, once the advice has been followed as often as there is one."""
    told = []
    while (message := refusal(y_true, y_pred, **keywords)) is not None:
        assert message.startswith("y_true ")
        assert message not in told
        told.append(message)
        y_true, y_pred = taken(message, y_true, y_pred)
    return y_true, y_pred, told


@pytest.mark.parametrize("pair", PAIRS, ids="/".join)
def test_the_same_labels(pair):
    y_true, y_pred = (TABLES[k](v, list("abc")) for k, v in zip(pair, (T, P), strict=True))
    assert kldiv_fast.kl(y_true, y_pred) == kldiv_fast.kl(T, P)
    assert kldiv_fast.kl(y_true, P) == kldiv_fast.kl(T, y_pred) == kldiv_fast.kl(T, P)


@pytest.mark.parametrize("pair", PAIRS, ids="/".join)
def test_the_same_labels_in_another_order(pair):
    y_true, y_pred = TABLES[pair[0]](T, list("abc")), TABLES[pair[1]](P[::-1], list("cba"))
    message = refusal(y_true, y_pred)
    assert (
        "y_true and y_pred have the same classes in another order: number 0 is 'a' and 'c';"
        in message
    )
    assert kldiv_fast.kl(*taken(message, y_true, y_pred)) == kldiv_fast.kl(T, P)
    by_position = taken(message, y_true, y_pred, by_position=True)
    assert kldiv_fast.kl(*by_position) == kldiv_fast.kl(T, P[::-1])


@pytest.mark.parametrize("pair", PAIRS, ids="/".join)
@pytest.mark.parametrize("labels", ["bcd", "bc", "bcde"])
def test_other_labels(pair, labels):
    """Each gets 0 for what the other has alone, whether or not they are of one length."""
    values = [0.125, 0.75, 0.125, 0.0][: len(labels)]
    y_true, y_pred = TABLES[pair[0]](T, list("abc")), TABLES[pair[1]](values, list(labels))
    assert "y_true and y_pred have other classes: 'a' in y_true alone" in refusal(y_true, y_pred)
    y_true, y_pred, told = aligned(y_true, y_pred)
    assert 1 <= len(told) <= 2
    there = dict(zip(labels, values, strict=True))
    dense = [T[i] if i < 3 else 0 for i in range(5)], [there.get(c, 0) for c in "abcde"]
    assert kldiv_fast.kl(y_true, y_pred) == pytest.approx(kldiv_fast.kl(*dense), rel=1e-12)


def test_value_counts_of_two_windows():
    first, second = pd.Series(list("aaabbc")), pd.Series(list("ccccbd"))
    for keywords in ({}, {"normalize": True}):
        counts = first.value_counts(**keywords), second.value_counts(**keywords)
        y_true, y_pred, told = aligned(*counts)
        assert len(told) == 1
        assert "'a' in y_true alone, 'd' in y_pred alone" in told[0]
    expected = kldiv_fast.kl(np.array([3, 2, 1, 0]) / 6, np.array([0, 1, 4, 1]) / 6)
    assert kldiv_fast.kl(y_true, y_pred) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("function", [kldiv_fast.kl, kldiv_fast.kl_value_and_grad])
def test_every_function_looks_at_labels(function):
    with pytest.raises(ValueError, match="in another order"):
        function(pd.Series(T, list("abc")), pd.Series(P, list("acb")))


def test_jax_looks_at_labels():
    pytest.importorskip("jax")
    import kldiv_fast.jax

    y_true, y_pred = pd.Series(T, list("abc")), pd.Series(P, list("abc"))
    assert kldiv_fast.jax.kl(y_true, y_pred) == pytest.approx(kldiv_fast.kl(T, P), rel=1e-6)
    with pytest.raises(ValueError, match="in another order"):
        kldiv_fast.jax.kl(y_true, y_pred[::-1])


# ---- which axes ----


def frames(index, columns):
    numbers = np.arange(1.0, 7).reshape(2, 3) / 21
    return pd.DataFrame(numbers, list("xy"), list("abc")), pd.DataFrame(numbers, index, columns)


@pytest.mark.parametrize(
    ("axis", "index", "columns", "error"),
    [
        (-1, "xy", "cba", True),
        (-1, "yx", "abc", False),  # rows are paired by position
        (0, "yx", "abc", True),
        (0, "xy", "cba", False),
        (0, "xz", "abc", True),
        ((0, 1), "xy", "cba", True),
        ((0, 1), "yx", "abc", True),
        ([-2, -1], "xz", "abc", True),
        ((0, 1), "xy", "abc", False),
    ],
    ids=str,
)
def test_along_the_class_axes_alone(axis, index, columns, error):
    y_true, y_pred = frames(list(index), list(columns))
    assert (refusal(y_true, y_pred, axis=axis) is not None) == error
    y_true, y_pred, told = aligned(y_true, y_pred, axis=axis)
    assert bool(told) == error
    if error:
        assert np.isfinite(kldiv_fast.kl(y_true, y_pred, axis=axis))


def test_one_row_for_all():
    frame = pd.DataFrame([T, P], columns=list("abc"))
    row = pd.Series(P, list("abc"))
    expected = kldiv_fast.kl(np.array([T, P]), P)
    assert kldiv_fast.kl(frame, row) == expected
    for y_true, y_pred in ((frame, row[::-1]), (row[::-1], frame)):
        assert "in another order" in refusal(y_true, y_pred)
    assert kldiv_fast.kl(*aligned(frame, row[::-1])[:2]) == expected
    frame, row, told = aligned(frame, pd.Series([*P, 0.0], list("cbad")))
    assert len(told) == 1
    assert frame.shape == (2, 4)
    assert kldiv_fast.kl(frame, row) == pytest.approx(
        kldiv_fast.kl(np.array([T, P]), P[::-1]), rel=1e-12
    )


def test_an_axis_that_keras_adds_or_drops_has_no_labels():
    column, series = pd.DataFrame({"p": T}), pd.Series(P)
    assert kldiv_fast.kl(column, series) == kldiv_fast.kl(np.reshape(T, (3, 1)), np.array(P))
    stack = xr.DataArray(
        np.reshape(T * 2, (2, 3, 1)), dims=("row", "class", "one"), coords={"class": list("abc")}
    )
    frame = pd.DataFrame([P, P], columns=list("abc"))
    assert kldiv_fast.kl(stack, frame) == kldiv_fast.kl(np.array([T, T]), np.array([P, P]))
    assert "in another order" in refusal(stack, frame[["c", "b", "a"]])


# ---- labels that nobody gave ----


def test_no_labels_agree_with_any():
    """What pandas, polars and xarray number by themselves, beside names."""
    named = pd.Series(T, list("abc"))
    for y_pred in (
        pd.Series(P),
        pd.DataFrame([P]),
        pl.DataFrame([P], orient="row"),
        pl.Series(P),
        xr.DataArray(P),
    ):
        assert kldiv_fast.kl(named, y_pred) == kldiv_fast.kl(T, P)
        assert kldiv_fast.kl(y_pred, named) == kldiv_fast.kl(P, T)
    table = pa.table({c: [v] for c, v in zip("abc", P, strict=True)})
    assert kldiv_fast.kl(pl.DataFrame([T], orient="row"), table) == kldiv_fast.kl(T, P)


def test_default_numbers_beside_numbers_are_labels():
    """Classes that are integers: the default 0, 1, 2 names them."""
    counted = pd.Series(T, [2, 0, 1])
    assert "in another order: number 0 is 0 and 2" in refusal(pd.Series(P), counted)
    assert kldiv_fast.kl(*aligned(pd.Series(P), counted)[:2]) == kldiv_fast.kl(P, [0.25, 0.25, 0.5])
    assert kldiv_fast.kl(pd.Series(P), pd.Series(T, [0, 1, 2])) == kldiv_fast.kl(P, T)
    assert "'" not in refusal(pd.Series(P), pd.Series(T, [1, 2, 3])).partition(";")[0]


@pytest.mark.parametrize(
    "labels",
    [
        pd.interval_range(0, 3),
        pd.MultiIndex.from_product([["a"], [1, 2, 3]]),
        pd.date_range("2026-01-01", periods=3),
        pd.CategoricalIndex(list("abc")),
        pd.Index([0.5, 1.5, np.nan]),
    ],
    ids=lambda labels: type(labels).__name__,
)
def test_labels_of_any_kind(labels):
    y_true, y_pred = pd.Series(T, labels), pd.Series(P, labels)
    assert kldiv_fast.kl(y_true, y_pred) == kldiv_fast.kl(T, P)
    assert kldiv_fast.kl(*aligned(y_true, y_pred[::-1])[:2]) == kldiv_fast.kl(T, P)


def test_labels_that_repeat_can_be_meant_by_position_alone():
    y_true, y_pred = pd.Series(T, list("aab")), pd.Series(P, list("aba"))
    message = refusal(y_true, y_pred)
    assert "reindex" not in message
    assert kldiv_fast.kl(*taken(message, y_true, y_pred, by_position=True)) == kldiv_fast.kl(T, P)
    assert "each class once" in refusal(y_true, pd.Series([*P, 0.0], list("aabb")))


# ---- the axes' names ----


def test_transposed_arrays_of_xarray():
    numbers = np.arange(1.0, 10).reshape(3, 3) / 9
    y_true = xr.DataArray(numbers, dims=("row", "class"))
    y_pred = xr.DataArray(numbers.T + 0.1, dims=("class", "row"))
    message = refusal(y_true, y_pred)
    assert "y_true has the axes ('row', 'class'), y_pred ('class', 'row')" in message
    assert kldiv_fast.kl(*taken(message, y_true, y_pred)) == kldiv_fast.kl(numbers, numbers + 0.1)
    by_row = xr.DataArray([0.25, 0.5, 0.75], dims="row")
    message = refusal(y_true, by_row)
    expected = kldiv_fast.kl(numbers, np.repeat([[0.25], [0.5], [0.75]], 3, axis=1))
    assert kldiv_fast.kl(*taken(message, y_true, by_row)) == expected
    assert kldiv_fast.kl(y_true, by_row.rename(row="class")) == kldiv_fast.kl(
        numbers, by_row.values
    )
    renamed = y_pred.rename({"class": "a", "row": "b"})
    assert kldiv_fast.kl(y_true, renamed) == kldiv_fast.kl(numbers, y_pred.values)
