"""The rows of the divergence for TensorFlow, with gradients; for :mod:`kldiv_fast.keras` alone.

Eager and in graphs, native ops run the core (``src/adapters/tensorflow_op.cpp``). XLA takes no
foreign code: what it compiles is the same formula in TensorFlow's own ops. So is what runs where
there are no native ops, on other systems than Linux, and where TensorFlow sees other devices than
the CPU, because the ops would fetch their tensors.
"""

import ctypes
import functools
import math
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import tensorflow as tf

# What tf.function itself asks before it opens an XLA cluster; there is no public way to ask.
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

from kldiv_fast import _core, _formulas, _meaning
from kldiv_fast._meaning import Settings
from kldiv_fast._operations import OPERATIONS

_KL = Settings()


def rows(y_true, y_pred, settings=_KL):
    """Each row's divergence along the last axis; unless told otherwise what ``keras.losses.kl_divergence`` means.

    Parameters
    ----------
    y_true, y_pred : tensors of one floating dtype, of shapes (..., classes) that broadcast
    settings : Settings
        What to compute.

    Returns
    -------
    tf.Tensor
        The rows, in nats: float64 for float64, else float32; 16-bit tensors are cast first. It has
        derivatives of every order with respect to both. Those of ``kl`` of probabilities are
        TensorFlow's own: at the clip's bounds the gradient passes, beyond them it is 0. A NaN makes
        both first gradients NaN, where TensorFlow's own, and so what XLA compiles, has 0 for the
        input that holds it.

    Raises
    ------
    ValueError, tf.errors.InvalidArgumentError
        While tracing and while running, as TensorFlow's ops do: if the shapes do not broadcast, the
        dtypes differ, there is no class axis, or a setting is out of its range.
    """
    y_true, y_pred = _at_least_float32(y_true), _at_least_float32(y_pred)
    if not _ops_run_here():
        return _formula(y_true, y_pred, settings)
    if tf.executing_eagerly():
        return _run(_OPS.kldiv_fast_rows, y_true, y_pred, _packed(settings))
    shape = tf.broadcast_static_shape(y_true.shape, y_pred.shape)
    if shape.rank == 0:
        raise ValueError("y_pred has shape (); expected (..., classes)")
    values = _OPS.kldiv_fast_rows(y_true, y_pred, _packed(settings))
    values.set_shape(shape[:-1])
    return values


def _at_least_float32(x):
    x = tf.convert_to_tensor(x)
    return tf.cast(x, tf.float32) if x.dtype.size == 2 else x


# ---- settings as the ops take them: bytes, of doubles ----

_DOUBLES = struct.Struct("8d")
_NUMBERS = {row.name: row.number for row in OPERATIONS}


@functools.lru_cache
def _packed(settings):
    forms = map(_meaning.FORMS.index, settings.forms)
    clips = settings.epsilon is not None
    return _DOUBLES.pack(
        _NUMBERS[settings.operation],
        clips,
        settings.epsilon if clips else 0,
        settings.beta,
        settings.scale,
        *forms,
        settings.temperature,
    )


def _unpacked(settings):
    operation, clips, epsilon, beta, scale, *forms, temperature = _DOUBLES.unpack(settings)
    name = OPERATIONS[int(operation)].name
    forms = (_meaning.FORMS[int(form)] for form in forms)
    return Settings(name, epsilon if clips else None, beta, scale, *forms, temperature)


# ---- where the ops run ----


def _load_ops(path):
    """The ops' Python functions; their kernels share the core and its settings with ``_core``."""
    ops = tf.load_op_library(str(path))
    connect = ctypes.CDLL(str(path)).kldiv_fast_connect
    connect.argtypes, connect.restype = [ctypes.c_void_p] * 2, ctypes.c_char_p
    missing = connect(_core.run_address, _core.tensorflow_poll_address)
    if missing is not None:
        raise ImportError(
            f"kldiv_fast needs {missing.decode()}, which TensorFlow {tf.__version__} does not have; "
            "expected TensorFlow 2.21 or a later 2.x: pip install 'tensorflow>=2.21,<3'"
        )
    return ops


_OPS = None
if sys.platform == "linux":
    _OPS = _load_ops(Path(__file__).parent / "_tensorflow_op.so")


def _run(op, *inputs):
    """Run the op, or add it to a graph. Eagerly it runs on this thread, and Ctrl-C ends it.

    What a signal's handler raised in it is raised here, and not before: TensorFlow makes its error
    by code of Python's, and loses an exception that comes in between.
    """
    try:
        return op(*inputs)
    except tf.errors.CancelledError:
        _core.raise_interrupt()
        raise


@functools.cache
def _cpu_is_the_only_device():
    return all(device.device_type == "CPU" for device in tf.config.get_visible_devices())


def _ops_run_here():
    if _OPS is None or not _cpu_is_the_only_device():
        return False
    graph = tf.compat.v1.get_default_graph
    return tf.executing_eagerly() or not GraphOrParentsInXlaContext(graph())


# ---- TensorFlow's own ops ----


def _formula(y_true, y_pred, settings):
    if settings.is_plain:
        t, p = (tf.clip_by_value(x, settings.epsilon, 1) for x in (y_true, y_pred))
        return tf.reduce_sum(t * tf.math.log(t / p), axis=-1)

    @tf.custom_gradient
    def found(*inputs):
        def gradients(upstream):
            return _gradient_formulas(settings, upstream, *inputs)

        return _formulas.rows(_tf, settings, inputs), gradients

    return found(*_broadcast(y_true, y_pred))


def _gradient_formulas(settings, upstream, y_true, y_pred):
    """What the gradient ops compute, of inputs of one shape."""
    inputs = (y_true, y_pred)
    return _formulas.gradients(_tf, settings, upstream, inputs, tf.stop_gradient)


def _broadcast(*inputs):
    shapes = [x.shape for x in inputs]
    if shapes[0].is_fully_defined() and shapes[0] == shapes[1]:
        return inputs
    shape = tf.broadcast_dynamic_shape(*map(tf.shape, inputs))
    static = tf.broadcast_static_shape(*shapes)
    return [tf.ensure_shape(tf.broadcast_to(x, shape), static) for x in inputs]


def _where(condition, x, y):
    """tf.where, which takes a number in x for what it is and not for one of y's dtype."""
    dtype = next(value.dtype for value in (x, y) if tf.is_tensor(value))
    return tf.where(condition, tf.convert_to_tensor(x, dtype), tf.convert_to_tensor(y, dtype))


def _finfo(dtype):
    return np.finfo(dtype.as_numpy_dtype)


# NumPy's names, as _formulas reads them.
_tf = SimpleNamespace(
    log=tf.math.log,
    exp=tf.exp,
    isnan=tf.math.is_nan,
    clip=tf.clip_by_value,
    amax=tf.reduce_max,
    sum=tf.reduce_sum,
    where=_where,
    finfo=_finfo,
    inf=math.inf,
    nan=math.nan,
)


# ---- gradients of the ops ----


@tf.RegisterGradient("KldivFastRows")
def _gradients_of_rows(op, upstream):
    y_true, y_pred = op.inputs
    settings = op.get_attr("settings")
    unwanted = getattr(op, "skip_input_indices", None) or ()  # tapes know; tf.gradients prunes
    gradients = [None, None]
    for i, gradient in enumerate((_OPS.kldiv_fast_grad_y_true, _OPS.kldiv_fast_grad_y_pred)):
        if i not in unwanted:
            full = _run(gradient, y_true, y_pred, upstream, settings)
            gradients[i] = _sum_over_repeated(full, op.inputs[i], op.inputs[1 - i])
    return gradients


def _sum_over_repeated(gradient, x, other):
    """The gradient of `x`, from the gradient of what `x` and `other` broadcast to."""
    if x.shape.is_fully_defined() and x.shape == other.shape:
        gradient.set_shape(x.shape)
        return gradient
    shape = tf.shape(x)
    axes = tf.raw_ops.BroadcastGradientArgs(s0=shape, s1=tf.shape(other)).r0
    gradient = tf.reshape(tf.reduce_sum(gradient, axes), shape)
    gradient.set_shape(x.shape)
    return gradient


def _gradients_of_gradient(op, upstream, of_y_pred):
    """The second derivatives, and through TensorFlow all further ones: rare, so in its own ops."""
    settings = _unpacked(op.get_attr("settings"))
    with tf.GradientTape() as tape:
        tape.watch(op.inputs)
        y_true, y_pred, factor = op.inputs
        inputs = _broadcast(y_true, y_pred)
        gradient = _gradient_formulas(settings, factor, *inputs)[of_y_pred]
    return tape.gradient(gradient, list(op.inputs), output_gradients=upstream)


tf.RegisterGradient("KldivFastGradYTrue")(
    functools.partial(_gradients_of_gradient, of_y_pred=False)
)
tf.RegisterGradient("KldivFastGradYPred")(functools.partial(_gradients_of_gradient, of_y_pred=True))
