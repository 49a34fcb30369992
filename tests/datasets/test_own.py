"""Data of one's own from real files: each layout, each spelling of a CSV, the split by rule, each fault in one sentence."""

import hashlib
import re
import shutil
import warnings
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
from conftest import assert_one_sentence

from reidsa_utils import InputError
from reidsa_utils.data import decode, hold_out, without_camera_rule
from reidsa_utils.datasets.check import check
from reidsa_utils.datasets.own import SPLIT_RULE, load_own

PATTERN = r"cam(\d+)"


def picture(path, text=""):
    """A small image file whose bytes differ from those of every other text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = int.from_bytes(hashlib.sha256(f"{path.name} {text}".encode()).digest()[:4], "big")
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 8, 3), np.uint8)
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())
    return path


def people(folder, names, cameras=(1, 2), images=2, pattern="cam{c}_{k}.jpg"):
    """A folder for each person, with some images of each camera."""
    for name in names:
        for c in cameras:
            for k in range(images):
                picture(folder / name / pattern.format(c=c, k=k), name)
    return folder


def of(split):
    """{path below the data's last two folders: (identity, camera)}."""
    pairs = zip(split.paths, split.ids.tolist(), split.cameras.tolist(), strict=True)
    return {"/".join(Path(path).parts[-2:]): labels for path, *labels in pairs}


def write_csv(path, rows, separator=",", encoding="utf-8", first=""):
    lines = [separator.join(map(str, row)) for row in rows]
    path.write_bytes((first + "\r\n".join(lines) + "\r\n").encode(encoding))
    return path


@pytest.fixture
def split_data(tmp_path):
    """anna and bob train; carl and dora are tested, 2 + 2 images each."""
    root = tmp_path / "data"
    people(root / "train", ["anna", "bob"])
    for split, k in (("query", 0), ("gallery", 1)):
        for name in ("carl", "dora"):
            for c in (1, 2):
                picture(root / split / name / f"cam{c}_{k}.jpg", name)
    return root


@pytest.fixture
def rows(split_data):
    """The lines of a CSV about the same images."""
    found = [("path", "identity", "camera", "split")]
    for path in sorted(split_data.rglob("*.jpg")):
        split, name, file = path.relative_to(split_data).parts
        found.append((f"{split}/{name}/{file}", name, file[3], split))
    return found


# ---- folders


def test_folders_of_three_splits(split_data):
    found = load_own("mydata", split_data, PATTERN)
    # anna, bob, carl, dora are 1 to 4.
    assert of(found.train)["anna/cam1_0.jpg"] == [1, 1]
    assert of(found.train)["bob/cam2_1.jpg"] == [2, 2]
    assert of(found.query) == {
        f"{name}/cam{c}_0.jpg": [i, c] for name, i in (("carl", 3), ("dora", 4)) for c in (1, 2)
    }
    assert set(of(found.gallery)) == {f"{n}/cam{c}_1.jpg" for n in ("carl", "dora") for c in (1, 2)}
    assert (found.name, found.title, found.source) == ("mydata", "mydata", "real")
    assert found.counts["train"] == {"images": 8, "ids": 2, "cameras": 2}
    assert not found.differences() and found.has_match().all()
    assert found.reading == {
        "layout": "folders gallery, query, train",
        "split": "as found",
        "cameras": rf"camera_pattern {PATTERN}",
        "camera_names": ["1", "2"],
    }


@pytest.mark.parametrize(
    "names",
    [
        ("Train", "Query", "Gallery"),
        ("bounding_box_train", "query", "bounding_box_test"),
        ("image_train", "image_query", "image_test"),
        ("training", "probe", "gallery"),
        ("TRAIN", "query", "test"),
    ],
)
def test_splits_under_other_names(split_data, names):
    expected = load_own("mydata", split_data, PATTERN).fingerprint()
    for split, name in zip(("train", "query", "gallery"), names, strict=True):
        (split_data / split).rename(split_data / f"{name}-")
        (split_data / f"{name}-").rename(split_data / name)
    people(split_data / "val", ["erik"])  # what others have beside the three is not read
    people(split_data / "train_all", ["anna"])
    assert load_own("mydata", split_data, PATTERN).fingerprint() == expected


def test_a_test_is_split_by_the_rule(split_data):
    for split in ("query", "gallery"):
        shutil.copytree(split_data / split, split_data / "test", dirs_exist_ok=True)
        shutil.rmtree(split_data / split)
    first = load_own("mydata", split_data, PATTERN)
    assert (len(first.train), len(first.query), len(first.gallery)) == (8, 4, 4)
    assert first.has_match().all() and first.reading["split"] == SPLIT_RULE
    # Where there is no other, "val" is what is tested.
    (split_data / "test").rename(split_data / "val")
    again = load_own("mydata", split_data, PATTERN)
    assert (len(again.train), len(again.query), len(again.gallery)) == (8, 4, 4)


def test_images_named_as_market1501s(tmp_path):
    for split in ("train", "query", "gallery"):
        for person in (1, 2, -1) if split == "train" else (7, 10, -1):
            for c in (1, 3):
                name = f"{person:04d}" if person > 0 else "-1"
                picture(tmp_path / split / f"{name}_c{c}s1_000{len(split)}_00.jpg")
    found = load_own("mydata", tmp_path)
    # People 0001, 0002, 0007, 0010 are 1 to 4, cameras 1 and 3 are 1 and 2; -1 is junk.
    assert sorted(zip(found.query.ids, found.query.cameras, strict=True)) == [
        (3, 1),
        (3, 2),
        (4, 1),
        (4, 2),
    ]
    assert found.counts["gallery"]["junk"] == 2 and len(found.gallery) == 4
    assert set(found.train.ids) == {1, 2} and found.reading["cameras"] == "as found"
    with_pattern = load_own("mydata", tmp_path, r"_c(\d)")
    assert of(with_pattern.query) == of(found.query)


def test_cameras_in_folders_of_their_own(tmp_path):
    people(tmp_path, ["p1", "p2", "p3", "p4"], ("hall", "yard"), pattern="{c}/{k}.JPEG")
    found = load_own("mydata", tmp_path, "^([^/]+)/")
    assert found.reading["camera_names"] == ["hall", "yard"] and found.has_match().all()


def test_the_folder_around_it_and_an_archive_in_a_folder_of_its_own(tmp_path, monkeypatch):
    people(tmp_path / "mydata" / "inner", ["p1", "p2", "p3", "p4"])
    expected = load_own("mydata", tmp_path / "mydata" / "inner", PATTERN).fingerprint()
    monkeypatch.setenv("HOME", str(tmp_path))
    for data in (tmp_path, tmp_path / "mydata", "~", "~/mydata"):
        assert load_own("mydata", data, PATTERN).fingerprint() == expected


def test_what_is_no_image_is_ignored(split_data):
    expected = load_own("mydata", split_data, PATTERN).fingerprint()
    (split_data / "readme.txt").write_text("x")
    (split_data / ".DS_Store").write_bytes(b"x")
    people(split_data / "__MACOSX" / "train", ["anna"])
    people(split_data / "train" / ".ipynb_checkpoints", ["anna"])
    for name in ("Thumbs.db", "._cam1_0.jpg", "labels.csv"):
        (split_data / "train" / "anna" / name).write_bytes(b"x")
    people(split_data / "train" / "anna" / "@eaDir", ["x"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_own("mydata", split_data, PATTERN).fingerprint() == expected
    (split_data / "train" / "nobody").mkdir()
    with pytest.warns(
        UserWarning, match="mydata: folders without an image in .*train are left out .1.: nobody"
    ):
        assert load_own("mydata", split_data, PATTERN).fingerprint() == expected


def test_a_folder_linked_into_itself(split_data):
    expected = load_own("mydata", split_data, PATTERN).fingerprint()
    (split_data / "train" / "anna" / "again").symlink_to(split_data / "train" / "anna")
    moved = split_data / "elsewhere"
    (split_data / "gallery" / "carl").rename(moved)
    (split_data / "gallery" / "carl").symlink_to(moved)
    assert load_own("mydata", split_data, PATTERN).fingerprint() == expected


# ---- the split by rule


def by_the_words_of_the_rule(folder, seed):
    """SPLIT_RULE once more, slowly, for folders PERSON/camC_K.jpg: {path below folder: split}."""

    def draw(text):
        return hashlib.sha256(f"{seed}/{text}".encode()).hexdigest()

    images = [path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg")]
    names = sorted({image.split("/")[0] for image in images}, key=draw)
    split = {}
    for place, name in enumerate(names):
        own = sorted((image for image in images if image.startswith(f"{name}/")), key=draw)
        cameras = {}
        for image in own:
            cameras.setdefault(re.search(PATTERN, image)[1], []).append(image)
            split[image] = "train" if place < len(names) / 2 else "gallery"
        if split[own[0]] == "train" or len(cameras) == 1:
            continue
        pairs = [group for group in cameras.values() if len(group) > 1]
        for group in pairs or [own]:
            split[group[0]] = "query"
    return split


@pytest.mark.parametrize("n", [4, 5, 9])
def test_the_split_is_that_of_its_rule(tmp_path, n):
    rng = np.random.default_rng(n)
    for person in range(n):
        for c in (1, 2, 3):
            people(tmp_path, [f"p{person}"], (c,), rng.integers(0, 4))
        people(tmp_path, [f"p{person}"], (4,), 1)
    people(tmp_path, ["seen by one"], (1,), 3)
    for seed in range(8):
        found = load_own("mydata", tmp_path, PATTERN, seed)
        expected = by_the_words_of_the_rule(tmp_path, seed)
        for name in ("train", "query", "gallery"):
            paths = getattr(found, name).paths
            got = {Path(path).relative_to(tmp_path).as_posix() for path in paths}
            assert got == {image for image, split in expected.items() if split == name}
        assert found.has_match().all()
        assert len(set(found.train.ids)) == (n + 2) // 2  # of n + 1, rounded up
        assert found.reading["split_seed"] == seed


def test_the_split_depends_on_the_seed_alone(tmp_path):
    root = people(tmp_path / "a", [f"p{i}" for i in range(12)])
    first = load_own("mydata", root, PATTERN)
    moved = Path(shutil.copytree(root, tmp_path / "b" / "elsewhere"))
    assert load_own("other", moved, PATTERN).fingerprint() == first.fingerprint()
    prints = {load_own("mydata", root, PATTERN, seed).fingerprint() for seed in range(5)}
    assert len(prints) == 5
    # One more person moves at most one other from one half to the other.
    people(root, ["p99"])
    trained = [
        {p.split("/")[0] for p in of(s.train)} for s in (first, load_own("d", root, PATTERN))
    ]
    assert len((trained[0] ^ trained[1]) - {"p99"}) <= 1


def test_one_camera_one_query_a_person(tmp_path):
    people(tmp_path, [f"p{i}" for i in range(6)], (1,), 3)
    found = load_own("mydata", tmp_path)
    assert len(found.query) == len(set(found.query.ids)) == 3 and len(found.gallery) == 6
    assert found.reading["cameras"] == "one for all" and not found.has_match().any()
    with pytest.raises(InputError, match="no.* match in another camera .all images are of one cam"):
        found.check_matches()
    free = without_camera_rule(found)
    assert free.has_match().all() and all(cameras is None for cameras in free.truth[2:])
    free.check_matches()


def test_people_with_one_image(tmp_path):
    """They train, or are in the gallery; a pair of two cameras gives one query and its match."""
    people(tmp_path, [f"pair{i}" for i in range(6)], (1, 2), 1)
    people(tmp_path, [f"single{i}" for i in range(6)], (1,), 1)
    for seed in range(5):
        found = load_own("mydata", tmp_path, PATTERN, seed)
        tested = {path.split("/")[0] for path in of(found.query)}
        pairs = {path.split("/")[0] for path in of(found.gallery) if path.startswith("pair")}
        assert tested == pairs and len(found.query) == len(pairs) and found.has_match().all()


# ---- CSV


@pytest.mark.parametrize(
    ("separator", "encoding", "first"),
    [
        (",", "utf-8", ""),
        (";", "utf-8-sig", ""),
        ("\t", "utf-16", ""),
        (";", "utf-16-le", ""),
        (",", "utf-16-be", ""),
        (";", "utf-8", "sep=;\r\n"),
        (",", "utf-8-sig", "\r\n\r\n"),
        ("|", "utf-8", ""),
    ],
)
def test_a_csv_as_programs_save_it(split_data, rows, separator, encoding, first):
    expected = load_own("mydata", split_data, PATTERN)
    found = load_own("mydata", write_csv(split_data / "x.csv", rows, separator, encoding, first))
    assert found.fingerprint() == expected.fingerprint()
    for split in ("train", "query", "gallery"):
        assert of(getattr(found, split)) == of(getattr(expected, split))
    assert found.reading["layout"] == "CSV gallery, query, train"
    assert found.reading["camera_names"] == ["1", "2"]


@pytest.mark.parametrize(
    "names",
    [
        ("Path", " IDENTITY ", "Camera", "Split"),
        ("image_path", "person_id", "cam_id", "subset"),
        ("filename", "pid", "camid", "set"),
        ("Image", "Id", "cam", "partition"),
    ],
)
def test_columns_by_other_names_and_in_another_order(split_data, rows, names):
    expected = load_own("mydata", split_data, PATTERN).fingerprint()
    order = [3, 1, 0, 2]
    lines = [[row[i] for i in order] + ["more"] for row in [names, *rows[1:]]]
    path = write_csv(split_data / "mydata.csv", lines)
    assert load_own("mydata", path).fingerprint() == expected
    assert load_own("mydata", split_data).fingerprint() == expected  # the CSV of this name in it


def test_paths_in_a_csv(split_data, rows, monkeypatch):
    """Relative to its folder, absolute, of the home folder, by Windows, with dots."""
    expected = load_own("mydata", split_data, PATTERN).fingerprint()
    monkeypatch.setenv("HOME", str(split_data.parent))
    monkeypatch.chdir("/")
    spellings = ("{}", f"{split_data}/{{}}", "~/data/{}", "./{}", "query/../{}")
    for spelling in spellings:
        lines = [rows[0], *((spelling.format(path), *rest) for path, *rest in rows[1:])]
        path = write_csv(split_data / "x.csv", lines)
        assert load_own("mydata", path).fingerprint() == expected
    lines = [rows[0], *((path.replace("/", "\\"), *rest) for path, *rest in rows[1:])]
    path = write_csv(split_data / "x.csv", lines)
    assert load_own("mydata", path).fingerprint() == expected


def test_a_csv_without_splits_and_cameras(split_data, rows):
    """Split by the rule; cameras by a pattern, or one for all. Names that a spreadsheet makes."""
    words = {"anna": "Müller, Änne", "bob": "1", "carl": "007", "dora": '"quoted"'}
    quoted = {name: '"' + word.replace('"', '""') + '"' for name, word in words.items()}
    lines = [("path", "identity"), *((row[0], quoted[row[1]]) for row in rows[1:])]
    path = write_csv(split_data / "x.csv", lines)
    found = load_own("mydata", path, PATTERN)
    assert len(set(found.train.ids)) == 2 and found.has_match().all()
    assert found.reading["split"] == SPLIT_RULE
    assert load_own("mydata", path).reading["cameras"] == "one for all"
    junk = [*lines, ("query/carl/cam1_0.jpg", "-1")]
    path = write_csv(
        split_data / "x.csv", [row for row in junk if row[0] != junk[-1][0]] + junk[-1:]
    )
    assert load_own("mydata", path, PATTERN).counts["gallery"]["junk"] == 1


def test_the_split_of_a_csv_does_not_depend_on_how_its_place_is_written(split_data, rows, tmp_path):
    """Nor on whether its paths are relative or absolute: the rule goes by paths below its folder."""
    lines = [row[:3] for row in rows]
    expected = load_own("mydata", write_csv(split_data / "x.csv", lines)).fingerprint()
    (tmp_path / "link").symlink_to(split_data)
    for place in (split_data / ".." / "data", tmp_path / "link"):
        assert load_own("mydata", place / "x.csv").fingerprint() == expected
        absolute = [lines[0], *((f"{place}/{path}", *rest) for path, *rest in lines[1:])]
        write_csv(split_data / "y.csv", absolute)
        assert load_own("mydata", place / "y.csv").fingerprint() == expected


def test_names_become_numbers_by_their_order(tmp_path):
    """Digits by their value, so that cameras 1 to 10 keep their numbers."""
    people(tmp_path, ["b", "a10", "a9", "Z"], range(1, 11), 1)
    found = load_own("mydata", tmp_path, PATTERN)
    assert found.reading["camera_names"] == [str(c) for c in range(1, 11)]
    numbers = {}
    for split in (found.train, found.query, found.gallery):
        for path, (identity, camera) in of(split).items():
            numbers[path.split("/")[0]] = identity
            assert f"cam{camera}_" in path
    assert numbers == {"Z": 1, "a9": 2, "a10": 3, "b": 4}


def test_the_fingerprint_sees_bytes_and_labels(split_data, rows):
    def of_changed(*changes):
        lines = [list(row) for row in rows]
        for number, column, value in changes:
            lines[number - 1][column] = value
        return load_own("mydata", write_csv(split_data / "x.csv", lines)).fingerprint()

    assert rows[1][:2] == ("gallery/carl/cam1_1.jpg", "carl")
    assert rows[5][:2] == ("query/carl/cam1_0.jpg", "carl")
    prints = [
        of_changed(),
        of_changed((2, 2, "9")),  # another camera
        of_changed((2, 1, "dora")),  # another person
        of_changed((2, 3, "query")),  # another split
        of_changed((2, 3, "query"), (6, 3, "gallery")),
    ]
    assert len(set(prints)) == 5 and of_changed() == prints[0]
    picture(split_data / "query" / "carl" / "cam1_0.jpg", "other pixels")
    assert of_changed() not in prints


# ---- faults


def moved(root, old, new):
    (root / new).parent.mkdir(parents=True, exist_ok=True)
    (root / old).rename(root / new)


FOLDER_FAULTS = {
    "no gallery": (
        lambda root: shutil.rmtree(root / "gallery"),
        "is split into query, train; expected train, query and gallery, or train and test",
    ),
    "only train": (
        lambda root: [shutil.rmtree(root / s) for s in ("query", "gallery")],
        "is split into train; expected train, query and gallery",
    ),
    "empty split": (
        lambda root: [shutil.rmtree(root / "query"), (root / "query").mkdir()],
        "no images in .*query; expected JPEG or PNG files in a folder for each person",
    ),
    "twice the same": (
        lambda root: people(root / "bounding_box_train", ["x"]),
        "holds bounding_box_train and train, which both mean train; keep one",
    ),
    "gallery and test": (
        lambda root: [people(root / "test", ["x"]), moved(root, "query", "other")],
        "is split into gallery, test, train; expected",
    ),
    "trained on and tested": (
        lambda root: shutil.copytree(root / "train" / "bob", root / "gallery" / "bob"),
        "the training set and the test set share 1 of 4 people, first 'bob' .train/bob/cam1_0.jpg "
        "and gallery/bob/cam1_0.jpg.*move their images.*rename",
    ),
    "one person": (
        lambda root: shutil.rmtree(root / "train" / "bob"),
        "found 1 people to train on and 2 to test with; expected 2 and 1 at least",
    ),
    "loose images": (
        lambda root: picture(root / "train" / "overview.jpg"),
        "images lie beside the folders of people in .*train .1, first overview.jpg.; move them",
    ),
    "names without a person": (
        lambda root: [shutil.rmtree(root / "train"), picture(root / "train" / "IMG001.jpg")],
        "IMG001.jpg lies in no person's folder, and its name does not begin with PERSON_cCAMERA",
    ),
    "names in one split only": (
        lambda root: [shutil.rmtree(root / "train"), picture(root / "train" / "a_c1.jpg")],
        "some of gallery, query, train have a folder for each person, some have images named",
    ),
    "another kind": (
        lambda root: picture(root / "train" / "anna" / "a.bmp"),
        "a.bmp is not a JPEG or PNG file; convert the .bmp images first",
    ),
    "folders of cameras": (
        lambda root: [moved(root, f"train/{n}", f"train/cam{n[0]}") for n in ("anna", "bob")],
        "the folders in .*train are named cama, camb, and a folder for each person is expected",
    ),
    "pattern": (
        lambda root: picture(root / "train" / "anna" / "front.jpg"),
        r"camera_pattern 'cam\(\\\\d\+\)' finds no camera in 1 of 17 images, first in 'front.jpg'",
    ),
}


@pytest.mark.parametrize("fault", FOLDER_FAULTS)
def test_a_fault_of_folders_is_told_in_one_sentence(split_data, fault):
    break_it, words = FOLDER_FAULTS[fault]
    break_it(split_data)
    pattern = "" if fault == "names in one split only" else PATTERN
    if fault == "names without a person":
        pattern = ""
    with pytest.raises(InputError, match=f"^[^\n]*{words}[^\n]*$"):
        load_own("mydata", split_data, pattern)


def changed(rows, line, column, value):
    rows = [list(row) for row in rows]
    rows[line - 1][column] = value
    return rows


CSV_FAULTS = {
    "no identity column": (
        lambda rows: changed(rows, 1, 1, "colour"),
        "has no column identity: its first line is 'path, colour, camera, split'; expected the "
        "columns path, identity, camera, split, of which path, identity must be there",
    ),
    "no first line": (lambda rows: rows[1:], "has no column path and no column identity: its fi"),
    "two identities": (
        lambda rows: [
            [*row, row[1].replace("label", "pid")] for row in changed(rows, 1, 1, "label")
        ],
        "has two columns for the identity, label and pid",
    ),
    "only names": (lambda rows: rows[:1], "has only its first line, 'path, identity, camera, spli"),
    "no identity": (lambda rows: changed(rows, 3, 1, ""), "line 3 of .* has no identity"),
    "no camera": (lambda rows: changed(rows, 3, 2, " "), "line 3 of .* has no camera"),
    "no split": (lambda rows: changed(rows, 4, 3, ""), "line 4 of .* has no split"),
    "short line": (lambda rows: [*rows, ["a.jpg"]], "line 18 of .* has no identity"),
    "unknown split": (
        lambda rows: changed(rows, 2, 3, "holdout"),
        "line 2 of .* has the split 'holdout'; expected train, query, gallery or test",
    ),
    "no train": (
        lambda rows: [row for row in rows if row[3] != "train"],
        "is split into gallery, query; expected train, query and gallery, or train and test",
    ),
    "missing files": (
        lambda rows: changed(changed(rows, 5, 0, "no.jpg"), 7, 0, "nor.jpg"),
        "2 of 16 images named in .* are not there, first 'no.jpg' in line 5; expected paths rel",
    ),
    "a name that is no home": (lambda rows: changed(rows, 2, 0, "~$x.jpg"), r"first '~\$x.jpg' in"),
    "a folder": (lambda rows: changed(rows, 2, 0, "train"), "1 of 16 images .* first 'train' in l"),
    "the same line twice": (
        lambda rows: [*rows, rows[4]],
        "lines 5 and 18 of .* name the same image, gallery/dora/cam2_1.jpg; keep one",
    ),
    "the same image twice": (
        lambda rows: changed(rows, 5, 0, "train/../" + rows[5][0]),
        "lines 5 and 6 of .* name the same image",
    ),
    "trained on and tested": (
        lambda rows: changed(rows, 17, 1, "carl"),
        "the training set and the test set share 1 of 4 people, first 'carl'",
    ),
}


@pytest.mark.parametrize("fault", CSV_FAULTS)
def test_a_fault_of_a_csv_is_told_in_one_sentence(split_data, rows, fault):
    break_it, words = CSV_FAULTS[fault]
    path = write_csv(split_data / "x.csv", break_it(rows))
    with pytest.raises(InputError, match=f"^[^\n]*{words}[^\n]*$"):
        load_own("mydata", path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty; expected a first line with path, identity, camera, split"),
        (b"\xef\xbb\xbf\r\n", "is empty"),
        (b"PK\x03\x04 and more", "is a workbook or an archive; .*save the sheet as CSV, or unpack"),
        ("path,identity\na.jpg,M\u00fcller\n".encode("cp1252"), r"not text in UTF-8.*\(line 2\)"),
        ("path,identity\na.jpg,\ud55c\uad6d\n".encode("cp949"), "save it as CSV UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "not text in UTF-8 or UTF-16|has no column path"),
    ],
)
def test_a_file_that_is_no_csv(tmp_path, content, words):
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(InputError, match=words):
        load_own("mydata", tmp_path / "x.csv")


def test_the_folder_of_a_benchmark_is_no_own_data(small_benchmark, split_data, tmp_path):
    renamed = Path(shutil.copytree(small_benchmark, tmp_path / "copy"))
    for folder in (small_benchmark, small_benchmark.parent, renamed):
        with pytest.raises(
            InputError, match="unknown benchmark 'mars'; .* the folder of market1501"
        ):
            load_own("mars", folder)
    for name in ("DukeMTMC-reID", "cuhk03-np/labeled", "Market-1501-v15.09.15"):
        shutil.copytree(split_data, tmp_path / name)
        with pytest.raises(InputError, match="unknown benchmark 'mars'; .* is the folder of "):
            load_own("mars", tmp_path / name)
    shutil.copytree(split_data, tmp_path / "market")  # a shop's
    load_own("mars", tmp_path / "market")


def test_more_that_is_refused(split_data, rows, tmp_path):
    with pytest.raises(
        InputError, match="mydata: there is no .*nowhere; expected a folder of peop"
    ):
        load_own("mydata", tmp_path / "nowhere")
    with pytest.raises(InputError, match="data holds splits.*name the data's own folder, or call"):
        load_own("mydata", people(tmp_path, ["x", "y"]))
    with pytest.raises(
        InputError, match="split_seed is 3, and mydata at .* has train, query and g"
    ):
        load_own("mydata", split_data, PATTERN, split_seed=3)
    with pytest.raises(InputError, match="market1501 is a benchmark; expected another name"):
        load_own("market1501", split_data)
    path = write_csv(split_data / "x.csv", rows)
    with pytest.raises(
        InputError, match="column of cameras, and camera_pattern is .*leave one out"
    ):
        load_own("mydata", path, PATTERN)
    images = split_data / "images"
    images.mkdir()
    for name in ("train", "query", "gallery"):
        shutil.rmtree(split_data / name)
    with pytest.raises(InputError, match="no images in .*it holds x.csv: name that file as data"):
        load_own("mydata", split_data)
    single = people(tmp_path / "single", [f"p{i}" for i in range(6)], (1,), 1)
    with pytest.raises(InputError, match="none of the 3 people of the test has two images"):
        load_own("mydata", single)


def test_without_the_camera_rule_no_query_is_in_the_gallery(split_data):
    found = load_own("mydata", split_data)
    assert not without_camera_rule(found).camera_rule
    shutil.copy(split_data / "query/carl/cam1_0.jpg", split_data / "gallery/carl/cam1_copy.jpg")
    with pytest.raises(
        InputError, match="the gallery may not hold a query.*_copy.jpg has the byte"
    ):
        without_camera_rule(load_own("mydata", split_data))
    # Under the rule it is left out of the ranking of its query.
    assert load_own("mydata", split_data, PATTERN).has_match().all()


def test_cameras_that_do_not_overlap_are_named(tmp_path):
    people(tmp_path / "train", ["a", "b"])
    for split, k in (("query", 0), ("gallery", 1)):
        for name, c in (("c", 3), ("d", 4)):
            picture(tmp_path / split / name / f"cam{c}_{k}.jpg", name)
    found = load_own("mydata", tmp_path, PATTERN)
    words = "none of the 2 queries has a match in another camera .the queries are of cameras 3, 4, "
    with pytest.raises(
        InputError, match=words + "the 2 gallery images of cameras 3, 4.*camera_rule"
    ):
        found.check_matches()
    shutil.rmtree(tmp_path / "gallery")
    people(tmp_path / "gallery", ["e"])
    found = load_own("mydata", tmp_path, PATTERN)
    with pytest.raises(
        InputError, match="queries are of cameras 3, 4, the 4 gallery .* cameras 1, 2"
    ):
        found.check_matches()
    with pytest.raises(InputError, match="has a match: the gallery has no image of their ident"):
        without_camera_rule(found).check_matches()


def test_people_held_out(tmp_path):
    people(tmp_path, [f"p{i}" for i in range(12)])
    part = hold_out(load_own("mydata", tmp_path, PATTERN), 2)
    assert len(part.query) == 4 and part.has_match().all() and part.name == "mydata"
    assert part.fingerprint() != load_own("mydata", tmp_path, PATTERN).fingerprint()


# ---- the command


def test_check_of_own_data(split_data, reidsa, capfd):
    arguments = ("check", "mydata", split_data)
    done = reidsa(*arguments, "--camera-pattern", PATTERN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing wrong; all 16 images decode" in done.stdout
    assert re.search(r"^train +8 +2 +2$", done.stdout, re.M)
    assert "camera names: 1, 2" in done.stdout and "fingerprint " in done.stdout
    done = reidsa(*arguments)
    assert done.returncode == 1 and "problem: mydata at" in done.stdout
    assert "(--no-camera-rule)" in done.stdout and done.stdout.count("problem: ") == 1
    done = reidsa(*arguments, "--no-camera-rule")
    assert done.returncode == 0 and "without the camera rule" in done.stdout

    victim = split_data / "gallery" / "carl" / "cam2_1.jpg"
    victim.write_bytes(victim.read_bytes()[:100])
    assert check("mydata", split_data, False, PATTERN) == 1
    assert f"problem: {victim} is truncated" in capfd.readouterr().out
    victim.unlink()
    victim.symlink_to("nowhere.jpg")
    assert check("mydata", split_data, False, PATTERN) == 1
    assert "cam2_1.jpg cannot be read" in capfd.readouterr().out
    victim.unlink()
    assert check("mydata", split_data, False, PATTERN) == 1
    assert "cam1_0.jpg: no other camera has a gallery image" in capfd.readouterr().out


def test_check_refuses_in_one_sentence(split_data, reidsa):
    for name, words in (("markt1501", "did you mean market1501?"), ("my/data", "expected a name")):
        assert_one_sentence(reidsa("check", name, split_data), words)
    for pattern, words in (("c(", "is not a regular expression"), ("(c)(1)", "has 2 groups")):
        done = reidsa("check", "mydata", split_data, "--camera-pattern", pattern)
        assert_one_sentence(done, f"camera_pattern '{pattern}' {words}")
    with pytest.raises(InputError, match="market1501 is checked as it was published"):
        check("market1501", split_data, camera_pattern=PATTERN)


def test_upper_case_endings_and_names_with_spaces(tmp_path):
    people(tmp_path, ["Anna Maria", "李 雷", "o'neil", "d.e.f"], pattern="cam{c} ({k}).JPG")
    found = load_own("mydata", tmp_path, PATTERN)
    assert found.has_match().all() and found.counts["train"]["images"] == 8


def test_the_picture_of_a_phone_stands_upright(tmp_path):
    """As docs/data.md says it: an EXIF orientation is applied, which PIL does only if told to."""
    exif = PIL.Image.Exif()
    exif[0x112] = 6  # turned by a quarter
    lying = PIL.Image.fromarray(np.zeros((40, 20, 3), np.uint8))
    lying.save(tmp_path / "phone.jpg", exif=exif)
    assert np.array(PIL.Image.open(tmp_path / "phone.jpg")).shape == (40, 20, 3)
    assert decode(tmp_path / "phone.jpg").shape == (20, 40, 3)
