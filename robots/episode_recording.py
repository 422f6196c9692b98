"""Demonstrations from a running robot: observations, and the actions that followed them.

Two ways to tell which action followed which observation. In lockstep a simulator waits for every
command, whose stamp names its observation: the pairing is exact. In real time the observations are
read at a fixed rate, and the action is the way that the robot was commanded to go meanwhile.

Knows no ROS: a node feeds it as messages come, and `ros_nodes.rosbag` from a file.
"""

from __future__ import annotations

import bisect
import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from robots.commanded_motion import SECOND, PositionTrack, VelocityTrack
from robots.episode_layout import EpisodeArrays, PairingConfig, as_float32, lay_out
from robots.matching import Matched, Matcher

SETTLE = 0.2
"""Seconds after the word that an episode has ended, for messages that are still on their way."""
PATIENCE = 2.0
"""Seconds after which what is still missing counts as lost."""
_IDLE = 64  # observations kept between episodes


class Pairing(Protocol):
    """What both ways of pairing have in common."""

    config: PairingConfig

    @property
    def commands(self) -> VelocityTrack | PositionTrack:
        """What the robot is told; the caller adds to it."""
        ...

    @property
    def n_rows(self) -> int:
        """How many observations are held for the episode."""
        ...

    def observe(self, source: str, stamp: int, value: Any, now: int) -> bool:
        """A part of an observation; see `Matcher.add`."""
        ...

    def expect(self) -> None:
        """An episode begins, which `begin` will say a little later: keep what comes."""

    def begin(self, stamp: int | None) -> None:
        """An episode begins; its observations are not older than this, nanoseconds."""

    def end(self, stamp: int | None, length: int | None) -> EpisodeArrays | None:
        """The episode has ended: its rows, or None while some are on their way.

        Args:
            stamp: nanoseconds; nothing newer belongs to it.
            length: how many actions it had, where that is known.

        Raises:
            ValueError: if it cannot be used, saying why.
        """
        ...

    def cancel(self) -> None:
        """The episode does not count."""

    def overlong(self) -> bool:
        """Whether the episode has passed `PairingConfig.longest`."""
        ...


def make_pairing(config: PairingConfig, positions: bool) -> Pairing:
    """The pairing that a configuration asks for; `positions`: commands are positions."""
    if config.lockstep:
        if positions:
            raise ValueError("in lockstep the commands are velocities, got positions")
        return LockstepPairing(config)
    return TimedPairing(config, PositionTrack() if positions else VelocityTrack(config.hold))


class LockstepPairing:
    """Pairs by equal stamps; the order in which messages come does not matter."""

    def __init__(self, config: PairingConfig) -> None:
        """Start empty."""
        self.config = config
        self.commands = VelocityTrack()
        self._wanted = set(config.sources)
        self._seen: dict[int, dict[str, Any]] = {}
        self._begin = 0
        self._running = self._expected = False

    @property
    def n_rows(self) -> int:
        """See `Pairing.n_rows`."""
        return len(self._seen)

    def observe(self, source: str, stamp: int, value: Any, now: int) -> bool:
        """Keep it under its stamp; a simulator that has asked again says the same again."""
        if stamp < self._begin:
            return False
        self._seen.setdefault(stamp, {})[source] = value
        idle = not (self._running or self._expected)
        if idle and len(self._seen) > _IDLE:
            del self._seen[min(self._seen)]
            self.commands.forget(min(self._seen))
        return True

    def expect(self) -> None:
        """See `Pairing.expect`."""
        self._expected = True

    def begin(self, stamp: int | None) -> None:
        """See `Pairing.begin`; without a stamp it begins after the last episode."""
        self._running, self._expected = True, False
        if stamp is not None:
            self._forget(stamp)

    def end(self, stamp: int | None, length: int | None) -> EpisodeArrays | None:
        """See `Pairing.end`."""
        chains = [chain for chain in self._chains(stamp) if len(chain) > max(length or 1, 1)]
        if not chains:
            return None  # what there is was broken off, or is not all here yet
        # A reset amid an episode joins it to the next where nothing tells when that was.
        chain = min(chains, key=lambda chain: length is not None and len(chain) != length + 1)
        if length is not None:
            chain = chain[-length - 1 :]
        arrays = self._arrays(chain)
        self._forget(chain[-1] + 1)
        self._running = False
        return arrays

    def cancel(self) -> None:
        """See `Pairing.cancel`."""
        self._running = False

    def overlong(self) -> bool:
        """See `Pairing.overlong`."""
        return self._running and self.n_rows > self.config.longest * self.config.rate

    def _chains(self, last: int | None) -> list[list[int]]:
        """Runs of complete observations in which each was answered, and led to the next."""
        chains: list[list[int]] = []
        for stamp in sorted(self._seen):
            if self._seen[stamp].keys() < self._wanted or (last is not None and stamp > last):
                continue
            before = chains[-1][-1] if chains else None
            if (
                before is not None
                and stamp - before == self.config.period
                and self.commands.exactly(before) is not None
            ):
                chains[-1].append(stamp)
            else:
                chains.append([stamp])
        return chains

    def _arrays(self, chain: Sequence[int]) -> EpisodeArrays:
        # Multiplied and rounded as the simulator does it, so that equal means equal.
        seconds = 1.0 / self.config.rate
        axes = list(self.config.axes)
        actions = []
        for stamp in chain[:-1]:
            velocity = self.commands.exactly(stamp)
            assert velocity is not None  # that is what makes a chain
            actions.append(as_float32(velocity[axes] * seconds))
        return lay_out(self.config, [self._seen[stamp] for stamp in chain], actions, chain)

    def _forget(self, before: int) -> None:
        self._begin = before
        for stamp in [stamp for stamp in self._seen if stamp < before]:
            del self._seen[stamp]
        self.commands.forget(before)


class TimedPairing:
    """Reads the observations at a fixed rate; actions are what was commanded in between."""

    def __init__(self, config: PairingConfig, commands: VelocityTrack | PositionTrack) -> None:
        """Start empty."""
        self.config = config
        self.commands = commands
        # How old an observation may be is for its row to say; a recorder that had to wait for a
        # disk takes the rest late, but a clock that is wrong by more than that is refused.
        self._matcher = Matcher(list(config.sources), PATIENCE, config.max_skew, future=0.05)
        # Not yet in a row: an episode that begins or ends is heard of a little late.
        self._recent: deque[Matched] = deque()
        self._running = False
        self._last: Matched | None = None
        self._next = 0
        self._grid: list[int] = []
        self._rows: list[Mapping[str, Any]] = []
        self._trouble = ""

    @property
    def n_rows(self) -> int:
        """See `Pairing.n_rows`."""
        return len(self._rows)

    def observe(self, source: str, stamp: int, value: Any, now: int) -> bool:
        """Keep it if it is fresh; complete observations go on to the rows."""
        kept = self._matcher.add(source, stamp, value, now)
        matched = self._matcher.match(now) if kept else None
        if matched is None:
            return kept
        if self._recent and matched.newest < self._recent[-1].newest:
            self._recent.clear()
            self._trouble = "the clock went back within the episode"
        self._recent.append(matched)
        settled = matched.newest - round(3 * SETTLE * SECOND)
        if self._running:
            self._commit(settled)
        else:
            self.commands.forget(settled)
            while self._recent[0].newest < settled:
                self._recent.popleft()
        return kept

    def expect(self) -> None:
        """See `Pairing.expect`; what is recent is kept anyway."""

    def begin(self, stamp: int | None) -> None:
        """See `Pairing.begin`."""
        if stamp is None:
            raise ValueError("in real time an episode begins at a stamp")
        self._running, self._last, self._trouble = True, None, ""
        self._grid, self._rows = [], []
        while self._recent and self._recent[0].oldest < stamp:
            self._recent.popleft()
        self.commands.forget(stamp)

    def end(self, stamp: int | None, length: int | None) -> EpisodeArrays | None:
        """See `Pairing.end`; what was commanded after the last full period is left out."""
        if stamp is None:
            raise ValueError("in real time an episode ends at a stamp")
        self._commit(stamp)
        self._fill(stamp)
        n_rows = bisect.bisect_right(self._grid, stamp)  # fewer, if the end was told very late
        del self._grid[n_rows:], self._rows[n_rows:]
        self._running = False
        if self._trouble:
            raise ValueError(self._trouble)
        if len(self._rows) < 2:
            raise ValueError("the episode is shorter than one period")
        actions = [self._action(begin, end) for begin, end in itertools.pairwise(self._grid)]
        return lay_out(self.config, self._rows, actions, self._grid)

    def cancel(self) -> None:
        """See `Pairing.cancel`."""
        self._running = False
        self._rows, self._grid = [], []

    def overlong(self) -> bool:
        """See `Pairing.overlong`."""
        return self._running and self.n_rows > self.config.longest * self.config.rate

    def _commit(self, until: int) -> None:
        while self._recent and self._recent[0].newest <= until:
            matched = self._recent.popleft()
            if self._last is not None:
                # Strictly before: at the moment itself, this observation is the better one.
                self._fill(matched.newest - 1)
            else:
                self._next = matched.newest
            self._last = matched

    def _fill(self, until: int) -> None:
        """Rows up to a time, all of the last observation before them."""
        while self._last is not None and self._next <= until and not self._trouble:
            late = self._next - self._last.newest
            if late > self.config.max_age * SECOND:
                after = (self._next - self._grid[0]) / SECOND
                self._trouble = (
                    f"no observation for {late / SECOND:.2f} s, {after:.1f} s into the episode"
                )
                return
            self._grid.append(self._next)
            self._rows.append(self._last.values)
            self._next += self.config.period

    def _action(self, begin: int, end: int) -> NDArray[np.float32]:
        way = self.commands.displacement(begin, end)
        axes = list(self.config.axes)
        return as_float32(np.zeros(len(axes)) if way is None else way[axes])
