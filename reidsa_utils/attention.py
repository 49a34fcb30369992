"""The parameter-free spatial attention layer (section 3.2, eq. 1), its variants and its derivative (eq. 12)."""

import torch
from torch import Tensor, nn

from . import InputError, known

FORMS = ("softmax", "l1", "softmax_mean", "sigmoid", "none")


def attention_weights(
    f: Tensor, form: str = "softmax", temperature: float = 1.0, standardise: bool = False
) -> Tensor:
    """The weight p(i, j) of every position of a feature map (eq. 1 and its alternatives).

    f: (B, C, H, W), any float type; non-negative for form="l1" (the layer sits behind a ReLU).
    form: with A(i, j) = sum_k f_k(i, j),
        "softmax"       exp(A) / sum exp(A)              eq. 1
        "l1"            A / sum A                        the released code
        "softmax_mean"  exp(A / C) / sum exp(A / C)      eq. 1 with the mean over channels
        "sigmoid"       sigmoid(A) / sum sigmoid(A)      what section 3.2 argues against
        "none"          1 / HW                           average pooling
    temperature, standardise: controls of notebook 08, not in the paper; for the two softmaxes. The scores of each image are
        first brought to mean 0 and standard deviation 1 over its positions (standardise), then divided by the temperature.
    Returns p: (B, H, W), in the type of f; sums to 1 for every form. A map without contrast gives 1 / HW.
    Raises InputError for an unknown form, a map that is not 4-D, or a temperature that is not positive.
    """
    _check(f, form)
    scores = _tempered(_scores(f, form), form, temperature, standardise)
    return _weights(scores, form).view(len(f), *f.shape[2:]).to(f.dtype)


def _check(f: Tensor, form: str) -> None:
    known("attention form", form, FORMS)
    if f.dim() != 4:
        raise InputError(
            f"a feature map of shape {tuple(f.shape)}; expected (batch, channels, height, width)"
        )


def _scores(f: Tensor, form: str) -> Tensor:
    """A: (B, HW), the sum over channels; in float32 at least, since half precision overflows at 65,504."""
    wide = torch.promote_types(f.dtype, torch.float32)
    if form == "none":
        return f.new_zeros(len(f), f.shape[2] * f.shape[3], dtype=wide)
    A = f.sum(dim=1, dtype=wide).flatten(1)
    return A / f.shape[1] if form == "softmax_mean" else A


def _tempered(A: Tensor, form: str, temperature: float, standardise: bool) -> Tensor:
    """The scores as a softmax takes them: (B, HW) -> (B, HW)."""
    if temperature == 1 and not standardise:
        return A
    if form not in ("softmax", "softmax_mean"):
        raise InputError(
            f"temperature is {temperature:g} and standardise is {standardise} for the form {form}; only softmax and "
            "softmax_mean have them"
        )
    if not temperature > 0:
        raise InputError(f"temperature is {temperature}; expected a positive number")
    if standardise:
        centred = A - A.mean(dim=1, keepdim=True)
        variance = centred.square().mean(dim=1, keepdim=True)
        A = centred * torch.rsqrt(variance + torch.finfo(A.dtype).eps)  # a flat map stays flat
    return A / temperature


def _weights(A: Tensor, form: str) -> Tensor:
    if form in ("softmax", "softmax_mean"):
        return A.softmax(dim=1)
    if form == "sigmoid":
        # sigmoid / its sum = softmax of log sigmoid: the same numbers, and no 0 / 0 far below zero
        return nn.functional.logsigmoid(A).softmax(dim=1)
    if form == "l1":
        total = A.sum(dim=1, keepdim=True)
        dark = (
            total <= torch.finfo(A.dtype).tiny * A.shape[1]
        )  # the released code divides 0 by 0 here
        return torch.where(
            dark, 1 / A.shape[1], A / torch.where(dark, torch.ones_like(total), total)
        )
    return torch.full_like(A, 1 / A.shape[1])


def effective_cells(maps: Tensor) -> Tensor:
    """How many cells weights or a map are spread over: exp of the entropy of the positive part, normalised to sum 1.

    maps: (B, H, W). Returns (B,), from 1 (one cell) to HW (uniform); NaN for a map without a positive value.
    """
    p = maps.clamp(min=0).flatten(1).double()
    p = p / p.sum(dim=1, keepdim=True)
    return torch.exp(torch.special.entr(p).sum(dim=1))


class _AttendedPool(torch.autograd.Function):
    """G = sum_ij p f without making F = p f. Backward: one write of df, which has rank 2 over positions.

    With s the scores that p is made from (A, or A / C) and g the gradient that arrives at G:
        df_k(i, j) = g_k p(i, j) + dA(i, j),    dA = (dp/dA)^T [ sum_k g_k f_k ]
    The second term is the same for every channel: eq. 12 summed over what it multiplies.
    """

    @staticmethod
    def forward(ctx, f: Tensor, form: str, temperature: float, standardise: bool) -> Tensor:
        with torch.enable_grad():
            A = _scores(f.detach(), form).requires_grad_(form != "none")
            p = _weights(_tempered(A, form, temperature, standardise), form)  # (B, HW)
        ctx.save_for_backward(f)
        ctx.A, ctx.p, ctx.form = A, p, form
        return torch.einsum("bchw,bhw->bc", f, p.detach().to(f.dtype).view(len(f), *f.shape[2:]))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g: Tensor):
        (f,), A, p = ctx.saved_tensors, ctx.A, ctx.p
        df = torch.empty_like(f)  # keeps the memory format of f
        torch.mul(
            g[:, :, None, None], p.detach().to(f.dtype).view(len(f), 1, *f.shape[2:]), out=df
        )  # g_k p(i, j)
        if ctx.form != "none":
            dp = torch.einsum("bchw,bc->bhw", f.to(p.dtype), g.to(p.dtype)).flatten(
                1
            )  # (B, HW)  sum_k g_k f_k
            (dA,) = torch.autograd.grad(p, A, dp, retain_graph=True)
            if ctx.form == "softmax_mean":
                dA = dA / f.shape[1]
            df += dA.to(f.dtype).view(len(f), 1, *f.shape[2:])
        return df, None, None, None


def attended_pool(
    f: Tensor, form: str = "softmax", temperature: float = 1.0, standardise: bool = False
) -> Tensor:
    """Pool a feature map with its own spatial attention (eq. 6), without making F.

    f: (B, C, H, W), any float type; non-negative for form="l1".
    form, temperature, standardise: see attention_weights; "none" is average pooling, so all forms are weighted means on one scale.
    Returns G: (B, C), G_k = sum_ij p(i, j) f_k(i, j).
    Raises InputError as attention_weights.
    """
    _check(f, form)
    if form == "none":
        return f.mean(dim=(2, 3))
    if (
        torch.compiler.is_compiling()
    ):  # the compiler fuses the two: F is never made, and df is written once
        p = _weights(_tempered(_scores(f, form), form, temperature, standardise), form)
        return (f * p.to(f.dtype).view(len(f), 1, *f.shape[2:])).sum(dim=(2, 3))
    return _AttendedPool.apply(f, form, temperature, standardise)


class SpatialAttention(nn.Module):
    """F_k(i, j) = p(i, j) f_k(i, j) (eq. 1): rescales every position, holds no parameter.

    (B, C, H, W) -> (B, C, H, W). form: see attention_weights.
    """

    def __init__(self, form: str = "softmax"):
        super().__init__()
        _check(torch.empty(1, 1, 1, 1), form)
        self.form = form

    def forward(self, f: Tensor) -> Tensor:
        _check(f, self.form)
        p = _weights(_scores(f, self.form), self.form).view(len(f), 1, *f.shape[2:])
        return (f.to(p.dtype) * p).to(f.dtype)  # in half precision the gradient of p would overflow


def attention_jacobian(f: Tensor) -> Tensor:
    """dF_k(i, j) / df_t(m, n) in closed form for the softmax (eq. 12).

    f: (C, H, W), any float type. Returns (C, H, W, C, H, W); holds (CHW)^2 numbers, so keep f small.
    Raises InputError for a map that is not 3-D.
    """
    if f.dim() != 3:
        raise InputError(
            f"a feature map of shape {tuple(f.shape)}; expected (channels, height, width)"
        )
    C, H, W = f.shape
    p = attention_weights(f[None])[0].reshape(-1)  # (HW,)
    flat = f.reshape(C, -1)  # (C, HW)
    dp = p.diag() - p[:, None] * p[None, :]  # (HW, HW)  eq. 11
    jacobian = (flat[:, :, None] * dp[None])[:, :, None].repeat(
        1, 1, C, 1
    )  # f_k dp, the same for every t
    jacobian += (
        torch.eye(C, dtype=f.dtype, device=f.device)[:, None, :, None] * p.diag()[None, :, None, :]
    )
    return jacobian.view(C, H, W, C, H, W)
