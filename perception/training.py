"""How classifiers are trained: any backbone, one or several tasks, fixed or growing images.

Every step is a function of the seed and its number, so a resumed training goes on bit by bit. The
average of the weights is what is evaluated and saved. Statistics of batch normalisation belong to
the weights that made them; for the averaged weights they are estimated anew.
"""

import math
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from learning.adamw import FlatAdamW
from learning.checkpoint import CheckpointError
from learning.ema import Ema
from learning.flat import FlatParameters
from learning.image_set import ImageSet
from learning.precision import has_bfloat16
from learning.progressive import reestimate_batch_norm, set_dropout
from learning.ranks import pick_device
from learning.train_config import learning_rate
from learning.train_log import TrainLog
from learning.train_state import read_state, restore_training, training_tensors, write_state
from perception.evaluation import Scores, evaluate_classifier
from perception.train_batches import Batches, Range, channel_statistics, step_seed, task_losses
from perception.train_config import ClassifierTrainConfig

STATE_FILE = "train_state.safetensors"
# These change how a run is watched or where it computes, not what it is.
_FREE_ON_RESUME = ("log_every", "save_every", "validate_every", "threads", "device", "tensorboard")

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
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with torch.random.fork_rng():
            run = _Run(model, train, held_out, config, Path(out), save)
            run.start(resume)
            return run.finish(progress)
    finally:
        torch.set_num_threads(threads)


@dataclass
class _Progress:
    """The numbers that a run carries from step to step."""

    step: int = 0
    seconds: float = 0.0
    stage: int = -1
    finished: bool = False


@dataclass
class _Run:
    model: nn.Module
    data: ImageSet
    held_out: ImageSet
    config: ClassifierTrainConfig
    out: Path
    save: SaveFunction | None
    at: _Progress = field(default_factory=_Progress)

    def __post_init__(self) -> None:
        config = self.config
        self.device = device = pick_device(config.device)
        self.model.to(device)
        self.parameters = FlatParameters(self.model, matrices_apart=config.weight_decay > 0)
        self.optimizer = FlatAdamW(self.parameters, config.weight_decay)
        self.ema = None
        if config.ema_decay is not None:
            self.ema = Ema(self.parameters, config.ema_decay)
        self.statistics = channel_statistics(self.data)
        self.batches = Batches(self.data, config, self.statistics, device)
        self.held = Batches(self.held_out, config, self.statistics, device)
        # Images of one size or another: they are scored at the size that training ends with.
        self.held.size = self.batches.size
        bfloat16 = config.precision == "bfloat16" or (
            config.precision == "auto" and has_bfloat16(device)
        )
        self.precision = torch.bfloat16 if bfloat16 else torch.float32
        self.clock = time.process_time if device.type == "cpu" else time.perf_counter
        self.identity: dict[str, Any] = {
            "config": _plain({k: v for k, v in asdict(config).items() if k not in _FREE_ON_RESUME}),
            "model": [f"{k} {tuple(v.shape)}" for k, v in self.model.state_dict().items()],
            "data": _fingerprint(self.data),
            "held-out data": _fingerprint(self.held_out),
        }

    def start(self, resume: bool) -> None:
        """Begin afresh, or take up the state found in the folder."""
        self.out.mkdir(parents=True, exist_ok=True)
        state = self.out / STATE_FILE
        if resume and state.is_file():
            self._restore(*read_state(state))
        else:
            state.unlink(missing_ok=True)
        self._set_dropout()

    def finish(self, progress: bool | None) -> ClassifierResult:
        """Train to the end of the budget."""
        log = TrainLog(self.out, self.at.step, True, self.config.tensorboard, progress)
        with log:
            if not self.at.finished:
                self._loop(log)
        if self.ema is not None:
            self.parameters.attach([average.clone() for average in self.ema.tensors])
            self._renew_norms()
        self.model.eval()
        scores = self._score(self.held, None)
        mean, std = self.statistics
        folder = self.out / "last"
        return ClassifierResult(
            self.at.step, scores, self.at.seconds, log.history, folder, mean, std, self.held.size
        )

    def _loop(self, log: TrainLog) -> None:
        config, at = self.config, self.at
        began, fraction = self.clock(), self._fraction(0.0)
        total, n_summed = torch.zeros((), device=self.device), 0
        self.model.train()
        while fraction < 1:
            total += self._step(fraction)
            n_summed += 1
            at.step += 1
            fraction = self._fraction(self.clock() - began)
            at.finished = fraction >= 1
            logging = at.finished or at.step % config.log_every == 0
            validating = at.finished or at.step % config.validate_every == 0
            saving = at.finished or at.step % config.save_every == 0
            if not (logging or validating or saving):
                continue
            at.seconds += self.clock() - began
            self._check_loss(float(total))
            row: dict[str, float] = {}
            if logging:
                lr = learning_rate(config, at.step, fraction)
                row = {"loss": float(total) / n_summed, "lr": lr, "cpu_seconds": at.seconds}
                total, n_summed = torch.zeros_like(total), 0
            if validating:
                row |= self._validate()
            if row:
                log.row(at.step, min(fraction, 1.0), row)
            if saving:
                self._save_all()
            self.model.train()
            began = self.clock()

    def _step(self, fraction: float) -> Tensor:
        config, at = self.config, self.at
        index = config.stage_index(at.step, fraction)
        if index != at.stage:
            self._enter(index)
        images, targets = self.batches.train(at.step, config.stage(index))
        torch.manual_seed(step_seed(config.seed, at.step))  # dropout and stochastic depth
        with self._autocast():
            logits = self.model(images)
        losses = task_losses(logits, targets, self.data.tasks, config.label_smoothing)
        loss = torch.stack(list(losses.values())).mean()
        self.parameters.zero_grad()
        loss.backward()
        if config.grad_clip is not None:
            self.parameters.clip_grad(config.grad_clip)
        self.optimizer.step(learning_rate(config, at.step, fraction))
        if self.ema is not None:
            self.ema.update(at.step)
        return loss.detach()

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

    def _renew_norms(self, index: int | None = None) -> None:
        """Statistics of batch normalisation for the present weights, at a stage's size."""
        stage = None if index is None else self.config.stage(index)
        size = None if stage is None else (stage.size, stage.size)
        count = self.config.norm_batches
        if count:
            rows = (self.batches.rows(self.at.step + k) for k in range(count))
            reestimate_batch_norm(self.model, (self.batches.plain(r, size) for r in rows))

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The averaged weights, with statistics of their own, inside the block."""
        if self.ema is None:
            yield
            return
        before = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        with self.ema.applied():
            self._renew_norms()
            try:
                yield
            finally:
                for buffer, old in before:
                    buffer.copy_(old)

    def _score(self, batches: Batches, most: int | None) -> Scores:
        with self._autocast():
            return evaluate_classifier(self.model, batches, self.config.batch_size, most)

    def _validate(self) -> dict[str, float]:
        with self._averaged():
            scores = self._score(self.held, self.config.validate_samples)
        told = {f"validation/{task}": score.accuracy for task, score in scores.tasks.items()}
        known = [value for value in told.values() if not math.isnan(value)]
        mean = sum(known) / len(known) if known else math.nan
        return {"validation/accuracy": mean, "validation/loss": scores.loss, **told}

    def _autocast(self) -> torch.autocast:
        enabled = self.precision != torch.float32
        return torch.autocast(self.device.type, self.precision, enabled=enabled)

    def _fraction(self, running: float) -> float:
        """Share of the budget spent, given the seconds since the clock was last read."""
        spent = []
        if self.config.steps is not None:
            spent.append(self.at.step / self.config.steps)
        if self.config.cpu_seconds is not None:
            spent.append((self.at.seconds + running) / self.config.cpu_seconds)
        return max(spent)

    def _check_loss(self, total: float) -> None:
        if not math.isfinite(total):
            raise ValueError(
                f"the loss became {total} by step {self.at.step}; lower lr or grad_clip "
                "(saved checkpoints are from before)"
            )

    def _save_all(self) -> None:
        if self.save is not None:
            with self._averaged():
                training: dict[str, Any] = {
                    "step": self.at.step,
                    "cpu_seconds": self.at.seconds,
                    "device": self.device.type,
                    "precision": str(self.precision).removeprefix("torch."),
                    "train": asdict(self.config),
                    "mean": self.statistics[0],
                    "std": self.statistics[1],
                    "size": self.held.size,
                    "held_out": self._score(self.held, None).plain(),
                }
                self.save(self.model, self.out / "last", training)
        tensors = training_tensors(self.model, self.optimizer, self.ema)
        write_state(self.out / STATE_FILE, tensors, {"at": asdict(self.at), **self.identity})

    def _restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        for key, expected in self.identity.items():
            if values.get(key) != expected:
                raise ValueError(
                    f"{self.out} holds a run with other {key}; use another folder, or start afresh "
                    "(--fresh, resume=False)"
                )
        restore_training(tensors, self.model, self.optimizer, self.ema)
        try:
            self.at = _Progress(**values["at"])
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{self.out / STATE_FILE}: incomplete: {error}") from None


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
    return [list(data.images.shape), pixels, labels, _plain(data.tasks)]


def _plain(value: Any) -> Any:
    """As JSON gives it back: tuples become lists."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
