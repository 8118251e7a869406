"""The package around the function: documentation, signature, environment, interrupts, forks, symbols."""

import doctest
import inspect
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import kldiv_fast
import numpy as np
import pytest
from kldiv_fast._divergence import DEFAULTS, gradient_function, value_function
from kldiv_fast._operations import ENTRIES, OPERATIONS
from processes import printed, run_python


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda row: row.name)
@pytest.mark.parametrize("make", [value_function, gradient_function])
def test_signature_is_that_of_the_implementation(operation, make):
    fallback = make(operation)
    function = getattr(kldiv_fast, fallback.__name__)
    ours = inspect.signature(function).parameters
    theirs = dict(inspect.signature(fallback).parameters)
    assert theirs.pop("given").kind is inspect.Parameter.VAR_KEYWORD
    named = {name: x.default for name, x in theirs.items()}
    assert {name: x.default for name, x in ours.items()} == named | DEFAULTS | operation.defaults()
    inputs = ("y_true", "y_pred")
    assert all((x.kind is x.KEYWORD_ONLY) == (name not in inputs) for name, x in ours.items())
    assert ENTRIES[operation.name].title in function.__doc__
    assert function.__module__ == "kldiv_fast"
    assert function.__name__ == fallback.__name__
    assert pickle.loads(pickle.dumps(function)) is function


STUBS = Path(__file__).parents[1] / "tools" / "stubs.py"


@pytest.mark.skipif(not STUBS.exists(), reason="needs the repository's tools")
def test_stubs_are_those_of_the_table():
    subprocess.run([sys.executable, STUBS, "--check"], check=True)


@pytest.mark.parametrize("name", kldiv_fast.__all__)
def test_examples_in_docstrings(name):
    doc = getattr(kldiv_fast, name).__doc__
    test = doctest.DocTestParser().get_doctest(doc, {}, name, None, None)
    assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.parametrize("isa", kldiv_fast.available_isas())
def test_forced_isa(isa):
    done = run_python("import kldiv_fast; print(kldiv_fast.current_isa())", KLDIV_FAST_ISA=isa)
    assert done.stdout.strip() == isa


def test_isa_that_cannot_run():
    done = run_python("import kldiv_fast", KLDIV_FAST_ISA="vax")
    assert done.returncode == 1
    assert "KLDIV_FAST_ISA is 'vax'" in done.stderr.splitlines()[-1]


def test_import_needs_numpy_alone():
    code = "import sys, numpy; a=set(sys.modules); import kldiv_fast; print(*set(sys.modules) - a)"
    new = run_python(code).stdout.split()
    assert [name for name in new if not name.startswith("kldiv_fast")] == []


def test_omp_num_threads_is_honoured():
    code = "import kldiv_fast; print(kldiv_fast.get_num_threads())"
    assert run_python(code, OMP_NUM_THREADS="1").stdout.strip() == "1"


def test_set_num_threads():
    code = (
        "import kldiv_fast as k; k.set_num_threads(1); print(k.get_num_threads());"
        "k.set_num_threads(9); print(k.get_num_threads()); k.set_num_threads(None);"
        "print(k.get_num_threads())"
    )
    most = str(min(4, kldiv_fast.show_runtime(mode="dicts")["threads"]["processors"]))
    assert run_python(code, OMP_NUM_THREADS="4").stdout.split() == ["1", most, most]


@pytest.mark.parametrize(
    ("reduction", "form"), [("mean", "probs"), ("none", "probs"), ("mean", "logits")]
)
def test_interrupt(reduction, form):
    """Ctrl-C ends a call over a view of 10^12 elements, minutes of work, and the next call works."""
    code = """
import signal, threading
import numpy as np
from kldiv_fast import kl
row = np.full(10_000, 1e-4, np.float32)
view = np.broadcast_to(row, (100_000_000, row.size))
out = np.empty(len(view), np.float32) if reduction == "none" else None
threading.Timer(0.5, signal.raise_signal, [signal.SIGINT]).start()
try:
    kl(view, view, form=form, reduction=reduction, out=out)
except KeyboardInterrupt:
    print(kl(row, row))
"""
    assert printed(f"{reduction=}; {form=}\n{code}") == "0.0"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_fork_after_threads():
    code = """
import os, warnings, numpy as np, kldiv_fast
warnings.simplefilter("ignore")
x = np.full((2000, 1000), 0.001, np.float32)
expected = kldiv_fast.kl(x, x * 2)
for _ in range(20):
    child = os.fork()
    if child == 0:
        os._exit(0 if kldiv_fast.kl(x, x * 2) == expected else 1)
    assert os.waitpid(child, 0)[1] == 0
print(kldiv_fast.kl(x, x * 2) == expected)
"""
    assert run_python(code, OMP_NUM_THREADS="2").stdout.strip() == "True"


def test_many_python_threads(rng):
    x, y = rng.random((200, 1000), np.float32), rng.random((200, 1000), np.float32)
    expected = kldiv_fast.kl(x, y, reduction="none")
    outs = [np.empty(200, np.float32) for _ in range(16)]

    def work(out):
        for _ in range(20):
            kldiv_fast.kl(x, y, reduction="none", out=out)

    threads = [threading.Thread(target=work, args=[out]) for out in outs]
    [t.start() for t in threads]
    [t.join() for t in threads]
    for out in outs:
        np.testing.assert_array_equal(out, expected)
