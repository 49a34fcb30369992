"""Figures of notebook 07: a map's scale, frames of hits and misses, lines of a forest plot."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from reidsa_utils.experiments.statistics import difference
from reidsa_utils.figures.maps import (
    TOP,
    Measure,
    Panel,
    draw_forest,
    draw_panels,
    listed,
    times_flat,
)
from reidsa_utils.figures.style import FRAMES

GREY = np.full((24, 8, 3), 128, np.uint8)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_a_map_is_shown_in_times_a_flat_one():
    flat = torch.full((3, 2), 0.7)
    assert times_flat(flat) == pytest.approx(np.ones((3, 2)))
    one = torch.tensor([[0.0, 5.0], [-3.0, 0.0]])
    assert times_flat(one).tolist() == [[0, 4], [0, 0]]
    assert (times_flat(-flat) == 0).all()  # no position speaks for the class


def test_all_panels_share_one_scale():
    """The same value has the same colour, whatever the peak of its map; above TOP nothing grows."""

    def colour_of_first(m):
        fig = draw_panels([[Panel(GREY, m)]], "a heading")
        return fig.axes[0].images[0].get_array()[5, 5].tolist()

    with_peak = torch.ones(4, 4)
    with_peak[3, 3] = 3.0
    with_peak[3, 0] = 0.0
    with_peak[2, 3] = 0.0  # sums to 16 again, so that the first position is 1 times a flat map
    assert colour_of_first(torch.ones(4, 4)) == colour_of_first(with_peak)
    high, higher = torch.zeros(4, 4), torch.zeros(4, 4)
    high[:1, :2] = 1.0  # 8 times a flat map
    higher[0, 0] = 1.0  # 16 times
    assert TOP < 8 and colour_of_first(high) == colour_of_first(higher)


def test_frames_and_signs_tell_hits_from_misses():
    panels = listed(np.stack([GREY, GREY]), [False, True])
    assert [p.title for p in panels] == ["1 ✗", "2 ✓"]
    fig = draw_panels([[Panel(GREY), None, *panels]], "a heading", ["a row"])
    shown = [ax for ax in fig.axes if ax.axison]
    frames = [ax.spines["left"].get_edgecolor() for ax in shown[1:]]
    wanted = [plt.matplotlib.colors.to_rgba(FRAMES[kind]) for kind in ("error", "match")]
    assert frames == wanted
    assert len(fig.axes) == 4  # no colour bar where there is no map


def test_a_forest_line_is_the_interval_of_its_form_and_stage():
    rng = np.random.default_rng(0)
    found = {
        form: [difference(rng.random(3), rng.random(3)) for _ in range(2)]
        for form in ("l1", "softmax")
    }
    crosses = {"chance": [{"l1": 7.0}, {"softmax": 9.0}]}
    fig = draw_forest([Measure("a title", found, marks=crosses)], ["stage 1", "stage 2"], "a")
    [ax] = fig.axes
    bars = {}
    for line in ax.lines:
        x, y = line.get_data()
        if len(x) == 2 and y[0] == y[1] and line.get_linewidth() == 4:
            bars[y[0]] = tuple(x)
    # Forms in their fixed order, softmax first; a free line between the stages.
    for y, (form, stage) in {0: ("softmax", 0), 1: ("l1", 0), 3: ("softmax", 1)}.items():
        row = found[form][stage]
        assert bars[y] == pytest.approx((row["low"], row["high"]))
    marks = [line.get_data() for line in ax.lines if line.get_marker() == "x"]
    assert [(float(x[0]), float(y[0])) for x, y in marks] == [(7.0, 1.0), (9.0, 3.0)]
    assert list(ax.get_yticks()) == [0.5, 3.5]
