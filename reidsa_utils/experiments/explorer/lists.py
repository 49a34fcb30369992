"""Ranked lists with their numbers, and which queries a page shows."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from ... import reranking
from ...config import Config
from ...data import Split
from ...datasets.rendered import Settings
from ...metrics import euclidean, evaluate_ranking
from ...model import ReIDNet

LISTED = 50  # images of a ranked list
MAPPED = 10  # ranks of a list whose images have maps
# With more images than this, lists are not re-ranked. One number for each pair of images takes 4 GB
# for so many images, and 35 GB for MSMT17.
RERANKED = 30_000
# Whom a query finds first: its person, a wrong one in the same clothes, another wrong one.
WHOM = {"hit": "h", "alike": "a", "miss": "m"}


@dataclass(frozen=True)
class People:
    """The images that all networks of a page are shown on."""

    title: str
    source: str  # "rendered", "real", or "own": files that the user named
    query: Split
    gallery: Split  # junk (id -1), which counts in no list, comes last
    junk: int = 0
    labelled: bool = True  # False: the images have no identities
    camera_rule: bool = True  # False: images of the query's own camera are matches, too
    settings: Settings | None = None  # of the renderer, which can leave a part out

    @property
    def counted(self) -> int:
        """How many gallery images are not junk. They come first."""
        return len(self.gallery) - self.junk

    def cameras(self, queries=slice(None)) -> tuple:
        """Cameras of some queries and of the gallery without junk; None without camera rule."""
        if not self.camera_rule:
            return None, None
        return self.query.cameras[queries], self.gallery.cameras[: self.counted]

    def is_left_out(self, q: int, g: int) -> bool:
        """Whether a gallery image counts in no list of a query: junk, or its person and camera."""
        if not self.labelled:
            return False
        if self.gallery.ids[g] == -1:
            return True
        same_identity = self.gallery.ids[g] == self.query.ids[q]
        same_camera = self.gallery.cameras[g] == self.query.cameras[q]
        return bool(self.camera_rule and same_identity and same_camera)

    @property
    def look_alikes(self) -> int:
        """How many consecutive identities wear the same clothes; 0 without such groups."""
        groups = self.settings.look_alikes if self.settings else 0
        return groups if groups > 1 else 0

    def matches(self, q: int) -> np.ndarray:
        """The gallery images that are matches of a query: their numbers."""
        same = np.flatnonzero(self.gallery.ids[: self.counted] == self.query.ids[q])
        return np.array([g for g in same if not self.is_left_out(q, g)], int)


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
class Ranking:
    """The distances of some queries, and the metrics of all queries."""

    distances: dict[int, np.ndarray]  # {query: (G,)}; re-ranked: without junk
    numbers: dict  # as numbers_of() returns them
    whom: str  # as whom_first() returns it

    @property
    def at_rank_1(self) -> dict:
        """How many queries find whom first: {"hit", "alike", "miss"}."""
        return {name: self.whom.count(code) for name, code in WHOM.items()}


def rank(network: Network, people: People, queries: Iterable[int]) -> dict[str, Ranking]:
    """The rankings of one network: {"plain", and "reranked" unless why_not_reranked()}.

    queries: whose distances are kept; those of a whole benchmark would take gigabytes.
    The numbers are computed as for the record of a run.
    """
    gallery, junk = network.gallery[: people.counted], network.gallery[people.counted :]
    distances = euclidean(network.query, gallery)
    numbers = numbers_of(distances, people)
    whom = whom_first(distances, people)
    rows = {q: distances[q].copy() for q in queries}
    del distances
    if len(junk):
        to_junk = euclidean(network.query[list(rows)], junk)
        for q, more in zip(rows, to_junk, strict=True):
            rows[q] = np.concatenate([rows[q], more])
    rankings = {"plain": Ranking(rows, numbers, whom)}
    if not why_not_reranked(people):
        distances = reranking.rerank(network.query, gallery)
        numbers = numbers_of(distances, people)
        rows = {q: distances[q].copy() for q in queries}
        rankings["reranked"] = Ranking(rows, numbers, whom_first(distances, people))
    return rankings


def why_not_reranked(people: People) -> str:
    """Why no list is re-ranked, in a sentence; "" if all lists are."""
    if people.counted <= reranking.K1:
        return f"Re-ranking needs more than {reranking.K1} gallery images."
    images = len(people.query) + people.counted
    if images > RERANKED:
        gigabytes = 4 * images**2 / 1e9
        return f"Not re-ranked: for {images:,} images that takes {gigabytes:.0f} GB of memory."
    return ""


def precision_of(network: Network, people: People) -> np.ndarray:
    """Average precision of all queries, (Q,); NaN without a match."""
    gallery = network.gallery[: people.counted]
    return numbers_of(euclidean(network.query, gallery), people)["ap"]


def numbers_of(distances: np.ndarray, people: People, queries=slice(None)) -> dict:
    """Average precision ("ap") and rank of the first match ("first") of each query; rank-1 and mAP.

    distances: (N, G without junk) of some queries. {} if the images have no identities.
    """
    if not people.labelled:
        return {}
    gallery_ids = people.gallery.ids[: people.counted]
    query_ids = people.query.ids[queries]
    found = evaluate_ranking(distances, query_ids, gallery_ids, *people.cameras(queries))
    return {
        "ap": found.average_precision,
        "first": found.first_match,
        "rank1": float(found.cmc[0]),
        "mean_ap": found.mean_ap,
    }


def whom_first(distances: np.ndarray, people: People) -> str:
    """Whom each query finds first: a letter of WHOM for each query, "-" without a match.

    distances: (Q, G without junk). Returns "" if the images have no identities.
    """
    if not people.labelled:
        return ""
    codes = []
    ids, group = people.gallery.ids, people.look_alikes
    for q, row in enumerate(distances):
        identity = people.query.ids[q]
        if not len(people.matches(q)):
            codes.append("-")
            continue
        same = np.flatnonzero(ids[: people.counted] == identity)
        row = row.copy()
        row[[g for g in same if people.is_left_out(q, g)]] = np.inf
        found = ids[row.argmin()]
        if found == identity:
            codes.append(WHOM["hit"])
        elif group and (found - 1) // group == (identity - 1) // group:
            codes.append(WHOM["alike"])
        else:
            codes.append(WHOM["miss"])
    return "".join(codes)


def choose_queries(precision: np.ndarray | None, total: int, n: int) -> dict[int, str]:
    """The queries that the page shows, in their order, and why: {number: reason}.

    Half are evenly spaced, a quarter those whose average precision differs most between the
    networks, the rest the hardest. All of them if there are no more than n.
    precision: (networks, Q), NaN for a query without a match; None if there are no identities.
    total: Q. n: how many are wanted.
    """
    if total <= n or precision is None:
        spaced = np.unique(np.linspace(0, total - 1, min(n, total)).astype(int))
        return {int(q): "evenly spaced" for q in spaced}
    usable = np.flatnonzero(~np.isnan(precision).any(axis=0))
    n = min(n, len(usable))
    chosen = {}
    for place in np.linspace(0, len(usable) - 1, n - n // 2).astype(int):
        chosen[int(usable[place])] = "evenly spaced"
    if len(precision) > 1:
        spread = precision.max(axis=0) - precision.min(axis=0)
        most_different = usable[np.argsort(-spread[usable], kind="stable")]
        _add_first(chosen, most_different, n // 4, "differ")
    hardest = usable[np.argsort(precision.mean(axis=0)[usable], kind="stable")]
    _add_first(chosen, hardest, n - len(chosen), "hard")
    return dict(sorted(chosen.items()))


def _add_first(chosen: dict, candidates: np.ndarray, n: int, reason: str) -> None:
    """Add the first n candidates that are not chosen yet."""
    new = [q for q in candidates.tolist() if q not in chosen]
    chosen |= dict.fromkeys(new[:n], reason)


def beginning(distances: np.ndarray, numbers: dict, row: int) -> dict:
    """The first images of a ranking, as the page reads them.

    distances: (G,); ties rank in gallery order. numbers: as numbers_of() returns them; row: which
    row of them belongs to this ranking.
    Returns {"images": gallery numbers, "distances": their distances} and, if there are numbers,
    "ap" (None without a match) and "first".
    """
    order = np.argsort(distances, kind="stable")[:LISTED]
    shown = {
        "images": order.tolist(),
        "distances": [float(f"{d:.5g}") for d in distances[order].tolist()],
    }
    if not numbers:
        return shown
    ap = float(numbers["ap"][row])
    shown["ap"] = None if np.isnan(ap) else round(ap, 5)
    shown["first"] = int(numbers["first"][row])
    return shown


def mapped(shown: dict, people: People, query: int) -> list[int]:
    """The images of a list that have maps: all up to the tenth (MAPPED) that counts."""
    counts = 0
    found = []
    for g in shown["images"]:
        if counts == MAPPED:
            break
        found.append(g)
        counts += not people.is_left_out(query, g)
    return found


def best_match(distances: np.ndarray, people: People, query: int) -> int | None:
    """The nearest match of a query, by its distances (G,); None if it has no match."""
    matches = people.matches(query) if people.labelled else []
    if not len(matches):
        return None
    return int(matches[distances[matches].argmin()])


def compared(lists: list[dict], people: People, query: int) -> list[int]:
    """The gallery images for which every network has maps, at any rank of its own list.

    lists: of all networks, plain and re-ranked. Returns the first image that counts of each list,
    and the best match of each.
    """
    found = set()
    for shown in lists:
        counting = (g for g in shown["images"] if not people.is_left_out(query, g))
        found |= {next(counting, None), shown.get("best")}
    return sorted(found - {None})
