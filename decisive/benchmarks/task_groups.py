"""`decisive benchmark task-groups`: do affinities of one training tell which tasks help each other?

Every group of tasks is trained: that is the truth. Affinities come from the training of all tasks
together, which is one of them.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from decisive import provenance, tables
from decisive.arguments import Flag, check_writable, parse
from decisive.benchmarks.cells import read_cell
from learning.atomic import write_file

if TYPE_CHECKING:
    from perception.multi_task_set import TaskSet
    from perception.multi_task_training import MultiTaskTrainConfig

_MOST_TASKS = 8


@dataclass(frozen=True)
class Arguments:
    r"""Train every group of tasks, and compare what they gained with what affinities foretold.

    A cell is a group and a seed: one JSON file in --out, named TASK+TASK-SEED. What is there is not
    done again, a cell of other settings is refused, and a training that was stopped goes on from
    its last saved state in --work. The training of all tasks together also measures affinities, by
    look-ahead and by their first-order form, and times them apart. README.md in --out tells: the
    rank correlation of foretold and true gains, what the chosen groups gain against the best ones,
    and what each way of choosing costs. Sets are made by `decisive data render-tasks` (synthetic).

    Examples:
      decisive data render-tasks --out outputs/tasks/train --frames 2000
      decisive data render-tasks --out outputs/tasks/test --split test --frames 500
      decisive benchmark task-groups --data outputs/tasks/train --held-out outputs/tasks/test
      decisive benchmark task-groups --data outputs/tasks/train --held-out outputs/tasks/test \
        --seeds 3 --minutes 60
    """

    data: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Images to learn from."""
    held_out: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Images to be scored by."""
    seeds: int = 1
    """Trainings of each group."""
    steps: int = 500
    """Of each training, 32 images a step."""
    every: int = 10
    """Steps from one measurement of affinities to the next."""
    backbone: str = "efficientnetv2_b0_quarter"
    """Shared encoder, a network of the catalogue."""
    only: str = "*"
    """Run only cells whose names fit this pattern."""
    minutes: float | None = None
    """Begin no cell after so many minutes."""
    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = "docs/benchmarks/task-groups"
    """Folder of the cells and the tables."""
    work: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = "outputs/benchmarks/task-groups"
    """Folder of the trainings, which can be made again."""
    table: Flag = False
    """Print the tables of what is there; train nothing."""
    json: Flag = False
    """Print one JSON object instead of tables."""

    def __post_init__(self) -> None:
        """Refuse what cannot run."""
        if not 1 <= self.seeds <= 10:
            raise ValueError(f"--seeds must be 1 to 10, got {self.seeds}")
        for name in ("steps", "every"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Cell:
    """A group of tasks and a seed."""

    tasks: tuple[str, ...]
    seed: int

    @property
    def name(self) -> str:
        """Of the cell."""
        return f"{'+'.join(self.tasks)}-{self.seed}"


def main(argv: Sequence[str]) -> int:
    """Run the benchmark with the words after `task-groups`."""
    arguments = parse(Arguments, argv, "benchmark task-groups")
    from decisive.benchmarks import task_groups_report
    from perception.multi_task_set import open_task_set

    train, held_out = open_task_set(arguments.data), open_task_set(arguments.held_out)
    cells = all_cells(tuple(train.targets), arguments.seeds)
    if not any(fnmatchcase(cell.name, arguments.only) for cell in cells):
        raise ValueError(f"no cell fits {arguments.only!r}; names are like {cells[0].name}")
    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    check_writable(folder / "README.md")
    plans = {cell: plan(cell, arguments, train, held_out) for cell in cells}
    found = {cell: read_cell(folder / f"{cell.name}.json", plans[cell]) for cell in cells}
    deadline = None if arguments.minutes is None else time.monotonic() + 60 * arguments.minutes
    for cell in [] if arguments.table else cells:
        if found[cell] is not None or not fnmatchcase(cell.name, arguments.only):
            continue
        if deadline is not None and time.monotonic() > deadline:
            break
        result = run_cell(cell, arguments, plans[cell], train, held_out)
        write_file(folder / f"{cell.name}.json", (json.dumps(result, indent=2) + "\n").encode())
        found[cell] = result
        print(f"{cell.name}  {result['cpu_seconds']:.0f} CPU-seconds", file=sys.stderr, flush=True)
    results = {(cell.tasks, cell.seed): result for cell, result in found.items()}
    told = task_groups_report.evidence(tuple(train.targets), arguments.seeds, results)
    words = [word for word in argv if word not in ("--table", "--json")]  # they decide nothing
    command = provenance.command("benchmark", ["task-groups", *words])
    task_groups_report.write(told, results, command, train.source, folder)
    if arguments.json:
        print(json.dumps(told, indent=2))
        return 0
    for title, header, rows in task_groups_report.tables_of(told):
        tables.show(tables.plain_table(header, rows, title))
    return 0


def all_cells(tasks: tuple[str, ...], seeds: int) -> list[Cell]:
    """Cells in their order: of each seed all tasks together first, then small groups before large.

    Raises:
        ValueError: unless there are 2 to 8 tasks.
    """
    if not 2 <= len(tasks) <= _MOST_TASKS:
        raise ValueError(f"2 to {_MOST_TASKS} tasks are needed, got {len(tasks)}")
    groups = [g for n in range(1, len(tasks)) for g in itertools.combinations(tasks, n)]
    return [Cell(group, seed) for seed in range(seeds) for group in (tasks, *groups)]


def train_config(cell: Cell, arguments: Arguments, measuring: bool) -> MultiTaskTrainConfig:
    """How a cell is trained; only the training of all tasks measures."""
    from perception.multi_task_training import MultiTaskTrainConfig

    return MultiTaskTrainConfig(
        steps=arguments.steps,
        seed=cell.seed,
        device="cpu",
        tensorboard=False,
        validate_every=arguments.steps,
        save_every=max(1, arguments.steps // 4),
        affinity_every=arguments.every if measuring else 0,
        affinity_methods=("look-ahead", "first-order"),
    )


def plan(cell: Cell, arguments: Arguments, train: TaskSet, held_out: TaskSet) -> dict[str, Any]:
    """Everything that decides a result, as JSON gives it back."""
    measuring = len(cell.tasks) == len(train.targets)
    settings = asdict(train_config(cell, arguments, measuring))
    for name in ("threads", "device", "tensorboard", "log_every", "validate_every", "save_every"):
        del settings[name]
    told = {
        "tasks": cell.tasks,
        "seed": cell.seed,
        "backbone": arguments.backbone,
        "train": settings,
        "data": [train.source, train.images.shape, _what(train.facts)],
        "held_out": [held_out.source, held_out.images.shape, _what(held_out.facts)],
    }
    plain: dict[str, Any] = json.loads(json.dumps(told))
    return plain


def _what(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts without those of the machine that rendered."""
    return {key: value for key, value in facts.items() if key not in ("versions", "commit")}


def run_cell(
    cell: Cell, arguments: Arguments, told: Mapping[str, Any], train: TaskSet, held_out: TaskSet
) -> dict[str, Any]:
    """Train a group."""
    import torch

    from perception.multi_task import MultiTaskConfig, MultiTaskNet, subset
    from perception.multi_task_training import train_tasks

    torch.manual_seed(cell.seed)
    network = MultiTaskConfig(backbone=arguments.backbone)
    model = MultiTaskNet(network, subset(train.targets, cell.tasks))
    config = train_config(cell, arguments, len(cell.tasks) == len(train.targets))
    folder = Path(arguments.work) / cell.name
    result = train_tasks(model, train, held_out, config, folder, progress=False)
    return {
        "plan": told,
        "losses": result.losses,
        "errors": result.errors,
        "affinities": {
            method: {
                "matrix": measured.matrix.tolist(),
                "measurements": measured.measurements,
                "cpu_seconds": measured.cpu_seconds,
            }
            for method, measured in result.affinities.items()
        },
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "cpu_seconds": result.cpu_seconds,
        "steps": result.step,
        "machine": provenance.machine(),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }
