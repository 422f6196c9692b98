"""Tables and pictures of `decisive benchmark vision`, of whatever cells are there."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from decisive.statistics import wilson_interval
from learning.atomic import write_file

Results = Mapping[str, Sequence[Mapping[str, Any] | None]]
"""Results of the seeds of each arm; None where a cell was not run."""

NOTES = (
    "Means over seeds with 95% t intervals of the mean where there are two seeds or more; the "
    "interval of one seed is Wilson's, over its images. Multiply-adds and CPU-seconds are relative "
    "to the first arm; times depend on the machine."
)
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


def write(results: Results, name: str, command: str, source: str, folder: Path) -> None:
    """Write README.md and, where there is a result, accuracy.png."""
    header, rows = table(results)
    lines = [f"# Vision: {name}", "", source, "", NOTES, ""]
    lines += ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)]
    pixels = picture(results, name)
    if pixels:
        write_file(folder / "accuracy.png", pixels)
        lines += ["", "![Held-out accuracy over CPU-seconds of training](accuracy.png)"]
    lines += ["", "```", command, "```", ""]
    write_file(folder / "README.md", "\n".join(lines).encode())


def picture(results: Results, name: str) -> bytes:
    """Held-out accuracy of each arm over its CPU-seconds, PNG; empty without results."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    known = {arm: [c for c in cells if c is not None] for arm, cells in results.items()}
    if not any(known.values()):
        return b""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for arm, cells in known.items():
        if cells:
            seconds = [cell["cpu_seconds"] for cell in cells]
            axes.plot(seconds, [100 * _accuracy(c["scores"]) for c in cells], "o", label=arm)
    axes.set(xlabel="CPU-seconds of training", ylabel="held-out accuracy, %", title=name)
    axes.legend(fontsize="small")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    return stream.getvalue()


def _accuracy(scores: Mapping[str, Any]) -> float:
    return fmean(score["accuracy"] for score in scores["tasks"].values())


def _relative(
    cells: Sequence[Mapping[str, Any]], first: Sequence[Mapping[str, Any]], of: Any
) -> str:
    return f"{fmean(map(of, cells)) / fmean(map(of, first)):.2f}" if first else "-"
