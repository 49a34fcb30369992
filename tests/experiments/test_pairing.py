"""Runs in pairs: by seed, with the same settings, beside the paper's difference."""

import json

import numpy as np
import pytest
from conftest import ROOT
from made_records import record

from reidsa_utils import InputError
from reidsa_utils.experiments import pairing, tables
from reidsa_utils.experiments.pairing import (
    METRICS,
    between,
    effects,
    pair_difference,
    pairs_of,
    pick,
    pooled,
    pooled_effects,
)
from reidsa_utils.experiments.records import numerics
from reidsa_utils.experiments.statistics import bootstrap, pool, verdict


def test_effects_by_hand():
    """Two seeds with a partner, one without; a query without a match counts nowhere."""
    runs = [
        record("b_p_ds", "none", 0, [1, 2, 0, 1], [0.5, 0.3, None, 0.4]),
        record("b_p_ds", "none", 1, [2, 2, 0, 1], [0.2, 0.2, None, 0.5]),
        record("b_p_ds_sa2", "l1", 0, [1, 1, 0, 1], [0.6, 0.5, None, 0.4]),
        record("b_p_ds_sa2", "l1", 1, [1, 1, 0, 2], [0.5, 0.5, None, 0.2]),
        record("b_p_ds_sa2", "l1", 7, [1, 1, 0, 1], [0.9, 0.9, None, 0.9]),
        record("b_ds_sa2", "l1", 0, [1, 1, 0, 1], [0.9, 0.9, None, 0.9]),
    ]
    e = effects(runs).set_index("metric")
    assert len(e) == 2 and (e.variant == "b_p_ds_sa2").all() and (e.seeds == 2).all()
    assert e.loc["mAP", "deltas"] == pytest.approx([10, 10]) and e.loc[
        "mAP", "sd"
    ] == pytest.approx(0)
    assert e.loc["rank-1", "deltas"] == pytest.approx([100 / 3, 100 / 3]) and e.loc[
        "mAP", "without"
    ] == pytest.approx(35)
    assert e.loc["rank-1", "paper"] == pytest.approx(0.8) and e.loc[
        "mAP", "paper"
    ] == pytest.approx(2.1)  # Table 3: with erasing
    for name, variant in (
        ("table3", "b_p_ds_sa2"),
        ("", "b_p_ds_sa12"),
    ):  # SA1 with erasing is in no table of the paper
        runs[2]["config"]["variant"] = variant
        first = effects(runs[:3])
        assert (
            (first.variant == variant).all()
            and (first.table == name).all()
            and first.paper.isna().all() == (name == "")
        )
    runs[2]["config"]["variant"] = "b_p_ds_sa2"
    for r in runs:
        r["config"]["erasing"] = False
    e2 = effects(runs).set_index("metric")
    assert (e2.table == "table2").all() and e2.loc["mAP", "paper"] == pytest.approx(78.2 - 77.0)
    # the interval is bootstrap's, over the three queries with a match
    d = np.array([[0.1, 0.2, 0.0], [0.3, 0.3, -0.3]])
    low, high = np.quantile(100 * bootstrap(d, np.array([1, 1, 3])), [0.025, 0.975])
    assert (e.loc["mAP", "low"], e.loc["mAP", "high"]) == pytest.approx((low, high))
    with pytest.raises(
        InputError,
        match="two records of market1501, b_p_ds, form none, seed 0 with the same settings; "
        "keep one",
    ):
        effects([*runs, runs[0]])
    runs[1]["identity"] = {"fingerprint": "other data"}
    assert (effects(runs).seeds == 1).all()  # runs on other data are no partners
    del runs[0]["metrics"]["parts"]["first_match"]
    alone = effects(runs).set_index("metric")
    assert np.isnan(alone.loc["rank-1", "low"]) and np.isfinite(
        alone.loc["mAP", "low"]
    )  # an old record: mAP only


def test_a_difference_of_any_two_cells():
    """Not only SA against none: the same statistics as effects(), from pairs of runs."""
    runs = [
        record("b_p_ds", "none", s, [1, 2, 0, 1], [0.5, 0.3 + 0.1 * s, None, 0.4]) for s in (0, 1)
    ]
    others = [
        record("b_p_ds_sa2", "l1", s, [1, 1, 0, 2], [0.6, 0.5, None, 0.1 + 0.1 * s]) for s in (0, 1)
    ]
    e = effects(runs + others).set_index("metric")
    with_sa = [r["metrics"] for r in others]
    without = [r["metrics"] for r in runs]
    ids = runs[0]["query_ids"]
    for metric in METRICS:
        d = pair_difference(with_sa, without, metric, "parts", ids)
        assert all(
            d[k] == pytest.approx(e.loc[metric, k], nan_ok=True)
            for k in ("Δ", "low", "high", "p", "sd", "smallest")
        )
    back = pair_difference(without, with_sa, "mAP", "parts", ids)
    assert back["Δ"] == pytest.approx(-d["Δ"]) and back["low"] == pytest.approx(-d["high"], abs=0.5)


def test_two_settings_at_different_rates():
    """Each form at its own rate: what is named may differ, anything else is refused."""
    runs = []
    for variant, form, lr, shift in (
        ("b_p_ds", "none", 0.05, 0.0),
        ("b_p_ds", "none", 0.1, 0.1),
        ("b_p_ds_sa2", "l1", 0.05, 0.2),
        ("b_p_ds_sa2", "l1", 0.025, 0.3),
    ):
        for seed in (2, 0, 1):
            r = record(variant, form, seed, [1, 2, 1], [0.3 + shift + 0.01 * seed, 0.2, 0.4])
            r["config"]["lr"] = lr
            runs.append(r)
    sa, plain = {"form": "l1", "variant": "b_p_ds_sa2"}, {"form": "none", "variant": "b_p_ds"}
    d = between(runs, sa | {"lr": 0.025}, plain | {"lr": 0.1})
    assert (
        d["mAP"]["seeds"] == 3
        and d["mAP"]["Δ"] == pytest.approx(100 * 0.2 / 3)
        and d["rank-1"]["Δ"] == 0
    )
    assert d["mAP"]["deltas"] == pytest.approx([100 * 0.2 / 3] * 3)
    with pytest.raises(
        InputError, match="differ in lr \\(0.05 and 0.025\\)|differ in lr \\(0.025 and 0.05\\)"
    ):
        between(runs, sa, plain | {"lr": 0.1})
    runs[-1]["config"]["seed"] = 0
    with pytest.raises(
        InputError, match="two runs with form=l1, variant=b_p_ds_sa2, lr=0.025 have the seed 0"
    ):
        pick(runs, sa | {"lr": 0.025})
    for r in runs[:3]:
        r["config"]["flip"] = False
    with pytest.raises(InputError, match="differ in flip, too \\(True and False\\); name it"):
        between(runs[:-1], sa | {"lr": 0.05}, plain | {"lr": 0.05})
    for wanted, words in (
        ({"rate": 1}, "unknown setting 'rate'"),
        ({"lr": 7.0}, "no seed has both"),
    ):
        with pytest.raises(InputError, match=words):
            between(runs[:-1], sa | wanted, plain | {"lr": 0.1})


def test_pairs_share_the_numerics():
    """Whatever else is equal, two versions of what training computes are no pair."""
    with_sa = record("b_p_ds_sa2", "l1", 0, [1, 2, 0, 3], [1.0, 0.5, None, 0.4])
    without = record("b_p_ds", "none", 0, [1, 2, 0, 3], [1.0, 0.5, None, 0.4])
    assert len(effects([with_sa, without])) == 2
    without["code"] = {"numerics": 2}
    with pytest.raises(InputError, match="were made by versions 1 and 2 of the numerics"):
        effects([with_sa, without])
    without["code"] = {"sources": "907110d33b849d2f"}  # an older record, known by its hash
    assert len(effects([with_sa, without])) == 2
    without["code"] = {"sources": "0123456789abcdef"}
    with pytest.raises(InputError, match="code 0123456789abcdef does not say which numerics"):
        effects([with_sa, without])


def test_every_committed_record_says_its_numerics():
    paths = [*(ROOT / "results").glob("*.json"), *(ROOT / "results").glob("*/*-s*.json")]
    versions = [numerics(r) for r in map(json.loads, (p.read_text() for p in paths)) if "code" in r]
    assert len(versions) > 130 and set(versions) <= {1, 2}


def study(rng, benchmarks, effect, tau, of_seeds=1.0, of_people=6.0, people=60):
    """Records of two variants with SA that share a baseline, on each of some benchmarks.

    In points: the effect of a setting is `effect` give or take tau; every run and every person adds
    something, and the people of a benchmark are those of both variants.
    """
    records = []
    for benchmark in benchmarks:
        for_person = {}
        shared = rng.normal(0, of_people, people)
        levels = {"b_p_ds": 0.0}
        for variant in ("b_p_ds_sa2", "b_p_ds_sa12"):
            levels[variant] = effect + rng.normal(0, tau)
            for_person[variant] = shared + rng.normal(0, of_people / 2, people)
        for variant, level in levels.items():
            form = "none" if variant == "b_p_ds" else "l1"
            for seed in range(3):
                points = level + rng.normal(0, of_seeds) + rng.normal(0, 2, people)
                points += for_person.get(variant, 0.0)
                made = record(variant, form, seed, [1] * people, (0.5 + points / 100).tolist())
                made["config"]["benchmark"] = made["identity"]["fingerprint"] = benchmark
                made["query_ids"] = list(range(people))
                records.append(made)
    return records


def test_a_pooled_interval_holds_its_level():
    """Settings that share baselines and people, as the tables' do: 95 % hold the true effect.

    As if they shared nothing, the intervals would be too narrow.
    """
    rng = np.random.default_rng(4)
    benchmarks = ("market1501", "dukemtmc_reid", "cuhk03_np_labeled")
    inside = narrow = 0
    studies = 300
    for _ in range(studies):
        records = study(rng, benchmarks, effect=2.0, tau=0.5)
        found = pooled(records, {"form": "l1"}, repeats=20)
        assert found["settings"] == 6 and found["seeds"] == 3
        inside += found["low"] <= 2.0 <= found["high"]
        variances = np.array([np.var(row["deltas"], ddof=1) / 3 for row in found["rows"]])
        alone = pool([row["Δ"] for row in found["rows"]], np.diag(variances))
        narrow += alone["low"] <= 2.0 <= alone["high"]
    assert 0.93 * studies <= inside <= 0.99 * studies
    assert narrow < 0.9 * studies


def test_what_is_pooled():
    """Settings with three seeds; no turned setting that is not asked for; the paper's own gains."""
    rng = np.random.default_rng(0)
    records = study(rng, ("market1501", "cuhk03_np_labeled"), 1.0, 0.0)
    for made in study(rng, ("dukemtmc_reid",), 1.0, 0.0):
        if made["config"]["seed"] < 2:
            records.append(made)  # two seeds
    for made in study(rng, ("market1501",), 9.0, 0.0):
        made["config"]["lr"] = 0.2
        records.append(made)
    assert len(pairs_of(records)) == 8
    wanted = {"form": "l1", "variant": "b_p_ds_sa2"}
    found = pooled(records, wanted, repeats=20)
    assert [row["benchmark"] for row in found["rows"]] == ["market1501", "cuhk03_np_labeled"]
    assert found["paper"] == pytest.approx((2.1 + 1.1) / 2)
    assert pooled(records, {"form": "l1"}, repeats=20)["settings"] == 4
    by_form = pooled_effects(records, {"variant": "b_p_ds_sa2"}, repeats=20)
    assert set(by_form) == {("l1", "rank-1"), ("l1", "mAP")}
    assert by_form["l1", "mAP"]["Δ"] == found["Δ"]
    [_, of_map] = tables.pooled_rows("made up", by_form)
    assert of_map["settings"] == 2 and of_map["verdict"] == verdict(found, found["paper"])
    # SA1 with erasing is in no table of the paper: nothing is claimed, so there is no word.
    alone = pooled_effects(records, {"variant": "b_p_ds_sa12"}, repeats=20)
    assert [row["verdict"] for row in tables.pooled_rows("made up", alone)] == ["", ""]
    with pytest.raises(
        InputError, match="variant=b_p_ds_sa2, lr=0.2 and 3 seeds or more: 1; a pooled"
    ):
        pooled(records, wanted | {"lr": 0.2}, repeats=20)
    with pytest.raises(InputError, match="unknown setting 'rate'"):
        pooled(records, {"rate": 1}, repeats=20)


def test_the_same_people_in_other_boxes_share_their_error():
    """Identity by identity: CUHK03-NP labeled and detected, and a part of them at another scale."""
    rng = np.random.default_rng(0)
    names = ("market1501", "dukemtmc_reid", "cuhk03_np_labeled", "cuhk03_np_detected")
    chosen, of_people = [], []
    for k, pair in enumerate(pairs_of(study(rng, names, 1.0, 0.0))):
        if pair.setting.variant == "b_p_ds_sa2":
            chosen.append(pair)
            ids = np.arange(10) if k else np.arange(5, 15)
            of_people.append((ids, rng.normal(size=10)))
    assert [dict(pair.setting.rest)["benchmark"] for pair in chosen] == [*names]
    other_scale = chosen[0].setting._replace(data="market1501 at another scale")
    chosen.append(chosen[0]._replace(setting=other_scale))
    of_people.append((np.arange(8, 18), rng.normal(size=10)))
    found = pairing._people_covariance(chosen, of_people)
    assert found[2, 3] == found[3, 2] == pytest.approx(of_people[2][1] @ of_people[3][1])
    # Ids 8 to 14 are in both.
    assert found[0, 4] == pytest.approx(of_people[0][1][3:] @ of_people[4][1][:7])
    for i, (_, u) in enumerate(of_people):
        assert found[i, i] == pytest.approx(u @ u)
    estimates = rng.normal(size=5)
    once = pairing._each_population_once(chosen, estimates, found)
    # Three populations: Market-1501 at two scales, DukeMTMC-reID, CUHK03-NP in two kinds of boxes.
    mean = np.array([[0.5, 0, 0, 0, 0.5], [0, 1, 0, 0, 0], [0, 0, 0.5, 0.5, 0]])
    expected = pool(mean @ estimates, mean @ found @ mean.T)
    assert once["populations"] == 3
    assert [once[key] for key in ("once", "once_low", "once_high")] == pytest.approx(
        [expected[key] for key in ("Δ", "low", "high")]
    )
    assert np.isnan(pairing._each_population_once(chosen[:1], estimates[:1], found[:1, :1])["once"])
    found[[2, 3, 0, 4], [3, 2, 4, 0]] = 0
    assert np.count_nonzero(found) == 5


def test_people_that_a_record_does_not_tell():
    """Older records do not say who is right at rank 1: such a setting gets the others' mean."""
    rng = np.random.default_rng(0)
    records = study(rng, ("market1501", "cuhk03_np_labeled"), 1.0, 0.0)
    wanted = {"form": "l1", "variant": "b_p_ds_sa2"}
    told = pooled(records, wanted, repeats=20)
    for made in records:
        if made["config"]["benchmark"] == "market1501":
            del made["metrics"]["parts"]["average_precision"]
    half = pooled(records, wanted, repeats=20)
    assert half["Δ"] == pytest.approx(told["Δ"], abs=0.5)
    assert half["high"] - half["low"] > 0.5 * (told["high"] - told["low"])
    for made in records:
        made["metrics"]["parts"].pop("average_precision", None)
    none = pooled(records, wanted, repeats=20)
    assert none["high"] - none["low"] < half["high"] - half["low"]
