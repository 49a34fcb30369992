"""The page's folder: its files of data, its pictures, the page itself.

The docstrings of index() and details() say what the files hold.
"""

import base64
import contextlib
import gzip
import json
import os
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ... import InputError
from ...data import load_images, resize
from ...datasets.rendered import PARTS, plan
from ...evaluation import extract
from ...metrics import euclidean
from ...support.files import partial_folder
from ..map_measures import REMOVABLE, VISIBLE, without_part
from . import maps
from .lists import (
    Network,
    People,
    Ranking,
    beginning,
    best_match,
    choose_queries,
    compared,
    mapped,
    numbers_of,
    precision_of,
    rank,
    why_not_reranked,
)
from .network import write_network
from .pictures import COLOURS, Pictures, part_mask, thumbnail

MOST = 3  # networks side by side
WITHOUT = (*REMOVABLE, "occluder")  # parts that are left out when a query is drawn again
OCCLUDED = 0.05  # a query is occluded if an occluder covers more than this share of its picture


def write_page(folder: Path, people: People, networks: list[Network], n: int) -> None:
    """Write all files of the page into an empty folder.

    people, networks: what is shown. n: how many queries.
    """
    for name in ("data", "images"):
        (folder / name).mkdir()
    for asset in assets():
        (folder / asset.name).write_bytes(asset.read_bytes())
    if people.source != "rendered":
        # With this file, git ignores the whole folder, wherever it is.
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")

    pictures = Pictures(folder, people)
    precision = None
    if people.labelled:
        precision = np.stack([precision_of(network, people) for network in networks])
    chosen = choose_queries(precision, len(people.query), n)
    rankings = [rank(network, people, chosen) for network in networks]
    lists = {q: lists_of(rankings, people, q) for q in chosen}
    missing = missing_parts(people, networks, list(chosen), pictures)
    for q in tqdm(chosen, desc="lists and maps", unit=" queries"):
        found = details(people, networks, q, lists[q], missing[q], pictures)
        write_script(folder / "data" / f"query_{q}.js", f"query_{q}", found)
    queries = []
    for q, reason in chosen.items():
        entry = query_entry(people, pictures, q, lists[q], list(missing[q]))
        queries.append({"reason": reason, **entry})
    shown = index(people, networks, rankings, queries, pictures)
    shown["network"] = network_in_page(folder, networks[0], people, pictures)
    write_script(folder / "data" / "index.js", "index", shown, packed=False)


def assets() -> list:
    """The files of the page itself: HTML, CSS, JavaScript."""
    return list((resources.files(__package__) / "assets").iterdir())


def lists_of(rankings: list[dict[str, Ranking]], people: People, q: int) -> list[dict]:
    """The lists of a query: for each network {"plain" and "reranked": list_of()}."""
    return [
        {name: list_of(own.distances[q], own.numbers, people, q, q) for name, own in each.items()}
        for each in rankings
    ]


def list_of(distances: np.ndarray, numbers: dict, people: People, q: int, row: int) -> dict:
    """beginning() of a list of query q, with its "best" match: a gallery number, or None.

    distances: (G,). numbers, row: as in beginning().
    """
    return beginning(distances, numbers, row) | {"best": best_match(distances, people, q)}


def missing_parts(
    people: People, networks: list[Network], chosen: list[int], pictures: Pictures
) -> dict[int, dict]:
    """The queries rendered again without each part that they show.

    Returns {query: {part: {"image": (H, W, 3) uint8 RGB, "file": its picture, "vectors": [(D,) of
    each network], "lists": [beginning() for each network]}}}.
    """
    found = {q: {} for q in chosen}
    if not people.settings:
        return found
    shots = {shot.filename: shot for shot in plan(people.settings)}
    for q in chosen:
        mask = part_mask(people.query.paths[q])
        shot = shots[Path(people.query.paths[q]).name]
        for part in WITHOUT:
            if (mask == PARTS.index(part)).mean() >= VISIBLE:
                image = without_part(people.settings, shot, part)
                file = pictures.without(q, part, image)
                found[q][part] = {"image": image, "file": file, "vectors": [], "lists": []}
    changed = [(q, one) for q in chosen for one in found[q].values()]
    if not changed:
        return found
    queries = np.array([q for q, _ in changed])
    for network in networks:
        c = network.config
        images = np.stack([resize(one["image"], c.height, c.width) for _, one in changed])
        vectors = extract(network.model, images)[network.vector]
        distances = euclidean(vectors, network.gallery)  # (changed, G)
        numbers = numbers_of(distances[:, : people.counted], people, queries)
        for row, (_, one) in enumerate(changed):
            one["vectors"].append(vectors[row])
            one["lists"].append(list_of(distances[row], numbers, people, queries[row], row))
    return found


def details(
    people: People,
    networks: list[Network],
    q: int,
    lists: list[dict],
    missing: dict,
    pictures: Pictures,
) -> dict:
    """What the page loads when a query is chosen.

    Returns {"missing": {part: its picture, and "lists" without it}, "views": for each network what
    maps_for_query() gives ([] without networks), "masks": {"query" and "gallery": part masks}}.
    """
    views = []
    with_maps = set()
    extra = {"": compared([shown for own in lists for shown in own.values()], people, q)}
    for part, changed in missing.items():
        extra[part] = compared(changed["lists"], people, q)
    for k, network in enumerate(networks):
        pairs = {"": [g for shown in lists[k].values() for g in mapped(shown, people, q)]}
        for part, changed in missing.items():
            pairs[part] = mapped(changed["lists"][k], people, q)
        pairs = {name: sorted({*some, *extra[name]}) for name, some in pairs.items()}
        numbers = sorted({g for some in pairs.values() for g in some})
        with_maps |= set(numbers)
        if network.model is None:
            continue
        c = network.config
        files = [people.query.paths[q], *(people.gallery.paths[g] for g in numbers)]
        read = load_images(files, c.height, c.width)
        drawn = [resize(changed["image"], c.height, c.width) for changed in missing.values()]
        vectors = [changed["vectors"][k] for changed in missing.values()]
        found = maps.maps_for_query(
            network.model,
            np.stack([read[0], *drawn, *read[1:]]),
            ["", *missing],
            numbers,
            np.stack([network.query[q], *vectors, *network.gallery[numbers]]),
            pairs,
            network.model.parts if network.vector == "parts" else 1,
        )
        views.append(found)
    masks = {"query": pictures.mask("query", q), "gallery": {}}
    if masks["query"]:
        masks["gallery"] = {g: pictures.mask("gallery", g) for g in sorted(with_maps)}
    without = {
        part: {"file": changed["file"], "lists": changed["lists"]}
        for part, changed in missing.items()
    }
    for own in [*lists, *(dict(enumerate(one["lists"])) for one in without.values())]:
        for shown in own.values():
            pictures.list([*shown["images"], *({shown["best"]} - {None})])
    return {"missing": without, "views": views, "masks": masks}


def query_entry(
    people: People, pictures: Pictures, q: int, lists: list[dict], parts: list[str]
) -> dict:
    """What the page holds about a query before it is chosen.

    Returns its number in the test set, its name (part of the page's address), picture, identity and
    camera, the cameras of its matches, the share of its picture that an occluder covers (None
    without a part mask), the parts that can be left out, and its lists.
    """
    identity, camera = int(people.query.ids[q]), int(people.query.cameras[q])
    of_matches = people.gallery.cameras[people.matches(q)]
    mask = part_mask(people.query.paths[q])
    occluded = None
    if mask is not None:
        occluded = round(hidden_share(mask), 3)
    return {
        "number": q,
        "name": name_of(people, q),
        "file": pictures.query(q),
        "id": identity,
        "camera": camera,
        "matches": len(of_matches),
        "match_cameras": sorted(set(of_matches.tolist())),
        "occluded": occluded,
        "parts": parts,
        "lists": lists,
    }


def name_of(people: People, q: int) -> str:
    """The name of a query: that of its file, with its number if several files have that name."""
    names = [Path(path).stem for path in people.query.paths]
    return names[q] if names.count(names[q]) == 1 else f"{names[q]}-{q}"


def index(
    people: People,
    networks: list[Network],
    rankings: list[dict[str, Ranking]],
    queries: list[dict],
    pictures: Pictures,
) -> dict:
    """What the page reads first.

    Returns title and source of the images; "labelled", "camera_rule" and "look_alikes" of
    People; "why_not_reranked" in a sentence; "networks": heading, facts, numbers of the record and
    those found here; "queries": of query_entry(); "gallery": {number: [picture, identity, camera]}
    of every image that a list shows; "total": queries of the test set; "occluded": of
    occluded_queries(), and "least_occluded"; "parts": {name: colour}; "removable": the parts that
    a query can be without, and "least_removable": the share of the picture that they have to fill.
    """
    shown_networks = []
    for network, of_network in zip(networks, rankings, strict=True):
        here = {}
        for name, own in of_network.items():
            if own.numbers:
                here[name] = {key: own.numbers[key] for key in ("rank1", "mean_ap")}
                here[name]["at_rank_1"] = own.at_rank_1
                here[name]["whom"] = own.whom
        shown_networks.append(
            {
                "heading": network.heading,
                "vector": network.vector,
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
        "camera_rule": people.camera_rule,
        "look_alikes": people.look_alikes,
        "why_not_reranked": why_not_reranked(people),
        "total": len(people.query),
        "gallery_size": people.counted,
        "junk": people.junk,
        "networks": shown_networks,
        "queries": queries,
        "gallery": gallery,
        "occluded": occluded_queries(people),
        "least_occluded": OCCLUDED,
        "parts": {
            part: "#" + bytes(colour).hex() for part, colour in zip(PARTS, COLOURS, strict=True)
        },
        "removable": list(WITHOUT),
        "least_removable": VISIBLE,
    }


def occluded_queries(people: People) -> str:
    """ "1" for each query of the test set that is occluded, else "0"; "" without part masks."""
    codes = []
    for path in people.query.paths:
        mask = part_mask(path)
        if mask is None:
            return ""
        codes.append("1" if hidden_share(mask) > OCCLUDED else "0")
    return "".join(codes)


def hidden_share(mask: np.ndarray) -> float:
    """The share of the picture that an occluder covers. mask: (H, W), indices of PARTS."""
    return float((mask == PARTS.index("occluder")).mean())


def network_in_page(
    folder: Path, network: Network, people: People, pictures: Pictures
) -> dict | None:
    """Write the first network, its runtime and the whole gallery, which the page reads on demand.

    Returns what write_network() does, with identities and cameras of the gallery.
    """
    if network.model is None:
        return None
    c = network.config
    vectors = network.pooled[: people.counted]
    written = write_network(folder, network.model, c.height, c.width, vectors)
    if written is None:
        return None
    (folder / "network" / "images").mkdir()
    for number in range(people.counted):
        if number not in pictures.gallery:
            picture = thumbnail(people.gallery.paths[number])
            (folder / "network" / "images" / f"g{number:05d}.webp").write_bytes(picture)
    return written | {
        "ids": people.gallery.ids[: people.counted].tolist(),
        "cameras": people.gallery.cameras[: people.counted].tolist(),
    }


def write_script(path: Path, name: str, content, packed: bool = True) -> None:
    """Write data as a script: a page that is opened from disk can load only scripts and pictures.

    packed: JSON, gzipped, in base64; otherwise plain JSON.
    """
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    if packed:
        text = json.dumps(base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode())
    path.write_text(f"EXPLORER.take({json.dumps(name)},{text});\n", encoding="utf-8")


# ---- the folder


def check_queries(queries: int) -> None:
    """Raises InputError for a page without queries."""
    if queries < 1:
        raise InputError(f"--queries is {queries}; expected 1 or more")


def check_count(named: list, what: str) -> None:
    """Raises InputError for more files or runs than the page can show, none, or one named twice."""
    if not 1 <= len(named) <= MOST:
        raise InputError(f"{len(named)} {what} are named; the page shows 1 to {MOST} side by side")
    paths = [Path(name) for name in named]  # without a slash at the end
    for k, name in enumerate(named):
        if paths[k] in paths[:k]:
            raise InputError(f"{name} is named twice; name each of the {what} once")


def check_free(out: Path) -> None:
    """Raises InputError unless there is nothing at `out`, or an earlier page."""
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"--out {out} is a file; name a folder")
    names = {path.name for path in out.iterdir()}
    of_a_page = {asset.name for asset in assets()} | {"data", "images", "network", ".gitignore"}
    is_page = (out / "data" / "index.js").is_file() and names <= of_a_page
    if names and not is_page:
        other = sorted(names - of_a_page) or sorted(names)
        raise InputError(
            f"--out {out} holds other files ({', '.join(other[:3])}); name a new folder, or an "
            "earlier page to replace it"
        )


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out`, which becomes `out` at the end.

    An earlier page at `out` is then replaced. If an error occurs, the temporary folder is removed.
    Raises InputError for a folder that holds other files or cannot be written.
    """
    out = Path(out).resolve()
    check_free(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with partial_folder(out.parent, "explorer") as partial:
            yield partial
            check_free(out)
            shutil.rmtree(out, ignore_errors=True)
            os.rename(partial, out)
    except OSError as error:
        raise InputError(
            f"{out} cannot be written ({error.strerror or error}); free some space or name another "
            "folder with --out"
        ) from error


def say_done(out: Path, people: People) -> None:
    """Print where the page is and how large."""
    files = [path for path in out.rglob("*") if path.is_file()]
    on_demand = [path for path in files if path.is_relative_to(out / "network")]
    total = sum(path.stat().st_size for path in files) / 1e6
    later = sum(path.stat().st_size for path in on_demand) / 1e6
    size = f"{total - later:.1f} MB"
    if on_demand:
        size += f", and {later:.1f} MB that are read on demand"
    print(f"{out / 'index.html'}: {size}; open it in a browser")
    if people.source != "rendered":
        print(
            "its pictures are of real people: keep the folder to yourself (git ignores it by the "
            ".gitignore in it)"
        )
