"""Runs in pairs: with spatial attention and without, or any two settings, of the same seeds.

The runs of one seed begin with equal weights and see the same images in the same order, so their
difference is taken seed by seed.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from .. import InputError, known
from ..attention import FORMS
from ..config import unusual
from ..data import LAYOUTS, PUBLISHED
from .records import numerics, other_settings, published_name, settings_of, starts
from .statistics import difference, person_effects, pool

# {variant of the network: the same variant without spatial attention}
BASE = {
    "b_sa1": "b",
    "b_ds_sa2": "b_ds",
    "b_ds_sa12": "b_ds",
    "b_p_ds_sa2": "b_p_ds",
    "b_p_ds_sa12": "b_p_ds",
}

# {metric: (its name in a record, the record's list with a value for each query)}
METRICS = {
    "rank-1": ("rank1", "first_match"),
    "mAP": ("mean_ap", "average_precision"),
}

# Settings with a column of their own in tables of runs and of differences.
SHOWN = (
    "benchmark",
    "profile",
    "recipe",
    "epochs",
    "weights",
    "occlusion",
    "view_overlap",
    "other",
)

# The columns of effects().
COLUMNS = [
    "table",
    "source",
    "data",
    *SHOWN,
    "variant",
    "form",
    "vector",
    "metric",
    "seeds",
    "people",
    "without",
    "with",
    "Δ",
    "deltas",
    "sd",
    "low",
    "high",
    "low90",
    "high90",
    "p",
    "smallest",
    "paper",
]


MIN_SEEDS = 3  # with fewer, the spread over seeds is too uncertain to pool a setting


class Setting(NamedTuple):
    """What the runs of a setting have in common: all but the seed."""

    data: str  # fingerprint
    source: str
    rest: tuple  # the other settings of the configuration, as sorted pairs (name, value)
    variant: str
    form: str


class Pair(NamedTuple):
    """The runs of a setting with SA and those of the same without, seed by seed."""

    setting: Setting
    base: Setting
    seeds: list
    runs: list  # records
    base_runs: list


def paper_levels(benchmark: str, erasing: bool) -> dict:
    """The paper's levels on a benchmark: {variant: (rank-1, mAP)}, {} if it has none.

    Table 3 is with random erasing, Table 2 (Market-1501) without.
    """
    if erasing:
        return PUBLISHED["table3"].get(benchmark, {})
    if benchmark == "market1501":
        return PUBLISHED["table2"]
    return {}


def pair_difference(
    runs: list, base: list, metric: str, vector: str, ids=None, repeats: int = 5000
) -> dict:
    """One metric of `runs` minus that of `base`, paired by seed: statistics.difference().

    runs, base: the "metrics" of records, those of one seed at the same place in both lists.
    metric: "rank-1" or "mAP"; vector: the retrieval vector.
    ids: the identities of the queries. If it is None, or a record has no list with a value for each
    query, the interval does not cover other people.
    """
    mean, _ = METRICS[metric]
    without = [metrics[vector][mean] for metrics in base]
    with_ = [metrics[vector][mean] for metrics in runs]
    of_queries = _queries(runs, base, metric, vector, ids)
    if of_queries is None:
        return difference(without, with_, repeats=repeats)
    return difference(without, with_, *of_queries, repeats)


def _queries(runs: list, base: list, metric: str, vector: str, ids) -> tuple | None:
    """A metric of every query that has a match, for pair_difference().

    Returns three arrays: of base (seeds, queries), of runs (seeds, queries), and the identities
    (queries,). Returns None if the records do not hold it.
    """
    _, queries = METRICS[metric]
    runs = [metrics[vector] for metrics in runs]
    base = [metrics[vector] for metrics in base]
    if ids is None or not all(queries in metrics for metrics in runs + base):
        return None
    with_ = np.array([metrics[queries] for metrics in runs], float)
    without = np.array([metrics[queries] for metrics in base], float)
    has_match = ~np.isnan(with_[0]) & (with_[0] != 0)
    if queries == "first_match":
        # From the rank of the first match to whether the query is right at rank 1.
        with_ = (with_ == 1).astype(float)
        without = (without == 1).astype(float)
    return without[:, has_match], with_[:, has_match], np.array(ids)[has_match]


def without_sa(setting: Setting) -> Setting:
    """The same setting without spatial attention; if it has none, a setting that no run has."""
    return setting._replace(variant=BASE.get(setting.variant), form="none")


def pairs_of(records: list) -> list:
    """All settings with SA that have runs without SA, same seeds and all else equal: [Pair].

    Raises InputError for two records of one run, and for a pair whose numerics differ.
    """
    settings = by_setting(records)
    pairs = []
    for setting, runs in settings.items():
        base_setting = without_sa(setting)
        base = settings.get(base_setting, {})
        seeds = sorted(set(runs) & set(base))
        if not seeds:
            continue
        for seed in seeds:
            check_numerics(runs[seed], base[seed])
        with_sa = [runs[seed] for seed in seeds]
        without = [base[seed] for seed in seeds]
        pairs.append(Pair(setting, base_setting, seeds, with_sa, without))
    return pairs


def identities(records: list) -> dict:
    """{fingerprint of data: identities of its queries}, for data whose records hold them."""
    ids = {}
    for record in records:
        if "query_ids" in record:
            ids[record["identity"]["fingerprint"]] = record["query_ids"]
    return ids


def effects(records: list, repeats: int = 5000) -> pd.DataFrame:
    """With SA minus without, all else equal, in points.

    One row for each setting, form, retrieval vector and metric. The columns are the setting's and
    those of statistics.difference(): the mean levels without and with SA, their difference Δ, its
    95 % interval low to high, and so on. Further columns:
    table: the paper's table that the pair belongs to, "table2" or "table3"; "" for neither.
    people: whether the interval covers other people. For that, the records must say which queries
        were right.
    paper: the paper's own difference in this setting, if it has one.
    Raises InputError for two records of one run.
    """
    ids = identities(records)
    began_with = starts(records)
    rows = []
    for pair in pairs_of(records):
        setting = pair.setting
        config = dict(setting.rest)
        described = {
            "table": _paper_table(config, setting.variant),
            "source": setting.source,
            "data": setting.data,
            **{name: config.get(name) for name in SHOWN},
            "weights": began_with[config.get("weights")],
            "other": other_settings(config),
            "variant": setting.variant,
            "form": setting.form,
        }
        runs = [record["metrics"] for record in pair.runs]
        base = [record["metrics"] for record in pair.base_runs]
        for vector in runs[0]:
            if vector not in base[0]:
                continue
            for metric in METRICS:
                found = pair_difference(runs, base, metric, vector, ids.get(setting.data), repeats)
                row = {**described, "vector": vector, "metric": metric, **found}
                paper = paper_difference(config, setting.variant, metric)
                # The paper's tables are not re-ranked.
                if paper is not None and "+" not in vector:
                    row["paper"] = paper
                rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def pooled(
    records: list, wanted: dict, vector: str = "parts", metric: str = "mAP", repeats: int = 5000
) -> dict:
    """The effect of SA over all settings of a kind that have three seeds or more, in points.

    wanted: {setting: value} that all of them share, such as {"form": "l1", "recipe": "paper"}. Runs
        with any other setting that differs from their profile are left out.
    Returns what statistics.pool() returns and in addition "seeds", the smallest number of seeds of
    a setting; "paper", the mean of the paper's gains in these settings (NaN if it has none);
    "rows", a dict for each setting; and what _each_population_once() returns.
    Raises InputError if fewer than two settings fit.
    """
    chosen = [pair for pair in pairs_of(records) if _fits(pair, wanted, vector)]
    if len(chosen) < 2:
        raise InputError(
            f"settings with {_words(wanted)} and {MIN_SEEDS} seeds or more: {len(chosen)}; a "
            "pooled effect needs two"
        )
    return _pool(chosen, identities(records), vector, metric, repeats)


def pooled_effects(records: list, wanted: dict, vector: str = "parts", repeats: int = 5000) -> dict:
    """{(form, metric): pooled()} of all forms that have two settings or more."""
    ids = identities(records)
    fitting = [pair for pair in pairs_of(records) if _fits(pair, wanted, vector)]
    found = {}
    for form in FORMS:
        chosen = [pair for pair in fitting if pair.setting.form == form]
        if len(chosen) >= 2:
            for metric in METRICS:
                found[form, metric] = _pool(chosen, ids, vector, metric, repeats)
    return found


def _pool(pairs: list, ids: dict, vector: str, metric: str, repeats: int) -> dict:
    """What pooled() returns, for the chosen pairs. ids: as identities() returns them."""
    rows, deltas, of_people = [], [], []
    for pair in pairs:
        setting = pair.setting
        runs = [record["metrics"] for record in pair.runs]
        base = [record["metrics"] for record in pair.base_runs]
        people = ids.get(setting.data)
        found = pair_difference(runs, base, metric, vector, people, repeats)
        paper = paper_difference(dict(setting.rest), setting.variant, metric)
        rows.append(
            {
                **dict(setting.rest),
                "variant": setting.variant,
                "form": setting.form,
                **found,
                "paper": np.nan if paper is None else paper,
            }
        )
        deltas.append(np.array(found["deltas"]))
        of_people.append(None)
        queries = _queries(runs, base, metric, vector, people)
        if queries is not None:
            without, with_, of_query = queries
            effects_of_people = 100 * person_effects((with_ - without).mean(0), of_query)
            of_people[-1] = np.unique(of_query), effects_of_people
    covariance = _seed_covariance(pairs, deltas) + _people_covariance(pairs, of_people)
    papers = [row["paper"] for row in rows if not np.isnan(row["paper"])]
    estimates = np.array([row["Δ"] for row in rows])
    return {
        **pool(estimates, covariance),
        **_each_population_once(pairs, estimates, covariance),
        "seeds": min(len(pair.seeds) for pair in pairs),
        "paper": np.mean(papers) if papers else np.nan,
        "rows": rows,
    }


def _each_population_once(pairs: list, estimates: np.ndarray, covariance: np.ndarray) -> dict:
    """The pooled effect if settings that show the same people are averaged first.

    Returns "populations", their number, and "once" with "once_low" to "once_high" (95 %), NaN if
    there is one population only.
    """
    keys = [_population(pair.setting) for pair in pairs]
    members = np.array([[key == own for own in keys] for key in dict.fromkeys(keys)], float)
    mean = members / members.sum(axis=1, keepdims=True)  # (populations, settings)
    found = {"Δ": np.nan, "low": np.nan, "high": np.nan}
    if len(mean) > 1:
        found = pool(mean @ estimates, mean @ covariance @ mean.T)
    return {
        "populations": len(mean),
        "once": found["Δ"],
        "once_low": found["low"],
        "once_high": found["high"],
    }


def _fits(pair: Pair, wanted: dict, vector: str) -> bool:
    """Whether a pair is one of the settings that pooled() is asked for."""
    settings = settings_of(pair.runs[0])
    unknown = [name for name in wanted if name not in settings]
    if unknown:
        raise InputError(f"unknown setting {unknown[0]!r}; known: {', '.join(settings)}")
    turned = set(unusual(pair.runs[0]["config"])) - set(wanted)
    return (
        all(settings[name] == value for name, value in wanted.items())
        and not turned
        and len(pair.seeds) >= MIN_SEEDS
        and vector in pair.runs[0]["metrics"]
    )


def _seed_covariance(pairs: list, deltas: list) -> np.ndarray:
    """The covariance of the settings' differences from the choice of seeds: (settings, settings).

    The variance of one seed's difference is estimated from all settings together, since three seeds
    alone would give it only within a factor of three. Half of this variance comes from the run of
    the baseline. Two settings with one baseline share that half, for the seeds that both have.
    """
    freedom = sum(len(of_setting) - 1 for of_setting in deltas)
    variance = sum(((d - d.mean()) ** 2).sum() for d in deltas) / freedom
    covariance = np.zeros((len(pairs), len(pairs)))
    for i, a in enumerate(pairs):
        for j, b in enumerate(pairs):
            if i == j:
                covariance[i, i] = variance / len(a.seeds)
            elif a.base == b.base:
                shared = len(set(a.seeds) & set(b.seeds))
                covariance[i, j] = variance / 2 * shared / (len(a.seeds) * len(b.seeds))
    return covariance


def _people_covariance(pairs: list, of_people: list) -> np.ndarray:
    """The covariance of the settings' differences from the choice of test people.

    of_people: of each setting the identities and their parts in the error, (N,) and (N,), or None.
    Settings share the error of the test people whom they share: all on the same data, and also
    those in other boxes (CUHK03-NP labeled and detected) or at another scale. Older records do not
    say which queries were right at rank 1. Their settings get the mean variance of the others.
    Returns (settings, settings).
    """
    variances = [both[1] @ both[1] for both in of_people if both is not None]
    covariance = np.zeros((len(pairs), len(pairs)))
    for i, a in enumerate(pairs):
        for j, b in enumerate(pairs):
            if i == j and of_people[i] is None:
                covariance[i, i] = np.mean(variances) if variances else 0.0
            elif of_people[i] is None or of_people[j] is None:
                continue
            elif _population(a.setting) == _population(b.setting):
                (ids, u), (others, v) = of_people[i], of_people[j]
                _, mine, theirs = np.intersect1d(ids, others, return_indices=True)
                covariance[i, j] = u[mine] @ v[theirs]
    return covariance


def _population(setting: Setting) -> tuple:
    """Where an identity is the same person: the drawn or photographed people of a benchmark."""
    config = dict(setting.rest)
    layout = LAYOUTS.get(config["benchmark"])
    if layout is None:  # own data
        return (setting.data,)
    return setting.source, layout.people, config.get("data_seed", 0)


def by_setting(records: list) -> dict:
    """{Setting: {seed: record}}. Raises InputError for two records of one run."""
    out = {}
    for record in records:
        config = record["config"]
        rest = {
            name: value
            for name, value in config.items()
            if name not in ("variant", "form", "seed", "rerank")
        }
        setting = Setting(
            record["identity"]["fingerprint"],
            record["source"],
            tuple(sorted(rest.items())),
            config["variant"],
            config["form"],
        )
        runs = out.setdefault(setting, {})
        if config["seed"] in runs:
            raise InputError(
                f"two records of {config['benchmark']}, {config['variant']}, form "
                f"{config['form']}, seed {config['seed']} with the same settings; keep one"
            )
        runs[config["seed"]] = record
    return out


def _paper_table(config: dict, variant: str) -> str:
    """The table of the paper that a variant belongs to; "" for neither (SA1 with erasing).

    Table 3 has the same variants for all benchmarks, so data of your own are treated like them.
    """
    if not config["erasing"]:
        return "table2"
    if variant in PUBLISHED["table3"]["market1501"]:
        return "table3"
    return ""


def paper_difference(config: dict, variant: str, metric: str) -> float | None:
    """The paper's level of a variant minus that without SA, in points; None if one is missing.

    config: the settings of a run; only "benchmark" and "erasing" are used. metric: a key of
    METRICS.
    """
    levels = paper_levels(config["benchmark"], config["erasing"])
    if variant not in levels or BASE.get(variant) not in levels:
        return None
    place = list(METRICS).index(metric)
    return levels[variant][place] - levels[BASE[variant]][place]


def pick(records: list, wanted: dict) -> dict:
    """The runs of one setting, {seed: record}: those whose settings are as wanted.

    Raises InputError for an unknown setting, for runs that differ in a setting that is not named,
    and for two runs of one seed.
    """
    picked = {}
    for record in records:
        settings = settings_of(record)
        unknown = [name for name in wanted if name not in settings]
        if unknown:
            raise InputError(f"unknown setting {unknown[0]!r}; known: {', '.join(settings)}")
        if any(settings[name] != value for name, value in wanted.items()):
            continue
        first = settings_of(next(iter(picked.values()), record))
        for name in settings:
            if name not in ("seed", "rerank") and settings[name] != first[name]:
                raise InputError(
                    f"runs with {_words(wanted)} differ in {name} ({first[name]} and "
                    f"{settings[name]}); name it, too"
                )
        if settings["seed"] in picked:
            raise InputError(
                f"two runs with {_words(wanted)} have the seed {settings['seed']}; keep one"
            )
        picked[settings["seed"]] = record
    return picked


def between(records: list, a: dict, b: dict, vector: str = "parts", repeats: int = 5000) -> dict:
    """Setting a minus setting b, paired by seed: {metric: statistics.difference()}.

    a, b: the settings that select the runs of each side, such as {"variant": "b_p_ds_sa2", "form":
        "softmax", "lr": 0.025}. All other settings must be equal on both sides; otherwise the
        difference could come from them.
    Raises InputError if they are not equal, or if no seed has a run on both sides.
    """
    first = pick(records, a)
    second = pick(records, b)
    seeds = sorted(set(first) & set(second))
    if not seeds:
        raise InputError(
            f"no seed has both a run with {_words(a)} (seeds {sorted(first)}) and one with "
            f"{_words(b)} (seeds {sorted(second)})"
        )
    settings_a = settings_of(first[seeds[0]])
    settings_b = settings_of(second[seeds[0]])
    for name in settings_a:
        if name in a or name in b or name == "rerank":
            continue
        if settings_a[name] != settings_b[name]:
            raise InputError(
                f"runs with {_words(a)} and with {_words(b)} differ in {name}, too "
                f"({settings_a[name]} and {settings_b[name]}); name it in one of them"
            )
    for seed in seeds:
        check_numerics(first[seed], second[seed])
    runs = [first[seed]["metrics"] for seed in seeds]
    base = [second[seed]["metrics"] for seed in seeds]
    known("retrieval vector", vector, [name for name in runs[0] if name in base[0]])
    ids = first[seeds[0]].get("query_ids")
    return {metric: pair_difference(runs, base, metric, vector, ids, repeats) for metric in METRICS}


def check_numerics(run: dict, base: dict) -> None:
    """Raises InputError for two records that different versions of the numerics made.

    Otherwise a part of their difference would come from the code. Different kinds of processors are
    allowed: they only round differently, which acts like another seed.
    """
    versions = numerics(run), numerics(base)
    if versions[0] != versions[1]:
        raise InputError(
            f"{published_name(run)} and {published_name(base)} were made by versions "
            f"{versions[0]} and {versions[1]} of the numerics, so the code is a part of their "
            "difference; make the older run again"
        )


def _words(settings: dict) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items())
