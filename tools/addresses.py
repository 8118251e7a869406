"""Put the repository's address into README.md's links and the metadata, before a sdist or a wheel is built to be published.

python tools/addresses.py https://github.com/OWNER/NAME COMMIT

In the repository links are relative, and hold in every fork and clone; a page of PyPI has nothing that they could be relative
to. The forge knows its address, and what builds there runs this in its checkout, which is then thrown away.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def absolute_links(text, files):
    """Markdown whose relative links begin with `files`."""
    return re.sub(r"\]\((?!https?:|#)", f"]({files}/", text)


def with_urls(text, repository, files):
    """pyproject.toml with its `[project.urls]`."""
    urls = {
        "Documentation": f"{files}/docs/guide.md",
        "Source": repository,
        "Issues": f"{repository}/issues",
        "Changelog": f"{files}/CHANGELOG.md",
    }
    lines = ["[project.urls]", *(f'{name} = "{url}"' for name, url in urls.items()), "", ""]
    before, scripts, after = text.partition("[project.scripts]\n")
    return before + "\n".join(lines) + scripts + after


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    repository, commit = sys.argv[1:]
    files = f"{repository}/blob/{commit}"
    readme, project = ROOT / "README.md", ROOT / "pyproject.toml"
    readme.write_text(absolute_links(readme.read_text(encoding="utf-8"), files), encoding="utf-8")
    text = with_urls(project.read_text(encoding="utf-8"), repository, files)
    project.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
