"""What a batch says while it runs: the time left by hand, a refusal in its sentence."""

import json
import logging
import os
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from snakemake_interface_logger_plugins.common import LogEvent

from reidsa_utils.experiments import grid, progress


def report(message="", event=None, level=logging.INFO, **values):
    """A report as Snakemake's logger gives it."""
    record = logging.LogRecord("snakemake", level, "", 0, message, (), None)
    record.__dict__ |= {"event": event, **values}
    return record


def batch(folder, runs, at_a_time, finished_before=0):
    lines = progress.Lines(folder)
    lines.at_a_time = at_a_time
    for name in list(runs)[:finished_before]:
        (folder / name).mkdir(parents=True)
        (folder / name / "record.json").touch()
    lines.add(runs)
    return lines


def finish(lines, name, seconds):
    """A run of the batch begins, takes so long, and is done."""
    lines.filter(report(event=LogEvent.JOB_INFO, jobid=1, wildcards={"run": name}))
    lines.jobs[1] = (name, time.time() - seconds)
    (lines.folder / name).mkdir(parents=True, exist_ok=True)
    (lines.folder / name / "record.json").touch()
    lines.filter(report(event=LogEvent.JOB_FINISHED, job_id=1))


def test_the_time_left_by_hand(tmp_path, capsys):
    """Nine alike, six finished before, four at a time: the first of three took ten minutes."""
    runs = grid.runs_of("table3", grid.read_settings({"seeds": 9, "benchmarks": "market1501"}))
    runs = {name: p for name, p in runs.items() if p["form"] == "none"}
    assert len(runs) == 9
    lines = batch(tmp_path, runs, at_a_time=4, finished_before=6)
    finish(lines, list(runs)[6], seconds=600)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"[7/9] {list(runs)[6]}: 10 min, about 10 min left"  # both at once
    lines.at_a_time = 1
    finish(lines, list(runs)[7], seconds=600)
    finish(lines, list(runs)[8], seconds=600)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"[8/9] {list(runs)[7]}: 10 min, about 10 min left"
    assert said[2] == f"[9/9] {list(runs)[8]}: 10 min"


def test_a_run_at_work_has_less_left(tmp_path):
    runs = grid.runs_of("reproduce", grid.read_settings({}))
    lines = batch(tmp_path, runs, at_a_time=1)
    first, second, third = runs
    finish(lines, first, seconds=300)
    lines.jobs[2] = (second, time.time() - 180)
    assert lines.time_left() == f", about {grid.duration(120 + 300)} left"
    (tmp_path / third).mkdir()
    (tmp_path / third / "record.json").touch()
    assert lines.time_left() == f", about {grid.duration(120)} left"


def test_a_failure_is_said_once(tmp_path, capsys):
    runs = grid.runs_of("reproduce", grid.read_settings({}))
    lines, name = batch(tmp_path, runs, at_a_time=1), next(iter(runs))
    (tmp_path / name).mkdir()
    (tmp_path / name / "papermill.log").write_text("Executing\nInputError: no disk\n  at last\n")
    for _ in range(2):  # a failed run is tried twice
        lines.filter(report(event=LogEvent.JOB_INFO, jobid=1, wildcards={"run": name}))
        lines.filter(report(event=LogEvent.JOB_ERROR, jobid=1, level=logging.ERROR))
    said = capsys.readouterr().err
    assert said.count("error: InputError: no disk\n") == 1
    assert said.count(str(tmp_path / name / "05_train.ipynb")) == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "InputFunctionException in rule curves:\nError:\n  InputError: data is real\nWildcards:",
            "error: data is real",
        ),
        (
            "MissingRuleException:\nNo rule to produce tabels (if you use input functions ...)",
            "did you mean tables?",
        ),
        ("OSError: the disk is gone", "OSError: the disk is gone"),  # what is unknown stays whole
    ],
)
def test_a_refusal_is_one_sentence(tmp_path, text, shown):
    record = report(text, LogEvent.ERROR, logging.ERROR)
    assert progress.Lines(tmp_path).filter(record)
    assert shown in record.getMessage() and "Wildcards" not in record.getMessage()


def test_a_failed_notebook_is_told(tmp_path):
    """All runs are there; the notebook over them failed: its sentence, and what to open."""
    runs = grid.runs_of("reproduce", grid.read_settings({}))
    for name in runs:
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_text(json.dumps({}))
    notebook = tmp_path / "06_tables.ipynb"
    notebook.with_suffix(".log").write_text("ValueError: no table\n")
    (tmp_path / "06_tables.failed").touch()
    [line] = progress.summary({"reproduce": runs}, tmp_path, {"reproduce": [notebook]})
    assert line.startswith("error: ValueError: no table\n")
    assert str(tmp_path / "06_tables.running.ipynb") in line


def test_texts_are_utf8_whatever_the_machine_says(tmp_path):
    """An executed notebook, a log and the claims are read where the code page is ASCII (so is cp949 to most of them)."""
    cells = [{"outputs": [{"text": ["mAP (parts, rendered): trained 0.4, Δ 0.1\n"]}]}]
    notebook = tmp_path / "05_train.ipynb"
    notebook.write_text(json.dumps({"cells": cells}, ensure_ascii=False), encoding="utf-8")
    log = tmp_path / "papermill.log"
    log.write_text("Executing\nInputError: größer\n", encoding="utf-8")
    code = (
        "import sys, pathlib; from reidsa_utils.experiments import claims, progress; "
        "notebook, log = map(pathlib.Path, sys.argv[1:]); "
        "progress.show(progress.conclusion(notebook)); progress.show(progress.failure(notebook, log)); "
        "progress.show(str(claims.problems(claims.read_claims())))"
    )
    old = {
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "ascii",
    }
    done = subprocess.run(
        [sys.executable, "-c", code, str(notebook), str(log)],
        cwd=ROOT,
        env=os.environ | old,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode("ascii").splitlines()
    assert lines[0] == r"mAP (parts, rendered): trained 0.4, \u0394 0.1"
    assert lines[1] == r"error: InputError: gr\xf6\xdfer" and lines[-1] == "[]"
