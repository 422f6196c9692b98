"""`decisive benchmark retrieval`: do translations help languages that never had captions?"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from decisive import provenance, tables
from decisive.arguments import Flag, OptionalText, check_writable, parse
from decisive.benchmarks.cells import read_cell
from learning.atomic import write_file

if TYPE_CHECKING:
    from decisive.benchmarks.retrieval_study import Pictures, Study


@dataclass(frozen=True)
class Arguments:
    """Train with and without translations, and find pictures, translations and paths.

    Both arms learn the same rendered pictures with English captions (synthetic); one also learns
    real translations of Multi30k (German, French, Czech) and instructions of XL-R2R (Chinese).
    Asked are pictures by captions in five languages, translations of Multi30k's test of 2016, and
    instructions of the same path of XL-R2R's val_unseen, in both directions. TF-IDF of character
    n-grams and chance stand beside it. A cell, an arm and a seed, is one JSON file in --out and is
    not done again; a training that was stopped goes on where it was. The core form is 3 seeds.

    Examples:
      decisive benchmark retrieval --seeds 1
      decisive benchmark retrieval --only mural-1 --minutes 60
      decisive benchmark retrieval --table
    """

    seeds: int = 3
    """Trainings of each arm."""
    only: Annotated[OptionalText, tyro.conf.arg(metavar="ARM-SEED")] = None
    """Run only this cell: baseline-0, mural-0, images-only-0, ..."""
    steps: int | None = None
    """Steps of each training; the study's if not given."""
    minutes: float | None = None
    """Begin no cell after so many minutes."""
    table: Flag = False
    """Write and print the table of what is there; run nothing."""
    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = "docs/benchmarks/retrieval"
    """Folder of the cells and the table."""
    work: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = "outputs/benchmarks/retrieval"
    """Folder of pictures and trainings; ARM-SEED/last is a model."""
    json: Flag = False
    """Print one JSON object instead of a table."""

    def __post_init__(self) -> None:
        """Refuse what cannot run."""
        if not 1 <= self.seeds <= 10:
            raise ValueError(f"--seeds must be 1 to 10, got {self.seeds}")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"--steps must be at least 1, got {self.steps}")


def main(argv: Sequence[str]) -> int:
    """Run the benchmark with the words after `retrieval`."""
    arguments = parse(Arguments, argv, "benchmark retrieval")
    from decisive.benchmarks import retrieval_report
    from decisive.benchmarks.retrieval_study import Study, all_cells, open_pictures, plan

    study = Study() if arguments.steps is None else Study(steps=arguments.steps)
    folder, work = Path(arguments.out), Path(arguments.work)
    folder.mkdir(parents=True, exist_ok=True)
    check_writable(folder / "README.md")
    cells = all_cells(arguments.seeds)
    names = [f"{arm}-{seed}" for arm, seed in cells]
    if arguments.only is not None and arguments.only not in names:
        raise ValueError(f"no cell {arguments.only!r}; the cells are {', '.join(names)}")
    found = {
        (arm, seed): read_cell(folder / f"{arm}-{seed}.json", plan(study, arm, seed))
        for arm, seed in cells
    }
    wanted = [
        cell
        for cell, name in zip(cells, names, strict=True)
        if found[cell] is None and not arguments.table and arguments.only in (None, name)
    ]
    deadline = None if arguments.minutes is None else time.monotonic() + 60 * arguments.minutes
    pictures = open_pictures(study, work) if wanted else None
    for arm, seed in wanted:
        if pictures is None or (deadline is not None and time.monotonic() > deadline):
            break
        result = _run(study, arm, seed, pictures, work)
        found[arm, seed] = result
        text = json.dumps(result, indent=2) + "\n"
        write_file(folder / f"{arm}-{seed}.json", text.encode())
        print(f"{arm}-{seed}  {result['cpu_seconds']:.0f} CPU-seconds", file=sys.stderr)
    command = provenance.command("benchmark", ["retrieval", *argv])
    tables_found = retrieval_report.all_tables(found)
    retrieval_report.write(found, study, command, folder, work)
    if arguments.json:
        told = {title: {"header": h, "rows": r} for title, (h, r) in tables_found.items()}
        print(json.dumps({"tables": told, "folder": str(folder)}, indent=2))
    else:
        for title, (header, rows) in tables_found.items():
            tables.show(tables.plain_table(header, rows, title), retrieval_report.NOTES)
    return 0


def _run(study: Study, arm: str, seed: int, pictures: Pictures, work: Path) -> dict[str, Any]:
    from decisive.benchmarks.retrieval_study import baseline, plan, run_arm

    told = {"plan": plan(study, arm, seed)}
    if arm == "baseline":
        return told | baseline(study, pictures.test)
    return told | run_arm(study, arm, seed, pictures, work / f"{arm}-{seed}")
