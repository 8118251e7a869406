"""`validate`: rows that are not what their form says are errors that name them; softmaxes of any library are what they say."""

import kldiv_fast
import ml_dtypes
import numpy as np
import pytest
from test_forms import BY_NAME, FORMS, functions

GOOD = {
    "probs": [0.25, 0.5, 0.25, 0.0],
    "counts": [3.0, 0.0, 1e6, 0.5],
    "log_probs": [np.log(0.5), np.log(0.25), -np.inf, np.log(0.25)],
    "logits": [-1e4, -np.inf, 3.0, 1e4],
}
INF, NAN = np.inf, np.nan
# What stands in place of some elements of a row, and what is said of it.
BAD = {
    "probs below 0": ("probs", {0: -0.25, 1: 1.0}, r"the element -0.25 in row {row}; expected probabilities, from 0 to 1"),
    "probs above 1": ("probs", {0: 1.25, 1: 0, 2: 0}, r"the element 1.25 in row {row}; expected probabilities"),
    "probs NaN": ("probs", {3: NAN}, r"the element nan in row {row}; expected probabilities"),
    "probs' sum": ("probs", {1: 0.25}, r"the sum 0.75 in row {row}; expected probabilities, from 0 to 1, of the sum 1 to within \S+e-\d+"),
    "counts below 0": ("counts", {1: -1}, r"the element -1 in row {row}; expected counts, finite and not below 0"),
    "counts infinite": ("counts", {1: INF}, r"the element inf in row {row}; expected counts"),
    "counts NaN": ("counts", {1: NAN}, r"the element nan in row {row}; expected counts"),
    "logs above 0": ("log_probs", {0: 0.5}, r"the element 0.5 in row {row}; expected logarithms of probabilities"),
    "logs' sum": ("log_probs", {0: -INF}, r"the sum 0.5\d* in row {row}; expected logarithms of probabilities"),
    "logs NaN": ("log_probs", {2: NAN}, r"the element nan in row {row}; expected logarithms"),
    "logits infinite": ("logits", {2: INF}, r"the element inf in row {row}; expected logits, finite or -inf"),
    "logits NaN": ("logits", {2: NAN}, r"the element nan in row {row}; expected logits"),
}  # fmt: skip


def rows_of(form, shape, dtype=np.float64):
    return np.broadcast_to(np.array(GOOD[form], dtype), (*shape, 4)).copy()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", BY_NAME)
def test_rows_of_their_form_pass(name, form):
    x = rows_of(form, (2, 3))
    for function in functions(name):
        function(x, x, form=form, validate=True)
        function(x[:, :1], x, form=form, validate=True)
        function(x[0, 0], x[0, 0], form=form, validate=True)


@pytest.mark.parametrize("argument", ["y_true", "y_pred"])
@pytest.mark.parametrize(("form", "change", "message"), BAD.values(), ids=BAD)
def test_the_first_row_that_is_not(form, change, message, argument):
    x, out = rows_of(form, (4, 3)), np.full((4, 3), 7.0)
    bad = x.copy()
    for row in ((2, 1), (3, 0)):
        for i, value in change.items():
            bad[row][i] = value
    arrays = {"y_true": x, "y_pred": x} | {argument: bad}
    with pytest.raises(ValueError, match=f"^{argument} has " + message.format(row=r"\(2, 1\)")):
        kldiv_fast.kl(**arrays, form=form, validate=True, reduction="none", out=out)
    assert np.all(out == 7)
    kldiv_fast.kl(**arrays, form=form)  # nobody asked
    arrays = {"y_true": x[2], "y_pred": x[2]} | {argument: bad[2]}
    for function in functions("jsd"):
        with pytest.raises(ValueError, match=f"^{argument} has " + message.format(row="1")):
            function(**arrays, form=form, validate=True)


def test_classes_that_broadcast_are_all_there():
    third, ones = np.full((5, 3), 1 / 3), np.ones((5, 1))
    kldiv_fast.kl(ones / 3, third, validate=True)
    with pytest.raises(ValueError, match="y_true has the sum 3 in row 0"):
        kldiv_fast.kl(ones, third, validate=True)
    with pytest.raises(TypeError, match="validate is 'no'; expected True or False"):
        kldiv_fast.kl(third, third, validate="no")


def test_what_is_left_out_may_be_anything():
    x = rows_of("probs", (3, 2))
    x[1, 0] = NAN
    with pytest.raises(ValueError, match=r"y_true has the element nan in row \(1, 0\)"):
        kldiv_fast.kl(x, x, validate=True)
    mask = np.ones((3, 2), bool)
    mask[1, 0] = False
    assert kldiv_fast.kl(x, x, validate=True, mask=mask) == 0
    x = rows_of("probs", (3,))
    where = np.ones((3, 4), bool)
    where[2, 3], x[2, 3] = False, -5
    assert kldiv_fast.kl(x, x, validate=True, where=where) == 0
    where[2, 2] = False
    with pytest.raises(ValueError, match=r"y_true has the sum 0.75 in row 2"):
        kldiv_fast.kl(x, x, validate=True, where=where)


@pytest.mark.parametrize("form", FORMS)
def test_rows_longer_than_a_block_and_many_rows(rng, form):
    for shape in ((2, 200_000), (150_000, 3)):
        x = rng.random(shape)
        x = x / x.sum(axis=1, keepdims=True) if form in ("probs", "log_probs") else x
        x = np.log(x) if form == "log_probs" else x
        kldiv_fast.kl(x, x, form=form, validate=True)
        kldiv_fast.kl(np.asfortranarray(x), x, form=form, validate=True)
        x[-1, -1] = NAN
        with pytest.raises(ValueError, match=f"y_pred has the element nan in row {shape[0] - 1};"):
            kldiv_fast.kl(x[:1], x, form=form, validate=True)


def softmaxes(logits):
    """Of each library that is here, by its name and dtype."""
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    yield "NumPy", e / e.sum(axis=-1, keepdims=True)
    torch = pytest.importorskip("torch")
    jax = pytest.importorskip("jax")
    x = torch.from_numpy(logits)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        yield f"torch {dtype}", torch.softmax(x.to(dtype), -1)
        if (
            dtype != torch.float16
        ):  # in which a sum of exponentials ends at 65504: all are -inf then
            yield f"torch log {dtype}", torch.log_softmax(x.to(dtype), -1)
    x = jax.numpy.asarray(logits)  # whose sums of 16 bits are of 16 bits
    yield "jax", np.asarray(jax.nn.softmax(x))
    yield "jax log", np.asarray(jax.nn.log_softmax(x))


@pytest.mark.parametrize("classes", [2, 46, 1000, 151_936])
@pytest.mark.parametrize("scale", [0.1, 3, 10])
def test_softmaxes_pass(rng, classes, scale):
    logits = (scale * rng.standard_normal((3, classes))).astype(np.float32)
    for name, t in softmaxes(logits):
        form = "log_probs" if "log" in name else "probs"
        kldiv_fast.kl(t, t, form=form, validate=True)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_a_sum_that_no_rounding_explains(dtype):
    x = np.full((2, 8), 0.125, dtype)
    kldiv_fast.kl(x, x, validate=True)
    x[1, 0] = 0.25 if dtype in (np.float16, ml_dtypes.bfloat16) else 0.126
    with pytest.raises(ValueError, match=r"y_true has the sum 1.* in row 1"):
        kldiv_fast.kl(x, x, validate=True)


def test_labels_are_always_looked_at():
    with pytest.raises(ValueError, match=r"y_true has the label 4 in row 1"):
        kldiv_fast.kl([0, 4], rows_of("probs", (2,)), form=("labels", "probs"), validate=True)
    with pytest.raises(ValueError, match=r"y_pred has the sum"):
        bad = 2 * rows_of("probs", (2,)) / 3
        kldiv_fast.kl([0, 3], bad, form=("labels", "probs"), validate=True)
