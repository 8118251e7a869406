"""kldiv_fast.keras beside Keras's own loss, metric and function.

Keras has one backend for each process. The cases run on the one of this process, and beside it in a process of its own
for each other backend.
"""

import doctest
import inspect
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from oracle import distributions
from pairwise import each, pairwise
from processes import printed, run_python

keras = pytest.importorskip("keras")

BACKEND = keras.backend.backend()
pytest.importorskip(BACKEND)
import kldiv_fast
import kldiv_fast.keras as adapter
from kldiv_fast.keras import (
    JensenShannon,
    JensenShannonMetric,
    KLDivergence,
    KLDivergenceMetric,
    SparseKLDivergence,
    SparseKLDivergenceMetric,
    kl_divergence,
    patch_keras,
    unpatch_keras,
)

KERAS_LOSS, KERAS_METRIC = keras.losses.KLDivergence, keras.metrics.KLDivergence
KERAS_FUNCTION = keras.losses.kl_divergence
REDUCTIONS = ["sum_over_batch_size", "mean", "sum", "none", None, "mean_with_sample_weight"]
SHAPES = [(3, 4), (1, 1), (7, 46), (2, 3, 17), (5,), (2, 3, 1, 5)]
FEATURES, CLASSES = 6, 5
OTHER_BACKEND = "KLDIV_FAST_OTHER_BACKEND" in os.environ  # the last test's process

once = pytest.mark.skipif(OTHER_BACKEND, reason="the same whatever the backend")
only_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's own")
pytestmark = [
    # Keras's convert_to_numpy and saving: of tensors and variables whose __array__ is older than NumPy 2.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning:keras"),
    # torch.compile: its own import at the first call, and its look at the model's output between two graphs.
    pytest.mark.filterwarnings(r"ignore:`torch\.jit\.script_method`:DeprecationWarning:torch\.jit"),
    pytest.mark.filterwarnings(r"ignore:The \.grad attribute of a Tensor that is not:UserWarning"),
]


def numpy(x):
    if keras.backend.standardize_dtype(x.dtype) == "bfloat16":
        # TensorFlow makes no array of a 0-d one.
        x = keras.ops.cast(x, "float32")
    return np.asarray(keras.ops.convert_to_numpy(x)).astype(np.float64)


@pytest.fixture
def dtype_in_reach(dtype):
    """JAX has a float64 for who asks for it."""
    if BACKEND == "jax" and dtype == "float64":
        import jax

        with jax.enable_x64(True):
            yield
    else:
        yield


def agree(ours, theirs, rtol=1e-5, atol=1e-6):
    for x in (ours, theirs):
        assert keras.ops.is_tensor(x)
    assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(numpy(ours), numpy(theirs), rtol=rtol, atol=atol, strict=True)


def pair(rng, shape, dtype="float32", other=None):
    """Strictly inside the clip's bounds, where JAX's gradient of a clip differs."""
    arrays = 0.9 * distributions(rng, shape), 0.9 * distributions(rng, other or shape)
    return [keras.ops.convert_to_tensor(x, dtype) for x in arrays]


def gradients(function, y_true, y_pred):
    """Of the sum of function(y_true, y_pred), by both, with the backend's own means."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch((y_true, y_pred))
            value = function(y_true, y_pred)
        return tape.gradient(value, (y_true, y_pred))
    if BACKEND == "jax":
        import jax

        return jax.grad(lambda *inputs: function(*inputs).sum(), argnums=(0, 1))(y_true, y_pred)
    inputs = [x.detach().clone().requires_grad_() for x in (y_true, y_pred)]
    function(*inputs).sum().backward()
    return [x.grad for x in inputs]


def reference(function):
    """Keras's own, to compare with: compiled on JAX, which takes long to compile each operation by itself."""
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    return function


@pytest.fixture
def counted(monkeypatch):
    """How often our rows were asked for, traced or run."""
    calls = []
    rows = adapter._rows
    monkeypatch.setattr(adapter, "_rows", lambda *a: (calls.append(a), rows(*a))[1])
    return calls


@pytest.fixture
def patched():
    patch_keras()
    yield
    unpatch_keras()


# ---- values and gradients ----


RTOLS = {"float32": 1e-5, "float64": 1e-5, "float16": 1e-3, "bfloat16": 8e-3}


# JAX compiles every operation again for every shape and dtype.
@(each if BACKEND == "jax" else pairwise)(shape=SHAPES, dtype=list(RTOLS))
@pytest.mark.usefixtures("dtype_in_reach")
def test_function(rng, counted, shape, dtype):
    """Of 16-bit tensors, what Keras computes from the same numbers in float32, rounded once."""
    rtol = RTOLS[dtype]
    y_true, y_pred = pair(rng, shape, dtype)
    work = dtype if dtype == "float64" else "float32"

    @reference
    def expected(*inputs):
        return keras.ops.cast(KERAS_FUNCTION(*(keras.ops.cast(x, work) for x in inputs)), dtype)

    agree(kl_divergence(y_true, y_pred), expected(y_true, y_pred), rtol)
    for mine, theirs in zip(
        gradients(kl_divergence, y_true, y_pred), gradients(expected, y_true, y_pred), strict=True
    ):
        agree(mine, theirs, rtol)
    assert counted


@pytest.mark.parametrize(
    ("a", "b"), [((2, 3), (3,)), ((3, 1), (1, 4)), ((3, 1, 4), (2, 4))], ids=str
)
def test_broadcasting(rng, counted, a, b):
    y_true, y_pred = pair(rng, a, other=b)
    expected = reference(KERAS_FUNCTION)
    agree(kl_divergence(y_true, y_pred), expected(y_true, y_pred))
    for mine, theirs in zip(
        gradients(kl_divergence, y_true, y_pred), gradients(expected, y_true, y_pred), strict=True
    ):
        agree(mine, theirs)
    assert counted


def test_beyond_the_clip_gradients_are_zero():
    edges = np.array([-1, 0, 9e-8, 2e-7, 0.5, 1 - 6e-8, 1 + 1.2e-7, 2, np.inf], np.float32)
    y_true, y_pred = (
        keras.ops.convert_to_tensor(x.reshape(-1, 1)) for x in np.meshgrid(edges, edges)
    )
    for mine, theirs in zip(
        gradients(kl_divergence, y_true, y_pred),
        gradients(KERAS_FUNCTION, y_true, y_pred),
        strict=True,
    ):
        agree(mine, theirs)


def test_at_the_clip_s_bounds_gradients_pass():
    """As they do in Keras on TensorFlow and PyTorch; jnp.clip halves them there."""
    y_true, y_pred = (keras.ops.convert_to_tensor([[x]], "float32") for x in (0.5, 1.0))
    agree(gradients(kl_divergence, y_true, y_pred)[1], keras.ops.convert_to_tensor([[-0.5]]))
    theirs = keras.ops.convert_to_tensor([[-0.25 if BACKEND == "jax" else -0.5]])
    agree(gradients(KERAS_FUNCTION, y_true, y_pred)[1], theirs)


def test_epsilon_is_keras_configured(rng):
    y_true, y_pred = pair(rng, (4, 46))
    keras.config.set_epsilon(1e-3)
    try:
        agree(kl_divergence(y_true, y_pred), KERAS_FUNCTION(y_true, y_pred))
    finally:
        keras.config.set_epsilon(1e-7)


WEIGHTS = [((4, 5), (4,)), ((4, 5), (4, 1)), ((4, 5), ()), ((2, 3, 5), (2, 3)), ((2, 3, 5), (3,))]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("shape", "weight_shape"), WEIGHTS, ids=str)
def test_loss(rng, counted, shape, weight_shape, reduction):
    y_true, y_pred = pair(rng, shape)
    weight = rng.random(weight_shape).astype(np.float32)
    ours, theirs = (cls(reduction=reduction) for cls in (KLDivergence, KERAS_LOSS))
    agree(ours(y_true, y_pred), theirs(y_true, y_pred))
    agree(ours(y_true, y_pred, weight), theirs(y_true, y_pred, weight))
    assert len(counted) == 2


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "mixed_float16"])
@pytest.mark.usefixtures("dtype_in_reach")
def test_loss_dtype(rng, dtype):
    y_true, y_pred = ((0.1 + rng.random((4, 5))) / 20 for _ in range(2))
    ours, theirs = (cls(dtype=dtype)(y_true, y_pred) for cls in (KLDivergence, KERAS_LOSS))
    agree(ours, theirs, 1e-5 if dtype.startswith("float") else 5e-2)


def test_loss_of_ranks_that_differ_and_of_structures(rng):
    y_true, y_pred = pair(rng, (3, 4, 1), other=(3, 4))
    agree(KLDivergence()(y_true, y_pred), KERAS_LOSS()(y_true, y_pred))
    ours, theirs = (
        cls()([y_pred, y_pred], [y_true[..., 0], y_pred]) for cls in (KLDivergence, KERAS_LOSS)
    )
    agree(ours, theirs)


def test_float16_does_not_overflow():
    y_true, y_pred = np.array([[1.0]], np.float16), np.array([[1e-6]], np.float16)
    value = kl_divergence(y_true, y_pred)
    assert keras.backend.standardize_dtype(value.dtype) == "float16"
    assert numpy(value)[0] == pytest.approx(-np.log(float(y_pred[0, 0])), rel=1e-3)


@pytest.mark.parametrize("weighted", [False, True])
def test_metric(rng, counted, weighted):
    ours, theirs = KLDivergenceMetric(), KERAS_METRIC()
    for size in (4, 7):
        y_true, y_pred = pair(rng, (size, 5))
        weight = rng.random(size).astype(np.float32) if weighted else None
        for metric in (ours, theirs):
            metric.update_state(y_true, y_pred, sample_weight=weight)
        agree(ours.result(), theirs.result())
    assert len(counted) == 2
    ours.reset_state()
    assert numpy(ours.result()) == 0


# ---- other forms, other divergences ----

FORMS = {
    "probs": distributions,
    "counts": lambda rng, shape: rng.integers(1, 9, shape),
    "log_probs": lambda rng, shape: np.log(distributions(rng, shape)),
    "logits": lambda rng, shape: 3 * rng.standard_normal(shape),
}
# A loss and what NumPy's function is given for it.
OTHERS = [
    (KLDivergence(form="logits", temperature=2.0), "kl", dict(form="logits", temperature=2.0)),
    (KLDivergence(form=["counts", "log_probs"]), "kl", dict(form=("counts", "log_probs"))),
    (JensenShannon(), "jsd", {}),
    (JensenShannon(0.2, True, 3.0), "jsd", dict(beta=0.2, form=("probs", "logits"), temperature=3)),
]


def compiled(function):
    """Through the backend's compiler, as Keras has it with jit_compile=True."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    import torch

    return torch.compile(function, backend="aot_eager")


@pytest.mark.parametrize(("loss", "name", "given"), OTHERS)
def test_other_forms_and_divergences(rng, loss, name, given):
    forms = given.get("form", "probs")
    forms = (forms, forms) if isinstance(forms, str) else forms
    arrays = [FORMS[form](rng, (4, 7)).astype(np.float32) for form in forms]
    expected, slopes = getattr(kldiv_fast, f"{name}_value_and_grad")(
        *arrays, wrt=("y_true", "y_pred"), **given
    )
    inputs = [keras.ops.convert_to_tensor(x) for x in arrays]
    np.testing.assert_allclose(numpy(loss(*inputs)), expected, rtol=1e-5)
    for mine, slope in zip(gradients(loss, *inputs), slopes, strict=True):
        np.testing.assert_allclose(numpy(mine), slope, rtol=1e-4, atol=1e-6)


def test_from_logits_is_keras_cross_entropy_less_the_entropy(rng):
    y_true, logits = (
        keras.ops.convert_to_tensor(FORMS[form](rng, (4, 7)), "float32")
        for form in ("probs", "logits")
    )

    def expected(y_true, logits):
        entropy = -keras.ops.sum(y_true * keras.ops.log(y_true), axis=-1)
        theirs = keras.losses.CategoricalCrossentropy(from_logits=True, reduction=None)
        return keras.ops.sum(theirs(y_true, logits) - entropy)

    ours = KLDivergence(from_logits=True, reduction="sum")
    for function in (ours, compiled(ours)):
        agree(function(y_true, logits), expected(y_true, logits))
    for mine, theirs in zip(
        gradients(ours, y_true, logits), gradients(expected, y_true, logits), strict=True
    ):
        agree(mine, theirs)


def test_16_bit_logits_are_computed_in_32(rng):
    teacher, student = (FORMS["logits"](rng, (4, 46)).astype(np.float16) for _ in range(2))
    labels = rng.integers(0, 46, 4)
    rows = KLDivergence(None, dtype="float16", form="logits")(teacher, student)
    expected = kldiv_fast.kl(teacher, student, form="logits", reduction="none")
    agree(rows, keras.ops.convert_to_tensor(expected.astype(np.float16)), 1e-3)
    rows = SparseKLDivergence(True, reduction=None, dtype="float16")(labels, student)
    expected = kldiv_fast.kl(labels, student, form=("labels", "logits"), reduction="none")
    agree(rows, keras.ops.convert_to_tensor(expected.astype(np.float16)), 1e-3)


@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch's own")
def test_other_devices_formula(rng):
    """Here on the CPU's tensors, beside the core."""
    import torch
    from kldiv_fast._meaning import Settings
    from kldiv_fast.torch import rows, rows_by_formula

    settings = Settings("jsd", None, 0.3, pred_form="logits")
    pair = [FORMS[form](rng, (4, 7)) for form in ("probs", "logits")]
    pair[0][0, 0], pair[1][1, 1] = 0, -np.inf
    inputs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in pair]
    values, firsts, seconds = [], [], []
    for function in (rows, rows_by_formula):
        values.append(function(*inputs, settings))
        firsts.append(torch.autograd.grad((values[-1] ** 2).sum(), inputs, create_graph=True))
        seconds.append(torch.autograd.grad(sum(x.sum() for x in firsts[-1]), inputs))
    for mine, theirs in (values, *zip(*firsts, strict=True), *zip(*seconds, strict=True)):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    ("from_logits", "shape", "ignore_class"),
    [
        pytest.param(True, (6,), None, marks=pytest.mark.long if BACKEND == "jax" else ()),
        (True, (2, 3, 1), -1),
        (False, (6, 1), 2),
        pytest.param(True, (6, 1), 2, marks=pytest.mark.long),
        pytest.param(False, (2, 3), -1, marks=pytest.mark.long),
    ],
)
def test_labels(rng, from_logits, shape, ignore_class):
    """Of logits Keras's loss and metric of the same arguments; of probabilities its KLDivergence of one-hot rows."""
    batch = shape[:-1] if shape[-1] == 1 else shape
    labels = rng.integers(min(ignore_class or 0, 0), CLASSES, shape)
    y_pred = keras.ops.convert_to_tensor(
        FORMS["logits" if from_logits else "probs"](rng, (*batch, CLASSES)), "float32"
    )
    weight = rng.random(batch).astype(np.float32)
    keep = np.reshape(labels != ignore_class, batch)

    def theirs(y_true, y_pred, sample_weight=None, **options):
        if from_logits:
            loss = keras.losses.SparseCategoricalCrossentropy(True, ignore_class, **options)
            return loss(y_true, y_pred, sample_weight)
        flat = np.where(labels == ignore_class, 0, labels).reshape(batch)
        one_hot = keras.utils.to_categorical(flat, CLASSES)
        sample_weight = keep * (1 if sample_weight is None else sample_weight)
        if not options:  # a mean over the rows that there are
            sample_weight = sample_weight * (keep.size / keep.sum())
        return KERAS_LOSS(**options)(one_hot, y_pred, sample_weight)

    def ours(*inputs, **options):
        return SparseKLDivergence(from_logits, ignore_class, **options)(*inputs)

    agree(ours(labels, y_pred, weight), theirs(labels, y_pred, weight))
    rows = theirs(labels, y_pred, reduction=None)
    agree(ours(labels, y_pred, reduction=None), rows)
    y_true = keras.ops.convert_to_tensor(labels.astype(np.float32))
    agree(gradients(ours, y_true, y_pred)[1], gradients(theirs, y_true, y_pred)[1])
    metric = SparseKLDivergenceMetric(from_logits=from_logits, ignore_class=ignore_class)
    metric.update_state(labels, y_pred, weight)
    expected = keras.metrics.Mean()
    expected.update_state(numpy(rows), weight * keep)
    agree(metric.result(), expected.result())


def test_a_uniform_prediction_of_46_classes():
    dtype, rtol = ("float32", 1e-6) if BACKEND == "jax" else ("float64", 1e-14)
    loss = SparseKLDivergence(reduction=None, dtype=dtype)  # Keras's means with PyTorch are float32
    rows = loss(np.array([7, 0, 45]), np.full((3, 46), 1 / 46))
    np.testing.assert_allclose(numpy(rows), 3.82858609394495, rtol=rtol)


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("label", [-1, CLASSES, np.nan])
def test_a_label_that_there_is_not_is_no_value(from_logits, label):
    """The backend's error, or a row that is NaN."""
    loss = SparseKLDivergence(from_logits, reduction=None)
    try:
        rows = numpy(loss(np.array([label, 1]), np.full((2, CLASSES), 1 / CLASSES)))
    except Exception as error:  # noqa: BLE001
        assert BACKEND != "jax" and type(error).__module__ != "kldiv_fast.keras"
    else:
        np.testing.assert_array_equal(np.isnan(rows), [True, False])


def test_labels_beside_masked_classes(rng):
    """Whose logits are -inf, where Keras on JAX has NaN."""
    logits = np.float32([[-np.inf, 2, 3]])
    rows = numpy(SparseKLDivergence(True, reduction=None)(np.array([1]), logits))
    np.testing.assert_allclose(rows, np.log1p(np.e), rtol=1e-6)
    y_true, y_pred = (keras.ops.convert_to_tensor(x) for x in (np.array([1.0], "float32"), logits))
    _, gradient = gradients(SparseKLDivergence(True), y_true, y_pred)
    q = np.array([0, 1, np.e]) / (1 + np.e)
    np.testing.assert_allclose(numpy(gradient), [q - [0, 1, 0]], rtol=1e-5, atol=1e-7)


def test_a_jensen_shannon_metric(rng):
    metric, rows, weights = JensenShannonMetric(beta=0.3), [], []
    for size in (4, 7):
        arrays = [distributions(rng, (size, 5)).astype(np.float32) for _ in range(2)]
        weights.append(rng.random(size).astype(np.float32))
        metric.update_state(*arrays, sample_weight=weights[-1])
        rows.append(kldiv_fast.jsd(*arrays, beta=0.3, reduction="none"))
    mean = np.average(np.concatenate(rows), weights=np.concatenate(weights))
    np.testing.assert_allclose(numpy(metric.result()), mean, rtol=1e-5)


REFUSED = {
    r"from_logits is True and form is 'logits'.*from_logits=True is form=\('probs', 'logits'\)": (
        lambda: KLDivergence(from_logits=True, form="logits")
    ),
    "from_logits is 'sum'; expected True or False": lambda: SparseKLDivergence("sum"),
    "from_logits is 1;": lambda: KLDivergenceMetric(from_logits=1),
    "temperature is 2.0, which is for logits alone": lambda: KLDivergence(temperature=2.0),
    "temperature is 0; expected": lambda: JensenShannonMetric(temperature=0, from_logits=True),
    "beta is 2; expected": lambda: JensenShannon(2),
    "form is 'odds'; expected one of": lambda: KLDivergence(form="odds"),
    r"form is .* labels are for SparseKLDivergence": lambda: KLDivergence(form=("labels", "probs")),
    "ignore_class is of type str": lambda: SparseKLDivergence(ignore_class="2"),
    r"y_true has shape \(2, 3\) and y_pred \(2, 2\)": lambda: JensenShannon()(X, X[:, :2]),
    r"y_true has shape \(3,\) beside y_pred's \(2, 3\); expected one label a row, \(2,\)": (
        lambda: SparseKLDivergence()(np.arange(3), X)
    ),
    "of dtype bfloat16, which has no whole numbers between 256 and 258, beside 1000 classes": (
        lambda: SparseKLDivergence(dtype="bfloat16")(np.zeros(1), np.ones((1, 1000)))
    ),
    "y_pred is of dtype complex64": (
        lambda: JensenShannonMetric().update_state(X, X.astype(np.complex64))
    ),
}


@pytest.mark.parametrize("told", REFUSED)
def test_what_is_refused(told):
    with pytest.raises((ValueError, TypeError), match=told):
        REFUSED[told]()


# ---- configurations and files ----


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (KLDivergence, KERAS_LOSS),
        (KLDivergenceMetric, KERAS_METRIC),
        (kl_divergence, KERAS_FUNCTION),
    ],
)
def test_signatures(ours, theirs):
    """Keras's, and behind it what is a keyword alone."""
    parameters = [list(inspect.signature(x).parameters.values()) for x in (ours, theirs)]
    more = parameters[0][len(parameters[1]) :]
    assert parameters[0] == [*parameters[1], *more]
    assert all(x.kind is x.KEYWORD_ONLY for x in more)


@pytest.mark.parametrize(
    ("ours", "theirs", "arguments"),
    [
        (KLDivergence, KERAS_LOSS, {}),
        (KLDivergence, KERAS_LOSS, dict(reduction="sum", name="divergence")),
        (KLDivergenceMetric, KERAS_METRIC, {}),
        (KLDivergenceMetric, KERAS_METRIC, dict(name="divergence", dtype="float16")),
    ],
)
def test_configurations(ours, theirs, arguments):
    ours, theirs = ours(**arguments), theirs(**arguments)
    assert isinstance(ours, type(theirs))
    assert ours.name == theirs.name
    assert ours.get_config() == theirs.get_config()
    again = type(ours).from_config(ours.get_config())
    assert again.get_config() == ours.get_config()
    saved = keras.saving.serialize_keras_object(ours)
    assert saved["registered_name"] == f"kldiv_fast>{type(ours).__name__}"
    assert type(keras.saving.deserialize_keras_object(saved)) is type(ours)


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        (KLDivergence, dict(form=["probs", "logits"], temperature=2.0, reduction="sum")),
        (KLDivergence, dict(from_logits=True)),
        (KLDivergenceMetric, dict(form="counts", name="divergence")),
        (JensenShannon, dict(beta=0.25, from_logits=True, temperature=1.0, form=None)),
        (JensenShannonMetric, dict(beta=0.5, from_logits=False, temperature=3.0, form="logits")),
        (SparseKLDivergence, dict(from_logits=True, ignore_class=-1, reduction="sum")),
        (SparseKLDivergenceMetric, dict(from_logits=False, ignore_class=None, dtype="float16")),
    ],
)
def test_what_a_configuration_holds_beside_keras_own(cls, arguments):
    config = cls(**arguments).get_config()
    assert arguments.items() <= config.items()
    assert not config.keys() - arguments - {"name", "reduction", "dtype"}
    saved = keras.saving.serialize_keras_object(cls(**arguments))
    assert saved["registered_name"] == f"kldiv_fast>{cls.__name__}"
    assert keras.saving.deserialize_keras_object(saved).get_config() == config


@pytest.mark.parametrize(
    "loss",
    [KLDivergence(reduction="sum"), pytest.param(kl_divergence, marks=pytest.mark.long)],
    ids=["object", "function"],
)
def test_a_saved_model_is_loaded_compiled(rng, tmp_path, loss):
    x, y = data(rng)
    model = classifier()
    model.compile("rmsprop", loss, metrics=[KLDivergenceMetric(), kl_divergence])
    model.fit(x, y, epochs=1, verbose=0)
    before = model.evaluate(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again.loss) is type(loss)
    np.testing.assert_allclose(again.evaluate(x, y, verbose=0), before, rtol=1e-6)


# ---- training ----


def data(rng, size=48):
    x = rng.standard_normal((size, FEATURES)).astype(np.float32)
    return x, distributions(rng, (size, CLASSES))


def classifier(policy=None):
    keras.utils.set_random_seed(1)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((FEATURES,)),
            layers.Dense(8, activation="relu", dtype=policy),
            layers.Dense(CLASSES, activation="softmax", dtype=policy),
        ]
    )


def train(loss, metric, x, y, model=classifier, compile=None, **fit):
    """The history of two epochs, then what evaluate and train_on_batch return.

    In batches of one size, as compilers start again for every other.
    """
    model = model()
    model.compile("rmsprop", loss, metrics=[metric], weighted_metrics=[], **(compile or {}))
    history = model.fit(x, y, epochs=2, batch_size=16, shuffle=False, verbose=0, **fit).history
    values = [value for name in sorted(history) for value in history[name]]
    values += np.ravel(model.evaluate(x, y, batch_size=16, verbose=0)).tolist()
    return [*values, *np.ravel(model.train_on_batch(x[:16], y[:16])).tolist()]


# How Keras's own is compiled: see `reference`.
PLAIN = dict(jit_compile=BACKEND == "jax")


def both(*data, rtol=1e-5, compile=None, **options):
    """Ours compiled in one mode or the other, Keras's own in its backend's plainest."""
    ours = train(KLDivergence(), KLDivergenceMetric(), *data, compile=compile, **options)
    theirs = train(KERAS_LOSS(), KERAS_METRIC(), *data, compile=PLAIN, **options)
    assert np.isfinite(theirs).all()
    np.testing.assert_allclose(ours, theirs, rtol=rtol)


# Dynamo traces Keras's own code, for a minute; what it makes of one layer and one batch, the next test sees. XLA, in
# TensorFlow, has test_tensorflow.py's fits.
through_dynamo = pytest.mark.long if BACKEND in ("torch", "tensorflow") else ()
MODES = [
    dict(run_eagerly=True),
    pytest.param(dict(jit_compile=False), marks=pytest.mark.long if BACKEND != "torch" else ()),
    pytest.param(dict(jit_compile=True), marks=through_dynamo),
    pytest.param(dict(jit_compile="auto"), marks=pytest.mark.long),
]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_training(rng, counted, mode):
    both(*data(rng), compile=mode, validation_split=1 / 3)
    assert counted


@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch's own")
def test_a_step_through_dynamo(rng, counted):
    x, y = data(rng, size=16)

    def step(loss, metric, jit_compile):
        keras.utils.set_random_seed(1)
        softmax = keras.layers.Dense(CLASSES, activation="softmax")
        model = keras.Sequential([keras.Input((FEATURES,)), softmax])
        model.compile("sgd", loss, metrics=[metric], jit_compile=jit_compile)
        values = model.train_on_batch(x, y)
        return [*values, *model.get_weights()[0].ravel()]

    ours = step(KLDivergence(), KLDivergenceMetric(), True)
    assert counted
    np.testing.assert_allclose(ours, step(KERAS_LOSS(), KERAS_METRIC(), False), rtol=1e-5)


def test_sample_weight(rng):
    x, y = data(rng)
    both(x, y, sample_weight=rng.random(len(x)).astype(np.float32))


@pytest.mark.long  # which Keras makes sample weights of
def test_class_weight(rng):
    x, _ = data(rng)
    one_hot = np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, len(x))]
    both(x, one_hot, class_weight={i: 0.5 + i for i in range(CLASSES)})


@pytest.mark.long
def test_heads_of_other_losses(rng, tmp_path):
    """Trained as with Keras's losses, weights included, and loaded from a file as they were."""
    x, y = data(rng)
    labels = rng.integers(0, CLASSES, (len(x), 1))
    targets, weights = [y, y, labels], [rng.random(len(x)).astype(np.float32) for _ in range(3)]

    def fitted(losses, metrics):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((FEATURES,))
        model = keras.Model(inputs, [keras.layers.Dense(CLASSES)(inputs) for _ in range(3)])
        model.compile("sgd", losses, weighted_metrics=metrics, **PLAIN)
        model.fit(x, targets, sample_weight=weights, batch_size=16, shuffle=False, verbose=0)
        return model

    ours = fitted(
        [KLDivergence(from_logits=True), JensenShannon(0.3, True), SparseKLDivergence(True, 2)],
        [
            [KLDivergenceMetric(from_logits=True)],
            [JensenShannonMetric(from_logits=True)],
            [SparseKLDivergenceMetric(from_logits=True, ignore_class=2)],
        ],
    )
    theirs = fitted(
        [
            keras.losses.CategoricalCrossentropy(from_logits=True),
            JensenShannon(0.3, form=("probs", "logits")),
            keras.losses.SparseCategoricalCrossentropy(True, 2),
        ],
        None,
    )
    for mine, reference in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-5, atol=1e-6)
    if OTHER_BACKEND:  # what is saved is the same
        return
    ours.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    values = [model.evaluate(x, targets, verbose=0, batch_size=16) for model in (ours, again)]
    assert len(values[0]) == 7 and np.isfinite(values[0]).all()
    np.testing.assert_allclose(*values, rtol=1e-6)


def test_masking_layers(rng):
    words = rng.integers(0, 4, (32, 7))  # 0 is padding

    def model():
        keras.utils.set_random_seed(1)
        layers = [keras.Input((7,)), keras.layers.Embedding(4, 3, mask_zero=True)]
        return keras.Sequential([*layers, keras.layers.Dense(CLASSES, activation="softmax")])

    both(words, distributions(rng, (32, 7, CLASSES)), model=model)


@pytest.mark.parametrize(
    "policy", ["mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.long)]
)
def test_mixed_precision(rng, policy):
    both(*data(rng), model=lambda: classifier(policy), rtol=2e-2)


def test_several_outputs(rng):
    x, y = data(rng)

    def model():
        keras.utils.set_random_seed(1)
        inputs = keras.Input((FEATURES,))
        heads = [
            keras.layers.Dense(CLASSES, activation="softmax", name=name)(inputs) for name in "ab"
        ]
        return keras.Model(inputs, heads)

    def run(loss, metric):
        heads = model()
        heads.compile("sgd", [loss, loss], metrics=[[metric()], [metric()]], loss_weights=[1, 0.3])
        history = heads.fit(x, [y, y[::-1]], epochs=2, verbose=0, shuffle=False).history
        return [history[name] for name in sorted(history)]

    np.testing.assert_allclose(
        run(KLDivergence(), KLDivergenceMetric), run(KERAS_LOSS(), KERAS_METRIC), rtol=1e-5
    )


def test_symbolic_tensors_build_keras_own_graph(rng, counted):
    """What a functional graph holds are Keras's ops; the loss object refuses symbols, as Keras's does."""
    inputs = [keras.Input((CLASSES,)), keras.Input((CLASSES,))]
    model = keras.Model(inputs, kl_divergence(*inputs))
    assert not counted
    y_true, y_pred = distributions(rng, (4, CLASSES)), distributions(rng, (4, CLASSES))
    expected = numpy(KERAS_FUNCTION(y_true, y_pred))
    np.testing.assert_allclose(model.predict([y_true, y_pred], verbose=0), expected, rtol=1e-5)
    with pytest.raises(Exception) as theirs:
        KERAS_LOSS()(*inputs)
    with pytest.raises(theirs.type):
        KLDivergence()(*inputs)


# ---- TensorFlow's own ----


@only_tensorflow
@pytest.mark.parametrize(
    "options", [None, {}, dict(jit_compile=True)], ids=["eager", "graph", "XLA"]
)
def test_gradient_tape(rng, options):
    import tensorflow as tf

    x, y = data(rng)

    def weights_after(loss):
        model = classifier()
        optimizer = keras.optimizers.SGD(0.1)
        optimizer.build(model.trainable_variables)

        def step():
            with tf.GradientTape() as tape:
                value = loss(y, model(x, training=True))
            variables = model.trainable_variables
            optimizer.apply(tape.gradient(value, variables), variables)

        step = step if options is None else tf.function(step, **options)
        for _ in range(3):
            step()
        return np.concatenate([w.ravel() for w in model.get_weights()])

    np.testing.assert_allclose(
        weights_after(KLDivergence()), weights_after(KERAS_LOSS()), rtol=1e-5, atol=1e-6
    )


@only_tensorflow
def test_shapes_known_only_when_the_graph_runs(rng):
    import tensorflow as tf

    function = tf.function(
        kl_divergence, input_signature=[tf.TensorSpec((None, None)), tf.TensorSpec((None, 5))]
    )
    y_true, y_pred = pair(rng, (4, 5))
    agree(function(y_true, y_pred), KERAS_FUNCTION(y_true, y_pred))
    with pytest.raises(tf.errors.InvalidArgumentError):
        function(y_true[:3], y_pred)


# ---- the names that Keras knows ----

# What is looked up is the same in every mode; JAX's quickest is the one whose operations other tests had compiled.
UNCOMPILED = dict(run_eagerly=True) if BACKEND == "jax" else {}
LOSS_NAMES = ["KLDivergence", "kl_divergence", "kld", "KLD"]
METRIC_NAMES = ["KLDivergence", "kl_divergence"]


def own_names():
    """Everything that stands under any name where Keras looks names up."""
    paths = [*adapter._NAMESPACES, *adapter._SAVED_NAMES]
    return {path: dict(adapter._namespace(path)) for path in paths}


def test_patch_and_unpatch():
    import importlib

    before = own_names()
    patch_keras()
    try:
        once = own_names()
        patch_keras()
        assert own_names() == once
        assert keras.losses.KLDivergence is KLDivergence
        assert keras.metrics.KLDivergence is KLDivergenceMetric
        assert keras.losses.kl_divergence is keras.metrics.kl_divergence is kl_divergence
        tf_keras = importlib.import_module("keras._tf_keras.keras")
        assert tf_keras.losses.KLDivergence is KLDivergence
        assert tf_keras.metrics.kullback_leibler_divergence is tf_keras.losses.KLD is kl_divergence
        for names in once.values():
            assert not any(adapter._is_kerass_own(x) for x in names.values())
    finally:
        unpatch_keras()
    after = own_names()
    assert after == before
    assert all(list(after[path]) == list(before[path]) for path in before)
    unpatch_keras()
    assert own_names() == before
    assert keras.losses.KLDivergence is KERAS_LOSS


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_patched_loss_names(patched, rng, counted, name):
    loss = keras.losses.get(name)
    assert isinstance(loss, KLDivergence) or loss is kl_divergence
    model = classifier()
    model.compile("sgd", name, **UNCOMPILED)
    model.fit(*data(rng), verbose=0)
    assert counted


@pytest.mark.parametrize("name", METRIC_NAMES)
def test_patched_metric_names(patched, rng, counted, name):
    assert isinstance(keras.metrics.get(name), KLDivergenceMetric)
    model = classifier()
    model.compile("sgd", "mse", metrics=[name], **UNCOMPILED)
    assert name in model.fit(*data(rng), verbose=0).history
    assert counted


def test_patched_configurations(patched):
    identifier = {"class_name": "KLDivergence", "config": {"reduction": "sum"}}
    loss = keras.losses.get(identifier)
    assert (type(loss), loss.reduction) == (KLDivergence, "sum")
    assert keras.losses.deserialize("kl_divergence") is kl_divergence


@pytest.mark.parametrize("path", adapter._NAMESPACES)
def test_a_keras_that_has_moved_is_not_half_patched(monkeypatch, path):
    namespace = adapter._namespace(path)
    monkeypatch.delitem(namespace, adapter._NAMESPACES[path][-1])
    before = own_names()
    with pytest.raises(RuntimeError, match=f"has no kl_divergence where.*{path.split(':')[0]}"):
        patch_keras()
    assert own_names() == before


def test_a_keras_without_its_dictionaries_is_not_half_patched(monkeypatch):
    before = own_names()
    monkeypatch.delattr("keras.src.api_export.REGISTERED_OBJS_TO_NAMES")
    with pytest.raises(RuntimeError, match="REGISTERED_OBJS_TO_NAMES"):
        patch_keras()
    monkeypatch.undo()
    assert own_names() == before


def test_a_keras_whose_classes_keep_their_function_elsewhere(monkeypatch):
    monkeypatch.setattr(adapter, "_KERAS_FUNCTION", None)
    with pytest.raises(RuntimeError, match=r"expects it: KLDivergence\.fn"):
        KLDivergence()
    with pytest.raises(RuntimeError, match=r"expects it: KLDivergence\._fn"):
        KLDivergenceMetric()


LOAD = """
import sys
import keras
def load():
    model = keras.saving.load_model({path!r})
    objects = [*model.loss[:2], *model._compile_metrics._user_metrics[0]]
    print(*sorted({{getattr(x, "__module__", None) or type(x).__module__ for x in objects}}))
load()
print("kldiv_fast" in sys.modules)
from kldiv_fast.keras import patch_keras
patch_keras()
load()
"""


@once
@pytest.mark.long
def test_a_model_saved_while_patched_loads_without_kldiv_fast(rng, tmp_path):
    path = str(tmp_path / "model.keras")
    patch_keras()
    try:
        inputs = keras.Input((FEATURES,))
        heads = [keras.layers.Dense(CLASSES, activation="softmax")(inputs) for _ in range(3)]
        model = keras.Model(inputs, heads)
        losses = [keras.losses.KLDivergence(), keras.losses.kl_divergence, "kld"]
        model.compile("sgd", losses, metrics=[[keras.metrics.KLDivergence()], [], []])
        x, y = data(rng)
        model.fit(x, [y] * 3, verbose=0)
        model.save(path)
    finally:
        unpatch_keras()
    plain, imported, patched = printed(LOAD.format(path=path)).splitlines()
    assert plain == "keras.src.losses.losses keras.src.metrics.probabilistic_metrics"
    assert imported == "False"
    assert patched == "kldiv_fast.keras"


# ---- bad input ----

X = np.full((2, 3), 1 / 3, np.float32)
BAD_INPUT = {
    "shapes": lambda loss, metric, function: function(X, X[:, :2]),
    "shapes, loss": lambda loss, metric, function: loss()(X, X[:, :2]),
    "ranks": lambda loss, metric, function: loss()(np.ones((2, 3, 4)), np.ones((2, 2))),
    "reduction": lambda loss, metric, function: loss(reduction="avg"),
    "loss argument": lambda loss, metric, function: loss(axis=1),
    "metric argument": lambda loss, metric, function: metric(axis=1),
    "dtype": lambda loss, metric, function: loss(dtype="float33"),
    "weight": lambda loss, metric, function: loss()(X, X, sample_weight=np.ones(3)),
    "metric's weight": lambda loss, metric, function: metric().update_state(X, X, np.ones(3)),
    "list beside array": lambda loss, metric, function: loss()(X.tolist(), X),
    "0-d": lambda loss, metric, function: function(np.float32(0.5), np.float32(0.3)),
    "integers": lambda loss, metric, function: function(X.astype(int), X.astype(int)),
    "complex": lambda loss, metric, function: function(X, X.astype(complex)),
    "strings": lambda loss, metric, function: function(X, X.astype(str)),
    "None": lambda loss, metric, function: function(None, X),
    "metric None": lambda loss, metric, function: metric().update_state(X, None),
    "object": lambda loss, metric, function: loss()(X, object()),
    "symbols": lambda loss, metric, function: function(
        keras.KerasTensor((None, 3)), keras.KerasTensor((None, 4))
    ),
    "no argument": lambda loss, metric, function: loss()(X),
}


@pytest.mark.parametrize("call", BAD_INPUT.values(), ids=BAD_INPUT)
def test_errors_are_keras_own(call):
    """The same type of error, or where the backend finds nothing wrong, the same value."""
    try:
        expected = call(KERAS_LOSS, KERAS_METRIC, KERAS_FUNCTION)
    except Exception as error:  # noqa: BLE001
        with pytest.raises(Exception) as ours:
            call(KLDivergence, KLDivergenceMetric, kl_divergence)
        assert ours.type is type(error)
    else:
        agree(call(KLDivergence, KLDivergenceMetric, kl_divergence), expected)


@once
def test_a_missing_keras_is_told():
    done = run_python("import sys; sys.modules['keras'] = None; import kldiv_fast.keras")
    assert done.returncode != 0
    assert "kldiv_fast.keras needs Keras 3: pip install 'kldiv_fast[keras]'" in done.stderr


@once
@pytest.mark.beside(run_python, "import kldiv_fast.keras", KERAS_BACKEND="numpy")
def test_another_backend_is_told(beside):
    done = beside.result()
    assert done.returncode != 0
    assert (
        "Keras's backend is 'numpy'; kldiv_fast.keras works with: tensorflow, jax, torch"
        in done.stderr
    )


def test_the_examples_in_the_docstrings():
    result = doctest.testmod(adapter)
    assert result.failed == 0
    assert result.attempted >= 22  # torch.compile leaves pieces of kl_divergence beside it


# ---- the other backends ----


def run_on(backend, *options):
    """These tests again, and the example of training, which the process's import of Keras serves too."""
    training = Path(__file__).with_name("test_reuters.py::test_both_losses_give_one_curve")
    environment = {"KERAS_BACKEND": backend, "KLDIV_FAST_OTHER_BACKEND": "1"}
    # Threads that wait at work would keep the processes beside them from theirs.
    environment["OMP_WAIT_POLICY"] = "passive"
    # JAX takes longer over the example than over all tests.
    files = [__file__] if backend == "jax" and "--long" not in options else [__file__, training]
    if "--long" not in options:
        # XLA's take longer than what they make faster.
        environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    return subprocess.run(
        [
            *[sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options],
            *files,
        ],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def on_other_backends(*options):
    names = [] if OTHER_BACKEND else sorted({"tensorflow", "torch", "jax"} - {BACKEND})
    cases = [pytest.param(x, marks=pytest.mark.beside(run_on, x, *options)) for x in names]
    return pytest.mark.parametrize("backend", cases)


@on_other_backends()
def test_on_backend(beside, backend):
    pytest.importorskip(backend)
    done = beside.result()
    assert done.returncode == 0, done.stdout[-20000:]
    print(done.stdout.splitlines()[-1])


@pytest.mark.long
@on_other_backends("--long")
def test_on_backend_at_length(beside, backend):
    test_on_backend(beside, backend)
