"""What places will be like: views imagined from afar, and the room that a view is of."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from learning.atomic import write_file
from world_models.pathdreamer.batches import stack_guidance
from world_models.pathdreamer.guidance import PanoramaLike
from world_models.pathdreamer.memory import PointMemory
from world_models.pathdreamer.model import Pathdreamer
from world_models.pathdreamer.panoramas import Seen

Array = NDArray[np.float64]

ROOM_MODEL = Path(__file__).parent / "rooms.json"
"""Where the shipped room model lies."""

HALF_SHARE = 0.01
"""Share of a view that a class covers where its feature is 1/2."""
_FAR = 10.0
_BATCH = 16


def class_shares(
    classes: NDArray[np.integer] | NDArray[np.floating], n_classes: int | None = None
) -> Array:
    """How much of the solid angle each class covers.

    Args:
        classes: probabilities `(..., K, H, W)`, or with `n_classes` ids `(..., H, W)`.
        n_classes: K, for ids.

    Returns:
        `(..., K)`, of sum 1.
    """
    weights = _solid_angle(classes.shape[-2]) / classes.shape[-1]
    if n_classes is None:
        return np.einsum("...khw,h->...k", classes, weights, optimize=True)
    return np.stack([(classes == k).sum(axis=-1) @ weights for k in range(n_classes)], axis=-1)


def view_features(shares: Array, depth: Array) -> Array:
    """What the room model looks at.

    Args:
        shares: `(..., K)` of the classes.
        depth: `(...)` mean over the solid angle, metres.

    Returns:
        `(..., K + 1)`: `s / (s + HALF_SHARE)` of each share s, and the depth over 10 m.
    """
    return np.concatenate(
        [shares / (shares + HALF_SHARE), np.minimum(depth, _FAR)[..., None] / _FAR], axis=-1
    )


def mean_depth(depth: NDArray[np.floating]) -> Array:
    """Mean of `(..., H, W)` depths over the solid angle, up to 10 m each."""
    weights = _solid_angle(depth.shape[-2]) / depth.shape[-1]
    return np.einsum("...hw,h->...", np.minimum(depth, _FAR), weights, optimize=True)


@lru_cache(maxsize=8)
def _solid_angle(height: int) -> Array:
    """Share of the sphere that each row of a panorama covers, `(height,)`."""
    edges = np.sin(0.5 * math.pi - math.pi * np.arange(height + 1) / height)
    return (edges[:-1] - edges[1:]) / 2


@dataclass(frozen=True)
class Imagined:
    """Views imagined from S times N places.

    Attributes:
        shares: `(S, N, K)` expected shares of the classes.
        depth: `(S, N)` mean depth in metres.
        unseen: `(S, N)` share of pixels that no memory showed.
    """

    shares: Array
    depth: Array
    unseen: Array

    @property
    def features(self) -> Array:
        """`(S, N, K + 1)` for the room model."""
        return view_features(self.shares, self.depth)


def imagine(
    model: Pathdreamer,
    seen: Sequence[PanoramaLike],
    waves: Sequence[Sequence[NDArray[np.floating]]],
    samples: int = 4,
    seed: int = 0,
    temperature: float = 1.0,
    rgb: bool = False,
) -> Imagined:
    """Imagine one building a sample: what lies nearer first, then what lies behind it.

    Args:
        model: predicts.
        seen: what was really seen; they give the size too.
        waves: positions `(3,)` by how far away they are: those of a wave are predicted each for
            itself, and remembered before the next wave.
        samples: how many buildings.
        seed: of the latents.
        temperature: factor of the prior's standard deviation.
        rgb: whether to paint what is imagined; else it is remembered in the nearest colour that
            was seen, which takes half the time.

    Returns:
        Views in the order of the waves.

    Raises:
        ValueError: for no seen panorama, fewer than one sample, or a size that the model cannot
            predict.
    """
    if not seen:
        raise ValueError("imagining needs at least one panorama that was seen")
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    height, width = seen[0].depth.shape
    model.config.check_size(height, width)
    generator = torch.Generator().manual_seed(seed)
    memories = [PointMemory() for _ in range(samples)]
    for memory in memories:
        for panorama in seen:
            memory.add(panorama)
    tables = [np.zeros((samples, 0, model.config.n_classes + 2))]
    for number, wave in enumerate(waves):
        todo = [(memory, np.asarray(place, float)) for memory in memories for place in wave]
        views: list[_View] = []
        for first in range(0, len(todo), _BATCH):
            part = todo[first : first + _BATCH]
            views += _predict(model, part, (height, width), generator, temperature, rgb)
        if number + 1 < len(waves):
            for (memory, _), view in zip(todo, views, strict=True):
                memory.add(view.seen, view.hole)
        rows = np.array([view.numbers for view in views])
        tables.append(rows.reshape(samples, len(wave), model.config.n_classes + 2))
    table = np.concatenate(tables, axis=1)
    return Imagined(table[..., :-2], table[..., -2], table[..., -1])


@dataclass(frozen=True)
class _View:
    """An imagined view: what to remember of it, and its row of numbers."""

    seen: Seen
    hole: NDArray[np.bool_]
    numbers: Array


def _predict(
    model: Pathdreamer,
    places: Sequence[tuple[PointMemory, Array]],
    size: tuple[int, int],
    generator: torch.Generator,
    temperature: float,
    rgb: bool,
) -> list[_View]:
    """One batch of views, each from a memory."""
    guidance = [memory.guidance(place, size) for memory, place in places]
    predicted = model.predict(
        stack_guidance(guidance),
        generator,
        temperature=temperature,
        rgb=rgb,
        probabilities=True,
    )
    assert predicted.probabilities is not None
    views = []
    for k, (_, place) in enumerate(places):
        hole = ~guidance[k].valid
        colours = guidance[k].filled_rgb if predicted.rgb is None else predicted.rgb[k]
        shares = class_shares(predicted.probabilities[k])
        numbers = np.append(shares, [mean_depth(predicted.depth[k]), hole.mean()])
        seen = Seen(colours, predicted.semantic[k], predicted.depth[k], place)
        views.append(_View(seen, hole, numbers))
    return views


@dataclass(frozen=True)
class RoomModel:
    """Which room a view is of: multinomial logistic regression on `view_features`.

    Attributes:
        rooms: R names.
        weights: `(R, F)`.
        bias: `(R,)`.
        facts: how it was fitted.
    """

    rooms: tuple[str, ...]
    weights: Array
    bias: Array
    facts: dict[str, object]

    def probabilities(self, features: Array) -> Array:
        """`(..., F)` features to `(..., R)` probabilities.

        Raises:
            ValueError: for another number of features than it was fitted on.
        """
        if features.shape[-1] != self.weights.shape[1]:
            raise ValueError(
                f"the room model looks at {self.weights.shape[1]} features, got "
                f"{features.shape[-1]}: the world model has other classes"
            )
        logits = features @ self.weights.T + self.bias
        logits -= logits.max(axis=-1, keepdims=True)
        chance = np.exp(logits)
        return chance / chance.sum(axis=-1, keepdims=True)

    def write(self, path: Path) -> None:
        """Write it as JSON.

        Raises:
            OSError: if that cannot be done; an older file is untouched.
        """
        document = {
            "rooms": list(self.rooms),
            "weights": np.round(self.weights, 4).tolist(),
            "bias": np.round(self.bias, 4).tolist(),
            "facts": self.facts,
        }
        write_file(path, f"{json.dumps(document)}\n".encode())


def read_room_model(path: Path = ROOM_MODEL) -> RoomModel:
    """Read a room model.

    Raises:
        ValueError: for a file that holds none.
        OSError: where it cannot be read.
    """
    try:
        document = json.loads(path.read_bytes())
        rooms = tuple(str(name) for name in document["rooms"])
        weights, bias = np.array(document["weights"], float), np.array(document["bias"], float)
        facts = dict(document["facts"])
        good = weights.ndim == 2 and weights.shape[0] == len(rooms) and bias.shape == (len(rooms),)
        if not rooms or not good or not (np.isfinite(weights).all() and np.isfinite(bias).all()):
            raise ValueError("rooms, weights and bias do not agree, or are not finite")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no room model: {error!r}") from None
    return RoomModel(rooms, weights, bias, facts)


def fit_room_model(
    features: Array,
    labels: NDArray[np.integer],
    rooms: Sequence[str],
    facts: dict[str, object] | None = None,
    decay: float = 1e-3,
) -> RoomModel:
    """Fit a room model: the most probable weights under a normal prior, by L-BFGS.

    Args:
        features: `(N, F)`.
        labels: `(N,)` indices of rooms.
        rooms: names; those without a label keep low odds.
        facts: noted in the file.
        decay: factor of the squared weights, beside the mean log loss.

    Raises:
        ValueError: for arrays that do not agree, or labels outside the rooms.
    """
    labels = np.asarray(labels)
    if features.ndim != 2 or len(features) != len(labels) or not len(labels):
        raise ValueError(f"need (N, F) features and N labels, got {features.shape}, {labels.shape}")
    if labels.min() < 0 or labels.max() >= len(rooms):
        raise ValueError(f"labels must be 0 to {len(rooms) - 1}, got {labels.max()}")
    x, y = torch.from_numpy(np.asarray(features, np.float64)), torch.from_numpy(labels).long()
    weights = torch.zeros(len(rooms), x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(rooms), dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([weights, bias], max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        search.zero_grad()
        value = torch.nn.functional.cross_entropy(x @ weights.T + bias, y)
        value = value + decay * ((weights**2).sum() + 0.01 * (bias**2).sum())
        value.backward()
        return value

    search.step(loss)
    return RoomModel(
        tuple(rooms), weights.detach().numpy(), bias.detach().numpy(), dict(facts or {})
    )
