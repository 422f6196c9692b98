"""Image files of unknown origin as small pictures: any size, any damage, bounded memory.

Baseline JPEGs are shrunk while they are decoded, so that one of 20,000 x 20,000 pixels takes no
more than its sixty-fourth part. Others are decoded whole, up to `MAX_BYTES`.
"""

from __future__ import annotations

import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from learning.photographs import FORMATS, camera_turn

Fit = Literal["stretch", "crop", "pad"]
MAX_BYTES = 512 * 2**20
"""Memory that one picture may take while it is decoded."""

MAX_PIXELS = 2**29
"""Pixels that a file may say it has; 20,000 x 20,000 are 0.75 of it."""

_TWELVE_BITS = 4095
# Bytes of a pixel in Pillow, with the copy that is made on the way to eight bits.
_BYTES = {"1": 2, "L": 1, "RGB": 4, "YCbCr": 4, "P": 5, "I;16": 5, "I;16B": 5, "I;16L": 5}
_OTHER_BYTES = 9


class NotReadable(ValueError):
    """Why a file cannot be taken, in a few words."""


@dataclass(frozen=True)
class Picture:
    """A file's picture.

    Attributes:
        pixels: `(H, W)` grey or `(H, W, 3)` RGB, uint8, upright.
        size: width and height in the file, pixels.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]


def read_picture(path: Path, side: int, channels: Literal[1, 3] = 3) -> Picture:
    """Read a picture, shrunk so that its shorter side has `side` pixels or a little more.

    Grey values of 16 bits lose the last 8, unless none is above 4,095: then they are of 12 bits, as
    those of radiographs, and lose the last 4.

    Args:
        path: of the file.
        side: pixels of the shorter side of what is given; smaller files stay as they are. The
            longer side is at most 16 times as long.
        channels: 1 for grey, 3 for RGB.

    Raises:
        NotReadable: for whatever is no picture that can be read, saying why.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise NotReadable("not a file (a pipe, socket or device)")
        if not path.stat().st_size:
            raise NotReadable("empty file")
        with _large_files(), Image.open(path, formats=FORMATS) as image:
            size = image.size
            pixels = _decode(image, side, channels)
    except NotReadable:
        raise
    except FileNotFoundError:
        raise NotReadable("a link to nothing, or a file that has gone") from None
    except UnidentifiedImageError:
        raise NotReadable(f"no image of a known format ({', '.join(FORMATS)})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise NotReadable(f"more than {MAX_PIXELS:,} pixels") from None
    except MemoryError:
        raise NotReadable("not enough memory to decode it") from None
    except Exception as error:  # decoders raise whatever the damage leads to
        detail = " ".join(str(error).split())[:120] or type(error).__name__
        # Pillow names the file object, or the path, which the reader of the reason knows.
        raise NotReadable(f"damaged image ({detail.replace(str(path), 'file')})") from None
    return Picture(pixels, size)


def fit_picture(pixels: NDArray[np.uint8], size: tuple[int, int], how: Fit) -> NDArray[np.uint8]:
    """Bring a picture to the ratio of sides that a network takes.

    Args:
        pixels: `(H, W)` or `(H, W, 3)`.
        size: height and width of the network's images.
        how: `stretch` leaves it as it is (it is distorted later), `crop` cuts the longer sides
            alike, `pad` puts black beside the shorter ones.
    """
    if how == "stretch":
        return pixels
    height, width = pixels.shape[:2]
    wanted = size[1] / size[0]
    if how == "crop":
        rows = min(height, max(1, round(width / wanted)))
        columns = min(width, max(1, round(height * wanted)))
        top, left = (height - rows) // 2, (width - columns) // 2
        return pixels[top : top + rows, left : left + columns]
    rows = max(height, round(width / wanted))
    columns = max(width, round(height * wanted))
    padded = np.zeros((rows, columns, *pixels.shape[2:]), np.uint8)
    top, left = (rows - height) // 2, (columns - width) // 2
    padded[top : top + height, left : left + width] = pixels
    return padded


def _decode(image: Image.Image, side: int, channels: Literal[1, 3]) -> NDArray[np.uint8]:
    width, height = image.size
    target = _target(width, height, side)
    # Only JPEG's decoder heeds this: the smallest of its sizes that is not below the target.
    image.draft(None, target)
    needed = image.width * image.height * _BYTES.get(image.mode, _OTHER_BYTES)
    if "progressive" in image.info:
        # Its coefficients, of two bytes, are kept whole until the last pass.
        needed += 2 * width * height * len(image.getbands())
    if needed > MAX_BYTES:
        raise NotReadable(
            f"{width:,} x {height:,} pixels take {needed / 2**20:,.0f} MiB to decode, "
            f"{MAX_BYTES / 2**20:,.0f} are the most; only baseline JPEG is shrunk on the way"
        )
    image.load()
    turn = camera_turn(image)
    small = _eight_bits(image)
    if small.width > target[0] or small.height > target[1]:
        small = small.resize(target, Image.Resampling.BILINEAR, reducing_gap=2.0)
    if turn is not None:
        small = small.transpose(turn)
    return np.asarray(small.convert("L" if channels == 1 else "RGB"))


def _target(width: int, height: int, side: int) -> tuple[int, int]:
    scale = min(1.0, max(side / min(width, height), 1 / max(width, height)))
    scale = min(scale, 16 * side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of more bits as grey of eight, and what cannot be averaged as what can."""
    if image.mode == "F":
        raise NotReadable("pixels are floats; save 8 or 16 bits a channel")
    if image.mode in ("1", "P"):
        return image.convert("L" if image.mode == "1" else "RGB")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65_535:
        raise NotReadable(f"pixels are from {low} to {high}; save 8 or 16 bits a channel")
    shift = 4 if high <= _TWELVE_BITS else 8
    return Image.fromarray((values >> shift).astype(np.uint8))


@contextmanager
def _large_files() -> Iterator[None]:
    """Let Pillow open larger files than it trusts: what is decoded is bounded by `MAX_BYTES`."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    try:
        with warnings.catch_warnings():
            # Pillow warns above its limit and raises above twice as much; other warnings are of
            # damage that it could mend.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
