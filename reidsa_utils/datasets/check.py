"""Checks a copy of a benchmark: counts, file names, images, protocol. See notebook 03.

The command prepare-cuhk03 makes CUHK03-NP and then checks it at once.

    reidsa check market1501 data
    reidsa prepare-cuhk03 cuhk-03.mat FOLDER_OF_THE_INDEX_FILES data
"""

import gzip
import hashlib
import json
import re
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
from ..support.files import read_text
from ..support.image_files import listening, who_complains
from ..support.kinds import what_is
from .own import OwnBenchmark, load_own
from .rendered import CHECKSUMS

SHOWN = 50  # problems that are printed; for the others only their number
AT_A_TIME = 64  # images that are decoded before the decoders' complaints are read
DIGITS = 12  # digits of each sha256 in published_checksums.json.gz


def check(
    name: str,
    root,
    progress: bool = True,
    camera_pattern: str = "",
    split_seed: int = 0,
    camera_rule: bool = True,
) -> int:
    """Print the counts found beside the expected ones, and every problem of a copy.

    Every image is decoded. File names are compared with those of the archive (Market-1501), of the
    index files (CUHK03-NP) or of the manifest (rendered benchmarks).

    Checksums are known for Market-1501's archive and for the files that a SHA256SUMS beside the
    images lists (rendered benchmarks have one). No byte of such a file may differ. Other files are
    judged by their structure and by what their decoder complains of. There, bytes that the format
    allows (after the end, EXIF, thumbnails) are not damage, and a change that leaves a sound image
    is not noticed. The text of a problem says how it was found.

    No identity of the training set may be tested, and every query needs a match in another camera.

    name: a benchmark, or the name of data of your own. root: its folder or the parent, or the CSV
        of own data.
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
    checksums, unread = _known_checksums(found, files)
    problems += unread
    problems += _damages(files, checksums, progress)
    problems += _protocol_problems(found)
    if not problems:
        problems = _compare_fingerprint(found)
    _print_problems(problems)
    if n_differing or problems:
        print(
            f"counts that differ: {n_differing}; problems: {len(problems):,}; is the download "
            "complete?"
        )
        return 1
    print(f"all counts as expected; all {len(files):,} images decode; {_basis(files, checksums)}")
    return 0


def _check_own(found: OwnBenchmark, camera_rule: bool, progress: bool) -> int:
    """`check` for data of your own, which has no published counts and names."""
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
    checksums, problems = _known_checksums(found, files)
    problems += _damages(files, checksums, progress)
    try:
        found.check_matches()
    except InputError as error:  # one sentence instead of one for each query
        problems.append(str(error))
    else:
        problems += _protocol_problems(found)
    _print_problems(problems)
    if problems:
        print(f"problems: {len(problems):,}")
        return 1
    print(f"fingerprint {found.fingerprint()}")
    print(f"nothing wrong; all {len(files):,} images decode; {_basis(files, checksums)}")
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
                f"{directory}/{name} is not a name of this benchmark, which are like "
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
        manifest = json.loads((found.folder / "manifest.json").read_bytes())
        return manifest.get("names", {})
    return _unpacked("published_names.json.gz").get(found.name, {})


def _unpacked(name: str) -> dict:
    return json.loads(gzip.decompress((SETTINGS / name).read_bytes()))


def _known_checksums(found: Benchmark, files: list[str]) -> tuple[dict, list[str]]:
    """The known checksums, {path: first digits of its sha256}, and problems with their list."""
    path = found.folder / CHECKSUMS
    published = {}
    if found.source == "real":
        published = _unpacked("published_checksums.json.gz").get(found.name, {})
    known, problems = {}, []  # {folder/name without its ending: digits}
    if published:
        for split, names in _published_names(found).items():
            for k, name in enumerate(names.split()):
                known[f"{SPLITS[split]}/{name}"] = published[split][DIGITS * k : DIGITS * (k + 1)]
    elif path.is_file():
        known, problems = _read_checksums(path)
    of_files = {}
    for file in files:
        inside = Path(file).as_posix().removeprefix(f"{found.folder.as_posix()}/")
        digits = known.get(_without_ending(inside))
        if digits:
            of_files[file] = digits
    return of_files, problems


def _read_checksums(path: Path) -> tuple[dict, list[str]]:
    """A list as sha256sum writes it: {folder/name without its ending: digits}, and problems."""
    known = {}
    try:
        lines = read_text(path).splitlines()
    except InputError as error:
        return {}, [str(error)]
    for number, line in enumerate(lines, 1):
        match = re.fullmatch(r"([0-9a-f]{64}) [ *](?:\./)?(.+)", line)
        if not match:
            problem = f"{path}: line {number} is not a checksum and name; restore or delete it"
            return known, [problem]
        known[_without_ending(match[2])] = match[1]
    return known, []


def _without_ending(file: str) -> str:
    """folder/0002_c1s1_000451_03 of folder/0002_c1s1_000451_03.jpg, or of .jpg.jpg."""
    folder, _, name = file.rpartition("/")
    return f"{folder}/{name.split('.')[0]}"


def _damages(files: list[str], checksums: dict, progress: bool) -> list[str]:
    """Decode every image. Returns a sentence about each one that is broken or was changed."""
    sentences = []
    with (
        ThreadPoolExecutor(cores()) as pool,
        tqdm(total=len(files), desc="decoding", unit=" images", disable=not progress) as bar,
    ):
        for start in range(0, len(files), AT_A_TIME):
            some = files[start : start + AT_A_TIME]
            with listening() as heard:
                digits = [checksums.get(path) for path in some]
                damages = dict(zip(some, pool.map(_damage, some, digits), strict=True))
                said = {}
                if heard():
                    # A file that fits its checksum is unchanged, even if a decoder complains.
                    unsure = [path for path in some if not damages[path] and path not in checksums]
                    said = who_complains(unsure, decode, heard)
            for path, words in said.items():
                damages[path] = (
                    f'{path} is damaged: its decoder says "{words}"; restore this file from the '
                    "archive"
                )
            sentences += filter(None, damages.values())
            bar.update(len(some))
    return sentences


def _damage(path: str, digits: str | None) -> str:
    """What is wrong with an image, "" if nothing is. digits: the first digits of its sha256."""
    try:
        decode(path)
    except InputError as error:
        return str(error)
    data = Path(path).read_bytes()
    if digits and hashlib.sha256(data).hexdigest().startswith(digits):
        return ""
    kind = what_is(data)
    named = "a PNG image" if path.lower().endswith(".png") else "a JPEG image"
    if kind != named:
        return (
            f"{path} is {kind}, by its first bytes, under the name of {named}; restore this file "
            "from the archive"
        )
    if digits:
        return (
            f"{path} is an image, but by its checksum not the one that was made; restore this file "
            "from the archive, or render again"
        )
    return ""


def _basis(files: list[str], checksums: dict) -> str:
    """How the images were judged, in words: by checksums, or by structure and decoding."""
    if len(checksums) == len(files):
        return "all have their checksums"
    looked = "damage was looked for by structure and decoding, as no checksums are known"
    if not checksums:
        return looked
    return f"{len(checksums):,} have their checksums; in the others {looked}"


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


def _compare_fingerprint(found: Benchmark) -> list[str]:
    """Print the fingerprint of a sound copy. Returns a problem if a different one is expected."""
    fingerprint = found.fingerprint()
    tried = getattr(LAYOUTS.get(found.name), "fingerprint", None)
    if found.source != "real" or not tried:
        print(f"fingerprint {fingerprint}")
        return []
    print(f"fingerprint {fingerprint} (of the copy that this was tried on: {tried})")
    if fingerprint == tried:
        return []
    return [
        f"the fingerprint is {fingerprint}, expected {tried}: files or endings of names are others"
    ]
