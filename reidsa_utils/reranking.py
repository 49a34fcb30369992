"""Re-ranking with k-reciprocal encoding: Zhong et al., CVPR 2017, reference [38] of the paper."""

import contextlib

import numpy as np
import torch
from scipy import sparse

from . import InputError, known
from .metrics import CLOSE
from .support.arrays import as_tensor

# The power of the Euclidean distance. torchreid and Person_reID_baseline_pytorch pass squared
# distances to a function that squares them once more.
CONVENTIONS = {"original": 2, "squared_twice": 4}
K1 = 20  # size of the neighbourhood in the original code
BLOCK = 2048  # rows of the distance matrix that are held at a time
# The largest number of entries of a block, 1 GiB in float32. With more than 131,072 images a block
# has fewer rows.
BLOCK_NUMBERS = 2**28


def rerank(
    query_features,
    gallery_features,
    k1: int = K1,
    k2: int = 6,
    lambda_: float = 0.3,
    convention: str = "original",
    integer_division: bool = False,
    block: int | None = None,
):
    """Distances after re-ranking, (Q, D) and (G, D) -> (Q, G) float32.

    1. The k-reciprocal set of image x holds those of the k1 nearest of x that also have x among
       their own k1 nearest. Each member has a smaller set, made in the same way with
       round(k1 / 2) instead of k1. A smaller set is added if more than 2/3 of it is in that of x.
    2. Each image becomes a vector: exp(-distance) over its set, scaled to sum 1. The vector is
       then averaged over the k2 nearest of the image.
    3. Result: (1 - lambda_) * Jaccard distance of the vectors + lambda_ * distance, where distance
       is the squared Euclidean distance divided by the largest of its row.

    query_features, gallery_features: arrays, lists or tensors.
    convention: a key of CONVENTIONS.
    integer_division: repeat a mistake of the released code: in Python 2 its 2/3 is 0, so that every
        set is added.
    block: how many rows of the distance matrix, (Q + G, Q + G), are held at a time. None stands for
        2,048, or fewer if these would take more than 1 GiB. The whole matrix is never held. Other
        memory: a copy of the features, the result and a few lists.
    Returns an array; for a query tensor a tensor on its device.
    Raises InputError for parameters out of range, features that do not fit or are not finite.
    """
    query = _as_tensor(query_features)
    gallery = _as_tensor(gallery_features).to(query.device)
    _check_arguments(query, gallery, k1, k2, lambda_, BLOCK if block is None else block)
    k1 = int(k1)  # 3 * k1 could overflow a short NumPy integer
    power = (
        CONVENTIONS[known("convention", convention, CONVENTIONS)] // 2
    )  # of the squared distance

    # Query and gallery together are N = Q + G images.
    features = torch.cat([query, gallery])  # (N, D)
    if block is None:
        block = max(1, min(BLOCK, BLOCK_NUMBERS // len(features)))
    features, norms = _centre(features)  # (N, D), (N,)
    out = torch.empty(len(query), len(gallery), dtype=torch.float32, device=features.device)
    with _full_precision(features.device.type):
        n_nearest = min(3 * k1, len(features))
        near, distance, largest = _nearest(features, norms, n_nearest, power, out, block)
        is_close = distance[:, 1] < CLOSE * norms.cpu().numpy()
        if is_close.any():
            features = torch.cat([query.double(), gallery.double()])
            _mend_lists(near, distance, features, np.flatnonzero(is_close))

    share = 0 if integer_division else 2 / 3
    vectors = _encode(features, near, distance, largest, power, k1, share)  # (N, N), sparse
    vectors = _mean_over_nearest(vectors, near[:, :k2])
    out *= lambda_
    _add_jaccard(vectors, out, 1 - lambda_)
    return out if torch.is_tensor(query_features) else out.numpy()


def _as_tensor(features) -> torch.Tensor:
    """Features as float32 (float64 stays float64); a tensor stays on its device."""
    features = as_tensor(features).detach()
    if features.is_meta:
        raise InputError("the features are on the device meta and have no numbers")
    return features if features.dtype == torch.float64 else features.float()


def _check_arguments(query, gallery, k1, k2, lambda_, block) -> None:
    """Raises InputError for features that do not fit or parameters out of range."""
    if (
        query.dim() != 2
        or gallery.dim() != 2
        or query.shape[1] != gallery.shape[1]
        or not query.numel()
    ):
        raise InputError(
            f"query features {tuple(query.shape)} and gallery features {tuple(gallery.shape)}; "
            "expected (Q, D) and (G, D)"
        )
    are_whole = all(isinstance(value, (int, np.integer)) for value in (k1, k2, block))
    is_number = isinstance(lambda_, (int, float, np.number))
    if (
        not are_whole
        or not is_number
        or not 1 <= k2 <= k1 < len(gallery)
        or not 0 <= lambda_ <= 1
        or block < 1
    ):
        raise InputError(
            f"k1={k1}, k2={k2}, lambda_={lambda_} with {len(gallery)} gallery images; "
            "expected whole 1 <= k2 <= k1 < gallery and 0 <= lambda_ <= 1: "
            "lower k1 and k2 for a small gallery"
        )


def _centre(features: torch.Tensor) -> tuple:
    """Subtract a median from the features, in place; return them in float32 and their norms.

    This changes no distance and makes the rounding errors smaller. One outlier cannot move the
    median, and integer features stay integers, so ties are preserved.
    Returns (N, D) and the squared norms (N,).
    Raises InputError for features that are not finite, too large or too small.
    """
    spread = features.amax(1) - features.amin(1)
    n_bad = int((~torch.isfinite(spread)).sum())
    if n_bad:
        raise InputError(
            f"{n_bad} of the features hold NaN, infinity or numbers too large to subtract; "
            "did the training diverge?"
        )
    features -= _median(features)
    features = features.float()
    norms = torch.cat([(rows * rows).sum(1) for rows in features.split(512)])
    largest = norms.max()
    if not torch.isfinite(4 * largest):
        raise InputError("the features are too large for float32 distances; normalise them")
    if largest < 1e-30 and features.any():
        raise InputError("the features are too small for float32 distances; normalise them")
    return features, norms


def _median(features: torch.Tensor) -> torch.Tensor:
    """The median of some features (N, D), evenly spaced: (D,)."""
    return features[:: max(1, len(features) // 1000)].median(0).values


@contextlib.contextmanager
def _full_precision(device_type: str):
    """Full float32 in matrix products, whatever the caller has set.

    The rounding of TF32 would change which images are the nearest.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _nearest(
    features: torch.Tensor, norms: torch.Tensor, k: int, power: int, out: torch.Tensor, block: int
) -> tuple:
    """The k nearest of every image, itself first, by blocks of the distance matrix.

    Fills `out` (Q, G) with the squared distances between queries and gallery, each divided by the
    largest of its row and raised to `power`.

    features: (N, D); norms: (N,), their squared norms.
    Returns arrays: the nearest (N, k), their squared distances (N, k), and the largest squared
    distance of each row (N,).
    """
    n = len(features)
    n_query = len(out)
    n_blocks = -(-n // block)
    block = -(-n // n_blocks)  # blocks of equal size: a single row rounds differently
    near = np.empty((n, k), np.int32)
    distance = np.empty((n, k), np.float32)
    largest = np.empty(n, np.float32)
    table = features.new_empty(block, n)  # memory that every block uses again
    for i in range(0, n, block):
        # x: images of this block; y: all images. d = |y|^2 - 2 x y, so |x - y|^2 = d + |x|^2.
        own_norms = norms[i : i + block, None]  # (b, 1)
        d = table[: len(own_norms)]  # (b, N)
        torch.addmm(norms, features[i : i + block], features.T, alpha=-2, out=d)
        row_largest = (d.amax(1, keepdim=True) + own_norms).clamp(min=torch.finfo(d.dtype).tiny)
        rows = torch.arange(len(d), device=d.device)
        d[rows, rows + i] = -torch.inf  # every image is first in its own list
        value, index = _smallest(d, k)

        near[i : i + block] = index.cpu().numpy()
        distance[i : i + block] = (value + own_norms).clamp_(min=0).cpu().numpy()
        largest[i : i + block] = row_largest[:, 0].cpu().numpy()

        n_rows = min(len(d), n_query - i)  # queries in this block
        if n_rows > 0:
            _write_distances(
                out[i : i + n_rows],
                d[:n_rows, n_query:],
                own_norms[:n_rows],
                row_largest[:n_rows],
                power,
            )
    return near, distance, largest


def _mend_lists(
    near: np.ndarray,
    distance: np.ndarray,
    features: torch.Tensor,
    images: np.ndarray,
    block: int = 512,
) -> None:
    """Find the nearest of some images again, in float64, and put them into the lists of _nearest.

    In float32 |x|^2 - 2 xy + |y|^2 loses the digits of distances that are much smaller than the
    norms.

    near, distance: (N, k), changed in place. features: (N, D) float64, also changed in place.
    images: which lists to mend.
    """
    features -= _median(features)
    norms = features.square().sum(1)  # (N,)
    for some in np.array_split(images, len(images) // block + 1):
        rows = torch.from_numpy(some).to(features.device)
        sums = norms[rows, None] + norms  # (b, N)
        d = sums - 2 * features[rows] @ features.T
        d[d < 1e-13 * sums] = 0  # below the rounding errors of the norms
        here = torch.arange(len(d), device=d.device)
        d[here, rows] = -torch.inf  # every image is first in its own list
        value, index = _smallest(d.float(), near.shape[1])
        near[some] = index.cpu().numpy()
        distance[some] = value.clamp(min=0).cpu().numpy()


def _write_distances(out, d, own_norms, row_largest, power: int) -> None:
    """out = ((d + own_norms) / row_largest) ** power, without another matrix; (b, G), (b, 1)."""
    torch.add(d, own_norms, out=out)
    out.clamp_(min=0).div_(row_largest).pow_(power)


def _smallest(d: torch.Tensor, k: int) -> tuple:
    """The k smallest of each row, ties in index order: (b, N) -> values and indices, (b, k)."""
    n = d.shape[1]
    # One more than k shows a tie at the end of the list.
    value, index = d.topk(min(k + 1, n), largest=False)
    # Sorting by index, then stably by value, puts ties in index order.
    index, order = index.sort(dim=1)
    value, order = value.gather(1, order).sort(dim=1, stable=True)
    index = index.gather(1, order)[:, :k]
    if k < n:
        # Of a tie at the end of the list, topk may have taken any image: sort such rows completely.
        is_tied = value[:, k - 1] == value[:, k]
        for row in torch.nonzero(is_tied)[:, 0].tolist():
            index[row] = d[row].argsort(stable=True)[:k]
    return value[:, :k], index


def _encode(features, near, distance, largest, power: int, k1: int, share: float):
    """Step 1, and the vectors of step 2 before their averaging.

    near, distance, largest: as _nearest returns them.
    Returns a sparse (N, N) array with about 40 numbers per row.
    """
    n = len(near)
    pairs = _extended_sets(near[:, : k1 + 1], k1, share)
    image = pairs // n
    member = pairs % n
    d = _distances_of_pairs(pairs, features, near, distance)
    weight = np.exp(-((d / largest[image]) ** power))
    row_starts = np.searchsorted(image, np.arange(n + 1))
    row_sums = np.add.reduceat(weight, row_starts[:-1])
    weight /= np.repeat(row_sums, np.diff(row_starts))
    return sparse.csr_array((weight, member, row_starts), (n, n))


def _extended_sets(lists: np.ndarray, k1: int, share: float, block: int = 512) -> np.ndarray:
    """Step 1: the extended k-reciprocal set of every image.

    lists: (N, k1 + 1), the nearest of every image, itself first.
    share: a member's own set is added if more than this share of it is inside already.
    Returns all pairs of an image i and a member j as sorted numbers i * N + j, each once.
    """
    n = len(lists)
    half = int(round(k1 / 2)) + 1
    half_lists = lists[:, :half]
    is_mutual, is_mutual_half = _reciprocal(lists, half, block)
    half_sizes = is_mutual_half.sum(1)  # (N,)

    in_set = np.zeros((block, n), bool)  # the sets of one block as a table
    pairs = []
    for i in range(0, n, block):
        base = lists[i : i + block]  # (b, k1 + 1)
        in_base = is_mutual[i : i + block]  # (b, k1 + 1)  which of `base` are in the image's set
        rows = np.arange(len(base))[:, None]
        in_set[rows, base] = in_base

        # Each member's own set, made with round(k1 / 2): how much of it is inside already?
        candidates = half_lists[base]  # (b, k1 + 1, half)
        in_candidates = is_mutual_half[base]  # (b, k1 + 1, half)
        is_shared = in_set[rows[:, :, None], candidates] & in_candidates
        taken = in_base & (is_shared.sum(2) > share * half_sizes[base])  # (b, k1 + 1)
        in_set[rows, base] = False

        own = np.nonzero(in_base)
        added = np.nonzero(taken[:, :, None] & in_candidates)
        images = np.concatenate([own[0], added[0]]) + i
        members = np.concatenate([base[own], candidates[added]])
        # A pair can occur several times. np.unique removes copies before the next block is made.
        pairs.append(np.unique(images * n + members))
    return np.concatenate(pairs)


def _reciprocal(lists: np.ndarray, half: int, block: int) -> tuple:
    """Which of the nearest of an image have that image among their own nearest.

    lists: (N, k1 + 1). Returns two bool arrays: (N, k1 + 1) for the whole lists, and (N, half) for
    lists cut to their first `half` entries.
    """
    n, length = lists.shape
    is_mutual = np.empty((n, length), bool)
    is_mutual_half = np.empty((n, half), bool)
    for i in range(0, n, block):
        image = np.arange(i, min(i + block, n), dtype=np.int32)[:, None, None]
        hits = lists[lists[i : i + block]] == image  # (b, k1 + 1, k1 + 1)
        is_mutual[i : i + block] = hits.any(2)
        is_mutual_half[i : i + block] = hits[:, :half, :half].any(2)
    return is_mutual, is_mutual_half


def _distances_of_pairs(
    pairs: np.ndarray,
    features: torch.Tensor,
    near: np.ndarray,
    distance: np.ndarray,
    block: int = 512,
) -> np.ndarray:
    """The squared distance of every pair i * N + j: from the lists, or computed if not listed."""
    n = len(near)
    listed = (near + np.arange(n)[:, None] * n).ravel()  # the lists as pairs i * N + j
    order = np.argsort(listed)
    # The last image is in its own list. So the largest possible pair is listed, and searchsorted
    # never points past the end.
    place = order[np.searchsorted(listed, pairs, sorter=order)]
    d = distance.ravel()[place]

    missing = np.flatnonzero(listed[place] != pairs)
    for some in np.array_split(missing, len(missing) // block + 1):
        image = torch.from_numpy(pairs[some] // n).to(features.device)
        member = torch.from_numpy(pairs[some] % n).to(features.device)
        difference = features[image].sub_(features[member])  # (b, D)
        d[some] = difference.square_().sum(1).cpu().numpy()
    return d


def _mean_over_nearest(vectors, near: np.ndarray):
    """Step 2: the mean of the vectors of the k2 nearest, itself among them. near: (N, k2)."""
    n, k2 = near.shape
    rows = np.repeat(np.arange(n), k2)
    each = np.full(len(rows), 1 / k2, np.float32)
    averaging = sparse.csr_array((each, (rows, near.ravel())), vectors.shape)
    return averaging @ vectors


def _add_jaccard(vectors, out: torch.Tensor, factor: float, block: int = 64) -> None:
    """Step 3: out += factor * Jaccard distance, in place.

    The Jaccard distance is 1 - (sum of the smaller weights) / (sum of the larger). The weights of
    each vector sum to 1, so the second sum is 2 minus the first.
    """
    n_query, n_gallery = out.shape
    holders = vectors[n_query:].tocsc()  # for each member the few gallery images that hold it
    for i in range(0, n_query, block):
        n_rows = min(block, n_query - i)
        distance = np.ones((n_rows, n_gallery), np.float32)  # most pairs share nothing: 1
        for q, row in enumerate(distance, i):
            smaller = _sums_of_smaller(vectors, holders, q)
            some = np.flatnonzero(smaller)
            row[some] -= smaller[some] / (2 - smaller[some])
        out[i : i + block].add_(torch.from_numpy(distance).to(out.device), alpha=factor)


def _sums_of_smaller(vectors, holders, query: int) -> np.ndarray:
    """For a query and each gallery image: the sum over members of the smaller weight, (G,)."""
    entries = slice(vectors.indptr[query], vectors.indptr[query + 1])
    members = vectors.indices[entries]  # (m,)
    weights = vectors.data[entries]  # (m,)
    # `place`: where in `holders` the gallery images of each member are, one member after the other.
    start = holders.indptr[members]
    n_holders = holders.indptr[members + 1] - start  # (m,)
    offset = start - np.cumsum(n_holders) + n_holders
    place = np.repeat(offset, n_holders) + np.arange(n_holders.sum())
    smaller = np.minimum(np.repeat(weights, n_holders), holders.data[place])
    return np.bincount(holders.indices[place], smaller, holders.shape[0])
