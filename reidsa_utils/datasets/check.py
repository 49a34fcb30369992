"""What `reidsa check` does: check a copy of a benchmark, and prepare CUHK03-NP. See notebook 03.

reidsa check market1501 data
reidsa prepare-cuhk03 cuhk-03.mat FOLDER_OF_THE_INDEX_FILES data
"""

import argparse
import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .. import SETTINGS, InputError, cores, run_command
from ..data import LAYOUTS, SPLITS, decode, load_benchmark, read_split


def check(name: str, root, progress: bool = True) -> int:
    """Print found against expected counts and whatever is damaged. Returns 1 if something is, else 0.

    Every image is decoded; file names are compared with the archive's (Market-1501), the index files' (CUHK03-NP) or the manifest's;
    identities of the training set must not be tested, and every query needs a match in another camera.
    """
    found, layout = load_benchmark(name, root, warn=False, strict=False), LAYOUTS[name]
    print(f"{found.title} at {found.folder} ({found.source})")
    print(f"{'':22}{'found':>10}{'expected':>10}")
    rows = [
        (f"{split} {what}", found.counts[split][what], n)
        for split, c in found.expected.items()
        for what, n in c.items()
    ]
    gallery = found.expected["gallery"]
    rows.append(("gallery without junk", len(found.gallery), gallery["images"] - gallery["junk"]))
    for label, n, expected in rows:
        print(f"{label:22}{n:10,}{expected:10,}{'' if n == expected else '   differs'}")

    problems, files = [], []
    if found.source == "rendered":
        names = json.loads((found.folder / "manifest.json").read_text()).get("names", {})
    else:
        names = json.loads(
            gzip.decompress((SETTINGS / "published_names.json.gz").read_bytes())
        ).get(name, {})
    for split, directory in SPLITS.items():
        images, bad = read_split(name, found.folder / directory)
        files += images.paths
        there, published = (
            {Path(p).name.split(".")[0] for p in images.paths},
            set(names.get(split, "").split()),
        )
        problems += [
            f"{directory}/{b} is no name of this benchmark, which are like {layout.example}"
            for b in bad
        ]
        if published:
            problems += [
                f"{directory}/{missing} is missing" for missing in sorted(published - there)
            ]
            problems += [
                f"{directory}/{more} does not belong there" for more in sorted(there - published)
            ]

    def broken(path):
        try:
            decode(path)
        except InputError as error:
            return str(error)

    with ThreadPoolExecutor(cores()) as pool:
        told = tqdm(
            pool.map(broken, files),
            total=len(files),
            desc="decoding",
            unit=" images",
            disable=not progress,
        )
        problems += [text for text in told if text]
    both = sorted(set(found.train.ids) & set(np.concatenate([found.query.ids, found.gallery.ids])))
    problems += [f"identity {pid} is in the training set and in the test set" for pid in both]
    seen = set(zip(found.gallery.ids.tolist(), found.gallery.cameras.tolist(), strict=True))
    cameras = set(found.gallery.cameras.tolist())
    problems += [
        f"{Path(path).name}: no other camera has a gallery image of this query's identity"
        for path, pid, camera in zip(
            found.query.paths, found.query.ids.tolist(), found.query.cameras.tolist(), strict=True
        )
        if not any((pid, other) in seen for other in cameras - {camera})
    ]
    for line in problems[:50]:
        print(f"problem: {line}")
    if len(problems) > 50:
        print(f"problem: and {len(problems) - 50:,} more")
    differ = sum(n != expected for _, n, expected in rows)
    if not problems:
        tried = getattr(layout, "fingerprint", None) if found.source == "real" else None
        print(
            f"fingerprint {found.fingerprint()}"
            + (f" (of the copy that this was tried on: {tried})" if tried else "")
        )
    print(
        f"counts that differ: {differ}; problems: {len(problems):,}; is the download complete?"
        if differ or problems
        else f"all counts as expected; all {len(files):,} images decode"
    )
    return int(differ > 0 or bool(problems))


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="reidsa", description="Benchmarks on disk.")
    commands = parser.add_subparsers(dest="command", required=True)
    sub = commands.add_parser(
        "check",
        help="counts, names, images and protocol of a copy; exit code 1 if something is wrong",
    )
    sub.add_argument("name", help=f"one of {', '.join(LAYOUTS)}")
    sub.add_argument("root", help="the benchmark's folder or its parent")
    sub = commands.add_parser("prepare-cuhk03", help="CUHK03-NP from the original cuhk-03.mat")
    sub.add_argument("mat", help="cuhk-03.mat")
    sub.add_argument("index_folder", help="folder of the two cuhk03_new_protocol_config_*.mat")
    sub.add_argument("root", help="folder that cuhk03-np is made in")
    arguments = parser.parse_args(argv)

    def work():
        if arguments.command == "check":
            return check(arguments.name, arguments.root)
        from .cuhk03 import prepare_cuhk03  # h5py and scipy are not for those who only read

        folders = prepare_cuhk03(arguments.mat, arguments.index_folder, arguments.root)
        return max(check(f"cuhk03_np_{folder.name}", folder) for folder in folders)

    return run_command(work)
