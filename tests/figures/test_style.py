"""Figures: seen in a notebook whatever MPLBACKEND says, and written where they belong."""

import re
from ast import literal_eval

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
from conftest import ROOT, tracked
from nbclient import NotebookClient

from reidsa_utils.config import configure
from reidsa_utils.experiments.parameters import notebook_parameters
from reidsa_utils.figures.differences import one_change
from reidsa_utils.figures.style import save_figure, show_inline


@pytest.fixture
def figure():
    fig, _ = plt.subplots()
    yield fig
    plt.close(fig)


def test_a_figure_goes_to_the_run_that_it_shows(figure, tmp_path, monkeypatch):
    usual = tmp_path / "usual"
    monkeypatch.setenv("REIDSA_FIGURES", str(usual))
    committed = (None, "", "results", "results/maps", ROOT / "results", str(ROOT / "results") + "/")
    for k, shows in enumerate(committed):
        save_figure(figure, f"{k}.png", shows)
    save_figure(figure, "own.png", tmp_path / "run")
    assert sorted(path.name for path in usual.iterdir()) == [f"{k}.png" for k in range(6)]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["own.png"]


def test_the_same_figure_has_the_same_bytes(figure, tmp_path):
    save_figure(figure, "a.png", tmp_path)
    save_figure(figure, "b.png", tmp_path)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_outside_a_notebook_nothing_is_changed():
    before = plt.get_backend()
    show_inline("jpeg")
    assert plt.get_backend() == before


def execute(name, cells, **replaced):
    """The first code cells of a notebook, executed with other parameters."""
    notebook = nbformat.read(ROOT / "notebooks" / name, 4)
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "code"][:cells]
    for cell in notebook.cells:
        cell.outputs = []
    for old, new in replaced.items():
        assert old in notebook.cells[0].source
        notebook.cells[0].source += f"\n{old} = {new!r}"
    resources = {"metadata": {"path": str(ROOT / "notebooks")}}
    NotebookClient(notebook, timeout=300, resources=resources).execute()
    return notebook


def pictures(notebook):
    shown = [o.get("data", {}) for cell in notebook.cells for o in cell.get("outputs", [])]
    return sum("image/png" in data or "image/jpeg" in data for data in shown)


@pytest.mark.parametrize("backend", ["Agg", "svg", "TkAgg"])
def test_pictures_are_seen_whatever_mplbackend_says(monkeypatch, backend):
    monkeypatch.setenv("MPLBACKEND", backend)
    assert pictures(execute("01_gap_vs_sa.ipynb", 2)) == 1


def test_the_run_whose_picture_05_keeps_is_that_of_its_own_defaults():
    """Cell draw-people: figures/embedded_benchmark.png is drawn by this run and by no other."""
    notebook = nbformat.read(ROOT / "notebooks" / "05_train.ipynb", 4)
    source = {cell.id: cell.source for cell in notebook.cells}
    defaults = {}
    exec(source["parameters"], defaults)
    usual = re.search(r"config == configure\((.+)\) else", source["draw-people"]).group(1)
    assert configure(notebook_parameters(defaults)) == configure(literal_eval(usual))


def test_a_smoke_run_of_05_draws_over_no_picture_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.delenv("REIDSA_FIGURES", raising=False)
    before = tracked()
    notebook = execute("05_train.ipynb", 5, profile="smoke", threads=1, run_dir=str(tmp_path))
    assert pictures(notebook) == 1
    assert tracked() == before
    assert (tmp_path / "embedded_benchmark.png").exists()


def test_large_changes_have_a_panel_of_their_own(tmp_path):
    """So that a difference of 60 points does not hide those of two."""
    rows = pd.DataFrame(
        [
            {"change": name, "vector": "parts", "seeds": 3, "Δ": delta, "low": delta - half}
            | {"high": delta + half, "deltas": [delta - 1, delta, delta + 1]}
            for name, delta, half in (("sum", -60, 5), ("one", -2, 1), ("other", 1, 3))
        ]
    )
    one_change(rows, 2.0, "changes.png", "made", tmp_path)
    large, small = plt.figure(plt.get_fignums()[-1]).axes
    assert [label.get_text() for label in large.get_yticklabels()] == ["sum"]
    assert "interval of 3 seeds" in small.get_xlabel()
    assert len(small.get_yticklabels()) == 2
    assert small.get_xlim()[0] > -10 and large.get_xlim()[0] < -60
    dots = [line.get_color() for line in small.lines if line.get_marker() == "o"]
    assert dots[0] != dots[1]  # only the first interval leaves zero out
    some = rows[1:].assign(seeds=[1, 3], deltas=[[-2], [0, 1, 2]])
    one_change(some, float("nan"), "changes.png", "made", tmp_path)
    [ax] = plt.figure(plt.get_fignums()[-1]).axes
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == ["one (1 seed)", "other (3 seeds)"] and "of" not in ax.get_xlabel()
    plt.close("all")
    assert [path.name for path in tmp_path.iterdir()] == ["changes.png"]
