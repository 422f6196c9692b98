"""Poses of blocks, painted zones and slots from one colour and depth picture, by plane geometry.

An object is found by its colour and by the height of its top face above the table. Its pose is
fitted to the border of that face, between pixels that see the face and neighbours that do not:

- Both are carried along their rays to the plane of the face, whose height is known better than any
  depth camera measures it. The outline must pass between the two.
- If the neighbour sees the object's own side, its measured point lies on the outline exactly.
- If the neighbour sees something higher than the face (the effector, a hand), or nothing, the face
  may go on behind it: the pixel must lie inside the outline, and that is all.

So a face that is partly hidden is fitted by the sides that are seen, without bias. What was fitted
with too few of them is not reported. NumPy only: nothing here knows of ROS or of a simulator.

World frame: z up, the table's surface at z = 0. Camera frames are optical: z forward, x right, y
down. Metres and radians.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from robots.outline_fit import Border, find_border, fit_outline
from robots.pinhole import checked_camera, project, unproject
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
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class EstimationConfig:
    """Where and how to look.

    Attributes:
        workspace_low: least x and y of what is looked at, metres, world.
        workspace_high: greatest x and y.
        table_color: RGB in [0, 1] of the bare table under white light. The pixels of the table tell
            how bright the light is and which tint it has; `None` takes the picture as it is.
        height_tolerance: how far a measured height may be from a model's, metres. Less than half
            of the 10 mm between blocks and walls, more than a depth camera's noise at a metre.
        color_tolerance: how far a pixel's chromaticity may be beside the line from the table's to a
            model's, in parts of that line. The nearest of the palette is yellow, 0.4 beside red.
        grey_tolerance: models whose chromaticity is as near the table's as this are told from it
            by their height, and accept no pixel that is further away.
        least_brightness: pixels darker than this part of the table are no object: the chromaticity
            of black is noise. A black cylinder has 0.25, the shaded side of a block 0.38.
        stride: objects are searched for in every so manieth row and column.
        standard_error: a pose is reported if its borders fix it this well, metres, when each has
            an error of half a millimetre.
        fixed_tolerance: how far, in metres and in radians, two slots may be from the
            arrangement that `SlotModel.fixed_to` declares before they are taken for another.
        fixture_frames: pictures over which `SceneEstimator` takes the median of what stands still.
        hold: how long `SceneEstimator` repeats the pose of a block it no longer sees, seconds.
    """

    workspace_low: tuple[float, float] = (0.10, -0.52)
    workspace_high: tuple[float, float] = (0.70, 0.52)
    table_color: Color | None = TABLE
    height_tolerance: float = 0.004
    color_tolerance: float = 0.3
    grey_tolerance: float = 0.04
    least_brightness: float = 0.3
    stride: int = 4
    standard_error: float = 0.0005
    fixed_tolerance: tuple[float, float] = (0.003, 0.015)
    fixture_frames: int = 5
    hold: float = 1.0

    def __post_init__(self) -> None:
        """Reject what finds nothing."""
        if not all(a < b for a, b in zip(self.workspace_low, self.workspace_high, strict=True)):
            raise ValueError(f"{self.workspace_low} must be below {self.workspace_high}")
        if self.stride < 1 or self.fixture_frames < 1:
            raise ValueError("stride and fixture_frames must be at least 1")


DEFAULT = EstimationConfig()


def estimate(
    rgb: NDArray[np.uint8],
    depth: NDArray[np.floating],
    intrinsics: Array,
    T_world_camera: Array,
    models: Sequence[Model],
    config: EstimationConfig = DEFAULT,
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

    Returns:
        By the models' names: x and y (metres), yaw (rad); blocks' and zones' yaw in
        [-pi / 4, pi / 4). `None` for what is not seen, or not well enough.

    Raises:
        ValueError: for arrays of other shapes or types.
    """
    frame = _Frame.of(rgb, depth, intrinsics, T_world_camera, config)
    search = _Search.of(frame)
    found: dict[str, Pose2D | None] = {}
    alike: dict[Model, list[Pose2D]] = {}
    for model in models:
        if not isinstance(model, SlotModel):
            found[model.name] = next(iter(search.find(model, 1)), None)
            continue
        kind = replace(model, name="", heading=0.0, fixed_to="", offset=Pose2D(0.0, 0.0, 0.0))
        if kind not in alike:
            n_alike = sum(isinstance(other, SlotModel) for other in models)
            alike[kind] = search.find(kind, n_alike)
        found[model.name] = _nearest_heading(alike[kind], model.heading)
    return found | _fixed(found, models, config.fixed_tolerance)


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
    ) -> dict[str, Sighting | None]:
        """Take in a picture; see `estimate`.

        Args:
            rgb: `(H, W, 3)` uint8.
            depth: `(H, W)` metres.
            intrinsics: `(3, 3)` camera matrix.
            T_world_camera: `(4, 4)`, maps (optical) camera points to world.
            stamp: when the picture was taken, seconds.

        Returns:
            By the models' names; `None` for what was not seen lately.
        """
        wanted = [model for model in self.models if not self._is_settled(model)]
        for name, pose in estimate(
            rgb, depth, intrinsics, T_world_camera, wanted, self.config
        ).items():
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


# Finding.


@dataclass(frozen=True)
class _Frame:
    """A picture, or a part of one, with what is needed to read it."""

    rgb: NDArray[np.uint8]
    depth: NDArray[np.floating]
    intrinsics: Array
    T_world_camera: Array
    config: EstimationConfig

    @classmethod
    def of(
        cls,
        rgb: NDArray[np.uint8],
        depth: NDArray[np.floating],
        intrinsics: Array,
        T_world_camera: Array,
        config: EstimationConfig,
    ) -> _Frame:
        intrinsics, T_world_camera = checked_camera(intrinsics, T_world_camera)
        rgb, depth = np.asarray(rgb), np.asarray(depth)
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
            raise ValueError(f"rgb must be (H, W, 3) uint8, got {rgb.shape} {rgb.dtype}")
        if depth.shape != rgb.shape[:2] or not np.issubdtype(depth.dtype, np.floating):
            raise ValueError(
                f"depth must be {rgb.shape[:2]} like rgb, in metres, got {depth.shape} "
                f"{depth.dtype}; divide 16UC1 by 1000"
            )
        return cls(rgb, depth, intrinsics, T_world_camera, config)

    def strided(self, stride: int) -> _Frame:
        """Every so manieth row and column."""
        matrix = self.intrinsics.copy()
        matrix[:2] /= stride
        part = slice(None, None, stride)
        return replace(
            self, rgb=self.rgb[part, part], depth=self.depth[part, part], intrinsics=matrix
        )

    def crop(self, top: int, left: int, bottom: int, right: int) -> _Frame:
        """Rows `top` to `bottom` and columns `left` to `right`, as far as there are any."""
        top, left = max(top, 0), max(left, 0)
        matrix = self.intrinsics.copy()
        matrix[:2, 2] -= (left, top)
        rows, columns = slice(top, bottom), slice(left, right)
        return replace(
            self, rgb=self.rgb[rows, columns], depth=self.depth[rows, columns], intrinsics=matrix
        )

    @property
    def eye(self) -> Array:
        return self.T_world_camera[:3, 3]

    def points(self) -> Array:
        """`(H, W, 3)` world points; NaN where nothing was measured or outside the workspace."""
        # REP-117 has infinities for what is too near or too far, some drivers zeros.
        measured = np.where((self.depth > 0) & (self.depth < np.inf), self.depth, np.nan)
        points = unproject(measured, self.intrinsics, self.T_world_camera)
        (x0, y0), (x1, y1) = self.config.workspace_low, self.config.workspace_high
        x, y = points[..., 0], points[..., 1]
        points[~((x > x0) & (x < x1) & (y > y0) & (y < y1))] = np.nan
        return points


@dataclass(frozen=True)
class _Search:
    """Looks for objects in a coarse copy of a picture, then measures them in the fine one."""

    frame: _Frame
    coarse: _Frame
    points: Array
    """`(h, w, 3)` world points of the coarse copy."""
    gain: Array
    """`(3,)`: reflectance is colour times this."""

    @classmethod
    def of(cls, frame: _Frame) -> _Search:
        coarse = frame.strided(frame.config.stride)
        points = coarse.points()
        table = coarse.rgb[np.abs(points[..., 2]) < frame.config.height_tolerance]
        gain = np.full(3, 1 / 255)
        if frame.config.table_color is not None and len(table) > 0:
            median = np.maximum(np.median(table, axis=0), 1.0)
            gain = np.array(frame.config.table_color) / median
        return cls(frame, coarse, points, gain)

    def find(self, model: Model, n: int) -> list[Pose2D]:
        """Poses of the `n` largest objects of a kind, as far as they can be measured."""
        config = self.frame.config
        where = np.abs(self.points[..., 2] - model.height) < config.height_tolerance
        pixels = np.argwhere(where)[self._is_color(model, self.coarse.rgb[where])]
        poses = []
        for cluster in _clusters(self.points[pixels[:, 0], pixels[:, 1], :2])[:n]:
            # What the coarse picture misses is less than a stride away.
            top, left = config.stride * (pixels[cluster].min(axis=0) - 2)
            bottom, right = config.stride * (pixels[cluster].max(axis=0) + 3)
            patch = self.frame.crop(int(top), int(left), int(bottom), int(right))
            pose = fit_outline(self._border(model, patch), model, config.standard_error)
            if pose is not None:
                poses.append(pose)
        return poses

    def _border(self, model: Model, patch: _Frame) -> Border:
        colored = self._is_color(model, patch.rgb.reshape(-1, 3))
        tolerance = self.frame.config.height_tolerance
        return find_border(patch.points(), colored, patch.eye, model.height, tolerance)

    def _is_color(self, model: Model, rgb: NDArray[np.uint8]) -> Mask:
        """Of `(n, 3)` pixels, those of which a model's colour covers more than half.

        Judged by chromaticity, each channel's part of their sum, which is the same in light and in
        shade. Between the table's and the model's lie the pixels that show some of both.
        """
        config = self.frame.config
        table = config.table_color or (1.0, 1.0, 1.0)
        bare, full = np.array(table) / sum(table), np.array(model.color) / sum(model.color)
        red, green, blue = (rgb * self.gain).T
        total = red + green + blue
        bright = total > config.least_brightness * sum(table)
        total = np.maximum(total, 1e-9)
        away = [part / total - value for part, value in zip((red, green, blue), bare, strict=True)]
        squared = away[0] ** 2 + away[1] ** 2 + away[2] ** 2
        span = full - bare
        distance = float(np.linalg.norm(span))
        if distance < config.grey_tolerance:
            return bright & (squared < config.grey_tolerance**2)
        share = (away[0] * span[0] + away[1] * span[1] + away[2] * span[2]) / distance**2
        beside = squared / distance**2 - share**2
        # Half of the area gives less than half of the chromaticity if the table is the brighter.
        half = sum(model.color) / (sum(model.color) + sum(table))
        return bright & (share > half) & (share < 1.5) & (beside < config.color_tolerance**2)


def _clusters(xy: Array, cell: float = 0.015, reach: int = 2) -> list[NDArray[np.intp]]:
    """Indices of points that belong together, largest group first.

    Args:
        xy: `(n, 2)` metres.
        cell: points are sorted into squares of this side, metres.
        reach: squares so many apart still belong together, so that the effector, which hides 25 mm,
            does not cut a block in two.
    """
    column, row = np.floor(xy / cell).astype(int).T
    _, first, member = np.unique(column * 10_000 + row, return_index=True, return_inverse=True)
    cells = np.column_stack([column, row])[first]
    label = np.full(len(cells), -1)
    for start in range(len(cells)):
        if label[start] >= 0:
            continue
        label[start], front = start, [start]
        while front:
            near = np.abs(cells - cells[front.pop()]).max(axis=1) <= reach
            fresh = np.flatnonzero(near & (label < 0))
            label[fresh] = start
            front += fresh.tolist()
    of_point = label[member]
    groups = [np.flatnonzero(of_point == i) for i in np.unique(of_point)]
    return sorted(groups, key=len, reverse=True)
