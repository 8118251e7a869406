"""The command ``python -m kldiv_fast``: the divergence of two files, or, without files, a demonstration."""

import argparse
import math
import os
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

import kldiv_fast
from kldiv_fast._kl import _broadcast_shape, _match_ranks

# Work is done in pieces of about this many bytes of one input, between which the progress bar moves.
CHUNK_BYTES = 64 << 20


class InputError(Exception):
    """What the user can mend: told in one line, without a traceback."""


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status: 0, 2 for bad input, 130 after Ctrl-C."""
    try:
        options = _parser().parse_args(argv)
        if options.y_true is None:
            from kldiv_fast._demo import demonstrate

            demonstrate()
        else:
            _run_files(options)
        return 0
    except InputError as error:
        print(f"kldiv_fast: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("kldiv_fast: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kldiv_fast",
        description="Kullback-Leibler divergence, in nats, of the arrays in two files, with the meaning of "
        "keras.losses.KLDivergence. Without files: a demonstration.",
    )
    parser.add_argument("y_true", nargs="?", help="FILE.npy (memory-mapped), or FILE.npz:NAME")
    parser.add_argument("y_pred", nargs="?", help="the same for the predictions")
    parser.add_argument("--axis", type=_axis, default=-1, help="class axis, or several: 1,2")
    parser.add_argument(
        "--epsilon", type=_epsilon, default=1e-7, help="clip, or 'none' (default: 1e-7)"
    )
    parser.add_argument("--reduction", default="mean", help="as in kldiv_fast.kl (default: mean)")
    parser.add_argument("--sample-weight", metavar="FILE", help="a weight for each row")
    parser.add_argument("--mask", metavar="FILE", help="false where a row does not count")
    parser.add_argument("--rows", metavar="FILE.npy", help="keep every (weighted) row's value here")
    parser.add_argument("--num-threads", type=int)
    parser.add_argument("--version", action="version", version=kldiv_fast.__version__)
    return parser


def _axis(text: str) -> int | tuple[int, ...]:
    axes = tuple(int(part) for part in text.split(","))
    return axes[0] if len(axes) == 1 else axes


def _epsilon(text: str) -> float | None:
    return None if text.lower() == "none" else float(text)


def _run_files(options: argparse.Namespace) -> None:
    if options.y_pred is None:
        raise InputError(f"one file, {options.y_true}, came alone; expected two: Y_TRUE Y_PRED")
    y_true, y_pred = _load(options.y_true), _load(options.y_pred)
    keywords = {
        "axis": options.axis,
        "epsilon": options.epsilon,
        "num_threads": options.num_threads,
        "sample_weight": _load(options.sample_weight) if options.sample_weight else None,
        "mask": _load(options.mask) if options.mask else None,
    }
    start = time.perf_counter()
    value = _compute(y_true, y_pred, options, keywords)
    seconds = time.perf_counter() - start
    _report(value, y_true, y_pred, options, seconds)


def _load(name: str) -> np.ndarray:
    path, _, member = name.partition(".npz:")
    try:
        if member:
            path += ".npz"
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} can't be read as an array: {error}") from error
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        names = loaded.files
        if (not member and len(names) != 1) or (member and member not in names):
            wanted = f"no array {member!r}" if member else f"{len(names)} arrays"
            raise InputError(f"{path} has {wanted}; name one of {path}:{{{','.join(names)}}}")
        try:
            return loaded[member or names[0]]
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} can't be read as an array: {error}") from error


def _kl(*arrays, **keywords):
    try:
        return kldiv_fast.kl(*arrays, **keywords)
    except (TypeError, ValueError, MemoryError) as error:
        raise InputError(str(error) or type(error).__name__) from error


def _compute(y_true, y_pred, options, keywords):
    """The value, and with ``--rows`` the rows' file, a piece of the first batch axis at a time where that can be."""
    pieces = _pieces(y_true, y_pred, options)
    if options.rows is None and len(pieces) == 1:
        return _kl(y_true, y_pred, reduction=options.reduction, **keywords)
    if options.rows is None:
        return _sum_in_pieces(y_true, y_pred, pieces, options.reduction, keywords)
    return _keep_rows(y_true, y_pred, pieces, options, keywords)


def _pieces(y_true, y_pred, options) -> list[slice]:
    """Slices of the first axis: one of everything unless both arrays share it, it is a batch axis, and no weights."""
    whole = [slice(None)]
    axes = options.axis if isinstance(options.axis, tuple) else (options.axis,)
    plain = options.sample_weight is None and options.mask is None
    if not plain or y_true.shape != y_pred.shape or y_true.ndim < 2:
        return whole
    if any(a % y_true.ndim == 0 for a in axes) or (
        options.reduction == "none" and options.rows is None
    ):
        return whole
    row_bytes = max(1, y_true.nbytes // max(1, len(y_true)))
    step = max(1, CHUNK_BYTES // row_bytes)
    return [slice(i, i + step) for i in range(0, len(y_true), step)] or whole


def _progress(pieces):
    """tqdm's bar over the pieces, if there is more than one and a terminal watches."""
    if len(pieces) == 1 or not sys.stderr.isatty():
        return pieces
    try:
        from tqdm import tqdm
    except ImportError:  # the optional extra "cli"
        return pieces
    return tqdm(pieces, unit="piece", leave=False)


def _sum_in_pieces(y_true, y_pred, pieces, reduction, keywords):
    """Every reduction over plain rows is their sum over a number known beforehand."""
    dtype = _kl(y_true[:1], y_pred[:1], reduction=reduction, **keywords).dtype
    total = 0.0
    for piece in _progress(pieces):
        total += float(_kl(y_true[piece], y_pred[piece], reduction="sum", **keywords))
    return dtype.type(total / _divisor(y_true.shape, reduction, keywords["axis"]))


def _divisor(shape, reduction, axis) -> int:
    axes = {a % len(shape) for a in (axis if isinstance(axis, tuple) else (axis,))}
    rows = [n for i, n in enumerate(shape) if i not in axes]
    return {"sum": 1, "batchmean": rows[0]}.get(reduction, math.prod(rows))


def _keep_rows(y_true, y_pred, pieces, options, keywords):
    """Write the rows beside their final place and move them there when they are whole."""
    value = None
    if options.reduction != "none":
        value = (
            _kl(y_true, y_pred, reduction=options.reduction, **keywords)
            if len(pieces) == 1
            else _sum_in_pieces(y_true, y_pred, pieces, options.reduction, keywords)
        )
    first = _kl(y_true[pieces[0]], y_pred[pieces[0]], reduction="none", **keywords)
    shape = first.shape if len(pieces) == 1 else (len(y_true), *first.shape[1:])
    target = Path(options.rows)
    try:
        handle, scratch = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".part")
    except OSError as error:
        raise InputError(f"--rows {target} can't be written: {error}") from error
    os.close(handle)
    try:
        rows = np.lib.format.open_memmap(scratch, "w+", first.dtype, shape)
        for piece in _progress(pieces):
            part = _kl(y_true[piece], y_pred[piece], reduction="none", **keywords)
            rows[piece if shape else ()] = part
        rows.flush()
        del rows
        os.replace(scratch, target)
    except OSError as error:
        raise InputError(f"--rows {target} can't be written: {error}") from error
    finally:
        Path(scratch).unlink(missing_ok=True)
    return value


def _report(value, y_true, y_pred, options, seconds: float) -> None:
    shape = _broadcast_shape(*_match_ranks(y_true, y_pred))
    axes = options.axis if isinstance(options.axis, tuple) else (options.axis,)
    classes = math.prod(shape[a] for a in axes) if shape else 1
    rows = math.prod(shape) // classes if classes else 0
    threads = options.num_threads or kldiv_fast.get_num_threads()
    lines = {
        "value": "(rows kept)" if value is None else _show(value),
        "rows": f"{rows:,}",
        "classes": f"{classes:,}",
        "time": f"{seconds:.6f} s",
        "speed": f"{(y_true.nbytes + y_pred.nbytes) / seconds / 1e9:.2f} GB/s",
        "ISA": kldiv_fast.current_isa(),
        "threads": f"at most {threads}",
    }
    if options.rows is not None:
        lines["rows file"] = options.rows
    for name, text in lines.items():
        print(f"{name:<10}{text}")


def _show(value) -> str:
    return np.array2string(value, threshold=20) if np.ndim(value) else f"{value!s} nats"
