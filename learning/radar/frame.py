"""One radar picture as every format gives it, and what formats share."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Crop = tuple[int, int, int, int]
"""Top row, left column, height and width."""

MAX_CELLS = 2**27
"""Cells of one picture: 134 million, five times the contiguous United States at 0.01 degrees."""


@dataclass(frozen=True)
class RadarFrame:
    """Rain of one moment.

    Attributes:
        rain: `(H, W)` float32 mm/h, row 0 in the north; NaN where nothing was measured.
        time: seconds since the epoch.
        shape: rows and columns of the whole picture; `rain` may be a part of it.
        cell: metres of a side of a cell.
        origin: metres, x and y of the upper left corner of the whole picture, in the projection of
            the service.
    """

    rain: NDArray[np.float32]
    time: int
    shape: tuple[int, int]
    cell: float
    origin: tuple[float, float]


@dataclass(frozen=True)
class RadarFormat:
    """A service's files.

    Attributes:
        name: of the format, one word.
        service: who measures.
        pattern: what file names are like.
        time: seconds since the epoch from the match of a name.
        read: a picture, or the part of it that is asked for.
    """

    name: str
    service: str
    pattern: re.Pattern[str]
    time: Callable[[re.Match[str]], int]
    read: Callable[[Path, int, Crop | None], RadarFrame]

    def time_of(self, path: Path) -> int:
        """When a file's picture was made, by its name.

        Raises:
            ValueError: for a name that is not of this format, or no date.
        """
        match = self.pattern.fullmatch(path.name)
        if match is None:
            raise ValueError(f"{shown(path)}: no name of {self.service}'s {self.name} files")
        try:
            return self.time(match)
        except ValueError as error:
            raise ValueError(f"{shown(path)}: its name holds no date ({error})") from None


def utc(text: str, pattern: str) -> int:
    """Seconds since the epoch of a date in UTC.

    Raises:
        ValueError: if the text is no such date.
    """
    return int(datetime.strptime(text, pattern).replace(tzinfo=UTC).timestamp())


def rain_rate(dbz: NDArray[np.floating], a: float, b: float) -> NDArray[np.floating]:
    """Rain in mm/h of a reflectivity in dBZ by a service's relation Z = a R^b."""
    return (10.0 ** (dbz / 10.0) / a) ** (1.0 / b)


def shown(path: Path) -> str:
    """A path as one printable line, whatever its name holds."""
    text = str(path)
    return text if text.isprintable() else repr(text)[1:-1]


def cropped(values: NDArray[Any], crop: Crop | None, path: Path) -> NDArray[Any]:
    """The part that is asked for.

    Raises:
        ValueError: if it leaves the picture, naming the file.
    """
    if crop is None:
        return values
    top, left, height, width = crop
    rows, columns = values.shape
    inside = 0 <= top <= rows - height and 0 <= left <= columns - width
    if height < 1 or width < 1 or not inside:
        raise ValueError(
            f"{shown(path)}: a crop of {height} x {width} cells from row {top}, column {left} "
            f"leaves the picture of {rows} x {columns}"
        )
    return values[top : top + height, left : left + width]


def check_size(rows: int, columns: int, path: Path) -> None:
    """Refuse pictures that no radar makes, before any memory is taken."""
    if rows < 1 or columns < 1 or rows * columns > MAX_CELLS:
        raise ValueError(f"{shown(path)}: a picture of {rows} x {columns} cells is refused")


def number(facts: Mapping[str, str], key: str, path: Path) -> float:
    """A number of a header.

    Raises:
        ValueError: if it is missing or not finite.
    """
    try:
        value = float(facts[key].split()[0])
    except (KeyError, ValueError, IndexError):
        raise ValueError(f"{shown(path)}: its header has no number {key}") from None
    if not math.isfinite(value):
        raise ValueError(f"{shown(path)}: {key} of its header must be finite, got {value}")
    return value
