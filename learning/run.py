"""A training in steps that are functions of the seed and their number: what all of them share.

Budget, gradient step, averaged weights, log, saved state, and going on after a kill. What a step
learns, and from which data, is a subclass's business.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
from learning.ranks import pick_device
from learning.train_config import TrainConfig, learning_rate
from learning.train_log import TrainLog
from learning.train_state import read_state, restore_training, training_tensors, write_state

STATE_FILE = "train_state.safetensors"
# These change how a run is watched or where it computes, not what it is.
_FREE_ON_RESUME = ("log_every", "save_every", "validate_every", "threads", "device", "tensorboard")

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
    """

    step: int = 0
    seconds: float = 0.0
    stage: int = -1
    finished: bool = False


class Run(ABC, Generic[C]):
    """A model on its way through a budget; subclasses say what a step is.

    Attributes:
        model: on its device, trained in place.
        config: how to train.
        out: folder of the run.
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
        """
        self.model, self.config, self.out = model, config, out
        self.device = device = pick_device(config.device)
        model.to(device)
        self.parameters = FlatParameters(model, matrices_apart=config.weight_decay > 0)
        self.optimizer = FlatAdamW(self.parameters, config.weight_decay)
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
        """Held-out numbers to log, of the averaged weights."""

    @abstractmethod
    def checkpoint(self) -> None:
        """Write `out/last`, of the averaged weights."""

    def renew_norms(self) -> None:
        """Put statistics of batch normalisation right for the present weights, if there are any."""

    def start(self, resume: bool) -> None:
        """Begin afresh, or take up the state found in the folder.

        Raises:
            ValueError: if the state is another run's.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        state = self.out / STATE_FILE
        if resume and state.is_file():
            self._restore(*read_state(state))
        else:
            state.unlink(missing_ok=True)

    def train(self, progress: bool | None) -> list[dict[str, Any]]:
        """Train to the end of the budget; the model keeps the averaged weights.

        Args:
            progress: whether to draw a bar; None where standard output is a terminal.

        Returns:
            rows of `metrics.jsonl`.
        """
        log = TrainLog(self.out, self.at.step, True, self.config.tensorboard, progress)
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
        """The averaged weights, with statistics of their own, inside the block."""
        if self.ema is None:
            yield
            return
        before = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        with self.ema.applied():
            self.renew_norms()
            try:
                yield
            finally:
                for buffer, old in before:
                    buffer.copy_(old)

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
        totals: dict[str, Tensor] = {}
        n_summed = 0
        self.model.train()
        while fraction < 1:
            for name, value in self.step(fraction).items():
                totals[name] = totals[name] + value if name in totals else value
            n_summed += 1
            at.step += 1
            fraction = self._fraction(self._clock() - began)
            at.finished = fraction >= 1
            logging = at.finished or at.step % config.log_every == 0
            validating = at.finished or at.step % config.validate_every == 0
            saving = at.finished or at.step % config.save_every == 0
            if not (logging or validating or saving):
                continue
            at.seconds += self._clock() - began
            self._check_loss(float(totals["loss"]))
            row: dict[str, float] = {}
            if logging:
                row = {name: float(value) / n_summed for name, value in totals.items()}
                row["lr"] = learning_rate(config, at.step, fraction)
                row["cpu_seconds"] = at.seconds
                totals, n_summed = {}, 0
            if validating:
                row |= self.validate()
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
            spent.append((self.at.seconds + running) / self.config.cpu_seconds)
        return max(spent)

    def _check_loss(self, total: float) -> None:
        if not math.isfinite(total):
            raise ValueError(
                f"the loss became {total} by step {self.at.step}; lower lr or grad_clip "
                "(saved checkpoints are from before)"
            )

    def _save(self) -> None:
        self.checkpoint()
        tensors = training_tensors(self.model, self.optimizer, self.ema)
        write_state(self.out / STATE_FILE, tensors, {"at": asdict(self.at), **self._identity})

    def _restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        for key, expected in self._identity.items():
            if values.get(key) != expected:
                raise ValueError(
                    f"{self.out} holds a run with other {key}; use another folder, or start afresh "
                    "(--fresh, resume=False)"
                )
        restore_training(tensors, self.model, self.optimizer, self.ema)
        try:
            self.at = Progress(**values["at"])
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{self.out / STATE_FILE}: incomplete: {error}") from None
