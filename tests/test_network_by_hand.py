"""The network that notebook 04 builds by hand is the package's: gradients, recipes, both places of SA."""

import ast

import nbformat
import pytest
import torch
import torchvision
from conftest import ROOT
from torch import nn

from reidsa_utils.model import ReIDNet


@pytest.fixture(scope="module")
def by_hand():
    """The functions of notebook 04 by their names."""
    names = {"torch": torch, "nn": nn}
    for cell in nbformat.read(ROOT / "notebooks" / "04_model.ipynb", 4).cells:
        if cell.cell_type == "code":
            for node in ast.parse(cell.source).body:
                if isinstance(node, ast.FunctionDef):
                    exec(ast.unparse(node), names)
    return names


def gradients(net, forward, x):
    """The gradient of every parameter, of an arbitrary scalar of all ten heads."""
    torch.manual_seed(5)  # the same dropout for both
    S = forward(x)
    scalar = sum(i * (S[head] ** 2).sum() for i, head in enumerate(sorted(S), 1))
    scalar.backward()
    return {name: p.grad for name, p in net.named_parameters()}


def test_every_parameter_gets_the_same_gradient(by_hand):
    """In training mode, with dropout and batch norm at work."""
    torch.manual_seed(1)
    bottleneck = torchvision.models.resnet.Bottleneck
    backbone = torchvision.models.ResNet(bottleneck, [1, 1, 1, 1], width_per_group=16)
    for module in backbone.layer4[0].modules():
        if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
            module.stride = (1, 1)
    backbone.fc = nn.Identity()
    ours = by_hand["make_heads"](150)
    ours["backbone"] = backbone
    ours = ours.double().train()
    theirs = ReIDNet(150, "b_p_ds_sa2", "softmax", recipe="paper", backbone="thin")
    theirs.double().train().load_state_dict(ours.state_dict(), strict=True)

    x = torch.randn(4, 3, 96, 32, dtype=torch.double)
    expected = gradients(ours, lambda x: by_hand["forward_by_hand"](ours, x), x)
    found = gradients(theirs, theirs, x)
    assert found.keys() == expected.keys()
    for name in expected:
        assert expected[name].norm() > 0
        torch.testing.assert_close(found[name], expected[name])


def l1_weights(f):
    A = f.sum(dim=1)  # (B, H, W)
    return A / A.sum(dim=(1, 2), keepdim=True)


@pytest.mark.parametrize("recipe, form, layers", [("paper", "softmax", 1), ("released", "l1", 2)])
def test_both_recipes_branch_by_branch(by_hand, recipe, form, layers):
    """SA2 in the branches; behind SA1 the part classifiers and the retrieval vector."""
    weights = by_hand["sa_weights"] if form == "softmax" else l1_weights
    torch.manual_seed(2)
    net = ReIDNet(150, "b_p_ds_sa12", form, recipe=recipe, backbone="thin").double().eval()
    x = torch.randn(3, 3, 96, 32, dtype=torch.double)
    with torch.no_grad():
        f1, f2, f3, f4 = by_hand["run_backbone"](net.backbone, x)
        S = net(x)
        for i, f in enumerate((f1, f2, f3)):
            F = f * weights(f)[:, None]  # eq. 1
            G = F.sum(dim=(2, 3)) if recipe == "paper" else F.mean(dim=(2, 3))
            torch.testing.assert_close(S[f"stage{i + 1}"], net.stages[i](G))
        p = weights(f4)
        if recipe == "paper":  # weights of mean 1
            p = p * f4.shape[2] * f4.shape[3]
        parts = by_hand["pool_parts"](f4 * p[:, None])  # (B, C, 6)
        g = net.reduce(parts[..., None])[..., 0]  # (B, 256, 6)
        for k in range(6):
            torch.testing.assert_close(S[f"part{k + 1}"], net.part[k](g[:, :, k]))
        torch.testing.assert_close(net.embed(x), parts.mean(dim=2))
    linear = [module for module in net.stages[0].modules() if isinstance(module, nn.Linear)]
    assert len(linear) == layers
