"""One run: benchmark x variant x form x recipe x profile x seed -> a run record.

If a run is killed and started again, it continues after its last finished epoch. It ends with the
same numbers, bit for bit on a CPU with the same number of threads. The loop over epochs is
Run.train_epochs.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from cyclopts import Parameter
from torch import nn
from tqdm import tqdm

from .. import SETTINGS, InputError, __version__, cores, reranking
from ..config import Config, configure, knobs, run_folder, run_settings
from ..data import (
    LAYOUTS,
    Benchmark,
    hold_out,
    load_benchmark,
    load_images,
    without_camera_rule,
)
from ..datasets.own import load_own
from ..datasets.rendered import RENDERER, Settings, planned_benchmark, render_benchmark
from ..evaluation import evaluate, evaluate_reranked, extract
from ..model import ReIDNet
from ..support import processes
from ..support.files import (
    IN_CLONE,
    ROOT,
    check_room,
    only_one,
    read_checkpoint,
    same_run,
    write_atomic,
)
from ..support.memory import keep_freed_memory
from ..support.opencv import cv2
from ..training import NUMERICS, Trainer, check_mode, train_epoch
from .records import read_record

STOPPED = 75  # exit code of a run that is out of time: "try again later"
NO_RERANKING = (
    "re-ranking is left out: its neighbourhood is k1 = "
    f"{reranking.K1} images, and the gallery has {{}}; the plain numbers are recorded"
)


def train(config: Config, progress: bool = True, deadline: float = math.inf) -> dict:
    """Train and evaluate one run; returns its record, which is also in run_dir/record.json.

    A finished run is only read. An interrupted run continues from its last checkpoint. If another
    process is training the run, this call waits for it. Under torchrun the processes share each
    batch (see train_epoch).

    deadline: when to stop, as a value of time.time(). After the last epoch that fits, this returns
    {"epoch": how many are done}, and the next call continues. The first epoch is always started,
    since its duration is not known yet.
    Raises InputError for bad input, a checkpoint of another configuration, a full disk, a loss that
    is no longer finite, and as check_mode does.
    """
    check_mode()
    keep_freed_memory()
    with contextlib.ExitStack() as stack:

        def lock():  # held by the first process alone, until the stack ends
            stack.enter_context(only_one(run_folder(config) / "run.lock"))

        processes.from_first(lock)
        return Run(config, progress, deadline).train_and_evaluate()


@dataclass
class Done:
    """The progress of a run, which a checkpoint holds beside the weights."""

    epoch: int = 0
    history: list = field(default_factory=list)  # one line per epoch
    timing: list = field(default_factory=list)  # one line per epoch that was timed
    machine: dict = field(default_factory=dict)  # the machine that trained it


class Run:
    """A run from its settings to its record. The attributes are what its steps share."""

    def __init__(self, config: Config, progress: bool, deadline: float):
        self.config, self.deadline, self.started = config, deadline, time.time()
        self.rank, self.world = processes.rank_and_world()
        self.progress = progress and self.rank == 0
        self.code = code_version()  # read now, since the files may change during the run
        self.folder = run_folder(config)
        self.record_path = self.folder / "record.json"
        self.checkpoint_path = self.folder / "checkpoint.pt"
        self.device, self.precision, self.machine = choose_machine(config)
        with processes.first_alone():  # the first process renders the images if necessary
            self.benchmark = open_benchmark(config, self.progress)
        self.classes, targets = np.unique(self.benchmark.train.ids, return_inverse=True)
        self.targets = torch.from_numpy(targets)
        self.identity = run_settings(config) | {"fingerprint": self.benchmark.fingerprint()}

    def train_and_evaluate(self) -> dict:
        """The run's record, or {"epoch": how many are done} if the deadline came first."""
        self.check_data()
        record = processes.from_first(self.finished_record)
        if record:
            return record
        trainer = self.build()
        done = self.resume(trainer)
        if done.epoch == 0 < self.config.epochs:
            processes.from_first(lambda: self.check_end(trainer.model))
        self.train_epochs(trainer, done)
        if done.epoch < self.config.epochs or self.no_time_to_evaluate(done):
            return {"epoch": done.epoch}
        return processes.from_first(lambda: self.evaluate_and_write(trainer.model, done))

    def check_data(self) -> None:
        """Raises InputError for errors that file names and settings show before the first epoch."""
        batch, benchmark = self.config.batch, self.benchmark
        check_training_set(self.config, benchmark)
        if batch % self.world:
            raise InputError(
                f"batch is {batch}, and {self.world} processes share it; choose a batch that "
                f"{self.world} divides"
            )
        benchmark.check_matches()
        if self.config.rerank and not self.can_rerank():
            self.say(NO_RERANKING.format(len(benchmark.gallery)))

    def can_rerank(self) -> bool:
        return len(self.benchmark.gallery) > reranking.K1

    def check_end(self, model: ReIDNet) -> None:
        """Raises InputError for what would end the run later: damaged test images, a full disk."""
        per_file = checkpoint_bytes(model)
        # While a checkpoint is written, the previous one is still there.
        check_room(self.folder, per_file * min(2, self.config.epochs))
        for split in (self.benchmark.query, self.benchmark.gallery):
            for start in range(0, len(split), 512):
                load_images(split.paths[start : start + 512], self.config.height, self.config.width)

    def say(self, sentence: str) -> None:
        if self.rank == 0:
            print(sentence, file=sys.stderr)

    def finished_record(self) -> dict | None:
        """The record of an earlier call, if it holds everything that is asked for."""
        if not self.record_path.exists():
            return None
        record = read_record(self.record_path)
        same_run(record["identity"], self.identity, self.record_path)
        if record["config"]["rerank"] or not self.config.rerank or not self.can_rerank():
            return record
        if not self.checkpoint_path.exists():  # with it, only the evaluation is repeated
            raise InputError(
                f"{self.record_path} lacks re-ranked numbers, and checkpoint.pt is not beside it: "
                "copy it, or use rerank=false"
            )
        return None

    def build(self) -> Trainer:
        """The network, initialised from the run's seed, and its optimizer."""
        c, on_gpu = self.config, self.device == "cuda"
        torch.manual_seed(c.seed)
        model = ReIDNet(
            len(self.classes), c.variant, c.form, c.recipe, c.backbone, c.dropout, c.weights
        )
        model.to(self.device, memory_format=torch.channels_last)
        if self.world > 1 and on_gpu:
            # This layer uses statistics of the whole batch. It does not exist for CPUs.
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        optimizer = torch.optim.SGD(
            model.parameter_groups(c.lr),
            momentum=c.momentum,
            weight_decay=c.weight_decay,
            nesterov=model.recipe.nesterov and c.momentum > 0,
            fused=True if on_gpu else None,
        )
        step_model = model
        if self.world > 1:
            devices = [torch.cuda.current_device()] if on_gpu else None
            step_model = nn.parallel.DistributedDataParallel(model, device_ids=devices)
        if c.compile:
            torch.compiler.reset()  # forgets what an earlier run compiled
            step_model = torch.compile(step_model)
        return Trainer(c, model, step_model, optimizer, self.device, self.precision)

    def resume(self, trainer: Trainer) -> Done:
        """Load the last checkpoint, if there is one. Returns how far the run is."""

        def read():
            return read_checkpoint(self.checkpoint_path) if self.checkpoint_path.exists() else None

        saved = processes.from_first(read)
        if not saved:
            return Done(machine=self.machine)
        same_run(saved["identity"], self.identity, self.checkpoint_path)
        trainer.model.load_state_dict(saved["model"])
        trainer.optimizer.load_state_dict(saved["optimizer"])
        done = Done(saved["epoch"], saved["history"], saved.get("timing", []), self.machine)
        if done.epoch == self.config.epochs:  # this machine only evaluates; another trained it
            done.machine = saved.get("made", self.machine)
        return done

    def train_epochs(self, trainer: Trainer, done: Done) -> None:
        """Train the remaining epochs that fit before the deadline. Each ends with a checkpoint."""
        per_epoch = self.images_per_epoch()
        if done.epoch < self.config.epochs:
            images = self.training_images()
        bar = self.bar("training", self.config.epochs * per_epoch, done.epoch * per_epoch)
        with bar:
            for epoch in range(done.epoch, self.config.epochs):
                if self.no_time_for(1, done):
                    return
                line, timing = train_epoch(trainer, epoch, images, self.targets, stepper(bar))
                done.epoch += 1
                done.history.append(line)
                done.timing.append(timing | {"on": [self.machine["device"], self.world]})
                self.save(trainer, done)

    def images_per_epoch(self) -> int:
        """How many images an epoch trains on: the last, smaller batch is dropped."""
        return len(self.targets) // self.config.batch * self.config.batch

    def training_images(self):
        """The training images, (N, H, W, 3) uint8: in memory, or on a GPU with enough memory."""
        paths = self.benchmark.train.paths
        images = load_images(paths, self.config.height, self.config.width)
        if self.device == "cuda":
            memory = torch.cuda.get_device_properties(0).total_memory
            if images.nbytes < memory / 8:
                return torch.from_numpy(images).to(self.device)  # so that no step waits for a copy
        return images

    def no_time_for(self, epochs: float, done: Done) -> bool:
        """Whether `epochs` more epochs would end after the deadline.

        The estimate is the time of the last epoch on this machine.
        """
        here = [
            t["seconds"] for t in done.timing if t["on"] == [self.machine["device"], self.world]
        ]
        seconds = 1.1 * epochs * here[-1] if here else 0
        return processes.from_first(lambda: time.time() + seconds > self.deadline)

    def no_time_to_evaluate(self, done: Done) -> bool:
        # An evaluated image takes about a third of a trained one: it has no backward pass.
        evaluated = len(self.benchmark.query) + len(self.benchmark.gallery)
        return self.no_time_for(evaluated / self.images_per_epoch() / 3, done)

    def save(self, trainer: Trainer, done: Done) -> None:
        """Write a checkpoint. Raises InputError for weights that are not finite.

        In that case the last checkpoint is kept.
        """
        finite = [torch.isfinite(p).all() for p in trainer.model.parameters()]
        if not torch.stack(finite).all():
            raise InputError(
                f"the weights are no longer finite after epoch {done.epoch}; lower lr or lengthen "
                "warmup; the checkpoint of the epoch before is kept"
            )
        state = {
            "identity": self.identity,
            "epoch": done.epoch,
            "history": done.history,
            "timing": done.timing,
            "made": done.machine,
            "model": trainer.model.state_dict(),
            "optimizer": trainer.optimizer.state_dict(),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        processes.from_first(lambda: write_atomic(self.checkpoint_path, buffer.getvalue()))

    def evaluate_and_write(self, model: ReIDNet, done: Done) -> dict:
        """Evaluate on the test set and write the record. Only the first process calls this."""
        splits = (self.benchmark.query, self.benchmark.gallery)
        features = []
        with self.bar("evaluating", sum(len(s) for s in splits)) as bar:
            for split in splits:
                images = load_images(split.paths, self.config.height, self.config.width)
                features.append(extract(model, images, device=self.device, tick=bar.update))
        metrics = evaluate(*features, self.benchmark, with_rerank=False)
        record = self.write(model, done, metrics, reranked=False)
        if not self.config.rerank or not self.can_rerank():
            return record
        # The plain numbers are on disk now, even if re-ranking fails.
        try:
            metrics |= evaluate_reranked(*features, self.benchmark)
        except (InputError, MemoryError, RuntimeError) as error:  # RuntimeError: out of memory
            self.say(f"the re-ranked numbers are left out: {error or 'not enough memory'}")
            return record
        return self.write(model, done, dict(sorted(metrics.items())), reranked=True)

    def write(self, model: ReIDNet, done: Done, metrics: dict, reranked: bool) -> dict:
        record = self.describe(model, done, metrics)
        record["config"]["rerank"] = reranked
        write_atomic(self.record_path, (json.dumps(record, indent=1) + "\n").encode())
        return record

    def describe(self, model: ReIDNet, done: Done, metrics: dict) -> dict:
        """The content of the record."""
        import torchvision  # with the network, see model.py

        seconds = [t["seconds"] for t in done.timing]
        # An epoch that was not timed counts as the mean of the others.
        training = self.config.epochs * sum(seconds) / max(1, len(seconds))
        return {
            "config": run_settings(self.config),
            "identity": self.identity,
            "source": self.benchmark.source,
            "title": self.benchmark.title,
            **({"reading": self.benchmark.reading} if self.benchmark.reading else {}),
            "counts": self.benchmark.counts,
            "classes": len(self.classes),
            "parameters": sum(p.numel() for p in model.parameters()),
            "history": done.history,
            "timing": done.timing,
            "metrics": metrics,
            "query_ids": self.benchmark.query.ids.tolist(),
            "code": self.code,
            "loaded": model.loaded,
            **done.machine,
            "seconds": {
                "training": round(training, 1),
                "this_call": round(time.time() - self.started, 1),
            },
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "torchvision": torchvision.__version__,
                "numpy": np.__version__,
                "opencv": cv2.__version__,
            },
        }

    def bar(self, stage: str, total: int, done: int = 0) -> tqdm:
        """A progress bar. On a terminal it moves; in a log it prints a line every 30 seconds."""
        on_terminal = os.isatty(2)
        return tqdm(
            total=total,
            initial=done,
            desc=stage,
            unit=" images",
            disable=not self.progress,
            mininterval=0.5 if on_terminal else 30,
            dynamic_ncols=on_terminal,
        )


def check_training_set(config: Config, benchmark: Benchmark) -> None:
    """Raises InputError for a training set that such a run cannot learn from."""
    images = len(benchmark.train)
    where = f"{benchmark.title} at {benchmark.folder}"
    if config.batch > images:
        raise InputError(
            f"batch is {config.batch}, and {where} has {images} training images; choose a smaller "
            "batch"
        )
    identities = len(np.unique(benchmark.train.ids))
    if config.epochs and identities < 2:
        raise InputError(
            f"{where} has {identities} training identity; a classifier needs at least 2"
        )


def checkpoint_bytes(model: nn.Module) -> int:
    """The size of a run's checkpoint: its tensors, and the optimizer's momentum of each weight."""
    state = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    momentum = sum(p.numel() * p.element_size() for p in model.parameters())
    return state + momentum


def stepper(bar: tqdm):
    """What train_epoch calls after each step."""

    def update(images: int, epoch: int, loss: float) -> None:
        bar.set_postfix(epoch=epoch, loss=f"{loss:.3f}", refresh=False)
        bar.update(images)

    return update


def choose_machine(config: Config) -> tuple[str, torch.dtype, dict]:
    """Choose the device ("cpu" or "cuda") and the precision; describe both for the record.

    This also sets the number of threads, and whether a GPU may use TF32 for float32.
    """
    processes_here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    torch.set_num_threads(config.threads or max(1, cores() // processes_here))
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = torch.float32
    if config.precision:
        precision = getattr(torch, config.precision)
    elif device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        precision = torch.bfloat16  # not on a CPU: there it is 6 to 16 times slower
    # TF32 would drop digits, so float32 runs do not use it.
    torch.backends.cudnn.allow_tf32 = precision != torch.float32
    name = f"CPU ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"
    if device == "cuda":
        name = torch.cuda.get_device_name()
    described = {
        "device": name,
        "threads": torch.get_num_threads(),
        "processes": processes.rank_and_world()[1],
        "precision": str(precision).removeprefix("torch."),
    }
    return device, precision, described


def open_benchmark(config: Config, progress: bool = True) -> Benchmark:
    """The benchmark of a run. The embedded one is rendered into runs/data on first use.

    With held_out, only its training identities are used: some to train on, the others as test set.
    Raises InputError for data that cannot be read.
    """
    c = config
    if c.benchmark not in LAYOUTS:
        benchmark = load_own(c.benchmark, data_root(c.data), c.camera_pattern, c.split_seed)
    else:
        embedded = c.data == "embedded"
        folder = _rendered(c, progress) if embedded else data_root(c.data)
        benchmark = load_benchmark(c.benchmark, folder)
    return _as_asked(benchmark, c)


def _as_asked(benchmark: Benchmark, config: Config) -> Benchmark:
    """The benchmark with identities held out or without the camera rule, if the settings say so."""
    if config.held_out:
        benchmark = hold_out(benchmark, config.held_out)
    return benchmark if config.camera_rule else without_camera_rule(benchmark)


def data_root(data: str) -> Path:
    """The path of data that are not embedded: "real" (REIDSA_DATA), a folder, or a CSV.

    Raises InputError if REIDSA_DATA is needed and not set.
    """
    folder = os.environ.get("REIDSA_DATA") if data == "real" else data
    if not folder:
        raise InputError(
            "data=real needs the environment variable REIDSA_DATA: set it to the folder that holds "
            "the benchmark, or use data=embedded"
        )
    path = Path(os.path.expanduser(folder))
    if not path.exists():
        return ROOT / path  # a notebook's kernel runs in notebooks/
    return path


def _rendered(config: Config, progress: bool) -> Path:
    """The folder of the embedded benchmark, rendered if it is not there."""
    settings = rendered_settings(config)
    # The hash covers all settings and the renderer's version, so other values get another folder.
    digest = hashlib.sha256(f"{settings} {RENDERER}".encode()).hexdigest()[:6]
    root = ROOT / "runs" / "data" / f"scale{config.scale:g}-seed{config.data_seed}-{digest}"
    # with_suffix would cut the name, which may have dots in it.
    with only_one(root.with_name(f"{root.name}.lock")):
        return render_benchmark(
            config.benchmark,
            root,
            config.scale,
            config.data_seed,
            cores(),
            progress,
            **knobs(config),
        )


def rendered_settings(config: Config) -> Settings:
    """The renderer's settings for the embedded benchmark of a run."""
    return Settings(config.benchmark, config.scale, config.data_seed, **knobs(config))


def planned(config: Config) -> Benchmark:
    """The benchmark of a run with its file names only: an embedded one is not rendered."""
    if config.data != "embedded":
        return open_benchmark(config)
    return _as_asked(planned_benchmark(rendered_settings(config)), config)


def load_weights(name: str, folder=ROOT / "results") -> tuple[ReIDNet, dict]:
    """Load a network whose weights were published: (model in eval mode, run record).

    The weights are stored in half precision and used in float32.
    name: of the record in `folder`, without .json.
    Raises InputError if there are no such weights, or if they do not fit the record.
    """
    from safetensors.torch import load_file

    path = Path(folder) / "weights" / f"{name}.safetensors"
    record_path = Path(folder) / f"{name}.json"
    if not path.exists() or not record_path.exists():
        stored = ", ".join(sorted(p.stem for p in path.parent.glob("*.safetensors"))) or "none"
        raise InputError(
            f"no stored weights {name}; there: {stored}; train that run and publish it with "
            "--weights"
        )
    record = read_record(record_path)
    c = record["config"]
    model = ReIDNet(record["classes"], c["variant"], c["form"], c["recipe"], c["backbone"])
    try:
        weights = load_file(path)
        weights = {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}
        model.load_state_dict(weights)
    except Exception as error:  # a broken file, or the weights of another network
        raise InputError(
            f"{path} does not hold the weights of its record ({type(error).__name__}); publish it "
            "again"
        ) from error
    return model.eval(), record


def load_run(run_dir, data: str = "embedded") -> tuple[ReIDNet, Config, Benchmark]:
    """Open a trained run: (model in eval mode, Config, Benchmark). data: as in Config.

    Raises InputError for a run without checkpoint, or for data other than its training data.
    """
    path = ROOT / run_dir / "checkpoint.pt"
    if not path.exists():
        raise InputError(
            f"no checkpoint in {run_dir}; train that run first (make reproduce, or reidsa train)"
        )
    state = read_checkpoint(path)
    settings = {k: v for k, v in state["identity"].items() if k not in ("fingerprint", "weights")}
    # The checkpoint holds all weights, so those that the run started from are not needed.
    settings |= {"data": data, "run_dir": str(run_dir), "weights": "none"}
    config = configure(settings)
    benchmark = open_benchmark(config)
    if state["identity"]["fingerprint"] != benchmark.fingerprint():
        raise InputError(
            f"{path} was not trained on the data at {benchmark.folder}; name its own data"
        )
    classes = len(set(benchmark.train.ids.tolist()))
    model = ReIDNet(classes, config.variant, config.form, config.recipe, config.backbone)
    model.load_state_dict(state["model"])
    return model.eval(), config, benchmark


@cache
def code_version() -> dict:
    """What a record says of the code: the version of its numerics, its commit and its sources.

    sources: a hash of the package's files. commit: None without git or outside a clone. changed:
    whether the package differs from the commit.
    """
    package = SETTINGS.parent
    files = [*sorted(package.glob("**/*.py")), SETTINGS / "recipes.toml"]
    sources = b"".join(path.read_bytes() for path in files)
    return {
        "version": __version__,
        "numerics": NUMERICS,
        "commit": _git("rev-parse", "HEAD"),
        "sources": hashlib.sha256(sources).hexdigest()[:16],
        "changed": bool(_git("status", "--porcelain", "--", "reidsa_utils")),
    }


def _git(*words: str) -> str | None:
    """The output of git in the clone; None if there is no git or no clone."""
    if not IN_CLONE:
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, encoding="utf-8"
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def train_command(
    *, config: Annotated[Config, Parameter(name="*")] = None, minutes: float = math.inf
) -> int:
    """Train and evaluate one run. Started again, it goes on where it stopped.

    Several GPUs: torchrun --nproc-per-node 2 -m reidsa_utils train ...

    Parameters
    ----------
    config
        a setting of the run; where no default is shown, the profile sets it
    minutes
        stop after the last epoch that fits, with exit code 75; the same command goes on. The first
        epoch is always started
    """
    config = config or configure({})
    with processes.processes():
        record = train(config, deadline=time.time() + 60 * minutes)
        if processes.rank_and_world()[0]:
            return 0
    if "metrics" not in record:
        print(f"out of time after epoch {record['epoch']}; the same command goes on from here")
        return STOPPED
    for name, m in record["metrics"].items():
        numbers = f"rank-1 {m['rank1']:.3f}  mAP {m['mean_ap']:.3f}"
        print(f"{name:16} {numbers}  trapezoid {m['mean_ap_trapezoid']:.3f}  {record['source']}")
    if not config.camera_rule:
        print("without the camera rule: matches of the query's own camera count")
    return 0
