"""What a MetNet-2 is: its inputs, its layers, what it forecasts and how finely."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from world_models.metnet2.motion import MotionConfig, blur_reach

TARGETS = ("instantaneous", "cumulative")
PLANES = {"time_of_day": 2, "time_of_year": 2, "position": 2}
"""Inputs that are computed, and their planes: sine and cosine of time, x and y in 1000 km."""
COORDINATES = ("eulerian", "lagrangian")
_MAX_BINS, _MAX_BLOCKS, _MAX_WIDTH = 4096, 256, 16_384


def geometric_edges(first: float, last: float, bins: int) -> tuple[float, ...]:
    """Edges of bins: a dry one up to `first`, then bins that grow by one factor up to `last`."""
    factor = (last / first) ** (1 / (bins - 1))
    return (0.0, *(round(first * factor**k, 6) for k in range(bins)))


@dataclass(frozen=True)
class MetNet2Config:
    """A network that forecasts the first of its channels.

    Source: Espeholt et al. 2022, "Deep learning for twelve hour precipitation forecasts".

    Attributes:
        channels: names of the channels of a sequence that move with the pattern; the first is
            forecast. One that a sequence lacks counts as unknown everywhere.
        still: names of the channels that stay, such as `elevation`.
        planes: computed inputs, of `PLANES`.
        normal: mean and standard deviation of each of `channels[1:]` and `still`; empty: 0 and 1.
        transform: of the forecast channel as an input: `log` is log(1 + x / unit), `linear` x/unit.
        unit: of the transform.
        edges: `(K + 1,)` of the bins, rising from the least value there is. The first bin is an
            atom at the first edge: dry.
        targets: what is forecast: the value at the lead time (`instantaneous`), and its mean over
            the hour that ends then (`cumulative`, for rain the sum in mm), of TARGETS.
        cell: metres of a side of a cell.
        frame_step: seconds between past frames.
        n_frames: past frames, the newest included.
        lead_step: seconds between lead times.
        n_leads: lead times; the last is `n_leads * lead_step` seconds ahead.
        context: cells of a side of what a training example shows.
        target: cells of a side of what it forecasts, in the middle of the context.
        downsample: cells of a side that space-to-depth makes one.
        lstm_width: channels of the ConvLSTM.
        width: channels of the residual blocks behind it.
        shared_dilations: of the blocks that do not know the lead time: run once for all leads.
        lead_dilations: of the blocks that do.
        lead_width: of the two layers that embed the lead time.
        fine_step: cells of a side of the finest features; 1 in the paper. With a first guess, which
            is at full resolution, 2 does, at a quarter of the cost.
        fine_width: channels there.
        fine_blocks: residual blocks there.
        head_width: channels of the layer before the logits.
        upsample: `tile` repeats cells (the paper), `shuffle` learns what is within one.
        levels: planes by which the newest frame joins at full resolution: how near its value is to
            each of so many levels, evenly spread over the transformed range; 0: it does not join.
        coordinates: `eulerian` forecasts in place (the paper); `lagrangian` in the frame that moves
            with the pattern, along a motion that is estimated from the past frames.
        scales: standard deviations in cells of the neighbourhoods whose shares of the levels are
            the first guess, which the network mixes and corrects; empty: none (the paper).
        fine_scale: of the closest one, at full resolution.
        dropout: share of the channels of the coarse blocks left out at random in training.
        lead_modulation: whether lead times scale and shift features (FiLM); without, all leads get
            one forecast: an ablation.
        motion: how the motion is estimated.
    """

    channels: tuple[str, ...] = ("rain_rate",)
    still: tuple[str, ...] = ()
    planes: tuple[str, ...] = ()
    normal: tuple[tuple[float, float], ...] = ()
    transform: str = "log"
    unit: float = 0.1
    edges: tuple[float, ...] = geometric_edges(0.05, 64.0, 32)
    targets: tuple[str, ...] = ("instantaneous",)
    cell: float = 1000.0
    frame_step: float = 300.0
    n_frames: int = 6
    lead_step: float = 300.0
    n_leads: int = 12
    context: int = 256
    target: int = 128
    downsample: int = 4
    lstm_width: int = 32
    width: int = 48
    shared_dilations: tuple[int, ...] = (1, 2, 4)
    lead_dilations: tuple[int, ...] = (1, 2, 4)
    lead_width: int = 64
    fine_step: int = 2
    fine_width: int = 24
    fine_blocks: int = 1
    head_width: int = 48
    upsample: str = "shuffle"
    levels: int = 16
    coordinates: str = "lagrangian"
    scales: tuple[float, ...] = (4.0, 8.0, 16.0, 32.0)
    fine_scale: float = 1.5
    dropout: float = 0.1
    lead_modulation: bool = True
    motion: MotionConfig = field(default_factory=MotionConfig)

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        self._check_names()
        self._check_edges()
        self._check_sizes()

    def _check_names(self) -> None:
        names = (*self.channels, *self.still)
        if not self.channels or len(set(names)) < len(names) or not all(names):
            raise ValueError(f"channels and still must be different names, got {names}")
        for what, values, known in (
            ("planes", self.planes, tuple(PLANES)),
            ("targets", self.targets, TARGETS),
        ):
            if set(values) - set(known) or len(set(values)) < len(values):
                raise ValueError(f"{what} must be different ones of {known}, got {values}")
        if not self.targets:
            raise ValueError(f"targets must be one or more of {TARGETS}")
        for what, value, choice in (
            ("transform", self.transform, ("log", "linear")),
            ("upsample", self.upsample, ("tile", "shuffle")),
            ("coordinates", self.coordinates, COORDINATES),
        ):
            if value not in choice:
                raise ValueError(f"{what} must be one of {choice}, got {value!r}")
        if self.normal and len(self.normal) != len(names) - 1:
            raise ValueError(f"normal must hold {len(names) - 1} pairs, got {len(self.normal)}")
        if any(len(pair) != 2 or not pair[1] > 0 for pair in self.normal):
            raise ValueError(f"normal must hold pairs of mean and deviation, got {self.normal}")

    def _check_edges(self) -> None:
        finite = all(math.isfinite(edge) for edge in self.edges)
        rising = all(a < b for a, b in zip(self.edges, self.edges[1:], strict=False))
        if not 3 <= len(self.edges) <= _MAX_BINS or not finite or not rising:
            raise ValueError(f"edges must be 3 to {_MAX_BINS} finite numbers that rise")

    def _check_sizes(self) -> None:
        for name in ("unit", "cell", "frame_step", "lead_step"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive, got {value}")
        for name in ("n_frames", "n_leads", "downsample", "lstm_width", "width", "lead_width"):
            if not 1 <= getattr(self, name) <= _MAX_WIDTH:
                raise ValueError(f"{name} must be 1 to {_MAX_WIDTH}, got {getattr(self, name)}")
        for name in ("fine_width", "head_width"):
            if not 1 <= getattr(self, name) <= _MAX_WIDTH:
                raise ValueError(f"{name} must be 1 to {_MAX_WIDTH}, got {getattr(self, name)}")
        if any(not 0 < scale < 1000 for scale in (*self.scales, self.fine_scale)):
            raise ValueError(f"scales must be in (0, 1000), got {self.scales}, {self.fine_scale}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if self.levels != 0 and not 2 <= self.levels <= _MAX_WIDTH:
            raise ValueError(f"levels must be 0, or 2 to {_MAX_WIDTH}, got {self.levels}")
        if self.scales and not self.levels:
            raise ValueError("a first guess (scales) needs levels")
        if self.fine_step < 1 or self.downsample % self.fine_step:
            raise ValueError(
                f"fine_step must divide downsample {self.downsample}, got {self.fine_step}"
            )
        if not 0 <= self.fine_blocks <= _MAX_BLOCKS:
            raise ValueError(f"fine_blocks must be 0 to {_MAX_BLOCKS}, got {self.fine_blocks}")
        dilations = (*self.shared_dilations, *self.lead_dilations)
        if len(dilations) > _MAX_BLOCKS or any(d < 1 for d in dilations):
            raise ValueError(f"dilations must be at least 1, got {dilations}")
        rest = self.context - self.target
        if self.target < 1 or self.target % self.downsample or rest < 0:
            raise ValueError(
                f"target must be a multiple of {self.downsample} and at most context, "
                f"got {self.target} in {self.context}"
            )
        if rest % (2 * self.downsample):
            raise ValueError(
                f"context - target must be a multiple of {2 * self.downsample}, so that the target "
                f"lies in the middle, got {rest}"
            )

    @property
    def quantity(self) -> str:
        """Name of what is forecast."""
        return self.channels[0]

    @property
    def n_bins(self) -> int:
        """Bins of the forecast."""
        return len(self.edges) - 1

    @property
    def in_channels(self) -> int:
        """Planes of a past frame: values, their validity, and computed ones."""
        given = len(self.channels) + len(self.still)
        return 2 * given + sum(PLANES[name] for name in self.planes)

    @property
    def largest(self) -> float:
        """The last edge, transformed."""
        value = self.edges[-1] / self.unit
        return math.log1p(value) if self.transform == "log" else value

    @property
    def leads(self) -> tuple[float, ...]:
        """Lead times that are trained, in seconds."""
        return tuple(self.lead_step * (k + 1) for k in range(self.n_leads))

    @property
    def margin(self) -> int:
        """Cells of context on each side of the target."""
        return (self.context - self.target) // 2

    @property
    def encode_reach(self) -> int:
        """Coarse cells that the code of the past looks beyond its place.

        The ConvLSTM looks one cell further at each frame; a residual block has two convolutions.
        """
        around = max((blur_reach(s / self.downsample) for s in self.scales), default=0)
        return max(self.n_frames + 2 * sum(self.shared_dilations), around)

    @property
    def decode_reach(self) -> int:
        """Coarse cells that the blocks that know the lead time look beyond their place."""
        return 2 * sum(self.lead_dilations)

    @property
    def fine_reach(self) -> int:
        """Cells that the finest layers look beyond their place."""
        # The first guess is interpolated between coarse cells: it takes a neighbour.
        around = max(blur_reach(self.fine_scale), self.downsample) if self.scales else 0
        return max(2 * self.fine_blocks * self.fine_step, around)

    @property
    def reach(self) -> int:
        """Cells that a forecast looks beyond its place, motion apart: the receptive field."""
        coarse = self.encode_reach + self.decode_reach
        along = int(self.coordinates == "lagrangian")  # interpolation takes a neighbour too
        # Of a coarse cell that is looked at at all, every cell counts.
        fine = math.ceil(self.fine_reach / self.downsample) + 1
        return self.downsample * (coarse + along + fine) - 1

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MetNet2Config:
        """What `to_dict` gave.

        Raises:
            ValueError: for unknown names, or values that make no network.
        """
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"unknown settings of MetNet-2: {', '.join(unknown)}")
        given = {name: _tuples(value) for name, value in values.items()}
        try:
            if isinstance(given.get("motion"), Mapping):
                motion = {k: _tuples(v) for k, v in given["motion"].items()}
                given["motion"] = MotionConfig(**motion)
            return cls(**given)
        except TypeError as error:
            raise ValueError(f"settings of MetNet-2 do not fit: {error}") from None


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


_SMALL = MetNet2Config()
_PAPER = MetNet2Config(
    channels=("rain_rate", "satellite", "assimilated"),
    still=("elevation",),
    planes=("time_of_day", "time_of_year", "position"),
    edges=tuple(round(0.2 * k, 1) for k in range(513)),
    targets=TARGETS,
    frame_step=450.0,
    n_frames=13,
    lead_step=120.0,
    n_leads=360,
    context=2048,
    target=512,
    lstm_width=128,
    width=384,
    shared_dilations=(),
    lead_dilations=(1, 2, 4, 8, 16, 32, 64, 128) * 3,
    lead_width=2048,
    fine_step=1,
    fine_width=512,
    fine_blocks=8,
    head_width=4096,
    upsample="tile",
    levels=0,
    scales=(),
    dropout=0.0,
    coordinates="eulerian",
)
_OCCUPANCY = MetNet2Config(
    channels=("occupancy",),
    still=("static",),
    transform="linear",
    unit=1.0,
    edges=(0.0, 0.5, 1.0),
    cell=0.1,
    frame_step=0.1,
    n_frames=8,
    lead_step=0.5,
    n_leads=6,
    context=96,
    target=64,
    downsample=2,
    fine_step=1,
    levels=2,
    scales=(2.0, 4.0, 8.0),
    fine_scale=0.7,
    coordinates="eulerian",
)
SIZES: dict[str, MetNet2Config] = {
    "small": _SMALL,
    "small-eulerian": replace(_SMALL, coordinates="eulerian"),
    "occupancy": _OCCUPANCY,
    "paper": _PAPER,
}


def size(name: str) -> MetNet2Config:
    """A configuration by its name.

    Raises:
        ValueError: for an unknown one; the known are listed.
    """
    if name not in SIZES:
        raise ValueError(f"unknown size {name!r}; known: {', '.join(SIZES)}")
    return SIZES[name]
