"""Examples of training: a moment and a place of an event, its past and what came true."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from learning.grid_sequence import GridSequence
from world_models.metnet2.config import MetNet2Config
from world_models.metnet2.inputs import (
    Past,
    check_sequence,
    motion_of,
    part_of,
    past_frames,
    past_of,
    truth_of,
    ways,
)
from world_models.metnet2.train_config import ForecastTrainConfig

_TOLERANCE = 0.1
"""Share of a lead step that a frame of the truth may be off."""
_TRIES = 50


@dataclass(frozen=True)
class Example:
    """One example, or several stacked.

    Attributes:
        frames: `(T, C, context, context)`, of `inputs.past_frames`.
        leads: `(L,)` seconds.
        moves: `(L, 2, target, target)` cells.
        truths: `(L, target, target)` by target, NaN where unknown.
    """

    frames: Tensor
    leads: Tensor
    moves: Tensor
    truths: dict[str, Tensor]


@dataclass(frozen=True)
class Start:
    """A moment that a forecast can start from: event, frame, and the lead times with a truth."""

    event: int
    index: int
    leads: tuple[float, ...]


class Examples:
    """Events as examples; what is computed of a moment is kept."""

    def __init__(self, events: Sequence[GridSequence], config: MetNet2Config) -> None:
        """Find the moments to start from.

        Raises:
            ValueError: if there are none, or an event does not fit the model.
        """
        for event in events:
            check_sequence(event, config)
        self.events, self.config = list(events), config
        self.starts = [
            Start(number, index, leads)
            for number, event in enumerate(events)
            for index in range(len(event))
            if (leads := self._leads(event, index))
        ]
        if not self.starts:
            span = (config.n_frames - 1) * config.frame_step + config.lead_step
            raise ValueError(f"no event is longer than the {span:g} s that an example needs")
        numbers = sorted({start.event for start in self.starts})
        self._by_event = [[s for s in self.starts if s.event == k] for k in numbers]
        self._motion: dict[tuple[int, int], Tensor] = {}

    def _leads(self, event: GridSequence, index: int) -> tuple[float, ...]:
        """Lead times with a truth, where the past is complete; else none."""
        config = self.config
        seconds = event.seconds - event.seconds[index]
        wanted = [-config.frame_step * k for k in range(config.n_frames)]
        complete = all(np.abs(seconds - w).min() < config.frame_step / 2 for w in wanted)
        near = _TOLERANCE * config.lead_step
        found = [s for s in config.leads if np.abs(seconds - s).min() <= near]
        return tuple(found) if complete else ()

    def past(self, start: Start) -> Past:
        """The past of a moment."""
        return past_of(self.events[start.event], start.index, self.config)

    def motion(self, start: Start, past: Past) -> Tensor | None:
        """Its motion, computed once; None in Eulerian coordinates."""
        if self.config.coordinates == "eulerian":
            return None
        key = (start.event, start.index)
        if key not in self._motion:
            self._motion[key] = motion_of(past, self.config)
        return self._motion[key]

    def cut(self, start: Start, top: int, left: int, leads: Sequence[float]) -> Example:
        """The example whose target has this corner."""
        config, event = self.config, self.events[start.event]
        past = self.past(start)
        velocity = self.motion(start, past)
        margin, side = config.margin, config.context
        frames = past_frames(past, velocity, config, (top - margin, left - margin, side, side))
        target = (top, left, config.target, config.target)
        if velocity is None:
            moves = torch.zeros(len(leads), 2, config.target, config.target)
        else:
            moves = part_of(ways(velocity, leads, config), config.motion.levels[-1], target)
        truths = {
            name: torch.stack([self._truth(event, start, lead, name, target) for lead in leads])
            for name in config.targets
        }
        return Example(frames, torch.tensor(leads, dtype=torch.float32), moves, truths)

    def _truth(
        self, event: GridSequence, start: Start, lead: float, name: str, window: tuple[int, ...]
    ) -> Tensor:
        near = _TOLERANCE * self.config.lead_step
        top, left, height, width = window
        truth = truth_of(event, start.index, lead, name, near)
        if truth is None:
            return torch.full((height, width), float("nan"))
        return torch.from_numpy(truth[top : top + height, left : left + width].copy())

    def place(
        self, start: Start, rng: np.random.Generator, train: ForecastTrainConfig
    ) -> tuple[int, int]:
        """Corner of a target, on known ground, rather where it is wet."""
        config, event = self.config, self.events[start.event]
        rows, columns = event.shape
        if min(rows, columns) < config.target:
            raise ValueError(
                f"{event.name} has {rows} x {columns} cells, a target {config.target} a side"
            )
        best, best_known = (0, 0), -1.0
        for _ in range(_TRIES):
            top = int(rng.integers(rows - config.target + 1))
            left = int(rng.integers(columns - config.target + 1))
            view = event.quantity[start.index, top : top + config.target : 4]
            view = view[:, left : left + config.target : 4]
            known = np.isfinite(view)
            share = float(known.mean())
            if share > best_known:
                best, best_known = (top, left), share
            wet = float((view[known] >= config.edges[1]).mean()) if known.any() else 0.0
            if share >= train.least_known and rng.random() < train.dry_share + train.wetness * wet:
                return top, left
        return best

    def draw(self, seed: int, train: ForecastTrainConfig) -> Example:
        """An example that is a function of the seed alone, turned, mirrored and scaled."""
        rng = np.random.default_rng(seed)
        # Events alike, however long they are: the next one will be another.
        own = self._by_event[int(rng.integers(len(self._by_event)))]
        start = own[int(rng.integers(len(own)))]
        n = min(train.leads, len(start.leads))
        leads = sorted(float(s) for s in rng.choice(start.leads, n, replace=False))
        leads += [leads[-1]] * (train.leads - n)
        example = self.cut(start, *self.place(start, rng, train), leads)
        quarters, mirror = int(rng.integers(4)), bool(rng.integers(2))
        if train.turn and not self.config.planes:
            example = turned(example, quarters, mirror)
        factor = math.exp(rng.uniform(-1, 1) * math.log(train.scale))
        free = self.config.transform == "log"  # what is in [0, 1] has its scale
        return scaled(example, factor) if train.scale > 1 and free else example

    def fixed(self, n: int, leads: Sequence[float], train: ForecastTrainConfig) -> list[Example]:
        """Examples spread over all moments that have a truth at all the lead times."""
        known = [s for s in self.starts if set(leads) <= set(s.leads)]
        if not known:
            raise ValueError(f"no moment of the held-out events has a truth at all of {leads}")
        found = []
        for k in range(n):
            start = known[k * len(known) // n % len(known)]
            place = self.place(start, np.random.default_rng(k), train)
            found.append(self.cut(start, *place, leads))
        return found

    def frequencies(self) -> dict[str, list[float]]:
        """How often each bin is met, over the events; the same for all targets."""
        edges = np.asarray(self.config.edges[1:-1])
        counts = np.zeros(self.config.n_bins)
        for event in self.events:
            values = event.quantity[::4, ::4, ::4]
            bins = np.digitize(values[np.isfinite(values)], edges)
            counts += np.bincount(bins, minlength=self.config.n_bins)
        shares = (counts + 1) / (counts + 1).sum()
        return {name: shares.tolist() for name in self.config.targets}


def turned(example: Example, quarters: int, mirror: bool) -> Example:
    """Turned counter-clockwise by quarters, then mirrored left to right; ways turn as well."""

    def turn(planes: Tensor) -> Tensor:
        planes = torch.rot90(planes, quarters, (-2, -1))
        return planes.flip(-1) if mirror else planes

    moves = turn(example.moves)
    x, y = moves[:, 0], moves[:, 1]
    for _ in range(quarters % 4):
        x, y = y, -x  # rows point down: what went right goes up
    if mirror:
        x = -x
    truths = {name: turn(truth) for name, truth in example.truths.items()}
    return replace(
        example, frames=turn(example.frames), moves=torch.stack([x, y], dim=1), truths=truths
    )


def scaled(example: Example, factor: float) -> Example:
    """With all of what is forecast, past and future, multiplied."""
    frames = example.frames.clone()
    frames[:, 0] *= factor
    truths = {name: truth * factor for name, truth in example.truths.items()}
    return replace(example, frames=frames, truths=truths)


def stacked(examples: Sequence[Example]) -> Example:
    """Examples as one batch: every tensor gets a first axis."""
    return Example(
        torch.stack([e.frames for e in examples]),
        torch.stack([e.leads for e in examples]),
        torch.stack([e.moves for e in examples]),
        {name: torch.stack([e.truths[name] for e in examples]) for name in examples[0].truths},
    )


def batch_seeds(seed: int, step: int, size: int, rank: int, world: int) -> Iterator[int]:
    """Seeds of this process's examples of a step: no two the same."""
    for k in range(size):
        number = (step * world + rank) * size + k
        yield (seed * 1_000_003 + number) % 2**63
