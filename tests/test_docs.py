"""Every example of the site, the README and the reference runs: `>>>` blocks as doctests, `$` blocks as commands.

A page's section, from one second-level heading to the next, is one example: it stands on its own. It is left out where
a package that it imports is missing.
"""

import ast
import doctest
import importlib
import importlib.util
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
READMES = [ROOT / "README.md", *sorted((ROOT / "examples").rglob("README.md"))]
OPTIONS = doctest.ELLIPSIS
LANGUAGES = {"pycon", "console"}  # of what runs
SHOWN = {"sh", "text", "python", "c", "c++", "cmake"}  # of what is only read


def fences(text):
    """(language, content, line) of every code block."""
    for match in re.finditer(r"^(```+|~~~+)([^\n]*)\n(.*?)^\1", text, re.MULTILINE | re.DOTALL):
        yield match[2].strip(), match[3], text.count("\n", 0, match.start()) + 1


def sections():
    """(page, line, text) of every section that has an example."""
    for page in PAGES:
        line = 1
        for text in re.split(r"^(?=## )", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
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
    for language, _, line in fences(page.read_text(encoding="utf-8")):
        known = language in LANGUAGES | SHOWN or language.startswith("{")
        assert known, f"{page.name}:{line}: a block of {language or 'no language'}"


def slug(heading):
    """The anchor that GitHub and MyST give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.parent.name)
def test_links_of_the_readmes(page):
    """The site's own are checked by its build."""
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        assert (page.parent / path).is_file(), target
        headings = (
            re.findall(r"^#+ (.*)", (page.parent / path).read_text(encoding="utf-8"), re.MULTILINE)
            if anchor
            else []
        )
        assert not anchor or anchor in map(slug, headings), target


def test_addresses_for_pypi():
    """Every link holds on a page that is not the repository's, and leads to the file that it names here."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    if "[project.urls]" in text:
        pytest.skip("this checkout has been given them: it is there to be published")
    tool = runpy.run_path(str(ROOT / "tools" / "addresses.py"))
    files = "https://example.org/owner/name/blob/0123"
    here = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"\]\(([^)]+)\)", tool["absolute_links"](here, files))
    relative = re.findall(r"\]\((?!https?:|#)([^)]+)\)", here)
    assert relative and {f"{files}/{target}" for target in relative} <= set(found)
    assert all(target.startswith(("https://", "#")) for target in found)

    before = tomllib.loads(text)
    after = tomllib.loads(tool["with_urls"](text, "https://example.org/owner/name", files))
    urls = after["project"].pop("urls")
    assert after == before
    assert urls["Source"] == "https://example.org/owner/name"
    for name in ("Documentation", "Changelog"):
        assert (ROOT / urls[name].removeprefix(f"{files}/")).is_file()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name
)
def test_an_example_says_what_it_shows(path):
    """In three lines at its head, of which the page of examples has the first."""
    head, _ = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).split("\n\n    python")
    first, blank, *others = head.splitlines()
    assert (blank, len(others)) == ("", 2)
    page = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    assert f"| [{path.name}]({path.name}) | {first.removesuffix('.')} |" in page
    for picture in re.findall(r"docs/\w+\.png", head):
        assert (ROOT / picture).is_file()
        assert f"(../{picture})" in page


def test_the_version_is_the_change_log_s():
    found = [
        re.search(pattern, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)[1]
        for name, pattern in (
            ("CHANGELOG.md", r"^## (\S+)"),
            ("CITATION.cff", r"^version: (\S+)"),
            ("pyproject.toml", r'^version = "(\S+)"'),
        )
    ]
    assert len(set(found)) == 1, found


def test_the_first_screen_has_the_results_figures():
    subprocess.run([sys.executable, ROOT / "tools" / "first_screen.py", "--check"], check=True)


def test_the_page_on_speed_has_the_results_figures():
    subprocess.run([sys.executable, ROOT / "benchmarks" / "page.py", "--check"], check=True)


def test_the_check_of_the_sites_links(tmp_path):
    broken_links = runpy.run_path(str(DOCS / "links.py"))["broken_links"]
    (tmp_path / "a.html").write_text('<p id="one"><a href="b.html#two">b</a><a href="#one">a</a>')
    (tmp_path / "b.html").write_text('<p id="two"><a href="https://c.example/#three">c</a>')
    assert broken_links(tmp_path) == []
    (tmp_path / "b.html").write_text('<p id="2"><a href="c.html">c</a><img src="d.svg">')
    assert broken_links(tmp_path) == [
        "a.html: b.html#two",
        "b.html: c.html",
        "b.html: d.svg",
    ]


# ---- the reference ----


def reference():
    """The modules whose public names api.rst documents."""
    return re.findall(
        r"^\.\. automodule:: (\S+)", (DOCS / "api.rst").read_text(encoding="utf-8"), re.MULTILINE
    )


@pytest.mark.parametrize("name", reference())
def test_examples_of_the_reference(name):
    framework = name.removeprefix("kldiv_fast.")  # an adapter is named after it
    optional = ("keras", "torch", "jax", "dask")
    if framework in optional and importlib.util.find_spec(framework) is None:
        pytest.skip(f"{name}'s framework is missing")
    module = importlib.import_module(name)
    for public in module.__all__:
        documented = getattr(module, public)
        assert documented.__doc__, f"{name}.{public} has no docstring"
        for test in doctest.DocTestFinder().find(documented, f"{name}.{public}", False, {}):
            check_doctest(test.docstring, {}, test.name, test.lineno or 0)
