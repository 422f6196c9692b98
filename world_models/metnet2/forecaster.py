"""Forecasts of a sequence: read a moment once, then ask for any lead times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learning.grid_sequence import GridSequence
from world_models.metnet2 import partition
from world_models.metnet2.config import MetNet2Config
from world_models.metnet2.inputs import (
    Past,
    carried,
    check_sequence,
    motion_of,
    part_of,
    past_of,
    ways,
)
from world_models.metnet2.model import Code, MetNet2, load_forecaster


@dataclass(frozen=True)
class Reading:
    """A moment that was read: what all lead times share.

    Attributes:
        past: its frames.
        velocity: `(2, h, w)` motion; None in Eulerian coordinates.
        code: of the network.
        shape: rows and columns of the view.
    """

    past: Past
    velocity: Tensor | None
    code: Code
    shape: tuple[int, int]

    @property
    def missing(self) -> int:
        """Past frames that were not there."""
        return self.past.there.count(False)


@dataclass(frozen=True)
class GridForecast:
    """The forecast of one lead time.

    Attributes:
        lead: seconds.
        edges: `(K + 1,)` of the bins.
        probabilities: `(K, H, W)` float32, sums of 1.
        known: `(H, W)` whether the newest frame knew what moves there; elsewhere the forecast is
            what the network makes of nothing known.
    """

    lead: float
    edges: tuple[float, ...]
    probabilities: NDArray[np.float32]
    known: NDArray[np.bool_]


@dataclass(frozen=True)
class GridForecasts:
    """The forecasts of some lead times.

    Attributes:
        leads: `(L,)` seconds.
        edges: `(K + 1,)` of the bins.
        probabilities: `(L, K, H, W)` float32.
        known: `(L, H, W)`, see `GridForecast`.
    """

    leads: NDArray[np.float64]
    edges: NDArray[np.float64]
    probabilities: NDArray[np.float32]
    known: NDArray[np.bool_]


class Forecaster:
    """A model with a way to compute: in one piece, or by tiles within a bound of memory."""

    def __init__(
        self, model: MetNet2, tile: int | None = None, megabytes: float | None = None
    ) -> None:
        """Take a model.

        Args:
            model: set to evaluation mode.
            tile: cells of a side of the tiles.
            megabytes: bound that tiles are chosen by; with neither, all is one piece.
        """
        self.model = model.eval()
        self.tile = tile
        if megabytes is not None:
            largest = partition.tile_for(model.config, megabytes)
            self.tile = largest if tile is None else min(tile, largest)

    @classmethod
    def load(cls, path_or_name: str | Path, megabytes: float | None = None) -> Forecaster:
        """A checkpoint folder, or a shipped forecaster by its name.

        Raises:
            CheckpointError: if there is none, or it is broken; a `ValueError` with one clear line.
        """
        return cls(load_forecaster(path_or_name), megabytes=megabytes)

    @property
    def config(self) -> MetNet2Config:
        """Of the model."""
        return self.model.config

    def forecast(self, sequence: GridSequence, leads: Sequence[float]) -> GridForecasts:
        """Forecasts after the last frame of a sequence, encoded once.

        Args:
            sequence: the past.
            leads: seconds.

        Raises:
            ValueError: as `read` and `at` do.
        """
        reading = self.read(sequence)
        shape = (len(leads), *reading.shape)
        n_bins = self.config.n_bins
        chances = np.empty((shape[0], n_bins, *shape[1:]), np.float32)
        known = np.empty(shape, np.bool_)
        for k, lead in enumerate(leads):
            found = self.at(reading, float(lead))
            chances[k], known[k] = found.probabilities, found.known
        seconds = np.asarray(leads, np.float64)
        return GridForecasts(seconds, np.asarray(self.config.edges), chances, known)

    def read(self, sequence: GridSequence, index: int = -1) -> Reading:
        """Read the past of a frame.

        Args:
            sequence: of the quantity that the model forecasts.
            index: of the newest frame; from the end if negative.

        Raises:
            ValueError: if the sequence does not fit the model, or nothing is known in that frame.
        """
        config = self.model.config
        check_sequence(sequence, config)
        if not -len(sequence) <= index < len(sequence):
            raise ValueError(f"{sequence.name} has {len(sequence)} frames, there is none {index}")
        past = past_of(sequence, index % len(sequence), config)
        if not bool(torch.isfinite(past.frames[-1, 0]).any()):
            raise ValueError(f"{sequence.name}: nothing is known in the newest frame")
        lagrangian = config.coordinates == "lagrangian"
        velocity = motion_of(past, config) if lagrangian else None
        code = partition.encode(self.model, past, velocity, self.tile)
        return Reading(past, velocity, code, sequence.shape)

    def at(self, reading: Reading, lead: float, target: str = "") -> GridForecast:
        """The forecast of a lead time.

        Args:
            reading: of `read`.
            lead: seconds, within what the model was trained for.
            target: `instantaneous` or `cumulative`; the model's first if empty.

        Raises:
            ValueError: for another lead time or target.
        """
        config = self.model.config
        if target and target not in config.targets:
            raise ValueError(f"the model forecasts {', '.join(config.targets)}, not {target!r}")
        found = partition.decode(
            self.model, reading.code, reading.velocity, lead, self.tile, target
        )
        rows, columns = reading.shape
        chances = found[:, :rows, :columns].cpu().numpy()
        known = np.isfinite(self.extrapolation(reading, lead))
        return GridForecast(lead, config.edges, chances, known)

    def extrapolation(self, reading: Reading, lead: float) -> NDArray[np.float32]:
        """The newest frame carried along the motion, `(H, W)`, NaN where nothing is known."""
        config = self.model.config
        newest = reading.past.frames[-1, :1]
        if reading.velocity is None:
            return newest[0].numpy()
        window = (0, 0, *reading.shape)
        way = part_of(ways(reading.velocity, [lead], config), config.motion.levels[-1], window)
        return carried(newest, way[0], (0, 0))[0].numpy()


def expected(forecast: GridForecast) -> NDArray[np.float32]:
    """Mean of the distribution at each cell, `(H, W)`: the dry bin is 0, others their middles."""
    edges = np.asarray(forecast.edges, np.float32)
    centres = 0.5 * (edges[:-1] + edges[1:])
    centres[0] = edges[0]
    return np.einsum("k,khw->hw", centres, forecast.probabilities)


def quantiles(forecast: GridForecast, levels: Sequence[float]) -> NDArray[np.float32]:
    """The values that are not exceeded with some probabilities, `(Q, H, W)`.

    Within a bin they are spread evenly; the dry bin lies at the first edge.

    Raises:
        ValueError: for a level outside (0, 1).
    """
    if any(not 0 < level < 1 for level in levels):
        raise ValueError(f"levels must be in (0, 1), got {list(levels)}")
    edges = np.asarray(forecast.edges, np.float32)
    cumulative = np.cumsum(forecast.probabilities, axis=0)
    found = np.empty((len(levels), *cumulative.shape[1:]), np.float32)
    for q, level in enumerate(levels):
        # The first bin that reaches the level; rounding may leave the last one short of it.
        k = np.minimum((cumulative < level).sum(axis=0), len(edges) - 2)
        upper = np.take_along_axis(cumulative, k[None], 0)[0]
        inside = np.take_along_axis(forecast.probabilities, k[None], 0)[0]
        share = np.clip(1 - (upper - level) / np.maximum(inside, 1e-12), 0, 1)
        found[q] = np.where(k == 0, edges[0], edges[k] + share * (edges[k + 1] - edges[k]))
    return found
