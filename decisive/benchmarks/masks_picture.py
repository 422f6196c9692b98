"""The picture of `decisive benchmark masks`: IoU of masks over the quality of given boxes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from decisive.benchmarks.masks_arms import QUALITIES, Arm
from decisive.benchmarks.masks_intervals import PARTS, Part, Results, by_seed

_HEADS = ("resnet-4", "hourglass-52")
_COLORS = {"resnet-4": "#0072B2", "hourglass-52": "#D55E00"}
_MARKS = {"ground-truth": "o", "proposal": "s", "jitter": "^"}


def shown_arms(results: Results, detector: str = "deep-mac") -> list[Arm]:
    """The shallowest and the deepest head of a detector, of what was run."""
    arms = dict.fromkeys(cell.arm for cell in results)
    return [
        arm
        for arm in arms
        if isinstance(arm, Arm)
        and arm.detector == detector
        and arm.masked == "half"
        and arm.head in _HEADS
        and by_seed(results, arm)
    ]


def curve(cells: Sequence[Mapping[str, Any]], manner: str, part: Part) -> list[float]:
    """Mean IoU over seeds in percent, at 1 and at each of `QUALITIES`."""
    return [
        100 * fmean(cell["by_box_quality"][manner][str(quality)][part] for cell in cells)
        for quality in (1.0, *QUALITIES)
    ]


def picture(results: Results) -> bytes:
    """A panel for classes with and without masks in training, PNG; empty without results.

    Solid lines: loosened boxes as they are; dashed ones: each replaced once by the tight box of its
    mask.
    """
    arms = shown_arms(results)
    if not arms:
        return b""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    titles = {"seen": "classes with masks in training", "unseen": "classes without"}
    for axes, part in zip(panels, PARTS, strict=True):
        for arm in arms:
            crops = "jitter" if arm.jitter else arm.crops
            name = f"ground-truth, jitter {arm.jitter:g}" if arm.jitter else arm.crops
            cells = list(by_seed(results, arm).values())
            style: dict[str, Any] = {"color": _COLORS[arm.head], "marker": _MARKS[crops]}
            style |= {"markersize": 5, "linewidth": 1.4}
            label = f"{arm.head}, {name}"
            axes.plot((1.0, *QUALITIES), curve(cells, "loosened", part), label=label, **style)
            refined = curve(cells, "refined", part)
            axes.plot((1.0, *QUALITIES), refined, "--", alpha=0.45, **style)
        axes.set(xlabel="IoU of the given boxes with the true ones", title=titles[part])
        axes.grid(alpha=0.3)
    panels[0].invert_xaxis()
    panels[1].invert_xaxis()
    panels[0].set_ylabel("mean IoU of masks, %")
    panels[0].plot([], [], "--", color="0.5", label="dashed: boxes refined once")
    seeds = sorted({len(by_seed(results, arm)) for arm in arms})
    counted = " to ".join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))
    figure.suptitle(f"Synthetic scenes, Deep-MAC, boxes that hold the true one; seeds: {counted}")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    return stream.getvalue()
