"""How benchmarks/ judges and shows what it measured; that the pages have the results' figures is in test_docs.py."""

import runpy
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TABLES = runpy.run_path(str(BENCHMARKS / "tables.py"))
TIMING = runpy.run_path(str(BENCHMARKS / "timing.py"))
RESULTS = runpy.run_path(str(BENCHMARKS / "results.py"))


@pytest.mark.parametrize(
    ("kind", "bound", "times", "base", "verdict"),
    [
        ("at_least", 1.85, [1.846], [1.0], "yes"),  # shown as 1.85
        ("at_least", 1.85, [1.83], [1.0], "**no**"),  # no noise is known
        ("at_least", 1.85, [1.83, 1.80, 1.86], [1.0, 0.98, 1.02], "no, within the noise"),
        ("at_least", 1.85, [1.70, 1.69, 1.71], [1.0, 0.99, 1.01], "**no**"),
        ("at_least", 1.85, [1.60, 1.20, 2.00], [1.0, 0.90, 1.10], "**no**"),  # too noisy to tell
        ("at_least", 1.85, [1.90, 1.50, 2.30], [1.0, 0.90, 1.10], "yes, within the noise"),
        ("at_most", 1.1, [1.104], [1.0], "yes"),
        ("at_most", 1.1, [1.12, 1.10, 1.14], [1.0, 0.98, 1.02], "no, within the noise"),
        ("at_most", 1.1, [1.2, 1.19, 1.21], [1.0, 0.99, 1.01], "**no**"),
    ],
)
def test_a_goal_is_judged_as_shown_and_with_its_noise(kind, bound, times, base, verdict):
    assert TABLES[kind](bound, "two threads over one", times, base).verdict() == verdict


def test_noise_of_a_ratio():
    goal = TABLES["at_most"](1, "", [2.0, 1.9, 2.2], [1.0, 0.96, 1.04])
    assert goal.noise == pytest.approx(2 * (0.075**2 + 0.04**2) ** 0.5)


def test_a_machine_has_columns_of_its_own_where_there_are_two():
    found = {"avx512": {"a": 1, "b": 2}, "avx2": {"b": 3}}

    def columns(data):
        return ["us"], {(name,): [value] for name, value in data.items()}

    assert list(TABLES["table"](["call"], found, columns)) == [
        "| call | avx512: us | avx2: us |",
        "| --- | ---: | ---: |",
        "| a | 1 | - |",
        "| b | 2 | 3 |",
    ]
    assert next(TABLES["table"](["call"], {"avx2": {"b": 3}}, columns)) == "| call | us |"


def test_what_was_disturbed():
    steady = {"kl": [2.0, 1.9, 2.1], "limit": [1.8, 1.7, 1.9]}
    assert not TIMING["disturbed"](steady, {"limit": "kl"})
    assert TIMING["disturbed"](steady | {"kl": [2.0, 1.2, 2.1]}, {})
    slow = steady | {"limit": [40.0, 39.0, 41.0]}  # steadily so, beside others
    assert TIMING["disturbed"](slow, {"limit": "kl"})
    assert not TIMING["disturbed"](slow, {})


def test_disturbed_rounds_are_measured_again(monkeypatch):
    attempts = [{"kl": [9.0, 1.0, 9.0]}, {"kl": [2.0, 1.0, 3.0]}, {"kl": [5.0, 1.0, 7.0]}]
    interleaved = TIMING["interleaved"]
    rounds = iter(attempts)
    monkeypatch.setitem(interleaved.__globals__, "_rounds", lambda *_: next(rounds))
    assert interleaved({}, 1) == {"kl": [2.0, 1.0, 3.0]}  # none was steady: the fastest
    rounds = iter([attempts[0], {"kl": [1.1, 1.0, 1.2]}])
    assert interleaved({}, 1) == {"kl": [1.1, 1.0, 1.2]}
    rounds = iter(attempts)
    assert interleaved({}, 0) == attempts[0]  # that it runs, not what it measures


def test_results_keep_the_other_sections(tmp_path):
    update, read = RESULTS["update"], RESULTS["read"]
    update("avx2", "peers", "one", {"2x2": {"kl": [1e-07, 9e-08, 2e-07]}}, tmp_path)
    update("avx512", "peers", "another", {}, tmp_path)
    update("avx2", "limit", "one", {"left out": ["row by row, 1"]}, tmp_path)
    found = read(tmp_path)
    assert list(found) == ["avx512", "avx2"]
    assert list(found["avx2"]) == ["peers", "limit"]
    assert '"kl": [1e-07, 9e-08, 2e-07]' in (tmp_path / "avx2.json").read_text(encoding="utf-8")
