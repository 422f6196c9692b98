"""`decisive train mural`: one embedding for images and texts in many languages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from decisive import provenance
from decisive.arguments import Flag, parse
from decisive.model_card import command_lines
from decisive.options import constructor_parameters, merged, nested_options, typed_options

if TYPE_CHECKING:
    from learning.bitext import Bitext
    from perception.mural.checkpoint import SavedMural
    from perception.mural.model import DualEncoder
    from perception.mural.train_config import MuralTrainConfig
    from perception.mural.training import MuralData, MuralResult

DEFAULT_STEPS = 3000
BITEXTS = ("en-de", "en-fr", "en-cs", "en-zh")
"""Pairs of languages: Multi30k's three, and XL-R2R."""
Setting = Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=VALUE")]


@dataclass(frozen=True)
class Arguments:
    r"""Train one embedding for images and texts in many languages (MURAL).

    Each step takes a batch of images with captions and a batch of translations; the text tower is
    shared, so that words of a language without captions come to lie where the images are. Images
    are folders of `decisive data render-captions`; translations are Multi30k (en-de, en-fr, en-cs)
    and XL-R2R (en-zh) in the folder that DECISIVE_DATA names. A run that was stopped goes on when
    the same command is given again. FOLDER/last is the checkpoint, with a model card.

    Examples:
      decisive data render-captions --out outputs/captions/train
      decisive data render-captions --out outputs/captions/validation --split validation \
        --images 500
      decisive train mural --images outputs/captions/train --held-out outputs/captions/validation \
        --cpu-minutes 20 --out outputs/mural
      decisive train mural --images outputs/captions/train --held-out outputs/captions/validation \
        --bitext none --set-train weights.text_text=0 --steps 2000 --out outputs/images-only
    """

    images: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Captioned images to learn from."""
    held_out: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Captioned images to be scored by."""
    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Folder of the run."""
    bitext: Annotated[str, tyro.conf.arg(metavar="A,B,C")] = ",".join(BITEXTS)
    """Translations to learn from: en-de, en-fr, en-cs, en-zh; or none."""
    size: Annotated[str, tyro.conf.arg(metavar="NAME")] = "small"
    """Shape of the network: small or paper."""
    set_model: Setting = ()
    """Setting of the network, such as width=256, loss=sigmoid or text.layers=2; once for each."""
    set_train: Setting = ()
    """Setting of the training, such as lr=0.001 or weights.text_text=0.5; once for each."""
    cpu_minutes: float | None = None
    """Budget in CPU-minutes of training steps (wall minutes on a GPU)."""
    steps: int | None = None
    """Budget in steps; 3000 where none is given."""
    seed: int = 0
    """Seed of weights, order and crops."""
    half: Flag = False
    """Write weights with 16 bits, half the size."""
    fresh: Flag = False
    """Start afresh instead of going on with what is in the folder."""
    json: Flag = False
    """Print one JSON object instead of lines."""


def main(argv: Sequence[str]) -> int:
    """Run the verb with the words after `mural`."""
    arguments = parse(Arguments, argv, "train mural")
    names = read_bitexts(arguments.bitext)

    from learning.caption_set import open_caption_set
    from perception.mural.training import MuralData, train_mural

    data = MuralData(
        open_caption_set(arguments.images),
        open_caption_set(arguments.held_out),
        open_bitexts(names, "train"),
        open_bitexts(names, "validation"),
    )
    config = _config(arguments)
    model = build(arguments.size, nested_options(arguments.set_model), arguments.seed)
    command = provenance.command("train", ["mural", *argv])

    def save(saved: SavedMural, folder: Path, training: dict[str, Any]) -> None:
        from perception.mural.checkpoint import save_mural

        save_mural(folder, saved, card(saved, training, data, command), arguments.half)

    result = train_mural(
        model,
        data,
        config,
        arguments.out,
        resume=not arguments.fresh,
        save=save,
        progress=False if arguments.json else None,
    )
    _report(arguments, result)
    return 0


def read_bitexts(text: str) -> tuple[str, ...]:
    """Names of pairs of languages.

    Raises:
        ValueError: for others, or one twice.
    """
    names = tuple(word.strip() for word in text.split(",") if word.strip())
    if names == ("none",):
        return ()
    unknown = [name for name in names if name not in BITEXTS]
    if unknown or len(set(names)) < len(names) or not names:
        raise ValueError(f"--bitext must be none or some of {', '.join(BITEXTS)}, got {text!r}")
    return names


def open_bitexts(names: Sequence[str], split: str) -> list[Bitext]:
    """Translations by name; of XL-R2R, `validation` is `val_seen`."""
    from learning.bitext import multi30k, xl_r2r

    return [
        xl_r2r("val_seen" if split == "validation" else split)
        if name == "en-zh"
        else multi30k(name.removeprefix("en-"), split)
        for name in names
    ]


def build(size: str, changes: Mapping[str, Any], seed: int) -> DualEncoder:
    """A dual encoder of a named shape with changed settings.

    Raises:
        ValueError: for an unknown shape, or settings that do not fit.
    """
    import torch

    from perception.mural.checkpoint import read_config
    from perception.mural.model import SIZES, DualEncoder

    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}; known: {', '.join(SIZES)}")
    try:
        config = read_config(merged(asdict(SIZES[size]), changes))
    except TypeError as error:
        raise ValueError(f"settings of {size} do not fit: {error}") from None
    torch.manual_seed(seed)
    return DualEncoder(config)


def _config(arguments: Arguments) -> MuralTrainConfig:
    from perception.mural.losses import TaskWeights
    from perception.mural.train_config import MuralTrainConfig

    settings: dict[str, Any] = {
        "steps": arguments.steps,
        "cpu_seconds": None if arguments.cpu_minutes is None else 60 * arguments.cpu_minutes,
        "seed": arguments.seed,
    }
    if arguments.steps is None and arguments.cpu_minutes is None:
        settings["steps"] = DEFAULT_STEPS
    weights = [word for word in arguments.set_train if word.strip().startswith("weights.")]
    plain = [word for word in arguments.set_train if word not in weights]
    if weights:
        known = constructor_parameters(TaskWeights)
        stripped = [word.strip().removeprefix("weights.") for word in weights]
        settings["weights"] = TaskWeights(**typed_options(stripped, known, "weight"))
    known = constructor_parameters(MuralTrainConfig)
    settings |= typed_options(plain, known, "training setting")
    return MuralTrainConfig(**settings)


def card(saved: SavedMural, training: Mapping[str, Any], data: MuralData, command: str) -> str:
    """The model card, in Markdown."""
    config, scores = saved.model.config, training["held_out"]
    parameters = sum(parameter.numel() for parameter in saved.model.parameters())
    without = [name for name in saved.languages if name not in saved.captioned]
    lines = [
        "# One embedding for images and texts",
        "",
        f"MURAL's objective at small scale: {parameters:,} parameters, text tower over hashed "
        f"character n-grams with a transformer of {_layers(config.text.layers)}, image tower "
        f"{config.backbone} at {config.size} pixels, embeddings of {config.width} numbers. Trained "
        "with Decisive.",
        "",
        "## Data",
        "",
        f"- {len(data.images):,} images with captions in {', '.join(saved.captioned)}: "
        f"{data.images.source}",
        *(f"- {len(texts):,} pairs {texts.name}: {texts.source}" for texts in data.bitexts),
        f"- scored by {len(data.held_images):,} images of other scenes"
        + ("".join(f", {len(t):,} pairs {t.name}" for t in data.held_bitexts)),
        "",
        *command_lines(command, training),
        "## Scores",
        "",
        *(f"- {line}" for line in score_lines(scores)),
        "",
        "Mean recall is the mean of R@1, R@5 and R@10 in both directions, on validation data, of "
        "one training.",
        "",
        "## Limits",
        "",
        "Knows what its data show: rendered rooms and tables, synthetic, with captions from "
        f"templates; no photograph was seen. Captions in {', '.join(saved.captioned)} only"
        + (f"; {', '.join(without)} were learned from translations alone." if without else ".")
        + " Texts in other languages get an embedding that means nothing. Not a safety function.",
        "",
    ]
    return "\n".join(lines)


def _layers(n: int) -> str:
    return f"{n} layer" if n == 1 else f"{n} layers"


def score_lines(scores: Mapping[str, float]) -> list[str]:
    """Held-out mean recalls in words, one a line."""
    return [
        f"{'images and ' if name.startswith('images-') else ''}"
        f"{name.removeprefix('images-')}: mean recall {100 * value:.1f}%"
        for name, value in scores.items()
    ]


def _report(arguments: Arguments, result: MuralResult) -> None:
    if arguments.json:
        told = {
            "step": result.step,
            "scores": result.scores,
            "cpu_seconds": result.cpu_seconds,
            "folder": str(result.folder),
        }
        print(json.dumps(told, indent=2))
        return
    print(f"{result.step} steps in {result.cpu_seconds:.1f} CPU-seconds")
    for line in score_lines(result.scores):
        print(line)
    print(result.folder)
