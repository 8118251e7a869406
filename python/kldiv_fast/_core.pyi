# The extension module, for use within the package alone.
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

__version__: str
__pyx_capi__: dict[str, Any]
run_address: int
tensorflow_poll_address: int

def run(
    y_true: NDArray[Any],
    y_pred: NDArray[Any],
    class_ndim: int,
    batch_shape: tuple[int, ...],
    weight: NDArray[Any] | None,
    mask: NDArray[Any] | None,
    out: NDArray[Any] | None,
    epsilon: float | None,
    num_threads: int,
    upstream: NDArray[Any] | None = None,
    grad_y_true: NDArray[Any] | None = None,
    grad_y_pred: NDArray[Any] | None = None,
    progress: Callable[[float], object] | None = None,
    operation: int = 0,
    beta: float = 0.5,
    scale: float = 1.0,
    forms: tuple[int, int] = (0, 0),
    temperature: float = 1.0,
    smoothing: float = 0.0,
    pseudocount: float = 0.0,
    where: NDArray[Any] | None = None,
) -> Any: ...
def rows(
    dtype: str,
    y_true: int,
    y_pred: int,
    rows: int,
    classes: int,
    epsilon: float | None,
    upstream: int,
    num_threads: int,
    out: int,
    grad_y_true: int,
    grad_y_pred: int,
    operation: int = 0,
    beta: float = 0.5,
    scale: float = 1.0,
    forms: tuple[int, int] = (0, 0),
    temperature: float = 1.0,
) -> None: ...
def pairs(
    options: tuple[Any, ...],
    y_true: NDArray[Any],
    y_pred: NDArray[Any],
    out: NDArray[Any],
    layout: int,
    root: bool,
    center: NDArray[Any] | None,
    beside_true: NDArray[Any] | None,
    beside_pred: NDArray[Any] | None,
    /,
) -> None: ...
def rounds(options: tuple[Any, ...], is_float64: bool, /) -> tuple[int, int]: ...
def reduce(
    options: tuple[Any, ...],
    y_true: NDArray[Any],
    y_pred: NDArray[Any],
    where: NDArray[Any] | None,
    class_ndim: int,
    batch_shape: tuple[int, ...],
    states: NDArray[Any],
    classes: int,
    is_first: bool,
    /,
) -> None: ...
def merge(
    options: tuple[Any, ...],
    states: NDArray[Any],
    others: list[NDArray[Any]],
    ends: bool,
    values: NDArray[Any] | None,
    /,
) -> None: ...
def fidelity(
    base: NDArray[Any],
    other: NDArray[Any],
    classes: int,
    targets: NDArray[Any] | None,
    out: NDArray[Any],
    temperature: float = 1.0,
    num_threads: int = 0,
) -> None: ...
def sum_of_weights(weight: NDArray[Any] | None, mask: NDArray[Any] | None) -> float: ...
def operations() -> list[tuple[str, tuple[str, ...]]]: ...
def forms() -> list[str]: ...
def function(
    operation: int, has_gradients: bool, name: str, doc: str, fallback: Callable[..., Any]
) -> Callable[..., Any]: ...
def available_isas() -> list[str]: ...
def current_isa() -> str: ...
def select_isa(arg0: str, /) -> bool: ...
def available_executors() -> list[str]: ...
def current_executor() -> str: ...
def select_executor(arg0: str, /) -> bool: ...
def set_num_threads(arg0: int, /) -> None: ...
def get_num_threads() -> int: ...
def raise_interrupt() -> None: ...
def runtime() -> dict[str, Any]: ...
def xla_handlers() -> dict[str, Any]: ...
