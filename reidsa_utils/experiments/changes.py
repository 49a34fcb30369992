"""Single changes: settings of one benchmark that differ in one thing, compared seed by seed.

Notebook 08 uses them to compare the text of the paper with its released code. A setting is a
recipe, a variant, a form of attention and random erasing; everything else is shared.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np
import pandas as pd

from .. import InputError
from ..attention import FORMS
from ..data import LAYOUTS
from .pairing import METRICS, pair_difference
from .statistics import holm

BENCHMARK = "cuhk03_np_labeled"  # the one with the fewest training images
VARIED = ("variant", "form", "recipe", "erasing", "seed")
HINT = "run `snakemake --cores 2 controls`, or use records = results"


class Setting(NamedTuple):
    """What differs between the runs that are compared."""

    recipe: str
    variant: str
    form: str
    erasing: bool


class Runs(NamedTuple):
    """The runs of one benchmark that differ only in their setting and their seed."""

    source: str  # "rendered" or "real"
    profile: str
    by_setting: dict  # {Setting: {seed: record}}
    left_out: int  # records of the benchmark that differ in something else


def no_sa(recipe: str = "paper", variant: str = "b_p_ds", erasing: bool = True) -> Setting:
    """A setting without spatial attention."""
    return Setting(recipe, variant, "none", erasing)


def sa(form: str, recipe: str = "paper", variant: str = "b_p_ds_sa2") -> Setting:
    """A setting with spatial attention, with random erasing."""
    return Setting(recipe, variant, form, True)


def setting_of(config: dict) -> Setting:
    """The setting of a record's config, or of an identity."""
    return Setting(*(config[name] for name in Setting._fields))


def choose_runs(records: list, folder) -> Runs:
    """The largest group of runs of BENCHMARK that differ in their setting and seed alone.

    folder: where the records are from, for the error.
    Raises InputError if a form of attention or no SA is missing, and for two records of one setting
    and seed.
    """
    ours = [r for r in records if r["config"]["benchmark"] == BENCHMARK]
    if not ours:
        raise InputError(f"{folder} holds no runs of {LAYOUTS[BENCHMARK].title}; {HINT}")
    groups = Counter(_shared(r) for r in ours)
    group, size = groups.most_common(1)[0]
    source, profile, _ = group

    by_setting = {}
    for r in ours:
        if _shared(r) != group:
            continue
        setting, seed = setting_of(r["config"]), r["config"]["seed"]
        runs = by_setting.setdefault(setting, {})
        if seed in runs:
            raise InputError(
                f"two records of {setting.variant}, {setting.form}, recipe {setting.recipe}, seed "
                f"{seed} with the same settings; keep one"
            )
        runs[seed] = r
    needed = {no_sa()} | {sa(form) for form in FORMS if form != "none"}
    lacking = [tuple(setting) for setting in sorted(needed - set(by_setting))]
    if lacking:
        raise InputError(
            f"{folder} lacks the runs of part 1 ({source}, {profile}): {lacking}; {HINT}"
        )
    return Runs(source, profile, by_setting, len(ours) - size)


def _shared(record: dict) -> tuple:
    """What runs must share to be compared: all but the varied settings."""
    identity = record["identity"].items()
    rest = tuple(sorted((key, str(value)) for key, value in identity if key not in VARIED))
    return record["source"], record["config"]["profile"], rest


def compare(runs: Runs, changes: dict, vector: str = "parts") -> pd.DataFrame:
    """Compare settings in pairs, seed by seed, in rank-1 and mAP.

    changes: {what changed, in words: (setting with it, setting without it)}; vector: the retrieval
    vector. Returns a row for each change and metric, with the columns of statistics.difference();
    seeds is 0 where no seed has both runs yet.
    """
    rows = []
    for change, (changed, base) in changes.items():
        runs_with = runs.by_setting.get(changed, {})
        runs_without = runs.by_setting.get(base, {})
        seeds = sorted(set(runs_with) & set(runs_without))
        for metric in METRICS:
            row = {"change": change, "metric": metric, "vector": vector, "seeds": 0}
            if seeds:
                with_ = [runs_with[seed]["metrics"] for seed in seeds]
                without = [runs_without[seed]["metrics"] for seed in seeds]
                ids = runs_with[seeds[0]].get("query_ids")
                row |= pair_difference(with_, without, metric, vector, ids)
            rows.append(row)
    return pd.DataFrame(rows)


def as_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of compare() as a table for readers: one line per change, without it and with it."""
    lines = {}
    for row in rows.itertuples():
        line = lines.setdefault(row.change, {"seeds": row.seeds})
        if not row.seeds:
            line[f"Δ {row.metric}"] = "not run yet"
            continue
        one_seed = ", one seed" if row.seeds == 1 else ""
        line[f"{row.metric} without"] = f"{row.without:.1f}"
        line[f"{row.metric} with"] = f"{row.without + row.Δ:.1f}"
        line[f"Δ {row.metric}"] = f"{row.Δ:+.1f} ({row.low:+.1f} to {row.high:+.1f}{one_seed})"
    return pd.DataFrame(lines).T.fillna("").rename_axis("change")


def correct(rows: pd.DataFrame) -> pd.DataFrame:
    """The comparisons that were run, with a column holm: p corrected for their number."""
    run = rows[rows.seeds > 0].reset_index(drop=True)
    return run.assign(holm=holm(run.p))


def conclude(rows: pd.DataFrame) -> str:
    """What the intervals of the mAP show about each change, as a text. rows: of correct()."""
    of_map = rows[rows.metric == "mAP"].sort_values("Δ", kind="stable")
    said = {
        "lower": (of_map.seeds > 1) & (of_map.high < 0),
        "higher": (of_map.seeds > 1) & (of_map.low > 0),
    }
    said["not known (one seed)"] = of_map.seeds == 1
    said["neither (the interval contains zero)"] = ~(
        said["lower"] | said["higher"] | (of_map.seeds == 1)
    )
    lines = []
    for word, chosen in said.items():
        if chosen.any():
            lines += [f"mAP {word}:", *(f"   {change}" for change in of_map.change[chosen])]
    sure = sorted(set(rows.change[(rows.holm < 0.05) & (rows.seeds > 1)]))
    lines.append(f"p < 0.05 after Holm's correction for {rows.p.notna().sum()} tests:")
    lines += [f"   {change}" for change in sure or ["none"]]
    smallest = of_map.smallest[of_map.seeds > 1]
    if len(smallest):
        low, middle, high = smallest.min(), smallest.median(), smallest.max()
        lines += [
            "Smallest detectable difference in mAP (found in four of five repetitions, at p < 0.05",
            f"before Holm's correction): {low:.1f} points where seeds and people scatter least,",
            f"{middle:.1f} in the median comparison, {high:.1f} where they scatter most.",
        ]
    return "\n".join(lines)


def as_markdown(rows: pd.DataFrame, runs: Runs) -> str:
    """The rows of correct() as a Markdown text."""
    lines = [
        "Mean average precision and rank-1 in points of 100; "
        f"{LAYOUTS[BENCHMARK].title}, {runs.source}, {runs.profile}. With 95 % intervals.",
        "",
        "| change | vector | seeds | metric | without it | with it | Δ | p (Holm) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows.itertuples():
        levels = f"{row.without:.1f} | {row.without + row.Δ:.1f}"
        delta = f"{row.Δ:+.1f} ({row.low:+.1f} to {row.high:+.1f})"
        p = "" if np.isnan(row.holm) else f"{row.holm:.3f}"
        lines.append(
            f"| {row.change} | {row.vector} | {row.seeds} | {row.metric} | {levels} | {delta} | "
            f"{p} |"
        )
    return "\n".join(lines) + "\n"


def found_by_one(runs: Runs) -> pd.DataFrame:
    """The percent of the queries that are right at rank 1 with SA only, and without it only.

    A row for each form with two seeds or more, vector `parts`: means over the seeds, and their
    standard deviations.
    """
    rows = {}
    base = runs.by_setting[no_sa()]
    for form in FORMS:
        of_form = runs.by_setting.get(sa(form), {})
        seeds = sorted(set(of_form) & set(base))
        if len(seeds) < 2:
            continue
        with_sa = np.array([_is_found(of_form[seed]) for seed in seeds])  # (seeds, queries)
        without = np.array([_is_found(base[seed]) for seed in seeds])
        row = {"seeds": len(seeds)}
        for name, only in (
            ("with SA only", with_sa & ~without),
            ("without only", without & ~with_sa),
        ):
            percent = 100 * only.mean(axis=1)
            row[f"{name} (%)"] = percent.mean()
            row[f"{name}, sd"] = percent.std(ddof=1)
        rows[form] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def _is_found(record: dict) -> np.ndarray:
    """Whether the first image of each query's list is a match: (Q,) bool."""
    return np.array(record["metrics"]["parts"]["first_match"]) == 1
