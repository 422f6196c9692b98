"""Small synthetic sets to distil."""

from pathlib import Path

import numpy as np

from learning.demonstrations import Demonstrations
from learning.image_set import ImageSet, write_image_set

TASKS = {"bar": ("upright", "level", "slanted")}
SOURCE = "synthetic: bars at three angles in noise"


def bars(n: int, seed: int = 0, size: int = 8, sort: bool = True) -> ImageSet:
    """Images of a bar at one of three angles, sorted by class as public files often are."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 3, n)
    if sort:
        classes = np.sort(classes)
    images = rng.uniform(0, 90, (n, size, size, 1))
    for image, kind in zip(images, classes, strict=True):
        at = rng.integers(2, size - 2)
        line = np.arange(1, size - 1)
        rows, columns = {
            0: (line, np.full_like(line, at)),
            1: (np.full_like(line, at), line),
            2: (line, np.clip(line + at - size // 2, 0, size - 1)),
        }[int(kind)]
        image[rows, columns] += 120
    labels = classes.astype(np.int64)[:, None]
    return ImageSet(images.astype(np.uint8), labels, TASKS, SOURCE, {"seed": seed})


def write_set(folder: Path, data: ImageSet) -> Path:
    """The set as a folder."""
    shape = data.images.shape[1:]
    chunks = [(data.images, data.labels)]
    write_image_set(folder, chunks, len(data), shape, data.tasks, data.source, data.facts)
    return folder


def waves(episodes: int = 12, seed: int = 0) -> Demonstrations:
    """Episodes whose two actions are smooth functions of three numbers; a fourth never changes."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(20, 40, episodes)
    state = rng.normal(size=(int(lengths.sum()), 4))
    state[:, 3] = 2.0
    actions = np.stack((np.tanh(state[:, 0] - state[:, 1]), 0.1 * np.sin(state[:, 2])), 1)
    return Demonstrations(
        observations={"state": state.astype(np.float32)},
        actions=actions.astype(np.float32),
        rewards=np.ones(len(state), np.float32),
        episode_offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        action_low=-np.ones(2, np.float32),
        action_high=np.ones(2, np.float32),
        meta={"env": "none/Waves-v0"},
    )
