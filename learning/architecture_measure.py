"""What a searched architecture is worth: accuracy, step time and size, measured once and kept.

Source: Tan and Le 2021, "EfficientNetV2: Smaller Models and Faster Training", section 3.3. A
candidate is trained for a short while and rewarded with `A * S**-0.07 * P**-0.05`: accuracy, time
of a training step, number of parameters.

Departures: S is the CPU time of a step over that of a base network, the two measured in turns, so
that a machine that slows down slows down both; P is relative as well, a constant factor.

What is measured goes to a file row by row, and is looked up there when it is asked for again.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from learning.atomic import write_file

# What a network is worth


@dataclass(frozen=True)
class RewardConfig:
    """Exponents of the reward; the paper's (section 3.3).

    Attributes:
        time_exponent: of the step time, at most 0.
        parameters_exponent: of the number of parameters, at most 0.
    """

    time_exponent: float = -0.07
    parameters_exponent: float = -0.05

    def __post_init__(self) -> None:
        """Refuse rewards for being slow or large."""
        for name in ("time_exponent", "parameters_exponent"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) <= 0):
                raise ValueError(f"{name} must be at most 0, got {getattr(self, name)}")


def reward(
    accuracy: float, step_ratio: float, parameter_ratio: float, config: RewardConfig | None = None
) -> float:
    """`A * S**w * P**v`.

    Args:
        accuracy: 0 to 1.
        step_ratio: time of a training step over that of the base network.
        parameter_ratio: number of parameters over that of the base network.
        config: exponents w and v; the paper's if None.

    Raises:
        ValueError: for an accuracy outside of 0 to 1, or ratios that are not positive.
    """
    if not 0 <= accuracy <= 1:
        raise ValueError(f"accuracy must be 0 to 1, got {accuracy}")
    if not (0 < step_ratio < math.inf and 0 < parameter_ratio < math.inf):
        raise ValueError(f"ratios must be positive, got {step_ratio} and {parameter_ratio}")
    config = config or RewardConfig()
    slow = step_ratio**config.time_exponent
    large = parameter_ratio**config.parameters_exponent
    return float(accuracy * slow * large)


@dataclass(frozen=True)
class Candidate:
    """A measured network.

    Attributes:
        what: which one; JSON. Of a choice: its stages as lists.
        accuracy: after the short training, 0 to 1.
        step_seconds: CPU time of a training step, median.
        step_ratio: over that of the base network beside it, median of the rounds.
        n_parameters: count.
        parameter_ratio: over that of the base network.
        cpu_seconds: what it cost to build, train, score and time.
        reward: of accuracy and ratios.
    """

    what: Any
    accuracy: float
    step_seconds: float
    step_ratio: float
    n_parameters: int
    parameter_ratio: float
    cpu_seconds: float
    reward: float


def count_parameters(model: nn.Module) -> int:
    """Number of trainable numbers; the model may lie on the meta device."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def pareto_front(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those that no other one beats, by step time.

    One beats another if it is nowhere worse in accuracy, step time and number of parameters, and
    better somewhere. Equal ones do not beat each other.
    """
    many = list(candidates)
    costs = np.array([(-c.accuracy, c.step_ratio, c.n_parameters) for c in many]).reshape(-1, 3)
    beaten = [bool(((costs <= own).all(1) & (costs < own).any(1)).any()) for own in costs]
    kept = [c for c, is_beaten in zip(many, beaten, strict=True) if not is_beaten]
    return sorted(kept, key=lambda c: (c.step_ratio, c.n_parameters))


def best_within(candidates: Iterable[Candidate], bound: Candidate) -> Candidate | None:
    """The most accurate that needs no more step time and parameters than `bound`; None if none."""
    cheap = (
        c
        for c in candidates
        if c.step_ratio <= bound.step_ratio and c.n_parameters <= bound.n_parameters
    )
    return max(cheap, key=lambda c: c.accuracy, default=None)


# Measuring


@dataclass(frozen=True)
class TimingConfig:
    """How a training step is timed.

    Attributes:
        warm_up: rounds that do not count.
        rounds: that count; each runs every network once.
    """

    warm_up: int = 2
    rounds: int = 7

    def __post_init__(self) -> None:
        """Refuse to time nothing."""
        if self.warm_up < 0 or self.rounds < 1:
            raise ValueError(
                f"warm_up must be at least 0 and rounds at least 1, "
                f"got {self.warm_up} and {self.rounds}"
            )


def training_step(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """A whole step of training to be timed: forward, backward, SGD with momentum.

    The learning rate is 0: it costs the same, and a base network that is timed beside hundreds of
    candidates stays what it is.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)

    def step() -> None:
        model.train()
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def step_times(
    steps: Sequence[Callable[[], None]], config: TimingConfig, clock: Callable[[], float]
) -> list[list[float]]:
    """Times of several steps in turns: rows of rounds, a column for each step."""
    rows = []
    for number in range(config.warm_up + config.rounds):
        row = []
        for step in steps:
            start = clock()
            step()
            row.append(clock() - start)
        if number >= config.warm_up:
            rows.append(row)
    return rows


class ResultFile:
    """Rows of JSON by key, one a line, on the disk as soon as they are added. One process writes.

    A last line that a kill cut short is dropped.
    """

    def __init__(self, path: Path) -> None:
        """Read what is there.

        Raises:
            ValueError: if another line is no row.
        """
        self.path = path
        self._rows: dict[str, Mapping[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            return
        *lines, cut = path.read_bytes().split(b"\n")
        if cut:
            write_file(path, b"".join(line + b"\n" for line in lines))
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                self._rows[row["key"]] = row["row"]
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    f"{path}, line {number}: no row of results; move the file away"
                ) from None

    def get(self, key: str) -> Mapping[str, Any] | None:
        """The row of a key, if there is one."""
        return self._rows.get(key)

    def add(self, key: str, row: Mapping[str, Any]) -> None:
        """Keep a row."""
        self._rows[key] = row
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "row": row}) + "\n")
            file.flush()
            os.fsync(file.fileno())


def result_key(*parts: Any) -> str:
    """Hash of JSON values: the same facts in any order of their names give the same."""
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Evaluator:
    """Builds, trains, scores and times networks, each once."""

    def __init__(
        self,
        score: Callable[[nn.Module, int], float],
        batch: tuple[Tensor, Tensor],
        base: nn.Module,
        results: ResultFile,
        plan: Mapping[str, Any],
        seed: int = 0,
        config: RewardConfig | None = None,
        timing: TimingConfig | None = None,
        clock: Callable[[], float] = time.process_time,
    ) -> None:
        """Train nothing yet.

        Args:
            score: trains a fresh network with a seed; gives its accuracy, 0 to 1.
            batch: images and labels of a training step, of the size that trainings have.
            base: network whose step time and size are 1.
            results: where measurements are kept.
            plan: JSON; all that decides an accuracy beside network and seed. Measurements of
                another plan are not taken for one's own.
            seed: of weights and trainings.
            config: of the reward.
            timing: of steps.
            clock: seconds of CPU time.
        """
        self._score, self._batch, self._results = score, batch, results
        self._seed, self._config, self._clock = seed, config, clock
        self._timing = timing or TimingConfig()
        self._rounds = [self._timing.warm_up, self._timing.rounds]
        self._plan = dict(plan)
        self._base_step = training_step(base, *batch)
        self._base_parameters = count_parameters(base)

    def __call__(self, what: Any, build: Callable[[], nn.Module]) -> Candidate:
        """Measure a network, or look up what was measured.

        Args:
            what: which network, in JSON.
            build: makes it from torch's global random generator, which is seeded for it and put
                back afterwards.

        Raises:
            ValueError: if the score is no accuracy.
        """
        key = result_key(self._plan, self._rounds, self._seed, what)
        row = self._results.get(key)
        if row is None:
            row = json.loads(json.dumps(self._measure(what, build)))
            self._results.add(key, row)
        worth = reward(row["accuracy"], row["step_ratio"], row["parameter_ratio"], self._config)
        return Candidate(**row, reward=worth)

    def _measure(self, what: Any, build: Callable[[], nn.Module]) -> dict[str, Any]:
        start = self._clock()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            model = build()
            accuracy = float(self._score(model, self._seed))
            if not 0 <= accuracy <= 1:
                raise ValueError(f"score must give an accuracy of 0 to 1, got {accuracy}")
            steps = (self._base_step, training_step(model, *self._batch))
            times = step_times(steps, self._timing, self._clock)
        n_parameters = count_parameters(model)
        return {
            "what": what,
            "accuracy": accuracy,
            "step_seconds": median(own for _, own in times),
            "step_ratio": median(own / base for base, own in times),
            "n_parameters": n_parameters,
            "parameter_ratio": n_parameters / self._base_parameters,
            "cpu_seconds": self._clock() - start,
        }
