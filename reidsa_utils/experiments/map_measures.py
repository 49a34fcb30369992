"""What section 5.2 of the paper says of class activation maps, as numbers.

The first half is about maps and part masks alone. The second half is about a finished run: its
maps, and its retrieval when a part of a person is missing. Both need a rendered benchmark: its
masks say what a map covers, and its renderer can leave a part out. `reidsa examine --maps` calls
this module.
"""

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .. import InputError
from ..attention import effective_cells, without_autocast
from ..batches import to_input
from ..cam import checked, class_activation_maps
from ..data import SPLITS, decode, load_images, resize
from ..datasets.rendered import LABEL, PARTS, encode_image, plan, read_settings, render_shot
from ..evaluation import extract
from ..metrics import euclidean, evaluate_ranking
from ..model import ReIDNet
from ..support.arrays import as_tensor
from ..support.opencv import cv2

BODY = [i for i, part in enumerate(PARTS) if part not in ("background", "occluder")]
VISIBLE = 0.005  # a part counts as visible from this share of the image on
STAGES = (1, 2, 3, 4)
# Parts that the renderer can leave out.
REMOVABLE = ("hair", "hat", "logo", "print", "skirt", "backpack", "bag")
TRAIN = 512  # training images whose maps are measured, evenly spaced
SCORED = 64  # gallery images for deletion and insertion, evenly spaced


def positive(maps: Tensor) -> Tensor:
    """The energy of maps: their positive values, which support the class, scaled to sum 1.

    maps: (B, h, w). Returns (B, h, w), each of sum 1; NaN for a map without a positive value.
    """
    p = _as_maps(maps).double().clamp(min=0)
    return p / p.sum(dim=(1, 2), keepdim=True)


def _as_maps(maps) -> Tensor:
    """Maps (B, h, w) as a tensor. Raises InputError for other shapes."""
    maps = as_tensor(maps)
    if maps.dim() != 3 or 0 in maps.shape:
        raise InputError(f"maps of shape {tuple(maps.shape)}; expected (B, h, w)")
    return maps


def _energies(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """positive() of two maps (B, h, w). Raises InputError for maps of different shapes."""
    a = positive(a)
    b = positive(b)
    if a.shape != b.shape:
        raise InputError(
            f"maps of shapes {tuple(a.shape)} and {tuple(b.shape)}; expected one shape"
        )
    return a, b


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """How alike two maps are: the sum over positions of the smaller of the two energies.

    a, b: (B, h, w). Returns (B,), from 0 to 1. This is called histogram intersection, or SIM.
    """
    return torch.minimum(*_energies(a, b)).sum(dim=(1, 2))


def strength_at(a: Tensor, b: Tensor) -> Tensor:
    """How strong map b is where map a is strong: the mean of b, weighted by the energy of a.

    a, b: (B, h, w). Returns (B,); 1 is the value of a perfectly flat map. Unlike in overlap(), a
    map that is concentrated on one position can score as high as a wide map.
    """
    a, b = _energies(a, b)
    return (a * b).sum(dim=(1, 2)) * a[0].numel()


def part_shares(labels, h: int, w: int) -> Tensor:
    """The share of every position of a map that each part of the body covers.

    labels: B part masks (H, W), indices of PARTS. h, w: size of the map; they need not divide H and
    W.
    Returns (B, h, w, parts) float64.
    """
    height, width = labels[0].shape
    rows = _coverage(h, height)  # (h, H)
    columns = _coverage(w, width)  # (w, W)
    one_hot = np.eye(len(PARTS))
    shares = []
    for mask in labels:
        by_column = np.tensordot(columns, one_hot[mask], (1, 1))  # (w, H, parts)
        shares.append(np.tensordot(rows, by_column, (1, 1)))  # (h, w, parts)
    return torch.from_numpy(np.stack(shares))


def _coverage(positions: int, pixels: int) -> np.ndarray:
    """The share of each position of an axis that each pixel covers: (positions, pixels).

    Each row sums to 1.
    """
    edges = np.arange(positions + 1) * pixels / positions
    start = np.arange(pixels)
    common = np.minimum(edges[1:, None], start + 1) - np.maximum(edges[:-1, None], start)
    return np.clip(common, 0, None) * positions / pixels


def part_energy(maps: Tensor, shares: Tensor) -> Tensor:
    """How much of each map's energy lies on each part: (B, parts).

    maps: (B, h, w). shares: (B, h, w, parts), from part_shares().
    """
    return torch.einsum("bij,bijr->br", positive(maps), shares)


def effective_share(maps: Tensor) -> Tensor:
    """How widely a map is spread: its effective number of positions, as a share of all.

    maps: (B, h, w). Returns (B,).
    """
    maps = _as_maps(maps)
    return effective_cells(maps) / maps[0].numel()


def effective_share_on_person(maps: Tensor, shares: Tensor) -> Tensor:
    """How widely the energy on the person is spread, relative to a flat map.

    maps: (B, h, w). shares: (B, h, w, parts), from part_shares().
    Returns (B,): the effective number of positions, divided by that of a map that is flat on the
    person.
    """
    p = positive(maps)
    person = shares[..., BODY].sum(dim=3)  # (B, h, w)
    return effective_cells(p * person) / effective_cells(person)


def negative_share(maps: Tensor) -> Tensor:
    """The share of a map's absolute values that speaks against the class.

    maps: (B, h, w). Returns (B,).
    """
    maps = _as_maps(maps)
    return (-maps).clamp(min=0).sum((1, 2)) / maps.abs().sum((1, 2))


def energy_on_person(maps: Tensor, shares: Tensor) -> Tensor:
    """The share of a map's energy that lies on the person.

    maps: (B, h, w). shares: (B, h, w, parts), from part_shares(). Returns (B,).
    """
    return part_energy(maps, shares)[:, BODY].sum(1)


def person_share(shares: Tensor) -> Tensor:
    """The share of the image that the person fills.

    shares: (B, h, w, parts), from part_shares(). Returns (B,).
    """
    return shares.mean(dim=(1, 2))[:, BODY].sum(1)


def parts_marked(maps: Tensor, shares: Tensor) -> Tensor:
    """The share of the visible parts whose share of the energy is at least that of the image.

    maps: (B, h, w). shares: (B, h, w, parts), from part_shares(). Returns (B,).
    """
    energy = part_energy(maps, shares)  # (B, parts)
    area = shares.mean(dim=(1, 2))  # (B, parts)
    visible = area[:, BODY] >= VISIBLE
    marked = (energy >= area)[:, BODY] & visible
    share = marked.sum(1) / visible.sum(1)
    return share.masked_fill(energy.isnan().any(dim=1), torch.nan)


def vertical_spread(maps: Tensor) -> Tensor:
    """The standard deviation of a map's energy along the height, divided by that of a flat map.

    maps: (B, h, w). Returns (B,).
    """
    return _relative_deviation(positive(maps).sum(2))


def horizontal_spread(maps: Tensor) -> Tensor:
    """The standard deviation of a map's energy along the width, divided by that of a flat map.

    maps: (B, h, w). Returns (B,).
    """
    return _relative_deviation(positive(maps).sum(1))


def _relative_deviation(marginal: Tensor) -> Tensor:
    """Standard deviation of distributions (B, n) on 0 .. n - 1, divided by that of a flat one."""
    n = marginal.shape[1]
    at = torch.arange(n, dtype=torch.float64)
    variance = marginal @ at**2 - (marginal @ at) ** 2
    return (variance.clamp(min=0) * 12 / (n * n - 1)).sqrt()


def measures(maps: Tensor, shares: Tensor) -> dict[str, Tensor]:
    """All measures of maps: {name: (B,)}; most are NaN for a map without a positive value.

    maps: (B, h, w). shares: (B, h, w, parts), from part_shares().
    """
    return {
        "cells": effective_share(maps),
        "on_person": effective_share_on_person(maps, shares),
        "negative": negative_share(maps),
        "inside": energy_on_person(maps, shares),
        "person": person_share(shares),
        "parts": parts_marked(maps, shares),
        "vertical": vertical_spread(maps),
        "horizontal": horizontal_spread(maps),
    }


def map_numbers(maps: list[Tensor], masks: list) -> dict[str, list[float]]:
    """{measure: its mean for each stage} over the images whose map has a positive value.

    maps: (B, h, w) of each stage. masks: B part masks. "none" is the share of images whose map has
    no positive value.
    """
    numbers = {}
    for stage_maps in maps:
        measured = measures(stage_maps, part_shares(masks, *stage_maps.shape[1:]))
        measured["none"] = positive(stage_maps).isnan().any(2).any(1).double()
        for name, values in measured.items():
            numbers.setdefault(name, []).append(values.nanmean().item())
    return numbers


def overlaps(own: list[Tensor], others: dict[str, list[Tensor]]) -> dict[str, dict]:
    """Compare one run's maps of training images with those of other runs, at each stage.

    own: (B, h, w) of each stage. others: {name of a run: the same}.
    Returns {name of a run: {measure: a number for each stage}}. The measures are "same", overlap();
    "at", strength_at(); and "chance", overlap() with the other run's maps of other images.
    """
    compared = {}
    for name, maps in others.items():
        numbers = {"same": [], "at": [], "chance": []}
        for a, b in zip(own, maps, strict=True):
            numbers["same"].append(overlap(a, b).nanmean().item())
            numbers["at"].append(strength_at(a, b).nanmean().item())
            numbers["chance"].append(overlap(a, b.roll(1, 0)).nanmean().item())
        compared[name] = numbers
    return compared


def confidence(model: ReIDNet, images: Tensor, classes: Tensor, stage: int) -> Tensor:
    """Softmax probability of one class per image by the classifier of a stage.

    images: (B, 3, H, W). classes: (B,). stage: 1 to 4; 4 is the main head. Returns (B,).
    Raises InputError as class_activation_maps() does.
    """
    images = model.checked_images(images)
    rows, classes = checked(model, stage, "final", classes, len(images))
    head = "final" if stage == 4 else f"stage{stage}"
    with torch.no_grad(), without_autocast(rows.device):
        logits = model(images)[head]
    return logits.softmax(dim=1)[rows, classes]


def drop_and_increase(
    model: ReIDNet, images: Tensor, classes: Tensor, stage: int, maps: Tensor
) -> tuple[Tensor, Tensor]:
    """Average Drop and Increase in Confidence, per image (Grad-CAM++, Chattopadhay et al. 2018).

    The normalised image is multiplied by its positive map, which is enlarged and scaled to peak 1,
    as in torch-cam. Where the map is 0, the result is the mean colour.
    images: (B, 3, H, W). classes: (B,). stage: 1 to 4. maps: (B, h, w).
    Returns two tensors (B,): the share of the confidence that is lost (0 if it rises), and 1 if the
    confidence rises, else 0.
    """
    images = model.checked_images(images)
    energy = _as_maps(maps).clamp(min=0)[:, None].float()
    heat = functional.interpolate(energy, images.shape[2:], mode="bilinear")
    heat = heat / heat.amax((1, 2, 3), keepdim=True).clamp(min=1e-12)
    before = confidence(model, images, classes, stage)
    after = confidence(model, images * heat, classes, stage)
    return (before - after).clamp(min=0) / before, (after > before).double()


def deletion_and_insertion(
    model: ReIDNet, images: Tensor, classes: Tensor, stage: int, maps: Tensor, steps: int = 8
) -> tuple[Tensor, Tensor]:
    """Areas under the deletion and the insertion curve, per image (RISE, Petsiuk et al. 2018).

    Deletion replaces the positions of the map by the mean colour, highest value first, in `steps`
    equal steps (Quantus calls this pixel flipping). Insertion puts them back in the same order into
    a blurred image. The area is that under the confidence against the share of positions, by the
    trapezoid rule. Positions of equal value, such as the many zeros of a softmax, come in a random
    order, which is always the same.
    images: (B, 3, H, W). classes: (B,). stage: 1 to 4. maps: (B, h, w).
    Returns the two areas, (B,) each.
    """
    # Imported here for the same reason as in model.py.
    from torchvision.transforms.functional import gaussian_blur

    images = model.checked_images(images)
    maps = _as_maps(maps)
    B, h, w = maps.shape
    rank = _ranks(maps.flatten(1)).view(B, 1, h, w)
    height, width = images.shape[2:]
    blurred = gaussian_blur(images, kernel_size=width // 4 * 2 + 1, sigma=width / 8)
    deletion, insertion = [], []
    for k in range(steps + 1):
        taken = (rank < round(k * h * w / steps)).float()
        taken = functional.interpolate(taken, (height, width), mode="nearest") > 0
        deleted = images.masked_fill(taken, 0)
        inserted = torch.where(taken, images, blurred)
        deletion.append(confidence(model, deleted, classes, stage))
        insertion.append(confidence(model, inserted, classes, stage))
    deletion_area = torch.trapezoid(torch.stack(deletion), dim=0) / steps
    insertion_area = torch.trapezoid(torch.stack(insertion), dim=0) / steps
    return deletion_area, insertion_area


def _ranks(values: Tensor) -> Tensor:
    """The rank of every value (B, n) in its row, 0 for the highest. Ties are in random order."""
    generator = torch.Generator().manual_seed(0)
    lots = torch.rand(values.shape, generator=generator).argsort(dim=1)
    shuffled = values.gather(1, lots)
    order = lots.gather(1, shuffled.argsort(dim=1, descending=True, stable=True))
    return order.argsort(dim=1)


def evenly(split, n: int) -> np.ndarray:
    """The numbers of n images of a split, (n,), evenly spaced; of all images if there are fewer."""
    return np.linspace(0, len(split) - 1, min(n, len(split))).astype(int)


def read_masks(benchmark, split: str, paths) -> list[np.ndarray]:
    """Read the part masks of images: (H, W) uint8 each, indices of PARTS.

    Raises InputError for a mask that is missing or does not fit its image.
    """
    folder = benchmark.folder / "part_masks" / SPLITS[split]
    masks = []
    for path in paths:
        file = folder / f"{Path(path).stem}.png"
        image = decode(path, cv2.IMREAD_GRAYSCALE)
        mask = None
        with contextlib.suppress(InputError):
            mask = decode(file, cv2.IMREAD_GRAYSCALE)
        if mask is None or mask.shape != image.shape or mask.max() >= len(PARTS):
            raise InputError(
                f"{file} is missing or not the part mask of its image; delete {benchmark.folder} "
                "and run again: it is rendered anew"
            )
        masks.append(mask)
    return masks


def maps_of(model, images: np.ndarray, classes=None, batch: int = 64) -> tuple[list, Tensor]:
    """Class activation maps of stages 1 to 4, and the class that each shows.

    images: (N, H, W, 3) uint8. classes: (N,), or None for the main head's most likely classes.
    Returns [(N, h, w) of each stage] and (N,).
    """
    batches, shown = [], []
    for k in range(0, len(images), batch):
        with torch.no_grad(), without_autocast("cpu"):
            f = model.feature_maps(to_input(images[k : k + batch]))
            if classes is None:
                own_classes = model.heads(f)["final"].argmax(1)
            else:
                own_classes = classes[k : k + batch]
        batches.append(
            [class_activation_maps(model, None, own_classes, stage, maps=f) for stage in STAGES]
        )
        shown.append(own_classes)
    maps = [torch.cat(stage) for stage in zip(*batches, strict=True)]
    return maps, torch.cat(shown)


def scores(model, images: np.ndarray, seed: int = 0) -> dict[str, dict]:
    """Average drop, increase, deletion and insertion of the maps of every stage.

    images: (N, H, W, 3) uint8. Returns {"map": {score: a number for each stage}, "random": the same
    for random values in the place of the maps}.
    """
    maps, classes = maps_of(model, images)
    x = to_input(images)
    rng = torch.Generator().manual_seed(seed)
    scored = {"map": {}, "random": {}}
    for stage, stage_maps in zip(STAGES, maps, strict=True):
        random_maps = torch.rand(stage_maps.shape, generator=rng)
        for kind, values in (("map", stage_maps), ("random", random_maps)):
            drop, increase = drop_and_increase(model, x, classes, stage, values)
            deletion, insertion = deletion_and_insertion(model, x, classes, stage, values)
            numbers = {
                "drop": drop,
                "increase": increase,
                "deletion": deletion,
                "insertion": insertion,
            }
            for name, per_image in numbers.items():
                scored[kind].setdefault(name, []).append(per_image.mean().item())
    return scored


def without_part(settings, shot, part: str) -> np.ndarray:
    """The image of a planned shot as its file would hold it, with one part left out.

    settings: of the renderer. part: one of PARTS, or "" for the file itself.
    Returns (H, W, 3) uint8 RGB.
    """
    left_out = {part} if part else frozenset()
    image, _ = render_shot(settings, shot, left_out)
    file = np.frombuffer(encode_image(image, shot.filename), np.uint8)
    bgr = cv2.imdecode(file, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(bgr[..., ::-1])


def missing_parts(model, config, benchmark, settings, gallery: dict) -> dict:
    """Render the queries again without one part: what retrieval loses, and what maps had marked.

    settings: of the renderer. gallery: {vector: features of the gallery}.
    Returns {"queries": ids, "before": {vector: AP of every query}, "after": {part: {"index": which
    queries show it, vector: their AP without it}}, "most" and "least": for each stage a list with
    the removable part of every query that holds the most (least) energy per area, "" if none is
    visible}.
    """
    query = benchmark.query
    images = load_images(query.paths, config.height, config.width)
    masks = read_masks(benchmark, "query", query.paths)
    shot_of = {shot.filename: shot for shot in plan(settings) if shot.split == "query"}
    shots = [shot_of[Path(path).name] for path in query.paths]
    visible = {}  # {part: (N,) bool}
    for part in (*REMOVABLE, "occluder"):
        visible[part] = np.array([(mask == LABEL[part]).mean() >= VISIBLE for mask in masks])

    everyone = np.arange(len(query))
    before = {}
    for vector, features in extract(model, images).items():
        before[vector] = _precision(features, gallery[vector], benchmark, everyone)

    after = {}
    for part, shows_it in visible.items():
        index = np.flatnonzero(shows_it)
        if len(index) == 0:
            continue
        changed = []
        for i in index:
            image = without_part(settings, shots[i], part)
            changed.append(resize(image, config.height, config.width))
        after[part] = {"index": index.tolist()}
        for vector, features in extract(model, np.stack(changed)).items():
            after[part][vector] = _precision(features, gallery[vector], benchmark, index)

    most, least = [], []
    for stage_maps in maps_of(model, images)[0]:
        most_marked, least_marked = _most_and_least_marked(stage_maps, masks, visible)
        most.append(most_marked)
        least.append(least_marked)
    return {
        "queries": query.ids.tolist(),
        "before": before,
        "after": after,
        "most": most,
        "least": least,
    }


def _precision(query_features, gallery_features, benchmark, index: np.ndarray) -> list:
    """Average precision of some queries; None for a query without a match.

    index: the numbers of the queries, in rising order.
    """
    chosen = np.isin(np.arange(len(benchmark.query)), index)
    some = replace(benchmark, query=benchmark.query.subset(chosen))
    result = evaluate_ranking(euclidean(query_features, gallery_features), *some.truth)
    rounded = []
    for value in result.average_precision:
        rounded.append(None if np.isnan(value) else round(float(value), 4))
    return rounded


def _most_and_least_marked(maps: Tensor, masks: list, visible: dict) -> tuple[list, list]:
    """The removable part with the most, and with the least, energy per area; "" if none is visible.

    maps: (N, h, w). masks: N part masks. visible: {part: (N,) bool}. Returns two lists of N names.
    """
    labels = [LABEL[part] for part in REMOVABLE]
    seen = torch.from_numpy(np.stack([visible[part] for part in REMOVABLE], 1))  # (N, removable)
    shares = part_shares(masks, *maps.shape[1:])
    area = shares.mean((1, 2))[:, labels]
    energy = part_energy(maps, shares)[:, labels]
    density = energy / area
    usable = seen.any(1) & ~energy.isnan().any(1)
    most = density.masked_fill(~seen, -1).nan_to_num(-1).argmax(1)
    least = density.masked_fill(~seen, torch.inf).nan_to_num(torch.inf).argmin(1)
    return _removable_names(most, usable), _removable_names(least, usable)


def _removable_names(numbers: Tensor, usable: Tensor) -> list[str]:
    names = []
    for number, is_usable in zip(numbers.tolist(), usable.tolist(), strict=True):
        names.append(REMOVABLE[number] if is_usable else "")
    return names


def examine_maps(model, config, benchmark) -> tuple[dict, list[Tensor]]:
    """Measure the maps of one run, for notebook 07.

    Returns all numbers, and the maps of training images, (N, h, w) of each stage.
    Raises InputError if there are no masks, or if the variant has no parts or no branches.
    """
    if benchmark.source != "rendered":
        raise InputError(
            f"{benchmark.folder} is real data: there are no masks to measure maps against; name "
            "runs on a rendered benchmark"
        )
    if len(model.stages) == 0 or len(model.part) == 0:
        raise InputError(
            f"{config.run_dir} is a run of {config.variant}; expected a variant with parts and "
            "deep supervision (b_p_ds...)"
        )
    settings = read_settings(benchmark.folder)
    if settings is None:
        raise InputError(
            f"{benchmark.folder} was rendered by another version of the renderer; render it again "
            "and train on that"
        )

    numbers = {}
    chosen = evenly(benchmark.train, TRAIN)
    _, classes = np.unique(benchmark.train.ids, return_inverse=True)
    paths = [benchmark.train.paths[i] for i in chosen]
    images = load_images(paths, config.height, config.width)
    train_maps, _ = maps_of(model, images, torch.from_numpy(classes[chosen]))
    train_numbers = map_numbers(train_maps, read_masks(benchmark, "train", paths))
    numbers["train"] = {"images": len(paths), **train_numbers}

    images = load_images(benchmark.query.paths, config.height, config.width)
    query_maps, _ = maps_of(model, images)
    images = load_images(benchmark.gallery.paths, config.height, config.width)
    gallery_features = extract(model, images)
    gallery_maps, _ = maps_of(model, images)
    test_maps = [torch.cat(both) for both in zip(query_maps, gallery_maps, strict=True)]
    masks = read_masks(benchmark, "query", benchmark.query.paths)
    masks += read_masks(benchmark, "gallery", benchmark.gallery.paths)
    numbers["test"] = {"images": len(masks), **map_numbers(test_maps, masks)}

    scored = [benchmark.gallery.paths[i] for i in evenly(benchmark.gallery, SCORED)]
    images = load_images(scored, config.height, config.width)
    numbers["scores"] = {"images": len(scored), **scores(model, images)}
    numbers["missing"] = missing_parts(model, config, benchmark, settings, gallery_features)
    return numbers, train_maps
