"""How segmenters are trained: any network of masks, masks for all classes or only for some.

Every step is a function of the seed and its number, so a resumed training goes on bit by bit. The
average of the weights is what is evaluated and saved; statistics of batch normalisation are
estimated anew for it.
"""

import importlib.util
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from learning.instance_set import InstanceSet, Scene
from learning.progressive import reestimate_batch_norm
from learning.run import Run, isolated
from perception.deep_mac.average_precision import class_mean
from perception.deep_mac.evaluation import evaluate_segmenter, iou_by_box_quality
from perception.deep_mac.instances import Segmenter
from perception.deep_mac.train_batches import SceneBatches, pixel_statistics
from perception.deep_mac.train_config import SegmenterTrainConfig
from perception.train_batches import Range, step_seed

SaveFunction = Callable[[Segmenter, Path, dict[str, Any]], None]


@dataclass(frozen=True)
class SegmenterResult:
    """What a training gave.

    Attributes:
        step: steps done.
        scores: of the held-out scenes, by the final averaged weights; see `train_segmenter`.
        cpu_seconds: spent in training steps (wall seconds on a GPU).
        history: rows of `metrics.jsonl`.
        folder: of the last checkpoint.
        mean: of each channel of the training pictures, of values from 0 to 1.
        std: likewise.
        size: height and width of the inputs, pixels.
    """

    step: int
    scores: dict[str, Any]
    cpu_seconds: float
    history: list[dict[str, Any]]
    folder: Path
    mean: Range
    std: Range
    size: tuple[int, int]


def train_segmenter(
    model: Segmenter,
    train: InstanceSet,
    held_out: InstanceSet,
    config: SegmenterTrainConfig,
    out: str | Path,
    resume: bool = True,
    *,
    save: SaveFunction | None = None,
    progress: bool | None = None,
) -> SegmenterResult:
    """Train a network of instance masks.

    Writes `out/train_state.safetensors`, `out/metrics.jsonl`, `out/tensorboard` and, by `save`,
    `out/last`. Called again with the same arguments after a kill, it goes on where the last saved
    state was; with a budget in steps, on a CPU, the weights end bit by bit as if there had been no
    kill.

    Held-out scores are JSON values: `scenes`; `instances` of `seen` classes, whose masks were
    learned from, and of `unseen` ones; `given_boxes`, the mean IoU of masks in the true boxes over
    either; and where pycocotools is installed `found`, average precision of what the network finds
    by itself (`box_ap`, `mask_ap`, `mask_ap_seen`, ...). What has no instance is left out.
    Checkpoints from before the end have scores of `config.validate_samples` scenes in given boxes.

    Args:
        model: trained in place and left with the final averaged weights, in
            evaluation mode.
        train: what to learn from; masks only of `config.masked_classes`.
        held_out: what to be scored by, with masks of all classes; it chooses nothing.
        config: how to train.
        out: folder of the run, made if absent.
        resume: whether to go on with a run found in `out`; False starts afresh.
        save: writes a checkpoint, `save(model, folder, training)` with JSON facts of the training;
            it must replace the folder in one step. None writes none.
        progress: whether to draw a progress bar; None where standard output is a terminal.

    Raises:
        ValueError: if the sets or the network differ in classes, sizes do not fit the network,
            `out` holds another run, or the loss became NaN.
        OSError: if `out` cannot be written; older checkpoints are untouched.
    """
    _check_sets(model, train, held_out)
    with isolated(config.threads):
        run = _Run(model, train, held_out, config, Path(out), save)
        run.start(resume)
        return run.finish(progress)


class _Run(Run[SegmenterTrainConfig]):
    def __init__(
        self,
        model: Segmenter,
        data: InstanceSet,
        held_out: InstanceSet,
        config: SegmenterTrainConfig,
        out: Path,
        save: SaveFunction | None,
    ) -> None:
        identity = {"data": _fingerprint(data), "held-out data": _fingerprint(held_out)}
        super().__init__(model, config, out, identity, config.precision)
        self.segmenter = model
        self.save = save
        self.statistics = pixel_statistics(data)
        self.batches = SceneBatches(data, config, self.statistics, self.device)
        self.held = SceneBatches(held_out, config, self.statistics, self.device)
        self.held.size = self.batches.size
        if any(side % self.segmenter.stride for side in self.batches.size):
            raise ValueError(
                f"sides of pictures must be multiples of {self.segmenter.stride}, got "
                f"{self.batches.size}; give a size"
            )
        named = zip(data.classes, self.batches.learned.tolist(), strict=True)
        self.unseen = [name for name, learned in named if not learned]
        self._final: dict[str, Any] | None = None

    def finish(self, progress: bool | None) -> SegmenterResult:
        """Train to the end of the budget, and score."""
        history = self.train(progress)
        scores = self._final or self._scores(range(len(self.held.data)), complete=True)
        mean, std = self.statistics
        return SegmenterResult(
            step=self.at.step,
            scores=scores,
            cpu_seconds=self.at.seconds,
            history=history,
            folder=self.out / "last",
            mean=mean,
            std=std,
            size=self.batches.size,
        )

    def step(self, fraction: float) -> dict[str, Tensor]:
        config, step = self.config, self.at.step
        images, targets = self.batches.train(step)
        torch.manual_seed(step_seed(config.seed, step))  # dropout and stochastic depth
        with self.autocast():
            # A negative number: other draws than those of the batch.
            generator = torch.Generator().manual_seed(step_seed(config.seed, -1 - step))
            losses = self.segmenter.losses(images, targets, config.masks, generator)
        loss = torch.stack(list(losses.values())).sum()
        self.descend(loss, fraction)
        parts = {f"loss/{name}": part.detach() for name, part in losses.items()}
        return {"loss": loss.detach(), **parts}

    def validate(self) -> dict[str, float]:
        with self.averaged():
            given = self._given_boxes(self._some())
        return {f"validation/mask_iou_{name}": iou for name, iou in given.items()}

    def checkpoint(self) -> None:
        if self.save is None:
            return
        mean, std = self.statistics
        with self.averaged():
            if self.at.finished:
                scores = self._final = self._scores(range(len(self.held.data)), complete=True)
            else:
                # Of a hundred wild detections in every scene, masks would take minutes.
                scores = self._scores(self._some(), complete=False)
            training: dict[str, Any] = {
                **self.facts(),
                "mean": mean,
                "std": std,
                "size": self.batches.size,
                "unseen": self.unseen,
                "held_out": scores,
            }
            self.save(self.segmenter, self.out / "last", training)

    def renew_norms(self) -> None:
        count = self.config.norm_batches
        if count:
            steps = (torch.tensor(self.at.step + k) for k in range(count))
            reestimate_batch_norm(_Pass(self.model, self._seen), steps)

    def _seen(self, step: int) -> None:
        """Show the network the scenes of a step as they are."""
        images, targets = self.batches.plain(self.batches.rows(step))
        generator = torch.Generator().manual_seed(step_seed(self.config.seed, -1 - step))
        self.segmenter.losses(images, targets, self.config.masks, generator)

    def _some(self) -> list[int]:
        """Held-out scenes to look at while training, spread evenly."""
        count = min(self.config.validate_samples, len(self.held.data))
        return np.linspace(0, len(self.held.data) - 1, count).round().astype(int).tolist()

    def _scores(self, rows: Sequence[int], complete: bool) -> dict[str, Any]:
        classes = np.concatenate([scene.classes for scene in self._scenes(rows)])
        n_seen = int(self.batches.learned[classes].sum())
        told: dict[str, Any] = {
            "scenes": len(rows),
            "instances": {"seen": n_seen, "unseen": len(classes) - n_seen},
            "given_boxes": _finite(self._given_boxes(rows)),
        }
        if complete and len(classes) and importlib.util.find_spec("pycocotools") is not None:
            told["found"] = _finite(self._found(rows))
        return told

    def _given_boxes(self, rows: Sequence[int]) -> dict[str, float]:
        """Mean IoU over `seen` and `unseen` classes; NaN without any."""
        told = iou_by_box_quality(
            self.segmenter,
            self.batches.normalised,
            self._scenes(rows),
            self.unseen,
            self.held.data.classes,
            qualities=(),
            batch_size=self.config.batch_size,
            device=self.device,
        )
        return told["loosened"]["1.0"]

    def _found(self, rows: Sequence[int]) -> dict[str, float]:
        told = evaluate_segmenter(
            self.segmenter,
            self.batches.normalised,
            self._scenes(rows),
            self.held.data.classes,
            batch_size=self.config.batch_size,
            device=self.device,
        )
        own = told.pop("classes")
        seen = set(own) - set(self.unseen)
        parts = {"seen": seen, "unseen": set(own) & set(self.unseen)}
        by_part = {
            f"{kind}_ap_{part}": class_mean(own, f"{kind}_ap", names)
            for kind in ("box", "mask")
            for part, names in parts.items()
        }
        return {**told, **by_part}

    def _scenes(self, rows: Sequence[int]) -> Iterator[Scene]:
        return (self.held.scene(row) for row in rows)


class _Pass(nn.Module):
    """A forward pass of training as a module, which is what estimates of statistics call."""

    def __init__(self, model: nn.Module, show: Callable[[int], None]) -> None:
        super().__init__()
        self.model = model
        self._show = show

    def forward(self, step: Tensor) -> None:
        self._show(int(step))


def _check_sets(model: Segmenter, train: InstanceSet, held_out: InstanceSet) -> None:
    if not len(train) or not len(held_out):
        raise ValueError(f"scenes are needed, got {len(train)} and {len(held_out)} held out")
    if tuple(train.classes) != tuple(held_out.classes):
        raise ValueError(
            f"held-out scenes must have the classes of the training scenes, "
            f"{', '.join(train.classes)}, got {', '.join(held_out.classes)}"
        )
    n_classes = model.config.n_classes
    if n_classes != len(train.classes):
        raise ValueError(
            f"the network must have {len(train.classes)} classes, as the scenes, got {n_classes}"
        )


def _fingerprint(data: InstanceSet) -> list[Any]:
    """Tells sets apart without reading all of their pixels."""
    digest = 0
    for k in np.unique(np.linspace(0, len(data) - 1, min(len(data), 16)).round()):
        scene = data[int(k)]
        for array in (scene.image, scene.boxes, scene.classes, scene.masks):
            digest = zlib.crc32(np.ascontiguousarray(array).tobytes(), digest)
    return [len(data), list(data.classes), digest]


def _finite(scores: dict[str, float]) -> dict[str, float]:
    """What is a number: JSON has no NaN."""
    return {name: value for name, value in scores.items() if math.isfinite(value)}
