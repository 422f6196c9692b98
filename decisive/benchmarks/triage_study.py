"""The triage study: training an arm, scoring it on each condition, and what its order is worth."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decisive import provenance
from decisive.benchmarks.triage_data import Pictures, Rows, image_set, seen_by
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
from perception.review_queue import (
    QueueConfig,
    arrival_wait,
    mean_abnormal,
    overnight_list,
    priority_waits,
    simulate_queue,
)

CONTROLS = ("all", "border", "thumbnail")
"""What a classifier is shown; the last two should not be able to do the job."""

ANY = "any"
"""Condition of all abnormal folders together."""

POINTS = {"high sensitivity": ("sensitivity", 0.95), "high specificity": ("specificity", 0.95)}
_BATCH = 32
_REPLICATIONS = 20
_CASES = 20_000  # Of one simulated queue.
_LISTS = 200
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
    """

    normal: str
    abnormal: tuple[str, ...]
    unseen: tuple[str, ...]
    backbone: str = "efficientnetv2_b0_quarter"
    side: int = 64
    epochs: float = 50
    lr: float = 2e-3

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
    def conditions(self) -> tuple[str, ...]:
        """What is told from normal: each abnormal folder, and all of them."""
        return (*self.abnormal, *self.unseen, ANY)


def run_arm(
    study: Study,
    control: str,
    seed: int,
    pictures: Pictures,
    splits: Mapping[str, Rows],
    source: str,
    folder: Path,
) -> dict[str, Any]:
    """Train a classifier on what a control shows, and score it; JSON values.

    Nothing is chosen by the test pictures: calibration and thresholds are of the tuning ones. The
    classifier of `all` is saved to `folder/last`.
    """
    import torch

    from perception.catalogue import create
    from perception.train_config import ClassifierTrainConfig
    from perception.training import train_classifier

    sets = {
        name: seen_by(control, image_set(pictures, rows, study.normal, source))
        for name, rows in splits.items()
    }
    began = time.process_time()
    torch.manual_seed(seed)
    model = create(study.backbone, n_classes=2, in_channels=1)
    n = len(sets["train"])
    config = ClassifierTrainConfig.for_epochs(
        study.epochs,
        n,
        _BATCH,
        lr=study.lr,
        warmup_steps=min(100, int(study.epochs * n / _BATCH / 5)),
        ema_decay=0.98,
        precision="float32",
        seed=seed,
        tensorboard=False,
    )
    result = train_classifier(model, sets["train"], sets["tune"], config, folder, progress=False)
    saved = SavedClassifier(
        model, study.backbone, {}, sets["train"].tasks, result.size, result.mean, result.std
    )
    logits = {name: _logits(saved, part) for name, part in sets.items()}
    labels = {name: part.labels[:, 0] for name, part in sets.items()}
    folders = np.array(pictures.folders)[splits["test"]]
    told = evaluate(study, logits, labels, folders, queue=control == "all")
    if control == "all":
        _save(saved, told, study, source, result.step, result.cpu_seconds, sets, folder / "last")
    return {
        **told,
        "train_cpu_seconds": result.cpu_seconds,
        "cpu_seconds": time.process_time() - began,
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
    """Areas, calibration, operating points and turnaround; JSON values.

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
        kept = (folders == study.normal) | (folders == condition)
        if condition == ANY:
            kept[:] = True
        scores, truth = calibration(logits["test"][kept]), labels["test"][kept]
        conditions[condition] = {
            "auroc": area(delong_interval(scores, truth)),
            "auroc_bootstrap": area(bootstrap_interval(scores, truth)),
            "points": {
                name: _point(rates_at(point.threshold, scores, truth))
                for name, point in points.items()
            },
        }
        if queue:
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
    }


def turnaround(
    scores: Floats,
    labels: NDArray[np.int64],
    threshold: float,
    prevalence: float = 0.2,
    utilisation: float = 0.9,
    seed: int = 0,
) -> dict[str, Any]:
    """Mean turnaround of abnormal cases in a queue and on an overnight list, in reading times.

    Cases are drawn from the scored ones, with replacement.

    Args:
        scores: `(N,)`.
        labels: `(N,)` 0 and 1.
        threshold: of the two-class order.
        prevalence: share of abnormal cases that are drawn.
        utilisation: of the reader.
        seed: of all draws.
    """
    config = QueueConfig(utilisation)
    kinds = [np.flatnonzero(labels == kind) for kind in (0, 1)]
    queue: dict[str, list[float]] = {"arrival": [], "random": [], "threshold": [], "score": []}
    lists: dict[str, list[float]] = {"random": [], "score": []}
    for replication in range(_REPLICATIONS):
        case, abnormal = _cases(kinds, _CASES, prevalence, (seed, replication))
        for order, found in queue.items():
            limit = threshold if order == "threshold" else None
            times = simulate_queue(config, scores[case], order, limit, replication)  # type: ignore[arg-type]
            found.append(mean_abnormal(times, abnormal))
    for replication in range(_LISTS):
        case, abnormal = _cases(kinds, 100, prevalence, (seed, 10_000 + replication))
        for order, found in lists.items():
            times = overnight_list(scores[case], order, seed=replication)  # type: ignore[arg-type]
            found.append(mean_abnormal(times, abnormal))
    point = rates_at(threshold, scores, labels)
    first = prevalence * point.sensitivity + (1 - prevalence) * (1 - point.specificity)
    waits = priority_waits(config, (first, 1 - first))
    expected = point.sensitivity * waits[0] + (1 - point.sensitivity) * waits[1] + 1
    return {
        "prevalence": prevalence,
        "utilisation": utilisation,
        "queue": {order: _mean(found) for order, found in queue.items()},
        "closed_form": {"arrival": arrival_wait(config) + 1, "threshold": expected},
        "overnight_list": {order: _mean(found) for order, found in lists.items()},
    }


def area(found: Auroc) -> dict[str, Any]:
    """As JSON."""
    return {
        "value": found.value, "ci95": [found.low, found.high],
        "n_abnormal": found.n_abnormal, "n_normal": found.n_normal,
    }  # fmt: skip


def _cases(
    kinds: Sequence[Rows], n: int, prevalence: float, seed: tuple[int, int]
) -> tuple[Rows, NDArray[np.bool_]]:
    """Rows of drawn cases and whether each is abnormal; at least one is."""
    rng = np.random.default_rng(seed)
    abnormal = rng.random(n) < prevalence
    abnormal[-1] |= not abnormal.any()
    rows = np.where(abnormal, rng.choice(kinds[1], n), rng.choice(kinds[0], n))
    return rows, abnormal


def _mean(values: Sequence[float]) -> dict[str, float]:
    return {
        "mean": float(np.mean(values)),
        "standard_error": float(np.std(values, ddof=1) / np.sqrt(len(values))),
    }


def _logits(saved: SavedClassifier, data: ImageSet) -> Floats:
    from perception.abnormality import TASK, read

    parts = [
        read(saved, saved.tensor(data.images[start : start + 64])).logits[TASK].numpy()
        for start in range(0, len(data), 64)
    ]
    return np.concatenate(parts).astype(np.float64)


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


def _save(
    saved: SavedClassifier,
    told: Mapping[str, Any],
    study: Study,
    source: str,
    steps: int,
    cpu_seconds: float,
    sets: Mapping[str, ImageSet],
    folder: Path,
) -> None:
    """The classifier with its calibration built in, and what triage reads beside it."""
    from dataclasses import replace

    from perception.abnormality import calibrate
    from perception.checkpoint import save_classifier

    calibrate(saved.model, saved.tasks, Calibration(**told["calibration"]))
    scores = {
        "triage": {
            "fit": "crop",
            "points": {name: point["threshold"] for name, point in told["points"].items()},
            "calibration": told["calibration"],
        },
        "auroc": {name: found["auroc"] for name, found in told["conditions"].items()},
    }
    lines = [
        "# Normal or abnormal: a triage classifier",
        "",
        f"{study.backbone} for grey pictures of {study.side} x {study.side} pixels, cut to "
        "squares. Research software, not a medical device: it is no diagnosis, and no part of one.",
        "",
        "## Data",
        "",
        f"- {source}",
        *(f"- {name}: {len(part)} pictures" for name, part in sets.items()),
        f"- normal: {study.normal}; abnormal: {', '.join(study.abnormal)}; "
        f"in no training: {', '.join(study.unseen) or 'none'}",
        "",
        "## Scores (area under the curve, 95% interval)",
        "",
        *(
            f"- normal against {name}: {found['auroc']['value']:.3f} "
            f"({found['auroc']['ci95'][0]:.3f} to {found['auroc']['ci95'][1]:.3f})"
            for name, found in told["conditions"].items()
        ),
        "",
        f"Made by `decisive benchmark triage`, commit `{provenance.commit() or 'unknown'}`: "
        f"{steps} steps, {cpu_seconds:.0f} CPU-seconds.",
        "",
        "## Limits",
        "",
        "Pictures of other hospitals, scanners and cuts may be told apart by what they look like "
        "and not by what they show: read the areas beside those of the border and of the "
        "thumbnail (`decisive benchmark triage`). Patients are not known, so those of training "
        "and test may be the same.",
        "",
    ]
    save_classifier(folder, replace(saved, scores=scores), "\n".join(lines))
