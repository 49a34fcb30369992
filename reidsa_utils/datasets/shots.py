"""Plans an embedded benchmark: which files it has, and who and what is on each of them.

Nothing is drawn here: pedestrians.py and scenes.py draw, rendered.py writes the files.
"""

from dataclasses import dataclass

import numpy as np

from ..data import LAYOUTS


@dataclass(frozen=True)
class Settings:
    """What a rendered benchmark depends on. Rates are in [0, 1], sizes in pixels."""

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


# The smallest and the largest value of each setting that is a number.
BOUNDS = {
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


@dataclass(frozen=True)
class Shot:
    """One file: where it goes and which random stream draws it."""

    split: str
    filename: str
    pid: int  # -1 junk, 0 distractor
    camera: int  # from 1
    person: int  # who is drawn: pid, or the number of a stranger; 0 draws background only
    index: int  # number of the random stream


def random_stream(settings: Settings, *stream: int) -> np.random.Generator:
    """Make the random stream of one purpose: a plan, a group, a person, a camera, an image.

    stream: numbers that identify one stream of the benchmark.
    """
    key = [settings.seed, *stream]
    people = LAYOUTS[settings.name].people
    if people:  # so that another benchmark shows other people
        key.append(people)
    return np.random.default_rng(key)


def plan(settings: Settings) -> list[Shot]:
    """List every file of a benchmark, without rendering anything.

    A query is one (identity, camera) pair. Every query has a match in another camera.
    """
    layout = LAYOUTS[settings.name]
    train, query, gallery = (layout.counts[split] for split in ("train", "query", "gallery"))
    cameras = train["cameras"]
    rng = random_stream(settings, 0)

    n_train = _scaled(train["ids"], settings.scale, at_least=2)
    n_test = _scaled(query["ids"], settings.scale, at_least=2)
    # DukeMTMC-reID has identities that only one camera sees, and for whom there is no query.
    n_single = _scaled(gallery["ids"] - query["ids"], settings.scale)
    first_stranger = n_train + n_test + 1
    boxes = []  # (split, pid, camera, person) of every file, in the order of the files

    n_pairs = round(n_train * query["images"] / query["ids"])
    train_pairs = _sightings(1, n_train, n_pairs, cameras, rng)
    n_images = _scaled(train["images"], settings.scale)
    images_of_pair = _share(n_images, len(train_pairs), 1, 99, rng)
    for (pid, camera), n in zip(train_pairs, images_of_pair, strict=True):
        boxes.extend(("train", pid, camera, pid) for _ in range(n))

    n_pairs = _scaled(query["images"], settings.scale)
    test_pairs = _sightings(n_train + 1, n_test, n_pairs, cameras, rng)
    boxes.extend(("query", pid, camera, pid) for pid, camera in test_pairs)

    gallery_pairs = list(test_pairs)
    for i in range(n_single):
        gallery_pairs.append((first_stranger + i, int(rng.integers(cameras)) + 1))
    n_images = _scaled(gallery["images"] - gallery["junk"] - gallery["distractors"], settings.scale)
    images_of_pair = _share(n_images, len(gallery_pairs), 1, 99, rng)
    for (pid, camera), n in zip(gallery_pairs, images_of_pair, strict=True):
        boxes.extend(("gallery", pid, camera, pid) for _ in range(n))

    for i in range(_scaled(gallery["distractors"], settings.scale)):
        camera = int(rng.integers(cameras)) + 1
        person = 0  # every second distractor shows nobody, the others a person of no other split
        if i % 2 == 0:
            person = first_stranger + int(rng.integers(max(1, n_test // 2)))
        boxes.append(("gallery", 0, camera, person))

    for _ in range(_scaled(gallery["junk"], settings.scale)):
        pid, camera = test_pairs[int(rng.integers(len(test_pairs)))]
        boxes.append(("gallery", -1, camera, pid))
    return _name_files(boxes, layout.file)


def _scaled(n: int, scale: float, at_least: int = 1) -> int:
    """A published number at a scale. A number above 0 stays above 0."""
    return max(at_least, round(scale * n)) if n else 0


def _share(total: int, n: int, low: int, high: int, rng: np.random.Generator) -> np.ndarray:
    """Draw n whole numbers in [low, high] that sum to total, as near as the bounds allow."""
    numbers = np.full(n, low)
    while numbers.sum() < total and (numbers < high).any():
        free = np.flatnonzero(numbers < high)
        chosen = rng.permutation(free)[: total - numbers.sum()]
        if len(chosen) == len(free):
            # Enough is left to raise all of them. Raising about 70 % of them keeps them unequal.
            chosen = chosen[rng.random(len(chosen)) < 0.7]
        numbers[chosen] += 1
    return numbers


def _sightings(
    first: int, n_ids: int, n_pairs: int, cameras: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Draw which cameras see the identities first, first + 1, ...: (identity, camera) pairs.

    Each is seen by two cameras at least, so that every query has a match.
    """
    cameras_of_identity = _share(n_pairs, n_ids, 2, cameras, rng)
    pairs = []
    for i, n in enumerate(cameras_of_identity):
        seen_by = np.sort(rng.permutation(cameras)[:n])
        pairs.extend((first + i, int(camera) + 1) for camera in seen_by)
    return pairs


def _name_files(boxes: list[tuple], pattern: str) -> list[Shot]:
    """Name the files as the benchmark does. The frames of each camera are counted."""
    shots, frames = [], {}
    for index, (split, pid, camera, person) in enumerate(boxes):
        frame = frames.get(camera, 0) + 1
        frames[camera] = frame
        filename = pattern.format(
            id=f"{pid:04d}" if pid >= 0 else "-1",
            camera=camera,
            sequence=1 + frame // 8000,
            frame=25 * frame,
            box=0 if split == "query" else 1,
            number=index + 1,
        )
        shots.append(Shot(split, filename, pid, camera, person, index))
    return shots
