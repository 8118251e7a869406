"""Write the table of speed that README.md and docs/index.md begin with, from docs/speed.md's, so that no call has two times.

python tools/first_screen.py            write it
python tools/first_screen.py --check    fail if it is not what would be written
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHAPES = ["2x2", "32x10", "512x46", "8192x1000"]
PEERS = {
    "kldiv_fast": "kldiv_fast",
    "tf.function": "tf.function",
    "Keras": "Keras eager, NumPy in",
    "torch.compile": "torch.compile",
    "NumPy": "NumPy",
}
BEGIN, END = "<!-- tools/first_screen.py writes this -->", "<!-- to here -->"


def cells(line):
    return [cell.strip() for cell in line.strip("|\n").split("|")]


def measured(page):
    """Of the page's table of peers: by peer and shape, what stands there."""
    section = page.partition("## Beside the peers")[2].partition("\n## ")[0]
    rows = [cells(line) for line in section.splitlines() if line.startswith("|")]
    head = rows[0][1:]
    return {row[0]: dict(zip(head, row[1:], strict=True)) for row in rows[2:]}


def first_screen(page):
    found = measured(page)
    rows = [
        [shape, *(found[name][shape].replace(" (1.0x)", " µs").replace(" (", " µs (") for name in PEERS.values())]
        for shape in SHAPES
    ]  # fmt: skip
    on = re.search(r"Measured on (.*?); Python.*ISA (\w+)\.", page)
    lines = [f"| rows x classes, float32 | {' | '.join(PEERS)} |", "| --- |" + " ---: |" * len(PEERS)]  # fmt: skip
    lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", f"A call, and how many times kldiv_fast's: medians of one run on {on[1]}, {on[2]}."]  # fmt: skip
    return "\n".join(lines)


def main():
    table = first_screen((ROOT / "docs/speed.md").read_text(encoding="utf-8"))
    for path in (ROOT / "README.md", ROOT / "docs/index.md"):
        text = path.read_text(encoding="utf-8")
        before, rest = text.split(BEGIN)
        wanted = f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"
        if "--check" not in sys.argv[1:]:
            path.write_text(wanted, encoding="utf-8")
        elif text != wanted:
            sys.exit(f"{path}: the table is not that of docs/speed.md; run python {sys.argv[0]}")


if __name__ == "__main__":
    main()
