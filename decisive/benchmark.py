"""`decisive benchmark`: fill the tables of docs/results.md, one resumable command each."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from decisive import tables
from decisive.arguments import Flag, check_writable, parse
from decisive.benchmarks import report
from decisive.benchmarks.cells import Places, read_result, run_cells
from decisive.benchmarks.tabletop import Cell, core_grid, full_grid
from decisive.progress import progress
from learning.atomic import write_file

TITLE = "Tabletop: explicit and implicit policies"


@dataclass(frozen=True)
class Arguments:
    """Fill a table of results: record, train and evaluate every cell that has no result yet.

    A cell is `task/expert-demos/method/seed`, its result one JSON file in --out. Finished cells are
    skipped, a cell that was stopped goes on where it was, and the table says 'not run' where
    nothing was. Recorded data and trainings are kept in --work.

    Examples:
      decisive benchmark tabletop --list
      decisive benchmark tabletop --only block-sorting-push --workers 2
      decisive benchmark tabletop --only '*/diverse-500/ibc/0' --minutes 30
      decisive benchmark tabletop --full --table
    """

    suite: tyro.conf.Positional[Literal["tabletop"]]
    """Which table."""
    core: Flag = False
    """The core form, about four CPU-hours (this is what runs if nothing is said)."""
    full: Flag = False
    """The core form and everything else."""
    only: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="PATTERN")
    ] = ()
    """Run only cells whose name begins with this (may hold *); give --only once for each."""
    minutes: float | None = None
    """Begin no cell after so many minutes."""
    workers: int = 2
    """Parallel processes of one thread."""
    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = "docs/benchmarks/tabletop"
    """Folder of the results and the table (README.md)."""
    work: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = "outputs/benchmarks/tabletop"
    """Folder of data and trainings, which can be made again."""
    list: Flag = False
    """Print the names of the cells in their order, and which are done; run nothing."""
    table: Flag = False
    """Print the table of what is there; run nothing."""


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    arguments = parse(Arguments, argv, "benchmark")
    if arguments.core and arguments.full:
        raise ValueError("--core is a part of --full: give one of them")
    if arguments.workers < 1:
        raise ValueError(f"workers must be at least 1, got {arguments.workers}")
    places = Places(Path(arguments.out), Path(arguments.work))
    cells = full_grid() if arguments.full else core_grid()
    chosen = choose(cells, arguments.only)
    results = {cell: read_result(cell, places) for cell in cells}
    if arguments.list:
        for cell in chosen:
            print(f"{'not run' if results[cell] is None else 'done   '}  {cell.name}")
        return 0
    errors: list[str] = []
    if not arguments.table:
        check_writable(places.results / "README.md")
        check_writable(places.work / "probe")
        todo = [cell for cell in chosen if results[cell] is None]
        errors = _run(todo, places, arguments)
        results |= {cell: read_result(cell, places) for cell in todo}
        form = " --full" if arguments.full else ""
        command = f"decisive benchmark {arguments.suite}{form}"
        text = report.markdown(results, TITLE, command)
        write_file(places.results / "README.md", text.encode())
    header, rows = report.table(results)
    tables.show(tables.plain_table(header, rows, TITLE), report.NOTES)
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


def _run(cells: list[Cell], places: Places, arguments: Arguments) -> list[str]:
    deadline = None if arguments.minutes is None else time.monotonic() + 60.0 * arguments.minutes
    with progress("cells", len(cells)) as meter:

        def on_done(cell: Cell, result: dict[str, Any] | None, error: str) -> None:
            if result is None:
                line = f"failed  {error}"
            else:
                told = result["results"]
                rate = tables.percent(told["success_rate"], told["success_ci95"])
                line = f"{cell.name}  {rate}  {result['total_cpu_seconds']:.0f} CPU-seconds"
            print(line, file=sys.stderr, flush=True)
            meter.advance(note=cell.name)

        return run_cells(cells, places, arguments.workers, deadline, on_done)
