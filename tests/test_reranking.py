"""Re-ranking against the publication's steps written with plain sets and loops."""

import warnings

import numpy as np
import pytest
import torch
from conftest import unkind_features
from hypothesis import given, settings
from hypothesis import strategies as st

from reidsa_utils import InputError, reranking
from reidsa_utils.reranking import _smallest, rerank


def with_sets(query, gallery, k1, k2, lambda_, power=2, share=2 / 3):
    """The publication word for word: every pair, every set, float64."""
    x = np.concatenate([query, gallery]).astype(np.float64)
    n, n_query = len(x), len(query)
    d = np.sqrt([((x - row) ** 2).sum(1) for row in x]) ** power
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
            if len(candidate & base) > share * len(candidate):
                members |= candidate
        for j in members:
            encoded[i, j] = np.exp(-d[i, j])
        encoded[i] /= encoded[i].sum()
    encoded = np.array([encoded[order[i][:k2]].mean(0) for i in range(n)])
    others = encoded[n_query:]
    smaller = np.array([np.minimum(row, others).sum(1) for row in encoded[:n_query]])
    larger = np.array([np.maximum(row, others).sum(1) for row in encoded[:n_query]])
    return (1 - lambda_) * (1 - smaller / larger) + lambda_ * d[:n_query, n_query:]


def people(n_query, n_gallery, dimensions, seed, offset=0.0, identities=6):
    """Query and gallery features, scattered around a centre for each identity."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(identities, dimensions)) + offset
    return [
        centres[rng.integers(identities, size=n)] + rng.normal(size=(n, dimensions)) * 0.6
        for n in (n_query, n_gallery)
    ]


@pytest.mark.parametrize("k1, k2, lambda_", [(20, 6, 0.3), (7, 3, 0.5), (4, 1, 0.0), (6, 6, 1.0)])
def test_equals_the_publication_step_by_step(k1, k2, lambda_):
    query, gallery = people(9, 45, 8, seed=k1)
    np.testing.assert_allclose(
        rerank(query, gallery, k1, k2, lambda_),
        with_sets(query, gallery, k1, k2, lambda_),
        atol=2e-6,
    )


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(6, 60),
    st.integers(0, 2**31),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(1, 64),
)
def test_equals_the_publication_on_random_sizes_in_blocks(n_query, n_gallery, seed, k1, k2, block):
    query, gallery = people(n_query, n_gallery, 5, seed)
    got = rerank(query, gallery, k1, min(k1, k2), 0.3, block=block)
    np.testing.assert_allclose(got, with_sets(query, gallery, k1, min(k1, k2), 0.3), atol=1e-5)


def test_conventions_and_the_slip_are_what_their_names_say():
    query, gallery = people(12, 80, 6, seed=1)
    plain = rerank(query, gallery)
    twice = rerank(query, gallery, convention="squared_twice")
    slip = rerank(query, gallery, integer_division=True)
    np.testing.assert_allclose(plain, with_sets(query, gallery, 20, 6, 0.3), atol=1e-5)
    np.testing.assert_allclose(twice, with_sets(query, gallery, 20, 6, 0.3, power=4), atol=1e-5)
    np.testing.assert_allclose(slip, with_sets(query, gallery, 20, 6, 0.3, share=0), atol=1e-5)
    assert np.abs(plain - twice).max() > 0.05 and np.abs(plain - slip).max() > 0.05


@pytest.mark.parametrize(
    "dimensions, offset", [(2048, 0.0), (12288, 3.0)]
)  # 3: vectors long against their differences
def test_at_the_sizes_of_both_retrieval_vectors(dimensions, offset):
    query, gallery = people(20, 130, dimensions, seed=3, offset=offset, identities=25)
    np.testing.assert_allclose(
        rerank(query, gallery), with_sets(query, gallery, 20, 6, 0.3), atol=1e-5
    )


@pytest.mark.parametrize("copies", [1, 2])
def test_more_images_than_a_block_of_any_step_holds(copies):
    """With two copies every list is made in float64."""
    query, gallery = people(70, 1000 // copies, 5, seed=4, identities=60)
    gallery = np.concatenate([gallery] * copies)
    np.testing.assert_allclose(
        rerank(query, gallery, 7, 3), with_sets(query, gallery, 7, 3, 0.3), atol=1e-5
    )


def test_equal_images_rank_in_order():
    query, gallery = people(4, 30, 3, seed=5)
    query, gallery = (
        query.round(),
        np.concatenate([gallery, gallery]).round(),
    )  # many exact ties, everything at least twice
    np.testing.assert_allclose(
        rerank(query, gallery, 7, 3), with_sets(query, gallery, 7, 3, 0.3), atol=2e-6
    )
    np.testing.assert_array_equal(
        rerank(query, gallery, 7, 3), rerank(query, gallery, 7, 3, block=9)
    )


def test_more_images_mean_fewer_rows_at_a_time(monkeypatch):
    """Without a block of the caller's own: as many rows as fit into BLOCK_NUMBERS, at least one."""
    query, gallery = people(4, 30, 16, seed=5)
    whole = rerank(query, gallery, 7, 3)
    n = len(query) + len(gallery)
    for numbers in (1, 5 * n, 10**9):
        monkeypatch.setattr(reranking, "BLOCK_NUMBERS", numbers)
        np.testing.assert_allclose(rerank(query, gallery, 7, 3), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["integers", "binary", "one-hot", "duplicates"])
def test_exact_ties_of_whole_numbers(kind):
    rng = np.random.default_rng(8)
    make = {
        "integers": lambda n, d: rng.integers(0, 3, (n, d)),
        "binary": lambda n, d: rng.integers(0, 2, (n, d)),
        "one-hot": lambda n, d: np.eye(d)[rng.integers(0, d, n)],
        "duplicates": lambda n, d: rng.integers(0, 2, (n, 1)) * np.ones((n, d)),
    }[kind]
    for _ in range(40):
        d = rng.integers(1, 9)
        query, gallery = (
            make(rng.integers(1, 6), d).astype(float),
            make(rng.integers(8, 30), d).astype(float),
        )
        if len(np.unique(np.concatenate([query, gallery]), axis=0)) > 1:
            np.testing.assert_allclose(
                rerank(query, gallery, 5, 2), with_sets(query, gallery, 5, 2, 0.3), atol=1e-5
            )


@pytest.mark.parametrize("n, k, levels", [(12, 3, 4), (40, 39, 6), (40, 40, 6), (500, 10, 100)])
def test_the_smallest_are_those_of_a_stable_sort(n, k, levels):
    rows = torch.randint(0, levels, (200, n), generator=torch.Generator().manual_seed(0)).float()
    value, index = _smallest(rows, k)
    expected = rows.sort(stable=True)
    assert torch.equal(value, expected.values[:, :k])
    assert torch.equal(index, expected.indices[:, :k])


@pytest.mark.parametrize("far", [0, 17])
def test_one_far_image_spoils_nothing(far):
    query, gallery = people(10, 50, 64, seed=9)
    images = np.concatenate([query, gallery])
    images[far] *= 3000
    query, gallery = images[:10], images[10:]
    np.testing.assert_allclose(
        rerank(query, gallery, 6, 3), with_sets(query, gallery, 6, 3, 0.3), atol=1e-5
    )


def test_close_groups_far_from_zero():
    """Distances in a group are a 1e-8th of those between groups, and the offset is 1e4."""
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(6, 16)) + 1e4
    query, gallery = [
        centres[rng.integers(6, size=n)] + 1e-4 * rng.normal(size=(n, 16)) for n in (9, 60)
    ]
    np.testing.assert_allclose(
        rerank(query, gallery, 6, 3), with_sets(query, gallery, 6, 3, 0.3), atol=1e-5
    )


@pytest.mark.parametrize("dimensions", [37, 2000])
def test_more_copies_than_a_list_holds(dimensions):
    """Copies tie whatever the rounding of their norms: the first in order are taken."""
    rng = np.random.default_rng(3)
    images = 3 + rng.normal(size=(7, dimensions)) * np.exp(rng.normal(size=dimensions))
    query, gallery = images[:3], images[rng.integers(7, size=91)]
    np.testing.assert_allclose(
        rerank(query, gallery, 6, 3), with_sets(query, gallery, 6, 3, 0.3), atol=1e-5
    )


@pytest.mark.parametrize("convention", ["original", "squared_twice"])
def test_the_scale_changes_nothing_that_float32_holds(convention):
    """The largest distance is that of two opposite images, four times the largest norm."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 6))
    images = np.concatenate([x, -x, np.zeros((1, 6))])  # their median is 0
    norm = np.square(images).sum(1).max()
    expected = rerank(images[:4], images[4:], 6, 3, convention=convention)
    limit = np.finfo(np.float32).max
    for largest in (1.01e-30, 0.2 * limit, 0.24 * limit):
        scaled = images * np.sqrt(largest / norm)
        found = rerank(scaled[:4], scaled[4:], 6, 3, convention=convention)
        np.testing.assert_allclose(found, expected, atol=2e-6)
    for largest, words in ((0.99e-30, "too small"), (0.26 * limit, "too large")):
        scaled = images * np.sqrt(largest / norm)
        with pytest.raises(InputError, match=words):
            rerank(scaled[:4], scaled[4:], 6, 3, convention=convention)


def test_a_small_type_of_k1_is_no_limit():
    query, gallery = people(3, 70, 8, seed=0)
    expected = rerank(query, gallery, 50, 6)
    np.testing.assert_array_equal(rerank(query, gallery, np.int8(50), np.int8(6)), expected)


def test_defaults_are_the_originals():
    query, gallery = people(3, 70, 8, seed=0)
    np.testing.assert_array_equal(rerank(query, gallery), rerank(query, gallery, 20, 6, 0.3))
    half = query.astype(np.float16)
    np.testing.assert_array_equal(rerank(half, gallery), rerank(half.astype(float), gallery))


UNKIND = unkind_features()


@pytest.mark.parametrize("kind", UNKIND)
def test_unkind_features(kind):
    query, gallery = UNKIND[kind]
    np.testing.assert_allclose(
        rerank(query, gallery, 8, 3), with_sets(query, gallery, 8, 3, 0.3), atol=2e-6
    )


def test_any_kind_of_array():
    query, gallery = people(5, 40, 8, seed=6)
    out = rerank(query, gallery, 6, 3)
    for q, g in (
        (query.tolist(), gallery.tolist()),
        (query[:, ::-1], gallery[:, ::-1]),
        (query.astype(">f8"), gallery),
        (np.asfortranarray(query), gallery),
    ):
        np.testing.assert_allclose(rerank(q, g, np.int64(6), 3), out, atol=1e-5)
    on_tape = torch.tensor(query, requires_grad=True)
    np.testing.assert_allclose(rerank(on_tape, torch.tensor(gallery), 6, 3).numpy(), out, atol=1e-5)


def test_tensors_come_back_as_tensors_where_they_were():
    query, gallery = (torch.from_numpy(v) for v in people(5, 40, 8, seed=6))
    before = query.clone()
    out = rerank(query, gallery, 6, 3)
    assert torch.is_tensor(out) and out.device == query.device and out.dtype == torch.float32
    np.testing.assert_array_equal(out.numpy(), rerank(query.numpy(), gallery.numpy(), 6, 3))
    assert torch.equal(query, before)  # what came in is not written to


def test_precision_does_not_depend_on_the_callers_settings():
    query, gallery = people(5, 40, 8, seed=6)
    expected = rerank(query, gallery, 6, 3)
    try:
        torch.set_default_dtype(torch.float64)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = rerank(torch.from_numpy(query), gallery, 6, 3)
        alike = rerank(np.ones((2, 8)), np.ones((9, 8)), 6, 3)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), expected)
    assert np.isfinite(alike).all()


def test_products_have_full_precision_and_the_callers_comes_back(monkeypatch):
    """On a GPU, TF32 would change who is near. Seen at the product itself."""
    query, gallery = people(5, 40, 8, seed=6)
    seen = []
    product = torch.addmm

    def spy(*arguments, **more):
        seen.append((torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cpu")))
        return product(*arguments, **more)

    monkeypatch.setattr(torch, "addmm", spy)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rerank(query, gallery, 6, 3)
            assert torch.is_autocast_enabled("cpu")
        after = torch.get_float32_matmul_precision()
    finally:
        torch.set_float32_matmul_precision(before)
    assert set(seen) == {("highest", False)} and after == "medium"


def test_no_more_rows_than_a_block_are_held(monkeypatch):
    """Seen at the product itself. An output of another shape would be a warning of torch."""
    query, gallery = people(8, 45, 8, seed=6)
    rows = []
    product = torch.addmm

    def spy(norms, block, *arguments, **more):
        rows.append(len(block))
        return product(norms, block, *arguments, **more)

    monkeypatch.setattr(torch, "addmm", spy)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for block in (3, 10, 60):
            rows.clear()
            rerank(query, gallery, 6, 3, block=block)
            assert sum(rows) == 53 and max(rows) <= block and len(rows) == -(-53 // block)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu():
    query, gallery = people(50, 900, 64, seed=6)
    expected = rerank(query, gallery)
    for q, g in (
        (torch.tensor(query).cuda(), torch.tensor(gallery).cuda()),
        (torch.tensor(query).cuda(), gallery),
    ):
        found = rerank(q, g)
        assert found.is_cuda
        np.testing.assert_allclose(found.cpu().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(k1=3), "k1=3, k2=6, .*expected whole 1 <= k2 <= k1 < gallery"),
        (dict(k1=30), "k1=30, k2=6, lambda_=0.3 with 30 gallery images; .*lower k1"),
        (dict(lambda_=1.5), "lambda_=1.5"),
        (
            dict(convention="torchreid"),
            "unknown convention 'torchreid'; known: original, squared_twice",
        ),
        (
            dict(query_features=np.zeros((2, 7))),
            r"query features \(2, 7\) and gallery features \(30, 8\)",
        ),
        (dict(query_features=np.zeros((0, 8))), r"query features \(0, 8\)"),
        (dict(block=0), "k1=20"),
        (dict(block=2.5), "k1=20"),
        (dict(k2=0), "k1=20, k2=0, lambda_=0.3"),
        (dict(k2=2.5), "k1=20, k2=2.5"),
        (dict(lambda_=-0.1), "lambda_=-0.1"),
        (dict(lambda_=np.nan), "lambda_=nan"),
        (dict(query_features=np.zeros(8)), r"query features \(8,\)"),
        (dict(query_features=np.zeros((2, 8, 1))), r"query features \(2, 8, 1\)"),
        (dict(gallery_features=np.zeros(8)), r"gallery features \(8,\)"),
        (dict(gallery_features=np.zeros((30, 8, 1))), r"gallery features \(30, 8, 1\)"),
        (dict(k1=20.5), "k1=20.5.*expected whole"),
        (dict(lambda_="a"), "lambda_=a"),
        (
            dict(query_features=np.zeros((3, 0)), gallery_features=np.zeros((30, 0))),
            r"query features \(3, 0\)",
        ),
        (dict(query_features=[["a"] * 8]), "found a list that is not an array of numbers"),
        (dict(query_features=[[1.0], [1.0, 2.0]]), "expected rows of one length"),
        (dict(query_features=[[np.inf] * 8, [1] * 8]), "^1 of the features hold NaN, infinity"),
        (dict(query_features=torch.ones(2, 8, device="meta")), "on the device meta and have no"),
        (
            dict(query_features=[[-1.7e308, 1.7e308] * 4]),
            "^1 of the features hold NaN, infinity or",
        ),
        (dict(query_features=np.full((2, 8), 1e25)), "too large for float32 distances; normalise"),
        (
            dict(query_features=np.eye(8) * 1e-25, gallery_features=np.zeros((30, 8))),
            "too small for float32 distances; normalise",
        ),
        (dict(query_features=torch.ones(2, 8, dtype=torch.cfloat)), "its type is torch.complex64"),
        (dict(query_features=[["1"] * 8]), "found a list that is not an array of numbers"),
        (dict(query_features=np.full((2, 8), np.nan)), "^2 of the features hold NaN, infinity"),
    ],
)
def test_bad_input(change, words):
    query, gallery = people(3, 30, 8, seed=0)
    with pytest.raises(InputError, match=words):
        rerank(**(dict(query_features=query, gallery_features=gallery) | change))
