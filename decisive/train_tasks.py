"""`decisive train tasks`: the networks of a choice of task groups, as one checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from decisive import provenance
from decisive.arguments import Flag, OptionalText, check_writable, parse
from decisive.model_card import command_lines
from decisive.options import constructor_parameters, merged, nested_options, typed_options
from decisive.task_groups import TaskGroups, groups_of_affinity, read_groups
from learning.checkpoint import CARD_FILE

if TYPE_CHECKING:
    from perception.multi_task import MultiTaskConfig
    from perception.multi_task_set import Target, TaskSet
    from perception.multi_task_training import MultiTaskResult, MultiTaskTrainConfig

DEFAULT_STEPS = 5000
Setting = Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=VALUE")]


@dataclass(frozen=True)
class Arguments:
    r"""Train one network for each group of perception tasks, and put them into one checkpoint.

    --groups names them: tasks joined by +, groups by commas. A task in several groups is served by
    the first that names it; the others only learn beside it. What `decisive group-tasks --json`
    prints may be given as a file. Or --affinity and --networks choose the groups here, as
    group-tasks does. Tasks in no group are not learned.

    Networks are trained one after the other in FOLDER/networks; a run that was stopped goes on when
    the same command is given again. FOLDER/last is the checkpoint, with a model card. The node
    `perception` runs it on a robot.

    Examples:
      decisive data render-tasks --out outputs/tasks/train --frames 2000
      decisive data render-tasks --out outputs/tasks/test --split test --frames 500
      decisive train tasks --data outputs/tasks/train --held-out outputs/tasks/test \
        --groups segmentation+edges,depth+normals,count --cpu-minutes 15 --out outputs/seer
      decisive group-tasks affinity.json --cost 5 --task-cost 0.5 --json > groups.json
      decisive train tasks --data outputs/tasks/train --held-out outputs/tasks/test \
        --groups groups.json --steps 5000 --out outputs/seer
      decisive train tasks --data outputs/tasks/train --held-out outputs/tasks/test \
        --affinity outputs/task-groups/affinity.json --networks 3 --steps 5000 --out outputs/seer
      decisive view --tasks --checkpoint outputs/seer --image photo.png
    """

    data: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Images to learn from."""
    held_out: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Images to be scored by; they choose nothing."""
    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Folder of the run."""
    groups: Annotated[OptionalText, tyro.conf.arg(metavar="A+B,C|FILE.json")] = None
    """Groups of tasks, a network for each."""
    affinity: Annotated[OptionalText, tyro.conf.arg(metavar="MATRIX.json")] = None
    """Affinities that choose the groups."""
    networks: int | None = None
    """With --affinity: most networks."""
    solo: str = "zero"
    """With --affinity: score of a task alone: zero, diagonal, never or a number."""
    backbone: str = "efficientnetv2_b0_quarter"
    """Shared encoder of each network, a name in the catalogue."""
    set_model: Setting = ()
    """Setting of the networks: width=32, or of their backbone: backbone_options.drop_path=0.1."""
    set_train: Setting = ()
    """Setting of the training, such as batch_size=16 or flip=false; once for each."""
    cpu_minutes: Annotated[float | None, tyro.conf.arg(aliases=("--minutes",))] = None
    """Budget of all networks together in CPU-minutes (wall minutes on a GPU), the same for each."""
    steps: int | None = None
    """Budget of each network in steps; 5000 where none is given."""
    seed: int = 0
    """Seed of weights, order and augmentation."""
    fresh: Flag = False
    """Start afresh instead of going on with what is in the folder."""
    json: Flag = False
    """Print one JSON object instead of lines."""

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        if (self.groups is None) == (self.affinity is None):
            raise ValueError(
                "say which tasks share a network: either --groups segmentation+edges,count or "
                "--affinity MATRIX.json --networks K"
            )
        if (self.affinity is None) != (self.networks is None):
            raise ValueError("--affinity and --networks go together")

    def chosen(self) -> TaskGroups:
        """Which tasks share a network."""
        if self.groups is not None:
            return read_groups(self.groups)
        assert self.affinity is not None
        assert self.networks is not None
        return groups_of_affinity(self.affinity, self.networks, self.solo)


def main(argv: Sequence[str]) -> int:
    """Run the verb with the words after `tasks`."""
    arguments = parse(Arguments, argv, "train tasks")
    chosen = arguments.chosen()

    from perception.multi_task import subset
    from perception.multi_task_set import open_task_set

    train, held_out = open_task_set(arguments.data), open_task_set(arguments.held_out)
    for group in chosen.groups:
        subset(train.targets, group)  # refuses tasks that are not there
    config, network = _train_config(arguments, len(chosen.groups)), _network(arguments)
    place = Path(arguments.out) / "last"
    check_writable(place / CARD_FILE)
    results = []
    models = []
    for k, group in enumerate(chosen.groups):
        if not arguments.json:
            print(f"network {k + 1} of {len(chosen.groups)}: {'+'.join(group)}", flush=True)
        model, result = _train_one(group, network, config, train, held_out, arguments)
        models.append(model)
        results.append(result)
    scores = scores_of(chosen, results, len(held_out), train.targets)
    command = provenance.command("train", ["tasks", *argv])
    _save(place, models, chosen, results, scores, train, held_out, command)
    _report(arguments, place, chosen, results, scores)
    return 0


def _train_config(arguments: Arguments, n: int) -> MultiTaskTrainConfig:
    from perception.multi_task_training import MultiTaskTrainConfig

    minutes, steps = arguments.cpu_minutes, arguments.steps
    settings: dict[str, Any] = {
        "steps": DEFAULT_STEPS if steps is None and minutes is None else steps,
        "cpu_seconds": None if minutes is None else 60 * minutes / n,
        "seed": arguments.seed,
    }
    known = constructor_parameters(MultiTaskTrainConfig)
    settings |= typed_options(arguments.set_train, known, "training setting")
    return MultiTaskTrainConfig(**settings)


def _network(arguments: Arguments) -> MultiTaskConfig:
    from perception.multi_task import MultiTaskConfig

    plain: dict[str, Any] = {"backbone": arguments.backbone}
    if arguments.backbone != MultiTaskConfig().backbone:
        plain["backbone_options"] = {}  # those of another one
    settings = merged(plain, nested_options(arguments.set_model))
    if "backbone_options" in settings and "backbone_options" not in plain:
        own = MultiTaskConfig().backbone_options
        settings["backbone_options"] = merged(own, settings["backbone_options"])
    try:
        return MultiTaskConfig(**settings)
    except TypeError as error:
        raise ValueError(f"settings of the networks do not fit: {error}") from None


def _train_one(
    group: Sequence[str],
    network: MultiTaskConfig,
    config: MultiTaskTrainConfig,
    train: TaskSet,
    held_out: TaskSet,
    arguments: Arguments,
) -> tuple[Any, MultiTaskResult]:
    import torch

    from perception.multi_task import MultiTaskNet, subset
    from perception.multi_task_training import train_tasks

    torch.manual_seed(arguments.seed)
    try:
        model = MultiTaskNet(network, subset(train.targets, group))
    except TypeError as error:
        raise ValueError(f"settings of {network.backbone} do not fit: {error}") from None
    result = train_tasks(
        model,
        train,
        held_out,
        config,
        Path(arguments.out) / "networks" / "+".join(model.targets),
        resume=not arguments.fresh,
        progress=False if arguments.json else None,
    )
    return model, result


def scores_of(
    chosen: TaskGroups,
    results: Sequence[MultiTaskResult],
    n: int,
    targets: Mapping[str, Target],
) -> dict[str, Any]:
    """Held-out scores of each task by the network that serves it, JSON values."""
    tasks = {
        task: {
            "loss": results[k].losses[task],
            "error": results[k].errors[task],
            "error_is": error_words(targets[task]),
        }
        for task, k in chosen.serves.items()
    }
    return {"images": n, "tasks": tasks}


def error_words(target: Target) -> str:
    """What the error of a task is, see `perception.multi_task.task_errors`."""
    return {
        "classes": "share of wrong pixels",
        "values": f"mean absolute error, {target.unit or 'no unit'}",
        "directions": "mean angle, degrees",
        "mask": "1 - F1 of an image, mean",
        "numbers": f"mean absolute error, {target.unit or ', '.join(target.names)}",
    }[target.kind]


def _save(
    place: Path,
    models: Sequence[Any],
    chosen: TaskGroups,
    results: Sequence[MultiTaskResult],
    scores: Mapping[str, Any],
    train: TaskSet,
    held_out: TaskSet,
    command: str,
) -> None:
    from perception.multi_task_checkpoint import SavedTasks, save_tasks
    from perception.multi_task_networks import TaskNetworks

    model = TaskNetworks([one.cpu() for one in models], chosen.serves).eval()
    saved = SavedTasks(
        model=model,
        size=train.size,
        mean=results[0].mean,
        std=results[0].std,
        statistics={task: scale for one in results for task, scale in one.statistics.items()},
        scores=scores,
    )
    counts = [sum(parameter.numel() for parameter in one.parameters()) for one in models]
    networks = [
        f"{one.config.backbone}, {count:,} parameters, {result.step} steps in "
        f"{result.cpu_seconds:.0f} CPU-seconds"
        for one, count, result in zip(models, counts, results, strict=True)
    ]
    text = card(networks, chosen, scores, train, held_out, command)
    save_tasks(place, saved, text)


def card(
    networks: Sequence[str],
    chosen: TaskGroups,
    scores: Mapping[str, Any],
    train: TaskSet,
    held_out: TaskSet,
    command: str,
) -> str:
    """The model card, in Markdown.

    Args:
        networks: one line about each.
        chosen: their tasks, and how they were chosen.
        scores: as `scores_of` gives them.
        train: learned from.
        held_out: scored by.
        command: that trained them.
    """
    height, width = train.size
    told = [f"- {_group_line(chosen, k)}: {network}" for k, network in enumerate(networks)]
    synthetic = bool(train.facts.get("synthetic"))
    lines = [
        "# Perception tasks",
        "",
        f"{len(networks)} networks for images of {height} x {width} pixels. Trained with Decisive.",
        "",
        *told,
        "",
        f"Groups: {chosen.source}.",
        "",
        "## Data",
        "",
        f"- learned from {len(train):,} {_things(train)}: {train.source}",
        f"- scored by {len(held_out):,} {_things(held_out)}: {held_out.source}",
        *(
            f"- {task}: {', '.join(train.targets[task].names)}"
            for task in chosen.serves
            if train.targets[task].names
        ),
        "",
        *command_lines(command),
        "## Scores",
        "",
        *(f"- {line}" for line in score_lines(scores)),
        "",
        "Of one training; the held-out images chose nothing.",
        "",
        "## Limits",
        "",
        "Images are resized without keeping the ratio of their sides. Distances and directions are "
        "learned for the camera of the data above (field of view, height, what it looks at); of "
        "another one, and of scenes, light or things unlike the data, they are wrong without a "
        "sign of it.",
        *(["What they learned from is synthetic; no real image was seen."] if synthetic else []),
        "",
    ]
    return "\n".join(lines)


def _group_line(chosen: TaskGroups, k: int) -> str:
    served = [task for task in chosen.groups[k] if chosen.serves.get(task) == k]
    beside = [task for task in chosen.groups[k] if task not in served]
    return ", ".join(served) + (f" (learned beside {', '.join(beside)})" if beside else "")


def _things(data: TaskSet) -> str:
    return "synthetic images" if data.facts.get("synthetic") else "images"


def score_lines(scores: Mapping[str, Any]) -> list[str]:
    """Held-out scores in words, one a line."""
    return [
        f"{task}: {one['error']:.4g} ({one['error_is']}; loss {one['loss']:.4g})"
        for task, one in scores["tasks"].items()
    ]


def _report(
    arguments: Arguments,
    place: Path,
    chosen: TaskGroups,
    results: Sequence[MultiTaskResult],
    scores: Mapping[str, Any],
) -> None:
    seconds = sum(one.cpu_seconds for one in results)
    if arguments.json:
        told = {
            "groups": [list(group) for group in chosen.groups],
            "serves": dict(chosen.serves),
            "scores": scores,
            "steps": [one.step for one in results],
            "cpu_seconds": seconds,
            "folder": str(place),
        }
        print(json.dumps(told, indent=2))
        return
    print(f"{sum(one.step for one in results)} steps in {seconds:.1f} CPU-seconds")
    for k in range(len(chosen.groups)):
        print(f"network {k + 1} serves {_group_line(chosen, k)}")
    for line in score_lines(scores):
        print(line)
    print(place)
