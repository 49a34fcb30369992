"""From images to retrieval vectors, and from vectors to metrics."""

import numpy as np
import torch

from . import reranking
from .batches import to_input
from .data import Benchmark
from .metrics import euclidean, evaluate_ranking
from .model import ReIDNet


def extract(model: ReIDNet, images: np.ndarray, batch: int = 64, device="cpu", tick=None) -> dict:
    """Retrieval vectors of all images: {kind: (N, D) float32}. Puts the model into eval mode."""
    model.eval()
    out = {}
    with torch.inference_mode():
        for i in range(0, len(images), batch):
            for kind, vectors in model.embed_all(to_input(images[i : i + batch], device)).items():
                out.setdefault(kind, []).append(vectors.float().cpu().numpy())
            if tick:
                tick(min(batch, len(images) - i))
    return {kind: np.concatenate(v) for kind, v in out.items()}


def evaluate(query: dict, gallery: dict, benchmark: Benchmark, with_rerank: bool = True) -> dict:
    """Metrics of every retrieval vector, plain and re-ranked: {"global": {...}, "global+rerank": {...}, ...}."""
    results = {}
    for kind in query:
        matrices = {kind: lambda k=kind: euclidean(query[k], gallery[k])}
        if with_rerank:
            matrices[f"{kind}+rerank"] = lambda k=kind: reranking.rerank(query[k], gallery[k])
        for name, matrix in matrices.items():
            r = evaluate_ranking(
                matrix(),
                benchmark.query.ids,
                benchmark.gallery.ids,
                benchmark.query.cameras,
                benchmark.gallery.cameras,
            )
            ap = [None if np.isnan(v) else round(float(v), 5) for v in r.average_precision]
            results[name] = {
                "rank1": float(r.cmc[0]),
                "rank5": float(r.cmc[4]),
                "rank10": float(r.cmc[9]),
                "mean_ap": r.mean_ap,
                "mean_ap_trapezoid": r.mean_ap_trapezoid,
                "skipped": r.skipped,
                "average_precision": ap,
                "first_match": r.first_match.tolist(),
            }
    return results
