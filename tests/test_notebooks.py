"""Notebooks: executed top to bottom, strict where outputs are deterministic, the whole main job at smoke size."""

import ast
import json
import os
import re
import subprocess
import sys

import nbformat
import papermill
import pytest
from conftest import ROOT, own_data
from forks import Forks

from reidsa_utils.config import Config

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
APPENDIX = sorted((ROOT / "notebooks" / "appendix").glob("*.ipynb"))
ANSWERS = sorted((ROOT / "notebooks" / "answers").glob("*.ipynb"))
ALL = NOTEBOOKS + APPENDIX + ANSWERS
STRICT = [
    ["01_gap_vs_sa"],
    ["02_gradient_check"],
    ["03_benchmarks_and_metrics"],
    ["04_model"],
    ["06_tables"],
    ["07_cam"],
    ["08_paper_vs_code"],
    *([f"appendix/{p.stem}"] for p in APPENDIX),
    [f"answers/{p.stem}" for p in ANSWERS],
]


@pytest.mark.parametrize("path", ALL, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_executed_top_to_bottom(path):
    """nbval passes a notebook without outputs silently; this does not."""
    cells = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code" and c.source.strip()]
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1)), (
        "run it from top to bottom and save it"
    )
    for cell in cells:
        assert all(o.output_type != "error" for o in cell.outputs)
    shown = json.dumps([c.outputs for c in cells])
    assert not re.search(r"/(home|root|tmp|Users)/", shown), "an output shows a path of one machine"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_opens_and_ends_as_a_lesson(path):
    cells = nbformat.read(path, 4).cells
    for words in (f"# {int(path.stem[:2])} · ", "**You will learn**", "**You need**", "**Takes**"):
        assert words in cells[0].source
    end = "\n".join(c.source for c in cells if c.cell_type == "markdown").partition(
        "\n## Questions"
    )[2]
    assert re.search(r"^## Exercise", end, re.M)
    answers = nbformat.read(ROOT / "notebooks" / "answers" / path.name, 4).cells
    assert f"# Answers to {int(path.stem[:2])} · " in answers[0].source
    answered = "\n".join(c.source for c in answers if c.cell_type == "markdown")
    asked = re.findall(r"^(\d+)\. ", end.split("\n## Exercise")[0], re.M)
    assert len(asked) >= 2 and re.findall(r"^## (?:Question )?(\d+)\b", answered, re.M) == asked
    assert re.search(r"^## Exercise", answered, re.M)


@pytest.mark.parametrize("path", APPENDIX, ids=lambda p: p.stem)
def test_an_appendix_belongs_to_a_notebook(path):
    """It opens like a lesson, and leads back to the notebook whose number it has, which leads to it."""
    cells = nbformat.read(path, 4).cells
    number = f"{int(path.stem[:2])}{path.stem[2]}"
    for words in (f"# {number} · ", "**You will learn**", "**You need**", "**Takes**"):
        assert words in cells[0].source
    [main] = [p for p in NOTEBOOKS if p.stem[:2] == path.stem[:2]]
    assert re.search(rf"Back to \[[^]]+\]\(\.\./{main.name}\)", cells[-1].source)
    assert f"](appendix/{path.name})" in nbformat.read(main, 4).cells[-1].source


@pytest.mark.parametrize("path", ALL, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_draws_whatever_mplbackend_says(path):
    """Without this call MPLBACKEND=Agg leaves a notebook without a picture, and without an error."""
    sources = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    words = ("import matplotlib.pyplot", "import drawings")
    draws = [k for k, source in enumerate(sources) if any(word in source for word in words)]
    calls = [k for k, source in enumerate(sources) if "show_inline(" in source]
    assert calls[: len(draws)] == draws


def test_every_equation_stands_beside_its_line():
    """Eq. 1-12: a numbered equation in a text cell, and its number in a comment of the code that computes it."""
    cells = [
        c
        for name in ("01_gap_vs_sa", "02_gradient_check")
        for c in nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4).cells
    ]
    text, code = (
        "\n".join(c.source for c in cells if c.cell_type == kind) for kind in ("markdown", "code")
    )
    for n in range(1, 13):
        assert f"\\tag{{{n}}}" in text and (
            re.search(rf"# .*eq\. {n}\b", code) or f"eq{n} =" in code
        ), f"eq. {n}"


@pytest.mark.parametrize("names", STRICT, ids=lambda names: names[0])
def test_strict(names, forks):
    """Every stored output is what the cell gives now (nbval)."""
    if names == ["07_cam"]:
        forks = Forks([sys.executable, "-m"], {})  # a kernel of the usual kind
    kernel = "--nbval-kernel-name=python3" if forks.environment else "--nbval-current-env"
    done = subprocess.run(
        [
            *forks.python_m,
            "pytest",
            "-p",
            "no:cacheprovider",
            "-p",
            "nbval.plugin",
            "--nbval",
            kernel,
            "--nbval-sanitize-with",
            "tests/nbval_sanitize.cfg",
            "--nbval-cell-timeout=300",
            *(f"notebooks/{name}.ipynb" for name in names),
        ],
        cwd=ROOT,
        # No other plugin is needed; hypothesis takes a second to load.
        env={**os.environ, **forks.environment, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]


def test_the_parameters_cell_can_be_run_again():
    """Change a parameter in a live notebook, run its cell and the checking cell again: no other name is taken for one."""
    cells = [
        c.source
        for c in nbformat.read(ROOT / "notebooks" / "05_train.ipynb", 4).cells
        if c.cell_type == "code"
    ]
    namespace = {}
    exec(cells[0], namespace)
    exec(cells[1], namespace)
    namespace.update(np=json, features=3, batch=[1, 2])
    exec(cells[0].replace('variant: str = "b_p_ds_sa2"', 'variant: str = "b_ds"'), namespace)
    exec(cells[1], namespace)
    assert namespace["config"].variant == "b_ds" and namespace["config"].batch == 32


def test_the_parameters_cell_holds_every_setting():
    """As papermill reads it (`papermill --help-notebook`): names, types, defaults and meanings."""
    found = papermill.inspect_notebook(str(ROOT / "notebooks" / "05_train.ipynb"))
    assert list(found) == list(Config.model_fields)
    for name, field in Config.model_fields.items():
        kind = getattr(field.annotation, "__name__", "")
        if "None" in str(field.annotation):
            kind = f"Optional[{str(field.annotation).split(' |')[0]}]"
        assert found[name]["inferred_type_name"] == kind
        assert found[name]["help"] == field.description
        if name != "form":  # the notebook trains the form that learns
            assert ast.literal_eval(found[name]["default"]) == field.default
    assert ast.literal_eval(found["form"]["default"]) == "l1"


def test_failures_reach_the_user_in_one_sentence(tmp_path):
    """A misspelt and an impossible parameter of 05_train, which papermill itself would let pass."""
    cases = (
        ("seeed", 3, "unknown parameter 'seeed'; known: benchmark"),
        ("form", "max", "unknown attention form 'max'"),
    )
    for name, value, words in cases:
        command = [
            sys.executable,
            "-m",
            "papermill",
            "notebooks/05_train.ipynb",
            str(tmp_path / "out.ipynb"),
            "--cwd",
            "notebooks",
            "-k",
            "python3",
            "--no-progress-bar",
            "-p",
            name,
            str(value),
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("InputError: ") and words in last


def test_own_data_in_the_notebooks(tmp_path, command):
    """05 trains on a CSV whose images are of one camera; 06 makes its tables, beside no other's."""
    people = own_data(tmp_path / "people", cameras=(1,))
    lines = ["path;identity"]
    lines += [f"{path.relative_to(tmp_path)};{path.parent.name}" for path in people.rglob("*.png")]
    (tmp_path / "mydata.csv").write_text("\n".join(lines), encoding="utf-16")
    common = {"benchmark": "mydata", "data": tmp_path / "mydata.csv", "camera_rule": False}
    common |= {"profile": "smoke", "batch": 8, "threads": 1, "rerank": False}
    runs = [("b_p_ds", "none"), ("b_p_ds_sa2", "l1")]
    parameters = [common | {"variant": v, "form": f, "run_dir": tmp_path / v} for v, f in runs]
    jobs = [("05_train", given) for given in parameters]
    jobs.append(("06_tables", {"records": tmp_path / "tables"}))
    for notebook, given in jobs:
        if notebook == "06_tables":
            words = [tmp_path / v for v, _ in runs] + ["--into", tmp_path / "tables"]
            assert command("-m", "reidsa_utils", "publish", *words).returncode == 0
        words = [f"notebooks/{notebook}.ipynb", tmp_path / f"{notebook}.ipynb"]
        words += ["--cwd", "notebooks", "-k", "python3", "--no-progress-bar"]
        for name, value in given.items():
            words += ["-p", name, value]
        done = command("-m", "papermill", *words)
        assert done.returncode == 0, done.stderr[-3000:]
    lines = (tmp_path / "tables" / "tables.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| real |")]
    # rank-1 and mAP, two vectors
    assert len(rows) == 4
    assert all("camera_rule=False" in row and "| mydata |" in row for row in rows)


@pytest.mark.parametrize("what", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff(what):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *what, "."], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
