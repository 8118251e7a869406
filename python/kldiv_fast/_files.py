"""What the command reads and writes: arrays from files, and the file of rows.

A file that holds no array is an :class:`InputError` that says what it looks like and, where numbers can be had from it,
the line of Python that makes an array of them.
"""

import codecs
import contextlib
import errno
import math
import os
import re
import secrets
import stat
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np


class InputError(Exception):
    """What the user can mend: told in one line, without a traceback."""


# ---- arrays from files ----


def load(name):
    """The array in FILE.npy, memory-mapped, or the one that FILE.npz:NAME names."""
    path, member = _path_and_member(name)
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path} is a folder, a pipe or a device; expected a file")
        with open(path, "rb") as stream:
            head = stream.read(_HEAD)
            if head.startswith(np.lib.format.MAGIC_PREFIX):
                stream.seek(0)
                _check_header(stream, path, status.st_size)
                return np.load(path, mmap_mode="r", allow_pickle=False)
        if head.startswith((b"PK\3\4", b"PK\5\6")):  # the latter: of an empty zip file
            return _load_member(path, member)
        what, advice = _looks_like(path, head)
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}") from error
    raise InputError(f"{path} is {what}; {advice}")


def _path_and_member(name):
    path, found, member = name.partition(".npz:")
    return path + found[:-1], member


def _check_header(stream, name, size):
    """Refuse what np.load would refuse in words about pickles, and what its memory map has no bytes for."""
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
        np.broadcast_to(np.empty((), dtype), shape)  # raises if no array can have that shape
    except Exception as error:  # of whatever kind Python's tokenizer, its parser and NumPy raise
        raise InputError(
            f"{name} begins like a .npy file, but its header is cut off or damaged; copy it again"
        ) from error
    if dtype.hasobject:
        raise InputError(f"{name} holds Python objects, not numbers; {_written_again(name)}")
    needed = stream.tell() + math.prod(shape) * dtype.itemsize
    if needed > size:
        raise InputError(
            f"{name} is cut off: {size:,} of {needed:,} bytes are there; copy or write it again"
        )


def _load_member(path, member):
    try:
        with zipfile.ZipFile(path) as archive:
            name = _choose_member(path, member, archive.namelist())
            with archive.open(name) as stream:
                _check_header(stream, f"{path}:{name}", archive.getinfo(name).file_size)
                stream.seek(0)
                return np.lib.format.read_array(stream, allow_pickle=False)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise InputError(f"{path} is a damaged or encrypted zip file ({error})") from error


def _choose_member(path, member, names):
    arrays = [name.removesuffix(".npy") for name in names if name.endswith(".npy")]
    if not arrays and any(name.endswith("data.pkl") for name in names):
        raise InputError(f"{path} is {_TORCH}; {_in_python(_FROM_TORCH, path)}")
    if not arrays:
        raise InputError(
            f"{path} is a zip file without arrays ({', '.join(names[:3]) or 'without anything'}); "
            "expected a file of numpy.savez"
        )
    if member not in arrays and (member or len(arrays) > 1):
        found = f"no array {member!r}" if member else f"{len(arrays)} arrays"
        raise InputError(f"{path} has {found}; name one of {path}:{{{','.join(arrays)}}}")
    return (member or arrays[0]) + ".npy"


# ---- what a file looks like that holds no array ----

_HEAD = 4096  # bytes that tell

_TORCH = "a file of torch.save"
_FROM_TORCH = (
    "import numpy, torch; numpy.save({new!r}, "
    "torch.load({path!r}, map_location='cpu', weights_only=True).numpy(force=True))"
    "  # ['NAME'] before .numpy if it is a dict"
)

# How a file begins, what it is then, and what makes an array of it.
_FORMATS = (
    (
        rb"\x89HDF\r\n\x1a\n",
        "an HDF5 file (NAME: of a dataset in it)",
        "import h5py, numpy; numpy.save({new!r}, h5py.File({path!r})['NAME'][()])",
    ),
    (
        rb"PAR1",
        "a Parquet file",
        "import numpy, pandas; numpy.save({new!r}, pandas.read_parquet({path!r}).to_numpy())",
    ),
    (
        rb"ARROW1",
        "an Arrow (Feather) file",
        "import numpy, pandas; numpy.save({new!r}, pandas.read_feather({path!r}).to_numpy())",
    ),
    (
        rb".{5}\0\0\0\{\"",
        "a safetensors file (NAME: of a tensor in it)",
        "import numpy, safetensors.numpy as st; numpy.save({new!r}, st.load_file({path!r})['NAME'])",
    ),
    (rb"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19\.", _TORCH, _FROM_TORCH),  # before PyTorch 1.6
)


def _looks_like(path, head):
    """What the file is, and what to do."""
    if not head:
        return "empty", _written_again(path)
    for beginning, what, line in _FORMATS:
        if re.match(beginning, head, re.DOTALL):
            return what, _in_python(line, path)
    if re.match(rb"\x80[\x02-\x05]", head):
        return "a pickle, which can run any code when it is read", _written_again(path)
    text = _as_text(head)
    if text is None:
        line = "import numpy; numpy.save({new!r}, numpy.fromfile({path!r}, 'float32'))"
        return (
            f"no array (it begins with {head[:8]!r})",
            f"if it is bare numbers, {_in_python(line, path)}",
        )
    table = _table(path, head)
    if table is None:
        what = f"a text and no table of numbers (it begins with {text[:20]!r})"
        return what, _written_again(path)
    line = "import numpy; numpy.save({new!r}, numpy.loadtxt({path!r}" + table + "))"
    return "a text file", _in_python(line, path)


def _in_python(line, path):
    return "in Python: " + line.format(path=path, new=path + ".npy")


def _written_again(path):
    """What to do about a file that no line can safely make an array of."""
    own = str(Path(path.partition(".npz:")[0]).with_suffix(".npy"))
    line = f"import numpy; numpy.save({own!r}, numpy.array(rows, dtype=float))"
    return f"where the rows come from, in Python: {line}"


def _as_text(head):
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return None
    return text if all(c.isprintable() or c in "\t\n\r\f" for c in text) else None


def _table(path, head):
    """The arguments with which numpy.loadtxt reads the first rows of a text; None: there are none."""
    marked = head.startswith(codecs.BOM_UTF8)
    with open(path, encoding="utf-8-sig", errors="replace") as stream:
        first = stream.readline().rstrip("\n")
    for delimiter in (",", ";", "\t", None):
        fields = [field.strip(" \"'") for field in first.split(delimiter)] or [""]
        keywords = {} if delimiter is None else {"delimiter": delimiter}
        if marked:
            keywords["encoding"] = "utf-8-sig"
        if fields[0] == "" or not any(map(_is_number, fields)):
            keywords["skiprows"] = 1  # the columns' names
        if fields[0] == "" and len(fields) > 1:
            keywords["usecols"] = range(1, len(fields))  # the first is pandas's index
        try:
            with warnings.catch_warnings(action="ignore"):  # of lines without data
                found = np.loadtxt(path, max_rows=2, **keywords).size
        except ValueError:
            continue
        if found:
            return "".join(f", {name}={value!r}" for name, value in keywords.items())
    return None


def _is_number(field):
    try:
        float(field)
    except ValueError:
        return False
    return True


# ---- what is written ----


def check_output(name, inputs, option="--rows"):
    """Refuse an output that is one of the inputs, given by what each is called: it would be lost."""
    for called, given in inputs.items():
        path, _ = _path_and_member(given)
        if os.path.exists(name) and os.path.exists(path) and os.path.samefile(name, path):
            raise InputError(
                f"{option} {name} is the same file as {called} {path}, which would be lost; "
                "expected another file"
            )


@contextlib.contextmanager
def written_beside(name, option="--rows"):
    """The path of a new file beside `name`, which is moved to its place once all is written.

    As `open` would: a new file has the mode that the umask gives, an old one keeps its mode, and a link is followed.
    """
    try:
        target = os.path.realpath(name)
        mode = _mode_to_keep(target, option)
        scratch = os.path.join(os.path.dirname(target), f".kldiv_fast-{secrets.token_hex(8)}.part")
        try:
            created = 0o666 if mode is None else 0o600
            os.close(os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_WRONLY, created))
            yield scratch
            if mode is not None:
                os.chmod(scratch, mode)
            os.replace(scratch, target)
        finally:
            Path(scratch).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{option} {name} can't be written: {error.strerror or error}") from error


def write_rows(name, shape, dtype, fill):
    """Let `fill` write an array of rows."""
    with written_beside(name) as scratch:
        rows = np.lib.format.open_memmap(scratch, "w+", dtype, shape)
        _reserve(scratch)
        fill(rows)
        rows.flush()
        del rows


def _mode_to_keep(target, option):
    """The permissions of a file that is there and may be written to; None: there is none."""
    if not os.path.lexists(target):
        return None
    mode = os.stat(target).st_mode
    if not stat.S_ISREG(mode):
        raise InputError(f"{option} {target} is a folder, a pipe or a device; expected a file")
    with open(target, "r+b"):  # raises where the file is protected, which replacing it would not
        return stat.S_IMODE(mode)


def _reserve(path):
    """Have the disk's room now: a memory map that finds none, later, ends the process."""
    if not hasattr(os, "posix_fallocate"):
        return
    with open(path, "r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # of file systems that can't
                raise
