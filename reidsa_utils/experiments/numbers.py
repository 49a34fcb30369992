"""The numbers in sentences. Each has a name, which selects it from the records in results/.

settings/numbers.toml names selections of runs. The name of a number consists of a selection, what
is measured, and which value of it is written. The kinds of selections, with examples:

    demo-softmax.parts.mAP              a difference of two settings, with its 95 % interval
    demo-softmax.parts.mAP.delta        a part of it; see DIFFERENCE for all
    labeled-l1.parts.rank-1.only_with   queries that only one of the two finds; see FOUND
    demo.parts.rank-1                   a level: the mean over the seeds; see LEVEL
    cells.l1.1                          a measure of networks with l1 at stage 1; see MEASURE
    cells.l1.1-3.lowest                 its smallest value at stages 1 to 3; see MEASURES
    without.l1.hair.change              a measure of people drawn without a part of the body
    demo-losses.l1.final.delta          a measure that trainings recorded epoch by epoch
    pooled-l1.parts.mAP                 the effect pooled from several settings; see POOLED
    populations.l1.another_seed         how far something scatters a difference; see SCATTER
    populations.l1.seed_at_home         the same of the seeds, at home
    populations.l1.home                 what the own cameras add to it; see HOME
    populations.l1.effect               the difference over all populations, at home; see DIFFERENCE
    table2-softmax.better               in how many rows of pairing.effects() Δ is above zero
    loss-photo-last                     one number of a JSON file
    speed.distances.seconds             one number of a JSON file, by a group and a key in it

A value that is a single number may have another format: "cells.none.4:.1f".
"""

import difflib
import functools
import json
import re
from typing import NamedTuple

import numpy as np
import pandas as pd

from .. import SETTINGS, InputError, known
from ..attention import FORMS
from ..config import defaults
from ..support.files import read_toml
from .missing_parts import kept_by_query, kept_without
from .pairing import BASE, METRICS, between, effects, paper_difference, pick, pooled
from .records import ROOT, read_records, settings_of, starts
from .statistics import MARGIN, difference
from .variance import (
    components,
    effect_at_home,
    home,
    read_scores,
    seed_at_home,
    seeds_needed,
    smallest_effect,
)

SELECTIONS = read_toml(SETTINGS / "numbers.toml")
KINDS = (
    "differences",
    "pooled",
    "levels",
    "stages",
    "overlaps",
    "removed",
    "histories",
    "counts",
    "scatters",
    "files",
)
# The keys of a selection that are not settings of its runs.
NO_SETTINGS = ("minus", "folder", "seeds", "keys", "over", "during", "unit")

# The values of a difference (a row of statistics.difference()) and how they are written.
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
# For an effect that is pooled from several settings; "predicted": the range for a new setting;
# "once": if settings that show the same people are averaged first.
POOLED = {
    **{word: DIFFERENCE[word] for word in ("change", "delta", "interval", "gain", "loss")},
    "settings": "{settings}",
    "between": "{tau:.1f}",
    "predicted": "{predicted_low:+.1f} to {predicted_high:+.1f}",
    "paper": "{paper:+.1f}",
    "once": "{once:+.1f} ({once_low:+.1f} to {once_high:+.1f})",
    "populations": "{populations}",
}
# Only for a difference in rank-1: queries that are right at rank 1 in only one of the two settings,
# in percent, mean over the seeds; and their number over all seeds.
FOUND = {
    "only_with": "{only_with:.1f}",
    "only_without": "{only_without:.1f}",
    "count_with": "{count_with}",
    "count_without": "{count_without}",
}
# In the place of a difference, for runs without a partner.
NO_DIFFERENCE = {
    **dict.fromkeys(("Δ", "low", "high", "sd", "without", "with", "seeds"), np.nan),
    "deltas": [np.nan],
}
# For the runs of one setting. BOTH is for the metric "both", rank-1 and mAP.
LEVEL = {"mean": "{mean:.1f}", "sd": "{sd:.1f}", "seeds": "{seeds}"}
BOTH = {"mean": "{rank1:.1f} / {mean_ap:.1f}"}
# For a measure of networks at one place (a stage, a part of the body, a loss): its mean over the
# seeds, and its difference from the networks without SA.
MEASURE = {"mean": "{mean:.0f}", **DIFFERENCE}
# For a measure at several stages: the smallest and the largest mean and difference among them.
MEASURES = {
    "lowest": "{lowest:.0f}",
    "highest": "{highest:.0f}",
    "lowest_delta": "{lowest_delta:+.0f}",
    "highest_delta": "{highest_delta:+.0f}",
}
COUNT = {"better": "{better}", "of": "{of}"}
# For a standard deviation.
SCATTER = {
    "sd": "{sd:.1f}",
    "range": "{sd:.1f} ({low:.1f} to {high:.1f})",
    "interval": "{low:.1f} to {high:.1f}",
}
# For that of the seeds at home; "needed": the seeds with which a difference of one point is found;
# "smallest3": the smallest difference that three seeds find.
SEEDS = {
    **SCATTER,
    "needed": "{needed:.0f}",
    "needed_range": "{least_needed:.0f} to {most_needed:.0f}",
    "smallest3": "{smallest3:.1f}",
}
HOME = {"change": DIFFERENCE["change"], "home": "{home:.1f}", "away": "{away:.1f}"}


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
    # The text after the last colon is a format. If it has a space, it belongs to a key of a file.
    path, form = re.fullmatch(r"(.*?)(?::([^: ]+))?", name).groups()
    selection, *words = path.split(".")
    say = {
        "differences": _difference,
        "pooled": _pooled,
        "levels": _level,
        "stages": _measure,
        "overlaps": _measure,
        "removed": _measure,
        "histories": _measure,
        "counts": _count,
        "scatters": _scatter,
        "files": _file,
    }
    kind, _ = _selection(selection)
    try:
        patterns, values, what = say[kind](selection, words)
        pattern = patterns[known("word for a number", what, patterns)]
        text = _with_format(pattern, form).format(**values).replace("%", " %")
        # A number that rounds to zero gets no minus sign.
        text = re.sub(r"-(0(?:\.0+)?)(?![.\d])", r"\1", text)
    except (InputError, ValueError, TypeError) as error:
        raise InputError(f"the number {name} cannot be given: {error}") from error
    if "nan" in text:
        raise InputError(f"the number {name} cannot be given: the records do not tell it")
    return text


class Comparison(NamedTuple):
    """What a name compares, and in which runs."""

    found: dict  # of statistics.difference() or statistics.pool(), with "seeds"
    settings: list  # of the runs: a pair (with, without) of dicts for each setting compared
    paper: float  # the paper's own difference in this setting; NaN if it has none
    retrieval: bool  # whether it is a metric of retrieval, not a measure of networks


def comparison(name: str) -> Comparison:
    """The comparison that a name stands for. The name has no last word (such as "delta").

    "demo-softmax.parts.mAP" is a difference, "pooled-l1.parts.mAP" an effect of several settings.
    "cells.l1.1-3" is a measure, as the mean over the stages 1 to 3. "without.l1.hair+bag" is a
    measure, as the mean over two parts of the body.
    Raises InputError for an unknown name, or a selection that fits no run or several settings.
    """
    selection, *words = name.split(".")
    kind, entry = _selection(selection)
    if kind not in (*MEASURED, "differences", "pooled"):
        raise InputError(f"{name} is not a comparison; its selection is one of the {kind}")
    if len(words) != 2:
        raise InputError(f"{name}: {len(words)} words behind the selection; expected two")
    if kind in MEASURED:
        return _compared_measure(entry, kind, *words)
    vector, metric = words
    known("metric", metric, METRICS)
    if kind == "pooled":
        found = pooled_of(selection, vector, metric)
        rows = []
        for row in found["rows"]:
            settings = {**defaults(row["profile"], row["benchmark"]), **row}
            # The base of each setting is the same setting without SA.
            rows.append((settings | entry, settings | entry | {"form": "none"}))
        return Comparison(found, rows, found["paper"], True)
    found = _between(selection, vector)[metric]
    wanted = _settings(entry)
    records = _of_seeds(entry)
    pair = []
    for which in (wanted, {**wanted, **entry["minus"]}):
        record = next(iter(pick(records, which).values()))
        settings = settings_of(record)
        pair.append({**settings, "weights": starts([record])[record["config"].get("weights")]})
    paper = np.nan
    if "variant" in entry["minus"] and entry["minus"].get("form") == "none":
        paper = paper_difference(pair[0], pair[0]["variant"], metric)
    return Comparison(found, [tuple(pair)], np.nan if paper is None else paper, True)


def _compared_measure(entry: dict, kind: str, form: str, place: str) -> Comparison:
    """comparison() of a measure of networks: a form of attention minus no SA, seed by seed."""
    known("attention form", form, FORMS)
    base = MEASURED[kind](entry, "none")
    runs = MEASURED[kind](entry, form)
    both = sorted(set(runs) & set(base))
    if not both:
        raise InputError(f"no seed has a run with the form {form} and one without SA")
    scale = 0.01 / entry.get("unit", 0.01)
    places = place.split("+")
    keys = [key for one in places for key in _places(one, runs[both[0]])]
    levels = []
    for values in (base, runs):
        levels.append([scale * np.mean([values[seed][key] for key in keys]) for seed in both])
    if kind == "histories":
        wanted = {**_settings(entry), "form": form}
        described = settings_of(next(iter(pick(_of_seeds(entry), wanted).values())))
    else:
        identity = next(iter(_files(entry, form).values()))["identity"]
        described = {**identity, "source": "rendered"}
    without = {**described, "variant": BASE[described["variant"]], "form": "none"}
    people = _people_of_parts(entry, form, both, keys) if kind == "removed" else ()
    return Comparison(difference(*levels, *people), [(described, without)], np.nan, False)


def _people_of_parts(entry: dict, form: str, seeds: list, parts: list) -> tuple:
    """The queries without SA and with it, (seeds, N) each, and their identities, (N,)."""
    sides = []
    for which in ("none", form):
        files = _files(entry, which)
        found = [kept_by_query(files[seed], parts) for seed in seeds]
        sides.append(np.stack([values for values, _ in found]))
    _, ids = found[0]
    return *sides, ids


def _selection(name: str) -> tuple:
    """The kind of a selection and its entry in numbers.toml. Raises InputError if none is there."""
    kind_of = {selection: kind for kind in KINDS for selection in SELECTIONS[kind]}
    if name not in kind_of:
        near = difflib.get_close_matches(name, kind_of, n=3, cutoff=0)
        raise InputError(
            f"no selection {name!r} in settings/numbers.toml; the nearest: {', '.join(near)}"
        )
    kind = kind_of[name]
    entry = SELECTIONS[kind][name]
    if kind in ("differences", "levels", "histories"):
        entry = {**SELECTIONS["usual"], **entry}
    return kind, entry


def _with_format(pattern: str, form: str | None) -> str:
    """The pattern of one number with another format."""
    if not form:
        return pattern
    single = re.fullmatch(r"\{(\w+)(:[^}]*)?\}", pattern)
    if not single:
        raise InputError(f"the format {form} does not fit {pattern}, which is not one number")
    return f"{{{single[1]}:{form}}}"


def _words(words: list, names: str, usual: str) -> list:
    """The words of a name after its selection; the last one may be left out.

    names: what the words are, with spaces between. usual: the last word if it is left out.
    """
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
    folders = entry.get("folder", "")
    if isinstance(folders, str):
        folders = [folders]
    records = [record for folder in folders for record in committed_records(folder)]
    if "seeds" in entry:
        records = [r for r in records if r["config"]["seed"] in entry["seeds"]]
    return records


def _settings(entry: dict) -> dict:
    """The settings of runs that a selection names."""
    return {name: v for name, v in entry.items() if name not in NO_SETTINGS}


def _difference(selection: str, words: list) -> tuple:
    """A setting minus another, which differs from it in the settings under `minus`."""
    vector, metric, what = _words(words, "vector metric what", "change")
    found = _between(selection, vector)
    values = _values(found[known("metric", metric, found)])
    if metric == "rank-1" and what in FOUND:
        return FOUND, _found_by_one(selection, vector), what
    return DIFFERENCE, values, what


def _pooled(selection: str, words: list) -> tuple:
    """The effect of SA over several settings."""
    vector, metric, what = _words(words, "vector metric what", "change")
    known("metric", metric, METRICS)
    found = pooled_of(selection, vector, metric)
    return POOLED, {**found, "loss": -found["Δ"]}, what


@functools.cache
def pooled_of(selection: str, vector: str, metric: str) -> dict:
    """pairing.pooled() of a selection in settings/numbers.toml, computed once."""
    _, entry = _selection(selection)
    return pooled(_of_seeds(entry), _settings(entry), vector, metric)


def _found_by_one(selection: str, vector: str) -> dict:
    """The values of FOUND for a difference of two settings."""
    _, entry = _selection(selection)
    records = _of_seeds(entry)
    with_ = pick(records, _settings(entry))
    without = pick(records, {**_settings(entry), **entry["minus"]})
    both = sorted(set(with_) & set(without))
    only_with, only_without = [], []  # (seeds, queries) bool
    for seed in both:
        lists = [run[seed]["metrics"][vector].get("first_match") for run in (with_, without)]
        if None in lists:
            raise InputError(f"the run of seed {seed} does not say which queries are right")
        right_with, right_without = (np.array(first) == 1 for first in lists)
        only_with.append(right_with & ~right_without)
        only_without.append(right_without & ~right_with)
    return {
        "only_with": 100 * np.mean(only_with),
        "only_without": 100 * np.mean(only_without),
        "count_with": np.sum(only_with),
        "count_without": np.sum(only_without),
    }


@functools.cache
def _between(selection: str, vector: str) -> dict:
    """{metric: statistics.difference()}, computed once for all numbers that are taken from it."""
    _, entry = _selection(selection)
    with_ = _settings(entry)
    without = {**with_, **entry["minus"]}
    return between(_of_seeds(entry), with_, without, vector)


def _values(row: dict) -> dict:
    """A row of statistics.difference(), with the other values that the patterns need."""
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


def _measure(selection: str, words: list) -> tuple:
    """A measure of networks with a form of attention, at one place or at several stages."""
    form, place, what = _words(words, "form place what", "mean")
    known("attention form", form, FORMS)
    kind, entry = _selection(selection)
    base = MEASURED[kind](entry, "none")
    runs = MEASURED[kind](entry, form)
    for found, which in ((base, "without SA"), (runs, f"with the form {form}")):
        if not found:
            raise InputError(f"no run {which} fits its selection")
    both = sorted(set(runs) & set(base))
    # difference() multiplies by 100, for percent. A measure may have another unit.
    scale = 0.01 / entry.get("unit", 0.01)
    rows = []
    for key in _places(place, next(iter(runs.values()))):
        found = NO_DIFFERENCE
        if both:
            without = [scale * base[seed][key] for seed in both]
            found = difference(without, [scale * runs[seed][key] for seed in both])
        mean = 100 * scale * np.mean([values[key] for values in runs.values()])
        rows.append({**_values(found), "mean": mean})
    if len(rows) == 1:
        return MEASURE, rows[0], what
    means = [row["mean"] for row in rows]
    deltas = [row["Δ"] for row in rows]
    values = {
        "lowest": min(means),
        "highest": max(means),
        "lowest_delta": min(deltas),
        "highest_delta": max(deltas),
    }
    return MEASURES, values, what


def _scatter(selection: str, words: list) -> tuple:
    """How far a source scatters the score of no SA, or the difference of a form from it."""
    usual = "change" if {"home", "effect"} & set(words) else "sd"
    form, source, what = _words(words, "form source what", usual)
    _, entry = _selection(selection)
    scores = _scores(entry["vector"], entry["metric"])
    chosen = scores[known("attention form", form, scores)]
    if source == "effect":
        return DIFFERENCE, _values(effect_at_home(chosen, scores["none"])), what
    if form != "none":
        chosen = chosen - scores["none"]
    if source == "home":
        return HOME, home(chosen), what
    if source == "seed_at_home":
        values = seed_at_home(chosen)
        values["smallest3"] = smallest_effect(values["sd"], 3)
        for key, sd in (("needed", "sd"), ("least_needed", "low"), ("most_needed", "high")):
            values[key] = seeds_needed(MARGIN, values[sd])
        return SEEDS, values, what
    table = components(chosen)
    spread = table.loc[known("source", source.replace("_", " "), table.index)]
    return SCATTER, spread.to_dict(), what


@functools.cache
def _scores(vector: str, metric: str) -> dict:
    return read_scores(vector=vector, metric=metric)


def _places(place: str, values) -> list:
    """The keys of the values at a place: a stage ("2"), several stages ("1-3"), or a name."""
    if isinstance(values, dict):
        return [known("place", place, values)]
    ends = re.fullmatch(r"(\d)(?:-(\d))?", place)
    first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (0, 0)
    if not 1 <= first <= last <= len(values):
        raise InputError(
            f"stages are {place}; expected one of 1 to {len(values)}, or the like of 1-3"
        )
    return list(range(first - 1, last))


def _of_stages(entry: dict, form: str) -> dict:
    """{seed: (stages,)} of a measure in the files of `reidsa examine`."""
    return {seed: _value(entry, content) for seed, content in _files(entry, form).items()}


def _of_overlaps(entry: dict, form: str) -> dict:
    """{pair of runs: (stages,)}, how the maps of a run overlap with those of a run without SA.

    A run with SA is compared with the run of the same seed. A run without SA is compared with all
    runs of other seeds.
    """
    seed_of = {content["run"]: seed for seed, content in _files(entry, "none").items()}
    out = {}
    for seed, content in _files(entry, form).items():
        for run, overlap in content["overlap"].items():
            if run in seed_of and (seed_of[run] == seed) == (form != "none"):
                out[content["run"], run] = _value(entry, overlap)
    return out


def _of_removed(entry: dict, form: str) -> dict:
    """{seed: {part: the share of the mAP that is left when people are drawn without it}}."""
    out = {}
    for seed, content in _files(entry, form).items():
        parts = content["missing"]["after"]
        out[seed] = {part: kept_without(content, part) for part in parts}
    return out


def _of_histories(entry: dict, form: str) -> dict:
    """{seed: mean over some epochs} of what the runs recorded in each epoch."""
    settings = _settings(entry)
    if form == "none":
        settings |= entry["minus"]
    first, last = entry["during"]
    out = {}
    for seed, record in pick(_of_seeds(entry), {**settings, "form": form}).items():
        if len(record["history"]) < last:
            raise InputError(f"a run of {len(record['history'])} epochs has no epoch {last}")
        values = [_value(entry, line) for line in record["history"][first - 1 : last]]
        if isinstance(values[0], dict):
            out[seed] = pd.DataFrame(values).mean(numeric_only=True).to_dict()
        else:
            out[seed] = np.mean(values, axis=0)
    return out


def _files(entry: dict, form: str) -> dict:
    """{seed: content} of the files of `reidsa examine` that a selection names."""
    out = {}
    for content in _examined(entry["folder"]):
        identity = content["identity"]
        wanted = {"form": form, **entry.get("runs", {})}
        if any(identity.get(name) != value for name, value in wanted.items()):
            continue
        if identity["seed"] in out:
            raise InputError(f"two files of form {form}, seed {identity['seed']}")
        out[identity["seed"]] = content
    return out


@functools.cache
def _examined(folder: str) -> list:
    """The contents of the files of `reidsa examine` in a folder of results/, read once."""
    paths = sorted((ROOT / "results" / folder).glob("*.json"))
    return [json.loads(path.read_bytes()) for path in paths]


def _value(entry: dict, content: dict):
    """The value under an entry's `keys`, divided by the value under its `over` if there is one."""
    value = _under(content, entry["keys"])
    if "over" in entry:
        return np.array(value) / _under(content, entry["over"])
    return value


def _under(content, keys: list):
    """The value under keys of nested dictionaries and lists. Raises InputError if none is there."""
    for key in keys:
        if isinstance(content, dict):
            known("key", key, content)
        content = content[key]
    return content


def _count(selection: str, words: list) -> tuple:
    """Count rows of pairing.effects() whose columns have the given value, or one of several."""
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
    """One number of a JSON file in results/.

    If the selection names no keys, the words are a group and its key, which may have dots in it.
    """
    _, entry = _selection(selection)
    keys = entry.get("keys")
    if keys is None:
        group, _, key = ".".join(words).partition(".")
        keys = [group, key]
    elif words:
        raise InputError(f"{selection} is one number, with nothing behind its name")
    value = _under(json.loads((ROOT / "results" / entry["file"]).read_bytes()), keys)
    if not isinstance(value, int | float):
        raise InputError(f"{' of '.join(map(str, reversed(keys)))} is not a number")
    pattern = f"{{value:{entry.get('format', '')}}}"
    return {"value": pattern}, {"value": value / entry.get("unit", 1)}, "value"


# {kind of selection that is a measure of networks: the function that reads it as {seed: values}}
MEASURED = {
    "stages": _of_stages,
    "overlaps": _of_overlaps,
    "removed": _of_removed,
    "histories": _of_histories,
}
