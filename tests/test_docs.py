"""The README and the pages of docs/: one screen to the commands, live links, commands that work, spelling."""

import json
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
from conftest import ROOT, need, own_data

from reidsa_utils import cli
from reidsa_utils.config import Config
from reidsa_utils.experiments import grid
from reidsa_utils.experiments.run import train_command

README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]
# A fenced block, or code within a line.
CODE = re.compile(r"^ *```[^\n]*\n(.*?)^ *```|`([^`\n]+)`", re.M | re.S)
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)|(?:src|href)=\"([^\"]+)\"")
# A part of a command line that starts one of our programs.
PROGRAMS = r"(?:\S*/)?(?:reidsa|python -m reidsa_utils|make|snakemake|papermill|torchrun)\b"


def words_of(text):
    return re.sub(r"<!--.*?-->", "", text, flags=re.S).split()


def test_the_readme_is_short_and_its_commands_come_first():
    text = README.read_text()
    assert len(words_of(text)) <= 800
    for command in ("make reproduce", "make test"):
        assert len(words_of(text.split(command)[0])) < 450


def test_the_readme_says_what_a_newcomer_needs():
    text = README.read_text()
    headings = re.findall(r"^## (.*)$", text, re.M)
    for heading in ("Quick start", "Five findings", "Reading order", "Limits"):
        assert heading in headings
    findings = text.split("## Five findings")[1].split("\n## ")[0]
    items = re.findall(r"^\d\. .*$", findings, re.M)
    assert len(items) == 5
    for item in items:
        assert "<!--=" in item and "](" in item
        assert re.search(r"seeds?\b", item) and re.search(r"\brate\b", item)
        assert re.search(r"Market-1501|CUHK03", item)
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"(notebooks/{notebook.name})" in text
    for page in ROOT.glob("docs/*.md"):
        linked = text + (ROOT / "docs" / "index.md").read_text()
        assert page.name in linked or page.name == "index.md"


def test_the_reading_times_are_one():
    """Of the README, of docs/reading_order.md, and of a notebook's opening, where that says one."""
    order = README.read_text().split("## Reading order")[1]
    rows = (ROOT / "docs" / "reading_order.md").read_text().splitlines()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        time = re.search(rf"\(notebooks/{path.name}\): (\d+) min$", order, re.M)[1]
        [row] = [row for row in rows if f"(../notebooks/{path.name})" in row]
        assert row.split(" | ")[2] == f"{time} min"
        opening = "".join(json.loads(path.read_text())["cells"][0]["source"])
        said = re.search(r"about (\d+) minutes to read", opening)
        assert not said or said[1] == time, path.name


def heading_slugs(text):
    """The anchors that GitHub gives to the headings of a Markdown text."""
    slugs = []
    for title in re.findall(r"^#+ (.*)$", CODE.sub(lambda m: m[2] or "", text), re.M):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        slugs.append(re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-"))
    return slugs


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_every_link_leads_somewhere(path):
    """Also on GitHub, where a page is read from its own folder; the book checks docs/ by itself."""
    text = path.read_text()
    for link in LINK.finditer(CODE.sub("", text)):
        target = link[1] or link[2]
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        to = (path.parent / unquote(file)).resolve() if file else path
        assert to.exists(), target
        if anchor and to.suffix == ".md":
            assert anchor in heading_slugs(to.read_text()), target
        # GitHub and the book name the headings of a notebook differently.
        assert not (anchor and to.suffix == ".ipynb"), target


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_every_picture_has_words(path):
    text = path.read_text()
    described = re.findall(r"!\[(.*?)\]\(", text) + re.findall(r'<img [^>]*alt="(.*?)"', text)
    assert len(described) == len(re.findall(r"!\[|<img ", text))
    assert all(len(words.split()) > 3 for words in described)


def commands():
    """{command: the pages that show it}, a line of a shell each."""
    found = {}
    for path in PAGES:
        for block, inline in CODE.findall(path.read_text()):
            for line in (block or inline).splitlines():
                line = re.split(r"\s+#\s", line)[0].strip()
                # `VARIABLE=value make target`, and the body of a loop
                line = re.sub(r"^(?:\w+=\S* )+", "", line)
                # The name of a program alone is no command, but for `reidsa`.
                if re.match(PROGRAMS, line) and (" " in line or line == "reidsa"):
                    found.setdefault(line, []).append(path.name)
    return found


COMMANDS = commands()


def test_the_pages_show_commands_of_every_kind():
    for start in ("make ", "reidsa ", "snakemake ", "papermill ", "torchrun "):
        assert sum(line.startswith(start) for line in COMMANDS) >= 1, start
    shown = {shlex.split(line)[1] for line in COMMANDS if re.match(r"reidsa \w", line)}
    assert shown >= {"train", "check", "prepare-cuhk03", "render", "examine", "publish", "readme"}


@pytest.mark.parametrize("line", COMMANDS)
def test_a_shown_command_is_one_that_works(line, tmp_path, monkeypatch):
    """As far as its words: known targets, subcommands, options, settings and files."""
    monkeypatch.setenv("REIDSA_DATA", str(tmp_path))
    if "my_people" in line:
        monkeypatch.chdir(tmp_path)
        own_data(tmp_path / "my_people")
    words = shlex.split(line)
    program, *words = words
    program = program.rpartition("/")[2]
    if program in ("python", "torchrun"):
        words = words[words.index("reidsa_utils") + 1 :]
        program = "reidsa"
    check = {"make": check_make, "reidsa": check_reidsa}
    check |= {"snakemake": check_snakemake, "papermill": check_papermill}
    check[program](words)


def check_make(words):
    targets = [word for word in words if "=" not in word]
    makefile = (ROOT / "Makefile").read_text()
    known = re.findall(r"^(\w+):", makefile, re.M)
    known += re.search(r"^TARGETS = (.*)$", makefile, re.M)[1].split()
    assert set(targets) <= set(known)
    for word in set(words) - set(targets):
        name, _, value = word.partition("=")
        assert re.search(rf"\$\({name}\)|\$\(or \$\({name}\)|^{name} \?=", makefile, re.M), name
        if name == "TARGET":
            assert value in grid.TARGETS


def check_reidsa(words):
    if not words or words[-1] == "--help" or words == ["COMMAND"]:
        return
    # The variables of a shell stand for words of a kind that the options take.
    stand_for = {"$1": "b_p_ds", "$2": "none", "...": "runs"}
    words = [stand_for.get(word, word) for word in words]
    function, bound, _ = cli.app.parse_args(words, exit_on_error=False, print_error=False)
    if function is train_command:
        assert bound.arguments


def check_snakemake(words):
    at = words.index("--config") if "--config" in words else len(words)
    settings = dict(word.split("=", 1) for word in words[at + 1 :])
    targets = [word for word in words[:at] if word in grid.TARGETS]
    assert len(targets) == 1
    if settings.get("data") != "real":
        assert grid.runs_of(targets[0], grid.read_settings(settings))
    else:
        assert set(settings) <= {*Config.model_fields, *grid.BATCH_SETTINGS}
    if "--profile" in words:
        assert (ROOT / words[words.index("--profile") + 1] / "config.yaml").exists()


def check_papermill(words):
    assert (ROOT / words[0]).exists()
    given = [words[i + 1] for i, word in enumerate(words) if word == "-p"]
    assert given and set(given) <= set(Config.model_fields)


def test_the_picture_of_the_problem_is_what_its_script_draws(tmp_path):
    file = tmp_path / "picture.png"
    subprocess.run([sys.executable, "docs/problem.py", file], cwd=ROOT, check=True)
    drawn, committed = (cv2.imread(str(path)) for path in (file, ROOT / "docs/problem.png"))
    assert drawn.shape == committed.shape
    assert np.abs(drawn.astype(float) - committed).mean() < 1


def test_spelling(tmp_path):
    """codespell: of all texts, and of the sources of notebooks. Words to ignore: pyproject.toml."""
    need(find_spec("codespell_lib"), "no codespell found: install requirements.txt")
    for path in (ROOT / "notebooks").rglob("*.ipynb"):
        if ".ipynb_checkpoints" not in path.parts:
            cells = json.loads(path.read_text())["cells"]
            name = path.relative_to(ROOT).as_posix().replace("/", "-")
            text = "\n".join("".join(cell["source"]) for cell in cells)
            (tmp_path / f"{name}.md").write_text(text)
    assert spelling(tmp_path) == ""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    files = [f for f in listed.stdout.splitlines() if re.search(SPELLED, f)]
    if not files:  # no clone
        files = [
            p.relative_to(ROOT).as_posix() for p in [*PAGES, *ROOT.glob("reidsa_utils/**/*.py")]
        ]
    assert "README.md" in files and "reidsa_utils/cli.py" in files
    assert spelling(*files) == ""
    wrong = "t" + "eh"  # this file is checked, too
    (tmp_path / "wrong.md").write_text(f"This is {wrong} end.")
    assert f"{wrong} ==> the" in spelling(tmp_path)


SPELLED = r"(^|/)(Makefile|Snakefile)$|\.(md|py|toml|txt|cff|ya?ml|css|js|html)$"


def spelling(*paths):
    """What codespell finds."""
    command = [sys.executable, "-m", "codespell_lib", "--toml", "pyproject.toml"]
    done = subprocess.run([*command, *map(str, paths)], cwd=ROOT, capture_output=True, text=True)
    return done.stdout + done.stderr
