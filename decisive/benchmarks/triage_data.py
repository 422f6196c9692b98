"""Pictures for the triage study: folders by class, copies together, what shortcuts would see."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decisive.triage_images import NotReadable, fit_picture, read_picture
from learning.image_set import ImageSet
from perception.abnormality import CLASSES, TASK

SPLITS = {"train": 0.6, "tune": 0.15, "test": 0.25}
"""Shares of the groups of each folder; folders of unseen conditions are of the test alone."""

_SALT = "decisive triage"  # Of the order by which groups are split; part of the rule.
_NEAR = 0.99  # Correlation of 16 x 16 thumbnails from which on two pictures are of one group.
_BORDER = 8  # The band that the border control sees is an eighth of the side.
_THUMBNAIL = 8

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Pictures:
    """Grey pictures of one size with their folders.

    Attributes:
        pixels: `(N, side, side)` uint8.
        folders: name of the folder of each.
        groups: `(N,)` number of the group of each; pictures of one group are never split.
        digests: SHA-256 of each file, hexadecimal.
        skipped: files that could not be read, and why.
    """

    pixels: NDArray[np.uint8]
    folders: tuple[str, ...]
    groups: Rows
    digests: tuple[str, ...]
    skipped: Mapping[str, str]

    def rows(self, folder: str) -> Rows:
        """Of the pictures of a folder."""
        return np.flatnonzero(np.array(self.folders) == folder)


def read_folders(root: Path, folders: Sequence[str], side: int) -> Pictures:
    """Read folders of pictures, cut to squares and shrunk, and group what is alike.

    Squares are cut from the middle, or the ratio of sides would tell folders apart.

    Args:
        root: holds the folders.
        folders: their names.
        side: pixels a side.

    Raises:
        ValueError: if a folder is not there, or has no picture.
    """
    pixels: list[NDArray[np.uint8]] = []
    names: list[str] = []
    digests: list[str] = []
    skipped: dict[str, str] = {}
    for folder in folders:
        if not (root / folder).is_dir():
            raise ValueError(f"no folder {root / folder}; name folders of pictures by class")
        for path in sorted((root / folder).iterdir()):
            try:
                found = read_picture(path, side, 1)
            except NotReadable as reason:
                skipped[f"{folder}/{path.name}"] = str(reason)
                continue
            pixels.append(_square(found.pixels, side))
            names.append(folder)
            digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
        if folder not in names:
            raise ValueError(f"no picture in {root / folder} can be read")
    stacked = np.stack(pixels)
    return Pictures(stacked, tuple(names), group_alike(stacked), tuple(digests), skipped)


def _square(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    from PIL import Image

    cut = fit_picture(pixels, (side, side), "crop")
    return np.asarray(Image.fromarray(cut).resize((side, side), Image.Resampling.BILINEAR))


def group_alike(pixels: NDArray[np.uint8]) -> Rows:
    """Number of the group of each picture, `(N,)`.

    It is that of the first picture that it is a near copy of, directly or through others. Copies
    are found by the correlation of thumbnails, so recompressed and brightened ones count.
    """
    small = _means(pixels, 16).reshape(len(pixels), -1)
    centred = small - small.mean(1, keepdims=True)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
    near = centred @ centred.T >= _NEAR
    near |= np.eye(len(pixels), dtype=bool)
    groups = np.arange(len(pixels))
    while True:
        merged = np.where(near, groups[None, :], len(pixels)).min(1)
        if (merged == groups).all():
            return groups
        groups = merged


def split(pictures: Pictures, seen: Sequence[str], unseen: Sequence[str]) -> dict[str, Rows]:
    """Rows of training, tuning and test, by a fixed rule: groups in the order of a hash.

    Of a group the first picture stands for all: the others are in no split, or copies would count
    twice. Groups with pictures of several folders are left out, as nobody knows what they show.

    Args:
        pictures: all of them.
        seen: folders that are learned from.
        unseen: folders that only the test has.
    """
    chosen: dict[str, list[int]] = {name: [] for name in SPLITS}
    folders = np.array(pictures.folders)
    first = {int(group): int(row) for row, group in reversed(list(enumerate(pictures.groups)))}
    pure = {
        group: row
        for group, row in first.items()
        if len(set(folders[pictures.groups == group].tolist())) == 1
    }
    for folder in (*seen, *unseen):
        rows = [row for row in pure.values() if folders[row] == folder]
        rows.sort(key=lambda row: _order(pictures.digests[row]))
        if folder in unseen:
            chosen["test"] += rows
            continue
        start, share = 0, 0.0
        for name, part in SPLITS.items():
            share += part
            end = len(rows) if name == "test" else round(share * len(rows))
            chosen[name] += rows[start:end]
            start = end
    return {name: np.array(sorted(rows), np.int64) for name, rows in chosen.items()}


def _order(digest: str) -> str:
    return hashlib.sha256(f"{_SALT} {digest}".encode()).hexdigest()


def image_set(pictures: Pictures, rows: Rows, normal: str, source: str) -> ImageSet:
    """What a classifier learns from: one task, normal or abnormal."""
    labels = np.array([[int(pictures.folders[row] != normal)] for row in rows], np.int64)
    facts = {"name": "triage", "synthetic": False}
    return ImageSet(pictures.pixels[rows][..., None], labels, {TASK: CLASSES}, source, facts)


def seen_by(control: str, data: ImageSet) -> ImageSet:
    """What a classifier sees that must not be able to do the job.

    Args:
        control: `all` changes nothing; `border` blackens all but a band along the edges, an eighth
            of the side wide; `thumbnail` leaves 8 x 8 means, enlarged again.
        data: square pictures.
    """
    if control == "all":
        return data
    if control not in ("border", "thumbnail"):
        raise ValueError(f"control must be all, border or thumbnail, got {control!r}")
    pixels = np.array(data.images)
    side = pixels.shape[1]
    if control == "border":
        band = max(1, side // _BORDER)
        pixels[:, band:-band, band:-band] = 0
        return replace(data, images=pixels)
    place = np.arange(side) * _THUMBNAIL // side
    for channel in range(pixels.shape[-1]):
        coarse = np.rint(_means(pixels[..., channel], _THUMBNAIL)).astype(np.uint8)
        pixels[..., channel] = coarse[:, place][:, :, place]
    return replace(data, images=pixels)


def _means(pixels: NDArray[np.uint8], cells: int) -> NDArray[np.float64]:
    """`(N, cells, cells)` means of square pictures, of cells that differ by a pixel at most."""
    edges = np.arange(cells) * pixels.shape[1] // cells
    sizes = np.diff([*edges.tolist(), pixels.shape[1]])
    sums = np.add.reduceat(pixels.astype(np.float64), edges, axis=1)
    sums = np.add.reduceat(sums, edges, axis=2)
    means: NDArray[np.float64] = sums / (sizes[:, None] * sizes[None, :])
    return means
