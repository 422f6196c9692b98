"""The picture of `decisive plan`: a building from above, and where the goal is expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from decisive.dream_pictures import FloorMap, class_picture, ramp, resized
from decisive.pictures import (
    GAP,
    GOOD,
    HAIRLINE,
    INK,
    MARGIN,
    MUTED,
    PAPER,
    Color,
    Page,
    Pixels,
    clipped,
)
from decisive.scenes import Scene
from decisive.search import Goal
from world_models.pathdreamer.dreamer import Dreamed

MAP = (760, 860)
"""Most height and width of the map."""
_HEAD, _FOOT = 92, 58
_CAPTION = 26


@dataclass(frozen=True)
class Finding:
    """What the picture is of.

    Attributes:
        scene: the building.
        goal: what is looked for.
        seen: indices of viewpoints; the last is where one is.
        ranking: rows of `decisive.plan.ranked`.
        dreams: of the best viewpoints.
    """

    scene: Scene
    goal: Goal
    seen: Sequence[int]
    ranking: Sequence[Mapping[str, Any]]
    dreams: Mapping[int, Dreamed]


def draw_plan(finding: Finding) -> Pixels:
    """Draw it: the map, viewpoints coloured by their scores, and dreams of the best ones."""
    scene, ranking = finding.scene, finding.ranking
    floor = FloorMap(scene.graph, scene.house, MAP)
    height, width = floor.pixels.shape[:2]
    column = MARGIN + width + 2 * GAP
    # Each best place has a caption, its colours and its classes; all of them as high as the map.
    share = height // max(len(finding.dreams), 1)
    tall = min(150, max(90, (share - _CAPTION - GAP) // 2))
    below = len(finding.dreams) * (2 * tall + _CAPTION + GAP)
    page = Page(column + 2 * tall + MARGIN, _HEAD + max(height, below) + _FOOT)
    what = finding.goal.name.replace("_", " ")
    page.write(MARGIN, 38, f"Where is the {what}?", 24, bold=True)
    unit = "share of the view" if finding.goal.room is None else "probability"
    note = f"{scene.name} · seen from {len(finding.seen)} of {len(scene.graph)} viewpoints"
    page.write(MARGIN, 66, f"{note} · colour and number: {unit} in %", 15, MUTED)
    page.paste(floor.pixels, MARGIN, _HEAD)
    _room_names(page, finding, floor)
    top = max(ranking[0]["score"], 1e-9)
    for index in range(len(scene.graph)):
        x, y = _on_page(floor, scene, index)
        page.draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=MUTED, outline=PAPER)
    for row in reversed(ranking):
        shade = float(np.clip(row["score"] / top, 0, 1))
        r, g, b = (int(value) for value in ramp(np.array(1.0 - shade)))
        where = _on_page(floor, scene, row["viewpoint"])
        _score_mark(page, where, row["score"], (r, g, b), 12 + 8 * shade)
    for index in finding.seen:
        _seen_mark(page, _on_page(floor, scene, index), index == finding.seen[-1])
    _ring(page, _on_page(floor, scene, ranking[0]["viewpoint"]))
    y = _HEAD
    for place, (index, dream) in enumerate(finding.dreams.items(), 1):
        row = next(row for row in ranking if row["viewpoint"] == index)
        truth = f", truly {row['truth']}" if "truth" in row else ""
        text = f"{place}. {100 * row['score']:.0f} %{truth}"
        page.write(column, y + 16, clipped(text, 2 * tall, 15, True), 15, INK, bold=True)
        page.paste(resized(dream.rgb, 2 * tall, tall), column, y + _CAPTION)
        classes = resized(class_picture(dream.semantic), 2 * tall, tall, smooth=False)
        page.paste(classes, column, y + _CAPTION + tall)
        y += 2 * tall + _CAPTION + GAP
    _legend(page, top)
    return page.pixels()


def _on_page(floor: FloorMap, scene: Scene, index: int) -> tuple[float, float]:
    x, y = floor.point(scene.graph.positions[index])
    return MARGIN + x, _HEAD + y


def _room_names(page: Page, finding: Finding, floor: FloorMap) -> None:
    """Names of the true rooms, in a corner of each, and a frame around those of the goal."""
    house = finding.scene.house
    if house is None:
        return
    for room in house.rooms:
        x0, y0 = floor.point(np.array([room.clear.x0, room.clear.y1]))
        x1, y1 = floor.point(np.array([room.clear.x1, room.clear.y0]))
        box = (MARGIN + x0, _HEAD + y0, MARGIN + x1, _HEAD + y1)
        if room.purpose == finding.goal.name:
            page.draw.rectangle(box, outline=GOOD, width=5)
        wide = 8 + 8.2 * len(room.purpose)
        tag = (box[0] + 6, box[1] + 6, box[0] + 6 + wide, box[1] + 27)
        page.draw.rounded_rectangle(tag, 4, fill=PAPER)
        middle = ((tag[0] + tag[2]) / 2, (tag[1] + tag[3]) / 2)
        page.write(*middle, room.purpose, 13, INK, room.purpose == finding.goal.name, "mm")


def _score_mark(
    page: Page, where: tuple[float, float], score: float, colour: Color, radius: float
) -> None:
    x, y = where
    box = (x - radius, y - radius, x + radius, y + radius)
    page.draw.ellipse(box, fill=colour, outline=PAPER, width=2)
    dark = sum(colour) < 330
    number = f"{100 * score:.0f}"
    page.write(x, y + 1, number, 13, PAPER if dark else INK, True, "mm")


def _seen_mark(page: Page, where: tuple[float, float], here: bool) -> None:
    """A white disc with a dark eye; where one is, the eye is green."""
    x, y = where
    page.draw.ellipse((x - 13, y - 13, x + 13, y + 13), fill=PAPER, outline=INK, width=3)
    page.draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=GOOD if here else INK)


def _ring(page: Page, where: tuple[float, float]) -> None:
    x, y = where
    page.draw.ellipse((x - 27, y - 27, x + 27, y + 27), outline=INK, width=3)
    page.draw.ellipse((x - 29, y - 29, x + 29, y + 29), outline=PAPER, width=2)


def _legend(page: Page, top: float) -> None:
    """What marks and colours mean."""
    base = page.image.height - 26
    _seen_mark(page, (MARGIN + 13, base), True)
    x = page.write(MARGIN + 34, base, "here, seen", 14, MUTED, anchor="lm") + 20
    _seen_mark(page, (x + 13, base), False)
    x = page.write(x + 34, base, "seen", 14, MUTED, anchor="lm") + 24
    strip = ramp(np.linspace(1, 0, 120))[None].repeat(14, axis=0)
    x = page.write(x, base, "0", 14, MUTED, anchor="lm") + 6
    page.paste(strip, int(x), base - 7)
    page.draw.rectangle((int(x), base - 7, int(x) + 119, base + 6), outline=HAIRLINE)
    page.write(
        int(x) + 126,
        base,
        f"{100 * top:.0f} % · ring: look here first · grey: too far to dream of",
        14,
        MUTED,
        anchor="lm",
    )
