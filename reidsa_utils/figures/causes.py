"""Figures of notebook 08 and its appendix 08a: attention weights, learning rates, causes."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from ..attention import attention_weights, effective_cells
from ..experiments.causes import COMMON_RATE, RATE_FORMS
from .style import LOOKS


def draw_weights(curves: dict, heading: str) -> Figure:
    """Draw the largest weight and the effective positions of forms of attention against epochs.

    curves: {form: (largest, positions)}, each (epochs + 1, 4) in percent, as
    examined.weights_by_epoch() returns them. The values of a stage over the epochs are a line; the
    last value, after training, is a dot. Only stages 1 to 3 are drawn.
    """
    fig, axes = plt.subplots(2, 3, figsize=(9, 5), sharex=True, sharey="row", layout="constrained")
    for form, both in curves.items():
        color, name = LOOKS[form].color, LOOKS[form].name
        for line, curve in zip(axes, both, strict=True):
            epochs = len(curve) - 1
            for stage, ax in enumerate(line):
                ax.plot(range(epochs), curve[:-1, stage], color=color, label=name)
                ax.plot(epochs, curve[-1, stage], "o", color=color, markersize=5)
    for stage, ax in enumerate(axes[0], start=1):
        ax.set_title(f"stage {stage}")
    for ax in axes[1]:
        ax.set_xticks(range(0, epochs + 1, 2))
    fig.supxlabel("epochs trained (dots: after training, test images)", fontsize=11)
    axes[0, 0].set_ylabel("largest weight (%)")
    axes[1, 0].set_ylabel("effective positions (%)")
    axes[0, 0].legend(frameon=False)
    fig.suptitle(heading)
    return fig


def temperature_for(share: float, temperatures: np.ndarray, shares: np.ndarray) -> float:
    """The temperature at which a rising curve reaches a share, interpolated in log T.

    temperatures, shares: (T,), the points of the curve.
    """
    return np.exp(np.interp(share, shares, np.log(temperatures)))


def draw_temperatures(maps: list, temperatures: np.ndarray, shares: np.ndarray) -> Figure:
    """Draw the effective positions of the softmax against its temperature, a curve for each stage.

    maps: (B, C, H, W) of each stage; temperatures: (T,) rising; shares: (stages, T) in percent.
    A square is T = C, and a diamond is where the softmax is as spread as l1.
    """
    fig, ax = plt.subplots(figsize=(8, 4), layout="constrained")
    colors = sns.color_palette("colorblind")
    for stage, (f, spread) in enumerate(zip(maps, shares, strict=True), start=1):
        C, color = f.shape[1], colors[stage - 1]
        l1 = effective_share(attention_weights(f, "l1"))
        ax.semilogx(temperatures, spread, color=color, label=f"stage {stage}, C = {C:,}")
        ax.plot(C, np.interp(C, temperatures, spread), "s", color=color)
        ax.plot(
            temperature_for(l1, temperatures, spread),
            l1,
            "D",
            color=color,
            markerfacecolor="none",
            markersize=8,
        )
    ax.axvline(1, color="0.3", linestyle="--")
    ax.set(
        xlabel="temperature T (dashed: eq. 1; squares: T = C; diamonds: as spread as l1)",
        ylabel="effective positions (%)",
        title="Only far above T = 1 does the softmax use many positions",
    )
    ax.legend(frameon=False)
    return fig


def effective_share(p) -> float:
    """Effective positions in percent of the map, mean over the images; p: (B, H, W)."""
    return 100 * effective_cells(p).mean().item() / p[0].numel()


def draw_weight_maps(pictures: np.ndarray, weights: list, heading: str) -> Figure:
    """Draw the weights for some people, a row each. Every panel has its own scale, from 0 up.

    pictures: (N, H, W, 3) uint8; weights: {name: (h, w) tensor} of each picture.
    """
    columns = 1 + max(len(panels) for panels in weights)
    size = (11, 3.2 * len(pictures))
    fig, axes = plt.subplots(
        len(pictures), columns, figsize=size, squeeze=False, layout="constrained"
    )
    for line, picture, panels in zip(axes, pictures, weights, strict=True):
        line[0].imshow(picture, aspect="auto")
        line[0].set_title("image", fontsize=10)
        for ax, (name, p) in zip(line[1:], panels.items(), strict=True):
            ax.imshow(p.numpy(), cmap="viridis", vmin=0, aspect="auto")
            ax.set_title(f"{name}\nlargest {100 * p.max().item():.0f} %", fontsize=10)
        for ax in line:
            ax.set_axis_off()
    fig.suptitle(heading)
    return fig


def draw_rates(second: pd.DataFrame, best: dict, changes: dict) -> Figure:
    """Draw the mAP against the learning rate, and its change by two forms at the same rate.

    second: as causes.map_on_second_population() returns it. best: {form: its best rate there}.
    changes: {form: causes.by_rate()}, on test people.
    """
    rates = sorted(second.lr.unique())
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for form in RATE_FORMS:
        color = LOOKS[form].color
        of_form = second[second.form == form]
        means = of_form.groupby("lr").mAP.mean()
        left.plot(means, color=color, label=LOOKS[form].name)
        left.plot(of_form.lr, of_form.mAP, ".", color=color)
        ring = {"fillstyle": "none", "markersize": 12}
        left.plot(best[form], means[best[form]], "o", color=color, **ring)
    for form, rows in changes.items():
        below_above = [rows["Δ"] - rows.low, rows.high - rows["Δ"]]
        style = {"marker": "o", "capsize": 4, "color": LOOKS[form].color, "label": LOOKS[form].name}
        right.errorbar(rows.index, rows["Δ"], below_above, **style)
    right.axhline(0, color="0.3", linewidth=1)
    for ax in (left, right):
        ax.set(xscale="log", xlabel="learning rate", xticks=rates, xticklabels=rates)
        ax.minorticks_off()
        ax.legend(frameon=False)
    left.set(ylabel="mAP (%)", title="On the second population (ring: the best rate)")
    right.set(ylabel="Δ mAP (points)", title="Against no SA at the same rate, test set")
    return fig


def draw_branch_losses(records: list) -> Figure:
    """Draw the losses of the branches and of the main head at the common learning rate.

    records: runs of the forms RATE_FORMS. Dotted: a network that guesses.
    """
    runs = [r for r in records if r["config"]["lr"] == COMMON_RATE]
    heads = {
        "stage1": "branch of stage 1",
        "stage2": "of stage 2",
        "stage3": "of stage 3",
        "final": "main head, for comparison",
    }
    fig, axes = plt.subplots(1, 4, figsize=(11, 3), sharey=True, layout="constrained")
    for ax, (head, heading) in zip(axes, heads.items(), strict=True):
        for form in RATE_FORMS:
            histories = [r["history"] for r in runs if r["config"]["form"] == form]
            curves = [[line["losses"][head] for line in history] for history in histories]
            epochs = range(1, len(curves[0]) + 1)
            ax.plot(
                epochs, np.mean(curves, axis=0), color=LOOKS[form].color, label=LOOKS[form].name
            )
        ax.axhline(np.log(runs[0]["classes"]), color="0.5", linestyle=":")
        ax.set(title=heading, xlabel="epoch")
    axes[0].set(ylabel="cross-entropy, mean of three seeds", ylim=(0, None))
    axes[0].legend(frameon=False)
    return fig


def draw_causes(changes: dict) -> Figure:
    """Draw single changes to the softmax against no SA, a line each.

    changes: as causes.changes_of_the_softmax() returns them. Orange: the interval lies below zero.
    """
    metrics = list(next(iter(changes.values())))
    size = (10, 3.6)
    fig, axes = plt.subplots(
        1, len(metrics), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for ax, metric in zip(axes[0], metrics, strict=True):
        for y, found in enumerate(changes.values()):
            d = found[metric]
            color = "C3" if d["high"] < 0 else "C0"
            ax.plot([d["low"], d["high"]], [y, y], color=color, linewidth=4, alpha=0.4)
            ax.plot(d["deltas"], [y] * d["seeds"], "|", color=color, markersize=10)
            ax.plot(d["Δ"], y, "o", color=color)
        ax.axvline(0, color="0.3", linewidth=1)
        ax.set(xlabel=f"Δ {metric} against no SA (points)", yticks=range(len(changes)))
    axes[0, 0].set(yticklabels=changes)
    axes[0, 0].invert_yaxis()
    fig.suptitle("One change to the softmax (orange: the interval lies below zero)")
    return fig
