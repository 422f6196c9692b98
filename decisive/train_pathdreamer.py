"""`decisive train pathdreamer`: a world model from rendered houses."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from decisive import provenance
from decisive.arguments import Flag, OptionalText, parse
from decisive.options import constructor_parameters, typed_options

if TYPE_CHECKING:
    from learning.loop import TrainResult
    from world_models.pathdreamer.model import Pathdreamer
    from world_models.pathdreamer.panoramas import PanoramaSet
    from world_models.pathdreamer.train_config import DreamTrainConfig

PARTS = ("summary", "structure", "image")
APART = {"structure": "summary,structure", "image": "image"}
"""What each process learns, side by side."""
Setting = Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=VALUE")]


@dataclass(frozen=True)
class Arguments:
    r"""Train Pathdreamer on walks through procedural houses, or on panoramas of your own.

    First the structure generator's summary learns what rooms to expect. Both generators learn from
    the true panoramas, so they can learn side by side: with --side-by-side each has a process of
    its own, the summary goes with the structure, and the two are joined at the end. A run that was
    stopped goes on when the same command is given again. FOLDER/last is the checkpoint, for
    `decisive dream` and `decisive plan`.

    Examples:
      decisive train pathdreamer --minutes 55 --side-by-side --out outputs/dreamer
      decisive train pathdreamer --parts structure --height 32 --minutes 10 --out outputs/coarse
      decisive train pathdreamer --start outputs/coarse --minutes 30 --out outputs/fine
      decisive train pathdreamer --data my-panoramas --size base --steps 200000 --out outputs/own
      torchrun --nproc-per-node 2 -m decisive train pathdreamer --steps 5000 --out outputs/two
    """

    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Folder of the run."""
    size: str = "small"
    """small, base or paper; ignored with --start."""
    height: int | None = None
    """Rows of the panoramas, which are twice as wide; what the size is meant for if not given."""
    houses: int = 600
    """Procedural houses of the split train, the first so many."""
    predictability: float = 1.0
    """How much their rooms tell of each other, 0 to 1."""
    data: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Panoramas of your own, as `world_models.pathdreamer.write_panoramas` writes them."""
    parts: str = "summary,structure,image"
    """What learns, of these: the structure generator's summary before the generators."""
    side_by_side: Flag = False
    """Let them learn at once, in a process each; the budget holds for each."""
    start: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Begin with the weights of a checkpoint, or of a shipped world model."""
    minutes: float | None = None
    """Budget in CPU-minutes of training steps (wall minutes on a GPU)."""
    steps: int | None = None
    """Budget in steps; 5000 where none is given."""
    seed: int = 0
    """Seed of weights, walks and noise."""
    workers: int = 2
    """Processes that render houses."""
    set_train: Setting = ()
    """Setting of the training, such as batch_size=16 or device=cuda; once for each."""
    half: Flag = False
    """Store float16: half the bytes; what is loaded computes in float32 again."""
    panoramas: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = "outputs/panoramas"
    """Where rendered houses are kept."""
    fresh: Flag = False
    """Start afresh instead of going on with what is in the folder."""
    json: Flag = False
    """Print one JSON object instead of lines."""

    def __post_init__(self) -> None:
        """Refuse what cannot run."""
        if not self.parts or set(self.parts.split(",")) - set(PARTS):
            raise ValueError(f"parts must be of {', '.join(PARTS)}, got {self.parts!r}")
        if self.houses < 2:
            raise ValueError(f"houses must be at least 2 (one is held out), got {self.houses}")
        if not 0 <= self.predictability <= 1:
            raise ValueError(f"predictability must be in [0, 1], got {self.predictability}")
        if self.side_by_side and not {"structure", "image"} <= set(self.parts.split(",")):
            raise ValueError("side_by_side needs both generators")
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")


def main(argv: Sequence[str]) -> int:
    """Run the verb with the words after `pathdreamer`."""
    arguments = parse(Arguments, argv, "train pathdreamer")
    _config(arguments)  # refuses a bad setting before houses are rendered
    command = provenance.command("train", ["pathdreamer", *argv])
    _panoramas(arguments)
    if arguments.side_by_side:
        results = _train_apart(arguments, command)
    else:
        results = {"": train(arguments, Path(arguments.out), command)}
    if int(os.environ.get("RANK", "0")) == 0:  # under torchrun, one process speaks
        _report(arguments, results)
    return 0


def train(arguments: Arguments, out: Path, command: str) -> TrainResult:
    """Train the parts that the arguments name."""
    from world_models.pathdreamer.guidance import make_guidance
    from world_models.pathdreamer.model import save_world_model
    from world_models.pathdreamer.training import train_pathdreamer

    model, config = _model(arguments), _config(arguments)
    facts = _facts(arguments, command)

    def save(model: Pathdreamer, folder: Path, training: dict[str, Any]) -> None:
        save_world_model(
            model, folder, training | facts, _card(model, training | facts), arguments.half
        )

    return train_pathdreamer(
        model,
        _panoramas(arguments),
        config,
        out,
        make_guidance,
        resume=not arguments.fresh,
        save=save,
        progress=False if arguments.json else None,
    )


def _train_apart(arguments: Arguments, command: str) -> dict[str, TrainResult]:
    """Train both generators at once and join them in `out/last`."""
    from decisive.workers import process_pool
    from learning.checkpoint import read_checkpoint
    from world_models.pathdreamer.model import load_world_model, save_world_model

    out = Path(arguments.out)
    known = set(arguments.parts.split(","))
    with process_pool(len(APART), interruptible=True) as pool:
        tasks = {}
        for part, own in APART.items():
            parts = ",".join(name for name in own.split(",") if name in known)
            alone = replace(arguments, parts=parts, side_by_side=False)
            tasks[part] = pool.submit(train, alone, out / part, command)
        results = {part: task.result() for part, task in tasks.items()}
    models = {part: load_world_model(out / part / "last") for part in APART}
    model = models["structure"]
    model.image.load_state_dict(models["image"].image.state_dict())
    training = {part: read_checkpoint(out / part / "last")[0]["training"] for part in APART}
    facts = _facts(arguments, command)
    save_world_model(
        model, out / "last", training | facts, _card(model, training | facts), arguments.half
    )
    return results


def _model(arguments: Arguments) -> Pathdreamer:
    import torch

    from world_models.pathdreamer.config import size
    from world_models.pathdreamer.model import Pathdreamer, load_world_model

    if arguments.start is not None:
        return load_world_model(arguments.start)
    torch.manual_seed(arguments.seed)
    return Pathdreamer(replace(size(arguments.size), rooms=_panoramas(arguments).room_names))


def _config(arguments: Arguments) -> DreamTrainConfig:
    from world_models.pathdreamer.train_config import DreamTrainConfig

    settings: dict[str, Any] = {
        "steps": arguments.steps,
        "cpu_seconds": None if arguments.minutes is None else 60 * arguments.minutes,
        "parts": tuple(arguments.parts.split(",")),
        "seed": arguments.seed,
    }
    if arguments.steps is None and arguments.minutes is None:
        settings["steps"] = 5000
    known = constructor_parameters(DreamTrainConfig)
    settings |= typed_options(arguments.set_train, known, "training setting")
    return DreamTrainConfig(**settings)


def _panoramas(arguments: Arguments) -> PanoramaSet:
    from decisive.rendering import panoramas_of
    from world_models.pathdreamer.config import size
    from world_models.pathdreamer.model import load_world_model
    from world_models.pathdreamer.panoramas import open_panoramas

    if arguments.data is not None:
        return open_panoramas(arguments.data)
    height = arguments.height
    if height is None and arguments.start is not None:
        height = load_world_model(arguments.start).config.height
    elif height is None:
        height = size(arguments.size).height
    return panoramas_of(
        Path(arguments.panoramas),
        "train",
        range(arguments.houses),
        arguments.predictability,
        (height, 2 * height),
        arguments.workers,
    )


def _facts(arguments: Arguments, command: str) -> dict[str, Any]:
    from envs.indoor.house import GENERATOR

    facts: dict[str, Any] = {"command": command, "commit": provenance.commit()}
    if arguments.data is None:
        facts |= {"generator": GENERATOR, "predictability": arguments.predictability}
    return facts


def _card(model: Pathdreamer, training: dict[str, Any]) -> str:
    structure, image = (
        sum(parameter.numel() for parameter in part.parameters()) / 1e6
        for part in (model.structure, model.image)
    )
    data = (
        f"procedural houses, generator {training['generator']}, predictability "
        f"{training['predictability']:g}: synthetic, made by this project, free to use"
        if "generator" in training
        else "panoramas of the user"
    )
    return (
        "# Pathdreamer\n\n"
        f"Structure generator {structure:.2f} M parameters, image generator {image:.2f} M, for "
        f"panoramas of {model.config.height} x {2 * model.config.height}.\n\n"
        f"Data: {data}.\n\nCommand: `{training['command']}`\n\n"
        "Limits: knows rooms and furniture of these houses only; depth ends at "
        f"{model.config.max_depth:g} m.\n"
    )


def _report(arguments: Arguments, results: dict[str, TrainResult]) -> None:
    folder = str(Path(arguments.out) / "last")
    if arguments.json:
        told = {part or "both": _plain(result) for part, result in results.items()}
        print(json.dumps({"folder": folder, "trainings": told}, indent=2))
        return
    for part, result in results.items():
        final: dict[str, float] = {}
        for row in result.history:
            final |= row
        print(f"{part or arguments.parts}: {result.step} steps in {result.cpu_seconds:.1f} s")
        for name, value in final.items():
            if name == "loss" or name.startswith("validation/"):
                print(f"  {name}: {value:.4g}")
    print(folder)


def _plain(result: TrainResult) -> dict[str, Any]:
    return {**asdict(result), "folder": str(result.folder)}
