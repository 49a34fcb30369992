"""Re-ranking with k-reciprocal encoding: Zhong et al., CVPR 2017, reference [38] of the paper."""

import numpy as np
import torch

try:
    from scipy import sparse
except ImportError:  # a machine that only trains
    sparse = None

from . import InputError, known
from .metrics import as_array

# The power of the Euclidean distance. torchreid and Person_reID_baseline_pytorch hand squared distances to a function
# that squares them once more.
CONVENTIONS = {"original": 2, "squared_twice": 4}


def rerank(
    query_features,
    gallery_features,
    k1: int = 20,
    k2: int = 6,
    lambda_: float = 0.3,
    convention: str = "original",
    integer_division: bool = False,
    block: int = 2048,
):
    """Distances after re-ranking, (Q, D) and (G, D) -> (Q, G) float32; for a query tensor a tensor on its device.

    1. The k1 nearest of every image that also have it among theirs (k-reciprocal), extended by the reciprocal sets of
       its members where more than 2/3 of such a set, made with round(k1 / 2), is already inside.
    2. Each image becomes a vector of exp(-distance) over its set, summing to 1, averaged over its k2 nearest.
    3. Result: (1 - lambda_) * Jaccard distance of the vectors + lambda_ * distance, where distance is the squared
       Euclidean one over the largest of its row.
    convention: a key of CONVENTIONS. integer_division: the slip of the released code, whose 2/3 is 0 in Python 2, so that
    every set is taken in. No (Q + G)^2 matrix is held: beside a copy of the features and the result,
    `block` rows of it and a few lists.
    Raises InputError for parameters out of range, features that do not fit or are not finite.
    """
    if sparse is None:
        raise InputError(
            "re-ranking needs scipy, which is not installed; install it, or use rerank=false"
        )
    is_tensor = torch.is_tensor(query_features)
    query, gallery = (
        v.detach().float()
        if torch.is_tensor(v)
        else torch.from_numpy(np.require(as_array(v, np.float32), requirements="CW"))
        for v in (query_features, gallery_features)
    )
    gallery = gallery.to(query.device)
    if (
        query.dim() != 2
        or gallery.dim() != 2
        or query.shape[1] != gallery.shape[1]
        or not query.numel()
    ):
        raise InputError(
            f"query features {tuple(query.shape)} and gallery features {tuple(gallery.shape)}; expected (Q, D) and (G, D)"
        )
    whole = all(isinstance(v, (int, np.integer)) for v in (k1, k2, block)) and isinstance(
        lambda_, (int, float, np.number)
    )
    if not whole or not 1 <= k2 <= k1 < len(gallery) or not 0 <= lambda_ <= 1 or block < 1:
        raise InputError(
            f"k1={k1}, k2={k2}, lambda_={lambda_} with {len(gallery)} gallery images; expected whole 1 <= k2 <= k1 < gallery "
            "and 0 <= lambda_ <= 1: lower k1 and k2 for a small gallery"
        )
    k1, k2 = int(k1), int(k2)
    power = (
        CONVENTIONS[known("convention", convention, CONVENTIONS)] // 2
    )  # of the squared distance
    features = torch.cat([query, gallery])
    if bad := int((~torch.isfinite(features.amax(1) - features.amin(1))).sum()):
        raise InputError(
            f"{bad} of the features hold NaN, infinity or numbers too large to subtract; did the training diverge?"
        )
    # Distances stay, their rounding shrinks. The median is no prey to one far vector, and keeps whole numbers whole: ties stay.
    features -= features[:: max(1, len(features) // 1000)].median(0).values
    norms = torch.cat([(some * some).sum(1) for some in features.split(512)])
    if not torch.isfinite(4 * norms.max()):
        raise InputError("the features are too large for float32 distances; normalise them")
    out = torch.empty(len(query), len(gallery), dtype=torch.float32, device=features.device)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # TF32 would change who is near
    try:
        with torch.autocast(features.device.type, enabled=False):
            near, distance, largest = _nearest(
                features, norms, min(3 * k1, len(features)), power, out, block
            )
    finally:
        torch.set_float32_matmul_precision(precision)
    vectors = _encode(
        features, near, distance, largest, power, k1, 0 if integer_division else 2 / 3
    )
    if k2 > 1:
        rows = np.repeat(np.arange(len(near)), k2)
        vectors = (
            sparse.csr_array(
                (np.full(len(rows), 1 / k2, np.float32), (rows, near[:, :k2].ravel())),
                vectors.shape,
            )
            @ vectors
        )
    out *= lambda_
    _add_jaccard(vectors, out, 1 - lambda_)
    return out if is_tensor else out.numpy()


def _nearest(
    features: torch.Tensor, norms: torch.Tensor, k: int, power: int, out: torch.Tensor, block: int
) -> tuple:
    """The k nearest of every image, itself first, their distances and the largest of its row: (N, k), (N, k) and (N,).

    Fills `out` (Q, G) with the distances between queries and gallery, each over the largest of its row.
    """
    n, n_query = len(features), len(out)
    block = -(-n // -(-n // block))  # equal blocks: a product of one row rounds otherwise
    near, distance, largest = (
        np.empty((n, k), np.int32),
        np.empty((n, k), np.float32),
        np.empty(n, np.float32),
    )
    for i in range(0, n, block):
        mine = norms[i : i + block, None]
        d = torch.addmm(
            norms, features[i : i + block], features.T, alpha=-2
        )  # (b, N), less the norm of the row
        top = (d.amax(1, keepdim=True) + mine).clamp(min=torch.finfo(d.dtype).tiny)
        rows = torch.arange(len(d), device=d.device)
        d[rows, rows + i] = -torch.inf  # first in its own list
        value, index = d.topk(min(k + 1, n), largest=False)
        index, order = index.sort(dim=1)
        value, order = value.gather(1, order).sort(dim=1, stable=True)  # ties in index order
        index = index.gather(1, order)[:, :k]
        tied = torch.nonzero(value[:, k - 1] == value[:, -1])[:, 0].tolist() if k < n else []
        for row in tied:  # a tie at the end of the list
            index[row] = d[row].argsort(stable=True)[:k]
        near[i : i + block], largest[i : i + block] = index.cpu().numpy(), top[:, 0].cpu().numpy()
        distance[i : i + block] = (value[:, :k] + mine).clamp_(min=0).cpu().numpy()
        if i < n_query:
            some = slice(i, min(i + block, n_query))
            m = some.stop - i
            torch.add(d[:m, n_query:], mine[:m], out=out[some]).clamp_(min=0).div_(top[:m]).pow_(
                power
            )
    return near, distance, largest


def _encode(features, near, distance, largest, power: int, k1: int, share: float, block: int = 512):
    """Step 1 and the vectors of step 2, before their averaging: (N, N), some 40 numbers a row."""
    n, half, listed = len(near), int(round(k1 / 2)) + 1, near
    near = near[:, : k1 + 1]
    back = np.empty((2, n, k1 + 1), bool)  # does the a-th nearest have i in its list too?
    for i in range(0, n, block):
        mine = np.arange(i, min(i + block, n), dtype=np.int32)[:, None, None]
        hits = near[near[i : i + block]] == mine  # (b, k1 + 1, k1 + 1)
        back[0, i : i + block] = hits.any(2)
        back[1, i : i + block] = hits[:, :, :half].any(2)
    back[1, :, half:] = False
    sizes, member = back[1].sum(1), np.zeros((block, n), bool)
    rows, columns = [], []
    for i in range(0, n, block):
        base, inside = near[i : i + block], back[0, i : i + block]  # (b, k1 + 1)
        mine = np.arange(len(base))[:, None]
        member[mine, base] = inside  # the sets of this block as a table
        sets, there = (
            near[base][:, :, :half],
            back[1][base][:, :, :half],
        )  # (b, k1 + 1, half): the set of each member
        shared = (member[mine[:, :, None], sets] & there).sum(2)
        member[mine, base] = False
        taken = inside & (shared > share * sizes[base])
        for members, chosen in ((base, inside), (sets, taken[:, :, None] & there)):
            where = np.nonzero(chosen)
            rows.append(where[0] + i)
            columns.append(members[where])
    pairs = np.sort(np.concatenate(rows) * n + np.concatenate(columns))
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]  # each member once
    i, j = pairs // n, pairs % n
    listed = (
        listed + np.arange(n)[:, None] * n
    ).ravel()  # those of the lists have their distance already
    order = np.argsort(listed)
    place = order[np.minimum(np.searchsorted(listed, pairs, sorter=order), len(order) - 1)]
    d = distance.ravel()[place]
    for far in np.array_split(
        missing := np.flatnonzero(listed[place] != pairs), len(missing) // block + 1
    ):
        a, b = (features[torch.from_numpy(v[far]).to(features.device)] for v in (i, j))
        d[far] = a.sub_(b).square_().sum(1).cpu().numpy()
    weight = np.exp(-((d / largest[i]) ** power))
    ends = np.searchsorted(i, np.arange(n + 1))
    weight /= np.repeat(np.add.reduceat(weight, ends[:-1]), np.diff(ends))
    return sparse.csr_array((weight, j, ends), (n, n))


def _add_jaccard(vectors, out: torch.Tensor, factor: float, block: int = 64) -> None:
    """out += factor * Jaccard distance: 1 - sum of the smaller weights over sum of the larger, which is 2 less the former."""
    n_query, n_gallery = out.shape
    holders = vectors[n_query:].tocsc()  # who in the gallery holds a member: few
    for i in range(0, n_query, block):
        distance = np.ones(
            (min(block, n_query - i), n_gallery), np.float32
        )  # 1 for all that share nothing: most
        for q, row in enumerate(distance, i):
            mine = slice(vectors.indptr[q], vectors.indptr[q + 1])
            start, stop = (
                holders.indptr[vectors.indices[mine]],
                holders.indptr[vectors.indices[mine] + 1],
            )
            length = stop - start
            at = np.repeat(start - np.cumsum(length) + length, length) + np.arange(length.sum())
            smaller = np.minimum(np.repeat(vectors.data[mine], length), holders.data[at])
            shared = np.bincount(holders.indices[at], smaller, n_gallery)
            some = np.flatnonzero(shared)
            row[some] -= shared[some] / (2 - shared[some])
        out[i : i + block].add_(torch.from_numpy(distance).to(out.device), alpha=factor)
