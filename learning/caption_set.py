"""Pictures with captions in one language or several, in a folder.

A folder holds `images.npy` (uint8, memory-mapped), `captions.json` (for each language a list of
captions for each picture) and `set.json` (`format`, `holds`, `source`, `facts`).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from learning.atomic import new_folder

FORMAT = 1
HOLDS = "captions"
IMAGES, CAPTIONS, DOCUMENT = "images.npy", "captions.json", "set.json"
Captions = Mapping[str, tuple[tuple[str, ...], ...]]
"""By language: of each picture its captions, one or more."""
Chunk = tuple[NDArray[np.uint8], Mapping[str, Sequence[Sequence[str]]]]
"""Pictures `(k, H, W, 3)` and their captions by language."""


@dataclass(frozen=True)
class CaptionSet:
    """Pictures and their captions.

    Attributes:
        images: `(N, H, W, 3)` uint8, may be memory-mapped.
        captions: by language.
        source: one line: what the pictures are and their licence.
        facts: JSON values: seed, generator, ...
    """

    images: NDArray[np.uint8]
    captions: Captions
    source: str
    facts: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Refuse pictures and captions that do not belong together."""
        images = self.images
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not images.size:
            raise ValueError(
                f"images must be uint8 (N, H, W, 3), got {images.dtype} {images.shape}"
            )
        if not self.captions:
            raise ValueError("captions must have a language at least")
        for language, rows in self.captions.items():
            if len(rows) != len(images):
                raise ValueError(
                    f"captions in {language!r} must be of {len(images)} pictures, got {len(rows)}"
                )
            bad = next((k for k, row in enumerate(rows) if not _is_captions(row)), None)
            if bad is not None:
                raise ValueError(f"picture {bad} has no caption in {language!r}, or a blank one")

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.images)

    def take(self, rows: ArrayLike) -> "CaptionSet":
        """Some of the pictures, in the order of `rows`; they are copied into memory."""
        chosen = np.asarray(rows, np.int64)
        captions = {
            language: tuple(every[k] for k in chosen.tolist())
            for language, every in self.captions.items()
        }
        return replace(self, images=self.images[chosen], captions=captions)


def open_caption_set(folder: str | Path) -> CaptionSet:
    """Open a folder that `write_caption_set` wrote; pictures stay on the disk.

    Raises:
        ValueError: one line, if a file is missing or malformed.
    """
    folder = Path(folder)
    document = _json(folder / DOCUMENT)
    if document.get("format") != FORMAT or document.get("holds") != HOLDS:
        raise ValueError(f"{folder / DOCUMENT}: not a set of pictures with captions of this format")
    captions = _json(folder / CAPTIONS)
    try:
        images = np.load(folder / IMAGES, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy raises whatever the damage leads to
        detail = " ".join(str(error).split())[:160]
        raise ValueError(f"{folder / IMAGES}: cannot be read ({detail})") from None
    try:
        named = {
            str(language): tuple(tuple(row) for row in rows) for language, rows in captions.items()
        }
        return CaptionSet(images, named, str(document["source"]), dict(document["facts"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder}: not a set of pictures with captions ({error})") from None
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None


def write_caption_set(
    folder: str | Path,
    chunks: Iterable[Chunk],
    n: int,
    size: tuple[int, int],
    languages: Sequence[str],
    source: str,
    facts: Mapping[str, Any],
) -> None:
    """Write a set a chunk at a time, replacing an older one in one step.

    Args:
        folder: the final place.
        chunks: pictures and captions in order.
        n: how many pictures they hold together.
        size: height and width.
        languages: of all captions.
        source: as of `CaptionSet`.
        facts: as of `CaptionSet`.

    Raises:
        ValueError: if chunks do not fit; nothing is written then.
        OSError: if the disk is full or the folder cannot be written.
    """
    if n < 1:
        raise ValueError(f"a set needs a picture, got {n}")
    told = {"format": FORMAT, "holds": HOLDS, "source": source, "facts": dict(facts)}
    every: dict[str, list[tuple[str, ...]]] = {language: [] for language in languages}
    with new_folder(Path(folder)) as beside:
        images = np.lib.format.open_memmap(
            beside / IMAGES, mode="w+", dtype=np.uint8, shape=(n, *size, 3)
        )
        filled = 0
        for pixels, captions in chunks:
            end = filled + len(pixels)
            if pixels.dtype != np.uint8 or pixels.shape[1:] != (*size, 3) or end > n:
                raise ValueError(
                    f"chunks must hold {n} pictures {(*size, 3)} uint8 together, got "
                    f"{pixels.dtype} {pixels.shape} after {filled}"
                )
            images[filled:end] = pixels
            for language in languages:
                every[language] += [tuple(row) for row in captions[language]]
            filled = end
        if filled != n:
            raise ValueError(f"chunks must hold {n} pictures together, got {filled}")
        frozen = {language: tuple(rows) for language, rows in every.items()}
        CaptionSet(images, frozen, source, facts)  # refuses what could not be read back
        images.flush()
        del images  # unmapped before the folder moves
        text = json.dumps(every, ensure_ascii=False, indent=0)
        (beside / CAPTIONS).write_text(text + "\n", encoding="utf-8")
        (beside / DOCUMENT).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _is_captions(row: Any) -> bool:
    return bool(row) and all(isinstance(text, str) and text.strip() for text in row)


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is not there: no pictures with captions here") from None
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(document, dict):
        raise ValueError(f"{path}: must hold an object, got {type(document).__name__}")
    return document
