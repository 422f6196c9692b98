"""How classifiers are trained: any backbone, one or several tasks, fixed or growing images.

Every step is a function of the seed and its number, so a resumed training goes on bit by bit. The
average of the weights is what is evaluated and saved. Statistics of batch normalisation belong to
the weights that made them; for the averaged weights they are estimated anew.
"""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from learning.image_set import ImageSet
from learning.progressive import reestimate_batch_norm, set_dropout
from learning.run import Run, isolated
from perception.evaluation import Scores, evaluate_classifier
from perception.train_batches import Batches, Range, channel_statistics, step_seed, task_losses
from perception.train_config import ClassifierTrainConfig

SaveFunction = Callable[[nn.Module, Path, dict[str, Any]], None]


@dataclass(frozen=True)
class ClassifierResult:
    """What a training gave.

    Attributes:
        step: steps done.
        scores: of the held-out images, by the final averaged weights.
        cpu_seconds: spent in training steps (wall seconds on a GPU).
        history: rows of `metrics.jsonl`.
        folder: of the last checkpoint.
        mean: of each channel of the training images, of values from 0 to 1.
        std: likewise.
        size: height and width of evaluation, pixels.
    """

    step: int
    scores: Scores
    cpu_seconds: float
    history: list[dict[str, Any]]
    folder: Path
    mean: Range
    std: Range
    size: tuple[int, int]


def train_classifier(
    model: nn.Module,
    train: ImageSet,
    held_out: ImageSet,
    config: ClassifierTrainConfig,
    out: str | Path,
    resume: bool = True,
    *,
    save: SaveFunction | None = None,
    progress: bool | None = None,
) -> ClassifierResult:
    """Train a model that gives logits, one task after the other.

    Writes `out/train_state.safetensors`, `out/metrics.jsonl`, `out/tensorboard` and, by `save`,
    `out/last`. Called again with the same arguments after a kill, it goes on where the last saved
    state was; with a budget in steps, on a CPU, the weights end bit by bit as if there had been no
    kill. Model, optimiser, average and log are those of `learning`.

    Args:
        model: takes `(B, C, H, W)`, clips `(B, T, C, H, W)`; trained in place and left with the
            final averaged weights, in evaluation mode.
        train: what to learn from.
        held_out: what to be scored by; it chooses nothing.
        config: how to train.
        out: folder of the run, made if absent.
        resume: whether to go on with a run found in `out`; False starts afresh.
        save: writes a checkpoint, `save(model, folder, training)` with JSON facts of the training;
            it must replace the folder in one step. None writes none.
        progress: whether to draw a progress bar; None where standard output is a terminal.

    Raises:
        ValueError: if the sets differ in tasks or channels, `out` holds another run, or the loss
            became NaN.
        OSError: if `out` cannot be written; older checkpoints are untouched.
    """
    _check_sets(train, held_out, config)
    with isolated(config.threads):
        run = _Run(model, train, held_out, config, Path(out), save)
        run.start(resume)
        return run.finish(progress)


class _Run(Run[ClassifierTrainConfig]):
    def __init__(
        self,
        model: nn.Module,
        data: ImageSet,
        held_out: ImageSet,
        config: ClassifierTrainConfig,
        out: Path,
        save: SaveFunction | None,
    ) -> None:
        identity = {"data": _fingerprint(data), "held-out data": _fingerprint(held_out)}
        super().__init__(model, config, out, identity, config.precision)
        self.data = data
        self.save = save
        self.statistics = channel_statistics(data)
        self.batches = Batches(data, config, self.statistics, self.device)
        self.held = Batches(held_out, config, self.statistics, self.device)
        # Images of one size or another: they are scored at the size that training ends with.
        self.held.size = self.batches.size

    def start(self, resume: bool) -> None:
        super().start(resume)
        self._set_dropout()

    def finish(self, progress: bool | None) -> ClassifierResult:
        """Train to the end of the budget, and score."""
        history = self.train(progress)
        scores = self._score(self.held, None)
        mean, std = self.statistics
        folder = self.out / "last"
        return ClassifierResult(
            self.at.step, scores, self.at.seconds, history, folder, mean, std, self.held.size
        )

    def step(self, fraction: float) -> dict[str, Tensor]:
        config, at = self.config, self.at
        index = config.stage_index(at.step, fraction)
        if index != at.stage:
            self._enter(index)
        images, targets = self.batches.train(at.step, config.stage(index))
        torch.manual_seed(step_seed(config.seed, at.step))  # dropout and stochastic depth
        with self.autocast():
            logits = self.model(images)
        losses = task_losses(logits, targets, self.data.tasks, config.label_smoothing)
        loss = torch.stack(list(losses.values())).mean()
        self.descend(loss, fraction)
        return {"loss": loss.detach()}

    def validate(self) -> dict[str, float]:
        with self.averaged():
            scores = self._score(self.held, self.config.validate_samples)
        told = {f"validation/{task}": score.accuracy for task, score in scores.tasks.items()}
        known = [value for value in told.values() if not math.isnan(value)]
        mean = sum(known) / len(known) if known else math.nan
        return {"validation/accuracy": mean, "validation/loss": scores.loss, **told}

    def checkpoint(self) -> None:
        if self.save is None:
            return
        mean, std = self.statistics
        with self.averaged():
            training: dict[str, Any] = {
                **self.facts(),
                "mean": mean,
                "std": std,
                "size": self.held.size,
                "held_out": self._score(self.held, None).plain(),
            }
            self.save(self.model, self.out / "last", training)

    def renew_norms(self) -> None:
        self._renew_norms(None)

    def _renew_norms(self, index: int | None) -> None:
        """Statistics of batch normalisation for the present weights, at a stage's size."""
        stage = None if index is None else self.config.stage(index)
        size = None if stage is None else (stage.size, stage.size)
        count = self.config.norm_batches
        if count:
            rows = (self.batches.rows(self.at.step + k) for k in range(count))
            reestimate_batch_norm(self.model, (self.batches.plain(r, size) for r in rows))

    def _enter(self, index: int) -> None:
        """Change to a stage; batch normalisation forgets the sizes of the one before."""
        first = self.at.stage < 0
        self.at.stage = index
        self._set_dropout()
        if not first:
            self._renew_norms(index)

    def _set_dropout(self) -> None:
        stage = self.config.stage(max(self.at.stage, 0))
        rate = self.config.dropout if stage is None else stage.dropout
        if rate is not None:
            set_dropout(self.model, rate)

    def _score(self, batches: Batches, most: int | None) -> Scores:
        with self.autocast():
            return evaluate_classifier(self.model, batches, self.config.batch_size, most)


def _check_sets(train: ImageSet, held_out: ImageSet, config: ClassifierTrainConfig) -> None:
    if dict(train.tasks) != dict(held_out.tasks) or list(train.tasks) != list(held_out.tasks):
        raise ValueError(
            f"held-out images must have the tasks of the training images, {dict(train.tasks)}, "
            f"got {dict(held_out.tasks)}"
        )
    if train.is_clips != held_out.is_clips or train.images.shape[-1] != held_out.images.shape[-1]:
        raise ValueError(
            f"held-out images must be like the training images, {train.images.shape[1:]}, "
            f"got {held_out.images.shape[1:]}"
        )
    schedule = config.schedule
    strongest = config.magnitude if schedule is None else max(schedule.magnitude)
    if strongest and train.is_clips:
        raise ValueError("RandAugment is for images, not for clips; set magnitude to 0")


def _fingerprint(data: ImageSet) -> list[Any]:
    """Tells sets apart without reading all of their pixels."""
    some = np.linspace(0, len(data) - 1, min(len(data), 16)).round().astype(np.int64)
    pixels = zlib.crc32(np.ascontiguousarray(data.images[some]).tobytes())
    labels = zlib.crc32(np.ascontiguousarray(data.labels).tobytes())
    return [list(data.images.shape), pixels, labels, data.tasks]
