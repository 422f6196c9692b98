"""Real photographs with the outlines of their objects: a small part of COCO.

The folder holds `names.yaml` (COCO's category ids and names), and for each split
`images/SPLIT/NAME.jpg` and `labels/SPLIT/NAME.txt`: one instance a line, its category id and then
x and y of a polygon's corners, as shares of width and height.

Masks are rasterised here, by one rule: a pixel belongs to an instance if its centre lies inside the
polygon by the even-odd rule. Parts of one instance hang together in these files by bridges without
an area, which no centre of a pixel lies in.

Source: Lin et al. 2014, "Microsoft COCO: Common Objects in Context"; annotations CC BY 4.0, images
under the terms of Flickr.
"""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from learning.image_set import data_folder
from learning.instance_set import InstanceSet, Scene, checked_classes
from learning.photographs import open_rgb

NAME = "coco128"
SPLITS = ("train2017", "val2017")
PADDING = 114
"""Grey of what a letterboxed picture does not fill."""
_LINE = re.compile(r"  (\d{1,9}): (\S.*)")
Polygon = tuple[int, NDArray[np.float64]]
"""Class, and `(n, 2)` x and y of the corners as shares of the picture."""


def open_coco_polygons(
    folder: str | Path | None = None,
    split: str = "train2017",
    size: tuple[int, int] | None = None,
) -> "CocoPolygons":
    """Open a split; pictures stay on the disk.

    Args:
        folder: see this module. None: `coco128` in `data_folder()`.
        split: `train2017` or `val2017`.
        size: `(H, W)` that every picture is letterboxed to: scaled until it just fits, in the
            middle, grey around it. None: as they are, each of its own size.

    Raises:
        ValueError: one line, if there is no such split or a file is missing or malformed.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ValueError(f"size must be (height, width) in pixels, got {size}")
    return CocoPolygons(data_folder() / NAME if folder is None else Path(folder), split, size)


class CocoPolygons(InstanceSet):
    """A split of it.

    Attributes:
        category_ids: COCO's id of each class.
        names: of the pictures, without an ending, in order.
    """

    def __init__(self, folder: Path, split: str, size: tuple[int, int] | None) -> None:
        """Read the labels; see `open_coco_polygons`."""
        self._images, labels = (folder / kind / split for kind in ("images", "labels"))
        categories = read_names(folder / "names.yaml")
        self.category_ids = tuple(sorted(categories))
        self.classes = checked_classes([categories[number] for number in self.category_ids])
        self.source = (
            f"COCO {split}, a part (Lin et al. 2014; annotations CC BY 4.0, images under the terms "
            "of Flickr): real photographs with polygons"
        )
        self.facts = {"name": NAME, "split": split, "size": size, "synthetic": False}
        self._size = size
        self.names = tuple(sorted(path.stem for path in self._images.glob("*.jpg")))
        if not self.names:
            raise ValueError(f"no pictures: {self._images} holds no .jpg")
        classes = {number: k for k, number in enumerate(self.category_ids)}
        self._polygons = [read_polygons(labels / f"{name}.txt", classes) for name in self.names]

    def __len__(self) -> int:
        """Number of scenes."""
        return len(self.names)

    def __getitem__(self, k: int) -> Scene:
        """Scene k; instances too thin for a pixel's centre are left out.

        Raises:
            IndexError: beyond the set.
            ValueError: if the picture cannot be read.
        """
        k = range(len(self))[k]
        picture = open_rgb(self._images / f"{self.names[k]}.jpg")
        image, corner, shape = letterboxed(picture, self._size)
        polygons = self._polygons[k]
        masks = np.zeros((len(polygons), *image.shape[:2]), np.bool_)
        for row, (_, corners) in enumerate(polygons):
            masks[row] = rasterise(corners * shape[::-1] + corner[::-1], image.shape[:2])
        return Scene.from_masks(image, masks, np.array([c for c, _ in polygons], np.int64))


def letterboxed(
    picture: Image.Image, size: tuple[int, int] | None
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """A picture scaled until it just fits, in the middle of a grey one.

    Args:
        picture: RGB.
        size: `(H, W)`; None: as it is.

    Returns:
        `(H, W, 3)` uint8; row and column of the scaled picture's upper left corner; its height and
        width. A point at shares x and y of the picture is at `x * width + column`,
        `y * height + row`.
    """
    width, height = picture.size
    if size is None:
        return np.array(picture), np.zeros(2, np.int64), np.array([height, width])
    scale = min(size[0] / height, size[1] / width)
    shape = np.array([max(1, round(height * scale)), max(1, round(width * scale))])
    corner = (np.array(size) - shape) // 2
    image = np.full((*size, 3), PADDING, np.uint8)
    (top, left), (bottom, right) = corner.tolist(), (corner + shape).tolist()
    # Pillow widens the filter when it makes a picture smaller, so fine patterns do not alias.
    scaled = picture.resize((right - left, bottom - top), Image.Resampling.BILINEAR)
    image[top:bottom, left:right] = np.asarray(scaled)
    return image, corner, shape


def rasterise(corners: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose centres lie inside a polygon, by the even-odd rule.

    Args:
        corners: `(n, 2)` x and y in pixels; pixel (i, j) covers x from j to j + 1, y from i to
            i + 1. The last is joined to the first. They may lie outside the picture.
        size: `(H, W)`.

    Returns:
        `(H, W)` bool. A centre exactly on an edge belongs to the side that x or y rises into, so
        polygons that share an edge share no pixel and leave none out.
    """
    height, width = size
    starts, ends = corners, np.roll(corners, -1, axis=0)
    centers = np.arange(height) + 0.5
    # An edge is crossed by the rows whose centres its y runs over.
    edges, rows = np.nonzero((starts[:, 1:] <= centers) != (ends[:, 1:] <= centers))
    (x1, y1), (x2, y2) = starts[edges].T, ends[edges].T
    crossings = x1 + (centers[rows] - y1) / (y2 - y1) * (x2 - x1)
    # The first column whose centre is not left of the crossing; from there on the parity changes.
    columns = np.clip(np.ceil(crossings - 0.5), 0, width).astype(np.int64)
    changes = np.bincount(rows * (width + 1) + columns, minlength=height * (width + 1))
    return (changes.reshape(height, -1).cumsum(1) % 2 == 1)[:, :width]


def read_names(path: Path) -> dict[int, str]:
    """Categories of a `names.yaml`: the one line `names:`, and below it lines `  ID: NAME`.

    Nothing else of YAML is understood.

    Raises:
        ValueError: if it is missing or has any other line.
    """
    lines = _text(path).splitlines()
    if not lines or lines[0] != "names:":
        raise ValueError(f"{path}: the first line must be 'names:'")
    names: dict[int, str] = {}
    for number, line in enumerate(lines[1:], 2):
        match = _LINE.fullmatch(line.rstrip())
        if match is None or int(match[1]) in names or set(match[2]) & set("'\"#:[]{}&*"):
            raise ValueError(f"{path}: line {number} must be '  ID: NAME', got {line!r}")
        names[int(match[1])] = match[2]
    return names


def read_polygons(path: Path, classes: dict[int, int]) -> list[Polygon]:
    """Instances of a file of labels.

    Args:
        path: one instance a line.
        classes: class of each category id.

    Raises:
        ValueError: if it is missing or malformed.
    """
    polygons = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            category, corners = int(words[0]), np.array(words[1:], np.float64)
        except ValueError:
            raise ValueError(f"{path}: line {number} must hold numbers: {line[:60]!r}") from None
        if category not in classes:
            raise ValueError(f"{path}: line {number} has an unknown category {category}")
        if len(corners) < 6 or len(corners) % 2 or not ((corners >= 0) & (corners <= 1)).all():
            raise ValueError(
                f"{path}: line {number} must hold x and y of three corners or more, from 0 to 1"
            )
        polygons.append((classes[category], corners.reshape(-1, 2)))
    return polygons


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(
            f"no data: {path} is not there; set DECISIVE_DATA to the folder of data"
        ) from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not text ({error})") from None
