"""What section 5.2 says of class activation maps, as numbers; of a finished run, and when a part of a person is missing.

Called by `reidsa examine --maps`. Only on a rendered benchmark: the masks say what a map covers, the renderer leaves a part out.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.functional import gaussian_blur

from .. import InputError
from ..attention import effective_cells
from ..batches import to_input
from ..cam import checked, class_activation_maps
from ..data import SPLITS, load_images, resize
from ..datasets.rendered import LABEL, PARTS, plan, read_settings, render_shot
from ..evaluation import extract
from ..metrics import euclidean, evaluate_ranking
from ..model import ReIDNet
from ..support.opencv import cv2

BODY = [i for i, part in enumerate(PARTS) if part not in ("background", "occluder")]
VISIBLE = 0.005  # share of the image from which on a part counts as visible
STAGES = (1, 2, 3, 4)
REMOVABLE = (
    "hair",
    "hat",
    "logo",
    "print",
    "skirt",
    "backpack",
    "bag",
)  # what a person can be without
TRAIN, SCORED = (
    512,
    64,
)  # images, evenly spaced: of the training set for the maps; of the test set for deletion and insertion


def positive(maps: Tensor) -> Tensor:
    """The part of maps that speaks for the class, each to sum 1: (B, h, w), NaN for a map without a positive value."""
    p = maps.double().clamp(min=0)
    return p / p.sum(dim=(1, 2), keepdim=True)


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """How alike two maps are: sum of the smaller of the two positive maps, (B,) from 0 to 1 (histogram intersection, SIM)."""
    return torch.minimum(positive(a), positive(b)).sum(dim=(1, 2))


def part_shares(labels, h: int, w: int) -> Tensor:
    """The share of every cell that each part of the body covers: (B, H, W) part masks (indices of PARTS) -> (B, h, w, parts)."""

    def cover(cells, pixels):  # (cells, pixels): how much of a cell a pixel is
        edges, at = np.arange(cells + 1) * pixels / cells, np.arange(pixels)
        return (
            np.clip(np.minimum(edges[1:, None], at + 1) - np.maximum(edges[:-1, None], at), 0, None)
            * cells
            / pixels
        )

    H, W = labels[0].shape
    rows, columns, parts = cover(h, H), cover(w, W), np.eye(len(PARTS))
    return torch.from_numpy(
        np.stack(
            [
                np.tensordot(rows, np.tensordot(columns, parts[mask], (1, 1)), (1, 1))
                for mask in labels
            ]
        )
    )


def measures(maps: Tensor, shares: Tensor) -> dict:
    """What section 5.2 says of maps, in numbers. maps: (B, h, w); shares: (B, h, w, parts) of part_shares. Returns (B,) each:

    cells: effective cells, as a share of all; on_person: those of the energy on the person, as a share of what an even map has
    there; negative: share of the map's absolute values that speaks against the class;
    inside: energy on the person, and person: its share of the image; parts: of the visible parts, the share that holds
    at least as much of the energy as of the image; vertical, horizontal: standard deviation of the energy along an axis over
    that of an even map. Energy: of the positive part. NaN for a map without one.
    """
    B, h, w = maps.shape
    p, area = positive(maps), shares.mean(dim=(1, 2))  # (B, h, w), (B, parts)
    energy = torch.einsum("bij,bijr->br", p, shares)
    visible = area[:, BODY] >= VISIBLE
    person = shares[..., BODY].sum(dim=3)  # (B, h, w)
    out = {
        "cells": effective_cells(maps) / (h * w),
        "on_person": effective_cells(p * person) / effective_cells(person),
        "negative": (-maps).clamp(min=0).sum((1, 2)) / maps.abs().sum((1, 2)),
        "inside": energy[:, BODY].sum(1),
        "person": area[:, BODY].sum(1),
        "parts": (((energy >= area)[:, BODY] & visible).sum(1) / visible.sum(1)).masked_fill(
            energy.isnan().any(dim=1), torch.nan
        ),
    }
    for axis, n, marginal in (("vertical", h, p.sum(2)), ("horizontal", w, p.sum(1))):
        at = torch.arange(n, dtype=torch.float64)
        variance = marginal @ at**2 - (marginal @ at) ** 2
        out[axis] = (variance.clamp(min=0) * 12 / (n * n - 1)).sqrt()
    return out


def confidence(model: ReIDNet, images: Tensor, classes: Tensor, stage: int) -> Tensor:
    """Softmax probability of one class per image by the classifier of a stage (4: the main head): (B,)."""
    rows = checked(model, stage, "final", classes, len(images))
    with torch.no_grad():
        logits = model(images)["final" if stage == 4 else f"stage{stage}"]
    return logits.softmax(dim=1)[rows, classes]


def drop_and_increase(
    model: ReIDNet, images: Tensor, classes: Tensor, stage: int, maps: Tensor
) -> tuple:
    """Average Drop and Increase in Confidence (Grad-CAM++, Chattopadhay et al. 2018), per image: ((B,), (B,)).

    The image is multiplied with its positive map, enlarged and scaled to peak 1 (so 0 is the mean colour), as in torch-cam.
    Drop: the share of the confidence that is lost, 0 where there is more; increase: 1 where there is more.
    """
    heat = functional.interpolate(
        maps.clamp(min=0)[:, None].float(), images.shape[2:], mode="bilinear"
    )
    heat = heat / heat.amax((1, 2, 3), keepdim=True).clamp(min=1e-12)
    before, after = (confidence(model, x, classes, stage) for x in (images, images * heat))
    return (before - after).clamp(min=0) / before, (after > before).double()


def deletion_and_insertion(
    model: ReIDNet, images: Tensor, classes: Tensor, stage: int, maps: Tensor, steps: int = 8
) -> tuple:
    """Areas under the deletion and the insertion curve (RISE, Petsiuk et al. 2018), per image: ((B,), (B,)).

    The cells of the map are replaced by the mean colour, highest value first, in `steps` equal steps (what Quantus calls pixel
    flipping); and put back in the same order into a blurred image. Confidence over the share of cells, trapezoid rule. Equal
    cells, of which a softmax leaves many zeros, are taken in an order drawn at random (always the same).
    """
    B, h, w = maps.shape
    lots = torch.rand(maps.flatten(1).shape, generator=torch.Generator().manual_seed(0)).argsort(
        dim=1
    )
    order = lots.gather(
        1, maps.flatten(1).gather(1, lots).argsort(dim=1, descending=True, stable=True)
    )
    rank = order.argsort(dim=1).view(B, 1, h, w)
    blurred = gaussian_blur(
        images, kernel_size=images.shape[3] // 4 * 2 + 1, sigma=images.shape[3] / 8
    )
    curves = []
    for k in range(steps + 1):
        taken = (
            functional.interpolate(
                (rank < round(k * h * w / steps)).float(), images.shape[2:], mode="nearest"
            )
            > 0
        )
        curves.append(
            [
                confidence(model, x, classes, stage)
                for x in (images.masked_fill(taken, 0), torch.where(taken, images, blurred))
            ]
        )
    return tuple(
        torch.trapezoid(torch.stack(curve), dim=0) / steps for curve in zip(*curves, strict=True)
    )


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
            raise InputError(
                f"{mask} is missing or not the part mask of its image; delete {benchmark.folder} and run again: it is "
                "rendered anew"
            )
    return out


def maps_of(model, images: np.ndarray, classes=None, batch: int = 64) -> tuple:
    """Maps of stages 1-4 and the class each shows, (N,): `classes`, or without them the most likely one by the main head."""
    maps, chosen = [], []
    for k in range(0, len(images), batch):
        with torch.no_grad():
            f = model.feature_maps(to_input(images[k : k + batch]))
            some = model.heads(f)["final"].argmax(1) if classes is None else classes[k : k + batch]
        maps.append([class_activation_maps(model, None, some, stage, maps=f) for stage in STAGES])
        chosen.append(some)
    return [torch.cat(stage) for stage in zip(*maps, strict=True)], torch.cat(chosen)


def map_numbers(maps: list, masks: list) -> dict:
    """{measure: a mean for each stage} over the images whose map has a positive value; "none": the share that has not."""
    out = {}
    for m in maps:
        numbers = measures(m, part_shares(masks, *m.shape[1:]))
        for name, values in (
            numbers | {"none": positive(m).isnan().any(2).any(1).double()}
        ).items():
            out.setdefault(name, []).append(values.nanmean().item())
    return out


def scores(model, images: np.ndarray, seed: int = 0) -> dict:
    """Average drop, increase, deletion and insertion of the maps of every stage; "random": of values drawn at random in their place."""
    maps, classes = maps_of(model, images)
    x, rng = to_input(images), torch.Generator().manual_seed(seed)
    out = {"map": {}, "random": {}}
    for stage, m in zip(STAGES, maps, strict=True):
        for kind, values in (("map", m), ("random", torch.rand(m.shape, generator=rng))):
            numbers = (
                *drop_and_increase(model, x, classes, stage, values),
                *deletion_and_insertion(model, x, classes, stage, values),
            )
            for name, v in zip(("drop", "increase", "deletion", "insertion"), numbers, strict=True):
                out[kind].setdefault(name, []).append(v.mean().item())
    return out


def without_part(settings, shot, part: str) -> np.ndarray:
    """The image of a planned shot as its file would hold it, with one part left out: (H, W, 3) uint8 RGB. part "": the file itself."""
    image, _ = render_shot(settings, shot, {part} if part else frozenset())
    if shot.filename.endswith(".jpg"):
        image = cv2.imdecode(
            cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1],
            cv2.IMREAD_COLOR,
        )[..., ::-1]
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
    images, masks = (
        load_images(query.paths, config.height, config.width),
        read_masks(benchmark, "query", query.paths),
    )

    def precision(features, vector, index):
        r = evaluate_ranking(
            euclidean(features, gallery[vector]),
            query.ids[index],
            benchmark.gallery.ids,
            query.cameras[index],
            benchmark.gallery.cameras,
        )
        return [None if np.isnan(v) else round(float(v), 4) for v in r.average_precision]

    everyone, before = np.arange(len(query)), extract(model, images)
    out = {"queries": query.ids.tolist(), "before": {}, "after": {}}
    for vector in before:
        out["before"][vector] = precision(before[vector], vector, everyone)
    seen = {
        part: np.array([(mask == LABEL[part]).mean() >= VISIBLE for mask in masks])
        for part in (*REMOVABLE, "occluder")
    }
    for part, visible in seen.items():
        index = np.flatnonzero(visible)
        if not len(index):
            continue
        changed = [
            resize(without_part(settings, shots[i], part), config.height, config.width)
            for i in index
        ]
        after = extract(model, np.stack(changed))
        out["after"][part] = {"index": index.tolist()}
        for vector in after:
            out["after"][part][vector] = precision(after[vector], vector, index)
    which, seen = (
        [LABEL[part] for part in REMOVABLE],
        torch.from_numpy(np.stack([seen[part] for part in REMOVABLE], 1)),
    )
    out |= {"most": [], "least": []}
    for m in maps_of(model, images)[0]:
        shares = part_shares(masks, *m.shape[1:])
        area, energy = (
            shares.mean((1, 2))[:, which],
            torch.einsum("bij,bijr->br", positive(m), shares)[:, which],
        )
        density = energy / area
        usable = seen.any(1) & ~energy.isnan().any(1)
        for name, pick in (
            ("most", density.masked_fill(~seen, -1).nan_to_num(-1).argmax(1)),
            ("least", density.masked_fill(~seen, torch.inf).nan_to_num(torch.inf).argmin(1)),
        ):
            out[name].append(
                [
                    REMOVABLE[k] if ok else ""
                    for k, ok in zip(pick.tolist(), usable.tolist(), strict=True)
                ]
            )
    return out


def examine_maps(model, config, benchmark) -> tuple:
    """(All numbers of one run, its maps of training images) for 07. Raises InputError where there are no masks or no classifiers."""
    if benchmark.source != "rendered":
        raise InputError(
            f"{benchmark.folder} is real data: there are no masks to measure maps against; name runs on a rendered benchmark"
        )
    if not (len(model.stages) and len(model.part)):
        raise InputError(
            f"{config.run_dir} is a run of {config.variant}; expected a variant with parts and deep supervision (b_p_ds...)"
        )
    if (settings := read_settings(benchmark.folder)) is None:
        raise InputError(
            f"{benchmark.folder} was rendered by another version of the renderer; render it again and train on that"
        )
    chosen = evenly(benchmark.train, TRAIN)
    classes = torch.from_numpy(np.unique(benchmark.train.ids, return_inverse=True)[1][chosen])
    paths = [benchmark.train.paths[i] for i in chosen]
    own, _ = maps_of(model, load_images(paths, config.height, config.width), classes)
    out = {
        "train": {"images": len(paths), **map_numbers(own, read_masks(benchmark, "train", paths))}
    }
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
    out["scores"] = {
        "images": len(some),
        **scores(model, load_images(some, config.height, config.width)),
    }
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
    return {
        name: {
            "same": [overlap(a, b).nanmean().item() for a, b in both],
            "at": [at(a, b).nanmean().item() for a, b in both],
            "chance": [overlap(a, b.roll(1, 0)).nanmean().item() for a, b in both],
        }
        for name, both in pairs.items()
    }
