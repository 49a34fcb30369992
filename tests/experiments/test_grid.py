"""Targets of batches: which runs, and what is refused before the first of them."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from made_records import record

from reidsa_utils import InputError, cores
from reidsa_utils.config import configure, run_settings
from reidsa_utils.data import LAYOUTS
from reidsa_utils.experiments import grid
from reidsa_utils.experiments.records import published_name
from reidsa_utils.model import RECIPES, VARIANTS, ReIDNet

SMALL = {"profile": "smoke", "seeds": 1, "benchmarks": "market1501"}


def runs(target, **settings):
    return grid.runs_of(target, grid.read_settings(settings))


def cells(batch):
    keys = ("benchmark", "variant", "form", "erasing")
    return {tuple(p[key] for key in keys) for p in batch.values()}


def test_sixteen_cells():
    """Table 2: 8 variants; Table 3: 4 benchmarks, with and without SA; Table 1: four of those."""
    sizes = {t: len(runs(t, seeds=1)) for t in ("table1", "table2", "table3", "tables", "curves")}
    assert sizes == {"table1": 4, "table2": 8, "table3": 8, "tables": 16, "curves": 10}
    assert set(runs("table1", seeds=1)) < set(runs("table3", seeds=1))
    table2 = {("market1501", v, "softmax" if "sa" in v else "none", False) for v in VARIANTS}
    pair = (("b_p_ds", "none"), ("b_p_ds_sa2", "softmax"))
    table3 = {(name, v, form, True) for name in LAYOUTS for v, form in pair}
    assert cells(runs("tables", seeds=1)) == table2 | table3
    assert len(runs("tables", seeds=3, forms="softmax,l1")) == 3 * (3 + 5 * 2 + 4 * 3)
    # The frozen level of both knobs is one setting.
    assert len(runs("curves", seeds=1, forms="l1")) == 2 * 5
    assert all(configure(p).rerank for p in runs("tables").values())  # Table 1 wants it


def test_the_controls_change_one_thing_at_a_time():
    controls = runs("controls", seeds=1)
    settings = {(p["recipe"], p["variant"], p["form"], p["erasing"]) for p in controls.values()}
    assert len(controls) == len(settings) == 21
    # Five of them are Table 3's on that benchmark.
    table3 = runs("table3", seeds=1, forms="softmax,l1,softmax_mean,sigmoid")
    assert len(set(controls) & set(table3)) == 5
    # Each recipe is run somewhere.
    every = grid.every_run(grid.read_settings({}))
    assert {configure(p).recipe for p in every.values()} == set(RECIPES)


def test_the_main_job_is_table_3_with_both_readings():
    main = runs("reproduce")
    assert cells(main) == {
        ("market1501", "b_p_ds", "none", True),
        ("market1501", "b_p_ds_sa2", "softmax", True),
        ("market1501", "b_p_ds_sa2", "l1", True),
    }
    assert {p["profile"] for p in main.values()} == {"demo"}
    smoke = runs("table3", **SMALL, forms="softmax,l1")
    assert set(runs("reproduce", profile="smoke")) == set(smoke)


def test_a_changed_setting_touches_what_it_changes():
    few, more = runs("tables", seeds=1), runs("tables", seeds=2)
    assert set(few) < set(more)
    assert set(runs("tables", seeds=1, forms="softmax,l1")) > set(few)
    assert not set(runs("tables", seeds=1, epochs=3)) & set(few)
    assert set(runs("table3", seeds=1, benchmarks="dukemtmc_reid")) < set(few)
    # 0.5 changes the runs on Market-1501 only: the others have it already.
    other = runs("tables", seeds=1, dropout=0.5)
    assert {p["benchmark"] for name, p in few.items() if name not in other} == {"market1501"}
    assert len(set(few) & set(other)) == 6


def test_the_long_lists_name_every_run_once():
    """Within a folder of results/ no two runs of the lists share a name: each can be published."""
    names, sizes = {}, {}
    lists = {name: entry for name, entry in grid.GRID.items() if "into" in entry}
    for name, entry in lists.items():
        batch = runs(name)
        for parameters in batch.values():
            config = configure(parameters)
            source = "real" if config.data == "real" else "rendered"
            published = published_name({"config": run_settings(config), "source": source})
            names.setdefault(entry["into"], []).append(published)
        sizes[name] = len(batch)
    assert all(len(set(published)) == len(published) for published in names.values())
    assert sizes == {
        "rates": 45,
        "causes": 21,
        "parts": 9,
        "photographs": 9,
        "photographs_rates": 9,
        "photographs_norm": 1,
        "confirm_table3": 48,
        "confirm_table2": 39,
        "populations": 45,
        "occlusion": 18,
        "view_overlap": 18,
    }


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"profle": "smoke"}, "unknown setting 'profle'; known: seeds, forms, benchmarks, gpus"),
        ({"profle": "smoke"}, "did you mean profile?"),
        ({"profile": "laptopp"}, "unknown profile 'laptopp'; known: smoke, demo"),
        ({"forms": "softmax,none"}, "unknown form of SA 'none'; known: softmax, l1"),
        ({"benchmarks": "market"}, "unknown benchmark 'market'; known: market1501"),
        ({"seeds": 0}, "seeds is 0; expected a whole number from 1 to 1000"),
        ({"seeds": "many"}, "seeds is many"),
        ({"seeds": 10**9}, "seeds is 1000000000"),
        ({"forms": None}, "forms has no value"),
        ({"forms": 1}, "unknown form of SA '1'"),
        ({"data": ""}, "data has no value"),
        ({"rerank": False}, "rerank is set by the targets"),
        ({"weights": "/nowhere.pt"}, "weights is /nowhere.pt, and there is no such file"),
        ({"scale": 0}, "scale is 0.0; expected between 0.001"),
        ({"variant": "b"}, "variant is set by the targets of a batch"),
        ({"epochs": 0}, "epochs is 0 and weights is none"),
        ({"batch": 1.0}, "batch is 1; expected between 2"),
        ({"recipe": "realeased"}, "unknown recipe 'realeased'"),
        ({"data": "real", "occlusion": 0.5}, "occlusion is set by the targets"),
    ],
)
def test_refused_before_anything_runs(settings, words):
    with pytest.raises(InputError, match=re.escape(words)):
        runs("tables", **settings)


@pytest.mark.parametrize(
    ("target", "settings", "words"),
    [
        ("controls", {"recipe": "released"}, "recipe is fixed in controls; leave it out"),
        ("controls", {"forms": "l1"}, "forms is fixed in controls; leave it out"),
        ("table2", {"benchmarks": "market1501"}, "benchmarks is fixed in table2; leave it out"),
        ("rates", {"profile": "smoke"}, "profile is fixed in rates; leave it out"),
        ("rates", {"seeds": 5}, "seeds is fixed in rates; leave it out"),
        ("curves", {"data": "real"}, "curves turns knobs of the renderer; data is real"),
        ("table9", {}, "unknown target 'table9'; known: reproduce, tables, table1"),
    ],
)
def test_refused_by_a_target(target, settings, words):
    with pytest.raises(InputError, match=re.escape(words)):
        runs(target, **settings)


def test_a_missing_data_root_is_found_first(small_benchmark, monkeypatch, tmp_path):
    monkeypatch.delenv("REIDSA_DATA", raising=False)
    with pytest.raises(InputError, match="data=real needs the environment variable REIDSA_DATA"):
        grid.check(runs("table2", data="real"), tmp_path)
    monkeypatch.setenv("REIDSA_DATA", str(small_benchmark.parent))
    # Table 2 wants Market-1501 only, and that is there.
    grid.check(runs("table2", data="real", seeds=1), tmp_path)
    missing = "CUHK03-NP detected: no benchmark in .*CUHK03-NP labeled.*DukeMTMC-reID.*"
    with pytest.raises(InputError, match=missing + "benchmarks=market1501"):
        grid.check(runs("tables", data="real"), tmp_path)
    market = runs("tables", data="real", seeds=1, benchmarks="market1501")
    assert len(market) == 10
    grid.check(market, tmp_path)
    with pytest.raises(
        InputError, match="batch is 9999, and Market-1501 at .* has 207 training images"
    ):
        grid.check(runs("table3", seeds=1, batch=9999, profile="smoke"), tmp_path)


def test_a_folder_has_one_name_however_it_is_written(small_benchmark, monkeypatch):
    monkeypatch.chdir(small_benchmark.parent)
    asked = [grid.read_settings({"data": str(d)}) for d in (small_benchmark.name, small_benchmark)]
    first, second = (list(grid.runs_of("table2", a)) for a in asked)
    assert first == second
    # ... and the folder of the tables no odd characters.
    assert re.fullmatch(r"[A-Za-z0-9_-]+", grid.title("table2", asked[0]))


def own_folder(root, cameras=(1, 2)):
    """Twelve people; only names count here."""
    for person in range(12):
        for c in cameras:
            for k in range(2):
                path = root / f"p{person}" / f"cam{c}_{k}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(f"{person} {c} {k}".encode())
    return root


def test_tables_of_own_data(tmp_path):
    """Table 2 too, which else is Market-1501's; the settings of own data reach every run."""
    data = own_folder(tmp_path / "data")
    settings = {"data": data, "benchmarks": "mydata", "profile": "smoke", "seeds": 1}
    settings["camera_pattern"] = r"cam(\d{1})"
    for target, n in (("table2", 8), ("table3", 2), ("tables", 10)):
        batch = runs(target, **settings)
        assert len(batch) == n and {p["benchmark"] for p in batch.values()} == {"mydata"}
        assert {p["camera_pattern"] for p in batch.values()} == {r"cam(\d{1})"}
        grid.check(batch, tmp_path)
    assert grid.training_images(configure(next(iter(batch.values())))) == 24
    asked = grid.read_settings(settings)
    assert grid.title("tables", asked) == "data-smoke" and grid.threads(asked) == 1
    both = runs("table3", **(settings | {"benchmarks": "mydata,zoo"}))
    assert {p["benchmark"] for p in both.values()} == {"mydata", "zoo"}
    large = runs("table3", **(settings | {"batch": 25}))
    with pytest.raises(InputError, match="batch is 25, and mydata at .* has 24 training images"):
        grid.check(large, tmp_path)


@pytest.mark.parametrize(
    ("target", "settings", "words"),
    [
        ("tables", {"benchmarks": "markt1501"}, "unknown benchmark 'markt1501'; known: market1501"),
        ("tables", {"benchmarks": "mydata", "data": "embedded"}, "unknown benchmark 'mydata'"),
        ("tables", {"benchmarks": "mydata,market1501"}, "camera_pattern is for data of your own"),
        ("controls", {"benchmarks": "mydata"}, "benchmarks is fixed in controls; leave it out"),
        ("curves", {"benchmarks": "mydata"}, "benchmarks is fixed in curves|turns knobs"),
    ],
)
def test_what_a_batch_of_own_data_refuses(tmp_path, target, settings, words):
    base = {"data": own_folder(tmp_path), "camera_pattern": "cam(.)", "profile": "smoke"}
    with pytest.raises(InputError, match=words):
        runs(target, **(base | settings))


def test_a_batch_of_one_camera_is_refused_before_the_first_run(tmp_path):
    settings = {"data": own_folder(tmp_path, (1,)), "benchmarks": "mydata", "profile": "smoke"}
    with pytest.raises(InputError, match="mydata at .* match in another camera.*camera_rule=false"):
        grid.check(runs("table3", **settings), tmp_path)
    grid.check(runs("table3", **settings, camera_rule=False, batch=8), tmp_path)


def test_a_record_of_another_run_is_no_finished_run(tmp_path):
    batch = runs("table3", **SMALL)
    second = list(batch)[1]
    folder = tmp_path / second
    folder.mkdir()
    mine = record("b_p_ds_sa2", "softmax", 0, [1], [1.0])
    mine["identity"] = run_settings(configure(batch[second])) | {"fingerprint": "f"}
    (folder / "record.json").write_text(json.dumps(mine))
    grid.check(batch, tmp_path)
    mine["identity"]["lr"] = 9
    (folder / "record.json").write_text(json.dumps(mine))
    words = "is the record of another run .lr: found 9, expected 0.02.; delete or move its folder"
    with pytest.raises(InputError, match=words):
        grid.check(batch, tmp_path)
    (folder / "record.json").write_text("null")
    with pytest.raises(InputError, match="not a complete run record"):
        grid.check(batch, tmp_path)


def test_one_batch_at_a_time_in_a_folder(tmp_path):
    lock = grid.only_one_batch(tmp_path)
    code = (
        "import pathlib; from reidsa_utils.experiments import grid; "
        f"grid.only_one_batch(pathlib.Path({str(tmp_path)!r}))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "another batch is at work in" in done.stderr
    lock.release()
    assert subprocess.run(command, cwd=ROOT).returncode == 0


def test_a_plan_by_hand(tmp_path):
    small = runs("table3", **SMALL)
    text = grid.plan("table3", small, 2, tmp_path)
    assert text.startswith("table3: 2 runs: 0 finished before, 2 to run")
    laptop = runs("table3", seeds=1, benchmarks="market1501")
    rate = grid.seconds_per_image(configure(next(iter(laptop.values()))))
    assert 0.005 < rate < 0.2  # of the records in results/
    expected = 1.1 * 2 * rate * 12936 * 0.2 * 10 + 2 * grid.START_UP
    two, one = (grid.plan("table3", laptop, jobs, tmp_path) for jobs in (2, 1))
    assert f"about {grid.duration(expected / 2)} with 2 at a time" in two
    assert f"about {grid.duration(expected)} with 1 at a time" in one
    unknown = grid.plan("table2", runs("table2", seeds=1, height=288), 2, tmp_path)
    assert "not known: no finished run of this size" in unknown


def test_a_batch_as_large_as_the_training_set():
    """smoke renders 207 training images of Market-1501: 207 is let pass, 208 is not."""
    grid.check(runs("table3", **SMALL, batch=207), ROOT / "runs" / "nowhere")
    with pytest.raises(
        InputError, match="batch is 208, and Market-1501 at .* has 207 training images"
    ):
        grid.check(runs("table3", **SMALL, batch=208), ROOT / "runs" / "nowhere")


def test_what_a_folder_cannot_give_is_told_before_the_first_run(small_benchmark, tmp_path):
    """A folder's own files count, not what was published: 207 training images, one camera left."""
    data = tmp_path / "data"
    shutil.copytree(small_benchmark, data / small_benchmark.name)
    asked = {"profile": "smoke", "seeds": 1, "data": str(data)}
    grid.check(runs("table2", **asked), tmp_path)
    train = sorted((data / small_benchmark.name / "bounding_box_train").iterdir())
    for path in train[10:]:
        path.unlink()
    with pytest.raises(InputError, match="batch is 16, and Market-1501 at .* has 10 training"):
        grid.check(runs("table2", **asked), tmp_path)
    for path in (data / small_benchmark.name / "query").iterdir():
        if "_c1" not in path.name:
            path.unlink()
    for path in (data / small_benchmark.name / "bounding_box_test").iterdir():
        if "_c1" not in path.name:
            path.unlink()
    with pytest.raises(InputError, match="queries has a match in another camera"):
        grid.check(runs("table2", **asked, batch=8), tmp_path)


def test_weights_that_do_not_fit_are_told_before_the_first_run(tmp_path):
    network = ReIDNet(4, "b", backbone="thin")
    torch.save(network.backbone.state_dict(), tmp_path / "thin.pt")
    asked = SMALL | {"weights": str(tmp_path / "thin.pt")}
    grid.check(runs("table3", **asked), tmp_path)
    with pytest.raises(InputError, match="thin.pt.*mobilenet_v2"):
        grid.check(runs("table3", **asked, backbone="mobilenet_v2"), tmp_path)


def test_a_disk_without_room_is_told_before_the_first_run(tmp_path, monkeypatch):
    """Each run of Table 2 that waits keeps a checkpoint of more than 10 MB."""
    needed = []
    monkeypatch.setattr(grid, "check_room", lambda folder, size: needed.append(size))
    batch = runs("table2", profile="smoke", seeds=2)
    grid.check(batch, tmp_path)
    done = next(iter(batch))
    (tmp_path / done).mkdir()
    finished = record("b", "none", 0, [1], [1.0])
    finished["identity"] = run_settings(configure(batch[done])) | {"fingerprint": "f"}
    (tmp_path / done / "record.json").write_text(json.dumps(finished))
    grid.check(batch, tmp_path)
    assert needed[0] > needed[1] > 10e6 * (len(batch) - 1)


def test_a_file_of_weights_has_one_name_however_it_is_written(tmp_path, monkeypatch):
    """A notebook's kernel runs elsewhere."""
    torch.save({"a": torch.ones(2)}, tmp_path / "w.pt")
    monkeypatch.chdir(tmp_path)
    asked = grid.read_settings({"weights": "w.pt", "profile": "smoke"})
    assert asked.parameters["weights"] == str((tmp_path / "w.pt").resolve())
    with pytest.raises(InputError, match="epochs is 0, and a batch trains"):
        grid.read_settings({"weights": "w.pt", "epochs": 0})


def test_threads_of_a_run():
    asked = [grid.read_settings(s) for s in ({}, {"threads": "2.0"}, {"threads": 0})]
    assert [grid.threads(a) for a in asked] == [1, 2, cores()]


def test_notebook_07_looks_into_three_networks():
    """Of several seeds the first; and it is left out where a form is missing."""
    one = grid.networks_of("reproduce", grid.read_settings({"profile": "smoke"}))
    three = grid.networks_of("reproduce", grid.read_settings({"profile": "smoke", "seeds": 3}))
    assert one == three and set(one) == set(grid.MAP_FORMS)
    made = {}
    for forms in ("softmax,l1", "softmax"):
        products = grid.products("reproduce", grid.read_settings({"forms": forms}))
        made[forms] = [product.rpartition("/")[2] for product in products]
    assert made == {
        "softmax,l1": ["06_tables.ipynb", "07_cam.ipynb"],
        "softmax": ["06_tables.ipynb"],
    }
