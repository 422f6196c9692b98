"""The tables of the rain benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decisive.benchmarks.forecast_scoring import LEVELS, MARGIN, THRESHOLDS
from learning.atomic import write_file
from world_models.metnet2.scores import best_level, csi_of_counts

NOTES = (
    "CRPS in mm/h, lower is better, the mean of moments (and seeds) with a 95% bootstrap interval "
    "over them: moments of one event are few and alike, so the interval says little of other days. "
    "Cells whose truth is known; where a method says nothing, it says dry. CSI at the probability "
    "that is best at the other moments (0.5 where there is no other)."
)
PEERS = {
    "persistence": "persistence",
    "extrapolation": "Lucas-Kanade extrapolation (pysteps)",
    "sprog": "S-PROG (pysteps)",
    "steps": "STEPS (pysteps)",
}
STEPS, MODEL = "steps", "model"
DRAWS = 4000
Result = Mapping[str, Any]


@dataclass
class Cells:
    """Results of methods at moments.

    Attributes:
        label: what the model is called.
        moments: names, `EVENT-hhmm`.
        results: by method and moment; what was not run is not there.
    """

    label: str
    moments: list[str]
    results: dict[tuple[str, str], Result] = field(default_factory=dict)

    def put(self, method: str, moment: str, result: Result | None) -> None:
        """Add one."""
        if result is not None:
            self.results[method, moment] = result

    @property
    def events(self) -> list[str]:
        """Names, in order."""
        return list(dict.fromkeys(moment.rpartition("-")[0] for moment in self.moments))

    def of(self, event: str) -> list[str]:
        """Moments of an event."""
        return [moment for moment in self.moments if moment.rpartition("-")[0] == event]

    def seeds(self, method: str) -> list[str]:
        """Methods of a row: the model's are its seeds."""
        if method != MODEL:
            return [method]
        return sorted({name for name, _ in self.results if name.startswith(f"{MODEL}-")})

    def values(self, method: str, event: str, read: Any) -> NDArray[np.float64]:
        """`(seeds, moments)` numbers; NaN where a cell was not run."""
        rows = [
            [
                read(self.results[name, moment]) if (name, moment) in self.results else np.nan
                for moment in self.of(event)
            ]
            for name in self.seeds(method)
        ]
        return np.array(rows, np.float64).reshape(len(rows), len(self.of(event)))

    def name(self, method: str) -> str:
        """As in tables."""
        if method != MODEL:
            members = next((r["plan"]["members"] for (m, _), r in self.results.items()
                            if m == method and "members" in r["plan"]), None)  # fmt: skip
            return PEERS[method] + (f", {members} members" if members else "")
        n = len(self.seeds(MODEL))
        return f"{self.label}, {n} seeds" if n > 1 else self.label

    @property
    def methods(self) -> list[str]:
        """Rows."""
        return [*PEERS, *([MODEL] if self.seeds(MODEL) else [])]


def interval(values: NDArray[np.float64]) -> tuple[float, float, float] | None:
    """Mean and 95% bootstrap interval over seeds and moments; None if there is nothing.

    Args:
        values: `(seeds, moments)`; moments that were not run are left out.
    """
    kept = values[:, ~np.isnan(values).any(axis=0)]
    if not kept.size:
        return None
    rng = np.random.default_rng(0)
    seeds = rng.integers(0, kept.shape[0], (DRAWS, kept.shape[0]))
    moments = rng.integers(0, kept.shape[1], (DRAWS, kept.shape[1]))
    drawn = kept[seeds[:, :, None], moments[:, None, :]].mean(axis=(1, 2))
    low, high = np.percentile(drawn, (2.5, 97.5))
    return float(kept.mean()), float(low), float(high)


def told(found: tuple[float, float, float] | None, form: str = ".3f", sign: str = "") -> str:
    """A mean with its interval, as in tables."""
    if found is None:
        return "not run"
    mean, low, high = found
    text = f"{mean:{sign}{form}}"
    return text if low == high else f"{text} [{low:{sign}{form}}, {high:{sign}{form}}]"


def leads_of(cells: Cells, event: str) -> list[int]:
    """Minutes."""
    for moment in cells.of(event):
        for (_, other), result in cells.results.items():
            if other == moment:
                return list(result["leads"])
    return []


def shown_leads(leads: Sequence[int]) -> list[int]:
    """Places of the first, the middle and the last lead."""
    if 30 in leads:
        return [0, leads.index(30), len(leads) - 1]
    return sorted({0, len(leads) // 2, len(leads) - 1})


def table(cells: Cells) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one for each event and method."""
    header = ["event", "forecast", "CRPS: first lead", "middle", "last", "Brier, 1 mm/h, last",
              "CSI, 1 mm/h, last", "CPU s", "of STEPS"]  # fmt: skip
    rows = []
    for event in cells.events:
        leads = leads_of(cells, event)
        if not leads:
            continue
        for method in cells.methods:
            row = [event, cells.name(method)]
            for place in shown_leads(leads):
                found = interval(cells.values(method, event, _reader("crps", place)))
                row.append(told(found) + ("" if found is None else f" (+{leads[place]})"))
            last = len(leads) - 1
            row.append(told(interval(cells.values(method, event, _reader("brier", last, "1")))))
            row.append(told(interval(csi(cells, method, event, last, "1"))))
            rows.append([*row, *_cost(cells, method, event)])
    return header, rows


def _reader(name: str, lead: int, threshold: str | None = None) -> Any:
    def read(result: Result) -> float:
        values = result[name] if threshold is None else result[name][threshold]
        return float(values[lead])

    return read


def _cost(cells: Cells, method: str, event: str) -> list[str]:
    own = cells.values(method, event, lambda result: result["cpu_seconds"])
    theirs = cells.values(STEPS, event, lambda result: result["cpu_seconds"])
    if np.isnan(own).all() or not own.size:
        return ["not run", ""]
    cost = float(np.nanmedian(own))
    if method == STEPS:
        return [f"{cost:.2f}", "1"]
    if np.isnan(theirs).all() or cost < 1e-3:
        return [f"{cost:.2f}", ""]
    return [f"{cost:.2f}", f"{float(np.nanmedian(theirs)) / cost:.1f} times cheaper"]


def csi(cells: Cells, method: str, event: str, lead: int, threshold: str) -> NDArray[np.float64]:
    """`(seeds, moments)` CSI, each decided at the probability that is best at the others."""
    names, moments = cells.seeds(method), cells.of(event)
    found = np.full((len(names), len(moments)), np.nan)
    for row, name in enumerate(names):
        counts = [_counts(cells.results.get((name, m)), lead, threshold) for m in moments]
        for column, own in enumerate(counts):
            if own is None:
                continue
            others = [c for k, c in enumerate(counts) if k != column and c is not None]
            level = 0.5
            if others:
                said = np.sum([other[0] for other in others], axis=0)
                hits = np.sum([other[1] for other in others], axis=0)
                happened = sum(other[2] for other in others)
                level = best_level(LEVELS, csi_of_counts(said, hits, happened))
            place = int(np.abs(LEVELS - level).argmin())
            found[row, column] = csi_of_counts(own[0], own[1], own[2])[place]
    return found


def _counts(
    result: Result | None, lead: int, threshold: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], int] | None:
    if result is None:
        return None
    said, hits = (np.array(result[name][threshold][lead]) for name in ("said", "hits"))
    return said, hits, int(result["happened"][threshold][lead])


def by_lead(cells: Cells, event: str, read: Any, form: str = ".3f") -> list[str]:
    """Markdown: a row for each method, a column for each lead."""
    leads = leads_of(cells, event)
    rows = []
    for method in cells.methods:
        found = [interval(read(method, place)) for place in range(len(leads))]
        rows.append([cells.name(method)] + ["not run" if f is None else f"{f[0]:{form}}"
                                            for f in found])  # fmt: skip
    return markdown(["forecast", *(f"+{lead}" for lead in leads)], rows)


def differences(cells: Cells, event: str) -> list[str]:
    """Markdown: the model's CRPS less that of STEPS, moment by moment."""
    leads = leads_of(cells, event)
    rows = []
    for place, lead in enumerate(leads):
        ours = cells.values(MODEL, event, _reader("crps", place))
        theirs = cells.values(STEPS, event, _reader("crps", place))
        if not ours.size or np.isnan(theirs).all():
            return []
        gap = interval(ours - theirs)
        share = interval(100 * (ours / theirs - 1))
        rows.append([f"+{lead}", told(gap, ".4f", "+"), told(share, ".1f", "+")])
    return markdown(["minutes", "CRPS less that of STEPS, mm/h", "percent"], rows)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows)]


def write(cells: Cells, command: str, folder: Path) -> None:
    """Write README.md, results.json and pictures."""
    import json

    from decisive.benchmarks.forecast_picture import picture

    header, rows = table(cells)
    lines = ["# Forecasts of rain", "", "```sh", command, "```", "", *markdown(header, rows), "",
             NOTES, ""]  # fmt: skip
    for event in cells.events:
        drawn = picture(cells, event)
        if drawn:
            write_file(folder / f"{event}.png", drawn)
        lines += _section(cells, event, bool(drawn))
    write_file(folder / "README.md", "\n".join(lines).encode())
    document = {"command": command, "header": header, "rows": rows}
    write_file(folder / "results.json", (json.dumps(document, indent=2) + "\n").encode())


def _section(cells: Cells, event: str, drawn: bool) -> list[str]:
    lines = [f"## {event}: {len(cells.of(event))} moments", ""]
    lines += [f"![CRPS by lead, and reliability]({event}.png)", ""] if drawn else []

    def crps(method: str, place: int) -> NDArray[np.float64]:
        return cells.values(method, event, _reader("crps", place))

    def crps_middle(method: str, place: int) -> NDArray[np.float64]:
        return cells.values(method, event, _reader("crps_middle", place))

    lines += ["CRPS, mm/h, by minutes ahead:", "", *by_lead(cells, event, crps), ""]
    lines += [
        f"The same without {MARGIN} cells at each side (of a small square, its inner quarter), "
        "where what comes in was seen by nobody:", "", *by_lead(cells, event, crps_middle), "",
    ]  # fmt: skip
    apart = differences(cells, event)
    lines += ["The model and STEPS at the same moments:", "", *apart, ""] if apart else []
    for threshold in (f"{t:g}" for t in THRESHOLDS):

        def brier(method: str, place: int, key: str = threshold) -> NDArray[np.float64]:
            return cells.values(method, event, _reader("brier", place, key))

        def success(method: str, place: int, key: str = threshold) -> NDArray[np.float64]:
            return csi(cells, method, event, place, key)

        lines += [f"At least {threshold} mm/h: Brier score, then CSI:", ""]
        lines += [*by_lead(cells, event, brier), "", *by_lead(cells, event, success), ""]
    return lines
