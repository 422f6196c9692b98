"""Objects of a known shape in one colour and depth picture: found coarsely, measured finely.

An object is found where its colour and the height of its top face are seen together, or where an
instance of its class is labelled; see `robots.pose_estimation` for how it is measured. Labels only
say which object and where. Masks of a network are a pixel or two too wide or too narrow, and end
beside the object where something touches it: the face is bounded by height and by the colour that
the labelled pixels have at its height. So the colours of a model count nothing then.

Metres and radians; world frame: z up, the table's surface at z = 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from robots.instance_labels import InstanceLabels
from robots.outline_fit import covers, find_border, fit_outline
from robots.pinhole import checked_camera, unproject
from robots.scene_models import TABLE, Color, Model, Pose2D

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_VISIBLE = 0.3
"""Least part of an outline's pixels in which the face is seen. Faces half behind the effector had
0.55 and more in 300 views of the insertion scene; the rims that the effector, or the block taken
for a slot, show at a face's height were fitted with 0.19 and less."""
_CONTRARY = 0.1
"""Greatest part of them that see deeper than the face. True poses had 0.05 and less."""
_INSIDE = 0.6
"""Least part of the face's pixels that the outline holds; one laid across two faces has half."""
_LEAST_PIXELS = 8
"""An instance that shows fewer pixels of the face tells no colour."""
_MOST_INSTANCES = 8
"""Of one class that are measured, largest first: a network may see many that are none."""


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


@dataclass(frozen=True)
class Frame:
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
    ) -> Frame:
        """A picture, checked.

        Raises:
            ValueError: for arrays of other shapes or types.
        """
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

    def strided(self, stride: int) -> Frame:
        """Every so manieth row and column."""
        matrix = self.intrinsics.copy()
        matrix[:2] /= stride
        part = slice(None, None, stride)
        return replace(
            self, rgb=self.rgb[part, part], depth=self.depth[part, part], intrinsics=matrix
        )

    def crop(self, top: int, left: int, bottom: int, right: int) -> Frame:
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
        """`(3,)` where the camera is, metres, world."""
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
class Paint:
    """The colour by which an object's pixels are told from others.

    Attributes:
        color: RGB under white light; only its hue and saturation count.
        least: sum of RGB below which a pixel is too dark to judge.
    """

    color: Color
    least: float


@dataclass(frozen=True)
class Found:
    """An object that was measured, and the colour it was found by."""

    pose: Pose2D
    color: Color


@dataclass(frozen=True)
class Search:
    """Looks for objects in a coarse copy of a picture, then measures them in the fine one."""

    frame: Frame
    coarse: Frame
    points: Array
    """`(h, w, 3)` world points of the coarse copy."""
    gain: Array
    """`(3,)`: reflectance is colour times this."""

    @classmethod
    def of(cls, frame: Frame) -> Search:
        """Prepare a picture."""
        coarse = frame.strided(frame.config.stride)
        points = coarse.points()
        table = coarse.rgb[np.abs(points[..., 2]) < frame.config.height_tolerance]
        gain = np.full(3, 1 / 255)
        if frame.config.table_color is not None and len(table) > 0:
            median = np.maximum(np.median(table, axis=0), 1.0)
            gain = np.array(frame.config.table_color) / median
        return cls(frame, coarse, points, gain)

    def colored(self, model: Model, n: int) -> list[Found]:
        """The `n` largest objects of a model's colour, as far as they can be measured."""
        paint = Paint(model.color, self.frame.config.least_brightness * sum(self._table))
        found = []
        pixels = self._candidates(model, paint)
        for cluster in _clusters(self._xy(pixels))[:n]:
            pose = self._measured(model, paint, pixels[cluster])
            if pose is not None:
                found.append(Found(pose, model.color))
        return found

    def labelled(self, model: Model, labels: InstanceLabels) -> list[Found]:
        """The objects that are labelled as a model's class, largest first, each once.

        Args:
            model: whose class and measures they have; its colour counts nothing.
            labels: `(H, W)` like the picture.
        """
        stride = self.frame.config.stride
        shown = labels.ids[::stride, ::stride].ravel().astype(np.intp)
        size = np.bincount(shown, minlength=len(labels.classes) + 1)
        ids = sorted(labels.of_class(model.kind), key=lambda k: -size[k])
        found: list[Found] = []
        for k in ids[:_MOST_INSTANCES]:
            one = self._instance(model, labels.ids == k)
            if one is not None and not any(_is_same(one.pose, other.pose) for other in found):
                found.append(one)
        return found

    def _instance(self, model: Model, mask: Mask) -> Found | None:
        """The object of which a mask shows at least some."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return None
        top, left, bottom, right = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
        patch = self.frame.crop(int(top), int(left), int(bottom), int(right))
        face = mask[top:bottom, left:right] & self._is_level(model, patch.points())
        if face.sum() < _LEAST_PIXELS:
            return None
        paint = self._paint_of(patch.rgb[face])
        pixels = self._candidates(model, paint)
        counts = self._coarse_counts(np.argwhere(face) + np.array([top, left]))
        votes = counts[pixels[:, 0], pixels[:, 1]]
        clusters = _clusters(self._xy(pixels))
        best = max(clusters, key=lambda cluster: votes[cluster].sum(), default=None)
        if best is None or votes[best].sum() == 0:
            return None
        pose = self._measured(model, paint, pixels[best])
        return None if pose is None else Found(pose, paint.color)

    def _paint_of(self, rgb: NDArray[np.uint8]) -> Paint:
        """The colour that most of an object's pixels have; a dark one may be darker than usual."""
        red, green, blue = (max(float(value), 1e-3) for value in np.median(rgb, axis=0) * self.gain)
        usual = self.frame.config.least_brightness * sum(self._table)
        return Paint((red, green, blue), min(usual, (red + green + blue) / 2))

    def _coarse_counts(self, pixels: NDArray[np.intp]) -> NDArray[np.intp]:
        """`(h, w)` how many of `(n, 2)` fine pixels are nearest to each coarse one."""
        stride, (height, width) = self.frame.config.stride, self.points.shape[:2]
        row, column = np.minimum((pixels + stride // 2) // stride, (height - 1, width - 1)).T
        counts = np.bincount(row * width + column, minlength=height * width)
        return counts.reshape(height, width)

    def _candidates(self, model: Model, paint: Paint) -> NDArray[np.intp]:
        """`(n, 2)` coarse pixels at a model's height that have a colour."""
        where = self._is_level(model, self.points)
        return np.argwhere(where)[self._is_color(paint, self.coarse.rgb[where])]

    def _xy(self, pixels: NDArray[np.intp]) -> Array:
        return self.points[pixels[:, 0], pixels[:, 1], :2]

    def _is_level(self, model: Model, points: Array) -> Mask:
        level: Mask = np.abs(points[..., 2] - model.height) < self.frame.config.height_tolerance
        return level

    def _measured(self, model: Model, paint: Paint, pixels: NDArray[np.intp]) -> Pose2D | None:
        """Pose of the object to which `(n, 2)` coarse pixels belong, if the picture confirms it."""
        stride = self.frame.config.stride
        # What the coarse picture misses is less than a stride away.
        top, left = stride * (pixels.min(axis=0) - 2)
        bottom, right = stride * (pixels.max(axis=0) + 3)
        patch = self.frame.crop(int(top), int(left), int(bottom), int(right))
        points, config = patch.points(), self.frame.config
        colored = self._is_color(paint, patch.rgb.reshape(-1, 3))
        border = find_border(points, colored, patch.eye, model.height, config.height_tolerance)
        pose = fit_outline(border, model, config.standard_error)
        if pose is None:
            return None
        face = colored & self._is_level(model, points).ravel()
        return pose if self._confirms(pose, model, patch, points, face) else None

    def _confirms(
        self, pose: Pose2D, model: Model, patch: Frame, points: Array, face: Mask
    ) -> bool:
        """Whether enough of a face is seen where it should be, and nothing that denies it."""
        z = points[..., 2].ravel()
        eye = patch.eye
        along = (model.height - eye[2]) / (z - eye[2])
        level = eye[:2] + (points.reshape(-1, 3)[:, :2] - eye[:2]) * along[:, None]
        inside = covers(pose, model, level)
        n, own = int(inside.sum()), int((inside & face).sum())
        deeper = int((inside & (z < model.height - self.frame.config.height_tolerance)).sum())
        return own > _VISIBLE * n and deeper < _CONTRARY * n and own > _INSIDE * face.sum()

    @property
    def _table(self) -> Color:
        return self.frame.config.table_color or (1.0, 1.0, 1.0)

    def _is_color(self, paint: Paint, rgb: NDArray[np.uint8]) -> Mask:
        """Of `(n, 3)` pixels, those of which a colour covers more than half.

        Judged by chromaticity, each channel's part of their sum, which is the same in light and in
        shade. Between the table's and the colour's lie the pixels that show some of both.
        """
        config, table, color = self.frame.config, self._table, paint.color
        bare, full = np.array(table) / sum(table), np.array(color) / sum(color)
        red, green, blue = (rgb * self.gain).T
        total = red + green + blue
        bright = total > paint.least
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
        half = sum(color) / (sum(color) + sum(table))
        return bright & (share > half) & (share < 1.5) & (beside < config.color_tolerance**2)


def chromatic_distance(first: Color, second: Color) -> float:
    """How far two colours are from each other in hue and saturation, whatever the light."""
    shares = (np.array(color) / max(sum(color), 1e-9) for color in (first, second))
    return float(np.linalg.norm(np.subtract(*shares)))


def _is_same(first: Pose2D, second: Pose2D, apart: float = 0.01) -> bool:
    """Whether two poses are of one object: two of them cannot be so near (metres)."""
    return max(abs(first.x - second.x), abs(first.y - second.y)) < apart


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
