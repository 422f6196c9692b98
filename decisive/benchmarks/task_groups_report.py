"""What `decisive benchmark task-groups` tells, of whatever cells are there."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from learning.atomic import write_file
from learning.task_affinity_groups import (
    Budget,
    GroupScores,
    Solo,
    all_groups,
    group_scores,
    partition_value,
    partitions,
    select_groups,
    value_of,
)

if TYPE_CHECKING:
    from pathlib import Path

Results = Mapping[tuple[tuple[str, ...], int], Mapping[str, Any] | None]
"""Results by group and seed; None where a cell was not run."""
WAYS: tuple[tuple[str, str, Solo], ...] = (
    ("look-ahead", "look-ahead", "zero"),
    ("look-ahead, diagonal", "look-ahead", "diagonal"),
    ("first-order", "first-order", "zero"),
    ("first-order, diagonal", "first-order", "diagonal"),
)
"""Name, method, and what a task alone scores."""
NOTES = (
    "The gain of a task in a group is what its held-out loss is lower than after its training "
    "alone, as a share; a choice of groups gains the mean over tasks. Foretold scores know no "
    "held-out image. Correlations are Spearman's, over the groups of two tasks and more that a "
    "task is in. 'Exhaustive' chooses by the true gains, 'pairs' by those of single tasks and "
    "pairs (HOA), 'chance' is the mean over all ways to part the tasks. Groups are chosen by the "
    "means over seeds, and what they gain is judged on the same trainings."
)


def evidence(tasks: tuple[str, ...], seeds: int, results: Results) -> dict[str, Any]:
    """Everything that the tables and the picture show, as JSON.

    Args:
        tasks: all of them, in order.
        seeds: how many were asked for; only those with every group trained are judged.
        results: by group and seed.
    """
    groups = [tuple(tasks[j] for j in group) for group in all_groups(len(tasks))]
    whole = [s for s in range(seeds) if all(results.get((g, s)) for g in groups)]
    done = sum(results.get((g, s)) is not None for g in groups for s in range(seeds))
    told: dict[str, Any] = {
        "tasks": list(tasks),
        "cells": {"done": done, "of": len(groups) * seeds, "seeds_complete": whole},
        "affinity": _affinities(tasks, range(seeds), results),
    }
    if not whole:
        return told
    truth = true_gains(tasks, whole, results)
    told["gains"] = [
        {"group": list(group), "gains": {t: _gain(row, tasks, t) for t in group}}
        for group, row in zip(groups, truth.values, strict=True)
    ]
    foretold = {
        name: group_scores(told["affinity"][method]["matrix"], solo) for name, method, solo in WAYS
    }
    foretold["pairs"] = group_scores(_pair_gains(truth, len(tasks)), 0.0)
    told["correlation"] = {
        name: correlations(foretold[name], truth, tasks)
        for name in ("look-ahead", "first-order", "pairs")
    }
    told["choices"] = _choices(tasks, foretold, truth)
    told["cost"] = costs(tasks, whole, results)
    return told


def true_gains(tasks: tuple[str, ...], seeds: Sequence[int], results: Results) -> GroupScores:
    """What each task gained in each group against itself alone, the mean over seeds."""
    groups = all_groups(len(tasks))
    values = np.full((len(groups), len(tasks)), np.nan)
    for row, group in zip(values, groups, strict=True):
        for j in group:
            row[j] = fmean(
                1 - _loss(results, tasks, group, j, seed) / _loss(results, tasks, (j,), j, seed)
                for seed in seeds
            )
    return GroupScores(groups, values)


def correlations(
    foretold: GroupScores, truth: GroupScores, tasks: Sequence[str]
) -> dict[str, float | None]:
    """Spearman's rank correlation of each task over its groups of two and more, and their mean.

    None where one of the two does not vary.
    """
    from scipy.stats import rankdata

    found: dict[str, float | None] = {}
    for j, task in enumerate(tasks):
        rows = [k for k, group in enumerate(truth.groups) if j in group and len(group) > 1]
        at = [foretold.groups.index(truth.groups[k]) for k in rows]
        first, second = foretold.values[at, j], truth.values[rows, j]
        varies = len(set(first.tolist())) > 1 and len(set(second.tolist())) > 1
        found[task] = (
            float(np.corrcoef(rankdata(first), rankdata(second))[0, 1]) if varies else None
        )
    known = [value for value in found.values() if value is not None]
    return {**found, "mean": fmean(known) if known else None}


def costs(tasks: tuple[str, ...], seeds: Sequence[int], results: Results) -> dict[str, float]:
    """CPU-seconds a seed of each way to choose, before the chosen groups are trained."""

    def spent(group: tuple[str, ...]) -> float:
        parts = []
        for seed in seeds:
            result = results[group, seed]
            assert result is not None
            measuring = sum(m["cpu_seconds"] for m in result["affinities"].values())
            parts.append(result["cpu_seconds"] - measuring)
        return fmean(parts)

    def measuring(method: str) -> float:
        found = [results[tasks, seed] for seed in seeds]
        return fmean(r["affinities"][method]["cpu_seconds"] for r in found if r is not None)

    sizes = [g for n in range(1, len(tasks) + 1) for g in itertools.combinations(tasks, n)]
    return {
        "look-ahead": spent(tasks) + measuring("look-ahead"),
        "first-order": spent(tasks) + measuring("first-order"),
        "all tasks together, nothing measured": spent(tasks),
        "pairs": sum(spent(group) for group in sizes if len(group) <= 2),
        "exhaustive": sum(map(spent, sizes)),
    }


def tables_of(told: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Titles, headers and rows; 'not run' as long as a group is missing."""
    cells = told["cells"]
    found = [("Cells", ["trained", "of"], [[str(cells["done"]), str(cells["of"])]])]
    if "choices" not in told:
        return [*found, ("Choices of groups", ["not run"], [["train the missing cells first"]])]
    names = [*told["tasks"], "mean"]
    rows = [
        [way, *(_number(values[name]) for name in names)]
        for way, values in told["correlation"].items()
    ]
    found.append(("Rank correlation of foretold and true gains", ["foretold by", *names], rows))
    rows = [
        [
            str(c["groups_allowed"]),
            c["way"],
            c["chosen"],
            _percent(c["gain"]),
            _percent(c["regret"]),
        ]
        for c in told["choices"]
    ]
    header = ["groups at most", "chosen by", "groups", "gain %", "regret %"]
    found.append(("What the chosen groups gain", header, rows))
    least = told["cost"]
    rows = [
        [
            way,
            f"{seconds:.0f}",
            f"{least['exhaustive'] / seconds:.1f}",
            f"{least['pairs'] / seconds:.1f}",
        ]
        for way, seconds in least.items()
    ]
    header = ["way to choose", "CPU-seconds", "exhaustive takes x times", "pairs take x times"]
    return [*found, ("Cost of choosing", header, rows)]


def write(
    told: Mapping[str, Any], results: Results, command: str, source: str, folder: Path
) -> None:
    """Write README.md and, where every group was trained, gains.png."""
    known = [result for result in results.values() if result is not None]
    lines = ["# Task groups", "", source, "", NOTES, ""]
    for title, header, rows in tables_of(told):
        lines += [f"## {title}", ""]
        lines += ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)]
        lines.append("")
    if "choices" in told:
        write_file(folder / "gains.png", picture(told))
        lines += ["![Foretold and true gains of every task in every group](gains.png)", ""]
    if known:
        first = known[0]
        machine = first["machine"]
        commits = ", ".join(sorted({str(result["commit"]) for result in known}))
        lines += [
            f"{machine['cpu']}, {machine['cores']} cores, one thread; torch "
            f"{first['versions']['torch']}; {first['steps']} steps; commit {commits}.",
            "",
        ]
    lines += ["```", command, "```", ""]
    write_file(folder / "README.md", "\n".join(lines).encode())


def picture(told: Mapping[str, Any]) -> bytes:
    """True gains over foretold ones, a panel a method, a colour a task; PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    tasks = told["tasks"]
    for axes, method in zip(
        figure.subplots(1, 2, sharey=True), ("look-ahead", "first-order"), strict=True
    ):
        scores = group_scores(told["affinity"][method]["matrix"])
        for number, task in enumerate(tasks):
            rows = [
                (scores.values[k, number], 100 * entry["gains"][task])
                for k, entry in enumerate(told["gains"])
                if task in entry["gains"] and len(entry["group"]) > 1
            ]
            axes.plot(*zip(*rows, strict=True), "osv^DPX*"[number], color=f"C{number}", label=task)
        axes.axhline(0, color="0.8", zorder=0)
        mean = _number(told["correlation"][method]["mean"])
        axes.set(xlabel="foretold: mean affinity of the others", title=f"{method}, rho {mean}")
    figure.axes[0].set_ylabel("true gain against training alone, %")
    figure.axes[0].legend(fontsize="small")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    return stream.getvalue()


def _affinities(tasks: tuple[str, ...], seeds: Sequence[int], results: Results) -> dict[str, Any]:
    """Means over seeds by method, of the trainings of all tasks that are there."""
    known = [r for s in seeds if (r := results.get((tasks, s))) is not None]
    if not known:
        return {}
    return {
        method: {
            "matrix": np.mean([r["affinities"][method]["matrix"] for r in known], 0).tolist(),
            "seeds": len(known),
        }
        for method in ("look-ahead", "first-order")
    }


def _choices(
    tasks: Sequence[str], foretold: Mapping[str, GroupScores], truth: GroupScores
) -> list[dict[str, Any]]:
    rows = []
    for allowed in range(1, len(tasks) + 1):
        best = select_groups(truth, Budget(groups=allowed))
        for way, scores in (("exhaustive", truth), *foretold.items()):
            chosen = select_groups(scores, Budget(groups=allowed))
            gain = value_of(chosen, truth)
            named = "; ".join("+".join(tasks[j] for j in group) for group in chosen.groups)
            rows.append(_choice(allowed, way, named, gain, best.value))
        parts = [partition_value(p, truth) for p in partitions(len(tasks), allowed)]
        rows.append(_choice(allowed, "chance", f"{len(parts)} ways", fmean(parts), best.value))
    return rows


def _choice(allowed: int, way: str, chosen: str, gain: float, best: float) -> dict[str, Any]:
    return {
        "groups_allowed": allowed,
        "way": way,
        "chosen": chosen,
        "gain": gain,
        "regret": best - gain,
    }


def _pair_gains(truth: GroupScores, n: int) -> list[list[float]]:
    """`[i][j]`: what j gained beside i."""
    rows = dict(zip(truth.groups, truth.values, strict=True))
    return [
        [0.0 if i == j else float(rows[min(i, j), max(i, j)][j]) for j in range(n)]
        for i in range(n)
    ]


def _loss(
    results: Results, tasks: Sequence[str], group: Sequence[int], task: int, seed: int
) -> float:
    result = results[tuple(tasks[j] for j in group), seed]
    assert result is not None
    return float(result["losses"][tasks[task]])


def _gain(row: Any, tasks: Sequence[str], task: str) -> float:
    return float(row[list(tasks).index(task)])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"
