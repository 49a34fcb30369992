"""Differences and their intervals, against hand-computed cases and slow draws."""

import numpy as np
import pytest
from statsmodels.stats.meta_analysis import combine_effects

from reidsa_utils import InputError
from reidsa_utils.experiments.statistics import (
    VERDICTS,
    bootstrap,
    difference,
    holm,
    person_effects,
    pool,
    verdict,
)


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
    """Simulated studies with five seeds: 95 % intervals hold a true zero in nine of ten and more.

    They exclude a large difference.
    """
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


def test_pooled_by_hand():
    """Effects of 1 and 3 points, each with a variance of 0.1.

    Their weighted squares about 2 are 2 / (0.1 + tau^2), expected is 1: tau^2 = 1.9. The pooled
    effect has the variance 2 / 2 = 1, and Student's t with one degree of freedom leaves 2.5 % above
    12.706 and 5 % above 6.314.
    """
    found = pool([1, 3], 0.1 * np.eye(2))
    assert found["settings"] == 2
    assert found["Δ"] == pytest.approx(2)
    assert found["tau"] == pytest.approx(np.sqrt(1.9))
    assert (found["low"], found["high"]) == pytest.approx((2 - 12.706, 2 + 12.706), abs=1e-3)
    assert (found["low90"], found["high90"]) == pytest.approx((2 - 6.314, 2 + 6.314), abs=1e-3)
    half = 12.706 * np.sqrt(1.9 + 1)
    predicted = found["predicted_low"], found["predicted_high"]
    assert predicted == pytest.approx((2 - half, 2 + half), abs=1e-2)
    # Cauchy's distribution: twice the share above 2 / 1.
    assert found["p"] == pytest.approx(1 - 2 / np.pi * np.arctan(2))


def test_pooled_shares_what_its_settings_share():
    """Two estimates of one baseline, all of whose error is common, are one estimate."""
    common = np.full((2, 2), 4.0)
    found = pool([1, 1], common + 1e-9 * np.eye(2))
    assert found["tau"] == 0
    error = (found["high"] - found["Δ"]) / 12.706
    assert error == pytest.approx(2, abs=1e-3)  # not 2 / sqrt(2)


@pytest.mark.parametrize("seed", range(6))
def test_pooled_against_statsmodels(seed):
    """Errors that are not correlated, settings that do differ: Paule-Mandel and Knapp-Hartung."""
    rng = np.random.default_rng(seed)
    estimates, variances = rng.normal(0, 5, 7), rng.uniform(0.2, 2, 7)
    reference = combine_effects(
        estimates, variances, method_re="pm", use_t=True, row_names=None, atol=1e-12, maxiter=1000
    )
    found = pool(estimates, np.diag(variances))
    assert found["tau"] == pytest.approx(np.sqrt(reference.tau2), rel=1e-4)
    assert found["Δ"] == pytest.approx(reference.mean_effect_re, rel=1e-4)
    low, high = reference.conf_int(alpha=0.05, use_t=True)[3]  # random effects, scale of q
    assert (found["low"], found["high"]) == pytest.approx((low, high), rel=1e-3)


def test_equal_effects_have_an_interval():
    """Knapp and Hartung's without a bound would be of no width (statsmodels' is)."""
    found = pool([2, 2, 2, 2], np.eye(4))
    assert found["tau"] == 0
    assert found["high"] - found["low"] == pytest.approx(2 * 3.182 * np.sqrt(1 / 4), abs=1e-3)


def test_settings_without_any_error():
    """All runs alike, as where every query is right: what is left is how the settings differ."""
    alike = pool([0, 0], np.zeros((2, 2)))
    assert (alike["Δ"], alike["tau"]) == (0, 0) and alike["high"] < 0.001
    apart = pool([1, 3], np.zeros((2, 2)))
    assert apart["Δ"] == pytest.approx(2) and apart["tau"] == pytest.approx(np.sqrt(2))


@pytest.mark.parametrize(
    ("estimates", "covariance", "told"),
    [
        ([1], [[1]], "1 setting; a pooled effect needs two or more"),
        ([1, 2], [1, 2], "a covariance of shape \\(2,\\); expected \\(2, 2\\)"),
        ([1, np.nan], np.eye(2), "some estimates or covariances are NaN or infinite"),
    ],
)
def test_what_cannot_be_pooled(estimates, covariance, told):
    with pytest.raises(InputError, match=told):
        pool(estimates, covariance)


def test_people_against_the_bootstrap():
    """The sum of squares is the bootstrap's variance, the product its covariance."""
    rng = np.random.default_rng(2)
    ids = np.repeat(np.arange(80), rng.integers(1, 7, 80))
    of_people = rng.normal(0, 2, (2, 80))
    of_people[1] += of_people[0]  # two settings that the same people find easy
    a, b = of_people[:, ids] + rng.normal(0, 3, (2, len(ids)))
    u, v = person_effects(a, ids), person_effects(b, ids)
    drawn_a, drawn_b = (bootstrap(d[None], ids, 20_000, seed=3) for d in (a, b))
    assert u @ u == pytest.approx(drawn_a.var(), rel=0.06)
    assert u @ v == pytest.approx(np.cov(drawn_a, drawn_b)[0, 1], rel=0.06)
    assert person_effects([0.5, 1.5], [4, 4]) == pytest.approx(0)  # one person: nothing is known


def found_as(low, high, low90=None, high90=None, seeds=3):
    return {
        "seeds": seeds,
        "low": low,
        "high": high,
        "low90": low if low90 is None else low90,
        "high90": high if high90 is None else high90,
    }


@pytest.mark.parametrize(
    ("found", "claimed", "word"),
    [
        (found_as(2, 3, seeds=2), 1.5, "not shown"),  # whatever the interval
        (found_as(-3, -0.1), 1.5, "contradicted"),
        (found_as(0.1, 1.5), 1.5, "confirmed"),  # the claim is still possible
        (found_as(0.1, 1.4), 1.5, "smaller than claimed"),
        (found_as(-1.2, 1.1, -0.9, 0.9), 1.5, "equivalent"),
        (found_as(-1.2, 1.1, -1.1, 0.9), 1.5, "smaller than claimed"),
        (found_as(-1.2, 1.1, -1.1, 1.0), 0.8, "not shown"),
        (found_as(-1.2, 2.0, -1.1, 1.7), 1.5, "not shown"),
        (found_as(0, 0), 0.0, "equivalent"),
    ],
)
def test_the_table_of_verdicts(found, claimed, word):
    assert verdict(found, claimed) == word
    assert word in VERDICTS


def test_verdicts_with_a_confound_and_without_a_margin():
    assert verdict(found_as(1, 2), 1.5, confound="the total weight of the losses") == "mixed"
    few = found_as(1, 2, seeds=1)
    assert verdict(few, 1.5, confound="the total weight of the losses") == "not shown"
    assert verdict(found_as(-0.2, 0.2), margin=None) == "not shown"  # maps have no margin
    assert verdict(found_as(0.1, 0.2), margin=None) == "confirmed"
    with pytest.raises(InputError, match="a claimed gain of nan; expected a number of points"):
        verdict(found_as(0.1, 0.2), np.nan)


def test_the_interval_of_90_percent_lies_in_that_of_95():
    rng = np.random.default_rng(0)
    for seeds in (1, 3):
        of_queries = rng.normal(0.4, 0.1, (2, seeds, 50))
        found = difference(*of_queries.mean(2), *of_queries, np.arange(50) // 5)
        assert found["low"] < found["low90"] < found["Δ"] < found["high90"] < found["high"]
