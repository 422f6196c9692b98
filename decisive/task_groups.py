"""Which tasks share a network, as the command line takes it: in words, in a file, by affinity."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MOST_BYTES = 2**20


@dataclass(frozen=True)
class TaskGroups:
    """Groups of tasks, one network for each.

    Attributes:
        groups: tasks that each network learns.
        serves: by task, the number of the network that answers for it.
        source: how they were chosen, in words.
    """

    groups: tuple[tuple[str, ...], ...]
    serves: Mapping[str, int]
    source: str

    def __post_init__(self) -> None:
        """Refuse networks that would serve nothing, and tasks that nobody serves."""
        for group in self.groups:
            if not group or len(set(group)) < len(group):
                raise ValueError(f"a group must be different tasks, got {'+'.join(group)!r}")
        if len(set(map(frozenset, self.groups))) < len(self.groups):
            raise ValueError("groups must differ, two are the same")
        for task, k in self.serves.items():
            if not isinstance(k, int) or not 0 <= k < len(self.groups):
                raise ValueError(f"{task} must be served by one of the groups, got {k!r}")
            if task not in self.groups[k]:
                raise ValueError(f"{task} is served by {'+'.join(self.groups[k])}, which lacks it")
        for task in {task for group in self.groups for task in group}:
            if task not in self.serves:
                raise ValueError(f"{task} is served by no group")
        for k, group in enumerate(self.groups):
            if k not in self.serves.values():
                raise ValueError(
                    f"{'+'.join(group)} would serve nothing: groups before it name all its tasks; "
                    "name it first or leave it out"
                )


def read_groups(words: str) -> TaskGroups:
    """Groups as `--groups` names them: `A+B,C`, or a file that `decisive group-tasks` has written.

    A task in several groups is served by the first, unless the file says by which.

    Raises:
        ValueError: one line, if it is neither.
        OSError: if the file cannot be read.
    """
    if words.endswith(".json"):
        return _from_file(Path(words))
    groups = [tuple(part.strip() for part in group.split("+")) for group in words.split(",")]
    if not all(all(group) for group in groups):
        raise ValueError(
            f"--groups must be tasks joined by + and groups by commas, such as "
            f"segmentation+edges,count; got {words!r}"
        )
    return TaskGroups(tuple(groups), _first_named(groups), "as the command names them")


def groups_of_affinity(path: str, networks: int, solo: str) -> TaskGroups:
    """The groups that affinities choose for at most so many networks.

    Args:
        path: as `decisive group-tasks` takes it.
        networks: most of them.
        solo: score of a task alone.

    Raises:
        ValueError: one line, for a file, a number or a word that will not do.
        OSError: if the file cannot be read.
    """
    from decisive.group_tasks import Arguments, read_matrix
    from learning.task_affinity_groups import group_scores, select_groups

    asked = Arguments(matrix=path, groups=networks, solo=solo)
    tasks, matrix = read_matrix(path)
    chosen = select_groups(group_scores(matrix, asked.alone()), asked.budget())
    return TaskGroups(
        tuple(tuple(tasks[j] for j in group) for group in chosen.groups),
        dict(zip(tasks, chosen.serves, strict=True)),
        f"chosen by affinities for at most {networks} networks, a task alone scoring {solo}; mean "
        f"score {chosen.value:.3g}",
    )


def _first_named(groups: Sequence[Sequence[str]]) -> dict[str, int]:
    serves: dict[str, int] = {}
    for k, group in enumerate(groups):
        for task in group:
            serves.setdefault(task, k)
    return serves


def _from_file(path: Path) -> TaskGroups:
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{path}: larger than {_MOST_BYTES} bytes; not a choice of groups")
    try:
        told: Any = json.loads(path.read_bytes())
        groups = [tuple(map(str, group)) for group in told["groups"]]
        serves = {str(task): k for task, k in told["served_by"].items()}
        return TaskGroups(tuple(groups), serves, "chosen by decisive group-tasks")
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f'{path}: must hold "groups" and "served_by", as decisive group-tasks --json prints '
            f"them ({error})"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
