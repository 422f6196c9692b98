"""How MetNet-2 is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

from learning.train_config import TrainConfig


@dataclass(frozen=True)
class ForecastTrainConfig(TrainConfig):
    """Settings of a training; those of `TrainConfig`, and its own.

    Attributes:
        leads: lead times drawn for each example; the past is encoded once for them.
        cross_entropy: weight of the cross-entropy (the paper's loss).
        crps: weight of the CRPS, in the unit of the quantity, over `crps_unit`.
        crps_unit: what counts as one; about the mean of the quantity.
        points: share of the cells, drawn anew, that the loss looks at.
        wetness: how much wet places are preferred: a place is taken with the probability
            `dry_share + wetness * (share of wet cells)`.
        dry_share: see `wetness`.
        scale: rain is multiplied by up to this factor or divided by it; 1 leaves it alone. What is
            not on a logarithmic scale is always left alone.
        turn: whether examples are turned by quarters and mirrored.
        least_known: share of the target that must be known.
        validation_crops: places and times of the held-out events that are scored.
        validation_leads: lead times that are scored, seconds; empty: first, middle and last.
        precision: `float32`, `bfloat16` or `auto`.
    """

    batch_size: int = 2
    lr: float = 2.5e-3
    weight_decay: float = 0.01
    warmup_steps: int = 50
    ema_decay: float | None = 0.99
    log_every: int = 20
    validate_every: int = 150
    save_every: int = 150
    leads: int = 3
    cross_entropy: float = 0.3
    crps: float = 1.0
    crps_unit: float = 0.3
    points: float = 0.25
    wetness: float = 3.0
    dry_share: float = 0.1
    scale: float = 2.0
    turn: bool = True
    least_known: float = 0.3
    validation_crops: int = 24
    validation_leads: tuple[float, ...] = ()
    precision: str = "float32"

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        super().__post_init__()
        for name in ("leads", "validation_crops"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("cross_entropy", "crps", "wetness", "dry_share"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not self.cross_entropy + self.crps > 0:
            raise ValueError("one of the losses cross_entropy and crps must have a weight above 0")
        if not self.dry_share + self.wetness > 0:
            raise ValueError("dry_share and wetness must not both be 0: no place would be taken")
        if not self.crps_unit > 0:
            raise ValueError(f"crps_unit must be positive, got {self.crps_unit}")
        if not (math.isfinite(self.scale) and self.scale >= 1):
            raise ValueError(f"scale must be at least 1, got {self.scale}")
        for name in ("points", "least_known"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {getattr(self, name)}")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"precision must be auto, float32 or bfloat16, got {self.precision!r}")
