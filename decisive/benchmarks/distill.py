"""`decisive benchmark distill`: what few points are worth, of demonstrations and of images."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from decisive import tables
from decisive.arguments import Flag, OptionalText, check_writable, parse
from decisive.benchmarks.distill_study import Cell, Sources, core_cells, full_cells, run_cell
from learning.atomic import write_file

DONE, OTHER, NOT_RUN = "done   ", "other  ", "not run"
"""States of a cell; `other`: its file is no result of this plan, and a run replaces it."""


@dataclass(frozen=True)
class Arguments:
    """Keep few points by several methods, and score what is learned from them.

    insertion: 200 demonstrations of the consistent expert, of which 100, 500, 2,000 or all states
    are kept; the policy `kernel` that they make inserts in 100 unseen episodes. mnist and cifar10:
    1 and 10 images of each class (50 with --full), scored by the test images; settings of KIP are
    chosen on 10,000 training images before (cells `try0`, `try1`, ...), never on test images. A
    cell is one JSON file in --out and is not done again. The core form takes about two CPU-hours.

    Examples:
      decisive benchmark distill --list
      decisive benchmark distill --only insertion --seeds 1
      decisive benchmark distill --only mnist --minutes 30
      decisive benchmark distill --table
    """

    full: Flag = False
    """Also 50 images of each class."""
    seeds: int = 3
    """Only the first so many seeds."""
    only: Annotated[OptionalText, tyro.conf.arg(metavar="NAME")] = None
    """Run only cells whose name begins with this, such as insertion--kip or mnist."""
    minutes: float | None = None
    """Begin no cell after so many minutes."""
    list: Flag = False
    """Print the names of the cells, and which are done, not run, or other: their file holds what
    another plan or `decisive distill` wrote, which is not counted, and replaced; run nothing."""
    table: Flag = False
    """Write and print the table of what is there; run nothing."""
    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = "docs/benchmarks/distill"
    """Folder of the cells, the table and the picture."""
    work: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = "outputs/benchmarks/distill"
    """Folder of demonstrations and runs, which can be made again."""
    json: Flag = False
    """Print one JSON object instead of a table."""

    def __post_init__(self) -> None:
        """Refuse what cannot run."""
        if not 1 <= self.seeds <= 3:
            raise ValueError(f"--seeds must be 1 to 3, got {self.seeds}")


def main(argv: Sequence[str]) -> int:
    """Run the benchmark with the words after `distill`."""
    arguments = parse(Arguments, argv, "benchmark distill")
    from decisive.benchmarks import distill_report

    folder = Path(arguments.out)
    cells = [cell for cell in full_cells() if cell.seed < arguments.seeds]
    chosen = [
        cell
        for cell in (cells if arguments.full else core_cells())
        if cell.seed < arguments.seeds and _fits(cell, arguments.only)
    ]
    if not chosen:
        raise ValueError(
            f"no cell begins with {arguments.only!r}; names are like {cells[0].name}, --list shows "
            "all"
        )
    found = {cell: read(cell, folder) for cell in full_cells()}
    if arguments.list:
        for cell in chosen:
            print(f"{_state(cell, found, folder)}  {cell.name}")
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    check_writable(folder / "README.md")
    if not arguments.table:
        _run([cell for cell in chosen if found[cell] is None], found, arguments)
    others = [cell.name for cell in found if _state(cell, found, folder) == OTHER]
    distill_report.write(found, "decisive benchmark distill --full", folder, others)
    told = distill_report.all_tables(found)
    if arguments.json:
        plain = {title: {"header": h, "rows": r} for title, (h, r) in told.items()}
        print(json.dumps({"tables": plain, "folder": str(folder)}, indent=2))
    else:
        for title, (header, rows) in told.items():
            tables.show(tables.plain_table(header, rows, title), distill_report.NOTES[title])
    return 0


def _fits(cell: Cell, name: str | None) -> bool:
    """Whether a cell's name begins with these words; `1` is no beginning of `10`."""
    return name is None or f"{cell.name}--".startswith(f"{name.rstrip('-')}--")


def _state(cell: Cell, found: Mapping[Cell, Any], folder: Path) -> str:
    """Whether a cell is done, or its file holds something else, or there is none."""
    if found[cell] is not None:
        return DONE
    return OTHER if (folder / f"{cell.name}.json").exists() else NOT_RUN


def read(cell: Cell, folder: Path) -> dict[str, Any] | None:
    """The result of a cell; None if there is none, or what is there is not of this plan."""
    try:
        result = json.loads((folder / f"{cell.name}.json").read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{folder / cell.name}.json is not JSON: {error}") from None
    if not isinstance(result, dict) or result.get("plan") != json.loads(json.dumps(cell.plan())):
        return None
    return result


def _run(todo: Sequence[Cell], found: dict[Cell, Any], arguments: Arguments) -> None:
    import torch

    torch.set_num_threads(1)
    deadline = None if arguments.minutes is None else time.monotonic() + 60 * arguments.minutes
    sources = Sources(Path(arguments.work))
    for cell in todo:
        if deadline is not None and time.monotonic() > deadline:
            break
        result = run_cell(cell, sources, found)
        if result is None:
            print(f"{cell.name}: its trials (try0, ...) come first", file=sys.stderr)
            continue
        found[cell] = result
        text = json.dumps(result, indent=2) + "\n"
        write_file(Path(arguments.out) / f"{cell.name}.json", text.encode())
        value: float = result["success_rate" if cell.data == "insertion" else "accuracy"]
        print(
            f"{cell.name}  {100 * value:.1f}%  {result['total_cpu_seconds']:.0f} CPU-seconds",
            file=sys.stderr,
            flush=True,
        )
