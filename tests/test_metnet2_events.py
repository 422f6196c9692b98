"""The shipped forecaster of rain on a real event that chose it: it beats what is certain."""

import numpy as np
import pytest

from learning.image_set import data_folder
from learning.radar import read_event
from world_models.metnet2.forecaster import Forecaster
from world_models.metnet2.model import shipped_forecasters
from world_models.metnet2.scores import crps

NAME = "metnet2-rain"
EVENT = data_folder() / "radar" / "mch" / "20170131"


@pytest.mark.data
@pytest.mark.skipif(NAME not in shipped_forecasters(), reason="no such forecaster is shipped")
@pytest.mark.skipif(not EVENT.is_dir(), reason="no radar events")
def test_rain_is_forecast_better_than_by_motion_alone():
    sequence = read_event(EVENT).center_crop(384, 384)
    forecaster = Forecaster.load(NAME)
    reading = forecaster.read(sequence, 16)
    for lead, least in ((300.0, 0.9), (1800.0, 0.75), (3600.0, 0.7)):
        found = forecaster.at(reading, lead)
        truth = sequence.quantity[16 + int(lead // 300)]
        moved = forecaster.extrapolation(reading, lead)
        cells = np.isfinite(truth) & np.isfinite(moved)
        scores = crps(found.probabilities, found.edges, truth)[cells].mean()
        assert scores < least * np.abs(moved - truth)[cells].mean()
