"""`reidsa explore`: a page that shows what up to three networks retrieve, and where they look.

The page is a folder that a browser opens from disk: page.js reads what is written here. What the
files hold stands in the docstrings of index() and query_file(). Networks come from finished runs
(or stored weights), or are only vectors of somebody else's (explorer_features.py).
"""

import base64
import contextlib
import gzip
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from .. import InputError, cores, reranking
from ..config import Config, configure
from ..data import Benchmark, Split, decode, load_images, read_split, resize
from ..datasets.rendered import PARTS, Settings, plan, read_settings
from ..evaluation import extract
from ..metrics import euclidean, evaluate_ranking
from ..model import ReIDNet
from ..support.files import ROOT
from ..support.memory import keep_freed_memory
from ..support.opencv import cv2
from . import explorer_maps, explorer_network
from .examine import open_run
from .map_measures import REMOVABLE, VISIBLE, without_part
from .records import published_name
from .run import load_weights, open_benchmark

MOST = 3  # networks side by side
LISTED = 50  # images of a ranked list
MAPPED = 10  # ranks of a list whose images have maps
HIGHEST = 256  # pixels of a picture on the page
# Colours of the part masks, RGB, in the order of PARTS; the background has none.
COLOURS = (
    *((0, 0, 0), (254, 217, 166), (120, 70, 30), (230, 159, 0), (0, 114, 178), (240, 228, 66)),
    *((255, 255, 255), (86, 180, 233), (0, 60, 110), (0, 158, 115), (60, 60, 60)),
    *((204, 121, 167), (213, 94, 0), (150, 30, 30), (150, 150, 150)),
)


@dataclass(frozen=True)
class People:
    """The images that all networks of a page are shown on."""

    title: str
    source: str  # "rendered", "real", or "own": files that somebody named
    query: Split
    gallery: Split  # junk (id -1), which counts in no list, comes last
    junk: int = 0
    labelled: bool = True  # False: nobody knows who is on the images
    settings: Settings | None = None  # of the renderer, which can leave a part out

    @property
    def counted(self) -> slice:
        """The gallery without junk."""
        return slice(0, len(self.gallery) - self.junk)


@dataclass
class Network:
    """One column of the page: the vectors of a network, and the network if there is one."""

    heading: str
    query: np.ndarray  # (Q, D)
    gallery: np.ndarray  # (G, D), junk last
    facts: dict = field(default_factory=dict)  # what the page says of it
    record: dict = field(default_factory=dict)  # its numbers on the whole test set, as published
    model: ReIDNet | None = None
    config: Config | None = None
    vector: str = ""  # "global" or "parts"
    pooled: np.ndarray | None = None  # (G, C), the vectors "global" of the gallery


@dataclass(frozen=True)
class Lists:
    """The whole rankings of one network, of which the page shows the beginning."""

    distances: np.ndarray  # (Q, all G), squared Euclidean
    reranked: np.ndarray | None  # (Q, G without junk)
    plain_numbers: dict
    reranked_numbers: dict


def explore_runs(
    runs: list[str],
    out: Path,
    queries: int,
    data: str = "embedded",
    gallery: Path | None = None,
    crops: list[Path] = (),
) -> None:
    """Write the page of some networks: `reidsa explore RUN ...`.

    runs: folders of finished runs, or names of stored networks. out: the folder to write.
    queries: how many are shown. data: what the runs were trained on, as in Config.
    gallery, crops: a folder of images, and images to look for in it, instead of the test set.
    Raises InputError for runs that are not whole or differ in data, and a folder in use.
    """
    check_free(out)
    check_count(runs, "runs")
    if queries < 1:
        raise InputError(f"--queries is {queries}; expected 1 or more")
    people = crops_as_people(gallery, crops) if gallery else None
    opened = [open_network(run, data) for run in runs]
    check_same_data(runs, [record for record, *_ in opened])
    keep_freed_memory()
    torch.set_num_threads(cores())
    if people is None:
        people = people_of(test_set(opened[0]))
    with new_folder(out) as folder:
        write_page(folder, people, vectors_of(opened, people), queries)
    say_done(out, people)


def say_done(out: Path, people: People) -> None:
    """Print where the page is and how large."""
    print(f"{out / 'index.html'}: {describe_folder(out)}; open it in a browser")
    if people.source != "rendered":
        print(
            "its pictures are of real people: keep the folder to yourself (git ignores it by the "
            ".gitignore in it)"
        )


def check_count(named: list, what: str) -> None:
    """Raises InputError for more than the page can show, or none."""
    if not 1 <= len(named) <= MOST:
        raise InputError(f"{len(named)} {what} are named; the page shows 1 to {MOST} side by side")
    for k, name in enumerate(named):
        if name in named[:k]:
            raise InputError(f"{name} is named twice; name each of the {what} once")


def open_network(run: str, data: str) -> tuple:
    """(record, model, Config, Benchmark) of a run's folder or of a stored network's name.

    The Benchmark is None for a stored network: test_set() opens it.
    Raises InputError for anything else, and for data that the network was not trained on.
    """
    for folder in (Path(run), ROOT / run):
        if folder.is_dir():
            return open_run(folder, data)
    stored = sorted(path.stem for path in (ROOT / "results" / "weights").glob("*.safetensors"))
    if run not in stored:
        raise InputError(
            f"{run} is neither the folder of a finished run nor a stored network; stored: "
            f"{', '.join(stored) or 'none'}"
        )
    model, record = load_weights(run)
    settings = record["identity"] | {"data": data, "weights": "none"}
    settings.pop("fingerprint")
    return record, model, configure(settings), None


def test_set(opened: tuple) -> Benchmark:
    """The benchmark of an opened network. Raises InputError for other data than it learned from."""
    record, _, config, benchmark = opened
    if benchmark is None:
        benchmark = open_benchmark(config)
        if benchmark.fingerprint() != record["identity"]["fingerprint"]:
            raise InputError(
                f"{published_name(record)} was not trained on the data at {benchmark.folder}; name "
                "its own data: --data FOLDER"
            )
    return benchmark


def check_same_data(runs: list[str], records: list[dict]) -> None:
    """Raises InputError for runs that were not tested on the same images."""
    first = records[0]["identity"]["fingerprint"]
    for run, record in zip(runs, records, strict=True):
        if record["identity"]["fingerprint"] != first:
            raise InputError(
                f"{runs[0]} and {run} are runs of different data; the page compares networks on "
                "the same images: name runs of one benchmark, scale and data seed"
            )


def people_of(benchmark: Benchmark) -> People:
    """The test set of a benchmark, with the junk that its evaluation leaves out."""
    gallery = benchmark.gallery
    found, _ = read_split(benchmark.name, Path(gallery.paths[0]).parent)
    junk = found.subset(found.ids == -1)
    with_junk = Split(
        [*gallery.paths, *junk.paths],
        np.concatenate([gallery.ids, junk.ids]),
        np.concatenate([gallery.cameras, junk.cameras]),
    )
    settings = read_settings(benchmark.folder) if benchmark.source == "rendered" else None
    return People(
        f"{benchmark.title} ({benchmark.source})",
        benchmark.source,
        benchmark.query,
        with_junk,
        junk=len(junk),
        settings=settings,
    )


def crops_as_people(gallery: Path, crops: list[Path]) -> People:
    """Somebody's own images: who is on them is not known.

    Raises InputError for a folder or a query that is not there.
    """
    if not Path(gallery).is_dir():
        raise InputError(f"--gallery {gallery} is no folder; name one with images of people")
    kinds = (".jpg", ".jpeg", ".png")
    found = sorted(p for p in Path(gallery).rglob("*") if p.suffix.lower() in kinds)
    if not found:
        raise InputError(f"--gallery {gallery} holds no image; expected {', '.join(kinds)} files")
    if not crops:
        raise InputError("--gallery is given without --query; name the image to look for")
    for path in crops:
        if not Path(path).is_file():
            raise InputError(f"--query {path} is no file; name an image of one person")

    def unlabelled(paths) -> Split:
        nobody = np.zeros(len(paths), int)
        return Split([str(path) for path in paths], nobody, nobody)

    title = f"{len(found):,} images in {Path(gallery).resolve().name}"
    return People(title, "own", unlabelled(crops), unlabelled(found), labelled=False)


def vectors_of(opened: list[tuple], people: People) -> list[Network]:
    """The networks with the vectors of all images; `parts` where all of them have it."""
    kinds = [model.vectors for _, model, *_ in opened]
    vector = "parts" if all("parts" in kind for kind in kinds) else "global"
    images = len(opened) * (len(people.query) + len(people.gallery))
    networks = []
    with tqdm(total=images, desc="vectors", unit=" images", mininterval=0.5) as bar:
        for record, model, config, _ in opened:
            found = [
                _extract_files(model, config, paths, bar)
                for paths in (
                    people.query.paths,
                    # As the run was evaluated: the junk is no part of its batches.
                    people.gallery.paths[people.counted],
                    people.gallery.paths[people.counted.stop :],
                )
            ]
            query, counted, junk = found
            gallery = {
                kind: np.concatenate([counted[kind], junk[kind]]) if junk else counted[kind]
                for kind in counted
            }
            networks.append(
                Network(
                    heading_of(record, networks),
                    query[vector],
                    gallery[vector],
                    facts_of(record, model),
                    _published_numbers(record, vector) if people.labelled else {},
                    model,
                    config,
                    vector,
                    gallery["global"],
                )
            )
    return networks


def _extract_files(model: ReIDNet, config: Config, paths: list, bar, block: int = 1024) -> dict:
    """Vectors of the images of some files: {kind: (N, D)}, {} for no file."""
    blocks = []
    for start in range(0, len(paths), block):
        images = load_images(paths[start : start + block], config.height, config.width)
        blocks.append(extract(model, images, tick=bar.update))
    if not blocks:
        return {}
    return {kind: np.concatenate([found[kind] for found in blocks]) for kind in blocks[0]}


def heading_of(record: dict, before: list[Network]) -> str:
    """What tells a network from those beside it."""
    c = record["config"]
    form = "no SA" if c["form"] == "none" else f"SA: {c['form']}"
    heading = f"{c['variant']}, {form}"
    others = [network.heading for network in before]
    if heading in others:
        heading = f"{heading}, {c['recipe']}, seed {c['seed']}"
    return f"{heading} ({len(before) + 1})" if heading in others else heading


def facts_of(record: dict, model: ReIDNet) -> dict:
    """What the page says of a network, and what its slider has to know."""
    c = record["config"]
    began = "random weights" if c["weights"] == "none" else "ImageNet weights"
    if isinstance(record["loaded"], dict) and "source" not in record["loaded"]:
        began = "the weights of another run"
    return {
        "run": published_name(record),
        "learned": (
            f"{record['title']}, {record['source']}: {record['classes']} people, "
            f"{c['epochs']} epochs from {began}"
        ),
        "learned_source": record["source"],
        "form": c["form"],
        "sa1": model.sa1.form != "none",
        "sa2": model.sa2_form != "none",
        "temperature": model.recipe.temperature,
        "standardise": model.recipe.standardise,
        "channels": list(model.channels),
        "classes": record["classes"],
    }


def _published_numbers(record: dict, vector: str) -> dict:
    """{"plain" and "reranked": rank-1 and mAP} of a record."""
    numbers = {}
    for name, key in (("plain", vector), ("reranked", f"{vector}+rerank")):
        if key in record["metrics"]:
            m = record["metrics"][key]
            numbers[name] = {"rank1": m["rank1"], "mean_ap": m["mean_ap"]}
    return numbers


def rank(network: Network, people: People) -> Lists:
    """All rankings of one network, and their numbers."""
    gallery, junk = network.gallery[people.counted], network.gallery[people.counted.stop :]
    distances = euclidean(network.query, gallery)
    plain_numbers = numbers_of(distances, people)
    reranked, reranked_numbers = None, {}
    if len(gallery) > reranking.K1:
        reranked = reranking.rerank(network.query, gallery)
        reranked_numbers = numbers_of(reranked, people)
    if len(junk):
        distances = np.concatenate([distances, euclidean(network.query, junk)], axis=1)
    return Lists(distances, reranked, plain_numbers, reranked_numbers)


def numbers_of(distances: np.ndarray, people: People, chosen=slice(None)) -> dict:
    """Average precision and rank of the first match of each query; rank-1 and mAP.

    distances: (queries chosen, G without junk). {} where nobody knows who is who.
    """
    if not people.labelled:
        return {}
    found = evaluate_ranking(
        distances,
        people.query.ids[chosen],
        people.gallery.ids[people.counted],
        people.query.cameras[chosen],
        people.gallery.cameras[people.counted],
    )
    return {
        "ap": found.average_precision,
        "first": found.first_match,
        "rank1": float(found.cmc[0]),
        "mean_ap": found.mean_ap,
    }


def choose_queries(lists: list[Lists], people: People, n: int) -> dict[int, str]:
    """The queries that the page shows, in their order, and why: {number: reason}.

    Half are evenly spaced, a quarter those whose average precision differs most between the
    networks, the rest the hardest. All of them if there are no more than n.
    """
    total = len(people.query)
    if total <= n or not people.labelled:
        spaced = np.unique(np.linspace(0, total - 1, min(n, total)).astype(int))
        return {int(q): "evenly spaced" for q in spaced}
    precision = np.stack([own.plain_numbers["ap"] for own in lists])  # (networks, Q)
    usable = np.flatnonzero(~np.isnan(precision).any(axis=0))
    n = min(n, len(usable))
    chosen = {}
    for place in np.linspace(0, len(usable) - 1, n - n // 2).astype(int):
        chosen[int(usable[place])] = "evenly spaced"
    spread = precision.max(axis=0) - precision.min(axis=0)
    if len(lists) > 1:
        _add_first(chosen, usable[np.argsort(-spread[usable], kind="stable")], n // 4, "differ")
    hardest = usable[np.argsort(precision.mean(axis=0)[usable], kind="stable")]
    _add_first(chosen, hardest, n - len(chosen), "hard")
    return dict(sorted(chosen.items()))


def _add_first(chosen: dict, candidates: np.ndarray, n: int, reason: str) -> None:
    """Add the first n candidates that are not chosen yet."""
    for q in candidates.tolist():
        if n <= 0:
            return
        if q not in chosen:
            chosen[q] = reason
            n -= 1


def beginning(distances: np.ndarray) -> dict:
    """The first images of a ranking: {"images": gallery numbers, "distances": theirs}.

    distances: (G,). Ties rank in gallery order.
    """
    order = np.argsort(distances, kind="stable")[:LISTED]
    return {
        "images": order.tolist(),
        "distances": [float(f"{d:.5g}") for d in distances[order].tolist()],
    }


def with_numbers(shown: dict, numbers: dict, query: int) -> dict:
    """The beginning of a ranking with its average precision and rank of the first match."""
    if not numbers:
        return shown
    ap = float(numbers["ap"][query])
    return {
        "ap": None if np.isnan(ap) else round(ap, 5),
        "first": int(numbers["first"][query]),
        **shown,
    }


def mapped(shown: dict, people: People, query: int) -> list[int]:
    """The images of a list that have maps: all up to the tenth that counts."""
    counts = 0
    found = []
    for g in shown["images"]:
        if counts == MAPPED:
            break
        found.append(g)
        counts += not left_out(people, query, g)
    return found


def left_out(people: People, query: int, g: int) -> bool:
    """Whether a gallery image counts in no list of this query: junk, or identity and camera."""
    if not people.labelled:
        return False
    same = people.gallery.ids[g] == people.query.ids[query]
    same_camera = people.gallery.cameras[g] == people.query.cameras[query]
    return people.gallery.ids[g] == -1 or bool(same and same_camera)


class Pictures:
    """The pictures and part masks of a page, each written once."""

    def __init__(self, folder: Path, people: People):
        self.folder, self.people = folder, people
        self.gallery = {}  # {number of a listed image: its picture}
        self.masks = {}  # {name of a mask's picture: what mask() returns}

    def query(self, number: int) -> str:
        """Write the picture of a query; returns its name."""
        return self._write(f"images/q{number:05d}.jpg", thumbnail(self.people.query.paths[number]))

    def list(self, numbers: list[int]) -> None:
        """Write the pictures of the gallery images that a list shows."""
        for number in numbers:
            if number not in self.gallery:
                picture = thumbnail(self.people.gallery.paths[number])
                self.gallery[number] = self._write(f"images/g{number:05d}.jpg", picture)

    def without(self, number: int, part: str, image: np.ndarray) -> str:
        """Write the picture of a query without a part; image: (H, W, 3) uint8 RGB."""
        return self._write(f"images/q{number:05d}-without-{part}.jpg", _jpeg(image[..., ::-1]))

    def mask(self, kind: str, number: int) -> dict | None:
        """Write the part mask of an image of the "query" or "gallery" split, if it has one.

        Returns its file, and [part, share of the picture] of each part.
        """
        name = f"images/{kind[0]}{number:05d}-parts.png"
        if name not in self.masks:
            mask = part_mask(getattr(self.people, kind).paths[number])
            if mask is None:
                return None
            shares = np.bincount(mask.ravel(), minlength=len(PARTS)) / mask.size
            visible = []
            for k, part in enumerate(PARTS):
                if k and shares[k]:
                    visible.append([part, round(float(shares[k]), 3)])
            self.masks[name] = {"file": self._write(name, _coloured(mask)), "parts": visible}
        return self.masks[name]

    def _write(self, name: str, content: bytes) -> str:
        (self.folder / name).write_bytes(content)
        return name


def _coloured(mask: np.ndarray) -> bytes:
    """A part mask as a PNG in COLOURS, transparent where nothing is."""
    colours = np.array(COLOURS, np.uint8)[mask][..., ::-1]
    alpha = np.where(mask > 0, 255, 0).astype(np.uint8)
    picture = np.dstack([colours, alpha])
    return cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()


def thumbnail(path) -> bytes:
    """An image as a JPEG for the page: the file itself where it is one and small enough.

    Raises InputError for a file that is missing or broken.
    """
    image = decode(path)
    height, width = image.shape[:2]
    if height <= HIGHEST and Path(path).suffix.lower() in (".jpg", ".jpeg"):
        return Path(path).read_bytes()
    if height > HIGHEST:
        image = resize(image, HIGHEST, max(1, round(width * HIGHEST / height)))
    return _jpeg(image)


def _jpeg(bgr: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()


def part_mask(path) -> np.ndarray | None:
    """The part mask of a rendered image, (H, W) uint8; None where there is none."""
    path = Path(path)
    file = path.parent.parent / "part_masks" / path.parent.name / f"{path.stem}.png"
    return cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) if file.exists() else None


def removable_parts(people: People, query: int) -> list[str]:
    """The parts that a query shows and the renderer can leave out."""
    mask = part_mask(people.query.paths[query]) if people.settings else None
    if mask is None:
        return []
    return [part for part in REMOVABLE if (mask == PARTS.index(part)).mean() >= VISIBLE]


def write_page(folder: Path, people: People, networks: list[Network], n: int) -> None:
    """Write all files of the page into an empty folder.

    people, networks: what is shown. n: queries.
    """
    for name in ("data", "images"):
        (folder / name).mkdir()
    assets = resources.files("reidsa_utils") / "explorer_page"
    for name in ("index.html", "page.css", "page.js"):
        (folder / name).write_bytes((assets / name).read_bytes())
    if people.source != "rendered":
        # Git leaves the whole folder alone, wherever it lies.
        (folder / ".gitignore").write_text("*\n")

    pictures = Pictures(folder, people)
    lists = [rank(network, people) for network in networks]
    chosen = choose_queries(lists, people, n)
    shots = {}
    if people.settings:
        shots = {shot.filename: shot for shot in plan(people.settings)}
    entries = []
    for q, reason in tqdm(chosen.items(), desc="maps", unit=" queries"):
        shot = shots.get(Path(people.query.paths[q]).name)
        missing = missing_parts(people, networks, q, shot)
        entry = query_entry(people, lists, pictures, q, reason, list(missing))
        details = query_file(people, networks, entry, missing, pictures, q)
        entries.append(entry)
        write_script(folder / "data" / f"query_{q}.js", f"query_{q}", details)
    on_demand = None
    if networks[0].model is not None:
        on_demand = network_in_page(folder, networks[0], people, pictures)
    shown = index(people, networks, lists, entries, pictures, on_demand)
    write_script(folder / "data" / "index.js", "index", shown, packed=False)


def network_in_page(
    folder: Path, network: Network, people: People, pictures: Pictures
) -> dict | None:
    """The first network, its runtime and the whole gallery, which the page reads on demand."""
    c = network.config
    gallery = network.pooled[people.counted]
    written = explorer_network.write_network(folder, network.model, c.height, c.width, gallery)
    if written is None:
        return None
    (folder / "network" / "images").mkdir()
    for number, path in enumerate(people.gallery.paths[people.counted]):
        if number not in pictures.gallery:
            (folder / "network" / "images" / f"g{number:05d}.jpg").write_bytes(thumbnail(path))
    return written | {
        "ids": people.gallery.ids[people.counted].tolist(),
        "cameras": people.gallery.cameras[people.counted].tolist(),
    }


def missing_parts(people: People, networks: list[Network], query: int, shot) -> dict:
    """A query rendered again without each part that it shows.

    Returns {part: {"image": (H, W, 3) uint8 RGB, "vectors": [(D,) of each network]}}.
    """
    found = {}
    for part in removable_parts(people, query):
        image = without_part(people.settings, shot, part)
        vectors = []
        for network in networks:
            c = network.config
            resized = resize(image, c.height, c.width)[None]
            vectors.append(extract(network.model, resized)[network.vector][0])
        found[part] = {"image": image, "vectors": vectors}
    return found


def query_entry(
    people: People, lists: list[Lists], pictures: Pictures, q: int, reason: str, parts: list[str]
) -> dict:
    """What the page knows of a query before it is chosen.

    Returns its picture, identity and camera, its name (the key in an address), why it was chosen,
    the cameras of its matches, the share of it that an occluder hides, the parts that can be left
    out, and "lists": for each network {"plain" and "reranked": beginning with numbers}.
    """
    shown = []
    for own in lists:
        entry = {"plain": with_numbers(beginning(own.distances[q]), own.plain_numbers, q)}
        if own.reranked is not None:
            start = beginning(own.reranked[q])
            entry["reranked"] = with_numbers(start, own.reranked_numbers, q)
        shown.append(entry)
    for kinds in shown:
        for start in kinds.values():
            pictures.list(start["images"])
    identity, camera = int(people.query.ids[q]), int(people.query.cameras[q])
    counted = people.counted
    others = people.gallery.cameras[counted][people.gallery.ids[counted] == identity]
    matches = others[others != camera]
    mask = part_mask(people.query.paths[q])
    occluded = None
    if mask is not None:
        occluded = round(float((mask == PARTS.index("occluder")).mean()), 3)
    return {
        "number": q,
        "name": Path(people.query.paths[q]).stem,
        "file": pictures.query(q),
        "id": identity,
        "camera": camera,
        "reason": reason,
        "matches": len(matches),
        "match_cameras": sorted(set(matches.tolist())),
        "occluded": occluded,
        "parts": parts,
        "lists": shown,
    }


def query_file(
    people: People,
    networks: list[Network],
    entry: dict,
    missing: dict,
    pictures: Pictures,
    q: int,
) -> dict:
    """What the page loads when a query is chosen.

    Returns {"missing": {part: its picture, and "lists" of each network without it}, "views": for
    each network what maps_for_query() gives ({} without a network), "masks": {"query" and
    "gallery": the part masks}}.
    """
    without = {}
    for part, changed in missing.items():
        shown = []
        for network, vector in zip(networks, changed["vectors"], strict=True):
            distances = euclidean(vector[None], network.gallery)
            numbers = numbers_of(distances[:, people.counted], people, slice(q, q + 1))
            start = with_numbers(beginning(distances[0]), numbers, 0)
            pictures.list(start["images"])
            shown.append(start)
        file = pictures.without(q, part, changed["image"])
        without[part] = {"file": file, "lists": shown}

    views = []
    with_maps = set()
    for k, network in enumerate(networks):
        own_lists = entry["lists"][k]
        pairs = {"": sorted({g for shown in own_lists.values() for g in mapped(shown, people, q)})}
        for part, changed in without.items():
            pairs[part] = mapped(changed["lists"][k], people, q)
        numbers = sorted({g for some in pairs.values() for g in some})
        with_maps |= set(numbers)
        if network.model is None:
            continue
        c = network.config
        files = [people.query.paths[q], *(people.gallery.paths[g] for g in numbers)]
        read = load_images(files, c.height, c.width)
        changed = [resize(own["image"], c.height, c.width) for own in missing.values()]
        vectors = [network.query[q], *(own["vectors"][k] for own in missing.values())]
        vectors += [network.gallery[g] for g in numbers]
        found = explorer_maps.maps_for_query(
            network.model,
            np.stack([read[0], *changed, *read[1:]]),
            ["", *missing],
            numbers,
            np.stack(vectors),
            pairs,
            network.model.parts if network.vector == "parts" else 1,
        )
        views.append(found)
    masks = {"query": pictures.mask("query", q), "gallery": {}}
    for g in sorted(with_maps):
        mask = pictures.mask("gallery", g)
        if mask:
            masks["gallery"][g] = mask
    return {"missing": without, "views": views, "masks": masks}


def index(
    people: People,
    networks: list[Network],
    lists: list[Lists],
    entries: list[dict],
    pictures: Pictures,
    on_demand: dict | None,
) -> dict:
    """What the page reads first.

    Returns title and source of the images; "networks": heading, facts, numbers of the record and
    those found here; "queries": of query_entry(); "gallery": {number: [picture, identity, camera]}
    of every image that a list shows; "total": queries of the test set; "parts": {name: colour};
    "network": what write_network() says, or None.
    """
    shown_networks = []
    for network, own in zip(networks, lists, strict=True):
        here = {}
        for name, numbers in (("plain", own.plain_numbers), ("reranked", own.reranked_numbers)):
            if numbers:
                here[name] = {key: numbers[key] for key in ("rank1", "mean_ap")}
        shown_networks.append(
            {
                "heading": network.heading,
                "vector": network.vector,
                "dimensions": network.query.shape[1],
                "facts": network.facts,
                "record": network.record,
                "here": here,
            }
        )
    ids, cameras = people.gallery.ids, people.gallery.cameras
    gallery = {}
    for number, name in sorted(pictures.gallery.items()):
        gallery[number] = [name, int(ids[number]), int(cameras[number])]
    return {
        "title": people.title,
        "source": people.source,
        "labelled": people.labelled,
        "total": len(people.query),
        "gallery_size": people.counted.stop,
        "junk": people.junk,
        "networks": shown_networks,
        "queries": entries,
        "gallery": gallery,
        "parts": {
            part: "#" + bytes(colour).hex() for part, colour in zip(PARTS, COLOURS, strict=True)
        },
        "network": on_demand,
    }


def write_script(path: Path, name: str, content, packed: bool = True) -> None:
    """A file of data as a script, since a page from disk may not read other files.

    packed: JSON, gzipped, in base64; otherwise plain JSON.
    """
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    if packed:
        text = json.dumps(base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode())
    path.write_text(f"EXPLORER.take({json.dumps(name)},{text});\n", encoding="utf-8")


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out`, which becomes `out` at the end, or leaves nothing.

    An earlier page at `out` is replaced. Raises InputError for a folder that holds other files or
    cannot be written.
    """
    out = Path(out).resolve()
    check_free(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".explorer-", dir=out.parent))
    except OSError as error:
        raise _not_written(out, error) from error
    try:
        yield partial
        partial.chmod(0o755)
        check_free(out)
        shutil.rmtree(out, ignore_errors=True)
        os.rename(partial, out)
    except OSError as error:
        raise _not_written(out, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _not_written(out: Path, error: OSError) -> InputError:
    return InputError(
        f"{out} cannot be written ({error.strerror or error}); free some space or name another "
        "folder with --out"
    )


def check_free(out: Path) -> None:
    """Raises InputError unless there is nothing at `out`, or an earlier page."""
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"--out {out} is a file; name a folder")
    names = {path.name for path in out.iterdir()}
    page = {"index.html", "page.css", "page.js", "data", "images", "network", ".gitignore"}
    is_page = (out / "data" / "index.js").is_file()
    if names and not (is_page and names <= page):
        other = sorted(names - page) or sorted(names)
        raise InputError(
            f"--out {out} holds other files ({', '.join(other[:3])}); name a new folder, or an "
            "earlier page to replace it"
        )


def describe_folder(out: Path) -> str:
    """How large a page is, in words."""

    def megabytes(paths) -> float:
        return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6

    network = list((out / "network").rglob("*")) if (out / "network").exists() else []
    all_files = list(out.rglob("*"))
    said = f"{megabytes(all_files) - megabytes(network):.1f} MB"
    if network:
        said += f", and {megabytes(network):.1f} MB that are read on demand"
    return said
