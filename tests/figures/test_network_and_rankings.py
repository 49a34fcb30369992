"""Figures of notebooks 03 and 04: what they show is what the package computes."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from reidsa_utils.figures.network import draw_network, draw_pixels_seen
from reidsa_utils.figures.rankings import draw_average_precisions, draw_ranked_lists
from reidsa_utils.figures.style import FRAMES
from reidsa_utils.metrics import evaluate_ranking
from reidsa_utils.model import loss_weights

NAMES = ["final", *(f"part{k}" for k in range(1, 7)), "stage1", "stage2", "stage3"]


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.mark.parametrize("ranks", [[1, 3, 6], [2], [1, 2, 3], [4, 5, 9]])
def test_areas_are_both_average_precisions(ranks):
    length = 9
    gallery_ids = np.isin(np.arange(1, length + 1), ranks).astype(int) + 1
    distances = np.arange(float(length))[None]
    found = evaluate_ranking(distances, [2], gallery_ids, [1], np.full(length, 2))
    fig = draw_average_precisions(np.array(ranks), length)
    titles = [ax.get_title() for ax in fig.axes]
    assert titles == [
        f"step sum: area {found.mean_ap:.3f}",
        f"trapezoid: area {found.mean_ap_trapezoid:.3f}",
    ]


def test_the_weights_behind_the_losses_are_those_of_both_recipes():
    fig = draw_network(np.zeros((192, 64, 3), np.uint8))
    shown = sorted(text.get_text() for text in fig.axes[0].texts if " | " in text.get_text())
    paper, released = loss_weights(NAMES, "paper"), loss_weights(NAMES, "released")
    behind = [f"{paper[name]:g} | {released[name]:g}" for name in NAMES]
    assert shown == sorted([*behind, "behind each loss: its weight in recipe paper | released"])


def test_a_square_is_as_wide_as_what_is_seen():
    image = np.zeros((192, 64, 3), np.uint8)
    fig = draw_pixels_seen(image, {"a": (192, 64, [16, 32, 64, 128])})
    assert [p.get_width() for p in fig.axes[0].patches] == [0.25, 0.5, 1, 2]


def test_a_ranked_list_is_in_the_order_of_distances():
    gallery = np.arange(4, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)  # (4, 1, 1, 3)
    kinds = np.array([["error", "match", "left out", "error"]])
    distances = np.array([[0.3, 0.1, 0.2, 0.0]])
    fig = draw_ranked_lists(gallery[:1], gallery, distances, kinds, "a title", width=3)
    shown = [int(ax.images[0].get_array()[0, 0, 0]) for ax in fig.axes[1:]]
    assert shown == [3, 1, 2]
    titles = [ax.get_title() for ax in fig.axes[1:]]
    assert titles == ["error", "match", "left out"] and set(titles) == set(FRAMES)
