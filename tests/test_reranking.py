"""Re-ranking against the publication's steps written with plain sets and loops."""

import numpy as np
import pytest

from reidsa_utils import InputError
from reidsa_utils.reranking import rerank


def with_sets(query, gallery, k1, k2, lambda_):
    x = np.concatenate([query, gallery]).astype(np.float64)
    n, n_query = len(x), len(query)
    d = ((x[:, None] - x[None]) ** 2).sum(2)
    d = d / d.max(1, keepdims=True)
    order = [sorted(range(n), key=lambda j, i=i: (d[i, j] if j != i else -1, j)) for i in range(n)]

    def reciprocal(i, k):
        return {j for j in order[i][: k + 1] if i in order[j][: k + 1]}

    encoded = np.zeros((n, n))
    for i in range(n):
        base = reciprocal(i, k1)
        members = set(base)
        for j in base:
            candidate = reciprocal(j, int(round(k1 / 2)))
            if len(candidate & base) > 2 / 3 * len(candidate):
                members |= candidate
        for j in members:
            encoded[i, j] = np.exp(-d[i, j])
        encoded[i] /= encoded[i].sum()
    encoded = np.array([encoded[order[i][:k2]].mean(0) for i in range(n)])
    out = np.empty((n_query, n - n_query))
    for i in range(n_query):
        for j in range(n - n_query):
            a, b = encoded[i], encoded[n_query + j]
            out[i, j] = (1 - lambda_) * (1 - np.minimum(a, b).sum() / np.maximum(a, b).sum()) + lambda_ * d[i, n_query + j]
    return out


@pytest.mark.parametrize("k1, k2, lambda_", [(20, 6, 0.3), (7, 3, 0.5), (4, 1, 0.0), (6, 6, 1.0)])
def test_equals_the_publication_step_by_step(k1, k2, lambda_):
    rng = np.random.default_rng(k1)
    centres = rng.normal(size=(6, 8))
    query = centres[rng.integers(6, size=9)] + rng.normal(size=(9, 8)) * 0.6
    gallery = centres[rng.integers(6, size=45)] + rng.normal(size=(45, 8)) * 0.6
    np.testing.assert_allclose(rerank(query, gallery, k1, k2, lambda_), with_sets(query, gallery, k1, k2, lambda_), atol=2e-6)


def test_small_galleries_and_bad_parameters():
    x = np.random.default_rng(0).normal(size=(4, 3))
    assert np.isfinite(rerank(x[:1], x[1:])).all()  # fewer images than k1
    with pytest.raises(InputError, match="k1=3, k2=6.*expected 1 <= k2 <= k1"):
        rerank(x[:1], x[1:], k1=3)
