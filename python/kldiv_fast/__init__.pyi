# Written by tools/stubs.py.
from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "available_isas",
    "current_isa",
    "generalized_kl",
    "generalized_kl_value_and_grad",
    "get_executor",
    "get_num_threads",
    "jeffreys",
    "jeffreys_value_and_grad",
    "jsd",
    "jsd_value_and_grad",
    "kl",
    "kl_value_and_grad",
    "set_executor",
    "set_num_threads",
    "show_runtime",
]

__version__: str

class _SupportsDlpack(Protocol):
    def __dlpack__(self, /, *args: Any, **kwargs: Any) -> Any: ...
    def __dlpack_device__(self, /) -> tuple[Any, Any]: ...

_Array: TypeAlias = ArrayLike | _SupportsDlpack
_Float: TypeAlias = np.float32 | np.float64
_Argument: TypeAlias = Literal["y_true", "y_pred"]
_Form: TypeAlias = Literal["probs", "counts", "log_probs", "logits"]
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
@overload
def kl(
    y_true: _Array,
    y_pred: _Array,
    *,
    axis: int | tuple[int, ...] | list[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: _Reduction = "mean",
    sample_weight: _Array | None = None,
    mask: _Array | None = None,
    out: None = None,
    num_threads: int | None = None,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
) -> _Float: ...
@overload
def kl(
    y_true: _Array,
    y_pred: _Array,
    *,
    axis: int | tuple[int, ...] | list[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: Literal["none"] | None,
    sample_weight: _Array | None = None,
    mask: _Array | None = None,
    out: None = None,
    num_threads: int | None = None,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
) -> NDArray[_Float]: ...
@overload
def kl(
    y_true: _Array,
    y_pred: _Array,
    *,
    axis: int | tuple[int, ...] | list[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: Literal["none"] | None,
    sample_weight: _Array | None = None,
    mask: _Array | None = None,
    out: _Out,
    num_threads: int | None = None,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
) -> _Out: ...
@overload
def kl_value_and_grad(
    y_true: _Array,
    y_pred: _Array,
    *,
    wrt: _Argument = "y_pred",
    axis: int | tuple[int, ...] | list[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: _Reduction = "mean",
    sample_weight: _Array | None = None,
    mask: _Array | None = None,
    upstream: _Array | None = None,
    out: _Written | None = None,
    num_threads: int | None = None,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
) -> tuple[_Float, _Gradient]: ...
@overload
def kl_value_and_grad(
    y_true: _Array,
    y_pred: _Array,
    *,
    wrt: tuple[_Argument, ...] | list[_Argument],
    axis: int | tuple[int, ...] | list[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: _Reduction = "mean",
    sample_weight: _Array | None = None,
    mask: _Array | None = None,
    upstream: _Array | None = None,
    out: Sequence[_Written] | None = None,
    num_threads: int | None = None,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
) -> tuple[_Float, tuple[_Gradient, ...]]: ...
@overload
def kl_value_and_grad(
    y_true: _Array,
    y_pred: _Array,
    *,
    wrt: _Argument = "y_pred",
    axis: int | tuple[int, ...] | list[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: Literal["none"] | None,
    sample_weight: _Array | None = None,
    mask: _Array | None = None,
    upstream: _Array | None = None,
    out: _Written | Sequence[_Written] | None = None,
    num_threads: int | None = None,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
) -> tuple[NDArray[_Float], _Gradient]: ...
@overload
def kl_value_and_grad(
    y_true: _Array,
    y_pred: _Array,
    *,
    wrt: tuple[_Argument, ...] | list[_Argument],
    axis: int | tuple[int, ...] | list[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: Literal["none"] | None,
    sample_weight: _Array | None = None,
    mask: _Array | None = None,
    upstream: _Array | None = None,
    out: Sequence[_Written | Sequence[_Written]] | None = None,
    num_threads: int | None = None,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
) -> tuple[NDArray[_Float], tuple[_Gradient, ...]]: ...
@overload
def generalized_kl(
    y_true: _Array,
    y_pred: _Array,
    *,
    axis: int | tuple[int, ...] | list[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: _Reduction = "mean",
    sample_weight: _Array | None = None,
    mask: _Array | None = None,
    out: None = None,
    num_threads: int | None = None,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
) -> _Float: ...
@overload
def generalized_kl(
    y_true: _Array,
    y_pred: _Array,
    *,
    axis: int | tuple[int, ...] | list[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: Literal["none"] | None,
    sample_weight: _Array | None = None,
    mask: _Array | None = None,
    out: None = None,
    num_threads: int | None = None,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
) -> NDArray[_Float]: ...
@overload
def generalized_kl(
    y_true: _Array,
    y_pred: _Array,
    *,
    axis: int | tuple[int, ...] | list[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: Literal["none"] | None,
    sample_weight: _Array | None = None,
    mask: _Array | None = None,
    out: _Out,
    num_threads: int | None = None,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
) -> _Out: ...
@overload
def generalized_kl_value_and_grad(
    y_true: _Array,
    y_pred: _Array,
    *,
    wrt: _Argument = "y_pred",
    axis: int | tuple[int, ...] | list[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: _Reduction = "mean",
    sample_weight: _Array | None = None,
    mask: _Array | None = None,
    upstream: _Array | None = None,
    out: _Written | None = None,
    num_threads: int | None = None,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
) -> tuple[_Float, _Gradient]: ...
@overload
def generalized_kl_value_and_grad(
    y_true: _Array,
    y_pred: _Array,
    *,
    wrt: tuple[_Argument, ...] | list[_Argument],
    axis: int | tuple[int, ...] | list[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: _Reduction = "mean",
    sample_weight: _Array | None = None,
    mask: _Array | None = None,
    upstream: _Array | None = None,
    out: Sequence[_Written] | None = None,
    num_threads: int | None = None,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
) -> tuple[_Float, tuple[_Gradient, ...]]: ...
@overload
def generalized_kl_value_and_grad(
    y_true: _Array,
    y_pred: _Array,
    *,
    wrt: _Argument = "y_pred",
    axis: int | tuple[int, ...] | list[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: Literal["none"] | None,
    sample_weight: _Array | None = None,
    mask: _Array | None = None,
    upstream: _Array | None = None,
    out: _Written | Sequence[_Written] | None = None,
    num_threads: int | None = None,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
) -> tuple[NDArray[_Float], _Gradient]: ...
@overload
def generalized_kl_value_and_grad(
    y_true: _Array,
    y_pred: _Array,
    *,
    wrt: tuple[_Argument, ...] | list[_Argument],
    axis: int | tuple[int, ...] | list[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: Literal["none"] | None,
    sample_weight: _Array | None = None,
    mask: _Array | None = None,
    upstream: _Array | None = None,
    out: Sequence[_Written | Sequence[_Written]] | None = None,
    num_threads: int | None = None,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
) -> tuple[NDArray[_Float], tuple[_Gradient, ...]]: ...
@overload
def jsd(
    y_true: _Array,
    y_pred: _Array,
    *,
    beta: float = 0.5,
    axis: int | tuple[int, ...] | list[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: _Reduction = "mean",
    sample_weight: _Array | None = None,
    mask: _Array | None = None,
    out: None = None,
    num_threads: int | None = None,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
) -> _Float: ...
@overload
def jsd(
    y_true: _Array,
    y_pred: _Array,
    *,
    beta: float = 0.5,
    axis: int | tuple[int, ...] | list[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: Literal["none"] | None,
    sample_weight: _Array | None = None,
    mask: _Array | None = None,
    out: None = None,
    num_threads: int | None = None,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
) -> NDArray[_Float]: ...
@overload
def jsd(
    y_true: _Array,
    y_pred: _Array,
    *,
    beta: float = 0.5,
    axis: int | tuple[int, ...] | list[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: Literal["none"] | None,
    sample_weight: _Array | None = None,
    mask: _Array | None = None,
    out: _Out,
    num_threads: int | None = None,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
) -> _Out: ...
@overload
def jsd_value_and_grad(
    y_true: _Array,
    y_pred: _Array,
    *,
    beta: float = 0.5,
    wrt: _Argument = "y_pred",
    axis: int | tuple[int, ...] | list[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: _Reduction = "mean",
    sample_weight: _Array | None = None,
    mask: _Array | None = None,
    upstream: _Array | None = None,
    out: _Written | None = None,
    num_threads: int | None = None,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
) -> tuple[_Float, _Gradient]: ...
@overload
def jsd_value_and_grad(
    y_true: _Array,
    y_pred: _Array,
    *,
    beta: float = 0.5,
    wrt: tuple[_Argument, ...] | list[_Argument],
    axis: int | tuple[int, ...] | list[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: _Reduction = "mean",
    sample_weight: _Array | None = None,
    mask: _Array | None = None,
    upstream: _Array | None = None,
    out: Sequence[_Written] | None = None,
    num_threads: int | None = None,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
) -> tuple[_Float, tuple[_Gradient, ...]]: ...
@overload
def jsd_value_and_grad(
    y_true: _Array,
    y_pred: _Array,
    *,
    beta: float = 0.5,
    wrt: _Argument = "y_pred",
    axis: int | tuple[int, ...] | list[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: Literal["none"] | None,
    sample_weight: _Array | None = None,
    mask: _Array | None = None,
    upstream: _Array | None = None,
    out: _Written | Sequence[_Written] | None = None,
    num_threads: int | None = None,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
) -> tuple[NDArray[_Float], _Gradient]: ...
@overload
def jsd_value_and_grad(
    y_true: _Array,
    y_pred: _Array,
    *,
    beta: float = 0.5,
    wrt: tuple[_Argument, ...] | list[_Argument],
    axis: int | tuple[int, ...] | list[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: Literal["none"] | None,
    sample_weight: _Array | None = None,
    mask: _Array | None = None,
    upstream: _Array | None = None,
    out: Sequence[_Written | Sequence[_Written]] | None = None,
    num_threads: int | None = None,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
) -> tuple[NDArray[_Float], tuple[_Gradient, ...]]: ...
@overload
def jeffreys(
    y_true: _Array,
    y_pred: _Array,
    *,
    axis: int | tuple[int, ...] | list[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: _Reduction = "mean",
    sample_weight: _Array | None = None,
    mask: _Array | None = None,
    out: None = None,
    num_threads: int | None = None,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
) -> _Float: ...
@overload
def jeffreys(
    y_true: _Array,
    y_pred: _Array,
    *,
    axis: int | tuple[int, ...] | list[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: Literal["none"] | None,
    sample_weight: _Array | None = None,
    mask: _Array | None = None,
    out: None = None,
    num_threads: int | None = None,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
) -> NDArray[_Float]: ...
@overload
def jeffreys(
    y_true: _Array,
    y_pred: _Array,
    *,
    axis: int | tuple[int, ...] | list[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: Literal["none"] | None,
    sample_weight: _Array | None = None,
    mask: _Array | None = None,
    out: _Out,
    num_threads: int | None = None,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
) -> _Out: ...
@overload
def jeffreys_value_and_grad(
    y_true: _Array,
    y_pred: _Array,
    *,
    wrt: _Argument = "y_pred",
    axis: int | tuple[int, ...] | list[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: _Reduction = "mean",
    sample_weight: _Array | None = None,
    mask: _Array | None = None,
    upstream: _Array | None = None,
    out: _Written | None = None,
    num_threads: int | None = None,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
) -> tuple[_Float, _Gradient]: ...
@overload
def jeffreys_value_and_grad(
    y_true: _Array,
    y_pred: _Array,
    *,
    wrt: tuple[_Argument, ...] | list[_Argument],
    axis: int | tuple[int, ...] | list[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: _Reduction = "mean",
    sample_weight: _Array | None = None,
    mask: _Array | None = None,
    upstream: _Array | None = None,
    out: Sequence[_Written] | None = None,
    num_threads: int | None = None,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
) -> tuple[_Float, tuple[_Gradient, ...]]: ...
@overload
def jeffreys_value_and_grad(
    y_true: _Array,
    y_pred: _Array,
    *,
    wrt: _Argument = "y_pred",
    axis: int | tuple[int, ...] | list[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: Literal["none"] | None,
    sample_weight: _Array | None = None,
    mask: _Array | None = None,
    upstream: _Array | None = None,
    out: _Written | Sequence[_Written] | None = None,
    num_threads: int | None = None,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
) -> tuple[NDArray[_Float], _Gradient]: ...
@overload
def jeffreys_value_and_grad(
    y_true: _Array,
    y_pred: _Array,
    *,
    wrt: tuple[_Argument, ...] | list[_Argument],
    axis: int | tuple[int, ...] | list[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: Literal["none"] | None,
    sample_weight: _Array | None = None,
    mask: _Array | None = None,
    upstream: _Array | None = None,
    out: Sequence[_Written | Sequence[_Written]] | None = None,
    num_threads: int | None = None,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
) -> tuple[NDArray[_Float], tuple[_Gradient, ...]]: ...
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
