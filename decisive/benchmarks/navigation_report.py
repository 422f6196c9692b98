"""Arms of a navigation study side by side: means over seeds, differences, shares of a gap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decisive import tables
from decisive.statistics import resampled_means

MEASURES = ("success", "spl", "navigation_error", "oracle_success", "ndtw", "sdtw", "cls")
_RESAMPLES = 2000


def compare(results: Mapping[tuple[str, int], Mapping[str, Any]], arms: Sequence[str]) -> Any:
    """Figures of every arm, and how far it is from the first.

    An instruction counts once: its figure is the mean over the seeds. Intervals are bootstrapped
    over paths (the instructions of one path are no independent episodes) and hold the trainings
    fixed; the spread over the seeds stands beside them.

    Args:
        results: by arm and seed; `per_episode` rows hold `path_id` and every one of `MEASURES`,
            the same instructions in the same order.
        arms: the first is what the others are compared with, the last bounds what can be gained.

    Returns:
        A JSON object by arm: `episodes`, `seeds`, each measure with its `_ci95` and its figures
        `_by_seed`; for all but the first `gain` (of success, paired) with `gain_ci95`; for those
        between, `share_of_gap` with `share_of_gap_ci95`: None where the gap's interval holds 0; for
        those after the second, `over_second` with `over_second_ci95`: paired, against the second.

    Raises:
        ValueError: if arms did not walk the same instructions.
    """
    values, groups = _values(results, arms)
    found: dict[str, Any] = {}
    success = {arm: values[arm][:, :, 0].mean(0) for arm in arms}
    for arm in arms:
        means = values[arm].mean(0)
        spread = np.quantile(_resampled(means, groups), (0.025, 0.975), axis=0)
        entry: dict[str, Any] = {"episodes": len(means), "seeds": len(values[arm])}
        for k, name in enumerate(MEASURES):
            entry[name] = float(means[:, k].mean())
            entry[f"{name}_ci95"] = spread[:, k].tolist()
            entry[f"{name}_by_seed"] = values[arm][:, :, k].mean(1).tolist()
        for name, rival in zip(("gain", "over_second"), arms, strict=False):
            if arms.index(arm) > arms.index(rival):
                gain = (success[arm] - success[rival])[:, None]
                entry[name] = float(gain.mean())
                interval = np.quantile(_resampled(gain, groups)[:, 0], (0.025, 0.975))
                entry[f"{name}_ci95"] = interval.tolist()
        found[arm] = entry
    low, high = found[arms[-1]].get("gain_ci95", (0.0, 0.0))
    for arm in arms[1:-1]:
        found[arm] |= {"share_of_gap": None, "share_of_gap_ci95": None}
        if low > 0 or high < 0:
            both = np.stack([success[name] - success[arms[0]] for name in (arm, arms[-1])], axis=1)
            with np.errstate(divide="ignore", invalid="ignore"):  # a resample may have no gap
                share = np.divide(*_resampled(both, groups).T)
            found[arm]["share_of_gap"] = found[arm]["gain"] / found[arms[-1]]["gain"]
            found[arm]["share_of_gap_ci95"] = np.nanquantile(share, (0.025, 0.975)).tolist()
    return found


def results_rows(arms: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table."""
    header = ["arm", "episodes", "seeds", "success % [95% CI]", "gain [95% CI]", "share of gap"]
    header += ["over the second", "SPL %", "error m", "oracle %", "nDTW %", "SDTW %", "CLS %"]
    rows = []
    for arm, entry in arms.items():
        share = entry.get("share_of_gap")
        rows.append(
            [
                arm,
                str(entry["episodes"]),
                str(entry["seeds"]),
                tables.percent(entry["success"], entry["success_ci95"]),
                _points(entry.get("gain"), entry.get("gain_ci95")),
                "-" if share is None else f"{share:.2f}",
                _points(entry.get("over_second"), entry.get("over_second_ci95")),
                *(
                    f"{entry[name]:.2f}"
                    if name == "navigation_error"
                    else tables.percent(entry[name])
                    for name in MEASURES[1:]
                ),
            ]
        )
    return header, rows


def _points(gain: float | None, interval: Sequence[float] | None) -> str:
    if gain is None or interval is None:
        return "-"
    low, high = (100 * end for end in interval)
    return f"{100 * gain:+.1f} [{low:+.1f}, {high:+.1f}]"


def _values(
    results: Mapping[tuple[str, int], Mapping[str, Any]], arms: Sequence[str]
) -> tuple[dict[str, NDArray[np.float64]], list[str]]:
    """`(seeds, episodes, measures)` by arm, and the path of each episode."""
    first = next(iter(results.values()))["per_episode"]
    names = [row["instr_id"] for row in first]
    for key, result in results.items():
        if [row["instr_id"] for row in result["per_episode"]] != names:
            raise ValueError(f"{key} walked other instructions than the rest; run it again")
    values = {
        arm: np.array(
            [
                [[float(row[name]) for name in MEASURES] for row in result["per_episode"]]
                for (other, _), result in results.items()
                if other == arm
            ]
        )
        for arm in arms
    }
    return values, [row["path_id"] for row in first]


def _resampled(values: NDArray[np.float64], paths: Sequence[str]) -> NDArray[np.float64]:
    """`(resamples, M)` means of `(N, M)` values, paths drawn whole."""
    return resampled_means(values, paths, _RESAMPLES)
