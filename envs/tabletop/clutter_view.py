"""How a scene of the cluttered table is seen: camera, light, and the painted table.

Bullet draws the things; the table is painted here, because its pattern is a formula of the point of
the table that a pixel sees. So is a soft shadow under every thing: TinyRenderer's own shadows fall
in the wrong places at this scale.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pybullet
from numpy.typing import NDArray
from pybullet_utils.bullet_client import BulletClient

from envs.tabletop.clutter_bodies import Color

Pattern = Literal["plain", "stripes", "checks", "grain", "speckles"]
PATTERNS: tuple[Pattern, ...] = ("plain", "stripes", "checks", "grain", "speckles")
FIELD_OF_VIEW = 32.0
"""Vertical and horizontal, degrees."""
_NEAR, _FAR = 0.1, 4.0
_MAX_SHADOW = 0.42


@dataclass(frozen=True)
class Table:
    """How the table looks: a pattern of two colours, `period` metres, turned by `angle` (rad)."""

    pattern: Pattern
    colors: tuple[Color, Color]
    period: float
    angle: float
    phase: float


@dataclass(frozen=True)
class Strip:
    """A rectangle painted on the table: x and y from `low` to `high`, metres."""

    low: tuple[float, float]
    high: tuple[float, float]
    color: Color


@dataclass(frozen=True)
class View:
    """Camera and light.

    Attributes:
        eye: position of the camera, metres, world frame.
        target: point in the middle of the picture.
        light: direction towards the light; it need not have length 1.
        ambient: light from everywhere, from 0 to 1.
        tint: of the light, RGB around 1.
        noise: standard deviation of the sensor's noise, in levels of 255.
    """

    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    light: tuple[float, float, float] = (-0.6, 0.4, 1.6)
    ambient: float = 0.6
    tint: Color = (1.0, 1.0, 1.0)
    noise: float = 0.0


def draw_view(rng: np.random.Generator, distance: tuple[float, float]) -> View:
    """A camera on the robot's side, so that world y, left, is left in the picture.

    Args:
        rng: where the numbers come from.
        distance: least and most, metres.
    """
    target = (0.40 + rng.uniform(-0.015, 0.015), rng.uniform(-0.015, 0.015), 0.015)
    azimuth = math.pi + rng.uniform(-0.6, 0.6)
    elevation = rng.uniform(math.radians(38), math.radians(66))
    reach, length = math.cos(elevation), rng.uniform(*distance)
    eye = (
        target[0] + length * reach * math.cos(azimuth),
        target[1] + length * reach * math.sin(azimuth),
        target[2] + length * math.sin(elevation),
    )
    around, lean = rng.uniform(0, 2 * math.pi), rng.uniform(0.15, 0.8)
    light = (lean * math.cos(around), lean * math.sin(around), 1.0)
    warmth = rng.uniform(-0.07, 0.07)
    level = rng.uniform(0.82, 1.08)
    tint = (level * (1 + warmth), level, level * (1 - warmth))
    return View(eye, target, light, rng.uniform(0.45, 0.7), tint, rng.uniform(0.0, 3.0))


def draw_table(rng: np.random.Generator, colors: tuple[Color, Color]) -> Table:
    """A pattern of two colours, the second drawn towards the first."""
    weight = rng.uniform(0.35, 0.8)
    first, second = colors
    mixed = tuple((1 - weight) * a + weight * b for a, b in zip(second, first, strict=True))
    pattern = PATTERNS[rng.integers(len(PATTERNS))]
    assert len(mixed) == 3
    angle, phase = rng.uniform(0, math.pi), rng.uniform(0, 10)
    return Table(pattern, (first, mixed), rng.uniform(0.02, 0.08), angle, phase)


def photograph(
    client: BulletClient,
    view: View,
    table: Table,
    size: int,
    rng: np.random.Generator,
    strips: Sequence[Strip] = (),
    shadows: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]] = (),
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """A picture of the scene, drawn at twice its size and averaged.

    Args:
        client: Bullet server; the table is body 0.
        view: camera and light.
        table: what to paint where no thing is.
        size: pixels of a side.
        rng: of the sensor's noise.
        strips: painted on the table.
        shadows: lowest and highest corners of things that throw one.

    Returns:
        `(size, size, 3)` uint8 RGB and `(2 size, 2 size)` int64 ids of bodies; below 1 is table.
    """
    fine = 2 * size
    server: Any = client
    _, _, rgba, _, seen = server.getCameraImage(
        fine,
        fine,
        server.computeViewMatrix(view.eye, view.target, (0, 0, 1)),
        server.computeProjectionMatrixFOV(FIELD_OF_VIEW, 1.0, _NEAR, _FAR),
        lightDirection=list(view.light),
        lightAmbientCoeff=view.ambient,
        lightDiffuseCoeff=1.0 - view.ambient,
        lightSpecularCoeff=0.05,
        shadow=0,
        renderer=pybullet.ER_TINY_RENDERER,
    )
    image = np.asarray(rgba, np.float32).reshape(fine, fine, 4)[..., :3] / np.float32(255)
    bodies = np.asarray(seen, np.int64).reshape(fine, fine)
    free = bodies < 1
    points = _table_points(view, fine)[free]
    image[free] = _paint(table, points, strips) * _shade(points, view.light, shadows)[:, None]
    image = image.reshape(size, 2, size, 2, 3).mean((1, 3)) * np.float32(255)
    image = image * np.asarray(view.tint, np.float32)
    image += np.float32(view.noise) * rng.standard_normal(image.shape, np.float32)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), bodies


def _table_points(view: View, fine: int) -> NDArray[np.float32]:
    """`(fine, fine, 2)` x and y where the ray of each pixel meets z = 0."""
    forward = np.subtract(view.target, view.eye)
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    reach = math.tan(math.radians(FIELD_OF_VIEW) / 2)
    steps = reach * ((np.arange(fine) + 0.5) / fine * 2 - 1)
    rays = forward + steps[None, :, None] * right - steps[:, None, None] * up
    # The camera looks down by more than half of its field of view: every ray meets the table.
    scale = view.eye[2] / -rays[..., 2:]
    return (np.asarray(view.eye[:2]) + scale * rays[..., :2]).astype(np.float32)


def _paint(
    table: Table, points: NDArray[np.float32], strips: Sequence[Strip]
) -> NDArray[np.float32]:
    """`(n, 3)` colours of points of the table."""
    weight = _pattern(table, points)[:, None]
    first, second = (np.asarray(paint, np.float32) for paint in table.colors)
    colors = (first + weight * (second - first)).astype(np.float32)
    for strip in strips:
        inside = ((points > strip.low) & (points < strip.high)).all(1)
        colors[inside] = 0.25 * colors[inside] + 0.75 * np.asarray(strip.color, np.float32)
    return colors


def _pattern(table: Table, points: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much of the second colour each point has, from 0 to 1."""
    cos, sin = math.cos(table.angle), math.sin(table.angle)
    u = (cos * points[:, 0] + sin * points[:, 1]) / table.period + table.phase
    v = (cos * points[:, 1] - sin * points[:, 0]) / table.period + table.phase
    if table.pattern == "plain":
        weight = np.zeros_like(u)
    elif table.pattern == "stripes":
        weight = (u % 1.0 < 0.5).astype(np.float32)
    elif table.pattern == "checks":
        weight = ((np.floor(u) + np.floor(v)) % 2).astype(np.float32)
    elif table.pattern == "grain":
        bent = 3 * u + 0.6 * np.sin(0.7 * v) + 0.3 * np.sin(2.1 * v + u)
        weight = 0.5 + 0.5 * np.sin(2 * math.pi * bent)
    else:
        # A hash of the cell, so that the speckles need no stored picture.
        hashed = np.sin(np.floor(6 * u) * 12.9898 + np.floor(6 * v) * 78.233) * 43758.547
        weight = (hashed % 1.0) ** 2
    return weight.astype(np.float32)


def _shade(
    points: NDArray[np.float32],
    light: Sequence[float],
    boxes: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> NDArray[np.float32]:
    """What shadows leave of the light at each point, from about 0.5 to 1."""
    shade = np.ones(len(points), np.float32)
    lean = np.asarray(light[:2]) / light[2]
    for low, high in boxes:
        # Soft and thin when the thing is in the air.
        blur = 0.010 + 0.35 * max(float(low[2]), 0.0)
        middle = (low[:2] + high[:2]) / 2 - lean * (0.25 * low[2] + 0.35 * high[2])
        spread = (high[:2] - low[:2]) / 2 * 0.85 + blur
        scaled = (points - middle.astype(np.float32)) / spread.astype(np.float32)
        distance = scaled[:, 0] ** 2 + scaled[:, 1] ** 2
        near = distance < 2.5
        depth = np.float32(_MAX_SHADOW * min(1.0, 0.02 / blur))
        shade[near] *= 1 - depth * np.exp(-(distance[near] ** 2))
    return shade
