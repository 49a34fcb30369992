"""Draws what surrounds a pedestrian: street, occluder, and what the camera does to colours.

A camera is a plain dict, made from a random stream that the caller gives (see rendered.py).
"""

import numpy as np

from ..support.opencv import cv2
from .pedestrians import LABEL, draw_person

# Degrees from the front: the side from which the cameras 1, 2, ... see people.
VIEWS = (0, 180, 75, 10, 190, -75, 35, 215)


def make_camera(rng: np.random.Generator, number: int, shift: float) -> dict:
    """Make a camera, a plain dict: its view, tilt, light, colours, sharpness and street.

    number: from 1; it sets the side from which the camera sees people. shift: strength of what
    changes colours and sharpness.
    """
    return {
        "view": np.deg2rad(VIEWS[(number - 1) % len(VIEWS)]),
        "tilt": np.deg2rad(rng.uniform(2, 14)),
        "light": np.array([rng.uniform(-0.8, 0.8), rng.uniform(0.3, 0.9), 0.7], np.float32),
        "gain": (1 + shift * rng.normal(0, 0.12, 3)).astype(np.float32),
        "gamma": float(np.exp(shift * rng.normal(0, 0.28))),
        "saturation": float(np.clip(1 + shift * rng.normal(-0.12, 0.2), 0.35, 1.4)),
        "blur": float(shift * rng.uniform(0.2, 0.9)),
        "noise": float(shift * rng.uniform(0.008, 0.03)),
        "scene": make_scene(rng),
    }


def make_scene(rng: np.random.Generator) -> np.ndarray:
    """Draw a street as one camera sees it: (256, 640, 3) float32 RGB in [0, 1]."""
    height, width = 256, 640
    scene = np.empty((height, width, 3), np.float32)
    wall = rng.uniform(0.25, 0.75, 3)
    ground = rng.uniform(0.3, 0.62) + rng.normal(0, 0.04, 3)
    horizon = int(rng.uniform(0.42, 0.62) * height)
    scene[:horizon] = wall * np.linspace(1.1, 0.85, horizon)[:, None, None]
    scene[horizon:] = ground * np.linspace(0.8, 1.1, height - horizon)[:, None, None]
    _draw_openings(scene, horizon, wall, rng)
    _draw_pavement(scene, horizon, ground)
    for _ in range(int(rng.integers(4, 9))):
        x = int(rng.integers(width))
        car_color = rng.uniform(0.1, 0.8, 3)
        if rng.random() < 0.5:
            _draw_bush(scene, x, horizon, rng)
        else:
            _draw_parked_car(scene, x, horizon, car_color)
    _draw_posts(scene, horizon, rng)
    return np.clip(cv2.GaussianBlur(scene, (0, 0), 1.2), 0, 1)


def _rgb(values) -> tuple:
    """A colour as OpenCV takes it."""
    return tuple(float(v) for v in values)


def _draw_openings(
    scene: np.ndarray, horizon: int, wall: np.ndarray, rng: np.random.Generator
) -> None:
    """Doors, windows and posters in the wall, each with a frame."""
    for _ in range(int(rng.integers(8, 16))):
        x, y = int(rng.integers(scene.shape[1])), int(rng.integers(horizon))
        box_width, box_height = (int(v) for v in rng.integers(14, 70, 2))
        color = _rgb(rng.uniform(0.05, 0.9, 3) * 0.7 + wall * 0.3)
        corner = (x + box_width, min(horizon, y + box_height))
        cv2.rectangle(scene, (x, y), corner, color, -1)
        cv2.rectangle(scene, (x, y), corner, _rgb(wall * 0.5), 2)


def _draw_pavement(scene: np.ndarray, horizon: int, ground: np.ndarray) -> None:
    """Joints of the pavement: some run towards a vanishing point, the others across."""
    height, width, _ = scene.shape
    color = _rgb(ground * 0.86)
    for k in range(-12, 13):
        far, near = (width // 2 + k * 22, horizon), (width // 2 + k * 110, height)
        cv2.line(scene, far, near, color, 1)
    for y in np.geomspace(6, height - horizon, 7):
        cv2.line(scene, (0, horizon + int(y)), (width, horizon + int(y)), color, 1)


def _draw_bush(scene: np.ndarray, x: int, horizon: int, rng: np.random.Generator) -> None:
    for _ in range(10):
        centre = (x + int(rng.normal(0, 16)), horizon + int(rng.normal(-2, 8)))
        color = (0.1 + 0.1 * rng.random(), 0.28 + 0.2 * rng.random(), 0.1)
        axes = tuple(int(v) for v in rng.integers(5, 13, 2))
        cv2.ellipse(scene, centre, axes, 0, 0, 360, color, -1)


def _draw_parked_car(scene: np.ndarray, x: int, horizon: int, color: np.ndarray) -> None:
    cv2.rectangle(scene, (x, horizon - 14), (x + 90, horizon + 14), _rgb(color), -1)
    windows = (0.15, 0.18, 0.2)
    cv2.rectangle(scene, (x + 16, horizon - 30), (x + 70, horizon - 14), windows, -1)
    for dx in (18, 70):
        cv2.circle(scene, (x + dx, horizon + 16), 9, (0.06, 0.06, 0.06), -1)


def _draw_posts(scene: np.ndarray, horizon: int, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(1, 5))):
        x = int(rng.integers(scene.shape[1]))
        top = (x, int(rng.integers(0, horizon)))
        foot = (x + int(rng.integers(3, 7)), horizon + 20)
        cv2.rectangle(scene, top, foot, (0.2, 0.2, 0.22), -1)


def draw_occluder(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> None:
    """Put a box, a post, a bush or a car in front, in place.

    image: (H, W, 3) float32 RGB in [0, 1]. mask: (H, W) uint8, part labels.
    """
    h, w = mask.shape
    shape = np.zeros_like(mask)
    color = rng.uniform(0.1, 0.85, 3).astype(np.float32)
    kind = ("box", "post", "bush", "car")[rng.integers(4)]
    if kind == "box":
        x, y = int(rng.uniform(-0.2, 0.8) * w), int(rng.uniform(0.35, 0.8) * h)
        right, bottom = x + int(rng.uniform(0.35, 0.8) * w), y + int(rng.uniform(0.2, 0.5) * h)
        cv2.rectangle(shape, (x, y), (right, bottom), 1, -1)
    elif kind == "post":
        x = int(rng.uniform(0.1, 0.75) * w)
        right = x + int(rng.uniform(0.12, 0.3) * w)
        cv2.rectangle(shape, (x, 0), (right, h), 1, -1)
    elif kind == "bush":
        color = np.array([0.12, 0.34, 0.13], np.float32) * rng.uniform(0.7, 1.3)
        x, y = rng.uniform(0.1, 0.9) * w, rng.uniform(0.7, 0.95) * h
        for _ in range(14):
            centre = (int(rng.normal(x, 0.22 * w)), int(rng.normal(y, 0.09 * h)))
            axes = tuple(int(v) for v in rng.uniform(0.06, 0.17, 2) * w + 1)
            cv2.ellipse(shape, centre, axes, 0, 0, 360, 1, -1)
    else:  # the roof of a car, and what is below it
        y = int(rng.uniform(0.55, 0.8) * h)
        centre = (int(rng.uniform(0, 1) * w), y + int(0.3 * h))
        cv2.ellipse(shape, centre, (w, int(0.3 * h)), 0, 180, 360, 1, -1)
        cv2.rectangle(shape, (0, y + int(0.28 * h)), (w, h), 1, -1)
    covered = shape > 0
    streaks = rng.normal(0, 0.05, (h, 1)).astype(np.float32)
    shade = np.linspace(1.1, 0.75, w, dtype=np.float32)[None, :] + streaks
    image[covered] = (color * shade[..., None])[covered]
    mask[covered] = LABEL["occluder"]


def draw_crop(
    person: dict | None,
    camera: dict,
    shape: tuple,
    rng: np.random.Generator,
    chance: np.random.Generator,
    jitter: float,
    badly_cut: bool,
    view_overlap: float,
    occlusion: float,
    without=frozenset(),
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one crop as a camera gives it: street, person, occluder, colours, blur and noise.

    person: None for an empty box. shape: (H, W). rng draws everything but the occluder, which
    `chance` draws. jitter: standard deviation of the box's shift, in box heights. badly_cut: a
    detection that misses most of the person. view_overlap, occlusion: rates in [0, 1]. without:
    names of parts to leave out, which changes nothing else.
    Returns image (H, W, 3) uint8 RGB and part labels (H, W) uint8, indices into PARTS.
    """
    # All random numbers are drawn even if a part is left out, so that nothing else changes.
    size, shift = _draw_box(rng, shape[0], jitter, badly_cut)
    wander = view_overlap * rng.uniform(-np.pi, np.pi)
    azimuth = camera["view"] + wander + rng.normal(0, 0.22)
    phase = rng.uniform(0, 2 * np.pi)
    image = _background(camera["scene"], shape, rng)
    mask = np.zeros(shape, np.uint8)
    if person is not None:
        image, mask = _place_person(image, person, camera, azimuth, phase, size, shift, without)
    occluded = rng.random() < occlusion
    if occluded and "occluder" not in without:
        draw_occluder(image, mask, chance)
    return _photograph(image, camera, rng), mask


def _draw_box(
    rng: np.random.Generator, height: int, jitter: float, badly_cut: bool
) -> tuple[float, np.ndarray]:
    """Draw how a box lies around a person.

    Returns the body's height over the box's, and the body's shift (x, y) in pixels.
    """
    size = float(np.clip(0.9 * np.exp(rng.normal(0, jitter)), 0.6, 1.25))
    shift = rng.normal(0, 1, 2) * jitter * np.array([0.5, 1.0]) * height
    if badly_cut:
        far = rng.uniform(0.3, 0.55) * height * rng.choice([-1, 1])
        sideways = rng.random() < 0.4
        shift = shift + (np.array([0.6 * far, 0]) if sideways else np.array([0, far]))
        size *= float(rng.choice([0.6, 1.5]))
    return size, shift


def _background(scene: np.ndarray, shape: tuple, rng: np.random.Generator) -> np.ndarray:
    """Draw a window of a street, scaled to the crop by 4/5: (H, W, 3) float32."""
    h, w = shape
    window_height, window_width = h * 1.25, w * 1.25
    x0 = int(rng.uniform(0, scene.shape[1] - window_width))
    y0 = int(rng.uniform(0.35, 1) * (scene.shape[0] - window_height))
    window = scene[y0 : y0 + int(window_height), x0 : x0 + int(window_width)]
    image = cv2.resize(window, (w, h), interpolation=cv2.INTER_AREA)
    return image * np.float32(rng.uniform(0.85, 1.15))


def _place_person(
    image: np.ndarray,
    person: dict,
    camera: dict,
    azimuth: float,
    phase: float,
    size: float,
    shift: np.ndarray,
    without,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a person and a shadow on a background.

    Returns image (H, W, 3) float32 and part labels (H, W) uint8.
    """
    h, w, _ = image.shape
    pixels = size * h  # the body's height
    feet = (w / 2 + shift[0], h * (0.5 + size / 2) + shift[1])
    shadow = np.zeros((h, w), np.float32)
    axes = (int(0.15 * pixels), int(0.035 * pixels) + 1)
    cv2.ellipse(shadow, (int(feet[0]), int(feet[1])), axes, 0, 0, 360, 0.4, -1)
    image = image * (1 - cv2.GaussianBlur(shadow, (0, 0), 2))[..., None]

    zoom = 2  # sub-samples per pixel and axis, for smooth outlines
    drawn, labels = draw_person(
        person,
        azimuth,
        camera["tilt"],
        phase,
        camera["light"],
        pixels * zoom,
        (feet[0] * zoom, feet[1] * zoom),
        (h * zoom, w * zoom),
        without,
    )
    covered = (labels > 0).astype(np.float32)
    alpha = cv2.resize(covered, (w, h), interpolation=cv2.INTER_AREA)[..., None]
    image = image * (1 - alpha) + cv2.resize(drawn, (w, h), interpolation=cv2.INTER_AREA)
    return image, labels[zoom // 2 :: zoom, zoom // 2 :: zoom].copy()


def _photograph(image: np.ndarray, camera: dict, rng: np.random.Generator) -> np.ndarray:
    """Give an image the camera's colours, blur and noise: (H, W, 3) uint8."""
    # The mean of the channels; image.mean(2) is slow along an axis of three.
    grey = ((image[..., 0] + image[..., 1] + image[..., 2]) / 3)[..., None]
    saturated = grey + camera["saturation"] * (image - grey)
    image = np.clip(saturated * camera["gain"], 0, 1) ** camera["gamma"]
    image = cv2.GaussianBlur(image, (0, 0), camera["blur"] + 0.15)
    image += rng.standard_normal(image.shape, np.float32) * np.float32(camera["noise"])
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
