"""Pictures of an inspection line on disk: a set of images, and beside it what is wrong and where.

The folder is one of `learning.image_set` (so any classifier can be trained on it) with
`conditions.npy`, numbers into the fact `conditions`, and `defects.npy`, the pixels of the defects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from learning.atomic import new_folder
from learning.image_set import ImageSet, open_image_set, write_image_set

CONDITIONS, DEFECTS, FRAMES = "conditions.npy", "defects.npy", "frames"
Chunk = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]
"""Images `(n, H, W, 3)`, labels `(n, tasks)`, conditions `(n,)` and defects `(n, H, W)`."""


@dataclass(frozen=True)
class InspectionSet:
    """Pictures with what is wrong.

    Attributes:
        images: pictures and labels.
        names: of the conditions; the first is sound.
        conditions: `(N,)` int64, into `names`.
        defects: `(N, H, W)` bool; nothing of sound pictures.
    """

    images: ImageSet
    names: tuple[str, ...]
    conditions: NDArray[np.int64]
    defects: NDArray[np.bool_]

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        n, height, width, _ = self.images.images.shape
        if self.defects.shape != (n, height, width) or self.defects.dtype != bool:
            raise ValueError(
                f"defects must be bool {(n, height, width)}, got "
                f"{self.defects.dtype} {self.defects.shape}"
            )
        if self.conditions.shape != (n,) or self.conditions.dtype.kind != "i":
            raise ValueError(
                f"conditions must be whole numbers ({n},), got {self.conditions.shape}"
            )
        if n and not 0 <= self.conditions.min() <= self.conditions.max() < len(self.names):
            raise ValueError(f"conditions must be below {len(self.names)}, the number of names")

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.images)

    @property
    def folders(self) -> NDArray[np.str_]:
        """`(N,)` name of the condition of each picture."""
        return np.array(self.names)[self.conditions]


def write_inspection_set(
    folder: Path,
    chunks: Iterable[Chunk],
    n: int,
    size: int,
    tasks: Mapping[str, tuple[str, ...]],
    names: tuple[str, ...],
    source: str,
    facts: Mapping[str, Any],
    png: bool = False,
) -> None:
    """Write a set a chunk at a time; it appears whole or not at all.

    Args:
        folder: the final place.
        chunks: that hold `n` pictures together.
        n: how many.
        size: pixels of a side.
        tasks: as of `ImageSet`.
        names: of the conditions.
        source: as of `ImageSet`.
        facts: as of `ImageSet`.
        png: whether each picture is also a file, `frames/CONDITION/000123.png`.

    Raises:
        ValueError: if chunks do not fit.
        OSError: if the disk is full or the folder cannot be written.
    """
    conditions, defects = np.empty(n, np.int64), np.zeros((n, size, size), bool)
    with new_folder(folder) as beside:
        place = beside / "set"

        def images() -> Iterable[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
            start = 0
            for pixels, labels, kinds, masks in chunks:
                end = start + len(pixels)
                if end <= n:  # what is too many is refused below
                    conditions[start:end], defects[start:end] = kinds, masks
                if png:
                    _write_frames(beside / FRAMES, pixels, [names[kind] for kind in kinds], start)
                start = end
                yield pixels, labels

        told = {**facts, "conditions": list(names)}
        write_image_set(place, images(), n, (size, size, 3), tasks, source, told)
        for file in list(place.iterdir()):
            file.rename(beside / file.name)
        place.rmdir()
        np.save(beside / CONDITIONS, conditions)
        np.save(beside / DEFECTS, defects)


def open_inspection_set(folder: str | Path) -> InspectionSet:
    """Open a folder that `write_inspection_set` wrote.

    Raises:
        ValueError: one line, if a file is missing or malformed.
    """
    folder = Path(folder)
    images = open_image_set(folder)
    names = images.facts.get("conditions")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"{folder}: no set of an inspection line; decisive data render-inspection makes one"
        )
    try:
        arrays = [np.load(folder / name, allow_pickle=False) for name in (CONDITIONS, DEFECTS)]
        return InspectionSet(images, tuple(names), *arrays)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{folder}: {' '.join(str(error).split())[:200]}") from None


def _write_frames(folder: Path, pixels: NDArray[np.uint8], names: list[str], start: int) -> None:
    for number, (image, name) in enumerate(zip(pixels, names, strict=True), start):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / name / f"{number:06}.png")
