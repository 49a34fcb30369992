"""Class activation maps (eq. 3, 5, 7) of every stage that has a classifier."""

import torch
from torch import Tensor

from . import InputError
from .attention import attention_weights
from .model import ReIDNet


def class_activation_maps(model: ReIDNet, images: Tensor, classes: Tensor, stage: int) -> Tensor:
    """M_c of one stage for one class per image.

    images: (B, 3, H, W) as given to the model; classes: (B,) class numbers; stage: 1-3 (deep supervision) or 4 (main head).
    Returns (B, h, w). Each head is linear in the pooled map, once the ReLU's mask is frozen at this image, so
    M(i, j) = sum_k w_k p(i, j) f_k(i, j) with w_k = dS_c / dG_k (eq. 7; eq. 5 without SA). Its sum is the logit S_c less
    what does not depend on the map: the classifier's bias and, at stage 4, the batch norm's offsets of active units.
    The model must be in eval mode. Raises InputError for a stage without a classifier or a model in training mode.
    """
    if model.training:
        raise InputError("class activation maps need the model in eval mode: call model.eval() first")
    if stage not in (1, 2, 3, 4) or (stage < 4 and not len(model.stages)):
        has = "1, 2, 3 and 4" if len(model.stages) else "4 only (this variant has no deep supervision)"
        raise InputError(f"stage {stage} has no classifier; the stages that have one: {has}")
    rows = torch.arange(len(images), device=images.device)
    with torch.no_grad():
        f = model.feature_maps(images)[stage - 1]                           # (B, C, h, w)
    B, C, h, w = f.shape
    if stage < 4:
        pooled = model.pool_stage(f).requires_grad_()                       # (B, C)  G
        weights = _gradient(model.stages[stage - 1](pooled)[rows, classes], pooled)[:, :, None, None]
        share = attention_weights(f, model.sa2_form)[:, None]               # (B, 1, h, w)  p, 1/hw without SA
        return (weights * f * share).sum(dim=1) * model.pool_scale(model.sa2_form, h * w)
    with torch.no_grad():
        attended = model.attend(f)
    pooled = model.pool_parts(attended).requires_grad_()                    # (B, C, m, 1)
    weights = _gradient(model.main_logits(pooled)["final"][rows, classes], pooled)
    weights = weights.repeat_interleave(h // model.parts, dim=2)            # (B, C, h, 1): one w_k a stripe
    return (weights * attended).sum(dim=1) / (h * w / model.parts)


def _gradient(scores: Tensor, pooled: Tensor) -> Tensor:
    return torch.autograd.grad(scores.sum(), pooled)[0].detach()
