"""Benchmarks run when asked for (``--benchmark-only``), not among the tests."""

import pytest


def pytest_collection_modifyitems(config, items):
    if config.getoption("--benchmark-only"):
        return
    here = config.rootpath / "benchmarks"
    config.hook.pytest_deselected(items=[item for item in items if item.path.is_relative_to(here)])
    items[:] = [item for item in items if not item.path.is_relative_to(here)]


@pytest.hookimpl(trylast=True)
def pytest_benchmark_update_machine_info(config, machine_info):
    import kldiv_fast

    machine_info["kldiv_fast"] = {
        "isa": kldiv_fast.current_isa(),
        "threads": kldiv_fast.get_num_threads(),
    }
