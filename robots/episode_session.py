"""When episodes begin and end, and what has become of them. Knows no ROS."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from robots.commanded_motion import SECOND
from robots.episode_layout import EpisodeArrays
from robots.episode_recording import PATIENCE, SETTLE, Pairing

EVENT_SLACK = 0.05
"""Seconds by which the word that an episode has ended may come late, where it has no stamp."""
_MAX_TEXT = 2**20


@dataclass(frozen=True)
class Finished:
    """What an episode has come to.

    Attributes:
        arrays: its rows; None if it cannot be used.
        success: whether it succeeded; None where nobody told.
        why: why it cannot be used.
        facts: what the words that started and ended it said.
    """

    arrays: EpisodeArrays | None
    success: bool | None = None
    why: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Event:
    kind: Literal["start", "end", "discard"]
    stamp: int | None
    at: int
    facts: Mapping[str, Any]


class EpisodeSession:
    """Hands out finished episodes; events count a little later, when all messages are here.

    Times called `now` are nanoseconds on a clock that neither jumps nor pauses.
    """

    def __init__(self, pairing: Pairing) -> None:
        """Start outside of any episode."""
        self.pairing = pairing
        self._events: deque[_Event] = deque()
        self._running: Mapping[str, Any] | None = None

    @property
    def running(self) -> bool:
        """Whether an episode is being recorded, or is about to be."""
        if self._events:
            return self._events[-1].kind == "start"
        return self._running is not None

    def start(self, stamp: int | None, now: int, facts: Mapping[str, Any] | None = None) -> None:
        """An episode begins at a stamp in nanoseconds; None where only lockstep can tell."""
        self.pairing.expect()
        self._events.append(_Event("start", stamp, now, facts or {}))

    def stop(self, stamp: int | None, now: int, facts: Mapping[str, Any] | None = None) -> None:
        """The episode has ended."""
        self._events.append(_Event("end", stamp, now, facts or {}))

    def discard(self, now: int) -> None:
        """The episode does not count."""
        self._events.append(_Event("discard", None, now, {}))

    def word(self, text: str, clock: int, now: int) -> None:
        """A word of the topic `episode`.

        Args:
            text: JSON object with `event` (`start` or `end`), and perhaps `stamp` (nanoseconds),
                `success`, `terminated`, `length` (actions) and `seed`.
            clock: when it came, nanoseconds on the clock of the stamps.
            now: the same on the steady clock.

        Raises:
            ValueError: for anything else.
        """
        facts = _read(text)
        stamp = facts.get("stamp")
        if stamp is None and not self.pairing.config.lockstep:
            late = round(EVENT_SLACK * SECOND) if facts["event"] == "end" else 0
            stamp = clock - late
        if facts["event"] == "start":
            self.start(stamp, now, facts)
        else:
            self.stop(stamp, now, facts)

    def poll(self, now: int) -> list[Finished]:
        """What has finished since the last call."""
        finished = []
        while self._events and now - self._events[0].at >= SETTLE * SECOND:
            outcome = self._take(self._events[0], now)
            if outcome == "wait":
                break
            self._events.popleft()
            if isinstance(outcome, Finished):
                finished.append(outcome)
        if self._running is not None and self.pairing.overlong():
            finished.append(self._drop(f"longer than {self.pairing.config.longest:g} s"))
        return finished

    def _take(self, event: _Event, now: int) -> Finished | Literal["wait"] | None:
        if event.kind == "start":
            broken = self._drop("broken off by the next") if self._running is not None else None
            self._running = event.facts
            self.pairing.begin(event.stamp)
            return broken
        if self._running is None:
            return None
        if event.kind == "discard":
            return self._drop("discarded")
        return self._end(event, now)

    def _end(self, event: _Event, now: int) -> Finished | Literal["wait"]:
        assert self._running is not None  # _take
        try:
            arrays = self.pairing.end(event.stamp, event.facts.get("length"))
        except ValueError as error:
            return self._drop(str(error))
        if arrays is None:
            if now - event.at < PATIENCE * SECOND:
                return "wait"
            return self._drop("observations or commands of it were lost")
        facts = {**self._running, **event.facts}
        self._running = None
        return Finished(arrays, event.facts.get("success"), facts=facts)

    def _drop(self, why: str) -> Finished:
        facts, self._running = self._running or {}, None
        self.pairing.cancel()
        return Finished(None, why=why, facts=facts)


_KINDS: dict[str, type] = {"stamp": int, "length": int, "success": bool, "terminated": bool}


def _read(text: str) -> dict[str, Any]:
    if len(text) > _MAX_TEXT:
        raise ValueError(f"a word about an episode has {len(text)} characters")
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict) or facts.get("event") not in ("start", "end"):
        raise ValueError(
            'a word about an episode is a JSON object whose "event" is "start" or "end"; '
            f"got {text[:80]!r}"
        )
    for name, kind in _KINDS.items():
        value: Any = facts.get(name)
        negative = isinstance(value, int) and value < 0
        if value is not None and (type(value) is not kind or negative):
            raise ValueError(f"{name!r} of an episode must be {kind.__name__}, got {value!r}")
    return facts
