"""Which kinds of checkpoints the node `perception` takes: it is told by the checkpoint itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from decisive.triage import Model
from learning.checkpoint import find_shipped, read_checkpoint
from perception.abnormality import TASK, has_maps
from perception.checkpoint import METHOD as CLASSIFIER
from perception.checkpoint import shipped_classifiers
from perception.deep_mac.checkpoint import METHOD as SEGMENTER
from perception.deep_mac.checkpoint import shipped_segmenters
from perception.multi_task_checkpoint import METHOD as TASKS
from perception.multi_task_checkpoint import shipped_tasks
from ros_nodes import picture_classifier, picture_segmenter, picture_tasks
from ros_nodes.picture_input import Eye, Open, Voice
from ros_nodes.picture_triage import TriageEye, TriageVoice


def _classifier(value: Mapping[str, Any], open: Open) -> tuple[Eye, Voice]:
    saved = picture_classifier.load(value)
    if TASK in saved.tasks:
        triage = Model.load(value["checkpoint"])
        maps = has_maps(triage.saved.model)
        return TriageEye(triage, value), TriageVoice(triage, open, maps)
    eye = picture_classifier.ClassifierEye(saved, value)
    return eye, picture_classifier.ClassVoice(saved, open)


def _segmenter(value: Mapping[str, Any], open: Open) -> tuple[Eye, Voice]:
    eye = picture_segmenter.SegmenterEye(picture_segmenter.load(value), value)
    return eye, picture_segmenter.MaskVoice(open)


def _tasks(value: Mapping[str, Any], open: Open) -> tuple[Eye, Voice]:
    saved = picture_tasks.load(value)
    return picture_tasks.TaskEye(saved, value), picture_tasks.TaskVoice(saved, open)


KINDS: dict[str, Callable[[Mapping[str, Any], Open], tuple[Eye, Voice]]] = {
    CLASSIFIER: _classifier,
    SEGMENTER: _segmenter,
    TASKS: _tasks,
}
"""By the method that a checkpoint says it is of."""


def make(value: Mapping[str, Any], open: Open) -> tuple[Eye, Voice]:
    """What looks at pictures and what says what it has seen.

    Args:
        value: parameters of the node.
        open: opens a publisher.

    Raises:
        ValueError: if the checkpoint is missing or broken, of another kind, or not to be trusted.
        OSError: where a file cannot be read.
    """
    name = value["checkpoint"]
    shipped = {**shipped_classifiers(), **shipped_segmenters(), **shipped_tasks()}
    kinds = " or ".join(KINDS)
    if not name:
        known = ", ".join(shipped) or "none so far"
        raise ValueError(f"parameter checkpoint must name a {kinds}; shipped: {known}")
    document, _ = read_checkpoint(find_shipped(name, shipped, kinds))
    method = document["method"]
    if method not in KINDS:
        raise ValueError(f"{name} must be a checkpoint of a {kinds}, got one of {method!r:.40}")
    return KINDS[method](value, open)
