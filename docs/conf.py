import inspect

import avslib

project = "avslib"
author = "The avslib developers"
copyright = author
version = release = avslib.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "myst_parser",
]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
exclude_patterns = ["_build"]

default_role = "py:obj"
autosummary_generate = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
autodoc_default_options = {"members": True, "imported-members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False

# Names of other projects are not looked up: the build needs no network.
nitpick_ignore_regex = [("py:.*", r"(?!avslib\.).*"), ("py:.*", r"avslib\..*\._.*")]

html_theme = "pydata_sphinx_theme"
html_title = "avslib"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_theme_options = {
    "show_prev_next": False,
    "navbar_align": "left",
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_show_sourcelink = False
html_sidebars = {
    page: []
    for page in (
        "data",
        "models",
        "metrics",
        "results",
        "performance",
        "paper_tables",
        "paper",
        "changelog",
    )
}


def summarise(app, what, name, obj, options, lines):
    """Begin the page of a package with a table of its classes and functions."""
    if what == "module" and hasattr(obj, "__all__"):
        names = [key for key in obj.__all__ if callable(getattr(obj, key))]
        names.sort(key=lambda key: not inspect.isclass(getattr(obj, key)))
        lines += ["", ".. autosummary::", "   :nosignatures:", "", *(f"   {key}" for key in names), ""]


def setup(app):
    app.connect("autodoc-process-docstring", summarise)
