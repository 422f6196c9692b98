"""`decisive benchmark forecast --world occupancy`: what will be occupied in a second or three."""

from __future__ import annotations

import io
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from decisive import provenance, tables
from decisive.benchmarks.cells import read_cell
from decisive.benchmarks.forecast_moments import plain
from decisive.benchmarks.forecast_report import interval, markdown, told
from decisive.progress import progress
from learning.atomic import write_file
from learning.grid_sequence import GridSequence
from learning.radar import read_events
from world_models.metnet2 import baselines, scores

if TYPE_CHECKING:
    from decisive.benchmarks.forecast import Arguments

LEADS = (0.5, 1.0, 2.0, 3.0)
"""Seconds."""
NOW = 10
"""Frame at which is forecast: there is a second to see."""
SPREADS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
"""Cells of blur that a baseline may have at a lead."""
FLOORS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
"""Probability that a baseline may give to what it does not expect: somebody comes in."""
LEAST = 1e-4
"""Probabilities are kept so far from 0 and 1 when their log loss is taken."""
BASELINES: dict[str, Callable[..., NDArray[np.float32]]] = {
    "persistence": baselines.persistence,
    "constant-velocity": baselines.constant_velocity,
}
NOTES = (
    "Synthetic. Log loss in millinats a cell and Brier score times 1000, lower is better, the mean "
    "over sequences (and seeds) with a 95% bootstrap interval over them. Blur and least "
    "probability of the baselines were chosen for each lead by log loss on other sequences; of all "
    f"methods, probabilities are at least {LEAST:g} away from 0 and 1. CPU-seconds of one forecast "
    "of all leads, one thread."
)
Maps = NDArray[np.float32]


@dataclass(frozen=True)
class Way:
    """A method: a past to `(L, H, W)` probabilities, and what decides them."""

    name: str
    told: dict[str, Any]
    forecast: Callable[[GridSequence], Maps]


def run(arguments: Arguments, command: str) -> int:
    """Run every cell that is not there; print and write the table."""
    assert arguments.data is not None
    test = read(Path(arguments.data))
    tune = read(Path(arguments.tune)) if arguments.tune is not None else None
    ways = _methods(arguments, tune)
    found: dict[str, list[dict[str, Any]]] = {}
    deadline = None if arguments.minutes is None else 60 * arguments.minutes + time.monotonic()
    with progress("methods", len(ways)) as meter:
        for way in ways:
            late = deadline is not None and time.monotonic() > deadline
            result = _cell(way, test, arguments.folder, late)
            if result is not None:
                found.setdefault(way.name.partition("-model-")[0], []).append(result)
            meter.advance(note=way.name)
    header, rows = table(found, arguments.label)
    write(found, arguments.label, command, test, ways, arguments.folder)
    if arguments.json:
        print(json.dumps({"header": header, "rows": rows, "folder": str(arguments.folder)}))
    else:
        tables.show(tables.plain_table(header, rows, "forecasts of occupancy"), NOTES)
    return 0


def read(folder: Path) -> list[GridSequence]:
    """Sequences of a folder that are long enough.

    Raises:
        ValueError: if one is not of occupancy, or too short for the last lead.
    """
    sequences = read_events(folder)
    for sequence in sequences:
        if sequence.channels[0] != "occupancy":
            raise ValueError(f"{sequence.name}: occupancy was expected, got {sequence.channels[0]}")
        _frames(sequence)
    return sequences


def _frames(sequence: GridSequence) -> list[int]:
    """Frames of the truth."""
    rows = [NOW + round(lead / sequence.step) for lead in LEADS]
    if rows[-1] >= len(sequence) or sequence.gaps():
        raise ValueError(
            f"{sequence.name}: {rows[-1] + 1} frames without gaps were expected, got "
            f"{len(sequence)}"
        )
    return rows


def _methods(arguments: Arguments, tune: Sequence[GridSequence] | None) -> list[Way]:
    ways = []
    for name, make in BASELINES.items():
        chosen = [(0.0, LEAST)] * len(LEADS) if tune is None else fit(make, tune)
        blur, least = [list(values) for values in zip(*chosen, strict=True)]
        soft = partial(_softened, make, blur, least)
        ways.append(Way(name, {"blur": blur, "least": least}, soft))
    for number, place in enumerate(arguments.model):
        ways.append(_model(f"model-{number}", place))
    return ways


def _softened(
    make: Callable[..., Maps], blur: Sequence[float], least: Sequence[float], past: GridSequence
) -> Maps:
    floors = np.array(least, np.float32)[:, None, None]
    return (floors + (1 - 2 * floors) * make(past, LEADS, blur)).astype(np.float32)


def fit(make: Callable[..., Maps], tune: Sequence[GridSequence]) -> list[tuple[float, float]]:
    """Blur and least probability of a baseline that have the least log loss, for each lead."""
    choices = list(itertools.product(SPREADS, FLOORS))
    loss = np.zeros((len(choices), len(LEADS)))
    for sequence in tune:
        past, truth = sequence.window(0, NOW + 1), sequence.quantity[_frames(sequence)]
        sharp = make(past, LEADS)
        for place, (one, came) in enumerate(zip(sharp, truth, strict=True)):
            soft = {width: baselines.blurred(one, width) for width in SPREADS}
            for k, (width, floor) in enumerate(choices):
                p = floor + (1 - 2 * floor) * soft[width]
                cells = scores.log_loss(p, came, LEAST)
                loss[k, place] += float(np.nanmean(cells, dtype=np.float64))
    return [choices[k] for k in loss.argmin(axis=0)]


def _model(name: str, place: str) -> Way:
    import torch

    from decisive.benchmarks.forecast import digest
    from world_models.metnet2.forecaster import Forecaster

    torch.set_num_threads(1)
    model = Forecaster.load(place)

    def forecast(past: GridSequence) -> Maps:
        found = model.forecast(past, LEADS)
        return scores.exceedance(found.probabilities, found.edges, 0.5)

    return Way(name, {"weights": digest(place)}, forecast)


def _cell(
    way: Way, test: Sequence[GridSequence], folder: Path, late: bool
) -> dict[str, Any] | None:
    path = folder / f"{way.name}.json"
    names = [sequence.name for sequence in test]
    decides = plain({"method": way.name, **way.told, "sequences": names, "leads": LEADS})
    result = read_cell(path, decides)
    if result is not None or late:
        return result
    log_loss, brier, costs = [], [], []
    for sequence in test:
        past, truth = sequence.window(0, NOW + 1), sequence.quantity[_frames(sequence)]
        began = time.process_time()
        found = way.forecast(past)
        costs.append(time.process_time() - began)
        log_loss.append(_means(scores.log_loss(found, truth, LEAST)))
        brier.append(_means(scores.brier(found, truth)))
    result = {
        "plan": decides,
        "log_loss": log_loss,
        "brier": brier,
        "cpu_seconds": float(np.median(costs)),
        "machine": provenance.machine(),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }
    write_file(path, (json.dumps(result, separators=(",", ":")) + "\n").encode())
    return result


def _means(cells: Maps) -> list[float]:
    return [float(np.nanmean(one, dtype=np.float64)) for one in cells]


def table(found: dict[str, list[dict[str, Any]]], label: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a row for each method."""
    header = ["forecast", *(f"log loss, {lead:g} s" for lead in LEADS),
              *(f"Brier, {lead:g} s" for lead in LEADS), "CPU s"]  # fmt: skip
    rows = []
    for method, results in by_method(found, label).items():
        row = [method]
        for name in ("log_loss", "brier"):
            values = 1000 * np.array([result[name] for result in results])
            row += [told(interval(values[:, :, k]), ".2f") for k in range(len(LEADS))]
        rows.append([*row, f"{np.median([result['cpu_seconds'] for result in results]):.3f}"])
    return header, rows


def by_method(
    found: dict[str, list[dict[str, Any]]], label: str
) -> dict[str, list[dict[str, Any]]]:
    """Results by name; seeds of the model together."""
    seeds = [found[name][0] for name in sorted(found) if name.startswith("model-")]
    told_by = {name: results for name, results in found.items() if not name.startswith("model-")}
    if seeds:
        told_by[f"{label}, {len(seeds)} seeds" if len(seeds) > 1 else label] = seeds
    return told_by


def write(
    found: dict[str, list[dict[str, Any]]],
    label: str,
    command: str,
    test: Sequence[GridSequence],
    ways: Sequence[Way],
    folder: Path,
) -> None:
    """Write README.md, results.json and a picture of one sequence."""
    header, rows = table(found, label)
    first = test[0]
    chosen = {way.name: way.told for way in ways if "blur" in way.told}
    lines = [
        "# Forecasts of what is occupied", "",
        f"{len(test)} sequences of {first.shape[0]} x {first.shape[1]} cells of {first.cell:g} m.",
        "", "```sh", command, "```", "", *markdown(header, rows), "", NOTES, "",
        "Blur in cells, and least probability, at each lead: "
        + "; ".join(f"{k} {_row(t['blur'])} and {_row(t['least'])}" for k, t in chosen.items())
        + ".", "", "![One sequence](forecast.png)", "",
    ]  # fmt: skip
    write_file(folder / "forecast.png", picture(first, ways, label))
    write_file(folder / "README.md", "\n".join(lines).encode())
    document = {"command": command, "header": header, "rows": rows, "chosen": chosen}
    write_file(folder / "results.json", (json.dumps(document, indent=2) + "\n").encode())


def _row(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def picture(sequence: GridSequence, ways: Sequence[Way], label: str) -> bytes:
    """What was, what is forecast, and what came, PNG; of models the first seed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [way for way in ways if not way.name.startswith("model-") or way.name == "model-0"]
    past, rows = sequence.window(0, NOW + 1), _frames(sequence)
    figure = Figure(figsize=(2.1 * len(LEADS) + 0.4, 2.1 * (len(shown) + 1)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(shown) + 1, len(LEADS), squeeze=False)
    height, width = sequence.shape
    still = sequence.frames[NOW, 1] if len(sequence.channels) > 1 else np.zeros((height, width))
    layers = [("what came", sequence.quantity[rows])]
    layers += [(label if way.name == "model-0" else way.name, way.forecast(past)) for way in shown]
    for line, (name, maps) in zip(panels, layers, strict=True):
        for axes, lead, probability in zip(line, LEADS, maps, strict=True):
            colors = np.ones((height, width, 3))
            colors[still > 0.5] = 0.75
            share = np.clip(np.nan_to_num(probability), 0, 1)[..., None]
            mixed = colors * (1 - share) + share * np.array([0.75, 0.27, 0.08])
            axes.imshow(np.clip(mixed, 0, 1))
            outline = past.quantity[-1]
            axes.contour(np.nan_to_num(outline), [0.5], colors="#0072B2", linewidths=0.6)
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"+{lead:g} s" if line is panels[0] else "", fontsize=9)
        line[0].set_ylabel(name, fontsize=9)
    figure.suptitle("Blue: occupied now. Synthetic.", fontsize=10)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    return stream.getvalue()
