"""Drawing of what the tokens of a TokenLearner look at."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from decisive.pictures import GAP, INK, MARGIN, MUTED, Page, Pixels, clipped

PANEL = 192
"""Pixels of a side of a picture on the page."""
_COLUMNS = 4
_HEAD, _CAPTION = 34, 24
_RAMP = np.array([(20, 11, 52), (132, 32, 107), (229, 92, 48), (246, 215, 70)], float)
"""Dark violet to yellow, even for colour-blind people."""

Answers = Mapping[str, Mapping[str, float]]


def heat_map(image: Pixels, weights: NDArray[np.floating]) -> Pixels:
    """The image in grey under the weights of one token.

    Args:
        image: `(H, W, 3)` uint8.
        weights: `(h, w)`, not negative; the largest is drawn brightest.

    Returns:
        `(H, W, 3)` uint8.

    Raises:
        ValueError: for weights that are negative or not finite.
    """
    if weights.ndim != 2 or not np.isfinite(weights).all() or weights.min() < 0:
        raise ValueError(f"weights must be (h, w), finite and not negative, got {weights.shape}")
    height, width = image.shape[:2]
    share = np.asarray(weights / max(float(weights.max()), 1e-12), np.float32)
    # The patches are told from each other: a smooth map would look finer than the network sees.
    rows = np.arange(height) * share.shape[0] // height
    columns = np.arange(width) * share.shape[1] // width
    share = share[rows][:, columns]
    grey = image.astype(float) @ np.array([0.299, 0.587, 0.114])
    place = share * (len(_RAMP) - 1)
    colors = np.stack(
        [np.interp(place, np.arange(len(_RAMP)), _RAMP[:, i]) for i in range(3)], axis=-1
    )
    mixed = 0.45 * grey[..., None] + 0.55 * colors
    return np.rint(mixed).astype(np.uint8)


def spread(weights: NDArray[np.floating]) -> float:
    """Share of the places that a token looks at, from 1 / (h w) to 1.

    It is exp of the entropy of the normalised weights, over the number of places: 1 where all
    weigh alike, `k / (h w)` where k weigh alike and the others nothing.
    """
    shares = np.asarray(weights, np.float64).ravel()
    total = shares.sum()
    if not total > 0:
        return 1.0
    shares = shares[shares > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()) / weights.size)


def token_page(
    image: Pixels, maps: NDArray[np.floating], answers: Answers, title: str, note: str = ""
) -> Pixels:
    """The image, its heat maps and the answers on one page.

    Args:
        image: `(H, W, 3)` uint8, as the network sees it.
        maps: `(S, h, w)`.
        answers: task -> class -> probability.
        title: of the page.
        note: beside the title, in grey.
    """
    columns = min(_COLUMNS, len(maps))
    rows = math.ceil(len(maps) / columns)
    left = MARGIN + PANEL + 2 * GAP
    width = left + columns * (PANEL + GAP) - GAP + MARGIN
    tall = max(rows * (PANEL + _CAPTION), PANEL + _CAPTION + 20 + 58 * len(answers))
    page = Page(width, MARGIN + _HEAD + tall + MARGIN)
    end = page.write(
        MARGIN, MARGIN + 18, clipped(title, width - 2 * MARGIN, 16, True), 16, INK, True
    )
    page.write(end + 12, MARGIN + 18, clipped(note, width - end - 12 - MARGIN, 12), 12, MUTED)
    top = MARGIN + _HEAD
    shown = _square(image)
    page.paste(shown, MARGIN, top)
    page.write(MARGIN, top + PANEL + 16, "image", 12, MUTED)
    _write_answers(page, answers, top + PANEL + _CAPTION + 18)
    for number, weights in enumerate(maps):
        row, column = divmod(number, columns)
        x, y = left + column * (PANEL + GAP), top + row * (PANEL + _CAPTION)
        page.paste(heat_map(shown, weights), x, y)
        text = f"token {number + 1} · {100 * spread(weights):.0f}% of the places"
        page.write(x, y + PANEL + 16, clipped(text, PANEL, 11), 11, INK)
    return page.pixels()


def _write_answers(page: Page, answers: Answers, y: int) -> None:
    """The two likeliest classes of each task, below the image."""
    for task, chances in answers.items():
        page.write(MARGIN, y, clipped(task, PANEL, 12), 12, MUTED)
        best = sorted(chances.items(), key=lambda pair: -pair[1])[:2]
        for line, (name, chance) in enumerate(best):
            at = y + 17 * (line + 1)
            page.write(MARGIN, at, clipped(name, PANEL - 52, 13, line == 0), 13, INK, line == 0)
            page.write(MARGIN + PANEL, at, f"{100 * chance:.1f}%", 13, INK, anchor="rs")
        y += 58


def _square(image: Pixels) -> Pixels:
    """At the size of a panel."""
    scaled = Image.fromarray(image).resize((PANEL, PANEL), Image.Resampling.BICUBIC)
    return np.asarray(scaled)
