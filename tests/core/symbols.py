"""What the kernel objects export: each its one table, and nothing that the linker could take for another's.

python tests/core/symbols.py [--compiler g++ clang++] [--installed FOLDER]

A weak symbol or a std:: template in an object compiled for AVX-512 may be chosen for the whole program, which then dies on
an older machine; a dynamic initialiser runs on any machine at import. The installed libraries export their entry point, and
take from others what a wheel may: versioned symbols of the system's libraries, and the extension Python's.
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


def check_kernel(path, kernel):
    found = symbols(path)
    source = path.name.split(".")[0]  # kernel, row_kernel, pair_kernel or fidelity_kernel
    table = f"kldiv::{source}s_{kernel.removesuffix('_pairs').removesuffix('_fidelity')}"
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
    """(ISA and operation, object) of every kernel, built by `compiler`."""
    settings = [f"-DCMAKE_CXX_COMPILER={compiler}", "-DCMAKE_BUILD_TYPE=Release"]
    run("cmake", "-S", SOURCE, "-B", folder, *settings)
    run("cmake", "--build", folder, "--target", "kldiv_core", "-j2")
    for path in sorted(Path(folder).glob("CMakeFiles/kernel_*.dir/src/core/*kernel.cpp.o")):
        yield re.search(r"kernel_(\w+)\.dir", str(path))[1], path


# The installed libraries: what each exports, and what the names begin with that no library is known for.
LIBRARIES = {"_core": ("PyInit__core", ("Py", "_Py")), "_tensorflow_op": ("kldiv_fast_connect", ())}


def check_library(path):
    entry, providers = LIBRARIES[path.name.split(".")[0]]
    exported = [name for _, name in symbols(path, "--dynamic", "--defined-only")]
    needed = [name for kind, name in symbols(path, "--dynamic", "--undefined-only") if kind == "U"]
    yield from (f"{name} is exported" for name in exported if name != entry)
    if entry not in exported:
        yield f"{entry} is missing"
    for name in needed:
        if "@" not in name and not name.startswith(providers):
            yield f"{name} is needed, but of no library that is known"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compiler", nargs="+", default=["g++"])
    parser.add_argument("--installed", type=Path, help="the folder of the installed package")
    options = parser.parse_args()
    faults = []
    for compiler in options.compiler:
        with tempfile.TemporaryDirectory() as folder:
            built = list(kernels(compiler, folder))
            if not built:
                sys.exit(f"{compiler}: no kernel object was found")
            for kernel, path in built:
                new = list(check_kernel(path, kernel))
                faults += [f"{compiler}, {kernel}: {fault}" for fault in new]
                print(f"{compiler}, {kernel}: {len(new)} faults")
    if options.installed:
        libraries = sorted(options.installed.glob("*.so"))
        if len(libraries) != len(LIBRARIES):
            sys.exit(f"{options.installed}: expected {len(LIBRARIES)} libraries, found {libraries}")
        for path in libraries:
            new = list(check_library(path))
            faults += [f"{path.name}: {fault}" for fault in new]
            print(f"{path.name}: {len(new)} faults")
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
