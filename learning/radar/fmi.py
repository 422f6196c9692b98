"""Finnish Meteorological Institute: composites of the lowest elevation as 8-bit PGM, gzipped.

A pixel is `2 dBZ + 64`; 0 is no echo, and the greatest value of the header (255) no data. Rain by
Z = 223 R^1.53, the relation of Finnish rain (Leinonen et al. 2012, "A Climatology of Disdrometer
Measurements of Rainfall in Finland over Five Years").
"""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path

import numpy as np

from learning.radar.frame import (
    MAX_CELLS,
    Crop,
    RadarFormat,
    RadarFrame,
    check_size,
    cropped,
    number,
    rain_rate,
    shown,
    utc,
)

ZR_A, ZR_B = 223.0, 1.53
NO_DATA = 255
_HEADER = 64_000  # Bytes; the longest seen has about 1,000.
_LINE = re.compile(rb"[ \t\r]*(?:#([^\n]*)|([^\n#]*))\n")


def table() -> np.ndarray:
    """`(256,)` float32 mm/h of every pixel value."""
    rates = rain_rate((np.arange(256) - 64.0) / 2.0, ZR_A, ZR_B)
    rates[0] = 0.0  # no echo: -32 dBZ by the scale, which no radar measures
    rates[NO_DATA] = np.nan
    return rates.astype(np.float32)


def read(path: Path, time: int, crop: Crop | None = None) -> RadarFrame:
    """Read a picture.

    Args:
        path: `.pgm` or `.pgm.gz`.
        time: of its name; the header must agree.
        crop: part of the picture.

    Raises:
        ValueError: one line, if the file is damaged or of another product.
        OSError: if it cannot be opened.
    """
    content = _content(path)
    facts, (columns, rows, greatest), start = _header(content, path)
    check_size(rows, columns, path)
    if greatest != NO_DATA:
        raise ValueError(f"{shown(path)}: values must go to {NO_DATA}, got {greatest}")
    if len(content) - start != rows * columns:
        raise ValueError(
            f"{shown(path)}: {rows * columns} pixels were expected after the header, got "
            f"{len(content) - start}: truncated, or not 8-bit"
        )
    if facts.get("param", "CorrectedReflectivity") != "CorrectedReflectivity":
        raise ValueError(f"{shown(path)}: holds {facts['param']!r}, not reflectivity")
    if "obstime" in facts and utc(facts["obstime"], "%Y%m%d%H%M") != time:
        raise ValueError(f"{shown(path)}: is of {facts['obstime']}, its name says otherwise")
    pixels = np.frombuffer(content, np.uint8, offset=start).reshape(rows, columns)
    cell_x, cell_y = (number(facts, f"metersperpixel_{axis}", path) for axis in "xy")
    if not cell_x > 0 or not abs(cell_x / cell_y - 1) < 0.01:
        raise ValueError(f"{shown(path)}: cells must be squares, got {cell_x} x {cell_y} m")
    return RadarFrame(
        rain=table()[cropped(pixels, crop, path)],
        time=time,
        shape=(rows, columns),
        cell=(cell_x + cell_y) / 2,
        origin=(0.0, rows * (cell_x + cell_y) / 2),
    )


def _content(path: Path) -> bytes:
    try:
        if path.name.endswith(".gz"):
            with gzip.open(path, "rb") as file:
                content = file.read(MAX_CELLS + _HEADER)
        else:
            content = path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{shown(path)}: truncated or damaged gzip ({error})") from None
    return content


def _header(content: bytes, path: Path) -> tuple[dict[str, str], tuple[int, ...], int]:
    """Comments by their first word; columns, rows and greatest value; where pixels begin."""
    if not content.startswith(b"P5\n"):
        raise ValueError(f"{shown(path)}: no PGM file (it must begin with P5)")
    facts: dict[str, str] = {}
    numbers: list[int] = []
    place = 3
    while len(numbers) < 3:
        match = _LINE.match(content[:_HEADER], place)
        if match is None:
            raise ValueError(f"{shown(path)}: its header is truncated or no PGM")
        place = match.end()
        if match[1] is not None:
            key, _, rest = match[1].decode("latin-1").strip().partition(" ")
            facts.setdefault(key, rest.strip())
        elif not all(word.isdigit() and len(word) < 7 for word in match[2].split()):
            raise ValueError(f"{shown(path)}: its header is no PGM")
        else:
            numbers += [int(word) for word in match[2].split()]
    if len(numbers) != 3:
        raise ValueError(f"{shown(path)}: its header is no PGM")
    return facts, tuple(numbers), place


FMI = RadarFormat(
    name="PGM",
    service="FMI",
    pattern=re.compile(r"(\d{12})_fmi\.radar\.composite\.\w+\.pgm(\.gz)?"),
    time=lambda match: utc(match[1], "%Y%m%d%H%M"),
    read=read,
)
