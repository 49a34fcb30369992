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
# runs/ and results/ lie here: in the clone, or for an installed package in the current folder.
ROOT = _HOME if IN_CLONE else Path.cwd()


# {byte-order mark that a text may begin with: its encoding}. UTF-32 comes first, since its mark
# begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}


def read_text(path) -> str:
    """Read text in UTF-8, or in the encoding of its byte-order mark (Windows may write UTF-16).

    Raises InputError for bytes that are not text in this encoding.
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
    """Read a TOML file of settings. Raises InputError if it is not valid TOML."""
    try:
        return tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid TOML: {error}; mend that line") from error


@contextlib.contextmanager
def only_one(path: Path):
    """A lock, so that two processes do not do the same work (a run, a rendering) at once.

    The second waits for the first. A process that is killed loses its lock.
    path: of the lock file. Raises InputError if its folder cannot be written to.
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

    Raises InputError if that fails; an earlier file is then kept.
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
    """Make a hidden folder to write in. It is removed at the end, unless it was moved away.

    Folders of the same work that killed processes have left are removed first. A lock beside the
    folder shows that a process is using it.

    work: a word for the work, which becomes part of the folder's name. Raises OSError.
    """
    for path in parent.glob(f".{work}-*.lock"):
        with contextlib.suppress(Timeout, OSError), FileLock(path, timeout=0):
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            path.unlink(missing_ok=True)
    partial = parent / f".{work}-{secrets.token_hex(4)}"
    lock = FileLock(f"{partial}.lock")
    try:
        with lock:  # locked before the folder is there, so that nobody removes it as a leftover
            partial.mkdir()
            yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)


def check_room(folder: Path, needed: int) -> None:
    """Raises InputError if a folder's disk has fewer than `needed` bytes free.

    The folder need not exist yet.
    """
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

    Raises BadZipFile for a file that is cut short or damaged.
    """
    with zipfile.ZipFile(path) as archive:
        for part in archive.infolist():
            if part.CRC == 0:  # torch can be set to write no checksums
                continue
            with archive.open(part) as file:
                while file.read(2**20):
                    pass


def read_checkpoint(path: Path) -> dict:
    """The checkpoint of a run. Raises InputError for a missing or broken one."""
    import torch  # here, since the renderer does not need it

    try:
        check_zip(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not (state["identity"] and state["model"]):
            raise ValueError("nothing in it")
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); restore it, or train that run"
        ) from error
    except Exception as error:  # torch raises many kinds of errors for a broken file
        raise InputError(
            f"{path} is not a readable checkpoint ({type(error).__name__}); delete it to start "
            "this run anew"
        ) from error
    return state


def same_run(found: dict, expected: dict, path: Path) -> None:
    """Raises InputError if the run at `path` was made with other settings than expected."""
    names = sorted(k for k in set(found) | set(expected) if found.get(k) != expected.get(k))
    if names:
        differences = ", ".join(
            f"{k}={found.get(k)} (asked for {expected.get(k)})" for k in names[:4]
        )
        raise InputError(
            f"{path} belongs to another configuration: {differences}; give another run_dir, or "
            "delete that folder"
        )
