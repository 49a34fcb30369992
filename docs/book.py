"""The book's own part of Sphinx: pages made from the repository, and cells as in Jupyter."""

import html
import json
import re
import shutil
import textwrap
from pathlib import Path

from docutils import nodes
from myst_parser.slugs import github_slugify
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

ROOT = Path(__file__).resolve().parents[1]

# The chapters of the book, by the files that are there; and the pages that come first.
CHAPTERS = {
    "Guide": "docs/*.md",
    "Notebooks": "notebooks/*.ipynb",
    "Appendix": "notebooks/appendix/*.ipynb",
    "Answers": "notebooks/answers/*.ipynb",
}
FIRST = ["reading_order", "glossary", "setup", "results", "ledger", "own_attention", "teaching"]
FIRST += ["batches", "data"]
FIRST = [f"docs/{name}.md" for name in FIRST]

EXPLORER = ROOT / "build" / "explorer"  # what `make explorer` writes

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


def contents(config) -> str:
    """The table of contents, in Markdown."""
    lines = []
    for caption, pattern in CHAPTERS.items():
        found = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern))
        pages = [page for page in FIRST if page in found]
        pages += [page for page in found if page not in [*FIRST, f"{config.root_doc}.md"]]
        if pages:
            lines += ["```{toctree}", ":hidden:", f":caption: {caption}"]
            lines += [f"/{page}" for page in pages] + ["```", ""]
    return "\n".join(lines)


def reading_order(config) -> str:
    """The notebooks in Markdown, each with what it says about itself at its top."""
    lines = []
    for pattern in (CHAPTERS["Notebooks"], CHAPTERS["Appendix"]):
        for path in sorted(ROOT.glob(pattern)):
            folder = f"../{path.parent.relative_to(ROOT).as_posix()}/"
            notebook = json.loads(path.read_text(encoding="utf-8"))
            opening = "".join(notebook["cells"][0]["source"])
            title, *paragraphs = re.split(r"\n\n|\n(?=\*\*)", opening)
            lines += [f"## [{title.lstrip('# ')}]({folder}{path.name})", ""]
            for paragraph in paragraphs:
                if re.match(r"\*\*(You|Takes)", paragraph):
                    # Its links start from the notebook's folder.
                    lines += [re.sub(r"\]\((?!\w+:|[#/])", f"]({folder}", paragraph), ""]
            if (path.parent / "answers" / path.name).exists():
                lines += [f"[Answers]({folder}answers/{path.name}) to its questions", ""]
    if config.repository:
        lines.append(ON_OTHER_MACHINES.format(repository=config.repository))
    return "\n".join(lines)


def plain(text: str) -> str:
    """Text as Markdown that shows it letter by letter."""
    return re.sub(r"([\\`*_{}\[\]<>$#|~])", r"\\\1", text)


def evidence_link(evidence: str) -> str:
    """A piece of a claim's evidence as Markdown: links to where it is."""
    if evidence.startswith("https://"):
        return f"[{plain(evidence)}]({evidence})"
    if evidence.startswith("tests/"):
        return f"the test [{plain(evidence)}](../{evidence.partition('::')[0]})"
    if evidence.startswith("results/"):
        records = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob(evidence))
        links = "\n".join(f"    - [{plain(Path(record).name)}](../{record})" for record in records)
        summary = f"<summary>Records ({len(records)}): {html.escape(evidence)}</summary>"
        return f"<details>{summary}\n\n{links}\n\n    </details>"
    name, _, heading = evidence.partition("#")
    slug = github_slugify(re.sub(r"\$[^$]*\$", "", heading))
    return f"notebook [{plain(name)}: {heading}](../notebooks/{name}.ipynb#{slug})"


def ledger(config) -> str:
    """The claims of the paper with their verdicts, as Markdown."""
    from reidsa_utils.experiments.claims import read_claims, verdicts  # seconds: it loads torch

    claims = read_claims()
    counts = [f"{count} {verdict}" for verdict, count in verdicts(claims).items()]
    lines = [f"{len(claims)} claims: {', '.join(counts)}.", ""]
    lines += ["| | the paper says | verdict |", "|---|---|---|"]
    for place, claim in enumerate(claims, start=1):
        link = f"[{plain(claim['claim'])}](#{claim['id']})"
        lines.append(f"| {place} | {link} | {claim['verdict']} |")
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


def exercises(config) -> str:
    """The exercises of the notebooks with the mistakes that their checks know, as Markdown."""
    from reidsa_utils.course.check import EXERCISES  # seconds: it loads torch

    lines = []
    for exercise in EXERCISES:
        page = f"../notebooks/{exercise.notebook}.ipynb"
        lines += [
            f"### {plain(exercise.notebook[:2])} · {plain(exercise.title)}",
            "",
            f"[Notebook]({page}), {exercise.level}, {exercise.minutes} minutes.",
            "",
        ]
        lines += [f"- {plain(mistake)}" for mistake in exercise.known_mistakes()] + [""]
    return "\n".join(lines)


def has_explorer() -> bool:
    """Whether the explorer's page has been made; one of real people stays out of the book."""
    return (EXPLORER / "index.html").is_file() and not (EXPLORER / ".gitignore").exists()


def explorer(config) -> str:
    """A link to the explorer's page, where it has been made."""
    if not has_explorer():
        return ""
    return '## The page\n\n<a href="../explorer/index.html">Open the explorer.</a>'


# Pages that end in what the repository holds when the book is built.
MADE = {
    "docs/index": contents,
    "docs/reading_order": reading_order,
    "docs/ledger": ledger,
    "docs/explorer": explorer,
    "docs/teaching": exercises,
}


def add_made_part(app, docname, source):
    if docname in MADE:
        source[0] += "\n" + MADE[docname](app.config) + "\n"


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
        if self.config.repository:
            kind = "tree" if full_path.is_dir() else "blob"
            address = f"{self.config.repository}/{kind}/{self.config.branch}/{path}"
            new = nodes.reference(refuri=address)
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
        for cell in self.document.findall(nodes.container):
            if cell.get("nb_element") != "cell_code":
                continue
            if cell["cell_metadata"].get("jupyter", {}).get("source_hidden"):
                cell["hide_mode"] = "input"
                cell["prompt_show"] = self.config.nb_code_prompt_show
                cell["prompt_hide"] = self.config.nb_code_prompt_hide
            for image in cell.findall(nodes.image):
                image.setdefault("alt", describe(cell))


def describe(cell) -> str:
    """What a screen reader says for the pictures of a cell: the caption below, or the section.

    A caption is a paragraph in italics, or one that says what to look for. Another text stands in
    the cell's metadata: {"mystnb": {"image": {"alt": "..."}}}.
    """
    below = cell.next_node(descend=False, siblings=True)
    if is_caption(below):
        words = below.astext()
    else:
        title = cell.parent.next_node(nodes.title)
        words = f"Picture in the section {title.astext()}" if title else "Picture"
    words = re.sub(r"<!--.*?-->", "", words)  # marks of numbers
    words = re.sub(r"\\([a-zA-Z]+)", r"\1 ", words)  # \lambda: lambda
    return textwrap.shorten(re.sub(r"[\\{}]", "", words), 300, placeholder=" …")


def is_caption(node) -> bool:
    if not isinstance(node, nodes.paragraph):
        return False
    in_italics = len(node.children) == 1 and isinstance(node[0], nodes.emphasis)
    return in_italics or node.astext().startswith("What to look for")


def finish(app, error):
    """MathJax, the explorer, and a first page at the top of the site."""
    if error:
        return
    site = Path(app.outdir)
    mathjax = ROOT / "docs" / "node_modules" / "mathjax" / "es5"
    fonts = "output/chtml/fonts/woff-v2"
    shutil.copytree(mathjax / fonts, site / "_static" / "mathjax" / fonts, dirs_exist_ok=True)
    shutil.copy(mathjax / "tex-chtml.js", site / "_static" / "mathjax")
    if has_explorer():
        shutil.copytree(EXPLORER, site / "explorer", dirs_exist_ok=True)
    title, first_page = app.config.html_title, f"{app.config.root_doc}.html"
    (site / "index.html").write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta http-equiv="refresh" content="0; url={first_page}">'
        f'<title>{title}</title><a href="{first_page}">{title}</a></html>\n',
        encoding="utf-8",
    )


def setup(app):
    app.add_config_value("repository", "", "env", str)
    app.add_config_value("branch", "main", "env", str)
    app.connect("source-read", add_made_part)
    app.add_transform(RepositoryLinks)
    app.add_transform(AsInJupyter)
    app.connect("build-finished", finish)
