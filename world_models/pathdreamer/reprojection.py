"""Points to panorama: which one every pixel sees.

Depth and number of a point are packed into one integer, and the least integer of a pixel wins. So
every pixel is one real point with all its channels. The public release (google-research/pathdreamer
`utils/pano_utils.py`) scatters twice and takes the greatest class number and the greatest of each
colour channel among the points near the front: labels and colours that no point has.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from world_models.pathdreamer.equirectangular import Floats, flat_pixels

_ONE = 1 << 32
"""One in the upper half of a key."""
_LOWER = np.uint64(_ONE - 1)
_BLOCK = 1 << 15
"""Points at a time: so few stay in the cache, and torch starts no threads for them."""
_VECTOR = 64
"""Blocks are multiples of it, filled up with distance 0, which is not seen: what is left over after
whole vectors torch rounds otherwise, and a pixel would depend on a point's place in the cloud."""
_RUN_BITS = 10
_RUN = 1 << _RUN_BITS
_GAP = 8
"""So many keys, a line of the cache, are left out after every run of pixels. Rows of 1024 keys are
8 KiB long: without gaps all pixels of a column share a few lines of the cache, and points of a
memory, of which those above each other follow each other, take three times as long to write."""
_FURTHEST = 1e18
"""Metres; the square is still a float32."""


def nearest_points(
    points: Floats, camera: NDArray[np.floating], size: tuple[int, int], max_depth: float = math.inf
) -> tuple[NDArray[np.int64], Floats]:
    """The nearest point in every pixel of the panorama from `camera`.

    Points that are not finite, at the camera itself or further away than `max_depth` are not seen.
    Of two points equally far away the first is.

    Args:
        points: `(3, N)` float32 in the world frame, metres; each row contiguous.
        camera: `(3,)` position, metres.
        size: `(height, width)` of the panorama.
        max_depth: metres.

    Returns:
        `(height, width)` number of the point, -1 where there is none, and `(height, width)` its
        distance, 0 where there is none.

    Raises:
        ValueError: for shapes that do not fit, a camera that is not finite, or an empty size.
    """
    height, width = size
    camera = np.asarray(camera, np.float32)
    if points.ndim != 2 or points.shape[0] != 3 or points.dtype != np.float32:
        raise ValueError(f"points must be (3, N) float32, got {points.shape} {points.dtype}")
    if camera.shape != (3,) or not np.isfinite(camera).all():
        raise ValueError(f"camera must be three finite numbers, got {camera}")
    if height < 1 or width < 1:
        raise ValueError(f"a panorama has at least one pixel, got {height} x {width}")
    limit = int(np.square(np.float32(min(max(0.0, max_depth), _FURTHEST))).view(np.uint32))
    number, depth = _unpacked(_least_keys(points, camera, size, limit))
    pixels = height * width
    return number.ravel()[:pixels].reshape(size), depth.ravel()[:pixels].reshape(size)


@torch.inference_mode()  # a twentieth of the time less
def _least_keys(
    points: Floats, camera: Floats, size: tuple[int, int], limit: int
) -> NDArray[np.uint64]:
    """`(runs, _RUN + _GAP)`: the least key of the points in a pixel, runs of pixels and gaps.

    The upper half of a key is the bits of the squared distance less one, so that distance 0, which
    lies in no direction, becomes the furthest: the bits of positive floats are in their order. The
    lower half is the point's number. All pixels begin with the greatest key of `limit`, the bits of
    a squared distance; its lower half is no point's.
    """
    runs = -(-size[0] * size[1] >> _RUN_BITS)
    least = np.full((runs, _RUN + _GAP), (max(limit, 1) << 32) - 1, np.uint64)
    n = points.shape[1] if limit else 0
    blocks = max(-(-n // _BLOCK), 1)
    step = max(-(-n // blocks), 1)
    offsets = np.empty((3, step + -step % _VECTOR), np.float32)
    number = torch.arange(-_ONE, offsets.shape[1] - _ONE)
    key = torch.empty_like(number)
    for first in range(0, n, step):
        part = points[:, first : first + step]
        np.subtract(part, camera[:, None], out=offsets[:, : part.shape[1]])
        offsets[:, part.shape[1] :] = 0.0
        pixel, squared = flat_pixels(torch.from_numpy(offsets), *size)
        pixel.add_(pixel >> _RUN_BITS, alpha=_GAP)
        torch.add(number, key.copy_(squared.view(torch.int32)), alpha=_ONE, out=key)
        np.minimum.at(least.reshape(-1), pixel.numpy(), key.numpy().view(np.uint64))
        number += step
    return least


def _unpacked(least: NDArray[np.uint64]) -> tuple[NDArray[np.int64], Floats]:
    """`(runs, _RUN)` numbers and distances of the keys, -1 and 0 where there is no point."""
    number = np.empty((len(least), _RUN), np.int64)
    depth = np.empty(number.shape, np.float32)
    step = _BLOCK >> _RUN_BITS
    for first in range(0, len(least), step):
        some = slice(first, first + step)
        key = least[some, :_RUN] + np.uint64(_ONE + 1)  # a lower half that is no point's becomes 0
        np.bitwise_and(key, _LOWER, out=number[some].view(np.uint64))
        key >>= np.uint64(32)
        bits = depth[some].view(np.uint32)
        bits[...] = key
        bits *= number[some] > 0
        np.sqrt(depth[some], out=depth[some])
        number[some] -= 1
    return number, depth


def nearest_valid(valid: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For every pixel the nearest valid one, on the cylinder that the panorama is.

    Distance is Euclidean in pixels; the first and the last column are neighbours. Exact: the
    distances within columns first, then their lower envelope along rows (Felzenszwalb and
    Huttenlocher 2012, "Distance transforms of sampled functions"), here by trying shifts until none
    can be nearer.

    Args:
        valid: `(H, W)`.

    Returns:
        `(H, W)` row times width plus column; -1 everywhere if nothing is valid.
    """
    height, width = valid.shape
    if not valid.any():
        return np.full(valid.shape, -1, np.int64)
    rows = np.arange(height)[:, None]
    far = 4 * (height + width)
    above = np.maximum.accumulate(np.where(valid, rows, -far), axis=0)
    below = np.minimum.accumulate(np.where(valid, rows, height + far)[::-1], axis=0)[::-1]
    source = np.where(rows - above <= below - rows, above, below)
    # Distance squared above, pixel below: their least is the nearest, of equals the first pixel.
    squared = (source - rows).astype(np.int64) ** 2
    pixel = np.clip(source, 0, height - 1) * width + np.arange(width)
    key = (squared << 32) | pixel
    best = key.copy()
    around = np.concatenate([key, key, key], axis=1)
    for shift in range(1, width // 2 + 1):
        step = np.int64(shift * shift) << 32
        if (best < step).all():
            break
        for first in (width - shift, width + shift):
            np.minimum(best, around[:, first : first + width] + step, out=best)
    return best & 0xFFFF_FFFF
