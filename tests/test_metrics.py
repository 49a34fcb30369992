"""The evaluator against a literal one (sort, drop junk, walk down the list) and against scikit-learn."""

import warnings
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from conftest import unkind_features
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from reidsa_utils import InputError
from reidsa_utils.metrics import euclidean, evaluate_ranking, pool_queries, single_shot_cmc


def brute_force(distances, query_ids, gallery_ids, query_cams, gallery_cams, max_rank=50):
    """The protocol word for word: sort each row (ties in gallery order), drop junk, walk down."""
    first, steps, trapezoids, skipped = [], [], [], 0
    for q in range(len(query_ids)):
        order = sorted(range(len(gallery_ids)), key=lambda j: (distances[q][j], j))
        order = [
            j
            for j in order
            if gallery_ids[j] != -1
            and not (gallery_ids[j] == query_ids[q] and gallery_cams[j] == query_cams[q])
        ]
        good = [gallery_ids[j] == query_ids[q] for j in order]
        if not any(good):
            skipped += 1
            first.append(-1)
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
        return None, None, None, steps, first, skipped
    cmc = [np.mean([f <= r for f in first if f >= 0]) for r in range(max_rank)]
    return cmc, np.nanmean(steps), np.mean(trapezoids), steps, first, skipped


cases = st.tuples(
    st.integers(1, 6), st.integers(1, 25), st.integers(0, 2**31), st.sampled_from([2, 4, 1000])
)


@settings(max_examples=300, deadline=None)
@given(cases)
def test_equals_brute_force_with_ties_junk_and_unmatched_queries(case):
    n_query, n_gallery, seed, levels = case
    rng = np.random.default_rng(seed)
    distances = rng.integers(0, levels, (n_query, n_gallery)).astype(
        np.float32
    )  # few levels: many ties
    query_ids = rng.choice([-1, 1, 2, 3], n_query, p=[0.1, 0.3, 0.3, 0.3])
    gallery_ids = rng.integers(-1, 4, n_gallery)
    query_cams, gallery_cams = rng.integers(1, 3, n_query), rng.integers(1, 3, n_gallery)
    arguments = distances, query_ids, gallery_ids, query_cams, gallery_cams
    cmc, step, trapezoid, steps, first, skipped = brute_force(*arguments)
    if skipped == n_query:
        with pytest.raises(InputError, match=f"none of the {n_query} queries"):
            evaluate_ranking(*arguments)
        return
    result = evaluate_ranking(*arguments)
    np.testing.assert_allclose(result.cmc, cmc, rtol=1e-12)
    assert result.mean_ap == pytest.approx(step, rel=1e-12)
    assert result.mean_ap_trapezoid == pytest.approx(trapezoid, rel=1e-12)
    np.testing.assert_allclose(result.average_precision, steps, rtol=1e-12)
    assert result.skipped == skipped and (result.first_match == np.array(first) + 1).all()


@pytest.mark.parametrize("levels", [5, 300, 2**20], ids=["ties", "some ties", "no ties"])
@pytest.mark.parametrize("junk", [0.0, 0.3])
def test_few_matches_behind_many_images_equal_brute_force(levels, junk):
    """Hundreds of images per match: they are counted instead of sorted (SORT_AT_MOST)."""
    rng = np.random.default_rng(levels)
    distances = rng.integers(0, levels, (12, 900)).astype(np.float32)
    query_ids, gallery_ids = np.arange(1, 13), rng.integers(1, 400, 900)
    gallery_ids[:60] = np.tile(query_ids, 5)
    gallery_ids[rng.random(900) < junk] = -1
    cameras = rng.integers(1, 3, 12), rng.integers(1, 3, 900)
    result = evaluate_ranking(distances, query_ids, gallery_ids, *cameras)
    cmc, step, trapezoid, steps, first, _ = brute_force(distances, query_ids, gallery_ids, *cameras)
    np.testing.assert_allclose(result.cmc, cmc, rtol=1e-12)
    np.testing.assert_allclose(result.average_precision, steps, rtol=1e-12)
    assert result.mean_ap_trapezoid == pytest.approx(trapezoid, rel=1e-12)
    assert (result.first_match == np.array(first) + 1).all()


@settings(max_examples=200, deadline=None)
@given(cases)
def test_without_the_camera_rule_all_images_of_a_person_are_matches(case):
    """No cameras: the same as brute force with cameras that are all different."""
    n_query, n_gallery, seed, levels = case
    rng = np.random.default_rng(seed)
    distances = rng.integers(0, levels, (n_query, n_gallery)).astype(np.float32)
    query_ids = rng.choice([-1, 1, 2, 3], n_query, p=[0.1, 0.3, 0.3, 0.3])
    gallery_ids = rng.integers(-1, 4, n_gallery)
    cameras = np.arange(n_query), n_query + np.arange(n_gallery)
    cmc, step, trapezoid, steps, first, skipped = brute_force(
        distances, query_ids, gallery_ids, *cameras
    )
    if skipped == n_query:
        with pytest.raises(InputError, match=f"none of the {n_query} queries has a match in the g"):
            evaluate_ranking(distances, query_ids, gallery_ids, None, None)
        return
    result = evaluate_ranking(distances, query_ids, gallery_ids, None, None)
    np.testing.assert_allclose(result.cmc, cmc, rtol=1e-12)
    assert result.mean_ap == pytest.approx(step, rel=1e-12)
    assert result.mean_ap_trapezoid == pytest.approx(trapezoid, rel=1e-12)
    np.testing.assert_allclose(result.average_precision, steps, rtol=1e-12)
    assert result.skipped == skipped and (result.first_match == np.array(first) + 1).all()


def test_without_the_camera_rule_by_hand():
    """One query of camera 1; the nearest image is of its person and camera, and counts."""
    arguments = np.array([[0.1, 0.2, 0.3]]), [7], [7, 3, 7]
    with_rule = evaluate_ranking(*arguments, [1], [1, 2, 2])
    without = evaluate_ranking(*arguments, None, None)
    assert (with_rule.mean_ap, without.mean_ap) == (1 / 2, (1 + 2 / 3) / 2)
    assert (with_rule.cmc[0], without.cmc[0]) == (0, 1)
    for cameras in (([1], None), (None, [1, 2, 2])):  # one of the two is forgotten
        with pytest.raises(InputError, match="cameras are object of shape"):
            evaluate_ranking(*arguments, *cameras)


def test_by_hand():
    # ranking of the one query: wrong, right, junk (own camera), distractor, right -> hits at ranks 2 and 4
    distances = np.array([[0.1, 0.2, 0.3, 0.4, 0.5]])
    result = evaluate_ranking(distances, [7], [3, 7, 7, 0, 7], [1], [2, 2, 1, 3, 3])
    assert result.average_precision[0] == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert result.mean_ap_trapezoid == pytest.approx(
        ((0 / 1 + 1 / 2) / 2 + (1 / 3 + 2 / 4) / 2) / 2
    )
    assert result.cmc[:3].tolist() == [0, 1, 1]


def test_infinite_distances_rank_last_and_first():
    """Their sum is NaN, and none of them is."""
    result = evaluate_ranking([[np.inf, -np.inf]], [1], [1, 2], [1], [2, 2])
    assert result.first_match.tolist() == [2] and result.mean_ap == 0.5


def test_a_shorter_curve_is_the_beginning_of_a_longer():
    rng = np.random.default_rng(5)
    arguments = rng.random((30, 80)), rng.integers(1, 9, 30), rng.integers(-1, 9, 80)
    arguments += rng.integers(1, 4, 30), rng.integers(1, 4, 80)
    for evaluate in (lambda *a, **k: evaluate_ranking(*a, **k).cmc, single_shot_cmc):
        long = evaluate(*arguments)
        assert len(long) == 50 and 0 < long[0] < long[2] < long[6]
        for n in (1, 3, 7, 90):
            curve = evaluate(*arguments, max_rank=n)
            assert len(curve) == n
            np.testing.assert_array_equal(curve[:50], long[:n])


def test_a_ranking_is_not_written_to():
    ranking = evaluate_ranking([[0.1]], [1], [1], [1], [2])
    with pytest.raises(FrozenInstanceError):
        ranking.mean_ap = 1.0


def test_the_trapezoid_is_never_larger():
    """Match by match: (h - 1) / (r - 1) <= h / r, so also for any one query."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        matches = rng.choice(40, rng.integers(1, 8), replace=False)
        gallery_ids = np.isin(np.arange(40), matches).astype(int) + 1
        found = evaluate_ranking(np.arange(40.0)[None], [2], gallery_ids, [1], np.full(40, 2))
        assert found.mean_ap_trapezoid <= found.mean_ap
        only_the_first = np.array_equal(np.sort(matches), np.arange(len(matches)))
        assert (found.mean_ap_trapezoid == found.mean_ap) == only_the_first


def test_step_sum_is_scikit_learns():
    rng = np.random.default_rng(2)
    distances = rng.random((20, 300))
    query_ids, gallery_ids = rng.integers(1, 9, 20), rng.integers(0, 9, 300)
    result = evaluate_ranking(distances, query_ids, gallery_ids, np.ones(20, int), np.full(300, 2))
    expected = [
        average_precision_score(gallery_ids == q, -row)
        for q, row in zip(query_ids, distances, strict=True)
    ]
    np.testing.assert_allclose(result.average_precision, expected, rtol=1e-12)


def expected_rank1(distances, query_ids, gallery_ids, query_cams, gallery_cams):
    """The mean over all draws of the single-shot protocol, without drawing: a match wins if every other identity's draw is further."""
    rates = []
    for q in range(len(query_ids)):
        other = [
            j
            for j in range(len(gallery_ids))
            if gallery_cams[j] != query_cams[q] and gallery_ids[j] != -1
        ]
        matches = [j for j in other if gallery_ids[j] == query_ids[q]]
        if not matches:
            continue
        wins = []
        for m in matches:
            win = 1.0
            for pid in {gallery_ids[j] for j in other} - {query_ids[q]}:
                theirs = [j for j in other if gallery_ids[j] == pid]
                win *= np.mean([(distances[q][j], j) > (distances[q][m], m) for j in theirs])
            wins.append(win)
        rates.append(np.mean(wins))
    return np.mean(rates) if rates else None


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([3, 1000]))
def test_single_shot_is_its_expectation(seed, levels):
    rng = np.random.default_rng(seed)
    distances = rng.integers(0, levels, (6, 24)).astype(np.float32)
    arguments = (
        distances,
        rng.integers(1, 5, 6),
        rng.integers(-1, 5, 24),
        rng.integers(1, 3, 6),
        rng.integers(1, 3, 24),
    )
    expected = expected_rank1(*arguments)
    if expected is None:
        return
    cmc = single_shot_cmc(*arguments, repeats=3000, seed=1)
    assert cmc[0] == pytest.approx(
        expected, abs=5 * 0.5 / np.sqrt(3000)
    )  # five standard errors of one query's draws
    assert (np.diff(cmc) >= 0).all() and cmc[5] == 1  # six ids at most
    first, again = [single_shot_cmc(*arguments, repeats=20, seed=1) for _ in range(2)]
    assert np.array_equal(first, again)  # the seed decides


def test_single_shot_by_hand():
    # camera 2 has person 7 twice (at 0.1 and 0.9) and person 8 once (at 0.5): person 7 is first in half of the draws
    cmc = single_shot_cmc(
        [[0.1, 0.9, 0.5, 0.0]], [7], [7, 7, 8, 7], [1], [2, 2, 2, 1], repeats=4000
    )
    assert cmc[0] == pytest.approx(0.5, abs=0.04) and cmc[1] == 1


def test_single_shot_draws_are_the_same_every_time():
    """Those of seed 0, a hundred for each camera."""
    rng = np.random.default_rng(6)
    arguments = rng.random((8, 40)), rng.integers(1, 5, 8), rng.integers(1, 5, 40)
    arguments += rng.integers(1, 4, 8), rng.integers(1, 4, 40)
    curve = single_shot_cmc(*arguments)
    assert np.array_equal(curve, single_shot_cmc(*arguments, repeats=100, seed=0))
    assert not np.array_equal(curve, single_shot_cmc(*arguments, repeats=100, seed=1))
    with pytest.raises(InputError, match="seed is -1; expected a whole number from 0 on"):
        single_shot_cmc(*arguments, seed=-1)
    for name in ("repeats", "max_rank"):
        with pytest.raises(InputError, match=f"{name} is 0; expected a whole number from 1 on"):
            single_shot_cmc(*arguments, **{name: 0})


def test_multi_query_is_the_mean_of_the_same_identity_and_camera():
    more = np.array([[0.0, 2.0], [4.0, 0.0], [9.0, 9.0]])
    out = pool_queries([[1.0, 1.0], [5.0, 5.0]], [7, 8], [1, 1], more, [7, 7, 8], [1, 1, 2])
    assert out.tolist() == [
        [2.0, 1.0],
        [5.0, 5.0],
    ]  # the second has no image in its own camera, and stays


@pytest.mark.parametrize("evaluate", [evaluate_ranking, single_shot_cmc])
@pytest.mark.parametrize(
    "arguments, words",
    [
        (
            (np.zeros((2, 3)), [1, 2], [1, 2, 3, 4], [1, 1], [2, 2, 2, 2]),
            r"distances \(2, 3\), 2 query ids, 4 gallery ids",
        ),
        ((np.zeros((2, 2)), [1, 2], [1, 2], [1], [2, 2]), "1 query cameras, 2 gallery cameras"),
        ((np.zeros((2, 2)), [1, 2], [1, 2], [1, 1], [2]), "2 query cameras, 1 gallery cameras"),
        ((np.array([[0.0, np.nan]]), [1], [1, 1], [1], [2, 2]), "1 of the distances are NaN"),
        (
            (np.zeros((1, 2)), ["0001"], ["0001", "0002"], [1], [2, 2]),
            "the query ids are <U4 .*expected one whole number",
        ),
        ((np.zeros((1, 2)), [1], [1, 1], [1], [2.0, 2.0]), "the gallery cameras are float64"),
        (
            (np.zeros((1, 2)), [1], np.array([1, 255], np.uint8), [1], [2, 2]),
            "the gallery ids are uint8 and hold 255, a -1",
        ),
        (([["a", "b"]], [1], [1, 1], [1], [2, 2]), "found a list that is not an array of numbers"),
        (
            (np.zeros((1, 2)), [1], [1, 1], [1], [2, 2], 0),
            "is 0; expected a whole number from 1 on",
        ),
        (
            (np.zeros((0, 2)), [], [1, 1], [], [2, 2]),
            "0 queries and 2 gallery images; expected at least one of each",
        ),
        (
            (np.zeros((1, 2)), [1], [2, 1], [1], [2, 1]),
            "none of the 1 queries has a match in another camera",
        ),
    ],
)
def test_bad_input(evaluate, arguments, words):
    with pytest.raises(InputError, match=words):
        evaluate(*arguments)


def test_large_and_unsigned_ids_stay_apart():
    ids = 2**60 + np.array([3, 2, 1, 3])
    found = evaluate_ranking(
        [[0.1, 0.2, 0.3, 0.4]], np.array([2**60 + 2], np.uint64), ids, [1], [2, 2, 2, 2]
    )
    assert found.mean_ap == 0.5


def test_tensors_and_half_precision():
    rng = np.random.default_rng(4)
    distances, ids, cams = (
        rng.random((5, 30)),
        (rng.integers(1, 4, 5), rng.integers(1, 4, 30)),
        (np.ones(5, int), np.full(30, 2)),
    )
    expected = evaluate_ranking(distances.astype(np.float32), *ids, *cams).mean_ap
    for d in (
        torch.tensor(distances, dtype=torch.float32, requires_grad=True),
        np.asfortranarray(distances.astype(np.float32)),
    ):
        assert evaluate_ranking(d, *map(torch.tensor, ids), *cams).mean_ap == expected
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate_ranking(np.full((5, 30), 6e4, np.float16), *ids, *cams)
        half = torch.tensor(distances, dtype=torch.bfloat16)
        assert (
            evaluate_ranking(half, *ids, *cams).mean_ap
            == evaluate_ranking(half.float().numpy(), *ids, *cams).mean_ap
        )


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(more=np.zeros((3, 5))), "expected \\(Q, D\\) and \\(M, D\\)"),
        (dict(more_ids=[1, 2]), "with 2 and 3; expected"),
        (dict(ids=[7]), "with 1 ids and 2 cameras"),
        (dict(cams=[1]), "with 2 ids and 1 cameras"),
        (dict(more_cams=[1]), "with 3 and 1; expected"),
        (dict(features=np.zeros(4)), r"features \(4,\) with"),
        (dict(features=np.zeros((2, 4, 1))), r"features \(2, 4, 1\) with"),
        (dict(more=np.zeros(4)), r"more \(4,\) with"),
        (dict(more=np.zeros((3, 4, 1))), r"more \(3, 4, 1\) with"),
        (dict(cams=[[1], [1]]), r"the cameras are int64 of shape \(2, 1\)"),
        (dict(more_ids=[7.5, 7, 8]), "the further ids are float64 of shape"),
        (dict(more_cams=list("abc")), "the further cameras are <U1 of shape"),
        (dict(ids=["7", "8"]), "the ids are <U1"),
        (dict(features=[["0", "1", "2", "3"]] * 2), "found a list that is not an array of numbers"),
        (dict(more=np.full((3, 4), np.inf)), "3 of the features hold NaN or infinity"),
        (dict(more=np.full((3, 4), 1e39)), "3 of the features hold NaN or infinity"),  # in float32
        (dict(features=[[0] * 4, [0, 0, 0, np.nan]]), "1 of the features hold NaN or infinity"),
    ],
)
def test_bad_input_of_multi_query(change, words):
    good = dict(
        features=np.zeros((2, 4)),
        ids=[7, 8],
        cams=[1, 1],
        more=np.zeros((3, 4)),
        more_ids=[7, 7, 8],
        more_cams=[1, 1, 2],
    )
    with pytest.raises(InputError, match=words):
        pool_queries(**(good | change))


UNKIND = unkind_features()


@pytest.mark.parametrize("kind", UNKIND)
def test_distances_rank_as_exact_ones(kind):
    query, gallery = UNKIND[kind]
    found = euclidean(query, gallery)
    exact = query.astype(float)[:, None] - gallery.astype(float)[None]
    exact = (exact**2).sum(2)
    assert found.dtype == np.float32 and found.shape == exact.shape
    # Walking down the ranking, the exact distance never falls by more than rounding.
    walk = np.take_along_axis(exact, found.argsort(1, kind="stable"), 1)
    fall = np.maximum.accumulate(walk, axis=1) - walk
    assert (fall <= 5e-5 * walk).all(), (fall / walk).max()
    np.testing.assert_allclose(found, exact, rtol=5e-5)
    assert (found[exact == 0] == 0).all()


@pytest.mark.parametrize("scale", [1e-4, 1, 1e4])
def test_long_features_have_the_digits_of_their_differences(scale):
    """Norms 20 times as large as distances: products of them would lose one digit and a half."""
    rng = np.random.default_rng(8)
    x = (scale * (rng.normal(size=(400, 256)) + 6)).astype(np.float32)
    exact = ((x[:100, None].astype(float) - x[None, 100:]) ** 2).sum(2)
    np.testing.assert_allclose(euclidean(x[:100], x[100:]), exact, rtol=1e-6)


def test_distances_of_more_than_one_block():
    """Two far groups of 1,300: nearly every pair of a group is closer than float32 products tell."""
    rng = np.random.default_rng(7)
    side = np.repeat([-20.0, 20.0], 1300)[:, None]
    x = (side + 1e-3 * rng.normal(size=(2600, 3))).astype(np.float32)
    some = rng.permutation(2600)[:700]
    exact = ((x[some].astype(float)[:, None] - x.astype(float)) ** 2).sum(2)
    np.testing.assert_allclose(euclidean(x[some], x), exact, rtol=5e-5)
    np.testing.assert_allclose(euclidean(x, x[some]), exact.T, rtol=5e-5)


def test_an_offset_changes_no_ranking():
    rng = np.random.default_rng(0)
    people = 0.3 * rng.normal(size=(40, 256))
    gallery = np.concatenate([people + 0.2 * rng.normal(size=people.shape) for _ in range(5)])
    labels = np.arange(40), np.tile(np.arange(40), 5), np.ones(40, int), np.full(200, 2)
    for offset in (0, 1, 10, 100, 1000, 3000):
        q, g = [(x + offset).astype(np.float32) for x in (people, gallery)]
        assert evaluate_ranking(euclidean(q, g), *labels).mean_ap == pytest.approx(1), offset


def test_usual_features_keep_their_digits():
    """The digits of committed records: plain float32, for vectors like those of trained networks."""
    rng = np.random.default_rng(1)
    for offset in (0.0, 0.5):
        x = np.abs(rng.normal(size=(300, 512)) + offset).astype(np.float32)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        a, b = x[:50], x[50:]
        plain = (-2 * a) @ b.T
        plain += (a**2).sum(1)[:, None]
        plain += (b**2).sum(1)[None]
        np.testing.assert_array_equal(euclidean(a, b), plain)


@pytest.mark.parametrize(
    "a, b", [([0, 0], [0, 0, 1]), ([0], [0, 1]), ([0, 1], [0, 0]), ([1, 0], [1, 1])]
)
def test_tiny_features_of_two_kinds_are_refused(a, b):
    """Distances of 0 would hide that some of the images differ."""
    kinds = np.array([[1e-25, 0, 0], [1e-25, 1e-25, 0]])
    with pytest.raises(InputError, match="too small for float32 distances"):
        euclidean(kinds[a], kinds[b])


def test_the_largest_and_the_emptiest_labels():
    """int64 ends at 2**63 - 1, which is an identity like others; unsigned labels may be missing."""
    largest = np.iinfo(np.int64).max
    assert evaluate_ranking([[0.1, 0.2]], [largest], [largest, 1], [1], [2, 2]).mean_ap == 1
    empty = np.zeros(0, np.uint64)
    with pytest.raises(InputError, match="1 queries and 0 gallery images"):
        evaluate_ranking(np.zeros((1, 0)), np.ones(1, np.uint64), empty, [1], empty)


@pytest.mark.parametrize(
    "a, words",
    [
        (np.full((2, 3), np.nan), "2 of the features hold NaN or infinity; did the training"),
        ([[0, 0, 0], [np.inf, 0, 0]], "1 of the features hold NaN or infinity"),
        (np.full((2, 3), 1e25), "too large for float32 distances; normalise"),
        (np.full((2, 3), 1e-25), "too small for float32 distances; normalise"),
        ([["1", "2", "3"]], r"found a list that is not an array of numbers \(its type is <U1\)"),
        (np.zeros(3), "features of shapes .*; expected"),
        (np.zeros((2, 3, 1)), "features of shapes .*; expected"),
        (np.ones((2, 3), complex), "its type is complex128"),
        (None, "found a NoneType that is not an array of numbers"),
        ((x for x in range(3)), "found a generator"),
        (np.ma.masked_less(np.eye(3), 1), "some of it is masked"),
        (torch.ones(2, 3).to_sparse(), "found a Tensor that is not an array of numbers"),
    ],
)
def test_features_that_have_no_distances(a, words):
    zeros = np.zeros((2, 3))
    for arguments in ((a, zeros), (zeros, a)):
        with pytest.raises(InputError, match=words):
            euclidean(*arguments)


def test_the_scale_changes_no_digit_that_float32_holds():
    """The largest distance is that of two opposite images, four times the largest norm."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 6))
    images = np.concatenate([x, -x])
    norm = np.square(images).sum(1).max()
    exact = np.square(images[:, None] - images).sum(2)
    limit = float(np.finfo(np.float32).max)
    for largest in (1.01e-30, 1.0, 2.0, 0.2 * limit, 0.24 * limit):
        scale = np.sqrt(largest / norm)
        found = euclidean(scale * images[:9], scale * images)
        np.testing.assert_allclose(found / np.square(scale), exact[:9], rtol=1e-5, atol=1e-6)
    for largest, words in ((0.99e-30, "too small"), (0.26 * limit, "too large")):
        scaled = images * np.sqrt(largest / norm)
        with pytest.raises(InputError, match=words):
            euclidean(scaled[:9], scaled)


def test_no_images_have_no_distances():
    assert euclidean(np.zeros((0, 3)), np.ones((2, 3))).shape == (0, 2)
    assert euclidean(np.ones((2, 3)), np.zeros((0, 3))).shape == (2, 0)
    assert (euclidean(np.full((4, 3), 5e-20), np.full((2, 3), 5e-20)) == 0).all()


def test_euclidean_refuses_other_widths():
    with pytest.raises(InputError, match=r"features of shapes \(2, 3\) and \(2, 4\)"):
        euclidean(np.zeros((2, 3)), np.zeros((2, 4)))


def test_euclidean():
    rng = np.random.default_rng(3)
    a, b = rng.random((5, 8)), rng.random((7, 8))
    np.testing.assert_allclose(euclidean(a, b), ((a[:, None] - b[None]) ** 2).sum(2), atol=1e-5)
