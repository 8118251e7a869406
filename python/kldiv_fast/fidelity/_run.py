"""Two models' rows beside each other, a window at a time, on their way to the core; and what only top-k teachers need."""

import itertools
import math
import os
import re

import numpy as np

from kldiv_fast import _core
from kldiv_fast._arrays import is_float, is_float64
from kldiv_fast.fidelity._files import TopK, open_logits, window_number
from kldiv_fast.fidelity._report import FIGURES, Input, report_of

_MAPPED = 32 << 20  # bytes of a window that lies in a file,
_COPIED = 8 << 20  # and of one that is read or converted
_MOST_MASS = 1.05  # of the kept tokens: 1, and what 16-bit log-probabilities are rounded by
TAILS = ("bucket", "renormalize", "truncate")


def fidelity(
    base, other, *, tokens=None, vocab_size=None, temperature=1.0, chunks=None, tail="bucket", num_threads=None, progress=None
):  # fmt: skip
    """How far a language model's next-token distributions are from another's: every figure of a report.

    Parameters
    ----------
    base : path-like, array, Logits or TopK
        The original's logits, as :func:`open_logits` takes them; a row for each token.
    other : path-like, array or Logits
        The changed model's, of the same rows. Beside a file of llama.cpp's codes, which has the second half of each chunk
        but the last alone, logits of shape (chunks, n_ctx or n_ctx - 1, vocabulary) are cut to those rows.
    tokens : array_like of int, optional
        The token that each row is to predict, in the rows' order; or, for logits of shape (sequences, n, vocabulary), what
        the model read, of shape (sequences, n + 1). Without them, and without a file of llama.cpp, there is no perplexity.
        -1 (and -100) is none.
    vocab_size : int, optional
        Where a vocabulary is padded: so many classes count, and the others are cut off before the softmax.
    temperature : float, default 1.0
        Logits are divided by it. Codes of llama.cpp can't be.
    chunks : int, optional
        The first so many chunks alone.
    tail : {"bucket", "renormalize", "truncate"}, default "bucket"
        Of a TopK base: all other tokens as one more class, which makes a divergence that is never negative and at most the
        whole one; both models renormalised over the k; or the sum over the k as it is, which may be negative.
    num_threads : int, optional
        Otherwise as many as :func:`kldiv_fast.get_num_threads` says.
    progress : callable, optional
        Called after each window with the rows that are done, and the mean of their divergences and its standard error.

    Returns
    -------
    Fidelity

    Raises
    ------
    ValueError
        If the two don't fit together: rows, vocabularies, tokens; or an argument has no such value.
    TypeError
        If an argument is of another kind.

    Notes
    -----
    With p and q the base's and the other's softmax, a row's figures are KL(p‖q), KL(q‖p), the Jensen-Shannon divergence, both
    likeliest tokens and the target's two log-probabilities, in nats. They are sums about the log-ratio, so that models which
    nearly agree keep six digits, and none is negative. Logits in float64 are rounded to float32, once their row's greatest is
    taken off: those that are 1e-4 apart keep three digits, and 1e-6 apart none but the size. A base that llama.cpp wrote has
    llama.cpp's meaning: the sum over log p > -16, not renormalised, which the codes' rounding may make negative, by some 1e-5.

    Examples
    --------
    >>> import numpy as np
    >>> from kldiv_fast.fidelity import fidelity
    >>> base = np.random.default_rng(0).normal(size=(500, 1000)).astype(np.float32)
    >>> report = fidelity(base, base + np.float32(0.01) * base[::-1])
    >>> print(f"{report.kld.value:.4e} {report.same_top.value:.3f}")
    5.0118e-05 0.984
    """
    comparison = Comparison(
        open_logits(base), open_logits(other), tokens, vocab_size, temperature, chunks, tail, num_threads
    )  # fmt: skip
    for step in comparison.steps():
        if progress is not None:
            progress(*step)
    return comparison.report()


class Comparison:
    """What is read of two models, and the figures of the rows so far."""

    def __init__(self, base, other, tokens, vocab_size, temperature, chunks, tail, num_threads):
        _check_options(base, other, temperature, tail)
        if base.is_coded != other.is_coded:
            base, other = _scored(base, other)
        self.base, self.other = base, other
        self.tail, self.temperature = tail, float(temperature)
        self.num_threads = _positive("num_threads", num_threads) or 0
        self.classes = _classes(base, other, _positive("vocab_size", vocab_size))
        _check_windows(base, other)
        self.chunks = _chunks(base, other, _positive("chunks", chunks))
        self.rows = int(self.chunks.sum())
        self.targets = _targets(base, other, tokens, self)
        self.figures = np.empty((self.rows, len(FIGURES)))
        self.done = 0
        self.bound, self.at_code_0 = [0.0, 0.0], [0, 0]

    def steps(self):
        """Read on, and after each window yield the rows that are done, their mean divergence and its standard error."""
        n, total, squares = 0, 0.0, 0.0
        for start, stop in self._windows():
            self._add(start, stop)
            self.done = stop
            klds = self.figures[start:stop, 0]
            klds = klds[~np.isnan(klds)]  # as in the report: NaN is no part of a mean, infinity is
            n, total, squares = n + len(klds), total + klds.sum(), squares + klds @ klds
            yield stop, *_mean_and_error(n, float(total), float(squares))

    def report(self):
        sides = [
            Input(side.name, side.producer, side.shape, side.dtype, bound if side.is_coded else None, at_0 if side.is_coded and self.targets is not None else None)
            for side, bound, at_0 in zip((self.base, self.other), self.bound, self.at_code_0, strict=True)
        ]  # fmt: skip
        return report_of(
            *sides,
            self.figures[: self.done],
            self.chunks,
            classes=self.classes,
            temperature=self.temperature,
            tail=self.tail if isinstance(self.base, TopK) else None,
            is_partial=self.done < self.rows,
        )

    def _windows(self):
        """Windows of rows, each within one chunk of what can't be read across chunks."""
        cuts = [side.cuts() for side in (self.base, self.other) if not isinstance(side, TopK)]
        cuts = np.unique(np.concatenate([[0, self.rows], *cuts]))
        cuts = cuts[cuts <= self.rows]
        is_mapped = all(getattr(side, "is_mapped", True) for side in (self.base, self.other))
        row = max(side.shape[1] for side in (self.base, self.other)) * _size(self.base, self.other)
        if isinstance(self.base, TopK):  # which is computed in float64
            row, is_mapped = 8 * self.other.shape[1], False
        step = max(1, (_MAPPED if is_mapped else _COPIED) // row)
        for begin, end in itertools.pairwise(cuts.tolist()):
            for start in range(begin, end, step):
                yield start, min(start + step, end)

    def _add(self, start, stop):
        targets = None if self.targets is None else self.targets[start:stop]
        out = self.figures[start:stop]
        other = self._readable(self.other, start, stop)
        if isinstance(self.base, TopK):
            return self._add_top_k(slice(start, stop), other, targets, out)
        base = self._readable(self.base, start, stop)
        self._core(base, other, targets, out)
        for i, (side, rows) in enumerate(((self.base, base), (self.other, other))):
            if side.is_coded:
                self.bound[i] = max(self.bound[i], side.bound(rows))
                if targets is not None:
                    known = np.flatnonzero(targets >= 0)
                    codes = rows[known, 4 + targets[known]]
                    self.at_code_0[i] += int((codes == 0).sum())

    def _readable(self, side, start, stop):
        """A window as the core reads it: float64 and what is not native or not side by side becomes float32."""
        rows = side.read(start, stop)
        if side.is_coded:
            return rows
        is_wide = is_float64(rows.dtype)
        is_known = is_float(rows.dtype) and not is_wide
        if is_known and rows.dtype.isnative and rows.strides[1] == rows.itemsize and rows.flags.aligned:  # fmt: skip
            return rows
        with np.errstate(over="ignore", invalid="ignore"):  # of rows that are left out
            if is_wide:  # near 0, where the likeliest are, float32 has the most digits
                rows = rows[:, : self.classes]
                rows = rows - rows.max(axis=1, keepdims=True)
            return np.ascontiguousarray(rows, dtype=np.float32)

    def _core(self, base, other, targets, out):
        _core.fidelity(base, other, self.classes, targets, out, self.temperature, self.num_threads)

    # ---- top-k teachers ----

    def _add_top_k(self, at, other, targets, out):
        """What there is of a teacher of whom k tokens are known; the rest is NaN."""
        self._core(other, other, targets, out)  # of which only what is the other's own is kept
        first, target = out[:, 5].copy(), out[:, 3].copy()
        indices, log_p = self.base.indices[at], self.base.log_probs[at].astype(np.float64)
        _check_top_k(indices, log_p, self.classes)
        is_valid = np.isfinite(first) & ~np.isnan(log_p).any(axis=1)
        rows = np.arange(len(other))
        out[:] = np.nan
        tail = None if self.base.tail_mass is None else self.base.tail_mass[at]
        with np.errstate(all="ignore"):  # of rows that are left out
            log_q, rest_q = _split(other[:, : self.classes], indices, self.temperature)
            out[:, 0] = _top_k_kl(log_p, log_q, tail, rest_q, self.tail, self.temperature)
        best = log_p.argmax(axis=1)
        out[:, 5], out[:, 6] = indices[rows, best], first
        out[:, 7] = np.exp(log_p[rows, best])
        if targets is not None:
            is_kept = (indices == targets[:, None]) & (targets >= 0)[:, None]
            found = np.where(is_kept, log_p, -np.inf).max(axis=1)
            out[:, 3] = np.where(is_kept.any(axis=1), found, np.nan)
            out[:, 4] = target
        out[~is_valid] = np.nan


def _check_top_k(indices, log_p, classes):
    outside = (indices < 0) | (indices >= classes)
    if outside.any():
        raise ValueError(f"indices has {indices[outside][0]}; expected tokens in [0, {classes})")
    if (np.diff(np.sort(indices, axis=1), axis=1) == 0).any():
        raise ValueError("indices has a token twice in a row; expected k different ones")
    with np.errstate(over="ignore"):
        mass = np.exp(log_p).sum(axis=1)
    if (mass > _MOST_MASS).any():
        raise ValueError(f"log_probs has a row of probabilities that add up to {mass[mass > _MOST_MASS][0]:.3g}; expected log-probabilities over the whole vocabulary")  # fmt: skip


def _mean_and_error(n, total, squares):
    if n == 0 or math.isinf(total):
        return total if n else math.nan, math.nan
    mean = total / n
    return mean, math.sqrt(max(0.0, squares / n - mean**2) / max(1, n - 1))


def _split(logits, indices, temperature):
    """Log-probabilities of some tokens, and the probability of all others, which is no difference from 1."""
    z = logits.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    z /= temperature
    some = np.take_along_axis(z, indices, axis=1)
    powers = np.exp(z, out=z)
    np.put_along_axis(powers, indices, 0, axis=1)
    rest = powers.sum(axis=1)
    total = rest + np.exp(some).sum(axis=1)
    return some - np.log(total)[:, None], rest / total


def _top_k_kl(log_p, log_q, rest, rest_q, how, temperature):
    if how == "renormalize":
        log_p, log_q = (x - np.logaddexp.reduce(x, axis=1, keepdims=True) for x in (log_p / temperature, log_q))  # fmt: skip
    p, q = np.exp(log_p), np.exp(log_q)
    if how == "truncate":
        return _products(p, log_p - log_q).sum(axis=1)
    # As sums of p log(p/q) - p + q, none of which is negative; all of both sides is 1.
    value = (_products(p, log_p - log_q) - p + q).sum(axis=1)
    if how == "bucket":
        if rest is None:  # where no token is left it is rounding alone
            rest = np.where(rest_q > 0, 1 - p.sum(axis=1), 0)
        rest = rest.clip(min=0)
        value += _products(rest, np.log(rest / rest_q)) - rest + rest_q
    return value.clip(min=0)


def _products(p, log_ratio):
    return np.where(p > 0, p * log_ratio, 0.0)


# ---- what fits together ----


def _check_options(base, other, temperature, tail):
    if not (isinstance(temperature, int | float | np.number) and 0 < temperature < math.inf):
        raise ValueError(f"temperature is {temperature!r}; expected a finite number above 0")
    if tail not in TAILS:
        raise ValueError(f"tail is {tail!r}; expected one of: {', '.join(TAILS)}")
    if isinstance(other, TopK):
        raise TypeError("other is a TopK; expected all of the vocabulary: only a base can be top-k")  # fmt: skip
    if temperature != 1 and (base.is_coded or other.is_coded):
        raise ValueError(f"temperature is {temperature}; expected 1 where a file holds llama.cpp's codes, whose floor hides the rest of the distribution")  # fmt: skip
    if temperature != 1 and isinstance(base, TopK) and tail != "renormalize":
        raise ValueError(f"temperature is {temperature} with tail={tail!r}; expected 1, or tail='renormalize': the tail's mass at another temperature is unknown")  # fmt: skip
    if isinstance(base, TopK) and other.is_coded:
        raise ValueError("other is a file of llama.cpp's codes beside a TopK base; expected logits")


def _positive(name, value):
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} is {value!r}; expected an integer of at least 1")
    return int(value)


def _classes(base, other, vocab_size):
    found = [side.shape[1] for side in (base, other) if not isinstance(side, TopK)]
    if vocab_size is not None:
        if vocab_size > min(found):
            raise ValueError(f"vocab_size is {vocab_size:,}; expected at most {min(found):,}, which the logits have")  # fmt: skip
        if vocab_size < min(found) and (base.is_coded or other.is_coded):
            raise ValueError(f"vocab_size is {vocab_size:,}, less than the {min(found):,} of llama.cpp's codes, which are normalised over all")  # fmt: skip
        return vocab_size
    if len(set(found)) > 1:
        raise ValueError(f"base has a vocabulary of {found[0]:,}, other of {found[1]:,}; expected the same, or vocab_size= where one is padded")  # fmt: skip
    return found[0]


def _scored(base, other):
    """Both sides, of which one is a file of llama.cpp: of the other, if it has whole chunks, the rows that the file has."""
    if base.is_coded:
        return base, base.scored_of(other)
    return other.scored_of(base), other


def _check_windows(base, other):
    """Of two folders whose files are named alike, those that belong together have the same number."""
    if min(len(base.files), len(other.files)) < 2:
        return
    for a, b in zip(base.files, other.files, strict=False):
        a, b = os.path.basename(a), os.path.basename(b)
        is_alike = re.sub(r"\d+", "", a) == re.sub(r"\d+", "", b)
        if is_alike and window_number(a) != window_number(b):
            raise ValueError(f"base has {a} where other has {b}; expected the same windows in both")


def _chunks(base, other, wanted):
    """How many rows each chunk has: as either side tells."""
    if base.shape[0] != other.shape[0]:
        raise ValueError(f"base has {base.shape[0]:,} rows, other {other.shape[0]:,}; expected the same tokens in both{_which(base, other)}")  # fmt: skip
    told = [side.chunks for side in (base, other) if len(side.chunks) > 1] or [base.chunks]
    if len(told) > 1 and not np.array_equal(told[0], told[1]):
        raise ValueError(f"base has {len(told[0])} chunks, the first of {told[0][0]} rows, other {len(told[1])}, of {told[1][0]}; expected the same")  # fmt: skip
    if wanted is not None and wanted > len(told[0]):
        raise ValueError(f"chunks is {wanted}; expected at most {len(told[0])}, which there are")
    return told[0][:wanted]


def _which(base, other):
    """What of an array goes with a file of llama.cpp, for an error."""
    if base.is_coded == other.is_coded:
        return ""
    chunks, n_ctx = (base if base.is_coded else other).tokens.shape
    return (
        f", of which llama.cpp's file has {n_ctx // 2} to {n_ctx - 2} of each chunk: logits of shape ({chunks}, {n_ctx}, "
        f"vocabulary) are cut so, others have to be [:, {n_ctx // 2} : {n_ctx - 1}] of such"
    )


def _targets(base, other, tokens, comparison):
    known = [side.targets for side in (base, other) if side.targets is not None]
    if base.targets is not None and other.targets is not None and not np.array_equal(base.tokens, other.tokens):  # fmt: skip
        chunk, at = np.argwhere(base.tokens != other.tokens)[0]
        raise ValueError(f"base and other are of different texts: token {at} of chunk {chunk} is {base.tokens[chunk, at]} and {other.tokens[chunk, at]}")  # fmt: skip
    if tokens is not None:
        tokens = np.asarray(tokens)
        if any(side.targets is not None and side.tokens.shape == tokens.shape for side in (base, other)):  # fmt: skip
            tokens = tokens[:, tokens.shape[1] // 2 + 1 :]  # of what the model read, what is scored
        given = _given_targets(tokens, base.shape[0], len(comparison.chunks))
        if known and not np.array_equal(given, known[0]):
            raise ValueError(f"tokens are not those of {base.name if base.targets is not None else other.name}; expected the same, or none")  # fmt: skip
        known = [given]
    if not known:
        return None
    targets = known[0][: comparison.rows]
    out_of_range = (targets < -1) | (targets >= comparison.classes)
    if out_of_range.any():
        raise ValueError(f"tokens has {targets[out_of_range][0]}; expected tokens in [0, {comparison.classes}), or -1 where there is none")  # fmt: skip
    return targets


def _given_targets(tokens, rows, chunks):
    if tokens.dtype.kind not in "iu":
        raise TypeError(f"tokens has dtype {tokens.dtype}; expected integers")
    if tokens.size != rows and tokens.ndim == 2 and tokens.size == rows + len(tokens):
        tokens = tokens[
            :, 1:
        ]  # what the model read: each but the first is what a row is to predict
    if tokens.ndim == 1 and chunks == 1 and tokens.size == rows + 1:
        tokens = tokens[1:]
    if tokens.size != rows:
        raise ValueError(f"tokens has shape {tokens.shape}; expected {rows:,}: one for each row, or one more for each sequence")  # fmt: skip
    targets = np.ascontiguousarray(tokens, dtype=np.int64).ravel()
    return np.where(targets == -100, -1, targets)


# ---- windows ----


def _size(*sides):
    return max(8 if side.dtype == "float64" else 4 if side.dtype == "float32" else 2 for side in sides)  # fmt: skip
