"""How to train Pathdreamer."""

import math
from dataclasses import dataclass, field, replace

from learning.train_config import TrainConfig
from world_models.pathdreamer.batches import WalkConfig
from world_models.pathdreamer.losses import LossConfig

PARTS = ("summary", "structure", "image")
SUMMARY_BATCH, SUMMARY_LR, SUMMARY_ECHO = 8, 3.0, 4


@dataclass(frozen=True)
class DreamTrainConfig(TrainConfig):
    """How to train Pathdreamer; see `TrainConfig` for what is not told here.

    Attributes:
        parts: of the model that are trained, of `summary`, `structure` and `image`. The summary is
            learned first and by itself; a model without one is trained without.
        summary_share: of the budget that the summary takes, in batches `SUMMARY_BATCH` times as
            large and at a rate `SUMMARY_LR` times as high; it meets each walk `SUMMARY_ECHO` times.
        walks: which walks are drawn.
        losses: weights of the losses.
        recurrent_from: share of the budget after which examples are rolled out: the viewpoints
            between the context and the target are predicted, and the predictions are projected.
        recurrent_share: share of the examples that are, from then on.
        adversarial_from: share of the budget after which the discriminator acts.
        discriminator_lr: its learning rate, as a multiple of `lr`.
        precision: `float32`, `bfloat16` (autocast) or `auto`, which takes bfloat16 on a GPU and
            where the CPU multiplies it in hardware.
        workers: processes that prepare examples ahead; 0 prepares them between steps.
    """

    batch_size: int = 8
    lr: float = 1e-3
    weight_decay: float = 1e-4
    ema_decay: float | None = 0.998
    validate_samples: int = 64
    parts: tuple[str, ...] = PARTS
    summary_share: float = 0.5
    walks: WalkConfig = field(default_factory=WalkConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    recurrent_from: float = 0.6
    recurrent_share: float = 0.5
    adversarial_from: float = 0.3
    discriminator_lr: float = 1.0
    precision: str = "auto"
    workers: int = 0

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        super().__post_init__()
        if not self.parts or set(self.parts) - set(PARTS):
            raise ValueError(f"parts must be of {', '.join(PARTS)}, got {self.parts}")
        if not 0 < self.summary_share < 1:
            raise ValueError(f"summary_share must be in (0, 1), got {self.summary_share}")
        for name in ("recurrent_from", "recurrent_share", "adversarial_from"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if not (math.isfinite(self.discriminator_lr) and self.discriminator_lr > 0):
            raise ValueError(f"discriminator_lr must be positive, got {self.discriminator_lr}")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"precision must be auto, float32 or bfloat16, got {self.precision!r}")
        if self.workers < 0:
            raise ValueError(f"workers must be at least 0, got {self.workers}")
        if self.return_temperature is not None:
            raise ValueError("walks have no return; leave return_temperature None")

    def in_turn(self) -> "tuple[DreamTrainConfig, DreamTrainConfig]":
        """How to train the summary, and then the other parts."""

        def of(share: float) -> "DreamTrainConfig":
            return replace(
                self,
                steps=None if self.steps is None else max(1, round(share * self.steps)),
                cpu_seconds=None if self.cpu_seconds is None else share * self.cpu_seconds,
            )

        first = replace(
            of(self.summary_share),
            parts=("summary",),
            batch_size=SUMMARY_BATCH * self.batch_size,
            lr=SUMMARY_LR * self.lr,
        )
        rest = tuple(part for part in self.parts if part != "summary")
        return first, replace(of(1 - self.summary_share), parts=rest)

    @property
    def adversarial(self) -> bool:
        """Whether there is a discriminator at all."""
        return "image" in self.parts and (
            self.losses.adversarial > 0 or self.losses.feature_matching > 0
        )
