"""Build the core with every compiler found here, NEON's by cross-compilation, and hold each to the same bits.

python tests/core/run.py [--require gcc clang aarch64] [--exhaustive STEP]

GCC and Clang run here; aarch64 (Debian's g++-aarch64-linux-gnu) runs under qemu-aarch64. What is not installed is
skipped by name, unless required. The exhaustive check of the log-ratio takes 20 s natively, so by default qemu gets
every 257th number.
"""

import argparse
import shutil
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
    run("cmake", "--build", folder, "--target", "bits", "exhaustive", "-j2")


def fused_isas(emulator, folder):
    """The ISAs of this build that have FMA: bits answers 2 to one that it doesn't know."""
    for isa in ("avx512", "avx2", "neon"):
        command = [*emulator, f"{folder}/bits", isa]
        answer = subprocess.run(command, check=False, capture_output=True, text=True)
        if answer.returncode == 0:
            yield isa, answer.stdout
        elif answer.returncode != 2:
            sys.exit(f"{command} ended with {answer.returncode}: {answer.stderr}")


def check(name, step):
    (compiler, *_), flags, emulator = TARGETS[name]
    expected = (HERE / "bits.txt").read_text()
    with tempfile.TemporaryDirectory() as folder:
        build(compiler, flags, folder)
        ran = []
        for isa, printed in fused_isas(emulator, folder):
            if printed != expected:
                sys.exit(f"{name}, {isa}: not the bits of tests/core/bits.txt")
            ran.append(isa)
        if not ran:
            sys.exit(f"{name}: no ISA with FMA could run")
        print(
            f"{name}: {run(compiler, '--version').splitlines()[0]}: the bits of the table on {', '.join(ran)}"
        )
        print(run(*emulator, f"{folder}/exhaustive", str(step)), end="")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--require", nargs="*", choices=TARGETS, default=["gcc"])
    parser.add_argument(
        "--exhaustive", type=int, metavar="STEP", default=1, help="every STEP-th float (default: 1)"
    )
    options = parser.parse_args()
    for name, (tools, _, _) in TARGETS.items():
        missing = [tool for tool in tools if shutil.which(tool) is None]
        if not missing:
            # The log-ratio of GCC's build is checked in full; the others' equal bits make a sample of them enough.
            check(name, options.exhaustive if name == "gcc" else 257)
        elif name in options.require:
            sys.exit(f"{name} is required, but {' and '.join(missing)} is not installed")
        else:
            print(f"{name}: skipped, no {' and '.join(missing)}")


if __name__ == "__main__":
    main()
