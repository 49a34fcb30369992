"""A batch on its way to the network: decoding, resizing, flips, erased rectangles."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from reidsa_utils.batches import augment, to_input
from reidsa_utils.data import load_benchmark, load_images, read_image


@pytest.mark.parametrize("size", [(192, 64), (384, 128), (300, 64)])
def test_enlarged_images_are_those_of_torchvision(small_benchmark, size):
    """PIL decodes and resizes, torchvision flips and normalises: the plain pipeline, against ours, pixel by pixel."""
    paths = load_benchmark("market1501", small_benchmark).train.paths[:20]
    plain = v2.Compose(
        [
            v2.Resize(size, InterpolationMode.BILINEAR),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    theirs = torch.stack([plain(Image.open(path).convert("RGB")) for path in paths])
    images = load_images(paths, *size)
    ours = to_input(images)
    levels = (ours - theirs).abs().amax((0, 2, 3)) * torch.tensor([0.229, 0.224, 0.225]) * 255
    assert (
        levels.max() <= 1.01 and (ours - theirs).abs().mean() < 0.005
    )  # one level of 255: rounding
    flipped = to_input(np.ascontiguousarray(images[:, :, ::-1]))
    assert torch.equal(flipped, ours.flip(3)) and not torch.equal(flipped, ours)


def test_shrunk_images_are_means_over_areas(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (400, 200, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    by_hand = image.reshape(100, 4, 50, 4, 3).mean((1, 3))
    assert np.abs(read_image(tmp_path / "a.png", 100, 50) - by_hand).max() <= 0.5 + 1e-6
    # one side shrinks, the other grows: the mean of two columns, then interpolated rows, nothing sharpened or skipped
    mixed = read_image(tmp_path / "a.png", 800, 100).astype(float)
    columns = image.reshape(400, 100, 2, 3).mean(2)
    assert (
        np.abs(mixed[1:-1].reshape(399, 2, 100, 3).mean(1) - (columns[:-1] + columns[1:]) / 2).max()
        <= 1.5
    )


def test_both_ways_to_augment_have_one_distribution():
    """Arrays one by one, tensors (on GPUs) all at once: the same luck gives the same flips and rectangles; noise is uniform."""
    images = np.random.default_rng(0).integers(0, 256, (300, 48, 24, 3), dtype=np.uint8)
    alike = images[:, ::-1].copy()  # no rectangle of noise and no flip leaves an image as it is
    torch.manual_seed(0)
    for flip, erasing in ((True, False), (False, False)):
        one = augment(alike.copy(), np.random.default_rng(5), flip, erasing)
        assert np.array_equal(
            augment(torch.from_numpy(alike), np.random.default_rng(5), flip, erasing), one
        )
    shares, noise = {}, {}
    for kind, batch in (("array", images.copy()), ("tensor", torch.from_numpy(images))):
        erased = np.asarray(augment(batch, np.random.default_rng(7), False, True, (0.1, 0.3)))
        changed = (erased != images).any(3)
        boxes = [(m.any(1).sum(), m.any(0).sum()) for m in changed if m.any()]
        shares[kind] = np.array(
            [
                h * w / m.size
                for (h, w), m in zip(boxes, (m for m in changed if m.any()), strict=True)
            ]
        )
        noise[kind] = erased[changed].astype(float)
    for kind in shares:
        assert 110 < len(shares[kind]) < 190  # p = 0.5 of 300
        assert 0.09 < shares[kind].min() and shares[kind].max() < 0.33  # up to rounding
        assert (
            abs(shares[kind].mean() - 0.2) < 0.012
            and abs(shares[kind].std() - 0.2 / 12**0.5) < 0.008
        )
        assert abs(noise[kind].mean() - 127.5) < 1.5 and abs(noise[kind].std() - 73.9) < 1
    assert np.array_equal(
        images, np.asarray(torch.from_numpy(images))
    )  # the tensor of all images is not changed


def test_the_first_rectangle_is_the_same_both_ways():
    images = np.random.default_rng(0).integers(0, 256, (1, 96, 32, 3), dtype=np.uint8)
    for seed in range(20):
        one, other = (
            np.asarray(augment(x, np.random.default_rng(seed)))
            for x in (images.copy(), torch.from_numpy(images))
        )
        same = [(m != images).any((0, 3)) for m in (one, other)]
        for axis in (0, 1):
            assert np.array_equal(same[0].any(axis), same[1].any(axis))


def test_inputs_whatever_the_default_type():
    """A notebook may have set float64 before it imports this module."""
    code = (
        "import torch; torch.set_default_dtype(torch.float64); import numpy as np; from reidsa_utils.batches import to_input; "
        "x = to_input(np.full((1, 2, 2, 3), 255, np.uint8)); print(x.dtype, *(round(x[0, c, 1, 1].item(), 4) for c in (0, 2)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["torch.float32", "2.2489", "2.64"], done.stdout + done.stderr


def test_augmentation():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (400, 24, 12, 3), dtype=np.uint8)
    flipped = augment(images.copy(), np.random.default_rng(1), erasing=False)
    same = (flipped == images).all((1, 2, 3))
    mirrored = (flipped == images[:, :, ::-1]).all((1, 2, 3))
    assert (same ^ mirrored).all() and 150 < mirrored.sum() < 250
    erased = augment(images.copy(), np.random.default_rng(2), flip=False, erase_area=(0.1, 0.3))
    changed = (erased != images).any(3)
    share = changed.mean((1, 2))
    assert 150 < (share > 0).sum() < 250
    for mask in changed[share > 0.02]:  # one rectangle, of the asked-for size (up to rounding)
        ys, xs = np.nonzero(mask)
        box = (np.ptp(ys) + 1) * (np.ptp(xs) + 1) / mask.size
        assert 0.06 < box < 0.36 and mask.sum() / mask.size > 0.9 * box
    assert (augment(images.copy(), rng, False, False) == images).all()
    x = to_input(images[:2])
    assert x.shape == (2, 3, 24, 12) and x.is_contiguous(memory_format=torch.channels_last)
    assert x[1, 2, 5, 7].item() == pytest.approx(
        (images[1, 5, 7, 2] / 255 - 0.406) / 0.225, abs=1e-5
    )
