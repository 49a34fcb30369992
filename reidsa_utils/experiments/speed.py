"""How fast, and in how much memory: loading, training, attention, evaluation and re-ranking against plain baselines, all in one run.

    reidsa speed                     the table (about 8 minutes on 2 cores, 8 GiB); also into results/speed/cpu.json
    reidsa speed step attention      some groups of it again: loading, step, attention, evaluation, distances, reranking, dense,
                                        parts, large

Times drift from machine to machine, so the results are ratios of two times of the same run. Data: rendered images; and made-up
features in clusters, one for each identity, at the size of Market-1501 (3,368 queries, 15,913 gallery images). Each group runs in
a process of its own; memory counts what a call adds to its inputs at its peak (Linux only).
"""

import argparse
import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from .. import cores, reranking
from ..attention import attended_pool, attention_weights
from ..batches import MEAN, STD, augment, to_input
from ..data import load_benchmark, load_images
from ..datasets.rendered import render_benchmark
from ..metrics import euclidean, evaluate_ranking
from ..model import ReIDNet, reid_loss
from ..support.files import ROOT, write_atomic
from ..support.malloc import MALLOC
from ..support.opencv import cv2

QUERIES, GALLERY, IDENTITIES, DISTRACTORS = 3368, 15913, 750, 2798
QUICK = bool(os.environ.get("REIDSA_SPEED_QUICK"))  # the tests: the same path, a tenth of the size


def features(
    queries: int, gallery: int, dimensions: int, scatter: float = 0.97, seed: int = 0
) -> tuple:
    """L2-normalised vectors around one centre for each identity: query (Q, D), gallery (G, D), ids and cameras of both."""
    rng = np.random.default_rng(seed)
    people = max(2, IDENTITIES * gallery // GALLERY)
    ids = rng.integers(1, people + 1, queries), rng.integers(1, people + 1, gallery)
    ids[1][: DISTRACTORS * gallery // GALLERY] = 0
    cameras = rng.integers(1, 7, queries), rng.integers(1, 7, gallery)
    centres = rng.normal(size=(people + 1, 64)).astype(np.float32)
    spread = rng.normal(size=(64, dimensions)).astype(np.float32)

    def vectors(of):
        own = np.where(
            (of > 0)[:, None], centres[of], rng.normal(size=(len(of), 64))
        ) + scatter * rng.normal(size=(len(of), 64))
        x = own.astype(np.float32) @ spread
        for row in x:
            row += 0.3 * np.abs(row).mean() * rng.standard_normal(dimensions, np.float32)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        return x

    return vectors(ids[0]), vectors(ids[1]), ids, cameras


def added(work) -> float:
    """GiB that one call of `work` needs at its peak beyond what is held before it. Linux only, NaN elsewhere."""

    def status(key):
        return (
            next(
                int(line.split()[1])
                for line in Path("/proc/self/status").read_text().splitlines()
                if line.startswith(key)
            )
            / 2**20
        )

    if not Path("/proc/self/clear_refs").exists():
        work()
        return float("nan")
    ctypes.CDLL(None).malloc_trim(0)  # what the heap keeps would hide what is used
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    before = status("VmRSS")
    work()
    return status("VmHWM") - before


def timed(work, repeats: int = 3) -> float:
    """Median seconds of `repeats` calls."""
    return in_turns(work, repeats=repeats)[0]


def in_turns(*works, repeats: int = 3) -> list[float]:
    """Median seconds of each, called in turns: what slows the machine for a while slows them alike."""
    seconds = [[] for _ in works]
    for _ in range(repeats):
        for work, own in zip(works, seconds, strict=True):
            start = time.perf_counter()
            work()
            own.append(time.perf_counter() - start)
    return [statistics.median(own) for own in seconds]


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
    ours, sort = in_turns(
        lambda: evaluate_ranking(distances, *ids, *cameras),
        lambda: np.argsort(distances, axis=1),
        repeats=5,
    )
    plain = timed(lambda: by_sorting(distances, ids, cameras), 1)
    assert abs(by_sorting(distances, ids, cameras) - result.mean_ap) < 1e-9
    return {
        "mAP of the data": round(result.mean_ap, 3),
        "seconds": ours,
        "of np.argsort's time": ours / sort,
        "plain loop, times ours": plain / ours,
        "memory added, share of the matrix": memory / (distances.nbytes / 2**30),
    }


def distances() -> dict:
    query, gallery, *_ = features(*sizes(), 2048)
    ours, bare = in_turns(lambda: euclidean(query, gallery), lambda: query @ gallery.T, repeats=5)
    return {"seconds": ours, "of the bare product's time": ours / bare}


def product(query: np.ndarray, gallery: np.ndarray, repeats: int) -> float:
    """Seconds of the bare product of all images with all, block by block."""
    x = torch.from_numpy(np.concatenate([query, gallery]))

    def blocks():
        for i in range(0, len(x), 2048):
            x[i : i + 2048] @ x.T

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
    before_mean, after = (
        evaluate_ranking(d, *ids, *cameras).mean_ap for d in (euclidean(query, gallery), out)
    )
    return {
        "mAP before and after": [round(before_mean, 3), round(after, 3)],
        "seconds": ours,
        "of the N x N product's time": ours / bare,
        "seconds after the nearest lists": statistics.median(after_lists),
        "memory added, GiB": memory,
        "one N x N matrix, GiB": (len(query) + len(gallery)) ** 2 * 4 / 2**30,
    }


def dense() -> dict:
    query, gallery, *_ = features(100 if QUICK else 800, 600 if QUICK else 4000, 2048)
    memory = [
        added(lambda: reranking.rerank(query, gallery)),
        added(lambda: rerank_dense(query, gallery)),
    ]
    ours = timed(lambda: reranking.rerank(query, gallery))
    start = time.perf_counter()
    baseline = rerank_dense(query, gallery)
    plain = time.perf_counter() - start
    difference = float(np.abs(baseline - reranking.rerank(query, gallery)).max())
    assert difference < 1e-5, difference
    return {
        "N": len(query) + len(gallery),
        "dense baseline, times ours": plain / ours,
        "largest difference": difference,
        "memory added, ours and the baseline's, GiB": memory,
    }


def parts() -> dict:
    """The vector of six parts of notebook 04."""
    query, gallery, *_ = features(*sizes(), 12288)
    memory = added(lambda: reranking.rerank(query, gallery))
    seconds, bare = timed(lambda: reranking.rerank(query, gallery), 1), product(query, gallery, 1)
    return {
        "dimensions": 12288,
        "seconds": seconds,
        "of the N x N product's time": seconds / bare,
        "memory added, GiB": memory,
        "the features, GiB": (query.nbytes + gallery.nbytes) / 2**30,
    }


def large() -> dict:
    n = 5_000 if QUICK else 100_000
    query, gallery, *_ = features(n // 30, n - n // 30, 128)
    start = time.perf_counter()
    memory = added(lambda: reranking.rerank(query, gallery))
    return {
        "N": n,
        "dimensions": 128,
        "seconds": time.perf_counter() - start,
        "memory added, GiB": memory,
        "of it the result": len(query) * len(gallery) * 4 / 2**30,
        "one N x N matrix, GiB": n * n * 4 / 2**30,
    }


def loading() -> dict:
    """From files of 128x64 to normalised, augmented batches of 384x128, on one core."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    size, batch, rng = (384, 128), 48, np.random.default_rng(0)
    plain = transforms.Compose(
        [
            transforms.Resize(size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
            transforms.RandomErasing(value="random"),
        ]
    )
    with tempfile.TemporaryDirectory() as folder:
        paths = load_benchmark(
            "market1501", render_benchmark("market1501", folder, scale=0.016, progress=False)
        ).gallery.paths[: 5 * batch]
        batches = [paths[k : k + batch] for k in range(0, len(paths), batch)]
        cached = load_images(paths, *size)

        def theirs():
            for some in batches:
                torch.stack([plain(Image.open(path).convert("RGB")) for path in some])

        def decoding():
            for some in batches:
                to_input(augment(load_images(some, *size, threads=1), rng))

        def ours():
            for k in range(0, len(cached), batch):
                to_input(augment(cached[k : k + batch].copy(), rng))

        seconds = in_turns(theirs, decoding, ours, repeats=5)
    rates = [len(paths) / s for s in seconds]
    return {
        "images/s, PIL and torchvision": rates[0],
        "images/s, ours, decoding": rates[1],
        "images/s, ours, from memory": rates[2],
        "decoding, times PIL and torchvision": rates[1] / rates[0],
        "from memory, times PIL and torchvision": rates[2] / rates[0],
    }


def gflops() -> float:
    """Of a large product of matrices, a second, in billions: what this processor can do."""
    a = torch.rand(1024 if QUICK else 4096, 1024 if QUICK else 4096)
    return 2 * len(a) ** 3 / timed(lambda: a @ a) / 1e9


def step() -> dict:
    """A training step of the full model, ResNet-50 at 384x128, against the processor's peak, measured just before and after."""
    size, batch, backbone = ((96, 32), 8, "thin") if QUICK else ((384, 128), 16, "resnet50")
    rng = np.random.default_rng(0)
    images, target = rng.integers(0, 256, (batch, *size, 3), dtype=np.uint8), torch.arange(batch)
    out, peaks = {}, [gflops()]

    def prepare(layout, compiled=False):
        torch.manual_seed(0)
        model = ReIDNet(751, "b_p_ds_sa2", "l1", backbone=backbone).to(memory_format=layout)
        optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, nesterov=True)
        called = torch.compile(model) if compiled else model

        def work(waited=None):
            start = time.perf_counter()
            x = to_input(augment(images.copy(), rng)).contiguous(memory_format=layout)
            if waited is not None:
                waited.append(time.perf_counter() - start)
            optimizer.zero_grad(set_to_none=True)
            reid_loss(called(x), target).backward()
            optimizer.step()

        return model, work

    model, ours = prepare(torch.channels_last)
    with FlopCounterMode(display=False) as counter:
        ours()
    work = counter.get_total_flops() / 1e9  # forward and backward, of one step
    out["GFLOP an image"] = work / batch
    out["memory added by the first step, GiB"] = added(prepare(torch.channels_last)[1])
    with torch.no_grad():
        maps = model.feature_maps(to_input(images))[:3]
    leaves = [f.detach().requires_grad_() for f in maps]

    def attend(pool=attended_pool):
        for leaf in leaves:
            torch.autograd.grad(pool(leaf, "l1").sum(), leaf)

    waited = []
    works = [lambda: ours(waited), attend, prepare(torch.contiguous_format)[1]]
    for work_ in works[1:]:
        work_()
    try:
        if not QUICK:  # minutes of compiling
            pool, compiled_step = (
                torch.compile(attended_pool, dynamic=False),
                prepare(torch.channels_last, compiled=True)[1],
            )
            warm_up = timed(compiled_step, 1)
            attend(pool)
            works += [lambda: attend(pool), compiled_step]
    except Exception as error:  # no C++ compiler
        out["compiled"] = f"not here ({type(error).__name__})"
    seconds, attending, plain, *compiled = in_turns(*works)
    peaks.append(gflops())
    peak = statistics.mean(peaks)
    out |= {
        "images/s": batch / seconds,
        "share of the peak": work / seconds / peak,
        "the peak, GFLOP/s, before and after": peaks,
        "waiting for data": statistics.median(waited) / seconds,
        "attention at stages 1 to 3, of the step": attending / seconds,
        "time without channels_last, times ours": plain / seconds,
    }
    if compiled:
        out |= {
            "attention compiled, of the step": compiled[0] / seconds,
            "compiled: warm-up, steps": warm_up / seconds,
            "compiled: time, times eager": compiled[1] / seconds,
        }
    return out


def attention() -> dict:
    """Pooling a map with its own attention, forward and backward, against one copy of the map (one read, one write)."""
    out = {}
    for stage, shape in (("stage 1", (48, 256, 96, 32)), ("stage 4", (48, 2048, 24, 8))):
        f = (
            torch.rand(*(n // 4 if QUICK else n for n in shape))
            .contiguous(memory_format=torch.channels_last)
            .requires_grad_()
        )
        g, copy = torch.rand(f.shape[:2]), torch.empty_like(f)

        def plain(f, form="softmax"):
            return (f * attention_weights(f, form)[:, None]).mean(
                dim=(2, 3)
            )  # as written: F, then its average

        def both(pool, f=f, g=g):
            torch.autograd.grad(
                pool(f), f, g
            )  # not .backward(): it would copy the gradient into f.grad, which no map in a network has

        def copied(f=f, copy=copy):
            with torch.no_grad():
                copy.copy_(f)

        ways = {
            "multiply, then pool": plain,
            "eager": attended_pool,
            "compiled": torch.compile(attended_pool, dynamic=False),
        }
        for name, pool in list(ways.items()):
            try:
                both(pool)
            except Exception as error:  # no C++ compiler
                out[f"{stage}, {name}"] = f"not here ({type(error).__name__})"
                del ways[name]
        copied()
        floor, *seconds = in_turns(
            copied, *(lambda pool=pool: both(pool) for pool in ways.values()), repeats=9
        )
        for name, own in zip(ways, seconds, strict=True):
            out[f"{stage}, {name}: time, copies of the map"] = own / floor
            out[f"{stage}, {name}: memory added, maps"] = added(
                lambda pool=ways[name]: both(pool)
            ) / (f.numel() * 4 / 2**30)
    return out


GROUPS = {
    "loading": loading,
    "step": step,
    "attention": attention,
    "evaluation": evaluation,
    "distances": distances,
    "reranking": reranking_,
    "dense": dense,
    "parts": parts,
    "large": large,
}


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="reidsa speed", description=__doc__.splitlines()[0])
    parser.add_argument(
        "groups", nargs="*", choices=["all", *GROUPS], default="all", help="default: all"
    )
    parser.add_argument(
        "--here", action="store_true", help="in this process, as JSON; otherwise one process each"
    )
    arguments = parser.parse_args(argv)
    groups = list(GROUPS) if "all" in arguments.groups else arguments.groups
    if arguments.here:
        torch.set_num_threads(cores())
        print(json.dumps({name: GROUPS[name]() for name in groups}))
        return 0
    record = ROOT / "results" / "speed" / "cpu.json"
    results = {
        "machine": f"{platform.machine()}, {cores()} cores",
        "numpy": np.__version__,
        "torch": torch.__version__,
    }
    before = json.loads(record.read_text()) if record.exists() else {}
    if all(before.get(key) == value for key, value in results.items()):
        results |= before
    for name in groups:
        command = [sys.executable, "-m", "reidsa_utils", "speed", name, "--here"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=os.environ | MALLOC)
        if done.returncode:
            return done.returncode
        results |= json.loads(done.stdout, parse_float=lambda text: float(f"{float(text):.3g}"))
        print(name)
        for what, value in results[name].items():
            print(f"  {what:48} {value}")
    if not QUICK:
        record.parent.mkdir(exist_ok=True)
        write_atomic(record, (json.dumps(results, indent=1) + "\n").encode())
    return 0
