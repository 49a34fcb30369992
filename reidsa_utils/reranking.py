"""Re-ranking with k-reciprocal encoding: Zhong et al., CVPR 2017, reference [38] of the paper."""

import numpy as np

from . import InputError
from .metrics import euclidean


def rerank(query_features, gallery_features, k1: int = 20, k2: int = 6, lambda_: float = 0.3) -> np.ndarray:
    """Distances after re-ranking, (Q, D) and (G, D) -> (Q, G) float32.

    1. The k1 nearest of every image that also have it among theirs (k-reciprocal), extended by the reciprocal sets of
       its members where more than 2/3 of such a set is already inside.
    2. Each image becomes a vector of exp(-distance) over its set, summing to 1, averaged over its k2 nearest.
    3. Result: (1 - lambda_) * Jaccard distance of the vectors + lambda_ * original distance, where the original is the
       squared Euclidean distance over the largest of its row.
    Holds three dense (Q + G)^2 float32 matrices: 4.2 GiB at the size of Market-1501.
    Raises InputError for parameters out of range.
    """
    if not 1 <= k2 <= k1 or not 0 <= lambda_ <= 1:
        raise InputError(f"k1={k1}, k2={k2}, lambda_={lambda_}; expected 1 <= k2 <= k1 and 0 <= lambda_ <= 1")
    n_query = len(query_features)
    features = np.concatenate([query_features, gallery_features]).astype(np.float32)
    n = len(features)
    distances = euclidean(features, features)
    np.fill_diagonal(distances, 0)                                           # rounding must not unseat the image itself
    distances /= np.maximum(distances.max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    k1 = min(k1, n - 1)
    nearest = np.empty((n, k1 + 1), np.int64)
    for i in range(n):
        row = distances[i].copy()
        row[i] = -1                                                          # first in its own list
        near = np.flatnonzero(row <= np.partition(row, k1)[k1])              # in index order: ties stay stable
        nearest[i] = near[np.argsort(row[near], kind="stable")[: k1 + 1]]

    def reciprocal(i: int, k: int) -> np.ndarray:
        near = nearest[i, : k + 1]
        return near[(nearest[near, : k + 1] == i).any(axis=1)]

    half = [reciprocal(i, int(round(k1 / 2))) for i in range(n)]
    encoded = np.zeros((n, n), np.float32)
    for i in range(n):
        base = reciprocal(i, k1)
        extra = [half[j] for j in base if len(np.intersect1d(half[j], base)) > 2 / 3 * len(half[j])]
        members = np.unique(np.concatenate([base, *extra]))
        weight = np.exp(-distances[i, members])
        encoded[i, members] = weight / weight.sum()
    if k2 > 1:
        expanded = np.empty_like(encoded)
        for i in range(n):
            encoded[nearest[i, :k2]].mean(axis=0, out=expanded[i])
        encoded = expanded

    out = np.empty((n_query, n - n_query), np.float32)
    holders = [np.flatnonzero(column) for column in encoded.T]               # who holds a member: few
    for i in range(n_query):
        shared = np.zeros(n, np.float32)                                     # sum over members of the smaller weight
        for j in np.flatnonzero(encoded[i]):
            shared[holders[j]] += np.minimum(encoded[i, j], encoded[holders[j], j])
        out[i] = (1 - shared / (2 - shared))[n_query:]
    out *= 1 - lambda_
    out += lambda_ * distances[:n_query, n_query:]
    return out
