"""Panoramas of procedural houses: exact distances and categories, repeatable, complete."""

import itertools
import math
from functools import cache

import numpy as np
import pytest

from envs.indoor.categories import CATEGORIES, ID
from envs.indoor.equirectangular import directions, pixels
from envs.indoor.floor_plan import DOOR_HEIGHT
from envs.indoor.furniture_bodies import Part
from envs.indoor.house import House, generate_house
from envs.indoor.mesh import _placed, _unit, build_mesh
from envs.indoor.procedural import ProceduralSimulator, render_top_down
from envs.indoor.simulator import Simulator
from envs.indoor.textures import PATTERNS, TEXELS, draw_atlas, draw_materials

SIZE = (64, 128)


@cache
def simulator(seed: int = 0) -> ProceduralSimulator:
    return ProceduralSimulator(generate_house(seed))


def house() -> House:
    return simulator().house


def test_a_procedural_house_is_a_simulator() -> None:
    offered: Simulator = simulator()
    seen = offered.observe(offered.graph.viewpoints[0], SIZE)
    assert seen.rgb.shape == (*SIZE, 3)
    assert (seen.rgb.dtype, seen.semantic.dtype, seen.depth.dtype) == (
        np.uint8,
        np.uint8,
        np.float32,
    )
    assert np.array_equal(seen.position, offered.graph.positions[0])


def test_floor_and_ceiling_are_exactly_as_far_as_they_are() -> None:
    rays = directions(*SIZE)
    for viewpoint in house().graph.viewpoints[::4]:
        seen = simulator().observe(viewpoint, SIZE)
        z = seen.position[2] + rays[..., 2] * seen.depth
        below, above = seen.semantic == ID["floor"], seen.semantic == ID["ceiling"]
        height = house().plan.height
        # Rugs are floor too, 12 mm high.
        assert z[below].min() == pytest.approx(0.0, abs=1e-4)
        assert z[below].max() < 0.0121
        assert above.sum() > 100
        assert z[above] == pytest.approx(np.full(above.sum(), height), abs=1e-4)


def test_walls_are_exactly_as_far_as_the_plan_says() -> None:
    rays = directions(*SIZE)
    for viewpoint in house().graph.viewpoints[::4]:
        room = house().rooms[house().room_of(viewpoint)].clear
        seen = simulator().observe(viewpoint, SIZE)
        with np.errstate(divide="ignore"):
            to_x = np.where(rays[..., 0] > 0, room.x1, room.x0) - seen.position[0]
            to_y = np.where(rays[..., 1] > 0, room.y1, room.y0) - seen.position[1]
            expected = np.minimum(to_x / rays[..., 0], to_y / rays[..., 1])
        hit = seen.position + rays * seen.depth[..., None]
        mine = (seen.semantic == ID["wall"]) & (hit[..., 2] > 0.1)  # above the skirting boards
        mine &= (hit[..., 0] > room.x0 - 1e-3) & (hit[..., 0] < room.x1 + 1e-3)
        mine &= (hit[..., 1] > room.y0 - 1e-3) & (hit[..., 1] < room.y1 + 1e-3)
        assert mine.sum() > 100
        assert np.abs(seen.depth - expected)[mine].max() < 1e-4


def test_houses_have_no_leaks() -> None:
    for seed in (0, 1, 2):
        drawn = simulator(seed)
        outline = drawn.house.plan.outline
        rays = directions(*SIZE)
        for viewpoint in drawn.graph.viewpoints:
            seen = drawn.observe(viewpoint, SIZE)
            assert (seen.depth > 0).all()
            assert (seen.semantic > 0).all()
            hit = seen.position + rays * seen.depth[..., None]
            assert hit[..., 0].min() > outline.x0 - 0.01
            assert hit[..., 0].max() < outline.x1 + 0.01


def test_categories_are_known_and_many() -> None:
    found: set[int] = set()
    for seed in (0, 1, 2):
        for viewpoint in simulator(seed).graph.viewpoints:
            found |= set(np.unique(simulator(seed).observe(viewpoint, SIZE).semantic).tolist())
    assert max(found) < len(CATEGORIES)
    assert len(found) > 22


def test_every_piece_is_of_its_category() -> None:
    mesh = build_mesh(house())
    for index, piece in enumerate(house().furniture):
        parts = mesh.category[mesh.piece == index]
        assert ID[piece.category] in parts, piece.kind


def test_one_sees_through_an_open_door_into_the_room_behind() -> None:
    for door in house().plan.doors:
        x, y = door.point(-0.5)
        seen = simulator().observe(np.array([x, y, 1.2]), SIZE)
        into = np.zeros(3)
        into[door.axis] = door.side
        row, column = pixels(into, *SIZE)
        assert seen.depth[row, column] > 0.6 + 0.1


def test_the_head_of_a_door_is_a_door() -> None:
    door = house().plan.doors[0]
    x, y = door.point()
    seen = simulator().observe(np.array([x, y, 1.5]), SIZE)
    assert seen.semantic[0, 0] == ID["door"]
    up = directions(*SIZE)[0, 0, 2]
    assert seen.depth[0, 0] == pytest.approx((DOOR_HEIGHT - 1.5) / up, abs=1e-4)


def test_the_same_place_looks_the_same_and_threads_do_not_matter() -> None:
    viewpoint = house().graph.viewpoints[3]
    one = simulator().observe(viewpoint, SIZE)
    other = ProceduralSimulator(generate_house(0), threads=2)
    two = other.observe(one.position, SIZE)
    assert np.array_equal(one.rgb, two.rgb)
    assert np.array_equal(one.depth, two.depth)
    assert np.array_equal(one.semantic, two.semantic)
    other.close()


def test_panoramas_of_other_sizes_do_not_mix() -> None:
    viewpoint = house().graph.viewpoints[3]
    first = simulator().observe(viewpoint, SIZE)
    kept = first.rgb.copy(), first.depth.copy()
    simulator().observe(house().graph.viewpoints[4], SIZE)
    simulator().observe(viewpoint, (128, 64))
    assert np.array_equal(first.rgb, kept[0])
    assert np.array_equal(first.depth, kept[1])
    assert np.array_equal(simulator().observe(viewpoint, SIZE).rgb, kept[0])


def test_outside_there_is_nothing() -> None:
    far = simulator().observe(np.array([500.0, 0.0, 1.5]), SIZE)
    assert np.mean(far.depth == 0) > 0.9
    assert (far.semantic[far.depth == 0] == 0).all()
    assert (far.rgb[far.depth == 0] == 0).all()


@pytest.mark.parametrize("place", ["nowhere", np.array([0.0, 0.0]), np.array([0.0, math.nan, 1.0])])
def test_places_that_are_none_are_refused(place: str | np.ndarray) -> None:
    with pytest.raises(ValueError, match="viewpoint"):
        simulator().observe(place, SIZE)


def test_sizes_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="size"):
        simulator().observe(house().graph.viewpoints[0], (0, 10))
    with pytest.raises(ValueError, match="threads"):
        ProceduralSimulator(house(), threads=0)
    with pytest.raises(ValueError, match="positive"):
        render_top_down(house(), 0.0)


def test_a_house_has_about_a_hundred_thousand_triangles() -> None:
    counts = [len(simulator(seed).mesh.triangles) for seed in (0, 1, 2)]
    assert 40_000 < np.mean(counts) < 160_000


def test_shapes_fill_their_box_and_point_outwards() -> None:
    for shape in ("box", "round", "ball", "cylinder", "cone"):
        points, faces = _unit(shape)
        assert points.min(0) == pytest.approx([-0.5] * 3, abs=0.03)
        assert points.max(0) == pytest.approx([0.5] * 3, abs=0.03)
        corners = points[faces]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        assert ((normal * corners.mean(1)).sum(-1) > -1e-9).all(), shape
        # Closed: every edge belongs to two faces, once in each direction.
        rounded = np.unique(points.round(9), axis=0, return_inverse=True)[1].ravel()[faces]
        edges = {(int(f[k]), int(f[(k + 1) % 3])) for f in rounded for k in range(3)}
        edges = {(a, b) for a, b in edges if a != b}
        assert all((b, a) in edges for a, b in edges), shape


def test_parts_are_scaled_tilted_turned_and_moved() -> None:
    part = Part("box", (1.0, 2.0, 3.0), (0.2, 0.4, 0.6), "wood", turn=(math.pi / 2, 0.0))
    points = _placed(_unit("box")[0], [part])[0]
    assert points.min(0) == pytest.approx([0.8, 1.9, 2.7])
    assert points.max(0) == pytest.approx([1.2, 2.1, 3.3])


def test_the_plan_from_above_shows_every_room_in_its_colours() -> None:
    picture = render_top_down(house(), 20.0)
    outline = house().plan.outline.inset(-0.15)
    assert picture.shape == (round(outline.size[1] * 20), round(outline.size[0] * 20), 3)
    colors = set()
    for room in house().rooms:
        x, y = room.clear.center
        row, column = int((outline.y1 - y) * 20), int((x - outline.x0) * 20)
        colors.add(tuple(picture[row - 5 : row + 5, column - 5 : column + 5].mean((0, 1)).round()))
    assert len(colors) > len(house().rooms) / 2


def test_materials_of_two_houses_differ_and_repeat_under_a_seed() -> None:
    names = tuple(draw_materials(np.random.default_rng(0)))
    one, again, other = draw_atlas(5, names), draw_atlas(5, names), draw_atlas(6, names)
    assert np.array_equal(one.texels, again.texels)
    assert not np.array_equal(one.texels, other.texels)
    assert len(one.texels) == len(names) * TEXELS**2
    with pytest.raises(ValueError, match="unknown materials"):
        draw_atlas(5, ("wood", "kryptonite"))


def test_patterns_repeat_without_a_seam() -> None:
    for name in ("wood", "plaster", "carpet", "marble", "weave", "brushed"):
        image = PATTERNS[name](np.random.default_rng(7))
        inside = np.abs(np.diff(image, axis=1)).mean()
        seam = np.abs(image[:, 0] - image[:, -1]).mean()
        assert seam < 2.0 * inside + 0.02, name


def test_floors_of_unlike_rooms_look_unlike() -> None:
    floors = {}
    for room, viewpoint in itertools.product(range(len(house().rooms)), house().graph.viewpoints):
        if house().room_of(viewpoint) == room:
            seen = simulator().observe(viewpoint, SIZE)
            below = seen.semantic[-8:] == ID["floor"]
            floors.setdefault(house().rooms[room].signs["floor"], seen.rgb[-8:][below].mean(0))
    assert len(floors) >= 3
    for a, b in itertools.combinations(floors.values(), 2):
        assert np.abs(a - b).max() > 8


def test_every_surface_faces_who_sees_it() -> None:
    unit = directions(*SIZE).reshape(-1, 3).astype(np.float32)
    for position in house().graph.positions:
        start = np.broadcast_to(position.astype(np.float32), unit.shape)
        hit = simulator().cast(np.concatenate([start, unit], axis=-1))
        normal = simulator().mesh.normal[hit["primitive_ids"].numpy()]
        # Grazing rays may meet the back of a facet of something round.
        assert np.mean((normal * unit).sum(-1) > 1e-3) < 0.002
