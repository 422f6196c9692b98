"""Normal or abnormal: what makes a classifier one for triage, its scores and where they come from.

No network and no training of its own: a classifier (`perception.checkpoint`) whose tasks include
`abnormal: (normal, abnormal)` is one for triage. Every other task of two classes is a finding, its
second class the presence. A softmax over two logits is a sigmoid of their difference, so tasks of
two classes are what a multi-label head with sigmoids is, and labels of -1 are left out of its loss
(`perception.train_batches.task_losses`).

Source of the purpose: Nabulsi et al. 2021, "Deep learning for distinguishing normal versus abnormal
chest radiographs and generalization to two unseen diseases". Research software, not a medical
device.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perception.abnormality_scores import Calibration
from perception.checkpoint import SavedClassifier
from perception.efficientnet import EfficientNet
from perception.spinenet import SpineNet

TASK = "abnormal"
CLASSES = ("normal", "abnormal")
POOLED_LINEARLY = (EfficientNet, SpineNet)
"""Networks whose logits are a linear layer on the mean of `feature_map`: their maps are exact."""

Tasks = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Read:
    """What a network says of a batch.

    Attributes:
        logits: of each task of two classes `(B,)`, the abnormal one first: logit of the second
            class less that of the first, so that its sigmoid is the score.
        maps: `(B, h, w)`, how much each cell adds to the abnormal logit: their mean, plus the bias,
            is the logit. None for networks without exact maps.
        bias: of the abnormal logit; 0 without maps.
    """

    logits: dict[str, Tensor]
    maps: Tensor | None
    bias: float


def check_triage(saved: SavedClassifier) -> None:
    """Refuse classifiers without an abnormal score.

    Raises:
        ValueError: naming what is needed.
    """
    if tuple(saved.tasks.get(TASK, ())) != CLASSES:
        told = {task: list(classes) for task, classes in saved.tasks.items()}
        raise ValueError(
            f"triage needs a classifier with a task {TASK!r} of the classes {CLASSES[0]} and "
            f"{CLASSES[1]}, in this order; this one has {told}"
        )


def score_tasks(tasks: Tasks) -> tuple[str, ...]:
    """Tasks that have a score: the abnormal one, then the findings."""
    return (TASK, *(task for task, classes in tasks.items() if task != TASK and len(classes) == 2))


def difference_logits(logits: Tensor, tasks: Tasks) -> dict[str, Tensor]:
    """Of each task with a score, its second logit less its first, `(B,)`.

    Args:
        logits: `(B, K)`, one task after the other.
        tasks: classes of each.

    Raises:
        ValueError: if the logits are not those of the tasks.
    """
    n = sum(map(len, tasks.values()))
    if logits.ndim != 2 or logits.shape[1] != n:
        raise ValueError(f"logits must be (B, {n}), got {tuple(logits.shape)}")
    found = {}
    for task in score_tasks(tasks):
        first = _first_row(tasks, task)
        found[task] = logits[:, first + 1] - logits[:, first]
    return found


def has_maps(model: nn.Module) -> bool:
    """Whether class activation maps of a network are exact, and given by `read`."""
    return isinstance(model, POOLED_LINEARLY) and isinstance(model.classifier, nn.Linear)


def activation_maps(model: nn.Module, images: Tensor, tasks: Tasks, task: str) -> Tensor:
    """Class activation maps: how much each cell adds to the logit of a task with a score.

    Source: Zhou et al. 2016, "Learning Deep Features for Discriminative Localization", eq. 2, with
    the weights of the second class less those of the first.

    Args:
        model: in evaluation mode, with `has_maps`.
        images: `(B, C, H, W)`, normalised.
        tasks: classes of each task.
        task: which.

    Returns:
        `(B, h, w)`; the mean of a map is the logit without its bias.

    Raises:
        ValueError: for a network whose maps would not be exact.
    """
    return _project(model, _features(model, images), tasks, task)


@torch.inference_mode()
def read(saved: SavedClassifier, batch: Tensor) -> Read:
    """Scores and, where they are exact, maps, of one pass through the network.

    Args:
        saved: a classifier that passes `check_triage`.
        batch: of `saved.tensor`.
    """
    network = saved.model
    if not has_maps(network):
        return Read(difference_logits(network(batch).float(), saved.tasks), None, 0.0)
    logits, maps = logits_and_map(network, batch, saved.tasks)
    return Read(difference_logits(logits, saved.tasks), maps, _bias(network, saved.tasks, TASK))


def logits_and_map(model: nn.Module, images: Tensor, tasks: Tasks) -> tuple[Tensor, Tensor]:
    """All logits `(B, K)` and the abnormal map `(B, h, w)` of one pass through the network.

    Arguments and errors are those of `activation_maps`.
    """
    features = _features(model, images)
    logits = _classifier(model)(features.mean(dim=(2, 3))).float()
    return logits, _project(model, features, tasks, TASK)


@torch.no_grad()
def calibrate(model: nn.Module, tasks: Tasks, calibration: Calibration, task: str = TASK) -> None:
    """Build a calibration into the classifier's linear layer, in place.

    Weights and biases of the task are scaled, and the offset is added to the second bias: whatever
    reads the network (files for other programs, nodes, maps) then has calibrated scores.

    Raises:
        ValueError: if the network does not end in a linear layer.
    """
    layer = _classifier(model)
    rows = slice(_first_row(tasks, task), _first_row(tasks, task) + len(tasks[task]))
    if len(tasks[task]) != 2:
        raise ValueError(f"only tasks of two classes have a score, {task!r} has {tasks[task]}")
    layer.weight[rows] *= calibration.scale
    layer.bias[rows] *= calibration.scale
    layer.bias[rows.stop - 1] += calibration.offset


def _features(model: nn.Module, images: Tensor) -> Tensor:
    if not isinstance(model, POOLED_LINEARLY) or not has_maps(model):
        kinds = ", ".join(kind.__name__ for kind in POOLED_LINEARLY)
        raise ValueError(
            f"class activation maps are exact for {kinds} with classes, got "
            f"{type(model).__name__}, whose logits are no linear function of a mean of maps"
        )
    if model.training:
        raise ValueError("maps are those of evaluation; call model.eval() first")
    return model.feature_map(images)


def _project(model: nn.Module, features: Tensor, tasks: Tasks, task: str) -> Tensor:
    first = _first_row(tasks, task)
    weight = _classifier(model).weight
    return torch.einsum("bchw,c->bhw", features, weight[first + 1] - weight[first])


def _bias(model: nn.Module, tasks: Tasks, task: str) -> float:
    first = _first_row(tasks, task)
    bias = _classifier(model).bias
    return float(bias[first + 1] - bias[first])


def _classifier(model: nn.Module) -> nn.Linear:
    layer = getattr(model, "classifier", None)
    if not isinstance(layer, nn.Linear):
        raise ValueError(f"{type(model).__name__} does not end in a linear layer called classifier")
    return layer


def _first_row(tasks: Tasks, task: str) -> int:
    if task not in tasks:
        raise ValueError(f"no task is called {task!r}; there are {', '.join(tasks)}")
    names = list(tasks)
    return sum(len(tasks[name]) for name in names[: names.index(task)])
