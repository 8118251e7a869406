"""The rows for TensorFlow: values, gradients, every way to run them, what they share with `kl`."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import kldiv_fast
import numpy as np
import pytest
from oracle import distributions
from pairwise import each
from processes import printed

tf = pytest.importorskip("tensorflow")

import keras
from kldiv_fast import _tensorflow
from kldiv_fast._meaning import Settings
from kldiv_fast._tensorflow import _DOUBLES, _OPS, _load_ops, _packed, rows

native = pytest.mark.skipif(sys.platform != "linux", reason="no native op on this system")

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="Keras runs on another backend"
)


def formula(y_true, y_pred, epsilon=1e-7):
    """TensorFlow's own, as Keras writes it."""
    t, p = tf.clip_by_value(y_true, epsilon, 1), tf.clip_by_value(y_pred, epsilon, 1)
    return tf.reduce_sum(t * tf.math.log(t / p), axis=-1)


def loss(function, y_true, y_pred):
    """A scalar in which every row has a factor of its own."""
    values = function(y_true, y_pred)
    n = tf.size(values)
    factors = tf.reshape(tf.cast(tf.range(1, n + 1) / n, values.dtype), tf.shape(values))
    return tf.reduce_sum(values * factors)


def gradients(function, *inputs):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = loss(function, *inputs)
    return tape.gradient(value, inputs)


def unknown_batch(function, *inputs):
    signature = [tf.TensorSpec([None, *x.shape[1:]], x.dtype) for x in inputs]
    return tf.function(function, input_signature=signature)


def unknown_rank(function, *inputs):
    return tf.function(function, input_signature=[tf.TensorSpec(None, x.dtype) for x in inputs])


MODES = {
    "eager": lambda function, *_: function,
    "graph": lambda function, *_: tf.function(function),
    "XLA": lambda function, *_: tf.function(function, jit_compile=True),
    "unknown batch": unknown_batch,
    "unknown rank": unknown_rank,
}

PAIRS = [((4, 7), (4, 7)), ((3, 4, 7), (3, 4, 7)), ((7,), (7,)), ((1, 7), (4, 7)), ((4, 7), (1, 7))]
PAIRS += [
    ((7,), (4, 7)),
    ((3, 4, 7), (4, 1)),
    ((4, 1), (1, 7)),
    ((0, 7), (0, 7)),
    ((300, 1000),) * 2,
]


@pytest.fixture(params=MODES.values(), ids=MODES)
def mode(request):
    return request.param


def tensors(rng, shapes, dtype):
    return [tf.constant(distributions(rng, shape).astype(dtype)) for shape in shapes]


RTOLS = {"float32": 3e-5, "float64": 1e-11}


@each(mode=MODES, shapes=PAIRS, dtype=list(RTOLS))
def test_values_and_gradients(rng, mode, shapes, dtype):
    rtol = RTOLS[dtype]
    inputs = tensors(rng, shapes, dtype)
    values = mode(rows, *inputs)(*inputs)
    expected = formula(*inputs)
    assert values.dtype == dtype and values.shape == expected.shape
    np.testing.assert_allclose(values, expected, rtol=rtol, atol=rtol)
    ours = mode(lambda *xs: gradients(rows, *xs), *inputs)(*inputs)
    for x, mine, theirs in zip(inputs, ours, gradients(formula, *inputs), strict=True):
        assert mine.shape == x.shape
        np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=rtol)


@native
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_bits_as_kl(rng, isa, dtype):
    """One core: what select_isa chose holds for the op too."""
    inputs = tensors(rng, [(300, 1000)] * 2, dtype)
    for function in (rows, tf.function(rows)):
        np.testing.assert_array_equal(
            function(*inputs), kldiv_fast.kl(*inputs, reduction="none"), strict=True
        )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bits_are_computed_in_32(rng, mode, dtype):
    inputs = [tf.cast(x, dtype) for x in tensors(rng, [(4, 7)] * 2, "float32")]
    wide = [tf.cast(x, "float32") for x in inputs]
    values = mode(rows, *inputs)(*inputs)
    assert values.dtype == "float32"
    np.testing.assert_allclose(values, formula(*wide), rtol=3e-5, atol=1e-6)
    ours = mode(lambda *xs: gradients(rows, *xs), *inputs)(*inputs)
    for mine, theirs in zip(ours, gradients(formula, *wide), strict=True):
        assert mine.dtype == dtype
        np.testing.assert_allclose(tf.cast(mine, "float32"), theirs, rtol=1e-2)


def test_finite_differences(rng, mode):
    inputs = [tf.constant(0.1 + 0.8 * rng.random((3, 5))) for _ in range(2)]
    ours = mode(lambda *xs: gradients(rows, *xs), *inputs)(*inputs)
    step = 1e-6
    for which in range(2):
        for at in np.ndindex(3, 5):
            ends = []
            for sign in (1, -1):
                moved = [x.numpy().copy() for x in inputs]
                moved[which][at] += sign * step
                ends.append(kldiv_fast.kl(*moved, reduction="none")[at[0]])
            slope = (ends[0] - ends[1]) / (2 * step) * (at[0] + 1) / 3
            assert float(ours[which][at]) == pytest.approx(slope, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("epsilon", [1e-7, 1e-3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_at_and_beyond_the_bounds_of_the_clip(mode, dtype, epsilon):
    """At the bounds the gradient passes, as TensorFlow's own; beyond them it is 0."""
    edges = np.array([epsilon, 1, 0, -0.0, 2, np.inf, -1, -np.inf, 0.5, epsilon / 2], dtype)
    inputs = [tf.constant(x.reshape(-1, 1)) for x in np.meshgrid(edges, edges)]

    def ours(*xs):
        return gradients(lambda t, p: rows(t, p, Settings(epsilon=epsilon)), *xs)

    mine = mode(ours, *inputs)(*inputs)
    theirs = gradients(lambda t, p: formula(t, p, epsilon), *inputs)
    for x, ours_of_x, theirs_of_x in zip(inputs, mine, theirs, strict=True):
        inside = (x >= tf.constant(epsilon, dtype)) & (x <= 1)
        np.testing.assert_array_equal(ours_of_x != 0, inside & (theirs_of_x != 0))
        np.testing.assert_allclose(ours_of_x, theirs_of_x, rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize("name", MODES)
def test_nan(name):
    """A NaN makes both gradients NaN; TensorFlow's own, which XLA compiles, is 0 at its place."""
    nan = np.array([[np.nan, 0.5], [0.5, 0.5]])
    inputs = [tf.constant(nan), tf.constant(nan[:, ::-1].copy())]
    mode = MODES[name]
    np.testing.assert_array_equal(np.isnan(mode(rows, *inputs)(*inputs)), [True, False])
    ours = mode(lambda *xs: gradients(rows, *xs), *inputs)(*inputs)
    for mine, theirs in zip(ours, gradients(formula, *inputs), strict=True):
        if name != "XLA" and sys.platform == "linux":
            theirs = [[np.nan, np.nan], theirs[1]]
        np.testing.assert_allclose(mine, theirs, rtol=1e-12)


def second_derivatives(function, *inputs):
    with tf.GradientTape(persistent=True) as outer:
        outer.watch(inputs)
        with tf.GradientTape() as inner:
            inner.watch(inputs)
            value = tf.reduce_sum(
                function(*inputs) ** 2
            )  # so that the factors depend on the inputs
        squares = [tf.reduce_sum(x**2) for x in inner.gradient(value, inputs)]
    return [outer.gradient(square, inputs) for square in squares]


@each(mode=MODES, shapes=[((3, 5), (3, 5)), ((5,), (3, 5)), ((3, 5), (3, 1))])
def test_second_derivatives(rng, mode, shapes):
    inputs = tensors(rng, shapes, "float64")
    ours = mode(lambda *xs: second_derivatives(rows, *xs), *inputs)(*inputs)
    theirs = second_derivatives(formula, *inputs)
    for mine, reference in zip(tf.nest.flatten(ours), tf.nest.flatten(theirs), strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-9)


def test_third_derivative(rng):
    y_true, y_pred = tensors(rng, [(3, 5)] * 2, "float64")

    def third(function):
        x = y_pred
        with tf.GradientTape() as c:
            c.watch(x)
            with tf.GradientTape() as b:
                b.watch(x)
                with tf.GradientTape() as a:
                    a.watch(x)
                    value = tf.reduce_sum(function(y_true, x))
                first = tf.reduce_sum(a.gradient(value, x))
            second = tf.reduce_sum(b.gradient(first, x))
        return c.gradient(second, x)

    np.testing.assert_allclose(third(rows), third(formula), rtol=1e-9)


def test_forward_mode_and_jacobian(rng):
    inputs = tensors(rng, [(3, 5)] * 2, "float64")
    derivatives = []
    for function in (rows, formula):
        with (
            tf.autodiff.ForwardAccumulator(inputs, [tf.ones_like(x) for x in inputs]) as forward,
            tf.GradientTape() as tape,
        ):
            tape.watch(inputs)
            values = function(*inputs)
        derivatives.append([forward.jvp(values), *tape.jacobian(values, inputs)])
    for mine, theirs in zip(*derivatives, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9)


# ---- other divergences and forms ----

SETTINGS = [
    Settings("kl", None, 0.5, 1.0, "probs", "logits", 2.0),
    Settings("kl", None, 0.5, 1.0, "logits", "logits", 3.0),
    Settings("jsd", None, 0.3, 1 / np.log(2), "counts", "log_probs"),
    Settings("jsd", 1e-3, 0.3),
    Settings("jeffreys", None, 0.5, 1.0, "log_probs", "counts"),
]
TERMS = {
    "kl": lambda t, p, _: t * tf.math.log(t / p),
    "jsd": lambda t, p, b: (
        b * t * tf.math.log(t / (b * t + (1 - b) * p))
        + (1 - b) * p * tf.math.log(p / (b * t + (1 - b) * p))
    ),
    "jeffreys": lambda t, p, _: (t - p) * tf.math.log(t / p),
}
PROBABILITIES = {
    "probs": lambda x, _: x,
    "counts": lambda x, _: x / tf.reduce_sum(x, -1, keepdims=True),
    "log_probs": lambda x, _: tf.exp(x),
    "logits": lambda x, temperature: tf.nn.softmax(x / temperature),
}


def broadcast(*inputs):
    shape = tf.broadcast_dynamic_shape(*map(tf.shape, inputs))
    return [tf.broadcast_to(x, shape) for x in inputs]


def naive(settings):
    """As it is usually written, for TensorFlow to differentiate; inside the clip's bounds."""

    def function(*inputs):
        t, p = (
            PROBABILITIES[form](x, settings.temperature)
            for form, x in zip(settings.forms, broadcast(*inputs), strict=True)
        )
        if settings.epsilon is not None:
            t, p = (tf.clip_by_value(x, settings.epsilon, 1) for x in (t, p))
        terms = TERMS[settings.operation](t, p, settings.beta)
        return settings.scale * tf.reduce_sum(terms, -1)

    return function


# What TensorFlow compiles takes seconds.
BRIEF = {(name, i) for name in ("eager", "no op") for i in range(len(SETTINGS))}
BRIEF |= {("unknown rank", 2)}
CASES = [
    pytest.param(name, settings, marks=() if (name, i) in BRIEF else pytest.mark.long)
    for name in ("eager", "no op", "graph", "XLA", "unknown rank")
    for i, settings in enumerate(SETTINGS)
]


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_every_setting(rng, monkeypatch, name, settings):
    """Values, gradients and theirs, of inputs that broadcast, in the core and by the formula."""
    if name == "no op":
        monkeypatch.setattr(_tensorflow, "_OPS", None)
    inputs = tensors(rng, [(3, 5), (5,)], "float64")

    def all_orders(function):
        return lambda *xs: [
            function(*xs),
            gradients(function, *xs),
            second_derivatives(function, *xs),
        ]

    mode = MODES["eager" if name == "no op" else name]
    ours = mode(all_orders(lambda *xs: rows(*xs, settings)), *inputs)(*inputs)
    expected = all_orders(naive(settings))(*inputs)
    for mine, theirs in zip(tf.nest.flatten(ours), tf.nest.flatten(expected), strict=True):
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)


def test_zeros_and_rows_without_meaning(rng):
    """XLA's formula beside the core, whose rules test_forms.py has: no class, an infinite row, NaN."""
    t = np.array([[0, 0.5, 0.5], [0.5, 0.5, 0], [np.nan, 1, 0], [0.2, 0.3, 0.5]])
    z = np.array([[-np.inf, 1, 0], [-np.inf, 1, 0], [1, 2, 3], [0, -2000, 0]])
    settings = Settings("kl", None, pred_form="logits")
    inputs = [tf.constant(x) for x in (t, z)]
    both = lambda *xs: [rows(*xs, settings), *gradients(lambda *ys: rows(*ys, settings), *xs)]
    by_core, by_formula = both(*inputs), tf.function(both, jit_compile=True)(*inputs)
    assert np.isposinf(by_core[0][1]) and np.isnan(by_core[0][2])
    for mine, theirs in zip(by_formula, by_core, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)


def test_a_function_s_second_derivative_from_outside(rng):
    """What the forward graph knows of its settings reaches a graph that is differentiated from outside."""
    settings = SETTINGS[1]
    inputs = tensors(rng, [(3, 5)] * 2, "float64")
    ours = second_derivatives(tf.function(lambda *xs: rows(*xs, settings)), *inputs)
    theirs = second_derivatives(naive(settings), *inputs)
    for mine, reference in zip(tf.nest.flatten(ours), tf.nest.flatten(theirs), strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-9, atol=1e-12)


# ---- which code runs ----


def operations(function, *inputs):
    graph = tf.function(function).get_concrete_function(*inputs).graph
    return [op.type for op in graph.get_operations()]


@native
def test_a_graph_holds_the_native_ops_that_are_wanted(rng):
    inputs = tensors(rng, [(4, 7)] * 2, "float32")

    def by_y_pred(y_true, y_pred):
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            value = loss(rows, y_true, y_pred)
        return tape.gradient(value, y_pred)

    ours = [kind for kind in operations(by_y_pred, *inputs) if kind.startswith("KldivFast")]
    assert ours == ["KldivFastRows", "KldivFastGradYPred"]


@native
def test_xla_inside_control_flow_and_beside_native_ops(rng):
    inputs = tensors(rng, [(4, 7)] * 2, "float64")
    once = rows(*inputs)

    def three_times(y_true, y_pred):
        zero = tf.zeros(4, tf.float64)
        body = lambda i, total: (i + 1, total + rows(y_true, y_pred))
        return tf.while_loop(lambda i, _: i < 3, body, (0, zero))[1]

    def chosen(y_true, y_pred):
        return tf.cond(y_true[0, 0] > 0, lambda: rows(y_true, y_pred), lambda: y_true[:, 0])

    def nested(y_true, y_pred):
        return tf.function(rows)(y_true, y_pred)

    for function, expected in ((three_times, 3 * once), (chosen, once), (nested, once)):
        for jit_compile in (True, False):
            values = tf.function(function, jit_compile=jit_compile)(*inputs)
            np.testing.assert_allclose(values, expected, rtol=1e-9)

    def both(y_true, y_pred):
        return tf.function(rows, jit_compile=True)(y_true, y_pred) + rows(y_true, y_pred)

    np.testing.assert_allclose(tf.function(both)(*inputs), 2 * once, rtol=1e-9)
    assert "KldivFastRows" in operations(both, *inputs)


@native
def test_a_trace_made_outside_xla_is_an_error_inside(rng):
    """TensorFlow reuses the trace; it does not take the op that the trace holds."""
    inputs = tensors(rng, [(4, 7)] * 2, "float32")
    traced = tf.function(rows)
    traced(*inputs)

    @tf.function(jit_compile=True)
    def compiled(y_true, y_pred):
        return traced(y_true, y_pred)

    with pytest.raises(tf.errors.InvalidArgumentError, match="unsupported operations"):
        compiled(*inputs)


def test_shapes_while_tracing():
    seen = []

    @tf.function(input_signature=[tf.TensorSpec([None, 7]), tf.TensorSpec([4, 1])])
    def function(y_true, y_pred):
        values = rows(y_true, y_pred)
        seen.append(values.shape)
        return gradients(rows, y_true, y_pred)

    function.get_concrete_function()
    assert seen == [tf.TensorShape([4])]
    assert [x.shape for x in function.get_concrete_function().outputs] == [(None, 7), (4, 1)]


# ---- Keras ----


class Rows(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return rows(y_true, y_pred)


COMPILING = [{"jit_compile": True, "steps_per_execution": 2}, {"jit_compile": False}]
COMPILING += [
    pytest.param(compiling, marks=pytest.mark.long)
    for compiling in (
        {"jit_compile": True},
        {"jit_compile": False, "steps_per_execution": 2},
        {"jit_compile": "auto"},
        {"run_eagerly": True},
    )
]


def history(loss, metric=None, epochs=3, **compiling):
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(1)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(5, activation="softmax")])
    model.compile("adam", loss, metrics=[metric] if metric else None, **compiling)
    x, y = rng.random((70, 8), np.float32), distributions(rng, (70, 5))
    fit = model.fit(x, y, sample_weight=rng.random(70), batch_size=32, epochs=epochs, verbose=0)
    values = [value for name in sorted(fit.history) for value in fit.history[name]]
    return [*values, *np.ravel(model.evaluate(x, y, verbose=0)).tolist()]


@pytest.mark.parametrize("compiling", COMPILING, ids=str)
def test_keras_fits_alike(compiling):
    ours = history(Rows(), **compiling)
    np.testing.assert_allclose(ours, history(keras.losses.KLDivergence(), **compiling), rtol=1e-5)


MIRRORED = """
import kldiv_fast.keras as adapter
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
import keras, numpy as np
from test_tensorflow import Rows, history
theirs = keras.losses.KLDivergence, keras.metrics.KLDivergence
for compiling in ({"jit_compile": "auto"}, {"run_eagerly": True}):
    found = []
    for loss, metric in ((Rows, theirs[1]), (adapter.KLDivergence, adapter.KLDivergenceMetric), theirs):
        with strategy.scope():
            found.append(history(loss(), metric(), epochs=1, **compiling))
    for ours in found[:2]:
        np.testing.assert_allclose(ours, found[2], rtol=1e-5)
    print("alike")
"""


@pytest.mark.beside(printed, MIRRORED, PYTHONPATH=str(Path(__file__).parent))
def test_mirrored_strategy_on_two_devices(beside):
    """Without XLA, which can't compile variables on two devices, whatever the loss.

    kldiv_fast.keras too, whose import leaves the devices to be configured.
    """
    assert beside.result().splitlines() == ["alike"] * 2


# ---- threads ----

THREADS_AND_FORK = """
import os, signal, tensorflow as tf
tf.config.threading.set_inter_op_parallelism_threads(8)
import kldiv_fast
from kldiv_fast._tensorflow import rows
x = tf.nn.softmax(tf.random.normal((400, 1000)))
function = tf.function(lambda x: tf.add_n([rows(x * i, x) for i in range(1, 9)]))
formula = tf.function(lambda x: tf.add_n([tf.reduce_sum(x * i, -1) for i in range(1, 9)]))
for _ in range(20):
    formula(x)
before = len(os.listdir("/proc/self/task"))
for threads in (1, 4):
    kldiv_fast.set_num_threads(threads)
    for _ in range(20):
        function(x)
    print(len(os.listdir("/proc/self/task")) - before)

y = tf.reverse(x, [0])
expected = rows(x, y).numpy()
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(0 if rows(x, y).numpy().tobytes() == expected.tobytes() else 1)
print(os.waitpid(child, 0)[1])
"""


@native
@pytest.mark.beside(printed, THREADS_AND_FORK, OMP_NUM_THREADS="4")
def test_few_threads_whatever_thread_calls_and_none_that_a_forked_child_waits_for(beside):
    """All of TensorFlow's threads share the core's helpers, and set_num_threads holds in them."""
    processors = kldiv_fast.show_runtime(mode="dicts")["threads"]["processors"]
    one, four, child = beside.result().split()
    assert (int(one), int(four)) == (0, min(4, processors) - 1)
    assert child == "0"


# ---- bad input ----


def test_errors(rng):
    y_true, y_pred = tensors(rng, [(4, 7), (4, 6)], "float32")
    both = (ValueError, tf.errors.InvalidArgumentError)
    for function in (rows, tf.function(rows), tf.function(rows, jit_compile=True)):
        with pytest.raises(both):
            function(y_true, y_pred)
        with pytest.raises((*both, TypeError)):
            function(y_true, tf.cast(y_true, tf.float64))
        with pytest.raises(both):
            function(tf.constant(0.5), tf.constant(0.5))


BAD_SETTINGS = [
    (0, 99, "operation is 99"),
    (0, 0.5, r"operation is 0\.5"),
    (1, 2, "clip is 2"),
    (2, float("nan"), "epsilon is -?nan"),
    (3, 1.5, r"beta is 1\.5"),
    (4, 0, "scale is 0"),
    (5, 4, "true_form is 4"),  # labels
    (6, -1, "pred_form is -1"),
    (6, 3, "clip is 1"),  # beside logits
    (7, 0, "temperature is 0"),
]


@native
def test_errors_of_the_op_name_the_argument(rng):
    y_true, y_pred = tensors(rng, [(4, 7), (4, 6)], "float32")
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"y_true has shape \(4,7\).*\(4,6\)"):
        unknown_rank(rows, y_true, y_pred)(y_true, y_pred)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"epsilon is 2\.0.*\[0, 1\)"):
        rows(y_true, y_true, Settings(epsilon=2.0))
    fine = list(_DOUBLES.unpack(_packed(Settings())))
    for at, bad, expected in BAD_SETTINGS:
        settings = _DOUBLES.pack(*fine[:at], bad, *fine[at + 1 :])
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"{expected}.*; expected"):
            _OPS.kldiv_fast_rows(y_true, y_true, settings)
    with pytest.raises(tf.errors.InvalidArgumentError, match="settings has 3 bytes; expected 64"):
        _OPS.kldiv_fast_rows(y_true, y_true, "abc")


# ---- the C API ----


@native
@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_declarations_agree_with_tensorflow_s_headers(tmp_path):
    """Each number and each function's type is compared by the compiler."""
    header = Path(__file__).parents[1] / "src" / "adapters" / "tensorflow_c_api.h"
    constants = re.findall(r"\b(T\w+) = (\d+)", header.read_text())
    assert len(constants) >= 6
    source = tmp_path / "check.cpp"
    source.write_text(
        '#include "tensorflow/c/kernels.h"\n#include "tensorflow/c/ops.h"\n#include <type_traits>\n'
        f'#define KLDIV_TENSORFLOW_HEADERS\n#include "{header}"\n'
        + "".join(f"static_assert({name} == {value});\n" for name, value in constants)
        + "#define SAME(result, name, parameters) "
        'static_assert(std::is_same_v<decltype(&TF_##name), result(*) parameters>, "TF_" #name);\n'
        "KLDIV_TENSORFLOW_FUNCTIONS(SAME)\n"
    )
    done = subprocess.run(
        ["c++", "-std=c++17", "-fsyntax-only", f"-I{tf.sysconfig.get_include()}", str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


OP = Path(kldiv_fast.__file__).parent / "_tensorflow_op.so"


@native
@pytest.mark.parametrize("name", ["TF_GetInput", "TF_TensorData", "libtensorflow_framework.so.2"])
def test_a_tensorflow_that_lacks_what_the_op_needs(tmp_path, name):
    """An error when the op is loaded, from a copy that asks for another name; the process goes on."""
    content = OP.read_bytes()
    other = name[:-1] + "X"
    assert content.count(name.encode() + b"\0") == 1
    copy = tmp_path / OP.name
    copy.write_bytes(content.replace(name.encode() + b"\0", other.encode() + b"\0"))
    with pytest.raises(ImportError, match=rf"needs {other}, which TensorFlow {tf.__version__}"):
        _load_ops(copy)


@native
def test_without_tensorflow_the_op_is_left_alone():
    """Nothing but _tensorflow.py loads it; loaded by hand, it says what is missing."""
    code = "import kldiv_fast; print(float(kldiv_fast.kl([0.5, 0.5], [0.5, 0.5])))\n"
    code += (
        "maps = open('/proc/self/maps').read(); print('_core' in maps, '_tensorflow_op' in maps)\n"
    )
    code += f"import ctypes; connect = ctypes.CDLL({str(OP)!r}).kldiv_fast_connect\n"
    code += "connect.restype = ctypes.c_char_p; print(connect(None, None).decode())"
    assert printed(code).split() == ["0.0", "True", "False", "libtensorflow_framework.so.2"]
