"""Draws one pedestrian from ellipsoids: the figures of the embedded benchmark.

A person is about 22 ellipsoids. Parallel rays cut each of them: one quadratic equation per pixel,
solved only inside the box around the ellipsoid. What a person looks like is a plain dict, made from
random streams that the caller gives (see rendered.py). Cameras and identities are not handled here.
"""

from typing import NamedTuple

import numpy as np

PARTS = (
    "background",
    "head",
    "hair",
    "hat",
    "torso",
    "logo",
    "print",
    "arms",
    "hips",
    "legs",
    "shoes",
    "skirt",
    "backpack",
    "bag",
    "occluder",
)
LABEL = {name: i for i, name in enumerate(PARTS)}
# The items by which look-alikes differ. Each of them is hidden in some views.
ITEMS = ("logo", "print", "backpack", "bag")

# Colours of clothes, skin and hair: RGB in [0, 1].
PALETTE = np.array(
    [
        [0.08, 0.08, 0.09],
        [0.88, 0.88, 0.86],
        [0.45, 0.46, 0.48],
        [0.10, 0.14, 0.32],
        [0.20, 0.34, 0.62],
        [0.62, 0.10, 0.12],
        [0.16, 0.36, 0.20],
        [0.78, 0.66, 0.18],
        [0.44, 0.30, 0.20],
        [0.72, 0.64, 0.50],
        [0.46, 0.20, 0.44],
        [0.86, 0.46, 0.56],
        [0.20, 0.50, 0.52],
        [0.84, 0.42, 0.14],
    ],
    np.float32,
)
SKIN = np.array(
    [[0.93, 0.76, 0.66], [0.84, 0.64, 0.50], [0.66, 0.46, 0.33], [0.42, 0.28, 0.20]], np.float32
)
HAIR = np.array(
    [
        [0.06, 0.05, 0.05],
        [0.22, 0.13, 0.08],
        [0.45, 0.30, 0.14],
        [0.72, 0.56, 0.30],
        [0.55, 0.54, 0.53],
    ],
    np.float32,
)


class Ellipsoid(NamedTuple):
    """One piece of a body, in body coordinates: x to the person's left, y up, z forward.

    The body is 1 high and stands at y = 0. swing: angle in radians by which the piece is turned in
    the sagittal plane (y, z), as an arm or a leg swings. texture: names of what is painted on the
    piece.
    """

    label: str
    centre: np.ndarray | tuple  # (3,)
    radii: tuple  # (3,)
    swing: float
    color: np.ndarray  # (3,) RGB
    texture: str = ""


def make_person(group: np.random.Generator, own: np.random.Generator, member: int) -> dict:
    """Make the appearance of one person, a plain dict.

    Look-alikes share their clothes and differ in body and in one item.
    group: random stream of the group of look-alikes. own: random stream of this person. member: the
    person's number within the group, from 0.
    """
    clothes = {
        "top": _cloth_color(group),
        "top2": _cloth_color(group),
        "pattern": str(group.choice(["plain", "plain", "stripes", "checks", "half"])),
        "long_sleeves": bool(group.random() < 0.5),
        "bottom": _cloth_color(group),
        "lower": str(group.choice(["trousers", "trousers", "shorts", "skirt"])),
        "bottom_stripe": bool(group.random() < 0.2),
        "bottom2": _cloth_color(group),
        "shoes": _cloth_color(group),
    }
    # Every item comes in two looks. Each member of a group gets a different pair of item and look.
    order = group.permutation(2 * len(ITEMS))
    look, item = divmod(int(order[member % len(order)]), len(ITEMS))
    body = {
        "build": float(own.normal(1, 0.07)),
        "shoulders": float(own.normal(1, 0.05)),
        "legs": float(own.normal(1, 0.03)),
        "skin": SKIN[own.integers(len(SKIN))],
        "hair": HAIR[own.integers(len(HAIR))],
        "hair_style": str(own.choice(["short", "short", "long", "bun", "bald"])),
        "hat": bool(own.random() < 0.12),
        "item": ITEMS[item],
        "item_look": look,
        "item_color": _cloth_color(own),
        "bag_side": 1 if look else -1,
    }
    return clothes | body


def _cloth_color(rng: np.random.Generator) -> np.ndarray:
    """Draw a colour of PALETTE, slightly changed: (3,) float32."""
    color = PALETTE[rng.integers(len(PALETTE))] + rng.normal(0, 0.02, 3)
    return np.clip(color, 0, 1).astype(np.float32)


def _body(person: dict, phase: float, without=frozenset()) -> list[Ellipsoid]:
    """List the ellipsoids of a person at one phase of the gait (radians), without some parts.

    Where two ellipsoids are equally near to the camera, the one that comes first in the list is
    seen.
    """
    pieces = _head(person) + _trunk(person)
    for side in (-1, 1):
        pieces += _arm(person, side, phase)
        pieces += _leg(person, side, phase)
    if person["lower"] == "skirt":
        build = person["build"]
        radii = (0.115 * build, 0.14, 0.105 * build)
        texture = _trouser_texture(person)
        pieces.append(Ellipsoid("skirt", (0, 0.43, 0), radii, 0.0, person["bottom"], texture))
    pieces += _carried_item(person)
    return [piece for piece in pieces if piece.label not in without]


def _head(person: dict) -> list[Ellipsoid]:
    """Head, neck, hair and hat."""
    skin, hair = person["skin"], person["hair"]
    pieces = [
        Ellipsoid("head", (0, 0.925, 0.005), (0.048, 0.068, 0.058), 0.0, skin),
        Ellipsoid("head", (0, 0.855, 0), (0.032, 0.045, 0.034), 0.0, skin),
    ]
    style = person["hair_style"]
    if style != "bald":
        pieces.append(Ellipsoid("hair", (0, 0.945, -0.014), (0.055, 0.06, 0.06), 0.0, hair))
    if style == "long":
        pieces.append(Ellipsoid("hair", (0, 0.87, -0.042), (0.058, 0.1, 0.032), 0.0, hair))
    if style == "bun":
        pieces.append(Ellipsoid("hair", (0, 0.965, -0.075), (0.028, 0.028, 0.028), 0.0, hair))
    if person["hat"]:
        radii = (0.062, 0.026, 0.078)
        pieces.append(Ellipsoid("hat", (0, 0.985, 0.01), radii, 0.0, person["shoes"]))
    return pieces


def _trunk(person: dict) -> list[Ellipsoid]:
    """Chest, belly and hips. The chest carries the logo and the print of those who have one."""
    build, shoulders = person["build"], person["shoulders"]
    top, pattern = person["top"], person["pattern"]
    chest = (0.108 * shoulders * build**0.5, 0.125, 0.07 * build)
    belly = (0.092 * build, 0.105, 0.064 * build)
    hips = (0.095 * build, 0.068, 0.07 * build)
    belly_color = person["top2"] if pattern == "half" else top
    return [
        Ellipsoid("torso", (0, 0.725, 0), chest, 0.0, top, pattern + "+items"),
        Ellipsoid("torso", (0, 0.61, 0), belly, 0.0, belly_color, pattern),
        Ellipsoid("hips", (0, 0.525, 0), hips, 0.0, person["bottom"]),
    ]


def _arm(person: dict, side: int, phase: float) -> list[Ellipsoid]:
    """Upper arm, forearm and hand; side: -1 right, 1 left."""
    build, pattern = person["build"], person["pattern"]
    swing = side * 0.45 * np.sin(phase)
    fore = swing + 0.25  # the elbow is always a little bent
    shoulder = np.array([side * 0.118 * person["shoulders"] * build**0.5, 0.805, 0])
    elbow = shoulder + 0.16 * np.array([0, -np.cos(swing), np.sin(swing)])
    wrist = elbow + 0.15 * np.array([0, -np.cos(fore), np.sin(fore)])
    upper_radii = (0.036 * build, 0.095, 0.038 * build)
    fore_radii = (0.027 * build, 0.088, 0.028 * build)
    sleeve = "" if pattern == "half" else pattern
    fore_color = person["top"] if person["long_sleeves"] else person["skin"]
    return [
        Ellipsoid("arms", (shoulder + elbow) / 2, upper_radii, swing, person["top"], sleeve),
        Ellipsoid("arms", (elbow + wrist) / 2, fore_radii, fore, fore_color),
        Ellipsoid("arms", wrist, (0.02, 0.028, 0.024), 0.0, person["skin"]),
    ]


def _leg(person: dict, side: int, phase: float) -> list[Ellipsoid]:
    """Thigh, lower leg and shoe; side: -1 right, 1 left. Legs swing against the arms."""
    build, leg = person["build"], person["legs"]
    swing = -side * 0.42 * np.sin(phase)
    bend = swing - 0.3 * max(0.0, np.sin(phase * side + 0.6))
    hip = np.array([side * 0.05 * build, 0.5, 0])
    knee = hip + 0.235 * leg * np.array([0, -np.cos(swing), np.sin(swing)])
    ankle = knee + 0.225 * leg * np.array([0, -np.cos(bend), np.sin(bend)])
    thigh_radii = (0.056 * build, 0.135 * leg, 0.06 * build)
    lower_radii = (0.041 * build, 0.13 * leg, 0.045 * build)
    thigh_color, thigh_texture = person["bottom"], _trouser_texture(person)
    if person["lower"] == "skirt":
        thigh_color, thigh_texture = person["skin"], ""
    lower_color, lower_texture = person["skin"], ""
    if person["lower"] == "trousers":
        lower_color, lower_texture = person["bottom"], _trouser_texture(person)
    shoe = ankle + np.array([0, -0.012, 0.028])
    return [
        Ellipsoid("legs", (hip + knee) / 2, thigh_radii, swing, thigh_color, thigh_texture),
        Ellipsoid("legs", (knee + ankle) / 2, lower_radii, bend, lower_color, lower_texture),
        Ellipsoid("shoes", shoe, (0.034, 0.026, 0.066), 0.0, person["shoes"]),
    ]


def _trouser_texture(person: dict) -> str:
    """What is painted on trousers, shorts and skirts."""
    return "side" if person["bottom_stripe"] else ""


def _carried_item(person: dict) -> list[Ellipsoid]:
    """The backpack or the bag. A logo and a print are painted on the chest instead."""
    build, color = person["build"], person["item_color"]
    if person["item"] == "backpack":
        size = 1 if person["item_look"] else 0.82
        sack = (0.085 * size, 0.12 * size, 0.058)
        pocket = (0.055 * size, 0.055 * size, 0.03)
        return [
            Ellipsoid("backpack", (0, 0.71, -0.105), sack, 0.0, color),
            Ellipsoid("backpack", (0, 0.655, -0.15), pocket, 0.0, color * 0.7),
        ]
    if person["item"] == "bag":
        side = person["bag_side"]
        bag = (side * 0.16 * build, 0.5, 0.01)
        strap = (side * 0.165 * build, 0.6, 0.01)
        return [
            Ellipsoid("bag", bag, (0.03, 0.072, 0.075), 0.0, color),
            Ellipsoid("bag", strap, (0.008, 0.06, 0.03), 0.0, color * 0.6),
        ]
    return []


def _rays(
    body: list, rotation: np.ndarray, pixels: float, origin: tuple, shape: tuple
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Find the front-most ellipsoid at every pixel.

    body: n ellipsoids. rotation: (3, 3), body to camera coordinates. pixels: a body height in
    pixels. origin: pixel (x, y) under the feet. shape: (H, W).
    Returns the index of the ellipsoid (H, W) int16, -1 where there is none; its depth in camera
    coordinates (H, W); and of every ellipsoid the matrix that maps it to the unit sphere (n, 3, 3)
    and its centre (n, 3), both in body coordinates.
    """
    height, width = shape
    index = np.full(shape, -1, np.int16)
    depth = np.full(shape, -np.inf, np.float32)
    inverses, centres, quadrics = [], [], []
    for _, centre, radii, swing, _, _ in body:
        cos, sin = np.cos(swing), np.sin(swing)
        # unit sphere = diag(1 / radii) . limb rotation . (body point - centre)
        limb = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
        inverse = limb / np.asarray(radii)[:, None]
        inverses.append(inverse)
        centres.append(centre)
        m = inverse @ rotation.T  # camera point -> unit sphere
        quadrics.append(m.T @ m)  # the ellipsoid is x^T a x = 1 around its centre
    spreads = np.linalg.inv(quadrics)  # their diagonals bound the outlines in the image

    # NaN where a ray misses an ellipsoid, and NaN is never nearer.
    with np.errstate(invalid="ignore"):
        for i, (centre, a, spread) in enumerate(zip(centres, quadrics, spreads, strict=True)):
            centre_cam = rotation @ np.asarray(centre)
            cx, cy = origin[0] + pixels * centre_cam[0], origin[1] - pixels * centre_cam[1]
            rx, ry = pixels * np.sqrt(spread[0, 0]), pixels * np.sqrt(spread[1, 1])
            x0, x1 = max(0, int(cx - rx)), min(width, int(cx + rx) + 2)
            y0, y1 = max(0, int(cy - ry)), min(height, int(cy + ry) + 2)
            if x0 >= x1 or y0 >= y1:
                continue

            dx = ((np.arange(x0, x1) + 0.5 - cx) / pixels)[None, :]
            dy = (-(np.arange(y0, y1) + 0.5 - cy) / pixels)[:, None]
            # Along a ray a33 z^2 + 2 b z + q = 0; the root nearest to the camera has the larger z.
            b = a[0, 2] * dx + a[1, 2] * dy
            q = a[0, 0] * dx * dx + a[1, 1] * dy * dy + (2 * a[0, 1] * dx) * dy - 1
            z = (np.sqrt(b * b - a[2, 2] * q) - b) / a[2, 2] + centre_cam[2]
            box = (slice(y0, y1), slice(x0, x1))
            nearer = z > depth[box]
            np.copyto(depth[box], z, "same_kind", where=nearer)
            np.copyto(index[box], i, where=nearer)
    return index, depth, np.array(inverses, np.float32), np.array(centres, np.float32)


def draw_person(
    person: dict,
    azimuth: float,
    tilt: float,
    phase: float,
    light,
    pixels: float,
    origin: tuple,
    shape: tuple,
    without=frozenset(),
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one person by parallel rays.

    azimuth, tilt: of the camera, in radians; azimuth 0 shows the front, pi the back. phase: of the
    gait, in radians. light: (3,), the direction that the light comes from, in camera coordinates.
    pixels: a body height in pixels. origin: pixel (x, y) under the feet. shape: (H, W). without:
    names of parts to leave out.
    Returns colours (H, W, 3) float32 in [0, 1] and part labels (H, W) uint8, 0 where nobody is.
    """
    rotation = _camera_rotation(azimuth, tilt)
    body = _body(person, phase, without)
    index, depth, inverses, centres = _rays(body, rotation, pixels, origin, shape)
    image = np.zeros((*shape, 3), np.float32)
    labels = np.zeros(shape, np.uint8)
    shown = np.flatnonzero(index >= 0)  # the n pixels that show the person
    if len(shown) == 0:
        return image, labels

    ys, xs = np.divmod(shown, shape[1])
    hit = index.take(shown)  # (n,) the ellipsoid that each of them shows
    rotation = rotation.astype(np.float32)
    camera_point = np.stack(
        [(xs + 0.5 - origin[0]) / pixels, (origin[1] - ys - 0.5) / pixels, depth.take(shown)],
        1,
        dtype=np.float32,
        casting="same_kind",
    )
    point = camera_point @ rotation  # (n, 3) body coordinates
    inverse = inverses.take(hit, axis=0)  # (n, 3, 3)
    from_centre = point - centres.take(hit, axis=0)
    unit = np.einsum("nij,nj->ni", inverse, from_centre)  # (n, 3) on the unit sphere
    normal = np.einsum("nij,ni->nj", inverse, unit)
    x, y, z = normal.T  # a sum of columns is faster than one along an axis of three
    normal = (normal / np.sqrt(x * x + y * y + z * z)[:, None]) @ rotation.T

    color, label = _paint(person, body, hit, point, unit, without)
    lambert = np.clip(normal @ (light / np.linalg.norm(light)), 0, 1)
    image.reshape(-1, 3)[shown] = color * (0.5 + 0.55 * lambert)[:, None]
    labels.reshape(-1)[shown] = label
    return image, labels


def _camera_rotation(azimuth: float, tilt: float) -> np.ndarray:
    """The rotation from body to camera coordinates, (3, 3): the azimuth, then the tilt."""
    cos_a, sin_a = np.cos(azimuth), np.sin(azimuth)
    cos_t, sin_t = np.cos(tilt), np.sin(tilt)
    turn = np.array([[cos_a, 0, sin_a], [0, 1, 0], [-sin_a, 0, cos_a]])
    nod = np.array([[1, 0, 0], [0, cos_t, -sin_t], [0, sin_t, cos_t]])
    return nod @ turn


def _paint(
    person: dict, body: list, hit: np.ndarray, point: np.ndarray, unit: np.ndarray, without
) -> tuple[np.ndarray, np.ndarray]:
    """Colour (n, 3) and part label (n,) of n visible points.

    A point has the colour and label of its ellipsoid, unless something is painted there. hit: (n,)
    index into body. point: (n, 3) in body coordinates. unit: (n, 3) on the unit sphere of the
    ellipsoid.
    """
    color = np.array([piece.color for piece in body], np.float32)[hit]
    label = np.array([LABEL[piece.label] for piece in body], np.uint8)[hit]
    x, y, z = point.T
    if person["pattern"] == "stripes":
        stripe = np.sin(y * 150) > 0
        color[_carries(body, "stripes")[hit] & stripe] = person["top2"]
    if person["pattern"] == "checks":
        check = np.sin(y * 130) * np.sin(np.arctan2(x, z) * 9) > 0
        color[_carries(body, "checks")[hit] & check] = person["top2"]
    if person["bottom_stripe"]:
        stripe = (np.abs(z) < 0.018) & (np.abs(unit[:, 0]) > 0.5)
        color[_carries(body, "side")[hit] & stripe] = person["bottom2"]

    item = person["item"]
    if item in ("logo", "print") and item not in without:
        facing = z > 0 if item == "logo" else z < 0  # a logo on the chest, a print on the back
        size, up = (0.62, 0.16), 0.0
        if person["item_look"]:
            size, up = (0.45, 0.3), 0.05
        ellipse = (unit[:, 0] / size[0]) ** 2 + ((unit[:, 1] - up) / size[1]) ** 2 < 1
        spot = _carries(body, "items")[hit] & facing & ellipse
        color[spot] = person["item_color"]
        label[spot] = LABEL[item]

    # Eyes, so that the front differs from the back.
    face = (label == LABEL["head"]) & (unit[:, 2] > 0.55) & (np.abs(unit[:, 1] - 0.12) < 0.1)
    color[face & (np.abs(np.abs(unit[:, 0]) - 0.38) < 0.16)] *= 0.35
    return color, label


def _carries(body: list, texture: str) -> np.ndarray:
    """Which ellipsoids carry a texture: (ellipsoids,) bool."""
    return np.array([texture in piece.texture for piece in body])
