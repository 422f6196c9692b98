"""The picture of `decisive group-tasks`: affinities, and which tasks share a network."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from learning.task_affinity_groups import Grouping


def draw(tasks: Sequence[str], matrix: Sequence[Sequence[float]], chosen: Grouping) -> bytes:
    """Affinities as a map and the groups in rows below their columns, PNG.

    Colours are of what tasks do to others, column by column: what a task gains differs in size from
    task to task. The diagonal, what a task does to itself, is left grey.

    Args:
        tasks: names.
        matrix: `(T, T)`; row i acts, column j is acted on.
        chosen: the groups. A filled mark serves a task, a ring only learns beside.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n, m = len(tasks), len(chosen.groups)
    side = 0.72 * n
    figure = Figure(figsize=(side + 2.6, side + 0.42 * m + 2.0), layout="constrained")
    FigureCanvasAgg(figure)
    top, below = figure.subplots(2, 1, height_ratios=(n, 0.55 * m + 0.3))
    values = np.array(matrix, float)
    others = np.where(np.eye(n, dtype=bool), np.nan, values)
    widest = np.nanmax(np.abs(others), axis=0)
    shades = others / np.where(widest > 0, widest, 1.0)
    top.set_facecolor("0.88")
    top.imshow(np.ma.masked_invalid(shades), cmap="RdBu", vmin=-1.7, vmax=1.7, aspect="auto")
    for i in range(n):
        for j in range(n):
            top.text(j, i, f"{values[i, j]:.3g}", ha="center", va="center", fontsize=8)
    top.set_yticks(range(n), tasks)
    top.set_ylabel("a step for ...")
    top.set_title("... changes the loss of (blue lowers it)", fontsize=10)
    top.xaxis.tick_top()
    top.set_xticks(range(n), tasks, rotation=35, ha="left")
    top.tick_params(length=0)
    for k, group in enumerate(chosen.groups):
        style = {"color": f"C{k}", "markersize": 11, "linestyle": ""}
        below.plot([min(group), max(group)], [k, k], color=f"C{k}", linewidth=1.2)
        served = [j for j in group if chosen.serves[j] == k]
        rest = [j for j in group if chosen.serves[j] != k]
        below.plot(served, [k] * len(served), "o", **style)
        below.plot(rest, [k] * len(rest), "o", markerfacecolor="white", **style)
    below.set_yticks(range(m), [f"network {k + 1}" for k in range(m)])
    below.set_ylim(m - 0.5, -0.5)
    below.set_xticks([])
    below.set_xlim(-0.5, n - 0.5)
    below.tick_params(length=0)
    below.set_xlabel("filled: serves the task; ring: learns beside", fontsize=9)
    for spine in below.spines.values():
        spine.set_visible(False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    return stream.getvalue()
