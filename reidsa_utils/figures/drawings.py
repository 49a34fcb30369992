"""Drawings of notebooks 01 and 02: small maps with numbers, boxes with arrows, curves of trainings.

Every function takes numbers that the notebook has computed and returns a figure; none computes a
result of its own. `style.save_figure` writes it.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from .style import LOOKS

# The forms of attention that notebooks 01 and 02 compare, with the words for a legend.
FORM_LABELS = {
    "none": "GAP (no SA)",
    "softmax": "SA: softmax, eq. 1",
    "l1": "SA: l1, released code",
}

YELLOW, GREEN, GREY = "#f7e3a1", "#9fd8b4", "#e4e4e4"


def lineup(query: np.ndarray, gallery: list) -> Figure:
    """The picture that is searched for, and beside it the numbered pictures to choose from.

    query: (H, W, 3) uint8; gallery: a list of such pictures.
    """
    ratios = [1, 0.35] + [1] * len(gallery)
    fig, axes = plt.subplots(1, len(ratios), figsize=(9, 2.7), width_ratios=ratios)
    axes[1].set_axis_off()
    axes[0].imshow(query)
    axes[0].set_title("query", fontsize=11)
    for k, (ax, image) in enumerate(zip(axes[2:], gallery, strict=True), 1):
        ax.imshow(image)
        ax.set_title(f"{k}", fontsize=11)
    for ax in axes:
        ax.set(xticks=[], yticks=[])
    for spine in axes[0].spines.values():
        spine.set(color="#de8f05", linewidth=3)
    fig.suptitle("Which of the numbered pictures show the person of the query?", fontsize=12)
    fig.tight_layout(w_pad=0.3)
    return fig


def layer_with_numbers(f, A, p, F) -> Figure:
    """The paper's Fig. 4 with the numbers of a map of two channels and 2 x 2 positions.

    f, F: (2, 2, 2); A, p: (2, 2).
    """
    fig = plt.figure(figsize=(10, 4.4))
    left_edge = [0.02, 0.28, 0.54, 0.82]  # of each column, in shares of the figure
    bottom_edge = [0.52, 0.04, 0.28]  # of the upper row, the lower row and the middle

    def panel(column, row):
        return fig.add_axes([left_edge[column], bottom_edge[row], 0.15, 0.34])

    inputs = [panel(0, k) for k in range(2)]
    sums, weights = panel(1, 2), panel(2, 2)
    outputs = [panel(3, k) for k in range(2)]
    for k in range(2):
        numbered_map(inputs[k], f[k], f"$f_{k + 1}$")
        numbered_map(outputs[k], F[k], f"$F_{k + 1} = f_{k + 1} \\cdot p$")
    numbered_map(sums, A, "$A = f_1 + f_2$")
    numbered_map(weights, p, "$p$, sums to 1", cmap="Blues", top=1)
    fig.canvas.draw()
    _arrow(fig, inputs[0], sums, "sum over")
    _arrow(fig, inputs[1], sums, "channels")
    _arrow(fig, sums, weights, "softmax over\npositions")
    _arrow(fig, weights, outputs[0], "times $f_1$")
    _arrow(fig, weights, outputs[1], "times $f_2$")
    share = 100 * float(np.asarray(p).max())
    fig.suptitle(
        f"Fig. 4 with numbers: one position takes {share:.0f} % of the weight", fontsize=12, y=1.02
    )
    return fig


def numbered_map(ax, values, title: str, cmap: str = "Greys", top: float = 3.0) -> None:
    """A small map in grey or colour, with its numbers written on it."""
    values = np.asarray(values)
    ax.imshow(values, cmap=cmap, vmin=0, vmax=top)
    for (i, j), value in np.ndenumerate(values):
        number = f"{value:.2f}".rstrip("0").rstrip(".")
        color = "white" if value > 0.6 * top else "black"
        ax.text(j, i, number, ha="center", va="center", color=color, fontsize=11)
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=11)


def _arrow(fig: Figure, a, b, words: str) -> None:
    """An arrow from the right edge of one panel to the left edge of another, with its words."""
    box_a, box_b = a.get_position(), b.get_position()
    start = (box_a.x1 + 0.008, (box_a.y0 + box_a.y1) / 2)
    end = (box_b.x0 - 0.008, (box_b.y0 + box_b.y1) / 2)
    line = FancyArrowPatch(
        start,
        end,
        transform=fig.transFigure,
        arrowstyle="-|>",
        mutation_scale=14,
        color="black",
    )
    fig.patches.append(line)
    x = (start[0] + end[0]) / 2
    y = (start[1] + end[1]) / 2
    # The words stand above a level arrow, and on a slanting one.
    if abs(start[1] - end[1]) < 0.01:
        fig.text(x, y + 0.03, words, ha="center", va="bottom", fontsize=9)
    else:
        paper = {"fc": "white", "ec": "none", "pad": 2}
        fig.text(x, y, words, ha="center", va="center", fontsize=9, bbox=paper)


def two_heads() -> Figure:
    """The paper's Fig. 2: the head with average pooling, and the head with SA in front of it."""
    map_f = ("map $f$\n(C, H, W)", YELLOW)
    attention = ("SA\n0 parameters", GREEN)
    map_F = ("map $F$\n(C, H, W)", YELLOW)
    rest = [("sum over\npositions", GREY), ("$G$\n(C)", YELLOW), ("FC layer\n$w_k^c$", GREY)]
    rest.append(("logits $S_c$", YELLOW))
    fig, ax = plt.subplots(figsize=(10, 2.8))
    _chain(ax, 0.78, [map_f, *rest])
    _chain(ax, 0.28, [map_f, attention, map_F, *rest])
    ax.text(0, 0.95, "GAP (eq. 4)", fontsize=10, weight="bold")
    ax.text(0, 0.45, "SA, then the same sum (eq. 6)", fontsize=10, weight="bold")
    ax.set(xlim=(0, 1), ylim=(0.1, 1.05))
    ax.set_axis_off()
    fig.suptitle("Fig. 2: SA is one more box in front of the pooling", fontsize=12)
    return fig


def _chain(ax, y: float, boxes: list) -> None:
    """A row of boxes with arrows between them; boxes: (words, colour); x runs from 0 to 1."""
    n = len(boxes)
    for i, (words, color) in enumerate(boxes):
        x = (i + 0.5) / n
        _box(ax, x, y, 0.80 / n, 0.18, words, color)
        if i > 0:
            _line(ax, (x - 0.59 / n, y), (x - 0.41 / n, y))


def _box(ax, x: float, y: float, width: float, height: float, words: str, color: str) -> None:
    """A box with words, around its middle (x, y)."""
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0.005"
    ax.add_patch(FancyBboxPatch(corner, width, height, boxstyle=style, fc=color, ec="black"))
    ax.text(x, y, words, ha="center", va="center", fontsize=9)


def _line(ax, start: tuple, end: tuple) -> None:
    """An arrow from one point to another."""
    style = {"arrowstyle": "-|>", "mutation_scale": 12, "color": "black"}
    ax.add_patch(FancyArrowPatch(start, end, **style))


def weight_patterns(patterns: dict, p) -> Figure:
    """The factors by which each head multiplies the activations, for one class, by channel.

    patterns: {title: (C, H, W)}; p: {title: (H, W)}, the weights of positions, for heads that have
    them. Both are in multiples of the weight of average pooling.
    """
    channels = len(next(iter(patterns.values())))
    fig, axes = plt.subplots(channels + 1, len(patterns), figsize=(8, 6.6), layout="constrained")
    for column, (title, pattern) in zip(axes.T, patterns.items(), strict=True):
        if title in p:
            weights = column[0].imshow(np.asarray(p[title]), cmap="Greens", vmin=0, vmax=3)
        else:
            column[0].set_axis_off()
        column[0 if title in p else 1].set_title(title, fontsize=11)
        for ax, values in zip(column[1:], pattern, strict=True):
            shown = ax.imshow(np.asarray(values), cmap="RdBu_r", vmin=-2.5, vmax=2.5)
    for k in range(channels):
        axes[k + 1, 0].set_ylabel(f"channel {k + 1}", fontsize=10)
    first_with_p = list(patterns).index(next(iter(p)))
    axes[0, first_with_p].set_ylabel("$p$", fontsize=12, rotation=0, labelpad=12)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    fig.colorbar(weights, ax=axes[0], label="$p$ in times $1/HW$")
    fig.colorbar(shown, ax=axes[1:], label="weight of $f_k(i,j)$ in the logit", shrink=0.8)
    fig.suptitle("SA: one pattern for all channels, another one for each image", fontsize=12)
    return fig


def moved_positions(before: np.ndarray, after: np.ndarray) -> Figure:
    """A picture, and the same picture with its blocks in another order; (H, W, 3) uint8 each."""
    fig, axes = plt.subplots(1, 2, figsize=(4.6, 5.2))
    titles = ("each position in its place", "the same positions, moved")
    for ax, shown, title in zip(axes, (before, after), titles, strict=True):
        ax.imshow(shown)
        ax.set_title(title, fontsize=10)
        ax.set(xticks=[], yticks=[])
    fig.suptitle("If positions keep their activations, GAP and SA see no difference", fontsize=12)
    fig.tight_layout()
    return fig


def maps_by_form(image: np.ndarray, maps: dict, notes: dict, heading: str, label: str) -> Figure:
    """Maps of one image by form (rows) and stage (columns), each divided by its own largest value.

    image: (H, W, 3) uint8; maps: {form: a list of (h, w), one per stage}, not negative;
    notes: {form: the texts below its maps}; label: of the colour bar.
    """
    height, width = image.shape[:2]
    stages = len(next(iter(maps.values())))
    fig, axes = plt.subplots(
        len(maps), stages + 1, figsize=(1.4 * stages + 2, 2.5 * len(maps)), layout="constrained"
    )
    for row, (form, of_stages) in zip(axes, maps.items(), strict=True):
        row[0].imshow(image)
        row[0].set_ylabel(form, fontsize=11)
        for ax, values, note in zip(row[1:], of_stages, notes[form], strict=True):
            values = np.asarray(values)
            relative = values / values.max()
            extent = (0, width, height, 0)
            shown = ax.imshow(relative, cmap="viridis", vmin=0, vmax=1, extent=extent)
            ax.set_xlabel(note, fontsize=9)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
    titles = ["image", *(f"stage {s + 1}" for s in range(stages))]
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=10)
    fig.colorbar(shown, ax=axes, shrink=0.5, label=label)
    fig.suptitle(heading, fontsize=12)
    return fig


def jacobian_cases(case, values) -> Figure:
    """The 8 x 8 numbers of eq. 12 for two channels and 2 x 2 positions.

    case: (8, 8), which case of eq. 12 each is (1, 2 or 3); values: (8, 8).
    """
    case, values = np.asarray(case), np.asarray(values)
    names = [f"$f_{c + 1}({i},{j})$" for c in range(2) for i in (1, 2) for j in (1, 2)]
    answers = [name.replace("f_", "F_") for name in names]
    palette = sns.color_palette("colorblind")
    case_colors = ListedColormap([palette[2], palette[0], palette[1]])

    fig, axes = plt.subplots(1, 2, figsize=(11, 5.2))
    axes[0].imshow(case, cmap=case_colors, vmin=0.5, vmax=3.5)
    _write_numbers(axes[0], case, light=np.ones_like(case, bool))
    axes[0].set_title("which case of eq. 12", fontsize=11)
    axes[1].imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
    _write_numbers(axes[1], np.vectorize(_short_number)(values), light=abs(values) > 0.6)
    axes[1].set_title("the value", fontsize=11)
    for ax in axes:
        ax.set_xticks(range(8), names, rotation=60, fontsize=9)
        ax.set_yticks(range(8), answers, fontsize=9)
        ax.set(xlabel="change this activation ...", ylabel="... and this one answers")
        ax.grid(False)
        ax.axhline(3.5, color="black", lw=1)
        ax.axvline(3.5, color="black", lw=1)
    fig.suptitle("The softmax ties every position to every other", fontsize=12)
    fig.tight_layout()
    return fig


def _short_number(value: float) -> str:
    """A value of the Jacobian in as few characters as the picture has room for."""
    if value == 0:
        return "0"
    if abs(value) < 0.005:
        return "~0"
    return f"{value:.2f}"


def _write_numbers(ax, texts, light) -> None:
    """Write texts into the fields of an image of their shape, in white where light is true."""
    for (a, b), text in np.ndenumerate(texts):
        color = "white" if light[a, b] else "black"
        ax.text(b, a, text, ha="center", va="center", fontsize=9, color=color)


def signs_of_case1(activation, weight, agrees) -> Figure:
    """Where case 1 of eq. 12 has the sign of the activation, and where it does not.

    activation, weight, agrees: (n, m) each, the points of the plane and whether the signs agree.
    """
    fig, ax = plt.subplots(figsize=(7, 3.4))
    ax.contourf(
        np.asarray(activation),
        np.asarray(weight),
        np.asarray(agrees).astype(float),
        levels=[-0.5, 0.5, 1.5],
        colors=["#de8f05", "#9ecae1"],
    )
    edge = np.linspace(-4, -1.001, 200)
    ax.plot(edge, 1 + 1 / edge, color="black", lw=1.5)
    ax.axvline(0, color="black", lw=1.5)
    ax.text(-2.7, 0.28, "same sign", ha="center", fontsize=10)
    ax.text(2, 0.5, "same sign", ha="center", fontsize=10)
    ax.text(-1.55, 0.72, "opposite sign:\n$f < 0$, case 1 $> 0$", ha="center", fontsize=10)
    ax.set(xlabel="activation $f_k(i,j)$", ylabel="weight $p(i,j)$")
    ax.set(xlim=(-4, 4), ylim=(0, 1))
    ax.set_title("Case 1 is positive for $f > -1/(1-p)$", fontsize=12)
    return fig


def branches() -> Figure:
    """A ResNet of four stages with a branch after each of the first three, as boxes."""
    fig, ax = plt.subplots(figsize=(9, 3.6))
    columns = [0.06, 0.25, 0.44, 0.63, 0.86]
    words = ["image", "stage 1\nlayer1", "stage 2\nlayer2", "stage 3\nlayer3", "stage 4\nlayer4"]
    for x, text in zip(columns, words, strict=True):
        _box(ax, x, 0.85, 0.12, 0.17, text, GREY if "stage" in text else YELLOW)
    for left, right in zip(columns[:-1], columns[1:], strict=True):
        _line(ax, (left + 0.065, 0.85), (right - 0.065, 0.85))
    for s, x in enumerate(columns[1:4], 1):
        _box(ax, x, 0.55, 0.13, 0.15, "pooling:\nGAP or SA", GREEN)
        _box(ax, x, 0.32, 0.13, 0.12, "linear layer", GREY)
        _box(ax, x, 0.10, 0.13, 0.12, f"loss $l_{{s_{s}}}$", YELLOW)
        for start, end in ((0.76, 0.63), (0.47, 0.385), (0.255, 0.165)):
            _line(ax, (x, start), (x, end))
    _box(ax, columns[4], 0.44, 0.2, 0.37, "main head\n(notebook 04),\nwithout SA", GREY)
    _box(ax, columns[4], 0.10, 0.2, 0.12, "losses $l_1 \\dots l_6$, $l_F$", YELLOW)
    _line(ax, (columns[4], 0.76), (columns[4], 0.63))
    _line(ax, (columns[4], 0.25), (columns[4], 0.165))
    ax.set(xlim=(-0.02, 1), ylim=(0, 1))
    ax.set_axis_off()
    fig.suptitle("A branch behind each of the first three stages", fontsize=12)
    return fig


def training_curves(
    lines: pd.DataFrame, panels: dict, heading: str, columns: int, label: str = "", limits=None
) -> Figure:
    """Curves over the epochs by form: the mean over the seeds and, shaded, one standard deviation.

    lines: as histories.epoch_table() returns them. panels: {column of lines: title of its panel}.
    columns: how many panels stand in a row. label: of the vertical axes. limits: of the vertical
    axes of all panels, which are then logarithmic; with None each panel has its own linear axis.
    The legend stands in a free place of the last row, or below the panels.
    """
    rows = -(-len(panels) // columns)
    fig, axes = plt.subplots(
        rows, columns, figsize=(3.3 * columns, 3 * rows + 0.4), squeeze=False, layout="constrained"
    )
    for ax, (column, title) in zip(axes.flat, panels.items(), strict=False):
        _curves_by_form(ax, lines, column)
        ax.set(xlabel="epoch", xticks=range(2, lines.epoch.max() + 1, 4))
        ax.set_title(title, fontsize=11)
        if limits is not None:
            ax.set(yscale="log", ylim=limits)
    for ax in axes[:, 0]:
        ax.set_ylabel(label)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    free = axes.flat[len(panels) :]
    for ax in free:
        ax.set_axis_off()
    if len(free):
        free[0].legend(handles, labels, loc="center", fontsize=11, frameon=False)
    else:
        fig.legend(handles, labels, loc="outside lower center", ncols=len(handles), frameon=False)
    fig.suptitle(heading, fontsize=12)
    return fig


def _curves_by_form(ax, lines: pd.DataFrame, column: str) -> None:
    """One panel of training_curves()."""
    for form, label in FORM_LABELS.items():
        color, line = LOOKS[form].color, LOOKS[form].line
        stats = lines[lines.form == form].groupby("epoch")[column].agg(["mean", "std"])
        low, high = stats["mean"] - stats["std"], stats["mean"] + stats["std"]
        ax.plot(stats.index, stats["mean"], linestyle=line, color=color, lw=2, label=label)
        ax.fill_between(stats.index, low, high, color=color, alpha=0.2, lw=0)
