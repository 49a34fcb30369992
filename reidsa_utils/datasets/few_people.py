"""A test set small enough to look through: a dozen rendered people, which notebook 03 ranks."""

from dataclasses import dataclass

import numpy as np

from ..data import resize
from ..support.arrays import check_whole
from .rendered import Settings, Shot, plan, render_shot

SETTINGS = Settings(scale=0.2, seed=0)  # the test set of the small networks in results/weights


@dataclass(frozen=True)
class Crops:
    """N images with their labels."""

    images: np.ndarray  # (N, 192, 64, 3) uint8 RGB
    ids: np.ndarray  # (N,) identity; 0 a distractor, -1 junk
    cams: np.ndarray  # (N,) camera, from 1
    people: np.ndarray  # (N,) who is drawn, also in junk, where a real benchmark does not say it

    def __len__(self) -> int:
        return len(self.ids)


def few_people(number: int = 12) -> tuple[Crops, Crops]:
    """Render the queries and the gallery of the first test people: (query, gallery).

    The gallery has all images of these people, and every tenth of the benchmark's distractors and
    of its junk.
    """
    check_whole("number", number)
    shots = plan(SETTINGS)
    people = sorted({shot.pid for shot in shots if shot.split == "query"})[:number]
    query = [shot for shot in shots if shot.split == "query" and shot.pid in people]
    of_gallery = [shot for shot in shots if shot.split == "gallery"]
    gallery = [shot for shot in of_gallery if shot.pid in people]
    gallery += [shot for shot in of_gallery if shot.pid == 0][::10]
    gallery += [shot for shot in of_gallery if shot.pid == -1][::10]
    return _crops(query), _crops(gallery)


def _crops(shots: list[Shot]) -> Crops:
    images = [resize(render_shot(SETTINGS, shot)[0], 192, 64) for shot in shots]
    return Crops(
        images=np.stack(images),
        ids=np.array([shot.pid for shot in shots]),
        cams=np.array([shot.camera for shot in shots]),
        people=np.array([shot.person for shot in shots]),
    )
