"""Figures of notebook 03: who counts in a ranking, average precision, ranked lists, re-ranking."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ..support.opencv import cv2
from .style import FRAMES


def _show(ax, image: np.ndarray, color: str | None = None) -> None:
    """An image without ticks; color: of its frame."""
    ax.imshow(image)
    ax.set(xticks=[], yticks=[])
    if color:
        for spine in ax.spines.values():
            spine.set(color=color, linewidth=4)


def draw_kinds(query: np.ndarray, groups: dict) -> Figure:
    """Draw a query and pairs of gallery images, framed by how they count.

    query: (H, W, 3) uint8. groups: {title: (key of FRAMES, two images)}.
    """
    fig, axes = plt.subplots(1, 1 + 2 * len(groups), figsize=(12, 3.3))
    _show(axes[0], query)
    axes[0].set_title("query", fontsize=10)
    for n, (title, (kind, images)) in enumerate(groups.items()):
        for ax, image in zip(axes[1 + 2 * n : 3 + 2 * n], images, strict=True):
            _show(ax, image, FRAMES[kind])
        axes[1 + 2 * n].set_title(title, fontsize=9, x=1.1, color=FRAMES[kind])
    fig.suptitle("Who counts in a query's ranking, and how (rendered)", fontsize=12, y=1.04)
    return fig


def draw_average_precisions(ranks: np.ndarray, length: int) -> Figure:
    """Draw both average precisions of one ranked list as areas below its precision.

    ranks: (n,), of the matches, from 1, ascending; length: of the list.
    """
    n = len(ranks)
    h = np.arange(1, n + 1)
    at_match = h / ranks
    before_match = np.where(ranks > 1, (h - 1) / np.maximum(ranks - 1, 1), 1.0)
    found = np.cumsum(np.isin(np.arange(1, length + 1), ranks))  # matches up to each rank
    precision = found / np.arange(1, length + 1)
    panels = {  # name: height of each area at its left
        "step sum": at_match,
        "trapezoid": before_match,
    }
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.3), sharey=True)
    for ax, (name, left_heights) in zip(axes, panels.items(), strict=True):
        ax.plot(np.r_[0, found / n], np.r_[1, precision], "o-", color="0.5", ms=4, lw=1)
        for match, left, right in zip(h, left_heights, at_match, strict=True):
            x = [(match - 1) / n, (match - 1) / n, match / n, match / n]
            ax.fill(x, [0, left, right, 0], alpha=0.5)
        area = np.mean((left_heights + at_match) / 2)
        ax.set(xlabel="recall", xlim=(0, 1), ylim=(0, 1.05))
        ax.set_title(f"{name}: area {area:.3f}", fontsize=11)
    axes[0].set_ylabel("precision")
    fig.suptitle("The trapezoid cuts off corners, so it is never larger", fontsize=12, y=1.02)
    return fig


def draw_ranked_lists(
    queries: np.ndarray,
    gallery: np.ndarray,
    distances: np.ndarray,
    kinds: np.ndarray,
    title: str,
    width: int = 8,
) -> Figure:
    """Draw a row for each query: its picture, then its nearest gallery images in their order.

    queries: (q, H, W, 3) uint8; gallery: (G, H, W, 3); distances: (q, G).
    kinds: (q, G), keys of FRAMES. width: gallery images in a row.
    """
    size = (1.15 * (width + 1), 2.9 * len(queries))
    fig, axes = plt.subplots(len(queries), width + 1, figsize=size, squeeze=False)
    for line, image, row, kinds_of_row in zip(axes, queries, distances, kinds, strict=True):
        _show(line[0], image)
        line[0].set_title("query", fontsize=10)
        nearest = np.argsort(row, kind="stable")[:width]
        for ax, g in zip(line[1:], nearest, strict=True):
            color = FRAMES[kinds_of_row[g]]
            _show(ax, gallery[g], color)
            ax.set_title(kinds_of_row[g], fontsize=10, color=color)
    fig.suptitle(title, fontsize=12, y=0.93)
    return fig


def draw_reranking(
    images: np.ndarray, nearest: np.ndarray, mutual: np.ndarray, before: np.ndarray, after
) -> Figure:
    """Draw N images of three people, who is whose neighbour, and distances before and after.

    images: (N, H, W, 3) uint8, equally many of each person, person after person.
    nearest, mutual: (N, N) bool, row i: the neighbours of image i, and the reciprocal ones.
    before, after: (N, N) distances in [0, 1].
    """
    N = len(images)
    each = N // 3
    widths = {"width_ratios": [0.75, 1, 1, 1]}
    fig, axes = plt.subplots(1, 4, figsize=(14.5, 4.9), gridspec_kw=widths)
    _sheet(axes[0], images, each)

    relation = nearest.astype(int) + mutual  # 0: no neighbour, 1: one-sided, 2: mutual
    panels = (  # values, title, colour map, largest value, colour of the lines
        (relation, "k1 nearest (grey), reciprocal (dark)", "Greys", 3, "black"),
        (before, "distance before", "viridis", 1, "white"),
        (after, "distance after", "viridis", 1, "white"),
    )
    for ax, (values, title, cmap, top, line_color) in zip(axes[1:], panels, strict=True):
        picture = ax.imshow(values, cmap=cmap, vmin=0, vmax=top)
        for edge in (each - 0.5, 2 * each - 0.5):
            ax.axhline(edge, color=line_color, lw=1.5)
            ax.axvline(edge, color=line_color, lw=1.5)
        ax.set_title(title, fontsize=11)
        ax.set(xticks=range(N), yticks=range(N), xlabel="image")
    axes[1].set_ylabel("image")
    fig.suptitle("Re-ranking pulls together images with neighbours in common", fontsize=12)
    fig.tight_layout()
    fig.colorbar(picture, ax=axes[2:], fraction=0.02, pad=0.01, label="distance")
    return fig


def _sheet(ax, images: np.ndarray, each: int) -> None:
    """All images on one sheet with their numbers, a row for each person."""
    small = [cv2.resize(image, (48, 144)) for image in images]
    rows = [np.concatenate(small[k : k + each], axis=1) for k in range(0, len(small), each)]
    ax.imshow(np.concatenate(rows))
    box = {"fc": "black", "ec": "none", "pad": 1.5}
    for k in range(len(small)):
        x, y = 48 * (k % each) + 4, 144 * (k // each) + 22
        ax.text(x, y, str(k), color="white", fontsize=10, weight="bold", bbox=box)
    ax.set_title(f"{len(small)} images, {len(rows)} people", fontsize=11)
    ax.set(xticks=[], yticks=[])
