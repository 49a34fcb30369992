"""Figures of notebook 07: maps over people, ranked lists with maps, measures as forest plots."""

from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .. import InputError
from ..experiments.map_measures import positive
from ..support.arrays import as_array, check_number
from ..support.opencv import cv2
from .style import FRAMES, LOOKS, Look

TOP = 6  # in times a flat map: this value and larger ones have the last colour
# A perceptually uniform colour map. Larger values are lighter, so it can be read in grey.
HEAT = "magma"
SIGNS = {"match": "✓", "error": "✗"}


def overlay(
    image: np.ndarray, cam: np.ndarray, top: float | None = None, strength: float = 0.7
) -> np.ndarray:
    """A map over its image in grey, in the colours of HEAT.

    image: (H, W, 3) uint8; cam: (h, w), negative values show as zero.
    top: this value and larger ones have the last colour. Use the same top in pictures that are
    compared. None takes the map's own peak.
    strength: the share of the colour.
    Returns (H, W, 3) uint8.
    Raises InputError for other shapes and types.
    """
    image = np.array(as_array(image))
    cam = as_array(cam)
    check_number("strength", strength, 0, 1)
    is_image = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    if not is_image or cam.ndim != 2 or not cam.size:
        raise InputError(
            f"an image of {image.dtype}, {image.shape}, and a map {cam.shape}; expected (H, W, 3) "
            "uint8 RGB and (h, w)"
        )
    if top is None:
        top = np.max(cam)
    check_number("top", top, -np.inf, np.inf)
    heat = np.clip(cam, 0, None) / max(top, 1e-12)
    heat = np.clip(heat, 0, 1).astype(np.float32)
    height, width = image.shape[:2]
    heat = cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR)
    color = (plt.get_cmap(HEAT)(heat)[..., :3] * 255).astype(np.uint8)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return (grey * (1 - strength) + color * strength).astype(np.uint8)


class Panel(NamedTuple):
    """One small picture: an image, with a map over it or without, a title and a frame."""

    image: np.ndarray  # (H, W, 3) uint8
    map: object = None  # (h, w), or None
    title: str = ""
    kind: str = ""  # a key of FRAMES: the colour of frame and title


def draw_panels(rows: list, heading: str, labels=None, size=None) -> Figure:
    """Draw rows of panels with one scale of colours for all maps.

    rows: lists of Panel, all of one length; None leaves a narrow gap, in all rows at one place.
    labels: one for each row. size: (width, height) in inches.
    """
    columns = len(rows[0])
    widths = [0.25 if panel is None else 1 for panel in rows[0]]
    fig, axes = plt.subplots(
        len(rows),
        columns,
        figsize=size or (0.95 * sum(widths) + 1.2, 2.75 * len(rows) + 0.5),
        gridspec_kw={"width_ratios": widths},
        squeeze=False,
        layout="constrained",
    )
    for line, row in zip(axes, rows, strict=True):
        for ax, panel in zip(line, row, strict=True):
            if panel is None:
                ax.set_axis_off()
            else:
                draw_panel(ax, panel)
    for ax, label in zip(axes[:, 0], labels or [], strict=False):
        ax.set_ylabel(label, fontsize=10)
    if any(panel is not None and panel.map is not None for row in rows for panel in row):
        scale_bar(fig, axes)
    fig.suptitle(heading, fontsize=12)
    return fig


def draw_panel(ax, panel: Panel) -> None:
    """Draw one small picture into axes, as draw_panels() does."""
    picture = cv2.resize(panel.image, (128, 384), interpolation=cv2.INTER_CUBIC)
    if panel.map is not None:
        picture = overlay(picture, times_flat(panel.map), TOP)
    ax.imshow(picture)
    ax.set(xticks=[], yticks=[])
    color = FRAMES.get(panel.kind, "black")
    ax.set_title(panel.title, fontsize=9, color=color)
    if panel.kind:
        for spine in ax.spines.values():
            spine.set(color=color, linewidth=3.5)


def times_flat(m) -> np.ndarray:
    """The positive part of a map (h, w), divided by a flat map of the same sum: (h, w).

    Zero everywhere for a map without a positive value.
    """
    return np.nan_to_num(positive(m[None])[0].numpy() * m.numel())


def scale_bar(fig, axes) -> None:
    """Add a colour bar for the maps, with the colours as they look over a medium grey."""
    grey = np.full((1, 256, 3), 110, np.uint8)
    values = np.linspace(0, TOP, 256)[None]
    mixed = overlay(grey, values, TOP)[0] / 255
    scale = plt.cm.ScalarMappable(plt.Normalize(0, TOP), ListedColormap(mixed))
    bar = fig.colorbar(
        scale,
        ax=axes,
        label="times a flat map",
        ticks=[0, 1, 3, TOP],
        fraction=0.025,
        aspect=40,
    )
    bar.ax.set_yticklabels(["0", "1", "3", f"{TOP}+"])


def listed(images: np.ndarray, are_matches) -> list[Panel]:
    """The first images of a ranked list as panels: framed, with rank and sign.

    images: (N, H, W, 3) uint8. are_matches: (N,) bool.
    """
    panels = []
    for rank, (image, is_match) in enumerate(zip(images, are_matches, strict=True), 1):
        kind = "match" if is_match else "error"
        panels.append(Panel(image, title=f"{rank} {SIGNS[kind]}", kind=kind))
    return panels


class Measure(NamedTuple):
    """One panel of draw_forest()."""

    title: str
    found: dict  # {form: a statistics.difference() for each group of lines, such as a stage}
    unit: str = "Δ, points"
    zero: bool = True  # a line at zero
    marks: dict | None = None  # values to compare with, {label: [x or {form: x} for each group]}


def draw_forest(measures: list, groups: list, heading: str) -> Figure:
    """Draw measures of maps as a forest plot: a panel each, lines for groups and forms.

    A symbol is a mean over the seeds, a bar its 95 % interval, a tick a seed.
    measures: a list of Measure. groups: names of the groups of lines, such as stages.
    """
    forms = [form for form in LOOKS if any(form in m.found for m in measures)]
    height = 1.6 + 0.2 * len(groups) * (len(forms) + 1)
    fig, axes = plt.subplots(
        1,
        len(measures),
        figsize=(2.35 * len(measures) + 1, height),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for ax, measure in zip(axes[0], measures, strict=True):
        if measure.zero:
            ax.axvline(0, color="0.3", linewidth=1)
        for g in range(len(groups)):
            for k, form in enumerate(forms):
                if form in measure.found:
                    y = g * (len(forms) + 1) + k
                    _forest_line(ax, measure.found[form][g], y, LOOKS[form])
        ax.set(xlabel=measure.unit)
        ax.set_title(measure.title, fontsize=10)
        ax.grid(axis="x", color="0.9")
        ax.set_axisbelow(True)
        _yardsticks(ax, measure, groups, forms)
    middles = [g * (len(forms) + 1) + (len(forms) - 1) / 2 for g in range(len(groups))]
    bottom = len(groups) * (len(forms) + 1) - 1.3
    axes[0, 0].set(yticks=middles, yticklabels=groups, ylim=(bottom, -0.8))
    _forest_legend(fig, forms, measures)
    fig.suptitle(heading, fontsize=12)
    return fig


def _forest_line(ax, row: dict, y: float, look: Look) -> None:
    """The interval of one difference, its seeds and its mean."""
    interval = [row["low"], row["high"]]
    ax.plot(interval, [y, y], color=look.color, linewidth=4, alpha=0.45, solid_capstyle="butt")
    ax.plot(row["deltas"], [y] * len(row["deltas"]), "|", color="black", markersize=5)
    ax.plot(row["Δ"], y, look.marker, color=look.color, markersize=6, markeredgecolor="black")


def _yardsticks(ax, measure: Measure, groups: list, forms: list) -> None:
    """The marks of a panel: a line through a whole group, or a cross beside a form."""
    for values in (measure.marks or {}).values():
        for g, value in enumerate(values):
            first = g * (len(forms) + 1)
            if isinstance(value, dict):
                for k, form in enumerate(forms):
                    if form in value:
                        ax.plot(value[form], first + k, "x", color="black", markersize=6)
            else:
                ends = [first - 0.4, first + len(forms) - 0.6]
                ax.plot([value, value], ends, color="black", linewidth=1.5, linestyle="--")


def _forest_legend(fig, forms: list, measures: list) -> None:
    """The legend below the panels: the forms, the ticks and the marks."""
    lines = []
    for form in forms:
        look = LOOKS[form]
        line = Line2D([], [], color=look.color, marker=look.marker, linewidth=4, label=look.name)
        line.set_markeredgecolor("black")
        lines.append(line)
    lines.append(Line2D([], [], marker="|", color="black", linestyle="", label="one seed"))
    for measure in measures:
        for label, values in (measure.marks or {}).items():
            if isinstance(values[0], dict):
                lines.append(Line2D([], [], marker="x", color="black", linestyle="", label=label))
            else:
                lines.append(Line2D([], [], color="black", linestyle="--", label=label))
    fig.legend(handles=lines, loc="outside lower center", ncols=len(lines), frameon=False)
