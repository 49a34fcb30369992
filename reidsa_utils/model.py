"""The network of Fig. 3, its readings ("recipes") and its loss (section 3.1).

    image -> stage 1 -> stage 2 -> stage 3 -> stage 4 -> [SA1] -> six parts -> 1x1 conv -> part1-6
                |          |          |                                           |           P
              [SA2]      [SA2]      [SA2]                                   mean of parts
                |          |          |                                           |
             stage1     stage2     stage3   DS                                  final

The backbone is a ResNet (or MobileNetV2). Six part classifiers (P) and the main classifier follow
stage 4. Three deeply supervised branches (DS) follow stages 1 to 3. Spatial attention (SA) has no
parameter; it can stand in two places, SA1 and SA2. part1-6, final and stage1-3 are the names of
the logits.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from . import SETTINGS, InputError, known
from .attention import SpatialAttention, attended_pool, attention_weights, known_forms
from .support.arrays import (
    any_array,
    as_array,
    as_tensor,
    check_number,
    check_whole,
    type_name,
)
from .support.files import read_toml
from .weights import read_weights

PARTS = 6  # m of section 3.1
REDUCED = 256  # channels after the shared 1x1 convolution

# The eight rows of Table 2.
# `sa1`: attention on the stage-4 map; `sa2`: attention in the DS branches.
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
    """The choices where the paper's text and its released code differ, or where the text is open.

    "Released" in the comments means: the released code does it this way.
    """

    # Released: a mean over HW on top of weights that already sum to 1.
    mean_after_sa: bool = False
    # In the DS branches, GAP without SA is the plain sum that section 3.3 writes.
    literal_sum: bool = False
    # Released: a 1x1 convolution to 256 channels in front of every DS classifier.
    ds_reduced: bool = False
    # Fig. 3: SA1 weighs the six pooled parts. If false, it weighs the positions of the stage-4 map.
    sa1_on_parts: bool = False
    # Released: all ten losses have weight 1.
    equal_loss: bool = False
    # lambda of section 3.1, the weight of the auxiliary losses.
    lam: float = 0.2
    # lambda falls linearly; in the last of E epochs it is lam / E (section 2, as in reference
    # [10]).
    lam_decays: bool = False
    # If there are several losses, their weights are scaled to this sum; 0 leaves them unchanged.
    total: float = 0.0

    # The next five separate attention from optimisation (notebook 08). All are about SA2, in the
    # branches.
    # The branches send no gradient into the backbone.
    detach: bool = False
    # In every step, the gradient that a branch sends into the backbone is scaled to the norm that
    # the same head would send without SA.
    gradient_as_gap: bool = False
    # In a branch, each image's pooled vector is scaled to the norm of its average-pooled vector.
    norm_as_gap: bool = False
    # The scores A are divided by this number before the softmax.
    temperature: float = 1.0
    # The scores of each image are brought to mean 0 and standard deviation 1 before the softmax.
    standardise: bool = False

    # Released: Nesterov momentum. The paper says only "momentum".
    nesterov: bool = True
    # Random erasing: smallest and largest share of the image.
    erase_area: tuple = (0.02, 0.4)


RECIPES = {name: Recipe(**fields) for name, fields in read_toml(SETTINGS / "recipes.toml").items()}


@dataclass(frozen=True)
class Backbone:
    """A torchvision network that can take the place of the ResNet-50 of Fig. 3."""

    make: Callable  # () -> the network with random weights
    channels: tuple  # of the maps of stages 1 to 4
    # The network -> five lists of modules: what lies before stage 1, then stages 1 to 4. The
    # modules of a list are called one after the other.
    stages: Callable
    classifier: str  # name of its ImageNet classifier, which is removed


def _resnet_stages(net) -> tuple:
    return (
        [net.conv1, net.bn1, net.relu, net.maxpool],
        [net.layer1],
        [net.layer2],
        [net.layer3],
        [net.layer4],
    )


def _mobilenet_stages(net) -> tuple:
    """Stages end after the expansion of a block, at strides 4, 8 and 16.

    The expansion is a 1x1 convolution, batch norm and ReLU6. The outputs of the blocks themselves
    are linear and may be negative, but the attention layer needs the output of a ReLU. Three blocks
    are cut in two; none of them has a shortcut around the cut.
    """
    blocks = net.features
    return (
        [blocks[0]],
        [*blocks[1:4], blocks[4].conv[0]],
        [*blocks[4].conv[1:], *blocks[5:7], blocks[7].conv[0]],
        [*blocks[7].conv[1:], *blocks[8:14], blocks[14].conv[0]],
        [*blocks[14].conv[1:], *blocks[15:]],
    )


def _torchvision(name: str) -> nn.Module:
    """A network of torchvision with random weights.

    torchvision is imported where it is first needed: it loads torch's compiler, which takes nearly
    as long as torch itself, and who reads settings or records needs neither.
    """
    import torchvision

    return torchvision.models.get_model(name)


def _thin() -> nn.Module:
    """A small ResNet: one bottleneck per stage, a quarter of the inner width, the paper's channels.

    It has 4.6 M parameters with the heads for 150 identities.
    """
    from torchvision.models.resnet import Bottleneck, ResNet

    return ResNet(Bottleneck, [1, 1, 1, 1], width_per_group=16)


BACKBONES = {
    "resnet50": Backbone(
        make=partial(_torchvision, "resnet50"),
        channels=(256, 512, 1024, 2048),
        stages=_resnet_stages,
        classifier="fc",
    ),
    "resnet18": Backbone(
        make=partial(_torchvision, "resnet18"),
        channels=(64, 128, 256, 512),
        stages=_resnet_stages,
        classifier="fc",
    ),
    "thin": Backbone(
        make=_thin,
        channels=(256, 512, 1024, 2048),
        stages=_resnet_stages,
        classifier="fc",
    ),
    "mobilenet_v2": Backbone(
        make=partial(_torchvision, "mobilenet_v2"),
        channels=(144, 192, 576, 1280),
        stages=_mobilenet_stages,
        classifier="classifier",
    ),
}


class ReIDNet(nn.Module):
    """Backbone, attention, pooling and classifiers of Fig. 3.

    num_classes: number of training identities.
    variant: a key of VARIANTS.
    form: the attention form of SA1 and SA2; "none" gives the variant without SA.
    recipe: a key of RECIPES ("paper", "released", ...) or a Recipe.
    backbone: a key of BACKBONES.
    dropout: probability, before the 1x1 convolution (section 4).
    weights: "none", "imagenet" (torchvision's own download) or the path of a state_dict of the
        backbone, or of a run's checkpoint.
    The attribute `loaded` says where loaded weights come from, as records hold it: a dict (see
    weights.read_weights), or False where nothing was loaded.
    Raises InputError for an unknown name, numbers out of range or weights that cannot be loaded.
    """

    def __init__(
        self,
        num_classes: int,
        variant: str = "b_p_ds_sa2",
        form: str = "softmax",
        recipe: str | Recipe = "paper",
        backbone: str = "resnet50",
        dropout: float = 0.5,
        weights: str = "none",
    ):
        super().__init__()
        blocks = VARIANTS[known("variant", variant, VARIANTS)]
        known("attention form", form, known_forms())
        check_whole("num_classes", num_classes)
        check_number("dropout", dropout, 0, 1)
        self.recipe = _as_recipe(recipe)
        self.architecture = BACKBONES[known("backbone", backbone, BACKBONES)]
        self.channels = self.architecture.channels

        # SA1 weighs the stage-4 map before any pooling; SA2 pools in the DS branches.
        self.sa1 = SpatialAttention(form if "sa1" in blocks else "none")
        self.sa2_form = form if "sa2" in blocks else "none"
        self.parts = PARTS if "parts" in blocks else 1  # without P the whole map is the one part

        # The order in which modules are made decides what each draws from the random stream.
        self.loaded = self._make_backbone(backbone, weights)
        self.dropout = nn.Dropout(dropout)
        self.reduce = nn.Sequential(
            nn.Conv2d(self.channels[3], REDUCED, 1, bias=False), nn.BatchNorm2d(REDUCED), nn.ReLU()
        )
        nn.init.kaiming_normal_(self.reduce[0].weight, mode="fan_out")

        self.final = _classifier(REDUCED, num_classes)  # l_F
        self.stages = nn.ModuleList()  # l_s1 .. l_s3
        if "ds" in blocks:
            for channels in self.channels[:3]:
                head = _branch_classifier(channels, num_classes, self.recipe.ds_reduced)
                self.stages.append(head)
        self.part = nn.ModuleList()  # l_p1 .. l_p6
        if "parts" in blocks:
            for _ in range(PARTS):
                self.part.append(_classifier(REDUCED, num_classes))

    def _make_backbone(self, name: str, weights: str):
        """Set self.backbone: load the weights, remove the ImageNet classifier, last stride 1.

        Returns what the attribute `loaded` holds.
        """
        classifier = self.architecture.classifier
        self.backbone = self.architecture.make()
        loaded = read_weights(self.backbone, name, classifier, weights)
        setattr(self.backbone, classifier, nn.Identity())
        # With last stride 1 the stage-4 map has 24x8 positions at 384x128.
        stage4 = self.stage_modules()[4]
        for module in stage4.modules():
            if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
                module.stride = (1, 1)
        return loaded

    def stage_modules(self) -> list:
        """Five nn.Sequential of the backbone's own modules: before stage 1, then stages 1 to 4."""
        return [nn.Sequential(*modules) for modules in self.architecture.stages(self.backbone)]

    # ---- from images to logits: Fig. 3 from left to right

    def forward(self, images: Tensor, with_maps: bool = False, target: Tensor | None = None):
        """images: (B, 3, H, W) -> {name: logits (B, num_classes)}.

        The names are final, part1 to part6 and stage1 to stage3, as the variant has them.
        with_maps: return a pair: these logits and the maps of stages 1 to 4.
        target: (B,) class numbers; only recipes with gradient_as_gap need them, in training.
        Raises InputError for a height that six parts do not divide.
        """
        maps = self.feature_maps(images)
        logits = self.heads(maps, target)
        if with_maps:
            return logits, maps
        return logits

    def heads(self, maps: list, target: Tensor | None = None) -> dict:
        """The logits of forward, from the maps of stages 1 to 4.

        maps: four of (B, C, h, w), as feature_maps returns them. target: as in forward.
        Returns {name: (B, num_classes)}.
        """
        attended = self.attend(maps[3])  # (B, C, H, W)
        pooled = self.pool_parts(attended)  # (B, C, m, 1)
        logits = self.main_logits(pooled)
        for i, head in enumerate(self.stages):
            f = self.branch_input(i, maps[i], target)  # (B, C, H, W)
            logits[f"stage{i + 1}"] = head(self.pool_stage(f))
        return logits

    def feature_maps(self, images: Tensor) -> list:
        """images: (B, 3, H, W) -> the maps f of stages 1 to 4, each (B, C, h, w).

        Their heights are H/4, H/8, H/16 and H/16 again, since the last stride is 1.
        Raises InputError for images of another shape or of whole numbers, or a height that six
        parts do not divide.
        """
        before_stage1, *stages = self.architecture.stages(self.backbone)
        x = images = self.checked_images(images)
        for module in before_stage1:
            x = module(x)
        maps = []
        for stage in stages:
            for module in stage:
                x = module(x)
            maps.append(x)
        self._check_rows(x.shape[2], images.shape[2])
        return maps

    def checked_images(self, images) -> Tensor:
        """Images (B, 3, H, W) as a tensor of the weights' type.

        Raises InputError for another shape, and for whole numbers: those are not normalised yet.
        """
        if not torch.is_tensor(images):
            images = as_array(images)
            images = as_tensor(images) if images.dtype.kind == "f" else images
        is_float = torch.is_tensor(images) and images.is_floating_point()
        if not is_float or images.ndim != 4 or images.shape[1] != 3:
            raise InputError(
                f"images are {type_name(images)} of shape "
                f"{tuple(images.shape)}; expected normalised ones, (B, 3, H, W), as to_input makes "
                "them of images (B, H, W, 3)"
            )
        return images.to(self.final.weight.dtype)

    def _check_rows(self, rows: int, height: int) -> None:
        """Raises InputError if the parts cannot share the rows of the stage-4 map equally."""
        if self.parts == 1 or rows % self.parts == 0:
            return
        step = 16 * self.parts  # rows of the image
        below = max(step, height // step * step)
        above = (height // step + 1) * step
        nearest = ", ".join(str(good) for good in sorted({below, above}))
        raise InputError(
            f"an input {height} pixels high gives a stage-4 map of {rows} rows, which six parts do "
            f"not divide; the nearest heights that work: {nearest}"
        )

    def attend(self, stage4: Tensor) -> Tensor:
        """SA1, the one call that forward and embed share: (B, C, H, W) -> (B, C, H, W).

        In the recipe "paper" the weights have mean 1, so that averages over the map or over parts
        keep the scale of GAP.
        """
        if self.sa1.form == "none":
            return stage4
        H, W = stage4.shape[2:]
        if self.recipe.sa1_on_parts:
            p = attention_weights(self.pool_parts(stage4), self.sa1.form)  # (B, m, 1)
            # Each row gets the weight of its part, with mean 1 over the parts.
            row_weights = (p * self.parts).repeat_interleave(H // self.parts, dim=1)  # (B, H, 1)
            return stage4 * row_weights[:, None]
        attended = self.sa1(stage4)
        if self.recipe.mean_after_sa:
            return attended
        return attended * (H * W)

    def pool_parts(self, attended: Tensor) -> Tensor:
        """Average pooling inside m horizontal stripes: (B, C, H, W) -> (B, C, m, 1).

        m is 6 with P and 1 without P.
        """
        B, C, H, W = attended.shape
        stripes = attended.reshape(B, C, self.parts, H // self.parts * W)
        return stripes.mean(3, keepdim=True)

    def main_logits(self, pooled: Tensor) -> dict:
        """pooled: (B, C, m, 1) -> logits of the parts (with P) and of the main head `final`."""
        g = self.reduce(self.dropout(pooled))  # (B, 256, m, 1)
        logits = {}
        for k, head in enumerate(self.part):
            logits[f"part{k + 1}"] = head(g[:, :, k, 0])
        logits["final"] = self.final(g.mean(dim=(2, 3)))  # another GAP, over the parts
        return logits

    # ---- SA2: attention and pooling of a DS branch

    def pool_stage(self, f: Tensor, form: str | None = None) -> Tensor:
        """SA2 and the average pooling of a DS branch: (B, C, H, W) -> (B, C).

        form: an attention form to use instead of the model's own, for a comparison. It is applied
            without the recipe's temperature, standardised scores and norm.
        """
        if form is not None:
            return attended_pool(f, form) * self.pool_scale(form, f.shape[2] * f.shape[3])
        return attended_pool(f, **self._sa2()) * self.own_scale(f)

    def own_weights(self, f: Tensor) -> Tensor:
        """The weights p of this model's SA2: (B, C, H, W) -> (B, H, W)."""
        return attention_weights(f, **self._sa2())

    def _sa2(self) -> dict:
        """The arguments that make attended_pool and attention_weights this model's SA2."""
        if self.sa2_form == "none":
            return {"form": "none"}
        return {
            "form": self.sa2_form,
            "temperature": self.recipe.temperature,
            "standardise": self.recipe.standardise,
        }

    def pool_scale(self, form: str, positions: int) -> float:
        """The factor by which a recipe multiplies the weighted mean of a DS branch.

        positions: H * W of the map.
        """
        if form == "none":
            return positions if self.recipe.literal_sum else 1
        return 1 / positions if self.recipe.mean_after_sa else 1

    @torch.no_grad()
    def own_scale(self, f: Tensor):
        """The factor by which this model multiplies its weighted mean of a DS branch.

        Returns a number or, for norm_as_gap, (B, 1). Autograd takes the factor as a constant: the
        gradient that reaches the map is that of the weighted mean, multiplied by the factor.
        """
        scale = self.pool_scale(self.sa2_form, f.shape[2] * f.shape[3])
        if not self.recipe.norm_as_gap or self.sa2_form == "none":
            return scale
        norm = attended_pool(f, **self._sa2()).norm(dim=1, keepdim=True)  # (B, 1)
        gap = attended_pool(f, "none").norm(dim=1, keepdim=True)  # (B, 1)
        return scale * gap / norm.clamp(min=torch.finfo(norm.dtype).tiny)

    def branch_input(self, stage: int, f: Tensor, target: Tensor | None) -> Tensor:
        """The map that goes into a DS branch: (B, C, H, W) -> (B, C, H, W).

        The values are those of f. The recipe decides which gradient goes back from the branch.

        stage: number of the branch, from 0. target: (B,) class numbers, or None.
        """
        if self.recipe.detach:
            return f.detach()
        if not self.recipe.gradient_as_gap or target is None or not f.requires_grad:
            return f
        own_norm = self._gradient_norm(stage, f, target, None)
        gap_norm = self._gradient_norm(stage, f, target, "none")
        factor = gap_norm / own_norm.clamp(min=torch.finfo(torch.float32).tiny)
        return _ScaledGradient.apply(f, factor)

    def _gradient_norm(self, stage: int, f: Tensor, target: Tensor, form: str | None) -> Tensor:
        """Norm of the gradient that a branch's loss sends to its map; form: as in pool_stage."""
        leaf = f.detach().requires_grad_()
        logits = self.stages[stage](self.pool_stage(leaf, form))
        loss = nn.functional.cross_entropy(logits, target)
        (gradient,) = torch.autograd.grad(loss, leaf)
        return gradient.float().norm()

    # ---- retrieval and training

    @property
    def vectors(self) -> tuple:
        """The kinds of retrieval vectors that the variant has."""
        return ("global", "parts") if self.parts > 1 else ("global",)

    def embed(self, images: Tensor, kind: str = "global") -> Tensor:
        """Retrieval vectors, to be compared by Euclidean distance. No classifier is used.

        images: (B, 3, H, W), normalised.
        kind: "global", the pooled stage-4 map, (B, C); or "parts", six pooled parts, each
            L2-normalised, (B, 6C), only in variants with P.
        Raises InputError for a kind that the variant does not have.
        """
        known("retrieval vector", kind, self.vectors)
        return self.embed_all(images)[kind]

    def embed_all(self, images: Tensor) -> dict:
        """Every retrieval vector of the variant from one pass: {kind: (B, D)}."""
        stage4 = self.feature_maps(images)[3]
        parts = self.pool_parts(self.attend(stage4))  # (B, C, m, 1)
        vectors = {"global": parts.mean(dim=(2, 3))}
        if self.parts > 1:
            normalised = nn.functional.normalize(parts[..., 0], dim=1)  # (B, C, m)
            vectors["parts"] = normalised.transpose(1, 2).flatten(1)
        return vectors

    def parameter_groups(self, lr: float) -> list:
        """SGD groups: layers with loaded weights at lr / 10 (section 4), the others at lr.

        "factor" is the learning rate of a group divided by lr, for later changes of lr.
        """
        backbone = list(self.backbone.parameters())
        in_backbone = {id(p) for p in backbone}
        heads = [p for p in self.parameters() if id(p) not in in_backbone]
        backbone_factor = 0.1 if self.loaded else 1.0
        return [
            {"params": backbone, "lr": lr * backbone_factor, "factor": backbone_factor},
            {"params": heads, "lr": lr, "factor": 1.0},
        ]


def _as_recipe(recipe: str | Recipe) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    return RECIPES[known("recipe", recipe, RECIPES)]


def _classifier(channels: int, num_classes: int) -> nn.Linear:
    linear = nn.Linear(channels, num_classes)
    nn.init.normal_(linear.weight, std=0.001)
    nn.init.zeros_(linear.bias)
    return linear


def _branch_classifier(channels: int, num_classes: int, reduced: bool) -> nn.Module:
    """The classifier of a DS branch. If `reduced`, a 1x1 convolution to 256 channels is first."""
    if not reduced:
        return _classifier(channels, num_classes)
    classifier = _classifier(REDUCED, num_classes)
    # On a pooled map the 1x1 convolution is a linear layer.
    reduce = nn.Linear(channels, REDUCED, bias=False)
    return nn.Sequential(reduce, classifier)


class _ScaledGradient(torch.autograd.Function):
    """Forward returns f unchanged. Backward multiplies the gradient by a factor."""

    @staticmethod
    def forward(ctx, f: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return f.view_as(f)

    @staticmethod
    def backward(ctx, g: Tensor):
        (factor,) = ctx.saved_tensors
        return g * factor.to(g.dtype), None


def loss_weights(names, recipe: str | Recipe = "paper", lam: float | None = None) -> dict:
    """The weight of every loss: (1 - lam) sum l_p + lam sum l_s + lam l_F (section 3.1).

    Without P, l_F takes the place of the parts. Backbone alone: l_F with weight 1.

    names: the names of the logits.
    recipe: a key of RECIPES or a Recipe.
    lam: from 0 to 1; None takes the recipe's.
    Returns {name: weight}.
    Raises InputError for an unknown recipe, names that are not text or a lam out of range.
    """
    recipe = _as_recipe(recipe)
    names = list(names) if isinstance(names, Iterable) and not isinstance(names, str) else [names]
    if not all(isinstance(name, str) for name in names):
        raise InputError(f"names are {names!r:.50}; expected those of the logits: final, part1 ...")
    if lam is None:
        lam = recipe.lam
    check_number("lam", lam, 0, 1)
    if names == ["final"]:
        return {"final": 1.0}
    has_parts = any(name.startswith("part") for name in names)
    main = "part" if has_parts else "final"
    weights = {}
    for name in names:
        if recipe.equal_loss:
            weights[name] = 1.0
        elif name.startswith(main):
            weights[name] = 1 - lam
        else:
            weights[name] = lam
    scale = 1.0
    if recipe.total:
        scale = recipe.total / sum(weights.values())
    return {name: weight * scale for name, weight in weights.items()}


def reid_loss(
    logits: dict, target: Tensor, recipe: str | Recipe = "paper", lam: float | None = None
) -> Tensor:
    """L_total of section 3.1: the weighted sum of one cross-entropy per classifier.

    logits: {name: (B, num_classes)}; target: (B,) class numbers; recipe, lam: as in loss_weights.
    Returns a scalar.
    Raises InputError for an unknown recipe, or a target that is not one class number per image.
    """
    is_dict = isinstance(logits, dict) and len(logits) > 0
    if not is_dict or not all(torch.is_tensor(v) and v.dim() == 2 for v in logits.values()):
        raise InputError(
            f"logits are a {type(logits).__name__}; expected {{name: (B, num_classes)}}, as the "
            "network gives them"
        )
    images, classes = next(iter(logits.values())).shape
    target = class_numbers(target, images, classes)
    weights = loss_weights(logits, recipe, lam)
    total = 0
    for name, value in logits.items():
        total = total + weights[name] * nn.functional.cross_entropy(value, target.to(value.device))
    return total


def class_numbers(values, images: int, classes: int) -> Tensor:
    """Class numbers as (B,) int64, one per image.

    values: a list, an array or a tensor of any whole-number type.
    images: B. classes: how many classes there are.
    Raises InputError for anything else. The numbers of a tensor on a GPU are not checked, since
    the check would have to wait for the GPU.
    """
    on_gpu = torch.is_tensor(values) and values.is_cuda
    numbers = values if on_gpu else any_array(values)
    is_whole = "int" in type_name(numbers) or 0 in numbers.shape
    if is_whole and tuple(numbers.shape) == (images,):
        if on_gpu:
            return numbers.to(torch.int64)
        if not ((numbers < 0) | (numbers >= classes)).any():
            return torch.from_numpy(numbers.astype("int64"))
    raise InputError(
        f"classes are {type_name(numbers)} of shape {tuple(numbers.shape)}, "
        f"{numbers.tolist()!r:.50}; expected {images} whole numbers from 0 to {classes - 1}, one "
        "an image: class numbers, as np.unique(ids, return_inverse=True)[1] makes of identities"
    )
