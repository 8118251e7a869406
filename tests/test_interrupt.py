"""Signals in a framework's call: their handlers run, and what they raise ends it as it ends `kl`.

Nothing here is timed. Signals come again and again, and who doesn't listen during a call hears of them once, at its end.
"""

import contextlib
import gc
import signal
import sys
import threading
import time

import kldiv_fast
import numpy as np
import pytest
from kldiv_fast import _core

PULSE = 0.01  # seconds between two signals
ENOUGH = 2  # signals heard within one call: who hears them at its end alone hears one
ROWS = 60_000  # of the shortest call


class Stop(Exception):
    """What a handler of one's own raises."""


def stop(*_):
    raise Stop(17)


def nothing(*_):
    pass


class Handler:
    """Counts the signals heard at one instruction: within one call. Once, at the `due`th, does what `ending` does."""

    def __init__(self, ending, due=ENOUGH):
        self.heard, self.place, self.over = 0, None, False
        self.ending, self.due = ending, due

    def __call__(self, number, frame):
        place = id(frame), frame.f_lasti
        self.heard = self.heard + 1 if place == self.place else 1
        self.place = place
        if self.heard == self.due and not self.over:
            self.over = True
            self.ending(number, frame)

    def wait(self):
        while not self.over:
            time.sleep(PULSE)


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
def signals(handler):
    """SIGINT again and again, and who handles it: nobody who would drop what it raises, as gc does."""
    before, over = signal.signal(signal.SIGINT, handler), threading.Event()

    def send():
        while not over.wait(PULSE):
            signal.raise_signal(signal.SIGINT)

    sender = threading.Thread(target=send)
    gc.disable()
    sender.start()
    try:
        yield
    finally:
        over.set()
        sender.join()
        gc.enable()
        signal.signal(signal.SIGINT, before)


def longer_and_longer(make):
    """Calls, each done once already: a framework that compiles may drop what a handler raises meanwhile."""
    for doublings in range(6):
        call = make(ROWS << doublings)
        yield call, np.asarray(call())
    pytest.fail("the longest call was over before it heard enough signals")


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
    jax_gradient,  # or on one of JAX's, for which it then waits and listens itself
]
native = pytest.mark.skipif(sys.platform != "linux", reason="no native op on this system")


def cases(makers):
    return [
        pytest.param(make, id=make.__name__, marks=native if "tensorflow" in make.__name__ else ())
        for make in makers
    ]


# ---- the tests ----


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(stop, id="own"),
        pytest.param(signal.default_int_handler, id="Ctrl-C", marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("make", cases(ON_THE_MAIN_THREAD))
def test_what_a_handler_raises_ends_the_call(make, ending):
    for call, _ in longer_and_longer(make):
        handler = Handler(ending)
        try:
            with slowly(), signals(handler):
                call()
        except (Stop, KeyboardInterrupt) as error:
            raised = error
            break
        assert not handler.over  # what was raised was not lost
    expected = Stop(17) if ending is stop else KeyboardInterrupt()
    assert type(raised) is type(expected) and raised.args == expected.args
    assert np.isfinite(np.asarray(make(3)())).all()


@pytest.mark.parametrize("make", cases(ON_THE_MAIN_THREAD))
def test_a_handler_that_raises_nothing_runs_and_loses_nothing(make):
    for call, whole in longer_and_longer(make):
        handler = Handler(nothing)
        with slowly(), signals(handler):
            result = np.asarray(call())
        np.testing.assert_array_equal(result, whole)
        if handler.over:
            break


@native
def test_tensorflow_finishes_a_function_that_its_own_threads_run():
    call, whole = next(longer_and_longer(tensorflow_function))
    with slowly(), signals(nothing):
        np.testing.assert_array_equal(np.asarray(call()), whole)
    interrupt = Handler(signal.default_int_handler, due=1)
    with slowly(), signals(interrupt), pytest.raises(KeyboardInterrupt):
        call()
        interrupt.wait()  # if it was done before the first signal


def test_jax_stops_waiting_for_what_its_own_threads_run():
    """Of a program that was begun already, with inputs that may be donated, the result is whole."""
    call, whole = next(longer_and_longer(jax_jit))
    interrupt = Handler(signal.default_int_handler, due=1)
    with slowly():
        result = call()
        with signals(interrupt), pytest.raises(KeyboardInterrupt):
            result.block_until_ready()
            interrupt.wait()
    np.testing.assert_array_equal(np.asarray(result), whole)
