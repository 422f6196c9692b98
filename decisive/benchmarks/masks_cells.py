"""Cells of `decisive benchmark masks`: their scenes, their trainings, and what is kept of them."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from decisive import provenance
from decisive.benchmarks.cells import read_cell
from decisive.benchmarks.masks_arms import (
    HEADS,
    QUALITIES,
    Arm,
    Cell,
    CocoArm,
    Recipe,
    build,
    config_of,
    masked_classes,
)
from decisive.benchmarks.masks_scores import (
    Given,
    Values,
    box_quality,
    class_iou,
    conditions,
    filled_ious,
    instance_ious,
    stored,
)
from decisive.benchmarks.vision import multiply_adds
from learning.atomic import write_file
from learning.instance_set import InstanceSet, Scene, open_instance_set
from perception.deep_mac.checkpoint import SavedSegmenter, load_segmenter, save_segmenter
from perception.deep_mac.evaluation import Normalise
from perception.deep_mac.heads import create_mask_head
from perception.deep_mac.instances import Segmenter

COCO_QUALITIES = (0.7,)
CROP_CHANNELS = 50
"""Of the crops that heads are counted for, Deep-MAC's."""


@dataclass(frozen=True)
class Bench:
    """A form of the benchmark and where it keeps its files.

    Attributes:
        recipe: how much is rendered and trained.
        results: folder of one JSON file a cell; these are committed.
        work: folder of scenes and trainings; these can be made again.
        workers: processes that render.
    """

    recipe: Recipe
    results: Path
    work: Path
    workers: int = 1

    def run(self, cell: Cell) -> Path:
        """Folder of a training; another plan has another one."""
        plan = json.dumps(cell.plan(self.recipe), sort_keys=True)
        digest = hashlib.sha256(plan.encode()).hexdigest()[:8]
        return self.work / "runs" / f"{cell.file.removesuffix('.json')}-{digest}"

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """What a cell gave; None if it was not run.

        Raises:
            ValueError: if the file is of another plan, or no JSON.
        """
        return read_cell(self.results / cell.file, cell.plan(self.recipe))

    def complete(self, cell: Cell) -> None:
        """Train and score a cell, after the one that it starts from, and write its result."""
        if isinstance(cell.arm, CocoArm) and cell.arm.start == "scenes":
            source = Cell(cell.arm.source, cell.seed)
            if not (self.run(source) / "last").is_dir():
                self.complete(source)
        result = run_cell(cell, self)
        if self.result(cell) is None:
            write_file(self.results / cell.file, compact(result).encode())


class InMemory(InstanceSet):
    """Scenes that are read once."""

    def __init__(self, data: InstanceSet) -> None:
        """Read them all."""
        self.classes, self.source, self.facts = data.classes, data.source, data.facts
        self._scenes = list(data)

    def __len__(self) -> int:
        """Number of scenes."""
        return len(self._scenes)

    def __getitem__(self, k: int) -> Scene:
        """Scene k."""
        return self._scenes[k]


def rendered(bench: Bench, split: Literal["train", "test"], frames: int) -> InstanceSet:
    """Synthetic scenes, rendered if they are not there."""
    from decisive.render_instances import Arguments, render

    size = bench.recipe.size
    folder = bench.work / "scenes" / f"{split}-{frames}-{size}px"
    if not folder.is_dir():
        print(f"rendering {frames} scenes: {folder}", file=sys.stderr)
        words = Arguments(str(folder), frames, size, split, workers=bench.workers)
        render(words, folder)
    found = open_instance_set(folder)
    told = (found.facts.get("split"), found.facts.get("size"), len(found))
    if told != (split, size, frames):
        raise ValueError(f"{folder} holds other scenes, {told}; remove it")
    return found


def sets(cell: Cell, bench: Bench) -> tuple[InstanceSet, InstanceSet]:
    """What a cell learns from and what it is scored by.

    Raises:
        ValueError: if the photographs are not there.
    """
    recipe = bench.recipe
    if isinstance(cell.arm, Arm):
        return rendered(bench, "train", recipe.scenes), rendered(bench, "test", recipe.test_scenes)
    from learning.coco_polygons import open_coco_polygons

    size = (recipe.coco_size, recipe.coco_size)
    train, held_out = (open_coco_polygons(None, s, size) for s in ("train2017", "val2017"))
    return InMemory(train), InMemory(held_out)


def run_cell(cell: Cell, bench: Bench) -> dict[str, Any]:
    """Train a cell and score it; a training that was stopped goes on where it was."""
    from perception.deep_mac.training import train_segmenter

    torch.set_num_threads(1)
    began = time.process_time()
    train, held_out = sets(cell, bench)
    config = config_of(cell, bench.recipe, train.classes)
    unseen = [name for name in train.classes if name not in (config.masked_classes or ())]
    kinds = torch.tensor([int(kind) for scene in held_out for kind in scene.classes]).numpy()

    def mean(values: Values) -> dict[str, float]:
        return _rounded(class_iou(values, kinds, held_out.classes, unseen))

    model = build(cell.arm, len(train.classes), cell.seed)
    before = _take_over(cell, bench, model, held_out, mean)
    result = train_segmenter(
        model, train, held_out, config, bench.run(cell), save=_saver(cell, train), progress=False
    )
    given = conditions(QUALITIES if isinstance(cell.arm, Arm) else COCO_QUALITIES)
    normalise = normaliser(result.mean, result.std)
    ious = instance_ious(model, normalise, held_out, given)
    return {
        "plan": cell.plan(bench.recipe),
        "source": held_out.source,
        "given_boxes": mean(ious[Given()]),
        "found": _rounded(result.scores.get("found", {})),
        "by_box_quality": box_quality(ious, mean),
        "filled_boxes": mean(filled_ious(held_out)),
        **before,
        "instances": stored(ious, held_out),
        "classes": list(held_out.classes),
        "unseen": unseen,
        "head": head_size(cell.arm.head),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": result.step,
        "mask_loss": round(result.history[-1]["loss/mask"], 4) if result.history else None,
        "cpu_seconds": round(result.cpu_seconds, 1),
        # Of this sitting, scores included: a cell that was stopped before cost more.
        "total_cpu_seconds": round(time.process_time() - began, 1),
        "machine": provenance.machine(),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }


def _take_over(
    cell: Cell,
    bench: Bench,
    model: Segmenter,
    held_out: InstanceSet,
    mean: Callable[[Values], dict[str, float]],
) -> dict[str, Any]:
    """Begin with the network of another cell, if the arm says so, and score that as it is."""
    from decisive.train_segmenter import take_weights

    arm = cell.arm
    if not (isinstance(arm, CocoArm) and arm.start == "scenes"):
        return {}
    source = load_segmenter(bench.run(Cell(arm.source, cell.seed)))
    normalise = normaliser(source.mean, source.std)
    ious = instance_ious(source.model, normalise, held_out, conditions(COCO_QUALITIES))
    take_weights(model, source.model)
    return {
        "before": {"given_boxes": mean(ious[Given()]), "by_box_quality": box_quality(ious, mean)}
    }


def _saver(cell: Cell, train: InstanceSet) -> Callable[[Segmenter, Path, dict[str, Any]], None]:
    def save(model: Segmenter, folder: Path, training: dict[str, Any]) -> None:
        if training["step"] < training["train"]["steps"]:
            return  # Only what is finished is started from.
        saved = SavedSegmenter(
            model=model,
            architecture="deep_marc" if cell.name.startswith("deep-marc") else "deep_mac",
            classes=tuple(train.classes),
            size=training["size"],
            mean=training["mean"],
            std=training["std"],
            masked_classes=tuple(k for k in train.classes if k not in training["unseen"]),
            scores=training["held_out"],
        )
        card = f"# Instance masks\n\n{cell.name} of `decisive benchmark masks`.\n\n{train.source}\n"
        save_segmenter(folder, saved, card)

    return save


def normaliser(mean: Iterable[float], std: Iterable[float]) -> Normalise:
    """From pictures from 0 to 1 to what a network takes."""
    means, stds = (torch.tensor(list(values)).view(3, 1, 1) for values in (mean, std))

    def normalise(images: Tensor) -> Tensor:
        return ((images - means) / stds).contiguous(memory_format=torch.channels_last)

    return normalise


def head_size(name: str) -> dict[str, int]:
    """Parameters of a head, and its multiply-adds for one crop of 32 x 32 cells."""
    with torch.device("meta"):
        head = create_mask_head(HEADS[name], CROP_CHANNELS)
        crop = torch.empty(1, CROP_CHANNELS, 32, 32)
    return {
        "parameters": sum(parameter.numel() for parameter in head.parameters()),
        "multiply_adds": multiply_adds(head, crop),
    }


def compact(result: dict[str, Any]) -> str:
    """JSON with lists on one line: a thousand instances should not take a thousand lines."""
    text = json.dumps(result, indent=1, allow_nan=False)
    return re.sub(r"\[[^\[\]{}]*\]", lambda found: " ".join(found[0].split()), text) + "\n"


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 5) for name, value in values.items()}


__all__ = ["Bench", "InMemory", "compact", "head_size", "masked_classes", "run_cell", "sets"]
