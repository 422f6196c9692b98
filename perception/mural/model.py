"""The dual encoder: a text tower that all languages and tasks share, and an image tower."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perception.catalogue import create
from perception.mural.losses import sigmoid_loss, softmax_loss
from perception.mural.text import TextConfig, TextTower
from perception.mural.tokenizer import Tokenizer, TokenizerConfig, Tokens

Task = Literal["image-text", "text-text"]
TASKS: tuple[Task, ...] = ("image-text", "text-text")
LOSSES = ("softmax", "sigmoid")
_FIRST_SCALE = {"softmax": 1 / 0.07, "sigmoid": 10.0}
_FIRST_BIAS = -10.0


@dataclass(frozen=True)
class MuralConfig:
    """Shape of the dual encoder.

    Attributes:
        text: the text tower.
        backbone: of the image tower, a name in the catalogue of `perception`.
        backbone_options: JSON values for `perception.create`.
        size: pixels a side of its images.
        width: of embeddings.
        loss: `softmax`, as in the paper, or `sigmoid`.
    """

    text: TextConfig = field(default_factory=TextConfig)
    backbone: str = "efficientnetv2_b0_quarter"
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    size: int = 64
    width: int = 128
    loss: str = "softmax"

    def __post_init__(self) -> None:
        """Refuse shapes that cannot be."""
        if self.size < 8 or self.width < 1:
            raise ValueError(
                f"size must be 8 pixels or more and width 1 or more, got {self.size} and "
                f"{self.width}"
            )
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {self.loss!r}")


SIZES: dict[str, MuralConfig] = {
    "small": MuralConfig(),
    # BERT-base and EfficientNet-B5 at 289 pixels, with as many rows as the paper's word pieces.
    "paper": MuralConfig(
        text=TextConfig(
            TokenizerConfig(buckets=250_000),
            768,
            width=768,
            layers=12,
            inner=768,
            heads=12,
            ratio=4,
        ),
        backbone="efficientnet_b5",
        size=289,
        width=640,
    ),
}
"""Shapes by name; `paper` is that of MURAL-base but for tokeniser and width of embeddings."""


class DualEncoder(nn.Module):
    """Images and texts to embeddings of length 1 whose dot product says how well they fit.

    Texts have a head for each task, as in the paper: translations need not have the same embedding
    as descriptions. Each task has a temperature (and for the sigmoid a bias) of its own.
    """

    def __init__(self, config: MuralConfig) -> None:
        """Build from torch's global random generator."""
        super().__init__()
        self.config = config
        self.tokenizer = Tokenizer(config.text.tokens)
        self.text = TextTower(config.text)
        # The backbone's last layer, which would name classes, gives the embedding.
        self.image: nn.Module = create(
            config.backbone, n_classes=config.width, **dict(config.backbone_options)
        )
        self.heads = nn.ModuleDict(
            {task: nn.Linear(config.text.width, config.width) for task in TASKS}
        )
        first = torch.tensor(_FIRST_SCALE[config.loss]).log()
        self.log_scale = nn.ParameterDict({task: nn.Parameter(first.clone()) for task in TASKS})
        self.bias: nn.ParameterDict | None = None
        if config.loss == "sigmoid":
            self.bias = nn.ParameterDict(
                {task: nn.Parameter(torch.tensor(_FIRST_BIAS)) for task in TASKS}
            )

    def encode_text(self, tokens: Tokens, task: Task = "image-text") -> Tensor:
        """`(B, width)` embeddings of texts for a task."""
        return F.normalize(self.heads[task](self.text(tokens)), dim=-1)

    def encode_image(self, images: Tensor) -> Tensor:
        """`(B, width)` embeddings of `(B, 3, size, size)` normalised images."""
        return F.normalize(self.image(images), dim=-1)

    def loss(self, x: Tensor, y: Tensor, task: Task, same: Tensor | None = None) -> Tensor:
        """The loss of a task on embeddings of pairs; see `perception.mural.losses`."""
        scale = self.log_scale[task]
        if self.bias is None:
            return softmax_loss(x, y, scale, same)
        return sigmoid_loss(x, y, scale, self.bias[task], same)
