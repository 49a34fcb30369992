"""One epoch of training: the learning rate, the steps, and a look inside.

What is random in an epoch comes from generators seeded by (seed, epoch), so none has to be stored. The run around the epochs
(data, checkpoints, record) is in experiments/run.py.
"""

import math
import time

import numpy as np
import torch
from torch import nn

from . import InputError
from .attention import FORMS, attention_weights, effective_cells
from .batches import augment, to_input
from .config import Config
from .model import ReIDNet, reid_loss
from .support import processes


def learning_rate(config: Config, epoch: int, step: int) -> float:
    """lr of the new layers: `step` counts from the start of the run, `epoch` from 0."""
    lr = config.lr * (0.1 if epoch >= round(config.decay_at * config.epochs) else 1.0)
    return lr * min(1.0, 0.01 + 0.99 * step / config.warmup) if config.warmup else lr


def train_epoch(
    config: Config,
    epoch: int,
    model,
    step_model,
    optimizer,
    images,
    targets,
    precision,
    update,
    device,
) -> tuple:
    """One epoch: its line of the history, and its times. All that is random here comes from (seed, epoch).

    step_model: the model as it is called, compiled or shared out. images: (N, H, W, 3) uint8, an array, or a tensor on the GPU.
    Of several processes each draws the whole batch and takes every world-th image of it: the data and their order are those of
    one process, the loss is the mean over the processes. Batch norm sees a process's own share (on GPUs: the whole batch).
    """
    rng, (rank, world) = (
        np.random.default_rng([config.seed, 7, epoch]),
        processes.rank_and_world(),
    )  # order, flips, erasing
    torch.manual_seed(config.seed * 1_000_003 + epoch + rank * 500_009)  # dropout
    order, total, correct, losses, norms = rng.permutation(len(targets)), 0.0, 0, [], []
    lam = model.recipe.lam * (1 - epoch / config.epochs if model.recipe.lam_decays else 1)
    steps = (
        len(targets) // config.batch
    )  # the last, smaller batch is dropped, as in the released code
    started, waited = time.perf_counter(), 0.0
    model.train()
    for step in range(steps):
        lr = learning_rate(config, epoch, epoch * steps + step)
        for group in optimizer.param_groups:
            group["lr"] = lr * group["factor"]
        clock = time.perf_counter()
        chosen = order[step * config.batch : (step + 1) * config.batch]
        batch = augment(images[chosen], rng, config.flip, config.erasing, model.recipe.erase_area)
        x, target = to_input(batch[rank::world], device), targets[chosen[rank::world]].to(device)
        waited += time.perf_counter() - clock
        with torch.autocast(device, precision, enabled=precision != torch.float32):
            logits, maps = step_model(x, with_maps=True, target=target)
            loss = reid_loss(logits, target, config.recipe, lam)
        if (
            device == "cpu" or step % 20 == 0 or step == steps - 1
        ):  # a GPU is not waited for in every step
            value = float(
                processes.mean_over_processes([loss.item()], device)[0]
            )  # not finite in one of them: in all
        if not math.isfinite(value):
            kept = f"; the checkpoint of epoch {epoch} is kept" if epoch else ""
            raise InputError(
                f"the loss became {value} in epoch {epoch + 1}, step {step + 1} of {steps}, at learning rate {lr:g}; "
                f"lower lr or lengthen warmup{kept}"
            )
        if step == 0:
            inside = look_inside(model, maps, target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        norms.append(
            torch.stack(
                [
                    nn.utils.get_total_norm([p.grad for p in stage.parameters()])
                    for stage in model.stage_modules()[1:]
                ]
            )
        )  # stays on the device: no waiting for it in every step
        losses.append(
            torch.stack(
                [nn.functional.cross_entropy(v.detach().float(), target) for v in logits.values()]
            )
        )
        total = total + loss.detach().double()
        correct = correct + (logits["final"].argmax(1) == target).sum()
        update(config.batch, epoch=epoch + 1, loss=value)
    losses, norms = (torch.stack(v).double().cpu().numpy() for v in (losses, norms))
    total, correct, *each = processes.mean_over_processes(
        [float(total), float(correct), *losses.mean(0)], device
    ).tolist()
    each = {name: float(f"{value:.5g}") for name, value in zip(logits, each, strict=True)}
    seconds = time.perf_counter() - started
    speed = steps * config.batch / seconds
    timing = {
        "seconds": round(seconds, 3),
        "images_per_second": round(speed, 2),
        "waiting": round(waited / seconds, 5),
    }
    timing |= processes.peak_memory(device)
    return {
        "epoch": epoch + 1,
        "loss": total / steps,
        "accuracy": correct * world / (steps * config.batch),
        "lr": lr,
        "losses": each,
        "gradient": {"mean": norms.mean(0).round(6).tolist(), "sd": norms.std(0).round(6).tolist()},
        "first_step": inside,
    }, timing


def look_inside(model: ReIDNet, maps: list, target: torch.Tensor) -> dict:
    """What every form of attention does at the maps of one batch, whatever form the model is trained with (notebook 02).

    maps: stages 1-4, (B, C, H, W); target: (B,). Returns {form: {"largest": 4 numbers, "cells": 4, "through": 3}}, means over
    the images: largest weight p; share of effective cells; norm of d l_s / d f_s for one image's loss. Changes nothing.
    """
    out = {}
    for form in FORMS:
        weights = [attention_weights(f.detach().float(), form) for f in maps]
        through = []
        for head, f in zip(model.stages, maps[:3], strict=False):
            leaf = f.detach().float().requires_grad_()
            loss = nn.functional.cross_entropy(
                head(model.pool_stage(leaf, form)), target, reduction="sum"
            )
            through.append(torch.autograd.grad(loss, leaf)[0].flatten(1).norm(dim=1).mean().item())
        out[form] = {
            "largest": [p.amax((1, 2)).mean().item() for p in weights],
            "through": through,
            "cells": [(effective_cells(p) / p[0].numel()).mean().item() for p in weights],
        }
    return {
        form: {k: [float(f"{x:.5g}") for x in v] for k, v in numbers.items()}
        for form, numbers in out.items()
    }
