"""Poses of blocks, painted zones and slots from one colour and depth picture, by plane geometry.

An object is found by its colour and by the height of its top face above the table, or where a
network labelled an instance of its class (`robots.object_search`). Its pose is fitted to the border
of that face, between pixels that see the face and neighbours that do not:

- Both are carried along their rays to the plane of the face, whose height is known better than any
  depth camera measures it. The outline must pass between the two.
- If the neighbour sees the object's own side, its measured point lies on the outline exactly.
- If the neighbour sees something higher than the face (the effector, a hand), or nothing, the face
  may go on behind it: the pixel must lie inside the outline, and that is all.

So a face that is partly hidden is fitted by the sides that are seen, without bias. What was fitted
with too few of them, or where the picture shows something else, is not reported. NumPy only:
nothing here knows of ROS or of a simulator.

World frame: z up, the table's surface at z = 0. Camera frames are optical: z forward, x right, y
down. Metres and radians.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from robots.instance_labels import InstanceLabels
from robots.object_search import (
    DEFAULT,
    EstimationConfig,
    Found,
    Frame,
    Search,
    chromatic_distance,
)
from robots.pinhole import project, unproject
from robots.scene_models import (
    FACING,
    GREEN,
    INSERTION,
    MODELS,
    ONE_BLOCK,
    PALE_BLUE,
    PALE_YELLOW,
    RED,
    TABLE,
    TWO_BLOCKS,
    WHITE,
    BlockModel,
    Color,
    Model,
    Pose2D,
    SlotModel,
    ZoneModel,
    wrap,
)

__all__ = [
    "DEFAULT",
    "FACING",
    "GREEN",
    "INSERTION",
    "MODELS",
    "ONE_BLOCK",
    "PALE_BLUE",
    "PALE_YELLOW",
    "RED",
    "TABLE",
    "TWO_BLOCKS",
    "WHITE",
    "BlockModel",
    "Color",
    "EstimationConfig",
    "InstanceLabels",
    "Model",
    "Pose2D",
    "SceneEstimator",
    "Sighting",
    "SlotModel",
    "ZoneModel",
    "estimate",
    "project",
    "unproject",
    "wrap",
]

Array = NDArray[np.float64]


def estimate(
    rgb: NDArray[np.uint8],
    depth: NDArray[np.floating],
    intrinsics: Array,
    T_world_camera: Array,
    models: Sequence[Model],
    config: EstimationConfig = DEFAULT,
    labels: InstanceLabels | None = None,
) -> dict[str, Pose2D | None]:
    """Poses of everything that one picture shows.

    Args:
        rgb: `(H, W, 3)` uint8.
        depth: `(H, W)` along the optical axis, metres, registered to `rgb`; NaN, infinite or 0
            where nothing was measured.
        intrinsics: `(3, 3)` camera matrix without skew; pixel centres are whole numbers.
        T_world_camera: `(4, 4)`, maps (optical) camera points to world.
        models: what may lie on the table.
        config: where and how to look.
        labels: instances in `rgb`. Models that have a `kind` are then looked for where it is
            labelled, whatever colour they have; of several of one kind each takes what comes
            nearest to its colour. Without labels, and for models without a kind, colours decide.

    Returns:
        By the models' names: x and y (metres), yaw (rad); blocks' and zones' yaw in
        [-pi / 4, pi / 4). `None` for what is not seen, or not well enough.

    Raises:
        ValueError: for arrays of other shapes or types.
    """
    search = Search.of(Frame.of(rgb, depth, intrinsics, T_world_camera, config))
    if labels is not None and labels.ids.shape != np.shape(depth):
        raise ValueError(
            f"labels must be {np.shape(depth)} like the picture, got {labels.ids.shape}"
        )
    alike: dict[Model, list[Model]] = {}
    for model in models:
        alike.setdefault(_looks(model, labels is not None), []).append(model)
    found: dict[str, Pose2D | None] = {}
    for looks, group in alike.items():
        if labels is not None and looks.kind:
            found |= _assigned(group, search.labelled(looks, labels))
        else:
            found |= _assigned(group, search.colored(looks, len(group)))
    found = {model.name: found[model.name] for model in models}
    return found | _fixed(found, models, config.fixed_tolerance)


def _looks(model: Model, labelled: bool) -> Model:
    """What models have in common that are looked for together."""
    if isinstance(model, SlotModel):
        model = replace(model, heading=0.0, fixed_to="", offset=Pose2D(0.0, 0.0, 0.0))
    return replace(model, name="", color=WHITE if labelled and model.kind else model.color)


def _assigned(models: Sequence[Model], found: Sequence[Found]) -> dict[str, Pose2D | None]:
    """Which of models that look alike is which of the objects that were found."""
    result: dict[str, Pose2D | None] = {model.name: None for model in models}
    pairs = []
    for model in models:
        if isinstance(model, SlotModel):
            result[model.name] = _nearest_heading([one.pose for one in found], model.heading)
        else:
            pairs += [(chromatic_distance(model.color, one.color), model, one) for one in found]
    taken: list[Found] = []
    for _, model, one in sorted(pairs, key=lambda pair: pair[0]):
        if result[model.name] is None and not any(one is other for other in taken):
            result[model.name] = one.pose
            taken.append(one)
    return result


@dataclass(frozen=True)
class Sighting:
    """A pose and how old it is, in seconds: 0 if the last picture shows it or it stands still."""

    pose: Pose2D
    age: float


@dataclass
class SceneEstimator:
    """Follows a scene from picture to picture.

    Zones and slots stand still: their poses are the median over the first pictures that show them,
    and stay until `reset`. Of two slots both should be in view then: one alone stands for both. A
    block that is hidden keeps its last pose for `EstimationConfig.hold`.

    Attributes:
        models: what may lie on the table.
        config: where and how to look.
    """

    models: Sequence[Model]
    config: EstimationConfig = DEFAULT
    _fixtures: dict[str, list[Pose2D]] = field(default_factory=dict, init=False)
    _blocks: dict[str, tuple[Pose2D, float]] = field(default_factory=dict, init=False)

    def reset(self) -> None:
        """Forget everything: somebody may have moved the fixtures."""
        self._fixtures.clear()
        self._blocks.clear()

    def update(
        self,
        rgb: NDArray[np.uint8],
        depth: NDArray[np.floating],
        intrinsics: Array,
        T_world_camera: Array,
        stamp: float,
        labels: InstanceLabels | None = None,
    ) -> dict[str, Sighting | None]:
        """Take in a picture; see `estimate`.

        Args:
            rgb: `(H, W, 3)` uint8.
            depth: `(H, W)` metres.
            intrinsics: `(3, 3)` camera matrix.
            T_world_camera: `(4, 4)`, maps (optical) camera points to world.
            stamp: when the picture was taken, seconds.
            labels: instances in `rgb`, if something labels them.

        Returns:
            By the models' names; `None` for what was not seen lately.
        """
        wanted = [model for model in self.models if not self._is_settled(model)]
        found = estimate(rgb, depth, intrinsics, T_world_camera, wanted, self.config, labels)
        for name, pose in found.items():
            if pose is not None:
                self._remember(name, pose, stamp)
        known = {model.name: self._recall(model, stamp) for model in self.models}
        # Medians of the single coordinates obey no arrangement, even if every picture's poses do.
        poses = {name: sighting.pose for name, sighting in known.items() if sighting is not None}
        fixed = _fixed(poses, self.models, self.config.fixed_tolerance)
        return known | {name: Sighting(pose, 0.0) for name, pose in fixed.items()}

    def _is_settled(self, model: Model) -> bool:
        return len(self._fixtures.get(model.name, ())) >= self.config.fixture_frames

    def _remember(self, name: str, pose: Pose2D, stamp: float) -> None:
        if any(isinstance(model, BlockModel) and model.name == name for model in self.models):
            self._blocks[name] = (pose, stamp)
        else:
            self._fixtures.setdefault(name, []).append(pose)

    def _recall(self, model: Model, stamp: float) -> Sighting | None:
        if isinstance(model, BlockModel):
            pose, seen = self._blocks.get(model.name, (None, 0.0))
            age = stamp - seen
            return None if pose is None or age > self.config.hold else Sighting(pose, age)
        poses = self._fixtures.get(model.name)
        return None if not poses else Sighting(_median(poses, model.period), 0.0)


def _median(poses: Sequence[Pose2D], period: float) -> Pose2D:
    rows = np.array([(p.x, p.y, wrap(p.yaw - poses[0].yaw, period)) for p in poses])
    x, y, turn = np.median(rows, axis=0)
    return Pose2D(float(x), float(y), wrap(poses[0].yaw + float(turn), period))


def _nearest_heading(poses: Sequence[Pose2D], heading: float) -> Pose2D | None:
    return min(poses, key=lambda p: abs(wrap(p.yaw - heading, 2 * math.pi)), default=None)


def _fixed(
    poses: Mapping[str, Pose2D | None], models: Sequence[Model], tolerance: tuple[float, float]
) -> dict[str, Pose2D]:
    """Poses of slots that are one piece, made to obey their arrangement exactly.

    The line between two mouths gives the heading better than the mouths do, and a policy that was
    trained on one arrangement may take a hundredth of a millimetre of change for another world.
    """
    result: dict[str, Pose2D] = {}
    for model in models:
        if not isinstance(model, SlotModel):
            continue
        first, second = poses.get(model.fixed_to), poses.get(model.name)
        if first is None or second is None:
            continue
        offset = model.offset
        reach = math.hypot(offset.x, offset.y)
        along, across = second.x - first.x, second.y - first.y
        turn = wrap(second.yaw - first.yaw - offset.yaw, 2 * math.pi)
        yaw = wrap(math.atan2(across, along) - math.atan2(offset.y, offset.x), 2 * math.pi)
        aside = max(abs(turn), abs(wrap(yaw - first.yaw, 2 * math.pi)))
        if abs(math.hypot(along, across) - reach) > tolerance[0] or aside > tolerance[1]:
            continue
        cos, sin = math.cos(yaw), math.sin(yaw)
        half_x = (cos * offset.x - sin * offset.y) / 2
        half_y = (sin * offset.x + cos * offset.y) / 2
        x, y = (first.x + second.x) / 2, (first.y + second.y) / 2
        result[model.fixed_to] = Pose2D(x - half_x, y - half_y, yaw)
        other = wrap(yaw + offset.yaw, 2 * math.pi)
        result[model.name] = Pose2D(x + half_x, y + half_y, other)
    return result
