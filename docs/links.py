"""The check that no link between the built site's pages is broken. A Sphinx extension: conf.py names it, and the build
fails with what it finds. Links that leave the site are not looked at.
"""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """What a page can be linked by (ids) and what it links to."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.targets = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id" or (name == "name" and tag == "a"):
                self.ids.add(value)
            if name in ("href", "src") and value:
                self.targets.append(value)


def broken_links(folder):
    """Each link of the pages in `folder` that leads nowhere, as 'page: target'."""
    folder = folder.resolve()
    # What lies in _static is the theme's, a template among it.
    paths = [path for path in sorted(folder.rglob("*.html")) if "_static" not in path.parts]
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in paths}
    broken = []
    for path, page in pages.items():
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = path.parent / unquote(parts.path) if parts.path else path
            file = Path(file, "index.html") if file.is_dir() else file
            anchor = unquote(parts.fragment)
            known = not anchor or file.resolve() not in pages or anchor in pages[file.resolve()].ids
            if not file.is_file() or not known:
                broken.append(f"{path.relative_to(folder)}: {target}")
    return broken


def _check(app, exception):
    broken = broken_links(Path(app.outdir)) if exception is None else []
    if broken and app.builder.format == "html":
        from sphinx.errors import SphinxError  # here, so that the check itself needs no Sphinx

        raise SphinxError("broken links:\n" + "\n".join(broken))


def setup(app):
    app.connect("build-finished", _check)
    return {"parallel_read_safe": True}
