"""Runs in pairs: by seed, with the same settings, beside the paper's difference."""

import json

import numpy as np
import pytest
from conftest import ROOT
from made_records import record

from reidsa_utils import InputError
from reidsa_utils.experiments.pairing import METRICS, between, effects, pair_difference, pick
from reidsa_utils.experiments.records import numerics
from reidsa_utils.experiments.statistics import bootstrap


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
