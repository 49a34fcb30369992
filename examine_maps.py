"""Class activation maps of a finished run in numbers, and its retrieval when a part of a person is missing. For notebook 07.

Called by `python examine.py --maps`. Only on a rendered benchmark: the masks say what a map covers, the renderer leaves a part out.
"""

from pathlib import Path

import cv2
import numpy as np
import torch

from reidsa_utils import InputError
from reidsa_utils.benchmarks import SPLITS, load_images, resize
from reidsa_utils.cam import (
    VISIBLE,
    class_activation_maps,
    deletion_and_insertion,
    drop_and_increase,
    measures,
    overlap,
    part_shares,
    positive,
)
from reidsa_utils.metrics import euclidean, evaluate_ranking
from reidsa_utils.synthetic import LABEL, PARTS, plan, read_settings, render_shot
from reidsa_utils.training import extract, to_input

STAGES = (1, 2, 3, 4)
REMOVABLE = ("hair", "hat", "logo", "print", "skirt", "backpack", "bag")  # what a person can be without
TRAIN, SCORED = 512, 64  # images, evenly spaced: of the training set for the maps; of the test set for deletion and insertion


def evenly(split, n: int) -> np.ndarray:
    """Numbers of n of its images, evenly spaced."""
    return np.linspace(0, len(split) - 1, min(n, len(split))).astype(int)


def read_masks(benchmark, split: str, paths) -> list:
    folder = benchmark.folder / "part_masks" / SPLITS[split]
    out = []
    for path in paths:
        mask, image = folder / f"{Path(path).stem}.png", cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        out.append(cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE) if mask.exists() else None)
        if out[-1] is None or out[-1].shape != image.shape or out[-1].max() >= len(PARTS):
            raise InputError(f"{mask} is missing or not the part mask of its image; delete {benchmark.folder} and run again: it is "
                             "rendered anew")
    return out


def maps_of(model, images: np.ndarray, classes=None, batch: int = 64) -> tuple:
    """Maps of stages 1-4 and the class each shows, (N,): `classes`, or without them the most likely one by the main head."""
    maps, chosen = [], []
    for k in range(0, len(images), batch):
        with torch.no_grad():
            f = model.feature_maps(to_input(images[k:k + batch]))
            some = model.heads(f)["final"].argmax(1) if classes is None else classes[k:k + batch]
        maps.append([class_activation_maps(model, None, some, stage, maps=f) for stage in STAGES])
        chosen.append(some)
    return [torch.cat(stage) for stage in zip(*maps, strict=True)], torch.cat(chosen)


def map_numbers(maps: list, masks: list) -> dict:
    """{measure: a mean for each stage} over the images whose map has a positive value; "none": the share that has not."""
    out = {}
    for m in maps:
        numbers = measures(m, part_shares(masks, *m.shape[1:]))
        for name, values in (numbers | {"none": positive(m).isnan().any(2).any(1).double()}).items():
            out.setdefault(name, []).append(values.nanmean().item())
    return out


def scores(model, images: np.ndarray, seed: int = 0) -> dict:
    """Average drop, increase, deletion and insertion of the maps of every stage; "random": of values drawn at random in their place."""
    maps, classes = maps_of(model, images)
    x, rng = to_input(images), torch.Generator().manual_seed(seed)
    out = {"map": {}, "random": {}}
    for stage, m in zip(STAGES, maps, strict=True):
        for kind, values in (("map", m), ("random", torch.rand(m.shape, generator=rng))):
            numbers = (*drop_and_increase(model, x, classes, stage, values), *deletion_and_insertion(model, x, classes, stage, values))
            for name, v in zip(("drop", "increase", "deletion", "insertion"), numbers, strict=True):
                out[kind].setdefault(name, []).append(v.mean().item())
    return out


def without_part(settings, shot, part: str) -> np.ndarray:
    """The image of a planned shot as its file would hold it, with one part left out: (H, W, 3) uint8 RGB. part "": the file itself."""
    image, _ = render_shot(settings, shot, {part} if part else frozenset())
    if shot.filename.endswith(".jpg"):
        image = cv2.imdecode(cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1], cv2.IMREAD_COLOR)[..., ::-1]
    return np.ascontiguousarray(image)


def missing_parts(model, config, benchmark, settings, gallery: dict) -> dict:
    """Queries rendered again without one part: average precision of each vector before and after, by part; and what the maps mark.

    settings: of the renderer; gallery: features. Returns {"queries": ids, "before": {vector: AP of every query}, "after": {part:
    {"index": which queries show it, vector: their AP without it}}, "most" and "least": of every query the removable part that
    holds the most (least) energy for its area, a list for each stage, "" where none can be seen}.
    """
    query = benchmark.query
    shots = {shot.filename: shot for shot in plan(settings) if shot.split == "query"}
    shots = [shots[Path(path).name] for path in query.paths]
    images, masks = load_images(query.paths, config.height, config.width), read_masks(benchmark, "query", query.paths)

    def precision(features, vector, index):
        r = evaluate_ranking(euclidean(features, gallery[vector]), query.ids[index], benchmark.gallery.ids, query.cameras[index],
                             benchmark.gallery.cameras)
        return [None if np.isnan(v) else round(float(v), 4) for v in r.average_precision]

    everyone, before = np.arange(len(query)), extract(model, images)
    out = {"queries": query.ids.tolist(), "before": {}, "after": {}}
    for vector in before:
        out["before"][vector] = precision(before[vector], vector, everyone)
    seen = {part: np.array([(mask == LABEL[part]).mean() >= VISIBLE for mask in masks]) for part in (*REMOVABLE, "occluder")}
    for part, visible in seen.items():
        index = np.flatnonzero(visible)
        if not len(index):
            continue
        changed = [resize(without_part(settings, shots[i], part), config.height, config.width) for i in index]
        after = extract(model, np.stack(changed))
        out["after"][part] = {"index": index.tolist()}
        for vector in after:
            out["after"][part][vector] = precision(after[vector], vector, index)
    which, seen = [LABEL[part] for part in REMOVABLE], torch.from_numpy(np.stack([seen[part] for part in REMOVABLE], 1))
    out |= {"most": [], "least": []}
    for m in maps_of(model, images)[0]:
        shares = part_shares(masks, *m.shape[1:])
        area, energy = shares.mean((1, 2))[:, which], torch.einsum("bij,bijr->br", positive(m), shares)[:, which]
        density = energy / area
        usable = seen.any(1) & ~energy.isnan().any(1)
        for name, pick in (("most", density.masked_fill(~seen, -1).nan_to_num(-1).argmax(1)),
                           ("least", density.masked_fill(~seen, torch.inf).nan_to_num(torch.inf).argmin(1))):
            out[name].append([REMOVABLE[k] if ok else "" for k, ok in zip(pick.tolist(), usable.tolist(), strict=True)])
    return out


def examine_maps(model, config, benchmark) -> tuple:
    """(All numbers of one run, its maps of training images) for 07. Raises InputError where there are no masks or no classifiers."""
    if benchmark.source != "rendered":
        raise InputError(f"{benchmark.folder} is real data: there are no masks to measure maps against; name runs on a rendered benchmark")
    if not (len(model.stages) and len(model.part)):
        raise InputError(f"{config.run_dir} is a run of {config.variant}; expected a variant with parts and deep supervision (b_p_ds...)")
    if (settings := read_settings(benchmark.folder)) is None:
        raise InputError(f"{benchmark.folder} was rendered by another version of the renderer; render it again and train on that")
    chosen = evenly(benchmark.train, TRAIN)
    classes = torch.from_numpy(np.unique(benchmark.train.ids, return_inverse=True)[1][chosen])
    paths = [benchmark.train.paths[i] for i in chosen]
    own, _ = maps_of(model, load_images(paths, config.height, config.width), classes)
    out = {"train": {"images": len(paths), **map_numbers(own, read_masks(benchmark, "train", paths))}}
    maps, masks, gallery = [], [], {}
    for split in ("query", "gallery"):
        paths = getattr(benchmark, split).paths
        images = load_images(paths, config.height, config.width)
        if split == "gallery":
            gallery = extract(model, images)
        maps.append(maps_of(model, images)[0])
        masks += read_masks(benchmark, split, paths)
    maps = [torch.cat(stage) for stage in zip(*maps, strict=True)]
    out["test"] = {"images": len(masks), **map_numbers(maps, masks)}
    some = [benchmark.gallery.paths[i] for i in evenly(benchmark.gallery, SCORED)]
    out["scores"] = {"images": len(some), **scores(model, load_images(some, config.height, config.width))}
    out["missing"] = missing_parts(model, config, benchmark, settings, gallery)
    return out, own


def overlaps(own: list, others: dict) -> dict:
    """One run's maps of training images with those of other runs: {their name: {measure: a number for each stage}}.

    same: overlap; at: how strong theirs are where this run's lie, their mean over its energy, in times an even map (unlike
    overlap, a map of one cell can have as much as a wide one); chance: overlap with their maps of other images.
    """
    def at(a, b):
        return (positive(a) * positive(b)).sum(dim=(1, 2)) * a[0].numel()

    pairs = {name: list(zip(own, maps, strict=True)) for name, maps in others.items()}
    return {name: {"same": [overlap(a, b).nanmean().item() for a, b in both], "at": [at(a, b).nanmean().item() for a, b in both],
                   "chance": [overlap(a, b.roll(1, 0)).nanmean().item() for a, b in both]} for name, both in pairs.items()}
