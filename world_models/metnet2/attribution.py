"""Which of its inputs a forecast rests on: by occlusion.

One input after the other, a channel of a past frame, is made unknown everywhere, and the forecast
is made again (Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks"). How
far the distributions move is measured by the integral of the squared difference of their cumulative
forms, the divergence that belongs to the CRPS: 0 where an input does not matter. The motion stays
as estimated from all frames meanwhile; it is an input of its own, occluded by none at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from world_models.metnet2 import partition
from world_models.metnet2.forecaster import Forecaster, Reading
from world_models.metnet2.inputs import Past


@dataclass(frozen=True)
class Attribution:
    """How much each input matters.

    Attributes:
        leads: seconds.
        inputs: name of the channel and seconds before the newest frame, of each row; the motion has
            none.
        change: `(inputs, leads)` mean over the cells, in the unit of the quantity.
    """

    leads: tuple[float, ...]
    inputs: tuple[tuple[str, float | None], ...]
    change: tuple[tuple[float, ...], ...]

    @property
    def shares(self) -> tuple[tuple[float, ...], ...]:
        """`change` over its sum of each lead time; zeros where nothing matters."""
        sums = [sum(row[k] for row in self.change) or 1.0 for k in range(len(self.leads))]
        return tuple(tuple(v / s for v, s in zip(row, sums, strict=True)) for row in self.change)


def occlusion(
    forecaster: Forecaster,
    reading: Reading,
    leads: Sequence[float],
    advance: Callable[[], None] = lambda: None,
) -> Attribution:
    """Occlude every input in turn.

    Args:
        forecaster: the model.
        reading: of the moment.
        leads: seconds.
        advance: called after each input.
    """
    config = forecaster.config
    names = (*config.channels, *config.still)
    edges = torch.tensor(config.edges)
    whole = [_cumulative(forecaster, reading, lead) for lead in leads]

    def change(other: Reading) -> tuple[float, ...]:
        advance()
        return tuple(
            float(_divergence(_cumulative(forecaster, other, lead), before, edges))
            for lead, before in zip(leads, whole, strict=True)
        )

    rows: dict[tuple[str, float | None], tuple[float, ...]] = {}
    for c, name in enumerate(names):
        for k, age in enumerate(reading.past.ages):
            frames = reading.past.frames.clone()
            frames[k, c] = float("nan")
            past = replace(reading.past, frames=frames)
            rows[name, age] = change(_coded(forecaster, reading, past, reading.velocity))
    if reading.velocity is not None:
        still = torch.zeros_like(reading.velocity)
        rows["motion", None] = change(_coded(forecaster, reading, reading.past, still))
    return Attribution(tuple(map(float, leads)), tuple(rows), tuple(rows.values()))


def _coded(
    forecaster: Forecaster, reading: Reading, past: Past, velocity: Tensor | None
) -> Reading:
    code = partition.encode(forecaster.model, past, velocity, forecaster.tile)
    return replace(reading, past=past, velocity=velocity, code=code)


def _cumulative(forecaster: Forecaster, reading: Reading, lead: float) -> Tensor:
    found = partition.decode(
        forecaster.model, reading.code, reading.velocity, lead, forecaster.tile
    )
    rows, columns = reading.shape
    return found[:, :rows, :columns].cumsum(dim=0)


def _divergence(one: Tensor, other: Tensor, edges: Tensor) -> Tensor:
    """Mean integral of (F - G)^2; between edges both are linear."""
    apart = one - other
    low = torch.cat([apart[:1], apart[:-1]])
    widths = (edges[1:] - edges[:-1]).to(apart.device)[:, None, None]
    return (widths / 3 * (low * low + low * apart + apart * apart)).sum(dim=0).mean()
