"""Class activation maps: each is the logit, spread out."""

import pytest
import torch

import report
from reidsa_utils import InputError
from reidsa_utils.attention import effective_cells
from reidsa_utils.cam import class_activation_maps
from reidsa_utils.model import ReIDNet


def trained_like(variant, form, recipe):
    """A net whose batch norms and biases are away from their initial values, in eval mode."""
    torch.manual_seed(0)
    net = ReIDNet(9, variant, form, recipe, backbone="thin")
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
@pytest.mark.parametrize("variant, form", [("b_p_ds", "none"), ("b_p_ds_sa2", "softmax"), ("b_p_ds_sa12", "l1"),
                                           ("b_ds_sa12", "softmax_mean")])
def test_maps_of_both_recipes(variant, form, recipe):
    test_a_map_sums_to_its_logit(variant, form, recipe)


@pytest.mark.parametrize("variant, form, recipe", [("b_p_ds_sa12", "l1", "sa1_on_parts"), ("b_p_ds", "none", "literal_sum"),
                                                   ("b_p_ds_sa2", "sigmoid", "mean_after_sa"), ("b_ds_sa2", "l1", "ds_reduced")])
def test_a_map_sums_to_its_logit(variant, form, recipe):
    net = trained_like(variant, form, recipe)
    images, classes = torch.randn(4, 3, 96, 32), torch.tensor([0, 3, 8, 3])
    rows = torch.arange(4)
    with torch.no_grad():
        logits = net(images)
    for stage in (1, 2, 3):
        head = net.stages[stage - 1]
        bias = (head[-1] if net.recipe.ds_reduced else head).bias[classes]
        maps = class_activation_maps(net, images, classes, stage)
        torch.testing.assert_close(maps.sum((1, 2)), logits[f"stage{stage}"][rows, classes] - bias, rtol=1e-3, atol=1e-4)
    # stage 4: less the classifier's bias and the batch-norm offsets of the units that are active at this image
    maps = class_activation_maps(net, images, classes, 4)
    with torch.no_grad():
        pooled = net.pool_parts(net.attend(net.feature_maps(images)[3]))
        active = (net.reduce(pooled) > 0).double()                                          # (B, 256, m, 1)
        bn = net.reduce[1]
        offset = (bn.bias - bn.running_mean * bn.weight / (bn.running_var + bn.eps).sqrt()).double()
        w = net.final.weight[classes].double()                                              # (B, 256)
        offsets = torch.einsum("bd,d,bdm->b", w, offset, active[..., 0]) / net.parts
    expected = logits["final"][rows, classes] - net.final.bias[classes] - offsets
    torch.testing.assert_close(maps.sum((1, 2)), expected.float(), rtol=1e-3, atol=1e-4)


def test_refusals():
    net = trained_like("b", "none", "paper")
    x, c = torch.randn(1, 3, 96, 32), torch.tensor([0])
    with pytest.raises(InputError, match="stage 2 has no classifier; .* 4 only"):
        class_activation_maps(net, x, c, 2)
    with pytest.raises(InputError, match="eval mode"):
        class_activation_maps(net.train(), x, c, 4)


def test_effective_cells_by_hand():
    maps = torch.tensor([[[1.0, 1.0], [1.0, 1.0]], [[5.0, 0.0], [0.0, -3.0]], [[1.0, 1.0], [0.0, -1.0]], [[-1.0, -1.0], [-1.0, -1.0]]])
    got = effective_cells(maps)
    torch.testing.assert_close(got[:3], torch.tensor([4.0, 1.0, 2.0], dtype=torch.float64))
    assert got[3].isnan()


def test_overlay_keeps_size_and_marks_the_peak():
    import numpy as np

    image, cam = np.full((96, 32, 3), 100, np.uint8), np.zeros((6, 2))
    cam[4, 1] = 1
    out = report.overlay(image, cam)
    assert out.shape == image.shape and out[72, 24, 0] > out[72, 24, 2]  # red at the peak
    assert out[8, 8, 2] > out[8, 8, 0]                                   # blue elsewhere
