"""Class activation maps: each is the logit, spread out."""

import numpy as np
import pytest
import torch
from conftest import enclosing_modes
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence, IncreaseInConfidence
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import (
    ClassifierOutputSoftmaxTarget,
    ClassifierOutputTarget,
)

from reidsa_utils import InputError
from reidsa_utils.attention import SpatialAttention, effective_cells
from reidsa_utils.cam import class_activation_maps
from reidsa_utils.datasets.rendered import LABEL, PARTS
from reidsa_utils.experiments import map_measures
from reidsa_utils.figures.maps import overlay
from reidsa_utils.model import ReIDNet


def trained_like(variant, form, recipe, backbone="thin"):
    """A net whose batch norms and biases are away from their initial values, in eval mode."""
    torch.manual_seed(0)
    net = ReIDNet(9, variant, form, recipe, backbone)
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(8, 3, 96, 32))
        for m in net.modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                m.weight.uniform_(0.5, 1.5), m.bias.normal_(0, 0.2)
            if isinstance(m, torch.nn.Linear):
                m.weight.normal_(0, 0.05)
                if m.bias is not None:
                    m.bias.normal_()
    return net.eval()


@pytest.mark.parametrize("recipe", ["paper", "released"])
@pytest.mark.parametrize(
    "variant, form",
    [
        ("b_p_ds", "none"),
        ("b_p_ds_sa2", "softmax"),
        ("b_p_ds_sa12", "l1"),
        ("b_ds_sa12", "softmax_mean"),
    ],
)
def test_maps_of_both_recipes(variant, form, recipe):
    maps_sum_to_logits(variant, form, recipe, "thin")


def test_maps_of_stripes_of_several_rows():
    maps_sum_to_logits("b_p_ds_sa12", "l1", "paper", "thin", size=(192, 64))


def test_maps_given_as_arrays():
    net = trained_like("b_ds_sa2", "l1", "paper")
    images = torch.randn(2, 3, 96, 32)
    with torch.no_grad():
        maps = net.feature_maps(images)
    for stage in (1, 4):
        expected = class_activation_maps(net, images, [0, 3], stage)
        for given in ([f.numpy() for f in maps], tuple(maps)):
            found = class_activation_maps(net, None, [0, 3], stage, maps=given)
            assert torch.equal(found, expected)


@pytest.mark.parametrize("spoilt", [0, 2, 3])
@pytest.mark.parametrize("change", ["channels", "images", "dimensions", "number"])
def test_one_map_of_another_network(spoilt, change):
    net = trained_like("b_ds_sa2", "l1", "paper")
    with torch.no_grad():
        maps = net.feature_maps(torch.randn(2, 3, 96, 32))
    f = maps[spoilt]
    spoilt_maps = {
        "channels": f[:, 1:],
        "images": f[:1],
        "dimensions": f[..., 0],
        "number": f.sum(),
    }
    maps[spoilt] = spoilt_maps[change]
    with pytest.raises(InputError, match="maps are a list that the network has not made"):
        class_activation_maps(net, None, [0, 3], 1, maps=maps)


@pytest.mark.parametrize(
    "variant, form, recipe",
    [
        ("b_p_ds_sa12", "l1", "sa1_on_parts"),
        ("b_p_ds", "none", "literal_sum"),
        ("b_p_ds_sa2", "sigmoid", "mean_after_sa"),
        ("b_ds_sa2", "l1", "ds_reduced"),
        ("b_p_ds_sa2", "softmax", "norm_as_gap"),
        ("b_ds_sa2", "softmax", "temperature_100"),
        ("b_ds_sa2", "softmax", "standardised"),
    ],
)
def test_maps_of_other_recipes(variant, form, recipe):
    maps_sum_to_logits(variant, form, recipe, "thin")


@pytest.mark.parametrize(
    "variant, form, recipe, backbone",
    [
        ("b_p_ds_sa12", "l1", "paper", "mobilenet_v2"),
        ("b_p_ds_sa2", "softmax", "released", "mobilenet_v2"),
        ("b_p_ds", "none", "paper", "resnet18"),
    ],
)
def test_a_map_sums_to_its_logit(variant, form, recipe, backbone):
    maps_sum_to_logits(variant, form, recipe, backbone)


def maps_sum_to_logits(variant, form, recipe, backbone, size=(96, 32)):
    net = trained_like(variant, form, recipe, backbone)
    images, classes = torch.randn(4, 3, *size), torch.tensor([0, 3, 8, 3])
    rows = torch.arange(4)
    with torch.no_grad():
        logits = net(images)
    for stage in (1, 2, 3):
        head = net.stages[stage - 1]
        bias = (head[-1] if net.recipe.ds_reduced else head).bias[classes]
        maps = class_activation_maps(net, images, classes, stage)
        torch.testing.assert_close(
            maps.sum((1, 2)), logits[f"stage{stage}"][rows, classes] - bias, rtol=1e-3, atol=1e-4
        )
    # stage 4: less the classifier's bias and the batch-norm offsets of the units that are active at this image
    with torch.no_grad():
        maps = net.feature_maps(images)
        pooled = net.pool_parts(net.attend(maps[3]))
        active = (net.reduce(pooled) > 0).double()[..., 0]  # (B, 256, m)
        bn = net.reduce[1]
        offset = (bn.bias - bn.running_mean * bn.weight / (bn.running_var + bn.eps).sqrt()).double()
    for head, linear in {
        "final": net.final,
        **{f"part{k + 1}": head for k, head in enumerate(net.part)},
    }.items():
        M = class_activation_maps(
            net, None, classes, 4, head, maps
        )  # from maps that are there already
        units = active.mean(2) if head == "final" else active[..., int(head[4:]) - 1]
        offsets = (linear.weight[classes].double() * offset * units).sum(1)
        expected = logits[head][rows, classes] - linear.bias[classes] - offsets
        torch.testing.assert_close(M.sum((1, 2)), expected.float(), rtol=1e-3, atol=1e-4)
        if head != "final":  # a part's map stays in its stripe
            stripe = torch.arange(M.shape[1]) // (M.shape[1] // 6) == int(head[4:]) - 1
            assert not M[:, ~stripe].any() and M[:, stripe].any()


def test_refusals():
    net = trained_like("b", "none", "paper")
    x, c = torch.randn(1, 3, 96, 32), torch.tensor([0])
    with pytest.raises(InputError, match="stage 2 has no classifier; .* 4 only"):
        class_activation_maps(net, x, c, 2)
    with pytest.raises(InputError, match="unknown head of stage 4 'part1'; known: final"):
        class_activation_maps(net, x, c, 4, "part1")
    with pytest.raises(InputError, match="unknown head of stage 2 'part1'; known: final"):
        class_activation_maps(trained_like("b_p_ds", "none", "paper"), x, c, 2, "part1")
    for wrong in (
        torch.tensor([-1]),
        torch.tensor([10**6]),
        torch.tensor([0, 0]),
        torch.tensor([[0]]),
        torch.tensor([0.0]),
    ):
        with pytest.raises(InputError, match=r"classes are .*; expected 1 whole numbers from 0 to"):
            class_activation_maps(net, x, wrong, 4)
        with pytest.raises(InputError, match=r"classes are .*; expected 1 whole numbers from 0 to"):
            map_measures.confidence(net, x, wrong, 4)
    with pytest.raises(InputError, match="stage 5 has no classifier"):
        map_measures.drop_and_increase(net, x, c, 5, torch.ones(1, 6, 2))
    with torch.no_grad():  # a caller's mode does not matter
        without = class_activation_maps(net, x, c, 4)
    torch.testing.assert_close(without, class_activation_maps(net, x, c, 4))
    with pytest.raises(InputError, match="eval mode"):
        class_activation_maps(net.train(), x, c, 4)


MODES = enclosing_modes()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "variant, form, recipe",
    [
        ("b_p_ds_sa12", "softmax", "paper"),
        ("b_ds_sa2", "l1", "norm_as_gap"),
        ("b", "none", "paper"),
    ],
)
def test_a_callers_mode_changes_no_map(variant, form, recipe, mode):
    net = trained_like(variant, form, recipe)
    images, classes = torch.randn(3, 3, 96, 32), torch.tensor([2, 0, 8])
    with torch.no_grad():
        maps = net.feature_maps(images)
    with torch.inference_mode():
        made_inside = [f + 0 for f in maps], images + 0, classes + 0
    for stage in (1, 2, 3, 4) if len(net.stages) else (4,):
        expected = class_activation_maps(net, images, classes, stage)
        confidence = map_measures.confidence(net, images, classes, stage)
        assert not expected.requires_grad
        with MODES[mode]():
            assert torch.equal(class_activation_maps(net, images, classes, stage), expected)
            assert torch.equal(
                class_activation_maps(net, None, classes, stage, maps=maps), expected
            )
            again = map_measures.confidence(net, images, classes, stage)
            assert torch.equal(again, confidence)
        f, x, c = made_inside  # tensors of inference mode, used outside
        assert torch.equal(class_activation_maps(net, x, c, stage), expected)
        assert torch.equal(class_activation_maps(net, None, c, stage, maps=f), expected)
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            short = net.feature_maps(images)
        near = class_activation_maps(net, None, classes, stage, maps=short)
        assert near.dtype == torch.float32
        assert (near - expected).abs().max() < 0.2 * expected.abs().max()


def test_a_model_made_in_inference_mode_is_refused():
    with torch.inference_mode():
        net = ReIDNet(3, "b", "none", backbone="thin").eval()
        with pytest.raises(InputError, match="made inside torch.inference_mode\\(\\) has none"):
            class_activation_maps(net, torch.randn(1, 3, 96, 32), [0], 4)


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(images=torch.zeros(2, 96, 32, 3)), r"images are float32 of shape \(2, 96, 32, 3\)"),
        (dict(images=torch.zeros(2, 3, 96, 32, dtype=torch.uint8)), "images are uint8 of shape"),
        (dict(images=np.zeros((2, 3, 96, 32), int)), "images are int64 .*; expected normalised"),
        (dict(images=None), "found a NoneType that is not an array of numbers"),
        (dict(maps=[]), "maps are a list that the network has not made"),
        (dict(maps=torch.zeros(2, 3, 4)), "maps are a Tensor that the network has not made"),
        (dict(maps=[torch.zeros(2, 3, 4, 2)] * 4), "expected what model.feature_maps"),
        (dict(stage=2.0), "stage 2.0 has no classifier"),
        (dict(stage=True), "stage True has no classifier"),
        (dict(head=["final"]), r"unknown head of stage 2 \['final'\]"),
        (dict(classes=[True, False]), r"classes are bool of shape \(2,\), \[True, False\]"),
        (dict(classes=[0, 1.5]), r"classes are float64 of shape \(2,\), \[0.0, 1.5\]; expected 2"),
        (dict(classes=["0", "1"]), "classes are <U1|classes are str"),
    ],
)
def test_what_no_map_is_made_of(change, words):
    net = trained_like("b_ds_sa2", "l1", "paper")
    good = dict(model=net, images=torch.zeros(2, 3, 96, 32), classes=[0, 1], stage=2)
    with pytest.raises(InputError, match=words):
        class_activation_maps(**(good | change))


def test_effective_cells_by_hand():
    maps = torch.tensor(
        [
            [[1.0, 1.0], [1.0, 1.0]],
            [[5.0, 0.0], [0.0, -3.0]],
            [[1.0, 1.0], [0.0, -1.0]],
            [[-1.0, -1.0], [-1.0, -1.0]],
        ]
    )
    got = effective_cells(maps)
    torch.testing.assert_close(got[:3], torch.tensor([4.0, 1.0, 2.0], dtype=torch.float64))
    assert got[3].isnan()


def test_part_shares_against_a_finer_grid():
    labels = np.random.default_rng(0).integers(0, len(PARTS), (2, 10, 7)).astype(np.uint8)
    h, w = 4, 3  # neither divides 10 x 7
    got = map_measures.part_shares(list(labels), h, w)
    for mask, shares in zip(labels, got, strict=True):
        fine = np.kron(mask, np.ones((h, w), int)).reshape(
            h, 10, w, 7
        )  # every pixel h x w times: now the cells are whole
        for k in range(len(PARTS)):
            np.testing.assert_allclose(shares[..., k], (fine == k).mean((1, 3)), atol=1e-12)


def test_measures_by_hand():
    """Two columns of background, head over torso over legs on the right half of the third to fourth; energy where we want it."""
    mask = np.zeros((4, 4), np.uint8)
    mask[:2, 2:], mask[2, 2:], mask[3, 2:] = LABEL["head"], LABEL["torso"], LABEL["legs"]
    mask[3, 3] = LABEL["occluder"]
    shares = map_measures.part_shares([mask] * 4, 4, 4)
    maps = torch.zeros(4, 4, 4)
    maps[0] = 1  # even: everything has its share
    maps[1, 0, 2], maps[1, 3, 0] = 3, 1  # three quarters on the head, one on the street
    maps[1, 1, 1] = -4
    maps[2, 2] = 1  # a row: half of it on the torso
    maps[3] = -1  # nothing speaks for the class
    got = {name: v.tolist() for name, v in map_measures.measures(maps, shares).items()}
    nan = pytest.approx([float("nan")], nan_ok=True)
    assert got["person"] == pytest.approx([7 / 16] * 4)
    assert got["inside"][:3] == pytest.approx([7 / 16, 3 / 4, 1 / 2]) and [got["inside"][3]] == nan
    assert got["parts"][:3] == pytest.approx([1, 1 / 3, 1 / 3]) and [got["parts"][3]] == nan
    assert got["negative"] == pytest.approx([0, 1 / 2, 0, 1])
    assert got["cells"][:3] == pytest.approx(
        [1, np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))) / 16, 1 / 4]
    )
    assert got["on_person"][:3] == pytest.approx([1, 1 / 7, 2 / 7]) and [got["on_person"][3]] == nan
    even = np.sqrt(15 / 12)  # standard deviation of 0, 1, 2, 3
    assert got["vertical"][:3] == pytest.approx([1, 3 * np.sqrt(0.75 * 0.25) / even, 0], abs=1e-6)
    assert got["horizontal"][:3] == pytest.approx([1, 2 * np.sqrt(0.75 * 0.25) / even, 1])


def test_overlap():
    a = torch.tensor([[[1.0, 3], [0, 0]], [[1, 1], [-5, 2]], [[-1, -1], [-1, -1]]])
    b = torch.tensor([[[2.0, 2], [0, 0]], [[0, 0], [7, 0]], [[1, 1], [1, 1]]])
    torch.testing.assert_close(
        map_measures.overlap(a, b)[:2], torch.tensor([0.75, 0.0], dtype=torch.float64)
    )
    assert map_measures.overlap(a, b)[2].isnan()
    torch.testing.assert_close(
        map_measures.overlap(a, 5 * a)[:2], torch.ones(2, dtype=torch.float64)
    )
    torch.testing.assert_close(
        map_measures.overlap(a, b), map_measures.overlap(b, a), equal_nan=True
    )


class Head(torch.nn.Module):
    """One classifier of a network as a plain chain, with F as the output of a module of its own, for the grad-cam package."""

    def __init__(self, net, stage):
        super().__init__()
        self.net, self.stage, self.sa = (
            net,
            stage,
            SpatialAttention(net.sa1.form if stage == 4 else net.sa2_form),
        )

    def forward(self, images):
        F = self.sa(self.net.feature_maps(images)[self.stage - 1])
        if self.stage < 4:
            return self.net.stages[self.stage - 1](F.sum((2, 3)))
        return self.net.main_logits(F.sum((2, 3))[..., None, None])["final"]


@pytest.mark.parametrize("form", ["none", "softmax", "l1"])
@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_agrees_with_the_grad_cam_package(stage, form):
    """Where both define the same map (a weighted sum at F, then layers that are linear here): after ReLU, each to its own peak."""
    net = trained_like("b_ds_sa12", form, "paper")
    images, classes = torch.randn(6, 3, 96, 32), torch.tensor([0, 3, 8, 1, 2, 4])
    head = Head(net, stage).eval()
    with GradCAM(head, [head.sa]) as package:
        theirs = package(images, [ClassifierOutputTarget(int(c)) for c in classes])  # (B, 96, 32)
    ours = class_activation_maps(net, images, classes, stage).numpy()
    expected = scale_cam_image(
        scale_cam_image(ours.clip(0), (32, 96))
    )  # the package does: each layer, then their mean
    np.testing.assert_allclose(theirs, expected, atol=1e-3)
    assert theirs.max() == pytest.approx(1, abs=1e-3)


def test_drop_and_increase_are_those_of_the_grad_cam_package():
    net = trained_like("b_p_ds_sa2", "l1", "paper")
    images, classes = torch.randn(6, 3, 96, 32), torch.tensor([0, 3, 8, 1, 2, 4])
    for stage, name in ((2, "stage2"), (4, "final")):
        maps = class_activation_maps(net, images, classes, stage)
        drop, increase = map_measures.drop_and_increase(net, images, classes, stage, maps)
        heat = torch.nn.functional.interpolate(
            maps.clamp(min=0)[:, None], (96, 32), mode="bilinear"
        )[:, 0]
        heat = (heat / heat.amax((1, 2), keepdim=True).clamp(min=1e-12)).numpy()

        class Logits(torch.nn.Module):
            def forward(self, x, name=name):
                return net(x)[name]

        targets = [ClassifierOutputSoftmaxTarget(int(c)) for c in classes]
        before = map_measures.confidence(net, images, classes, stage)
        np.testing.assert_allclose(
            (drop * before).numpy(), DropInConfidence()(images, heat, targets, Logits()), atol=1e-6
        )
        np.testing.assert_array_equal(
            increase.numpy(), IncreaseInConfidence()(images, heat, targets, Logits())
        )
        assert 0 < increase.sum() < 6


def test_deletion_and_insertion_against_a_loop():
    net = trained_like("b_ds_sa2", "none", "paper")
    images, classes = torch.randn(2, 3, 96, 32), torch.tensor([5, 1])
    maps = class_activation_maps(net, images, classes, 3)  # 6 x 2 cells of 16 x 16 pixels
    deletion, insertion = map_measures.deletion_and_insertion(
        net, images, classes, 3, maps, steps=4
    )
    axis = torch.arange(-8, 9)
    kernel = torch.exp(-(axis**2) / (2 * 4.0**2))
    kernel = (kernel / kernel.sum())[None, None, :, None].repeat(3, 1, 1, 1)
    for b in range(2):
        padded = torch.nn.functional.pad(images[b : b + 1], (8, 8, 8, 8), mode="reflect")
        blurred = torch.nn.functional.conv2d(
            torch.nn.functional.conv2d(padded, kernel, groups=3), kernel.transpose(2, 3), groups=3
        )
        gone, kept, curves = images[b : b + 1].clone(), blurred.clone(), [[], []]
        order = sorted(
            ((maps[b, i, j].item(), i, j) for i in range(6) for j in range(2)), reverse=True
        )
        for k in range(13):
            if k % 3 == 0:
                for curve, x in zip(curves, (gone, kept), strict=True):
                    curve.append(map_measures.confidence(net, x, classes[b : b + 1], 3).item())
            if k < 12:
                _, i, j = order[k]
                here = (0, slice(None), slice(16 * i, 16 * i + 16), slice(16 * j, 16 * j + 16))
                gone[here], kept[here] = 0, images[b][here[1:]]
        for got, curve in zip((deletion, insertion), curves, strict=True):
            assert got[b].item() == pytest.approx(np.trapezoid(curve) / 4, rel=1e-4)


def test_overlay_keeps_size_and_is_brighter_where_the_map_is_larger():
    image, heat = np.full((96, 32, 3), 100, np.uint8), np.zeros((6, 2))
    heat[4, 1], heat[1, 0], heat[0, 0] = 4, 2, -9
    out = overlay(image, heat).astype(int)  # to its own peak
    grey = out @ (0.299, 0.587, 0.114)
    assert out.shape == image.shape and grey[72, 24] > grey[24, 8] > grey[90, 8]
    assert grey[2, 2] == grey[90, 8]  # what speaks against the class shows as zero
    np.testing.assert_array_equal(overlay(image, heat, top=8), overlay(image, heat / 2, top=4))
    assert (overlay(image, heat, top=8) != out).any()
