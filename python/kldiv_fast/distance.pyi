from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["cdist", "jensenshannon", "pdist"]

_Float: TypeAlias = np.float32 | np.float64
_Form: TypeAlias = Literal["probs", "counts", "log_probs", "logits"]
_Metric: TypeAlias = Literal["jensenshannon", "js", "jsd", "kl", "generalized_kl", "jeffreys"]
_Out = TypeVar("_Out", bound=NDArray[np.float32] | NDArray[np.float64])
# What NumPy's types don't know is taken too: sparse arrays of SciPy, tables.
_Rows: TypeAlias = ArrayLike | Any

def jensenshannon(
    p: ArrayLike,
    q: ArrayLike,
    base: float | None = None,
    *,
    axis: int | Sequence[int] = 0,
    keepdims: bool = False,
) -> Any: ...
@overload
def cdist(
    XA: _Rows,
    XB: _Rows,
    metric: _Metric = "jensenshannon",
    *,
    out: None = None,
    num_threads: int | None = None,
    form: _Form | tuple[_Form, _Form] = "counts",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    pseudocount: float = 0.0,
    base: float | None = None,
    beta: float = 0.5,
) -> NDArray[_Float]: ...
@overload
def cdist(
    XA: _Rows,
    XB: _Rows,
    metric: _Metric = "jensenshannon",
    *,
    out: _Out,
    num_threads: int | None = None,
    form: _Form | tuple[_Form, _Form] = "counts",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    pseudocount: float = 0.0,
    base: float | None = None,
    beta: float = 0.5,
) -> _Out: ...
@overload
def pdist(
    X: _Rows,
    metric: _Metric = "jensenshannon",
    *,
    out: None = None,
    num_threads: int | None = None,
    form: _Form | tuple[_Form, _Form] = "counts",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    pseudocount: float = 0.0,
    base: float | None = None,
    beta: float = 0.5,
) -> NDArray[_Float]: ...
@overload
def pdist(
    X: _Rows,
    metric: _Metric = "jensenshannon",
    *,
    out: _Out,
    num_threads: int | None = None,
    form: _Form | tuple[_Form, _Form] = "counts",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    pseudocount: float = 0.0,
    base: float | None = None,
    beta: float = 0.5,
) -> _Out: ...
