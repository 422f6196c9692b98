"""JSON in `std_msgs/String`: what every reader of it checks. Readers trust nothing.

Loads neither rclpy nor torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

MAX_TEXT = 4 * 2**20
"""Longest JSON that is read: 10,000 boxes have a quarter of it."""
MAX_WORD = 100
"""Letters of a class's name."""
MAX_NS = 2**31 * 10**9
"""Nanoseconds that a stamp can hold."""


def read_json(text: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: for anything else, or more than `MAX_TEXT` letters.
    """
    if len(text) > MAX_TEXT:
        raise ValueError(f"JSON must have at most {MAX_TEXT} letters, got {len(text)}")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"must be JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"must be a JSON object, got {type(found).__name__}")
    return found


def read_stamp(said: Mapping[str, Any]) -> int:
    """Nanoseconds under `stamp`; `ValueError` where they are not whole, or none a stamp can be."""
    stamp = said.get("stamp")
    if not isinstance(stamp, int) or isinstance(stamp, bool) or not 0 <= stamp < MAX_NS:
        raise ValueError(f"stamp must be whole nanoseconds, got {stamp!r:.40}")
    return stamp


def is_word(value: Any) -> bool:
    """Whether a value is a short text that can be shown, and sent: not every text is UTF-8."""
    return isinstance(value, str) and len(value) <= MAX_WORD and value.isprintable()
