"""What the explorer's page shows over a picture: maps and scores of one network, packed.

Maps are class activation maps of stages 1 to 4 and the class-free similarity of a pair of images;
scores are the sums over channels that eq. 1 makes its weights from.
"""

import base64

import numpy as np
import torch
from torch import Tensor

from ...batches import to_input
from ...cam import class_activation_maps
from ...model import ReIDNet
from ..map_measures import STAGES


@torch.no_grad()
def look_at(model: ReIDNet, images: np.ndarray) -> dict:
    """What the page shows of one network on some images.

    model: in eval mode. images: (N, H, W, 3) uint8.
    Returns {"classes": (N,) the likeliest training identity by the main head, "confidence": (N,)
    its softmax probability, "cams": {stage: (N, h, w) of that class}, "scores": [(N, h, w) of
    stages 1 to 4], "stage4": (N, C, h, w) the map that retrieval pools}.
    """
    maps = model.feature_maps(to_input(images))
    stage4 = model.attend(maps[3])
    logits = model.main_logits(model.pool_parts(stage4))["final"]  # (N, classes)
    probabilities = logits.softmax(dim=1)
    confidence, classes = probabilities.max(dim=1)
    stages = STAGES if len(model.stages) else STAGES[-1:]
    cams = {}
    for stage in stages:
        cams[stage] = class_activation_maps(model, None, classes, stage, maps=maps).detach()
    return {
        "classes": classes,
        "confidence": confidence,
        "cams": cams,
        "scores": [f.sum(dim=1) for f in maps],  # eq. 1: A(i, j) = sum_k f_k(i, j)
        "stage4": stage4,
    }


def similarity_maps(stage4: Tensor, vectors: Tensor, parts: int) -> Tensor:
    """Where an image resembles another image: a map without a class, whose sum is the similarity.

    The similarity is the cosine of the vectors `global`, or the sum of the six cosines of the
    stripes of `parts`. Each vector is a mean over positions, so the similarity is a sum of one
    number per position. The map shows these numbers.

    stage4: (N, C, h, w), from look_at(). vectors: (N, C) or (N, parts C), of the other image of
    each pair. Either may hold one image (1, ...), which is then paired with all of the other.
    parts: stripes of the vectors: 1 for `global`, six for `parts`.
    Returns (N, h, w).
    """
    _, channels, h, w = stage4.shape
    stripes = stage4.reshape(-1, channels, parts, h // parts * w)
    own = stripes.mean(dim=3)  # (N, C, m)
    other = vectors.reshape(-1, parts, channels).transpose(1, 2)  # (N, C, m)
    # The stripes of `parts` have unit length already, except those that are nearly zero.
    direction = other if parts > 1 else torch.nn.functional.normalize(other, dim=1)
    length = own.norm(dim=1).clamp(min=1e-12)  # (N, m)
    shares = torch.einsum("ncmp,ncm->nmp", stripes, direction)
    shares = shares / length[:, :, None] / stripes.shape[3]
    return shares.reshape(-1, h, w)


def packed_maps(maps: list[np.ndarray]) -> dict:
    """Maps of one image, each (h, w), as the page reads them: the positive part, in 8 bits.

    Returns {"top": the largest value of each map, "data": base64 of all positions}. A byte b stands
    for top (b / 255)^2. Because of the square root, small values stay distinct beside a large one.
    """
    tops, codes = [], []
    for values in maps:
        positive = np.clip(values, 0, None)
        top = float(positive.max())
        share = positive / top if top > 0 else positive
        codes.append(np.round(255 * np.sqrt(share)).astype(np.uint8).ravel())
        tops.append(float(f"{top:.6g}"))
    return {"top": tops, "data": _base64(np.concatenate(codes))}


def packed_scores(scores: list[np.ndarray]) -> dict:
    """Scores of one image, each (h, w), as the page reads them.

    Returns {"top": the largest score of each stage, "range": how far below it the smallest is,
    "data": base64 of all positions}. The stored numbers are the distances from the largest score,
    divided by the range, in half precision. So exp(A / T) is most exact for the largest scores, at
    every temperature T.
    """
    tops, ranges, codes = [], [], []
    for values in scores:
        top = float(values.max())
        below = top - values.astype(np.float64)
        distance = float(below.max())
        codes.append((below / (distance or 1)).astype("<f2").ravel())
        tops.append(float(f"{top:.8g}"))
        ranges.append(float(f"{distance:.8g}"))
    return {"top": tops, "range": ranges, "data": _base64(np.concatenate(codes))}


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


def maps_for_query(
    model: ReIDNet,
    images: np.ndarray,
    names: list[str],
    numbers: list[int],
    vectors: np.ndarray,
    pairs: dict[str, list[int]],
    parts: int,
) -> dict:
    """All that the page shows of one network over one query and the first images of its lists.

    images: (N, H, W, 3) uint8; first the query, as it is and without a part, then gallery images.
    names: one for each image of the query: "", then the missing parts. numbers: those of the
    gallery images in the gallery. vectors: (N, D), of the images. pairs: {name: numbers of gallery
    images} whose similarity with that image of the query is shown.
    parts: as in similarity_maps().
    Returns {"query": {name: view}, "gallery": {number: view}, "pairs": {name: {number: map on the
    query and map on the gallery image}}, "sizes": [height, width] of the maps of stages 1 to 4}.
    """
    seen = look_at(model, images)
    views = [_view(seen, k) for k in range(len(images))]
    n_names = len(names)
    for k in range(n_names):  # only for the query: scores take three times the space of maps
        views[k]["scores"] = packed_scores([scores[k].numpy() for scores in seen["scores"]])
    place = {number: n_names + k for k, number in enumerate(numbers)}
    on_pairs = {}
    for k, name in enumerate(names):
        others = [place[number] for number in pairs[name]]
        if others:
            maps = _similarity_of_pairs(seen["stage4"], torch.from_numpy(vectors), k, others, parts)
            on_pairs[name] = dict(zip(pairs[name], maps, strict=True))
    return {
        "query": dict(zip(names, views[:n_names], strict=True)),
        "gallery": dict(zip(numbers, views[n_names:], strict=True)),
        "pairs": on_pairs,
        "sizes": [list(scores.shape[1:]) for scores in seen["scores"]],
    }


def _similarity_of_pairs(
    stage4: Tensor, vectors: Tensor, one: int, others: list[int], parts: int
) -> list[dict]:
    """The similarity maps of one image with each of some others, for each pair on both images."""
    on_one = similarity_maps(stage4[one : one + 1], vectors[others], parts)
    on_other = similarity_maps(stage4[others], vectors[one : one + 1], parts)
    found = []
    for a, b in zip(on_one.numpy(), on_other.numpy(), strict=True):
        found.append({"sum": float(f"{b.sum():.6g}"), **packed_maps([a, b])})
    return found


def _view(seen: dict, k: int) -> dict:
    """The class activation maps of image k, with their class and its probability."""
    cams = {stage: maps[k].numpy() for stage, maps in seen["cams"].items()}
    return {
        "class": int(seen["classes"][k]),
        "confidence": round(float(seen["confidence"][k]), 4),
        "cam": {"stages": list(cams), **packed_maps(list(cams.values()))},
    }
