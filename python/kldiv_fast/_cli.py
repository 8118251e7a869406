"""The command ``python -m kldiv_fast``: the divergence of two files, or, without files, a demonstration; or ``fidelity``."""

import argparse
import contextlib
import math
import os
import re
import sys
import time
from importlib.util import find_spec

import numpy as np

import kldiv_fast
from kldiv_fast._divergence import compute, prepare
from kldiv_fast._files import InputError, check_output, load, write_rows
from kldiv_fast._meaning import FORMS, broadcast, is_none
from kldiv_fast._operations import BY_NAME, OPERATIONS


class OutputError(Exception):
    """Standard output takes nothing. Without a text where its reader has left, who needs no word of it."""


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Returns
    -------
    int
        The exit status: 0, 1 where standard output takes nothing, 2 for bad input, 130 after Ctrl-C.
    """
    try:
        with _output_that_arrives():
            words = sys.argv[1:] if argv is None else argv
            if words[:1] == ["fidelity"]:
                from kldiv_fast.fidelity import _command

                _command.run(words[1:])
                return 0
            options = _parser().parse_args(_join_values(words))
            if options.y_true is None:
                from kldiv_fast._demo import demonstrate

                demonstrate()
            else:
                _run_files(options)
        return 0
    except OutputError as error:
        if str(error):
            _tell(f"error: {error}")
        return 1
    except InputError as error:
        _tell(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        _tell("interrupted")
        return 130


@contextlib.contextmanager
def _output_that_arrives():
    """What is printed inside is written at its end, not at the interpreter's, which words failures as tracebacks."""
    if sys.stdout is None:
        raise OutputError("standard output is closed")
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        with open(os.devnull, "wb") as nowhere:  # for what is left in the buffer
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise OutputError from error
        raise OutputError(f"standard output can't be written: {error.strerror}") from error


def _tell(text: str) -> None:
    """One line on standard error, where there is one."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print("kldiv_fast:", " ".join(text.splitlines()), file=sys.stderr)


# ---- options ----


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kldiv_fast",
        description="A divergence of the arrays in two files: Kullback-Leibler's, in nats, with the meaning of "
        "keras.losses.KLDivergence, or another. Without files: a demonstration. `fidelity BASE OTHER...`: language models.",
    )
    parser.add_argument("y_true", nargs="?", help="FILE.npy (memory-mapped), or FILE.npz:NAME")
    parser.add_argument("y_pred", nargs="?", help="the same for the predictions")
    parser.add_argument(
        "--axis", type=_axis, default=-1, help="class axis, or several: -2,-1 (default: -1)"
    )
    parser.add_argument(
        "--epsilon", type=_epsilon, default=1e-7, help="clip, or 'none' (default: 1e-7)"
    )
    names = [operation.name for operation in OPERATIONS]
    parser.add_argument(
        "--divergence", metavar="NAME", default="kl", help=f"{', '.join(names)} (default: kl)"
    )
    parser.add_argument(
        "--form",
        metavar="NAME",
        type=_form,
        default="probs",
        help=f"what the numbers are: {', '.join(FORMS)}, or y_true's and y_pred's: probs,logits "
        "(default: probs)",
    )
    parser.add_argument(
        "--temperature", type=_temperature, default=1.0, help="of logits (default: 1)"
    )
    parser.add_argument(
        "--pseudocount", type=_pseudocount, default=0.0, help="added to each count (default: 0)"
    )
    parser.add_argument(
        "--validate", action="store_true", help="refuse rows that are not what --form says"
    )
    parser.add_argument("--base", type=_base, help="of the logarithm: 2 for bits (default: nats)")
    parser.add_argument("--beta", type=_beta, help="of jsd, 0 to 1 (default: 0.5)")
    parser.add_argument("--reduction", default="mean", help="as in kldiv_fast.kl (default: mean)")
    parser.add_argument("--sample-weight", metavar="FILE", help="a weight for each row")
    parser.add_argument("--mask", metavar="FILE", help="false where a row does not count")
    parser.add_argument("--where", metavar="FILE", help="false where an element is not there")
    parser.add_argument("--rows", metavar="FILE.npy", help="keep every (weighted) row's value here")
    parser.add_argument("--num-threads", type=_num_threads, help="at least 1")
    parser.add_argument("--version", action="version", version=kldiv_fast.__version__)
    return parser


def _join_values(argv: list[str]) -> list[str]:
    """Write an option and its negative value as one word: argparse takes -2,-1 for an option."""
    joined: list[str] = []
    for word in argv:
        if re.match(r"-[\d.]", word) and joined and re.match(r"--\w[^=]*$", joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _axis(text: str) -> int | tuple[int, ...]:
    try:
        axes = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--axis is {text!r}; expected an integer, or several: -2,-1") from None
    return axes[0] if len(axes) == 1 else axes


def _epsilon(text: str) -> float | None:
    try:
        return None if text.lower() == "none" else float(text)
    except ValueError:
        raise InputError(f"--epsilon is {text!r}; expected a number in [0, 1), or none") from None


def _form(text: str) -> tuple[str, str]:
    names = text.split(",")
    if len(names) > 2 or any(name not in FORMS for name in names):
        known = ", ".join(FORMS)
        raise InputError(f"--form is {text!r}; expected one of: {known}, or two: probs,logits")
    return names[0], names[-1]


def _temperature(text: str) -> float:
    return _number(text, "--temperature", "a finite number above 0")


def _pseudocount(text: str) -> float:
    return _number(text, "--pseudocount", "a finite number, not below 0")


def _base(text: str) -> float:
    return _number(text, "--base", "a positive number other than 1")


def _beta(text: str) -> float:
    return _number(text, "--beta", "a number in [0, 1]")


def _number(text: str, option: str, expected: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{option} is {text!r}; expected {expected}") from None


def _operation(name: str):
    operation = BY_NAME.get(name)
    if operation is None:
        names = ", ".join(row.name for row in OPERATIONS)
        raise InputError(f"--divergence is {name!r}; expected one of: {names}")
    return operation


def _keywords(options: argparse.Namespace) -> dict:
    """The arguments of a divergence that are not arrays, in the words that were given."""
    names = ("axis", "form", "epsilon", "temperature", "pseudocount", "base", "reduction", "num_threads", "validate")  # fmt: skip
    found = {name: getattr(options, name) for name in names}
    return found if options.beta is None else found | {"beta": options.beta}


def _num_threads(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"--num-threads is {text!r}; expected an integer of at least 1") from None


# ---- files ----


def _run_files(options: argparse.Namespace) -> None:
    if options.y_pred is None:
        raise InputError(f"one file, {options.y_true}, came alone; expected two: Y_TRUE Y_PRED")
    names = {
        "Y_TRUE": options.y_true,
        "Y_PRED": options.y_pred,
        "--sample-weight": options.sample_weight,
        "--mask": options.mask,
        "--where": options.where,
    }
    names = {called: name for called, name in names.items() if name is not None}
    if options.rows is not None:
        check_output(options.rows, names)
    arrays = {called: load(name) for called, name in names.items()}
    start = time.perf_counter()
    try:
        keywords = _keywords(options) | {
            "sample_weight": arrays.get("--sample-weight"),
            "mask": arrays.get("--mask"),
            "where": arrays.get("--where"),
        }
        problem = prepare(
            arrays["Y_TRUE"], arrays["Y_PRED"], _operation(options.divergence), keywords
        )
        value = _compute(problem, options)
    except (TypeError, ValueError, MemoryError) as error:
        raise InputError(str(error) or "there is not enough memory") from error
    _report(value, problem, options, time.perf_counter() - start)


def _compute(problem, options):
    """The value, after the rows where they are to be kept; None where they are all that is wanted."""
    if options.rows is not None:
        write_rows(
            options.rows,
            problem.arranged.rows,
            problem.dtype,
            lambda rows: _run(problem._replace(reduction="none"), rows),
        )
        if is_none(options.reduction):
            return None
    return _run(problem)


def _run(problem, out=None):
    """One call of the core, with tqdm's bar if it takes long and a terminal watches."""
    if sys.stderr is None or not sys.stderr.isatty() or find_spec("tqdm") is None:
        return compute(problem, out)
    from tqdm import tqdm

    total = _bytes(problem)
    with tqdm(total=total, unit="B", unit_scale=True, leave=False, delay=0.5) as bar:
        return compute(problem, out, lambda done: bar.update(round(done * total) - bar.n))


def _bytes(problem) -> int:
    return sum(x.nbytes for x in problem.given.values())


def _report(value, problem, options, seconds: float) -> None:
    arranged = problem.arranged
    sides = (arranged.true.shape, arranged.pred.shape)
    classes = math.prod(broadcast(*(shape[len(shape) - arranged.class_ndim :] for shape in sides)))
    passes = 1 if options.rows is None or value is None else 2
    lines = {
        "value": "(rows kept)" if value is None else _show(value, _unit(options.base)),
        "rows": f"{math.prod(arranged.rows):,}",
        "classes": f"{classes:,}",
        "time": f"{seconds:.6f} s",
        "speed": f"{passes * _bytes(problem) / seconds / 1e9:.2f} GB/s",
        "ISA": kldiv_fast.current_isa(),
        "threads": f"at most {options.num_threads or kldiv_fast.get_num_threads()}",
    }
    if options.rows is not None:
        lines["rows file"] = options.rows
    for name, text in lines.items():
        print(f"{name:<10}{text}")


def _unit(base: float | None) -> str:
    if base is None:
        return "nats"
    return "bits" if base == 2 else f"(base {base:g})"


def _show(value, unit: str) -> str:
    if np.ndim(value):
        return np.array2string(value, threshold=20, floatmode="unique")
    return f"{value!s} {unit}"
