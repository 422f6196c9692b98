"""How classifiers are scored: one or several tasks, with images that lack a label left out."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from perception.train_batches import Batches, task_losses


@dataclass(frozen=True)
class TaskScore:
    """How often a task is answered rightly.

    Attributes:
        right: images whose class has the largest logit.
        n: images that have a label.
    """

    right: int
    n: int

    @property
    def accuracy(self) -> float:
        """Share of the images; NaN without any."""
        return self.right / self.n if self.n else math.nan


@dataclass(frozen=True)
class Scores:
    """An evaluation.

    Attributes:
        tasks: score of each task.
        loss: mean over the tasks of their cross-entropy, without smoothing, nats.
    """

    tasks: Mapping[str, TaskScore]
    loss: float

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        told = {
            task: {**asdict(s), "accuracy": s.accuracy} for task, s in self.tasks.items() if s.n
        }
        return {"tasks": told, "loss": self.loss}


@torch.no_grad()
def evaluate_classifier(
    model: nn.Module, batches: Batches, batch_size: int, most: int | None = None
) -> Scores:
    """Score a model, in evaluation mode, by images as they are.

    Args:
        model: gives logits, one task after the other; its mode is left as it was.
        batches: of the images.
        batch_size: images at a time.
        most: look at no more images, spread evenly; None: at all.
    """
    data = batches.data
    count = len(data) if most is None else min(most, len(data))
    rows = np.linspace(0, len(data) - 1, count).round().astype(np.int64)
    right, n = dict.fromkeys(data.tasks, 0), dict.fromkeys(data.tasks, 0)
    losses = dict.fromkeys(data.tasks, 0.0)
    was_training = model.training
    model.eval()
    for start in range(0, count, batch_size):
        part = rows[start : start + batch_size]
        logits = model(batches.plain(part)).float()
        found = task_losses(logits, batches.targets(part), data.tasks)
        labels, first = data.labels[part], 0
        for column, (task, classes) in enumerate(data.tasks.items()):
            said = logits[:, first : first + len(classes)].argmax(1).cpu().numpy()
            first += len(classes)
            labelled = int((labels[:, column] >= 0).sum())
            right[task] += int((said == labels[:, column]).sum())
            n[task] += labelled
            losses[task] += float(found[task]) * labelled
    model.train(was_training)
    known = [losses[task] / n[task] for task in data.tasks if n[task]]
    scores = {task: TaskScore(right[task], n[task]) for task in data.tasks}
    return Scores(scores, sum(known) / len(known) if known else math.nan)
