"""What numpy.asarray accepts without a copy is accepted; what would mislead is refused."""

import kldiv_fast
import pytest
from oracle import distributions


@pytest.fixture
def pair(rng):
    return distributions(rng, (8, 10)), distributions(rng, (8, 10))


def test_torch(pair):
    torch = pytest.importorskip("torch")
    tensors = [torch.from_numpy(x) for x in pair]
    assert kldiv_fast.kl(*tensors) == kldiv_fast.kl(*pair)
    with pytest.raises(TypeError, match=r"y_pred is a tensor that requires a gradient.*detach"):
        kldiv_fast.kl(tensors[0], tensors[1].requires_grad_())
    with pytest.raises(TypeError, match=r"y_true is a tensor that is not in the CPU's memory"):
        kldiv_fast.kl(torch.empty(8, 10, device="meta"), pair[1])


def test_tensorflow(pair):
    tf = pytest.importorskip("tensorflow")
    assert kldiv_fast.kl(*map(tf.constant, pair)) == kldiv_fast.kl(*pair)


def test_jax(pair):
    jnp = pytest.importorskip("jax.numpy")
    assert kldiv_fast.kl(*map(jnp.asarray, pair)) == kldiv_fast.kl(*pair)
    half = jnp.asarray(pair[0], jnp.bfloat16)
    assert kldiv_fast.kl(half, half) == 0


def test_pandas(pair):
    pd = pytest.importorskip("pandas")
    assert kldiv_fast.kl(*map(pd.DataFrame, pair)) == pytest.approx(kldiv_fast.kl(*pair), rel=1e-6)


class OnlyDlpack:
    def __init__(self, array, device=1):
        self.array, self.device = array, device

    def __dlpack__(self, **keywords):
        return self.array.__dlpack__(**keywords)

    def __dlpack_device__(self):
        return self.device, 0


class OnlyArray:
    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


def test_protocols(pair):
    assert kldiv_fast.kl(OnlyDlpack(pair[0]), OnlyArray(pair[1])) == kldiv_fast.kl(*pair)
    with pytest.raises(TypeError, match="not in the CPU's memory"):
        kldiv_fast.kl(OnlyDlpack(pair[0], device=2), pair[1])
