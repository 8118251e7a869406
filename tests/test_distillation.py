"""examples/distillation.py: the student learns, and the loss is PyTorch's own, in value and gradient."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

SCRIPT = Path(__file__).parent.parent / "examples" / "distillation.py"


@pytest.fixture(scope="module")
def distillation():
    spec = importlib.util.spec_from_file_location("distillation_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("vocabulary", "options", "names"),
    [
        (500, [], {"kldiv_fast", "torch"}),
        pytest.param(
            8000,
            ["--compile"],
            {"kldiv_fast", "torch", "torch, compiled"},
            marks=pytest.mark.long,
        ),
    ],
)
def test_the_student_learns(distillation, monkeypatch, capsys, vocabulary, options, names):
    arguments = ["--steps=40", f"--vocabulary={vocabulary}", *options]
    monkeypatch.setattr(sys, "argv", ["distillation.py", *arguments])
    distillation.main()
    printed = capsys.readouterr().out
    losses = [float(x) for x in re.findall(r"^step \d+ +loss (\S+)$", printed, re.MULTILINE)]
    assert len(losses) == 5
    assert 0 < losses[-1] < 0.7 * losses[0]
    assert set(re.findall(r"^(\S.*?) +\S+ ms +\S+$", printed, re.MULTILINE)) == names
    assert f"16 x 32 x {vocabulary} logits" in printed


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_padding_has_no_part(distillation, temperature):
    """Whatever stands there: the loss is that of the tokens that count."""
    generator = torch.Generator().manual_seed(0)
    teacher, student = torch.randn(2, 3, 5, 7, generator=generator, dtype=torch.float64)
    mask = torch.arange(5) < torch.tensor([[5], [3], [1]])
    teacher[~mask] = torch.nan
    student[~mask] = torch.inf
    losses = distillation.distillation_loss, distillation.torch_loss
    ours, theirs = (
        distillation.value_and_gradient(loss, teacher, student, mask, temperature)
        for loss in losses
    )
    torch.testing.assert_close(ours, theirs)
    assert (ours[1][~mask] == 0).all()
    assert (ours[1][mask] != 0).all()


def test_another_loss_is_told(distillation):
    value, gradient = torch.tensor(1.0), torch.ones(2, 3)
    calls = {"kldiv_fast": lambda: (value, gradient), "torch": lambda: (value, gradient * 1.01)}
    with pytest.raises(AssertionError, match="not close"):
        distillation.check(calls)
