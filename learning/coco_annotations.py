"""Labelled pictures as COCO writes them: one JSON file, which most tools for labelling can export.

Read are `images` (`id`, `file_name`; `height` and `width` where they are told), `categories` (`id`,
`name`) and `annotations` (`image_id`, `category_id`, and `segmentation`, `bbox` or both). A
segmentation is a list of polygons, all parts of one instance, or run lengths, compressed or not. An
instance with a `bbox` alone, `x, y, width, height` in pixels, has no mask: a detector learns from
it, a mask head does not. Crowds (`iscrowd`) are no instances and are left out.

Polygons are rasterised by the rule of `learning.coco_polygons`, at the size that is asked for.

Source: Lin et al. 2014, "Microsoft COCO: Common Objects in Context", and its published code.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from learning.coco_polygons import letterboxed, rasterise
from learning.instance_set import InstanceSet, Scene, checked_classes
from learning.photographs import open_rgb, upright

SUFFIX = ".json"
_MOST_PIXELS = 1 << 28
"""Of a picture that run lengths may claim."""


@dataclass(frozen=True)
class _Instance:
    """One annotation.

    Attributes:
        where: words for errors.
        kind: its class.
        polygons: `(n, 2)` corners of each part in pixels of the picture; none with `runs`.
        runs: lengths of runs down the columns, of background first, or None.
        size: height and width that the runs are of.
        box: `x1, y1, x2, y2` in pixels, of an instance without a mask; else None.
    """

    where: str
    kind: int
    polygons: tuple[NDArray[np.float64], ...] = ()
    runs: NDArray[np.int64] | None = None
    size: tuple[int, int] = (0, 0)
    box: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class _Picture:
    path: Path
    size: tuple[int, int] | None
    instances: list[_Instance]


class CocoAnnotations(InstanceSet):
    """The pictures of a file; they stay on the disk.

    Attributes:
        category_ids: of each class.
        n_instances: with a mask or a box.
        n_boxes: those of them that have a box and no mask.
        n_crowds: annotations that were left out.
    """

    def __init__(
        self, file: str | Path, size: tuple[int, int] | None = None, *, masks: bool = False
    ) -> None:
        """Read the annotations and find the pictures.

        These lie beside the file, in a folder `images` there, or beside the file's folder: in the
        one above, in its `images`, or in one named as the file is after `instances_`, COCO's own
        way. All must lie in the same one of these.

        Args:
            file: `*.json`.
            size: `(H, W)` that every picture is letterboxed to; None: as they are.
            masks: refuse instances without a mask, as what masks are scored by must.

        Raises:
            ValueError: one line, if it is missing or malformed, or a picture is not found.
        """
        self._file, self._size = Path(file), size
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise ValueError(f"size must be (height, width) in pixels, got {size}")
        document = _read(self._file)
        try:
            self._take(document, masks)
        except ValueError as error:
            raise ValueError(f"{self._file}: {error}") from None
        told = [f"{self._file.name}: COCO annotations", _described(document)]
        if self.n_boxes:
            told.append(f"{self.n_boxes} of {self.n_instances} instances with a box and no mask")
        if self.n_crowds:
            told.append(f"{self.n_crowds} crowds left out")
        self.source = ", ".join(filter(None, told))
        self.facts = {"name": self._file.name, "size": size, "synthetic": False}

    def _take(self, document: Mapping[str, Any], masks: bool) -> None:
        categories = dict(sorted(_categories(document).items()))
        self.category_ids = tuple(categories)
        self.classes = checked_classes(list(categories.values()))
        kinds = {number: k for k, number in enumerate(self.category_ids)}
        pictures = _pictures(document)
        self.n_instances = self.n_boxes = self.n_crowds = 0
        for number, annotation in enumerate(_objects(document, "annotations")):
            where = f"annotation {annotation.get('id', number)!r:.60}"
            image, category = annotation.get("image_id"), annotation.get("category_id")
            if not _is_whole(image) or image not in pictures:
                raise ValueError(f"{where} is of an unknown image {image!r:.60}")
            if not _is_whole(category) or category not in kinds:
                raise ValueError(f"{where} is of an unknown category {category!r:.60}")
            if annotation.get("iscrowd"):
                self.n_crowds += 1
                continue
            instance = _instance(where, kinds[category], annotation)
            self.n_instances += 1
            self.n_boxes += instance.box is not None
            if masks and instance.box is not None:
                raise ValueError(f"{where} has a box and no mask, which cannot be scored")
            pictures[image].instances.append(instance)
        root = _root(self._file, next(iter(pictures.values())).path)
        self._pictures = [
            _Picture(root / picture.path, picture.size, picture.instances)
            for picture in pictures.values()
        ]
        # Told now, not after an hour of training.
        for one in self._pictures:
            if not one.path.is_file():
                raise ValueError(f"a picture is missing, {one.path}")

    def __len__(self) -> int:
        """Number of scenes."""
        return len(self._pictures)

    def __getitem__(self, k: int) -> Scene:
        """Scene k; instances too thin for a pixel's centre are left out.

        Raises:
            IndexError: beyond the set.
            ValueError: if the picture cannot be read, or is of another size than the file says.
        """
        one = self._pictures[range(len(self))[k]]
        picture = _opened(one)
        height, width = picture.height, picture.width
        image, corner, shape = letterboxed(picture, self._size)
        scale = shape / (height, width)
        masks = np.zeros((len(one.instances), *image.shape[:2]), np.bool_)
        boxes = np.full((len(one.instances), 4), np.nan)
        for row, instance in enumerate(one.instances):
            if instance.box is not None:
                limit = np.array([width, height, width, height])
                inside = instance.box.clip(0, limit)
                boxes[row] = inside * np.tile(scale[::-1], 2) + np.tile(corner[::-1], 2)
            elif instance.runs is not None:
                if instance.size != (height, width):
                    raise ValueError(
                        f"{self._file}: {instance.where} is of {instance.size} pixels, its picture "
                        f"of {(height, width)}"
                    )
                rows, columns = (
                    ((np.arange(new) + 0.5) * own / new).astype(np.int64)
                    for new, own in zip(shape.tolist(), (height, width), strict=True)
                )
                whole = _of_runs(instance.runs, instance.size)
                (top, left), (bottom, right) = corner, corner + shape
                masks[row, top:bottom, left:right] = whole[np.ix_(rows, columns)]
            else:
                for polygon in instance.polygons:
                    corners = polygon * scale[::-1] + corner[::-1]
                    masks[row] |= rasterise(corners, image.shape[:2])
        kinds = np.array([instance.kind for instance in one.instances], np.int64)
        return Scene.from_masks(image, masks, kinds, boxes)


def _read(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not JSON ({error})") from None
    if not isinstance(document, dict):
        raise ValueError(f"{file}: not COCO annotations, which are one JSON object")
    return document


def _objects(document: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = document.get(name)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ValueError(f"not COCO annotations: {name} must be a list of objects")
    return found


def _described(document: Mapping[str, Any]) -> str:
    """What the file says of itself, in one line."""
    info = document.get("info")
    said = info.get("description") if isinstance(info, dict) else None
    return " ".join(said.split())[:200] if isinstance(said, str) else ""


def _categories(document: Mapping[str, Any]) -> dict[int, str]:
    categories: dict[int, str] = {}
    for one in _objects(document, "categories"):
        number, name = one.get("id"), one.get("name")
        if not _is_whole(number) or number in categories:
            raise ValueError(
                f"categories need whole numbers of their own as id, got {number!r:.60}"
            )
        if not isinstance(name, str) or not name:
            raise ValueError(f"category {number} needs a name, got {name!r:.60}")
        categories[number] = name
    return categories


def _pictures(document: Mapping[str, Any]) -> dict[int, _Picture]:
    """By id, in the order of the file; their paths are not yet those of files."""
    pictures: dict[int, _Picture] = {}
    for one in _objects(document, "images"):
        number, name = one.get("id"), one.get("file_name")
        if not _is_whole(number) or number in pictures:
            raise ValueError(f"images need whole numbers of their own as id, got {number!r:.60}")
        if not isinstance(name, str) or not name or "\0" in name:
            raise ValueError(f"image {number} needs a file_name, got {name!r:.60}")
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(
                f"image {number} must lie below the folder of pictures, got {name!r:.60}"
            )
        told = one.get("height"), one.get("width")
        sides = [side for side in told if _is_whole(side) and side > 0]
        if told != (None, None) and len(sides) < 2:
            raise ValueError(f"image {number} has a height and width of {told}")
        size = (sides[0], sides[1]) if sides else None
        pictures[number] = _Picture(Path(path), size, [])
    if not pictures:
        raise ValueError("it has no images")
    return pictures


def _root(file: Path, first: Path) -> Path:
    """The folder of the pictures."""
    split = file.stem.removeprefix("instances_")
    places = [file.parent, file.parent / "images"]
    places += [file.parent.parent / name for name in ("", "images", split, f"images/{split}")]
    for place in places:
        if (place / first).is_file():
            return place
    looked = ", ".join(dict.fromkeys(map(str, places)))
    raise ValueError(f"its first picture, {first}, is in none of {looked}")


def _instance(where: str, kind: int, annotation: Mapping[str, Any]) -> _Instance:
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        size, counts = segmentation.get("size"), segmentation.get("counts")
        if (
            not isinstance(size, list)
            or len(size) != 2
            or not all(_is_whole(side) and side > 0 for side in size)
            or math.prod(size) > _MOST_PIXELS
        ):
            raise ValueError(f"{where} needs the size of its run lengths, got {size!r:.60}")
        shape = (int(size[0]), int(size[1]))
        return _Instance(where, kind, runs=_runs(where, counts, math.prod(shape)), size=shape)
    if segmentation:
        if not isinstance(segmentation, list):
            raise ValueError(f"{where} must have polygons or run lengths, got {segmentation!r:.60}")
        return _Instance(where, kind, tuple(_polygon(where, part) for part in segmentation))
    box = annotation.get("bbox")
    if not _is_numbers(box) or len(box) != 4 or not min(box[2:]) > 0:
        raise ValueError(f"{where} has neither a mask nor a box with an area, got {box!r:.60}")
    x, y, width, height = map(float, box)
    return _Instance(where, kind, box=np.array([x, y, x + width, y + height]))


def _polygon(where: str, part: Any) -> NDArray[np.float64]:
    if not _is_numbers(part) or len(part) < 6 or len(part) % 2:
        raise ValueError(f"{where} must hold x and y of three corners or more, got {part!r:.60}")
    return np.array(part, np.float64).reshape(-1, 2)


def _runs(where: str, counts: Any, pixels: int) -> NDArray[np.int64]:
    """Run lengths that add up to the pixels.

    Raises:
        ValueError: if they do not, or are none.
    """
    runs = _uncompressed(counts) if isinstance(counts, str) else counts
    if (
        not isinstance(runs, list)
        or not all(_is_whole(run) and 0 <= run <= pixels for run in runs)
        or sum(runs) != pixels
    ):
        raise ValueError(f"{where} must have run lengths that add up to {pixels} pixels")
    return np.array(runs, np.int64)


def _uncompressed(text: str) -> list[int] | None:
    """Run lengths of COCO's compressed ones; None of what is none.

    Each is a number in groups of five bits, lowest first, a group to a character from "0"; a sixth
    bit says that another follows, and the fifth of the last is the sign. From the fourth on it is
    the difference from the one before the last.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        group = ord(character) - ord("0")
        if not 0 <= group < 64 or shift > 60:
            return None
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return None if shift else runs


def _of_runs(runs: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask `(H, W)` of runs down its columns."""
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(size[::-1]).T


def _opened(one: _Picture) -> Image.Image:
    """A picture as it was labelled: upright, or as it is stored where only so its sides fit.

    Raises:
        ValueError: if it cannot be read or its sides do not fit.
    """
    stored = open_rgb(one.path)
    for shown in (upright(stored), stored):
        if one.size in (None, (shown.height, shown.width)):
            return shown
    raise ValueError(
        f"{one.path}: {stored.height} x {stored.width} pixels, in the annotations "
        f"{' x '.join(map(str, one.size or ()))}"
    )


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_numbers(values: Any) -> TypeGuard[Sequence[float]]:
    return isinstance(values, Sequence) and all(
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and abs(value) < 1e9
        for value in values
    )
