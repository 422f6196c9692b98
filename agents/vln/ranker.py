"""Ranks paths against an instruction, from the views along them.

A path is read hop by hop. At every node a recurrent state asks the instruction (attention over its
words) what is meant to happen next and which features of views that words speak of; a learned
table `grounding` says how much each word speaks of each feature. These features are looked for
(attention over the 12 headings) at the node and, in the direction of the hop, at the node before.
A path's weight is the sum of how well its hops fit, and of the last node's belief that the route
ends there, or leads on. Paths that share their beginnings share the work: they are a tree.

Without the table, a ranker of the same size did not learn in 250 steps which of four ends of a
star holds the object named; with it, it does (`tests/test_path_ranker.py`).

Departures from the compatibility model of the source article (Koh et al. 2021, "Pathdreamer: A
World Model for Indoor Navigation", section 5; a dual encoder of a whole instruction and a whole
path): the belief that a route ends is explicit, so that paths of different lengths and unfinished
ones can be compared, and one network serves ranking and walking.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from agents.vln.forest import STEP_FEATURES, TOKEN_FEATURES, Forest, Level
from agents.vln.places import HEADINGS


@dataclass(frozen=True)
class RankerConfig:
    """Sizes of the network.

    Attributes:
        features: F, features of one heading of a view.
        words: numbers of the vocabulary.
        width: of words and of the state; even.
        tokens: width of an embedded heading.
        heads: of the attention over headings; divides `tokens`.
        dropout: of words and of the state, while training.
        feature_dropout: share of view features hidden, the same ones all along a batch,
            while training.
    """

    features: int
    words: int
    width: int = 128
    tokens: int = 64
    heads: int = 4
    dropout: float = 0.3
    feature_dropout: float = 0.1

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit."""
        if min(self.features, self.words, self.width, self.tokens, self.heads) < 1:
            raise ValueError(f"sizes must be positive, got {self}")
        if self.width % 2 or self.tokens % self.heads:
            raise ValueError(f"width must be even and tokens a multiple of heads, got {self}")
        if not (0 <= self.dropout < 1 and 0 <= self.feature_dropout < 1):
            raise ValueError(f"dropouts must be in [0, 1), got {self}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RankerConfig":
        """Read what `dataclasses.asdict` gave.

        Raises:
            ValueError: for missing, unknown or impossible values.
        """
        known = {entry.name for entry in fields(cls)}
        if set(values) != known:
            raise ValueError(f"ranker config must hold {sorted(known)}, got {sorted(values)}")
        kinds: dict[str, Any] = {"dropout": float, "feature_dropout": float}
        try:
            return cls(**{name: kinds.get(name, int)(value) for name, value in values.items()})
        except TypeError as error:
            raise ValueError(f"ranker config holds no number: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """JSON values for `from_dict`."""
        return asdict(self)


@dataclass(frozen=True)
class Reading:
    """What nodes know.

    Attributes:
        state: `(n, width)`.
        context: `(n, width)` what the instruction says at that point.
    """

    state: Tensor
    context: Tensor


class TextEncoder(nn.Module):
    """Words to vectors that know their neighbours: an embedding and a bidirectional GRU."""

    def __init__(self, words: int, width: int, dropout: float) -> None:
        """Make the layers.

        Args:
            words: numbers of the vocabulary.
            width: of the result.
            dropout: of embedding and result.
        """
        super().__init__()
        self.embedding = nn.Embedding(words, width // 2, padding_idx=0)
        self.gru = nn.GRU(width // 2, width // 2, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, words: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode instructions.

        Args:
            words: `(T, L)`, padded with 0.
            lengths: `(T,)`, on the CPU.

        Returns:
            `(T, L, width)`, zero where padded, and `(T, width)`, both ends' last states.
        """
        packed = nn.utils.rnn.pack_padded_sequence(
            self.dropout(self.embedding(words)), lengths, batch_first=True, enforce_sorted=False
        )
        states, last = self.gru(packed)
        states, _ = nn.utils.rnn.pad_packed_sequence(
            states, batch_first=True, total_length=words.shape[1]
        )
        return self.dropout(states), torch.cat([last[0], last[1]], dim=1)


class HeadingAttention(nn.Module):
    """What is seen at a node and, in the same direction, from the node before, as far as asked for.

    Each head compares its own part of the tokens: sums of products cost a tenth of as many tiny
    matrix products here.
    """

    def __init__(self, width: int, tokens: int, heads: int) -> None:
        """Make the layers.

        Args:
            width: of states and of contexts.
            tokens: width of embedded headings.
            heads: of the attention.
        """
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(2 * width, 2 * tokens)
        self.geometry = nn.Linear(TOKEN_FEATURES, tokens)
        self.salience = nn.Linear(1, tokens)

    def forward(self, asked: Tensor, views: Tensor, geometry: Tensor, salience: Tensor) -> Tensor:
        """Look.

        Args:
            asked: `(n, 2 width)`.
            views: `(n, 2, 12, tokens)` embedded views: here, and from the node before.
            geometry: `(n, 2, 12, TOKEN_FEATURES)`.
            salience: `(n, 2, 12)` how much each heading shows of what words speak of.

        Returns:
            `(n, 2 tokens)` what was seen.
        """
        n, _, _, tokens = views.shape
        seen = gelu(views + self.geometry(geometry) + self.salience(salience[..., None]))
        seen = seen.view(n, 2, HEADINGS, self.heads, -1)
        query = self.query(asked).view(n, 2, 1, self.heads, -1)
        logits = (seen * query).sum(-1) / math.sqrt(tokens // self.heads)
        pooled = (seen * logits.softmax(2)[..., None]).sum(2)
        return pooled.reshape(n, 2 * tokens)


class PathRanker(nn.Module):
    """Weights of the leaves of decisions. See the module's text."""

    def __init__(self, config: RankerConfig) -> None:
        """Make the network.

        Args:
            config: its sizes.
        """
        super().__init__()
        self.config = config
        width, tokens = config.width, config.tokens
        self.text = TextEncoder(config.words, width, config.dropout)
        self.grounding = nn.Embedding(config.words, config.features)
        nn.init.normal_(self.grounding.weight, std=0.01)
        self.view = nn.Linear(config.features + 1, tokens)
        self.hidden = nn.Parameter(0.02 * torch.randn(tokens))
        self.start = nn.Linear(width, width)
        self.step = nn.Linear(STEP_FEATURES, tokens)
        self.ask = nn.Linear(2 * width + tokens, 2 * width)
        self.look = HeadingAttention(width, tokens, config.heads)
        self.mix = nn.Linear(3 * tokens + 4, width)
        self.cell = nn.GRUCell(2 * width, width)
        self.join = nn.Linear(2 * width, width)
        self.judge = nn.Linear(width + 4, 3)
        self.dropout = nn.Dropout(config.dropout)

    def name_features(self, spoken: Mapping[int, Sequence[int]]) -> None:
        """Tell the table which words are names of features, before training.

        Args:
            spoken: numbers of the words that name a feature, by its index.
        """
        with torch.no_grad():
            for feature, words in spoken.items():
                self.grounding.weight[list(words), feature] = 1.0

    def forward(self, forest: Forest) -> Tensor:
        """Weigh the leaves.

        Returns:
            `(M,)` unnormalised logarithms; compare leaves of one decision only.
        """
        words, last = self.text(forest.words, forest.lengths)
        told = _Told(words, self.grounding(forest.words), forest.words == 0)
        features = self._features(forest)
        views = self._embedded(features, forest.confidence[:, None, None])
        last = last[forest.text]
        reading = Reading(torch.tanh(self.start(last)), last)
        total = last.new_zeros(len(forest))
        totals, verdicts = [], []
        for level in forest.levels:
            reading, verdict = self._read(level, reading, features, views, told)
            total = total[level.parents] + verdict[:, 0]
            totals.append(total)
            verdicts.append(verdict)
        node_total, node_verdict = torch.cat(totals), torch.cat(verdicts)
        ends, leads_on = node_verdict[forest.leaf_nodes, 1], node_verdict[forest.leaf_nodes, 2]
        return node_total[forest.leaf_nodes] + torch.where(forest.leads_on, leads_on, ends)

    def log_probabilities(self, forest: Forest) -> Tensor:
        """`(M,)` logarithm of each leaf's probability within its decision."""
        return log_softmax_within(self(forest), forest.leaf_tree, len(forest))

    def _features(self, forest: Forest) -> Tensor:
        """`(V, 12, F)` views; zero where hidden, and with some features left out in training."""
        features = forest.views * (forest.confidence > 0)[:, None, None]
        if self.training and self.config.feature_dropout:
            kept = torch.rand(features.shape[2], device=features.device)
            features = features * (kept >= self.config.feature_dropout)
        return features

    def _embedded(self, features: Tensor, confidence: Tensor) -> Tensor:
        """`(V, 12, tokens)` embedded views; hidden ones are one learned vector."""
        known = self.view(torch.cat([features, confidence.expand(-1, HEADINGS, 1)], dim=2))
        return torch.where(confidence > 0, known, self.hidden)

    def _read(
        self, level: Level, before: Reading, features: Tensor, views: Tensor, told: "_Told"
    ) -> tuple[Reading, Tensor]:
        """Read the nodes of a level.

        Returns:
            What they know, and `(n, 3)` their verdicts: the hop fits, the route ends, it leads on.
        """
        state, context = before.state[level.parents], before.context[level.parents]
        hop = gelu(self.step(level.step))
        meant, named = self.ask(torch.cat([state, context, hop], dim=1)).chunk(2, dim=1)
        context = told.answer(level, meant, told.words)
        wanted = told.answer(level, named, told.grounding)
        salience = (features[level.views] * wanted[:, None, None]).sum(-1)
        matched = torch.cat([salience.amax(2), salience.mean(2)], dim=1)
        asked = torch.cat([state, context], dim=1)
        seen = self.look(asked, views[level.views], level.tokens, salience)
        mixed = gelu(self.mix(torch.cat([seen, hop, matched], dim=1)))
        state = self.cell(torch.cat([self.dropout(mixed), context], dim=1), state)
        joined = gelu(self.join(torch.cat([self.dropout(state), context], dim=1)))
        return Reading(state, context), self.judge(torch.cat([joined, matched], dim=1))


@dataclass(frozen=True)
class _Told:
    """The distinct instructions.

    Attributes:
        words: `(T, L, width)` encoded.
        grounding: `(T, L, F)` features that each word speaks of.
        padded: `(T, L)` bool.
    """

    words: Tensor
    grounding: Tensor
    padded: Tensor

    def answer(self, level: Level, query: Tensor, values: Tensor) -> Tensor:
        """`(n, ...)` mean of values of words, those most that fit the queries `(n, width)`."""
        size = int(level.slot.max()) + 1
        dense = query.new_zeros(len(self.words), size, query.shape[1])
        dense = dense.index_put((level.text, level.slot), query)
        logits = dense @ self.words.transpose(1, 2) / math.sqrt(query.shape[1])
        weights = logits.masked_fill(self.padded[:, None], -torch.inf).softmax(2)
        return (weights @ values)[level.text, level.slot]


def log_softmax_within(weights: Tensor, group: Tensor, groups: int) -> Tensor:
    """Logarithm of the softmax within groups.

    Args:
        weights: `(M,)`.
        group: `(M,)` in [0, groups); each has a member.
        groups: how many there are.

    Returns:
        `(M,)`.
    """
    top = weights.new_full((groups,), -torch.inf).scatter_reduce(
        0, group, weights.detach(), "amax", include_self=False
    )
    shifted = weights - top[group]
    return shifted - torch.log(weights.new_zeros(groups).index_add(0, group, shifted.exp()))[group]


def ranking_loss(ranker: PathRanker, forest: Forest) -> Tensor:
    """Listwise cross-entropy: minus the mean log-probability of the right leaves, in nats.

    Raises:
        ValueError: if a decision has no target.
    """
    if bool((forest.targets < 0).any()):
        raise ValueError("every decision needs a target to train on")
    return -ranker.log_probabilities(forest)[forest.targets].mean()
