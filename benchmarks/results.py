"""What was measured: one file of plain data for each kind of machine, from which pages, plots and goals are made.

A file is named after the machine's ISA. It has, by section, the machine and the data that the section's `measure` gave. A
call's times are [median, lower quartile, upper quartile] in seconds; [median] alone where no more is known.
"""

import json
import re
from pathlib import Path

FOLDER = Path(__file__).with_name("results")
BEST_FIRST = ["avx512", "avx2", "neon", "baseline"]


def read(folder=FOLDER):
    """By ISA, the best first: by section, {"machine", "data"}."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}  # fmt: skip
    return {isa: found[isa] for isa in BEST_FIRST if isa in found}


def update(isa, section, machine, data, folder=FOLDER):
    """One section measured anew."""
    folder.mkdir(parents=True, exist_ok=True)
    found = read(folder).get(isa, {}) | {section: {"machine": machine, "data": data}}
    (folder / f"{isa}.json").write_text(written(found), encoding="utf-8")


def written(found):
    """JSON, a call's times on its line."""
    text = json.dumps(found, indent=1, ensure_ascii=False)
    return re.sub(r"\[\s+([^][{}\"]*?)\s+\]", lambda list_: f"[{' '.join(list_[1].split())}]", text) + "\n"  # fmt: skip
