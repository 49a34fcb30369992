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

    images: (B, 3, H, W) as given to the model; classes: (B,) class numbers; stage: 1-3 (deep supervision) or 4; head: of
    stage 4, "final" or "part1" to "part6", whose map is zero outside its stripe; maps: what model.feature_maps(images) gave,
    so that several stages and classes share one forward pass.
    Returns (B, h, w). Each head is linear in the pooled map, once the ReLU's mask is frozen at this image, so
    M(i, j) = sum_k w_k p(i, j) f_k(i, j) with w_k = dS_c / dG_k (eq. 7; eq. 5 without SA). Its sum is the logit S_c less
    what does not depend on the map: the classifier's bias and, at stage 4, the batch norm's offsets of active units.
    The model must be in eval mode. Raises InputError for a stage or head that is not there, or a model in training mode.
    """
    if model.training:
        raise InputError(
            "class activation maps need the model in eval mode: call model.eval() first"
        )
    rows = checked(model, stage, head, classes, len(images if maps is None else maps[0]))
    with torch.no_grad():
        f = (model.feature_maps(images) if maps is None else maps)[stage - 1]  # (B, C, h, w)
    B, C, h, w = f.shape
    if stage < 4:
        pooled = model.pool_stage(f).requires_grad_()  # (B, C)  G
        (weights,) = torch.autograd.grad(
            model.stages[stage - 1](pooled)[rows, classes].sum(), pooled
        )
        share = model.own_weights(f)[:, None]  # (B, 1, h, w)  p, 1/hw without SA
        maps = (weights[:, :, None, None] * f * share).sum(dim=1)
        scale = model.own_scale(f)
        return maps * (scale[:, :, None] if torch.is_tensor(scale) else scale)
    attended = model.attend(f)
    pooled = model.pool_parts(attended).requires_grad_()  # (B, C, m, 1)
    logits = model.main_logits(pooled)
    (weights,) = torch.autograd.grad(logits[head][rows, classes].sum(), pooled)
    weights = weights.repeat_interleave(h // model.parts, dim=2)  # (B, C, h, 1): one w_k a stripe
    return (weights * attended).sum(dim=1) / (h * w / model.parts)


def checked(model: ReIDNet, stage: int, head: str, classes: Tensor, images: int) -> Tensor:
    """0 to B - 1. Raises InputError for a stage or head that is not there, or classes that are not one class number an image."""
    if stage not in (1, 2, 3, 4) or (stage < 4 and not len(model.stages)):
        has = (
            "1, 2, 3 and 4"
            if len(model.stages)
            else "4 only (this variant has no deep supervision)"
        )
        raise InputError(f"stage {stage} has no classifier; the stages that have one: {has}")
    known(
        f"head of stage {stage}",
        head,
        ["final", *(f"part{k + 1}" for k in range(len(model.part)))] if stage == 4 else ["final"],
    )
    n = model.final.out_features
    if (
        classes.shape != (images,)
        or classes.dtype not in (torch.int64, torch.int32)
        or bool(((classes < 0) | (classes >= n)).any())
    ):
        raise InputError(
            f"classes are {classes.tolist()[:6]}; expected {images} whole numbers from 0 to {n - 1}, one an image: class "
            "numbers, as np.unique(ids, return_inverse=True)[1] makes of identities"
        )
    return torch.arange(images, device=classes.device)
