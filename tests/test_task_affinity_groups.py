"""Selection of task groups: scores by hand, exactness against enumeration, published matrices."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learning.task_affinity_groups import (
    Budget,
    Grouping,
    GroupScores,
    all_groups,
    best_service,
    check_affinity,
    group_scores,
    partition_value,
    partitions,
    select_by_enumeration,
    select_groups,
    value_of,
)

PUBLISHED = json.loads((Path(__file__).parent / "data" / "tag_affinities.json").read_text())
# Row i acts, column j is acted on: the third task helps the first, the second harms everybody.
HAND = [[9.0, 1.0, 3.0], [-4.0, 9.0, -2.0], [5.0, 1.0, 9.0]]


def test_a_score_is_the_mean_affinity_of_the_others() -> None:
    scores = group_scores(HAND)
    assert scores.groups == ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2))
    rows = scores.values.tolist()
    assert rows[3][:2] == [-4.0, 1.0]
    assert rows[6] == [0.5, 1.0, 0.5]  # (-4 + 5) / 2, (1 + 1) / 2, (3 - 2) / 2
    assert math.isnan(rows[4][1])


def test_a_task_alone_scores_what_it_is_told_to() -> None:
    alone: dict[Any, list[float]] = {
        "zero": [0.0] * 3,
        "diagonal": [9.0] * 3,
        -2.5: [-2.5] * 3,
    }
    for solo, expected in alone.items():
        values = group_scores(HAND, solo).values
        assert [values[k, k] for k in range(3)] == expected
    assert group_scores(HAND, "never").groups == ((0, 1), (0, 2), (1, 2), (0, 1, 2))


def test_a_task_that_others_harm_is_left_alone() -> None:
    harmed = [[1.0, -2.0, 4.0], [-3.0, 1.0, -1.0], [4.0, -2.0, 1.0]]
    chosen = select_groups(group_scores(harmed), Budget(groups=2))
    assert set(chosen.groups) == {(0, 2), (1,)}
    assert chosen.value == pytest.approx(8 / 3)
    # The published rule gives it -1e6 alone, so it is never picked.
    never = select_groups(group_scores(harmed, "never"), Budget(groups=2))
    assert all(len(group) > 1 for group in never.groups)
    assert never.value < chosen.value


def test_groups_may_overlap_and_each_task_is_served_once() -> None:
    chosen = select_groups(group_scores(HAND, "never"), Budget(groups=2))
    # {0, 2} gives 5 and 3; the second task gains 1 with either or both of the others.
    assert chosen.groups[chosen.serves[0]] == chosen.groups[chosen.serves[2]] == (0, 2)
    assert 1 in chosen.groups[chosen.serves[1]]
    assert chosen.value == pytest.approx((5 + 3 + 1) / 3)
    assert len(chosen.serves) == 3


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 5),
    seed=st.integers(0, 10**6),
    allowed=st.integers(1, 3),
    solo=st.sampled_from(["zero", "diagonal", "never", 0.3]),
    rounded=st.booleans(),
)
def test_the_program_finds_what_enumeration_finds(
    n: int, seed: int, allowed: int, solo: Any, rounded: bool
) -> None:
    matrix = np.random.default_rng(seed).normal(size=(n, n))
    if rounded:  # ties
        matrix = matrix.round()
    scores, budget = group_scores(matrix, solo), Budget(groups=min(allowed, n))
    ours, theirs = select_groups(scores, budget), select_by_enumeration(scores, budget)
    assert ours.value == pytest.approx(theirs.value, abs=1e-12)
    assert_sound(ours, scores, budget)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), cost=st.floats(4.5, 14.0), task=st.sampled_from([0.0, 0.5]))
def test_so_it_does_under_a_cost(seed: int, cost: float, task: float) -> None:
    scores = group_scores(np.random.default_rng(seed).normal(size=(4, 4)))
    budget = Budget(cost=cost, network=2.5, task=task)
    ours, theirs = select_groups(scores, budget), select_by_enumeration(scores, budget)
    assert ours.value == pytest.approx(theirs.value, abs=1e-12)
    assert_sound(ours, scores, budget)


def test_six_tasks_and_two_groups_are_enumerated_too() -> None:
    for seed in range(3):
        scores = group_scores(np.random.default_rng(seed).normal(size=(6, 6)))
        ours = select_groups(scores, Budget(groups=2))
        theirs = select_by_enumeration(scores, Budget(groups=2))
        assert ours.value == pytest.approx(theirs.value, abs=1e-12)


def assert_sound(chosen: Grouping, scores: GroupScores, budget: Budget) -> None:
    assert len(chosen.groups) == len(set(chosen.groups))
    assert budget.groups is None or len(chosen.groups) <= budget.groups
    assert budget.cost is None or sum(map(budget.cost_of, chosen.groups)) <= budget.cost + 1e-9
    assert set(chosen.serves) == set(range(len(chosen.groups)))  # nothing is built for nobody
    assert all(j in chosen.groups[k] for j, k in enumerate(chosen.serves))
    assert value_of(chosen, scores) == pytest.approx(chosen.value, abs=1e-12)


def test_scores_of_any_size_are_told_apart() -> None:
    # Two groups differ by a part in 1e6 of scores that are tiny themselves.
    matrix = [[0.0, 1e-9, 1e-9 + 1e-15], [1e-9, 0.0, 0.0], [1e-9, 0.0, 0.0]]
    chosen = select_groups(group_scores(matrix, "never"), Budget(groups=3))
    assert chosen.groups[chosen.serves[2]] == (0, 2)
    assert (
        chosen.value == select_by_enumeration(group_scores(matrix, "never"), Budget(groups=3)).value
    )


# Another program gave -99.4419, -92.4385 and -86.8794: 1e-4 lower, for a reason not known.
@pytest.mark.parametrize(
    ("allowed", "value"), [(2, -99.4418187), (3, -92.4384293), (4, -86.8792831)]
)
def test_the_published_celeba_matrix_has_the_known_optimum(allowed: int, value: float) -> None:
    scores = group_scores(PUBLISHED["celeba"]["affinity"], "never")
    chosen = select_groups(scores, Budget(groups=allowed))
    assert chosen.value == pytest.approx(value, abs=1e-6)
    reference = {2: -99.4419, 3: -92.4385, 4: -86.8794}[allowed]
    assert chosen.value == pytest.approx(reference, abs=2e-4)


def test_the_three_groups_of_celeba_are_the_known_ones() -> None:
    names = PUBLISHED["celeba"]["tasks"]
    scores = group_scores(PUBLISHED["celeba"]["affinity"], "never")
    chosen = select_groups(scores, Budget(groups=3))
    assert {frozenset(names[j] for j in group) for group in chosen.groups} == {
        frozenset({"5_o_Clock_Shadow", "No_Beard"}),
        frozenset({"Black_Hair", "Brown_Hair"}),
        frozenset(names) - {"5_o_Clock_Shadow", "Brown_Hair"},
    }


def test_in_the_published_matrices_solos_are_picked_once_they_may_be() -> None:
    matrix = PUBLISHED["celeba"]["affinity"]
    value = {
        solo: select_groups(group_scores(matrix, solo), Budget(groups=3))
        for solo in ("never", "zero", "diagonal")
    }
    assert min(map(len, value["never"].groups)) == 2
    assert min(map(len, value["zero"].groups)) == min(map(len, value["diagonal"].groups)) == 1
    assert value["never"].value < value["zero"].value < value["diagonal"].value


def test_dividing_by_the_learning_rate_changes_no_choice() -> None:
    # The published code divides affinities by it, the paper does not.
    matrix = np.array(PUBLISHED["taskonomy"]["affinity"])
    for solo in ("zero", "diagonal", "never"):
        found = [
            select_groups(group_scores(matrix * scale, solo), Budget(groups=3)).groups
            for scale in (1.0, 5e-4)
        ]
        assert found[0] == found[1]


def test_costs_count_networks_and_heads() -> None:
    budget = Budget(cost=20, network=6, task=0.5)
    assert budget.cost_of((0, 2, 3)) == 7.5
    scores = group_scores(HAND, "never")
    # One network for all takes 7.5; two of two tasks 14; all three pairs 21.
    assert len(select_groups(scores, Budget(cost=7.5, network=6, task=0.5)).groups) == 1
    assert len(select_groups(scores, Budget(cost=14, network=6, task=0.5)).groups) == 2
    both = Budget(groups=1, cost=100, network=6, task=0.5)
    assert select_groups(scores, both).groups == ((0, 1, 2),)


def test_partitions_are_all_of_them_and_each_once() -> None:
    # Stirling numbers of the second kind.
    for n, k, count in ((5, 2, 15), (5, 3, 25), (4, 4, 1), (6, 1, 1)):
        found = [frozenset(parts) for parts in partitions(n, k)]
        assert len(found) == len(set(found)) == count
        assert all(sorted(itertools.chain(*parts)) == list(range(n)) for parts in found)


def test_a_partition_is_worth_what_its_tasks_score_in_their_parts() -> None:
    scores = group_scores(HAND)
    assert partition_value(((0, 2), (1,)), scores) == pytest.approx((5 + 3 + 0) / 3)
    best = select_groups(scores, Budget(groups=2)).value
    assert max(partition_value(p, scores) for p in partitions(3, 2)) <= best
    with pytest.raises(ValueError, match="exactly one part"):
        partition_value(((0, 2), (1, 2)), scores)


def test_a_choice_is_judged_by_other_scores_in_the_groups_that_serve() -> None:
    chosen = best_service(group_scores(HAND), [4, 5])  # {0, 2} and {1, 2}
    assert chosen.serves == (0, 1, 0)
    truth = group_scores([[0.0, 2.0, 1.0], [2.0, 0.0, 100.0], [1.0, 2.0, 0.0]])
    # The third task is judged in {0, 2}, though the truth has it better in {1, 2}.
    assert value_of(chosen, truth) == pytest.approx((1 + 2 + 1) / 3)
    with pytest.raises(ValueError, match="no true score of group"):
        value_of(chosen, group_scores([[0.0, 1.0], [1.0, 0.0]]))
    with pytest.raises(ValueError, match="every task must be in a group"):
        best_service(group_scores(HAND), [4])


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        ([[1.0, 2.0]], "square matrix, got shape"),
        ([[1.0, 2.0], [3.0]], "square matrix of numbers"),
        ([["a", 2.0], [3.0, 1.0]], "square matrix of numbers"),
        ([[1.0, math.nan], [0.0, 1.0]], "finite, got nan in row 0, column 1"),
        ([[1.0, 0.0], [-math.inf, 1.0]], "finite, got -inf in row 1, column 0"),
        ([[1.0]], "2 to 12 tasks, got 1"),
        (np.zeros((13, 13)), "2 to 12 tasks, got 13"),
        (3.0, "square matrix, got shape"),
    ],
)
def test_a_matrix_must_be_square_and_finite(matrix: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_affinity(matrix)


def test_a_budget_must_be_one() -> None:
    scores = group_scores(HAND)
    for choose in (select_groups, select_by_enumeration):
        with pytest.raises(ValueError, match="at most the number of tasks, 3, got 4"):
            choose(scores, Budget(groups=4))
        with pytest.raises(ValueError, match=r"at least 7\.5, that of one network for all 3 tasks"):
            choose(scores, Budget(cost=7.0, network=6, task=0.5))
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "a budget is needed"),
        ({"groups": 0}, "groups must be at least 1, got 0"),
        ({"cost": math.nan}, "cost must be at least 0 and finite"),
        ({"groups": 2, "task": -1.0}, "task must be at least 0"),
    ]
    for values, said in wrong:
        with pytest.raises(ValueError, match=said):
            Budget(**values)
    solo: Any = "sometimes"
    with pytest.raises(ValueError, match="solo must be zero, diagonal, never or a number"):
        group_scores(HAND, solo)
    with pytest.raises(ValueError, match="solo must be finite"):
        group_scores(HAND, math.inf)
    with pytest.raises(ValueError, match="groups must be 1 to 3, the tasks, got 4"):
        partitions(3, 4)


def test_scores_of_groups_must_be_of_their_tasks() -> None:
    with pytest.raises(ValueError, match="finite for the tasks of a group"):
        GroupScores(((0,), (0, 1)), np.array([[1.0, 2.0], [1.0, 2.0]]))
    with pytest.raises(ValueError, match="2 rows"):
        GroupScores(((0,), (0, 1)), np.array([[1.0, 2.0]]))
    assert len(all_groups(5)) == 31
