"""What the sliders draw, as plain functions; and the cells of the notebooks that make sliders."""

import ast
import re
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from conftest import ROOT

from reidsa_utils.attention import attention_weights
from reidsa_utils.batches import to_input
from reidsa_utils.cam import class_activation_maps
from reidsa_utils.course import hands_on
from reidsa_utils.experiments.compared import open_compared
from reidsa_utils.metrics import evaluate_ranking

SLIDERS = {
    "01_gap_vs_sa": "weights_at",
    "03_benchmarks_and_metrics": "matches_at",
    "07_cam": "map_at",
    "08_paper_vs_code": "temperature_at",
}


def title(fig):
    return fig.get_suptitle()


def numbers(ax):
    return [float(text.get_text()) for text in ax.texts]


def test_weights_by_hand():
    fig = hands_on.weights_at()  # A = 3, 0, 2, 1
    assert numbers(fig.axes[0]) == [2, 0, 0, 1]
    assert numbers(fig.axes[1]) == [1, 0, 2, 0]
    assert numbers(fig.axes[2]) == [3, 0, 2, 1]
    powers = np.exp([3, 0, 2, 1])
    p = powers / powers.sum()
    assert numbers(fig.axes[3]) == p.round(2).tolist()
    G = p @ [2, 0, 0, 1], p @ [1, 0, 2, 0]
    positions = np.exp(-(p * np.log(p)).sum())
    assert title(fig) == (
        f"T = 1: G = ({G[0]:.2f}, {G[1]:.2f}), {positions:.2f} of 4 positions effective"
    )


def test_weights_at_both_ends_of_the_temperature():
    assert "G = (2.00, 1.00), 1.00 of 4" in title(hands_on.weights_at(T=0.03))
    assert "G = (0.75, 0.75), 4.00 of 4" in title(hands_on.weights_at(T=1000))
    assert "G = (0.00, 2.00), 1.00 of 4" in title(hands_on.weights_at(0.03, 0, 0, 0, 0))


@pytest.mark.parametrize("ranks", [(1, 3, 6), (2, 3, 4), (10, 11, 12), (3, 1, 2), (12, 1, 5)])
def test_a_list_has_the_scores_of_the_package(ranks):
    ids = np.isin(np.arange(1, 13), ranks).astype(int) + 1
    result = evaluate_ranking(np.arange(12.0)[None], [2], ids, [1], np.full(12, 2))
    assert title(hands_on.matches_at(*ranks)) == (
        f"rank-1 {100 * result.cmc[0]:.0f} %, AP {result.mean_ap:.3f} (step), "
        f"{result.mean_ap_trapezoid:.3f} (trapezoid)"
    )


def test_a_list_says_the_precision_at_each_match():
    [ax] = hands_on.matches_at(1, 3, 6).axes
    assert [text.get_text() for text in ax.texts] == ["1/1", "2/3", "3/6"]


def test_two_matches_never_share_a_rank():
    assert hands_on.separate_places([1, 1, 1]) == [1, 2, 3]
    assert hands_on.separate_places([12, 12, 12]) == [1, 2, 12]
    assert hands_on.separate_places([2, 3, 2]) == [2, 3, 4]
    assert hands_on.separate_places([5, 2, 9]) == [2, 5, 9]


def numbers_of(fig):
    """The numbers of a title, in their order."""
    return [float(number) for number in re.findall(r"[\d.]+", title(fig).replace("l1", ""))]


@pytest.fixture(scope="module")
def people():
    """The stored networks, the images of the sliders as their input, and their classes."""
    compared = open_compared()
    n_train = len(compared.ids["train"])
    spaced = np.linspace(0, n_train - 1, 24).astype(int)
    chosen = spaced[compared.is_in_view("train", spaced)][:8]
    assert len(set(compared.ids["train"][chosen])) == 8
    return compared.models, to_input(compared.images("train", chosen)), compared.classes(chosen)


@pytest.mark.parametrize(
    ("stage", "form", "person"), [(1, "softmax", 1), (2, "l1", 8), (3, "none", 3), (4, "l1", 2)]
)
def test_a_map_has_the_effective_positions_of_its_weights_and_energy(people, stage, form, person):
    models, x, classes = people
    k = [person - 1]
    p = attention_weights(models[form].feature_maps(x[k])[stage - 1], form if stage < 4 else "none")
    M = class_activation_maps(models[form], x[k], classes[k], stage)
    energy = M.clamp(min=0) / M.clamp(min=0).sum()
    of_weights, of_map = (
        torch.special.entr(values.double()).sum().exp().item() for values in (p, energy)
    )
    fig = hands_on.map_at(stage, form, person)
    assert numbers_of(fig)[:2] == [stage, person]
    assert numbers_of(fig)[2:] == pytest.approx([of_weights, of_map, M.numel()], abs=0.06)
    assert len(fig.axes) == 4  # three panels and their scale


@pytest.mark.parametrize(("T", "stage", "person"), [(1, 3, 1), (100, 1, 5), (3000, 4, 8)])
def test_weights_of_a_trained_map_at_a_temperature(people, T, stage, person):
    models, x, _ = people
    with torch.no_grad():
        A = models["none"].feature_maps(x[[person - 1]])[stage - 1].double().sum((0, 1))
    p = (A / T).flatten().softmax(0)
    fig = hands_on.temperature_at(T, stage, person)
    shown = torch.tensor(fig.axes[1].images[0].get_array())
    torch.testing.assert_close(shown, p.view_as(A), rtol=1e-3, atol=1e-5)
    effective = torch.special.entr(p).sum().exp().item()
    expected = [T, stage, person, 100 * p.max().item(), effective, len(p)]
    assert numbers_of(fig) == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize("notebook", SLIDERS)
def test_sliders_beside_a_picture(notebook):
    """The picture is compared by nbval; the sliders, which need a kernel, are neither compared nor stored."""
    name = SLIDERS[notebook]
    cells = [
        cell
        for cell in nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", 4).cells
        if f"hands_on.{name}" in cell.source and cell.cell_type == "code"
    ]
    picture, sliders = cells
    assert picture.metadata.get("tags", []) == []
    assert picture.metadata["mystnb"]["image"]["alt"]
    assert {"image/png", "image/jpeg"} & set(picture.outputs[0].data)
    assert set(sliders.metadata["tags"]) == {"nbval-ignore-output", "remove-output"}
    assert sliders.outputs == []


@pytest.mark.parametrize("notebook", SLIDERS)
def test_a_moved_slider_draws_another_picture(notebook):
    """With the very sliders of the notebook's cell. Nothing is drawn before one is moved."""
    name = SLIDERS[notebook]
    [source] = [
        cell.source
        for cell in nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", 4).cells
        if "hands_on.sliders(" in cell.source
    ]
    titles = []

    def draw(**values):
        fig = getattr(hands_on, name)(**values)
        titles.append(title(fig))
        return fig

    *imports, box = ast.parse(source).body
    namespace = {"hands_on": SimpleNamespace(**{name: draw}, sliders=hands_on.sliders)}
    exec(compile(ast.Module(imports, []), notebook, "exec"), namespace)
    box = eval(compile(ast.Expression(box.value), notebook, "eval"), namespace)
    *sliders, below = box.children
    assert titles == [] and below.outputs == ()
    values = {slider.description: slider.value for slider in sliders}
    first = title(getattr(hands_on, name)())
    assert title(getattr(hands_on, name)(**values)) == first  # begins as the picture
    for slider in sliders:
        slider.value = slider.max if hasattr(slider, "max") else slider.options[-1]
        assert titles[-1] != first
    assert len(titles) == len(sliders)
