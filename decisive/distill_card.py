"""What `decisive distill` leaves in its folder: the set with its card, results and pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decisive.distill_pictures import label_covariance, sheet
from decisive.pictures import save_png
from learning.atomic import write_file

if TYPE_CHECKING:
    from decisive.distill_data import Prepared
    from learning.distillation.distilled import Distilled

RESULTS = "results.json"


def write(
    out: Path, distilled: Distilled, told: Mapping[str, Any], data: Prepared, command: str
) -> list[str]:
    """Write `last`, `results.json` and, of images, `points.png` and `label_covariance.png`.

    Args:
        out: folder of the run.
        distilled: the set.
        told: results, as JSON.
        data: what was distilled.
        command: that made it.

    Returns:
        The pictures' paths.
    """
    from learning.distillation.distilled import save_distilled

    save_distilled(out / "last", distilled, dict(told), card(distilled, told, data, command))
    pictures = []
    if data.train.is_images and distilled.points.shape[1] in (1, 3):
        title = f"{len(distilled)} points of {told['data']} by {told['method']}"
        for name, pixels in (
            ("points.png", sheet(distilled, title)),
            ("label_covariance.png", label_covariance(distilled, title)),
        ):
            save_png(pixels, out / name)
            pictures.append(str(out / name))
    write_file(out / RESULTS, (json.dumps(dict(told), indent=2) + "\n").encode())
    return pictures


def card(
    distilled: Distilled,
    told: Mapping[str, Any],
    data: Prepared,
    command: str,
    policy: bool = False,
) -> str:
    """The card, in Markdown.

    Args:
        distilled: the set.
        told: results.
        data: what was distilled.
        command: that made it.
        policy: whether it is the card of the policy that the points make.
    """
    shape = " x ".join(map(str, distilled.points.shape[1:]))
    versions = ", ".join(f"{key} {value}" for key, value in told["versions"].items())
    lines = [
        "# Kernel policy from distilled demonstrations" if policy else "# Distilled data",
        "",
        f"{len(distilled)} points of {shape} numbers with {len(distilled.names)} labels each, "
        f"which stand for {len(data.train):,}. Made by Decisive ({told['method']}); to be read by "
        + (
            "`agents.load_policy`, whose `act` predicts."
            if policy
            else "`learning.distillation.load_distilled`, whose `ridge()` predicts."
        ),
        "",
        "## Data",
        "",
        f"- distilled: {data.train.source}",
        f"- scored by {len(data.held_out):,} points: {data.held_out.source}",
        f"- labels: {', '.join(distilled.names)}",
        "",
        "## Command",
        "",
        "```",
        command,
        "```",
        "",
        f"Commit `{told['commit'] or 'unknown'}`; {versions}. {told['cpu_seconds']:.0f} "
        "CPU-seconds.",
        "",
        "## Scores",
        "",
        *_scores(told),
        "",
        "Within the run the held-out points chose nothing.",
        "",
        "## Limits",
        "",
        "The points were made for one kernel, named in config.json: other networks learn less from "
        "them. They show no single example of the data; whether examples can be recovered from "
        "them was not examined.",
        "",
    ]
    return "\n".join(lines)


def _scores(told: Mapping[str, Any]) -> list[str]:
    lines = []
    if "accuracy" in told:
        low, high = told["accuracy_ci95"]
        lines.append(
            f"- accuracy {100 * told['accuracy']:.2f}% [{100 * low:.2f}, {100 * high:.2f}] of "
            f"{told['held_out']:,} held-out points (interval at 95%, over points)"
        )
    if "explained" in told:
        errors = ", ".join(f"{value:.4g}" for value in told["rmse"])
        lines.append(f"- explained variance {100 * told['explained']:.1f}%; RMSE {errors}")
    if "natural" in told:
        found = told["natural"]
        many = found["equivalent"] or f"more than {found['more_than']}"
        lines.append(f"- worth {many} natural points with the same kernel (means of 3 subsets)")
    if "network" in told:
        both = told["network"]
        lines.append(
            f"- a finite network learns {100 * both['distilled']:.1f}% from them, "
            f"{100 * both['natural']:.1f}% from as many natural points"
        )
    return lines
