"""``pytest --benchmark-only``: kl beside its peers, on the shapes of peers.py, results compared before they are timed.

All in one process: a peer in one of its own takes as long, within what two runs differ by.
"""

import pytest
from peers import PEERS, SHAPES, agree, make_pair, reference


@pytest.fixture(scope="module", params=SHAPES, ids=lambda s: f"{s[0]}x{s[1]}")
def case(request):
    y_true, y_pred = make_pair(request.param)
    return y_true, y_pred, reference(y_true, y_pred)


@pytest.mark.parametrize("name", PEERS)
def test_mean(benchmark, case, name):
    y_true, y_pred, exact = case
    try:
        function = PEERS[name](y_true, y_pred)
    except ImportError as error:
        pytest.skip(f"{name}: {error.name} is not installed")
    except ValueError as error:
        pytest.skip(f"{name}: {error}")
    value = float(function())
    assert agree(name, value, exact), f"{name} gives {value}, expected {exact}"
    benchmark.group = f"{y_true.shape[0]}x{y_true.shape[1]}"
    benchmark.extra_info["peer"] = name
    benchmark.extra_info["relative error"] = abs(value / exact - 1)
    benchmark(function)
    if benchmark.stats:
        benchmark.extra_info["elements per second"] = y_true.size / benchmark.stats["median"]
