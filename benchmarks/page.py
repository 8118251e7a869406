"""docs/speed.md, its plots and GOALS.md, made from the files in results/ alone: nothing is measured.

python benchmarks/page.py            write them, and the first table of README.md and docs/index.md
python benchmarks/page.py --check    fail if the page or the goals are not what would be written
"""

import argparse
import subprocess
import sys
from collections import Counter
from itertools import chain
from pathlib import Path

import results
from sections import SECTIONS
from tables import VERDICTS, head_of_table, row, table

ROOT = Path(__file__).parents[1]
DOCS, GOALS = ROOT / "docs", Path(__file__).with_name("GOALS.md")
INTRODUCTION = """\
Medians, written by `python benchmarks/report.py`; rounds that other programs disturbed were measured again. What stands in
one table was measured in turn, in one run: compare within a table. Between tables the time of the same call differs by what
else had its turn there. An ISA is the processor's best, or the one that `KLDIV_FAST_ISA` named. What this project wants of
these figures, and what it has, is in `benchmarks/GOALS.md`.
"""
ABOUT_GOALS = """\
# Goals

What this project wants of the figures of docs/speed.md, and whether it is so. Written by `python benchmarks/page.py` from
`benchmarks/results/`.

A call's noise is half of the distance between the quartiles of its rounds, over its median; that of a ratio is the root of
both noises' squares added up. A goal is judged by the figure as it is shown. *Within the noise* is one that is met or missed
by less than the figure's noise, of which a miss is excused a tenth of the figure at most: another run may find otherwise. A
noise of `-` is not known. A goal beside a limit that other programs disturbed is not there.
"""


def of_section(name, found):
    """By ISA, the section's data."""
    return {isa: records[name]["data"] for isa, records in found.items() if name in records}


def machine_of(records):
    """What most of a file's sections were measured on."""
    return Counter(record["machine"] for record in records.values()).most_common(1)[0][0]


def measured_on(machine, isas):
    return f"Measured on {machine}; ISA {' and '.join(isas)}."


def section_lines(name, found):
    section, data = SECTIONS[name], of_section(name, found)
    yield from ["", f"## {section.TITLE}", ""]
    yield from section.lines(data)
    if hasattr(section, "PLOT"):
        yield from ["", f"![{section.PLOT_SHOWS}, {next(iter(data))}](speed_{section.PLOT}.svg)"]
    for isa in data:
        machine = found[isa][name]["machine"]
        if machine != machine_of(found[isa]):
            yield from ["", measured_on(machine, [isa])]
    if len(data) < len(found):
        yield from ["", f"ISA {' and '.join(data)} alone."]


def speed(found):
    """The page."""
    lines = ["# Speed", ""]
    isas_of = {}
    for isa, records in found.items():
        isas_of.setdefault(machine_of(records), []).append(isa)
    for machine, isas in isas_of.items():
        lines += [measured_on(machine, isas), ""]
    lines += INTRODUCTION.splitlines()
    for name in measured(found):
        lines += section_lines(name, found)
    return "\n".join(lines) + "\n"


def measured(found):
    """The sections that there are, in the page's order."""
    return [name for name in SECTIONS if of_section(name, found)]


def goals(found):
    """The contributors' page of goals."""
    by_section = {
        name: {isa: list(SECTIONS[name].goals(data, isa)) for isa, data in of_section(name, found).items()}
        for name in measured(found)
    }  # fmt: skip
    lines = ABOUT_GOALS.splitlines()
    lines += ["", *summary(by_section, found)]
    for name, by_isa in by_section.items():
        if any(by_isa.values()):
            lines += ["", f"## {SECTIONS[name].TITLE}", ""]
            lines += table(["what", "goal"], by_isa, goal_columns)
    return "\n".join(lines) + "\n"


def goal_columns(goals):
    rows = {(goal.what, goal.wanted()): goal.cells() for goal in goals}
    return ["measured", "noise", "met"], rows


def summary(by_section, found):
    """How many are met."""
    yield from head_of_table(["", "goals", *VERDICTS])
    for isa in found:
        of_isa = chain.from_iterable(by_isa.get(isa, []) for by_isa in by_section.values())
        verdicts = [goal.verdict() for goal in of_isa]
        yield row([isa, len(verdicts), *map(verdicts.count, VERDICTS)])


def plots(found, folder):
    """Of the best machine alone."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "kldiv_fast"  # else every run's ids differ
    from matplotlib import pyplot

    pyplot.style.use(DOCS / "plots.mplstyle")
    records = next(iter(found.values()))
    for name, record in records.items():
        section = SECTIONS[name]
        if hasattr(section, "PLOT"):
            figure = section.plot(record["data"], pyplot)
            path = folder / f"speed_{section.PLOT}.svg"
            figure.savefig(path, metadata={"Date": None})
            pyplot.close(figure)


def write(found, docs, goals_path):
    (docs / "speed.md").write_text(speed(found), encoding="utf-8")
    goals_path.write_text(goals(found), encoding="utf-8")
    plots(found, docs)


def write_all():
    """All that is made of the repository's results."""
    write(results.read(), DOCS, GOALS)
    subprocess.run([sys.executable, ROOT / "tools" / "first_screen.py"], check=True)


def check():
    found = results.read()
    for path, text in ((DOCS / "speed.md", speed(found)), (GOALS, goals(found))):
        if path.read_text(encoding="utf-8") != text:
            sys.exit(f"{path} is not made from {results.FOLDER}; run python {sys.argv[0]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    if parser.parse_args().check:
        check()
    else:
        write_all()


if __name__ == "__main__":
    main()
