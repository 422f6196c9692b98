"""The picture of one walk of `decisive ros walk`: a house, the way asked for, the one driven."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decisive.dream_pictures import FloorMap
from decisive.pictures import GOOD, INK, MARGIN, MUTED, PAPER, Page, Pixels, clipped
from envs.indoor.graph import NavigationGraph
from envs.indoor.house import House

MAP = (760, 1000)
"""Most height and width of the map in pixels."""
TRAIL = (21, 101, 192)
_LINE = 24


def draw_walk(
    graph: NavigationGraph, house: House, row: Mapping[str, Any], trail: NDArray[np.float64]
) -> Pixels:
    """Draw it.

    Args:
        graph: of the house.
        house: where.
        row: of `per_episode`: `instruction`, `asked` and `path` (numbers of viewpoints), `why`,
            `success`, `navigation_error`.
        trail: `(T, 2)` where the base was, metres.

    Returns:
        `(H, W, 3)` uint8. Green: the way that the instruction describes, and its goal. Blue: where
        the base drove. White: viewpoints at which it looked around.
    """
    floor = FloorMap(graph, house, MAP)
    height, width = floor.pixels.shape[:2]
    lines = textwrap.wrap(f"“{row['instruction']}”", max(20, width // 9))
    top = MARGIN + _LINE * len(lines) + MARGIN
    page = Page(width + 2 * MARGIN, top + height + 4 * MARGIN + _LINE)
    for k, line in enumerate(lines):
        page.write(MARGIN, MARGIN + _LINE * (k + 1) - 6, line, 17, INK)
    page.paste(floor.pixels, MARGIN, top)

    def spot(point: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
        x, y = floor.point(np.asarray(point, float))
        return MARGIN + x, top + y

    def disc(at: tuple[float, float], radius: float, fill: Any, line: Any) -> None:
        box = (at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius)
        page.draw.ellipse(box, fill=fill, outline=line, width=3)

    asked = [spot(graph.positions[k]) for k in row["asked"]]
    page.draw.line(asked, fill=GOOD, width=9, joint="curve")
    disc(asked[-1], 17, None, GOOD)
    if len(trail) > 1:
        page.draw.line([spot(point) for point in trail], fill=TRAIL, width=4, joint="curve")
    for k in row["path"]:
        disc(spot(graph.positions[k]), 6, PAPER, TRAIL)
    disc(asked[0], 9, INK, PAPER)
    end = "reached" if row["success"] else "missed"
    text = f"{end}: {row['why']}, {row['navigation_error']:.1f} m from the goal"
    foot = top + height + 2 * MARGIN
    page.write(MARGIN, foot, text, 16, GOOD if row["success"] else INK, True)
    legend = "green: asked, with its goal · blue: driven · black: start · white: looked around"
    page.write(MARGIN, foot + _LINE, clipped(legend, width, 15), 15, MUTED)
    return page.pixels()
