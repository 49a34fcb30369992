"""Runs in pairs: with spatial attention and without, or any two settings, of the same seeds.

The runs of one seed begin with equal weights and see the same images in the same order, so their
difference is taken seed by seed.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from .. import InputError, known
from ..data import PUBLISHED
from .records import numerics, other_settings, published_name, settings_of, starts
from .statistics import difference

# A variant of the network -> the same without its spatial attention.
BASE = {
    "b_sa1": "b",
    "b_ds_sa2": "b_ds",
    "b_ds_sa12": "b_ds",
    "b_p_ds_sa2": "b_p_ds",
    "b_p_ds_sa12": "b_p_ds",
}

# A metric -> what a record calls it, and the record's list that says it of each query.
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
    "p",
    "smallest",
    "paper",
]


class Setting(NamedTuple):
    """What the runs of a setting have in common: all but the seed."""

    data: str  # fingerprint
    source: str
    rest: tuple  # the other settings of the configuration, as sorted pairs (name, value)
    variant: str
    form: str


def paper_levels(benchmark: str, erasing: bool) -> dict:
    """The paper's levels on a benchmark: {variant: (rank-1, mAP)}, {} where it has none.

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
    """One metric of runs minus the same of others, paired: statistics.difference() of records.

    runs, base: the "metrics" of records, those of one seed at the same place.
    metric: "rank-1" or "mAP"; vector: the retrieval vector.
    ids: the identities of the queries; None, or a record that does not say what each query gave:
    other people are not in the interval.
    """
    mean, queries = METRICS[metric]
    runs = [metrics[vector] for metrics in runs]
    base = [metrics[vector] for metrics in base]
    without = [metrics[mean] for metrics in base]
    with_ = [metrics[mean] for metrics in runs]
    if ids is None or not all(queries in metrics for metrics in runs + base):
        return difference(without, with_, repeats=repeats)

    queries_with = np.array([metrics[queries] for metrics in runs], float)  # (seeds, queries)
    queries_without = np.array([metrics[queries] for metrics in base], float)
    has_match = ~np.isnan(queries_with[0]) & (queries_with[0] != 0)
    if queries == "first_match":
        # The place of the first match in the ranking -> whether the query is right at rank 1.
        queries_with = queries_with == 1
        queries_without = queries_without == 1
    return difference(
        without,
        with_,
        queries_without[:, has_match],
        queries_with[:, has_match],
        np.array(ids)[has_match],
        repeats,
    )


def effects(records: list, repeats: int = 5000) -> pd.DataFrame:
    """With SA minus without, all else equal, in points.

    One row for each setting, form, retrieval vector and metric. Its columns are the setting's, and
    those of statistics.difference(): the mean levels without and with SA, their difference Δ, its
    95 % interval low to high, and so on. Beside them:
    table: the paper's table that the pair belongs to, "table2" or "table3"; "" for one in neither.
    people: whether identities are in the interval (a record may not tell which queries were right).
    paper: the paper's own difference there.
    Raises InputError for two records of one run.
    """
    # Runs on the same data have the same queries.
    ids = {}
    for record in records:
        if "query_ids" in record:
            ids[record["identity"]["fingerprint"]] = record["query_ids"]
    began_with = starts(records)
    by_setting = _by_setting(records)
    rows = []
    for setting, runs in by_setting.items():
        without_sa = setting._replace(variant=BASE.get(setting.variant), form="none")
        base = by_setting.get(without_sa, {})
        seeds = sorted(set(runs) & set(base))
        if not seeds:
            continue
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
        for seed in seeds:
            check_numerics(runs[seed], base[seed])
        runs_paired = [runs[seed]["metrics"] for seed in seeds]
        base_paired = [base[seed]["metrics"] for seed in seeds]
        for vector in runs_paired[0]:
            if vector not in base_paired[0]:
                continue
            for metric in METRICS:
                found = pair_difference(
                    runs_paired, base_paired, metric, vector, ids.get(setting.data), repeats
                )
                row = {**described, "vector": vector, "metric": metric, **found}
                paper = _paper_difference(config, setting.variant, metric)
                # The paper's tables are not re-ranked.
                if paper is not None and "+" not in vector:
                    row["paper"] = paper
                rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def _by_setting(records: list) -> dict:
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
    """The table of the paper that a variant belongs to; "" for SA1 with erasing, in neither.

    Of Table 3 all benchmarks have the same variants, and so have data of one's own.
    """
    if not config["erasing"]:
        return "table2"
    if variant in PUBLISHED["table3"]["market1501"]:
        return "table3"
    return ""


def _paper_difference(config: dict, variant: str, metric: str) -> float | None:
    """The paper's level of a variant minus that without SA; None where it has not both."""
    levels = paper_levels(config["benchmark"], config["erasing"])
    if variant not in levels or BASE[variant] not in levels:
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

    a, b: what picks the runs of each, as {"variant": "b_p_ds_sa2", "form": "softmax", "lr": 0.025}.
    What neither of them names must be the same in both: only so the difference is theirs.
    Raises InputError where it is not, or where no seed is in both.
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

    Their difference would be the code's, too. Another kind of processor is let pass: it only rounds
    otherwise, which acts like another seed.
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
