"""Class activation maps (eq. 3, 5, 7) of every stage that has a classifier."""

from numbers import Integral

import torch
from torch import Tensor

from . import InputError, known
from .attention import without_autocast
from .model import ReIDNet, class_numbers
from .support.arrays import any_array, as_tensor


@torch.inference_mode(False)
@torch.enable_grad()
def class_activation_maps(
    model: ReIDNet,
    images: Tensor | None,
    classes,
    stage: int,
    head: str = "final",
    maps: list | None = None,
) -> Tensor:
    """The class activation map M_c of one stage, for one class per image.

    Each head is linear in the pooled map G, once the ReLU's mask is frozen at this image. So
    M(i, j) = sum_k w_k p(i, j) f_k(i, j) with w_k = dS_c / dG_k (eq. 7; eq. 5 without SA). The sum
    of M is the logit S_c minus the terms that do not depend on G: the classifier's bias and, at
    stage 4, the batch norm's offsets of active units.

    M is computed in the type of the model's weights, also inside no_grad, inference_mode or
    autocast.

    model: in eval mode.
    images: (B, 3, H, W) as given to the model.
    classes: (B,) class numbers, as a list, an array or a tensor of any whole-number type.
    stage: 1 to 3 (deep supervision) or 4.
    head: "final" or, at stage 4, also "part1" to "part6". The map of a part is zero outside its
        stripe.
    maps: what model.feature_maps(images) gave, so that several stages and classes share one forward
        pass; images may then be None.
    Returns (B, h, w).
    Raises InputError for a stage or head that is not there, classes that are not one class number
    per image, or a model in training mode or made in inference mode.
    """
    if model.training:
        raise InputError(
            "class activation maps need the model in eval mode: call model.eval() first"
        )
    weight = model.final.weight
    if weight.is_inference():
        raise InputError(
            "class activation maps need gradients, and a model made inside torch.inference_mode() "
            "has none: make or load it outside"
        )
    if maps is None:
        images = model.checked_images(images)
        n_images = len(images)
    else:
        maps = _checked_maps(model, maps)
        n_images = len(maps[0])
    rows, classes = checked(model, stage, head, classes, n_images)
    with without_autocast(weight.device):
        if maps is None:
            with torch.no_grad():
                maps = model.feature_maps(images)
        f = maps[stage - 1].to(weight.dtype)  # (B, C, h, w)
        if f.is_inference():
            f = f.clone()  # a copy can take part in a gradient
        if stage < 4:
            return _branch_map(model, f, stage, rows, classes)
        return _stage4_map(model, f, head, rows, classes)


def _checked_maps(model: ReIDNet, maps) -> list[Tensor]:
    """The four maps as tensors. Raises InputError if they do not look like model.feature_maps'."""
    if isinstance(maps, (list, tuple)) and len(maps) == 4:
        maps = [as_tensor(f) for f in maps]
        shapes = [(f.dim(), f.shape[:2]) for f in maps]
        images = maps[0].shape[:1]
        if shapes == [(4, (*images, channels)) for channels in model.channels]:
            return maps
    raise InputError(
        f"maps are a {type(maps).__name__} that the network has not made; expected what "
        "model.feature_maps(images) gives"
    )


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
    weights = weights.repeat_interleave(h // model.parts, dim=2)  # (B, C, h, 1): one w_k per stripe
    return (weights * attended).sum(dim=1) / (h * w / model.parts)


def checked(model: ReIDNet, stage: int, head: str, classes, images: int) -> tuple[Tensor, Tensor]:
    """The numbers 0 to B - 1 of the images and their classes, (B,) each, on the model's device.

    images: B, how many images there are. The other arguments: see class_activation_maps.
    Raises InputError for a stage or head that is not there, or classes that are not one class
    number per image.
    """
    has_branches = len(model.stages) > 0
    if not _is_stage(stage) or (stage < 4 and not has_branches):
        if has_branches:
            stages = "1, 2, 3 and 4"
        else:
            stages = "4 only (this variant has no deep supervision)"
        raise InputError(f"stage {stage} has no classifier; the stages that have one: {stages}")

    heads = ["final"]
    if stage == 4:
        heads += [f"part{k + 1}" for k in range(len(model.part))]
    known(f"head of stage {stage}", head, heads)

    device = model.final.weight.device
    numbers = class_numbers(any_array(classes), images, model.final.out_features)
    return torch.arange(images, device=device), numbers.to(device)


def _is_stage(stage) -> bool:
    return isinstance(stage, Integral) and not isinstance(stage, bool) and 1 <= stage <= 4
