"""A run: exact resume after a real kill, atomic files on a full disk, and every refusal in one sentence."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT, assert_one_sentence, options, own_data
from sklearn.metrics import average_precision_score

from reidsa_utils import InputError
from reidsa_utils.attention import FORMS
from reidsa_utils.cli import main
from reidsa_utils.config import configure, run_folder, run_settings
from reidsa_utils.data import load_images
from reidsa_utils.datasets.own import load_own
from reidsa_utils.evaluation import extract
from reidsa_utils.experiments.examine import examine
from reidsa_utils.experiments.pairing import effects
from reidsa_utils.experiments.records import publish, published_name, read_records
from reidsa_utils.experiments.run import (
    Done,
    Run,
    checkpoint_bytes,
    load_run,
    load_weights,
    open_benchmark,
    train,
)
from reidsa_utils.experiments.tables import run_table
from reidsa_utils.model import ReIDNet, loss_weights
from reidsa_utils.support.files import check_room

SMALL = {"profile": "smoke", "threads": 1, "epochs": 3, "rerank": False}


def small(data, run_dir, **more):
    return {**SMALL, "data": str(data), "run_dir": str(run_dir), **more}


def train_command(settings):
    """The command line of a run, for a process of its own."""
    return [sys.executable, "-m", "reidsa_utils", "train", *options(settings)]


@pytest.fixture(scope="module")
def unbroken(small_benchmark, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("unbroken")
    return run_dir, train(configure(small(small_benchmark, run_dir)), progress=False)


def test_record_holds_what_a_table_needs(unbroken, small_benchmark):
    run_dir, record = unbroken
    assert json.loads((run_dir / "record.json").read_text()) == record
    assert (
        record["source"] == "rendered" and record["classes"] == 12 and len(record["history"]) == 3
    )
    for kind in ("global", "parts"):
        m = record["metrics"][kind]
        ap = [v for v in m["average_precision"] if v is not None]
        assert (
            m["mean_ap"] == pytest.approx(np.mean(ap), abs=1e-5)
            and m["skipped"] == 0
            and len(ap) == 54
        )
        assert 0 <= m["mean_ap_trapezoid"] <= m["mean_ap"] <= 1
    assert (
        record["identity"]["fingerprint"]
        and record["code"]["sources"]
        and record["versions"]["torch"] == torch.__version__
    )
    assert str(small_benchmark) not in json.dumps(record)  # no path of this machine
    assert not list(run_dir.glob("*.partial"))


def test_what_is_recorded_inside_a_training(unbroken):
    """Per head losses that add up to the total; gradient norms; what each form would do to the first batch's maps."""
    for line in unbroken[1]["history"]:
        weights = loss_weights(line["losses"])
        assert line["loss"] == pytest.approx(
            sum(weights[k] * v for k, v in line["losses"].items()), rel=1e-4
        )
        assert (
            len(line["gradient"]["mean"]) == len(line["gradient"]["sd"]) == 4
            and min(line["gradient"]["mean"]) > 0
        )
        assert set(line["first_step"]) == set(FORMS)
        none = line["first_step"]["none"]  # 96x32: 24x8, 12x4, 6x2 and again 6x2 cells
        assert none["largest"] == pytest.approx(
            [1 / 192, 1 / 48, 1 / 12, 1 / 12], rel=1e-4
        ) and none["cells"] == pytest.approx([1] * 4)
        for form in ("l1", "softmax"):
            assert all(
                a > b
                for a, b in zip(line["first_step"][form]["largest"], none["largest"], strict=True)
            )
            assert all(0 < c < 1 for c in line["first_step"][form]["cells"])


def test_published_weights_load_again(unbroken, small_benchmark, tmp_path):
    run_dir, record = unbroken
    json_path, path = publish([run_dir], tmp_path / "results", weights=True)
    model, found = load_weights(json_path.stem, tmp_path / "results")
    assert found == record and not model.training and path.stat().st_size < 10e6
    exact = ReIDNet(12, record["config"]["variant"], record["config"]["form"], backbone="thin")
    exact.load_state_dict(torch.load(run_dir / "checkpoint.pt", weights_only=True)["model"])
    images = torch.randn(4, 3, 96, 32)
    with torch.no_grad():
        a, b = model.embed(images, "parts"), exact.eval().embed(images, "parts")
    torch.testing.assert_close(a, b, rtol=0, atol=2e-3)  # half precision: 11 bits
    assert not torch.equal(a, b)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(
        InputError, match="does not hold the weights of its record.*publish it again"
    ):
        load_weights(json_path.stem, tmp_path / "results")
    with pytest.raises(
        InputError, match="no stored weights nobody; there: market1501-rendered-smoke"
    ):
        load_weights("nobody", tmp_path / "results")
    shutil.copy(run_dir / "record.json", tmp_path)
    with pytest.raises(InputError, match="checkpoint.pt cannot be read"):
        publish([tmp_path], tmp_path / "other", weights=True)


def test_a_finished_run_is_read_not_repeated(unbroken, small_benchmark):
    run_dir, record = unbroken
    before = (run_dir / "checkpoint.pt").stat().st_mtime_ns
    assert train(configure(small(small_benchmark, run_dir)), progress=False) == record
    assert (run_dir / "checkpoint.pt").stat().st_mtime_ns == before


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
@pytest.mark.parametrize("kill_at", [1, 2])
def test_killed_run_resumes_exactly(unbroken, small_benchmark, tmp_path, kill_at):
    """SIGKILL in the middle of an epoch, from outside; then the same command again."""
    command = train_command(small(small_benchmark, tmp_path))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.time() + 120
    checkpoint = tmp_path / "checkpoint.pt"
    while time.time() < deadline and process.poll() is None:
        if checkpoint.exists() and torch.load(checkpoint, weights_only=True)["epoch"] >= kill_at:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "record.json").exists(), "the run ended before it could be killed"
    assert torch.load(checkpoint, weights_only=True)["epoch"] >= kill_at
    assert subprocess.run(command, cwd=ROOT, env=environment, capture_output=True).returncode == 0
    record = json.loads((tmp_path / "record.json").read_text())
    run_dir, expected = unbroken
    assert record["metrics"] == expected["metrics"] and record["history"] == expected["history"]
    a, b = (
        torch.load(d / "checkpoint.pt", weights_only=True)["model"] for d in (run_dir, tmp_path)
    )
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_two_processes_with_one_run(unbroken, small_benchmark, tmp_path):
    """As after the kill of a batch whose runs live on: the second waits for the first, and there is one training."""
    command = train_command(small(small_benchmark, tmp_path))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in "ab"
    ]
    (out_a, err_a), (out_b, err_b) = (process.communicate(timeout=240) for process in both)
    assert (
        [process.returncode for process in both] == [0, 0] and out_a == out_b and "rank-1" in out_a
    )
    assert (err_a + err_b).count("another process works on") == 1
    assert sum("training: 100%" in err for err in (err_a, err_b)) == 1  # the other read the record
    record = json.loads((tmp_path / "record.json").read_text())
    assert (
        record["metrics"] == unbroken[1]["metrics"] and record["history"] == unbroken[1]["history"]
    )


def test_knobs_of_the_renderer(tmp_path, monkeypatch):
    """A turned knob gives other data under another name; unset, it is not part of a run's identity."""
    monkeypatch.setattr("reidsa_utils.experiments.run.ROOT", tmp_path)
    plain, wet = (
        configure({"profile": "smoke", "scale": 0.0055} | knob) for knob in ({}, {"occlusion": 1.0})
    )
    assert (
        "occlusion" not in run_settings(plain)
        and run_settings(wet)["occlusion"] == 1.0
        and run_folder(plain) != run_folder(wet)
    )
    a, b = (open_benchmark(config, progress=False) for config in (plain, wet))
    assert (
        a.fingerprint() != b.fingerprint() and a.folder != b.folder and len(a.train) == len(b.train)
    )
    for bad, words in (
        ({"occlusion": 1.5}, "occlusion is 1.5; expected between 0 and 1"),
        (
            {"view_overlap": 0.5, "data": "real"},
            "view_overlap can be turned where the benchmark is rendered; data is real",
        ),
    ):
        with pytest.raises(InputError, match=words):
            configure(bad)


def test_each_rendering_has_a_lock_of_its_own(tmp_path, monkeypatch):
    """Two that differ behind a dot of the name (scale0.001-seed0-..., scale0.001-seed1-...) do not wait for each other."""
    monkeypatch.setattr("reidsa_utils.experiments.run.ROOT", tmp_path)
    for seed in (0, 1):
        settings = {"profile": "smoke", "scale": 0.001, "data_seed": seed}
        open_benchmark(configure(settings), progress=False)
    found = {path.name for path in (tmp_path / "runs" / "data").iterdir()}
    folders = {name for name in found if not name.endswith(".lock")}
    assert len(folders) == 2 and found == folders | {f"{name}.lock" for name in folders}


def test_load_run_gives_the_trained_model(small_benchmark, tmp_path):
    config = configure(
        {
            "profile": "smoke",
            "scale": 0.016,
            "threads": 1,
            "epochs": 1,
            "rerank": False,
            "run_dir": str(tmp_path),
        }
    )
    record = train(config, progress=False)
    model, found, benchmark = load_run(tmp_path)  # embedded data, rendered on first use
    assert (
        not model.training
        and benchmark.fingerprint() == record["identity"]["fingerprint"]
        and found.variant == config.variant
    )
    with pytest.raises(InputError, match="no checkpoint in .*train that run first"):
        load_run(tmp_path / "nothing")


def test_checkpoint_of_another_configuration(unbroken, small_benchmark, tmp_path, run_main):
    shutil.copy(unbroken[0] / "checkpoint.pt", tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    done = run_main(small(small_benchmark, tmp_path, seed=7))
    assert_one_sentence(
        done, "belongs to another configuration", "seed=0 (asked for 7)", "give another run_dir"
    )
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    (tmp_path / "checkpoint.pt").write_bytes(before[: len(before) // 2])
    assert_one_sentence(run_main(small(small_benchmark, tmp_path)), "not a readable checkpoint")
    torch.save(
        {"weight": torch.zeros(3)}, tmp_path / "checkpoint.pt"
    )  # torch can read it, but it is none of ours
    assert_one_sentence(run_main(small(small_benchmark, tmp_path)), "not a readable checkpoint")
    (tmp_path / "record.json").write_text("{")
    assert_one_sentence(run_main(small(small_benchmark, tmp_path)), "record.json is not valid JSON")


@pytest.fixture
def run_main(capfd):
    """The command line in this process: quicker than `command`, the same code and output."""

    def run(parameters):
        capfd.readouterr()
        code = main(
            ["train", *(options(parameters) if isinstance(parameters, dict) else parameters)]
        )
        return SimpleNamespace(returncode=code, stdout="", stderr=capfd.readouterr().err)

    return run


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write past the limit then fails as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
from reidsa_utils.cli import main
raise SystemExit(main(["train", *sys.argv[1:]]))
"""


@pytest.mark.skipif(os.name == "nt", reason="needs resource limits")
def test_disk_full_while_the_checkpoint_is_written(small_benchmark, tmp_path, command):
    done = command(
        "-c", LIMITED.format(limit=1_000_000), *options(small(small_benchmark, tmp_path))
    )
    assert_one_sentence(
        done, "could not write", "checkpoint.pt", "free some space and start the same run again"
    )
    assert not list(tmp_path.glob("*.partial")) and not (tmp_path / "record.json").exists()


@pytest.mark.skipif(os.name == "nt", reason="needs resource limits")
def test_disk_full_while_the_record_is_written(
    unbroken, small_benchmark, tmp_path, command, run_main
):
    shutil.copy(unbroken[0] / "checkpoint.pt", tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    done = command("-c", LIMITED.format(limit=2_000), *options(small(small_benchmark, tmp_path)))
    assert_one_sentence(done, "could not write", "record.json")
    assert (tmp_path / "checkpoint.pt").read_bytes() == before  # nothing lost
    assert run_main(small(small_benchmark, tmp_path)).returncode == 0
    assert json.loads((tmp_path / "record.json").read_text())["metrics"] == unbroken[1]["metrics"]


def test_a_loss_that_is_no_longer_finite_stops_the_run(small_benchmark, tmp_path, run_main):
    done = run_main(small(small_benchmark, tmp_path, lr=100, warmup=0, epochs=5))
    assert_one_sentence(done, "the loss became", "at learning rate 100; lower lr")
    assert not (tmp_path / "record.json").exists()


def test_weights_that_are_no_longer_finite_are_not_kept(small_benchmark, tmp_path):
    """The last update of an epoch has no loss behind it that could tell."""
    config = configure(small(small_benchmark, tmp_path, epochs=2))
    train(config, progress=False, deadline=0)  # makes the folder
    run = Run(config, progress=False, deadline=math.inf)
    trainer, done = run.build(), Done(epoch=1)
    run.save(trainer, done)
    before = run.checkpoint_path.read_bytes()
    with torch.no_grad():
        trainer.model.final.weight[0, 0] = math.nan
    with pytest.raises(InputError, match="no longer finite after epoch 2.*epoch before is kept"):
        run.save(trainer, Done(epoch=2))
    assert run.checkpoint_path.read_bytes() == before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"variant": "b_sa2"}, ["unknown variant 'b_sa2'", "b_ds_sa2"]),
        ({"form": "max"}, ["unknown attention form 'max'", "softmax"]),
        ({"recipe": "theirs"}, ["unknown recipe 'theirs'", "released"]),
        (
            {"recipe": "sa1_on_parts", "variant": "b_sa1"},
            ["weighs the parts by SA1", "b_p_ds_sa12"],
        ),
        ({"profile": "huge"}, ["unknown profile 'huge'", "laptop"]),
        ({"benchmark": "mars"}, ["unknown benchmark 'mars'", "market1501"]),
        ({"epochs": "many"}, ["epochs is 'many'; expected int"]),
        ({"epochs": 2.5}, ["epochs is '2.5'; expected int"]),
        ({"lr": -1}, ["lr is -1.0; expected between 0 and 100"]),
        (
            {"data": "no/such/folder"},
            ["no/such/folder does not exist; expected the folder Market-1501-v15.09.15"],
        ),
        ({"epochs": "inf"}, ["epochs is 'inf'; expected int"]),
        ({"device": "tpu"}, ["unknown device 'tpu'; known: auto, cpu, cuda"]),
        ({"data": "real"}, ["set it to the folder that holds the benchmark"]),
        ({"batch": 5000}, ["batch is 5000", "has 207 training images", "smaller batch"]),
        ({"height": 128}, ["128 pixels high", "the nearest heights that work"]),
        ({"weights": "imagenet"}, ["no ImageNet weights for the thin backbone"]),
    ],
)
def test_bad_settings(small_benchmark, tmp_path, run_main, monkeypatch, settings, words):
    monkeypatch.setenv("REIDSA_DATA", "")
    base = {"profile": "smoke", "data": small_benchmark, "run_dir": tmp_path, "threads": 1}
    assert_one_sentence(run_main(base | settings), *words)
    assert not (tmp_path / "record.json").exists()


def test_settings_reach_the_training(few_people, tmp_path):
    """Flip, erasing, its area and the lower rate of loaded layers change what is trained."""

    def loss(name, **more):
        settings = small(few_people, tmp_path / name, epochs=1, batch=8, **more)
        return train(configure(settings), progress=False)["history"][0]["loss"]

    losses = [
        loss("plain", flip=False, erasing=False),
        loss("flip", erasing=False),
        loss("erasing", flip=False),
        loss("area", flip=False, recipe="released"),
        loss("no area", flip=False, erasing=False, recipe="released"),
        *(
            loss(recipe, recipe=recipe)
            for recipe in ("paper", "no_nesterov", "total_10", "lambda_05")
        ),
    ]
    assert len(set(losses)) == 9
    path = tmp_path / "backbone.pt"
    torch.save(ReIDNet(5, "b", "none", backbone="thin").backbone.state_dict(), path)
    loss("loaded", weights=str(path))
    state = torch.load(tmp_path / "loaded" / "checkpoint.pt", weights_only=True)
    assert state["optimizer"]["param_groups"][0]["lr"] == pytest.approx(
        0.1 * state["optimizer"]["param_groups"][1]["lr"]
    )
    assert state["identity"]["weights"].startswith("state_dict ") and str(
        tmp_path
    ) not in json.dumps(state["identity"])
    torch.manual_seed(99)
    torch.save(
        ReIDNet(5, "b", "none", backbone="thin").backbone.state_dict(), path
    )  # the same name, other weights
    with pytest.raises(InputError, match="belongs to another configuration: weights=state_dict"):
        loss("loaded", weights=str(path))


def test_direct_transfer_and_fine_tuning(unbroken, small_benchmark, tmp_path):
    """No epoch from a run's checkpoint finds what that run found; one more begins there; tables say what it began with."""
    run_dir, whole = unbroken
    weights = str(run_dir / "checkpoint.pt")
    direct = train(
        configure(small(small_benchmark, tmp_path / "direct", epochs=0, weights=weights)),
        progress=False,
    )
    assert (
        direct["metrics"] == whole["metrics"]
        and direct["history"] == []
        and direct["seconds"]["training"] == 0
    )
    assert direct["loaded"] == whole["identity"] and whole["loaded"] is False
    tuned = train(
        configure(small(small_benchmark, tmp_path / "tuned", epochs=1, weights=weights)),
        progress=False,
    )
    assert tuned["history"] != whole["history"]
    assert published_name(tuned).endswith("-loaded-e1-s0") and "loaded" not in published_name(whole)
    began = run_table([whole, direct, tuned]).groupby("epochs").weights.unique()
    assert began.map(list).to_dict() == {
        0: ["rendered market1501"],
        1: ["rendered market1501"],
        3: ["none"],
    }
    assert set(run_table([direct]).weights) == {
        direct["config"]["weights"]
    }  # the run it began with is not among these


def test_half_precision_on_demand(unbroken, small_benchmark, tmp_path):
    """The forward pass in bfloat16, as on a GPU that has it: an epoch from the same start has the losses of float32.

    Later epochs part, as those of two processors do: roundings of 1 in 256 grow from step to step.
    """
    record = train(
        configure(small(small_benchmark, tmp_path, precision="bfloat16")), progress=False
    )
    whole = unbroken[1]
    assert (
        record["precision"] == "bfloat16"
        and whole["precision"] == "float32"
        and record["history"] != whole["history"]
    )
    first, full = record["history"][0], whole["history"][0]
    assert first["loss"] == pytest.approx(full["loss"], rel=0.002) and set(
        first["first_step"]
    ) == set(full["first_step"])
    for form in (
        "l1",
        "softmax_mean",
    ):  # before the first step: one forward pass (sums in an exponent have no eight bits to lose)
        assert first["first_step"][form]["cells"] == pytest.approx(
            full["first_step"][form]["cells"], rel=0.02
        ), form
    losses = [line["loss"] for line in record["history"]]
    assert losses == sorted(losses, reverse=True)  # and it learns


def test_a_decaying_lambda(few_people, tmp_path):
    """Epoch 1 with the full lambda, the last of two with half of it: the history's losses, weighted, give its loss."""
    both = []
    for recipe in ("paper", "lambda_decays"):
        settings = small(few_people, tmp_path / recipe, epochs=2, batch=8, recipe=recipe)
        both.append(train(configure(settings), progress=False)["history"])
    assert both[0][0] == both[1][0] and both[0][1]["loss"] != both[1][1]["loss"]
    for line, lam in zip(both[1], (0.2, 0.1), strict=True):
        weights = loss_weights(line["losses"], lam=lam)
        assert sum(weights[k] * v for k, v in line["losses"].items()) == pytest.approx(
            line["loss"], rel=1e-4
        )


@pytest.mark.parametrize("name", ["dukemtmc_reid", "cuhk03_np_detected"])
def test_the_other_benchmarks_train_too(name, four_benchmarks, tmp_path):
    record = train(
        configure(small(four_benchmarks[name], tmp_path, benchmark=name, epochs=1)), progress=False
    )
    assert (
        record["config"]["benchmark"] == name
        and record["config"]["dropout"] == 0.5
        and record["source"] == "rendered"
    )
    assert (
        record["classes"] == record["counts"]["train"]["ids"]
        and 0 < record["metrics"]["parts"]["mean_ap"] <= 1
    )


def test_truncated_image_in_the_training_set(small_benchmark, tmp_path, run_main):
    copy = shutil.copytree(small_benchmark, tmp_path / "copy")
    victim = sorted((copy / "bounding_box_train").iterdir())[100]
    victim.write_bytes(victim.read_bytes()[:700])
    done = run_main(small(copy, tmp_path / "run"))
    assert_one_sentence(done, victim.name, "truncated")


# What a run cannot do is told before the first epoch.


def people_on_disk(root, files, size=(96, 32)):
    """A benchmark of noise, {split: [(identity, camera, number)]}, under Market-1501's names."""
    rng = np.random.default_rng(0)
    for split, names in files.items():
        (root / split).mkdir(parents=True)
        for identity, camera, number in names:
            person = "-1" if identity == -1 else f"{identity:04d}"
            name = f"{person}_c{camera}s1_{number:06d}_01.jpg"
            cv2.imwrite(str(root / split / name), rng.integers(0, 256, (*size, 3), np.uint8))
    return root


TRAINING = [(p, c, k) for p in (1, 2, 3, 4) for c in (1, 2) for k in (1, 2)]
FIVE = range(10, 15)


@pytest.fixture(scope="module")
def few_people(tmp_path_factory):
    """Enough for two steps of a batch of 8, where a test wants many short trainings."""
    files = {"bounding_box_train": TRAINING, "query": [(p, 1, 0) for p in FIVE]}
    files["bounding_box_test"] = [(p, 2, 1) for p in FIVE]
    return people_on_disk(tmp_path_factory.mktemp("few"), files)


def own_run(tmp_path, query, gallery, training=TRAINING, **more):
    files = {"bounding_box_train": training, "query": query, "bounding_box_test": gallery}
    data = people_on_disk(tmp_path / "data", files)
    settings = {"profile": "smoke", "data": str(data), "epochs": 1, "batch": 8, "threads": 1}
    return configure({**settings, "run_dir": str(tmp_path / "run"), **more})


@pytest.mark.parametrize(
    "query, gallery, words",
    [
        ([(p, 1, 0) for p in FIVE], [(p, 1, 1) for p in FIVE], "queries are of camera 1"),
        (
            [(p, 1, 0) for p in FIVE],
            [(p + 50, 2, 1) for p in FIVE],
            "gallery images of camera 2",
        ),
        ([(p, 1, 0) for p in FIVE], [(0, 2, 1), (-1, 3, 1)], "the 1 gallery images of camera 2"),
        ([(p, 2, 0) for p in FIVE], [(p, 2, k) for p in FIVE for k in (1, 2)], "of camera 2"),
    ],
)
def test_no_match_in_another_camera_is_told_before_the_first_epoch(tmp_path, query, gallery, words):
    config = own_run(tmp_path, query, gallery)
    with pytest.raises(InputError, match="none of the 5 queries has a match") as error:
        train(config, progress=False)
    assert words in str(error.value) and str(tmp_path / "data") in str(error.value)
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_one_match_in_another_camera_is_enough(tmp_path):
    gallery = [(p, 1, 1) for p in FIVE] + [(14, 2, 1)]
    record = train(own_run(tmp_path, [(p, 1, 0) for p in FIVE], gallery), progress=False)
    assert record["metrics"]["global"]["skipped"] == 4


def test_one_training_identity_is_told_before_the_first_epoch(tmp_path):
    gallery = [(p, 2, 1) for p in FIVE]
    config = own_run(tmp_path, [(p, 1, 0) for p in FIVE], gallery, [(7, 1, k) for k in range(9)])
    with pytest.raises(InputError, match="has 1 training identity; .*needs at least 2"):
        train(config, progress=False)


@pytest.mark.parametrize("gallery_images, reranked", [(20, False), (21, True)])
def test_a_gallery_too_small_for_re_ranking_costs_no_plain_number(
    tmp_path, capfd, gallery_images, reranked
):
    """k1 = 20 needs 21 gallery images."""
    numbered = [(10 + k % 5, 2, k) for k in range(gallery_images)]
    config = own_run(tmp_path, [(p, 1, 0) for p in FIVE], numbered)
    record = train(config, progress=False)
    told = f"re-ranking is left out: its neighbourhood is k1 = 20 images, and the gallery has {gallery_images}"
    assert (told in capfd.readouterr().err) is not reranked
    vectors = ["global", "global+rerank", "parts", "parts+rerank"]
    assert list(record["metrics"]) == (vectors if reranked else ["global", "parts"])
    assert record["config"]["rerank"] is reranked
    (tmp_path / "run" / "checkpoint.pt").unlink()
    assert train(config, progress=False) == record  # and it is finished


def test_re_ranking_that_fails_costs_no_plain_number(tmp_path, monkeypatch, capfd):
    """Let the check before the training pass a gallery that is too small, so that rerank() fails."""
    monkeypatch.setattr("reidsa_utils.reranking.K1", 0)
    gallery = [(p, 2, k) for p in FIVE for k in range(3)]
    config = own_run(tmp_path, [(p, 1, 0) for p in FIVE], gallery)
    record = train(config, progress=False)
    assert "the re-ranked numbers are left out: k1=20" in capfd.readouterr().err
    assert list(record["metrics"]) == ["global", "parts"] and not record["config"]["rerank"]
    assert json.loads((tmp_path / "run" / "record.json").read_text()) == record


def test_a_damaged_test_image_is_told_before_the_first_epoch(tmp_path):
    gallery = [(p, 2, k) for p in FIVE for k in range(5)]
    config = own_run(tmp_path, [(p, 1, 0) for p in FIVE], gallery)
    victim = sorted((tmp_path / "data" / "bounding_box_test").iterdir())[-1]
    victim.write_bytes(victim.read_bytes()[:300])
    with pytest.raises(InputError, match=victim.name):
        train(config, progress=False)
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_a_disk_without_room_for_the_checkpoints(small_benchmark, tmp_path):
    """checkpoint_bytes() is the size of the file that a run writes, but for its history."""
    config = configure(small(small_benchmark, tmp_path, epochs=1))
    train(config, progress=False)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    network = ReIDNet(12, config.variant, config.form, backbone=config.backbone)
    network.load_state_dict(state["model"])
    size = (tmp_path / "checkpoint.pt").stat().st_size
    assert 0.95 * size < checkpoint_bytes(network) < size
    free = shutil.disk_usage(tmp_path).free
    check_room(tmp_path / "not" / "there" / "yet", free // 2)
    with pytest.raises(InputError, match="MB left, and the checkpoints need .* MB; free some"):
        check_room(tmp_path / "not" / "there" / "yet", 2 * free)


OWN = {"benchmark": "mydata", "profile": "smoke", "threads": 1, "epochs": 1, "batch": 8}


def test_own_data_from_training_to_a_row_of_a_table(tmp_path, run_main):
    """Train, evaluate, resume, publish, pair, examine: under a name of one's own."""
    data = own_data(tmp_path / "data")
    settings = OWN | {"data": data, "camera_pattern": r"cam(\d+)"}
    records = {}
    for variant, form in (("b_p_ds", "none"), ("b_p_ds_sa2", "l1")):
        run_dir = tmp_path / variant
        given = settings | {"variant": variant, "form": form, "run_dir": run_dir}
        assert run_main(given).returncode == 0
        records[variant] = json.loads((run_dir / "record.json").read_text())
        assert train(configure(given), progress=False) == records[variant]  # read, not repeated

    record = records["b_p_ds_sa2"]
    benchmark = load_own("mydata", data, r"cam(\d+)")
    assert record["identity"]["fingerprint"] == benchmark.fingerprint()
    assert record["identity"]["benchmark"] == record["title"] == "mydata"
    assert record["source"] == "real" and record["counts"] == benchmark.counts
    assert record["reading"] == benchmark.reading and record["classes"] == 6
    assert record["query_ids"] == benchmark.query.ids.tolist() and len(record["query_ids"]) == 12
    text = json.dumps(record)
    assert str(tmp_path) not in text and "person 1" not in text  # neither paths nor people

    # What the record says is what the network does on these images, by scikit-learn's measure.
    model, config, found = load_run(tmp_path / "b_p_ds_sa2", str(data))
    vectors = [
        extract(model, load_images(split.paths, config.height, config.width))["parts"]
        for split in (found.query, found.gallery)
    ]
    expected = []
    for q, vector in enumerate(vectors[0]):
        same = found.gallery.ids == found.query.ids[q]
        kept = ~(same & (found.gallery.cameras == found.query.cameras[q]))
        nearness = -((vectors[1] - vector) ** 2).sum(1)
        expected.append(average_precision_score(same[kept], nearness[kept]))
    assert record["metrics"]["parts"]["average_precision"] == pytest.approx(expected, abs=2e-5)

    names = [path.stem for path in publish([tmp_path], tmp_path / "published")]
    assert all(re.fullmatch(r"mydata-real-smoke-[\w-]+", name) for name in names)
    assert all("-camera_pattern_" in name for name in names)
    rows = effects(read_records(tmp_path / "published"))
    assert set(rows.benchmark) == {"mydata"} and set(rows.table) == {"table3"}
    [row] = rows[(rows.vector == "parts") & (rows.metric == "mAP")].itertuples()
    levels = [100 * records[v]["metrics"]["parts"]["mean_ap"] for v in ("b_p_ds", "b_p_ds_sa2")]
    assert (row.without, row.without + row.Δ) == pytest.approx(levels) and np.isnan(row.paper)

    examined = examine(tmp_path / "b_p_ds_sa2", str(data))
    assert examined["run"] == published_name(record)
    parts = examined["rerank"]["parts"]["two thirds"]
    assert parts["mean_ap"] == record["metrics"]["parts+rerank"]["mean_ap"]


def test_the_weights_of_one_run_evaluated_on_own_data(unbroken, tmp_path):
    """No epoch: a network that has never seen these people."""
    weights = unbroken[0] / "checkpoint.pt"
    settings = OWN | {"data": own_data(tmp_path / "d"), "camera_pattern": "cam(.)", "epochs": 0}
    record = train(
        configure(settings | {"weights": weights, "run_dir": tmp_path / "run"}), progress=False
    )
    assert record["history"] == [] and record["loaded"] == unbroken[1]["identity"]


def test_own_data_of_one_camera(tmp_path, run_main, capfd):
    """Told before the first epoch; the switch evaluates, and stands in record and name."""
    data = own_data(tmp_path / "data", cameras=(1,))
    settings = OWN | {"data": data, "run_dir": tmp_path / "run", "rerank": False}
    done = run_main(settings)
    assert_one_sentence(
        done,
        "mydata at ",
        "none of the 6 queries has a match in another camera (all images are of one camera)",
        "camera_rule=false (--no-camera-rule)",
    )
    assert "training" not in done.stderr and not (tmp_path / "run" / "checkpoint.pt").exists()
    assert run_main(settings | {"camera_rule": False}).returncode == 0
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["config"]["camera_rule"] is record["identity"]["camera_rule"] is False
    assert "-no_camera_rule-" in published_name(record)
    assert record["metrics"]["parts"]["skipped"] == 0 and len(record["query_ids"]) == 6
    assert_one_sentence(run_main(settings | {"camera_rule": False, "seed": 1}), "seed=0 (asked")


def test_no_match_in_another_camera_is_told_before_training(tmp_path, run_main):
    """KaiyangZhou/deep-person-reid #207: own data in a benchmark's names, from one camera."""
    files = {
        "bounding_box_train": [(p, c, k) for p in (1, 2, 3, 4) for c in (1, 2) for k in (1, 2)],
        "query": [(p, 1, 0) for p in range(10, 20)],
        "bounding_box_test": [(p, 1, k) for p in range(10, 20) for k in (1, 2, 3)],
    }
    rng = np.random.default_rng(0)
    for split, names in files.items():
        (tmp_path / "data" / split).mkdir(parents=True)
        for p, c, k in names:
            path = tmp_path / "data" / split / f"{p:04d}_c{c}s1_{k:06d}_01.jpg"
            cv2.imwrite(str(path), rng.integers(0, 256, (96, 32, 3), np.uint8))
    settings = {"profile": "smoke", "data": tmp_path / "data", "epochs": 1, "batch": 8}
    settings |= {"threads": 1, "run_dir": tmp_path / "run"}
    with pytest.warns(UserWarning, match="is the download complete"):
        done = run_main(settings)
    words = "none of the 10 queries has a match in another camera (the queries are of camera 1, "
    assert_one_sentence(done, words + "the 30 gallery images of camera 1)", "camera_rule=false")
    assert not (tmp_path / "run" / "checkpoint.pt").exists()
    with pytest.warns(UserWarning, match="is the download complete"):
        record = train(configure(settings | {"camera_rule": False}), progress=False)
    assert record["metrics"]["global"]["skipped"] == 0
