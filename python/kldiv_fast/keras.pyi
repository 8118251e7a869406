# Tensors are those of whichever backend Keras runs on.
from typing import Any, TypeAlias

import keras

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

_Form: TypeAlias = str | tuple[str, str] | list[str] | None

def kl_divergence(y_true: Any, y_pred: Any) -> Any: ...

class KLDivergence(keras.losses.KLDivergence):
    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str = "kl_divergence",
        dtype: Any = None,
        *,
        from_logits: bool = False,
        temperature: float = 1.0,
        form: _Form = None,
    ) -> None: ...

class KLDivergenceMetric(keras.metrics.KLDivergence):
    def __init__(
        self,
        name: str = "kl_divergence",
        dtype: Any = None,
        *,
        from_logits: bool = False,
        temperature: float = 1.0,
        form: _Form = None,
    ) -> None: ...

class JensenShannon(keras.losses.Loss):
    def __init__(
        self,
        beta: float = 0.5,
        from_logits: bool = False,
        temperature: float = 1.0,
        form: _Form = None,
        reduction: str | None = "sum_over_batch_size",
        name: str = "jensen_shannon",
        dtype: Any = None,
    ) -> None: ...

class JensenShannonMetric(keras.metrics.MeanMetricWrapper):
    def __init__(
        self,
        name: str = "jensen_shannon",
        dtype: Any = None,
        beta: float = 0.5,
        from_logits: bool = False,
        temperature: float = 1.0,
        form: _Form = None,
    ) -> None: ...

class SparseKLDivergence(keras.losses.Loss):
    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str = "sparse_kl_divergence",
        dtype: Any = None,
    ) -> None: ...

class SparseKLDivergenceMetric(keras.metrics.MeanMetricWrapper):
    def __init__(
        self,
        name: str = "sparse_kl_divergence",
        dtype: Any = None,
        from_logits: bool = False,
        ignore_class: int | None = None,
    ) -> None: ...

def patch_keras() -> None: ...
def unpatch_keras() -> None: ...
