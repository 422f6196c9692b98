"""Films of walks: the dream on the way, the truth beside it, and a map."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decisive.dream_pictures import FloorMap, resized
from decisive.pictures import ACCENT, GAP, GOOD, HAIRLINE, INK, MARGIN, MUTED, PAPER, Page, Pixels
from decisive.scenes import HouseScene, Scene
from decisive.surfaces import Surface, between
from decisive.video import VideoWriter
from decisive.walks import Walk
from world_models.pathdreamer.perspective import PerspectiveCamera

FPS = 12
VIEW = (360, 480)
"""Height and width of a view in the film."""
_DREAMED, _TRUE = (180, 240), (240, 320)
"""Rays of a view: a dream of 64 rows has no more to show."""
_FIELD = math.radians(95)
_PITCH = -0.08
_SPEED = 1.3
_TURN_RATE = math.radians(100)
_HEAD, _FOOT = 56, 56


@dataclass(frozen=True)
class Shot:
    """Where the camera is in one frame.

    Attributes:
        leg: index of the step it comes from.
        share: of the way to the next step that is done.
        yaw: where it looks, radians counter-clockwise from +x.
    """

    leg: int
    share: float
    yaw: float


def write_film(path: Path, walk: Walk) -> None:
    """Film a walk: along its path, turning where it turns, and once around at its end.

    Between two places the camera sees their panoramas as surfaces, blended: the first sample's
    dreams, and beside them the truth where it is known (a procedural house).

    Args:
        path: the file, ending in `.mp4`.
        walk: of one step or more.

    Raises:
        OSError: if it cannot be written.
    """
    positions = [step.place.position for step in walk.steps]
    surfaces = [_surface(walk, number) for number in range(len(walk.steps))]
    scene, floor = walk.scene, FloorMap(walk.scene.graph, walk.scene.house, VIEW)
    shots = list(camera_way(positions))
    with VideoWriter(path, FPS) as film:
        for number, shot in enumerate(shots):
            after = min(shot.leg + 1, len(positions) - 1)
            camera = (1 - shot.share) * positions[shot.leg] + shot.share * positions[after]
            rays = _rays(shot.yaw, _DREAMED)
            values = between(surfaces[shot.leg], surfaces[after], shot.share, camera, rays)
            dreamed = _picture(values[:, :3], _DREAMED)
            imagined = float(values[:, 3].mean()) / 255.0
            truth = _truth(scene, camera, _rays(shot.yaw, _TRUE))
            page = _page(walk, shot, camera, floor, dreamed, truth, imagined)
            film.add(page, repeat=FPS if number == len(shots) - 1 else 1)


def camera_way(positions: list[NDArray[np.float64]]) -> Iterator[Shot]:
    """The camera's way along a path, frame by frame.

    It walks at 1.3 m/s, gently from stop to stop, turns on the spot where the path turns, and
    looks around at the end.
    """
    headings: list[float] = []
    for start, end in itertools.pairwise(positions):
        offset = end - start
        known = np.hypot(offset[0], offset[1]) > 1e-6
        before = headings[-1] if headings else 0.0
        headings.append(math.atan2(offset[1], offset[0]) if known else before)
    yaw = headings[0] if headings else 0.0
    for leg, (start, end) in enumerate(itertools.pairwise(positions)):
        for turned in _turn(yaw, headings[leg]):
            yield Shot(leg, 0.0, turned)
        yaw = headings[leg]
        frames = max(2, round(float(np.linalg.norm(end - start)) / _SPEED * FPS))
        for frame in range(1, frames + 1):
            yield Shot(leg, _gently(frame / frames), yaw)
    last = len(positions) - 1
    frames = round(math.tau / _TURN_RATE * FPS)
    for frame in range(frames + 1):
        yield Shot(last, 0.0, yaw + math.tau * _gently(frame / frames))


def _turn(yaw: float, goal: float) -> Iterator[float]:
    """Headings from one to another, the short way round."""
    angle = (goal - yaw + math.pi) % math.tau - math.pi
    frames = max(1, round(abs(angle) / _TURN_RATE * FPS))
    for frame in range(1, frames + 1):
        yield yaw + angle * _gently(frame / frames)


def _gently(share: float) -> float:
    """From 0 to 1 without a jolt."""
    return share * share * (3.0 - 2.0 * share)


def _surface(walk: Walk, number: int) -> Surface:
    """A step's panorama, with how much of it is imagined as a fourth channel."""
    step = walk.steps[number]
    view = step.views[0]
    new = np.zeros(view.depth.shape, np.uint8)
    if step.dreams:
        new[~step.dreams[0].guidance.valid] = 255
    return Surface(np.dstack([view.rgb, new]), view.depth, view.position)


def _truth(
    scene: Scene, camera: NDArray[np.float64], directions: NDArray[np.float32]
) -> Pixels | None:
    if not isinstance(scene, HouseScene):
        return None
    starts = np.broadcast_to(camera.astype(np.float32), directions.shape)
    rays = np.ascontiguousarray(np.concatenate([starts, directions], axis=1))
    return _picture(scene.simulator.shade_rays(rays), _TRUE)


def _rays(yaw: float, size: tuple[int, int]) -> NDArray[np.float32]:
    """Unit vectors `(N, 3)` of a camera that looks a little down."""
    rays = PerspectiveCamera(yaw, _PITCH, _FIELD, size).rays().reshape(-1, 3)
    return (rays / np.linalg.norm(rays, axis=-1, keepdims=True)).astype(np.float32)


def _picture(colours: NDArray[np.floating] | Pixels, size: tuple[int, int]) -> Pixels:
    """`(N, 3)` colours as a view."""
    pixels = np.clip(colours, 0, 255).astype(np.uint8).reshape(*size, 3)
    return resized(pixels, VIEW[1], VIEW[0])


def _page(
    walk: Walk,
    shot: Shot,
    camera: NDArray[np.float64],
    floor: FloorMap,
    dreamed: Pixels,
    truth: Pixels | None,
    imagined: float,
) -> Pixels:
    """One frame."""
    panels = [dreamed] if truth is None else [dreamed, truth]
    across = len(panels) * (VIEW[1] + GAP)
    page = Page(2 * MARGIN + across + floor.pixels.shape[1], _HEAD + VIEW[0] + _FOOT)
    steps = walk.steps
    at = min(shot.leg + (shot.share >= 0.5), len(steps) - 1)
    seen = not steps[at].dreams
    colour = GOOD if seen else ACCENT
    page.draw.ellipse((MARGIN, 22, MARGIN + 14, 36), fill=colour)
    hops = steps[at].hops
    word = "really seen" if seen else f"imagined, {hops} step{'s'[: hops != 1]} ahead"
    page.write(MARGIN + 22, 35, word, 19, colour, bold=True)
    page.paste(dreamed, MARGIN, _HEAD)
    if truth is not None:
        x = MARGIN + VIEW[1] + GAP
        page.write(x, 35, "truth", 19, MUTED, bold=True)
        page.paste(truth, x, _HEAD)
    left, top = MARGIN + across, _HEAD
    page.write(left, 35, walk.scene.name, 14, MUTED)
    page.paste(floor.pixels, left, top)
    _draw_walk(page, walk, shot, camera, floor, (left, top))
    base = _HEAD + VIEW[0] + 16
    page.draw.rectangle((MARGIN, base, MARGIN + VIEW[1] - 1, base + 12), fill=HAIRLINE)
    if imagined > 0.002:
        wide = round(imagined * (VIEW[1] - 1))
        page.draw.rectangle((MARGIN, base, MARGIN + wide, base + 12), fill=ACCENT)
    page.write(MARGIN, base + 31, f"{100 * imagined:.0f} % of this view was never seen", 14, MUTED)
    return page.pixels()


def _draw_walk(
    page: Page,
    walk: Walk,
    shot: Shot,
    camera: NDArray[np.float64],
    floor: FloorMap,
    corner: tuple[int, int],
) -> None:
    """The path and the camera on the map."""

    def on_page(position: NDArray[np.floating]) -> tuple[float, float]:
        x, y = floor.point(position)
        return corner[0] + x, corner[1] + y

    points = [on_page(step.place.position) for step in walk.steps]
    if len(points) > 1:
        page.draw.line(points, fill=PAPER, width=6, joint="curve")
        page.draw.line(points, fill=INK, width=2, joint="curve")
    for (x, y), step in zip(points, walk.steps, strict=True):
        fill = ACCENT if step.dreams else GOOD
        page.draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=fill, outline=PAPER, width=2)
    x, y = on_page(camera)
    middle, half = -math.degrees(shot.yaw), math.degrees(_FIELD) / 2
    box = (x - 26, y - 26, x + 26, y + 26)
    page.draw.pieslice(box, middle - half, middle + half, fill=None, outline=INK, width=3)
    page.draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=INK, outline=PAPER, width=2)
