"""Figures of appendix 06a: scores of all draws, their components, and how many seeds they need."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..experiments.variance import smallest_effect
from .style import LOOKS

MOST_SEEDS = 60  # of the axis of draw_power()


def draw_scores(scores: np.ndarray, heading: str) -> Figure:
    """Draw the scores of all networks on all populations: a row for each network.

    scores: (populations, seeds, populations), in percent. A frame marks the scores at home.
    """
    n, S, _ = scores.shape
    fig, ax = plt.subplots(figsize=(7.5, 5.5), layout="constrained")
    picture = ax.imshow(scores.reshape(n * S, n), cmap="viridis", aspect="auto")
    for row, of_network in enumerate(scores.reshape(n * S, n)):
        for column, score in enumerate(of_network):
            dark = picture.norm(score) < 0.6
            ax.text(
                column,
                row,
                f"{score:.1f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else "black",
            )
    for d in range(n):
        ax.axhline(d * S - 0.5, color="white", linewidth=2)
        frame = {"facecolor": "none", "edgecolor": "C1", "linewidth": 2.5}
        ax.add_patch(plt.Rectangle((d - 0.48, d * S - 0.45), 0.96, S - 0.1, **frame))
    ax.set(
        xticks=range(n),
        yticks=range(n * S),
        yticklabels=[f"{d}, seed {s}" for d in range(n) for s in range(S)],
        xlabel="tested on population",
        ylabel="trained on population",
        title=heading,
    )
    ax.grid(visible=False)
    fig.colorbar(picture, ax=ax, label="mAP (%)")
    return fig


def draw_components(tables: Mapping[str, pd.DataFrame], heading: str) -> Figure:
    """Draw standard deviations with their intervals, a panel for each score.

    tables: {what the score is: as variance.components() returns them}, all with the same rows.
    """
    shared = {"sharex": True, "sharey": True, "squeeze": False}
    fig, axes = plt.subplots(1, len(tables), figsize=(10, 3.2), layout="constrained", **shared)
    for ax, (name, table) in zip(axes[0], tables.items(), strict=True):
        y = range(len(table))
        below_above = [table.sd - table.low, table.high - table.sd]
        # A negative estimate counts as 0, and its interval may begin above it.
        below_above = np.maximum(below_above, 0)
        ax.errorbar(table.sd, y, xerr=below_above, fmt="o", capsize=3, color="C0")
        ax.set(title=name, yticks=y, yticklabels=table.index, xlim=(0, None))
    axes[0, 0].invert_yaxis()
    fig.supxlabel("standard deviation of the mAP (points)", fontsize=11)
    fig.suptitle(heading)
    return fig


def draw_power(spreads: Mapping[str, Mapping], paper: float, heading: str) -> Figure:
    """Draw the smallest difference that is found with a power of 80 % against the seeds.

    spreads: {form: variance.seed_at_home()}, of its difference from no SA; the band is that of the
    interval. paper: the paper's gain, a dashed line; a dotted line is at one point.
    """
    seeds = np.arange(2, MOST_SEEDS + 1)
    unit = np.array([smallest_effect(1.0, int(n)) for n in seeds])  # it grows with the sd
    fig, ax = plt.subplots(figsize=(8, 4), layout="constrained")
    for form, spread in spreads.items():
        look = LOOKS[form]
        ax.plot(seeds, unit * spread["sd"], color=look.color, label=f"{look.name} − no SA")
        low, high = unit * spread["low"], unit * spread["high"]
        ax.fill_between(seeds, low, high, color=look.color, alpha=0.15)
    ax.axhline(paper, color="0.3", linestyle="--", linewidth=1)
    ax.axhline(1, color="0.3", linestyle=":", linewidth=1)
    ticks = [0.5, 1, 2, 5, 10, 20, 50]
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="seeds",
        ylabel="smallest difference found (points of mAP)",
        title=heading,
        xticks=[2, 3, 5, 10, 20, 50],
        yticks=ticks,
    )
    ax.set_xticklabels([2, 3, 5, 10, 20, 50])
    ax.set_yticklabels(ticks)
    ax.minorticks_off()
    ax.set_ylim(0.4, 60)
    ax.legend(frameon=False)
    return fig
