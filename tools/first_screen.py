"""Write the table of speed that README.md and docs/index.md begin with, from the results that docs/speed.md is made of.

python tools/first_screen.py            write it
python tools/first_screen.py --check    fail if it is not what would be written
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import results
from tables import head_of_table, row, us, us_faster

SHAPES = ["2x2", "32x10", "512x46", "8192x1000"]
PEERS = {
    "kldiv_fast": "kldiv_fast",
    "tf.function": "tf.function",
    "Keras": "Keras eager, NumPy in",
    "torch.compile": "torch.compile",
    "NumPy": "NumPy",
}
BEGIN, END = "<!-- tools/first_screen.py writes this -->", "<!-- to here -->"


def cell(times, name):
    if name == "kldiv_fast":
        return f"{us(times[name])} µs"
    return us_faster(times[name], times["kldiv_fast"]).replace(" (", " µs (")


def first_screen(isa, peers):
    rows = [
        [shape, *(cell(peers["data"]["times"][shape], name) for name in PEERS.values())]
        for shape in SHAPES
    ]
    on = peers["machine"].partition("; ")[0]
    lines = [*head_of_table(["rows x classes, float32", *PEERS]), *map(row, rows)]
    lines += ["", f"A call, and how many times kldiv_fast's: medians of one run on {on}, {isa}."]
    return "\n".join(lines)


def main():
    isa, records = next(iter(results.read().items()))  # of the best machine
    table = first_screen(isa, records["peers"])
    for path in (ROOT / "README.md", ROOT / "docs/index.md"):
        text = path.read_text(encoding="utf-8")
        before, rest = text.split(BEGIN)
        wanted = f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"
        if "--check" not in sys.argv[1:]:
            path.write_text(wanted, encoding="utf-8")
        elif text != wanted:
            sys.exit(f"{path}: the table is not that of {results.FOLDER}; run python {sys.argv[0]}")


if __name__ == "__main__":
    main()
