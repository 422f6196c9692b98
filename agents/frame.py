"""Expressing observations and actions in the SE(2) frame of one object.

A task that looks the same wherever its fixture stands is easier to learn in the fixture's frame:
points become relative to it, displacements and headings are turned by its yaw, and the action is
turned back before it is executed. The transform is exact and has an exact inverse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

KINDS = ("point", "vector", "heading", "yaw4", "position", "scalar")
FRAMELESS = ("position", "scalar")
"""Kinds that no change of frame touches, of any size."""


@dataclass(frozen=True)
class FieldSpec:
    """One named slice of a state or an action vector.

    Attributes:
        name: what users call it, e.g. `block_xy`.
        size: number of entries; even for every kind that turns with a frame.
        kind: `point` (xy, world frame), `vector` (xy displacement), `heading` (cos, sin of a yaw),
            `yaw4` (cos 4 yaw, sin 4 yaw), or one that does not change with the frame: `position`
            (a point of any space) or `scalar`.
    """

    name: str
    size: int
    kind: str

    def __post_init__(self) -> None:
        """Rejects kinds and sizes that no transform is defined for."""
        if self.kind not in KINDS:
            raise ValueError(
                f"field {self.name!r} must be of a kind in {', '.join(KINDS)}; got {self.kind!r}"
            )
        if not isinstance(self.size, int) or self.size < 1:
            raise ValueError(f"field {self.name!r} must have a positive size; got {self.size!r}")
        if self.kind not in FRAMELESS and self.size % 2:
            raise ValueError(
                f"field {self.name!r} of kind {self.kind} must have an even size; got {self.size}"
            )

    @classmethod
    def parse(cls, value: Any) -> FieldSpec:
        """Reads a field from JSON or from any object with `name`, `size` and `kind`.

        Args:
            value: a mapping, a sequence that starts with name, size and kind, or an object.

        Returns:
            The field.

        Raises:
            ValueError: if `value` is none of these.
        """
        if isinstance(value, Mapping) and {"name", "size", "kind"} <= set(value):
            return cls(str(value["name"]), value["size"], value["kind"])
        if isinstance(value, Sequence) and not isinstance(value, str) and len(value) >= 3:
            return cls(str(value[0]), value[1], value[2])
        if all(hasattr(value, key) for key in ("name", "size", "kind")):
            return cls(*(getattr(value, key) for key in ("name", "size", "kind")))
        raise ValueError(f"a field must give name, size and kind; got {value!r}")


def check_fields(fields: Sequence[FieldSpec], size: int, what: str) -> None:
    """Checks that fields, laid end to end, cover a vector exactly.

    Args:
        fields: the fields in order.
        size: length of the vector.
        what: what the vector is, for the message.

    Raises:
        ValueError: if the sizes do not add up.
    """
    total = sum(field.size for field in fields)
    if total != size:
        names = ", ".join(f"{field.name}:{field.size}" for field in fields) or "no fields"
        raise ValueError(f"{what} has {size} entries, but its fields cover {total} ({names})")


class Pose(NamedTuple):
    """A planar pose per row: where the frame stands in the world.

    Attributes:
        xy: `(B, 2)` origin, metres, world frame.
        rotation: `(B, 2)` cos and sin of the yaw, unit length.
    """

    xy: Tensor
    rotation: Tensor


def _turn(vectors: Tensor, rotation: Tensor) -> Tensor:
    """Rotates xy pairs `(..., 2)` by the angle whose cos and sin are `rotation` `(..., 2)`."""
    x, y = vectors[..., 0], vectors[..., 1]
    c, s = rotation[..., 0], rotation[..., 1]
    return torch.stack((c * x - s * y, s * x + c * y), dim=-1)


def _fourfold(rotation: Tensor) -> Tensor:
    """Cos and sin of four times the angle, by squaring the complex number twice."""
    for _ in range(2):
        c, s = rotation[..., 0], rotation[..., 1]
        rotation = torch.stack((c * c - s * s, 2 * c * s), dim=-1)
    return rotation


def _inverse(rotation: Tensor) -> Tensor:
    return torch.stack((rotation[..., 0], -rotation[..., 1]), dim=-1)


def to_frame(values: Tensor, fields: Sequence[FieldSpec], pose: Pose) -> Tensor:
    """Expresses a world-frame vector in the frame of a pose.

    Args:
        values: `(B, ..., D)` laid out as `fields`.
        fields: what the entries mean.
        pose: one pose per row of the batch.

    Returns:
        Tensor of the same shape, in the frame.
    """
    back = _inverse(pose.rotation)
    return _map(values, fields, pose.xy, back, subtract=True)


def from_frame(values: Tensor, fields: Sequence[FieldSpec], pose: Pose) -> Tensor:
    """Expresses a vector given in the frame of a pose in the world frame.

    Args:
        values: `(B, ..., D)` laid out as `fields`.
        fields: what the entries mean.
        pose: one pose per row of the batch.

    Returns:
        Tensor of the same shape, in the world frame: the inverse of `to_frame`.
    """
    return _map(values, fields, pose.xy, pose.rotation, subtract=False)


def _map(
    values: Tensor, fields: Sequence[FieldSpec], xy: Tensor, rotation: Tensor, subtract: bool
) -> Tensor:
    # One broadcast axis per axis between the batch and the entries, and one for the pairs.
    shape = (xy.shape[0],) + (1,) * (values.ndim - 1) + (2,)
    origin, turn = xy.reshape(shape), rotation.reshape(shape)
    parts: list[Tensor] = []
    for field, part in zip(fields, values.split([f.size for f in fields], dim=-1), strict=True):
        if field.kind in FRAMELESS:
            parts.append(part)
            continue
        pairs = part.unflatten(-1, (field.size // 2, 2))
        if field.kind == "point" and subtract:
            pairs = _turn(pairs - origin, turn)
        elif field.kind == "point":
            pairs = _turn(pairs, turn) + origin
        elif field.kind == "yaw4":
            pairs = _turn(pairs, _fourfold(turn))
        else:
            pairs = _turn(pairs, turn)
        parts.append(pairs.flatten(-2))
    return torch.cat(parts, dim=-1)


class FrameReader:
    """Finds the pose of a named frame in a state vector.

    Args:
        frame: name prefix; the state must have `<frame>_xy` (point) and `<frame>_heading`.
        fields: fields of the state.

    Raises:
        ValueError: if the state lacks either field; the frames it has are listed.
    """

    def __init__(self, frame: str, fields: Sequence[FieldSpec]) -> None:
        """Find the two fields."""
        starts: dict[tuple[str, str], int] = {}
        start = 0
        for field in fields:
            if field.size == 2:
                starts[field.name, field.kind] = start
            start += field.size
        point, heading = (f"{frame}_xy", "point"), (f"{frame}_heading", "heading")
        if point not in starts or heading not in starts:
            known = [
                name.removesuffix("_xy")
                for name, kind in starts
                if kind == "point"
                and name.endswith("_xy")
                and (name.removesuffix("_xy") + "_heading", "heading") in starts
            ]
            raise ValueError(
                f"frame {frame!r} needs the fields {frame}_xy (point) and {frame}_heading "
                f"(heading) in the state; known frames: {', '.join(known) or 'none'}"
            )
        self._xy, self._heading = starts[point], starts[heading]

    def __call__(self, state: Tensor) -> Pose:
        """Reads the pose.

        Args:
            state: `(B, D)` raw states.

        Returns:
            The pose of the frame, one per row. A heading of no length counts as yaw 0.
        """
        xy = state[..., self._xy : self._xy + 2]
        heading = state[..., self._heading : self._heading + 2]
        length = heading.norm(dim=-1, keepdim=True)
        ahead = torch.zeros_like(heading)
        ahead[..., 0] = 1.0
        return Pose(xy, torch.where(length > 1e-6, heading / length.clamp_min(1e-6), ahead))
