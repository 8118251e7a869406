"""How much did a language model change? Its next-token distributions beside the original's, from their saved logits.

:func:`fidelity` reads two files, or arrays, a window of rows at a time, and makes the report; ``python -m kldiv_fast
fidelity`` is the same as a command.
"""

from kldiv_fast.fidelity._files import Logits, TopK, open_logits, write_llama_logits
from kldiv_fast.fidelity._report import Bucket, Estimate, Fidelity, Input
from kldiv_fast.fidelity._run import fidelity

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
