"""Ranked lists with their numbers, and which queries a page shows."""

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
    def counted(self) -> int:
        """How many gallery images are no junk: the first ones."""
        return len(self.gallery) - self.junk


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
    """All distances of one kind, with the numbers that they give."""

    distances: np.ndarray  # (Q, G); re-ranked: without junk
    numbers: dict  # of numbers_of()


def rank(network: Network, people: People) -> dict[str, Ranking]:
    """All rankings of one network: {"plain", and "reranked" where the gallery is large enough}.

    The numbers are made as a run makes those of its record.
    """
    gallery, junk = network.gallery[: people.counted], network.gallery[people.counted :]
    distances = euclidean(network.query, gallery)
    plain_numbers = numbers_of(distances, people)
    if len(junk):
        distances = np.concatenate([distances, euclidean(network.query, junk)], axis=1)
    rankings = {"plain": Ranking(distances, plain_numbers)}
    if len(gallery) > reranking.K1:
        distances = reranking.rerank(network.query, gallery)
        rankings["reranked"] = Ranking(distances, numbers_of(distances, people))
    return rankings


def numbers_of(distances: np.ndarray, people: People, queries=slice(None)) -> dict:
    """Average precision ("ap") and rank of the first match ("first") of each query; rank-1 and mAP.

    distances: (N, G without junk) of some queries. {} where nobody knows who is who.
    """
    if not people.labelled:
        return {}
    found = evaluate_ranking(
        distances,
        people.query.ids[queries],
        people.gallery.ids[: people.counted],
        people.query.cameras[queries],
        people.gallery.cameras[: people.counted],
    )
    return {
        "ap": found.average_precision,
        "first": found.first_match,
        "rank1": float(found.cmc[0]),
        "mean_ap": found.mean_ap,
    }


def choose_queries(precision: np.ndarray | None, total: int, n: int) -> dict[int, str]:
    """The queries that the page shows, in their order, and why: {number: reason}.

    Half are evenly spaced, a quarter those whose average precision differs most between the
    networks, the rest the hardest. All of them if there are no more than n.
    precision: (networks, Q), NaN for a query without a match; None where nobody knows who is who.
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

    distances: (G,); ties rank in gallery order. numbers: of numbers_of(), whose row is shown.
    Returns {"images": gallery numbers, "distances": theirs} and, where there are numbers, "ap"
    (None without a match) and "first".
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
    """Whether a gallery image counts in no list of this query: junk, or its identity and camera."""
    if not people.labelled:
        return False
    if people.gallery.ids[g] == -1:
        return True
    same_identity = people.gallery.ids[g] == people.query.ids[query]
    return bool(same_identity and people.gallery.cameras[g] == people.query.cameras[query])
