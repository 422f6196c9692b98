"""Which tasks should share a network: exact selection of groups by affinity, under a budget.

Source: Fifty et al. 2021, "Efficiently Identifying Task Groupings for Multi-Task Learning": the
score of a task in a group is the mean affinity of the others onto it, and groups are chosen that
serve every task best. Groups may overlap; each task is served by one of them, and the value of a
choice is the mean score over tasks. The published code tries all choices; here it is a facility
location problem solved as a mixed-integer program.

A task alone has no others. By default its score is 0, the mean of nothing: it neither gains nor
loses, so it joins others only where they help on average. `diagonal` takes what a step for the task
does to itself, `never` leaves tasks alone out (the published code gives them -1e6, so they are
never picked), and a number is a number.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

MOST_TASKS = 12
"""There are 2^n - 1 groups."""
Solo = Literal["zero", "diagonal", "never"] | float
Group = tuple[int, ...]
_SCALE = 1e4
"""HiGHS stops within 1e-6 of the optimum; scores are stretched so that this is 1e-10 of their range
for each task."""


@dataclass(frozen=True)
class GroupScores:
    """What each task gains in each group.

    Attributes:
        groups: different groups of task numbers, each rising.
        values: `(n_groups, n_tasks)`; NaN where the task is not in the group.
    """

    groups: tuple[Group, ...]
    values: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Refuse what does not belong together."""
        if self.values.ndim != 2 or len(self.values) != len(self.groups) or not self.groups:
            raise ValueError(f"values must be {len(self.groups)} rows, got {self.values.shape}")
        member = np.zeros(self.values.shape, bool)
        for row, group in zip(member, self.groups, strict=True):
            row[list(group)] = True
        if not np.isfinite(self.values[member]).all() or not np.isnan(self.values[~member]).all():
            raise ValueError("values must be finite for the tasks of a group and NaN for others")

    @property
    def n_tasks(self) -> int:
        """Number of tasks."""
        return self.values.shape[1]


@dataclass(frozen=True)
class Budget:
    """What the networks may cost together.

    Attributes:
        groups: most networks; None for any number.
        cost: most cost of all, such as milliseconds; None for any.
        network: cost of a network.
        task: cost of each task that it has a head for.
    """

    groups: int | None = None
    cost: float | None = None
    network: float = 1.0
    task: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no budget."""
        if self.groups is None and self.cost is None:
            raise ValueError("a budget is needed: a number of groups, or a cost")
        if self.groups is not None and self.groups < 1:
            raise ValueError(f"groups must be at least 1, got {self.groups}")
        for name in ("cost", "network", "task"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be at least 0 and finite, got {value}")

    def cost_of(self, group: Group) -> float:
        """Cost of one network."""
        return self.network + self.task * len(group)


@dataclass(frozen=True)
class Grouping:
    """A choice of groups.

    Attributes:
        groups: those that serve a task, in the order of the first task they serve.
        serves: `(n_tasks,)`, number of the group that each task is served by.
        value: mean score over tasks.
    """

    groups: tuple[Group, ...]
    serves: tuple[int, ...]
    value: float


def check_affinity(affinity: ArrayLike) -> NDArray[np.float64]:
    """The matrix as floats.

    Raises:
        ValueError: unless it is square and finite, of 2 to `MOST_TASKS` tasks.
    """
    try:
        matrix = np.array(affinity, np.float64)
    except (TypeError, ValueError):
        raise ValueError("affinity must be a square matrix of numbers") from None
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"affinity must be a square matrix, got shape {matrix.shape}")
    if not 2 <= len(matrix) <= MOST_TASKS:
        raise ValueError(f"affinity must be of 2 to {MOST_TASKS} tasks, got {len(matrix)}")
    if not np.isfinite(matrix).all():
        row, column = np.argwhere(~np.isfinite(matrix))[0]
        raise ValueError(
            f"affinity must be finite, got {matrix[row, column]} in row {row}, column {column}"
        )
    return matrix


def all_groups(n_tasks: int) -> tuple[Group, ...]:
    """All groups of at least one of `n_tasks` tasks, small ones first."""
    sizes = range(1, n_tasks + 1)
    return tuple(g for size in sizes for g in itertools.combinations(range(n_tasks), size))


def group_scores(affinity: ArrayLike, solo: Solo = "zero") -> GroupScores:
    """Score of every task in every group: the mean affinity of the others onto it.

    With what pairs of tasks gained in trainings in place of affinities, `affinity[i][j]` being what
    j gained beside i, these are the estimates of higher-order approximation (HOA; Standley et al.
    2020, "Which Tasks Should Be Learned Together in Multi-task Learning?").

    Args:
        affinity: `(T, T)`; row i acts, column j is acted on.
        solo: score of a task alone; see the module.

    Raises:
        ValueError: if the matrix is malformed or `solo` is none of these.
    """
    matrix = check_affinity(affinity)
    if isinstance(solo, str):
        if solo not in ("zero", "diagonal", "never"):
            raise ValueError(f"solo must be zero, diagonal, never or a number, got {solo!r}")
        alone = matrix.diagonal() if solo == "diagonal" else np.zeros(len(matrix))
    else:
        if not math.isfinite(solo):
            raise ValueError(f"solo must be finite, got {solo}")
        alone = np.full(len(matrix), float(solo))
    groups = all_groups(len(matrix))
    if solo == "never":
        groups = tuple(group for group in groups if len(group) > 1)
    values = np.full((len(groups), len(matrix)), np.nan)
    for row, group in zip(values, groups, strict=True):
        part = matrix[np.ix_(group, group)]
        others = part.sum(0) - part.diagonal()
        row[list(group)] = others / (len(group) - 1) if len(group) > 1 else alone[list(group)]
    return GroupScores(groups, values)


def select_groups(scores: GroupScores, budget: Budget) -> Grouping:
    """The best choice within a budget.

    Variables: whether a group is built, and which share of a task it serves; tasks are served once,
    by groups that are built. Where several choices are best, one of them.

    Args:
        scores: of the groups that there are to choose from.
        budget: at most this.

    Raises:
        ValueError: if there are more networks than tasks in the budget, or no choice serves all.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_array

    _check_budget(scores, budget)
    n, pairs = len(scores.groups), np.argwhere(~np.isnan(scores.values))
    number = np.arange(len(pairs))
    served = coo_array(
        (np.ones(len(pairs)), (pairs[:, 1], n + number)), (scores.n_tasks, n + len(pairs))
    )
    ones = np.ones(2 * len(pairs))
    ones[: len(pairs)] = -1
    built = coo_array(
        (ones, (np.tile(number, 2), np.concatenate([pairs[:, 0], n + number]))),
        (len(pairs), n + len(pairs)),
    )
    limits = [LinearConstraint(served, 1, 1), LinearConstraint(built, ub=0)]
    if budget.groups is not None:
        limits.append(LinearConstraint(_row(np.ones(n), len(pairs)), ub=budget.groups))
    if budget.cost is not None:
        costs = np.array([budget.cost_of(group) for group in scores.groups])
        limits.append(LinearConstraint(_row(costs, len(pairs)), ub=budget.cost * (1 + 1e-12)))
    loss = np.concatenate([np.zeros(n), _shortfall(scores)[tuple(pairs.T)]])
    # Shares of whole groups come out whole by themselves.
    whole = np.concatenate([np.ones(n), np.zeros(len(pairs))])
    options = {"mip_rel_gap": 0.0}
    found = milp(loss, integrality=whole, bounds=Bounds(0, 1), constraints=limits, options=options)
    if found.x is None:
        raise ValueError(f"no choice of groups within the budget serves all tasks: {found.message}")
    return best_service(scores, np.flatnonzero(found.x[:n] > 0.5).tolist())


def select_by_enumeration(scores: GroupScores, budget: Budget) -> Grouping:
    """What `select_groups` finds, by trying every choice; for few tasks.

    Raises:
        ValueError: as `select_groups`.
    """
    _check_budget(scores, budget)
    most = scores.n_tasks if budget.groups is None else budget.groups
    limit = math.inf if budget.cost is None else budget.cost * (1 + 1e-12)
    costs = [budget.cost_of(group) for group in scores.groups]
    filled = np.where(np.isnan(scores.values), -np.inf, scores.values)
    best, chosen = -math.inf, None
    for size in range(1, most + 1):
        for choice in itertools.combinations(range(len(costs)), size):
            if sum(costs[g] for g in choice) <= limit:
                value = filled[list(choice)].max(0).sum()
                if value > best:
                    best, chosen = value, choice
    if chosen is None:
        raise ValueError("no choice of groups within the budget serves all tasks")
    return best_service(scores, chosen)


def best_service(scores: GroupScores, choice: Sequence[int]) -> Grouping:
    """A choice of groups by their numbers, each task served where its score is highest.

    Raises:
        ValueError: if a task is in none of them.
    """
    part = np.where(np.isnan(scores.values), -np.inf, scores.values)[list(choice)]
    best = part.argmax(0)
    if not len(choice) or not np.isfinite(part.max(0)).all():
        raise ValueError("every task must be in a group")
    used = list(dict.fromkeys(best.tolist()))  # what serves nobody need not be built
    groups = tuple(scores.groups[choice[k]] for k in used)
    return Grouping(groups, tuple(used.index(k) for k in best.tolist()), float(part.max(0).mean()))


def value_of(grouping: Grouping, truth: GroupScores) -> float:
    """Mean true score over tasks, each in the group that the choice serves it by.

    Raises:
        ValueError: if a group is not among those of `truth`.
    """
    rows = {group: row for row, group in enumerate(truth.groups)}
    if missing := [group for group in grouping.groups if group not in rows]:
        raise ValueError(f"no true score of group {missing[0]}")
    chosen = [rows[grouping.groups[k]] for k in grouping.serves]
    return float(truth.values[chosen, range(truth.n_tasks)].mean())


def partitions(n_tasks: int, n_groups: int) -> Iterator[tuple[Group, ...]]:
    """All ways to part tasks into so many groups, each task in one: what chance would choose from.

    Raises:
        ValueError: unless there are 1 to `n_tasks` groups.
    """
    if not 1 <= n_groups <= n_tasks:
        raise ValueError(f"groups must be 1 to {n_tasks}, the tasks, got {n_groups}")

    def extend(parts: tuple[Group, ...], task: int) -> Iterator[tuple[Group, ...]]:
        if task == n_tasks:
            if len(parts) == n_groups:
                yield parts
            return
        for k in range(len(parts)):
            yield from extend((*parts[:k], (*parts[k], task), *parts[k + 1 :]), task + 1)
        if len(parts) < n_groups:
            yield from extend((*parts, (task,)), task + 1)

    return extend((), 0)


def partition_value(parts: Sequence[Group], scores: GroupScores) -> float:
    """Mean score over tasks, each in its part.

    Raises:
        ValueError: if the parts are no partition, or have no score.
    """
    if sorted(task for part in parts for task in part) != list(range(scores.n_tasks)):
        raise ValueError(f"every task must be in exactly one part, got {tuple(parts)}")
    serves = [next(k for k, part in enumerate(parts) if j in part) for j in range(scores.n_tasks)]
    return value_of(Grouping(tuple(parts), tuple(serves), math.nan), scores)


def _check_budget(scores: GroupScores, budget: Budget) -> None:
    if budget.groups is not None and budget.groups > scores.n_tasks:
        raise ValueError(
            f"groups must be at most the number of tasks, {scores.n_tasks}, got {budget.groups}"
        )
    if budget.cost is not None:
        least = budget.network + budget.task * scores.n_tasks
        if budget.cost * (1 + 1e-12) < least:
            raise ValueError(
                f"cost must be at least {least:g}, that of one network for all "
                f"{scores.n_tasks} tasks, got {budget.cost:g}"
            )


def _shortfall(scores: GroupScores) -> NDArray[np.float64]:
    """How much less than its best each task gains, over the widest range of a task, stretched."""
    best = np.nanmax(scores.values, axis=0)
    short = best - scores.values
    widest = float(np.nanmax(short))
    return short * (_SCALE / widest if widest > 0 else 0.0)


def _row(values: NDArray[np.float64], more: int) -> NDArray[np.float64]:
    return np.concatenate([values, np.zeros(more)])[None]
