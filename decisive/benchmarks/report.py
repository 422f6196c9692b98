"""The tables of a benchmark from the results of its cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decisive.benchmarks.recipes import TASKS
from decisive.benchmarks.tabletop import Cell
from decisive.statistics import failure_ratio, mcnemar_exact, paired_test, wilson_interval
from decisive.tables import percent, ratio
from learning.atomic import write_file

NOT_RUN = "not run"
Results = Mapping[Cell, Mapping[str, Any] | None]
Key = tuple[str, str, int, str]
"""Task, expert, number of demonstrations, shift: one row of the table."""


@dataclass(frozen=True)
class Pool:
    """The cells of one row and one method, over the training seeds that were run.

    Attributes:
        outcomes: success of every episode by training seed.
        scores: mean score by training seed, where the environment gives one.
        missing: training seeds of the grid that were not run.
    """

    outcomes: Mapping[int, Sequence[bool]]
    scores: Sequence[float]
    missing: int

    @property
    def successes(self) -> int:
        """Successful episodes, all seeds together."""
        return sum(map(sum, self.outcomes.values()))

    @property
    def episodes(self) -> int:
        """Episodes, all seeds together."""
        return sum(map(len, self.outcomes.values()))


def pool(results: Results, key: Key, method: str) -> Pool:
    """Gather the results of one row and one method."""
    outcomes: dict[int, list[bool]] = {}
    scores: list[float] = []
    missing = 0
    for cell, result in results.items():
        if (cell.task, cell.expert, cell.demos, cell.shift) != key or cell.method != method:
            continue
        if result is None:
            missing += 1
            continue
        told = result["results"]
        outcomes[cell.seed] = [bool(row["success"]) for row in told["per_episode"]]
        if told["score_mean"] is not None:
            scores.append(told["score_mean"])
    return Pool(outcomes, scores, missing)


def table(results: Results) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table.

    Args:
        results: result of every cell of the grid; `None` where it was not run.
    """
    methods = list(dict.fromkeys(cell.method for cell in results))
    keys = list(dict.fromkeys((c.task, c.expert, c.demos, c.shift) for c in results))
    order = list(TASKS)
    keys.sort(key=lambda k: (order.index(k[0]), k[1] != "diverse", -k[2], k[3]))
    header = ["task", "expert", "demos", *methods, "fails MSE/IBC", "IBC-MSE p", "IBC-MDN p"]
    rows = []
    for key in keys:
        pools = {method: pool(results, key, method) for method in methods}
        task, expert, demos, shift = key
        title = TASKS[task].title + (f", {shift}" if shift else "")
        rows.append(
            [
                title,
                expert,
                str(demos),
                *(success(p) for p in pools.values()),
                _failures(pools.get("ibc"), pools.get("mse")),
                _p(pools.get("ibc"), pools.get("mse")),
                _p(pools.get("ibc"), pools.get("mdn")),
            ]
        )
    return header, rows


def success(found: Pool) -> str:
    """Mean success over the training seeds, pooled Wilson interval, and the score if it differs."""
    if not found.outcomes:
        return NOT_RUN if found.missing else ""
    text = percent(
        found.successes / found.episodes, wilson_interval(found.successes, found.episodes)
    )
    if found.scores:
        score = sum(found.scores) / len(found.scores)
        if abs(score - found.successes / found.episodes) > 0.005:
            text += f"; score {100 * score:.0f}"
    if found.missing:
        text += f" ({len(found.outcomes)} of {len(found.outcomes) + found.missing} seeds)"
    return text


def _common(first: Pool | None, second: Pool | None) -> list[tuple[Sequence[bool], Sequence[bool]]]:
    """Outcomes of both for the training seeds that both have."""
    if first is None or second is None:
        return []
    shared = sorted(first.outcomes.keys() & second.outcomes.keys())
    return [(first.outcomes[seed], second.outcomes[seed]) for seed in shared]


def _failures(policy: Pool | None, reference: Pool | None) -> str:
    pairs = _common(policy, reference)
    if not pairs:
        return "-"
    n = sum(len(a) for a, _ in pairs)
    mine = n - sum(sum(a) for a, _ in pairs)
    theirs = n - sum(sum(b) for _, b in pairs)
    found = failure_ratio(mine, n, theirs, n)
    return ratio(found.ratio, (found.low, found.high))


def _p(first: Pool | None, second: Pool | None) -> str:
    pairs = _common(first, second)
    if not pairs:
        return "-"
    tests = [paired_test(a, b) for a, b in pairs]
    better, worse = sum(t.only_first for t in tests), sum(t.only_second for t in tests)
    return f"{mcnemar_exact(better, worse):.2g} ({better}:{worse})"


NOTES: str = """\
Success in percent with its 95% interval (Wilson), episodes of all training seeds pooled;
"score" is the mean partial score where it differs. "fails MSE/IBC": how many times more often MSE
fails than Implicit BC, with its 95% interval (Katz, halves added); above 1 Implicit BC is better.
p: McNemar's exact test on pairs (training seed, episode seed), in brackets how often only the
first and only the second succeeded. Intervals and p treat the episodes of one training as
independent of each other, which they are only given that training: training seeds spread wider.
"""


def write(results: Results, title: str, command: str, folder: Path) -> None:
    """Write README.md."""
    write_file(folder / "README.md", markdown(results, title, command).encode())


def markdown(results: Results, title: str, command: str) -> str:
    """The table as Markdown, with the command that fills it and the CPU time of what was run."""
    header, rows = table(results)
    return page(title, command, [], header, rows, [NOTES], list(results.values()))


def page(
    title: str,
    command: str,
    above: Sequence[str],
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    below: Sequence[str],
    results: Sequence[Mapping[str, Any] | None],
) -> str:
    """A Markdown page around a table, of any suite.

    Args:
        title: its heading.
        command: what fills the table.
        above: lines before the table.
        header: names of the columns.
        rows: cells of the table.
        below: lines after the table.
        results: of every cell of the grid; `None` where it was not run.
    """
    done = [result for result in results if result is not None]
    hours = sum(result["total_cpu_seconds"] for result in done) / 3600.0
    commits = sorted({str(result["results"]["commit"])[:12] for result in done})
    machines = sorted({str(result["results"]["machine"]["cpu"]) for result in done})
    lines = [
        f"# {title}",
        "",
        f"`{command}`",
        "",
        *above,
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        *below,
        f"{len(done)} of {len(results)} cells run, {hours:.2f} CPU-hours of training and "
        f"evaluation (recording not counted), on {', '.join(machines) or 'no machine'}.",
        f"Commits: {', '.join(f'`{c}`' for c in commits) or 'none'}.",
        "",
    ]
    return "\n".join(lines)
