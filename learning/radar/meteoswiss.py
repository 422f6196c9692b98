"""MeteoSwiss: accumulations of the product AQC as 8-bit GIF.

The name is `AQC yy ddd hhmm`, UTC, a letter for the radars that took part, and the minutes that
rain was summed over. A pixel k of 2 to 250 stands for `(k - 71.5) / 2` dB of Z, which
Z = 316 R^1.5 (Germann et al. 2006, "Radar precipitation measurement in a mountainous region") turns
into millimetres within the interval; 0, 1 and 251 to 254 are no rain, 255 no data. Checked against
pysteps' reader. The grid is that of the Swiss projection LV03, 1 km.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from learning.radar.frame import (
    Crop,
    RadarFormat,
    RadarFrame,
    check_size,
    cropped,
    rain_rate,
    shown,
    utc,
)

ZR_A, ZR_B = 316.0, 1.5
NO_DATA = 255
CELL = 1000.0
WEST, NORTH = 255_000.0, 480_000.0
SIZE = (640, 710)
"""Rows and columns: 255 to 965 km east and -160 to 480 km north in LV03."""


def table(minutes: int) -> np.ndarray:
    """`(256,)` float32 mm/h of every pixel value of an accumulation over some minutes."""
    depth = rain_rate((np.arange(256) - 71.5) / 2.0, ZR_A, ZR_B)
    depth[:2] = depth[251:255] = 0.0
    depth[NO_DATA] = np.nan
    return (depth * (60.0 / minutes)).astype(np.float32)


def read(path: Path, time: int, crop: Crop | None = None) -> RadarFrame:
    """Read a picture.

    Args:
        path: the GIF.
        time: of its name.
        crop: part of the picture.

    Raises:
        ValueError: one line, if the file is damaged or of another product.
        OSError: if it cannot be opened.
    """
    match = _NAME.fullmatch(path.name)
    minutes = int(match[3]) if match else 0
    if not 1 <= minutes <= 1440:
        raise ValueError(f"{shown(path)}: its name says no minutes of accumulation")
    pixels = _pixels(path)
    rows, columns = pixels.shape
    check_size(rows, columns, path)
    return RadarFrame(
        rain=table(minutes)[cropped(pixels, crop, path)],
        time=time,
        shape=(rows, columns),
        cell=CELL,
        origin=(WEST, NORTH),
    )


def _pixels(path: Path) -> np.ndarray:
    try:
        with Image.open(path, formats=("GIF",)) as picture:
            if picture.mode not in ("P", "L"):
                raise ValueError(f"must hold 8-bit indices, got {picture.mode}")
            if picture.size != SIZE[::-1]:
                raise ValueError(
                    f"must be of {SIZE[0]} x {SIZE[1]} cells, got {picture.height} x "
                    f"{picture.width}"
                )
            return np.asarray(picture)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, IndexError) as error:
        # Pillow names the file itself in some of its complaints.
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{shown(path)}: no readable GIF ({reason})") from None


_NAME = re.compile(r"AQC(\d{2}\d{3}\d{4})([A-Z0-9])_(\d{5})\.\d{3}\.gif")

METEOSWISS = RadarFormat(
    name="GIF",
    service="MeteoSwiss",
    pattern=_NAME,
    time=lambda match: utc(match[1], "%y%j%H%M"),
    read=read,
)
