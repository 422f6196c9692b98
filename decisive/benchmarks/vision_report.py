"""Tables and pictures of `decisive benchmark vision`, of whatever cells are there."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from decisive.statistics import wilson_interval
from learning.atomic import write_file

Results = Mapping[str, Sequence[Mapping[str, Any] | None]]
"""Results of the seeds of each arm; None where a cell was not run."""

Contrasts = Sequence[tuple[str, str]]
"""Pairs of arms: one, and the one it is related to."""

NOTES = (
    "Means over seeds with 95% t intervals of the mean where there are two seeds or more; the "
    "interval of one seed is Wilson's, over its images. Multiply-adds, and the times of a step and "
    "of inference, are relative to the first arm; CPU-seconds are those of a training. Times "
    "depend on the machine, and on what else it did."
)
DIFFERENCES = (
    "Arm against arm, paired by seed: accuracy in points with 95% t intervals over seeds, and "
    "ratios of multiply-adds of an image and of CPU-seconds of a training."
)
_COSTS = ("multiply_adds", "cpu_seconds")
HEADER = (
    "arm",
    "seeds",
    "accuracy %",
    "training %",
    "gap",
    "training loss",
    "parameters",
    "multiply-adds",
    "step time",
    "inference time",
    "CPU-seconds",
)
# Two-sided 95% quantiles of Student's t by degrees of freedom, from 1.
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and the ends of its 95% t interval.

    Raises:
        ValueError: for fewer than 2 values or more than 10.
    """
    if not 2 <= len(values) <= len(_T95) + 1:
        raise ValueError(f"an interval needs 2 to {len(_T95) + 1} values, got {len(values)}")
    mean, half = fmean(values), _T95[len(values) - 2] * stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def table(results: Results) -> tuple[list[str], list[list[str]]]:
    """Header and a row for each arm; arms without a result say 'not run'.

    Args:
        results: by arm, in order; the first is what others are related to.
    """
    known = {arm: [cell for cell in cells if cell is not None] for arm, cells in results.items()}
    first = next(iter(known.values()))
    rows = [[arm, *_row(cells, first)] for arm, cells in known.items()]
    return list(HEADER), rows


def differences(results: Results, contrasts: Contrasts) -> tuple[list[str], list[list[str]]]:
    """Header and a row for each pair of arms that share a seed.

    Args:
        results: by arm.
        contrasts: of each row the arm and the one that it is related to.
    """
    header = ["arm", "against", "seeds", "accuracy, points", "multiply-adds", "CPU-seconds"]
    rows = []
    for arm, against in contrasts:
        both = zip(results[arm], results[against], strict=True)
        pairs = [(a, b) for a, b in both if a is not None and b is not None]
        if pairs:
            gains = [100 * (_accuracy(a["scores"]) - _accuracy(b["scores"])) for a, b in pairs]
            told = f"{gains[0]:+.1f}"
            if len(gains) > 1:
                mean, low, high = mean_interval(gains)
                told = f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"
            mine, other = zip(*pairs, strict=True)
            cost = [_relative(mine, other, itemgetter(of)) for of in _COSTS]
            rows.append([arm, against, str(len(pairs)), told, *cost])
    return header, rows


def _row(cells: Sequence[Mapping[str, Any]], first: Sequence[Mapping[str, Any]]) -> list[str]:
    if not cells:
        return ["0", "not run", *["-"] * (len(HEADER) - 3)]
    fitted = fmean(_accuracy(cell["train_scores"]) for cell in cells)
    tested = fmean(_accuracy(cell["scores"]) for cell in cells)
    return [
        str(len(cells)),
        accuracy(cells),
        f"{100 * fitted:.1f}",
        f"{100 * (fitted - tested):.1f}",
        f"{fmean(cell['train_scores']['loss'] for cell in cells):.3f}",
        f"{cells[0]['parameters']:,}",
        _relative(cells, first, lambda cell: cell["multiply_adds"]),
        _relative(cells, first, lambda cell: cell["seconds"]["train"]),
        _relative(cells, first, lambda cell: cell["seconds"]["inference"]),
        f"{fmean(cell['cpu_seconds'] for cell in cells):.0f}",
    ]


def accuracy(cells: Sequence[Mapping[str, Any]]) -> str:
    """Held-out accuracy in percent, the mean over tasks, with an interval."""
    values = [_accuracy(cell["scores"]) for cell in cells]
    if len(values) > 1:
        mean, low, high = mean_interval(values)
        return f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    tasks = cells[0]["scores"]["tasks"]
    if len(tasks) > 1:  # answers on one image are not independent: no interval of their mean
        return f"{100 * values[0]:.1f}"
    (score,) = tasks.values()
    low, high = wilson_interval(score["right"], score["n"])
    return f"{100 * values[0]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def write(
    results: Results, name: str, contrasts: Contrasts, command: str, source: str, folder: Path
) -> None:
    """Write README.md and, where there is a result, accuracy.png."""
    lines = [f"# Vision: {name}", "", source, "", NOTES, "", *_markdown(*table(results))]
    header, rows = differences(results, contrasts)
    if rows:
        lines += ["", DIFFERENCES, "", *_markdown(header, rows)]
    pixels = picture(results, name)
    if pixels:
        write_file(folder / "accuracy.png", pixels)
        lines += ["", "![Accuracy on training and held-out images, and its cost](accuracy.png)"]
    lines += ["", "```", command, "```", ""]
    write_file(folder / "README.md", "\n".join(lines).encode())


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)]


def picture(results: Results, name: str) -> bytes:
    """A line for each arm: accuracies, dots for seeds, and CPU-seconds; PNG, empty without any."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    known = {arm: [c for c in cells if c is not None] for arm, cells in results.items()}
    known = {arm: cells for arm, cells in known.items() if cells}
    if not known:
        return b""
    figure = Figure(figsize=(8.0, 1.6 + 0.32 * len(known)), layout="constrained")
    FigureCanvasAgg(figure)
    shown, cost = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    for line, cells in enumerate(known.values()):
        for scores, face in (("train_scores", "none"), ("scores", "C0")):
            values = [100 * _accuracy(cell[scores]) for cell in cells]
            shown.plot(values, [line] * len(values), "o", ms=5, mec="C0", mfc=face, alpha=0.8)
        cost.barh(line, fmean(cell["cpu_seconds"] for cell in cells), 0.6, color="C0", alpha=0.5)
    shown.set_yticks(range(len(known)), list(known))
    shown.invert_yaxis()
    shown.grid(axis="y", alpha=0.3)
    shown.set(xlabel="accuracy, %: filled held-out, hollow training", title=name)
    cost.set(xlabel="CPU-seconds of a training")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    return stream.getvalue()


def _accuracy(scores: Mapping[str, Any]) -> float:
    return fmean(score["accuracy"] for score in scores["tasks"].values())


def _relative(
    cells: Sequence[Mapping[str, Any]], first: Sequence[Mapping[str, Any]], of: Any
) -> str:
    return f"{fmean(map(of, cells)) / fmean(map(of, first)):.2f}" if first else "-"
