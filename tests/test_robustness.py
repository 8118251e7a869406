"""Never a hang, never a crash: forks, limits set by others, neighbours with teams of their own, memory that runs out."""

import os
import sys
from importlib.util import find_spec

import kldiv_fast
import numpy as np
import pytest
from endings import Program
from processes import printed, run_python

RUNTIME = kldiv_fast.show_runtime(mode="dicts")
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


SETUP = """
import warnings; warnings.simplefilter("ignore")
import numpy as np
rng = np.random.default_rng(0)
t, p = rng.random((2, 1000, 500), np.float32)
"""


@posix
@pytest.mark.long
def test_torch_data_loader():
    pytest.importorskip("torch")
    code = """
import torch, kldiv_fast
expected = float(kldiv_fast.kl(t, p))
class Data(torch.utils.data.Dataset):
    def __len__(self): return 16
    def __getitem__(self, i): return float(kldiv_fast.kl(t, p))
loader = torch.utils.data.DataLoader(Data(), num_workers=4, multiprocessing_context="fork", timeout=60)
print([float(x) for x in loader] == [expected] * 16, kldiv_fast.kl(t, p) == np.float32(expected))
"""
    assert printed(SETUP + code) == "True True"


@posix
def test_joblib_processes():
    pytest.importorskip("joblib")
    code = """
import joblib, kldiv_fast
expected = kldiv_fast.kl(t, p)
for backend in ("loky", "multiprocessing", "threading"):
    values = joblib.Parallel(4, backend=backend)(joblib.delayed(kldiv_fast.kl)(t, p) for _ in range(8))
    assert values == [expected] * 8, backend
print("done")
"""
    assert printed(SETUP + code) == "done"


def test_threadpoolctl_limits_are_obeyed():
    pytest.importorskip("threadpoolctl")
    code = """
import kldiv_fast, threadpoolctl
before = kldiv_fast.get_num_threads()
with threadpoolctl.threadpool_limits(1):
    inside = kldiv_fast.get_num_threads()
    kldiv_fast.set_num_threads(7)
    raised = kldiv_fast.get_num_threads()
    kldiv_fast.set_num_threads(None)
print(before, inside, raised, kldiv_fast.get_num_threads())
"""
    most = str(min(3, RUNTIME["threads"]["processors"]))
    assert printed(code, OMP_NUM_THREADS="3") == f"{most} 1 1 {most}"


NEIGHBOURS = {
    "torch": "import torch; x = torch.ones(500, 500); (x @ x).sum()",
    "tensorflow": "import tensorflow as tf; x = tf.ones((500, 500)); tf.reduce_sum(x @ x)",
    "sklearn": "from sklearn.cluster import KMeans; KMeans(3, n_init=1).fit(np.random.rand(3000, 20))",
    "faiss": "import faiss; i = faiss.IndexFlatL2(500); i.add(p); i.search(t, 3)",
}


def answers_beside(names):
    """Whether our values stay the same, with libraries loaded and used in this order, None for us, and used again."""
    for name in filter(None, names):
        if find_spec(name) is None:  # not imported: other threads may be at that
            pytest.skip(f"could not import {name!r}")
    ours = "import kldiv_fast; a = kldiv_fast.kl(t, p)"
    lines = [ours if name is None else NEIGHBOURS[name] for name in names] * 2
    lines.append("print(kldiv_fast.kl(t, p) == kldiv_fast.kl(t, p, num_threads=1) == a)")
    return printed(SETUP + "\n".join(lines), TF_CPP_MIN_LOG_LEVEL="3") == "True"


@pytest.mark.parametrize(
    "order",
    [
        pytest.param(order, marks=pytest.mark.beside(answers_beside, order), id=id)
        for id, order in (("first", [None, *NEIGHBOURS]), ("last", [*reversed(NEIGHBOURS), None]))
    ],
)
def test_beside_other_teams(beside, order):
    """In one process, in an order and in its reverse: so any two of us all were loaded in both orders."""
    assert beside.result()


@pytest.mark.long
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("neighbour", NEIGHBOURS)
def test_beside_one_other_team(neighbour, first):
    assert answers_beside([None, neighbour] if first else [neighbour, None])


@pytest.mark.long
@pytest.mark.parametrize("first", NEIGHBOURS)
def test_beside_all_of_them(first):
    """In an order that each of them opens once, and we come second, third, fourth or last."""
    names = list(NEIGHBOURS)
    at = names.index(first)
    order = names[at:] + names[:at]
    order.insert(1 + at, None)
    assert answers_beside(order)


FLUSHING = """
import torch, kldiv_fast
from isas import on_each_isa

def subnormal(dtype, integer, start):
    return ((np.arange(400_000) + start) % 1000).astype(integer).view(dtype).reshape(400, 1000)

def values():
    found = []
    for dtype, integer in ((np.float16, np.uint16), (np.float32, np.uint32), (np.float64, np.uint64)):
        t, p = subnormal(dtype, integer, 1), subnormal(dtype, integer, 500)
        for threads in (2, 1):
            for keywords in ({"reduction": "none"}, {"reduction": "sum"}, {"axis": 0, "reduction": "sum"}):
                value, gradient = kldiv_fast.kl_value_and_grad(
                    t, p, epsilon=None, num_threads=threads, **keywords
                )
                found += [value.tobytes(), gradient.tobytes()]
            found.append(kldiv_fast.kl(t[0], p[0], epsilon=None, num_threads=threads).tobytes())
    return found

assert torch.set_flush_denormal(True)
flushing = on_each_isa(values)
torch.set_flush_denormal(False)
print(flushing == on_each_isa(values))
"""


@pytest.mark.beside(
    printed, SETUP + FLUSHING, PYTHONPATH=os.path.dirname(__file__), OMP_NUM_THREADS="2"
)
def test_beside_a_thread_that_flushes_subnormals(beside):
    """As TensorFlow's do, and as a helper would that such a thread has started: the bits are those of any other thread."""
    pytest.importorskip("torch")
    assert beside.result() == "True"


def test_inside_a_team_of_python_threads_with_limits(rng):
    """A call from within another OpenMP team's limit of one still answers."""
    code = "import kldiv_fast; print(kldiv_fast.kl(t, p) == kldiv_fast.kl(t, p, num_threads=64))"
    assert printed(SETUP + code, OMP_THREAD_LIMIT="1") == "True"
    assert printed(SETUP + code, OMP_NUM_THREADS="64") == "True"


@pytest.mark.skipif(sys.platform != "linux", reason="limits its address space")
def test_memory_that_runs_out():
    """MemoryError for what cannot be allocated; the next call works."""
    code = """
import resource, kldiv_fast
row = np.broadcast_to(np.full(1, 0.5, np.float32), (1 << 28, 2))
kldiv_fast.kl(t, p)
size = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20), -1))
try:
    kldiv_fast.kl(row, row, reduction="none")
except MemoryError:
    print("MemoryError", kldiv_fast.kl(t, p) > 0)
"""
    assert printed(SETUP + code, OPENBLAS_NUM_THREADS="1") == "MemoryError True"


@pytest.mark.parametrize("overlap", ["same", "shifted", "reversed", "inside"])
def test_out_that_overlaps(isa, rng, overlap):
    memory = rng.random((41, 40), np.float32)
    y_true = memory[:40]
    y_pred = rng.random((40, 40), np.float32)
    expected = kldiv_fast.kl(y_true.copy(), y_pred, reduction="none")
    out = {
        "same": y_true[:, 0],
        "shifted": memory[1:, 3],
        "reversed": y_true[::-1, 5],
        "inside": y_true[7],
    }[overlap]
    assert kldiv_fast.kl(y_true, y_pred, reduction="none", out=out) is out
    np.testing.assert_array_equal(out, expected)


def test_more_elements_than_32_bits_count():
    """2^33 elements, as a view: 64-bit arithmetic throughout."""
    row = np.broadcast_to(np.array([0.5], np.float32), (1 << 31, 4))
    other = np.broadcast_to(np.array([0.25], np.float32), (1 << 31, 4))
    expected = (1 << 33) * 0.5 * np.log(2)
    assert kldiv_fast.kl(row, other, reduction="sum") == pytest.approx(expected, rel=1e-6)


def test_shape_that_changes_hands(rng):
    """Views of one buffer in many shapes, from many threads at once."""
    from concurrent.futures import ThreadPoolExecutor

    buffer, other = rng.random((2, 2**16), np.float32)
    shapes = [(2**k, 2 ** (16 - k)) for k in range(17)]
    alone = [kldiv_fast.kl(buffer.reshape(s), other.reshape(s), reduction="sum") for s in shapes]
    with ThreadPoolExecutor(8) as pool:
        together = pool.map(
            lambda s: kldiv_fast.kl(buffer.reshape(s), other.reshape(s), reduction="sum"),
            shapes * 20,
        )
        assert list(together) == alone * 20


@posix
def test_a_fork_in_the_middle_of_a_call():
    """A signal's handler forks while helpers are at work, which the child has not."""
    code = """
import os, signal
import numpy as np
from kldiv_fast import kl

x = np.broadcast_to(np.float32(0.5), (4 * 10**8,))
child = None
def fork(*_):
    global child
    child = os.fork() if child is None else child
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)  # ends a child that hangs
signal.signal(signal.SIGALRM, fork)
signal.setitimer(signal.ITIMER_REAL, 0.06)
while child is None:
    value = kl(x, np.float32(0.25), epsilon=1e-7, reduction="sum", num_threads=2)
expected = kl(x[:1000], np.float32(0.25), reduction="sum") * 400_000
assert abs(value / expected - 1) < 1e-6, (value, expected)
if child == 0:
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""
    done = run_python(code, OMP_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr


@posix
def test_a_fault_in_a_helper_reaches_the_handler_of_the_program():
    """The middle of a mapped file is gone: faulthandler says so, whichever thread reads it."""
    code = """
import faulthandler, os, tempfile
import numpy as np
from kldiv_fast import kl

faulthandler.enable()
n = 1 << 22
with tempfile.NamedTemporaryFile() as file:
    file.truncate(4 * n)
    mapped = np.memmap(file.name, np.float32, "r", shape=n)
    mapped.sum()
    os.truncate(file.name, 2 * n)
    kl(mapped, mapped, num_threads=2)
"""
    for _ in range(8):  # either thread may come to the gap first
        done = run_python(code, OMP_NUM_THREADS="2")
        assert done.returncode < 0
        assert "Fatal Python error: " in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs affinities of single threads")
@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: ())(0)) < 2, reason="one core")
def test_helpers_are_not_bound_to_their_callers_core():
    """OMP_PROC_BIND binds the calling thread, which a helper starts as a child of."""
    code = """
import os, time, kldiv_fast
allowed = os.sched_getaffinity(0)
before = set(os.listdir("/proc/self/task"))
kldiv_fast.kl(t, p, num_threads=2)
time.sleep(0.2)  # until the helper has found its place, and sleeps
helpers = set(os.listdir("/proc/self/task")) - before
print(len(helpers), len(allowed), *(len(os.sched_getaffinity(int(i))) > 1 for i in helpers))
"""
    environment = {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "1"}
    environment["KLDIV_FAST_EXECUTOR"] = "pool"  # the other one's threads are OpenMP's
    bound = printed(SETUP + code, OMP_PROC_BIND="true", OMP_PLACES="cores", **environment)
    assert bound == "1 1 True"
    assert printed(SETUP + code, OMP_PROC_BIND="false", **environment).endswith(" True")


@posix
@pytest.mark.parametrize(
    "program",
    [
        Program("kl", "exception", 1),
        Program("gradients", "sys.exit", 2),
        Program("broadcast", "last line", 3),
        Program("by address", "SIGTERM's handler", 4),
        Program("weights", "fork", 5),
        Program("rows", "executor", 6),
    ],
    ids=lambda program: f"{program.caller}, {program.ending}",
)
def test_a_program_that_ends_in_the_middle_of_a_call(program, tmp_path):
    """Some of those that tests/endurance.py runs by the hundred."""
    assert program.complaint(tmp_path) is None


@pytest.mark.parametrize("before", ["import kldiv_fast", ""], ids=["imported", "not imported"])
def test_a_subinterpreter_is_told_to_use_the_main_one(before):
    code = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
other = interpreters.create()
interpreters.run_string(other, '''
try:
    import kldiv_fast
except ImportError as error:
    print(error)
''')
interpreters.destroy(other)
import kldiv_fast, numpy as np
print(kldiv_fast.kl(np.ones(2), np.ones(2)))
"""
    refused, value = printed(f"{before}\n{code}").splitlines()
    assert refused.startswith("kldiv_fast is imported in a subinterpreter; expected Python's main")
    assert value == "0.0"
