"""Drawing of instances in an image: tinted masks, boxes with numbers, and a list of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from decisive.pictures import (
    GAP,
    HAIRLINE,
    INK,
    MARGIN,
    MUTED,
    PAPER,
    Color,
    Page,
    Pixels,
    clipped,
    font,
)

PALETTE: tuple[Color, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
"""Of Okabe and Ito, told apart by colour-blind people; numbers tell the rest."""
_TALLEST, _WIDEST = 480, 720
_LEGEND = 250
_HEAD, _ROW = 34, 22
_LEAST_ROWS = 8
_TINT = 0.45


@dataclass(frozen=True)
class Shown:
    """An instance as the page tells of it.

    Attributes:
        box: `x1, y1, x2, y2` in pixels of the image.
        mask: `(H, W)` bool.
        name: of the class, or the label that a detector gave.
        score: from 0 to 1; None says none.
        given: the box that was given, where it is another one.
    """

    box: Sequence[float]
    mask: NDArray[np.bool_]
    name: str
    score: float | None = None
    given: Sequence[float] | None = None


def displayed_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of an image on the page: enlarged or shrunk to fit."""
    scale = min(_TALLEST / height, _WIDEST / width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def segment_page(image: Pixels, shown: Sequence[Shown], title: str, note: str = "") -> Pixels:
    """The image with its instances, and a list of them; of one size for images of one size.

    Args:
        image: `(H, W, 3)` uint8.
        shown: instances, best first; the list has as many as there is room for.
        title: of the page.
        note: beside the title, in grey.
    """
    height, width = displayed_size(*image.shape[:2])
    rows = max(_LEAST_ROWS, height // _ROW)
    left = MARGIN + width + 2 * GAP
    page_width = left + _LEGEND + MARGIN
    page = Page(page_width, MARGIN + _HEAD + max(height, rows * _ROW) + MARGIN)
    room = page_width - 2 * MARGIN
    end = page.write(MARGIN, MARGIN + 18, clipped(title, room, 16, True), 16, INK, True)
    page.write(end + 12, MARGIN + 18, clipped(note, page_width - MARGIN - end - 12, 12), 12, MUTED)
    page.paste(overlay(image, shown), MARGIN, MARGIN + _HEAD)
    _write_list(page, shown, left, MARGIN + _HEAD, rows, image.shape[0] * image.shape[1])
    return page.pixels()


def overlay(image: Pixels, shown: Sequence[Shown]) -> Pixels:
    """The image at the size of the page, with masks, boxes and numbers over it."""
    height, width = displayed_size(*image.shape[:2])
    method = Image.Resampling.LANCZOS if height < image.shape[0] else Image.Resampling.BICUBIC
    pixels = np.array(Image.fromarray(image).resize((width, height), method), np.float32)
    for number, one in enumerate(shown):
        color = np.array(PALETTE[number % len(PALETTE)], np.float32)
        rows, columns, mask = _displayed(one.mask, height, width)
        part = pixels[rows, columns]
        part[mask] = (1 - _TINT) * part[mask] + _TINT * color
        part[mask & ~_inner(mask)] = color
    sheet = Page(width, height)
    sheet.paste(np.rint(pixels).astype(np.uint8), 0, 0)
    scale = np.array([width, height] * 2) / np.array([image.shape[1], image.shape[0]] * 2)
    # The best are drawn last, over all others.
    for number, one in reversed(list(enumerate(shown))):
        if one.given is not None:
            _draw_box(sheet, one.given, scale, PAPER)
        _draw_box(sheet, one.box, scale, PALETTE[number % len(PALETTE)])
    for number, one in reversed(list(enumerate(shown))):
        x, y = np.clip(np.array(one.box[:2]) * scale[:2], 0, [width - 12, height - 12])
        _draw_number(sheet, number, float(x), float(y))
    return sheet.pixels()[:height, :width]


def _draw_box(sheet: Page, box: ArrayLike, scale: NDArray[np.float64], color: Color) -> None:
    x1, y1, x2, y2 = np.clip(np.asarray(box) * scale, -10, 10_000).tolist()
    if x2 > x1 and y2 > y1:
        sheet.draw.rectangle((x1, y1, x2 - 1, y2 - 1), outline=color, width=1)


def _draw_number(page: Page, number: int, x: float, y: float) -> float:
    """A number on a field of its colour; returns where it ends (x)."""
    text, face = str(number + 1), font(10, True)
    wide = max(13, round(face.getlength(text)) + 6)
    color = PALETTE[number % len(PALETTE)]
    page.draw.rectangle((x, y, x + wide, y + 13), fill=color)
    ink = INK if sum(color) > 300 else PAPER
    page.draw.text((x + wide / 2, y + 7), text, fill=ink, font=face, anchor="mm")
    return x + wide


def _write_list(
    page: Page, shown: Sequence[Shown], left: int, top: int, rows: int, n_pixels: int
) -> None:
    """Number, name, score and share of the image of each instance."""
    right, middle = left + _LEGEND, left + _LEGEND - 52
    page.write(right, top + 10, "share", 11, MUTED, anchor="rs")
    page.write(middle, top + 10, "score", 11, MUTED, anchor="rs")
    page.draw.line((left, top + 16, right, top + 16), HAIRLINE, 1)
    if not shown:
        page.write(left, top + _ROW + 14, "nothing found", 12, MUTED)
    fits = len(shown) if len(shown) < rows else rows - 2
    for row, one in enumerate(shown[:fits], 1):
        y = top + row * _ROW + 14
        end = _draw_number(page, row - 1, left, y - 11)
        name = one.name or "box"
        page.write(end + 7, y, clipped(name, middle - 48 - end, 13), 13, INK)
        if one.score is not None:
            page.write(middle, y, f"{100 * one.score:.0f}%", 12, INK, anchor="rs")
        share = f"{100 * float(one.mask.sum()) / n_pixels:.1f}%" if one.mask.any() else "no mask"
        page.write(right, y, share, 12, INK if one.mask.any() else MUTED, anchor="rs")
    if fits < len(shown):
        text = f"and {len(shown) - fits:,} more"
        page.write(left, top + (fits + 1) * _ROW + 14, text, 12, MUTED)


def _displayed(
    mask: NDArray[np.bool_], height: int, width: int
) -> tuple[slice, slice, NDArray[np.bool_]]:
    """A mask at another size: the rows and columns that it may be in, and itself there."""
    spans, sides = [], []
    for axis, n_pixels in ((0, height), (1, width)):
        places = np.flatnonzero(mask.any(1 - axis))
        if not len(places):
            return slice(0, 1), slice(0, 1), np.zeros((1, 1), np.bool_)
        scale = n_pixels / mask.shape[axis]
        # Room for the outline, and for what a filter spreads.
        start = max(0, math.floor((places[0] - 1) * scale) - 1)
        stop = min(n_pixels, math.ceil((places[-1] + 2) * scale) + 1)
        spans.append(slice(start, stop))
        sides.append((start / scale, min(stop / scale, mask.shape[axis])))
    rows, columns = spans
    (top, bottom), (left, right) = sides
    grey = Image.fromarray(mask.astype(np.uint8) * 255).resize(
        (columns.stop - columns.start, rows.stop - rows.start),
        Image.Resampling.BILINEAR,
        (left, top, right, bottom),
    )
    return rows, columns, np.asarray(grey) >= 128


def _inner(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels whose four neighbours belong to the mask as well; beyond the image all do."""
    wide = np.pad(mask, 1, mode="edge")
    return wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
