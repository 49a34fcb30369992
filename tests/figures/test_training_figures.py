"""Figures of notebook 05: they show the numbers that they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from reidsa_utils.figures.style import LOOKS
from reidsa_utils.figures.training import ORDER, draw_forms, draw_people, draw_run, draw_steps


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_every_run_has_its_point_at_its_form():
    values = np.arange(6.0).reshape(2, 3)  # (seeds, forms)
    rows, curves = [], []
    for seed, of_seed in enumerate(values):
        for form, level in zip(ORDER, of_seed, strict=True):
            rows.append({"form": form, "seed": seed, "mAP": level})
            for epoch in (1, 2):
                curves.append({"form": form, "seed": seed, "epoch": epoch, "loss": level + epoch})
    left, right = draw_forms(pd.DataFrame(rows), pd.DataFrame(curves), "made").axes
    for k, points in enumerate(right.collections):
        np.testing.assert_allclose(points.get_offsets(), [[k, values[0, k]], [k, values[1, k]]])
    names = [LOOKS[form].name for form in ORDER]
    assert [t.get_text() for t in right.get_xticklabels()] == names
    assert [t.get_text() for t in left.get_legend().get_texts()] == names
    for line, column in zip(left.lines, values.T, strict=True):
        np.testing.assert_allclose(line.get_ydata(), column.mean() + np.array([1, 2]))


def test_the_drop_of_the_learning_rate_is_marked():
    rates = [0.04, 0.05, 0.005, 0.005]
    history = []
    for k, lr in enumerate(rates):
        losses = {"part1": 3.0 - k, "final": 2.0, "stage1": 1.0}
        history.append({"epoch": k + 1, "losses": losses, "accuracy": k / 4, "lr": lr})
    left, right = draw_run(history, classes=12).axes
    for ax in (left, right):
        upright = [line for line in ax.lines if len(set(line.get_xdata())) == 1]
        assert [line.get_xdata()[0] for line in upright] == [2.5]
    np.testing.assert_allclose(right.lines[0].get_ydata(), [0, 25, 50, 75])
    flat = [line.get_ydata()[0] for line in left.lines if line.get_label() == "guessing"]
    np.testing.assert_allclose(flat, [np.log(12)])


def test_the_mean_of_an_epoch_stands_in_its_middle():
    [ax] = draw_steps([4.0, 2.0, 3.0, 1.0], 2, [3.0, 2.0], 4.5).axes
    np.testing.assert_allclose(ax.lines[1].get_xdata(), [1.5, 3.5])
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [3, 2])


def test_a_person_with_few_pictures_leaves_places_free():
    picture = np.zeros((4, 2, 3), np.uint8)
    fig = draw_people([[picture] * 3, [picture]], [["a", "b", "c"], ["d"]], "two people")
    assert [len(ax.images) for ax in fig.axes] == [1, 1, 1, 1, 0, 0]
