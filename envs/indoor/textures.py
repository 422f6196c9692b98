"""Materials: small periodic pictures, computed from formulas and noise, coloured house by house.

A texel is 1 cm; pictures are `TEXELS` wide, so they repeat every 2.56 m, except those that are
fitted to the body that wears them (paintings, views, screens).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Color = tuple[float, float, float]

TEXELS = 256
"""Width and height of all pictures; a power of two."""

_V, _U = np.mgrid[0:TEXELS, 0:TEXELS]


class Material(NamedTuple):
    """A surface.

    Attributes:
        pattern: key of `PATTERNS`, or of `PICTURES` (which have colours of their own).
        dark: colour where the pattern is 0, each channel 0 to 1.
        light: colour where the pattern is 1.
        fitted: whether the picture is fitted to the body instead of repeated.
        glow: least brightness, whatever the light; 0 for what does not shine.
    """

    pattern: str
    dark: Color
    light: Color
    fitted: bool = False
    glow: float = 0.0


@dataclass(frozen=True)
class Atlas:
    """All materials of a house.

    Attributes:
        names: of the materials; the position is the index.
        texels: `(materials * TEXELS * TEXELS,)` uint32, bytes R, G, B, 0.
        fitted: `(materials,)` bool.
        glow: `(materials,)`.
    """

    names: tuple[str, ...]
    texels: NDArray[np.uint32]
    fitted: NDArray[np.bool_]
    glow: Array


def draw_atlas(seed: int, names: Sequence[str]) -> Atlas:
    """Draw the colours of a house and paint the materials it uses.

    Raises:
        ValueError: for an unknown material.
    """
    materials = draw_materials(np.random.default_rng(seed))
    if not set(names) <= set(materials):
        raise ValueError(f"unknown materials {sorted(set(names) - set(materials))}")
    kept = tuple(name for name in materials if name in set(names))
    texels = np.empty((len(kept), TEXELS * TEXELS), np.uint32)
    for k, name in enumerate(kept):
        texels[k] = _paint(materials[name], np.random.default_rng((seed, k)))
    return Atlas(
        kept,
        texels.ravel(),
        np.array([materials[name].fitted for name in kept]),
        np.array([materials[name].glow for name in kept], np.float32),
    )


def draw_materials(rng: np.random.Generator) -> dict[str, Material]:
    """All materials by name, in colours drawn for one house."""
    wood, wood2 = rng.permutation(len(_WOODS))[:2]
    fabrics = [_FABRICS[k] for k in rng.permutation(len(_FABRICS))]
    kitchen = _KITCHENS[rng.integers(len(_KITCHENS))]
    found = {
        "wood": _shades("wood", _vary(_WOODS[wood], rng), 0.78),
        "wood2": _shades("wood", _vary(_WOODS[wood2], rng), 0.82),
        "linen": _shades("weave", _vary((0.92, 0.9, 0.85), rng), 0.9),
        "accent": _shades("weave", _vary(fabrics[3], rng), 0.8),
        "seat": _shades("weave", _vary(fabrics[4], rng), 0.85),
        "curtain": _shades("stripes", _vary(fabrics[5], rng), 0.86),
        "dark": _shades("plain", (0.14, 0.14, 0.15), 0.8),
        "white": _shades("plain", (0.93, 0.93, 0.91), 0.97),
        "metal": _shades("brushed", (0.72, 0.73, 0.75), 0.75),
        "steel": _shades("brushed", (0.76, 0.77, 0.79), 0.88),
        "brass": _shades("brushed", (0.78, 0.62, 0.32), 0.7),
        "stone": _shades("marble", _vary((0.8, 0.78, 0.75), rng), 0.72),
        "kitchen": _shades("wood", _vary(kitchen, rng), 0.9),
        "kitchen2": _shades("wood", _vary(kitchen, rng), 0.96),
        "ceramic": _shades("plain", (0.96, 0.97, 0.97), 0.99),
        "water": _shades("marble", (0.62, 0.8, 0.86), 0.9),
        "glass": _shades("plain", (0.72, 0.84, 0.86), 0.97),
        "sky tiles": _shades("tiles", _vary((0.62, 0.78, 0.85), rng), 0.8),
        "pot": _shades("plain", _vary((0.72, 0.42, 0.28), rng), 0.9),
        "leaf": _shades("wood", _vary((0.26, 0.52, 0.22), rng), 0.6),
        "brick": _shades("bricks", _vary((0.66, 0.33, 0.24), rng), 0.72),
        "frame": _shades("wood", _WOODS[rng.integers(len(_WOODS))], 0.85),
        "front door": _shades("wood", _vary((0.5, 0.16, 0.14), rng), 0.85),
        "rubber mat": _shades("rubber", (0.2, 0.2, 0.22), 0.6),
        "lamp": Material("plain", (1.0, 0.97, 0.88), (1.0, 0.98, 0.9), glow=1.15),
        "shade": Material("weave", (0.93, 0.82, 0.6), (0.98, 0.9, 0.7), glow=1.0),
        "fire": Material("marble", (0.95, 0.35, 0.05), (1.0, 0.8, 0.25), glow=1.1),
        "books": Material("book spines", (0, 0, 0), (1, 1, 1)),
        "notes": Material("notes", (0, 0, 0), (1, 1, 1), fitted=True),
        "screen": Material("screen", (0, 0, 0), (1, 1, 1), fitted=True, glow=0.6),
        "mirror": Material("mirror", (0, 0, 0), (1, 1, 1), fitted=True, glow=0.75),
        "pane": Material("view", (0, 0, 0), (1, 1, 1), fitted=True, glow=1.05),
        "ceiling": _shades("plaster", (0.96, 0.955, 0.94), 0.97),
        "trim": _shades("plain", (0.95, 0.95, 0.93), 0.98),
    }
    for k in range(3):
        found[f"fabric{k}"] = _shades("weave", _vary(fabrics[k], rng), 0.82)
        found[f"towel{k}"] = _shades("stripes", _vary(fabrics[-1 - k], rng), 0.85)
        found[f"rug{k}"] = _shades("rug", _vary(fabrics[(k + 2) % len(fabrics)], rng), 0.6)
        found[f"art{k}"] = Material("painting", (0, 0, 0), (1, 1, 1), fitted=True)
    for name, (pattern, color, depth) in _FLOORS.items():
        found[f"floor {name}"] = _shades(pattern, _vary(color, rng, 0.022), depth)
    for name, color in _PAINTS.items():
        pattern = "tiles" if name == "wall tiles" else "plaster"
        found[f"wall {name}"] = _shades(pattern, _vary(color, rng, 0.02), 0.95)
    for name, color in _DOORS.items():
        found[f"door {name}"] = _shades("wood", _vary(color, rng, 0.02), 0.86)
    return found


_WOODS: tuple[Color, ...] = (
    (0.72, 0.53, 0.34), (0.55, 0.36, 0.22), (0.38, 0.24, 0.16), (0.82, 0.68, 0.5),
    (0.62, 0.46, 0.36), (0.86, 0.84, 0.8),
)  # fmt: skip
_FABRICS: tuple[Color, ...] = (
    (0.28, 0.38, 0.52), (0.62, 0.28, 0.25), (0.45, 0.52, 0.42), (0.78, 0.6, 0.28),
    (0.55, 0.52, 0.5), (0.34, 0.5, 0.5), (0.7, 0.5, 0.46), (0.42, 0.34, 0.48), (0.8, 0.75, 0.66),
)  # fmt: skip
_KITCHENS: tuple[Color, ...] = (
    (0.9, 0.9, 0.88), (0.42, 0.52, 0.48), (0.32, 0.4, 0.52), (0.74, 0.56, 0.38), (0.55, 0.55, 0.56),
)  # fmt: skip
_FLOORS: dict[str, tuple[str, Color, float]] = {
    "planks": ("planks", (0.7, 0.52, 0.35), 0.68),
    "herringbone": ("herringbone", (0.58, 0.38, 0.24), 0.7),
    "carpet": ("carpet", (0.68, 0.62, 0.56), 0.78),
    "tiles": ("tiles", (0.8, 0.86, 0.88), 0.72),
    "checkers": ("checkers", (0.9, 0.88, 0.84), 0.4),
    "stone": ("slabs", (0.66, 0.63, 0.58), 0.72),
    "rubber": ("rubber", (0.32, 0.33, 0.36), 0.55),
}
_PAINTS: dict[str, Color] = {
    "cream": (0.94, 0.9, 0.8), "white": (0.94, 0.94, 0.92), "sage": (0.74, 0.8, 0.7),
    "terracotta": (0.84, 0.64, 0.52), "slate": (0.64, 0.69, 0.75), "sky": (0.74, 0.84, 0.92),
    "rose": (0.9, 0.78, 0.77), "sand": (0.88, 0.82, 0.7), "wall tiles": (0.9, 0.94, 0.95),
}  # fmt: skip
_DOORS: dict[str, Color] = {
    "white": (0.93, 0.92, 0.89), "oak": (0.8, 0.6, 0.36), "walnut": (0.4, 0.25, 0.16),
    "blue": (0.3, 0.47, 0.66), "grey": (0.5, 0.52, 0.54),
}  # fmt: skip


def _vary(color: Color, rng: np.random.Generator, by: float = 0.04) -> Color:
    r, g, b = np.clip(np.array(color) + rng.normal(0, by, 3) + rng.normal(0, by), 0.04, 0.98)
    return float(r), float(g), float(b)


def _shades(pattern: str, light: Color, depth: float) -> Material:
    """A material whose dark colour is its light one times `depth`."""
    return Material(pattern, (light[0] * depth, light[1] * depth, light[2] * depth), light)


def _paint(material: Material, rng: np.random.Generator) -> NDArray[np.uint32]:
    """`(TEXELS * TEXELS,)` colours of a material."""
    if material.pattern in PICTURES:
        return _packed(PICTURES[material.pattern](rng).reshape(-1, 3))
    dark, light = np.array(material.dark), np.array(material.light)
    ramp = dark + (light - dark) * np.linspace(0.0, 1.0, 256)[:, None]
    return _packed(ramp).take(_pattern(material.pattern))


def _packed(rgb: NDArray[Any]) -> NDArray[np.uint32]:
    """Colours of 0 to 1 as bytes R, G, B, 0."""
    out = np.zeros((len(rgb), 4), np.uint8)
    out[:, :3] = np.clip(rgb, 0.0, 1.0) * 255.0 + 0.5
    return out.view(np.uint32).ravel()


@cache
def _pattern(name: str) -> NDArray[np.uint8]:
    """`(TEXELS * TEXELS,)` in 256 steps; the same in all houses."""
    steps = np.clip(PATTERNS[name](np.random.default_rng(7)), 0.0, 1.0) * 255.0 + 0.5
    return steps.astype(np.uint8).ravel()


def _noise(rng: np.random.Generator, long: float, high: float) -> Array:
    """Periodic noise, about 0 to 1, smooth over `long` texels along u and `high` along v."""
    white = np.fft.rfft2(rng.normal(size=(TEXELS, TEXELS)))
    fu, fv = np.fft.rfftfreq(TEXELS)[None], np.fft.fftfreq(TEXELS)[:, None]
    smooth = np.fft.irfft2(white * np.exp(-2.0 * ((fu * long) ** 2 + (fv * high) ** 2)))
    return (0.5 + smooth / (4.0 * smooth.std())).astype(np.float32)


def _hash(a: NDArray[np.intp], b: NDArray[np.intp]) -> Array:
    """Numbers in 0 to 1 that look random, one for each pair."""
    mixed = (a * 73856093) ^ (b * 19349663)
    return ((mixed ^ (mixed >> 7)) * 2654435761 % 1000 / 1000.0).astype(np.float32)


def _planks(rng: np.random.Generator) -> Array:
    row = _V // 16
    shift = (_hash(row, row) * 8).astype(int) * 16
    end = (_U + shift) % TEXELS
    tone = _hash(row, end // 128 + 5)
    gap = (_V % 16 < 1) | (end % 128 < 1)
    return np.where(gap, 0.0, 0.25 + 0.5 * tone + 0.25 * _noise(rng, 60, 2))


def _herringbone(rng: np.random.Generator) -> Array:
    u, v = _U // 8, _V // 8
    k = (u - v) % 8
    flat = k < 4
    tone = np.where(flat, _hash((u - k) % 32, v), _hash(u + 40, (v - (7 - k)) % 32))
    edge = np.where(flat, _V % 8 < 1, _U % 8 < 1)
    edge |= np.where(flat, (k == 0) & (_U % 8 < 1), (k == 7) & (_V % 8 < 1))
    return np.where(edge, 0.1, 0.3 + 0.55 * tone + 0.15 * _noise(rng, 8, 8))


def _tiles(rng: np.random.Generator) -> Array:
    grout = (_U % 32 < 2) | (_V % 32 < 2)
    return np.where(grout, 0.0, 0.8 + 0.2 * _hash(_U // 32, _V // 32))


def _checkers(rng: np.random.Generator) -> Array:
    even = (_U // 32 + _V // 32) % 2
    return 0.08 + 0.84 * even + 0.1 * _noise(rng, 12, 12)


def _slabs(rng: np.random.Generator) -> Array:
    grout = (_U % 64 < 2) | ((_V + 32 * (_U // 64 % 2)) % 64 < 2)
    tone = _hash(_U // 64, (_V + 32 * (_U // 64 % 2)) % TEXELS // 64)
    return np.where(grout, 0.1, 0.35 + 0.4 * tone + 0.3 * (_noise(rng, 9, 9) - 0.3))


def _bricks(rng: np.random.Generator) -> Array:
    row = _V // 8
    shifted = (_U + 8 * (row % 2)) % TEXELS
    mortar = (_V % 8 < 1) | (shifted % 16 < 1)
    return np.where(mortar, 1.0, 0.1 + 0.6 * _hash(shifted // 16, row))


def _rug(rng: np.random.Generator) -> Array:
    diamond = (np.abs(_U % 64 - 32) + np.abs(_V % 64 - 32)) // 8 % 2
    return 0.15 + 0.7 * diamond + 0.15 * rng.random((TEXELS, TEXELS))


def _weave(rng: np.random.Generator) -> Array:
    return 0.55 + 0.2 * ((_U // 2 + _V // 2) % 2) + 0.5 * (_noise(rng, 5, 5) - 0.5)


def _marble(rng: np.random.Generator) -> Array:
    vein = np.abs(np.sin(_U * (2 * math.pi / 128) + 7.0 * _noise(rng, 30, 30)))
    return 1.0 - 0.7 * np.exp(-6.0 * vein) - 0.2 * _noise(rng, 6, 6)


PATTERNS: dict[str, Callable[[np.random.Generator], Array]] = {
    "plain": lambda rng: np.ones((TEXELS, TEXELS), np.float32),
    "plaster": lambda rng: 0.6 * _noise(rng, 12, 12) + 0.4 * _noise(rng, 2, 2),
    "wood": lambda rng: 0.2 + 0.8 * _noise(rng, 90, 2.5),
    "brushed": lambda rng: _noise(rng, 60, 1.5),
    "carpet": lambda rng: 0.55 * _noise(rng, 1, 1) + 0.45 * _noise(rng, 10, 10),
    "rubber": lambda rng: (rng.random((TEXELS, TEXELS)) > 0.9) * 0.8 + 0.2 * _noise(rng, 6, 6),
    "stripes": lambda rng: 0.8 * (_U // 6 % 2) + 0.2 * _noise(rng, 3, 20),
    "planks": _planks,
    "herringbone": _herringbone,
    "tiles": _tiles,
    "checkers": _checkers,
    "slabs": _slabs,
    "bricks": _bricks,
    "rug": _rug,
    "weave": _weave,
    "marble": _marble,
}
"""Patterns that repeat, by name."""


def _painting(rng: np.random.Generator) -> Array:
    """A few soft and hard shapes in matching colours."""
    colors = rng.uniform(0.1, 0.95, (5, 3))
    colors = 0.6 * colors + 0.4 * colors[0]
    shape = np.zeros((TEXELS, TEXELS), np.intp)
    for k in range(6):
        x, y = rng.uniform(20, 236, 2)
        r, flat = rng.uniform(15, 70), rng.uniform(0.2, 1.2)
        if rng.random() < 0.5:
            inside = (_U - x) ** 2 + (_V - y) ** 2 < r**2
        else:
            inside = (abs(_U - x) < r) & (abs(_V - y) < flat * r)
        shape[inside] = 2 + k % 3
    rgb = colors[shape]
    fade = colors[0] + (colors[1] - colors[0]) * (_V / TEXELS)[..., None]
    return np.where((shape == 0)[..., None], fade, rgb).astype(np.float32)


def _book_spines(rng: np.random.Generator) -> Array:
    edges = np.cumsum(rng.integers(2, 6, 120))
    which = np.searchsorted(edges, _U, side="right")
    colors = rng.uniform(0.15, 0.85, (130, 3)) * rng.uniform(0.6, 1.0, (130, 1))
    rgb = colors[which] * np.where(np.isin(_U, edges), 0.5, 1.0)[..., None]
    return rgb.astype(np.float32)


def _notes(rng: np.random.Generator) -> Array:
    rgb = np.full((TEXELS, TEXELS, 3), (0.76, 0.6, 0.42))
    for _ in range(9):
        x, y = rng.integers(10, 200, 2)
        w, h = rng.integers(30, 60, 2)
        rgb[y : y + h, x : x + w] = rng.uniform(0.75, 1.0, 3)
    return rgb.astype(np.float32)


def _screen(rng: np.random.Generator) -> Array:
    glare = np.clip(1.0 - np.abs(_U + _V - 260) / 90.0, 0.0, 1.0)[..., None] ** 2
    return (np.array([0.07, 0.08, 0.11]) + 0.16 * glare).astype(np.float32)


def _mirror(rng: np.random.Generator) -> Array:
    glare = (np.clip(1.0 - np.abs(_U - _V - 20) / 40.0, 0, 1) > 0)[..., None]
    return (np.array([0.72, 0.82, 0.86]) + 0.1 * glare).astype(np.float32)


def _view(rng: np.random.Generator) -> Array:
    """Sky above hills above a lawn; v is up."""
    v = (_V / TEXELS)[..., None]
    sky = np.array([0.97, 0.98, 1.0]) + (np.array([0.62, 0.8, 0.98]) - 0.97) * v
    clouds = np.clip(_noise(rng, 40, 14) - 0.55, 0.0, 1.0)[..., None] * 1.6
    sky = sky + (1.0 - sky) * np.clip(clouds, 0, 1)
    hills = 0.3 + 0.1 * np.sin(_U / 41.0 + rng.uniform(0, 6)) + 0.04 * np.sin(_U / 13.0)
    green = np.array([0.45, 0.6, 0.4]) * (0.8 + 0.6 * v)
    rgb = np.where(v < hills[..., None], green, sky)
    return np.where(v < 0.16, np.array([0.5, 0.66, 0.36]), rgb).astype(np.float32)


PICTURES: dict[str, Callable[[np.random.Generator], Array]] = {
    "painting": _painting,
    "book spines": _book_spines,
    "notes": _notes,
    "screen": _screen,
    "mirror": _mirror,
    "view": _view,
}
"""Pictures with colours of their own, by name."""
