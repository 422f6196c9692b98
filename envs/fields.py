"""Named parts of an observation or action vector: what each number is, in which unit."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Kind = Literal["point", "vector", "heading", "yaw4", "position", "scalar"]
"""How a field turns under a change of frame.

- `point`: xy position in the world frame, metres.
- `vector`: xy displacement, metres.
- `heading`: (cos, sin) of a yaw.
- `yaw4`: (cos 4 yaw, sin 4 yaw); a square block looks the same after a quarter turn.
- `position`: a point of a space that no frame of the table touches; any size.
- `scalar`: numbers that no change of frame touches; any size.
"""

_KINDS = get_args(Kind)


@dataclass(frozen=True)
class Field:
    """One named slice of a vector.

    Attributes:
        name: unique within its vector, such as `block_xy`.
        size: how many numbers; 2 for every kind but `position` and `scalar`.
        kind: see `Kind`.
        unit: `m`, `rad`, `s`, or `1` where there is none.
        doc: one line for people.
    """

    name: str
    size: int
    kind: Kind
    unit: str
    doc: str

    def __post_init__(self) -> None:
        """Refuse sizes and kinds that contradict each other."""
        if self.kind not in _KINDS:
            raise ValueError(
                f"field {self.name!r}: kind must be one of {_KINDS}, got {self.kind!r}"
            )
        free = self.kind in ("position", "scalar")
        if self.size < 1 or (not free and self.size != 2):
            raise ValueError(
                f"field {self.name!r}: a {self.kind} holds "
                f"{'at least 1 number' if free else '2 numbers'}, got {self.size}"
            )


def slices(fields: Sequence[Field]) -> dict[str, slice]:
    """Where each field lies in its vector.

    Args:
        fields: in the order of the vector.

    Returns:
        Field name to slice, in the same order.

    Raises:
        ValueError: if two fields share a name.
    """
    result: dict[str, slice] = {}
    start = 0
    for field in fields:
        if field.name in result:
            raise ValueError(f"field names must be unique, got {field.name!r} twice; rename one")
        result[field.name] = slice(start, start + field.size)
        start += field.size
    return result


def to_json(fields: Sequence[Field]) -> list[dict[str, Any]]:
    """Fields as a list of plain objects that `json.dumps` takes."""
    return [asdict(field) for field in fields]


def from_json(items: Sequence[Mapping[str, Any]]) -> tuple[Field, ...]:
    """Inverse of `to_json`.

    Raises:
        ValueError: if an item is not an object with exactly the keys of `Field`.
    """
    expected = set(Field.__dataclass_fields__)
    fields = []
    for item in items:
        if not isinstance(item, Mapping) or set(item) != expected:
            raise ValueError(
                f"a field must be an object with the keys {sorted(expected)}, got {item}"
            )
        if not isinstance(item["size"], int):
            raise ValueError(f"field {item['name']!r}: size must be an int, got {item['size']!r}")
        fields.append(Field(**item))
    return tuple(fields)
