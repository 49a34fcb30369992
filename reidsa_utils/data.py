"""A benchmark on disk -> its images as one array: what is in a folder, against what was published."""

import hashlib
import json
import re
import tomllib
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from . import SETTINGS, InputError, known
from .support.opencv import cv2

SPLITS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
PUBLISHED = tomllib.loads((SETTINGS / "published.toml").read_text())
LAYOUTS = {
    name: SimpleNamespace(**entry) for name, entry in PUBLISHED["benchmarks"].items()
}  # fields: see there


@dataclass(frozen=True)
class Split:
    """Images of one split: N paths, identities (N,) and cameras (N,)."""

    paths: list
    ids: np.ndarray
    cameras: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class Benchmark:
    """A benchmark as read from disk. The gallery is without junk (id -1) and with distractors (id 0)."""

    name: str
    title: str
    folder: Path
    source: str  # "real" or "rendered"
    train: Split
    query: Split
    gallery: Split
    counts: dict  # what is there, junk included
    expected: dict  # the published counts, or those of the manifest of a rendered benchmark

    def differences(self) -> list:
        """One phrase for every count that is not as expected."""
        return [
            f"{self.counts[split][what]:,} {split} {what} (expected {n:,})"
            for split, counts in self.expected.items()
            for what, n in counts.items()
            if self.counts[split][what] != n
        ]

    def fingerprint(self) -> str:
        """sha256 over names and bytes of all images used (train, query, gallery without junk), 16 hex digits."""
        digest = hashlib.sha256()
        for split in (self.train, self.query, self.gallery):
            for path in split.paths:
                digest.update(Path(path).name.encode())
                digest.update(Path(path).read_bytes())
        return digest.hexdigest()[:16]


def count(split: str, ids, cameras) -> dict:
    """Images, identities and cameras of a split, in the gallery junk and distractors too, as the benchmarks' papers count."""
    ids = np.asarray(ids)
    out = {
        "images": len(ids),
        "ids": len(set(ids[ids > 0].tolist())),
        "cameras": len(set(np.asarray(cameras).tolist())),
    }
    return out | (
        {"junk": int((ids == -1).sum()), "distractors": int((ids == 0).sum())}
        if split == "gallery"
        else {}
    )


def find_folder(name: str, root) -> Path:
    """The benchmark's own folder: `root` itself or the folder of the distributed name inside it."""
    layout, root = LAYOUTS[known("benchmark", name, LAYOUTS)], Path(root)
    if not root.is_dir():
        raise InputError(
            f"{layout.title}: the data root {root} {'is a file' if root.exists() else 'does not exist'}; expected the folder "
            f"{layout.folder}, unpacked, or its parent ({layout.note})"
        )
    names = Path(layout.folder).parts
    for folder in (
        *(root.joinpath(*names[i:]) for i in range(len(names) + 1)),
        root / layout.folder / layout.folder,
    ):
        if any((folder / split).is_dir() for split in SPLITS.values()):
            others = {
                Path(o.folder).name: o.title
                for o in LAYOUTS.values()
                if o.folder != layout.folder and o.pattern == layout.pattern
            }
            if folder.resolve().name in others:
                raise InputError(
                    f"{layout.title}: {folder} is the folder of {others[folder.resolve().name]}; name that, or its parent"
                )
            return folder
    inside = ", ".join(sorted(p.name for p in root.iterdir())[:6]) or "nothing"
    raise InputError(
        f"{layout.title}: no benchmark in {root} (it holds {inside}); expected {layout.folder} with the folders "
        f"{', '.join(SPLITS.values())} ({layout.note})"
    )


def read_split(name: str, folder) -> tuple:
    """All images of a folder, as the file names say: (Split with junk, names that do not parse).

    name: of the benchmark; folder: one of its splits, or another folder in the same naming (Market-1501's gt_bbox holds
    the boxes of its multi-query setting). Raises InputError for a folder that is missing or without images.
    """
    layout, folder = LAYOUTS[known("benchmark", name, LAYOUTS)], Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"{layout.title}: the folder {folder.name} is missing in {folder.parent}; is the archive unpacked completely?"
        )
    files = sorted(
        p
        for p in folder.iterdir()
        if p.suffix.lower() in (".jpg", ".jpeg", ".png") and p.name[0] != "." and not p.is_dir()
    )
    if not files:
        raise InputError(
            f"{layout.title}: no images in {folder}; is the archive unpacked completely?"
        )
    parsed = [re.fullmatch(layout.pattern, p.name) for p in files]
    ids, cameras = np.array([[int(m[1]), int(m[2])] for m in parsed if m], int).reshape(-1, 2).T
    return (
        Split([str(p) for p, m in zip(files, parsed, strict=True) if m], ids, cameras),
        [p.name for p, m in zip(files, parsed, strict=True) if not m],
    )


def load_benchmark(name: str, root, warn: bool = True, strict: bool = True) -> Benchmark:
    """Read the file lists of a benchmark.

    name: a key of LAYOUTS. root: its folder or the parent. Files that are no images (Thumbs.db, readme) are ignored;
    in the gallery id -1 (junk) is dropped and id 0 (distractors) kept. Counts other than the published ones (or the
    manifest's, in a rendered benchmark) give a warning that names them.
    Raises InputError for a missing root or split, another benchmark, a broken manifest, or (strict) a name that does not parse.
    """
    layout, folder = LAYOUTS[known("benchmark", name, LAYOUTS)], find_folder(name, root)
    source, expected = "real", layout.counts
    if (folder / "manifest.json").is_file():
        try:
            manifest = json.loads((folder / "manifest.json").read_text())
            rendered, source, expected = (
                manifest["settings"]["name"],
                "rendered",
                {s: dict(manifest["counts"][s]) for s in SPLITS},
            )
            expected["gallery"]["junk"]
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{layout.title}: {folder / 'manifest.json'} is not the manifest of a rendered benchmark; delete it if the "
                "images are real, or render again"
            ) from None
        if rendered != name:
            raise InputError(
                f"{layout.title}: {folder} holds a rendered {rendered}; name that, or give another root"
            )
    splits, counts = {}, {}
    for split, directory in SPLITS.items():
        found, bad = read_split(name, folder / directory)
        if bad and strict:
            raise InputError(
                f"{layout.title}: {len(bad)} of {len(bad) + len(found)} image names in {folder / directory} do not parse, "
                f"first {bad[0]!r}; expected names like {layout.example}: is this another benchmark, or are two mixed?"
            )
        counts[split] = count(split, found.ids, found.cameras)
        keep = np.flatnonzero(found.ids != -1)
        splits[split] = Split([found.paths[i] for i in keep], found.ids[keep], found.cameras[keep])
    found = Benchmark(
        name, layout.title, folder, source, **splits, counts=counts, expected=expected
    )
    if warn and found.differences():
        warnings.warn(
            f"{layout.title} at {folder}: found {'; '.join(found.differences())}; is the download complete? "
            f"(reidsa check {name} {root})",
            stacklevel=2,
        )
    return found


def hold_out(benchmark: Benchmark, n: int) -> Benchmark:
    """A benchmark made of the training identities alone: n of them are query and gallery, the others are left to train on.

    The n are spread evenly over the sorted identities. Query: the first image, by name, of each of them in each camera;
    gallery: their other images. So settings can be chosen without a look at test people. Raises InputError for too many.
    """
    people = np.unique(benchmark.train.ids)
    if not 0 < n <= len(people) - 2:
        raise InputError(
            f"held_out is {n}, and {benchmark.title} at {benchmark.folder} has {len(people)} training identities, of which "
            f"two or more must be left to train on; choose from 1 to {len(people) - 2}"
        )
    out = np.isin(benchmark.train.ids, people[np.arange(n) * len(people) // n])
    pairs = np.stack([benchmark.train.ids, benchmark.train.cameras], 1)
    first = np.zeros(len(out), bool)
    first[np.unique(pairs, axis=0, return_index=True)[1]] = True  # paths are sorted by name
    splits = {"train": ~out, "query": out & first, "gallery": out & ~first}
    splits = {
        name: Split(
            [benchmark.train.paths[i] for i in np.flatnonzero(chosen)],
            benchmark.train.ids[chosen],
            benchmark.train.cameras[chosen],
        )
        for name, chosen in splits.items()
    }
    counts = {name: count(name, split.ids, split.cameras) for name, split in splits.items()}
    return replace(benchmark, **splits, counts=counts, expected=counts)


def decode(path) -> np.ndarray:
    """One image, (H, W, 3) uint8 BGR. Raises InputError for a broken file."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); restore this file from the archive"
        ) from error
    # OpenCV fills the missing part of a truncated file with grey and says nothing: look for the end marker first.
    whole = b"\xff\xd9" in data[-64:] if data[:2] == b"\xff\xd8" else b"IEND" in data[-16:]
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if whole else None
    if image is None:
        raise InputError(
            f"{path} is truncated or no image ({len(data):,} bytes); restore this file from the archive"
        )
    return image


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """A side that grows is interpolated linearly, as by PIL; one that shrinks (some of CUHK03's) is averaged: nothing is skipped."""
    small = min(image.shape[0], height), min(image.shape[1], width)
    for (h, w), how in ((small, cv2.INTER_AREA), ((height, width), cv2.INTER_LINEAR)):
        image = image if image.shape[:2] == (h, w) else cv2.resize(image, (w, h), interpolation=how)
    return image


def read_image(path, height: int, width: int) -> np.ndarray:
    """One image, decoded and resized: (height, width, 3) uint8 RGB. Raises InputError for a broken file."""
    return cv2.cvtColor(resize(decode(path), height, width), cv2.COLOR_BGR2RGB)


def load_images(paths, height: int, width: int, threads: int = 2) -> np.ndarray:
    """All images in memory: (N, height, width, 3) uint8 RGB; 477 MB for Market-1501's training set at 192x64.

    Raises InputError for a broken file.
    """
    out = np.empty((len(paths), height, width, 3), np.uint8)

    def fill(i):
        out[i] = read_image(paths[i], height, width)

    with ThreadPoolExecutor(threads) as pool:  # OpenCV decodes without the interpreter lock
        for _ in pool.map(fill, range(len(paths))):
            pass
    return out
