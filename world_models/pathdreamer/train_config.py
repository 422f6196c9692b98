"""How to train Pathdreamer."""

import math
from dataclasses import dataclass, field

import torch

from learning.train_config import TrainConfig
from world_models.pathdreamer.batches import WalkConfig
from world_models.pathdreamer.losses import LossConfig


@dataclass(frozen=True)
class DreamTrainConfig(TrainConfig):
    """How to train Pathdreamer; see `TrainConfig` for what is not told here.

    Attributes:
        parts: of the model that are trained, `structure` and `image`.
        walks: which walks are drawn.
        losses: weights of the losses.
        summary_until: share of the budget until which only the summary of the structure generator
            is learned, by examples that cost a third: what kind of room lies behind a door.
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
    parts: tuple[str, ...] = ("structure", "image")
    walks: WalkConfig = field(default_factory=WalkConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    summary_until: float = 0.4
    recurrent_from: float = 0.7
    recurrent_share: float = 0.5
    adversarial_from: float = 0.3
    discriminator_lr: float = 1.0
    precision: str = "auto"
    workers: int = 0

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        super().__post_init__()
        if not self.parts or set(self.parts) - {"structure", "image"}:
            raise ValueError(f"parts must be of structure and image, got {self.parts}")
        for name in ("summary_until", "recurrent_from", "recurrent_share", "adversarial_from"):
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

    @property
    def adversarial(self) -> bool:
        """Whether there is a discriminator at all."""
        return "image" in self.parts and (
            self.losses.adversarial > 0 or self.losses.feature_matching > 0
        )


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in hardware, so that it is faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = torch.cpu.get_capabilities()
    return bool(flags.get("avx512_bf16") or flags.get("amx_bf16"))
