"""NOAA's Multi-Radar Multi-Sensor system: PrecipRate as GRIB2, in mm/h.

Values are rain rates already (the system chooses among several relations of Z and R by kind of
rain; Zhang et al. 2016, "Multi-Radar Multi-Sensor (MRMS) Quantitative Precipitation Estimation").
-3 is no coverage and -1 missing: neither is dry. Cells are 0.01 degrees; their side in metres is
the geometric mean of north-south and east-west at the middle of the whole grid, in which they are
no squares (at 37.5 degrees 1.11 by 0.88 km). Needs pygrib, extra `weather`.

Trap: the mosaic refreshes piecewise, so consecutive files repeat each other in part or wholly; see
`learning.radar.repeats`.
"""

from __future__ import annotations

import importlib
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from learning.radar.frame import (
    Crop,
    RadarFormat,
    RadarFrame,
    check_size,
    cropped,
    shown,
    utc,
)

EARTH_RADIUS = 6_371_000.0
"""Metres."""
NO_COVERAGE, MISSING = -3.0, -1.0
_PARAMETER = {"discipline": 209, "parameterCategory": 6, "parameterNumber": 1}
_UPPER = 2000.0  # mm/h; more never fell in two minutes.


def read(path: Path, time: int, crop: Crop | None = None) -> RadarFrame:
    """Read a picture.

    Args:
        path: the GRIB2 file, one message.
        time: of its name; the header must agree.
        crop: part of the picture.

    Raises:
        ValueError: one line, if the file is truncated, of another product or grid, or pygrib is
            not installed.
        OSError: if it cannot be opened.
    """
    try:
        pygrib: Any = importlib.import_module("pygrib")
    except ImportError:
        raise ValueError("GRIB2 needs pygrib: pip install 'decisive[weather]'") from None
    path.stat()  # the library's own complaint about a missing file names no reason
    try:
        with pygrib.open(str(path)) as file:
            if file.messages != 1:
                raise ValueError(f"one GRIB message was expected, got {file.messages}: truncated?")
            message = file.message(1)
            shape, cell, origin = _grid(message)
            check_size(*shape, path)
            _check(message, time)
            values = cropped(np.asarray(message.values).reshape(shape), crop, path)
    except (RuntimeError, OSError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split()).removeprefix(f"{shown(path)}: ")[:160]
        raise ValueError(f"{shown(path)}: {reason}") from None
    return RadarFrame(_rain(values), time, shape, cell, origin)


def _rain(values: np.ndarray) -> np.ndarray:
    rain = np.asarray(np.ma.filled(values, MISSING), np.float32)
    # A copy: the crop would keep the whole picture in memory.
    rain = np.where((rain >= 0) & (rain <= _UPPER), rain, np.float32(np.nan))
    return rain.astype(np.float32)


def _check(message: Any, time: int) -> None:
    found = {key: int(message[key]) for key in _PARAMETER}
    if found != _PARAMETER:
        raise ValueError(f"PrecipRate was expected (209, 6, 1), got {tuple(found.values())}")
    date = f"{message['dataDate']:08d}{message['dataTime']:04d}{message['second']:02d}"
    if utc(date, "%Y%m%d%H%M%S") != time:
        raise ValueError(f"is of {date}, its name says otherwise")


def _grid(message: Any) -> tuple[tuple[int, int], float, tuple[float, float]]:
    """Rows and columns; metres of a cell; upper left corner on a plane of the middle latitude."""
    kind = message["gridType"]
    if kind != "regular_ll":
        raise ValueError(f"a grid of latitudes and longitudes was expected, got {kind!r}")
    turned = message["jScansPositively"], message["iScansNegatively"]
    if turned != (0, 0) or message["jPointsAreConsecutive"]:
        raise ValueError("rows from north to south and columns from west to east were expected")
    rows, columns = int(message["Nj"]), int(message["Ni"])
    north = float(message["latitudeOfFirstGridPointInDegrees"])
    south = float(message["latitudeOfLastGridPointInDegrees"])
    west = float(message["longitudeOfFirstGridPointInDegrees"])
    high = float(message["jDirectionIncrementInDegrees"])
    wide = float(message["iDirectionIncrementInDegrees"])
    if not (0 < high < 10 and 0 < wide < 10):
        raise ValueError(f"cells of {high} x {wide} degrees are refused")
    degree = EARTH_RADIUS * math.pi / 180.0
    narrowed = math.cos(math.radians((north + south) / 2))
    cell = degree * math.sqrt(high * wide * narrowed)
    west = (west + 180.0) % 360.0 - 180.0 - wide / 2
    return (rows, columns), cell, (degree * narrowed * west, degree * (north + high / 2))


MRMS = RadarFormat(
    name="GRIB2",
    service="MRMS",
    pattern=re.compile(r"PrecipRate_00\.00_(\d{8})-(\d{6})\.grib2"),
    time=lambda match: utc(match[1] + match[2], "%Y%m%d%H%M%S"),
    read=read,
)
