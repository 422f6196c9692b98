"""Images with what several tasks are to say of them: maps and numbers, in a folder.

A folder holds `images.npy` (uint8), one `.npy` file a task, and `set.json` (`format`, `holds`,
`targets`, `source`, `facts`). All arrays are memory-mapped, so a set may be larger than the memory.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from learning.atomic import new_folder

FORMAT = 1
HOLDS = "tasks"
IMAGES, DOCUMENT = "images.npy", "set.json"
Kind = Literal["classes", "values", "directions", "mask", "numbers"]
_DTYPES: dict[str, type[np.generic]] = {
    "classes": np.uint8,
    "values": np.float32,
    "directions": np.float16,
    "mask": np.bool_,
    "numbers": np.float32,
}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Target:
    """What a task says of an image.

    Attributes:
        kind: `classes`: one for each pixel, `(N, H, W)` uint8. `values`: a number for each pixel,
            `(N, H, W)` float32. `directions`: a unit vector for each pixel, x to the right of the
            image, `(N, H, W, 3)` float16. `mask`: yes or no for each pixel, `(N, H, W)` bool.
            `numbers`: of the whole image, `(N, K)` float32.
        names: of the classes, or of the numbers.
        unit: of values or numbers.
    """

    kind: Kind
    names: tuple[str, ...] = ()
    unit: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no target."""
        object.__setattr__(self, "names", tuple(self.names))
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        least = {"classes": 2, "numbers": 1}.get(self.kind, 0)
        if len(self.names) < least or (not least and self.names):
            raise ValueError(f"{self.kind} must have {least or 'no'} names or more: {self.names}")
        if not all(isinstance(name, str) and name for name in self.names):
            raise ValueError(f"names must be words, got {self.names}")

    @property
    def channels(self) -> int:
        """Outputs of a network for it, for each pixel or for the image."""
        return {"values": 1, "mask": 1, "directions": 3}.get(self.kind, len(self.names))

    @property
    def dense(self) -> bool:
        """Whether it says something of each pixel."""
        return self.kind != "numbers"

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its array."""
        return np.dtype(_DTYPES[self.kind])

    def shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        """Of the array of one image of `(H, W)` pixels."""
        if not self.dense:
            return (len(self.names),)
        return (*size, 3) if self.kind == "directions" else size


@dataclass(frozen=True)
class TaskSet:
    """Images and the targets of several tasks.

    Attributes:
        images: `(N, H, W, 3)` uint8, may be memory-mapped.
        arrays: by task, as its target says.
        targets: by task.
        source: one line: what the images are and their licence.
        facts: JSON values: seed, generator, ...
    """

    images: NDArray[np.uint8]
    arrays: Arrays
    targets: Mapping[str, Target]
    source: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        images = self.images
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not images.size:
            raise ValueError(
                f"images must be uint8 (N, H, W, 3), got {images.dtype} {images.shape}"
            )
        _check_targets(self.targets)
        _check_arrays(self.arrays, self.targets, images)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images, pixels."""
        return self.images.shape[1], self.images.shape[2]


def open_task_set(folder: str | Path) -> TaskSet:
    """Open a folder that `write_task_set` wrote; arrays stay on the disk.

    Raises:
        ValueError: one line, if a file is missing or malformed.
    """
    folder = Path(folder)
    document = _document(folder / DOCUMENT)
    try:
        targets = {str(task): Target(**told) for task, told in document["targets"].items()}
        _check_targets(targets)
        return TaskSet(
            images=_array(folder / IMAGES),
            arrays={task: _array(folder / f"{task}.npy") for task in targets},
            targets=targets,
            source=document["source"],
            facts=document["facts"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / DOCUMENT}: not a set of tasks ({error})") from None
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None


def write_task_set(
    folder: str | Path,
    chunks: Iterable[tuple[NDArray[np.uint8], Arrays]],
    n: int,
    size: tuple[int, int],
    targets: Mapping[str, Target],
    source: str,
    facts: Mapping[str, Any],
) -> None:
    """Write a set a chunk at a time, replacing an older one in one step.

    Args:
        folder: the final place.
        chunks: images and arrays, in order.
        n: how many images they hold together.
        size: `(H, W)`.
        targets: by task.
        source: as of `TaskSet`.
        facts: as of `TaskSet`.

    Raises:
        ValueError: if chunks do not fit; nothing is written then.
        OSError: if the disk is full or the folder cannot be written.
    """
    if n < 1 or len(size) != 2 or min(size) < 1:
        raise ValueError(f"a set needs images of (H, W) pixels, got {n} of {size}")
    _check_targets(targets)
    told = {
        "format": FORMAT,
        "holds": HOLDS,
        "targets": {task: asdict(target) for task, target in targets.items()},
        "source": source,
        "facts": dict(facts),
    }
    document = json.dumps(told, indent=2, allow_nan=False) + "\n"
    with new_folder(Path(folder)) as beside:
        shapes: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
            "images": (np.dtype(np.uint8), (*size, 3)),
            **{task: (target.dtype, target.shape(size)) for task, target in targets.items()},
        }
        places = {
            name: np.lib.format.open_memmap(
                beside / f"{name}.npy", mode="w+", dtype=dtype, shape=(n, *shape)
            )
            for name, (dtype, shape) in shapes.items()
        }
        filled = 0
        for images, arrays in chunks:
            part = TaskSet(images, arrays, targets, source)  # checks them
            end = filled + len(part)
            if part.size != tuple(size) or end > n:
                raise ValueError(
                    f"chunks must hold {n} images {(*size, 3)} together, got {images.shape} after "
                    f"{filled}"
                )
            for name, place in places.items():
                place[filled:end] = images if name == "images" else arrays[name]
            filled = end
        if filled != n:
            raise ValueError(f"chunks must hold {n} images together, got {filled}")
        while places:  # unmapped before the folder moves
            places.popitem()[1].flush()
        (beside / DOCUMENT).write_text(document, encoding="utf-8")


# Checks


def _check_targets(targets: Mapping[str, Target]) -> None:
    if not targets:
        raise ValueError("targets must name at least one task")
    for task in targets:
        if not _NAME.fullmatch(task) or task == "images":
            raise ValueError(f"a task must be called by small letters and digits, got {task!r}")


def _check_arrays(arrays: Arrays, targets: Mapping[str, Target], images: NDArray[np.uint8]) -> None:
    if set(arrays) != set(targets):
        raise ValueError(f"arrays must be of {', '.join(targets)}, got {', '.join(arrays)}")
    size = images.shape[1], images.shape[2]
    for task, target in targets.items():
        array, shape = arrays[task], (len(images), *target.shape(size))
        if array.dtype != target.dtype or array.shape != shape:
            raise ValueError(
                f"{task} must be {target.dtype} {shape}, got {array.dtype} {array.shape}"
            )
        if target.kind == "classes" and int(array.max()) >= len(target.names):
            raise ValueError(f"{task} must be 0 to {len(target.names) - 1}, got {array.max()}")
        if array.dtype.kind == "f" and not math.isfinite(float(np.abs(array).max())):
            raise ValueError(f"{task} must be finite, got NaN or infinite numbers")


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is not there: no set of tasks in this folder") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(document, dict) or document.get("holds") != HOLDS:
        raise ValueError(f"{path}: not a set of tasks; decisive data render-tasks makes one")
    if document.get("format") != FORMAT:
        raise ValueError(f"{path}: format must be {FORMAT}, got {document.get('format')!r}")
    if not isinstance(document.get("source"), str) or not isinstance(document.get("facts"), dict):
        raise ValueError(f"{path}: source must be text and facts an object")
    return dict(document)


def _array(path: Path) -> NDArray[Any]:
    try:
        return np.asanyarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except FileNotFoundError:
        raise ValueError(f"{path.name} is not there") from None
    except Exception as error:  # numpy raises whatever the damage leads to
        detail = " ".join(str(error).split())[:160]
        raise ValueError(f"{path.name} is damaged ({detail})") from None
