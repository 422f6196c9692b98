"""What forecasts grids for the node `forecast`: trained models, and two that need no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from learning.grid_sequence import GridSequence
from world_models.metnet2 import baselines
from world_models.metnet2.scores import exceedance

Map = NDArray[np.float32]
BASELINES = {
    "constant-velocity": baselines.constant_velocity,
    "persistence": baselines.persistence,
}
"""Forecasts without a model."""
OCCUPIED = 0.5
"""A cell of at least this is occupied."""


class GridForecaster(Protocol):
    """Forecasts grids; knows nothing of topics."""

    @property
    def frames(self) -> int:
        """How many it wants."""
        ...

    @property
    def step(self) -> float:
        """Seconds between them."""
        ...

    @property
    def channels(self) -> tuple[str, ...]:
        """What it wants to know."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """For `/diagnostics`."""
        ...

    def forecast(self, sequence: GridSequence) -> Map:
        """`(L, H, W)` probability that a cell will be occupied; NaN unknown."""
        ...


class Baseline:
    """Persistence, or constant velocity."""

    channels = ("occupancy",)

    def __init__(
        self, name: str, frames: int, step: float, leads: Sequence[float], spread: float
    ) -> None:
        """Choose one.

        Args:
            name: of `BASELINES`.
            frames: that it looks at.
            step: seconds between them.
            leads: seconds.
            spread: blur in m for each second ahead.
        """
        self.frames, self.step, self._leads, self._spread = frames, step, leads, spread
        self.facts = {"model": name}
        self._make = BASELINES[name]

    def forecast(self, sequence: GridSequence) -> Map:
        """All leads; unknown cells stay unknown."""
        widths = [self._spread * lead / sequence.cell for lead in self._leads]
        return self._make(sequence, self._leads, widths)


class Trained:
    """A trained forecaster of occupancy."""

    def __init__(self, place: str, leads: Sequence[float]) -> None:
        """Load it.

        Raises:
            ValueError: if there is none, or it forecasts something else.
        """
        import torch

        from world_models.metnet2.forecaster import Forecaster

        torch.set_num_threads(1)
        self._model = Forecaster.load(place)
        config = self._model.config
        if config.channels[0] != "occupancy":
            raise ValueError(f"{place} forecasts {config.channels[0]!r}, not occupancy")
        self.frames, self.step = config.n_frames, config.frame_step
        self.channels = (*config.channels, *config.still)
        self.facts = {"model": place, "cell": config.cell}
        self._leads = list(leads)

    def forecast(self, sequence: GridSequence) -> Map:
        """All leads, from one look at the past; what is unknown now stays unknown."""
        found = self._model.forecast(sequence, self._leads)
        probability = exceedance(found.probabilities, found.edges, OCCUPIED)
        probability[:, np.isnan(sequence.quantity[-1])] = np.nan
        return probability


def load(value: Mapping[str, Any], leads: Sequence[float]) -> GridForecaster:
    """The forecaster that parameters name.

    Raises:
        ValueError: if there is none of this name, or it is not of occupancy.
    """
    name = value["model"]
    if name in BASELINES:
        return Baseline(name, value["frames"], value["step"], leads, value["spread"])
    if not name:
        raise ValueError(f"name a model: {', '.join(BASELINES)}, or a trained forecaster")
    return Trained(name, leads)
