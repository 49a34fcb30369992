"""Drawings: what they show is what they were given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from reidsa_utils.figures import drawings


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def panels(fig):
    return [ax for ax in fig.axes if ax.images]


def test_each_map_is_drawn_over_its_own_largest_value():
    image = np.zeros((8, 4, 3), np.uint8)
    maps = {"softmax": [np.array([[0.0, 5.0]]), np.array([[2.0, 4.0]])], "l1": [np.eye(2)] * 2}
    notes = {form: ["a", "b"] for form in maps}
    fig = drawings.maps_by_form(image, maps, notes, "heading", "label")
    shown = [ax.images[0].get_array() for ax in panels(fig)]
    of_maps = [values for values in shown if values.ndim == 2 and values.shape in ((1, 2), (2, 2))]
    assert [values.tolist() for values in of_maps] == [
        [[0, 1]],
        [[0.5, 1]],
        [[1, 0], [0, 1]],
        [[1, 0], [0, 1]],
    ]


def test_curves_are_the_mean_over_the_seeds():
    rows = [
        {"form": form, "seed": seed, "epoch": epoch, "loss": 10 * seed + epoch}
        for form in drawings.FORM_LABELS
        for seed in (0, 1)
        for epoch in (1, 2, 3)
    ]
    fig = drawings.training_curves(pd.DataFrame(rows), {"loss": "a loss"}, "heading", 1)
    lines = fig.axes[0].get_lines()
    assert [line.get_label() for line in lines] == list(drawings.FORM_LABELS.values())
    for line in lines:
        assert line.get_ydata().tolist() == [6, 7, 8]


@pytest.mark.parametrize("limits", [None, (0.1, 100)])
def test_panels_that_are_compared_share_their_scale(limits):
    rows = [
        {"form": form, "seed": seed, "epoch": epoch, "small": 1 + seed, "large": 50 + seed}
        for form in drawings.FORM_LABELS
        for seed in (0, 1)
        for epoch in (1, 2)
    ]
    panels = {"small": "small", "large": "large"}
    fig = drawings.training_curves(pd.DataFrame(rows), panels, "heading", 2, limits=limits)
    scales = [(ax.get_yscale(), ax.get_ylim()) for ax in fig.axes]
    assert (scales[0] == scales[1]) == (limits is not None)


def test_numbers_are_written_into_the_small_maps():
    f = np.array([[[2.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]])
    p = np.array([[0.757, 0.038], [0.102, 0.102]])
    fig = drawings.layer_with_numbers(f, f.sum(0), p, f * p)
    written = {text.get_text() for ax in fig.axes for text in ax.texts}
    assert {"3", "0.76", "0.04", "1.51"} <= written
    assert "76 %" in fig.get_suptitle()
