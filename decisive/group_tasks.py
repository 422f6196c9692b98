"""`decisive group-tasks`: which tasks should share a network, by what they do to each other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from decisive import provenance
from decisive.arguments import Flag, OptionalFile, OptionalText, check_writable, parse
from learning.atomic import write_file
from learning.task_affinity_groups import (
    Budget,
    Grouping,
    Solo,
    check_affinity,
    group_scores,
    select_groups,
)

if TYPE_CHECKING:
    from perception.multi_task_training import MultiTaskResult

MATRIX, GROUPS, PICTURE = "affinity.json", "groups.json", "groups.png"
_MOST_BYTES = 2**20


@dataclass(frozen=True)
class Arguments:
    r"""Choose which tasks share a network, from how much a step for one task helps another (TAG).

    MATRIX.json holds {"tasks": [names], "affinity": [[...], ...]}: row i, column j is the affinity
    of task i onto task j, positive where i helps. A plain nested list will do, and so will a
    training of `decisive benchmark task-groups` that measured. Within the budget, a number of
    groups or a cost, that choice is found whose tasks score best on average; the score of a task in
    a group is the mean affinity of the others onto it. Groups may overlap; each task
    is served by one. A task may stand alone, for which it scores 0, the mean of no others
    (--solo zero); its own affinity, which is mostly larger than others' (diagonal); or it may not
    (never); or a number.

    Without a matrix, --data and --held-out name sets of `decisive data render-tasks`: one network
    for all tasks is trained and affinities are measured on the way. --out then gets affinity.json,
    which is a MATRIX.json, groups.json, groups.png and the run, which goes on when it was stopped.

    Examples:
      decisive group-tasks affinity.json --groups 3 --json
      decisive group-tasks affinity.json --cost 20 --network-cost 6 --task-cost 0.5 \
        --picture groups.png
      decisive data render-tasks --out outputs/tasks/train --frames 2000
      decisive data render-tasks --out outputs/tasks/test --split test --frames 500
      decisive group-tasks --data outputs/tasks/train --held-out outputs/tasks/test --groups 2 \
        --cpu-minutes 5 --out outputs/task-groups
    """

    matrix: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="MATRIX.json")] = None
    """Affinities, if they are known."""
    groups: int | None = None
    """Most networks."""
    cost: float | None = None
    """Most that all networks may cost together, such as milliseconds."""
    network_cost: float = 1.0
    """Cost of a network."""
    task_cost: float = 0.0
    """Cost of each task that a network has a head for."""
    solo: str = "zero"
    """Score of a task alone: zero, diagonal, never or a number."""
    picture: OptionalFile = None
    """Draw the matrix with the groups into this PNG."""
    data: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Images to learn from, where there is no matrix."""
    held_out: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Images to be scored by; they choose nothing."""
    out: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of the training and what it gave."""
    backbone: str = "efficientnetv2_b0_quarter"
    """Shared encoder, a network of the catalogue."""
    method: Literal["look-ahead", "first-order"] = "look-ahead"
    """How affinities are measured: as in the paper, or without its forward pass a task."""
    every: int = 10
    """Steps from one measurement to the next."""
    cpu_minutes: Annotated[float | None, tyro.conf.arg(aliases=("--minutes",))] = None
    """Budget of the training in CPU-minutes; 5 if neither this nor --steps is given."""
    steps: int | None = None
    """Budget of the training in steps."""
    seed: int = 0
    """Seed of weights and order."""
    fresh: Flag = False
    """Start the training afresh instead of going on with what is in the folder."""
    json: Flag = False
    """Print one JSON object instead of lines."""

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        training = {"--data": self.data, "--held-out": self.held_out, "--out": self.out}
        if self.matrix is not None and (given := [k for k, v in training.items() if v]):
            raise ValueError(f"give either MATRIX.json or {given[0]}, not both")
        if self.matrix is None and (missing := [k for k, v in training.items() if not v]):
            raise ValueError(f"without MATRIX.json a network is trained; give {', '.join(missing)}")
        if self.every < 1:
            raise ValueError(f"--every must be at least 1, got {self.every}")
        self.budget()
        self.alone()

    def budget(self) -> Budget:
        """What the networks may cost."""
        if self.groups is None and self.cost is None:
            raise ValueError("say how many networks there may be: --groups K, or --cost C")
        return Budget(self.groups, self.cost, self.network_cost, self.task_cost)

    def alone(self) -> Solo:
        """Score of a task alone."""
        words: dict[str, Solo] = {"zero": "zero", "diagonal": "diagonal", "never": "never"}
        if self.solo in words:
            return words[self.solo]
        try:
            return float(self.solo)
        except ValueError:
            raise ValueError(
                f"--solo must be zero, diagonal, never or a number, got {self.solo!r}"
            ) from None


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    arguments = parse(Arguments, argv, "group-tasks")
    picture = _picture_place(arguments)
    trained: dict[str, Any] = {}
    if arguments.matrix is None:
        tasks, matrix, trained = _measure(arguments, argv)
    else:
        tasks, matrix = read_matrix(arguments.matrix)
    chosen = select_groups(group_scores(matrix, arguments.alone()), arguments.budget())
    told = {**describe(tasks, matrix, chosen, arguments), **trained}
    if picture is not None:
        from decisive.group_tasks_picture import draw

        write_file(picture, draw(tasks, matrix, chosen))
        told["picture"] = str(picture)
    if arguments.out is not None:
        text = json.dumps(told, indent=2) + "\n"
        write_file(Path(arguments.out) / GROUPS, text.encode())
    if arguments.json:
        print(json.dumps(told, indent=2))
        return 0
    for group, told_tasks in zip(told["groups"], told["serves"], strict=True):
        rest = [task for task in group if task not in told_tasks]
        beside = f"  (with {', '.join(rest)} to learn beside)" if rest else ""
        print(f"{', '.join(told_tasks)}{beside}")
    print(f"mean score {told['value']:.6g}")
    for place in (arguments.out, told.get("picture")):
        if place is not None:
            print(place)
    return 0


def _picture_place(arguments: Arguments) -> Path | None:
    if arguments.picture is not None:
        if not arguments.picture.endswith(".png"):
            raise ValueError(f"--picture must name a .png, got {arguments.picture!r}")
        return check_writable(arguments.picture)
    return None if arguments.out is None else check_writable(Path(arguments.out) / PICTURE)


def read_matrix(path: str | Path) -> tuple[list[str], list[list[float]]]:
    """Names of tasks and their affinities, checked.

    Raises:
        ValueError: one line, if it is no such file.
        OSError: if it cannot be read.
    """
    place = Path(path)
    if place.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{place}: larger than {_MOST_BYTES} bytes; not a matrix of affinities")
    try:
        document = json.loads(place.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: not JSON ({error})") from None
    try:
        if isinstance(document, Mapping) and "affinities" in document:
            document = _of_study(document)
        rows = document.get("affinity") if isinstance(document, Mapping) else document
        if rows is None:
            raise ValueError('an object must hold "tasks" and "affinity"')
        matrix = check_affinity(rows).tolist()
        names = document.get("tasks") if isinstance(document, Mapping) else None
        return _names(names, len(matrix)), matrix
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def _of_study(document: Mapping[str, Any]) -> dict[str, Any]:
    """Affinities by look-ahead of a training of `decisive benchmark task-groups`."""
    try:
        matrix = document["affinities"]["look-ahead"]["matrix"]
        return {"tasks": document["plan"]["tasks"], "affinity": matrix}
    except (KeyError, TypeError):
        raise ValueError("no look-ahead was measured in this training") from None


def _names(names: object, n: int) -> list[str]:
    if names is None:
        return [f"task {k}" for k in range(n)]
    if not isinstance(names, list) or not all(isinstance(x, str) and x for x in names):
        raise ValueError("tasks must be a list of names")
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"tasks must have different names, {double!r} is there twice")
    if len(names) != n:
        raise ValueError(f"tasks must be {n} names, one for each row, got {len(names)}")
    return names


def describe(
    tasks: Sequence[str], matrix: Sequence[Sequence[float]], chosen: Grouping, arguments: Arguments
) -> dict[str, Any]:
    """A choice of groups as JSON."""
    budget = arguments.budget()
    serves: list[list[str]] = [[] for _ in chosen.groups]
    for task, k in zip(tasks, chosen.serves, strict=True):
        serves[k].append(task)
    return {
        "groups": [[tasks[j] for j in group] for group in chosen.groups],
        "serves": serves,
        "served_by": dict(zip(tasks, chosen.serves, strict=True)),
        "value": chosen.value,
        "cost": sum(map(budget.cost_of, chosen.groups)),
        "budget": {
            "groups": budget.groups,
            "cost": budget.cost,
            "network": budget.network,
            "task": budget.task,
        },
        "solo": arguments.alone(),
        "tasks": list(tasks),
        "affinity": [list(row) for row in matrix],
    }


def _measure(
    arguments: Arguments, argv: Sequence[str]
) -> tuple[list[str], list[list[float]], dict[str, Any]]:
    """Train one network for all tasks; names, affinities, and how it went."""
    import torch

    from perception.multi_task import MultiTaskConfig, MultiTaskNet
    from perception.multi_task_set import open_task_set
    from perception.multi_task_training import MultiTaskTrainConfig, train_tasks

    assert arguments.data
    assert arguments.held_out
    assert arguments.out
    train, held_out = open_task_set(arguments.data), open_task_set(arguments.held_out)
    if len(train.targets) < 2:
        raise ValueError(f"{arguments.data} has one task; grouping needs two or more")
    if arguments.groups is not None and arguments.groups > len(train.targets):
        raise ValueError(
            f"--groups must be at most the number of tasks, {len(train.targets)}, got "
            f"{arguments.groups}"
        )
    minutes = 5.0 if arguments.steps is arguments.cpu_minutes is None else arguments.cpu_minutes
    config = MultiTaskTrainConfig(
        steps=arguments.steps,
        cpu_seconds=None if minutes is None else 60 * minutes,
        seed=arguments.seed,
        affinity_every=arguments.every,
        affinity_methods=(arguments.method,),
    )
    torch.manual_seed(arguments.seed)
    model = MultiTaskNet(MultiTaskConfig(backbone=arguments.backbone), train.targets)
    shown = False if arguments.json else None
    run = Path(arguments.out) / "run"
    result = train_tasks(
        model, train, held_out, config, run, resume=not arguments.fresh, progress=shown
    )
    tasks, matrix = list(train.targets), result.affinities[arguments.method].matrix.tolist()
    told = _training(result, arguments, argv)
    document = {"tasks": tasks, "affinity": matrix, "source": train.source, **told}
    text = json.dumps(document, indent=2) + "\n"
    write_file(Path(arguments.out) / MATRIX, text.encode())
    return tasks, matrix, told


def _training(result: MultiTaskResult, arguments: Arguments, argv: Sequence[str]) -> dict[str, Any]:
    measured = result.affinities[arguments.method]
    return {
        "training": {
            "method": arguments.method,
            "measurements": measured.measurements,
            "measuring_cpu_seconds": measured.cpu_seconds,
            "cpu_seconds": result.cpu_seconds,
            "steps": result.step,
            "held_out_losses": result.losses,
            "held_out_errors": result.errors,
            "command": provenance.command("group-tasks", argv),
            "versions": provenance.versions(),
            "commit": provenance.commit(),
        }
    }
