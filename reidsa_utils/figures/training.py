"""Figures of notebook 05: training images, the losses of a run, forms of attention compared."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import LOOKS

ORDER = ("none", "l1", "softmax")  # the order in which forms are drawn
DROP = 0.5  # the learning rate has dropped if it is below this share of the epoch before


def draw_people(rows: list, titles: list, heading: str) -> Figure:
    """Draw the pictures of one person in each row.

    rows: lists of (H, W, 3) uint8; titles: lists of texts, one per picture; heading: of the figure.
    """
    longest = max(len(row) for row in rows)
    size = (0.9 * longest, 2 * len(rows))
    fig, axes = plt.subplots(len(rows), longest, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.flat:
        ax.set_axis_off()
    for line, images, texts in zip(axes, rows, titles, strict=True):
        # A row may have fewer pictures than the longest.
        for ax, image, text in zip(line, images, texts, strict=False):
            ax.imshow(image)
            ax.set_title(text, fontsize=8)
    fig.suptitle(heading, fontsize=12)
    return fig


def draw_batch(images: np.ndarray, heading: str, count: int = 10) -> Figure:
    """Draw the first images of a batch, (B, H, W, 3) uint8, side by side."""
    fig, axes = plt.subplots(1, count, figsize=(0.9 * count, 2.3), layout="constrained")
    for ax in axes:
        ax.set_axis_off()
    for ax, image in zip(axes, images, strict=False):
        ax.imshow(image, aspect="auto")
    fig.suptitle(heading, fontsize=12)
    return fig


def draw_steps(losses: list, steps: int, of_train: list, at_start: float) -> Figure:
    """Draw the loss of every step of a loop, and its mean over each epoch as `train` recorded it.

    losses: one per step; steps: how many an epoch has; of_train: one loss per epoch; at_start: the
    loss before anything is learned.
    """
    fig, ax = plt.subplots(figsize=(7.5, 3), layout="constrained")
    ax.plot(range(1, len(losses) + 1), losses, color="0.6", label="by hand, each step")
    middles = (np.arange(len(of_train)) + 0.5) * steps + 0.5
    ax.plot(middles, of_train, "o", color="C3", label="train(), mean of an epoch")
    ax.axhline(at_start, color="0.3", linestyle=":", label="nothing learned")
    ax.set(xlabel="step", ylabel="weighted loss L")
    ax.set_title("The loop by hand and train() have the same losses", fontsize=12)
    ax.legend(fontsize=9)
    return fig


def draw_run(history: list, classes: int) -> Figure:
    """Draw the loss of every head of a run and the accuracy of its main head.

    history: of a record, one line per epoch; classes: number of training identities.
    """
    epochs = [line["epoch"] for line in history]
    losses = pd.DataFrame([line["losses"] for line in history], index=epochs)
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.5), layout="constrained")
    kinds = {
        "part": ("six parts", "C0", "-"),
        "final": ("main head", "C3", "-"),
        "stage": ("branches of stages 1 to 3", "C2", "--"),
    }
    for kind, (name, color, line_style) in kinds.items():
        of_kind = losses[[head for head in losses if head.startswith(kind)]]
        for k, head in enumerate(of_kind):
            label = name if k == 0 else None
            left.plot(of_kind[head], line_style, color=color, marker=".", alpha=0.8, label=label)
    left.axhline(np.log(classes), color="0.3", linestyle=":", label="guessing")
    left.set(xlabel="epoch", ylabel="cross-entropy", ylim=(0, None))
    left.set_title("loss of each head", fontsize=11)
    left.legend(fontsize=8)
    right.plot(epochs, [100 * line["accuracy"] for line in history], color="C3", marker=".")
    right.set(xlabel="epoch", ylabel="accuracy (%)", ylim=(0, 100))
    right.set_title("training accuracy of the main head", fontsize=11)
    for ax in (left, right):
        ax.xaxis.get_major_locator().set_params(integer=True)
        for before, line in zip(history, history[1:], strict=False):
            if line["lr"] < DROP * before["lr"]:
                ax.axvline(line["epoch"] - 0.5, color="0.6", linewidth=1)
    fig.suptitle(f"{len(history)} epochs of training", fontsize=12)
    return fig


def draw_forms(runs: pd.DataFrame, curves: pd.DataFrame, heading: str) -> Figure:
    """Draw training loss and mAP of networks that differ in their form of attention alone.

    runs: one row per run, columns form, seed, mAP (%). curves: one row per run and epoch, columns
    form, seed, epoch, loss. Forms as in ORDER. heading: of the figure.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
    for form in ORDER:
        look = LOOKS[form]
        by_epoch = curves[curves.form == form].groupby("epoch").loss
        mean, low, high = by_epoch.mean(), by_epoch.min(), by_epoch.max()
        left.plot(mean, linestyle=look.line, color=look.color, label=look.name)
        left.fill_between(mean.index, low, high, color=look.color, alpha=0.15, linewidth=0)
    left.set(xlabel="epoch", ylabel="weighted loss L", ylim=(0, None))
    left.set_title("training loss (shaded: all seeds)", fontsize=11)
    left.xaxis.get_major_locator().set_params(integer=True)
    left.legend(fontsize=9)

    wide = runs.pivot(index="seed", columns="form", values="mAP")[list(ORDER)]  # (seeds, forms)
    places = range(len(ORDER))
    for _, of_seed in wide.iterrows():
        right.plot(places, of_seed, color="0.75", linewidth=1, zorder=1)
    for place, form in zip(places, ORDER, strict=True):
        right.scatter([place] * len(wide), wide[form], color=LOOKS[form].color, zorder=2)
    right.set_xticks(list(places), [LOOKS[form].name for form in ORDER])
    right.set(ylabel="mAP (%)", ylim=(0, None), xlim=(-0.5, len(ORDER) - 0.5))
    right.set_title("test mAP (a line joins equal seeds)", fontsize=11)
    fig.suptitle(heading, fontsize=12)
    return fig
