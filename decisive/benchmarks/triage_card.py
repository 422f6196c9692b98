"""A classifier of the triage study on disk: its calibration built in, its card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decisive import provenance

if TYPE_CHECKING:
    from decisive.benchmarks.triage_study import Study
    from learning.image_set import ImageSet
    from perception.checkpoint import SavedClassifier

PHOTOGRAPHS = (
    "Pictures of other places, cameras and cuts may be told apart by what they look like and not "
    "by what they show: read the areas beside those of the border and of the thumbnail (`decisive "
    "benchmark triage`). Of radiographs the patients are not known, so those of training and test "
    "may be the same."
)
SYNTHETIC = (
    "All pictures are rendered: three products, flat light, no dirt, no motion blur, one part in "
    "the middle. Nothing was measured on photographs; train it on pictures of your own line "
    "(`decisive benchmark triage --data FOLDER`) before anybody relies on it. Defects unlike those "
    "of training may score low, as the areas above show, and a low score is no proof of a sound "
    "part."
)


def save_triage(
    saved: SavedClassifier,
    told: Mapping[str, Any],
    study: Study,
    facts: tuple[int, float, str],
    sets: Mapping[str, ImageSet],
    folder: Path,
) -> None:
    """The classifier with its calibration built in, and what triage reads beside it.

    Args:
        saved: the classifier, changed in place by the calibration.
        told: of `evaluate`, and what else was measured.
        study: what was compared.
        facts: steps, CPU-seconds of training, and the command.
        sets: pictures of training, tuning and test.
        folder: where to.
    """
    from perception.abnormality import calibrate
    from perception.abnormality_scores import Calibration
    from perception.checkpoint import save_classifier

    calibrate(saved.model, saved.tasks, Calibration(**told["calibration"]))
    scores = {
        "triage": {
            "fit": "crop",
            "points": {name: point["threshold"] for name, point in told["points"].items()},
            "calibration": told["calibration"],
        },
        "auroc": {name: found["auroc"] for name, found in told["conditions"].items()},
        **({"pointing": told["pointing"]} if "pointing" in told else {}),
    }
    card = "\n".join(_card(told, study, facts, sets))
    save_classifier(folder, replace(saved, scores=scores), card)


def _card(
    told: Mapping[str, Any],
    study: Study,
    facts: tuple[int, float, str],
    sets: Mapping[str, ImageSet],
) -> list[str]:
    steps, cpu_seconds, command = facts
    train = sets["train"]
    synthetic = bool(train.facts.get("synthetic"))
    color = "grey" if train.images.shape[-1] == 1 else "RGB"
    findings = list(train.tasks)[1:]
    return [
        "# Normal or abnormal: a triage classifier",
        "",
        f"{study.backbone} for {color} pictures of {study.side} x {study.side} pixels, cut to "
        "squares. Research software, not a medical device: it is no diagnosis, and no part of one.",
        "",
        "## Data",
        "",
        f"- {train.source}",
        *(f"- {name}: {len(part)} pictures" for name, part in sets.items()),
        f"- normal: {study.normal}; abnormal: {', '.join(study.abnormal)}; "
        f"in no training: {', '.join(study.unseen) or 'none'}",
        *([f"- findings: {', '.join(findings)}"] if findings else []),
        "",
        "## Scores (area under the curve, 95% interval)",
        "",
        *(
            f"- normal against {_plain(name)}: {found['auroc']['value']:.3f} "
            f"({found['auroc']['ci95'][0]:.3f} to {found['auroc']['ci95'][1]:.3f})"
            for name, found in told["conditions"].items()
        ),
        *_pointing(told),
        "",
        f"Made by `{command}`, commit `{provenance.commit() or 'unknown'}`: "
        f"{steps} steps, {cpu_seconds:.0f} CPU-seconds.",
        "",
        "## Limits",
        "",
        SYNTHETIC if synthetic else PHOTOGRAPHS,
        "",
    ]


def _pointing(told: Mapping[str, Any]) -> list[str]:
    found = told.get("pointing", {}).get("any")
    if not found:
        return []
    return [
        "",
        f"The strongest cell of the heat map lies in the box around the defect in {found['hits']} "
        f"of {found['n']} defective test pictures (the middle of the picture in "
        f"{found['center_hits']}).",
    ]


def _plain(name: str) -> str:
    return name.replace("_", " ")
