"""The embedded benchmark: pedestrians rendered from ellipsoids, written in a real benchmark's layout.

Identity = body, skin, hair, clothes and items that some views hide; image = camera, heading, gait, background, occluder, box.
Every image has a random stream of its own, so the files do not depend on the order or the number of workers. What is drawn
is in pedestrians.py.

    reidsa render market1501 data --scale 0.1 --seed 0
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path

import numpy as np

from .. import InputError, known, run_command
from ..data import LAYOUTS, SPLITS, count
from ..support.opencv import cv2
from .pedestrians import ITEMS, LABEL, PARTS, draw_crop, make_camera, make_person  # noqa: F401  the notebooks take the names from here

RENDERER = 1  # raised whenever the same settings give other images


@dataclass(frozen=True)
class Settings:
    """What a rendered benchmark depends on. Rates are in [0, 1]; sizes in pixels."""

    name: str = "market1501"
    scale: float = 0.2  # of the published sizes
    seed: int = 0
    height: int = 128
    width: int = 64
    occlusion: float = 0.3  # share of images with an occluder
    view_overlap: float = 0.2  # 0: a camera sees everyone from one side; 1: from anywhere
    camera_shift: float = 0.3  # strength of colour gain, gamma, blur and noise of a camera
    look_alikes: int = 4  # identities that wear the same clothes
    box_jitter: float = 0.06  # standard deviation of a box's shift, in box heights


@dataclass(frozen=True)
class Shot:
    """One file: where it goes and which random stream draws it."""

    split: str
    filename: str
    pid: int  # -1 junk, 0 distractor
    camera: int  # from 1
    person: int  # who is drawn: pid, or the number of a stranger; 0 draws background only
    index: int  # number of the random stream


def _rng(settings: Settings, *stream: int) -> np.random.Generator:
    people = LAYOUTS[settings.name].people  # other people in another benchmark
    return np.random.default_rng(
        [settings.seed, *stream, people] if people else [settings.seed, *stream]
    )


@lru_cache(maxsize=4096)
def describe_person(settings: Settings, person: int) -> dict:
    """Appearance of person number 1, 2, ...; consecutive numbers form the groups of look-alikes."""
    group, member = divmod(person - 1, settings.look_alikes)
    return make_person(_rng(settings, 1, group), _rng(settings, 2, person), member)


@lru_cache(maxsize=64)
def describe_camera(settings: Settings, camera: int) -> dict:
    """A camera of a benchmark, from 1."""
    return make_camera(_rng(settings, 3, camera), camera, settings.camera_shift)


def render_shot(settings: Settings, shot: Shot, without=frozenset()) -> tuple:
    """Render one image of a planned benchmark; `without` names parts (of PARTS) to leave out.

    Returns image (H, W, 3) uint8 RGB and part labels (H, W) uint8, indices into PARTS.
    """
    for part in without:
        known("part", part, PARTS[1:])
    person = describe_person(settings, shot.person) if shot.person else None
    jitter = settings.box_jitter * LAYOUTS[settings.name].boxes[shot.split]
    return draw_crop(
        person,
        describe_camera(settings, shot.camera),
        (settings.height, settings.width),
        _rng(settings, 4, shot.index),
        _rng(settings, 5, shot.index),
        jitter,
        shot.pid == -1,
        settings.view_overlap,
        settings.occlusion,
        frozenset(without),
    )


def _share(total: int, n: int, low: int, high: int, rng: np.random.Generator) -> np.ndarray:
    """n whole numbers in [low, high] that sum to total (as near as the bounds allow)."""
    out = np.full(n, low)
    while out.sum() < total and (out < high).any():
        free = np.flatnonzero(out < high)
        take = rng.permutation(free)[: total - out.sum()]
        out[take[rng.random(len(take)) < 0.7] if len(take) == len(free) else take] += 1
    return out


def plan(settings: Settings) -> list:
    """Every file of the benchmark, as a list of Shot, without rendering anything. A query is one (identity, camera) pair."""
    layout, rng, shots, taken = LAYOUTS[settings.name], _rng(settings, 0), [], {}
    train, query, gallery = (layout.counts[split] for split in SPLITS)
    cameras, (junk, distractors) = (
        train["cameras"],
        (gallery[what] for what in ("junk", "distractors")),
    )

    def scaled(n, least=1):
        return max(least, round(settings.scale * n)) if n else 0

    def add(split, pid, camera, person):
        frame = taken[camera] = taken.get(camera, 0) + 1
        name = layout.file.format(
            id=f"{pid:04d}" if pid >= 0 else "-1",
            camera=camera,
            sequence=1 + frame // 8000,
            frame=25 * frame,
            box=0 if split == "query" else 1,
            number=len(shots) + 1,
        )
        shots.append(Shot(split, name, pid, camera, person, len(shots)))

    def pairs(
        first, n_ids, n_pairs
    ):  # (identity, camera): two cameras at least, so that every query has a match
        seen = _share(n_pairs, n_ids, 2, cameras, rng)
        return [
            (first + i, int(c) + 1)
            for i, k in enumerate(seen)
            for c in np.sort(rng.permutation(cameras)[:k])
        ]

    n_train, n_test, n_single = (
        scaled(train["ids"], 2),
        scaled(query["ids"], 2),
        scaled(gallery["ids"] - query["ids"]),
    )
    taught = pairs(1, n_train, round(n_train * query["images"] / query["ids"]))
    for (pid, camera), k in zip(
        taught, _share(scaled(train["images"]), len(taught), 1, 99, rng), strict=True
    ):
        for _ in range(k):
            add("train", pid, camera, pid)
    test = pairs(n_train + 1, n_test, scaled(query["images"]))
    for pid, camera in test:
        add("query", pid, camera, pid)
    strangers = n_train + n_test + 1
    # DukeMTMC-reID: identities seen by one camera only, which nobody asks for
    there = test + [(strangers + i, int(rng.integers(cameras)) + 1) for i in range(n_single)]
    for (pid, camera), k in zip(
        there,
        _share(scaled(gallery["images"] - junk - distractors), len(there), 1, 99, rng),
        strict=True,
    ):
        for _ in range(k):
            add("gallery", pid, camera, pid)
    for i in range(
        scaled(distractors)
    ):  # half of them nobody, half somebody who is in no other split
        camera = int(rng.integers(cameras)) + 1
        add(
            "gallery", 0, camera, 0 if i % 2 else strangers + int(rng.integers(max(1, n_test // 2)))
        )
    for _ in range(scaled(junk)):
        pid, camera = test[int(rng.integers(len(test)))]
        add("gallery", -1, camera, pid)
    return shots


def _write(job: tuple) -> None:
    settings, shots, folder = job
    for shot in shots:
        image, mask = render_shot(settings, shot)
        options = (
            [cv2.IMWRITE_JPEG_QUALITY, 85]
            if shot.filename.endswith(".jpg")
            else [cv2.IMWRITE_PNG_COMPRESSION, 1]
        )
        ok, file = cv2.imencode(Path(shot.filename).suffix, image[..., ::-1], options)
        ok2, png = cv2.imencode(".png", mask, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        assert ok and ok2
        (folder / SPLITS[shot.split] / shot.filename).write_bytes(file.tobytes())
        (folder / "part_masks" / SPLITS[shot.split] / shot.filename).with_suffix(
            ".png"
        ).write_bytes(png.tobytes())


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

    scale: share of the published sizes (1: 32,668 boxes and more for market1501); knobs: fields of Settings.
    Returns the benchmark's folder. What is there already with the same settings is kept; with other settings it is
    refused. Nothing half-written is left under the final name: the folder appears when it is complete.
    """
    for knob in knobs:
        known("knob", knob, sorted({f.name for f in fields(Settings)} - {"name", "scale", "seed"}))
    values = {}
    for f in fields(Settings)[1:]:
        given = ({"scale": scale, "seed": seed} | knobs).get(f.name, f.default)
        with contextlib.suppress(TypeError, ValueError):
            values[f.name] = type(f.default)(given)
        if f.name not in values or values[f.name] != given:
            raise InputError(f"{f.name} is {given!r}; expected {type(f.default).__name__}")
    settings = Settings(known("benchmark", name, LAYOUTS), **values)
    bounds = {
        "scale": (1e-3, 4),
        "seed": (0, 2**31),
        "height": (32, 200),
        "width": (16, 200),
        "occlusion": (0, 1),
        "view_overlap": (0, 1),
        "camera_shift": (0, 2),
        "look_alikes": (1, 1000),
        "box_jitter": (0, 0.5),
    }
    for knob, (low, high) in bounds.items():
        if not low <= getattr(settings, knob) <= high:
            raise InputError(
                f"{knob} is {getattr(settings, knob)}; expected between {low} and {high}"
            )
    folder = Path(root) / LAYOUTS[name].folder
    root = folder.parent
    if folder.exists():
        if read_settings(folder) == settings:
            return folder
        raise InputError(
            f"{folder} holds something else than these settings ask for; choose another root, or delete it"
        )

    from tqdm import tqdm

    shots = plan(settings)
    partial = None
    try:
        root.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".rendering-", dir=root))
        for split in SPLITS.values():
            (partial / split).mkdir()
            (partial / "part_masks" / split).mkdir(parents=True)
        jobs = [(settings, shots[i : i + 64], partial) for i in range(0, len(shots), 64)]
        with contextlib.ExitStack() as stack:
            bar = stack.enter_context(
                tqdm(
                    total=len(shots), desc=f"rendering {name}", unit=" images", disable=not progress
                )
            )
            run = map
            if workers > 1:  # spawn: a fork of a process with torch's threads can hang
                run = stack.enter_context(
                    ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
                ).map
            for job, _ in zip(jobs, run(_write, jobs), strict=True):
                bar.update(len(job[1]))
        of = {split: [shot for shot in shots if shot.split == split] for split in SPLITS}
        manifest = {
            "source": "rendered",
            "renderer": RENDERER,
            "settings": asdict(settings),
            "parts": PARTS,
            "counts": {
                split: count(split, [s.pid for s in some], [s.camera for s in some])
                for split, some in of.items()
            },
            "names": {
                split: " ".join(s.filename.split(".")[0] for s in some)
                for split, some in of.items()
            },
        }
        partial.chmod(0o755)
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
        try:
            os.rename(partial, folder)
        except OSError:  # another run rendered the same benchmark meanwhile
            if not folder.exists() or read_settings(folder) != settings:
                raise
    except OSError as error:
        raise InputError(
            f"could not write the rendered benchmark under {root}: {error.strerror}; free some space or "
            "choose another root, then run again"
        ) from error
    finally:
        if partial:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def read_settings(folder) -> Settings | None:
    """The settings of a rendered benchmark, None where the folder was not rendered by this version."""
    path = Path(folder) / "manifest.json"
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text())
        return Settings(**manifest["settings"]) if manifest["renderer"] == RENDERER else None
    except (ValueError, KeyError, TypeError):
        return None


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        prog="reidsa render", description="Render the embedded benchmark."
    )
    parser.add_argument("name", help=f"one of {', '.join(LAYOUTS)}")
    parser.add_argument("root", help="folder that the benchmark's own folder is made in")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    for f in fields(Settings):
        if f.name != "name":
            parser.add_argument(
                f"--{f.name.replace('_', '-')}",
                type=f.type,
                default=f.default,
                help="default %(default)s",
            )
    arguments = vars(parser.parse_args(argv))
    return run_command(lambda: print(f"rendered {render_benchmark(**arguments)}"))
