"""The table, the numbers and the picture of `decisive benchmark d4rl`."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from decisive.benchmarks.cells import NoDataError
from decisive.benchmarks.d4rl import PUBLISHED, TASKS, Cell, find_data
from decisive.benchmarks.report import page
from envs.d4rl.scores import REFERENCES
from learning.atomic import write_file

NOT_RUN, NO_DATA = "not run", "no data"
Results = Mapping[Cell, Mapping[str, Any] | None]
IMPLICIT = ("implicit-bc", "implicit-bc-rnce", "implicit-bc-rwr")


@dataclass(frozen=True)
class Entry:
    """One task and method over its training seeds.

    Attributes:
        returns: `(episodes,)` raw returns by training seed.
    """

    returns: Mapping[int, np.ndarray]

    @property
    def means(self) -> np.ndarray:
        """Mean return of each training seed."""
        return np.array([values.mean() for values in self.returns.values()])


@dataclass(frozen=True)
class Difference:
    """How much higher one method scores than another on the same seeds.

    Attributes:
        mean: of the paired differences of normalised scores.
        half: half of the 95 % interval of that mean (normal, pairs as independent).
        pairs: how many (training seed, episode seed).
    """

    mean: float
    half: float
    pairs: int


def entry(results: Results, task: str, method: str) -> Entry | None:
    """What was run of a task and method; `None` if nothing was."""
    found = {
        cell.seed: np.array([row["return"] for row in result["results"]["per_episode"]])
        for cell, result in results.items()
        if (cell.task, cell.method) == (task, method) and result is not None
    }
    return Entry(found) if found else None


def score(task: str, value: float) -> float:
    """D4RL's normalised score of a return."""
    return REFERENCES[task.partition("-")[0]].normalized(value)


def difference(task: str, first: Entry | None, second: Entry | None) -> Difference | None:
    """Paired difference of normalised scores over the training seeds that both have."""
    if first is None or second is None:
        return None
    shared = sorted(first.returns.keys() & second.returns.keys())
    if not shared:
        return None
    gaps = np.concatenate([first.returns[s] - second.returns[s] for s in shared])
    scale = score(task, 1.0) - score(task, 0.0)
    spread = float(gaps.std(ddof=1)) if len(gaps) > 1 else math.nan
    return Difference(
        float(gaps.mean()) * scale, 1.96 * spread * scale / math.sqrt(len(gaps)), len(gaps)
    )


def better(results: Results, task: str) -> str | None:
    """The Implicit BC variant with the highest mean return, of those that were run."""
    found = {m: e for m in IMPLICIT if (e := entry(results, task, m)) is not None}
    return max(found, key=lambda m: found[m].means.mean()) if found else None


def table(
    results: Results, published: Sequence[str] = ("CQL", "MSE", "IBC")
) -> tuple[list[str], list[list[str]]]:
    """Header and rows: ours as score (return), then the published returns.

    Args:
        results: result of every cell of the grid; `None` where it was not run.
        published: those of `PUBLISHED` to show; all do not fit on a screen.
    """
    places = [PUBLISHED.index(name) for name in published]
    methods = list(dict.fromkeys(cell.method for cell in results))
    tasks = [task for task in TASKS if any(cell.task == task for cell in results)]
    header = ["task", *methods, "better IBC - MSE", *(f"{name} (published)" for name in published)]
    rows = []
    for task in tasks:
        ours = [_shown(task, entry(results, task, method)) for method in methods]
        best = better(results, task)
        gap = difference(task, entry(results, task, best or ""), entry(results, task, "mse"))
        told = "-" if gap is None else f"{gap.mean:+.1f} ± {gap.half:.1f}"
        theirs = [_raw(TASKS[task].published[place]) for place in places]
        rows.append([TASKS[task].title, *ours, told, *theirs])
    return header, rows


def _shown(task: str, found: Entry | None) -> str:
    """`score ± s.d. (return)` over training seeds."""
    if found is None:
        return NOT_RUN if _has_data(task) else NO_DATA
    scores = [score(task, value) for value in found.means]
    spread = f" ± {np.std(scores, ddof=1):.1f}" if len(scores) > 1 else " (1 seed)"
    return f"{np.mean(scores):.1f}{spread} ({found.means.mean():.0f})"


def _has_data(task: str) -> bool:
    try:
        find_data(task)
    except NoDataError:
        return False
    return True


def _raw(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:g}"


NOTES: str = """\
Ours: D4RL's normalised score, mean and s.d. over training seeds, and the mean raw return
in brackets. 100 episodes a training (seeds 0 to 99), of 200 steps (pen 100, kitchen 280), on
gymnasium-robotics with D4RL's rewards and ends; the last weights, nothing chosen by episodes.
"better IBC - MSE": difference of scores on the same (training seed, episode seed), mean and 95%
interval with pairs taken as independent, for the Implicit BC variant with the higher mean, chosen
on these very episodes. Published: raw returns of Florence et al. 2021, Table 2, on D4RL v0 data
and mujoco-py; "not run" and "no data" say what is missing here.
"""


def summary(results: Results) -> dict[str, Any]:
    """The numbers of the table as JSON values."""
    rows: dict[str, Any] = {}
    for task in TASKS:
        told: dict[str, Any] = {}
        for method in dict.fromkeys(cell.method for cell in results):
            found = entry(results, task, method)
            if found is None:
                told[method] = NOT_RUN if _has_data(task) else NO_DATA
                continue
            means = found.means
            told[method] = {
                "seeds": sorted(found.returns),
                "return_mean": float(means.mean()),
                "normalized_score": score(task, float(means.mean())),
                "normalized_score_std": (
                    float(np.std([score(task, m) for m in means], ddof=1))
                    if len(means) > 1
                    else None
                ),
            }
        gap = difference(
            task, entry(results, task, better(results, task) or ""), entry(results, task, "mse")
        )
        rows[task] = {
            "env": TASKS[task].env,
            "ours": told,
            "better_implicit": better(results, task),
            "better_implicit_minus_mse": (
                None
                if gap is None
                else {"mean": gap.mean, "ci95_half": gap.half, "pairs": gap.pairs}
            ),
            "published_returns": {
                name: value
                for name, value in zip(PUBLISHED, TASKS[task].published, strict=True)
                if value is not None and not math.isnan(value)
            },
        }
    return rows


def verdict(results: Results) -> str:
    """How many rows of the article our better Implicit BC wins; rows without data do not count."""
    rows = [
        (task, found, cql)
        for task in TASKS
        if (cql := TASKS[task].published[PUBLISHED.index("CQL")]) is not None
        and (found := entry(results, task, better(results, task) or "")) is not None
    ]
    ahead = sum(found.means.mean() > cql for _, found, cql in rows)
    return (
        f"Of the article's seven rows {len(rows)} were run here; in {ahead} of them the better "
        "Implicit BC returns more than CQL's published figure."
    )


def write(results: Results, title: str, command: str, folder: Path) -> None:
    """Write README.md, summary.json and scores.png."""
    write_file(folder / "summary.json", (json.dumps(summary(results), indent=2) + "\n").encode())
    write_file(folder / "scores.png", picture(results))
    write_file(folder / "README.md", markdown(results, title, command).encode())


def markdown(results: Results, title: str, command: str) -> str:
    """The table as Markdown, with the command that fills it and the CPU time of what was run."""
    picture_line = ["![Normalised scores](scores.png)", ""]
    below = [NOTES, verdict(results), ""]
    return page(
        title, command, picture_line, *table(results, PUBLISHED), below, list(results.values())
    )


def picture(results: Results) -> bytes:
    """Bars of normalised scores with the training seeds as points; PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    methods = list(dict.fromkeys(cell.method for cell in results))
    tasks = [t for t in TASKS if any(entry(results, t, m) for m in methods)]
    shown = [m for m in methods if any(entry(results, t, m) for t in tasks)]
    figure = Figure(figsize=(max(6.0, 2.0 * len(tasks)), 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    width = 0.8 / max(1, len(shown))
    for number, method in enumerate(shown):
        label: str | None = method
        for place, task in enumerate(tasks):
            found = entry(results, task, method)
            if found is None:
                continue
            scores = [score(task, value) for value in found.means]
            x = place + (number - (len(shown) - 1) / 2) * width
            axes.bar(x, np.mean(scores), width, color=f"C{number}", alpha=0.75, label=label)
            axes.plot([x] * len(scores), scores, "k.", markersize=4)
            label = None
    axes.axhline(100.0, color="0.6", linewidth=0.8, linestyle="--")
    axes.set_xticks(range(len(tasks)), [TASKS[t].title.replace(", ", "\n") for t in tasks])
    axes.set_ylabel("D4RL normalised score")
    if shown:
        axes.legend(loc="upper left", fontsize=8)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()
