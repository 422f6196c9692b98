"""What objects will be seen from a viewpoint where one has not been, from those where one has.

A view is an array `(12, F)`: a row of features in [0, 1] for each heading of 30 degrees, row 0
looking along +y and the rest following clockwise, aligned with the world (Room-to-Room's
headings). The model asks, for each heading at the unseen viewpoint, the headings of the nearest
visited ones: an object seen to the left front of here is to the left behind over there. What it
cannot have seen it guesses from company: a sink beside a bath.

Angles are taken from the direction in which the unseen viewpoint lies, so the world may be turned
by a heading without changing the answer.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, gelu

HEADINGS = 12
_ANGLES = 2.0 * math.pi * np.arange(HEADINGS) / HEADINGS
_TARGET_GEOMETRY = 5
_SOURCE_GEOMETRY = 12

Array = NDArray[np.float32]


class Building(Protocol):
    """What the model may know: the graph, and the views from visited viewpoints."""

    @property
    def positions(self) -> NDArray[np.float64]:
        """`(N, 3)` of the viewpoints in metres, z up."""
        ...

    def neighbors(self, viewpoint: int) -> Sequence[int]:
        """Viewpoints one hop away."""
        ...

    def look(self, viewpoint: int) -> Array:
        """`(12, F)` view from a visited viewpoint."""
        ...


@dataclass(frozen=True)
class SymbolicViewsConfig:
    """Sizes of the network.

    Attributes:
        features: F.
        width: of tokens.
        heads: of the attention; divides `width`.
        sources: visited viewpoints that are asked, the nearest ones.
    """

    features: int
    width: int = 64
    heads: int = 4
    sources: int = 3

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit."""
        if min(self.features, self.width, self.heads, self.sources) < 1:
            raise ValueError(f"sizes must be positive, got {self}")
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, got {self}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SymbolicViewsConfig":
        """Read what `to_dict` gave.

        Raises:
            ValueError: for missing, unknown or impossible values.
        """
        known = {entry.name for entry in fields(cls)}
        if set(values) != known or not all(type(value) is int for value in values.values()):
            raise ValueError(f"config must hold the integers {sorted(known)}, got {dict(values)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """JSON values for `from_dict`."""
        return asdict(self)


@dataclass(frozen=True)
class Questions:
    """Unseen viewpoints and what is known around them; n in number, S sources each.

    Attributes:
        views: `(n, S, 12, F)` of the sources.
        sources: `(n, S, 12, 12)` geometry of each source's headings.
        known: `(n, S)` bool; False pads.
        targets: `(n, 12, 5)` geometry of the headings asked for.
    """

    views: Tensor
    sources: Tensor
    known: Tensor
    targets: Tensor


def ask(
    building: Building, visited: Sequence[int], unseen: Sequence[int], sources: int
) -> Questions:
    """Questions about unseen viewpoints.

    Args:
        building: looked at from visited viewpoints only.
        visited: viewpoints, the present one last; at least one.
        unseen: viewpoints asked about; at least one.
        sources: most visited viewpoints used for each.

    Raises:
        ValueError: if either is empty.
    """
    if not visited or not unseen:
        raise ValueError("ask needs at least one visited and one unseen viewpoint")
    known = list(dict.fromkeys(reversed(visited)))
    position = building.positions
    offset = position[list(unseen)][:, None] - position[known][None]
    distance = np.linalg.norm(offset, axis=2)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :sources]
    seen = np.stack([building.look(viewpoint) for viewpoint in known])
    offset = np.take_along_axis(offset, nearest[..., None], axis=1)
    distance = np.take_along_axis(distance, nearest, axis=1)
    heading = np.arctan2(offset[..., 0], offset[..., 1])
    ahead = heading[:, 0]
    pad = sources - nearest.shape[1]
    views, geometry = seen[nearest], _source_geometry(heading, distance, offset[..., 2])
    mask = np.ones(nearest.shape, bool)
    return Questions(
        torch.from_numpy(_padded(views.astype(np.float32), pad)),
        torch.from_numpy(_padded(geometry, pad)),
        torch.from_numpy(_padded(mask, pad)),
        torch.from_numpy(_target_geometry(building, unseen, ahead)),
    )


def join(questions: Sequence[Questions]) -> Questions:
    """One batch of several."""
    return Questions(
        *(torch.cat([getattr(q, entry.name) for q in questions]) for entry in fields(Questions))
    )


class SymbolicViews(nn.Module):
    """The model. See the module's text."""

    def __init__(self, config: SymbolicViewsConfig, frequency: Array | None = None) -> None:
        """Make the network.

        Args:
            config: its sizes.
            frequency: `(F,)` mean of each feature in training data; an untrained network says
                about that much of every heading.
        """
        super().__init__()
        self.config = config
        width = config.width
        self.source = nn.Linear(config.features + _SOURCE_GEOMETRY, width)
        self.target = nn.Linear(_TARGET_GEOMETRY, width)
        self.query = nn.Linear(width, width)
        self.keys = nn.Linear(width, width)
        self.values = nn.Linear(width, width)
        self.room = nn.Linear(width, width)
        self.mix = nn.Linear(2 * width, 2 * width)
        self.norm = nn.LayerNorm(2 * width)
        self.hidden = nn.Linear(2 * width, width)
        self.out = nn.Linear(width, config.features)
        nn.init.normal_(self.out.weight, std=0.01)
        if frequency is not None:
            rate = torch.from_numpy(np.clip(frequency, 1e-4, 1.0 - 1e-4).astype(np.float32))
            with torch.no_grad():
                self.out.bias.copy_(torch.logit(rate))

    def forward(self, questions: Questions) -> Tensor:
        """Answer.

        Returns:
            `(n, 12, F)` logits.
        """
        n, s = questions.known.shape
        width, heads = self.config.width, self.config.heads
        tokens = torch.cat([questions.views, questions.sources], dim=3)
        tokens = gelu(self.source(tokens)).view(n, s * HEADINGS, width)
        padded = ~questions.known.repeat_interleave(HEADINGS, 1)
        asked = gelu(self.target(questions.targets))
        query, keys, values = (
            part.view(n, -1, heads, width // heads).transpose(1, 2)
            for part in (self.query(asked), self.keys(tokens), self.values(tokens))
        )
        logits = query @ keys.transpose(2, 3) / math.sqrt(width // heads)
        weights = logits.masked_fill(padded[:, None, None], -torch.inf).softmax(3)
        found = (weights @ values).transpose(1, 2).reshape(n, HEADINGS, width)
        room = self.room(tokens.masked_fill(padded[..., None], -torch.inf).amax(1))
        mixed = torch.cat([asked + found, (asked + room[:, None])], dim=2)
        mixed = self.norm(mixed + gelu(self.mix(mixed)))
        return self.out(gelu(self.hidden(mixed)))

    def predict(self, building: Building, visited: Sequence[int], unseen: Sequence[int]) -> Array:
        """Expected views.

        Args:
            building: looked at from visited viewpoints only.
            visited: viewpoints, the present one last.
            unseen: viewpoints asked about.

        Returns:
            `(n, 12, F)` in (0, 1).
        """
        with torch.inference_mode():
            logits = self(ask(building, visited, unseen, self.config.sources))
        return torch.sigmoid(logits).numpy()


def views_loss(model: SymbolicViews, questions: Questions, views: Tensor) -> Tensor:
    """Mean binary cross-entropy in nats.

    Args:
        model: answers.
        questions: n of them.
        views: `(n, 12, F)` the truth, in [0, 1].
    """
    return binary_cross_entropy_with_logits(model(questions), views)


def _angles(difference: NDArray[np.float64]) -> NDArray[np.float64]:
    """`(..., 4)`: cosine and sine of an angle and of twice it."""
    return np.stack([f(m * difference) for m in (1, 2) for f in (np.cos, np.sin)], axis=-1)


def _source_geometry(
    heading: NDArray[np.float64], distance: NDArray[np.float64], climb: NDArray[np.float64]
) -> Array:
    """`(n, S, 12, 12)`: each heading against the own and the first direction, distance, climb."""
    n, s = heading.shape
    own = _angles(_ANGLES - heading[..., None])
    first = _angles(_ANGLES - heading[:, :1, None].repeat(s, 1))
    scalars = np.stack(
        [distance / 3.0, np.exp(-distance / 2.0), climb, np.ones_like(climb)], axis=-1
    )
    scalars = np.broadcast_to(scalars[:, :, None], (n, s, HEADINGS, 4))
    return np.concatenate([own, first, scalars], axis=3).astype(np.float32)


def _target_geometry(
    building: Building, unseen: Sequence[int], ahead: NDArray[np.float64]
) -> Array:
    """`(n, 12, 5)`: each heading against the first direction, and whether a way leads there."""
    ways = np.stack([_ways(building, viewpoint) for viewpoint in unseen])
    return np.concatenate([_angles(_ANGLES - ahead[:, None]), ways[..., None]], axis=2).astype(
        np.float32
    )


def _ways(building: Building, viewpoint: int) -> NDArray[np.float64]:
    """`(12,)` nearness of each heading to the nearest way that leaves a viewpoint, 1 if on it."""
    others = list(building.neighbors(viewpoint))
    if not others:
        return np.zeros(HEADINGS)
    hop = building.positions[others] - building.positions[viewpoint]
    off = np.arctan2(hop[:, 0], hop[:, 1])[:, None] - _ANGLES
    off = np.abs((off + math.pi) % (2.0 * math.pi) - math.pi)
    return np.clip(1.0 - off * HEADINGS / (2.0 * math.pi), 0.0, None).max(0)


def _padded(array: NDArray[Any], pad: int) -> NDArray[Any]:
    """With `pad` more zeros on the second axis."""
    return np.pad(array, [(0, 0), (0, pad)] + [(0, 0)] * (array.ndim - 2))
