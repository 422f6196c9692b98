"""Vision Transformers over video, plain or with a TokenLearner in each frame.

Sources: Arnab et al. 2021, "ViViT: A Video Vision Transformer" (arXiv 2103.15691), model 1:
patches or tubelets of all frames attend to each other in every block; Ryoo et al. 2021 for the
TokenLearner, which leaves S tokens of each frame, see `token_learner`.

A departure from both releases: there is a position in space and one in time, which are added, and
not one for every pair. It has fewer parameters, other lengths and sizes resize each by itself, and
a network for images becomes one for video by adding the positions in time.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perception.layers import check_images
from perception.token_learner import Grid
from perception.vision_transformer import (
    VISION_TRANSFORMERS,
    Encoder,
    PatchEmbedding,
    VisionTransformerConfig,
    linear_classifier,
)


@dataclass(frozen=True)
class VideoTransformerConfig:
    """Sizes of a video transformer.

    Attributes:
        spatial: the network for one frame; `tokens` are learned of each tubelet in time.
        frames: of the clips that the positions in time are learned for; others take them resized.
        tubelet: successive frames that a patch goes through.
    """

    spatial: VisionTransformerConfig = field(default_factory=VisionTransformerConfig)
    frames: int = 16
    tubelet: int = 1

    def __post_init__(self) -> None:
        """Refuse what no network can have."""
        if self.frames < 1 or self.tubelet < 1:
            raise ValueError(
                f"frames and tubelet must be at least 1, got {self.frames} and {self.tubelet}"
            )
        if self.frames % self.tubelet:
            raise ValueError(
                f"frames must be a multiple of tubelet ({self.tubelet}), got {self.frames}"
            )


class VideoTransformer(nn.Module):
    """Classifies clips by the mean of all tokens."""

    def __init__(
        self, config: VideoTransformerConfig, n_classes: int = 1000, in_channels: int = 3
    ) -> None:
        """Build from torch's global random generator.

        Args:
            config: the sizes.
            n_classes: of the classifier; 0 leaves it out.
            in_channels: of the frames.

        Raises:
            ValueError: for counts that cannot be.
        """
        super().__init__()
        if n_classes < 0 or in_channels < 1:
            raise ValueError(
                f"n_classes must be at least 0 and in_channels 1, got {n_classes} and {in_channels}"
            )
        spatial = config.spatial
        self.config = config
        self.width = spatial.width
        self.stride = spatial.patch
        self.in_channels = in_channels
        # A tubelet is a patch whose channels are those of its frames.
        self.patches = PatchEmbedding(spatial, config.tubelet * in_channels)
        self.times = nn.Parameter(torch.empty(1, spatial.width, config.frames // config.tubelet))
        self.encoder = Encoder(spatial)
        self.inner_dropout = nn.Dropout(spatial.inner_dropout)
        self.dropout = nn.Dropout(spatial.dropout)
        self.classifier = linear_classifier(spatial.width, n_classes)
        nn.init.normal_(self.times, std=0.02)

    def forward(self, clips: Tensor) -> Tensor:
        """`(B, n_classes)` logits of clips `(B, T, channels, H, W)`; see `embed`."""
        features = self.embed(clips)
        return features if self.classifier is None else self.classifier(self.dropout(features))

    def embed(self, clips: Tensor) -> Tensor:
        """`(B, width)`, the mean of the last tokens of all frames.

        Args:
            clips: `(B, T, channels, H, W)` with any T from 1: where it does not fill the last
                tubelet, the last frame stands still.

        Raises:
            ValueError: unless height and width are multiples of the patch.
        """
        x, grid, frames = self._tokens(clips)
        return self.encoder(x, grid, frames).mean(1)

    def feature_map(self, clips: Tensor) -> Tensor:
        """`(B, T', width, H / stride, W / stride)`, one map for each of T' tubelets in time.

        As `VisionTransformer.feature_map`: before a TokenLearner that has no TokenFuser.
        """
        x, grid, frames = self._tokens(clips)
        maps = self.encoder.feature_map(x, grid, frames)
        return maps.unflatten(1, (frames, -1)).mT.unflatten(3, grid)

    def attention(self, clips: Tensor, layer: int = 0) -> Tensor:
        """`(B, T', tokens, H / stride, W / stride)`: where the TokenLearner looks in each frame.

        Raises:
            ValueError: if there is no such TokenLearner; see `VisionTransformer.attention`.
        """
        x, grid, frames = self._tokens(clips)
        return self.encoder.attention(x, grid, frames, layer).unflatten(0, (-1, frames))

    def _tokens(self, clips: Tensor) -> tuple[Tensor, Grid, int]:
        """`(B, T' * h * w, C)` with h and w, and T'."""
        if clips.ndim != 5:
            raise ValueError(
                f"clips must be (B, T, {self.in_channels}, H, W), got {tuple(clips.shape)}"
            )
        check_images(clips.flatten(0, 1), self.in_channels)
        tubelet = self.config.tubelet
        missing = -clips.shape[1] % tubelet
        if missing:
            clips = torch.cat([clips, clips[:, -1:].expand(-1, missing, -1, -1, -1)], 1)
        frames = clips.shape[1] // tubelet
        x = self.patches(clips.unflatten(1, (frames, tubelet)).flatten(2, 3).flatten(0, 1))
        grid = (x.shape[2], x.shape[3])
        times: Tensor = self.times
        if frames != times.shape[2]:
            times = F.interpolate(times, frames, mode="linear", align_corners=False)
        x = x.flatten(2).mT.unflatten(0, (-1, frames)) + times.mT.unsqueeze(2)
        return self.inner_dropout(x.flatten(1, 2)), grid, frames


VIDEO_TRANSFORMERS: dict[str, VideoTransformerConfig] = {
    # Sizes of the paper: 32 frames in tubelets of 2.
    "vivit_b16": VideoTransformerConfig(VISION_TRANSFORMERS["vit_b16"], frames=32, tubelet=2),
    "vivit_l16": VideoTransformerConfig(VISION_TRANSFORMERS["vit_l16"], frames=32, tubelet=2),
    # "16at12" of TokenLearner's table.
    "vivit_l16_tokenlearner": VideoTransformerConfig(
        VISION_TRANSFORMERS["vit_l16"].with_tokens(16), frames=32, tubelet=2
    ),
    # For CPUs.
    "vivit_micro": VideoTransformerConfig(VISION_TRANSFORMERS["vit_micro"], frames=8),
    "vivit_micro_tokenlearner": VideoTransformerConfig(
        VISION_TRANSFORMERS["vit_micro_tokenlearner"], frames=8
    ),
}
"""Configurations by name."""
