"""Reads a benchmark from disk: its file lists, and its images as one array.

The counts found in a folder are compared with the published ones.
"""

import contextlib
import difflib
import hashlib
import json
import os
import re
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from . import SETTINGS, InputError, known, unknown_message
from .support.files import read_toml
from .support.image_files import flaw_of, listening, who_complains
from .support.opencv import cv2

SPLITS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
PUBLISHED = read_toml(SETTINGS / "published.toml")
# The benchmarks by name; the file explains the fields.
LAYOUTS = {name: SimpleNamespace(**entry) for name, entry in PUBLISHED["benchmarks"].items()}
# Usual names of a folder that holds the benchmark's own folder. "archive" is Kaggle's.
AROUND = ("archive", "data", "dataset", "datasets", "reid")


@dataclass(frozen=True)
class Split:
    """Images of one split: N paths, identities (N,) and cameras (N,)."""

    paths: list
    ids: np.ndarray
    cameras: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, chosen: np.ndarray) -> "Split":
        """The images where `chosen`, (N,) bool, is true."""
        paths = [self.paths[i] for i in np.flatnonzero(chosen)]
        return Split(paths, self.ids[chosen], self.cameras[chosen])


@dataclass(frozen=True)
class Benchmark:
    """A benchmark as read from disk.

    The gallery is without junk (id -1) and with distractors (id 0).
    """

    name: str
    title: str
    folder: Path
    source: str  # "real" or "rendered"
    train: Split
    query: Split
    gallery: Split
    counts: dict  # the counts found on disk, junk included
    expected: dict  # the published counts, or those of the manifest of a rendered benchmark
    # For data of your own: how people, cameras and splits were found. The record holds it, too.
    reading: dict = field(default_factory=dict)
    camera_rule: bool = True  # False: images of the query's own camera are matches, too

    @property
    def truth(self) -> tuple:
        """Identities and cameras of query and gallery, as metrics.evaluate_ranking takes them."""
        query, gallery = self.query, self.gallery
        if not self.camera_rule:
            return query.ids, gallery.ids, None, None
        return query.ids, gallery.ids, query.cameras, gallery.cameras

    def has_match(self) -> np.ndarray:
        """Whether the gallery holds a match of each query: (Q,) bool."""
        cameras_of = {}  # {identity: cameras that have a gallery image of it}
        for identity, camera in zip(
            self.gallery.ids.tolist(), self.gallery.cameras.tolist(), strict=True
        ):
            cameras_of.setdefault(identity, set()).add(camera)
        found = []
        for identity, camera in zip(
            self.query.ids.tolist(), self.query.cameras.tolist(), strict=True
        ):
            left_out = {camera} if self.camera_rule else set()
            found.append(bool(cameras_of.get(identity, set()) - left_out))
        return np.array(found, bool)

    def check_matches(self) -> None:
        """Raises InputError where no query has a match, so that nothing could be evaluated."""
        if self.has_match().any():
            return
        beginning = f"{self.title} at {self.folder}: none of the {len(self.query)} queries has a "
        if not self.camera_rule:
            raise InputError(
                f"{beginning}match: the gallery has no image of their identities; are query and "
                "gallery of one data set?"
            )
        seen = (
            f"the queries are of {self._cameras_of(self.query)}, the {len(self.gallery)} gallery "
            f"images of {self._cameras_of(self.gallery)}"
        )
        advice = "add gallery images of the same identities from another camera"
        if len(self.reading.get("camera_names", ())) == 1:
            seen = "all images are of one camera"
            advice = "tell cameras apart by camera_pattern, or by the column camera of a CSV"
        raise InputError(
            f"{beginning}match in another camera ({seen}), so rank-1 and mAP cannot be told; "
            f"{advice}, or let matches of the query's own camera count: camera_rule=false "
            "(--no-camera-rule)"
        )

    def _cameras_of(self, split: Split) -> str:
        """The text "camera 1" or "cameras 1, 2"; for data of your own, with their names."""
        names = [str(number) for number in np.unique(split.cameras)]
        if "camera_names" in self.reading:
            names = [self.reading["camera_names"][int(number) - 1] for number in names]
        if len(names) > 8:
            names = [*names[:7], "...", names[-1]]
        return f"{'camera' if len(names) == 1 else 'cameras'} {', '.join(names)}"

    def differences(self) -> list:
        """One phrase for every count that is not as expected."""
        phrases = []
        for split, counts in self.expected.items():
            for what, expected in counts.items():
                found = self.counts[split][what]
                if found != expected:
                    phrases.append(f"{found:,} {split} {what} (expected {expected:,})")
        return phrases

    def fingerprint(self) -> str:
        """sha256 over names and bytes of all images used, 16 hex digits.

        The images used are train, query, and gallery without junk.
        """
        digest = hashlib.sha256()
        for split in (self.train, self.query, self.gallery):
            for path in split.paths:
                digest.update(os.fsencode(Path(path).name))
                digest.update(Path(path).read_bytes())
        return digest.hexdigest()[:16]


def benchmark_name(name: str, own: bool) -> str:
    """Return `name` if it is the name of a benchmark or can be a name for data of your own.

    own: whether the caller also gave the folder or CSV of such data. Only then are names other than
        a benchmark's allowed. A name that looks like a misspelt benchmark is refused, since the
        mistake would not be noticed otherwise.
    Raises InputError for any other name; it lists the benchmarks.
    """
    if isinstance(name, str) and name in LAYOUTS:
        return name
    if not isinstance(name, str) or not own:
        raise InputError(
            f"{unknown_message('benchmark', name, LAYOUTS)} (data of your own need their folder or "
            "CSV beside the name: data=FOLDER)"
        )
    letters = _letters(name)
    for other, layout in LAYOUTS.items():
        whole = _letters(other)
        is_alias = letters in {_letters(alias) for alias in (layout.folder, *layout.also)}
        is_begun = len(letters) > 2 and whole.startswith(letters)  # market, cuhk03
        is_longer = whole in letters and len(letters) > len(whole) + 1  # market1501_night
        likeness = difflib.SequenceMatcher(None, letters, whole).ratio()
        if is_alias or is_begun or (likeness > 0.84 and not is_longer):
            raise InputError(
                f"unknown benchmark {name!r}; known: {', '.join(LAYOUTS)}; did you mean {other}? "
                "Data of your own need a name that is less like it"
            )
    if not re.fullmatch(r"\w[\w-]*", name):
        raise InputError(
            f"benchmark is {name!r}; expected a name of letters, digits, _ and - for data of your "
            "own, since files are named after it"
        )
    return name


def camera_regex(camera_pattern: str) -> re.Pattern:
    """Compile the regular expression that finds the camera of own data in a path.

    Raises InputError for a pattern that is not valid or has more than one group.
    """
    try:
        pattern = re.compile(camera_pattern)
    except re.error as error:
        raise InputError(
            f"camera_pattern {camera_pattern!r} is not a regular expression ({error}); expected "
            r"one such as cam(\d+)"
        ) from None
    if pattern.groups > 1:
        raise InputError(
            f"camera_pattern {camera_pattern!r} has {pattern.groups} groups; expected one, which "
            "finds the camera: write (?:...) for the others"
        )
    return pattern


def benchmark_in(folder: Path) -> str | None:
    """The name of the benchmark that a folder holds, None if it holds none.

    It is recognised by the name of the folder as distributed, or by the manifest of a rendered
    benchmark.
    """
    for name, layout in LAYOUTS.items():
        depth = len(Path(layout.folder).parts)
        tail = "/".join(folder.resolve().parts[-depth:])
        if _letters(tail) == _letters(layout.folder):
            return name
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return known("benchmark", manifest["settings"]["name"], LAYOUTS)
    except (OSError, ValueError, KeyError, TypeError):  # an InputError is a ValueError
        return None


def load_benchmark(name: str, root, warn: bool = True, strict: bool = True) -> Benchmark:
    """Read the file lists of a benchmark.

    Files that are not images (Thumbs.db, readme) are ignored. In the gallery id -1 (junk) is
    dropped and id 0 (distractors) kept. The counts are compared with the published ones (in a
    rendered benchmark: the manifest's). A warning names those that differ.

    name: a key of LAYOUTS.
    root: the benchmark's folder or its parent.
    warn: whether to warn about counts that differ.
    strict: whether to refuse a file name that does not parse.
    Raises InputError for a missing root or split, the folder of another benchmark, a broken
    manifest, or (strict) a file name that does not parse.
    """
    layout = LAYOUTS[known("benchmark", name, LAYOUTS)]
    folder = find_folder(name, root)
    if (folder / "manifest.json").is_file():
        source = "rendered"
        expected = _expected_by_manifest(name, folder)
    else:
        source = "real"
        expected = layout.counts

    splits = {}
    counts = {}
    for split, directory in SPLITS.items():
        found, unparsed = read_split(name, folder / directory)
        if unparsed and strict:
            raise InputError(
                f"{layout.title}: {len(unparsed)} of {len(unparsed) + len(found)} image names in "
                f"{folder / directory} do not parse, first {unparsed[0]!r}; expected names like "
                f"{layout.example}: is this another benchmark, or are two mixed?"
            )
        counts[split] = count(split, found.ids, found.cameras)
        splits[split] = found.subset(found.ids != -1)
    benchmark = Benchmark(
        name, layout.title, folder, source, **splits, counts=counts, expected=expected
    )
    differences = benchmark.differences()
    if warn and differences:
        warnings.warn(
            f"{layout.title} at {folder}: found {'; '.join(differences)}; "
            f"is the download complete? (reidsa check {name} {root})",
            stacklevel=2,
        )
    return benchmark


def find_folder(name: str, root) -> Path:
    """The benchmark's own folder: `root` itself or the folder of the distributed name inside it.

    Raises InputError for an unknown name, a root that is not a folder, and a root that holds
    another benchmark or none.
    """
    layout = LAYOUTS[known("benchmark", name, LAYOUTS)]
    root = Path(os.path.expanduser(root))
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise InputError(
            f"{layout.title}: the data root {root} {what}; expected the folder {layout.folder}, "
            f"unpacked, or its parent ({layout.note})"
        )
    for folder in _possible_folders(root, layout):
        if any((folder / split).is_dir() for split in SPLITS.values()):
            _check_not_another(layout, folder)
            return folder
    inside = ", ".join(sorted(path.name for path in root.iterdir())[:6]) or "nothing"
    raise InputError(
        f"{layout.title}: no benchmark in {root} (it holds {inside}); expected {layout.folder} "
        f"with the folders {', '.join(SPLITS.values())} ({layout.note})"
    )


def _possible_folders(root: Path, layout) -> Iterator[Path]:
    """Yield the folders where a benchmark may lie, in the order in which they are tried.

    First come root with the whole distributed name, root with the end of that name, and root
    itself. Then comes the name twice, since some programs unpack an archive in this way. Last come
    names that others use, in any letter case: market1501/Market-1501-v15.09.15 (torchreid),
    archive/Market1501 (Kaggle).
    """
    names = Path(layout.folder).parts
    for i in range(len(names) + 1):
        yield root.joinpath(*names[i:])
    yield root.joinpath(*names, *names)
    yield from _below(root, {_letters(name) for name in (*AROUND, *names, *layout.also)})


def _below(folder: Path, names: set, depth: int = 4) -> list:
    """All folders below `folder`, at most `depth` levels down, on paths made only of `names`.

    names: as `_letters` returns them.
    """
    if depth == 0:
        return []
    inside = [path for path in sorted(folder.iterdir()) if _letters(path.name) in names]
    folders = [path for path in inside if path.is_dir()]
    for path in list(folders):
        folders += _below(path, names, depth - 1)
    return folders


def _letters(name: str) -> str:
    """Only the letters and digits of a name, in lower case: "Market-1501" gives "market1501"."""
    return re.sub(r"[^a-z0-9]", "", str(name).lower())


def _check_not_another(layout, folder: Path) -> None:
    """Raises InputError for the folder of another benchmark whose file names look the same."""
    name = _letters(folder.resolve().name)
    for other in LAYOUTS.values():
        is_other = other.folder != layout.folder and other.pattern == layout.pattern
        if is_other and name == _letters(Path(other.folder).name):
            raise InputError(
                f"{layout.title}: {folder} is the folder of {other.title}; name that, or its parent"
            )


def _expected_by_manifest(name: str, folder: Path) -> dict:
    """The counts that the manifest of a rendered benchmark gives: {split: {what: number}}.

    Raises InputError for a broken manifest or that of another benchmark.
    """
    title = LAYOUTS[name].title
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_bytes())
        rendered = manifest["settings"]["name"]
        expected = {split: dict(manifest["counts"][split]) for split in SPLITS}
        is_whole = "junk" in expected["gallery"]
    except (ValueError, KeyError, TypeError):
        is_whole = False
    if not is_whole:
        raise InputError(
            f"{title}: {path} is not the manifest of a rendered benchmark; delete it if the images "
            "are real, or render again"
        )
    if rendered != name:
        raise InputError(
            f"{title}: {folder} holds a rendered {rendered}; name that, or give another root"
        )
    return expected


def read_split(name: str, folder) -> tuple:
    """All images of a folder, with the identities and cameras that the file names give.

    name: of the benchmark.
    folder: one of its splits, or another folder with the same kind of file names (Market-1501's
        gt_bbox holds the boxes of its multi-query setting).
    Returns a Split that includes junk, and a list of the names that do not parse.
    Raises InputError for a folder that is missing or without images.
    """
    layout = LAYOUTS[known("benchmark", name, LAYOUTS)]
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"{layout.title}: the folder {folder.name} is missing in {folder.parent}; "
            "is the archive unpacked completely?"
        )
    files = sorted(path for path in folder.iterdir() if is_image(path))
    if not files:
        raise InputError(
            f"{layout.title}: no images in {folder}; is the archive unpacked completely?"
        )
    paths = []
    labels = []
    unparsed = []
    for path in files:
        match = re.fullmatch(layout.pattern, path.name)
        if match:
            paths.append(str(path))
            labels.append((int(match[1]), int(match[2])))
        else:
            unparsed.append(path.name)
    ids, cameras = np.array(labels, int).reshape(-1, 2).T
    return Split(paths, ids, cameras), unparsed


def is_image(path: Path) -> bool:
    """Whether a file is an image, judged by its name. Hidden files and folders are not."""
    has_suffix = path.suffix.lower() in (".jpg", ".jpeg", ".png")
    return has_suffix and not path.name.startswith(".") and not path.is_dir()


def count(split: str, ids, cameras) -> dict:
    """Images, identities and cameras of a split, as the benchmarks' papers count them.

    For the gallery also junk and distractors. ids, cameras: (N,). Returns {what: number}.
    """
    ids = np.asarray(ids)
    cameras = np.asarray(cameras)
    counts = {
        "images": len(ids),
        "ids": len(set(ids[ids > 0].tolist())),
        "cameras": len(set(cameras.tolist())),
    }
    if split == "gallery":
        counts["junk"] = int((ids == -1).sum())
        counts["distractors"] = int((ids == 0).sum())
    return counts


def hold_out(benchmark: Benchmark, n: int) -> Benchmark:
    """Make a benchmark of the training identities alone, so that no test person is used.

    n identities, spread evenly over the sorted ones, become query and gallery; the others stay for
    training. Query: the first image, by name, of each of the n in each camera. Gallery: their other
    images.
    Raises InputError if n is less than 1 or leaves fewer than two identities for training.
    """
    train = benchmark.train
    people = np.unique(train.ids)
    if not 0 < n <= len(people) - 2:
        raise InputError(
            f"held_out is {n}, and {benchmark.title} at {benchmark.folder} has {len(people)} "
            "training identities, of which two or more must be left to train on; choose from 1 to "
            f"{len(people) - 2}"
        )
    chosen_people = people[np.arange(n) * len(people) // n]
    is_out = np.isin(train.ids, chosen_people)  # (N,)
    # Paths are sorted by name, so the first of each identity and camera is the first by name.
    id_and_camera = np.stack([train.ids, train.cameras], 1)
    _, first = np.unique(id_and_camera, axis=0, return_index=True)
    is_first = np.zeros(len(train), bool)
    is_first[first] = True

    chosen = {"train": ~is_out, "query": is_out & is_first, "gallery": is_out & ~is_first}
    splits = {name: train.subset(images) for name, images in chosen.items()}
    counts = {name: count(name, split.ids, split.cameras) for name, split in splits.items()}
    return replace(benchmark, **splits, counts=counts, expected=counts)


def without_camera_rule(benchmark: Benchmark) -> Benchmark:
    """The same benchmark, evaluated with images of the query's own camera as matches, too.

    Raises InputError if the gallery holds the file of a query, which would then match itself.
    """
    sizes = {Path(path).stat().st_size for path in benchmark.query.paths}
    in_gallery = {}  # {hash of the bytes: path}
    for path in benchmark.gallery.paths:
        if Path(path).stat().st_size in sizes:
            in_gallery[hashlib.sha256(Path(path).read_bytes()).digest()] = path
    for path in benchmark.query.paths:
        copy = in_gallery.get(hashlib.sha256(Path(path).read_bytes()).digest())
        if copy:
            raise InputError(
                f"{benchmark.title}: without the camera rule the gallery may not hold a query, "
                f"which would find itself; {copy} has the bytes of the query {path}: remove it"
            )
    return replace(benchmark, camera_rule=False)


def load_images(paths, height: int, width: int, threads: int = 2) -> np.ndarray:
    """Read all images into memory; 477 MB for Market-1501's training set at 192x64.

    An orientation in a file's EXIF is applied, unlike in code that opens files by PIL alone.
    Returns (N, height, width, 3) uint8 RGB.
    Warns, with the file's name, if a decoder reports that the data of a picture are corrupt.
    Raises InputError for a broken file.
    """
    images = np.empty((len(paths), height, width, 3), np.uint8)

    def read_from(start):
        for image, path in zip(images[start : start + 16], paths[start : start + 16], strict=True):
            resize(decode(path, cv2.IMREAD_COLOR_RGB), height, width, image)

    # OpenCV decodes without the interpreter lock. The loop over the results raises the first error.
    with ThreadPoolExecutor(threads) as pool, listening() as heard:
        for _ in pool.map(read_from, range(0, len(paths), 16)):
            pass
        said = who_complains(paths, decode, heard) if heard() else {}
    if said:
        path, words = next(iter(said.items()))
        others = f", and {len(said) - 1:,} more files" if len(said) > 1 else ""
        warnings.warn(
            f'{path}{others}: the decoder says "{words}", so part of the picture may be lost; '
            "restore the file from the archive, or leave it out",
            stacklevel=2,
        )
    return images


def read_image(path, height: int, width: int) -> np.ndarray:
    """One image, decoded and resized: (height, width, 3) uint8 RGB. See decode."""
    return resize(decode(path, cv2.IMREAD_COLOR_RGB), height, width)


def decode(path, mode: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """One image, (H, W, 3) uint8, BGR if `mode` does not say otherwise.

    An orientation in the file's EXIF is applied, unlike in code that opens files by PIL alone.
    mode: OpenCV's; IMREAD_COLOR_RGB gives RGB, IMREAD_GRAYSCALE (H, W).
    Raises InputError for a file that cannot be read, is not a JPEG or PNG, is cut short, or has
    damage that its structure shows.
    """
    try:
        with open(path, "rb", buffering=0) as file:  # half the time of Path.read_bytes
            data = file.read()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); restore this file from the archive"
        ) from error
    # OpenCV fills the missing part of a truncated file with grey and says nothing.
    flaw = flaw_of(data)
    image = None
    if not flaw:
        with contextlib.suppress(cv2.error):  # raised for a picture larger than OpenCV accepts
            image = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
        flaw = f"is truncated or no image ({len(data):,} bytes): no decoder reads it"
    if image is None:
        raise InputError(f"{path} {flaw}; restore this file from the archive")
    return image


def resize(image: np.ndarray, height: int, width: int, out: np.ndarray | None = None) -> np.ndarray:
    """Resize an image, (H, W, 3) -> (height, width, 3).

    A side that grows is interpolated linearly, as PIL does. A side that shrinks (in some images of
    CUHK03) is averaged, so that no pixel is skipped.
    out: where the result is written; without it a new array, or the image itself if it fits.
    """
    h = min(image.shape[0], height)
    w = min(image.shape[1], width)
    if image.shape[:2] != (h, w):
        image = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA)
    if image.shape[:2] != (height, width):
        return cv2.resize(image, (width, height), out, interpolation=cv2.INTER_LINEAR)
    if out is not None:
        out[:] = image
        return out
    return image
