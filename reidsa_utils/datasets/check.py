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
from ..data import (
    LAYOUTS,
    SPLITS,
    Benchmark,
    benchmark_name,
    decode,
    load_benchmark,
    read_split,
    without_camera_rule,
)
from .own import OwnBenchmark, load_own

SHOWN = 50  # problems that are printed; of the others only their number


def check(
    name: str,
    root,
    progress: bool = True,
    camera_pattern: str = "",
    split_seed: int = 0,
    camera_rule: bool = True,
) -> int:
    """Print found against expected counts and whatever is damaged.

    name: of the benchmark, or of data of one's own. root: its folder or the parent, or a CSV of own
    data. Every image is decoded. File names are compared with those of the archive (Market-1501),
    of the index files (CUHK03-NP) or of the manifest (rendered benchmarks). No identity of the
    training set may be tested, and every query needs a match in another camera.
    camera_pattern, split_seed, camera_rule: as in config.Config.
    Returns the exit code: 0 if all is as expected, else 1.
    Raises InputError for an unknown name, or data that cannot be read.
    """
    if benchmark_name(name, own=True) not in LAYOUTS:
        return _check_own(load_own(name, root, camera_pattern, split_seed), camera_rule, progress)
    if camera_pattern or split_seed or not camera_rule:
        raise InputError(
            f"{name} is checked as it was published; camera_pattern, split_seed and "
            "no-camera-rule are for data of your own"
        )
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


def _check_own(found: OwnBenchmark, camera_rule: bool, progress: bool) -> int:
    """`check` for data of one's own: there are no published counts and names."""
    print(f"{found.title} at {found.folder} (own data: {found.reading['layout']})")
    for what in ("split", "split_seed", "cameras"):
        if what in found.reading:
            print(f"{what.replace('_', ' ')}: {found.reading[what]}")
    if any(found.reading["camera_names"]):
        print(f"camera names: {', '.join(found.reading['camera_names'])}")
    print(f"{'':22}{'images':>10}{'people':>10}{'cameras':>10}")
    for split, counts in found.counts.items():
        print(f"{split:22}{counts['images']:10,}{counts['ids']:10,}{counts['cameras']:10,}")
    if not camera_rule:
        found = without_camera_rule(found)
        print("without the camera rule: matches of the query's own camera count")
    files = [path for split in (found.train, found.query, found.gallery) for path in split.paths]
    problems = _undecodable(files, progress)
    try:
        found.check_matches()
    except InputError as error:  # one sentence, not one a query
        problems.append(str(error))
    else:
        problems += _protocol_problems(found)
    _print_problems(problems)
    if problems:
        print(f"problems: {len(problems):,}")
        return 1
    _print_fingerprint(found)
    print(f"nothing wrong; all {len(files):,} images decode")
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

    missing = "no other camera has a gallery image of this query's identity"
    if not found.camera_rule:
        missing = "the gallery has no image of this query's identity"
    for path, has_match in zip(found.query.paths, found.has_match().tolist(), strict=True):
        if not has_match:
            problems.append(f"{Path(path).name}: {missing}")
    return problems


def _print_problems(problems: list[str]) -> None:
    for problem in problems[:SHOWN]:
        print(f"problem: {problem}")
    if len(problems) > SHOWN:
        print(f"problem: and {len(problems) - SHOWN:,} more")


def _print_fingerprint(found: Benchmark) -> None:
    """Print a sound copy's fingerprint, and that of the real copy that this was tried on."""
    line = f"fingerprint {found.fingerprint()}"
    tried = getattr(LAYOUTS.get(found.name), "fingerprint", None)
    if found.source == "real" and tried:
        line += f" (of the copy that this was tried on: {tried})"
    print(line)
