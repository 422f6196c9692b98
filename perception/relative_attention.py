"""Self-attention over image grids with a learned bias for each displacement, and blocks of it.

Source: Dai et al. 2021, "CoAtNet: Marrying Convolution and Attention for All Data Sizes"
(arXiv 2106.04803), eq. 3 (right) and appendix A.1: `softmax(q k / sqrt(d) + w[i - j])`, where w
depends on the head and the displacement alone, not on the input.

| paper | here |
|---|---|
| `P`, one `(2H - 1, 2W - 1)` for each head | `RelativeBias.table`, `(heads, 2h - 1, 2w - 1)` |
| `P[i - i' + H, j - j' + W]`, 1-based | `table[:, i - i' + h - 1, j - j' + w - 1]`: query - key |

A table belongs to the grid it is learned on. Any other grid gets the table resized, when it comes:
nothing is built anew, and one set of weights serves all image sizes.
"""

from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perception.attention import attention
from perception.layers import StochasticDepth

Pooling = Literal["average", "max"]

LAYER_NORM_EPS = 1e-6

CACHED_GRIDS = 2
"""Grids whose bias a layer keeps; that of 32 x 32 cells takes 4 MB for each head."""


def resize_table(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """The table for another grid, by bilinear interpolation (appendix A.1).

    The tables meet at the outer edges of their last entries (`align_corners=False`). The
    displacement 0 stays in the middle, and one that spans some part of the image keeps its bias
    better than if the centres of the last entries met.

    Args:
        table: `(heads, 2h - 1, 2w - 1)`.
        grid: rows and columns of the new grid.

    Returns:
        `(heads, 2 * rows - 1, 2 * columns - 1)`; the table itself where that is its size.
    """
    size = (2 * grid[0] - 1, 2 * grid[1] - 1)
    if tuple(table.shape[1:]) == size:
        return table
    # In float32: the weights of the interpolation are too coarse in half precision.
    resized = F.interpolate(table[None].float(), size, mode="bilinear", align_corners=False)
    return resized[0].to(table.dtype)


def bias_matrix(table: Tensor) -> Tensor:
    """The bias of every query for every key.

    Args:
        table: `(heads, 2h - 1, 2w - 1)`.

    Returns:
        `(heads, h * w, h * w)`, queries by keys, cells row by row.
    """
    heads, rows, columns = table.shape
    height, width = (rows + 1) // 2, (columns + 1) // 2
    # What one query sees of the flipped table is a window of h x w entries, and the next query's
    # window lies one entry before. Windows are views: quicker forward and backward than indices.
    windows = table.flip(1, 2).unfold(1, height, 1).unfold(2, width, 1).flip(1, 2)
    return windows.reshape(heads, height * width, height * width)


class RelativeBias(nn.Module):
    """A table of biases for each head, and the matrix that it makes on a grid.

    In evaluation without gradients the matrix is kept for the next image of that grid. It is made
    anew when the table was changed or replaced; training and moving the module drop it.
    """

    def __init__(self, heads: int, grid: tuple[int, int]) -> None:
        """Build from torch's global random generator.

        Args:
            heads: of the attention.
            grid: rows and columns on which the table is learned.
        """
        super().__init__()
        self.table = nn.Parameter(torch.empty(heads, 2 * grid[0] - 1, 2 * grid[1] - 1))
        nn.init.trunc_normal_(self.table, std=0.02)
        # For a grid: the table's memory, held so that no other tensor gets its address; its
        # version then; the matrix.
        self._cache: dict[tuple[int, int], tuple[Tensor, int, Tensor]] = {}

    def forward(self, grid: tuple[int, int]) -> Tensor:
        """`(heads, N, N)` for any grid of N cells, queries by keys."""
        if not self._may_cache():
            return bias_matrix(resize_table(self.table, grid))
        version = 0 if self.table.is_inference() else self.table._version
        known = self._cache.pop(grid, None)
        if known is None or known[0].data_ptr() != self.table.data_ptr() or known[1] != version:
            matrix = bias_matrix(resize_table(self.table, grid)).detach()
            known = self.table.detach(), version, matrix
            while len(self._cache) >= CACHED_GRIDS:
                del self._cache[next(iter(self._cache))]
        self._cache[grid] = known
        return known[2]

    def _may_cache(self) -> bool:
        if self.training or torch.is_grad_enabled() or self.table.is_meta:
            return False
        # Otherwise an exported module would hold on to tensors that are none.
        return not torch.compiler.is_compiling()

    def train(self, mode: bool = True) -> Self:
        """As every module; training forgets what was kept."""
        if mode:
            self._cache.clear()
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self._cache.clear()
        return super()._apply(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        # Copies start without: what is kept belongs to this module's memory.
        return {**self.__dict__, "_cache": {}}

    def extra_repr(self) -> str:
        """For `repr`."""
        heads, rows, columns = self.table.shape
        return f"heads={heads}, grid=({(rows + 1) // 2}, {(columns + 1) // 2})"


class RelativeAttention(nn.Module):
    """Multi-head self-attention with a bias for each displacement, over all cells of a map."""

    def __init__(
        self, in_width: int, width: int, grid: tuple[int, int], head_width: int = 32
    ) -> None:
        """Build from torch's global random generator.

        Args:
            in_width: features of a cell.
            width: features of a cell of the result; queries, keys and values have as many.
            grid: rows and columns on which the bias is learned.
            head_width: features of one head.

        Raises:
            ValueError: if the width is no multiple of the head width.
        """
        super().__init__()
        if head_width < 1 or width % head_width:
            raise ValueError(
                f"width must be a multiple of the head width {head_width}, got {width}"
            )
        self.heads = width // head_width
        # Channels go by head, then query, key and value.
        self.qkv = nn.Linear(in_width, 3 * width)
        self.bias = RelativeBias(self.heads, grid)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, h, w, in_width)` to `(B, h, w, width)`."""
        height, width = x.shape[1:3]
        heads = self.qkv(x).flatten(1, 2).unflatten(-1, (self.heads, 3, -1))
        query, key, value = heads.permute(3, 0, 2, 1, 4).unbind(0)
        bias = self.bias((height, width)).to(query.dtype)
        mixed = attention(query, key, value, bias)
        return self.project(mixed.transpose(1, 2).flatten(2).unflatten(1, (height, width)))


class TransformerBlock(nn.Module):
    """Relative attention and an MLP, both normalised first (appendix A.1).

    `x <- Project(Pool(x)) + Attention(Pool(LayerNorm(x)))`, eq. 4; `x <- x + MLP(LayerNorm(x))`.
    Pool and Project are there where the size changes. Channels are last, as the layers like them.
    """

    def __init__(
        self,
        in_width: int,
        width: int,
        grid: tuple[int, int],
        *,
        stride: int = 1,
        head_width: int = 32,
        expansion: int = 4,
        pooling: Pooling = "average",
        drop: float = 0.0,
    ) -> None:
        """Build from torch's global random generator.

        Args:
            in_width: features of a cell.
            width: features of a cell of the result.
            grid: rows and columns of the result on which the biases are learned.
            stride: 1 or 2.
            head_width: features of an attention head.
            expansion: hidden features of the MLP, over the width.
            pooling: how a map is made smaller.
            drop: chance to leave out a residual branch.
        """
        super().__init__()
        self.pool = Pool(stride, pooling)
        self.shortcut = nn.Linear(in_width, width) if in_width != width else nn.Identity()
        self.attention_norm = nn.LayerNorm(in_width, eps=LAYER_NORM_EPS)
        self.attention = RelativeAttention(in_width, width, grid, head_width)
        self.mlp_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        hidden = expansion * width
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.drop = StochasticDepth(drop)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, h, w, in_width)` to `(B, ceil(h / stride), ceil(w / stride), width)`."""
        attended = self.attention(self._pooled(self.attention_norm(x)))
        x = self.shortcut(self._pooled(x)) + self.drop(attended)
        return x + self.drop(self.mlp(self.mlp_norm(x)))

    def _pooled(self, x: Tensor) -> Tensor:
        return self.pool(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Pool(nn.Module):
    """Windows of a map to their means or maxima; those at an odd edge are smaller.

    Convolutions of the same stride leave maps of the same size.
    """

    def __init__(self, stride: int, kind: Pooling = "average") -> None:
        """Args: side of the windows and step between them, 1 for none; what becomes of them."""
        super().__init__()
        self.stride = stride
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, h, w)` to `(B, C, ceil(h / stride), ceil(w / stride))`."""
        if self.stride == 1:
            return x
        pool = F.avg_pool2d if self.kind == "average" else F.max_pool2d
        return pool(x, self.stride, ceil_mode=True)

    def extra_repr(self) -> str:
        """For `repr`."""
        return f"stride={self.stride}, kind={self.kind!r}"
