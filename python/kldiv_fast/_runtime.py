"""What runs: the ISAs, and :func:`kldiv_fast.show_runtime`, which puts facts of build and process into words."""

import os
import platform

import numpy as np

from kldiv_fast import _core


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
    - ``threads``: ``num_threads`` is what a large call uses, ``set_by`` who decided it.
    - ``openmp``: ``filepath`` is the runtime that this process loaded, as in ``threadpoolctl``.
      None in a build without OpenMP, where every call is serial.

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
    num_threads = 1 if facts["forked"] else _core.get_num_threads()
    return {"num_threads": num_threads, "set_by": _who_set_threads(facts)}


def _who_set_threads(facts):
    if not facts["openmp"]:
        return "the build, which has no OpenMP: serial"
    if facts["forked"]:
        return "the fork: a forked child is serial"
    if 0 < facts["setting"] <= facts["limit"]:
        return "set_num_threads"
    # A list of numbers is one for each level of nesting.
    if os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip() == str(facts["limit"]):
        return "OMP_NUM_THREADS"
    if facts["limit"] == facts["processors"]:
        return "OpenMP: the processors that this process may use"
    return "OpenMP's limit in this thread (omp_set_num_threads, threadpoolctl)"


def _openmp(facts):
    if not facts["openmp"]:
        return None
    return {
        "version": facts["openmp"],
        "filepath": facts["library"],
        "num_threads": facts["limit"],
        "processors": facts["processors"],
    }
