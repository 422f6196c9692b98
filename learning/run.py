"""A training in steps that are functions of the seed and their number: what all of them share.

Budget, gradient step, averaged weights, log, saved state, and going on after a kill. What a step
learns, and from which data, is a subclass's business.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from learning.adamw import FlatAdamW
from learning.checkpoint import CheckpointError
from learning.ema import Ema
from learning.flat import FlatParameters
from learning.precision import has_bfloat16
from learning.ranks import Ranks, pick_device
from learning.train_config import TrainConfig, learning_rate
from learning.train_log import TrainLog
from learning.train_state import read_state, restore_training, training_tensors, write_state

STATE_FILE = "train_state.safetensors"
# These change how a run is watched or where it computes, not what it is.
_WATCHING = {"log_every", "save_every", "validate_every", "tensorboard"}
_FREE_ON_RESUME = _WATCHING | {"threads", "device", "workers"}

C = TypeVar("C", bound=TrainConfig)


@contextmanager
def isolated(threads: int) -> Iterator[None]:
    """So many torch threads inside the block; afterwards threads and random numbers as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.set_num_threads(before)


def plain(value: Any) -> Any:
    """As JSON gives it back: tuples become lists."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


@dataclass
class Progress:
    """The numbers that a run carries from step to step.

    Attributes:
        step: steps done.
        seconds: CPU-seconds of steps (wall seconds on a GPU).
        stage: of a schedule; -1 before the first step.
        finished: whether the budget is spent.
        evaluations: scores taken.
        best_score: the highest; None before the first.
        best_step: of the best score.
    """

    step: int = 0
    seconds: float = 0.0
    stage: int = -1
    finished: bool = False
    evaluations: int = 0
    best_score: float | None = None
    best_step: int | None = None


class Run(ABC, Generic[C]):
    """A model on its way through a budget; subclasses say what a step is.

    Attributes:
        model: on its device, trained in place.
        config: how to train.
        out: folder of the run.
        ranks: this process among those of the training; the first one writes and is scored.
        device: where it computes.
        precision: of autocast.
        at: how far it is.
    """

    def __init__(
        self,
        model: nn.Module,
        config: C,
        out: Path,
        identity: Mapping[str, Any],
        precision: str = "auto",
        *,
        ranks: Ranks | None = None,
        learned: nn.Module | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        """Move the model to its device and lay out its parameters.

        Args:
            model: to train.
            config: how.
            out: folder of the run; nothing is written yet.
            identity: JSON values that tell the data of this run from others'; a state saved with
                other ones, another model or another configuration is not taken up.
            precision: `float32`, `bfloat16` or `auto`, which takes bfloat16 where the device
                multiplies it in hardware.
            ranks: this process among others; None for a training in one.
            learned: the part of the model that learns; None for all of it.
            betas: of AdamW.
        """
        self.model, self.config, self.out = model, config, out
        self.ranks = ranks or Ranks(0, 1, pick_device(config.device))
        self.device = device = self.ranks.device
        model.to(device)
        self.parameters = FlatParameters(
            model if learned is None else learned, matrices_apart=config.weight_decay > 0
        )
        self.optimizer = FlatAdamW(self.parameters, config.weight_decay, betas)
        self.ema = None if config.ema_decay is None else Ema(self.parameters, config.ema_decay)
        bfloat16 = precision == "bfloat16" or (precision == "auto" and has_bfloat16(device))
        self.precision = torch.bfloat16 if bfloat16 else torch.float32
        self.at = Progress()
        self._clock = time.process_time if device.type == "cpu" else time.perf_counter
        settings = {k: v for k, v in asdict(config).items() if k not in _FREE_ON_RESUME}
        self._identity = {
            "config": plain(settings),
            "model": [f"{k} {tuple(v.shape)}" for k, v in model.state_dict().items()],
            **plain(identity),
        }

    @abstractmethod
    def step(self, fraction: float) -> dict[str, Tensor]:
        """One step, ended by `descend`.

        Args:
            fraction: share of the budget spent before.

        Returns:
            detached scalars to log, `loss` among them.
        """

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Held-out numbers to log, of the averaged weights; in the first process alone."""

    @abstractmethod
    def checkpoint(self) -> None:
        """Write `out/last`, of the averaged weights; in the first process alone."""

    def renew_norms(self) -> None:
        """Put statistics of batch normalisation right for the present weights, if there are any."""

    def evaluation_due(self, fraction: float, last: bool) -> bool:
        """Whether `evaluate` is called after a step; in all processes alike.

        Args:
            fraction: share of the budget that is spent.
            last: whether that is all of it.
        """
        return False

    def evaluate(self) -> float:
        """Score that chooses a checkpoint; in all processes alike."""
        raise NotImplementedError

    def more_state(self) -> dict[str, Tensor]:
        """What a step changes beside model, optimiser and average; in all processes alike."""
        return {}

    def restore_more(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `more_state` gave, found among all tensors of the state.

        Raises:
            KeyError: if something is absent.
        """

    def start(self, resume: bool) -> None:
        """Begin afresh, or take up the state found in the folder; all processes alike.

        Raises:
            ValueError: if the state is another run's.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        state = self.out / STATE_FILE
        if resume and state.is_file():
            self._restore(*read_state(state))
        elif self.ranks.first:
            state.unlink(missing_ok=True)
        if self.ranks.world > 1:
            self.ranks.broadcast(self.model.state_dict().values())
            if self.ema is not None and self.at.step == 0:  # it began at other weights
                self.ema.restart()

    def train(self, progress: bool | None) -> list[dict[str, Any]]:
        """Train to the end of the budget; the model keeps the averaged weights.

        Args:
            progress: whether to draw a bar; None where standard output is a terminal.

        Returns:
            rows of `metrics.jsonl`.
        """
        log = TrainLog(self.out, self.at.step, self.ranks.first, self.config.tensorboard, progress)
        with log:
            if not self.at.finished:
                self._loop(log)
        if self.ema is not None:
            self.parameters.attach([average.clone() for average in self.ema.tensors])
            self.renew_norms()
        self.model.eval()
        return log.history

    def descend(self, loss: Tensor, fraction: float) -> None:
        """Move the weights against the gradient of a loss, and the average towards them."""
        self.parameters.zero_grad()
        loss.backward()
        self.ranks.average(self.parameters.grads)
        if self.config.grad_clip is not None:
            self.parameters.clip_grad(self.config.grad_clip)
        self.optimizer.step(learning_rate(self.config, self.at.step, fraction))
        if self.ema is not None:
            self.ema.update(self.at.step)

    def autocast(self) -> torch.autocast:
        """Computation in the run's precision."""
        enabled = self.precision != torch.float32
        return torch.autocast(self.device.type, self.precision, enabled=enabled)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Evaluation mode, with the averaged weights and statistics of their own, inside the block.

        Torch's random numbers are afterwards as before.
        """
        model, training = self.model, self.model.training
        before = [(buffer, buffer.clone()) for buffer in model.buffers()]
        with torch.random.fork_rng(), nullcontext() if self.ema is None else self.ema.applied():
            model.eval()
            if self.ema is not None:
                self.renew_norms()
            try:
                yield
            finally:
                with torch.no_grad():
                    for buffer, old in before:
                        buffer.copy_(old)
        model.train(training)

    def facts(self) -> dict[str, Any]:
        """How the training went, for a checkpoint."""
        return {
            "step": self.at.step,
            "cpu_seconds": self.at.seconds,
            "device": self.device.type,
            "precision": str(self.precision).removeprefix("torch."),
            "train": asdict(self.config),
        }

    def _loop(self, log: TrainLog) -> None:
        config, at = self.config, self.at
        began, fraction = self._clock(), self._fraction(0.0)
        means = _Means()
        self.model.train()
        while fraction < 1:
            means.add(self.step(fraction))
            at.step += 1
            fraction = self._fraction(self._clock() - began)
            at.finished = fraction >= 1
            logging = at.finished or at.step % config.log_every == 0
            validating = at.finished or at.step % config.validate_every == 0
            evaluating = self.evaluation_due(fraction, at.finished)
            saving = at.finished or at.step % config.save_every == 0 or evaluating
            if not (logging or validating or saving):
                continue
            at.seconds += self._clock() - began
            self._check(means)
            row: dict[str, float] = {}
            if logging:
                row = means.take()
                row["lr"] = learning_rate(config, at.step, fraction)
                row["cpu_seconds"] = at.seconds
            if validating and self.ranks.first:
                row |= self.validate()
            if evaluating:
                row["score"] = self.evaluate()
            if row:
                log.row(at.step, min(fraction, 1.0), row)
            if saving:
                self._save()
            self.model.train()
            began = self._clock()

    def _fraction(self, running: float) -> float:
        """Share of the budget spent, given the seconds since the clock was last read."""
        spent = []
        if self.config.steps is not None:
            spent.append(self.at.step / self.config.steps)
        if self.config.cpu_seconds is not None:
            share = (self.at.seconds + running) / self.config.cpu_seconds
            spent.append(self.ranks.from_first(share))
        return max(spent)

    def _check(self, means: "_Means") -> None:
        total = float(means.totals["loss"]) if means.totals else 0.0
        if not math.isfinite(total):
            raise ValueError(
                f"the loss became {total} by step {self.at.step}; lower lr or grad_clip "
                "(saved checkpoints are from before)"
            )
        if not self.parameters.intact():
            raise ValueError(
                f"the loss of {type(self.model).__name__} must not touch the parameters' "
                "gradients; leave zero_grad to the loop"
            )

    def _save(self) -> None:
        if self.ranks.first:
            self.checkpoint()
        tensors = training_tensors(self.model, self.optimizer, self.ema) | self.more_state()
        if self.ranks.first:
            write_state(self.out / STATE_FILE, tensors, {"at": asdict(self.at), **self._identity})

    def _restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        for key, expected in self._identity.items():
            found = values.get(key)
            if found != expected:
                raise ValueError(
                    f"{self.out} holds a run with other {key}{_difference(found, expected)}; "
                    "use another folder, or start afresh (--fresh, resume=False)"
                )
        restore_training(tensors, self.model, self.optimizer, self.ema)
        try:
            self.at = Progress(**values["at"])
            self.restore_more(tensors)
        except (KeyError, TypeError, RuntimeError) as error:
            raise CheckpointError(f"{self.out / STATE_FILE}: incomplete: {error}") from None


class _Means:
    """Means of named scalars over the steps that have them."""

    def __init__(self) -> None:
        self.totals: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self.totals[name] = self.totals[name] + value if name in self.totals else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        found = {name: float(total) / self._counts[name] for name, total in self.totals.items()}
        self.totals, self._counts = {}, {}
        return found


def _difference(found: Any, expected: Any) -> str:
    """What differs, where a line can say it."""
    if isinstance(found, dict) and isinstance(expected, dict):
        changed = [
            f"{key} {found.get(key)!r}, now {expected.get(key)!r}"
            for key in {**found, **expected}
            if found.get(key) != expected.get(key)
        ]
        return f" ({'; '.join(changed[:4])})"
    if isinstance(expected, list) or isinstance(found, dict | list):
        return ""
    return f" ({found}, now {expected})"
