"""Synthetic radar files in the format of each service, and where the real ones are."""

from __future__ import annotations

import gzip
import importlib
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from learning.image_set import data_folder

REAL = data_folder() / "radar"
START = int(datetime(2020, 6, 30, 23, 50, tzinfo=UTC).timestamp())
STEP = 300


def date(time: int, pattern: str) -> str:
    return datetime.fromtimestamp(time, UTC).strftime(pattern)


def write_fmi(folder: Path, time: int, pixels: NDArray[np.uint8], **changes: object) -> Path:
    """A composite of FMI; `header` is what lies between the first line and the pixels."""
    rows, columns = pixels.shape
    given = {"obstime": date(time, "%Y%m%d%H%M"), "cell": 1000.0, **changes}
    header = (
        f"P5\n# obstime {given['obstime']}\n# param CorrectedReflectivity\n"
        f"# metersperpixel_x {given['cell']}\n# metersperpixel_y {given['cell']}\n"
        f"# projection radar {{\n# type stereographic\n# }}\n{columns} {rows}\n255\n"
    )
    path = folder / f"{date(time, '%Y%m%d%H%M')}_fmi.radar.composite.lowest_FIN_SUOMI1.pgm.gz"
    path.write_bytes(gzip.compress(header.encode() + pixels.tobytes()))
    return path


def write_meteoswiss(folder: Path, time: int, pixels: NDArray[np.uint8], minutes: int = 5) -> Path:
    """An accumulation of MeteoSwiss, `(640, 710)`."""
    path = folder / f"AQC{date(time, '%y%j%H%M')}V_{minutes:05d}.801.gif"
    picture = Image.fromarray(pixels)
    picture = picture.convert("P")
    picture.putpalette([value for k in range(256) for value in (k, 255 - k, k)])
    picture.putdata(pixels.reshape(-1).tolist())
    picture.save(path, format="GIF")
    return path


def write_knmi(
    folder: Path,
    time: int,
    pixels: NDArray[np.uint16],
    formula: str = "GEO=0.01*PV+0.0",
    seconds: int = 300,
) -> Path:
    """An accumulation of KNMI."""
    path = folder / f"RAD_NL25_RAP_5min_{date(time, '%Y%m%d%H%M')}.h5"
    ends = [date(t, "%d-%b-%Y;%H:%M:%S.000").upper().encode() for t in (time - seconds, time)]
    with h5py.File(path, "w") as file:
        file.create_dataset("image1/image_data", data=pixels, compression="gzip")
        image = file["image1"]
        image.attrs["image_geo_parameter"] = np.bytes_("ACCUMULATED_PRECIPITATION_[MM]")
        image.create_group("calibration").attrs["calibration_formulas"] = np.bytes_(formula)
        overview = file.create_group("overview")
        overview.attrs["product_datetime_start"] = np.array([ends[0]], "S25")
        overview.attrs["product_datetime_end"] = np.array([ends[1]], "S25")
        about = file.create_group("geographic")
        about.attrs["geo_dim_pixel"] = np.bytes_("KM,KM")
        for name, value in (
            ("geo_pixel_size_x", 1.0),
            ("geo_pixel_size_y", -1.0),
            ("geo_column_offset", 0.0),
            ("geo_row_offset", 3650.0),
        ):
            about.attrs[name] = np.array([value], np.float32)
    return path


def write_mrms(
    folder: Path, time: int, values: NDArray[np.float64], category: int = 6, west: float = 260.0
) -> Path:
    """A rain rate of MRMS: GRIB edition 2, from an empty message of the library's own samples."""
    pygrib = importlib.import_module("pygrib")
    rows, columns = values.shape
    message = pygrib.fromstring(sample_grib2(rows, columns, time, category, west))
    message["values"] = values
    path = folder / f"PrecipRate_00.00_{date(time, '%Y%m%d-%H%M%S')}.grib2"
    path.write_bytes(message.tostring())
    return path


def sample_grib2(rows: int, columns: int, time: int, category: int, west: float) -> bytes:
    """A GRIB2 message of zeros on latitudes and longitudes of 0.01 degrees, byte by byte.

    Written by the tables of WMO's manual on codes: sections 0 (indicator), 1 (identification),
    3 (grid, template 3.0), 4 (product, template 4.0), 5 (packing, template 5.0), 6 (no bitmap),
    7 (data: one value for all) and 8 (end).
    """

    def number(value: int, size: int) -> bytes:
        sign = 1 << (8 * size - 1) if value < 0 else 0
        return (abs(value) | sign).to_bytes(size, "big")

    def section(kind: int, body: bytes) -> bytes:
        return number(len(body) + 5, 4) + bytes([kind]) + body

    when = datetime.fromtimestamp(time, UTC)
    clock = number(when.year, 2) + bytes(
        [when.month, when.day, when.hour, when.minute, when.second]
    )
    identification = number(161, 2) + number(0, 2) + bytes([2, 1, 1]) + clock + bytes([0, 0])
    north, micro = 40_000_000, 10_000  # 40 degrees north; 0.01 degrees
    first_x = round(west * 1e6)
    grid = (
        bytes([0]) + number(rows * columns, 4) + bytes([0, 0]) + number(0, 2)
        + bytes([6]) + bytes([255]) + bytes([255] * 4) + (bytes([255]) + bytes([255] * 4)) * 2
        + number(columns, 4) + number(rows, 4) + number(0, 4) + bytes([255] * 4)
        + number(north, 4) + number(first_x, 4) + bytes([48])
        + number(north - micro * (rows - 1), 4) + number(first_x + micro * (columns - 1), 4)
        + number(micro, 4) + number(micro, 4) + bytes([0])
    )  # fmt: skip
    product = (
        number(0, 2) + number(0, 2) + bytes([category, 1, 8, 0, 97]) + number(0, 2) + bytes([0, 0])
        + number(0, 4) + bytes([102]) + bytes([0]) + number(0, 4) + bytes([255]) + bytes([255] * 5)
    )  # fmt: skip
    packing = (
        number(rows * columns, 4)
        + number(0, 2)
        + bytes(4)
        + number(0, 2)
        + number(1, 2)
        + bytes([16, 0])
    )
    body = (
        section(1, identification)
        + section(3, grid)
        + section(4, product)
        + section(5, packing)
        + section(6, bytes([255]))
        + section(7, bytes(2 * rows * columns))
    )
    total = 16 + len(body) + 4
    return b"GRIB" + bytes([0, 0, 209, 2]) + total.to_bytes(8, "big") + body + b"7777"
