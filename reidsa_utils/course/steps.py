"""Exercises of notebook 05: when the rate drops, SGD by hand, and the loss of a blind head."""

import math

import numpy as np
import torch
from torch import Tensor

from .checking import FunctionExercise, ValueExercise, as_number

# The run of notebook 05 with its default parameters.
IMAGES, BATCH, EPOCHS, DECAY_AT = 1384, 32, 18, 0.7
STEPS = IMAGES // BATCH  # of an epoch; the last, smaller batch is dropped
DROP = round(DECAY_AT * EPOCHS) * STEPS


def _examine_step(value) -> str | None:
    step = as_number(value)
    if not step.is_integer():
        return f"a step is a whole number, and this is {step:g}; round where the schedule rounds"
    if step < 0:
        return f"steps are counted from 0, and this is {step:g}"
    if step == DROP:
        return None
    drop_epoch = DROP // STEPS
    within = "the rate drops between two epochs, not within one; round the epoch first"
    known = {
        drop_epoch: "this is an epoch; multiply it by the steps of an epoch",
        drop_epoch * (STEPS + 1): "the last batch of an epoch is not full, so it is dropped",
        DROP + 1: "in code, steps and epochs are counted from 0",
        DROP - 1: "this is the last step at the full rate; give the one after it",
        DROP - STEPS: "70 % of the epochs are 12.6, which the schedule rounds to the nearest epoch",
        DROP + STEPS: "in code, epochs are counted from 0: the first epoch is 0",
        EPOCHS * STEPS: "this is the number of steps of the whole run",
    }
    for steps in (DECAY_AT * EPOCHS * STEPS, DECAY_AT * EPOCHS * IMAGES / BATCH):
        known |= {math.floor(steps): within, math.ceil(steps): within}
    if step in known:
        return known[step]
    where = "early" if step < DROP else "late"
    return (
        f"step {step:.0f} is too {where}: with {STEPS} steps an epoch, it lies in epoch "
        f"{step // STEPS:.0f}"
    )


when_the_rate_drops = ValueExercise(
    name="when_the_rate_drops",
    notebook="05_train",
    title="When does the rate drop?",
    level="change a number",
    minutes=5,
    asks="the number of a step",
    examine=_examine_step,
    typical={
        "572": "the last, smaller batch of an epoch is counted",
        "516": "12.6 epochs are rounded down",
        "602": "epochs are counted from 1",
        "541": "the rate drops in the middle of an epoch",
    },
    right="13 epochs of 43 full batches lie before it",
)


def sgd(
    w: Tensor,
    gradients: Tensor,
    rates: Tensor,
    momentum: float,
    decay: float,
    *,
    start=None,
    push=lambda g, decayed: decayed,
    keep=lambda v, g, lr, momentum: momentum * v + g,
    move=lambda g, v, lr, momentum: lr * (g + momentum * v),
) -> Tensor:
    """Weights after steps of SGD with Nesterov momentum and weight decay, as torch takes them.

    w: (n,), gradients: (steps, n), of the loss at each step, rates: (steps,). Returns (n,).
    The other arguments are for the mistakes below. start: gradients -> the buffer before the first
    step. keep: (v, g with decay, rate, momentum) -> the new buffer v. push: (g, g with decay) ->
    the gradient that move takes. move: (that gradient, v, rate, momentum) -> the step.
    """
    v = torch.zeros_like(w) if start is None else start(gradients)
    for g, lr in zip(gradients, rates, strict=True):
        decayed = g + decay * w
        v = keep(v, decayed, lr, momentum)
        w = w - move(push(g, decayed), v, lr, momentum)
    return w


def _sgd_with(**rule):
    """A mistake from the parts of sgd that it changes."""
    return lambda w, gradients, rates, momentum, decay: sgd(
        w, gradients, rates, momentum, decay, **rule
    )


def _smaller(w, lr, decay):
    return (1 - lr * decay) * w


def _as_it_is(w, lr, decay):
    return w


def _decoupled(before, *, behind=_as_it_is, nesterov=True):
    """A mistake in which the decay is not in the gradient.

    before, behind: (w, rate, decay) -> w, applied before and after a step.
    """

    def mistaken(w, gradients, rates, momentum, decay):
        v = torch.zeros_like(w)
        for g, lr in zip(gradients, rates, strict=True):
            v = momentum * v + g
            step = g + momentum * v if nesterov else v
            w = behind(before(w, lr, decay) - lr * step, lr, decay)
        return w

    return mistaken


def _all_weights(w, gradients, rates, momentum, decay):
    """The weights after every step, one below the other."""
    steps = range(1, len(gradients) + 1)
    return torch.stack([sgd(w, gradients[:n], rates[:n], momentum, decay) for n in steps])


def _towards_the_first_weights(w, gradients, rates, momentum, decay):
    return sgd(w, gradients + decay * w, rates, momentum, 0.0)


def _at_one_rate(w, gradients, rates, momentum, decay):
    return sgd(w, gradients, rates[:1].expand_as(rates), momentum, decay)


def _without_the_last_step(w, gradients, rates, momentum, decay):
    return sgd(w, gradients[:-1], rates[:-1], momentum, decay)


def _steps(seed: int, momentum: float, decay: float, steps: int = 4, n: int = 3) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    w = 1 + torch.rand(n, generator=generator, dtype=torch.float64)
    gradients = torch.randn(steps, n, generator=generator, dtype=torch.float64)
    rates = torch.rand(steps, generator=generator, dtype=torch.float64) + 0.1
    return w, gradients, rates, momentum, decay


_BY_HAND = (
    torch.tensor([1.0, -2.0], dtype=torch.float64),
    torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64),
    torch.tensor([0.1, 0.1], dtype=torch.float64),
    0.5,
    0.0,
)

sgd_by_hand = FunctionExercise(
    name="sgd_by_hand",
    notebook="05_train",
    title="SGD by hand",
    level="write",
    minutes=20,
    reference=sgd,
    arguments=("w", "gradients", "rates", "momentum", "decay"),
    probes=(_BY_HAND, _steps(0, 0.9, 0.3), _steps(1, 0.9, 0.3), _steps(2, 0.6, 0.1, steps=6)),
    shape="(n,), that of w",
    mistakes={
        "there is no momentum: every step uses its own gradient only": _sgd_with(
            move=lambda g, v, lr, momentum: lr * g
        ),
        "the weight decay is missing": lambda w, gradients, rates, momentum, decay: sgd(
            w, gradients, rates, momentum, 0.0
        ),
        "neither momentum nor weight decay: this is plain SGD": (
            lambda w, gradients, rates, momentum, decay: w - rates @ gradients
        ),
        "this is momentum without Nesterov; a step of Nesterov's is g + momentum * v, with the new "
        "buffer v": _sgd_with(move=lambda g, v, lr, momentum: lr * v),
        "the new buffer v is multiplied by the momentum, but the gradient itself is missing in the "
        "step": _sgd_with(move=lambda g, v, lr, momentum: lr * momentum * v),
        "g is added to the whole new buffer; Nesterov multiplies the buffer by the momentum once "
        "more": _sgd_with(move=lambda g, v, lr, momentum: lr * (g + v)),
        "the weight decay comes after the momentum (as in AdamW); in torch's SGD it is a part of "
        "the gradient, and enters the buffer": _decoupled(_smaller),
        "the weights shrink behind the step, by the rate times the decay; in torch's SGD the decay "
        "is a part of the gradient": _decoupled(_as_it_is, behind=_smaller),
        "the weight decay comes after the momentum (as in AdamW), and there is no Nesterov": (
            _decoupled(_smaller, nesterov=False)
        ),
        "there is neither Nesterov nor weight decay": _decoupled(_as_it_is, nesterov=False),
        "the weights shrink by the decay without the rate; in torch's SGD it is a part of the "
        "gradient": _decoupled(lambda w, lr, decay: (1 - decay) * w),
        "the decay enters the buffer, but not the gradient that is added to it": _sgd_with(
            push=lambda g, decayed: g
        ),
        "the decay is that of the first weights in every step; it is that of the weights of the "
        "step": _towards_the_first_weights,
        "the sign of the decay is wrong: it must make the weights smaller": (
            lambda w, gradients, rates, momentum, decay: sgd(w, gradients, rates, momentum, -decay)
        ),
        "the decay is doubled: the derivative of decay / 2 * |w|^2 is decay * w": (
            lambda w, gradients, rates, momentum, decay: sgd(
                w, gradients, rates, momentum, 2 * decay
            )
        ),
        "the rate is inside the buffer; a rate that changes must not change the steps before it": (
            _sgd_with(
                keep=lambda v, g, lr, momentum: momentum * v + lr * g,
                move=lambda g, v, lr, momentum: lr * g + momentum * v,
            )
        ),
        "the rate is inside the buffer, and there is no Nesterov": _sgd_with(
            keep=lambda v, g, lr, momentum: momentum * v + lr * g,
            move=lambda g, v, lr, momentum: v,
        ),
        "the new gradient is multiplied by 1 - momentum; torch's SGD adds the whole of it": (
            _sgd_with(keep=lambda v, g, lr, momentum: momentum * v + (1 - momentum) * g)
        ),
        "this is a running mean of the gradients, (1 - momentum) g + momentum v, without "
        "Nesterov": _sgd_with(
            keep=lambda v, g, lr, momentum: momentum * v + (1 - momentum) * g,
            move=lambda g, v, lr, momentum: lr * v,
        ),
        "the buffer begins with the first gradient, which then counts twice; it begins with 0": (
            _sgd_with(start=lambda gradients: gradients[0])
        ),
        "this goes up the gradient; a step is subtracted": _sgd_with(
            move=lambda g, v, lr, momentum: -lr * (g + momentum * v)
        ),
        "all steps have the first rate": _at_one_rate,
        "the last step is missing": _without_the_last_step,
        "only the first step is made; does the return stand inside the loop?": (
            lambda w, gradients, rates, momentum, decay: sgd(
                w, gradients[:1], rates[:1], momentum, decay
            )
        ),
        "these are the weights after every step; return the last ones": _all_weights,
        "these are the changes of the weights, not the weights": (
            lambda w, gradients, rates, momentum, decay: (
                sgd(w, gradients, rates, momentum, decay) - w
            )
        ),
    },
    right="decay, buffer, step: the weights are those of torch.optim.SGD",
)


def entropy_of_classes(counts) -> float:
    """The smallest cross-entropy of a head that ignores the image: the entropy of the shares.

    counts: (classes,), the images of each class.
    """
    q = _shares(counts)
    q = q[q > 0]
    return float(-(q * np.log(q)).sum())


def _shares(counts) -> np.ndarray:
    counts = np.asarray(counts, float)
    return counts / counts.sum()


def _with_zeros(rule):
    """A mistake from its formula for the shares q of classes that all have images."""

    def mistaken(counts):
        q = _shares(counts)
        return float(rule(q[q > 0], np.asarray(counts, float)))

    return mistaken


def _softmax(counts) -> np.ndarray:
    powers = np.exp(counts - np.max(counts))
    return powers / powers.sum()


the_blind_head = FunctionExercise(
    name="the_blind_head",
    notebook="05_train",
    title="The loss without looking",
    level="prove",
    minutes=25,
    reference=entropy_of_classes,
    arguments=("counts",),
    probes=(
        (np.array([20, 20, 20, 20]),),
        (np.array([3, 10, 5, 6, 6]),),
        (np.array([2, 14, 1, 4, 9]),),
        (np.array([6, 0, 3]),),  # a class without an image
    ),
    shape="(), one number",
    mistakes={
        "this is ln N, the loss if all classes are as likely. A head that has seen how frequent "
        "each is does better": lambda counts: math.log(len(counts)),
        "this is ln of the number of classes that have an image, as if they had equally many": (
            lambda counts: math.log(np.count_nonzero(counts))
        ),
        "right, but a class without an image gives 0 ln 0; it adds nothing": lambda counts: (
            entropy_of_classes(counts) if np.min(counts) else np.nan
        ),
        "the sign is wrong: a loss is minus a logarithm": lambda counts: (
            -entropy_of_classes(counts)
        ),
        "the logarithm is that of base 2; the loss takes the natural one": lambda counts: (
            entropy_of_classes(counts) / math.log(2)
        ),
        "the logarithm is that of base 10; the loss takes the natural one": lambda counts: (
            entropy_of_classes(counts) / math.log(10)
        ),
        "every class counts the same; the loss is a mean over the images, so a class counts as "
        "often as it has images": _with_zeros(lambda q, counts: -np.log(q).mean()),
        "the logarithms of the classes are summed; weight each by the share of its images": (
            _with_zeros(lambda q, counts: -np.log(q).sum())
        ),
        "this is the sum over all images; the loss is their mean": _with_zeros(
            lambda q, counts: -(q * np.log(q)).sum() * counts.sum()
        ),
        "this is divided by the number of classes; the shares are a mean already": _with_zeros(
            lambda q, counts: -(q * np.log(q)).sum() / len(counts)
        ),
        "this is the entropy as a share of ln N; the exercise asks for the loss itself": (
            _with_zeros(lambda q, counts: -(q * np.log(q)).sum() / math.log(len(counts)))
        ),
        "this head is sure of the most frequent class only: minus ln of its share": _with_zeros(
            lambda q, counts: -np.log(q.max())
        ),
        "this is exp of the loss, the effective number of classes": _with_zeros(
            lambda q, counts: np.exp(-(q * np.log(q)).sum())
        ),
        "the logarithm is missing: this is the chance to be wrong when one guesses by the shares": (
            _with_zeros(lambda q, counts: 1 - (q**2).sum())
        ),
        "the logarithm is missing: this is the chance to be wrong with the most frequent class": (
            _with_zeros(lambda q, counts: 1 - q.max())
        ),
        "the logarithm is that of a mean; the loss is a mean of logarithms": _with_zeros(
            lambda q, counts: -np.log((q**2).sum())
        ),
        "the softmax of the counts is taken for their shares; the logits of the best head are "
        "logarithms of the counts": lambda counts: float(
            -(_shares(counts) * np.log(_softmax(counts))).sum()
        ),
    },
    symptoms={
        "more than ln N: a head that gives all classes the same already does better": (
            lambda result, counts: result > math.log(len(counts)) + 1e-6
        ),
        "a cross-entropy is never negative": lambda result, counts: result < -1e-9,
    },
    right="the entropy of the classes; it is ln N only if all have the same number of images",
)
