"""Records into tables for people."""

import re

import numpy as np
import pytest
from made_records import record

from reidsa_utils import InputError
from reidsa_utils.data import PUBLISHED
from reidsa_utils.experiments.pairing import BASE, between, effects
from reidsa_utils.experiments.records import published_name
from reidsa_utils.experiments.tables import (
    aggregate,
    agreement_with_table2,
    as_markdown,
    conclusions,
    effect_table,
    effective_positions,
    gap,
    in_order,
    judge,
    markdown,
    overview,
    real_levels,
    reranking_gains,
    run_table,
    signs,
    title,
)


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


def pair(variant="b_p_ds_sa2", form="l1", seed=0, **settings):
    """Runs of one seed, with SA and without: 20 points apart in mAP."""
    runs = [
        record("b_p_ds", "none", seed, [1, 2], [0.5, 0.3]),
        record(variant, form, seed, [1, 1], [0.7, 0.5]),
    ]
    for r in runs:
        r["config"] |= settings
    return runs


def test_lines_are_named_by_what_they_do_not_share():
    judged = judge(effects(pair()))
    table = effect_table(judged)
    assert list(table.index.get_level_values("setting")) == ["Market-1501, laptop"] * 2
    assert list(table.index.names) == ["setting", "form", "metric"]
    released = pair(recipe="released", lr=0.1)
    for r in released:
        r["source"] = "real"
    names = effect_table(judge(effects(pair() + released))).index.get_level_values("setting")
    assert set(names) == {
        "Market-1501, laptop, rendered",
        "Market-1501, laptop, released, real, lr=0.1",
    }


def test_only_settings_with_three_seeds_are_tested():
    """Holm over the tested differences of one setting; a turned knob has its own figure."""
    records = [r for seed in range(3) for r in pair(seed=seed)]
    records += pair(form="softmax")[1:] + pair(occlusion=0.6)
    judged = judge(effects(records))
    assert set(judged.form) == {"softmax", "l1"} and judged.occlusion.isna().all()
    assert set(judged[judged.tested].form) == {"l1"} and judged.tested.sum() == 2
    assert judged.holm.notna().equals(judged.tested)
    tested = judged[judged.tested]
    assert tested.holm.tolist() == pytest.approx([2 * p for p in tested.p])  # two equal ones
    [of_l1, of_softmax] = sorted(conclusions(judged))
    assert "SA as l1: an improvement is shown (comparisons with three seeds or more: 1; of" in of_l1
    assert of_softmax.endswith("SA as softmax: no setting has 3 seeds, so nothing is claimed")
    assert conclusions(judged[:0]) == ["no pair of runs, so no claim"]
    text = as_markdown(judged)
    assert of_l1 in text and text.count("| rendered |") == len(judged)


def test_conclusions_in_both_directions():
    judged = judge(effects([r for seed in range(3) for r in pair(seed=seed)]))
    worse = judged.assign(**{"Δ": -judged["Δ"]})
    assert "wherever a difference is shown, it is a loss" in conclusions(worse)[0]
    both = judged.assign(**{"Δ": judged["Δ"] * [1, -1]})
    assert "better in some settings and worse in others" in conclusions(both)[0]
    neither = judged.assign(holm=0.5)
    assert "neither improvement nor harm is shown" in conclusions(neither)[0]


def test_signs_in_brackets_are_not_shown():
    records = [r for seed in range(3) for r in pair(seed=seed)] + pair(form="softmax")[1:]
    table = signs(judge(effects(records)), "table3", "parts")
    assert table["Market-1501"].xs("l1", level="form").tolist() == ["+", "+"]
    assert table["Market-1501"].xs("softmax", level="form").tolist() == ["(+)", "(+)"]


def test_overview_counts_seeds_of_settings():
    records = [r for seed in range(3) for r in pair(seed=seed)] + pair(form="softmax", seed=7)[1:]
    for r in records:
        r["metrics"]["global"] = r["metrics"]["parts"]
    table = overview(run_table(records))
    assert len(table) == 1
    assert table.iloc[0].tolist() == [7, 3, 2]


def test_the_paper_agrees_with_itself():
    """Levels equal to Table 2's give taus of one, and opposite ones minus one."""
    for sign, tau in ((1, "+1.00"), (-1, "-1.00")):
        records = []
        for variant, (rank1, mean_ap) in PUBLISHED["table2"].items():
            form = "none" if variant in BASE.values() else "l1"
            made = record(variant, form, 0, [1], [0.5])
            made["config"]["erasing"] = False
            levels = {"rank1": sign * rank1 / 100, "mean_ap": sign * mean_ap / 100}
            made["metrics"] = {"global": made["metrics"]["parts"] | levels}
            records.append(made)
        table = agreement_with_table2(run_table(records))
        assert len(table) == 2 and (table.iloc[:, -3:] == tau).all(axis=None)
    assert agreement_with_table2(run_table(records[1:])).empty


def test_real_levels_beside_the_papers():
    assert real_levels(run_table(pair())).empty
    records = pair(erasing=False)
    for r in records:
        r["source"] = "real"
    table = real_levels(run_table(records))
    assert table.loc[("b_p_ds", "none", "nothing", 10, "parts"), "paper's mAP"] == 77.0
    assert table["gap mAP"].tolist() == pytest.approx([40 - 77.0, 60 - 78.2])


def test_what_reranking_adds():
    records = pair()
    reranked = {"rank1": 1.0, "mean_ap": 0.9, "mean_ap_trapezoid": 0.9}
    records[1]["metrics"]["parts+rerank"] = reranked
    gains = reranking_gains(run_table(records))
    paper = gains.loc[("published", "real", "", "")]
    assert paper["Market-1501", "mAP"] == pytest.approx(10.0)  # the abstract's 91.7 after 81.7
    ours = gains.loc[("laptop", "rendered", "paper", "l1")]
    assert ours["Market-1501"].tolist() == pytest.approx([0.0, 30.0])
    assert "DukeMTMC-reID" not in ours.dropna()


def test_effective_positions_of_the_last_epoch():
    records = pair()
    share = {"l1": {"cells": [0.9, 0.8, 0.7]}, "softmax": {"cells": [0.1, 0.1, 0.1]}}
    last = {"l1": {"cells": [0.5, 0.4, 0.3]}, "softmax": {"cells": [0.1, 0.1, 0.1]}}
    records[1]["history"] = [{"first_step": share}, {"first_step": last}]
    records[0]["history"] = records[1]["history"]  # without SA nothing is weighted
    table = effective_positions(records)
    assert table.loc[("l1", "rendered", "yes", "last")].tolist() == [1, 50, 40, 30]
    assert len(table) == 2
    assert effective_positions([]).empty
