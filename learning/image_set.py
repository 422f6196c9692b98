"""Images with labels of one or several tasks, in a folder or read from the public sets.

A folder holds `images.npy` (uint8), `labels.npy` (int64) and `set.json` (`format`, `tasks`,
`source`, `facts`). Images are memory-mapped, so a set may be larger than the memory.
"""

import io
import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from learning.atomic import new_folder

FORMAT = 1
UNLABELLED = -1
"""Label of an image that a task says nothing of."""

IMAGES, LABELS, DOCUMENT = "images.npy", "labels.npy", "set.json"


@dataclass(frozen=True)
class ImageSet:
    """Images and what is known of them.

    Attributes:
        images: `(N, H, W, C)` uint8, may be memory-mapped; clips are `(N, T, H, W, C)`.
        labels: `(N, n_tasks)` int64; -1 where a task has no label for an image.
        tasks: names of the classes of each task, in order of the columns.
        source: one line: what the images are and their licence.
        facts: JSON values: seed, generator, ...
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    tasks: Mapping[str, tuple[str, ...]]
    source: str
    facts: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Refuse arrays and names that do not belong together."""
        if self.images.dtype != np.uint8 or self.images.ndim not in (4, 5):
            raise ValueError(
                "images must be uint8 (N, H, W, C), clips (N, T, H, W, C), got "
                f"{self.images.dtype} {self.images.shape}"
            )
        if not self.images.size:
            raise ValueError(f"images must hold at least one pixel, got {self.images.shape}")
        _check_tasks(self.tasks)
        _check_labels(self.labels, len(self.images), self.tasks)

    def __len__(self) -> int:
        """Number of images or clips."""
        return len(self.images)

    @property
    def is_clips(self) -> bool:
        """Whether each item has several frames."""
        return self.images.ndim == 5

    @property
    def n_classes(self) -> int:
        """Of all tasks together."""
        return sum(map(len, self.tasks.values()))

    def take(self, rows: ArrayLike) -> "ImageSet":
        """Some of the images, in the order of `rows`; they are copied into memory."""
        chosen = np.asarray(rows, np.int64)
        return replace(self, images=self.images[chosen], labels=self.labels[chosen])


def open_image_set(folder: str | Path) -> ImageSet:
    """Open a folder that `write_image_set` wrote; images stay on the disk.

    Raises:
        ValueError: one line, if a file is missing or malformed.
    """
    folder = Path(folder)
    document = _document(folder / DOCUMENT)
    try:
        return ImageSet(
            images=_array(folder / IMAGES, mapped=True),
            labels=_array(folder / LABELS, mapped=False),
            tasks={task: tuple(classes) for task, classes in document["tasks"].items()},
            source=document["source"],
            facts=document["facts"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / DOCUMENT}: not a set of images ({error})") from None
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None


def write_image_set(
    folder: str | Path,
    chunks: Iterable[tuple[NDArray[np.uint8], NDArray[np.int64]]],
    n: int,
    size: Sequence[int],
    tasks: Mapping[str, Sequence[str]],
    source: str,
    facts: Mapping[str, Any],
) -> None:
    """Write a set a chunk at a time, replacing an older one in one step.

    Args:
        folder: the final place.
        chunks: images `(k, *size)` uint8 and labels `(k, n_tasks)`, in order.
        n: how many images they hold together.
        size: shape of an item, `(H, W, C)` or `(T, H, W, C)`.
        tasks: as of `ImageSet`.
        source: as of `ImageSet`.
        facts: as of `ImageSet`.

    Raises:
        ValueError: if chunks do not fit; nothing is written then.
        OSError: if the disk is full or the folder cannot be written.
    """
    if n < 1 or len(size) not in (3, 4) or min(size) < 1:
        raise ValueError(f"a set needs an image, (H, W, C) or (T, H, W, C), got {n} of {size}")
    named = {task: tuple(classes) for task, classes in tasks.items()}
    _check_tasks(named)
    told = {"format": FORMAT, "tasks": named, "source": source, "facts": dict(facts)}
    document = json.dumps(told, indent=2, allow_nan=False) + "\n"
    with new_folder(Path(folder)) as beside:
        images = np.lib.format.open_memmap(
            beside / IMAGES, mode="w+", dtype=np.uint8, shape=(n, *size)
        )
        labels = np.empty((n, len(named)), np.int64)
        filled = 0
        for pixels, classes in chunks:
            end = filled + len(pixels)
            if pixels.dtype != np.uint8 or pixels.shape[1:] != tuple(size) or end > n:
                raise ValueError(
                    f"chunks must hold {n} images {tuple(size)} uint8 together, got "
                    f"{pixels.dtype} {pixels.shape} after {filled}"
                )
            _check_labels(classes, len(pixels), named)
            images[filled:end], labels[filled:end] = pixels, classes
            filled = end
        if filled != n:
            raise ValueError(f"chunks must hold {n} images together, got {filled}")
        images.flush()
        del images  # unmapped before the folder moves
        np.save(beside / LABELS, labels)
        (beside / DOCUMENT).write_text(document, encoding="utf-8")


# Public sets


def data_folder() -> Path:
    """The folder of data sets: `DECISIVE_DATA`, else `shared/data` beside the project."""
    named = os.environ.get("DECISIVE_DATA")
    return Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"


def cifar10(folder: str | Path | None = None, split: str = "train") -> ImageSet:
    """CIFAR-10: 50,000 or 10,000 photographs of 32 pixels, sorted by class.

    Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images". The files are
    JPEGs, compressed once more than the original: accuracies are of those.

    Args:
        folder: holds `train.npz` and `test.npz`: `jpeg`, all files end to end; `offsets`, `labels`
            and `classes`. None: `cifar10` in `data_folder()`.
        split: `train` or `test`.

    Raises:
        ValueError: if there is no such file or split, or the file is malformed.
    """
    _check_split(split)
    path = _found(folder, "cifar10", f"{split}.npz")
    arrays = _arrays(path, ("jpeg", "offsets", "labels", "classes"))
    jpeg, offsets = arrays["jpeg"].tobytes(), arrays["offsets"].tolist()
    images = np.empty((len(offsets) - 1, 32, 32, 3), np.uint8)
    try:
        for k, (start, end) in enumerate(itertools.pairwise(offsets)):
            images[k] = np.asarray(Image.open(io.BytesIO(jpeg[start:end])))
        return ImageSet(
            images=images,
            labels=arrays["labels"].astype(np.int64)[:, None],
            tasks={"object": tuple(map(str, arrays["classes"]))},
            source=(
                f"CIFAR-10 {split} (Krizhevsky 2009; no licence stated): real photographs, "
                "compressed once more as JPEG"
            ),
            facts={"name": "cifar10", "split": split, "synthetic": False},
        )
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def mnist(folder: str | Path | None = None, split: str = "train") -> ImageSet:
    """MNIST: 60,000 or 10,000 grey digits of 28 pixels, as they are, with one channel.

    Source: LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition".

    Args:
        folder: holds `mnist.npz`: `train_x`, `train_y`, `test_x`, `test_y`. None: `mnist` in
            `data_folder()`.
        split: `train` or `test`.

    Raises:
        ValueError: if there is no such file or split, or the file is malformed.
    """
    _check_split(split)
    path = _found(folder, "mnist", "mnist.npz")
    arrays = _arrays(path, (f"{split}_x", f"{split}_y"))
    try:
        return ImageSet(
            images=arrays[f"{split}_x"][..., None],
            labels=arrays[f"{split}_y"].astype(np.int64)[:, None],
            tasks={"digit": tuple(map(str, range(10)))},
            source=f"MNIST {split} (LeCun et al. 1998; MIT): real handwritten digits",
            facts={"name": "mnist", "split": split, "synthetic": False},
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _check_split(split: str) -> None:
    if split not in ("train", "test"):
        raise ValueError(f"split must be train or test, got {split!r}")


def _found(folder: str | Path | None, name: str, file: str) -> Path:
    path = (data_folder() / name if folder is None else Path(folder)) / file
    if not path.is_file():
        raise ValueError(f"no data: {path} is not there; set DECISIVE_DATA to the folder of data")
    return path


def _arrays(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except Exception as error:  # zipfile, zlib and numpy each have errors of their own
        detail = " ".join(str(error).split())[:160]
        raise ValueError(f"{path}: not the file that was expected ({detail})") from None


# Checks


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is not there: no set of images in this folder") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path}: format must be {FORMAT}, got {found!r}")
    if not isinstance(document.get("source"), str) or not isinstance(document.get("facts"), dict):
        raise ValueError(f"{path}: source must be text and facts an object")
    return dict(document)


def _array(path: Path, mapped: bool) -> NDArray[Any]:
    try:
        return np.asanyarray(np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False))
    except FileNotFoundError:
        raise ValueError(f"{path.name} is not there") from None
    except Exception as error:  # numpy raises whatever the damage leads to
        detail = " ".join(str(error).split())[:160]
        raise ValueError(f"{path.name} is damaged ({detail})") from None


def _check_tasks(tasks: Mapping[str, tuple[str, ...]]) -> None:
    if not tasks:
        raise ValueError("tasks must name at least one task and its classes")
    for task, classes in tasks.items():
        if not all(isinstance(name, str) and name for name in classes):
            raise ValueError(f"classes of {task!r} must be names, got {classes}")
        if len(classes) < 2 or len(set(classes)) < len(classes):
            raise ValueError(f"classes of {task!r} must be two or more, all different: {classes}")


def _check_labels(labels: NDArray[Any], n: int, tasks: Mapping[str, tuple[str, ...]]) -> None:
    if labels.shape != (n, len(tasks)) or labels.dtype != np.int64:
        raise ValueError(
            f"labels must be int64 ({n}, {len(tasks)}), a column for each task, got "
            f"{labels.dtype} {labels.shape}"
        )
    for column, (task, classes) in zip(labels.T, tasks.items(), strict=True):
        if column.size and not UNLABELLED <= column.min() <= column.max() < len(classes):
            raise ValueError(
                f"labels of {task!r} must be {UNLABELLED} to {len(classes) - 1}, got "
                f"{column.min()} to {column.max()}"
            )
