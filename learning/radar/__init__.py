"""Radar events: a folder of one service's files as frames of rain on one grid.

A folder holds the files of one event of MRMS (GRIB2), FMI (PGM), MeteoSwiss (GIF) or KNMI (HDF5),
as the services name them; times are those of the names. Grids written by this project (`.npz`,
`learning.grid_files`) are read too.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from learning.grid_files import read_sequence
from learning.grid_sequence import GridSequence
from learning.radar.fmi import FMI
from learning.radar.frame import Crop, RadarFormat, RadarFrame, shown
from learning.radar.knmi import KNMI
from learning.radar.meteoswiss import METEOSWISS
from learning.radar.mrms import MRMS
from learning.radar.repeats import repeated_shares

FORMATS: tuple[RadarFormat, ...] = (MRMS, FMI, METEOSWISS, KNMI)
"""All that are read; names of files tell them apart."""

MAX_FRAMES = 5000
MAX_VALUES = 2**32
"""Values of an event: 16 GiB; take a crop of more."""
REPEATS = 0.5
"""Share of repeated wet cells in any frame above which an event is warned of: coarse steps of the
scale alone (KNMI's are 0.12 mm/h) repeat up to a quarter."""

__all__ = [
    "FORMATS",
    "Crop",
    "RadarFormat",
    "RadarFrame",
    "describe_event",
    "event_files",
    "read_event",
    "read_events",
    "repeated_shares",
]
_LOGGER = logging.getLogger(__name__)


def event_files(folder: str | Path) -> tuple[RadarFormat, list[Path], list[int]]:
    """The radar files of a folder, in order of time.

    Args:
        folder: other files in it are left alone. If it holds no radar files, a single folder below
            it may, at any depth.

    Returns:
        Their format, paths, and times in seconds since the epoch.

    Raises:
        ValueError: if there are none, of two formats, or two of one time.
        OSError: if the folder cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{shown(folder)}: no such folder; name one that holds a radar event")
    found, files = _by_format(folder)
    below = [path for path in folder.rglob("*") if path.is_dir()] if not found else []
    holders = [path for path in below if _by_format(path)[0]]
    if len(holders) > 1:
        raise ValueError(
            f"{shown(folder)}: {len(holders)} events below it; name one, such as "
            f"{shown(sorted(holders)[0])}"
        )
    if holders:
        found, files = _by_format(holders[0])
    if not found:
        raise ValueError(
            f"{shown(folder)}: no radar files among {files}; known are "
            f"{', '.join(f'{f.service} ({f.name})' for f in FORMATS)}, named as the services do"
        )
    if len(found) > 1:
        raise ValueError(f"{shown(folder)}: files of several formats: {', '.join(found)}")
    (name, paths) = found.popitem()
    form = next(f for f in FORMATS if f.name == name)
    timed = sorted((form.time_of(path), path) for path in paths)
    for (time, path), (other, twin) in itertools.pairwise(timed):
        if time == other:
            raise ValueError(f"{shown(path)} and {twin.name!r} are of the same time")
    if len(timed) > MAX_FRAMES:
        raise ValueError(f"{shown(folder)}: {len(timed)} files, more than {MAX_FRAMES}")
    return form, [path for _, path in timed], [time for time, _ in timed]


def _by_format(folder: Path) -> tuple[dict[str, list[Path]], int]:
    """Radar files of a folder by the name of their format, and how many files there are."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    found = {f.name: [path for path in files if f.pattern.fullmatch(path.name)] for f in FORMATS}
    return {name: paths for name, paths in found.items() if paths}, len(files)


def read_event(
    folder: str | Path,
    crop: Crop | None = None,
    start: int | None = None,
    stop: int | None = None,
) -> GridSequence:
    """Read an event: rain rate in mm/h, NaN where nothing was measured.

    Frames may be missing (`GridSequence.gaps` finds them); nothing is filled in. Where pictures
    repeat each other, a warning is logged.

    Args:
        folder: of radar files, or of one `.npz` of `learning.grid_files`; or such a file itself.
        crop: top row, left column, height and width: the part that is kept, which spares memory.
        start: seconds since the epoch: no frame before it.
        stop: no frame after it.

    Raises:
        ValueError: one line, for no or damaged files, grids that differ, or nothing in the span.
        OSError: if something cannot be opened.
    """
    place = Path(folder)
    if place.suffix == ".npz" or (place.is_dir() and any(place.glob("*.npz"))):
        return _one_file(place, crop)
    form, paths, times = event_files(place)
    kept = [
        (path, time)
        for path, time in zip(paths, times, strict=True)
        if (start is None or time >= start) and (stop is None or time <= stop)
    ]
    if not kept:
        raise ValueError(f"{shown(place)}: no frame from {start} to {stop}")
    first = form.read(*kept[0], crop)
    if len(kept) * first.rain.size > MAX_VALUES:
        raise ValueError(
            f"{shown(place)}: {len(kept)} frames of {first.rain.shape} are more than "
            f"{MAX_VALUES} values; read a crop"
        )
    frames = np.empty((len(kept), 1, *first.rain.shape), np.float32)
    for k, (path, time) in enumerate(kept):
        frame = form.read(path, time, crop) if k else first
        _check_alike(frame, first, path, kept[0][0])
        frames[k, 0] = frame.rain
    sequence = GridSequence(
        frames=frames,
        channels=("rain_rate",),
        times=np.array([time for _, time in kept], np.int64),
        cell=first.cell,
        name=_name(form, kept[0][1]),
        origin=_corner(first, crop),
    )
    _warn_of_repeats(sequence)
    return sequence


def read_events(folder: str | Path) -> list[GridSequence]:
    """All events of a folder: one of radar files, or every `.npz`, by name.

    Raises:
        ValueError: as `read_event` does.
        OSError: if something cannot be opened.
    """
    place = Path(folder)
    files = sorted(place.glob("*.npz")) if place.is_dir() else []
    return [read_sequence(path) for path in files] or [read_event(place)]


def describe_event(folder: str | Path) -> dict[str, Any]:
    """What an event holds, as JSON values.

    Raises:
        ValueError: as `read_event` does.
        OSError: if something cannot be opened.
    """
    sequence = read_event(folder)
    rain = sequence.quantity
    known = ~np.isnan(rain)
    shares = repeated_shares(sequence) if len(sequence) > 1 else np.array([])
    return {
        "name": sequence.name,
        "frames": len(sequence),
        "shape": list(sequence.shape),
        "first": int(sequence.times[0]),
        "last": int(sequence.times[-1]),
        "step": sequence.step if len(sequence) > 1 else None,
        "gaps": list(sequence.gaps()),
        "cell": sequence.cell,
        "channels": list(sequence.channels),
        "known_share": float(known.mean()),
        "wet_share": float((rain[known] > 0).mean()) if known.any() else None,
        "max": float(rain[known].max()) if known.any() else None,
        "repeated_share": _plain(shares),
    }


def _plain(shares: np.ndarray) -> list[float | None]:
    return [None if np.isnan(share) else round(float(share), 4) for share in shares]


def _one_file(place: Path, crop: Crop | None) -> GridSequence:
    files: Sequence[Path] = sorted(place.glob("*.npz")) if place.is_dir() else [place]
    if len(files) != 1:
        raise ValueError(
            f"{shown(place)}: {len(files)} sequences; name one of them, such as {files[0].name!r}"
        )
    sequence = read_sequence(files[0])
    return sequence if crop is None else sequence.crop(*crop)


def _check_alike(frame: RadarFrame, first: RadarFrame, path: Path, other: Path) -> None:
    same = frame.shape == first.shape and abs(frame.cell - first.cell) < 0.01
    if not same or not np.allclose(frame.origin, first.origin, atol=1.0):
        raise ValueError(
            f"{shown(path)}: another grid than {other.name!r}: {frame.shape[0]} x "
            f"{frame.shape[1]} cells of {frame.cell:.1f} m, not {first.shape[0]} x "
            f"{first.shape[1]} of {first.cell:.1f} m at the same place"
        )


def _corner(first: RadarFrame, crop: Crop | None) -> tuple[float, float]:
    top, left = (crop[0], crop[1]) if crop is not None else (0, 0)
    return first.origin[0] + left * first.cell, first.origin[1] - top * first.cell


def _name(form: RadarFormat, time: int) -> str:
    return f"{form.service} {datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M}"


def _warn_of_repeats(sequence: GridSequence) -> None:
    shares = repeated_shares(sequence) if len(sequence) > 1 else np.array([np.nan])
    shares = shares[~np.isnan(shares)]
    if shares.size and float(shares.max()) > REPEATS:
        _LOGGER.warning(
            "%s: frames repeat the one before in %.0f to %.0f %% of their wet cells (median "
            "%.0f %%): no change looks like a good forecast at leads of a few minutes",
            sequence.name,
            *(100 * float(q) for q in (shares.min(), shares.max(), np.median(shares))),
        )
