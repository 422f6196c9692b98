"""Drawing: type, colours, and panels put beside each other. Every picture and film uses it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]
Color = tuple[int, int, int]

PAPER: Color = (255, 255, 255)
INK: Color = (28, 32, 38)
MUTED: Color = (104, 112, 122)
HAIRLINE: Color = (208, 213, 219)
GOOD: Color = (0, 114, 94)
BAD: Color = (190, 70, 20)
ACCENT: Color = (213, 60, 0)
"""Bluish green and vermilion: told apart by colour-blind people; marks differ in shape as well."""

MARGIN = 16
GAP = 12


@functools.cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: the same letters on every machine."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


class Page:
    """A white picture to write and paste on."""

    def __init__(self, width: int, height: int) -> None:
        """Start blank; films need even sizes, so odd ones are raised by one pixel."""
        self.image = Image.new("RGB", (width + width % 2, height + height % 2), PAPER)
        self.draw = ImageDraw.Draw(self.image)

    def paste(self, pixels: Pixels, x: int, y: int) -> None:
        """Put `(H, W, 3)` pixels with their upper left corner at x, y."""
        self.image.paste(Image.fromarray(pixels), (x, y))

    def write(
        self,
        x: float,
        y: float,
        text: str,
        size: int = 14,
        color: Color = INK,
        bold: bool = False,
        anchor: str = "ls",
    ) -> float:
        """Write one line and return where it ends (x).

        Args:
            x: pixels from the left.
            y: pixels from the top.
            text: one line.
            size: of the type, in pixels.
            color: of the type.
            bold: whether bold.
            anchor: Pillow's two letters: l, m, r and a (top), m (middle), s (baseline).
        """
        face = font(size, bold)
        self.draw.text((x, y), text, fill=color, font=face, anchor=anchor)
        return x + face.getlength(text)

    def write_upwards(self, x: int, y: int, text: str, size: int, color: Color) -> None:
        """Write one line turned a quarter to the left, its middle at height y, its foot at x."""
        face = font(size)
        width = round(face.getlength(text))
        strip = Image.new("L", (width, 2 * size), 0)
        ImageDraw.Draw(strip).text((0, round(1.5 * size)), text, 255, face, anchor="ls")
        turned = strip.rotate(90, expand=True)
        self.image.paste(color, (x - round(1.5 * size), y - width // 2), turned)

    def mark(self, x: float, y: float, success: bool | None, radius: int = 8) -> None:
        """A tick, a cross, or while it is open an empty ring, around x, y."""
        box = (x - radius, y - radius, x + radius, y + radius)
        if success is None:
            self.draw.ellipse(box, outline=HAIRLINE, width=2)
            return
        self.draw.ellipse(box, fill=GOOD if success else BAD)
        r = radius * 0.45
        if success:
            points = [(x - r, y), (x - 0.25 * r, y + 0.75 * r), (x + r, y - 0.7 * r)]
            self.draw.line(points, fill=PAPER, width=2, joint="curve")
        else:
            self.draw.line((x - 0.8 * r, y - 0.8 * r, x + 0.8 * r, y + 0.8 * r), PAPER, 2)
            self.draw.line((x - 0.8 * r, y + 0.8 * r, x + 0.8 * r, y - 0.8 * r), PAPER, 2)

    def pixels(self) -> Pixels:
        """`(H, W, 3)` uint8."""
        return np.asarray(self.image)


def clipped(text: str, width: float, size: int, bold: bool = False) -> str:
    """The text, its end replaced by an ellipsis where it is wider than `width` pixels."""
    face = font(size, bold)
    if face.getlength(text) <= width:
        return text
    while text and face.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…"


def halved(pixels: Pixels) -> Pixels:
    """A picture at half its size, smooth: draw at twice the size, then call this."""
    height, width = pixels.shape[:2]
    small = Image.fromarray(pixels).resize((width // 2, height // 2), Image.Resampling.LANCZOS)
    return np.asarray(small)


def beside(panels: Sequence[Pixels], gap: int = GAP) -> Pixels:
    """Panels of one height in a row, white between them."""
    heights = {panel.shape[0] for panel in panels}
    if len(heights) != 1:
        raise ValueError(f"panels side by side need one height, got {sorted(heights)}")
    space = np.full((heights.pop(), gap, 3), 255, np.uint8)
    row: list[Pixels] = []
    for panel in panels:
        row += [space, panel] if row else [panel]
    return np.concatenate(row, axis=1)


def save_png(pixels: Pixels, path: Path) -> None:
    """Write a PNG beside its place and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        Image.fromarray(pixels).save(part, format="PNG", optimize=True)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
