"""The book: `make book` without a warning; its pages in Chromium, without a network."""

import base64
import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from html.parser import HTMLParser
from importlib.util import find_spec
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from conftest import ROOT, need

from reidsa_utils import SETTINGS

SOURCES = sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("notebooks/**/*.ipynb")])
PAGES = [source.relative_to(ROOT).with_suffix(".html").as_posix() for source in SOURCES]
ADDRESS = "https://github.com/someone/reid"
# What a reader sees where a formula was not drawn.
LATEX = re.compile(r"\\[(\[]|\\(?:begin|end|frac|sum|tag|text|partial|lambda)\b|\$[^$\n]+\$")
PICTURE = base64.b64encode((ROOT / "figures" / "fig4_layer.png").read_bytes()).decode()

# Parts of a made notebook that committed ones may lack; `shown` and `data` make outputs.
MADE = r"""
# 1 · Made

**You will learn** a thing, behind [words](../docs/words.md).
**Takes** no time.
---
Pulled by <!--=some.mAP-->+1.5<!--/--> points. Half of it: $\frac{1}{2}$. In a paragraph:
$$\sum_k f_k \tag{1}$$
for each $k$. <img src="../docs/_static/favicon.svg" alt="an icon" width="20">

$$p = \begin{cases} a & \text{if } k \neq t \\ b & \text{otherwise} \end{cases} \tag{12}$$

$$\underbrace{a + b + c + d + e + f + g + h + i + j + k + l + m + n + o + p + q + r}_{\text{wide}} \tag{13}$$
"""


def made_notebook():
    """Folds of two kinds, pictures with and without a caption, what is too wide, a slider."""
    new = nbformat.v4

    def code(source, data=None, **metadata):
        outputs = [new.new_output("display_data", data)] if data else []
        return new.new_code_cell(source, metadata=metadata, outputs=outputs)

    row = "<td>$\\sigma$</td>" + "<td>unbreakable</td>" * 40
    cells = [new.new_markdown_cell(text) for text in MADE.strip().split("\n---\n")]
    cells += [
        code("by_tag = 1", tags=["hide-input"]),
        code("by_jupyter = 2", jupyter={"source_hidden": True}),
        code("shown = 3  ".ljust(88, "#")),
        code("figure", {"image/png": PICTURE}),
        new.new_markdown_cell("*What to look for: $\\lambda_k$, <!--=a.b-->1<!--/--> cell.*"),
        new.new_markdown_cell("## A section"),
        code("figure", {"image/png": PICTURE}),
        new.new_markdown_cell("*Not* a caption."),
        code("figure", {"image/png": PICTURE}),
        new.new_markdown_cell("What to look for: nothing."),
        code("figure", {"image/png": PICTURE}, mystnb={"image": {"alt": "By hand"}}),
        code("printed", {"text/plain": "word " * 200}),
        code("table", {"text/html": f"<table><tr>{row}</tr></table>"}),
        code(
            "slider",
            {
                "application/vnd.jupyter.widget-view+json": {"model_id": "1"},
                "text/plain": "FloatSlider(value=0.0)",
            },
        ),
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {"1": {}}}}
    return new.new_notebook(cells=cells, metadata=metadata)


def make(*words, **kwargs):
    """make, with this Python instead of .venv."""
    words = ["make", "-o", ".venv/installed", f"PY={sys.executable}", *words]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, **kwargs)


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The folder of the pages that `make book` builds; it stops at a warning."""
    need(shutil.which("npm"), "no npm found: install Node.js (Debian: apt-get install npm)")
    need(find_spec("myst_nb"), "no myst-nb found: install requirements.txt")
    folder = tmp_path_factory.mktemp("book")
    done = make("book", f"BOOK={folder}", "REPOSITORY=")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def small_book(book, tmp_path_factory):
    """The made notebook under the real configuration, with the repository's address set."""
    root = tmp_path_factory.mktemp("small") / "repository"
    others = shutil.ignore_patterns("node_modules", "_build", "*.md")
    shutil.copytree(ROOT / "docs", root / "docs", ignore=others)
    (root / "docs" / "node_modules").symlink_to(ROOT / "docs" / "node_modules")
    for name in ("notebooks", "results"):
        (root / name).mkdir()
    nbformat.write(made_notebook(), root / "notebooks" / "01_made.ipynb")
    texts = {
        "README.md": "# No page of the book",
        "docs/index.md": "# A small book\n\n[folder](../results/) [file](conf.py) [text](../README.md)",
        "docs/reading_order.md": "# Reading order\n\n",
        "docs/words.md": "# Words\n\nA page that no list names.",
        "docs/explorer.md": "# The explorer",
        "build/explorer/index.html": "<title>Made before the book</title>",
    }
    (root / "build" / "explorer").mkdir(parents=True)
    for name, text in texts.items():
        (root / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-nW", "-q", "-c", "docs", ".", "html"],
        cwd=root,
        env=os.environ | {"REPOSITORY": ADDRESS, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return root / "html"


class Reader:
    """Opens pages of a book in the browser, and keeps what goes wrong meanwhile.

    A page serves all visits of one kind: with its caches it is three times as fast.
    """

    def __init__(self, browser):
        self.browser, self.sites, self.pages, self.wrong = browser, {}, {}, []

    def serve(self, folder):
        if folder not in self.sites:
            handler = functools.partial(QuietHandler, directory=folder)
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            self.sites[folder] = server
        return f"http://127.0.0.1:{self.sites[folder].server_port}"

    def visit(self, folder, name, from_disk=False, width=1280, scheme="light"):
        """The page of a book at an address or from disk, its formulas drawn."""
        site = folder.as_uri() if from_disk else self.serve(folder)
        if (site, scheme) not in self.pages:
            context = self.browser.new_context(color_scheme=scheme)
            self.pages[site, scheme] = self.watched(context.new_page(), site)
        page = self.pages[site, scheme]
        page.set_viewport_size({"width": width, "height": 800})
        page.goto(f"{site}/{name}")
        page.evaluate("window.MathJax && MathJax.startup.promise.then(() => true)")
        return page

    def watched(self, page, site):
        inside = (f"{site}/", "data:")
        page.on("request", lambda r: r.url.startswith(inside) or self.wrong.append(r.url))
        page.on("response", lambda r: r.status < 400 or self.wrong.append(f"{r.status} {r.url}"))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", lambda m: m.type in ("error", "warning") and self.wrong.append(m.text))
        return page

    def close(self):
        for page in self.pages.values():
            page.context.close()
        for server in self.sites.values():
            server.shutdown()


@pytest.fixture(scope="module")
def reader(browser):
    reader = Reader(browser)
    yield reader
    reader.close()


@pytest.fixture
def visit(reader):
    """Reader.visit; no request may leave the site, and nothing may stand in the console."""
    reader.wrong.clear()
    yield reader.visit
    assert not reader.wrong


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


class Page(HTMLParser):
    """What a page of HTML links to and can be linked to by."""

    def __init__(self, path):
        super().__init__()
        self.targets, self.ids, self.images = [], set(), []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.add(attributes.get("id"))
        if tag == "img":
            self.images.append(attributes)
        for name in ("href", "src"):
            if attributes.get(name) and tag != "base":
                self.targets.append(attributes[name])


def serious(page, **options):
    """What axe finds that is serious or worse, a line each."""
    need(find_spec("axe_playwright_python"), "no axe found: install requirements.txt")
    from axe_playwright_python.sync_playwright import Axe

    # With preload, axe would itself ask for style sheets at addresses that do not exist.
    options = {"resultTypes": ["violations"], "preload": False} | options
    found = Axe().run(page, options=options).response["violations"]
    return [
        f"{violation['id']}: {node['html'][:200]}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def words_of(page):
    """All text of a page but code and drawn formulas."""
    return page.evaluate(
        """() => {
          const copy = document.body.cloneNode(true);
          copy.querySelectorAll("pre, code, script, style, mjx-container").forEach(e => e.remove());
          return copy.textContent;
        }"""
    )


def cut_off(page):
    """Code and outputs of which a laptop shows only a part: lines of 88 columns fit."""
    return page.locator(".cell_input pre, .cell_output pre").evaluate_all(
        "all => all.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent)"
    )


def test_every_source_is_a_page_and_a_download(book):
    for source, page in zip(SOURCES, PAGES, strict=True):
        assert (book / page).exists(), page
        if source.suffix == ".ipynb":
            name = source.relative_to(ROOT).as_posix()
            assert (book / "_sources" / name).read_bytes() == source.read_bytes()
            depth = "../" * name.count("/")
            assert f'href="{depth}_sources/{name}"' in (book / page).read_text()


def test_no_dead_internal_link(book):
    pages = {path: Page(path) for path in book.rglob("*.html") if "_static" not in path.parts}
    assert len(pages) > len(PAGES)
    checked = 0
    for path, page in pages.items():
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert to.is_file(), f"{path.name}: {target}"
            if parts.fragment and to in pages:
                assert unquote(parts.fragment) in pages[to].ids, f"{path.name}: {target}"
            checked += 1
    assert checked > 1000


def test_one_reads_through_the_book_by_next(book):
    page, seen = "docs/index.html", []
    while page:
        seen.append(page)
        following = re.search(r'class="right-next"\s+href="([^"]+)"', (book / page).read_text())
        page = following and os.path.normpath(os.path.join(os.path.dirname(page), following[1]))
    assert sorted(seen) == sorted(PAGES)
    notebooks = [page for page in seen if re.match(r"notebooks/\d", page)]
    assert notebooks == sorted(notebooks)


def test_the_ledger_leads_to_the_evidence(book):
    text = (book / "docs" / "ledger.html").read_text()
    page = Page(book / "docs" / "ledger.html")
    for claim in tomllib.loads((SETTINGS / "claims.toml").read_text())["claims"]:
        assert claim["id"] in page.ids
        for evidence in claim["evidence"]:
            if evidence.startswith("results/"):
                for record in ROOT.glob(evidence):
                    copies = [t for t in page.targets if t.endswith(f"/{record.name}")]
                    same = [(book / "docs" / copy).read_bytes() for copy in copies]
                    assert record.read_bytes() in same, record.name
            elif evidence.startswith(("tests/", "https://")):
                assert evidence in text
            else:
                name, _, heading = evidence.partition("#")
                assert heading_of(book, page, name, heading), evidence


def heading_of(book, ledger, notebook, heading):
    """Whether the ledger links to this heading of a notebook's page."""
    text = (book / "notebooks" / f"{notebook}.html").read_text()
    for target in ledger.targets:
        path, _, anchor = target.partition("#")
        if path == f"../notebooks/{notebook}.html" and anchor:
            [title] = re.findall(
                rf'<section [^>]*id="{re.escape(anchor)}".*?<h\d>(.*?)<a class="headerlink"',
                text,
                re.S,
            )
            if letters(title) == letters(heading):
                return True
    return False


def letters(text):
    """A heading as HTML or as Markdown, without what marks up."""
    text = re.sub(r"<[^>]+>|&\w+;|\\\(|\\\)", "", text)
    return re.sub(r"\W", "", text)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_in_the_browser(visit, book, name):
    page = visit(book, name)
    words = words_of(page)
    assert not LATEX.findall(words)
    assert "<!--" not in words
    assert page.locator(".math:not(:has(mjx-container)), mjx-merror").count() == 0
    for image in page.locator(".bd-content img").all():
        alternative = image.get_attribute("alt")
        assert alternative and not re.search(r"\.(png|jpe?g)$", alternative)
    assert not cut_off(page)
    # Colours come from one style sheet and take axe long: one page stands for them, below.
    flat = "all => all.forEach(e => e.textContent = e.textContent)"
    page.locator("pre, mjx-container").evaluate_all(flat)
    assert not serious(page, rules={"color-contrast": {"enabled": False}})
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_read_it(visit, small_book, scheme):
    """Contrast in both modes, on a telephone, where formulas and tables scroll."""
    page = visit(small_book, "notebooks/01_made.html", width=390, scheme=scheme)
    assert page.locator("html").get_attribute("data-theme") == scheme
    for summary in page.locator("details summary").all():
        summary.click()
    page.evaluate("Promise.all(document.getAnimations().map(animation => animation.finished))")
    assert not serious(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_dark_mode_is_a_button(visit, small_book):
    page = visit(small_book, "docs/index.html")
    for mode in ("dark", "light"):
        page.get_by_label("Color mode").click()
        page.locator(f".theme-change-button[data-mode={mode}]").click()
        assert page.locator("html").get_attribute("data-theme") == mode
    page.reload()
    assert page.locator("html").get_attribute("data-mode") == "light"


@pytest.mark.parametrize("from_disk", [False, True])
def test_search_finds_a_page(visit, book, from_disk):
    page = visit(book, "docs/index.html", from_disk)
    page.keyboard.press("Control+k")
    page.keyboard.type("jacobian")
    page.keyboard.press("Enter")
    page.get_by_text("Search finished").wait_for()
    found = page.locator("#search-results li")
    assert found.count() >= 3
    excerpt = found.locator("p.context", has_text="Jacobian").first
    if from_disk:
        assert excerpt.count() == 0  # a page opened from disk may not read others
    else:
        excerpt.wait_for()
    title = "2 · Does the gradient of section 3.4 hold?"
    found.get_by_role("link", name=title, exact=True).first.click()
    assert page.locator("h1:visible").inner_text().startswith("2 · Does the gradient")


def test_it_can_be_read_from_disk(visit, small_book):
    page = visit(small_book, "notebooks/01_made.html", from_disk=True)
    assert page.locator("mjx-container").count() >= 6
    assert page.evaluate("document.fonts.ready.then(f => [...f].some(x => x.status == 'loaded'))")


def test_cells_fold(visit, small_book):
    page = visit(small_book, "notebooks/01_made.html")
    for source in ("by_tag", "by_jupyter"):
        code = page.locator("pre", has_text=source)
        assert not code.is_visible()
        page.locator("details.hide", has=code).locator("summary").click()
        assert code.is_visible()
    assert page.locator("pre", has_text="shown = 3").is_visible()
    assert page.locator("details.hide").count() == 2


def test_a_notebook_as_in_jupyter(visit, small_book):
    """Marks of numbers do not show, pictures have words, a formula of two lines and its number are drawn, no dead slider."""
    page = visit(small_book, "notebooks/01_made.html")
    words = words_of(page)
    assert "Pulled by +1.5 points" in words and "some.mAP" not in words
    assert not LATEX.findall(words)
    assert page.locator("mjx-merror").count() == 0 and page.locator("mjx-mtable").count() >= 2
    assert not cut_off(page)
    assert page.locator("td mjx-container").count() == 1
    images = Page(small_book / "notebooks" / "01_made.html").images
    described = [image["alt"] for image in images if "_images" in image["src"]]
    assert described == [
        "an icon",
        "What to look for: lambda _k, 1 cell.",
        "Picture in the section A section",
        "What to look for: nothing.",
        "By hand",
    ]
    assert "FloatSlider" not in page.content()


def test_links_follow_from_the_address(small_book, book):
    """The address leads to Colab, Binder and the files; without it none of these stands on a page."""
    notebook = Page(small_book / "notebooks" / "01_made.html").targets
    launch = [t for t in notebook if "colab" in t or "mybinder" in t]
    assert sorted(t for t in launch if t.startswith("https:")) == [
        "https://colab.research.google.com/github/someone/reid/blob/main/notebooks/01_made.ipynb",
        "https://mybinder.org/v2/gh/someone/reid/main?urlpath=lab/tree/notebooks/01_made.ipynb",
    ]
    front = Page(small_book / "docs" / "index.html").targets
    for path in ("tree/main/results", "blob/main/docs/conf.py", "blob/main/README.md"):
        assert f"{ADDRESS}/{path}" in front
    assert f"git clone --depth 1 {ADDRESS} " in (small_book / "docs/reading_order.html").read_text()
    for page in PAGES:
        text = (book / page).read_text()
        assert "colab.research" not in text and "mybinder" not in text, page


def test_a_new_page_and_a_new_notebook_are_in_the_book_by_themselves(small_book):
    assert "words.html" in Page(small_book / "docs" / "index.html").targets
    order = (small_book / "docs" / "reading_order.html").read_text()
    for words in ('href="../notebooks/01_made.html"', "<strong>Takes</strong> no time"):
        assert words in order
    assert re.search(r'behind <a [^>]*href="words.html"', order)


def test_the_explorer_is_linked_where_it_was_made(small_book, tmp_path, monkeypatch):
    """It lies in the site, so the link holds on a server, too; a page of real people stays out."""
    link = "../explorer/index.html"
    assert link in Page(small_book / "docs" / "explorer.html").targets
    assert "Made before the book" in (small_book / "docs" / link).resolve().read_text()

    monkeypatch.syspath_prepend(ROOT / "docs")
    import book

    monkeypatch.setattr(book, "EXPLORER", tmp_path)
    assert book.explorer(None) == ""  # not made
    (tmp_path / "index.html").touch()
    assert link in book.explorer(None)
    (tmp_path / ".gitignore").write_text("*")
    assert book.explorer(None) == ""


def test_without_node_one_sentence(tmp_path):
    for name in ("make", "sh", "bash"):
        (tmp_path / name).symlink_to(shutil.which(name))
    done = make("-B", "docs/node_modules/installed", env={"PATH": str(tmp_path)})
    assert done.returncode != 0
    assert done.stdout.count("\n") == 1 and done.stdout.startswith("npm not found: ")
    assert "install Node.js" in done.stdout


def test_what_npm_brings_is_locked():
    wanted = json.loads((ROOT / "docs" / "package.json").read_text())["dependencies"]
    lock = json.loads((ROOT / "docs" / "package-lock.json").read_text())
    assert lock["packages"][""]["dependencies"] == wanted
    for name, package in lock["packages"].items():
        if name:
            assert package["integrity"].startswith("sha512-") and "resolved" not in package
    for name, version in wanted.items():
        assert lock["packages"][f"node_modules/{name}"]["version"] == version
