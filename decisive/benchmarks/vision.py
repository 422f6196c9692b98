"""`decisive benchmark vision`: what tokens, layouts and growing images do for small networks."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from decisive import provenance, tables
from decisive.arguments import Flag, OptionalText, check_writable, parse
from decisive.benchmarks.cells import read_cell
from learning.atomic import write_file

if TYPE_CHECKING:
    from decisive.benchmarks.vision_tables import Arm
    from learning.image_set import ImageSet

_DRAW = 0  # Seed of the choice of training images: all arms and seeds see the same ones.
_TIMED = 16  # Images of a batch that is timed.
# Of a set that is rendered: who made it. Pictures follow from the other facts, so a table that was
# begun goes on when another commit renders them again; what is drawn otherwise must change those.
_PROVENANCE = ("versions", "commit")


@dataclass(frozen=True)
class Arguments:
    """Fill a table of small vision studies: train and score every cell that has no result yet.

    tokens (CIFAR-10) compares a plain ViT with one that goes on with 8 learned tokens, and with 8
    averaged ones; video (--data, clips) likewise, beside a network that sees one frame; layouts
    (CIFAR-10) has CoAtNets of one size, from all convolution to all attention, on few and on many
    images; progressive (--data, images) lets images and regularisation grow. A cell, an arm and a
    seed, is one JSON file in --out: what is there is not done again, a cell of other settings is
    refused, and the table says 'not run' for the rest. Trainings are kept in --work and go on after
    a kill.

    Examples:
      decisive benchmark vision --table tokens --core
      decisive benchmark vision --table progressive --core --data outputs/scenes \
        --held-out outputs/scenes-test --minutes 120
    """

    table: Literal["tokens", "video", "layouts", "progressive"]
    """Which table."""
    seeds: int = 3
    """Trainings of each arm."""
    only: str = "*"
    """Cells whose names, ARM-SEED, fit this pattern."""
    minutes: float | None = None
    """Begin no cell after so many minutes."""
    core: Flag = False
    """The form that one core fills in about four hours."""
    steps: int | None = None
    """Try the arms for so many steps instead of their epochs."""
    test_images: int | None = None
    """Score by the first of a fixed draw of the held-out images; all if not given."""
    data: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Clips or images of video and progressive (`learning.image_set`)."""
    held_out: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Those to be scored by."""
    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = "docs/benchmarks/vision"
    """Folder of the cells and the tables."""
    work: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = "outputs/benchmarks/vision"
    """Folder of the trainings, which can be made again."""
    json: Flag = False
    """Print one JSON object instead of a table."""

    def __post_init__(self) -> None:
        """Refuse what cannot run."""
        if not 1 <= self.seeds <= 10:
            raise ValueError(f"seeds must be 1 to 10, got {self.seeds}")
        for name in ("steps", "test_images"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        needed = self.table in ("video", "progressive")
        if needed and not (self.data and self.held_out):
            raise ValueError(f"table {self.table} needs --data FOLDER and --held-out FOLDER")
        if not needed and (self.data or self.held_out):
            raise ValueError(f"table {self.table} is of CIFAR-10; leave --data and --held-out out")


@dataclass(frozen=True)
class Cell:
    """An arm and a seed."""

    arm: Arm
    seed: int

    @property
    def name(self) -> str:
        """Of the cell."""
        return f"{self.arm.name}-{self.seed}"


def main(argv: Sequence[str]) -> int:
    """Run the benchmark with the words after `vision`."""
    arguments = parse(Arguments, argv, "benchmark vision")
    from decisive.benchmarks import vision_report
    from decisive.benchmarks.vision_tables import arms, contrasts

    cells = [
        Cell(arm, seed)
        for seed in range(arguments.seeds)
        for arm in arms(arguments.table, arguments.core)
    ]
    chosen = [cell for cell in cells if fnmatchcase(cell.name, arguments.only)]
    if not chosen:
        raise ValueError(f"no cell fits {arguments.only!r}; names are like {cells[0].name}")
    folder = Path(arguments.out) / arguments.table
    folder.mkdir(parents=True, exist_ok=True)
    check_writable(folder / "README.md")
    train, held_out = _sets(arguments)
    deadline = None if arguments.minutes is None else time.monotonic() + 60 * arguments.minutes
    for cell in chosen:
        told = plan(cell, arguments, train, held_out)
        if read_cell(folder / f"{cell.name}.json", told) is None:
            if deadline is not None and time.monotonic() > deadline:
                break
            result = run_cell(cell, arguments, told, train, held_out)
            write_file(folder / f"{cell.name}.json", (json.dumps(result, indent=2) + "\n").encode())
            print(f"{cell.name}  {result['cpu_seconds']:.0f} CPU-seconds", file=sys.stderr)
    found = {
        cell.name: read_cell(folder / f"{cell.name}.json", plan(cell, arguments, train, held_out))
        for cell in cells
    }
    by_arm = {
        cell.arm.name: [found[f"{cell.arm.name}-{seed}"] for seed in range(arguments.seeds)]
        for cell in cells
    }
    command = provenance.command("benchmark", ["vision", *words(arguments)])
    header, rows = vision_report.table(by_arm)
    pairs = contrasts(arguments.table)
    vision_report.write(by_arm, arguments.table, pairs, command, train.source, folder)
    compared = vision_report.differences(by_arm, pairs)
    if arguments.json:
        told = {"header": header, "rows": rows, "differences": compared, "folder": str(folder)}
        print(json.dumps(told, indent=2))
        return 0
    tables.show(tables.plain_table(header, rows, arguments.table), vision_report.NOTES)
    if compared[1]:
        tables.show(tables.plain_table(*compared, "differences"), vision_report.DIFFERENCES)
    return 0


def words(arguments: Arguments) -> list[str]:
    """The command line of a whole table, of which `--only` and `--minutes` run a part."""
    found = ["--table", arguments.table, *(["--core"] if arguments.core else [])]
    for name in ("seeds", "steps", "test_images", "data", "held_out"):
        value = getattr(arguments, name)
        if value not in (None, Arguments.seeds if name == "seeds" else None):
            found += [f"--{name.replace('_', '-')}", str(value)]
    return found


def plan(cell: Cell, arguments: Arguments, train: ImageSet, held_out: ImageSet) -> dict[str, Any]:
    """Everything that decides a result, as JSON gives it back."""
    told = {
        "arm": asdict(cell.arm),
        "seed": cell.seed,
        "steps": arguments.steps,
        "train": [train.source, list(train.images.shape), _kept(train, made=False)],
        "held_out": [held_out.source, list(held_out.images.shape), _kept(held_out, made=False)],
    }
    plain: dict[str, Any] = json.loads(json.dumps(told))
    return plain


def _kept(data: ImageSet, made: bool) -> dict[str, Any]:
    """Facts of a set: who made it, or what it is."""
    return {name: value for name, value in data.facts.items() if (name in _PROVENANCE) == made}


def run_cell(
    cell: Cell, arguments: Arguments, told: dict[str, Any], train: ImageSet, held_out: ImageSet
) -> dict[str, Any]:
    """Train an arm, score it, count its multiply-adds and time it."""
    import torch

    from decisive.benchmarks.vision_tables import build, config_of
    from perception.evaluation import evaluate_classifier
    from perception.train_batches import Batches
    from perception.training import train_classifier

    arm = cell.arm
    train, held_out = _seen(arm, train), _seen(replace(arm, n_images=None), held_out)
    torch.manual_seed(cell.seed)
    model = build(arm, train.n_classes, train.images.shape[-1])
    config = config_of(arm, len(train), cell.seed, arguments.steps)
    form = "core" if arguments.core else "full"
    folder = Path(arguments.work) / arm.table / f"{cell.name}-{form}"
    result = train_classifier(model, train, held_out, config, folder, progress=False)
    learned = train.take(np.linspace(0, len(train) - 1, min(5000, len(train))).astype(int))
    batches = Batches(learned, config, (result.mean, result.std), torch.device("cpu"))
    fitted = evaluate_classifier(model, batches, config.batch_size)
    example = batches.plain(np.arange(min(_TIMED, len(learned))))
    return {
        "plan": told,
        "rendered": {
            "train": _kept(train, made=True),
            "held_out": _kept(held_out, made=True),
        },
        "scores": result.scores.plain(),
        "train_scores": fitted.plain(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "multiply_adds": multiply_adds(model, example[:1]),
        "seconds": step_seconds(model, example),
        "cpu_seconds": result.cpu_seconds,
        "steps": result.step,
        "machine": provenance.machine(),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }


def multiply_adds(model: Any, example: Any) -> int:
    """Of one image or clip, by torch's counter (matrix products, convolutions, attention)."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(example)
    return counter.get_total_flops() // 2


def step_seconds(model: Any, example: Any, repeats: int = 5) -> dict[str, float]:
    """CPU-seconds of a training step (forward and backward) and of inference, the medians."""
    import torch

    taken: dict[str, list[float]] = {"train": [], "inference": []}
    for repeat in range(repeats + 1):  # the first warms up
        began = time.process_time()
        with torch.no_grad():
            model.eval()(example)
        between = time.process_time()
        model.train()(example).square().mean().backward()
        if repeat:
            taken["inference"].append(between - began)
            taken["train"].append(time.process_time() - between)
    model.eval()
    return {name: float(np.median(values)) for name, values in taken.items()}


def _sets(arguments: Arguments) -> tuple[ImageSet, ImageSet]:
    from learning.image_set import cifar10, open_image_set

    if arguments.data is None or arguments.held_out is None:
        train, held_out = cifar10(split="train"), cifar10(split="test")
    else:
        train, held_out = open_image_set(arguments.data), open_image_set(arguments.held_out)
    if train.is_clips != (arguments.table == "video"):
        kind = "clips" if arguments.table == "video" else "images"
        raise ValueError(f"table {arguments.table} needs {kind}, got {train.images.shape}")
    return train, _drawn(held_out, arguments.test_images)


def _drawn(data: ImageSet, n: int | None) -> ImageSet:
    if n is None or n >= len(data):
        return data
    return data.take(np.sort(np.random.default_rng(_DRAW).permutation(len(data))[:n]))


def _seen(arm: Arm, data: ImageSet) -> ImageSet:
    """What an arm sees of a set."""
    data = _drawn(data, arm.n_images)
    if not arm.single_frame:
        return data
    middle = data.images.shape[1] // 2
    return replace(data, images=data.images[:, middle : middle + 1])
