"""A map of a walk: the graph from above, the path described, and where one has been."""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from envs.indoor.graph import NavigationGraph
from envs.indoor.r2r_data import Instruction
from envs.indoor.viewing import HALF_WIDTH, angles_of

SIZE = 480
_TEXT_HEIGHT = 96
_MARGIN = 30


def draw_map(
    graph: NavigationGraph, instruction: Instruction, walked: Sequence[int], view: int
) -> NDArray[np.uint8]:
    """Draw it; north (+y) is up.

    Args:
        graph: of the building.
        instruction: its path in green (a disc at the goal), its text below the map.
        walked: indices of the viewpoints visited, in blue; the last one is where one is.
        view: which way one looks, the blue wedge.

    Returns:
        `(576, 480, 3)` uint8.
    """
    level = graph.positions[:, :2]
    low, high = level.min(axis=0), level.max(axis=0)
    scale = (SIZE - 2 * _MARGIN) / max(float((high - low).max()), 1.0)
    middle = (low + high) / 2
    points = (level - middle) * (scale, -scale) + SIZE / 2
    image = Image.new("RGB", (SIZE, SIZE + _TEXT_HEIGHT), "white")
    draw = ImageDraw.Draw(image)

    def disc(point: NDArray[np.float64], radius: float, color: str) -> None:
        x, y = point.tolist()
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)

    def line(places: Sequence[int], color: str, width: int) -> None:
        draw.line([tuple(points[place].tolist()) for place in places], fill=color, width=width)

    for place, others in enumerate(graph.neighbors):
        for other in others:
            line((place, other), "#cfd8dc", 1)
    for point in points:
        disc(point, 2, "#90a4ae")
    described = [graph.index(name) for name in instruction.path]
    line(described, "#66bb6a", 6)
    if instruction.has_goal:
        disc(points[described[-1]], 8, "#2e7d32")
    line(walked, "#1e88e5", 3)
    here = points[walked[-1]]
    # PIL measures angles clockwise from +x, headings are clockwise from +y.
    ahead, spread = math.degrees(angles_of(view)[0]) - 90.0, math.degrees(HALF_WIDTH)
    x, y = here.tolist()
    draw.pieslice((x - 20, y - 20, x + 20, y + 20), ahead - spread, ahead + spread, "#90caf9")
    disc(here, 5, "#0d47a1")
    text = "\n".join(textwrap.wrap(instruction.text, 76)[:6])
    draw.multiline_text((10, SIZE + 4), text, fill="black")
    return np.asarray(image, np.uint8)
