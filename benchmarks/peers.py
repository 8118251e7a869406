"""Every peer in its best form: inputs made beforehand, compiled, all cores. One table, name -> prepare.

``prepare(y_true, y_pred)`` returns a function without arguments that computes one mean divergence and ends only when
the value is there. Frameworks are imported inside, so that a missing one is skipped by name.
"""

import os

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

EPSILON = np.float32(1e-7)
SHAPES = [
    (2, 2),
    (32, 10),
    (512, 46),
    (1024, 1000),
    (8192, 1000),
    (100_000, 46),
    (64, 151_936),
]
LARGE = SHAPES[-3:]  # beyond the caches


def make_pair(shape, dtype=np.float32):
    """Two unrelated batches of distributions."""
    rng = np.random.default_rng(0)
    x, y = rng.gamma(0.5, size=(2, *shape)) + 1e-12
    return [(a / a.sum(-1, keepdims=True)).astype(dtype) for a in (x, y)]


def reference(y_true, y_pred):
    """The same formula in float64."""
    t = np.clip(y_true.astype(np.float64), EPSILON, 1)
    p = np.clip(y_pred.astype(np.float64), EPSILON, 1)
    return (t * np.log(t / p)).sum(-1).mean()


def kldiv_fast(y_true, y_pred):
    from kldiv_fast import kl

    return lambda: kl(y_true, y_pred)


def keras_numpy(y_true, y_pred):
    import keras

    loss = keras.losses.KLDivergence()
    return lambda: loss(y_true, y_pred).numpy()


def _keras_tensors(y_true, y_pred, wrap):
    import keras
    import tensorflow as tf

    t, p = tf.constant(y_true), tf.constant(y_pred)
    loss = wrap(tf, keras.losses.KLDivergence())
    return lambda: loss(t, p).numpy()


def keras_tensors(y_true, y_pred):
    return _keras_tensors(y_true, y_pred, lambda tf, loss: loss)


def tf_function(y_true, y_pred):
    return _keras_tensors(y_true, y_pred, lambda tf, loss: tf.function(loss))


def tf_xla(y_true, y_pred):
    return _keras_tensors(y_true, y_pred, lambda tf, loss: tf.function(loss, jit_compile=True))


def _torch(y_true, y_pred, compiled):
    import torch

    def divergence(t, p):
        t, p = t.clamp(1e-7, 1), p.clamp(1e-7, 1)
        return (t * (t / p).log()).sum(-1).mean()

    t, p = torch.from_numpy(y_true), torch.from_numpy(y_pred)
    function = torch.compile(divergence) if compiled else divergence
    return lambda: function(t, p).item()


def torch_eager(y_true, y_pred):
    return _torch(y_true, y_pred, compiled=False)


def torch_compile(y_true, y_pred):
    return _torch(y_true, y_pred, compiled=True)


def jax_jit(y_true, y_pred):
    import jax
    import jax.numpy as jnp

    @jax.jit
    def divergence(t, p):
        t, p = jnp.clip(t, EPSILON, 1), jnp.clip(p, EPSILON, 1)
        return (t * jnp.log(t / p)).sum(-1).mean()

    t, p = jnp.asarray(y_true), jnp.asarray(y_pred)
    return lambda: divergence(t, p).block_until_ready()


def numpy(y_true, y_pred):
    def divergence():
        t, p = np.clip(y_true, EPSILON, 1), np.clip(y_pred, EPSILON, 1)
        ratio = np.divide(t, p, out=p)
        return np.vdot(t, np.log(ratio, out=ratio)) / len(t)

    return divergence


def scipy(y_true, y_pred):
    from scipy.special import rel_entr

    def divergence():
        return rel_entr(np.clip(y_true, EPSILON, 1), np.clip(y_pred, EPSILON, 1)).sum() / len(
            y_true
        )

    return divergence


def numexpr(y_true, y_pred):
    import numexpr as ne

    low, one = EPSILON, np.float32(1)
    t, p = (f"where({x}<low,low,where({x}>one,one,{x}))" for x in "tp")
    # Row by row: one float32 sum over everything would lose four digits.
    text = f"sum({t} * log({t} / {p}), axis=1)"
    names = {"t": y_true, "p": y_pred, "low": low, "one": one}
    return lambda: ne.evaluate(text, local_dict=names).mean()


def numba(y_true, y_pred):
    import numba as nb

    @nb.njit(fastmath=True, parallel=True)
    def total(t, p):
        s = 0.0
        for i in nb.prange(t.size):
            a = min(max(t[i], EPSILON), np.float32(1))
            s += a * np.log(a / min(max(p[i], EPSILON), np.float32(1)))
        return s

    t, p = y_true.ravel(), y_pred.ravel()
    return lambda: total(t, p) / len(y_true)


def numkong(y_true, y_pred):
    from numkong import kullbackleibler

    if len(y_true) > 10_000:
        raise ValueError("row by row, 10,000 calls say nothing about the kernel")
    rows = list(zip(y_true, y_pred, strict=True))
    return lambda: sum(kullbackleibler(t, p) for t, p in rows) / len(rows)


PEERS = {
    "kldiv_fast": kldiv_fast,
    "Keras eager, NumPy in": keras_numpy,
    "Keras eager, tensors in": keras_tensors,
    "tf.function": tf_function,
    "tf.function, XLA": tf_xla,
    "torch eager": torch_eager,
    "torch.compile": torch_compile,
    "JAX jit": jax_jit,
    "NumPy": numpy,
    "SciPy rel_entr": scipy,
    "numexpr": numexpr,
    "numba": numba,
    "NumKong": numkong,
}


def agree(name, value, exact):
    """Whether a peer's value may be timed. Peers sum and round in float32; NumKong has a bias that is told, not judged."""
    rtol = {"kldiv_fast": 1e-6, "NumKong": np.inf}.get(name, 1e-4)
    return abs(float(value) - exact) <= rtol * abs(exact)
