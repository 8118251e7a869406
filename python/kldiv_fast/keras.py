"""Keras 3: the divergence as loss, metric and function in place of Keras's own, on TensorFlow, PyTorch and JAX.

Of logits and other forms too, the Jensen-Shannon divergence, and the divergence from integer labels. They are Keras's own classes with another function inside: reductions, weights, masks, dtypes and states are Keras's
code, and only the rows come from :mod:`kldiv_fast`. Needs the extra ``keras`` and one of Keras's backends.
"""

import importlib
import math

import numpy as np

try:
    import keras
except ImportError as error:
    raise ImportError("kldiv_fast.keras needs Keras 3: pip install 'kldiv_fast[keras]'") from error

from keras.src.backend import set_keras_mask  # which has no public name

from kldiv_fast import _adapters, _meaning
from kldiv_fast._meaning import Settings
from kldiv_fast._operations import BY_NAME

__all__ = [
    "JensenShannon",
    "JensenShannonMetric",
    "KLDivergence",
    "KLDivergenceMetric",
    "SparseKLDivergence",
    "SparseKLDivergenceMetric",
    "kl_divergence",
    "patch_keras",
    "unpatch_keras",
]

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

    def rows_of_one_shape(y_true, y_pred, settings):
        if y_true.shape != y_pred.shape:
            y_true, y_pred = jnp.broadcast_arrays(y_true, y_pred)
        return rows(y_true, y_pred, settings)

    return rows_of_one_shape


def _torch_rows():
    import torch

    from kldiv_fast.torch import rows, rows_by_formula

    def rows_where_they_are(y_true, y_pred, settings):
        # What torch.compile sees it fuses with its neighbours, which is worth more than a faster op between them; a
        # GPU's tensors stay where they are.
        on_cpu = y_pred.device.type in ("cpu", "meta") and y_true.device.type in ("cpu", "meta")
        if settings.is_plain and (torch.compiler.is_compiling() or not on_cpu):
            return _KERAS_FUNCTION(y_true, y_pred)
        return (rows if on_cpu else rows_by_formula)(y_true, y_pred, settings)

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


# ---- Keras's own: function, loss, metric ----


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
    return keras.ops.cast(_rows(y_true, y_pred, Settings(epsilon=keras.config.epsilon())), dtype)


_FLOATS = ("float32", "float16", "bfloat16", "float64")
_WIDE = ("float32", "float64")  # what is computed in its own dtype


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


class _Rows:
    """A function for Keras's classes to hold, and in `config` the arguments that it was made from."""

    def __init__(self, operation, *, from_logits, temperature, form, **parameters):
        _check_from_logits(from_logits)
        if from_logits and form is not None:
            raise ValueError(
                f"from_logits is True and form is {form!r}; expected one of them: "
                "from_logits=True is form=('probs', 'logits')"
            )
        forms = ("probs", "logits") if from_logits else "probs" if form is None else form
        if "labels" in _meaning.check_form(forms):
            raise ValueError(f"form is {form!r}; labels are for SparseKLDivergence")
        row = BY_NAME[operation]
        given = {"form": forms, "temperature": temperature, **parameters}
        self._settings = _adapters.settings_of(row, _adapters.complete(row, given))
        self.config = parameters | {
            "from_logits": bool(from_logits),
            "temperature": self._settings.temperature,
            "form": form if form is None or isinstance(form, str) else list(form),
        }

    def __call__(self, y_true, y_pred):
        if self._settings.is_plain:
            return kl_divergence(y_true, y_pred)
        y_pred, dtype = _floating(y_pred)
        y_true = keras.ops.convert_to_tensor(y_true, dtype, sparse=False)
        if not _are_rows(y_true.shape, y_pred.shape):
            raise ValueError(
                f"y_true has shape {tuple(y_true.shape)} and y_pred {tuple(y_pred.shape)}; "
                "expected (..., classes), and shapes that broadcast"
            )
        settings = self._settings
        if settings.epsilon is not None:
            settings = settings._replace(epsilon=keras.config.epsilon())
        return keras.ops.cast(_rows(y_true, y_pred, settings), dtype)


def _check_from_logits(from_logits):
    if not isinstance(from_logits, (bool, np.bool_)):
        raise TypeError(f"from_logits is {from_logits!r}; expected True or False")


def _floating(y_pred):
    """It as a tensor of floats, and their dtype."""
    y_pred = keras.ops.convert_to_tensor(y_pred, sparse=False)
    dtype = keras.backend.standardize_dtype(y_pred.dtype)
    if dtype in _FLOATS:
        return y_pred, dtype
    if "int" not in dtype and dtype != "bool":
        raise TypeError(f"y_pred is of dtype {dtype}; expected {', '.join(_FLOATS)} or integers")
    return keras.ops.cast(y_pred, keras.config.floatx()), keras.config.floatx()


@_register
class KLDivergence(_KERAS_LOSS):
    """Kullback-Leibler divergence as a loss, in place of ``keras.losses.KLDivergence``.

    Parameters
    ----------
    reduction : str or None, default "sum_over_batch_size"
    name : str, default "kl_divergence"
    dtype : str, keras.DTypePolicy or None
        As in Keras, whose class this is but for the function that computes the rows.
    from_logits : bool, default False
        Whether `y_pred` are logits, beside probabilities in `y_true`: the value of
        ``keras.losses.CategoricalCrossentropy(from_logits=True)`` less the entropy of `y_true`.
    temperature : float, default 1.0
        What logits are divided by, in both inputs. The value is not multiplied by its square, as
        recipes for distillation do.
    form : str or pair of str, optional
        What the inputs are, as in :func:`kldiv_fast.kl`: "probs" (the default), "counts",
        "log_probs" or "logits", one for both or (`y_true`'s, `y_pred`'s). ``form="logits"`` is
        distillation: a teacher's logits in `y_true`, the student's in `y_pred`. Nothing is clipped
        but probabilities beside probabilities.

    Raises
    ------
    ValueError
        If `from_logits` is True beside a `form`, or an argument has a value that is not in its
        range; called, if shapes do not broadcast.
    TypeError
        If an argument is of a type that is not among those above.

    Examples
    --------
    >>> import numpy as np
    >>> from kldiv_fast.keras import KLDivergence
    >>> y_true = np.array([[0, 1], [0, 0]], dtype="float32")
    >>> y_pred = np.array([[0.6, 0.4], [0.4, 0.6]], dtype="float32")
    >>> f"{float(KLDivergence()(y_true, y_pred)):.6f}"
    '0.458143'
    >>> teacher, student = np.array([[[2.0, 0.0]], [[0.0, 0.0]]], dtype="float32")
    >>> f"{float(KLDivergence(form='logits', temperature=2.0)(teacher, student)):.6f}"
    '0.110944'
    """

    def __init__(
        self,
        reduction="sum_over_batch_size",
        name="kl_divergence",
        dtype=None,
        *,
        from_logits=False,
        temperature=1.0,
        form=None,
    ):
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        rows = _Rows("kl", from_logits=from_logits, temperature=temperature, form=form)
        self._config = _exchange_function(self, "fn", rows)

    def get_config(self):
        return super().get_config() | self._config


@_register
class KLDivergenceMetric(_KERAS_METRIC):
    """Mean Kullback-Leibler divergence over all batches, in place of ``keras.metrics.KLDivergence``.

    Parameters
    ----------
    name : str, default "kl_divergence"
    dtype : str, keras.DTypePolicy or None
        As in Keras, whose class this is but for the function that computes the rows.
    from_logits, temperature, form
        As those of :class:`KLDivergence`, with its errors.

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

    def __init__(
        self, name="kl_divergence", dtype=None, *, from_logits=False, temperature=1.0, form=None
    ):
        super().__init__(name=name, dtype=dtype)
        rows = _Rows("kl", from_logits=from_logits, temperature=temperature, form=form)
        self._config = _exchange_function(self, "_fn", rows)

    def get_config(self):
        return super().get_config() | self._config


def _exchange_function(instance, attribute, rows):
    """Put our function where Keras's class keeps its own. Returns what of the arguments Keras's class doesn't have."""
    if getattr(instance, attribute, None) is not _KERAS_FUNCTION:
        raise _moved(f"{type(instance).__mro__[1].__qualname__}.{attribute}")
    told = {name: x for name, x in rows.config.items() if x != _UNTOLD[name]}
    setattr(instance, attribute, rows if told else kl_divergence)
    return told


_UNTOLD = {"from_logits": False, "temperature": 1.0, "form": None}


def _moved(what):
    return RuntimeError(
        f"Keras {keras.__version__} has no kl_divergence where kldiv_fast.keras expects it: {what}"
    )


# ---- losses and metrics that Keras doesn't have ----


class _Loss(
    _KERAS_LOSS.__base__
):  # Keras's class of losses that hold a function, under no public name
    """A loss of a function of rows, which knows its own arguments."""

    def get_config(self):
        return keras.losses.Loss.get_config(self) | self.fn.config


class _Metric(keras.metrics.MeanMetricWrapper):
    """The mean of such a function, over all batches."""

    def __init__(self, rows, name, dtype):
        super().__init__(rows, name=name, dtype=dtype)
        self._direction = "down"  # as Keras says of its own losses

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype} | self._fn.config


@_register
class JensenShannon(_Loss):
    """Jensen-Shannon divergence as a loss: what :func:`kldiv_fast.jsd` computes.

    Parameters
    ----------
    beta : float in [0, 1], default 0.5
        The weight of `y_true`'s side: see :func:`kldiv_fast.jsd`.
    from_logits, temperature, form
        As those of :class:`KLDivergence`, with its errors.
    reduction : str or None, default "sum_over_batch_size"
    name : str, default "jensen_shannon"
    dtype : str, keras.DTypePolicy or None
        As in Keras's losses.

    Examples
    --------
    >>> import numpy as np
    >>> from kldiv_fast.keras import JensenShannon
    >>> y_true = np.array([[0.0, 1.0], [0.5, 0.5]], dtype="float32")
    >>> logits = np.array([[0.0, 0.0], [1.0, 1.0]], dtype="float32")
    >>> f"{float(JensenShannon(from_logits=True)(y_true, logits)):.6f}"
    '0.107881'
    """

    def __init__(
        self,
        beta=0.5,
        from_logits=False,
        temperature=1.0,
        form=None,
        reduction="sum_over_batch_size",
        name="jensen_shannon",
        dtype=None,
    ):
        rows = _Rows("jsd", from_logits=from_logits, temperature=temperature, form=form, beta=beta)
        super().__init__(rows, reduction=reduction, name=name, dtype=dtype)


@_register
class JensenShannonMetric(_Metric):
    """Mean Jensen-Shannon divergence over all batches.

    Parameters
    ----------
    name : str, default "jensen_shannon"
    dtype : str, keras.DTypePolicy or None
        As in Keras's metrics.
    beta, from_logits, temperature, form
        As those of :class:`JensenShannon`.

    Examples
    --------
    >>> import numpy as np
    >>> from kldiv_fast.keras import JensenShannonMetric
    >>> metric = JensenShannonMetric()
    >>> metric.update_state(np.array([[0.0, 1.0]]), np.array([[0.5, 0.5]]))
    >>> f"{float(metric.result()):.5f}"
    '0.21576'
    """

    def __init__(
        self,
        name="jensen_shannon",
        dtype=None,
        beta=0.5,
        from_logits=False,
        temperature=1.0,
        form=None,
    ):
        rows = _Rows("jsd", from_logits=from_logits, temperature=temperature, form=form, beta=beta)
        super().__init__(rows, name, dtype)


class _SparseRows:
    """:class:`_Rows` of integer labels."""

    def __init__(self, from_logits, ignore_class):
        _check_from_logits(from_logits)
        ignore_class = _meaning.check_ignore_class(ignore_class, ("labels", "probs"))
        self.config = {"from_logits": bool(from_logits), "ignore_class": ignore_class}

    def __call__(self, y_true, y_pred):
        y_pred, dtype = _floating(y_pred)
        labels = _read_labels(y_true, y_pred.shape)
        ignore_class = self.config["ignore_class"]
        if ignore_class is None:
            return self._compute(labels, y_pred, dtype)
        keep = labels != ignore_class
        labels = keras.ops.where(keep, labels, 0)
        y_pred = keras.ops.where(keep[..., None], y_pred, 0)
        rows = keras.ops.where(keep, self._compute(labels, y_pred, dtype), 0)
        set_keras_mask(rows, keep)
        return rows

    def _compute(self, labels, y_pred, dtype):
        if self.config["from_logits"]:
            y_pred = y_pred if dtype in _WIDE else keras.ops.cast(y_pred, "float32")
            rows = _cross_entropy(labels, y_pred)
            rows = rows if _TELLS_OF_LABELS else _where_they_exist(labels, y_pred, rows)
        else:
            classes, whole = keras.ops.shape(y_pred)[-1], keras.ops.cast(labels, "int32")
            one_hot = keras.ops.one_hot(whole, classes, dtype=dtype)
            rows = _where_they_exist(labels, y_pred, kl_divergence(one_hot, y_pred))
        return rows if dtype in _WIDE else keras.ops.cast(rows, dtype)


def _cross_entropy(labels, logits):
    if keras.backend.backend() != "jax":
        return keras.ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    # Keras's multiplies a one-hot row by logarithms, of which one is -inf where a class is masked: 0 times that is NaN.
    index = keras.ops.cast(labels, _INDEX)[..., None]
    of_label = keras.ops.take_along_axis(logits, index, axis=-1)[..., 0]
    return keras.ops.logsumexp(logits, axis=-1) - of_label


# Whether the backend's cross-entropy has an error, or NaN, for every label that there isn't.
_TELLS_OF_LABELS = keras.backend.backend() == "tensorflow"


def _where_they_exist(labels, y_pred, rows):
    """NaN where Keras takes a label that there isn't for a row of zeros."""
    classes = keras.ops.shape(y_pred)[-1]
    if not isinstance(classes, int):  # which TensorFlow finds only when a graph runs
        classes = keras.ops.cast(classes, labels.dtype)
    return keras.ops.where(labels // classes == 0, rows, math.nan)


def _read_labels(y_true, shape):
    """Labels of the rows' shape, whole numbers if they are not floats (as a loss makes of them), beside `shape`'s classes."""
    labels = keras.ops.convert_to_tensor(y_true, sparse=False)
    given, rows = tuple(labels.shape), tuple(shape)[:-1]
    if len(given) == len(shape) and given[-1] == 1:
        labels = keras.ops.squeeze(labels, axis=-1)
    fits = len(labels.shape) == len(rows) and all(
        m == n or None in (m, n) for m, n in zip(labels.shape, rows, strict=True)
    )
    if not fits:
        raise ValueError(
            f"y_true has shape {given} beside y_pred's {tuple(shape)}; expected one label a row, "
            f"{rows} or {(*rows, 1)}"
        )
    dtype = keras.backend.standardize_dtype(labels.dtype)
    if dtype not in _FLOATS:
        return keras.ops.cast(labels, _INDEX)
    whole = _WHOLE.get(dtype)
    if whole is not None and (shape[-1] or 0) > whole + 1:
        raise ValueError(
            f"y_true is of dtype {dtype}, which has no whole numbers between {whole} and {whole + 2}, "
            f"beside {shape[-1]} classes; expected a loss of dtype 'float32'"
        )
    return labels


_INDEX = "int32" if keras.backend.backend() == "jax" else "int64"  # as wide as the backend's are
_WHOLE = {"float16": 2**11, "bfloat16": 2**8, "float32": 2**24}  # up to where floats have them all


@_register
class SparseKLDivergence(_Loss):
    """Kullback-Leibler divergence from rows that are a class each, of integer labels, as a loss.

    Of logits it is ``keras.losses.SparseCategoricalCrossentropy(from_logits=True)``, which is the
    divergence from a row that is 1 at its label and 0 elsewhere. Of probabilities it is
    ``keras.losses.KLDivergence`` of such rows, clipped as there.

    Parameters
    ----------
    from_logits : bool, default False
        Whether `y_pred` are logits.
    ignore_class : int, optional
        A label whose rows are left out, as in Keras's SparseCategoricalCrossentropy.
    reduction : str or None, default "sum_over_batch_size"
    name : str, default "sparse_kl_divergence"
    dtype : str, keras.DTypePolicy or None
        As in Keras's losses.

    Raises
    ------
    ValueError
        Called: if `y_true` is not of `y_pred`'s shape (..., classes) without its classes, or with 1
        in their place; if the loss's dtype, which Keras casts labels to, doesn't hold all of them.
    TypeError
        If an argument is of a type that is not among those above.

    Notes
    -----
    A label that is not in [0, classes) makes its row NaN, where the backend raises no error.

    Examples
    --------
    >>> import numpy as np
    >>> from kldiv_fast.keras import SparseKLDivergence
    >>> labels, uniform = np.array([7]), np.full((1, 46), 1 / 46)
    >>> f"{float(SparseKLDivergence()(labels, uniform)):.4f}"
    '3.8286'
    >>> logits = np.zeros((3, 46), dtype="float32")
    >>> loss = SparseKLDivergence(from_logits=True, ignore_class=-1)
    >>> f"{float(loss(np.array([7, -1, 45]), logits)):.4f}"  # log(46)
    '3.8286'
    """

    def __init__(
        self,
        from_logits=False,
        ignore_class=None,
        reduction="sum_over_batch_size",
        name="sparse_kl_divergence",
        dtype=None,
    ):
        rows = _SparseRows(from_logits, ignore_class)
        super().__init__(rows, reduction=reduction, name=name, dtype=dtype)


@_register
class SparseKLDivergenceMetric(_Metric):
    """Mean of :class:`SparseKLDivergence`'s rows over all batches.

    Parameters
    ----------
    name : str, default "sparse_kl_divergence"
    dtype : str, keras.DTypePolicy or None
        As in Keras's metrics.
    from_logits, ignore_class
        As those of :class:`SparseKLDivergence`. Without weights, rows that are left out count as 0
        in the mean, as in Keras's metric.

    Examples
    --------
    >>> import numpy as np
    >>> from kldiv_fast.keras import SparseKLDivergenceMetric
    >>> metric = SparseKLDivergenceMetric(from_logits=True)
    >>> metric.update_state(np.array([0, 1]), np.zeros((2, 46)))
    >>> f"{float(metric.result()):.4f}"
    '3.8286'
    """

    def __init__(
        self, name="sparse_kl_divergence", dtype=None, from_logits=False, ignore_class=None
    ):
        super().__init__(_SparseRows(from_logits, ignore_class), name, dtype)


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
    kldiv_fast, as ours where Keras is patched and as Keras's own where it is not; without it not if
    it was given an argument that Keras's own doesn't have.

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
