"""TokenLearner and TokenFuser: a map of features to a handful of tokens, and back.

Source: Ryoo et al. 2021, "TokenLearner: What Can 8 Learned Tokens Do for Images and Videos?"
(arXiv 2106.11297), section 2, with the numbers of its release (google-research/scenic@4a38d475),
whose layer norms have an epsilon of 1e-6 and whose GELU is the approximation by tanh.

Each token is a weighted sum of the features of all places, and a small network says from the
features what each place weighs. The layers that follow then work on 8 tokens, not on hundreds.

Departures:

- Maps of any shape in both versions; the release takes rows of square ones only in version 1.0.
- No bias where a softmax over places or a layer norm over features takes it away again: it would
  never get a gradient.
- A larger epsilon in the last norm of the TokenFuser, see `MIX_EPS`.
"""

from typing import Literal

import torch
from torch import Tensor, nn

Version = Literal["1.0", "1.1"]
Pool = Literal["sum", "mean"]
Grid = tuple[int, int]

EPS = 1e-6
"""Of layer norms, as in the release."""

MIX_EPS = 1e-2
"""Of the norm behind the mixing of tokens in a TokenFuser, which starts from zeros.

The norm of zeros has a slope of 1 / sqrt(eps). With the 1e-6 of the release that is 1000, and the
few weights of the mixing take over the norm of the gradient by which all others are clipped: in a
new network of four blocks theirs is 64, that of all others together 1.7. With a slope of 10 theirs
is 0.6, and tokens that have learned something, with a variance near 1, hardly notice.
"""


class TokenLearner(nn.Module):
    """A map of features to tokens, each a weighted sum of the places.

    Version 1.0 weighs by four 3x3 convolutions and a sigmoid, version 1.1 by a perceptron that sees
    one place at a time and a softmax over the places.

    The weights of version 1.0 do not sum to 1. Its `pool="sum"`, that of the release, grows with
    the number of places: an image of twice the height and width has tokens four times as large,
    which upsets what was trained at another resolution. `pool="mean"` (the global average pooling
    of the paper) and version 1.1 do not mind.
    """

    def __init__(
        self,
        width: int,
        tokens: int = 8,
        version: Version = "1.1",
        pool: Pool = "sum",
        bottleneck: int = 64,
        dropout: float = 0.0,
    ) -> None:
        """Build from torch's global random generator.

        Args:
            width: features of a place, C.
            tokens: how many to learn, S.
            version: "1.0" or "1.1".
            pool: "sum" or "mean" over the places; of version 1.0 only.
            bottleneck: hidden units of version 1.1.
            dropout: chance of a hidden unit, and of the weight of a place before the softmax, to be
                left out in training; of version 1.1 only.

        Raises:
            ValueError: for a version or a pooling that there is not, or sizes below 1.
        """
        super().__init__()
        check_token_learner(tokens, version, pool, bottleneck)
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        self.tokens = tokens
        self.version = version
        self.pool = pool
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.weigh = (
            _convolutions(width, tokens)
            if version == "1.0"
            else _perceptron(width, bottleneck, tokens, dropout, bias=False)
        )

    def forward(self, x: Tensor, grid: Grid | None = None) -> Tensor:
        """The tokens of each map.

        Args:
            x: `(B, h, w, C)`, or `(B, N, C)` with its places row by row.
            grid: h and w of the latter, `h * w == N`.

        Returns:
            `(B, S, C)`. It is the features as they came that are summed, not the normalised ones.

        Raises:
            ValueError: if there is no grid to be known, or it does not fit.
        """
        x = as_map(x, grid)
        weights = self._weights(x).flatten(2)
        tokens = weights @ x.flatten(1, 2)
        return tokens / weights.shape[-1] if self.pool == "mean" else tokens

    def attention(self, x: Tensor, grid: Grid | None = None) -> Tensor:
        """What each place weighs in each token, `(B, S, h, w)`.

        In version 1.1 the places of a token sum to 1; in version 1.0 each lies between 0 and 1.
        """
        return self._weights(as_map(x, grid))

    def _weights(self, x: Tensor) -> Tensor:
        """`(B, h, w, C)` to `(B, S, h, w)`."""
        normal = self.norm(x)
        if self.version == "1.0":
            return torch.sigmoid(self.weigh(normal.permute(0, 3, 1, 2)))
        scores = self.weigh(normal).permute(0, 3, 1, 2)
        return scores.flatten(2).softmax(-1).view(scores.shape)


class TokenFuser(nn.Module):
    """Spreads tokens over the places of the map that they were learned from.

    The tokens are mixed with each other by a matrix that starts from zeros, so that with the
    residual that the caller adds, a new network passes its map on unchanged.
    """

    def __init__(
        self,
        width: int,
        tokens: int = 8,
        bottleneck: int = 64,
        dropout: float = 0.0,
        eps: float = MIX_EPS,
    ) -> None:
        """Build from torch's global random generator.

        Args:
            width: features of a place and of a token, C.
            tokens: S.
            bottleneck: hidden units of the perceptron that says how much of each token a place
                gets.
            dropout: chance of a hidden unit, of its outputs and of the result to be left out in
                training.
            eps: of the norm behind the mixing; see `MIX_EPS`.

        Raises:
            ValueError: for sizes below 1, or an epsilon that is not positive.
        """
        super().__init__()
        if min(width, tokens, bottleneck) < 1:
            raise ValueError(
                f"width, tokens and bottleneck must be at least 1, "
                f"got {width}, {tokens} and {bottleneck}"
            )
        if not eps > 0:
            raise ValueError(f"eps must be positive, got {eps}")
        self.norm_tokens = nn.LayerNorm(width, eps=EPS)
        self.mix = nn.Linear(tokens, tokens, bias=False)
        self.norm_mixed = nn.LayerNorm(width, eps=eps)
        self.norm_map = nn.LayerNorm(width, eps=EPS)
        self.weigh = _perceptron(width, bottleneck, tokens, dropout, bias=True)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.mix.weight)

    def forward(self, tokens: Tensor, original: Tensor) -> Tensor:
        """What the tokens have to say to each place; the caller adds it to the map.

        Args:
            tokens: `(B, S, C)`.
            original: the map before the TokenLearner, `(B, h, w, C)` or `(B, N, C)`.

        Returns:
            As `original`. (The release always flattens it.)

        Raises:
            ValueError: for other shapes.
        """
        n_tokens, width = self.mix.in_features, self.norm_map.normalized_shape[0]
        if tokens.ndim != 3 or tokens.shape[1:] != (n_tokens, width):
            raise ValueError(f"tokens must be (B, {n_tokens}, {width}), got {tuple(tokens.shape)}")
        if original.ndim not in (3, 4) or original.shape[-1] != width:
            raise ValueError(
                f"original must be (B, h, w, {width}) or (B, N, {width}), "
                f"got {tuple(original.shape)}"
            )
        mixed = self.norm_mixed(self.mix(self.norm_tokens(tokens).mT).mT)
        weights = torch.sigmoid(self.weigh(self.norm_map(original)))
        out = weights.flatten(1, -2) @ mixed
        return self.dropout(out).view(original.shape)


def as_map(x: Tensor, grid: Grid | None = None) -> Tensor:
    """`(B, h, w, C)` of a map or of the rows of one, `(B, N, C)` with a grid.

    Raises:
        ValueError: if the grid is missing or does not fit.
    """
    if x.ndim == 4 and grid in (None, tuple(x.shape[1:3])):
        return x
    if x.ndim == 3 and grid is not None and grid[0] * grid[1] == x.shape[1]:
        return x.unflatten(1, grid)
    raise ValueError(
        "x must be (B, h, w, C), or (B, N, C) with a grid (h, w) of N places; "
        f"got {tuple(x.shape)} with grid {grid}"
    )


def check_token_learner(tokens: int, version: str, pool: str, bottleneck: int) -> None:
    """Refuse what no TokenLearner can be.

    Raises:
        ValueError: says which of the values.
    """
    if tokens < 1 or bottleneck < 1:
        raise ValueError(f"tokens and bottleneck must be at least 1, got {tokens} and {bottleneck}")
    if version not in ("1.0", "1.1"):
        raise ValueError(f"version must be '1.0' or '1.1', got {version!r}")
    if pool not in ("sum", "mean"):
        raise ValueError(f"pool must be 'sum' or 'mean', got {pool!r}")
    if pool == "mean" and version == "1.1":
        raise ValueError("pool='mean' is of version 1.0; the softmax of version 1.1 is a mean")


def _convolutions(width: int, tokens: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in in (width, tokens, tokens, tokens):
        convolution = nn.Conv2d(n_in, tokens, 3, padding=1, bias=False)
        # Flax's default, which the release leaves: unit variance in, unit variance out.
        nn.init.normal_(convolution.weight, std=(9 * n_in) ** -0.5)
        layers += [convolution, nn.GELU("tanh")]
    return nn.Sequential(*layers[:-1])


def _perceptron(
    width: int, hidden: int, n_out: int, dropout: float, *, bias: bool
) -> nn.Sequential:
    """Biases start from 0 (the release draws them with a deviation of 1e-6)."""
    first, last = nn.Linear(width, hidden), nn.Linear(hidden, n_out, bias=bias)
    for layer in (first, last):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return nn.Sequential(first, nn.GELU("tanh"), nn.Dropout(dropout), last, nn.Dropout(dropout))
