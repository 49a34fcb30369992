"""Files written whole or not at all, locks, checkpoints, progress."""

import contextlib
import json
import os
import sys
import time
from pathlib import Path

from filelock import FileLock, Timeout

from .. import InputError

try:
    from tqdm import tqdm
except (
    ImportError
):  # a machine with torch, torchvision, numpy and OpenCV only: a run goes on without a bar

    class tqdm(contextlib.nullcontext):  # noqa: N801
        def __init__(self, *_, **__):
            super().__init__(self)

        def update(self, n):
            pass

        set_postfix = lambda self, *_, **__: None  # noqa: E731


HOME = Path(__file__).resolve().parents[2]
ROOT = (
    HOME if (HOME / "notebooks").is_dir() else Path.cwd()
)  # runs/ and results/ lie here: the clone, else where one works


@contextlib.contextmanager
def only_one(path: Path):
    """Two processes with the same work (a run, a rendering): the second waits for the first. A killed one holds nothing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            print(
                f"another process works on {path.with_suffix('')}; waiting for it", file=sys.stderr
            )
            lock.acquire()
    except OSError as error:
        raise InputError(
            f"{path.parent} cannot be written to ({error.strerror}); choose another folder or free some space"
        ) from error
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
        raise InputError(
            f"could not write {path} ({len(data):,} bytes: {error.strerror}){kept}; free some space and start the same "
            "run again"
        ) from error


@contextlib.contextmanager
def progress(file: Path, stage: str, totals: dict, done: int, show: bool):
    """A tqdm bar for people, and progress.json for the program that started several runs at once. Gives update(n, **values)."""
    state, last, live = {"stage": stage, "done": done, "totals": totals}, [0.0], sys.stderr.isatty()
    with tqdm(
        total=totals[stage],
        initial=done,
        desc=stage,
        unit=" images",
        disable=not show,
        mininterval=0.5 if live else 5,
        dynamic_ncols=live,
    ) as bar:

        def update(n, **values):
            state.update(values, done=state["done"] + n)
            if values:
                bar.set_postfix(
                    {k: f"{v:.3f}" if isinstance(v, float) else v for k, v in values.items()},
                    refresh=False,
                )
            bar.update(n)
            if file and time.time() - last[0] > 1:
                last[0] = time.time()
                with contextlib.suppress(InputError):  # a full disk is told when something is lost
                    write_atomic(file, json.dumps(state).encode())

        yield update


def read_checkpoint(path: Path) -> dict:
    """The checkpoint of a run. Raises InputError for a missing or broken one."""
    import torch  # here: what renders needs none

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        assert state["identity"] and state["model"]
        return state
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); restore it, or train that run"
        ) from error
    except Exception as error:
        raise InputError(
            f"{path} is not a readable checkpoint ({type(error).__name__}); delete it to start this run anew"
        ) from error


def same_run(there: dict, asked: dict, path: Path) -> None:
    """Raises InputError where what lies at `path` was made with other settings than those asked for."""
    names = sorted(k for k in set(there) | set(asked) if there.get(k) != asked.get(k))
    if names:
        found = ", ".join(f"{k}={there.get(k)} (asked for {asked.get(k)})" for k in names[:4])
        raise InputError(
            f"{path} belongs to another configuration: {found}; give another run_dir, or delete that folder"
        )
