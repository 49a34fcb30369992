"""What the sliders of the notebooks draw. Each function takes plain numbers and returns a figure.

The defaults are where the sliders begin, and what the static picture shows. The figures belong to
no pyplot window, so that a slider shows the one that is returned, once.
"""

import numpy as np
import torch
from matplotlib.figure import Figure

from ..attention import attended_pool, attention_weights, effective_cells
from ..figures.drawings import numbered_map
from ..figures.style import FRAMES

SECOND_CHANNEL = ((1.0, 0.0), (2.0, 0.0))
LONGEST = 12  # images of the list in notebook 03


def weights_at(
    T: float = 1.0,
    upper_left: float = 2.0,
    upper_right: float = 0.0,
    lower_left: float = 0.0,
    lower_right: float = 1.0,
) -> Figure:
    """Notebook 01: a map of two channels, its softmax weights at temperature T, and what it pools.

    The four numbers are channel 1; channel 2 is SECOND_CHANNEL.
    """
    first = [[upper_left, upper_right], [lower_left, lower_right]]
    f = torch.tensor([first, SECOND_CHANNEL], dtype=torch.float64)  # (2, 2, 2)
    p = attention_weights(f[None], "softmax", temperature=T)[0]
    G = attended_pool(f[None], "softmax", temperature=T)[0].tolist()
    positions = effective_cells(p[None]).item()
    fig = Figure(figsize=(8, 2.9), layout="constrained")
    axes = fig.subplots(1, 4)
    largest = max(2.0, f.sum(0).max().item())
    panels = {"channel 1": f[0], "channel 2": f[1], "A, their sum": f.sum(0)}
    for ax, (title, values) in zip(axes, panels.items(), strict=False):
        numbered_map(ax, values, title, top=2 * largest)
    numbered_map(axes[3], p, "p, the weights", "Blues", 1.5)
    fig.suptitle(
        f"T = {T:.3g}: G = ({G[0]:.2f}, {G[1]:.2f}), {positions:.2f} of 4 positions effective",
        fontsize=12,
    )
    return fig


def separate_places(places: list[int], longest: int = LONGEST) -> list[int]:
    """Places of matches in a list, ascending; one that is taken moves to the next free one."""
    taken = []
    for place in sorted(places):
        while place in taken:
            place = place % longest + 1
        taken.append(place)
    return sorted(taken)


def matches_at(first: int = 2, second: int = 3, third: int = 4) -> Figure:
    """Notebook 03: a ranked list of twelve with three matches, its precisions and its scores."""
    ranks = np.array(separate_places([first, second, third]))
    h = np.arange(1, 4)
    before = np.where(ranks > 1, (h - 1) / np.maximum(ranks - 1, 1), 1.0)
    step = np.mean(h / ranks)
    trapezoid = np.mean((before + h / ranks) / 2)
    fig = Figure(figsize=(9, 2.6), layout="constrained")
    ax = fig.subplots()
    for rank in range(1, LONGEST + 1):
        is_match = rank in ranks
        color = FRAMES["match" if is_match else "error"]
        ax.bar(rank, 1, width=0.9, color=color, hatch="" if is_match else "//", edgecolor="white")
        if is_match:
            found = int((ranks <= rank).sum())
            ax.text(rank, 1.08, f"{found}/{rank}", ha="center", fontsize=11)
    ax.set(xticks=range(1, LONGEST + 1), yticks=[], ylim=(0, 1.4), xlabel="rank")
    for side in ("left", "right", "top"):
        ax.spines[side].set_visible(False)
    fig.suptitle(
        f"rank-1 {100 * (ranks[0] == 1):.0f} %, AP {step:.3f} (step), {trapezoid:.3f} (trapezoid)",
        fontsize=12,
    )
    return fig
