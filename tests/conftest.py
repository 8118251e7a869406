"""What the tests share: the ISA fixture, a seeded generator, and what the plain run leaves to ``--long``."""

import os
import signal

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import kldiv_fast
import numpy as np
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


# ---- the plain run and --long ----

settings.register_profile("quick", max_examples=300, deadline=None, derandomize=True)
settings.register_profile(
    "long", max_examples=20_000 // len(kldiv_fast.available_isas()) + 1, deadline=None
)


def pytest_addoption(parser):
    text = "run what the plain run leaves out: tests marked long, and 20,000 generated calls"
    parser.addoption("--long", action="store_true", help=text)


def pytest_configure(config):
    settings.load_profile("long" if config.getoption("--long") else "quick")


@pytest.hookimpl(trylast=True)  # after Hypothesis has marked its tests
def pytest_collection_modifyitems(config, items):
    def wanted(item):
        marked = item.get_closest_marker("long") is not None
        if config.getoption("--long"):
            return marked or item.get_closest_marker("hypothesis") is not None
        return not marked

    kept = [item for item in items if wanted(item)]
    config.hook.pytest_deselected(items=[item for item in items if not wanted(item)])
    items[:] = kept
