"""Room-to-Room in procedural houses: the splits that lie beside the module, and their houses."""

import json
import math

import pytest

from envs.indoor.house_world import PATHS, HouseWorld, split_file, write_entries
from envs.indoor.instructions import LEAST, MOST
from envs.indoor.r2r_data import Instruction, check_path, read_instructions

WORLD = HouseWorld()


@pytest.mark.parametrize("split", HouseWorld.splits)
def test_splits_on_disk_are_what_is_written_for_their_first_house(split: str) -> None:
    """After a change of houses or language: `python -m envs.indoor.house_world`."""
    fresh = json.loads(json.dumps(write_entries(split, houses=1)))
    told = [
        Instruction(
            f"{entry['path_id']}_{k}",
            entry["path_id"],
            entry["scan"],
            tuple(entry["path"]),
            entry["heading"],
            text,
        )
        for entry in fresh
        for k, text in enumerate(entry["instructions"])
    ]
    assert list(WORLD.instructions(split)[: len(told)]) == told
    assert len(told) == 3 * PATHS


@pytest.mark.parametrize(("split", "houses"), [("train", 16), ("val_seen", 16), ("val_unseen", 8)])
def test_splits_have_three_instructions_for_each_of_eight_paths_a_house(
    split: str, houses: int
) -> None:
    told = WORLD.instructions(split)
    assert len(told) == 3 * PATHS * houses
    assert len({one.scan for one in told}) == houses
    assert len({one.instr_id for one in told}) == len(told)
    assert len({(one.scan, one.path) for one in told}) == len(told) / 3
    for one in told:
        assert LEAST <= len(one.path) <= MOST
        assert 0.0 <= one.heading < 2 * math.pi
        assert one.has_goal
        assert one.text.endswith(".")
    assert WORLD.instructions(split) is told  # read once


def test_seen_validation_is_other_paths_of_the_same_houses_and_unseen_is_other_houses() -> None:
    train, seen, unseen = (WORLD.instructions(split) for split in HouseWorld.splits)
    assert {one.scan for one in train} == {one.scan for one in seen}
    assert {one.path for one in train}.isdisjoint({one.path for one in seen})
    assert {one.scan for one in train}.isdisjoint({one.scan for one in unseen})


def test_paths_can_be_walked_in_the_house_that_they_name() -> None:
    told = [one for one in WORLD.instructions("val_unseen") if one.scan == "house_val_000000"]
    for one in told:
        check_path(WORLD.graph(one.scan), one)


def test_symbolic_views_are_what_categories_cover_of_the_house() -> None:
    views = WORLD.symbolic_views("house_val_000000")
    assert len(views) == len(WORLD.graph("house_val_000000"))
    assert WORLD.symbolic_views("house_val_000000") is views


def test_files_are_small_and_in_room_to_rooms_format() -> None:
    for split in HouseWorld.splits:
        assert split_file(split).stat().st_size < 40_000
        assert read_instructions(split_file(split)) == WORLD.instructions(split)


def test_other_splits_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown split 'test'; known: train"):
        WORLD.instructions("test")
