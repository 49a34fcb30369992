"""The numbers in sentences: each has a name, and is taken from the records in results/ by it.

settings/numbers.toml names selections of runs. The name of a number says a selection, what is
looked at, and what of it is said; the kinds of selections, with examples:

    demo-softmax.parts.mAP         a difference of two settings, with its 95 % interval
    demo-softmax.parts.mAP.delta   a part of it; see DIFFERENCE for all
    demo.parts.rank-1              a level: the mean over the seeds; see LEVEL
    cells.l1.1                     a measure of maps at stage 1, mean over the seeds; see STAGE
    cells.l1.1-3.lowest            the least of it at stages 1 to 3; see STAGES
    table2-softmax.better          in how many rows of pairing.effects() Δ is above zero; see COUNT
    load                           one number of a JSON file

A number of its own may have another format: "cells.none.4:.1f".
"""

import difflib
import functools
import json
import re

import numpy as np
import pandas as pd

from .. import SETTINGS, InputError, known
from ..support.files import read_toml
from .pairing import METRICS, between, effects, pick
from .records import ROOT, read_records
from .statistics import difference

SELECTIONS = read_toml(SETTINGS / "numbers.toml")
KINDS = ("differences", "levels", "stages", "counts", "files")

# What can be said of a difference (a row of statistics.difference()), and how it is written.
DIFFERENCE = {
    "change": "{Δ:+.1f} ({low:+.1f} to {high:+.1f})",
    "delta": "{Δ:+.1f}",
    "interval": "{low:+.1f} to {high:+.1f}",
    "gain": "{Δ:.1f}",
    "gain_interval": "{low:.1f} to {high:.1f}",
    "loss": "{loss:.1f}",
    "loss_interval": "{least_loss:.1f} to {most_loss:.1f}",
    "deltas": "{each_seed}",
    "sd": "{sd:.1f}",
    "without": "{without:.1f}",
    "with": "{with:.1f}",
    "seeds": "{seeds}",
}
# Of the runs of one setting; "both" are rank-1 and mAP.
LEVEL = {"mean": "{mean:.1f}", "sd": "{sd:.1f}", "seeds": "{seeds}"}
BOTH = {"mean": "{rank1:.1f} / {mean_ap:.1f}"}
# Of a measure at one stage of the network: its mean in percent, and its difference to no SA.
STAGE = {"mean": "{mean:.0f}", **DIFFERENCE}
# Of a measure at several stages: the least and the largest mean and difference among them.
STAGES = {
    "lowest": "{lowest:.0f}",
    "highest": "{highest:.0f}",
    "lowest_delta": "{lowest_delta:+.0f}",
    "highest_delta": "{highest_delta:+.0f}",
}
COUNT = {"better": "{better}", "of": "{of}"}


def fill(sentence: str) -> str:
    """A sentence with the numbers of the names in braces: "mAP {demo-softmax.parts.mAP}".

    Raises InputError for an unknown name.
    """
    return re.sub(r"\{([^{}]+)\}", lambda match: number(match[1]), sentence)


@functools.cache
def number(name: str) -> str:
    """The number of a name, as it is written in a sentence.

    Raises InputError for an unknown name, or a selection that fits no run or several settings.
    """
    path, _, form = name.partition(":")
    selection, *words = path.split(".")
    say = {
        "differences": _difference,
        "levels": _level,
        "stages": _stages,
        "counts": _count,
        "files": _file,
    }
    kind, _ = _selection(selection)
    try:
        patterns, values, what = say[kind](selection, words)
        pattern = patterns[known("word for a number", what, patterns)]
        text = _with_format(pattern, form).format(**values)
    except (InputError, ValueError, TypeError) as error:
        raise InputError(f"the number {name} cannot be given: {error}") from error
    if "nan" in text:
        raise InputError(f"the number {name} cannot be given: the records do not tell it")
    return text


def _selection(name: str) -> tuple:
    """The kind of a selection, and what numbers.toml says of it. Raises InputError if nothing."""
    kind_of = {selection: kind for kind in KINDS for selection in SELECTIONS[kind]}
    if name not in kind_of:
        near = difflib.get_close_matches(name, kind_of, n=3, cutoff=0)
        raise InputError(
            f"no selection {name!r} in settings/numbers.toml; the nearest: {', '.join(near)}"
        )
    kind = kind_of[name]
    entry = SELECTIONS[kind][name]
    if kind in ("differences", "levels"):
        entry = {**SELECTIONS["usual"], **entry}
    return kind, entry


def _with_format(pattern: str, form: str) -> str:
    """The pattern of one number with another format."""
    if not form:
        return pattern
    single = re.fullmatch(r"\{(\w+)(:[^}]*)?\}", pattern)
    if not single:
        raise InputError(f"the format {form} does not fit {pattern}, which is not one number")
    return f"{{{single[1]}:{form}}}"


def _words(words: list, names: str, usual: str) -> list:
    """The words of a name behind its selection; the last one may be left out."""
    wanted = len(names.split())
    if len(words) == wanted - 1:
        words = [*words, usual]
    if len(words) != wanted:
        raise InputError(f"{len(words)} words behind the selection; expected {names}")
    return words


@functools.cache
def committed_records(folder: str) -> list:
    """The records in results/, or in a folder of it, read once; folder: "" is results/ itself."""
    return read_records(ROOT / "results" / folder)


@functools.cache
def committed_effects(folder: str) -> pd.DataFrame:
    """pairing.effects() of committed_records(), computed once."""
    return effects(committed_records(folder))


def _of_seeds(entry: dict) -> list:
    """The records that a selection may pick from."""
    records = committed_records(entry.get("folder", ""))
    if "seeds" in entry:
        records = [r for r in records if r["config"]["seed"] in entry["seeds"]]
    return records


def _settings(entry: dict) -> dict:
    """The settings of runs that a selection names."""
    return {name: v for name, v in entry.items() if name not in ("minus", "folder", "seeds")}


def _difference(selection: str, words: list) -> tuple:
    """A setting minus another, which differs from it in the settings under `minus`."""
    vector, metric, what = _words(words, "vector metric what", "change")
    found = _between(selection, vector)
    return DIFFERENCE, _values(found[known("metric", metric, found)]), what


@functools.cache
def _between(selection: str, vector: str) -> dict:
    """{metric: statistics.difference()}, computed once for all numbers that are taken from it."""
    _, entry = _selection(selection)
    with_ = _settings(entry)
    without = {**with_, **entry["minus"]}
    return between(_of_seeds(entry), with_, without, vector)


def _values(row: dict) -> dict:
    """A row of statistics.difference(), with what its patterns need beside it."""
    return {
        **row,
        "loss": -row["Δ"],
        "least_loss": -row["high"],
        "most_loss": -row["low"],
        "each_seed": " ".join(f"{delta:+.1f}" for delta in row["deltas"]),
    }


def _level(selection: str, words: list) -> tuple:
    """The mean over the seeds of one setting."""
    vector, metric, what = _words(words, "vector metric what", "mean")
    _, entry = _selection(selection)
    picked = pick(_of_seeds(entry), _settings(entry))
    if not picked:
        raise InputError("no run has the settings of its selection")
    metrics = [record["metrics"] for record in picked.values()]
    known("vector", vector, metrics[0])
    levels = {}
    for key, _ in METRICS.values():
        levels[key] = [100 * of_run[vector][key] for of_run in metrics]
    if metric == "both":
        return BOTH, {key: np.mean(values) for key, values in levels.items()}, what
    key, _ = METRICS[known("metric", metric, METRICS)]
    values = levels[key]
    sd = np.std(values, ddof=1) if len(values) > 1 else np.nan
    return LEVEL, {"mean": np.mean(values), "sd": sd, "seeds": len(values)}, what


def _stages(selection: str, words: list) -> tuple:
    """A measure of networks stage by stage, from the files of `reidsa examine`, in percent."""
    form, stages, what = _words(words, "form stages what", "mean")
    if not re.fullmatch("[1-4](-[1-4])?", stages):
        raise InputError(f"stages are {stages}; expected one of 1 to 4, or the like of 1-3")
    first, _, last = stages.partition("-")
    _, entry = _selection(selection)
    runs = _measured(entry)
    base = runs["none"]
    runs = runs[known("attention form", form, runs)]
    seeds = sorted(set(runs) & set(base))
    rows = []
    for stage in range(int(first), int(last or first) + 1):
        without = [base[seed][stage - 1] for seed in seeds]
        with_ = [runs[seed][stage - 1] for seed in seeds]
        rows.append({**_values(difference(without, with_)), "mean": 100 * np.mean(with_)})
    if len(rows) == 1:
        return STAGE, rows[0], what
    means = [row["mean"] for row in rows]
    deltas = [row["Δ"] for row in rows]
    values = {
        "lowest": min(means),
        "highest": max(means),
        "lowest_delta": min(deltas),
        "highest_delta": max(deltas),
    }
    return STAGES, values, what


def _measured(entry: dict) -> dict:
    """{form: {seed: the measure at each stage}} of the runs that a selection names."""
    out = {}
    for path in sorted((ROOT / "results" / entry["folder"]).glob("*.json")):
        content = json.loads(path.read_bytes())
        identity = content["identity"]
        if any(identity.get(name) != value for name, value in entry.get("runs", {}).items()):
            continue
        for key in entry["keys"]:
            content = content[key]
        seeds = out.setdefault(identity["form"], {})
        if identity["seed"] in seeds:
            raise InputError(f"two files of form {identity['form']}, seed {identity['seed']}")
        seeds[identity["seed"]] = content
    if "none" not in out:
        raise InputError(f"results/{entry['folder']} has no such run without SA")
    return out


def _count(selection: str, words: list) -> tuple:
    """Rows of pairing.effects() whose columns have the values, or one of the values, named."""
    [what] = _words(words, "what", "better")
    _, entry = _selection(selection)
    rows = committed_effects(entry.get("folder", ""))
    for column, wanted in _settings(entry).items():
        values = wanted if isinstance(wanted, list) else [wanted]
        rows = rows[rows[known("column", column, rows.columns)].isin(values)]
    if rows.empty:
        raise InputError("no difference has the settings of its selection")
    return COUNT, {"better": int((rows["Δ"] > 0).sum()), "of": len(rows)}, what


def _file(selection: str, words: list) -> tuple:
    """One number of a JSON file in results/."""
    [what] = _words(words, "what", "value")
    _, entry = _selection(selection)
    value = json.loads((ROOT / "results" / entry["file"]).read_bytes())
    for key in entry["keys"]:
        if isinstance(value, dict):
            known("key", key, value)
        value = value[key]
    return {"value": f"{{value:{entry['format']}}}"}, {"value": value}, what
