"""kl beside the real Keras on TensorFlow: shapes, reductions, weights, masks, dtypes, on every ISA.

Keras computes a case once, and every ISA is held to that result.
"""

import kldiv_fast
import numpy as np
import pytest
from isas import on_each_isa
from oracle import distributions, oracle
from test_minimal import EXAMPLES

keras = pytest.importorskip("keras")

SHAPES = [(0, 5), (1, 1), (1, 46), (2, 2), (32, 10), (7, 17), (5, 1000), (3, 4097), (40000, 3)]
SHAPES += [(6,), (2, 3, 4), (2, 3, 1, 5), (0, 3, 4), (2, 3, 70000)]
REDUCTIONS = ["sum_over_batch_size", "mean", "sum", "none", None, "mean_with_sample_weight"]


def keras_kl(y_true, y_pred, sample_weight=None, mask=None, reduction="mean", dtype="float32"):
    loss = keras.losses.KLDivergence(reduction=reduction, dtype=dtype)
    y_pred = keras.ops.convert_to_tensor(y_pred)
    if mask is not None:
        y_pred._keras_mask = keras.ops.convert_to_tensor(mask)
    return np.asarray(loss(y_true, y_pred, sample_weight=sample_weight))


def compare(theirs, *arguments, rtol=1e-5, atol=1e-6, **keywords):
    """kl's result of the arguments on each ISA, beside one of Keras."""
    for isa, ours in on_each_isa(lambda: kldiv_fast.kl(*arguments, **keywords)).items():
        assert np.shape(ours) == theirs.shape, isa
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol, err_msg=isa)


@pytest.mark.parametrize(("y_true", "y_pred", "published"), EXAMPLES)
def test_keras_gives_the_published_values(y_true, y_pred, published):
    assert keras_kl(np.array(y_true, np.float32), np.array(y_pred, np.float32)) == pytest.approx(
        published, abs=1e-7
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes_and_reductions(rng, shape, reduction):
    y_true, y_pred = distributions(rng, shape), distributions(rng, shape)
    if shape == (0, 5) and reduction not in ("none", None):
        theirs = np.float32(0)  # Keras returns an array of shape (0,): see the table of differences
    else:
        theirs = keras_kl(y_true, y_pred, reduction=reduction)
    compare(theirs, y_true, y_pred, reduction=reduction)


def test_vocabulary_sized_rows(rng):
    y_true, y_pred = distributions(rng, (64, 151936)), distributions(rng, (64, 151936))
    for reduction in ("mean", "none"):
        theirs = keras_kl(y_true, y_pred, reduction=reduction)
        compare(theirs, y_true, y_pred, reduction=reduction)


@pytest.mark.parametrize(
    ("dtype", "rtol"),
    [("float16", 1e-2), ("bfloat16", 5e-2), ("float32", 1e-5), ("float64", 1e-12)],
)
def test_dtypes(rng, dtype, rtol):
    """16-bit Keras computes in 16 bits; beside it stands the oracle, at float32's accuracy."""
    kind = pytest.importorskip("ml_dtypes").bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    # At least 2e-3, where Keras's float16 does not overflow.
    y_true, y_pred = (((0.1 + rng.random((20, 33))) / 20).astype(kind) for _ in range(2))
    result, work, atol = (
        (np.float64, np.float64, 1e-15) if dtype == "float64" else (np.float32, np.float32, 3e-7)
    )
    rows = on_each_isa(lambda: kldiv_fast.kl(y_true, y_pred, reduction="none"))
    assert {ours.dtype for ours in rows.values()} == {np.dtype(result)}
    exact = oracle(y_true, y_pred, work=work).astype(np.float64)
    compare(exact, y_true, y_pred, reduction="none", rtol=0, atol=atol)
    theirs = keras_kl(y_true, y_pred, reduction="none", dtype=dtype).astype(np.float64)
    compare(theirs, y_true, y_pred, reduction="none", rtol=rtol, atol=rtol)


WEIGHTS = [
    ((4, 5), (4,)), ((4, 5), (4, 1)), ((4, 5), (1,)), ((4, 5), ()), ((2, 3, 5), (2, 3)),
    ((2, 3, 5), (3,)), ((2, 3, 5), (2, 1)), ((2, 3, 5), (2, 3, 1)), ((2, 3, 5), (1, 3)),
    ((2, 1, 5), (2,)), ((2, 1, 5), (2, 3)), ((2, 3, 1, 5), (2, 3)), ((5,), ()), ((5,), (1,)),
]  # fmt: skip


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("shape", "weight_shape"), WEIGHTS, ids=str)
def test_sample_weight(rng, shape, weight_shape, reduction):
    y_true, y_pred = distributions(rng, shape), distributions(rng, shape)
    weight = rng.random(weight_shape).astype(np.float32)
    keywords = dict(sample_weight=weight, reduction=reduction)
    compare(keras_kl(y_true, y_pred, **keywords), y_true, y_pred, **keywords)


REPEATED_ROWS = ((2, 1, 5), (2, 3))  # a weight repeats them, as in Keras; a mask alone does not


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("shape", "mask_shape"), WEIGHTS, ids=str)
def test_mask(rng, shape, mask_shape, reduction, weighted):
    y_true, y_pred = distributions(rng, shape), distributions(rng, shape)
    mask = rng.random(mask_shape) < 0.6
    weight = rng.random(mask_shape).astype(np.float32) if weighted else None
    keywords = dict(sample_weight=weight, mask=mask, reduction=reduction)
    if (shape, mask_shape) == REPEATED_ROWS and not weighted:
        with pytest.raises(ValueError, match="a mask leaves out rows"):
            kldiv_fast.kl(y_true, y_pred, **keywords)
    else:
        compare(keras_kl(y_true, y_pred, **keywords), y_true, y_pred, **keywords)


@pytest.mark.parametrize("reduction", ["mean", "sum", "mean_with_sample_weight"])
def test_all_masked_is_zero(reduction):
    x = np.full((3, 4), 0.25, np.float32)
    assert kldiv_fast.kl(x, x * 2, mask=[False] * 3, reduction=reduction) == 0


@pytest.mark.parametrize(
    ("a", "b"),
    [((4, 1), (4,)), ((4,), (4, 1)), ((3, 4, 1), (3, 4)), ((2, 3), (3,)), ((3, 1), (1, 4))],
)
def test_ranks_that_differ(rng, a, b):
    y_true, y_pred = rng.random(a, np.float32), rng.random(b, np.float32)
    compare(keras_kl(y_true, y_pred, reduction="none"), y_true, y_pred, reduction="none")


SPECIAL = np.array(
    [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 9e-8, 1e-7, 2e-7, 0.5, 1 - 6e-8, 1.0, 1.5, -2.0, 3e38],
    np.float32,
)  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_special_values(dtype):
    y_true, y_pred = (x.reshape(-1, 1).astype(dtype) for x in np.meshgrid(SPECIAL, SPECIAL))
    theirs = keras_kl(y_true, y_pred, reduction="none", dtype=dtype)
    compare(theirs, y_true, y_pred, reduction="none", rtol=2e-6, atol=1e-7)


def test_float16_does_not_overflow_where_keras_does():
    y_true, y_pred = np.array([[1.0]], np.float16), np.array([[1e-6]], np.float16)
    assert np.isinf(keras_kl(y_true, y_pred, dtype="float16"))
    assert kldiv_fast.kl(y_true, y_pred) == pytest.approx(-np.log(float(y_pred[0, 0])), rel=1e-6)


def test_a_masked_row_is_not_read():
    y_true = np.array([[0.5, 0.5], [np.nan, np.nan]], np.float32)
    y_pred = np.array([[0.25, 0.75], [np.nan, np.nan]], np.float32)
    mask = np.array([True, False])
    assert np.isnan(keras_kl(y_true, y_pred, mask=mask))
    assert kldiv_fast.kl(y_true, y_pred, mask=mask) == kldiv_fast.kl(y_true[:1], y_pred[:1])
