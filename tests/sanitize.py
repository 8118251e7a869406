"""The extension under AddressSanitizer and UndefinedBehaviorSanitizer, the core under valgrind and ThreadSanitizer.

python tests/sanitize.py [--require valgrind tsan]

ASan and UBSan run the tests that need no framework, on every ISA, most of the whole products too. valgrind's memcheck runs the program of the bits
table on what it knows (no AVX-512); ThreadSanitizer runs it too, and the program of the executors' tests. What is
missing is skipped by name, unless required.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SOURCE = HERE.parent
TESTS = ["minimal", "arrays", "bits", "special_values", "properties", "errors", "gradient"]
FORMS = [
    "forms",
    "logits",
    "where",
    "validation",
    "distance",
]  # whose whole products would take longer than all else


def run(*command, **environment):
    print("$", " ".join(map(str, command)), flush=True)
    done = subprocess.run(
        command, check=False, env=os.environ | environment, stdout=subprocess.PIPE, text=True
    )
    if done.returncode != 0:
        sys.exit(f"{done.stdout[-6000:]}\nended with {done.returncode}")
    return done.stdout


def address_and_undefined(folder):
    flags = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g"
    # Rows may be misaligned on purpose; the kernels load them with instructions that allow it.
    settings = ["-C", f"cmake.define.CMAKE_CXX_FLAGS={flags}", "-C", f"build-dir={folder}/build"]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", f"{folder}/site"]
    run(*pip, *settings, SOURCE)
    # libstdc++ beside it, or the runtime can't find the function that throws: Python itself doesn't load it.
    runtime = " ".join(
        run("g++", f"-print-file-name={name}").strip() for name in ("libasan.so", "libstdc++.so")
    )
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    pytest += ["-s"]  # reports are not captured
    for options, names in (([], TESTS + FORMS), (["--long", "-m", "not hypothesis"], TESTS)):
        printed = run(
            *[*pytest, *options, *[HERE / f"test_{name}.py" for name in names]],
            PYTHONPATH=f"{folder}/site",
            LD_PRELOAD=runtime,
            # Python's own interned objects are "leaks"; endurance.py counts ours. A failing malloc returns NULL, as it does.
            ASAN_OPTIONS="detect_leaks=0,allocator_may_return_null=1",
        )
        print("ASan and UBSan:", printed.splitlines()[-1])


def build_core(folder, *flags):
    run("cmake", "-S", SOURCE, "-B", folder, *flags)
    run("cmake", "--build", folder, "--target", "bits", "executors", "-j2")
    return f"{folder}/bits", f"{folder}/executors"


NO_OPENMP = ["-DCMAKE_DISABLE_FIND_PACKAGE_OpenMP=ON"]


def memcheck(folder):
    bits, _ = build_core(folder, "-DCMAKE_BUILD_TYPE=RelWithDebInfo")
    expected = (HERE / "core" / "bits.txt").read_text()
    for isa in ("avx2", "baseline"):
        valgrind = [
            "valgrind",
            "--error-exitcode=9",
            "--leak-check=full",
            "--errors-for-leak-kinds=definite",
            "-q",
        ]
        printed = run(*valgrind, bits, isa, OMP_NUM_THREADS="2")
        assert isa == "baseline" or printed == expected
        print(f"memcheck: {isa}, no error")


def races(folder):
    """The pool alone: GCC's OpenMP runtime is not built for ThreadSanitizer, which takes its barriers for none."""
    flags = "-fsanitize=thread -g"
    bits, executors = build_core(
        folder, f"-DCMAKE_CXX_FLAGS={flags}", "-DCMAKE_BUILD_TYPE=Release", *NO_OPENMP
    )
    printed = run(bits, TSAN_OPTIONS="halt_on_error=1")
    assert printed == (HERE / "core" / "bits.txt").read_text()
    run(executors, "no-fork", TSAN_OPTIONS="halt_on_error=1")
    print("ThreadSanitizer: 8 threads of the pool, no race, the bits of the table")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--require", nargs="*", choices=["valgrind", "tsan"], default=[])
    options = parser.parse_args()
    steps = {
        "asan": (address_and_undefined, shutil.which("g++")),
        "valgrind": (memcheck, shutil.which("valgrind")),
        "tsan": (races, shutil.which("g++")),
    }
    for name, (step, possible) in steps.items():
        if possible:
            with tempfile.TemporaryDirectory() as folder:
                step(folder)
        elif name in options.require:
            sys.exit(f"{name} is required, but what it needs is not installed")
        else:
            print(f"{name}: skipped, what it needs is not installed")


if __name__ == "__main__":
    main()
