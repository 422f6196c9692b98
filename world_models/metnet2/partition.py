"""Forecasts of any extent within a bound of memory, equal to those made in one piece.

The code of the past is computed tile by tile into one coarse map; each lead time is then decoded
tile by tile from it. A tile brings as much around it as the layers look (`config.encode_reach`,
`decode_reach`, `fine_reach`), and in Lagrangian coordinates all that its cells come from. Nothing
is normalised over places, so parts give what the whole gives.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from world_models.metnet2.config import MetNet2Config
from world_models.metnet2.inputs import Past, part_of, past_frames, ways
from world_models.metnet2.model import Code, MetNet2, Window
from world_models.metnet2.motion import sources, warp_part

_BYTES = 4
_LEAST_TILE = 16
_STRIP = 2**16
"""Cells that the finest layers take at a time: half the time of all at once, on a CPU."""


def padded_shape(rows: int, columns: int, config: MetNet2Config) -> tuple[int, int]:
    """Rows and columns raised to multiples of `downsample`."""
    size = config.downsample
    return -(-rows // size) * size, -(-columns // size) * size


@torch.no_grad()
def encode(model: MetNet2, past: Past, velocity: Tensor | None, tile: int | None = None) -> Code:
    """The code of a past, in one piece or by tiles.

    Args:
        model: in evaluation mode.
        past: of the whole view.
        velocity: of `inputs.motion_of`; None in Eulerian coordinates.
        tile: cells of a side of a tile, a multiple of `downsample`; None: one piece.
    """
    config = model.config
    shape = padded_shape(past.frames.shape[-2], past.frames.shape[-1], config)
    if tile is None:
        frames = past_frames(past, velocity, config, (0, 0, *shape))
        return model.encode(frames[None].to(model.device))
    size = config.downsample
    latent = torch.empty(1, config.width, shape[0] // size, shape[1] // size, device=model.device)
    now = torch.empty(1, 2, *shape, device=model.device)
    nearby = None
    if config.scales:
        planes = (1, len(config.scales), config.levels)
        nearby = torch.empty(*planes, *latent.shape[-2:], device=model.device)
    for window in tiles(shape, tile, size):
        around, inner = grown(window, config.encode_reach * size, shape)
        frames = past_frames(past, velocity, config, around)
        code = model.encode(frames[None].to(model.device))
        fine, coarse = _slices(window), _slices(_divided(window, size))
        now[(..., *fine)] = code.now[(..., *_slices(inner))]
        part = _slices(_divided(inner, size))
        latent[(..., *coarse)] = code.latent[(..., *part)]
        if nearby is not None and code.nearby is not None:
            nearby[(..., *coarse)] = code.nearby[(..., *part)]
    return Code(latent, now, nearby)


@torch.no_grad()
def decode(
    model: MetNet2,
    code: Code,
    velocity: Tensor | None,
    lead: float,
    tile: int | None = None,
    target: str = "",
) -> Tensor:
    """Probabilities of the bins at one lead time.

    Args:
        model: in evaluation mode.
        code: of `encode`.
        velocity: as given there.
        lead: seconds.
        tile: cells of a side of a tile, a multiple of `downsample`; None: one piece.
        target: which head; the first if empty.

    Returns:
        `(K, H, W)` on the padded grid.
    """
    config = model.config
    rows, columns = code.now.shape[-2:]
    chances = torch.empty(config.n_bins, rows, columns, device=model.device)
    name = target or config.targets[0]
    way = None if velocity is None else ways(velocity, [lead], config)
    seconds = torch.tensor([lead], device=model.device)
    embedded = None if model.lead_time is None else model.lead_time(seconds)
    for window in tiles((rows, columns), tile or max(rows, columns), config.downsample):
        around, inner = grown(window, config.fine_reach, (rows, columns), config.downsample)
        latent, now = _arriving(model, code, way, around, embedded)
        found = _finished(model, latent, now, embedded, name)
        chances[(slice(None), *_slices(window))] = found[(..., *_slices(inner))]
    return chances


def _finished(
    model: MetNet2, latent: Tensor, now: Tensor, lead: Tensor | None, target: str
) -> Tensor:
    """Probabilities from what has arrived, `(K, H, W)`, in strips that stay in the cache."""
    config, size = model.config, model.config.downsample
    shape = (now.shape[-2], now.shape[-1])
    out = torch.empty(config.n_bins, *shape, device=now.device)
    height = max(size, _STRIP // shape[1] // size * size)
    for top in range(0, shape[0], height):
        strip = (top, 0, min(height, shape[0] - top), shape[1])
        around, inner = grown(strip, config.fine_reach, shape, size)
        part = (..., *_slices(_divided(around, size)))
        found = model.chances(latent[part], now[(..., *_slices(around))], lead, target)
        out[(slice(None), *_slices(strip))] = found[0][(..., *_slices(inner))]
    return out


def _arriving(
    model: MetNet2, code: Code, way: Tensor | None, window: Window, lead: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Latents and newest values that are in a window at the lead time."""
    config, size = model.config, model.config.downsample
    coarse = _divided(window, size)
    shape = (code.latent.shape[-2], code.latent.shape[-1])
    if way is None:
        around, inner = grown(coarse, config.decode_reach, shape)
        latent = _led(model, code, around, inner, lead)
        return latent, code.now[(..., *_slices(window))]
    move = part_of(way, config.motion.levels[-1], window)[0].to(model.device)
    now = warp_part(code.now[0], move, window[:2])[None]
    slow = F.avg_pool2d(move[None], size)[0] / size
    box = sources(slow, coarse[:2], shape)
    if box is None:
        planes = config.width + (config.levels if config.scales else 0)
        return code.latent.new_zeros(1, planes, *coarse[2:]), now
    around, inner = grown(box, config.decode_reach, shape)
    latent = _led(model, code, around, inner, lead)
    corner = (coarse[0] - box[0], coarse[1] - box[1])
    return warp_part(latent[0], slow, corner)[None], now


def _led(model: MetNet2, code: Code, around: Window, inner: Window, lead: Tensor | None) -> Tensor:
    """What the lead time makes of a part of the code, computed with what is around it."""
    part = (..., *_slices(around))
    nearby = None if code.nearby is None else code.nearby[part]
    return model.lead_latent(code.latent[part], nearby, lead)[(..., *_slices(inner))]


def tiles(shape: tuple[int, int], tile: int, size: int) -> Iterator[Window]:
    """Windows that cover a grid without overlap.

    Raises:
        ValueError: if a tile is not a multiple of `size`.
    """
    if tile < 1 or (tile % size and tile < max(shape)):
        raise ValueError(f"tile must be a multiple of {size} cells, got {tile}")
    for top in range(0, shape[0], tile):
        for left in range(0, shape[1], tile):
            yield top, left, min(tile, shape[0] - top), min(tile, shape[1] - left)


def grown(
    window: Window, reach: int, shape: tuple[int, int], size: int = 1
) -> tuple[Window, Window]:
    """A window with what is around it, and where it lies in that.

    Args:
        window: inside the grid.
        reach: cells on every side, as far as the grid goes.
        shape: rows and columns of the grid.
        size: the reach is raised to a multiple of it.
    """
    reach = -(-reach // size) * size
    top, left, rows, columns = window
    first_row, first_column = max(0, top - reach), max(0, left - reach)
    last_row = min(shape[0], top + rows + reach)
    last_column = min(shape[1], left + columns + reach)
    around = (first_row, first_column, last_row - first_row, last_column - first_column)
    return around, (top - first_row, left - first_column, rows, columns)


def tile_for(config: MetNet2Config, megabytes: float) -> int:
    """The largest tile whose layers stay within a bound; maps of the whole view come on top.

    Counted are the values that are alive at once in the widest layers, at 4 bytes.

    Raises:
        ValueError: if not even the smallest tile does.
    """
    size = config.downsample
    best = 0
    tile = -(-_LEAST_TILE // size) * size
    while tile <= 2**15 and tile_bytes(config, tile) <= megabytes * 2**20:
        best, tile = tile, tile + size
    if not best:
        least = tile_bytes(config, -(-_LEAST_TILE // size) * size) / 2**20
        raise ValueError(f"a tile takes at least {least:.0f} MiB, got a bound of {megabytes:g}")
    return best


def tile_bytes(config: MetNet2Config, tile: int) -> int:
    """Bytes that the layers of a tile take, about; see `tile_for`."""
    size = config.downsample
    side = tile + 2 * config.encode_reach * size
    frames = 3 * config.n_frames * config.in_channels
    encoding = side**2 * frames + (side / size) ** 2 * (10 * config.lstm_width + 4 * config.width)
    coarse = (tile / size + 2 * config.decode_reach + 2) ** 2 * 5 * config.width
    fine_side = tile + 2 * config.fine_reach
    widest = max(5 * config.fine_width, 2 * config.head_width + 3 * config.n_bins)
    return int(_BYTES * max(encoding, coarse + fine_side**2 * widest))


def _divided(window: Window, size: int) -> Window:
    top, left, rows, columns = window
    return top // size, left // size, rows // size, columns // size


def _slices(window: Window) -> tuple[slice, slice]:
    top, left, rows, columns = window
    return slice(top, top + rows), slice(left, left + columns)
