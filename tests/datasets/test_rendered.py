"""The embedded benchmark: same bytes from the same seed, published sizes, masks that tell the truth."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from conftest import assert_one_sentence

from reidsa_utils import InputError
from reidsa_utils.data import LAYOUTS, SPLITS, count, load_benchmark
from reidsa_utils.datasets.pedestrians import _rays, draw_person
from reidsa_utils.datasets.rendered import (
    LABEL,
    Settings,
    describe_person,
    plan,
    render_benchmark,
    render_shot,
)


def files(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_same_bytes_from_the_same_seed_and_any_number_of_workers(small_benchmark, tmp_path):
    one = files(small_benchmark)
    assert (
        files(render_benchmark("market1501", tmp_path / "again", 0.016, 5, progress=False)) == one
    )
    assert (
        files(render_benchmark("market1501", tmp_path / "two", 0.016, 5, workers=2, progress=False))
        == one
    )
    other = files(render_benchmark("market1501", tmp_path / "seed", 0.016, 6, progress=False))
    assert other != one


def counted(shots):
    of = {split: [s for s in shots if s.split == split] for split in SPLITS}
    return {
        split: count(split, [s.pid for s in some], [s.camera for s in some])
        for split, some in of.items()
    }


@pytest.mark.parametrize("name", LAYOUTS)
def test_scale_one_has_the_published_sizes(name):
    assert counted(plan(Settings(name, scale=1))) == LAYOUTS[name].counts


@pytest.mark.parametrize(
    "name, scale",
    [
        ("market1501", 0.016),
        ("market1501", 0.107),
        ("market1501", 0.2),
        ("dukemtmc_reid", 0.05),
        ("cuhk03_np_labeled", 0.05),
        ("cuhk03_np_detected", 0.05),
    ],
)
def test_protocol(name, scale):
    shots = plan(Settings(name, scale=scale))
    assert all(re.fullmatch(LAYOUTS[name].pattern, s.filename) for s in shots)
    assert len({(s.split, s.filename) for s in shots}) == len(shots)
    train = {s.pid for s in shots if s.split == "train"}
    test = {s.pid for s in shots if s.split in ("query", "gallery") and s.pid > 0}
    strangers = {s.person for s in shots if s.pid == 0 and s.person}
    assert not train & test and not strangers & (train | test)
    queries = [(s.pid, s.camera) for s in shots if s.split == "query"]
    assert len(set(queries)) == len(queries)  # one for each identity and camera
    seen = {(s.pid, s.camera) for s in shots if s.split == "gallery"}
    for pid, camera in queries:
        assert any(p == pid and c != camera for p, c in seen), (
            "a query without a match in another camera"
        )
    asked = {pid for pid, _ in queries}
    for pid in (
        test - asked
    ):  # DukeMTMC-reID has such identities; nobody asks for them, one camera has seen them
        assert len({camera for p, camera in seen if p == pid}) == 1
    assert bool(test - asked) == (name == "dukemtmc_reid")


def test_who_is_in_which_benchmark():
    def people(name):
        return [repr(describe_person(Settings(name), p)) for p in (1, 2, 50)]

    assert people("cuhk03_np_labeled") == people("cuhk03_np_detected")
    assert len({tuple(people(name)) for name in LAYOUTS}) == 3


def test_boxes_drawn_by_hand_are_tighter_than_a_detectors():
    spread = {}
    for name in ("cuhk03_np_labeled", "cuhk03_np_detected"):
        s = Settings(name, scale=0.02, occlusion=0)
        tops = []
        for shot in plan(s)[:60]:
            rows = np.flatnonzero(render_shot(s, shot)[1].any(1))
            tops.append((rows[0] + rows[-1]) / 2 / s.height)
        spread[name] = np.std(tops)
    assert spread["cuhk03_np_detected"] > 1.5 * spread["cuhk03_np_labeled"]


def test_real_loader_reads_it(small_benchmark):
    found = load_benchmark("market1501", small_benchmark.parent)
    assert found.source == "rendered" and not found.differences()
    assert (found.gallery.ids != -1).all() and (found.gallery.ids == 0).any()
    manifest = json.loads((small_benchmark / "manifest.json").read_text())
    assert manifest["source"] == "rendered" and manifest["settings"]["seed"] == 5


def test_masks_belong_to_their_images(small_benchmark):
    s = Settings(scale=0.016, seed=5)
    for shot in plan(s)[:40:5]:
        folder = "bounding_box_train"
        mask = cv2.imread(
            str((small_benchmark / "part_masks" / folder / shot.filename).with_suffix(".png")),
            cv2.IMREAD_GRAYSCALE,
        )
        image, expected = render_shot(s, shot)
        assert (
            image.shape == (128, 64, 3)
            and image.dtype == np.uint8
            and np.array_equal(mask, expected)
        )


def test_leaving_a_part_out_changes_only_where_it_was():
    s = replace(Settings(seed=1), occlusion=0.0)
    view = (0.8, 0.1, 0.3, np.array([0.2, 0.5, 0.8]), 220, (64, 240), (256, 128))
    seen = set()
    for number in range(1, 60):  # every ray that does not meet the item stays as it was, exactly
        person = describe_person(s, number)
        image, labels = draw_person(person, *view)
        without, labels2 = draw_person(person, *view, without={person["item"]})
        there = labels == LABEL[person["item"]]
        assert np.array_equal(image[~there], without[~there]) and np.array_equal(
            labels[~there], labels2[~there]
        )
        assert not (labels2 == LABEL[person["item"]]).any()
        if there.any():
            seen.add(person["item"])
    assert seen >= {"logo", "backpack", "bag"}
    tried = 0
    for shot in plan(s)[:200]:  # and through camera, blur and noise
        image, mask = render_shot(s, shot)
        item = describe_person(s, shot.person)["item"]
        there = mask == LABEL[item]
        if there.sum() >= 20:
            without, _ = render_shot(s, shot, without={item})
            changed = (image != without).any(axis=2)
            assert changed[there].mean() > 0.5 and changed.mean() < 0.35
            tried += 1
    assert tried > 10
    with pytest.raises(InputError, match="unknown part 'nose'; known: head"):
        render_shot(s, plan(s)[0], without={"nose"})


def test_items_hide_by_view():
    s = Settings(seed=3)
    visible = {}
    for item in ("logo", "print", "backpack"):
        person = next(p for p in (describe_person(s, n) for n in range(1, 60)) if p["item"] == item)
        for side, azimuth in (("front", 0.0), ("back", np.pi)):
            _, labels = draw_person(
                person, azimuth, 0.1, 0.3, np.array([0.2, 0.5, 0.8]), 110, (32, 120), (128, 64)
            )
            visible[item, side] = int((labels == LABEL[item]).sum())
    assert visible["logo", "front"] > 20 and visible["logo", "back"] == 0
    assert visible["print", "back"] > 20 and visible["print", "front"] == 0
    assert visible["backpack", "back"] > 5 * max(1, visible["backpack", "front"])


def test_an_ellipsoid_is_where_geometry_says():
    # a sphere of radius 0.2 at height 0.5, seen from anywhere: a disc of 20 pixels around (50, 50)
    for angle in (0.0, 0.7, 2.0):
        rotation = np.array(
            [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
        )
        index, depth, _, _ = _rays(
            [("torso", (0, 0.5, 0), (0.2, 0.2, 0.2), 0.4, None, "")],
            rotation,
            100,
            (50, 100),
            (100, 100),
        )
        y, x = np.mgrid[:100, :100] + 0.5
        inside = (x - 50) ** 2 + (y - 50) ** 2
        assert (index[inside < 19.9**2] == 0).all() and (index[inside > 20.1**2] == -1).all()
        assert depth[50, 50] == pytest.approx(0.2, abs=1e-3)


def test_kept_refused_and_never_half_written(small_benchmark, tmp_path):
    before = files(small_benchmark)
    assert (
        render_benchmark("market1501", small_benchmark.parent, 0.016, 5, progress=False)
        == small_benchmark
    )
    with pytest.raises(InputError, match="holds something else than these settings ask for"):
        render_benchmark("market1501", small_benchmark.parent, 0.016, 6, progress=False)
    assert files(small_benchmark) == before and [
        p.name for p in small_benchmark.parent.iterdir()
    ] == [small_benchmark.name]
    with pytest.raises(InputError, match="unknown benchmark 'market'; .*market1501"):
        render_benchmark("market", tmp_path)
    with pytest.raises(InputError, match="unknown knob 'fog'; known: box_jitter"):
        render_benchmark("market1501", tmp_path, fog=1)
    for knob, value in (
        ("scale", 0),
        ("seed", -1),
        ("height", 384),
        ("width", 0),
        ("occlusion", 2),
        ("look_alikes", 0),
    ):
        with pytest.raises(InputError, match=f"{knob} is .*; expected between"):
            render_benchmark("market1501", tmp_path, **{knob: value})


@pytest.mark.parametrize(
    "knob, value", [("height", "tall"), ("height", 64.5), ("look_alikes", 1.5), ("occlusion", None)]
)
def test_knobs_of_another_type(tmp_path, knob, value):
    with pytest.raises(InputError, match=f"{knob} is .*; expected (int|float)"):
        render_benchmark("market1501", tmp_path, scale=0.002, **{knob: value})


def test_numbers_of_numpy_are_numbers(tmp_path):
    folder = render_benchmark(
        "market1501", tmp_path, scale=np.float32(0.25) / 100, height=np.int64(64), progress=False
    )
    assert json.loads((folder / "manifest.json").read_text())["settings"]["height"] == 64


def test_command_line(command, reidsa, tmp_path):
    done = command(
        "-m",
        "reidsa_utils",
        "render",
        "market1501",
        tmp_path,
        "--scale",
        "0.002",
        "--workers",
        "1",
        "--occlusion",
        "0",
    )
    assert (
        done.returncode == 0 and "rendered" in done.stdout and "images" in done.stderr
    )  # a progress bar
    assert_one_sentence(reidsa("render", "duke", tmp_path), "unknown benchmark 'duke'")
    (tmp_path / "file").write_text("")
    assert_one_sentence(
        reidsa("render", "market1501", tmp_path / "file", "--scale", "0.002"),
        "choose another root",
    )


@pytest.mark.skipif(os.name == "nt", reason="needs SIGSTOP")
def test_what_a_killed_rendering_leaves_goes_with_the_next(small_benchmark, tmp_path):
    """A rendering beside it, which is at work, keeps its folder: it is halted, and holds its lock."""
    command = [sys.executable, "-m", "reidsa_utils", "render", "market1501", str(tmp_path)]
    killed = subprocess.Popen(
        [*command, "--scale", "0.05", "--seed", "5"],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while not list(tmp_path.glob(".rendering-*/query/*.jpg")):
            assert killed.poll() is None
            time.sleep(0.05)
        os.killpg(killed.pid, signal.SIGSTOP)  # with its workers: the others have the cores
        (at_work,) = tmp_path.glob(".rendering-*/")
        render_benchmark("market1501", tmp_path / "beside", 0.016, 5, progress=False)
        folder = render_benchmark("market1501", tmp_path, 0.016, 5, progress=False)
        assert at_work.exists()
        assert files(folder) == files(small_benchmark)
        assert killed.poll() is None
    finally:
        killed.kill()
        os.killpg(killed.pid, signal.SIGCONT)  # the workers notice that their caller is gone
        killed.wait()
    shutil.rmtree(folder)
    render_benchmark("market1501", tmp_path, 0.016, 5, progress=False)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
