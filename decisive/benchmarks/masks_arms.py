"""The trainings of `decisive benchmark masks`: detectors, mask heads, and what is learned from.

The core form is such that three seeds take about four hours of one core. CPU-times of training
steps of 8 scenes of 128 pixels, measured on a busy one: 0.11 s (resnet-4) to 0.21 s (hourglass-52)
for Deep-MAC, 0.22 s to 0.33 s for Deep-MARC.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from perception.deep_mac.heads import MaskHeadConfig
from perception.deep_mac.instances import MaskTraining, Segmenter, Targets
from perception.deep_mac.network import DEEP_MACS, DeepMac
from perception.deep_mac.two_stage import DEEP_MARCS, DeepMarc

if TYPE_CHECKING:
    from perception.deep_mac.train_config import SegmenterTrainConfig

Masked = Literal["half", "other-half", "all"]
Crops = Literal["ground-truth", "proposal"]
Start = Literal["scenes", "random"]

MODELS = {"deep-mac": "deep_mac_small", "deep-marc": "deep_marc_small"}
"""Of each detector."""
HEADS = {
    "resnet-4": MaskHeadConfig("resnet", 4, 16),
    "resnet-4-wide": MaskHeadConfig("resnet", 4, 25),
    "hourglass-20": MaskHeadConfig("hourglass", 20, 16),
    "hourglass-52": MaskHeadConfig("hourglass", 52, 16),
    "resnet-4-widest": MaskHeadConfig("resnet", 4, 52),
}
"""By name. The wide one multiplies as often as hourglass-20, the widest has as many parameters;
both within 1 %, of Deep-MAC's crops of 50 channels."""
JITTER = 0.1
"""Of the trainings for loose boxes."""
QUALITIES = (0.9, 0.8, 0.7, 0.6, 0.5)
"""IoU of given boxes with the true ones."""


@dataclass(frozen=True)
class Recipe:
    """How much is rendered and trained.

    Attributes:
        scenes: to learn from.
        test_scenes: to be scored by.
        size: pixels of a side of scenes.
        steps: of 8 scenes.
        coco_steps: of 8 photographs.
        coco_size: pixels of a side that photographs are letterboxed to.
    """

    scenes: int = 1000
    test_scenes: int = 100
    size: int = 128
    steps: int = 800
    coco_steps: int = 200
    coco_size: int = 224


CORE = Recipe()
FULL = Recipe(scenes=8000, test_scenes=500, steps=10_000, coco_steps=1000)


@dataclass(frozen=True)
class Arm:
    """A training on rendered scenes, but for its seed.

    Attributes:
        detector: of `MODELS`.
        masked: classes whose masks are learned from: every second, all others, or all.
        crops: boxes that masks are learned in.
        head: of `HEADS`.
        jitter: of ground-truth boxes.
    """

    detector: str
    masked: Masked
    crops: Crops
    head: str
    jitter: float = 0.0

    @property
    def name(self) -> str:
        """Of the arm."""
        crops = f"{self.crops}-jitter" if self.jitter else self.crops
        return f"{self.detector}/{self.masked}/{crops}/{self.head}"


@dataclass(frozen=True)
class CocoArm:
    """A training of masks on photographs, of every second class; the detector learns nothing.

    Attributes:
        start: from the network of the arm on scenes that learned in ground-truth boxes from half
            of the classes, or from random weights.
        head: of `HEADS`, on Deep-MAC.
    """

    start: Start
    head: str

    @property
    def name(self) -> str:
        """Of the arm."""
        return f"coco/{self.start}/{self.head}"

    @property
    def source(self) -> Arm:
        """Whose network it starts from."""
        return Arm("deep-mac", "half", "ground-truth", self.head)


@dataclass(frozen=True)
class Cell:
    """An arm and a seed."""

    arm: Arm | CocoArm
    seed: int

    @property
    def name(self) -> str:
        """Of the cell."""
        return f"{self.arm.name}/{self.seed}"

    @property
    def file(self) -> str:
        """Name of the file of its result."""
        return self.name.replace("/", "--") + ".json"

    def plan(self, recipe: Recipe) -> dict[str, Any]:
        """Everything that decides the result, JSON values."""
        told: dict[str, Any] = {"arm": asdict(self.arm), "seed": self.seed, **asdict(recipe)}
        if isinstance(self.arm, CocoArm):
            if self.arm.start == "random":
                for name in ("scenes", "steps", "size"):
                    del told[name]
            del told["test_scenes"]
        else:
            del told["coco_steps"], told["coco_size"]
        return told | {"qualities": list(QUALITIES)}


def arms(full: bool = False) -> tuple[Arm | CocoArm, ...]:
    """All arms in the order in which they are run, those that tell most first.

    Args:
        full: with more heads, jitters and halves than the core form.
    """
    core = tuple(dict.fromkeys(_core_arms()))
    return tuple(dict.fromkeys((*core, *_more_arms()))) if full else core


def _core_arms() -> Iterator[Arm | CocoArm]:
    both: tuple[Crops, ...] = ("ground-truth", "proposal")
    for heads in (("resnet-4", "hourglass-52"), ("resnet-4-wide", "hourglass-20")):
        yield from (Arm("deep-mac", "half", crops, head) for crops in both for head in heads)
    ends = ("resnet-4", "hourglass-52")
    yield from (Arm("deep-mac", "half", "ground-truth", head, JITTER) for head in ends)
    yield from (CocoArm(start, head) for head in ends for start in ("scenes", "random"))
    yield from (
        Arm("deep-mac", "all", "ground-truth", head)
        for head in ("resnet-4", "hourglass-52", "hourglass-20")
    )
    yield from (Arm("deep-marc", "half", crops, head) for crops in both for head in ends)


def _more_arms() -> Iterator[Arm | CocoArm]:
    both: tuple[Crops, ...] = ("ground-truth", "proposal")
    halves: tuple[Masked, ...] = ("half", "other-half", "all")
    for detector in MODELS:
        for masked in halves:
            yield from (Arm(detector, masked, crops, head) for crops in both for head in HEADS)
        yield from (Arm(detector, "half", "ground-truth", head, JITTER) for head in HEADS)
    yield from (CocoArm(start, head) for head in HEADS for start in ("scenes", "random"))


def masked_classes(classes: Sequence[str], masked: Masked) -> tuple[str, ...]:
    """Names of the classes whose masks are learned from."""
    if masked == "all":
        return tuple(classes)
    return tuple(classes[0 if masked == "half" else 1 :: 2])


class MasksOnly(DeepMac):
    """A Deep-MAC that learns masks and leaves its detector as it is.

    Of 100 photographs a detector of 80 classes learns little, and the loss of its new heat map is a
    hundred times that of the masks at first: with gradients clipped as one, masks would wait.
    """

    def losses(
        self,
        images: Tensor,
        targets: Targets,
        training: MaskTraining,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """That of the masks; see `DeepMac.losses`."""
        return {"mask": super().losses(images, targets, training, generator)["mask"]}


def build(arm: Arm | CocoArm, n_classes: int, seed: int) -> Segmenter:
    """The untrained network of an arm."""
    changes: dict[str, Any] = {"n_classes": n_classes, "head": HEADS[arm.head]}
    torch.manual_seed(seed)
    if isinstance(arm, CocoArm):
        return MasksOnly(replace(DEEP_MACS[MODELS["deep-mac"]], **changes))
    if arm.detector == "deep-mac":
        return DeepMac(replace(DEEP_MACS[MODELS[arm.detector]], **changes))
    return DeepMarc(replace(DEEP_MARCS[MODELS[arm.detector]], **changes))


def config_of(cell: Cell, recipe: Recipe, classes: Sequence[str]) -> SegmenterTrainConfig:
    """How a cell is trained."""
    from perception.deep_mac.train_config import SegmenterTrainConfig

    arm = cell.arm
    on_scenes = isinstance(arm, Arm)
    masks = MaskTraining(arm.crops, arm.jitter) if isinstance(arm, Arm) else MaskTraining()
    steps = recipe.steps if on_scenes else recipe.coco_steps
    return SegmenterTrainConfig(
        steps=steps,
        seed=cell.seed,
        masked_classes=masked_classes(classes, arm.masked if isinstance(arm, Arm) else "half"),
        masks=masks,
        device="cpu",
        tensorboard=False,
        # Held-out scenes are for the end.
        validate_every=steps,
        validate_samples=8,
        log_every=min(100, steps),
        save_every=250,
    )
