"""Exercises of notebook 03: rank-1 against AP, one query scored, and the two kinds of AP."""

from itertools import combinations

import numpy as np

from .checking import FunctionExercise, ValueExercise

# Step sum of matches at ranks 2, 3 and 4, the second list of the notebook.
TO_BEAT = (1 / 2 + 2 / 3 + 3 / 4) / 3


def _examine_ranks(value) -> str | None:
    ranks = [float(rank) for rank in value]
    if len(ranks) != 3:
        return f"these are {len(ranks)} ranks; the query has three matches"
    if not all(rank.is_integer() for rank in ranks):
        return "a rank is a whole number"
    if min(ranks) < 1:
        return "the first rank of a list is 1, not 0"
    if len(set(ranks)) < 3:
        return "two matches cannot stand at one rank"
    ranks = sorted(ranks)
    precision = float(np.mean(np.arange(1, 4) / ranks))
    if ranks[0] != 1:
        return (
            f"rank-1 asks for a match at the first place, and your first one is at {ranks[0]:.0f}"
        )
    if precision >= TO_BEAT:
        return (
            f"rank-1 is right, but your AP is {precision:.3f}, and that of the other list "
            f"{TO_BEAT:.3f}; what would lower AP without touching the first match?"
        )
    return None


good_start = ValueExercise(
    name="good_start",
    notebook="03_benchmarks_and_metrics",
    title="A good start, a bad list",
    level="change a number",
    minutes=5,
    asks="a list of three ranks",
    examine=_examine_ranks,
    typical={
        "[1, 2, 10]": "AP is still high; all matches count, and two of them are early",
        "[2, 9, 10]": "rank-1 looks at the first place only",
        "[0, 8, 9]": "ranks begin at 1",
    },
    right="rank-1 is perfect, and AP is below that of a list that begins with an error",
)


def ranks_of_matches(
    distances,
    query_id,
    query_cam,
    gallery_ids,
    gallery_cams,
    *,
    junk="left out",
    own_camera="left out",
    order=1,
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of a query's matches, from 1, and the ranked list without the images that are left out.

    distances, gallery_ids, gallery_cams: (G,).
    junk, own_camera: how these images count: "left out", "error", or "match" (own_camera only).
    order: 1, nearest first; -1, furthest first. Values other than the defaults are for the mistakes
    below.
    Returns (M,) ranks, and for each image of the list whether it is a match, (images,) bool.
    """
    same_id = gallery_ids == query_id
    is_junk = gallery_ids == -1
    is_own = same_id & (gallery_cams == query_cam)
    match = same_id & ~is_own
    left_out = np.zeros(len(gallery_ids), bool)
    if junk == "left out":
        left_out |= is_junk
    if own_camera == "left out":
        left_out |= is_own
    elif own_camera == "match":
        match |= is_own
    by_distance = np.argsort(order * distances, kind="stable")
    stays = ~left_out[by_distance]
    counts = match[by_distance][stays]
    return np.flatnonzero(counts) + 1, counts


def average_precision(*query, **rule) -> float:
    """The step-sum AP of one query.

    query: distances (G,), the query's id and camera, ids and cameras of the gallery (G,).
    """
    ranks, _ = ranks_of_matches(*query, **rule)
    return float(np.mean(np.arange(1, len(ranks) + 1) / ranks))


def _from_ranks(rule):
    """A mistake from its formula: (h, ranks, length of the list) -> a number."""

    def mistaken(*query):
        ranks, counts = ranks_of_matches(*query)
        h = np.arange(1, len(ranks) + 1)
        return float(rule(h, ranks, len(counts)))

    return mistaken


def _without(left_out_as):
    """A mistake in which some images are dropped that should stay."""

    def mistaken(distances, query_id, query_cam, gallery_ids, gallery_cams):
        drop = left_out_as(query_id, query_cam, gallery_ids, gallery_cams)
        kept = ~drop
        return average_precision(
            distances[kept], query_id, query_cam, gallery_ids[kept], gallery_cams[kept]
        )

    return mistaken


def _junk_and_distractors_swapped(distances, query_id, query_cam, gallery_ids, gallery_cams):
    swapped = np.select([gallery_ids == -1, gallery_ids == 0], [0, -1], gallery_ids)
    return average_precision(distances, query_id, query_cam, swapped, gallery_cams)


def _unsorted(distances, *query):
    return average_precision(np.arange(len(distances)), *query)


def _positions_for_ranks(distances, *query):
    """argsort gives the image at each rank, here taken for the rank of each image."""
    return average_precision(np.argsort(distances), *query)


def _of_counts(counts) -> float:
    """Step sum of a list, (n,) bool: which of its images are matches. NaN without a match."""
    ranks = np.flatnonzero(counts) + 1
    if not len(ranks):
        return np.nan
    return float(np.mean(np.arange(1, len(ranks) + 1) / ranks))


def _with_unsorted(*masks: str, own_is_match: bool = True):
    """A mistake in which some masks stay in the order of the gallery.

    masks: some of "same" (the query's person), "own" (the same person in the query's camera) and
    "junk". own_is_match: whether the mask of the matches holds images of the query's own camera.
    """

    def mistaken(distances, query_id, query_cam, gallery_ids, gallery_cams):
        order = np.argsort(distances)
        same = gallery_ids == query_id
        own = same & (gallery_cams == query_cam)
        match = same if own_is_match else same & ~own
        is_sorted = {"same": match, "own": own, "junk": gallery_ids == -1}
        for name in is_sorted.keys() - set(masks):
            is_sorted[name] = is_sorted[name][order]
        kept = ~is_sorted["own"] & ~is_sorted["junk"]
        return _of_counts(is_sorted["same"][kept])

    return mistaken


def _with_unsorted_column(which: str):
    """A mistake in which the ids or the cameras of the gallery are sorted, and the others not."""

    def mistaken(distances, query_id, query_cam, gallery_ids, gallery_cams):
        order = np.argsort(distances)
        ids = gallery_ids if which == "ids" else gallery_ids[order]
        cams = gallery_cams if which == "cams" else gallery_cams[order]
        same = ids == query_id
        return _of_counts(same[(ids != -1) & ~(same & (cams == query_cam))])

    return mistaken


def _left_out_at_the_end(result, *query) -> bool:
    """Whether a result comes from a list that has the images to be left out at its end.

    There the query's person still counts. All these images have the distance inf or nan, so their
    order is arbitrary: all orders are tried.
    """
    distances, query_id, query_cam, gallery_ids, gallery_cams = query
    _, counts = ranks_of_matches(*query)
    at_the_end = len(distances) - len(counts)
    own = int(((gallery_ids == query_id) & (gallery_cams == query_cam)).sum())
    if own < 2:
        return False  # too few to exclude a coincidence
    orders = combinations(range(at_the_end), own)
    lists = [np.append(counts, np.isin(np.arange(at_the_end), places)) for places in orders]
    return any(np.isclose(result, _of_counts(ends)) for ends in lists)


def _mean_over_ranks_that_stay(distances, query_id, query_cam, gallery_ids, gallery_cams):
    """Junk is skipped in the mean, as by nanmean, but it takes up ranks."""
    same = gallery_ids == query_id
    left_out = (gallery_ids == -1) | (same & (gallery_cams == query_cam))
    order = np.argsort(distances)
    hits = (same & ~left_out)[order].cumsum()
    return float((hits / np.arange(1, len(order) + 1))[~left_out[order]].mean())


def _over_the_gallery(*query):
    ranks, _ = ranks_of_matches(*query)
    return average_precision(*query) * len(ranks) / len(query[0])


def _trapezoid(h, ranks, length):
    before = np.where(ranks > 1, (h - 1) / np.maximum(ranks - 1, 1), 1.0)
    return np.mean((before + h / ranks) / 2)


def _mean_over_all_ranks(*query):
    _, counts = ranks_of_matches(*query)
    return float(np.mean(np.cumsum(counts) / np.arange(1, len(counts) + 1)))


def _query(seed: int) -> tuple:
    """A query and a gallery of 14 in which every kind of image stands among the first.

    Of the query's person there are four in other cameras and two in its own; three are junk, two
    are distractors, three are other people.
    """
    rng = np.random.default_rng(seed)
    ids = np.array([7, 7, 7, 7, 7, 7, -1, -1, -1, 0, 0, 3, 4, 5])
    cams = np.array([1, 1, 2, 2, 3, 4, 1, 2, 3, 1, 2, 1, 2, 1])
    # The nearest ones by kind, so that each mistake changes the result.
    nearness = np.array([0.5, 3.5, 2.5, 6.5, 9.5, 12.5, 1.5, 5.5, 8, 4.5, 7.5, 3, 10.5, 6])
    distances = nearness / 10 + 0.1 * rng.random(14)
    shuffle = rng.permutation(14)
    return distances[shuffle], 7, 1, ids[shuffle], cams[shuffle]


def _long_list() -> tuple:
    """The matches stand at ranks 3 and 21 of 24; nothing is left out."""
    ids = np.full(24, 5)
    ids[[2, 20]] = 7
    return np.arange(24) / 10, 7, 1, ids, np.full(24, 2)


def _by_hand() -> tuple:
    """The images that stay are an error, a match, a match, an error: AP = (1/2 + 2/3) / 2."""
    ids = np.array([-1, 2, 5, 2, 2, 0])
    cams = np.array([2, 1, 2, 2, 3, 1])
    return np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), 2, 1, ids, cams


score_one_query = FunctionExercise(
    name="score_one_query",
    notebook="03_benchmarks_and_metrics",
    title="Score one query",
    level="write",
    minutes=20,
    reference=average_precision,
    arguments=("distances", "query_id", "query_cam", "gallery_ids", "gallery_cams"),
    probes=(_by_hand(), _query(0), _query(1), _query(2), _long_list()),
    shape="(), one number",
    mistakes={
        "junk (identity -1) counts as a miss; it is left out of the ranking": lambda *query: (
            average_precision(*query, junk="error")
        ),
        "junk has the identity -1; an image of identity 0 is a distractor and stays": (
            _junk_and_distractors_swapped
        ),
        "images of the query's own camera are kept and count as matches; a match is from another "
        "camera": lambda *query: average_precision(*query, own_camera="match"),
        "images of the query's person from its own camera count as misses; they are left out of "
        "the ranking": lambda *query: average_precision(*query, own_camera="error"),
        "what is left out still takes up ranks; drop it before you count": lambda *query: (
            average_precision(*query, junk="error", own_camera="error")
        ),
        "nothing is left out: neither junk nor the images of the query's own camera": (
            lambda *query: average_precision(*query, junk="error", own_camera="match")
        ),
        "all images of the query's camera are dropped; other people there are errors like any "
        "other": _without(lambda pid, cam, ids, cams: cams == cam),
        "distractors (identity 0) are left out; a method that ranks them high is wrong": _without(
            lambda pid, cam, ids, cams: ids == 0
        ),
        "the furthest image comes first": lambda *query: average_precision(*query, order=-1),
        "the list is not sorted by distance": _unsorted,
        "argsort gives the image at each rank, not the rank of each image": _positions_for_ranks,
        "the mask of what is left out stands in the order of the gallery; sort it like the list": (
            _with_unsorted("own", "junk")
        ),
        "the mask of what is left out stands in the order of the gallery; sort it as you sort the "
        "matches": _with_unsorted("own", "junk", own_is_match=False),
        "the mask of the matches stands in the order of the gallery; sort it like the list": (
            _with_unsorted("same")
        ),
        "the mask of the matches stands in the order of the gallery; sort it as you sort what is "
        "left out": _with_unsorted("same", own_is_match=False),
        "the mask of junk stands in the order of the gallery; sort it like the list": (
            _with_unsorted("junk")
        ),
        "the mask of the query's own camera stands in the order of the gallery; sort it like the "
        "list": _with_unsorted("own"),
        "the identities are sorted by distance, but the cameras are not": _with_unsorted_column(
            "cams"
        ),
        "the cameras are sorted by distance, but the identities are not": _with_unsorted_column(
            "ids"
        ),
        "this is the trapezoid; the exercise asks for the step sum": _from_ranks(_trapezoid),
        "the precisions at the matches are summed; AP is their mean": _from_ranks(
            lambda h, ranks, length: np.sum(h / ranks)
        ),
        "the precisions at the matches are divided by the length of the list; AP divides by the "
        "number of matches": _from_ranks(lambda h, ranks, length: np.sum(h / ranks) / length),
        "the precision is averaged over all ranks; AP takes it at the matches only": (
            _mean_over_all_ranks
        ),
        "the precision is averaged over all ranks that stay (nanmean), and what is left out takes "
        "up ranks; AP takes it at the matches, in the list without the others": (
            _mean_over_ranks_that_stay
        ),
        "the precisions at the matches are divided by the size of the whole gallery; AP divides by "
        "the number of matches": _over_the_gallery,
        "the match itself is missing in the precision at its rank": _from_ranks(
            lambda h, ranks, length: np.mean((h - 1) / ranks)
        ),
        "ranks begin at 0 here; the nearest image has rank 1": _from_ranks(
            lambda h, ranks, length: np.mean(h / np.maximum(ranks - 1, 1))
        ),
        "ranks begin at 0 here, and a match at the first place divides by 0; the nearest image has "
        "rank 1": _from_ranks(lambda h, ranks, length: np.mean(h / (ranks - 1))),
        "matches and ranks are counted from 0; the first match is number 1, and the nearest image "
        "has rank 1": _from_ranks(lambda h, ranks, length: np.mean((h - 1) / (ranks - 1))),
        "ranks begin at 2 here; the nearest image has rank 1": _from_ranks(
            lambda h, ranks, length: np.mean(h / (ranks + 1))
        ),
        "this looks at the first match only (the reciprocal rank); AP looks at all": _from_ranks(
            lambda h, ranks, length: 1 / ranks[0]
        ),
        "this is the precision at the last match; AP is the mean over all matches": _from_ranks(
            lambda h, ranks, length: h[-1] / ranks[-1]
        ),
        "every match counts 1; its precision is the number of matches so far, h": _from_ranks(
            lambda h, ranks, length: np.mean(1 / ranks)
        ),
        "right, but in per cent; give a number between 0 and 1": _from_ranks(
            lambda h, ranks, length: 100 * np.mean(h / ranks)
        ),
    },
    symptoms={
        "AP lies between 0 and 1": lambda result, *query: not 0 <= result <= 1,
        "what is left out stands at the end of the list, and the query's person counts there; drop "
        "these images": _left_out_at_the_end,
    },
    nan_means="If you mark what is left out by nan, it spreads through sums; drop it before you "
    "count",
    right="junk and the query's own camera are out, distractors stay, and all matches count",
)


def step_minus_trapezoid(ranks) -> float:
    """Step sum minus trapezoid: the mean of (r - h) / (2 r (r - 1)), where r = 1 counts as 0."""
    return _gap(ranks, _term)


def _gap(ranks, rule, first: float = 0.0) -> float:
    ranks = np.asarray(ranks, float)
    h = np.arange(1, len(ranks) + 1)
    terms = [rule(a, r) if r > 1 else first for a, r in zip(h, ranks, strict=True)]
    return float(np.mean(terms))


def _without_rank_1(rule):
    """The mean of a rule (h, r) over the matches that are not at rank 1, as nanmean takes it."""

    def mean(ranks):
        h = np.arange(1, len(ranks) + 1)
        later = ranks > 1
        return float(np.mean(rule(h[later], ranks[later])))

    return mean


def _term(h, r):
    return (r - h) / (2 * r * (r - 1))


def _step(ranks):
    return float(np.mean(np.arange(1, len(ranks) + 1) / ranks))


the_two_kinds = FunctionExercise(
    name="the_two_kinds",
    notebook="03_benchmarks_and_metrics",
    title="How far apart are the two kinds?",
    level="prove",
    minutes=20,
    reference=step_minus_trapezoid,
    arguments=("ranks",),
    probes=(
        (np.array([1, 3, 6]),),
        (np.array([2, 3, 4]),),
        (np.array([2, 5, 11, 12]),),
        (np.array([1, 2, 3]),),
        (np.array([4]),),
    ),
    shape="(), one number",
    mistakes={
        "the factor 1/2 of the trapezoid is missing": lambda ranks: 2 * step_minus_trapezoid(ranks),
        "the terms are summed; both kinds are a mean over the matches": lambda ranks: (
            step_minus_trapezoid(ranks) * len(ranks)
        ),
        "the sign is wrong: the step sum is the larger one": lambda ranks: (
            -step_minus_trapezoid(ranks)
        ),
        "right, but a match at rank 1 gives 0/0; there both kinds are 1": lambda ranks: _gap(
            ranks, _term, first=np.nan
        ),
        "at rank 1 the first fraction of the trapezoid is set to 1, not to 0": lambda ranks: _gap(
            ranks, _term, first=0.5
        ),
        "a match at rank 1 drops out of the mean (nanmean); it counts, with a difference of 0": (
            _without_rank_1(_term)
        ),
        "a match at rank 1 drops out of the trapezoid's mean (nanmean); it counts there with 1": (
            lambda ranks: _step(ranks) - _without_rank_1(lambda h, r: h / r - _term(h, r))(ranks)
        ),
        "ranks begin at 1 already; you added 1": lambda ranks: step_minus_trapezoid(ranks + 1),
        "h counts the matches from 1, not from 0, and at rank 1 this divides by 0": (
            lambda ranks: _gap(ranks, lambda h, r: (r - h + 1) / (2 * r * (r - 1)), first=np.inf)
        ),
        "h counts the matches from 1, not from 0": lambda ranks: _gap(
            ranks, lambda h, r: (r - h + 1) / (2 * r * (r - 1))
        ),
        "the common denominator of h/r and (h-1)/(r-1) is r (r - 1), not r squared": lambda ranks: (
            _gap(ranks, lambda h, r: (r - h) / (2 * r * r))
        ),
        "this is the step sum itself; the exercise asks by how much it is larger": _step,
        "this is the trapezoid itself; the exercise asks by how much the step sum is larger": (
            lambda ranks: _step(ranks) - step_minus_trapezoid(ranks)
        ),
    },
    symptoms={
        "the difference is never negative": lambda result, ranks: result < -1e-9,
        "the difference is never above 1/4": lambda result, ranks: result > 0.25 + 1e-9,
    },
    nan_means="A match at rank 1 gives 0/0; there both kinds are 1",
    right="each term lies between 0 and 1/(2r), so the two kinds never differ by more than 1/4",
)
