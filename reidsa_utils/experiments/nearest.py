"""The first images of every query's ranked list, on file: notebook 07 shows them.

    reidsa examine --nearest RUN ...

RUN is the folder of a finished run or the name of a network in results/weights. The lists go to
results/nearest/NAME.json. To compute the vectors of a whole test set takes minutes; to read these
lists takes almost no time.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .. import InputError
from ..data import Benchmark
from ..metrics import euclidean
from ..support.files import ROOT
from .examine import extract_both, write
from .explorer.runs import open_network, test_set
from .records import published_name

FIRST = 5  # images of a list
VECTOR = "parts"


def nearest_images(query, gallery, benchmark: Benchmark, n: int = FIRST) -> np.ndarray:
    """The first n gallery images of every query's ranked list: (Q, n) numbers.

    Images that the evaluation leaves out of the list are not in it. Ties rank in gallery order, as
    in metrics.evaluate_ranking. A shorter list ends with -1.

    query: (Q, D), gallery: (G, D), vectors of the benchmark's images.
    """
    query_ids, gallery_ids, query_cameras, gallery_cameras = benchmark.truth
    lists = np.full((len(query_ids), n), -1)
    for q, distances in enumerate(euclidean(query, gallery)):
        order = np.argsort(distances, kind="stable")
        if query_cameras is not None:
            same_person = gallery_ids[order] == query_ids[q]
            same_camera = gallery_cameras[order] == query_cameras[q]
            order = order[~(same_person & same_camera)]
        order = order[:n]
        lists[q, : len(order)] = order
    return lists


def nearest_of(model, config, benchmark: Benchmark) -> np.ndarray:
    """nearest_images() of a network, (Q, FIRST), by its vector `parts`."""
    query, gallery = extract_both(model, config, benchmark)
    return nearest_images(query[VECTOR], gallery[VECTOR], benchmark)


def write_nearest(runs: Sequence[str], into: Path | None = None, data: str = "") -> None:
    """`reidsa examine --nearest`: write the lists of some networks, a file for each.

    Raises InputError for runs that are not complete, a variant without parts, and data that a run
    was not trained on.
    """
    if not runs:
        raise InputError("no run is named; name folders of finished runs, or stored networks")
    into = into or ROOT / "results" / "nearest"
    into.mkdir(parents=True, exist_ok=True)
    for run in runs:
        opened = open_network(str(run), data or "embedded")
        record, model, config, _ = opened
        if VECTOR not in model.vectors:
            raise InputError(f"{run} is a run of {config.variant}; expected a variant with parts")
        lists = nearest_of(model, config, test_set(opened))
        found = {"run": published_name(record), "identity": record["identity"]}
        write(into, found | {"nearest": lists.tolist()})


def read_nearest(record: dict, folder: Path = ROOT / "results" / "nearest") -> np.ndarray:
    """The lists of a published run, (Q, n) numbers of gallery images.

    Raises InputError if there is no file, or if it belongs to another run.
    """
    path = folder / f"{published_name(record)}.json"
    if not path.exists():
        raise InputError(f"no {path}; write it: reidsa examine --nearest {published_name(record)}")
    found = json.loads(path.read_bytes())
    if found["identity"] != record["identity"]:
        raise InputError(f"{path} is of another run than the record; write it again")
    return np.array(found["nearest"])
