"""What `decisive retrieve --images` looks through: image files, and pictures of `images.npy`."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from decisive.pictures import Pixels
from decisive.triage import list_files
from decisive.triage_images import NotReadable, read_picture

ARRAY = "images.npy"
"""File of many pictures: `(N, H, W, 1 or 3)` uint8, as image sets and caption sets have it."""
_BESIDE = ("set.json", "labels.npy", "captions.json")
_NAMED = re.compile(rf"(.*{re.escape(ARRAY)})\[(\d+)\]", re.DOTALL)
MOST = 1_000_000
"""Pictures of one such file that are looked at."""


class Source(NamedTuple):
    """Where a picture is.

    Attributes:
        path: of the file.
        row: in an array of pictures; None for an image file.
    """

    path: Path
    row: int | None = None

    def read(self, side: int) -> Pixels:
        """The picture, `(H, W, 3)` uint8 of about `side` pixels; those of arrays as they are.

        Raises:
            NotReadable: for whatever is no picture, saying why.
        """
        if self.row is None:
            return read_picture(self.path, side).pixels
        try:
            pixels = np.array(_open(self.path)[self.row])
        except (OSError, ValueError, IndexError):  # it has changed since it was listed
            raise NotReadable(f"{ARRAY} cannot be read any more") from None
        return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def list_sources(root: Path, leave: Path | None = None) -> tuple[dict[str, Source], dict[str, str]]:
    """Everything below a folder that may be a picture, by name, and what cannot be, with reasons.

    Pictures of an array are called `images.npy[17]`.

    Args:
        root: the folder.
        leave: a folder that is not looked into.
    """
    names, skipped = list_files(root, leave)
    found: dict[str, Source] = {}
    for name in names:
        path = root / name
        if path.name == ARRAY and path.is_file():
            rows = _rows(path, name, skipped)
            found |= {f"{name}[{row}]": Source(path, row) for row in range(rows)}
        elif path.name in _BESIDE and (path.parent / ARRAY).is_file():
            skipped[name] = f"belongs to {ARRAY}"
        else:
            found[name] = Source(path)
    return found, skipped


def find_source(root: Path, name: str) -> Source:
    """The source of a name that `list_sources` gave."""
    match = _NAMED.fullmatch(name)
    if match is None or (root / name).is_file():
        return Source(root / name)
    return Source(root / match[1], int(match[2]))


def _rows(path: Path, name: str, skipped: dict[str, str]) -> int:
    """Number of pictures of an array; 0, with a reason, for another."""
    try:
        images = _open(path)
    except (OSError, ValueError) as error:
        skipped[name] = f"no array that can be read ({' '.join(str(error).split())[:100]})"
        return 0
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        skipped[name] = f"must be uint8 (N, H, W, 1 or 3), is {images.dtype} {tuple(images.shape)}"
        return 0
    if not images.size:
        skipped[name] = f"holds no pictures, {tuple(images.shape)}"
        return 0
    if len(images) > MOST:
        skipped[name] = f"only the first {MOST:,} of {len(images):,} pictures are looked at"
    return min(len(images), MOST)


def _open(path: Path) -> NDArray[np.uint8]:
    facts = os.stat(path)
    return _mapped(path, facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=8)
def _mapped(path: Path, changed: int, size: int) -> NDArray[np.uint8]:
    """The array, memory-mapped; opened anew when the file has changed."""
    try:
        images: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (EOFError, SyntaxError, TypeError, OverflowError) as error:  # what damage leads to
        raise ValueError(str(error) or type(error).__name__) from None
    return images
