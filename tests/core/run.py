"""Build the core with every compiler found here, NEON's by cross-compilation, and hold each to the same bits.

python tests/core/run.py [--require gcc clang aarch64] [--exhaustive STEP] [--output PAGE.md]

GCC and Clang run here; aarch64 (Debian's g++-aarch64-linux-gnu) runs under qemu-aarch64. What is not installed is
skipped by name, unless required. The exhaustive check of the log-ratio takes 20 s natively, so by default qemu gets
every 257th number.
"""

import argparse
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SOURCE = HERE.parents[1]
TARGETS = {
    "gcc": (["g++"], [], []),
    "clang": (["clang++"], [], []),
    "aarch64": (
        ["aarch64-linux-gnu-g++", "qemu-aarch64"],
        ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"],
        ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"],
    ),
}


def run(*command):
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(
            f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        )
    return done.stdout


def build(compiler, flags, folder):
    run(
        "cmake",
        "-S",
        SOURCE,
        "-B",
        folder,
        f"-DCMAKE_CXX_COMPILER={compiler}",
        "-DCMAKE_BUILD_TYPE=Release",
        *flags,
    )
    run(
        "cmake",
        "--build",
        folder,
        "--target",
        "bits",
        "executors",
        "exhaustive",
        "exponentials",
        "-j2",
    )


def fused_isas(emulator, folder):
    """The ISAs of this build that have FMA: bits answers 2 to one that it doesn't know."""
    for isa in ("avx512", "avx2", "neon"):
        command = [*emulator, f"{folder}/bits", isa]
        answer = subprocess.run(command, check=False, capture_output=True, text=True)
        if answer.returncode == 0:
            yield isa, answer.stdout
        elif answer.returncode != 2:
            sys.exit(f"{command} ended with {answer.returncode}: {answer.stderr}")


def total_of(line):
    """The sum that a line of the table holds, from the bits of its double."""
    return struct.unpack(">d", bytes.fromhex(line.split()[-4]))[0]


def difference(printed, expected):
    """The greatest relative difference between the sums of two tables."""
    pairs = zip(printed.splitlines(), expected.splitlines(), strict=True)
    return max(abs(total_of(a) / total_of(b) - 1) if total_of(b) else 0 for a, b in pairs)


def check(name, step):
    """Rows of the page: one for each ISA that this compiler's build ran."""
    (compiler, *_), flags, emulator = TARGETS[name]
    expected = (HERE / "bits.txt").read_text()
    with tempfile.TemporaryDirectory() as folder:
        build(compiler, flags, folder)
        version = run(compiler, "--version").splitlines()[0]
        rows = []
        for isa, printed in fused_isas(emulator, folder):
            if printed != expected:
                sys.exit(f"{name}, {isa}: not the bits of tests/core/bits.txt")
            rows.append(f"| {version} | {isa} | the same |")
        if not rows:
            sys.exit(f"{name}: no ISA with FMA could run")
        most = difference(run(*emulator, f"{folder}/bits", "baseline"), expected)
        if most > 3e-7:
            sys.exit(f"{name}: the baseline differs by {most}")
        rows.append(f"| {version} | baseline | sums differ by at most {most:.1g}, relative |")
        print("\n".join(rows))
        run(*emulator, f"{folder}/executors", *(["no-fork"] if emulator else []))
        print(run(*emulator, f"{folder}/exhaustive", str(step)), end="", flush=True)
        # Its long doubles are done by software there.
        sparse = max(step, 25_700 if emulator else 257)
        print(run(*emulator, f"{folder}/exponentials", str(sparse)), end="", flush=True)
        return rows


PAGE = """# Reproducibility

Written by `python tests/core/run.py --output docs/reproducibility.md`, which fails if a build's bits are not the table's.

For one version of kldiv_fast, the result of a call has the same bits

- for any number of threads: work is cut by shapes and strides alone, and partial sums are added in order;
- on any thread: what it has set, to flush subnormals or to round another way, is put aside for the call;
- for any alignment of the inputs: no loop begins at an aligned element;
- for any layout of what is written, and of weights and masks: only inputs say how the work is cut;
- on AVX-512, AVX2 and NEON: 16 virtual lanes whatever the vector's width, a fixed tree, and only operations that IEEE
  754 rounds correctly, FMA among them;
- by GCC and by Clang: contraction is off, so that every FMA stands in the source.

`tests/core/bits.txt` holds 72 cases of each divergence (four dtypes, nine shapes, clipped and not; the sum, each row, each
column, both gradients) in hexadecimal, others of further forms, of all pairs of rows, of rows in blocks of classes and of
language models' rows. `tests/test_bits.py` compares the installed package with those of divergences, for 1, 2, 3, 7 and 16
threads too; here the core is built and run by each compiler, NEON under qemu:

{rows}

The portable baseline, for x86-64 processors without AVX2, has no FMA and rounds twice where the others round once.
Another layout of the inputs' numbers (strided, transposed, broadcast) may be added up in another order: equal to rounding,
not to the bit. So may another version of kldiv_fast: the table then changes, and the change log says so.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--require", nargs="*", choices=TARGETS, default=["gcc"])
    parser.add_argument(
        "--exhaustive", type=int, metavar="STEP", default=1, help="every STEP-th float (default: 1)"
    )
    parser.add_argument("--output", type=Path, help="write the page")
    options = parser.parse_args()
    rows = ["| compiler | ISA | bits |", "| --- | --- | --- |"]
    for name, (tools, _, _) in TARGETS.items():
        missing = [tool for tool in tools if shutil.which(tool) is None]
        if not missing:
            # The log-ratio of GCC's build is checked in full; the others' equal bits make a sample of them enough.
            rows += check(name, options.exhaustive if name == "gcc" else 257)
        elif name in options.require:
            sys.exit(f"{name} is required, but {' and '.join(missing)} is not installed")
        else:
            print(f"{name}: skipped, no {' and '.join(missing)}")
    if options.output:
        options.output.write_text(PAGE.replace("{rows}", "\n".join(rows)))


if __name__ == "__main__":
    main()
