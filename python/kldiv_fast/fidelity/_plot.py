"""The picture of a report, or of several beside each other. Needs matplotlib."""

import numpy as np

from kldiv_fast.fidelity._report import short_names

# Okabe and Ito's, which the colour-blind tell apart; each with a line style and a marker of its own.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LEAST = 0.01  # the part of the tokens whose KLD is drawn as the least one
_BINS = 40
_POSITIONS = 32
_LEGEND = 150  # letters that fit beside each other


def plot(reports, path, kind="png"):
    """Draw the distribution of KLD, KLD over the position in a chunk, and agreement over the base's confidence."""
    from matplotlib.figure import Figure

    reports = sorted(reports, key=lambda report: report.kld.value)
    names = short_names([report.other.name for report in reports])
    columns = max(1, min(4, _LEGEND // (max(map(len, names)) + 12)))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(13, 4 + 0.2 * lines), layout="constrained")
    axes = figure.subplots(1, 3)
    looks = [_look(i, name) for i, name in enumerate(names)]
    _draw_distribution(axes[0], reports, looks)
    _draw_positions(axes[1], reports, looks)
    _draw_agreement(axes[2], reports, looks)
    figure.legend(*axes[2].get_legend_handles_labels(), loc="outside lower center", ncols=columns, frameon=False, handlelength=4)  # fmt: skip
    partial = ", partial" if any(report.is_partial for report in reports) else ""
    figure.suptitle(
        f"KL divergence from {short_names([reports[0].base.name])[0]}{partial}", fontsize=12
    )
    figure.savefig(path, format=kind, dpi=120)


def _look(i, name):
    """The first seven differ in all three, and 49 in one of them at least."""
    again = (i + i // 7) % 7
    return dict(color=_COLOURS[i % 7], linestyle=_STYLES[again], marker=_MARKERS[again], label=name)


def _draw_distribution(axes, reports, looks):
    found = [report.figures["kld"][np.isfinite(report.figures["kld"])] for report in reports]
    above = np.concatenate([klds[klds > 0] for klds in found])
    least, most = np.quantile(above, [_LEAST, 1]) if len(above) else (1e-9, 1)
    edges = np.geomspace(least, most * 1.0001, _BINS + 1)
    width = np.log10(edges[1] / edges[0])
    top = 0.0
    for klds, look in zip(found, looks, strict=True):
        counts, _ = np.histogram(klds.clip(min=least), edges)
        density = counts / max(1, len(klds)) / width
        top = max(top, density[1:].max())  # what stands at the left may reach beyond
        axes.stairs(density, edges, color=look["color"], linestyle=look["linestyle"], linewidth=1.6)  # fmt: skip
    for i, (klds, look) in enumerate(zip(found, looks, strict=True)):
        if not len(klds):
            continue
        height = top * (1.08 + 0.09 * (len(found) - 1 - i))
        quantiles = np.quantile(klds, [0.5, 0.9, 0.99]).clip(min=least)
        axes.plot(quantiles, [height] * 3, color=look["color"], marker=look["marker"], markersize=4)  # fmt: skip
        for quantile, text in zip(quantiles, ("50%", "90", "99"), strict=True):
            axes.annotate(text, (quantile, height), (0, 3), textcoords="offset points", fontsize=7, ha="center", color=look["color"])  # fmt: skip
    axes.set_ylim(0, (top or 1) * (1.12 + 0.09 * len(found)))  # 0: no row has a value
    axes.set_xscale("log")
    axes.set_xlabel("KLD of a token (nats; what is smaller stands at the left)")
    axes.set_ylabel("part of the tokens per decade")
    axes.set_title("Distribution, and its quantiles", fontsize=10)


def _draw_positions(axes, reports, looks):
    for report, look in zip(reports, looks, strict=True):
        position = np.concatenate([np.arange(n) for n in report.chunk_lengths])
        klds = report.figures["kld"]
        finite = np.isfinite(klds)
        count = int(report.chunk_lengths.max())
        bins = min(_POSITIONS, count)
        place = position[finite] * bins // count
        with np.errstate(invalid="ignore"):
            means = np.bincount(place, klds[finite], bins) / np.bincount(place, minlength=bins)
        x = (np.arange(bins) + 0.5) * count / bins
        axes.plot(x, means, **look, markersize=3.5, linewidth=1.4)
    if all((report.figures["kld"] > 0).any() for report in reports):
        axes.set_yscale("log")
    axes.set_xlabel("row in its chunk")
    axes.set_ylabel("mean KLD (nats)")
    axes.set_title("Over the position", fontsize=10)


def _draw_agreement(axes, reports, looks):
    edges = np.linspace(0, 1, 11)
    for report, look in zip(reports, looks, strict=True):
        valid = np.isfinite(report.figures["top_p_base"])
        top_p = report.figures["top_p_base"][valid]
        same = (report.figures["top_base"] == report.figures["top"])[valid]
        place = np.clip(np.digitize(top_p, edges) - 1, 0, 9)
        counts = np.bincount(place, minlength=10)
        kept = counts > 0
        x = np.bincount(place, top_p, 10)[kept] / counts[kept]
        y = 100 * np.bincount(place, same, 10)[kept] / counts[kept]
        axes.plot(x, y, **look, markersize=4.5, linewidth=1.4)
    axes.set_xlim(0, 1)
    axes.set_xlabel("base's greatest probability")
    axes.set_ylabel("same likeliest token (%)")
    axes.set_title("Agreement over confidence", fontsize=10)
    for line in (0.25, 0.5, 0.75, 0.95):
        axes.axvline(line, color="0.5", alpha=0.2, linewidth=0.8, zorder=0)
