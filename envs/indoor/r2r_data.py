"""Room-to-Room's files: instructions with their paths, and submissions.

Nothing here needs Matterport3D's images. The form is that of Anderson et al. 2018,
"Vision-and-language navigation": https://bringmeaspoon.org
"""

import json
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from envs.indoor.graph import NavigationGraph, read_json

SPLITS = ("train", "val_seen", "val_unseen", "test")

MAX_WORDS = 1000
"""Longest instruction; Room-to-Room's longest has 175 words."""
MAX_CHARACTERS = 10_000

# Of living languages, as the first word of a character's Unicode name.
_SCRIPTS = frozenset(
    (
        "LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "HEBREW", "ARABIC", "SYRIAC", "THAANA",
        "DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL", "TELUGU", "KANNADA",
        "MALAYALAM", "SINHALA", "THAI", "LAO", "TIBETAN", "MYANMAR", "GEORGIAN", "HANGUL",
        "ETHIOPIC", "CHEROKEE", "KHMER", "MONGOLIAN", "TIFINAGH", "CANADIAN", "HIRAGANA",
        "KATAKANA", "BOPOMOFO", "CJK", "IDEOGRAPHIC", "YI", "NKO", "JAVANESE", "BALINESE",
        "SUNDANESE", "FULLWIDTH", "HALFWIDTH", "FEMININE", "MASCULINE", "MICRO", "MODIFIER",
        "COMBINING",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Instruction:
    """One instruction and the path it describes.

    Attributes:
        instr_id: unique, `PATHID_K` with K the number among those of the same path; in REVERIE
            `PATHID_OBJECT_K`.
        path_id: of the path.
        scan: building.
        path: viewpoints; only the start where the goal is kept secret (split `test`).
        heading: at the start, radians clockwise from +y.
        text: the instruction.
        has_goal: whether the last of `path` is the goal.
    """

    instr_id: str
    path_id: str
    scan: str
    path: tuple[str, ...]
    heading: float
    text: str
    has_goal: bool = True


def read_instructions(path: Path) -> tuple[Instruction, ...]:
    """Instructions of a Room-to-Room file, plain or gzipped; blank ones are left out.

    Raises:
        ValueError: for what is not such a file; the message names the entry.
        FileNotFoundError: where it is not.
    """
    try:
        content = read_json(path)
    except RecursionError:
        raise ValueError(f"{path} is not JSON of Room-to-Room: nested too deeply") from None
    if not isinstance(content, list) or not content:
        raise ValueError(
            f"{path} must hold a list of paths with instructions, got "
            f"{'none' if content == [] else type(content).__name__}"
        )
    found: dict[str, Instruction] = {}
    for number, entry in enumerate(content):
        try:
            instructions = _read_entry(entry)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{path}, entry {number}: {what}") from None
        for instruction in instructions:
            if instruction.instr_id in found:
                name = instruction.instr_id.rpartition("_")[0]
                raise ValueError(f"{path}, entry {number}: path_id {name} comes twice")
            found[instruction.instr_id] = instruction
    if not found:
        raise ValueError(f"{path}: all instructions are blank")
    return tuple(found.values())


def _read_entry(entry: Any) -> list[Instruction]:
    if not isinstance(entry, Mapping):
        raise TypeError(f"must be an object, got {type(entry).__name__}")
    name = entry.get("id")  # REVERIE's, where a path leads to several objects
    path_id = entry["path_id"] if name is None else entry.get("path_id", name)
    scan, path, texts = (entry[k] for k in ("scan", "path", "instructions"))
    name = path_id if name is None else name
    names = (path_id, name)
    if not isinstance(scan, str) or any(
        isinstance(one, bool) or not isinstance(one, int | str) for one in names
    ):
        raise TypeError(
            f"scan, path_id and id must be names, got {scan!r:.40}, {path_id!r:.40}, {name!r:.40}"
        )
    for key, value in (("path", path), ("instructions", texts)):
        if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
            raise TypeError(f"{key} must be a list of texts, got {value!r:.60}")
    heading = entry["heading"]
    if isinstance(heading, bool) or not isinstance(heading, int | float):
        raise TypeError(f"heading must be a number, got {heading!r:.40}")
    if not math.isfinite(float(heading)):
        raise ValueError(f"heading must be finite, got {heading}")
    known = "distance" in entry or len(path) > 1
    return [
        Instruction(
            f"{name}_{k}", str(path_id), scan, tuple(path), float(heading), check_text(t), known
        )
        for k, t in enumerate(texts)
        if t.strip()  # translations leave a few blank
    ]


def check_text(text: str) -> str:
    """The text of an instruction, if anyone could follow it.

    Raises:
        ValueError: for one without a letter, of more than 1,000 words or 10,000 characters, or
            with letters that belong to no script of a living language.
    """
    words = len(text.split())
    if words > MAX_WORDS or len(text) > MAX_CHARACTERS:
        raise ValueError(
            f"an instruction has at most {MAX_WORDS} words and {MAX_CHARACTERS} characters, "
            f"got {words} and {len(text)}: {text[:40]!r}"
        )
    characters = set(text)
    strange = sorted(c for c in characters if not _known(c))
    if strange:
        name = unicodedata.name(strange[0], "no character of Unicode")
        raise ValueError(
            f"unknown script in the instruction {text[:40]!a}: U+{ord(strange[0]):04X} ({name})"
        )
    if not any(c.isalpha() for c in characters):
        raise ValueError(f"an instruction needs words, got {text[:40]!r}")
    return text


@cache
def _known(character: str) -> bool:
    """Whether a character is of a living script, or of none: a digit, a mark, a space."""
    category = unicodedata.category(character)
    if category[0] in "LM":
        return unicodedata.name(character, "?").split()[0].split("-")[0] in _SCRIPTS
    return category not in ("Co", "Cs", "Cn") and (category != "Cc" or character.isspace())


def check_path(graph: NavigationGraph, instruction: Instruction) -> None:
    """Whether the path of an instruction can be walked.

    Raises:
        ValueError: for an unknown viewpoint, or two that no edge joins.
    """
    try:
        graph.length(instruction.path)
        graph.index(instruction.path[0])
    except ValueError as error:
        raise ValueError(f"instruction {instruction.instr_id}: {error}") from None


Trajectory = Sequence[tuple[str, float, float]]
"""Viewpoint, heading and elevation (radians) after every action, the start first."""


def submission(trajectories: Mapping[str, Trajectory]) -> list[dict[str, Any]]:
    """What Room-to-Room's test server takes: `[{"instr_id": .., "trajectory": [[v, h, e], ..]}]`.

    Args:
        trajectories: by `instr_id`.
    """
    return [
        {"instr_id": name, "trajectory": [list(pose) for pose in trajectory]}
        for name, trajectory in trajectories.items()
    ]


def read_submission(path: Path, instructions: Iterable[Instruction]) -> dict[str, list[str]]:
    """Viewpoints of a submission by `instr_id`.

    Args:
        path: JSON file, see `submission`.
        instructions: all that it must hold; others in it are left aside.

    Raises:
        ValueError: for another form, or where an instruction is missing or starts elsewhere.
        FileNotFoundError: where it is not.
    """
    content = read_json(path)
    walks: dict[str, list[str]] = {}
    try:
        for item in content:
            poses = [pose if isinstance(pose, str) else pose[0] for pose in item["trajectory"]]
            if not poses or not all(isinstance(name, str) for name in poses):
                raise TypeError(f"{item['instr_id']} has no trajectory of viewpoints")
            walks[str(item["instr_id"])] = poses
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f'{path} must hold [{{"instr_id": "4332_0", "trajectory": [[viewpoint, heading, '
            f"elevation], ...]}}, ...]: {error!r}"
        ) from None
    wanted = {instruction.instr_id: instruction for instruction in instructions}
    missing = wanted.keys() - walks.keys()
    if missing:
        raise ValueError(
            f"{path} lacks {len(missing)} of {len(wanted)} instructions, such as {min(missing)}"
        )
    for name, instruction in wanted.items():
        if walks[name][0] != instruction.path[0]:
            raise ValueError(
                f"{path}: the trajectory of {name} must begin at the start of its path"
            )
    return {name: walks[name] for name in wanted}


def dump_submission(trajectories: Mapping[str, Trajectory]) -> bytes:
    """A submission as the bytes of its file."""
    return f"{json.dumps(submission(trajectories))}\n".encode()
