"""Two language models' logits from the page cache: how fast they are compared, beside reading them, NumPy and PyTorch.

    python benchmarks/fidelity.py [--gigabytes 4] [--classes 151936] [--folder FOLDER]

A pair of float16 files, and one of llama.cpp's base files beside a file. NumPy is that of tests/test_fidelity.py, in float64, on
some of the rows, and its time taken for all; PyTorch computes KL by log_softmax in float32, on the same rows. All have all
cores that they can use. Both sides are asserted equal first. Needs the extras test and bench.
"""

import argparse
import re
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import kldiv_fast
import numpy as np
import torch
from kldiv_fast.fidelity import fidelity, write_llama_logits
from timing import interleaved_medians, machine

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from test_fidelity import log_softmax, usual_rows

PART = 32  # rows for NumPy and PyTorch


def write_pair(folder, rows, classes):
    """A model and the same perturbed, whose differences are those of four bits a weight."""
    rng = np.random.default_rng(0)
    paths = [folder / name for name in ("base.npy", "other.npy")]
    files = [np.lib.format.open_memmap(p, "w+", np.float16, (rows, classes)) for p in paths]
    for i in range(rows):
        row = 3 * rng.standard_normal(classes, np.float32)
        files[0][i] = row
        files[1][i] = row + 0.2 * rng.standard_normal(classes, np.float32)
    for file in files:
        file.flush()
    return paths


def write_codes(folder, base, classes):
    """A base file of some of the rows, and the logits beside it."""
    n_ctx = 64
    chunks = max(2, len(base) // 31 // 8)
    rows = np.asarray(base[: 31 * chunks]).reshape(chunks, 31, classes)
    tokens = np.random.default_rng(1).integers(classes, size=(chunks, n_ctx))
    write_llama_logits(folder / "base.kld", rows, tokens, n_ctx)
    return folder / "base.kld", 31 * chunks


def read_once(paths):
    """All bytes of both files, each by a thread through a buffer of its own: what the page cache gives."""

    def read(path):
        buffer = bytearray(1 << 20)
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    with ThreadPoolExecutor() as pool:
        list(pool.map(read, paths))


def memory_beyond_files(paths):
    """How much more memory of its own, at most, the process has while it compares two files, in MB."""

    def anonymous():
        return int(
            re.search(r"^RssAnon:\s+(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)[1]
        )

    before, most = anonymous(), []
    fidelity(*paths, progress=lambda *_: most.append(anonymous()))
    return (max(most) - before) / 1e3


def by_torch(base, other):
    p, q = (torch.log_softmax(torch.from_numpy(x).float(), -1) for x in (base, other))
    return torch.nn.functional.kl_div(q, p, reduction="none", log_target=True).sum(-1), p.argmax(-1), q.argmax(-1)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=4, help="of both files together")
    parser.add_argument("--classes", type=int, default=151_936)
    parser.add_argument("--folder", type=Path, help="for the files (default: a temporary one)")
    parser.add_argument("--seconds", type=float, default=30, help="for each group of calls")
    options = parser.parse_args()
    print(machine(["kldiv_fast", "numpy", "torch"]), f"({kldiv_fast.current_isa()})\n")
    rows = max(PART, int(options.gigabytes * 1e9 / 4 / options.classes))
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        paths = write_pair(Path(folder), rows, options.classes)
        measure(Path(folder), paths, options)


def measure(folder, paths, options):
    arrays = [np.load(path, mmap_mode="r") for path in paths]
    part = [np.array(x[:PART]) for x in arrays]
    zeros = np.zeros(PART, np.int64)
    wanted = usual_rows(*map(log_softmax, part), zeros)
    found = fidelity(*part).figures
    np.testing.assert_allclose(found["kld"], wanted["kld"], rtol=1e-5)
    np.testing.assert_allclose(by_torch(*part)[0], wanted["kld"], rtol=1e-2)
    codes, coded = write_codes(folder, arrays[0], options.classes)
    size, rows = sum(x.nbytes for x in arrays), len(arrays[0])
    memory = memory_beyond_files(paths)
    times = interleaved_medians(
        {
            "read both once": lambda: read_once(paths),
            "fidelity": lambda: fidelity(*paths),
            "NumPy": lambda: usual_rows(*map(log_softmax, part), zeros),
            "torch": lambda: by_torch(*part),
            "codes": lambda: fidelity(codes, arrays[1][:coded]),
        },
        options.seconds,
    )
    for name in ("NumPy", "torch"):
        times[name] *= rows / PART
    print(f"{rows:,} rows of {options.classes:,} classes, {size / 1e9:.2f} GB\n")
    print("| | s | GB/s | x fidelity |\n| --- | ---: | ---: | ---: |")
    for name in ("read both once", "fidelity", "NumPy", "torch"):
        print(f"| {name} | {times[name]:.3f} | {size / times[name] / 1e9:.2f} | {times[name] / times['fidelity']:.2f} |")  # fmt: skip
    rate = 2 * coded * options.classes / times["codes"] / 1e9
    print(f"\nllama.cpp's codes beside float16: {rate:.2f} GB/s of codes")
    print(f"memory beyond the files' pages: {memory:.1f} MB")
    print(f"of the rate of reading: {times['read both once'] / times['fidelity']:.2f}")


if __name__ == "__main__":
    main()
