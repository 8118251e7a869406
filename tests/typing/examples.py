"""Calls and the types that a checker has to give them: mypy --strict tests/typing, and python tests/typing/examples.py."""

from typing import Any, Literal, assert_type

import kldiv_fast
import numpy as np
from kldiv_fast.fidelity import Fidelity, fidelity
from numpy.typing import NDArray

Float = np.float32 | np.float64

x = np.full((4, 3), 0.5, np.float32)
weights = np.ones(4)
rows: NDArray[np.float32] = np.empty(4, np.float32)
lists = [[0.2, 0.8], [0.9, 0.1]]

# One value.
assert_type(kldiv_fast.kl(x, x), Float)
assert_type(kldiv_fast.kl(lists, lists, reduction="sum"), Float)
assert_type(kldiv_fast.kl(x, x, axis=(0, 1), epsilon=None, num_threads=1), Float)
assert_type(kldiv_fast.kl(x, x, sample_weight=weights, reduction="mean_with_sample_weight"), Float)
assert_type(kldiv_fast.kl(x, x, mask=weights > 0, reduction="batchmean"), Float)
assert_type(kldiv_fast.kl(x, x, form="logits", temperature=2.0), Float)
assert_type(kldiv_fast.kl(x, x, form=("logits", "logits"), reduction="none"), NDArray[Float])
assert_type(kldiv_fast.kl(x, x, form=["probs", "probs"]), Float)

# Every row's value.
assert_type(kldiv_fast.kl(x, x, reduction="none"), NDArray[Float])
assert_type(kldiv_fast.kl(x, x, reduction=None, axis=0), NDArray[Float])
assert_type(kldiv_fast.kl(x, x, reduction="none", out=rows), NDArray[np.float32])

# Every divergence of the table.
assert_type(kldiv_fast.jsd(x, x, beta=0.25, base=2), Float)
assert_type(kldiv_fast.jeffreys(x, x, reduction="none"), NDArray[Float])
assert_type(kldiv_fast.generalized_kl_value_and_grad(x, x), tuple[Float, NDArray[Float]])
assert_type(
    kldiv_fast.jsd_value_and_grad(x, x, reduction="none", out=(rows, x.copy())),
    tuple[NDArray[Float], NDArray[Float]],
)

# A value and a gradient, or several.
both: tuple[Literal["y_true"], Literal["y_pred"]] = ("y_true", "y_pred")
assert_type(kldiv_fast.kl_value_and_grad(x, x), tuple[Float, NDArray[Float]])
assert_type(
    kldiv_fast.kl_value_and_grad(x, x, wrt="y_true", reduction="none", upstream=weights),
    tuple[NDArray[Float], NDArray[Float]],
)
assert_type(kldiv_fast.kl_value_and_grad(x, x, wrt=both), tuple[Float, tuple[NDArray[Float], ...]])
assert_type(
    kldiv_fast.kl_value_and_grad(x, x, wrt=["y_pred"], reduction=None),
    tuple[NDArray[Float], tuple[NDArray[Float], ...]],
)

# The settings.
assert_type(kldiv_fast.set_num_threads(2), None)
assert_type(kldiv_fast.set_num_threads(None), None)
assert_type(kldiv_fast.get_num_threads(), int)
assert_type(kldiv_fast.available_isas(), list[str])
assert_type(kldiv_fast.current_isa(), str)
assert_type(kldiv_fast.get_executor(), str)

# Language models beside each other.
report = fidelity(x, x, tokens=[0, 1, 2, -1], tail="bucket")
assert_type(report, Fidelity)
assert_type(report.kld.value, float)
assert_type(report.to_dict(), dict[str, Any])

assert_type(kldiv_fast.show_runtime(), None)
assert_type(kldiv_fast.show_runtime(mode="dicts"), dict[str, Any])
assert_type(kldiv_fast.__version__, str)


def mistakes() -> None:
    """Each line is wrong; mypy reports an ignore that it doesn't need."""
    kldiv_fast.kl(x, x, reduction="average")  # type: ignore[call-overload]
    kldiv_fast.kl(x, x, out=rows)  # type: ignore[call-overload]
    kldiv_fast.kl(x, x, "none")  # type: ignore[call-overload]
    kldiv_fast.kl(x, x, epsilon="1e-7")  # type: ignore[call-overload]
    kldiv_fast.kl(x, x, form="logit")  # type: ignore[call-overload]
    kldiv_fast.kl_value_and_grad(x, x, wrt="x")  # type: ignore[call-overload]
    kldiv_fast.kl(x, x, beta=0.5)  # type: ignore[call-overload]
    kldiv_fast.set_num_threads("all")  # type: ignore[arg-type]
    fidelity(x, x, tail="head")  # type: ignore[arg-type]
