"""How procedural houses look: lamps, darker corners, shadows, colours; and what is seen of them."""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from envs.indoor.categories import ID
from envs.indoor.equirectangular import directions
from envs.indoor.furniture import KINDS
from envs.indoor.house import House, generate_house
from envs.indoor.mesh import build_mesh
from envs.indoor.procedural import ProceduralSimulator
from envs.indoor.sightings import ENOUGH, FARTHEST, UNREMARKABLE, look_around
from envs.indoor.simulator import Panorama

SIZE = (64, 128)


@cache
def house() -> House:
    return generate_house(2, "test")


@cache
def simulator() -> ProceduralSimulator:
    return ProceduralSimulator(house())


@cache
def panoramas() -> tuple[Panorama, ...]:
    return tuple(simulator().observe(name, SIZE) for name in house().graph.viewpoints)


def surfaces(category: str) -> Iterator[tuple[int, NDArray[np.float64], NDArray[np.float64]]]:
    """Room, points `(N, 3)` and brightness `(N,)` of a category in the room that one stands in."""
    rays = directions(*SIZE)
    for room, seen in zip(house().viewpoint_rooms, panoramas(), strict=True):
        points = seen.position + rays * seen.depth[..., None]
        clear = house().rooms[room].clear
        mine = (seen.semantic == ID[category]) & (points[..., 0] > clear.x0)
        mine &= (points[..., 0] < clear.x1) & (points[..., 1] > clear.y0)
        mine &= points[..., 1] < clear.y1
        yield room, points[mine], seen.rgb[mine].mean(-1)


def test_ceilings_are_darker_along_the_walls() -> None:
    edge, middle = [], []
    for room, points, bright in surfaces("ceiling"):
        clear = house().rooms[room].clear
        away = np.minimum(
            np.minimum(points[:, 0] - clear.x0, clear.x1 - points[:, 0]),
            np.minimum(points[:, 1] - clear.y0, clear.y1 - points[:, 1]),
        )
        edge.extend(bright[away < 0.15])
        middle.extend(bright[away > 0.6])
    assert len(edge) > 500
    assert np.mean(edge) < 0.9 * np.mean(middle)


def test_ceilings_are_brightest_around_the_lamp() -> None:
    near, far = [], []
    for room, points, bright in surfaces("ceiling"):
        clear = house().rooms[room].clear.inset(0.8)
        lamps = [
            (p.x, p.y) for p in house().furniture if p.room == room and p.category == "lighting"
        ]
        away = np.min([np.linalg.norm(points[:, :2] - lamp, axis=1) for lamp in lamps], axis=0)
        inner = np.array([clear.holds(x, y) for x, y, _ in points], bool)
        near.extend(bright[inner & (away < 0.8)])
        far.extend(bright[inner & (away > 1.4)])
    assert len(far) > 100
    assert np.mean(near) > np.mean(far) + 1.0


def test_the_floor_is_darker_beside_what_stands_on_it() -> None:
    """Of one room each, as floors have colours of their own."""
    less = []
    for room, points, bright in surfaces("floor"):
        own = [p.footprint for p in house().furniture if p.room == room and p.blocks]
        if not own or not len(points):
            continue
        low = np.array([(r.x0, r.y0) for r in own])
        high = np.array([(r.x1, r.y1) for r in own])
        nearest = np.clip(points[:, None, :2], low, high)
        away = np.linalg.norm(nearest - points[:, None, :2], axis=-1).min(1)
        beside, open_floor = bright[(away > 0) & (away < 0.06)], bright[away > 0.4]
        if len(beside) > 5 and len(open_floor) > 20:
            less.append(beside.mean() < open_floor.mean())
    assert len(less) > 5
    assert np.mean(less) > 0.7


def test_lamps_shine() -> None:
    seen = np.concatenate([p.rgb[p.semantic == ID["lighting"]] for p in panoramas()])
    walls = np.concatenate([p.rgb[p.semantic == ID["wall"]] for p in panoramas()])
    assert len(seen) > 50
    assert seen.mean() > walls.mean() + 15


def test_another_palette_changes_colours_only() -> None:
    other = ProceduralSimulator(replace(house(), palette=house().palette + 1))
    seen, mine = other.observe(house().graph.viewpoints[0], SIZE), panoramas()[0]
    assert np.array_equal(seen.depth, mine.depth)
    assert np.array_equal(seen.semantic, mine.semantic)
    assert np.mean(seen.rgb != mine.rgb) > 0.5
    other.close()


def test_triangles_of_a_piece_lie_where_it_stands() -> None:
    mesh = build_mesh(house())
    corners = mesh.vertices[mesh.triangles]
    part = np.asarray(mesh.piece)[np.asarray(mesh.part)]
    for index, piece in enumerate(house().furniture):
        own = corners[part == index].reshape(-1, 3)
        around = piece.footprint.inset(-0.25)
        assert len(own)
        assert own[:, 0].min() > around.x0
        assert own[:, 0].max() < around.x1
        assert own[:, 1].min() > around.y0
        assert own[:, 1].max() < around.y1
        assert own[:, 2].min() > piece.base - 0.05


def test_sightings_are_near_remarkable_and_sorted() -> None:
    found = look_around(house())
    assert set(found) == set(house().graph.viewpoints)
    for viewpoint, sightings in found.items():
        here = house().graph.positions[house().graph.index(viewpoint)]
        assert [s.distance for s in sightings] == sorted(s.distance for s in sightings)
        assert len({s.piece for s in sightings}) == len(sightings)
        for sighting in sightings:
            piece = house().furniture[sighting.piece]
            assert piece.kind not in UNREMARKABLE
            assert sighting.noun == KINDS[piece.kind].noun
            assert sighting.pixels >= ENOUGH
            away = math.hypot(piece.x - here[0], piece.y - here[1])
            assert sighting.distance == away <= FARTHEST
            if away > 1.5:  # seen about where it stands
                toward = math.atan2(piece.y - here[1], piece.x - here[0])
                assert math.cos(toward - sighting.azimuth) > 0.6


def test_what_one_sees_of_a_house_is_mostly_in_the_own_room() -> None:
    own = [
        house().furniture[sighting.piece].room == house().room_of(viewpoint)
        for viewpoint, sightings in look_around(house()).items()
        for sighting in sightings
    ]
    assert len(own) > 40
    assert 0.5 < np.mean(own) < 1.0  # but also through doors
