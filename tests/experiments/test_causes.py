"""Why the softmax fails: the numbers of notebook 08 and appendix 08a, by plain loops over the files."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from reidsa_utils.experiments import causes, changes, examined
from reidsa_utils.experiments.changes import no_sa, sa
from reidsa_utils.experiments.records import read_records

RESULTS = ROOT / "results"


@pytest.fixture(scope="module")
def rate_runs():
    return read_records(RESULTS / "rates")


@pytest.fixture(scope="module")
def runs():
    return changes.choose_runs(read_records(RESULTS), "results")


def level(records, vector="parts", **settings):
    """{seed: mAP (%)} of the runs with these settings."""
    found = {}
    for r in records:
        if all(r["config"][name] == value for name, value in settings.items()):
            assert r["config"]["seed"] not in found
            found[r["config"]["seed"]] = 100 * r["metrics"][vector]["mean_ap"]
    return found


def test_the_best_rate_is_chosen_on_the_second_population():
    made = [("none", 0.1, 50), ("none", 0.1, 60), ("none", 0.2, 58), ("none", 0.2, 58)]
    made += [("l1", 0.1, 3), ("l1", 0.2, 2), ("softmax", 0.1, 1), ("softmax", 0.2, 7)]
    second = pd.DataFrame(made, columns=["form", "lr", "mAP"])
    assert causes.best_rates(second) == {"none": 0.2, "l1": 0.1, "softmax": 0.2}


def test_the_second_population_is_no_test_set(rate_runs):
    second = causes.map_on_second_population()
    assert len(second) == len(rate_runs) == 45
    assert not second.duplicated(["form", "lr", "seed"]).any()
    for path in (RESULTS / "populations").glob("*.json"):
        stored = json.loads(path.read_text(encoding="utf-8"))
        assert str(stored["identity"].get("data_seed", 0)) != causes.SECOND_POPULATION
    for row in second.itertuples():
        [test] = level(rate_runs, form=row.form, lr=row.lr, seed=row.seed).values()
        assert row.mAP != pytest.approx(test, abs=1e-6)


def test_rates_by_plain_loops(rate_runs):
    rates = sorted({r["config"]["lr"] for r in rate_runs})
    assert rates == [0.0125, 0.025, 0.05, 0.1, 0.2]
    rows = causes.by_rate(rate_runs, "softmax", rates)
    for lr in rates:
        with_sa, without = (level(rate_runs, form=f, lr=lr) for f in ("softmax", "none"))
        expected = [with_sa[seed] - without[seed] for seed in (0, 1, 2)]
        np.testing.assert_allclose(rows.loc[lr, "deltas"], expected)
    best = {"none": 0.2, "l1": 0.1, "softmax": 0.025}
    table = causes.at_common_and_best(rate_runs, best)
    with_sa = level(rate_runs, form="softmax", lr=0.025)
    without = level(rate_runs, form="none", lr=0.2)
    expected = np.mean([with_sa[seed] - without[seed] for seed in (0, 1, 2)])
    assert table.loc[("softmax", "each at its own best"), "Δ"] == pytest.approx(expected)
    assert len(table) == 4


def test_single_changes_of_the_softmax_by_plain_loops(rate_runs):
    pool = rate_runs + read_records(RESULTS / "causes")
    found = causes.changes_of_the_softmax(pool)
    assert list(found) == ["softmax, unchanged", *causes.CAUSES.values()]
    without = level(pool, form="none", lr=0.05, recipe="paper", erasing=True, variant="b_p_ds")
    for recipe, words in causes.CAUSES.items():
        with_sa = level(pool, form="softmax", lr=0.05, recipe=recipe)
        expected = [with_sa[seed] - without[seed] for seed in (0, 1, 2)]
        np.testing.assert_allclose(found[words]["mAP"]["deltas"], expected)


def test_the_reach_of_a_gradient_is_relative_to_the_first_row(runs):
    readings = {"no SA": no_sa(), "softmax": sa("softmax"), "never run": sa("l1", "nothing")}
    reach = causes.gradient_reach(runs, readings, no_sa())
    assert list(reach.index) == ["no SA", "softmax"]
    np.testing.assert_allclose(reach.loc["no SA"], 1)
    norms = {}
    for form, setting in (("softmax", sa("softmax")), ("none", no_sa())):
        records = runs.by_setting[setting].values()
        norms[form] = np.mean([r["history"][0]["first_step"][form]["through"][1] for r in records])
    expected = norms["softmax"] / norms["none"]
    assert reach.loc["softmax", ("first step", "stage 2")] == pytest.approx(expected)


def test_weights_by_epoch_end_with_the_test_images(runs):
    looked_at = examined.read_examined()
    curve = examined.weights_by_epoch(runs, looked_at, sa("l1"), "l1", "cells")
    assert curve.shape == (11, 4)
    records = runs.by_setting[sa("l1")].values()
    first = np.mean([r["history"][0]["first_step"]["l1"]["cells"] for r in records], axis=0)
    np.testing.assert_allclose(curve[0], 100 * first)
    last = np.mean([e["weights"]["l1"]["cells"] for e in looked_at[sa("l1")].values()], axis=0)
    np.testing.assert_allclose(curve[-1], 100 * last)
    nothing = examined.weights_by_epoch(runs, {}, sa("l1"), "l1", "cells")
    assert np.isnan(nothing[-1]).all()
    np.testing.assert_array_equal(nothing[:-1], curve[:-1])


def test_the_softmax_rests_on_one_position_after_training(runs):
    looked_at = examined.read_examined()
    curve = examined.weights_by_epoch(runs, looked_at, sa("softmax"), "softmax", "largest")
    assert (curve[0] > 95).all() and (curve[-1] > 80).all()


def test_the_sigmoid_of_these_networks_is_average_pooling(runs):
    """Its weights are uniform to three digits, so its row shows the noise of training."""
    for record in runs.by_setting[sa("sigmoid")].values():
        share = record["history"][-1]["first_step"]["sigmoid"]["cells"]
        np.testing.assert_allclose(share, 1, atol=1e-3)


def test_the_slip_in_re_ranking_by_hand():
    result = {
        "zero": {"rank1": 0.5, "mean_ap": 0.3},
        "two thirds": {"rank1": 0.6, "mean_ap": 0.35},
    }
    looked_at = {sa("l1"): {2: {"rerank": {"parts": result, "global": result}}}}
    slip = examined.rerank_slip(looked_at)
    assert slip.form.tolist() == ["l1", "l1"] and slip.seed.tolist() == [2, 2]
    np.testing.assert_allclose(slip[["rank-1", "mAP"]], [[-10, -5], [-10, -5]])


def test_filters_are_read_seed_by_seed():
    looked_at = {
        no_sa(): {
            0: {"filters": {"correlation": [0.1, 0.2, 0.3, 0.4]}},
            1: {"filters": {"correlation": [0.5, 0.6, 0.7, 0.8]}},
        }
    }
    found = examined.filters_of(looked_at, no_sa(), "correlation", [1, 0])
    np.testing.assert_allclose(found, [[50, 60, 70, 80], [10, 20, 30, 40]])


def test_untrained_weights_are_those_on_file():
    table = examined.untrained_weights()
    files = sorted((RESULTS / "saturation").glob("*.json"))
    assert len(table) == len(files) * len(examined.MEASURES)
    stored = json.loads(files[0].read_text(encoding="utf-8"))
    rows = table.loc["softmax: largest weight (%)"].to_numpy()
    expected = 100 * np.array(stored["weights"]["softmax"]["largest"])
    assert any(np.allclose(row, expected) for row in rows)
