"""Records into tables for people."""

import pytest
from made_records import record

from reidsa_utils.experiments.pairing import effects
from reidsa_utils.experiments.tables import aggregate, run_table


def test_aggregate_by_hand():
    cells = aggregate(
        run_table(
            [
                record("b_p_ds", "none", 0, [1, 2], [0.5, 0.3]),
                record("b_p_ds", "none", 1, [1, 1], [0.6, 0.4]),
            ]
        )
    )
    assert (
        len(cells) == 1
        and cells.rank1[0] == pytest.approx(75)
        and cells.rank1_sd[0] == pytest.approx(1250**0.5)
    )
    assert cells.mAP[0] == pytest.approx(45) and cells.seeds[0] == 2


def test_runs_with_other_settings_are_told_apart():
    """A setting that differs from the profile parts the rows of a table, and is named there."""
    runs = [record("b_p_ds", "none", s, [1, 2], [0.5, 0.3]) for s in (0, 1)]
    runs += [record("b_p_ds_sa2", "l1", s, [1, 1], [0.6, 0.5]) for s in (0, 1)]
    for r in [
        record("b_p_ds", "none", 0, [2, 2], [0.1, 0.1]),
        record("b_p_ds_sa2", "l1", 0, [1, 2], [0.2, 0.1]),
    ]:
        r["config"] |= {"lr": 0.1, "data_seed": 3, "height": 192}  # 192 is the profile's own
        runs.append(r)
    cells = aggregate(run_table(runs))
    assert sorted(zip(cells.other, cells.variant, cells.seeds, strict=True)) == [
        ("", "b_p_ds", 2),
        ("", "b_p_ds_sa2", 2),
        ("data_seed=3, lr=0.1", "b_p_ds", 1),
        ("data_seed=3, lr=0.1", "b_p_ds_sa2", 1),
    ]
    e = effects(runs)
    assert e[e.metric == "mAP"].groupby("other").seeds.first().to_dict() == {
        "": 2,
        "data_seed=3, lr=0.1": 1,
    }
