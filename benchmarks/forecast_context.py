"""What a forecaster gains from seeing farther: the same places with more or less around them.

    python -m benchmarks.forecast_context [--model metnet2-rain] [--json]

The held-out Finnish event; the truth of squares of 128 km is scored, and what the forecaster reads
(rain and the motion that is found in it) is cut to 128, 192, 256, 384 or 512 km around them. The
weights are the same in all. CRPS in mm/h at 5, 30 and 60 minutes, lower is better, the mean over
places and moments; beside it the difference from the largest context, with a 95% bootstrap interval
over them. Squares overlap and moments are of one event, so the intervals are too narrow for other
days. A context of MetNet-2 is what surrounds its target (Espeholt et al. 2022, section 3).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from decisive import provenance
from decisive.benchmarks.forecast_moments import MINUTE, find_event, moments, radar_folder
from decisive.progress import progress
from learning.grid_sequence import GridSequence
from learning.radar import read_event
from world_models.metnet2.forecaster import Forecaster
from world_models.metnet2.scores import crps

TARGET = 128
CONTEXTS = (128, 192, 256, 384, 512)
LEADS = (5, 30, 60)
STRIDE = 64
"""Cells between places, three by three of them."""


def places(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Middles of the squares, row and column, so that the largest context fits."""
    if min(shape) < CONTEXTS[-1] + 2 * STRIDE:
        raise ValueError(f"{CONTEXTS[-1] + 2 * STRIDE} cells a side were expected, got {shape}")
    rows, columns = (size // 2 + STRIDE * np.arange(-1, 2) for size in shape)
    return [(int(row), int(column)) for row in rows for column in columns]


def around(sequence: GridSequence, middle: tuple[int, int], side: int) -> GridSequence:
    """A square of a sequence."""
    return sequence.crop(middle[0] - side // 2, middle[1] - side // 2, side, side)


def score(
    forecaster: Forecaster, past: GridSequence, truth: NDArray[np.float32], context: int
) -> list[float]:
    """CRPS of the middle of a past at each lead.

    Args:
        forecaster: whose.
        past: `CONTEXTS[-1]` cells a side.
        truth: `(L, TARGET, TARGET)` mm/h.
        context: cells a side that are read.
    """
    found = forecaster.forecast(past.center_crop(context, context), [MINUTE * m for m in LEADS])
    edge = (context - TARGET) // 2
    inner = slice(edge, edge + TARGET)
    cells = [
        crps(one, found.edges, came)
        for one, came in zip(found.probabilities[:, :, inner, inner], truth, strict=True)
    ]
    return [float(np.nanmean(one, dtype=np.float64)) for one in cells]


def measure(forecaster: Forecaster) -> NDArray[np.float64]:
    """`(cases, contexts, leads)` CRPS, mm/h."""
    event = find_event("fmi")
    folder = radar_folder(event)
    sequence = read_event(folder)
    times = [moment.time for moment in moments(event, folder)]
    middles = places(sequence.shape)
    found = []
    with progress("forecasts", len(times) * len(middles) * len(CONTEXTS)) as meter:
        for time in times:
            start = int(np.searchsorted(sequence.times, time - event.past * MINUTE))
            past = sequence.window(start, sequence.index_of(time) + 1)
            after = [sequence.index_of(time + MINUTE * lead) for lead in LEADS]
            for middle in middles:
                near = around(past, middle, CONTEXTS[-1])
                truth = around(sequence, middle, TARGET).quantity[after]
                row = []
                for context in CONTEXTS:
                    row.append(score(forecaster, near, truth, context))
                    meter.advance()
                found.append(row)
    return np.array(found)


def interval(values: NDArray[np.float64]) -> list[float]:
    """95% bootstrap interval of the mean."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(2000, len(values)))].mean(1)
    return [float(end) for end in np.quantile(means, (0.025, 0.975))]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="metnet2-rain", help="shipped name, or a folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    found = measure(Forecaster.load(arguments.model))
    table: dict[str, dict[str, Any]] = {
        str(context): {
            str(lead): {
                "crps": float(found[:, c, k].mean()),
                "less_far": float((found[:, c, k] - found[:, -1, k]).mean()),
                "ci95": interval(found[:, c, k] - found[:, -1, k]),
            }
            for k, lead in enumerate(LEADS)
        }
        for c, context in enumerate(CONTEXTS)
    }
    told = {"model": arguments.model, "cases": len(found), "contexts": table}
    if arguments.json:
        print(json.dumps({**told, "machine": provenance.machine()}, indent=2))
        return
    print(f"{len(found)} places and moments; CRPS, and more than with {CONTEXTS[-1]} km")
    for context, leads in table.items():
        cells = [
            f"+{lead}: {one['crps']:.4f} ({one['less_far']:+.4f} [{one['ci95'][0]:+.4f}, "
            f"{one['ci95'][1]:+.4f}])"
            for lead, one in leads.items()
        ]
        print(f"{context:>4} km  " + "  ".join(cells))


if __name__ == "__main__":
    main()
