"""What people have in other libraries' hands is read, or refused with an advice that works: each advice is taken from its
message and run."""

import array
import collections
import decimal
import fractions
import itertools
import sys

import kldiv_fast
import numpy as np
import pytest
from oracle import distributions
from processes import run_python

T = np.array([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75]])  # exact in every dtype that is used here
P = np.array([[0.25, 0.5, 0.25], [0.5, 0.25, 0.25]])
CLASSES = ["a", "b", "c"]


def library(name):
    return pytest.importorskip(name)


@pytest.fixture
def pair(rng):
    return distributions(rng, (8, 10)), distributions(rng, (8, 10))


# ---- what is read ----


def pandas_frame(dtypes):
    frame = library("pandas").DataFrame(T, columns=CLASSES)
    if "pyarrow" in str(dtypes):
        library("pyarrow")
    return frame.astype(dtypes)


def polars_frame():
    return library("polars").DataFrame(dict(zip(CLASSES, T.T, strict=True)))


def arrow_table():
    return library("pyarrow").table(dict(zip(CLASSES, T.T, strict=True)))


def polars_arrays():
    pl = library("polars")
    return pl.Series(T.tolist(), dtype=pl.Array(pl.Float64, 3))


def xarray_array(**keywords):
    return library("xarray").DataArray(T, dims=("row", "class"), **keywords)


def torch_tensor(dtype="float64"):
    torch = library("torch")
    return torch.tensor(T, dtype=getattr(torch, dtype))


READ = {
    "pandas": lambda: pandas_frame("float64"),
    "pandas float32": lambda: pandas_frame("float32"),
    "pandas Float64": lambda: pandas_frame("Float64"),
    "pandas Float32": lambda: pandas_frame("Float32"),
    "pandas pyarrow": lambda: pandas_frame("float64[pyarrow]"),
    "pandas pyarrow float32": lambda: pandas_frame("float32[pyarrow]"),
    "pandas mixed": lambda: pandas_frame({"a": "Float64", "b": "float32", "c": "float64[pyarrow]"}),
    "pandas category": lambda: pandas_frame("category"),
    "pandas sparse": lambda: pandas_frame("Sparse[float64]"),
    "polars": polars_frame,
    "polars float32": lambda: polars_frame().cast(library("polars").Float32),
    "polars arrays": polars_arrays,
    "pyarrow": arrow_table,
    "pyarrow batch": lambda: arrow_table().to_batches()[0],
    "xarray": xarray_array,
    "xarray labelled": lambda: xarray_array(coords={"class": CLASSES}),
    "torch bfloat16": lambda: torch_tensor("bfloat16"),
    "torch bfloat16 columns": lambda: torch_tensor("bfloat16").T.contiguous().T,
    "torch float16": lambda: torch_tensor("float16"),
    "tensorflow": lambda: library("tensorflow").constant(T),
    "tensorflow variable": lambda: library("tensorflow").Variable(T),
    "tensorflow bfloat16": lambda: library("tensorflow").constant(T, "bfloat16"),
    "jax": lambda: library("jax.numpy").asarray(T),
    "jax bfloat16": lambda: library("jax.numpy").asarray(T, "bfloat16"),
    "rows of arrays": lambda: list(T),
    "rows of tensors": lambda: list(torch_tensor()),
    "deque": lambda: collections.deque(T.tolist()),
}


@pytest.mark.parametrize("make", READ.values(), ids=READ)
def test_read(make):
    x = make()
    ours = kldiv_fast.kl(x, P.astype(np.float32), reduction="none")
    np.testing.assert_allclose(ours, kldiv_fast.kl(T, P, reduction="none"), rtol=2e-7)
    assert kldiv_fast.kl_value_and_grad(P, x)[1].shape == T.shape


def test_dtypes_of_tables():
    for dtype in ("float32", "Float32", "float32[pyarrow]"):
        x = pandas_frame(dtype)
        assert kldiv_fast.kl(x, x).dtype == np.float32, dtype
    for dtype in ("float64", "Float64", {"a": "Float32", "b": "float64", "c": "float32"}):
        x = pandas_frame(dtype)
        assert kldiv_fast.kl(x, x).dtype == np.float64, dtype


def test_a_table_of_nothing():
    pd = library("pandas")
    for frame in (pd.DataFrame(), pd.DataFrame({"a": []}, dtype="Float64")):
        assert kldiv_fast.kl(frame, frame) == 0


def test_jax_reads_what_kl_reads():
    library("jax")
    import kldiv_fast.jax

    for x in (torch_tensor("bfloat16"), pandas_frame("Float32"), polars_frame()):
        assert kldiv_fast.jax.kl(x, P) == pytest.approx(kldiv_fast.kl(T, P), rel=1e-6)
    with pytest.raises(
        TypeError, match=r"y_true is a sparse array; expected a dense one: y_true\.toarray"
    ):
        kldiv_fast.jax.kl(sparse("csr_array"), P)


def test_columns_of_truth_values():
    """One-hot labels, in columns of any kind."""
    pd = library("pandas")
    one_hot = pd.DataFrame({"a": [True, False], "b": pd.array([False, True], "boolean")})
    numbers = pd.DataFrame({"a": [1, 0], "b": pd.array([0, 1], "Int64")})
    y_pred = np.array([[0.5, 0.5], [0.25, 0.75]], np.float32)
    expected = kldiv_fast.kl(np.eye(2), y_pred.astype(np.float64))
    for y_true in (one_hot, numbers):
        assert kldiv_fast.kl(y_true, y_pred) == pytest.approx(expected, rel=1e-6)


def test_one_row():
    pd, pl, pa = library("pandas"), library("polars"), library("pyarrow")
    expected = kldiv_fast.kl(T[0], P[0])
    for y_true in (
        pd.Series(T[0]), pd.Series(T[0], dtype="Float64"), pd.Index(T[0]), pd.array(T[0], "Float64"),
        pl.Series(T[0]), pa.array(T[0]), pa.chunked_array([T[0, :1], T[0, 1:]]), array.array("d", T[0]),
    ):  # fmt: skip
        assert kldiv_fast.kl(y_true, P[0]) == expected, type(y_true)


def test_weights_and_masks_of_tables():
    pd = library("pandas")
    weight, mask = pd.Series([1.0, 3.0], dtype="Float64"), pd.Series([True, False], dtype="boolean")
    ours = kldiv_fast.kl(T, P, sample_weight=weight, mask=mask)
    assert ours == kldiv_fast.kl(T, P, sample_weight=[1.0, 3.0], mask=[True, False])
    mask[1] = pd.NA
    with pytest.raises(ValueError, match="mask has a missing value in row 1"):
        kldiv_fast.kl(T, P, mask=mask)


def test_tensors_are_read_in_place(pair):
    torch = library("torch")
    for dtype in (torch.float32, torch.bfloat16):
        tensor = torch.from_numpy(pair[0]).to(dtype)
        read = kldiv_fast._arrays.as_array(tensor, "y_true")
        assert read.ctypes.data == tensor.data_ptr()
        assert read.strides == tuple(s * tensor.element_size() for s in tensor.stride())


def test_bfloat16_without_ml_dtypes(pair, monkeypatch):
    """The same bits as ml_dtypes's arrays of the same numbers, and its rounding of a list."""
    torch, ml_dtypes = library("torch"), library("ml_dtypes")
    arrays = [x.astype(ml_dtypes.bfloat16) for x in pair]
    tensors = [torch.from_numpy(x).to(torch.bfloat16) for x in pair]
    values = [0.1, 1 / 3, 1.0039062, 1e-40, 0.0, -0.0, np.inf, np.nan, 3.4e38, 1 - 2**-9]
    weights = [torch.tensor(np.arange(8)).to(torch.bfloat16), np.arange(8.0)]
    expected = [
        kldiv_fast.kl(*arrays, reduction="none"),
        kldiv_fast.kl(arrays[0].T, arrays[1].T, axis=0, reduction="none"),
        kldiv_fast.kl_value_and_grad(*arrays)[1],
        kldiv_fast.kl(pair[0].tolist(), arrays[1]),
        kldiv_fast.kl(*arrays, sample_weight=weights[1]),
        np.array(values, ml_dtypes.bfloat16).astype(np.float32),
    ]
    for name in [n for n in sys.modules if n.split(".")[0] == "ml_dtypes"]:
        monkeypatch.setitem(sys.modules, name, None)
    cast = kldiv_fast._arrays.cast
    ours = [
        kldiv_fast.kl(*tensors, reduction="none"),
        kldiv_fast.kl(tensors[0].T, tensors[1].T, axis=0, reduction="none"),
        kldiv_fast.kl_value_and_grad(*tensors)[1],
        kldiv_fast.kl(pair[0].tolist(), tensors[1]),
        kldiv_fast.kl(*tensors, sample_weight=weights[0]),
        cast(cast(np.array(values), kldiv_fast._arrays.BFLOAT16), np.float32),
    ]
    for mine, theirs in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


class OnlyDlpack:
    def __init__(self, array, device=1):
        self.array, self.device = array, device

    def __dlpack__(self, **keywords):
        return self.array.__dlpack__(**keywords)

    def __dlpack_device__(self):
        return self.device, 0


class OnlyArray:
    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


class OnDevice(OnlyDlpack, OnlyArray):
    """As JAX and TensorFlow have it: NumPy gets a copy."""


class WithGet(OnlyDlpack):
    """As CuPy has it."""

    def get(self):
        return self.array


def test_protocols(pair):
    assert kldiv_fast.kl(OnlyDlpack(pair[0]), OnlyArray(pair[1])) == kldiv_fast.kl(*pair)


# ---- missing values ----


def with_missing(table):
    if table == "pandas":
        return pandas_frame("Float64").mask(T == 0.75)
    if table == "pandas mixed":
        return pandas_frame({"b": "Float64", "c": "float64[pyarrow]"}).mask(T == 0.75)
    if table == "pandas rows":
        return pandas_frame("Float64").mask(T == 0.75).set_axis(["x", "y"])
    columns = {
        name: [float(v) if v != 0.75 else None for v in T[:, i]] for i, name in enumerate("abc")
    }
    if table == "polars":
        return library("polars").DataFrame(columns)
    return library("pyarrow").table(columns)


@pytest.mark.parametrize("table", ["pandas", "pandas mixed", "pandas rows", "polars", "pyarrow"])
@pytest.mark.parametrize("argument", ["y_true", "y_pred"])
def test_a_missing_value_is_named_by_its_place(table, argument):
    x = with_missing(table)
    row = "'y'" if table == "pandas rows" else 1
    arguments = {"y_true": P, "y_pred": P} | {argument: x}
    with pytest.raises(
        ValueError, match=f"{argument} has a missing value in row {row} of column 'c'"
    ) as info:
        kldiv_fast.kl(**arguments)
    filled = np.where(T == 0.75, 0, T)
    assert kldiv_fast.kl(taken(info.value, **{argument: x}), P) == kldiv_fast.kl(filled, P)


def test_a_missing_value_of_one_row():
    pd, pl, pa = library("pandas"), library("polars"), library("pyarrow")
    for x, where in (
        (pd.Series([0.5, None], index=["a", "b"], dtype="Float64"), "row 'b'"),
        (pd.Series([0.5, None], dtype="float64[pyarrow]"), "row 1"),
        (pd.array([0.5, None], "Float64"), "row 1"),
        (pd.Index([0.5, None], dtype="Float64"), "row 1"),
        (pl.Series([0.5, None]), "row 1"),
        (pa.array([0.5, None]), "row 1"),
        (pa.chunked_array([[0.5], [None]]), "row 1"),
    ):
        with pytest.raises(ValueError, match=f"y_true has a missing value in {where};") as info:
            kldiv_fast.kl(x, [0.5, 0.5])
        assert kldiv_fast.kl(taken(info.value, y_true=x), [0.5, 0.5]) == kldiv_fast.kl(
            [0.5, 0.0], [0.5, 0.5]
        )
    for rows in ([[0.5, 0.5], [0.5, None]], [[0.5, 0.5], None]):
        x = pl.Series(rows, dtype=pl.Array(pl.Float64, 2))
        with pytest.raises(ValueError, match="y_true has a missing value in row 1;") as info:
            kldiv_fast.kl(x, P[:, :2])
        filled = [[v or 0.0 for v in row or [0.0, 0.0]] for row in rows]
        assert kldiv_fast.kl(taken(info.value, y_true=x), P[:, :2]) == kldiv_fast.kl(
            filled, P[:, :2]
        )


def test_nan_in_a_float_column_is_a_number():
    frame = pandas_frame("float64").mask(T == 0.75)
    assert np.isnan(kldiv_fast.kl(frame, P))
    assert kldiv_fast.kl(frame, P, mask=[True, False]) == kldiv_fast.kl(T[:1], P[:1])


# ---- what is refused ----


def taken(error, **names):
    """What the advice of an error gives: what stands behind the last colon that follows "expected"."""
    code = str(error).partition("; expected ")[2].partition(": ")[2]
    modules = ("numpy", "torch", "ml_dtypes", "numpy.lib.recfunctions", "tensorflow")
    known = {name.split(".")[0]: sys.modules.get(name.split(".")[0]) for name in modules}
    known |= {"np": np, "tf": known["tensorflow"], "numpy": np, "keys": range(2)}
    return eval(code, known | names)


def objects(rows):
    x = np.empty(2, object)
    x[:] = rows
    return x


def structured():
    import numpy.lib.recfunctions

    return numpy.lib.recfunctions.unstructured_to_structured(T)


def sparse(kind):
    return getattr(library("scipy.sparse"), kind)(T)


REFUSED = {
    "generator": lambda: (row for row in T),
    "map": lambda: map(list, T),
    "zip": lambda: zip(*T.T, strict=True),
    "dict": lambda: dict(enumerate(T)),
    "dict values": lambda: dict(enumerate(T)).values(),
    "objects": lambda: T.astype(object),
    "decimals": lambda: [[decimal.Decimal(v) for v in row] for row in T],
    "fractions": lambda: [[fractions.Fraction(v) for v in row] for row in T],
    "text": lambda: T.astype(str),
    "bytes": lambda: T.astype("S8"),
    "a list of text": lambda: T.astype(str).tolist(),
    "around a sparse array": lambda: np.array(sparse("csr_array")),
    "complex": lambda: T.astype(complex),
    "a list of complex": lambda: T.astype(complex).tolist(),
    "longdouble": lambda: T.astype(np.longdouble),
    "float8": lambda: T.astype(library("ml_dtypes").float8_e4m3fn),
    "void": lambda: T.astype(library("ml_dtypes").bfloat16).view("V2"),
    "structured": structured,
    "array of rows": lambda: objects(list(T)),
    "array of lists": lambda: objects(T.tolist()),
    "pandas objects": lambda: pandas_frame(object),
    "pandas lists": lambda: library("pandas").DataFrame({"p": T.tolist()}),
    "pandas lists beside": lambda: library("pandas").DataFrame({"p": T.tolist(), "id": [1, 2]}),
    "pandas series of lists": lambda: library("pandas").Series(T.tolist()),
    "pandas series of arrays": lambda: library("pandas").Series(list(T)),
    "polars lists": lambda: library("polars").DataFrame({"p": T.tolist()}),
    "polars arrays in a frame": lambda: polars_arrays().to_frame("p"),
    "polars series of lists": lambda: library("polars").Series(T.tolist()),
    "polars decimals": lambda: polars_frame().cast(library("polars").Decimal(10, 4)),
    "polars lazy": lambda: polars_frame().lazy(),
    "pyarrow lists": lambda: library("pyarrow").table({"p": T.tolist()}),
    "pyarrow array of lists": lambda: library("pyarrow").array(T.tolist()),
    "torch sparse": lambda: torch_tensor().to_sparse(),
    "torch grad": lambda: torch_tensor().requires_grad_(),
    "torch float8": lambda: torch_tensor("float8_e4m3fn"),
    "torch complex": lambda: torch_tensor("complex64"),
    "torch list of bfloat16": lambda: list(torch_tensor("bfloat16")),
    "torch nested": lambda: library("torch").nested.nested_tensor(list(torch_tensor()), layout=library("torch").jagged),
    "tensorflow ragged": lambda: library("tensorflow").RaggedTensor.from_tensor(T),
    "tensorflow sparse": lambda: library("tensorflow").sparse.from_dense(T),
    "tensorflow slices": lambda: library("tensorflow").IndexedSlices(T, [0, 1], [2, 3]),
    "jax sparse": lambda: library("jax.experimental.sparse").BCOO.fromdense(T),
    "device, with get": lambda: WithGet(T, device=2),
    "device": lambda: OnDevice(T, device=2),
}  # fmt: skip


def refusal(x):
    try:
        kldiv_fast.kl(x, P)
    except TypeError as error:
        return error


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
def test_the_advice_of_a_refusal_works(make):
    """Step by step: a list of bfloat16 tensors is stacked, what an object array stands around is taken out first."""
    x, told = make(), []
    while (error := refusal(x)) is not None:
        assert str(error).startswith("y_true is ")
        assert str(error) not in told
        told.append(str(error))
        x = taken(error, y_true=x)
    assert told
    assert kldiv_fast.kl(x, P) == pytest.approx(kldiv_fast.kl(T, P), rel=1e-6)


WITHOUT_NUMBERS = {
    "None": (lambda: None, "y_true is None; expected an array"),
    "str": (lambda: "0.5", "y_true is of type str, which NumPy can't read; expected an array"),
    "bytes": (lambda: b"0.5", "y_true is of type bytes, which NumPy can't read"),
    "words": (
        lambda: ["a", "b"],
        r"y_true is of dtype <U1, with .*'a'.* at \(0,\); expected numbers",
    ),
    "set": (lambda: {0.5, 0.25}, "y_true is a set, which has no order; expected a list"),
    "a missing number": (
        lambda: [[0.5, 0.5], [0.5, None]],
        r"y_true is of dtype object, with None at \(1, 1\)",
    ),
    "dates": (lambda: T.astype("M8[s]"), "y_true is of dtype datetime64"),
    "pandas objects": (
        lambda: library("pandas").DataFrame({"a": [0.5, "?"]}),
        r"y_true is of dtype object, with '\?' at \(1, 0\); expected numbers",
    ),
    "torch meta": (
        lambda: library("torch").empty(3, device="meta"),
        "y_true is a tensor on the device meta, which holds no values",
    ),
    "one sparse row of two": (
        lambda: [T[0], sparse("csr_array")],
        r"y_true\[1\] is a sparse array; expected a dense one: y_true\[1\]\.toarray\(\)",
    ),
    "rows from generators": (
        lambda: [(v for v in row) for row in T],
        r"y_true\[0\] is an iterable; expected an array: list\(y_true\[0\]\)",
    ),
    "anything": (object, "y_true is of type object, which NumPy can't read"),
}


@pytest.mark.parametrize(("make", "message"), WITHOUT_NUMBERS.values(), ids=WITHOUT_NUMBERS)
def test_what_holds_no_numbers(make, message):
    with pytest.raises(TypeError, match=message):
        kldiv_fast.kl(make(), P)


RAGGED = [[0.5, 0.5], [0.25, 0.5, 0.25]], [[0.25, 0.75], [0.5, 0.25, 0.25]]


@pytest.mark.parametrize("convert", [list, lambda rows: [np.array(r) for r in rows], objects])
def test_ragged_rows(convert):
    """Both ways that the message names give the same."""
    y_true, y_pred = map(convert, RAGGED)
    message = (
        "rows of one length: fill them up with zeros in y_true and y_pred, or call kl for each row"
    )
    with pytest.raises((ValueError, TypeError), match=message):
        kldiv_fast.kl(y_true, y_pred)
    filled = [np.array(list(itertools.zip_longest(*rows, fillvalue=0))).T for rows in RAGGED]
    each = [kldiv_fast.kl(t, p) for t, p in zip(*RAGGED, strict=True)]
    np.testing.assert_allclose(kldiv_fast.kl(*filled, reduction="none"), each, rtol=1e-15)


def masked_rows():
    return np.ma.array(T, mask=T == 0.75)


MASKED = {
    "rows": lambda: list(masked_rows()),
    "tuple": lambda: tuple(masked_rows()),
    "one row among plain ones": lambda: [T[0], masked_rows()[1]],
    "among lists": lambda: [T[0].tolist(), masked_rows()[1]],
    "numbers": lambda: [T[0].tolist(), list(masked_rows()[1])],
    "blocks": lambda: [[masked_rows()], [masked_rows()]],
    "blocks of rows": lambda: [[T[0], masked_rows()[1]], (T[0], masked_rows()[1])],
}


@pytest.mark.parametrize("make", MASKED.values(), ids=MASKED)
@pytest.mark.parametrize("argument", ["y_true", "y_pred", "sample_weight", "mask"])
@pytest.mark.filterwarnings("ignore:Warning. converting a masked element to nan:UserWarning")
def test_a_mask_within_a_list_is_not_lost(make, argument):
    with pytest.raises(
        TypeError, match=f"{argument} is a list that holds masked arrays.*filled"
    ) as info:
        kldiv_fast.kl(**({"y_true": P, "y_pred": P} | {argument: make()}))

    def filled(x):
        return list(map(filled, x)) if isinstance(x, (list, tuple)) else np.ma.filled(x, 0)

    assert "use filled(...) of each" in str(info.value)
    expected = np.broadcast_to(np.where(T == 0.75, 0, T), np.shape(filled(make())))
    np.testing.assert_array_equal(kldiv_fast._arrays.as_array(filled(make()), "y"), expected)


def test_a_mask_within_a_list_where_warnings_are_errors():
    with pytest.raises(TypeError, match="y_true is a list that holds masked arrays"):
        kldiv_fast.kl([0.5, np.ma.masked], [0.5, 0.5])


def test_placeholders_of_graphs():
    """They have no values; what the message names instead works on them."""
    keras, tf, jax = library("keras"), library("tensorflow"), library("jax")
    import kldiv_fast.jax
    import kldiv_fast.keras

    expected = kldiv_fast.kl(T, P, reduction="none")

    def refused(x, advice):
        with pytest.raises(
            TypeError, match=rf"y_true(\[0\])? is .* which holds no values; .*{advice}"
        ):
            kldiv_fast.kl(x, P)

    symbolic = [keras.Input((3,), dtype="float64") for _ in "tp"]
    refused(symbolic[0], "kldiv_fast.keras.kl_divergence")
    refused(symbolic, "kldiv_fast.keras.kl_divergence")
    model = keras.Model(symbolic, kldiv_fast.keras.kl_divergence(*symbolic))
    np.testing.assert_allclose(model([T, P]), expected, rtol=1e-5)

    @tf.function
    def in_graph(y_true, y_pred):
        refused(y_true, "kldiv_fast.keras.kl_divergence")
        return kldiv_fast.keras.kl_divergence(y_true, y_pred)

    np.testing.assert_allclose(in_graph(tf.constant(T), tf.constant(P)), expected, rtol=1e-12)

    @jax.jit
    def traced(y_true, y_pred):
        refused(y_true, "kldiv_fast.jax.kl")
        return kldiv_fast.jax.kl(y_true, y_pred, reduction="none")

    np.testing.assert_allclose(traced(T, P), expected, rtol=1e-5)


def test_nothing_is_imported_to_look_at_an_argument():
    done = run_python(
        "import sys, kldiv_fast, numpy as np\n"
        "kldiv_fast.kl([[0.5, 0.5]], np.ones((1, 2)), mask=[True], sample_weight=range(1))\n"
        "libraries = 'pandas polars pyarrow xarray torch tensorflow jax keras ml_dtypes numpy.ma scipy'\n"
        "print(*(name for name in libraries.split() if name in sys.modules))"
    )
    assert (done.stdout.strip(), done.stderr) == ("", "")
