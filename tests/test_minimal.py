"""The file to run first: the published examples, in under a second."""

import kldiv_fast
import numpy as np
import pytest

EXAMPLES = [
    ([[0, 1], [1, 0]], [[0.2, 0.8], [0.9, 0.1]], 0.16425064),
    ([[0, 1], [0, 0]], [[0.6, 0.4], [0.4, 0.6]], 0.45814306),
]
# The second published value was computed in float32; in exact arithmetic it is 0.458143045...
CONVERSIONS = {
    "list": lambda x: x,
    "float32": lambda x: np.array(x, np.float32),
    "float64": lambda x: np.array(x, np.float64),
}


@pytest.mark.parametrize("convert", CONVERSIONS.values(), ids=CONVERSIONS)
@pytest.mark.parametrize(("y_true", "y_pred", "published"), EXAMPLES, ids=["first", "second"])
def test_published_examples(isa, y_true, y_pred, published, convert):
    assert kldiv_fast.kl(convert(y_true), convert(y_pred)) == pytest.approx(published, abs=1e-7)


def test_scalar_types():
    x = np.full((2, 3), 0.5, np.float32)
    assert type(kldiv_fast.kl(x, x)) is np.float32
    assert type(kldiv_fast.kl(x, x.astype(np.float64))) is np.float64
    assert type(kldiv_fast.kl([0.5], [0.5])) is np.float64
    assert type(kldiv_fast.kl(x.astype(np.float16), x.astype(np.float16))) is np.float32


def test_equal_inputs_give_exactly_zero(isa, rng):
    x = rng.random((17, 123), dtype=np.float32)
    assert kldiv_fast.kl(x, x) == 0
