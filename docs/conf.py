"""Sphinx's settings for the site: `sphinx-build -W -b html docs docs/_build`.

The build draws its own pictures (pictures.py), imports the package and its adapters for the reference, and fails on
any warning, any broken link between its pages (links.py) and any adapter whose framework is missing.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # as in the tests
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import kldiv_fast

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import pictures

pictures.write(HERE / "_pictures")

project = "kldiv_fast"
author = "The kldiv_fast developers"
project_copyright = author
version = release = kldiv_fast.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc", "sphinx_copybutton", "links"]
exclude_patterns = ["_build", "_pictures"]
nitpicky = True

myst_enable_extensions = ["attrs_block", "substitution"]
myst_substitutions = pictures.CONSTANTS
myst_heading_anchors = 3
autodoc_member_order = "bysource"  # of a module: as in its __all__
autodoc_typehints = "none"
numpydoc_show_class_members = False
copybutton_exclude = ".linenos, .gp, .go"  # what is copied is code: no prompts, no output

html_theme = "pydata_sphinx_theme"
html_title = f"kldiv_fast {version}"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
templates_path = ["_templates"]
html_sidebars = {"**": ["pages.html"]}
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "navbar_center": [],
    "navbar_persistent": [],
    "navbar_end": ["search-button", "theme-switcher", "navbar-icon-links"],
    "logo": {"text": "kldiv_fast", "image_light": html_favicon, "image_dark": html_favicon},
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": True,
}
# The forge says it to what it runs; a site that is built elsewhere has no link to a repository.
if repository := os.environ.get("GITHUB_REPOSITORY"):
    html_theme_options["github_url"] = f"{os.environ['GITHUB_SERVER_URL']}/{repository}"


def summarise_module(app, what, name, obj, options, lines):
    """Of a module's docstring the first paragraph is for readers; the rest is for those who read the source."""
    if what == "module" and "" in lines:
        del lines[lines.index("") + 1 :]


def setup(app):
    app.connect("autodoc-process-docstring", summarise_module, priority=1)
