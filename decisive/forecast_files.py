"""The files that `decisive forecast` writes: pictures, a film, arrays."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from decisive.forecast import moment_of, named
from decisive.forecast_making import QUANTILES, Made, truth_at
from decisive.forecast_pictures import View, attribution_page, page
from decisive.pictures import save_png
from decisive.progress import Meter
from decisive.video import VideoWriter
from learning.atomic import write_file
from world_models.metnet2.attribution import occlusion
from world_models.metnet2.config import MetNet2Config
from world_models.metnet2.forecaster import Forecaster

FPS = 4
_HOLD = 2
"""Film frames of a lead time."""


def write_maps(folder: Path, made: Made, config: MetNet2Config, meter: Meter) -> dict[str, Any]:
    """Pictures, film and arrays; returns what results tell of them."""
    task, sequence = made.task, made.task.sequence
    files = []
    for lead in task.leads:
        name = f"probability_{_slug(lead)}.png"
        save_png(page(_view(made, config, lead)), folder / name)
        files.append(name)
    if task.film:
        with VideoWriter(folder / "forecast.mp4", FPS) as film:
            for lead in sorted(made.chances):
                film.add(page(_view(made, config, lead)), repeat=_HOLD)
                meter.advance()
        files.append("forecast.mp4")
    write_file(folder / "forecast.npz", _arrays(made))
    files.append("forecast.npz")
    now = sequence.quantity[task.index]
    results: dict[str, Any] = {
        "event": sequence.name,
        "time": moment_of(sequence, task.index),
        "quantity": config.quantity,
        "threshold": task.threshold,
        "shape": list(sequence.shape),
        "cell": sequence.cell,
        "corner": list(sequence.origin),
        "missing_frames": made.reading.missing,
        "dry": not bool((now >= config.edges[1]).any()),
        "leads": list(made.scores),
        "files": files,
    }
    if made.route is not None:
        results["route"] = made.route
    return results


def write_attribution(
    folder: Path, made: Made, forecaster: Forecaster, meter: Meter
) -> dict[str, Any]:
    """`attribution.png`, and the numbers in it."""
    found = occlusion(forecaster, made.reading, made.task.leads, meter.advance)
    rows = [_named(name, age) for name, age in found.inputs]
    save_png(
        attribution_page(
            "What the forecast rests on",
            "Share of the change when one input is made unknown (occlusion), by lead time.",
            rows,
            [named(lead) for lead in found.leads],
            found.shares,
        ),
        folder / "attribution.png",
    )
    return {
        "method": "occlusion",
        "leads": list(found.leads),
        "inputs": [{"channel": name, "seconds_before": age} for name, age in found.inputs],
        "change": [list(row) for row in found.change],
    }


def _view(made: Made, config: MetNet2Config, lead: float) -> View:
    task, sequence = made.task, made.task.sequence
    rain = config.quantity == "rain_rate"
    unit = " mm/h" if rain else ""
    what = "rain" if rain else config.quantity.replace("_", " ")
    truth = truth_at(task, config, lead)
    score = next((s["crps"] for s in made.scores if s["seconds"] == lead), None)
    caption = f"{sequence.name}, from {moment_of(sequence, task.index)}"
    if score is not None:
        caption += f"    CRPS {score:.3f}{unit}"
    return View(
        title=f"{what.capitalize()} in {named(lead)}",
        caption=f"{caption}    paler: nothing is known of what moves there",
        observed=sequence.quantity[task.index],
        observed_title=f"measured now{', mm/h' if rain else ''}",
        chance=made.chances[lead],
        chance_title=f"probability of {task.threshold:g}{unit} or more in {named(lead)}",
        dim=~made.known[lead],
        truth=truth,
        truth_title=f"measured {named(lead)} later{', mm/h' if rain else ''}",
        rain=rain,
        points=[(p.row, p.column) for p in task.points or ()],
    )


def _arrays(made: Made) -> bytes:
    leads = made.task.leads
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        leads=np.array(leads),
        threshold=np.array(made.task.threshold),
        probability=np.stack([made.chances[lead] for lead in leads]).astype(np.float16),
        mean=np.stack([made.means[lead] for lead in leads]).astype(np.float16),
        levels=np.array(QUANTILES),
        quantiles=np.stack([made.quantiles[lead] for lead in leads]).astype(np.float16),
        known=np.stack([made.known[lead] for lead in leads]),
    )
    return buffer.getvalue()


def _slug(lead: float) -> str:
    words = named(lead).split()
    return f"{int(words[0]):03d}min" if words[1] == "min" else f"{words[0]}s"


def _named(name: str, age: float | None) -> str:
    if age is None:
        return name
    what = name.replace("_", " ")
    return f"{what}, now" if age == 0 else f"{what}, {named(age)} before"
