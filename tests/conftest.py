"""What the tests share: the ISA fixture, random distributions, and an oracle in extended precision."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import kldiv_fast
import numpy as np
import pytest
from kldiv_fast import _core


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


def distributions(rng, shape, dtype=np.float32, axis=-1):
    x = rng.gamma(0.5, size=shape) + 1e-12
    return (x / x.sum(axis=axis, keepdims=True)).astype(dtype)


def oracle(y_true, y_pred, axis=-1, epsilon=1e-7, work=np.float64):
    """Rows in extended precision. `work` is the type that the kernel clips in: epsilon is rounded to it."""
    low = np.longdouble(work(epsilon))
    t = np.clip(np.asarray(y_true).astype(np.longdouble), low, 1)
    p = np.clip(np.asarray(y_pred).astype(np.longdouble), low, 1)
    t, p = np.broadcast_arrays(t, p)
    return (t * (np.log(t) - np.log(p))).sum(axis=axis)
