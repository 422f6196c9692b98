"""Pictures of forecasts on grids: maps of a lead time, a film over them, what inputs matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from decisive.pictures import ACCENT, GAP, HAIRLINE, INK, MARGIN, MUTED, Color, Page, Pixels, font

UNKNOWN: Color = (214, 214, 212)
"""Where nothing was measured."""
_SIDE = 420
_HEAD, _FOOT = 64, 58
_RAIN = np.array(
    [
        (255, 255, 255), (205, 232, 247), (138, 199, 233), (60, 150, 205), (25, 98, 165),
        (32, 50, 120), (120, 30, 120), (200, 40, 100), (245, 130, 60),
    ],
    float,
)  # fmt: skip
_RAIN_TICKS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
_CHANCE = np.array(
    [(255, 255, 255), (214, 232, 226), (146, 199, 184), (58, 150, 133), (0, 96, 84), (0, 48, 46)],
    float,
)


@dataclass(frozen=True)
class View:
    """What a page shows of one moment.

    Attributes:
        title: of the page.
        caption: below it.
        observed: `(H, W)` the newest frame.
        observed_title: of its panel.
        chance: `(H, W)` probability.
        chance_title: of its panel.
        dim: `(H, W)` where the forecast rests on nothing known, drawn paler.
        truth: `(H, W)` what came true, or None.
        truth_title: of its panel.
        rain: whether values are rain in mm/h; else they are in [0, 1].
        points: rows and columns of a route, drawn over the chance.
    """

    title: str
    caption: str
    observed: NDArray[np.floating]
    observed_title: str
    chance: NDArray[np.floating]
    chance_title: str
    dim: NDArray[np.bool_]
    truth: NDArray[np.floating] | None
    truth_title: str
    rain: bool
    points: Sequence[tuple[float, float]] = ()


def rain_picture(rain: NDArray[np.floating]) -> Pixels:
    """Rain in mm/h as colours on a logarithmic scale; unknown is grey, below 0.1 white."""
    place = np.interp(
        np.log(np.maximum(rain, 1e-6)), np.log(_RAIN_TICKS), np.linspace(0, 1, len(_RAIN_TICKS))
    )
    pixels = _ramp(place, _RAIN)
    pixels[~(rain >= _RAIN_TICKS[0])] = (255, 255, 255)
    pixels[np.isnan(rain)] = UNKNOWN
    return pixels


def chance_picture(chance: NDArray[np.floating], dim: NDArray[np.bool_] | None = None) -> Pixels:
    """Probabilities as colours; unknown is grey, and paler where `dim` says so."""
    pixels = _ramp(np.nan_to_num(chance), _CHANCE)
    if dim is not None:
        grey = 0.5 * pixels[dim] + 0.5 * np.array(UNKNOWN)
        pixels[dim] = grey.astype(np.uint8)
    pixels[np.isnan(chance)] = UNKNOWN
    return pixels


def page(view: View) -> Pixels:
    """The newest frame, the probability, and what came true, beside each other."""
    values = rain_picture if view.rain else chance_picture
    panels = [(view.observed_title, values(view.observed), view.rain)]
    panels.append((view.chance_title, chance_picture(view.chance, view.dim), False))
    if view.truth is not None:
        panels.append((view.truth_title, values(view.truth), view.rain))
    rows, columns = view.chance.shape
    scale = _SIDE / max(rows, columns)
    height, width = max(1, round(rows * scale)), max(1, round(columns * scale))
    wide = 2 * MARGIN + 3 * width + 2 * GAP  # room for the truth: films keep their size
    sheet = Page(wide, _HEAD + height + _FOOT + MARGIN)
    sheet.write(MARGIN, 26, view.title, 18, bold=True)
    sheet.write(MARGIN, 50, view.caption, 13, MUTED)
    for number, (title, pixels, rain) in enumerate(panels):
        left = MARGIN + number * (width + GAP)
        sheet.paste(_fitted(pixels, height, width), left, _HEAD)
        box = (left - 1, _HEAD - 1, left + width, _HEAD + height)
        sheet.draw.rectangle(box, outline=HAIRLINE)
        _legend(sheet, left, _HEAD + height + 8, width, title, rain)
        if number == 1 and view.points:
            _route(sheet, left, scale, view.points)
    return sheet.pixels()


def _route(sheet: Page, left: int, scale: float, points: Sequence[tuple[float, float]]) -> None:
    way = [(left + column * scale, _HEAD + row * scale) for row, column in points]
    sheet.draw.line(way, fill=ACCENT, width=3, joint="curve")
    for x, y in (way[0], way[-1]):
        sheet.draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=ACCENT, outline=(255, 255, 255))


def _legend(sheet: Page, left: int, top: int, width: int, title: str, rain: bool) -> None:
    """A bar of colours with ticks, and what it says."""
    sheet.write(left, top + 12, title, 13, INK)
    bar = np.linspace(0, 1, width)[None].repeat(8, axis=0)
    sheet.paste(_ramp(bar, _RAIN if rain else _CHANCE), left, top + 20)
    texts = [f"{tick:g}" for tick in _RAIN_TICKS] if rain else ["0", "25", "50", "75", "100 %"]
    for k, text in enumerate(texts):
        x = left + k * (width - 1) / (len(texts) - 1)
        anchor = "ls" if k == 0 else "rs" if k == len(texts) - 1 else "ms"
        sheet.write(x, top + 42, text, 11, MUTED, anchor=anchor)


def attribution_page(
    title: str,
    caption: str,
    rows: Sequence[str],
    columns: Sequence[str],
    shares: Sequence[Sequence[float]],
) -> Pixels:
    """A table of shares, the darker the larger: inputs down, lead times across."""
    cell_width, cell_height = 84, 30
    left = MARGIN + round(max(font(13).getlength(name) for name in rows)) + GAP
    needed = max(font(16, True).getlength(title), font(12).getlength(caption))
    wide = max(left + cell_width * len(columns), MARGIN + round(needed)) + MARGIN
    sheet = Page(wide, 92 + cell_height * len(rows) + MARGIN)
    sheet.write(MARGIN, 26, title, 16, bold=True)
    sheet.write(MARGIN, 48, caption, 12, MUTED)
    largest = max((max(row) for row in shares), default=0.0) or 1.0
    for k, name in enumerate(columns):
        sheet.write(left + (k + 0.5) * cell_width, 84, name, 13, MUTED, anchor="ms")
    for r, (name, row) in enumerate(zip(rows, shares, strict=True)):
        top = 92 + r * cell_height
        sheet.write(left - GAP, top + 20, name, 13, INK, anchor="rs")
        for k, share in enumerate(row):
            x = left + k * cell_width
            color = tuple(int(c) for c in _ramp(np.array([[share / largest]]), _CHANCE)[0, 0])
            sheet.draw.rectangle((x, top, x + cell_width - 2, top + cell_height - 2), fill=color)
            ink = (255, 255, 255) if share / largest > 0.55 else INK
            text = f"{100 * share:.1f} %" if share >= 0.001 or not share else "< 0.1 %"
            sheet.write(x + cell_width / 2, top + 20, text, 13, ink, anchor="ms")
    return sheet.pixels()


def _fitted(pixels: Pixels, height: int, width: int) -> Pixels:
    """Means of cells where there are too many, sharp cells where there are few."""
    few = pixels.shape[0] < height
    way = Image.Resampling.NEAREST if few else Image.Resampling.BOX
    return np.asarray(Image.fromarray(pixels).resize((width, height), way))


def _ramp(values: NDArray[np.floating], colours: NDArray[np.float64]) -> Pixels:
    """Values in [0, 1] between colours."""
    place = np.clip(np.nan_to_num(values), 0, 1) * (len(colours) - 1)
    low = np.minimum(place.astype(int), len(colours) - 2)
    share = (place - low)[..., None]
    mixed = (1 - share) * colours[low] + share * colours[low + 1]
    return mixed.round().astype(np.uint8)
