"""The tables of the paper from records, as CSV for programs and LaTeX for a paper."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from .. import InputError
from ..data import PUBLISHED
from ..support.files import write_atomic
from .pairing import (
    METRICS,
    by_setting,
    check_numerics,
    identities,
    pair_difference,
    paper_difference,
    pooled_effects,
    without_sa,
)
from .records import read_records, settings_of
from .tables import in_order, title

# Recipes that are whole readings of the paper; the others are controls, with one thing changed.
READINGS = ("paper", "released")
# The settings of a row, in the order of the columns. Those that all rows share stand in a line
# above a LaTeX table.
SETTINGS = (
    "benchmark",
    "source",
    "profile",
    "recipe",
    "epochs",
    "weights",
    "learning rate",
    "random erasing",
    "variant",
    "form",
    "vector",
)
# TeX's special characters.
ESCAPED = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}


def export(folder: Path, out: Path) -> list:
    """Write the tables of a folder of records into `out`, each as NAME.csv and NAME.tex.

    table1 is re-ranked, table2 without and table3 with random erasing. controls compares a network
    with the same one of recipe `paper`, the other tables with the same one without SA. rates comes
    from the records in folder/rates. pooled is one effect of all rendered settings of recipe
    `paper`. A table without a row is left out.
    Returns the paths. Raises InputError, before anything is written, for a folder without records,
    a broken record, two records of one run, or an `out` that is not a folder.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; --out names the folder that the tables are written to")
    files = {}
    for name, table in export_tables(Path(folder)).items():
        if len(table):
            csv = table.to_csv(index=False, lineterminator="\n", float_format="%.3f")
            files[out / f"{name}.csv"] = csv
            files[out / f"{name}.tex"] = latex(table)
    for path, text in files.items():
        write_atomic(path, text.encode())
    return list(files)


def export_tables(folder: Path) -> dict:
    """{name: table} of the records in a folder, as export() writes them; some may be empty.

    Levels are in percent, differences in points of 100. low and high are the limits of a 95 %
    interval (statistics.difference). A level is the mean over all seeds of a setting, a difference
    that over the seeds that both sides have.
    """
    records = read_records(folder)
    rows = _rows(records, without_sa)
    plain = rows[~rows.turned & rows.recipe.isin(READINGS)]
    reranked = plain.vector.str.endswith("+rerank")
    erasing = plain["random erasing"] == "yes"
    of_table3 = erasing & plain.variant.isin(PUBLISHED["table3"]["market1501"])
    rates = rows.iloc[:0]
    if (folder / "rates").is_dir():
        rates = _rows(read_records(folder / "rates"), without_sa)
    controls = _rows(records, _of_paper)
    controls = controls[~controls.turned & ~controls.recipe.isin(["paper"])]
    tables = {
        "table1": plain[of_table3 & reranked],
        "table2": plain[~erasing & ~reranked],
        "table3": plain[of_table3 & ~reranked],
        "controls": controls[~controls.vector.str.endswith("+rerank")],
        "rates": rates[~rates.vector.str.endswith("+rerank")].sort_values(
            "learning rate", key=lambda rate: rate.astype(float), kind="stable"
        ),
    }
    for name, table in tables.items():
        table = table.drop(columns="turned")
        if name in ("table1", "controls", "rates"):  # the paper reports no difference for these
            table = table.drop(columns=[column for column in table if "paper's" in column])
        tables[name] = _readable(table)
    return tables | {"pooled": _pooled_rows(records)}


def _of_paper(setting):
    """The same setting with the recipe `paper`."""
    rest = dict(setting.rest) | {"recipe": "paper"}
    return setting._replace(rest=tuple(sorted(rest.items())))


def _rows(records: list, base_of: Callable) -> pd.DataFrame:
    """One row for each setting and retrieval vector, with its difference to base_of(setting)."""
    ids = identities(records)
    settings = by_setting(records)
    rows = []
    for setting, runs in settings.items():
        base_setting = base_of(setting)
        base = settings.get(base_setting, {}) if base_setting != setting else {}
        seeds = sorted(set(runs) & set(base))
        for seed in seeds:
            check_numerics(runs[seed], base[seed])
        described = _described(next(iter(runs.values())))
        for vector in next(iter(runs.values()))["metrics"]:
            row = described | {"vector": vector, "seeds": len(runs)}
            both = [s for s in seeds if vector in base[s]["metrics"] and vector in _of(runs, s)]
            row["paired seeds"] = len(both)
            for metric, (key, _) in METRICS.items():
                levels = [100 * r["metrics"][vector][key] for r in runs.values()]
                row[f"{metric} mean (%)"] = np.mean(levels)
                row[f"{metric} sd (points)"] = np.std(levels, ddof=1) if len(levels) > 1 else np.nan
                found = dict.fromkeys(("Δ", "sd", "low", "high"), np.nan)
                if both:
                    pair = [_of(runs, s) for s in both], [_of(base, s) for s in both]
                    found = pair_difference(*pair, metric, vector, ids.get(setting.data))
                row[f"delta {metric} (points)"] = found["Δ"]
                row[f"delta {metric} sd (points)"] = found["sd"]
                row[f"delta {metric} low (points)"] = found["low"]
                row[f"delta {metric} high (points)"] = found["high"]
                paper = None
                if "+" not in vector:  # the paper's tables of variants are not re-ranked
                    paper = paper_difference(dict(setting.rest), setting.variant, metric)
                row[f"paper's delta {metric} (points)"] = np.nan if paper is None else paper
            rows.append(row)
    return in_order(pd.DataFrame(rows))


def _of(runs: dict, seed: int) -> dict:
    return runs[seed]["metrics"]


def _described(record: dict) -> dict:
    """The settings of a run that have a column."""
    settings = settings_of(record)
    row = {name: settings.get(name) for name in SETTINGS if name in settings}
    row["learning rate"] = f"{settings['lr']:g}"
    row["random erasing"] = "yes" if settings["erasing"] else "no"
    row["source"] = record["source"]
    row["turned"] = any(settings.get(knob) is not None for knob in ("occlusion", "view_overlap"))
    return row


def _readable(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns in their order, benchmarks by their names, the vector `parts` first."""
    first = [name for name in SETTINGS if name in rows]
    rows = rows[[*first, *(name for name in rows if name not in first)]]
    rows = rows.sort_values("vector", key=lambda v: v.str.startswith("global"), kind="stable")
    return rows.assign(benchmark=rows.benchmark.map(title)).reset_index(drop=True)


def _pooled_rows(records: list) -> pd.DataFrame:
    wanted = {"source": "rendered", "recipe": "paper"}
    rows = []
    for vector in ("parts", "global"):
        for (form, metric), found in pooled_effects(records, wanted, vector).items():
            row = {
                "form": form,
                "vector": vector,
                "metric": metric,
                "settings": found["settings"],
                "fewest seeds": found["seeds"],
                "delta (points)": found["Δ"],
                "delta low (points)": found["low"],
                "delta high (points)": found["high"],
                "new setting low (points)": found["predicted_low"],
                "new setting high (points)": found["predicted_high"],
                "tau (points)": found["tau"],
                "paper's delta (points)": found["paper"],
            }
            rows.append(row)
    return pd.DataFrame(rows)


def latex(table: pd.DataFrame) -> str:
    """A table as a tabular of the LaTeX package booktabs.

    A mean and its sd share a column, and so do a difference and its interval. Settings that all
    rows share stand in a comment above.
    """
    columns = {}  # heading: cells
    shared = []
    for name in table:
        if re.search(r" (sd|low|high) \(", name):
            continue  # beside its mean or its difference
        values = table[name]
        if name in SETTINGS and len(table) > 1 and values.nunique(dropna=False) == 1:
            shared.append(latex_text(f"{name} {values.iloc[0]}"))
            continue
        columns[latex_text(_heading(name, table))] = _cells(table, name)
    lines = [
        "% Made by `reidsa export`. Needs \\usepackage{booktabs}.",
        *([f"% In all rows: {'; '.join(shared)}."] if shared else []),
        "\\begin{tabular}{" + "".join("l" if n in SETTINGS else "r" for n in columns) + "}",
        "\\toprule",
        " & ".join(columns) + r" \\",
        "\\midrule",
        *(" & ".join(row) + r" \\" for row in zip(*columns.values(), strict=True)),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _heading(name: str, table: pd.DataFrame) -> str:
    if name.replace(" (", " low (") in table:
        return name.replace(" (", " [95 % interval] (")
    return name.replace(" mean (", " (")


def _cells(table: pd.DataFrame, name: str) -> list:
    """A column as LaTeX texts, each with its interval or its sd if there is one."""
    low, high = name.replace(" (", " low ("), name.replace(" (", " high (")
    sd = name.replace(" mean (%)", " sd (points)")
    cells = []
    for _, row in table.iterrows():
        value = row[name]
        if not name.endswith(")"):
            cells.append(latex_text("" if value is None else str(value)))
        elif pd.isna(value):
            cells.append("")
        elif low in table:
            cells.append(f"${value:+.1f}$ $[{row[low]:+.1f}, {row[high]:+.1f}]$")
        elif sd != name and sd in table:
            spread = "" if pd.isna(row[sd]) else f" $\\pm$ {row[sd]:.1f}"
            cells.append(f"{value:.1f}{spread}")
        else:
            cells.append(f"${value:+.1f}$" if "delta" in name else f"{value:.1f}")
    return cells


def latex_text(text: str) -> str:
    """A text for LaTeX: its special characters are escaped."""
    return "".join(ESCAPED.get(sign, sign) for sign in " ".join(text.split()))
