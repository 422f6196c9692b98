"""`decisive benchmark masks`: what deep mask heads and exact boxes are worth to unseen classes."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from decisive import provenance, tables
from decisive.arguments import Flag, OptionalText, check_writable, parse
from decisive.benchmarks.cells import TRAINING_SEEDS
from decisive.progress import progress

if TYPE_CHECKING:
    from decisive.benchmarks.masks_arms import Cell, Recipe
    from decisive.benchmarks.masks_cells import Bench

RESULTS = "docs/benchmarks/masks"
MAX_SEEDS = 10
TRIALS = ("steps", "scenes", "test_scenes")
"""Options that make another benchmark of it."""


@dataclass(frozen=True)
class Arguments:
    """Train mask heads on half of the classes and score them on both halves.

    Heads (shallow, shallow with the multiply-adds of a deep one, hourglass-20 and -52) learn masks
    in the boxes of the labels or of the detector, for every second class of synthetic scenes that
    are rendered here first, on Deep-MAC (CenterNet) and Deep-MARC (two stages); controls learn from
    all classes. Scored are masks in true boxes, in boxes of falling quality with and without
    tight-box refinement, and what the network finds by itself, classes with and without masks in
    training apart. Cells coco/... put it to real photographs (coco128 in the folder that
    DECISIVE_DATA names).

    A cell, an arm and a seed, is one JSON file in --out: what is there is not done again, a cell of
    other settings is refused, and the tables say 'not run' for the rest. Scenes and trainings are
    kept in --work and go on after a kill.

    Examples:
      decisive benchmark masks --list
      decisive benchmark masks --seeds 1 --minutes 30
      decisive benchmark masks --only 'deep-mac/half/*/hourglass-52/*'
      decisive benchmark masks --only coco --seeds 1
      decisive benchmark masks --table
    """

    core: Flag = False
    """The core form, about four CPU-hours (this is what runs if nothing is said)."""
    full: Flag = False
    """More heads, the other half of the classes, longer trainings on more scenes."""
    seeds: int = 3
    """Trainings of each arm."""
    seed: int = 0
    """The first of their seeds."""
    only: str = "*"
    """Cells whose names fit this pattern, or begin with it."""
    minutes: float | None = None
    """Begin no cell after so many minutes."""
    workers: int = 1
    """Processes that render scenes."""
    steps: int | None = None
    """Try the arms for so many steps."""
    scenes: int | None = None
    """Try them on so many scenes."""
    test_scenes: int | None = None
    """Score them by so many."""
    out: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of the cells and README.md; docs/benchmarks/masks (with --full its folder full)."""
    work: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = "outputs/benchmarks/masks"
    """Folder of what can be made again."""
    list: Flag = False
    """Print the names of the cells in their order, and which are done; run nothing."""
    table: Flag = False
    """Write and print the tables of what is there; run nothing."""
    json: Flag = False
    """Print one JSON object instead of tables."""

    def __post_init__(self) -> None:
        """Refuse what cannot run."""
        if self.core and self.full:
            raise ValueError("--core and --full are two forms: give one of them")
        if not 1 <= self.seeds <= MAX_SEEDS:
            raise ValueError(f"seeds must be 1 to {MAX_SEEDS}, got {self.seeds}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        for name in ("workers", *TRIALS):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.out is None and any(getattr(self, name) is not None for name in TRIALS):
            raise ValueError("a trial with other steps or scenes needs an --out of its own")

    def command(self) -> str:
        """What fills the whole table."""
        words = ["masks", *(["--full"] if self.full else [])]
        for name in TRIALS:
            if getattr(self, name) is not None:
                words += [f"--{name.replace('_', '-')}", str(getattr(self, name))]
        return provenance.command("benchmark", words)

    def recipe(self) -> Recipe:
        """How much is rendered and trained."""
        from decisive.benchmarks.masks_arms import CORE, FULL

        changes = {name: getattr(self, name) for name in TRIALS}
        given: dict[str, Any] = {n: value for n, value in changes.items() if value is not None}
        if self.steps is not None:
            given["coco_steps"] = self.steps
        return replace(FULL if self.full else CORE, **given)


def main(argv: Sequence[str]) -> int:
    """Run the benchmark with the words after `masks`."""
    arguments = parse(Arguments, argv, "benchmark masks")
    from decisive.benchmarks.masks_arms import Cell, arms
    from decisive.benchmarks.masks_cells import Bench

    seeds = range(arguments.seed, arguments.seed + arguments.seeds)
    cells = [Cell(arm, seed) for seed in seeds for arm in arms(arguments.full)]
    chosen = [cell for cell in cells if fits(cell.name, arguments.only)]
    if not chosen:
        raise ValueError(f"no cell fits {arguments.only!r}; names are like {cells[0].name}")
    folder = Path(arguments.out or (f"{RESULTS}/full" if arguments.full else RESULTS))
    bench = Bench(arguments.recipe(), folder, Path(arguments.work), arguments.workers)
    if arguments.list:
        return _list(chosen, bench, arguments.json)
    check_writable(folder / "README.md")
    if not arguments.table:
        check_writable(bench.work / "probe")
        _run(chosen, bench, arguments.minutes)
    told = max(seeds.stop, len(TRAINING_SEEDS))
    _report([Cell(arm, k) for k in range(told) for arm in arms(arguments.full)], bench, arguments)
    return 0


def fits(name: str, pattern: str) -> bool:
    """Whether a cell's name fits a pattern or begins with it."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern.rstrip('/')}/*")


def _list(cells: Sequence[Cell], bench: Bench, as_json: bool) -> int:
    told = [{"cell": cell.name, "done": bench.result(cell) is not None} for cell in cells]
    if as_json:
        print(json.dumps({"cells": told}, indent=2))
        return 0
    for one in told:
        print(f"{'done   ' if one['done'] else 'not run'}  {one['cell']}")
    return 0


def _run(cells: Sequence[Cell], bench: Bench, minutes: float | None) -> None:
    """Run the cells that have no result, in their order."""
    todo = [cell for cell in cells if bench.result(cell) is None]
    if todo and importlib.util.find_spec("pycocotools") is None:
        raise ValueError("average precision needs pycocotools: pip install 'decisive[masks]'")
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    with progress("cells", len(todo)) as meter:
        for cell in todo:
            if deadline is not None and time.monotonic() > deadline:
                break
            if bench.result(cell) is None:  # another one may have needed it
                bench.complete(cell)
            result = bench.result(cell)
            assert result is not None
            spent = result["total_cpu_seconds"]
            print(f"{cell.name}  {spent:.0f} CPU-seconds", file=sys.stderr, flush=True)
            meter.advance(note=cell.name)


def _report(cells: Sequence[Cell], bench: Bench, arguments: Arguments) -> None:
    from decisive.benchmarks import masks_report

    results = {cell: bench.result(cell) for cell in cells}
    masks_report.write(results, bench.recipe, arguments.command(), bench.results)
    told = masks_report.tables(results)
    if arguments.json:
        done = sum(result is not None for result in results.values())
        summary = {"done": done, "cells": len(cells), "recipe": asdict(bench.recipe)}
        summary |= {"tables": [asdict(table) for table in told], "folder": str(bench.results)}
        print(json.dumps(summary, indent=2))
        return
    for table in told:
        tables.show(tables.plain_table(table.header, table.rows, table.title), table.notes)
