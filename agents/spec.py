"""What a policy sees and does: shapes, bounds and the meaning of each entry."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.frame import FieldSpec, check_fields

if TYPE_CHECKING:
    from learning.demonstrations import Demonstrations

OBSERVATION_KEYS = ("state", "pixels")
MAX_BOUND = 1e9
"""A finite bound beyond it is a mistake, and overflows once it is scaled."""


@dataclass(frozen=True)
class PolicySpec:
    """Observation and action spaces of a policy.

    Attributes:
        observation: shape of one observation per key: `state` `(D,)` and/or `pixels` `(H, W, C)`.
        action_dim: entries of one action.
        action_low: lower bound per entry, raw units; may be `-inf`.
        action_high: upper bound per entry; may be `inf`.
        observation_fields: meaning of the state entries, or empty if unknown.
        action_fields: meaning of the action entries, or empty if unknown.
    """

    observation: dict[str, tuple[int, ...]]
    action_dim: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    observation_fields: tuple[FieldSpec, ...] = field(default=())
    action_fields: tuple[FieldSpec, ...] = field(default=())

    def __post_init__(self) -> None:
        """Rejects shapes, bounds and fields that do not fit together."""
        if not self.observation or not set(self.observation) <= set(OBSERVATION_KEYS):
            raise ValueError(
                f"observation keys must be among {', '.join(OBSERVATION_KEYS)}; "
                f"got {', '.join(map(str, self.observation)) or 'none'}"
            )
        for key, n_dims in (("state", 1), ("pixels", 3)):
            shape = self.observation.get(key)
            if shape is None:
                continue
            if len(shape) != n_dims or not all(0 < n <= 65536 for n in shape):
                raise ValueError(
                    f"observation {key!r} must have {n_dims} positive sizes; got {shape}"
                )
        if not 1 <= self.action_dim <= 4096:
            raise ValueError(f"action_dim must be in [1, 4096]; got {self.action_dim}")
        for name, bound in (("action_low", self.action_low), ("action_high", self.action_high)):
            if len(bound) != self.action_dim or any(math.isnan(value) for value in bound):
                raise ValueError(f"{name} must be {self.action_dim} numbers; got {bound}")
        if any(math.isfinite(b) and abs(b) > MAX_BOUND for b in self.action_low + self.action_high):
            raise ValueError(
                f"finite action bounds must lie within {MAX_BOUND:g}; "
                f"got {self.action_low}, {self.action_high}"
            )
        if any(low > high for low, high in zip(self.action_low, self.action_high, strict=True)):
            raise ValueError(
                f"action_low must not exceed action_high; got {self.action_low}, {self.action_high}"
            )
        if self.observation_fields:
            size = self.observation["state"][0] if "state" in self.observation else 0
            check_fields(self.observation_fields, size, "the state")
        if self.action_fields:
            check_fields(self.action_fields, self.action_dim, "the action")

    @classmethod
    def from_demonstrations(cls, demos: Demonstrations) -> PolicySpec:
        """Reads the spaces off a data set.

        Args:
            demos: demonstrations; `meta` may name `observation_fields` and `action_fields`.

        Returns:
            The spec.
        """
        fields = {
            name: tuple(FieldSpec.parse(value) for value in demos.meta.get(name) or ())
            for name in ("observation_fields", "action_fields")
        }
        if "state" not in demos.observations:
            fields["observation_fields"] = ()
        return cls(
            observation={key: tuple(value.shape[1:]) for key, value in demos.observations.items()},
            action_dim=int(demos.actions.shape[1]),
            action_low=tuple(np.asarray(demos.action_low, dtype=float).tolist()),
            action_high=tuple(np.asarray(demos.action_high, dtype=float).tolist()),
            **fields,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values; an infinite bound becomes null, since JSON has no infinity."""
        return {
            "observation": {key: list(shape) for key, shape in self.observation.items()},
            "action_dim": self.action_dim,
            "action_low": [value if math.isfinite(value) else None for value in self.action_low],
            "action_high": [value if math.isfinite(value) else None for value in self.action_high],
            "observation_fields": [_field_to_dict(f) for f in self.observation_fields],
            "action_fields": [_field_to_dict(f) for f in self.action_fields],
        }

    @classmethod
    def from_dict(cls, values: Any) -> PolicySpec:
        """Undoes `to_dict`.

        Args:
            values: JSON values.

        Returns:
            The spec.

        Raises:
            ValueError: if anything is missing or of another type.
        """
        try:
            return cls(
                observation={
                    str(key): tuple(_integer(n) for n in shape)
                    for key, shape in _mapping(values["observation"]).items()
                },
                action_dim=_integer(values["action_dim"]),
                action_low=_bounds(values["action_low"], -math.inf),
                action_high=_bounds(values["action_high"], math.inf),
                observation_fields=tuple(map(FieldSpec.parse, values["observation_fields"])),
                action_fields=tuple(map(FieldSpec.parse, values["action_fields"])),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                "a policy spec needs observation, action_dim, action_low, action_high, "
                f"observation_fields and action_fields; got {type(error).__name__}: {error}"
            ) from None


def _field_to_dict(spec: FieldSpec) -> dict[str, Any]:
    return {"name": spec.name, "size": spec.size, "kind": spec.kind}


def _mapping(value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"observation must map keys to shapes; got {value!r}")
    return value


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"a size must be an integer; got {value!r}")
    return value


def _bounds(values: Any, infinite: float) -> tuple[float, ...]:
    return tuple(infinite if value is None else float(value) for value in values)
