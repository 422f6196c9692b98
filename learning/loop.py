"""The training loop of every policy: it knows losses and data, not what is learned.

`torchrun --nproc-per-node N` spreads it over N processes by DistributedDataParallel.
"""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from learning.adamw import FlatAdamW
from learning.batches import Batch, BatchOrder, DemoTensors, return_weights
from learning.checkpoint import CheckpointError, save_checkpoint
from learning.demonstrations import Demonstrations
from learning.ema import Ema
from learning.flat import FlatParameters
from learning.ranks import Ranks, joined
from learning.train_config import TrainConfig, learning_rate
from learning.train_log import TrainLog
from learning.train_state import read_state, restore_training, training_tensors, write_state

__all__ = ["Batch", "SaveFunction", "TrainConfig", "TrainResult", "Trainable", "train"]

STATE_FILE = "train_state.safetensors"
# These change how a run is watched or where it computes, not what it is.
_FREE_ON_RESUME = ("log_every", "save_every", "threads", "device")

SaveFunction = Callable[[nn.Module, Path, dict[str, Any]], None]


@runtime_checkable
class Trainable(Protocol):
    """What the loop asks of an `nn.Module`, besides `n_obs_steps` and `horizon`.

    The two numbers are attributes of the module or of its `config`. All that training changes must
    be in `state_dict()`.
    """

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar loss, averaged over the batch, and detached values to log."""
        ...

    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:
        """Held-out metrics, averaged over the batch; called under `torch.no_grad`."""
        ...


@dataclass(frozen=True)
class TrainResult:
    """What a training gave.

    Attributes:
        step: steps done.
        best_score: the highest evaluation score; None without evaluations.
        cpu_seconds: spent in training steps (wall seconds on a GPU).
        history: rows of `metrics.jsonl`.
        folder: the checkpoint to use: `out/best` where there were evaluations, else `out/last`.
    """

    step: int
    best_score: float | None
    cpu_seconds: float
    history: list[dict[str, Any]]
    folder: Path


def train(
    model: nn.Module,
    demos: Demonstrations,
    config: TrainConfig,
    out: str | Path,
    evaluate: Callable[[nn.Module], float] | None = None,
    resume: bool = True,
    *,
    save: SaveFunction | None = None,
    progress: bool | None = None,
) -> TrainResult:
    """Train a model on demonstrations and keep its best checkpoint.

    Writes `out/best` and `out/last` (checkpoints), `out/train_state.safetensors`,
    `out/metrics.jsonl` and `out/tensorboard`. Called again with the same arguments after a kill, it
    goes on where the last saved state was; with a budget in steps, on a CPU, the weights end bit by
    bit as if there had been no kill.

    Args:
        model: an `nn.Module` that is `Trainable`; trained in place and left with the final averaged
            weights, on its device and in evaluation mode.
        demos: what to imitate.
        config: how to train.
        out: folder of the run, made if absent.
        evaluate: score of the model (episodes on selection seeds), higher is better. It runs with
            the averaged weights in evaluation mode, and its random numbers do not touch training's.
            Checkpoints are chosen by it, not by the loss; of equals the later is kept.
        resume: whether to go on with a run found in `out`; False starts afresh.
        save: writes a checkpoint, `save(model, folder, training)` with JSON facts of the training
            (step, score, config, data); it must replace the folder in one step, as
            `agents.save_policy` does. Default: `save_checkpoint` with the bare tensors.
        progress: whether to draw a progress bar; None where standard output is a terminal.

    Raises:
        ValueError: if the model is not trainable, `out` holds another run, or the loss became NaN.
        OSError: if `out` cannot be written; older checkpoints are untouched.
    """
    if not isinstance(model, Trainable):
        raise ValueError(f"{type(model).__name__} must have the methods loss and validate")
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with joined(config.device) as ranks:
            run = _Run(model, demos, config, Path(out), ranks, save or _save_tensors)
            run.start(resume)
            return run.finish(evaluate, progress)
    finally:
        torch.set_num_threads(threads)


@dataclass
class _Progress:
    """The numbers that a run carries from step to step."""

    step: int = 0
    seconds: float = 0.0
    evaluations: int = 0
    best_score: float | None = None
    best_step: int | None = None
    finished: bool = False


class _Loss(nn.Module):
    """The loss as a forward pass, which is what DistributedDataParallel wraps."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        return cast(Trainable, self.model).loss(batch, generator)


@dataclass
class _Run:
    model: nn.Module
    demos: Demonstrations
    config: TrainConfig
    out: Path
    ranks: Ranks
    save: SaveFunction
    at: _Progress = field(default_factory=_Progress)

    def __post_init__(self) -> None:
        config, ranks = self.config, self.ranks
        train_part, held_part = self.demos.split(config.holdout, config.seed)
        sizes = _window_sizes(self.model)
        self.data = DemoTensors(train_part, *sizes, ranks.device)
        self.held = None if held_part is None else DemoTensors(held_part, *sizes, ranks.device)
        weights = None
        if config.return_temperature is not None:
            weights = return_weights(train_part, config.return_temperature)
        self.order = BatchOrder(
            len(self.data), config.batch_size, config.seed, ranks.rank, ranks.world, weights
        )
        self.model.to(ranks.device)
        self.parameters = FlatParameters(self.model, matrices_apart=config.weight_decay > 0)
        self.optimizer = FlatAdamW(self.parameters, config.weight_decay)
        self.ema = None if config.ema_decay is None else Ema(self.parameters, config.ema_decay)
        self.generator = torch.Generator(ranks.device)
        self.generator.manual_seed(config.seed * 1_000_003 + ranks.rank)
        self.clock = time.process_time if ranks.device.type == "cpu" else time.perf_counter
        self.identity = {
            "config": {k: v for k, v in asdict(config).items() if k not in _FREE_ON_RESUME},
            "data": _fingerprint(self.demos),
            "world": ranks.world,
        }

    def start(self, resume: bool) -> None:
        """Begin afresh, or take up the state found in the folder."""
        self.out.mkdir(parents=True, exist_ok=True)
        state = self.out / STATE_FILE
        if resume and state.is_file():
            self._restore(*read_state(state))
        else:
            torch.manual_seed(self.config.seed * 1_000_003 + self.ranks.rank)
            if self.ranks.first:
                state.unlink(missing_ok=True)

    def finish(
        self, evaluate: Callable[[nn.Module], float] | None, progress: bool | None
    ) -> TrainResult:
        """Train to the end of the budget."""
        forward: nn.Module = _Loss(self.model)
        if self.ranks.world > 1:
            # A policy may leave a part unused at some steps (a proposal that warms up).
            forward = DistributedDataParallel(forward, find_unused_parameters=True)
        log = TrainLog(self.out, self.at.step, self.ranks.first, self.config.tensorboard, progress)
        with log:
            if not self.at.finished:
                self._loop(forward, evaluate, log)
        if self.ema is not None:
            self.parameters.attach([average.clone() for average in self.ema.tensors])
        self.model.eval()
        chosen = "last" if self.at.best_score is None else "best"
        return TrainResult(
            self.at.step, self.at.best_score, self.at.seconds, log.history, self.out / chosen
        )

    def _loop(
        self,
        forward: nn.Module,
        evaluate: Callable[[nn.Module], float] | None,
        log: TrainLog,
    ) -> None:
        config, at = self.config, self.at
        total = torch.zeros((), device=self.ranks.device)
        summed = 0
        self.model.train()
        began = self.clock()
        fraction = self._fraction(0.0)
        while fraction < 1:
            loss, values = self._step(forward, fraction)
            total += loss
            summed += 1
            at.step += 1
            fraction = self._fraction(self.clock() - began)
            last = fraction >= 1
            logging = last or at.step % config.log_every == 0
            validating = self.held is not None and (last or at.step % config.validate_every == 0)
            evaluating = evaluate is not None and self._evaluation_due(fraction, last)
            saving = last or at.step % config.save_every == 0 or evaluating
            if not (logging or validating or saving):
                continue
            at.seconds += self.clock() - began
            row: dict[str, float] = {}
            if logging:
                if not self.parameters.intact():
                    raise ValueError(
                        f"the loss of {type(self.model).__name__} must not touch the parameters' "
                        "gradients; leave zero_grad to the loop"
                    )
                row |= self._training_row(total / summed, values, fraction)
                total.zero_()
                summed = 0
            if validating and self.ranks.first:
                row |= self._validate()
            if evaluating and evaluate is not None:
                row["score"] = self._evaluate(evaluate)
            if row:
                log.row(at.step, min(fraction, 1.0), row)
            if saving:
                at.finished = last
                self._save_all()
            self.model.train()
            began = self.clock()

    def _step(self, forward: nn.Module, fraction: float) -> tuple[Tensor, dict[str, Tensor]]:
        config, step = self.config, self.at.step
        rows = self.order.rows(step).to(self.ranks.device, non_blocking=True)
        loss, values = forward(self.data.batch(rows), self.generator)
        self.parameters.zero_grad()
        loss.backward()
        if config.grad_clip is not None:
            self.parameters.clip_grad(config.grad_clip)
        self.optimizer.step(learning_rate(config, step, fraction))
        if self.ema is not None:
            self.ema.update(step)
        return loss.detach(), values

    def _fraction(self, running: float) -> float:
        """Share of the budget spent, given the seconds since the clock was last read."""
        spent = []
        if self.config.steps is not None:
            spent.append(self.at.step / self.config.steps)
        if self.config.cpu_seconds is not None:
            share = (self.at.seconds + running) / self.config.cpu_seconds
            spent.append(self.ranks.from_first(share))
        return max(spent)

    def _evaluation_due(self, fraction: float, last: bool) -> bool:
        if last:
            return True
        if self.config.evaluate_every is not None:
            return self.at.step % self.config.evaluate_every == 0
        # The tiny term keeps 0.3 * 10 from counting as 2.
        return math.floor(fraction * self.config.evaluations + 1e-9) > self.at.evaluations

    def _training_row(
        self, loss: Tensor, values: dict[str, Tensor], fraction: float
    ) -> dict[str, float]:
        mean = float(loss)
        if not math.isfinite(mean):
            raise ValueError(
                f"the loss became {mean} at step {self.at.step}; lower lr or grad_clip "
                "(saved checkpoints are from before)"
            )
        return {
            "loss": mean,
            **{name: float(value) for name, value in values.items() if name != "loss"},
            "lr": learning_rate(self.config, self.at.step, fraction),
            "cpu_seconds": self.at.seconds,
        }

    def _validate(self) -> dict[str, float]:
        assert self.held is not None
        assert isinstance(self.model, Trainable)
        n_rows = min(len(self.held), self.config.validate_samples)
        rows = torch.linspace(0, len(self.held) - 1, n_rows).round().long().to(self.ranks.device)
        generator = torch.Generator(self.ranks.device).manual_seed(self.config.seed)
        sums: dict[str, float] = {}
        with self._averaged(), torch.no_grad():
            for part in rows.split(self.config.batch_size):
                for name, value in self.model.validate(self.held.batch(part), generator).items():
                    sums[name] = sums.get(name, 0.0) + float(value) * len(part)
        return {f"validation/{name}": value / n_rows for name, value in sums.items()}

    def _evaluate(self, evaluate: Callable[[nn.Module], float]) -> float:
        self.at.evaluations += 1
        score = 0.0
        if self.ranks.first:
            with self._averaged():
                score = float(evaluate(self.model))
        score = self.ranks.from_first(score)
        if math.isfinite(score) and (self.at.best_score is None or score >= self.at.best_score):
            self.at.best_score, self.at.best_step = score, self.at.step
            self._checkpoint("best", score)
        return score

    def _averaged(self) -> "_Averaged":
        return _Averaged(self.model, self.ema)

    def _checkpoint(self, name: str, score: float | None) -> None:
        if not self.ranks.first:
            return
        training = {
            "step": self.at.step,
            "score": score,
            "cpu_seconds": self.at.seconds,
            "device": self.ranks.device.type,
            "episodes": self.demos.n_episodes,
            "rows": len(self.demos),
            "data": self.demos.meta,
            "train": asdict(self.config),
        }
        with self._averaged():
            self.save(self.model, self.out / name, training)

    def _save_all(self) -> None:
        self._checkpoint("last", self.at.best_score if self.at.best_step == self.at.step else None)
        tensors = training_tensors(self.model, self.optimizer, self.ema)
        states = {"torch": torch.get_rng_state(), "generator": self.generator.get_state()}
        if self.ranks.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.ranks.device)
        for name, state in states.items():
            for rank, found in enumerate(self.ranks.gather(state)):
                tensors[f"rng/{name}/{rank}"] = found
        if self.ranks.first:
            write_state(self.out / STATE_FILE, tensors, {"at": asdict(self.at), **self.identity})

    def _restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        for key, expected in self.identity.items():
            found = values.get(key)
            if found != expected:
                raise ValueError(
                    f"{self.out} holds a run with other {key}{_difference(found, expected)}; "
                    "use another folder, or start afresh (--fresh, resume=False)"
                )
        restore_training(tensors, self.model, self.optimizer, self.ema)
        try:
            self.at = _Progress(**values["at"])
            rank = self.ranks.rank
            torch.set_rng_state(tensors[f"rng/torch/{rank}"])
            self.generator.set_state(tensors[f"rng/generator/{rank}"])
            if self.ranks.device.type == "cuda" and f"rng/cuda/{rank}" in tensors:
                torch.cuda.set_rng_state(tensors[f"rng/cuda/{rank}"], self.ranks.device)
        except (KeyError, TypeError, RuntimeError) as error:
            raise CheckpointError(f"{self.out / STATE_FILE}: incomplete: {error}") from None


class _Averaged:
    """Evaluation mode with averaged weights; torch's random numbers are put back."""

    def __init__(self, model: nn.Module, ema: Ema | None) -> None:
        self._model = model
        self._swap = None if ema is None else ema.applied()

    def __enter__(self) -> None:
        self._fork = torch.random.fork_rng(enabled=True)
        self._fork.__enter__()
        self._training = self._model.training
        self._model.eval()
        if self._swap is not None:
            self._swap.__enter__()

    def __exit__(self, *error: Any) -> None:
        if self._swap is not None:
            self._swap.__exit__(*error)
        self._model.train(self._training)
        self._fork.__exit__(*error)


def _window_sizes(model: nn.Module) -> tuple[int, int]:
    sizes = []
    for name in ("n_obs_steps", "horizon"):
        value = getattr(model, name, getattr(getattr(model, "config", None), name, None))
        if not isinstance(value, int) or value < 1:
            raise ValueError(
                f"{type(model).__name__} must tell {name}, a whole number of at least 1, "
                f"as its own attribute or its config's; got {value!r}"
            )
        sizes.append(value)
    return sizes[0], sizes[1]


def _fingerprint(demos: Demonstrations) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in (demos.episode_offsets, demos.actions, demos.rewards):
        digest.update(np.ascontiguousarray(array).tobytes())
    for key, value in demos.observations.items():
        digest.update(f"{key}{value.shape}".encode())
        # Some hundred rows tell data sets apart; all pixels would take seconds.
        digest.update(np.ascontiguousarray(value[:: max(1, len(value) // 256)]).tobytes())
    return digest.hexdigest()


def _difference(found: Any, expected: Any) -> str:
    if not isinstance(found, dict) or not isinstance(expected, dict):
        return f" ({found}, now {expected})"
    changed = [
        f"{key} {found.get(key)!r}, now {expected.get(key)!r}"
        for key in {**found, **expected}
        if found.get(key) != expected.get(key)
    ]
    return f" ({'; '.join(changed[:4])})"


def _save_tensors(model: nn.Module, folder: Path, training: dict[str, Any]) -> None:
    document = {
        "method": type(model).__name__,
        "config": {},
        "spec": {},
        "training": training,
    }
    card = f"# {type(model).__name__}\n\nTrained for {training['step']} steps.\n"
    save_checkpoint(folder, document, model.state_dict(), card)
