"""The text tower: hashed pieces to words, words through a transformer, their mean is the text."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perception.mural.tokenizer import TokenizerConfig, Tokens


@dataclass(frozen=True)
class TextConfig:
    """Shape of the text tower.

    Attributes:
        tokens: how texts become numbers.
        table_width: numbers of a row of the table; a linear layer takes them to `width`.
        width: of words and of the features.
        layers: of the transformer; 0 is a bag of words.
        inner: width of the transformer. Where it is less than `width`, the transformer is a branch
            beside the words, which is added to them; else it takes them over, as in BERT.
        heads: of attention.
        ratio: of the inner layer of its blocks to `width`.
        dropout: of words in training, whole ones; robust against words that were never seen.
    """

    tokens: TokenizerConfig = field(default_factory=TokenizerConfig)
    table_width: int = 256
    width: int = 256
    layers: int = 1
    inner: int = 64
    heads: int = 4
    ratio: int = 2
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Refuse shapes that cannot be."""
        least = min(self.table_width, self.width, self.inner, self.heads, self.ratio)
        if least < 1 or self.layers < 0:
            raise ValueError(f"widths, heads and ratio must be at least 1 and layers 0, got {self}")
        if self.inner > self.width or self.inner % self.heads:
            raise ValueError(
                f"inner must be at most width {self.width} and a multiple of heads {self.heads}, "
                f"got {self.inner}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")


class TextTower(nn.Module):
    """Texts to features; the same for every language."""

    def __init__(self, config: TextConfig) -> None:
        """Build from torch's global random generator."""
        super().__init__()
        self.config = config
        tokens, width = config.tokens, config.width
        self.table = nn.EmbeddingBag(
            tokens.buckets + 1, config.table_width, mode="mean", padding_idx=0
        )
        nn.init.normal_(self.table.weight, std=1.0)
        with torch.no_grad():
            self.table.weight[0].zero_()
        self.rise = nn.Linear(config.table_width, width) if config.table_width != width else None
        self.mixer = _Mixer(config) if config.layers else None
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tokens) -> Tensor:
        """Features `(B, width)` of texts."""
        table = self.table(tokens.pieces)
        if self.rise is not None:
            table = self.rise(table)
        known = tokens.words > 0
        if self.training and self.config.dropout:
            kept = torch.rand(known.shape, device=known.device) >= self.config.dropout
            kept[:, 0] |= ~(kept & known).any(1)  # a text keeps a word at least
            known = known & kept
        # Only words that are there are computed: half of a batch is padding.
        x = F.embedding(tokens.words[known] - 1, table)
        if self.mixer is not None:
            x = self.mixer(x, known)
        sums = x.new_zeros(len(known), x.shape[1])
        sums = sums.index_add(0, known.nonzero()[:, 0], x)
        return self.norm(sums / known.sum(1, keepdim=True))


class _Mixer(nn.Module):
    """What words say together: a transformer, as a narrow branch or over their whole width."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        inner, width = config.inner, config.width
        branch = inner < width
        self.down = nn.Linear(width, inner) if branch else None
        self.up = nn.Linear(inner, width) if branch else None
        self.places = nn.Parameter(0.02 * torch.randn(config.tokens.max_words, inner))
        self.blocks = nn.ModuleList(
            _Block(inner, config.heads, config.ratio) for _ in range(config.layers)
        )

    def forward(self, words: Tensor, known: Tensor) -> Tensor:
        """`(n, width)` of the n words that are `known` `(B, L)`, text by text."""
        x = words if self.down is None else self.down(words)
        x = x + self.places[known.nonzero()[:, 1]]
        for block in self.blocks:
            x = block(x, known)
        return x if self.up is None else words + self.up(x)


class _Block(nn.Module):
    """A transformer block, normalised before each part (Xiong et al. 2020)."""

    def __init__(self, width: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, ratio * width), nn.Linear(ratio * width, width)

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        """`(n, width)` of the n words that are `known` `(B, L)`, text by text."""
        mixed = x.new_zeros(*known.shape, 3 * x.shape[1])
        mixed[known] = self.mix(self.norm1(x))
        q, k, v = mixed.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=known[:, None, None, :])
        x = x + self.out(seen.transpose(1, 2).flatten(2)[known])
        return x + self.narrow(F.gelu(self.wide(self.norm2(x))))
