# Tensors are those of whichever backend Keras runs on.
from typing import Any

import keras

__all__ = ["KLDivergence", "KLDivergenceMetric", "kl_divergence", "patch_keras", "unpatch_keras"]

def kl_divergence(y_true: Any, y_pred: Any) -> Any: ...

class KLDivergence(keras.losses.KLDivergence):
    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str = "kl_divergence",
        dtype: Any = None,
    ) -> None: ...

class KLDivergenceMetric(keras.metrics.KLDivergence):
    def __init__(self, name: str = "kl_divergence", dtype: Any = None) -> None: ...

def patch_keras() -> None: ...
def unpatch_keras() -> None: ...
