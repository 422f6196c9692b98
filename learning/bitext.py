"""Translation pairs: Multi30k's captions in four languages, XL-R2R's instructions in two.

Texts are given as they are in the files; only lines without a letter or digit in either language
are left out (XL-R2R has an instruction "@@"). Cleaning is the tokeniser's business
(`perception.mural.tokenizer`).
"""

import gzip
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learning.image_set import data_folder

MULTI30K_LANGUAGES = ("en", "de", "fr", "cs")
_MULTI30K_FILES = {"train": "train", "validation": "val", "test": "test_2016_flickr"}
XL_R2R_LANGUAGES = ("en", "zh")
XL_R2R_SPLITS = ("train", "val_seen", "val_unseen")
MULTI30K_SOURCE = (
    "Multi30k task 1 (Elliott et al. 2016; multi30k/dataset): real captions of photographs, "
    "translated by people; text only, research use"
)
XL_R2R_SOURCE = (
    "XL-R2R (Yan et al. 2019; zzxslp/XL-VLN): real instructions in English and Chinese for the "
    "same paths, not translations of each other; no licence stated, research use"
)


@dataclass(frozen=True)
class Bitext:
    """Texts in two languages; row i of one says what row i of the other says.

    Attributes:
        languages: of `first` and `second`.
        first: texts.
        second: as many.
        source: one line: what the texts are and their licence.
    """

    languages: tuple[str, str]
    first: tuple[str, ...]
    second: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        """Refuse texts that are not pairs."""
        if len(self.first) != len(self.second) or not self.first:
            raise ValueError(
                f"pairs must be as many texts in both languages, one at least, got "
                f"{len(self.first)} and {len(self.second)}"
            )

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.first)

    @property
    def name(self) -> str:
        """Such as `en-de`."""
        return "-".join(self.languages)


@dataclass(frozen=True)
class PathTexts:
    """A path of XL-R2R and what was said about it.

    Attributes:
        path_id: of the path.
        scan: building.
        texts: instructions by language, one or more in each.
    """

    path_id: str
    scan: str
    texts: dict[str, tuple[str, ...]]


def multi30k(language: str, split: str = "train", folder: str | Path | None = None) -> Bitext:
    """English captions and their translations, split as published.

    Source: Elliott et al. 2016, "Multi30K: Multilingual English-German Image Descriptions", with
    the French and Czech of WMT 2017 and 2018.

    Args:
        language: de, fr or cs.
        split: train (29,000 pairs), validation (1,014) or test (Flickr 2016, 1,000).
        folder: holds the gzip files; None: `multi30k` in `data_folder()`.

    Raises:
        ValueError: for another language or split, a file that is not there or damaged, or files
            with different numbers of lines.
    """
    if language not in MULTI30K_LANGUAGES[1:]:
        raise ValueError(
            f"language must be one of {', '.join(MULTI30K_LANGUAGES[1:])}, got {language!r}"
        )
    lines = multi30k_lines(("en", language), split, folder)
    pairs = [
        (a, b) for a, b in zip(*lines, strict=True) if _says_something(a) and _says_something(b)
    ]
    return Bitext(
        ("en", language), tuple(a for a, _ in pairs), tuple(b for _, b in pairs), MULTI30K_SOURCE
    )


def multi30k_lines(
    languages: Sequence[str], split: str, folder: str | Path | None = None
) -> list[list[str]]:
    """Aligned lines: line i of each language is one sentence.

    Raises:
        ValueError: as of `multi30k`.
    """
    if split not in _MULTI30K_FILES:
        raise ValueError(f"split must be one of {', '.join(_MULTI30K_FILES)}, got {split!r}")
    root = data_folder() / "multi30k" if folder is None else Path(folder)
    found = [_lines(root / f"{_MULTI30K_FILES[split]}.{name}.gz") for name in languages]
    counts = {name: len(lines) for name, lines in zip(languages, found, strict=True)}
    if len(set(counts.values())) > 1:
        raise ValueError(f"{root}: files of {split} must have as many lines each, got {counts}")
    return found


def xl_r2r_paths(split: str = "train", folder: str | Path | None = None) -> tuple[PathTexts, ...]:
    """Paths with instructions in both languages, in the order of the English file.

    Source: Yan et al. 2019, "Cross-Lingual Vision-Language Navigation".

    Args:
        split: train (4,675 paths), val_seen (340) or val_unseen (783).
        folder: holds the gzip files; None: `xl_r2r` in `data_folder()`.

    Raises:
        ValueError: for another split, or files that are not there or malformed.
    """
    if split not in XL_R2R_SPLITS:
        raise ValueError(f"split must be one of {', '.join(XL_R2R_SPLITS)}, got {split!r}")
    root = data_folder() / "xl_r2r" if folder is None else Path(folder)
    every = {
        language: _instructions(root / f"R2R_{split}_{language}.json.gz")
        for language in XL_R2R_LANGUAGES
    }
    english, chinese = every["en"], every["zh"]
    found = [
        PathTexts(path_id, scan, {"en": texts, "zh": chinese[path_id][1]})
        for path_id, (scan, texts) in english.items()
        if path_id in chinese and texts and chinese[path_id][1]
    ]
    if not found:
        raise ValueError(f"{root}: no path of {split} has instructions in both languages")
    return tuple(found)


def xl_r2r(
    split: str = "train", folder: str | Path | None = None, paths: Sequence[PathTexts] | None = None
) -> Bitext:
    """English and Chinese instructions of one path as pairs: the k-th with the k-th.

    Where a path has more in one language, the others begin again from the first.

    Args:
        split: as of `xl_r2r_paths`.
        folder: as of `xl_r2r_paths`.
        paths: only these; all if None.
    """
    first: list[str] = []
    second: list[str] = []
    for path in xl_r2r_paths(split, folder) if paths is None else paths:
        en, zh = path.texts["en"], path.texts["zh"]
        for k in range(max(len(en), len(zh))):
            first.append(en[k % len(en)])
            second.append(zh[k % len(zh)])
    return Bitext(XL_R2R_LANGUAGES, tuple(first), tuple(second), XL_R2R_SOURCE)


def _instructions(path: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Scan and instructions of each path; those that say nothing are left out."""
    try:
        entries = json.loads(_text(path))
        return {
            str(entry["path_id"]): (
                str(entry["scan"]),
                tuple(
                    text for text in map(_string, entry["instructions"]) if _says_something(text)
                ),
            )
            for entry in entries
        }
    except (KeyError, TypeError, RecursionError, json.JSONDecodeError) as error:
        detail = " ".join(str(error).split())[:120]
        raise ValueError(f"{path}: not a file of XL-R2R ({detail})") from None


def _says_something(text: str) -> bool:
    return any(map(str.isalnum, text))


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"instructions must be texts, got {type(value).__name__}")
    return value


def _lines(path: Path) -> list[str]:
    # Only line feeds end a line: other separators of Unicode may stand within one.
    lines = _text(path).split("\n")
    return [line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]


def _text(path: Path) -> str:
    """Content of a gzip file as UTF-8; what is none becomes U+FFFD."""
    try:
        with gzip.open(path, "rb") as file:
            return file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        raise ValueError(
            f"no data: {path} is not there; set DECISIVE_DATA to the folder of data"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: damaged gzip file ({error})") from None
