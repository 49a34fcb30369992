"""One run: benchmark x variant x form x recipe x profile x seed -> a run record.

Killed and started again, it goes on from the last finished epoch and ends with the same numbers, bit for bit on a CPU with
as many threads.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import platform
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import nn

from .. import SETTINGS, InputError, __version__, cores, reranking
from ..config import Config, configure, knobs, run_folder, run_settings
from ..data import Benchmark, hold_out, load_benchmark, load_images
from ..datasets.rendered import RENDERER, Settings, render_benchmark
from ..evaluation import evaluate, extract
from ..model import ReIDNet
from ..support import processes
from ..support.files import ROOT, only_one, read_checkpoint, same_run, write_atomic
from ..support.files import progress as show_progress
from ..support.opencv import cv2
from ..training import train_epoch
from .records import read_record


def open_benchmark(config: Config, progress: bool = True) -> Benchmark:
    """The benchmark of a run; the embedded one is rendered into runs/data on first use. With held_out, its training identities only."""
    benchmark = _open_benchmark(config, progress)
    return hold_out(benchmark, config.held_out) if config.held_out else benchmark


def _open_benchmark(config: Config, progress: bool) -> Benchmark:
    if config.data == "embedded":
        settings = f"{Settings(config.benchmark, config.scale, config.data_seed, **knobs(config))} {RENDERER}"  # new defaults, new folder
        root = (
            ROOT
            / "runs"
            / "data"
            / f"scale{config.scale:g}-seed{config.data_seed}-{hashlib.sha256(settings.encode()).hexdigest()[:6]}"
        )
        with only_one(root.with_suffix(".lock")):
            folder = render_benchmark(
                config.benchmark,
                root,
                config.scale,
                config.data_seed,
                cores(),
                progress,
                **knobs(config),
            )
        return load_benchmark(config.benchmark, folder)
    if config.data == "real" and not os.environ.get("REIDSA_DATA"):
        raise InputError(
            "data=real needs the environment variable REIDSA_DATA: set it to the folder that holds the benchmark, "
            "or use data=embedded"
        )
    folder = Path(os.environ["REIDSA_DATA"] if config.data == "real" else config.data)
    return load_benchmark(
        config.benchmark, folder if folder.is_dir() else ROOT / folder
    )  # a notebook's kernel runs in notebooks/


def train(config: Config, progress: bool = True, deadline: float = math.inf) -> dict:
    """Train and evaluate one run; returns its record (also in run_dir/record.json).

    A finished run is read, a broken one goes on from its last checkpoint, one that another process is at is waited for.
    deadline: of time.time(), by which to stop. What does not fit before it is left to the next call: after the last epoch that
    fits this returns {"epoch": how many are done}. Under torchrun the processes share each batch (see train_epoch).
    Raises InputError for bad input, a checkpoint of another configuration, a full disk, or a loss that is no longer finite.
    """
    with contextlib.ExitStack() as stack:
        processes.from_first(
            lambda: stack.enter_context(only_one(run_folder(config) / "run.lock")) and None
        )
        return _train(config, progress and processes.rank_and_world()[0] == 0, deadline)


def _train(config: Config, progress: bool, deadline: float) -> dict:
    started, run_dir, (rank, world) = time.time(), run_folder(config), processes.rank_and_world()
    record_path, checkpoint_path = run_dir / "record.json", run_dir / "checkpoint.pt"
    torch.set_num_threads(
        config.threads or max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    )
    device = (
        ("cuda" if torch.cuda.is_available() else "cpu")
        if config.device == "auto"
        else config.device
    )
    has_bfloat16 = device == "cuda" and torch.cuda.is_bf16_supported(
        including_emulation=False
    )  # CPUs without: 6 to 16 times slower
    precision = getattr(torch, config.precision or ("bfloat16" if has_bfloat16 else "float32"))
    torch.backends.cudnn.allow_tf32 = precision != torch.float32  # asked for float32, get all of it
    name = (
        torch.cuda.get_device_name()
        if device == "cuda"
        else f"CPU ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"
    )
    made = {
        "device": name,
        "threads": torch.get_num_threads(),
        "processes": world,
        "precision": str(precision).removeprefix("torch."),
    }
    with processes.first_alone():  # it renders what there is to render
        benchmark = open_benchmark(config, progress)
    classes, targets = np.unique(benchmark.train.ids, return_inverse=True)
    if config.batch > len(targets):
        raise InputError(
            f"batch is {config.batch}, and {benchmark.title} at {benchmark.folder} has {len(targets)} training images; "
            "choose a smaller batch"
        )
    if config.batch % world:
        raise InputError(
            f"batch is {config.batch}, and {world} processes share it; choose a batch that {world} divides"
        )
    identity = run_settings(config) | {"fingerprint": benchmark.fingerprint()}
    if record := processes.from_first(
        lambda: read_record(record_path) if record_path.exists() else None
    ):
        same_run(record["identity"], identity, record_path)
        if record["config"]["rerank"] or not config.rerank or reranking.sparse is None:
            return record  # else only the evaluation is repeated
        if not checkpoint_path.exists():
            raise InputError(
                f"{record_path} lacks re-ranked numbers, and checkpoint.pt is not beside it: copy it, or use rerank=false"
            )

    torch.manual_seed(config.seed)
    model = ReIDNet(
        len(classes),
        config.variant,
        config.form,
        config.recipe,
        config.backbone,
        config.dropout,
        config.weights,
    )
    model.to(device, memory_format=torch.channels_last)
    if world > 1 and device == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(
            model
        )  # statistics of the whole batch; there is none for CPUs
    optimizer = torch.optim.SGD(
        model.parameter_groups(1.0),
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=model.recipe.nesterov and config.momentum > 0,
        fused=device == "cuda" or None,
    )
    for group in optimizer.param_groups:
        group["factor"] = group["lr"]  # 0.1 for layers with loaded weights
    first, history, timing = 0, [], []
    if state := processes.from_first(
        lambda: read_checkpoint(checkpoint_path) if checkpoint_path.exists() else None
    ):
        same_run(state["identity"], identity, checkpoint_path)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first, history, timing = state["epoch"], state["history"], state.get("timing", [])
        made = (
            state.get("made", made) if first == config.epochs else made
        )  # evaluating elsewhere is not training there
    step = (
        nn.parallel.DistributedDataParallel(
            model, device_ids=[torch.cuda.current_device()] if device == "cuda" else None
        )
        if world > 1
        else model
    )
    step = (
        torch.compiler.reset() or torch.compile(step) if config.compile else step
    )  # forgets what an earlier run compiled
    per_epoch = len(targets) // config.batch * config.batch
    totals = {
        "training": config.epochs * per_epoch,
        "evaluating": len(benchmark.query) + len(benchmark.gallery),
    }

    def no_time_for(share):  # of an epoch on this device
        here = [1.1 * share * t["seconds"] for t in timing if t["on"] == [name, world]]
        return processes.from_first(lambda: time.time() + (here[-1] if here else 0) > deadline)

    progress_path = run_dir / "progress.json" if not rank else None
    with show_progress(progress_path, "training", totals, first * per_epoch, progress) as update:
        images = (
            load_images(benchmark.train.paths, config.height, config.width)
            if first < config.epochs
            else None
        )
        if (
            images is not None
            and device == "cuda"
            and images.nbytes < torch.cuda.get_device_properties(0).total_memory / 8
        ):
            images = torch.from_numpy(images).to(
                device
            )  # all of it lives there: nothing to wait for
        for epoch in range(first, config.epochs):
            if no_time_for(1):
                return {"epoch": epoch}
            line, clock = train_epoch(
                config,
                epoch,
                model,
                step,
                optimizer,
                images,
                torch.from_numpy(targets),
                precision,
                update,
                device,
            )
            history.append(line)
            timing.append(clock | {"on": [name, world]})
            buffer = io.BytesIO()
            torch.save(
                {
                    "identity": identity,
                    "epoch": epoch + 1,
                    "history": history,
                    "timing": timing,
                    "made": made,
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                },
                buffer,
            )
            processes.from_first(
                lambda buffer=buffer: write_atomic(checkpoint_path, buffer.getvalue())
            )
    if no_time_for(
        totals["evaluating"] / per_epoch / 3
    ):  # a third of a training step: no backward pass
        return {"epoch": config.epochs}

    def finish():  # by the first process alone
        with show_progress(progress_path, "evaluating", totals, 0, progress) as update:
            features = [
                extract(
                    model,
                    load_images(split.paths, config.height, config.width),
                    device=device,
                    tick=update,
                )
                for split in (benchmark.query, benchmark.gallery)
            ]
        if (with_rerank := config.rerank) and reranking.sparse is None:
            print(
                f"no scipy here: re-ranked numbers of {run_dir.name} are left to a machine that has it (call it there again)"
            )
            with_rerank = False
        metrics = evaluate(*features, benchmark, with_rerank)
        record = {
            "config": run_settings(config) | {"rerank": with_rerank},
            "identity": identity,
            "source": benchmark.source,
            "title": benchmark.title,
            "counts": benchmark.counts,
            "classes": len(classes),
            "parameters": sum(p.numel() for p in model.parameters()),
            "history": history,
            "timing": timing,
            "metrics": metrics,
            "query_ids": benchmark.query.ids.tolist(),
            "code": CODE,
            "loaded": model.loaded,
            **made,
            "seconds": {
                "training": round(
                    config.epochs * sum(t["seconds"] for t in timing) / max(1, len(timing)), 1
                ),
                "this_call": round(time.time() - started, 1),
            },
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "torchvision": torchvision.__version__,
                "numpy": np.__version__,
                "opencv": cv2.__version__,
            },
        }
        write_atomic(record_path, (json.dumps(record, indent=1) + "\n").encode())
        return record

    return processes.from_first(finish)


def load_weights(name: str, folder=ROOT / "results") -> tuple:
    """A network whose weights were published: (model in eval mode, run record). Half precision there, float32 here.

    name: of the record in `folder`, without .json. Raises InputError where there are none, or not these.
    """
    from safetensors.torch import load_file  # here: a machine that only trains need not have it

    path, record = Path(folder) / "weights" / f"{name}.safetensors", Path(folder) / f"{name}.json"
    if not path.exists() or not record.exists():
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.safetensors"))) or "none"
        raise InputError(
            f"no stored weights {name}; there: {there}; train that run and publish it with --weights"
        )
    record = read_record(record)
    c = record["config"]
    model = ReIDNet(record["classes"], c["variant"], c["form"], c["recipe"], c["backbone"])
    try:
        model.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
        )
    except Exception as error:  # a broken file, or the weights of another network
        raise InputError(
            f"{path} does not hold the weights of its record ({type(error).__name__}); publish it again"
        ) from error
    return model.eval(), record


def load_run(run_dir, data: str = "embedded") -> tuple:
    """A trained run for looking at: (model in eval mode, Config, Benchmark). data: as in Config.

    Raises InputError for a run without checkpoint, or data that is not what the run was trained on.
    """
    if not (path := ROOT / run_dir / "checkpoint.pt").exists():
        raise InputError(
            f"no checkpoint in {run_dir}; train that run first (make reproduce, or reidsa train)"
        )
    state = read_checkpoint(path)
    settings = {k: v for k, v in state["identity"].items() if k not in ("fingerprint", "weights")}
    config = configure(
        settings | {"data": data, "run_dir": str(run_dir), "weights": "none"}
    )  # the checkpoint holds all weights
    benchmark = open_benchmark(config)
    if state["identity"]["fingerprint"] != benchmark.fingerprint():
        raise InputError(
            f"{path} was not trained on the data at {benchmark.folder}; name its own data"
        )
    model = ReIDNet(
        len(set(benchmark.train.ids.tolist())),
        config.variant,
        config.form,
        config.recipe,
        config.backbone,
    )
    model.load_state_dict(state["model"])
    return model.eval(), config, benchmark


def code_version() -> dict:
    """The commit, whether the helper module differs from it (None, False without git), and a hash of the module's sources."""

    def git(*arguments):
        try:
            done = subprocess.run(
                ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True
            )
            return done.stdout.strip() if done.returncode == 0 else None
        except OSError:
            return None

    files = [*sorted(ROOT.glob("reidsa_utils/**/*.py")), SETTINGS / "recipes.toml"]
    sources = b"".join(path.read_bytes() for path in files)
    return {
        "version": __version__,
        "commit": git("rev-parse", "HEAD"),
        "sources": hashlib.sha256(sources).hexdigest()[:16],
        "changed": bool(git("status", "--porcelain", "--", "reidsa_utils")),
    }


CODE = code_version()  # of what is running, whatever happens to the files meanwhile
