"""Differences and their intervals, against hand-computed cases and slow draws."""

import itertools
import warnings

import numpy as np
import pytest
from scipy import stats
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


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_bootstrap_draws_every_combination_and_no_other(seeds):
    """All draws of seeds and of identities, one by one: the means that may come out."""
    d = np.array([[0.0, 10, 3], [2.0, 14, 3], [2.5, 9, 4]])[:seeds]
    ids = np.array([5, 8, 8])
    stretch = np.sqrt(seeds / (seeds - 1)) if seeds > 1 else 1
    d_wide = d.mean(0) + (d - d.mean(0)) * stretch
    expected = set()
    for drawn in itertools.product(range(seeds), repeat=seeds):
        for people in itertools.product((5, 8), repeat=2):
            queries = np.concatenate([np.flatnonzero(ids == person) for person in people])
            expected.add(round(d_wide[list(drawn)][:, queries].mean(), 9))
    assert {round(mean, 9) for mean in bootstrap(d, ids)} == expected


def test_draws_are_the_same_every_time():
    """Those of seed 0, 5,000 of them: what the committed tables are made of."""
    d, ids = np.random.default_rng(0).normal(size=(3, 8)), np.repeat(np.arange(4), 2)
    assert np.array_equal(bootstrap(d, ids), bootstrap(d, ids, 5000, 0))
    assert not np.array_equal(bootstrap(d, ids), bootstrap(d, ids, 5000, 1))


def test_draws_are_kept_for_their_own_size():
    """To the last digit as written out here, whatever was drawn before."""
    sizes = itertools.product((1, 3), (1, 4, 300), (50, 60), (0, 1))
    for seeds, people, repeats, seed in [*sizes] * 2:
        rng = np.random.default_rng(people)
        ids = np.append(np.arange(people), 0)  # a second query of the first
        d = rng.normal(size=(seeds, people + 1))
        sums = np.stack([np.bincount(ids, row) for row in d])
        if seeds > 1:
            sums = sums.mean(0) + (sums - sums.mean(0)) * np.sqrt(seeds / (seeds - 1))
        rng = np.random.default_rng(seed)
        of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), repeats)
        of_people = rng.multinomial(people, np.full(people, 1 / people), repeats)
        total = (of_seeds / seeds @ sums * of_people).sum(1)
        expected = total / (of_people @ np.bincount(ids))
        assert np.array_equal(bootstrap(d, ids, repeats, seed), expected)


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


@pytest.mark.parametrize("deltas", [[5, 8, 2], [0.1, 0.3], [-4, 1, 2, -7]])
def test_a_difference_of_seeds_is_students(deltas):
    """Against scipy's paired t-test; the numbers of the table by hand."""
    without = np.array([0.1, 0.2, 0.3, 0.2][: len(deltas)])
    with_ = without + np.array(deltas) / 100
    d = difference(without, with_)
    theirs = stats.ttest_rel(100 * with_, 100 * without)
    interval = theirs.confidence_interval(0.95)
    narrower = theirs.confidence_interval(0.90)
    assert d["seeds"] == len(deltas) and d["people"] is False
    assert d["deltas"] == pytest.approx(deltas) and d["Δ"] == pytest.approx(np.mean(deltas))
    assert d["without"] == pytest.approx(100 * np.mean(without))
    assert d["with"] == pytest.approx(100 * np.mean(with_))
    assert d["sd"] == pytest.approx(np.sqrt(np.var(deltas) * len(deltas) / (len(deltas) - 1)))
    assert (d["low"], d["high"]) == pytest.approx((interval.low, interval.high))
    assert (d["low90"], d["high90"]) == pytest.approx((narrower.low, narrower.high))
    assert d["p"] == pytest.approx(theirs.pvalue)


def test_the_smallest_difference_is_found_four_times_in_five():
    """Simulated studies whose noise is known: a true difference of that size has p < 0.05 in 80 %.

    With many seeds; with few the noise is not known so well, and somewhat fewer are found.
    """
    rng = np.random.default_rng(0)
    deltas = rng.permutation(np.linspace(-3, 3, 40))  # their noise is what it is in all studies
    smallest = difference(np.zeros(40), deltas / 100)["smallest"]
    noise = smallest + rng.normal(0, deltas.std(ddof=1), (4000, 40))
    found = stats.ttest_1samp(noise, 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.02)
    by_hand = difference([0.1, 0.2, 0.3], [0.15, 0.28, 0.32])["smallest"]
    assert by_hand == pytest.approx((4.302653 + 1.060660) * np.sqrt(3), rel=1e-6)  # t of 2 freedoms


def test_what_one_seed_and_equal_seeds_say():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = difference([0.3], [0.35])
    assert one["Δ"] == pytest.approx(5) and one["with"] == pytest.approx(35)
    assert np.isnan([one[name] for name in ("sd", "low", "high", "p", "smallest")]).all()
    same = difference([0.3, 0.4], [0.3, 0.4])
    assert (same["p"], same["sd"], same["low"], same["high"]) == (1, 0, 0, 0)
    shifted = difference([0.25, 0.5], [0.5, 0.75])  # by the same for both
    assert (shifted["sd"], shifted["low"], shifted["high"]) == (0, 25, 25) and shifted["p"] < 1e-9


def test_an_interval_with_people_is_the_wider_of_two():
    ids = np.arange(20)
    rng = np.random.default_rng(0)
    vary, steady = rng.normal(0.01, 0.1, 20), np.full(20, 0.01)
    for shifts, people, wider in (([0, 0, 0], vary, "drawn"), ([-0.5, 0, 0.6], steady, "t")):
        without = rng.normal(0.5, 0.2, (3, 20))
        with_ = without + people + np.array(shifts)[:, None]
        student = difference(without.mean(1), with_.mean(1))
        drawn = 100 * bootstrap(with_ - without, ids, 1000)
        low, low90, high90, high = np.quantile(drawn, [0.025, 0.05, 0.95, 0.975])
        d = difference(without.mean(1), with_.mean(1), without, with_, ids, 1000)
        assert d["people"] is True and d["Δ"] == student["Δ"] and d["sd"] == student["sd"]
        assert (low < student["low"]) == (high > student["high"]) == (wider == "drawn")
        assert d["low"] == pytest.approx(min(low, student["low"]))
        assert d["high"] == pytest.approx(max(high, student["high"]))
        assert d["low90"] == pytest.approx(min(low90, student["low90"]))
        assert d["high90"] == pytest.approx(max(high90, student["high90"]))
        share = min(np.mean(drawn <= 0), np.mean(drawn >= 0))
        assert d["p"] == pytest.approx(max(student["p"], 2 * share), abs=0.003)
        error = max(drawn.std(), d["sd"] / np.sqrt(3))
        assert d["smallest"] == pytest.approx((4.302653 + 1.060660) * error, rel=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_p_of_one_seed_counts_the_draws_on_the_other_side(sign):
    """Two people. Half of the draws take each of them once, a quarter one of them twice."""

    def p(*deltas, **repeats):
        queries = sign * np.array([deltas])
        level = queries.mean(1)
        d = difference(0 * level, level, 0 * queries, queries, [1, 2], **repeats)
        assert np.isnan(d["sd"]) and np.isnan(d["smallest"]) and d["low"] <= d["Δ"] <= d["high"]
        return d["p"]

    assert p(0.0, 0.1) == pytest.approx(2 * 1 / 4, abs=0.04)  # a draw without a difference counts
    assert p(-0.1, 0.3) == pytest.approx(2 * 1 / 4, abs=0.04)
    assert p(-0.1, 0.1) == pytest.approx(1, abs=0.001)  # half of the draws are 0, on both sides
    assert p(0.0, 0.0) == 1
    # never 0: with so many draws no smaller one is known
    assert p(0.001, 0.002) == pytest.approx(2 / 5001)
    assert p(0.001, 0.002, repeats=99) == pytest.approx(2 / 100)


def test_metrics_that_do_not_fit():
    good = dict(without=[0.1, 0.2], with_=[0.2, 0.3], queries_without=np.zeros((2, 3)))
    good |= dict(queries_with=np.ones((2, 3)), ids=[1, 1, 2])
    assert difference(**good)["people"]
    for change, words in (
        (dict(without=[0.1]), r"metrics of shapes \(1,\) and \(2,\); expected one number of each"),
        (dict(without=[], with_=[]), r"metrics of shapes \(0,\) and \(0,\)"),
        (dict(without=[[0.1, 0.2]], with_=[[0.2, 0.3]]), r"metrics of shapes \(1, 2\) and"),
        (dict(without=[0.1, np.nan]), "some of the metrics are NaN or infinite"),
        (dict(with_=[0.1, np.inf]), "some of the metrics are NaN or infinite"),
        (dict(queries_without=np.zeros((1, 3))), r"queries of shapes \(1, 3\) and \(2, 3\)"),
        (dict(queries_without=None), "found a NoneType"),
        (dict(queries_with=None), "found a NoneType"),
        (dict(ids=[1, 2]), r"differences of shape \(2, 3\) and ids of shape \(2,\)"),
        (dict(ids=[1, "a", None]), "the ids are objects that have no order"),
        (dict(queries_with=[[1, 1, 1], [1, np.nan, 1]]), "some differences are NaN or infinite"),
        (dict(repeats=0), "repeats is 0; expected a whole number from 1 on"),
        (dict(repeats=1.5), "repeats is 1.5; expected a whole number from 1 on"),
    ):
        with pytest.raises(InputError, match=words):
            difference(**(good | change))


def test_differences_that_do_not_fit():
    for arguments, words in (
        (([0.1, 0.2], [1, 2]), r"differences of shape \(2,\) and ids of shape \(2,\); expected"),
        ((np.zeros(2), 1), r"differences of shape \(2,\) and ids of shape \(\)"),
        ((np.zeros((2, 2, 2)), np.ones((2, 2))), r"differences of shape \(2, 2, 2\) and"),
        ((np.zeros((0, 2)), [1, 2]), r"differences of shape \(0, 2\)"),
        ((np.zeros((2, 0)), []), r"differences of shape \(2, 0\)"),
        ((np.zeros((1, 2)), [1, 2], 10, -1), "seed is -1; expected a whole number from 0 on"),
        ((np.zeros((1, 2)), [1, 2], 10, "a"), "seed is 'a'"),
    ):
        with pytest.raises(InputError, match=words):
            bootstrap(*arguments)
    assert len(bootstrap(np.zeros((1, 2)), ["a", "b"], 1)) == 1  # names are identities, too


@pytest.mark.parametrize(
    ("p", "corrected"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.5, 0.6], [1.0, 1.0]),
        ([0.3, 0.7], [0.6, 0.7]),
        ([0.8, 0.9], [1.0, 1.0]),
        ([0.02, np.nan, 0.02], [0.04, np.nan, 0.04]),
        ([], []),
    ],
)
def test_holm_by_hand(p, corrected):
    np.testing.assert_allclose(holm(p), corrected)


def test_holm_of_another_shape():
    with pytest.raises(InputError, match=r"p values of shape \(1, 2\); expected one a test"):
        holm([[0.1, 0.2]])


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


@pytest.mark.parametrize("scale", [0.01, 3.0])
def test_pooled_in_another_unit(scale):
    """Points or hundredths: all numbers scale, the p value stays."""
    effects, covariance = np.array([1.0, 3.0, 2.5]), np.diag([0.1, 0.4, 0.2]) + 0.05
    found = pool(effects, covariance)
    other = pool(scale * effects, scale**2 * covariance)
    assert found["tau"] > 0.1
    for name in ("Δ", "tau", "low", "high", "low90", "high90", "predicted_low", "predicted_high"):
        assert other[name] == pytest.approx(scale * found[name], rel=1e-4)
    assert other["p"] == pytest.approx(found["p"], rel=1e-4)


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
        ([[1], [2]], np.eye(2), "estimates of shape \\(2, 1\\); expected one a setting"),
        ([1, 2], [1, 2], "a covariance of shape \\(2,\\); expected \\(2, 2\\)"),
        ([1, np.nan], np.eye(2), "some estimates or covariances are NaN or infinite"),
        ([1, 2], [[1, 0], [0, np.inf]], "some estimates or covariances are NaN or infinite"),
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


def test_people_by_hand():
    """Their sums of differences about the mean, per query; stretched as few people vary too little."""
    two = person_effects([1, 3, 8], [5, 5, 9])  # the mean is 4
    assert two == pytest.approx(np.array([-4, 4]) / 3 * np.sqrt(2))
    three = person_effects([1, 3, 8, 0], ["a", "a", "b", "c"])  # the mean is 3
    assert three == pytest.approx(np.array([-2, 5, -3]) / 4 * np.sqrt(3 / 2))
    short = np.array([1, 3, 7], np.float16)  # whose mean has more digits
    assert person_effects(short, [5, 5, 9]) == pytest.approx(person_effects([1, 3, 7], [5, 5, 9]))


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
        (found_as(-1.2, 1.1, -0.9, 1.0), 0.8, "not shown"),  # the margin itself is no equivalence
        (found_as(-1.2, 1.1, -1.0, 0.9), 1.1, "not shown"),
        (found_as(-1.2, 0), 1.5, "smaller than claimed"),  # 0 contradicts and confirms nothing
        (found_as(0, 2), 1.5, "not shown"),
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
