"""Tables of results, on the screen."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def percent(rate: float | None, interval: Sequence[float] | None = None) -> str:
    """A rate in percent, with its interval in brackets if there is one: `97.0 [91.5, 99.0]`."""
    if rate is None:
        return "-"
    if interval is None:
        return f"{100 * rate:.1f}"
    return f"{100 * rate:.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def ratio(value: float | None, interval: Sequence[float]) -> str:
    """A failure ratio with its interval; without failures it has only a lower end."""
    if value is None:
        return f"> {interval[0]:.1f}"
    return f"{value:.1f} [{interval[0]:.1f}, {interval[1]:.1f}]"


def results_table(results: Sequence[Mapping[str, Any]], title: str = "") -> Table:
    """One row of figures a policy; the score is D4RL's where the environment has one.

    Args:
        results: results of `decisive.evaluation.evaluate`.
        title: printed above the table.
    """
    table = Table(title=title or None, title_justify="left")
    table.add_column("policy", no_wrap=True)
    normalized = any(result.get("normalized_score") is not None for result in results)
    score = "D4RL score" if normalized else "score %"
    for name in ("episodes", "success % [95% CI]", score, "return", "steps", "ms/action (p95)"):
        table.add_column(name, justify="right")
    for result in results:
        speed = result["ms_per_action"]
        table.add_row(
            str(result["policy"]),
            str(result["episodes"]),
            percent(result["success_rate"], result["success_ci95"]),
            f"{result['normalized_score']:.1f}" if normalized else percent(result["score_mean"]),
            f"{result['return_mean']:.2f} ± {result['return_std']:.2f}",
            f"{result['length_mean']:.1f}",
            f"{speed['median']:.2f} ({speed['p95']:.2f})",
        )
    return table


def comparison_line(comparison: Mapping[str, Any]) -> str:
    """A paired comparison in one sentence."""
    first, second = comparison["policies"]
    how_often = ratio(comparison["failure_ratio"], comparison["failure_ratio_ci95"])
    return (
        f"paired: only {first} succeeded {comparison['only_first']} times, only {second} "
        f"{comparison['only_second']} times; McNemar exact p = {comparison['mcnemar_p']:.3g}; "
        f"{second} fails {how_often} times as often"
    )


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> Table:
    """A table of text."""
    table = Table(title=title or None, title_justify="left", show_lines=True)
    for name in header:
        table.add_column(name)
    for row in rows:
        table.add_row(*row)
    return table


def facts_table(facts: Mapping[str, Any], title: str = "") -> Table:
    """Two columns: what, and what it is."""
    table = Table(title=title or None, title_justify="left", show_header=False)
    table.add_column("what", no_wrap=True)
    table.add_column("value", overflow="fold")
    for name, value in facts.items():
        table.add_row(name, "-" if value is None else str(value))
    return table


def show(*parts: object) -> None:
    """Print tables and lines; wide enough for a table when the output is a file."""
    width = None if sys.stdout.isatty() else 140
    console = Console(width=width, soft_wrap=False, highlight=False)
    for part in parts:
        if isinstance(part, str):  # a table knows its width; a sentence is left to the terminal
            print(part)
        else:
            console.print(part)
