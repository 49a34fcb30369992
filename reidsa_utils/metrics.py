"""CMC and mean average precision of the Market-1501 protocol, by counting instead of sorting."""

from dataclasses import dataclass

import numpy as np

from . import InputError


@dataclass(frozen=True)
class Ranking:
    """Result of evaluate_ranking. Rates are in [0, 1]; cmc[r - 1] is rank-r."""

    cmc: np.ndarray                # (max_rank,)
    mean_ap: float                 # step sum: scikit-learn, torchreid, fast-reid
    mean_ap_trapezoid: float       # the original Matlab evaluation
    average_precision: np.ndarray  # (Q,) step sum per query, NaN for a query without a match
    skipped: int                   # queries without a match in another camera


def evaluate_ranking(distances, query_ids, gallery_ids, query_cams, gallery_cams, max_rank: int = 50) -> Ranking:
    """Single-query evaluation of Market-1501.

    distances: (Q, G), smaller is nearer; ids and cams: whole numbers, (Q,) and (G,). A query's matches are the gallery
    images of its identity from other cameras; those of its identity and camera, and all with id -1 (junk), are left
    out of its ranking; id 0 (distractors) stays. Ties rank in gallery order, as a stable sort would place them.

    The rank of a match = how many entries come before it, counted by one comparison of the row: with few matches a
    query that is several times faster than sorting the row. With h hits up to and including rank r, the average
    precision is the mean over hits of h / r (step sum) or of ((h - 1) / (r - 1) + h / r) / 2, first term 1 at r = 1.

    Queries without a match are skipped and counted. Raises InputError for shapes that do not fit, distances that are
    NaN, or if no query has a match.
    """
    distances = np.asarray(distances)
    query_ids, gallery_ids, query_cams, gallery_cams = map(np.asarray, (query_ids, gallery_ids, query_cams, gallery_cams))
    shape = (len(query_ids), len(gallery_ids))
    if distances.shape != shape or query_cams.shape != shape[:1] or gallery_cams.shape != shape[1:]:
        raise InputError(f"distances {distances.shape}, {shape[0]} query ids, {shape[1]} gallery ids, {query_cams.shape[0]} query "
                         f"cameras, {gallery_cams.shape[0]} gallery cameras; expected a (queries, gallery) matrix and one id and "
                         "camera for each row and column")
    if distances.size and np.isnan(distances.sum()) and np.isnan(distances).any():
        raise InputError(f"{int(np.isnan(distances).sum())} of the distances are NaN; did the training diverge?")

    order = np.argsort(gallery_ids, kind="stable")          # gallery grouped by identity, once
    start = np.searchsorted(gallery_ids[order], query_ids, "left")
    stop = np.searchsorted(gallery_ids[order], query_ids, "right")
    junk = np.flatnonzero(gallery_ids == -1)
    first = np.zeros(max_rank + 1, np.int64)
    steps = np.full(shape[0], np.nan)
    trapezoids = np.full(shape[0], np.nan)
    for q in range(shape[0]):
        row, same = distances[q], order[start[q]:stop[q]]   # same identity, in gallery order
        own = gallery_cams[same] == query_cams[q]
        matches, left_out = same[~own], same[own]
        if not len(matches) or query_ids[q] == -1:
            continue
        if len(junk):
            left_out = np.concatenate([junk, left_out])
        matches = matches[np.argsort(row[matches], kind="stable")]
        ranks = np.empty(len(matches))
        for n, j in enumerate(matches):                     # before j: nearer, or as near and earlier in the gallery
            ranks[n] = 1 + np.count_nonzero(row[:j] <= row[j]) + np.count_nonzero(row[j + 1:] < row[j])
        if len(left_out):
            away, at = row[left_out], row[matches][:, None]
            ranks -= ((away < at) | ((away == at) & (left_out < matches[:, None]))).sum(1)
        hits = np.arange(1, len(ranks) + 1)
        steps[q] = (hits / ranks).mean()
        before = np.where(ranks > 1, (hits - 1) / np.maximum(ranks - 1, 1), 1.0)
        trapezoids[q] = ((before + hits / ranks) / 2).mean()
        first[min(int(ranks[0]) - 1, max_rank)] += 1
    found = ~np.isnan(steps)
    if not found.any():
        raise InputError(f"none of the {shape[0]} queries has a match in another camera; are query and gallery of one benchmark?")
    cmc = first[:max_rank].cumsum() / found.sum()
    return Ranking(cmc, float(steps[found].mean()), float(trapezoids[found].mean()), steps, int((~found).sum()))


def euclidean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances, (A, D) and (B, D) -> (A, B) float32: the ranking of the Euclidean ones."""
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    out = a @ b.T
    out *= -2
    out += (a * a).sum(1)[:, None]
    out += (b * b).sum(1)[None, :]
    return np.maximum(out, 0, out=out)
