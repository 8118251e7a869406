"""What show_runtime says is so, and who set the threads."""

import ast
import os
from pathlib import Path

import kldiv_fast
import pytest
from processes import printed

RUNTIME = kldiv_fast.show_runtime(mode="dicts")
needs_openmp = pytest.mark.skipif(RUNTIME["openmp"] is None, reason="built without OpenMP")
SHOW = "import kldiv_fast; print(kldiv_fast.show_runtime(mode='dicts'))\n"


def shown(code=SHOW, **environment):
    return ast.literal_eval(printed(code, **environment))


def test_prints_what_it_returns(capsys):
    assert kldiv_fast.show_runtime() is None
    assert ast.literal_eval(capsys.readouterr().out) == RUNTIME


def test_mode_that_is_unknown():
    with pytest.raises(ValueError, match="mode is 'html'; expected 'stdout' or 'dicts'"):
        kldiv_fast.show_runtime(mode="html")


def test_versions_and_build():
    assert RUNTIME["versions"]["kldiv_fast"] == kldiv_fast.__version__
    assert len(RUNTIME["build"]["compiler"].split()) >= 2
    assert RUNTIME["build"]["type"] in ("Release", "RelWithDebInfo", "Debug")


@pytest.mark.parametrize("forced", kldiv_fast.available_isas())
def test_isa(forced):
    found = kldiv_fast.available_isas()
    isa = shown(KLDIV_FAST_ISA=forced)["isa"]
    assert isa["current"] == forced
    assert isa["found"] == found
    assert isa["disabled"] == found[: found.index(forced)]
    assert not set(isa["not_found"]) & set(found)


def test_without_openmp():
    if RUNTIME["openmp"] is not None:
        pytest.skip("built with OpenMP")
    assert RUNTIME["threads"]["num_threads"] == kldiv_fast.get_num_threads() == 1
    assert "no OpenMP" in RUNTIME["threads"]["set_by"]


@needs_openmp
def test_openmp_library_is_the_one_that_threadpoolctl_finds():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    openmp = [lib for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "openmp"]
    paths = [Path(lib["filepath"]).resolve() for lib in openmp]
    assert Path(RUNTIME["openmp"]["filepath"]).resolve() in paths


@needs_openmp
@pytest.mark.parametrize(
    ("before", "environment", "threads", "set_by"),
    [
        ("", {"OMP_NUM_THREADS": "3,2"}, 3, "OMP_NUM_THREADS"),
        ("kldiv_fast.set_num_threads(2)", {"OMP_NUM_THREADS": "3"}, 2, "set_num_threads"),
        ("kldiv_fast.set_num_threads(9)", {"OMP_NUM_THREADS": "3"}, 3, "OMP_NUM_THREADS"),
        (
            "import threadpoolctl; limits = threadpoolctl.threadpool_limits(1)",
            {"OMP_NUM_THREADS": "3"},
            1,
            "OpenMP's limit in this thread (omp_set_num_threads, threadpoolctl)",
        ),
        ("import os; os.fork() and (os.wait(), os._exit(0))", {}, 1, "the fork"),
    ],
    ids=["environment", "setting", "setting_beyond", "threadpoolctl", "fork"],
)
def test_who_set_the_threads(before, environment, threads, set_by):
    if "threadpoolctl" in before:
        pytest.importorskip("threadpoolctl")
    if "os.fork" in before and not hasattr(os, "fork"):
        pytest.skip("needs os.fork")
    found = shown(f"import kldiv_fast\n{before}\n{SHOW}", **environment)["threads"]
    assert found["num_threads"] == threads
    assert found["set_by"].startswith(set_by)


@needs_openmp
def test_nobody_set_the_threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = shown()
    assert found["threads"]["num_threads"] == found["openmp"]["processors"]
    assert found["threads"]["set_by"] == "OpenMP: the processors that this process may use"
