"""What show_runtime says is so, and who set the threads."""

import ast
import os
from pathlib import Path

import kldiv_fast
import pytest
from processes import printed, run_python

RUNTIME = kldiv_fast.show_runtime(mode="dicts")
needs_openmp = pytest.mark.skipif(RUNTIME["openmp"] is None, reason="built without OpenMP")
PROCESSORS = RUNTIME["threads"]["processors"]
FORK = "import os; os.fork() and (os.wait(), os._exit(0))"
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
    assert RUNTIME["threads"]["executors"] == ["pool"]
    assert shown(OMP_NUM_THREADS="1")["threads"]["num_threads"] == 1


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
        ("", {"OMP_NUM_THREADS": "1,2"}, 1, "OMP_NUM_THREADS"),
        ("", {"OMP_NUM_THREADS": "4096"}, PROCESSORS, "the processors"),
        ("kldiv_fast.set_num_threads(1)", {"OMP_NUM_THREADS": "3"}, 1, "set_num_threads"),
        ("kldiv_fast.set_num_threads(9)", {"OMP_NUM_THREADS": "1"}, 1, "OMP_NUM_THREADS"),
        (
            "import threadpoolctl; limits = threadpoolctl.threadpool_limits(1)",
            {"OMP_NUM_THREADS": "4096"},
            1,
            "OpenMP's limit in this thread (omp_set_num_threads, threadpoolctl)",
        ),
        (FORK, {"KLDIV_FAST_EXECUTOR": "pool"}, PROCESSORS, "the processors"),
        (FORK, {"KLDIV_FAST_EXECUTOR": "openmp"}, 1, "the fork"),
    ],
    ids=[
        "environment",
        "environment_beyond",
        "setting",
        "setting_beyond",
        "threadpoolctl",
        "fork",
        "fork_openmp",
    ],
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
    assert found["threads"]["num_threads"] == found["threads"]["processors"]
    assert found["threads"]["set_by"] == "the processors that this thread may use"


def test_executor():
    threads = RUNTIME["threads"]
    before = kldiv_fast.get_executor()
    assert threads["executor"] == before == os.environ.get("KLDIV_FAST_EXECUTOR", "pool")
    for executor in threads["executors"]:
        assert shown(KLDIV_FAST_EXECUTOR=executor)["threads"]["executor"] == executor
        kldiv_fast.set_executor(executor)
        assert kldiv_fast.get_executor() == executor
    kldiv_fast.set_executor(before)


def test_executor_that_is_unknown():
    with pytest.raises(ValueError, match="name is 'tbb'; expected one of: 'pool'"):
        kldiv_fast.set_executor("tbb")
    with pytest.raises(TypeError, match="name is of type int; expected a string"):
        kldiv_fast.set_executor(1)
    done = run_python("import kldiv_fast", KLDIV_FAST_EXECUTOR="tbb")
    assert "ImportError: KLDIV_FAST_EXECUTOR is 'tbb', which can't be had here" in done.stderr
