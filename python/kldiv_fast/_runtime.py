"""What runs: the ISAs, the threads and who brings them, and :func:`kldiv_fast.show_runtime`, which puts facts of build and process into words."""

import os
import platform

import numpy as np

from kldiv_fast import _core
from kldiv_fast._meaning import check_threads


def available_isas():
    """Names of the implementations that this machine can run, best first.

    Returns
    -------
    list of str
        Among "avx512", "avx2" and "baseline" on x86-64, "neon" and "baseline" on AArch64.

    Examples
    --------
    >>> import kldiv_fast
    >>> kldiv_fast.available_isas()[-1]
    'baseline'
    """
    return _core.available_isas()


def current_isa():
    """The implementation in use: the best, unless the variable ``KLDIV_FAST_ISA`` named another.

    Returns
    -------
    str
        One of :func:`available_isas`.

    Examples
    --------
    >>> import kldiv_fast
    >>> kldiv_fast.current_isa() in kldiv_fast.available_isas()
    True
    """
    return _core.current_isa()


def set_num_threads(n):
    """Set how many threads a call of :func:`kl` or another divergence may use.

    Parameters
    ----------
    n : int or None
        At least 1. A call never has more threads than OpenMP allows (``OMP_NUM_THREADS``,
        ``threadpoolctl``), nor than the calling thread may use processors.
        None gives the choice back to OpenMP.

    Raises
    ------
    TypeError, ValueError
        If `n` is no integer, or below 1.

    Examples
    --------
    >>> import kldiv_fast
    >>> kldiv_fast.set_num_threads(1)
    >>> kldiv_fast.get_num_threads()
    1
    >>> kldiv_fast.set_num_threads(None)
    """
    _core.set_num_threads(0 if n is None else check_threads(n, "n"))


def get_num_threads():
    """Threads that a large call of :func:`kl` uses when it names no number.

    Returns
    -------
    int

    Examples
    --------
    >>> import kldiv_fast
    >>> kldiv_fast.get_num_threads() >= 1
    True
    """
    return _core.get_num_threads()


def set_executor(name):
    """Choose who brings threads to large calls: helpers of our own, or OpenMP.

    Results have the same bits with either. The default is "pool"; the variable
    ``KLDIV_FAST_EXECUTOR`` chooses when the package is imported. docs/speed.md has both, side by side.

    Parameters
    ----------
    name : {"pool", "openmp"}
        "pool": threads that all callers share. A call never waits for one that has not begun, and
        a forked child makes its own. "openmp": a parallel region for each call, in OpenMP's own
        threads; how long they spin is OpenMP's choice (``OMP_WAIT_POLICY``), and a forked child is
        serial.

    Raises
    ------
    TypeError, ValueError
        If `name` is no string, or not an executor of this build.

    Examples
    --------
    >>> import kldiv_fast
    >>> kldiv_fast.set_executor("pool")
    >>> kldiv_fast.get_executor()
    'pool'
    """
    if not isinstance(name, str):
        raise TypeError(f"name is of type {type(name).__name__}; expected a string")
    if not _core.select_executor(name):
        raise ValueError(f"name is {name!r}; expected one of: {_executors()}")


def get_executor():
    """The executor in use: see :func:`set_executor`.

    Returns
    -------
    str

    Examples
    --------
    >>> import kldiv_fast
    >>> kldiv_fast.get_executor() in ("pool", "openmp")
    True
    """
    return _core.current_executor()


def _executors():
    return ", ".join(map(repr, _core.available_executors()))


def choose_from_environment():
    """``KLDIV_FAST_ISA`` and ``KLDIV_FAST_EXECUTOR``: what the package uses from its import on."""
    choices = (
        ("KLDIV_FAST_ISA", _core.select_isa, available_isas),
        ("KLDIV_FAST_EXECUTOR", _core.select_executor, _core.available_executors),
    )
    for variable, select, available in choices:
        name = os.environ.get(variable)
        if name and not select(name):
            raise ImportError(
                f"{variable} is {name!r}, which can't be had here; "
                f"expected one of: {', '.join(available())}"
            )


def show_runtime(mode="stdout"):
    """Print what a bug report needs to know: version, ISA, threads, OpenMP, compiler.

    Parameters
    ----------
    mode : {"stdout", "dicts"}, default "stdout"
        "dicts": return it as a dictionary of dictionaries instead, as ``numpy.show_config`` does.

    Returns
    -------
    dict or None

    Raises
    ------
    ValueError
        If `mode` is neither of the two.

    Notes
    -----
    - ``isa``: ``current`` is in use; ``found`` are those that this machine can run, best first;
      ``disabled`` are better ones that ``KLDIV_FAST_ISA`` passed over; ``not_found`` are in this
      build, but this machine can't run them.
    - ``threads``: ``num_threads`` is what a large call uses, ``set_by`` who decided it;
      ``executor`` brings them (:func:`set_executor`), ``executors`` are those of this build;
      ``processors`` are those that the calling thread may use.
    - ``openmp``: ``filepath`` is the runtime that this process loaded, as in ``threadpoolctl``.
      None in a build without OpenMP.

    Examples
    --------
    >>> import kldiv_fast
    >>> runtime = kldiv_fast.show_runtime(mode="dicts")
    >>> runtime["isa"]["current"] == kldiv_fast.current_isa()
    True
    """
    if mode not in ("stdout", "dicts"):
        raise ValueError(f"mode is {mode!r}; expected 'stdout' or 'dicts'")
    facts = _core.runtime()
    runtime = {
        "versions": {
            "kldiv_fast": _core.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
        },
        "isa": _isa(facts),
        "threads": _threads(facts),
        "openmp": _openmp(facts),
        "build": {"compiler": facts["compiler"], "type": facts["build_type"]},
    }
    if mode == "dicts":
        return runtime
    from pprint import pprint

    pprint(runtime, sort_dicts=False)
    return None


def _isa(facts):
    current, found = _core.current_isa(), _core.available_isas()
    return {
        "current": current,
        "found": found,
        "disabled": found[: found.index(current)],
        "not_found": [isa for isa in facts["isas"] if isa not in found],
    }


def _threads(facts):
    executor = _core.current_executor()
    serial = facts["forked"] and executor == "openmp"
    return {
        "num_threads": 1 if serial else _core.get_num_threads(),
        "set_by": "the fork: OpenMP is serial in a forked child" if serial else _who_set(facts),
        "executor": executor,
        "executors": _core.available_executors(),
        "processors": facts["processors"],
    }


def _who_set(facts):
    """Who set the smallest of the limits."""
    setting, limit, processors = facts["setting"], facts["limit"], facts["processors"]
    if 0 < setting <= min(limit, processors):
        return "set_num_threads"
    if processors <= limit:
        return "the processors that this thread may use"
    # A list of numbers is one for each level of nesting.
    if os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip() == str(limit):
        return "OMP_NUM_THREADS"
    return "OpenMP's limit in this thread (omp_set_num_threads, threadpoolctl)"


def _openmp(facts):
    if not facts["openmp"]:
        return None
    return {
        "version": facts["openmp"],
        "filepath": facts["library"],
        "num_threads": facts["limit"],
    }
