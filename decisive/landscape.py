"""The energy of an implicit policy over two of its action entries, as numbers and as a picture.

The picture is laid like the film beside it: down is away from the robot (+x), right is +y.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from decisive.pictures import ACCENT, HAIRLINE, INK, MUTED, PAPER, Page, Pixels, halved

if TYPE_CHECKING:
    from agents.implicit_bc.policy import ImplicitPolicy

FloatArray = NDArray[np.float32]

SPAN = 12.0
"""Energy above the minimum, in nats, at which the picture is darkest: odds of e^-12."""
HALF_BLOCK = 0.018
"""Half width of a block's outline on a map of the table, in metres."""


class Landscape(NamedTuple):
    """Energies on a grid.

    Attributes:
        actions: `(n, n, A)` actions in the environment's units; rows vary the first of the two
            entries, columns the second.
        energies: `(n, n)`; low is good.
    """

    actions: FloatArray
    energies: FloatArray


def implicit(policy: Any) -> ImplicitPolicy:
    """The policy, if it has an energy.

    Raises:
        ValueError: if it is explicit.
    """
    from agents.implicit_bc.policy import ImplicitPolicy

    if not isinstance(policy, ImplicitPolicy):
        name = getattr(policy, "method", type(policy).__name__)
        raise ValueError(f"an energy landscape needs an implicit policy (ibc), got {name}")
    return policy


def action_range(policy: ImplicitPolicy) -> tuple[FloatArray, FloatArray]:
    """`(A,)` low and high ends of the actions that the policy was trained on, world frame.

    Energies mean nothing beyond: no counter-example was ever drawn there. In a policy with a frame
    of its own the box turns with the frame, and the range is that of the box in any direction.
    """
    low = policy.action_normalizer.low.numpy().copy()
    high = policy.action_normalizer.high.numpy().copy()
    if policy.frame is not None or policy.focus is not None:
        start = 0
        for field in policy.spec.action_fields:
            part = slice(start, start + field.size)
            start += field.size
            if field.kind == "vector":
                reach = np.maximum(np.abs(low[part]), np.abs(high[part])).max()
                low[part], high[part] = -reach, reach
            elif field.kind == "point":  # relative to the frame: only the space is known
                low[part], high[part] = -np.inf, np.inf
    low = np.maximum(low, np.asarray(policy.spec.action_low, np.float32))
    high = np.minimum(high, np.asarray(policy.spec.action_high, np.float32))
    return low, high


def landscape(
    policy: ImplicitPolicy,
    obs: Any = None,
    n: int = 64,
    dims: tuple[int, int] = (0, 1),
    at: FloatArray | None = None,
) -> Landscape:
    """Energy over two action entries.

    Args:
        policy: an implicit policy.
        obs: one observation, on which the policy decides first as at the start of an episode;
            `None` for the observation of its last decision, inside an episode.
        n: grid points per entry.
        dims: the two entries.
        at: `(A,)` action that gives the other entries; needed with more than two.

    Returns:
        The grid, over the range that the policy was trained on.

    Raises:
        ValueError: if the policy is explicit, has not acted, or `at` is missing.
    """
    policy = implicit(policy)
    if obs is not None:
        policy.reset(0)
        policy.act(obs)
    size = policy.spec.action_dim
    if at is None:
        if size != 2:
            raise ValueError(f"a slice through {size}-D actions needs the other entries in `at`")
        at = np.zeros(2, np.float32)
    low, high = action_range(policy)
    i, j = dims
    actions = np.tile(np.asarray(at, np.float32), (n, n, 1))
    actions[..., i] = np.linspace(low[i], high[i], n)[:, None]
    actions[..., j] = np.linspace(low[j], high[j], n)[None, :]
    return Landscape(actions, policy.landscape(actions.reshape(-1, size)).reshape(n, n))


def best_push_landscape(
    policy: ImplicitPolicy, chosen: FloatArray, n: int = 40, directions: int = 16
) -> Landscape:
    """For every start of a push, the energy of the best push from there.

    Args:
        policy: implicit, with the actions of `control="push"`: start x, y and push dx, dy.
        chosen: `(4,)` the policy's decision, tried at every start too.
        n: grid points per entry of the start.
        directions: pushes tried at every start, at three lengths each.

    Returns:
        The grid over the start; `actions` holds the best push found from each.
    """
    low, high = action_range(policy)
    reach = float(np.min(np.minimum(-low[2:], high[2:])))
    angles = np.arange(directions) * 2 * np.pi / directions
    pushes = [np.asarray(chosen[2:], np.float32)]
    for length in (0.4, 0.7, 1.0):
        pushes += [
            np.array([np.cos(a), np.sin(a)], np.float32) * np.float32(reach * length)
            for a in angles
        ]
    slices = [landscape(policy, None, n, (0, 1), np.array([*chosen[:2], *p])) for p in pushes]
    energies = np.stack([piece.energies for piece in slices])
    best = energies.argmin(axis=0)
    actions = np.stack([piece.actions for piece in slices])
    rows, columns = np.indices(best.shape)
    return Landscape(actions[best, rows, columns], energies.min(axis=0))


@functools.cache
def colors() -> NDArray[np.uint8]:
    """`(256, 3)` viridis, even in lightness and safe for colour-blind people."""
    from matplotlib import colormaps

    return np.round(colormaps["viridis"](np.arange(256))[:, :3] * 255).astype(np.uint8)


def paint(energies: FloatArray, height: int, width: int, span: float = SPAN) -> Pixels:
    """Energies as colours: bright where low.

    Args:
        energies: `(n, m)`; infinite is darkest.
        height: of the picture.
        width: of the picture.
        span: energy above the minimum that is darkest.

    Returns:
        `(height, width, 3)`.
    """
    lowest = energies[np.isfinite(energies)].min(initial=np.inf)
    depth = 1.0 - np.clip((energies - lowest) / span, 0.0, 1.0) if np.isfinite(lowest) else energies
    depth = np.nan_to_num(depth, nan=0.0, posinf=0.0)
    smooth = Image.fromarray(depth.astype(np.float32)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    index = np.clip(np.asarray(smooth) * 255, 0, 255).astype(np.uint8)
    return colors()[index]


def draw_landscape(
    grid: Landscape,
    chosen: FloatArray,
    size: tuple[int, int],
    title: str,
    names: tuple[str, str] = ("Δx", "Δy"),
    dims: tuple[int, int] = (0, 1),
    origin: bool = True,
    points: FloatArray | None = None,
    span: float = SPAN,
) -> Pixels:
    """A panel: the energy with its axes in millimetres, the decision marked.

    Args:
        grid: what to draw.
        chosen: `(A,)` the policy's decision, marked by a ring.
        size: `(height, width)` in pixels.
        title: above the map.
        names: of the two entries.
        dims: which two entries the grid varies.
        origin: whether to mark zero, for displacements.
        points: `(k, 2)` places to outline (blocks), in the units of the two entries.
        span: energy above the minimum that is darkest.
    """
    height, width = 2 * size[0], 2 * size[1]  # twice as large, then halved: smooth lines
    page = Page(width, height)
    left, top, right, bottom = 124, 68, width - 28, height - 104
    side = min(right - left, bottom - top)
    left += (right - left - side) // 2
    right, bottom = left + side, top + side
    i, j = dims
    low = grid.actions[0, 0, [i, j]] * 1000
    high = grid.actions[-1, -1, [i, j]] * 1000

    def place(first: float, second: float) -> tuple[float, float]:
        x = left + (second - low[1]) / (high[1] - low[1]) * side
        y = top + (first - low[0]) / (high[0] - low[0]) * side
        return x, y

    page.paste(paint(grid.energies, side, side, span), left, top)
    if points is not None:
        for point in points:
            x, y = place(*(point * 1000))
            rx, ry = (HALF_BLOCK * 1000 / (high[k] - low[k]) * side for k in (1, 0))
            page.draw.rectangle((x - rx, y - ry, x + rx, y + ry), outline=PAPER, width=3)
    page.draw.rectangle((left, top, right, bottom), outline=HAIRLINE, width=2)
    page.write(left, top - 22, title, 28, INK, bold=True)
    if origin and np.all(low < 0) and np.all(high > 0):
        x, y = place(0.0, 0.0)
        for dx, dy in ((14, 0), (0, 14)):
            page.draw.line((x - dx, y - dy, x + dx, y + dy), PAPER, 2)
    for value in _ticks(low[1], high[1]):
        x, _ = place(low[0], value)
        page.draw.line((x, bottom, x, bottom + 10), MUTED, 2)
        page.write(x, bottom + 36, _number(value), 22, MUTED, anchor="ms")
    for value in _ticks(low[0], high[0]):
        _, y = place(value, low[1])
        page.draw.line((left - 10, y, left, y), MUTED, 2)
        page.write(left - 18, y, _number(value), 22, MUTED, anchor="rm")
    page.write((left + right) / 2, bottom + 74, f"{names[1]} (mm)", 22, MUTED, anchor="ms")
    page.write_upwards(left - 72, (top + bottom) // 2, f"{names[0]} (mm)", 22, MUTED)
    x, y = place(*(np.asarray(chosen, np.float64)[[i, j]] * 1000))
    x, y = float(np.clip(x, left, right)), float(np.clip(y, top, bottom))
    page.draw.ellipse((x - 17, y - 17, x + 17, y + 17), outline=PAPER, width=9)
    page.draw.ellipse((x - 15, y - 15, x + 15, y + 15), outline=ACCENT, width=5)
    return halved(page.pixels())


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers between two ends."""
    for step in (5, 10, 20, 50, 100, 200, 500, 1000):
        if (high - low) / step <= 5:
            first = int(np.ceil(low / step)) * step
            return [float(v) for v in range(first, int(np.floor(high)) + 1, step)]
    return [0.0]


def _number(value: float) -> str:
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")
