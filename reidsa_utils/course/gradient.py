"""Exercises of notebook 02: the sign of case 1, eq. 12 for the form l1, and eq. 12' with heat."""

import math

import torch
from torch import Tensor

from ..attention import attention_jacobian
from .checking import FunctionExercise, ValueExercise, as_number

# The other numbers of the map: channel 2 at position (1, 1), and the sums A of the other positions.
SECOND_CHANNEL, OTHER_SUMS = 1.0, (0.0, 1.0, 1.0)
LARGEST = 10.0  # the exercise asks for a number between -LARGEST and LARGEST


def case_one(x: float) -> float:
    """dF/df of eq. 12, case 1, at position (1, 1) of channel 1 where f = x: p + x p (1 - p)."""
    others = sum(math.exp(A - x - SECOND_CHANNEL) for A in OTHER_SUMS)
    p = 1 / (1 + others)
    return p + x * p * (1 - p)


def _examine_sign(value) -> str | None:
    x = as_number(value)
    if not abs(x) <= LARGEST:
        return f"the number is {x:g}; choose one between -{LARGEST:g} and {LARGEST:g}"
    derivative = case_one(x)
    if x >= 0:
        return (
            f"at {x:g} the derivative is {derivative:+.3g}. Which of the two terms of case 1 can "
            "be negative at all, and for which sign of f?"
        )
    if derivative > 0:
        return (
            f"at {x:g} the derivative is {derivative:+.3g}: the second term is negative, but the "
            "first one outweighs it"
        )
    return None


negative_case_one = ValueExercise(
    name="negative_case_one",
    notebook="02_gradient_check",
    title="A negative case 1",
    level="change a number",
    minutes=5,
    asks="a number",
    examine=_examine_sign,
    typical={
        "any number from 0 on": "behind a ReLU case 1 is never negative",
        "-0.5": "a negative f alone is not enough",
        "-40": "outside of -10 to 10; p, and the derivative with it, is all but zero there",
    },
    right="with a negative activation the sign that the paper states for case 1 is lost",
)


def jacobian_l1(f: Tensor, *, p_is_added=None, dp_dA=None) -> Tensor:
    """dF_k(i, j) / df_t(m, n) for p = A / sum A: (C, H, W) -> (C, H, W, C, H, W).

    p_is_added: (same channel, same position, p) -> the term that case 1 adds; dp_dA: (p, Z) -> the
    derivatives of the weights with respect to A, (HW, HW). Both are for the mistakes below.
    """
    C, H, W = f.shape
    A = f.sum(0).flatten()  # (HW,)
    Z = A.sum()
    p = A / Z  # (HW,)
    same_position = torch.eye(H * W, dtype=f.dtype)
    same_channel = torch.eye(C, dtype=f.dtype)
    dp = (same_position - p[:, None]) / Z  # (HW, HW)
    if dp_dA is not None:
        dp = dp_dA(p, Z)
    J = (f.flatten(1)[:, :, None] * dp)[:, :, None].repeat(1, 1, C, 1)  # (C, HW, C, HW)
    added = same_channel[:, None, :, None] * (same_position * p)[None, :, None, :]
    if p_is_added is not None:
        added = p_is_added(same_channel[:, None, :, None], same_position[None, :, None, :], p)
    return (J + added).view(C, H, W, C, H, W)


def _eye(p: Tensor) -> Tensor:
    return torch.eye(len(p), dtype=p.dtype)


def _with_f_of_the_other_channel(f):
    """f_t(i, j) in place of f_k(i, j), in all cases."""
    C, H, W = f.shape
    A = f.sum(0).flatten()  # (HW,)
    p = A / A.sum()
    dp = (_eye(p) - p[:, None]) / A.sum()  # (HW, HW)
    f_t = f.flatten(1).T[None, :, :, None]  # (1, HW, C, 1)
    J = (f_t * dp[None, :, None, :]).expand(C, -1, -1, -1)  # (C, HW, C, HW)
    same_channel = torch.eye(C, dtype=f.dtype)[:, None, :, None]
    return (J + same_channel * p.diag()[None, :, None, :]).reshape(C, H, W, C, H, W)


def _positive_maps(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1


_FIRST_PICTURE = torch.tensor(
    [[[2.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]], dtype=torch.float64
)

jacobian_of_l1 = FunctionExercise(
    name="jacobian_of_l1",
    notebook="02_gradient_check",
    title="Eq. 12 for l1",
    level="write",
    minutes=25,
    reference=jacobian_l1,
    arguments=("f",),
    probes=(
        (_FIRST_PICTURE,),
        (_positive_maps(3, 2, 3, seed=0),),
        (_positive_maps(3, 2, 3, seed=1, scale=2),),
        (_positive_maps(2, 1, 4, seed=2),),
    ),
    shape="(C, H, W, C, H, W)",
    mistakes={
        "case 1 is missing: F is a product, and its other factor f depends on f as well": (
            lambda f: jacobian_l1(f, p_is_added=lambda channel, position, p: 0 * channel)
        ),
        "p is added wherever the positions agree; f_k(i, j) depends on f_t(i, j) only if the "
        "channels agree, too": lambda f: jacobian_l1(
            f, p_is_added=lambda channel, position, p: position * p
        ),
        "p is added wherever the channels agree; it belongs where the positions agree, too": (
            lambda f: jacobian_l1(
                f, p_is_added=lambda channel, position, p: channel * p[None, :, None, None]
            )
        ),
        "p of the wrong position: by the quotient rule it is that of the weight that is "
        "differentiated, p(i, j), not p(m, n)": lambda f: jacobian_l1(
            f, dp_dA=lambda p, Z: (_eye(p) - p[None, :]) / Z
        ),
        "the factor 1/Z is missing in the derivative of p": lambda f: jacobian_l1(
            f, dp_dA=lambda p, Z: _eye(p) - p[:, None]
        ),
        "the derivative of p has Z squared below; the quotient rule leaves one Z, because "
        "A / Z is p": lambda f: jacobian_l1(f, dp_dA=lambda p, Z: (_eye(p) - p[:, None]) / Z**2),
        "the positions compete, but nothing supports itself: the 1 of 1 - p is missing where "
        "(i, j) = (m, n)": lambda f: jacobian_l1(
            f, dp_dA=lambda p, Z: -p[:, None] / Z + 0 * _eye(p)
        ),
        "Z is taken for a constant; it is a sum of activations, and each of them moves it": (
            lambda f: jacobian_l1(f, dp_dA=lambda p, Z: _eye(p) / Z)
        ),
        "the sign of the competition is wrong: another position's activation raises Z and "
        "lowers p(i, j)": lambda f: jacobian_l1(f, dp_dA=lambda p, Z: (_eye(p) + p[:, None]) / Z),
        "this is eq. 12 itself, the Jacobian of the softmax; here p = A / sum A": (
            attention_jacobian
        ),
        "dp has the form of the softmax's, p (1 - p) and -p p; here p = A / sum A": (
            lambda f: jacobian_l1(f, dp_dA=lambda p, Z: p.diag() - p[:, None] * p[None, :])
        ),
        "f is that of the channel t; F_k = p f_k holds f_k": _with_f_of_the_other_channel,
        "the indices of F and of f are exchanged: those of F come first": lambda f: jacobian_l1(
            f
        ).permute(3, 4, 5, 0, 1, 2),
        "the numbers are right, but they lie in a matrix; give them six dimensions": lambda f: (
            jacobian_l1(f).reshape(f.numel(), f.numel())
        ),
        "the numbers are right, but the positions lie in one row; give them six dimensions": (
            lambda f: jacobian_l1(f).flatten(4).flatten(1, 2)
        ),
    },
    right="the quotient rule, times f, plus p where channel and position agree",
)


def gradient_with_heat(f: Tensor, gamma: Tensor, T: float) -> Tensor:
    """The gradient at f of sum_k gamma_k G_k for p = softmax(A / T): eq. 12' with a temperature.

    f: (C, H, W), gamma: (C,). Returns (C, H, W).
    """
    p, q = _weights_and_scores(f, gamma, T)
    return p * (gamma[:, None, None] + (q - (p * q).sum()) / T)


def _weights_and_scores(f: Tensor, gamma: Tensor, T: float) -> tuple[Tensor, Tensor]:
    A = f.sum(0)  # (H, W)
    p = (A / T).flatten().softmax(0).view_as(A)
    return p, torch.einsum("k,khw->hw", gamma, f)


def _with_heat(rule):
    """A mistake from its formula: (p, q, gamma as (C, 1, 1), T) -> (C, H, W)."""

    def mistaken(f, gamma, T):
        p, q = _weights_and_scores(f, gamma, T)
        return rule(p, q, gamma[:, None, None], T)

    return mistaken


def _without_heat_in_p(f, gamma, T):
    p, q = _weights_and_scores(f, gamma, 1.0)
    return p * (gamma[:, None, None] + (q - (p * q).sum()) / T)


def _signs(C: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(C, generator=generator, dtype=torch.float64)


competition_with_heat = FunctionExercise(
    name="competition_with_heat",
    notebook="02_gradient_check",
    title="Heat calms the competition",
    level="prove",
    minutes=25,
    reference=gradient_with_heat,
    arguments=("f", "gamma", "T"),
    probes=(
        (_FIRST_PICTURE, torch.tensor([1.0, -1.0], dtype=torch.float64), 1.0),
        (_positive_maps(3, 2, 3, seed=3), _signs(3, 0), 0.5),
        (_positive_maps(3, 2, 3, seed=4), _signs(3, 1), 0.5),
        (_positive_maps(4, 3, 2, seed=5, scale=3), _signs(4, 2), 4.0),
    ),
    shape="(C, H, W), that of f",
    mistakes={
        "right at T = 1 only: p depends on A / T, so the chain rule brings a factor": _with_heat(
            lambda p, q, gamma, T: p * (gamma + q - (p * q).sum())
        ),
        "gamma is divided by T as well; that term comes from the other factor of p f, which has no "
        "temperature": _with_heat(lambda p, q, gamma, T: p * (gamma + q - (p * q).sum()) / T),
        "the competition is multiplied by T; a high temperature must calm it": _with_heat(
            lambda p, q, gamma, T: p * (gamma + (q - (p * q).sum()) * T)
        ),
        "the competition is divided by T squared; A / T brings one factor": _with_heat(
            lambda p, q, gamma, T: p * (gamma + (q - (p * q).sum()) / T**2)
        ),
        "right up to the temperature in p: its softmax is that of A / T": _without_heat_in_p,
        "the scores are compared with their plain mean; it is their mean under p": _with_heat(
            lambda p, q, gamma, T: p * (gamma + (q - q.mean()) / T)
        ),
        "the scores are compared with their sum; it is their mean under p": _with_heat(
            lambda p, q, gamma, T: p * (gamma + (q - q.sum()) / T)
        ),
        "only q is divided by T; the mean that it is compared with must be, too": _with_heat(
            lambda p, q, gamma, T: p * (gamma + q / T - (p * q).sum())
        ),
        "nobody loses: the mean of the scores under p is missing": _with_heat(
            lambda p, q, gamma, T: p * (gamma + q / T)
        ),
        "this is the competition alone; the term with gamma is missing": _with_heat(
            lambda p, q, gamma, T: (p * (q - (p * q).sum()) / T).expand(len(gamma), -1, -1)
        ),
        "this is the competition alone, once for all channels; the term with gamma is missing": (
            _with_heat(lambda p, q, gamma, T: p * (q - (p * q).sum()) / T)
        ),
        "the competition is not weighted by p": _with_heat(
            lambda p, q, gamma, T: p * gamma + (q - (p * q).sum()) / T
        ),
        "this is the term with gamma alone; p depends on f, too": _with_heat(
            lambda p, q, gamma, T: p * gamma
        ),
        "the sign of the competition is wrong: a position above the mean gains": _with_heat(
            lambda p, q, gamma, T: p * (gamma - (q - (p * q).sum()) / T)
        ),
    },
    right="the competition sums to zero at every temperature, and fades like 1/T towards GAP",
)
