"""Text as people save it, files written whole or not at all, locks, checkpoints."""

import codecs
import contextlib
import os
import secrets
import shutil
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from .. import InputError

_HOME = Path(__file__).resolve().parents[2]
IN_CLONE = (_HOME / "notebooks").is_dir()
# runs/ and results/ lie here: in the clone; of an installed package, where one works.
ROOT = _HOME if IN_CLONE else Path.cwd()


# What a text may begin with, and how it goes on then. UTF-32 stands first: its mark begins with
# that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}


def read_text(path) -> str:
    """A text in UTF-8, or in what its byte-order mark says (Windows' editors write UTF-16).

    Raises InputError for bytes that are no such text.
    """
    data = Path(path).read_bytes()
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not {encoding.upper()} text (byte {error.start:,}); save it as UTF-8"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_toml(path) -> dict:
    """A file of settings. Raises InputError for one that is not TOML."""
    try:
        return tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid TOML: {error}; mend that line") from error


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


@contextlib.contextmanager
def partial_folder(parent: Path, work: str) -> Iterator[Path]:
    """A hidden folder to write in, gone at the end unless it was moved away.

    work: what is done, for its name. What killed processes have left of the same work goes first.
    A lock beside the folder says that somebody works in it. Raises OSError.
    """
    for path in parent.glob(f".{work}-*.lock"):
        with contextlib.suppress(Timeout, OSError), FileLock(path, timeout=0):
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            path.unlink(missing_ok=True)
    partial = parent / f".{work}-{secrets.token_hex(4)}"
    lock = FileLock(f"{partial}.lock")
    try:
        with lock:  # held before the folder is there, so that nobody takes it for a leftover
            partial.mkdir()
            yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)


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


def check_zip(path: Path) -> None:
    """Compare the checksums in a file of torch.save, since torch.load does not.

    Raises BadZipFile for one that is cut short or has a hole.
    """
    with zipfile.ZipFile(path) as archive:
        for part in archive.infolist():
            if part.CRC == 0:  # torch can be told to write none
                continue
            with archive.open(part) as file:
                while file.read(2**20):
                    pass


def read_checkpoint(path: Path) -> dict:
    """The checkpoint of a run. Raises InputError for a missing or broken one."""
    import torch  # here, since what renders needs none

    try:
        check_zip(path)
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
