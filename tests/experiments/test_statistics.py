"""Differences and their intervals, against hand-computed cases and slow draws."""

import numpy as np
import pytest

from reidsa_utils.experiments.statistics import bootstrap, holm


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
