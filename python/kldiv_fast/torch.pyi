from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["kl"]

def kl(
    y_true: torch.Tensor,
    y_pred: torch.Tensor,
    *,
    axis: int | Sequence[int] = -1,
    epsilon: float | None = 1e-7,
    reduction: str | None = "mean",
    sample_weight: Any = None,
    mask: Any = None,
) -> torch.Tensor: ...
