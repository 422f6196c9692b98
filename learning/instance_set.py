"""Pictures with instance masks: what a scene is, and sets of scenes in folders.

A folder holds `images.npy` (uint8 pictures), `ids.npy` (uint8: which instance each pixel shows,
0 for none), `first.npy` (where each picture's instances start), `classes.npy` (of all instances,
one picture after the other) and `set.json`. Pictures and ids are memory-mapped, so a set may be
larger than the memory. Boxes are not stored: they follow from the masks.
"""

import json
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from learning.atomic import new_folder

FORMAT = 1
HOLDS = "instances"
MOST_INSTANCES = 255
"""Of a picture: an id is a byte, and 0 is none."""
IMAGES, IDS, FIRST, CLASSES, DOCUMENT = (
    "images.npy",
    "ids.npy",
    "first.npy",
    "classes.npy",
    "set.json",
)
Chunk = tuple[NDArray[np.uint8], NDArray[np.uint8], Sequence[NDArray[np.int64]]]
"""Pictures `(k, H, W, 3)`, ids `(k, H, W)`, and of each picture the classes of ids 1 and up."""


@dataclass(frozen=True)
class Scene:
    """A picture and its instances.

    Attributes:
        image: `(H, W, 3)` uint8 RGB.
        boxes: `(n, 4)` float32, tight around what is seen: `x1, y1, x2, y2` in pixels; pixel
            (row i, column j) covers x from j to j + 1 and y from i to i + 1.
        classes: `(n,)` int64.
        masks: `(n, H, W)` bool, what is seen of each; empty where it is not known.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    masks: NDArray[np.bool_]

    def __len__(self) -> int:
        """Number of instances."""
        return len(self.classes)

    @classmethod
    def from_masks(
        cls,
        image: NDArray[np.uint8],
        masks: NDArray[np.bool_],
        classes: NDArray[np.int64],
        boxes: NDArray[np.floating] | None = None,
    ) -> Self:
        """A scene whose boxes follow from its masks.

        Args:
            image: `(H, W, 3)` uint8.
            masks: `(n, H, W)` bool. What has an empty one is not seen, so it is no instance.
            classes: `(n,)`.
            boxes: `(n, 4)`, of instances whose mask is not known, so empty; NaN of all others.
                None: there is no such instance.

        Raises:
            ValueError: for arrays that do not belong together.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
            raise ValueError(f"image must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
        n = len(classes)
        if masks.dtype != np.bool_ or masks.shape != (n, *image.shape[:2]):
            raise ValueError(
                f"masks must be bool {(n, *image.shape[:2])}, got {masks.dtype} {masks.shape}"
            )
        seen = masks.any((1, 2))
        found = tight_boxes(masks)
        if boxes is not None:
            alone = ~np.isnan(boxes).any(1)
            found[alone] = boxes[alone]
            seen |= alone
        if not seen.all():
            found, masks, classes = found[seen], masks[seen], classes[seen]
        return cls(image, found, np.asarray(classes, np.int64), masks)

    @classmethod
    def from_ids(
        cls, image: NDArray[np.uint8], ids: NDArray[np.uint8], classes: NDArray[np.int64]
    ) -> Self:
        """A scene from a picture of ids.

        Args:
            image: `(H, W, 3)` uint8.
            ids: `(H, W)` uint8; 0 is no instance, i + 1 is instance i.
            classes: `(n,)` of the instances.

        Raises:
            ValueError: for arrays that do not belong together.
        """
        numbers = np.arange(1, len(classes) + 1, dtype=np.uint8)
        return cls.from_masks(image, ids == numbers[:, None, None], classes)


def tight_boxes(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Boxes `(n, 4)` float32 `x1, y1, x2, y2` around `(n, H, W)` masks, none of them empty."""
    boxes = np.empty((len(masks), 4), np.float32)
    for side, axis in ((0, 1), (1, 2)):
        covered = np.asarray(masks.any(axis))
        boxes[:, side] = covered.argmax(1)
        boxes[:, side + 2] = covered.shape[1] - np.fliplr(covered).argmax(1)
    return boxes


class InstanceSet(ABC):
    """Scenes by their number.

    Attributes:
        classes: names of the classes.
        source: one line: what the pictures are and their licence.
        facts: JSON values: seed, generator, ...
    """

    classes: tuple[str, ...]
    source: str
    facts: Mapping[str, Any]

    @abstractmethod
    def __len__(self) -> int:
        """Number of scenes."""

    @abstractmethod
    def __getitem__(self, k: int) -> Scene:
        """Scene k; negative numbers count from the end, as those of lists do."""

    def __iter__(self) -> Iterator[Scene]:
        """All scenes in order."""
        return (self[k] for k in range(len(self)))


class StoredInstances(InstanceSet):
    """A folder that `write_instance_set` wrote; see `open_instance_set`."""

    def __init__(self, folder: Path) -> None:
        """Open it; pictures stay on the disk."""
        document = _document(folder / DOCUMENT)
        self._folder = folder
        self.source, self.facts = document["source"], document["facts"]
        try:
            self.classes = checked_classes(document["classes"])
            self.images: NDArray[np.uint8] = _array(folder / IMAGES, mapped=True)
            self.ids: NDArray[np.uint8] = _array(folder / IDS, mapped=True)
            self._first = _array(folder / FIRST, mapped=False)
            self._all = _array(folder / CLASSES, mapped=False)
            self._check()
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from None

    def _check(self) -> None:
        images, ids, first, every = self.images, self.ids, self._first, self._all
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not images.size:
            raise ValueError(
                f"{IMAGES} must be uint8 (N, H, W, 3), got {images.dtype} {images.shape}"
            )
        if ids.dtype != np.uint8 or ids.shape != images.shape[:3]:
            raise ValueError(f"{IDS} must be uint8 {images.shape[:3]}, got {ids.dtype} {ids.shape}")
        if every.dtype != np.int64 or every.ndim != 1:
            raise ValueError(f"{CLASSES} must be int64 (n,), got {every.dtype} {every.shape}")
        if first.dtype != np.int64 or first.shape != (len(images) + 1,):
            raise ValueError(
                f"{FIRST} must be int64 ({len(images) + 1},), got {first.dtype} {first.shape}"
            )
        counts = np.diff(first)
        if first[0] != 0 or first[-1] != len(every) or counts.min() < 0:
            raise ValueError(f"{FIRST} must rise from 0 to the {len(every)} instances")
        if counts.max() > MOST_INSTANCES:
            raise ValueError(f"a picture has at most {MOST_INSTANCES} instances: {counts.max()}")
        _check_range(every, len(self.classes))

    def __len__(self) -> int:
        """Number of scenes."""
        return len(self.images)

    @property
    def n_instances(self) -> NDArray[np.int64]:
        """Instances of each class, `(n_classes,)`."""
        return np.bincount(self._all, minlength=len(self.classes))

    def __getitem__(self, k: int) -> Scene:
        """Scene k, copied into memory.

        Raises:
            IndexError: beyond the set.
            ValueError: if its ids are damaged.
        """
        k = range(len(self))[operator.index(k)]
        classes = self._all[self._first[k] : self._first[k + 1]]
        ids = np.array(self.ids[k])
        if ids.max() > len(classes):
            raise ValueError(
                f"{self._folder}: picture {k} has an instance {ids.max()} of {len(classes)}"
            )
        return Scene.from_ids(np.array(self.images[k]), ids, classes.copy())


class JoinedInstances(InstanceSet):
    """Several sets, one after the other.

    Attributes:
        sets: them.
    """

    def __init__(self, sets: Sequence[InstanceSet], classes: Sequence[str] | None = None) -> None:
        """Join them.

        Args:
            sets: one or more; their scenes keep their sizes.
            classes: of the whole, all of theirs among them; None: theirs, in the order in which
                they come.

        Raises:
            ValueError: without sets, or if a class of theirs is none of the whole.
        """
        if not sets:
            raise ValueError("join one set or more, got none")
        every = dict.fromkeys(name for one in sets for name in one.classes)
        self.sets = tuple(sets)
        self.classes = tuple(every) if classes is None else checked_classes(classes)
        unknown = [name for name in every if name not in self.classes]
        if unknown:
            raise ValueError(
                f"classes must have those of all sets, got no {', '.join(map(repr, unknown))}"
            )
        self.source = "; ".join(dict.fromkeys(one.source for one in sets))
        synthetic = all(bool(one.facts.get("synthetic")) for one in sets)
        self.facts = {"joined": [dict(one.facts) for one in sets], "synthetic": synthetic}
        self._new = [np.array([self.classes.index(k) for k in one.classes]) for one in sets]
        self._ends = np.cumsum([len(one) for one in sets])

    def __len__(self) -> int:
        """Number of scenes."""
        return int(self._ends[-1])

    def __getitem__(self, k: int) -> Scene:
        """Scene k, its classes numbered as those of the whole.

        Raises:
            IndexError: beyond the sets.
        """
        k = range(len(self))[operator.index(k)]
        which = int(np.searchsorted(self._ends, k, side="right"))
        own = self.sets[which]
        scene = own[k - int(self._ends[which]) + len(own)]
        return replace(scene, classes=self._new[which][scene.classes])


def open_instance_set(folder: str | Path) -> StoredInstances:
    """Open a folder of scenes.

    Raises:
        ValueError: one line, if a file is missing or malformed.
    """
    return StoredInstances(Path(folder))


def write_instance_set(
    folder: str | Path,
    chunks: Iterable[Chunk],
    n: int,
    size: tuple[int, int],
    classes: Sequence[str],
    source: str,
    facts: Mapping[str, Any],
) -> None:
    """Write a set a chunk at a time, replacing an older one in one step.

    Args:
        folder: the final place.
        chunks: pictures, ids and classes, in order.
        n: how many pictures they hold together.
        size: `(H, W)`.
        classes: names.
        source: as of `InstanceSet`.
        facts: as of `InstanceSet`.

    Raises:
        ValueError: if chunks do not fit, or an instance has no pixel; nothing is written then.
        OSError: if the disk is full or the folder cannot be written.
    """
    if n < 1 or len(size) != 2 or min(size) < 1:
        raise ValueError(f"a set needs pictures of (H, W) pixels, got {n} of {size}")
    named = checked_classes(classes)
    told = {
        "format": FORMAT,
        "holds": HOLDS,
        "classes": named,
        "source": source,
        "facts": dict(facts),
    }
    document = json.dumps(told, indent=2, allow_nan=False) + "\n"
    with new_folder(Path(folder)) as beside:
        images, ids = (
            np.lib.format.open_memmap(beside / name, mode="w+", dtype=np.uint8, shape=shape)
            for name, shape in ((IMAGES, (n, *size, 3)), (IDS, (n, *size)))
        )
        every: list[NDArray[np.int64]] = []
        for pixels, numbers, labels in chunks:
            start, end = len(every), len(every) + len(pixels)
            if (
                pixels.dtype != np.uint8
                or pixels.shape[1:] != (*size, 3)
                or numbers.dtype != np.uint8
                or numbers.shape != pixels.shape[:3]
                or len(labels) != len(pixels)
                or end > n
            ):
                raise ValueError(
                    f"chunks must hold {n} pictures {(*size, 3)} uint8 together, with ids and "
                    f"classes, got {pixels.shape}, {numbers.shape} and {len(labels)} after {start}"
                )
            for k, (one, own) in enumerate(zip(numbers, labels, strict=True), start):
                _check_instances(k, one, own, len(named))
            images[start:end], ids[start:end] = pixels, numbers
            every.extend(labels)
        if len(every) != n:
            raise ValueError(f"chunks must hold {n} pictures together, got {len(every)}")
        for array in (images, ids):
            array.flush()
        del images, ids, array  # unmapped before the folder moves
        np.save(beside / FIRST, np.cumsum([0, *map(len, every)], dtype=np.int64))
        np.save(beside / CLASSES, np.concatenate(every))
        (beside / DOCUMENT).write_text(document, encoding="utf-8")


# Checks


def checked_classes(classes: object) -> tuple[str, ...]:
    """Names of classes as a tuple.

    Raises:
        ValueError: unless they are different names, one or more.
    """
    if (
        not isinstance(classes, list | tuple)
        or not classes
        or not all(isinstance(name, str) and name for name in classes)
        or len(set(classes)) < len(classes)
    ):
        raise ValueError(f"classes must be different names, one or more, got {classes!r}")
    return tuple(classes)


def _check_instances(
    k: int, ids: NDArray[np.uint8], classes: NDArray[np.int64], n_classes: int
) -> None:
    """Refuse ids and classes of a picture that do not belong together."""
    if classes.dtype != np.int64 or classes.ndim != 1 or len(classes) > MOST_INSTANCES:
        raise ValueError(
            f"classes of picture {k} must be int64 (n,), n at most {MOST_INSTANCES}, got "
            f"{classes.dtype} {classes.shape}"
        )
    _check_range(classes, n_classes)
    pixels = np.bincount(ids.ravel(), minlength=len(classes) + 1)
    if len(pixels) > len(classes) + 1:
        raise ValueError(f"picture {k} has an instance {len(pixels) - 1} of {len(classes)}")
    if not pixels[1:].all():
        raise ValueError(f"picture {k} has an instance {1 + pixels[1:].argmin()} without a pixel")


def _check_range(classes: NDArray[np.int64], n_classes: int) -> None:
    if classes.size and not 0 <= classes.min() <= classes.max() < n_classes:
        raise ValueError(
            f"classes must be 0 to {n_classes - 1}, got {classes.min()} to {classes.max()}"
        )


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is not there: no set of instances in this folder") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(document, dict) or document.get("holds") != HOLDS:
        raise ValueError(f"{path}: not a set of instances")
    if document.get("format") != FORMAT:
        raise ValueError(f"{path}: format must be {FORMAT}, got {document.get('format')!r}")
    if not isinstance(document.get("source"), str) or not isinstance(document.get("facts"), dict):
        raise ValueError(f"{path}: source must be text and facts an object")
    return {"classes": None, **document}


def _array(path: Path, mapped: bool) -> NDArray[Any]:
    try:
        return np.asanyarray(np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False))
    except FileNotFoundError:
        raise ValueError(f"{path.name} is not there") from None
    except Exception as error:  # numpy raises whatever the damage leads to
        detail = " ".join(str(error).split())[:160]
        raise ValueError(f"{path.name} is damaged ({detail})") from None
