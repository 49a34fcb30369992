"""The book: the notebooks, from their stored outputs, and the pages of docs/, as one site.

Sphinx reads from the repository's root, so a relative link that works on GitHub works in the book.
What the book needs beyond settings is in book.py.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "docs"))  # for book.py

# The one setting: where the repository lies, as https://github.com/OWNER/NAME. While it is empty,
# there are no links to Colab and Binder, and files outside the book are copied into it.
repository = os.environ.get("REPOSITORY", "").rstrip("/")
branch = "main"

project = "Parameter-free spatial attention for person re-identification"
author = "the reidsa-utils authors"
html_title = "Spatial attention for re-identification"
root_doc = "docs/index"
language = "en"
highlight_language = "none"  # of blocks that name none: commands of a shell

extensions = ["myst_nb", "sphinx_copybutton", "book"]
include_patterns = ["docs/*.md", "notebooks/**.ipynb"]
# Sphinx walks into every folder that is not excluded.
exclude_patterns = ["docs/_build", "docs/node_modules"]
exclude_patterns += [path.name for path in ROOT.iterdir() if path.name not in ("docs", "notebooks")]

nb_execution_mode = "off"
nb_ipywidgets_js = {}  # myst-nb would load them from another host; a slider needs a kernel
myst_enable_extensions = ["dollarmath", "amsmath", "html_image"]
myst_dmath_double_inline = True  # a formula of its own line inside a paragraph
myst_heading_anchors = 4

# Without a network: MathJax comes from npm (package.json), copied by book.py.
mathjax_path = "mathjax/tex-chtml.js"
# Its menu offers to load parts that are not copied.
mathjax3_config = {"options": {"enableMenu": False}}

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["book.css"]
html_js_files = ["book.js"]
html_sourcelink_suffix = ""  # a notebook's download keeps its name
html_context = {"default_mode": "auto"}  # light or dark as the reader's system is
html_theme_options = {
    "home_page_in_toc": True,
    "show_toc_level": 2,
    "use_fullscreen_button": False,
    "navbar_persistent": [],  # the sidebar has the search
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
if repository:
    html_theme_options |= {
        "repository_url": repository,
        "repository_branch": branch,
        "use_repository_button": True,
        "launch_buttons": {
            "colab_url": "https://colab.research.google.com",
            "binderhub_url": "https://mybinder.org",
            "notebook_interface": "jupyterlab",
        },
    }
