"""The counting evaluator against a literal one (sort, drop junk, walk down the list) and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from reidsa_utils import InputError
from reidsa_utils.metrics import euclidean, evaluate_ranking


def brute_force(distances, query_ids, gallery_ids, query_cams, gallery_cams, max_rank=50):
    """The protocol word for word: sort each row (ties in gallery order), drop junk, walk down."""
    first, steps, trapezoids, skipped = [], [], [], 0
    for q in range(len(query_ids)):
        order = sorted(range(len(gallery_ids)), key=lambda j: (distances[q][j], j))
        order = [j for j in order if gallery_ids[j] != -1 and not (gallery_ids[j] == query_ids[q] and gallery_cams[j] == query_cams[q])]
        good = [gallery_ids[j] == query_ids[q] for j in order]
        if not any(good):
            skipped += 1
            steps.append(np.nan)
            continue
        hits, step, trapezoid, old_precision = 0, 0.0, 0.0, 1.0
        for r, ok in enumerate(good, 1):
            if ok:
                hits += 1
                step += hits / r
                trapezoid += ((hits - 1) / (r - 1) if r > 1 else old_precision) / 2 + hits / r / 2
        first.append(good.index(True))
        steps.append(step / hits)
        trapezoids.append(trapezoid / hits)
    if skipped == len(query_ids):
        return None, None, None, steps, skipped
    cmc = [np.mean([f <= r for f in first]) for r in range(max_rank)]
    return cmc, np.nanmean(steps), np.mean(trapezoids), steps, skipped


cases = st.tuples(st.integers(1, 6), st.integers(1, 25), st.integers(0, 2**31), st.sampled_from([2, 4, 1000]))


@settings(max_examples=300, deadline=None)
@given(cases)
def test_equals_brute_force_with_ties_junk_and_unmatched_queries(case):
    n_query, n_gallery, seed, levels = case
    rng = np.random.default_rng(seed)
    distances = rng.integers(0, levels, (n_query, n_gallery)).astype(np.float32)  # few levels: many ties
    query_ids, gallery_ids = rng.integers(1, 4, n_query), rng.integers(-1, 4, n_gallery)
    query_cams, gallery_cams = rng.integers(1, 3, n_query), rng.integers(1, 3, n_gallery)
    arguments = distances, query_ids, gallery_ids, query_cams, gallery_cams
    cmc, step, trapezoid, steps, skipped = brute_force(*arguments)
    if skipped == n_query:
        with pytest.raises(InputError, match=f"none of the {n_query} queries"):
            evaluate_ranking(*arguments)
        return
    result = evaluate_ranking(*arguments)
    np.testing.assert_allclose(result.cmc, cmc, rtol=1e-12)
    assert result.mean_ap == pytest.approx(step, rel=1e-12)
    assert result.mean_ap_trapezoid == pytest.approx(trapezoid, rel=1e-12)
    np.testing.assert_allclose(result.average_precision, steps, rtol=1e-12)
    assert result.skipped == skipped


def test_by_hand():
    # ranking of the one query: wrong, right, junk (own camera), distractor, right -> hits at ranks 2 and 4
    distances = np.array([[0.1, 0.2, 0.3, 0.4, 0.5]])
    result = evaluate_ranking(distances, [7], [3, 7, 7, 0, 7], [1], [2, 2, 1, 3, 3])
    assert result.average_precision[0] == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert result.mean_ap_trapezoid == pytest.approx(((0 / 1 + 1 / 2) / 2 + (1 / 3 + 2 / 4) / 2) / 2)
    assert result.cmc[:3].tolist() == [0, 1, 1]


def test_step_sum_is_scikit_learns():
    rng = np.random.default_rng(2)
    distances = rng.random((20, 300))
    query_ids, gallery_ids = rng.integers(1, 9, 20), rng.integers(0, 9, 300)
    result = evaluate_ranking(distances, query_ids, gallery_ids, np.ones(20), np.full(300, 2))
    expected = [average_precision_score(gallery_ids == q, -row) for q, row in zip(query_ids, distances, strict=True)]
    np.testing.assert_allclose(result.average_precision, expected, rtol=1e-12)


def test_bad_input():
    with pytest.raises(InputError, match=r"distances \(2, 3\), 2 query ids, 4 gallery ids"):
        evaluate_ranking(np.zeros((2, 3)), [1, 2], [1, 2, 3, 4], [1, 1], [2, 2, 2, 2])
    with pytest.raises(InputError, match="1 of the distances are NaN"):
        evaluate_ranking(np.array([[0.0, np.nan]]), [1], [1, 1], [1], [2, 2])


def test_euclidean():
    rng = np.random.default_rng(3)
    a, b = rng.random((5, 8)), rng.random((7, 8))
    np.testing.assert_allclose(euclidean(a, b), ((a[:, None] - b[None]) ** 2).sum(2), atol=1e-5)
