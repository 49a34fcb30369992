"""Images as arrays -> augmented batch -> input of the network. (Apart from data.py, since what renders needs no torch.)"""

import math

import numpy as np
import torch

from .support.opencv import cv2

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet, RGB
TABLE = (torch.arange(256).float()[:, None] / 255 - torch.tensor(MEAN).float()) / torch.tensor(
    STD
).float()  # (256, 3): what x becomes


def erasing_boxes(rng: np.random.Generator, B: int, H: int, W: int, area: tuple = (0.02, 0.4)):
    """Random erasing (reference [39], p = 0.5, share of the image within `area`): (image, top, left, height, width) of each box."""
    for k in range(B):
        if rng.random() >= 0.5:
            continue
        for _ in range(100):
            size, aspect = (
                rng.uniform(*area) * H * W,
                math.exp(rng.uniform(math.log(0.3), -math.log(0.3))),
            )  # height by width
            h, w = round(math.sqrt(size * aspect)), round(math.sqrt(size / aspect))
            if 0 < h < H and 0 < w < W:
                yield k, rng.integers(H - h + 1), rng.integers(W - w + 1), h, w
                break


def augment(
    images,
    rng: np.random.Generator,
    flip: bool = True,
    erasing: bool = True,
    erase_area: tuple = (0.02, 0.4),
):
    """Random flip and random erasing (p = 0.5 each) on a batch (B, H, W, 3) uint8, every image with its own luck.

    An array is changed in place. A tensor, on a GPU, is not: all its images at once, the noise drawn there.
    """
    B, H, W, _ = images.shape
    chosen = rng.random(B) < 0.5 if flip else np.zeros(B, bool)
    if isinstance(images, np.ndarray):
        for k in np.flatnonzero(chosen):
            images[k] = cv2.flip(images[k], 1)
        for k, y, x, h, w in erasing_boxes(rng, B, H, W, erase_area) if erasing else ():
            images[k, y : y + h, x : x + w] = rng.integers(0, 256, (h, w, 3), np.uint8)
        return images
    images = torch.where(
        torch.from_numpy(chosen).to(images.device)[:, None, None, None], images.flip(2), images
    )
    if erasing and (boxes := list(erasing_boxes(rng, B, H, W, erase_area))):
        k, y, x, h, w = torch.tensor(boxes, device=images.device).T[..., None]
        rows, columns = torch.arange(H, device=images.device), torch.arange(W, device=images.device)
        inside = ((rows >= y) & (rows < y + h))[:, :, None] & ((columns >= x) & (columns < x + w))[
            :, None
        ]  # (boxes, H, W)
        noise = torch.randint(
            0, 256, (len(boxes), H, W, 3), dtype=torch.uint8, device=images.device
        )
        images[k[:, 0]] = torch.where(inside[..., None], noise, images[k[:, 0]])
    return images


def to_input(images, device="cpu") -> torch.Tensor:
    """(B, H, W, 3) uint8 RGB -> (B, 3, H, W) float32, normalised with ImageNet's mean and deviation, channels last."""
    if isinstance(images, np.ndarray):
        x = np.empty(images.shape, np.float32)
        for image, out in zip(images, x, strict=True):
            cv2.LUT(image, TABLE.numpy()[None], out)  # one pass
        return torch.from_numpy(x).permute(0, 3, 1, 2).to(device)
    mean, std = (torch.tensor(v, device=device).float() for v in (MEAN, STD))
    return ((images.to(device).float() / 255 - mean) / std).permute(0, 3, 1, 2)
