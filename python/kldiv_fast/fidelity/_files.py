"""Where logits are kept: llama.cpp's base files, .npy, .npz, safetensors, and whatever has a shape, a dtype and slices.

All of them are a :class:`Logits`: rows, one for each token, that are read a window at a time.
"""

import os
import re
import warnings
from pathlib import Path

import numpy as np

from kldiv_fast import _files

MAGIC = b"_logits_"
# What begins as it does, and is something else.
_VARIANTS = {
    b"_logits2": "beellama.cpp's format (65534 steps over a row's full range)",
    b"_logp16_": "a file of 16-bit log-probabilities",
    b"_logp16n": "a file of normalised 16-bit log-probabilities",
    b"HFKLDR\0\0": "a file of HFKLDR",
}
_HEADER = 20  # bytes: the magic, n_ctx, n_vocab, n_chunk
_FLOOR = 16  # llama.cpp keeps log-probabilities down to so much below a row's greatest
_STEPS = 65535
_FLOATS = ("float16", "bfloat16", "float32", "float64")


class Logits:
    """Rows of logits, one for each token, that are read where they lie.

    Made by :func:`open_logits`.

    Attributes
    ----------
    name : str
        The file's, the folder's, or what kind of array it is.
    producer : str
        What is known of who wrote it: ``"llama.cpp"``, or the container.
    shape : tuple of int
        Tokens, vocabulary.
    dtype : str
        Of what is kept: ``"u16 codes"`` of llama.cpp's.
    chunks : ndarray of int64
        How many rows each chunk (window, sequence) has.
    targets : ndarray of int64, or None
        The token that each row is to predict, where the file tells.
    """

    files: tuple = ()
    targets = None
    is_coded = False
    is_mapped = False

    def __init__(self, name, producer, shape, dtype, chunks):
        self.name, self.producer, self.dtype = name, producer, dtype
        self.shape = shape
        self.chunks = np.asarray(chunks, dtype=np.int64)

    def __repr__(self):
        return f"<Logits {self.name}: {self.producer}, {self.shape[0]:,} x {self.shape[1]:,}, {self.dtype}>"

    def read(self, start, stop):
        """Rows of one chunk, as they are kept."""
        raise NotImplementedError

    def cuts(self):
        """Rows that no window may reach across, each as the one that begins there."""
        return np.concatenate([[0], np.cumsum(self.chunks)])


# ---- llama.cpp's base file ----


class _LlamaLogits(Logits):
    """The file of ``llama-perplexity --kl-divergence-base``."""

    is_coded = is_mapped = True

    def __init__(self, path):
        header = np.fromfile(path, dtype="<i4", count=3, offset=len(MAGIC))
        if len(header) < 3 or min(header) < 1 or header[0] < 4:
            raise ValueError(f"{path} has a header of {header.tolist()} for n_ctx, n_vocab, n_chunk; it is cut off or damaged")  # fmt: skip
        n_ctx, n_vocab, n_chunk = map(int, header)
        rows, words = n_ctx - 1 - n_ctx // 2, 2 * ((n_vocab + 1) // 2) + 4
        begin = _HEADER + 4 * n_ctx * n_chunk
        expected, found = begin + 2 * words * rows * n_chunk, os.path.getsize(path)
        if found != expected:
            whole = max(0, found - begin) // (2 * words * rows)
            state = "is cut off" if found < expected else "is too long"
            raise ValueError(
                f"{path} {state}: {found:,} of {expected:,} bytes for {n_chunk} chunks of n_ctx {n_ctx} and a "
                f"vocabulary of {n_vocab:,} ({min(whole, n_chunk)} whole chunks are there); write it again"
            )
        super().__init__(str(path), "llama.cpp", (rows * n_chunk, n_vocab), "u16 codes", [rows] * n_chunk)  # fmt: skip
        self.files = (str(path),)
        self.n_ctx = n_ctx
        self.tokens = np.fromfile(path, dtype="<i4", count=n_ctx * n_chunk, offset=_HEADER)
        self.tokens = self.tokens.reshape(n_chunk, n_ctx)
        self.targets = self.tokens[:, n_ctx // 2 + 1 :].astype(np.int64).ravel()
        if self.targets.min() < 0 or self.targets.max() >= n_vocab:
            raise ValueError(f"{path} has a token of {self.targets[(self.targets < 0) | (self.targets >= n_vocab)][0]}; expected tokens in [0, {n_vocab})")  # fmt: skip
        self._words = np.memmap(path, "<u2", "r", begin, (rows * n_chunk, words))

    def read(self, start, stop):
        words = np.asarray(self._words[start:stop])
        if (_scales(words) < 0).any():
            raise ValueError(f"{self.name} has a row from {start} to {stop - 1} whose scale is below 0; it is damaged")  # fmt: skip
        return words

    def cuts(self):
        return np.array([0, self.shape[0]])

    def scored_of(self, side):
        """`side`, of which the rows that are scored alone where it has all of the same chunks, with or without the last."""
        if len(side.chunks) == len(self.tokens) and set(side.chunks.tolist()) <= {self.n_ctx, self.n_ctx - 1}:  # fmt: skip
            return _ScoredRows(side, self.n_ctx)
        return side

    @staticmethod
    def bound(words):
        """How far a log-probability in these rows may be from what was rounded to a code."""
        scales = _scales(words)
        return float(scales[np.isfinite(scales)].max(initial=0)) / 2


def _scales(words):
    return np.ascontiguousarray(words[:, :2]).view("<f4")


class _ScoredRows(Logits):
    """Of chunks of all positions those that llama.cpp scores: the second half but the last, n_ctx // 2 to n_ctx - 2."""

    def __init__(self, side, n_ctx):
        first, self._rows = n_ctx // 2, n_ctx - 1 - n_ctx // 2
        chunks = np.full_like(side.chunks, self._rows)
        producer = f"{side.producer}, rows {first} to {n_ctx - 2} of each chunk"
        super().__init__(side.name, producer, (int(chunks.sum()), side.shape[1]), side.dtype, chunks)  # fmt: skip
        self.files, self.is_mapped = side.files, side.is_mapped
        self._side, self._begins = side, np.cumsum(side.chunks) - side.chunks + first

    def read(self, start, stop):
        chunk, at = divmod(start, self._rows)
        begin = int(self._begins[chunk]) + at
        return self._side.read(begin, begin + stop - start)


def write_llama_logits(path, logits, tokens, n_ctx):
    """Write a file that ``llama-perplexity --kl-divergence-base FILE --kl-divergence`` and :func:`open_logits` read.

    Parameters
    ----------
    path : path-like
        Is replaced once all is written.
    logits : array_like of shape (chunks, n_ctx, vocabulary)
        At all positions; or of shape (chunks, n_ctx - 1 - n_ctx // 2, vocabulary) at those that are scored: of each chunk
        the second half but the last, n_ctx // 2 to n_ctx - 2.
    tokens : array_like of int, of shape (chunks, n_ctx)
        What the model read.
    n_ctx : int
        Tokens of a chunk, at least 4.

    Raises
    ------
    ValueError
        If the shapes do not fit, a token is not in the vocabulary, or a logit is NaN or infinite.

    Notes
    -----
    Each row is kept as the codes of 65536 steps from its greatest log-probability to 16 below: what is in between is
    rounded by at most 1.22e-4, to which the row's two float32 numbers add up to 2e-6, and what is below is lost.

    Examples
    --------
    >>> import numpy as np
    >>> from kldiv_fast.fidelity import open_logits, write_llama_logits
    >>> rng = np.random.default_rng(0)
    >>> write_llama_logits("base.kld", rng.normal(size=(2, 8, 50)), rng.integers(50, size=(2, 8)), 8)
    >>> open_logits("base.kld")
    <Logits base.kld: llama.cpp, 6 x 50, u16 codes>
    >>> import os; os.remove("base.kld")
    """
    tokens = np.asarray(tokens)
    if n_ctx < 4 or tokens.ndim != 2 or tokens.shape[1] != n_ctx or tokens.dtype.kind not in "iu":
        raise ValueError(f"tokens has shape {tokens.shape} and dtype {tokens.dtype}; expected integers of shape (chunks, n_ctx), n_ctx ({n_ctx}) at least 4")  # fmt: skip
    rows = n_ctx - 1 - n_ctx // 2
    shape = np.shape(logits)
    if len(shape) != 3 or shape[0] != len(tokens) or shape[1] not in (n_ctx, rows) or not shape[2]:
        raise ValueError(f"logits has shape {shape}; expected ({len(tokens)}, {n_ctx} or {rows}, vocabulary)")  # fmt: skip
    vocabulary = shape[2]
    if tokens.size and (tokens.min() < 0 or tokens.max() >= vocabulary):
        raise ValueError(f"tokens has {int(tokens.max())}; expected tokens in [0, {vocabulary})")
    first = n_ctx // 2 if shape[1] == n_ctx else 0
    try:
        with _files.written_beside(os.fspath(path), "path") as scratch, open(scratch, "wb") as file:
            file.write(MAGIC)
            np.array([n_ctx, vocabulary, len(tokens)], "<i4").tofile(file)
            tokens.astype("<i4").tofile(file)
            for chunk in logits:
                for row in chunk[first : first + rows]:
                    _encode(np.asarray(row)).tofile(file)
    except _files.InputError as error:
        raise OSError(str(error)) from error


def _encode(row):
    z = row.astype(np.float32)
    if not np.isfinite(z.max()) or np.isnan(z).any():
        raise ValueError("logits has NaN, infinity, or a row of -inf; expected a finite greatest in each row")  # fmt: skip
    high = np.float32(z.max())
    low = np.float32(max(z.min(), high - np.float32(_FLOOR)))
    log_sum = np.log(np.exp((z - high).astype(np.float64)).sum())
    words = np.zeros(2 * ((len(z) + 1) // 2) + 4, "<u2")
    scale = np.float32((high - low) / np.float32(_STEPS))
    words[:4] = np.array([scale, float(low) - float(high) - log_sum], "<f4").view("<u2")
    if scale > 0:
        steps = np.rint((np.maximum(z, low) - low) / scale)  # half to even
        words[4 : 4 + len(z)] = np.minimum(steps, _STEPS).astype("<u2")
    return words


# ---- arrays ----


class _ArrayLogits(Logits):
    """Anything with shape, dtype and slices: (tokens, vocabulary), or (sequences, tokens, vocabulary)."""

    def __init__(self, array, name, producer):
        shape, dtype = tuple(map(int, array.shape)), _dtype_name(array.dtype)
        if len(shape) not in (2, 3) or dtype not in _FLOATS or 0 in shape:
            raise ValueError(
                f"{name} has shape {shape} and dtype {dtype}; expected float16, bfloat16, float32 or float64 of shape "
                "(tokens, vocabulary) or (sequences, tokens, vocabulary)"
            )
        sequences, length = (1, shape[0]) if len(shape) == 2 else shape[:2]
        super().__init__(name, producer, (sequences * length, shape[-1]), dtype, [length] * sequences)  # fmt: skip
        self._array, self._length, self._is_flat = array, length, len(shape) == 2
        if isinstance(array, np.ndarray):
            self.is_mapped = array.flags.c_contiguous
            if self.is_mapped:
                self._array, self._is_flat = np.asarray(array).reshape(-1, shape[-1]), True

    def read(self, start, stop):
        if self._is_flat:
            return np.asarray(self._array[start:stop])
        sequence, first = divmod(start, self._length)
        return np.asarray(self._array[sequence, first : first + stop - start])

    def cuts(self):
        return np.array([0, self.shape[0]]) if self._is_flat else super().cuts()


def _dtype_name(dtype):
    return getattr(dtype, "name", str(dtype).removeprefix("torch."))


# ---- safetensors ----


class _SafetensorsLogits(Logits):
    """Tensors of one vocabulary, in natural order: each is a chunk."""

    def __init__(self, name, files, tensors):
        lengths, vocabularies, dtypes = [], set(), set()
        for file, key, shape, dtype in tensors:
            if (
                len(shape) not in (2, 3)
                or (len(shape) == 3 and shape[0] != 1)
                or dtype not in _FLOATS
            ):
                raise ValueError(f"{file} has {key} of shape {shape} and dtype {dtype}; expected floats of shape (tokens, vocabulary) or (1, tokens, vocabulary)")  # fmt: skip
            lengths.append(shape[-2])
            vocabularies.add(shape[-1])
            dtypes.add(dtype)
        if len(vocabularies) > 1:
            raise ValueError(f"{name} has tensors of several vocabularies: {sorted(vocabularies)}; expected one")  # fmt: skip
        super().__init__(name, "safetensors", (sum(lengths), vocabularies.pop()), "/".join(sorted(dtypes)), lengths)  # fmt: skip
        self.files = files
        self._tensors, self._open = tensors, (None, None)

    def read(self, start, stop):
        at = int(np.searchsorted(np.cumsum(self.chunks), start, side="right"))
        first = start - int(self.chunks[:at].sum())
        file, key, shape, _ = self._tensors[at]
        if self._open[0] != (file, key):
            self._open = (file, key), _safe_open(file).get_slice(key)
        rows = slice(first, first + stop - start)
        return self._open[1][rows] if len(shape) == 2 else self._open[1][0:1, rows][0]


_SAFE_DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


def _safe_open(file):
    try:
        import safetensors
    except ImportError as error:
        raise ModuleNotFoundError(f"{file} is read by the library safetensors; pip install 'kldiv_fast[fidelity]'") from error  # fmt: skip
    try:
        return safetensors.safe_open(file, framework="numpy")
    except safetensors.SafetensorError as error:
        raise ValueError(f"{file} is cut off or damaged ({error}); write it again") from error


def _open_safetensors(path, files):
    tensors, top_k = [], {}
    for file in files:
        opened = _safe_open(file)
        names = sorted(opened.keys(), key=_natural)
        if {"indices", "logprobs"} <= set(names):
            for key in ("indices", "logprobs", "tail_mass"):
                if key in names:
                    top_k.setdefault(key, []).append(opened.get_tensor(key))
            continue
        found = [key for key in names if key == "logits"] or [
            key for key in names if len(opened.get_slice(key).get_shape()) > 1
        ]
        for key in found:
            tensor = opened.get_slice(key)
            dtype = _SAFE_DTYPES.get(tensor.get_dtype(), tensor.get_dtype())
            if dtype == "bfloat16":
                _register_bfloat16(file)
            tensors.append((file, key, tuple(tensor.get_shape()), dtype))
    if top_k and not tensors:
        whole = {key: np.concatenate([x.reshape(-1, *x.shape[-1:]) if key != "tail_mass" else x.ravel() for x in parts]) for key, parts in top_k.items()}  # fmt: skip
        teacher = TopK(whole["indices"], whole["logprobs"], whole.get("tail_mass"), name=path)
        teacher.files = tuple(files)
        return teacher
    if not tensors or top_k:
        raise ValueError(f"{path} has no tensors of logits, or top-k beside them; expected logits, or indices and logprobs")  # fmt: skip
    return _SafetensorsLogits(path, tuple(files), tensors)


def _register_bfloat16(file):
    try:
        import ml_dtypes  # noqa: F401
    except ImportError as error:
        raise ModuleNotFoundError(f"{file} is of bfloat16, which is ml_dtypes' in NumPy; pip install 'kldiv_fast[fidelity]'") from error  # fmt: skip


def _natural(name):
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", str(name))]  # fmt: skip


def window_number(file):
    """The last number in a file's name, or None."""
    found = re.findall(r"\d+", os.path.basename(file))
    return int(found[-1]) if found else None


def _folder(path):
    files = sorted(map(str, Path(path).glob("*.safetensors")), key=lambda x: _natural(os.path.basename(x)))  # fmt: skip
    if not files:
        raise ValueError(f"{path} is a folder without .safetensors files; expected a file of logits, or a folder of them")  # fmt: skip
    numbers = [window_number(file) for file in files]
    if None not in numbers and len(files) > 1:
        missing = sorted(set(range(min(numbers), max(numbers))) - set(numbers))
        if missing and len(set(numbers)) == len(numbers):
            raise ValueError(f"{path} lacks window {missing[0]} between {os.path.basename(files[0])} and {os.path.basename(files[-1])}; write it again")  # fmt: skip
    return files


# ---- the likeliest tokens of a teacher ----


class TopK:
    """A base of which only the likeliest tokens were kept.

    Parameters
    ----------
    indices : array_like of int, of shape (tokens, k)
        Which tokens they are, in any order.
    log_probs : array_like of float, of shape (tokens, k)
        The logarithms of their probabilities, over the whole vocabulary.
    tail_mass : array_like of float, of shape (tokens,), optional
        The probability of all others; otherwise what the kept ones leave of 1.
    name : str
        What the report calls it.

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """

    producer = "top-k"
    files: tuple = ()
    targets = None
    is_coded = False

    def __init__(self, indices, log_probs, tail_mass=None, *, name="top-k"):
        self.indices = np.asarray(indices)
        self.log_probs = np.asarray(log_probs)
        if self.indices.ndim != 2 or self.indices.shape != self.log_probs.shape or self.indices.dtype.kind not in "iu" or not self.indices.size:  # fmt: skip
            raise ValueError(f"indices has shape {self.indices.shape} and dtype {self.indices.dtype}, log_probs {self.log_probs.shape}; expected integers and floats of shape (tokens, k)")  # fmt: skip
        self.tail_mass = None if tail_mass is None else np.asarray(tail_mass, dtype=np.float64).ravel()  # fmt: skip
        if tail_mass is not None and self.tail_mass.shape != self.indices.shape[:1]:
            raise ValueError(f"tail_mass has shape {self.tail_mass.shape}; expected ({len(self.indices)},)")  # fmt: skip
        self.name, self.dtype = name, str(self.log_probs.dtype)
        self.shape = self.indices.shape
        self.chunks = np.array([len(self.indices)])

    def __repr__(self):
        return f"<TopK {self.name}: {self.shape[0]:,} x {self.shape[1]:,}>"


# ---- any of them ----


def open_logits(source):
    """Logits where they lie: nothing of them is read yet.

    Parameters
    ----------
    source : path-like, or an array
        A file of llama.cpp (``--kl-divergence-base``); a .npy file, memory-mapped; ``FILE.npz:NAME``, which has to be read
        as a whole; a safetensors file, or a folder of them in natural order: ``logits``, or each tensor in turn, or
        ``indices`` and ``logprobs`` of a top-k teacher. Or anything that has shape, dtype and slices, such as a dataset of
        HDF5 or zarr. Shapes are (tokens, vocabulary) or (sequences, tokens, vocabulary).

    Returns
    -------
    Logits, or TopK

    Raises
    ------
    ValueError
        If the file is none of these, is cut off, or has a shape or dtype that logits don't.
    ModuleNotFoundError
        If a library that reads it is missing.

    Examples
    --------
    >>> import numpy as np
    >>> from kldiv_fast.fidelity import open_logits
    >>> open_logits(np.zeros((3, 10, 100), np.float16))
    <Logits ndarray: array, 30 x 100, float16>
    """
    if isinstance(source, Logits | TopK):
        return source
    if not isinstance(source, str | os.PathLike):
        if not all(hasattr(source, name) for name in ("shape", "dtype", "__getitem__")):
            raise TypeError(f"logits are of {type(source).__name__}; expected a path, or an array with shape, dtype and slices")  # fmt: skip
        return _ArrayLogits(source, type(source).__name__, "array")
    path = os.fspath(source)
    if os.path.isdir(path):
        return _open_safetensors(path, _folder(path))
    if ".npz:" not in path and os.path.isfile(path):
        with open(path, "rb") as file:
            magic = file.read(len(MAGIC))
        if magic == MAGIC:
            return _LlamaLogits(path)
        if magic in _VARIANTS:
            raise ValueError(f"{path} is {_VARIANTS[magic]}, which is not read; expected llama.cpp's, which begins with {MAGIC.decode()}")  # fmt: skip
        if path.endswith(".safetensors"):
            return _open_safetensors(path, [path])
    try:
        array = _files.load(path)
    except _files.InputError as error:
        raise ValueError(str(error)) from None
    if not isinstance(array, np.memmap):
        warnings.warn(f"{path} is read as a whole: a .npz file can't be mapped; numpy.save writes one that can", stacklevel=2)  # fmt: skip
    opened = _ArrayLogits(array, path, "NumPy")
    opened.files = (path.partition(".npz:")[0] + (".npz" if ".npz:" in path else ""),)
    return opened
