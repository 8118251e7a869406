"""What callers have, read as ndarrays of dtypes that the core knows: in place where it has a buffer.

Arrays of NumPy pass at once. Lists, tensors and tables are looked at for what NumPy would lose in silence (masks, missing
values, a gradient); what can't be read is refused with what to do instead. No library is imported for that: a thing can be
an instance of a library's class only where that library has been imported.
"""

import sys

import numpy as np

_READABLE = "float16, bfloat16, float32, float64, an integer type or bool"
_SAME_LENGTH = (
    "rows of one length: fill them up with zeros in y_true and y_pred, or call kl for each row"
)
_DLPACK_CPU = 1


class bfloat(np.void):  # type: ignore[misc]  # final in the stubs of NumPy alone
    """Two bytes of a bfloat16, for tensors of PyTorch, which does without ``ml_dtypes``."""


# NumPy appends the number of bits to the class's name: the core knows this dtype as it knows that of ml_dtypes.
BFLOAT16 = np.dtype((bfloat, 2))


def refuse(name, what, expected):
    raise TypeError(f"{name} is {what}; expected {expected}")


def as_array(x, name):
    """`x` as an ndarray, without a copy where it has a buffer, of a dtype that the core reads."""
    array = x if isinstance(x, np.ndarray) else _read(x, name)
    if type(array) is not np.ndarray and is_a(array, "numpy.ma", "MaskedArray"):
        filled = f"use {name}.filled(...), and the argument mask to leave rows out"
        refuse(name, "a masked array", f"a plain array: {filled}")
    if not (array.dtype.kind in "biu" or (is_float(array.dtype) and array.dtype.itemsize <= 8)):
        _refuse_dtype(x, array, name)
    return np.asarray(array)


def is_a(x, module, *names):
    """Whether `x` is an instance of one of a module's classes, which it can't be where nobody imported the module."""
    module = sys.modules.get(module)
    return module is not None and isinstance(x, tuple(getattr(module, name, ()) for name in names))


def lazy_part(x):
    """`x`, or the chunked array that one of xarray's stands around."""
    is_chunked = is_a(x, "xarray", "DataArray", "Variable") and x.chunks is not None
    return x.data if is_chunked else x


def is_lazy(x):
    """Whether `x` is a Dask array, or one of xarray around such."""
    return "dask.array" in sys.modules and is_a(lazy_part(x), "dask.array", "Array")


def check_in_memory(x, name):
    """Refuse what NumPy would compute, all of it, in silence."""
    if "dask" not in sys.modules:
        return
    if is_lazy(x):
        refuse(name, "a Dask array", f"an array in memory here: {name}.compute()")
    if is_a(x, "dask.dataframe", "DataFrame", "Series", "Index"):
        refuse(name, "a Dask table", f"a Dask array: {name}.to_dask_array(lengths=True)")
    if isinstance(x, (list, tuple)) and x and is_lazy(x[0]):
        refuse(name, f"a {type(x).__name__} of Dask arrays", f"one: dask.array.stack({name})")


# ---- dtypes ----


def is_float(dtype):
    # A dtype's name takes NumPy microseconds, so it is asked for last.
    return dtype.kind == "f" or (
        dtype.itemsize == 2 and dtype.kind not in "biu" and dtype.name == "bfloat16"
    )


def is_float64(dtype):
    return dtype.kind == "f" and dtype.itemsize == 8


def is_sequence(x):
    return isinstance(x, (list, tuple, int, float, bool))


def cast(array, dtype):
    """``array.astype(dtype)``, from and to BFLOAT16 too."""
    if array.dtype == BFLOAT16:
        array = (array.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype != BFLOAT16:
        return array.astype(dtype)
    array = array.astype(np.float32)
    bits = array.view(np.uint32)
    to_even = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    rounded = np.where(np.isnan(array), np.uint32(0x7FC00000), bits + to_even) >> np.uint32(16)
    return rounded.astype(np.uint16).view(BFLOAT16)


# ---- reading ----


def _read(x, name):
    check_in_memory(x, name)
    if isinstance(x, (list, tuple)):
        return _from_list(x, name)
    if is_a(x, "torch", "Tensor"):
        return _from_torch(x, name)
    if is_a(x, "pandas", "DataFrame", "Series", "Index") or is_a(
        x, "pandas.api.extensions", "ExtensionArray"
    ):
        return _from_pandas(x, name)
    if is_a(x, "polars", "DataFrame", "Series"):
        return _from_polars(x, name)
    if is_a(x, "pyarrow", "Table", "RecordBatch", "Array", "ChunkedArray"):
        return _from_pyarrow(x, name)
    if not _is_on_cpu(x):
        copied = f"{name}.get()" if hasattr(x, "get") else f"np.asarray({name})"
        refuse(name, "an array that is not in the CPU's memory", f"one that is: {copied}")
    try:
        if hasattr(x, "__dlpack__") and not hasattr(x, "__array__"):
            return np.from_dlpack(x)
        return np.asarray(x)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        _refuse_kind(x, name, error)


def _is_on_cpu(x):
    query = getattr(x, "__dlpack_device__", None)
    try:
        return query is None or int(query()[0]) == _DLPACK_CPU
    except (ValueError, BufferError):  # a device that DLPack doesn't know
        return False


def _from_list(x, name):
    try:
        array = np.asarray(x)
    except UserWarning:  # a masked number becomes NaN with a warning, and here the warning an error
        if not _holds_masked(x, np.inf):
            raise
        _refuse_masked_parts(name)
    except (TypeError, ValueError, RuntimeError) as error:
        _refuse_list(x, name, error)
    if "numpy.ma" in sys.modules:
        # Numbers stand in the last level and needn't be looked at, unless one is NaN: a masked one is.
        has_nan = array.dtype.kind == "f" and np.isnan(array).any()
        if _holds_masked(x, array.ndim - (not has_nan)):
            _refuse_masked_parts(name)
    return array


def _holds_masked(x, levels):
    """Whether a masked array stands in the first levels of a nested list."""
    if levels <= 0:
        return False
    kinds = set(map(type, x))
    if any(issubclass(kind, np.ma.MaskedArray) for kind in kinds):
        return True
    lists = (list, tuple)
    return any(issubclass(kind, lists) for kind in kinds) and any(
        _holds_masked(e, levels - 1) for e in x if isinstance(e, lists)
    )


def _refuse_masked_parts(name):
    refuse(
        name,
        "a list that holds masked arrays",
        "plain ones: use filled(...) of each, and the argument mask to leave rows out",
    )


def _from_torch(x, name):
    torch = sys.modules["torch"]
    check_layout(x, name)
    if x.requires_grad:
        refuse(name, "a tensor that requires a gradient", f"a detached one: {name}.detach()")
    if x.is_meta:
        refuse(name, "a tensor on the device meta, which holds no values", "one that does")
    if not x.is_cpu:
        refuse(name, "a tensor that is not in the CPU's memory", f"one that is: {name}.cpu()")
    if x.dtype == torch.bfloat16:
        return x.view(torch.int16).numpy().view(BFLOAT16)
    try:
        return np.asarray(x.resolve_neg())
    except (TypeError, RuntimeError) as error:
        advice = f"{_READABLE}: {name}.float()" if x.is_floating_point() else _READABLE
        raise TypeError(f"{name} is of dtype {x.dtype} ({error}); expected {advice}") from error


def check_layout(x, name):
    """Refuse a tensor of PyTorch that has no strides."""
    if x.is_nested:
        padded = f"torch.nested.to_padded_tensor({name}, 0.0)"
        refuse(name, "a nested tensor", f"a dense one, filled up with zeros: {padded}")
    if x.layout != sys.modules["torch"].strided:
        refuse(name, f"a tensor of layout {x.layout}", f"a dense one: {name}.to_dense()")


# ---- tables and their columns, which know missing values where arrays have NaN at best ----


def _from_pandas(x, name):
    dtypes = set(x.dtypes) if x.ndim == 2 else {x.dtype}
    if len(dtypes) <= 1 and all(isinstance(dtype, np.dtype) for dtype in dtypes):
        return np.asarray(x)
    columns = list(x.items()) if x.ndim == 2 else [(None, x)]
    for label, column in columns:
        if getattr(column.dtype, "na_value", None) is sys.modules["pandas"].NA:
            rows = getattr(column, "index", None)
            _check_missing(column.isna(), name, f"{name}.fillna(0)", label, rows)
    arrays = [c.to_numpy(getattr(c.dtype, "numpy_dtype", None)) for _, c in columns]
    return np.column_stack(arrays) if x.ndim == 2 else arrays[0]


def _from_polars(x, name):
    is_frame = hasattr(x, "columns")
    for series in x.get_columns() if is_frame else [x]:
        filled, flat = f"{name}.fill_null(0)", series
        if hasattr(series.dtype, "shape"):  # each element an array
            filled, flat = f"np.nan_to_num({name}.to_numpy())", series.reshape((-1,))
        if flat.null_count():
            missing = np.asarray(flat.is_null()).reshape(len(series), -1).any(axis=1)
            _check_missing(missing, name, filled, series.name if is_frame else None)
    return np.asarray(x)


def _from_pyarrow(x, name):
    columns = zip(x.column_names, x.columns, strict=True) if hasattr(x, "columns") else [(None, x)]
    for label, column in columns:
        if column.null_count:
            _check_missing(column.is_null(), name, f"{name}.to_pandas().fillna(0)", label)
    return np.asarray(x)


def _check_missing(missing, name, filled, label=None, rows=None):
    missing = np.asarray(missing)
    if not missing.any():
        return
    row = int(missing.argmax())
    row = row if rows is None else rows[row : row + 1].tolist()[0]
    where = f"row {row!r}" + ("" if label is None else f" of column {label!r}")
    raise ValueError(f"{name} has a missing value in {where}; expected numbers alone: {filled}")


# ---- what can't be read, and what to do instead ----

# module, its classes, what it is, what is expected; {x} stands for the argument's name
_KINDS = (
    ("scipy.sparse", ["sparray", "spmatrix"], "a sparse array", "a dense one: {x}.toarray()"),
    ("sparse", ["SparseArray"], "a sparse array", "a dense one: {x}.todense()"),
    ("jax.experimental.sparse", ["JAXSparse"], "a sparse array", "a dense one: {x}.todense()"),
    ("tensorflow", ["SparseTensor"], "a sparse tensor", "a dense one: tf.sparse.to_dense({x})"),
    ("tensorflow", ["IndexedSlices"], "slices of a tensor",
     "a dense tensor: tf.convert_to_tensor({x})"),
    ("tensorflow", ["RaggedTensor"], "a ragged tensor",
     "a dense one, filled up with zeros: {x}.to_tensor()"),
    ("keras", ["KerasTensor"], "a KerasTensor, which holds no values",
     "an array: in a model use kldiv_fast.keras.kl_divergence"),
    ("tensorflow.python.framework.ops", ["SymbolicTensor"], "a tensor of a graph, which holds no values",
     "an array: in a graph use kldiv_fast.keras.kl_divergence"),
    ("jax.core", ["Tracer"], "a tracer of JAX, which holds no values",
     "an array: in a transformed function use kldiv_fast.jax.kl"),
    ("polars", ["LazyFrame"], "a lazy frame", "a frame: {x}.collect()"),
    ("pyarrow", ["Scalar"], "a scalar of pyarrow", "a number: {x}.as_py()"),
    ("xarray", ["Dataset"], "a Dataset", "a DataArray: {x}.to_dataarray()"),
    ("types", ["NoneType"], "None", "an array"),
    ("collections.abc", ["Mapping"], "a dict",
     "a list of its values, in one order for both: [{x}[key] for key in keys]"),
    ("collections.abc", ["Set"], "a set, which has no order", "a list, in the order of the classes"),
    ("collections.abc", ["Iterator", "MappingView"], "an iterable", "an array: list({x})"),
    ("numbers", ["Number"], "a {type}", "a float: float({x})"),
)  # fmt: skip


def _refuse_kind(x, name, error=None):
    _check_kind(x, name, error)
    reason = "" if error is None else f" ({error})"
    raise TypeError(
        f"{name} is of type {type(x).__name__}, which NumPy can't read{reason}; "
        "expected an array, a list, a tensor or a table of numbers"
    ) from error


def _check_kind(x, name, error=None):
    for module, classes, what, expected in _KINDS:
        if is_a(x, module, *classes):
            what, expected = (s.format(x=name, type=type(x).__name__) for s in (what, expected))
            raise TypeError(f"{name} is {what}; expected {expected}") from error


def _refuse_list(x, name, error):
    for i, element in enumerate(x):
        _check_kind(element, f"{name}[{i}]", error)
    kind, what, expected = ValueError, "not a regular array", _SAME_LENGTH
    if not isinstance(error, ValueError):
        kind, what, expected = TypeError, f"a {type(x).__name__} that NumPy can't read", "an array"
    if is_a(x[0], "torch", "Tensor") and kind is TypeError:
        expected = f"one tensor: torch.stack({name})"
    raise kind(f"{name} is {what} ({error}); expected {expected}") from error


def _refuse_dtype(x, array, name):
    dtype = array.dtype
    if dtype.kind in "OUST":
        _refuse_objects(x, array, name)
    advice = f": np.asarray({name}, dtype=np.float64)"
    if dtype.kind == "c":
        advice = f": np.real({name})"
    elif dtype.kind in "mM":
        advice = ""
    elif dtype.names is not None:
        advice = f": numpy.lib.recfunctions.structured_to_unstructured({name})"
    elif dtype.type is np.void:  # what bfloat16 becomes in a file of NumPy's
        advice = f": {name}.view(ml_dtypes.bfloat16)" if dtype.itemsize == 2 else ""
    refuse(name, f"of dtype {dtype}", _READABLE + advice)


def _refuse_objects(x, array, name):
    """Objects or text: the first that is no number says what helps."""
    if array.ndim == 0 and x is array:
        kind = type(array.item()).__name__
        refuse(name, f"of dtype {array.dtype}, around a {kind}", f"an array: {name}.item()")
    if array.ndim == 0:
        _refuse_kind(x, name)
    _check_kind(x, name)
    what = f"of dtype {array.dtype}"
    index = next((i for i in np.ndindex(array.shape) if not _is_number(array[i])), None)
    if index is None:
        refuse(name, what, f"{_READABLE}: np.asarray({name}, dtype=float)")
    value = array[index]
    if not isinstance(value, (list, tuple, np.ndarray)):
        if isinstance(x, (list, tuple, np.ndarray)) and value is not None:
            _check_kind(value, name + "".join(f"[{i}]" for i in index))
        refuse(name, f"{what}, with {value!r} at {index}", "numbers")
    rows, stacked = array.ravel(), f"np.asarray({name})"
    columns = getattr(x, "column_names", getattr(x, "columns", None))
    if columns is not None:  # a table: one of its columns holds rows
        rows, stacked = array[:, index[1]], f"{name}[{columns[index[1]]!r}].to_numpy()"
    if len({len(e) if hasattr(e, "__len__") else None for e in rows}) > 1:
        refuse(name, f"{what}, of rows that differ in length", _SAME_LENGTH)
    refuse(
        name, f"{what}, of {type(value).__name__}s", f"one array of numbers: np.stack({stacked})"
    )


def _is_number(x):
    if hasattr(x, "__len__") and not isinstance(x, (str, bytes)):
        return False
    try:
        float(x)
    except (TypeError, ValueError):
        return False
    return True
