"""What policies perceived in some episodes, for people and programs; see `decisive.perceived`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from decisive.episodes import Episode
from decisive.statistics import median_and_p95

SEGMENTER = "tabletop-deep-mac"
"""The shipped segmenter that is asked where none is named."""
COLORS = "colors"
"""In place of a segmenter: objects are told by their colours."""
TURNS = {"yaw4": 4, "heading": 1}
"""Fields of directions, by the ends of their names: how often they come round in one turn."""


def summarize_perception(segmenter: str, episodes: Sequence[Episode]) -> dict[str, Any]:
    """What was perceived in some episodes.

    Returns:
        A JSON object: `segmenter`; `pictures`; `unseen`, the share of pictures that did not show
        an object, by object; `waited`, the share before everything had been seen once, in which
        the policy was not asked; `errors` by field, `median` and `p95` in `unit`, of the decisions
        made, against the state that the environment gives; CPU milliseconds a picture of the
        segmenter (`segment_ms`, null without one) and of the fit (`fit_ms`).
    """
    seen = [episode.perception for episode in episodes if episode.perception is not None]
    pictures = sum(one.pictures for one in seen)
    errors: dict[str, list[float]] = defaultdict(list)
    unseen: dict[str, int] = defaultdict(int)
    for one in seen:
        for name, values in one.errors.items():
            errors[name] += values
        for name, count in one.unseen.items():
            unseen[name] += count
    decided = max((len(values) for values in errors.values()), default=0)
    return {
        "segmenter": segmenter,
        "pictures": pictures,
        "unseen": {name: count / pictures for name, count in unseen.items()},
        "waited": 1.0 - decided / pictures,
        "errors": {name: _spread(name, values) for name, values in errors.items()},
        "segment_ms": _milliseconds([ms for one in seen for ms in one.segment_ms]),
        "fit_ms": _milliseconds([ms for one in seen for ms in one.fit_ms]),
    }


def perception_lines(summary: Mapping[str, Any]) -> list[str]:
    """What `summarize_perception` found, in sentences."""
    speed = [
        f"{name} {summary[key]['median']:.1f} (p95 {summary[key]['p95']:.1f})"
        for name, key in (("segmenter", "segment_ms"), ("fit", "fit_ms"))
        if summary[key] is not None
    ]
    unseen = ", ".join(f"{name} {100 * part:.1f} %" for name, part in summary["unseen"].items())
    lines = [
        f"{summary['pictures']} pictures, told by {summary['segmenter']}; CPU ms each: "
        f"{', '.join(speed)}",
        f"not seen: {unseen}",
    ]
    if summary["waited"] > 0:
        lines.append(
            f"in {100 * summary['waited']:.1f} % of the pictures the policy waited for objects "
            "that had never been seen"
        )
    return lines


def _spread(name: str, values: Sequence[float]) -> dict[str, Any]:
    """Median and 95th percentile of a field's errors, in millimetres or degrees."""
    is_turn = name.rpartition("_")[2] in TURNS
    scaled = np.degrees(values) if is_turn else 1e3 * np.array(values)
    median, p95 = median_and_p95(scaled.tolist())
    return {"unit": "deg" if is_turn else "mm", "median": median, "p95": p95}


def _milliseconds(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    median, p95 = median_and_p95(values)
    return {"median": round(median, 2), "p95": round(p95, 2)}
