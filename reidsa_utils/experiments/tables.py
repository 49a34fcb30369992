"""Tables for people: data frames of runs and of differences, and the same as Markdown."""

import numpy as np
import pandas as pd

from ..config import PROFILES
from ..data import LAYOUTS
from ..model import VARIANTS
from .pairing import SHOWN, paper_levels
from .records import CELL, other_settings, starts

# What runs must share to stand in one table.
SETTING = ["source", "profile", "recipe", "epochs", "weights", "other"]
FORMS = ("softmax", "l1", "softmax_mean", "sigmoid")


def title(benchmark: str) -> str:
    """A benchmark's name for people: "Market-1501". That of data of one's own is as given."""
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

    Data of one's own come behind the benchmarks, by their names.
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
    """The 95 % interval of a row, with what it lacks; "" where there is none."""
    if np.isnan(row.low):
        return ""
    text = f"{row.low:+.1f} to {row.high:+.1f}"
    if row.seeds == 1:
        return text + ", one seed"
    if not row.people:
        return text + ", seeds only"
    return text


def effect_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of pairing.effects(), with a column holm, as a table for people."""
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
    # A setting that all rows share is left out, but for these four.
    always = ("source", "profile", "form", "metric")
    keys = [
        key
        for key in [*SETTING, "benchmark", "variant", "form", "metric"]
        if key in always or rows[key].nunique() > 1
    ]
    return shown.set_index(pd.MultiIndex.from_frame(rows[keys]))


def _positive_seeds(row) -> str:
    positive = sum(delta > 0 for delta in row.deltas)
    return f"{positive} of {row.seeds}"


def _or_empty(pattern: str):
    """A function that writes a number by a pattern, and NaN as ""."""

    def write(value):
        return "" if np.isnan(value) else pattern.format(value)

    return write


def gap(rank1: float, mean_ap: float, benchmark: str, variant: str, erasing: bool) -> tuple:
    """Ours minus the paper's level in the table with the same settings, in points: (rank-1, mAP).

    NaN where the paper has none. For real data only.
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
    """One line of a Markdown table. A | in a value (a camera_pattern) would end its cell."""
    return "| " + " | ".join(str(value).replace("|", "\\|") for value in values) + " |"


def markdown_heading(columns: str) -> list:
    """The two lines that open a Markdown table; columns: their names with " | " between them."""
    return [f"| {columns} |", "|" + "---|" * (columns.count("|") + 1)]
