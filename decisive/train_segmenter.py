"""`decisive train segmenter`: a network of instance masks from scenes."""

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
from decisive.options import constructor_parameters, merged, nested_options, typed_options

if TYPE_CHECKING:
    from torch import nn

    from learning.instance_set import InstanceSet
    from perception.deep_mac.instances import Segmenter
    from perception.deep_mac.train_config import SegmenterTrainConfig
    from perception.deep_mac.training import SegmenterResult

DEFAULT_STEPS = 5000
COCO = "coco128"
_COCO_SIZE = 320
Sets = Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="FOLDER|JSON")]
Setting = Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=VALUE")]


@dataclass(frozen=True)
class Arguments:
    r"""Train a network that finds things and their masks, and masks the boxes of any detector.

    Masks may be learned from some classes only (--masked-classes): boxes of all classes teach the
    detector, and the mask head, which knows no classes, has to do for the others. For those, the
    boxes of the labels are the better school (--crops ground-truth), and hourglass-52 the better
    head (docs/results.md). Such heads want tight boxes; --jitter trains them for loose ones.

    --data is a folder of `decisive data render-instances`, or several, or a file of COCO
    annotations (.json) with its pictures beside it, or coco128 in the folder that DECISIVE_DATA
    names, whose other half is then held out. In COCO annotations an instance may have a box and no
    mask: it then teaches the detector only. A run that was stopped goes on when the same command is
    given again. FOLDER/last is the checkpoint, with a model card; held-out scores are those of the
    averaged weights, over classes with and without masks in training.

    Examples:
      decisive data render-instances --out outputs/scenes --frames 2000
      decisive data render-instances --out outputs/scenes-test --frames 200 --split test
      decisive train segmenter --data outputs/scenes --held-out outputs/scenes-test \
        --masked-classes duck,mug,ball,ring,cube,block --head hourglass-20 --cpu-minutes 30 \
        --out outputs/masks
      decisive train segmenter --data coco128 --start-from outputs/masks --steps 500 \
        --out outputs/masks-coco
      decisive train segmenter --data labels/train.json --held-out labels/test.json --size 320 \
        --start-from tabletop-deep-mac --cpu-minutes 20 --out outputs/masks-own
      decisive train segmenter --data outputs/scenes --data outputs/insertion --size 256x192 \
        --held-out outputs/scenes-test --held-out outputs/insertion-test --out outputs/joint
      decisive view --boxes --checkpoint outputs/masks --image photo.png
    """

    data: Sets
    """Scenes to learn from: a folder or COCO's annotations, once for each, or coco128."""
    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Folder of the run."""
    held_out: Sets = ()
    """Scenes to be scored by, once for each; the held-out half of coco128 if not given."""
    model: str = "deep_mac_small"
    """Network: deep_mac_mini, deep_mac_small, deep_marc_small, ..."""
    head: OptionalText = None
    """Mask head, such as hourglass-52 or resnet-4; the network's own if not given."""
    masked_classes: Annotated[OptionalText, tyro.conf.arg(metavar="A,B,C")] = None
    """Classes whose masks are learned from; all if not given."""
    crops: Literal["ground-truth", "proposal", "both"] = "ground-truth"
    """Boxes that masks are learned in: of the labels, of the detector, or one half each."""
    jitter: float = 0.0
    """Largest shift of a side of the labels' boxes, as a share of it; 0.1 bears looser boxes."""
    start_from: Annotated[OptionalText, tyro.conf.arg(metavar="NAME|FOLDER")] = None
    """Checkpoint whose weights are taken over where they fit; heads of other classes start anew."""
    set_model: Setting = ()
    """Setting of the network, such as width=64 or head.width=32; once for each."""
    set_train: Setting = ()
    """Setting of the training, such as batch_size=16 or flip=false; once for each."""
    size: Annotated[OptionalText, tyro.conf.arg(metavar="N|WxH")] = None
    """Pixels a side, or width x height, that pictures are letterboxed to; their own if not given,
    320 of photographs (COCO's)."""
    cpu_minutes: Annotated[float | None, tyro.conf.arg(aliases=("--minutes",))] = None
    """Budget in CPU-minutes of training steps (wall minutes on a GPU)."""
    steps: int | None = None
    """Budget in steps; 5000 where none is given."""
    seed: int = 0
    """Seed of weights, order and augmentation."""
    fresh: Flag = False
    """Start afresh instead of going on with what is in the folder."""
    json: Flag = False
    """Print one JSON object instead of lines."""


def main(argv: Sequence[str]) -> int:
    """Run the verb with the words after `segmenter`."""
    arguments = parse(Arguments, argv, "train segmenter")
    if not arguments.data:
        raise ValueError("name scenes to learn from: --data FOLDER or --data FILE.json")
    if not arguments.held_out and arguments.data != (COCO,):
        raise ValueError("name scenes to be scored by: --held-out FOLDER or --held-out FILE.json")
    size = read_size(arguments.size)

    from perception.deep_mac.training import train_segmenter

    train = _open(arguments.data, size)
    held_out = _open(arguments.held_out or arguments.data, size, scored_as=train.classes)
    config = _config(arguments, size)
    model, architecture = _model(arguments, len(train.classes))
    command = provenance.command("train", ["segmenter", *argv])

    def save(model: Segmenter, folder: Path, training: dict[str, Any]) -> None:
        _save(model, architecture, folder, training, arguments, train, held_out, command)

    result = train_segmenter(
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


def read_size(text: str | None) -> tuple[int, int] | None:
    """Height and width of `N` or `WxH`; None stays None.

    Raises:
        ValueError: for anything else.
    """
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise ValueError(f"--size must be pixels such as 256, or 256x192, got {text!r}")
    return int(sides[-1]), int(sides[0])


def _open(
    names: Sequence[str],
    size: tuple[int, int] | None,
    *,
    scored_as: Sequence[str] | None = None,
) -> InstanceSet:
    """What is named, to learn from or, with the classes of what was learned, to be scored by."""
    from learning.coco_annotations import SUFFIX, CocoAnnotations
    from learning.coco_polygons import open_coco_polygons
    from learning.instance_set import JoinedInstances, open_instance_set

    scored = scored_as is not None
    photographs = size or (_COCO_SIZE, _COCO_SIZE)

    def one(name: str) -> InstanceSet:
        if name == COCO:
            return open_coco_polygons(split="val2017" if scored else "train2017", size=photographs)
        if name.endswith(SUFFIX):
            return CocoAnnotations(name, photographs, masks=scored)
        return open_instance_set(name)

    sets = [one(name) for name in names]
    if len(sets) == 1 and scored_as in (None, sets[0].classes):
        return sets[0]
    return JoinedInstances(sets, scored_as)


def _config(arguments: Arguments, size: tuple[int, int] | None) -> SegmenterTrainConfig:
    from perception.deep_mac.instances import MaskTraining
    from perception.deep_mac.train_config import SegmenterTrainConfig

    named = arguments.masked_classes
    settings: dict[str, Any] = {
        "steps": arguments.steps,
        "cpu_seconds": None if arguments.cpu_minutes is None else 60 * arguments.cpu_minutes,
        "seed": arguments.seed,
        "size": size,
        "masks": MaskTraining(arguments.crops, arguments.jitter),
        "masked_classes": None if named is None else tuple(_words(named)),
    }
    if arguments.steps is None and arguments.cpu_minutes is None:
        settings["steps"] = DEFAULT_STEPS
    known = constructor_parameters(SegmenterTrainConfig)
    settings |= typed_options(arguments.set_train, known, "training setting")
    return SegmenterTrainConfig(**settings)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _model(arguments: Arguments, n_classes: int) -> tuple[Segmenter, str]:
    """The network and the name of its architecture."""
    import torch

    from perception.deep_mac.checkpoint import ARCHITECTURES, load_segmenter, read_config
    from perception.deep_mac.heads import resolve_mask_head
    from perception.deep_mac.network import DEEP_MACS
    from perception.deep_mac.two_stage import DEEP_MARCS

    known: dict[str, Any] = {**DEEP_MACS, **DEEP_MARCS}
    if arguments.model not in known:
        raise ValueError(f"unknown network {arguments.model!r}; known: {', '.join(known)}")
    config = replace(known[arguments.model], n_classes=n_classes)
    if arguments.head is not None:
        # Named heads are as wide as the paper's; what is chosen here is the kind and the depth.
        chosen = resolve_mask_head(arguments.head)
        own = config.head
        config = replace(config, head=replace(chosen, width=own.width, norm=own.norm))
    changes = nested_options(arguments.set_model)
    if changes.get("backbone", config.backbone) != config.backbone:
        config = replace(config, backbone_options={})  # those of another one
    values = merged(asdict(config), changes)
    try:
        config = read_config(type(config), values)
    except TypeError as error:
        raise ValueError(f"settings of {arguments.model} do not fit: {error}") from None
    architecture, create = next(
        (name, create) for name, (kind, create) in ARCHITECTURES.items() if isinstance(config, kind)
    )
    torch.manual_seed(arguments.seed)
    model = create(config)
    if arguments.start_from is not None:
        anew = take_weights(model, load_segmenter(arguments.start_from).model)
        if not arguments.json:
            n = len(model.state_dict())
            print(f"{n - len(anew)} of {n} tensors taken over from {arguments.start_from}")
    return model, architecture


def take_weights(model: nn.Module, source: nn.Module) -> list[str]:
    """Copy the weights of another network that have the same names and shapes.

    Returns:
        names of those that start anew, such as of heads for other classes.

    Raises:
        ValueError: if nothing fits.
    """
    own, given = model.state_dict(), source.state_dict()
    fitting = {
        name: given[name] for name in own if name in given and given[name].shape == own[name].shape
    }
    if not fitting:
        raise ValueError("no weights of --start-from fit; name the same --model and settings")
    model.load_state_dict({**own, **fitting})
    return [name for name in own if name not in fitting]


def _save(
    model: Segmenter,
    architecture: str,
    folder: Path,
    training: dict[str, Any],
    arguments: Arguments,
    train: InstanceSet,
    held_out: InstanceSet,
    command: str,
) -> None:
    from perception.deep_mac.checkpoint import SavedSegmenter, save_segmenter

    saved = SavedSegmenter(
        model=model,
        architecture=architecture,
        classes=tuple(train.classes),
        size=training["size"],
        mean=training["mean"],
        std=training["std"],
        masked_classes=tuple(k for k in train.classes if k not in training["unseen"]),
        scores=training["held_out"],
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    head = model.config.head
    name = f"{arguments.model}, mask head {head.name} {head.width} wide, {parameters:,} parameters"
    save_segmenter(folder, saved, card(name, training, train, held_out, command))


def card(
    name: str,
    training: Mapping[str, Any],
    train: InstanceSet,
    held_out: InstanceSet,
    command: str,
) -> str:
    """The model card, in Markdown."""
    height, width = training["size"]
    masks, unseen = training["train"]["masks"], training["unseen"]
    masked = [k for k in train.classes if k not in unseen]
    synthetic = bool(train.facts.get("synthetic"))
    lines = [
        "# Instance masks",
        "",
        f"{name}, for images letterboxed to {height} x {width} pixels. Trained with Decisive.",
        "",
        "## Data",
        "",
        f"- learned from {len(train):,} {_things(train)}: {train.source}",
        f"- scored by {len(held_out):,} {_things(held_out)}: {held_out.source}",
        f"- boxes of {len(train.classes)} classes: {', '.join(train.classes)}",
        f"- masks of {len(masked) or 'no'} classes: {', '.join(masked) or 'none'}",
        f"- masks were learned in {masks['crops']} boxes, sides moved by up to {masks['jitter']:g}",
        "",
        *command_lines(command, training),
        "## Scores",
        "",
        *(f"- {line}" for line in score_lines(training["held_out"])),
        "",
        "Means over classes, of one training. The held-out scenes chose no checkpoint.",
        "",
        "## Limits",
        "",
        "Finds the classes above only. Masks of given boxes have no class: they are of what is in "
        "the middle of a box that fits it; loose boxes and scenes unlike the data above (light, "
        "camera, scale) give worse ones.",
        *(["What it learned from is synthetic; no real image was seen."] if synthetic else []),
        "",
    ]
    return "\n".join(lines)


def _things(data: InstanceSet) -> str:
    return "synthetic scenes" if data.facts.get("synthetic") else "scenes"


def score_lines(scores: Mapping[str, Any]) -> list[str]:
    """Held-out scores in words, one a line."""
    counts = scores["instances"]
    lines = [
        f"mask IoU in true boxes, classes {_PARTS[part]} masks in training: {100 * iou:.1f}% "
        f"({counts[part]:,} instances)"
        for part, iou in scores["given_boxes"].items()
    ]
    found = scores.get("found", {})
    for name, title in (("box_ap", "box AP"), ("mask_ap", "mask AP")):
        if name in found:
            parts = [
                f"{100 * found[f'{name}_{part}']:.1f} {word}"
                for part, word in _PARTS.items()
                if f"{name}_{part}" in found
            ]
            lines.append(f"{title} of what it finds: {100 * found[name]:.1f} ({', '.join(parts)})")
    return lines


_PARTS = {"seen": "with", "unseen": "without"}


def _report(arguments: Arguments, result: SegmenterResult) -> None:
    if arguments.json:
        print(json.dumps({**asdict(result), "folder": str(result.folder)}, indent=2))
        return
    print(f"{result.step} steps in {result.cpu_seconds:.1f} CPU-seconds")
    for line in score_lines(result.scores):
        print(line)
    print(result.folder)
