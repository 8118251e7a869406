"""Real input: logistic regression on scikit-learn's handwritten digits, judged by ``python -m kldiv_fast``.

A classifier's one-hot labels and predicted probabilities are two .npy files; the command reads them and prints their
divergence. It needs no framework; Keras, where it is installed, gives the same value.

    python examples/digits.py [--out FOLDER] [--check-keras]

The files are written to FOLDER (default: a temporary one). ``--check-keras`` compares the value with that of
``keras.losses.KLDivergence``.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from kldiv_fast._demo import digits_predictions


def run_command(folder: Path) -> str:
    labels, predicted, accuracy = digits_predictions()
    print(f"accuracy  {accuracy:.4f}")
    np.save(folder / "labels.npy", labels)
    np.save(folder / "predicted.npy", predicted)
    command = [sys.executable, "-m", "kldiv_fast", folder / "labels.npy", folder / "predicted.npy"]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print(report, end="")
    return report


def check_keras(folder: Path, report: str) -> None:
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras

    ours = float(report.split()[1])
    loss = keras.losses.KLDivergence()
    theirs = float(loss(np.load(folder / "labels.npy"), np.load(folder / "predicted.npy")))
    print(f"keras     {theirs}")
    if not np.isclose(ours, theirs, rtol=1e-5):
        sys.exit(f"kldiv_fast's {ours} is not Keras's {theirs}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--check-keras", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        report = run_command(folder)
        if options.check_keras:
            check_keras(folder, report)


if __name__ == "__main__":
    main()
