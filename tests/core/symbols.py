"""What the kernel objects export: each its one table, and nothing that the linker could take for another's.

python tests/core/symbols.py [--compiler g++ clang++] [--extension PATH]

A weak symbol or a std:: template in an object compiled for AVX-512 may be chosen for the whole program, which then dies on
an older machine; a dynamic initialiser runs on any machine at import. The installed extension exports its entry point.
Needs cmake, nm and readelf.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).parents[2]
WEAK = "uVvWw"
C_LIBRARY = {"memcpy", "memset", "memmove", "_GLOBAL_OFFSET_TABLE_"}


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def symbols(path, *options):
    """(kind, name) of each symbol, demangled."""
    lines = run("nm", "--demangle", "--format=posix", *options, path).splitlines()
    return [
        re.match(r"(.*?) (\w)(?: [0-9a-f]+)*\s*$", line).groups()[::-1] for line in lines if line
    ]


def check_kernel(path, isa):
    found = symbols(path)
    table = f"kldiv::kernels_{isa}"
    exported = [name for kind, name in found if kind.isupper() and kind != "U"]
    needed = {name for kind, name in found if kind == "U"}
    yield from (f"{name} is weak" for kind, name in found if kind in WEAK)
    yield from (f"{name} is exported" for name in exported if name != table)
    yield from (f"{name} comes from std" for _, name in found if "std::" in name)
    yield from (f"{name} is needed from outside" for name in sorted(needed - C_LIBRARY))
    if table not in exported:
        yield f"{table} is missing"
    for section in re.findall(
        r"\.(?:init_array|ctors|text\.startup)\b", run("readelf", "-SW", path)
    ):
        yield f"section {section}: a dynamic initialiser"


def kernels(compiler, folder):
    """(ISA, object) of every kernel, built by `compiler`."""
    settings = [f"-DCMAKE_CXX_COMPILER={compiler}", "-DCMAKE_BUILD_TYPE=Release"]
    run("cmake", "-S", SOURCE, "-B", folder, *settings)
    run("cmake", "--build", folder, "--target", "kldiv_core", "-j2")
    for path in sorted(Path(folder).glob("CMakeFiles/kernel_*.dir/src/core/kernel.cpp.o")):
        yield re.search(r"kernel_(\w+)\.dir", str(path))[1], path


def check_extension(path):
    names = [name for _, name in symbols(path, "--dynamic", "--defined-only")]
    yield from (f"{name} is exported" for name in names if name != "PyInit__core")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compiler", nargs="+", default=["g++"])
    parser.add_argument("--extension", type=Path, help="the installed _core")
    options = parser.parse_args()
    faults = []
    for compiler in options.compiler:
        with tempfile.TemporaryDirectory() as folder:
            built = list(kernels(compiler, folder))
            if not built:
                sys.exit(f"{compiler}: no kernel object was found")
            for isa, path in built:
                new = list(check_kernel(path, isa))
                faults += [f"{compiler}, {isa}: {fault}" for fault in new]
                print(f"{compiler}, {isa}: {len(new)} faults")
    if options.extension:
        new = list(check_extension(options.extension))
        faults += [f"{options.extension.name}: {fault}" for fault in new]
        print(f"{options.extension.name}: {len(new)} faults")
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
