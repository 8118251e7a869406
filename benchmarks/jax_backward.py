"""Value and gradient in y_pred on JAX arrays: kldiv_fast.jax, JAX's own formula, a callback.

    python benchmarks/jax_backward.py [--seconds 5]

Exits with 1 if kldiv_fast, called without jit, isn't 5 times as fast as the formula without jit at
8192x1000.
"""

import argparse
import functools
import sys

import jax
import jax.numpy as jnp
import kldiv_fast
import kldiv_fast.jax
import numpy as np
from peers import make_pair
from timing import interleaved_medians, machine

SHAPES = [(32, 10), (512, 46), (4096, 1000), (8192, 1000)]
TARGET = (8192, 1000), 5


def formula(y_true, y_pred):
    t, p = jnp.clip(y_true, 1e-7, 1), jnp.clip(y_pred, 1e-7, 1)
    return jnp.mean(jnp.sum(t * jnp.log(t / p), axis=-1))


# What kldiv_fast.jax would be without XLA's foreign function interface: NumPy functions behind
# jax.pure_callback.


def _value_and_grad(y_true, y_pred):
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    return kldiv_fast.kl_value_and_grad(y_true, y_pred)


@jax.custom_vjp
def callback(y_true, y_pred):
    result = jax.ShapeDtypeStruct((), y_pred.dtype)
    return jax.pure_callback(lambda *x: _value_and_grad(*x)[0], result, y_true, y_pred)


def _callback_forward(y_true, y_pred):
    results = (jax.ShapeDtypeStruct((), y_pred.dtype), jax.typeof(y_pred))
    return jax.pure_callback(_value_and_grad, results, y_true, y_pred)


callback.defvjp(_callback_forward, lambda gradient, upstream: (None, upstream * gradient))


def contestants(y_true, y_pred):
    def prepare(loss, wrap):
        both = wrap(jax.value_and_grad(loss, argnums=1))
        return functools.partial(lambda f: jax.block_until_ready(f(y_true, y_pred)), both)

    def eager(f):
        return f

    return {
        "kldiv_fast jit": prepare(kldiv_fast.jax.kl, jax.jit),
        "kldiv_fast eager": prepare(kldiv_fast.jax.kl, eager),
        "callback jit": prepare(callback, jax.jit),
        "formula jit": prepare(formula, jax.jit),
        "formula eager": prepare(formula, eager),
    }


def check_equal(functions):
    value, gradient = functions["formula jit"]()
    for name, function in functions.items():
        ours = function()
        np.testing.assert_allclose(ours[0], value, rtol=1e-4, err_msg=name)
        np.testing.assert_allclose(ours[1], gradient, rtol=1e-4, err_msg=name)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5, help="for each shape")
    seconds = parser.parse_args().seconds

    print(machine(["kldiv_fast", "jax", "jaxlib", "numpy"]))
    print(
        "Microseconds, and in brackets how many times as long as kldiv_fast's own, jit or eager\n"
    )
    met = True
    for shape in SHAPES:
        functions = contestants(*map(jnp.asarray, make_pair(shape)))
        check_equal(functions)
        medians = interleaved_medians(functions, seconds)
        print(f"{shape[0]}x{shape[1]}")
        for name, median in medians.items():
            ratio = median / medians[f"kldiv_fast {name.split()[1]}"]
            print(f"  {name:18}{1e6 * median:10.0f}  ({ratio:.2f})")
        if shape == TARGET[0]:
            met = medians["formula eager"] >= TARGET[1] * medians["kldiv_fast eager"]
    print(f"\nat least {TARGET[1]} times as fast as the eager formula: {'yes' if met else 'NO'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
