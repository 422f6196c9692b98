"""How a network of several perception tasks is trained, and affinities measured on the way.

Every step is a function of the seed and its number, so a resumed training goes on bit by bit. The
average of the weights is what is evaluated; statistics of batch normalisation are estimated anew
for it. A measurement leaves no trace: the weights are the same with and without.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learning.progressive import reestimate_batch_norm
from learning.run import Run, isolated
from learning.task_affinity import AffinityMeter, Method, affinities, flat_step
from learning.train_config import TrainConfig, learning_rate
from perception.multi_task import MultiTaskNet, Statistics, task_errors, task_losses
from perception.multi_task_set import TaskSet
from perception.train_batches import step_seed

_STATISTICS = 512
"""Images that means and deviations are taken from, spread evenly."""


@dataclass(frozen=True)
class MultiTaskTrainConfig(TrainConfig):
    """How to train a network of several tasks; see `TrainConfig` for what is not told here.

    Attributes:
        flip: whether images are mirrored left to right, with all that is said of them.
        norm_batches: batches that statistics of batch normalisation are re-estimated from, for the
            averaged weights; 0 never re-estimates.
        precision: `float32`, `bfloat16` (autocast) or `auto`. Affinities are always measured in
            float32: they are small differences of losses.
        affinity_every: steps from one measurement of affinities to the next; 0 never measures.
        affinity_methods: `look-ahead`, `first-order` or both.
    """

    batch_size: int = 32
    lr: float = 6e-3
    weight_decay: float = 0.01
    warmup_steps: int = 50
    ema_decay: float | None = 0.995
    flip: bool = True
    norm_batches: int = 8
    precision: str = "float32"
    affinity_every: int = 0
    affinity_methods: tuple[Method, ...] = ("look-ahead",)

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        super().__post_init__()
        for name in ("norm_batches", "affinity_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"precision must be auto, float32 or bfloat16, got {self.precision!r}")
        known, given = get_args(Method), tuple(self.affinity_methods)
        if not given or set(given) - set(known) or len(set(given)) < len(given):
            raise ValueError(f"affinity_methods must be of {', '.join(known)}, got {given}")
        if self.return_temperature is not None:
            raise ValueError("images have no return; leave return_temperature None")


@dataclass(frozen=True)
class MeasuredAffinity:
    """Affinities, the mean over a training.

    Attributes:
        matrix: `(T, T)`; row i steps, column j is looked at.
        measurements: how many the mean is of.
        cpu_seconds: that they cost together (wall seconds on a GPU).
    """

    matrix: NDArray[np.float64]
    measurements: int
    cpu_seconds: float


@dataclass(frozen=True)
class MultiTaskResult:
    """What a training gave.

    Attributes:
        step: steps done.
        losses: of the held-out images by task, by the final averaged weights.
        errors: likewise, in words of the task; see `task_errors`.
        affinities: by method, if they were measured.
        cpu_seconds: spent in training steps, measurements included (wall seconds on a GPU).
        history: rows of `metrics.jsonl`.
        mean: of the channels of the training images, of values from 0 to 1; was subtracted.
        std: of the same; was divided by.
        statistics: what values and numbers were standardised by.
    """

    step: int
    losses: dict[str, float]
    errors: dict[str, float]
    affinities: dict[str, MeasuredAffinity]
    cpu_seconds: float
    history: list[dict[str, Any]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    statistics: Statistics


def train_tasks(
    model: MultiTaskNet,
    train: TaskSet,
    held_out: TaskSet,
    config: MultiTaskTrainConfig,
    out: str | Path,
    resume: bool = True,
    *,
    progress: bool | None = None,
) -> MultiTaskResult:
    """Train a network on its tasks, which may be some of those of the sets.

    The loss is the mean over tasks. Writes `out/train_state.safetensors`, `out/metrics.jsonl` and
    `out/tensorboard`. Called again with the same arguments after a kill, it goes on where the last
    saved state was; with a budget in steps, on a CPU, weights and affinities end bit by bit as if
    there had been no kill.

    Args:
        model: trained in place and left with the final averaged weights, in evaluation mode.
        train: what to learn from.
        held_out: what to be scored by; it chooses nothing.
        config: how to train.
        out: folder of the run, made if absent.
        resume: whether to go on with a run found in `out`; False starts afresh.
        progress: whether to draw a progress bar; None where standard output is a terminal.

    Raises:
        ValueError: if the sets lack a task of the network, `out` holds another run, or the loss
            became NaN.
        OSError: if `out` cannot be written.
    """
    for data in (train, held_out):
        for task, target in model.targets.items():
            if data.targets.get(task) != target:
                raise ValueError(
                    f"images must have the task {task} as the network has it, {target}, got "
                    f"{data.targets.get(task)}"
                )
    with isolated(config.threads):
        run = _Run(model, train, held_out, config, Path(out))
        run.start(resume)
        return run.finish(progress)


class _Run(Run[MultiTaskTrainConfig]):
    def __init__(
        self,
        model: MultiTaskNet,
        data: TaskSet,
        held_out: TaskSet,
        config: MultiTaskTrainConfig,
        out: Path,
    ) -> None:
        self.net = model
        self.meters: dict[str, AffinityMeter] = {}
        if config.affinity_every:
            self.meters = {m: AffinityMeter(len(model.targets)) for m in config.affinity_methods}
            # In the network, for then they are saved and resumed with it.
            model.meters = torch.nn.ModuleDict(self.meters)
        identity = {
            "tasks": list(model.targets),
            "data": _fingerprint(data, model),
            "held-out data": _fingerprint(held_out, model),
        }
        super().__init__(model, config, out, identity, config.precision)
        self.batches = TaskBatches(data, model, config, self.device)
        self.held = held_out

    def finish(self, progress: bool | None) -> MultiTaskResult:
        """Train to the end of the budget, and score."""
        history = self.train(progress)
        losses, errors = self._scores(len(self.held))
        measured = {
            method: MeasuredAffinity(
                meter.mean().numpy(), int(meter.count), float(meter.seconds.cpu())
            )
            for method, meter in self.meters.items()
        }
        if self.meters:
            del self.net.meters
        batches = self.batches
        return MultiTaskResult(
            step=self.at.step,
            losses=losses,
            errors=errors,
            affinities=measured,
            cpu_seconds=self.at.seconds,
            history=history,
            mean=tuple(batches.mean.flatten().tolist()),
            std=tuple(batches.std.flatten().tolist()),
            statistics=batches.statistics,
        )

    def step(self, fraction: float) -> dict[str, Tensor]:
        config, step = self.config, self.at.step
        images, targets = self.batches.train(step)
        torch.manual_seed(step_seed(config.seed, step))  # dropout and stochastic depth
        if config.affinity_every and step % config.affinity_every == 0:
            self._measure(images, targets, fraction)
        with self.autocast():
            outputs = self.net(images)
        losses = self._losses(outputs, targets)
        loss = torch.stack(list(losses.values())).mean()
        self.descend(loss, fraction)
        parts = {f"loss/{task}": part.detach() for task, part in losses.items()}
        return {"loss": loss.detach(), **parts}

    def validate(self) -> dict[str, float]:
        with self.averaged():
            losses, _ = self._scores(self.config.validate_samples)
        return {f"validation/{task}": loss for task, loss in losses.items()}

    def checkpoint(self) -> None:
        """Nothing beside the saved state: it holds all that a run is asked for."""

    def renew_norms(self) -> None:
        count = self.config.norm_batches
        if count:
            rows = (self.batches.rows(self.at.step + k) for k in range(count))
            reestimate_batch_norm(self.model, (self.batches.images(r) for r in rows))

    def _measure(self, images: Tensor, targets: dict[str, Tensor], fraction: float) -> None:
        config, shared = self.config, self.net.shared()
        lr = learning_rate(config, self.at.step, fraction)
        step = flat_step(self.parameters, self.optimizer, shared, lr, config.grad_clip)

        def losses() -> dict[str, Tensor]:
            return self._losses(self.net(images), targets)

        for name, meter in self.meters.items():
            method: Method = "look-ahead" if name == "look-ahead" else "first-order"
            began = self._clock()
            found = affinities(losses, shared, step, method, self.net)
            meter.add(found, self._clock() - began)

    def _losses(self, outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        return task_losses(outputs, targets, self.net.targets, self.batches.statistics)

    @torch.no_grad()
    def _scores(self, most: int) -> tuple[dict[str, float], dict[str, float]]:
        """Held-out losses and errors of the first so many images, in evaluation mode."""
        self.model.eval()
        n = min(most, len(self.held))
        totals: tuple[dict[str, float], dict[str, float]] = ({}, {})
        for start in range(0, n, 64):
            rows = np.arange(start, min(start + 64, n))
            with self.autocast():
                outputs = self.net(self.batches.images(rows, self.held))
            targets = self.batches.targets(rows, self.held)
            told = task_errors(outputs, targets, self.net.targets, self.batches.statistics)
            losses = {k: float(v) for k, v in self._losses(outputs, targets).items()}
            for total, values in zip(totals, (losses, told), strict=True):
                for task, value in values.items():
                    total[task] = total.get(task, 0.0) + value * len(rows) / n
        return totals


class TaskBatches:
    """Images and targets of a set, by the number of a step.

    Attributes:
        data: the set.
        mean: of the channels `(3, 1, 1)`, of values from 0 to 1.
        std: of the same.
        statistics: mean and deviation of values and numbers, by task.
    """

    def __init__(
        self,
        data: TaskSet,
        model: MultiTaskNet,
        config: MultiTaskTrainConfig,
        device: torch.device,
    ) -> None:
        """Take means and deviations from at most 512 images; nothing else is read yet."""
        self.data = data
        self._kinds, self._config, self._device = model.targets, config, device
        some = np.unique(np.linspace(0, len(data) - 1, min(len(data), _STATISTICS)).round())
        rows = some.astype(np.int64)
        pixels = data.images[rows].reshape(-1, 3)
        self.mean, self.std = (
            torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1) / 255
            for values in (pixels.mean(0), np.maximum(pixels.std(0), 1.0))
        )
        self.statistics: Statistics = {
            task: _mean_and_deviation(data.arrays[task][rows])
            for task, target in self._kinds.items()
            if target.kind in ("values", "numbers")
        }
        self._epoch = -1
        self._order: NDArray[np.int64] = np.empty(0, np.int64)

    def rows(self, step: int) -> NDArray[np.int64]:
        """Which images a step sees: all of them once before any of them twice."""
        n, batch = len(self.data), self._config.batch_size
        places = np.arange(step * batch, (step + 1) * batch)
        return np.array([self._permuted(place // n)[place % n] for place in places.tolist()])

    def train(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Normalised images `(B, 3, H, W)` and targets by task, some mirrored."""
        rows = self.rows(step)
        images, targets = self.images(rows), self.targets(rows)
        if not self._config.flip:
            return images, targets
        generator = torch.Generator().manual_seed(step_seed(self._config.seed, step))
        coins = (torch.rand(len(rows), generator=generator) < 0.5).to(self._device)
        return mirrored(images, coins, -1), {
            task: _mirrored_target(one, coins, self._kinds[task].kind)
            for task, one in targets.items()
        }

    def images(self, rows: NDArray[np.int64], data: TaskSet | None = None) -> Tensor:
        """Normalised images of some rows as they are, of this set or another."""
        chosen = np.ascontiguousarray((data or self.data).images[rows])
        pixels = torch.from_numpy(chosen).to(self._device).permute(0, 3, 1, 2).float() / 255
        return ((pixels - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def targets(self, rows: NDArray[np.int64], data: TaskSet | None = None) -> dict[str, Tensor]:
        """Targets of some rows by task, of this set or another."""
        arrays = (data or self.data).arrays
        return {
            task: torch.from_numpy(np.ascontiguousarray(arrays[task][rows])).to(self._device)
            for task in self._kinds
        }

    def _permuted(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self._epoch:
            rng = np.random.default_rng((self._config.seed, epoch))
            self._epoch, self._order = epoch, rng.permutation(len(self.data))
        return self._order


def mirrored(x: Tensor, coins: Tensor, axis: int) -> Tensor:
    """Samples turned round along an axis where their coin `(B,)` is True."""
    return torch.where(coins.view(-1, *(1,) * (x.ndim - 1)), x.flip(axis), x)


def _mirrored_target(x: Tensor, coins: Tensor, kind: str) -> Tensor:
    if kind == "numbers":
        return x
    if kind != "directions":
        return mirrored(x, coins, -1)
    # What points right in a picture points left in its mirror image.
    x = mirrored(x, coins, -2)
    signs = torch.where(coins, -1.0, 1.0).to(x)
    return torch.cat([x[..., :1] * signs.view(-1, 1, 1, 1), x[..., 1:]], dim=-1)


def _mean_and_deviation(values: NDArray[np.float32]) -> tuple[float, float]:
    std = float(values.std(dtype=np.float64))
    return float(values.mean(dtype=np.float64)), std if std > 0 else 1.0


def _fingerprint(data: TaskSet, model: MultiTaskNet) -> list[Any]:
    """Tells sets apart without reading all of them."""
    rows = np.unique(np.linspace(0, len(data) - 1, min(len(data), 16)).round().astype(np.int64))
    digest = 0
    for array in _arrays(data, model):
        digest = zlib.crc32(np.ascontiguousarray(array[rows]).tobytes(), digest)
    return [list(data.images.shape), digest]


def _arrays(data: TaskSet, model: MultiTaskNet) -> Iterator[NDArray[Any]]:
    yield data.images
    yield from (data.arrays[task] for task in model.targets)
