"""Why the softmax of eq. 1 fails: learning rates, single changes and gradients, from recorded runs.

Notebook 08 and its appendix 08a show the results.
"""

import json

import numpy as np
import pandas as pd

from .changes import Runs, Setting
from .pairing import between
from .records import ROOT

RATE_FORMS = ("none", "l1", "softmax")
COMMON_RATE = 0.05
SECOND_POPULATION = "200"  # the data seed of the people that the learning rates are chosen on

# A recipe that changes one thing in the softmax, and what it changes.
CAUSES = {
    "detached": "branches cut off",
    "gradient_as_gap": "gradient as long as GAP's",
    "norm_as_gap": "input as long as GAP's",
    "temperature_10": "temperature 10",
    "temperature_100": "temperature 100",
    "temperature_1000": "temperature 1,000",
    "standardised": "scores standardised",
}


def gradient_reach(runs: Runs, readings: dict, base: Setting) -> pd.DataFrame:
    """The gradient of a branch that reaches the map, in multiples of that in a base setting.

    readings: {name: Setting}; those without runs are left out. Columns: stages 1 to 3, at the first
    step of the run and at the first step of the last epoch.
    """
    table = {}
    for when, epoch in (("first step", 0), ("last epoch", -1)):
        of_base = _through(runs, base, epoch)
        for stage in range(3):
            column = {}
            for name, setting in readings.items():
                if setting in runs.by_setting:
                    column[name] = _through(runs, setting, epoch)[stage] / of_base[stage]
            table[when, f"stage {stage + 1}"] = column
    return pd.DataFrame(table)


def _through(runs: Runs, setting: Setting, epoch: int) -> np.ndarray:
    """The norm of one image's gradient at the map, by stage, mean over the seeds: (3,)."""
    of_seeds = []
    for record in runs.by_setting[setting].values():
        line = record["history"][epoch]
        of_seeds.append(line["first_step"][setting.form]["through"])
    return np.mean(of_seeds, axis=0)


def map_on_second_population(folder=ROOT / "results" / "populations") -> pd.DataFrame:
    """The mAP (%) of the runs at several learning rates, on people of another population.

    Columns: form, lr, seed, mAP.
    """
    rows = []
    for path in sorted(folder.glob("*.json")):
        stored = json.loads(path.read_text(encoding="utf-8"))
        if SECOND_POPULATION not in stored["populations"]:
            continue  # a run of `snakemake populations`
        metrics = stored["populations"][SECOND_POPULATION]["metrics"]["parts"]
        row = {name: stored["identity"][name] for name in ("form", "lr", "seed")}
        rows.append(row | {"mAP": 100 * metrics["mean_ap"]})
    return pd.DataFrame(rows)


def best_rates(second: pd.DataFrame) -> dict:
    """The learning rate with the highest mean mAP of each form: {form: rate}."""
    means = second.groupby(["form", "lr"]).mAP.mean()
    return {form: means[form].idxmax() for form in RATE_FORMS}


def at_rate(form: str, lr: float) -> dict:
    """The settings that select the runs of one form at one rate, for pairing.between()."""
    variant = "b_p_ds" if form == "none" else "b_p_ds_sa2"
    return {"variant": variant, "form": form, "lr": lr}


def by_rate(records: list, form: str, rates: list) -> pd.DataFrame:
    """The change of the mAP by a form against no SA, both at the same learning rate.

    Columns of statistics.difference(), a row for each rate.
    """
    rows = [between(records, at_rate(form, lr), at_rate("none", lr))["mAP"] for lr in rates]
    return pd.DataFrame(rows, index=rates)


def at_common_and_best(records: list, best: dict) -> pd.DataFrame:
    """The change of the mAP by each form, at the common rate and at each form's own best rate.

    Rows: (form, which rates). Columns: those of statistics.difference(), "its rate" and "rate of
    no SA".
    """
    rows = {}
    for form in ("softmax", "l1"):
        for name, lr, of_none in (
            ("the common rate", COMMON_RATE, COMMON_RATE),
            ("each at its own best", best[form], best["none"]),
        ):
            found = between(records, at_rate(form, lr), at_rate("none", of_none))["mAP"]
            rows[form, name] = {"its rate": lr, "rate of no SA": of_none} | found
    return pd.DataFrame.from_dict(rows, orient="index")


def changes_of_the_softmax(records: list) -> dict:
    """The softmax with one thing changed against no SA, at the common rate.

    Returns {what changed, in words: {metric: statistics.difference()}}, unchanged first.
    """
    base = at_rate("none", COMMON_RATE) | {"recipe": "paper", "erasing": True}
    found = {}
    for recipe, words in ({"paper": "softmax, unchanged"} | CAUSES).items():
        changed = at_rate("softmax", COMMON_RATE) | {"recipe": recipe}
        found[words] = between(records, changed, base)
    return found
