"""Which ISA the core runs, chosen for a while."""

from contextlib import contextmanager

import kldiv_fast
from kldiv_fast import _core


@contextmanager
def selected(name):
    before = kldiv_fast.current_isa()
    assert _core.select_isa(name)
    try:
        yield name
    finally:
        assert _core.select_isa(before)


def on_each_isa(function):
    """What the function returns on each ISA of this machine, by the ISA's name."""
    results = {}
    for name in kldiv_fast.available_isas():
        with selected(name):
            results[name] = function()
    return results
