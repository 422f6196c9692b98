"""The inspection line of the triage study: rendered parts, defects of training and others.

Do the heat maps point at the defect? The pointing game asks whether the largest value of a map,
enlarged to the picture as the page shows it, lies in the box around the pixels that the defect
changed. Source: Zhang et al. 2018, "Top-down Neural Attention by Excitation Backprop", section 5,
without its margin of 15 pixels. Beside it stand the middle of the picture, and a point anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from decisive.benchmarks.triage_study import ANY, BATCH, Learn, Study
from decisive.benchmarks.triage_windows import STAGES, learn_in_windows, shrunk
from decisive.statistics import wilson_interval
from decisive.triage_set import InspectionSet, open_inspection_set
from perception.checkpoint import SavedClassifier

if TYPE_CHECKING:
    from torch import nn

    from learning.image_set import ImageSet
    from perception.training import ClassifierResult

CONTROL_SIDE = 64
"""Pixels a side at which the controls are trained, to save time: an 8 x 8 thumbnail loses nothing
by it, the border some of its sharpness."""

FRAMES = {"train": 4000, "tune": 600, "test": 1600}
"""Pictures of each split that the study renders; those of training are in pairs."""


_DECIDE = ("size", "split", "seed", "abnormal", "pairs", "min_share")


def inspection_sets(
    folder: Path, frames: Mapping[str, int], size: int, workers: int
) -> dict[str, InspectionSet]:
    """The pictures of each split; what is not there is rendered.

    Raises:
        OSError: if the folder cannot be written.
    """
    from decisive.render_inspection import render
    from envs.tabletop.inspection import InspectionConfig

    found = {}
    for split, config in (
        ("train", InspectionConfig(size, "train", pairs=True)),
        ("tune", InspectionConfig(size, "tune")),
        ("test", InspectionConfig(size, "test")),
    ):
        place = folder / f"{split}-{frames[split]}"
        if not place.is_dir():
            render(config, place, frames[split], workers)
        found[split] = open_inspection_set(place)
        known = found[split].images.facts
        if any(known.get(name) != getattr(config, name) for name in _DECIDE):
            raise ValueError(f"{place} holds other pictures; name another --work, or remove it")
    return found


def inspection_study(backbone: str, side: int) -> Study:
    """What is compared on rendered parts; its epochs and learning rate are those of `STAGES`."""
    from envs.tabletop.inspection_defects import KNOWN, UNSEEN

    return Study(
        normal="sound",
        abnormal=tuple(KNOWN),
        unseen=tuple(UNSEEN),
        backbone=backbone,
        side=side,
        epochs=sum(stage.steps for stage in STAGES) * BATCH / FRAMES["train"],
        lr=STAGES[0].lr,
        overrides={"drop_path": 0.0, "dropout": 0.0},
    )


def facts_of(sets: Mapping[str, InspectionSet]) -> list[dict[str, Any]]:
    """What decides the pictures, and how they are learned from, as JSON."""
    shown = [
        {name: part.images.facts.get(name) for name in _DECIDE} | {"n": len(part)}
        for part in sets.values()
    ]
    return [*shown, {"stages": [asdict(stage) for stage in STAGES]}]


def sets_at(sets: Mapping[str, InspectionSet], side: int) -> dict[str, InspectionSet]:
    """The same pictures, smaller."""
    found = {}
    for name, part in sets.items():
        images, defects = shrunk(part.images, part.defects, side)
        found[name] = replace(part, images=images, defects=defects)
    return found


def learner(train: InspectionSet) -> Learn:
    """Trains in windows around the defects of some pictures (`triage_windows`)."""

    def learn(
        study: Study, model: nn.Module, sets: Mapping[str, ImageSet], seed: int, folder: Path
    ) -> ClassifierResult:
        return learn_in_windows(model, sets["train"], sets["tune"], train.defects, seed, folder)

    return learn


def boxes_of(masks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """`(N, 4)` x1, y1, x2, y2 around masks `(N, H, W)`, the ends excluded; -1 without pixels."""
    boxes = np.full((len(masks), 4), -1, np.int64)
    for number, mask in enumerate(masks):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows):
            boxes[number] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def peaks(maps: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.int64]:
    """`(N, 2)` x and y of the largest value of maps `(N, h, w)`, enlarged to `size`."""
    import torch
    from torch.nn import functional as F

    large = F.interpolate(
        torch.from_numpy(np.asarray(maps, np.float32))[:, None], size=size, mode="bilinear"
    )
    place = large.flatten(1).argmax(1).numpy()
    return np.column_stack([place % size[1], place // size[1]])


def is_in(points: NDArray[np.int64], boxes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """`(N,)` whether points `(N, 2)` lie in boxes `(N, 4)`."""
    return np.asarray(((points >= boxes[:, :2]) & (points < boxes[:, 2:])).all(1), bool)


def pointing_game(saved: SavedClassifier, pictures: InspectionSet, study: Study) -> dict[str, Any]:
    """How often heat maps point at the defect, by condition; JSON values.

    Args:
        saved: a classifier with exact maps.
        pictures: of the test; their defective ones are asked.
        study: whose conditions.
    """
    chosen = np.flatnonzero(pictures.conditions != 0)
    maps = maps_of(saved, pictures.images.images, chosen)
    boxes = boxes_of(pictures.defects[chosen])
    size = pictures.defects.shape[1:]
    height, width = size
    hits = is_in(peaks(maps, (height, width)), boxes)
    middle = np.tile(np.array([[width // 2, height // 2]]), (len(boxes), 1))
    center = is_in(middle, boxes)
    shares = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / (height * width)
    names = pictures.folders[chosen]
    told = {}
    for condition, folders in study.groups.items():
        rows = np.isin(names, folders)
        n = int(rows.sum())
        if not n:
            continue
        told[condition] = {
            "n": n,
            "hits": int(hits[rows].sum()),
            "ci95": list(wilson_interval(int(hits[rows].sum()), n)),
            "center_hits": int(center[rows].sum()),
            "random": float(shares[rows].mean()),
        }
    return {"pointing": told, "map_cells": list(maps.shape[1:])}


def maps_of(
    saved: SavedClassifier, images: NDArray[np.uint8], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """`(N, h, w)` abnormal maps of some pictures.

    Raises:
        ValueError: for a network whose maps are not exact.
    """
    from perception.abnormality import read

    parts = []
    for start in range(0, len(rows), 64):
        found = read(saved, saved.tensor(images[rows[start : start + 64]])).maps
        if found is None:
            raise ValueError(f"{saved.backbone} has no exact heat maps to play with")
        parts.append(found.float().numpy())
    return np.concatenate(parts)


def pointing_table(
    results: list[dict[str, Any] | None], study: Study
) -> tuple[list[str], list[list[str]]]:
    """Header and rows: hits of maps, of the middle and by chance, for each condition."""
    known = [one["pointing"] for one in results if one is not None and "pointing" in one]
    header = ["defect", "heat map in the box", "middle of the picture", "anywhere", "pictures"]
    rows = []
    for condition in study.conditions if known else ():
        told = [one[condition] for one in known]
        share = [100 * one["hits"] / one["n"] for one in told]
        low = 100 * min(one["ci95"][0] for one in told)
        high = 100 * max(one["ci95"][1] for one in told)
        first = told[0]
        rows.append([
            condition.replace("_", " "), f"{np.mean(share):.1f} [{low:.1f}, {high:.1f}] %",
            f"{100 * first['center_hits'] / first['n']:.1f} %", f"{100 * first['random']:.1f} %",
            str(first["n"]),
        ])  # fmt: skip
    return header, rows


__all__ = [
    "ANY",
    "FRAMES",
    "boxes_of",
    "facts_of",
    "inspection_sets",
    "inspection_study",
    "is_in",
    "learner",
    "maps_of",
    "peaks",
    "pointing_game",
    "pointing_table",
    "sets_at",
]
