"""Scripted experts for sorting, with displacements and with whole pushes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from envs.tabletop.effectors import RADIUS
from envs.tabletop.push_primitive import MAX_PUSH
from envs.tabletop.scene import WORKSPACE_HIGH, WORKSPACE_LOW
from envs.tabletop.steering import face_headings

if TYPE_CHECKING:
    from envs.tabletop.sorting import BlockSortingEnv

Mode = Literal["consistent", "diverse"]
Array = NDArray[np.float64]

_HALF = 0.015
_MARGIN = 0.018
"""How far behind the zone's edge a block's centre is aimed: neighbours may still nudge it back."""


def _check_mode(mode: str) -> bool:
    if mode not in ("consistent", "diverse"):
        raise ValueError(f"mode must be 'consistent' or 'diverse', got {mode!r}")
    return mode == "diverse"


def square_distance(points: Array, poses: Array, half: float) -> Array:
    """Distance from points to squares.

    Args:
        points: `(m, 2)` in metres.
        poses: `(n, 3)` x, y, yaw of the squares.
        half: their half width.

    Returns:
        `(m, n)` distance in metres, 0 inside.
    """
    offset = points[:, None] - poses[None, :, :2]
    cos, sin = np.cos(poses[:, 2]), np.sin(poses[:, 2])
    local = np.stack(
        [cos * offset[..., 0] + sin * offset[..., 1], cos * offset[..., 1] - sin * offset[..., 0]], -1
    )
    return np.asarray(np.hypot(*np.moveaxis(np.maximum(np.abs(local) - half, 0.0), -1, 0)))


@dataclass(frozen=True)
class _Push:
    """One possible push of one block."""

    block: int
    value: float
    """Metres of progress it promises, less the harm it may do."""
    clean: bool
    """It brings its block into the zone and touches no other."""
    action: Array


class SortPrimitiveExpert:
    """Sorts by whole pushes through the centre of a face, one or two per block.

    `consistent` takes the first block in the order of the state vector that one push can bring in
    without touching another, by its face closest to the zone; failing that, the push that promises
    most. `diverse` takes any of the former, by any useful face.
    """

    _RUN_UPS = (0.012, 0.006, 0.02, 0.03, 0.003)
    _FREE = 0.003
    """Gap that must stay between the descending finger and every block, metres."""
    _CORRIDOR = 2 * _HALF * 1.25
    """Other blocks nearer to the pushed block's path than this are taken along."""

    def __init__(
        self, env: BlockSortingEnv, mode: Mode = "consistent", seed: int | None = None
    ) -> None:
        """Draw the episode's style from `seed`; `consistent` draws nothing."""
        self._diverse = _check_mode(mode)
        self._env = env
        self._rng = np.random.default_rng(seed)

    def act(self, obs: Any, info: dict[str, Any]) -> NDArray[np.float32]:
        """`(4,)` push: start and displacement in metres. Reads the simulator, not `obs`."""
        poses = self._env.scene.block_poses()
        pushes = self._pushes(poses)
        if not pushes:
            return np.zeros(4, np.float32)
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
        if gain > 0.6:
            length = min(missing / gain, longest)
        else:
            length = min(0.06, longest)  # sideways, out of a jam
        # Stay on the table's reachable part.
        center = poses[block, :2]
        room = np.where(forward > 0, WORKSPACE_HIGH - center, center - WORKSPACE_LOW) - 0.03
        length = min(length, float((room / np.maximum(np.abs(forward), 1e-9)).min()))
        if length < 0.005:
            return None
        harm, touched = self._harm(poses, block, forward, length)
        value = gain * length - harm
        clean = gain > 0.6 and gain * length > missing - 1e-6 and not touched
        start = center - forward * (_HALF + RADIUS + run_up)
        return _Push(
            block, value, clean, np.concatenate([start, forward * (run_up + length)])
        )

    def _run_up(self, poses: Array, block: int, forward: Array) -> float | None:
        """Gap at the start such that the finger comes down on the free table, or None."""
        gaps = np.array(self._RUN_UPS)
        starts = poses[block, :2] - forward * (_HALF + RADIUS + gaps)[:, None]
        others = np.delete(poses, block, axis=0)
        free = (square_distance(starts, others, _HALF) > RADIUS + self._FREE).all(axis=1)
        free &= ((starts > WORKSPACE_LOW) & (starts < WORKSPACE_HIGH)).all(axis=1)
        usable = np.flatnonzero(free)
        return float(gaps[usable[0]]) if len(usable) else None

    def _harm(
        self, poses: Array, block: int, forward: Array, length: float
    ) -> tuple[float, bool]:
        """Metres by which other blocks are set back, and whether any is touched."""
        env = self._env
        offset = poses[:, :2] - poses[block, :2]
        along = offset @ forward
        across = np.abs(offset @ np.array([-forward[1], forward[0]]))
        hit = (along > 0) & (along < length + self._CORRIDOR) & (across < self._CORRIDOR)
        hit[block] = False
        carried = np.maximum(length + 2 * _HALF - along, 0.005)
        setback = -carried * forward[1] * env.signs
        # A block of the same colour is taken along, less surely the further it is off the line.
        setback = np.where(setback < 0, 0.5 * setback * (1 - across / self._CORRIDOR), setback)
        placed = env.signs * poses[:, 1] > env.zone_edge
        setback = np.where(placed & (setback < 0), 0.0, setback)
        return float(setback[hit].sum() + 0.01 * hit.sum()), bool(hit.any())


def _straightness(push: _Push) -> float:
    return abs(float(push.action[3])) / float(np.hypot(*push.action[2:]))


class SortExpert:
    """Sorts by displacements."""

    def __init__(
        self, env: BlockSortingEnv, mode: Mode = "consistent", seed: int | None = None
    ) -> None:
        """Draw the episode's style from `seed`; `consistent` draws nothing."""
        self._diverse = _check_mode(mode)
        self._env = env

    def act(self, obs: Any, info: dict[str, Any]) -> NDArray[np.float32]:
        """Placeholder until the delta expert lands."""
        raise NotImplementedError
