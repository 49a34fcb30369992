"""Class activation maps (eq. 3, 5, 7) of every stage that has a classifier, and the paper's words about them as numbers."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.functional import gaussian_blur

from . import InputError, known
from .attention import effective_cells
from .model import ReIDNet
from .synthetic import PARTS

BODY = [i for i, part in enumerate(PARTS) if part not in ("background", "occluder")]
VISIBLE = 0.005  # share of the image from which on a part counts as visible


@torch.enable_grad()
def class_activation_maps(model: ReIDNet, images: Tensor | None, classes: Tensor, stage: int, head: str = "final",
                          maps: list | None = None) -> Tensor:
    """M_c of one stage for one class per image.

    images: (B, 3, H, W) as given to the model; classes: (B,) class numbers; stage: 1-3 (deep supervision) or 4; head: of
    stage 4, "final" or "part1" to "part6", whose map is zero outside its stripe; maps: what model.feature_maps(images) gave,
    so that several stages and classes share one forward pass.
    Returns (B, h, w). Each head is linear in the pooled map, once the ReLU's mask is frozen at this image, so
    M(i, j) = sum_k w_k p(i, j) f_k(i, j) with w_k = dS_c / dG_k (eq. 7; eq. 5 without SA). Its sum is the logit S_c less
    what does not depend on the map: the classifier's bias and, at stage 4, the batch norm's offsets of active units.
    The model must be in eval mode. Raises InputError for a stage or head that is not there, or a model in training mode.
    """
    if model.training:
        raise InputError("class activation maps need the model in eval mode: call model.eval() first")
    rows = checked(model, stage, head, classes, len(images if maps is None else maps[0]))
    with torch.no_grad():
        f = (model.feature_maps(images) if maps is None else maps)[stage - 1]                 # (B, C, h, w)
    B, C, h, w = f.shape
    if stage < 4:
        pooled = model.pool_stage(f).requires_grad_()                       # (B, C)  G
        (weights,) = torch.autograd.grad(model.stages[stage - 1](pooled)[rows, classes].sum(), pooled)
        share = model.own_weights(f)[:, None]                               # (B, 1, h, w)  p, 1/hw without SA
        maps = (weights[:, :, None, None] * f * share).sum(dim=1)
        scale = model.own_scale(f)
        return maps * (scale[:, :, None] if torch.is_tensor(scale) else scale)
    attended = model.attend(f)
    pooled = model.pool_parts(attended).requires_grad_()                    # (B, C, m, 1)
    logits = model.main_logits(pooled)
    (weights,) = torch.autograd.grad(logits[head][rows, classes].sum(), pooled)
    weights = weights.repeat_interleave(h // model.parts, dim=2)            # (B, C, h, 1): one w_k a stripe
    return (weights * attended).sum(dim=1) / (h * w / model.parts)


def checked(model: ReIDNet, stage: int, head: str, classes: Tensor, images: int) -> Tensor:
    """0 to B - 1. Raises InputError for a stage or head that is not there, or classes that are not one class number an image."""
    if stage not in (1, 2, 3, 4) or (stage < 4 and not len(model.stages)):
        has = "1, 2, 3 and 4" if len(model.stages) else "4 only (this variant has no deep supervision)"
        raise InputError(f"stage {stage} has no classifier; the stages that have one: {has}")
    known(f"head of stage {stage}", head, ["final", *(f"part{k + 1}" for k in range(len(model.part)))] if stage == 4 else ["final"])
    n = model.final.out_features
    if classes.shape != (images,) or classes.dtype not in (torch.int64, torch.int32) or bool(((classes < 0) | (classes >= n)).any()):
        raise InputError(f"classes are {classes.tolist()[:6]}; expected {images} whole numbers from 0 to {n - 1}, one an image: class "
                         "numbers, as np.unique(ids, return_inverse=True)[1] makes of identities")
    return torch.arange(images, device=classes.device)


def positive(maps: Tensor) -> Tensor:
    """The part of maps that speaks for the class, each to sum 1: (B, h, w), NaN for a map without a positive value."""
    p = maps.double().clamp(min=0)
    return p / p.sum(dim=(1, 2), keepdim=True)


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """How alike two maps are: sum of the smaller of the two positive maps, (B,) from 0 to 1 (histogram intersection, SIM)."""
    return torch.minimum(positive(a), positive(b)).sum(dim=(1, 2))


def part_shares(labels, h: int, w: int) -> Tensor:
    """The share of every cell that each part of the body covers: (B, H, W) part masks (indices of PARTS) -> (B, h, w, parts)."""
    def cover(cells, pixels):                                               # (cells, pixels): how much of a cell a pixel is
        edges, at = np.arange(cells + 1) * pixels / cells, np.arange(pixels)
        return np.clip(np.minimum(edges[1:, None], at + 1) - np.maximum(edges[:-1, None], at), 0, None) * cells / pixels

    H, W = labels[0].shape
    rows, columns, parts = cover(h, H), cover(w, W), np.eye(len(PARTS))
    return torch.from_numpy(np.stack([np.tensordot(rows, np.tensordot(columns, parts[mask], (1, 1)), (1, 1)) for mask in labels]))


def measures(maps: Tensor, shares: Tensor) -> dict:
    """What section 5.2 says of maps, in numbers. maps: (B, h, w); shares: (B, h, w, parts) of part_shares. Returns (B,) each:

    cells: effective cells, as a share of all; on_person: those of the energy on the person, as a share of what an even map has
    there; negative: share of the map's absolute values that speaks against the class;
    inside: energy on the person, and person: its share of the image; parts: of the visible parts, the share that holds
    at least as much of the energy as of the image; vertical, horizontal: standard deviation of the energy along an axis over
    that of an even map. Energy: of the positive part. NaN for a map without one.
    """
    B, h, w = maps.shape
    p, area = positive(maps), shares.mean(dim=(1, 2))                       # (B, h, w), (B, parts)
    energy = torch.einsum("bij,bijr->br", p, shares)
    visible = area[:, BODY] >= VISIBLE
    person = shares[..., BODY].sum(dim=3)                                   # (B, h, w)
    out = {"cells": effective_cells(maps) / (h * w), "on_person": effective_cells(p * person) / effective_cells(person),
           "negative": (-maps).clamp(min=0).sum((1, 2)) / maps.abs().sum((1, 2)),
           "inside": energy[:, BODY].sum(1), "person": area[:, BODY].sum(1),
           "parts": (((energy >= area)[:, BODY] & visible).sum(1) / visible.sum(1)).masked_fill(energy.isnan().any(dim=1), torch.nan)}
    for axis, n, marginal in (("vertical", h, p.sum(2)), ("horizontal", w, p.sum(1))):
        at = torch.arange(n, dtype=torch.float64)
        variance = marginal @ at ** 2 - (marginal @ at) ** 2
        out[axis] = (variance.clamp(min=0) * 12 / (n * n - 1)).sqrt()
    return out


def confidence(model: ReIDNet, images: Tensor, classes: Tensor, stage: int) -> Tensor:
    """Softmax probability of one class per image by the classifier of a stage (4: the main head): (B,)."""
    rows = checked(model, stage, "final", classes, len(images))
    with torch.no_grad():
        logits = model(images)["final" if stage == 4 else f"stage{stage}"]
    return logits.softmax(dim=1)[rows, classes]


def drop_and_increase(model: ReIDNet, images: Tensor, classes: Tensor, stage: int, maps: Tensor) -> tuple:
    """Average Drop and Increase in Confidence (Grad-CAM++, Chattopadhay et al. 2018), per image: ((B,), (B,)).

    The image is multiplied with its positive map, enlarged and scaled to peak 1 (so 0 is the mean colour), as in torch-cam.
    Drop: the share of the confidence that is lost, 0 where there is more; increase: 1 where there is more.
    """
    heat = functional.interpolate(maps.clamp(min=0)[:, None].float(), images.shape[2:], mode="bilinear")
    heat = heat / heat.amax((1, 2, 3), keepdim=True).clamp(min=1e-12)
    before, after = (confidence(model, x, classes, stage) for x in (images, images * heat))
    return (before - after).clamp(min=0) / before, (after > before).double()


def deletion_and_insertion(model: ReIDNet, images: Tensor, classes: Tensor, stage: int, maps: Tensor, steps: int = 8) -> tuple:
    """Areas under the deletion and the insertion curve (RISE, Petsiuk et al. 2018), per image: ((B,), (B,)).

    The cells of the map are replaced by the mean colour, highest value first, in `steps` equal steps (what Quantus calls pixel
    flipping); and put back in the same order into a blurred image. Confidence over the share of cells, trapezoid rule. Equal
    cells, of which a softmax leaves many zeros, are taken in an order drawn at random (always the same).
    """
    B, h, w = maps.shape
    lots = torch.rand(maps.flatten(1).shape, generator=torch.Generator().manual_seed(0)).argsort(dim=1)
    order = lots.gather(1, maps.flatten(1).gather(1, lots).argsort(dim=1, descending=True, stable=True))
    rank = order.argsort(dim=1).view(B, 1, h, w)
    blurred = gaussian_blur(images, kernel_size=images.shape[3] // 4 * 2 + 1, sigma=images.shape[3] / 8)
    curves = []
    for k in range(steps + 1):
        taken = functional.interpolate((rank < round(k * h * w / steps)).float(), images.shape[2:], mode="nearest") > 0
        curves.append([confidence(model, x, classes, stage) for x in (images.masked_fill(taken, 0), torch.where(taken, images, blurred))])
    return tuple(torch.trapezoid(torch.stack(curve), dim=0) / steps for curve in zip(*curves, strict=True))
