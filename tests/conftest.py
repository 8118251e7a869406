"""What the tests share: the ISA fixture, a seeded generator, processes begun early, what is left to ``--long``."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import kldiv_fast
import numpy as np
import pairwise
import pytest
from hypothesis import settings
from isas import selected

# What starts the tests in the background may have left Ctrl-C ignored; the tests of interrupts need it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header():
    return f"kldiv_fast ISAs: {', '.join(kldiv_fast.available_isas())}"


@pytest.fixture(params=kldiv_fast.available_isas())
def isa(request):
    """Run the test once on each ISA of this machine."""
    with selected(request.param):
        yield request.param


@pytest.fixture
def rng():
    return np.random.default_rng(20261124)


# ---- processes that take seconds ----


@pytest.fixture(scope="module", autouse=True)
def begun(request):
    """What the module's tests marked `beside` wait for, by test."""
    tests = [x for x in request.session.items if getattr(x, "module", None) is request.module]
    marks = {test: test.get_closest_marker("beside") for test in tests}
    with ThreadPoolExecutor() as pool:
        yield {test: pool.submit(*m.args, **m.kwargs) for test, m in marks.items() if m}


@pytest.fixture
def beside(request, begun):
    """The future of what the test's mark names."""
    return begun[request.node]


# ---- the plain run and --long ----

settings.register_profile("quick", max_examples=200, deadline=None, derandomize=True)
# Both tell the same of the same code; what draws anew each time is endurance.py.
settings.register_profile(
    "long",
    max_examples=20_000 // len(kldiv_fast.available_isas()) + 1,
    deadline=None,
    derandomize=True,
)


def pytest_addoption(parser):
    text = "run what the plain run leaves out: tests marked long, and 20,000 generated calls"
    parser.addoption("--long", action="store_true", help=text)


def pytest_ignore_collect(config):
    return True if config.getoption("--benchmark-only", default=False) else None


LONGEST = "test_keras_adapter.py"  # begins first, lest other processes wait for the one that has it


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """``-n auto``: no more than have room, with three frameworks in each."""
    return min(kldiv_fast.get_num_threads(), 4)


def pytest_configure(config):
    pairwise.makes_all = config.getoption("--long")
    settings.load_profile("long" if pairwise.makes_all else "quick")
    if getattr(config.option, "dist", "no") != "no":  # what a test waits for is begun by its file
        config.option.dist, config.option.loadscopereorder = "loadfile", False


@pytest.hookimpl(trylast=True)  # after Hypothesis has marked its tests
def pytest_collection_modifyitems(config, items):
    def wanted(item):
        marked = item.get_closest_marker("long") is not None
        if config.getoption("--long"):
            return marked or item.get_closest_marker("hypothesis") is not None
        return not marked

    kept = [item for item in items if wanted(item)]
    config.hook.pytest_deselected(items=[item for item in items if not wanted(item)])
    paths = {item.path: place for place, item in enumerate(kept)}
    paths |= {path: -1 for path in paths if path.name == LONGEST}
    items[:] = sorted(
        kept, key=lambda x: (paths[x.path], x.get_closest_marker("beside") is not None)
    )
