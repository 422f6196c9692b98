"""Which rooms lie where in many procedural houses: as in real ones, unless they are random."""

from collections import Counter, defaultdict
from functools import cache

import numpy as np
import pytest

from envs.indoor.floor_plan import Plan, draw_plan
from envs.indoor.room_types import PURPOSES, SIGNS, TypeModel

HOUSES = 40

Drawn = list[tuple[Plan, dict[int, str], dict[int, dict[str, str]]]]


@cache
def drawn(predictability: float) -> Drawn:
    """Purposes and signs of the rooms of many plans."""
    rng, found = np.random.default_rng(5), []
    for seed in range(HOUSES):
        plan = draw_plan(np.random.default_rng(seed))
        purposes, signs, _ = TypeModel(plan, predictability).sample(rng)
        found.append((plan, purposes, signs))
    return found


def neighbours(predictability: float, one: str, other: str) -> tuple[int, float, float]:
    """How often two purposes are linked; mean and spread if the rooms of a house were shuffled."""
    rng = np.random.default_rng(0)
    seen, shuffled = 0, np.zeros(40)
    for plan, purposes, _ in drawn(predictability):

        def count(of: dict[int, str], plan: Plan = plan) -> int:
            return sum({of[a], of[b]} == {one, other} for a, b in (k.rooms for k in plan.links))

        seen += count(purposes)
        names = list(purposes.values())
        for k in range(len(shuffled)):
            mixed = [names[i] for i in rng.permutation(len(names))]
            shuffled[k] += count(dict(zip(purposes, mixed, strict=True)))
    return seen, float(shuffled.mean()), float(shuffled.std())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("kitchen", "dining room"),
        ("living room", "dining room"),
        ("bedroom", "bathroom"),
        ("kitchen", "laundry room"),
    ],
)
def test_what_goes_together_lies_together_but_not_at_random(one: str, other: str) -> None:
    seen, chance, spread = neighbours(1.0, one, other)
    assert seen > chance + 3.5 * spread
    seen, chance, spread = neighbours(0.0, one, other)
    assert abs(seen - chance) < 3.0 * spread


@pytest.mark.parametrize(
    ("one", "other"), [("bedroom", "kitchen"), ("kitchen", "bathroom"), ("living room", "bedroom")]
)
def test_what_does_not_go_together_lies_apart_but_not_at_random(one: str, other: str) -> None:
    seen, chance, spread = neighbours(1.0, one, other)
    assert seen < chance - 1.8 * spread
    seen, chance, spread = neighbours(0.0, one, other)
    assert abs(seen - chance) < 3.0 * spread


def means(predictability: float) -> dict[str, tuple[float, float, float]]:
    """Area in square metres, zone and share without a door to a corridor, of each purpose."""
    rows = defaultdict(list)
    for plan, purposes, _ in drawn(predictability):
        for room, purpose in purposes.items():
            row = (plan.clear(room).area, plan.zones[room], plan.through[room])
            rows[purpose].append(row)
    return {purpose: tuple(np.mean(rows[purpose], axis=0).tolist()) for purpose in PURPOSES}


def test_rooms_are_as_large_as_their_purpose_asks_for() -> None:
    area = {purpose: row[0] for purpose, row in means(1.0).items()}
    assert area["living room"] > area["kitchen"] > area["bathroom"] > area["closet"]
    assert area["living room"] > 1.4 * area["laundry room"]
    at_random = {purpose: row[0] for purpose, row in means(0.0).items()}
    assert at_random["living room"] < 1.4 * at_random["laundry room"]


def test_one_lives_near_the_entrance_and_sleeps_far_from_it() -> None:
    zone = {purpose: row[1] for purpose, row in means(1.0).items()}
    assert max(zone[p] for p in ("living room", "kitchen", "dining room")) < 0.6
    assert zone["bedroom"] > 1.4
    at_random = {purpose: row[1] for purpose, row in means(0.0).items()}
    assert abs(at_random["bedroom"] - at_random["living room"]) < 0.5


def test_closets_are_reached_through_rooms_and_bedrooms_are_not() -> None:
    through = {purpose: row[2] for purpose, row in means(1.0).items()}
    assert through["closet"] > 0.8
    assert max(through["bedroom"], through["living room"]) < 0.1
    assert means(0.0)["bedroom"][2] > 0.1


def test_bathrooms_open_to_hallways_and_bedrooms() -> None:
    found: Counter[str] = Counter()
    for plan, purposes, _ in drawn(1.0):
        for door in plan.doors:
            for room, other in (door.rooms, door.rooms[::-1]):
                if purposes.get(room) == "bathroom":
                    found[purposes.get(other, "hallway")] += 1
    assert found["hallway"] + found["bedroom"] > 0.75 * found.total()
    assert found["hallway"] > found["bedroom"] > found["kitchen"]


def test_signs_tell_the_purpose_unless_it_is_random() -> None:
    """Only bathrooms and laundry rooms have blue doors; random rooms of all purposes have them."""
    behind: dict[float, set[str]] = {}
    for predictability in (1.0, 0.0):
        behind[predictability] = {
            purposes[room]
            for _, purposes, signs in drawn(predictability)
            for room in purposes
            if signs[room]["door"] == "blue"
        }
    assert behind[1.0] == {p for p, row in SIGNS["door"].items() if "blue" in row}
    assert len(behind[0.0]) > 4


def test_every_sign_a_purpose_may_have_is_drawn_and_no_other() -> None:
    for _, purposes, signs in drawn(1.0):
        for room, purpose in purposes.items():
            assert set(signs[room]) == set(SIGNS)
            for sign, name in signs[room].items():
                assert name in SIGNS[sign][purpose]
    floors = {s[r]["floor"] for _, p, s in drawn(1.0) for r in p if p[r] == "bathroom"}
    assert floors == set(SIGNS["floor"]["bathroom"])
