"""cuhk-03.mat to CUHK03-NP, with small files of the same structure: HDF5, object references, nested cells, 1-based indices."""

import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from conftest import ROOT, assert_one_sentence
from scipy.io import loadmat, savemat

from reidsa_utils import InputError
from reidsa_utils.data import LAYOUTS, load_benchmark
from reidsa_utils.datasets.check import check
from reidsa_utils.datasets.cuhk03 import prepare_cuhk03

KINDS = ("labeled", "detected")
SPLIT = {"train": (1, 2), "test": (3, 4, 5)}  # identities


def picture(name, kind):
    """A small image that says which one it is, (12, 6, 3) uint8 RGB, left darker than right, top redder than bottom."""
    rng = np.random.default_rng([int(name.replace(".png", "").replace("_", "")), KINDS.index(kind)])
    image = rng.integers(0, 60, (12, 6, 3))
    image[:, 3:] += 60
    image[:6, :, 0] += 90
    return image.astype(np.uint8)


def write_mat(path, names, header=b"MATLAB 7.3 MAT-file, Platform: GLNXA64"):
    """A file as Matlab's save -v7.3 writes it. names: {kind: file names pair_person_view_image.png that are not empty}."""
    with h5py.File(path, "w", userblock_size=512) as file:
        cells = file.create_group("#refs#")
        empty = cells.create_dataset("empty", data=np.zeros(2, np.uint64))
        empty.attrs["MATLAB_empty"] = np.uint8(1)
        for kind in KINDS:
            pairs = []
            for pair in range(1, 6):
                people = max([int(n[2:5]) for n in names[kind] if n[0] == str(pair)], default=1)
                grid = np.full((10, people), empty.ref, dtype=h5py.ref_dtype)  # Matlab: people x 10
                for name in names[kind]:
                    if name[0] == str(pair):
                        data = picture(name, kind).transpose(2, 1, 0)  # Matlab: H x W x 3
                        grid[int(name[8:10]) - 1, int(name[2:5]) - 1] = cells.create_dataset(
                            f"{kind}{name}", data=data
                        ).ref
                pairs.append(
                    cells.create_dataset(f"{kind}{pair}", data=grid, dtype=h5py.ref_dtype).ref
                )
            file.create_dataset(
                kind, data=np.array(pairs, dtype=h5py.ref_dtype)[None], dtype=h5py.ref_dtype
            )
    with open(path, "r+b") as file:
        file.write(header.ljust(128))


def write_index(folder, kind, names, labels, train):
    """An index file as published (MATLAB 5): per file name its label and camera; 1-based numbers of each split."""
    cameras = [int(n[6]) for n in names]
    split = {"train": [], "query": [], "gallery": []}
    asked = set()
    for i, (pid, camera) in enumerate(zip(labels, cameras, strict=True), 1):
        split["train" if pid in train else "gallery" if (pid, camera) in asked else "query"].append(
            i
        )
        asked.add((pid, camera))
    column = {f"{k}_idx": np.array(v, np.uint16)[:, None] for k, v in split.items()}
    savemat(
        folder / f"cuhk03_new_protocol_config_{kind}.mat",
        column
        | {
            "filelist": np.array(names, object)[:, None],
            "labels": np.array(labels, np.uint16)[:, None],
            "camId": np.array(cameras, np.uint8)[:, None],
        },
    )


@pytest.fixture
def original(tmp_path):
    """A cuhk-03.mat of five people in two pairs of cameras, and its index files; `detected` has one image more."""
    people = [(1, 1), (1, 2), (1, 3), (4, 1), (4, 2)]
    names, labels = {}, {}
    for kind in KINDS:
        both = [
            (f"{pair}_{person:03d}_{1 + (j > 5)}_{j:02d}.png", pid)
            for pid, (pair, person) in enumerate(people, 1)
            for j in range(1, 11)
            if j % 5 != 4 and (kind == "detected" or (pid, j) != (2, 3))
        ]
        names[kind], labels[kind] = [n for n, _ in both], [pid for _, pid in both]
        write_index(tmp_path, kind, names[kind], labels[kind], SPLIT["train"])
    write_mat(tmp_path / "cuhk-03.mat", names)
    return tmp_path


def test_converted_files_load_and_hold_the_right_pictures(original, capsys):
    folders = prepare_cuhk03(original / "cuhk-03.mat", original, original / "out", progress=False)
    for kind, folder in zip(KINDS, folders, strict=True):
        name = f"cuhk03_np_{kind}"
        with pytest.warns(UserWarning, match=r"train images \(expected 7,36"):  # small, and says so
            found = load_benchmark(name, original / "out")
        assert (
            found.folder == folder
            and set(found.train.ids) == {1, 2}
            and set(found.query.ids) == {3, 4, 5}
        )
        assert found.counts["query"] == {"images": 6, "ids": 3, "cameras": 2}
        assert found.counts["gallery"]["images"] == 3 * 8 - 6 and found.counts["train"][
            "images"
        ] == 16 - (kind == "labeled")
        index = loadmat(original / f"cuhk03_new_protocol_config_{kind}.mat")
        for split in (found.train, found.query, found.gallery):
            for path, pid, camera in zip(split.paths, split.ids, split.cameras, strict=True):
                number = int(
                    Path(path).stem.split("_")[2]
                )  # place in the file list, as in the archive
                source = str(index["filelist"][number - 1, 0][0])
                assert (pid, camera) == (
                    index["labels"][number - 1, 0],
                    index["camId"][number - 1, 0],
                )
                assert np.array_equal(cv2.imread(path)[..., ::-1], picture(source, kind))
    assert (
        check("cuhk03_np_labeled", original / "out", progress=False) == 1
    )  # far from the published counts
    assert "differs" in capsys.readouterr().out


def test_a_second_call_keeps_what_is_there(original):
    folders = prepare_cuhk03(original / "cuhk-03.mat", original, original / "out", progress=False)
    before = {p: p.stat().st_mtime_ns for folder in folders for p in folder.rglob("*.png")}
    prepare_cuhk03(original / "cuhk-03.mat", original, original / "out", progress=False)
    assert before == {p: p.stat().st_mtime_ns for folder in folders for p in folder.rglob("*.png")}


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from reidsa_utils.cli import main
from reidsa_utils.datasets import cuhk03
write, count = cuhk03.cv2.imencode, [0]
def encode(*arguments):  # from the tenth image on, no byte fits on the disk
    count[0] += 1
    if count[0] == 10:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, resource.RLIM_INFINITY))
    return write(*arguments)
cuhk03.cv2.imencode = encode
sys.exit(main(["prepare-cuhk03", *sys.argv[1:]]))
"""


def test_a_disk_that_fills_while_converting(original):
    arguments = [str(original / "cuhk-03.mat"), str(original), str(original / "out")]
    done = subprocess.run(
        [sys.executable, "-c", FULL, *arguments], capture_output=True, text=True, cwd=ROOT
    )
    assert_one_sentence(
        done, "could not go on writing", "9 of 39 images are kept", "start the same command again"
    )
    out = original / "out" / "cuhk03-np"
    assert [p.suffix for p in out.iterdir()] == [".partial"]  # nothing under the final name
    assert all(cv2.imread(str(p)) is not None for p in out.rglob("*.png"))  # what is there is whole
    whole = prepare_cuhk03(arguments[0], original, original / "whole", progress=False)
    again = prepare_cuhk03(*arguments, progress=False)
    for a, b in zip(again, whole, strict=True):
        files = {p.relative_to(b).as_posix(): p.read_bytes() for p in b.rglob("*") if p.is_file()}
        assert files == {
            p.relative_to(a).as_posix(): p.read_bytes() for p in a.rglob("*") if p.is_file()
        }
    assert sorted(p.name for p in out.iterdir()) == ["detected", "labeled"]


@pytest.mark.parametrize(
    "breakage, words",
    [
        ("no mat", "no file .*cuhk-03.mat; expected cuhk-03.mat"),
        ("version 5", "cuhk-03.mat is a MATLAB 5.0 file; expected version 7.3"),
        ("cut short", r"cuhk-03.mat \([\d,]+ bytes\) is cut short or not a MATLAB 7.3 file"),
        ("text", "is cut short or not a MATLAB 7.3 file"),
        ("other variables", "is not cuhk-03.mat: no cells 'labeled'.*it holds something"),
        ("no index", "no index file .*config_labeled.mat; it is in the repository of Zhong"),
        (
            "index of the other set",
            "lists 40 labeled images, and .* has 39; 1 are in one only, first 1_002_1_03.png: are the two index",
        ),
        ("index of the other set, twice labeled", "lists 39 detected images, and .* has 40"),
        ("broken index", "config_labeled.mat is not an index file of CUHK03-NP, or a broken one"),
        (
            "index without a key",
            "config_labeled.mat is not an index file of CUHK03-NP, or a broken one",
        ),
        (
            "numbers from 0",
            "config_labeled.mat is not an index file of CUHK03-NP, or a broken one .*an image in no split or in two",
        ),
        (
            "an image in two splits",
            "config_labeled.mat is not an index file .*an image in no split or in two",
        ),
        ("labels of another length", "config_labeled.mat is not an index file"),
        (
            "cameras swapped",
            "config_labeled.mat is not an index file .*labels or cameras do not fit the file names",
        ),
        ("labels out of range", "config_labeled.mat is not an index file .*labels out of range"),
        (
            "a float image",
            r"labeled image 1_001_1_01.png in .* is float64 of shape \(3, 6, 12\); expected uint8",
        ),
        (
            "a flat image",
            r"labeled image 1_001_1_01.png in .* is uint8 of shape \(2, 6, 12\); expected uint8",
        ),
        (
            "an empty target",
            "labeled is there, and not with the folders bounding_box_train, query, bounding_box_test; delete",
        ),
    ],
)
def test_bad_input_is_told_before_anything_is_written(original, breakage, words):
    mat, labeled, detected = (
        original / n
        for n in ("cuhk-03.mat", *(f"cuhk03_new_protocol_config_{k}.mat" for k in KINDS))
    )
    if breakage == "no mat":
        mat.unlink()
    elif breakage == "version 5":
        savemat(mat, {"labeled": np.zeros(3)})
    elif breakage == "cut short":
        mat.write_bytes(mat.read_bytes()[: mat.stat().st_size // 2])
    elif breakage == "text":
        mat.write_text("<html>404</html>")
    elif breakage == "other variables":
        with h5py.File(mat, "w", userblock_size=512) as file:
            file["something"] = np.zeros(3)
    elif breakage == "no index":
        labeled.unlink()
    elif breakage == "index of the other set":
        shutil.copy(detected, labeled)
    elif breakage == "index of the other set, twice labeled":
        shutil.copy(labeled, detected)
    elif breakage == "broken index":
        labeled.write_bytes(labeled.read_bytes()[:150])
    elif breakage == "index without a key":
        savemat(
            labeled,
            {
                k: v
                for k, v in loadmat(labeled).items()
                if k != "query_idx" and not k.startswith("__")
            },
        )
    elif breakage in ("a float image", "a flat image"):
        with h5py.File(mat, "r+") as file:
            image = file["#refs#/labeled1_001_1_01.png"][()]
            del file["#refs#/labeled1_001_1_01.png"]
            grid = file[file["labeled"][0, 0]]
            new = image / 255 if "float" in breakage else image[:2]
            grid[0, 0] = file.create_dataset("#refs#/other", data=new).ref
    elif breakage == "an empty target":
        (original / "out" / "cuhk03-np" / "labeled").mkdir(parents=True)
    else:
        index = {k: v for k, v in loadmat(labeled).items() if not k.startswith("__")}
        if breakage == "numbers from 0":
            index |= {
                f"{split}_idx": index[f"{split}_idx"] - 1 for split in ("train", "query", "gallery")
            }
        elif breakage == "an image in two splits":
            index["gallery_idx"] = np.concatenate([index["gallery_idx"], index["train_idx"][:1]])
        elif breakage == "labels of another length":
            index["labels"] = index["labels"][:-1]
        elif breakage == "cameras swapped":
            index["camId"] = 3 - index["camId"]
        elif breakage == "labels out of range":
            index["labels"] = index["labels"].astype(int) + 20_000
        savemat(labeled, index)
    with pytest.raises(InputError, match=words):
        prepare_cuhk03(mat, original, original / "out", progress=False)
    assert not [p for p in (original / "out").rglob("*") if p.is_file()]


def test_other_input_after_a_break_starts_anew(original):
    """Broken off, then started with a corrected index: nothing of the first call is mixed in."""
    out = original / "out"
    arguments = [str(original / "cuhk-03.mat"), str(original), str(out)]
    done = subprocess.run(
        [sys.executable, "-c", FULL, *arguments], capture_output=True, text=True, cwd=ROOT
    )
    assert_one_sentence(done, "9 of 39 images are kept")
    index = {
        k: v
        for k, v in loadmat(original / "cuhk03_new_protocol_config_labeled.mat").items()
        if not k.startswith("__")
    }
    savemat(
        original / "cuhk03_new_protocol_config_labeled.mat",
        index | {"labels": index["labels"] + 10},
    )
    labeled, _ = prepare_cuhk03(*arguments, progress=False)
    names = [p.name for p in labeled.rglob("*.png")]
    assert len(names) == 39 and min(names)[:4] == "0011"
    assert sorted(p.name for p in labeled.parent.iterdir()) == [
        "detected",
        "labeled",
    ]  # what was broken off is gone


def test_killed_in_the_middle_it_goes_on(original):
    """A real SIGKILL while images are written; the end is the same, byte for byte."""
    slow = FULL.replace("if count[0] == 10:", "import time; time.sleep(0.05)\n    if False:")
    arguments = [str(original / "cuhk-03.mat"), str(original), str(original / "out")]
    process = subprocess.Popen(
        [sys.executable, "-c", slow, *arguments],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    while sum(1 for _ in (original / "out").rglob("*.png")) < 12 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = {p.name: p.stat().st_mtime_ns for p in (original / "out").rglob("*.png")}
    assert 12 <= len(kept) < 39 and not (original / "out" / "cuhk03-np" / "labeled").exists()
    whole = prepare_cuhk03(arguments[0], original, original / "whole", progress=False)
    for a, b in zip(prepare_cuhk03(*arguments, progress=False), whole, strict=True):
        assert {p.relative_to(a): p.read_bytes() for p in a.rglob("*.*")} == {
            p.relative_to(b): p.read_bytes() for p in b.rglob("*.*")
        }
    labeled = original / "out" / "cuhk03-np" / "labeled"
    assert kept == {
        p.name: p.stat().st_mtime_ns for p in labeled.rglob("*.png") if p.name in kept
    }  # not written again


def test_command_line(original, reidsa):
    done = reidsa("prepare-cuhk03", original / "cuhk-03.mat", original, original / "out")
    assert done.returncode == 1 and done.stdout.count("differs") > 4  # small, so counts differ
    assert "labeled: 100%" in done.stderr and "detected: 100%" in done.stderr
    done = reidsa("prepare-cuhk03", original / "no.mat", original, original / "out")
    assert_one_sentence(done, "no file")


INDEX = Path(os.environ.get("REIDSA_DATA", "")) / "cuhk03_new_protocol_config_labeled.mat"


@pytest.mark.skipif(
    not INDEX.is_file(),
    reason="put the two published cuhk03_new_protocol_config_*.mat into REIDSA_DATA",
)
def test_the_published_index_files_give_the_published_counts(tmp_path, capsys):
    names = {
        kind: [
            str(n[0])
            for n in loadmat(INDEX.with_name(INDEX.name.replace("labeled", kind)))[
                "filelist"
            ].ravel()
        ]
        for kind in KINDS
    }
    write_mat(
        tmp_path / "cuhk-03.mat", names
    )  # every image of the real set, each of 12 x 6 made-up pixels
    prepare_cuhk03(tmp_path / "cuhk-03.mat", INDEX.parent, tmp_path, progress=False)
    for kind in KINDS:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert (
                load_benchmark(f"cuhk03_np_{kind}", tmp_path).counts
                == LAYOUTS[f"cuhk03_np_{kind}"].counts
            )
        assert check(f"cuhk03_np_{kind}", tmp_path, progress=False) == 0, capsys.readouterr().out
