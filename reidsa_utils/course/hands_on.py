"""What the sliders of the notebooks draw. Each function takes plain numbers and returns a figure.

The defaults are the first positions of the sliders and the values of the static picture. The
figures are not registered with pyplot, so that a slider shows the returned figure only once.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from IPython.display import clear_output, display
from ipywidgets import Output, VBox, Widget
from matplotlib.figure import Figure

from ..attention import attended_pool, attention_weights, effective_cells
from ..batches import to_input
from ..cam import class_activation_maps
from ..experiments.compared import Compared, open_compared
from ..figures.drawings import numbered_map
from ..figures.maps import Panel, draw_panel, scale_bar
from ..figures.style import FRAMES, LOOKS

SECOND_CHANNEL = ((1.0, 0.0), (2.0, 0.0))
LONGEST = 12  # images of the list in notebook 03
PEOPLE = 8  # for notebooks 07 and 08: number of training images, none with an occluder in front


def sliders(draw: Callable[..., Figure], **controls: Widget) -> VBox:
    """Show controls, and below them the figure of `draw` for their values.

    This is like ipywidgets.interact, but nothing is drawn before a control is moved: the static
    picture above the cell shows the first values. The reason: a cell that fills an Output widget
    sometimes never ends in programs that execute notebooks without a window (papermill, nbconvert;
    issue 312 of nbclient).

    draw: takes the values of the controls by name. controls: {name: widget}.
    Returns the box that the cell shows.
    """
    below = Output()

    def draw_again(_) -> None:
        with below:
            clear_output(wait=True)
            display(draw(**{name: control.value for name, control in controls.items()}))

    for name, control in controls.items():
        control.description = name
        control.observe(draw_again, "value")
    return VBox([*controls.values(), below])


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
    """Places of matches in a list, ascending. A place that is taken moves to the next free one."""
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


@cache
def _compared() -> Compared:
    """The stored networks of notebook 07."""
    return open_compared()


@cache
def _people() -> np.ndarray:
    """(PEOPLE,) numbers of training images, evenly spaced, without those with an occluder."""
    n_train = len(_compared().ids["train"])
    spaced = np.linspace(0, n_train - 1, 3 * PEOPLE).astype(int)
    return spaced[_compared().is_in_view("train", spaced)][:PEOPLE]


@cache
def _feature_maps(form: str) -> list[torch.Tensor]:
    """The four maps of the network of a form on these people: (PEOPLE, C, h, w) each."""
    images = _compared().images("train", _people())
    with torch.no_grad():
        return _compared().models[form].feature_maps(to_input(images))


def map_at(stage: int = 2, form: str = "l1", person: int = 1) -> Figure:
    """Notebook 07: a person, the weights p of a stage, and its map for the person's own class.

    stage: 1 to 4, of which the last has no SA; form: "none", "softmax" or "l1"; person: from 1.
    """
    compared = _compared()
    number = _people()[[person - 1]]
    [image] = compared.images("train", number)
    f = [of_stage[[person - 1]] for of_stage in _feature_maps(form)]
    p = attention_weights(f[stage - 1], form if stage < 4 else "none")  # (1, h, w)
    classes = compared.classes(number)
    M = class_activation_maps(compared.models[form], None, classes, stage, maps=f)  # (1, h, w)
    fig = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = fig.subplots(1, 3)
    panels = [Panel(image, title="image"), Panel(image, p[0], "$p$"), Panel(image, M[0], "$M_c$")]
    for ax, panel in zip(axes, panels, strict=True):
        draw_panel(ax, panel)
    scale_bar(fig, axes)
    # A map without a positive value has no energy; zero positions are shown for it.
    spread = [effective_cells(p).item(), effective_cells(M).nan_to_num().item()]
    fig.suptitle(
        f"Stage {stage}, {LOOKS[form].name}, person {person}: effective positions\n"
        f"{spread[0]:.1f} ($p$) and {spread[1]:.1f} ($M_c$) of {p.numel()}",
        fontsize=11,
    )
    return fig


def temperature_at(T: float = 1.0, stage: int = 3, person: int = 1) -> Figure:
    """Notebook 08: a person, and the softmax weights of one map at temperature T.

    The network was trained without SA. stage: 1 to 4; person: from 1.
    """
    [image] = _compared().images("train", _people()[[person - 1]])
    f = _feature_maps("none")[stage - 1][[person - 1]].double()  # (1, C, h, w)
    p = attention_weights(f, "softmax", temperature=T)  # (1, h, w)
    fig = Figure(figsize=(4.4, 4.2), layout="constrained")
    left, right = fig.subplots(1, 2)
    left.imshow(image, aspect="auto")
    right.imshow(p[0].numpy(), cmap="viridis", vmin=0, aspect="auto")
    for ax in (left, right):
        ax.set_axis_off()
    fig.suptitle(
        f"T = {T:.4g}, stage {stage}, person {person}:\nlargest weight {100 * p.max():.1f} %, "
        f"{effective_cells(p).item():.1f} of {p.numel()} positions effective",
        fontsize=10,
    )
    return fig
