"""`decisive benchmark`: fill the tables of docs/results.md, one resumable command each."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import tyro

from decisive import tables
from decisive.arguments import Flag, OptionalText, check_writable, parse
from decisive.benchmarks import d4rl, d4rl_report, report, tabletop
from decisive.benchmarks.cells import Cell, Places, read_result, run_cells
from decisive.progress import progress


class Report(Protocol):
    """How a suite shows its results; a module of `decisive.benchmarks`."""

    NOTES: str

    def table(self, results: Any) -> tuple[list[str], list[list[str]]]:
        """Header and rows."""
        ...

    def write(self, results: Any, title: str, command: str, folder: Path) -> None:
        """Write the table, README.md, and what else belongs to it."""
        ...


@dataclass(frozen=True)
class Suite:
    """A table that can be filled."""

    title: str
    core: Callable[[], Sequence[Any]]
    full: Callable[[], Sequence[Any]]
    report: Report


SUITES = {
    "tabletop": Suite(
        "Tabletop: explicit and implicit policies",
        tabletop.core_grid,
        tabletop.full_grid,
        report,
    ),
    "d4rl": Suite("D4RL: offline benchmarks", d4rl.core_grid, d4rl.full_grid, d4rl_report),
}

OF_THEIR_OWN = {
    "r2r": "decisive.benchmarks.r2r",
    "navigation": "decisive.benchmarks.navigation",
    "dreams": "decisive.benchmarks.dreams",
    "architecture": "decisive.benchmarks.architecture",
    "vision": "decisive.benchmarks.vision",
    "masks": "decisive.benchmarks.masks",
    "task-groups": "decisive.benchmarks.task_groups",
    "triage": "decisive.benchmarks.triage",
    "retrieval": "decisive.benchmarks.retrieval",
    "forecast": "decisive.benchmarks.forecast",
    "distill": "decisive.benchmarks.distill",
}
"""Benchmarks that fill no table and have options of their own: modules whose `main(argv)` takes
the words after the name."""


@dataclass(frozen=True)
class Arguments:
    """Fill a table of results: train and evaluate every cell that has no result yet.

    tabletop records demonstrations of our own environments; its cells are named
    `task/expert-demos/method/seed`. d4rl trains on offline data and scores as D4RL does; its cells
    are `task/method/seed`, and a task whose data are not there says 'no data'. The result of a cell
    is one JSON file in --out. Finished cells are skipped, a cell that was stopped goes on where it
    was, and the table says 'not run' where nothing was. Trainings are kept in --work.
    r2r runs one agent on Room-to-Room, navigation trains a navigator and asks what views of
    unvisited places are worth to it, dreams scores a world model, architecture searches for image
    classifiers, vision compares some, masks compares heads of instance masks, task-groups trains
    every group of five tasks, triage asks whether an abnormal score is about the thing, forecast
    scores forecasts of rain and occupancy, retrieval asks whether translations help languages
    without captions, distill what few points are worth; they have options of their own: decisive
    benchmark r2r --help.

    Examples:
      decisive benchmark tabletop --list
      decisive benchmark tabletop --only block-sorting-push --workers 2
      decisive benchmark tabletop --only '*/diverse-500/ibc/0' --minutes 30
      decisive benchmark d4rl --tasks door-human --methods mse,implicit-bc-rnce --seeds 1
      decisive benchmark d4rl --full --table
      decisive benchmark r2r --split val_unseen --agent random --json
      decisive benchmark navigation --world houses --seeds 1
      decisive benchmark dreams --model pathdreamer-houses
      decisive benchmark architecture --cpu-minutes 60
      decisive benchmark vision --table tokens --core
      decisive benchmark masks --seeds 1
      decisive benchmark triage --seeds 1
      decisive benchmark retrieval --seeds 1
      decisive benchmark forecast --model metnet2-rain
      decisive benchmark distill --only insertion --seeds 1
    """

    suite: tyro.conf.Positional[
        Literal[
            "tabletop",
            "d4rl",
            "r2r",
            "navigation",
            "dreams",
            "architecture",
            "vision",
            "masks",
            "task-groups",
            "triage",
            "retrieval",
            "forecast",
            "distill",
        ]
    ]
    """Which table."""
    core: Flag = False
    """The core form, about four CPU-hours (this is what runs if nothing is said)."""
    full: Flag = False
    """The core form and everything else."""
    tasks: Annotated[OptionalText, tyro.conf.arg(metavar="NAME,NAME")] = None
    """Only these tasks, of the full form."""
    methods: Annotated[OptionalText, tyro.conf.arg(metavar="NAME,NAME")] = None
    """Only these methods, of the full form."""
    seeds: int | None = None
    """Only the first so many training seeds."""
    only: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="PATTERN")
    ] = ()
    """Run only cells whose name begins with this (may hold *); give --only once for each."""
    minutes: float | None = None
    """Begin no cell after so many minutes."""
    workers: int = 2
    """Parallel processes of one thread."""
    out: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of the results and the table (README.md); docs/benchmarks/SUITE if not given."""
    work: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of what can be made again; outputs/benchmarks/SUITE if not given."""
    list: Flag = False
    """Print the names of the cells in their order, and which are done; run nothing."""
    table: Flag = False
    """Print the table of what is there; run nothing."""


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    if argv and argv[0] in OF_THEIR_OWN:
        status: int = importlib.import_module(OF_THEIR_OWN[argv[0]]).main(argv[1:])
        return status
    arguments = parse(Arguments, argv, "benchmark")
    if arguments.suite in OF_THEIR_OWN:
        raise ValueError(f"give {arguments.suite} first: decisive benchmark {arguments.suite} ...")
    if arguments.core and arguments.full:
        raise ValueError("--core is a part of --full: give one of them")
    if arguments.workers < 1:
        raise ValueError(f"workers must be at least 1, got {arguments.workers}")
    suite = SUITES[arguments.suite]
    places = Places(
        Path(arguments.out or f"docs/benchmarks/{arguments.suite}"),
        Path(arguments.work or f"outputs/benchmarks/{arguments.suite}"),
    )
    picked = arguments.tasks is not None or arguments.methods is not None
    full = arguments.full or (picked and not arguments.core)
    cells = suite.full() if full else suite.core()
    chosen = choose(cells, arguments.only)
    for name in ("tasks", "methods"):
        chosen = _picked(chosen, name.removesuffix("s"), getattr(arguments, name))
    if arguments.seeds is not None:
        if arguments.seeds < 1:
            raise ValueError(f"seeds must be at least 1, got {arguments.seeds}")
        chosen = [cell for cell in chosen if cell.seed < arguments.seeds]
    if arguments.list:
        for cell in chosen:
            done = read_result(cell, places) is not None
            print(f"{'done   ' if done else 'not run'}  {cell.name}")
        return 0
    errors: list[str] = []
    if not arguments.table:
        check_writable(places.results / "README.md")
        check_writable(places.work / "probe")
        todo = [cell for cell in chosen if read_result(cell, places) is None]
        errors = _run(todo, places, arguments)
        # The screen shows what was asked for, the file all that there is.
        suite.report.write(
            {cell: read_result(cell, places) for cell in suite.full()},
            suite.title,
            f"decisive benchmark {arguments.suite} --full",
            places.results,
        )
    header, rows = suite.report.table({cell: read_result(cell, places) for cell in chosen})
    tables.show(tables.plain_table(header, rows, suite.title), suite.report.NOTES)
    if errors:
        raise ValueError(f"{len(errors)} cells failed; the first: {errors[0]}")
    return 0


def choose(cells: Sequence[Cell], patterns: Sequence[str]) -> list[Cell]:
    """The cells whose names begin with one of the patterns; all if there is none.

    Raises:
        ValueError: for a pattern that fits no cell.
    """
    for pattern in patterns:
        if not any(_fits(cell, pattern) for cell in cells):
            raise ValueError(
                f"no cell is named {pattern!r}; names are like {cells[0].name}, --list shows all "
                "(with --full those of the full form)"
            )
    return [c for c in cells if not patterns or any(_fits(c, pattern) for pattern in patterns)]


def _fits(cell: Cell, pattern: str) -> bool:
    return fnmatchcase(cell.name, pattern) or fnmatchcase(cell.name, f"{pattern.rstrip('/')}/*")


def _picked(cells: Sequence[Cell], attribute: str, words: str | None) -> list[Cell]:
    """The cells whose task or method is among comma-separated names; all if there are none."""
    if words is None:
        return list(cells)
    known = list(dict.fromkeys(getattr(cell, attribute) for cell in cells))
    wanted = [word.strip() for word in words.split(",")]
    for word in wanted:
        if word not in known:
            raise ValueError(f"unknown {attribute} {word!r}; known: {', '.join(known)}")
    return [cell for cell in cells if getattr(cell, attribute) in wanted]


def _run(cells: list[Cell], places: Places, arguments: Arguments) -> list[str]:
    deadline = None if arguments.minutes is None else time.monotonic() + 60.0 * arguments.minutes
    with progress("cells", len(cells)) as meter:

        def on_done(cell: Cell, result: dict[str, Any] | None, error: str) -> None:
            if result is None:
                line = f"not run  {error}"
            else:
                told = result["results"]
                rate = tables.percent(told["success_rate"], told["success_ci95"])
                if told.get("normalized_score") is not None:
                    rate = f"score {told['normalized_score']:.1f}, success {rate}"
                line = f"{cell.name}  {rate}  {result['total_cpu_seconds']:.0f} CPU-seconds"
            print(line, file=sys.stderr, flush=True)
            meter.advance(note=cell.name)

        return run_cells(cells, places, arguments.workers, deadline, on_done)
