"""Picture of a navigation study: success of every arm, side by side."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_COLORS = {
    "baseline": "#9aa3ad",
    "guidance": "#E69F00",
    "pathdreamer": "#0072B2",
    "world-model": "#0072B2",
    "oracle": "#009E73",
    "ground-truth": "#1c2026",
}
_LABELS = {
    "baseline": "the graph alone",
    "guidance": "what was seen, projected",
    "pathdreamer": "Pathdreamer",
    "world-model": "world model",
    "oracle": "oracle of the generator",
    "ground-truth": "the truth",
}
_OTHERS = ("#CC79A7", "#56B4E9", "#D55E00", "#F0E442")


def success_picture(found: Mapping[str, Mapping[str, Any]], title: str) -> bytes:
    """Bars of success with their intervals over paths, a dot for each seed; PNG.

    Args:
        found: by the name of a group, `arms` as `navigation_report.compare` gives them.
        title: above the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    arms: Sequence[str] = list(dict.fromkeys(arm for group in found.values() for arm in group))
    width = 0.84 / len(arms)
    figure = Figure(
        figsize=(max(7.6, 2.6 + 0.42 * len(arms) * len(found)), 4.2), layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for place, arm in enumerate(arms):
        color = _COLORS.get(arm, _OTHERS[place % len(_OTHERS)])
        at = [k for k, group in enumerate(found.values()) if arm in group]
        entries = [group[arm] for group in found.values() if arm in group]
        x = np.array(at) + width * (place - (len(arms) - 1) / 2)
        means = np.array([100 * entry["success"] for entry in entries])
        ends = np.array([[100 * end for end in entry["success_ci95"]] for entry in entries]).T
        axes.bar(x, means, 0.92 * width, color=color, label=_LABELS.get(arm, arm))
        axes.errorbar(x, means, np.abs(ends - means), fmt="none", ecolor="#6b7280", capsize=2)
        for middle, entry in zip(x, entries, strict=True):
            seeds = [100 * value for value in entry["success_by_seed"]]
            if len(seeds) > 1:
                axes.plot([middle] * len(seeds), seeds, "o", color="white", mec="black", ms=4)
    axes.set_xticks(range(len(found)), list(found))
    axes.set_ylabel("success, %")
    axes.set_ylim(0, 105)
    axes.set_title(title)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    return stream.getvalue()
