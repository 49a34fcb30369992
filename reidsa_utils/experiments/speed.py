"""Time and memory of every part of the work, against a plain baseline in the same run.

    reidsa speed                     the table, also into results/speed/cpu.json
                                     (about 8 minutes on 2 cores, 8 GiB)
    reidsa speed step attention      only some groups, of: loading, rendering, step, bookkeeping,
                                     attention, evaluation, distances, reranking, dense, parts,
                                     large
    reidsa speed growth              how re-ranking grows up to 500,000 images: an hour, and more
                                     than 16 GiB

Times differ from machine to machine, so the results are ratios of two times of the same run. The
data are rendered images, and random features in clusters, one for each identity, at the size of
Market-1501 (3,368 queries, 15,913 gallery images). Each group runs in a process of its own. Memory
is what a call adds to its inputs at its peak (Linux only).
"""

import contextlib
import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from .. import cores, known, reranking
from ..attention import attended_pool, attention_weights
from ..batches import MEAN, STD, augment, to_input
from ..data import load_benchmark, load_images
from ..datasets.rendered import render_benchmark
from ..metrics import euclidean, evaluate_ranking
from ..model import ReIDNet, reid_loss
from ..reranking import rerank
from ..support.files import ROOT, write_atomic
from ..support.memory import keep_freed_memory
from ..support.opencv import cv2
from ..training import EpochSums, look_inside

# Market-1501's test set.
QUERIES, GALLERY, IDENTITIES, DISTRACTORS = 3368, 15913, 750, 2798
GIB = 2**30
# The tests set this: the same code runs at a tenth of the size, and nothing is recorded.
QUICK = bool(os.environ.get("REIDSA_SPEED_QUICK"))


def features(
    queries: int, gallery: int, dimensions: int, scatter: float = 0.97, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, tuple, tuple]:
    """Make L2-normalised vectors around one centre for each identity.

    scatter: standard deviation of the vectors about their centre, in 64 dimensions. Returns query
    (Q, D), gallery (G, D), the ids of both and the cameras of both.
    """
    rng = np.random.default_rng(seed)
    people = max(2, IDENTITIES * gallery // GALLERY)
    query_ids = rng.integers(1, people + 1, queries)
    gallery_ids = rng.integers(1, people + 1, gallery)
    gallery_ids[: DISTRACTORS * gallery // GALLERY] = 0
    query_cameras = rng.integers(1, 7, queries)
    gallery_cameras = rng.integers(1, 7, gallery)
    centres = rng.normal(size=(people + 1, 64)).astype(np.float32)
    spread = rng.normal(size=(64, dimensions)).astype(np.float32)

    def vectors(ids: np.ndarray) -> np.ndarray:
        of_nobody = rng.normal(size=(len(ids), 64))
        own_centre = np.where((ids > 0)[:, None], centres[ids], of_nobody)
        own = own_centre + scatter * rng.normal(size=(len(ids), 64))
        x = own.astype(np.float32) @ spread
        for row in x:
            row += 0.3 * np.abs(row).mean() * rng.standard_normal(dimensions, np.float32)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        return x

    query, gallery = vectors(query_ids), vectors(gallery_ids)
    return query, gallery, (query_ids, gallery_ids), (query_cameras, gallery_cameras)


def added(call: Callable) -> float:
    """GiB that one call needs at its peak beyond what is held before it; NaN if not on Linux."""
    clear = Path("/proc/self/clear_refs")
    if not clear.exists():
        call()
        return float("nan")
    ctypes.CDLL(None).malloc_trim(0)  # freed memory that the heap keeps would hide new use
    clear.write_text("5", encoding="ascii")  # the high-water mark starts again from here
    before = _memory("VmRSS")
    call()
    return _memory("VmHWM") - before


def _memory(key: str) -> float:
    """A line of this process's memory status, in GiB."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 2**20
    raise RuntimeError(f"no {key} in /proc/self/status")


def timed(call: Callable, repeats: int = 3) -> float:
    """Median seconds of `repeats` calls."""
    return in_turns(call, repeats=repeats)[0]


def in_turns(*calls: Callable, repeats: int = 3) -> list[float]:
    """Median seconds of each call. They take turns, so a slow phase of the machine hits all."""
    seconds = [[] for _ in calls]
    for _ in range(repeats):
        for call, own in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            call()
            own.append(time.perf_counter() - start)
    return [statistics.median(own) for own in seconds]


def by_sorting(distances: np.ndarray, ids: tuple, cameras: tuple) -> float:
    """The plain evaluation that notebook 03 teaches: the mean step-sum AP.

    distances: (Q, G). ids, cameras: of query (Q,) and gallery (G,).
    """
    precisions = []
    for q, row in enumerate(distances):
        order = np.argsort(row, kind="stable")
        same_person = ids[1][order] == ids[0][q]
        same_camera = cameras[1][order] == cameras[0][q]
        junk = ids[1][order] == -1
        match = same_person[~(same_person & same_camera) & ~junk]
        if match.any():
            ranks = np.flatnonzero(match) + 1
            precisions.append((np.arange(1, len(ranks) + 1) / ranks).mean())
    return float(np.mean(precisions))


def rerank_dense(
    query: np.ndarray, gallery: np.ndarray, k1: int = 20, k2: int = 6, lambda_: float = 0.3
) -> np.ndarray:
    """Re-ranking as the published scripts do it, with matrices of all images against all.

    The baseline of rerank(): query (Q, D), gallery (G, D) -> distances (Q, G).
    """
    x = np.concatenate([query, gallery])
    n, n_query = len(x), len(query)
    d = euclidean(x, x)
    np.fill_diagonal(d, 0)
    d /= d.max(axis=1, keepdims=True)
    nearest = np.argsort(d, axis=1, kind="stable")

    def reciprocal(i: int, k: int) -> np.ndarray:
        near = nearest[i, : k + 1]
        return near[(nearest[near, : k + 1] == i).any(axis=1)]

    v = np.zeros_like(d)
    for i in range(n):
        base = reciprocal(i, k1)
        members = base
        for j in base:
            half = reciprocal(j, int(round(k1 / 2)))
            if len(np.intersect1d(half, base)) > 2 / 3 * len(half):
                members = np.append(members, half)
        members = np.unique(members)
        weight = np.exp(-d[i, members])
        v[i, members] = weight / weight.sum()
    v = np.stack([v[nearest[i, :k2]].mean(axis=0) for i in range(n)])
    jaccard = np.empty((n_query, n - n_query), np.float32)
    for i in range(n_query):
        smaller = np.zeros(n, np.float32)
        for j in np.flatnonzero(v[i]):
            holders = np.flatnonzero(v[:, j])
            smaller[holders] += np.minimum(v[i, j], v[holders, j])
        jaccard[i] = (1 - smaller / (2 - smaller))[n_query:]
    return (1 - lambda_) * jaccard + lambda_ * d[:n_query, n_query:]


def sizes() -> tuple[int, int]:
    """How many queries and gallery images the features are made for."""
    return (QUERIES // 10, GALLERY // 10) if QUICK else (QUERIES, GALLERY)


def evaluation() -> dict:
    """Both average precisions and CMC, against np.argsort on the same matrix and the plain loop."""
    query, gallery, ids, cameras = features(*sizes(), 256)
    distances = euclidean(query, gallery)

    def ours():
        return evaluate_ranking(distances, *ids, *cameras)

    memory = added(ours)
    result = ours()
    seconds, sorting = in_turns(ours, lambda: np.argsort(distances, axis=1), repeats=5)
    plain = timed(lambda: by_sorting(distances, ids, cameras), 1)
    _same("mean AP", by_sorting(distances, ids, cameras), result.mean_ap, 1e-9)
    return {
        "mAP of the data": round(result.mean_ap, 3),
        "seconds": seconds,
        "of np.argsort's time": seconds / sorting,
        "plain loop, times ours": plain / seconds,
        "memory added, share of the matrix": memory / (distances.nbytes / GIB),
    }


def _same(what: str, baseline, ours, tolerance: float) -> float:
    """The largest difference from the baseline. Raises RuntimeError if it is too large."""
    difference = float(np.abs(np.asarray(baseline) - ours).max())
    if not difference < tolerance:
        raise RuntimeError(f"{what}: the baseline and ours differ by {difference}")
    return difference


def distances() -> dict:
    """Distances of all queries to the gallery, against the bare product."""
    query, gallery, *_ = features(*sizes(), 2048)
    ours, bare = in_turns(lambda: euclidean(query, gallery), lambda: query @ gallery.T, repeats=5)
    return {"seconds": ours, "of the bare product's time": ours / bare}


def product(query: np.ndarray, gallery: np.ndarray, repeats: int) -> float:
    """Seconds of the bare product of all images with all, block by block.

    query: (Q, D); gallery: (G, D).
    """
    x = torch.from_numpy(np.concatenate([query, gallery]))

    def blocks():
        for i in range(0, len(x), 2048):
            x[i : i + 2048] @ x.T

    return timed(blocks, repeats)


def reranking_() -> dict:
    """Re-ranking from features, against the bare product of all images with all."""
    query, gallery, ids, cameras = features(*sizes(), 2048)
    bare = product(query, gallery, 3)
    memory = added(lambda: rerank(query, gallery))
    distances_before = euclidean(query, gallery)
    distances_after = rerank(query, gallery)
    runs = [_rerank_clocked(query, gallery) for _ in range(3)]
    seconds = statistics.median(whole for whole, _ in runs)
    before = evaluate_ranking(distances_before, *ids, *cameras).mean_ap
    after = evaluate_ranking(distances_after, *ids, *cameras).mean_ap
    return {
        "mAP before and after": [round(before, 3), round(after, 3)],
        "seconds": seconds,
        "of the N x N product's time": seconds / bare,
        "seconds after the nearest lists": statistics.median(rest for _, rest in runs),
        "memory added, GiB": memory,
        "one N x N matrix, GiB": (len(query) + len(gallery)) ** 2 * 4 / GIB,
    }


def _rerank_clocked(query: np.ndarray, gallery: np.ndarray) -> tuple[float, float]:
    """Seconds of one re-ranking, and of what comes after its lists of nearest images."""
    find = reranking._nearest
    found_at = []

    def find_and_clock(*arguments):
        lists = find(*arguments)
        found_at.append(time.perf_counter())
        return lists

    # rerank() does not report its times. So the function that finds the lists is replaced for one
    # call, and then restored.
    with mock.patch.object(reranking, "_nearest", find_and_clock):
        start = time.perf_counter()
        rerank(query, gallery)
        end = time.perf_counter()
    return end - start, end - found_at[-1]


def dense() -> dict:
    """Re-ranking against the baseline that holds matrices of all images against all."""
    query, gallery, *_ = features(100 if QUICK else 800, 600 if QUICK else 4000, 2048)
    memory = [
        added(lambda: rerank(query, gallery)),
        added(lambda: rerank_dense(query, gallery)),
    ]
    ours = timed(lambda: rerank(query, gallery))
    start = time.perf_counter()
    baseline = rerank_dense(query, gallery)
    plain = time.perf_counter() - start
    difference = _same("re-ranking", baseline, rerank(query, gallery), 1e-5)
    return {
        "N": len(query) + len(gallery),
        "dense baseline, times ours": plain / ours,
        "largest difference": difference,
        "memory added, ours and the baseline's, GiB": memory,
    }


def parts() -> dict:
    """Re-ranking with the vector of six parts of notebook 04."""
    query, gallery, *_ = features(*sizes(), 12288)
    memory = added(lambda: rerank(query, gallery))
    seconds = timed(lambda: rerank(query, gallery), 1)
    bare = product(query, gallery, 1)
    return {
        "dimensions": 12288,
        "seconds": seconds,
        "of the N x N product's time": seconds / bare,
        "memory added, GiB": memory,
        "the features, GiB": (query.nbytes + gallery.nbytes) / GIB,
    }


def large() -> dict:
    """Re-ranking of so many images that a matrix of all against all would not fit in memory."""
    n = 5_000 if QUICK else 100_000
    query, gallery, *_ = features(n // 30, n - n // 30, 128)
    start = time.perf_counter()
    memory = added(lambda: rerank(query, gallery))
    return {
        "N": n,
        "dimensions": 128,
        "seconds": time.perf_counter() - start,
        "memory added, GiB": memory,
        "of it the result": len(query) * len(gallery) * 4 / GIB,
        "one N x N matrix, GiB": n * n * 4 / GIB,
    }


def growth() -> dict:
    """CPU time and memory of re-ranking against the number of images, for 1,000 queries.

    CPU seconds, so that it can run beside other work.
    """
    n_query = 100 if QUICK else 1_000
    found = {"queries": n_query, "dimensions": 128}
    sizes_, seconds = (1_500, 3_000) if QUICK else (12_500, 25_000, 50_000, 100_000, 500_000), []
    for n in sizes_:
        query, gallery, *_ = features(n_query, n - n_query, 128)
        start = time.process_time()
        memory = added(lambda q=query, g=gallery: rerank(q, g))
        seconds.append(time.process_time() - start)
        found[f"{n:,} images: CPU seconds"] = seconds[-1]
        found[f"{n:,} images: memory added, GiB"] = memory
    slope, _ = np.polyfit(np.log(sizes_), np.log(seconds), 1)
    return found | {"time grows like N to the power": float(slope)}


def rendering() -> dict:
    """Drawing images of 128x64 and their part masks into files, on one core."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    seconds, images = [], 0
    for _ in range(1 if QUICK else 3):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            made = render_benchmark("market1501", folder, scale=0.016, progress=False, workers=1)
            seconds.append(time.perf_counter() - start)
            images = sum(1 for _ in Path(made).rglob("*.jpg"))
    return {"images": images, "milliseconds an image": 1000 * min(seconds) / images}


def loading() -> dict:
    """From files of 128x64 to normalised, augmented batches of 384x128, on one core."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    size, batch = (384, 128), 48
    rng = np.random.default_rng(0)
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
        rendered = render_benchmark("market1501", folder, scale=0.016, progress=False)
        paths = load_benchmark("market1501", rendered).gallery.paths[: 5 * batch]
        batches = [paths[k : k + batch] for k in range(0, len(paths), batch)]
        cached = load_images(paths, *size)

        def theirs():
            for some in batches:
                torch.stack([plain(Image.open(path).convert("RGB")) for path in some])

        def decoding():
            for some in batches:
                to_input(augment(load_images(some, *size, threads=1), rng))

        def from_memory():
            for k in range(0, len(cached), batch):
                to_input(augment(cached[k : k + batch].copy(), rng))

        seconds = in_turns(theirs, decoding, from_memory, repeats=5)
    rates = [len(paths) / s for s in seconds]
    return {
        "images/s, PIL and torchvision": rates[0],
        "images/s, ours, decoding": rates[1],
        "images/s, ours, from memory": rates[2],
        "decoding, times PIL and torchvision": rates[1] / rates[0],
        "from memory, times PIL and torchvision": rates[2] / rates[0],
    }


def gflops() -> float:
    """The peak of this processor: GFLOP per second in a large product of matrices."""
    n = 1024 if QUICK else 4096
    a = torch.rand(n, n)
    return 2 * n**3 / timed(lambda: a @ a) / 1e9


def training_step(
    size: tuple, batch: int, backbone: str, layout: torch.memory_format, compiled: bool = False
) -> tuple[ReIDNet, np.ndarray, Callable]:
    """Make one training step of the full model on a batch of random images.

    Returns the model, the images (batch, H, W, 3), and a function that does one step and returns
    the seconds for which the step waited for its batch.
    """
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch, *size, 3), dtype=np.uint8)
    target = torch.arange(batch)
    torch.manual_seed(0)
    model = ReIDNet(751, "b_p_ds_sa2", "l1", backbone=backbone).to(memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, nesterov=True)
    forward = torch.compile(model) if compiled else model

    def do_step() -> float:
        start = time.perf_counter()
        x = to_input(augment(images.copy(), rng)).contiguous(memory_format=layout)
        waited = time.perf_counter() - start
        optimizer.zero_grad(set_to_none=True)
        reid_loss(forward(x), target).backward()
        optimizer.step()
        return waited

    return model, images, do_step


def step() -> dict:
    """A training step of the full model, ResNet-50 at 384x128, against the processor's peak.

    The peak is measured just before and just after.
    """
    size, batch, backbone = (384, 128), 16, "resnet50"
    if QUICK:
        size, batch, backbone = (96, 32), 8, "thin"
    arguments = (size, batch, backbone)
    peaks = [gflops()]
    model, images, ours = training_step(*arguments, torch.channels_last)
    with FlopCounterMode(display=False) as counter:
        ours()
    gflop = counter.get_total_flops() / 1e9  # forward and backward, of one step
    _, _, first_step = training_step(*arguments, torch.channels_last)
    memory = added(first_step)
    with torch.no_grad():
        maps = model.feature_maps(to_input(images))[:3]
    leaves = [f.detach().requires_grad_() for f in maps]

    def attend(pool=attended_pool):
        for leaf in leaves:
            torch.autograd.grad(pool(leaf, "l1").sum(), leaf)

    _, _, contiguous = training_step(*arguments, torch.contiguous_format)
    attend()
    contiguous()
    waited = []
    calls = [lambda: waited.append(ours()), attend, contiguous]
    found = {
        "GFLOP an image": gflop / batch,
        "memory added by the first step, GiB": memory,
    }
    if not QUICK:  # minutes of compiling
        try:
            pool = torch.compile(attended_pool, dynamic=False)
            _, _, compiled_step = training_step(*arguments, torch.channels_last, compiled=True)
            warm_up = timed(compiled_step, 1)
            attend(pool)
            calls += [lambda: attend(pool), compiled_step]
        except Exception as error:  # no C++ compiler
            found["compiled"] = f"not here ({type(error).__name__})"
    seconds, attending, plain, *compiled = in_turns(*calls)
    peaks.append(gflops())
    found |= {
        "images/s": batch / seconds,
        "share of the peak": gflop / seconds / statistics.mean(peaks),
        "the peak, GFLOP/s, before and after": peaks,
        "waiting for data": statistics.median(waited) / seconds,
        "attention at stages 1 to 3, of the step": attending / seconds,
        "time without channels_last, times ours": plain / seconds,
    }
    if compiled:
        attending_compiled, step_compiled = compiled
        found |= {
            "attention compiled, of the step": attending_compiled / seconds,
            "compiled: warm-up, steps": warm_up / seconds,
            "compiled: time, times eager": step_compiled / seconds,
        }
    return found


def bookkeeping() -> dict:
    """The cost of what a training records about itself, on one core, in units of a step.

    In every step it computes the norms of the gradients and the ten losses again. Once per epoch it
    computes what each form of attention does to the maps.
    """
    torch.set_num_threads(1)
    size, batch, backbone = (384, 128), 16, "resnet50"
    if QUICK:
        size, batch, backbone = (96, 32), 8, "thin"
    model, images, do_step = training_step(size, batch, backbone, torch.channels_last)
    target = torch.arange(batch)
    do_step()  # after this the weights have gradients
    with torch.no_grad():
        logits, maps = model(to_input(images), with_maps=True)
        loss = reid_loss(logits, target)
    calls = [
        do_step,
        lambda: EpochSums(model).add(logits, target, loss),
        lambda: look_inside(model, maps, target),
    ]
    whole, sums, look = in_turns(*calls)
    return {
        "norms and losses, of a step": sums / whole,
        "a look inside, steps": look / whole,
        "both, of an epoch of Market-1501": (sums + look / (12936 // 48)) / whole,
    }


def attention() -> dict:
    """Pooling a map with its own attention, forward and backward, against one copy of the map.

    A copy is one read and one write.
    """
    found = {}
    for stage, shape in (("stage 1", (48, 256, 96, 32)), ("stage 4", (48, 2048, 24, 8))):
        if QUICK:
            shape = tuple(n // 4 for n in shape)
        f = torch.rand(shape).contiguous(memory_format=torch.channels_last).requires_grad_()
        for name, value in _pooling_against_a_copy(f).items():
            found[f"{stage}, {name}"] = value
    return found


def multiply_then_pool(f: Tensor) -> Tensor:
    """The layer as written: F = p f (eq. 1), then its average. (B, C, H, W) -> (B, C)"""
    return (f * attention_weights(f, "softmax")[:, None]).mean(dim=(2, 3))


def _pooling_against_a_copy(f: Tensor) -> dict:
    """Time and memory of each way to pool one map, in copies of the map."""
    found = {}
    gradient = torch.rand(f.shape[:2])
    copy = torch.empty_like(f)

    def copied():
        with torch.no_grad():
            copy.copy_(f)

    def forward_and_backward(pool):
        # Not .backward(): it would copy the gradient into f.grad, which no map in a network has.
        return lambda: torch.autograd.grad(pool(f), f, gradient)

    ways = {
        "multiply, then pool": multiply_then_pool,
        "eager": attended_pool,
        "compiled": torch.compile(attended_pool, dynamic=False),
    }
    calls = {}
    for name, pool in ways.items():
        call = forward_and_backward(pool)
        try:
            call()
        except Exception as error:  # no C++ compiler
            found[name] = f"not here ({type(error).__name__})"
        else:
            calls[name] = call
    copied()
    one_copy, *seconds = in_turns(copied, *calls.values(), repeats=9)
    for (name, call), own in zip(calls.items(), seconds, strict=True):
        found[f"{name}: time, copies of the map"] = own / one_copy
        found[f"{name}: memory added, maps"] = added(call) / (f.numel() * 4 / GIB)
    return found


GROUPS = {
    "loading": loading,
    "rendering": rendering,
    "step": step,
    "bookkeeping": bookkeeping,
    "attention": attention,
    "evaluation": evaluation,
    "distances": distances,
    "reranking": reranking_,
    "dense": dense,
    "parts": parts,
    "large": large,
    "growth": growth,
}
ON_REQUEST = {"growth"}  # measured only if it is named


def measure_here(groups: Sequence[str]) -> None:
    """Measure groups in this process; prints them as JSON."""
    keep_freed_memory()
    torch.set_num_threads(cores())
    print(json.dumps({name: GROUPS[name]() for name in groups}))


def _processor() -> str:
    """The processor's name and the widest instructions of it that torch uses."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):  # not Linux
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def measure(groups: Sequence[str] = ()) -> int:
    """Measure each group in a process of its own, print and record it. Returns the exit code."""
    for name in groups:
        known("group", name, GROUPS)
    record = ROOT / "results" / "speed" / "cpu.json"
    machine = {
        "machine": f"{_processor()}, {cores()} cores",
        "numpy": np.__version__,
        "torch": torch.__version__,
    }
    results = dict(machine)
    earlier = json.loads(record.read_bytes()) if record.exists() else {}
    if all(earlier.get(key) == value for key, value in machine.items()):
        results |= earlier  # groups that are not measured again are kept
    for name in groups or [name for name in GROUPS if name not in ON_REQUEST]:
        command = [sys.executable, "-m", "reidsa_utils", "speed", name, "--here"]
        done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8")
        if done.returncode:
            return done.returncode
        results |= json.loads(done.stdout, parse_float=_three_digits)
        print(name)
        for what, value in results[name].items():
            print(f"  {what:48} {value}")
    if not QUICK:
        record.parent.mkdir(exist_ok=True)
        write_atomic(record, (json.dumps(results, indent=1) + "\n").encode())
    return 0


def _three_digits(text: str) -> float:
    return float(f"{float(text):.3g}")
