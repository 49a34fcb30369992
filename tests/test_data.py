"""The four layouts from real files: what is counted, what is ignored, what is refused, what is damaged."""

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_one_sentence

from reidsa_utils import InputError
from reidsa_utils.config import configure
from reidsa_utils.data import LAYOUTS, hold_out, load_benchmark, load_images, read_image, read_split
from reidsa_utils.datasets.check import check
from reidsa_utils.experiments.run import open_benchmark


@pytest.fixture
def copy(small_benchmark, tmp_path):
    """A copy to break."""
    return Path(shutil.copytree(small_benchmark, tmp_path / small_benchmark.name))


def test_junk_dropped_distractors_kept_other_files_ignored(copy):
    (copy / "query" / "Thumbs.db").write_bytes(b"x")
    (copy / "readme.txt").write_text("readme")
    found = load_benchmark("market1501", copy.parent)
    assert not found.differences()
    assert len(found.gallery) == found.counts["gallery"]["images"] - found.counts["gallery"]["junk"]
    assert found.counts["gallery"]["junk"] == sum(
        p.name.startswith("-1") for p in (copy / "bounding_box_test").iterdir()
    )
    assert (found.gallery.ids == 0).sum() == found.counts["gallery"]["distractors"]
    first = Path(found.train.paths[0]).name
    assert first.startswith(f"{found.train.ids[0]:04d}_c{found.train.cameras[0]}")
    assert (
        load_benchmark("market1501", copy).fingerprint() == found.fingerprint()
    )  # the folder itself, or its parent


def test_fingerprint_sees_every_byte(copy):
    before = load_benchmark("market1501", copy).fingerprint()
    victim = next((copy / "query").iterdir())
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    assert load_benchmark("market1501", copy).fingerprint() != before


def test_wrong_counts_warn_and_check_exits_1(copy, reidsa):
    done = reidsa("check", "market1501", copy)
    assert done.returncode == 0 and "all counts as expected; all 577 images decode" in done.stdout
    victim = sorted((copy / "bounding_box_train").iterdir())[0]
    victim.unlink()
    with pytest.warns(
        UserWarning, match=r"206 train images \(expected 207\).*is the download complete"
    ):
        load_benchmark("market1501", copy)
    done = reidsa("check", "market1501", copy)
    assert (
        done.returncode == 1
        and "differs" in done.stdout
        and "206" in done.stdout
        and "Traceback" not in done.stderr
    )
    assert f"problem: bounding_box_train/{victim.stem} is missing" in done.stdout


def damaged(folder):
    """Break a copy in three ways: one file cut short, one missing, two misnamed. Returns (kind, file) of each."""
    train, gallery = (
        sorted((folder / split).glob("*.jpg"))
        for split in ("bounding_box_train", "bounding_box_test")
    )
    train[3].write_bytes(train[3].read_bytes()[:-200])
    gallery[5].unlink()
    gallery[-3].rename(gallery[-3].with_name("somebody.jpg"))
    train[7].rename(train[7].with_name("0000_c1s1_000001_99.jpg"))
    return (
        (train[3], "truncated"),
        (gallery[5], "missing"),
        (gallery[-3], "missing"),
        (train[7], "missing"),
    )


def assert_names_the_damage(name, folder, capsys):
    told = damaged(folder)
    assert check(name, folder, progress=False) == 1
    out = capsys.readouterr().out
    for path, what in told:
        assert [
            line
            for line in out.splitlines()
            if line.startswith("problem: ") and path.stem in line and what in line
        ], (path, out)
    assert (
        "somebody.jpg is not a name of this benchmark" in out
        and "0000_c1s1_000001_99 does not belong there" in out
    )


def test_check_names_each_damage(copy, capsys):
    assert_names_the_damage("market1501", copy, capsys)


def test_check_sees_broken_protocol(copy, capsys):
    query = load_benchmark("market1501", copy).query
    pid, camera = query.ids[0], query.cameras[0]
    for path in (copy / "bounding_box_test").glob(
        f"{pid:04d}_c*"
    ):  # this query's identity stays in its own camera only
        if f"_c{camera}s" not in path.name:
            path.unlink()
    stray = next((copy / "bounding_box_train").iterdir())
    shutil.copy(stray, copy / "bounding_box_test" / stray.name)
    assert check("market1501", copy, progress=False) == 1
    out = capsys.readouterr().out
    assert f"{Path(query.paths[0]).name}: no other camera has a gallery image" in out
    assert f"identity {int(stray.name[:4])} is in the training set and in the test set" in out


def test_names_of_the_distributed_archive(tmp_path):
    # the real archive holds a handful of names that end in .jpg.jpg
    for folder, name in (
        ("bounding_box_train", "0002_c1s1_000451_03.jpg"),
        ("query", "1488_c1s6_023021_00.jpg.jpg"),
        ("bounding_box_test", "-1_c1s1_000401_03.jpg"),
        ("bounding_box_test", "1488_c6s1_000401_03.jpg"),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_bytes(b"")
    with pytest.warns(UserWarning):
        found = load_benchmark("market1501", tmp_path)
    assert (found.query.ids.tolist(), found.query.cameras.tolist()) == ([1488], [1])
    assert found.gallery.ids.tolist() == [1488] and found.source == "real"


@pytest.mark.parametrize(
    "breakage, words",
    [
        ("no root", "the data root .* does not exist; expected the folder Market-1501-v15.09.15"),
        ("empty root", r"no benchmark in .* \(it holds nothing\)"),
        ("no query", "the folder query is missing in"),
        ("empty split", "no images in .*query"),
        (
            "bad name",
            r"1 of \d+ image names in .*query do not parse, first 'person7.jpg'; expected names like 0002_c1s1",
        ),
        ("other benchmark", r"'0001_c2_f0046182.jpg'.*is this another benchmark"),
        ("rendered other", "holds a rendered dukemtmc_reid"),
        ("bad manifest", "manifest.json is not the manifest of a rendered benchmark"),
    ],
)
def test_broken_roots(copy, breakage, words):
    root = copy
    if breakage == "no root":
        root = copy / "nowhere"
    elif breakage == "empty root":
        root = copy / "empty"
        root.mkdir()
    elif breakage == "no query":
        shutil.rmtree(copy / "query")
    elif breakage == "empty split":
        shutil.rmtree(copy / "query")
        (copy / "query").mkdir()
    elif breakage == "bad name":
        (copy / "query" / "person7.jpg").write_bytes(b"")
    elif breakage == "other benchmark":
        (copy / "bounding_box_train" / "0001_c2_f0046182.jpg").write_bytes(b"")
    elif breakage == "bad manifest":
        (copy / "manifest.json").write_text("{}")
    elif breakage == "rendered other":
        text = (copy / "manifest.json").read_text()
        (copy / "manifest.json").write_text(
            text.replace('"name": "market1501"', '"name": "dukemtmc_reid"')
        )
    with pytest.raises(InputError, match=words):
        load_benchmark("market1501", root)


def test_unknown_benchmark(reidsa, tmp_path):
    assert_one_sentence(
        reidsa("check", "market", tmp_path),
        "unknown benchmark 'market'",
        "market1501",
    )
    assert_one_sentence(reidsa("check", "market1501", tmp_path / "no"), "does not exist")


def test_truncated_images_are_named(copy):
    victim = sorted((copy / "query").iterdir())[2]
    whole = victim.read_bytes()
    for broken in (whole[: len(whole) // 2], whole[:10], b"", b"\x89PNG but no image IEND"):
        victim.write_bytes(broken)
        with pytest.raises(InputError, match=f"{victim.name} is truncated or no image"):
            load_images([str(p) for p in sorted((copy / "query").iterdir())], 96, 32)


def test_a_hole_is_no_picture(small_benchmark, tmp_path):
    """A third of the data zero, header and end as they were: OpenCV decodes that, mostly grey."""
    whole = next((small_benchmark / "query").iterdir()).read_bytes()
    n = len(whole) // 3
    path = tmp_path / "a.jpg"
    path.write_bytes(whole[:n] + bytes(n) + whole[2 * n :])
    said = ""
    try:
        read_image(path, 96, 32)
    except InputError as error:
        said = str(error)
    assert f"a.jpg is damaged ({len(whole):,} bytes): by its structure, there is a hole of" in said


def test_images_arrive_in_order_and_in_rgb(small_benchmark):
    import cv2

    paths = [str(p) for p in sorted((small_benchmark / "query").iterdir())[:9]]
    images = load_images(paths, 128, 64)
    for path, image in zip(paths, images, strict=True):
        assert np.array_equal(image, cv2.imread(path)[..., ::-1])
    assert read_image(paths[0], 96, 32).shape == (96, 32, 3)


@pytest.mark.parametrize(
    ("name", "nesting"),
    [
        ("market1501", "market1501/Market-1501-v15.09.15"),  # torchreid
        ("market1501", "market1501"),  # TransReID
        ("market1501", "Market1501"),
        ("market1501", "Market-1501"),
        ("market1501", "MARKET-1501-V15.09.15"),
        ("market1501", "archive"),  # Kaggle
        ("market1501", "archive/Market-1501-v15.09.15"),
        ("market1501", "archive/market/Market-1501"),
        ("market1501", "data/reid/market_1501"),
        ("dukemtmc_reid", "dukemtmc-reid/DukeMTMC-reID"),  # torchreid
        ("dukemtmc_reid", "dukemtmcreid"),
        ("dukemtmc_reid", "DukeMTMC"),
        ("cuhk03_np_labeled", "CUHK03-NP/labeled"),
        ("cuhk03_np_detected", "cuhk03/cuhk03_np/Detected"),
        ("cuhk03_np_labeled", "archive/cuhk03-np-labeled"),
        ("cuhk03_np_detected", "cuhk03_np_detected"),
    ],
)
def test_the_nestings_of_other_toolboxes(name, nesting, four_benchmarks, tmp_path, monkeypatch):
    """Below the root in any usual letter case, and never the one beside it."""
    home = tmp_path / "home"
    folder = home / "people" / nesting
    shutil.copytree(four_benchmarks[name], folder)
    for other in LAYOUTS:  # what else lies in such a root
        twin = {"cuhk03_np_labeled": "detected", "cuhk03_np_detected": "labeled"}.get(name)
        if other != name and "archive" not in nesting and "data" not in nesting:
            place = LAYOUTS[other].folder if not other.endswith(str(twin)) else f"CUHK03/{twin}"
            shutil.copytree(four_benchmarks[other], home / "people" / place)
    assert load_benchmark(name, home / "people").folder.samefile(folder)
    monkeypatch.setenv("HOME", str(home))
    for root in ("~/people", f"~/people/{nesting}"):
        assert load_benchmark(name, root).folder.samefile(folder)


def test_home_in_the_data_of_a_run(small_benchmark, monkeypatch):
    monkeypatch.setenv("HOME", str(small_benchmark.parent))
    monkeypatch.setenv("REIDSA_DATA", "~")
    for data in ("~", "real", f"~/{small_benchmark.name}"):
        settings = {"profile": "smoke", "data": data}
        assert open_benchmark(configure(settings)).folder == small_benchmark


@pytest.mark.parametrize("name", LAYOUTS)
def test_all_four_are_read_checked_and_told_apart(name, four_benchmarks, capsys):
    folder = four_benchmarks[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load_benchmark(name, folder)
        for root in (
            folder.parent,
            four_benchmarks["root"],
        ):  # the parent, and the folder that holds all four
            assert load_benchmark(name, root).folder == folder
    assert check(name, folder, progress=False) == 0
    out = capsys.readouterr().out
    assert all(
        f"{split} {what}" in out
        for split in ("train", "query", "gallery")
        for what in ("images", "ids", "cameras")
    )
    for other in set(LAYOUTS) - {name}:
        with pytest.raises(InputError, match="do not parse|holds a rendered|is the folder of"):
            load_benchmark(other, folder)
    assert found.counts["train"]["cameras"] == LAYOUTS[name].counts["train"]["cameras"]


def test_mixed_endings_are_told(four_benchmarks, tmp_path):
    folder = Path(shutil.copytree(four_benchmarks["cuhk03_np_labeled"], tmp_path / "labeled"))
    image = next((folder / "query").iterdir())
    image.rename(image.with_suffix(".jpg"))
    with pytest.raises(
        InputError,
        match=r"1 of \d+ image names in .*query do not parse, first .*\.jpg'; .*like 0003_c1_21.png.*two mixed",
    ):
        load_benchmark("cuhk03_np_labeled", folder)


def test_duke_says_that_it_was_withdrawn(tmp_path):
    with pytest.raises(InputError, match="DukeMTMC-reID: .*withdrawn by its authors in 2019"):
        load_benchmark("dukemtmc_reid", tmp_path)


def test_what_other_systems_leave_in_a_folder(copy):
    (copy / "query" / "._0013_c2s1_000750_00.jpg").write_bytes(b"macOS")
    (copy / "query" / "folder.jpg").mkdir()
    assert not load_benchmark("market1501", copy).differences()
    nested = (
        copy.parent / "nested" / copy.name / copy.name
    )  # unpacked into a folder of its own name
    shutil.copytree(copy, nested)
    assert load_benchmark("market1501", copy.parent / "nested").folder == nested
    renamed = shutil.copytree(
        copy, copy.parent / "detected"
    )  # any name will do, of the folder itself
    assert len(load_benchmark("market1501", renamed).query) == 54
    archive = copy.parent / "Market-1501-v15.09.15.zip"
    archive.write_bytes(b"PK")
    with pytest.raises(
        InputError,
        match="Market-1501-v15.09.15.zip is a file; expected the folder Market-1501-v15.09.15, unpacked",
    ):
        load_benchmark("market1501", archive)


def test_check_names_an_image_that_cannot_be_opened(copy, capsys):
    victim = sorted((copy / "query").iterdir())[4]
    victim.unlink()
    victim.symlink_to("nowhere.jpg")
    assert check("market1501", copy, progress=False) == 1
    assert f"{victim.name} cannot be read (No such file" in capsys.readouterr().out


def test_a_broken_manifest(copy):
    text = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(text.replace('"junk": 61', '"trash": 61'))
    with pytest.raises(
        InputError, match="manifest.json is not the manifest of a rendered benchmark"
    ):
        load_benchmark("market1501", copy)


def test_own_boxes_for_multi_query(copy):
    (copy / "gt_bbox").mkdir()
    for path in list((copy / "bounding_box_test").glob("00*"))[:5]:
        shutil.copy(path, copy / "gt_bbox" / path.name)
    boxes, bad = read_split("market1501", copy / "gt_bbox")
    assert len(boxes) == 5 and not bad and set(boxes.cameras) <= set(range(1, 7))


REAL = Path(os.environ.get("REIDSA_DATA", "nowhere"))


@pytest.mark.skipif("REIDSA_DATA" not in os.environ, reason="set REIDSA_DATA: real copies")
@pytest.mark.parametrize("name", LAYOUTS)
def test_real_copies_have_the_published_counts(name):
    try:
        found = load_benchmark(name, os.environ["REIDSA_DATA"], warn=False)
    except InputError:
        pytest.skip("the folder does not hold this benchmark")
    assert found.source == "rendered" or found.counts == LAYOUTS[name].counts, found.differences()


@pytest.mark.skipif(
    not (REAL / LAYOUTS["market1501"].folder).is_dir()
    and not (REAL / "bounding_box_test").is_dir(),
    reason="set REIDSA_DATA to the folder of a complete Market-1501",
)
def test_the_real_market1501(tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load_benchmark("market1501", os.environ["REIDSA_DATA"])
    assert (
        found.source == "real"
        and found.counts == LAYOUTS["market1501"].counts
        and len(found.gallery) == 15913
    )
    assert check("market1501", found.folder, progress=False) == 0
    copy = Path(
        shutil.copytree(
            found.folder, tmp_path / found.folder.name, ignore=shutil.ignore_patterns("gt_*")
        )
    )
    assert_names_the_damage("market1501", copy, capsys)


@pytest.mark.parametrize("n", [1, 5, 10])
def test_held_out_people_are_not_trained_on(small_benchmark, n):
    """The training images, parted: n identities are query and gallery, one query for each of them and camera, and nobody is in both."""
    whole = load_benchmark("market1501", small_benchmark)
    part = hold_out(whole, n)
    splits = (part.train, part.query, part.gallery)
    assert sorted(sum((s.paths for s in splits), [])) == whole.train.paths
    out = set(part.query.ids.tolist())
    assert (
        len(out) == n
        and not out & set(part.train.ids.tolist())
        and set(part.gallery.ids.tolist()) <= out
    )
    assert not {Path(p).name for s in splits for p in s.paths} & {
        Path(p).name for s in (whole.query, whole.gallery) for p in s.paths
    }
    pairs = list(zip(part.query.ids.tolist(), part.query.cameras.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    for path, i, camera in zip(
        part.query.paths, *zip(*pairs, strict=True), strict=True
    ):  # the first by name
        own = zip(whole.train.paths, whole.train.ids, whole.train.cameras, strict=True)
        assert path == min(p for p, j, c in own if (j, c) == (i, camera))
    for split in splits:
        for path, i, camera in zip(split.paths, split.ids, split.cameras, strict=True):
            assert Path(path).name.startswith(f"{i:04d}_c{camera}")
    assert (
        part.fingerprint() != whole.fingerprint()
        and part.counts["train"]["ids"] == whole.counts["train"]["ids"] - n
    )
    assert not part.differences()


def test_more_held_out_than_there_are(small_benchmark):
    whole = load_benchmark("market1501", small_benchmark)
    people = whole.counts["train"]["ids"]
    for n in (people - 1, 1000):
        words = f"held_out is {n}, and Market-1501 .* has {people} training identities.*choose from 1 to {people - 2}"
        with pytest.raises(InputError, match=words):
            hold_out(whole, n)
