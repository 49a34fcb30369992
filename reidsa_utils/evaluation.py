"""From images to retrieval vectors, and from vectors to metrics."""

import numpy as np
import torch

from . import reranking
from .attention import without_autocast
from .batches import as_images, to_input
from .data import Benchmark
from .metrics import euclidean, evaluate_ranking
from .model import ReIDNet
from .support.arrays import check_whole


def extract(model: ReIDNet, images, batch: int = 64, device="cpu", tick=None) -> dict:
    """Retrieval vectors of all images: {kind: (N, D) float32}, kinds "global" and "parts".

    The model is put into eval mode. An enclosing autocast has no effect.

    images: (N, H, W, 3) RGB, as batches.as_images takes them. tick: called after each batch with
    its number of images.
    Raises InputError as batches.as_images does, or if batch is not a whole number from 1.
    """
    check_whole("batch", batch)
    images = as_images(images)
    model.eval()
    batches = {}
    with torch.inference_mode(), without_autocast(device):
        for start in range(0, len(images), batch):
            x = to_input(images[start : start + batch], device)  # (B, 3, H, W)
            for kind, vectors in model.embed_all(x).items():
                batches.setdefault(kind, []).append(vectors.float().cpu().numpy())
            if tick:
                tick(len(x))
    return {kind: np.concatenate(vectors) for kind, vectors in batches.items()}


def evaluate(query: dict, gallery: dict, benchmark: Benchmark, with_rerank: bool = True) -> dict:
    """Metrics of every retrieval vector, plain and re-ranked (section 4).

    query, gallery: as `extract` returns them.
    Returns {"global": {...}, "global+rerank": {...}, ...}, each as metrics_of returns it.
    """
    results = {}
    for kind in query:
        # The distances take 260 MB at full size. Without a name they are freed before re-ranking.
        results[kind] = metrics_of(euclidean(query[kind], gallery[kind]), benchmark)
        if with_rerank:
            results |= evaluate_reranked({kind: query[kind]}, gallery, benchmark)
    return results


def evaluate_reranked(query: dict, gallery: dict, benchmark: Benchmark) -> dict:
    """Only the re-ranked results of evaluate(), from the same arguments."""
    results = {}
    for kind in query:
        distances = reranking.rerank(query[kind], gallery[kind])
        results[f"{kind}+rerank"] = metrics_of(distances, benchmark)
    return results


def metrics_of(distances: np.ndarray, benchmark: Benchmark) -> dict:
    """The numbers and lists of a record for one matrix of distances, (queries, gallery)."""
    ranking = evaluate_ranking(distances, *benchmark.truth)
    # A query without a match has no average precision: null in the record.
    average_precision = [
        None if np.isnan(ap) else round(float(ap), 5) for ap in ranking.average_precision
    ]
    return {
        "rank1": float(ranking.cmc[0]),
        "rank5": float(ranking.cmc[4]),
        "rank10": float(ranking.cmc[9]),
        "mean_ap": ranking.mean_ap,
        "mean_ap_trapezoid": ranking.mean_ap_trapezoid,
        "skipped": ranking.skipped,
        "average_precision": average_precision,
        "first_match": ranking.first_match.tolist(),
    }
