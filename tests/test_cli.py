"""``python -m kldiv_fast``: values, files, errors in one line, Ctrl-C, progress."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import kldiv_fast
import numpy as np
import pytest
from kldiv_fast import _cli
from oracle import distributions

COMMAND = [sys.executable, "-m", "kldiv_fast"]
EXAMPLE = Path(__file__).parents[1] / "examples" / "digits.py"


def run(*arguments):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def files(tmp_path, rng):
    for name in ("x", "y"):
        np.save(tmp_path / f"{name}.npy", distributions(rng, (60, 10)))
    np.savez(tmp_path / "both.npz", x=np.load(tmp_path / "x.npy"), y=np.load(tmp_path / "y.npy"))
    np.save(tmp_path / "w.npy", np.arange(60.0))
    np.save(tmp_path / "m.npy", np.arange(60) % 2 == 0)
    return tmp_path


def pair(files):
    return np.load(files / "x.npy"), np.load(files / "y.npy")


def value_of(output):
    return np.float32(re.search(r"^value +(\S+) nats$", output, re.MULTILINE)[1])


def test_two_files(files):
    done = run(files / "x.npy", files / "y.npy")
    assert (done.returncode, done.stderr) == (0, "")
    assert value_of(done.stdout) == kldiv_fast.kl(*pair(files))
    assert re.search(r"^rows +60\nclasses +10\n", done.stdout, re.MULTILINE)
    assert f"ISA       {kldiv_fast.current_isa()}\n" in done.stdout


def test_named_arrays(files):
    done = run(f"{files}/both.npz:x", f"{files}/both.npz:y")
    assert value_of(done.stdout) == kldiv_fast.kl(*pair(files))


@pytest.mark.parametrize("chunk", [_cli.CHUNK_BYTES, 400])
@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [
        ([], {}),
        (["--axis=0"], {"axis": 0}),
        (["--axis=0,1"], {"axis": (0, 1)}),
        (["--epsilon=none", "--reduction=sum"], {"epsilon": None, "reduction": "sum"}),
        (["--epsilon=1e-3", "--reduction=batchmean"], {"epsilon": 1e-3, "reduction": "batchmean"}),
        (["--sample-weight=w.npy"], {"sample_weight": np.arange(60.0)}),
        (["--mask=m.npy", "--num-threads=1"], {"mask": np.arange(60) % 2 == 0}),
    ],
    ids=str,
)
def test_options_and_rows(files, monkeypatch, capsys, arguments, keywords, chunk):
    monkeypatch.chdir(files)
    monkeypatch.setattr(_cli, "CHUNK_BYTES", chunk)
    for extra in ([], ["--rows=rows.npy"]):
        assert _cli.main(["x.npy", "y.npy", *arguments, *extra]) == 0
        expected = kldiv_fast.kl(*pair(files), **keywords)
        assert value_of(capsys.readouterr().out) == pytest.approx(expected, rel=1e-6)
    rows = kldiv_fast.kl(*pair(files), **keywords | {"reduction": "none"})
    np.testing.assert_array_equal(np.load("rows.npy"), rows)
    assert sorted(os.listdir()) == ["both.npz", "m.npy", "rows.npy", "w.npy", "x.npy", "y.npy"]


def test_ranks_that_differ(tmp_path):
    np.save(tmp_path / "x.npy", np.full((3, 4, 1), 0.25, np.float32))
    np.save(tmp_path / "y.npy", np.full((3, 4), 0.5, np.float32))
    done = run(tmp_path / "x.npy", tmp_path / "y.npy")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^rows +3\nclasses +4\n", done.stdout, re.MULTILINE)


def break_files(files):
    (files / "short.npy").write_bytes((files / "x.npy").read_bytes()[:-8])
    (files / "header.npy").write_bytes((files / "x.npy").read_bytes()[:20])
    (files / "text.npy").write_text("not an array")
    np.save(files / "objects.npy", np.array([[None]]), allow_pickle=True)
    np.save(files / "complex.npy", np.ones((60, 10), complex))
    np.save(files / "wide.npy", np.ones((60, 11)))


ERRORS = {
    "missing": (["none.npy", "y.npy"], "none.npy can't be read"),
    "folder": ([".", "y.npy"], "can't be read"),
    "one file": (["x.npy"], "expected two"),
    "truncated": (["short.npy", "y.npy"], "short.npy can't be read"),
    "truncated header": (["header.npy", "y.npy"], "header.npy can't be read"),
    "no array": (["text.npy", "y.npy"], "text.npy can't be read"),
    "pickle": (["objects.npy", "y.npy"], "objects.npy can't be read"),
    "dtype": (["complex.npy", "y.npy"], "y_true is of dtype complex128"),
    "shape": (["wide.npy", "y.npy"], "y_true has shape (60, 11)"),
    "name": (["both.npz:z", "y.npy"], "no array 'z'"),
    "no name": (["both.npz", "y.npy"], "has 2 arrays"),
    "axis": (["x.npy", "y.npy", "--axis=5"], "axis is 5, out of range"),
    "epsilon": (["x.npy", "y.npy", "--epsilon=2"], "epsilon is 2.0"),
    "reduction": (["x.npy", "y.npy", "--reduction=avg"], "reduction is 'avg'"),
    "threads": (["x.npy", "y.npy", "--num-threads=0"], "num_threads is 0"),
    "rows nowhere": (
        ["x.npy", "y.npy", "--rows=no/rows.npy"],
        "--rows no/rows.npy can't be written",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), ERRORS.values(), ids=ERRORS)
def test_errors_are_one_line(files, monkeypatch, arguments, message):
    break_files(files)
    monkeypatch.chdir(files)
    if "--rows" not in str(arguments):
        arguments = [*arguments, "--rows=rows.npy"]
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("kldiv_fast: error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert not list(files.glob("rows*"))


def sparse(path, shape):
    """A file of zeros that takes no room on the disk."""
    np.lib.format.open_memmap(path, "w+", np.float32, shape).flush()


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_interrupt(tmp_path):
    sparse(tmp_path / "big.npy", (16_000_000, 1000))
    command = [
        *COMMAND,
        tmp_path / "big.npy",
        tmp_path / "big.npy",
        "--rows",
        tmp_path / "rows.npy",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    time.sleep(2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10)[1] == "kldiv_fast: interrupted\n"
    assert process.returncode == 130
    assert not list(tmp_path.glob("rows*"))


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_progress_bar_on_a_terminal(files):
    pytest.importorskip("tqdm")
    import pty
    import select
    import termios

    code = "import sys; from kldiv_fast import _cli; _cli.CHUNK_BYTES = 400; sys.exit(_cli.main())"
    command = [sys.executable, "-c", code, files / "x.npy", files / "y.npy"]
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))  # a new terminal has no width, and a bar no room
    try:
        done = subprocess.run(
            command, stderr=theirs, stdout=subprocess.PIPE, timeout=60, check=True, text=True
        )
        assert select.select([ours], [], [], 5)[0], "nothing was shown"
        assert b"piece" in os.read(ours, 65536)
    finally:
        os.close(theirs)
        os.close(ours)
    assert value_of(done.stdout) == pytest.approx(kldiv_fast.kl(*pair(files)), rel=1e-6)
    silent = subprocess.run(command, capture_output=True, timeout=60, check=True, text=True)
    assert silent.stderr == ""


def test_demonstration():
    done = run()
    assert done.returncode == 0, done.stderr
    shown = re.findall(r"(0\.\d{8}) +(0\.\d{8})$", done.stdout, re.MULTILINE)
    assert len(shown) == 2
    for ours, published in shown:
        assert float(ours) == pytest.approx(float(published), abs=1e-7)
    assert "Speed" in done.stdout
    digits = "Handwritten digits, logistic regression"
    left_out = "Handwritten digits: left out, scikit-learn is missing"
    assert (digits if importlib.util.find_spec("sklearn") else left_out) in done.stdout


def test_digits_example_agrees_with_keras(tmp_path):
    pytest.importorskip("keras")
    command = [sys.executable, EXAMPLE, "--check-keras", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "labels.npy").exists()
    assert "keras" in done.stdout
