"""Records into tables."""

import json

import numpy as np
import pytest
from conftest import assert_one_sentence

from reidsa_utils import InputError
from reidsa_utils.experiments import report
from reidsa_utils.experiments.report import aggregate
from reidsa_utils.experiments.results import (
    CLAIMS,
    METRICS,
    between,
    effects,
    pick,
    read_records,
    table,
)
from reidsa_utils.experiments.statistics import bootstrap, difference, holm
from reidsa_utils.support.files import ROOT


def record(variant, form, seed, first_match, average_precision):
    config = {
        "benchmark": "market1501",
        "profile": "laptop",
        "variant": variant,
        "form": form,
        "recipe": "paper",
        "erasing": True,
        "epochs": 10,
        "seed": seed,
        "rerank": True,
    }
    found = [f for f in first_match if f]
    m = {
        "rank1": np.mean([f == 1 for f in found]),
        "mean_ap": np.mean([a for a in average_precision if a is not None]),
        "mean_ap_trapezoid": 0.1,
        "first_match": first_match,
        "average_precision": average_precision,
    }
    rest = {"identity": {"fingerprint": "f"}} | {key: {} for key in ("counts", "code", "versions")}
    rest |= {"source": "rendered", "history": [], "query_ids": [1, 1, 2, 3][: len(first_match)]}
    return {"config": config, "metrics": {"parts": m}} | rest


def test_aggregate_by_hand():
    cells = aggregate(
        table(
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
        match="two records of market1501, b_p_ds, form none, seed 0 with the same settings; keep one",
    ):
        effects([*runs, runs[0]])
    runs[1]["identity"] = {"fingerprint": "other data"}
    assert (effects(runs).seeds == 1).all()  # runs on other data are no partners
    del runs[0]["metrics"]["parts"]["first_match"]
    alone = effects(runs).set_index("metric")
    assert np.isnan(alone.loc["rank-1", "low"]) and np.isfinite(
        alone.loc["mAP", "low"]
    )  # an old record: mAP only


def test_bootstrap_against_slow_draws():
    """Seeds, then identities with all their queries; the seeds' deviations stretched."""
    rng = np.random.default_rng(1)
    ids = np.repeat(np.arange(12), rng.integers(1, 6, 12))
    d = rng.normal(0, 1, (3, len(ids))) + rng.normal(0, 2, 12)[ids] + np.array([[-1], [0], [2.0]])
    stretched, draws = d.mean(0) + (d - d.mean(0)) * np.sqrt(3 / 2), []
    for _ in range(4000):
        queries = np.concatenate([np.flatnonzero(ids == i) for i in rng.integers(12, size=12)])
        draws.append(stretched[rng.integers(3, size=3)][:, queries].mean())
    fast = bootstrap(d, ids)
    assert fast.std() == pytest.approx(np.std(draws), rel=0.06) and fast.mean() == pytest.approx(
        np.mean(draws), abs=0.1
    )
    np.testing.assert_allclose(
        np.quantile(fast, [0.1, 0.9]), np.quantile(draws, [0.1, 0.9]), atol=0.2
    )
    assert bootstrap(np.full((3, 5), 0.25), np.arange(5)) == pytest.approx(0.25)  # nothing varies
    one_person = bootstrap(np.array([[0.0, 1.0]]), np.array([4, 4]))
    assert one_person == pytest.approx(0.5)  # queries of one person stay together


def test_interval_holds_its_level_and_shows_a_true_difference():
    """Simulated studies with five seeds: 95 % intervals hold a true zero in nine of ten and more, and exclude a large difference."""
    ids, inside = np.repeat(np.arange(60), 4), 0
    for study in range(150):
        rng = np.random.default_rng(study)
        d = rng.normal(0, 1, (5, 1)) + rng.normal(0, 3, 60)[ids] + rng.normal(0, 5, (5, 240))
        low, high = np.quantile(bootstrap(d, ids, 500, study), [0.025, 0.975])
        inside += low <= 0 <= high
        assert np.quantile(bootstrap(d + 8, ids, 500, study), 0.025) > 0
    assert 0.88 * 150 <= inside < 150


@pytest.mark.parametrize(
    ("p", "corrected"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.5, 0.6], [1.0, 1.0]),
        ([0.02, np.nan, 0.02], [0.04, np.nan, 0.04]),
        ([], []),
    ],
)
def test_holm_by_hand(p, corrected):
    np.testing.assert_allclose(holm(p), corrected)


def test_broken_records(tmp_path, command):
    with pytest.raises(InputError, match="no folder .* with run records"):
        read_records(tmp_path / "nothing")
    with pytest.raises(InputError, match="no run records in"):
        read_records(tmp_path)
    path = tmp_path / "record.json"
    path.write_text("{")
    assert_one_sentence(command("-m", "reidsa_utils", "publish", tmp_path), "not valid JSON")
    path.write_text("{}")
    with pytest.raises(InputError, match="no complete run record: config, source"):
        read_records(tmp_path)


def test_committed_records_are_complete_and_private():
    records = read_records(ROOT / "results")
    assert {r["source"] for r in records} == {"rendered", "real"}
    for r in records:
        assert len(r["history"]) == r["config"]["epochs"], "an entry for each epoch"
        assert r["history"] or r["config"]["weights"] != "none", (
            "no training: only as a transfer of what was trained elsewhere"
        )
        assert r["identity"]["fingerprint"] and r["code"]["sources"]
        assert all(0 <= m["rank1"] <= 1 and 0 <= m["mean_ap"] <= 1 for m in r["metrics"].values())
        assert "/" not in json.dumps({k: v for k, v in r.items() if k != "title"}), "a path?"


def test_every_claim_has_a_verdict_and_evidence_that_exists():
    assert len(CLAIMS) >= 30 and len({c["id"] for c in CLAIMS}) == len(CLAIMS)
    assert report.problems(CLAIMS) == []
    assert {"abstract", "1", "2", "3", "4", "5", "6"} <= {
        place.strip()[0] if place.strip()[0].isdigit() else place.strip()
        for c in CLAIMS
        for place in c["place"].split(",")
    }
    assert sum(report.verdicts(CLAIMS).values()) == len(CLAIMS) == len(report.ledger(CLAIMS))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"verdict": "confirmd"}, "verdict 'confirmd'; expected one of confirmed"),
        ({"evidence": []}, "a verdict without evidence"),
        (
            {"evidence": ["06_tables#No such heading"]},
            "no such evidence: 06_tables#No such heading",
        ),
        ({"found": ""}, "found is empty"),
        ({"evidence": ["09_nothing#One"]}, "no such evidence"),
        ({"evidence": ["results/market1501-rendered-huge-*.json"]}, "no such evidence"),
        ({"evidence": ["tests/test_attention.py::test_nothing"]}, "no such evidence"),
        ({"on": "rendred"}, "the data it is on"),
        ({"evidence": [""]}, "no such evidence"),
        ({"evidence": ["/etc/*"]}, "no such evidence"),
        ({"evidence": ["*"]}, "no such evidence"),
    ],
)
def test_a_claim_without_evidence_is_refused(change, words):
    good = next(c for c in CLAIMS if c["id"] == "eq-8-12")
    assert report.problems([good]) == []
    [problem] = report.problems([good | change])
    assert problem.startswith("eq-8-12: ") and words in problem
    untold = good | {"verdict": "not testable here", "evidence": [], "on": ""}
    assert report.problems([untold]) == []  # its reason stands in `found`


def test_a_difference_of_any_two_cells():
    """Not only SA against none: the same statistics as effects(), from pairs of runs."""
    runs = [
        record("b_p_ds", "none", s, [1, 2, 0, 1], [0.5, 0.3 + 0.1 * s, None, 0.4]) for s in (0, 1)
    ]
    others = [
        record("b_p_ds_sa2", "l1", s, [1, 1, 0, 2], [0.6, 0.5, None, 0.1 + 0.1 * s]) for s in (0, 1)
    ]
    e = effects(runs + others).set_index("metric")
    pairs = [
        (a["metrics"]["parts"], b["metrics"]["parts"]) for a, b in zip(others, runs, strict=True)
    ]
    for metric, mean, queries in METRICS:
        d = difference(pairs, mean, queries, runs[0]["query_ids"])
        assert all(
            d[k] == pytest.approx(e.loc[metric, k], nan_ok=True)
            for k in ("Δ", "low", "high", "p", "sd", "smallest")
        )
    back = difference([(b, a) for a, b in pairs], *METRICS[1][1:], runs[0]["query_ids"])
    assert back["Δ"] == pytest.approx(-d["Δ"]) and back["low"] == pytest.approx(-d["high"], abs=0.5)


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
    cells = aggregate(table(runs))
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


def test_two_settings_at_different_rates():
    """Each form at its own rate: what is named may differ, anything else is refused; seeds are paired."""
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
