r"""Data of your own, under a name that you choose: folders of people, or a CSV.

    data/train/ query/ gallery/   each with a folder for each person: train/anna/1.jpg
    data/train/ test/             SPLIT_RULE splits the test images into query and gallery
    data/anna/ bob/ ...           SPLIT_RULE makes all splits
    data.csv                      columns path and identity, optionally split and camera;
                                  paths are relative to the CSV's folder

Images may lie at any depth below a person's folder. Images in no person's folder need names
like those of Market-1501, PERSON_cCAMERA: 0002_c1s1_000451_03.jpg. The person "-1" is junk, as in
Market-1501.

The camera comes from the column camera, from such a file name, or from camera_pattern. This pattern
is searched in the image's path below its person's folder (with a CSV: below the CSV's folder), so
cam(\d+) finds the 3 of cam3/0001.jpg. Otherwise all images are of one camera, and the camera rule
leaves nothing to evaluate.

SPLIT_RULE depends on the seed, the names of people, and the paths below the data's folder. People
and cameras are numbered from 1, in the order of their names; digits in a name are sorted by value.
A record holds these numbers and the names of cameras, but no names of people.

The EXIF orientation of an image is applied. Code that reads images with PIL does this only if it
asks for it, so that a photo from a phone is upright here and may lie on its side there.
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
# {name of a split, only its letters: which split it is}. "test" is query and gallery together.
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "boundingboxtrain", "imagetrain"), "train"),
    **dict.fromkeys(("query", "queries", "probe", "imagequery"), "query"),
    **dict.fromkeys(("gallery", "boundingboxtest"), "gallery"),
    **dict.fromkeys(("test", "testing", "imagetest"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
}
# The possible names of each column of a CSV, only their letters.
COLUMNS = {
    "path": ("path", "file", "filename", "filepath", "image", "imagepath", "imagename", "img"),
    "identity": ("identity", "id", "pid", "person", "personid", "label"),
    "camera": ("camera", "cam", "camid", "cameraid"),
    "split": ("split", "set", "subset", "partition"),
}
JUNK = "-1"  # the identity of images that are left out of every ranking, as in Market-1501
LEFT_OUT = "left out"
# Folders that systems leave beside images. Names that begin with a dot are skipped, too.
SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")
UNREAD = (".bmp", ".gif", ".webp", ".tif", ".tiff", ".heic", ".avif", ".jfif", ".ppm")
SHOWN = 3  # names in a sentence


@dataclass
class Image:
    """One image as it was found."""

    path: Path
    person: str
    split: str  # "train", "query", "gallery" or "test"; "" if it is not given
    name: str  # its path below the data's folder, with /
    below: str  # its path below its person's folder, with /: what camera_pattern is searched in
    camera: str = ""


@dataclass(frozen=True)
class OwnBenchmark(Benchmark):
    """Data of your own. Person and camera of an image cannot always be read from its file name."""

    def fingerprint(self) -> str:
        """sha256 over names, bytes, identities and cameras of all images used: 16 hex digits."""
        digest = hashlib.sha256(super().fingerprint().encode())
        for split in (self.train, self.query, self.gallery):
            digest.update(f"{split.ids.tolist()} {split.cameras.tolist()}\n".encode())
        return digest.hexdigest()[:16]


def load_own(name: str, data, camera_pattern: str = "", split_seed: int = 0) -> OwnBenchmark:
    """Read the file lists of data of your own, as the docstring of this module says.

    name: a name for the data, not that of a benchmark.
    data: their folder, a folder that holds them under `name`, or a CSV.
    camera_pattern: a regular expression whose group (or whole match) is the camera; "" for none.
    split_seed: the SEED of SPLIT_RULE.
    Raises InputError for anything that cannot be read or could be read in two ways.
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
    """The sort key of a name: digits in it are compared by value, other text as text."""
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
    """The data's own folder, if unpacking an archive has put it inside another folder."""
    for _ in range(3):
        inside = [path for path in _visible(folder) if path.is_dir() or is_image(path)]
        if len(inside) != 1 or not inside[0].is_dir() or _split_word(inside[0].name):
            break
        if not any(path.is_dir() for path in _visible(inside[0])):
            break
        folder = inside[0]
    return folder


def _visible(folder: Path) -> list:
    """The content of a folder, sorted, without the files that systems leave there."""
    paths = []
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(".") and path.name not in SYSTEM_FOLDERS:
            paths.append(path)
    return paths


def _images_below(folder: Path, inside: tuple = ()) -> Iterator[Path]:
    """All image files below a folder. A link to an enclosing folder is not followed."""
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
    """Raises InputError for an image in a format that is not read. Other files are ignored."""
    if path.suffix.lower() in UNREAD and not is_image(path):
        raise InputError(
            f"{path} is not a JPEG or PNG file; convert the {path.suffix} images first"
        )


def _split_word(name: str) -> str:
    """The split that a name means: a value of SPLIT_WORDS, or ""."""
    return SPLIT_WORDS.get(letters(name), "")


def _meanings(name: str, place: Path, words: set) -> dict:
    """Which split each word means: {word: "train", "query", "gallery", "test" or LEFT_OUT}.

    "test" beside "query" is the gallery. "val" is the test set if there is no other; otherwise it
    is left out.
    Raises InputError if train, query or gallery would be missing or given twice.
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
        # SPLIT_RULE uses this name, so it must not depend on how the CSV's folder was written.
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
        # Remove "..", so that two spellings of one file become equal.
        file = Path(os.path.normpath(folder / os.path.expanduser(spelling)))
        if os.path.isfile(file):
            break
    return file


def _find_cameras(name: str, images: list, camera_pattern: str, has_cameras: bool) -> str:
    """Give each image its camera. Returns in words how the camera was found."""
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
    """The benchmark, with numbers in the place of the names of people and cameras."""
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
