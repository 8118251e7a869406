import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Bucket",
    "Estimate",
    "Fidelity",
    "Input",
    "Logits",
    "TopK",
    "fidelity",
    "open_logits",
    "write_llama_logits",
]

class _Sliced(Protocol):
    """An array of NumPy, HDF5, zarr."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    def __getitem__(self, key: Any, /) -> Any: ...

_Source: TypeAlias = str | os.PathLike[str] | _Sliced

class Logits:
    name: str
    producer: str
    shape: tuple[int, int]
    dtype: str
    chunks: NDArray[np.int64]
    targets: NDArray[np.int64] | None
    files: tuple[str, ...]
    is_coded: bool
    is_mapped: bool
    def __init__(
        self,
        name: str,
        producer: str,
        shape: tuple[int, int],
        dtype: str,
        chunks: Sequence[int] | NDArray[np.int64],
    ) -> None: ...
    def read(self, start: int, stop: int) -> NDArray[Any]: ...
    def cuts(self) -> NDArray[np.int64]: ...

class TopK:
    name: str
    producer: str
    shape: tuple[int, int]
    dtype: str
    chunks: NDArray[np.int64]
    targets: None
    files: tuple[str, ...]
    is_coded: bool
    indices: NDArray[Any]
    log_probs: NDArray[Any]
    tail_mass: NDArray[np.float64] | None
    def __init__(
        self,
        indices: ArrayLike,
        log_probs: ArrayLike,
        tail_mass: ArrayLike | None = None,
        *,
        name: str = "top-k",
    ) -> None: ...

@dataclass(frozen=True)
class Estimate:
    value: float
    se: float
    se_chunks: float | None = None

@dataclass(frozen=True)
class Bucket:
    low: float
    high: float
    tokens: int
    kld: float
    same_top: float

@dataclass(frozen=True)
class Input:
    name: str
    producer: str
    shape: tuple[int, int]
    dtype: str
    codec_bound: float | None = None
    targets_at_floor: int | None = None

@dataclass(frozen=True, kw_only=True)
class Fidelity:
    base: Input
    other: Input
    tokens: int
    nan_rows: int
    infinite_rows: int
    classes: int
    chunks: int
    temperature: float
    tail: str | None
    is_partial: bool
    kld: Estimate
    kld_quantiles: dict[float, float]
    kld_reverse: Estimate
    jsd: Estimate
    same_top: Estimate
    top5_overlap: Estimate
    buckets: tuple[Bucket, ...]
    ppl: Estimate | None = None
    ppl_base: Estimate | None = None
    correlation: float | None = None
    ln_ppl_ratio: Estimate | None = None
    ppl_ratio: Estimate | None = None
    ppl_difference: Estimate | None = None
    delta_p: Estimate | None = None
    delta_p_quantiles: dict[float, float] | None = None
    rms_delta_p: Estimate | None = None
    figures: NDArray[np.void]
    chunk_lengths: NDArray[np.int64]
    def to_dict(self) -> dict[str, Any]: ...

def fidelity(
    base: _Source | Logits | TopK,
    other: _Source | Logits,
    *,
    tokens: ArrayLike | None = None,
    vocab_size: int | None = None,
    temperature: float = 1.0,
    chunks: int | None = None,
    tail: Literal["bucket", "renormalize", "truncate"] = "bucket",
    num_threads: int | None = None,
    progress: Callable[[int, float, float], object] | None = None,
) -> Fidelity: ...
def open_logits(source: _Source | Logits | TopK) -> Logits | TopK: ...
def write_llama_logits(
    path: str | os.PathLike[str], logits: ArrayLike, tokens: ArrayLike, n_ctx: int
) -> None: ...
