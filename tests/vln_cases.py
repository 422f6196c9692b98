"""Toy buildings for the tests of navigation: stars and corridors whose objects can be named."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agents.vln.branches import Decision, branches, decisions
from agents.vln.places import GraphPlace
from agents.vln.ranker import PathRanker, RankerConfig
from agents.vln.training import Route
from agents.vln.vocabulary import Vocabulary

CLASSES = ("bed", "sofa", "sink", "plant", "table")
VOCABULARY = Vocabulary(("go", "to", "the", *CLASSES), buckets=4)


def tiny_ranker(features: int = len(CLASSES), seed: int = 0) -> PathRanker:
    """A small network, without dropout, in evaluation mode."""
    import torch

    torch.manual_seed(seed)
    config = RankerConfig(
        features, len(VOCABULARY), width=32, tokens=32, dropout=0.0, feature_dropout=0.0
    )
    return PathRanker(config).eval()


def grid_place(
    rng: np.random.Generator, rows: int = 3, columns: int = 3, place: type[GraphPlace] = GraphPlace
) -> GraphPlace:
    """Viewpoints on a jittered grid, two metres apart, with random views."""
    index = np.arange(rows * columns).reshape(rows, columns)
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    positions = np.stack([2.0 * x.ravel(), 2.0 * y.ravel(), np.zeros(index.size)], axis=1)
    positions += rng.uniform(-0.4, 0.4, positions.shape)
    neighbors = [
        [int(b) for b in index.ravel() if np.abs(np.subtract(*where(index, a, b))).sum() == 1]
        for a in index.ravel()
    ]
    views = rng.random((index.size, 12, len(CLASSES))).astype(np.float32)
    return place(positions, neighbors, views)


def where(index: NDArray[np.int_], a: int, b: int) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Row and column of two viewpoints."""
    return np.argwhere(index == a)[0], np.argwhere(index == b)[0]


def star(
    rng: np.random.Generator, arms: int = 4
) -> tuple[NDArray[np.float64], list[list[int]], NDArray[np.float32], list[int]]:
    """A middle (viewpoint 0) and ends around it, each with an object of another class.

    The object is seen from the end only, in a random direction.

    Returns:
        Positions, neighbours, views, and the class at each end.
    """
    angles = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(arms) / arms
    ends = np.stack([np.sin(angles), np.cos(angles), np.zeros(arms)], axis=1) * 2.5
    positions = np.concatenate([np.zeros((1, 3)), ends])
    neighbors = [list(range(1, arms + 1)), *([0] for _ in range(arms))]
    classes = rng.permutation(len(CLASSES))[:arms].tolist()
    views = np.zeros((arms + 1, 12, len(CLASSES)), np.float32)
    for end, kind in enumerate(classes, start=1):
        views[end, rng.integers(12), kind] = 1.0
    return positions, neighbors, views, classes


def star_route(rng: np.random.Generator, *kinds: type[GraphPlace]) -> Route:
    """A star, and the way to one of its objects."""
    positions, neighbors, views, classes = star(rng)
    goal = int(rng.integers(len(classes)))
    lengths = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    lengths[1:, 1:] = 5.0 * (1 - np.eye(len(classes)))
    words = VOCABULARY.encode(f"go to the {CLASSES[classes[goal]]}")
    places = tuple(kind(positions, neighbors, views) for kind in kinds)
    return Route(places, lengths, words, float(rng.uniform(0, 6)), (0, goal + 1))


def decision(
    place: GraphPlace,
    history: Sequence[int] = (0,),
    horizon: int = 2,
    heading: float = 0.3,
    text: str = "go to the bed",
    target: int = -1,
) -> Decision:
    """A choice at the end of a history."""
    onward = branches(place, history[-1], horizon)
    words = VOCABULARY.encode(text)
    return decisions(place, words, history, heading, onward, target)[0]
