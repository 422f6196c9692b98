"""Furniture of procedural houses: by rule, at walls, off doors and windows; the bodies of it."""

import math
from collections import Counter
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from envs.indoor.floor_plan import Door, Rect, draw_plan
from envs.indoor.furnishing import furnish
from envs.indoor.furnishing_rules import ABOVE, LAMPS, RULES, WINDOWS
from envs.indoor.furniture import KINDS, Furniture
from envs.indoor.house import House, generate_house
from envs.indoor.room_types import HALLWAY, PURPOSES
from envs.indoor.textures import draw_materials

BUILT_IN = {"front door", "ceiling lamp", "pendant", "curtain", "blinds"}
"""What comes with the plan, not by a rule."""


@cache
def house(seed: int, predictability: float = 1.0) -> House:
    return generate_house(seed, "val", predictability)


def houses() -> Iterator[House]:
    for seed in range(4):
        for predictability in (1.0, 0.0):
            yield house(seed, predictability)


def pieces(kind: str) -> Iterator[tuple[House, Furniture]]:
    for drawn in houses():
        for piece in drawn.furniture:
            if piece.kind == kind:
                yield drawn, piece


def overlap(a: Rect, b: Rect) -> bool:
    across = min(a.x1, b.x1) - max(a.x0, b.x0)
    along = min(a.y1, b.y1) - max(a.y0, b.y0)
    return min(across, along) > 1e-6


def swept(door: Door) -> Rect:
    """The floor over which the leaf turns."""
    leaf, gap = door.leaf_rect(), door.gap()
    return Rect(
        min(leaf.x0, gap.x0), min(leaf.y0, gap.y0), max(leaf.x1, gap.x1), max(leaf.y1, gap.y1)
    )


def gap_behind(drawn: House, piece: Furniture) -> float:
    """Metres between the back of a piece and the wall it turns its back to."""
    room, own = drawn.rooms[piece.room].clear, piece.footprint
    axis = 0 if abs(math.cos(piece.yaw)) > 0.7 else 1
    backward = -1 if (math.cos(piece.yaw), math.sin(piece.yaw))[axis] > 0 else 1
    return abs(room.side(axis, backward)[0] - own.side(axis, backward)[0])


# Doors and windows


def test_open_doors_touch_no_furniture() -> None:
    for drawn in houses():
        solid = [piece.footprint for piece in drawn.furniture if piece.blocks]
        for door in drawn.plan.doors:
            if door.leaf:
                assert not any(overlap(door.leaf_rect(), own) for own in solid)


def test_nearly_all_doors_can_be_shut() -> None:
    """Where nothing else fits, the piece that shows a room's purpose may stand in the way."""
    blocked = [
        any(piece.blocks and overlap(swept(door), piece.footprint) for piece in drawn.furniture)
        for drawn in houses()
        for door in drawn.plan.doors
        if door.leaf
    ]
    assert len(blocked) > 40
    assert np.mean(blocked) < 0.05


def test_the_floor_before_a_door_is_free_on_both_sides() -> None:
    for drawn in houses():
        for door in drawn.plan.doors:
            for step in (-0.45, 0.45):
                middle = door.point(step)
                free = Rect(*middle, *middle).inset(-0.4)
                for piece in drawn.furniture:
                    assert not (piece.blocks and overlap(free, piece.footprint)), piece.kind


def test_a_door_worked_by_hand() -> None:
    """In the wall x = 3, 0.9 wide around y = 2, into the room at greater x, hung at greater y."""
    door = Door((0, 1), 0, 3.0, 2.0, 0.9, 1, True, 1)
    assert door.point(0.5) == (3.5, 2.0)
    assert door.gap(0.06) == Rect(2.94, 1.55, 3.06, 2.45)
    leaf = door.leaf_rect()
    assert (leaf.x0, leaf.x1) == pytest.approx((3.06, 3.94))
    assert (leaf.y0, leaf.y1) == pytest.approx((2.41, 2.45))
    other = Door((0, 1), 1, 3.0, 2.0, 0.9, -1, True, -1)
    assert other.point(0.5) == (2.0, 2.5)
    leaf = other.leaf_rect()
    assert (leaf.x0, leaf.x1) == pytest.approx((1.55, 1.59))
    assert (leaf.y0, leaf.y1) == pytest.approx((2.06, 2.94))


def test_nothing_that_stands_at_a_wall_covers_its_windows() -> None:
    for drawn in houses():
        for window in drawn.plan.windows:
            for piece in drawn.furniture:
                if piece.room != window.room or piece.kind in ("curtain", "blinds", "pendant"):
                    continue
                front = (math.cos(piece.yaw), math.sin(piece.yaw))[window.axis]
                if front * window.outward > -0.7:
                    continue  # it has its back to another wall
                top = piece.base + piece.height + ABOVE.get(piece.kind, 0.0)
                own = piece.footprint
                near = abs(own.side(window.axis, window.outward)[0] - window.at) < 0.15
                _, low, high = own.side(window.axis, window.outward)
                beside = min(high, window.along + window.width / 2) - max(
                    low, window.along - window.width / 2
                )
                if near and beside > 0.0 and piece.blocks:
                    assert top <= window.sill + 0.01, piece.kind


@pytest.mark.parametrize("kind", ["curtain", "blinds"])
def test_curtains_and_blinds_hang_at_windows_of_the_rooms_that_have_them(kind: str) -> None:
    count = 0
    for drawn, piece in pieces(kind):
        assert WINDOWS[drawn.rooms[piece.room].purpose] == kind
        at = (piece.x, piece.y)
        near = [
            window
            for window in drawn.plan.windows
            if window.room == piece.room
            and abs(at[window.axis] - window.at) < 0.2
            and abs(at[1 - window.axis] - window.along) < 1e-9
        ]
        assert len(near) == 1
        assert piece.width >= near[0].width
        assert piece.base <= near[0].sill
        assert piece.base + piece.height >= near[0].head
        count += 1
    assert count > 20


def test_every_room_has_its_lamp_under_the_ceiling() -> None:
    for drawn in houses():
        for index, room in enumerate(drawn.rooms):
            kind = LAMPS.get(room.purpose, "ceiling lamp")
            lamps = [p for p in drawn.furniture if p.room == index and p.kind == kind]
            assert lamps
            for lamp in lamps:
                assert lamp.base + lamp.height == pytest.approx(drawn.plan.height)
                assert lamp.base > 1.9  # nobody hits it


# Rules


def test_every_purpose_has_rules_that_build_on_what_stands_already() -> None:
    assert set(RULES) == {*PURPOSES, HALLWAY}
    for rules in RULES.values():
        standing: set[str] = set()
        for rule in rules:
            how, _, of = rule.where.partition(" ")
            assert rule.kind in KINDS
            assert how in {
                "opposite", "window", "corner", "centre", "anywhere", "free",
                "by", "facing", "over", "before", "around", "under",
            }  # fmt: skip
            assert not of or of in standing
            assert 0.0 < rule.chance <= 1.0
            assert list(rule.sizes) == sorted(rule.sizes, key=lambda s: -s[0] * s[1])
            standing.add(rule.kind)


def test_furniture_is_as_large_and_as_much_as_the_rules_say() -> None:
    for drawn in houses():
        for index, room in enumerate(drawn.rooms):
            own = [p for p in drawn.furniture if p.room == index and p.kind not in BUILT_IN]
            rules = RULES[room.purpose]
            for piece in own:
                sizes = {size for rule in rules if rule.kind == piece.kind for size in rule.sizes}
                assert (piece.width, piece.depth, piece.height) in sizes
                assert piece.tone in range(3)
            for kind, count in Counter(piece.kind for piece in own).items():
                assert count <= sum(rule.number for rule in rules if rule.kind == kind)


@pytest.mark.parametrize(
    "kind", ["bed", "sofa", "wardrobe", "kitchen sink", "stove", "toilet", "desk", "bookcase"]
)
def test_furniture_of_walls_has_its_back_to_the_wall(kind: str) -> None:
    found = [gap_behind(drawn, piece) for drawn, piece in pieces(kind)]
    assert found
    assert max(found) < 0.01


@pytest.mark.parametrize(
    ("kind", "anchor", "reach"),
    [
        ("nightstand", "bed", 1.8),
        ("stove", "kitchen sink", 4.5),
        ("desk chair", "desk", 1.0),
        ("coffee table", "sofa", 1.5),
        ("chair", "dining table", 1.6),
        ("stool", "island", 1.4),
    ],
)
def test_what_belongs_together_stands_together(kind: str, anchor: str, reach: float) -> None:
    away = []
    for drawn, piece in pieces(kind):
        if drawn.predictability == 1.0:
            others = [p for p in drawn.furniture if p.kind == anchor and p.room == piece.room]
            away.append(min(math.hypot(p.x - piece.x, p.y - piece.y) for p in others))
    # Where one side of a bed is at a wall, the second nightstand stands elsewhere.
    assert np.median(away) < reach


def test_chairs_and_desks_face_each_other() -> None:
    for drawn, chair in pieces("desk chair"):
        desk = next(p for p in drawn.furniture if p.kind == "desk" and p.room == chair.room)
        assert math.cos(chair.yaw - desk.yaw) == pytest.approx(-1.0)
    for drawn, chair in pieces("chair"):
        tables = [p for p in drawn.furniture if p.kind == "dining table" and p.room == chair.room]
        toward = max(math.cos(math.atan2(t.y - chair.y, t.x - chair.x) - chair.yaw) for t in tables)
        assert toward > 0.4


def test_random_rooms_hold_the_same_kinds_but_not_by_rule() -> None:
    """A television faces the sofa in a regular room, and any way in a random one."""

    def facing(regular: bool) -> float:
        found = []
        for seed in range(20):
            plan = draw_plan(np.random.default_rng(seed))
            sizes = [plan.clear(k).area for k in range(len(plan.rooms))]
            room = int(np.argmax(np.where(plan.corridor, 0.0, sizes)))
            drawn = furnish(plan, room, "living room", regular, np.random.default_rng(seed))
            by_kind = {piece.kind: piece for piece in drawn}
            if {"sofa", "tv stand"} <= by_kind.keys():
                turn = by_kind["sofa"].yaw - by_kind["tv stand"].yaw
                found.append(math.cos(turn) < -0.9)
        assert len(found) > 8
        return float(np.mean(found))

    assert facing(True) > 0.8
    assert facing(False) < 0.6


def test_furnishing_is_a_function_of_its_random_numbers() -> None:
    plan = draw_plan(np.random.default_rng(3))
    room = plan.corridor.index(False)
    one, two, other = (
        furnish(plan, room, "bedroom", True, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert one == two
    assert one != other
    with pytest.raises(ValueError, match="purpose must be one of"):
        furnish(plan, room, "cellar", True, np.random.default_rng(0))


# Bodies

EXAMPLES = sorted(
    {(rule.kind, size) for rules in RULES.values() for rule in rules for size in rule.sizes}
)


@pytest.mark.parametrize(("kind", "size"), EXAMPLES)
def test_bodies_fill_the_space_that_is_kept_for_them(
    kind: str, size: tuple[float, float, float]
) -> None:
    width, depth, height = size
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for part in KINDS[kind].build(depth, width, height):
        turn, tilt = (abs(math.cos(a)) + 1j * abs(math.sin(a)) for a in part.turn)
        x, y, z = part.size
        x, z = x * tilt.real + z * tilt.imag, x * tilt.imag + z * tilt.real
        half = np.array([x * turn.real + y * turn.imag, x * turn.imag + y * turn.real, z]) / 2
        low = np.minimum(low, part.center - half)
        high = np.maximum(high, part.center + half)
    # Handles, leaves and quilts stick out by a hand's breadth, a chimney to the sides by more.
    more = 0.16 if kind == "fireplace" else 0.065
    assert (low[:2] > (-depth / 2 - more, -width / 2 - more)).all()
    assert (high[:2] < (depth / 2 + more, width / 2 + more)).all()
    assert low[2] > -1e-9
    assert high[2] < height + ABOVE.get(kind, 0.0) + 0.3  # what stands on it
    assert (high - low > 0.8 * np.array([depth, width, height])).all()


def test_bodies_are_of_materials_that_are_painted() -> None:
    tones = {f"{name}{tone}" for name in ("fabric", "art", "towel", "rug") for tone in range(3)}
    known = set(draw_materials(np.random.default_rng(0)))
    assert tones <= known
    for drawn in (house(0), house(1)):
        for piece in drawn.furniture:
            assert {part.material for part in piece.parts()} <= known
            assert all(part.category is not None for part in piece.parts())


def test_a_turned_piece_covers_the_turned_rectangle() -> None:
    def piece(yaw: float) -> Rect:
        return Furniture("desk", 0, 1.0, 2.0, yaw, 1.4, 0.6, 0.75).footprint

    level, quarter = piece(0.0), piece(math.pi / 2)
    assert level.size == pytest.approx((0.6, 1.4))  # the front along x, the width along y
    assert quarter.size == pytest.approx((1.4, 0.6))
    assert piece(math.pi / 4).size == pytest.approx((math.sqrt(2), math.sqrt(2)))
    assert level.center == pytest.approx((1.0, 2.0))
