"""The book: the notebooks, from their stored outputs, and the pages of docs/, as one site.

Sphinx reads from the repository's root, so a relative link that works on GitHub works in the book.
"""

import html
import json
import os
import re
import shutil
import textwrap
from pathlib import Path

from docutils import nodes
from myst_parser.slugs import github_slugify
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

ROOT = Path(__file__).resolve().parents[1]

# The one setting: where the repository lies, as https://github.com/OWNER/NAME. While it is empty,
# there are no links to Colab and Binder, and files outside the book are copied into it.
REPOSITORY = os.environ.get("REPOSITORY", "").rstrip("/")
BRANCH = "main"

project = "Parameter-free spatial attention for person re-identification"
author = "the reidsa-utils authors"
html_title = "Spatial attention for re-identification"
root_doc = "docs/index"
language = "en"

extensions = ["myst_nb", "sphinx_copybutton"]
include_patterns = ["docs/*.md", "notebooks/**.ipynb"]
# Sphinx walks into every folder that is not excluded.
exclude_patterns = ["docs/_build", "docs/node_modules"]
exclude_patterns += [path.name for path in ROOT.iterdir() if path.name not in ("docs", "notebooks")]

nb_execution_mode = "off"
nb_ipywidgets_js = {}  # myst-nb would load the widgets from another host
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_dmath_double_inline = True  # a formula of its own line inside a paragraph
myst_heading_anchors = 4

# Without a network: MathJax comes from npm (package.json), copied by finish() below.
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
if REPOSITORY:
    html_theme_options |= {
        "repository_url": REPOSITORY,
        "repository_branch": BRANCH,
        "use_repository_button": True,
        "launch_buttons": {
            "colab_url": "https://colab.research.google.com",
            "binderhub_url": "https://mybinder.org",
            "notebook_interface": "jupyterlab",
        },
    }


# The chapters of the book, by the files that are there.
CHAPTERS = {
    "About": "docs/*.md",
    "Notebooks": "notebooks/*.ipynb",
    "Appendix": "notebooks/appendix/*.ipynb",
    "Answers": "notebooks/answers/*.ipynb",
}
FIRST = ["docs/reading_order.md", "docs/ledger.md"]
ON_OTHER_MACHINES = """
## Without an installation

The rocket at the top of a notebook's page opens it in Binder or in Colab. Binder takes minutes
to start, and is slow. Colab knows only the notebook: run this in a new cell before the first one.

```
!git clone --depth 1 {repository} /content/repository
%cd /content/repository/notebooks
%pip install --quiet ..
import sys; sys.path.insert(0, "/content/repository")
```
"""


def contents() -> str:
    """The table of contents, in Markdown."""
    lines = []
    for caption, pattern in CHAPTERS.items():
        found = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern))
        pages = [page for page in FIRST if page in found]
        pages += [page for page in found if page not in [*FIRST, f"{root_doc}.md"]]
        if pages:
            lines += ["```{toctree}", ":hidden:", f":caption: {caption}"]
            lines += [f"/{page}" for page in pages] + ["```", ""]
    return "\n".join(lines)


def plain(text: str) -> str:
    """Text as Markdown that shows it letter by letter."""
    return re.sub(r"([\\`*_{}\[\]<>$#|~])", r"\\\1", text)


def reading_order() -> str:
    """The notebooks as a list in Markdown, from what each says about itself at its top."""
    lines = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        opening = "".join(json.loads(path.read_text())["cells"][0]["source"])
        title, *paragraphs = opening.split("\n\n")
        lines += [f"## [{title.lstrip('# ')}](../notebooks/{path.name})", ""]
        lines += [f"{text}\n" for text in paragraphs if re.match(r"\*\*(You|Takes)", text)]
        answers = path.parent / "answers" / path.name
        if answers.exists():
            lines += [f"[Answers](../notebooks/answers/{path.name}) to its questions\n"]
    if REPOSITORY:
        lines.append(ON_OTHER_MACHINES.format(repository=REPOSITORY))
    return "\n".join(lines)


def evidence_link(evidence: str) -> str:
    """A piece of a claim's evidence as Markdown: links to a heading, to a test, or to records."""
    if evidence.startswith("tests/"):
        return f"the test [{plain(evidence)}](../{evidence.partition('::')[0]})"
    if evidence.startswith("results/"):
        records = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob(evidence))
        links = "\n".join(f"    - [{plain(Path(record).name)}](../{record})" for record in records)
        summary = f"<summary>Records ({len(records)}): {html.escape(evidence)}</summary>"
        return f"<details>{summary}\n\n{links}\n\n    </details>"
    name, _, heading = evidence.partition("#")
    slug = github_slugify(re.sub(r"\$[^$]*\$", "", heading))
    return f"notebook [{name[:2]}, {heading}](../notebooks/{name}.ipynb#{slug})"


def ledger() -> str:
    """The claims of the paper with their verdicts, as Markdown."""
    from reidsa_utils.experiments.claims import read_claims, verdicts  # seconds: it loads torch

    claims = read_claims()
    counts = [f"{count} {verdict}" for verdict, count in verdicts(claims).items()]
    lines = [f"{len(claims)} claims: {', '.join(counts)}.", ""]
    lines += ["| | the paper says | verdict |", "|---|---|---|"]
    for place, claim in enumerate(claims, start=1):
        lines.append(
            f"| {place} | [{plain(claim['claim'])}](#{claim['id']}) | {claim['verdict']} |"
        )
    lines += ["", "## One by one"]
    for place, claim in enumerate(claims, start=1):
        on = f", on {claim['on']} data" if claim["on"] else ""
        lines += [
            "",
            f"({claim['id']})=",
            f"### {place} · {plain(claim['claim'])}",
            "",
            f"**{claim['verdict'].capitalize()}**{on} (paper: {plain(claim['place'])}).",
            "",
            f"- Tested by: {plain(claim['test'])}",
            f"- Found: {plain(claim['found'])}",
        ]
        if claim["evidence"]:
            lines.append("- Evidence:")
        lines += [f"  - {evidence_link(evidence)}" for evidence in claim["evidence"]]
    return "\n".join(lines)


# Pages that end in what the repository holds when the book is built.
MADE = {root_doc: contents, "docs/reading_order": reading_order, "docs/ledger": ledger}


def add_made_part(app, docname, source):
    if docname in MADE:
        source[0] += "\n" + MADE[docname]() + "\n"


class RepositoryLinks(SphinxTransform):
    """Links to files that are no page of the book.

    They lead into the repository where its address is set. Elsewhere Sphinx copies the file into
    the book, and a folder is only named.
    """

    default_priority = 500

    def apply(self):
        links = list(self.document.findall(addnodes.pending_xref))
        links += list(self.document.findall(addnodes.download_reference))
        for link in links:
            target = link["reftarget"].partition("#")[0]
            if link["reftype"] == "myst" and target and target not in self.env.found_docs:
                self.lead_out(link, target)

    def lead_out(self, link, target):
        if link.get("refdomain") == "doc":
            target = f"/{target}.md"
        path, full_path = self.env.relfn2path(target)
        full_path = Path(full_path)
        if not full_path.exists():
            return  # Sphinx warns
        if REPOSITORY:
            kind = "tree" if full_path.is_dir() else "blob"
            new = nodes.reference(refuri=f"{REPOSITORY}/{kind}/{BRANCH}/{path}")
        elif full_path.is_dir():
            new = nodes.inline()
        else:
            new = addnodes.download_reference(reftarget="/" + path, refdoc=self.env.docname)
        new += link.children
        link.replace_self(new)


class AsInJupyter(SphinxTransform):
    """What a notebook shows and a page would not: formulas as written, folds, pictures in words."""

    default_priority = 500

    def apply(self):
        for formula in self.document.findall(nodes.math_block):
            # Otherwise Sphinx splits a formula at each \\, and \tag then fails.
            formula["classes"].append("amsmath")
        for output in self.document.findall(nodes.raw):
            if "text_html" in output["classes"]:
                formula = r'<span class="math notranslate nohighlight">\\(\1\\)</span>'
                output[0] = nodes.Text(re.sub(r"\$([^$<>\n]+)\$", formula, output.astext()))
        for cell in list(self.document.findall(nodes.container)):
            if cell.get("nb_element") == "mime_bundle":
                # A widget needs a kernel; its text would be the name of a class.
                if any("widget-view" in output["mime_type"] for output in cell.children):
                    cell.parent.remove(cell)
            elif cell.get("nb_element") == "cell_code":
                hidden = cell["cell_metadata"].get("jupyter", {}).get("source_hidden")
                if hidden and "hide_mode" not in cell:
                    cell["hide_mode"] = "input"
                    cell["prompt_show"] = self.config.nb_code_prompt_show
                    cell["prompt_hide"] = self.config.nb_code_prompt_hide
                for image in cell.findall(nodes.image):
                    image.setdefault("alt", describe(cell))


def describe(cell) -> str:
    """What a screen reader says for the pictures of a cell: the caption below, or the section.

    Another text stands in the cell's metadata: {"mystnb": {"image": {"alt": "..."}}}.
    """
    below = cell.next_node(descend=False, siblings=True)
    if isinstance(below, nodes.paragraph) and isinstance(below[0], nodes.emphasis):
        caption = re.sub(r"\\([a-zA-Z]+)", r"\1 ", below.astext())  # \lambda: lambda
        return textwrap.shorten(re.sub(r"[\\{}]", "", caption), 300, placeholder=" …")
    section = cell.parent
    return f"Picture in the section {section[0].astext()!r}"


def finish(app, error):
    """MathJax, and a first page at the top of the site."""
    if error:
        return
    mathjax = ROOT / "docs" / "node_modules" / "mathjax" / "es5"
    static = Path(app.outdir) / "_static" / "mathjax"
    static.mkdir(parents=True, exist_ok=True)
    shutil.copy(mathjax / "tex-chtml.js", static)
    fonts = "output/chtml/fonts/woff-v2"
    shutil.copytree(mathjax / fonts, static / fonts, dirs_exist_ok=True)
    first_page = f"{root_doc}.html"
    (Path(app.outdir) / "index.html").write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta http-equiv="refresh" content="0; url={first_page}">'
        f'<title>{html_title}</title><a href="{first_page}">{html_title}</a></html>\n'
    )


def setup(app):
    app.connect("source-read", add_made_part)
    app.add_transform(RepositoryLinks)
    app.add_transform(AsInJupyter)
    app.connect("build-finished", finish)
