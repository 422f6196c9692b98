"""Blocks that are pushed over a table, as a map of what is occupied sees them.

`decisive/BlockSorting-v0` played by its scripted expert; every block is a square, the effector a
disc. Seen from above, with everything known: no sensor, no shadows. Synthetic.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from envs.rasters import Mask, Raster
from envs.tabletop.effectors import RADIUS
from envs.tabletop.scene import WORKSPACE_HIGH, WORKSPACE_LOW
from envs.tabletop.sorting import HALF, BlockSortingEnv

PERIOD = 0.1
"""Seconds between two pictures: a control step."""


def table_raster(cell: float = 0.005) -> Raster:
    """The whole table that the effector reaches, 0.5 m deep and 0.96 m wide."""
    low, high = WORKSPACE_LOW, WORKSPACE_HIGH
    columns, rows = (math.ceil(side / cell - 1e-9) for side in (high - low).tolist())
    return Raster(float(low[0]), float(high[1]), cell, rows, columns)


def table_occupancy(
    env: BlockSortingEnv, frames: int, raster: Raster, seed: int, stream: str = "record"
) -> tuple[NDArray[np.bool_], Mask]:
    """What blocks and effector cover.

    The episode goes on until there are enough pictures; where it ends before, another follows, with
    which the pictures begin anew, so that nothing jumps.

    Args:
        env: with control by displacements.
        frames: how many pictures.
        raster: the grid, world frame.
        seed: of the episode.
        stream: of `envs.seeding`.

    Returns:
        `(T, H, W)` of blocks and effector, and `(H, W)` of what stands still: nothing.

    Raises:
        ValueError: if no episode of ten is long enough.
    """
    for attempt in range(10):
        found = _episode(env, frames, raster, seed * 10 + attempt, stream)
        if len(found) == frames:
            return np.stack(found), raster.empty()
    raise ValueError(f"episodes end before {frames} pictures; ask for fewer")


def _episode(
    env: BlockSortingEnv, frames: int, raster: Raster, seed: int, stream: str
) -> list[Mask]:
    obs, info = env.reset(seed=seed, options={"stream": stream})
    expert = env.expert("diverse", seed)
    skipped = int(np.random.default_rng(seed).integers(0, 10 * env.n_blocks))
    found: list[Mask] = []
    for step in range(skipped + frames):
        if step >= skipped:
            found.append(_picture(env, raster))
        obs, _, terminated, truncated, info = env.step(expert.act(obs, info))
        if terminated or truncated:
            break
    return found


def _picture(env: BlockSortingEnv, raster: Raster) -> Mask:
    mask = raster.empty()
    for x, y, yaw in env.scene.block_poses().tolist():
        raster.square(mask, x, y, yaw, HALF)
    x, y = env.scene.tip()[:2].tolist()
    raster.disc(mask, x, y, RADIUS)
    return mask
