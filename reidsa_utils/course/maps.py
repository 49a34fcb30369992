"""Exercises of notebook 07: a logit from a map, a CAM by hand, what a map of stage 4 leaves out."""

import numpy as np
import torch
from torch import Tensor

from ..attention import attention_weights
from .checking import FunctionExercise, ValueExercise, as_number

# Two channels of a map without SA, positions row by row; x is the third position of channel 2.
CHANNEL_1, OTHERS_OF_CHANNEL_2 = (2.0, 0.0, 0.0, 1.0), (1.0, 0.0, 0.0)
WEIGHTS, BIAS, LOGIT = (2.0, -1.0), 0.25, 0.5
HW = len(CHANNEL_1)
TOLERANCE = 1e-3


def _at_logit(pooled_by: float = HW, second: float = WEIGHTS[1], bias: float = BIAS) -> float:
    """The x for which the logit is LOGIT. Other arguments than the defaults are for mistakes."""
    first = WEIGHTS[0] * sum(CHANNEL_1) / pooled_by
    return (LOGIT - bias - first) * pooled_by / second - sum(OTHERS_OF_CHANNEL_2)


def _examine_activation(value) -> str | None:
    x = as_number(value)
    known = {
        _at_logit(pooled_by=1): "this would be right if G were the sum; without SA it is the mean",
        _at_logit(bias=0): "this would be right without the bias",
        _at_logit(bias=HW * BIAS): "the bias is counted at every position; it is added once",
        _at_logit(bias=-BIAS): "the bias is subtracted; the map sums to S - b, and S is asked for",
        _at_logit(second=-WEIGHTS[1]): "the weight of channel 2 is negative",
        _at_logit() + sum(OTHERS_OF_CHANNEL_2): (
            "this is the sum of channel 2 over all positions; another one has a part of it"
        ),
        (_at_logit() + sum(OTHERS_OF_CHANNEL_2)) / HW: (
            "this is the mean of channel 2; the exercise asks for the activation at one position"
        ),
    }
    if abs(x - _at_logit()) <= TOLERANCE:
        return None
    for wrong, sentence in known.items():
        if abs(x - wrong) <= TOLERANCE:
            return sentence
    if not 0 <= x < float("inf"):
        return f"an activation behind a ReLU is not negative, and finite; this is {x:g}"
    pooled = sum(CHANNEL_1) / HW, (sum(OTHERS_OF_CHANNEL_2) + x) / HW
    logit = sum(w * G for w, G in zip(WEIGHTS, pooled, strict=True)) + BIAS
    return f"with {x:g} the logit is {as_number(logit):.4g}, not {LOGIT:g}"


one_activation = ValueExercise(
    name="one_activation",
    notebook="07_cam",
    title="Bright, and against",
    level="change a number",
    minutes=5,
    asks="a number that is not negative",
    examine=_examine_activation,
    typical={
        "4.75": "G is taken for the sum over the positions; without SA it is the mean",
        "3": "the bias is forgotten",
        "7": "the bias is counted at every position",
    },
    right="the brightest position of the map is the one that speaks most against the class",
)


def cam(
    f: Tensor, p: Tensor, weight: Tensor, bias: Tensor, classes: Tensor, *, terms=None
) -> Tensor:
    """M_c of one class per image (eq. 7). The bias is not part of it.

    f: (B, C, h, w), p: (B, h, w), weight: (ids, C), bias: (ids,), classes: (B,). Returns (B, h, w).
    terms: the products w_k p f_k, (B, C, h, w) -> the map; it is for the mistakes below.
    """
    products = weight[classes][:, :, None, None] * p[:, None] * f
    if terms is not None:
        return terms(products)
    return products.sum(1)


def _cam_with(terms):
    """A mistake in what becomes of the products w_k p f_k, (B, C, h, w) -> (B, h, w)."""
    return lambda f, p, weight, bias, classes: cam(f, p, weight, bias, classes, terms=terms)


def _of_map(rule):
    """A mistake in what becomes of the right map: (M, bias of its class as (B, 1, 1)) -> map."""

    def mistaken(f, p, weight, bias, classes):
        M = cam(f, p, weight, bias, classes)
        return rule(M, bias[classes][:, None, None])

    return mistaken


def _with_weights(rule):
    """Another p: (f, p) -> (B, h, w)."""
    return lambda f, p, weight, bias, classes: cam(f, rule(f, p), weight, bias, classes)


def _of_classes(rule):
    """Other classes: (logits, classes) -> (B,)."""

    def mistaken(f, p, weight, bias, classes):
        S = (p[:, None] * f).sum((2, 3)) @ weight.T + bias
        return cam(f, p, weight, bias, rule(S, classes))

    return mistaken


def _to_one(M):
    low, high = M.amin((1, 2), keepdim=True), M.amax((1, 2), keepdim=True)
    return (M - low) / (high - low)


def _positions(p: Tensor) -> int:
    return p.shape[1] * p.shape[2]


def _one_map(seed: int, B: int = 3, C: int = 4, h: int = 3, w: int = 2, ids: int = 5) -> tuple:
    """Arguments of cam(). The class of an image is not its most likely one; the classes differ."""
    generator = torch.Generator().manual_seed(seed)
    f = torch.rand(B, C, h, w, generator=generator, dtype=torch.float64)
    p = torch.rand(B, h, w, generator=generator, dtype=torch.float64)
    weight = torch.randn(ids, C, generator=generator, dtype=torch.float64)
    bias = torch.randn(ids, generator=generator, dtype=torch.float64)
    p = p / p.sum((1, 2), keepdim=True)
    S = (p[:, None] * f).sum((2, 3)) @ weight.T + bias
    classes = (S.argmax(1) + 1 + torch.arange(B)) % ids
    return f, p, weight, bias, classes


_BY_HAND = (
    torch.tensor([[CHANNEL_1, (1.0, 0.0, 4.0, 0.0)]], dtype=torch.float64).view(1, 2, 2, 2),
    torch.full((1, 2, 2), 0.25, dtype=torch.float64),
    torch.tensor([[0.0, 1.0], WEIGHTS], dtype=torch.float64),
    torch.tensor([0.0, BIAS], dtype=torch.float64),
    torch.tensor([1]),
)

a_map_by_hand = FunctionExercise(
    name="a_map_by_hand",
    notebook="07_cam",
    title="A class activation map",
    level="write",
    minutes=15,
    reference=cam,
    arguments=("f", "p", "weight", "bias", "classes"),
    probes=(_BY_HAND, _one_map(0), _one_map(1), _one_map(2, B=2, C=5, h=2, w=4)),
    shape="(B, h, w)",
    mistakes={
        "the class of the wrong image or identity: this is the map of the most likely class; the "
        "exercise gives one class an image": _of_classes(lambda S, classes: S.argmax(1)),
        "all images have the class of the first one": _of_classes(
            lambda S, classes: classes[:1].expand_as(classes)
        ),
        "the map of the wrong class: classes are counted from 0": _of_classes(
            lambda S, classes: (classes - 1) % S.shape[1]
        ),
        "this sums the maps of all classes; take that of the one class of each image": (
            lambda f, p, weight, bias, classes: cam(
                f, p, weight.sum(0, keepdim=True), bias, torch.zeros_like(classes)
            )
        ),
        "the bias is added at every position; it has no place on the map": _of_map(
            lambda M, b: M + b
        ),
        "the bias is spread over the positions; eq. 7 leaves it out, and the map sums to S - b": (
            lambda f, p, weight, bias, classes: (
                cam(f, p, weight, bias, classes) + bias[classes][:, None, None] / _positions(p)
            )
        ),
        "the bias is subtracted at every position; it has no place on the map": _of_map(
            lambda M, b: M - b
        ),
        "the map is the same at every position: the activations are pooled before they are "
        "weighted": _of_map(lambda M, b: M.sum((1, 2), keepdim=True).expand_as(M)),
        "only the positive part is left (as in Grad-CAM); the map no longer sums to S - b": _of_map(
            lambda M, b: M.relu()
        ),
        "the ReLU comes before the sum over the channels; channels that speak against the class "
        "are lost": _cam_with(lambda products: products.relu().sum(1)),
        "the absolute values are summed; what speaks against the class is negative": _cam_with(
            lambda products: products.abs().sum(1)
        ),
        "this is the mean over the channels; eq. 7 has their sum": _cam_with(
            lambda products: products.mean(1)
        ),
        "this is the largest channel; eq. 7 has the sum over the channels": _cam_with(
            lambda products: products.amax(1)
        ),
        "there is a softmax over the channels; eq. 7 sums w p f as it is": _cam_with(
            lambda products: (products.softmax(1) * products).sum(1)
        ),
        "the weights of the classifier go through a softmax over the channels; eq. 7 takes them as "
        "they are": lambda f, p, weight, bias, classes: cam(f, p, weight.softmax(1), bias, classes),
        "the weights of the classifier go through a softmax over the classes; eq. 7 takes them as "
        "they are": lambda f, p, weight, bias, classes: cam(f, p, weight.softmax(0), bias, classes),
        "p is missing: this is w f, which sums to the logit only if G is a plain sum": (
            _with_weights(lambda f, p: torch.ones_like(p))
        ),
        "this is right without SA only: the weights p of the image stand in the place of 1/HW": (
            _with_weights(lambda f, p: torch.full_like(p, 1 / _positions(p)))
        ),
        "p is multiplied twice": _with_weights(lambda f, p: p**2),
        "p and 1/HW are both in it; p takes the place of 1/HW": _with_weights(
            lambda f, p: p / _positions(p)
        ),
        "p is made anew, as the softmax of f; take the p that is given": _with_weights(
            lambda f, p: attention_weights(f)
        ),
        "p is made anew, as l1 of f; take the p that is given": _with_weights(
            lambda f, p: attention_weights(f, "l1")
        ),
        "the map is stretched from 0 to 1, so each has a peak; leave its numbers as they are": (
            _of_map(lambda M, b: _to_one(M))
        ),
        "the map is divided by its largest value; leave its numbers as they are": _of_map(
            lambda M, b: M / M.amax((1, 2), keepdim=True)
        ),
        "the map is divided by its sum, so it no longer says how large the logit is": _of_map(
            lambda M, b: M / M.sum((1, 2), keepdim=True)
        ),
        "the map goes through a sigmoid, so it no longer says what speaks against the class": (
            _of_map(lambda M, b: M.sigmoid())
        ),
        "the map goes through a softmax over its positions; leave its numbers as they are": _of_map(
            lambda M, b: M.flatten(1).softmax(1).view_as(M)
        ),
        "the map is right, but its positions lie in one row; give it height and width": _of_map(
            lambda M, b: M.flatten(1)
        ),
        "the map is right, but there is a dimension of size 1 too many; expected (B, h, w)": (
            _of_map(lambda M, b: M[:, None])
        ),
        "these are the maps of all identities; take that of the class of each image": (
            lambda f, p, weight, bias, classes: torch.einsum("ck,nij,nkij->ncij", weight, p, f)
        ),
        "these are sums over the positions, one a channel; sum over the channels": (
            _cam_with(lambda products: products.sum((2, 3)))
        ),
        "these are the sums of the maps (logits minus bias); the exercise asks for the maps": (
            lambda f, p, weight, bias, classes: cam(f, p, weight, bias, classes).sum((1, 2))
        ),
        "the channels are not summed: these are the products w p f": (
            _cam_with(lambda products: products)
        ),
        "every image has the maps of all classes of the batch; take its own class, as "
        "weight[classes] does": lambda f, p, weight, bias, classes: torch.einsum(
            "nk,bij,bkij->bnij", weight[classes], p, f
        ),
    },
    symptoms={
        "a map must sum to the logit of its class minus the bias, and yours does not": (
            lambda M, f, p, weight, bias, classes: (
                not np.allclose(M.sum((1, 2)), cam(f, p, weight, bias, classes).sum((1, 2)))
            )
        ),
    },
    nan_means="A map need not have a positive value; leave its numbers as they are",
    right="each map sums to the logit of its class minus the bias",
)


def left_out(G: Tensor, U: Tensor, a: Tensor, v: Tensor, b: float) -> Tensor:
    """S minus the sum of its map, for S = v . relu(U G + a) + b: b, and v a over the active units.

    G: (C,), U: (units, C), a, v: (units,). Returns a scalar.
    """
    return b + (v * a)[U @ G + a > 0].sum()


def _left_out_by(rule):
    """A mistake from its formula: (z = U G + a, G, U, a, v, b) -> scalar."""
    return lambda G, U, a, v, b: rule(U @ G + a, G, U, a, v, b)


def _units(seed: int, units: int = 8, C: int = 4) -> tuple:
    """A random head: offsets of both signs, units that are active only with or without theirs."""
    generator = torch.Generator().manual_seed(seed)
    G = torch.rand(C, generator=generator, dtype=torch.float64)
    U = torch.randn(units, C, generator=generator, dtype=torch.float64)
    a = torch.randn(units, generator=generator, dtype=torch.float64)
    v = torch.randn(units, generator=generator, dtype=torch.float64)
    return G, U, a, v, 0.3 + seed


_TWO_UNITS = (
    torch.tensor([1.0, 2.0], dtype=torch.float64),
    torch.tensor([[1.0, 0.0], [0.0, -1.0], [0.0, 1.0]], dtype=torch.float64),
    torch.tensor([0.5, 1.0, -3.0], dtype=torch.float64),  # z = 1.5, -1, -1: one unit is active
    torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64),
    0.25,
)

what_a_map_leaves_out = FunctionExercise(
    name="what_a_map_leaves_out",
    notebook="07_cam",
    title="What the map of stage 4 leaves out",
    level="prove",
    minutes=25,
    reference=left_out,
    arguments=("G", "U", "a", "v", "b"),
    probes=(_TWO_UNITS, _units(0), _units(1), _units(2, units=12, C=3)),
    shape="(), one number",
    mistakes={
        "this is the bias alone; the offsets of the active units are not on the map either": (
            _left_out_by(lambda z, G, U, a, v, b: torch.tensor(b))
        ),
        "these are the offsets alone; the bias is missing": _left_out_by(
            lambda z, G, U, a, v, b: (v * a)[z > 0].sum()
        ),
        "all units count; a unit that the ReLU has set to 0 adds nothing to the logit": (
            _left_out_by(lambda z, G, U, a, v, b: b + v @ a)
        ),
        "a unit is active where U G + a > 0; you asked U G": _left_out_by(
            lambda z, G, U, a, v, b: b + (v * a)[U @ G > 0].sum()
        ),
        "a unit is active where U G + a > 0; you asked a. An offset below zero counts, too": (
            _left_out_by(lambda z, G, U, a, v, b: b + v @ a.relu())
        ),
        "these are the units that are not active": _left_out_by(
            lambda z, G, U, a, v, b: b + (v * a)[z <= 0].sum()
        ),
        "the offsets are summed as they are; each reaches the logit times its v": _left_out_by(
            lambda z, G, U, a, v, b: b + a[z > 0].sum()
        ),
        "the weights v of the active units are summed; it is v times the offset": _left_out_by(
            lambda z, G, U, a, v, b: b + v[z > 0].sum()
        ),
        "this is the logit S itself": _left_out_by(lambda z, G, U, a, v, b: b + v @ z.relu()),
        "this is the sum of the map; the exercise asks for the rest of the logit": _left_out_by(
            lambda z, G, U, a, v, b: ((v * (U @ G))[z > 0]).sum()
        ),
        "the sign is wrong: the rest is S minus the sum of the map": _left_out_by(
            lambda z, G, U, a, v, b: -(b + (v * a)[z > 0].sum())
        ),
        "the bias is subtracted": _left_out_by(lambda z, G, U, a, v, b: (v * a)[z > 0].sum() - b),
    },
    right="with the mask frozen, offsets and bias are all that does not go through the map",
)
