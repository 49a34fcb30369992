"""Draws pedestrians, streets and occluders: the pictures of the embedded benchmark. Knows nothing of re-identification.

A person is about 22 ellipsoids, each cut by parallel rays: one quadratic a pixel, inside its own box only. What a person or a
camera looks like is a plain dict, made from random streams that the caller gives (rendered.py).
"""

import numpy as np

from ..support.opencv import cv2

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
ITEMS = (
    "logo",
    "print",
    "backpack",
    "bag",
)  # what tells look-alikes apart; each is hidden in some views

PALETTE = np.array(
    [  # clothes, RGB in [0, 1]
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


def make_person(group: np.random.Generator, own: np.random.Generator, member: int) -> dict:
    """Appearance of a person, a plain dict. Look-alikes share their clothes and differ in body and in one item.

    group: random stream of the group of look-alikes; own: of this person; member: number within the group.
    """
    g = group

    def cloth(rng):
        return np.clip(PALETTE[rng.integers(len(PALETTE))] + rng.normal(0, 0.02, 3), 0, 1).astype(
            np.float32
        )

    clothes = {
        "top": cloth(g),
        "top2": cloth(g),
        "pattern": str(g.choice(["plain", "plain", "stripes", "checks", "half"])),
        "long_sleeves": bool(g.random() < 0.5),
        "bottom": cloth(g),
        "lower": str(g.choice(["trousers", "trousers", "shorts", "skirt"])),
        "bottom_stripe": bool(g.random() < 0.2),
        "bottom2": cloth(g),
        "shoes": cloth(g),
    }
    order = g.permutation(2 * len(ITEMS))  # every member of a group gets another (item, look)
    item = int(order[member % len(order)])
    body = {
        "build": float(own.normal(1, 0.07)),
        "shoulders": float(own.normal(1, 0.05)),
        "legs": float(own.normal(1, 0.03)),
        "skin": SKIN[own.integers(len(SKIN))],
        "hair": HAIR[own.integers(len(HAIR))],
        "hair_style": str(own.choice(["short", "short", "long", "bun", "bald"])),
        "hat": bool(own.random() < 0.12),
        "item": ITEMS[item % len(ITEMS)],
        "item_look": item // len(ITEMS),
        "item_color": cloth(own),
        "bag_side": 1 if item // len(ITEMS) else -1,
    }
    return {**clothes, **body}


def make_camera(rng: np.random.Generator, number: int, shift: float) -> dict:
    """A camera: the side it sees people from (by its number, from 1), its tilt, light, colours and sharpness.

    shift: strength of what changes colours and sharpness.
    """
    s = shift
    return {
        "view": np.deg2rad([0, 180, 75, 10, 190, -75, 35, 215][(number - 1) % 8]),
        "tilt": np.deg2rad(rng.uniform(2, 14)),
        "light": np.array([rng.uniform(-0.8, 0.8), rng.uniform(0.3, 0.9), 0.7], np.float32),
        "gain": (1 + s * rng.normal(0, 0.12, 3)).astype(np.float32),
        "gamma": float(np.exp(s * rng.normal(0, 0.28))),
        "saturation": float(np.clip(1 + s * rng.normal(-0.12, 0.2), 0.35, 1.4)),
        "blur": float(s * rng.uniform(0.2, 0.9)),
        "noise": float(s * rng.uniform(0.008, 0.03)),
        "scene": make_scene(rng),
    }


def make_scene(rng: np.random.Generator) -> np.ndarray:
    """A street as one camera sees it: (256, 640, 3) float32 RGB; images are windows of it."""
    h, w = 256, 640
    scene = np.empty((h, w, 3), np.float32)
    wall, ground = rng.uniform(0.25, 0.75, 3), rng.uniform(0.3, 0.62) + rng.normal(0, 0.04, 3)
    horizon = int(rng.uniform(0.42, 0.62) * h)
    scene[:horizon] = wall * np.linspace(1.1, 0.85, horizon)[:, None, None]
    scene[horizon:] = ground * np.linspace(0.8, 1.1, h - horizon)[:, None, None]
    for _ in range(int(rng.integers(8, 16))):  # doors, windows, posters
        x, y, bw, bh = (
            int(rng.integers(w)),
            int(rng.integers(horizon)),
            *(int(v) for v in rng.integers(14, 70, 2)),
        )
        color = tuple(float(v) for v in rng.uniform(0.05, 0.9, 3) * 0.7 + wall * 0.3)
        cv2.rectangle(scene, (x, y), (x + bw, min(horizon, y + bh)), color, -1)
        cv2.rectangle(
            scene, (x, y), (x + bw, min(horizon, y + bh)), tuple(float(v) for v in wall * 0.5), 2
        )
    for k in range(-12, 13):  # joints of the pavement run towards a vanishing point
        cv2.line(
            scene,
            (w // 2 + k * 22, horizon),
            (w // 2 + k * 110, h),
            tuple(float(v) for v in ground * 0.86),
            1,
        )
    for y in np.geomspace(6, h - horizon, 7):
        cv2.line(
            scene,
            (0, horizon + int(y)),
            (w, horizon + int(y)),
            tuple(float(v) for v in ground * 0.86),
            1,
        )
    for _ in range(int(rng.integers(4, 9))):  # bushes, parked cars
        x, color = int(rng.integers(w)), rng.uniform(0.1, 0.8, 3)
        if rng.random() < 0.5:
            for _ in range(10):
                at = (x + int(rng.normal(0, 16)), horizon + int(rng.normal(-2, 8)))
                leaf = (0.1 + 0.1 * rng.random(), 0.28 + 0.2 * rng.random(), 0.1)
                cv2.ellipse(
                    scene, at, tuple(int(v) for v in rng.integers(5, 13, 2)), 0, 0, 360, leaf, -1
                )
        else:
            cv2.rectangle(
                scene, (x, horizon - 14), (x + 90, horizon + 14), tuple(float(v) for v in color), -1
            )
            cv2.rectangle(
                scene, (x + 16, horizon - 30), (x + 70, horizon - 14), (0.15, 0.18, 0.2), -1
            )
            for dx in (18, 70):
                cv2.circle(scene, (x + dx, horizon + 16), 9, (0.06, 0.06, 0.06), -1)
    for _ in range(int(rng.integers(1, 5))):  # posts
        x = int(rng.integers(w))
        cv2.rectangle(
            scene,
            (x, int(rng.integers(0, horizon))),
            (x + int(rng.integers(3, 7)), horizon + 20),
            (0.2, 0.2, 0.22),
            -1,
        )
    return np.clip(cv2.GaussianBlur(scene, (0, 0), 1.2), 0, 1)


def _body(person: dict, phase: float, without=frozenset()) -> list:
    """The ellipsoids of a person in body coordinates (x to their left, y up, z forward; height 1; feet at y = 0).

    Returns a list of (label, centre (3,), radii (3,), swing in the sagittal plane, colour, texture).
    """
    p, out = person, []
    b, sh, leg = p["build"], p["shoulders"], p["legs"]
    top, bottom, skin, hair = p["top"], p["bottom"], p["skin"], p["hair"]

    def add(label, centre, radii, color, swing=0.0, texture=""):
        if label not in without:
            out.append((label, centre, radii, swing, color, texture))

    add("head", (0, 0.925, 0.005), (0.048, 0.068, 0.058), skin)
    add("head", (0, 0.855, 0), (0.032, 0.045, 0.034), skin)
    if p["hair_style"] != "bald":
        add("hair", (0, 0.945, -0.014), (0.055, 0.06, 0.06), hair)
    if p["hair_style"] == "long":
        add("hair", (0, 0.87, -0.042), (0.058, 0.1, 0.032), hair)
    if p["hair_style"] == "bun":
        add("hair", (0, 0.965, -0.075), (0.028, 0.028, 0.028), hair)
    if p["hat"]:
        add("hat", (0, 0.985, 0.01), (0.062, 0.026, 0.078), p["shoes"])
    pattern = p["pattern"]
    add(
        "torso",
        (0, 0.725, 0),
        (0.108 * sh * b**0.5, 0.125, 0.07 * b),
        top,
        texture=pattern + "+items",
    )
    add(
        "torso",
        (0, 0.61, 0),
        (0.092 * b, 0.105, 0.064 * b),
        p["top2"] if pattern == "half" else top,
        texture=pattern,
    )
    add("hips", (0, 0.525, 0), (0.095 * b, 0.068, 0.07 * b), bottom)

    for side in (-1, 1):
        swing = side * 0.45 * np.sin(phase)
        shoulder = np.array([side * 0.118 * sh * b**0.5, 0.805, 0])
        elbow = shoulder + 0.16 * np.array([0, -np.cos(swing), np.sin(swing)])
        fore = swing + 0.25
        wrist = elbow + 0.15 * np.array([0, -np.cos(fore), np.sin(fore)])
        add(
            "arms",
            (shoulder + elbow) / 2,
            (0.036 * b, 0.095, 0.038 * b),
            top,
            swing,
            "" if pattern == "half" else pattern,
        )
        add(
            "arms",
            (elbow + wrist) / 2,
            (0.027 * b, 0.088, 0.028 * b),
            top if p["long_sleeves"] else skin,
            fore,
        )
        add("arms", wrist, (0.02, 0.028, 0.024), skin)
        swing = -side * 0.42 * np.sin(phase)
        hip = np.array([side * 0.05 * b, 0.5, 0])
        knee = hip + 0.235 * leg * np.array([0, -np.cos(swing), np.sin(swing)])
        bend = swing - 0.3 * max(0.0, np.sin(phase * side + 0.6))
        ankle = knee + 0.225 * leg * np.array([0, -np.cos(bend), np.sin(bend)])
        texture = "side" if p["bottom_stripe"] else ""
        bare = p["lower"] == "skirt"
        add(
            "legs",
            (hip + knee) / 2,
            (0.056 * b, 0.135 * leg, 0.06 * b),
            skin if bare else bottom,
            swing,
            "" if bare else texture,
        )
        add(
            "legs",
            (knee + ankle) / 2,
            (0.041 * b, 0.13 * leg, 0.045 * b),
            bottom if p["lower"] == "trousers" else skin,
            bend,
            texture if p["lower"] == "trousers" else "",
        )
        add("shoes", ankle + np.array([0, -0.012, 0.028]), (0.034, 0.026, 0.066), p["shoes"])
    if p["lower"] == "skirt":
        add("skirt", (0, 0.43, 0), (0.115 * b, 0.14, 0.105 * b), bottom, texture=texture)

    item, color = p["item"], p["item_color"]
    if item == "backpack":
        size = 1 if p["item_look"] else 0.82
        add("backpack", (0, 0.71, -0.105), (0.085 * size, 0.12 * size, 0.058), color)
        add("backpack", (0, 0.655, -0.15), (0.055 * size, 0.055 * size, 0.03), color * 0.7)
    if item == "bag":
        side = p["bag_side"]
        add("bag", (side * 0.16 * b, 0.5, 0.01), (0.03, 0.072, 0.075), color)
        add("bag", (side * 0.165 * b, 0.6, 0.01), (0.008, 0.06, 0.03), color * 0.6)
    return out


def _rays(body: list, rotation: np.ndarray, pixels: float, origin: tuple, shape: tuple) -> tuple:
    """Front-most ellipsoid at every pixel. Returns index (H, W) int16 (-1: none) and camera depth (H, W)."""
    height, width = shape
    index = np.full(shape, -1, np.int16)
    depth = np.full(shape, -np.inf, np.float32)
    inverses, centres = [], []
    for i, (_, centre, radii, swing, _, _) in enumerate(body):
        c, s = np.cos(swing), np.sin(swing)
        # unit sphere = diag(1 / radii) . limb rotation . (body point - centre)
        limb = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
        inverse = limb / np.asarray(radii)[:, None]
        inverses.append(inverse)
        centres.append(centre)
        m = inverse @ rotation.T  # camera point -> unit sphere
        a = m.T @ m
        centre_cam = rotation @ np.asarray(centre)
        spread = np.linalg.inv(a)  # its diagonal bounds the ellipsoid's shadow
        cx, cy = origin[0] + pixels * centre_cam[0], origin[1] - pixels * centre_cam[1]
        rx, ry = pixels * np.sqrt(spread[0, 0]), pixels * np.sqrt(spread[1, 1])
        x0, x1 = max(0, int(cx - rx)), min(width, int(cx + rx) + 2)
        y0, y1 = max(0, int(cy - ry)), min(height, int(cy + ry) + 2)
        if x0 >= x1 or y0 >= y1:
            continue
        dx = ((np.arange(x0, x1) + 0.5 - cx) / pixels)[None, :]
        dy = (-(np.arange(y0, y1) + 0.5 - cy) / pixels)[:, None]
        # a33 z^2 + 2 b z + q = 0 along a ray; the root nearest to the camera has the larger z
        b = a[0, 2] * dx + a[1, 2] * dy
        disc = b * b - a[2, 2] * (
            a[0, 0] * dx * dx + a[1, 1] * dy * dy + (2 * a[0, 1] * dx) * dy - 1
        )
        with np.errstate(invalid="ignore"):
            z = (np.sqrt(disc) - b) / a[2, 2] + centre_cam[
                2
            ]  # NaN where the ray misses: never nearer
        view = depth[y0:y1, x0:x1]
        nearer = z > view
        view[nearer] = z[nearer]
        index[y0:y1, x0:x1][nearer] = i
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
) -> tuple:
    """Draw one person by parallel rays.

    azimuth: 0 shows the front, pi the back; pixels: a body height in pixels; origin: pixel (x, y) under the feet.
    Returns colours (H, W, 3) float32 in [0, 1] and part labels (H, W) uint8, 0 where nobody is.
    """
    cy, sy, cx, sx = np.cos(azimuth), np.sin(azimuth), np.cos(tilt), np.sin(tilt)
    rotation = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]]) @ np.array(
        [[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]
    )
    body = _body(person, phase, without)
    index, depth, inverses, centres = _rays(body, rotation, pixels, origin, shape)
    image, labels = np.zeros((*shape, 3), np.float32), np.zeros(shape, np.uint8)
    ys, xs = np.nonzero(index >= 0)
    if not len(ys):
        return image, labels
    part = index[ys, xs]
    rotation = rotation.astype(np.float32)
    camera = np.stack(
        [(xs + 0.5 - origin[0]) / pixels, (origin[1] - ys - 0.5) / pixels, depth[ys, xs]],
        1,
        dtype=np.float32,
        casting="same_kind",
    )
    point = camera @ rotation  # (n, 3) body coordinates of the hit
    inverse = inverses[part]
    unit = np.einsum(
        "nij,nj->ni", inverse, point - centres[part]
    )  # on the unit sphere of its ellipsoid
    normal = np.einsum("nij,ni->nj", inverse, unit)
    normal = (normal / np.linalg.norm(normal, axis=1, keepdims=True)) @ rotation.T

    color = np.array([e[4] for e in body], np.float32)[part]
    label = np.array([LABEL[e[0]] for e in body], np.uint8)[part]
    texture = [e[5] for e in body]
    x, y, z = point.T

    def on(key):  # pixels whose ellipsoid carries this texture
        return np.array([key in t for t in texture])[part]

    if person["pattern"] == "stripes":
        color[on("stripes") & (np.sin(y * 150) > 0)] = person["top2"]
    if person["pattern"] == "checks":
        color[on("checks") & (np.sin(y * 130) * np.sin(np.arctan2(x, z) * 9) > 0)] = person["top2"]
    if person["bottom_stripe"]:
        color[on("side") & (np.abs(z) < 0.018) & (np.abs(unit[:, 0]) > 0.5)] = person["bottom2"]
    for name, facing in (("logo", z > 0), ("print", z < 0)):
        if person["item"] == name and name not in without:
            size, up = ((0.45, 0.3), 0.05) if person["item_look"] else ((0.62, 0.16), 0.0)
            spot = (
                on("items")
                & facing
                & ((unit[:, 0] / size[0]) ** 2 + ((unit[:, 1] - up) / size[1]) ** 2 < 1)
            )
            color[spot], label[spot] = person["item_color"], LABEL[name]
    eyes = (label == LABEL["head"]) & (unit[:, 2] > 0.55) & (np.abs(unit[:, 1] - 0.12) < 0.1)
    color[eyes & (np.abs(np.abs(unit[:, 0]) - 0.38) < 0.16)] *= 0.35  # a front is a front
    lambert = np.clip(normal @ (light / np.linalg.norm(light)), 0, 1)
    image[ys, xs] = color * (0.5 + 0.55 * lambert)[:, None]
    labels[ys, xs] = label
    return image, labels


def draw_occluder(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> None:
    """Put a box, a post, a bush or a car in front, in place."""
    h, w = mask.shape
    shape = np.zeros_like(mask)
    color = rng.uniform(0.1, 0.85, 3).astype(np.float32)
    kind = rng.integers(4)
    if kind == 0:  # box or bin
        x, y = int(rng.uniform(-0.2, 0.8) * w), int(rng.uniform(0.35, 0.8) * h)
        cv2.rectangle(
            shape,
            (x, y),
            (x + int(rng.uniform(0.35, 0.8) * w), y + int(rng.uniform(0.2, 0.5) * h)),
            1,
            -1,
        )
    elif kind == 1:  # post
        x = int(rng.uniform(0.1, 0.75) * w)
        cv2.rectangle(shape, (x, 0), (x + int(rng.uniform(0.12, 0.3) * w), h), 1, -1)
    elif kind == 2:  # bush
        color = np.array([0.12, 0.34, 0.13], np.float32) * rng.uniform(0.7, 1.3)
        x, y = rng.uniform(0.1, 0.9) * w, rng.uniform(0.7, 0.95) * h
        for _ in range(14):
            at = (int(rng.normal(x, 0.22 * w)), int(rng.normal(y, 0.09 * h)))
            cv2.ellipse(
                shape,
                at,
                tuple(int(v) for v in rng.uniform(0.06, 0.17, 2) * w + 1),
                0,
                0,
                360,
                1,
                -1,
            )
    else:  # the roof of a car
        y = int(rng.uniform(0.55, 0.8) * h)
        cv2.ellipse(
            shape,
            (int(rng.uniform(0, 1) * w), y + int(0.3 * h)),
            (w, int(0.3 * h)),
            0,
            180,
            360,
            1,
            -1,
        )
        cv2.rectangle(shape, (0, y + int(0.28 * h)), (w, h), 1, -1)
    hit = shape > 0
    shade = np.linspace(1.1, 0.75, w, dtype=np.float32)[None, :] + rng.normal(
        0, 0.05, (h, 1)
    ).astype(np.float32)
    image[hit] = (color * shade[..., None])[hit]
    mask[hit] = LABEL["occluder"]


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
) -> tuple:
    """One crop as a camera gives it: scene, person, occluder, colours, blur and noise.

    person: None for an empty box. shape: (H, W). rng draws everything but the occluder, which `chance` does. jitter: standard
    deviation of the box's shift, in box heights; badly_cut: a detection that misses most of the person. view_overlap, occlusion:
    rates in [0, 1]. without: names of parts to leave out, which changes nothing else.
    Returns image (H, W, 3) uint8 RGB and part labels (H, W) uint8, indices into PARTS.
    """
    h, w = shape
    # Every draw happens whatever the kind of image, so that leaving a part out changes nothing else.
    size = float(np.clip(0.9 * np.exp(rng.normal(0, jitter)), 0.6, 1.25))
    shift = rng.normal(0, 1, 2) * jitter * np.array([0.5, 1.0]) * h
    if badly_cut:
        far = rng.uniform(0.3, 0.55) * h * rng.choice([-1, 1])
        shift = shift + (np.array([0.6 * far, 0]) if rng.random() < 0.4 else np.array([0, far]))
        size *= float(rng.choice([0.6, 1.5]))
    wander = view_overlap * rng.uniform(-np.pi, np.pi)
    azimuth, phase = camera["view"] + wander + rng.normal(0, 0.22), rng.uniform(0, 2 * np.pi)

    zoom = 2  # sub-samples a pixel and axis for the person: smooth outlines
    scene, sh, sw = camera["scene"], h * 1.25, w * 1.25
    x0, y0 = (
        int(rng.uniform(0, scene.shape[1] - sw)),
        int(rng.uniform(0.35, 1) * (scene.shape[0] - sh)),
    )
    image = cv2.resize(
        scene[y0 : y0 + int(sh), x0 : x0 + int(sw)], (w, h), interpolation=cv2.INTER_AREA
    )
    image = image * np.float32(rng.uniform(0.85, 1.15))
    mask = np.zeros((h, w), np.uint8)
    if person:
        pixels, feet = size * h, (w / 2 + shift[0], h * (0.5 + size / 2) + shift[1])
        shadow = np.zeros((h, w), np.float32)
        cv2.ellipse(
            shadow,
            (int(feet[0]), int(feet[1])),
            (int(0.15 * pixels), int(0.035 * pixels) + 1),
            0,
            0,
            360,
            0.4,
            -1,
        )
        image *= (1 - cv2.GaussianBlur(shadow, (0, 0), 2))[..., None]
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
        alpha = cv2.resize((labels > 0).astype(np.float32), (w, h), interpolation=cv2.INTER_AREA)[
            ..., None
        ]
        image = image * (1 - alpha) + cv2.resize(drawn, (w, h), interpolation=cv2.INTER_AREA)
        mask = labels[zoom // 2 :: zoom, zoom // 2 :: zoom].copy()
    occluded = rng.random() < occlusion
    if occluded and "occluder" not in without:
        draw_occluder(image, mask, chance)

    grey = image.mean(2, keepdims=True)
    image = (
        np.clip((grey + camera["saturation"] * (image - grey)) * camera["gain"], 0, 1)
        ** camera["gamma"]
    )
    image = cv2.GaussianBlur(image, (0, 0), camera["blur"] + 0.15)
    image += rng.standard_normal(image.shape, np.float32) * np.float32(camera["noise"])
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8), mask
