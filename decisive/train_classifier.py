"""`decisive train classifier`: a classifier of images from a set of images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from decisive import provenance
from decisive.arguments import Flag, OptionalText, parse
from decisive.model_card import command_lines
from decisive.options import constructor_parameters, nested_options, typed_options
from decisive.statistics import wilson_interval

if TYPE_CHECKING:
    from torch import nn

    from learning.image_set import ImageSet
    from learning.progressive import ProgressiveConfig
    from perception.train_config import ClassifierTrainConfig
    from perception.training import ClassifierResult

DEFAULT_STEPS = 5000
PUBLIC = ("cifar10", "mnist")
_FIRST_SIZE = 128 / 300  # Of the paper's S: the smallest images over the largest.
Setting = Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=VALUE")]


@dataclass(frozen=True)
class Arguments:
    r"""Train a backbone of the catalogue to classify images, one or several tasks at once.

    --data is a folder of images.npy, labels.npy and set.json (`learning.image_set`), or cifar10 or
    mnist in the folder that DECISIVE_DATA names, whose test images are then held out. A run that
    was stopped goes on when the same command is given again. FOLDER/last is the checkpoint, with a
    model card; held-out scores are those of the averaged weights.

    Examples:
      decisive train classifier --backbone vit_micro --data cifar10 --size 32 \
        --set-model patch=4 --cpu-minutes 30 --out outputs/cifar
      decisive train classifier --backbone efficientnetv2_b0_half --data outputs/scenes \
        --held-out outputs/scenes-test --size 96 --progressive paper --steps 4000 --out outputs/b0
    """

    backbone: str
    """Name in the catalogue, such as coatnet_0."""
    data: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Images to learn from: a folder, cifar10 or mnist."""
    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Folder of the run."""
    held_out: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Images to be scored by; the test images of cifar10 and mnist if not given."""
    set_model: Setting = ()
    """Setting of the backbone, such as tokens=8; once for each."""
    set_train: Setting = ()
    """Setting of the training, such as batch_size=64 or flip=false; once for each."""
    size: int | None = None
    """Pixels a side that images are resized to; their own if not given."""
    cpu_minutes: float | None = None
    """Budget in CPU-minutes of training steps (wall minutes on a GPU)."""
    steps: int | None = None
    """Budget in steps; 5000 where none is given."""
    progressive: Literal["paper", "released", "none"] = "none"
    """Let images and regularisation grow as in EfficientNetV2's paper, or as in its code."""
    seed: int = 0
    """Seed of weights, order and augmentation."""
    fresh: Flag = False
    """Start afresh instead of going on with what is in the folder."""
    json: Flag = False
    """Print one JSON object instead of lines."""


def main(argv: Sequence[str]) -> int:
    """Run the verb with the words after `classifier`."""
    arguments = parse(Arguments, argv, "train classifier")
    if arguments.held_out is None and arguments.data not in PUBLIC:
        raise ValueError("name images to be scored by: --held-out FOLDER")

    from perception.training import train_classifier

    train = _open(arguments.data, "train")
    held_out = _open(arguments.held_out or arguments.data, "test")
    overrides = nested_options(arguments.set_model)
    model = _model(arguments, train, overrides)
    config = _config(arguments, model, train)
    command = provenance.command("train", ["classifier", *argv])

    def save(model: nn.Module, folder: Path, training: dict[str, Any]) -> None:
        _save(model, folder, training, arguments, overrides, train, held_out, command)

    result = train_classifier(
        model,
        train,
        held_out,
        config,
        arguments.out,
        resume=not arguments.fresh,
        save=save,
        progress=False if arguments.json else None,
    )
    _report(arguments, result)
    return 0


def _open(name: str, split: str) -> ImageSet:
    from learning import image_set

    if name in PUBLIC:
        found: ImageSet = getattr(image_set, name)(split=split)
        return found
    return image_set.open_image_set(name)


def _model(arguments: Arguments, data: ImageSet, overrides: Mapping[str, Any]) -> nn.Module:
    import torch

    from perception.catalogue import create

    torch.manual_seed(arguments.seed)
    try:
        return create(
            arguments.backbone,
            n_classes=data.n_classes,
            in_channels=data.images.shape[-1],
            **overrides,
        )
    except TypeError as error:
        raise ValueError(f"settings of {arguments.backbone} are of wrong kinds: {error}") from None


def _config(arguments: Arguments, model: nn.Module, data: ImageSet) -> ClassifierTrainConfig:
    from perception.train_config import ClassifierTrainConfig

    settings: dict[str, Any] = {
        "steps": arguments.steps,
        "cpu_seconds": None if arguments.cpu_minutes is None else 60 * arguments.cpu_minutes,
        "seed": arguments.seed,
        "size": arguments.size,
        # A mirrored digit is another sign.
        "flip": data.facts.get("name") != "mnist",
    }
    if arguments.steps is None and arguments.cpu_minutes is None:
        settings["steps"] = DEFAULT_STEPS
    if arguments.progressive != "none":
        size = arguments.size or min(data.images.shape[-3:-1])
        settings |= {
            "size": None,
            "schedule": schedule(arguments.progressive, arguments.backbone, model, size),
        }
    known = constructor_parameters(ClassifierTrainConfig)
    settings |= typed_options(arguments.set_train, known, "training setting")
    return ClassifierTrainConfig(**settings)


def schedule(kind: str, backbone: str, model: nn.Module, size: int) -> ProgressiveConfig:
    """A published schedule, for images of another size.

    Magnitudes, mixing and dropout are those of S, or of M or L for backbones of that size. Sizes
    grow to `size` from 128 / 300 of it, as those of S do in the paper.

    Args:
        kind: `paper` or `released`.
        backbone: its name.
        model: the backbone; patches must tile the images of all stages.
        size: pixels a side of the last stage.
    """
    from learning.progressive import preset

    letter = (
        backbone[-1] if backbone.startswith("efficientnetv2_") and backbone[-1] in "ml" else "s"
    )
    config: Any = model.config
    tiled = hasattr(config, "patch") or hasattr(config, "spatial")
    multiple = int(getattr(model, "stride", 1)) if tiled else min(8, size)
    first = max(multiple, round(_FIRST_SIZE * size / multiple) * multiple)
    return replace(preset(f"{kind}-{letter}"), size=(min(first, size), size), multiple=multiple)


def _save(
    model: nn.Module,
    folder: Path,
    training: dict[str, Any],
    arguments: Arguments,
    overrides: Mapping[str, Any],
    train: ImageSet,
    held_out: ImageSet,
    command: str,
) -> None:
    from perception.checkpoint import SavedClassifier, save_classifier

    saved = SavedClassifier(
        model=model,
        backbone=arguments.backbone,
        overrides=overrides,
        tasks=train.tasks,
        size=training["size"],
        mean=training["mean"],
        std=training["std"],
        scores=scores_with_intervals(training["held_out"]),
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    name = f"{arguments.backbone}, {parameters:,} parameters"
    save_classifier(folder, saved, card(name, saved.scores, training, train, held_out, command))


def scores_with_intervals(held_out: Mapping[str, Any]) -> dict[str, Any]:
    """Held-out scores, each with its 95% Wilson interval over images."""
    tasks = {
        task: {**score, "accuracy_ci95": list(wilson_interval(score["right"], score["n"]))}
        for task, score in held_out["tasks"].items()
    }
    return {**held_out, "tasks": tasks}


def card(
    name: str,
    scores: Mapping[str, Any],
    training: Mapping[str, Any],
    train: ImageSet,
    held_out: ImageSet,
    command: str,
) -> str:
    """The model card, in Markdown."""
    height, width = training["size"]
    lines = [
        "# Classifier of images",
        "",
        f"{name}, for images of {height} x {width} pixels. Trained with Decisive.",
        "",
        "## Data",
        "",
        f"- learned from {len(train):,} {_things(train)}: {train.source}",
        f"- scored by {len(held_out):,} {_things(held_out)}: {held_out.source}",
        *(f"- {task}: {', '.join(classes)}" for task, classes in train.tasks.items()),
        "",
        *command_lines(command, training),
        "## Scores",
        "",
        *(_score_line(task, score) for task, score in scores["tasks"].items()),
        "",
        "The held-out images chose no checkpoint. Intervals are over images, at 95%.",
        "",
        "## Limits",
        "",
        "Knows the classes above only, and gives one of them to whatever it sees. Images unlike "
        "the data above (light, camera, scale, background) may be told wrongly with confidence.",
        *(
            ["What it learned from is synthetic; no real image was seen."]
            if _synthetic(train)
            else []
        ),
        *(["It reads clips, which `SavedClassifier.tensor` does not."] if train.is_clips else []),
        "",
    ]
    return "\n".join(lines)


def _things(data: ImageSet) -> str:
    kind = "clips" if data.is_clips else "images"
    return f"synthetic {kind}" if _synthetic(data) else kind


def _synthetic(data: ImageSet) -> bool:
    return bool(data.facts.get("synthetic")) or data.source.lower().startswith("synthetic")


def _score_line(task: str, score: Mapping[str, Any]) -> str:
    low, high = score["accuracy_ci95"]
    return (
        f"- {task}: {100 * score['accuracy']:.1f}% of {score['n']:,} "
        f"(95% interval {100 * low:.1f} to {100 * high:.1f})"
    )


def _report(arguments: Arguments, result: ClassifierResult) -> None:
    scores = scores_with_intervals(result.scores.plain())
    if arguments.json:
        told = {**asdict(result), "scores": scores, "folder": str(result.folder)}
        print(json.dumps(told, indent=2))
        return
    print(f"{result.step} steps in {result.cpu_seconds:.1f} CPU-seconds")
    for task, score in scores["tasks"].items():
        print(_score_line(task, score).removeprefix("- "))
    print(result.folder)
