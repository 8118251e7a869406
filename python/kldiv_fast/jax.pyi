from collections.abc import Sequence
from typing import Any

import jax

__all__ = ["kl"]

def kl(
    y_true: Any,
    y_pred: Any,
    *,
    axis: int | Sequence[int] = -1,
    reduction: str | None = "mean",
    sample_weight: Any = None,
    mask: Any = None,
    epsilon: float | None = 1e-7,
) -> jax.Array: ...
