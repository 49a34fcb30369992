"""Exercises of notebook 04: rows of the last map, the ten losses, and what a loss sends back."""

import torch
import torch.nn.functional as nnf
from torch import Tensor

from .checking import FunctionExercise, ValueExercise, as_number

STRIPES, ROWS = 6, 3


def rows_of_the_last_map(height: int) -> int:
    """Rows of the stage-4 map: four layers of stride 2, each of which rounds up."""
    rows = height
    for _ in range(4):
        rows = -(-rows // 2)
    return rows


def _examine_height(value) -> str | None:
    height = as_number(value)
    if not height.is_integer() or height < 1:
        return f"a height is a whole number of pixels, and this is {height:g}"
    rows = rows_of_the_last_map(int(height))
    if rows == STRIPES * ROWS:
        return None
    found = f"{height:.0f} pixels give a map of {rows} rows"
    if rows == ROWS:
        return f"{found}; that is one stripe, and there are six"
    if rows == 2 * STRIPES * ROWS:
        return f"{found}. You divided by 32, as an ordinary ResNet does; here the last stride is 1"
    if rows % STRIPES:
        return f"{found}, which six stripes cannot share equally"
    return f"{found}, so each stripe has {rows // STRIPES} rows, not 3"


rows_of_a_stripe = ValueExercise(
    name="rows_of_a_stripe",
    notebook="04_model",
    title="Three rows in a stripe",
    level="change a number",
    minutes=5,
    asks="a whole number of pixels",
    examine=_examine_height,
    typical={
        "576": "the map is 32 times smaller only if the last stride is 2",
        "48": "this makes three rows for all six stripes",
        "256": "16 rows cannot be shared by six stripes",
    },
    right="18 rows, three in each of the six stripes",
)

LAM = 0.2


def _loss(S: dict, target: Tensor, weights, one_loss=nnf.cross_entropy) -> Tensor:
    """The weighted sum of the losses. weights: name -> weight; one_loss: (S, target) -> scalar."""
    return sum(weights(name) * one_loss(value, target) for name, value in S.items())


def paper_weight(name: str) -> float:
    """The weight of a head in recipe paper, with parts and branches."""
    return 1 - LAM if name.startswith("part") else LAM


def _with_loss(one_loss):
    """A mistake in the cross-entropy, with the right weights."""
    return lambda S, target: _loss(S, target, paper_weight, one_loss)


def _with_weights(main: float, part: float, stage: float):
    """A mistake in the weights, with the right cross-entropy."""

    def weights(name):
        if name == "final":
            return main
        return part if name.startswith("part") else stage

    return lambda S, target: _loss(S, target, weights)


def _true_logits(S: Tensor, target: Tensor) -> Tensor:
    return S.gather(1, target[:, None])[:, 0]


def _over_the_batch(S, target):
    return -_true_logits(S.log_softmax(0), target).mean()


def _of_the_most_likely(S, target):
    return -S.log_softmax(1).amax(1).mean()


def _all_pairs(S, target):
    return -S.log_softmax(1)[:, target].mean()


def _overflowing(S, target):
    return (S.exp().sum(1).log() - _true_logits(S, target)).mean()


def _logits(seed: int, scale: float, B: int = 4, ids: int = 7) -> tuple[dict, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    names = ["final", *(f"part{k}" for k in range(1, 7)), *(f"stage{i}" for i in (1, 2, 3))]
    S = {name: scale * torch.randn(B, ids, generator=generator) for name in names}
    return S, torch.randint(ids, (B,), generator=generator)


ten_losses = FunctionExercise(
    name="ten_losses",
    notebook="04_model",
    title="Ten losses",
    level="write",
    minutes=20,
    reference=lambda S, target: _loss(S, target, paper_weight),
    arguments=("S", "target"),
    probes=(_logits(0, 1), _logits(1, 2), _logits(2, 2), _logits(3, 1, 5, 4), _logits(4, 100)),
    shape="(), a scalar",
    mistakes={
        "the losses of the images are summed; the cross-entropy is their mean over the batch": (
            _with_loss(lambda S, target: nnf.cross_entropy(S, target, reduction="sum"))
        ),
        "the softmax runs over the images of the batch; it runs over the identities": _with_loss(
            _over_the_batch
        ),
        "the logit of the wrong identity: you take the largest one; the loss takes the true one": (
            _with_loss(_of_the_most_likely)
        ),
        "S[:, target] pairs every image with every target; each image has one": _with_loss(
            _all_pairs
        ),
        "the logit of the wrong identity: one is counted from 1, the other from 0": _with_loss(
            lambda S, target: nnf.cross_entropy(S, (target - 1) % S.shape[1])
        ),
        "the probabilities go through a second softmax: cross_entropy takes logits": _with_loss(
            lambda S, target: nnf.cross_entropy(S.softmax(1), target)
        ),
        "the logarithm is missing: this is one minus, or minus, a probability": _with_loss(
            lambda S, target: -_true_logits(S.softmax(1), target).mean()
        ),
        "the sign is wrong: a loss is minus the log of a probability": _with_loss(
            lambda S, target: -nnf.cross_entropy(S, target)
        ),
        "the sum of the exponentials is missing: this is minus the true logit": _with_loss(
            lambda S, target: -_true_logits(S, target).mean()
        ),
        "right for small logits, but exp overflows at 100; subtract the largest logit first, or "
        "use log_softmax or logsumexp": _with_loss(_overflowing),
        "lambda and 1 - lambda are exchanged": _with_weights(1 - LAM, LAM, 1 - LAM),
        "the main loss is weighted like a part; in L_paper it has the weight lambda": _with_weights(
            1 - LAM, 1 - LAM, LAM
        ),
        "the main loss has the weight 1; in L_paper it has the weight lambda": _with_weights(
            1, 1 - LAM, LAM
        ),
        "the main loss is missing": _with_weights(0, 1 - LAM, LAM),
        "the losses of the branches are missing": _with_weights(LAM, 1 - LAM, 0),
        "the losses of the parts are missing": _with_weights(LAM, 0, LAM),
        "all ten losses have one weight: this is L_released": _with_weights(1, 1, 1),
        "the six parts are averaged; L_paper sums them": _with_weights(LAM, (1 - LAM) / 6, LAM),
        "the parts and the branches are averaged; L_paper sums them": _with_weights(
            LAM, (1 - LAM) / 6, LAM / 3
        ),
        "the branches are averaged; L_paper sums them": _with_weights(LAM, 1 - LAM, LAM / 3),
        "the ten losses are averaged; L_paper is their weighted sum": _with_weights(
            LAM / 10, (1 - LAM) / 10, LAM / 10
        ),
    },
    right="ten cross-entropies, each at the true identity, with the weights of the paper's text",
)


def gradient_at_logits(S: Tensor, target: Tensor, weight: float) -> Tensor:
    """dL/dS of weight times the cross-entropy: weight / B (softmax(S) - one-hot), (B, ids)."""
    return weight / len(S) * (S.softmax(1) - nnf.one_hot(target, S.shape[1]))


def _one_hot(S, target):
    return nnf.one_hot(target, S.shape[1]).to(S.dtype)


def _one_head(seed: int, weight: float, B: int = 3, ids: int = 5) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    S = 2 * torch.randn(B, ids, generator=generator)
    return S, torch.randint(ids, (B,), generator=generator), weight


what_a_loss_sends_back = FunctionExercise(
    name="what_a_loss_sends_back",
    notebook="04_model",
    title="What a loss sends back",
    level="prove",
    minutes=20,
    reference=gradient_at_logits,
    arguments=("S", "target", "w"),
    probes=(
        (torch.zeros(1, 4), torch.tensor([2]), 1.0),
        _one_head(0, 0.2),
        _one_head(1, 0.2),
        _one_head(2, 0.8, 6, 4),
    ),
    shape="(B, ids), that of S",
    mistakes={
        "the factor 1/B is missing: the loss is a mean over the images": lambda S, target, w: (
            gradient_at_logits(S, target, w) * len(S)
        ),
        "the weight of the loss is missing": lambda S, target, w: gradient_at_logits(S, target, 1),
        "the factor 1/B and the weight are missing": lambda S, target, w: gradient_at_logits(
            S, target, len(S)
        ),
        "the sign is wrong: the true identity's logit must rise in a step against the gradient": (
            lambda S, target, w: -gradient_at_logits(S, target, w)
        ),
        "the true identity is missing: a one-hot vector is subtracted from the softmax": (
            lambda S, target, w: w / len(S) * S.softmax(1)
        ),
        "the softmax is missing: the other identities receive something, too": (
            lambda S, target, w: -w / len(S) * _one_hot(S, target)
        ),
        "the logits themselves stand where their softmax belongs": lambda S, target, w: (
            w / len(S) * (S - _one_hot(S, target))
        ),
        "the softmax runs over the images of the batch; it runs over the identities": (
            lambda S, target, w: w / len(S) * (S.softmax(0) - _one_hot(S, target))
        ),
        "this is divided by the number of identities, too; the mean is over the images only": (
            lambda S, target, w: gradient_at_logits(S, target, w) / S.shape[1]
        ),
        "this is divided by the number of identities; the mean is over the images": (
            lambda S, target, w: gradient_at_logits(S, target, w) * len(S) / S.shape[1]
        ),
        "this is the derivative of the probability p, with its factor p (1 - p); the logarithm "
        "cancels a factor": lambda S, target, w: (
            w / len(S) * (S.softmax(1) - _one_hot(S, target)) * _true_probability(S, target)
        ),
        "this is a mean over the batch; each image has a gradient of its own": (
            lambda S, target, w: gradient_at_logits(S, target, w).mean(0)
        ),
    },
    symptoms={
        "your gradient of an image does not sum to zero over the identities; adding one number to "
        "all logits changes no probability": lambda result, S, target, w: (
            abs(result.sum(1)).max() > 1e-4
        ),
    },
    right="it sums to zero over the identities, and its size is at most twice the weight over B",
)


def _true_probability(S, target):
    return S.softmax(1).gather(1, target[:, None])
