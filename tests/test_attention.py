"""The layer against autograd, finite differences, the released code's arithmetic and its own edge cases."""

import shutil

import numpy as np
import pytest
import torch
from conftest import enclosing_modes

from reidsa_utils import InputError, attention
from reidsa_utils.attention import (
    FORMS,
    SpatialAttention,
    attended_pool,
    attention_jacobian,
    attention_weights,
    known_forms,
    register_form,
)


def maps(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_by_hand():
    f = torch.tensor(
        [[[[1.0, 0.0]], [[1.0, 1.0]]]], dtype=torch.float64
    )  # two channels, two cells: A = (2, 1)
    expected = {
        "softmax": np.exp([2, 1]) / np.exp([2, 1]).sum(),
        "l1": [2 / 3, 1 / 3],
        "softmax_mean": np.exp([1, 0.5]) / np.exp([1, 0.5]).sum(),
        "none": [0.5, 0.5],
        "sigmoid": (s := 1 / (1 + np.exp([-2.0, -1.0]))) / s.sum(),
    }
    for form, p in expected.items():
        np.testing.assert_allclose(attention_weights(f, form)[0, 0].numpy(), p, rtol=1e-14)
        np.testing.assert_allclose(attended_pool(f, form)[0].numpy(), [p[0], 1.0], rtol=1e-14)


def test_l1_is_the_released_code():
    f = maps(3, 7, 5, 4)
    z = f.mean(1).flatten(
        1
    )  # the released code: channel mean, divided by its sum, in place, image by image
    for b in range(len(z)):
        z[b] /= z[b].sum()
    torch.testing.assert_close(attention_weights(f, "l1"), z.view(3, 5, 4), rtol=1e-14, atol=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pool_equals_layer_then_sum(form, layout):
    f = maps(3, 5, 4, 6).to(memory_format=layout).requires_grad_()
    g = maps(3, 5, seed=1) - 0.5
    layer = SpatialAttention(form)(f).sum((2, 3))
    fused = attended_pool(f, form)
    torch.testing.assert_close(fused, layer, rtol=1e-13, atol=1e-14)
    (expected,) = torch.autograd.grad((layer * g).sum(), f)
    (got,) = torch.autograd.grad((fused * g).sum(), f)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("how", [(0.3, False), (1.0, True), (2.0, True)])
@pytest.mark.parametrize("form", ["softmax", "softmax_mean"])
def test_temperature_and_standardised_scores(form, how):
    """The gradient by finite differences; weights that sum to 1; a flat map stays uniform; other forms are refused."""
    f = maps(2, 3, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: attended_pool(x, form, *how), f)
    p = attention_weights(f, form, *how)
    torch.testing.assert_close(p.sum((1, 2)), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(attended_pool(f, form, *how), (f * p[:, None]).sum((2, 3)))
    flat = torch.full((1, 3, 3, 2), 0.7, requires_grad=True)
    pooled = attended_pool(flat, form, *how)
    assert torch.equal(attention_weights(flat, form, *how), torch.full((1, 3, 2), 1 / 6))
    assert torch.isfinite(torch.autograd.grad(pooled.sum(), flat)[0]).all()
    for other, (temperature, standardise) in (("l1", how), (form, (-1.0, False))):
        with pytest.raises(
            InputError,
            match="only softmax and softmax_mean"
            if other == "l1"
            else "expected a positive number",
        ):
            attended_pool(f, other, temperature, standardise)


def test_temperature_and_standardised_scores_by_hand():
    f = maps(2, 3, 4, 2)
    A = f.sum(1).flatten(1).numpy()
    scores = {
        ("softmax", 0.3, False): A / 0.3,
        ("softmax", 1.0, True): (A - A.mean(1, keepdims=True)) / A.std(1, keepdims=True),
        ("softmax", 2.0, True): (A - A.mean(1, keepdims=True)) / A.std(1, keepdims=True) / 2,
        ("softmax_mean", 0.3, False): A / 3 / 0.3,
    }
    for how, s in scores.items():
        expected = np.exp(s) / np.exp(s).sum(1, keepdims=True)
        np.testing.assert_allclose(attention_weights(f, *how).flatten(1), expected, rtol=1e-12)


def test_a_second_derivative_is_refused():
    """Not given, and not silently wrong."""
    f = maps(1, 2, 3, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(attended_pool(f).square().sum(), f, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("scale", [1e-100, 1e-40, 1e100])
def test_l1_does_not_depend_on_the_scale(scale):
    f = maps(2, 3, 4, 2)
    torch.testing.assert_close(
        attention_weights(scale * f, "l1"), attention_weights(f, "l1"), rtol=1e-13, atol=0
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_layer_rounds_once(form, dtype):
    """In half precision the rescaled map is the exact one, rounded: weights are not rounded before."""
    f = maps(4, 3, 5, 7).to(dtype)
    exact = SpatialAttention(form)(f.double())
    error = (SpatialAttention(form)(f).double() - exact).abs() / exact
    assert error.max() <= 1.01 * torch.finfo(dtype).eps / 2


@pytest.mark.parametrize("form", FORMS)
def test_gradient_by_finite_differences(form):
    f = maps(2, 3, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: attended_pool(x, form), f)
    assert torch.autograd.gradcheck(lambda x: SpatialAttention(form)(x), f)


def test_jacobian_is_eq_12():
    f = maps(3, 2, 4) - 0.4  # negative activations too
    auto = torch.autograd.functional.jacobian(lambda x: SpatialAttention("softmax")(x[None])[0], f)
    closed = attention_jacobian(f)
    assert closed.shape == (3, 2, 4, 3, 2, 4)
    torch.testing.assert_close(closed, auto, rtol=0, atol=1e-15)
    # the three cases of eq. 12, at one place each, written out
    p = attention_weights(f[None])[0]
    k, i, j = 1, 0, 2
    same = f[k, i, j] * p[i, j] * (1 - p[i, j])
    assert closed[k, i, j, k, i, j].item() == pytest.approx((same + p[i, j]).item(), rel=1e-12)
    assert closed[k, i, j, 2, i, j].item() == pytest.approx(same.item(), rel=1e-12)
    assert closed[k, i, j, 0, 1, 3].item() == pytest.approx(
        (-f[k, i, j] * p[i, j] * p[1, 3]).item(), rel=1e-12
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", ["zero", "constant", "saturated", "tiny", "subnormal"])
def test_edges_stay_finite(form, dtype, value):
    f = torch.zeros(2, 64, 3, 4, dtype=dtype)
    if value == "constant":
        f += 0.5
    elif value == "saturated":
        f[:, :, 1, 2] = 2000.0  # the sum over channels is past the range of float16
    elif value == "tiny":
        f += torch.finfo(dtype).tiny
    elif value == "subnormal":  # the inverse of their sum overflows
        f += torch.finfo(dtype).tiny / 6144
    f.requires_grad_()
    p = attention_weights(f, form)
    assert p.dtype == dtype and torch.isfinite(p).all()
    accuracy = 2e-2 if dtype.itemsize == 2 else 1e-6  # 12 weights, rounded to 8 or 11 bits each
    torch.testing.assert_close(
        p.double().sum((1, 2)), torch.ones(2, dtype=torch.float64), rtol=0, atol=accuracy
    )
    if value != "saturated":
        torch.testing.assert_close(
            p.double(), torch.full((2, 3, 4), 1 / 12, dtype=torch.float64), rtol=1e-2, atol=0
        )
    rescaled = SpatialAttention(form)(f)
    assert rescaled.dtype == dtype
    for result in (attended_pool(f, form), rescaled.sum((2, 3)), 2 * p[:, 0]):
        assert result.dtype == dtype
        if form == "none" and result.grad_fn is None:
            continue  # weights that do not depend on the map
        (gradient,) = torch.autograd.grad(result.sum(), f)
        assert torch.isfinite(result).all() and torch.isfinite(gradient).all()


def test_no_parameters_and_refusals():
    assert not list(SpatialAttention().parameters())
    with pytest.raises(InputError, match="unknown attention form 'soft'.*softmax, l1"):
        attended_pool(maps(1, 2, 3, 3), "soft")
    with pytest.raises(InputError, match="shape \\(2, 3, 3\\)"):
        attention_weights(maps(2, 3, 3))
    with pytest.raises(InputError, match="expected \\(channels, height, width\\)"):
        attention_jacobian(maps(1, 2, 3, 3))


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("form", ["softmax", "l1"])
def test_compiled_pooling_is_the_eager_one(form):
    """Under torch.compile another formula runs (the compiler fuses it); values and gradients are those of eager mode."""
    torch.manual_seed(0)
    f, g = torch.rand(2, 8, 6, 4, requires_grad=True), torch.rand(2, 8)
    results = []
    for pool in (attended_pool, torch.compile(attended_pool)):
        out = pool(f, form)
        results.append((out.detach(), *torch.autograd.grad(out, f, g)))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-5, atol=1e-6)


MODES = enclosing_modes()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", FORMS)
def test_a_callers_mode_changes_nothing(form, mode):
    f = maps(2, 5, 4, 3, dtype=torch.float32)
    functions = (attention_weights, attended_pool, lambda f, form: SpatialAttention(form)(f))
    for function in functions:
        with MODES[mode]():
            inside = function(f, form)
            made_inside = f + 0
        assert inside.dtype == f.dtype and torch.equal(inside, function(f, form))
        assert torch.equal(function(made_inside, form), inside)  # and used outside


@pytest.mark.parametrize("form", FORMS)
def test_gradients_under_autocast_are_those_without(form):
    f = maps(2, 5, 4, 3, dtype=torch.float32).requires_grad_()
    expected = torch.autograd.grad(attended_pool(f, form).square().sum(), f)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(
            torch.autograd.grad(attended_pool(f, form).square().sum(), f)[0], expected
        )


def test_a_map_without_a_position_is_refused():
    for shape in ((2, 3, 0, 4), (2, 3, 4, 0)):
        for form in FORMS:
            with pytest.raises(InputError, match="expected \\(batch, channels, height, width"):
                attention_weights(torch.ones(shape), form)
    with pytest.raises(InputError, match="temperature is x; expected a positive number"):
        attention_weights(torch.ones(1, 1, 2, 2), temperature="x")


def test_shapes_without_numbers():
    """Costs are counted on the device "meta", which has no autocast."""
    f = torch.empty(2, 8, 6, 2, device="meta", requires_grad=True)
    pooled = attended_pool(f, "softmax")
    assert pooled.shape == (2, 8) and pooled.device.type == "meta"
    pooled.sum().backward()
    assert f.grad.shape == f.shape


# Forms of one's own.


@pytest.fixture
def own_form():
    """Registers a form under the name "mine", and forgets it after the test."""
    yield lambda weights: register_form("mine", weights)
    attention._OWN_FORMS.pop("mine", None)


def power(A):
    p = A**3 + 1e-9
    return p / p.sum(1, keepdim=True)


def test_an_own_form_is_a_form_like_the_others(own_form):
    with pytest.raises(InputError, match="unknown attention form 'mine'"):
        attention_weights(torch.rand(1, 2, 2, 2), "mine")
    own_form(power)
    f = torch.rand(3, 4, 5, 2, dtype=torch.float64)
    p = power(f.sum(1).flatten(1)).view(3, 5, 2)
    torch.testing.assert_close(attention_weights(f, "mine"), p)
    torch.testing.assert_close(SpatialAttention("mine")(f), f * p[:, None])
    torch.testing.assert_close(attended_pool(f, "mine"), (f * p[:, None]).sum((2, 3)))
    leaf = f.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda f: attended_pool(f, "mine"), leaf)
    with pytest.raises(InputError, match="only softmax and softmax_mean have"):
        attention_weights(f, "mine", temperature=2.0)


def test_an_own_form_leaves_the_forms_of_the_project_alone(own_form):
    f = torch.rand(2, 3, 4, 2)
    before = {form: attention_weights(f, form) for form in FORMS}
    own_form(power)
    assert FORMS == ("softmax", "l1", "softmax_mean", "sigmoid", "none")
    assert known_forms() == (*FORMS, "mine")
    for form in FORMS:
        assert torch.equal(attention_weights(f, form), before[form])
        with pytest.raises(InputError, match=f"{form} is a form of this project"):
            register_form(form, power)


def test_an_own_form_may_be_replaced_and_may_ignore_the_scores(own_form):
    own_form(power)
    own_form(lambda A: torch.full_like(A, 1 / A.shape[1]).detach())
    f = torch.rand(2, 3, 4, 2, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(attended_pool(f, "mine"), attended_pool(f, "none"))
    (own,) = torch.autograd.grad(attended_pool(f, "mine").sum(), f)
    torch.testing.assert_close(own, torch.full_like(f, 1 / 8))


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("softmax", "are a str; expected a function of the scores"),
        (lambda A: A.softmax(0), r"sum to \[.*\] on random scores; each image's must sum to 1"),
        (lambda A: A / A.sum(1, keepdim=True), "nan or infinite on scores of zero"),
        (lambda A: A.softmax(1)[:, :, None], r"are \(4, 6, 1\) for scores of shape \(4, 6\)"),
        (lambda A: A.softmax(1).tolist(), "are list for scores of shape"),
        (lambda A: (A / (1 + A.amax())).softmax(1), "mix the images of a batch"),
        (lambda A: (A.sqrt() + 1).softmax(1), "the gradient .* nan or infinite on scores of zero"),
    ],
)
def test_an_own_form_that_breaks_a_promise(own_form, weights, words):
    with pytest.raises(InputError, match=words):
        own_form(weights)
    assert known_forms() == FORMS


@pytest.mark.parametrize("name", ["", "my form", "a-b", 3, None, "1st"])
def test_an_own_form_needs_a_name(name):
    with pytest.raises(InputError, match="expected letters, digits and underscores"):
        register_form(name, power)
