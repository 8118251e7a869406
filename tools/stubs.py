"""Write python/kldiv_fast/__init__.pyi, torch.pyi, jax.pyi and dask.pyi: the functions of every operation of the table, typed.

python tools/stubs.py            write them
python tools/stubs.py --check    fail if they are not what would be written
"""

import sys
from pathlib import Path

from kldiv_fast._meaning import FORMS
from kldiv_fast._operations import OPERATIONS

PACKAGE = Path(__file__).parents[1] / "python" / "kldiv_fast"

HEAD = """\
# Written by tools/stubs.py.
from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
{names}
]

__version__: str

class _SupportsDlpack(Protocol):
    def __dlpack__(self, /, *args: Any, **kwargs: Any) -> Any: ...
    def __dlpack_device__(self, /) -> tuple[Any, Any]: ...

class _Sparse(Protocol):  # of scipy.sparse
    def tocsr(self, /) -> Any: ...

_Array: TypeAlias = ArrayLike | _SupportsDlpack | _Sparse
_Float: TypeAlias = np.float32 | np.float64
_Argument: TypeAlias = Literal["y_true", "y_pred"]
_Form: TypeAlias = Literal[{forms}]
_Labels: TypeAlias = _Form | Literal["labels"]
_Gradient: TypeAlias = NDArray[_Float]
_Written: TypeAlias = NDArray[np.float32] | NDArray[np.float64]
_Out = TypeVar("_Out", bound=NDArray[np.float32] | NDArray[np.float64])

# Those that give one value.
_Reduction: TypeAlias = Literal[
    "mean", "sum_over_batch_size", "sum", "mean_with_sample_weight", "batchmean"
]

# reduction decides whether the result is a scalar or an array. An input of one row gives a scalar with "none" too; as in
# NumPy's own stubs, the type is then that of the usual case. wrt decides whether the gradient is an array or a tuple of
# arrays.
"""

TAIL = """\
def set_num_threads(n: int | None) -> None: ...
def get_num_threads() -> int: ...
def available_isas() -> list[str]: ...
def current_isa() -> str: ...
def set_executor(name: Literal["pool", "openmp"]) -> None: ...
def get_executor() -> str: ...
@overload
def show_runtime(mode: Literal["stdout"] = "stdout") -> None: ...
@overload
def show_runtime(mode: Literal["dicts"]) -> dict[str, Any]: ...
"""

ADAPTER = """\
# Written by tools/stubs.py.
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import {library}

__all__ = [
{names}
]

_Form: TypeAlias = Literal[{forms}]
_Labels: TypeAlias = _Form | Literal["labels"]

"""
# The stub, the library, its inputs, what it returns, keywords of its own
ADAPTERS = (
    ("torch", "torch", "torch.Tensor", "torch.Tensor", []),
    ("jax", "jax", "Any", "jax.Array", []),
    ("dask", "dask.array", "Any", "dask.array.Array", ["num_threads: int | None = None"]),
)

FORM_NAMES = ", ".join(f'"{name}"' for name in FORMS if name != "labels")
FORM_OR_LABELS = 'form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs"'
# The types of a table's parameters.
PARAMETERS = {"beta": "float = 0.5"}

ONE, ROWS = '_Reduction = "mean"', 'Literal["none"] | None'
ALONE, SEVERAL = '_Argument = "y_pred"', "tuple[_Argument, ...] | list[_Argument]"

# reduction, out, what is returned
VALUES = (
    (ONE, "None = None", "_Float"),
    (ROWS, "None = None", "NDArray[_Float]"),
    (ROWS, "_Out", "_Out"),
)
# wrt, reduction, out, what is returned
GRADIENTS = (
    (ALONE, ONE, "_Written | None = None", "tuple[_Float, _Gradient]"),
    (SEVERAL, ONE, "Sequence[_Written] | None = None", "tuple[_Float, tuple[_Gradient, ...]]"),
    (ALONE, ROWS, "_Written | Sequence[_Written] | None = None", "tuple[NDArray[_Float], _Gradient]"),
    (SEVERAL, ROWS, "Sequence[_Written | Sequence[_Written]] | None = None",
     "tuple[NDArray[_Float], tuple[_Gradient, ...]]"),
)  # fmt: skip


def overloaded(name, parameters, arguments, result):
    arguments = ["y_true: _Array", "y_pred: _Array", "*", *parameters, *arguments]
    lines = "".join(f"    {argument},\n" for argument in arguments)
    return f"@overload\ndef {name}(\n{lines}) -> {result}: ...\n"


def shared(reduction):
    return [
        "axis: int | tuple[int, ...] | list[int] = -1",
        FORM_OR_LABELS,
        "epsilon: float | None = 1e-7",
        "temperature: float = 1.0",
        "pseudocount: float = 0.0",
        "base: float | None = None",
        f"reduction: {reduction}",
        "sample_weight: _Array | None = None",
        "mask: _Array | None = None",
        "where: _Array | None = None",
    ]


def functions(operation):
    parameters = [f"{name}: {PARAMETERS[name]}" for name in operation.parameters]
    rest = [
        "num_threads: int | None = None",
        "ignore_class: int | None = None",
        "label_smoothing: float = 0.0",
        "validate: bool = False",
    ]
    for reduction, out, result in VALUES:
        arguments = [*shared(reduction), f"out: {out}", *rest]
        yield overloaded(operation.name, parameters, arguments, result)
    for wrt, reduction, out, result in GRADIENTS:
        arguments = [f"wrt: {wrt}", *shared(reduction), "upstream: _Array | None = None", f"out: {out}", *rest]  # fmt: skip
        yield overloaded(f"{operation.name}_value_and_grad", parameters, arguments, result)


def package():
    import kldiv_fast

    return (
        HEAD.format(names=names_of(kldiv_fast.__all__), forms=FORM_NAMES)
        + "".join("".join(functions(operation)) for operation in OPERATIONS)
        + TAIL
    )


def adapter(library, array, result, more):
    names = names_of(operation.name for operation in OPERATIONS)
    found = [ADAPTER.format(library=library, names=names, forms=FORM_NAMES)]
    for operation in OPERATIONS:
        arguments = [
            f"y_true: {array}",
            f"y_pred: {array}",
            "*",
            *(f"{name}: {PARAMETERS[name]}" for name in operation.parameters),
            "axis: int | Sequence[int] = -1",
            FORM_OR_LABELS,
            "epsilon: float | None = 1e-7",
            "temperature: float = 1.0",
            "base: float | None = None",
            'reduction: str | None = "mean"',
            "sample_weight: Any = None",
            "mask: Any = None",
            "where: Any = None",
            "pseudocount: float = 0.0",
            "ignore_class: int | None = None",
            "label_smoothing: float = 0.0",
            "validate: bool = False",
            *more,
        ]
        lines = "".join(f"    {argument},\n" for argument in arguments)
        found.append(f"def {operation.name}(\n{lines}) -> {result}: ...\n")
    return "".join(found)


def names_of(functions):
    return "\n".join(f'    "{name}",' for name in sorted(functions))


def main():
    stubs = {"__init__": package()} | {name: adapter(*given) for name, *given in ADAPTERS}
    for name, text in stubs.items():
        path = PACKAGE / f"{name}.pyi"
        if "--check" not in sys.argv[1:]:
            path.write_text(text)
        elif path.read_text() != text:
            sys.exit(f"{path} is not what tools/stubs.py writes: run it")


if __name__ == "__main__":
    main()
