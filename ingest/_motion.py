"""Drawing for the demo sets: one textured object that moves over a static textured background. No I/O.

A pose is a point u in [0, 1)^4, and every axis is a circle:

    u[0]  x of the object's centre   } in short sides of the frame, the period after which the picture repeats:
    u[1]  y of the object's centre   } what leaves on one side comes in on the other, a wide frame shows copies
    u[2]  orientation, in turns, clockwise on screen
    u[3]  size, from smallest to largest on a log scale (an object that has become largest starts again as smallest)

A motion is a constant velocity along one axis, and the first pose is uniform. A uniform point that is moved along a
circle stays uniform: in any single frame the pose has one and the same distribution for all motions, and only the
change between frames tells the motion. Appearance (background, shape, texture, colours) is drawn without regard to it.
The period is the short side because any crop of about that size then sees the whole of the object.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

# motion -> (axis of the pose, direction along it); y grows downwards
_AXIS: dict[str, tuple[int, int]] = {
    "left": (0, -1),
    "right": (0, +1),
    "up": (1, -1),
    "down": (1, +1),
    "clockwise": (2, +1),
    "anticlockwise": (2, -1),
    "grow": (3, +1),
    "shrink": (3, -1),
}
MOTIONS: tuple[str, ...] = tuple(_AXIS)

SIZE_RANGE = (0.45, 0.95)  # diameter of the circle around the object, in short sides of the frame

_MARGIN_PX = 2  # transparent border of the sprite, so that its soft edge is never cut
_LOG_SIZE_RATIO = math.log(SIZE_RANGE[1] / SIZE_RANGE[0])
_GLANCE_S = 0.64  # 16 frames at 25 fps: the time in which a motion covers what the next table says
_TURNS_PER_GLANCE: tuple[tuple[float, float], ...] = (
    (0.30, 0.65),  # of the frame's short side
    (0.30, 0.65),
    (0.25, 0.6),  # of a full turn: 90 to 216 degrees
    (math.log(1.6) / _LOG_SIZE_RATIO, math.log(2.4) / _LOG_SIZE_RATIO),  # 1.6 to 2.4 times the size
)


@dataclass(frozen=True)
class Span:
    """`num_frames` frames of one behaviour: a name from MOTIONS, "static", or "absent" (the background alone)."""

    behaviour: str
    num_frames: int


@dataclass(frozen=True)
class Scene:
    """How one video looks: `background` uint8 (H, W, 3); `sprite` float32 (S, S, 4), alpha last, premultiplied.

    The sprite is the object at its largest size; S is a little more than its diameter in pixels.
    """

    background: np.ndarray
    sprite: np.ndarray


def poses(spans: Sequence[Span], fps: float, rng: np.random.Generator) -> list[np.ndarray | None]:
    """Pose of every frame, float64 (4,) each, None where the object is absent.

    The pose runs on from span to span; after an absence it starts anew. Each motion has a speed of its own.
    """
    drawn: list[np.ndarray | None] = []
    pose = rng.random(4)
    for span in spans:
        if span.behaviour == "absent":
            drawn += [None] * span.num_frames
            pose = rng.random(4)
            continue
        step = np.zeros(4)
        if span.behaviour != "static":
            axis, direction = _AXIS[span.behaviour]
            step[axis] = direction * rng.uniform(*_TURNS_PER_GLANCE[axis]) / (_GLANCE_S * fps)
        path = (pose + step * np.arange(span.num_frames + 1)[:, None]) % 1.0
        drawn += list(path[:-1])
        pose = path[-1]
    return drawn


def random_scene(size: tuple[int, int], rng: np.random.Generator) -> Scene:
    """A scene with random colours, textures and shape for frames of `size` (width, height)."""
    width, height = size
    return Scene(_background(width, height, rng), _sprite(math.ceil(min(size) * SIZE_RANGE[1]), rng))


def draw(scene: Scene, pose: np.ndarray | None) -> np.ndarray:
    """One frame, uint8 (H, W, 3), RGB; the background alone if `pose` is None."""
    frame = scene.background.copy()
    if pose is None:
        return frame
    height, width = frame.shape[:2]
    period = min(height, width)
    diameter = period * size_of(pose)
    patch_px = math.ceil(diameter) + 3  # less than a period, so that copies never overlap
    left, top = (math.floor(c * period - patch_px / 2) for c in pose[:2])
    patch = cv2.warpAffine(
        scene.sprite,
        _placement(scene.sprite.shape[0], diameter, pose[2], pose[0] * period - left, pose[1] * period - top),
        (patch_px, patch_px),
        flags=cv2.INTER_LINEAR,
    )
    for y in range(top % period - period, height, period):
        for x in range(left % period - period, width, period):
            under = frame[max(y, 0) : max(y + patch_px, 0), max(x, 0) : max(x + patch_px, 0)]
            over = patch[max(-y, 0) :, max(-x, 0) :][: under.shape[0], : under.shape[1]]
            under[:] = under * (1.0 - over[..., 3:]) + over[..., :3] + 0.5
    return frame


def size_of(pose: np.ndarray) -> float:
    """Diameter of the circle around the object, in short sides of the frame."""
    return SIZE_RANGE[0] * math.exp(_LOG_SIZE_RATIO * float(pose[3]))


def _placement(sprite_px: int, diameter: float, turns: float, x: float, y: float) -> np.ndarray:
    """Affine matrix (2, 3) from the sprite to a patch in which the object's centre is at (x, y), pixel edges at 0."""
    scale = diameter / (sprite_px - 2 * _MARGIN_PX)
    cos, sin = scale * math.cos(math.tau * turns), scale * math.sin(math.tau * turns)
    centre = (sprite_px - 1) / 2
    return np.array(
        [
            [cos, -sin, x - 0.5 - (cos - sin) * centre],
            [sin, cos, y - 0.5 - (sin + cos) * centre],
        ]
    )


def _noise(width: int, height: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise, float32 (H, W), about 0 to 1, with `cells` bumps along the height."""
    grid = rng.random((cells, max(2, round(cells * width / height))), dtype=np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)


def _background(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Medium bright: a mixture of two colours by coarse noise, and fine noise over it."""
    one, two = rng.uniform(70, 185, size=(2, 3))
    mix = _noise(width, height, int(rng.integers(3, 8)), rng)[..., None]
    fine = _noise(width, height, int(rng.integers(16, 28)), rng)[..., None] - 0.5
    return np.clip(one * mix + two * (1 - mix) + 40 * fine, 0, 255).astype(np.uint8)


def _sprite(diameter_px: int, rng: np.random.Generator) -> np.ndarray:
    """A lopsided blob, half bright and half dark, with a spot off its centre: no turn maps it on itself."""
    px = diameter_px + 2 * _MARGIN_PX
    axis = (np.arange(px, dtype=np.float32) - (px - 1) / 2) / (diameter_px / 2)
    x, y = np.meshgrid(axis, axis)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)

    outline = np.ones_like(radius)
    for waves in range(1, 5):
        outline += rng.uniform(0.05, 0.20) * np.cos(waves * angle + rng.uniform(0, math.tau))
    outline /= outline.max()
    alpha = np.clip((outline - radius) * diameter_px / 4 + 0.5, 0, 1)  # an edge two pixels wide

    # A wavy line through the middle parts bright from dark.
    towards = rng.uniform(0, math.tau)
    across = math.cos(towards) * x + math.sin(towards) * y + 0.6 * (_noise(px, px, int(rng.integers(3, 6)), rng) - 0.5)
    mix = 1 / (1 + np.exp(-14 * across[..., None]))
    bright, dark, spot = rng.uniform(195, 255, 3), rng.uniform(0, 50, 3), rng.uniform(0, 255, 3)
    fine = _noise(px, px, int(rng.integers(6, 12)), rng)[..., None] - 0.5
    colour = bright * mix + dark * (1 - mix) + 50 * fine

    spot_at = rng.uniform(0, math.tau)
    spot_px = np.hypot(x - 0.45 * math.cos(spot_at), y - 0.45 * math.sin(spot_at))[..., None]
    inside = np.clip((rng.uniform(0.15, 0.25) - spot_px) * diameter_px / 4 + 0.5, 0, 1)
    colour = np.clip(colour * (1 - inside) + spot * inside, 0, 255)
    return np.concatenate([colour * alpha[..., None], alpha[..., None]], axis=2).astype(np.float32)
