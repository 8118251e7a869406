"""Distillation: a small network learns a larger one's next tokens, by the divergence of their logits.

The loss falls, step by step, with rows of 8,000 logits that no softmax is stored of, and with padding masked. Then the loss
and its gradient are timed on one batch, kldiv_fast's and PyTorch's own in turn, once both have given the same.

    python examples/distillation.py [--steps N] [--vocabulary N] [--temperature T] [--compile]

Teacher, student and sequences are made from a fixed seed; sequences have different lengths, and what pads them is masked.
``--compile`` adds PyTorch's loss under ``torch.compile``, which needs a C++ compiler.
"""

import argparse
import statistics
import time
from functools import partial

import torch
from kldiv_fast.torch import kl
from torch.nn.functional import kl_div

SEQUENCES = 16  # in a batch
TOKENS = 32  # in the longest sequence
WIDTHS = {"teacher": 128, "student": 32}
ROUNDS = 15  # of timing


# ---- the loss, and PyTorch's own ----


def distillation_loss(teacher, student, mask, temperature):
    """The mean over the tokens that count, times temperature²: the gradient is smaller by about as much."""
    return temperature**2 * kl(teacher, student, form="logits", temperature=temperature, mask=mask)


def torch_rows(teacher, student, temperature):
    log_t, log_p = ((x / temperature).log_softmax(-1) for x in (teacher, student))
    return kl_div(log_p, log_t, log_target=True, reduction="none").sum(-1)


def torch_loss(teacher, student, mask, temperature):
    """Of the tokens that count alone: the faster way in eager code."""
    return temperature**2 * torch_rows(teacher[mask], student[mask], temperature).mean()


def torch_loss_to_compile(teacher, student, mask, temperature):
    """Of all tokens, the others times 0: a compiler wants shapes that stay the same."""
    rows = torch_rows(teacher, student, temperature)
    return temperature**2 * (rows * mask).sum() / mask.sum()


# ---- teacher, student and sequences ----


def make_network(width, vocabulary):
    return torch.nn.Sequential(
        torch.nn.Embedding(vocabulary, width),
        torch.nn.Linear(width, width),
        torch.nn.Tanh(),
        torch.nn.Linear(width, vocabulary),
    )


def make_teacher(vocabulary):
    """Nothing that has learned, but as sure of its next tokens as if it had."""
    teacher = make_network(WIDTHS["teacher"], vocabulary).requires_grad_(False)
    teacher[-1].weight *= 10
    teacher[-1].bias.normal_()
    return teacher


def make_batch(vocabulary):
    """Tokens as unequal as words are, and where they are more than padding."""
    frequencies = 1 / torch.arange(1.0, vocabulary + 1)
    tokens = torch.multinomial(frequencies, SEQUENCES * TOKENS, replacement=True)
    lengths = torch.randint(TOKENS // 2, TOKENS + 1, (SEQUENCES, 1))
    return tokens.view(SEQUENCES, TOKENS), torch.arange(TOKENS) < lengths


def train(teacher, student, options):
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    for step in range(options.steps):
        tokens, mask = make_batch(options.vocabulary)
        loss = distillation_loss(teacher(tokens), student(tokens), mask, options.temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 0 or step == options.steps - 1:
            print(f"step {step + 1:<4} loss {loss.item():.4f}")


# ---- the loss and its gradient, in turn ----


def value_and_gradient(loss, teacher, student, mask, temperature):
    student = student.detach().requires_grad_()
    value = loss(teacher, student, mask, temperature)
    value.backward()
    return value.detach(), student.grad


def check(calls):
    expected = calls["torch"]()
    for call in calls.values():
        torch.testing.assert_close(call(), expected, rtol=1e-4, atol=1e-7)


def medians(calls):
    """Seconds of a call of each, from rounds in which all have their turn."""
    times = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def compare(losses, teacher, student, options):
    tokens, mask = make_batch(options.vocabulary)
    with torch.no_grad():
        batch = teacher(tokens), student(tokens), mask, options.temperature
    calls = {name: partial(value_and_gradient, loss, *batch) for name, loss in losses.items()}
    check(calls)
    seconds = medians(calls)
    shape = " x ".join(map(str, batch[0].shape))
    threads, masked = torch.get_num_threads(), 1 - mask.float().mean()
    print(f"\nloss and gradient of {shape} logits, {masked:.0%} masked, {threads} threads:")
    for name, median in seconds.items():
        ratio = median / seconds["kldiv_fast"]
        print(f"{name:<15} {median * 1e3:6.1f} ms  {ratio:4.1f}x")


# ---- command line ----


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=50, metavar="N")
    parser.add_argument("--vocabulary", type=int, default=8000, metavar="N")
    parser.add_argument("--temperature", type=float, default=2, metavar="T")
    parser.add_argument("--compile", action="store_true", help="time torch.compile's loss too")
    options = parser.parse_args()

    losses = {"kldiv_fast": distillation_loss, "torch": torch_loss}
    if options.compile:
        losses["torch, compiled"] = torch.compile(torch_loss_to_compile)
    torch.manual_seed(0)
    teacher = make_teacher(options.vocabulary)
    student = make_network(WIDTHS["student"], options.vocabulary)
    train(teacher, student, options)
    compare(losses, teacher, student, options)


if __name__ == "__main__":
    main()
