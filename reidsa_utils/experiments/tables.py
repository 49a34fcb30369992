"""Tables for readers: data frames of runs and of differences, and the same as Markdown."""

import numpy as np
import pandas as pd
from scipy import stats

from ..attention import FORMS
from ..config import PROFILES
from ..data import LAYOUTS, PUBLISHED
from ..model import VARIANTS
from .pairing import BASE, METRICS, MIN_SEEDS, SHOWN, pairs_of, paper_levels
from .records import CELL, other_settings, starts
from .statistics import holm, verdict

# What runs must share to stand in one table.
SETTING = ["source", "profile", "recipe", "epochs", "weights", "other"]


def title(benchmark: str) -> str:
    """A benchmark's name for readers: "Market-1501". Data of your own keep the name they have."""
    return LAYOUTS[benchmark].title if benchmark in LAYOUTS else benchmark


def run_table(records: list) -> pd.DataFrame:
    """One row for each run and retrieval vector: its settings, rank-1 and both mAPs in percent."""
    began_with = starts(records)
    rows = []
    for record in records:
        config = record["config"]
        described = {
            **{name: config.get(name) for name in (*CELL, "occlusion", "view_overlap")},
            "source": record["source"],
            "data": record["identity"]["fingerprint"],
            "weights": began_with[config.get("weights")],
            "other": other_settings(config),
        }
        for vector, metrics in record["metrics"].items():
            levels = {
                "vector": vector,
                "rank1": 100 * metrics["rank1"],
                "mAP": 100 * metrics["mean_ap"],
                "mAP_trapezoid": 100 * metrics["mean_ap_trapezoid"],
            }
            rows.append(described | levels)
    return pd.DataFrame(rows)


def aggregate(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation and number of seeds of every setting in run_table()."""
    keys = ["source", "data", *SHOWN, "erasing", "variant", "form", "vector"]
    by_setting = runs.groupby(keys, sort=False, dropna=False)
    levels = by_setting.agg(
        rank1=("rank1", "mean"),
        rank1_sd=("rank1", "std"),
        mAP=("mAP", "mean"),
        mAP_sd=("mAP", "std"),
        seeds=("seed", "nunique"),
    )
    return in_order(levels.reset_index())


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of a table, large profiles first, benchmarks and variants as in the paper.

    Data of your own come after the benchmarks, sorted by name.
    """
    own = sorted(set(rows.benchmark) - set(LAYOUTS))
    # Stable sorts by one column after the other: the last column counts most.
    orders = {
        "variant": list(VARIANTS),
        "benchmark": [*LAYOUTS, *own],
        "profile": list(reversed(PROFILES)),
    }
    for column, order in orders.items():
        rows = rows.sort_values(
            column, key=lambda names, order=order: names.map(order.index), kind="stable"
        )
    return rows


def spread(mean: float, sd: float) -> str:
    """A mean ± its standard deviation, which is NaN for a single value."""
    if np.isnan(sd):
        return f"{mean:.1f}"
    return f"{mean:.1f} ± {sd:.1f}"


def change(row) -> str:
    """Δ of a row with its sign, ± the standard deviation over seeds."""
    sign = "+" if row.Δ >= 0 else ""
    return sign + spread(row.Δ, row.sd)


def signed(value: float) -> str:
    """A number with its sign, "" for NaN."""
    return "" if np.isnan(value) else f"{value:+.1f}"


def interval(row) -> str:
    """The 95 % interval of a row, with a note on what it does not cover; "" if there is none."""
    if np.isnan(row.low):
        return ""
    text = f"{row.low:+.1f} to {row.high:+.1f}"
    if row.seeds == 1:
        return text + ", one seed"
    if not row.people:
        return text + ", seeds only"
    return text


def effect_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of pairing.effects(), with a column holm, as a table for readers.

    A line is named by its setting in words, the form of attention and the metric.
    """
    shown = pd.DataFrame(
        {
            "seeds": rows.seeds,
            "without": rows.without.map("{:.1f}".format),
            "with": rows["with"].map("{:.1f}".format),
            "Δ": [change(row) for row in rows.itertuples()],
            "seeds +": [_positive_seeds(row) for row in rows.itertuples()],
            "95 % interval": [interval(row) for row in rows.itertuples()],
            "p (Holm)": rows.holm.map(_or_empty("{:.3f}")),
            "smallest": rows.smallest.map(_or_empty("{:.1f}")),
            "Δ paper": rows.paper.map(signed),
        }
    )
    lines = rows.assign(setting=_setting_words(rows))
    return shown.set_index(pd.MultiIndex.from_frame(lines[["setting", "form", "metric"]]))


def _setting_words(rows: pd.DataFrame) -> list:
    """The setting of each row in words: benchmark, profile, and settings that differ by row."""
    told = [key for key in ("source", "variant", "weights", "epochs") if rows[key].nunique() > 1]
    out = []
    for _, row in rows.iterrows():
        words = [title(row.benchmark), row.profile]
        if row.recipe != "paper":
            words.append(row.recipe)
        words += [f"{row[key]} epochs" if key == "epochs" else row[key] for key in told]
        out.append(", ".join(word for word in [*words, row.other] if word))
    return out


def _positive_seeds(row) -> str:
    positive = sum(delta > 0 for delta in row.deltas)
    return f"{positive} of {row.seeds}"


def _or_empty(pattern: str):
    """A function that writes a number by a pattern, and NaN as ""."""

    def write(value):
        return "" if np.isnan(value) else pattern.format(value)

    return write


def gap(rank1: float, mean_ap: float, benchmark: str, variant: str, erasing: bool) -> tuple:
    """Our level minus the paper's in the table with the same settings, in points: (rank-1, mAP).

    NaN if the paper has none. Use it for real data only.
    """
    paper_rank1, paper_mean_ap = paper_levels(benchmark, erasing).get(variant, (np.nan, np.nan))
    return rank1 - paper_rank1, mean_ap - paper_mean_ap


def markdown(rows: pd.DataFrame, heading: str) -> list:
    """Rows of pairing.effects() as lines of a Markdown table; nothing for no rows."""
    if rows.empty:
        return []
    columns = (
        "source | profile, recipe | benchmark | variant | SA as | metric | seeds | without "
        "| with | Δ | 95 % interval | p (Holm) | paper's Δ"
    )
    lines = [f"## {heading}", "", *markdown_heading(columns)]
    write_p = _or_empty("{:.3f}")
    for row in rows.itertuples():
        line = markdown_row(
            row.source,
            ", ".join(word for word in (row.profile, row.recipe, row.other) if word),
            title(row.benchmark),
            row.variant,
            row.form,
            row.metric,
            row.seeds,
            f"{row.without:.1f}",
            f"{row.without + row.Δ:.1f}",
            change(row),
            interval(row),
            write_p(row.holm),
            signed(row.paper),
        )
        lines.append(line)
    return [*lines, ""]


def markdown_row(*values) -> str:
    """One line of a Markdown table. A | in a value is escaped, since it would end the cell."""
    return "| " + " | ".join(str(value).replace("|", "\\|") for value in values) + " |"


def markdown_heading(columns: str) -> list:
    """The two lines that open a Markdown table; columns: their names with " | " between them."""
    return [f"| {columns} |", "|" + "---|" * (columns.count("|") + 1)]


def overview(runs: pd.DataFrame) -> pd.DataFrame:
    """How many runs and settings there are for each source, profile, recipe and paper's table."""
    one = runs[runs.vector == "global"].copy()
    one["table"] = np.where(one.erasing, "Table 3 (random erasing)", "Table 2 (no erasing)")
    one["setting"] = one.groupby(["data", "variant", "form", *SHOWN], dropna=False).ngroup()
    seeds = one.groupby(["source", "profile", "recipe", "table", "setting"], sort=False).seed
    seeds = seeds.nunique().groupby(level=[0, 1, 2, 3], sort=False)
    return pd.DataFrame(
        {
            "runs": seeds.sum(),
            "settings": seeds.size(),
            f"with {MIN_SEEDS} seeds or more": seeds.agg(lambda n: (n >= MIN_SEEDS).sum()),
        }
    )


def judge(effects: pd.DataFrame) -> pd.DataFrame:
    """The rows of pairing.effects() that belong to a table of the paper, with corrected p values.

    Two columns are added. tested: three seeds or more. holm: the p value after Holm's correction
    over all tested differences of one source, profile and recipe. Settings that turn a knob of the
    renderer are left out: they have a figure of their own.
    """
    turned = effects.occlusion.notna() | effects.view_overlap.notna()
    plain = effects.vector.isin(["global", "parts"])
    rows = in_order(effects[~turned & (effects.table != "") & plain]).reset_index(drop=True)
    rows["tested"] = (rows.seeds >= MIN_SEEDS) & rows.p.notna()
    settings = [rows[key] for key in SETTING]
    rows["holm"] = rows.p.where(rows.tested).groupby(settings).transform(holm)
    return rows


def conclusions(judged: pd.DataFrame) -> list:
    """A sentence on "consistent improvement" for each setting and form, from judge()'s rows."""
    lines = []
    for keys, rows in judged.groupby([*SETTING, "form"], sort=False):
        source, profile, recipe, _, _, other, form = keys
        setting = ", ".join(word for word in (source, profile, recipe, other) if word)
        lines.append(f"{setting}: SA as {form}: {_conclusion(rows)}")
    return lines or ["no pair of runs, so no claim"]


def _conclusion(rows: pd.DataFrame) -> str:
    tested = rows[rows.tested]
    if tested.empty:
        return f"no setting has {MIN_SEEDS} seeds, so nothing is claimed"
    delta = tested["Δ"]
    shown = tested.holm < 0.05
    better = int((shown & (delta > 0)).sum())
    worse = int((shown & (delta < 0)).sum())
    if better and worse:
        word = "better in some settings and worse in others"
    elif better == len(tested):
        word = "an improvement is shown"
    elif better:
        word = "an improvement is shown in some settings, not consistently"
    elif worse:
        word = "no consistent improvement; wherever a difference is shown, it is a loss"
    else:
        word = "neither improvement nor harm is shown"
    networks = len(tested.drop_duplicates(["table", "benchmark", "variant"]))
    return (
        f"{word} (comparisons with three seeds or more: {networks}; of their {len(tested)} "
        f"differences {int((delta > 0).sum())} are positive, {better} are shown to be gains and "
        f"{worse} to be losses; the median is {delta.median():+.1f})"
    )


def levels_of_table2(runs: pd.DataFrame) -> pd.DataFrame:
    """The levels of the variants of Table 2 on Market-1501 without erasing, for readers."""
    some = runs[~runs.erasing & (runs.benchmark == "market1501")]
    some = some[(some.source == "rendered") & some.vector.isin(["global", "parts"])]
    cells = aggregate(some)
    table = pd.DataFrame(
        {
            "rank-1": [spread(row.rank1, row.rank1_sd) for row in cells.itertuples()],
            "mAP": [spread(row.mAP, row.mAP_sd) for row in cells.itertuples()],
            "seeds": cells.seeds,
        }
    )
    keys = ["profile", "recipe", "vector", "variant", "form"]
    table.index = pd.MultiIndex.from_frame(cells[keys])
    return table.sort_index(level="vector", sort_remaining=False, kind="stable")


def published_table1() -> pd.DataFrame:
    """Table 1 as the paper prints it, and the paper's own numbers without re-ranking (Table 3)."""
    rows = {}
    for name, row in PUBLISHED["table1"].items():
        name = "the paper" if name == "Ours" else name
        rows[name] = []
        for levels in row:  # (rank-1, mAP) on each benchmark, or nothing
            rows[name] += levels or ("", "")
    plain = [PUBLISHED["table3"][benchmark]["b_p_ds_sa2"] for benchmark in LAYOUTS]
    rows["the paper, not re-ranked (Table 3)"] = [level for levels in plain for level in levels]
    return pd.DataFrame(rows, index=_benchmark_columns()).T


def reranking_gains(runs: pd.DataFrame) -> pd.DataFrame:
    """What re-ranking adds to the network with SA, in points: in the paper, then in the runs."""
    reranked = np.array(PUBLISHED["table1"]["Ours"])  # (benchmark, metric)
    plain = np.array([PUBLISHED["table3"][benchmark]["b_p_ds_sa2"] for benchmark in LAYOUTS])
    published = zip(_benchmark_columns(), (reranked - plain).ravel(), strict=True)
    gains = {("published", "real", "", ""): dict(published)}
    unturned = runs.occlusion.isna() & runs.view_overlap.isna()
    some = runs[runs.erasing & (runs.variant == "b_p_ds_sa2") & unturned]
    keys = ["profile", "source", "recipe", "other", "form"]
    for (profile, source, recipe, other, form), group in some.groupby(keys, sort=False):
        means = group.pivot_table(index="vector", columns="benchmark", values=["rank1", "mAP"])
        if not {"parts", "parts+rerank"} <= set(means.index):
            continue
        added = means.loc["parts+rerank"] - means.loc["parts"]
        setting = (profile, source, f"{recipe}, {other}" if other else recipe, form)
        gains[setting] = {}
        for benchmark in means["mAP"]:
            gains[setting][title(benchmark), "rank-1"] = added["rank1", benchmark]
            gains[setting][title(benchmark), "mAP"] = added["mAP", benchmark]
    own = sorted(set(some.benchmark) - set(LAYOUTS))  # data of your own
    columns = _benchmark_columns().append(pd.MultiIndex.from_product([own, ["rank-1", "mAP"]]))
    return pd.DataFrame(gains, index=columns).T.rename_axis(["size", "source", "recipe", "form"])


def _benchmark_columns() -> pd.MultiIndex:
    titles = [title(benchmark) for benchmark in LAYOUTS]
    return pd.MultiIndex.from_product([titles, ["rank-1", "mAP"]])


def real_levels(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs on real benchmarks beside the paper's level in the table with the same settings.

    Settings that all of them share are left out. The table is empty if there are no such runs.
    """
    some = runs[(runs.source == "real") & runs.vector.isin(["global", "parts"])]
    if some.empty:
        return pd.DataFrame()
    cells = aggregate(some).sort_values(["weights", "epochs"], kind="stable")
    rows = []
    for row in cells.itertuples():
        gap_rank1, gap_map = gap(row.rank1, row.mAP, row.benchmark, row.variant, row.erasing)
        rows.append(
            {
                "benchmark": title(row.benchmark),
                "profile": row.profile,
                "recipe": row.recipe,
                "other": row.other,
                "variant": row.variant,
                "form": row.form,
                "erasing": "yes" if row.erasing else "no",
                "began with": "nothing" if row.weights == "none" else row.weights,
                "epochs": row.epochs,
                "vector": row.vector,
                "seeds": row.seeds,
                "rank-1": row.rank1,
                "mAP": row.mAP,
                "paper's rank-1": row.rank1 - gap_rank1,
                "paper's mAP": row.mAP - gap_map,
                "gap rank-1": gap_rank1,
                "gap mAP": gap_map,
            }
        )
    table = pd.DataFrame(rows)
    always = ("variant", "form", "began with", "epochs", "vector")
    settings = list(table.columns[: list(table.columns).index("rank-1")])
    index = [key for key in settings if key in always or table[key].nunique() > 1]
    return table.drop(columns=[key for key in settings if key not in index]).set_index(index)


def pooled_rows(runs: str, pooled: dict) -> list:
    """pairing.pooled_effects() as rows of a table for readers, with the verdict on each.

    runs: the name of these runs in the table.
    """
    rows = []
    for (form, metric), found in pooled.items():
        row = {
            "runs": runs,
            "form": form,
            "metric": metric,
            "settings": found["settings"],
            "Δ": signed(found["Δ"]),
            "95 % interval": f"{found['low']:+.1f} to {found['high']:+.1f}",
            "a new setting": f"{found['predicted_low']:+.1f} to {found['predicted_high']:+.1f}",
            "between settings (τ)": f"{found['tau']:.1f}",
            "Δ paper": signed(found["paper"]),
            # If the paper reports nothing, there is no claim to judge.
            "verdict": "" if np.isnan(found["paper"]) else verdict(found, found["paper"]),
        }
        rows.append(row)
    return rows


def agreement_with_table2(runs: pd.DataFrame) -> pd.DataFrame:
    """Kendall's tau between runs and the paper's Table 2, for readers.

    A row for each setting, form and metric whose runs have all variants. Three taus: over the eight
    variants; over the seven neighbours in the table that differ in SA alone; over those of the
    seven that differ by half a point or more in the paper. With several seeds, each tau has a 95 %
    interval over the seeds.
    """
    eight = runs[~runs.erasing & (runs.benchmark == "market1501") & (runs.vector == "global")]
    rng = np.random.default_rng(0)
    rows = []
    for setting, group in eight.groupby(SETTING, sort=False):
        for form in FORMS:
            of_form = group[group.form.isin(["none", form])]
            for metric, column in zip(METRICS, ("rank1", "mAP"), strict=True):
                wide = of_form.pivot_table(index="seed", columns="variant", values=column)
                wide = wide.dropna()
                if set(wide) == set(VARIANTS) and len(wide):
                    taus = _with_interval(wide, metric, rng)
                    rows.append([*setting, form, metric, len(wide), *taus])
    names = ["tau: 8 variants", "7 SA pairs", "clear SA pairs"]
    table = pd.DataFrame(rows, columns=[*SETTING, "form", "metric", "seeds", *names])
    if not table.other.any():  # no settings other than the profile's
        table = table.drop(columns="other")
    return table


def _taus(levels: pd.Series, metric: str) -> np.ndarray:
    """The three taus of agreement_with_table2(); levels: variant -> points."""
    place = list(METRICS).index(metric)
    theirs = pd.Series({variant: row[place] for variant, row in PUBLISHED["table2"].items()})
    variants = list(theirs.index)
    tau = stats.kendalltau(levels[variants], theirs).statistic
    agree, clear = [], []
    for i, a in enumerate(variants):
        for b in variants[i + 1 :]:
            # b must be a with SA, or a with SA in one more place.
            if b not in BASE or BASE[b] not in (a, BASE.get(a)):
                continue
            delta = theirs[b] - theirs[a]
            agree.append(np.sign((levels[b] - levels[a]) * delta))
            if abs(delta) >= 0.5 - 1e-9:
                clear.append(agree[-1])
    return np.array([tau, np.mean(agree), np.mean(clear)])


def _with_interval(wide: pd.DataFrame, metric: str, rng) -> list:
    """The three taus as texts. wide: (seeds, variants), points."""
    taus = _taus(wide.mean(), metric)
    if len(wide) == 1:
        return [f"{tau:+.2f}" for tau in taus]
    again = []
    for _ in range(500):
        some_seeds = rng.integers(len(wide), size=len(wide))
        again.append(_taus(wide.iloc[some_seeds].mean(), metric))
    lows, highs = np.quantile(again, [0.025, 0.975], axis=0)
    return [f"{t:+.2f} ({a:+.2f} to {b:+.2f})" for t, a, b in zip(taus, lows, highs, strict=True)]


def signs(judged: pd.DataFrame, table: str, vector: str) -> pd.DataFrame:
    """The sign of SA's effect on each benchmark, from judge()'s rows.

    A sign is in brackets if its interval contains zero or if it has fewer than three seeds.
    """
    rows = judged[(judged.table == table) & (judged.vector == vector)].copy()
    sign = np.where(rows["Δ"] > 0, "+", "-")
    shown = rows.tested & (rows.low * rows.high > 0)
    rows["sign"] = np.where(shown, sign, [f"({s})" for s in sign])
    rows["benchmark"] = rows.benchmark.map(title)
    index = [key for key in [*SETTING, "form", "metric"] if key != "other" or rows.other.any()]
    return rows.pivot_table(
        index=index,
        columns="benchmark",
        values="sign",
        aggfunc=" ".join,
        sort=False,
        fill_value="",
    )


def effective_positions(records: list) -> pd.DataFrame:
    """Effective positions of SA's weights on Market-1501 at laptop, in percent of each stage's map.

    The numbers are for the first and the last epoch, each network with its own form, and are means
    over the seeds. Records that do not hold them are left out.
    """
    rows = []
    for record in records:
        config = record["config"]
        of_market = config["benchmark"] == "market1501" and config["profile"] == "laptop"
        with_sa = config["variant"] == "b_p_ds_sa2" and config["form"] in ("softmax", "l1")
        if not (of_market and with_sa and "first_step" in record["history"][-1]):
            continue
        for epoch, line in (("first", record["history"][0]), ("last", record["history"][-1])):
            share = line["first_step"][config["form"]]["cells"]
            row = {
                "form": config["form"],
                "source": record["source"],
                "erasing": "yes" if config["erasing"] else "no",
                "epoch": epoch,
                "seeds": config["seed"],
            }
            for stage in (1, 2, 3):
                row[f"stage {stage} (%)"] = 100 * share[stage - 1]
            rows.append(row)
    if not rows:
        return pd.DataFrame()
    how = {"seeds": "nunique"} | {f"stage {stage} (%)": "mean" for stage in (1, 2, 3)}
    keys = ["form", "source", "erasing", "epoch"]
    return pd.DataFrame(rows).groupby(keys).agg(how).round(1)


def found_by_one(records: list) -> pd.DataFrame:
    """How many queries are right at rank 1 with SA only, and without it only (vector `parts`).

    A row for each setting and form, over all seeds whose records say which queries are right.
    """
    rows = {}
    for pair in pairs_of(records):
        counts = []  # (seeds, 2)
        for with_sa, without in zip(pair.runs, pair.base_runs, strict=True):
            lists = [r["metrics"].get("parts", {}).get("first_match") for r in (with_sa, without)]
            if None not in lists:
                right_with, right_without = (np.array(first) == 1 for first in lists)
                only_with = (right_with & ~right_without).sum()
                counts.append([only_with, (right_without & ~right_with).sum(), len(right_with)])
        if counts:
            config = pair.runs[0]["config"]
            with_, without, queries = np.sum(counts, axis=0)
            rows[title(config["benchmark"]), pair.setting.form] = {
                "seeds": len(counts),
                "queries, all seeds": queries,
                "only right with SA": with_,
                "only right without SA": without,
            }
    return pd.DataFrame(rows).T


def as_markdown(judged: pd.DataFrame) -> str:
    """The tables of differences and the conclusion as a Markdown text, from judge()'s rows."""
    lines = [
        "In points of 100. Δ: with SA minus without, seed by seed, ± standard deviation over the "
        "seeds. The paper's Δ is one number on the real",
        "benchmark. One seed shows no spread over seeds, so it supports no claim.",
        "",
    ]
    sections = [
        ("table3", "parts"),
        ("table3", "global"),
        ("table2", "global"),
        ("table2", "parts"),
    ]
    for table, vector in sections:
        rows = judged[(judged.table == table) & (judged.vector == vector)]
        lines += markdown(rows, f"Table {table[-1]}, vector {vector}")
    lines += ["## The claim", ""]
    lines += [f"- {line}" for line in conclusions(judged)]
    return "\n".join(lines) + "\n"
