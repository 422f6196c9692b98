"""How to train a network of instance masks."""

import math
from dataclasses import dataclass, field

from learning.train_config import TrainConfig
from perception.deep_mac.instances import MaskTraining


@dataclass(frozen=True)
class SegmenterTrainConfig(TrainConfig):
    """How to train a segmenter; see `TrainConfig` for what is not told here.

    Attributes:
        size: pixels that pictures are letterboxed to, of all sides or height and width; None leaves
            them as they are, which must then be of one size. Sides must be multiples of the
            network's stride.
        masked_classes: names of the classes whose masks may be learned from; of all others only
            boxes and classes are (partial supervision). None: all of them.
        masks: which boxes the mask head is trained on.
        flip: whether pictures are mirrored left to right.
        zoom: pictures are enlarged by a factor drawn log-uniformly from 1 / (1 + zoom) to
            1 + zoom; 0 leaves them.
        shift: largest shift of the picture along each side, as a share of it.
        colour: largest change of brightness, contrast and saturation, as a share.
        least_seen: an instance of which the moved picture shows less than this share of its box is
            left out.
        norm_batches: batches that statistics of batch normalisation are re-estimated from, for the
            averaged weights; 0 never re-estimates.
        precision: `float32`, `bfloat16` (autocast) or `auto`, which takes bfloat16 where the device
            multiplies it in hardware.
    """

    batch_size: int = 8
    weight_decay: float = 1e-4
    warmup_steps: int = 100
    ema_decay: float | None = 0.998
    log_every: int = 20
    validate_samples: int = 64
    size: int | tuple[int, int] | None = None
    masked_classes: tuple[str, ...] | None = None
    masks: MaskTraining = field(default_factory=MaskTraining)
    flip: bool = True
    zoom: float = 0.25
    shift: float = 0.1
    colour: float = 0.3
    least_seen: float = 0.25
    norm_batches: int = 8
    precision: str = "auto"

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        super().__post_init__()
        sides = (self.size,) if isinstance(self.size, int) else self.size or ()
        if self.size is not None and (len(sides) not in (1, 2) or min(sides) < 1):
            raise ValueError(f"size must be at least 1, one number or two, got {self.size}")
        if not (math.isfinite(self.zoom) and self.zoom >= 0):
            raise ValueError(f"zoom must be at least 0, got {self.zoom}")
        for name in ("shift", "colour", "least_seen"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.norm_batches < 0:
            raise ValueError(f"norm_batches must be at least 0, got {self.norm_batches}")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"precision must be auto, float32 or bfloat16, got {self.precision!r}")
        if self.return_temperature is not None:
            raise ValueError("pictures have no return; leave return_temperature None")
