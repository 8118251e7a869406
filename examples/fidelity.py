"""How much does rounding change a language model? A character model of NumPy alone, its weights rounded to 8, 4 and 3 bits.

A small network is trained to tell the next letter of a made-up language; each rounded model's logits are a .npy file, the
original's llama.cpp's base file, and the command compares them in one table. The picture is docs/fidelity.png.

    python examples/fidelity.py [--folder FOLDER] [--steps N]

With ``--folder`` the files stay there, and the picture.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from kldiv_fast import _cli
from kldiv_fast.fidelity import write_llama_logits

ALPHABET = " .abcdefghijklmnopqrstuvwxyz"
SEEN = 6  # letters that the model reads
HIDDEN = 64
CHUNKS, LENGTH = 24, 128


def made_up_text(rng, words):
    """Sentences of a language with 60 words, some of which like to follow others."""
    syllables = [c + v for c in "bdfklmnprst" for v in "aeiou"]
    lexicon = ["".join(rng.choice(syllables, rng.integers(1, 4))) for _ in range(60)]
    follows = rng.dirichlet(np.full(60, 0.15), 60)
    text, word = [], 0
    for _ in range(words):
        word = rng.choice(60, p=follows[word])
        text.append(lexicon[word] + ("." if rng.random() < 0.1 else ""))
    return np.array([ALPHABET.index(c) for c in " ".join(text)])


def windows(text, places):
    """What is read before each place, as one number for each letter and position."""
    return text[places[:, None] + np.arange(-SEEN, 0)] + len(ALPHABET) * np.arange(SEEN)


def logits(weights, seen):
    first, second, bias = weights
    return np.tanh(first[seen].sum(axis=1) + bias) @ second


def train(rng, text, steps, batch=256):
    """Adam on the cross-entropy of the next letter."""
    shapes = (len(ALPHABET) * SEEN, HIDDEN), (HIDDEN, len(ALPHABET)), (HIDDEN,)
    weights = [rng.normal(size=shape) * 0.1 for shape in shapes]
    moments = [(np.zeros(shape), np.zeros(shape)) for shape in shapes]
    for step in range(1, steps + 1):
        places = rng.integers(SEEN, len(text), batch)
        seen = windows(text, places)
        hidden = np.tanh(weights[0][seen].sum(axis=1) + weights[2])
        z = hidden @ weights[1]
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        p[np.arange(batch), text[places]] -= 1
        of_hidden = p @ weights[1].T * (1 - hidden**2) / batch
        of_first = np.zeros(shapes[0])
        np.add.at(of_first, seen, of_hidden[:, None])
        gradients = of_first, hidden.T @ p / batch, of_hidden.sum(axis=0)
        for weight, (mean, square), gradient in zip(weights, moments, gradients, strict=True):
            mean += 0.1 * (gradient - mean)
            square += 0.001 * (gradient**2 - square)
            rate = 0.01 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            weight -= rate * mean / (np.sqrt(square) + 1e-8)
    return weights


def rounded(weights, bits):
    """Each matrix's rows to so many bits, with a scale of their own."""
    steps = 2 ** (bits - 1) - 1
    first, second, bias = weights
    scales = [np.abs(x).max(axis=1, keepdims=True) / steps for x in (first, second)]
    return *(np.rint(x / s) * s for x, s in zip((first, second), scales, strict=True)), bias


def keep_logits(folder, weights, tokens):
    """The original's base file, and the rounded models' logits at the rows that it has: of each chunk the second half."""
    scored = np.arange(LENGTH // 2, LENGTH - 1)
    # Row j is to predict token j + 1, and reads what stands before that.
    places = (np.arange(CHUNKS)[:, None] * LENGTH + scored + 1).ravel()
    seen = windows(tokens.ravel(), places)
    shape = CHUNKS, len(scored), len(ALPHABET)
    write_llama_logits(folder / "base.kld", logits(weights, seen).reshape(shape), tokens, LENGTH)
    for bits in (8, 4, 3):
        z = logits(rounded(weights, bits), seen).reshape(shape)
        np.save(folder / f"{bits}-bit.npy", z.astype(np.float16))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="keep the files and the picture there")
    parser.add_argument("--steps", type=int, default=3000, help="of training (default: 3000)")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    text = made_up_text(rng, 8000)
    held_out = CHUNKS * LENGTH
    weights = train(rng, text[:-held_out], options.steps)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        keep_logits(folder, weights, text[-held_out:].reshape(CHUNKS, LENGTH))
        files = [str(folder / name) for name in ("base.kld", "8-bit.npy", "4-bit.npy", "3-bit.npy")]
        plot = [] if options.folder is None else ["--plot", str(folder / "fidelity.png")]
        raise SystemExit(_cli.main(["fidelity", *files, *plot]))


if __name__ == "__main__":
    main()
