"""How fast, and in how much memory: evaluation, distances and re-ranking against plain baselines, all in one run.

    python speed.py                     the table (about 5 minutes on 2 cores, 6 GiB); also into results/speed/cpu.json
    python speed.py evaluation          one row group: evaluation, distances, reranking, dense, parts, large

Times drift from machine to machine, so the results are ratios of two times of the same run. Data: made-up features in clusters,
one for each identity, at the size of Market-1501 (3,368 queries, 15,913 gallery images). Each group runs in a process of its
own; memory counts what a call adds to its inputs at its peak (Linux only).
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from reidsa_utils import cores, reranking
from reidsa_utils.metrics import euclidean, evaluate_ranking

ROOT = Path(__file__).resolve().parent
QUERIES, GALLERY, IDENTITIES, DISTRACTORS = 3368, 15913, 750, 2798
QUICK = bool(os.environ.get("REIDSA_SPEED_QUICK"))  # the tests: the same path, a tenth of the size


def features(queries: int, gallery: int, dimensions: int, scatter: float = 0.97, seed: int = 0) -> tuple:
    """L2-normalised vectors around one centre for each identity: query (Q, D), gallery (G, D), ids and cameras of both."""
    rng = np.random.default_rng(seed)
    people = max(2, IDENTITIES * gallery // GALLERY)
    ids = rng.integers(1, people + 1, queries), rng.integers(1, people + 1, gallery)
    ids[1][: DISTRACTORS * gallery // GALLERY] = 0
    cameras = rng.integers(1, 7, queries), rng.integers(1, 7, gallery)
    centres = rng.normal(size=(people + 1, 64)).astype(np.float32)
    spread = rng.normal(size=(64, dimensions)).astype(np.float32)

    def vectors(of):
        own = np.where((of > 0)[:, None], centres[of], rng.normal(size=(len(of), 64))) + scatter * rng.normal(size=(len(of), 64))
        x = own.astype(np.float32) @ spread
        for row in x:
            row += 0.3 * np.abs(row).mean() * rng.standard_normal(dimensions, np.float32)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        return x

    return vectors(ids[0]), vectors(ids[1]), ids, cameras


def added(work) -> float:
    """GiB that one call of `work` needs at its peak beyond what is held before it. Linux only, NaN elsewhere."""
    def status(key):
        return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key)) / 2**20

    if not Path("/proc/self/clear_refs").exists():
        work()
        return float("nan")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    before = status("VmRSS")
    work()
    return status("VmHWM") - before


def timed(work, repeats: int = 3) -> float:
    """Median seconds of `repeats` calls."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def by_sorting(distances, ids, cameras) -> float:
    """The plain evaluation that notebook 03 teaches; returns the mean step-sum AP."""
    precisions = []
    for q, row in enumerate(distances):
        order = np.argsort(row, kind="stable")
        same = ids[1][order] == ids[0][q]
        match = same[~(same & (cameras[1][order] == cameras[0][q])) & (ids[1][order] != -1)]
        if match.any():
            ranks = np.flatnonzero(match) + 1
            precisions.append((np.arange(1, len(ranks) + 1) / ranks).mean())
    return float(np.mean(precisions))


def rerank_dense(query, gallery, k1=20, k2=6, lambda_=0.3):
    """Re-ranking as the published scripts do it, with matrices of all images against all: the baseline."""
    x = np.concatenate([query, gallery])
    n, n_query = len(x), len(query)
    d = euclidean(x, x)
    np.fill_diagonal(d, 0)
    d /= d.max(axis=1, keepdims=True)
    nearest = np.argsort(d, axis=1, kind="stable")

    def reciprocal(i, k):
        near = nearest[i, : k + 1]
        return near[(nearest[near, : k + 1] == i).any(axis=1)]

    v = np.zeros_like(d)
    for i in range(n):
        base = members = reciprocal(i, k1)
        for j in base:
            half = reciprocal(j, int(round(k1 / 2)))
            if len(np.intersect1d(half, base)) > 2 / 3 * len(half):
                members = np.append(members, half)
        members = np.unique(members)
        weight = np.exp(-d[i, members])
        v[i, members] = weight / weight.sum()
    v = np.stack([v[nearest[i, :k2]].mean(axis=0) for i in range(n)])
    out = np.empty((n_query, n - n_query), np.float32)
    for i in range(n_query):
        smaller = np.zeros(n, np.float32)
        for j in np.flatnonzero(v[i]):
            holders = np.flatnonzero(v[:, j])
            smaller[holders] += np.minimum(v[i, j], v[holders, j])
        out[i] = (1 - smaller / (2 - smaller))[n_query:]
    return (1 - lambda_) * out + lambda_ * d[:n_query, n_query:]


def sizes() -> tuple:
    return (QUERIES // 10, GALLERY // 10) if QUICK else (QUERIES, GALLERY)


def evaluation() -> dict:
    query, gallery, ids, cameras = features(*sizes(), 256)
    distances = euclidean(query, gallery)
    memory = added(lambda: evaluate_ranking(distances, *ids, *cameras))
    result = evaluate_ranking(distances, *ids, *cameras)
    ours = timed(lambda: evaluate_ranking(distances, *ids, *cameras), 7)
    sort = timed(lambda: np.argsort(distances, axis=1))
    plain = timed(lambda: by_sorting(distances, ids, cameras), 1)
    assert abs(by_sorting(distances, ids, cameras) - result.mean_ap) < 1e-9
    return {"mAP of the data": round(result.mean_ap, 3), "seconds": ours, "of np.argsort's time": ours / sort,
            "plain loop, times ours": plain / ours, "memory added, share of the matrix": memory / (distances.nbytes / 2**30)}


def distances() -> dict:
    query, gallery, *_ = features(*sizes(), 2048)
    ours, bare = timed(lambda: euclidean(query, gallery)), timed(lambda: query @ gallery.T)
    return {"seconds": ours, "of the bare product's time": ours / bare}


def product(query: np.ndarray, gallery: np.ndarray, repeats: int) -> float:
    """Seconds of the bare product of all images with all, block by block."""
    x = torch.from_numpy(np.concatenate([query, gallery]))

    def blocks():
        for i in range(0, len(x), 2048):
            x[i:i + 2048] @ x.T

    return timed(blocks, repeats)


def reranking_() -> dict:
    query, gallery, ids, cameras = features(*sizes(), 2048)
    bare = product(query, gallery, 3)
    lists, find = [], reranking._nearest

    def clocked(*arguments):
        out = find(*arguments)
        lists.append(time.perf_counter())
        return out

    reranking._nearest = clocked
    memory = added(lambda: reranking.rerank(query, gallery))
    out = reranking.rerank(query, gallery)
    ours, after_lists = [], []
    for _ in range(3):
        start = time.perf_counter()
        reranking.rerank(query, gallery)
        ours.append(time.perf_counter() - start)
        after_lists.append(time.perf_counter() - lists[-1])
    ours = statistics.median(ours)
    before_mean, after = (evaluate_ranking(d, *ids, *cameras).mean_ap for d in (euclidean(query, gallery), out))
    return {"mAP before and after": [round(before_mean, 3), round(after, 3)],
            "seconds": ours, "of the N x N product's time": ours / bare,
            "seconds after the nearest lists": statistics.median(after_lists), "memory added, GiB": memory,
            "one N x N matrix, GiB": (len(query) + len(gallery)) ** 2 * 4 / 2**30}


def dense() -> dict:
    query, gallery, *_ = features(100 if QUICK else 800, 600 if QUICK else 4000, 2048)
    memory = [added(lambda: reranking.rerank(query, gallery)), added(lambda: rerank_dense(query, gallery))]
    ours = timed(lambda: reranking.rerank(query, gallery))
    start = time.perf_counter()
    baseline = rerank_dense(query, gallery)
    plain = time.perf_counter() - start
    difference = float(np.abs(baseline - reranking.rerank(query, gallery)).max())
    assert difference < 1e-5, difference
    return {"N": len(query) + len(gallery), "dense baseline, times ours": plain / ours, "largest difference": difference,
            "memory added, ours and the baseline's, GiB": memory}


def parts() -> dict:
    """The vector of six parts of notebook 04."""
    query, gallery, *_ = features(*sizes(), 12288)
    memory = added(lambda: reranking.rerank(query, gallery))
    seconds, bare = timed(lambda: reranking.rerank(query, gallery), 1), product(query, gallery, 1)
    return {"dimensions": 12288, "seconds": seconds, "of the N x N product's time": seconds / bare, "memory added, GiB": memory,
            "the features, GiB": (query.nbytes + gallery.nbytes) / 2**30}


def large() -> dict:
    n = 5_000 if QUICK else 100_000
    query, gallery, *_ = features(n // 30, n - n // 30, 128)
    start = time.perf_counter()
    memory = added(lambda: reranking.rerank(query, gallery))
    return {"N": n, "dimensions": 128, "seconds": time.perf_counter() - start, "memory added, GiB": memory,
            "of it the result": len(query) * len(gallery) * 4 / 2**30, "one N x N matrix, GiB": n * n * 4 / 2**30}


GROUPS = {"evaluation": evaluation, "distances": distances, "reranking": reranking_, "dense": dense, "parts": parts, "large": large}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("group", nargs="?", choices=GROUPS, help="default: all, one process each")
    group = parser.parse_args().group
    if group:
        torch.set_num_threads(cores())
        print(json.dumps(GROUPS[group]()))
        return 0
    results = {"machine": f"{platform.machine()}, {cores()} cores", "numpy": np.__version__, "torch": torch.__version__}
    for name in GROUPS:
        done = subprocess.run([sys.executable, __file__, name], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            return done.returncode
        results[name] = json.loads(done.stdout, parse_float=lambda text: float(f"{float(text):.3g}"))
        print(name)
        for what, value in results[name].items():
            print(f"  {what:48} {value}")
    if not QUICK:
        (ROOT / "results" / "speed").mkdir(exist_ok=True)
        (ROOT / "results" / "speed" / "cpu.json").write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
