"""One run: benchmark x variant x form x recipe x profile x seed -> a run record.

    python -m reidsa_utils.training --set profile=smoke --set variant=b_p_ds_sa2 --set form=l1
    python -m reidsa_utils.training --queue FILE --minutes 60       many runs, a line each; stops in time, goes on at the next call
    torchrun --nproc-per-node 2 -m reidsa_utils.training --set ...  one run on several GPUs or nodes

Killed and started again, it goes on from the last finished epoch and ends with the same numbers, bit for bit on a CPU with
as many threads: what is random in an epoch comes from generators seeded by (seed, epoch), so none has to be stored.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import platform
import time
from pathlib import Path

import cv2
import numpy as np
import torch
import torchvision
from torch import nn

import launch
from launch import only_one, read_checkpoint, same_run, write_atomic

from . import InputError, cores, reranking
from .attention import FORMS, attention_weights, effective_cells
from .benchmarks import Benchmark, hold_out, load_benchmark, load_images
from .config import ROOT, Config, configure, knobs, run_folder, run_settings
from .metrics import euclidean, evaluate_ranking
from .model import ReIDNet, reid_loss
from .results import read_record
from .synthetic import RENDERER, Settings, render_benchmark

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet, RGB
TABLE = (torch.arange(256).float()[:, None] / 255 - torch.tensor(MEAN).float()) / torch.tensor(STD).float()  # (256, 3): what x becomes


def open_benchmark(config: Config, progress: bool = True) -> Benchmark:
    """The benchmark of a run; the embedded one is rendered into runs/data on first use. With held_out, its training identities only."""
    benchmark = _open_benchmark(config, progress)
    return hold_out(benchmark, config.held_out) if config.held_out else benchmark


def _open_benchmark(config: Config, progress: bool) -> Benchmark:
    if config.data == "embedded":
        settings = f"{Settings(config.benchmark, config.scale, config.data_seed, **knobs(config))} {RENDERER}"  # new defaults, new folder
        root = ROOT / "runs" / "data" / f"scale{config.scale:g}-seed{config.data_seed}-{hashlib.sha256(settings.encode()).hexdigest()[:6]}"
        with only_one(root.with_suffix(".lock")):
            folder = render_benchmark(config.benchmark, root, config.scale, config.data_seed, cores(), progress, **knobs(config))
        return load_benchmark(config.benchmark, folder)
    if config.data == "real" and not os.environ.get("REIDSA_DATA"):
        raise InputError("data=real needs the environment variable REIDSA_DATA: set it to the folder that holds the benchmark, "
                         "or use data=embedded")
    folder = Path(os.environ["REIDSA_DATA"] if config.data == "real" else config.data)
    return load_benchmark(config.benchmark, folder if folder.is_dir() else ROOT / folder)  # a notebook's kernel runs in notebooks/


def erasing_boxes(rng: np.random.Generator, B: int, H: int, W: int, area: tuple = (0.02, 0.4)):
    """Random erasing (reference [39], p = 0.5, share of the image within `area`): (image, top, left, height, width) of each box."""
    for k in range(B):
        if rng.random() >= 0.5:
            continue
        for _ in range(100):
            size, aspect = rng.uniform(*area) * H * W, math.exp(rng.uniform(math.log(0.3), -math.log(0.3)))  # height by width
            h, w = round(math.sqrt(size * aspect)), round(math.sqrt(size / aspect))
            if 0 < h < H and 0 < w < W:
                yield k, rng.integers(H - h + 1), rng.integers(W - w + 1), h, w
                break


def augment(images, rng: np.random.Generator, flip: bool = True, erasing: bool = True, erase_area: tuple = (0.02, 0.4)):
    """Random flip and random erasing (p = 0.5 each) on a batch (B, H, W, 3) uint8, every image with its own luck.

    An array is changed in place. A tensor, on a GPU, is not: all its images at once, the noise drawn there.
    """
    B, H, W, _ = images.shape
    chosen = rng.random(B) < 0.5 if flip else np.zeros(B, bool)
    if isinstance(images, np.ndarray):
        for k in np.flatnonzero(chosen):
            images[k] = cv2.flip(images[k], 1)
        for k, y, x, h, w in erasing_boxes(rng, B, H, W, erase_area) if erasing else ():
            images[k, y:y + h, x:x + w] = rng.integers(0, 256, (h, w, 3), np.uint8)
        return images
    images = torch.where(torch.from_numpy(chosen).to(images.device)[:, None, None, None], images.flip(2), images)
    if erasing and (boxes := list(erasing_boxes(rng, B, H, W, erase_area))):
        k, y, x, h, w = torch.tensor(boxes, device=images.device).T[..., None]
        rows, columns = torch.arange(H, device=images.device), torch.arange(W, device=images.device)
        inside = ((rows >= y) & (rows < y + h))[:, :, None] & ((columns >= x) & (columns < x + w))[:, None]      # (boxes, H, W)
        noise = torch.randint(0, 256, (len(boxes), H, W, 3), dtype=torch.uint8, device=images.device)
        images[k[:, 0]] = torch.where(inside[..., None], noise, images[k[:, 0]])
    return images


def to_input(images, device="cpu") -> torch.Tensor:
    """(B, H, W, 3) uint8 RGB -> (B, 3, H, W) float32, normalised with ImageNet's mean and deviation, channels last."""
    if isinstance(images, np.ndarray):
        x = np.empty(images.shape, np.float32)
        for image, out in zip(images, x, strict=True):
            cv2.LUT(image, TABLE.numpy()[None], out)  # one pass
        return torch.from_numpy(x).permute(0, 3, 1, 2).to(device)
    mean, std = (torch.tensor(v, device=device).float() for v in (MEAN, STD))
    return ((images.to(device).float() / 255 - mean) / std).permute(0, 3, 1, 2)


def learning_rate(config: Config, epoch: int, step: int) -> float:
    """lr of the new layers: `step` counts from the start of the run, `epoch` from 0."""
    lr = config.lr * (0.1 if epoch >= round(config.decay_at * config.epochs) else 1.0)
    return lr * min(1.0, 0.01 + 0.99 * step / config.warmup) if config.warmup else lr


def extract(model: ReIDNet, images: np.ndarray, batch: int = 64, device="cpu", tick=None) -> dict:
    """Retrieval vectors of all images: {kind: (N, D) float32}. Puts the model into eval mode."""
    model.eval()
    out = {}
    with torch.inference_mode():
        for i in range(0, len(images), batch):
            for kind, vectors in model.embed_all(to_input(images[i:i + batch], device)).items():
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
            r = evaluate_ranking(matrix(), benchmark.query.ids, benchmark.gallery.ids, benchmark.query.cameras, benchmark.gallery.cameras)
            ap = [None if np.isnan(v) else round(float(v), 5) for v in r.average_precision]
            results[name] = {"rank1": float(r.cmc[0]), "rank5": float(r.cmc[4]), "rank10": float(r.cmc[9]), "mean_ap": r.mean_ap,
                             "mean_ap_trapezoid": r.mean_ap_trapezoid, "skipped": r.skipped, "average_precision": ap,
                             "first_match": r.first_match.tolist()}
    return results


def train(config: Config, progress: bool = True, deadline: float = math.inf) -> dict:
    """Train and evaluate one run; returns its record (also in run_dir/record.json).

    A finished run is read, a broken one goes on from its last checkpoint, one that another process is at is waited for.
    deadline: of time.time(), by which to stop. What does not fit before it is left to the next call: after the last epoch that
    fits this returns {"epoch": how many are done}. Under torchrun the processes share each batch (see _train_epoch).
    Raises InputError for bad input, a checkpoint of another configuration, a full disk, or a loss that is no longer finite.
    """
    with contextlib.ExitStack() as stack:
        launch.from_first(lambda: stack.enter_context(only_one(run_folder(config) / "run.lock")) and None)
        return _train(config, progress and launch.rank_and_world()[0] == 0, deadline)


def _train(config: Config, progress: bool, deadline: float) -> dict:
    started, run_dir, (rank, world) = time.time(), run_folder(config), launch.rank_and_world()
    record_path, checkpoint_path = run_dir / "record.json", run_dir / "checkpoint.pt"
    torch.set_num_threads(config.threads or max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
    device = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    has_bfloat16 = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)  # CPUs without: 6 to 16 times slower
    precision = getattr(torch, config.precision or ("bfloat16" if has_bfloat16 else "float32"))
    torch.backends.cudnn.allow_tf32 = precision != torch.float32  # asked for float32, get all of it
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"
    made = {"device": name, "threads": torch.get_num_threads(), "processes": world, "precision": str(precision).removeprefix("torch.")}
    with launch.first_alone():  # it renders what there is to render
        benchmark = open_benchmark(config, progress)
    classes, targets = np.unique(benchmark.train.ids, return_inverse=True)
    if config.batch > len(targets):
        raise InputError(f"batch is {config.batch}, and {benchmark.title} at {benchmark.folder} has {len(targets)} training images; "
                         "choose a smaller batch")
    if config.batch % world:
        raise InputError(f"batch is {config.batch}, and {world} processes share it; choose a batch that {world} divides")
    identity = run_settings(config) | {"fingerprint": benchmark.fingerprint()}
    if record := launch.from_first(lambda: read_record(record_path) if record_path.exists() else None):
        same_run(record["identity"], identity, record_path)
        if record["config"]["rerank"] or not config.rerank or reranking.sparse is None:
            return record  # else only the evaluation is repeated
        if not checkpoint_path.exists():
            raise InputError(f"{record_path} lacks re-ranked numbers, and checkpoint.pt is not beside it: copy it, or use rerank=false")

    torch.manual_seed(config.seed)
    model = ReIDNet(len(classes), config.variant, config.form, config.recipe, config.backbone, config.dropout, config.weights)
    model.to(device, memory_format=torch.channels_last)
    if world > 1 and device == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # statistics of the whole batch; there is none for CPUs
    optimizer = torch.optim.SGD(model.parameter_groups(1.0), momentum=config.momentum, weight_decay=config.weight_decay,
                                nesterov=model.recipe.nesterov and config.momentum > 0, fused=device == "cuda" or None)
    for group in optimizer.param_groups:
        group["factor"] = group["lr"]  # 0.1 for layers with loaded weights
    first, history, timing = 0, [], []
    if state := launch.from_first(lambda: read_checkpoint(checkpoint_path) if checkpoint_path.exists() else None):
        same_run(state["identity"], identity, checkpoint_path)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first, history, timing = state["epoch"], state["history"], state.get("timing", [])
        made = state.get("made", made) if first == config.epochs else made  # evaluating elsewhere is not training there
    step = nn.parallel.DistributedDataParallel(model, device_ids=[torch.cuda.current_device()] if device == "cuda" else None) \
        if world > 1 else model
    step = torch.compiler.reset() or torch.compile(step) if config.compile else step  # forgets what an earlier run compiled
    per_epoch = len(targets) // config.batch * config.batch
    totals = {"training": config.epochs * per_epoch, "evaluating": len(benchmark.query) + len(benchmark.gallery)}

    def no_time_for(share):  # of an epoch on this device
        here = [1.1 * share * t["seconds"] for t in timing if t["on"] == [name, world]]
        return launch.from_first(lambda: time.time() + (here[-1] if here else 0) > deadline)

    progress_path = run_dir / "progress.json" if not rank else None
    with launch.progress(progress_path, "training", totals, first * per_epoch, progress) as update:
        images = load_images(benchmark.train.paths, config.height, config.width) if first < config.epochs else None
        if images is not None and device == "cuda" and images.nbytes < torch.cuda.get_device_properties(0).total_memory / 8:
            images = torch.from_numpy(images).to(device)  # all of it lives there: nothing to wait for
        for epoch in range(first, config.epochs):
            if no_time_for(1):
                return {"epoch": epoch}
            line, clock = _train_epoch(config, epoch, model, step, optimizer, images, torch.from_numpy(targets), precision, update, device)
            history.append(line)
            timing.append(clock | {"on": [name, world]})
            buffer = io.BytesIO()
            torch.save({"identity": identity, "epoch": epoch + 1, "history": history, "timing": timing, "made": made,
                        "model": model.state_dict(), "optimizer": optimizer.state_dict()}, buffer)
            launch.from_first(lambda buffer=buffer: write_atomic(checkpoint_path, buffer.getvalue()))
    if no_time_for(totals["evaluating"] / per_epoch / 3):  # a third of a training step: no backward pass
        return {"epoch": config.epochs}

    def finish():  # by the first process alone
        with launch.progress(progress_path, "evaluating", totals, 0, progress) as update:
            features = [extract(model, load_images(split.paths, config.height, config.width), device=device, tick=update)
                        for split in (benchmark.query, benchmark.gallery)]
        if (with_rerank := config.rerank) and reranking.sparse is None:
            print(f"no scipy here: re-ranked numbers of {run_dir.name} are left to a machine that has it (call it there again)")
            with_rerank = False
        metrics = evaluate(*features, benchmark, with_rerank)
        record = {
            "config": run_settings(config) | {"rerank": with_rerank}, "identity": identity,
            "source": benchmark.source, "title": benchmark.title, "counts": benchmark.counts, "classes": len(classes),
            "parameters": sum(p.numel() for p in model.parameters()), "history": history, "timing": timing, "metrics": metrics,
            "query_ids": benchmark.query.ids.tolist(), "code": CODE, "loaded": model.loaded, **made,
            "seconds": {"training": round(config.epochs * sum(t["seconds"] for t in timing) / max(1, len(timing)), 1),
                        "this_call": round(time.time() - started, 1)},
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__,
                         "numpy": np.__version__, "opencv": cv2.__version__}}
        write_atomic(record_path, (json.dumps(record, indent=1) + "\n").encode())
        return record

    return launch.from_first(finish)


def _train_epoch(config: Config, epoch: int, model, step_model, optimizer, images, targets, precision, update, device) -> tuple:
    """One epoch: its line of the history, and its times. All that is random here comes from (seed, epoch).

    step_model: the model as it is called, compiled or shared out. images: (N, H, W, 3) uint8, an array, or a tensor on the GPU.
    Of several processes each draws the whole batch and takes every world-th image of it: the data and their order are those of
    one process, the loss is the mean over the processes. Batch norm sees a process's own share (on GPUs: the whole batch).
    """
    rng, (rank, world) = np.random.default_rng([config.seed, 7, epoch]), launch.rank_and_world()  # order, flips, erasing
    torch.manual_seed(config.seed * 1_000_003 + epoch + rank * 500_009)  # dropout
    order, total, correct, losses, norms = rng.permutation(len(targets)), 0.0, 0, [], []
    lam = model.recipe.lam * (1 - epoch / config.epochs if model.recipe.lam_decays else 1)
    steps = len(targets) // config.batch                    # the last, smaller batch is dropped, as in the released code
    started, waited = time.perf_counter(), 0.0
    model.train()
    for step in range(steps):
        lr = learning_rate(config, epoch, epoch * steps + step)
        for group in optimizer.param_groups:
            group["lr"] = lr * group["factor"]
        clock = time.perf_counter()
        chosen = order[step * config.batch:(step + 1) * config.batch]
        batch = augment(images[chosen], rng, config.flip, config.erasing, model.recipe.erase_area)
        x, target = to_input(batch[rank::world], device), targets[chosen[rank::world]].to(device)
        waited += time.perf_counter() - clock
        with torch.autocast(device, precision, enabled=precision != torch.float32):
            logits, maps = step_model(x, with_maps=True, target=target)
            loss = reid_loss(logits, target, config.recipe, lam)
        if device == "cpu" or step % 20 == 0 or step == steps - 1:  # a GPU is not waited for in every step
            value = float(launch.mean_over_processes([loss.item()], device)[0])  # not finite in one of them: in all
        if not math.isfinite(value):
            kept = f"; the checkpoint of epoch {epoch} is kept" if epoch else ""
            raise InputError(f"the loss became {value} in epoch {epoch + 1}, step {step + 1} of {steps}, at learning rate {lr:g}; "
                             f"lower lr or lengthen warmup{kept}")
        if step == 0:
            inside = look_inside(model, maps, target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        norms.append(torch.stack([nn.utils.get_total_norm([p.grad for p in stage.parameters()])
                                  for stage in model.stage_modules()[1:]]))  # stays on the device: no waiting for it in every step
        losses.append(torch.stack([nn.functional.cross_entropy(v.detach().float(), target) for v in logits.values()]))
        total = total + loss.detach().double()
        correct = correct + (logits["final"].argmax(1) == target).sum()
        update(config.batch, epoch=epoch + 1, loss=value)
    losses, norms = (torch.stack(v).double().cpu().numpy() for v in (losses, norms))
    total, correct, *each = launch.mean_over_processes([float(total), float(correct), *losses.mean(0)], device).tolist()
    each = {name: float(f"{value:.5g}") for name, value in zip(logits, each, strict=True)}
    seconds = time.perf_counter() - started
    speed = steps * config.batch / seconds
    timing = {"seconds": round(seconds, 3), "images_per_second": round(speed, 2), "waiting": round(waited / seconds, 5)}
    timing |= launch.peak_memory(device)
    return {"epoch": epoch + 1, "loss": total / steps, "accuracy": correct * world / (steps * config.batch), "lr": lr, "losses": each,
            "gradient": {"mean": norms.mean(0).round(6).tolist(), "sd": norms.std(0).round(6).tolist()}, "first_step": inside}, timing


def look_inside(model: ReIDNet, maps: list, target: torch.Tensor) -> dict:
    """What every form of attention does at the maps of one batch, whatever form the model is trained with (notebook 02).

    maps: stages 1-4, (B, C, H, W); target: (B,). Returns {form: {"largest": 4 numbers, "cells": 4, "through": 3}}, means over
    the images: largest weight p; share of effective cells; norm of d l_s / d f_s for one image's loss. Changes nothing.
    """
    out = {}
    for form in FORMS:
        weights = [attention_weights(f.detach().float(), form) for f in maps]
        through = []
        for head, f in zip(model.stages, maps[:3], strict=False):
            leaf = f.detach().float().requires_grad_()
            loss = nn.functional.cross_entropy(head(model.pool_stage(leaf, form)), target, reduction="sum")
            through.append(torch.autograd.grad(loss, leaf)[0].flatten(1).norm(dim=1).mean().item())
        out[form] = {"largest": [p.amax((1, 2)).mean().item() for p in weights], "through": through,
                     "cells": [(effective_cells(p) / p[0].numel()).mean().item() for p in weights]}
    return {form: {k: [float(f"{x:.5g}") for x in v] for k, v in numbers.items()} for form, numbers in out.items()}


def load_weights(name: str, folder=ROOT / "results") -> tuple:
    """A network whose weights were published: (model in eval mode, run record). Half precision there, float32 here.

    name: of the record in `folder`, without .json. Raises InputError where there are none, or not these.
    """
    from safetensors.torch import load_file  # here: a machine that only trains need not have it

    path, record = Path(folder) / "weights" / f"{name}.safetensors", Path(folder) / f"{name}.json"
    if not path.exists() or not record.exists():
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.safetensors"))) or "none"
        raise InputError(f"no stored weights {name}; there: {there}; train that run and publish it with --weights")
    record = read_record(record)
    c = record["config"]
    model = ReIDNet(record["classes"], c["variant"], c["form"], c["recipe"], c["backbone"])
    try:
        model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()})
    except Exception as error:  # a broken file, or the weights of another network
        raise InputError(f"{path} does not hold the weights of its record ({type(error).__name__}); publish it again") from error
    return model.eval(), record


def load_run(run_dir, data: str = "embedded") -> tuple:
    """A trained run for looking at: (model in eval mode, Config, Benchmark). data: as in Config.

    Raises InputError for a run without checkpoint, or data that is not what the run was trained on.
    """
    if not (path := ROOT / run_dir / "checkpoint.pt").exists():
        raise InputError(f"no checkpoint in {run_dir}; train that run first (make reproduce, or python -m reidsa_utils.training)")
    state = read_checkpoint(path)
    settings = {k: v for k, v in state["identity"].items() if k not in ("fingerprint", "weights")}
    config = configure(settings | {"data": data, "run_dir": str(run_dir), "weights": "none"})  # the checkpoint holds all weights
    benchmark = open_benchmark(config)
    if state["identity"]["fingerprint"] != benchmark.fingerprint():
        raise InputError(f"{path} was not trained on the data at {benchmark.folder}; name its own data")
    model = ReIDNet(len(set(benchmark.train.ids.tolist())), config.variant, config.form, config.recipe, config.backbone)
    model.load_state_dict(state["model"])
    return model.eval(), config, benchmark


CODE = launch.code_version()  # of what is running, whatever happens to the files meanwhile


if __name__ == "__main__":
    launch.with_malloc()
    raise SystemExit(launch.main())
