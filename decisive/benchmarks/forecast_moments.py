"""Events and moments at which rain is forecast, and the truth that comes after them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learning.grid_sequence import GridSequence
from learning.image_set import data_folder
from learning.radar import event_files, read_event
from learning.radar.frame import Crop

MINUTE = 60
WET = 0.1
"""mm/h that a wet cell has more than."""


@dataclass(frozen=True)
class Event:
    """A held-out event.

    Attributes:
        name: short, for files and tables.
        folder: below `radar` in the folder of data.
        side: cells of a side of the square that is looked at.
        place: `center` of the grid, or `wettest`: of the squares it can be cut into, the one with
            most wet cells.
        leads: minutes that are scored.
        past: minutes before a moment that must be there.
        moments: UTC; None for the first in `every` and all after it.
        every: minutes.
    """

    name: str
    folder: str
    side: int
    place: str
    leads: tuple[int, ...]
    past: int
    moments: tuple[str, ...] | None = None
    every: int = 30


EVENTS: dict[str, Event] = {
    "fmi": Event("fmi", "fmi/20160928", 512, "center", tuple(range(5, 65, 5)), 60),
    # Frames repeat in part for some minutes: nothing is scored before 10.
    "mrms": Event("mrms", "mrms", 256, "wettest", tuple(range(12, 52, 4)), 20,
                  ("2019-06-10 00:20",)),
}  # fmt: skip


@dataclass(frozen=True)
class Moment:
    """A moment of an event.

    Attributes:
        event: whose it is.
        time: seconds since the epoch.
        crop: what is looked at.
    """

    event: Event
    time: int
    crop: Crop

    @property
    def name(self) -> str:
        """For files: the event and the time of day."""
        return f"{self.event.name}-{datetime.fromtimestamp(self.time, UTC):%H%M}"

    def told(self) -> dict[str, Any]:
        """What decides the frames, as JSON values."""
        event = self.event
        return {
            "event": event.folder, "time": self.time, "crop": list(self.crop),
            "leads": list(event.leads), "past": event.past,
        }  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Frames of a moment.

    Attributes:
        moment: which.
        past: up to it.
        truth: `(L, H, W)` mm/h after it, NaN unknown.
    """

    moment: Moment
    past: GridSequence
    truth: NDArray[np.float32]


def find_event(name: str) -> Event:
    """An event by its name.

    Raises:
        ValueError: for an unknown one.
    """
    if name not in EVENTS:
        raise ValueError(f"unknown event {name!r}; known: {', '.join(EVENTS)}")
    return EVENTS[name]


def radar_folder(event: Event, data: Path | None = None) -> Path:
    """Where its files are.

    Raises:
        ValueError: if they are not there.
    """
    folder = (data or data_folder() / "radar") / event.folder
    if not folder.is_dir():
        raise ValueError(f"no data: {folder} is not there; set DECISIVE_DATA, or give --data")
    return folder


def moments(event: Event, folder: Path) -> list[Moment]:
    """Moments with enough past and truth, the one of the published numbers among them.

    Raises:
        ValueError: if there are none.
    """
    times = event_files(folder)[2]
    if event.moments is not None:
        chosen = [_utc(text) for text in event.moments]
    else:
        step = event.every * MINUTE
        first = -(-times[0] // step) * step
        chosen = list(range(first, times[-1] + 1, step))
    known = set(times)
    kept = [time for time in chosen if _fits(event, time, known, times[0])]
    if not kept:
        raise ValueError(f"{folder}: no moment has {event.past} minutes of past, and truth")
    crop = _crop(event, folder, kept[0])
    return [Moment(event, time, crop) for time in kept]


def read_cases(event: Event, folder: Path) -> list[Case]:
    """Frames of all moments of an event; the folder is read once.

    Raises:
        ValueError: if files are damaged, or there is no moment.
    """
    found = moments(event, folder)
    sequence = read_event(folder, crop=found[0].crop)
    cases = []
    for moment in found:
        now = sequence.index_of(moment.time)
        after = [sequence.index_of(moment.time + lead * MINUTE) for lead in event.leads]
        start = int(np.searchsorted(sequence.times, moment.time - event.past * MINUTE))
        cases.append(Case(moment, sequence.window(start, now + 1), sequence.quantity[after]))
    return cases


def _utc(text: str) -> int:
    return int(datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=UTC).timestamp())


def _fits(event: Event, time: int, known: set[int], first: int) -> bool:
    after = all(time + lead * MINUTE in known for lead in event.leads)
    return time in known and after and time - event.past * MINUTE >= first


def _crop(event: Event, folder: Path, time: int) -> Crop:
    """The square that is looked at, chosen by what is known at the first moment."""
    rain = read_event(folder, start=time, stop=time).quantity[0]
    side = event.side
    rows, columns = rain.shape
    if min(rows, columns) < side:
        raise ValueError(f"{folder}: {side} cells a side were expected, got {rows} x {columns}")
    if event.place == "center":
        return (rows - side) // 2, (columns - side) // 2, side, side
    squares = rain[: rows // side * side, : columns // side * side]
    squares = squares.reshape(rows // side, side, columns // side, side)
    wet = (np.nan_to_num(squares) > WET).mean(axis=(1, 3))
    row, column = np.unravel_index(int(wet.argmax()), wet.shape)
    return int(row) * side, int(column) * side, side, side


def plain(told: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back."""
    import json

    found: dict[str, Any] = json.loads(json.dumps(told))
    return found
