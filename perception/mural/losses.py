"""MURAL's losses: pairs are told from all other pairs of the batch, in both directions.

Source: Jain et al. 2021, "MURAL: Multimodal, Multitask Representations Across Languages", section
3: `L = w_it (L_i2t + L_t2i) + w_tt (L_s2t + L_t2s)`, each

    -1/N sum_i log( exp(x_i . y_i / tau) / sum_j exp(x_i . y_j / tau) )

The sigmoid loss asks of each pair by itself whether it belongs together. Source: Zhai et al. 2023,
"Sigmoid Loss for Language Image Pre-Training", algorithm 1.

| here | paper |
|---|---|
| `x`, `y` | embeddings of length 1 |
| `log_scale` | log(1 / tau); sigmoid: t' |
| `bias` | sigmoid: b |
| `TaskWeights.image_text`, `.text_text` | w_it, w_tt |
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

LARGEST_SCALE = 100.0
"""1 / tau is held below it, as ALIGN and CLIP do."""


@dataclass(frozen=True)
class TaskWeights:
    """What each task's loss counts.

    Attributes:
        image_text: w_it; 0 leaves the task out.
        text_text: w_tt; 0 leaves the task out.
    """

    image_text: float = 1.0
    text_text: float = 1.0

    def __post_init__(self) -> None:
        """Refuse weights that teach nothing."""
        if min(self.image_text, self.text_text) < 0 or not self.image_text + self.text_text > 0:
            raise ValueError(
                f"weights must be 0 or more and not both 0, got {self.image_text} and "
                f"{self.text_text}"
            )


def softmax_loss(x: Tensor, y: Tensor, log_scale: Tensor, same: Tensor | None = None) -> Tensor:
    """`L_x2y + L_y2x`, in nats.

    Args:
        x: `(N, D)`, rows of length 1.
        y: `(N, D)`, likewise; row i belongs to row i of x.
        log_scale: `()`, log(1 / tau).
        same: `(N, N)` bool: pairs off the diagonal that say the same and are no negatives (see
            `duplicates`); None takes all as negatives, as the paper does.
    """
    _check(x, y)
    logits = x @ y.T * log_scale.exp().clamp(max=LARGEST_SCALE)
    if same is not None:
        logits = logits.masked_fill(_off_diagonal(same), float("-inf"))
    labels = torch.arange(len(x), device=x.device)
    return F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)


def sigmoid_loss(
    x: Tensor, y: Tensor, log_scale: Tensor, bias: Tensor, same: Tensor | None = None
) -> Tensor:
    """`-1/N sum_ij log sigmoid(z_ij (s x_i . y_j + b))`, z 1 on the diagonal and -1 off it.

    Args:
        x: as of `softmax_loss`.
        y: likewise.
        log_scale: `()`, log(s).
        bias: `()`, b.
        same: likewise; such pairs are left out.
    """
    _check(x, y)
    logits = x @ y.T * log_scale.exp().clamp(max=LARGEST_SCALE) + bias
    sign = 2 * torch.eye(len(x), device=x.device, dtype=x.dtype) - 1
    terms = F.logsigmoid(sign * logits)
    if same is not None:
        terms = terms.masked_fill(_off_diagonal(same), 0.0)
    return -terms.sum() / len(x)


def duplicates(*keys: Sequence[Hashable]) -> Tensor | None:
    """Pairs of a batch that are no negatives of each other: equal in one of the keys.

    Two images with the same caption, or the same sentence twice in a batch: to push them apart
    would be wrong.

    Args:
        keys: of each side of the pairs, N values each, such as their texts.

    Returns:
        `(N, N)` bool, False on the diagonal; None where all keys differ.
    """
    found: Tensor | None = None
    for key in keys:
        if len(set(key)) == len(key):
            continue
        numbers: dict[Hashable, int] = {}
        index = torch.tensor([numbers.setdefault(value, len(numbers)) for value in key])
        equal = index[:, None] == index[None, :]
        found = equal if found is None else found | equal
    return None if found is None else _off_diagonal(found)


def _off_diagonal(same: Tensor) -> Tensor:
    return same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)


def _check(x: Tensor, y: Tensor) -> None:
    if x.ndim != 2 or x.shape != y.shape or not len(x):
        raise ValueError(
            f"embeddings must be two (N, D) of one shape, got {tuple(x.shape)} and "
            f"{tuple(y.shape)}; pair each row of one with a row of the other"
        )
