"""What a rendered picture shows, in words of no language: a place, things, their colours and sides.

A thing is told only where it is the only one of its name that is seen, so that "a chair" is never
one of three.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COLORS: tuple[str, ...] = (
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "white", "grey", "black",
)  # fmt: skip
"""The basic colour terms (Berlin and Kay 1969) that have names here."""

SIDES = ("left", "middle", "right")
MOST_THINGS = 3
"""Things that a caption tells, the largest."""

UNCOLORED = frozenset({"ball", "bookcase", "domino", "mirror", "picture", "plant", "ring"})
"""Things of several colours, or of those of what they reflect: theirs is not told."""

_SIDE = 0.36
"""Share of the picture's width that is its left, and its right."""
_SURE = 0.45
"""Share of a thing's pixels that its colour must have; what is more colourful has no colour."""


@dataclass(frozen=True)
class Thing:
    """A thing that is seen.

    Attributes:
        name: key of `envs.captions.words.NOUNS`.
        color: one of `COLORS`; None where no colour prevails.
        side: one of `SIDES`: where the middle of its pixels lies.
    """

    name: str
    color: str | None
    side: str


@dataclass(frozen=True)
class Facts:
    """What a picture shows.

    Attributes:
        place: key of `envs.captions.words.PLACES`.
        things: one to three, the largest first.
    """

    place: str
    things: tuple[Thing, ...]

    def __post_init__(self) -> None:
        """Refuse a picture of nothing."""
        if not 1 <= len(self.things) <= MOST_THINGS:
            raise ValueError(f"things must be 1 to {MOST_THINGS}, got {len(self.things)}")


def color_names(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Index into `COLORS` of each pixel, by hue, saturation and value.

    Args:
        pixels: `(n, 3)` uint8 RGB.
    """
    rgb = pixels.reshape(-1, 3).astype(np.float64) / 255
    high, low = rgb.max(1), rgb.min(1)
    chroma = high - low
    saturation = np.divide(chroma, high, out=np.zeros_like(high), where=high > 0)
    hue = np.array([colorsys.rgb_to_hsv(*row)[0] for row in rgb.tolist()]) * 360
    names = np.select(
        [hue < 14, hue < 42, hue < 70, hue < 165, hue < 255, hue < 292, hue < 340],
        [COLORS.index(c) for c in ("red", "orange", "yellow", "green", "blue", "purple", "pink")],
        default=COLORS.index("red"),
    )
    warm = (hue < 42) | (hue >= 345)
    dark_orange = (hue >= 14) & (hue < 42) & (high < 0.72)
    names[dark_orange | (warm & (saturation < 0.5) & (high < 0.62))] = COLORS.index("brown")
    # Pale red is pink.
    names[((hue < 14) | (hue >= 340)) & (saturation < 0.5) & (high >= 0.62)] = COLORS.index("pink")
    grey = saturation < np.where(high < 0.35, 0.35, 0.16)
    names[grey & (high >= 0.75)] = COLORS.index("white")
    names[grey & (high < 0.75)] = COLORS.index("grey")
    names[high < 0.2] = COLORS.index("black")
    return names.astype(np.int64)


def color_of(pixels: NDArray[np.uint8]) -> str | None:
    """The colour that prevails among `(n, 3)` pixels; None where none does."""
    counts = np.bincount(color_names(pixels), minlength=len(COLORS))
    best = int(counts.argmax())
    return COLORS[best] if counts[best] >= _SURE * counts.sum() else None


def describe(
    image: NDArray[np.uint8],
    ids: NDArray[np.int64],
    names: Sequence[str | None],
    least: float,
    noticed: float,
) -> tuple[Thing, ...]:
    """The largest things of a picture that are alone of their name.

    Args:
        image: `(H, W, 3)` uint8.
        ids: `(H, W)`: which of `names` each pixel shows; below 0 none.
        names: of the things; None for what has no name here.
        least: share of the picture that a thing must fill to be told.
        noticed: share from which a second thing of a name is seen, so that neither is told.

    Returns:
        Things by falling size, `MOST_THINGS` at most; none where nothing can be told.
    """
    flat = ids.ravel()
    counts = np.bincount(flat[flat >= 0], minlength=len(names)) / flat.size
    seen = [k for k in np.argsort(-counts, kind="stable") if counts[k] >= noticed]
    found = []
    for k in seen:
        name = names[k]
        alone = sum(names[other] == name for other in seen) == 1
        if name is not None and alone and counts[k] >= least:
            mask = ids == k
            color = None if name in UNCOLORED else color_of(image[mask])
            found.append(Thing(name, color, _side_of(mask)))
    return tuple(found[:MOST_THINGS])


def _side_of(mask: NDArray[np.bool_]) -> str:
    middle = (np.flatnonzero(mask.any(0)) + 0.5).mean() / mask.shape[1]
    return SIDES[0] if middle < _SIDE else SIDES[2] if middle > 1 - _SIDE else SIDES[1]
