"""The picture of the distillation study: insertion success against points kept."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from decisive.benchmarks.distill_study import METHODS, SEEDS, SIZES, Cell
from decisive.statistics import wilson_interval

COLORS = {
    "random": "#9aa3ad",
    "kmeans": "#0072B2",
    "herding": "#CC79A7",
    "label-solve": "#009E73",
    "kip": "#D55E00",
}
LABELS = {
    "random": "random states",
    "kmeans": "k-means (nearest states)",
    "herding": "herding",
    "label-solve": "random states, Label Solve",
    "kip": "KIP",
}


def success_picture(found: Mapping[Cell, dict[str, Any] | None]) -> bytes | None:
    """Success by points kept with 95% intervals, a line a method, PNG; None without results."""
    lines = {method: _line(found, method) for method in METHODS}
    everything = found.get(Cell("insertion", "all", 0, 0))
    if not any(lines.values()) and everything is None:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((7.2, 4.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for place, (method, points) in enumerate(lines.items()):
        if not points:
            continue
        # Side by side: intervals would hide one another.
        x = [size * 1.05 ** (place - 2) for size, *_ in points]
        y = [rate for _, rate, _, _ in points]
        bars = [[rate - low for _, rate, low, _ in points], [h - r for _, r, _, h in points]]
        axes.errorbar(x, y, bars, marker="o", capsize=3, color=COLORS[method], label=LABELS[method])
    ticks, names = list(SIZES), [f"{size:,}" for size in SIZES]
    if everything is not None:
        n, good = len(everything["success"]), sum(everything["success"])
        low, high = wilson_interval(good, n)
        rate = 100 * good / n
        bars = [[rate - 100 * low], [100 * high - rate]]
        axes.errorbar(
            [everything["points"]], [rate], bars, marker="s", capsize=3, color="#1c2026",
            label="all states",
        )  # fmt: skip
        ticks.append(everything["points"])
        names.append(f"all ({everything['points']:,})")
    axes.set_xscale("log")
    axes.set_xticks(ticks, names)
    axes.minorticks_off()
    axes.margins(x=0.08)
    axes.set_ylim(-3, 103)
    axes.set_xlabel("states kept of 180 demonstrations")
    axes.set_ylabel("insertions that succeed, %")
    axes.set_title("Insertion, 1 mm to spare: the kernel policy from few points")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _line(
    found: Mapping[Cell, dict[str, Any] | None], method: str
) -> list[tuple[int, float, float, float]]:
    """Size, rate and interval in percent, all seeds together."""
    line = []
    for size in SIZES:
        cells = [found.get(Cell("insertion", method, size, seed)) for seed in SEEDS]
        success = [one for cell in cells if cell is not None for one in cell["success"]]
        if success:
            low, high = wilson_interval(sum(success), len(success))
            line.append((size, 100 * sum(success) / len(success), 100 * low, 100 * high))
    return line
