"""Images as arrays -> augmented batch -> input of the network.

This module is separate from data.py, because the renderer imports data.py and needs no torch.
"""

import math

import numpy as np
import torch

from . import InputError
from .support.arrays import as_array, check_tensor, type_name
from .support.opencv import cv2

# Mean and standard deviation of ImageNet, RGB
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# The input value for each of the 256 values of a channel: (256, 3).
_VALUES = torch.arange(256).float()[:, None] / 255
TABLE = (_VALUES - torch.tensor(MEAN).float()) / torch.tensor(STD).float()


def as_images(images):
    """Images as (B, H, W, 3) uint8: an array, or a tensor on its device.

    images: an array, a tensor or a list, of any whole-number type.
    Raises InputError for other shapes and types, and numbers that are not from 0 to 255.
    """
    if torch.is_tensor(images):
        check_tensor(images)
    else:
        images = as_array(images)
    kind = type_name(images)
    if images.ndim == 4 and images.shape[3] == 3 and "int" in kind:
        if kind == "uint8":
            return images
        if torch.is_tensor(images):
            wide = images.long()
            narrow = wide.to(torch.uint8)
        else:
            wide = images.astype(np.int64)
            narrow = images.astype(np.uint8)
        if (narrow == wide).all():
            return narrow
    raise InputError(
        f"images are {kind} of shape {tuple(images.shape)}; expected (B, H, W, 3) RGB, whole "
        "numbers from 0 to 255, as load_images reads them"
    )


def augment(
    images,
    rng: np.random.Generator,
    flip: bool = True,
    erasing: bool = True,
    erase_area: tuple = (0.02, 0.4),
):
    """Random flip and random erasing (p = 0.5 each), drawn anew for every image of a batch.

    images: (B, H, W, 3), as as_images takes them. A writable array of uint8 is changed in place.
        A tensor, usually on a GPU, is not changed: its images are augmented together, and its own
        device draws the noise.
    rng: draws flips and rectangles, and for an array also the noise.
    flip, erasing: whether to do it.
    erase_area: smallest and largest share of the image that a rectangle covers.
    Returns the batch, (B, H, W, 3) uint8.
    Raises InputError as as_images does, if rng is not a generator, or for a wrong erase_area.
    """
    if not isinstance(rng, np.random.Generator):
        raise InputError(f"rng is {rng!r}; expected a generator, np.random.default_rng(seed)")
    area = as_array(erase_area, float)
    if area.shape != (2,) or not 0 < area[0] <= area[1] <= 1:
        raise InputError(
            f"erase_area is {erase_area!r}; expected the smallest and the largest share of an image"
        )
    images = as_images(images)
    B = len(images)
    flipped = rng.random(B) < 0.5 if flip else np.zeros(B, bool)
    if isinstance(images, np.ndarray):
        if not images.flags.writeable:
            images = images.copy()
        return _augment_array(images, rng, flipped, erasing, erase_area)
    return _augment_tensor(images, rng, flipped, erasing, erase_area)


def _augment_array(images: np.ndarray, rng, flipped, erasing: bool, erase_area: tuple):
    B, H, W, _ = images.shape
    for k in np.flatnonzero(flipped):
        images[k] = cv2.flip(images[k], 1)
    if erasing:
        # Both draw from rng in turn: the noise of a rectangle comes before the next rectangle.
        for k, y, x, h, w in erasing_boxes(rng, B, H, W, erase_area):
            images[k, y : y + h, x : x + w] = rng.integers(0, 256, (h, w, 3), np.uint8)
    return images


def _augment_tensor(images: torch.Tensor, rng, flipped, erasing: bool, erase_area: tuple):
    B, H, W, _ = images.shape
    device = images.device
    flipped = torch.from_numpy(flipped).to(device)[:, None, None, None]  # (B, 1, 1, 1)
    images = torch.where(flipped, images.flip(2), images)
    if not erasing:
        return images
    boxes = list(erasing_boxes(rng, B, H, W, erase_area))
    if not boxes:
        return images
    k, y, x, h, w = torch.tensor(boxes, device=device).T[..., None]  # (boxes, 1) each
    rows = torch.arange(H, device=device)
    columns = torch.arange(W, device=device)
    inside_rows = (rows >= y) & (rows < y + h)  # (boxes, H)
    inside_columns = (columns >= x) & (columns < x + w)  # (boxes, W)
    inside = inside_rows[:, :, None] & inside_columns[:, None]  # (boxes, H, W)
    noise = torch.randint(0, 256, (len(boxes), H, W, 3), dtype=torch.uint8, device=device)
    erased = k[:, 0]  # (boxes,) images
    images[erased] = torch.where(inside[..., None], noise, images[erased])
    return images


def erasing_boxes(rng: np.random.Generator, B: int, H: int, W: int, area: tuple = (0.02, 0.4)):
    """The rectangles of random erasing (reference [39], p = 0.5) for a batch of B images.

    area: smallest and largest share of the image.
    Yields (image, top, left, height, width) of each rectangle.
    """
    for k in range(B):
        if rng.random() >= 0.5:
            continue
        for _ in range(100):  # draws until one fits
            size = rng.uniform(*area) * H * W
            aspect = math.exp(rng.uniform(math.log(0.3), -math.log(0.3)))  # height by width
            h = round(math.sqrt(size * aspect))
            w = round(math.sqrt(size / aspect))
            if 0 < h < H and 0 < w < W:
                top = rng.integers(H - h + 1)
                left = rng.integers(W - w + 1)
                yield k, top, left, h, w
                break


def to_input(images, device="cpu") -> torch.Tensor:
    """Images as the network takes them, normalised with ImageNet's mean and standard deviation.

    images: (B, H, W, 3) RGB, as as_images takes them.
    Returns (B, 3, H, W) float32 on the device, channels last in memory.
    Raises InputError as as_images does.
    """
    images = as_images(images)
    if isinstance(images, np.ndarray):
        x = np.empty(images.shape, np.float32)
        table = TABLE.numpy()[None]
        for image, out in zip(images, x, strict=True):
            cv2.LUT(image, table, out)  # scales and normalises in one pass
        return torch.from_numpy(x).permute(0, 3, 1, 2).to(device)
    mean = torch.tensor(MEAN, device=device).float()
    std = torch.tensor(STD, device=device).float()
    return ((images.to(device).float() / 255 - mean) / std).permute(0, 3, 1, 2)
