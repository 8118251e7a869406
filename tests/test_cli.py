"""``python -m kldiv_fast``: values, files, what it writes, errors in one line, Ctrl-C, progress."""

import errno
import importlib.metadata
import importlib.util
import io
import itertools
import os
import pickle
import re
import shlex
import signal
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import kldiv_fast
import numpy as np
import pytest
from kldiv_fast import _cli, _files
from kldiv_fast._divergence import compute, prepare
from kldiv_fast._meaning import REDUCTIONS
from kldiv_fast._operations import OPERATIONS
from oracle import distributions

COMMAND = [sys.executable, "-m", "kldiv_fast"]
EXAMPLE = Path(__file__).parents[1] / "examples" / "digits.py"
posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")


def run(*arguments):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


def test_the_script_is_the_command():
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="kldiv_fast")
    assert script.load() is importlib.import_module("kldiv_fast.__main__").command


@pytest.fixture
def files(tmp_path, rng, monkeypatch):
    """Two arrays of rows, weights and a mask, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("x", "y"):
        np.save(f"{name}.npy", distributions(rng, (60, 10)))
    np.savez("both.npz", x=np.load("x.npy"), y=np.load("y.npy"))
    np.save("w.npy", np.arange(60.0))
    np.save("m.npy", np.arange(60) % 2 == 0)
    return tmp_path


def pair():
    return np.load("x.npy"), np.load("y.npy")


def main(capsys, *arguments):
    """The command in this process: its status, output and errors."""
    try:
        status = _cli.main([str(word) for word in arguments])
    except SystemExit as ended:  # argparse
        status = ended.code
    return status, *capsys.readouterr()


def error_of(capsys, *arguments):
    """The one line that the command ends with."""
    status, output, line = main(capsys, *arguments)
    assert (status, output) == (2, "")
    assert line.startswith("kldiv_fast: error: ")
    assert line.count("\n") == 1
    return line.removeprefix("kldiv_fast: error: ").rstrip("\n")


def shown(output, name="value"):
    return re.search(rf"^{name} +(.*?)(?: nats| bits| \(base 10\))?$", output, re.MULTILINE)[1]


# ---- values ----


def test_two_files(files):
    done = run("x.npy", "y.npy")
    assert (done.returncode, done.stderr) == (0, "")
    assert np.float32(shown(done.stdout)) == kldiv_fast.kl(*pair())
    assert re.search(r"^rows +60\nclasses +10\n", done.stdout, re.MULTILINE)
    assert f"ISA       {kldiv_fast.current_isa()}\n" in done.stdout


def test_named_arrays(files, capsys):
    status, output, _ = main(capsys, "both.npz:x", "both.npz:y")
    assert status == 0
    assert np.float32(shown(output)) == kldiv_fast.kl(*pair())


DIVERGENCES = [
    ("jeffreys", [], {}),
    ("generalized_kl", ["--base", "2"], {"base": 2}),
    ("jsd", ["--beta", "0.25", "--base", "10"], {"beta": 0.25, "base": 10}),
    ("jsd", [], {}),
]


@pytest.mark.parametrize(("name", "arguments", "keywords"), DIVERGENCES)
def test_every_divergence(files, capsys, name, arguments, keywords):
    command = ["x.npy", "y.npy", "--divergence", name, *arguments, "--rows=rows.npy"]
    status, output, _ = main(capsys, *command)
    assert status == 0
    divergence = getattr(kldiv_fast, name)
    assert np.float32(shown(output)) == divergence(*pair(), **keywords)
    rows = divergence(*pair(), reduction="none", **keywords)
    np.testing.assert_array_equal(np.load("rows.npy"), rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--divergence", "js"], "--divergence is 'js'; expected one of: kl, generalized_kl"),
        (["--beta", "0.5"], "kl() got an unexpected keyword argument 'beta'"),
        (["--divergence", "jsd", "--beta", "2"], "beta is 2.0; expected a number in [0, 1]"),
        (["--beta", "half"], "--beta is 'half'; expected a number in [0, 1]"),
        (["--base", "two"], "--base is 'two'; expected a positive number other than 1"),
        (["--base", "1"], "base is 1.0; expected a positive number other than 1"),
    ],
)
def test_divergences_that_there_are_not(files, capsys, arguments, message):
    assert message in error_of(capsys, "x.npy", "y.npy", *arguments)


FORMS = [
    ("kl", "counts", [], {}),
    ("kl", "logits", ["--temperature", "2"], {"temperature": 2}),
    ("jsd", "probs,logits", ["--temperature=0.5", "--beta=0.25"], {"temperature": 0.5, "beta": 0.25}),
    ("jeffreys", "log_probs,counts", ["--base", "2"], {"base": 2}),
    ("generalized_kl", "probs,probs", ["--epsilon", "0.01"], {"epsilon": 0.01}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "form", "arguments", "keywords"), FORMS)
def test_forms(files, capsys, name, form, arguments, keywords):
    command = ["x.npy", "y.npy", "--divergence", name, "--form", form, *arguments, "--rows=r.npy"]
    status, output, _ = main(capsys, *command)
    assert status == 0
    keywords = {**keywords, "form": tuple(form.split(",")) if "," in form else form}
    divergence = getattr(kldiv_fast, name)
    assert np.float32(shown(output)) == divergence(*pair(), **keywords)
    rows = divergence(*pair(), reduction="none", **keywords)
    np.testing.assert_array_equal(np.load("r.npy"), rows)


KNOWN = "expected one of: probs, counts, log_probs, logits, labels, or two: probs,logits"
BAD_FORMS = [
    (["--form", "logit"], f"--form is 'logit'; {KNOWN}"),
    (["--form", ""], f"--form is ''; {KNOWN}"),
    (["--form", "probs,"], f"--form is 'probs,'; {KNOWN}"),
    (["--form", "probs,probs,probs"], f"--form is 'probs,probs,probs'; {KNOWN}"),
    (["--form=logits", "--temperature=hot"], "--temperature is 'hot'; expected a finite number above 0"),
    (["--form=logits", "--temperature", "-1"], "temperature is -1.0; expected a finite number above 0"),
    (["--temperature", "2"], "temperature is 2.0, which is for logits alone; expected 1"),
    (["--form=counts", "--epsilon=0"], "epsilon is 0.0, but nothing is clipped beside counts; expected the default, or None"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), BAD_FORMS)
def test_forms_that_there_are_not(files, capsys, arguments, message):
    assert error_of(capsys, "x.npy", "y.npy", *arguments) == message


OPTIONS = {
    "plain": ([], {}),
    "axis 0": (["--axis", "0"], {"axis": 0}),
    "all axes": (["--axis", "-2,-1"], {"axis": (-2, -1)}),
    "no clip": (["--epsilon", "none"], {"epsilon": None}),
    "clip": (["--epsilon", "1e-3", "--num-threads", "1"], {"epsilon": 1e-3}),
    "weights": (["--sample-weight", "w.npy"], {"sample_weight": "w.npy"}),
    "mask": (["--mask", "m.npy"], {"mask": "m.npy"}),
    "both": (
        ["--mask", "m.npy", "--sample-weight", "w.npy"],
        {"mask": "m.npy", "sample_weight": "w.npy"},
    ),
}


@pytest.mark.parametrize("dtypes", ["ff", "fd", "dd", "ee"])
@pytest.mark.parametrize(("arguments", "keywords"), OPTIONS.values(), ids=OPTIONS)
def test_bits_are_those_of_kl(files, capsys, rng, arguments, keywords, dtypes):
    """Of the value for every reduction, and of the rows beside it."""
    n = 2000
    for name, dtype in zip("xy", dtypes, strict=True):
        np.save(f"{name}.npy", distributions(rng, (n, 70)).astype(dtype))
    np.save("w.npy", rng.random(70 if "axis" in keywords else n))
    np.save("m.npy", rng.random(70 if "axis" in keywords else n) < 0.8)
    keywords = {k: np.load(v) if str(v).endswith(".npy") else v for k, v in keywords.items()}
    for reduction in filter(None, REDUCTIONS):
        expected = kldiv_fast.kl(*pair(), reduction=reduction, **keywords)
        status, output, _ = main(capsys, "x.npy", "y.npy", "--reduction", reduction, *arguments)
        assert status == 0
        if np.ndim(expected):
            ends = re.findall(r"[\d.e+-]+\d", output.partition("rows ")[0])
            np.testing.assert_array_equal(np.array(ends[:3], expected.dtype), expected[:3])
        else:
            assert expected.dtype.type(shown(output)) == expected
        status, again, _ = main(
            capsys, "x.npy", "y.npy", "--reduction", reduction, *arguments, "--rows=rows.npy"
        )
        assert shown(again) == ("(rows kept)" if reduction == "none" else shown(output))
        rows = kldiv_fast.kl(*pair(), reduction="none", **keywords)
        np.testing.assert_array_equal(np.load("rows.npy"), rows, strict=True)


EMPTY = [(70_000_000, 0, 4), (0,), (0, 4), (3, 0), (0, 0), (2, 0, 3), (0, 2, 3)]


@pytest.mark.parametrize("shape", EMPTY, ids=str)
def test_nothing(files, capsys, shape):
    """Shapes without an element, whatever is their class axis, and whatever is asked for."""
    np.save("e.npy", np.empty(shape, np.float32))
    e = np.load("e.npy")
    axes = [-1, 0, *([1] if len(shape) > 2 else [])]
    for axis, reduction in itertools.product(axes, filter(None, REDUCTIONS)):
        rows = np.delete(shape, axis)
        if reduction == "none" and np.prod(rows) > 1000:
            continue
        status, output, _ = main(
            capsys, "e.npy", "e.npy", f"--axis={axis}", "--reduction", reduction
        )
        expected = kldiv_fast.kl(e, e, axis=axis, reduction=reduction)
        assert status == 0
        assert shown(output, "rows") == f"{np.prod(rows):,.0f}"
        assert shown(output, "classes") == f"{shape[axis]:,}"
        if reduction != "none":
            assert np.float32(shown(output)) == expected
        if np.prod(rows) < 1000:
            assert main(capsys, "e.npy", "e.npy", f"--axis={axis}", "--rows=r.npy")[0] == 0
            assert np.load("r.npy").shape == tuple(rows)


def test_ranks_that_differ(files, capsys):
    np.save("x.npy", np.full((3, 4, 1), 0.25, np.float32))
    np.save("y.npy", np.full((3, 4), 0.5, np.float32))
    status, output, _ = main(capsys, "x.npy", "y.npy")
    assert status == 0
    assert re.search(r"^rows +3\nclasses +4\n", output, re.MULTILINE)


# ---- options ----


@pytest.mark.parametrize("option", ["--axis", "--ax"])
@pytest.mark.parametrize("text", ["-1", "-2,-1", "-1,-2", "-1,0", "0,-1", "1"])
@pytest.mark.parametrize("joint", [" ", "="])
def test_axis(files, capsys, option, text, joint):
    status, output, _ = main(capsys, "x.npy", "y.npy", *f"{option}{joint}{text}".split())
    axis = tuple(map(int, text.split(",")))
    assert status == 0
    assert np.float32(shown(output)) == kldiv_fast.kl(*pair(), axis=axis)


BAD_VALUES = {
    "--axis": ["x", "", "1.5", "0,", "-1;-2", "-x", "(0,1)", "7", "-7", "0,0"],
    "--epsilon": ["x", "", "2", "-1", "-1e-3", "nan", "1,5"],
    "--num-threads": ["x", "", "0", "-1", "1.5"],
    "--reduction": ["avg", ""],
}


@pytest.mark.parametrize(
    ("option", "text"), [(option, text) for option in BAD_VALUES for text in BAD_VALUES[option]]
)
def test_bad_values_name_the_option_and_what_was_expected(files, capsys, option, text):
    line = error_of(capsys, "x.npy", "y.npy", f"{option}={text}")
    assert re.match(rf"(--)?{option[2:].replace('-', '[-_]')} is ", line)
    assert "expected" in line or "names an axis twice" in line
    assert not re.search(r"\b_\w", line)
    if re.match(r"-\d", text):
        assert error_of(capsys, "x.npy", "y.npy", option, text) == line


# ---- files that hold no array ----


def save_torch(path, rows, **options):
    torch = pytest.importorskip("torch")
    torch.save(torch.tensor(rows, requires_grad=True), path, **options)


def save_hdf5(path, rows):
    with pytest.importorskip("h5py").File(path, "w") as file:
        file["NAME"] = rows


def save_safetensors(path, rows):
    pytest.importorskip("safetensors.numpy").save_file({"NAME": rows}, path)


def frame(rows, names=None):
    pytest.importorskip("pyarrow")
    return pytest.importorskip("pandas").DataFrame(rows, columns=names)


def save_text(text):
    return lambda path, rows: Path(path).write_text(text(rows), encoding="utf-8")


def csv(rows, delimiter=","):
    return "".join(delimiter.join(map(repr, row)) + "\n" for row in rows.tolist())


def pandas_csv(rows, delimiter=","):
    names = delimiter.join(map(str, range(rows.shape[1])))
    lines = csv(rows, delimiter).splitlines()
    return f"{delimiter}{names}\n" + "".join(
        f"{i}{delimiter}{line}\n" for i, line in enumerate(lines)
    )


def follow(line, **names):
    """Do what the command has said that one should do in Python."""
    exec(line.partition("in Python: ")[2], names)  # noqa: S102


# What each is called, and how it comes to be. What is said of it makes an array of it.
READABLE = {
    "x.csv: a text file": save_text(csv),
    "x.npy: a text file": save_text(csv),
    "x.txt: a text file": lambda path, rows: np.savetxt(path, rows, header="1 2 3"),
    "x'y z.csv: a text file": save_text(lambda rows: "a;b;c\n" + csv(rows, ";")),
    "x.tsv: a text file": save_text(lambda rows: csv(rows, "\t")),
    "bom.csv: a text file": save_text(lambda rows: "\ufeff" + csv(rows)),
    "bom-names.csv: a text file": save_text(lambda rows: "\ufeffä,b,c\n" + csv(rows)),
    "pandas.csv: a text file": save_text(pandas_csv),
    "pandas.tsv: a text file": save_text(lambda rows: pandas_csv(rows, "\t")),
    "x.pt: a file of torch.save": save_torch,
    "old.pt: a file of torch.save": lambda path, rows: save_torch(
        path, rows, _use_new_zipfile_serialization=False
    ),
    "x.h5: an HDF5 file": save_hdf5,
    "x.npz: an HDF5 file": save_hdf5,
    "x.parquet: a Parquet file": lambda path, rows: frame(rows, list("abc")).to_parquet(path),
    "x.feather: an Arrow (Feather) file": lambda path, rows: frame(rows, list("abc")).to_feather(
        path
    ),
    "x.safetensors: a safetensors file": save_safetensors,
}


@pytest.mark.parametrize(("name", "save"), READABLE.items(), ids=READABLE)
def test_a_file_that_an_array_can_be_had_from(files, capsys, rng, name, save):
    path, what = name.split(": ")
    rows = rng.dirichlet(np.ones(3), 5)
    save(path, rows)
    for arguments in ([path, "y.npy"], ["x.npy", "y.npy", "--mask", path]):
        if path == "x.npy":
            arguments = [path, "y.npy"]
        line = error_of(capsys, *arguments)
        assert line.startswith(f"{path} is {what}")
        assert not re.search("pickle|unsafe|trust", line)
    before = Path(path).read_bytes()
    follow(line)
    assert Path(path).read_bytes() == before
    np.testing.assert_array_equal(np.load(f"{path}.npy"), rows)


def save_zip(names):
    def save(path):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, "text")

    return save


# What nothing is to be had from by a line that is safe, and what is said of it.
UNREADABLE = {
    "empty.npy": (lambda path: Path(path).touch(), "is empty"),
    "x.pkl": (lambda path: Path(path).write_bytes(pickle.dumps([1])), "is a pickle"),
    "objects.npy": (
        lambda path: np.save(path, np.array([[None]]), allow_pickle=True),
        "holds Python objects",
    ),
    "objects.npz": (lambda path: np.savez(path, a=np.array([{}])), "holds Python objects"),
    "page.html": (lambda path: Path(path).write_text("<html>\n<p>1"), "it begins with '<html>"),
    "pointer.npy": (
        lambda path: Path(path).write_text("version https://git-lfs.github.com\noid 1\n"),
        "it begins with 'version https://git-",
    ),
    "blank.csv": (lambda path: Path(path).write_text("\n\n"), "no table of numbers"),
    "words.csv": (lambda path: Path(path).write_text("a,b\nc,d\n"), "no table of numbers"),
}


@pytest.mark.parametrize(("name", "save", "what"), [(n, *v) for n, v in UNREADABLE.items()])
def test_a_file_that_must_be_written_again(files, capsys, name, save, what):
    save(name)
    line = error_of(capsys, name, "y.npy")
    assert line.startswith(name)
    assert what in line
    assert "allow_pickle" not in line
    follow(line, rows=[[0, 1], [0.5, 0.5]])
    np.testing.assert_array_equal(np.load(Path(name).with_suffix(".npy")), [[0, 1], [0.5, 0.5]])


def test_bare_numbers(files, capsys, rng):
    rows = rng.random((5, 3), dtype=np.float32)
    rows.tofile("raw.bin")
    line = error_of(capsys, "raw.bin", "y.npy")
    follow(line)
    np.testing.assert_array_equal(np.load("raw.bin.npy"), rows.ravel())


OTHERS = {
    "empty.zip": (save_zip([]), "a zip file without arrays"),
    "x.xlsx": (save_zip(["[Content_Types].xml"]), "without arrays ([Content_Types].xml)"),
    "text.npz": (save_zip(["a.npy"]), "text.npz:a.npy begins like a .npy file, but"),
    "folder": (os.mkdir, "expected a file"),
    "complex.npy": (lambda path: np.save(path, np.ones((60, 10), complex)), "y_true is of dtype"),
    "wide.npy": (lambda path: np.save(path, np.ones((60, 11))), "y_true has shape (60, 11)"),
    "missing.npy": (lambda path: None, "missing.npy can't be read: No such file"),
    "both.npz:z": (lambda path: None, "both.npz has no array 'z'; name one of both.npz:{x,y}"),
    "both.npz": (lambda path: None, "both.npz has 2 arrays; name one of both.npz:{x,y}"),
    "new\nline.npy": (lambda path: None, "new line.npy can't be read"),
}


@pytest.mark.parametrize(("name", "save", "what"), [(n, *v) for n, v in OTHERS.items()])
def test_other_inputs(files, capsys, name, save, what):
    save(name)
    assert what in error_of(capsys, name, "y.npy")


def test_one_file(files, capsys):
    assert "expected two" in error_of(capsys, "x.npy")


@posix
def test_a_pipe(files, capsys):
    os.mkfifo("pipe")
    assert "pipe is a folder, a pipe or a device" in error_of(capsys, "pipe", "y.npy")


def damaged(content, rng):
    """Cut off at every length near its ends, and changed anywhere."""
    for length in (*range(1, 140), *range(len(content) - 140, len(content))):
        yield content[:length]
    for _ in range(400):
        changed = bytearray(content)
        changed[rng.integers(min(128, len(content)))] = rng.integers(256)
        changed[rng.integers(len(content))] = rng.choice(list(b"\0 (),'{}9<O"))
        yield bytes(changed)


@pytest.mark.filterwarnings(
    "ignore:Reading `.npy` or `.npz` file required", "ignore:Data type alias"
)
@pytest.mark.parametrize("save", [np.save, np.savez, np.savez_compressed])
def test_damaged_files(tmp_path, rng, save):
    """Are read or refused in words that never speak of pickles that might be allowed."""
    buffer = io.BytesIO()
    save(buffer, rng.random((5, 6)))
    refused = 0
    for content in damaged(buffer.getvalue(), rng):
        path = tmp_path / "damaged"
        path.write_bytes(content)
        try:
            assert isinstance(_files.load(str(path)), np.ndarray)
        except _files.InputError as error:
            refused += 1
            assert "allow_pickle" not in str(error)
            path.unlink()  # a memory map may still look at the others
    assert refused > 280


# ---- what is written ----

INPUTS = {
    "Y_TRUE": ["in.npy", "y.npy"],
    "Y_PRED": ["x.npy", "in.npy"],
    "a member": ["x.npy", "in.npy:y"],
    "--mask": ["x.npy", "y.npy", "--mask", "in.npy"],
    "--sample-weight": ["x.npy", "y.npy", "--sample-weight", "in.npy"],
}
WAYS = {
    "path": lambda: "in.npy",
    "other path": lambda: os.path.join(".", "..", os.path.basename(os.getcwd()), "in.npy"),
    "absolute path": lambda: os.path.abspath("in.npy"),
    "hard link": lambda: os.link("in.npy", "alias.npy") or "alias.npy",
    "link": lambda: os.symlink("in.npy", "alias.npy") or "alias.npy",
    "link to a folder": lambda: os.symlink(".", "here") or os.path.join("here", "in.npy"),
}


@posix
@pytest.mark.parametrize(("called", "arguments"), INPUTS.items(), ids=INPUTS)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("swapped", [False, True], ids=["as output", "as input"])
def test_an_output_that_is_an_input(files, capsys, called, arguments, way, swapped):
    """Is refused before anything is read: a text would be refused in other words."""
    Path("in.npy").write_text("of no use to anybody but me")
    if called == "a member":
        os.rename("in.npy", "in.npz")
        os.symlink("in.npz", "in.npy")
        arguments = ["x.npy", "in.npz:y"]
    alias = way()
    if swapped and called != "a member":
        arguments, alias = [alias if word == "in.npy" else word for word in arguments], "in.npy"
    before = sorted(os.listdir())
    line = error_of(capsys, *arguments, "--rows", alias)
    expected = "Y_PRED" if called == "a member" else called
    assert line.startswith(f"--rows {alias} is the same file as {expected} ")
    assert Path("in.npy").read_text() == "of no use to anybody but me"
    assert sorted(os.listdir()) == before


def keep_rows(capsys, path):
    status, _, line = main(capsys, "x.npy", "y.npy", "--rows", path)
    assert (status, line) == (0, "")
    rows = kldiv_fast.kl(*pair(), reduction="none")
    np.testing.assert_array_equal(np.load(path), rows, strict=True)


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@posix
@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o027, 0o077])
def test_a_new_file_has_the_mode_that_open_gives(files, capsys, umask):
    before = os.umask(umask)
    try:
        keep_rows(capsys, "rows.npy")
        Path("opened").touch()
    finally:
        os.umask(before)
    assert mode("rows.npy") == mode("opened") == 0o666 & ~umask


@posix
@pytest.mark.parametrize("kept", [0o600, 0o640, 0o664, 0o666, 0o755])
def test_an_old_file_keeps_its_mode(files, capsys, kept):
    Path("rows.npy").write_text("old")
    os.chmod("rows.npy", kept)
    keep_rows(capsys, "rows.npy")
    assert mode("rows.npy") == kept


@posix
@pytest.mark.parametrize("old", [True, False], ids=["of a file", "of nothing"])
@pytest.mark.parametrize("links", [1, 2])
def test_a_link_is_followed(files, capsys, old, links):
    os.mkdir("folder")
    target = Path("folder", "target.npy")
    if old:
        target.write_text("old")
        target.chmod(0o640)
    os.symlink(target, "link1")
    os.symlink("link1", "link2")
    keep_rows(capsys, f"link{links}")
    assert os.readlink("link1") == str(target)
    assert os.readlink("link2") == "link1"
    assert not target.is_symlink()
    assert not old or mode(target) == 0o640
    assert os.listdir("folder") == ["target.npy"]


def test_a_long_name(files, capsys):
    keep_rows(capsys, "r" * 251 + ".npy")


REFUSED = {
    "missing folder": (lambda: os.path.join("no", "rows.npy"), "No such file"),
    "below a file": (lambda: os.path.join("x.npy", "rows.npy"), "Not a directory"),
    "folder": (lambda: os.mkdir("rows") or "rows", "expected a file"),
    "pipe": (lambda: os.mkfifo("rows") or "rows", "expected a file"),
    "device": (lambda: os.devnull, "expected a file"),
    "link to a device": (lambda: os.symlink(os.devnull, "rows") or "rows", "expected a file"),
    "link to itself": (lambda: os.symlink("rows", "rows") or "rows", "symbolic links"),
}


@posix
@pytest.mark.parametrize(("place", "reason"), REFUSED.values(), ids=REFUSED)
def test_rows_that_have_no_place(files, capsys, place, reason):
    path = place()
    before = sorted(os.listdir())
    line = error_of(capsys, "x.npy", "y.npy", "--rows", path)
    assert line.startswith("--rows ")
    assert reason in line
    assert sorted(os.listdir()) == before
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


@posix
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write anything")
@pytest.mark.parametrize("protected", ["rows.npy", "."])
def test_protected_rows(files, capsys, protected):
    Path("rows.npy").write_text("old")
    before = mode(protected)
    os.chmod(protected, before & ~0o222)
    line = error_of(capsys, "x.npy", "y.npy", "--rows=rows.npy")
    os.chmod(protected, before)
    assert line == "--rows rows.npy can't be written: Permission denied"
    assert Path("rows.npy").read_text() == "old"


ENDS = {
    "interrupt": (KeyboardInterrupt, 130),
    "no memory": (MemoryError, 2),
    "disk": (OSError(errno.EIO, "Input/output error"), 2),
    "bad value": (ValueError("x"), 2),
}


@pytest.mark.parametrize("old", [True, False], ids=["old rows", "no rows"])
@pytest.mark.parametrize(("failure", "expected"), ENDS.values(), ids=ENDS)
def test_nothing_is_left_of_rows_that_failed(files, capsys, monkeypatch, failure, expected, old):
    def compute(problem, out, progress=None):
        out[:3] = 1
        raise failure

    if old:
        Path("rows.npy").write_text("old")
    before = sorted(os.listdir())
    monkeypatch.setattr(_cli, "compute", compute)
    status, output, line = main(capsys, "x.npy", "y.npy", "--rows=rows.npy")
    assert (status, output, line.count("\n")) == (expected, "", 1)
    assert sorted(os.listdir()) == before
    assert not old or Path("rows.npy").read_text() == "old"


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs posix_fallocate")
@pytest.mark.parametrize("errors", [errno.ENOSPC, errno.EOPNOTSUPP])
def test_the_disk_has_room_or_the_rows_are_refused(files, capsys, monkeypatch, errors):
    """A memory map on a full disk is a SIGBUS. A file system that can't reserve is trusted."""

    def posix_fallocate(file, start, size):
        assert (start, size) == (0, 128 + 60 * 4)
        raise OSError(errors, os.strerror(errors))

    monkeypatch.setattr(os, "posix_fallocate", posix_fallocate)
    if errors == errno.EOPNOTSUPP:
        return keep_rows(capsys, "rows.npy")
    line = error_of(capsys, "x.npy", "y.npy", "--rows=rows.npy")
    assert line == "--rows rows.npy can't be written: No space left on device"
    assert not list(Path().glob("*rows*")) + list(Path().glob(".*"))


# ---- standard output and error ----


def end_of(command, redirection, environment):
    """Status and errors of a command whose output goes nowhere."""
    if redirection == "| no reader":
        reader, writer = os.pipe()
        os.close(reader)
        output = {"stdout": writer}
    else:
        command = f"{command} {redirection}"
        output = {}
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        **output,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | environment,
    )
    if output:
        os.close(writer)
    return done.returncode, done.stderr


FULL = pytest.param(
    ">/dev/full", marks=pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
)


@posix
@pytest.mark.parametrize("redirection", [FULL, ">&-", "| no reader"])
@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        ("x.npy y.npy", {"PYTHONUNBUFFERED": ""}),
        ("x.npy y.npy --reduction none", {"PYTHONUNBUFFERED": "1"}),
        ("x.npy y.npy --rows rows.npy", {"PYTHONUNBUFFERED": ""}),
        ("--help", {"PYTHONUNBUFFERED": ""}),  # argparse itself passes over what it can't write
        ("--version", {"PYTHONUNBUFFERED": ""}),
    ],
    ids=str,
)
def test_output_that_takes_nothing(files, arguments, environment, redirection):
    status, errors = end_of(f"{shlex.join(COMMAND)} {arguments}", redirection, environment)
    assert status == 1
    if redirection == "| no reader":
        assert errors == ""
    else:
        assert re.fullmatch(r"kldiv_fast: error: standard output .*\n", errors)


@posix
@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_errors_that_nobody_reads(files, redirection):
    if not os.path.exists("/dev/full") and "full" in redirection:
        pytest.skip("no /dev/full")
    for arguments, expected in (("x.npy none.npy", 2), ("x.npy y.npy", 0)):
        done = subprocess.run(
            ["/bin/sh", "-c", f"{shlex.join(COMMAND)} {arguments} {redirection}"],
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == expected
        assert done.stdout.startswith("value" if expected == 0 else "")
        assert "error" not in done.stdout


# ---- long calls ----

MINUTES = (160_000_000, 1000)  # of work: who ends within one was ended


def sparse(path, shape):
    """A file of zeros that takes no room on the disk."""
    np.lib.format.open_memmap(path, "w+", np.float32, shape).flush()


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


@posix
@pytest.mark.parametrize(
    ("number", "status", "said"),
    [(signal.SIGINT, 130, "kldiv_fast: interrupted\n"), (signal.SIGTERM, 143, "")],
)
def test_signals(files, number, status, said):
    sparse("big.npy", MINUTES)
    before = sorted(os.listdir())
    command = [*COMMAND, "big.npy", "big.npy", "--rows", "rows.npy"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list(Path().glob(".kldiv_fast-*")))
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(number)
    assert process.communicate(timeout=60)[1] == said
    assert process.returncode == status
    assert sorted(os.listdir()) == before


@posix
def test_progress_bar_on_a_terminal(files):
    pytest.importorskip("tqdm")
    import pty
    import select
    import termios

    sparse("big.npy", MINUTES)
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))  # a new terminal has no width, and a bar no room
    said = b""

    def is_shown():
        nonlocal said
        if select.select([ours], [], [], 0)[0]:
            said += os.read(ours, 65536)
        return re.search(rb"[1-9]\d*%\|.*[\d.]+[MG]/1\.28T.*B/s", said)

    try:
        process = subprocess.Popen([*COMMAND, "big.npy", "big.npy"], stderr=theirs)
        wait_for(is_shown)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        said = b""
        done = subprocess.run([*COMMAND, "x.npy", "y.npy"], stderr=theirs, check=True, timeout=60)
        assert done.returncode == 0
        is_shown()
        assert b"%" not in said  # a short call has no bar
    finally:
        os.close(theirs)
        os.close(ours)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_progress(reduction):
    """Is told as the part that is done, and what it raises ends the call."""
    view = np.broadcast_to(np.full(1000, 0.001, np.float32), (1_000_000, 1000))
    problem = prepare(view, view, OPERATIONS[0], {"reduction": reduction})
    parts = []
    value = compute(problem, None, lambda part: parts.append(part))
    np.testing.assert_array_equal(value, kldiv_fast.kl(view, view, reduction=reduction))
    assert parts
    assert parts == sorted(parts)
    assert all(0 <= part <= 1 for part in parts)

    class Enough(Exception):
        pass

    def stop(part):
        raise Enough

    with pytest.raises(Enough):
        compute(problem, None, stop)


# ---- without files ----


def test_demonstration():
    done = run()
    assert done.returncode == 0, done.stderr
    shown = re.findall(r"(0\.\d{8}) +(0\.\d{8})$", done.stdout, re.MULTILINE)
    assert len(shown) == 2
    for ours, published in shown:
        assert float(ours) == pytest.approx(float(published), abs=1e-7)
    assert "Speed" in done.stdout
    digits = "Handwritten digits, logistic regression"
    left_out = "Handwritten digits: left out, scikit-learn is missing"
    assert (digits if importlib.util.find_spec("sklearn") else left_out) in done.stdout


def run_digits():
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, EXAMPLE, "--check-keras", "--out", folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        return done, os.listdir(folder)


@pytest.mark.beside.with_args(run_digits)
def test_digits_example_agrees_with_keras(beside):
    pytest.importorskip("keras")
    done, files = beside.result()
    assert done.returncode == 0, done.stderr
    assert "labels.npy" in files
    assert "keras" in done.stdout
