"""How many instructions an element costs, counted by callgrind: a figure that no neighbour on the machine can change.

python benchmarks/instructions.py            compare with instructions.json, fail beyond 3 %
python benchmarks/instructions.py --update   write instructions.json

Counted are the kernels that valgrind can run (it knows no AVX-512) and each kind of call from Python, at 2x2. Counts depend on the
compiler, so the file names it, and another compiler's build is only printed.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from calls import CALLS

HERE = Path(__file__).parent
TABLE = HERE / "instructions.json"
MARGIN = 0.03
ELEMENTS = 20480
DTYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 3}
OPERATIONS = {
    "stream": "stream",
    "narrow rows": "narrow",
    "columns": "columns",
    "gradient": "gradient",
    "narrow rows' gradient": "narrow-gradient",
}
REPEATS = 20
REPEATED = 50_000


def run(*command):
    # What a process does besides must not differ from run to run: hashes, and threads that wait in a loop.
    quiet = {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    environment = os.environ | quiet
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment)


def instructions(*command):
    """Instructions of a whole process."""
    valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    return int(re.search(r"Collected : (\d+)", run(*valgrind, *command).stderr)[1])


def more(command, few, many):
    """Instructions of one more repetition, their number being the last argument: what a process does besides cancels."""
    return (instructions(*command, str(many)) - instructions(*command, str(few))) / (many - few)


def build(folder):
    """The core as CMake builds it, and the driver beside it. Returns the driver and the compiler's name."""
    run("cmake", "-S", str(HERE.parent), "-B", folder, "-DCMAKE_BUILD_TYPE=Release")
    run("cmake", "--build", folder, "--target", "instructions")
    cache = Path(folder, "CMakeCache.txt").read_text()
    compiler = re.search(r"CMAKE_CXX_COMPILER:\w+=(.*)", cache)[1]
    return str(Path(folder, "instructions")), run(compiler, "--version").stdout.splitlines()[0]


def measure():
    with tempfile.TemporaryDirectory() as folder:
        driver, compiler = build(folder)
        counts = {}
        for isa in ("avx2", "baseline"):
            for operation, argument in OPERATIONS.items():
                for dtype, code in DTYPES.items():
                    command = [driver, argument, isa, str(code)]
                    per_call = more(command, 1, 1 + REPEATS)
                    counts[f"{isa} {operation} {dtype}"] = round(per_call / ELEMENTS, 3)
    for name in CALLS:
        command = [sys.executable, str(HERE / "calls.py"), name]
        counts[f"2x2 call, {name}"] = round(more(command, 100, 100 + REPEATED))
    return {"compiler": compiler, "instructions": counts}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="write instructions.json")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not installed")
    found = measure()
    if options.update:
        TABLE.write_text(json.dumps(found, indent=2) + "\n")
    held = json.loads(TABLE.read_text())
    worse = []
    for name, count in found["instructions"].items():
        before = held["instructions"].get(name, float("nan"))
        print(f"{name:32} {count:10} held: {before:10} {count / before - 1:+.1%}")
        if not count <= before * (1 + MARGIN):
            worse.append(name)
    if held["compiler"] != found["compiler"]:
        print(f"held for {held['compiler']}, built by {found['compiler']}: not compared")
    elif worse:
        sys.exit(f"more than {MARGIN:.0%} above what instructions.json holds: {', '.join(worse)}")


if __name__ == "__main__":
    main()
