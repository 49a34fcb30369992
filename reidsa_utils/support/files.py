"""Files written whole or not at all, locks, checkpoints."""

import contextlib
import os
import shutil
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from .. import InputError

_HOME = Path(__file__).resolve().parents[2]
IN_CLONE = (_HOME / "notebooks").is_dir()
# runs/ and results/ lie here: in the clone; of an installed package, where one works.
ROOT = _HOME if IN_CLONE else Path.cwd()


@contextlib.contextmanager
def only_one(path: Path):
    """A lock, so that two processes do not do the same work (a run, a rendering) at once.

    The second waits for the first. A killed process holds nothing.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            work = path.with_suffix("")
            print(f"another process works on {work}; waiting for it", file=sys.stderr)
            lock.acquire()
    except OSError as error:
        raise InputError(
            f"{path.parent} cannot be written to ({error.strerror}); choose another folder or "
            "free some space"
        ) from error
    try:
        yield
    finally:
        lock.release()


def write_atomic(path, data: bytes) -> None:
    """Write a file whole or not at all.

    Raises InputError if the disk refuses, and keeps what was there.
    """
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
            f"could not write {path} ({len(data):,} bytes: {error.strerror}){kept}; free some "
            "space and start the same run again"
        ) from error


def check_room(folder: Path, needed: int) -> None:
    """Raises InputError where the disk of a folder, which may not exist yet, has fewer bytes."""
    there = Path(folder).resolve()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < needed:
        raise InputError(
            f"the disk of {folder} has {free / 1e6:,.0f} MB left, and the checkpoints need "
            f"{needed / 1e6:,.0f} MB; free some space, or choose another folder"
        )


def read_checkpoint(path: Path) -> dict:
    """The checkpoint of a run. Raises InputError for a missing or broken one."""
    import torch  # here, since what renders needs none

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not (state["identity"] and state["model"]):
            raise ValueError("nothing in it")
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); restore it, or train that run"
        ) from error
    except Exception as error:  # whatever torch says of a broken file
        raise InputError(
            f"{path} is not a readable checkpoint ({type(error).__name__}); delete it to start "
            "this run anew"
        ) from error
    return state


def same_run(found: dict, expected: dict, path: Path) -> None:
    """Raises InputError where what lies at `path` was made with other settings than expected."""
    names = sorted(k for k in set(found) | set(expected) if found.get(k) != expected.get(k))
    if names:
        differences = ", ".join(
            f"{k}={found.get(k)} (asked for {expected.get(k)})" for k in names[:4]
        )
        raise InputError(
            f"{path} belongs to another configuration: {differences}; give another run_dir, or "
            "delete that folder"
        )
