"""Instructions of procedural houses in every language that is written, kept on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from decisive.progress import progress
from decisive.rendering import set_name
from decisive.workers import process_pool
from envs.indoor.house import generate_house
from envs.indoor.instructions import (
    LANGUAGES,
    Fact,
    content,
    gather_facts,
    r2r_entries,
    word_facts,
)
from envs.indoor.r2r_data import Instruction, read_instructions
from learning.atomic import write_file

Entries = list[dict[str, Any]]

Wordings = list[list[str]]
"""Of each thing said, sentences that say it."""

_LONGEST = 2
"""Facts of a part of an instruction, at most."""
_WORDINGS = 3


def told_houses(
    folder: Path,
    split: str,
    numbers: range,
    predictability: float,
    paths: int,
    workers: int = 1,
) -> Mapping[str, tuple[Instruction, ...]]:
    """Instructions of some houses by language; written if they are not there.

    The same paths, headings and facts in each, three wordings of each path; the English ones are
    those of `HouseSet`.

    Args:
        folder: where they are kept.
        split: of the houses.
        numbers: of the houses.
        predictability: of the houses.
        paths: of each house.
        workers: processes that write.
    """
    name = f"{set_name(split, numbers, predictability)}-{paths}"
    files = {language: folder / f"{name}-{language}.json" for language in LANGUAGES}
    if not all(file.exists() for file in files.values()):
        folder.mkdir(parents=True, exist_ok=True)
        for language, entries in _write(split, numbers, predictability, paths, workers).items():
            write_file(files[language], json.dumps(entries, ensure_ascii=False).encode())
    return {language: read_instructions(file) for language, file in files.items()}


def told_parts(
    folder: Path,
    split: str,
    numbers: range,
    predictability: float,
    paths: int,
    workers: int = 1,
) -> Mapping[str, Wordings]:
    """Parts of the same instructions by language, of one fact or two that follow each other.

    Each content once, in three wordings: next to each other "turn left" and "turn right" show what
    a whole instruction, which differs from others in much besides, hardly tells.

    Args:
        folder: where they are kept.
        split: of the houses.
        numbers: of the houses.
        predictability: of the houses.
        paths: of each house.
        workers: processes that find them.
    """
    file = folder / f"{set_name(split, numbers, predictability)}-{paths}-parts.json"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        parts = _find_parts(split, numbers, predictability, paths, workers)
        told = {language: _word_parts(parts, language) for language in LANGUAGES}
        write_file(file, json.dumps(told, ensure_ascii=False).encode())
    found: Mapping[str, Wordings] = json.loads(file.read_bytes())
    return found


def _find_parts(
    split: str, numbers: range, predictability: float, paths: int, workers: int
) -> list[tuple[Fact, ...]]:
    found: dict[tuple[Any, ...], tuple[Fact, ...]] = {}
    find = partial(_parts, split=split, predictability=predictability, paths=paths)
    with (
        progress(f"parts of instructions in {len(numbers)} houses", len(numbers)) as meter,
        process_pool(workers) as pool,
    ):
        for parts in pool.map(find, numbers):
            for part in parts:
                found.setdefault(tuple(content(fact) for fact in part), part)
            meter.advance()
    return list(found.values())


def _word_parts(parts: Sequence[Sequence[Fact]], language: str) -> Wordings:
    rng = np.random.default_rng(LANGUAGES.index(language))
    return [word_facts(part, rng, _WORDINGS, language) for part in parts]


def _write(
    split: str, numbers: range, predictability: float, paths: int, workers: int
) -> dict[str, Entries]:
    found: dict[str, Entries] = {language: [] for language in LANGUAGES}
    write = partial(_entries, split=split, predictability=predictability, paths=paths)
    with (
        progress(f"instructions in {len(numbers)} houses", len(numbers)) as meter,
        process_pool(workers) as pool,
    ):
        for told in pool.map(write, numbers):
            for language, entries in told.items():
                known = found[language]
                known += [entry | {"path_id": len(known) + k} for k, entry in enumerate(entries)]
            meter.advance()
    return found


def _entries(seed: int, split: str, predictability: float, paths: int) -> dict[str, Entries]:
    house = generate_house(seed, split, predictability)
    return {name: r2r_entries([house], seed, paths, language=name) for name in LANGUAGES}


def _parts(seed: int, split: str, predictability: float, paths: int) -> list[tuple[Fact, ...]]:
    house = generate_house(seed, split, predictability)
    found = []
    for entry in r2r_entries([house], seed, paths):
        facts = gather_facts(house, entry["path"], entry["heading"])
        for size in range(1, _LONGEST + 1):
            found += [tuple(facts[k : k + size]) for k in range(len(facts) + 1 - size)]
    return found
