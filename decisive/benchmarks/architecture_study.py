"""Trainings of `decisive benchmark architecture`: scaled networks, searched ones, both anew."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from decisive.benchmarks.architecture_networks import (
    N_CLASSES,
    Examples,
    accuracy,
    builder,
    fit,
    normalised,
    read_cifar10,
    space_of,
    title,
)
from decisive.progress import Meter
from decisive.statistics import wilson_interval
from learning.architecture_measure import Candidate, Evaluator, ResultFile, result_key
from learning.architecture_search import STRATEGIES, Choice, search
from perception.efficientnet import EfficientNet

if TYPE_CHECKING:
    from decisive.benchmarks.architecture import Arguments

UNIFORM = ((0.5, 1.0), (0.7, 1.0), (1.0, 1.0), (1.0, 1.5), (1.4, 1.0), (1.4, 1.5))
"""Factors of width and depth that the base is scaled by."""


class Study:
    """Data, base and measurements of one run."""

    def __init__(self, arguments: Arguments) -> None:
        """Read the images and what was measured before."""
        self.arguments = arguments
        self.base = arguments.network
        folder = None if arguments.data is None else Path(arguments.data) / "cifar10"
        rng = np.random.default_rng(arguments.seed)
        numbers = rng.permutation(50_000)[: arguments.images + arguments.held_out].tolist()
        both = read_cifar10(folder, "train", numbers)
        n = arguments.images
        self.train = Examples(both.images[:n], both.labels[:n])
        self.held_out = Examples(both.images[n:], both.labels[n:])
        self._folder = folder
        work = Path(arguments.work or "outputs/benchmarks/architecture")
        self.results = ResultFile(work / "measurements.jsonl")
        size = arguments.batch_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(arguments.seed)
            base = EfficientNet(self.base, N_CLASSES)
        batch = normalised(self.train.images[:size]), self.train.labels[:size]
        self.evaluator = Evaluator(
            self._score, batch, base, self.results, arguments.plan(), arguments.seed
        )

    def _score(self, model: nn.Module, seed: int) -> float:
        a = self.arguments
        fit(model, self.train, a.epochs, a.batch_size, a.lr, seed)
        return accuracy(model, self.held_out)

    def uniform(self, meter: Meter) -> list[Candidate]:
        """The base, scaled as a whole."""
        found = []
        for width, depth in UNIFORM:
            what = {"width": width, "depth": depth}
            found.append(self.evaluator(what, builder(self.base, what)))
            meter.advance(found[-1].cpu_seconds, title(what))
        return found

    def search(self, cpu_seconds: float, meter: Meter) -> list[Candidate]:
        """What a strategy tries."""
        best = 0.0

        def evaluate(choice: Choice) -> Candidate:
            return self.evaluator([list(stage) for stage in choice], builder(self.base, choice))

        def tell(candidate: Candidate) -> None:
            nonlocal best
            best = max(best, candidate.reward)
            meter.advance(candidate.cpu_seconds, f"best reward {best:.3f}")

        strategy = STRATEGIES[self.arguments.strategy](space_of(self.base), self.arguments.seed)
        return search(strategy, evaluate, cpu_seconds, self.arguments.max_candidates, tell)

    def retrain(self, what: Any, seed: int, allowed: bool) -> Mapping[str, Any] | None:
        """A final training: `accuracy` on test images and `cpu_seconds`.

        Args:
            what: the network.
            seed: of weights and training.
            allowed: whether it may be run; otherwise it is looked up.
        """
        a = self.arguments
        key = result_key("final", a.plan(), a.final_epochs, a.test_images, seed, what)
        row = self.results.get(key)
        if row is None and allowed:
            start = time.process_time()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                model = builder(self.base, what)()
                fit(model, self.train, a.final_epochs, a.batch_size, a.lr, seed)
            score = accuracy(model, self.test)
            row = {"accuracy": score, "cpu_seconds": time.process_time() - start}
            self.results.add(key, row)
        return row

    def finals(
        self, chosen: Sequence[Any], cpu_seconds: float, meter: Meter
    ) -> tuple[list[dict[str, Any]], float]:
        """Train networks anew, all with one seed before the next.

        Args:
            chosen: which networks.
            cpu_seconds: no training begins after so many.
            meter: told of each.

        Returns:
            of each network its scores on test images, and the CPU-seconds of all.
        """
        scores: list[list[float]] = [[] for _ in chosen]
        cost = 0.0
        for number in range(self.arguments.final_seeds):
            for what, own in zip(chosen, scores, strict=True):
                # Other seeds than the search's, whose luck is a part of what was chosen.
                seed = self.arguments.seed + 1 + number
                row = self.retrain(what, seed, cost < cpu_seconds)
                if row is not None and len(own) == number:
                    own.append(row["accuracy"])
                    cost += row["cpu_seconds"]
                    meter.advance(row["cpu_seconds"], f"final {title(what)}")
        n = self.arguments.test_images
        rows = zip(chosen, scores, strict=True)
        return [{"what": what, **_final(own, n)} for what, own in rows], cost

    @cached_property
    def test(self) -> Examples:
        """Test images, read when they are first needed."""
        # The file is sorted by class: its first images would all be aeroplanes.
        order = np.random.default_rng(self.arguments.seed).permutation(10_000)
        return read_cifar10(self._folder, "test", order[: self.arguments.test_images].tolist())


def _final(by_seed: Sequence[float], n_images: int) -> dict[str, Any]:
    if not by_seed:
        return {"accuracy": None, "accuracy_ci95": None, "accuracy_by_seed": []}
    rate = mean(by_seed)
    interval = wilson_interval(round(rate * n_images), n_images)
    return {
        "accuracy": rate,
        "accuracy_ci95": list(interval),
        "accuracy_by_seed": list(by_seed),
    }
