"""The Cython face, from outside the tree: the example project is built against the installed package, and run."""

import ctypes
import importlib
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import kldiv_fast
import numpy as np
import pytest
import scipy.special
from kldiv_fast.cython_api import __pyx_capi__
from oracle import distributions
from test_docs import check_doctest, fences

EXAMPLE = Path(__file__).parents[1] / "examples" / "cython_rows"
DECLARATIONS = Path(kldiv_fast.__file__).parent / "cython_api.pxd"
POINTERS = {
    np.float32: ctypes.POINTER(ctypes.c_float),
    np.float64: ctypes.POINTER(ctypes.c_double),
    np.int64: ctypes.POINTER(ctypes.c_int64),
}
C_TYPES = {
    "int": ctypes.c_int,
    "double": ctypes.c_double,
    "Py_ssize_t": ctypes.c_ssize_t,
    "float *": POINTERS[np.float32],
    "float const *": POINTERS[np.float32],
    "double *": POINTERS[np.float64],
    "double const *": POINTERS[np.float64],
    "int64_t const *": POINTERS[np.int64],
}
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
OK, INVALID = 0, 3


def c_type(name):
    """The C type that Cython will look for, e.g. "int (float const *, double)"."""
    read = ctypes.pythonapi.PyCapsule_GetName
    read.restype, read.argtypes = ctypes.c_char_p, [ctypes.py_object]
    return read(__pyx_capi__[name]).decode()


def function(name):
    """The function behind a capsule, with the arguments that the capsule names."""
    read = ctypes.pythonapi.PyCapsule_GetPointer
    read.restype, read.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    types = re.fullmatch(r"int \((.*)\)", c_type(name))[1].split(", ")
    prototype = ctypes.CFUNCTYPE(ctypes.c_int, *(C_TYPES[t] for t in types))
    return prototype(read(__pyx_capi__[name], c_type(name).encode()))


def pointer(array):
    return array.ctypes.data_as(POINTERS[array.dtype.type])


def test_declarations_are_installed():
    """What the .pxd declares is what the module offers, type by type."""
    text = re.sub(r"#.*", "", DECLARATIONS.read_text())
    found = re.findall(r"cdef int (\w+)\((.*?)\) noexcept nogil", text, re.DOTALL)
    assert {name for name, _ in found} == set(__pyx_capi__)
    for name, arguments in found:
        words = [re.sub(r"\w+$", "", a.strip()).strip() for a in arguments.split(",") if a.strip()]
        spelled = [re.sub(r"^const (\w+)", r"\1 const", word) for word in words]
        assert c_type(name) == f"int ({', '.join(spelled)})", name


@DTYPES
@pytest.mark.parametrize("classes", [1, 10, 1000, 20_011])
def test_values_are_those_of_kl(isa, rng, dtype, classes):
    t, p = (distributions(rng, (7, classes)).astype(dtype) for _ in range(2))
    value = np.empty(1, dtype)
    row = function(f"kl_row_{np.dtype(dtype)}")
    assert row(pointer(t[3]), pointer(p[3]), classes, 1e-7, 0, pointer(value)) == OK
    assert value[0] == kldiv_fast.kl(t[3], p[3])

    out = np.empty(7, dtype)
    rows = function(f"kl_rows_{np.dtype(dtype)}")
    assert rows(pointer(t), pointer(p), 7, classes, 1e-7, 0, pointer(out)) == OK
    np.testing.assert_array_equal(out, kldiv_fast.kl(t, p, reduction="none"))


def clipped_gradients(t, p):
    """Of each row, with respect to t and to p, in float64."""
    low, high = np.clip(t.astype(np.float64), 1e-7, 1), np.clip(p.astype(np.float64), 1e-7, 1)
    return np.where(t >= 1e-7, np.log(low / high) + 1, 0), np.where(p >= 1e-7, -low / high, 0)


@DTYPES
def test_gradients(isa, rng, dtype):
    t, p = (distributions(rng, (7, 10)).astype(dtype) for _ in range(2))
    t[2, 4] = p[3, 5] = 0
    upstream = rng.random(7).astype(dtype)
    out, grad_t, grad_p = np.empty(7, dtype), np.empty_like(t), np.empty_like(t)
    call = function(f"kl_rows_grad_{np.dtype(dtype)}")
    inputs = pointer(t), pointer(p), 7, 10, 1e-7, 0
    outputs = pointer(out), pointer(grad_t), pointer(grad_p)
    assert call(*inputs, pointer(upstream), *outputs) == OK
    expected_t, expected_p = (upstream[:, np.newaxis] * g for g in clipped_gradients(t, p))
    rtol = 1e-6 if dtype is np.float32 else 1e-13
    np.testing.assert_allclose(grad_t, expected_t, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(grad_p, expected_p, rtol=rtol)
    np.testing.assert_array_equal(out, kldiv_fast.kl(t, p, reduction="none"))

    alone = np.empty_like(t)
    assert call(*inputs, pointer(upstream), None, None, pointer(alone)) == OK
    np.testing.assert_array_equal(alone, grad_p)


# Names of functions, the form that they are for, and its parameter's value; y_true is of that form, or labels.
FORMS = pytest.mark.parametrize(
    ("name", "form", "parameter"),
    [
        ("logits", "logits", 1.0),
        ("logits", "logits", 2.5),
        ("labels", "probs", 1e-7),
        ("labels", "probs", 0.01),
        ("labels_logits", "logits", 1.0),
        ("labels_logits", "logits", 2.5),
    ],
)
PARAMETERS = {"probs": "epsilon", "logits": "temperature"}


def inputs_of(rng, name, form, shape, dtype):
    """y_true and y_pred, as the functions take them and as kldiv_fast.kl does."""
    true, pred = (
        distributions(rng, shape, dtype) if form == "probs" else 3 * rng.standard_normal(shape)
        for _ in range(2)
    )
    if name.startswith("labels"):
        true = rng.integers(0, shape[1], shape[0])
        true[0], true[-1] = 0, shape[1] - 1
    else:
        true = true.astype(dtype)
    return true, pred.astype(dtype)


def keywords_of(name, form, parameter):
    forms = ("labels", form) if name.startswith("labels") else form
    return {"form": forms, PARAMETERS[form]: parameter}


@DTYPES
@FORMS
@pytest.mark.parametrize("classes", [1, 10, 1000, 20_011])
def test_other_forms_are_those_of_kl(isa, rng, dtype, name, form, parameter, classes):
    t, p = inputs_of(rng, name, form, (7, classes), dtype)
    expected = kldiv_fast.kl(t, p, reduction="none", **keywords_of(name, form, parameter))
    value = np.empty(1, dtype)
    row = function(f"kl_{name}_row_{np.dtype(dtype)}")
    for i in (0, 3, 6):
        given = int(t[i]) if t.ndim == 1 else pointer(t[i])
        assert row(given, pointer(p[i]), classes, parameter, 0, pointer(value)) == OK
        assert value[0] == expected[i]

    out = np.empty(7, dtype)
    rows = function(f"kl_{name}_rows_{np.dtype(dtype)}")
    assert rows(pointer(t), pointer(p), 7, classes, parameter, 0, pointer(out)) == OK
    np.testing.assert_array_equal(out, expected)


@DTYPES
@FORMS
def test_gradients_of_other_forms(isa, rng, dtype, name, form, parameter):
    t, p = inputs_of(rng, name, form, (7, 10), dtype)
    upstream = rng.random(7).astype(dtype)
    wrt = ("y_pred",) if name.startswith("labels") else ("y_true", "y_pred")
    keywords = keywords_of(name, form, parameter) | {"reduction": "none"}
    values, expected = kldiv_fast.kl_value_and_grad(t, p, wrt=wrt, upstream=upstream, **keywords)
    out, gradients = np.empty(7, dtype), [np.empty((7, 10), dtype) for _ in wrt]
    call = function(f"kl_{name}_rows_grad_{np.dtype(dtype)}")
    inputs = pointer(t), pointer(p), 7, 10, parameter, 0
    outputs = [pointer(x) for x in gradients]
    assert call(*inputs, pointer(upstream), pointer(out), *outputs) == OK
    np.testing.assert_array_equal(out, values)
    np.testing.assert_array_equal(gradients, expected)

    alone = np.empty((7, 10), dtype)
    nothing = [None] * len(wrt)
    assert call(*inputs, pointer(upstream), *nothing, pointer(alone)) == OK
    np.testing.assert_array_equal(alone, gradients[-1])


@pytest.mark.parametrize("name", ["labels", "labels_logits"])
@pytest.mark.parametrize("label", [-1, 3, 2**32, np.iinfo(np.int64).max, np.iinfo(np.int64).min])
def test_labels_out_of_range(name, label):
    labels, x = np.array([0, 2, label]), np.full((3, 3), 0.5)
    out = np.full(10, 7.0)
    inputs = pointer(labels), pointer(x), 3, 3, 0.5, 0
    assert function(f"kl_{name}_rows_float64")(*inputs, pointer(out)) == INVALID
    grad = function(f"kl_{name}_rows_grad_float64")
    assert grad(*inputs, None, None, pointer(out)) == INVALID
    assert function(f"kl_{name}_row_float64")(label, pointer(x), 3, 0.5, 0, pointer(out)) == INVALID
    assert (out == 7).all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.inf, np.nan])
def test_temperatures_out_of_range(temperature):
    labels, x, out = np.zeros(3, np.int64), np.full((3, 3), 0.5), np.full(3, 7.0)
    call = function("kl_logits_rows_float64")
    assert call(pointer(x), pointer(x), 3, 3, temperature, 0, pointer(out)) == INVALID
    call = function("kl_labels_logits_rows_float64")
    assert call(pointer(labels), pointer(x), 3, 3, temperature, 0, pointer(out)) == INVALID
    assert (out == 7).all()


@pytest.mark.parametrize(
    ("rows", "classes", "epsilon"),
    [(-1, 3, 0.1), (3, -1, 0.1), (2**40, 2**40, 0.1), (1, 3, 1.0), (1, 3, -0.1), (1, 3, np.nan)],
)
def test_arguments_out_of_range(rows, classes, epsilon):
    x = np.full((3, 3), 0.5)
    out = np.full(3, 7.0)
    call = function("kl_rows_float64")
    assert call(pointer(x), pointer(x), rows, classes, epsilon, 0, pointer(out)) == INVALID
    assert (out == 7).all()


def test_no_rows_and_no_classes():
    out = np.full(3, 7.0)
    call = function("kl_rows_float64")
    assert call(pointer(out), pointer(out), 0, 3, 0.1, 0, pointer(out)) == OK
    assert (out == 7).all()
    assert call(None, None, 3, 0, 0.1, 0, pointer(out)) == OK
    assert (out == 0).all()


def test_no_class_has_no_label():
    labels, out = np.zeros(3, np.int64), np.full(3, 7.0)
    call = function("kl_labels_rows_float64")
    assert call(None, None, 0, 3, 0.1, 0, None) == OK
    assert call(pointer(labels), None, 3, 0, 0.1, 0, pointer(out)) == INVALID
    assert (out == 7).all()


@pytest.fixture(scope="session")
def example(tmp_path_factory):
    """The example project, copied out of the tree, built and imported."""
    pytest.importorskip("Cython")
    pytest.importorskip("scikit_build_core")
    pytest.importorskip("cmake")
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if sys.platform != "win32" and shutil.which(compiler) is None:
        pytest.skip(f"needs a C compiler: no {compiler}")
    folder = tmp_path_factory.mktemp("cython_rows")
    project = shutil.copytree(EXAMPLE, folder / "project")
    files = set(project.rglob("*"))
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*pip, "--target", folder / "site", folder / "project"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(project.rglob("*")) == files  # nothing is left beside the sources
    sys.path.insert(0, str(folder / "site"))
    yield importlib.import_module("cython_rows")
    sys.path.remove(str(folder / "site"))


def test_example_of_its_page(example):
    for language, content, line in fences((EXAMPLE / "README.md").read_text(encoding="utf-8")):
        if language == "pycon":
            check_doctest(content, {}, "cython_rows/README.md", line)


def test_example_finds_the_nearest(isa, rng, example):
    queries, references = distributions(rng, (5, 10)), distributions(rng, (20, 10))
    queries, references = queries.astype(np.float64), references.astype(np.float64)
    index, least = example.nearest(queries, references)
    every = kldiv_fast.kl(references[np.newaxis], queries[:, np.newaxis], reduction="none")
    np.testing.assert_array_equal(index, every.argmin(axis=1))
    np.testing.assert_allclose(least, every.min(axis=1), rtol=1e-14)


def test_example_writes_rows_and_gradients(rng, example):
    t, p = distributions(rng, (300, 400)), distributions(rng, (300, 400))
    expected = kldiv_fast.kl(t, p, reduction="none")
    np.testing.assert_array_equal(example.divergences(t, p), expected)
    t, p = t.astype(np.float64), p.astype(np.float64)
    values, gradients = example.values_and_gradients(t, p)
    np.testing.assert_array_equal(values, kldiv_fast.kl(t, p, reduction="none"))
    np.testing.assert_allclose(gradients, clipped_gradients(t, p)[1], rtol=1e-13)


def test_example_writes_cross_entropies(rng, example):
    labels = rng.integers(0, 40, 300)
    logits = 3 * rng.standard_normal((300, 40)).astype(np.float32)
    values, gradients = example.cross_entropies(labels, logits)
    log_p = scipy.special.log_softmax(logits.astype(np.float64), axis=-1)
    np.testing.assert_allclose(values, -log_p[range(300), labels], rtol=1e-6)
    np.testing.assert_allclose(gradients, np.exp(log_p) - np.eye(40)[labels], atol=1e-6)
    labels[7] = 40
    with pytest.raises(ValueError, match=r"labels must be in \[0, 40\)"):
        example.cross_entropies(labels, logits)
