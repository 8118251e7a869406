"""kldiv_fast beside its peers and beside the machine's limit: one page of tables, its targets, and plots.

python benchmarks/report.py [--seconds 2] [--output docs] [--only SECTION ...]

Everything in a table's row or column that is compared was measured in turn, in the same run. Writes speed.md and
speed_*.svg and .png; with --only, those sections of the page that is there.
"""

import argparse
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import calls
import executors as side_by_side
import forms as of_forms
import kldiv_fast
import ml_dtypes
import numpy as np
from kldiv_fast import kl, kl_value_and_grad
from matplotlib import pyplot
from memory_limit import reader, writer
from peers import PEERS, SHAPES, agree, make_pair, reference
from timing import interleaved_medians, machine
from tqdm import tqdm

PACKAGES = ["kldiv_fast", "numpy", "scipy", "tensorflow-cpu", "keras", "torch", "jax", "numba"]
PACKAGES += ["numexpr", "numkong"]
LARGE = [(8192, 1000), (100_000, 46), (64, 151_936)]
DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]
REST = 0.01  # beside the limit's loops, which are OpenMP's


@dataclass
class Target:
    """One line of what this project wants of itself."""

    what: str
    measured: float
    bound: float
    at_least: bool = False

    def wanted(self):
        """Its line's first two cells."""
        return f"| {self.what} | {'at least' if self.at_least else 'at most'} {self.bound:g} |"

    def line(self):
        met = self.measured >= self.bound if self.at_least else self.measured <= self.bound
        return f"{self.wanted()} {self.measured:.3g} | {'yes' if met else '**no**'} |"


def label(shape):
    return "x".join(map(str, shape))


def name_of(dtype):
    return np.dtype(dtype).name


def us(seconds):
    """Microseconds to three digits, thousands in full."""
    value = seconds * 1e6
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def table(head, rows):
    yield "| " + " | ".join(head) + " |"
    yield "| --- |" + " ---: |" * (len(head) - 1)
    for row in rows:
        yield "| " + " | ".join(map(str, row)) + " |"


# ---- the peers ----

LEAST_RATIO = {
    "Keras eager, tensors in": 15,
    "tf.function": 9,
    "tf.function, XLA": 6,
    "torch.compile": 6,
    "JAX jit": 8,
    "numba": 6,
    "NumPy": 5,
}


def prepare(shape, skipped):
    """The peers that are there and agree, ready to be timed."""
    y_true, y_pred = make_pair(shape)
    exact = reference(y_true, y_pred)
    functions = {}
    for name, make in PEERS.items():
        try:
            function = make(y_true, y_pred)
        except (ImportError, ValueError) as error:
            skipped.add(f"{name} at {label(shape)}: {error}")
            continue
        value = float(function())
        if not agree(name, value, exact):
            sys.exit(f"{name} gives {value} at {shape}, expected {exact}")
        functions[name] = function
    return functions


def peers(seconds):
    skipped = set()
    medians = {}
    for shape in tqdm(SHAPES, desc="peers", unit="shape"):
        medians[shape] = interleaved_medians(prepare(shape, skipped), seconds)

    def cell(shape, name):
        if name not in medians[shape]:
            return "-"
        ratio = medians[shape][name] / medians[shape]["kldiv_fast"]
        return f"{us(medians[shape][name])} ({ratio:.{int(ratio < 100)}f}x)"

    rows = [[name, *(cell(shape, name) for shape in SHAPES)] for name in PEERS]
    lines = [
        "## Beside the peers",
        "",
        "Microseconds to one mean; in brackets, how many times kldiv_fast's own.",
        "",
    ]
    lines += table(["us per call", *map(label, SHAPES)], rows)
    lines += ["", *(f"Left out: {what}." for what in sorted(skipped))]

    def ratio(shape, name):
        return medians[shape].get(name, np.nan) / medians[shape]["kldiv_fast"]

    targets = [
        Target(f"{label(shape)}: times faster than {name}", ratio(shape, name), bound, True)
        for name, bound in LEAST_RATIO.items()
        for shape in SHAPES
    ]
    small = (512, 46)
    targets += [
        Target("512x46, us", medians[small]["kldiv_fast"] * 1e6, 8),
        Target("512x46: times faster than torch eager", ratio(small, "torch eager"), 7, True),
        Target("512x46: times faster than tf.function", ratio(small, "tf.function"), 35, True),
        Target("32x10, us", medians[(32, 10)]["kldiv_fast"] * 1e6, 0.5),
    ]
    plot_latency(medians)
    return lines, targets


def plot_latency(medians):
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    for ax, shape in zip(axes, [(2, 2), (512, 46)], strict=True):
        values = {name: medians[shape][name] * 1e6 for name in PEERS if name in medians[shape]}
        ax.barh(list(values), list(values.values()), color=["C1"] + ["C0"] * (len(values) - 1))
        ax.set(xscale="log", xlabel="microseconds per call", title=label(shape))
        ax.invert_yaxis()
        ax.grid(axis="x", alpha=0.3)
    return save(figure, "latency")


# ---- the machine's limit ----


def limit(seconds):
    threads = kldiv_fast.get_num_threads()
    rows, targets = [], []
    for shape in tqdm(LARGE, desc="limit", unit="shape"):
        pairs = {name_of(dtype): make_pair(shape, dtype) for dtype in DTYPES}
        functions = {}
        for name, (t, p) in pairs.items():
            functions[name] = lambda t=t, p=p: kl(t, p)
            functions["limit " + name] = reader(t, p, threads)
        medians = interleaved_medians(functions, 2 * seconds, REST)
        size = shape[0] * shape[1]
        for name in pairs:
            mine, least = medians[name], medians["limit " + name]
            speed = size / mine / 1e9
            rows.append(
                [label(shape), name, us(mine), us(least), f"{mine / least:.2f}", f"{speed:.2f}"]
            )
        for name, bound in {"float32": 1.05, "float64": 1.1}.items():
            ratio = medians[name] / medians["limit " + name]
            targets.append(Target(f"{label(shape)} {name}: times the limit", ratio, bound))
        for name in ("float16", "bfloat16"):
            ratio = medians["float32"] / medians[name]
            targets.append(
                Target(f"{label(shape)} {name}: elements/s over float32's", ratio, 1, True)
            )
    head = ["shape", "dtype", "kl, us", "limit, us", "kl / limit", "kl, G elements/s"]
    lines = ["## Beside the limit", ""]
    lines += [
        f"The limit is the time of a loop that only adds up both arrays, on the same {threads} threads.",
        "",
    ]
    return [*lines, *table(head, rows)], targets


def sizes(seconds):
    """Speed against size, with the limit drawn in, and the time's growth up to 10^10 elements."""
    threads = kldiv_fast.get_num_threads()
    counts = [2**k for k in range(7, 27)]
    speeds = {"kl": [], "kl, 1 thread": [], "limit": [], "NumPy": []}
    for n in tqdm(counts, desc="sizes", unit="size"):
        t, p = make_pair((1, n))
        functions = {
            "kl": lambda t=t, p=p: kl(t, p),
            "kl, 1 thread": lambda t=t, p=p: kl(t, p, num_threads=1),
            "limit": reader(t, p, threads if n > 2**16 else 1),
            "NumPy": PEERS["NumPy"](t, p),
        }
        for name, median in interleaved_medians(functions, seconds / 4).items():
            speeds[name].append(n / median / 1e9)
    figure, ax = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for name, values in speeds.items():
        first = 7 if name == "limit" else 0  # below, to call the loop is what takes the time
        ax.plot(
            counts[first:], values[first:], "--" if name == "limit" else "-", label=name, marker="."
        )
    title = f"float32, {threads} threads. limit: the time to read both arrays"
    ax.set(xscale="log", yscale="log", xlabel="elements", ylabel="G elements/s", title=title)
    ax.grid(alpha=0.3)
    ax.legend()
    save(figure, "size")
    return growth()


def growth():
    one = np.full(1, 0.25, np.float32)
    rows, per_element = [], []
    for exponent in range(2, 11):
        t, p = (np.broadcast_to(x, (10, 10 ** (exponent - 1))) for x in (one, one / 2))
        median = interleaved_medians({"kl": lambda t=t, p=p: kl(t, p)}, 0.2 if exponent < 9 else 0)[
            "kl"
        ]
        rows.append([f"10^{exponent}", us(median), f"{median / 10**exponent * 1e9:.3f}"])
        if exponent > 5:
            per_element.append(median / 10**exponent)
    lines = ["## Growth", "", "Broadcast views of a single number, beyond the memory's size.", ""]
    lines += table(["elements", "us per call", "ns per element"], rows)
    worst = max(per_element) / min(per_element)
    return lines, [Target("time per element from 10^6 to 10^10, greatest over least", worst, 1.5)]


# ---- kernels and threads ----


def kernels(seconds):
    t, p = make_pair((1024, 1000))
    pairs = {name_of(dtype): (t.astype(dtype), p.astype(dtype)) for dtype in DTYPES}
    chosen = kldiv_fast.current_isa()
    isas = kldiv_fast.available_isas()

    def on(isa, t, p):
        def call():
            kldiv_fast._core.select_isa(isa)
            return kl(t, p, num_threads=1)

        return call

    functions = {(isa, name): on(isa, *pair) for isa in isas for name, pair in pairs.items()}
    functions["limit"] = reader(t, p, 1)
    medians = interleaved_medians(functions, 2 * seconds)
    kldiv_fast._core.select_isa(chosen)
    speed = {key: t.size / median / 1e9 for key, median in medians.items()}
    rows = [[isa, *(f"{speed[isa, name]:.2f}" for name in pairs)] for isa in isas]
    lines = ["## Kernels", "", "1024x1000 on one thread, in cache, G elements/s. "]
    lines[-1] += f"Only to read the two float32 arrays: {speed['limit']:.1f}."
    lines += ["", *table(["ISA", *pairs], rows)]
    targets = []
    if "avx512" in isas:
        scaled = speed["avx512", "float32"] * 10 / speed["limit"]
        targets.append(
            Target(
                "1024x1000 AVX-512, one thread: G elements/s where reading is 10", scaled, 2.8, True
            )
        )
        ratio = speed["avx2", "float32"] / speed["avx512", "float32"]
        targets.append(Target("the same, AVX2 over AVX-512", ratio, 0.65, True))
    figure, ax = pyplot.subplots(figsize=(7, 3), layout="constrained")
    for i, name in enumerate(pairs):
        ax.bar(
            np.arange(len(isas)) + 0.2 * i - 0.3,
            [speed[isa, name] for isa in isas],
            0.2,
            label=name,
        )
    ax.set(
        ylabel="G elements/s",
        title="1024x1000, one thread",
        xticks=range(len(isas)),
        xticklabels=isas,
    )
    ax.legend()
    save(figure, "isa")
    return lines, targets


def threads(seconds):
    most = kldiv_fast.get_num_threads()
    counts = sorted({1, most, *(2**k for k in range(10) if 2**k < most)})
    rows, targets, scaling = [], [], {}
    for shape in [(1024, 1000), *LARGE]:
        t, p = make_pair(shape)
        functions = {n: lambda n=n, t=t, p=p: kl(t, p, num_threads=n) for n in counts}
        medians = interleaved_medians(functions, seconds)
        scaling[shape] = [medians[1] / medians[n] for n in counts]
        rows.append(
            [label(shape), *(f"{us(medians[n])} ({medians[1] / medians[n]:.2f}x)" for n in counts)]
        )
        if shape == (1024, 1000) and 2 in counts:
            targets.append(
                Target("1024x1000: two threads over one", medians[1] / medians[2], 1.85, True)
            )
    figure, ax = pyplot.subplots(figsize=(5, 4), layout="constrained")
    for shape, values in scaling.items():
        ax.plot(counts, values, marker="o", label=label(shape))
    ax.plot(counts, counts, "k:", label="ideal")
    ax.set(xlabel="threads", ylabel="times one thread", xticks=counts)
    ax.legend()
    save(figure, "threads")
    lines = [
        "## Threads",
        "",
        "Microseconds, float32; in brackets, times one thread. Beyond cache, memory is the limit.",
        "",
    ]
    return [*lines, *table(["shape", *map(str, counts)], rows)], targets


BUSY = "while True: pass"


def busy(seconds):
    """All threads and one, alone and while other processes keep every core busy."""
    t, p = make_pair((1024, 1000))
    functions = {"all threads": lambda: kl(t, p), "one thread": lambda: kl(t, p, num_threads=1)}
    alone = interleaved_medians(functions, seconds)
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(os.cpu_count())]
    try:
        beside = interleaved_medians(functions, 2 * seconds)
    finally:
        for other in others:
            other.kill()
            other.wait()
    rows = [[name, us(alone[name]), us(beside[name])] for name in functions]
    lines = ["## A busy machine", ""]
    lines += [
        f"1024x1000 float32, microseconds; busy: beside {len(others)} processes that never rest.",
        "",
        *table(["", "alone", "busy"], rows),
    ]
    ratio = beside["all threads"] / beside["one thread"]
    return lines, [Target("1024x1000 on a busy machine: all threads over one", ratio, 1.1)]


def executors(seconds):
    """Both executors side by side; here with the machine, because the section can be measured alone."""
    lines = list(side_by_side.executors(seconds))
    return [*lines, "", f"Measured on {machine(['kldiv_fast', 'tensorflow-cpu', 'jax'])}."], []


# ---- one small call ----


def latency(seconds):
    from numkong import kullbackleibler

    t, p = make_pair((2, 2))
    row_t, row_p = t[0], p[0]
    functions = {
        "kl(t, p)": lambda: kl(t, p),
        'kl(t, p, reduction="sum", axis=-1)': lambda: kl(t, p, reduction="sum", axis=-1),
        "numkong.kullbackleibler(row, row)": lambda: kullbackleibler(row_t, row_p),
    }
    medians = interleaved_medians(functions, seconds)
    other = medians["numkong.kullbackleibler(row, row)"]
    rows = [[f"`{name}`", f"{median * 1e9:.0f}"] for name, median in medians.items()]
    targets = [
        Target("2x2, default arguments, over one NumKong call", medians["kl(t, p)"] / other, 1.3),
        Target(
            "2x2, with keywords, over one NumKong call",
            medians['kl(t, p, reduction="sum", axis=-1)'] / other,
            2,
        ),
    ]
    kinds = []
    for name, ns, small, most_small, large_us, large, most_large in calls.table(seconds):
        kinds.append([name, f"{ns:.0f}", f"{small:.2f}", f"{large_us:.3g}", f"{large:.2f}"])
        for shape, multiple, most in (("2x2", small, most_small), ("512x46", large, most_large)):
            if most is not None and name != "mean":
                targets.append(Target(f"{shape} {name}, times the mean", multiple, most))
    lines = ["## One small call", "", *table(["2x2 float32", "ns"], rows), ""]
    lines += ["Every kind of call, float32, and how many times the plain mean of the same run:", ""]
    return [
        *lines,
        *table(["call", "2x2, ns", "times", "512x46, us", "times"], kinds),
    ], targets


# ---- gradients ----


def gradients(seconds):
    """Value and gradient beside a loop that reads two arrays and writes a third, in the better of its two forms."""
    rows, targets = [], []
    for shape in [(512, 46), (1024, 1000), (4096, 1000), *LARGE]:
        for dtype in (np.float32, np.float64):
            t, p = make_pair(shape, dtype)
            out = np.empty_like(t)
            threads = kldiv_fast.get_num_threads() if t.size > 2**17 else 1
            functions = {
                "value and gradient": lambda t=t, p=p, out=out: kl_value_and_grad(t, p, out=out),
                "value": lambda t=t, p=p: kl(t, p),
                "limit": writer(t, p, out, threads, streamed=False),
                "limit past the caches": writer(t, p, out, threads, streamed=True),
            }
            medians = interleaved_medians(functions, seconds, REST)
            least = min(medians["limit"], medians["limit past the caches"])
            ratio = medians["value and gradient"] / least
            times = [us(median) for median in medians.values()]
            rows.append([label(shape), name_of(dtype), *times, f"{ratio:.2f}"])
            if shape in LARGE:
                what = f"{label(shape)} {name_of(dtype)}: value and gradient, times the limit"
                targets.append(Target(what, ratio, 1.1))
    head = ["shape", "dtype", "value and gradient, us", "value, us", "limit, us"]
    head += ["limit past the caches, us", "over the lower limit"]
    lines = ["## Gradients", ""]
    lines += [
        "`kl_value_and_grad(t, p, out=...)`; the limit reads two arrays and writes a third.",
        "",
    ]
    return [*lines, *table(head, rows)], targets


# ---- forms ----

FORM_SHAPES = [(32, 10), (512, 46), (1024, 1024), (64, 151_936)]
FORM_GRADIENT = (8192, 1000)
FORM_LABELS = {
    (4096, 32_000): of_forms.labels_beside_logits,
    (65_536, 46): of_forms.labels_beside_probs,
}
LEAST_LOGITS_RATIO = {"torch.compile": 5, "JAX jit": 8, "torch eager": 10, "NumPy": 10}


def time_forms(shape, seconds):
    """Medians of kldiv_fast's own calls, with the limit's from 2^20 elements, and of kl of logits and its peers."""
    a, b = of_forms.make_logits(shape)
    own = of_forms.calls(a, b)
    peers = {"kl logits": own["kl logits"]} | of_forms.peers(a, b)
    large = a.size >= 2**20
    if large:
        own["limit"] = reader(a, b, kldiv_fast.get_num_threads())
    return [
        interleaved_medians(functions, 2 * seconds, REST if large else 0)
        for functions in (own, peers)
    ]


def form_targets(own, peers):
    ratio = own[32, 10]["kl logits"] / own[32, 10][of_forms.REFERENCE]
    targets = [Target("32x10 logits: times the kl of probabilities", ratio, 2)]
    for shape in FORM_SHAPES[2:]:
        for name, bound in LEAST_LOGITS_RATIO.items():
            what = f"{label(shape)} logits: times faster than {name}"
            ratio = peers[shape][name] / peers[shape]["kl logits"]
            targets.append(Target(what, ratio, bound, True))
        undisturbed = own[shape]["limit"] <= own[shape][of_forms.REFERENCE]  # which reads as much
        if kldiv_fast.current_isa() == "avx512" and undisturbed:
            ratio = own[shape]["kl logits"] / own[shape]["limit"]
            targets.append(Target(f"{label(shape)} logits: times the limit", ratio, 2.5))
    return targets


def beside(medians, shapes, names, base):
    """A table of names and shapes: microseconds and, in brackets, times one of the names."""

    def cell(found, name):
        return f"{us(found[name])} ({found[name] / found[base]:.2f}x)" if name in found else "-"

    rows = [[name, *(cell(medians[shape], name) for shape in shapes)] for name in names]
    return table(["us per call", *map(label, shapes)], rows)


def forms(seconds):
    """With the machine, because the section can be measured alone."""
    own, peers = {}, {}
    for shape in tqdm(FORM_SHAPES, desc="forms", unit="shape"):
        own[shape], peers[shape] = time_forms(shape, seconds)
    functions = of_forms.gradients(*of_forms.make_logits(FORM_GRADIENT))
    gradient = interleaved_medians(functions, 2 * seconds, REST)
    labels = {
        shape: interleaved_medians(make(shape), 2 * seconds, REST)
        for shape, make in FORM_LABELS.items()
    }
    names = [*of_forms.FORMS, *of_forms.HALVES, "limit"]
    lines = ["## Forms", ""]
    lines += [
        "The same rows in every form, float32: unrelated logits, their softmaxes, these times 1000, their logarithms.",
        "Microseconds to one mean; in brackets, times the kl of probabilities. The limit is as above.",
        "Where the limit takes longer than that kl, which reads as much, other programs had the cores.",
        "",
        *beside(own, FORM_SHAPES, names, of_forms.REFERENCE),
        "",
        'kl of logits beside the peers, which make both log-softmaxes; in brackets, times `kl(a, b, form="logits")`.',
        "",
        *beside(peers, FORM_SHAPES, ["kl logits", *LEAST_LOGITS_RATIO], "kl logits"),
        "",
        "Its value and the gradient by `y_pred` together, which PyTorch makes forward and backward.",
        "",
        *beside({FORM_GRADIENT: gradient}, [FORM_GRADIENT], functions, "kldiv_fast"),
        "",
        "Labels. The limit reads the logits alone.",
        "",
        *beside(
            labels,
            labels,
            dict.fromkeys(name for found in labels.values() for name in found),
            "kldiv_fast",
        ),
        "",
        f"Measured on {machine(['kldiv_fast', 'numpy', 'torch', 'jax'])}; ISA {kldiv_fast.current_isa()}.",
    ]
    what = f"{label(FORM_GRADIENT)} logits, value and gradient: times faster than torch.compile"
    ratio = gradient["torch.compile"] / gradient["kldiv_fast"]
    targets = [*form_targets(own, peers), Target(what, ratio, 3, True)]
    return lines, targets + label_targets(labels)


def label_targets(medians):
    (beside_logits, logits), (beside_probs, probs) = medians.items()
    ratio = logits["torch cross_entropy"] / logits["kldiv_fast"]
    what = f"{label(beside_logits)} labels beside logits: times"
    targets = [Target(f"{what} faster than torch's cross_entropy", ratio, 4, True)]
    if kldiv_fast.current_isa() == "avx512":
        targets.append(Target(f"{what} the limit", logits["kldiv_fast"] / logits["limit"], 2.5))
    ratio = probs["to_categorical + Keras"] / probs["kldiv_fast"]
    what = f"{label(beside_probs)} labels beside probabilities: times faster than one-hot and Keras"
    return [*targets, Target(what, ratio, 10, True)]


# ---- reductions, layouts, memory ----


def reductions(seconds):
    rows, targets = [], []
    for shape in [(800_000, 10), (100_000, 46), (32_000, 256), (8192, 1000), (64, 151_936)]:
        t, p = make_pair(shape)
        rng = np.random.default_rng(1)
        weight, mask = rng.random(shape[0], np.float32), rng.random(shape[0]) < 0.9
        out = np.empty(shape[0], np.float32)
        functions = {
            "mean": lambda t=t, p=p: kl(t, p),
            "none": lambda t=t, p=p, out=out: kl(t, p, reduction="none", out=out),
            "sample_weight": lambda t=t, p=p, w=weight: kl(t, p, sample_weight=w),
            "mask": lambda t=t, p=p, m=mask: kl(t, p, mask=m),
        }
        medians = interleaved_medians(functions, seconds)
        ratios = {name: median / medians["mean"] for name, median in medians.items()}
        rows.append(
            [label(shape), *(f"{us(medians[name])} ({ratios[name]:.2f}x)" for name in functions)]
        )
        bound = {10: 2, 46: None}.get(shape[1], 1.15)
        if bound:
            targets += [
                Target(f"{label(shape)} {name}: times the mean", ratios[name], bound)
                for name in list(ratios)[1:]
            ]
    lines = [
        "## Reductions",
        "",
        "Microseconds, float32, all threads; in brackets, times the mean.",
        "",
    ]
    return [*lines, *table(["shape", *functions], rows)], targets


def layouts(seconds):
    """Each layout against the contiguous case, counted in cache lines that have to be read."""
    rows, targets = [], []
    for shape in [(8192, 1000), (100_000, 46), (1000, 8192)]:
        n, c = shape
        t, p = make_pair(shape)
        wide_t, wide_p = make_pair((n, 2 * c))
        weight_of_lines = {
            "axis=0": 1,
            "transposed": 1,
            "every second element": 2,
            "y_pred of shape (C,)": 0.5,
        }
        functions = {
            "contiguous": lambda t=t, p=p: kl(t, p, reduction="none"),
            "axis=0": lambda t=t, p=p: kl(t, p, axis=0, reduction="none"),
            "transposed": lambda t=t, p=p: kl(t.T, p.T),
            "every second element": lambda t=wide_t, p=wide_p: kl(t[:, ::2], p[:, ::2]),
            "y_pred of shape (C,)": lambda t=t, p=p[0]: kl(t, p),
        }
        medians = interleaved_medians(functions, seconds)
        for name, lines_read in weight_of_lines.items():
            ratio = medians[name] / medians["contiguous"]
            rows.append(
                [label(shape), name, us(medians[name]), f"{ratio:.2f}", f"{ratio / lines_read:.2f}"]
            )
            targets.append(
                Target(
                    f"{label(shape)} {name}: times contiguous, per byte", ratio / lines_read, 1.3
                )
            )
    head = ["shape", "layout", "us", "times contiguous", "per byte read"]
    return ["## Layouts", "", *table(head, rows)], targets


PEAK = """
import numpy as np
from kldiv_fast import kl

def kib(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name + ":"))

rows, classes = {shape}
pair = [np.full((rows, {step} * classes), 1 / classes, np.float32)[:, ::{step}] for _ in range(2)]
labels = np.arange(rows) % classes
small = np.full((512, 2048), 0.25, np.float32)  # first calls: threads begin, code is loaded
for view in (small, small[:, ::2]):
    kl(view, view), kl(view, view, axis=0), kl(view, view, axis=0, reduction="none"), kl(view[:512, :512], view[:512, :512].T)
    for form in ("counts", "log_probs", "logits"):
        kl(view, view, form=form), kl(labels[:512], view, form=("labels", form))
with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")
before = kib("VmRSS")
{call}
print(max(0, kib("VmHWM") - before))
"""


def memory(_):
    """Peak memory beyond inputs of 4 GB in all, in a process of its own."""
    cases = {
        "mean": ("(1 << 18, 2048)", 1, "kl(*pair)"),
        "axis=0": ("(1 << 18, 2048)", 1, "kl(*pair, axis=0)"),
        "axis=0, every row": ("(1 << 18, 2048)", 1, 'kl(*pair, axis=0, reduction="none")'),
        "every second element": ("(1 << 18, 1024)", 2, "kl(*pair)"),
        "C beside Fortran order": (
            "(1 << 14, 1 << 15)",
            1,
            "kl(pair[0], pair[1].reshape(classes, rows).T)",
        ),
    }
    for form in ("counts", "log_probs", "logits"):
        cases[form] = "(1 << 18, 2048)", 1, f"kl(*pair, form={form!r})"
    cases["labels beside logits"] = (
        "(1 << 18, 2048)",
        1,
        'kl(labels, pair[0], form=("labels", "logits")), kl(labels, pair[1], form=("labels", "logits"))',
    )
    rows, targets = [], []
    for name, (shape, step, call) in tqdm(cases.items(), desc="memory", unit="case"):
        code = PEAK.format(shape=shape, step=step, call=call)
        kib = int(
            subprocess.run(
                [sys.executable, "-c", code], check=True, capture_output=True, text=True
            ).stdout
        )
        rows.append([name, kib])
        targets.append(Target(f"peak memory beyond 4 GB of input, {name}, MB", kib * 1024 / 1e6, 1))
    return [
        "## Memory",
        "",
        *table(["4 GB of float32", "peak beyond the inputs, KiB"], rows),
    ], targets


# ---- the page ----

FOLDER = Path("docs")


def save(figure, name):
    for suffix in ("svg", "png"):
        figure.savefig(FOLDER / f"speed_{name}.{suffix}", dpi=150)
    pyplot.close(figure)


SECTIONS = [latency, peers, limit, gradients, forms, sizes, kernels, threads, reductions]
SECTIONS += [layouts, busy, executors, memory]


TARGETS_HEAD = "| what | target | measured | met |"


def page(results):
    lines = ["# Speed", "", f"Measured on {machine(PACKAGES)}; ISA {kldiv_fast.current_isa()}.", ""]
    lines += [
        "Written by `python benchmarks/report.py`. Medians; what is compared was measured in turn in one run.",
        "",
    ]
    lines += [f"![{name}](speed_{name}.svg)" for name in ("size", "latency", "threads", "isa")]
    lines += [
        "",
        "## Targets",
        "",
        TARGETS_HEAD,
        "| --- | --- | ---: | --- |",
    ]
    lines += [target.line() for _, targets in results for target in targets]
    for section, _ in results:
        lines += ["", *section]
    return "\n".join(lines) + "\n"


def retargeted(text, targets):
    """The page with these targets measured anew; new ones go to the end of the others."""
    lines = text.splitlines()
    for target in targets:
        known = [i for i, line in enumerate(lines) if line.startswith(target.wanted())]
        end = lines.index("", lines.index(TARGETS_HEAD))
        at = known[0] if known else end
        lines[at : at + bool(known)] = [target.line()]
    return "\n".join(lines) + "\n"


def replaced(text, results):
    """The page with some of its sections and their targets measured anew; new sections go to its end."""
    for lines, targets in results:
        text = retargeted(text, targets)
        section = "\n".join(lines) + "\n"
        pattern = rf"^{re.escape(lines[0])}\n.*?(?=^## |\Z)"
        text, found = re.subn(
            pattern, lambda _, new=section: new + "\n", text, flags=re.MULTILINE | re.DOTALL
        )
        text = text if found else f"{text.rstrip()}\n\n{section}"
    return text.rstrip() + "\n"


def main():
    global FOLDER
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2, help="for each shape (default: 2)")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder (default: docs)")
    names = [section.__name__ for section in SECTIONS]
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, help="sections (default: all)"
    )
    options = parser.parse_args()
    FOLDER = options.output
    FOLDER.mkdir(parents=True, exist_ok=True)
    results = [section(options.seconds) for section in SECTIONS if section.__name__ in options.only]
    target = FOLDER / "speed.md"
    if options.only != names and target.exists():
        target.write_text(replaced(target.read_text(), results))
    else:
        target.write_text(page(results))
    print((FOLDER / "speed.md").read_text())


if __name__ == "__main__":
    main()
