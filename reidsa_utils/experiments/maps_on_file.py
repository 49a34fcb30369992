"""What `reidsa examine --maps` wrote about runs, compared: SA against no SA, seed by seed.

Maps on file are {form: {seed: entry}}; an entry is the content of one file. Shares become percent
and differences points, as everywhere.
"""

from collections.abc import Callable

import numpy as np

from ..attention import FORMS
from .examine import KINDS, of_one_setting, read
from .map_measures import REMOVABLE, STAGES
from .missing_parts import kept, queries_with
from .statistics import difference, verdict


def read_maps(folder) -> dict[str, dict]:
    """The maps on file of one setting: no SA, and the forms that have a seed in common with it.

    Raises InputError as examine.read() and examine.of_one_setting() do.
    """
    _, needed = KINDS["maps"]
    by_form = of_one_setting(read(folder, needed), folder)
    without_sa = by_form["none"]
    return {
        form: dict(sorted(by_form[form].items()))
        for form in ("none", *(form for form in FORMS if form != "none"))
        if set(by_form.get(form, ())) & set(without_sa)
    }


def against_no_sa(maps: dict, form: str, pick: Callable) -> list[dict]:
    """A measure with SA minus without SA, at each stage: a statistics.difference() for each.

    pick: takes an entry, returns (stages,) shares, or one share.
    """
    seeds = sorted(set(maps[form]) & set(maps["none"]))
    without = np.array([np.atleast_1d(pick(maps["none"][seed])) for seed in seeds], float)
    with_sa = np.array([np.atleast_1d(pick(maps[form][seed])) for seed in seeds], float)
    return [_difference(a, b) for a, b in zip(without.T, with_sa.T, strict=True)]


def own_values(values) -> list[dict]:
    """Shares (runs, stages) as they are, in percent: means with their intervals over the runs.

    They have the keys of statistics.difference(), so that they can be drawn beside differences.
    """
    values = np.asarray(values, float)
    return [_difference(np.zeros(len(column)), column) for column in values.T]


def _difference(without: np.ndarray, with_sa: np.ndarray) -> dict:
    """statistics.difference() of the seeds that have the measure; NaN if none has it."""
    known = np.isfinite(without) & np.isfinite(with_sa)
    if not known.any():
        return {"seeds": 0, "deltas": [], **dict.fromkeys(("Δ", "low", "high"), np.nan)}
    return difference(without[known], with_sa[known])


def elongation(entry: dict) -> np.ndarray:
    """The vertical spread of test maps over the horizontal one, at each stage: (stages,).

    Both are relative to a flat map's. Above 1, a map is taller than wide, relative to its image.
    """
    return np.array(entry["test"]["vertical"]) / entry["test"]["horizontal"]


def against_random(entry: dict, score: str) -> np.ndarray:
    """A score of the maps against that of random values in their place, at each stage: (stages,).

    A ratio for "deletion" and "insertion", a difference for "drop" and "increase".
    """
    of_maps = np.array(entry["scores"]["map"][score])
    of_random = np.array(entry["scores"]["random"][score])
    if score in ("deletion", "insertion"):
        return of_maps / of_random
    return of_maps - of_random


def overlaps_with_no_sa(maps: dict, form: str, what: str) -> np.ndarray:
    """How maps overlap with those of the network without SA of the same seed: (pairs, stages).

    what: a measure of map_measures.overlaps(). For "none" the pairs are two networks of different
    seeds.
    """
    seed_of = {entry["run"]: seed for seed, entry in maps["none"].items()}
    want_same_seed = form != "none"
    pairs = []
    for seed, entry in maps[form].items():
        for other, found in entry["overlap"].items():
            if other in seed_of and (seed_of[other] == seed) == want_same_seed:
                pairs.append(found[what])
    return np.array(pairs)


def parts_of(maps: dict) -> list[str]:
    """The parts without which the queries of every run were drawn again."""
    entries = [entry for of_form in maps.values() for entry in of_form.values()]
    return [
        part
        for part in (*REMOVABLE, "occluder")
        if all(part in entry["missing"]["after"] for entry in entries)
    ]


def cost_of_marking(entry: dict, at_least: int = 5) -> np.ndarray:
    """Whether a part is missed more where the map marks it, at each stage: (stages,) shares.

    For one part, take the share of the mAP that is left without it, in the queries whose map marks
    this part most of all removable parts. Subtract the same share in the queries whose map marks it
    least. The result is the mean of these differences over the parts that have `at_least` queries
    of both kinds. The weights are those of a difference of two means. Below zero, a marked part is
    missed more. NaN if no part has enough queries.
    """
    return np.array([_cost_at(entry, k, at_least) for k in range(len(STAGES))])


def _cost_at(entry: dict, k: int, at_least: int) -> float:
    most, least = entry["missing"]["most"][k], entry["missing"]["least"][k]
    values, weights = [], []
    for part in entry["missing"]["after"]:
        now = queries_with(entry, part)
        marked, unmarked = {}, {}
        for query, ap in now.items():
            if most[query] == part and least[query] != part:
                marked[query] = ap
            if least[query] == part and most[query] != part:
                unmarked[query] = ap
        if min(len(marked), len(unmarked)) >= at_least:
            values.append(kept(entry, marked) - kept(entry, unmarked))
            weights.append(1 / (1 / len(marked) + 1 / len(unmarked)))
    return float(np.average(values, weights=weights)) if values else np.nan


def verdicts(found: list[dict]) -> str:
    """The verdict on a gain at each stage, by the rule for claims on maps: "1, 2: not shown".

    found: as against_no_sa() returns it. A gain of any size counts, so the verdict "equivalent"
    does not occur.
    """
    stages = {}  # {word: stages}
    for stage, row in enumerate(found, 1):
        word = verdict(row, claimed=0.0, margin=None)
        stages.setdefault(word, []).append(str(stage))
    if len(found) == 1:
        return next(iter(stages))
    return "; ".join(f"{', '.join(some)}: {word}" for word, some in stages.items())
