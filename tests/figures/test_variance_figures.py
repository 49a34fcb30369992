"""Figures of appendix 06a: they show the numbers that they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from reidsa_utils.experiments.variance import components, seed_at_home, smallest_effect
from reidsa_utils.figures.variance import draw_components, draw_power, draw_scores


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def scores(seed):
    return np.random.default_rng(seed).normal(40, 3, (3, 2, 3))


def test_every_score_is_written_in_its_place_and_home_is_framed():
    y = scores(0)
    ax = draw_scores(y, "made").axes[0]
    written = {tuple(text.get_position()): text.get_text() for text in ax.texts}
    for d in range(3):
        for s in range(2):
            for t in range(3):
                assert written[t, 2 * d + s] == f"{y[d, s, t]:.1f}"
    assert len(written) == y.size
    corners = [(patch.get_x(), patch.get_y()) for patch in ax.patches]
    np.testing.assert_allclose(corners, [(d - 0.48, 2 * d - 0.45) for d in range(3)])


def test_components_stand_in_their_panel_with_their_interval():
    tables = {"no SA": components(scores(1)), "l1 − no SA": components(scores(2))}
    axes = draw_components(tables, "made").axes
    for ax, (name, table) in zip(axes, tables.items(), strict=True):
        assert ax.get_title() == name
        [container] = ax.containers
        dots, _, (bars,) = container
        np.testing.assert_allclose(np.array(dots.get_xdata(), float), table.sd.to_numpy())
        ends = np.array([segment[:, 0] for segment in bars.get_segments()])
        expected = np.stack([np.minimum(table.low, table.sd), table.high], axis=1)
        np.testing.assert_allclose(ends, expected)


def test_the_curve_is_the_smallest_effect():
    spread = seed_at_home(scores(3))
    ax = draw_power({"l1": spread}, 2.1, "made").axes[0]
    curve, paper, one = ax.lines
    for seeds, effect in zip(*curve.get_data(), strict=True):
        assert effect == pytest.approx(smallest_effect(spread["sd"], int(seeds)))
    assert set(paper.get_ydata()) == {2.1} and set(one.get_ydata()) == {1}
