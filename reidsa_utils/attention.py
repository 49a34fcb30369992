"""Parameter-free spatial attention (section 3.2): eq. 1, its alternatives and its derivative.

The layer gives every position (i, j) of a feature map f one weight p and rescales the map by it:

    A(i, j)   = sum_k f_k(i, j)                    the sum over channels
    p(i, j)   = exp(A(i, j)) / sum_mn exp(A(m, n))                    eq. 1
    F_k(i, j) = p(i, j) f_k(i, j)                                     eq. 1
    G_k       = sum_ij F_k(i, j)                   what the head sees, eq. 6

`attention_weights` computes p, `SpatialAttention` F, `attended_pool` G and `attention_jacobian`
dF/df (eq. 12). `register_form` adds a form of your own.
"""

import contextlib
from collections.abc import Callable
from numbers import Real

import torch
from torch import Tensor, nn

from . import InputError, known
from .support.arrays import as_tensor

FORMS = ("softmax", "l1", "softmax_mean", "sigmoid", "none")
_OWN_FORMS: dict[str, Callable[[Tensor], Tensor]] = {}  # register_form fills it


def known_forms() -> tuple[str, ...]:
    """The names of all forms: FORMS, and those that register_form has added in this process."""
    return (*FORMS, *_OWN_FORMS)


def register_form(name: str, weights: Callable[[Tensor], Tensor]) -> None:
    """Add an attention form of your own, for this process; docs/own_attention.md is a tutorial.

    name: letters, digits and underscores. A name in FORMS is refused. A form that was registered
        before under the same name is replaced.
    weights: A -> p, both (B, HW). The scores A = sum_k f_k are not negative (f comes from a ReLU).
        Each row of p sums to 1 and depends on its own row of A only. Autograd differentiates the
        function, so compute p with torch's functions.
    Raises InputError for a name that cannot be used, and for weights that break the rules above on
    a few random scores, on equal ones or on zeros.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(
            f"a form is named {name!r}; expected letters, digits and underscores, such as my_form"
        )
    if name in FORMS:
        raise InputError(f"{name} is a form of this project; choose another name")
    if not callable(weights):
        raise InputError(
            f"the weights of {name} are a {type(weights).__name__}; expected a function of the "
            "scores A: (B, HW) -> (B, HW)"
        )
    _check_weights(name, weights)
    _OWN_FORMS[name] = weights


def _check_weights(name: str, weights: Callable) -> None:
    """Check the weights on scores of a small map. Raises InputError as register_form says."""
    generator = torch.Generator().manual_seed(0)
    random = 20 * torch.rand(4, 6, generator=generator)
    flat = torch.ones(1, 6)
    cases = {"random scores": random, "equal scores": 3 * flat, "scores of zero": 0 * flat}
    for words, A in cases.items():
        leaf = A.clone().requires_grad_()
        p = weights(leaf)
        if not torch.is_tensor(p) or p.shape != A.shape:
            found = tuple(p.shape) if torch.is_tensor(p) else type(p).__name__
            raise InputError(
                f"the weights of {name} are {found} for scores of shape {tuple(A.shape)}; "
                "expected a tensor of the same shape"
            )
        if not torch.isfinite(p).all():
            raise InputError(f"the weights of {name} are nan or infinite on {words}")
        if not torch.allclose(p.sum(1), torch.ones(len(p), dtype=p.dtype), atol=1e-4):
            sums = [round(total, 4) for total in p.sum(1).tolist()]
            raise InputError(
                f"the weights of {name} sum to {sums} on {words}; each image's must sum to 1"
            )
        if p.requires_grad:
            (gradient,) = torch.autograd.grad(p.square().sum(), leaf)
            if not torch.isfinite(gradient).all():
                raise InputError(
                    f"the gradient of the weights of {name} is nan or infinite on {words}; "
                    "training would stop there"
                )
    one_by_one = torch.cat([weights(row[None]) for row in random])
    if not torch.allclose(one_by_one, weights(random), atol=1e-5):
        raise InputError(
            f"the weights of {name} mix the images of a batch; each row of p may depend on its "
            "own row of A only"
        )


def attention_weights(
    f: Tensor, form: str = "softmax", temperature: float = 1.0, standardise: bool = False
) -> Tensor:
    """The weight p(i, j) of every position of a feature map (eq. 1 and its alternatives).

    f: (B, C, H, W), a tensor of any float type. Whole numbers, an array or a list are converted.
        Non-negative for form="l1" (in the network, f is the output of a ReLU).
    form: with A(i, j) = sum_k f_k(i, j),
        "softmax"       exp(A) / sum exp(A)              eq. 1
        "l1"            A / sum A                        the released code
        "softmax_mean"  exp(A / C) / sum exp(A / C)      eq. 1 with the mean over channels
        "sigmoid"       sigmoid(A) / sum sigmoid(A)      what section 3.2 argues against
        "none"          1 / HW                           average pooling
        or a form that register_form has added.
    temperature, standardise: controls of notebook 08 for the two softmaxes; they are not in the
        paper. `standardise` first brings the scores of each image to mean 0 and standard
        deviation 1 over its positions. The scores are then divided by `temperature`.
    Returns p: (B, H, W), in the type of f; it sums to 1 for every form. If all scores of an image
    are equal, p is 1 / HW.
    Raises InputError for an unknown form, a map that is not 4-D or has no position, a temperature
    that is not positive, and temperature or standardise with a form that is not a softmax.
    """
    f = _checked(f, form)
    A = _scores(f, form)  # (B, HW)  eq. 1, the sum over channels
    p = _weights(A, form, temperature, standardise)  # (B, HW)  eq. 1, the softmax over positions
    return _on_map(p, f).to(f.dtype)


def _checked(f, form: str) -> Tensor:
    """The map as a float tensor. Raises InputError for an unknown form or a map that is not 4-D."""
    known("attention form", form, known_forms())
    f = as_tensor(f)
    if f.dim() != 4 or f.shape[2] * f.shape[3] == 0:
        raise InputError(
            f"a feature map of shape {tuple(f.shape)}; expected (batch, channels, height, width)"
        )
    return f


def _scores(f: Tensor, form: str) -> Tensor:
    """A: (B, C, H, W) -> (B, HW), the sum over channels; for "softmax_mean" their mean.

    In float32 at least, since half precision overflows at 65,504.
    """
    wide = torch.promote_types(f.dtype, torch.float32)
    if form == "none":
        return f.new_zeros(len(f), f.shape[2] * f.shape[3], dtype=wide)
    A = f.sum(dim=1, dtype=wide).flatten(1)  # eq. 1: A(i, j) = sum_k f_k(i, j)
    if form == "softmax_mean":
        return A / f.shape[1]
    return A


def _weights(A: Tensor, form: str, temperature: float = 1.0, standardise: bool = False) -> Tensor:
    """The weights p of the scores A: (B, HW) -> (B, HW)."""
    is_plain = isinstance(temperature, Real) and temperature == 1 and not standardise
    if not is_plain:
        A = _rescaled_scores(A, form, temperature, standardise)
    if form in _OWN_FORMS:
        return _OWN_FORMS[form](A)
    if form in ("softmax", "softmax_mean"):
        return A.softmax(dim=1)  # eq. 1: exp(A) / sum exp(A)
    if form == "sigmoid":
        # sigmoid / its sum is the softmax of log sigmoid. This form of it avoids 0 / 0 where all
        # scores are far below zero.
        return nn.functional.logsigmoid(A).softmax(dim=1)
    uniform = 1 / A.shape[1]
    if form == "l1":
        total = A.sum(dim=1, keepdim=True)  # (B, 1)
        # On an all-zero map the released code divides 0 by 0. A sum of HW numbers below the
        # smallest normal float counts as zero, too.
        is_zero = total <= torch.finfo(A.dtype).tiny * A.shape[1]
        safe_total = torch.where(is_zero, torch.ones_like(total), total)
        return torch.where(is_zero, uniform, A / safe_total)
    return torch.full_like(A, uniform)


def _rescaled_scores(A: Tensor, form: str, temperature: float, standardise: bool) -> Tensor:
    """Scores standardised and divided by the temperature: (B, HW) -> (B, HW)."""
    if form not in ("softmax", "softmax_mean"):
        raise InputError(
            f"temperature is {temperature} and standardise is {standardise} for the form {form}; "
            "only softmax and softmax_mean have them"
        )
    if not isinstance(temperature, Real) or not temperature > 0:
        raise InputError(f"temperature is {temperature}; expected a positive number")
    if standardise:
        centred = A - A.mean(dim=1, keepdim=True)
        variance = centred.square().mean(dim=1, keepdim=True)
        # Without eps a flat map would give 0 times infinity.
        A = centred * torch.rsqrt(variance + torch.finfo(A.dtype).eps)
    return A / float(temperature)


def _on_map(p: Tensor, f: Tensor) -> Tensor:
    """Weights as a map: (B, HW) -> (B, H, W), with the height and width of f."""
    return p.view(len(f), *f.shape[2:])


def attended_pool(
    f: Tensor, form: str = "softmax", temperature: float = 1.0, standardise: bool = False
) -> Tensor:
    """Pool a feature map with its own spatial attention (eq. 6), without making F.

    f: (B, C, H, W), as attention_weights takes it.
    form, temperature, standardise: see attention_weights. "none" is average pooling, so every
        form is a weighted mean whose weights sum to 1.
    Returns G: (B, C), G_k = sum_ij p(i, j) f_k(i, j).
    Raises InputError as attention_weights does, except that "none", which has no scores, accepts
    any temperature.
    """
    f = _checked(f, form)
    if form == "none":
        return f.mean(dim=(2, 3))
    if torch.compiler.is_compiling():
        # The compiler fuses these two lines: F is never made, and df is written once.
        p = attention_weights(f, form, temperature, standardise)  # (B, H, W)
        return (f * p[:, None]).sum(dim=(2, 3))
    return _AttendedPool.apply(f, form, temperature, standardise)


class SpatialAttention(nn.Module):
    """F_k(i, j) = p(i, j) f_k(i, j) (eq. 1): rescales every position and holds no parameter.

    (B, C, H, W) -> (B, C, H, W). form: see attention_weights.
    Raises InputError for an unknown form or a map that is not 4-D.
    """

    def __init__(self, form: str = "softmax"):
        super().__init__()
        self.form = known("attention form", form, known_forms())

    def forward(self, f: Tensor) -> Tensor:
        f = _checked(f, self.form)
        # attention_weights would round p to the type of f. In half precision the gradient of p
        # would then overflow, so p keeps its wider type until the product is made.
        p = _weights(_scores(f, self.form), self.form)  # (B, HW)
        p = _on_map(p, f)[:, None]  # (B, 1, H, W)
        return (f.to(p.dtype) * p).to(f.dtype)


def attention_jacobian(f: Tensor) -> Tensor:
    """dF_k(i, j) / df_t(m, n) in closed form for the softmax (eq. 12).

    f: (C, H, W), any float type.
    Returns (C, H, W, C, H, W), which holds (CHW)^2 numbers, so keep f small.
    Raises InputError for a map that is not 3-D.
    """
    f = as_tensor(f)
    if f.dim() != 3:
        raise InputError(
            f"a feature map of shape {tuple(f.shape)}; expected (channels, height, width)"
        )
    C, H, W = f.shape
    p = attention_weights(f[None])[0].reshape(-1)  # (HW,)
    dp = p.diag() - p[:, None] * p[None, :]  # (HW, HW)  eq. 11

    # For a pair of channels k, t the term is f_k dp. It is the same for every t.
    f_dp = f.reshape(C, -1)[:, :, None] * dp[None]  # (C, HW, HW)
    jacobian = f_dp[:, :, None].repeat(1, 1, C, 1)  # (C, HW, C, HW)

    # Case 1 of eq. 12, k = t and (i, j) = (m, n): + p(i, j).
    same_channel = torch.eye(C, dtype=f.dtype, device=f.device)
    jacobian += same_channel[:, None, :, None] * p.diag()[None, :, None, :]
    return jacobian.view(C, H, W, C, H, W)


def effective_cells(maps: Tensor) -> Tensor:
    """The number of positions that weights or a map are effectively spread over.

    This is exp of the entropy of the positive part of a map, normalised to sum 1.

    maps: (B, H, W).
    Returns (B,), from 1 (one position) to HW (uniform); NaN for a map without a positive value.
    Raises InputError for maps that are not 3-D.
    """
    maps = as_tensor(maps)
    if maps.dim() != 3:
        raise InputError(f"maps of shape {tuple(maps.shape)}; expected (batch, height, width)")
    p = maps.clamp(min=0).flatten(1).double()
    p = p / p.sum(dim=1, keepdim=True)
    return torch.exp(torch.special.entr(p).sum(dim=1))


def without_autocast(device: torch.device | str):
    """A context manager that turns off the caller's autocast on a device."""
    kind = torch.device(device).type
    if not torch.amp.is_autocast_available(kind):  # such as "meta", which has shapes only
        return contextlib.nullcontext()
    return torch.autocast(kind, enabled=False)


class _AttendedPool(torch.autograd.Function):
    """G = sum_ij p f without making F = p f. Backward writes df once, as a sum of two terms.

    With s the scores that p is made from (A, or A / C) and g the gradient that arrives at G:
        df_k(i, j) = g_k p(i, j) + dA(i, j),    ds = (dp/ds)^T [ sum_k g_k f_k ]
    and dA is ds, or ds / C.
    The second term is the same for every channel: eq. 12, multiplied by g and summed over k, i, j.
    """

    @staticmethod
    def forward(ctx, f: Tensor, form: str, temperature: float, standardise: bool) -> Tensor:
        # Keep the small graph from the scores to the weights: backward differentiates through it.
        with torch.enable_grad():
            s = _scores(f.detach(), form).requires_grad_()  # (B, HW)
            p = _weights(s, form, temperature, standardise)  # (B, HW)
        ctx.save_for_backward(f)
        ctx.s = s
        ctx.p = p
        ctx.form = form
        p_map = _on_map(p.detach().to(f.dtype), f)  # (B, H, W)
        with without_autocast(f.device):  # in the type of f
            return torch.einsum("bchw,bhw->bc", f, p_map)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g: Tensor):
        (f,) = ctx.saved_tensors  # (B, C, H, W)
        p = ctx.p  # (B, HW)

        # First term of df: g_k p(i, j).
        df = torch.empty_like(f)  # keeps the memory format of f
        p_map = _on_map(p.detach().to(f.dtype), f)[:, None]  # (B, 1, H, W)
        torch.mul(g[:, :, None, None], p_map, out=df)

        if not p.requires_grad:  # a registered form that ignores the scores
            return df, None, None, None

        # Second term: dA(i, j), from dG/dp = sum_k g_k f_k.
        with without_autocast(f.device):
            dp = torch.einsum("bchw,bc->bhw", f.to(p.dtype), g.to(p.dtype)).flatten(1)  # (B, HW)
        (ds,) = torch.autograd.grad(p, ctx.s, dp, retain_graph=True)  # (B, HW)
        dA = ds
        if ctx.form == "softmax_mean":
            dA = ds / f.shape[1]  # the scores are a mean over C
        df += _on_map(dA.to(f.dtype), f)[:, None]
        return df, None, None, None
