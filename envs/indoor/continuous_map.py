"""A picture of a walk through a house: from above, with the rays, the route and the trail."""

import math
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from envs.indoor.continuous import ARRIVED, REACH
from envs.indoor.house import BODY_RADIUS, House
from envs.indoor.procedural import render_top_down

if TYPE_CHECKING:
    from envs.indoor.continuous import HouseNavEnv

Array = NDArray[np.float64]
Spot = tuple[float, float]

LONGER_SIDE = 720
"""Pixels of the longer side of the picture."""

_BORDER = 0.15  # what `render_top_down` shows beyond the outline, metres
_FINER = 2  # drawn larger and shrunk, for smooth lines


def draw_walk(env: "HouseNavEnv") -> NDArray[np.uint8]:
    """Draw the present state; +y of the house is up.

    Args:
        env: after its reset.

    Returns:
        `(H, W, 3)` uint8. Green: the route and its goal, rings where viewpoints count as reached.
        Yellow: what the rays see. Blue: the body, where it looks, and its trail. Red: the body
        while something stops it.
    """
    floor, corner, scale = _floor(env.house)
    image = floor.copy()
    draw = ImageDraw.Draw(image, "RGBA")

    def spot(point: Array) -> Spot:
        return (point[0] - corner[0]) * scale, (corner[1] - point[1]) * scale

    def ring(point: Array, radius: float, fill: str | None, line: str) -> None:
        x, y = spot(point)
        r = radius * scale
        draw.ellipse((x - r, y - r, x + r, y + r), fill=fill, outline=line, width=2 * _FINER)

    x, y, yaw = env.pose
    here, angles = np.array([x, y]), env.ray_angles()
    ends = env.ground.rays(here, angles, REACH)[:, None] * np.stack(
        (np.cos(angles), np.sin(angles)), axis=-1
    )
    draw.polygon([spot(end) for end in here + ends], fill="#ffd54f38")
    for end in here + ends:
        draw.line((*spot(here), *spot(end)), fill="#ffb30090", width=_FINER)
    route = env.route
    if env.guide == "route":
        draw.line([spot(point) for point in route], fill="#43a047c0", width=2 * _FINER)
        for point in route[env.next_waypoint : -1]:
            ring(point, ARRIVED, None, "#43a047c0")
    ring(route[-1], ARRIVED, "#43a04790", "#1b5e20")
    if len(env.trail) > 1:
        draw.line([spot(point) for point in env.trail], fill="#1565c0", width=3 * _FINER)
    ring(here, BODY_RADIUS, "#e53935" if env.touching else "#1e88e5", "#0d47a1")
    nose = here + BODY_RADIUS * np.array([math.cos(yaw), math.sin(yaw)])
    draw.line((*spot(here), *spot(nose)), fill="white", width=3 * _FINER)
    small = image.resize((image.width // _FINER, image.height // _FINER), Image.Resampling.BOX)
    return np.asarray(small, np.uint8)


@lru_cache(maxsize=4)
def _floor(house: House) -> tuple[Image.Image, Spot, float]:
    """The house without the walk, its upper left corner in metres, and pixels per metre."""
    outline = house.plan.outline.inset(-_BORDER)
    scale = LONGER_SIDE / max(outline.size)
    image = Image.fromarray(render_top_down(house, scale))
    size = cast(tuple[int, int], tuple(_FINER * side for side in image.size))
    return image.resize(size), (outline.x0, outline.y1), _FINER * scale
