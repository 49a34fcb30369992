"""Checks a copy of a benchmark: counts, file names, images, protocol. See notebook 03.

Its command line also prepares CUHK03-NP, which is then checked at once.

    reidsa check market1501 data
    reidsa prepare-cuhk03 cuhk-03.mat FOLDER_OF_THE_INDEX_FILES data
"""

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .. import SETTINGS, InputError, cores
from ..data import LAYOUTS, SPLITS, Benchmark, decode, load_benchmark, read_split

SHOWN = 50  # problems that are printed; of the others only their number


def check(name: str, root, progress: bool = True) -> int:
    """Print found against expected counts and whatever is damaged.

    name: of the benchmark. root: its folder or the parent. Every image is decoded. File names are
    compared with those of the archive (Market-1501), of the index files (CUHK03-NP) or of the
    manifest (rendered benchmarks). No identity of the training set may be tested, and every query
    needs a match in another camera.
    Returns the exit code: 0 if all is as expected, else 1.
    Raises InputError for an unknown name or a folder that is no benchmark.
    """
    found = load_benchmark(name, root, warn=False, strict=False)
    n_differing = _print_counts(found)
    files, problems = _compare_names(found)
    problems += _undecodable(files, progress)
    problems += _protocol_problems(found)
    _print_problems(problems)
    if not problems:
        _print_fingerprint(found)
    if n_differing or problems:
        print(
            f"counts that differ: {n_differing}; problems: {len(problems):,}; is the download "
            "complete?"
        )
        return 1
    print(f"all counts as expected; all {len(files):,} images decode")
    return 0


def _print_counts(found: Benchmark) -> int:
    """Print what was counted beside what was expected. Returns how many counts differ."""
    rows = []  # (label, found, expected)
    for split, counts in found.expected.items():
        for what, expected in counts.items():
            rows.append((f"{split} {what}", found.counts[split][what], expected))
    gallery = found.expected["gallery"]
    rows.append(("gallery without junk", len(found.gallery), gallery["images"] - gallery["junk"]))

    print(f"{found.title} at {found.folder} ({found.source})")
    print(f"{'':22}{'found':>10}{'expected':>10}")
    n_differing = 0
    for label, n, expected in rows:
        line = f"{label:22}{n:10,}{expected:10,}"
        if n != expected:
            line += "   differs"
            n_differing += 1
        print(line)
    return n_differing


def _compare_names(found: Benchmark) -> tuple[list[str], list[str]]:
    """Compare the file names with the published ones. Returns (paths of all images, problems)."""
    published_names = _published_names(found)
    files, problems = [], []
    for split, directory in SPLITS.items():
        images, unparsed = read_split(found.name, found.folder / directory)
        files += images.paths
        for name in unparsed:
            problems.append(
                f"{directory}/{name} is no name of this benchmark, which are like "
                f"{LAYOUTS[found.name].example}"
            )
        published = set(published_names.get(split, "").split())
        if not published:
            continue
        present = {Path(path).name.split(".")[0] for path in images.paths}
        for name in sorted(published - present):
            problems.append(f"{directory}/{name} is missing")
        for name in sorted(present - published):
            problems.append(f"{directory}/{name} does not belong there")
    return files, problems


def _published_names(found: Benchmark) -> dict:
    """{split: names without their endings, separated by spaces}; empty where none are known."""
    if found.source == "rendered":
        manifest = json.loads((found.folder / "manifest.json").read_text())
        return manifest.get("names", {})
    packed = (SETTINGS / "published_names.json.gz").read_bytes()
    return json.loads(gzip.decompress(packed)).get(found.name, {})


def _undecodable(files: list[str], progress: bool) -> list[str]:
    """Decode every image. Returns a sentence about each that is broken."""
    with ThreadPoolExecutor(cores()) as pool:
        results = tqdm(
            pool.map(_damage, files),
            total=len(files),
            desc="decoding",
            unit=" images",
            disable=not progress,
        )
        return [damage for damage in results if damage]


def _damage(path: str) -> str:
    """What is wrong with an image, "" if nothing is."""
    try:
        decode(path)
    except InputError as error:
        return str(error)
    return ""


def _protocol_problems(found: Benchmark) -> list[str]:
    """Identities that are trained on and tested, and queries without a match in another camera."""
    problems = []
    tested = np.concatenate([found.query.ids, found.gallery.ids])
    for identity in sorted(set(found.train.ids) & set(tested)):
        problems.append(f"identity {identity} is in the training set and in the test set")

    cameras_of = {}  # {identity: cameras that have a gallery image of it}
    for identity, camera in zip(
        found.gallery.ids.tolist(), found.gallery.cameras.tolist(), strict=True
    ):
        cameras_of.setdefault(identity, set()).add(camera)
    query = found.query
    for path, identity, camera in zip(
        query.paths, query.ids.tolist(), query.cameras.tolist(), strict=True
    ):
        if not cameras_of.get(identity, set()) - {camera}:
            problems.append(
                f"{Path(path).name}: no other camera has a gallery image of this query's identity"
            )
    return problems


def _print_problems(problems: list[str]) -> None:
    for problem in problems[:SHOWN]:
        print(f"problem: {problem}")
    if len(problems) > SHOWN:
        print(f"problem: and {len(problems) - SHOWN:,} more")


def _print_fingerprint(found: Benchmark) -> None:
    """Print a sound copy's fingerprint, and that of the real copy that this was tried on."""
    line = f"fingerprint {found.fingerprint()}"
    tried = getattr(LAYOUTS[found.name], "fingerprint", None)
    if found.source == "real" and tried:
        line += f" (of the copy that this was tried on: {tried})"
    print(line)
