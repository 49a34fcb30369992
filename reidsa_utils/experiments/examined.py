"""What `reidsa examine` wrote about the runs of notebook 08: weights, filters, re-ranking."""

import json

import numpy as np
import pandas as pd

from . import examine
from .changes import BENCHMARK, Runs, Setting, setting_of
from .records import ROOT

STAGES = ["stage 1", "stage 2", "stage 3", "stage 4"]

# The measures of the weights of a network before training: (name, form, key in the file).
MEASURES = (
    ("softmax: largest weight (%)", "softmax", "largest"),
    ("softmax: effective positions (%)", "softmax", "cells"),
    ("l1: effective positions (%)", "l1", "cells"),
    ("softmax of the mean: effective positions (%)", "softmax_mean", "cells"),
)


def read_examined(folder=ROOT / "results" / "examined") -> dict:
    """What `reidsa examine` wrote about the finished `laptop` runs of BENCHMARK.

    Returns {Setting: {seed: entry}}.
    """
    examined = {}
    for entry in examine.read(folder):
        identity = entry["identity"]
        if (identity["benchmark"], identity["epochs"], identity["scale"]) == (BENCHMARK, 10, 0.2):
            examined.setdefault(setting_of(identity), {})[identity["seed"]] = entry
    return examined


def weights_by_epoch(
    runs: Runs, examined: dict, setting: Setting, form: str, what: str
) -> np.ndarray:
    """A number about the attention weights, in percent, mean over the seeds: (epochs + 1, 4).

    The rows are the first step of each epoch and, at the end, test images after training (NaN if
    that was not examined). The columns are the stages.
    form: whose weights; what: "largest" (weight) or "cells" (effective share of the positions).
    """
    while_training, after = [], []
    for seed, record in runs.by_setting[setting].items():
        while_training.append([line["first_step"][form][what] for line in record["history"]])
        entry = examined.get(setting, {}).get(seed)
        if entry and entry["identity"] == record["identity"]:
            after.append(entry["weights"][form][what])
    last = np.mean(after, axis=0) if after else np.full(4, np.nan)
    return 100 * np.vstack([np.mean(while_training, axis=0), last])


def untrained_weights(folder=ROOT / "results" / "saturation") -> pd.DataFrame:
    """The weights of networks that have not seen a person, by stage, in percent.

    One row for each of MEASURES, network and kind of images (`reidsa examine --saturation`).
    """
    rows = []
    for path in sorted(folder.glob("*.json")):
        stored = json.loads(path.read_text(encoding="utf-8"))
        began = "random"
        if stored["began"] != "none":
            # the words that the file of weights itself holds
            began = stored["began"]["source"].split(" (")[0]
        network = f"{stored['backbone']}, {began} weights"
        images = f"{stored['source']}, {stored['height']}x{stored['width']}"
        for measure, form, key in MEASURES:
            percent = [100 * share for share in stored["weights"][form][key]]
            rows.append([network, images, measure, *percent])
    table = pd.DataFrame(rows, columns=["network", "images", "measure", *STAGES])
    return table.set_index(["measure", "network", "images"]).sort_index(sort_remaining=False)


def filters_of(examined: dict, setting: Setting, what: str, seeds: list) -> np.ndarray:
    """A number about the filters of each stage, in points of 100: (seeds, 4).

    what: "correlation" or "effective", see filters.filter_redundancy().
    """
    return 100 * np.array([examined[setting][seed]["filters"][what] for seed in seeds])


def rerank_slip(examined: dict) -> pd.DataFrame:
    """What the integer division changes in re-ranking: with 0 minus with two thirds, in points.

    One row for each examined network and vector: form, seed, vector, rank-1, mAP.
    """
    rows = []
    for setting, runs in examined.items():
        for seed, entry in runs.items():
            for vector, result in entry["rerank"].items():
                slipped, right = result["zero"], result["two thirds"]
                rows.append(
                    {
                        "form": setting.form,
                        "seed": seed,
                        "vector": vector,
                        "rank-1": 100 * (slipped["rank1"] - right["rank1"]),
                        "mAP": 100 * (slipped["mean_ap"] - right["mean_ap"]),
                    }
                )
    return pd.DataFrame(rows)
