"""Architecture search: the space, the reward, fronts, strategies, and going on after a kill."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from decisive.benchmarks import architecture, architecture_study
from decisive.benchmarks.architecture import Arguments, choose_pairs
from decisive.benchmarks.architecture_networks import (
    Examples,
    accuracy,
    builder,
    choose,
    fit,
    read_cifar10,
    space_of,
)
from decisive.benchmarks.architecture_report import results_table
from learning.architecture_measure import (
    Candidate,
    Evaluator,
    ResultFile,
    RewardConfig,
    TimingConfig,
    best_within,
    count_parameters,
    pareto_front,
    result_key,
    reward,
    step_times,
    training_step,
)
from learning.architecture_search import (
    STRATEGIES,
    Choice,
    EvolutionConfig,
    RandomSearch,
    RegularizedEvolution,
    SearchSpace,
    StageChoice,
    Strategy,
    search,
)
from learning.image_set import data_folder
from perception.efficientnet import EFFICIENTNETS, EfficientNetConfig, StageConfig
from perception.efficientnet_v2 import EFFICIENTNETS_V2

SMALL = SearchSpace(((1, 2), (0, 1, 2)))


def candidate(accuracy: float, step: float, n_parameters: int, what: Any = None) -> Candidate:
    worth = reward(accuracy, step, n_parameters / 100)
    return Candidate(what, accuracy, step, step, n_parameters, n_parameters / 100, 1.0, worth)


# The space


def test_the_space_counts_what_differs() -> None:
    # 2 kinds, 2 kernels and 3 expansions: 12 blocks, at 2 depths each; a dropped stage is one.
    assert [len(options) for options in SMALL.options] == [24, 25]
    assert SMALL.size == 600
    assert all(len(set(options)) == len(options) for options in SMALL.options)


def test_the_search_of_b0_has_the_stages_options() -> None:
    space = space_of(EFFICIENTNETS["efficientnet_b0"])
    # Blocks of B0: 1 2 2 3 3 4 1. The fifth and the last do not shrink the map: the last may go.
    expected = ((1, 2), (1, 2, 3), (1, 2, 3), (2, 3, 4), (2, 3, 4), (3, 4, 5), (0, 1, 2))
    assert space.depths == expected
    assert space.size == 24 * 36**5 * 25


def test_neighbours_differ_in_one_property() -> None:
    choice = (StageChoice("mbconv", 3, 4, 1), StageChoice("fused", 5, 1, 1))
    first = {near[0] for near in SMALL.neighbours(choice)} - {choice[0]}
    assert first == {
        StageChoice("fused", 3, 4, 1),
        StageChoice("mbconv", 5, 4, 1),
        StageChoice("mbconv", 3, 1, 1),
        StageChoice("mbconv", 3, 6, 1),
        StageChoice("mbconv", 3, 4, 2),
    }
    second = {near[1] for near in SMALL.neighbours(choice)} - {choice[1]}
    assert len(second) == 6  # the five of its kind, and none at all
    assert StageChoice("mbconv", 3, 1, 0) in second
    near = SMALL.neighbours(choice)
    assert all(sum(a != b for a, b in zip(own, choice, strict=True)) == 1 for own in near)


@given(st.integers(0, 2**32 - 1))
def test_neighbours_are_mutual_and_of_the_space(seed: int) -> None:
    choice = SMALL.random(np.random.default_rng(seed))
    for near in SMALL.neighbours(choice):
        assert near != choice
        assert choice in SMALL.neighbours(near)
        assert all(own in options for own, options in zip(near, SMALL.options, strict=True))


def test_every_network_can_be_reached_by_mutations() -> None:
    reached = {SMALL.random(np.random.default_rng(0))}
    edge = list(reached)
    while edge:
        edge = [near for own in edge for near in SMALL.neighbours(own) if near not in reached]
        edge = list(dict.fromkeys(edge))
        reached |= set(edge)
    assert len(reached) == SMALL.size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depths": ()}, "at least one stage"),
        ({"depths": ((1, 1),)}, "each once"),
        ({"depths": ((0,),)}, "one above 0, got"),
        ({"kernels": ()}, "must have some"),
    ],
)
def test_spaces_without_choice_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)


def test_a_choice_of_another_space_and_a_space_of_one_are_refused() -> None:
    with pytest.raises(ValueError, match="2 stages here, got 1"):
        SMALL.neighbours((StageChoice("fused", 3, 1, 1),))
    only = SearchSpace(((1,),), ("fused",), (3,), (1,))
    with pytest.raises(ValueError, match="nothing to change"):
        only.mutate(only.random(np.random.default_rng(0)), np.random.default_rng(0))


# Networks of the space


def parameters_by_hand(config: EfficientNetConfig, n_classes: int) -> int:
    """Weights of convolutions, two numbers a channel for each normalisation, biases where any."""

    def conv(n_in: int, n_out: int, kernel: int, groups: int = 1) -> int:
        return n_in // groups * n_out * kernel**2 + 2 * n_out

    total, width = conv(3, config.stem, 3), config.stem
    for stage in config.stages:
        for _ in range(stage.n_blocks):
            inside = width * stage.expansion
            if stage.kind == "fused" and stage.expansion == 1:
                total += conv(width, stage.width, stage.kernel)
            elif stage.kind == "fused":
                total += conv(width, inside, stage.kernel) + conv(inside, stage.width, 1)
            else:
                squeezed = max(1, width // 4)
                total += conv(width, inside, 1) if stage.expansion > 1 else 0
                total += conv(inside, inside, stage.kernel, inside)
                total += inside * squeezed + squeezed + squeezed * inside + inside
                total += conv(inside, stage.width, 1)
            width = stage.width
    return total + conv(width, config.head, 1) + config.head * n_classes + n_classes


def tiny() -> EfficientNetConfig:
    """Three stages, the last of which may go."""
    stages = (
        StageConfig("mbconv", 1, 1, 8, 1),
        StageConfig("mbconv", 1, 4, 16, 2),
        StageConfig("mbconv", 1, 4, 16, 1),
    )
    return EfficientNetConfig(stem=8, stages=stages, head=32, dropout=0, norm_momentum=0.1)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_every_choice_builds_with_the_parameters_counted_by_hand(seed: int) -> None:
    check_build(tiny(), seed)


def test_choices_of_the_default_base_build_too() -> None:
    check_build(Arguments().network, 0)


def check_build(base: EfficientNetConfig, seed: int) -> None:
    choice = space_of(base).random(np.random.default_rng(seed))
    with torch.device("meta"):
        model = builder(base, [list(stage) for stage in choice])()
    assert count_parameters(model) == parameters_by_hand(choose(base, choice), 10)


@pytest.mark.parametrize(
    ("config", "millions"),
    [
        (EFFICIENTNETS["efficientnet_b0"], 5.3),  # Tan and Le 2019, table 2
        (EFFICIENTNETS_V2["efficientnetv2_b0"], 7.1),  # google/automl, efficientnetv2/README
    ],
)
def test_the_count_by_hand_gives_the_published_sizes(
    config: EfficientNetConfig, millions: float
) -> None:
    assert round(parameters_by_hand(config, 1000) / 1e6, 1) == millions


def test_a_choice_changes_stages_and_keeps_widths_and_strides() -> None:
    stages = (StageConfig("mbconv", 1, 1, 8, 1), StageConfig("mbconv", 2, 6, 16, 2))
    base = EfficientNetConfig(stem=8, stages=stages, head=32)
    kept = (StageChoice("mbconv", 3, 1, 1), StageChoice("fused", 5, 4, 3))
    assert choose(base, kept).stages == (stages[0], StageConfig("fused", 3, 4, 16, 2, 5))
    dropped = (StageChoice("mbconv", 3, 1, 0), kept[1])
    assert choose(base, dropped).stages == (StageConfig("fused", 3, 4, 16, 2, 5),)


# The reward


def test_the_reward_is_the_papers_product() -> None:
    assert reward(0.8, 1.0, 1.0) == 0.8
    assert reward(0.8, 2.0, 4.0) == pytest.approx(0.8 * 2**-0.07 * 4**-0.05)
    # Twice the time must bring 4.97 % more accuracy to be worth it.
    assert reward(0.8, 2.0, 1.0) == pytest.approx(0.8 / 1.0497, rel=1e-4)


ratios = st.floats(0.01, 100)
shares = st.floats(0.01, 1)


@given(shares, ratios, ratios, st.floats(1.01, 10))
def test_the_reward_rises_with_accuracy_and_falls_with_costs(
    accuracy: float, step: float, size: float, more: float
) -> None:
    here = reward(accuracy, step, size)
    assert reward(accuracy / more, step, size) < here
    assert reward(accuracy, step * more, size) < here
    assert reward(accuracy, step, size * more) < here
    assert reward(accuracy, step * more, size, RewardConfig(0.0, 0.0)) == accuracy


@pytest.mark.parametrize("values", [(1.1, 1, 1), (math.nan, 1, 1), (0.5, 0, 1), (0.5, 1, math.inf)])
def test_impossible_measurements_have_no_reward(values: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        reward(*values)


def test_configs_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"time_exponent must be at most 0, got 0\.1"):
        RewardConfig(time_exponent=0.1)
    with pytest.raises(ValueError, match="rounds at least 1, got 2 and 0"):
        TimingConfig(rounds=0)
    with pytest.raises(ValueError, match="at least 1, got 0 and 4"):
        EvolutionConfig(population=0)


# Fronts


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    # Few values, so that ties are common.
    row = st.tuples(st.integers(0, 4), st.integers(1, 4), st.integers(1, 4))
    rows = draw(st.lists(row, max_size=12))
    return [candidate(a / 4, step, n, i) for i, (a, step, n) in enumerate(rows)]


def beats(a: Candidate, b: Candidate) -> bool:
    no_worse = a.accuracy >= b.accuracy and a.step_ratio <= b.step_ratio
    no_worse = no_worse and a.n_parameters <= b.n_parameters
    same = (a.accuracy, a.step_ratio, a.n_parameters) == (b.accuracy, b.step_ratio, b.n_parameters)
    return no_worse and not same


@given(candidates())
def test_the_front_is_what_nothing_beats(many: list[Candidate]) -> None:
    front = pareto_front(many)
    expected = {own.what for own in many if not any(beats(other, own) for other in many)}
    assert {own.what for own in front} == expected
    assert [own.step_ratio for own in front] == sorted(own.step_ratio for own in front)
    assert {own.what for own in pareto_front(many[::-1])} == expected


@given(candidates(), st.integers(1, 4), st.integers(1, 4))
def test_best_within_takes_the_most_accurate_that_is_as_cheap(
    many: list[Candidate], step: int, n_parameters: int
) -> None:
    best = best_within(many, candidate(0.0, step, n_parameters))
    fitting = [c for c in many if c.step_ratio <= step and c.n_parameters <= n_parameters]
    assert (best is None) == (not fitting)
    if best is not None:
        assert best in fitting
        assert best.accuracy == max(c.accuracy for c in fitting)


# Timing


class Clock:
    """Time that passes only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


def test_steps_are_timed_in_turns_and_warm_up_does_not_count() -> None:
    clock, order = Clock(), []

    def step(name: str, seconds: list[float]) -> Callable[[], None]:
        def run() -> None:
            order.append(name)
            clock.passes(seconds.pop(0))

        return run

    times = step_times([step("a", [9, 1, 2]), step("b", [9, 4, 6])], TimingConfig(1, 2), clock)
    assert times == [[1, 4], [2, 6]]
    assert order == ["a", "b"] * 3


def test_a_timed_step_trains_every_parameter_and_changes_none() -> None:
    torch.manual_seed(0)
    model = builder(Arguments().network, {"width": 0.5, "depth": 0.5})()
    before = [p.detach().clone() for p in model.parameters()]
    step = training_step(model, torch.randn(4, 3, 16, 16), torch.arange(4))
    step()
    step()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


# Measurements on the disk


def test_rows_are_read_again_and_a_line_cut_short_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "rows.jsonl"
    rows = ResultFile(path)
    rows.add("a", {"x": 1})
    rows.add("b", {"x": 2})
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    again = ResultFile(path)
    assert again.get("a") == {"x": 1}
    assert again.get("b") is None
    again.add("b", {"x": 2})
    assert path.read_bytes() == whole


@pytest.mark.parametrize("line", ["{", "[1]", '{"key": "a"}', "7"])
def test_other_files_are_refused_by_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"key": "a", "row": {}}\n' + line + "\n")
    with pytest.raises(ValueError, match=r"rows.jsonl, line 2: no row of results"):
        ResultFile(path)


def test_keys_depend_on_facts_not_on_their_order() -> None:
    assert result_key({"a": 1, "b": 2}, 0) == result_key({"b": 2, "a": 1}, 0)
    keys = {result_key(*parts) for parts in ([{"a": 1}, 0], [{"a": 1}, 1], [{"a": 2}, 0], [0])}
    assert len(keys) == 4


# Strategies


def table_of(space: SearchSpace, seed: int = 5) -> dict[tuple[int, int, Any], float]:
    """A figure for each value of each property of each stage."""
    rng = np.random.default_rng(seed)
    return {
        (i, j, value): float(rng.uniform())
        for i, options in enumerate(space.options)
        for j in range(4)
        for value in dict.fromkeys(option[j] for option in options)
    }


def separable(space: SearchSpace) -> tuple[Callable[[Choice], float], float]:
    """A sum of such figures, and the largest there is."""
    table = table_of(space)
    worth = [
        {option: sum(table[i, j, v] for j, v in enumerate(option)) for option in options}
        for i, options in enumerate(space.options)
    ]
    best = sum(max(own.values()) for own in worth)
    return lambda choice: sum(w[o] for w, o in zip(worth, choice, strict=True)), best


def evaluations(strategy: Strategy, space: SearchSpace, limit: int) -> int:
    """How many networks a strategy tries until it has the best."""
    worth, best = separable(space)
    for number in range(1, limit + 1):
        choice = strategy.ask()
        if choice is None or worth(choice) > best - 1e-9:
            return number
        strategy.tell(choice, worth(choice))
    return limit


def test_evolution_finds_the_optimum_in_a_tenth_of_the_tries_of_random_search() -> None:
    space = SearchSpace(((1, 2), (1, 2, 3), (1, 2)))  # 20 736 networks
    seeds = range(7)
    evolved = [evaluations(RegularizedEvolution(space, s), space, 2000) for s in seeds]
    drawn = [evaluations(RandomSearch(space, s), space, space.size) for s in seeds]
    assert max(evolved) < 2000  # every seed finds it
    assert np.median(evolved) < np.median(drawn) / 10


def test_the_oldest_leaves_even_if_it_is_the_best() -> None:
    space = SearchSpace(((1,),) * 3)
    strategy = RegularizedEvolution(space, 0, EvolutionConfig(population=2, sample=50))
    asked = []
    for worth in (0.9, 0.1, 0.2):
        choice = strategy.ask()
        assert choice is not None
        strategy.tell(choice, worth)
        asked.append(choice)
    assert asked[2] in space.neighbours(asked[0])  # a child of the best
    # The best has left: the next is a child of what is now the best, its own child.
    assert strategy.ask() in space.neighbours(asked[2])


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_tries_the_whole_space_once_and_ends(name: str) -> None:
    space = SearchSpace(((1,), (0, 1)), kinds=("fused",), expansions=(1, 4))
    strategy = STRATEGIES[name](space, 3)
    found = search(strategy, lambda choice: candidate(0.5, 1, 1, choice), max_candidates=10**6)
    assert len(found) == space.size == 20
    assert len({c.what for c in found}) == space.size


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_seed_decides_the_way(name: str) -> None:
    space = space_of(Arguments().network)

    def way(seed: int) -> list[Any]:
        worth, best = separable(space)
        found = search(
            STRATEGIES[name](space, seed),
            lambda choice: candidate(worth(choice) / best, 1, 1, choice),
            max_candidates=40,
        )
        return [c.what for c in found]

    assert way(1) == way(1) != way(2)


def test_a_search_ends_when_its_seconds_are_spent() -> None:
    def run(**bounds: Any) -> int:
        return len(search(RandomSearch(SMALL), lambda c: candidate(0.5, 1, 1, c), **bounds))

    assert run(cpu_seconds=2.5) == 3  # the third began at 2 seconds
    assert run(cpu_seconds=3.0) == 3
    assert run(cpu_seconds=9.0, max_candidates=2) == 2
    assert run(cpu_seconds=0.0) == 0
    with pytest.raises(ValueError, match="needs an end"):
        run()


# Evaluation, and going on after a kill


class Timed(nn.Module):
    """A linear classifier whose every pass takes a time of its own."""

    def __init__(self, clock: Clock, seconds: float, n_hidden: int = 1) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds
        self.layers = nn.Sequential(nn.Linear(3, n_hidden), nn.Linear(n_hidden, 2))

    def forward(self, x: Tensor) -> Tensor:
        self.clock.passes(self.seconds)
        return self.layers(x)


BATCH = torch.ones(2, 3), torch.tensor([0, 1])


def evaluator(
    clock: Clock,
    path: Path,
    score: Callable[[nn.Module, int], float] = lambda model, seed: 0.5,
    **facts: Any,
) -> Evaluator:
    return Evaluator(
        score,
        BATCH,
        Timed(clock, 2.0),
        ResultFile(path),
        facts,
        7,
        clock=clock,
        timing=TimingConfig(1, 3),
    )


def test_a_network_is_measured_against_the_base(tmp_path: Path) -> None:
    clock = Clock()

    def score(model: nn.Module, seed: int) -> float:
        assert seed == 7
        clock.passes(100.0)
        return 0.25

    found = evaluator(clock, tmp_path / "rows", score)(["x"], lambda: Timed(clock, 5.0, 3))
    assert found.what == ["x"]
    assert (found.accuracy, found.step_seconds, found.step_ratio) == (0.25, 5.0, 2.5)
    # (3 + 1) * n + (n + 1) * 2 numbers: 20 of 3 hidden units, 8 of the base's one.
    assert (found.n_parameters, found.parameter_ratio) == (20, 2.5)
    assert found.cpu_seconds == 100.0 + 4 * (2.0 + 5.0)
    assert found.reward == pytest.approx(0.25 * 2.5**-0.07 * 2.5**-0.05)


def test_a_measurement_is_made_once_for_a_plan(tmp_path: Path) -> None:
    clock, built = Clock(), []

    def build() -> nn.Module:
        built.append(torch.rand(1).item())
        return Timed(clock, 1.0)

    first = evaluator(clock, tmp_path / "rows", epochs=1)
    assert first("x", build) == first("x", build)
    assert evaluator(clock, tmp_path / "rows", epochs=1)("x", build).accuracy == 0.5
    assert len(built) == 1
    first("y", build)
    evaluator(clock, tmp_path / "rows", epochs=2)("x", build)
    assert len(built) == 3
    assert len(set(built)) == 1  # the seed decides the weights
    assert len((tmp_path / "rows").read_text().splitlines()) == 3


def test_a_measurement_leaves_the_global_generator_as_it_was(tmp_path: Path) -> None:
    clock = Clock()
    measure = evaluator(clock, tmp_path / "rows")
    state = torch.get_rng_state()
    measure("x", lambda: Timed(clock, 1.0))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_score_that_is_no_accuracy_is_refused_and_not_kept(tmp_path: Path) -> None:
    measure = evaluator(Clock(), tmp_path / "rows", lambda model, seed: 55.0)
    with pytest.raises(ValueError, match=r"accuracy of 0 to 1, got 55.0"):
        measure("x", lambda: Timed(Clock(), 1.0))
    assert not (tmp_path / "rows").exists()


class Killed(Exception):
    """In place of a signal."""


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_killed_search_goes_on_where_it_was(name: str, tmp_path: Path) -> None:
    space = SearchSpace(((1, 2), (1, 2, 3), (1, 2)))
    worth, best = separable(space)

    def run(path: Path, kill_after: int | None = None) -> tuple[list[Candidate], int]:
        clock, trained = Clock(), 0

        def score(model: nn.Module, seed: int) -> float:
            nonlocal trained
            if trained == kill_after:
                raise Killed
            trained += 1
            clock.passes(10.0)
            assert isinstance(model, Timed)
            return model.seconds

        measure = evaluator(clock, path, score)

        def evaluate(choice: Choice) -> Candidate:
            share = (
                math.floor(64 * worth(choice) / best) / 64
            )  # exact, however much time has passed
            return measure([list(s) for s in choice], lambda: Timed(clock, share))

        strategy = STRATEGIES[name](space, 1)
        return search(strategy, evaluate, cpu_seconds=1000.0), trained

    whole, n_whole = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "killed", kill_after=25)
    with open(tmp_path / "killed", "a") as file:
        file.write('{"key": "0123", "row": {"wh')  # the kill struck while a row was written
    rest, n_rest = run(tmp_path / "killed")
    assert rest == whole
    assert n_rest == n_whole - 25 > 0
    assert (tmp_path / "killed").read_bytes() == (tmp_path / "whole").read_bytes()


# The study


def test_pairs_are_scaled_networks_and_what_costs_no_more() -> None:
    uniform = [candidate(0.5, 1.0, 100, "a"), candidate(0.6, 2.0, 300, "b")]
    uniform.append(candidate(0.55, 3.0, 400, "beaten by b"))
    found = [candidate(0.58, 1.5, 200, "c"), candidate(0.7, 1.9, 301, "too large")]
    assert [(u.what, f.what) for u, f in choose_pairs(uniform, found)] == [("b", "c")]


def test_the_table_compares_trainings_of_the_same_seeds() -> None:
    scaled, found = {"width": 1.0, "depth": 1.0}, [["fused", 3, 1, 2], ["mbconv", 3, 1, 0]]
    row = {"step_ratio": 0.5, "n_parameters": 1234, "accuracy": 0.5}
    results = {
        "uniform": [{**row, "what": scaled}],
        "found": [{**row, "what": found}],
        "pairs": [[scaled, found]],
        "best": found,
        "finals": [
            {**architecture_study._final([0.5, 0.6], 1000), "what": scaled},
            {**architecture_study._final([0.52], 1000), "what": found},
        ],
    }
    header, rows = results_table(results)
    told = [dict(zip(header, row, strict=True)) for row in rows]
    assert [t["network"] for t in told] == [
        "scaled: width x 1, depth x 1",
        "found: F3e1x2 -",
        "best reward: F3e1x2 -",
    ]
    assert [t["gain"] for t in told] == ["-", "+2.0", "-"]
    assert told[0]["test % [95% CI]"] == "55.0 [51.9, 58.1], 2 seeds"
    assert told[0]["parameters"] == "1,234"
    results["finals"] = []
    assert results_table(results)[1][1][4:] == ["not run", "-"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--strategy", "luck"], "unknown strategy 'luck'; known: evolution, random"),
        (["--base", "vit"], "unknown base 'vit'"),
        (["--epochs", "0"], "epochs must be at least 1, got 0"),
        (["--cpu-minutes", "0"], "cpu_minutes must be positive"),
        (["--final-share", "1"], r"final_share must be in \[0, 1\)"),
        (["--images", "49000"], "CIFAR-10 has 50000 images .* got 49000 . 1500 and 5000"),
        (["--images", "8"], "batch_size 16 is more than 8 images"),
        (["--stem-stride", "3"], "stem_stride must be 1 or 2"),
    ],
)
def test_studies_that_cannot_run_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        architecture.main(words)


def test_a_missing_data_set_is_one_line(tmp_path: Path) -> None:
    words = ["--data", str(tmp_path), "--out", str(tmp_path / "o"), "--work", str(tmp_path / "w")]
    with pytest.raises(ValueError, match=r"no data: .*train.npz is not there; set DECISIVE_DATA"):
        architecture.main(words)


def stripes(numbers: Sequence[int]) -> Examples:
    """Synthetic: ten classes, the brightness of two channels."""
    labels = torch.tensor(list(numbers)) % 10
    images = torch.zeros(len(labels), 3, 16, 16)
    images[:, 0] = (labels % 5)[:, None, None] / 4
    images[:, 1] = (labels // 5)[:, None, None] * 1.0
    return Examples(images, labels)


@pytest.mark.learning
def test_a_short_training_learns_and_its_seed_decides() -> None:
    def trained(seed: int) -> float:
        torch.manual_seed(seed)
        model = builder(tiny(), {"width": 1.0, "depth": 1.0})()
        fit(model, stripes(range(100)), 8, 20, 0.1, seed)
        return accuracy(model, stripes(range(50)))

    first = trained(0)
    assert first > 0.6  # of 0.1 by chance
    assert trained(0) == first


@pytest.mark.learning
def test_the_study_runs_goes_on_and_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(architecture_study, "UNIFORM", ((1.0, 1.0), (1.5, 1.0)))
    monkeypatch.setitem(architecture.BASES, "tiny", tiny())
    read: dict[str, Sequence[int]] = {}

    def stand_in(folder: Path | None, split: str, numbers: Sequence[int]) -> Examples:
        read[split] = numbers
        return stripes(numbers)

    monkeypatch.setattr(architecture_study, "read_cifar10", stand_in)
    trainings: list[int] = []

    def counted(model: nn.Module, train: Examples, epochs: int, *rest: Any) -> None:
        trainings.append(epochs)
        fit(model, train, epochs, *rest)

    monkeypatch.setattr(architecture_study, "fit", counted)
    words = [
        "--base",
        "tiny",
        "--width",
        "1",
        "--depth",
        "1",
        "--images",
        "16",
        "--batch-size",
        "8",
        "--held-out",
        "20",
        "--test-images",
        "20",
    ]
    words += ["--epochs", "1", "--final-epochs", "2", "--max-candidates", "3", "--final-seeds", "1"]
    words += ["--stem-stride", "2", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "w")]
    assert architecture.main([*words, "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert len(results["found"]) == 3
    assert results["fronts"]["uniform"]
    assert all(final["accuracy_by_seed"] for final in results["finals"])
    assert results["cpu_seconds"]["search"] > 0
    assert (tmp_path / "out" / "evolution.png").read_bytes().startswith(b"\x89PNG")
    # The files are sorted by class: what is read comes from everywhere in them, each once.
    assert len(set(read["train"])) == 36
    assert len({number // 1000 for number in read["test"]}) > 5
    assert trainings == [1] * 5 + [2] * len(results["finals"])
    trainings.clear()
    assert architecture.main(words) == 0  # nothing is trained again
    assert not trainings
    assert "3 of 1.44e+04 networks" in capsys.readouterr().out
    again = json.loads((tmp_path / "out" / "evolution.json").read_text())
    assert again["found"] == results["found"]
    assert again["finals"] == results["finals"]


@pytest.mark.slow
@pytest.mark.data
def test_cifar10_has_ten_classes_of_bright_and_dark_images() -> None:
    if not (data_folder() / "cifar10" / "test.npz").is_file():
        pytest.skip("no CIFAR-10")
    examples = read_cifar10(None, "test", range(0, 10_000, 250))
    # Sorted by class, 1000 each: every 250th gives 4 of each.
    assert examples.labels.tolist() == [n // 4 for n in range(40)]
    assert examples.images.shape == (40, 3, 32, 32)
    assert 0.3 < float(examples.images.mean()) < 0.7
