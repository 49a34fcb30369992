"""The weights that a backbone starts from.

These are torchvision's ImageNet weights, a file of weights, the checkpoint of a run, or none (then
the weights are random). `convert` makes a file of weights from a file whose tensors have other
names.
"""

import argparse
import collections
import functools
import hashlib
import io
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from . import InputError
from .support.files import check_zip, write_atomic
from .support.kinds import what_is

# How far the statistics of photographs may lie from those that a batch norm holds. Both limits are
# for medians over channels: of the difference of the means, in stored standard deviations, and of
# the logarithm of the ratio of the variances. In the worst layer, photographs of people gave 0.35
# and 2.1, rendered people 0.43 and 2.1. When two tensors of one shape were exchanged, one of these
# limits was exceeded in 70 of 80 trials.
AGREE = (0.5, 3.0)

# Kinds of files that torch.load opens, as what_is names them; "" is an unknown kind.
PICKLED = ("a ZIP archive", "an old file of torch.save", "a pickle", "")

# Keys under which programs keep a network's state_dict in a checkpoint, in the order of search.
KEYS = (
    *("model", "state_dict", "model_state_dict", "model_state", "net", "network", "params"),
    *("weights", "module", "backbone", "encoder"),
)
# What programs write before the names of a backbone's tensors. The first line is from torch itself
# (several GPUs, compiling), the others are names of modules that hold a backbone. MoCo's encoder_k
# is left out on purpose: it is a different network from encoder_q.
PREFIXES = (
    *("module", "_orig_mod", "_fsdp_wrapped_module", "_forward_module"),
    *("backbone", "base", "model", "net", "network", "encoder", "encoder_q", "base_model"),
    *("resnet", "resnet18", "resnet50", "mobilenet", "mobilenet_v2"),
)
_WRAPPING = re.compile(rf"^(({'|'.join(PREFIXES)})\.)+")

# Types of other values in the checkpoints of other programs (a rank-1, arguments, the state of a
# random stream). Loading them runs no code. torch by itself allows fewer types.
_SCALAR = np.float64().__reduce__()[0]
_ARRAY = np.empty(0).__reduce__()[0]
_HARMLESS = [
    *(argparse.Namespace, collections.defaultdict, dict, list, np.dtype, np.ndarray),
    *{type(np.dtype(code)) for code in "?bhilqBHILQefdgFDGSU"},
    # NumPy 1 and 2 write them under different names.
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_ARRAY, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
]


def read_weights(net: nn.Module, backbone: str, classifier: str, weights: str) -> dict | bool:
    """Load weights into a backbone.

    net: the network, whose tensors are replaced.
    backbone: its name. classifier: the name of its ImageNet classifier, which is left as it is.
    weights: "none", "imagenet" (torchvision's own download) or a file: a state_dict of the
        backbone in any usual wrapping (see tensors_of), as torch.save or safetensors write it, or a
        run's checkpoint.
    Returns where the weights come from, as records hold it: for a run's checkpoint that run's
    settings, for other weights {"source": in words, "sha256": of the tensors}, and False if nothing
    was loaded.
    Raises InputError for weights that are not available, a broken file, or weights of another
    network.
    """
    if weights == "none":
        return False
    if weights == "imagenet":
        state, origin = _imagenet(backbone)
        rivals = {}
    else:
        state, rivals, origin = _from_file(weights, backbone)

    own = net.state_dict()
    needed = [
        name
        for name in own
        if not name.startswith(f"{classifier}.") and not name.endswith("num_batches_tracked")
    ]
    for name in needed:
        if name in rivals:
            raise InputError(
                f"the weights {weights} hold {len(rivals[name])} different tensors for {name} of "
                f"{backbone} ({', '.join(rivals[name])}), so they are of more than one network; "
                "save the one that is meant"
            )
    fit = {
        name: state[name]
        for name in needed
        if name in state and state[name].shape == own[name].shape
    }
    if len(fit) < len(needed):
        raise InputError(
            f"the weights {weights} do not fit {backbone}: "
            f"{_what_is_missing({name: own[name] for name in needed}, state)}"
        )
    # The counters of the batch norms are loaded if the file has them, each as a single number.
    counters = {
        name: state[name]
        for name in own
        if name.endswith("num_batches_tracked") and name in state and not state[name].shape
    }
    net.load_state_dict(fit | counters, strict=False)
    if "source" in origin:
        origin["sha256"] = content(fit)
    return origin


def _what_is_missing(own: dict, state: dict) -> str:
    """Say which of a network's own tensors a file lacks, what it has instead, and what to do."""
    absent = [name for name in own if name not in state or state[name].shape != own[name].shape]
    first = absent[0]
    said = (
        f"{len(absent)} of {len(own)} tensors are missing or of another shape, first {first} "
        f"{tuple(own[first].shape)}; "
    )
    behind = [name.removesuffix(first) for name in state if name.endswith(f".{first}")]
    for prefix in behind:
        if all(f"{prefix}{name}" in state for name in own):
            return (
                f"{said}they are there behind {prefix!r}, which is not a usual wrapping: if that "
                "is the network that is meant, save its tensors without it"
            )
    if first in state:
        said += f"found {tuple(state[first].shape)} there"
    else:
        names = ", ".join(list(state)[:3])
        said += f"found {len(state)} tensors named {names}, ..."
    return f"{said}; name weights of this backbone, under torchvision's names"


def _from_file(weights: str, backbone: str) -> tuple[dict, dict, dict]:
    """The backbone's tensors in a file, their rivals as _unwrap gives them, and their origin.

    The origin is what read_weights returns.
    """
    saved = read_file(weights)
    tensors, rivals = _unwrap(saved)
    run = _settings_of_run(saved)
    if not run:
        source = saved.get("source")
        if not isinstance(source, str):
            source = f"the file {Path(weights).name}"
        return tensors, rivals, {"source": source}
    found = run["backbone"]
    if found != backbone:
        raise InputError(
            f"{weights} is the checkpoint of a run with backbone {found}; found where weights of "
            f"{backbone} were expected: set backbone={found}, or name other weights"
        )
    return tensors, rivals, run


def _settings_of_run(saved: dict) -> dict | None:
    """The settings of the run whose checkpoint this is, None if it is another file."""
    run = saved.get("identity")
    return run if isinstance(run, dict) and "backbone" in run else None


def _imagenet(backbone: str) -> tuple:
    """torchvision's ImageNet weights: their state_dict and {"source": in words}."""
    import torchvision

    try:
        # V1: the weights that existed when the paper was written. torchvision's default weights
        # come from a training recipe of 2021.
        entry = torchvision.models.get_model_weights(backbone)["IMAGENET1K_V1"]
    except ValueError:
        raise InputError(
            f"there are no ImageNet weights for the {backbone} backbone; "
            "use weights=none, or backbone=resnet50"
        ) from None
    name = Path(urlparse(entry.url).path).name
    cached = Path(torch.hub.get_dir()) / "checkpoints" / name
    # torch compares the checksum of a new download only, not of a file that is there already.
    if cached.exists():
        found = hashlib.sha256(cached.read_bytes()).hexdigest()
        expected = re.search(r"-([0-9a-f]{8,})\.", name)[1]
        if not found.startswith(expected):
            kind = what_is(cached.read_bytes())
            if kind in PICKLED:
                kind = "cut short or damaged"
            raise InputError(
                f"{cached} is not the file that torchvision published (it is {kind}, "
                f"{cached.stat().st_size:,} bytes): its sha256 begins with "
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
    """Read a file of weights that torch.save (new or old format) or safetensors has written.

    The first bytes decide which of them it is, not the file's name. Pickled code is not run.
    Returns the content of the file.
    Raises InputError for a missing or broken file, one without a state_dict, or one that would run
    code.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not there"
        raise InputError(
            f"no weights at {path}, which {what}; expected 'none', 'imagenet' or the path of a "
            "state_dict"
        )
    try:
        with open(path, "rb") as file:
            kind = what_is(file.read(512))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); name a file that can"
        ) from error
    try:
        saved = _load(path, kind)
        _unwrap(saved)
    except Exception as error:  # torch raises a different one for each kind of damage
        raise InputError(
            f"{path} is not a readable state_dict: {_why_unreadable(path, kind, error)}"
        ) from error
    return saved


def _load(path: Path, kind: str):
    if kind == "a safetensors file":
        from safetensors.torch import load_file

        return load_file(path)
    if kind == "a ZIP archive":
        check_zip(path)
    with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # for files of another kind torch also raises
        return torch.load(path, map_location="cpu", weights_only=True)


def _why_unreadable(path: Path, kind: str, error: Exception) -> str:
    """Say why a file is not a file of weights, and what to do."""
    size = f"{path.stat().st_size:,} bytes"
    code = re.search(r"(?:GLOBAL|class) ([\w.]+)", str(error))
    if isinstance(error, _NoStateDict):
        return f"{error}; save the network's state_dict() by torch.save"
    if "TorchScript" in str(error):
        return "it is a TorchScript archive; load it by torch.jit.load and save its state_dict()"
    if kind in PICKLED and code:
        return (
            f"it holds {code[1]}, and opening it would run that as code, so it was not opened; if "
            "you trust it, save the tensors alone: torch.save(model.state_dict(), FILE)"
        )
    is_broken = isinstance(error, zipfile.BadZipFile | SafetensorError)
    if is_broken or kind == "an old file of torch.save":
        return f"it is cut short or damaged ({size}); delete it and fetch it again"
    if kind in ("a pickle", "a ZIP archive"):
        return (
            f"it is {kind} that is cut short or was not written by torch.save ({size}), and it was "
            "not opened; fetch it again, or save the tensors by torch.save(state_dict, FILE)"
        )
    if kind.endswith("archive"):
        return f"it is {kind} ({size}); unpack it, and name the file in it"
    if kind:
        return f"it is {kind} ({size}); delete it and fetch the weights themselves"
    return f"it is cut short, damaged or no file of weights ({size}); delete it and fetch it again"


class _NoStateDict(ValueError):
    """A file holds no state_dict, or more than one. The message says what it holds."""


def tensors_of(saved: Mapping) -> dict[str, Tensor]:
    """The tensors of the network that a file holds, under names without PREFIXES.

    saved: the content of the file. It is a state_dict, or a checkpoint that holds one under one of
        KEYS. Another key is accepted if there is only one state_dict. PREFIXES are removed from the
        names in any order.
    Returns {name: tensor}.
    Raises ValueError if there is no state_dict, or if there are several, under other keys.
    """
    return _unwrap(saved)[0]


def _unwrap(saved: Mapping) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """What tensors_of returns, and {name: names as in the file} of rivals.

    Rivals are different tensors that would share a name without PREFIXES. They keep the names that
    they have in the file.
    """
    state = _find_state_dict(saved)
    if state is None:
        what = "no tensors with names"
        if not isinstance(saved, Mapping):
            what = f"one {type(saved).__name__}"
        raise _NoStateDict(f"it holds {what}")
    same = {}  # {name without wrapping: {name as in the file: tensor}}
    for name, value in state.items():
        if isinstance(name, str) and _is_plain(value):
            # _orig_mod can stand inside a name, too: a part of a network can be compiled by itself.
            bare = _WRAPPING.sub("", name).replace("_orig_mod.", "")
            same.setdefault(bare, {})[name] = value
    tensors = {}
    rivals = {}
    for bare, found in same.items():
        first, *others = found.values()
        if all(content({bare: other}) == content({bare: first}) for other in others):
            tensors[bare] = first
        else:
            tensors |= found
            rivals[bare] = list(found)
    return tensors, rivals


def _find_state_dict(saved, depth: int = 4) -> Mapping | None:
    """The state_dict in what a file holds: a mapping of tensors whose names have dots."""
    if not isinstance(saved, Mapping) or depth == 0:
        return None
    inside = {}  # {key: state_dict}
    for key, value in saved.items():
        state = _find_state_dict(value, depth - 1)
        if state is not None:
            inside[key] = state
    for key in KEYS:
        if key in inside:
            return inside[key]
    if any(_is_plain(value) and "." in str(name) for name, value in saved.items()):
        return saved
    if len(inside) > 1:
        raise _NoStateDict(f"it holds several networks ({', '.join(map(str, inside))})")
    return next(iter(inside.values()), None)


def _is_plain(value) -> bool:
    """Whether a value is a dense tensor on the CPU that is not quantized."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not value.is_quantized
        and value.device.type == "cpu"
    )


def content(tensors: dict) -> str:
    """sha256 over names, shapes and values of tensors, 16 hex digits.

    It does not depend on the file that holds them.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        # By bytes, since NumPy has no bfloat16.
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def named(weights: str) -> str:
    """The name of weights in a run's settings, which is made from their content.

    A path would not identify them, since a file may change. "none" and "imagenet" stay as they are.
    Raises InputError for a broken file.
    """
    path = Path(weights)
    if not path.is_file():
        return weights
    return _named_by_content(str(path.resolve()), path.stat().st_mtime_ns, path.stat().st_size)


@functools.lru_cache(maxsize=32)
def _named_by_content(path: str, modified: int, size: int) -> str:
    """See named. With `modified` and `size` in the cache's key, a changed file is read again."""
    saved = read_file(path)
    if _settings_of_run(saved):  # a run's checkpoint: the whole file
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
    """Write the tensors of a file, which are in the order of `net`, under the names of `net`.

    source, target: the files.
    net: the network; the tensors are loaded into it. classifier: the name of its ImageNet
        classifier.
    images: (B, 3, H, W), photographs that the stored statistics are compared with.
    Returns statistics() of the images, or {} without images.
    Raises InputError for a broken file, tensors of another network, or statistics that do not
    agree. Then nothing is written.
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
    """Give tensors, which are in the network's own order, the network's names.

    tensors: {foreign name: tensor}.
    Returns the state_dict, {name: tensor}.
    Raises InputError for too few tensors, or if a shape or the last word of a name does not fit the
    network.
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
    # Further tensors in the file belong to the classifier.
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

    If a tensor is in the wrong place, these numbers grow in that layer and in later ones.

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
