"""CMC and mean average precision of the Market-1501 protocol, without sorting whole rows; single-shot CMC and multi-query."""

from dataclasses import dataclass

import numpy as np

from . import InputError


@dataclass(frozen=True)
class Ranking:
    """Result of evaluate_ranking. Rates are in [0, 1]; cmc[r - 1] is rank-r."""

    cmc: np.ndarray  # (max_rank,)
    mean_ap: float  # step sum: scikit-learn, torchreid, fast-reid
    mean_ap_trapezoid: float  # the original Matlab evaluation
    average_precision: np.ndarray  # (Q,) step sum per query, NaN for a query without a match
    first_match: np.ndarray  # (Q,) rank of the first match, from 1; 0 for a query without a match
    skipped: int  # queries without a match in another camera


def as_array(values, kind=None) -> np.ndarray:
    """An array (of type `kind`) from a list, an array, or a tensor of any device. Raises InputError for anything else."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (
            values.float() if values.is_floating_point() and values.element_size() == 2 else values
        )
    try:
        return np.asarray(values, kind)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"found a {type(values).__name__} that is no array of numbers ({error}); expected rows of one length"
        ) from None


def _labels(**labels) -> list:
    """Identities and cameras as int64; the names are for the errors."""
    out = [as_array(v) for v in labels.values()]
    for values, what in zip(out, (name.replace("_", " ") for name in labels), strict=True):
        if values.ndim != 1 or len(values) and values.dtype.kind not in "iu":
            raise InputError(
                f"the {what} are {values.dtype} of shape {values.shape}; expected one whole number for each image: number "
                "the names first, np.unique(names, return_inverse=True)"
            )
        if values.dtype.kind == "u" and len(values) and values.max() == np.iinfo(values.dtype).max:
            raise InputError(
                f"the {what} are {values.dtype} and hold {values.max()}, a -1 (junk) that lost its sign; use signed numbers"
            )
    return [v.astype(np.int64) for v in out]


def _checked(distances, query_ids, gallery_ids, query_cams, gallery_cams, **counts) -> tuple:
    """The arguments of an evaluation as arrays: (Q, G) distances, then ids and cameras of queries and gallery."""
    labels = _labels(
        query_ids=query_ids,
        gallery_ids=gallery_ids,
        query_cameras=query_cams,
        gallery_cameras=gallery_cams,
    )
    distances = as_array(distances)
    distances = distances if distances.dtype.kind in "fiub" else as_array(distances, float)
    for name, n in counts.items():
        if not isinstance(n, (int, np.integer)) or n < 1:
            raise InputError(f"{name} is {n!r}; expected a whole number from 1 on")
    query_ids, gallery_ids, query_cams, gallery_cams = labels
    shape = (len(query_ids), len(gallery_ids))
    if distances.shape != shape or query_cams.shape != shape[:1] or gallery_cams.shape != shape[1:]:
        raise InputError(
            f"distances {distances.shape}, {shape[0]} query ids, {shape[1]} gallery ids, {query_cams.shape[0]} query "
            f"cameras, {gallery_cams.shape[0]} gallery cameras; expected a (queries, gallery) matrix and one id and "
            "camera for each row and column"
        )
    if not distances.size:
        raise InputError(
            f"{shape[0]} queries and {shape[1]} gallery images; expected at least one of each"
        )
    with np.errstate(all="ignore"):
        total = distances.sum()  # without a second matrix, unless there is something to find
    if np.isnan(total) and np.isnan(distances).any():
        raise InputError(
            f"{int(np.isnan(distances).sum())} of the distances are NaN; did the training diverge?"
        )
    return distances, *labels


def _none_left(queries: int) -> InputError:
    return InputError(
        f"none of the {queries} queries has a match in another camera; are query and gallery of one benchmark?"
    )


def evaluate_ranking(
    distances, query_ids, gallery_ids, query_cams, gallery_cams, max_rank: int = 50
) -> Ranking:
    """Single-query evaluation of Market-1501.

    distances: (Q, G), smaller is nearer; ids and cams: whole numbers, (Q,) and (G,). A query's matches are the gallery
    images of its identity from other cameras; those of its identity and camera, and all with id -1 (junk), are left
    out of its ranking; id 0 (distractors) stays. Ties rank in gallery order, as a stable sort would place them.

    The rank of a match = how many entries come before it. Only what is as near as the furthest match can: one comparison
    of the row finds those, and only they are sorted. With h hits up to and including rank r, the average precision is the
    mean over hits of h / r (step sum) or of ((h - 1) / (r - 1) + h / r) / 2, first term 1 at r = 1.

    Queries without a match are skipped and counted. Raises InputError for shapes that do not fit, ids that are no whole
    numbers, no query, distances that are NaN, or if no query has a match.
    """
    distances, query_ids, gallery_ids, query_cams, gallery_cams = _checked(
        distances, query_ids, gallery_ids, query_cams, gallery_cams, max_rank=max_rank
    )
    order = np.argsort(gallery_ids, kind="stable")  # gallery grouped by identity
    start, stop = (
        np.searchsorted(gallery_ids[order], query_ids, side) for side in ("left", "right")
    )
    stop[query_ids == -1] = start[query_ids == -1]
    pairs = np.repeat(
        np.arange(len(query_ids)), stop - start
    )  # a query for each image of its identity
    images = order[np.arange(len(pairs)) - np.repeat(np.cumsum(stop - start) - stop, stop - start)]
    own = gallery_cams[images] == query_cams[pairs]
    matches, left_out = images[~own], images[own]
    size, own_size = (np.bincount(pairs[part], minlength=len(query_ids)) for part in (~own, own))
    first, own_first = np.cumsum(size) - size, np.cumsum(own_size) - own_size
    found = size > 0
    if not found.any():
        raise _none_left(len(query_ids))

    counted, ranks = gallery_ids != -1, np.empty(len(matches))
    some_junk = not counted.all()
    for q in np.flatnonzero(found):
        here = slice(first[q], first[q] + size[q])
        row, own_images = distances[q], left_out[own_first[q] : own_first[q] + own_size[q]]
        at = np.sort(row[matches[here]])
        near = np.flatnonzero(row <= at[-1])  # all that can come before a match, and the matches
        if some_junk:
            near = near[counted[near]]
        away = np.sort(row[near])
        ranks[here] = np.searchsorted(away, at, "right")
        if (
            ranks[here] - np.searchsorted(away, at, "left") > 1
        ).any():  # as near as another: word for word
            line = np.argsort(row, kind="stable")
            line = line[counted[line] & ~np.isin(line, own_images)]
            ranks[here] = 1 + np.flatnonzero(np.isin(line, matches[here]))
        elif len(own_images):
            ranks[here] -= np.searchsorted(np.sort(row[own_images]), at, "right")
    first, size = first[found], size[found]
    hits = np.arange(1, len(ranks) + 1) - np.repeat(first, size)
    before = np.where(ranks > 1, (hits - 1) / np.maximum(ranks - 1, 1), 1.0)
    steps = np.full(len(query_ids), np.nan)
    steps[found] = np.add.reduceat(hits / ranks, first) / size
    trapezoids = np.add.reduceat((before + hits / ranks) / 2, first) / size
    first_match = np.zeros(len(query_ids), int)
    first_match[found] = ranks[first]
    cmc = np.bincount(np.minimum(first_match[found] - 1, max_rank), minlength=max_rank + 1)[
        :max_rank
    ].cumsum() / len(size)
    return Ranking(
        cmc,
        float(steps[found].mean()),
        float(trapezoids.mean()),
        steps,
        first_match,
        int((~found).sum()),
    )


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
    """CMC of CUHK03's first protocol (Li et al., CVPR 2014): one gallery image of every identity, from another camera.

    Arguments as in evaluate_ranking. Id -1 is left out; id 0 would count as one identity, so leave distractors out. The one
    image is drawn at random, once a repeat and camera, and the curve averaged over `repeats` draws and the queries that have
    a match: (max_rank,). With one match at most, mAP would be the mean of 1 / rank; it is not given.
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
    rng, hits, total = np.random.default_rng(seed), np.zeros(max_rank + 1), 0
    for camera in np.unique(query_cams):
        others = np.flatnonzero((gallery_cams != camera) & (gallery_ids != -1))
        queries = np.flatnonzero((query_cams == camera) & np.isin(query_ids, gallery_ids[others]))
        for _ in range(repeats if len(queries) else 0):
            shuffled = rng.permutation(others)
            ids, first = np.unique(
                gallery_ids[shuffled], return_index=True
            )  # the first of a random order: any, evenly
            drawn = shuffled[first]
            seen = distances[np.ix_(queries, drawn)]  # (queries, identities)
            match = np.searchsorted(ids, query_ids[queries])
            at = np.take_along_axis(seen, match[:, None], 1)
            ranks = ((seen < at) | ((seen == at) & (drawn < drawn[match][:, None]))).sum(1)
            np.add.at(hits, np.minimum(ranks, max_rank), 1)
            total += len(queries)
    if not total:
        raise _none_left(len(query_ids))
    return hits[:max_rank].cumsum() / total


def pool_queries(features, ids, cams, more, more_ids, more_cams) -> np.ndarray:
    """Multi-query: each query (Q, D) becomes the mean of all images of its identity and camera in `more`, (M, D) -> (Q, D).

    Market-1501 has hand-drawn boxes for this (gt_bbox; Zheng et al., ICCV 2015); elsewhere queries and gallery together
    serve, since what is of the query's identity and camera never counts in its ranking. A query without any keeps its vector.
    Raises InputError for shapes that do not fit or labels that are no whole numbers.
    """
    out, more = as_array(features, np.float32).copy(), as_array(more, np.float32)
    ids, cams, more_ids, more_cams = _labels(
        ids=ids, cameras=cams, further_ids=more_ids, further_cameras=more_cams
    )
    if (
        out.ndim != 2
        or more.ndim != 2
        or out.shape[1] != more.shape[1]
        or not len(out) == len(ids) == len(cams)
        or not len(more) == len(more_ids) == len(more_cams)
    ):
        raise InputError(
            f"features {out.shape} with {len(ids)} ids and {len(cams)} cameras, more {more.shape} with {len(more_ids)} and "
            f"{len(more_cams)}; expected (Q, D) and (M, D) with one id and camera for each row"
        )
    for q, (pid, camera) in enumerate(zip(ids, cams, strict=True)):
        same = np.flatnonzero((more_ids == pid) & (more_cams == camera))
        if len(same):
            out[q] = more[same].mean(0)
    return out


def euclidean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances, (A, D) and (B, D) -> (A, B) float32: the ranking of the Euclidean ones.

    Raises InputError for shapes that do not fit.
    """
    a, b = as_array(a, np.float32), as_array(b, np.float32)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise InputError(f"features of shapes {a.shape} and {b.shape}; expected (A, D) and (B, D)")
    norms = [
        np.concatenate([(x[i : i + 512] ** 2).sum(1) for i in range(0, len(x), 512)] or [x[:, 0]])
        for x in (a, b)
    ]  # small blocks
    out = (-2 * a) @ b.T
    out += norms[0][:, None]
    out += norms[1][None, :]
    return np.maximum(out, 0, out=out)
