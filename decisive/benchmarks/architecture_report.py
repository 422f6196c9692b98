"""Table and picture of `decisive benchmark architecture`."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from decisive import tables
from decisive.benchmarks.architecture_networks import title


def results_table(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: each scaled network and, below it, what was found at its cost; the best."""
    header = ["network", "step time", "parameters", "held-out %", "test % [95% CI]", "gain"]
    measured = {json.dumps(c["what"]): c for c in (*results["uniform"], *results["found"])}
    finals = {json.dumps(f["what"]): f for f in results["finals"]}

    def row(label: str, what: Any, rival: Any = None) -> list[str]:
        known, final = measured[json.dumps(what)], finals.get(json.dumps(what))
        told, gain = "not run", "-"
        if final and final["accuracy_by_seed"]:
            seeds = len(final["accuracy_by_seed"])
            told = tables.percent(final["accuracy"], final["accuracy_ci95"])
            told += f", {seeds} seed{'s'[: seeds > 1]}"
        if rival is not None:
            gain = _gain(final, finals.get(json.dumps(rival)))
        return [
            f"{label}: {title(what)}",
            f"{known['step_ratio']:.2f}",
            f"{known['n_parameters']:,}",
            tables.percent(known["accuracy"]),
            told,
            gain,
        ]

    rows = []
    for scaled, found in results["pairs"]:
        rows += [row("scaled", scaled), row("found", found, scaled)]
    return header, [*rows, row("best reward", results["best"])]


def _gain(final: Mapping[str, Any] | None, rival: Mapping[str, Any] | None) -> str:
    """Points that a network is better than another, in trainings of the same seeds."""
    if not final or not rival:
        return "-"
    # One of them may have been trained once more than the other when the time was up.
    both = list(zip(final["accuracy_by_seed"], rival["accuracy_by_seed"], strict=False))
    return f"{100 * mean(a - b for a, b in both):+.1f}" if both else "-"


def picture(results: Mapping[str, Any]) -> bytes:
    """Accuracy over step time and over parameters, both fronts as lines; PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    costs = (("step_ratio", "step time, base = 1"), ("n_parameters", "parameters"))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, (cost, label) in zip((left, right), costs, strict=True):
        for number, kind in enumerate(("found", "uniform")):
            points = [(c[cost], 100 * c["accuracy"]) for c in results[kind]]
            front = _front_line(points)
            style = {"color": f"C{number}", "marker": "os"[number]}
            axes.plot(*zip(*points, strict=True), linestyle="", alpha=0.35, **style)
            name = {"found": "searched", "uniform": "scaled uniformly"}[kind]
            axes.plot(*zip(*front, strict=True), drawstyle="steps-post", label=name, **style)
        axes.set_xlabel(label)
    right.set_xscale("log")  # sizes differ by tens, times by twos
    right.legend(fontsize=8)
    left.set_ylabel("accuracy %, held-out, short trainings")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()


def _front_line(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (cost, accuracy): those more accurate than all that cost no more, by cost."""
    line: list[tuple[float, float]] = []
    for cost, height in sorted(points, key=lambda p: (p[0], -p[1])):
        if not line or height > line[-1][1]:
            line.append((cost, height))
    return line
