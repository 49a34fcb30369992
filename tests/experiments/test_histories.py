"""Tables of what trainings recorded, against plain loops and numbers worked out by hand."""

import json

import numpy as np
import pandas as pd
import pytest

from reidsa_utils.experiments.histories import (
    against_gap,
    demo_runs,
    epoch_table,
    first_step_table,
)
from reidsa_utils.experiments.records import ROOT


@pytest.fixture(scope="module")
def softmax_run():
    """One committed run, as its file says it."""
    path = (
        ROOT / "results" / "market1501-rendered-demo-b_p_ds_sa2-softmax-paper-erasing-e18-s1.json"
    )
    return json.loads(path.read_text())


def test_a_row_of_an_epoch(softmax_run):
    table = epoch_table(demo_runs())
    [row] = table[(table.form == "softmax") & (table.seed == 1) & (table.epoch == 7)].to_dict(
        "records"
    )
    line = softmax_run["history"][6]
    assert row["accuracy"] == pytest.approx(100 * line["accuracy"])
    assert row["l_F"] == line["losses"]["final"] and row["l_s2"] == line["losses"]["stage2"]
    parts = [line["losses"][f"part{k}"] for k in (1, 2, 3, 4, 5, 6)]
    assert row["parts"] == pytest.approx(sum(parts) / 6)
    assert row["branch 3"] == line["first_step"]["softmax"]["through"][2]
    assert row["layer 4"] == line["gradient"]["mean"][3]
    assert row["scatter 4"] == line["gradient"]["sd"][3] / line["gradient"]["mean"][3]


def test_a_row_of_a_first_step(softmax_run):
    table = first_step_table(demo_runs())
    assert len(table) == 15 * 18 * 5 * 3  # runs, epochs, forms, stages
    chosen = (table["trained with"] == "softmax") & (table.seed == 1) & (table.epoch == 7)
    [row] = table[chosen & (table.form == "l1") & (table.stage == 2)].to_dict("records")
    inside = softmax_run["history"][6]["first_step"]["l1"]
    assert row["share"] == inside["cells"][1] and row["through"] == inside["through"][1]


def test_differences_to_gap_by_hand():
    """Two seeds, three epochs, of which two count; the seeds of a form in another order."""
    rows = [
        ("none", 0, [9, 1, 3]),
        ("none", 1, [9, 2, 2]),
        ("softmax", 1, [0, 5, 7]),
        ("softmax", 0, [0, 2, 4]),
        ("l1", 0, [0, 1, 1]),
        ("l1", 1, [0, 4, 4]),
    ]
    lines = [
        {"form": form, "seed": seed, "epoch": epoch, "loss": value}
        for form, seed, values in rows
        for epoch, value in enumerate(values, 1)
    ]
    table = against_gap(pd.DataFrame(lines), {"a loss": "loss"}, range(2, 4))
    row = table.loc["a loss"]
    assert row["GAP", "mean"] == 2
    # softmax: 3 - 2 and 6 - 2; l1: 1 - 2 and 4 - 2
    assert (row["softmax", "Δ"], row["softmax", "Δ > 0"]) == (2.5, 2)
    assert (row["l1", "Δ"], row["l1", "Δ > 0"]) == (0.5, 1)
    assert row["softmax", "sd"] == pytest.approx(np.std([1, 4], ddof=1))
