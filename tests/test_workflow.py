"""The main job by Snakemake at smoke size: a failure, a second start, a kill, and what is said meanwhile."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT, tracked

from reidsa_utils.experiments import grid

COMMAND = [str(Path(sys.executable).with_name("snakemake"))]
COMMAND += ["--snakefile", str(ROOT / "workflow" / "Snakefile"), "--cores", "2"]
FORMS = ("b_p_ds-none", "b_p_ds_sa2-softmax", "b_p_ds_sa2-l1")


@pytest.fixture(scope="module")
def snakemake(forks):
    """Run Snakemake. The kernels of its jobs are forks; where one is killed, they are as usual."""

    def run(folder, *words, target="reproduce", settings=("profile=smoke",)):
        command = [*COMMAND, target, "--config", *settings, "--directory", str(folder), *words]
        environment = {**os.environ, **forks.environment}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    return run


def numbers(folder):
    """What a batch found, without its times."""
    found = {}
    for path in sorted((folder / "runs").glob("*/record.json")):
        record = json.loads(path.read_text())
        found[path.parent.name] = [record[key] for key in ("identity", "history", "metrics")]
    return found


def products(folder):
    return folder / "runs" / "tables" / "embedded-smoke" / "reproduce"


@pytest.fixture(scope="module")
def broken(tmp_path_factory, snakemake):
    """The main job with a planted failure: the checkpoint of one run is garbage."""
    before = tracked()
    folder = tmp_path_factory.mktemp("batch")
    runs = grid.runs_of("reproduce", grid.read_settings({"profile": "smoke"}))
    [bad] = [name for name, parameters in runs.items() if parameters["form"] == "l1"]
    (folder / "runs" / bad).mkdir(parents=True)
    (folder / "runs" / bad / "checkpoint.pt").write_bytes(b"garbage")
    return folder, bad, snakemake(folder), before


def test_a_failure_is_told_and_stops_nobody_else(broken):
    folder, bad, done, _ = broken
    assert done.returncode == 1
    assert "reproduce: 3 runs: 0 finished before, 3 to run" in done.stderr
    assert "1 of 3 runs are missing; the same command runs only these" in done.stderr
    sentence = (
        r"error: InputError: .*checkpoint.pt is not a readable checkpoint.*delete it to start"
    )
    assert len(re.findall(sentence, done.stderr)) == 1  # though it is tried twice
    notebook = folder / "runs" / bad / "05_train.ipynb"
    assert f"The executed notebook, with the error: {notebook}" in done.stderr
    cells = [c for c in nbformat.read(notebook, 4).cells if c.cell_type == "code"]
    assert any(output.output_type == "error" for cell in cells for output in cell.outputs)
    assert len(numbers(folder)) == 2 and bad not in numbers(folder)
    assert not products(folder).exists()


def test_what_is_said_meanwhile_is_short(broken):
    *_, done, _ = broken
    for number in (1, 2):
        assert re.search(rf"^\[{number}/3\] market1501-smoke-\S+: \d+ (s|min)", done.stderr, re.M)
    assert re.search(r"^\[1/3\] .*, about \d+ (s|min) left$", done.stderr, re.M)
    assert done.stderr.count("times untrained") == 2
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) < 15


def test_the_second_start_runs_only_what_is_missing(broken, snakemake):
    folder, bad, *_ = broken
    before = {p: p.stat().st_mtime_ns for p in (folder / "runs").glob("*/record.json")}
    dry = snakemake(folder, "--dry-run")
    assert dry.returncode == 0 and "2 finished before, 1 to run, about" in dry.stderr
    assert dry.stdout.count("would run ") == 1 and f"would run {bad}" in dry.stdout
    (folder / "runs" / bad / "checkpoint.pt").unlink()
    done = snakemake(folder)
    assert done.returncode == 0, done.stderr
    assert {p: p.stat().st_mtime_ns for p in before} == before and len(numbers(folder)) == 3
    assert "paper's Δ" in done.stdout and "| +2.1 |" in done.stdout


def test_the_main_job_is_whole(broken):
    folder, _, _, before = broken
    place = products(folder)
    figures = ("fig1_cam", "fig5_stages", "fig6_matches", "cam_numbers", "table3_delta")
    assert {path.stem for path in place.glob("*.png")} >= set(figures)
    assert "## Table 3, vector parts" in (place / "tables.md").read_text()
    assert {path.name for path in place.iterdir() if path.is_symlink()} == set(FORMS)
    notebooks = [place / "06_tables.ipynb", place / "07_cam.ipynb"]
    for form in FORMS:
        notebooks.append(place / form / "05_train.ipynb")
        record = json.loads((place / form / "record.json").read_text())
        assert set(record["metrics"]) == {"global", "global+rerank", "parts", "parts+rerank"}
    for path in notebooks:
        cells = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
        assert all(cell.execution_count for cell in cells)
    assert tracked() == before, "running notebooks changes nothing that git tracks"


def test_nothing_is_done_twice(broken, snakemake):
    folder, *_ = broken
    notebook = ROOT / "notebooks" / "05_train.ipynb"
    text, times = notebook.read_bytes(), notebook.stat()
    before = {p: p.stat().st_mtime_ns for p in (folder / "runs").rglob("*.ipynb")}
    try:
        notebook.write_bytes(text)  # saved, not changed
        again = snakemake(folder)
    finally:
        os.utime(notebook, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert again.returncode == 0 and "3 finished before, 0 to run" in again.stderr
    assert {p: p.stat().st_mtime_ns for p in (folder / "runs").rglob("*.ipynb")} == before
    path = next((folder / "runs").glob("*/record.json"))
    path.rename(path.with_suffix(".away"))
    dry = snakemake(folder, "--dry-run")
    path.with_suffix(".away").rename(path)
    assert "1 to run" in dry.stderr  # though its tables are there


def test_a_record_of_another_run_is_told_before_the_first(broken, snakemake):
    folder, bad, *_ = broken
    path = folder / "runs" / bad / "record.json"
    whole = path.read_bytes()
    other = json.loads(whole)
    other["identity"]["epochs"] = 99
    path.write_text(json.dumps(other))
    done = snakemake(folder)
    assert json.loads(path.read_text()) == other
    path.write_bytes(whole)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "epochs: found 99, expected 3" in errors[0]


def test_killed_in_the_middle_gives_the_same_numbers(broken, tmp_path, snakemake):
    """SIGKILL to Snakemake, papermill and the kernels once an epoch is done; then a second start."""
    folder, *_ = broken
    whole = numbers(folder)
    assert len(whole) == 3, "the unbroken batch is the one of the tests above"
    command = [*COMMAND, "table3", "--directory", str(tmp_path)]
    settings = ("profile=smoke", "seeds=1", "benchmarks=market1501", "forms=softmax,l1")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(
        [*command, "--config", *settings], cwd=ROOT, start_new_session=True, **quiet
    )
    deadline = time.time() + 240

    def wait_for(name):
        while not list((tmp_path / "runs").glob(f"*/{name}")):
            assert time.time() < deadline and process.poll() is None
            time.sleep(0.05)

    wait_for("papermill.log")
    beside = snakemake(tmp_path, target="table3", settings=settings)
    wait_for("checkpoint.pt")  # the kill comes at once: runs of this size end in seconds
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert beside.returncode == 1 and "error: another batch is at work in" in beside.stderr
    assert len(numbers(tmp_path)) < 3
    done = snakemake(tmp_path, target="table3", settings=settings)
    assert done.returncode == 0, done.stderr
    assert numbers(tmp_path) == whole


@pytest.mark.parametrize(
    ("target", "settings", "words"),
    [
        ("tables", ["seeeds=3"], "unknown setting 'seeeds'; known: seeds"),
        ("tables", ["profile=laptopp"], "unknown profile 'laptopp'"),
        ("table9", ["seeds=1"], "unknown target 'table9'; known: reproduce, tables, table1"),
        ("controls", ["recipe=released"], "recipe is fixed in controls; leave it out"),
    ],
)
def test_one_sentence_on_the_command_line(tmp_path, snakemake, target, settings, words):
    done = snakemake(tmp_path, target=target, settings=settings)
    assert done.returncode == 1 and not (tmp_path / "runs").exists()
    assert "Traceback" not in done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and words in errors[0], done.stderr
