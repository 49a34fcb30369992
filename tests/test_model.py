"""Fig. 3: shapes, what SA adds (nothing), equal starts, one SA1 for training and retrieval, the losses."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import nn
from two_steps import CASES, two_steps

from reidsa_utils import InputError
from reidsa_utils.attention import SpatialAttention, attention_jacobian, attention_weights
from reidsa_utils.batches import to_input
from reidsa_utils.config import configure
from reidsa_utils.data import LAYOUTS, load_benchmark, load_images
from reidsa_utils.model import BACKBONES, RECIPES, VARIANTS, ReIDNet, loss_weights, reid_loss
from reidsa_utils.training import NUMERICS


def make(*arguments, seed=0, **keywords):
    torch.manual_seed(seed)
    return ReIDNet(*arguments, **({"backbone": "thin"} | keywords)).eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 96, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_stage4_map_at_384x128(backbone):
    net = make(10, "b_p_ds", "none", backbone=backbone)
    with torch.no_grad():
        maps = net.feature_maps(torch.randn(1, 3, 384, 128))
    assert [tuple(f.shape[2:]) for f in maps] == [(96, 32), (48, 16), (24, 8), (24, 8)]
    assert tuple(f.shape[1] for f in maps) == BACKBONES[backbone].channels


def test_thin_has_4_6_million_parameters():
    count = sum(p.numel() for p in make(150, "b_p_ds_sa2").parameters())
    assert round(count / 1e6, 1) == 4.6


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_and_vectors_of_every_variant(variant, images):
    net = make(7, variant, "l1")
    with torch.no_grad():
        logits, vectors = net(images), net.embed_all(images)
    expected = {"final"} | ({f"part{k}" for k in range(1, 7)} if "_p_" in variant else set())
    expected |= {"stage1", "stage2", "stage3"} if "ds" in variant else set()
    assert set(logits) == expected and all(v.shape == (3, 7) for v in logits.values())
    assert vectors["global"].shape == (3, 2048)
    assert ("parts" in vectors) == ("_p_" in variant)
    if "parts" in vectors:
        torch.testing.assert_close(vectors["parts"].view(3, 6, 2048).norm(dim=2), torch.ones(3, 6))
        torch.testing.assert_close(net.embed(images, "parts"), vectors["parts"])


@pytest.mark.parametrize(
    "backbone, form", [(backbone, form) for backbone, forms in CASES.items() for form in forms]
)
def test_two_steps_compute_what_they_did(backbone, form):
    """Two training steps in float64 against stored numbers, whatever the processor.

    A change here is another experiment: store the steps anew, and raise training.NUMERICS.
    """
    stored = json.loads(Path(__file__).with_name("two_steps.json").read_text())
    assert stored["numerics"] == NUMERICS
    for key, found in two_steps(backbone, form).items():
        assert found == pytest.approx(stored[backbone][form][key], rel=1e-8), key


def test_the_stages_of_mobilenet_lie_behind_a_relu(images):
    """Stages 1-4: what leaves the ReLU6 of the expansions of blocks 4, 7, 14 and of block 18; the blocks' own outputs are signed."""
    net, seen, block = make(7, "b_p_ds", "none", backbone="mobilenet_v2"), {}, {}
    features = net.backbone.features
    for number in (4, 7, 14):
        features[number].conv[0].register_forward_hook(
            lambda m, i, out, n=number: seen.update({n: out})
        )
        features[number - 1].register_forward_hook(
            lambda m, i, out, n=number: block.update({n: out})
        )
    features[18].register_forward_hook(lambda m, i, out: seen.update({18: out}))
    with torch.no_grad():
        maps = net.feature_maps(images)
        whole = features(images)
    for f, number in zip(maps, (4, 7, 14, 18), strict=True):
        assert torch.equal(f, seen[number]) and 0 <= f.min() and f.max() <= 6
    assert all(out.min() < 0 for out in block.values())
    assert torch.equal(maps[3], whole)  # cut in pieces, it is the same network
    assert sum(p.numel() for stage in net.stage_modules() for p in stage.parameters()) == sum(
        p.numel() for p in features.parameters()
    )
    strides = [m.stride for m in net.backbone.modules() if isinstance(m, nn.Conv2d)]
    assert strides.count((2, 2)) == 4 and features[14].conv[1][0].stride == (1, 1)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_jacobian_on_the_maps_of_every_backbone(backbone, images):
    net = make(3, "b", "none", backbone=backbone).double()
    with torch.no_grad():
        f = net.feature_maps(images[:1].double())[2][
            0, :24, :2, :2
        ]  # a corner of stage 3: (24, 2, 2)
    auto = torch.autograd.functional.jacobian(lambda x: SpatialAttention("softmax")(x[None])[0], f)
    torch.testing.assert_close(attention_jacobian(f), auto, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("backbone", ["thin", "mobilenet_v2"])
@pytest.mark.parametrize("recipe", ["paper", "released"])
@pytest.mark.parametrize(
    "without, with_sa", [("b", "b_sa1"), ("b_ds", "b_ds_sa2"), ("b_p_ds", "b_p_ds_sa12")]
)
def test_sa_adds_no_parameter_and_starts_equal(backbone, recipe, without, with_sa, images):
    a = make(7, without, "none", recipe, backbone=backbone, seed=4)
    b = make(7, with_sa, "softmax", recipe, backbone=backbone, seed=4)
    state = b.state_dict()
    assert a.state_dict().keys() == state.keys()
    assert all(torch.equal(v, state[k]) for k, v in a.state_dict().items())
    # the form "none" in a variant with SA is the variant without
    c = make(7, with_sa, "none", recipe, backbone=backbone, seed=4)
    with torch.no_grad():
        x, y, z = a(images), c(images), b(images)
    assert all(torch.equal(x[k], y[k]) for k in x)
    assert any(not torch.equal(x[k], z[k]) for k in x)


def test_sa1_is_the_same_call_in_forward_and_embed(images):
    net = make(7, "b_p_ds_sa12", "l1")
    seen = []
    net.sa1.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        logits = net(images)
        vectors = net.embed_all(images)
        assert len(seen) == 2 and torch.equal(*seen)
        # what retrieval compares is what the classifiers saw
        pooled = net.pool_parts(seen[1] * seen[1].shape[2] * seen[1].shape[3])
        torch.testing.assert_close(pooled.mean((2, 3)), vectors["global"])
        torch.testing.assert_close(net.main_logits(pooled)["part3"], logits["part3"])


def test_weighted_means_keep_the_scale():
    # a constant map: every form gives the map's value, in the DS branch and after SA1, under the recipe `paper`
    f = torch.full((2, 2048, 6, 2), 0.7)
    for form in ("none", "l1", "softmax", "softmax_mean", "sigmoid"):
        net = make(7, "b_p_ds_sa12", form)
        torch.testing.assert_close(net.pool_stage(f), torch.full((2, 2048), 0.7))
        torch.testing.assert_close(net.pool_parts(net.attend(f)), torch.full((2, 2048, 6, 1), 0.7))
        if form != "none":  # as coded: a mean after SA
            coded = make(7, "b_p_ds_sa12", form, "released")
            torch.testing.assert_close(coded.pool_stage(f), torch.full((2, 2048), 0.7 / 12))
            torch.testing.assert_close(
                coded.pool_parts(coded.attend(f)), torch.full((2, 2048, 6, 1), 0.7 / 12)
            )


def test_parts_are_horizontal_stripes():
    net = make(7, "b_p_ds", "none")
    f = torch.arange(12.0).view(1, 1, 12, 1).expand(1, 4, 12, 3)
    assert net.pool_parts(f)[0, 2, :, 0].tolist() == [0.5, 2.5, 4.5, 6.5, 8.5, 10.5]


def test_a_height_that_six_does_not_divide_is_refused():
    with pytest.raises(InputError, match="128 pixels high gives a stage-4 map of 8 rows.*96, 192"):
        make(7, "b_p_ds")(torch.randn(1, 3, 128, 64))
    make(7, "b_ds")(torch.randn(1, 3, 128, 64))  # without parts any height will do


def test_loss_of_section_3_1():
    ten = ["final", *(f"part{k}" for k in range(1, 7)), "stage1", "stage2", "stage3"]
    w = loss_weights(ten)
    assert (
        w["part4"] == 0.8
        and w["stage2"] == 0.2
        and w["final"] == 0.2
        and sum(w.values()) == pytest.approx(5.6)
    )
    assert loss_weights(["final"]) == {"final": 1.0}
    assert loss_weights(["final", "stage1", "stage2", "stage3"]) == {
        "final": 0.8,
        "stage1": 0.2,
        "stage2": 0.2,
        "stage3": 0.2,
    }
    assert (
        set(loss_weights(ten, "released").values())
        == set(loss_weights(ten, "equal_loss").values())
        == {1.0}
    )
    w = loss_weights(ten, "total_10")
    assert sum(w.values()) == pytest.approx(10) and w["part1"] == pytest.approx(
        4 * w["stage3"]
    ) == pytest.approx(4 * w["final"])
    assert loss_weights(ten, "lambda_0") == {name: float(name.startswith("part")) for name in ten}
    assert (
        set(loss_weights(ten, "lambda_05").values()) == {0.5}
        and loss_weights(ten, lam=0.1)["part1"] == 0.9
    )
    target = torch.tensor([0, 2])
    logits = {"final": torch.zeros(2, 4), "stage1": torch.tensor([[0.0, 0, 0, 0], [0, 0, 5, 0]])}
    by_hand = (
        0.8 * torch.log(torch.tensor(4.0))
        + 0.2 * (torch.log(torch.tensor(4.0)) + torch.log(3 + torch.tensor(5.0).exp()) - 5) / 2
    )
    torch.testing.assert_close(reid_loss(logits, target), by_hand)


def test_every_control_changes_one_thing():
    paper = asdict(RECIPES["paper"])
    changed = {
        name: [k for k, v in asdict(recipe).items() if v != paper[k]]
        for name, recipe in RECIPES.items()
    }
    assert changed.pop("paper") == [] and changed.pop("released") == [
        "mean_after_sa",
        "ds_reduced",
        "equal_loss",
        "erase_area",
    ]
    assert changed.pop("lambda_0_total_1") == ["lam", "total"]  # lambda_0 with its total
    assert all(len(fields) == 1 for fields in changed.values())
    names = {(field, RECIPES[name].__dict__[field]) for name, [field] in changed.items()}
    assert (
        len(names) == len(changed) and len({f for f, _ in names}) == len(changed) - 3
    )  # lambda twice, the temperature three times


def test_sa1_on_the_pooled_parts_by_hand():
    """Stripes of one value: the weights of the parts are those of these six values, and each part is scaled by its own."""
    rows = torch.tensor([0.0, 1, 2, 3, 4, 10])
    f = rows.repeat_interleave(2).view(1, 1, 12, 1).expand(2, 2048, 12, 3).contiguous()
    net = make(7, "b_p_ds_sa12", "l1", "sa1_on_parts")
    pooled = net.pool_parts(net.attend(f))
    torch.testing.assert_close(pooled[0, 5, :, 0], rows * (6 * rows / 20))
    noisy = torch.rand(
        2, 2048, 12, 3
    )  # any map: attention after the pooling is the same as before it with the parts' weights
    parts = net.pool_parts(noisy)
    p = parts.sum(1, keepdim=True) / parts.sum((1, 2), keepdim=True)
    torch.testing.assert_close(net.pool_parts(net.attend(noisy)), parts * p * 6)


def test_literal_sum():
    f = torch.rand(2, 256, 6, 2)
    torch.testing.assert_close(
        make(7, "b_p_ds", "none", "literal_sum").pool_stage(f), f.sum((2, 3))
    )
    l1 = make(7, "b_p_ds_sa2", "l1", "literal_sum").pool_stage(f)  # weights of SA sum to 1 already
    torch.testing.assert_close(l1, make(7, "b_p_ds_sa2", "l1").pool_stage(f))


def branch_gradients(recipe, form, images, target):
    """d l_s / d f_s of the three branches as training sees them, and the model."""
    net = make(5, "b_p_ds_sa2", form, recipe, seed=1).train()
    net.dropout.p = 0.0
    logits, maps = net(images, with_maps=True, target=target)
    out = []
    for stage in range(3):
        loss = nn.functional.cross_entropy(logits[f"stage{stage + 1}"], target)
        out.append(torch.autograd.grad(loss, maps[stage], retain_graph=True, allow_unused=True)[0])
    return out, maps, net


def test_detached_branches_learn_and_the_backbone_does_not_hear_them(images):
    target = torch.tensor([0, 1, 2])
    gradients, _, net = branch_gradients("detached", "softmax", images, target)
    assert gradients == [None] * 3
    loss = nn.functional.cross_entropy(net(images)["stage1"], target)
    loss.backward()
    assert net.stages[0].weight.grad.abs().sum() > 0 and all(
        p.grad is None for p in net.backbone.parameters()
    )


def test_gradients_scaled_to_those_without_sa(images):
    """The direction of the softmax's gradient, the norm of average pooling's from the same head on the same maps."""
    target = torch.tensor([0, 1, 2])
    scaled, maps, net = branch_gradients("gradient_as_gap", "softmax", images, target)
    plain, _, _ = branch_gradients("paper", "softmax", images, target)
    for stage, (a, b, f) in enumerate(zip(scaled, plain, maps, strict=False)):
        leaf = f.detach().requires_grad_()
        gap = nn.functional.cross_entropy(net.stages[stage](leaf.mean((2, 3))), target)
        expected = torch.autograd.grad(gap, leaf)[0].norm()
        torch.testing.assert_close(a.norm(), expected, rtol=1e-5, atol=0)
        torch.testing.assert_close(a / a.norm(), b / b.norm(), rtol=1e-4, atol=1e-6)
        assert b.norm() > 2 * expected
    evaluated = net.eval()(
        images
    )  # nothing else changes: same logits as the paper's recipe, with and without targets
    assert all(torch.equal(v, net(images, target=target)[k]) for k, v in evaluated.items())


def test_vectors_scaled_to_the_norm_without_sa(images):
    net, plain = make(5, "b_p_ds_sa2", "softmax", "norm_as_gap"), make(5, "b_p_ds_sa2", "softmax")
    f = net.feature_maps(images)[0].detach()
    g, own = net.pool_stage(f), plain.pool_stage(f)
    torch.testing.assert_close(g.norm(dim=1), f.mean((2, 3)).norm(dim=1))
    torch.testing.assert_close(
        nn.functional.normalize(g, dim=1), nn.functional.normalize(own, dim=1)
    )
    assert torch.equal(net.pool_stage(f, "softmax"), own)  # compared forms are pure
    zero = torch.zeros(1, 256, 4, 2)
    assert torch.equal(net.pool_stage(zero), torch.zeros(1, 256))  # a dark map: no 0 / 0


@pytest.mark.parametrize(
    "recipe, T", [("temperature_10", 10), ("temperature_100", 100), ("temperature_1000", 1000)]
)
def test_temperature_and_standardised_scores_by_hand(recipe, T, images):
    f = torch.rand(2, 256, 4, 3, dtype=torch.float64)
    A = f.sum(1).flatten(1)
    p = torch.softmax(A / T, dim=1).view(2, 4, 3)
    torch.testing.assert_close(
        make(5, "b_ds_sa2", "softmax", recipe).pool_stage(f), (f * p[:, None]).sum((2, 3))
    )
    z = (A - A.mean(1, keepdim=True)) / A.std(1, correction=0, keepdim=True)
    p = torch.softmax(z, dim=1).view(2, 4, 3)
    torch.testing.assert_close(make(5, "b_ds_sa2", "softmax", "standardised").own_weights(f), p)
    torch.testing.assert_close(
        attention_weights(f * 3 + 5, standardise=True), p
    )  # contrast and brightness do not count


def test_last_stride_and_learning_rates(tmp_path):
    net = make(7, "b_p_ds")
    assert [g["lr"] for g in net.parameter_groups(0.1)] == [
        0.1,
        0.1,
    ]  # nothing was loaded: one rate
    path = tmp_path / "backbone.pt"
    torch.save(make(7, "b", seed=9).backbone.state_dict(), path)
    loaded = make(7, "b_p_ds", weights=str(path))
    assert [g["lr"] for g in loaded.parameter_groups(0.1)] == pytest.approx([0.01, 0.1])
    torch.save(
        {"epoch": 3, "model": make(5, "b_p_ds", seed=9).state_dict()}, tmp_path / "checkpoint.pt"
    )  # of a run on other identities
    for net in (loaded, make(7, "b_p_ds", weights=str(tmp_path / "checkpoint.pt"))):
        assert (
            torch.equal(net.backbone.conv1.weight, make(7, "b", seed=9).backbone.conv1.weight)
            and net.loaded
        )
    assert sum(len(g["params"]) for g in loaded.parameter_groups(1.0)) == len(
        list(loaded.parameters())
    )


def test_what_the_text_leaves_open_is_as_in_the_released_code():
    torch.manual_seed(0)
    net = ReIDNet(751, "b_p_ds", "none", backbone="thin")
    assert net.final.weight.std() < 0.0011 and net.final.bias.abs().sum() == 0
    assert [type(module) for module in net.reduce] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert net.reduce[0].bias is None
    assert configure({}).dropout == 0.47  # the paper's


def test_unknown_names_and_weights(tmp_path):
    for keywords, words in [
        ({"variant": "b_sa"}, "unknown variant 'b_sa'.*b_sa1"),
        ({"form": "max"}, "attention form"),
        ({"recipe": "mine"}, "unknown recipe.*paper, released"),
        ({"backbone": "vgg"}, "unknown backbone.*resnet50"),
        ({"weights": "imagenet"}, "no ImageNet weights for the thin"),
        ({"weights": "no/file.pt"}, "no weights at no/file.pt"),
    ]:
        with pytest.raises(InputError, match=words):
            ReIDNet(7, **({"variant": "b", "backbone": "thin"} | keywords))
    with pytest.raises(InputError, match="unknown retrieval vector 'parts'; known: global"):
        make(7, "b").embed(torch.randn(1, 3, 96, 32), "parts")
    path = tmp_path / "broken.pt"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="not a readable state_dict"):
        make(7, "b", weights=str(path))
    torch.save([1, 2], path)
    with pytest.raises(InputError, match="not a readable state_dict"):
        make(7, "b", weights=str(path))
    torch.save(make(7, "b", backbone="resnet18").backbone.state_dict(), path)
    with pytest.raises(InputError, match="do not fit thin"):
        make(7, "b", weights=str(path))


def test_imagenet_offline_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # nothing cached
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # and nobody answers
    with pytest.raises(
        InputError,
        match="ImageNet weights of resnet18 are not on this machine and could not be downloaded",
    ):
        ReIDNet(7, "b", backbone="resnet18", weights="imagenet")


@pytest.mark.parametrize("name", LAYOUTS)
def test_one_step_of_the_papers_own_setting(name, four_benchmarks):
    found, classes = (
        load_benchmark(name, four_benchmarks[name]),
        LAYOUTS[name].counts["train"]["ids"],
    )  # 751, 702, 767, 767
    net = make(
        classes, "b_p_ds_sa2", form="softmax", backbone="resnet50", dropout=LAYOUTS[name].dropout
    ).train()
    optimizer = torch.optim.SGD(
        net.parameter_groups(0.1), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    x = to_input(load_images(found.train.paths[:2], 384, 128))
    before = net.stages[0].weight.clone(), net.backbone.conv1.weight.clone()
    loss = reid_loss(net(x), torch.tensor([3, classes - 1]))
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss) and loss.item() == pytest.approx(5.6 * math.log(classes), rel=0.1)
    assert not torch.equal(net.stages[0].weight, before[0]) and not torch.equal(
        net.backbone.conv1.weight, before[1]
    )
    assert all(torch.isfinite(p).all() for p in net.parameters())
