"""Every example of the site, the README and the reference runs: `>>>` blocks as doctests, `$` blocks as commands.

A page's section, from one second-level heading to the next, is one example: it stands on its own. It is left out where
a package that it imports is missing.
"""

import doctest
import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import kldiv_fast
import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
OPTIONS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
LANGUAGES = {"pycon", "console"}  # of what runs
SHOWN = {"sh", "text", "c", "c++", "cmake"}  # of what is only read


def fences(text):
    """(language, content, line) of every code block."""
    for match in re.finditer(r"^(```+|~~~+)([^\n]*)\n(.*?)^\1", text, re.MULTILINE | re.DOTALL):
        yield match[2].strip(), match[3], text.count("\n", 0, match.start()) + 1


def sections():
    """(title, line, text) of every section that has an example."""
    for page in PAGES:
        line = 1
        for text in re.split(r"^(?=## )", page.read_text(), flags=re.MULTILINE):
            title = text.splitlines()[0].lstrip("# ") if text.startswith("#") else ""
            if any(language in LANGUAGES for language, _, _ in fences(text)):
                yield pytest.param(page, line, text, id=f"{page.name}: {title}")
            line += text.count("\n")


def require_imports(code):
    for name in re.findall(r"^>>> (?:import|from) (\w+)", code, re.MULTILINE):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}")


def check_doctest(code, names, where, line):
    test = doctest.DocTestParser().get_doctest(code, names, where, where, line)
    report = []
    runner = doctest.DocTestRunner(optionflags=OPTIONS, verbose=False)
    runner.run(test, out=report.append, clear_globs=False)
    assert runner.failures == 0, "".join(report)
    names.update(test.globs)


def check_commands(text, folder):
    """Each line `$ command`, run, prints what follows it."""
    for command, wanted in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
        words = shlex.split(command)
        assert words[0] == "python", f"an example may only run python: {command}"
        done = subprocess.run(
            [sys.executable, *words[1:]],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        printed = done.stdout + done.stderr
        assert doctest.OutputChecker().check_output(wanted, printed, OPTIONS), printed


@pytest.mark.parametrize(("page", "line", "text"), list(sections()))
def test_examples(page, line, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    require_imports(text)
    names = {}
    for language, content, offset in fences(text):
        if language == "pycon":
            check_doctest(content, names, page.name, line + offset)
        elif language == "console":
            check_commands(content, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_code_that_does_not_run(page):
    """Code is `pycon`, `console`, one of the languages that are only read, or a directive."""
    for language, _, line in fences(page.read_text()):
        known = language in LANGUAGES | SHOWN or language.startswith("{")
        assert known, f"{page.name}:{line}: a block of {language or 'no language'}"


def slug(heading):
    """The anchor that GitHub and MyST give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_links_of_the_readme():
    """The site's own are checked by its build."""
    text = (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        assert (ROOT / path).is_file(), target
        headings = (
            re.findall(r"^#+ (.*)", (ROOT / path).read_text(), re.MULTILINE) if anchor else []
        )
        assert not anchor or anchor in map(slug, headings), target


# ---- the reference ----


def reference():
    """The full names that api.rst documents."""
    return re.findall(r"^\.\. auto\w+:: (\S+)", (DOCS / "api.rst").read_text(), re.MULTILINE)


def find(name):
    """The object of that full name; skips where its adapter's framework is missing."""
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        pytest.skip(str(error))


def test_the_reference_has_every_public_name():
    assert {f"kldiv_fast.{name}" for name in kldiv_fast.__all__} <= set(reference())


@pytest.mark.parametrize("name", reference())
def test_examples_of_the_reference(name):
    documented = find(name)
    assert documented.__doc__, f"{name} has no docstring"
    finder = doctest.DocTestFinder(recurse=True, exclude_empty=True)
    for test in finder.find(documented, name, module=False, globs={}):
        check_doctest(test.docstring, {}, test.name, test.lineno or 0)
