"""Figures of notebook 04: the network of Fig. 3, what a position sees, the six stripes."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

# These colours differ in grey, too.
YELLOW, RED, BLUE = "#F7E06A", "#E88B52", "#9CCBEE"
GREEN, WHITE = "#1F8A6A", "#FFFFFF"

BACKBONE_Y = 46  # the height at which the backbone runs
STAGES = (  # number, x, height of the box, channels, rows x columns
    (1, 22, 17, "256", "96×32\n(48×16)"),
    (2, 37, 13, "512", "48×16\n(24×8)"),
    (3, 52, 10, "1,024", "24×8\n(12×4)"),
    (4, 66.5, 10, "2,048", "24×8\n(12×4)"),
)


def draw_network(pedestrian: np.ndarray) -> Figure:
    """Draw Fig. 3 of the paper: backbone, branches, parts, and what retrieval keeps.

    pedestrian: (H, W, 3) uint8, the picture at the network's entrance.
    """
    fig, ax = plt.subplots(figsize=(12, 6.8))
    ax.set(xlim=(0, 120), ylim=(2, 67))
    ax.set_axis_off()
    _draw_what_is_thrown_away(ax)
    _draw_backbone(ax, pedestrian)
    for s, x, h, _, _ in STAGES[:3]:
        _draw_branch(ax, s, x, BACKBONE_Y - h / 2)
    _draw_sa1(ax)
    _draw_parts(ax)
    _draw_main_head(ax)
    _draw_what_is_kept(ax)
    ax.set_title("Ten losses train the network; retrieval keeps the pooled last map", fontsize=13)
    return fig


def _draw_what_is_thrown_away(ax) -> None:
    """The grey fields behind everything that inference does not need."""
    grey = {"facecolor": "0.93", "edgecolor": "0.5", "linestyle": ":"}
    _box(ax, 37.5, 17.75, 42, 29.5, **grey)
    _box(ax, 103.9, 42, 31, 39, **grey)
    for x, y in ((37.5, 3.6), (103.9, 62)):
        style = {"fontsize": 11, "style": "italic", "va": "bottom", "ha": "center"}
        ax.text(x, y, "thrown away at inference", **style)


def _draw_backbone(ax, pedestrian: np.ndarray) -> None:
    """The image, the stem and the four stages."""
    Y = BACKBONE_Y
    ax.imshow(pedestrian, extent=(1, 8, Y - 10.5, Y + 10.5), aspect="auto")
    size = "image\n384×128\n(192×64)"
    ax.text(4.5, Y + 11, size, ha="center", va="bottom", fontsize=10)
    _arrow(ax, (8, Y), (10.2, Y))
    _box(ax, 12.7, Y, 5, 14, "stem\n÷4", YELLOW)
    right_edge = 15.2  # of the box drawn last
    for s, x, h, channels, size in STAGES:
        _arrow(ax, (right_edge, Y), (x - 4.25, Y))
        right_edge = x + 4.25
        _box(ax, x, Y, 8.5, h, size, YELLOW)
        name = f"stage {s}\n{channels} ch."
        ax.text(x, Y + h / 2 + 0.6, name, ha="center", va="bottom", fontsize=10)


def _draw_branch(ax, stage: int, x: float, top: float) -> None:
    """A deeply supervised branch below one of the first three stages."""
    _arrow(ax, (x, top), (x, 30.1))
    for y, text, color in ((27.9, "SA2", GREEN), (21.9, "sum", RED), (15.9, "FC", RED)):
        _box(ax, x, y, 8.5, 4.4, text, color)
        _arrow(ax, (x, y - 2.2), (x, y - 3.8))
    _loss(ax, x - 4.2, 9.8, f"l_{{s_{stage}}}", "0.2 | 1")


def _draw_sa1(ax) -> None:
    """SA1, and the path around it, which the main model takes."""
    Y = BACKBONE_Y
    _box(ax, 76.4, Y, 5, 10, "SA1", edgecolor=GREEN, linestyle="--", linewidth=2)
    ax.text(76.4, Y - 5.6, "ablation\nonly", ha="center", va="top", fontsize=9.5)
    _arrow(ax, (70.75, Y), (73.9, Y))
    _arrow(ax, (78.9, Y), (81.5, Y))
    around = [72.5, 72.5, 80.2, 80.2]
    ax.plot(around, [Y, Y + 7.5, Y + 7.5, Y], color="0.25", linewidth=1)


def _draw_parts(ax) -> None:
    """The six parts inside one frame, the shared convolution and the part classifiers."""
    ax.text(83.4, 60.8, "six stripes,\naveraged", ha="center", va="bottom", fontsize=10)
    _box(ax, 93, 46, 4.8, 28, "shared 1×1 conv\n2,048 → 256", YELLOW, angle=90)
    _box(ax, 84.8, 46, 6.6, 29.4, facecolor="none", linewidth=2)
    for k, y in enumerate(np.linspace(58, 34, 6), 1):
        _box(ax, 84.8, y, 5.2, 4, f"part {k}", BLUE, size=9)
        _arrow(ax, (87.4, y), (90.6, y))
        _arrow(ax, (95.4, y), (99.2, y))
        _box(ax, 102.7, y, 7, 3.6, "FC", BLUE)
        _arrow(ax, (106.2, y), (108.3, y))
        _loss(ax, 108.8, y, f"l_{k}", "0.8 | 1")


def _draw_main_head(ax) -> None:
    _arrow(ax, (93, 32), (93, 28.6))
    _box(ax, 93, 26.5, 4.8, 4.2, "GAP", YELLOW)
    _arrow(ax, (95.4, 26.5), (99.2, 26.5))
    _box(ax, 102.7, 26.5, 7, 3.6, "FC", YELLOW)
    _arrow(ax, (106.2, 26.5), (108.3, 26.5))
    _loss(ax, 108.8, 26.5, "l_F", "0.2 | 1")


def _draw_what_is_kept(ax) -> None:
    _arrow(ax, (84.8, 31.3), (84.8, 17.3), linewidth=2.5)
    kept = (
        "kept: the retrieval vector, either\n"
        "global = mean of the six parts, 2,048 numbers, or\n"
        "parts = all six, each of length 1, 12,288 numbers"
    )
    _box(ax, 88, 12.5, 50, 9.4, kept, size=10, linewidth=2)
    of_losses = "behind each loss: its weight in recipe paper | released"
    ax.text(88, 4.2, of_losses, ha="center", fontsize=10)
    ax.text(88, 1.2, "in brackets: sizes of the small network, thin", ha="center", fontsize=10)


def _box(ax, x, y, w, h, text="", color=WHITE, size=9.5, angle=0, **style) -> None:
    """A labelled rectangle; x, y: its centre."""
    look = {"facecolor": color, "edgecolor": "0.25"} | style
    ax.add_patch(plt.Rectangle((x - w / 2, y - h / 2), w, h, **look))
    place = {"ha": "center", "va": "center", "fontsize": size, "rotation": angle}
    ink = "white" if color == GREEN else "0.1"
    ax.text(x, y, text, color=ink, linespacing=1.25, **place)


def _arrow(ax, start: tuple, end: tuple, **style) -> None:
    look = {"arrowstyle": "-|>", "color": "0.25", "shrinkA": 0, "shrinkB": 0} | style
    ax.annotate("", end, start, arrowprops=look)


def _loss(ax, x: float, y: float, name: str, weight: str) -> None:
    """A loss and, to its right, its weight in both recipes."""
    ax.text(x, y, f"${name}$", va="center", fontsize=14)
    ax.text(x + 3.7, y, weight, va="center", fontsize=10)


def draw_pixels_seen(image: np.ndarray, networks: dict) -> Figure:
    """Draw the squares of pixels that one position of each stage sees, on the network's own input.

    image: (h, w, 3) uint8, shown at each network's input size.
    networks: {name: (height, width, pixels seen at stages 1 to 4)}.
    """
    styles = ("-", "--", "-.", ":")  # so that the stages differ in grey
    colors = ("#0173b2", "#de8f05", "#029e73", "#d55e00")
    fig, axes = plt.subplots(
        1, len(networks), figsize=(9, 5.8), sharex=True, sharey=True, squeeze=False
    )
    fig.subplots_adjust(top=0.87, bottom=0.2, wspace=0.1)
    for ax, (name, (height, width, pixels)) in zip(axes[0], networks.items(), strict=True):
        ax.imshow(image, extent=(-0.5, 0.5, 1.5, -1.5))  # in widths of the image
        for stage, (seen, color, style) in enumerate(zip(pixels, colors, styles, strict=True), 1):
            side = seen / width
            square = plt.Rectangle((-side / 2, -side / 2), side, side, fill=False)
            square.set(edgecolor=color, linestyle=style, linewidth=2.5)
            square.set_label(f"stage {stage}: {seen} px")
            ax.add_patch(square)
        ax.set(
            xlim=(-1.5, 1.5),
            ylim=(1.55, -1.55),
            yticks=[],
            xlabel="widths of the image",
            xticks=(-1, 0, 1),
        )
        ax.set_title(f"{name}, {height}×{width}", fontsize=11)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, frameon=False)
    fig.suptitle("ResNet-50 sees the whole width from stage 3 on, thin hardly ever", fontsize=12)
    return fig


def draw_stripes(image: np.ndarray, positions: np.ndarray, stripes: np.ndarray) -> Figure:
    """Draw an image, its grid of positions, and its colours averaged by position and by stripe.

    image: (192, 64, 3) uint8. positions: (12, 4, 3), stripes: (6, 3), in [0, 1].
    """
    panels = (
        (image, "image, 192×64"),
        (image, "stage-4 grid, 12×4"),
        (positions, "mean of a position"),
        (stripes[:, None], "mean of a stripe"),
    )
    fig, axes = plt.subplots(1, 4, figsize=(9, 6))
    for ax, (panel, title) in zip(axes, panels, strict=True):
        ax.imshow(panel, extent=(0, 64, 192, 0))
        ax.set(xticks=[], yticks=[])
        ax.set_title(title, fontsize=11)
    for ax in axes[:3]:
        ax.hlines(range(32, 192, 32), 0, 64, color="white", linewidth=3)
    axes[1].hlines(range(16, 192, 16), 0, 64, color="white", linewidth=0.8)
    axes[1].vlines(range(16, 64, 16), 0, 192, color="white", linewidth=0.8)
    axes[3].yaxis.tick_right()
    for ax in (axes[0], axes[3]):
        names = [f"part {k}" for k in range(1, 7)]
        ax.set_yticks(range(16, 192, 32), names, fontsize=11)
    fig.suptitle("Six stripes keep the height of a thing and forget left from right", fontsize=13)
    return fig
