"""Benchmarks on disk: what is in a folder, against what should be, and its images as one array.

    python -m reidsa_utils.benchmarks check market1501 data
"""

import argparse
import hashlib
import json
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from . import InputError, run_command

SPLITS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}


@dataclass(frozen=True)
class Layout:
    """How a benchmark lies on disk, and its published counts."""

    title: str
    folder: str
    pattern: str    # file name -> (id, camera)
    example: str
    expected: dict  # as counted by Benchmark.counts


# Counts: Zheng et al., ICCV 2015 (reference [34]); junk and distractors counted in the distributed files.
LAYOUTS = {
    "market1501": Layout(
        "Market-1501", "Market-1501-v15.09.15", r"(-1|\d{4})_c([1-6])s\d+_\d+_\d+\.jpg(\.jpg)?", "0002_c1s1_000451_03.jpg",
        {"train": {"images": 12936, "ids": 751}, "query": {"images": 3368, "ids": 750},
         "gallery": {"images": 19732, "ids": 750, "junk": 3819, "distractors": 2798}}),
}


@dataclass(frozen=True)
class Split:
    """Images of one split: paths (N), identities (N,) and cameras (N,)."""

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
    source: str      # "real" or "rendered"
    train: Split
    query: Split
    gallery: Split
    counts: dict     # what is there, junk included
    expected: dict   # the published counts, or those of the manifest of a rendered benchmark

    def differences(self) -> list:
        """One phrase for every count that is not as expected."""
        return [f"{self.counts[split][what]:,} {split} {what} (expected {n:,})"
                for split, counts in self.expected.items() for what, n in counts.items() if self.counts[split][what] != n]

    def fingerprint(self) -> str:
        """sha256 over names and bytes of all images used (train, query, gallery without junk), 16 hex digits."""
        digest = hashlib.sha256()
        for split in (self.train, self.query, self.gallery):
            for path in split.paths:
                digest.update(Path(path).name.encode())
                digest.update(Path(path).read_bytes())
        return digest.hexdigest()[:16]


def _layout(name: str) -> Layout:
    if name not in LAYOUTS:
        raise InputError(f"unknown benchmark {name!r}; known: {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def find_folder(name: str, root) -> Path:
    """The benchmark's own folder: `root` itself or the folder of the distributed name inside it."""
    layout, root = _layout(name), Path(root)
    if not root.is_dir():
        raise InputError(f"{layout.title}: the data root {root} does not exist; expected {layout.folder} or its parent folder")
    for folder in (root / layout.folder, root):
        if any((folder / split).is_dir() for split in SPLITS.values()):
            return folder
    inside = ", ".join(sorted(p.name for p in root.iterdir())[:6]) or "nothing"
    raise InputError(f"{layout.title}: no benchmark in {root} (it holds {inside}); expected {layout.folder} with the folders "
                     f"{', '.join(SPLITS.values())}")


def load_benchmark(name: str, root, warn: bool = True) -> Benchmark:
    """Read the file lists of a benchmark.

    name: a key of LAYOUTS. root: its folder or the parent. Files that are no images (Thumbs.db, readme) are ignored;
    in the gallery id -1 (junk) is dropped and id 0 (distractors) kept. Counts other than the published ones (or the
    manifest's, in a rendered benchmark) give a warning that names them.
    Raises InputError for a missing root or split, another benchmark, or a file name that does not parse.
    """
    layout, folder = _layout(name), find_folder(name, root)
    source, expected = "real", layout.expected
    if (folder / "manifest.json").is_file():
        try:
            manifest = json.loads((folder / "manifest.json").read_text())
            rendered, source, expected = manifest["settings"]["name"], "rendered", manifest["counts"]
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{layout.title}: {folder / 'manifest.json'} is not the manifest of a rendered benchmark; delete it if the "
                             "images are real, or render again") from None
        if rendered != name:
            raise InputError(f"{layout.title}: {folder} holds a rendered {rendered}; name that, or give another root")
    splits, counts = {}, {}
    for split, directory in SPLITS.items():
        if not (folder / directory).is_dir():
            raise InputError(f"{layout.title}: the folder {directory} is missing in {folder}; is the archive unpacked completely?")
        files = sorted(p for p in (folder / directory).iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
        if not files:
            raise InputError(f"{layout.title}: no images in {folder / directory}; is the archive unpacked completely?")
        parsed = [re.fullmatch(layout.pattern, p.name) for p in files]
        bad = [p.name for p, match in zip(files, parsed, strict=True) if match is None]
        if bad:
            raise InputError(f"{layout.title}: {len(bad)} file names in {folder / directory} do not parse, first {bad[0]!r}; expected "
                             f"names like {layout.example}: is this another benchmark?")
        ids, cameras = np.array([[int(m[1]), int(m[2])] for m in parsed]).T
        counts[split] = {"images": len(files), "ids": len(set(ids[ids > 0].tolist()))}
        if split == "gallery":
            counts[split] |= {"junk": int((ids == -1).sum()), "distractors": int((ids == 0).sum())}
        keep = np.flatnonzero(ids != -1)
        splits[split] = Split([str(files[i]) for i in keep], ids[keep], cameras[keep])
    found = Benchmark(name, layout.title, folder, source, **splits, counts=counts, expected=expected)
    if warn and found.differences():
        warnings.warn(f"{layout.title} at {folder}: found {'; '.join(found.differences())}; is the download complete? "
                      f"(python -m reidsa_utils.benchmarks check {name} {root})", stacklevel=2)
    return found


def read_image(path, height: int, width: int) -> np.ndarray:
    """One image, decoded and resized: (height, width, 3) uint8 RGB. Raises InputError for a broken file."""
    data = Path(path).read_bytes()
    # OpenCV fills the missing part of a truncated file with grey and says nothing: look for the end marker first.
    whole = b"\xff\xd9" in data[-64:] if data[:2] == b"\xff\xd8" else b"IEND" in data[-16:]
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if whole else None
    if image is None:
        raise InputError(f"{path} is truncated or no image ({len(data):,} bytes); restore this file from the archive")
    if image.shape[:2] != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def load_images(paths, height: int, width: int, threads: int = 2) -> np.ndarray:
    """All images in memory: (N, height, width, 3) uint8 RGB; 477 MB for Market-1501's training set at 192x64."""
    out = np.empty((len(paths), height, width, 3), np.uint8)

    def fill(i):
        out[i] = read_image(paths[i], height, width)

    with ThreadPoolExecutor(threads) as pool:  # OpenCV decodes without the interpreter lock
        for _ in pool.map(fill, range(len(paths))):
            pass
    return out


def check(name: str, root) -> int:
    """Print found against expected counts. Returns 1 if any differs, else 0."""
    found = load_benchmark(name, root, warn=False)
    print(f"{found.title} at {found.folder} ({found.source})")
    print(f"{'':22}{'found':>10}{'expected':>10}")
    rows = [(f"{split} {what}", found.counts[split][what], n) for split, c in found.expected.items() for what, n in c.items()]
    real = found.expected["gallery"]
    rows.append(("gallery without junk", len(found.gallery), real["images"] - real["junk"]))
    for label, n, expected in rows:
        print(f"{label:22}{n:10,}{expected:10,}{'' if n == expected else '   differs'}")
    differ = sum(n != expected for _, n, expected in rows)
    print(f"{differ} counts differ: is the download complete?" if differ else "all counts as expected")
    return int(differ > 0)


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reidsa_utils.benchmarks", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("check", help="found against expected counts; exit code 1 on a difference")
    sub.add_argument("name", help=f"one of {', '.join(LAYOUTS)}")
    sub.add_argument("root", help="the benchmark's folder or its parent")
    arguments = parser.parse_args(argv)
    return run_command(lambda: check(arguments.name, arguments.root))


if __name__ == "__main__":
    raise SystemExit(main())
