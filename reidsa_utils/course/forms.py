"""Exercises of notebook 08: one position of 768, the released layer, and a shift of the map."""

import math

import torch
from torch import Tensor

from ..attention import attended_pool, attention_weights
from .checking import FunctionExercise, ValueExercise, as_number

POSITIONS, CHANNELS = 768, 256  # of the map of stage 1
HALF = math.log(POSITIONS - 1)  # the lead with which one position has half of the weight


def share_of_one(lead: float) -> float:
    """The softmax weight of one position whose A is larger by `lead` than A at all others."""
    return 1 / (1 + (POSITIONS - 1) * math.exp(-lead))


def _examine_lead(value) -> str | None:
    lead = as_number(value)
    if not math.isfinite(lead):
        return f"a difference of two sums is a finite number, and this is {lead:g}"
    known = {
        math.log(2): "ln 2 makes it twice the weight of one other position; there are 767",
        math.log10(POSITIONS - 1): "this is a logarithm of base 10; eq. 1 has e",
        math.log2(POSITIONS - 1): "this is a logarithm of base 2; eq. 1 has e",
        POSITIONS - 1: "this is what e^d must be; solve it for d",
        HALF / CHANNELS: "this is the difference of the channel means; A is their sum",
        -HALF: "the sign is wrong: the position lies above the others",
    }
    if abs(share_of_one(max(lead, -700)) - 0.5) <= 0.02:
        return None
    for wrong, sentence in known.items():
        if abs(lead - wrong) <= 0.01 * abs(wrong):
            return sentence
    share = 100 * share_of_one(max(lead, -700))
    way = "larger" if share < 50 else "smaller"
    return f"with d = {lead:g} the position has {share:.3g} % of the weight; try a {way} d"


one_of_768 = ValueExercise(
    name="one_of_768",
    notebook="08_paper_vs_code",
    title="One position of 768",
    level="change a number",
    minutes=5,
    asks="a number",
    examine=_examine_lead,
    typical={
        "0.69": "ln 2 is right for one other position; there are 767",
        "2.88": "the logarithm of base 10 is taken",
        "767": "this is e^d, not d",
        "0.026": "the mean over 256 channels is taken for their sum",
    },
    right="sums of trained maps differ by tens and hundreds, so at T = 1 one position has it all",
)


def released_pool(f: Tensor) -> Tensor:
    """G of the released code: l1 weights, and then a mean over the positions.

    (B, C, H, W) -> (B, C).
    """
    return attended_pool(f, "l1") / (f.shape[2] * f.shape[3])


def _by_weights(rule):
    """A mistake in the weights: f -> p, (B, H, W), or of the shape of f."""

    def mistaken(f):
        p = rule(f)
        if p.dim() == 3:
            p = p[:, None]
        return (p * f).mean((2, 3))

    return mistaken


def _brightness(f: Tensor) -> Tensor:
    return f.mean(1)  # (B, H, W)


def _maps(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.rand(shape, generator=generator, dtype=torch.float64)


# The map of notebook 01, with A = 3, 0, 1, 1.
_FIRST_PICTURE = torch.tensor(
    [[[[2.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]]], dtype=torch.float64
)

the_released_layer = FunctionExercise(
    name="the_released_layer",
    notebook="08_paper_vs_code",
    title="The released layer",
    level="write",
    minutes=15,
    reference=released_pool,
    arguments=("f",),
    probes=(
        (_FIRST_PICTURE,),
        (_maps(3, 4, 3, 5, seed=0),),
        (_maps(3, 4, 3, 5, seed=1, scale=3),),
        (_maps(2, 6, 2, 4, seed=2, scale=20),),
    ),
    shape="(B, C)",
    mistakes={
        "this is the weighted mean of recipe paper, HW times as large: the released code takes a "
        "mean behind the attention": lambda f: attended_pool(f, "l1"),
        "this is the softmax of eq. 1; the released code has no exponential": _by_weights(
            attention_weights
        ),
        "this is the text: the softmax of eq. 1, and a weighted mean. The released code has "
        "no exponential": attended_pool,
        "this is a softmax of the means; the released code has no exponential": _by_weights(
            lambda f: attention_weights(f, "softmax_mean")
        ),
        "this is a sigmoid divided by its sum; the released code has none": _by_weights(
            lambda f: attention_weights(f, "sigmoid")
        ),
        "this is average pooling; the attention is missing": lambda f: f.mean((2, 3)),
        "the weights are not divided by their sum": _by_weights(_brightness),
        "the sums over the channels are not divided by their sum over the positions": _by_weights(
            lambda f: f.sum(1)
        ),
        "the weights are divided by the sum over the whole batch; each image has weights of its "
        "own": _by_weights(lambda f: _brightness(f) / _brightness(f).sum()),
        "the weights are divided by the largest one; the released code divides by their sum": (
            _by_weights(lambda f: _brightness(f) / _brightness(f).amax((1, 2), keepdim=True))
        ),
        "the weights are divided by the root of their sum of squares (l2); l1 divides by their "
        "sum": _by_weights(
            lambda f: _brightness(f) / _brightness(f).square().sum((1, 2), True).sqrt()
        ),
        "the weights of a column sum to 1; take the sum over all positions, rows and columns": (
            _by_weights(lambda f: _brightness(f) / _brightness(f).sum(1, keepdim=True))
        ),
        "the weights are made of squares; the released code takes the mean as it is": _by_weights(
            lambda f: f.square().sum(1) / f.square().sum((1, 2, 3))[:, None, None]
        ),
        "this is a plain sum over the positions; the attention is missing": lambda f: f.sum((2, 3)),
        "the result is right, but it has dimensions of size 1 too many; expected (B, C)": (
            lambda f: released_pool(f)[:, :, None, None]
        ),
        "the weights of a row sum to 1; take the sum over all positions, rows and columns": (
            _by_weights(lambda f: _brightness(f) / _brightness(f).sum(2, keepdim=True))
        ),
        "each position is divided by the sum over its channels; sum over the positions instead": (
            _by_weights(lambda f: f / f.sum(1, keepdim=True))
        ),
        "each channel has weights of its own; one weight counts for all channels of a position": (
            _by_weights(lambda f: f / f.sum((2, 3), keepdim=True))
        ),
        "the mean of the channels is divided by their sum over channels and positions, so the "
        "weights sum to 1/C": _by_weights(lambda f: f.mean(1) / f.sum((1, 2, 3))[:, None, None]),
        "the sum of the channels is divided by the sum of their means, so the weights sum to C": (
            _by_weights(lambda f: f.sum(1) / f.mean(1).sum((1, 2))[:, None, None])
        ),
        "this is the weight of the brightest channel, not of the channels' mean": _by_weights(
            lambda f: f.amax(1) / f.amax(1).sum((1, 2), keepdim=True)
        ),
        "these are the largest values of the rescaled map; the released code takes its mean": (
            lambda f: (attention_weights(f, "l1")[:, None] * f).amax((2, 3))
        ),
        "this is the mean over the channels, too; each channel has its own number": lambda f: (
            released_pool(f).mean(1)
        ),
        "this is the rescaled map; pool it over its positions": lambda f: (
            attention_weights(f, "l1")[:, None] * f
        ),
        "this is p; multiply the map by it, and pool": lambda f: attention_weights(f, "l1"),
    },
    right="the pooled vector is HW times smaller than a weighted mean, and without SA it is not",
)


def share_of_own_weights(f: Tensor, t: float) -> Tensor:
    """alpha of l1(f + t) = alpha l1(f) + (1 - alpha) / HW, (B,): sum A / (sum A + HW C t)."""
    return f.sum((1, 2, 3)) / (f + t).sum((1, 2, 3))


def _alpha_with(added):
    """A mistake in what the shift adds to the sum of A: (C, HW, t) -> number."""

    def mistaken(f, t):
        total = f.sum((1, 2, 3))
        return total / (total + added(f.shape[1], f.shape[2] * f.shape[3], t))

    return mistaken


a_shift_of_the_map = FunctionExercise(
    name="a_shift_of_the_map",
    notebook="08_paper_vs_code",
    title="What a form does not see",
    level="prove",
    minutes=25,
    reference=share_of_own_weights,
    arguments=("f", "t"),
    probes=(
        (_FIRST_PICTURE, 0.5),
        (_maps(3, 4, 3, 5, seed=3), 0.7),
        (_maps(3, 4, 3, 5, seed=4, scale=3), 0.7),
        (_maps(2, 6, 2, 2, seed=5), 2.0),
    ),
    shape="(B,), one number an image",
    mistakes={
        "the channels are forgotten: A is a sum over C channels, so it grows by C t": _alpha_with(
            lambda C, HW, t: HW * t
        ),
        "the positions are forgotten: every one of the HW sums grows": _alpha_with(
            lambda C, HW, t: C * t
        ),
        "channels and positions are forgotten: the sum of all activations grows by more than t": (
            _alpha_with(lambda C, HW, t: t)
        ),
        "this is 1 - alpha, the share of average pooling": lambda f, t: (
            1 - share_of_own_weights(f, t)
        ),
        "this is 1 / alpha": lambda f, t: 1 / share_of_own_weights(f, t),
        "this is right for the softmax, which does not see a shift; the exercise asks for l1": (
            lambda f, t: torch.ones(len(f))
        ),
        "one number for the batch; each image has its own": lambda f, t: (
            f.sum() / (f + t).sum()
        ).expand(len(f)),
        "the shift is multiplied, not added; l1 does not see a scale": lambda f, t: (
            f.sum((1, 2, 3)) / (t * f).sum((1, 2, 3))
        ),
        "these are the weights of the shifted map; the exercise asks for alpha": lambda f, t: (
            attention_weights(f + t, "l1")
        ),
        "this is alpha at each position; it is one number an image": lambda f, t: (
            f.sum(1) / (f + t).sum(1)
        ),
    },
    symptoms={
        "alpha lies between 0 and 1: a shift upwards pulls the weights towards 1/HW": (
            lambda alpha, f, t: ((alpha < 0) | (alpha > 1)).any()
        ),
    },
    right="l1 sees a shift and no scale, the softmax a scale and no shift",
)
