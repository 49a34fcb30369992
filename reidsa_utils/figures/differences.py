"""Differences between networks: dots, pooled effects, single changes, and curves along a knob."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from ..attention import FORMS
from ..datasets.rendered import Settings
from ..experiments.statistics import MARGIN
from ..experiments.tables import title
from .style import LOOKS, save_figure

# The renderer's knobs, with a label for an axis.
KNOBS = {
    "occlusion": "share of images with an occluder",
    "view_overlap": "view overlap (0: a camera sees one side; 1: all)",
}
PANELS = ("rank-1", "mAP")


def dots(rows: pd.DataFrame, name: str, heading: str, what: str, shows=None) -> None:
    """Draw Δ of every setting and save the figure, with a row of panels for each form.

    A setting is a dot with its interval, ticks for the seeds, and a hollow diamond for the paper.
    rows: of pairing.effects(); name: of the file.
    what: the column that names a line, "benchmark" or "variant".
    shows: as in save_figure().
    """
    forms = _forms_of(rows)
    labels = {}
    for form in forms:
        of_form = rows[rows.form == form]
        # Each label once, in the order of the rows.
        labels[form] = list(dict.fromkeys(_label(row, what) for row in of_form.itertuples()))
    heights = [1 + len(labels[form]) for form in forms]
    fig, axes = plt.subplots(
        len(forms),
        len(PANELS),
        figsize=(10, 1.6 + 0.4 * sum(heights)),
        squeeze=False,
        sharex="row",
        sharey="row",
        height_ratios=heights,
        layout="constrained",
    )
    for form, panels in zip(forms, axes, strict=True):
        for ax, metric in zip(panels, PANELS, strict=True):
            ax.axvline(0, color="0.3", linewidth=1)
            for row in rows[(rows.form == form) & (rows.metric == metric)].itertuples():
                _dot(ax, row, labels[form].index(_label(row, what)), LOOKS[form].color)
            ax.set(
                xlabel=f"Δ {metric} (points)",
                ylim=(len(labels[form]) - 0.4, -0.6),
                yticks=range(len(labels[form])),
                yticklabels=labels[form],
                title=f"SA as {form}: {metric}",
            )
            ax.grid(False, axis="y")
    _legend_of_dots(fig, axes[0, 0])
    fig.suptitle(heading)
    save_figure(fig, name, shows)


def _forms_of(rows: pd.DataFrame) -> list:
    """The forms of attention in some rows, in a fixed order."""
    return [form for form in FORMS if form in set(rows.form)]


def _label(row, what: str) -> str:
    """The label of a line of dots()."""
    subject = title(row.benchmark)
    if what == "variant":  # Table 2 is of Market-1501
        subject = row.variant if row.benchmark == "market1501" else f"{subject}, {row.variant}"
    recipe = "" if row.recipe == "paper" else f", {row.recipe}"
    other = f", {row.other}" if row.other else ""
    return f"{row.source}, {row.profile}{recipe}{other}: {subject} (n = {row.seeds})"


def _dot(ax, row, y: int, color) -> None:
    """One line of dots(): the interval, the seeds, their mean, and the paper's difference."""
    one_run = row.seeds == 1
    ax.plot(
        [row.low, row.high],
        [y, y],
        color=color,
        linewidth=4,
        alpha=0.2 if one_run else 0.5,
        solid_capstyle="butt",
    )
    ax.plot(row.deltas, [y + 0.25] * row.seeds, "|", color=color, markersize=6)
    face = "white" if one_run else None
    ax.plot(row.Δ, y, "o", color=color, markersize=7, markerfacecolor=face)
    ax.plot(row.paper, y - 0.25, "D", color="black", markersize=6, markerfacecolor="none")


def _legend_of_dots(fig, ax) -> None:
    """The legend below the panels, made from empty lines in one of them."""
    ax.plot([], [], "ok", label="our mean")
    ax.plot([], [], "ok", label="one run", markerfacecolor="none")
    ax.plot([], [], "|k", label="its seeds")
    ax.plot([], [], "-k", label="95 % interval")
    ax.plot([], [], "Dk", label="paper, on real data", markerfacecolor="none")
    handles, labels = ax.get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=9)


def forest(found: dict, name: str, heading: str, shows=None) -> None:
    """Draw effects pooled from several settings as a forest plot, and save the figure.

    A row of panels for each form, a column for each metric. A setting is a dot with its 95 %
    interval and the paper's difference as a hollow diamond. The pooled effect is a filled diamond
    as wide as its interval; the thin line through it is the range for a new setting. Differences in
    the grey band count as none.
    found: {(form, metric): pairing.pooled()}; name: of the file. shows: as in save_figure().
    """
    forms = [form for form in FORMS if any(form == key[0] for key in found)]
    most = {form: max(v["settings"] for k, v in found.items() if k[0] == form) for form in forms}
    fig, axes = plt.subplots(
        len(forms),
        len(PANELS),
        figsize=(10, 1.2 + sum(1.0 + 0.42 * n for n in most.values())),
        squeeze=False,
        sharex="row",
        sharey="row",
        height_ratios=[2 + n for n in most.values()],
        layout="constrained",
    )
    for form, panels in zip(forms, axes, strict=True):
        for ax, metric in zip(panels, PANELS, strict=True):
            if (form, metric) in found:
                _forest_panel(ax, found[form, metric], LOOKS[form].color)
            ax.set(xlabel=f"Δ {metric} (points)", title=f"SA as {form}: {metric}")
    fig.suptitle(heading)
    save_figure(fig, name, shows)


def _forest_panel(ax, effect: dict, color) -> None:
    """The settings of one pooled effect, and below them the effect itself."""
    ax.axvspan(-MARGIN, MARGIN, color="0.9", zorder=0)
    ax.axvline(0, color="0.3", linewidth=1)
    labels = []
    for y, row in enumerate(effect["rows"]):
        ax.plot([row["low"], row["high"]], [y, y], color=color, linewidth=3, alpha=0.5)
        ax.plot(row["Δ"], y, "o", color=color, markersize=7)
        ax.plot(row["paper"], y - 0.25, "D", color="black", markersize=6, markerfacecolor="none")
        erasing = "" if row["erasing"] else ", no erasing"
        labels.append(
            f"{title(row['benchmark'])}, {row['profile']}, {row['variant']}{erasing} "
            f"(n = {row['seeds']})"
        )
    y = len(labels)
    predicted = [effect["predicted_low"], effect["predicted_high"]]
    ax.plot(predicted, [y, y], color="black", linewidth=1)
    middle = effect["Δ"]
    ax.fill(
        [effect["low"], middle, effect["high"], middle],
        [y, y - 0.3, y, y + 0.3],
        color=color,
        edgecolor="black",
        zorder=3,
    )
    labels.append("all settings together")
    ax.set(yticks=range(y + 1), yticklabels=labels, ylim=(y + 0.6, -0.6))
    ax.grid(False, axis="y")


def one_change(
    rows: pd.DataFrame, noise: float, name: str, heading: str, shows=None, large: float = 8.0
) -> None:
    """Draw what single changes do to the mAP, a line each, and save the figure.

    Changes larger than `large` points are in a panel of their own, with a scale of their own, so
    that the others can be read. Red: the interval excludes zero. The grey band is +-noise.
    rows: columns of statistics.difference(), "change" and "vector"; noise: the standard deviation
    of the difference between two trainings of the same function, in points, NaN if it is not
    measured. name, heading: of the figure; shows: as in save_figure().
    """
    is_large = rows["Δ"].abs() > large
    panels = [panel for panel in (rows[is_large], rows[~is_large]) if len(panel)]
    fig, axes = plt.subplots(
        len(panels),
        1,
        figsize=(10, 1.8 + 0.36 * len(rows)),
        height_ratios=[len(panel) + 1 for panel in panels],
        squeeze=False,
        layout="constrained",
    )
    blue, _, _, red = sns.color_palette("colorblind")[:4]
    alike = rows.seeds.nunique() == 1 and rows.seeds.iloc[0] > 1
    for ax, panel in zip(axes[:, 0], panels, strict=True):
        if np.isfinite(noise):
            ax.axvspan(-noise, noise, color="0.85")
        ax.axvline(0, color="0.3", linewidth=1)
        names = []
        for y, row in enumerate(panel.itertuples()):
            color = blue if row.low <= 0 <= row.high else red
            ax.plot([row.low, row.high], [y, y], color=color, linewidth=4, alpha=0.45)
            ax.plot(row.deltas, [y] * row.seeds, "|", color="0.2", markersize=9)
            ax.plot(row.Δ, y, "o", color=color, markersize=7)
            notes = [] if alike else ["1 seed" if row.seeds == 1 else f"{row.seeds} seeds"]
            notes += ["vector global"] if row.vector == "global" else []
            names.append(row.change + (f" ({', '.join(notes)})" if notes else ""))
        ax.grid(False, axis="y")
        ax.set(yticks=range(len(panel)), yticklabels=names, ylim=(-0.6, len(panel) - 0.4))
    interval = f"interval of {rows.seeds.iloc[0]} seeds" if alike else "interval"
    axes[-1, 0].set(xlabel=f"Δ mAP (points) with 95 % {interval}; each panel has its own scale")
    fig.suptitle(heading)
    save_figure(fig, name, shows)


def curves(rows: pd.DataFrame, name: str, heading: str, shows=None) -> None:
    """Draw Δ against each of the renderer's knobs, the other at its default; save the figure.

    A row of panels for each form and metric, a column for each knob.
    rows: of pairing.effects(); name: of the file. shows: as in save_figure().
    """
    forms = _forms_of(rows)
    fig, axes = plt.subplots(
        2 * len(forms),
        len(KNOBS),
        figsize=(9, 4.4 * len(forms)),
        squeeze=False,
        sharex="col",
        sharey="row",
        layout="constrained",
    )
    for column, (knob, label) in zip(axes.T, KNOBS.items(), strict=True):
        curve = _along(rows, knob)
        panels = iter(column)
        for form in forms:
            for metric in PANELS:
                ax = next(panels)
                points = curve[(curve.form == form) & (curve.metric == metric)]
                below_above = np.abs(points[["low", "high"]].values.T - points["Δ"].values)
                ax.axhline(0, color="0.3", linewidth=1)
                ax.errorbar(
                    points.level,
                    points["Δ"],
                    below_above,
                    marker="o",
                    capsize=4,
                    color=LOOKS[form].color,
                )
                ax.set(
                    title=f"SA as {form} (n = {points.seeds.min()})",
                    ylabel=f"Δ {metric} (points)",
                )
        column[-1].set_xlabel(label)
    fig.suptitle(heading)
    save_figure(fig, name, shows)


def _along(rows: pd.DataFrame, knob: str) -> pd.DataFrame:
    """The rows in which no other knob is turned, by the level of this one."""
    frozen = getattr(Settings(), knob)
    [other] = [name for name in KNOBS if name != knob]
    level = rows[knob].astype(float).fillna(frozen)
    return rows[rows[other].isna()].assign(level=level).sort_values("level")
