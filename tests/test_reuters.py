"""examples/reuters.py: both losses give one learning curve, on every backend; where its newswires come from."""

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("keras")

SCRIPT = Path(__file__).parent.parent / "examples" / "reuters.py"


@pytest.fixture(scope="module")
def reuters():
    spec = importlib.util.spec_from_file_location("reuters_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def corpus(reuters, tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "reuters.npz"
    reuters.generate(path)
    return path


@pytest.mark.parametrize(
    ("epochs", "learned"), [(2, 0.9), pytest.param(8, 0.6, marks=pytest.mark.long)]
)
def test_both_losses_give_one_curve(
    reuters, corpus, tmp_path, monkeypatch, capsys, epochs, learned
):
    """On this process's backend; tests/test_keras_adapter.py runs it on the others."""
    pytest.importorskip("matplotlib")
    picture = tmp_path / "curves.png"
    monkeypatch.setattr(reuters, "EPOCHS", epochs)
    monkeypatch.setattr(sys, "argv", ["reuters.py", f"--data={corpus}", f"--plot={picture}"])
    reuters.main()
    printed = capsys.readouterr().out
    curves = {
        name: np.array(values.split(), float)
        for name, values in re.findall(r"^(\w+) +val_loss by epoch (.*)$", printed, re.MULTILINE)
    }
    assert set(curves) == {"keras", "kldiv_fast"}
    assert all(len(curve) == epochs for curve in curves.values())
    np.testing.assert_allclose(curves["kldiv_fast"], curves["keras"], rtol=1e-4)
    difference = re.search(r"the two histories differ by (\S+) at most", printed)
    assert float(difference[1]) <= 1e-4
    assert curves["kldiv_fast"][-1] < learned * curves["kldiv_fast"][0]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_generated_corpus_has_the_real_one_s_shape(reuters, corpus):
    (x_train, y_train), (x_test, y_test) = reuters.load(corpus)
    assert (x_train.shape, y_train.shape) == ((8982, 1000), (8982, 46))
    assert (x_test.shape, y_test.shape) == ((2246, 1000), (2246, 46))
    topics = y_train.sum(0)
    assert topics.min() > 0
    assert topics.max() > 0.3 * len(y_train)
    assert set(np.unique(x_train)) == {0, 1}
    assert (x_train[:, 1] == 1).all()  # the loader's mark of a beginning


def test_the_greatest_difference(reuters):
    a = {"loss": [1.0, 2.0], "val_loss": [4.0, 8.0]}
    b = {"loss": [1.0, 2.0], "val_loss": [4.0, 10.0]}
    assert reuters.greatest_difference(a, b) == pytest.approx(0.2)


def run_without_a_network():
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(
            [sys.executable, SCRIPT],
            env=os.environ | {"KERAS_HOME": folder, "https_proxy": "http://127.0.0.1:9"},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.mark.beside.with_args(run_without_a_network)
def test_without_a_network_it_says_so(beside):
    done = beside.result()
    assert done.returncode == 1
    assert "Keras could not fetch the Reuters newswires" in done.stderr
    assert "--data FILE" in done.stderr
    assert "--generated" in done.stderr


def test_a_file_that_is_not_there(reuters, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["reuters.py", f"--data={tmp_path / 'absent.npz'}"])
    with pytest.raises(SystemExit) as end:
        reuters.main()
    assert end.value.code == 2
    assert "absent.npz is not a file" in capsys.readouterr().err
