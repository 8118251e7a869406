"""The rows of the divergence for TensorFlow, with gradients; for :mod:`kldiv_fast.keras` alone.

Eager and in graphs, native ops run the core (``src/adapters/tensorflow_op.cpp``). XLA takes no
foreign code: what it compiles is the same formula in TensorFlow's own ops. So is what runs where
there are no native ops, on other systems than Linux, and where TensorFlow sees other devices than
the CPU, because the ops would fetch their tensors.
"""

import ctypes
import functools
import sys
from pathlib import Path

import tensorflow as tf

# What tf.function itself asks before it opens an XLA cluster; there is no public way to ask.
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

from kldiv_fast import _core


def rows(y_true, y_pred, epsilon=1e-7):
    """Kullback-Leibler divergence over the last axis, as ``keras.losses.kl_divergence`` means it.

    Parameters
    ----------
    y_true, y_pred : tensors of one floating dtype, of shapes (..., classes) that broadcast
    epsilon : float in (0, 1), default 1e-7
        Lower bound of the clip.

    Returns
    -------
    tf.Tensor
        The rows, in nats: float64 for float64, else float32; 16-bit tensors are cast first. It has
        derivatives of every order with respect to both, which are TensorFlow's own: at the clip's
        bounds the gradient passes, beyond them it is 0. A NaN makes both first gradients NaN, where
        TensorFlow's own, and so what XLA compiles, has 0 for the input that holds it.

    Raises
    ------
    ValueError, tf.errors.InvalidArgumentError
        While tracing and while running, as TensorFlow's ops do: if the shapes do not broadcast, the
        dtypes differ, or there is no class axis.
    """
    y_true, y_pred = _at_least_float32(y_true), _at_least_float32(y_pred)
    if not _ops_run_here():
        return _formula(y_true, y_pred, epsilon)
    if tf.executing_eagerly():
        return _run(_OPS.kldiv_fast_rows, y_true, y_pred, epsilon)
    shape = tf.broadcast_static_shape(y_true.shape, y_pred.shape)
    if shape.rank == 0:
        raise ValueError("y_pred has shape (); expected (..., classes)")
    values = _OPS.kldiv_fast_rows(y_true, y_pred, epsilon)
    values.set_shape(shape[:-1])
    return values


def _at_least_float32(x):
    x = tf.convert_to_tensor(x)
    return tf.cast(x, tf.float32) if x.dtype.size == 2 else x


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


def _clip(x, epsilon):
    return tf.clip_by_value(x, epsilon, 1)


def _formula(y_true, y_pred, epsilon):
    t, p = _clip(y_true, epsilon), _clip(y_pred, epsilon)
    return tf.reduce_sum(t * tf.math.log(t / p), axis=-1)


def _gradient_formula(y_true, y_pred, epsilon, upstream, of_y_pred):
    """What the gradient ops compute."""
    t, p = _clip(y_true, epsilon), _clip(y_pred, epsilon)
    x = y_pred if of_y_pred else y_true
    slope = -t / p if of_y_pred else tf.math.log(t / p) + 1
    inside = (x >= tf.cast(epsilon, x.dtype)) & (x <= 1)
    return tf.where(inside, upstream[..., tf.newaxis] * slope, 0)


# ---- gradients of the ops ----


@tf.RegisterGradient("KldivFastRows")
def _gradients_of_rows(op, upstream):
    y_true, y_pred, epsilon = op.inputs
    unwanted = getattr(op, "skip_input_indices", None) or ()  # tapes know; tf.gradients prunes
    gradients = [None, None, None]
    for i, gradient in enumerate((_OPS.kldiv_fast_grad_y_true, _OPS.kldiv_fast_grad_y_pred)):
        if i not in unwanted:
            full = _run(gradient, y_true, y_pred, epsilon, upstream)
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
    y_true, y_pred, epsilon, factor = op.inputs
    with tf.GradientTape() as tape:
        tape.watch((y_true, y_pred, factor))
        gradient = _gradient_formula(y_true, y_pred, epsilon, factor, of_y_pred)
    by_y_true, by_y_pred, by_factor = tape.gradient(
        gradient, (y_true, y_pred, factor), output_gradients=upstream
    )
    return by_y_true, by_y_pred, None, by_factor


tf.RegisterGradient("KldivFastGradYTrue")(
    functools.partial(_gradients_of_gradient, of_y_pred=False)
)
tf.RegisterGradient("KldivFastGradYPred")(functools.partial(_gradients_of_gradient, of_y_pred=True))
