"""Painted toy houses, a plain projection, and tiny networks for the tests of Pathdreamer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from envs.indoor.categories import ID
from envs.indoor.equirectangular import directions, pixels
from world_models.pathdreamer.config import (
    DiscriminatorConfig,
    ImageConfig,
    PathdreamerConfig,
    StructureConfig,
)
from world_models.pathdreamer.inputs import GuidanceBatch
from world_models.pathdreamer.model import Pathdreamer
from world_models.pathdreamer.panoramas import House, PanoramaSet, Seen

TINY = PathdreamerConfig(
    height=32,
    structure=StructureConfig(
        width=16,
        multipliers=(1, 2, 2, 2),
        encoder_blocks=(1, 1, 1, 1),
        decoder_blocks=(1, 1, 1, 1),
        stem_kernel=3,
        code=16,
        latent=4,
        detail=12,
    ),
    image=ImageConfig(channels=(32, 24, 16), upsample_after=(0, 1), hidden=8, spectral_norm=True),
    discriminator=DiscriminatorConfig(scales=2, width=8, layers=3),
)
"""Some ten thousand parameters, 32 x 64 pixels."""

COLOURS = {"wall": (200, 190, 170), "floor": (120, 80, 50), "ceiling": (240, 240, 240)}


@dataclass(frozen=True)
class Arrays:
    """Guidance as arrays."""

    rgb: NDArray[np.uint8]
    semantic: NDArray[np.uint8]
    depth: NDArray[np.float32]
    valid: NDArray[np.bool_]
    filled_rgb: NDArray[np.uint8]
    filled_semantic: NDArray[np.uint8]
    filled_depth: NDArray[np.float32]


def make_guidance(seen: Sequence[Seen], position: NDArray[np.float64]) -> Arrays:
    """Nearest point of every pixel, and holes filled from their nearest valid pixel."""
    height, width = seen[0].semantic.shape
    rays = directions(height, width)
    points, colours, ids = [], [], []
    for panorama in seen:
        known = panorama.depth > 0
        points.append(panorama.position + rays[known] * panorama.depth[known][:, None])
        colours.append(panorama.rgb[known])
        ids.append(panorama.semantic[known])
    offsets = np.concatenate(points) - position
    distance = np.linalg.norm(offsets, axis=1)
    near = np.flatnonzero(distance > 1e-6)
    order = near[np.argsort(-distance[near], kind="stable")]  # the nearest is written last
    row, column = pixels(offsets[order], height, width)
    winner = np.full((height, width), -1)
    winner[row, column] = order
    valid = winner >= 0
    rgb = np.where(valid[..., None], np.concatenate(colours)[winner], 0).astype(np.uint8)
    semantic = np.where(valid, np.concatenate(ids)[winner], 0).astype(np.uint8)
    depth = np.where(valid, distance[winner], 0).astype(np.float32)
    source = nearest_valid(valid)
    return Arrays(
        rgb,
        semantic,
        depth,
        valid,
        rgb.reshape(-1, 3)[source],
        semantic.ravel()[source],
        depth.ravel()[source],
    )


def nearest_valid(valid: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Flat number of the valid pixel nearest to each, columns wrapping around."""
    height, width = valid.shape
    rows, columns = np.nonzero(valid)
    if not len(rows):
        return np.arange(height * width).reshape(height, width)
    up = np.arange(height)[:, None, None] - rows
    across = np.abs(np.arange(width)[None, :, None] - columns)
    across = np.minimum(across, width - across)
    best = (up**2 + across**2).argmin(axis=-1)
    return rows[best] * width + columns[best]


def painted_house(rng: np.random.Generator, name: str, height: int = 32, rooms: int = 4) -> House:
    """Rooms one behind the other, joined by doorways; a viewpoint in the middle of each.

    Everything behind a doorway is a hole of the guidance, and always a room like the others.
    """
    walls = np.concatenate([[0.0], np.cumsum(rng.uniform(3.0, 4.5, rooms))])
    half = rng.uniform(1.4, 2.0)
    vertical = bool(rng.integers(2))
    tint = rng.uniform(0.6, 1.0, 3)
    middles = 0.5 * (walls[:-1] + walls[1:])
    rays = directions(height, 2 * height)
    panoramas = []
    for middle in middles:
        position = np.array([middle, rng.uniform(-0.3, 0.3), 1.5])
        panoramas.append(_painted(rays, position, walls, half, tint))
    if vertical:
        panoramas = [_quarter_turn(panorama) for panorama in panoramas]
    neighbors = tuple(tuple(n for n in (k - 1, k + 1) if 0 <= n < rooms) for k in range(rooms))
    return House(name, panoramas, neighbors)


def painted_set(seed: int, houses: int, height: int = 32) -> PanoramaSet:
    """A set of painted houses in memory."""
    rng = np.random.default_rng(seed)
    return PanoramaSet.of_houses(painted_house(rng, f"house-{k}", height) for k in range(houses))


def _painted(
    rays: NDArray[np.float64],
    position: NDArray[np.float64],
    walls: NDArray[np.float64],
    half: float,
    tint: NDArray[np.float64],
) -> Seen:
    depth = np.full(rays.shape[:2], np.inf)
    semantic = np.zeros(rays.shape[:2], np.uint8)

    def meet(axis: int, at: float, name: str, doorway: bool = False) -> None:
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = (at - position[axis]) / rays[..., axis]
            hits = (distance > 0) & (distance < depth)
            if doorway:
                where = position + distance[..., None] * rays
                hits &= (np.abs(where[..., 1]) > 0.5) | (where[..., 2] > 2.1)
        depth[hits] = distance[hits]
        semantic[hits] = ID[name]

    meet(2, 0.0, "floor")
    meet(2, 2.7, "ceiling")
    for side in (-half, half):
        meet(1, side, "wall")
    for number, at in enumerate(walls):
        meet(0, at, "wall", doorway=0 < number < len(walls) - 1)
    rgb = np.zeros((*semantic.shape, 3))
    for name, colour in COLOURS.items():
        rgb[semantic == ID[name]] = np.array(colour) * (tint if name == "wall" else 1.0)
    return Seen(rgb.astype(np.uint8), semantic, depth.astype(np.float32), position)


def _quarter_turn(seen: Seen) -> Seen:
    """The same room along +y."""
    quarter = seen.semantic.shape[1] // 4
    x, y, z = seen.position
    angle = math.pi / 2
    turned = np.array(
        [x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle), z]
    )
    return Seen(
        np.roll(seen.rgb, -quarter, axis=1),
        np.roll(seen.semantic, -quarter, axis=1),
        np.roll(seen.depth, -quarter, axis=1),
        turned,
    )


def some_guidance(
    batch: int = 2, height: int = 32, share: float = 0.4, seed: int = 0, classes: int = 41
) -> GuidanceBatch:
    """Random guidance whose fillings are random too, but equal where it is valid."""
    rng = torch.Generator().manual_seed(seed)
    shape = (batch, height, 2 * height)
    valid = torch.rand(shape, generator=rng) < share
    rgb = torch.rand((batch, 3, *shape[1:]), generator=rng)
    semantic = torch.randint(classes, shape, generator=rng)
    depth = 0.2 + 9 * torch.rand(shape, generator=rng)
    return GuidanceBatch(
        rgb * valid[:, None], semantic * valid, depth * valid, valid, rgb, semantic, depth
    )


def wake(module: nn.Module) -> None:
    """Random weights for a head that starts at zero."""
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)


def tiny(awake: bool = True, config: PathdreamerConfig = TINY) -> Pathdreamer:
    """Asleep it copies the nearest pixel into every hole; awake it makes things up."""
    torch.manual_seed(0)
    model = Pathdreamer(config)
    if awake:
        for head in (model.structure.head, model.image.head):
            for parameter in head.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()
