"""Instructions that tell a goal: it is the only such room, and nothing of the way is told."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from decisive.benchmarks.dreamed_study import DreamedPlan
from decisive.benchmarks.house_data import HouseSet
from decisive.benchmarks.house_study import HousePlan, HouseStudy
from decisive.benchmarks.navigation import Arguments, _name
from envs.indoor.goals import goal_entries
from envs.indoor.house import House, generate_house
from envs.indoor.instructions import LEAST, MOST, SHORTEST, gather_facts


@cache
def house(seed: int) -> House:
    return generate_house(seed, "val")


def entries() -> Iterator[tuple[House, dict[str, Any]]]:
    for seed in range(4):
        for entry in goal_entries([house(seed)], seed, 8):
            yield house(seed), entry


def test_the_goal_is_the_only_room_of_its_purpose_and_the_start_is_in_another() -> None:
    found = list(entries())
    assert len(found) == 32
    for drawn, entry in found:
        start, goal = entry["path"][0], entry["path"][-1]
        purpose = drawn.rooms[drawn.room_of(goal)].purpose
        assert [room.purpose for room in drawn.rooms].count(purpose) == 1
        assert drawn.room_of(start) != drawn.room_of(goal)
        assert all(purpose in text for text in entry["instructions"])


def test_paths_are_those_of_room_to_room() -> None:
    for drawn, entry in entries():
        assert LEAST <= len(entry["path"]) <= MOST
        assert drawn.graph.length(entry["path"]) == pytest.approx(entry["distance"], abs=0.01)
        assert entry["distance"] >= SHORTEST
        assert entry["synthetic"] is True


def test_only_what_is_at_the_goal_is_told() -> None:
    for drawn, entry in entries():
        *way, stop = gather_facts(drawn, entry["path"])
        others = {fact.room for fact in way} - {stop.room, ""}
        for text in entry["instructions"]:
            assert not stop.noun or stop.noun in text
            words = text.lower().replace(",", "").replace(".", "").split()
            assert not {"left", "right", "turn", "leave", "past", "through", "then"} & set(words)
            assert not any(room in text for room in others)


def test_the_three_ways_of_telling_differ_and_a_seed_repeats_them() -> None:
    first = goal_entries([house(0)], 3, 5)
    assert first == goal_entries([house(0)], 3, 5)
    assert first != goal_entries([house(0)], 4, 5)
    assert all(len(set(entry["instructions"])) == 3 for entry in first)
    assert [entry["path_id"] for entry in goal_entries([house(0), house(1)], 3, 5)] == [*range(10)]


def test_a_set_may_begin_at_any_house_and_tell_either(tmp_path: Path) -> None:
    later = HouseSet("val", 1.0, 2, 2, 2, 32, tmp_path, told="goal", first=2)
    assert {one.scan for one in later.lessons} == {house(2).name, house(3).name}
    assert set(later.spans) == {house(2).name, house(3).name}
    assert later.house(house(3).name).name == house(3).name
    way = HouseSet("val", 1.0, 2, 2, 2, 32, tmp_path, first=2)
    assert {one.text for one in way.lessons}.isdisjoint(one.text for one in later.lessons)


def test_rankers_of_both_kinds_lie_apart_and_share_a_world_model(tmp_path: Path) -> None:
    way, goal = (HouseStudy(HousePlan(told=told), 0, tmp_path) for told in ("way", "goal"))
    assert way.folder == goal.folder
    assert way.ranker_folder != goal.ranker_folder
    assert _name(Arguments()) == "houses-p100-test-h3"
    assert _name(Arguments(told="goal", first=60)) == "houses-p100-goal-test-h3"


@pytest.mark.parametrize("wrong", [{"told": "sky"}, {"first": -1}])
def test_what_cannot_be_told_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        HousePlan(**wrong)


@pytest.mark.parametrize("wrong", [{"told": "goal"}, {"first": 3}])
def test_other_worlds_have_no_goals_told(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="--world houses"):
        Arguments(world="r2r", **wrong)


def test_the_first_house_can_be_told_where_a_follower_walks_after_dreams() -> None:
    plan = Arguments(world="dreamed", first=120).plan()
    assert (type(plan), plan.first, plan.told) == (DreamedPlan, 120, "way")
    with pytest.raises(ValueError, match="--told is of --world houses"):
        Arguments(world="dreamed", told="goal")
