"""What a backbone begins with.

Nothing, torchvision's ImageNet weights, a file of weights, or the checkpoint of a run. `convert`
makes a file of weights from one whose tensors have other names.
"""

import functools
import hashlib
import io
import re
from pathlib import Path
from urllib.parse import urlparse

import torch
import torchvision
from torch import nn

from . import InputError
from .support.files import write_atomic

# How far the statistics of photographs may lie from those that a batch norm holds, in the median
# over its channels: means in stored standard deviations, variances as the logarithm of their ratio.
# Found in the worst layer: photographs of people 0.35 and 2.1, rendered people 0.43 and 2.1. Two
# tensors of one shape exchanged, 80 times: 70 times more than one of these limits.
AGREE = (0.5, 3.0)


def read_weights(net: nn.Module, backbone: str, classifier: str, weights: str) -> dict | bool:
    """Fill a backbone.

    net: the network, whose tensors are replaced.
    backbone: its name. classifier: the name of its ImageNet classifier, which is left as it is.
    weights: "none", "imagenet" (torchvision's own download) or a file: a state_dict of the
        backbone, or a run's checkpoint.
    Returns where the weights come from, as records hold it: for a run's checkpoint that run's
    settings, else {"source": in words, "sha256": of the tensors}; False where nothing was loaded.
    Raises InputError for weights that cannot be had, a broken file, or weights of another network.
    """
    if weights == "none":
        return False
    if weights == "imagenet":
        state, origin = _imagenet(backbone)
    else:
        state, origin = _from_file(weights, backbone)

    own = net.state_dict()
    needed = [
        name
        for name in own
        if not name.startswith(f"{classifier}.") and not name.endswith("num_batches_tracked")
    ]
    fit = {}
    missing = []
    for name in needed:
        if name in state and state[name].shape == own[name].shape:
            fit[name] = state[name]
        else:
            missing.append(name)
    if missing:
        raise InputError(
            f"the weights {weights} do not fit {backbone}: {len(missing)} of {len(needed)} tensors "
            f"are missing or of another shape, first {missing[0]}; name weights of {backbone}"
        )
    # The counters of the batch norms are taken where they are there.
    counters = {
        name: value
        for name, value in state.items()
        if name in own and name.endswith("num_batches_tracked")
    }
    net.load_state_dict(fit | counters, strict=False)
    if "source" in origin:
        origin["sha256"] = content(fit)
    return origin


def _from_file(weights: str, backbone: str) -> tuple:
    """The backbone's tensors in a file, and where they come from: as read_weights returns it."""
    saved = read_file(weights)
    tensors = tensors_of(saved)
    run = saved.get("identity")  # the settings of a run, in its checkpoint
    if not run:
        return tensors, {"source": saved.get("source", f"the file {Path(weights).name}")}
    found = run.get("backbone")
    if found != backbone:
        raise InputError(
            f"{weights} is the checkpoint of a run with backbone {found}; found where weights of "
            f"{backbone} were expected: set backbone={found}, or name other weights"
        )
    return tensors, run


def _imagenet(backbone: str) -> tuple:
    """torchvision's ImageNet weights: their state_dict and {"source": in words}."""
    try:
        # V1: the weights that existed when the paper was written. torchvision's default is a recipe
        # of 2021.
        entry = torchvision.models.get_model_weights(backbone)["IMAGENET1K_V1"]
    except ValueError:
        raise InputError(
            f"there are no ImageNet weights for the {backbone} backbone; "
            "use weights=none, or backbone=resnet50"
        ) from None
    name = Path(urlparse(entry.url).path).name
    cached = Path(torch.hub.get_dir()) / "checkpoints" / name
    # torch compares the checksum of a download only, not of a file that is there already.
    if cached.exists():
        found = hashlib.sha256(cached.read_bytes()).hexdigest()
        expected = re.search(r"-([0-9a-f]{8,})\.", name)[1]
        if not found.startswith(expected):
            raise InputError(
                f"{cached} is not the file that torchvision published: its sha256 begins with "
                f"{found[: len(expected)]}, expected {expected}; delete it, and it is downloaded "
                "again"
            )
    try:
        state = entry.get_state_dict(progress=True, check_hash=True)
    # URLError is an OSError; a wrong checksum is a RuntimeError.
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"the ImageNet weights of {backbone} are not on this machine and could not be "
            f"downloaded ({error}); go online once, name a file of weights (for mobilenet_v2 "
            "`reidsa weights --help` says how), or use weights=none"
        ) from error
    return state, {"source": f"torchvision's {entry}"}


def read_file(path) -> dict:
    """What a file of weights holds. Pickled code is not run.

    Raises InputError for a missing or broken file.
    """
    if not Path(path).is_file():
        raise InputError(
            f"no weights at {path}; expected 'none', 'imagenet' or the path of a state_dict"
        )
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        tensors_of(saved)
        return saved
    except Exception as error:
        raise InputError(
            f"{path} is not a readable state_dict ({type(error).__name__}); "
            "name a file that torch.save wrote of state_dict()"
        ) from error


def tensors_of(saved: dict) -> dict:
    """The backbone's tensors in what a file holds.

    saved: a state_dict, a run's checkpoint ("model") or a named file of weights ("state_dict").
    Raises ValueError if there is none.
    """
    inner = saved.get("model", saved.get("state_dict", saved))
    tensors = {
        name.removeprefix("backbone."): value
        for name, value in inner.items()
        if isinstance(value, torch.Tensor)
    }
    if not tensors:
        raise ValueError("no tensors")
    return tensors


def content(tensors: dict) -> str:
    """sha256 over names, shapes and values of tensors, 16 hex digits.

    It is the same for every file that holds them.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()[:16]


def named(weights: str) -> str:
    """Weights as a run's settings name them: by their content.

    A path says little, and a file may change. "none" and "imagenet" stay as they are.
    Raises InputError for a broken file.
    """
    path = Path(weights)
    if not path.is_file():
        return weights
    return _named_by_content(str(path.resolve()), path.stat().st_mtime_ns, path.stat().st_size)


@functools.lru_cache(maxsize=32)
def _named_by_content(path: str, modified: int, size: int) -> str:
    """See named. Time and size are here for the cache: another file at the path is read again."""
    saved = read_file(path)
    if "identity" in saved:  # a run's checkpoint: the whole file
        return f"{Path(path).name} {hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]}"
    tensors = {
        name: value
        for name, value in tensors_of(saved).items()
        if not name.endswith("num_batches_tracked")
    }
    return f"state_dict {content(tensors)}"


def convert(
    source, target, net: nn.Module, classifier: str, images: torch.Tensor | None = None
) -> dict:
    """Write weights that a file holds in the order of `net` as its named state_dict.

    source, target: the files.
    net: a network to try them in. classifier: the name of its ImageNet classifier.
    images: (B, 3, H, W), photographs that the stored statistics are compared with.
    Returns statistics() of the images, or {} without images.
    Raises InputError for a broken file, tensors of another network, or statistics that do not
    agree: then nothing is written.
    """
    state = rename(tensors_of(read_file(source)), net, classifier)
    net.load_state_dict(state, strict=False)
    distances = {}
    if images is not None:
        distances = statistics(net, images)
    disagreeing = []
    for name, (means, variances) in distances.items():
        agrees = means < AGREE[0] and variances < AGREE[1]  # False for NaN, too
        if not agrees:
            disagreeing.append(name)
    if disagreeing:
        raise InputError(
            f"{source}: the statistics of {len(disagreeing)} of {len(distances)} batch norms are "
            f"not those that the images give, first {disagreeing[0]}; are its tensors in another "
            "order, or the images no photographs?"
        )
    buffer = io.BytesIO()
    origin = f"ImageNet ({Path(source).name}, renamed by order)"
    torch.save({"state_dict": state, "source": origin}, buffer)
    write_atomic(target, buffer.getvalue())
    return distances


def rename(tensors: dict, net: nn.Module, classifier: str) -> dict:
    """Tensors under foreign names, in the network's own order -> its state_dict.

    Raises InputError where the shapes or the last words of the names do not follow the network.
    """
    own = {
        name: value
        for name, value in net.state_dict().items()
        if not name.startswith(f"{classifier}.")
    }
    if len(tensors) < len(own):
        raise InputError(
            f"found {len(tensors)} tensors, and the network has {len(own)}; "
            "is this a file of another network?"
        )
    renamed = {}
    # What follows in the file is the classifier's.
    for (name, value), (foreign, found) in zip(own.items(), tensors.items(), strict=False):
        same_word = name.rsplit(".")[-1] == foreign.rsplit(".")[-1]
        if value.shape != found.shape or not same_word:
            raise InputError(
                f"in the place of {name}, {tuple(value.shape)}, stands {foreign}, "
                f"{tuple(found.shape)}; is this a file of another network?"
            )
        renamed[name] = found
    return renamed


def statistics(net: nn.Module, images: torch.Tensor) -> dict:
    """How far the statistics of images lie from those that each batch norm holds.

    A tensor in the place of another moves these numbers there and behind it.

    images: (B, 3, H, W), normalised as in training.
    Returns {name of the layer: (means, variances)}, in the units of AGREE.
    """
    distances = {}
    hooks = []
    for name, layer in net.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            hook = functools.partial(_note_distance, distances, name)
            hooks.append(layer.register_forward_pre_hook(hook))
    net.eval()
    with torch.no_grad():
        net(images)
    for hook in hooks:
        hook.remove()
    return distances


def _note_distance(distances: dict, name: str, layer: nn.BatchNorm2d, inputs: tuple) -> None:
    """Hook of a batch norm: writes into `distances` how far its input lies from its statistics."""
    x = inputs[0].double()  # (B, C, H, W)
    means = (x.mean((0, 2, 3)) - layer.running_mean).abs() / layer.running_var.sqrt()
    variances = (x.var((0, 2, 3)) / layer.running_var).clamp(min=1e-9).log().abs()
    distances[name] = (means.median().item(), variances.median().item())
