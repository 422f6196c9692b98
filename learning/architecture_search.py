"""Training-aware search of architectures: accuracy, step time and size in one reward.

Source: Tan and Le 2021, "EfficientNetV2: Smaller Models and Faster Training", section 3.3. A
network is a row of stages whose widths and strides are given; searched are each stage's kind of
block, its kernel, expansion and number of blocks. A candidate is trained for a short while and
rewarded (`learning.architecture_measure`).

Departure: the paper learns a controller or samples at random; here are random search and
regularised evolution (Real et al. 2019, "Regularized Evolution for Image Classifier Architecture
Search", algorithm 1).

A search that was killed is started again with the same seed: it asks for the same networks, finds
the measured ones in the file of results and goes on.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

from learning.architecture_measure import Candidate


class StageChoice(NamedTuple):
    """What is chosen of a stage.

    Attributes:
        kind: of its blocks, such as `mbconv` or `fused`.
        kernel: size of the convolution that looks around.
        expansion: how many times wider a block is inside.
        n_blocks: their number; 0: there is no such stage.
    """

    kind: str
    kernel: int
    expansion: int
    n_blocks: int


Choice = tuple[StageChoice, ...]
"""A network: its stages in their order."""


@dataclass(frozen=True)
class SearchSpace:
    """All networks that can be chosen (section 3.3).

    Attributes:
        depths: numbers of blocks of each stage. 0 lets a search drop the stage.
        kinds: of blocks.
        kernels: sizes.
        expansions: of a block's inside.
    """

    depths: tuple[tuple[int, ...], ...]
    kinds: tuple[str, ...] = ("mbconv", "fused")
    kernels: tuple[int, ...] = (3, 5)
    expansions: tuple[int, ...] = (1, 4, 6)

    def __post_init__(self) -> None:
        """Refuse what offers no choice, or one twice."""
        if not self.depths:
            raise ValueError("depths must have at least one stage, got none")
        lists = [*self.depths, self.kinds, self.kernels, self.expansions]
        if any(not values or len(set(values)) < len(values) for values in lists):
            raise ValueError(f"every list of values must have some, each once, got {self}")
        for depths in self.depths:
            if min(depths) < 0 or max(depths) < 1:
                raise ValueError(f"a stage needs depths of 0 or more and one above 0, got {depths}")

    @cached_property
    def options(self) -> tuple[Choice, ...]:
        """Of each stage, all that it can be. A dropped stage is one option, whatever its blocks."""
        return tuple(
            tuple(
                dict.fromkeys(
                    StageChoice(kind, kernel, expansion, n)
                    if n
                    else StageChoice(self.kinds[0], self.kernels[0], self.expansions[0], 0)
                    for kind in self.kinds
                    for kernel in self.kernels
                    for expansion in self.expansions
                    for n in depths
                )
            )
            for depths in self.depths
        )

    @property
    def size(self) -> int:
        """Number of networks."""
        return math.prod(map(len, self.options))

    def random(self, rng: np.random.Generator) -> Choice:
        """A network, all alike likely."""
        return tuple(options[int(rng.integers(len(options)))] for options in self.options)

    def neighbours(self, choice: Choice) -> list[Choice]:
        """The networks in which one property of one stage is another.

        A stage that is dropped or comes back goes from or to its fewest blocks.

        Raises:
            ValueError: if the choice has another number of stages.
        """
        if len(choice) != len(self.options):
            raise ValueError(f"a choice has {len(self.options)} stages here, got {len(choice)}")
        return [
            (*choice[:i], option, *choice[i + 1 :])
            for i, own in enumerate(choice)
            for option in self.options[i]
            if self._apart(i, own, option) == 1
        ]

    def mutate(self, choice: Choice, rng: np.random.Generator) -> Choice:
        """A neighbour.

        Raises:
            ValueError: if there is none.
        """
        near = self.neighbours(choice)
        if not near:
            raise ValueError("the space holds one network only: there is nothing to change")
        return near[int(rng.integers(len(near)))]

    def _apart(self, stage: int, a: StageChoice, b: StageChoice) -> int:
        """In how many properties two options differ."""
        if bool(a.n_blocks) != bool(b.n_blocks):
            fewest = min(n for n in self.depths[stage] if n)
            return 1 if max(a.n_blocks, b.n_blocks) == fewest else 2
        return sum(x != y for x, y in zip(a, b, strict=True))


# Searching


class Strategy(Protocol):
    """Decides which network is tried next. The same rewards lead the same way."""

    def ask(self) -> Choice | None:
        """A network that was not asked for before; None if all were."""
        ...

    def tell(self, choice: Choice, worth: float) -> None:
        """The reward of the network asked for last."""
        ...


class RandomSearch:
    """Draws networks, each once."""

    def __init__(self, space: SearchSpace, seed: int = 0) -> None:
        """All draws come from the seed."""
        self._space, self._rng = space, np.random.default_rng(seed)
        self._seen: set[Choice] = set()

    def ask(self) -> Choice | None:
        """A network that was not asked for before; None if all were."""
        if len(self._seen) >= self._space.size:
            return None
        choice = self._space.random(self._rng)
        while choice in self._seen:
            choice = self._space.random(self._rng)
        self._seen.add(choice)
        return choice

    def tell(self, choice: Choice, worth: float) -> None:
        """Nothing is learned from a reward."""


@dataclass(frozen=True)
class EvolutionConfig:
    """Sizes of regularised evolution.

    Attributes:
        population: networks that can have children; the oldest leaves for each new one. The paper
            has 100, for searches of 20 000 networks; these are sizes for a hundred.
        sample: how many are drawn, with repetition, of which the best has the child; 25 in the
            paper.
    """

    population: int = 12
    sample: int = 4

    def __post_init__(self) -> None:
        """Refuse an empty population."""
        if self.population < 1 or self.sample < 1:
            raise ValueError(
                f"population and sample must be at least 1, got {self.population} and {self.sample}"
            )


class RegularizedEvolution:
    """Aging evolution (Real et al. 2019, algorithm 1).

    Departure: a child that was measured before is changed further, since it would cost a training
    and tell nothing new.
    """

    def __init__(
        self, space: SearchSpace, seed: int = 0, config: EvolutionConfig | None = None
    ) -> None:
        """All draws come from the seed."""
        self._space, self._rng = space, np.random.default_rng(seed)
        self._config = config or EvolutionConfig()
        self._population: deque[tuple[float, Choice]] = deque(maxlen=self._config.population)
        self._seen: set[Choice] = set()

    def ask(self) -> Choice | None:
        """A network that was not asked for before; None if all were."""
        if len(self._seen) >= self._space.size:
            return None
        growing = len(self._population) < self._config.population
        choice = self._space.random(self._rng) if growing else self._child()
        while choice in self._seen:
            choice = self._space.mutate(choice, self._rng)
        self._seen.add(choice)
        return choice

    def tell(self, choice: Choice, worth: float) -> None:
        """Take a network into the population; the oldest leaves if it is full."""
        self._population.append((worth, choice))

    def _child(self) -> Choice:
        drawn = self._rng.integers(len(self._population), size=self._config.sample)
        _, parent = max((self._population[int(i)] for i in drawn), key=lambda entry: entry[0])
        return self._space.mutate(parent, self._rng)


STRATEGIES: dict[str, Callable[[SearchSpace, int], Strategy]] = {
    "evolution": RegularizedEvolution,
    "random": RandomSearch,
}
"""Strategies by name. A new one is a class, a row here and a test."""


def search(
    strategy: Strategy,
    evaluate: Callable[[Choice], Candidate],
    cpu_seconds: float = math.inf,
    max_candidates: int | None = None,
    on_candidate: Callable[[Candidate], None] | None = None,
) -> list[Candidate]:
    """Try networks until the budget is spent.

    What a candidate cost when it was measured counts, also if it is looked up now: a search that
    goes on after a kill ends where one that was not killed does.

    Args:
        strategy: fresh.
        evaluate: gives the measured network of a choice.
        cpu_seconds: no candidate begins after so many.
        max_candidates: no more than these; None: any number.
        on_candidate: called after each one.

    Returns:
        the candidates in their order.

    Raises:
        ValueError: if nothing bounds the search.
    """
    if not cpu_seconds < math.inf and max_candidates is None:
        raise ValueError("give cpu_seconds or max_candidates: a search needs an end")
    found: list[Candidate] = []
    spent = 0.0
    while spent < cpu_seconds and (max_candidates is None or len(found) < max_candidates):
        choice = strategy.ask()
        if choice is None:
            break
        candidate = evaluate(choice)
        strategy.tell(choice, candidate.reward)
        found.append(candidate)
        spent += candidate.cpu_seconds
        if on_candidate is not None:
            on_candidate(candidate)
    return found
