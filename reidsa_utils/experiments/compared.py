"""The three networks that notebook 07 compares, and the images that it shows.

The networks are without SA, with the softmax of eq. 1 and with the released code's l1. They are the
stored networks, or three runs on one data set.
"""

from dataclasses import dataclass

import numpy as np
import torch

from .. import InputError
from ..data import SPLITS, Benchmark, load_images, resize
from ..datasets.rendered import LABEL, Settings, plan, read_settings, render_shot
from .examine import open_run
from .map_measures import without_part
from .nearest import nearest_of, read_nearest
from .records import ROOT
from .run import load_weights

VARIANTS = {"none": "b_p_ds", "softmax": "b_p_ds_sa2", "l1": "b_p_ds_sa2"}
STORED = "market1501-rendered-laptop-{variant}-{form}-paper-erasing-e10-s3"


@dataclass(frozen=True)
class Compared:
    """Three networks, keyed by their form of attention, and the images of their benchmark.

    Images are numbered from 0 in each split "train", "query" and "gallery", by file name. Images of
    a rendered benchmark are drawn on request; their pixels equal those of the benchmark's files.
    """

    models: dict  # {form: ReIDNet in eval mode}
    records: dict  # {form: record}
    configs: dict  # {form: Config}; {} for the stored networks
    benchmark: Benchmark | None  # None: the stored networks need no files of images
    settings: Settings | None  # of the renderer; None for real data
    shots: dict  # {split: [Shot]}; {} for real data
    ids: dict  # {split: (N,) identities}
    cameras: dict  # {split: (N,)}

    @property
    def config(self) -> dict:
        """The settings of the run without SA, as its record has them."""
        return self.records["none"]["config"]

    @property
    def source(self) -> str:
        """ "rendered" or "real"."""
        return self.records["none"]["source"]

    def images(self, split: str, which, without: str = "") -> np.ndarray:
        """Some images as the networks see them: (N, H, W, 3) uint8 RGB.

        which: (N,) their numbers. without: a part of the body to leave out, in rendered images
        only.
        """
        height, width = self.config["height"], self.config["width"]
        if not self.settings:
            paths = getattr(self.benchmark, split).paths
            return load_images([paths[k] for k in which], height, width)
        drawn = []
        for k in which:
            image = without_part(self.settings, self.shots[split][k], without)
            drawn.append(resize(image, height, width))
        return np.stack(drawn)

    def masks(self, split: str, which) -> list[np.ndarray]:
        """The part of the body at every pixel of rendered images, (H, W) uint8 each."""
        return [render_shot(self.settings, self.shots[split][k])[1] for k in which]

    def is_in_view(self, split: str, which, at_most: float = 0.02) -> np.ndarray:
        """Whether an occluder covers at most this share of an image: (N,) bool.

        True for all real images, since their occluders are not annotated.
        """
        if not self.settings:
            return np.ones(len(which), bool)
        covered = [(mask == LABEL["occluder"]).mean() for mask in self.masks(split, which)]
        return np.array(covered) <= at_most

    def classes(self, which) -> torch.Tensor:
        """The class numbers of some training images: (N,)."""
        _, numbers = np.unique(self.ids["train"], return_inverse=True)
        return torch.from_numpy(numbers[which])

    def is_found(self, form: str) -> np.ndarray:
        """Whether the first image of each query's list is a match, from the record: (Q,) bool."""
        return np.array(self.records[form]["metrics"]["parts"]["first_match"]) == 1

    def nearest(self, form: str) -> np.ndarray:
        """The first gallery images of each query's list, by the vector `parts`: (Q, 5) numbers.

        For the stored networks they are on file. For other runs they are computed, which takes as
        long as testing the run.
        """
        if self.benchmark is None:
            return read_nearest(self.records[form])
        return nearest_of(self.models[form], self.configs[form], self.benchmark)

    def matches(self, query: int) -> np.ndarray:
        """The gallery images that count as matches of a query: their numbers."""
        is_match = self.ids["gallery"] == self.ids["query"][query]
        if self.benchmark is None or self.benchmark.camera_rule:
            is_match &= self.cameras["gallery"] != self.cameras["query"][query]
        return np.flatnonzero(is_match)

    def look_alike(self, query: int) -> int:
        """The first gallery image of another person; in rendered data, of one in the same clothes.

        Rendered identities come in groups that wear the same clothes.
        """
        ids, own = self.ids["gallery"], self.ids["query"][query]
        others = (ids > 0) & (ids != own)
        if self.settings:
            group = max(self.settings.look_alikes, 1)
            dressed_alike = others & ((ids - 1) // group == (own - 1) // group)
            if dressed_alike.any():
                others = dressed_alike
        return int(np.flatnonzero(others)[0])


def open_compared(runs: str = "", data: str = "embedded") -> Compared:
    """Open the three networks.

    runs: "" for the stored networks, or a folder with the runs of VARIANTS, each called
    VARIANT-FORM. data: what they were trained on, as in config.Config.
    Raises InputError for runs of other variants or forms, for runs of different data, and for
    `data` without `runs`.
    """
    if data != "embedded" and not runs:
        raise InputError(
            f"data is {data!r} and runs is empty; the stored networks are drawn on rendered "
            "images: name runs trained on that data"
        )
    models, records, configs = {}, {}, {}
    benchmark = None
    for form, variant in VARIANTS.items():
        if not runs:
            models[form], records[form] = load_weights(STORED.format(variant=variant, form=form))
            continue
        folder = ROOT / runs / f"{variant}-{form}"
        records[form], models[form], configs[form], benchmark = open_run(folder, data)
        _check(folder, configs[form], records, form)

    c = records["none"]["config"]
    settings = Settings(c["benchmark"], c["scale"], c["data_seed"])
    if benchmark:
        settings = read_settings(benchmark.folder)  # None: real data
    shots = _shots(settings) if settings else {}
    ids, cameras = {}, {}
    for split in SPLITS:
        if settings:
            ids[split] = np.array([shot.pid for shot in shots[split]])
            cameras[split] = np.array([shot.camera for shot in shots[split]])
        else:
            ids[split] = getattr(benchmark, split).ids
            cameras[split] = getattr(benchmark, split).cameras
    return Compared(models, records, configs, benchmark, settings, shots, ids, cameras)


def _check(folder, config, records: dict, form: str) -> None:
    """Raises InputError for a run of another variant or form, or of other data than the first."""
    if (config.variant, config.form) != (VARIANTS[form], form):
        raise InputError(
            f"{folder} holds a run of {config.variant}, form {config.form}; expected "
            f"{VARIANTS[form]}, form {form}"
        )
    fingerprint = records[form]["identity"]["fingerprint"]
    if fingerprint != records["none"]["identity"]["fingerprint"]:
        raise InputError(
            f"{folder} and the run beside it without SA are of two data sets; train the three on "
            "one"
        )


def _shots(settings: Settings) -> dict:
    """{split: its shots without junk, by file name}."""
    shots = {split: [] for split in SPLITS}
    for shot in plan(settings):
        if shot.pid != -1:
            shots[shot.split].append(shot)
    return {split: sorted(some, key=lambda shot: shot.filename) for split, some in shots.items()}
