"""What a backbone begins with: nothing, torchvision's ImageNet weights, a file of weights, or the checkpoint of a run."""

import hashlib
import io
import re
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlparse

import torch
import torchvision
from torch import nn

from . import InputError
from .support.files import write_atomic

# How far the statistics of photographs may lie from those that a batch norm holds, in the median over its channels: means in
# stored standard deviations, variances as the logarithm of their ratio. Found in the worst layer: photographs of people
# 0.35 and 2.1, rendered people 0.43 and 2.1; two tensors of one shape exchanged, 80 times: 70 times more than one of these.
AGREE = (0.5, 3.0)


def read_weights(net: nn.Module, backbone: str, classifier: str, weights: str):
    """Fill a backbone. classifier: the name of its ImageNet classifier, which is left as it is.

    weights: "none", "imagenet" (torchvision's own download) or a file: a state_dict of the backbone, or a run's checkpoint.
    Returns False for "none"; of a run's checkpoint that run's settings; else {"source": in words, "sha256": of the tensors}.
    Raises InputError for weights that cannot be had, a broken file, or weights of another network.
    """
    if weights == "none":
        return False
    if weights == "imagenet":
        state, loaded = _imagenet(backbone)
    else:
        there = read_file(weights)
        run = there.get("identity")
        if run and run.get("backbone") != backbone:
            raise InputError(
                f"{weights} is the checkpoint of a run with backbone {run.get('backbone')}; found where weights of "
                f"{backbone} were expected: set backbone={run.get('backbone')}, or name other weights"
            )
        state = tensors_of(there)
        loaded = run or {"source": there.get("source", f"the file {Path(weights).name}")}
    own = net.state_dict()
    needed = [
        name
        for name in own
        if not name.startswith(f"{classifier}.") and not name.endswith("num_batches_tracked")
    ]
    fit = {
        name: state[name]
        for name in needed
        if name in state and state[name].shape == own[name].shape
    }
    missing = [name for name in needed if name not in fit]
    if missing:
        raise InputError(
            f"the weights {weights} do not fit {backbone}: {len(missing)} of {len(needed)} tensors are missing or of another "
            f"shape, first {missing[0]}; name weights of {backbone}"
        )
    counters = {
        name: value
        for name, value in state.items()
        if name in own and name.endswith("num_batches_tracked")
    }
    net.load_state_dict(fit | counters, strict=False)
    if "source" in loaded:
        loaded["sha256"] = content(fit)
    return loaded


def content(tensors: dict) -> str:
    """sha256 over names, shapes and values of tensors, 16 hex digits: the same for every file that holds them."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()[:16]


def read_file(path) -> dict:
    """What a file of weights holds. Pickled code is not run. Raises InputError for a missing or broken file."""
    if not Path(path).is_file():
        raise InputError(
            f"no weights at {path}; expected 'none', 'imagenet' or the path of a state_dict"
        )
    try:
        there = torch.load(path, map_location="cpu", weights_only=True)
        tensors_of(there)
        return there
    except Exception as error:
        raise InputError(
            f"{path} is not a readable state_dict ({type(error).__name__}); name a file that torch.save wrote of "
            "state_dict()"
        ) from error


def tensors_of(there: dict) -> dict:
    """The backbone's tensors in a state_dict, a run's checkpoint ("model") or a named file of weights ("state_dict")."""
    inner = there.get("model", there.get("state_dict", there))
    tensors = {
        name.removeprefix("backbone."): value
        for name, value in inner.items()
        if isinstance(value, torch.Tensor)
    }
    if not tensors:
        raise ValueError("no tensors")
    return tensors


def named(weights: str) -> str:
    """Weights as a run's settings name them, by their content: a path says little, and a file may change."""
    path = Path(weights)
    if not path.is_file():
        return weights
    return _named(str(path.resolve()), path.stat().st_mtime_ns, path.stat().st_size)


@lru_cache(maxsize=32)
def _named(path: str, *_) -> str:
    there = read_file(path)
    if "identity" in there:  # a run's checkpoint: the whole file
        return f"{Path(path).name} {hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]}"
    tensors = {
        name: value
        for name, value in tensors_of(there).items()
        if not name.endswith("num_batches_tracked")
    }
    return f"state_dict {content(tensors)}"


def _imagenet(backbone: str) -> tuple:
    """(state_dict, {"source": in words}) of torchvision's ImageNet weights."""
    try:
        # V1: the weights that existed when the paper was written; torchvision's default is a recipe of 2021
        entry = torchvision.models.get_model_weights(backbone)["IMAGENET1K_V1"]
    except ValueError:
        raise InputError(
            f"there are no ImageNet weights for the {backbone} backbone; use weights=none, or backbone=resnet50"
        ) from None
    name = Path(urlparse(entry.url).path).name
    cached = Path(torch.hub.get_dir()) / "checkpoints" / name
    if cached.exists():  # torch compares the checksum of a download only
        found, expected = (
            hashlib.sha256(cached.read_bytes()).hexdigest(),
            re.search(r"-([0-9a-f]{8,})\.", name)[1],
        )
        if not found.startswith(expected):
            raise InputError(
                f"{cached} is not the file that torchvision published: its sha256 begins with {found[: len(expected)]}, "
                f"expected {expected}; delete it, and it is downloaded again"
            )
    try:
        state = entry.get_state_dict(progress=True, check_hash=True)
    except (
        OSError,
        RuntimeError,
    ) as error:  # URLError is an OSError; a wrong checksum a RuntimeError
        raise InputError(
            f"the ImageNet weights of {backbone} are not on this machine and could not be downloaded ({error}); go online "
            "once, name a file of weights (for mobilenet_v2 `reidsa weights --help` says how), or use "
            "weights=none"
        ) from error
    return state, {"source": f"torchvision's {entry}"}


def rename(there: dict, net: nn.Module, classifier: str) -> dict:
    """Tensors under foreign names, in the network's own order -> its state_dict. Raises InputError where shapes do not follow."""
    own = {
        name: value
        for name, value in net.state_dict().items()
        if not name.startswith(f"{classifier}.")
    }
    if len(there) < len(own):
        raise InputError(
            f"found {len(there)} tensors, and the network has {len(own)}; is this a file of another network?"
        )
    out = {}
    for (name, value), (foreign, found) in zip(own.items(), there.items(), strict=False):
        if value.shape != found.shape or name.rsplit(".")[-1] != foreign.rsplit(".")[-1]:
            raise InputError(
                f"in the place of {name}, {tuple(value.shape)}, stands {foreign}, {tuple(found.shape)}; is this a file of "
                "another network?"
            )
        out[name] = found
    return out


def statistics(net: nn.Module, images: torch.Tensor) -> dict:
    """How far the statistics of images lie from those that each batch norm holds: {name: (means, variances)}, see AGREE.

    images: (B, 3, H, W), normalised as in training. A tensor in the place of another moves these numbers there and behind it.
    """
    found, hooks = {}, []

    def compare(name, layer):
        def hook(_, inputs):
            x = inputs[0].double()
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
            means = (mean - layer.running_mean).abs() / layer.running_var.sqrt()
            variances = (variance / layer.running_var).clamp(min=1e-9).log().abs()
            found[name] = means.median().item(), variances.median().item()

        return hook

    for name, layer in net.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            hooks.append(layer.register_forward_pre_hook(compare(name, layer)))
    net.eval()
    with torch.no_grad():
        net(images)
    for hook in hooks:
        hook.remove()
    return found


def convert(
    source, target, net: nn.Module, classifier: str, images: torch.Tensor | None = None
) -> dict:
    """Write weights that a file holds in the order of `net` as its named state_dict. Returns statistics() of the images, if any.

    Raises InputError for a broken file, tensors of another network, or statistics that do not agree: then nothing is written.
    """
    there = read_file(source)
    state = rename(tensors_of(there), net, classifier)
    net.load_state_dict(state, strict=False)
    agree = statistics(net, images) if images is not None else {}
    bad = [
        name
        for name, (means, variances) in agree.items()
        if not (means < AGREE[0] and variances < AGREE[1])
    ]
    if bad:
        raise InputError(
            f"{source}: the statistics of {len(bad)} of {len(agree)} batch norms are not those that the images give, first "
            f"{bad[0]}; are its tensors in another order, or the images no photographs?"
        )
    buffer = io.BytesIO()
    torch.save(
        {"state_dict": state, "source": f"ImageNet ({Path(source).name}, renamed by order)"}, buffer
    )
    write_atomic(target, buffer.getvalue())
    return agree
