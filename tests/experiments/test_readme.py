"""The tables of docs/results.md and the numbers in sentences: from the records, by name, and mended."""

import json
import re
import shutil

import pytest

from reidsa_utils import SETTINGS, InputError
from reidsa_utils.experiments import model_cards, readme
from reidsa_utils.experiments.claims import read_claims
from reidsa_utils.experiments.numbers import (
    KINDS,
    SELECTIONS,
    committed_effects,
    committed_records,
    fill,
    number,
)
from reidsa_utils.experiments.records import ROOT, read_record

MARK = "<!--=demo.parts.mAP-->{}<!--/-->"  # 43.2 in the committed records


@pytest.fixture
def place(tmp_path):
    """A folder with the README, the pages of docs/ and one notebook."""
    shutil.copy(ROOT / "README.md", tmp_path)
    (tmp_path / "docs").mkdir()
    for path in ROOT.glob("docs/*.md"):
        shutil.copy(path, tmp_path / "docs")
    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "06_tables.ipynb", tmp_path / "notebooks")
    return tmp_path


def test_every_number_is_what_the_records_give(reidsa):
    done = reidsa("readme", "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == ""


def test_committed_records_regenerate_the_tables():
    text = (ROOT / readme.TABLES).read_text()
    made = {
        "tables": readme.tables_block(committed_records(""), committed_effects("")),
        "claims": readme.claims_block(read_claims()),
        "photographs": readme.photographs_block(ROOT / "results" / "photographs"),
    }
    for name, block in made.items():
        start, end = (mark.format(name) for mark in readme.MARKS)
        assert text.split(start)[1].split(end)[0] == block
    assert made["tables"].count("\n| ") > 10
    assert made["claims"].count("\n| ") > len(read_claims())


def test_a_stale_number_is_found_named_and_mended(place, capsys):
    """In the README, on a page and in its tables, and in a notebook's text; --check changes nothing."""
    path = place / "docs" / "results.md"
    whole = path.read_text()
    assert MARK.format("43.2") in whole
    broken = whole.replace(MARK.format("43.2"), MARK.format("43.3"), 1)
    broken = broken.replace("| Market-1501 | none | 5 | 73.6", "| Market-1501 | 1", 1)
    path.write_text(broken)
    front = place / "README.md"
    whole_front = front.read_text()
    broken_front = whole_front.replace("<!--=parameters-demo-->4.3<", "<!--=parameters-demo--><")
    assert broken_front != whole_front
    front.write_text(broken_front)
    notebook = place / "notebooks" / "06_tables.ipynb"
    whole_notebook = notebook.read_text()
    mark = "<!--=photo-l1.parts.rank-1.delta-->{}<!--/-->"
    assert mark.format("+1.2") in whole_notebook
    broken_notebook = whole_notebook.replace(mark.format("+1.2"), mark.format("1.2"))
    notebook.write_text(broken_notebook)

    assert readme.write_readme(check=True, place=place) == 1
    first, table, sentence, cell = capsys.readouterr().out.splitlines()
    assert first == "README.md: parameters-demo is empty, expected 4.3"
    assert table.startswith("docs/results.md: the block tables is '")
    assert "Market-1501 | 1" in table and "expected" in table
    assert sentence == "docs/results.md: demo.parts.mAP is 43.3, expected 43.2"
    assert cell.endswith("06_tables.ipynb: photo-l1.parts.rank-1.delta is 1.2, expected +1.2")
    assert path.read_text() == broken and notebook.read_text() == broken_notebook
    assert front.read_text() == broken_front

    assert readme.write_readme(place=place) == 0
    assert path.read_text() == whole and notebook.read_text() == whole_notebook
    assert front.read_text() == whole_front
    assert readme.write_readme(check=True, place=place) == 0


def test_outputs_and_code_cells_are_left_alone(place):
    notebook = place / "notebooks" / "06_tables.ipynb"
    content = json.loads(notebook.read_text())
    code = next(c for c in content["cells"] if c["cell_type"] == "code" and c["outputs"])
    code["source"] = ["# " + MARK.format("1")]
    code["outputs"] = [{"output_type": "stream", "name": "stdout", "text": MARK.format("1")}]
    text = json.dumps(content)
    notebook.write_text(text)
    assert readme.write_readme(place=place) == 0
    assert notebook.read_text() == text


@pytest.mark.parametrize("file", ["README.md", "docs/results.md", "docs/speed.md"])
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("mAP <!--=demo.parts.mAP-->43.2\n", "demo.parts.mAP--> has lost the one it belongs to"),
        ("mAP 43.2<!--/-->\n", "the comment <!--/--> has lost the one it belongs to"),
        (f"mAP <!--=demo.parts.mAP-->{MARK.format(1)}\n", "has lost the one it belongs to"),
        (MARK.format("43.2") + " mAP\n", "opens the line"),
        ("mAP <!--=demoo.parts.mAP-->43.2<!--/-->\n", "no selection 'demoo' in"),
    ],
)
def test_a_broken_mark_is_refused(place, line, words, file):
    path = place / file
    text = path.read_text() + line
    path.write_text(text)
    for check in (True, False):
        with pytest.raises(InputError) as error:
            readme.write_readme(check, place)
        assert words in str(error.value)
        assert file in str(error.value)
    assert path.read_text() == text


def test_a_page_without_marks_is_left_alone(place):
    path = place / "docs" / "results.md"
    path.write_text("# mine\n")
    with pytest.raises(
        InputError,
        match="docs/results.md has lost the marks between which its claims stand; restore "
        "<!-- claims: made by",
    ):
        readme.write_readme(place=place)
    assert path.read_text() == "# mine\n"


def test_without_the_page_of_the_tables_one_sentence(place):
    (place / "docs" / "results.md").unlink()
    with pytest.raises(InputError, match="results.md is missing; the tables stand there"):
        readme.write_readme(place=place)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("demo-l1.parts.mAP", "+0.3 (-0.6 to +1.1)"),
        ("demo-l1.parts.mAP.interval", "-0.6 to +1.1"),
        ("demo-l1.parts.mAP:.1f", None),
        ("market-softmax.parts.mAP.loss:.0f", "15"),
        ("photo-softmax.parts.mAP.loss_interval", "3.1 to 3.8"),
        ("photo.parts+rerank.both", "70.9 / 57.5"),
        ("demo.parts.mAP.seeds", "5"),
        ("cells.none.1-3.lowest", "46"),
        ("cells.l1.1", "27"),
        ("cells.l1.1.interval", "-24.6 to -13.3"),
        ("table2-softmax.of", "14"),
        ("loss-photo-last", "6.55"),
    ],
)
def test_numbers_by_name(name, written):
    if written is None:
        with pytest.raises(InputError, match="which is not one number"):
            number(name)
    else:
        assert number(name) == written


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("demo-l2.parts.mAP", "no selection 'demo-l2' in settings/numbers.toml; the nearest: demo"),
        ("demo-l1.part.mAP", "unknown retrieval vector 'part'"),
        ("demo-l1.parts.map", "unknown metric 'map'; known: rank-1, mAP"),
        ("demo-l1.parts.mAP.dleta", "unknown word for a number 'dleta'; known: change, delta"),
        ("demo-l1", "0 words behind the selection; expected vector metric what"),
        ("demo.parts.mAP.median", "unknown word for a number 'median'; known: mean, sd, seeds"),
        ("photo.parts.mAP.sd", "the records do not tell it"),  # one seed
        ("cells.l1.5", "stages are 5; expected one of 1 to 4"),
        ("cells.l2.1", "unknown attention form 'l2'"),
    ],
)
def test_an_unknown_name_is_refused_in_one_sentence(name, words):
    with pytest.raises(InputError) as error:
        fill(f"mAP {{{name}}}")
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "entry", "name", "words"),
    [
        ("levels", {"benchmark": "market1501"}, "parts.mAP", "differ in"),
        ("levels", {"profile": "huge"}, "parts.mAP", "no run has the settings"),
        (
            "differences",
            {"benchmark": "market1501", "form": "max"},
            "parts.mAP",
            "no seed has both",
        ),
        ("differences", {"rate": 1}, "parts.mAP", "unknown setting 'rate'"),
        ("counts", {"form": "max"}, "better", "no difference has the settings"),
        ("counts", {"forms": "l1"}, "better", "unknown column 'forms'"),
        ("stages", {"folder": "maps", "keys": ["test"], "runs": {"seed": 9}}, "l1.1", "without SA"),
    ],
)
def test_a_selection_of_no_run_or_several_is_refused(monkeypatch, kind, entry, name, words):
    """One setting, or an error: never the first that comes."""
    monkeypatch.setitem(SELECTIONS[kind], "mine", entry)
    with pytest.raises(InputError) as error:
        number(f"mine.{name}")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_each_selection_has_one_kind_and_is_used():
    names = [name for kind in KINDS for name in SELECTIONS[kind]]
    assert len(set(names)) == len(names)
    files = [ROOT / "README.md", SETTINGS / "claims.toml", *(ROOT / "docs").glob("*.md")]
    files += (ROOT / "notebooks").rglob("*.ipynb")
    texts = "".join(path.read_text() for path in files)
    # A mark, a name in braces, or a comparison that a claim is judged by.
    beginnings = ("=", "{", '"')
    assert not [name for name in names if not any(f"{b}{name}" in texts for b in beginnings)]


def test_the_model_cards_are_up_to_date():
    """One for each stored network, as its record gives it; every link and number of it holds."""
    stored = sorted((ROOT / "results" / "weights").glob("*.safetensors"))
    assert stored and not model_cards.stale_cards(ROOT / "results")
    for weights in stored:
        text = model_cards.card_path(weights).read_text(encoding="utf-8")
        record = read_record(ROOT / "results" / f"{weights.stem}.json")
        for vector in ("parts", "parts+rerank"):
            metrics = record["metrics"][vector]
            assert f"| {100 * metrics['rank1']:.1f} | {100 * metrics['mean_ap']:.1f} |" in text
        for heading in ("Data", "Training", "Metrics", "Intended use", "Limits", "Licence"):
            assert f"## {heading}\n" in text
        for link in re.findall(r"\]\(([^)#]+)", text):
            assert (weights.parent / link).exists()


def test_an_old_model_card_is_told(tmp_path):
    [name, *_] = sorted(p.stem for p in (ROOT / "results" / "weights").glob("*.safetensors"))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / f"{name}.safetensors").touch()
    (tmp_path / f"{name}.json").write_bytes((ROOT / "results" / f"{name}.json").read_bytes())
    [(path, text)] = model_cards.stale_cards(tmp_path).items()  # there is none
    path.write_text(text, encoding="utf-8")
    assert not model_cards.stale_cards(tmp_path)
    path.write_text(text.replace("seed 3", "seed 4"), encoding="utf-8")
    assert list(model_cards.stale_cards(tmp_path)) == [path]
