"""Keras 3: the divergence as loss, metric and function in place of Keras's own, on TensorFlow, PyTorch and JAX.

They are Keras's own classes with another function inside: reductions, weights, masks, dtypes and states are Keras's
code, and only the rows come from :mod:`kldiv_fast`. Needs the extra ``keras`` and one of Keras's backends.
"""

import importlib

try:
    import keras
except ImportError as error:
    raise ImportError("kldiv_fast.keras needs Keras 3: pip install 'kldiv_fast[keras]'") from error

from kldiv_fast._meaning import Settings

__all__ = ["KLDivergence", "KLDivergenceMetric", "kl_divergence", "patch_keras", "unpatch_keras"]

_KERAS_LOSS = keras.losses.KLDivergence
_KERAS_METRIC = keras.metrics.KLDivergence
_KERAS_FUNCTION = keras.losses.kl_divergence

_register = keras.saving.register_keras_serializable(package="kldiv_fast")


# ---- the rows, from Keras's backend ----


def _tensorflow_rows():
    from kldiv_fast._tensorflow import rows

    return rows


def _jax_rows():
    import jax.numpy as jnp

    from kldiv_fast.jax import rows

    def rows_of_one_shape(y_true, y_pred, epsilon):
        if y_true.shape != y_pred.shape:
            y_true, y_pred = jnp.broadcast_arrays(y_true, y_pred)
        return rows(y_true, y_pred, Settings(epsilon=epsilon))

    return rows_of_one_shape


def _torch_rows():
    import torch

    from kldiv_fast.torch import rows

    def rows_where_they_are(y_true, y_pred, epsilon):
        # What torch.compile sees it fuses with its neighbours, which is worth more than a faster op between them; a
        # GPU's tensors stay where they are.
        on_cpu = y_pred.device.type in ("cpu", "meta") and y_true.device.type in ("cpu", "meta")
        if torch.compiler.is_compiling() or not on_cpu:
            return _KERAS_FUNCTION(y_true, y_pred)
        return rows(y_true, y_pred, Settings(epsilon=epsilon))

    return rows_where_they_are


_BACKENDS = {"tensorflow": _tensorflow_rows, "jax": _jax_rows, "torch": _torch_rows}


def _backend_rows():
    name = keras.backend.backend()
    if name not in _BACKENDS:
        raise ImportError(
            f"Keras's backend is {name!r}; kldiv_fast.keras works with: {', '.join(_BACKENDS)}"
        )
    return _BACKENDS[name]()


_rows = _backend_rows()


# ---- function, loss, metric ----


@_register
def kl_divergence(y_true, y_pred):
    """Kullback-Leibler divergence of each row, in nats, in place of ``keras.losses.kl_divergence``.

    Parameters
    ----------
    y_true, y_pred : tensors or array_like, of shapes (..., classes) that broadcast
        The distributions. `y_true` is cast to `y_pred`'s dtype. Both are clipped to
        [``keras.config.epsilon()``, 1].

    Returns
    -------
    tensor
        Of shape (...) and `y_pred`'s dtype. float16 and bfloat16 are computed in float32 and
        rounded once, where Keras overflows for a `y_pred` below 1e-5.

    Raises
    ------
    Exception
        What Keras's own function raises on this backend. Whatever is not floating rows that
        broadcast is left to that function: what raises, ``KerasTensor`` in a functional graph, and
        tensors on a GPU.

    Examples
    --------
    >>> import keras, numpy as np
    >>> from kldiv_fast.keras import kl_divergence
    >>> y_true = np.array([[0, 1], [0, 0]], dtype="float32")
    >>> y_pred = np.array([[0.6, 0.4], [0.4, 0.6]], dtype="float32")
    >>> rows = keras.ops.convert_to_numpy(kl_divergence(y_true, y_pred))
    >>> [f"{row:.5f}" for row in rows]
    ['0.91629', '-0.00000']
    """
    if keras.utils.is_keras_tensor(y_true) or keras.utils.is_keras_tensor(y_pred):
        return _KERAS_FUNCTION(y_true, y_pred)
    y_pred = keras.ops.convert_to_tensor(y_pred, sparse=False)
    dtype = keras.backend.standardize_dtype(y_pred.dtype)
    y_true = keras.ops.convert_to_tensor(y_true, dtype, sparse=False)
    if dtype not in _FLOATS or not _are_rows(y_true.shape, y_pred.shape):
        return _KERAS_FUNCTION(y_true, y_pred)
    return keras.ops.cast(_rows(y_true, y_pred, keras.config.epsilon()), dtype)


_FLOATS = ("float32", "float16", "bfloat16", "float64")


def _are_rows(a, b):
    """Whether two shapes have a class axis and broadcast, as far as is known before the graph runs."""
    if getattr(a, "rank", 0) is None or getattr(b, "rank", 0) is None:  # TensorFlow's unknown rank
        return False
    a, b = tuple(a), tuple(b)
    if max(len(a), len(b)) == 0:
        return False
    return a == b or all(
        m == n or m in (1, None) or n in (1, None)
        for m, n in zip(reversed(a), reversed(b), strict=False)
    )


@_register
class KLDivergence(_KERAS_LOSS):
    """Kullback-Leibler divergence as a loss, in place of ``keras.losses.KLDivergence``.

    Parameters
    ----------
    reduction : str or None, default "sum_over_batch_size"
    name : str, default "kl_divergence"
    dtype : str, keras.DTypePolicy or None
        As in Keras, whose class this is but for the function that computes the rows.

    Examples
    --------
    >>> import numpy as np
    >>> from kldiv_fast.keras import KLDivergence
    >>> y_true = np.array([[0, 1], [0, 0]], dtype="float32")
    >>> y_pred = np.array([[0.6, 0.4], [0.4, 0.6]], dtype="float32")
    >>> f"{float(KLDivergence()(y_true, y_pred)):.6f}"
    '0.458143'
    """

    def __init__(self, reduction="sum_over_batch_size", name="kl_divergence", dtype=None):
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        _exchange_function(self, "fn")


@_register
class KLDivergenceMetric(_KERAS_METRIC):
    """Mean Kullback-Leibler divergence over all batches, in place of ``keras.metrics.KLDivergence``.

    Parameters
    ----------
    name : str, default "kl_divergence"
    dtype : str, keras.DTypePolicy or None
        As in Keras, whose class this is but for the function that computes the rows.

    Examples
    --------
    >>> import numpy as np
    >>> from kldiv_fast.keras import KLDivergenceMetric
    >>> metric = KLDivergenceMetric()
    >>> metric.update_state(np.array([[0.0, 1.0]]), np.array([[0.6, 0.4]]))
    >>> metric.update_state(np.array([[0.0, 0.0]]), np.array([[0.4, 0.6]]))
    >>> f"{float(metric.result()):.6f}"
    '0.458143'
    """

    def __init__(self, name="kl_divergence", dtype=None):
        super().__init__(name=name, dtype=dtype)
        _exchange_function(self, "_fn")


def _exchange_function(instance, attribute):
    """Put our function where Keras's class keeps its own."""
    if getattr(instance, attribute, None) is not _KERAS_FUNCTION:
        raise _moved(f"{type(instance).__mro__[1].__qualname__}.{attribute}")
    setattr(instance, attribute, kl_divergence)


def _moved(what):
    return RuntimeError(
        f"Keras {keras.__version__} has no kl_divergence where kldiv_fast.keras expects it: {what}"
    )


# ---- the names that Keras knows ----

# Where Keras looks names up, and which names have to be there.
_NAMESPACES = {
    "keras.losses": ("KLDivergence", "kl_divergence"),
    "keras.metrics": ("KLDivergence", "kl_divergence"),
    "keras._tf_keras.keras.losses": ("KLDivergence", "kld", "KLD"),
    "keras._tf_keras.keras.metrics": ("KLDivergence", "kld", "KLD"),
    "keras.src.losses:ALL_OBJECTS_DICT": ("KLDivergence", "kl_divergence", "kld", "KLD"),
    "keras.src.metrics:ALL_OBJECTS_DICT": ("KLDivergence", "kl_divergence"),
    "keras.src.api_export:REGISTERED_NAMES_TO_OBJS": (
        "keras.losses.KLDivergence",
        "keras.metrics.KLDivergence",
        "keras.metrics.kl_divergence",
    ),
}
# By which names ours are saved while they stand for Keras's own.
_SAVED_NAMES = {
    "keras.src.api_export:REGISTERED_OBJS_TO_NAMES": {
        KLDivergence: "keras.losses.KLDivergence",
        KLDivergenceMetric: "keras.metrics.KLDivergence",
        kl_divergence: "keras.metrics.kl_divergence",
    },
    "keras.src.saving.object_registration:GLOBAL_CUSTOM_NAMES": {kl_divergence: "kl_divergence"},
}
_OURS = {
    _KERAS_LOSS: KLDivergence,
    _KERAS_METRIC: KLDivergenceMetric,
    _KERAS_FUNCTION: kl_divergence,
}
_ABSENT = object()
_replaced = []  # (namespace, name, what stood there) while Keras is patched


def patch_keras():
    """Make every name that Keras knows the divergence by stand for ours, in an existing program.

    ``model.compile(loss="KLDivergence")`` then uses :class:`KLDivergence`, and so do
    "kl_divergence", "kld" and "KLD", as loss and (as far as Keras knows them) as metric, and the
    attributes ``keras.losses.KLDivergence``, ``keras.losses.kl_divergence`` and those of
    ``keras.metrics`` and ``tf.keras``. What was imported or created before is left as it is, so
    call this before ``from keras.losses import KLDivergence``. A second call changes nothing.

    What is saved while Keras is patched is saved under Keras's own names. It loads with and without
    kldiv_fast, as ours where Keras is patched and as Keras's own where it is not.

    Raises
    ------
    RuntimeError
        If this version of Keras keeps one of the names elsewhere. Nothing has been changed then.

    Examples
    --------
    >>> import keras
    >>> from kldiv_fast.keras import patch_keras, unpatch_keras
    >>> patch_keras()
    >>> type(keras.losses.get("KLDivergence")).__module__
    'kldiv_fast.keras'
    >>> unpatch_keras()
    """
    if _replaced:
        return
    changes = []
    for path, required in _NAMESPACES.items():
        namespace = _namespace(path)
        found = {name: x for name, x in namespace.items() if _is_kerass_own(x)}
        for name in required:
            if name not in found:
                raise _moved(f"{name} in {path}")
        changes += [(namespace, name, _OURS[x]) for name, x in found.items()]
    for path, names in _SAVED_NAMES.items():
        changes += [(_namespace(path), ours, name) for ours, name in names.items()]
    for namespace, name, ours in changes:
        _replaced.append((namespace, name, namespace.get(name, _ABSENT)))
        namespace[name] = ours


def unpatch_keras():
    """Give Keras's names back to Keras's own. Without :func:`patch_keras` before, nothing happens.

    Models that are compiled already keep what they were compiled with.
    """
    while _replaced:
        namespace, name, before = _replaced.pop()
        if before is _ABSENT:
            del namespace[name]
        else:
            namespace[name] = before


def _is_kerass_own(x):
    return any(x is own for own in _OURS)


def _namespace(path):
    """The dict behind "module" or "module:dict"."""
    module, _, attribute = path.partition(":")
    try:
        names = vars(importlib.import_module(module))
    except ImportError:
        raise _moved(path) from None
    if attribute:
        names = names.get(attribute)
    if not isinstance(names, dict):
        raise _moved(path)
    return names
