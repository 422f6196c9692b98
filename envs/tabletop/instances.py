"""Pictures with instance masks, rendered for detectors and mask heads.

`InstanceScenes`: two to eight things on a painted table, several of one kind, leaning on each other
and hiding each other in part. `InsertionViews`: the scene of BlockInsertion as its own camera sees
it, with depth and the true pose of the block.

Picture k is a function of the configuration and k alone. Splits share no scene, no shape without a
name and no colour, but for the colours that meshes and the environment have of their own.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.tabletop.bullet_scenes import BulletScenes
from envs.tabletop.clutter_bodies import (
    KINDS,
    N_COLORS,
    N_SHAPES,
    SOURCE,
    Bodies,
    Color,
    Split,
    color,
    contrast,
    ids,
)
from envs.tabletop.clutter_view import Table, draw_table, draw_view, photograph
from envs.tabletop.insertion_views import InsertionConfig, InsertionView, InsertionViews
from envs.tabletop.instance_pictures import (
    InstancePicture,
    check_pictures,
    halved_ids,
    instances,
    picture_rng,
)
from envs.tabletop.push import BLOCK
from envs.tabletop.sorting_experts import HALF as CUBE

CLASSES: tuple[str, ...] = (*KINDS, "block", "slot", "small cube", "shape")
"""The ten kinds, the block and the slot of BlockInsertion, the cubes of BlockSorting, and shapes
without a name."""
THINGS = (2, 8)
_STREAM = 21
"""Spawn key of these scenes: apart from clutter's 20 and all streams of `envs.seeding`."""
_ATTEMPTS = 100
_CENTER = np.array([0.40, 0.0])
_DISTANCE = (0.55, 0.85)
"""Of the camera, metres."""


@dataclass(frozen=True)
class InstanceConfig:
    """Which scenes of the cluttered table.

    Attributes:
        size: pixels of a side.
        split: `train`, `validation` or `test`.
        seed: of all pictures.
        things: least and most things laid on the table.
        min_share: least share of the picture that an instance fills. What shows less of itself is
            no instance, and its pixels belong to none.
    """

    size: int = 128
    split: Split = "train"
    seed: int = 0
    things: tuple[int, int] = THINGS
    min_share: float = 0.001

    def __post_init__(self) -> None:
        """Reject what cannot be drawn."""
        check_pictures(self.size, self.split, self.seed, self.min_share)
        if not 1 <= self.things[0] <= self.things[1] <= 12:
            raise ValueError(f"things must be a range within 1 to 12, got {self.things}")


class InstanceScenes(BulletScenes):
    """Draws the cluttered table, with a Bullet client of its own; close it, or use a `with`."""

    def __init__(self, config: InstanceConfig) -> None:
        """Connect; nothing is loaded."""
        self.config = config
        super().__init__()
        self._shapes = ids(config.split, N_SHAPES)
        self._colors = ids(config.split, N_COLORS)

    def draw(self, k: int) -> InstancePicture:
        """Picture k, 0 or more: at least two instances, unless only one thing was asked for."""
        config = self.config
        rng = picture_rng(_STREAM, config.split, config.seed, k)
        n = int(rng.integers(config.things[0], config.things[1] + 1))
        kinds = rng.integers(len(CLASSES), size=n)
        # A second slot would fill the table.
        slots = np.flatnonzero(kinds == CLASSES.index("slot"))
        kinds[slots[1:]] = CLASSES.index("block")
        for attempt in range(_ATTEMPTS):
            again = picture_rng(_STREAM, config.split, config.seed, k, attempt)
            picture = self._try(kinds, again)
            if picture is not None:
                return picture
        names = ", ".join(CLASSES[kind] for kind in kinds)
        raise RuntimeError(f"picture {k} could not be laid out in {_ATTEMPTS} attempts: {names}")

    def _try(self, kinds: NDArray[np.int64], rng: np.random.Generator) -> InstancePicture | None:
        """One layout; None where it does not come to rest or too little of it is seen."""
        pile = _Pile(self._client, rng, self._shapes, self._colors)
        # The slot first: it stands still.
        for kind in sorted(kinds.tolist(), key=lambda kind: CLASSES[kind] != "slot"):
            pile.add(kind)
        if not pile.bodies.settle(pile.free, 360):
            return None
        image, seen = photograph(
            self._client,
            draw_view(rng, _DISTANCE),
            pile.table,
            self.config.size,
            rng,
            (),
            [pile.bodies.box(body) for body in pile.classes],
        )
        numbers, classes = instances(halved_ids(seen), pile.classes, self.config.min_share)
        if len(classes) < min(2, len(kinds)):
            return None
        return InstancePicture(image, numbers, classes)


class _Pile:
    """Things put on a table one after the other, beside, against and onto each other."""

    def __init__(
        self,
        client: Any,
        rng: np.random.Generator,
        shapes: NDArray[np.int64],
        colors: NDArray[np.int64],
    ) -> None:
        client.resetSimulation()
        client.setGravity(0, 0, -9.81)
        client.setPhysicsEngineParameter(deterministicOverlappingPairs=1)
        # Twice Bullet's own step: it halves what the fall costs, and nothing sinks in by 0.5 mm.
        client.setTimeStep(1 / 120)
        self.rng = rng
        self._shapes, self._colors = shapes, colors
        self.bodies = Bodies(client)
        self.bodies.table()
        self.table: Table = draw_table(rng, (self._color(pale=True), self._color(pale=True)))
        self.classes: dict[int, int] = {}
        """Class of each body."""
        self.free: list[int] = []
        """Bodies that physics moves."""
        self._reach = rng.uniform(0.06, 0.15)
        """Of the heap, metres to each side: heaps are dense or loose."""

    def add(self, kind: int) -> None:
        """Put one more thing where there is room, or on top of what is there."""
        rng, bodies, name = self.rng, self.bodies, CLASSES[kind]
        paint = self._visible_color()
        if name == "slot":
            xy = (_CENTER + rng.uniform(-0.06, 0.06, 2)).tolist()
            heading = rng.uniform(0, 2 * np.pi)
            body = bodies.fixture(rng.uniform(0.0005, 0.003), paint, xy, heading)
            self.classes[body] = kind
            return
        if name == "block":
            body = bodies.block(BLOCK, paint)
        elif name == "small cube":
            body = bodies.block((CUBE, CUBE, CUBE), paint)
        elif name == "shape":
            body = bodies.shape(int(rng.choice(self._shapes)), rng.uniform(0.03, 0.07), paint)
        else:
            body = bodies.kind(name, rng.uniform(0.7, 1.15), paint)
        self.classes[body] = kind
        self.free.append(body)
        self._put(body)

    def _put(self, body: int) -> None:
        """The first free place of twelve; without one the last, above what is there."""
        low = 0.0
        for _ in range(12):
            x, y = _CENTER + self.rng.uniform(-self._reach, self._reach, 2)
            self.bodies.put(body, (x, y), self.rng.uniform(0, 2 * np.pi))
            low = self._top_below(body)
            if low == 0.0:
                return
        x, y = np.mean(self.bodies.box(body), axis=0)[:2]
        self.bodies.put(body, (x, y), 0.0, low + 0.002)

    def _top_below(self, body: int) -> float:
        """Height of the highest thing in a body's way, metres; 0 for none."""
        low, high = self.bodies.box(body)
        top = 0.0
        for other in self.classes:
            if other == body:
                continue
            theirs = self.bodies.box(other)
            if (theirs[0] < high).all() and (low < theirs[1]).all():
                top = max(top, float(theirs[1][2]))
        return top

    def _color(self, *, pale: bool = False) -> Color:
        return color(int(self.rng.choice(self._colors)), pale=pale)

    def _visible_color(self) -> Color:
        """A colour that stands out from the table's: the first of eight that does, or the best."""
        paints = [self._color() for _ in range(8)]
        distances = [min(contrast(paint, other) for other in self.table.colors) for paint in paints]
        return next(
            (paint for paint, far in zip(paints, distances, strict=True) if far > 0.35),
            paints[int(np.argmax(distances))],
        )


__all__ = [
    "CLASSES",
    "SOURCE",
    "THINGS",
    "InsertionConfig",
    "InsertionView",
    "InsertionViews",
    "InstanceConfig",
    "InstancePicture",
    "InstanceScenes",
]
