"""The picture of a report, or of several beside each other. Needs matplotlib."""

import numpy as np

from kldiv_fast.fidelity._report import short_names

# Okabe and Ito's, which the colour-blind tell apart; each with a line style and a marker of its own.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LEAST = 1e-12  # of a KLD that is drawn: smaller ones and 0 stand there
_BINS = 60
_POSITIONS = 32


def plot(reports, path, kind="png"):
    """Draw the distribution of KLD, KLD over the position in a chunk, and agreement over the base's confidence."""
    from matplotlib.figure import Figure

    reports = sorted(reports, key=lambda report: report.kld.value)
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    axes = figure.subplots(1, 3)
    names = short_names([report.other.name for report in reports])
    looks = [
        dict(color=_COLOURS[i % 7], linestyle=_STYLES[i % 7], label=name)
        for i, name in enumerate(names)
    ]
    _draw_distribution(axes[0], reports, looks)
    _draw_positions(axes[1], reports, looks)
    _draw_agreement(axes[2], reports, looks)
    figure.legend(*axes[2].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, handlelength=4)  # fmt: skip
    partial = ", partial" if any(report.is_partial for report in reports) else ""
    figure.suptitle(f"KL divergence from {short_names([reports[0].base.name])[0]}{partial}", fontsize=12)
    figure.savefig(path, format=kind, dpi=120)


def _klds(report):
    return report.figures["kld"][np.isfinite(report.figures["kld"])].clip(min=_LEAST)


def _draw_distribution(axes, reports, looks):
    found = [_klds(report) for report in reports]
    whole = np.log10(np.concatenate(found)) if any(map(len, found)) else np.zeros(1)
    edges = np.linspace(np.floor(whole.min() * 4) / 4, np.ceil(whole.max() * 4 + 1e-9) / 4 + 0.25, _BINS + 1)  # fmt: skip
    for i, (klds, look) in enumerate(zip(found, looks, strict=True)):
        if not len(klds):
            continue
        counts, _ = np.histogram(np.log10(klds), edges)
        density = counts / len(klds) / (edges[1] - edges[0])
        axes.stairs(density, 10**edges, color=look["color"], linestyle=look["linestyle"], linewidth=1.6)  # fmt: skip
        quantiles = np.quantile(klds, [0.5, 0.9, 0.99])
        heights = np.interp(np.log10(quantiles), (edges[:-1] + edges[1:]) / 2, density)
        for quantile, height, text in zip(quantiles, heights, ("50%", "90%", "99%"), strict=True):
            axes.plot(quantile, height, _MARKERS[i % 7], color=look["color"], markersize=5)
            axes.annotate(text, (quantile, height), (4, 3), textcoords="offset points", fontsize=8, color=look["color"])  # fmt: skip
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.margins(y=0.15)
    axes.set_xlabel("KLD of a token (nats)")
    axes.set_ylabel("part of the tokens per decade")
    axes.set_title("Distribution, and its quantiles", fontsize=10)


def _draw_positions(axes, reports, looks):
    for i, (report, look) in enumerate(zip(reports, looks, strict=True)):
        position = np.concatenate([np.arange(n) for n in report.chunk_lengths])
        klds = report.figures["kld"]
        finite = np.isfinite(klds)
        count = int(report.chunk_lengths.max())
        bins = min(_POSITIONS, count)
        place = position[finite] * bins // count
        with np.errstate(invalid="ignore"):
            means = np.bincount(place, klds[finite], bins) / np.bincount(place, minlength=bins)
        x = (np.arange(bins) + 0.5) * count / bins
        axes.plot(x, means, **look, marker=_MARKERS[i % 7], markersize=3.5, linewidth=1.4)
    if all((report.figures["kld"] > 0).any() for report in reports):
        axes.set_yscale("log")
    axes.set_xlabel("row in its chunk")
    axes.set_ylabel("mean KLD (nats)")
    axes.set_title("Over the position", fontsize=10)


def _draw_agreement(axes, reports, looks):
    edges = np.linspace(0, 1, 11)
    for i, (report, look) in enumerate(zip(reports, looks, strict=True)):
        valid = np.isfinite(report.figures["top_p_base"])
        top_p = report.figures["top_p_base"][valid]
        same = (report.figures["top_base"] == report.figures["top"])[valid]
        place = np.clip(np.digitize(top_p, edges) - 1, 0, 9)
        counts = np.bincount(place, minlength=10)
        kept = counts > 0
        x = np.bincount(place, top_p, 10)[kept] / counts[kept]
        y = 100 * np.bincount(place, same, 10)[kept] / counts[kept]
        axes.plot(x, y, **look, marker=_MARKERS[i % 7], markersize=4.5, linewidth=1.4)
    axes.set_xlim(0, 1)
    axes.set_xlabel("base's greatest probability")
    axes.set_ylabel("same likeliest token (%)")
    axes.set_title("Agreement over confidence", fontsize=10)
    for line in (0.25, 0.5, 0.75, 0.95):
        axes.axvline(line, color="0.9", linewidth=0.8, zorder=0)
