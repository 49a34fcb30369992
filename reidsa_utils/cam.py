"""Class activation maps (eq. 3, 5, 7) of every stage that has a classifier."""

import torch
from torch import Tensor

from . import InputError, known
from .model import ReIDNet


@torch.enable_grad()
def class_activation_maps(
    model: ReIDNet,
    images: Tensor | None,
    classes: Tensor,
    stage: int,
    head: str = "final",
    maps: list | None = None,
) -> Tensor:
    """M_c of one stage for one class per image.

    Each head is linear in the pooled map G, once the ReLU's mask is frozen at this image. So
    M(i, j) = sum_k w_k p(i, j) f_k(i, j) with w_k = dS_c / dG_k (eq. 7; eq. 5 without SA). The sum
    of the map is the logit S_c less what does not depend on the map: the classifier's bias and, at
    stage 4, the batch norm's offsets of active units.

    model: in eval mode.
    images: (B, 3, H, W) as given to the model.
    classes: (B,) class numbers.
    stage: 1 to 3 (deep supervision) or 4.
    head: of stage 4, "final" or "part1" to "part6", whose map is zero outside its stripe.
    maps: what model.feature_maps(images) gave, so that several stages and classes share one forward
        pass; images may then be None.
    Returns (B, h, w).
    Raises InputError for a stage or head that is not there, or a model in training mode.
    """
    if model.training:
        raise InputError(
            "class activation maps need the model in eval mode: call model.eval() first"
        )
    n_images = len(images) if maps is None else len(maps[0])
    rows = checked(model, stage, head, classes, n_images)
    if maps is None:
        with torch.no_grad():
            maps = model.feature_maps(images)
    f = maps[stage - 1]  # (B, C, h, w)
    if stage < 4:
        return _branch_map(model, f, stage, rows, classes)
    return _stage4_map(model, f, head, rows, classes)


def _branch_map(model: ReIDNet, f: Tensor, stage: int, rows: Tensor, classes: Tensor) -> Tensor:
    """The map of a DS branch, with its SA2: (B, C, h, w) -> (B, h, w)."""
    pooled = model.pool_stage(f).requires_grad_()  # (B, C)  G
    logits = model.stages[stage - 1](pooled)  # (B, num_classes)  S
    (weights,) = torch.autograd.grad(logits[rows, classes].sum(), pooled)  # (B, C)  w
    p = model.own_weights(f)[:, None]  # (B, 1, h, w), 1/hw without SA
    maps = (weights[:, :, None, None] * f * p).sum(dim=1)  # (B, h, w)  eq. 7
    scale = model.own_scale(f)
    if torch.is_tensor(scale):
        scale = scale[:, :, None]  # (B, 1, 1)
    return maps * scale


def _stage4_map(model: ReIDNet, f: Tensor, head: str, rows: Tensor, classes: Tensor) -> Tensor:
    """The map of the main or a part classifier, with SA1: (B, C, h, w) -> (B, h, w)."""
    h, w = f.shape[2:]
    attended = model.attend(f)  # (B, C, h, w)
    pooled = model.pool_parts(attended).requires_grad_()  # (B, C, m, 1)
    logits = model.main_logits(pooled)
    (weights,) = torch.autograd.grad(logits[head][rows, classes].sum(), pooled)  # (B, C, m, 1)
    weights = weights.repeat_interleave(h // model.parts, dim=2)  # (B, C, h, 1): one w_k a stripe
    return (weights * attended).sum(dim=1) / (h * w / model.parts)


def checked(model: ReIDNet, stage: int, head: str, classes: Tensor, images: int) -> Tensor:
    """The numbers 0 to B - 1 of the images, after a check of what a map is asked for.

    images: B, how many images there are. The other arguments: see class_activation_maps.
    Raises InputError for a stage or head that is not there, or classes that are not one class
    number an image.
    """
    has_branches = len(model.stages) > 0
    if stage not in (1, 2, 3, 4) or (stage < 4 and not has_branches):
        if has_branches:
            stages = "1, 2, 3 and 4"
        else:
            stages = "4 only (this variant has no deep supervision)"
        raise InputError(f"stage {stage} has no classifier; the stages that have one: {stages}")

    heads = ["final"]
    if stage == 4:
        heads += [f"part{k + 1}" for k in range(len(model.part))]
    known(f"head of stage {stage}", head, heads)

    n = model.final.out_features
    if (
        classes.shape != (images,)
        or classes.dtype not in (torch.int64, torch.int32)
        or bool(((classes < 0) | (classes >= n)).any())
    ):
        raise InputError(
            f"classes are {classes.tolist()[:6]}; expected {images} whole numbers from 0 to "
            f"{n - 1}, one an image: class numbers, as np.unique(ids, return_inverse=True)[1] "
            "makes of identities"
        )
    return torch.arange(images, device=classes.device)
