"""A ranker that knows routes in one language reads another, by pairs of sentences alone.

MURAL's idea (Jain et al. 2021, "MURAL: Multimodal, Multitask Representations Across Languages",
section 3) for routes in place of images: the text encoder is shared, and beside the ranking loss on
routes described in the first language it learns, on translation pairs, which sentence of the second
language says what a sentence of the first says. No route is ever shown with the second language.

The paper compares sentences as wholes, and a ranker asks for words: here words are compared too.
How well a sentence fits another is the mean over its words of the cosine with the most alike word
of the other (Khattab & Zaharia 2020, "ColBERT", equation 3). From that alignment the table
`grounding` of the second language is learned as well: a word speaks of what the words speak of that
it stands for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from agents.vln.ranker import PathRanker
from perception.mural.losses import LARGEST_SCALE, softmax_loss

_SHARPNESS = 8.0
"""Inverse temperature of the softmax over words that a word stands for."""

Words = NDArray[np.int64]


@dataclass(frozen=True)
class BitextConfig:
    """How translation pairs are learned.

    Attributes:
        batch_size: pairs a step, at least 2: each is told from all others.
        weight: of the losses of sentences and words, beside the ranking loss.
        grounding: of the loss of the table.
        scale: inverse temperature at the start; it is learned.
    """

    batch_size: int = 20
    weight: float = 1.0
    grounding: float = 1.0
    scale: float = 10.0

    def __post_init__(self) -> None:
        """Refuse what cannot be learned."""
        if self.batch_size < 2:
            raise ValueError(f"batch_size must be at least 2, got {self.batch_size}")
        if self.weight < 0 or self.grounding < 0 or self.scale <= 0:
            raise ValueError(
                f"weights must not be negative and the scale must be positive, got {self}"
            )


@dataclass(frozen=True)
class Translations:
    """What is said in two languages.

    Attributes:
        first: for each thing said, its wordings as numbers of words, in the language of the routes.
        second: in the other.
    """

    first: tuple[tuple[Words, ...], ...]
    second: tuple[tuple[Words, ...], ...]

    def __post_init__(self) -> None:
        """Refuse what is no translation."""
        if len(self.first) != len(self.second) or len(self.first) < 2:
            raise ValueError(
                f"translations must be two lists as long, of two at least, got {len(self.first)} "
                f"and {len(self.second)}"
            )
        if not all(self.first) or not all(self.second):
            raise ValueError("everything said needs a wording in both languages")

    def __len__(self) -> int:
        """Number of things said."""
        return len(self.first)

    def draw(self, size: int, rng: np.random.Generator) -> "Pairs":
        """Distinct things said, at most so many, each in one wording of each language."""
        chosen = rng.choice(len(self), min(size, len(self)), replace=False)
        sides = []
        for side in (self.first, self.second):
            wordings = [side[k] for k in chosen]
            sides.append([options[rng.integers(len(options))] for options in wordings])
        return Pairs(*_padded(sides[0]), *_padded(sides[1]))


@dataclass(frozen=True)
class Pairs:
    """A batch: row i of both sides says the same.

    Attributes:
        first: `(n, L)` numbers of words, padded with 0.
        first_lengths: `(n,)`.
        second: `(n, M)`.
        second_lengths: `(n,)`.
    """

    first: Tensor
    first_lengths: Tensor
    second: Tensor
    second_lengths: Tensor


class BitextLoss(nn.Module):
    """Loss of a batch of pairs; it has the learned temperature."""

    def __init__(self, config: BitextConfig) -> None:
        """Make it.

        Args:
            config: weights and the first temperature.
        """
        super().__init__()
        self.config = config
        self.log_scale = nn.Parameter(torch.tensor(float(np.log(config.scale))))

    def forward(self, ranker: PathRanker, pairs: Pairs) -> Tensor:
        """Weighted sum of the losses of sentences, of words, and of the table.

        Args:
            ranker: its text encoder and its table learn.
            pairs: of at least two things said.
        """
        states, last = ranker.text(pairs.first, pairs.first_lengths)
        others, other_last = ranker.text(pairs.second, pairs.second_lengths)
        said, also = pairs.first > 0, pairs.second > 0
        alike = similarities(states, others, said, also)
        first, second = word_scores(alike, said, also)
        words = _told_apart(first, self.log_scale) + _told_apart(second, self.log_scale)
        sentences = softmax_loss(
            normalize(last, dim=1), normalize(other_last, dim=1), self.log_scale
        )
        loss = self.config.weight * (words / 4 + sentences / 2)
        if self.config.grounding:
            own = torch.arange(len(alike))
            meant = stand_for(alike[own, own], also) @ ranker.grounding(pairs.first).detach()
            wrong = (ranker.grounding(pairs.second) - meant).square().sum(2)
            loss = loss + self.config.grounding * (wrong * also).sum() / also.sum()
        return loss


def similarities(states: Tensor, others: Tensor, said: Tensor, also: Tensor) -> Tensor:
    """Cosines of all words of all sentences.

    Args:
        states: `(n, L, width)`.
        others: `(m, M, width)`.
        said: `(n, L)` bool, where there is a word.
        also: `(m, M)` bool.

    Returns:
        `(n, m, L, M)`; minus infinity where there is no word.
    """
    (n, longest, width), (m, other_longest, _) = states.shape, others.shape
    flat = normalize(states, dim=2).reshape(-1, width)
    found = flat @ normalize(others, dim=2).reshape(-1, width).T
    found = found.view(n, longest, m, other_longest).transpose(1, 2)
    there = said[:, None, :, None] & also[None, :, None, :]
    return found.masked_fill(~there, -torch.inf)


def word_scores(alike: Tensor, said: Tensor, also: Tensor) -> tuple[Tensor, Tensor]:
    """How well sentences fit each other, asked by the words of either side.

    Args:
        alike: `(n, m, L, M)` of `similarities`.
        said: `(n, L)` bool.
        also: `(m, M)` bool.

    Returns:
        Two `(n, m)`: means over the words of the first side, and of the second.
    """
    first = alike.amax(3).masked_fill(~said[:, None], 0.0).sum(2) / said.sum(1)[:, None]
    second = alike.amax(2).masked_fill(~also[None], 0.0).sum(2) / also.sum(1)[None]
    return first, second


@torch.no_grad()
def stand_for(alike: Tensor, also: Tensor) -> Tensor:
    """Which words of the first side each word of the second stands for.

    Args:
        alike: `(n, L, M)` cosines of the words of each pair.
        also: `(n, M)` bool, where the second side has a word.

    Returns:
        `(n, M, L)` shares that sum to one; zero where there is no word.
    """
    shares = (_SHARPNESS * alike).transpose(1, 2).softmax(2)
    return torch.where(also[:, :, None], shares, 0.0)


def _told_apart(scores: Tensor, log_scale: Tensor) -> Tensor:
    """As `softmax_loss`, of the scores `(n, n)` themselves."""
    logits = scores * log_scale.exp().clamp(max=LARGEST_SCALE)
    labels = torch.arange(len(scores))
    return cross_entropy(logits, labels) + cross_entropy(logits.T, labels)


def _padded(words: Sequence[Words]) -> tuple[Tensor, Tensor]:
    lengths = [len(one) for one in words]
    padded = torch.zeros(len(words), max(lengths), dtype=torch.long)
    for row, one in zip(padded, words, strict=True):
        row[: len(one)] = torch.from_numpy(one)
    return padded, torch.tensor(lengths)
