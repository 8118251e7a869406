"""``pytest --benchmark-only``: what it shows, and in which order; at the end how many times faster than each peer."""

import pytest

COLUMNS = ["median", "iqr", "min", "rounds"]


def pytest_configure(config):
    """Medians first: on a shared machine the least and the mean say little."""
    option = config.option
    if option.benchmark_columns is None and option.benchmark_sort == "min":
        option.benchmark_columns, option.benchmark_sort = COLUMNS, "median"


def pytest_collection_modifyitems(config, items):
    """Not among the tests, nor the tests among these."""
    only, here = config.getoption("--benchmark-only"), config.rootpath / "benchmarks"
    kept, left = [], []
    for item in items:
        (kept if item.path.is_relative_to(here) == only else left).append(item)
    config.hook.pytest_deselected(items=left)
    items[:] = kept


@pytest.hookimpl(tryfirst=True)
def pytest_benchmark_group_stats(benchmarks, group_by):
    """Shapes as they ran, in order of size."""
    if group_by != "group":
        return None
    groups = {}
    for benchmark in benchmarks:
        groups.setdefault(benchmark["group"], []).append(benchmark)
    return list(groups.items())


@pytest.hookimpl(trylast=True)
def pytest_benchmark_update_machine_info(config, machine_info):
    import kldiv_fast

    machine_info["kldiv_fast"] = {
        "isa": kldiv_fast.current_isa(),
        "threads": kldiv_fast.get_num_threads(),
    }


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config):
    """A grid of peers and shapes: their medians over kldiv_fast's."""
    medians = {}
    for benchmark in config._benchmarksession.benchmarks:
        if "peer" in benchmark.extra_info and benchmark.stats is not None:
            found = medians.setdefault(benchmark.group, {})
            found[benchmark.extra_info["peer"]] = benchmark.stats.median
    medians = {shape: found for shape, found in medians.items() if "kldiv_fast" in found}
    if not medians:
        return
    peers = dict.fromkeys(peer for found in medians.values() for peer in found)
    width = max(map(len, ["kldiv_fast, us", *peers]))

    def write_row(name, cell):
        row = "".join(f"{cell(found, name):>13}" for found in medians.values())
        terminalreporter.write_line(f"{name:<{width}}{row}")

    terminalreporter.section("times faster: a peer's median over kldiv_fast's")
    terminalreporter.write_line(" " * width + "".join(f"{shape:>13}" for shape in medians))
    for peer in peers:
        if peer != "kldiv_fast":
            write_row(peer, _times_faster)
    write_row("kldiv_fast, us", _microseconds)


def _times_faster(found, peer):
    if peer not in found:
        return "-"
    ratio = found[peer] / found["kldiv_fast"]
    return f"{ratio:.{int(ratio < 100)}f}x"


def _microseconds(found, _):
    value = found["kldiv_fast"] * 1e6
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
