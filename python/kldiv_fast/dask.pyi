# Written by tools/stubs.py.
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import dask.array

__all__ = [
    "generalized_kl",
    "jeffreys",
    "jsd",
    "kl",
]

_Form: TypeAlias = Literal["probs", "counts", "log_probs", "logits"]
_Labels: TypeAlias = _Form | Literal["labels"]

def kl(
    y_true: Any,
    y_pred: Any,
    *,
    axis: int | Sequence[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: str | None = "mean",
    sample_weight: Any = None,
    mask: Any = None,
    where: Any = None,
    pseudocount: float = 0.0,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
    validate: bool = False,
    num_threads: int | None = None,
) -> dask.array.Array: ...
def generalized_kl(
    y_true: Any,
    y_pred: Any,
    *,
    axis: int | Sequence[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: str | None = "mean",
    sample_weight: Any = None,
    mask: Any = None,
    where: Any = None,
    pseudocount: float = 0.0,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
    validate: bool = False,
    num_threads: int | None = None,
) -> dask.array.Array: ...
def jsd(
    y_true: Any,
    y_pred: Any,
    *,
    beta: float = 0.5,
    axis: int | Sequence[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: str | None = "mean",
    sample_weight: Any = None,
    mask: Any = None,
    where: Any = None,
    pseudocount: float = 0.0,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
    validate: bool = False,
    num_threads: int | None = None,
) -> dask.array.Array: ...
def jeffreys(
    y_true: Any,
    y_pred: Any,
    *,
    axis: int | Sequence[int] = -1,
    form: _Form | tuple[_Labels, _Form] | list[_Labels] = "probs",
    epsilon: float | None = 1e-7,
    temperature: float = 1.0,
    base: float | None = None,
    reduction: str | None = "mean",
    sample_weight: Any = None,
    mask: Any = None,
    where: Any = None,
    pseudocount: float = 0.0,
    ignore_class: int | None = None,
    label_smoothing: float = 0.0,
    validate: bool = False,
    num_threads: int | None = None,
) -> dask.array.Array: ...
