"""Royal Netherlands Meteorological Institute: accumulations of five minutes as HDF5.

A pixel is 0.01 mm that fell between two times of the header (the formula stands in the file, and
must be of that form); 65535 is outside the picture or missing. The service made rain of
reflectivity by Z = 200 R^1.6 (Marshall and Palmer 1948) before. The grid is polar stereographic,
1 km, row 0 in the north.
"""

from __future__ import annotations

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
from learning.safe_hdf5 import SafeFile, open_hdf5

NO_DATA = 65535
_FORMULA = re.compile(r"GEO\s*=\s*([0-9.]+)\s*\*\s*PV\s*\+\s*([0-9.]+)")
_GEOGRAPHY = "/geographic"
_MONTHS = "%d-%b-%Y;%H:%M:%S"


def read(path: Path, time: int, crop: Crop | None = None) -> RadarFrame:
    """Read a picture.

    Args:
        path: the HDF5 file.
        time: of its name; the header must agree.
        crop: part of the picture.

    Raises:
        ValueError: one line, if the file is damaged or of another product.
    """
    with open_hdf5(path, 2**30) as file:
        scale, offset = _scale(file, path)
        seconds = _seconds(file, path, time)
        pixels = file.read("/image1/image_data", ndim=2)
        rows, columns = pixels.shape
        check_size(rows, columns, path)
        if pixels.dtype != np.uint16:
            raise ValueError(f"{shown(path)}: pixels must be uint16, got {pixels.dtype}")
        cell, origin = _geography(file, path)
    part = cropped(pixels, crop, path)
    rain = (part.astype(np.float64) * scale + offset) * (3600.0 / seconds)
    rain[part == NO_DATA] = np.nan
    return RadarFrame(rain.astype(np.float32), time, (rows, columns), cell, origin)


def _scale(file: SafeFile, path: Path) -> tuple[float, float]:
    what = file.text_attribute("/image1", "image_geo_parameter") or ""
    if "PRECIP" not in what.upper() or "MM" not in what.upper():
        raise ValueError(f"{shown(path)}: must hold accumulated rain in mm, got {what[:60]!r}")
    formula = file.text_attribute("/image1/calibration", "calibration_formulas") or ""
    match = _FORMULA.fullmatch(formula.strip())
    if match is None:
        raise ValueError(f"{shown(path)}: expected a scale GEO=a*PV+b, got {formula[:60]!r}")
    return float(match[1]), float(match[2])


def _seconds(file: SafeFile, path: Path, time: int) -> int:
    """Over which rain was summed."""
    ends = []
    for name in ("start", "end"):
        value = _attribute(file, "/overview", f"product_datetime_{name}", path)
        text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        try:
            ends.append(utc(text.split(".")[0].title(), _MONTHS))
        except ValueError:
            raise ValueError(f"{shown(path)}: its header holds no date: {text[:40]!r}") from None
    if ends[1] != time:
        raise ValueError(f"{shown(path)}: ends {ends[1] - time:+d} s from what its name says")
    if not 60 <= ends[1] - ends[0] <= 86_400:
        raise ValueError(f"{shown(path)}: sums over {ends[1] - ends[0]} s, expected 60 to 86400")
    return ends[1] - ends[0]


def _geography(file: SafeFile, path: Path) -> tuple[float, tuple[float, float]]:
    unit = file.text_attribute(_GEOGRAPHY, "geo_dim_pixel") or "KM,KM"
    if not unit.upper().startswith("KM"):
        raise ValueError(f"{shown(path)}: cells must be in km, got {unit[:20]!r}")
    names = ("geo_pixel_size_x", "geo_pixel_size_y", "geo_column_offset", "geo_row_offset")
    values = [float(_attribute(file, _GEOGRAPHY, name, path)) for name in names]
    size_x, size_y, column, row = values
    if not all(map(math.isfinite, values)) or not size_x > 0 or not abs(size_x + size_y) < 1e-6:
        raise ValueError(f"{shown(path)}: cells must be squares, rows from north to south")
    cell = 1000.0 * size_x
    return cell, (column * cell, -row * cell)


def _attribute(file: SafeFile, group: str, name: str, path: Path) -> Any:
    values = file.attribute(group, name)
    if values is None or np.asarray(values).size != 1:
        raise ValueError(f"{shown(path)}: its header has no {name}")
    return np.asarray(values).reshape(-1)[0]


KNMI = RadarFormat(
    name="HDF5",
    service="KNMI",
    pattern=re.compile(r"RAD_NL25_\w{3}_5min_(\d{12})\.h5"),
    time=lambda match: utc(match[1], "%Y%m%d%H%M"),
    read=read,
)
