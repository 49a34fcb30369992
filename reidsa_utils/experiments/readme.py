"""What is written from records: tables of docs/results.md, numbers in sentences, model cards.

A table stands between two comments with its name. A number in a sentence of README, CONTRIBUTING,
docs/ or a notebook's text also stands between two comments: <!--=NAME-->+1.2<!--/-->. Rendered
Markdown does not show them. NAME is a name that numbers.number() takes.
"""

import json
import re
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from .. import InputError
from ..data import LAYOUTS, PUBLISHED
from ..model import VARIANTS
from ..support.files import read_text, write_atomic
from .claims import read_claims, verdicts
from .model_cards import stale_cards
from .numbers import committed_effects, committed_records, number
from .records import ROOT, read_records
from .tables import (
    SETTING,
    aggregate,
    change,
    gap,
    interval,
    markdown_heading,
    markdown_row,
    run_table,
    signed,
    spread,
    title,
)

# Where the tables stand.
TABLES = "docs/results.md"
# The comments before and after a table.
MARKS = "<!-- {}: made by `reidsa readme` -->\n", "<!-- end of {} -->"
# A number between its comments; the groups are its name and its text.
NUMBER = re.compile(r"<!--=((?:(?!-->).)*)-->((?:(?!<!--).)*)<!--/-->")
# One such comment.
COMMENT = re.compile(r"<!--(?:=.*?|/)-->")
NO_RUN = "No run is recorded yet."
REAL_COLUMNS = (
    "benchmark | profile | variant | SA as | erasing | began with | epochs | seeds | rank-1 | mAP "
    "| gap rank-1, mAP"
)


class Stale(NamedTuple):
    """A place whose text differs from what the records give."""

    file: str
    name: str
    found: str
    expected: str

    def __str__(self):
        return f"{self.file}: {self.name} is {self.found}, expected {self.expected}"


def write_readme(check: bool = False, place: Path = ROOT) -> int:
    """Update from results/: the tables of docs/results.md, numbers in sentences, model cards.

    check: change nothing, but print each place whose text differs from what the records give.
    place: the folder with README.md, docs/ and the other texts.
    Returns the exit code: 1 if `check` found such a place, else 0.
    Raises InputError, before anything is written, for lost comments or an unknown name.
    """
    texts = {}
    stale = []
    for path in _files(place):
        before = read_text(path)
        after = before
        file = path.relative_to(place).as_posix()
        if path.suffix == ".ipynb":
            after, found = _number_notebook(before, file)
        else:
            if file == TABLES:
                after, found = _tables_anew(before, file)
                stale += found
            after, found = number_text(after, file)
        stale += found
        if after != before:
            texts[path] = after
    for path, text in stale_cards(place / "results").items():
        texts[path] = text
        stale.append(Stale(path.relative_to(place).as_posix(), "the model card", "old", "new"))
    if not check:
        for path, text in texts.items():
            write_atomic(path, text.encode())
        return 0
    for one in stale:
        print(one)
    return 1 if stale else 0


def _files(place: Path) -> list:
    """The texts that hold numbers."""
    notebooks = [
        path
        for path in sorted((place / "notebooks").rglob("*.ipynb"))
        if ".ipynb_checkpoints" not in path.parts
    ]
    contributing = [path for path in [place / "CONTRIBUTING.md"] if path.exists()]
    # Not in the folders of docs/: _build holds copies, node_modules texts of other projects.
    docs = sorted((place / "docs").glob("*.md"))
    if place / TABLES not in docs:
        raise InputError(f"{place / TABLES} is missing; the tables stand there")
    return [place / "README.md", *contributing, *docs, *notebooks]


def number_text(text: str, file: str) -> tuple:
    """A text with its numbers updated: (text, [Stale]).

    file: its name, for messages.
    Raises InputError for an unknown name, and for a comment without its partner.
    """
    stale = []
    lines = []
    for line in text.splitlines(keepends=True):
        written, found = _number_line(line, file)
        lines.append(written)
        stale += found
    return "".join(lines), stale


def _number_line(line: str, file: str) -> tuple:
    """A line with its numbers updated: (line, [Stale])."""
    lost = COMMENT.search(NUMBER.sub("", line))
    if lost:
        raise InputError(
            f"{file}: the comment {lost[0]} has lost the one it belongs to; a number stands "
            "between <!--=NAME--> and <!--/--> on one line"
        )
    if line.lstrip().startswith("<!--="):
        raise InputError(
            f"{file}: the comment of a number opens the line {line[:60]!r}, which Markdown then "
            "shows as it is typed; begin the line with a word"
        )
    stale = []
    parts = []
    end = 0  # of the text that is copied so far
    for match in NUMBER.finditer(line):
        name, found = match.groups()
        try:
            # Sentences have the typographic minus sign.
            expected = number(name).replace("-", "−")
        except InputError as error:
            raise InputError(f"{file}: {error}") from error
        if found != expected:
            stale.append(Stale(file, name, found or "empty", expected))
        parts += [line[end : match.start(2)], expected]
        end = match.end(2)
    return "".join(parts) + line[end:], stale


def _number_notebook(text: str, file: str) -> tuple:
    """A notebook with the numbers of its Markdown cells updated: (text, [Stale])."""
    notebook = json.loads(text)
    stale = []
    for cell in notebook["cells"]:
        if cell["cell_type"] != "markdown":
            continue
        source = cell["source"]
        # A cell is one string, or a list of its lines.
        written, found = number_text("".join(source), file)
        stale += found
        if found:
            cell["source"] = (
                written if isinstance(source, str) else written.splitlines(keepends=True)
            )
    if not stale:
        return text, stale
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", stale


def _tables_anew(text: str, file: str) -> tuple:
    """A page with its tables updated: (text, [Stale]). file: its name, for messages."""
    makers = {
        "claims": lambda: claims_block(read_claims()),
        "tables": lambda: tables_block(committed_records(""), committed_effects("")),
        "photographs": lambda: photographs_block(ROOT / "results" / "photographs"),
    }
    for name in makers:
        start, end = (mark.format(name) for mark in MARKS)
        if start not in text or end not in text:
            raise InputError(
                f"{file} has lost the marks between which its {name} stand; restore "
                f"{start.strip()} and {end}"
            )
    stale = []
    for name, make in makers.items():
        start, end = (mark.format(name) for mark in MARKS)
        before, _, rest = text.partition(start)
        found, _, after = rest.partition(end)
        expected = make()
        if found != expected:
            old, new = _first_difference(found, expected)
            stale.append(Stale(file, f"the block {name}", old, new))
        text = before + start + expected + end + after
    return text, stale


def _first_difference(found: str, expected: str, around: int = 40) -> tuple:
    """Where two different texts first differ, with some characters around that place."""
    # If one text begins with the other, they differ where the shorter one ends.
    at = min(len(found), len(expected))
    for place, (old, new) in enumerate(zip(found, expected, strict=False)):
        if old != new:
            at = place
            break
    shown = slice(max(0, at - around), at + around)
    return repr(found[shown]), repr(expected[shown])


def tables_block(records: list, differences: pd.DataFrame) -> str:
    """The tables of results: Tables 3 and 2 at `laptop`, recipe `paper`; real data.

    differences: pairing.effects() of the records.
    """
    cells = aggregate(run_table(records))
    cells = cells[cells.occlusion.isna() & cells.view_overlap.isna()]
    differences = differences[differences.occlusion.isna() & differences.view_overlap.isna()]
    ours = cells[
        (cells.source == "rendered") & (cells.profile == "laptop") & (cells.recipe == "paper")
    ]
    lines = []
    for table, vector in (("table3", "parts"), ("table2", "global"), ("table2", "parts")):
        lines += _paper_table(ours, differences, table, vector)
    lines += [
        "",
        "**Real data** (vector `parts`). The gap is ours minus the paper's Table 3 (with erasing) "
        "or Table 2 (without). A row of 0 epochs is a direct transfer: nothing was trained on "
        "photographs.",
        "",
    ]
    lines += markdown_heading(REAL_COLUMNS)
    real = cells[(cells.source == "real") & (cells.vector == "parts")]
    lines += [_real_row(row) for row in real.itertuples()]
    return "\n".join(lines) + "\n\n"


def _paper_table(cells, differences, table: str, vector: str) -> list:
    """The lines of Table 3 or 2 with one retrieval vector."""
    erasing = table == "table3"
    # A line above the table says what all its rows have in common.
    if erasing:
        benchmarks = list(LAYOUTS)
        variants = PUBLISHED["table3"]["market1501"]
        common = f"variants `{'` and `'.join(variants)}`, with random erasing"
        first = "benchmark"
    else:
        benchmarks = ["market1501"]
        variants = VARIANTS
        common = "Market-1501, without random erasing"
        first = "variant"
    lines = [
        "",
        f"**Table {table[-1]}** (rendered, `laptop`, vector `{vector}`, {common})",
        "",
    ]
    rows = cells[
        (cells.erasing == erasing)
        & (cells.vector == vector)
        & cells.benchmark.isin(benchmarks)
        & cells.variant.isin(variants)
    ]
    if rows.empty:
        return [*lines, NO_RUN]
    keys = ["data", *SETTING, "variant", "form"]
    of_cell = {}
    in_table = differences[(differences.table == table) & (differences.vector == vector)]
    for row in in_table.itertuples():
        of_cell[(*(getattr(row, key) for key in keys), row.metric)] = row
    lines += markdown_heading(
        f"{first} | SA as | seeds | rank-1 | mAP | Δ rank-1 | Δ mAP | paper's Δ"
    )
    for row in rows.itertuples():
        cell = tuple(getattr(row, key) for key in keys)
        found = [of_cell.get((*cell, metric)) for metric in ("rank-1", "mAP")]
        changes = [f"{change(delta)} ({interval(delta)})" if delta else "" for delta in found]
        paper = ", ".join(signed(delta.paper) for delta in found if delta)
        line = markdown_row(
            title(row.benchmark) if erasing else row.variant,
            row.form,
            row.seeds,
            spread(row.rank1, row.rank1_sd),
            spread(row.mAP, row.mAP_sd),
            *changes,
            paper,
        )
        lines.append(line)
    return lines


def photographs_block(folder: Path) -> str:
    """The rows of runs on photographs that began with ImageNet weights.

    They come from the records of a folder. Runs with held_out are left out.
    """
    lines = [
        "",
        "**Photographs, ImageNet weights** (real Market-1501). The gap is ours minus the paper's "
        "Table 2, which has a ResNet-50 at 384x128.",
        "",
    ]
    records = read_records(folder) if folder.is_dir() else []
    records = [record for record in records if not record["config"].get("held_out")]
    if not records:
        return "\n".join([*lines, NO_RUN]) + "\n\n"
    lines += markdown_heading(f"{REAL_COLUMNS} | vector")
    cells = aggregate(run_table(records))
    # The paper's Table 2 is not re-ranked.
    cells = cells[cells.vector.isin(["global", "parts"])]
    lines += [f"{_real_row(row)} {row.vector} |" for row in cells.itertuples()]
    return "\n".join(lines) + "\n\n"


def _real_row(row) -> str:
    """A line of the tables on real data."""
    form = row.form
    if row.recipe != "paper":
        form += f", {row.recipe}"
    if row.other:
        form += f", {row.other}"
    gaps = gap(row.rank1, row.mAP, row.benchmark, row.variant, row.erasing)
    return markdown_row(
        title(row.benchmark),
        row.profile,
        row.variant,
        form,
        "yes" if row.erasing else "no",
        "nothing" if row.weights == "none" else row.weights,
        row.epochs,
        row.seeds,
        spread(row.rank1, row.rank1_sd),
        spread(row.mAP, row.mAP_sd),
        ", ".join(signed(value) for value in gaps),
    )


def claims_block(claims: list) -> str:
    """The summary of the ledger: how many claims have each verdict, and a fold with all claims."""
    lines = ["", *markdown_heading("verdict | claims | such as")]
    for verdict, count in verdicts(claims).items():
        examples = [
            f"{claim['claim']} ({claim['place']})"
            for claim in claims
            if claim["verdict"] == verdict and claim.get("shown")
        ]
        lines.append(markdown_row(f"**{verdict}**", count, "; ".join(examples)))
    lines += [
        "",
        f"<details><summary>All {len(claims)}</summary>",
        "",
        *markdown_heading("place | the paper says | verdict | on | found"),
    ]
    for claim in claims:
        words = [claim[key] for key in ("place", "claim", "verdict", "on", "found")]
        lines.append(markdown_row(*words))
    return "\n".join([*lines, "", "</details>"]) + "\n\n"
