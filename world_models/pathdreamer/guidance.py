"""What has been seen, as it would look from somewhere else: the input of the generators."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from world_models.pathdreamer.equirectangular import Floats, rays
from world_models.pathdreamer.reprojection import nearest_points, nearest_valid

Bytes = NDArray[np.uint8]


class PanoramaLike(Protocol):
    """A panorama and where it was taken, as `envs.indoor` gives it."""

    @property
    def rgb(self) -> Bytes: ...  # noqa: D102
    @property
    def semantic(self) -> Bytes: ...  # noqa: D102
    @property
    def depth(self) -> NDArray[np.float32]: ...  # noqa: D102
    @property
    def position(self) -> NDArray[np.float64]: ...  # noqa: D102


@dataclass(frozen=True)
class Points:
    """Coloured, labelled points.

    Attributes:
        positions: `(3, N)` float32, world frame, metres.
        channels: `(N, 4)` uint8: red, green, blue, class. They move as one number of four bytes,
            so that those of one point cannot come apart.
    """

    positions: Floats
    channels: Bytes

    @property
    def rgb(self) -> Bytes:
        """`(N, 3)`; a view."""
        return self.channels[:, :3]

    @property
    def semantic(self) -> Bytes:
        """`(N,)`; a view."""
        return self.channels[:, 3]

    def __len__(self) -> int:
        """Number of points."""
        return len(self.channels)

    def seen(self, number: NDArray[np.int64]) -> Bytes:
        """Channels `(H, W, 4)` of the points `(H, W)`; 0 where the number is -1."""
        if not len(self):
            return np.zeros((*number.shape, 4), np.uint8)
        # Taking everything (-1: the last) and blanking the rest is quicker than choosing by a mask.
        taken = as_numbers(self.channels).take(number, mode="wrap")
        taken *= number >= 0
        return as_bytes(taken)

    def take(self, chosen: NDArray[np.integer]) -> "Points":
        """Those of some numbers, in their order."""
        channels = as_numbers(self.channels).take(chosen)
        return Points(self.positions.take(chosen, axis=1), as_bytes(channels))

    @classmethod
    def joined(cls, parts: Sequence["Points"]) -> "Points":
        """Several clouds as one."""
        return cls(
            np.concatenate([part.positions for part in parts], axis=1),
            np.concatenate([part.channels for part in parts]),
        )

    @classmethod
    def none(cls) -> "Points":
        """No points."""
        return cls(np.zeros((3, 0), np.float32), np.zeros((0, 4), np.uint8))


def as_numbers(channels: Bytes) -> NDArray[np.uint32]:
    """`(..., 4)` bytes as `(...)` numbers; a view."""
    return np.ascontiguousarray(channels).view(np.uint32)[..., 0]


def as_bytes(numbers: NDArray[np.uint32]) -> Bytes:
    """The inverse of `as_numbers`; a view."""
    return numbers[..., None].view(np.uint8)


def unproject(seen: PanoramaLike, mask: NDArray[np.bool_] | None = None) -> Points:
    """The points that a panorama shows, pixel by pixel.

    Args:
        seen: `(H, W, 3)`, `(H, W)`, `(H, W)` metres and `(3,)`. Depth that is not finite or not
            positive is no point.
        mask: `(H, W)`; only these pixels, if given.

    Raises:
        ValueError: where the shapes do not fit each other, or the position is not finite.
    """
    depth = np.asarray(seen.depth, np.float32)
    position = np.asarray(seen.position, float)
    if depth.ndim != 2 or seen.semantic.shape != depth.shape or seen.rgb.shape != (*depth.shape, 3):
        raise ValueError(
            "a panorama needs rgb (H, W, 3), semantic (H, W) and depth (H, W), got "
            f"{seen.rgb.shape}, {seen.semantic.shape}, {depth.shape}"
        )
    if position.shape != (3,) or not np.isfinite(position).all():
        raise ValueError(f"position must be three finite numbers, got {position}")
    known = (depth > 0) & (depth < math.inf)
    if mask is not None:
        known &= mask
    chosen = np.flatnonzero(known)
    places = rays(*depth.shape).take(chosen, axis=1)
    places *= depth.take(chosen)
    # The sum in double precision: far from the origin the rays would lose their last digits.
    np.add(places, position[:, None], out=places, casting="unsafe")
    channels = np.concatenate([seen.rgb, seen.semantic[..., None]], axis=-1, dtype=np.uint8)
    return Points(places, as_bytes(as_numbers(channels).take(chosen)))


@dataclass(frozen=True)
class Guidance:
    """Points projected into a panorama.

    Attributes:
        rgb: `(H, W, 3)` uint8; 0 where not valid, though a valid pixel may be black too.
        semantic: `(H, W)` uint8 ids; 0 where not valid.
        depth: `(H, W)` float32 metres; 0 where not valid.
        valid: `(H, W)` bool: whether a point was projected there.
        filled_rgb: `(H, W, 3)`, each hole as the nearest valid pixel; all 0 if none is valid.
        filled_semantic: `(H, W)`, likewise.
        filled_depth: `(H, W)`, likewise.
    """

    rgb: Bytes
    semantic: Bytes
    depth: Floats
    valid: NDArray[np.bool_]
    filled_rgb: Bytes
    filled_semantic: Bytes
    filled_depth: Floats


def project(
    points: Points,
    camera: NDArray[np.floating],
    size: tuple[int, int],
    max_depth: float = math.inf,
) -> Guidance:
    """How points look from `camera`; see `nearest_points` for the arguments and errors."""
    number, depth = nearest_points(points.positions, camera, size, max_depth)
    valid = number >= 0
    channels = points.seen(number)
    source = np.maximum(nearest_valid(valid), 0)
    filled = as_bytes(as_numbers(channels).take(source))
    return Guidance(
        channels[..., :3],
        channels[..., 3],
        depth,
        valid,
        filled[..., :3],
        filled[..., 3],
        depth.take(source),
    )


def make_guidance(seen: Sequence[PanoramaLike], position: NDArray[np.float64]) -> Guidance:
    """Guidance at `position` from panoramas, in their size.

    Raises:
        ValueError: where there is no panorama, or `unproject` refuses one.
    """
    if not seen:
        raise ValueError("guidance needs at least one panorama")
    points = Points.joined([unproject(panorama) for panorama in seen])
    height, width = seen[-1].depth.shape
    return project(points, position, (height, width))
