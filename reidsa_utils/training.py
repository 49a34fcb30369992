"""One epoch of training: the learning rate, the steps, and a look inside.

All random numbers of an epoch come from generators seeded by (seed, epoch), so a checkpoint stores
no generator. The loop over epochs, with data, checkpoints and record, is Run.train_epochs in
experiments/run.py.
"""

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import InputError
from .attention import FORMS, attention_weights, effective_cells
from .batches import augment, to_input
from .config import Config
from .model import ReIDNet, reid_loss
from .support import processes

# Raise this number when a change of the code makes the same settings, images and machine give other
# digits. That is so if the steps stored in tests/two_steps.json change, or if images are prepared
# differently for the network. A record holds this number; only runs with the same one are compared.
NUMERICS = 2
ORDER_STREAM = 7  # the random stream of an epoch's order differs by this from others of the seed


@dataclass
class Trainer:
    """Everything that a training step needs."""

    config: Config
    model: ReIDNet
    step_model: Any  # what is called: the model itself, compiled, or wrapped for several processes
    optimizer: torch.optim.Optimizer
    device: str
    precision: torch.dtype


def check_mode() -> None:
    """Raises InputError if the caller has set torch to a mode that prevents training."""
    if torch.is_inference_mode_enabled() or not torch.is_grad_enabled():
        raise InputError(
            "training needs gradients: call it outside of torch.no_grad() and "
            "torch.inference_mode()"
        )
    if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
        raise InputError(
            "training sets its precision itself: call it outside of torch.autocast, and ask for "
            "precision=bfloat16 if that is wanted"
        )
    if torch.get_default_dtype() != torch.float32:
        raise InputError(
            f"training needs torch's default type, and it is set to {torch.get_default_dtype()}: "
            "call torch.set_default_dtype(torch.float32) first"
        )


def learning_rate(config: Config, epoch: int, step: int) -> float:
    """The learning rate of the new layers. `step` and `epoch` are counted over the run, from 0."""
    decayed = epoch >= round(config.decay_at * config.epochs)
    lr = config.lr * (0.1 if decayed else 1.0)
    if not config.warmup:
        return lr
    return lr * min(1.0, 0.01 + 0.99 * step / config.warmup)


def seed_epoch(seed: int, epoch: int, rank: int = 0) -> np.random.Generator:
    """Seed everything that is random in an epoch.

    This seeds torch, for dropout and, on a GPU, for the noise inside erased rectangles.
    epoch: from 0.
    rank: number of this process among several; each draws its own dropout.
    Returns the generator for the order of the images, the flips and the erasing.
    """
    torch.manual_seed(seed * 1_000_003 + epoch + rank * 500_009)
    return np.random.default_rng([seed, ORDER_STREAM, epoch])


def train_epoch(trainer: Trainer, epoch: int, images, targets: Tensor, update) -> tuple[dict, dict]:
    """Train for one epoch.

    images: (N, H, W, 3) uint8, an array, or a tensor on the GPU. targets: (N,) classes.
    update: called after each step with the number of images, the epoch and the loss.
    Returns two dicts: the epoch's line of the history, and its times.

    Several processes each draw the whole batch and take every world-th image of it. So the data and
    their order are those of one process, and the loss is the mean over the processes. Batch norm
    sees a process's own share (on GPUs: the whole batch). On GPUs each process draws its own noise
    inside erased rectangles.
    Raises InputError for a loss that is not finite, and as check_mode does.
    """
    check_mode()
    config, model = trainer.config, trainer.model
    rank, world = processes.rank_and_world()
    rng = seed_epoch(config.seed, epoch, rank)
    order = rng.permutation(len(targets))
    steps = len(targets) // config.batch  # the last, smaller batch is dropped, as in released code
    sums = EpochSums(model)
    started, waited = time.perf_counter(), 0.0
    model.train()
    for step in range(steps):
        lr = learning_rate(config, epoch, epoch * steps + step)
        set_learning_rate(trainer.optimizer, lr)

        batch_started = time.perf_counter()
        chosen = order[step * config.batch : (step + 1) * config.batch]
        x, target = make_batch(trainer, images, targets, chosen, rng)
        waited += time.perf_counter() - batch_started

        logits, maps, loss = forward_and_loss(trainer, x, target, epoch)
        # To read the loss is to wait for the GPU, so it is read in some steps only. In the others,
        # `update` gets an older loss.
        if trainer.device == "cpu" or step % 20 == 0 or step == steps - 1:
            # If the loss of one process is not finite, the mean is not finite in all of them.
            loss_value = float(processes.mean_over_processes([loss.item()], trainer.device)[0])
            check_finite(loss_value, epoch, step, steps, lr)
        if step == 0:
            first_step = look_inside(model, maps, target)
        backward_and_step(trainer, loss)
        sums.add(logits, target, loss)
        update(config.batch, epoch=epoch + 1, loss=loss_value)

    seconds = time.perf_counter() - started
    line = {"epoch": epoch + 1, **sums.means(world, steps * config.batch, lr, trainer.device)}
    timing = {
        "seconds": round(seconds, 3),
        "images_per_second": round(steps * config.batch / seconds, 2),
        "waiting": round(waited / seconds, 5),
    }
    return line | {"first_step": first_step}, timing | processes.peak_memory(trainer.device)


def make_batch(trainer: Trainer, images, targets: Tensor, chosen, rng) -> tuple[Tensor, Tensor]:
    """The images `chosen`, augmented, as input (B, 3, H, W) and classes (B,) on the device.

    If there are several processes, each takes every world-th image of the batch.
    """
    config, device = trainer.config, trainer.device
    rank, world = processes.rank_and_world()
    area = trainer.model.recipe.erase_area
    batch = augment(images[chosen], rng, config.flip, config.erasing, area)
    x = to_input(batch[rank::world], device)  # (B, 3, H, W)
    return x, targets[chosen[rank::world]].to(device)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set lr times its factor in each group; the factor is 0.1 for loaded layers, else 1."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]


def forward_and_loss(trainer: Trainer, x: Tensor, target: Tensor, epoch: int) -> tuple:
    """Logits of every head, the maps of the four stages, and the loss of section 3.1.

    x: (B, 3, H, W); target: (B,) classes.
    """
    config, recipe = trainer.config, trainer.model.recipe
    lam = recipe.lam
    if recipe.lam_decays:
        lam = lam * (1 - epoch / config.epochs)
    mixed = trainer.precision != torch.float32
    with torch.autocast(trainer.device, trainer.precision, enabled=mixed):
        logits, maps = trainer.step_model(x, with_maps=True, target=target)
        loss = reid_loss(logits, target, config.recipe, lam)
    return logits, maps, loss


def backward_and_step(trainer: Trainer, loss: Tensor) -> None:
    # The gradients stay until the next step, for EpochSums to measure.
    trainer.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    trainer.optimizer.step()


def check_finite(loss: float, epoch: int, step: int, steps: int, lr: float) -> None:
    if math.isfinite(loss):
        return
    kept = f"; the checkpoint of epoch {epoch} is kept" if epoch else ""
    raise InputError(
        f"the loss became {loss} in epoch {epoch + 1}, at or before step {step + 1} of {steps}, at "
        f"learning rate {lr:g}; lower lr or lengthen warmup{kept}"
    )


class EpochSums:
    """Sums over the steps of an epoch. They stay on the device, so that no step waits for them."""

    def __init__(self, model: ReIDNet):
        self.stages = model.stage_modules()[1:]
        self.loss, self.correct = 0.0, 0
        self.losses, self.norms = [], []  # per step: of each head; of each stage's gradient
        self.names = []  # of the heads

    def add(self, logits: dict, target: Tensor, loss: Tensor) -> None:
        """Add one step. Call this after the backward pass, while the gradients are there.

        logits: {name: (B, classes)}; target: (B,) classes; loss: a scalar.
        """
        norms = [
            nn.utils.get_total_norm([p.grad for p in stage.parameters()]) for stage in self.stages
        ]
        losses = [nn.functional.cross_entropy(v.detach().float(), target) for v in logits.values()]
        self.names = list(logits)
        self.norms.append(torch.stack(norms))
        self.losses.append(torch.stack(losses))
        self.loss = self.loss + loss.detach().double()
        self.correct = self.correct + (logits["final"].argmax(1) == target).sum()

    def means(self, world: int, images: int, lr: float, device: str) -> dict:
        """The epoch's line of the history, over all processes.

        images: the number of images that the epoch trained on.
        """
        losses = torch.stack(self.losses).double().cpu().numpy()  # (steps, heads)
        norms = torch.stack(self.norms).double().cpu().numpy()  # (steps, stages)
        sums = [float(self.loss), float(self.correct), *losses.mean(0)]
        total, correct, *heads = processes.mean_over_processes(sums, device).tolist()
        return {
            "loss": total / len(losses),
            "accuracy": correct * world / images,
            "lr": lr,
            "losses": {n: _five_digits(v) for n, v in zip(self.names, heads, strict=True)},
            "gradient": {
                "mean": norms.mean(0).round(6).tolist(),
                "sd": norms.std(0).round(6).tolist(),
            },
        }


def look_inside(model: ReIDNet, maps: list, target: Tensor) -> dict:
    """What each form of attention does on the maps of one batch, whichever form is trained.

    Notebook 02 draws these numbers. The model is not changed.

    maps: stages 1-4, (B, C, H, W); target: (B,).
    Returns {form: {"largest": 4 numbers, "cells": 4, "through": 3}}, one number per stage, each a
    mean over the images. "largest" is the largest weight p and "cells" the share of effective
    positions. "through" is the norm of the gradient of a branch's loss, for one image, with respect
    to its map.
    """
    out = {}
    for form in FORMS:
        weights = [attention_weights(f.detach().float(), form) for f in maps]  # 4 x (B, H, W)
        largest = [p.amax((1, 2)).mean().item() for p in weights]
        cells = [(effective_cells(p) / p[0].numel()).mean().item() for p in weights]
        through = []
        for head, f in zip(model.stages, maps[:3], strict=False):
            through.append(_gradient_norm(model, head, f, form, target))
        out[form] = {
            "largest": [_five_digits(v) for v in largest],
            "through": [_five_digits(v) for v in through],
            "cells": [_five_digits(v) for v in cells],
        }
    return out


def _gradient_norm(model: ReIDNet, head: nn.Module, f: Tensor, form: str, target: Tensor) -> float:
    """The norm of an image's gradient with respect to f, (B, C, H, W), mean over the images.

    form: the attention form that the branch pools with.
    """
    leaf = f.detach().float().requires_grad_()
    logits = head(model.pool_stage(leaf, form))
    loss = nn.functional.cross_entropy(logits, target, reduction="sum")
    gradient = torch.autograd.grad(loss, leaf)[0]  # (B, C, H, W)
    return gradient.flatten(1).norm(dim=1).mean().item()


def _five_digits(value: float) -> float:
    return float(f"{value:.5g}")
