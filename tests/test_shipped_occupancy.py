"""The shipped forecaster of what is occupied, in houses that it did not learn from."""

from pathlib import Path

import numpy as np

from decisive.benchmarks.forecast_occupancy import LEADS, LEAST, NOW, read
from decisive.render_occupancy import Arguments, render
from world_models.metnet2 import baselines, scores
from world_models.metnet2.forecaster import Forecaster

BLUR, FLOOR = (1.5, 2.0, 4.0, 12.0), (0.0001, 0.001, 0.003, 0.003)
"""That suit constant velocity best on sequences of `val` (docs/benchmarks/forecast/occupancy)."""


def test_people_are_forecast_better_than_by_going_on_as_they_go(tmp_path: Path) -> None:
    render(Arguments(str(tmp_path / "test"), sequences=6, split="test", seed=3), tmp_path / "test")
    forecaster = Forecaster.load("metnet2-occupancy")
    ours, theirs = np.zeros(len(LEADS)), np.zeros(len(LEADS))
    for sequence in read(tmp_path / "test"):
        past = sequence.window(0, NOW + 1)
        truth = sequence.quantity[[NOW + round(lead / sequence.step) for lead in LEADS]]
        found = forecaster.forecast(past, LEADS)
        floor = np.array(FLOOR)[:, None, None]
        guess = floor + (1 - 2 * floor) * baselines.constant_velocity(past, LEADS, BLUR)
        occupied = scores.exceedance(found.probabilities, found.edges, 0.5)
        ours += np.nanmean(scores.log_loss(occupied, truth, LEAST), axis=(1, 2))
        theirs += np.nanmean(scores.log_loss(guess, truth, LEAST), axis=(1, 2))
    # On 40 sequences the log loss is lower by a fifth at each lead.
    assert (ours < 0.95 * theirs).all(), (ours, theirs)
