"""Records into tables for people."""

import re

import numpy as np
import pytest
from made_records import record

from reidsa_utils import InputError
from reidsa_utils.experiments.pairing import between, effects
from reidsa_utils.experiments.records import published_name
from reidsa_utils.experiments.tables import aggregate, gap, in_order, markdown, run_table, title


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


def own_runs(**settings):
    """A pair of runs on data of one's own, with SA and without."""
    runs = [
        record("b_p_ds", "none", 0, [1, 2], [0.5, 0.3]),
        record("b_p_ds_sa2", "l1", 0, [1, 1], [0.7, 0.5]),
    ]
    for r in runs:
        r["config"] |= {"benchmark": "mydata"} | settings
        r["source"] = "real"
    return runs


def test_own_data_stand_in_the_tables():
    """Behind the benchmarks, under their name, without the paper's numbers."""
    market = [record(*run, 0, [1, 2], [0.5, 0.3]) for run in (("b", "none"), ("b_p_ds", "none"))]
    zoo = own_runs(benchmark="zoo")
    cells = in_order(run_table([*zoo, *own_runs(), *market]))
    assert list(dict.fromkeys(cells.benchmark)) == ["market1501", "mydata", "zoo"]
    assert title("mydata") == "mydata" and title("market1501") == "Market-1501"
    for erasing, table in ((True, "table3"), (False, "table2")):
        rows = effects(own_runs(erasing=erasing))
        assert set(rows.table) == {table} and rows.paper.isna().all()
        assert rows[rows.metric == "mAP"]["Δ"].item() == pytest.approx(20)
    assert np.isnan(gap(0.5, 0.3, "mydata", "b_p_ds", True)).all()


def test_runs_without_the_camera_rule_are_never_paired_with_others():
    ruled, free = own_runs(camera_pattern="c(1|2)"), own_runs(camera_rule=False)
    for mixed in ([ruled[0], free[1]], [free[0], ruled[1]]):
        assert effects(mixed).empty
        with pytest.raises(InputError, match="differ in camera_"):
            between(
                mixed,
                {"form": "l1", "variant": "b_p_ds_sa2"},
                {"form": "none", "variant": "b_p_ds"},
            )
    rows = effects([*ruled, *free])
    assert sorted(set(rows.other)) == ["camera_pattern=c(1|2)", "camera_rule=False"]
    assert len(aggregate(run_table([*ruled, *free]))) == 4
    text = markdown(rows.assign(holm=np.nan), "Table 3")
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 14 for line in text[2:-1])
    assert sum("camera_rule=False" in line for line in text) == 2
    names = {published_name(r) for r in (*ruled, *free)}
    assert len(names) == 4 and sum("-no_camera_rule-" in name for name in names) == 2
    assert all(re.fullmatch(r"[\w-]+", name) for name in names)  # a file can be called so


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
