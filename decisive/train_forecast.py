"""`decisive train metnet2`: forecasts on grids from radar events, or from other sequences."""

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
from decisive.options import constructor_parameters, merged, nested_options, typed_options

if TYPE_CHECKING:
    from learning.grid_sequence import GridSequence
    from learning.loop import TrainResult
    from world_models.metnet2.model import MetNet2
    from world_models.metnet2.train_config import ForecastTrainConfig

DEFAULT_STEPS = 2000
_LISTED = 20
Folders = Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="FOLDER")]
Setting = Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=VALUE")]


@dataclass(frozen=True)
class Arguments:
    r"""Train MetNet-2 on radar events, or on any sequences of grids.

    A --data folder holds the files of one event of MRMS (GRIB2), FMI (PGM), MeteoSwiss (GIF) or
    KNMI (HDF5), or .npz sequences of this project; a name that is no folder here is looked for in
    the folder radar below the one that DECISIVE_DATA names. Split by event, never by frame:
    --validation names other events, whose CRPS chooses the checkpoint.

    A run that was stopped goes on when the same command is given again. FOLDER/best is the
    checkpoint, for `decisive forecast`; FOLDER/last the end of the training.

    Examples:
      decisive train metnet2 --data mch/20160711 --data knmi/2010 --data fmi/20170509 \
        --validation mch/20170131 --cpu-minutes 25 --out outputs/rain
      decisive train metnet2 --data my-event --validation other-event --size small-eulerian \
        --set-model context=192 --set-train crps=0 --set-train cross_entropy=1 --steps 500 \
        --out outputs/plain
      torchrun --nproc-per-node 2 -m decisive train metnet2 --data mch/20160711 --steps 500 \
        --out outputs/two
    """

    data: Folders
    """Events to learn from, once for each."""
    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Folder of the run."""
    validation: Folders = ()
    """Events to be scored by, once for each."""
    size: str = "small"
    """small, small-eulerian, occupancy or paper; ignored with --start."""
    start: Annotated[OptionalText, tyro.conf.arg(metavar="NAME|FOLDER")] = None
    """Begin with the weights of a checkpoint."""
    cpu_minutes: Annotated[float | None, tyro.conf.arg(aliases=("--minutes",))] = None
    """Budget in CPU-minutes of training steps (wall minutes on a GPU)."""
    steps: int | None = None
    """Budget in steps; 2000 where none is given."""
    seed: int = 0
    """Seed of weights, places, moments and augmentation."""
    set_model: Setting = ()
    """Setting of the network, such as width=64 or motion.window=30; once for each."""
    set_train: Setting = ()
    """Setting of the training, such as batch_size=8 or device=cuda; once for each."""
    fresh: Flag = False
    """Start afresh instead of going on with what is in the folder."""
    json: Flag = False
    """Print one JSON object instead of lines."""


def main(argv: Sequence[str]) -> int:
    """Run the verb with the words after `metnet2`."""
    arguments = parse(Arguments, argv, "train metnet2")
    if not arguments.data:
        raise ValueError("name events to learn from: --data FOLDER")
    shared = set(arguments.data) & set(arguments.validation)
    if shared:
        raise ValueError(f"{min(shared)} is both learned from and held out; split by event")

    from world_models.metnet2.training import train_metnet2

    config, model = _config(arguments), _model(arguments)
    command = provenance.command("train", ["metnet2", *argv])
    events, held_out = _events(arguments.data), _events(arguments.validation)

    def save(model: MetNet2, folder: Path, training: dict[str, Any]) -> None:
        from world_models.metnet2.model import save_forecaster

        facts = training | {"command": command, "commit": provenance.commit()}
        save_forecaster(model, folder, facts, card(model, facts))

    result = train_metnet2(
        model,
        events,
        held_out,
        config,
        arguments.out,
        resume=not arguments.fresh,
        save=save,
        progress=False if arguments.json else None,
    )
    if int(os.environ.get("RANK", "0")) == 0:  # under torchrun, one process speaks
        _report(arguments, result)
    return 0


def event_folder(name: str) -> Path:
    """The folder of an event: as named, or below `radar` in the data folder.

    Raises:
        ValueError: if there is none.
    """
    from learning.image_set import data_folder

    places = [Path(name), data_folder() / "radar" / name]
    for place in places:
        if place.exists():
            return place
    raise ValueError(f"no event {name!r}: neither {places[0]} nor {places[1]} is there")


def _events(names: Sequence[str]) -> list[GridSequence]:
    from learning.radar import read_events

    return [event for name in names for event in read_events(event_folder(name))]


def _config(arguments: Arguments) -> ForecastTrainConfig:
    from world_models.metnet2.train_config import ForecastTrainConfig

    minutes = arguments.cpu_minutes
    settings: dict[str, Any] = {
        "steps": arguments.steps,
        "cpu_seconds": None if minutes is None else 60 * minutes,
        "seed": arguments.seed,
    }
    if arguments.steps is None and minutes is None:
        settings["steps"] = DEFAULT_STEPS
    known = constructor_parameters(ForecastTrainConfig)
    settings |= typed_options(arguments.set_train, known, "training setting")
    return ForecastTrainConfig(**settings)


def _model(arguments: Arguments) -> MetNet2:
    import torch

    from world_models.metnet2.config import MetNet2Config, size
    from world_models.metnet2.model import MetNet2, load_forecaster

    changes = nested_options(arguments.set_model)
    if arguments.start is not None:
        start = load_forecaster(arguments.start)
        if not changes:
            return start
        model = MetNet2(MetNet2Config.from_dict(merged(start.config.to_dict(), changes)))
        try:
            model.load_state_dict(start.state_dict())
        except RuntimeError:
            raise ValueError(f"the weights of {arguments.start} do not fit --set-model") from None
        return model
    config = MetNet2Config.from_dict(merged(size(arguments.size).to_dict(), changes))
    torch.manual_seed(arguments.seed)
    return MetNet2(replace(config))


def card(model: MetNet2, training: dict[str, Any]) -> str:
    """The model card, in Markdown."""
    config = model.config
    n = sum(parameter.numel() for parameter in model.parameters())
    versions = ", ".join(f"{key} {value}" for key, value in provenance.versions().items())
    scores = [
        f"- CRPS at {name.removeprefix('validation/crps_')}: {value:.4f}"
        for name, value in training.items()
        if name.startswith("validation/crps_")
    ]
    unit = " mm/h" if config.quantity == "rain_rate" else ""
    lines = [
        "# MetNet-2",
        "",
        f"Forecasts {config.quantity} in {config.n_bins} bins up to {config.edges[-1]:g}{unit}, "
        f"{config.lead_step:g} to {config.leads[-1]:g} s ahead, on cells of {config.cell:g} m, "
        f"from {config.n_frames} frames {config.frame_step:g} s apart. {n:,} parameters, "
        f"{config.coordinates} coordinates. Trained with Decisive.",
        "",
        "## Data",
        "",
        *_events_listed("learned from", training["data"]),
        *_events_listed("chosen by", training["held_out"]),
        "",
        "## Command",
        "",
        "```",
        training["command"],
        "```",
        "",
        f"Commit `{training['commit'] or 'unknown'}`; {versions}. {training['step']} steps, "
        f"{training['cpu_seconds']:.0f} s of training steps on {training['device']}, seed "
        f"{training['train']['seed']}.",
        "",
        "## Scores",
        "",
        "On the held-out events, at places and moments drawn once, rather where it is wet; they "
        "chose the checkpoint, so they flatter it."
        if scores
        else "No held-out events.",
        "",
        *scores,
        "",
        "## Limits",
        "",
        _limits(config.quantity),
        "",
    ]
    return "\n".join(lines)


def _events_listed(what: str, events: Sequence[dict[str, Any]]) -> list[str]:
    lines = [f"- {what} {_event(event)}" for event in events[:_LISTED]]
    more = len(events) - len(lines)
    return [*lines, f"- {what} {more} more"] if more else lines


def _limits(quantity: str) -> str:
    if quantity == "rain_rate":
        return (
            "Has seen the events above only: few weather situations, and none of snow. Rates are "
            "those of the services that measured them. Do not rely on it where life or property "
            "is at stake."
        )
    return "Has seen the sequences above only; what moves otherwise is forecast worse."


def _event(event: dict[str, Any]) -> str:
    rows, columns = event["shape"]
    return f"{event['name']}: {event['frames']} frames of {rows} x {columns}"


def _report(arguments: Arguments, result: TrainResult) -> None:
    if arguments.json:
        print(json.dumps({**asdict(result), "folder": str(result.folder)}, indent=2))
        return
    final: dict[str, float] = {}
    for row in result.history:
        final |= row
    print(f"{result.step} steps in {result.cpu_seconds:.1f} s")
    if result.best_score is not None:
        print(f"best held-out CRPS: {-result.best_score:.4f}")
    for name, value in final.items():
        if name == "loss" or name.startswith("validation/"):
            print(f"  {name}: {value:.4g}")
    print(result.folder)
