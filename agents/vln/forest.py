"""Decisions of a navigator as one batch of arrays, level by level of their trees."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.vln.branches import Decision, Ints
from agents.vln.places import HEADINGS, Array, Place

TOKEN_FEATURES = 6
"""Geometry of a heading: cosine and sine of its angle from the direction of travel and of twice
that angle, whether a way leads there, and how steeply."""
STEP_FEATURES = 8
"""Geometry of a hop: cosine and sine of the turn, length, climb, whether it is the start, whether
one was here before, hops so far, ways that leave."""

_ANGLES = 2.0 * math.pi * np.arange(HEADINGS) / HEADINGS
_BIN = 2.0 * math.pi / HEADINGS
# What follows from the graph of a place is worked out once, and forgotten with the place.
_WAYS: WeakKeyDictionary[Place, dict[int, Array]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Level:
    """Nodes of one depth, of all trees; n in number, those of a tree beside one another.

    Attributes:
        parents: `(n,)` index in the level before.
        text: `(n,)` instruction of the decision, as in `Forest.words`.
        slot: `(n,)` place among the nodes of the same instruction.
        views: `(n, 2)` rows of `Forest.views`: at the node, and at the node before.
        tokens: `(n, 2, 12, TOKEN_FEATURES)` of these views.
        step: `(n, STEP_FEATURES)`.
    """

    parents: Tensor
    text: Tensor
    slot: Tensor
    views: Tensor
    tokens: Tensor
    step: Tensor


@dataclass(frozen=True)
class Forest:
    """A batch of decisions.

    Attributes:
        words: `(T, L)` distinct instructions, padded with 0.
        lengths: `(T,)` words of each.
        text: `(B,)` instruction of each decision.
        views: `(V, 12, F)`; row 0 stands for all that is hidden.
        confidence: `(V,)`.
        levels: by depth.
        leaf_nodes: `(M,)` node of each leaf, counted through all levels.
        leads_on: `(M,)` bool.
        leaf_tree: `(M,)` decision of each leaf; ascending.
        targets: `(B,)` right leaf of each decision among all M, -1 where not known.
    """

    words: Tensor
    lengths: Tensor
    text: Tensor
    views: Tensor
    confidence: Tensor
    levels: tuple[Level, ...]
    leaf_nodes: Tensor
    leads_on: Tensor
    leaf_tree: Tensor
    targets: Tensor

    def __len__(self) -> int:
        """Number of decisions."""
        return len(self.text)


def plant(decisions: Sequence[Decision]) -> Forest:
    """Arrays of decisions.

    Raises:
        ValueError: if there are none.
    """
    if not decisions:
        raise ValueError("plant needs at least one decision")
    words, lengths, text = _texts(decisions)
    nodes = _Nodes.of(decisions)
    table = _ViewTable(decisions[0].place.look(decisions[0].history[0]).shape[1])
    here = np.concatenate([table.rows(d, v) for d, v in zip(decisions, nodes.split(), strict=True)])
    views = np.stack([here, np.where(nodes.parents < 0, 0, here[nodes.parents])], axis=1)
    tokens, step = _geometry(decisions, nodes)
    order = np.argsort(nodes.depths, kind="stable")
    place_of = np.empty_like(order)
    place_of[order] = np.arange(len(order))
    bounds = np.searchsorted(nodes.depths[order], np.arange(nodes.depths.max() + 2))
    levels = []
    for depth, (low, high) in enumerate(itertools.pairwise(bounds)):
        chosen = order[low:high]
        tree = nodes.trees[chosen]
        parents = place_of[nodes.parents[chosen]] - bounds[depth - 1] if depth else tree
        own = text.numpy()[tree]
        levels.append(
            Level(
                torch.from_numpy(parents),
                torch.from_numpy(own),
                torch.from_numpy(_place_within(own)),
                torch.from_numpy(views[chosen]),
                torch.from_numpy(tokens[chosen]),
                torch.from_numpy(step[chosen]),
            )
        )
    leaves = [len(d.branches.leaf_nodes) for d in decisions]
    starts = np.cumsum([0, *leaves[:-1]])
    first_leaf = nodes.starts + np.array([len(d.history) - 1 for d in decisions])
    leaf_nodes = np.concatenate(
        [d.branches.leaf_nodes + f for d, f in zip(decisions, first_leaf, strict=True)]
    )
    targets = [
        s + d.target if d.target >= 0 else -1 for s, d in zip(starts, decisions, strict=True)
    ]
    seen, confidence = table.arrays()
    return Forest(
        words,
        lengths,
        text,
        torch.from_numpy(seen),
        torch.from_numpy(confidence),
        tuple(levels),
        torch.from_numpy(place_of[leaf_nodes]),
        torch.from_numpy(np.concatenate([d.branches.leads_on for d in decisions])),
        torch.from_numpy(np.repeat(np.arange(len(decisions)), leaves)),
        torch.tensor(targets),
    )


def _place_within(group: Ints) -> Ints:
    """`(n,)` how many of the same group come before each."""
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    place = np.empty_like(order)
    place[order] = np.arange(len(group)) - np.searchsorted(ordered, ordered)
    return place


def _texts(decisions: Sequence[Decision]) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct instructions, padded, their lengths, and the instruction of each decision."""
    rows: dict[bytes, int] = {}
    text = [rows.setdefault(decision.words.tobytes(), len(rows)) for decision in decisions]
    distinct = [np.frombuffer(row, np.int64) for row in rows]
    lengths = [len(row) for row in distinct]
    words = np.zeros((len(distinct), max(lengths)), np.int64)
    for line, row in zip(words, distinct, strict=True):
        line[: len(row)] = row
    return torch.from_numpy(words), torch.tensor(lengths), torch.tensor(text, dtype=torch.int64)


class _ViewTable:
    """Every view that a batch needs, once; row 0 is hidden."""

    def __init__(self, features: int) -> None:
        self._views = [np.zeros((HEADINGS, features), np.float32)]
        self._confidence = [0.0]
        self._rows: dict[tuple[int, int], int] = {}

    def rows(self, decision: Decision, viewpoints: Ints) -> Ints:
        """Row of each node's viewpoint."""
        visited = set(decision.history)
        own: dict[int, int] = {}
        for viewpoint in dict.fromkeys(viewpoints.tolist()):
            if viewpoint in visited:
                key = (id(decision.place), viewpoint)
                if key not in self._rows:
                    self._rows[key] = self._add(decision.place.look(viewpoint), 1.0)
                own[viewpoint] = self._rows[key]
            elif decision.views.get(viewpoint, (None, 0.0))[1] > 0:
                own[viewpoint] = self._add(*decision.views[viewpoint])
            else:
                own[viewpoint] = 0
        return np.array([own[viewpoint] for viewpoint in viewpoints.tolist()])

    def arrays(self) -> tuple[Array, Array]:
        """All views and their confidence."""
        return np.stack(self._views), np.array(self._confidence, np.float32)

    def _add(self, view: Array, confidence: float) -> int:
        self._views.append(np.asarray(view, np.float32))
        self._confidence.append(confidence)
        return len(self._views) - 1


@dataclass(frozen=True)
class _Nodes:
    """All nodes, tree after tree, each tree by depth: first its trunk, then its branches."""

    viewpoints: Ints
    parents: Ints
    depths: Ints
    trees: Ints
    starts: Ints

    @classmethod
    def of(cls, decisions: Sequence[Decision]) -> "_Nodes":
        viewpoints: list[Sequence[int] | Ints] = []
        parents: list[Sequence[int] | Ints] = []
        depths: list[Sequence[int] | Ints] = []
        sizes: list[int] = []
        for decision in decisions:
            start, trunk, tree = sum(sizes), len(decision.history), decision.branches
            viewpoints += [decision.history, tree.viewpoints[1:]]
            parents += [
                [-1, *range(start, start + trunk - 1)],
                tree.parents[1:] + start + trunk - 1,
            ]
            depths += [range(trunk), tree.depths[1:] + trunk - 1]
            sizes.append(trunk + len(tree.viewpoints) - 1)
        return cls(
            np.concatenate([np.asarray(part, np.intp) for part in viewpoints]),
            np.concatenate([np.asarray(part, np.intp) for part in parents]),
            np.concatenate([np.asarray(part, np.intp) for part in depths]),
            np.repeat(np.arange(len(sizes)), sizes),
            np.cumsum([0, *sizes[:-1]]),
        )

    def split(self) -> list[Ints]:
        """Viewpoints of each tree."""
        return np.split(self.viewpoints, self.starts[1:])


def _geometry(decisions: Sequence[Decision], nodes: _Nodes) -> tuple[Array, Array]:
    """`tokens` and `step` of `Level`, for all nodes: they follow from the graph alone."""
    per_tree = list(zip(decisions, nodes.split(), strict=True))
    positions = np.concatenate([d.place.positions[v] for d, v in per_tree])
    ways = np.concatenate([_ways(d.place, v) for d, v in per_tree])
    before = np.concatenate([_before(d, v) for d, v in per_tree])
    root = nodes.parents < 0
    parents = np.where(root, np.arange(len(root)), nodes.parents)
    hop = positions - positions[parents]
    headings = np.arctan2(hop[:, 0], hop[:, 1])
    for node in np.flatnonzero(
        np.hypot(hop[:, 0], hop[:, 1]) < 1e-6
    ):  # the start; ways straight up
        own = decisions[nodes.trees[node]].heading
        headings[node] = own if root[node] else headings[parents[node]]
    turn = headings - headings[parents]
    step = np.stack(
        [
            np.cos(turn),
            np.sin(turn),
            np.linalg.norm(hop, axis=1) / 3.0,
            hop[:, 2],
            root,
            before,
            nodes.depths / 8.0,
            ways[:, :, 2].sum(1) / 8.0,
        ],
        axis=1,
    )
    ahead = _ANGLES - headings[:, None]
    angles = np.stack([f(m * ahead) for m in (1, 2) for f in (np.cos, np.sin)], axis=2)
    both = np.stack([ways, ways[parents]], axis=1)[..., :2]
    tokens = np.concatenate([np.repeat(angles[:, None], 2, axis=1), both], axis=3)
    return tokens.astype(np.float32), step.astype(np.float32)


def _before(decision: Decision, viewpoints: Ints) -> NDArray[np.bool_]:
    """Whether each node of a tree stands where the history has been already."""
    trunk = len(decision.history)
    seen = [viewpoint in decision.history[:k] for k, viewpoint in enumerate(decision.history)]
    return np.concatenate([np.array(seen, bool), np.isin(viewpoints[trunk:], decision.history)])


def _ways(place: Place, viewpoints: Ints) -> Array:
    """Ways that leave viewpoints, by heading: nearness of the best, its climb, and their number."""
    known = _WAYS.setdefault(place, {})
    for viewpoint in set(viewpoints.tolist()) - known.keys():
        known[viewpoint] = _ways_of(place, viewpoint)
    return np.stack([known[viewpoint] for viewpoint in viewpoints.tolist()])


def _ways_of(place: Place, viewpoint: int) -> Array:
    """`(12, 3)` for one viewpoint.

    Between two rows a way belongs to both in part, so that nothing jumps where it crosses a border.
    """
    others = list(place.neighbors(viewpoint))
    if not others:
        return np.zeros((HEADINGS, 3), np.float32)
    hop = place.positions[others] - place.positions[viewpoint]
    off = np.arctan2(hop[:, 0], hop[:, 1])[:, None] - _ANGLES
    off = np.abs((off + math.pi) % (2.0 * math.pi) - math.pi)
    share = np.clip(1.0 - off / _BIN, 0.0, None)
    climb = hop[:, 2] / np.maximum(np.linalg.norm(hop, axis=1), 1e-6)
    return np.stack([share.max(0), share.T @ climb, share.sum(0)], axis=1).astype(np.float32)
