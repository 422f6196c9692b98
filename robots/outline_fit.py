"""Where an outline stands, fitted to the border of a face between pixels on it and beside it.

See `robots.pose_estimation` for the idea. Metres and radians, world xy in the plane of the face.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robots.scene_models import Model, Pose2D, wrap

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Border:
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

    def part(self, n: int) -> Border:
        """About `n` pairs from everywhere."""
        index = np.linspace(0, len(self.seen) - 1, min(len(self.seen), n)).astype(int)
        return Border(self.inner[index], self.outer[index], self.seen[index], self.outward[index])


def find_border(
    points: Array, colored: Mask, eye: Array, height: float, tolerance: float
) -> Border:
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
    return Border(
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


def fit_outline(border: Border, model: Model, standard_error: float) -> Pose2D | None:
    """Pose of the outline that the border fits, or `None` if it does not fix one.

    Args:
        border: of the face.
        model: whose outline is laid to it.
        standard_error: how well it must fix the pose, metres.
    """
    if border.seen.sum() < _LEAST:
        return None
    outline = _Outline.of(model)
    pose = _first_guess(border, outline, model.period)
    for scale in (0.006, 0.003, *(_OUTLIER,) * 8):
        step = _step(pose, border, outline, scale)
        pose = pose + step
        if scale == _OUTLIER and np.abs(step).max() < 1e-5:
            break
    if not _is_fixed(pose, border, outline, standard_error):
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


def covers(pose: Pose2D, model: Model, xy: Array) -> Mask:
    """Which of `(n, 2)` world points lie within the outline of a model; NaN does not.

    A ray to +x from a point within crosses the outline an odd number of times.
    """
    x, y = _to_body(xy, np.array([pose.x, pose.y, pose.yaw])).T
    inside = np.zeros(len(xy), np.bool_)
    for (x0, y0), (x1, y1) in zip(model.outline, np.roll(model.outline, -1, axis=0), strict=True):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < x0 + (x1 - x0) * (y - y0) / (y1 - y0))
    return inside


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


def _first_guess(border: Border, outline: _Outline, period: float) -> Array:
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


def _residuals(pose: Array, border: Border, outline: _Outline) -> tuple[Array, Array, Array]:
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


def _step(pose: Array, border: Border, outline: _Outline, scale: float) -> Array:
    """`(3,)` one Gauss-Newton step; what violates by more than `scale` metres does not count."""
    violation, middle, jacobian = _residuals(pose, border, outline)
    weight = np.maximum(1.0 - (violation / scale) ** 2, 0.0) ** 2  # Tukey's
    gradient = jacobian.T @ (weight * (violation + _PULL * middle))
    counts = weight * ((violation != 0.0) + _PULL * border.seen)
    # Keeps what nothing fixes where it is; the border's own numbers are thousands of times larger.
    hessian = (jacobian.T * counts) @ jacobian + 1e-9 * np.eye(3)
    return -np.linalg.solve(hessian, gradient)


def _is_fixed(pose: Array, border: Border, outline: _Outline, limit: float) -> bool:
    """Whether most of the border agrees with a pose, and fixes it well enough."""
    violation, _, jacobian = _residuals(pose, border, outline)
    agree = np.abs(violation) < _OUTLIER / 2
    good = agree & border.seen
    if good.sum() < _LEAST or agree.mean() < 0.6:
        return False
    information = jacobian[good].T @ jacobian[good] + 1e-12 * np.eye(3)
    covariance = _ERROR**2 * np.linalg.inv(information)
    return bool(np.linalg.eigvalsh(covariance[:2, :2])[-1] < limit**2)
