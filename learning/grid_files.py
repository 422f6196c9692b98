"""Sequences of grids in one `.npz` file: plain arrays, no objects.

| array | shape | meaning |
|---|---|---|
| `frames` | `(T, C, H, W)` | float32, float16, or uint8 that counts 1/255ths |
| `channels` | `(C,)` | names, as text; the first is what is forecast |
| `times` | `(T,)` | int64, in ticks since the epoch, strictly rising |
| `facts` | `(5,)` | float64: metres of a cell, seconds of a tick, x and y of the corner, 1 |
| `name` | `()` | text |

Frames of uint8 hold no missing values. The last of `facts` is the version of the layout.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from learning.atomic import write_file
from learning.grid_sequence import GridSequence
from learning.npz_format import read_arrays

VERSION = 1
_NAMES = ("frames", "channels", "times", "facts", "name")


def write_sequence(path: str | Path, sequence: GridSequence) -> None:
    """Write a sequence; values that are all multiples of 1/255 in [0, 1] take a byte each.

    Raises:
        OSError: if it cannot be written; an older file is then untouched.
    """
    facts = (sequence.cell, sequence.tick, *sequence.origin, VERSION)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        frames=_packed(sequence.frames),
        channels=np.array(sequence.channels, np.str_),
        times=sequence.times,
        facts=np.array(facts, np.float64),
        name=np.array(sequence.name, np.str_),
    )
    write_file(Path(path), buffer.getvalue())


def read_sequence(path: str | Path) -> GridSequence:
    """Read what `write_sequence` wrote.

    Raises:
        ValueError: one line, if the file is damaged or holds something else.
        OSError: if it cannot be opened.
    """
    place = Path(path)
    arrays = read_arrays(place)
    missing = [name for name in _NAMES if name not in arrays]
    if missing:
        raise ValueError(f"{place}: no sequence of grids: it lacks {', '.join(missing)}")
    try:
        return _sequence(arrays)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{place}: {error}") from None


def _sequence(arrays: dict[str, np.ndarray]) -> GridSequence:
    facts = arrays["facts"]
    if facts.shape != (5,) or facts.dtype != np.float64 or facts[4] != VERSION:
        raise ValueError(f"facts must be 5 float64, the last {VERSION}, got {facts.tolist()}")
    if arrays["channels"].dtype.kind != "U" or arrays["channels"].ndim != 1:
        raise ValueError("channels must be a row of names")
    if arrays["name"].dtype.kind != "U" or arrays["name"].ndim:
        raise ValueError("name must be text")
    cell, tick, x, y, _ = map(float, facts)
    return GridSequence(
        frames=_unpacked(arrays["frames"]),
        channels=tuple(map(str, arrays["channels"])),
        times=arrays["times"],
        cell=cell,
        name=str(arrays["name"]),
        origin=(x, y),
        tick=tick,
    )


def _packed(frames: np.ndarray) -> np.ndarray:
    counts = frames * np.float32(255)
    whole = np.rint(counts)
    fits = bool(np.isfinite(frames).all()) and bool(((frames >= 0) & (frames <= 1)).all())
    if fits and bool((np.abs(counts - whole) < 1e-4).all()):
        return whole.astype(np.uint8)
    return frames


def _unpacked(frames: np.ndarray) -> Any:
    if frames.dtype == np.uint8:
        return frames.astype(np.float32) / np.float32(255)
    if frames.dtype in (np.float16, np.float32):
        return frames.astype(np.float32)
    raise ValueError(f"frames must be float32, float16 or uint8, got {frames.dtype}")
