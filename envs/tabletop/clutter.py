"""Pictures of a cluttered table with labels, rendered for classifiers.

Three tasks share the pictures. `object`: which of ten kinds the one main thing is, or that there is
none; shapes without a name may lie beside it. `inserted`: whether the block of BlockInsertion is in
its slot, where a slot is on the table. `zone`: which of the two zones of BlockSorting holds both
blocks of its colour, where zones are; they are nearer to each other here than in the environment,
so that a small picture shows them.

Picture k is a function of (size, split, seed, k) alone. Splits share no scene, no distractor and no
colour. What a picture shows is drawn first and its layout after that, again and again until what
matters is seen: so the labels do not depend on what is easy to see.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.tabletop.bullet_scenes import BulletScenes
from envs.tabletop.clutter_bodies import KINDS, N_COLORS, N_SHAPES, SOURCE, SPLITS, Split, ids
from envs.tabletop.clutter_layout import MISSES, NO_LABEL, TASKS, Layout, Plan
from envs.tabletop.clutter_view import draw_view, photograph

DISTANCES: dict[str, tuple[float, float]] = {
    "open": (0.42, 0.62),
    "slot": (0.52, 0.68),
    "zones": (0.74, 0.88),
}
"""Least and greatest distance of the camera in metres, for each way to lay the table."""
SETUPS = tuple(DISTANCES)
_STREAM = 20
"""Spawn key of these scenes: apart from all streams of `envs.seeding`."""
_ATTEMPTS = 200


@dataclass(frozen=True)
class ClutterConfig:
    """Which scenes.

    Attributes:
        size: pixels of a side.
        split: `train`, `validation` or `test`.
        seed: of all pictures.
        clutter: share of scenes with distractors.
        max_distractors: most of them in a scene.
        min_share: least share of the picture that the main thing fills.
    """

    size: int = 96
    split: Split = "train"
    seed: int = 0
    clutter: float = 0.5
    max_distractors: int = 3
    min_share: float = 0.008

    def __post_init__(self) -> None:
        """Reject what cannot be drawn."""
        if not 16 <= self.size <= 512:
            raise ValueError(f"size must be 16 to 512 pixels, got {self.size}")
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {self.split!r}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if not 0.0 <= self.clutter <= 1.0:
            raise ValueError(f"clutter must be in [0, 1], got {self.clutter}")
        if not 0 <= self.max_distractors <= 6:
            raise ValueError(f"max_distractors must be 0 to 6, got {self.max_distractors}")
        if not 0.0 < self.min_share < 0.1:
            raise ValueError(f"min_share must be in (0, 0.1), got {self.min_share}")


def rng_of(config: ClutterConfig, *key: int) -> np.random.Generator:
    """A generator of a split's own; `key` is the picture, and the attempt at it."""
    spawn = (_STREAM, SPLITS.index(config.split), *key)
    return np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=spawn))


def plan(config: ClutterConfig, k: int) -> Plan:
    """What picture k shows.

    Raises:
        ValueError: for a negative k.
    """
    if k < 0:
        raise ValueError(f"a picture's number must not be negative, got {k}")
    rng = rng_of(config, k)
    kinds = (None, *KINDS)
    setup = SETUPS[rng.choice(3, p=(0.4, 0.3, 0.3))]
    kind = kinds[rng.integers(len(kinds))]
    inside = bool(rng.random() < 0.5)
    miss = None if inside else MISSES[rng.integers(len(MISSES))]
    left, right = (bool(x) for x in rng.random(2) < 0.5)
    crowded = bool(rng.random() < config.clutter) and config.max_distractors > 0
    n = int(rng.integers(1, config.max_distractors + 1)) if crowded else 0
    return Plan(setup, kind, miss, (left, right), n)


class ClutterScenes(BulletScenes):
    """Draws the pictures, with a Bullet client of its own; close it, or use it in a `with`."""

    def __init__(self, config: ClutterConfig) -> None:
        """Connect; nothing is loaded."""
        self.config = config
        super().__init__()
        self._shapes = ids(config.split, N_SHAPES)
        self._colors = ids(config.split, N_COLORS)

    def draw(self, k: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Picture k.

        Args:
            k: its number, 0 or more.

        Returns:
            `(size, size, 3)` uint8 RGB and `(3,)` int64 labels in the order of `TASKS`.
        """
        what = plan(self.config, k)
        for attempt in range(_ATTEMPTS):
            image = self._try(what, rng_of(self.config, k, attempt))
            if image is not None:
                return image, np.array(what.labels(), np.int64)
        raise RuntimeError(f"picture {k} could not be laid out in {_ATTEMPTS} attempts: {what}")

    def layout(self, what: Plan, rng: np.random.Generator) -> Layout:
        """A scene to be built in this client, with this split's shapes and colours."""
        return Layout(self._client, what, rng, self._shapes, self._colors)

    def _try(self, what: Plan, rng: np.random.Generator) -> NDArray[np.uint8] | None:
        """One layout; None where it is not as planned or not well seen."""
        layout = self.layout(what, rng)
        if (
            not layout.build()
            or not layout.bodies.settle(layout.free)
            or not layout.is_as_planned()
        ):
            return None
        image, seen = photograph(
            self._client,
            draw_view(rng, DISTANCES[what.setup]),
            layout.table,
            self.config.size,
            rng,
            layout.strips,
            [layout.bodies.box(body) for body in (*layout.free, *layout.fixed)],
        )
        return image if layout.is_seen(seen, self.config.min_share) else None


__all__ = [
    "DISTANCES",
    "NO_LABEL",
    "SETUPS",
    "SOURCE",
    "TASKS",
    "ClutterConfig",
    "ClutterScenes",
    "plan",
    "rng_of",
]
