r"""Data of one's own, under a name of its owner's: folders of people, or a CSV.

    data/train/ query/ gallery/   with a folder for each person in it: train/anna/1.jpg
    data/train/ test/             the test is split into query and gallery by SPLIT_RULE
    data/anna/ bob/ ...           all is split by SPLIT_RULE
    data.csv                      columns path, identity, and split and camera where there are such;
                                  paths are relative to the CSV's folder

Below a person's folder images may lie at any depth. Images that lie in no person's folder are named
as Market-1501's, PERSON_cCAMERA: 0002_c1s1_000451_03.jpg. A person "-1" is junk, as there.

The camera is the column's, or what camera_pattern finds in an image's path below its person's
folder (below the CSV's): cam(\d+) finds the 3 of cam3/0001.jpg. Else all images are of one camera,
and nothing can be evaluated under the camera rule.

SPLIT_RULE goes by the seed, the names of people, and paths below the data's folder. People and
cameras become numbers: their names sorted, digits by their value, from 1 on. A record holds these
numbers, names of cameras and no names of people.

An image's EXIF orientation is applied, which code that reads images by PIL does only if told to:
the picture of a phone stands upright here and may lie on its side there.
"""

import hashlib
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import InputError, unknown_message
from ..data import (
    LAYOUTS,
    Benchmark,
    Split,
    benchmark_in,
    benchmark_name,
    camera_regex,
    count,
    is_image,
)
from .table import letters, read_table

SPLIT_RULE = (
    "Half of the people, rounded up, train: the first in the order of sha256('SEED/PERSON'). Of "
    "each other person one image of every camera that has two or more is a query: the first in the "
    "order of sha256('SEED/PATH'). Where no camera has two, one image of all is. Of a person whom "
    "only one of several cameras saw none is. All others are the gallery."
)
# What a split is called, in letters only -> what it is. "test" is query and gallery together.
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "boundingboxtrain", "imagetrain"), "train"),
    **dict.fromkeys(("query", "queries", "probe", "imagequery"), "query"),
    **dict.fromkeys(("gallery", "boundingboxtest"), "gallery"),
    **dict.fromkeys(("test", "testing", "imagetest"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
}
# What a column of a CSV is called, in letters only.
COLUMNS = {
    "path": ("path", "file", "filename", "filepath", "image", "imagepath", "imagename", "img"),
    "identity": ("identity", "id", "pid", "person", "personid", "label"),
    "camera": ("camera", "cam", "camid", "cameraid"),
    "split": ("split", "set", "subset", "partition"),
}
JUNK = "-1"  # the identity of images that count neither way, as in Market-1501
LEFT_OUT = "left out"
# Left by systems beside images, with all that begins with a dot.
SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")
UNREAD = (".bmp", ".gif", ".webp", ".tif", ".tiff", ".heic", ".avif", ".jfif", ".ppm")
SHOWN = 3  # names in a sentence


@dataclass
class Image:
    """One image as it was found."""

    path: Path
    person: str
    split: str  # "train", "query", "gallery" or "test"; "" where nothing says it
    name: str  # its path below the data's folder, with /
    below: str  # its path below its person's folder, with /: what camera_pattern is searched in
    camera: str = ""


@dataclass(frozen=True)
class OwnBenchmark(Benchmark):
    """Data of one's own. Who and which camera an image shows does not stand in its name alone."""

    def fingerprint(self) -> str:
        """sha256 over names and bytes of all images used, and their numbers: 16 hex digits."""
        digest = hashlib.sha256(super().fingerprint().encode())
        for split in (self.train, self.query, self.gallery):
            digest.update(f"{split.ids.tolist()} {split.cameras.tolist()}\n".encode())
        return digest.hexdigest()[:16]


def load_own(name: str, data, camera_pattern: str = "", split_seed: int = 0) -> OwnBenchmark:
    """Read the file lists of data of one's own, as the docstring of this module says.

    name: a name for it, not that of a benchmark.
    data: its folder, the folder that it lies in under its name, or a CSV.
    camera_pattern: a regular expression whose group (or whole match) is the camera; "" for none.
    split_seed: of SPLIT_RULE.
    Raises InputError for anything that cannot be read in one way only.
    """
    name = benchmark_name(name, own=True)
    if name in LAYOUTS:
        raise InputError(f"{name} is a benchmark; expected another name for data of your own")
    place = _find(name, Path(os.path.expanduser(data)))
    if place.is_file():
        layout, images, has_cameras = _read_csv(name, place)
    else:
        place = _without_wrapping(place)
        other = benchmark_in(place)
        if other:
            raise InputError(
                f"{unknown_message('benchmark', name, LAYOUTS)}; {place} is the folder of {other}: "
                "name that, or another folder"
            )
        layout, images, has_cameras = _read_folders(name, place, camera_pattern)
    how = _find_cameras(name, images, camera_pattern, has_cameras)

    by_rule = any(image.split in ("", "test") for image in images)
    if by_rule:
        _split_by_rule(images, split_seed)
    elif split_seed:
        raise InputError(
            f"split_seed is {split_seed}, and {name} at {place} has train, query and gallery; "
            "leave it out"
        )
    _check_splits(name, place, images)
    reading = {
        "layout": layout,
        "split": SPLIT_RULE if by_rule else "as found",
        **({"split_seed": split_seed} if by_rule else {}),
        "cameras": how,
    }
    return _as_benchmark(name, place, images, reading)


def natural(name: str) -> tuple:
    """What names are sorted by: text by its letters, digits in it by their value."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def _find(name: str, data: Path) -> Path:
    """The folder or file of the data. Raises InputError if there is none."""
    if not data.exists():
        raise InputError(
            f"{name}: there is no {data}; expected a folder of people, one with train, query and "
            "gallery, or a CSV (for one of the benchmarks name that: "
            f"{', '.join(LAYOUTS)})"
        )
    for inside in (data / name, data / f"{name}.csv"):
        if inside.exists():
            return inside
    return data


def _without_wrapping(folder: Path) -> Path:
    """The folder inside, where an archive was unpacked into a folder of its own."""
    for _ in range(3):
        inside = [path for path in _visible(folder) if path.is_dir() or is_image(path)]
        if len(inside) != 1 or not inside[0].is_dir() or _split_word(inside[0].name):
            break
        if not any(path.is_dir() for path in _visible(inside[0])):
            break
        folder = inside[0]
    return folder


def _visible(folder: Path) -> list:
    """What lies in a folder, sorted, without what systems leave there."""
    paths = []
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(".") and path.name not in SYSTEM_FOLDERS:
            paths.append(path)
    return paths


def _images_below(folder: Path, inside: tuple = ()) -> Iterator[Path]:
    """All image files below a folder. A link back to a folder around it is not followed."""
    inside = (*inside, folder.resolve())
    for path in _visible(folder):
        if path.is_dir():
            if path.resolve() not in inside:
                yield from _images_below(path, inside)
        else:
            _check_kind(path)
            if is_image(path):
                yield path


def _check_kind(path: Path) -> None:
    """Raises InputError for an image of a kind that is not read; other files are just no images."""
    if path.suffix.lower() in UNREAD and not is_image(path):
        raise InputError(
            f"{path} is not a JPEG or PNG file; convert the {path.suffix} images first"
        )


def _split_word(name: str) -> str:
    """What a name says of a split: a value of SPLIT_WORDS, or ""."""
    return SPLIT_WORDS.get(letters(name), "")


def _meanings(name: str, place: Path, words: set) -> dict:
    """Which split each of some words means: {word: "train", "query", "gallery", "test", LEFT_OUT}.

    "test" beside "query" is the gallery. "val" is the test where there is no other, else left out.
    Raises InputError where train, query or gallery would be missing or twofold.
    """
    meanings = {word: word for word in words}
    if "query" in words and "test" in words:
        meanings["test"] = "gallery"
    if "val" in words:
        meanings["val"] = LEFT_OUT if words & {"query", "gallery", "test"} else "test"
    found = Counter(meanings.values())
    is_whole = found["train"] and (found["test"] or (found["query"] and found["gallery"]))
    if not is_whole or found["gallery"] > 1 or (found["gallery"] and found["test"]):
        raise InputError(
            f"{name} at {place} is split into {', '.join(sorted(words))}; expected train, query "
            "and gallery, or train and test"
        )
    return meanings


def _read_folders(name: str, folder: Path, camera_pattern: str) -> tuple:
    """The images of a folder: (the layout in words, images, whether their cameras are known)."""
    directory_of = {}  # {word: folder}
    for path in _visible(folder):
        word = _split_word(path.name) if path.is_dir() else ""
        if not word:
            continue
        if word in directory_of:
            raise InputError(
                f"{name} at {folder} holds {directory_of[word].name} and {path.name}, which both "
                f"mean {word}; keep one"
            )
        directory_of[word] = path
    if not directory_of:
        images, has_cameras = _read_people(name, folder, "", folder, camera_pattern)
        return "one folder", images, has_cameras
    images = []
    with_cameras = []
    used = []
    for word, split in _meanings(name, folder, set(directory_of)).items():
        if split != LEFT_OUT:
            directory = directory_of[word]
            found, has_cameras = _read_people(name, directory, split, folder, camera_pattern)
            images += found
            with_cameras.append(has_cameras)
            used.append(directory.name)
    if len(set(with_cameras)) > 1:
        raise InputError(
            f"{name} at {folder}: some of {', '.join(sorted(used))} have a folder for each person, "
            "some have images named PERSON_cCAMERA; expected one of the two"
        )
    return f"folders {', '.join(sorted(used))}", images, with_cameras[0]


def _read_people(name: str, folder: Path, split: str, root: Path, camera_pattern: str) -> tuple:
    """The images of a split: (images, whether their names say the camera)."""
    inside = _visible(folder)
    loose = [path for path in inside if not path.is_dir() and is_image(path)]
    people = [path for path in inside if path.is_dir()]
    images = []
    without = []
    for person in people:
        holds = {_split_word(path.name) for path in _visible(person) if path.is_dir()}
        if "train" in holds:
            raise InputError(
                f"{name}: {person} holds splits, and stands where a person's folder is expected; "
                f"name the data's own folder, or call that {name}"
            )
        of_person = list(_images_below(person))
        if not of_person:
            without.append(person.name)
        for path in of_person:
            below = path.relative_to(person).as_posix()
            images.append(Image(path, person.name, split, path.relative_to(root).as_posix(), below))
    names = [person.name for person in people]
    if images and all(re.fullmatch(r"cam(era)?[-_ ]?\w\w?", name, re.I) for name in names):
        raise InputError(
            f"{name}: the folders in {folder} are named {', '.join(names[:SHOWN])}, and a folder "
            "for each person is expected, with those of cameras in it; for another order write a "
            "CSV"
        )
    if images and loose:
        raise InputError(
            f"{name}: images lie beside the folders of people in {folder} ({len(loose)}, first "
            f"{loose[0].name}); move them into a person's folder, or away"
        )
    if images and without:
        some = ", ".join(without[:SHOWN]) + (", ..." if len(without) > SHOWN else "")
        warnings.warn(
            f"{name}: folders without an image in {folder} are left out ({len(without)}): {some}",
            stacklevel=4,
        )
    if loose:
        return _read_names(name, loose, split, root, camera_pattern), not camera_pattern
    if not images:
        tables = [path.name for path in inside if path.suffix.lower() in (".csv", ".tsv")]
        hint = f"; it holds {tables[0]}: name that file as data" if tables else ""
        raise InputError(
            f"{name}: no images in {folder}; expected JPEG or PNG files in a folder for each "
            f"person{hint}"
        )
    return images, False


def _read_names(name: str, paths: list, split: str, root: Path, camera_pattern: str) -> list:
    """Images that lie in no person's folder: their names begin with PERSON_cCAMERA."""
    images = []
    for path in paths:
        match = re.match(r"([^_]+)_c([0-9]+)", path.name)
        if camera_pattern:  # then only the person stands at the beginning
            match = re.match(r"([^_]+)_()", path.name)
        if not match:
            raise InputError(
                f"{name}: {path} lies in no person's folder, and its name does not begin with "
                "PERSON_cCAMERA, as 0002_c1s1_000451_03.jpg does; expected a folder for each "
                "person, such names, or a CSV"
            )
        place = path.relative_to(root).as_posix()
        images.append(Image(path, match[1], split, place, path.name, match[2]))
    return images


def _read_csv(name: str, path: Path) -> tuple:
    """The images that a CSV names: (the layout in words, images, whether it says the cameras)."""
    folder = path.parent.resolve()
    lines = read_table(path, COLUMNS, needed=("path", "identity"))
    has_splits = "split" in lines[0][1]
    words = {}
    for number, cells in lines:
        if has_splits and not _split_word(cells["split"]):
            raise InputError(
                f"{name}: line {number} of {path} has the split {cells['split']!r}; expected "
                "train, query, gallery or test"
            )
        words[number] = _split_word(cells["split"]) if has_splits else ""
    meanings = _meanings(name, path, set(words.values())) if has_splits else {"": ""}
    images = []
    missing = []
    line_of = {}  # {file: number of its line}
    for number, cells in lines:
        split = meanings[words[number]]
        if split == LEFT_OUT:
            continue
        file = _file_of(folder, cells["path"])
        if not os.path.isfile(file):
            missing.append((number, cells["path"]))
            continue
        _check_kind(file)
        if line_of.setdefault(file, number) != number:
            raise InputError(
                f"{name}: lines {line_of[file]} and {number} of {path} name the same image, "
                f"{cells['path']}; keep one"
            )
        # The split by rule goes by this name: it must not say how the CSV's own folder is written.
        place = file.name
        for around in (folder, path.parent.absolute()):
            if file.is_relative_to(around):
                place = file.relative_to(around).as_posix()
        images.append(Image(file, cells["identity"], split, place, place, cells.get("camera", "")))
    if missing:
        number, first = missing[0]
        raise InputError(
            f"{name}: {len(missing)} of {len(lines)} images named in {path} are not there, first "
            f"{first[:100]!r} in line {number}; expected paths relative to {path.parent} or "
            "absolute ones"
        )
    used = sorted({word for word in words.values() if meanings[word] not in ("", LEFT_OUT)})
    return f"CSV {', '.join(used)}".strip(), images, "camera" in lines[0][1]


def _file_of(folder: Path, text: str) -> Path:
    """The file that a CSV in `folder` means, if it is there. Windows writes \\ for /."""
    for spelling in (text, text.replace("\\", "/")):
        # Without "..", so that two spellings of one file are one.
        file = Path(os.path.normpath(folder / os.path.expanduser(spelling)))
        if os.path.isfile(file):
            break
    return file


def _find_cameras(name: str, images: list, camera_pattern: str, has_cameras: bool) -> str:
    """Give each image its camera. Returns in words how it was found."""
    if not camera_pattern:
        return "as found" if has_cameras else "one for all"
    if has_cameras:
        raise InputError(
            f"{name}: the CSV has a column of cameras, and camera_pattern is {camera_pattern!r}; "
            "leave one out"
        )
    pattern = camera_regex(camera_pattern)
    unlike = []
    for image in images:
        match = pattern.search(image.below)
        image.camera = match[pattern.groups] if match else ""
        if not image.camera:
            unlike.append(image)
    if unlike:
        raise InputError(
            f"{name}: camera_pattern {camera_pattern!r} finds no camera in {len(unlike)} of "
            f"{len(images)} images, first in {unlike[0].below!r}"
        )
    return f"camera_pattern {camera_pattern}"


def _split_by_rule(images: list, seed: int) -> None:
    """Give each image its split, by SPLIT_RULE."""

    def draw(text: str) -> str:
        return hashlib.sha256(f"{seed}/{text}".encode()).hexdigest()

    unsplit = {image.person for image in images if not image.split} - {JUNK}
    people = sorted(unsplit, key=draw)
    to_train = set(people[: (len(people) + 1) // 2])
    tested = {}  # {person: {camera: images}}
    for image in images:
        if not image.split:
            image.split = "train" if image.person in to_train else "test"
        if image.split == "test":
            image.split = "gallery"
            if image.person != JUNK:
                tested.setdefault(image.person, {}).setdefault(image.camera, []).append(image)
    n_cameras = len({image.camera for image in images})
    for by_camera in tested.values():
        if len(by_camera) == 1 and n_cameras > 1:  # no image of another camera could match
            continue
        groups = [group for group in by_camera.values() if len(group) > 1]
        if not groups:
            groups = [[image for group in by_camera.values() for image in group]]
        for group in groups:
            if len(group) > 1:
                min(group, key=lambda image: (draw(image.name), image.name)).split = "query"


def _check_splits(name: str, place: Path, images: list) -> None:
    """Raises InputError for too few people, and for people that are trained on and tested."""
    people = {}  # {"train": {person: an image}, "test": ...}
    for image in images:
        if image.person != JUNK:
            kind = "train" if image.split == "train" else "test"
            people.setdefault(kind, {}).setdefault(image.person, image)
    train, test = people.get("train", {}), people.get("test", {})
    if len(train) < 2 or not test:
        raise InputError(
            f"{name} at {place}: found {len(train)} people to train on and {len(test)} to test "
            "with; expected 2 and 1 at least: is there a folder, or an identity, for each person?"
        )
    if not any(image.split == "query" for image in images):
        raise InputError(
            f"{name} at {place}: none of the {len(test)} people of the test has two images, of two "
            "cameras where there are several, so no query could have a match"
        )
    both = sorted(set(train) & set(test), key=natural)
    if both:
        raise InputError(
            f"{name} at {place}: the training set and the test set share {len(both)} of "
            f"{len(set(train) | set(test))} people, first {both[0]!r} ({train[both[0]].name} and "
            f"{test[both[0]].name}), and a test is of people that were never seen; move their "
            "images into one set, or, where both number their people anew, rename those of one"
        )


def _as_benchmark(name: str, place: Path, images: list, reading: dict) -> OwnBenchmark:
    """People and cameras by their numbers."""
    people = sorted({image.person for image in images} - {JUNK}, key=natural)
    number_of = {person: number for number, person in enumerate(people, 1)} | {JUNK: -1}
    cameras = sorted({image.camera for image in images}, key=natural)
    camera_of = {camera: number for number, camera in enumerate(cameras, 1)}
    splits = {}
    counts = {}
    for split in ("train", "query", "gallery"):
        chosen = sorted((i for i in images if i.split == split), key=lambda i: (i.name, i.path))
        ids = np.array([number_of[image.person] for image in chosen], int)
        seen_by = np.array([camera_of[image.camera] for image in chosen], int)
        counts[split] = count(split, ids, seen_by)
        found = Split([str(image.path) for image in chosen], ids, seen_by)
        splits[split] = found.subset(ids != -1)
    return OwnBenchmark(
        name,
        name,
        place,
        "real",
        **splits,
        counts=counts,
        expected=counts,
        reading=reading | {"camera_names": cameras},
    )
