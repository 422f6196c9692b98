"""Rendered panoramas of many houses on disk, read through memory maps.

A folder holds `panoramas.json` (size, and for every house its name, the positions of its
viewpoints, their neighbours and their kinds of room), `rgb.bin`, `semantic.bin` and `depth.bin`,
one panorama after another.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from learning.atomic import new_folder

FORMAT = 2
INDEX_FILE = "panoramas.json"
_FILES: dict[str, tuple[str, tuple[int, ...]]] = {
    "rgb": ("u1", (3,)),
    "semantic": ("u1", ()),
    "depth": ("<f2", ()),
}


@dataclass(frozen=True)
class Seen:
    """One panorama, and where it was seen from; the frames are those of `envs.indoor`.

    Attributes:
        rgb: `(H, W, 3)` uint8.
        semantic: `(H, W)` uint8, 0 where nothing is known.
        depth: `(H, W)` float32 metres along the ray, 0 where there is none.
        position: `(3,)` float64 metres, z up.
    """

    rgb: NDArray[np.uint8]
    semantic: NDArray[np.uint8]
    depth: NDArray[np.float32]
    position: NDArray[np.float64]


@dataclass(frozen=True)
class House:
    """Panoramas of one house, to be written.

    Attributes:
        name: distinct within the set.
        panoramas: one from each viewpoint, in order; anything with the attributes of `Seen`.
        neighbors: for every viewpoint the numbers of those next to it.
        rooms: for every viewpoint the kind of room that it is in, such as kitchen; None if unknown.
    """

    name: str
    panoramas: Iterable[Any]
    neighbors: tuple[tuple[int, ...], ...]
    rooms: tuple[str, ...] | None = None


@dataclass(frozen=True)
class PanoramaSet:
    """Panoramas of many houses.

    Attributes:
        rgb: `(N, H, W, 3)` uint8.
        semantic: `(N, H, W)` uint8.
        depth: `(N, H, W)` float16 metres.
        positions: `(N, 3)` float64 metres.
        neighbors: for each of the N viewpoints the numbers, within the set, of those next to it.
        houses: name of each house and the range of its viewpoints.
        rooms: for each of the N viewpoints the kind of room that it is in; "" if unknown.
    """

    rgb: NDArray[np.uint8]
    semantic: NDArray[np.uint8]
    depth: NDArray[np.float16]
    positions: NDArray[np.float64]
    neighbors: tuple[tuple[int, ...], ...]
    houses: tuple[tuple[str, range], ...]
    rooms: tuple[str, ...]

    def __len__(self) -> int:
        """Number of panoramas."""
        return len(self.positions)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.semantic.shape[1], self.semantic.shape[2]

    @cached_property
    def starts(self) -> NDArray[np.intp]:
        """Numbers of the viewpoints that have a neighbour."""
        return np.flatnonzero([bool(row) for row in self.neighbors])

    @cached_property
    def room_names(self) -> tuple[str, ...]:
        """Kinds of room that occur, sorted; none where they are unknown."""
        return tuple(sorted(set(self.rooms) - {""}))

    def seen(self, index: int) -> Seen:
        """One panorama, copied out of the map."""
        return Seen(
            np.array(self.rgb[index]),
            np.array(self.semantic[index]),
            self.depth[index].astype(np.float32),
            self.positions[index],
        )

    def part(self, houses: Iterable[str]) -> "PanoramaSet":
        """The set seen through some houses only: the others' viewpoints have no neighbours.

        Raises:
            ValueError: for a house that is not there.
        """
        wanted = list(houses)
        known = dict(self.houses)
        if unknown := [name for name in wanted if name not in known]:
            raise ValueError(f"the set has no house {unknown[0]!r} (it has {len(known)})")
        kept = [(name, known[name]) for name in wanted]
        inside = {index for _, span in kept for index in span}
        return PanoramaSet(
            self.rgb,
            self.semantic,
            self.depth,
            self.positions,
            tuple(row if i in inside else () for i, row in enumerate(self.neighbors)),
            tuple(kept),
            self.rooms,
        )

    def class_counts(self, n_classes: int, most: int = 2000) -> NDArray[np.int64]:
        """Pixels of each class in up to `most` panoramas, evenly spaced.

        Raises:
            ValueError: for ids that are no class.
        """
        viewpoints = [index for _, span in self.houses for index in span]
        step = max(1, len(viewpoints) // most)
        counts = np.zeros(256, np.int64)
        for index in viewpoints[::step]:
            counts += np.bincount(self.semantic[index].ravel(), minlength=256)
        if counts[n_classes:].any():
            largest = int(np.flatnonzero(counts)[-1])
            raise ValueError(f"semantic ids must be below {n_classes}, got {largest}")
        return counts[:n_classes]

    @classmethod
    def of_houses(cls, houses: Iterable[House]) -> "PanoramaSet":
        """A set that lies in memory."""
        panoramas: list[Any] = []
        index = _Index()
        for house in houses:
            found = list(house.panoramas)
            panoramas += found
            index.add(house.name, [p.position for p in found], house.neighbors, house.rooms)
        for panorama in panoramas:
            _check_panorama(panorama, panoramas[0].semantic.shape, "the set")
        return cls(
            np.stack([p.rgb for p in panoramas]),
            np.stack([p.semantic for p in panoramas]),
            np.stack([p.depth for p in panoramas]).astype(np.float16),
            **index.tables(),
        )


def split_houses(data: PanoramaSet, holdout: float) -> tuple[PanoramaSet, PanoramaSet | None]:
    """Houses to train on, and those held out: the last ones, at least one where `holdout` > 0.

    Raises:
        ValueError: if no house would be left to train on.
    """
    names = [name for name, _ in data.houses]
    n_held = max(1, round(holdout * len(names))) if holdout else 0
    if n_held >= len(names):
        raise ValueError(f"{len(names)} houses cannot be split with holdout {holdout}; use 0")
    kept = data.part(names[: len(names) - n_held])
    return kept, data.part(names[len(names) - n_held :]) if n_held else None


def fingerprint(data: PanoramaSet) -> str:
    """Tells sets apart."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((data.size, data.neighbors, data.houses, data.rooms)).encode())
    digest.update(np.ascontiguousarray(data.positions).tobytes())
    # Some dozen panoramas tell sets apart; all pixels would take seconds.
    for index in range(0, len(data), max(1, len(data) // 32)):
        digest.update(np.ascontiguousarray(data.semantic[index]).tobytes())
        digest.update(np.ascontiguousarray(data.depth[index]).tobytes())
    return digest.hexdigest()


def write_panoramas(folder: str | Path, houses: Iterable[House], size: tuple[int, int]) -> None:
    """Write a set, one panorama at a time, replacing an older one in one step.

    Args:
        folder: where to.
        houses: rendered as they are taken.
        size: height and width.

    Raises:
        ValueError: for panoramas of another size, or neighbours that are no viewpoints.
        OSError: if the folder cannot be written; what was there is untouched.
    """
    index = _Index()
    with new_folder(Path(folder)) as beside:
        files: dict[str, BinaryIO] = {n: (beside / f"{n}.bin").open("wb") for n in _FILES}
        try:
            for house in houses:
                positions = []
                for panorama in house.panoramas:
                    _check_panorama(panorama, size, house.name)
                    for name, (kind, _) in _FILES.items():
                        files[name].write(getattr(panorama, name).astype(kind).tobytes())
                    positions.append(panorama.position)
                index.add(house.name, positions, house.neighbors, house.rooms)
        finally:
            for file in files.values():
                file.close()
        (beside / INDEX_FILE).write_text(json.dumps(index.document(size)) + "\n", encoding="utf-8")


def open_panoramas(folder: str | Path) -> PanoramaSet:
    """Open a set that `write_panoramas` wrote; pixels stay on the disk until they are looked at.

    Raises:
        ValueError: for a set that is broken or incomplete.
        FileNotFoundError: where there is none.
    """
    place = Path(folder)
    try:
        document = json.loads((place / INDEX_FILE).read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"{place} holds no {INDEX_FILE}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place / INDEX_FILE}: not valid JSON: {error}") from None
    try:
        if document["format"] != FORMAT:
            raise ValueError(
                f"format must be {FORMAT}, got {document['format']!r}; "
                "remove the folder and render it again"
            )
        height, width = (int(n) for n in document["size"])
        index = _Index()
        for entry in document["houses"]:
            index.add(entry["name"], entry["positions"], entry["neighbors"], entry["rooms"])
        tables = index.tables()
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{place / INDEX_FILE}: {error!r}") from None
    maps: dict[str, Any] = {}
    for name, (kind, rest) in _FILES.items():
        shape = (len(tables["positions"]), height, width, *rest)
        path = place / f"{name}.bin"
        expected = int(np.prod(shape)) * np.dtype(kind).itemsize
        found = path.stat().st_size if path.is_file() else 0
        if found != expected:
            raise ValueError(f"{path}: must have {expected} bytes, got {found}; render it again")
        # Plain arrays of the maps: slices of a memmap are slow to make.
        maps[name] = np.asarray(np.memmap(path, kind, "r", shape=shape))
    return PanoramaSet(**maps, **tables)


class _Index:
    """Names, positions and neighbours, gathered house by house."""

    def __init__(self) -> None:
        self.houses: list[tuple[str, range]] = []
        self.positions: list[list[float]] = []
        self.neighbors: list[tuple[int, ...]] = []
        self.rooms: list[str] = []

    def add(self, name: str, positions: Any, neighbors: Any, rooms: Any) -> None:
        first, count = len(self.positions), len(positions)
        if name in dict(self.houses):
            raise ValueError(f"two houses are called {name!r}")
        if len(neighbors) != count:
            raise ValueError(f"{name}: {count} viewpoints, but neighbours of {len(neighbors)}")
        if rooms is not None and len(rooms) != count:
            raise ValueError(f"{name}: {count} viewpoints, but rooms of {len(rooms)}")
        places = np.array(positions, float).reshape(count, 3)
        if not np.isfinite(places).all():
            raise ValueError(f"{name}: positions must be finite")
        for row in neighbors:
            if any(not 0 <= int(n) < count for n in row):
                raise ValueError(f"{name}: neighbours must be 0 to {count - 1}, got {list(row)}")
            self.neighbors.append(tuple(first + int(n) for n in row))
        self.positions += places.tolist()
        self.rooms += [""] * count if rooms is None else [str(room) for room in rooms]
        self.houses.append((str(name), range(first, first + count)))

    def tables(self) -> dict[str, Any]:
        if not self.positions:
            raise ValueError("a set needs at least one panorama, got none")
        return {
            "positions": np.array(self.positions, np.float64),
            "neighbors": tuple(self.neighbors),
            "houses": tuple(self.houses),
            "rooms": tuple(self.rooms),
        }

    def document(self, size: tuple[int, int]) -> dict[str, Any]:
        self.tables()  # refuses an empty set
        return {
            "format": FORMAT,
            "size": list(size),
            "houses": [
                {
                    "name": name,
                    "positions": self.positions[span.start : span.stop],
                    "neighbors": [
                        [n - span.start for n in row]
                        for row in self.neighbors[span.start : span.stop]
                    ],
                    "rooms": self.rooms[span.start : span.stop],
                }
                for name, span in self.houses
            ],
        }


def _check_panorama(panorama: Any, size: tuple[int, int], house: str) -> None:
    shapes = (panorama.rgb.shape, panorama.semantic.shape, panorama.depth.shape)
    if shapes != ((*size, 3), size, size):
        raise ValueError(f"{house}: panoramas must be {size[0]} x {size[1]}, got {shapes}")
    if panorama.rgb.dtype != np.uint8 or panorama.semantic.dtype != np.uint8:
        raise ValueError(f"{house}: rgb and semantic must be uint8")
    # Where float16 ends; negative or infinite depth would spoil a training silently.
    depth = panorama.depth
    if not (np.isfinite(depth).all() and 0 <= depth.min() <= depth.max() < 65_504):
        raise ValueError(f"{house}: depth must be finite metres, not negative")
