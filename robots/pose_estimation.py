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

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Color = tuple[float, float, float]

TABLE: Color = (0.66, 0.65, 0.63)
"""Reflectance of the simulated table; see `EstimationConfig.table_color`."""
RED: Color = (0.84, 0.31, 0.12)
GREEN: Color = (0.00, 0.62, 0.45)
PALE_BLUE: Color = (0.3855, 0.5375, 0.6705)
PALE_YELLOW: Color = (0.7905, 0.6995, 0.4185)
WHITE: Color = (0.94, 0.94, 0.95)
"""The simulated blocks, zones and fixtures, as they look in white light."""


@dataclass(frozen=True)
class Pose2D:
    """Where something stands on the table, world frame: metres and radians."""

    x: float
    y: float
    yaw: float


@dataclass(frozen=True)
class BlockModel:
    """A block with a square top; its yaw is known up to quarter turns.

    Attributes:
        name: key of the result.
        color: RGB in [0, 1] under white light; only its hue and saturation count.
        half_xy: half of the square's side, metres.
        height: of the top face, metres.
    """

    name: str
    color: Color
    half_xy: float = 0.02
    height: float = 0.03

    @property
    def outline(self) -> Array:
        """`(4, 2)` corners of the top face, anticlockwise."""
        return _square(self.half_xy)

    @property
    def period(self) -> float:
        """The turn after which it looks the same, rad."""
        return math.pi / 2


@dataclass(frozen=True)
class ZoneModel:
    """A painted square.

    Attributes:
        name: key of the result.
        color: RGB in [0, 1] under white light.
        half_xy: half of the square's side, metres.
        height: of the paint, metres.
    """

    name: str
    color: Color
    half_xy: float = 0.03
    height: float = 0.0

    @property
    def outline(self) -> Array:
        """`(4, 2)` corners, anticlockwise."""
        return _square(self.half_xy)

    @property
    def period(self) -> float:
        """The turn after which it looks the same, rad."""
        return math.pi / 2


@dataclass(frozen=True)
class SlotModel:
    """A U of three walls. Its pose is the middle of its mouth and the direction into it.

    Attributes:
        name: key of the result.
        color: RGB in [0, 1] under white light.
        heading: rough direction into the slot, rad, to tell several alike apart: each model takes
            the one that is nearest in heading. A single one serves all models.
        half_mouth: half of the inner width, metres: half a block and the play.
        depth: from the mouth to the back wall, metres.
        wall: thickness of the walls, metres.
        chamfer: length that is cut off the inner corners of the mouth at 45 degrees, metres.
        height: of the walls, metres.
        fixed_to: name of another slot that is built as one piece with this, or nothing.
        offset: pose in the frame of that other slot. Two slots that are found as the offset says,
            within `EstimationConfig.fixed_tolerance`, are given poses that obey it exactly; others
            are left as found.
    """

    name: str
    color: Color
    heading: float = 0.0
    half_mouth: float = 0.021
    depth: float = 0.045
    wall: float = 0.012
    chamfer: float = 0.002
    height: float = 0.02
    fixed_to: str = ""
    offset: Pose2D = Pose2D(0.0, 0.0, 0.0)

    @property
    def outline(self) -> Array:
        """`(10, 2)` corners of the walls' upper faces, anticlockwise; x points into the slot."""
        inner, cut = self.half_mouth, self.chamfer
        outer, back = inner + self.wall, self.depth + self.wall
        left = [(cut, inner), (self.depth, inner)]
        left = [(back, outer), (0.0, outer), (0.0, inner + cut), *left]
        return np.array([*left, *((x, -y) for x, y in reversed(left))])

    @property
    def period(self) -> float:
        """The turn after which it looks the same, rad."""
        return 2 * math.pi


Model = BlockModel | ZoneModel | SlotModel

ONE_BLOCK = (BlockModel("block", RED), ZoneModel("zone", PALE_BLUE))
TWO_BLOCKS = (
    BlockModel("block1", RED),
    BlockModel("block2", GREEN),
    ZoneModel("zone1", PALE_BLUE),
    ZoneModel("zone2", PALE_YELLOW),
)
FACING = Pose2D(-0.38, 0.0, math.pi)
"""Pose of the second simulated slot in the frame of the first, where there are two."""
INSERTION = (
    BlockModel("block", RED),
    SlotModel("slot1", WHITE, heading=math.pi / 2),
    SlotModel("slot2", WHITE, heading=-math.pi / 2, fixed_to="slot1", offset=FACING),
)
MODELS: dict[str, tuple[Model, ...]] = {
    "decisive/BlockPush-v0": ONE_BLOCK,
    "decisive/BlockPushMultimodal-v0": TWO_BLOCKS,
    "decisive/BlockInsertion-v0": INSERTION,
}
"""What lies on the table of each task; the names begin those of the state's fields."""


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


def unproject(depth: NDArray[np.floating], intrinsics: Array, T_world_camera: Array) -> Array:
    """World points that the pixels of a depth picture see.

    Args:
        depth: `(H, W)` along the optical axis, metres; NaN stays NaN.
        intrinsics: `(3, 3)` camera matrix without skew; pixel centres are whole numbers.
        T_world_camera: `(4, 4)`, maps (optical) camera points to world.

    Returns:
        `(H, W, 3)` points, world frame, metres.

    Raises:
        ValueError: for other shapes.
    """
    intrinsics, T_world_camera = _camera(intrinsics, T_world_camera)
    if np.ndim(depth) != 2:
        raise ValueError(f"depth must be (H, W), got {np.shape(depth)}")
    height, width = depth.shape
    x = (np.arange(width) - intrinsics[0, 2]) / intrinsics[0, 0]
    y = (np.arange(height) - intrinsics[1, 2]) / intrinsics[1, 1]
    rotation, origin = T_world_camera[:3, :3], T_world_camera[:3, 3]
    points = np.empty((height, width, 3))
    for i, (along_x, along_y, along_z) in enumerate(rotation):
        ray = (along_x * x)[None, :] + (along_y * y + along_z)[:, None]
        np.multiply(ray, depth, out=ray)
        np.add(ray, origin[i], out=points[..., i])
    return points


def project(points: Array, intrinsics: Array, T_world_camera: Array) -> Array:
    """Pixels at which world points appear.

    Args:
        points: `(..., 3)` world points, metres, in front of the camera.
        intrinsics: `(3, 3)` camera matrix.
        T_world_camera: `(4, 4)`, maps (optical) camera points to world.

    Returns:
        `(..., 2)` column and row; NaN for points that are not in front of the camera.

    Raises:
        ValueError: for other shapes.
    """
    intrinsics, T_world_camera = _camera(intrinsics, T_world_camera)
    if np.shape(points)[-1:] != (3,):
        raise ValueError(f"points must be (..., 3), got {np.shape(points)}")
    seen = (points - T_world_camera[:3, 3]) @ T_world_camera[:3, :3]
    z = np.where(seen[..., 2] > 0, seen[..., 2], np.nan)
    focal, center = intrinsics[[0, 1], [0, 1]], intrinsics[:2, 2]
    return seen[..., :2] / z[..., None] * focal + center


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


def wrap(angle: float, period: float) -> float:
    """The angle in [-period / 2, period / 2) that differs from it by whole periods (rad)."""
    return (angle + period / 2) % period - period / 2


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
        intrinsics, T_world_camera = _camera(intrinsics, T_world_camera)
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
            pose = _fit(self._border(model, patch), model, config)
            if pose is not None:
                poses.append(pose)
        return poses

    def _border(self, model: Model, patch: _Frame) -> _Border:
        colored = self._is_color(model, patch.rgb.reshape(-1, 3))
        tolerance = self.frame.config.height_tolerance
        return _border(patch.points(), colored, patch.eye, model.height, tolerance)

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


# Measuring.


@dataclass(frozen=True)
class _Border:
    """Pairs of neighbouring pixels between which a face ends, in the plane of the face."""

    inner: Array
    """`(n, 2)` on the face, world xy, metres."""
    outer: Array
    """`(n, 2)` beside it."""
    seen: Mask
    """`(n,)`: whether the face ends here; else something hides where."""
    outward: Array
    """`(n, 2)` from the pixel on the face to its neighbour; 0 where the end is not seen."""

    @property
    def middle(self) -> Array:
        """`(n, 2)` between both, or the pixel on the face where the end is not seen."""
        return np.where(self.seen[:, None], (self.inner + self.outer) / 2, self.inner)

    def part(self, n: int) -> _Border:
        """About `n` pairs from everywhere."""
        index = np.linspace(0, len(self.seen) - 1, min(len(self.seen), n)).astype(int)
        return _Border(self.inner[index], self.outer[index], self.seen[index], self.outward[index])


def _border(points: Array, colored: Mask, eye: Array, height: float, tolerance: float) -> _Border:
    """Where the face of an object ends in a part of a picture.

    Args:
        points: `(H, W, 3)` world points.
        colored: `(H * W,)` whether they have the object's colour.
        eye: `(3,)` where the camera is, world frame.
        height: of the face, metres.
        tolerance: how far measured heights may be off, metres.
    """
    z = points[..., 2].ravel()
    face = colored & (np.abs(z - height) < tolerance)
    # Nothing tells a white wall's foot from a grey table.
    side = colored & (z <= height - tolerance) & (z > tolerance)
    index = np.arange(z.size).reshape(points.shape[:2])
    first = np.concatenate([index[:, :-1].ravel(), index[:-1].ravel()])
    second = np.concatenate([index[:, 1:].ravel(), index[1:].ravel()])
    ends = face[first] != face[second]
    first, second = first[ends], second[ends]
    inner, outer = np.where(face[first], (first, second), (second, first))
    xy = points.reshape(-1, 3)[:, :2]
    along = (height - eye[2]) / (z - eye[2])
    level = eye[:2] + (xy - eye[:2]) * along[:, None]
    on_side = side[outer][:, None]
    seen = z[outer] < height + tolerance  # False for NaN, too
    return _Border(
        inner=np.where(on_side, xy[outer], level[inner]),
        outer=np.where(on_side, xy[outer], level[outer]),
        seen=seen,
        outward=np.where(seen[:, None], level[outer] - level[inner], 0.0),
    )


_OUTLIER = 0.002
"""A border this far from the outline belongs to something else (metres, a pixel and a bit)."""
_PULL = 0.1
"""How much the middle between two pixels counts beside the demand that the outline pass between
them. With 1, plain least squares, the errors of blocks and slots are twice as large."""
_ERROR = 0.0005
"""Assumed error of one border where it is judged how well they fix the pose (metres)."""
_LEAST = 8
"""Fewer borders than this fix nothing."""


def _fit(border: _Border, model: Model, config: EstimationConfig) -> Pose2D | None:
    """Pose of the outline that the border fits, or `None` if it does not fix one."""
    if border.seen.sum() < _LEAST:
        return None
    outline = _Outline.of(model)
    pose = _first_guess(border, outline, model.period)
    for scale in (0.006, 0.003, *(_OUTLIER,) * 8):
        step = _step(pose, border, outline, scale)
        pose = pose + step
        if scale == _OUTLIER and np.abs(step).max() < 1e-5:
            break
    if not _is_fixed(pose, border, outline, config.standard_error):
        return None
    return Pose2D(float(pose[0]), float(pose[1]), wrap(float(pose[2]), model.period))


@dataclass(frozen=True)
class _Outline:
    """A polygon as its sides."""

    start: Array
    """`(m, 2)` first corner of every side."""
    along: Array
    """`(m, 2)` unit vector to the next corner."""
    normal: Array
    """`(m, 2)` unit vector outwards."""
    length: Array
    """`(m,)`."""

    @classmethod
    def of(cls, model: Model) -> _Outline:
        start = model.outline
        side = np.roll(start, -1, axis=0) - start
        length = np.linalg.norm(side, axis=1)
        along = side / length[:, None]
        return cls(start, along, np.column_stack([along[:, 1], -along[:, 0]]), length)

    def nearest(self, points: Array) -> tuple[NDArray[np.intp], Array, Array]:
        """Nearest side of each of `(..., 2)` points.

        Returns:
            `(...)` index of the side; distance to it; signed distance to its line, positive
            outside (metres).
        """
        along = points @ self.along.T - _dot(self.start, self.along)
        along -= np.clip(along, 0.0, self.length)
        across = points @ self.normal.T - _dot(self.start, self.normal)
        squared = along * along + across * across
        side = squared.argmin(axis=-1)
        index = side[..., None]
        distance = np.sqrt(np.take_along_axis(squared, index, axis=-1)[..., 0])
        return side, distance, np.take_along_axis(across, index, axis=-1)[..., 0]


def _dot(first: Array, second: Array) -> Array:
    """Inner products of `(..., 2)` vectors; several times faster than a sum over two entries."""
    product: Array = first[..., 0] * second[..., 0] + first[..., 1] * second[..., 1]
    return product


def _to_body(points: Array, poses: Array) -> Array:
    """`(n, 2)` world points in the frames of `(..., 3)` poses: `(..., n, 2)`."""
    return _turned(points - poses[..., None, :2], -poses[..., 2:])


def _turned(vectors: Array, angle: Array) -> Array:
    """`(..., 2)` vectors turned by `(...)` angles (rad)."""
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = vectors[..., 0], vectors[..., 1]
    return np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)


def _first_guess(border: _Border, outline: _Outline, period: float) -> Array:
    """`(3,)` the best of many poses, on a part of the border.

    For every yaw on a grid the outline is laid against the border from left, right and the middle,
    and along the other axis likewise: if a side is hidden, the opposite one is not.
    """
    border = border.part(40)
    middle = border.middle
    step = math.radians(9.0 if period < math.pi else 15.0)
    yaws: Array = np.arange(round(period / step)) * np.float64(step)
    turned = _to_body(middle, np.column_stack([np.zeros((len(yaws), 2)), yaws]))
    low, high = turned.min(axis=1), turned.max(axis=1)
    low, high = low - outline.start.min(axis=0), high - outline.start.max(axis=0)
    places = np.stack([low, (low + high) / 2, high])
    x, y = np.broadcast_arrays(places[:, None, :, 0], places[None, :, :, 1])
    xy = _turned(np.stack([x, y], axis=-1), yaws)
    every = np.broadcast_to(yaws[:, None], (*xy.shape[:2], len(yaws), 1))
    poses = np.concatenate([xy, every], axis=-1).reshape(-1, 3)
    body = _to_body(middle, poses)
    side, distance, across = outline.nearest(body)
    distance[~border.seen & (across < 0)] = 0.0
    distance[_dot(outline.normal[side], _turned(border.outward, -poses[:, 2:])) < 0] = 1.0
    best: Array = poses[np.minimum(distance, 0.008).mean(axis=1).argmin()]
    return best


def _residuals(pose: Array, border: _Border, outline: _Outline) -> tuple[Array, Array, Array]:
    """How far borders are from the outline.

    Returns:
        `(n,)` violations: distance by which the outline fails to pass between inner and outer;
        `(n,)` signed distance of the middle between the two, 0 where the end is not seen;
        `(n, 3)` derivative of both by the pose.
    """
    body = _to_body(border.middle, pose)
    side, _, distance = outline.nearest(body)
    normal = outline.normal[side]
    turned = _turned(normal, pose[2:])
    gap = np.abs(_dot(border.outer - border.inner, turned)) / 2
    gap = np.where(border.seen, gap, 0.0)
    low = np.where(border.seen, -gap, -np.inf)
    violation = distance - np.clip(distance, low, gap)
    # An outline that a border leaves inwards is a metre away: it has nothing to do with it.
    violation[_dot(border.outward, turned) < 0] = 1.0
    by_yaw = normal[:, 0] * body[:, 1] - normal[:, 1] * body[:, 0]
    return violation, distance * border.seen, np.column_stack([-turned, by_yaw])


def _step(pose: Array, border: _Border, outline: _Outline, scale: float) -> Array:
    """`(3,)` one Gauss-Newton step; what violates by more than `scale` metres does not count."""
    violation, middle, jacobian = _residuals(pose, border, outline)
    weight = np.maximum(1.0 - (violation / scale) ** 2, 0.0) ** 2  # Tukey's
    gradient = jacobian.T @ (weight * (violation + _PULL * middle))
    counts = weight * ((violation != 0.0) + _PULL * border.seen)
    # Keeps what nothing fixes where it is; the border's own numbers are thousands of times larger.
    hessian = (jacobian.T * counts) @ jacobian + 1e-9 * np.eye(3)
    return -np.linalg.solve(hessian, gradient)


def _is_fixed(pose: Array, border: _Border, outline: _Outline, limit: float) -> bool:
    """Whether most of the border agrees with a pose, and fixes it well enough."""
    violation, _, jacobian = _residuals(pose, border, outline)
    agree = np.abs(violation) < _OUTLIER / 2
    good = agree & border.seen
    if good.sum() < _LEAST or agree.mean() < 0.6:
        return False
    information = jacobian[good].T @ jacobian[good] + 1e-12 * np.eye(3)
    covariance = _ERROR**2 * np.linalg.inv(information)
    return bool(np.linalg.eigvalsh(covariance[:2, :2])[-1] < limit**2)


def _square(half: float) -> Array:
    return half * np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])


def _camera(intrinsics: Array, T_world_camera: Array) -> tuple[Array, Array]:
    """Both as arrays of float64; raises `ValueError` for other shapes."""
    intrinsics = np.asarray(intrinsics, np.float64)
    T_world_camera = np.asarray(T_world_camera, np.float64)
    if intrinsics.shape != (3, 3) or not (intrinsics[[0, 1], [0, 1]] > 0).all():
        raise ValueError(f"intrinsics must be (3, 3) with focal lengths, got {intrinsics.tolist()}")
    if T_world_camera.shape != (4, 4) or not np.isfinite(T_world_camera).all():
        raise ValueError(f"T_world_camera must be (4, 4) and finite, got {T_world_camera.tolist()}")
    return intrinsics, T_world_camera
