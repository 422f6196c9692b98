"""Synthetic instructions: only what is seen, the right side, Room-to-Room's format."""

import itertools
import math
import string
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from envs.indoor.categories import ID
from envs.indoor.equirectangular import heading_of, pixels
from envs.indoor.furniture import KINDS
from envs.indoor.house import House, generate_house
from envs.indoor.instructions import (
    SHORTEST,
    Fact,
    _say,
    _side,
    first_heading,
    gather_facts,
    r2r_entries,
    sample_paths,
    write_instructions,
)
from envs.indoor.phrases import MANNERS
from envs.indoor.procedural import ProceduralSimulator
from envs.indoor.room_types import HALLWAY, PURPOSES
from envs.indoor.sightings import ENOUGH, look_around


@cache
def house(seed: int) -> House:
    return generate_house(seed, "val")


def paths() -> Iterator[tuple[House, tuple[str, ...]]]:
    for seed in range(3):
        for path in sample_paths(house(seed), np.random.default_rng(seed), 15):
            yield house(seed), path


def test_paths_are_those_of_room_to_room() -> None:
    for drawn, path in paths():
        assert 4 <= len(path) <= 7
        length = drawn.graph.length(path)
        assert length >= SHORTEST
        assert length == pytest.approx(drawn.graph.distance(path[0], path[-1]))
    drawn = house(0)
    many = sample_paths(drawn, np.random.default_rng(0), 10**6)
    assert len(set(many)) == len(many) > 100
    assert sample_paths(drawn, np.random.default_rng(1), 5) == sample_paths(
        drawn, np.random.default_rng(1), 5
    )


def test_what_is_mentioned_is_seen_from_where_it_is_said() -> None:
    simulators = {drawn.name: ProceduralSimulator(drawn) for drawn in map(house, range(3))}
    mentions = 0
    for drawn, path in paths():
        for fact in gather_facts(drawn, path):
            if fact.piece < 0:
                continue
            mentions += 1
            pieces = simulators[drawn.name].pieces(fact.viewpoint, (64, 128))
            assert (pieces == fact.piece).sum() >= ENOUGH
            seen = simulators[drawn.name].observe(fact.viewpoint, (64, 128)).semantic
            own = seen[pieces == fact.piece]
            assert ID[drawn.furniture[fact.piece].category] in own or len(np.unique(own)) > 1
    assert mentions > 60


def test_sightings_are_where_the_panorama_shows_them() -> None:
    drawn = house(1)
    simulator = ProceduralSimulator(drawn)
    for viewpoint, sightings in list(look_around(drawn).items())[::5]:
        pieces = simulator.pieces(viewpoint, (64, 128))
        for sighting in sightings:
            _, columns = np.nonzero(pieces == sighting.piece)
            direction = np.array([math.cos(sighting.azimuth), math.sin(sighting.azimuth), 0.0])
            _, column = pixels(direction, 64, 128)
            assert np.abs((columns - int(column) + 64) % 128 - 64).min() < 24
            assert len(columns) == sighting.pixels


def test_sides_are_those_of_the_walk() -> None:
    assert _side(math.radians(90)) == "left"
    assert _side(math.radians(-60)) == "right"
    assert _side(math.radians(350)) == "straight"
    assert _side(math.radians(180)) == "back"
    checked = 0
    for drawn, path in paths():
        at = {viewpoint: k for k, viewpoint in enumerate(path)}
        for fact in gather_facts(drawn, path):
            if fact.what != "pass":
                continue
            k = at[fact.viewpoint]
            a, b = (drawn.graph.positions[drawn.graph.index(path[k + n])][:2] for n in (0, 1))
            sighting = next(s for s in look_around(drawn)[path[k]] if s.piece == fact.piece)
            toward = np.array([math.cos(sighting.azimuth), math.sin(sighting.azimuth)])
            cross = (b - a)[0] * toward[1] - (b - a)[1] * toward[0]
            assert fact.side == ("left" if cross > 0 else "right")
            checked += 1
    assert checked > 15


def test_rooms_are_left_and_entered_in_order() -> None:
    for drawn, path in paths():
        rooms = [drawn.room_of(viewpoint) for viewpoint in path]
        crossed = [b for a, b in itertools.pairwise(rooms) if a != b]
        entered = [f for f in gather_facts(drawn, path) if f.what == "enter"]
        assert [f.room.removeprefix("other ") for f in entered] == [
            drawn.rooms[room].purpose for room in crossed
        ]
        last = gather_facts(drawn, path)[-1]
        assert (last.what, last.viewpoint) == ("stop", path[-1])
        assert last.room == drawn.rooms[rooms[-1]].purpose


def test_the_first_turn_follows_from_the_heading() -> None:
    drawn, path = next(paths())
    heading = first_heading(drawn, path)
    assert gather_facts(drawn, path, heading) == gather_facts(drawn, path)
    a, b = (drawn.graph.positions[drawn.graph.index(v)] for v in path[:2])
    assert heading == pytest.approx(heading_of(math.atan2(b[1] - a[1], b[0] - a[0])))
    # Looking a quarter to the left of the way (headings are clockwise), one turns right.
    first = gather_facts(drawn, path, heading - math.pi / 2)[0]
    assert first.side == "right"
    assert gather_facts(drawn, path, heading + math.pi)[0].side == "back"


def test_instructions_name_only_what_the_facts_name() -> None:
    nouns = {kind.noun for kind in KINDS.values()} | {*PURPOSES, HALLWAY}
    for drawn, path in paths():
        facts = gather_facts(drawn, path)
        allowed = " ".join(f"{f.noun} {f.room}" for f in facts)
        for text in write_instructions(drawn, path, np.random.default_rng(0)):
            words = text.lower()
            for noun in nouns:
                if f" {noun}" in words:
                    assert noun in allowed, (noun, text)
            assert text[0].isupper()
            assert text.endswith(".")
            assert not set("{}") & set(text)
            assert "  " not in text


def test_instructions_of_a_path_differ_and_repeat_under_a_seed() -> None:
    drawn, path = next(paths())
    one = write_instructions(drawn, path, np.random.default_rng(4), 3)
    assert len(set(one)) == 3
    assert one == write_instructions(drawn, path, np.random.default_rng(4), 3)


def test_a_walk_in_words() -> None:
    facts = [
        Fact("leave", "a", "left", "kitchen"),
        Fact("enter", "b", "", "hallway"),
        Fact("pass", "b", "right", "", 3, "plant"),
        Fact("stop", "c", "", "hallway", 4, "bench"),
    ]
    for manner in MANNERS:
        for seed in range(10):
            text = _say(facts, manner, np.random.default_rng(seed))
            order = [text.find(word) for word in ("kitchen", "plant", "bench")]
            assert -1 not in order
            assert order == sorted(order)
            assert "left" in text


def test_all_manners_can_say_everything() -> None:
    keys = set(MANNERS[0].clauses)
    for manner in MANNERS:
        assert set(manner.clauses) == keys
        for key, phrases in manner.clauses.items():
            for phrase in phrases:
                fields = {field for _, field, _, _ in string.Formatter().parse(phrase) if field}
                assert fields <= {"room", "noun", "side"}
                assert ("room" in fields) >= (key.split()[0] in ("leave", "enter"))


def test_entries_are_room_to_rooms_format() -> None:
    houses = [house(0), house(1)]
    entries = r2r_entries(houses, seed=2, paths=5)
    assert [entry["path_id"] for entry in entries] == list(range(10))
    graphs = {drawn.name: drawn.graph for drawn in houses}
    for entry in entries:
        assert set(entry) == {
            "distance", "scan", "path_id", "path", "heading", "instructions", "synthetic",
        }  # fmt: skip
        graph = graphs[entry["scan"]]
        assert entry["synthetic"] is True
        assert graph.length(entry["path"]) == pytest.approx(entry["distance"], abs=0.006)
        assert 0.0 <= entry["heading"] < 2 * math.pi + 1e-3
        assert len(entry["instructions"]) == 3
    assert entries == r2r_entries(houses, seed=2, paths=5)
    assert entries != r2r_entries(houses, seed=3, paths=5)


def test_a_path_must_be_one() -> None:
    drawn = house(0)
    with pytest.raises(ValueError, match="at least two"):
        gather_facts(drawn, drawn.graph.viewpoints[:1])
    apart = np.argwhere(~drawn.graph.adjacent & (drawn.graph.distances > 0))[0]
    with pytest.raises(ValueError, match="no way leads straight"):
        write_instructions(
            drawn, [drawn.graph.viewpoints[k] for k in apart], np.random.default_rng(0)
        )
