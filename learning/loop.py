"""How every policy is trained: it knows losses and data, not what is learned.

`torchrun --nproc-per-node N` spreads a training over N processes, which average their gradients.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from learning.batches import Batch, BatchOrder, DemoTensors, return_weights
from learning.checkpoint import save_checkpoint
from learning.demonstrations import Demonstrations
from learning.progressive import reestimate_batch_norm
from learning.ranks import Ranks, joined
from learning.run import Run, isolated
from learning.train_config import TrainConfig

# Batches that statistics of batch normalisation are estimated from for averaged weights.
_NORM_BATCHES = 16

__all__ = ["Batch", "SaveFunction", "TrainConfig", "TrainResult", "Trainable", "train"]

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
    with isolated(config.threads), joined(config.device) as ranks:
        run = _Run(model, demos, config, Path(out), ranks, save or _save_tensors, evaluate)
        run.start(resume)
        history = run.train(progress)
    chosen = "last" if run.at.best_score is None else "best"
    return TrainResult(run.at.step, run.at.best_score, run.at.seconds, history, run.out / chosen)


class _Losses(nn.Module):
    """A policy whose forward pass is its loss."""

    def __init__(self, model: nn.Module, generator: torch.Generator) -> None:
        super().__init__()
        self.model, self.generator = model, generator

    def forward(self, batch: Batch) -> Tensor:
        return cast(Trainable, self.model).loss(batch, self.generator)[0]


class _Run(Run[TrainConfig]):
    def __init__(
        self,
        model: nn.Module,
        demos: Demonstrations,
        config: TrainConfig,
        out: Path,
        ranks: Ranks,
        save: SaveFunction,
        score: Callable[[nn.Module], float] | None,
    ) -> None:
        sizes = _window_sizes(model)
        identity = {"data": _fingerprint(demos), "world": ranks.world}
        super().__init__(model, config, out, identity, "float32", ranks=ranks)
        self.policy = cast(Trainable, model)
        self.demos, self.save, self.score = demos, save, score
        train_part, held_part = demos.split(config.holdout, config.seed)
        self.data = DemoTensors(train_part, *sizes, self.device)
        self.held = None if held_part is None else DemoTensors(held_part, *sizes, self.device)
        weights = None
        if config.return_temperature is not None:
            weights = return_weights(train_part, config.return_temperature)
        self.order = BatchOrder(
            len(self.data), config.batch_size, config.seed, ranks.rank, ranks.world, weights
        )
        self.generator = torch.Generator(self.device)
        self.generator.manual_seed(config.seed * 1_000_003 + ranks.rank)

    def start(self, resume: bool) -> None:
        """Begin afresh, or take up the state found in the folder."""
        torch.manual_seed(self.config.seed * 1_000_003 + self.ranks.rank)
        super().start(resume)

    def step(self, fraction: float) -> dict[str, Tensor]:
        rows = self.order.rows(self.at.step).to(self.device, non_blocking=True)
        loss, values = self.policy.loss(self.data.batch(rows), self.generator)
        self.descend(loss, fraction)
        return {**values, "loss": loss.detach()}

    def validate(self) -> dict[str, float]:
        if self.held is None:
            return {}
        n_rows = min(len(self.held), self.config.validate_samples)
        rows = torch.linspace(0, len(self.held) - 1, n_rows).round().long().to(self.device)
        generator = torch.Generator(self.device).manual_seed(self.config.seed)
        sums: dict[str, float] = {}
        with self.averaged(), torch.no_grad():
            for part in rows.split(self.config.batch_size):
                for name, value in self.policy.validate(self.held.batch(part), generator).items():
                    sums[name] = sums.get(name, 0.0) + float(value) * len(part)
        return {f"validation/{name}": value / n_rows for name, value in sums.items()}

    def renew_norms(self) -> None:
        rows = (self.order.rows(self.at.step + k).to(self.device) for k in range(_NORM_BATCHES))
        generator = torch.Generator(self.device).manual_seed(self.config.seed)
        losses = _Losses(self.model, generator)
        reestimate_batch_norm(losses, (self.data.batch(some) for some in rows))

    def evaluation_due(self, fraction: float, last: bool) -> bool:
        if self.score is None or last:
            return self.score is not None
        if self.config.evaluate_every is not None:
            return self.at.step % self.config.evaluate_every == 0
        # The tiny term keeps 0.3 * 10 from counting as 2.
        return math.floor(fraction * self.config.evaluations + 1e-9) > self.at.evaluations

    def evaluate(self) -> float:
        """The score; the best one's weights are kept, of equals the later."""
        assert self.score is not None
        at = self.at
        at.evaluations += 1
        score = 0.0
        if self.ranks.first:
            with self.averaged():
                score = float(self.score(self.model))
        score = self.ranks.from_first(score)
        if math.isfinite(score) and (at.best_score is None or score >= at.best_score):
            at.best_score, at.best_step = score, at.step
            if self.ranks.first:
                self._write("best", score)
        return score

    def checkpoint(self) -> None:
        self._write("last", self.at.best_score if self.at.best_step == self.at.step else None)

    def _write(self, name: str, score: float | None) -> None:
        training = {
            "step": self.at.step,
            "score": score,
            "cpu_seconds": self.at.seconds,
            "device": self.device.type,
            "episodes": self.demos.n_episodes,
            "rows": len(self.demos),
            "data": self.demos.meta,
            "train": asdict(self.config),
        }
        with self.averaged():
            self.save(self.model, self.out / name, training)

    def more_state(self) -> dict[str, Tensor]:
        """Random states of all processes: losses draw from them."""
        states = {"torch": torch.get_rng_state(), "generator": self.generator.get_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            f"rng/{name}/{rank}": found
            for name, state in states.items()
            for rank, found in enumerate(self.ranks.gather(state))
        }

    def restore_more(self, tensors: Mapping[str, Tensor]) -> None:
        rank = self.ranks.rank
        torch.set_rng_state(tensors[f"rng/torch/{rank}"])
        self.generator.set_state(tensors[f"rng/generator/{rank}"])
        if self.device.type == "cuda" and f"rng/cuda/{rank}" in tensors:
            torch.cuda.set_rng_state(tensors[f"rng/cuda/{rank}"], self.device)


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


def _save_tensors(model: nn.Module, folder: Path, training: dict[str, Any]) -> None:
    document = {
        "method": type(model).__name__,
        "config": {},
        "spec": {},
        "training": training,
    }
    card = f"# {type(model).__name__}\n\nTrained for {training['step']} steps.\n"
    save_checkpoint(folder, document, model.state_dict(), card)
