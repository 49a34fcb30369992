"""The network of Fig. 3: a ResNet, six part classifiers (P), three deeply supervised branches (DS), two places for SA."""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor, nn

from . import SETTINGS, InputError, known
from .attention import FORMS, SpatialAttention, attended_pool, attention_weights
from .weights import read_weights

PARTS = 6  # m of section 3.1
REDUCED = 256  # channels after the shared 1x1 convolution

# The eight rows of Table 2. `sa1`: attention on the stage-4 map; `sa2`: attention in the DS branches.
VARIANTS = {
    "b": (),
    "b_sa1": ("sa1",),
    "b_ds": ("ds",),
    "b_ds_sa2": ("ds", "sa2"),
    "b_ds_sa12": ("ds", "sa1", "sa2"),
    "b_p_ds": ("parts", "ds"),
    "b_p_ds_sa2": ("parts", "ds", "sa2"),
    "b_p_ds_sa12": ("parts", "ds", "sa1", "sa2"),
}


@dataclass(frozen=True)
class Recipe:
    """Where the paper's text and its released code differ, or the text leaves a choice."""

    mean_after_sa: bool = False  # released: a mean over HW on top of weights that already sum to 1
    literal_sum: bool = (
        False  # GAP without SA as the plain sum that section 3.3 writes, in the DS branches
    )
    ds_reduced: bool = (
        False  # released: a 1x1 convolution to 256 channels in front of every DS classifier
    )
    sa1_on_parts: bool = (
        False  # Fig. 3: SA1 weighs the six pooled parts; else the cells of the map before that
    )
    equal_loss: bool = False  # released: all ten losses with weight 1
    lam: float = 0.2  # lambda of section 3.1, the weight of the auxiliary losses
    lam_decays: bool = False  # lambda falls linearly, in the last of E epochs to 1 / E of it; section 2: as in reference [10]
    total: float = 0.0  # the weights of several losses scaled to this sum; 0: as they are
    # what separates attention from optimisation (notebook 08); all of the branches' SA2
    detach: bool = False  # the branches send no gradient into the backbone
    gradient_as_gap: bool = False  # what a branch sends there has, step by step, the norm that its head sends without SA
    norm_as_gap: bool = (
        False  # a branch's pooled vector has, image by image, the norm of the average-pooled one
    )
    temperature: float = 1.0  # the scores A are divided by it before the softmax
    standardise: bool = (
        False  # the scores of an image have mean 0 and deviation 1 before the softmax
    )
    nesterov: bool = True  # released; the paper says "momentum"
    erase_area: tuple = (0.02, 0.4)  # random erasing: smallest and largest share of the image


RECIPES = {
    name: Recipe(**fields)
    for name, fields in tomllib.loads((SETTINGS / "recipes.toml").read_text()).items()
}


@dataclass(frozen=True)
class Backbone:
    """A network of torchvision in the place of Fig. 3's ResNet-50."""

    make: Callable  # () -> the network with random weights
    channels: tuple  # of the maps of stages 1 to 4
    stages: Callable  # the network -> (modules before stage 1, those of stages 1 to 4), each to be called one after the other
    classifier: str  # name of its ImageNet classifier, which is thrown away


def _resnet_stages(net) -> tuple:
    return (
        [net.conv1, net.bn1, net.relu, net.maxpool],
        [net.layer1],
        [net.layer2],
        [net.layer3],
        [net.layer4],
    )


def _mobilenet_stages(net) -> tuple:
    """Stages end behind the expansion (1x1 convolution, batch norm, ReLU6) of a block, at strides 4, 8 and 16.

    The outputs of the blocks are linear and may be negative, and the layer sits behind a ReLU. None of the three blocks that are
    cut in two has a shortcut past the cut.
    """
    blocks = net.features
    return (
        [blocks[0]],
        [*blocks[1:4], blocks[4].conv[0]],
        [*blocks[4].conv[1:], *blocks[5:7], blocks[7].conv[0]],
        [*blocks[7].conv[1:], *blocks[8:14], blocks[14].conv[0]],
        [*blocks[14].conv[1:], *blocks[15:]],
    )


def _thin():
    """One bottleneck a stage, a quarter of the inner width, the paper's channel numbers: 4.6 M parameters with 150 identities' heads."""
    return torchvision.models.ResNet(
        torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], width_per_group=16
    )


BACKBONES = {
    "resnet50": Backbone(
        lambda: torchvision.models.resnet50(), (256, 512, 1024, 2048), _resnet_stages, "fc"
    ),
    "resnet18": Backbone(
        lambda: torchvision.models.resnet18(), (64, 128, 256, 512), _resnet_stages, "fc"
    ),
    "thin": Backbone(_thin, (256, 512, 1024, 2048), _resnet_stages, "fc"),
    "mobilenet_v2": Backbone(
        lambda: torchvision.models.mobilenet_v2(),
        (144, 192, 576, 1280),
        _mobilenet_stages,
        "classifier",
    ),
}


class ReIDNet(nn.Module):
    """Backbone, heads and pooling of Fig. 3. `loaded` says what the backbone began with (see weights.read_weights).

    num_classes: training identities. variant: a key of VARIANTS. form: the attention form of SA1 and SA2 ("none":
    the variant without SA). recipe: "paper", "released" or a Recipe. dropout: before the 1x1 convolution (section 4).
    weights: "none", "imagenet" (torchvision's own download) or the path of a state_dict of the backbone, or of a run's checkpoint.
    Raises InputError for an unknown name or weights that cannot be had.
    """

    def __init__(
        self,
        num_classes: int,
        variant: str = "b_p_ds_sa2",
        form: str = "softmax",
        recipe="paper",
        backbone: str = "resnet50",
        dropout: float = 0.5,
        weights: str = "none",
    ):
        super().__init__()
        blocks = VARIANTS[known("variant", variant, VARIANTS)]
        known("attention form", form, FORMS)
        self.recipe = (
            recipe if isinstance(recipe, Recipe) else RECIPES[known("recipe", recipe, RECIPES)]
        )
        self.kind = BACKBONES[known("backbone", backbone, BACKBONES)]
        self.channels = channels = self.kind.channels
        self.sa1 = SpatialAttention(
            form if "sa1" in blocks else "none"
        )  # on the stage-4 map, before any pooling
        self.sa2_form = form if "sa2" in blocks else "none"  # in the DS branches
        self.parts = PARTS if "parts" in blocks else 1  # without P the whole map is the one part

        self.backbone = self.kind.make()
        self.loaded = read_weights(self.backbone, backbone, self.kind.classifier, weights)
        setattr(self.backbone, self.kind.classifier, nn.Identity())
        for module in self.stage_modules()[4].modules():  # last stride 1: 24x8 at 384x128
            if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
                module.stride = (1, 1)

        self.dropout = nn.Dropout(dropout)
        self.reduce = nn.Sequential(
            nn.Conv2d(channels[3], REDUCED, 1, bias=False), nn.BatchNorm2d(REDUCED), nn.ReLU()
        )
        nn.init.kaiming_normal_(self.reduce[0].weight, mode="fan_out")
        self.final = _classifier(REDUCED, num_classes)  # l_F
        self.stages = nn.ModuleList()  # l_s1 .. l_s3
        if "ds" in blocks:
            for c in channels[:3]:
                head = _classifier(REDUCED if self.recipe.ds_reduced else c, num_classes)
                self.stages.append(
                    nn.Sequential(nn.Linear(c, REDUCED, bias=False), head)
                    if self.recipe.ds_reduced
                    else head
                )
        self.part = nn.ModuleList(
            _classifier(REDUCED, num_classes) for _ in range(self.parts if self.parts > 1 else 0)
        )

    def feature_maps(self, images: Tensor) -> list:
        """images: (B, 3, H, W) -> the maps of stages 1-4, (B, C, H/4, W/4), H/8, H/16 and H/16 again."""
        x, maps = images, []
        for modules in self.kind.stages(self.backbone):
            for module in modules:
                x = module(x)
            maps.append(x)
        maps = maps[1:]  # not what lies before stage 1
        if self.parts > 1 and x.shape[2] % self.parts:
            h, step = images.shape[2], 16 * self.parts
            near = sorted({max(step, h // step * step), (h // step + 1) * step})
            raise InputError(
                f"an input {h} pixels high gives a stage-4 map of {x.shape[2]} rows, which six parts do not divide; "
                f"the nearest heights that work: {', '.join(map(str, near))}"
            )
        return maps

    def stage_modules(self) -> list:
        """Five nn.Sequential on the backbone's own modules: what lies before stage 1, and stages 1 to 4."""
        return [nn.Sequential(*modules) for modules in self.kind.stages(self.backbone)]

    def attend(self, stage4: Tensor) -> Tensor:
        """SA1, the one call that forward and embed share: (B, C, H, W) -> (B, C, H, W).

        Recipe paper: weights with mean 1, so that averages over the map or over parts keep the scale of GAP.
        """
        if self.sa1.form == "none":
            return stage4
        if self.recipe.sa1_on_parts:
            p = attention_weights(self.pool_parts(stage4), self.sa1.form)  # (B, m, 1)
            return (
                stage4
                * (p * self.parts).repeat_interleave(stage4.shape[2] // self.parts, dim=1)[:, None]
            )
        cells = 1 if self.recipe.mean_after_sa else stage4.shape[2] * stage4.shape[3]
        return self.sa1(stage4) * cells

    def pool_parts(self, attended: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, m, 1): average pooling inside m horizontal stripes (m = 1 without P)."""
        B, C, H, W = attended.shape
        return attended.reshape(B, C, self.parts, H // self.parts * W).mean(3, keepdim=True)

    def pool_stage(self, f: Tensor, form: str | None = None) -> Tensor:
        """(B, C, H, W) -> (B, C): SA2 and the average pooling of a DS branch; `form` instead of the model's own to compare.

        Compared forms are pure: without the recipe's temperature, standardised scores and norm.
        """
        if form is not None or self.sa2_form == "none":
            form = form or "none"
            return attended_pool(f, form) * self.pool_scale(form, f.shape[2] * f.shape[3])
        return attended_pool(
            f, self.sa2_form, self.recipe.temperature, self.recipe.standardise
        ) * self.own_scale(f)

    def pool_scale(self, form: str, cells: int) -> float:
        """What a recipe multiplies the weighted mean of a DS branch with."""
        if form == "none":
            return cells if self.recipe.literal_sum else 1
        return 1 / cells if self.recipe.mean_after_sa else 1

    def own_weights(self, f: Tensor) -> Tensor:
        """p of SA2 as this model has it: (B, C, H, W) -> (B, H, W)."""
        if self.sa2_form == "none":
            return attention_weights(f, "none")
        return attention_weights(f, self.sa2_form, self.recipe.temperature, self.recipe.standardise)

    @torch.no_grad()
    def own_scale(self, f: Tensor):
        """What this model multiplies its weighted mean of a DS branch with: a number or, for norm_as_gap, (B, 1).

        The factor of norm_as_gap counts as a constant: what reaches the map is the gradient of the weighted mean, times it.
        """
        scale = self.pool_scale(self.sa2_form, f.shape[2] * f.shape[3])
        if not self.recipe.norm_as_gap or self.sa2_form == "none":
            return scale
        norm, gap = (
            attended_pool(f, *how).norm(dim=1, keepdim=True)
            for how in (
                (self.sa2_form, self.recipe.temperature, self.recipe.standardise),
                ("none",),
            )
        )
        return scale * gap / norm.clamp(min=torch.finfo(norm.dtype).tiny)

    def branch_input(self, stage: int, f: Tensor, target: Tensor | None) -> Tensor:
        """The map as the branch of a stage (from 0) takes it: the same values; the recipe decides what gradient goes back."""
        if self.recipe.detach:
            return f.detach()
        if self.recipe.gradient_as_gap and target is not None and f.requires_grad:
            leaf = f.detach().requires_grad_()
            sent = []
            for form in (None, "none"):
                loss = nn.functional.cross_entropy(
                    self.stages[stage](self.pool_stage(leaf, form)), target
                )
                sent.append(torch.autograd.grad(loss, leaf)[0].float().norm())
            return _ScaledGradient.apply(
                f, sent[1] / sent[0].clamp(min=torch.finfo(torch.float32).tiny)
            )
        return f

    def main_logits(self, pooled: Tensor) -> dict:
        """pooled: (B, C, m, 1) -> logits of the parts (with P) and of the main head `final`."""
        g = self.reduce(self.dropout(pooled))  # (B, 256, m, 1)
        logits = {f"part{k + 1}": head(g[:, :, k, 0]) for k, head in enumerate(self.part)}
        logits["final"] = self.final(g.mean(dim=(2, 3)))  # another GAP, over the parts
        return logits

    def forward(self, images: Tensor, with_maps: bool = False, target: Tensor | None = None):
        """images: (B, 3, H, W) -> {name: logits (B, num_classes)}; names final, part1-6, stage1-3 as the variant has them.

        with_maps: (that, the maps of stages 1-4). target: (B,) class numbers, for recipes with gradient_as_gap in training.
        """
        maps = self.feature_maps(images)
        logits = self.heads(maps, target)
        return (logits, maps) if with_maps else logits

    def heads(self, maps: list, target: Tensor | None = None) -> dict:
        """The logits of forward, from the maps of stages 1-4."""
        logits = self.main_logits(self.pool_parts(self.attend(maps[3])))
        for i, head in enumerate(self.stages):
            logits[f"stage{i + 1}"] = head(self.pool_stage(self.branch_input(i, maps[i], target)))
        return logits

    def embed(self, images: Tensor, kind: str = "global") -> Tensor:
        """Retrieval vectors; all heads are thrown away.

        kind: "global", the pooled stage-4 map (B, C); "parts", six pooled parts, each L2-normalised (B, 6C), only in
        variants with P. Compared by Euclidean distance. Raises InputError otherwise.
        """
        return self.embed_all(images)[known("retrieval vector", kind, self.vectors)]

    @property
    def vectors(self) -> tuple:
        return ("global", "parts") if self.parts > 1 else ("global",)

    def embed_all(self, images: Tensor) -> dict:
        """Every retrieval vector of the variant from one pass: {kind: (B, D)}."""
        parts = self.pool_parts(self.attend(self.feature_maps(images)[3]))  # (B, C, m, 1)
        out = {"global": parts.mean(dim=(2, 3))}
        if self.parts > 1:
            out["parts"] = nn.functional.normalize(parts[..., 0], dim=1).transpose(1, 2).flatten(1)
        return out

    def parameter_groups(self, lr: float) -> list:
        """SGD groups: layers with loaded weights at lr / 10 (section 4), the others at lr."""
        backbone = list(self.backbone.parameters())
        ids = {id(p) for p in backbone}
        heads = [p for p in self.parameters() if id(p) not in ids]
        return [
            {"params": backbone, "lr": lr * (0.1 if self.loaded else 1.0)},
            {"params": heads, "lr": lr},
        ]


def _classifier(channels: int, num_classes: int) -> nn.Linear:
    linear = nn.Linear(channels, num_classes)
    nn.init.normal_(linear.weight, std=0.001)
    nn.init.zeros_(linear.bias)
    return linear


class _ScaledGradient(torch.autograd.Function):
    """f unchanged; the gradient that comes back, times a factor."""

    @staticmethod
    def forward(ctx, f: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return f.view_as(f)

    @staticmethod
    def backward(ctx, g: Tensor):
        return g * ctx.saved_tensors[0].to(g.dtype), None


def loss_weights(names, recipe="paper", lam: float | None = None) -> dict:
    """Weight of every loss: (1 - lam) sum l_p + lam sum l_s + lam l_F; without P, l_F takes the place of the parts.

    names: the names of the logits; lam: None for the recipe's. Backbone alone: l_F with weight 1.
    """
    recipe = recipe if isinstance(recipe, Recipe) else RECIPES[known("recipe", recipe, RECIPES)]
    names, lam = list(names), recipe.lam if lam is None else lam
    if names == ["final"]:
        return {"final": 1.0}
    main = "part" if any(name.startswith("part") for name in names) else "final"
    weights = {
        name: 1.0 if recipe.equal_loss else 1 - lam if name.startswith(main) else lam
        for name in names
    }
    scale = recipe.total / sum(weights.values()) if recipe.total else 1.0
    return {name: weight * scale for name, weight in weights.items()}


def reid_loss(logits: dict, target: Tensor, recipe="paper", lam: float | None = None) -> Tensor:
    """L_total of section 3.1: weighted sum of one cross-entropy per head.

    logits: {name: (B, num_classes)}; target: (B,) class numbers; recipe, lam: as in loss_weights. Returns a scalar.
    """
    weights = loss_weights(logits, recipe, lam)
    return sum(
        weights[name] * nn.functional.cross_entropy(value, target) for name, value in logits.items()
    )
