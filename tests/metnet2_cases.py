"""A tiny MetNet-2 and synthetic rain that moves, for tests."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from learning.grid_sequence import GridSequence
from world_models.metnet2.config import MetNet2Config
from world_models.metnet2.model import MetNet2
from world_models.metnet2.motion import MotionConfig

TINY = MetNet2Config(
    edges=(0.0, 0.1, 0.5, 2.0, 8.0),
    n_frames=3,
    n_leads=4,
    context=32,
    target=16,
    lstm_width=6,
    width=8,
    shared_dilations=(1,),
    lead_dilations=(1, 2),
    lead_width=8,
    fine_width=6,
    head_width=8,
    levels=5,
    scales=(4.0, 8.0),
    dropout=0.0,
    motion=MotionConfig(window=8.0, levels=(4, 2), frames=3),
)


def tiny(seed: int = 0, **changes: Any) -> MetNet2:
    """An untrained network whose forecasts are far from even."""
    torch.manual_seed(seed)
    model = MetNet2(replace(TINY, **changes))
    with torch.no_grad():
        for head in model.heads.values():
            head[-1].weight.mul_(20)  # type: ignore[index]
    return model.eval()


def rain(
    n: int = 9,
    shape: tuple[int, int] = (48, 56),
    velocity: tuple[float, float] = (1.5, -0.5),
    seed: int = 0,
    unknown: bool = True,
) -> GridSequence:
    """Smooth cells of synthetic rain that move by (x, y) cells a frame, five minutes apart."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(-20, max(shape) + 20, (40, 2))
    heights = rng.uniform(1.0, 6.0, 40)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    frames = np.zeros((n, 1, *shape), np.float32)
    for k in range(n):
        for (cx, cy), height in zip(centres, heights, strict=True):
            apart = (x - cx - k * velocity[0]) ** 2 + (y - cy - k * velocity[1]) ** 2
            frames[k, 0] += (height * np.exp(-apart / 18)).astype(np.float32)
    frames[frames < 0.05] = 0
    if unknown:
        frames[:, :, :6, :8] = np.nan
    times = 1_475_000_000 + 300 * np.arange(n, dtype=np.int64)
    return GridSequence(frames, ("rain_rate",), times, 1000.0, "synthetic rain")
