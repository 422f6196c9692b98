"""What walks through Room-to-Room came to: means, intervals, a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from decisive import tables
from decisive.statistics import resampled_means, wilson_interval
from envs.indoor.metrics import PathScores

MEANS = (
    "navigation_error",
    "oracle_error",
    "spl",
    "ndtw",
    "sdtw",
    "cls",
    "path_length",
)
"""Measures that are averaged; successes are counted."""

_RESAMPLES = 1000


@dataclass(frozen=True)
class Walk:
    """One walk and its scores.

    Attributes:
        instr_id: which instruction.
        path_id: which path it describes; others may describe the same.
        scan: building.
        steps: actions taken, turns among them; of a submission the poses behind the start.
        scores: None where the goal is secret.
    """

    instr_id: str
    path_id: str
    scan: str
    steps: int
    scores: PathScores | None

    def row(self) -> dict[str, Any]:
        """The row of `per_episode`."""
        scores = {} if self.scores is None else asdict(self.scores)
        return {"instr_id": self.instr_id, "scan": self.scan, "steps": self.steps, **scores}


def summarize(walks: Sequence[Walk]) -> dict[str, Any]:
    """Rates and means with their 95% intervals.

    Intervals of rates are Wilson's. Those of means are bootstrapped over paths, not over
    instructions: the instructions of one path are no independent episodes.

    Returns:
        A JSON object: `episodes`, `paths`, `success_rate`, `success_ci95`, `oracle_success_rate`,
        `oracle_success_ci95`, every name of `MEANS` with its `_ci95`, and `steps_mean`. All but
        the counts and the steps are None where a goal is secret.
    """
    results: dict[str, Any] = {
        "episodes": len(walks),
        "paths": len({walk.path_id for walk in walks}),
        "steps_mean": float(np.mean([walk.steps for walk in walks])),
    }
    scores = [walk.scores for walk in walks if walk.scores is not None]
    known = len(scores) == len(walks)
    for name in ("success", "oracle_success"):
        count = sum(bool(getattr(score, name)) for score in scores)
        results[f"{name}_rate"] = count / len(walks) if known else None
        results[f"{name}_ci95"] = list(wilson_interval(count, len(walks))) if known else None
    values = np.array([[getattr(score, name) for name in MEANS] for score in scores], float)
    intervals = _bootstrap(values, [walk.path_id for walk in walks]) if known else None
    for k, name in enumerate(MEANS):
        results[name] = float(values[:, k].mean()) if known else None
        results[f"{name}_ci95"] = None if intervals is None else intervals[:, k].tolist()
    return results


def _bootstrap(values: NDArray[np.float64], groups: Sequence[str]) -> NDArray[np.float64]:
    """Percentile intervals `(2, M)` of the means of `(N, M)` values, groups drawn whole."""
    return np.quantile(resampled_means(values, groups, _RESAMPLES), (0.025, 0.975), axis=0)


def results_table(results: Mapping[str, Any], title: str) -> Table:
    """One row of figures."""
    percents = {
        "success % [95% CI]": tables.percent(results["success_rate"], results["success_ci95"]),
        "oracle %": tables.percent(results["oracle_success_rate"]),
        "SPL %": tables.percent(results["spl"], results["spl_ci95"]),
        "nDTW %": tables.percent(results["ndtw"]),
        "SDTW %": tables.percent(results["sdtw"]),
        "CLS %": tables.percent(results["cls"]),
    }
    metres = {
        "error m": results["navigation_error"],
        "length m": results["path_length"],
    }
    row = {
        "agent": str(results["agent"]),
        "episodes": str(results["episodes"]),
        **percents,
        **{name: "-" if value is None else f"{value:.2f}" for name, value in metres.items()},
    }
    return tables.plain_table(list(row), [list(row.values())], title)
