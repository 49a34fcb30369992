"""The protocol of Market-1501: CMC and two average precisions, without sorting whole rows.

`evaluate_ranking` is the single-query protocol: ranks of the matches, then `_cmc` and
`_average_precisions`. `single_shot_cmc` is CUHK03's first protocol, and
`pool_queries` prepares the multi-query setting.
"""

from dataclasses import dataclass

import numpy as np

from . import InputError
from .support.arrays import any_array, as_array, as_features, check_whole

# The squared distance |a|^2 - 2 ab + |b|^2 loses digits where a and b are close. If it is less than
# this share of |a|^2, b is subtracted from a instead. In trained networks that is rare.
CLOSE = 0.01
# Two ways give the ranks of a query's matches. Up to this many images per match, sorting the images
# is faster; with more, it is faster to count the images before each match. Both are exact.
SORT_AT_MOST = 200
# Features are centred first if the squared norm of their mean is more than this many times the mean
# squared norm of the centred features. In trained networks this ratio is 0.2 to 2.1.
OFFSET = 4


@dataclass(frozen=True)
class Ranking:
    """Result of evaluate_ranking. Rates are in [0, 1]; cmc[r - 1] is rank-r."""

    cmc: np.ndarray  # (max_rank,)
    mean_ap: float  # step sum: scikit-learn, torchreid, fast-reid
    mean_ap_trapezoid: float  # the original Matlab evaluation
    average_precision: np.ndarray  # (Q,) step sum per query, NaN for a query without a match
    first_match: np.ndarray  # (Q,) rank of the first match, from 1; 0 for a query without a match
    skipped: int  # queries without a match in another camera


def evaluate_ranking(
    distances, query_ids, gallery_ids, query_cams, gallery_cams, max_rank: int = 50
) -> Ranking:
    """Single-query evaluation of Market-1501.

    A query's matches are the gallery images of its identity from other cameras. Two kinds of
    gallery images are left out of its ranking: those of its identity and camera, and all with
    id -1 (junk). Id 0 (distractors) stays. Ties rank in gallery order, as a stable sort would place
    them. Queries without a match are skipped and counted.

    distances: (Q, G), smaller is nearer.
    query_ids, query_cams: whole numbers, (Q,); gallery_ids, gallery_cams: (G,). If both cameras are
        None, there is no camera rule: all images of a query's identity are matches, so the gallery
        must not hold the query itself.
    max_rank: length of the CMC curve.
    Returns a Ranking.
    Raises InputError for shapes that do not fit, ids that are not whole numbers, no query or no
    gallery image, distances that are NaN, or if no query has a match.
    """
    camera_rule = query_cams is not None or gallery_cams is not None
    if not camera_rule:  # as if all queries were of one camera, and the gallery of another
        query_cams = np.zeros(as_array(query_ids).shape, int)
        gallery_cams = np.ones(as_array(gallery_ids).shape, int)
    distances, query_ids, gallery_ids, query_cams, gallery_cams = _checked(
        distances, query_ids, gallery_ids, query_cams, gallery_cams, max_rank=max_rank
    )
    matches, left_out = _images_of_the_identity(query_ids, gallery_ids, query_cams, gallery_cams)
    found = matches.counts > 0  # (Q,)
    if not found.any():
        raise _none_left(len(query_ids), camera_rule)

    ranks = _ranks_of_matches(distances, matches, left_out, counted=gallery_ids != -1)
    first_match = np.zeros(len(query_ids), int)
    first_match[found] = ranks[matches.starts[found]]

    average_precision = np.full(len(query_ids), np.nan)
    average_precision[found], trapezoids = _average_precisions(
        ranks, matches.starts[found], matches.counts[found]
    )
    return Ranking(
        cmc=_cmc(first_match[found], max_rank),
        mean_ap=float(average_precision[found].mean()),
        mean_ap_trapezoid=float(trapezoids.mean()),
        average_precision=average_precision,
        first_match=first_match,
        skipped=int((~found).sum()),
    )


def _cmc(first_match: np.ndarray, max_rank: int) -> np.ndarray:
    """Share of the queries whose first match has rank r or less, for r = 1 to max_rank.

    first_match: (Q,), from 1. Returns (max_rank,).
    """
    # One extra bin collects the first matches beyond max_rank; it is then dropped.
    bins = np.minimum(first_match - 1, max_rank)
    first_matches = np.bincount(bins, minlength=max_rank + 1)[:max_rank]  # at each rank
    return first_matches.cumsum() / len(first_match)


def _average_precisions(ranks: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> tuple:
    """Both average precisions of every query.

    With h hits up to and including rank r, they are the means over the hits of
        h / r                              the step sum
        ((h - 1) / (r - 1) + h / r) / 2    the trapezoid; the first term is 1 at r = 1

    ranks: (M,), the ranks of all matches, nearest first, query after query.
    starts, counts: (Q,), where a query's matches begin and how many there are.
    Returns two arrays (Q,).
    """
    hits = np.arange(1, len(ranks) + 1) - np.repeat(starts, counts)  # h: 1, 2, ... in each query
    precision = hits / ranks
    precision_before = np.where(ranks > 1, (hits - 1) / np.maximum(ranks - 1, 1), 1.0)
    step_sum = np.add.reduceat(precision, starts) / counts
    trapezoid = np.add.reduceat((precision_before + precision) / 2, starts) / counts
    return step_sum, trapezoid


@dataclass(frozen=True)
class _Images:
    """Some gallery images for each query, one query after the other."""

    images: np.ndarray  # (M,) indices into the gallery
    starts: np.ndarray  # (Q,) where the images of a query begin in `images`
    counts: np.ndarray  # (Q,) how many images a query has

    def of(self, query: int) -> np.ndarray:
        start = self.starts[query]
        return self.images[start : start + self.counts[query]]


def _images_of_the_identity(query_ids, gallery_ids, query_cams, gallery_cams) -> tuple:
    """The gallery images of each query's identity, in two groups.

    Returns two _Images: those from other cameras (the matches) and those from the query's own
    camera. A query with id -1 has no images in either.
    """
    n_query = len(query_ids)
    by_id = np.argsort(gallery_ids, kind="stable")  # the gallery grouped by identity
    sorted_ids = gallery_ids[by_id]
    start = np.searchsorted(sorted_ids, query_ids, "left")
    stop = np.searchsorted(sorted_ids, query_ids, "right")
    is_junk = query_ids == -1
    stop[is_junk] = start[is_junk]

    # One entry for every pair of a query and an image of its identity.
    n_images = stop - start  # (Q,)
    query = np.repeat(np.arange(n_query), n_images)
    first_entry = np.cumsum(n_images) - n_images
    place = np.arange(len(query)) - np.repeat(first_entry - start, n_images)  # in by_id
    image = by_id[place]
    same_camera = gallery_cams[image] == query_cams[query]

    groups = []
    for chosen in (~same_camera, same_camera):
        counts = np.bincount(query[chosen], minlength=n_query)
        groups.append(_Images(image[chosen], np.cumsum(counts) - counts, counts))
    return tuple(groups)


def _ranks_of_matches(
    distances: np.ndarray, matches: _Images, left_out: _Images, counted: np.ndarray
) -> np.ndarray:
    """The rank of every match, nearest first, query after query: (M,), from 1.

    The result is that of `_ranks_by_sorting`, but much faster. Read that function first: it is
    shorter.

    distances: (Q, G). matches, left_out: as _images_of_the_identity returns them. counted: (G,)
    bool, False for junk.
    """
    ranks = np.empty(len(matches.images))
    junk = np.flatnonzero(~counted)
    for q in np.flatnonzero(matches.counts > 0):
        row = distances[q]
        own_images = left_out.of(q)
        match_distances = np.sort(row[matches.of(q)])
        nearer, not_further = _images_before(row, match_distances, junk)

        is_tied = (not_further - nearer > 1).any()  # a match is as near as another image
        if is_tied:
            rank = _ranks_by_sorting(row, matches.of(q), own_images, counted)
        elif len(own_images):
            own_distances = np.sort(row[own_images])
            rank = not_further - np.searchsorted(own_distances, match_distances, "right")
        else:
            rank = not_further
        start = matches.starts[q]
        ranks[start : start + len(rank)] = rank
    return ranks


def _images_before(row: np.ndarray, match_distances: np.ndarray, junk: np.ndarray) -> tuple:
    """How many images are nearer than each match, and how many are not further, junk left out.

    The rank of a match is the number of images that are not further, unless another image has the
    same distance.

    row: (G,) distances; match_distances: (M,), sorted; junk: indices into the gallery.
    Returns two arrays (M,).
    """
    # Only images that are not further than the furthest match can come before a match.
    near = row <= match_distances[-1]
    if np.count_nonzero(near) > SORT_AT_MOST * len(match_distances):
        nearer = np.array([np.count_nonzero(row < limit) for limit in match_distances])
        not_further = np.array([np.count_nonzero(row <= limit) for limit in match_distances])
    else:
        near_distances = np.sort(row[np.flatnonzero(near)])
        nearer = np.searchsorted(near_distances, match_distances, "left")
        not_further = np.searchsorted(near_distances, match_distances, "right")
    if len(junk):
        junk_distances = np.sort(row[junk])
        nearer = nearer - np.searchsorted(junk_distances, match_distances, "left")
        not_further = not_further - np.searchsorted(junk_distances, match_distances, "right")
    return nearer, not_further


def _ranks_by_sorting(
    row: np.ndarray, match_images: np.ndarray, own_images: np.ndarray, counted: np.ndarray
) -> np.ndarray:
    """The ranks of a query's matches, as the protocol says: sort, leave out, walk down the list.

    row: (G,) distances; match_images, own_images: indices into the gallery; counted: (G,) bool,
    False for junk. A stable sort puts ties in gallery order.
    """
    ranking = np.argsort(row, kind="stable")
    ranking = ranking[counted[ranking] & ~np.isin(ranking, own_images)]
    return 1 + np.flatnonzero(np.isin(ranking, match_images))


def single_shot_cmc(
    distances,
    query_ids,
    gallery_ids,
    query_cams,
    gallery_cams,
    repeats: int = 100,
    seed: int = 0,
    max_rank: int = 50,
) -> np.ndarray:
    """CMC of CUHK03's first protocol (Li et al., CVPR 2014).

    The gallery holds one image of every identity, from a camera other than the query's. That image
    is drawn at random, once for each repeat and query camera. The curve is averaged over the draws
    and the queries that have a match. mAP is not given: with at most one match per query it would
    be the mean of 1 / rank. Id -1 is left out. Id 0 would count as one identity, so leave
    distractors out of the gallery.

    distances, ids and cameras: as in evaluate_ranking.
    repeats: draws for each camera; seed: of the draws; max_rank: length of the curve.
    Returns (max_rank,).
    Raises InputError as evaluate_ranking does.
    """
    distances, query_ids, gallery_ids, query_cams, gallery_cams = _checked(
        distances,
        query_ids,
        gallery_ids,
        query_cams,
        gallery_cams,
        repeats=repeats,
        max_rank=max_rank,
    )
    check_whole("seed", seed, 0)
    rng = np.random.default_rng(seed)
    hits = np.zeros(max_rank + 1)  # at each rank; the last entry is for all beyond max_rank
    total = 0
    for camera in np.unique(query_cams):
        others = np.flatnonzero((gallery_cams != camera) & (gallery_ids != -1))
        has_match = np.isin(query_ids, gallery_ids[others])
        queries = np.flatnonzero((query_cams == camera) & has_match)
        if not len(queries):
            continue
        for _ in range(repeats):
            # The first image of each identity in a random order is a random one of its images.
            shuffled = rng.permutation(others)
            ids, first = np.unique(gallery_ids[shuffled], return_index=True)
            gallery = shuffled[first]  # (identities,)
            match = np.searchsorted(ids, query_ids[queries])  # the column of each query's match
            before = _before_match(distances[np.ix_(queries, gallery)], match, gallery)
            np.add.at(hits, np.minimum(before, max_rank), 1)
            total += len(queries)
    if not total:
        raise _none_left(len(query_ids))
    return hits[:max_rank].cumsum() / total


def _before_match(distances: np.ndarray, match: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """How many gallery images come before each query's match; ties rank in gallery order.

    distances: (Q, G); match: (Q,), the column of the match; gallery: (G,), the index of each column
    in the whole gallery. Returns (Q,).
    """
    match_distance = np.take_along_axis(distances, match[:, None], 1)  # (Q, 1)
    match_place = gallery[match][:, None]  # (Q, 1)
    nearer = distances < match_distance
    tied_before = (distances == match_distance) & (gallery < match_place)
    return (nearer | tied_before).sum(1)


def pool_queries(features, ids, cams, more, more_ids, more_cams) -> np.ndarray:
    """Multi-query: each query becomes the mean of all images of its identity and camera in `more`.

    Market-1501 has hand-drawn boxes for this (gt_bbox; Zheng et al., ICCV 2015). For other
    benchmarks use queries and gallery together: gallery images of the query's identity and camera
    never count in its ranking. A query without such an image keeps its vector.

    features: (Q, D), with ids and cams (Q,); more: (M, D), with more_ids and more_cams (M,).
    Returns (Q, D) float32.
    Raises InputError for shapes that do not fit, features that are not finite or labels that are
    not whole numbers.
    """
    pooled = as_array(features, np.float32).copy()
    more = as_array(more, np.float32)
    ids, cams, more_ids, more_cams = _labels(
        ids=ids, cameras=cams, further_ids=more_ids, further_cameras=more_cams
    )
    if (
        pooled.ndim != 2
        or more.ndim != 2
        or pooled.shape[1] != more.shape[1]
        or not len(pooled) == len(ids) == len(cams)
        or not len(more) == len(more_ids) == len(more_cams)
    ):
        raise InputError(
            f"features {pooled.shape} with {len(ids)} ids and {len(cams)} cameras, "
            f"more {more.shape} with {len(more_ids)} and {len(more_cams)}; "
            "expected (Q, D) and (M, D) with one id and camera for each row"
        )
    _check_finite(pooled, more)
    for q, (pid, camera) in enumerate(zip(ids, cams, strict=True)):
        same = np.flatnonzero((more_ids == pid) & (more_cams == camera))
        if len(same):
            pooled[q] = more[same].mean(0)
    return pooled


def euclidean(a, b) -> np.ndarray:
    """Squared Euclidean distances, which give the same ranking as Euclidean distances.

    The ranking is that of exact distances, up to the digits of float32, even if the features are
    much longer than their differences. Equal features have the distance 0.

    a: (A, D); b: (B, D). Returns (A, B) float32.
    Raises InputError for shapes that do not fit, and features that are not finite, too large or too
    small for distances in float32.
    """
    a = as_features(a)
    b = as_features(b)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise InputError(f"features of shapes {a.shape} and {b.shape}; expected (A, D) and (B, D)")
    with np.errstate(all="ignore"):  # _check_range finds what overflows
        centre = _offset(b)
        x = as_array(a - centre if centre is not None else a, np.float32)
        y = as_array(b - centre if centre is not None else b, np.float32)
        x_norms = _squared_norms(x)
        y_norms = _squared_norms(y)
    _check_range(a, b, np.concatenate([x_norms, y_norms]))

    # |a|^2 - 2 a b + |b|^2, in one matrix
    distances = (-2 * x) @ y.T
    distances += x_norms[:, None]
    distances += y_norms[None, :]
    _subtract_where_close(distances, a, b, CLOSE * x_norms)
    return distances


def _offset(features: np.ndarray) -> np.ndarray | None:
    """The median (D,) of features (N, D), if they are much longer than their differences.

    To subtract it from all features changes no distance and makes the rounding errors smaller.
    Returns None for other features, so that they stay as they are.
    """
    if not features.size:
        return None
    sample = features[:: max(1, len(features) // 256)]
    mean = sample.mean(0, dtype=np.float64)
    left = np.square(sample - mean).sum(1).mean()
    if np.square(mean).sum() > OFFSET * left:
        return np.median(sample, axis=0)
    return None


def _check_range(a: np.ndarray, b: np.ndarray, norms: np.ndarray) -> None:
    """Raises InputError for features (A, D) and (B, D) whose distances float32 cannot hold.

    norms: their squared norms after centring.
    """
    largest = float(norms.max(initial=0))
    if 1e-30 < largest < np.finfo(np.float32).max / 4:
        return
    _check_finite(a, b)
    if largest > 1:
        raise InputError("the features are too large for float32 distances; normalise them")
    if len(a) and ((a != a[0]).any() or (b != a[0]).any()):
        raise InputError("the features are too small for float32 distances; normalise them")


def _check_finite(*features: np.ndarray) -> None:
    """Raises InputError for features, (N, D) each, that hold NaN or infinity."""
    n_bad = sum(int((~np.isfinite(rows)).any(1).sum()) for rows in features)
    if n_bad:
        raise InputError(f"{n_bad} of the features hold NaN or infinity; did the training diverge?")


def _subtract_where_close(distances, a, b, limits: np.ndarray, block: int = 1024) -> None:
    """Replace distances (A, B) below the limit of their row, (A,), by sums of squared differences.

    a: (A, D); b: (B, D).
    """
    for i in np.flatnonzero(distances.min(1, initial=np.inf) < limits):
        close = np.flatnonzero(distances[i] < limits[i])
        for some in np.array_split(close, len(close) // block + 1):
            distances[i, some] = np.square(b[some] - a[i].astype(np.float64)).sum(1)


def _squared_norms(x: np.ndarray, block: int = 512) -> np.ndarray:
    """Squared norms, (N, D) -> (N,), in small blocks, so that no second matrix is held."""
    norms = np.empty(len(x), x.dtype)
    for i in range(0, len(x), block):
        norms[i : i + block] = (x[i : i + block] ** 2).sum(1)
    return norms


def _labels(**labels) -> list:
    """Identities and cameras as int64 arrays, in the given order.

    labels: what they are, for the error, and their values.
    Raises InputError for values that are not one whole number per image.
    """
    arrays = {name.replace("_", " "): any_array(values) for name, values in labels.items()}
    for what, values in arrays.items():
        if values.ndim != 1 or (len(values) and values.dtype.kind not in "iu"):
            raise InputError(
                f"the {what} are {values.dtype} of shape {values.shape}; expected one whole number "
                "for each image: number the names first, np.unique(names, return_inverse=True)"
            )
        if values.dtype.kind == "u" and len(values) and values.max() == np.iinfo(values.dtype).max:
            raise InputError(
                f"the {what} are {values.dtype} and hold {values.max()}, a -1 (junk) that lost its "
                "sign; use signed numbers"
            )
    return [values.astype(np.int64) for values in arrays.values()]


def _checked(distances, query_ids, gallery_ids, query_cams, gallery_cams, **counts) -> tuple:
    """The arguments of an evaluation as arrays: (Q, G) distances, then ids and cameras.

    counts: arguments that must be whole numbers from 1 on, by their names.
    """
    query_ids, gallery_ids, query_cams, gallery_cams = _labels(
        query_ids=query_ids,
        gallery_ids=gallery_ids,
        query_cameras=query_cams,
        gallery_cameras=gallery_cams,
    )
    distances = as_array(distances)
    for name, n in counts.items():
        check_whole(name, n)
    n_query = len(query_ids)
    n_gallery = len(gallery_ids)
    if (
        distances.shape != (n_query, n_gallery)
        or len(query_cams) != n_query
        or len(gallery_cams) != n_gallery
    ):
        raise InputError(
            f"distances {distances.shape}, {n_query} query ids, {n_gallery} gallery ids, "
            f"{len(query_cams)} query cameras, {len(gallery_cams)} gallery cameras; expected a "
            "(queries, gallery) matrix and one id and camera for each row and column"
        )
    if not distances.size:
        raise InputError(
            f"{n_query} queries and {n_gallery} gallery images; expected at least one of each"
        )
    # If one distance is NaN, so is the sum, and the sum needs no second matrix.
    with np.errstate(all="ignore"):
        total = distances.sum()
    if np.isnan(total) and np.isnan(distances).any():
        raise InputError(
            f"{int(np.isnan(distances).sum())} of the distances are NaN; did the training diverge?"
        )
    return distances, query_ids, gallery_ids, query_cams, gallery_cams


def _none_left(queries: int, camera_rule: bool = True) -> InputError:
    where = "another camera" if camera_rule else "the gallery"
    return InputError(
        f"none of the {queries} queries has a match in {where}; "
        "are query and gallery of one benchmark?"
    )
