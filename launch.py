"""What stands around a run and no notebook teaches: locks, files written whole, progress, several processes, a queue against the clock."""

import argparse
import contextlib
import datetime
import hashlib
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import distributed

from reidsa_utils import InputError, __version__, run_command

try:
    from tqdm import tqdm
except ImportError:  # a machine with torch, torchvision, numpy and OpenCV only: a run goes on without a bar
    class tqdm(contextlib.nullcontext):  # noqa: N801
        def __init__(self, *_, **__):
            super().__init__(self)

        def update(self, n):
            pass

        set_postfix = lambda self, *_, **__: None  # noqa: E731

ROOT = Path(__file__).resolve().parent
# glibc otherwise gives every large block back to the system and takes it again: a tenth of a training step. It reads them at start.
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "536870912"}
STOPPED = 75  # exit code of a queue that ran out of time: "try again later"


def with_malloc() -> None:
    """Start this program again with MALLOC in its environment, where they are missing and could help."""
    if sys.platform == "linux" and not any(name in os.environ for name in MALLOC):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | MALLOC)


@contextlib.contextmanager
def only_one(path: Path):
    """Two processes with the same work (a run, a rendering): the second waits for the first. A killed one holds nothing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            print(f"another process works on {path.with_suffix('')}; waiting for it", file=sys.stderr)
            lock.acquire()
    except OSError as error:
        raise InputError(f"{path.parent} cannot be written to ({error.strerror}); choose another folder or free some space") from error
    try:
        yield
    finally:
        lock.release()


def write_atomic(path, data: bytes) -> None:
    """Write a file whole or not at all. Raises InputError if the disk refuses, and keeps what was there."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        kept = "; the one written before is kept" if path.exists() else ""
        raise InputError(f"could not write {path} ({len(data):,} bytes: {error.strerror}){kept}; free some space and start the same "
                         "run again") from error


@contextlib.contextmanager
def progress(file: Path, stage: str, totals: dict, done: int, show: bool):
    """A tqdm bar for people, and progress.json for the program that started several runs at once. Gives update(n, **values)."""
    state, last, live = {"stage": stage, "done": done, "totals": totals}, [0.0], sys.stderr.isatty()
    with tqdm(total=totals[stage], initial=done, desc=stage, unit=" images", disable=not show, mininterval=0.5 if live else 5,
              dynamic_ncols=live) as bar:
        def update(n, **values):
            state.update(values, done=state["done"] + n)
            if values:
                bar.set_postfix({k: f"{v:.3f}" if isinstance(v, float) else v for k, v in values.items()}, refresh=False)
            bar.update(n)
            if file and time.time() - last[0] > 1:
                last[0] = time.time()
                with contextlib.suppress(InputError):  # a full disk is told when something is lost
                    write_atomic(file, json.dumps(state).encode())

        yield update


def read_checkpoint(path: Path) -> dict:
    """The checkpoint of a run. Raises InputError for a missing or broken one."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        assert state["identity"] and state["model"]
        return state
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); restore it, or train that run") from error
    except Exception as error:
        raise InputError(f"{path} is not a readable checkpoint ({type(error).__name__}); delete it to start this run anew") from error


def same_run(there: dict, asked: dict, path: Path) -> None:
    """Raises InputError where what lies at `path` was made with other settings than those asked for."""
    names = sorted(k for k in set(there) | set(asked) if there.get(k) != asked.get(k))
    if names:
        found = ", ".join(f"{k}={there.get(k)} (asked for {asked.get(k)})" for k in names[:4])
        raise InputError(f"{path} belongs to another configuration: {found}; give another run_dir, or delete that folder")


def code_version() -> dict:
    """The commit, whether the helper module differs from it (None, False without git), and a hash of the module's sources."""
    def git(*arguments):
        try:
            done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
            return done.stdout.strip() if done.returncode == 0 else None
        except OSError:
            return None

    files = [*sorted(ROOT.glob("reidsa_utils/*.py")), ROOT / "reidsa_utils/recipes.toml", ROOT / "pedestrians.py"]
    sources = b"".join(path.read_bytes() for path in files)
    return {"version": __version__, "commit": git("rev-parse", "HEAD"), "sources": hashlib.sha256(sources).hexdigest()[:16],
            "changed": bool(git("status", "--porcelain", "--", "reidsa_utils", "pedestrians.py"))}


# -- several processes with one run (torchrun)


def rank_and_world() -> tuple:
    """This process's number and how many share the run; (0, 1) without torchrun."""
    return (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)


@contextlib.contextmanager
def processes():
    """Join the processes that torchrun started, if it did: NCCL where there are GPUs, each process on its own, else gloo."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    gpus = torch.cuda.is_available()
    if gpus and int(os.environ["LOCAL_RANK"]) >= torch.cuda.device_count():
        raise InputError(f"more processes than the {torch.cuda.device_count()} GPUs here; lower --nproc-per-node")
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # others wait while one evaluates; what is said between processes lies on the CPU, gradients on the GPUs
    distributed.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=datetime.timedelta(hours=2))
    yield
    distributed.destroy_process_group()  # not after an error, where it would wait for the others: torchrun ends them


def wait_for_all() -> None:
    if distributed.is_initialized():
        distributed.barrier()


@contextlib.contextmanager
def first_alone():
    """The first process does this before the others."""
    first = rank_and_world()[0] == 0
    if not first:
        wait_for_all()
    try:
        yield
    finally:
        if first:
            wait_for_all()


def from_first(make):
    """What the first process makes, in all of them; what it raises, too: all go on, or none."""
    if not distributed.is_initialized():
        return make()
    box = [None]
    if rank_and_world()[0] == 0:
        try:
            box = [make()]
        except (InputError, OSError) as error:
            box = [InputError(str(error))]
    distributed.broadcast_object_list(box)
    if isinstance(box[0], InputError):
        raise box[0]
    return box[0]


def mean_over_processes(values, device) -> torch.Tensor:
    """Element by element, of numbers that every process has."""
    values = torch.as_tensor(values, dtype=torch.float64, device=device)
    if distributed.is_initialized():
        distributed.all_reduce(values)
        values /= distributed.get_world_size()
    return values.cpu()


def peak_memory(device: str) -> dict:
    """{"memory_gib": the most that was held on the GPU since the last call}; {} on a CPU."""
    if device != "cuda":
        return {}
    peak = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.reset_peak_memory_stats()
    return {"memory_gib": round(peak, 3)}


# -- a queue against the clock


def read_queue(path: Path) -> list:
    """The runs of a queue file: a line each, KEY=VALUE ...; # begins a comment. Raises InputError naming the line."""
    runs = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split("#")[0].split()
        if bad := [word for word in words if "=" not in word]:
            raise InputError(f"{path}, line {number}: {bad[0]}: expected KEY=VALUE, separated by spaces")
        if words:
            runs.append((number, dict(word.split("=", 1) for word in words)))
    if not runs:
        raise InputError(f"{path} holds no run; expected lines like: variant=b_p_ds_sa2 form=l1 seed=0")
    return runs


def work_through(path: Path, minutes: float, configure, train, folder) -> int:
    """Train the runs of a queue file one after the other until the time is used up; the same call goes on where this one stopped.

    A run that cannot finish stops after its last epoch that fits, with a checkpoint. Returns 0 when all are finished, STOPPED
    when time ran out, 1 when a run failed (the others are done all the same).
    """
    deadline, configs, code, out_of_time = time.time() + 60 * minutes, [], 0, False
    for number, parameters in read_queue(path):
        try:
            configs.append(configure(parameters))
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error}") from None
    if len({folder(config) for config in configs}) < len(configs):
        raise InputError(f"{path}: two lines are one run, or share a run_dir; each needs its own")
    for k, config in enumerate(configs, 1):
        name, say = folder(config).name, print if rank_and_world()[0] == 0 else lambda *_, **__: None
        out_of_time = from_first(lambda stopped=out_of_time: stopped or time.time() >= deadline)
        if out_of_time:
            say(f"{k}/{len(configs)} {name}: not begun", flush=True)
            code = code or STOPPED
            continue
        try:
            record = train(config, deadline=deadline)
        except (InputError, RuntimeError, OSError) as error:  # out of memory, say
            if not isinstance(error, InputError) and distributed.is_initialized():
                raise  # the others wait for this one: torchrun ends them
            say(f"{k}/{len(configs)} {name}: failed: {error}", flush=True)
            code = 1
            continue
        if "metrics" in record:
            best = record["metrics"].get("parts", record["metrics"]["global"])
            say(f"{k}/{len(configs)} {name}: finished, rank-1 {best['rank1']:.3f}, mAP {best['mean_ap']:.3f}", flush=True)
        else:
            say(f"{k}/{len(configs)} {name}: stopped after epoch {record['epoch']} of {config.epochs}, out of time", flush=True)
            out_of_time, code = True, code or STOPPED
    if code == STOPPED and rank_and_world()[0] == 0:
        print("the same command goes on from here")
    return code


def main(argv=None) -> int:
    """The command line of reidsa_utils.training."""
    from reidsa_utils import config, training

    parser = argparse.ArgumentParser(prog="python -m reidsa_utils.training", description=training.__doc__.splitlines()[0])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="pairs",
                        help="a parameter: " + ", ".join(f.name for f in fields(config.Config)))
    parser.add_argument("--queue", type=Path, metavar="FILE", help="many runs instead: a line KEY=VALUE KEY=VALUE ... for each")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop in time; the same command goes on later (exit code 75)")
    arguments = parser.parse_args(argv)

    def work():
        configure, train = config.configure, training.train
        bad = [pair for pair in arguments.pairs if "=" not in pair]
        if bad:
            raise InputError(f"--set {bad[0]}: expected KEY=VALUE")
        common = dict(pair.split("=", 1) for pair in arguments.pairs)
        with processes():
            if arguments.queue:
                return work_through(arguments.queue, arguments.minutes, lambda own: configure(common | own), train, config.run_folder)
            record = train(configure(common), deadline=time.time() + 60 * arguments.minutes)
            if rank_and_world()[0]:
                return 0
        if "metrics" not in record:
            print(f"out of time after epoch {record['epoch']}; the same command goes on from here")
            return STOPPED
        for name, m in record["metrics"].items():
            print(f"{name:16} rank-1 {m['rank1']:.3f}  mAP {m['mean_ap']:.3f}  trapezoid {m['mean_ap_trapezoid']:.3f}  {record['source']}")

    return run_command(work)
