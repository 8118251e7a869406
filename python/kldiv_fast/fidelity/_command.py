"""``python -m kldiv_fast fidelity BASE OTHER...``: the report of one, or a table of several, and what is to be kept."""

import argparse
import io
import json
import math
import os
import sys
import warnings
from importlib.util import find_spec

import numpy as np

from kldiv_fast._files import InputError, check_output, load, write_rows, written_beside
from kldiv_fast.fidelity._files import open_logits
from kldiv_fast.fidelity._report import table_of
from kldiv_fast.fidelity._run import TAILS, Comparison


def run(argv: list[str]) -> None:
    """Compare, print, and keep what is asked for; a ``KeyboardInterrupt`` comes after what was read until then."""
    options = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # notebooks and tests have other streams
        sys.stdout.reconfigure(errors="replace")
    try:
        _check_outputs(options)
        sides = [_open(path) for path in (options.base, *options.others)]
        _check_outputs(options, sides)
        tokens = None if options.tokens is None else load(options.tokens)
        comparisons = [_compare(sides[0], other, tokens, options) for other in sides[1:]]
        reports = _read_all(comparisons, options)
        _keep(reports, options)
    except (ValueError, TypeError, MemoryError, ModuleNotFoundError) as error:
        raise InputError(str(error) or "there is not enough memory") from error
    except OSError as error:
        if error.filename is None:  # standard output's, which main words
            raise
        raise InputError(f"{error.filename} can't be read: {error.strerror}") from error


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m kldiv_fast fidelity",
        description="How far the next-token distributions of language models are from an original's, from their saved "
        "logits. A file: llama.cpp's (--kl-divergence-base), .npy, .npz:NAME, .safetensors, or a folder of these.",
    )  # fmt: skip
    parser.add_argument("base", metavar="BASE", help="the original's logits")
    parser.add_argument("others", metavar="OTHER", nargs="+", help="a changed model's; several: a table, best first")  # fmt: skip
    parser.add_argument("--tokens", metavar="FILE.npy", help="the token that each row is to predict, or what the model read: for perplexities")  # fmt: skip
    parser.add_argument("--vocab-size", type=int, metavar="N", help="classes that count, where a vocabulary is padded")  # fmt: skip
    parser.add_argument("--chunks", type=int, metavar="N", help="the first N chunks alone")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the logits (default: 1)")
    parser.add_argument("--tail", default="bucket", metavar="NAME", help=f"of a top-k base: {', '.join(TAILS)} (default: bucket)")  # fmt: skip
    parser.add_argument("--format", choices=("text", "markdown"), default="text", help="of a table (default: text)")  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="keep all figures here")
    parser.add_argument("--rows", metavar="FILE.npy", help="keep every token's figures here")
    parser.add_argument("--plot", metavar="FILE", help="draw a picture here: .png or .svg")
    parser.add_argument("--num-threads", type=int, metavar="N", help="at least 1")
    return parser


def _check_outputs(options, sides=()):
    """Refuse an output that is an input, or another output, before anything is read."""
    inputs = {"BASE": options.base, "--tokens": options.tokens}
    inputs |= {f"OTHER {i + 1}": path for i, path in enumerate(options.others)}
    inputs |= {
        f"part {i + 1} of {side.name},": path for side in sides for i, path in enumerate(side.files)
    }
    inputs = {called: path for called, path in inputs.items() if path is not None}
    outputs = {name: getattr(options, name) for name in ("json", "rows", "plot")}
    outputs = {f"--{name}": path for name, path in outputs.items() if path is not None}
    for option, path in outputs.items():
        check_output(path, inputs, option)
        is_other = os.path.exists(path) and not os.path.isfile(path)
        if is_other or not os.path.isdir(os.path.dirname(os.path.realpath(path))):
            raise InputError(f"{option} {path} can't be written: it is a folder, a pipe or a device, or in no folder; expected a file")  # fmt: skip
        for other, theirs in outputs.items():
            if option < other and os.path.realpath(path) == os.path.realpath(theirs):
                raise InputError(f"{option} and {other} are the same file, {path}; expected two")
    if options.plot is not None:
        if not options.plot.lower().endswith((".png", ".svg")):
            raise InputError(f"--plot is {options.plot!r}; expected a name that ends in .png or .svg")  # fmt: skip
        if find_spec("matplotlib") is None:
            raise InputError("--plot is drawn by matplotlib, which is missing; pip install 'kldiv_fast[fidelity]'")  # fmt: skip


def _open(path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opened = open_logits(path)
    for warning in caught:
        print(f"kldiv_fast: {warning.message}", file=sys.stderr)
    return opened


def _compare(base, other, tokens, options):
    return Comparison(
        base, other, tokens, options.vocab_size, options.temperature, options.chunks, options.tail, options.num_threads
    )  # fmt: skip


# ---- reading ----


def _read_all(comparisons, options):
    """The reports, printed; after Ctrl-C those that there are, before it goes on."""
    try:
        for comparison in comparisons:
            _read(comparison)
    except KeyboardInterrupt:
        begun = [comparison for comparison in comparisons if comparison.done]
        if begun:
            _print([comparison.report() for comparison in begun], options)
        raise
    reports = [comparison.report() for comparison in comparisons]
    _print(reports, options)
    return reports


def _print(reports, options):
    if len(reports) == 1 and options.format == "text":
        print(reports[0])
    else:
        print(table_of(reports, options.format))


def _read(comparison):
    """All of two files, with tqdm's bar if it takes long and a terminal watches."""
    if sys.stderr is None or not sys.stderr.isatty() or find_spec("tqdm") is None:
        for _ in comparison.steps():
            pass
        return
    from tqdm import tqdm

    with tqdm(total=comparison.rows, unit="token", unit_scale=True, leave=False, delay=0.5, desc=comparison.other.name) as bar:  # fmt: skip
        for done, mean, se in comparison.steps():
            bar.set_postfix_str(f"KLD {mean:.6f} ± {se:.6f}", refresh=False)
            bar.update(done - bar.n)


# ---- what is kept ----


def _keep(reports, options):
    if options.json is not None:
        found = [_finite(report.to_dict()) for report in reports]
        text = json.dumps(found[0] if len(found) == 1 else found, indent=2, ensure_ascii=False)
        with written_beside(options.json, "--json") as scratch, open(scratch, "w", encoding="utf-8") as file:  # fmt: skip
            file.write(text + "\n")
    if options.rows is not None:
        rows = np.stack([report.figures for report in reports])
        rows = rows[0] if len(rows) == 1 else rows
        write_rows(options.rows, rows.shape, rows.dtype, lambda out: out.__setitem__(..., rows))
    if options.plot is not None:
        from kldiv_fast.fidelity._plot import plot

        with written_beside(options.plot, "--plot") as scratch:
            plot(reports, scratch, options.plot.lower().rpartition(".")[2])


def _finite(value):
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, dict):
        return {name: _finite(x) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
