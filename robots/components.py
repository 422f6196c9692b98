"""Names for the entries of a vector, so that it can travel as a message of named numbers."""

from __future__ import annotations

from collections.abc import Sequence


def component_names(
    fields: Sequence[tuple[str, int]], size: int, otherwise: str
) -> tuple[str, ...]:
    """`FIELD.0`, `FIELD.1`, ... of every field in order.

    Args:
        fields: name and size of every field; empty where nobody has named them.
        size: entries of the vector.
        otherwise: the name that all entries share then.

    Returns:
        One name for each entry.

    Raises:
        ValueError: if the fields do not add up to the vector, or two share a name.
    """
    fields = list(fields) or [(otherwise, size)]
    names = tuple(f"{name}.{i}" for name, n in fields for i in range(n))
    if len(names) != size or len(set(names)) != size:
        raise ValueError(f"the fields {fields} do not name {size} entries, each once")
    return names
