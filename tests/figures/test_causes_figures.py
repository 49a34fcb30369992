"""Figures of notebook 08: they show the numbers that they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from reidsa_utils.figures import causes as drawings


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_weights_stand_at_their_stage_and_the_last_is_a_dot():
    largest = np.arange(12.0).reshape(3, 4)  # (epochs + 1, stages)
    curves = {"softmax": (largest, largest + 50), "l1": (largest + 20, largest + 70)}
    axes = drawings.draw_weights(curves, "made").axes
    assert len(axes) == 6
    for row, shift in enumerate((0, 50)):
        for stage in range(3):
            line, dot = axes[3 * row + stage].lines[:2]
            np.testing.assert_allclose(line.get_ydata(), largest[:2, stage] + shift)
            np.testing.assert_allclose(dot.get_xydata(), [[2, largest[2, stage] + shift]])
    labels = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert labels == ["softmax", "l1"]


def test_a_temperature_between_two_points_is_read_on_the_log_scale():
    temperatures, shares = np.array([1.0, 100.0, 10000.0]), np.array([0.0, 40.0, 60.0])
    found = drawings.temperature_for(50, temperatures, shares)
    assert found == pytest.approx(1000)


def test_the_effective_share_of_known_weights():
    one = torch.zeros(1, 4, 2).double()
    one[0, 1, 1] = 1
    assert drawings.effective_share(one) == pytest.approx(100 / 8)
    assert drawings.effective_share(torch.full((2, 4, 2), 1 / 8).double()) == pytest.approx(100)


def test_squares_are_at_the_mean_and_diamonds_as_spread_as_l1():
    f = torch.rand(2, 16, 4, 2, generator=torch.Generator().manual_seed(0)).double()
    temperatures = np.array([0.1, 1.0, 10.0, 100.0])
    shares = [[10.0, 20.0, 90.0, 100.0]]
    [ax] = drawings.draw_temperatures([f], temperatures, shares).axes
    curve, square, diamond, eq1 = ax.lines
    np.testing.assert_allclose(curve.get_ydata(), shares[0])
    assert square.get_xdata()[0] == 16
    p = f.sum(1) / f.sum((1, 2, 3))[:, None, None]
    l1 = (100 * (-(p * p.log()).sum((1, 2))).exp() / 8).mean().item()
    np.testing.assert_allclose(diamond.get_ydata(), [l1])
    assert list(eq1.get_xdata()) == [1, 1]


def test_every_person_has_a_row_of_maps():
    pictures = np.zeros((2, 8, 4, 3), np.uint8)
    weights = [{"T = 1": torch.eye(2), "l1": torch.full((2, 2), 0.25)}] * 2
    fig = drawings.draw_weight_maps(pictures, weights, "made")
    titles = [ax.get_title() for ax in fig.axes]
    assert titles == ["image", "T = 1\nlargest 100 %", "l1\nlargest 25 %"] * 2


def test_the_ring_is_at_the_best_rate():
    rows = []
    for form, best in (("none", 0.2), ("l1", 0.1), ("softmax", 0.1)):
        for lr in (0.1, 0.2):
            rows += [{"form": form, "lr": lr, "mAP": (lr == best) + m} for m in (10.0, 20.0)]
    second = pd.DataFrame(rows)
    change = pd.DataFrame(
        {"Δ": [-1.0, -2.0], "low": [-3.0, -5.0], "high": [0.5, 1.0]}, index=[0.1, 0.2]
    )
    best = {"none": 0.2, "l1": 0.1, "softmax": 0.1}
    left, right = drawings.draw_rates(second, best, {"softmax": change}).axes
    rings = [line for line in left.lines if line.get_markersize() == 12]
    found = [line.get_xydata()[0].tolist() for line in rings]
    assert found == [[0.2, 16], [0.1, 16], [0.1, 16]]
    [bars] = right.collections
    ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
    np.testing.assert_allclose(ends, [[-3, 0.5], [-5, 1]])


def test_losses_are_those_of_the_common_rate():
    records = []
    for k, form in enumerate(("none", "l1", "softmax")):
        for lr in (0.05, 0.1):
            heads = ("stage1", "stage2", "stage3", "final")
            loss = k if lr == 0.05 else 100
            history = [{"losses": dict.fromkeys(heads, loss + epoch)} for epoch in (1, 2)]
            records.append({"config": {"form": form, "lr": lr}, "history": history, "classes": 8})
    for ax in drawings.draw_branch_losses(records).axes:
        *curves, guessing = ax.lines
        assert [line.get_ydata().tolist() for line in curves] == [[1, 2], [2, 3], [3, 4]]
        np.testing.assert_allclose(guessing.get_ydata(), np.log(8))


def test_an_interval_below_zero_is_orange():
    lost = {"low": -3.0, "high": -1.0, "Δ": -2.0, "deltas": [-2.5, -1.5], "seeds": 2}
    open_ = lost | {"high": 1.0}
    found = {"lost": {"mAP": lost}, "open": {"mAP": open_}}
    [ax] = drawings.draw_causes(found).axes
    bars = [line for line in ax.lines if line.get_linewidth() == 4]
    assert [line.get_color() for line in bars] == ["C3", "C0"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["lost", "open"]
