"""The drawings, plots and tables that pages include, made when the site is built: `write(folder)`, called by conf.py.

Numbers in them are read from the source or from benchmarks/results/, or computed, so none can go stale. The drawings are SVG
without colours of their own (the theme's are in _static/site.css), 480 units wide, so that they can be read on a
telephone; the plots are matplotlib's, in the style of plots.mplstyle.
"""

import importlib
import json
import re
import sys
from pathlib import Path

import matplotlib
import numpy as np
from kldiv_fast import kl
from matplotlib.figure import Figure

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import results
from tables import head_of_table, ns, row, us

CORE = ROOT / "src" / "core"
WIDTH = 480


def constant(name):
    """The value of the source's one `constexpr ... name = <product of integers or powers of two>;`, or `name{value}`."""
    pattern = re.compile(rf"constexpr [\w:]+ {name}(?: = |\{{)([^;]*?)\}}?;")
    (text,) = (
        match
        for file in (ROOT / "src").rglob("*.[ch]pp")
        for match in pattern.findall(file.read_text(encoding="utf-8"))
    )
    value = 1
    for factor in text.replace("int64_t{1}", "1").split("*"):
        base, _, shift = factor.partition("<<")
        value *= int(base) << int(shift or 0)
    return value


def measured_calls():
    """Every kind of call, of the best machine: its times at 2x2 and at 512x46."""
    best = next(iter(results.read().values()))["latency"]["data"]
    return {call: [best[shape][call] for shape in ("2x2", "512x46")] for call in best["2x2"]}


def calls_in_words():
    """What hot_loop.md says of them."""
    found = measured_calls()
    call, rows = found["mean"][0], found["none, out"][1]
    one_row = [rows[0] / 512]
    return {
        "small_call": f"{ns(call)} ns",
        "stacked_row": f"{ns(one_row)} ns",
        "rows_a_call": f"{call[0] / one_row[0]:.0f}",
    }


SEGMENT = constant("kSegment")
LANES = constant("kLanes")
CONSTANTS = {
    "segment": SEGMENT,
    "lanes": LANES,
    "rows_in_terms": SEGMENT // LANES,
    "narrow": constant("kNarrow"),
    "packed": constant("kPacked"),
    "small_block": f"{constant('kSmallBlock') >> 10} Ki",
    "large_block": f"{constant('kLargeBlock') >> 10} Ki",
    "columns": f"{constant('kColumns'):,}",
    "look_out": constant("kNextJob"),
    "rise": constant("kRise"),
    "second_thread": f"{2 * constant('kElementsPerThread') >> 10} Ki",
    "poll": f"{constant('kPollEvery')} ms",
    "for_each_thread": f"{constant('kElementsPerThread') >> 10} Ki",
    "without_gil": f"{constant('kReleaseGil') >> 10} Ki",
    **calls_in_words(),
}


# ---- SVG ----


def text(x, y, words, style="", size=15, anchor="middle"):
    return (
        f'<text x="{x}" y="{y}" class="{style}" font-size="{size}" text-anchor="{anchor}">'
        f"{words.replace('&', '&amp;').replace('<', '&lt;')}</text>"
    )


def box(x, y, width, height, style="box"):
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="4" class="{style}"/>'


def line(x1, y1, x2, y2, style="line"):
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" class="{style}"/>'


def arrow(x, y, length):
    """A vertical one, downwards."""
    tip = y + length
    head = f'<path d="M{x - 4} {tip - 6} L{x} {tip} L{x + 4} {tip - 6}" class="line"/>'
    return line(x, y, x, tip) + head


def drawing(height, title, parts):
    return (
        f'<svg class="drawing" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>\n'
    )


# ---- the drawings ----

# A file of the repository, and what it does to the data.
STAGES = [
    ("python/kldiv_fast/_arrays.py", "arrays, tensors and tables in, or an advice"),
    ("python/kldiv_fast/_meaning.py", "one rank, class axes last; views, no copies"),
    ("src/bindings/divergence.cpp", "pointers, extents, strides: here alone for arrays"),
    ("src/core/plan.cpp", "rows, or pieces of rows, cut into tasks"),
    ("src/core/executor.cpp", "tasks handed to threads by one counter"),
    ("src/core/task.cpp", "tiles: read in place, or packed"),
    ("src/core/kernel.cpp", "clip, log-ratio, sum, gradients: one pass"),
    ("src/core/kldiv.cpp", "partial sums in double, added in order"),
    ("src/bindings/divergence.cpp", "divided by what the reduction says: one value"),
]


def way_of_the_data():
    parts, step = [], 76
    for i, (where, what) in enumerate(STAGES):
        assert (ROOT / where).is_file(), f"{where} is gone: a stage has moved"
        y = i * step + 1
        parts += [box(1, y, WIDTH - 2, 52, "box")]
        parts += [text(16, y + 21, where, "code", anchor="start")]
        parts += [text(16, y + 42, what, "soft", anchor="start")]
        if i:
            parts.append(arrow(WIDTH / 2, y - step + 52, step - 54))
    return drawing(
        (len(STAGES) - 1) * step + 54, "From the arrays to one value, stage by stage", parts
    )


def lanes_of(isa):
    return int(
        re.search(r"lanes = (\d+);", (CORE / "simd" / f"{isa}.hpp").read_text(encoding="utf-8"))[1]
    )


def order_of_the_sum():
    """Virtual lanes, the vectors that hold them on each ISA, and the tree above."""
    cell, parts = WIDTH / LANES, []
    parts.append(text(0, 16, f"element i goes to lane i mod {LANES}", anchor="start"))
    for lane in range(LANES):
        parts.append(box(lane * cell + 1, 28, cell - 2, 30))
        parts.append(text((lane + 0.5) * cell, 48, str(lane), size=13))
    y = 66
    for isa, name in (("avx512", "AVX-512"), ("avx2", "AVX2"), ("neon", "NEON")):
        width = lanes_of(isa)
        for first in range(0, LANES, width):
            parts.append(box(first * cell + 1, y, width * cell - 2, 26, "line accent"))
            middle = (first + width / 2) * cell
            parts.append(text(middle, y + 18, name if width > 4 or first == 0 else "", "soft", 13))
        y += 34
    parts.append(text(0, y + 20, f"after {SEGMENT} elements, a tree", anchor="start"))
    y += 36
    count = LANES
    while count > 1:
        half = count // 2
        for lane in range(count):
            to = (lane % half + 0.5) * WIDTH / half
            parts.append(line((lane + 0.5) * WIDTH / count, y, to, y + 26))
        y += 26
        count = half
    parts.append(box(WIDTH / 2 - 80, y, 160, 30))
    parts.append(text(WIDTH / 2, y + 20, "added to a double"))
    return drawing(y + 32, "The order of summation: lanes, vectors, tree", parts)


def implementations():
    """(name, the check) of dispatch.cpp's table, best first."""
    source = (CORE / "dispatch.cpp").read_text(encoding="utf-8")
    return re.findall(r'\{"(\w+)", &\w+, (\w+)\}', source)


def dispatch():
    runs_on = {
        ("avx512", "has_x86_64_v4"): "x86-64-v4",
        ("avx2", "has_x86_64_v3"): "x86-64-v3",
        ("neon", "always"): "64-bit Arm",
        ("baseline", "always"): "any processor",
    }
    parts = [text(WIDTH / 2, 18, "one kernel.cpp, compiled once for each", "")]
    rows = implementations()
    for i, (name, check) in enumerate(rows):
        y = 36 + i * 62
        parts += [box(1, y, 220, 40), text(111, y + 25, name, "code")]
        parts += [line(222, y + 20, 284, y + 20)]
        parts += [text(294, y + 25, runs_on[name, check], "soft", anchor="start")]
        if i:
            parts += [arrow(111, y - 22, 21), text(122, y - 7, "else", "soft", 13, "start")]
    return drawing(36 + len(rows) * 62 - 20, "The table of implementations, best first", parts)


# ---- the plots ----


def reduction():
    """s of the log-ratio against t/p, as log_ratio.hpp computes it: a whole exponent taken off the bit patterns."""
    p = np.float32(0.3)
    t = (p * np.exp2(np.linspace(-3, 3, 6001))).astype(np.float32)
    half, whole = np.int32(1 << 22), ~np.int32((1 << 23) - 1)
    exponent = (t.view(np.int32) - p.view(np.int32) + half) & whole
    near = (t.view(np.int32) - exponent).view(np.float32)
    s = (near - p) / (near + p)
    s[1:][np.diff(exponent) != 0] = np.nan  # no line across the jumps
    figure = Figure(figsize=(6, 2.8), layout="constrained")
    ax = figure.subplots()
    ax.plot(t / p, s)
    ax.set_xscale("log", base=2)
    ax.set(xlabel="t / p", ylabel="s = (t' - p) / (t' + p)")
    ax.grid(alpha=0.3)
    return figure


def digits():
    """The greatest relative error of a term, t log(t/p), against how far t and p are apart."""
    edges = np.logspace(-6, -0.5, 56)
    rng = np.random.default_rng(0)
    t = rng.uniform(0.1, 0.5, (edges.size - 1, 2000)).astype(np.float32)
    p = (t * (1 + rng.uniform(edges[:-1, None], edges[1:, None], t.shape))).astype(np.float32)
    p = np.where(p == t, np.nextafter(p, np.float32(1)), p)
    exact = t.astype(float) * np.log1p((t.astype(float) - p) / p)
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    ax = figure.subplots()
    for name, terms in {
        "NumPy: t * log(t / p)": t * np.log(t / p),
        "kldiv_fast": kl(t[..., None], p[..., None], reduction="none"),
    }.items():
        ax.plot(edges[1:], np.abs(terms / exact - 1).max(axis=1), label=name)
    ax.set(xscale="log", yscale="log", xlabel="p / t - 1", ylabel="relative error, float32")
    ax.grid(alpha=0.3)
    ax.legend()
    return figure


# ---- the tables ----


def instructions():
    """benchmarks/instructions.json as a table: a row for each ISA and operation, a column for each dtype."""
    counted = json.loads((ROOT / "benchmarks" / "instructions.json").read_text(encoding="utf-8"))
    rows = {}
    for name, count in counted["instructions"].items():
        kernel, _, dtype = name.rpartition(" ")
        if not name.startswith("2x2 call"):
            rows.setdefault(kernel, {})[dtype] = f"{count:.1f}"
    dtypes = list(next(iter(rows.values())))
    yield f"| {counted['compiler']} | " + " | ".join(dtypes) + " |"
    yield "| --- |" + " ---: |" * len(dtypes)
    for kernel, counts in rows.items():
        yield f"| {kernel} | " + " | ".join(counts[dtype] for dtype in dtypes) + " |"


def calls():
    """Every kind of call, without what it is a multiple of."""
    yield from head_of_table(["call, float32", "2x2, ns", "512x46, us"])
    for call, (small, large) in measured_calls().items():
        yield row([call, ns(small), us(large)])


def contents():
    """Every name that api.rst documents, by its sections."""
    text = (DOCS / "api.rst").read_text(encoding="utf-8")
    _, *parts = re.split(r"^(.+)\n-+\n", text, flags=re.MULTILINE)
    yield ".. list-table::\n"
    for title, section in zip(parts[::2], parts[1::2], strict=True):
        yield f"   * - `{title}`_"
        yield f"     - {', '.join(names(section))}"


def names(section):
    """Of a section of api.rst: links to what Python has, and the names of a Cython declaration."""

    def directives(what):
        return re.findall(rf"^\.\. {what}:: (\S+)", section, re.MULTILINE)

    left_out = ", ".join(re.findall(r":exclude-members: (.*)", section)).split(", ")
    documented = directives("autofunction")
    for module in directives("automodule"):
        public = importlib.import_module(module).__all__
        documented += [f"{module}.{name}" for name in public if name not in left_out]
    yield from (f":py:obj:`~{name}`" for name in documented)
    for path in directives("literalinclude"):
        declared = re.findall(r"^cdef int (\w+)\(", (DOCS / path).read_text(), re.MULTILINE)
        yield from (f"``{name}``" for name in declared)


def write(folder):
    """All of them, as files in `folder`."""
    folder.mkdir(exist_ok=True)
    for draw in (way_of_the_data, order_of_the_sum, dispatch):
        (folder / f"{draw.__name__}.svg").write_text(draw())
    # The same bytes each time: no date, no random ids.
    with matplotlib.rc_context({"svg.hashsalt": "kldiv_fast"}, DOCS / "plots.mplstyle"):
        for plot in (reduction, digits):
            plot().savefig(folder / f"{plot.__name__}.svg", metadata={"Date": None})
    for name, lines in {
        "instructions.md": instructions(),
        "calls.md": calls(),
        "contents.rst": contents(),
    }.items():
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
