"""The pictures on the page: queries, listed gallery images, part masks."""

from pathlib import Path

import numpy as np

from ...data import decode, resize
from ...datasets.rendered import PARTS
from ...support.opencv import cv2
from .lists import People

HIGHEST = 256  # pixels of a picture on the page
# Colours of the part masks, RGB, in the order of PARTS; the background has none.
COLOURS = (
    *((0, 0, 0), (254, 217, 166), (120, 70, 30), (230, 159, 0), (0, 114, 178), (240, 228, 66)),
    *((255, 255, 255), (86, 180, 233), (0, 60, 110), (0, 158, 115), (60, 60, 60)),
    *((204, 121, 167), (213, 94, 0), (150, 30, 30), (140, 60, 220)),
)


class Pictures:
    """The pictures of a page, each written once."""

    def __init__(self, folder: Path, people: People):
        self.folder, self.people = folder, people
        self.gallery = {}  # {number of a listed image: its picture}
        self.masks = {}  # {name of a mask's picture: what mask() returns}

    def query(self, number: int) -> str:
        """Write the picture of a query; returns its name."""
        return self._write(f"q{number:05d}.webp", thumbnail(self.people.query.paths[number]))

    def list(self, numbers: list[int]) -> None:
        """Write the pictures of the gallery images that a list shows."""
        for number in numbers:
            if number not in self.gallery:
                picture = thumbnail(self.people.gallery.paths[number])
                self.gallery[number] = self._write(f"g{number:05d}.webp", picture)

    def without(self, number: int, part: str, image: np.ndarray) -> str:
        """Write the picture of a query without a part; image: (H, W, 3) uint8 RGB."""
        return self._write(f"q{number:05d}-without-{part}.webp", encoded(image[..., ::-1]))

    def mask(self, kind: str, number: int) -> dict | None:
        """Write the part mask of an image of the "query" or "gallery" split, if it has one.

        Returns its file, and [part, share of the picture] of each part.
        """
        name = f"{kind[0]}{number:05d}-parts.png"
        if name not in self.masks:
            mask = part_mask(getattr(self.people, kind).paths[number])
            if mask is None:
                return None
            shares = np.bincount(mask.ravel(), minlength=len(PARTS)) / mask.size
            visible = []
            for k, part in enumerate(PARTS):
                if k and shares[k]:
                    visible.append([part, round(float(shares[k]), 3)])
            self.masks[name] = {"file": self._write(name, _coloured(mask)), "parts": visible}
        return self.masks[name]

    def _write(self, name: str, content: bytes) -> str:
        (self.folder / "images" / name).write_bytes(content)
        return f"images/{name}"


def thumbnail(path) -> bytes:
    """An image as a small file for the page. Raises InputError for a missing or broken one."""
    image = decode(path)
    height, width = image.shape[:2]
    if height > HIGHEST:
        image = resize(image, HIGHEST, max(1, round(width * HIGHEST / height)))
    return encoded(image)


def encoded(bgr: np.ndarray) -> bytes:
    """A picture (H, W, 3) uint8 as WebP, which takes half the bytes of a JPEG of that size."""
    return cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, 85])[1].tobytes()


def _coloured(mask: np.ndarray) -> bytes:
    """A part mask as a PNG in COLOURS, transparent in the background."""
    colours = np.array(COLOURS, np.uint8)[mask][..., ::-1]
    alpha = np.where(mask > 0, 255, 0).astype(np.uint8)
    picture = np.dstack([colours, alpha])
    return cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()


def part_mask(path) -> np.ndarray | None:
    """The part mask of a rendered image, (H, W) uint8; None where there is none."""
    path = Path(path)
    file = path.parent.parent / "part_masks" / path.parent.name / f"{path.stem}.png"
    return cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) if file.exists() else None
