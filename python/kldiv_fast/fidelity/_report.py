"""The figures of all rows, and the report that they come to."""

import dataclasses
import itertools
import os
from dataclasses import dataclass, field

import numpy as np

# A row's, in the order of kldiv_figure.
FIGURES = (
    "kld",
    "kld_reverse",
    "jsd",
    "log_p_base",
    "log_p",
    "top_base",
    "top",
    "top_p_base",
    "shared_top5",
)
_EDGES = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)  # of the base's greatest probability
_KLD_QUANTILES = (1.0, 0.999, 0.99, 0.95, 0.9, 0.5, 0.1, 0.05, 0.01, 0.001, 0.0)
_DELTA_P_QUANTILES = (1.0, 0.999, 0.99, 0.95, 0.9, 0.75, 0.5, 0.25, 0.1, 0.05, 0.01, 0.001, 0.0)


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard errors.

    Attributes
    ----------
    value : float
    se : float
        As if all tokens were independent of each other, as llama.cpp has it.
    se_chunks : float or None
        With chunks independent of each other, and their tokens not. None: there is one chunk alone.
    """

    value: float
    se: float
    se_chunks: float | None = None


@dataclass(frozen=True)
class Bucket:
    """The tokens where the base's greatest probability is from ``low`` to below ``high``."""

    low: float
    high: float
    tokens: int
    kld: float
    same_top: float


@dataclass(frozen=True)
class Input:
    """What was compared.

    Attributes
    ----------
    name, producer, shape, dtype
        As of :class:`Logits`.
    codec_bound : float or None
        Of llama.cpp's codes: how far a log-probability may be rounded, half a step. A row's two float32 numbers add up to 2e-6.
    targets_at_floor : int or None
        Of llama.cpp's codes: how many of the rows' targets have code 0, which says no more than that they are at or below the
        floor.
    """

    name: str
    producer: str
    shape: tuple[int, int]
    dtype: str
    codec_bound: float | None = None
    targets_at_floor: int | None = None


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """What :func:`fidelity` found. Divergences in nats, probabilities as parts of 1; ``str`` is the report.

    Attributes
    ----------
    base, other : Input
    tokens : int
        Rows that count,
    nan_rows : int
        and rows that don't, for an element in either is NaN or infinite, or all are -inf.
    infinite_rows : int
        Rows whose divergence is infinite: other gives no probability to what base has.
    classes, chunks : int
    temperature : float
    tail : str or None
        Of a top-k base.
    is_partial : bool
        Reading was interrupted.
    kld, kld_reverse, jsd : Estimate
        KL(base‖other), KL(other‖base), and Jensen-Shannon's. The last two are NaN for a top-k base.
    kld_quantiles, delta_p_quantiles : dict of float to float
        By the part that lies below.
    same_top, top5_overlap : Estimate
        How often both have the same likeliest token, and the part of the five likeliest that both have.
    buckets : tuple of Bucket
    ppl, ppl_base, ln_ppl_ratio, ppl_ratio, ppl_difference, delta_p, rms_delta_p : Estimate or None
        None, as the correlation: the tokens are unknown.
    correlation : float or None
        Of the two perplexities' logarithms.
    figures : ndarray
        A row for each token, with fields kld, kld_reverse, jsd, log_p_base, log_p (the target's), top_base, top (the likeliest
        tokens), top_p_base, shared_top5.
    chunk_lengths : ndarray
        How many of the rows each chunk has.
    """

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
    figures: np.ndarray = field(repr=False, compare=False)
    chunk_lengths: np.ndarray = field(repr=False, compare=False)

    def to_dict(self):
        """All figures but the rows', of Python's own types, as JSON has them."""
        shown = dataclasses.replace(self, figures=None, chunk_lengths=None)
        found = dataclasses.asdict(shown)
        del found["figures"], found["chunk_lengths"]
        for name in ("kld_quantiles", "delta_p_quantiles"):
            if found[name] is not None:
                found[name] = {f"{part:g}": value for part, value in found[name].items()}
        return found

    def __str__(self):
        return "\n\n".join("\n".join(lines) for lines in (*_llama_sections(self), _own_section(self)))  # fmt: skip


# ---- statistics ----


def report_of(base, other, figures, chunks, *, classes, temperature, tail, is_partial):
    """The report of the rows that were read; `chunks`: how many rows each has, or was to have."""
    ends = np.minimum(np.cumsum(chunks), len(figures))
    lengths = np.diff(ends, prepend=0)
    lengths = lengths[lengths > 0]
    valid = ~np.isnan(figures[:, FIGURES.index("kld")])
    column = dict(zip(FIGURES, figures[valid].T, strict=True))
    group = np.repeat(np.arange(len(lengths)), lengths)[valid]
    n = int(valid.sum())
    kld = column["kld"]
    same = (column["top_base"] == column["top"]).astype(np.float64)
    found = {
        "base": base,
        "other": other,
        "tokens": n,
        "nan_rows": len(figures) - n,
        "infinite_rows": int(np.isinf(kld).sum()),
        "classes": classes,
        "chunks": len(lengths),
        "temperature": temperature,
        "tail": tail,
        "is_partial": is_partial,
        "kld": _estimate(kld, group),
        "kld_quantiles": _quantiles(kld, _KLD_QUANTILES),
        "kld_reverse": _estimate(column["kld_reverse"], group),
        "jsd": _estimate(column["jsd"], group),
        "same_top": _proportion(same, group),
        "top5_overlap": _estimate(column["shared_top5"] / min(5, classes), group),
        "buckets": tuple(_buckets(column["top_p_base"], kld, same)),
    }
    known = ~np.isnan(column["log_p_base"]) & ~np.isnan(column["log_p"])
    if known.any():
        found |= _of_targets(column["log_p_base"][known], column["log_p"][known], group[known])
    named = np.ascontiguousarray(figures).view([(name, np.float64) for name in FIGURES])[:, 0]
    return Fidelity(**found, figures=named, chunk_lengths=lengths)


def _of_targets(log_p_base, log_p, group):
    """What is known where the tokens are: perplexities, and what became of the tokens' probabilities."""
    with np.errstate(invalid="ignore", over="ignore"):
        q, b = _estimate(-log_p, group), _estimate(-log_p_base, group)
        n = len(log_p)
        covariance = _divide(float((log_p * log_p_base).mean() - q.value * b.value), n - 1)
        ppl, ppl_base = float(np.exp(q.value)), float(np.exp(b.value))
        u, u_base = ppl * q.se, ppl_base * b.se
        # llama.cpp's u^2 + v^2 - 2 cov is the variance of a difference, which keeps its digits where models nearly agree.
        difference = _estimate(log_p_base - log_p, group)
        ln_ratio = Estimate(q.value - b.value, difference.se, difference.se_chunks)
        of_ppls = _estimate(ppl_base * log_p_base - ppl * log_p, group)
        ratio = float(np.exp(ln_ratio.value))
        delta_p = np.exp(log_p) - np.exp(log_p_base)
        squares = _estimate(np.square(delta_p), group)
        rms = _root(squares.value)
    of_rms = [None if se is None else _divide(se, 2 * rms) for se in (squares.se, squares.se_chunks)]  # fmt: skip
    if rms == 0:
        of_rms = [0.0, None if squares.se_chunks is None else 0.0]
    return {
        "ppl": Estimate(ppl, u, _times(ppl, q.se_chunks)),
        "ppl_base": Estimate(ppl_base, u_base, _times(ppl_base, b.se_chunks)),
        "correlation": _divide(covariance, q.se * b.se),
        "ln_ppl_ratio": ln_ratio,
        "ppl_ratio": Estimate(ratio, ratio * ln_ratio.se, _times(ratio, ln_ratio.se_chunks)),
        "ppl_difference": Estimate(ppl - ppl_base, of_ppls.se, of_ppls.se_chunks),
        "delta_p": _estimate(delta_p, group),
        "delta_p_quantiles": _quantiles(delta_p, _DELTA_P_QUANTILES),
        "rms_delta_p": Estimate(rms, *of_rms),
    }


def _estimate(x, group):
    """The mean, with the standard errors of tokens and of whole chunks."""
    n = len(x)
    if n == 0:
        return Estimate(float("nan"), float("nan"))
    with np.errstate(invalid="ignore", over="ignore"):
        mean = float(x.mean())
        variance = float(np.maximum(0.0, np.square(x).mean() - mean**2))  # NaN of an infinite mean
        sums = np.bincount(group, x - mean)
        sums = sums[np.bincount(group, minlength=len(sums)) > 0]
        count = len(sums)
        clustered = _root(float(sums @ sums) * count / (count - 1)) / n if count > 1 else None
    return Estimate(mean, _root(_divide(variance, n - 1)), clustered)


def _proportion(x, group):
    found = _estimate(x, group)
    return Estimate(found.value, _root(_divide(found.value * (1 - found.value), len(x) - 1)), found.se_chunks)  # fmt: skip


def _divide(a, b):
    return a / b if b > 0 else float("nan")


def _times(a, b):
    return None if b is None else a * b


def _root(x):
    return float(np.sqrt(max(x, 0.0))) if not np.isnan(x) else x


def _quantiles(x, parts):
    """As llama.cpp has them: linear between the two neighbours."""
    if not len(x):
        return dict.fromkeys(parts, float("nan"))
    x = np.sort(x)
    place = np.array(parts) * (len(x) - 1)
    low = place.astype(np.int64)
    high, rest = np.minimum(low + 1, len(x) - 1), place - low
    with np.errstate(invalid="ignore"):
        values = np.where(rest == 0, x[low], (1 - rest) * x[low] + rest * x[high])
    return dict(zip(parts, values.tolist(), strict=True))


def _buckets(top_p, kld, same):
    for low, high in itertools.pairwise(_EDGES):
        inside = (top_p >= low) & ((top_p < high) | (high == 1))
        n = int(inside.sum())
        mean = [float(x[inside].mean()) if n else float("nan") for x in (kld, same)]
        yield Bucket(low, high, n, *mean)


# ---- layouts ----


def _llama_sections(found):
    """The lines of llama.cpp's tools/perplexity, to the letter: people read them by regular expressions."""
    if found.ppl is not None:
        yield [
            "====== Perplexity statistics ======",
            f"Mean PPL(Q)                   : {_wide(found.ppl)}",
            f"Mean PPL(base)                : {_wide(found.ppl_base)}",
            f"Cor(ln(PPL(Q)), ln(PPL(base))): {100 * found.correlation:6.2f}%",
            f"Mean ln(PPL(Q)/PPL(base))     : {_wide(found.ln_ppl_ratio)}",
            f"Mean PPL(Q)/PPL(base)         : {_wide(found.ppl_ratio)}",
            f"Mean PPL(Q)-PPL(base)         : {_wide(found.ppl_difference)}",
        ]
    yield [
        "====== KL divergence statistics ======",
        f"Mean    KLD: {_wide(found.kld)}",
        *(f"{_label(part)} KLD: {x:10.6f}" for part, x in found.kld_quantiles.items()),
    ]
    lines = ["====== Token probability statistics ======"]
    if found.delta_p is not None:
        quantiles = found.delta_p_quantiles.items()
        lines += [f"Mean    Δp: {_percent(found.delta_p)}"]
        lines += [f"{_label(part)} Δp: {100 * x:6.3f}%" for part, x in quantiles]
        lines += [f"RMS Δp    : {_percent(found.rms_delta_p)}"]
    yield [*lines, f"Same top p: {_percent(found.same_top)}"]


def _label(part):
    names = {1.0: "Maximum", 0.5: "Median ", 0.0: "Minimum"}
    return names.get(part) or f"{100 * part:4.1f}%  "


def _wide(x):
    return f"{x.value:10.6f} ± {x.se:10.6f}"


def _percent(x):
    return f"{100 * x.value:6.3f} ± {100 * x.se:5.3f} %"


def _own_section(found):
    """What llama.cpp doesn't print."""
    lines = ["====== Beyond llama.cpp ======"]
    lines += [_described("Base ", found.base), _described("Other", found.other)]
    if found.is_partial:
        lines.append("PARTIAL: interrupted; these are the tokens that were read before")
    counted = f"Tokens: {found.tokens:,} in {found.chunks:,} chunk{'s' * (found.chunks != 1)}, vocabulary {found.classes:,}"  # fmt: skip
    lines.append(counted + (f", temperature {found.temperature:g}" * (found.temperature != 1)))
    if found.nan_rows:
        lines.append(f"Left out: {found.nan_rows:,} rows with NaN, infinity or nothing but -inf")
    if found.infinite_rows:
        lines.append(f"Infinite: {found.infinite_rows:,} rows where other gives no probability to what base has")  # fmt: skip
    if found.tail is not None:
        lines.append(f"Top-k base: tail {found.tail}")
    of_chunks = found.kld.se_chunks
    lines.append(f"KLD(base‖other): {_small(found.kld)}" + ("" if of_chunks is None else ", by chunks"))  # fmt: skip
    if found.tail is None:
        lines.append(f"KLD(other‖base): {_small(found.kld_reverse)}")
        lines.append(f"JSD            : {_small(found.jsd)}")
        lines.append(f"Top-5 overlap  : {_percent(_by_chunks(found.top5_overlap))}")
    for name, x in (("Δp  ", found.delta_p), ("same", found.same_top)):
        if x is not None and x.se_chunks is not None:
            lines.append(f"SE by chunks, {name}: {100 * x.se_chunks:.3f} %")
    if found.ln_ppl_ratio is not None and found.ln_ppl_ratio.se_chunks is not None:
        lines.append(f"SE by chunks, ln(PPL(Q)/PPL(base)): {found.ln_ppl_ratio.se_chunks:.6f}")
    lines += _codec_lines(found)
    lines.append("Base's top p       tokens        KLD  same top")
    for bucket in found.buckets:
        end = "]" if bucket.high == 1 else ")"
        lines.append(f"[{bucket.low:4.2f}, {bucket.high:4.2f}{end}  {bucket.tokens:10,} {bucket.kld:10.6f}  {100 * bucket.same_top:6.2f} %")  # fmt: skip
    return lines


def _described(called, side):
    return f"{called}: {side.name} ({side.producer}, {side.shape[0]:,} x {side.shape[1]:,}, {side.dtype})"  # fmt: skip


def _by_chunks(x):
    return x if x.se_chunks is None else Estimate(x.value, x.se_chunks)


def _small(x):
    """Enough digits for models that nearly agree."""
    shown = _by_chunks(x)
    return f"{shown.value:.6g} ± {shown.se:.2g}"


def _codec_lines(found):
    for called, side in (("base", found.base), ("other", found.other)):
        if side.codec_bound is None:
            continue
        yield f"Codes of {called}: log-probabilities rounded by at most {side.codec_bound:.3g}"
        if side.targets_at_floor is not None:
            perplexity = "PPL(base)" if called == "base" else "PPL(Q)"
            so = f": {perplexity} is too low" if side.targets_at_floor else ""
            yield f"  {side.targets_at_floor:,} targets at or below the floor (code 0){so}"
    if found.other.codec_bound is not None:
        yield "  what other has at or below the floor is counted as the floor: KLD is a lower bound"


def table_of(reports, layout):
    """Several models beside the same base, best first: a column for each."""
    ordered = sorted(reports, key=lambda x: (np.isnan(x.kld.value), x.kld.value))
    rows = [("", *short_names([report.other.name for report in ordered]))]
    for called, show in _TABLE:
        cells = [show(report) for report in ordered]
        if any(cell is not None for cell in cells):
            rows.append((called, *((cell or "").strip() for cell in cells)))
    return _markdown(rows) if layout == "markdown" else _plain(rows)


def short_names(paths):
    """Files' names without their folders, where that tells them apart."""
    short = [os.path.basename(path.rstrip("/")) or path for path in paths]
    return short if len(set(short)) == len(short) else list(paths)


def _mean_of(name, show):
    return lambda found: None if getattr(found, name) is None else show(_by_chunks(getattr(found, name)))  # fmt: skip


_TABLE = (
    ("mean KLD", _mean_of("kld", _small)),
    ("median KLD", lambda found: f"{found.kld_quantiles[0.5]:.6g}"),
    ("90.0% KLD", lambda found: f"{found.kld_quantiles[0.9]:.6g}"),
    ("99.0% KLD", lambda found: f"{found.kld_quantiles[0.99]:.6g}"),
    ("99.9% KLD", lambda found: f"{found.kld_quantiles[0.999]:.6g}"),
    ("maximum KLD", lambda found: f"{found.kld_quantiles[1.0]:.6g}"),
    ("KLD(other‖base)", lambda found: _small(_by_chunks(found.kld_reverse)) if found.tail is None else None),
    ("JSD", lambda found: _small(_by_chunks(found.jsd)) if found.tail is None else None),
    ("same top p", _mean_of("same_top", _percent)),
    ("top-5 overlap", lambda found: _percent(_by_chunks(found.top5_overlap)) if found.tail is None else None),
    ("ln(PPL(Q)/PPL(base))", _mean_of("ln_ppl_ratio", _small)),
    ("PPL(Q)", _mean_of("ppl", _small)),
    ("PPL(base)", _mean_of("ppl_base", _small)),
    ("mean Δp", _mean_of("delta_p", _percent)),
    ("RMS Δp", _mean_of("rms_delta_p", _percent)),
    ("tokens", lambda found: f"{found.tokens:,}"),
    ("rows left out", lambda found: f"{found.nan_rows:,}" if found.nan_rows else None),
    ("partial", lambda found: "interrupted" if found.is_partial else None),
)  # fmt: skip


def _plain(rows):
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for called, *cells in rows:
        shown = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([called.ljust(widths[0]), *shown]).rstrip())
    return "\n".join(lines)


def _markdown(rows):
    rows = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    ruled = [rows[0], ["---", *["---:"] * (len(rows[0]) - 1)], *rows[1:]]
    return "\n".join("| " + " | ".join(row) + " |" for row in ruled)
