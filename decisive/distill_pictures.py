"""Pictures of distilled sets: the images with their labels, and how labels go together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from decisive.pictures import (
    ACCENT,
    GAP,
    HAIRLINE,
    INK,
    MARGIN,
    MUTED,
    Color,
    Page,
    Pixels,
    clipped,
    font,
)

if TYPE_CHECKING:
    from learning.distillation.distilled import Distilled

_TILE = 84
_BARS = 26
_HEAD = 46
_ROWS = 10
_COLUMNS = 10
_CELL = 34
_COLD: Color = (0, 114, 178)
"""Okabe and Ito's blue, for what is below zero; above it is vermilion."""


def sheet(distilled: Distilled, title: str) -> Pixels:
    """Distilled images, a column for each class, with a bar for each number of a label.

    A dark bar is the class of the column. At most ten classes and ten images of each are shown.

    Args:
        distilled: a set of images.
        title: first line.
    """
    images = displayed(distilled)
    labels = distilled.labels.double().numpy()
    names = distilled.names
    groups = columns(len(distilled), len(names), distilled.class_of().numpy())[:_COLUMNS]
    rows = min(_ROWS, max(len(group) for group in groups))
    below = _BARS + GAP
    width = max(2 * MARGIN + len(groups) * (_TILE + GAP) - GAP, 420)
    page = Page(width, 2 * MARGIN + _HEAD + 18 + rows * (_TILE + below) - GAP)
    room = width - 2 * MARGIN
    page.write(MARGIN, MARGIN + 16, clipped(title, room, 15, True), 15, INK, True)
    note = "each image stretched to its own range; bars: its label, the class of the column dark"
    page.write(MARGIN, MARGIN + 34, clipped(note, room, 11), 11, MUTED)
    largest = float(np.abs(labels).max()) or 1.0
    for column, group in enumerate(groups):
        x = MARGIN + column * (_TILE + GAP)
        own = int(labels[group].mean(0).argmax())
        page.write(x, MARGIN + _HEAD + 12, clipped(names[own], _TILE, 12, True), 12, INK, True)
        for row, number in enumerate(group[:rows]):
            y = MARGIN + _HEAD + 18 + row * (_TILE + below)
            page.paste(_enlarged(images[number]), x, y)
            _draw_bars(page, labels[number] / largest, own, x, y + _TILE + 2)
    return page.pixels()


def label_covariance(distilled: Distilled, title: str) -> Pixels:
    """Covariance of the labels over the points: which classes a point speaks for together.

    Args:
        distilled: with two points or more.
        title: first line.
    """
    labels = distilled.labels.double().numpy()
    matrix = np.cov(labels.T)
    largest = float(np.abs(matrix).max()) or 1.0
    names = [clipped(name, 90, 11) for name in distilled.names]
    longest = round(max(font(11).getlength(name) for name in names))
    left, top = MARGIN + longest + 8, MARGIN + _HEAD + longest + 12
    side = _CELL * len(names)
    width = max(left + side + MARGIN, 420)
    page = Page(width, top + side + MARGIN)
    page.write(MARGIN, MARGIN + 16, clipped(title, width - 2 * MARGIN, 15, True), 15, INK, True)
    note = f"covariance of labels over {len(distilled)} points; vermilion above 0, blue below"
    page.write(MARGIN, MARGIN + 34, clipped(note, width - 2 * MARGIN, 11), 11, MUTED)
    for row, name in enumerate(names):
        page.write(left - 8, top + row * _CELL + _CELL // 2 + 4, name, 11, INK, anchor="rs")
        length = round(font(11).getlength(name))
        page.write_upwards(
            left + row * _CELL + _CELL // 2 + 6, top - 8 - length // 2, name, 11, INK
        )
        for column, value in enumerate(matrix[row]):
            x, y = left + column * _CELL, top + row * _CELL
            page.draw.rectangle((x, y, x + _CELL - 2, y + _CELL - 2), fill=_tint(value / largest))
            if largest >= 0.005:
                middle = x + _CELL / 2 - 1, y + _CELL / 2 + 3
                page.write(*middle, f"{value:.2f}", 9, INK, anchor="ms")
    return page.pixels()


def displayed(distilled: Distilled) -> NDArray[np.uint8]:
    """`(n, H, W, 3)`: the images, each stretched to its own range.

    Args:
        distilled: a set of images.
    """
    images = distilled.preprocessing.undo(distilled.points.double())
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    stretched = ((images - low) / (high - low).clamp_min(1e-12) * 255).round()
    pixels = stretched.permute(0, 2, 3, 1).numpy().astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels[..., :3], (*pixels.shape[:3], 3)))


def columns(n: int, n_classes: int, classes: NDArray[np.int64]) -> list[list[int]]:
    """Numbers of the points of each column.

    Points lie in the order of the classes they started from, as many of each; where they cannot,
    it goes by the class that each speaks for now.
    """
    if n % n_classes == 0:
        share = n // n_classes
        return [list(range(k * share, (k + 1) * share)) for k in range(n_classes)]
    groups = [np.flatnonzero(classes == k).tolist() for k in range(n_classes)]
    return [group for group in groups if group]


def _draw_bars(page: Page, label: Sequence[float], own: int, x: int, y: int) -> None:
    """One bar for each number of a label, from -1 to 1."""
    middle, half = y + _BARS // 2, _BARS // 2 - 2
    wide = _TILE / len(label)
    page.draw.line((x, middle, x + _TILE - 1, middle), HAIRLINE, 1)
    for k, value in enumerate(label):
        start, end = sorted((middle, middle - round(half * float(value))))
        color = INK if k == own else MUTED
        left = x + k * wide
        page.draw.rectangle((left, start, left + max(1.0, wide - 2), end), fill=color)


def _enlarged(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    scale = _TILE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST))


def _tint(value: float) -> Color:
    """White at 0, full colour at -1 and 1."""
    strong = ACCENT if value > 0 else _COLD
    share = min(1.0, abs(value))
    red, green, blue = (round(255 + share * (part - 255)) for part in strong)
    return red, green, blue
