"""Signals in a framework's call: their handlers run, and what they raise ends it as it ends `kl`."""

import contextlib
import functools
import gc
import signal
import sys
import threading
import time

import kldiv_fast
import numpy as np
import pytest
from kldiv_fast import _core

DELAY = 0.1  # seconds until the signal: the core is at work
LONG, SHORT = 15 * DELAY, 3 * DELAY  # seconds of a call, on one thread of the slowest ISA


@contextlib.contextmanager
def slowly():
    isa, threads = kldiv_fast.current_isa(), kldiv_fast.get_num_threads()
    assert _core.select_isa("baseline")
    kldiv_fast.set_num_threads(1)
    try:
        yield
    finally:
        assert _core.select_isa(isa)
        kldiv_fast.set_num_threads(threads)


@contextlib.contextmanager
def handled(handler):
    """SIGINT in a moment, and who handles it: nobody who would drop what it raises, as gc does."""
    before = signal.signal(signal.SIGINT, handler)
    timer = threading.Timer(DELAY, signal.raise_signal, [signal.SIGINT])
    gc.disable()
    timer.start()
    try:
        yield
    finally:
        timer.join()
        gc.enable()
        signal.signal(signal.SIGINT, before)


@functools.cache
def rows_a_second(make):
    """On this machine, at its best: what one takes half a second for, another has done before the signal comes."""
    n = 20_000
    call = make(n)
    call()  # what is compiled or allocated once
    times = []
    with slowly():
        for _ in range(3):
            start = time.monotonic()
            np.asarray(call())  # waits for what runs on other threads
            times.append(time.monotonic() - start)
    return n / min(times)


def lasting(make, seconds):
    return make(int(seconds * rows_a_second(make)))


# ---- the frameworks: how many rows -> a function that works on so many ----


def torch_value(n):
    torch = pytest.importorskip("torch")
    from kldiv_fast.torch import kl

    x = torch.full((n, 1000), 0.001, dtype=torch.bfloat16)
    return lambda: kl(x, x)


def torch_backward(n):
    torch = pytest.importorskip("torch")
    from kldiv_fast.torch import kl

    x = torch.full((n, 1000), 0.001, dtype=torch.bfloat16, requires_grad=True)
    value = kl(x.detach(), x)
    return lambda: torch.autograd.grad(value, x, retain_graph=True)[0].float()


def tensorflow_value(n):
    tf = pytest.importorskip("tensorflow")
    from kldiv_fast._tensorflow import rows

    x, y = tf.fill((n, 1), 0.001), tf.fill((1, 1000), 0.001)
    return lambda: rows(x, y)


def tensorflow_gradient(n):
    tf = pytest.importorskip("tensorflow")
    from kldiv_fast._tensorflow import rows

    x, y = tf.fill((n, 1), 0.001), tf.fill((1, 1000), 0.001)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(y)
        values = rows(x, y)
    return lambda: tape.gradient(values, y)


def tensorflow_function(n):
    tf = pytest.importorskip("tensorflow")
    from kldiv_fast._tensorflow import rows

    x, y = tf.fill((n, 1), 0.001), tf.fill((1, 1000), 0.001)
    function = tf.function(rows)
    function(x[:1], y)
    return lambda: function(x, y)


def jax_value(n):
    jax = pytest.importorskip("jax")
    from kldiv_fast.jax import kl

    x = jax.numpy.full((n, 1000), 0.001, "bfloat16")
    return lambda: kl(x, x).block_until_ready()


def jax_gradient(n):
    jax = pytest.importorskip("jax")
    from kldiv_fast.jax import kl

    x = jax.numpy.full((n, 1000), 0.001, "bfloat16")
    value, backward = jax.vjp(kl, x, x)
    return lambda: jax.block_until_ready(backward(value))[0].astype("float32")


def jax_jit(n):
    jax = pytest.importorskip("jax")
    from kldiv_fast.jax import kl

    x = jax.numpy.full((n, 1000), 0.001, "bfloat16")
    compiled = jax.jit(kl).lower(x, x).compile()
    return lambda: compiled(x, x)


ON_THE_MAIN_THREAD = [
    torch_value,
    torch_backward,
    tensorflow_value,
    tensorflow_gradient,
    jax_value,
    jax_gradient,
]
native = pytest.mark.skipif(sys.platform != "linux", reason="no native op on this system")


def cases(makers):
    return [
        pytest.param(make, id=make.__name__, marks=native if "tensorflow" in make.__name__ else ())
        for make in makers
    ]


# ---- the tests ----


class Stop(Exception):
    """What a handler of one's own raises."""


def stop(*_):
    raise Stop(17)


def ending_of(make, handler):
    """What ends a call that is at work when the signal comes, and after how many seconds."""
    seconds, done = LONG, True
    while done:  # before the signal came: this machine works faster than when it was measured
        call, done = lasting(make, seconds), False
        start = time.monotonic()
        with slowly(), handled(handler), pytest.raises((KeyboardInterrupt, Stop)) as raised:
            call()
            done = True
            time.sleep(100 * DELAY)
        elapsed = time.monotonic() - start
        seconds *= 2
    return raised.value, elapsed


@pytest.mark.parametrize(
    "handler",
    [
        pytest.param(stop, id="own"),
        pytest.param(signal.default_int_handler, id="Ctrl-C", marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("make", cases(ON_THE_MAIN_THREAD))
def test_what_a_handler_raises_ends_the_call(make, handler):
    expected = Stop(17) if handler is stop else KeyboardInterrupt()
    raised, elapsed = ending_of(make, handler)
    assert elapsed < DELAY + 1
    assert type(raised) is type(expected) and raised.args == expected.args
    assert np.isfinite(np.asarray(make(3)())).all()


def watched(call):
    """What a call gives beside a handler that raises nothing, when the handler ran, and how long the call took."""
    ran = []
    start = time.monotonic()
    with slowly(), handled(lambda *_: ran.append(time.monotonic() - start)):
        result = np.asarray(call())
        elapsed = time.monotonic() - start
    return result, ran, elapsed


@pytest.mark.parametrize("make", cases(ON_THE_MAIN_THREAD))
def test_a_handler_that_raises_nothing_runs_and_loses_nothing(make):
    seconds, elapsed = SHORT, 0
    while elapsed < 2 * DELAY:  # this machine works faster than when it was measured
        call = lasting(make, seconds)
        whole = np.asarray(call())
        result, ran, elapsed = watched(call)
        assert np.array_equal(result, whole)
        assert len(ran) == 1
        seconds *= 2
    assert ran[0] < 0.9 * elapsed


@native
def test_tensorflow_finishes_a_function_that_its_own_threads_run():
    call = lasting(tensorflow_function, SHORT)
    whole = np.asarray(call())
    with slowly(), handled(lambda *_: None):
        np.testing.assert_array_equal(np.asarray(call()), whole)
    with slowly(), handled(signal.default_int_handler), pytest.raises(KeyboardInterrupt):
        call()
        time.sleep(100 * DELAY)  # if it was done before the signal


def test_jax_stops_waiting_for_what_its_own_threads_run():
    """Of a program that was begun already, with inputs that may be donated, the result is whole."""
    call = lasting(jax_jit, SHORT)
    whole = np.asarray(call())
    with slowly():
        result = call()
        with handled(signal.default_int_handler), pytest.raises(KeyboardInterrupt):
            result.block_until_ready()
            time.sleep(100 * DELAY)
    np.testing.assert_array_equal(np.asarray(result), whole)
