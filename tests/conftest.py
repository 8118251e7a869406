"""What the tests share: the ISA fixture and a seeded generator."""

import os
import signal

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import kldiv_fast
import numpy as np
import pytest
from hypothesis import settings
from kldiv_fast import _core

# What starts the tests in the background may have left Ctrl-C ignored; the tests of interrupts need it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header():
    return f"kldiv_fast ISAs: {', '.join(kldiv_fast.available_isas())}"


@pytest.fixture(params=kldiv_fast.available_isas())
def isa(request):
    """Run the test once on each ISA of this machine."""
    before = kldiv_fast.current_isa()
    assert _core.select_isa(request.param)
    yield request.param
    assert _core.select_isa(before)


@pytest.fixture
def rng():
    return np.random.default_rng(20261124)


settings.register_profile("quick", max_examples=300, deadline=None, derandomize=True)
settings.register_profile(
    "long", max_examples=100_000 // len(kldiv_fast.available_isas()) + 1, deadline=None
)
settings.load_profile("quick")
