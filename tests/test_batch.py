"""The batch of the tables: which runs, refusals before the first one, failure, kill and resume with real papermill runs."""

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
from conftest import ROOT, assert_one_sentence
from made_records import record

from reidsa_utils import InputError
from reidsa_utils.config import configure, run_settings
from reidsa_utils.data import LAYOUTS
from reidsa_utils.experiments import grid
from reidsa_utils.experiments.records import publish, read_records
from reidsa_utils.model import RECIPES, VARIANTS

SMALL = {"profile": "smoke", "seeds": 1, "benchmarks": "market1501"}


def names(targets, **settings):
    return grid.make_batch(settings, [targets] if isinstance(targets, str) else targets)


def test_sixteen_cells():
    """Table 2: 8 variants; Table 3: 4 benchmarks, with and without SA; Table 1 is four of those; nothing twice."""
    b = names(["table1", "table2", "table3", "tables"], seeds=1)
    assert {t: len(n) for t, n in b.targets.items()} == {
        "table1": 4,
        "table2": 8,
        "table3": 8,
        "tables": 16,
        "curves": 10,
        "controls": 21,
    }
    assert len(b.runs) == 16 and set(b.targets["table1"]) < set(b.targets["table3"])
    cells = {(p["benchmark"], p["variant"], p["form"], p["erasing"]) for p in b.runs.values()}
    table2 = {("market1501", v, "softmax" if "sa" in v else "none", False) for v in VARIANTS}
    table3 = {
        (name, v, form, True)
        for name in LAYOUTS
        for v, form in (("b_p_ds", "none"), ("b_p_ds_sa2", "softmax"))
    }
    assert cells == table2 | table3
    assert len(names("tables", seeds=3, forms="softmax,l1").runs) == 3 * (3 + 5 * 2 + 4 * 3)
    assert (
        len(names("curves", seeds=1, forms="l1").runs) == 2 * 5
    )  # the frozen level of both knobs is one setting
    controls = names("controls", seeds=1).runs
    assert (
        len(controls) == 21
        and len({(p["recipe"], p["variant"], p["form"], p["erasing"]) for p in controls.values()})
        == 21
    )
    listed = [entry["runs"].get("recipe", "paper") for entry in grid.EVIDENCE.values()]
    listed = {
        recipe for entry in listed for recipe in (entry if isinstance(entry, list) else [entry])
    }
    assert {p["recipe"] for p in controls.values()} | listed == set(
        RECIPES
    )  # each recipe is run somewhere
    assert (
        len(
            set(controls)
            & set(names("table3", seeds=1, forms="softmax,l1,softmax_mean,sigmoid").runs)
        )
        == 5
    )  # the same runs
    with pytest.raises(
        InputError, match="found recipe among the settings; recipe, forms and benchmarks are fixed"
    ):
        names("controls", recipe="released")
    assert all(configure(p).rerank for p in b.runs.values())  # Table 1 wants it


def test_a_changed_setting_touches_what_it_changes():
    few, more = names("tables", seeds=1).runs, names("tables", seeds=2).runs
    assert set(few) < set(more)
    assert set(names("tables", seeds=1, forms="softmax,l1").runs) > set(few)
    assert not set(names("tables", seeds=1, epochs=3).runs) & set(few)
    assert set(names("table3", seeds=1, benchmarks="dukemtmc_reid").runs) < set(few)
    wetter = names(
        "tables", seeds=1, dropout=0.5
    ).runs  # changes Market-1501's runs only: the others have 0.5 already
    assert {p["benchmark"] for n, p in few.items() if n not in wetter} == {"market1501"} and len(
        set(few) & set(wetter)
    ) == 6


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"profle": "smoke"},
            "unknown setting 'profle'; known: seeds, forms, benchmarks, gpus, data",
        ),
        ({"profile": "laptopp"}, "unknown profile 'laptopp'; known: smoke, demo"),
        ({"forms": "softmax,none"}, "unknown form of SA 'none'; known: softmax, l1"),
        ({"benchmarks": "market"}, "unknown benchmark 'market'; known: market1501"),
        ({"seeds": 0}, "seeds is 0; expected a whole number from 1 to 1000"),
        ({"seeds": "many"}, "seeds is many"),
        ({"seeds": 10**9}, "seeds is 1000000000"),
        ({"forms": None}, "forms has no value"),
        ({"forms": 1}, "unknown form of SA '1'"),
        ({"data": ""}, "data has no value"),
        ({"rerank": False}, "rerank is fixed by the cells"),
        ({"weights": "/nowhere.pt"}, "weights is /nowhere.pt, and there is no such file"),
        ({"scale": 0}, "scale is 0.0; expected between 0.001"),
        ({"variant": "b"}, "variant is fixed by the cells of the tables"),
        ({"epochs": 0}, "epochs is 0 and weights is none"),
        ({"recipe": "realeased"}, "unknown recipe 'realeased'"),
        ({"data": "real", "occlusion": 0.5}, "occlusion is fixed by the cells"),
    ],
)
def test_refused_before_anything_runs(settings, words):
    with pytest.raises(InputError, match=re.escape(words)):
        names("tables", **settings)


def test_a_missing_data_root_is_found_first(small_benchmark, monkeypatch, tmp_path):
    monkeypatch.delenv("REIDSA_DATA", raising=False)
    with pytest.raises(InputError, match="data=real needs the environment variable REIDSA_DATA"):
        grid.check(names("table2", data="real"), tmp_path)
    monkeypatch.setenv("REIDSA_DATA", str(small_benchmark.parent))
    grid.check(
        names("table2", data="real", seeds=1), tmp_path
    )  # Table 2 wants Market-1501 only, and that is there
    with pytest.raises(
        InputError,
        match="CUHK03-NP detected: no benchmark in .*CUHK03-NP labeled.*DukeMTMC-reID.*benchmarks=market1501",
    ):
        grid.check(names("tables", data="real"), tmp_path)
    b = names("tables", data="real", seeds=1, benchmarks="market1501")
    assert len(b.runs) == 10
    grid.check(b, tmp_path)
    with pytest.raises(InputError, match="batch is 9999, and market1501 has 207 training images"):
        grid.check(names("table3", seeds=1, batch=9999, profile="smoke"), tmp_path)
    with pytest.raises(InputError, match="curves turns knobs of the renderer; data is real"):
        names("curves", data="real")
    # a folder has one name however it is written, and the tables' folder no odd characters
    monkeypatch.chdir(small_benchmark.parent)
    a, c = names("table2", data=small_benchmark.name), names("table2", data=f"{small_benchmark}/")
    assert list(a.runs) == list(c.runs) and re.fullmatch(r"[A-Za-z0-9_-]+", a.title)


def test_a_record_of_another_run_is_no_finished_run(tmp_path):
    b = names("table3", **SMALL)
    first, second = b.runs
    folder = tmp_path / second
    folder.mkdir()
    mine = record("b_p_ds_sa2", "softmax", 0, [1], [1.0])
    mine["identity"] = run_settings(configure(b.runs[second])) | {"fingerprint": "f"}
    (folder / "record.json").write_text(json.dumps(mine))
    grid.check(b, tmp_path)
    mine["identity"]["lr"] = 9
    (folder / "record.json").write_text(json.dumps(mine))
    with pytest.raises(
        InputError,
        match="is the record of another run .lr: found 9, expected 0.02.; delete or move its folder",
    ):
        grid.check(b, tmp_path)
    (folder / "record.json").write_text("null")
    with pytest.raises(InputError, match="no complete run record"):
        grid.check(b, tmp_path)


def test_one_batch_at_a_time_in_a_folder(tmp_path):
    lock = grid.only_one_batch(tmp_path)
    code = f"import pathlib; from reidsa_utils.experiments import grid; grid.only_one_batch(pathlib.Path({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "another batch is at work in" in done.stderr
    lock.release()
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_plan_and_status_by_hand(tmp_path):
    b = names("table3", **SMALL)
    assert grid.plan(b, 2, tmp_path).startswith("2 runs: 0 finished before, 2 to run")
    laptop = names("table3", seeds=1, benchmarks="market1501")
    rate = grid.seconds_per_image(configure(next(iter(laptop.runs.values()))))
    assert 0.005 < rate < 0.2  # of the records in results/
    expected = 1.1 * 2 * rate * 12936 * 0.2 * 10 + 2 * grid.START_UP
    assert f"about {grid.hours(expected / 2)} with 2 at a time" in grid.plan(laptop, 2, tmp_path)
    assert f"about {grid.hours(expected)} with 1 at a time" in grid.plan(laptop, 1, tmp_path)
    assert "not known" in grid.plan(names("table2", seeds=1, height=288), 2, tmp_path)
    first, second = b.runs
    for name in (first, second):
        (tmp_path / name).mkdir()
        (tmp_path / name / "papermill.log").write_text("")
        progress = {
            "stage": "training",
            "done": 50 if name == first else 0,
            "totals": {"training": 100, "evaluating": 0},
        }
        (tmp_path / name / "progress.json").write_text(
            json.dumps(progress | {"epoch": 2, "loss": 3.0})
        )
    assert (
        grid.status(b, tmp_path)["running"] == []
    )  # no batch is at work: what is there was left behind
    lock = grid.only_one_batch(tmp_path)
    time.sleep(0.05)
    (tmp_path / first / "papermill.log").touch()
    os.utime(tmp_path / second / "papermill.log", (0, 0))  # of a batch that was killed long ago
    grid.status(b, tmp_path)
    time.sleep(0.05)
    now = grid.status(b, tmp_path)  # a second look sees the same
    assert (now["done"], now["running"], now["waiting"], now["failed"]) == (
        [],
        [first],
        [second],
        [],
    ) and now["share"] == 0.25
    text = grid.line(now, now | {"share": 0.0}, 60.0, tmp_path)
    assert (
        "1 running, 1 waiting" in text
        and "about 3 min left" in text
        and "epoch 2, loss 3.00" in text
    )
    (tmp_path / second / "failed").touch()
    assert grid.status(b, tmp_path)["failed"] == [second]
    (tmp_path / second / "record.json").write_text("{}")
    now = grid.status(b, tmp_path)
    assert now["share"] == 0.75 and now["done"] == [second] and not now["failed"]
    for broken in ("null", "[]", "{}", '{"stage": 1'):
        (tmp_path / first / "progress.json").write_text(broken)
        assert grid.status(b, tmp_path)["share"] == 0.5
    lock.release()


def test_publish(tmp_path):
    runs = [record("b_p_ds", "none", s, [1], [0.5]) for s in (0, 1)] + [
        record("b_p_ds_sa2", "l1", 0, [2], [0.4])
    ]
    runs.append(record("b_p_ds_sa2", "l1", 0, [2], [0.4]))
    runs[3]["config"] |= {"occlusion": 0.6}
    for i, r in enumerate(runs):
        (tmp_path / "runs" / str(i)).mkdir(parents=True)
        (tmp_path / "runs" / str(i) / "record.json").write_text(json.dumps(r, indent=1))
    into = tmp_path / "published"
    found = [p.name for p in publish([tmp_path / "runs" / "0", tmp_path / "runs"], into)]
    assert found[0] == "market1501-rendered-laptop-b_p_ds-none-paper-erasing-e10-s0.json"
    assert (
        "market1501-rendered-laptop-b_p_ds_sa2-l1-paper-erasing-occlusion0.6-e10-s0.json" in found
        and len(set(found)) == 4
    )
    assert sorted(json.dumps(r) for r in read_records(into)) == sorted(
        json.dumps(r) for r in runs
    )  # shorter text, same content
    before = {p: p.stat().st_mtime_ns for p in into.iterdir()}
    runs[1]["identity"] = {"fingerprint": "other data"}
    (tmp_path / "runs" / "1" / "record.json").write_text(json.dumps(runs[1]))
    with pytest.raises(InputError, match="holds another run of this name"):
        publish([tmp_path / "runs"], into)
    (tmp_path / "runs" / "1" / "record.json").write_text(json.dumps(runs[0] | {"seconds": 1}))
    with pytest.raises(
        InputError,
        match="another record are both of the run market1501-rendered-laptop-b_p_ds-none-paper-erasing-e10-s0",
    ):
        publish([tmp_path / "runs"], into)
    (tmp_path / "runs" / "1" / "record.json").write_text(json.dumps(runs[1] | {"config": {}}))
    with pytest.raises(InputError, match="no complete run record: benchmark, variant"):
        publish([tmp_path / "runs"], into)
    assert {p: p.stat().st_mtime_ns for p in into.iterdir()} == before  # all or nothing


# ---- real batches: three papermill runs of 05_train at smoke size --------------------------------------------------------------

COMMAND = [
    str(Path(sys.executable).with_name("snakemake")),
    "--snakefile",
    str(ROOT / "workflow" / "Snakefile"),
    "--cores",
    "2",
    "table3",
    "--config",
    "profile=smoke",
    "seeds=1",
    "benchmarks=market1501",
    "forms=softmax,l1",
    "--directory",
]


def snakemake(folder, *more):
    return subprocess.run([*COMMAND, str(folder), *more], cwd=ROOT, capture_output=True, text=True)


def numbers(folder):
    """What a batch found, without its times."""
    return {
        p.parent.name: {
            k: v
            for k, v in json.loads(p.read_text()).items()
            if k in ("identity", "history", "metrics")
        }
        for p in sorted((folder / "runs").glob("*/record.json"))
    }


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A batch with a planted failure: the checkpoint of one run is garbage. What it printed, and its folder."""
    folder = tmp_path_factory.mktemp("batch")
    bad = next(
        name
        for name, p in names("table3", **SMALL, forms="softmax,l1").runs.items()
        if p["form"] == "l1"
    )
    (folder / "runs" / bad).mkdir(parents=True)
    (folder / "runs" / bad / "checkpoint.pt").write_bytes(b"garbage")
    return folder, bad, snakemake(folder)


def test_a_failure_is_told_and_stops_nobody_else(broken):
    folder, bad, done = broken
    assert done.returncode == 1
    assert "3 runs: 0 finished before, 3 to run" in done.stderr
    assert "1 of 3 runs are missing; the same command runs only these" in done.stderr
    assert re.search(
        r"error: InputError: .*checkpoint.pt is not a readable checkpoint.*delete it to start this run anew",
        done.stderr,
    )
    notebook = folder / "runs" / bad / "05_train.ipynb"
    assert f"The executed notebook, with the error: {notebook}" in done.stderr
    cells = nbformat.read(notebook, 4).cells
    assert any(o.output_type == "error" for c in cells if c.cell_type == "code" for o in c.outputs)
    assert len(numbers(folder)) == 2 and bad not in numbers(folder)
    assert not (folder / "runs" / "tables" / "embedded-smoke" / "table3" / "tables.md").exists()
    assert re.search(r"\[\d\d:\d\d\] \d done, \d running, \d waiting, \d failed", done.stderr)


def test_the_second_start_runs_only_what_is_missing(broken):
    folder, bad, _ = broken
    before = {p: p.stat().st_mtime_ns for p in (folder / "runs").glob("*/record.json")}
    dry = snakemake(folder, "--dry-run")
    assert dry.returncode == 0 and "2 finished before, 1 to run, about" in dry.stderr
    assert dry.stdout.count("would run ") == 1 and f"would run {bad}" in dry.stdout
    (folder / "runs" / bad / "checkpoint.pt").unlink()
    done = snakemake(folder)
    assert done.returncode == 0, done.stderr
    assert {p: p.stat().st_mtime_ns for p in before} == before and len(numbers(folder)) == 3
    place = folder / "runs" / "tables" / "embedded-smoke" / "table3"
    assert (
        "## Table 3, vector parts" in (place / "tables.md").read_text()
        and (place / "table3_delta.png").exists()
    )
    notebook = ROOT / "notebooks" / "05_train.ipynb"
    text, times = notebook.read_bytes(), notebook.stat()
    try:
        notebook.write_bytes(text)  # saved, not changed
        again = snakemake(folder)
    finally:
        os.utime(notebook, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert again.returncode == 0 and "Nothing to be done" in again.stderr + again.stdout
    path = next(iter(before))
    path.rename(path.with_suffix(".away"))
    dry = snakemake(folder, "--dry-run")
    path.with_suffix(".away").rename(path)
    assert (
        "1 to run" in dry.stderr and "Nothing to be done" not in dry.stderr + dry.stdout
    )  # though its tables are there


def test_killed_in_the_middle_gives_the_same_tables(broken, tmp_path):
    """SIGKILL to Snakemake, papermill and the kernels once an epoch is done; the second start ends with the same numbers."""
    folder, *_ = broken
    whole = numbers(folder)
    assert len(whole) == 3, "the unbroken batch is the one of the tests above"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([*COMMAND, str(tmp_path)], cwd=ROOT, start_new_session=True, **quiet)
    deadline = time.time() + 240
    while not list((tmp_path / "runs").glob("*/checkpoint.pt")):
        assert time.time() < deadline and process.poll() is None
        time.sleep(0.05)
    now = grid.status(
        names("table3", **SMALL, forms="softmax,l1"), tmp_path / "runs"
    )  # from another process
    second = snakemake(tmp_path)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert now["running"] and len(now["running"]) <= 2
    assert second.returncode == 1 and "is at work in" in second.stdout + second.stderr + "".join(
        log.read_text() for log in tmp_path.glob(".snakemake/log/*.log")
    )
    assert len(numbers(tmp_path)) < 3
    done = snakemake(tmp_path)
    assert done.returncode == 0, done.stderr
    assert numbers(tmp_path) == whole
    tables = [
        f / "runs" / "tables" / "embedded-smoke" / "table3" / "tables.md"
        for f in (folder, tmp_path)
    ]
    assert tables[0].read_text() == tables[1].read_text()


def test_one_sentence_on_the_command_line(command, tmp_path):
    assert_one_sentence(
        command("-m", "reidsa_utils", "plan", "tables", "profile=laptopp"),
        "unknown profile 'laptopp'",
    )
    assert_one_sentence(
        command("-m", "reidsa_utils", "plan", "table9"),
        "unknown target 'table9'; known: tables, table1",
    )
    assert_one_sentence(command("-m", "reidsa_utils", "publish", tmp_path / "nothing"), "no folder")
    done = command(
        "-m",
        "reidsa_utils",
        "plan",
        "--jobs",
        "1",
        "table3",
        "profile=smoke",
        "seeds=1",
        "benchmarks=market1501",
    )
    assert (
        done.returncode == 0 and "2 runs" in done.stdout and done.stdout.count("smoke-b_p_ds") == 2
    )
    done = command(
        "-m", "reidsa_utils", "status", "table3", "--runs", tmp_path, "profile=smoke", "seeds=1"
    )
    assert done.returncode == 0 and "0 done, 0 running, 8 waiting" in done.stdout
    assert (
        command("-m", "reidsa_utils", "plan", "--jobs", "0").returncode
        == command("-m", "reidsa_utils", "plan", "--job").returncode
        == 2
    )
    done = subprocess.run(
        [*COMMAND[:5], "--config", "seeeds=3", "--directory", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (
        done.returncode == 1
        and "unknown setting 'seeeds'; known: seeds" in done.stdout + done.stderr
    )
    assert "Traceback" not in done.stdout + done.stderr and not (tmp_path / "runs").exists()
