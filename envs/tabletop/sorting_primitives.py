"""Scripted expert for sorting by whole pushes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from envs.tabletop.effectors import RADIUS
from envs.tabletop.push_primitive import MAX_PUSH
from envs.tabletop.routes import Array, square_distance
from envs.tabletop.scene import WORKSPACE_HIGH, WORKSPACE_LOW
from envs.tabletop.sorting_experts import CONTACT, HALF, Mode, check_mode, stray
from envs.tabletop.steering import face_headings

if TYPE_CHECKING:
    from envs.tabletop.sorting import BlockSortingEnv

_MARGIN = 0.018
"""How far behind the zone's edge a block's centre is aimed: neighbours may still nudge it back."""
_JAMMED = 0.04
"""Cost of a sideways push that takes another block along, in metres of progress."""
_STRAY_COST = 8.0
"""Blocks far from the middle are out of reach, so a push counts that many times where it strays."""


@dataclass(frozen=True)
class _Push:
    """One possible push of one block."""

    block: int
    value: float
    """Metres of progress it promises, less the harm it may do."""
    clean: bool
    """It brings its block into the zone and touches no other."""
    action: Array

    @property
    def key(self) -> tuple[int, int]:
        """Block and rough direction."""
        return self.block, round(math.atan2(self.action[3], self.action[2]) / (math.pi / 4)) % 8


class SortPrimitiveExpert:
    """Sorts by whole pushes through the centre of a face, one or two per block.

    `consistent` takes the first block in the order of the state vector that one push can bring in
    without touching another, by its face closest to the zone; failing that, the push that promises
    most. `diverse` takes any of the former, by any useful face.
    """

    _RUN_UPS = (0.012, 0.006, 0.02, 0.03, 0.003)
    _FREE = 0.003
    """Gap that must stay between the descending finger and every block, metres."""
    _CORRIDOR = 2 * HALF * 1.25
    """Other blocks nearer to the pushed block's path than this are taken along."""

    def __init__(
        self, env: BlockSortingEnv, mode: Mode = "consistent", seed: int | None = None
    ) -> None:
        """Draw the episode's style from `seed`; `consistent` draws nothing."""
        self._diverse = check_mode(mode)
        self._env = env
        self._rng = np.random.default_rng(seed)
        self._before: Array | None = None
        self._futile: set[tuple[int, int]] = set()
        """Pushes tried since anything moved: something unforeseen is in their way."""

    def act(self, obs: Any, info: dict[str, Any]) -> NDArray[np.float32]:
        """`(4,)` push: start and displacement in metres. Reads the simulator, not `obs`."""
        poses = self._env.scene.block_poses()
        if self._before is not None and np.abs(poses - self._before)[:, :2].max() > 0.003:
            self._futile.clear()
        self._before = poses
        pushes = [push for push in self._pushes(poses) if push.key not in self._futile]
        if not pushes:
            self._futile.clear()
            here = np.clip(self._env.target, WORKSPACE_LOW, WORKSPACE_HIGH)
            return np.array([*here, 0.0, 0.0], np.float32)
        clean = [push for push in pushes if push.clean]
        if self._diverse:
            best = max(push.value for push in pushes)
            choices = clean or [push for push in pushes if push.value > best - 0.02]
            chosen = choices[int(self._rng.integers(len(choices)))]
        elif clean:
            first = min(push.block for push in clean)
            chosen = max((push for push in clean if push.block == first), key=_straightness)
        else:
            chosen = max(pushes, key=lambda push: push.value)
        self._futile.add(chosen.key)
        return chosen.action.astype(np.float32)

    def _pushes(self, poses: Array) -> list[_Push]:
        env = self._env
        missing = env.zone_edge + _MARGIN - env.signs * poses[:, 1]
        unsorted = np.flatnonzero(missing > _MARGIN)
        return [
            push
            for block in unsorted
            for heading in face_headings(float(poses[block, 2]))
            if (push := self._push(poses, int(block), heading, float(missing[block]))) is not None
        ]

    def _push(self, poses: Array, block: int, heading: float, missing: float) -> _Push | None:
        forward = np.array([math.cos(heading), math.sin(heading)])
        gain = float(self._env.signs[block] * forward[1])
        run_up = self._run_up(poses, block, forward)
        if run_up is None:
            return None
        longest = MAX_PUSH / float(np.abs(forward).max()) - run_up
        # Towards the zone as far as is missing; sideways only a little, out of a jam.
        length = min(missing / gain if gain > 0.6 else 0.06, longest)
        center = poses[block, :2]
        # The finger stops at the edge of its workspace.
        room = np.where(forward > 0, WORKSPACE_HIGH - center, center - WORKSPACE_LOW)
        room = room / np.maximum(np.abs(forward), 1e-6) + CONTACT
        length = min(length, float(room.min()))
        if length < 0.01:
            return None
        end = center + forward * length
        strayed = max(stray(end[0]) - stray(center[0]), 0.0)
        harm, touched = self._harm(poses, block, forward, length)
        value = gain * length - harm - _STRAY_COST * strayed
        if touched and gain <= 0.6:
            value -= _JAMMED  # two blocks side by side would go to and fro for ever
        clean = gain > 0.6 and gain * length > missing - 1e-6 and not touched and strayed == 0.0
        start = center - forward * (HALF + RADIUS + run_up)
        return _Push(block, value, clean, np.concatenate([start, forward * (run_up + length)]))

    def _run_up(self, poses: Array, block: int, forward: Array) -> float | None:
        """Gap at the start such that the finger comes down on the free table, or None."""
        gaps = np.array(self._RUN_UPS)
        starts = poses[block, :2] - forward * (HALF + RADIUS + gaps)[:, None]
        others = np.delete(poses, block, axis=0)
        free = (square_distance(starts, others, HALF) > RADIUS + self._FREE).all(axis=1)
        free &= ((starts > WORKSPACE_LOW) & (starts < WORKSPACE_HIGH)).all(axis=1)
        usable = np.flatnonzero(free)
        return float(gaps[usable[0]]) if len(usable) else None

    def _harm(self, poses: Array, block: int, forward: Array, length: float) -> tuple[float, bool]:
        """Metres by which other blocks are set back, and whether any is touched."""
        env = self._env
        offset = poses[:, :2] - poses[block, :2]
        along = offset @ forward
        across = np.abs(offset @ np.array([-forward[1], forward[0]]))
        hit = (along > 0) & (along < length + self._CORRIDOR) & (across < self._CORRIDOR)
        hit[block] = False
        carried = np.maximum(length + 2 * HALF - along, 0.005)
        setback = -carried * forward[1] * env.signs
        # A block of the same colour is taken along, less surely the further it is off the line.
        setback = np.where(setback < 0, 0.5 * setback * (1 - across / self._CORRIDOR), setback)
        placed = env.signs * poses[:, 1] > env.zone_edge
        setback = np.where(placed & (setback < 0), 0.0, setback)
        strayed = stray(poses[:, 0] + carried * forward[0]) - stray(poses[:, 0])
        harm = setback + 0.01 + _STRAY_COST * np.maximum(strayed, 0.0)
        return float(harm[hit].sum()), bool(hit.any())


def _straightness(push: _Push) -> float:
    return abs(float(push.action[3])) / float(np.hypot(*push.action[2:]))
