"""The picture of the rain benchmark: CRPS by lead, and what probabilities are worth."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from decisive.benchmarks.forecast_report import MODEL, Cells, leads_of
from world_models.metnet2.calibration import Reliability

_STYLE: dict[str, dict[str, Any]] = {
    "persistence": {"color": "#999999", "marker": "x"},
    "extrapolation": {"color": "#56B4E9", "marker": "s"},
    "sprog": {"color": "#009E73", "marker": "^"},
    "steps": {"color": "#0072B2", "marker": "o"},
    MODEL: {"color": "#D55E00", "marker": "D"},
}
_RELIABLE = ("steps", MODEL)
_THRESHOLDS = ("0.2", "1", "4")
_LEAD = 30
_FEW = 500  # Cases of a bin, less is not drawn.


def reliability_of(cells: Cells, method: str, event: str, lead: int, threshold: str) -> Reliability:
    """All seeds and moments together."""
    total = None
    for name in cells.seeds(method):
        for moment in cells.of(event):
            result = cells.results.get((name, moment))
            if result is None:
                continue
            counts, forecast, happened = map(np.array, result["reliability"][threshold][lead])
            own = Reliability(counts, forecast, happened)
            total = own if total is None else total + own
    empty = np.zeros(0)
    return total or Reliability(empty.astype(np.int64), empty, empty)


def picture(cells: Cells, event: str) -> bytes:
    """PNG; empty without results."""
    leads = leads_of(cells, event)
    if not leads:
        return b""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.5, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 4, width_ratios=(1.7, 1, 1, 1))
    _draw_crps(panels[0], cells, event, leads)
    place = int(np.abs(np.array(leads) - _LEAD).argmin())
    for axes, threshold in zip(panels[1:], _THRESHOLDS, strict=True):
        _draw_reliability(axes, cells, event, place, threshold)
        axes.set_title(f"at least {threshold} mm/h, +{leads[place]} min", fontsize=9)
    panels[1].set_ylabel("how often it happened")
    n = len(cells.of(event))
    figure.suptitle(
        f"Rain, event {event}, {n} moment{'s' if n > 1 else ''}: real radar", fontsize=11
    )
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    return stream.getvalue()


def _draw_crps(axes: Any, cells: Cells, event: str, leads: list[int]) -> None:
    for method in cells.methods:
        values = [
            cells.values(method, event, lambda result, k=k: result["crps"][k])
            for k in range(len(leads))
        ]
        if not values[0].size or np.isnan(values[0]).all():
            continue
        means = [float(np.nanmean(value)) for value in values]
        axes.plot(leads, means, label=cells.name(method), markersize=4, linewidth=1.4,
                  **_STYLE[method])  # fmt: skip
    axes.set(xlabel="minutes ahead", ylabel="CRPS, mm/h (lower is better)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)


def _draw_reliability(axes: Any, cells: Cells, event: str, lead: int, threshold: str) -> None:
    axes.plot((0, 1), (0, 1), color="#bbbbbb", linewidth=1)
    for method in _RELIABLE:
        found = reliability_of(cells, method, event, lead, threshold)
        points = found.points if found.counts.size else np.zeros((0, 2))
        kept = found.counts >= _FEW
        if kept.any():
            axes.plot(points[kept, 0], points[kept, 1], markersize=4, linewidth=1.4,
                      **_STYLE[method])  # fmt: skip
            place = 0.95 if method == MODEL else 0.87
            axes.text(0.04, place, f"error {found.expected_error:.3f}", transform=axes.transAxes,
                      color=_STYLE[method]["color"], fontsize=8)  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability forecast")
    axes.grid(alpha=0.3)
