"""What notebooks 01 and 02 say, checked at greater length than their cells do."""

import re

import cv2
import nbformat
import numpy as np
import pytest
import torch
from conftest import ROOT

from reidsa_utils.attention import (
    FORMS,
    SpatialAttention,
    attended_pool,
    attention_weights,
    effective_cells,
)
from reidsa_utils.batches import to_input
from reidsa_utils.datasets.rendered import Settings, plan, render_shot
from reidsa_utils.experiments.claims import read_claims
from reidsa_utils.experiments.histories import (
    against_gap,
    demo_runs,
    epoch_table,
    first_step_table,
)
from reidsa_utils.experiments.run import load_weights
from reidsa_utils.model import ReIDNet
from reidsa_utils.training import look_inside

POSITIONS = {1: 192, 2: 48, 3: 12}  # of the maps of a `demo` run, by stage
ATTENTION = ("softmax", "l1", "softmax_mean", "sigmoid")
# The rows of 02's table of verdicts, and the claims of the ledger that they are about.
ROWS = {
    "eq. 8 to 12": "eq-8-12",
    "other channels at the same position": "own-intensity",
    "the first two cases have the sign": "same-sign",
    "SA stabilizes the gradient": "stabilizes",
    "SA leads to less vanishing and exploding": "",  # a part of "stabilizes"
    "SA leads to fast convergence": "fast-convergence",
}


def rendered(scale, split, step, count, size, without=()):
    """Rendered people of a benchmark, (count, H, W, 3) uint8, and their shots."""
    settings = Settings(scale=scale, seed=0)
    shots = [shot for shot in plan(settings) if shot.split == split][::step][:count]
    images = [cv2.resize(render_shot(settings, shot, without)[0], size) for shot in shots]
    return np.stack(images), shots


# Notebook 01: what a head can see.


@pytest.fixture(scope="module")
def heads():
    """A fully connected head on a (7, 6, 4) map, and every form of pooling before a linear one."""
    generator = torch.Generator().manual_seed(0)
    free = torch.randn(7 * 6 * 4, 10, generator=generator, dtype=torch.float64)
    shared = torch.randn(7, 10, generator=generator, dtype=torch.float64)
    pooled = {form: lambda f, form=form: attended_pool(f, form) @ shared for form in FORMS}
    return {"fully connected": lambda f: f.flatten(1) @ free, **pooled}


def random_maps(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(5, 7, 6, 4, generator=generator, dtype=torch.float64)


def test_only_heads_without_attention_are_linear(heads):
    """l1 keeps the homogeneity alone; the other forms of attention have neither property."""
    f, g = random_maps(1), random_maps(2)
    for name, head in heads.items():
        size = head(f + g).norm()
        additive = (head(f + g) - head(f) - head(g)).norm() / size < 1e-12
        homogeneous = (head(2 * f) - 2 * head(f)).norm() / size < 1e-12
        assert additive == (name in ("fully connected", "none")), name
        assert homogeneous == (name in ("fully connected", "none", "l1")), name


def test_attention_sees_what_stands_together_and_not_where(heads):
    f = random_maps(1)
    generator = torch.Generator().manual_seed(3)
    together = torch.randperm(24, generator=generator).expand(5, 7, -1)
    alone = torch.stack([torch.randperm(24, generator=generator) for _ in range(7)]).expand(
        5, -1, -1
    )
    for name, head in heads.items():
        moved, torn = (
            head(f.flatten(2).gather(2, order).view_as(f)) for order in (together, alone)
        )
        assert torch.allclose(moved, head(f), rtol=0, atol=1e-12) == (name != "fully connected")
        assert torch.allclose(torn, head(f), rtol=0, atol=1e-12) == (name == "none"), name


@pytest.mark.parametrize("form", FORMS)
def test_a_constant_map_is_pooled_to_its_value(form):
    constant = torch.full((1, 4, 6, 2), 0.7, dtype=torch.float64)
    expected = torch.full((1, 4), 0.7, dtype=torch.float64)
    torch.testing.assert_close(attended_pool(constant, form), expected, rtol=1e-14, atol=0)


def test_a_brighter_map_changes_the_softmax_and_not_l1():
    f = random_maps(1)
    squared = attention_weights(f, "softmax") ** 2
    squared = squared / squared.sum((1, 2), keepdim=True)
    doubled = {form: attention_weights(2 * f, form) for form in ("softmax", "l1")}
    torch.testing.assert_close(doubled["softmax"], squared, rtol=1e-12, atol=0)
    torch.testing.assert_close(doubled["l1"], attention_weights(f, "l1"), rtol=1e-12, atol=0)


@pytest.mark.parametrize("form", FORMS)
def test_each_image_of_a_batch_has_its_own_weights(form):
    f = random_maps(1)
    one_by_one = torch.cat([attention_weights(image[None], form) for image in f])
    torch.testing.assert_close(attention_weights(f, form), one_by_one, rtol=1e-14, atol=0)
    A = f.sum(1)
    by_hand = {"softmax": A.exp() / A.exp().sum((1, 2), keepdim=True), "none": 0 * A + 1 / 24}
    by_hand["l1"] = A / A.sum((1, 2), keepdim=True)
    if form in by_hand:
        torch.testing.assert_close(one_by_one, by_hand[form], rtol=1e-12, atol=0)


# Notebook 01: the maps of a trained network.


@pytest.fixture(scope="module")
def trained_maps():
    """Four stages, (64, C, H, W) each, of the network and the images of notebook 01."""
    images, _ = rendered(0.2, "query", 10, 64, (64, 192), {"occluder"})
    model, _ = load_weights("market1501-rendered-laptop-b_p_ds-none-paper-erasing-e10-s3")
    with torch.no_grad():
        return model.feature_maps(to_input(images))


def test_on_real_maps_the_softmax_keeps_one_position(trained_maps):
    for f in trained_maps:
        weights = {form: attention_weights(f, form) for form in FORMS}
        share = {
            form: (effective_cells(p) / p[0].numel()).mean().item() for form, p in weights.items()
        }
        assert weights["softmax"].amax((1, 2)).mean() > 0.9
        assert share["softmax"] < 0.05
        assert 0.7 < share["l1"] < 0.999
        assert share["sigmoid"] > 0.99


def test_on_real_maps_attention_makes_the_pooled_vector_longer(trained_maps):
    for f in trained_maps:
        assert f.sum(1).flatten(1).std(1).mean() > 50
        length = {form: attended_pool(f, form).norm(dim=1) for form in ("none", "softmax", "l1")}
        assert (length["softmax"] / length["none"]).mean() > 2
        assert 1 < (length["l1"] / length["none"]).mean() < 2


# Notebook 02: signs, and the gradient before training.


def test_signs_of_the_cases_of_eq_12():
    """Case 1 has no rule for f < 0; case 2 has the sign of f, case 3 the opposite one."""
    layer = SpatialAttention("softmax")
    same_position = torch.eye(6, dtype=torch.bool).view(1, 6, 1, 6).expand(3, 6, 3, 6)
    same_channel = torch.eye(3, dtype=torch.bool).view(3, 1, 3, 1).expand(3, 6, 3, 6)
    signs = {1: set(), 2: set(), 3: set()}  # pairs (sign of f, sign of the entry)
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(40, 3, 2, 3, generator=generator, dtype=torch.float64)
    for f in [*maps, *maps.relu()]:
        J = torch.autograd.functional.jacobian(lambda f: layer(f[None])[0], f)
        J = J.reshape(3, 6, 3, 6).sign()
        sign_f = f.reshape(3, 6, 1, 1).sign().expand_as(J)
        case = 3 - 1 * same_position.int() - (same_position & same_channel).int()
        for number in signs:
            here = case == number
            signs[number] |= set(zip(sign_f[here].tolist(), J[here].tolist(), strict=True))
    assert signs[1] == {(-1, -1), (-1, 1), (0, 1), (1, 1)}
    assert signs[2] == {(-1, -1), (0, 0), (1, 1)}
    assert signs[3] == {(-1, 1), (0, 0), (1, -1)}


@pytest.fixture(scope="module")
def untrained():
    """The network of notebook 02 before training, with the maps and classes of 32 images."""
    images, shots = rendered(0.107, "train", 40, 32, (32, 96))
    target = torch.tensor([shot.pid - 1 for shot in shots])
    torch.manual_seed(0)
    model = ReIDNet(80, "b_p_ds", "none", backbone="thin", dropout=0.0).train()
    with torch.no_grad():
        return model, model.feature_maps(to_input(images)), target


def through_branch(branch, f, form, target):
    """Gradient of each image's cross-entropy by its map, (B, C, HW)."""
    leaf = f.detach().requires_grad_()
    logits = branch(attended_pool(leaf, form))
    loss = torch.nn.functional.cross_entropy(logits, target, reduction="sum")
    return torch.autograd.grad(loss, leaf)[0].flatten(2)


def test_looking_inside_gives_the_gradients_of_notebook_02(untrained):
    model, maps, target = untrained
    inside = look_inside(model, maps, target)
    for s, (branch, f) in enumerate(zip(model.stages, maps[:3], strict=True)):
        for form in FORMS:
            gradient = through_branch(branch, f, form, target)
            norm = gradient.flatten(1).norm(dim=1).mean().item()
            assert norm == pytest.approx(inside[form]["through"][s], rel=1e-4)


def test_before_training_only_the_softmax_makes_the_gradient_sparse(untrained):
    """A norm near the square root of HW, nearly all of it at one position."""
    model, maps, target = untrained
    for branch, f in zip(model.stages, maps[:3], strict=True):
        gap = through_branch(branch, f, "none", target)
        for form in ATTENTION:
            gradient = through_branch(branch, f, form, target)
            at_position = gradient.norm(dim=1)  # (B, HW)
            times = (at_position.norm(dim=1).mean() / gap.flatten(1).norm(dim=1).mean()).item()
            starved = (at_position < 0.01 * gap.norm(dim=1)).double().mean()
            squares = at_position.square()
            largest = (squares.amax(1) / squares.sum(1)).mean()
            if form == "softmax":
                assert 0.7 < times / gap.shape[2] ** 0.5 < 1.7 and times > 2
                assert starved > 0.85 and largest > 0.8
            else:
                assert 0.9 < times < 1.2 and starved < 0.05


def test_a_batch_norm_takes_the_scale_of_sa1_out(untrained):
    """With it the gradient at the stage-4 map is about GAP's; without it the softmax's is larger."""
    model, maps, target = untrained

    def norm(form):
        model.sa1.form = form
        leaf = maps[3].detach().requires_grad_()
        logits = model.main_logits(model.pool_parts(model.attend(leaf)))
        model.sa1.form = "none"
        losses = [
            (0.2 if name == "final" else 0.8)
            * torch.nn.functional.cross_entropy(logit, target, reduction="sum")
            for name, logit in logits.items()
        ]
        gradient = torch.autograd.grad(sum(losses), leaf)[0]
        return gradient.flatten(1).norm(dim=1).mean().item()

    batch_norm = model.reduce[1]
    with_it = {form: norm(form) / norm("none") for form in ATTENTION}
    model.reduce[1] = torch.nn.Identity()
    without = {form: norm(form) / norm("none") for form in ATTENTION}
    model.reduce[1] = batch_norm
    assert all(0.5 < times < 1.5 for times in with_it.values())
    assert without["softmax"] > 2 > without["l1"]


# Notebooks 01 and 02: fifteen recorded trainings.


@pytest.fixture(scope="module")
def runs():
    return demo_runs()


def test_five_seeds_of_each_form(runs):
    lines = epoch_table(runs)
    assert lines.groupby("form")["seed"].unique().map(sorted).to_dict() == {
        form: [0, 1, 2, 3, 4] for form in ("none", "softmax", "l1")
    }
    assert len(lines) == 3 * 5 * 18


def test_what_training_with_a_form_does_to_the_maps(runs):
    """Effective positions of the last epoch: of the softmax one; of l1 fewer if trained with it."""
    looks = first_step_table(runs)
    last = looks[looks.epoch == 18].assign(positions=lambda t: t.share * t.stage.map(POSITIONS))
    of_softmax = last[last.form == "softmax"]
    means = of_softmax.groupby(["trained with", "stage"])["positions"].mean()
    assert means.max() < 2
    of_l1 = last[last.form == "l1"].groupby(["stage", "trained with"])["positions"]
    mean, sd = of_l1.mean().unstack(), of_l1.std().unstack()
    assert (mean["l1"] + sd["l1"] < mean["none"]).all()
    assert (mean["none"] < mean["softmax"]).all()


def test_gradients_through_the_branches(runs):
    lines, looks = epoch_table(runs), first_step_table(runs)
    without = looks[looks["trained with"] == "none"]
    norms = without.pivot_table("through", ["stage", "seed", "epoch"], "form")
    factor = norms.div(norms["none"], axis=0)
    assert factor["softmax"].min() > 2
    assert factor[["l1", "softmax_mean", "sigmoid"]].stack().between(0.8, 1.8).all()
    means = lines.groupby("form")[["branch 1", "branch 2", "branch 3"]].mean()
    assert (means.loc["softmax"] > 4 * means.loc["none"]).all()
    assert (means.loc["l1"] / means.loc["none"]).between(0.9, 1.4).all()


def test_scatter_and_convergence_seed_by_seed(runs):
    lines = epoch_table(runs)
    scatter = against_gap(lines, {s: f"scatter {s}" for s in (1, 2, 3, 4)}, range(10, 19))
    assert (scatter.loc[[1, 2, 3], ("softmax", "Δ > 0")] == 5).all()
    assert (scatter["l1", "Δ"].abs() < 0.1).all()
    columns = {name: name for name in ("l_F", "l_s1", "l_s2", "l_s3", "accuracy")}
    convergence = against_gap(lines, columns, range(1, 19))
    assert convergence.loc["l_F", ("softmax", "Δ > 0")] == 5
    assert (convergence.loc[["l_s1", "l_s2", "l_s3"], ("l1", "Δ > 0")] == 0).all()
    below_half = lines[lines["l_F"] < np.log(80) / 2]
    until = below_half.groupby(["form", "seed"])["epoch"].min().groupby("form").mean()
    assert until["softmax"] > until["none"]


def test_verdicts_of_notebook_02_are_the_ledgers():
    [cell] = [
        cell
        for cell in nbformat.read(ROOT / "notebooks" / "02_gradient_check.ipynb", 4).cells
        if "## What the measurements say" in cell.source
    ]
    claims = {claim["id"]: claim["verdict"] for claim in read_claims()}
    rows = re.findall(r"^\| (.+?) \| \*\*(.+?)\*\*.* \| [^|]+ \|$", cell.source, re.M)
    assert len(rows) == len(ROWS)
    for (words, verdict), (beginning, claim) in zip(rows, ROWS.items(), strict=True):
        assert words.startswith(beginning)
        assert verdict == (claims[claim] if claim else "not testable here"), words
