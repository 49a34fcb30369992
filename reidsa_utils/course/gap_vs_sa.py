"""Exercises of notebook 01: a temperature by hand, eq. 1 in code, and a proof about both."""

import math

import torch
from torch import Tensor

from ..attention import attention_weights, effective_cells
from .checking import FunctionExercise, ValueExercise, as_number

# The map of the notebook, (1, 2, 2, 2).
MAP = torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]], dtype=torch.float64)[None]
POSITIONS, TOLERANCE = 3.0, 0.01


def positions_at(temperature: float) -> float:
    """The effective number of positions of the softmax on the notebook's map, of 4."""
    return effective_cells(attention_weights(MAP, "softmax", temperature)).item()


def _examine_temperature(value) -> str | None:
    T = as_number(value)
    if math.isinf(T) and T > 0:
        return "a temperature is a finite positive number, and this is inf"
    if not T > 0:
        return f"a temperature is a positive number, and this is {T:g}"
    found = positions_at(T)
    if abs(found - POSITIONS) <= TOLERANCE:
        return None
    if abs(positions_at(1 / T) - POSITIONS) <= TOLERANCE:
        return (
            f"at T = {T:g}, {found:.2f} positions are effective. Eq. 1 divides A by T; your "
            "number is what A would have to be multiplied by"
        )
    # With the mean over the two channels instead of their sum, half of the temperature is needed.
    if abs(positions_at(2 * T) - POSITIONS) <= TOLERANCE:
        return (
            f"at T = {T:g}, {found:.2f} positions are effective. Your number is right for the "
            "mean over the two channels; eq. 1 takes their sum"
        )
    way = "higher" if found < POSITIONS else "lower"
    return f"at T = {T:g}, {found:.2f} positions are effective, not 3.00; try a {way} temperature"


three_positions = ValueExercise(
    name="three_positions",
    notebook="01_gap_vs_sa",
    title="Three positions of four",
    level="change a number",
    minutes=5,
    asks="a positive number",
    examine=_examine_temperature,
    typical={
        "the inverse": "A is multiplied by T, not divided",
        "half of it": "the mean over the channels is taken for their sum",
        "1": "T = 1 is eq. 1 itself, and spreads over 2.23 positions",
    },
    right="three of the four positions are effective, between the copy of one and the mean of four",
)


def _maps(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.rand(shape, generator=generator, dtype=torch.float64)


def _softmax_over(f: Tensor, *dims: int) -> Tensor:
    """exp / sum exp over the given dimensions of f, without overflow."""
    return torch.exp(f - torch.logsumexp(f, dims, keepdim=True))


def _without_subtracting_the_maximum(f):
    powers = f.sum(1).exp()
    return powers / powers.sum((1, 2), keepdim=True)


def _one_bright_position() -> Tensor:
    """(1, 256, 4, 3): a map whose brightest position lies far above the mean of all."""
    f = _maps(1, 256, 4, 3, seed=8)
    f[:, :, 0, 0] *= 12
    return f


def _subtracting_the_mean(f):
    A = f.sum(1)
    powers = (A - A.mean((1, 2), keepdim=True)).exp()
    return powers / powers.sum((1, 2), keepdim=True)


def _subtracting_the_maximum_of_the_batch(f):
    A = f.sum(1)
    powers = (A - A.max()).exp()
    return powers / powers.sum((1, 2), keepdim=True)


softmax_over_positions = FunctionExercise(
    name="softmax_over_positions",
    notebook="01_gap_vs_sa",
    title="Eq. 1 in your own code",
    level="write",
    minutes=10,
    reference=attention_weights,
    arguments=("f",),
    probes=(
        (MAP,),
        (_maps(3, 4, 3, 5, seed=0),),
        (_maps(3, 4, 3, 5, seed=1, scale=3),),
        (_maps(2, 1, 1, 6, seed=2),),
        # Sums over the channels as large as those of a trained network, beside a dark image.
        (torch.cat([_maps(1, 256, 4, 3, seed=3, scale=10), _maps(1, 256, 4, 3, seed=7)]),),
        (_one_bright_position(),),
    ),
    shape="(B, H, W)",
    mistakes={
        "your weights sum to 1 over the channels; eq. 1 sums over positions": lambda f: (
            _softmax_over(f, 1)
        ),
        "every weight is 1: the softmax runs over the channels, not over the positions": lambda f: (
            _softmax_over(f, 1).sum(1)
        ),
        "each channel has its own softmax; eq. 1 has one weight for all channels of a position, "
        "made from their sum": lambda f: _softmax_over(f, 2, 3),
        "the softmax is made channel by channel and then summed; eq. 1 sums the channels first": (
            lambda f: _softmax_over(f, 2, 3).sum(1)
        ),
        "the softmax is made channel by channel and then averaged; eq. 1 sums the channels "
        "first": lambda f: _softmax_over(f, 2, 3).mean(1),
        "your softmax runs over the images of the batch; each image has weights of its own": (
            lambda f: _softmax_over(f.sum(1), 0)
        ),
        "the weights of the whole batch sum to 1; each image has weights of its own that do": (
            lambda f: _softmax_over(f.sum(1), 0, 1, 2)
        ),
        "each row of the map sums to 1; eq. 1 has one softmax over all positions, rows and "
        "columns together": lambda f: _softmax_over(f.sum(1), 2),
        "each column of the map sums to 1; eq. 1 has one softmax over all positions, rows and "
        "columns together": lambda f: _softmax_over(f.sum(1), 1),
        "two softmaxes, one for the rows and one for the columns, are not one softmax over all "
        "positions": lambda f: _softmax_over(_softmax_over(f.sum(1), 1), 2),
        "A is the mean over the channels here (the form softmax_mean); eq. 1 takes their sum": (
            lambda f: attention_weights(f, "softmax_mean")
        ),
        "A is the largest channel here; eq. 1 takes the sum over the channels": lambda f: (
            _softmax_over(f.amax(1), 1, 2)
        ),
        "there is no exponential: this is A divided by its sum, the form l1 of the released code": (
            lambda f: attention_weights(f, "l1")
        ),
        "this is a sigmoid divided by its sum; eq. 1 is a softmax": lambda f: attention_weights(
            f, "sigmoid"
        ),
        "the weights of an image do not sum to 1: the exponentials are not divided by their sum": (
            lambda f: f.sum(1).exp()
        ),
        "right on small maps, but exp overflows on a map of 256 bright channels; subtract the "
        "largest A of the image first, or use torch's softmax": _without_subtracting_the_maximum,
        "right on dark maps, but A minus its mean or its smallest value can still be hundreds, "
        "and exp overflows; subtract the largest A of the image": _subtracting_the_mean,
        "right for each image alone, but a dark image beside a bright one gives 0/0; subtract the "
        "largest A of the image, not of the batch": _subtracting_the_maximum_of_the_batch,
        "this is the logarithm of the weights": lambda f: attention_weights(f).log(),
        "this is the rescaled map F = p f; the exercise asks for p alone": lambda f: (
            f * attention_weights(f)[:, None]
        ),
        "the weights are right, but they lie in one row; give them the height and the width of "
        "the map": lambda f: attention_weights(f).flatten(1),
        "the weights are right, but there is a dimension of size 1 too many; expected "
        "(B, H, W)": lambda f: attention_weights(f)[:, None],
    },
    symptoms={
        "some weights are negative; an exponential never is": lambda p, f: (p < -1e-9).any(),
        "the weights of an image do not sum to 1 over its positions": lambda p, f: (
            abs(p.sum((1, 2)) - 1).max() > 1e-4
        ),
    },
    right="one softmax for each image, over all positions of the sum over channels",
)


def entropy_slope(A: Tensor, T: float) -> Tensor:
    """dH/dT of the entropy H of p = softmax(A / T): the variance of A under p, over T cubed."""
    p = (A / T).softmax(1)
    mean = (p * A).sum(1, keepdim=True)
    return (p * (A - mean) ** 2).sum(1) / T**3


def _slope_with(power: int, sign: int = 1):
    return lambda A, T: sign * entropy_slope(A, T) * T ** (3 - power)


def _slope_without_temperature_in_p(A, T):
    p = A.softmax(1)
    mean = (p * A).sum(1, keepdim=True)
    return (p * (A - mean) ** 2).sum(1) / T**3


def _slope_about_the_plain_mean(A, T):
    p = (A / T).softmax(1)
    return (p * (A - A.mean(1, keepdim=True)) ** 2).sum(1) / T**3


def _slope_with_the_plain_product(A, T):
    p = (A / T).softmax(1)
    return ((p * A**2).sum(1) - (p * A).sum(1)) / T**3


def _entropy(A, T):
    return torch.special.entr((A / T).softmax(1)).sum(1)


more_heat_more_positions = FunctionExercise(
    name="more_heat_more_positions",
    notebook="01_gap_vs_sa",
    title="More heat, more positions",
    level="prove",
    minutes=25,
    reference=entropy_slope,
    arguments=("A", "T"),
    probes=(
        (torch.tensor([[3.0, 0.0, 1.0, 1.0]], dtype=torch.float64), 1.0),
        (_maps(3, 6, seed=4, scale=4), 0.5),
        (_maps(3, 6, seed=5, scale=4), 0.5),
        (_maps(2, 5, seed=6, scale=9), 3.0),
    ),
    shape="(B,), one number an image",
    mistakes={
        "the power of T is one too low: a factor 1/T comes from d(A/T)/dT = -A/T^2, and another "
        "from ln p = A/T - ...": _slope_with(2),
        "two factors of 1/T are missing: differentiate A/T by T, too": _slope_with(1),
        "this is dH/dbeta for beta = 1/T, half of the way; multiply it by dbeta/dT": _slope_with(
            1, -1
        ),
        "the power of T is one too low, and the sign is wrong: dH/dbeta is not the variance but "
        "-beta times it": _slope_with(2, -1),
        "right at T = 1 only: no factor 1/T is left": _slope_with(0),
        "the power of T is one too high": _slope_with(4),
        "the sign is wrong: the entropy grows with the temperature": _slope_with(3, -1),
        "right up to the temperature in p: its softmax is that of A / T": (
            _slope_without_temperature_in_p
        ),
        "every position counts the same in your variance; it is the variance under p": (
            lambda A, T: A.var(1, correction=0) / T**3
        ),
        "every position counts the same in your variance, and it is divided by HW - 1; it is the "
        "variance under p": lambda A, T: A.var(1) / T**3,
        "the deviations are taken from the plain mean of A; take them from its mean under p": (
            _slope_about_the_plain_mean
        ),
        "this is made of the second moment of A, sum p A^2; subtract the square of its mean": (
            lambda A, T: ((A / T).softmax(1) * A**2).sum(1) / T**3
        ),
        "the mean of A under p is not squared; the variance is sum p A^2 - (sum p A)^2": (
            _slope_with_the_plain_product
        ),
        "this is made of the standard deviation; the slope has the variance": lambda A, T: (
            (entropy_slope(A, T) * T**3).sqrt() / T**3
        ),
        "this is the entropy H itself; the exercise asks for its derivative by T": _entropy,
        "this is the effective number exp(H); the exercise asks for the derivative of H by T": (
            lambda A, T: _entropy(A, T).exp()
        ),
        "this is the slope of the effective number exp(H); the exercise asks for that of H": (
            lambda A, T: entropy_slope(A, T) * _entropy(A, T).exp()
        ),
        "this is one number for the batch; each image has its own slope": lambda A, T: (
            entropy_slope(A, T).sum()
        ),
    },
    right="a variance over a positive number is never negative, so no position is lost with heat",
)
