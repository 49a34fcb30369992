"""How the notebooks show their results: figures, tables for people, Markdown, the ledger of claims; and the README's tables."""

import json
import os
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from .. import InputError, known
from ..config import PROFILES
from ..data import LAYOUTS, PUBLISHED
from ..datasets.rendered import Settings
from ..model import VARIANTS
from ..support.files import ROOT, write_atomic
from ..support.opencv import cv2
from . import results

SETTING = [
    "source",
    "profile",
    "recipe",
    "epochs",
    "weights",
    "other",
]  # what runs must share to stand in one table
FORMS = ("softmax", "l1", "softmax_mean", "sigmoid")
KNOBS = {
    "occlusion": "share of images with an occluder",
    "view_overlap": "view overlap (0: a camera sees one side; 1: all)",
}
DATA = ("exact", "published", "rendered", "real")
VERDICTS = ("confirmed", "mixed", "contradicted", "not shown", "not testable here")
MARKS = "<!-- {}: made by `reidsa readme` -->\n", "<!-- end of {} -->"


def save_figure(figure, name: str, source: str = "rendered") -> None:
    """Write a figure under its fixed name into figures/, or the folder named in REIDSA_FIGURES.

    source: what it shows. Pictures of real people go to runs/figures, which git ignores.
    """
    folder = (
        Path(os.environ.get("REIDSA_FIGURES", ROOT / "figures"))
        if source == "rendered"
        else ROOT / "runs" / "figures"
    )
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / name, dpi=110, bbox_inches="tight", metadata={"Software": None})


HEAT = "magma"  # perceptually even, and lighter wherever it is hotter: readable in grey


def overlay(
    image: np.ndarray, cam: np.ndarray, top: float | None = None, strength: float = 0.7
) -> np.ndarray:
    """A map over its image in grey: (H, W, 3) uint8 and (h, w) -> (H, W, 3) uint8, colours as HEAT.

    Negative values show as zero. top: the value from which on the last colour stands, the same in pictures that are compared;
    None: the map's own peak.
    """
    heat = np.clip(cam, 0, None) / max(np.max(cam) if top is None else top, 1e-12)
    heat = cv2.resize(
        np.clip(heat, 0, 1).astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_LINEAR
    )
    color = (plt.get_cmap(HEAT)(heat)[..., :3] * 255).astype(np.uint8)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return (grey * (1 - strength) + color * strength).astype(np.uint8)


def notebook_parameters(namespace: dict, names=None) -> dict:
    """What a notebook's parameters cell (and papermill) set: the names in `namespace` that Python did not put there.

    To be called right after the parameters cell, so that a misspelt parameter, which papermill lets pass, is seen: with `names`
    here (InputError), else by who takes the parameters.
    """
    found = {
        k: v
        for k, v in namespace.items()
        if not k.startswith("_") and k not in ("In", "Out") and not callable(v)
    }
    for name in found:
        known("parameter", name, names or found)
    return found


def title(benchmark: str) -> str:
    return LAYOUTS[benchmark].title


def aggregate(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation and number of seeds of every cell of results.table()."""
    keys = ["source", "data", *results.SHOWN, "erasing", "variant", "form", "vector"]
    out = runs.groupby(keys, sort=False, dropna=False).agg(
        rank1=("rank1", "mean"),
        rank1_sd=("rank1", "std"),
        mAP=("mAP", "mean"),
        mAP_sd=("mAP", "std"),
        seeds=("seed", "nunique"),
    )
    return in_order(out.reset_index())


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Large profiles first, benchmarks and variants as in the paper."""
    for key, order in (
        ("variant", list(VARIANTS)),
        ("benchmark", list(LAYOUTS)),
        ("profile", list(PROFILES)[::-1]),
    ):
        rows = rows.sort_values(
            key, key=lambda values, order=order: values.map(order.index), kind="stable"
        )
    return rows


def spread(mean: float, sd: float) -> str:
    return f"{mean:.1f} ± {sd:.1f}" if sd == sd else f"{mean:.1f}"


def change(row) -> str:
    """Δ with its sign, ± the standard deviation over seeds."""
    return ("+" if row.Δ >= 0 else "") + spread(row.Δ, row.sd)


def signed(value: float) -> str:
    return f"{value:+.1f}" if value == value else ""


def interval(row) -> str:
    """The 95 % interval, with what it lacks."""
    if row.low != row.low:
        return ""
    return f"{row.low:+.1f} to {row.high:+.1f}" + (
        ", one seed" if row.seeds == 1 else "" if row.people else ", seeds only"
    )


def table_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of results.effects(), with a column holm, as a table for people."""
    shown = pd.DataFrame(
        {
            "seeds": rows.seeds,
            "without": rows.without.map("{:.1f}".format),
            "with": rows["with"].map("{:.1f}".format),
            "Δ": [change(r) for r in rows.itertuples()],
            "seeds +": [f"{sum(d > 0 for d in r.deltas)} of {r.seeds}" for r in rows.itertuples()],
            "95 % interval": [interval(r) for r in rows.itertuples()],
            "p (Holm)": [f"{p:.3f}" if p == p else "" for p in rows.holm],
            "smallest": [f"{s:.1f}" if s == s else "" for s in rows.smallest],
            "Δ paper": rows.paper.map(signed),
        }
    )
    keys = [*SETTING, "benchmark", "variant", "form", "metric"]
    keys = [
        k for k in keys if k in ("source", "profile", "form", "metric") or rows[k].nunique() > 1
    ]
    return shown.set_index(pd.MultiIndex.from_frame(rows[keys]))


def dots(rows: pd.DataFrame, name: str, heading: str, what: str) -> None:
    """Δ of every cell: a dot with its interval, ticks for the seeds, a hollow diamond for the paper. A row of panels for each form.

    what: the column that names a row, "benchmark" or "variant".
    """

    def label(r):
        setting = "" if r.recipe == "paper" else f", {r.recipe}"
        return f"{r.source}, {r.profile}{setting}: {title(r.benchmark) if what == 'benchmark' else r.variant} (n = {r.seeds})"

    forms = [f for f in FORMS if f in set(rows.form)]
    labels = {
        form: list(dict.fromkeys(label(r) for r in rows[rows.form == form].itertuples()))
        for form in forms
    }
    sizes = [1 + len(labels[form]) for form in forms]
    fig, axes = plt.subplots(
        len(forms),
        2,
        figsize=(10, 1.6 + 0.4 * sum(sizes)),
        squeeze=False,
        sharex="row",
        sharey="row",
        height_ratios=sizes,
        layout="constrained",
    )
    for form, line, color in zip(forms, axes, sns.color_palette("colorblind"), strict=False):
        for ax, metric in zip(line, ("rank-1", "mAP"), strict=True):
            ax.axvline(0, color="0.3", linewidth=1)
            for r in rows[(rows.form == form) & (rows.metric == metric)].itertuples():
                y, pale = labels[form].index(label(r)), r.seeds == 1
                ax.plot(
                    [r.low, r.high],
                    [y, y],
                    color=color,
                    linewidth=4,
                    alpha=0.2 if pale else 0.5,
                    solid_capstyle="butt",
                )
                ax.plot(r.deltas, [y + 0.25] * r.seeds, "|", color=color, markersize=6)
                ax.plot(
                    r.Δ,
                    y,
                    "o",
                    color=color,
                    markersize=7,
                    markerfacecolor="white" if pale else None,
                )
                ax.plot(r.paper, y - 0.25, "D", color="black", markersize=6, markerfacecolor="none")
            ax.set(
                xlabel=f"Δ {metric} (points)",
                ylim=(len(labels[form]) - 0.4, -0.6),
                yticks=range(len(labels[form])),
                yticklabels=labels[form],
                title=f"SA as {form}: {metric}",
            )
            ax.grid(False, axis="y")
    for marker, text, filled in (
        ("ok", "our mean", True),
        ("ok", "one run", False),
        ("|k", "its seeds", True),
        ("-k", "95 % interval", True),
        ("Dk", "paper, real, one run", False),
    ):
        axes[0, 0].plot([], [], marker, label=text, markerfacecolor=None if filled else "none")
    fig.suptitle(heading)
    fig.legend(
        *axes[0, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=5,
        frameon=False,
        fontsize=9,
    )
    save_figure(fig, name)


def curves(rows: pd.DataFrame, name: str, heading: str) -> None:
    """Δ against each of the renderer's knobs, the other as frozen; a row of panels for each form and metric."""
    forms = [f for f in FORMS if f in set(rows.form)]
    fig, axes = plt.subplots(
        2 * len(forms),
        2,
        figsize=(9, 4.4 * len(forms)),
        squeeze=False,
        sharex="col",
        sharey="row",
        layout="constrained",
    )
    for column, (knob, text) in zip(axes.T, KNOBS.items(), strict=True):
        frozen, other = getattr(Settings(), knob), next(k for k in KNOBS if k != knob)
        curve = (
            rows[rows[other].isna()]
            .assign(level=rows[knob].astype(float).fillna(frozen))
            .sort_values("level")
        )
        for ax, (form, metric) in zip(
            column, [(f, m) for f in forms for m in ("rank-1", "mAP")], strict=True
        ):
            g = curve[(curve.form == form) & (curve.metric == metric)]
            ax.axhline(0, color="0.3", linewidth=1)
            ax.errorbar(
                g.level,
                g["Δ"],
                np.abs(g[["low", "high"]].values.T - g["Δ"].values),
                marker="o",
                capsize=4,
                color=sns.color_palette("colorblind")[forms.index(form)],
            )
            ax.set(title=f"SA as {form} (n = {g.seeds.min()})", ylabel=f"Δ {metric} (points)")
        column[-1].set_xlabel(text)
    fig.suptitle(heading)
    save_figure(fig, name)


def markdown(rows: pd.DataFrame, heading: str) -> list:
    """Rows of results.effects() as lines of a Markdown table; nothing for no rows."""
    if rows.empty:
        return []
    lines = [f"## {heading}", ""] + _heading(
        "source | profile, recipe | benchmark | variant | SA as | metric | seeds | without | with | "
        "Δ | 95 % interval | p (Holm) | paper's Δ"
    )
    for r in rows.itertuples():
        lines.append(
            _row(
                r.source,
                f"{r.profile}, {r.recipe}",
                title(r.benchmark),
                r.variant,
                r.form,
                r.metric,
                r.seeds,
                f"{r.without:.1f}",
                f"{r.without + r.Δ:.1f}",
                change(r),
                interval(r),
                f"{r.holm:.3f}" if r.holm == r.holm else "",
                signed(r.paper),
            )
        )
    return [*lines, ""]


def verdicts(claims: list) -> dict:
    """How many claims of each verdict."""
    return {v: sum(c["verdict"] == v for c in claims) for v in VERDICTS}


def ledger(claims: list) -> pd.DataFrame:
    """The claims (results.CLAIMS) as a table for people."""
    return pd.DataFrame(
        [
            {
                "": k,
                "place": c["place"],
                "the paper says": c["claim"],
                "tested by": c["test"],
                "verdict": c["verdict"],
                "on": c["on"],
                "found": c["found"],
                "evidence": ", ".join(c["evidence"]),
            }
            for k, c in enumerate(claims, start=1)
        ]
    )


def problems(claims: list) -> list:
    """What is wrong with a ledger: a sentence for each missing word, unknown verdict, and piece of evidence that does not exist."""
    out = []
    for c in claims:
        name, verdict, evidence = c.get("id", str(c)), c.get("verdict"), c.get("evidence", [])
        out += [
            f"{name}: {k} is empty"
            for k in ("id", "place", "claim", "test", "verdict", "found")
            if not c.get(k)
        ]
        if verdict not in VERDICTS:
            out.append(f"{name}: verdict {verdict!r}; expected one of {', '.join(VERDICTS)}")
        if verdict != "not testable here" and not (evidence and c.get("on") in DATA):
            out.append(
                f"{name}: a verdict without evidence, or without the data it is on ({', '.join(DATA)})"
            )
        out += [f"{name}: no such evidence: {e}" for e in evidence if not _exists(e)]
    return out


def _exists(evidence: str) -> bool:
    """NOTEBOOK#HEADING, a glob of records in results/, tests/FILE or tests/FILE::TEST."""
    if re.fullmatch(r"results/[\w*-]+(/[\w*-]+)?\.json", evidence):
        return any(ROOT.glob(evidence))
    if match := re.fullmatch(r"(tests/\w+\.py)(?:::(\w+))?", evidence):
        path, test = ROOT / match[1], match[2]
        return path.exists() and (test is None or f"def {test}(" in path.read_text())
    name, _, heading = evidence.partition("#")
    path = ROOT / "notebooks" / f"{name}.ipynb"
    cells = json.loads(path.read_text())["cells"] if name and path.exists() else []
    lines = [
        line.strip()
        for c in cells
        if c["cell_type"] == "markdown"
        for line in "".join(c["source"]).splitlines()
    ]
    return any(line.startswith("#") and line.lstrip("#").strip() == heading for line in lines)


def gap(rank1: float, mean_ap: float, benchmark: str, variant: str, erasing: bool) -> tuple:
    """Ours minus the paper's level in the table with the same settings; NaN where it has none. For real data only."""
    table = (
        PUBLISHED["table3"][benchmark]
        if erasing
        else PUBLISHED["table2"]
        if benchmark == "market1501"
        else {}
    )
    theirs = table.get(variant, (np.nan, np.nan))
    return rank1 - theirs[0], mean_ap - theirs[1]


def readme(records: list) -> str:
    """The README's tables: a row for each cell of Tables 3 and 2 at `laptop`, recipe `paper`, and for each cell on real data."""
    cells, effects = aggregate(results.table(records)), results.effects(records)
    cells, effects = (
        frame[frame.occlusion.isna() & frame.view_overlap.isna()] for frame in (cells, effects)
    )
    keys = ["data", *SETTING, "table", "variant", "form", "vector", "metric"]
    added = {tuple(getattr(e, k) for k in keys): e for e in effects.itertuples()}
    ours, lines = (
        cells[
            (cells.source == "rendered") & (cells.profile == "laptop") & (cells.recipe == "paper")
        ],
        [],
    )
    for table, vector in (("table3", "parts"), ("table2", "global"), ("table2", "parts")):
        erasing, benchmarks = (
            table == "table3",
            list(LAYOUTS) if table == "table3" else ["market1501"],
        )
        rows = ours[
            (ours.erasing == erasing)
            & (ours.vector == vector)
            & ours.benchmark.isin(benchmarks)
            & ours.variant.isin(PUBLISHED["table3"]["market1501"] if erasing else VARIANTS)
        ]
        with_erasing = "with" if erasing else "without"
        lines += [
            "",
            f"**Table {table[-1]}** (rendered, `laptop`, vector `{vector}`, {with_erasing} random erasing)",
            "",
        ]
        if rows.empty:
            lines += ["No run is recorded yet."]
            continue
        lines += _heading(
            "benchmark | variant | SA as | seeds | rank-1 | mAP | Δ rank-1 | Δ mAP | paper's Δ | command of a run"
        )
        for r in rows.itertuples():
            at = (r.data, *(getattr(r, key) for key in SETTING), table, r.variant, r.form, vector)
            deltas = [added.get((*at, metric)) for metric in ("rank-1", "mAP")]
            paper = ", ".join(signed(e.paper) for e in deltas if e)
            run = {
                "profile": "laptop",
                "benchmark": r.benchmark,
                "variant": r.variant,
                "form": r.form,
                "erasing": erasing,
                "threads": 1,
            }
            command = " ".join(
                ["reidsa train", *(f"--set {k}={v}" for k, v in run.items()), "--set seed=0"]
            )
            lines.append(
                _row(
                    title(r.benchmark),
                    r.variant,
                    r.form,
                    r.seeds,
                    spread(r.rank1, r.rank1_sd),
                    spread(r.mAP, r.mAP_sd),
                    *(f"{change(e)} ({interval(e)})" if e else "" for e in deltas),
                    paper,
                    f"`{command}`",
                )
            )
    lines += [
        "",
        "**Real data**, vector `parts`: the level, and the gap to the paper's Table 3 or 2; 0 epochs: direct transfer",
        "",
    ]
    lines += _heading(
        "benchmark | profile | variant | SA as | erasing | began with | epochs | seeds | rank-1 | mAP | gap rank-1, mAP"
    )
    lines += [
        _real_row(r)
        for r in cells[(cells.source == "real") & (cells.vector == "parts")].itertuples()
    ]
    return "\n".join(lines) + "\n\n"


def readme_photographs(folder: Path) -> str:
    """The README's rows of runs on photographs that began with ImageNet weights: the records of a folder, full runs only."""
    lines = [
        "",
        "**Photographs, ImageNet weights** (real Market-1501): the level, and the gap to the paper's Table 2, "
        "which is ResNet-50 at 384x128",
        "",
    ]
    records = (
        [r for r in results.read_records(folder) if not r["config"].get("held_out")]
        if folder.is_dir()
        else []
    )
    if not records:
        return "\n".join([*lines, "No run is recorded yet."]) + "\n\n"
    lines += _heading(
        "benchmark | profile | variant | SA as | erasing | began with | epochs | seeds | rank-1 | mAP | gap rank-1, mAP "
        "| vector"
    )
    cells = aggregate(results.table(records))
    cells = cells[cells.vector.isin(["global", "parts"])]  # the paper's Table 2 is not re-ranked
    lines += [f"{_real_row(r)} {r.vector} |" for r in cells.itertuples()]
    return "\n".join(lines) + "\n\n"


def _real_row(r) -> str:
    began = "nothing" if r.weights == "none" else r.weights
    form = f"{r.form}{f', {r.recipe}' if r.recipe != 'paper' else ''}{f', {r.other}' if r.other else ''}"
    return _row(
        title(r.benchmark),
        r.profile,
        r.variant,
        form,
        "yes" if r.erasing else "no",
        began,
        r.epochs,
        r.seeds,
        spread(r.rank1, r.rank1_sd),
        spread(r.mAP, r.mAP_sd),
        ", ".join(signed(g) for g in gap(r.rank1, r.mAP, r.benchmark, r.variant, r.erasing)),
    )


def _row(*values) -> str:
    return "| " + " | ".join(map(str, values)) + " |"


def _heading(text: str) -> list:
    return [f"| {text} |", "|" + "---|" * (text.count("|") + 1)]


def readme_claims(claims: list) -> str:
    """The README's summary of the ledger: how many of each verdict, and all of them in a fold."""
    lines = ["", *_heading("verdict | claims | such as")]
    for verdict, n in verdicts(claims).items():
        some = [
            f"{c['claim']} ({c['place']})"
            for c in claims
            if c["verdict"] == verdict and c.get("shown")
        ]
        lines.append(_row(f"**{verdict}**", n, "; ".join(some)))
    lines += [
        "",
        f"<details><summary>All {len(claims)}</summary>",
        "",
        *_heading("place | the paper says | verdict | on | found"),
    ]
    lines += [_row(c["place"], c["claim"], c["verdict"], c["on"], c["found"]) for c in claims]
    return "\n".join([*lines, "", "</details>"]) + "\n\n"


def write_readme(path: Path = ROOT / "README.md") -> None:
    """Put the tables made from results/ and the summary of the claims between their marks in the README."""
    text = path.read_text()
    made = {
        "claims": readme_claims(results.CLAIMS),
        "tables": readme(results.read_records(ROOT / "results")),
        "photographs": readme_photographs(ROOT / "results" / "photographs"),
    }
    for name, block in made.items():
        before, start, rest = text.partition(MARKS[0].format(name))
        _, end, after = rest.partition(MARKS[1].format(name))
        if not (start and end):
            marks = f"{MARKS[0].format(name).strip()} and {MARKS[1].format(name)}"
            raise InputError(
                f"{path} has lost the marks between which its {name} stand; restore {marks}"
            )
        text = before + start + block + end + after
    write_atomic(path, text.encode())
