"""How MetNet-2 is trained: on places and moments of events, the past encoded once for some leads.

`torchrun --nproc-per-node N` spreads a training over N processes, which average their gradients.
Every step is a function of the seed and its number, so a resumed training goes on bit by bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learning.checkpoint import CheckpointError, read_checkpoint
from learning.grid_sequence import GridSequence
from learning.loop import TrainResult
from learning.ranks import Ranks, joined
from learning.run import Run, isolated
from world_models.metnet2.examples import Example, Examples, batch_seeds, stacked
from world_models.metnet2.losses import cross_entropy, mean_crps
from world_models.metnet2.model import MetNet2, middle, save_forecaster
from world_models.metnet2.scores import crps
from world_models.metnet2.train_config import ForecastTrainConfig

SCORE = "validation/crps"
SaveFunction = Callable[[MetNet2, Path, dict[str, Any]], None]


def train_metnet2(
    model: MetNet2,
    events: Sequence[GridSequence],
    held_out: Sequence[GridSequence],
    config: ForecastTrainConfig,
    out: str | Path,
    resume: bool = True,
    *,
    save: SaveFunction = save_forecaster,
    progress: bool | None = None,
) -> TrainResult:
    """Train a model on events, scored by the CRPS on others.

    Writes `out/last` and `out/best` (checkpoints of the averaged weights, the best by the held-out
    CRPS), `out/train_state.safetensors`, `out/metrics.jsonl` and `out/tensorboard`. Called again
    with the same arguments after a kill, it goes on where the last saved state was.

    Args:
        model: trained in place and left with the final averaged weights, in evaluation mode.
        events: to learn from.
        held_out: other events, which choose the checkpoint; empty: the last one is used.
        config: how to train.
        out: folder of the run, made if absent.
        resume: whether to go on with a run found in `out`; False starts afresh.
        save: writes a checkpoint, replacing the folder in one step.
        progress: whether to draw a progress bar; None where standard output is a terminal.

    Returns:
        What came out; `best_score` is minus the CRPS.

    Raises:
        ValueError: if the events do not fit the model, `out` holds another run, or the loss became
            NaN.
        OSError: if `out` cannot be written; older checkpoints are untouched.
    """
    train_part = Examples(events, model.config)
    held_part = Examples(held_out, model.config) if held_out else None
    with isolated(config.threads), joined(config.device) as ranks:
        run = _Run(model, train_part, held_part, config, Path(out), ranks, save)
        run.start(resume)
        history = run.train(progress)
    folder = Path(out) / ("last" if run.best is None else "best")
    best = None if run.best is None else -run.best
    return TrainResult(run.at.step, best, run.at.seconds, history, folder)


def event_facts(events: Sequence[GridSequence]) -> list[dict[str, Any]]:
    """What tells events from others: names, times and sums, as JSON values."""
    return [
        {
            "name": event.name,
            "first": int(event.times[0]),
            "frames": len(event),
            "shape": list(event.shape),
            "mean": round(float(np.nanmean(event.quantity[:: max(1, len(event) // 8)])), 6),
        }
        for event in events
    ]


class _Run(Run[ForecastTrainConfig]):
    model: MetNet2

    def __init__(
        self,
        model: MetNet2,
        train_part: Examples,
        held_part: Examples | None,
        config: ForecastTrainConfig,
        out: Path,
        ranks: Ranks,
        save: SaveFunction,
    ) -> None:
        model.set_climate(train_part.frequencies())
        identity = {
            "data": event_facts(train_part.events),
            "held_out": event_facts(held_part.events) if held_part else [],
            "network": model.config.to_dict(),
        }
        super().__init__(model, config, out, identity, config.precision, ranks=ranks)
        self.save_model = save
        self.train_part, self.held_part = train_part, held_part
        self.best: float | None = None
        self.held: list[Example] = []
        network = model.config
        self.window = middle(network.context, network.context, network.target)
        if held_part is not None and ranks.first:
            leads = config.validation_leads or _spread(network.leads)
            self.held = held_part.fixed(config.validation_crops, leads, config)

    def start(self, resume: bool) -> None:
        super().start(resume)
        if self.at.step:
            self.best = _score_of(self.out / "best")

    def step(self, fraction: float) -> dict[str, Tensor]:
        """Go down the loss of a few places and moments."""
        config, step, ranks = self.config, self.at.step, self.ranks
        seeds = batch_seeds(config.seed, step, config.batch_size, ranks.rank, ranks.world)
        batch = stacked([self.train_part.draw(seed, config) for seed in seeds])
        frames, moves = batch.frames.to(self.device), batch.moves.to(self.device)
        with self.autocast():
            logits = self.model(frames, batch.leads, self._moves(moves), self.window)
        generator = torch.Generator().manual_seed((config.seed * 7919 + step) % 2**63)
        loss = torch.zeros((), device=self.device)
        values: dict[str, Tensor] = {}
        for name, truth in batch.truths.items():
            parts = self._losses(logits[name], truth, generator)
            for part, value in parts.items():
                key = part if len(batch.truths) == 1 else f"{name}/{part}"
                values[key] = value.detach()
            loss = loss + config.cross_entropy * parts["cross_entropy"]
            loss = loss + config.crps * parts["crps"] / config.crps_unit
        self.descend(loss, fraction)
        return {"loss": loss.detach(), **values}

    def _losses(
        self, logits: Tensor, truth: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Means over some known cells; zero where none is."""
        chosen = torch.rand(truth.shape, generator=generator) < self.config.points
        cells = (torch.isfinite(truth) & chosen).to(self.device)
        picked = logits.movedim(2, -1)[cells].float()
        observed = truth.to(self.device)[cells]
        if not len(observed):  # the graph stays whole: all processes average the same gradients
            nothing = logits.float().sum() * 0.0
            return {"cross_entropy": nothing, "crps": nothing}
        edges = self.model.edges
        assert isinstance(edges, Tensor)
        return {
            "cross_entropy": cross_entropy(picked, observed, edges),
            "crps": mean_crps(picked, observed, edges),
        }

    def validate(self) -> dict[str, float]:
        """CRPS of the averaged weights by lead time, and over them; keeps the best."""
        if not self.held:
            return {}
        with self.averaged(), torch.no_grad():
            row = held_out_crps(self.model, self.held)
            if self.best is None or row[SCORE] < self.best:
                self.best = row[SCORE]
                self.save_model(self.model, self.out / "best", self.facts() | row)
        return row

    def checkpoint(self) -> None:
        """Write `out/last`."""
        with self.averaged():
            self.save_model(self.model, self.out / "last", self.facts())

    def facts(self) -> dict[str, Any]:
        """How the training went."""
        facts = super().facts()
        return facts | {
            "data": event_facts(self.train_part.events),
            "held_out": event_facts(self.held_part.events) if self.held_part else [],
            "processes": self.ranks.world,
        }

    def _moves(self, moves: Tensor) -> Tensor | None:
        return None if self.model.config.coordinates == "eulerian" else moves


def held_out_crps(model: MetNet2, held: Sequence[Example]) -> dict[str, float]:
    """Mean CRPS over all known cells of some examples: over all lead times, and of each."""
    config = model.config
    window = middle(config.context, config.context, config.target)
    sums: dict[float, list[float]] = {}
    name = config.targets[0]
    for example in held:
        moves = None if config.coordinates == "eulerian" else example.moves[None].to(model.device)
        logits = model(example.frames[None].to(model.device), example.leads, moves, window)[name]
        chances = logits[0].float().softmax(dim=1).cpu().numpy()
        for k, lead in enumerate(example.leads.tolist()):
            scores = crps(chances[k], config.edges, example.truths[name][k].numpy())
            known = scores[np.isfinite(scores)]
            total = sums.setdefault(lead, [0.0, 0.0])
            total[0] += float(known.sum())
            total[1] += len(known)
    means = {lead: total / max(n, 1) for lead, (total, n) in sorted(sums.items())}
    row = {f"validation/crps_{lead:g}s": mean for lead, mean in means.items()}
    return {SCORE: sum(means.values()) / len(means), **row}


def _spread(leads: Sequence[float]) -> tuple[float, ...]:
    """The first, the middle and the last."""
    return tuple(sorted({leads[0], leads[(len(leads) - 1) // 2], leads[-1]}))


def _score_of(folder: Path) -> float | None:
    """The held-out CRPS of a checkpoint, None if there is none."""
    try:
        score = read_checkpoint(folder)[0]["training"].get(SCORE)
    except CheckpointError:
        return None
    return float(score) if isinstance(score, float) and math.isfinite(score) else None


def with_weights(model: MetNet2, **changes: Any) -> MetNet2:
    """The same weights in a model of a changed configuration, such as another motion.

    Raises:
        ValueError: if the weights do not fit it.
    """
    other = MetNet2(replace(model.config, **changes))
    try:
        other.load_state_dict(model.state_dict())
    except RuntimeError as error:
        raise ValueError(f"the weights do not fit {changes}: {error}") from None
    return other.eval()
