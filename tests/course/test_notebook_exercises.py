"""The exercises in the notebooks: announced as their checks know them, empty starters, right answers."""

import contextlib
import io
import re

import matplotlib
import nbformat
import pytest
import torch
from conftest import ROOT

from reidsa_utils.attention import attention_weights, effective_cells
from reidsa_utils.course import check
from reidsa_utils.course.checking import FunctionExercise
from reidsa_utils.course.gap_vs_sa import MAP

NAMES = [exercise.name for exercise in check.EXERCISES]
NOTEBOOKS = sorted({exercise.notebook for exercise in check.EXERCISES})


def cells_of(path):
    return {cell.id: cell for cell in nbformat.read(ROOT / "notebooks" / path, 4).cells}


def cell_id(prefix, exercise):
    return f"{prefix}-{exercise.name.replace('_', '-')}"


def printed(sources):
    """What the last of some cells prints, run in one namespace."""
    namespace = {}
    threads = torch.get_num_threads()
    matplotlib.use("Agg")
    try:
        for source in sources:
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(source, "cell", "exec"), namespace)
        return out.getvalue()
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(threads)


def stored_text(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


def exercise_named(name):
    [exercise] = [e for e in check.EXERCISES if e.name == name]
    return exercise


def test_a_check_has_the_name_of_its_exercise():
    assert len(set(NAMES)) == len(NAMES)
    for exercise in check.EXERCISES:
        assert getattr(check, exercise.name) is exercise


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_three_exercises_from_a_number_to_a_proof(notebook):
    levels = [e.level for e in check.EXERCISES if e.notebook == notebook]
    assert levels == ["change a number", "write", "prove"]


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_announces_the_exercise(name):
    exercise = exercise_named(name)
    cells = cells_of(f"{exercise.notebook}.ipynb")
    asked = cells[cell_id("ask", exercise)].source
    head = f"· {exercise.title} *({exercise.level}, {exercise.minutes} minutes)*"
    assert head in asked.splitlines()[0]
    assert re.search(r"<details><summary>Hint</summary>\n\n.+\n\n</details>$", asked, re.S)
    assert f"](answers/{exercise.notebook}.ipynb#exercise-" in asked
    starter = cells[cell_id("try", exercise)]
    assert "..." in starter.source
    assert re.search(rf"\bcheck\.{exercise.name}\(\w+\)$", starter.source)


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_starter_runs_and_is_told_not_yet(name):
    exercise = exercise_named(name)
    starter = cells_of(f"{exercise.notebook}.ipynb")[cell_id("try", exercise)]
    needed = "from reidsa_utils.course import check"
    assert printed([needed, starter.source]) == f"{exercise.judge(None)}\n"
    assert stored_text(starter).startswith("not yet: ")


@pytest.mark.parametrize(
    "name", [e.name for e in check.EXERCISES if isinstance(e, FunctionExercise)]
)
def test_a_check_calls_the_arguments_as_the_starter_does(name):
    exercise = exercise_named(name)
    starter = cells_of(f"{exercise.notebook}.ipynb")[cell_id("try", exercise)].source
    assert f"({', '.join(exercise.arguments)}):\n" in starter.splitlines(keepends=True)[0]


@pytest.mark.parametrize("name", NAMES)
def test_the_answer_passes(name):
    """The answers' set-up cell and the cell with the solution, which ends in the check."""
    exercise = exercise_named(name)
    cells = cells_of(f"answers/{exercise.notebook}.ipynb")
    set_up = next(cell for cell in cells.values() if cell.cell_type == "code")
    solution = cells[cell_id("solution", exercise)]
    assert re.search(rf"\bcheck\.{exercise.name}\(\w+\)$", solution.source)
    right = f"right: {exercise.right}\n"
    assert printed([set_up.source, solution.source]).endswith(right)
    assert stored_text(solution).endswith(right)
    title = f"{exercise.title[0].lower()}{exercise.title[1:]}"
    heading = cells[cell_id("answer", exercise)].source.splitlines()[0]
    assert heading.lower().endswith(title.lower())


def test_the_hint_for_the_temperature_gives_the_number_that_it_names():
    """Its first call stands alone: T is a slider there until the reader's own cell has run."""
    hint = cells_of("01_gap_vs_sa.ipynb")["ask-three-positions"].source.split("<details>")[1]
    call = re.search(r"`(attention_weights\(.*?\))`", hint)[1]
    weights = eval(call, {"attention_weights": attention_weights, "f": MAP[0]})
    assert f"gave the {effective_cells(weights).item():.2f}." in hint


def test_the_exercises_of_02_run_in_float64():
    """f is float64 there, and a float32 J would fail the comparisons that exercise 2 asks for."""
    cells = list(cells_of("02_gradient_check.ipynb").values())
    first = next(i for i, cell in enumerate(cells) if cell.id == "try-negative-case-one")
    sources = "\n".join(cell.source for cell in cells[: first + 1] if cell.cell_type == "code")
    assert re.findall(r"set_default_dtype\(torch\.(\w+)\)", sources)[-1] == "float64"
