"""Pictures of parts on a conveyor belt, sound or defective, with the pixels of the defect.

Every picture is laid out twice, with the defect and without, under the same light and the same
noise: the pixels of the defect are those of a part or thing that differ. A sound picture is laid
out the same way and shown without: so where a part lies, how it is turned and lit tells nothing
about its label.

Picture k is a function of (size, split, seed, k) alone. Splits share no scene, no colour and no
thing that lies on a part. What a picture shows is drawn first and its layout after that, again and
again until the defect is seen: so the labels do not depend on what is easy to see.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pybullet
from numpy.typing import NDArray

from envs.tabletop.bullet_scenes import BulletScenes
from envs.tabletop.clutter_bodies import N_COLORS, N_SHAPES, Bodies, Color, color, contrast, ids
from envs.tabletop.clutter_bodies import Split as ClutterSplit
from envs.tabletop.clutter_view import Table, View, draw_table, draw_view, photograph
from envs.tabletop.inspection_defects import DEFECTS, KNOWN, Faulty, Foreign, Mark, make_faulty
from envs.tabletop.inspection_parts import (
    PRODUCTS,
    Part,
    Points,
    Soup,
    pin_triangles,
    triangles,
)
from envs.tabletop.instance_pictures import check_pictures, picture_rng

Split = Literal["train", "tune", "test"]
SOUND = "sound"
CONDITIONS: tuple[str, ...] = (SOUND, *DEFECTS)
"""Sound, the defects of training, those of the test alone."""
TASKS: dict[str, tuple[str, ...]] = {
    "abnormal": ("normal", "abnormal"),
    **dict.fromkeys(KNOWN, ("no", "yes")),
}
"""Names of the tasks and of their classes, in order: the score, and a finding for each known
defect."""
SOURCE = (
    "Synthetic: parts on a conveyor belt rendered with PyBullet's TinyRenderer; parts and defects "
    "are meshes made by a program, things that lie on them are of pybullet_data (zlib licence)"
)
_STREAM = 24
"""Spawn key of these scenes: apart from all other pictures and all streams of `envs.seeding`."""
_SPLITS: dict[str, ClutterSplit] = {"train": "train", "tune": "validation", "test": "test"}
_ATTEMPTS = 200
_DISTANCE = (0.26, 0.33)
_ELEVATION = (math.radians(58), math.radians(84))
_PLACE = (0.40, 0.0)
_SOUP = Soup()
"""One of the process: its lists are never given back, see there."""
_DIFFERS = 12
"""Levels of 255 by which a pixel of the defect differs from the same picture without it."""


@dataclass(frozen=True)
class InspectionConfig:
    """Which scenes.

    Attributes:
        size: pixels of a side.
        split: `train` and `tune` have the known defects, `test` all of them.
        seed: of all pictures.
        abnormal: share of defective parts.
        pairs: pictures 2 j and 2 j + 1 are layout j without its defect and with it, so that nothing
            but the defect tells the two apart; `abnormal` is then without effect.
        min_share: least share of the picture that differs by the defect.
    """

    size: int = 128
    split: Split = "train"
    seed: int = 0
    abnormal: float = 0.5
    pairs: bool = False
    min_share: float = 0.0012

    def __post_init__(self) -> None:
        """Reject what cannot be drawn."""
        if self.split not in _SPLITS:
            raise ValueError(f"split must be one of {', '.join(_SPLITS)}, got {self.split!r}")
        check_pictures(self.size, _SPLITS[self.split], self.seed, self.min_share)
        if not 0.0 <= self.abnormal <= 1.0:
            raise ValueError(f"abnormal must be in [0, 1], got {self.abnormal}")

    @property
    def defects(self) -> tuple[str, ...]:
        """Those of the split."""
        return tuple(DEFECTS if self.split == "test" else KNOWN)


@dataclass(frozen=True)
class Plan:
    """What a picture shows: a product, the defect it is laid out for, and whether it has it."""

    product: str
    defect: str
    has_it: bool

    @property
    def condition(self) -> str:
        """One of `CONDITIONS`."""
        return self.defect if self.has_it else SOUND


@dataclass(frozen=True)
class InspectionPicture:
    """A picture and what is known of it.

    Attributes:
        image: `(size, size, 3)` uint8 RGB.
        condition: one of `CONDITIONS`.
        mask: `(size, size)` bool: pixels that the defect changed; none of a sound part.
    """

    image: NDArray[np.uint8]
    condition: str
    mask: NDArray[np.bool_]

    def labels(self) -> NDArray[np.int64]:
        """`(n,)` class of each of `TASKS`."""
        found = [int(self.condition != SOUND), *(int(self.condition == name) for name in KNOWN)]
        return np.array(found, np.int64)


def plan(config: InspectionConfig, k: int) -> Plan:
    """What picture k shows.

    Raises:
        ValueError: for a negative k.
    """
    rng = _rng(config, layout_of(config, k))
    product = list(PRODUCTS)[rng.integers(len(PRODUCTS))]
    defect = config.defects[rng.integers(len(config.defects))]
    has_it = bool(rng.random() < config.abnormal)
    return Plan(product, defect, k % 2 == 1 if config.pairs else has_it)


def layout_of(config: InspectionConfig, k: int) -> int:
    """Number of the layout of picture k."""
    return k // 2 if config.pairs else k


def _rng(config: InspectionConfig, *key: int) -> np.random.Generator:
    return picture_rng(_STREAM, _SPLITS[config.split], config.seed, *key)


@dataclass(frozen=True)
class _Layout:
    """One try at a scene: everything but whether the defect is there."""

    sound: Part
    faulty: Faulty
    yaw: float
    paint: Color
    pins: Color
    foreign: tuple[int, Color]
    table: Table
    view: View


Both = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]
"""A picture without its defect, with it, and the pixels that differ."""


class InspectionScenes(BulletScenes):
    """Draws the pictures, with a Bullet client of its own; close it, or use it in a `with`."""

    def __init__(self, config: InspectionConfig) -> None:
        """Connect; nothing is loaded."""
        self.config = config
        super().__init__()
        split = _SPLITS[config.split]
        self._last: tuple[int, Both] | None = None
        self._shapes, self._colors = ids(split, N_SHAPES), ids(split, N_COLORS)

    def draw(self, k: int) -> InspectionPicture:
        """Picture k.

        Args:
            k: its number, 0 or more.
        """
        sound, faulty, mask = self.draw_both(k)
        what = plan(self.config, k)
        if what.has_it:
            return InspectionPicture(faulty, what.condition, mask)
        return InspectionPicture(sound, SOUND, np.zeros_like(mask))

    def draw_both(self, k: int) -> Both:
        """Picture k without its defect, with it, and the pixels that differ."""
        number, what = layout_of(self.config, k), plan(self.config, k)
        if self._last is not None and self._last[0] == number:
            return self._last[1]
        for attempt in range(_ATTEMPTS):
            layout = self._layout(what, _rng(self.config, number, attempt))
            found = None if layout is None else self._try(layout, number, attempt)
            if found is not None:
                self._last = number, found
                return found
        raise RuntimeError(f"picture {k} could not be laid out in {_ATTEMPTS} attempts: {what}")

    def _layout(self, what: Plan, rng: np.random.Generator) -> _Layout | None:
        """Everything that is random; None where the defect finds no place."""
        stretch = rng.uniform(0.97, 1.03, 2).tolist()
        sound = Part(
            PRODUCTS[what.product],
            thickness=rng.uniform(0.009, 0.014),
            hole=rng.uniform(0.0070, 0.0080),
            pin=(rng.uniform(0.0060, 0.0070), rng.uniform(0.010, 0.016)),
            stretch=(stretch[0], stretch[1]),
        )
        faulty = make_faulty(sound, what.defect, rng)
        if faulty is None:
            return None
        table = draw_table(rng, (self._color(rng, True), self._color(rng, True)))
        paint = self._visible(rng, table.colors)
        pins = self._visible(rng, (paint,))
        foreign = int(rng.choice(self._shapes)), self._visible(rng, (paint, pins))
        yaw = rng.uniform(0, 2 * math.pi)
        return _Layout(sound, faulty, yaw, paint, pins, foreign, table, _view(rng))

    def _try(self, layout: _Layout, k: int, attempt: int) -> Both | None:
        """Both pictures and where they differ; None where the part or the defect is not seen."""
        rng = _rng(self.config, k, attempt, 1)
        faulty, things = self._photograph(layout, layout.faulty, rng)
        if _is_cut(things):
            return None
        rng = _rng(self.config, k, attempt, 1)
        sound, before = self._photograph(layout, Faulty(layout.sound), rng)
        # A shadow that differs is no defect.
        mask = (np.abs(faulty.astype(np.int16) - sound).max(2) > _DIFFERS) & (things | before)
        if _is_cut(before) or mask.mean() < self.config.min_share:
            return None
        return sound, faulty, mask

    def _photograph(
        self, layout: _Layout, shown: Faulty, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """A picture, and where the part and what lies on it are."""
        client = self._client
        client.resetSimulation()
        bodies = Bodies(client)
        bodies.table()
        # Shadows are blots under boxes: a chip does not move them.
        whole = triangles(replace(shown.part, chip=None)) @ _turned(layout.yaw) + (*_PLACE, 0.0)
        shadow = whole.min((0, 1)), whole.max((0, 1))
        self._add(triangles(shown.part), layout.paint, layout.yaw)
        self._add(pin_triangles(shown.part), layout.pins, layout.yaw)
        if isinstance(shown.on_it, Mark):
            self._add(shown.on_it.triangles, _marked(layout.paint, shown.on_it), layout.yaw)
        if isinstance(shown.on_it, Foreign):
            _lay(bodies, shown.on_it, layout)
        size = self.config.size
        image, seen = photograph(client, layout.view, layout.table, size, rng, (), [shadow])
        return image, np.asarray((seen > 0).reshape(size, 2, size, 2).any((1, 3)), bool)

    def _add(self, found: Points, paint: Color, yaw: float) -> None:
        """Add triangles of the part's frame."""
        if not len(found):
            return
        mesh = _SOUP.of(found @ _turned(yaw) + (*_PLACE, 0.0))
        shape = self._client.createVisualShape(pybullet.GEOM_MESH, rgbaColor=(*paint, 1.0), **mesh)
        self._client.createMultiBody(0.0, -1, shape)

    def _color(self, rng: np.random.Generator, pale: bool = False) -> Color:
        return color(int(rng.choice(self._colors)), pale=pale)

    def _visible(self, rng: np.random.Generator, others: Sequence[Color]) -> Color:
        """One that stands out from others."""
        tried = [self._color(rng) for _ in range(8)]
        apart = [min(contrast(paint, other) for other in others) for paint in tried]
        enough = [paint for paint, far in zip(tried, apart, strict=True) if far > 0.35]
        return enough[0] if enough else tried[int(np.argmax(apart))]


def _view(rng: np.random.Generator) -> View:
    """A camera above the belt; light, tint and noise are those of the other tables."""
    view = draw_view(rng, _DISTANCE)
    target = (_PLACE[0] + rng.uniform(-0.01, 0.01), _PLACE[1] + rng.uniform(-0.01, 0.01), 0.01)
    azimuth, length = rng.uniform(0, 2 * math.pi), rng.uniform(*_DISTANCE)
    elevation = rng.uniform(*_ELEVATION)
    reach = math.cos(elevation)
    eye = (
        target[0] + length * reach * math.cos(azimuth),
        target[1] + length * reach * math.sin(azimuth),
        target[2] + length * math.sin(elevation),
    )
    return replace(view, eye=eye, target=target)


def _turned(yaw: float) -> Points:
    """What rows of points are multiplied by to be turned about z."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    return np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])


def _is_cut(things: NDArray[np.bool_]) -> bool:
    """Whether something reaches the edge of the picture."""
    return bool(np.concatenate([things[0], things[-1], things[:, 0], things[:, -1]]).any())


def _marked(paint: Color, mark: Mark) -> Color:
    """Colour of a stain or a scratch."""
    red, green, blue = (
        min(1.0, 0.7 * mark.shade * own + 0.3 * mark.shade * other)
        for own, other in zip(paint, mark.tint, strict=True)
    )
    return red, green, blue


def _lay(bodies: Bodies, thing: Foreign, layout: _Layout) -> None:
    """Lay a thing on the part."""
    number, paint = layout.foreign
    body = bodies.shape(number, thing.size, paint)
    place = (*thing.xy, 0.0) @ _turned(layout.yaw) + (*_PLACE, 0.0)
    bodies.put(body, place[:2].tolist(), thing.yaw, layout.sound.thickness + 0.0005)


__all__ = [
    "CONDITIONS",
    "DEFECTS",
    "KNOWN",
    "SOUND",
    "SOURCE",
    "TASKS",
    "InspectionConfig",
    "InspectionPicture",
    "InspectionScenes",
    "Plan",
    "Split",
    "plan",
]
