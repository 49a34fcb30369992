"""The embedded benchmark: rendered pedestrians, written in the layout of a real benchmark.

An identity is a body, skin, hair, clothes and an item that some views hide. An image adds the
camera, the heading, the phase of the gait, the background, an occluder and the box. Every image has
a random stream of its own, so the files do not depend on the order or the number of workers.

shots.py plans the files; pedestrians.py and scenes.py draw the images.

    reidsa render market1501 data --scale 0.1 --seed 0
"""

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, fields
from functools import lru_cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .. import InputError, known
from ..data import LAYOUTS, SPLITS, Benchmark, Split, count
from ..support.files import partial_folder
from ..support.opencv import cv2
from ..support.workers import in_processes
from .pedestrians import ITEMS, LABEL, PARTS, make_person
from .scenes import draw_crop, make_camera
from .shots import BOUNDS, Settings, Shot, plan, random_stream

__all__ = [
    "ITEMS",
    "LABEL",
    "PARTS",
    "RENDERER",
    "Settings",
    "Shot",
    "describe_camera",
    "describe_person",
    "encode_image",
    "plan",
    "planned_benchmark",
    "read_settings",
    "render_benchmark",
    "render_shot",
]

RENDERER = 1  # raised whenever the same settings give other images
FILES_A_JOB = 64  # images that a worker renders before it reports
CHECKSUMS = "SHA256SUMS"  # beside the manifest, as `sha256sum` writes it and `-c` reads it


@lru_cache(maxsize=4096)
def describe_person(settings: Settings, person: int) -> dict:
    """Describe the appearance of person number 1, 2, ...

    Consecutive numbers form the groups of look-alikes.
    """
    group, member = divmod(person - 1, settings.look_alikes)
    group_stream = random_stream(settings, 1, group)
    own_stream = random_stream(settings, 2, person)
    return make_person(group_stream, own_stream, member)


@lru_cache(maxsize=64)
def describe_camera(settings: Settings, camera: int) -> dict:
    """Describe a camera of a benchmark, from 1."""
    return make_camera(random_stream(settings, 3, camera), camera, settings.camera_shift)


def render_shot(
    settings: Settings, shot: Shot, without=frozenset()
) -> tuple[np.ndarray, np.ndarray]:
    """Render one image of a planned benchmark.

    without: names of parts (of PARTS) to leave out; nothing else changes.
    Returns image (H, W, 3) uint8 RGB and part labels (H, W) uint8, indices into PARTS.
    Raises InputError for an unknown part.
    """
    for part in without:
        known("part", part, PARTS[1:])
    person = describe_person(settings, shot.person) if shot.person else None
    return draw_crop(
        person,
        describe_camera(settings, shot.camera),
        (settings.height, settings.width),
        rng=random_stream(settings, 4, shot.index),
        chance=random_stream(settings, 5, shot.index),
        jitter=settings.box_jitter * LAYOUTS[settings.name].boxes[shot.split],
        badly_cut=shot.pid == -1,
        view_overlap=settings.view_overlap,
        occlusion=settings.occlusion,
        without=frozenset(without),
    )


def encode_image(image: np.ndarray, filename: str) -> bytes:
    """Encode an image (H, W, 3) uint8 RGB in the format of the file name, JPEG or PNG."""
    if filename.endswith(".jpg"):
        return _encode(image[..., ::-1], ".jpg", [cv2.IMWRITE_JPEG_QUALITY, 85])
    return _encode(image[..., ::-1], ".png", [cv2.IMWRITE_PNG_COMPRESSION, 1])


def _encode(pixels: np.ndarray, suffix: str, options: list) -> bytes:
    done, encoded = cv2.imencode(suffix, pixels, options)
    if not done:
        raise RuntimeError(f"OpenCV could not encode a rendered picture as {suffix}")
    return encoded.tobytes()


def render_benchmark(
    name: str,
    root,
    scale: float = 0.2,
    seed: int = 0,
    workers: int = 1,
    progress: bool = True,
    **knobs,
) -> Path:
    """Render a benchmark into `root` in the layout of the real one, with part masks and a manifest.

    A benchmark that is there already with the same settings is kept. The folder appears under its
    name only when it is complete. SHA256SUMS, beside the manifest, holds the checksums of the
    images.

    name: a key of LAYOUTS. scale: share of the published sizes (1: 32,668 boxes and more for
    market1501). workers: number of processes that render; the calling script needs no
    `if __name__ == "__main__"`. progress: show a bar. knobs: other fields of Settings.
    Returns the benchmark's folder.
    Raises InputError for unknown names, values out of range, a folder that holds something else,
    and a disk that cannot be written to.
    """
    settings = _checked_settings(name, scale, seed, knobs)
    if not isinstance(workers, (int, np.integer)):
        raise InputError(f"workers is {workers!r}; expected a whole number")
    if not isinstance(root, (str, os.PathLike)):
        raise InputError(f"root is {root!r}; expected a folder")
    folder = Path(root) / LAYOUTS[name].folder
    if folder.exists():
        if read_settings(folder) == settings:
            return folder
        raise InputError(
            f"{folder} holds something else than these settings ask for; choose another root, or "
            "delete it"
        )
    parent = folder.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with partial_folder(parent, "rendering") as partial:
            _write_files(settings, partial, workers, progress)
            _move_into_place(partial, folder, settings)
    except OSError as error:
        raise InputError(
            f"could not write the rendered benchmark under {parent}: {error.strerror}; free some "
            "space or choose another root, then run again"
        ) from error
    return folder


def planned_benchmark(settings: Settings) -> Benchmark:
    """The benchmark that these settings would give. Nothing is rendered: its files do not exist."""
    layout = LAYOUTS[settings.name]
    shots = plan(settings)
    splits = {}
    for name in SPLITS:
        used = [shot for shot in shots if shot.split == name and shot.pid != -1]
        splits[name] = Split(
            [shot.filename for shot in used],
            np.array([shot.pid for shot in used], int),
            np.array([shot.camera for shot in used], int),
        )
    counts = _counts(shots)
    return Benchmark(
        settings.name,
        layout.title,
        Path("runs/data"),
        "rendered",
        **splits,
        counts=counts,
        expected=counts,
    )


def _checked_settings(name: str, scale: float, seed: int, knobs: dict) -> Settings:
    """Make Settings of a caller's arguments. Raises InputError for names, types and numbers."""
    names = [field.name for field in fields(Settings)]
    for knob in knobs:
        known("knob", knob, sorted(set(names) - {"name", "scale", "seed"}))
    given = {"scale": scale, "seed": seed} | knobs
    values = {}
    for field in fields(Settings):
        if field.name == "name":
            continue
        value = given.get(field.name, field.default)
        kind = type(field.default)
        wrong_type = f"{field.name} is {value!r}; expected {kind.__name__}"
        try:
            converted = kind(value)
        except (TypeError, ValueError):
            raise InputError(wrong_type) from None
        if converted != value:
            raise InputError(wrong_type)
        values[field.name] = converted
    settings = Settings(known("benchmark", name, LAYOUTS), **values)
    for knob, (low, high) in BOUNDS.items():
        value = values[knob]
        if not low <= value <= high:
            raise InputError(f"{knob} is {value}; expected between {low} and {high}")
    return settings


def _write_files(settings: Settings, folder: Path, workers: int, progress: bool) -> None:
    """Render all files of a benchmark into an empty folder, checksums and manifest last."""
    for directory in SPLITS.values():
        (folder / directory).mkdir()
        (folder / "part_masks" / directory).mkdir(parents=True)
    shots = plan(settings)
    jobs = []
    for start in range(0, len(shots), FILES_A_JOB):
        jobs.append((settings, shots[start : start + FILES_A_JOB], folder))
    title = f"rendering {settings.name}"
    checksums = []
    with (
        tqdm(total=len(shots), desc=title, unit=" images", disable=not progress) as bar,
        contextlib.closing(_run_jobs(jobs, workers)) as done,  # no process outlives an error
    ):
        for lines in done:
            checksums += lines
            bar.update(len(lines))
    (folder / CHECKSUMS).write_text("".join(checksums), encoding="utf-8")
    manifest = json.dumps(_manifest(settings, shots), indent=1) + "\n"
    (folder / "manifest.json").write_text(manifest, encoding="utf-8")


def _run_jobs(jobs: list[tuple], workers: int) -> Iterator[list[str]]:
    """Do the jobs, here or in other processes. Yields what _write_shots returns for each."""
    workers = min(workers, len(jobs))
    if workers <= 1 or not sys.executable:  # none if Python is part of another program
        yield from map(_write_shots, jobs)
    else:
        yield from in_processes(_write_shots, jobs, workers)


def _write_shots(job: tuple) -> list[str]:
    """Render and write some images and their part masks. Returns the images' lines of CHECKSUMS."""
    settings, shots, folder = job
    lines = []
    for shot in shots:
        image, mask = render_shot(settings, shot)
        directory = SPLITS[shot.split]
        mask_file = (folder / "part_masks" / directory / shot.filename).with_suffix(".png")
        encoded = encode_image(image, shot.filename)
        (folder / directory / shot.filename).write_bytes(encoded)
        mask_file.write_bytes(_encode(mask, ".png", [cv2.IMWRITE_PNG_COMPRESSION, 1]))
        lines.append(f"{hashlib.sha256(encoded).hexdigest()}  {directory}/{shot.filename}\n")
    return lines


def _manifest(settings: Settings, shots: list[Shot]) -> dict:
    """What the manifest of a rendered benchmark holds: its settings, counts and file names."""
    names = {}
    for split in SPLITS:
        names[split] = " ".join(
            shot.filename.split(".")[0] for shot in shots if shot.split == split
        )
    return {
        "source": "rendered",
        "renderer": RENDERER,
        "settings": asdict(settings),
        "parts": PARTS,
        "counts": _counts(shots),
        "names": names,
    }


def _counts(shots: list[Shot]) -> dict:
    """{split: data.count()} of planned files."""
    counts = {}
    for split in SPLITS:
        own = [shot for shot in shots if shot.split == split]
        counts[split] = count(split, [shot.pid for shot in own], [shot.camera for shot in own])
    return counts


def _move_into_place(partial: Path, folder: Path, settings: Settings) -> None:
    """Give a complete benchmark its final name. If another run has made it meanwhile, keep that."""
    try:
        os.rename(partial, folder)
    except OSError:
        if not folder.exists() or read_settings(folder) != settings:
            raise


def read_settings(folder) -> Settings | None:
    """The settings of a rendered benchmark; None if this version has not rendered the folder."""
    path = Path(folder) / "manifest.json"
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_bytes())
        if manifest["renderer"] != RENDERER:
            return None
        return Settings(**manifest["settings"])
    except (ValueError, KeyError, TypeError):
        return None
