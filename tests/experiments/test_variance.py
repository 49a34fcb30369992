"""Components of variance against plain loops, statsmodels and simulation; power against drawn studies."""

import itertools
import json
import warnings

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.stats.power import TTestPower

from reidsa_utils import InputError
from reidsa_utils.experiments import variance
from reidsa_utils.experiments.records import read_records
from reidsa_utils.experiments.statistics import verdict
from reidsa_utils.experiments.variance import (
    POPULATIONS,
    SEEDS,
    SOURCES,
    components,
    mean_squares,
    power,
    read_scores,
    seeds_needed,
    smallest_effect,
)

SD = dict(zip(SOURCES, (2.0, 1.0, 3.0, 0.5, 0.8), strict=True))
HOME = 7.0


def made(n: int, S: int, rng, sd=None) -> np.ndarray:
    """Scores of the model, with the standard deviations `sd` of the SOURCES (SD)."""
    sd = sd or SD.values()
    shapes = [(n, 1, 1), (n, S, 1), (1, 1, n), (n, 1, n), (n, S, n)]
    deviations = [scale * rng.normal(size=shape) for scale, shape in zip(sd, shapes, strict=True)]
    return np.broadcast_to(50 + HOME * np.eye(n)[:, None] + sum(deviations), (n, S, n))


def test_mean_squares_by_plain_loops():
    y = made(4, 2, np.random.default_rng(0))
    n, S, _ = y.shape
    found, freedom, home = mean_squares(y)
    y = y.copy()
    for d, s in itertools.product(range(n), range(S)):
        y[d, s, d] -= home
    sums = dict.fromkeys(SOURCES, 0.0)
    for d, s, t in itertools.product(range(n), range(S), range(n)):
        sums["training population"] += (y[d].mean() - y.mean()) ** 2
        sums["seed"] += (y[d, s].mean() - y[d].mean()) ** 2
        sums["test population"] += (y[:, :, t].mean() - y.mean()) ** 2
        both = y[d, :, t].mean() - y[d].mean() - y[:, :, t].mean() + y.mean()
        sums["training x test population"] += both**2
        sums["rest"] += (y[d, s, t] - y[d, s].mean() - y[d, :, t].mean() + y[d].mean()) ** 2
    # All that scatters is in one of the five.
    assert sum(sums.values()) == pytest.approx(((y - y.mean()) ** 2).sum())
    assert freedom.tolist() == [3, 4, 3, 8, 12] and freedom.sum() == y.size - 2
    np.testing.assert_allclose(found * freedom, list(sums.values()))


def test_home_is_the_best_constant_on_the_diagonal():
    """By least squares, with a mean for every network and every test population."""
    y = made(5, 2, np.random.default_rng(1))
    n, S, _ = y.shape
    design = []
    for d, s, t in itertools.product(range(n), range(S), range(n)):
        network, test = np.eye(n * S)[d * S + s], np.eye(n)[t]
        design.append([*network, *test, float(d == t)])
    solution, *_ = np.linalg.lstsq(np.array(design), y.ravel())
    assert mean_squares(y)[2] == pytest.approx(solution[-1])
    found = variance.home(y)
    assert found["Δ"] == pytest.approx(solution[-1])
    own = np.mean([y[d, :, d].mean() for d in range(n)])
    other = np.mean([y[d, :, t].mean() for d in range(n) for t in range(n) if d != t])
    assert (found["home"], found["away"]) == pytest.approx((own, other))
    assert found["home"] - found["away"] == pytest.approx(found["Δ"])
    # A constant on the diagonal changes nothing else.
    np.testing.assert_allclose(mean_squares(y + 9 * np.eye(n)[:, None])[0], mean_squares(y)[0])


def test_the_effect_is_that_of_the_populations_at_home():
    rng = np.random.default_rng(4)
    without, with_ = made(5, 2, rng), made(5, 2, rng)
    deltas = [(with_ - without)[d, :, d].mean() for d in range(5)]
    found = variance.effect_at_home(with_, without)
    assert found["deltas"] == pytest.approx(deltas) and found["seeds"] == 5
    expected = stats.ttest_1samp(deltas, 0).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))


def test_the_seeds_at_home_by_hand():
    y = made(4, 3, np.random.default_rng(6))
    squares = sum((y[d, s, d] - y[d, :, d].mean()) ** 2 for d in range(4) for s in range(3))
    found = variance.seed_at_home(y)
    assert found["sd"] == pytest.approx(np.sqrt(squares / 8))
    for end, share in (("high", 0.025), ("low", 0.975)):
        assert stats.chi2.cdf(squares / found[end] ** 2, 8) == pytest.approx(share)


@pytest.mark.parametrize("source", SOURCES)
def test_one_source_alone(source):
    """Where nothing else scatters, its variance is that of its deviations, the others are zero."""
    sd = [float(name == source) for name in SOURCES]
    table = components(made(40, 5, np.random.default_rng(3), sd))
    assert table.sd[source] == pytest.approx(1, rel=0.25)
    assert table.sd[[name for name in SOURCES if name != source]].max() < 0.15
    assert table.share[list(SOURCES)].sum() == pytest.approx(1)


def test_components_against_reml():
    """For a complete design with positive estimates both methods give the same numbers."""
    y = made(6, 3, np.random.default_rng(5))
    table = components(y)
    assert table.sd.min() > 0
    index = pd.MultiIndex.from_product([range(n) for n in y.shape], names=["d", "s", "t"])
    data = pd.DataFrame({"y": y.ravel()}, index=index).reset_index()
    data["home"] = (data.d == data.t).astype(float)
    data["one"] = 1
    terms = {"d": "0+C(d)", "s": "0+C(d):C(s)", "t": "0+C(t)", "dt": "0+C(d):C(t)"}
    model = MixedLM.from_formula("y ~ home", data, groups="one", vc_formula=terms)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one group: statsmodels warns of its own covariance
        fit = model.fit(reml=True)
    theirs = dict(zip(model.exog_vc.names, fit.vcomp, strict=True))
    expected = [theirs["d"], theirs["s"], theirs["t"], theirs["dt"], fit.scale]
    np.testing.assert_allclose(table.sd[list(SOURCES)] ** 2, expected, rtol=2e-2, atol=1e-3)
    found = variance.home(y)
    assert found["Δ"] == pytest.approx(fit.params["home"], abs=1e-3)
    half = (found["high"] - found["low"]) / 2 / stats.t.ppf(0.975, 24)
    assert half == pytest.approx(fit.bse["home"], rel=1e-2)
    both = table.sd**2
    assert both["another seed"] == pytest.approx(both["seed"] + both["rest"])
    others = both[list(SOURCES)].sum() - both["another seed"]
    assert both["another population"] == pytest.approx(others)


def test_intervals_contain_the_truth():
    """95 of 100, within the error of 600 simulated studies of the size of ours."""
    rng = np.random.default_rng(11)
    truth = pd.Series(SD)
    for name, sources in variance.TOGETHER.items():
        truth[name] = np.sqrt(sum(SD[source] ** 2 for source in sources))
    inside, home = 0, 0
    for _ in range(600):
        y = made(len(POPULATIONS), len(SEEDS), rng)
        table, at_home = components(y), variance.home(y)
        inside += (table.low <= truth) & (truth <= table.high)
        home += at_home["low"] <= HOME <= at_home["high"]
    assert (inside / 600).between(0.92, 0.98).all(), inside
    assert 0.92 < home / 600 < 0.98


def test_a_negative_estimate_counts_as_zero():
    """The seeds of each training population lie exactly at opposite sides of equal means."""
    y = np.zeros((3, 2, 3))
    y[:, 0], y[:, 1] = 1, -1
    table = components(y)
    assert table.sd["training population"] == 0
    assert table.sd["seed"] == pytest.approx(np.sqrt(2))
    assert components(np.full((3, 2, 3), 7.0)).sd.max() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (np.zeros((6, 3)), "scores of shape (6, 3); expected (populations, seeds, populations)"),
        (np.zeros((6, 3, 5)), "scores of shape (6, 3, 5)"),
        (np.zeros((6, 1, 6)), "at least three populations and two seeds"),
        (np.full((3, 2, 3), np.nan), "NaN or infinite"),
        ([["a"]], "array of numbers"),
    ],
)
def test_scores_that_do_not_fit(scores, words):
    with pytest.raises(InputError) as error:
        mean_squares(scores)
    assert words in str(error.value)


def test_power_against_drawn_studies_and_statsmodels():
    rng = np.random.default_rng(2)
    for effect, sd, seeds in ((1, 1.5, 3), (1, 1.5, 20), (-2, 1.0, 5), (0, 1.0, 4)):
        drawn = rng.normal(effect, sd, (20_000, seeds))
        p = stats.ttest_1samp(drawn, 0, axis=1).pvalue
        assert power(effect, sd, seeds) == pytest.approx((p < 0.05).mean(), abs=0.012)
        expected = TTestPower().power(effect / sd, seeds, 0.05)
        assert power(effect, sd, seeds) == pytest.approx(expected, abs=1e-9)


def test_the_fewest_seeds_and_the_smallest_effect():
    needed = seeds_needed(1, 1.5)
    assert power(1, 1.5, needed) >= 0.8 > power(1, 1.5, needed - 1)
    assert needed == np.ceil(TTestPower().solve_power(1 / 1.5, alpha=0.05, power=0.8))
    assert seeds_needed(0, 1.0) == np.inf
    for seeds in (2, 3, 5, 200):
        assert power(smallest_effect(1.5, seeds), 1.5, seeds) == pytest.approx(0.8)
        assert smallest_effect(3.0, seeds) == pytest.approx(2 * smallest_effect(1.5, seeds))
    for bad in ((np.nan, 1.0, 3), (1.0, 0.0, 3), (1.0, 1.0, 1), (True, 1.0, 3)):
        with pytest.raises(InputError):
            power(*bad)


def test_scores_are_those_of_the_files(tmp_path):
    """Missing runs are named; runs that were tested on other people alone are left out."""
    with pytest.raises(InputError, match="holds no run that was tested"):
        read_scores(tmp_path)

    def write(form, d, s, people, score):
        metrics = {vector: {"rank1": score / 2, "mean_ap": score} for vector in ("parts", "global")}
        tested = {str(t): {"metrics": metrics} for t in people}
        identity = {"form": form, "seed": s, "lr": 0.05}
        if d:
            identity["data_seed"] = d
        entry = {"run": "r", "identity": identity, "populations": tested}
        (tmp_path / f"{form}-{d}-{s}-{score}.json").write_text(json.dumps(entry))

    write("none", 0, 0, [200], 0.99)
    for d, s in itertools.product(POPULATIONS, SEEDS):
        if (d, s) != (4, 1):
            write("none", d, s, [*POPULATIONS, 200], (10 * d + s) / 100)
    with pytest.raises(
        InputError, match="lacks 1 runs of form none, the first of data seed 4, seed 1"
    ):
        read_scores(tmp_path)
    write("none", 4, 1, POPULATIONS, 0.41)
    [scores] = read_scores(tmp_path).values()
    expected = [[10 * d + s for s in SEEDS] for d in POPULATIONS]
    np.testing.assert_allclose(scores, np.broadcast_to(np.array(expected)[..., None], (6, 3, 6)))
    np.testing.assert_allclose(read_scores(tmp_path, metric="rank-1")["none"], scores / 2)
    with pytest.raises(InputError, match="unknown metric"):
        read_scores(tmp_path, metric="map")


def test_what_was_tested_at_home_is_what_the_runs_recorded():
    """Trained in another process, and tested again from the checkpoint: the same to six digits."""
    scores = read_scores()
    found = {}
    for record in read_records(ROOT / "results" / "draws") + read_records(
        ROOT / "results" / "rates"
    ):
        c = record["config"]
        if c["lr"] == 0.05:
            key = c["form"], c["data_seed"], c["seed"]
            found[key] = 100 * record["metrics"]["parts"]["mean_ap"]
    assert len(found) == 3 * len(POPULATIONS) * len(SEEDS)
    for (form, d, s), score in found.items():
        assert scores[form][d, SEEDS.index(s), d] == pytest.approx(score, rel=1e-5)


def test_what_appendix_06a_says_in_words():
    scores = read_scores()
    deltas = {form: scores[form] - scores["none"] for form in ("l1", "softmax")}
    words = {}
    for form in deltas:
        for metric, gain in (("mAP", 2.1), ("rank-1", 0.8)):
            of_metric = read_scores(metric=metric)
            found = variance.effect_at_home(of_metric[form], of_metric["none"])
            words[form, metric] = verdict(found, gain)
            if metric == "mAP" and form == "l1":
                assert found["high"] < gain
    assert words == {
        ("l1", "mAP"): "equivalent",
        ("l1", "rank-1"): "not shown",
        ("softmax", "mAP"): "contradicted",
        ("softmax", "rank-1"): "contradicted",
    }
    assert variance.home(deltas["l1"])["low"] < 0 < variance.home(deltas["l1"])["high"]
    assert variance.home(deltas["softmax"])["high"] < 0
    level, l1 = components(scores["none"]).sd, components(deltas["l1"]).sd
    softmax = components(deltas["softmax"]).sd
    assert level["another population"] > 4 * level["another seed"]
    assert l1["another population"] < 0.1 * level["another population"]
    assert 1.5 < softmax["another seed"] / l1["another seed"] < 2.5
