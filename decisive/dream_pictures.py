"""Pictures of dreamed panoramas: their colours, a sheet of a walk, a floor map."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from decisive.pictures import (
    ACCENT,
    GAP,
    GOOD,
    HAIRLINE,
    INK,
    MARGIN,
    MUTED,
    Color,
    Page,
    Pixels,
    clipped,
)
from decisive.walks import Step
from envs.indoor.categories import CATEGORIES, ID
from envs.indoor.graph import NavigationGraph
from envs.indoor.house import House
from learning.atomic import new_file

FAR = 10.0
"""Depth in metres where the colours of depth end."""
HOLE: Color = (222, 224, 228)
"""What the memory does not show."""
BESIDE = 132
"""Pixels left of a sheet's rows, for their names."""
_WIDEST, _NARROWEST, _PAGE = 320, 150, 1680
_RAMP = np.array(
    [(253, 231, 37), (122, 209, 81), (34, 168, 132), (42, 120, 142), (65, 68, 135), (68, 1, 84)],
    float,
)
_PLAIN: dict[str, Color] = {
    "void": (0, 0, 0),
    "wall": (203, 207, 214),
    "floor": (168, 140, 112),
    "ceiling": (240, 240, 243),
    "door": (131, 88, 54),
    "window": (148, 200, 235),
}


def _palette() -> NDArray[np.uint8]:
    """Colours of the classes, `(41, 3)`: those of the building plain, furniture in many hues."""
    colours = []
    for number, name in enumerate(CATEGORIES):
        hue = number * 0.618034 % 1.0
        # Hues come round after 21: those behind are paler.
        rgb = colorsys.hsv_to_rgb(hue, 0.8 if number < 21 else 0.42, (0.95, 0.75, 0.55)[number % 3])
        colours.append(_PLAIN.get(name, tuple(round(255 * value) for value in rgb)))
    return np.array(colours, np.uint8)


PALETTE = _palette()
"""Colour of each class of mpcat40, `(41, 3)` uint8."""


def class_picture(semantic: NDArray[np.uint8]) -> Pixels:
    """Ids as colours."""
    return PALETTE[np.minimum(semantic, len(PALETTE) - 1)]


def depth_picture(depth: NDArray[np.floating]) -> Pixels:
    """Depth as colours, the brighter the nearer; black where there is none."""
    return ramp(np.clip(depth / FAR, 0, 1)) * (depth > 0)[..., None].astype(np.uint8)


def ramp(values: NDArray[np.floating]) -> Pixels:
    """Values in [0, 1] from bright yellow to dark violet."""
    at = np.asarray(values, float) * (len(_RAMP) - 1)
    low = np.minimum(at.astype(int), len(_RAMP) - 2)
    part = (at - low)[..., None]
    return np.rint(_RAMP[low] * (1 - part) + _RAMP[low + 1] * part).astype(np.uint8)


def write_panorama(folder: Path, stem: str, view: object) -> dict[str, str]:
    """Write a panorama as three PNG files.

    `_rgb` has the colours. `_classes` has the ids of mpcat40 as pixel values, with a palette that
    colours them. `_depth` has 16-bit millimetres along the ray, 0 where there is none.

    Args:
        folder: where to.
        stem: beginning of their names.
        view: has `rgb`, `semantic` and `depth`.

    Returns:
        Names of the files by `rgb`, `classes` and `depth`.
    """
    rgb, semantic, depth = (getattr(view, name) for name in ("rgb", "semantic", "depth"))
    classes = Image.fromarray(semantic)
    classes.putpalette(PALETTE.tobytes())
    millimetres = np.clip(np.rint(1000.0 * depth), 0, 65_535).astype(np.uint16)
    pictures = {
        "rgb": Image.fromarray(rgb),
        "classes": classes,
        "depth": Image.fromarray(millimetres),
    }
    names = {}
    for kind, picture in pictures.items():
        names[kind] = f"{stem}_{kind}.png"
        with new_file(folder / names[kind]) as beside:
            picture.save(beside, format="PNG")
    return names


def write_png(path: Path, picture: Pixels) -> None:
    """Write a large picture, whole or not at all; half as long as with every byte squeezed out."""
    with new_file(path) as beside:
        Image.fromarray(picture).save(beside, format="PNG")


def resized(pixels: Pixels, width: int, height: int, smooth: bool = True) -> Pixels:
    """A picture in another size, smooth for colours, else of whole pixels."""
    how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), how))


def contact_sheet(
    steps: Sequence[Step], title: str, scores: Mapping[str, Mapping[str, float]]
) -> Pixels:
    """A walk on one page: steps from left to right; truth, memory and dreams from top to bottom.

    Args:
        steps: of the walk.
        title: printed above.
        scores: of `decisive.walks.measures`, printed below.
    """
    width = min(_WIDEST, max(_NARROWEST, (_PAGE - BESIDE) // len(steps) - GAP)) // 2 * 2
    rows = _rows(steps)
    head, foot = 96, 96
    page = Page(
        2 * MARGIN + BESIDE + len(steps) * (width + GAP) - GAP,
        head + len(rows) * (width // 2 + GAP) + foot,
    )
    room = page.image.width - 2 * MARGIN
    page.write(MARGIN, 38, clipped(title, room, 22, bold=True), 22, bold=True)
    for column, step in enumerate(steps):
        x = MARGIN + BESIDE + column * (width + GAP)
        seen = not step.dreams
        page.draw.ellipse((x, head - 26, x + 12, head - 14), fill=GOOD if seen else ACCENT)
        share = f"{100 * step.imagined:.0f} %"
        word = "seen" if seen else f"imagined, {share} new" if width > 190 else f"{share} new"
        page.write(x + 18, head - 15, f"{step.place.label}: {word}", 14, GOOD if seen else ACCENT)
    for number, (name, panels) in enumerate(rows):
        y = head + number * (width // 2 + GAP)
        page.write(MARGIN, y + width // 4, name, 14, MUTED, anchor="lm")
        for column, panel in enumerate(panels):
            x = MARGIN + BESIDE + column * (width + GAP)
            if panel is None:
                page.draw.rectangle((x, y, x + width - 1, y + width // 2 - 1), outline=HAIRLINE)
                page.write(x + width / 2, y + width / 4, "-", 14, HAIRLINE, anchor="mm")
                continue
            page.paste(resized(panel, width, width // 2, not name.startswith("classes")), x, y)
    base = page.image.height - foot + 22
    page.write(MARGIN, base, clipped(score_line(scores), room, 14), 14, INK)
    _legend(page, steps, base + 34)
    return page.pixels()


def score_line(scores: Mapping[str, Mapping[str, float]]) -> str:
    """The measures in one sentence."""
    hole, fill = scores.get("hole", {}), scores.get("hole_nearest_fill", {})
    if "depth_mae" not in hole:
        return "Nothing to measure: all was seen, or no truth is known."
    parts = [f"Never seen pixels: depth is off by {hole['depth_mae']:.2f} m"]
    if "accuracy" in hole:
        parts.append(f"{100 * hole['accuracy']:.0f} % of the classes are right")
    line = ", ".join(parts)
    other = f"{fill['depth_mae']:.2f} m"
    if "accuracy" in fill:
        other += f" and {100 * fill['accuracy']:.0f} %"
    return f"{line} (copying the nearest seen pixel: {other})."


def _rows(steps: Sequence[Step]) -> list[tuple[str, list[Pixels | None]]]:
    """Names and panels of a sheet's rows; None where there is nothing to show."""
    rows: list[tuple[str, list[Pixels | None]]] = []

    def add(name: str, panels: list[Pixels | None]) -> None:
        if any(panel is not None for panel in panels):
            rows.append((name, panels))

    add("truth", [None if s.truth is None else s.truth.rgb for s in steps])
    add("memory", [_memory(step) for step in steps])
    for sample in range(max((len(step.dreams) for step in steps), default=0)):
        add(f"dream {sample + 1}", [s.dreams[sample].rgb if s.dreams else None for s in steps])
    for kind, draw in (("classes", class_picture), ("depth", depth_picture)):
        field = "semantic" if kind == "classes" else "depth"
        add(
            f"{kind}, truth",
            [None if s.truth is None else draw(getattr(s.truth, field)) for s in steps],
        )
        add(
            f"{kind}, dream 1",
            [draw(getattr(s.dreams[0], field)) if s.dreams else None for s in steps],
        )
    return rows


def _memory(step: Step) -> Pixels | None:
    """What the first sample's memory showed from a place."""
    if not step.dreams:
        return None
    guidance = step.dreams[0].guidance
    hole = np.array(HOLE, np.uint8)
    return np.where(guidance.valid[..., None], guidance.rgb, hole).astype(np.uint8)


def _legend(page: Page, steps: Sequence[Step], y: int) -> None:
    """Colours and names of the classes that are seen or dreamed of, the most frequent first."""
    shares: dict[str, float] = {}
    for step in steps:
        for name, share in step.classes.items():
            shares[name] = shares.get(name, 0.0) + share
    x: float = MARGIN
    for name in sorted(shares, key=lambda name: -shares[name]):
        word = name.replace("_", " ")
        if x + 26 + 8 * len(word) > page.image.width - MARGIN:
            break
        page.draw.rectangle((x, y - 11, x + 13, y + 2), tuple(PALETTE[ID[name]].tolist()), HAIRLINE)
        x = page.write(x + 19, y, word, 13, MUTED) + 16


class FloorMap:
    """A building from above, to draw on.

    Attributes:
        pixels: `(H, W, 3)`; north (+y) is up.
    """

    def __init__(
        self, graph: NavigationGraph, house: House | None, size: tuple[int, int], fit: bool = False
    ) -> None:
        """Draw a house with its ceiling off; without one, the ways of the graph.

        Args:
            graph: viewpoints.
            house: what they are in, if it is procedural.
            size: most height and width in pixels.
            fit: whether the map is exactly so large, white around the building.
        """
        positions = graph.positions[:, :2]
        if house is None:
            low, high = positions.min(axis=0) - 1.0, positions.max(axis=0) + 1.0
        else:
            outline = house.plan.outline.inset(-0.15)
            low, high = np.array([outline.x0, outline.y0]), np.array([outline.x1, outline.y1])
        extent = high - low
        self.scale = min(size[1] / extent[0], size[0] / extent[1])
        """Pixels a metre."""
        self._corner = np.array([low[0], high[1]])
        if house is None:
            width, height = (max(1, math.floor(value * self.scale)) for value in extent)
            page = Page(width, height)
            for i, others in enumerate(graph.neighbors):
                for j in others:
                    page.draw.line((*self.point(positions[i]), *self.point(positions[j])), HAIRLINE)
            self.pixels = page.pixels()[:height, :width].copy()
        else:
            from envs.indoor.procedural import render_top_down

            # At twice the resolution, then smoothed: walls are thin.
            large = render_top_down(house, 2 * self.scale)
            width, height = large.shape[1] // 2, large.shape[0] // 2
            self.pixels = resized(large, width, height).copy()
        if fit:
            framed = np.full((*size, 3), 255, np.uint8)
            top, left = (
                (outer - inner) // 2
                for outer, inner in zip(size, self.pixels.shape[:2], strict=True)
            )
            inner = self.pixels[: size[0], : size[1]]
            framed[max(top, 0) :, max(left, 0) :][: len(inner), : inner.shape[1]] = inner
            self.pixels = framed
            self._corner += np.array([-max(left, 0), max(top, 0)]) / self.scale

    def point(self, position: NDArray[np.floating]) -> tuple[float, float]:
        """Where on the map a position is, x and y in pixels."""
        return (
            float((position[0] - self._corner[0]) * self.scale),
            float((self._corner[1] - position[1]) * self.scale),
        )
