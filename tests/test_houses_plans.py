"""Floor plans and viewpoints of procedural houses: doors, windows, corridors, where one stands."""

import itertools
import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.indoor.floor_plan import WALL, Door, Plan, Rect, Window, draw_plan, shared_wall
from envs.indoor.house import House, generate_house, obstacles
from envs.indoor.viewpoints import CAMERA_HEIGHT, LONGEST

plans = st.integers(0, 10**6).map(lambda seed: draw_plan(np.random.default_rng(seed)))


@cache
def house(seed: int) -> House:
    return generate_house(seed, "test")


def along_walls(openings: tuple[Door | Window, ...]) -> list[tuple[int, float, float, float]]:
    """Axis, place, and the two ends along the wall."""
    return [(o.axis, o.at, o.along - o.width / 2, o.along + o.width / 2) for o in openings]


@settings(max_examples=40, deadline=None)
@given(plans)
def test_openings_of_a_wall_do_not_overlap(plan: Plan) -> None:
    for openings in (plan.doors, (*plan.windows, plan.entrance)):
        for a, b in itertools.combinations(along_walls(openings), 2):
            if a[:2] == b[:2]:
                assert a[3] < b[2] or b[3] < a[2]


@settings(max_examples=40, deadline=None)
@given(plans)
def test_windows_and_the_entrance_lie_within_the_outer_wall_of_their_room(plan: Plan) -> None:
    for window in (*plan.windows, plan.entrance):
        at, low, high = plan.rooms[window.room].side(window.axis, window.outward)
        assert window.at == at
        assert low + WALL / 2 < window.along - window.width / 2
        assert window.along + window.width / 2 < high - WALL / 2
        assert 0.0 <= window.sill < window.head < plan.height


@settings(max_examples=40, deadline=None)
@given(plans)
def test_rooms_are_wide_enough_to_walk_and_a_house_is_of_a_family(plan: Plan) -> None:
    assert 2.4 < plan.height < 3.0
    assert 50.0 < plan.outline.area < 300.0
    for room in range(len(plan.rooms)):
        assert min(plan.clear(room).size) > 1.2
    for door in plan.doors:
        assert door.width >= 0.85
        assert door.width == pytest.approx(0.9) or not door.leaf


@settings(max_examples=40, deadline=None)
@given(plans)
def test_through_rooms_are_those_without_a_door_to_a_corridor(plan: Plan) -> None:
    for room, through in enumerate(plan.through):
        beside = {r for door in plan.doors if room in door.rooms for r in door.rooms}
        off = any(plan.corridor[r] for r in beside)
        assert through == (not plan.corridor[room] and not off)


@settings(max_examples=40, deadline=None)
@given(plans)
def test_links_that_are_joined_are_doors_and_the_others_are_near(plan: Plan) -> None:
    doors = {frozenset(door.rooms) for door in plan.doors}
    for link in plan.links:
        if link.joined:
            assert frozenset(link.rooms) in doors
        assert plan.corridor[link.rooms[0]] is plan.corridor[link.rooms[1]] is False


def test_houses_lie_along_both_axes() -> None:
    wide = [
        np.subtract(*plan.outline.size) > 0
        for plan in (draw_plan(np.random.default_rng(seed)) for seed in range(40))
    ]
    assert 8 < sum(wide) < 32


def test_a_plan_is_a_function_of_its_random_numbers() -> None:
    one, two, other = (draw_plan(np.random.default_rng(seed)) for seed in (8, 8, 9))
    assert one == two
    assert one != other


def test_a_shared_wall_worked_by_hand() -> None:
    left, right, above = Rect(0, 0, 3, 4), Rect(3, 1, 6, 9), Rect(0, 4, 3, 6)
    assert shared_wall(left, right) == (0, 3, 1, 4, 1)
    assert shared_wall(right, left) == (0, 3, 1, 4, -1)
    assert shared_wall(left, above) == (1, 4, 0, 3, 1)
    assert shared_wall(left, Rect(10, 0, 12, 4)) is None
    assert shared_wall(left, Rect(3, 4, 6, 6)) is None  # a corner is no wall


# Viewpoints


@pytest.mark.parametrize("seed", range(3))
def test_viewpoints_are_apart_and_edges_short(seed: int) -> None:
    graph = house(seed).graph
    lengths = np.linalg.norm(graph.positions[:, None] - graph.positions[None], axis=-1)
    assert lengths[graph.adjacent].max() <= LONGEST
    assert lengths[~np.eye(len(graph), dtype=bool)].min() > 0.3
    assert (graph.positions[:, 2] == CAMERA_HEIGHT).all()
    assert (graph.heights == CAMERA_HEIGHT).all()
    assert all(name.startswith(f"{graph.scan}_") for name in graph.viewpoints)


@pytest.mark.parametrize("seed", range(3))
def test_nearly_all_doors_are_walked_through(seed: int) -> None:
    drawn = house(seed)
    crossed = {
        frozenset((drawn.viewpoint_rooms[i], drawn.viewpoint_rooms[j]))
        for i, j in np.argwhere(drawn.graph.adjacent)
    }
    doors = {frozenset(door.rooms) for door in drawn.plan.doors}
    direct = crossed - {rooms for rooms in crossed if len(rooms) == 1}
    assert len(doors - direct) <= 1
    # Ways lead through doors only; a long one may cross a room's corner, so two doors.
    for i, j in np.argwhere(np.triu(drawn.graph.adjacent)):
        a, b = drawn.graph.positions[[i, j], :2]
        rooms = [drawn.room_at(a + share * (b - a)) for share in np.linspace(0, 1, 60)]
        for here, there in itertools.pairwise(rooms):
            assert here == there or frozenset((here, there)) in doors


@pytest.mark.parametrize("seed", range(3))
def test_ways_that_are_free_and_short_are_edges(seed: int) -> None:
    """An edge is missing only where a body, walking straight, would touch something."""
    drawn = house(seed)
    positions = drawn.graph.positions
    for i, j in itertools.combinations(range(len(drawn.graph)), 2):
        if drawn.graph.adjacent[i, j] or math.dist(positions[i], positions[j]) > LONGEST:
            continue
        steps = positions[i] + np.linspace(0, 1, 120)[:, None] * (positions[j] - positions[i])
        # Corners are kept by the side of a square, so somewhat more than by a round body.
        assert not all(drawn.free(step, 0.3) for step in steps)


def test_obstacles_leave_gaps_at_doors_only() -> None:
    drawn = house(0)
    blocks = obstacles(drawn.plan, ())
    assert (blocks[:, 2:] >= blocks[:, :2] - 1e-9).all()

    def solid(x: float, y: float) -> bool:
        return bool(((blocks[:, :2] <= (x, y)) & ((x, y) <= blocks[:, 2:])).all(-1).any())

    for door in drawn.plan.doors:
        assert not solid(*door.point())
        beyond = door.width / 2 + 0.05
        at, along = door.at, door.along + beyond
        assert solid(*((at, along) if door.axis == 0 else (along, at)))
    for window in drawn.plan.windows:
        at = window.at - 0.01 * window.outward
        assert solid(*((at, window.along) if window.axis == 0 else (window.along, at)))
