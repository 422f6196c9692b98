"""How to train a dual encoder."""

from dataclasses import dataclass, field

from learning.train_config import TrainConfig
from perception.mural.losses import TaskWeights


@dataclass(frozen=True)
class MuralTrainConfig(TrainConfig):
    """How to train; see `TrainConfig` for what is not told here.

    Attributes:
        batch_size: pairs of images and texts of a step.
        text_batch_size: pairs of translations of a step, all of two languages: negatives in a
            third language would be told by it.
        weights: of the two tasks.
        duplicates: whether pairs with the same text are left out of each other's negatives; the
            paper takes all of a batch as negatives.
        chunk: pairs that are in a network at one time; None takes a whole batch. The gradients are
            those of the whole batch (`perception.mural.gradient_cache`).
        norm_batches: batches that statistics of batch normalisation are re-estimated from for the
            averaged weights; 0 never does.
        crop: pixels that images are shifted by, as a share of their side; mirroring would make
            left right.
    """

    batch_size: int = 128
    lr: float = 5e-3
    ema_decay: float | None = 0.99
    text_batch_size: int = 256
    weights: TaskWeights = field(default_factory=TaskWeights)
    duplicates: bool = True
    chunk: int | None = None
    norm_batches: int = 16
    crop: float = 0.06

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        super().__post_init__()
        if self.text_batch_size < 2 or self.batch_size < 2:
            raise ValueError(
                "a contrastive batch needs two pairs at least, got batch_size "
                f"{self.batch_size} and text_batch_size {self.text_batch_size}"
            )
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {self.chunk}")
        if self.norm_batches < 0 or not 0 <= self.crop < 0.5:
            raise ValueError(
                f"norm_batches must be 0 or more and crop in [0, 0.5), got {self.norm_batches} "
                f"and {self.crop}"
            )
        if self.return_temperature is not None:
            raise ValueError("pairs have no return; leave return_temperature None")
