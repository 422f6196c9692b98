"""The triage study: training an arm, and scoring it on each condition."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from decisive import provenance
from decisive.benchmarks.triage_data import seen_by
from decisive.benchmarks.triage_turnaround import turnaround
from learning.image_set import ImageSet
from perception.abnormality_scores import (
    Auroc,
    Calibration,
    auroc,
    bootstrap_interval,
    calibration_error,
    choose_threshold,
    delong_interval,
    fit_calibration,
    rates_at,
)
from perception.checkpoint import SavedClassifier

if TYPE_CHECKING:
    from torch import nn

    from perception.training import ClassifierResult

CONTROLS = ("all", "border", "thumbnail")
"""What a classifier is shown; the last two should not be able to do the job."""

ANY, ANY_SEEN, ANY_UNSEEN = "any", "any seen", "any unseen"
"""Conditions of all abnormal folders together, and of the two kinds of them."""

POINTS = {"high sensitivity": ("sensitivity", 0.95), "high specificity": ("specificity", 0.95)}
BATCH = 32
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Study:
    """What is compared.

    Attributes:
        normal: folder of normal pictures.
        abnormal: folders of abnormal pictures that are learned from.
        unseen: folders of abnormal pictures that only the test has.
        backbone: name in the catalogue.
        side: pixels a side of the pictures.
        epochs: passes over the training pictures.
        lr: peak learning rate.
        overrides: settings of the backbone.
    """

    normal: str
    abnormal: tuple[str, ...]
    unseen: tuple[str, ...]
    backbone: str = "efficientnetv2_b0_quarter"
    side: int = 64
    epochs: float = 50
    lr: float = 2e-3
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse folders that are in two places, and settings that cannot train."""
        folders = [self.normal, *self.abnormal, *self.unseen]
        if not self.abnormal or len(set(folders)) < len(folders):
            raise ValueError(
                f"normal, abnormal and unseen folders must all differ, one abnormal at least: "
                f"{folders}"
            )
        if self.side < 16:
            raise ValueError(f"side must be at least 16 pixels, got {self.side}")
        if not self.epochs > 0 or not self.lr > 0:
            raise ValueError(f"epochs and lr must be positive, got {self.epochs} and {self.lr}")

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Folders of each condition that is told from normal: each alone, and several together."""
        alone = {name: (name,) for name in (*self.abnormal, *self.unseen)}
        several = {ANY_SEEN: self.abnormal, ANY_UNSEEN: self.unseen}
        together = {name: folders for name, folders in several.items() if len(folders) > 1}
        return {**alone, **together, ANY: (*self.abnormal, *self.unseen)}

    @property
    def queued(self) -> tuple[str, ...]:
        """Conditions whose turnaround is simulated: of many folders only those of several."""
        several = (ANY_SEEN, ANY_UNSEEN, ANY)
        names = self.conditions
        return names if len(names) <= len(several) else tuple(n for n in names if n in several)

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names of `groups`."""
        return tuple(self.groups)


Extra = Callable[[SavedClassifier], dict[str, Any]]
"""What else is measured of the classifier that sees everything; JSON values."""


Learn = Callable[["Study", "nn.Module", Mapping[str, ImageSet], int, Path], "ClassifierResult"]
"""Trains a model on the sets `train` and `tune` with a seed in a folder."""


def learn_plainly(
    study: Study, model: nn.Module, sets: Mapping[str, ImageSet], seed: int, folder: Path
) -> ClassifierResult:
    """Whole pictures from the start."""
    from perception.train_config import ClassifierTrainConfig
    from perception.training import train_classifier

    train = sets["train"]
    config = ClassifierTrainConfig.for_epochs(
        study.epochs,
        len(train),
        BATCH,
        lr=study.lr,
        warmup_steps=min(100, int(study.epochs * len(train) / BATCH / 5)),
        ema_decay=0.98,
        precision="float32",
        seed=seed,
        tensorboard=False,
    )
    return train_classifier(model, train, sets["tune"], config, folder, progress=None)


def run_arm(
    study: Study,
    control: str,
    seed: int,
    sets: Mapping[str, ImageSet],
    folders: NDArray[Any],
    folder: Path,
    extra: Extra | None = None,
    learn: Learn | None = None,
    command: str = "decisive benchmark triage",
) -> dict[str, Any]:
    """Train a classifier on what a control shows, and score it; JSON values.

    Nothing is chosen by the test pictures: calibration and thresholds are of the tuning ones. The
    classifier of `all` is saved to `folder/last`.

    Args:
        study: what is compared.
        control: one of `CONTROLS`.
        seed: of weights, order and augmentation.
        sets: pictures `train`, `tune` and `test`; their first task is the abnormal one.
        folders: of each test picture.
        folder: of the training.
        extra: measured of `all`, before its calibration is built in.
        learn: how to train; `learn_plainly` if not given.
        command: for the card.
    """
    import torch

    from decisive.benchmarks.triage_card import save_triage
    from perception.catalogue import create

    seen = {name: seen_by(control, part) for name, part in sets.items()}
    torch.manual_seed(seed)
    train = seen["train"]
    model = create(
        study.backbone,
        n_classes=train.n_classes,
        in_channels=train.images.shape[-1],
        **study.overrides,
    )
    result = (learn or learn_plainly)(study, model, seen, seed, folder)
    began = time.process_time()
    saved = SavedClassifier(
        model, study.backbone, study.overrides, train.tasks, result.size, result.mean, result.std
    )
    logits = {name: logits_of(saved, part) for name, part in seen.items()}
    labels = {name: np.asarray(part.labels[:, 0]) for name, part in seen.items()}
    told = evaluate(study, logits, labels, folders, queue=control == "all")
    if control == "all":
        told |= {} if extra is None else extra(saved)
        facts = (result.step, result.cpu_seconds, command)
        save_triage(saved, told, study, facts, sets, folder / "last")
    return {
        **told,
        "train_cpu_seconds": result.cpu_seconds,
        "cpu_seconds": result.cpu_seconds + time.process_time() - began,
        "steps": result.step,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "pictures": {
            name: np.bincount(part, minlength=2).tolist() for name, part in labels.items()
        },
        "machine": provenance.machine(),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }


def evaluate(
    study: Study,
    logits: Mapping[str, Floats],
    labels: Mapping[str, NDArray[np.int64]],
    folders: NDArray[Any],
    queue: bool = True,
) -> dict[str, Any]:
    """Areas, calibration, operating points and turnaround, and the scores; JSON values.

    Args:
        study: what is compared.
        logits: of `train`, `tune` and `test` pictures.
        labels: of the same.
        folders: of each test picture.
        queue: whether turnaround is simulated.
    """
    calibration = _calibration(logits["tune"], labels["tune"])
    tuned = calibration(logits["tune"])
    points = {
        name: choose_threshold(tuned, labels["tune"], aim, rate)  # type: ignore[arg-type]
        for name, (aim, rate) in POINTS.items()
    }
    conditions: dict[str, Any] = {}
    for condition in study.conditions:
        kept = rows_of(study, condition, folders)
        scores, truth = calibration(logits["test"][kept]), labels["test"][kept]
        conditions[condition] = {
            "auroc": area(delong_interval(scores, truth)),
            "auroc_bootstrap": area(bootstrap_interval(scores, truth)),
            "points": {
                name: _point(rates_at(point.threshold, scores, truth))
                for name, point in points.items()
            },
        }
        if queue and condition in study.queued:
            threshold = points["high sensitivity"].threshold
            conditions[condition]["turnaround"] = turnaround(scores, truth, threshold)
    seen = np.isin(folders, (study.normal, *study.abnormal))
    raw, truth = logits["test"][seen], labels["test"][seen]
    return {
        "train_auroc": auroc(logits["train"], labels["train"]),
        "tune_auroc": auroc(logits["tune"], labels["tune"]),
        "calibration": asdict(calibration),
        "calibration_error": {
            "before": calibration_error(Calibration()(raw), truth),
            "after": calibration_error(calibration(raw), truth),
        },
        "points": {name: _point(point) for name, point in points.items()},
        "conditions": conditions,
        "test": _kept(folders, logits["test"]),
    }


def _kept(folders: NDArray[Any], logits: Floats) -> dict[str, Any]:
    """Folders and logits of the test pictures, for tests of pairs of cells."""
    names, places = np.unique(folders, return_inverse=True)
    return {
        "names": [str(name) for name in names],
        "places": places.tolist(),
        "logits": [round(float(value), 5) for value in logits],
    }


def rows_of(study: Study, condition: str, folders: NDArray[Any]) -> NDArray[np.bool_]:
    """`(N,)` which test pictures tell a condition from normal: the normal ones and its own."""
    return np.isin(folders, (study.normal, *study.groups[condition]))


def logits_of(saved: SavedClassifier, data: ImageSet) -> Floats:
    """`(N,)` abnormal logits of pictures."""
    from perception.abnormality import TASK, read

    parts = [
        read(saved, saved.tensor(data.images[start : start + 64])).logits[TASK].numpy()
        for start in range(0, len(data), 64)
    ]
    return np.concatenate(parts).astype(np.float64)


def area(found: Auroc) -> dict[str, Any]:
    """As JSON."""
    return {
        "value": found.value, "ci95": [found.low, found.high],
        "n_abnormal": found.n_abnormal, "n_normal": found.n_normal,
    }  # fmt: skip


def _calibration(logits: Floats, labels: NDArray[np.int64]) -> Calibration:
    """Platt's; none where the scores are of no use on the tuning pictures."""
    try:
        return fit_calibration(logits, labels)
    except ValueError:
        return Calibration()


def _point(point: Any) -> dict[str, Any]:
    return {
        **asdict(point),
        "sensitivity": point.sensitivity,
        "specificity": point.specificity,
    }
