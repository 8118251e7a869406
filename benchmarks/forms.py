"""The same rows in every form, and as logits given to the peers: calls that `report.py` times, each checked first.

A peer is in its best form, as in peers.py: inputs made beforehand, compiled, all cores.
"""

import jax
import jax.numpy as jnp
import keras
import kldiv_fast
import ml_dtypes
import numpy as np
import torch
from kldiv_fast import jsd, kl, kl_value_and_grad
from memory_limit import reader

REFERENCE = "kl probs"
FORMS = {
    REFERENCE: (kl, "probs"),
    "kl logits": (kl, "logits"),
    "kl probs, logits": (kl, ("probs", "logits")),
    "kl probs, log_probs": (kl, ("probs", "log_probs")),
    "kl log_probs": (kl, "log_probs"),
    "kl counts": (kl, "counts"),
    "jsd logits": (jsd, "logits"),
}
HALVES = {"kl logits float16": np.float16, "kl logits bfloat16": ml_dtypes.bfloat16}


def make_logits(shape):
    """Two unrelated batches."""
    return (3 * np.random.default_rng(0).standard_normal((2, *shape))).astype(np.float32)


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    x -= np.log(np.exp(x).sum(-1, keepdims=True))
    return x


def reference(name, a, b):
    """The mean of rows of logits, by the usual formulas in float64."""
    log_t, log_p = (log_softmax(x.astype(np.float64)) for x in (a, b))
    if name == REFERENCE:
        log_t, log_p = (np.clip(x, np.log(1e-7), 0) for x in (log_t, log_p))
    t, p = np.exp(log_t), np.exp(log_p)
    if name.startswith("jsd"):
        log_m = np.log((t + p) / 2)
        return (t * (log_t - log_m) + p * (log_p - log_m)).sum() / 2 / len(a)
    return (t * (log_t - log_p)).sum() / len(a)


def checked(name, function, exact, rtol):
    value = float(function())
    assert abs(value - exact) <= rtol * abs(exact), (name, value, exact)
    return function


def calls(a, b):
    """By name, kldiv_fast's."""
    logs = [log_softmax(x.astype(np.float64)) for x in (a, b)]
    given = {
        "probs": [np.exp(x) for x in logs],
        "counts": [1000 * np.exp(x) for x in logs],
        "log_probs": logs,
        "logits": [a, b],
    }
    given = {form: [x.astype(np.float32) for x in pair] for form, pair in given.items()}
    functions = {}
    for name, (function, form) in FORMS.items():
        of_true, of_pred = (form, form) if isinstance(form, str) else form
        functions[name] = call(function, given[of_true][0], given[of_pred][1], form)
        checked(name, functions[name], reference(name, a, b), 1e-5)
    for name, dtype in HALVES.items():
        halves = a.astype(dtype), b.astype(dtype)
        functions[name] = checked(name, call(kl, *halves, "logits"), reference(name, *halves), 1e-5)
    return functions


def call(function, y_true, y_pred, form):
    return lambda: function(y_true, y_pred, form=form)


# ---- peers of logits ----


def by_numpy(a, b):
    def divergence():
        log_t, log_p = log_softmax(a), log_softmax(b)
        ratio = np.subtract(log_t, log_p, out=log_p)
        return np.vdot(np.exp(log_t, out=log_t), ratio) / len(a)

    return divergence


def torch_formula(a, b):
    log_t, log_p = a.log_softmax(-1), b.log_softmax(-1)
    return torch.nn.functional.kl_div(log_p, log_t, log_target=True, reduction="batchmean")


def compiled():
    """For one shape: else the second one would be compiled for any."""
    torch._dynamo.reset()
    return torch.compile(torch_formula, fullgraph=True, dynamic=False)


def by_torch(function, a, b):
    a, b = torch.from_numpy(a), torch.from_numpy(b)
    return lambda: function(a, b).item()


def by_jax(a, b):
    @jax.jit
    def divergence(a, b):
        log_t, log_p = jax.nn.log_softmax(a), jax.nn.log_softmax(b)
        return (jnp.exp(log_t) * (log_t - log_p)).sum(-1).mean()

    a, b = jnp.asarray(a), jnp.asarray(b)
    return lambda: divergence(a, b).block_until_ready()


def peers(a, b):
    """By name, the mean kl of two arrays of logits."""
    functions = {
        "torch.compile": by_torch(compiled(), a, b),
        "torch eager": by_torch(torch_formula, a, b),
        "JAX jit": by_jax(a, b),
        "NumPy": by_numpy(a, b),
    }
    exact = reference("kl logits", a, b)
    return {name: checked(name, function, exact, 1e-4) for name, function in functions.items()}


# ---- labels ----


def labels_beside_logits(shape):
    """By name, the mean cross-entropy of labels, and a loop that reads the logits alone."""
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, shape[1], shape[0]), make_logits(shape)[1]
    given = torch.from_numpy(logits), torch.from_numpy(labels)
    cross_entropy = torch.nn.functional.cross_entropy
    torch._dynamo.reset()
    compiled = torch.compile(cross_entropy, fullgraph=True, dynamic=False)
    functions = {
        "kldiv_fast": lambda: kl(labels, logits, form=("labels", "logits")),
        "torch cross_entropy": lambda: cross_entropy(*given).item(),
        "torch.compile": lambda: compiled(*given).item(),
    }
    log_p = log_softmax(logits.astype(np.float64))
    exact = -log_p[np.arange(shape[0]), labels].mean()
    for name, function in functions.items():
        checked(name, function, exact, 1e-5)
    halves = logits[: shape[0] // 2], logits[shape[0] // 2 :]
    return functions | {"limit": reader(*halves, kldiv_fast.get_num_threads())}


def labels_beside_probs(shape):
    """By name, Keras's divergence of one-hot rows, which somebody has to make."""
    rng = np.random.default_rng(0)
    labels, probs = rng.integers(0, shape[1], shape[0]), softmax(make_logits(shape)[1])
    loss = keras.losses.KLDivergence()
    functions = {
        "kldiv_fast": lambda: kl(labels, probs, form=("labels", "probs")),
        "to_categorical + Keras": lambda: loss(keras.utils.to_categorical(labels, shape[1]), probs).numpy(),
    }  # fmt: skip
    exact = kl(np.eye(shape[1])[labels], probs.astype(np.float64))
    return {name: checked(name, function, exact, 1e-5) for name, function in functions.items()}


def softmax(x):
    return np.exp(log_softmax(x))


# ---- value and gradient ----


def backward(function, a, b):
    """A call that makes the value and y_pred's gradient, and returns both."""
    y_true, y_pred = torch.from_numpy(a), torch.from_numpy(b).requires_grad_()

    def step():
        y_pred.grad = None
        value = function(y_true, y_pred)
        value.backward()
        return value.item(), y_pred.grad.numpy()

    return step


def gradients(a, b):
    """By name, the value and the gradient by y_pred of two arrays of logits."""
    out = np.empty_like(b)
    functions = {
        "kldiv_fast": lambda: kl_value_and_grad(a, b, form="logits"),
        "kldiv_fast, out": lambda: kl_value_and_grad(a, b, form="logits", out=out),
        "torch.compile": backward(compiled(), a, b),
        "torch eager": backward(torch_formula, a, b),
    }
    value, gradient = kl_value_and_grad(*(x.astype(np.float64) for x in (a, b)), form="logits")
    for function in functions.values():
        found, by_pred = function()
        np.testing.assert_allclose(found, value, rtol=1e-4)
        np.testing.assert_allclose(by_pred, gradient, rtol=1e-4, atol=1e-9)
    return functions
