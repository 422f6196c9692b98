"""Vision Transformers, plain or with a TokenLearner that leaves a few tokens to the later blocks.

Sources: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words" (arXiv 2010.11929), with pre-norm
blocks and learned positions; Ryoo et al. 2021 for the TokenLearner, see `token_learner`. As in the
latter's release (google-research/scenic@4a38d475) there is no class token: the tokens are averaged.

Departures: the classifier starts from small weights and not from zeros, so that all layers learn
from the first step; positions are resized bilinearly as pixels are, with the corners not aligned.
Stochastic depth is honoured; the release reads its rate and never passes it on.

A TokenLearner wants a network that is trained with it: put into a ViT that was trained without, it
does not help (an author of the paper, google-research/scenic issue 112).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perception.attention import attention
from perception.layers import StochasticDepth, check_images
from perception.token_learner import (
    EPS,
    Grid,
    Pool,
    TokenFuser,
    TokenLearner,
    Version,
    check_token_learner,
)


@dataclass(frozen=True)
class VisionTransformerConfig:
    """Sizes of a Vision Transformer.

    Attributes:
        width: features of a token.
        depth: blocks.
        heads: of the attention; they share the width evenly.
        patch: side of the square patches, pixels.
        image: side of the square images that the positions are learned for, pixels; others take
            them resized.
        mlp_ratio: hidden units of the perceptrons, times the width.
        stochastic_depth: chance that a sample goes without a branch of the last block; it grows
            linearly from 0 in the first block (Huang et al. 2016).
        dropout: before the classifier.
        inner_dropout: after the positions, in the branches of the blocks, the TokenLearners and
            TokenFusers.
        tokens: that a TokenLearner leaves of each image; 0 is off.
        at: share of the depth before the TokenLearner, in (0, 1); see `learner_block`.
        version: of the TokenLearner, "1.0" or "1.1".
        pool: of a TokenLearner 1.0, "sum" or "mean".
        bottleneck: hidden units in TokenLearners 1.1 and TokenFusers.
        fuser: whether every block from `learner_block` on has its own TokenLearner and TokenFuser,
            which keeps the map at full resolution.
    """

    width: int = 192
    depth: int = 12
    heads: int = 3
    patch: int = 16
    image: int = 224
    mlp_ratio: int = 4
    stochastic_depth: float = 0.1
    dropout: float = 0.0
    inner_dropout: float = 0.0
    tokens: int = 0
    at: float = 0.5
    version: Version = "1.1"
    pool: Pool = "sum"
    bottleneck: int = 64
    fuser: bool = False

    def __post_init__(self) -> None:
        """Refuse what no network can have."""
        for name in ("width", "depth", "heads", "patch", "image", "mlp_ratio"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads ({self.heads}), got {self.width}")
        if self.image % self.patch:
            raise ValueError(f"image must be a multiple of patch ({self.patch}), got {self.image}")
        for name in ("stochastic_depth", "dropout", "inner_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.tokens < 0:
            raise ValueError(f"tokens must be 0 (no TokenLearner) or more, got {self.tokens}")
        if self.fuser and not self.tokens:
            raise ValueError("a fuser needs tokens, got tokens=0")
        # Values of a TokenLearner that is off are checked all the same: no surprise on switching.
        check_token_learner(max(self.tokens, 1), self.version, self.pool, self.bottleneck)
        if not 0 < self.at < 1:
            raise ValueError(f"at must be in (0, 1), got {self.at}")
        if self.tokens and self.learner_block >= self.depth:
            raise ValueError(
                f"at must leave a block behind the TokenLearner: round(at * depth) must be below "
                f"{self.depth}, got at {self.at}"
            )

    @property
    def learner_block(self) -> int:
        """The block, counted from 0, that the TokenLearner acts before: `round(at * depth)`."""
        return round(self.at * self.depth)

    def with_tokens(
        self, tokens: int = 8, at: float = 0.5, version: Version = "1.1", *, fuser: bool = False
    ) -> "VisionTransformerConfig":
        """The same network with a TokenLearner."""
        return replace(self, tokens=tokens, at=at, version=version, fuser=fuser)


class Attention(nn.Module):
    """Attention of tokens to tokens, by several heads (Dosovitskiy et al. 2021, eq. 5 to 8)."""

    def __init__(self, width: int, heads: int) -> None:
        """Build from torch's global random generator."""
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        # The three matrices are one only for speed: each starts with the spread of its own shape.
        for matrix in (*self.qkv.weight.chunk(3), self.proj.weight):
            nn.init.xavier_uniform_(matrix)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, L, C)` to `(B, L, C)`."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, then a perceptron for each token, both with residuals (eq. 2 and 3)."""

    def __init__(self, config: VisionTransformerConfig, stochastic_depth: float = 0.0) -> None:
        """Build from torch's global random generator.

        Args:
            config: of the network.
            stochastic_depth: chance of either branch to be left out.
        """
        super().__init__()
        width, hidden = config.width, config.mlp_ratio * config.width
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attn = Attention(width, config.heads)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(config.inner_dropout)
        self.drop_path = StochasticDepth(stochastic_depth)
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, L, C)` to `(B, L, C)`."""
        x = x + self.drop_path(self.dropout(self.attn(self.norm1(x))))
        hidden = self.dropout(F.gelu(self.fc1(self.norm2(x))))
        return x + self.drop_path(self.dropout(self.fc2(hidden)))


class Encoder(nn.Module):
    """The blocks, TokenLearners, TokenFusers and the last norm, over one or several frames.

    A TokenLearner acts on each frame by itself; the blocks see the tokens of all frames.
    """

    def __init__(self, config: VisionTransformerConfig) -> None:
        """Build from torch's global random generator."""
        super().__init__()
        depth, first = config.depth, config.learner_block
        rates = [config.stochastic_depth * i / max(depth - 1, 1) for i in range(depth)]
        n_fusers = depth - first if config.fuser else 0
        n_learners = n_fusers if config.fuser else min(config.tokens, 1)
        self.first = first
        self.blocks = nn.ModuleList([Block(config, rate) for rate in rates])
        self.learners = nn.ModuleList([_learner(config) for _ in range(n_learners)])
        self.fusers = nn.ModuleList([_fuser(config) for _ in range(n_fusers)])
        self.norm = nn.LayerNorm(config.width, eps=EPS)

    def forward(self, x: Tensor, grid: Grid, frames: int = 1) -> Tensor:
        """Tokens of the patches to those of the last block, normalised.

        Args:
            x: `(B, frames * h * w, C)`, frame by frame and row by row.
            grid: h and w.
            frames: how many.

        Returns:
            `(B, L, C)`. L is `frames * S` behind a TokenLearner without a TokenFuser, else as it
            came.
        """
        return self.norm(self._run(x, grid, frames, len(self.blocks)))

    def feature_map(self, x: Tensor, grid: Grid, frames: int = 1) -> Tensor:
        """The last tokens at full resolution, `(B, frames * h * w, C)`; as for `forward`.

        They are normalised, unless a TokenLearner without a TokenFuser follows.
        """
        if self.learners and not self.fusers:
            return self._run(x, grid, frames, self.first)
        return self(x, grid, frames)

    def attention(self, x: Tensor, grid: Grid, frames: int = 1, layer: int = 0) -> Tensor:
        """`(B * frames, S, h, w)` of a TokenLearner; as for `forward`.

        Raises:
            ValueError: if there is no such TokenLearner.
        """
        if not 0 <= layer < len(self.learners):
            raise ValueError(
                f"layer must be one of {len(self.learners)} TokenLearners, got {layer}"
            )
        x = self._run(x, grid, frames, self.first + layer)
        learner = self.learners[layer]
        assert isinstance(learner, TokenLearner)
        return learner.attention(x.unflatten(1, (frames, -1)).flatten(0, 1), grid)

    def _run(self, x: Tensor, grid: Grid, frames: int, stop: int) -> Tensor:
        """Through the blocks before `stop`."""
        for number, block in enumerate(self.blocks[:stop]):
            layer = number - self.first
            if not 0 <= layer < len(self.learners):
                x = block(x)
                continue
            maps = x.unflatten(1, (frames, -1)).flatten(0, 1)
            tokens = self.learners[layer](maps, grid)
            x = block(tokens.unflatten(0, (-1, frames)).flatten(1, 2))
            if self.fusers:
                tokens = x.unflatten(1, (frames, -1)).flatten(0, 1)
                maps = maps + self.fusers[layer](tokens, maps)
                x = maps.unflatten(0, (-1, frames)).flatten(1, 2)
        return x


class PatchEmbedding(nn.Module):
    """Patches to tokens, with their learned positions added (eq. 1, without a class token)."""

    def __init__(self, config: VisionTransformerConfig, in_channels: int) -> None:
        """Build from torch's global random generator."""
        super().__init__()
        self.patch = config.patch
        side = config.image // config.patch
        self.proj = nn.Conv2d(in_channels, config.width, config.patch, config.patch)
        self.positions = nn.Parameter(torch.empty(1, config.width, side, side))
        nn.init.normal_(self.proj.weight, std=(in_channels * config.patch**2) ** -0.5)
        assert self.proj.bias is not None
        nn.init.zeros_(self.proj.bias)
        nn.init.normal_(self.positions, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """`(B, channels, H, W)` to the map `(B, C, h, w)` of tokens.

        Raises:
            ValueError: if patches do not tile the images.
        """
        height, width = images.shape[2:]
        if height % self.patch or width % self.patch:
            raise ValueError(
                f"height and width must be multiples of the patch, {self.patch}; "
                f"got {height} x {width}"
            )
        x = self.proj(images)
        positions: Tensor = self.positions
        if x.shape[2:] != positions.shape[2:]:
            positions = F.interpolate(positions, x.shape[2:], mode="bilinear", align_corners=False)
        return x + positions


class VisionTransformer(nn.Module):
    """A Vision Transformer that classifies images by the mean of its tokens."""

    def __init__(
        self, config: VisionTransformerConfig, n_classes: int = 1000, in_channels: int = 3
    ) -> None:
        """Build from torch's global random generator.

        Args:
            config: the sizes.
            n_classes: of the classifier; 0 leaves it out.
            in_channels: of the images.

        Raises:
            ValueError: for counts that cannot be.
        """
        super().__init__()
        if n_classes < 0 or in_channels < 1:
            raise ValueError(
                f"n_classes must be at least 0 and in_channels 1, got {n_classes} and {in_channels}"
            )
        self.config = config
        self.width = config.width
        self.stride = config.patch
        self.in_channels = in_channels
        self.patches = PatchEmbedding(config, in_channels)
        self.encoder = Encoder(config)
        self.inner_dropout = nn.Dropout(config.inner_dropout)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = linear_classifier(config.width, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """`(B, n_classes)` logits of images `(B, channels, H, W)`; see `embed`."""
        features = self.embed(images)
        return features if self.classifier is None else self.classifier(self.dropout(features))

    def embed(self, images: Tensor) -> Tensor:
        """`(B, width)`, the mean of the last tokens.

        Raises:
            ValueError: unless height and width are multiples of the patch.
        """
        x, grid = self._tokens(images)
        return self.encoder(x, grid).mean(1)

    def feature_map(self, images: Tensor) -> Tensor:
        """`(B, width, H / stride, W / stride)` for dense heads.

        The last tokens of a network without a TokenLearner or with TokenFusers. With a TokenLearner
        alone there is no map behind it: this is the one that it looks at, without the last norm.
        """
        x, grid = self._tokens(images)
        return self.encoder.feature_map(x, grid).mT.unflatten(2, grid)

    def attention(self, images: Tensor, layer: int = 0) -> Tensor:
        """`(B, tokens, H / stride, W / stride)`: where the TokenLearner looks for each token.

        Args:
            images: `(B, channels, H, W)`.
            layer: with TokenFusers there is a TokenLearner in every block from `learner_block` on;
                0 is the first.

        Raises:
            ValueError: if there is no such TokenLearner.
        """
        x, grid = self._tokens(images)
        return self.encoder.attention(x, grid, layer=layer)

    def _tokens(self, images: Tensor) -> tuple[Tensor, Grid]:
        check_images(images, self.in_channels)
        x = self.patches(images)
        return self.inner_dropout(x.flatten(2).mT), (x.shape[2], x.shape[3])


def linear_classifier(width: int, n_classes: int) -> nn.Linear | None:
    """A classifier with small weights; None for no classes."""
    if not n_classes:
        return None
    classifier = nn.Linear(width, n_classes)
    nn.init.normal_(classifier.weight, std=0.02)
    nn.init.zeros_(classifier.bias)
    return classifier


def multiply_accumulates(
    config: VisionTransformerConfig,
    grid: Grid | None = None,
    *,
    frames: int = 1,
    n_classes: int = 1000,
    in_channels: int = 3,
) -> int:
    """Multiply-accumulates of one image or clip, in all convolutions and products of matrices.

    The products inside the attention count too. Tools that count layers miss them: they find 16.8 G
    in ViT-B/16 at 224 pixels, where 17.5 G are.

    Args:
        config: the sizes.
        grid: patches in height and width; by default those of `config.image`.
        frames: tubelets of a clip; 1 for an image.
        n_classes: of the classifier.
        in_channels: of a patch: those of an image, times the frames of a tubelet.
    """
    height, width = grid or (config.image // config.patch,) * 2
    places, c, s = frames * height * width, config.width, config.tokens
    total = places * c * in_channels * config.patch**2 + c * n_classes
    perceptron = places * config.bottleneck * (c + s)
    weigh = perceptron if config.version == "1.1" else places * 9 * s * (c + 3 * s)
    for number in range(config.depth):
        reduced = s > 0 and number >= config.learner_block
        n = frames * s if reduced else places
        total += n * c * c * (4 + 2 * config.mlp_ratio) + 2 * n * n * c
        if reduced and (config.fuser or number == config.learner_block):
            total += weigh + places * s * c
        if reduced and config.fuser:
            total += frames * s * s * c + perceptron + places * s * c
    return total


def _learner(config: VisionTransformerConfig) -> TokenLearner:
    return TokenLearner(
        config.width,
        config.tokens,
        config.version,
        config.pool,
        config.bottleneck,
        config.inner_dropout,
    )


def _fuser(config: VisionTransformerConfig) -> TokenFuser:
    return TokenFuser(config.width, config.tokens, config.bottleneck, config.inner_dropout)


_SIZES: dict[str, VisionTransformerConfig] = {
    f"vit_{size}{patch}": VisionTransformerConfig(width, depth, heads, patch)
    for patch in (16, 32)
    for size, width, depth, heads in (
        ("ti", 192, 12, 3),
        ("s", 384, 12, 6),
        ("b", 768, 12, 12),
        ("l", 1024, 24, 16),
    )
} | {
    # For CPUs: a view of a robot, and the images of CIFAR.
    "vit_micro": VisionTransformerConfig(128, 8, 4, patch=8, image=96),
    "vit_cifar": VisionTransformerConfig(128, 8, 4, patch=4, image=32),
}

VISION_TRANSFORMERS: dict[str, VisionTransformerConfig] = (
    _SIZES
    | {f"{name}_tokenlearner": config.with_tokens() for name, config in _SIZES.items()}
    | {f"{name}_tokenfuser": config.with_tokens(fuser=True) for name, config in _SIZES.items()}
)
"""Configurations by name. A `tokenlearner` leaves 8 tokens half-way; a `tokenfuser` learns 8 tokens
in every block from there on, and keeps the map for dense outputs."""
