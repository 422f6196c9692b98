"""Panoramas on disk, walks through them, turning and mirroring, batches."""

import json
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pathdreamer_cases import make_guidance, painted_house, painted_set

from world_models.pathdreamer.batches import (
    POOL,
    Echoes,
    Example,
    Examples,
    WalkConfig,
    batches,
    draw_walk,
    mirrored,
    stack_guidance,
    stack_truth,
    turned,
)
from world_models.pathdreamer.panoramas import (
    House,
    PanoramaSet,
    Seen,
    open_panoramas,
    write_panoramas,
)


def houses(count: int = 3, height: int = 16) -> list[House]:
    rng = np.random.default_rng(0)
    return [painted_house(rng, f"house-{k}", height, rooms=3 + k) for k in range(count)]


def named(house: House, *rooms: str) -> House:
    return replace(house, rooms=rooms)


def test_a_set_survives_the_disk(tmp_path: Path) -> None:
    write_panoramas(tmp_path / "set", houses(), (16, 32))
    found, expected = open_panoramas(tmp_path / "set"), PanoramaSet.of_houses(houses())
    assert isinstance(found.rgb.base, np.memmap)
    for name in ("rgb", "semantic", "depth", "positions"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.neighbors == expected.neighbors
    assert found.houses == expected.houses
    assert found.size == (16, 32)
    assert len(found) == 3 + 4 + 5


def test_kinds_of_room_survive_the_disk_and_may_be_unknown(tmp_path: Path) -> None:
    first, second, third = houses()
    known = [named(first, "kitchen", "hallway", "kitchen"), second]
    write_panoramas(tmp_path / "set", known, (16, 32))
    found = open_panoramas(tmp_path / "set")
    assert found.rooms == ("kitchen", "hallway", "kitchen", "", "", "", "")
    assert found.room_names == ("hallway", "kitchen")
    assert found.part(["house-1"]).rooms == found.rooms
    with pytest.raises(ValueError, match="house-2: 5 viewpoints, but rooms of 2"):
        PanoramaSet.of_houses([named(third, "kitchen", "hallway")])


def test_neighbours_are_of_the_same_house() -> None:
    data = PanoramaSet.of_houses(houses())
    for _, span in data.houses:
        assert {n for k in span for n in data.neighbors[k]} <= set(span)
    assert data.neighbors[3] == (4,)


def test_a_part_keeps_to_its_houses() -> None:
    data = PanoramaSet.of_houses(houses())
    part = data.part(["house-1"])
    assert [name for name, _ in part.houses] == ["house-1"]
    assert set(part.starts) == set(range(3, 7))
    with pytest.raises(ValueError, match="house-9"):
        data.part(["house-9"])


def test_classes_are_counted_and_ids_beyond_them_refused() -> None:
    data = PanoramaSet.of_houses(houses())
    counts = data.class_counts(41)
    assert counts.sum() == data.semantic.size
    assert counts[1] == (data.semantic == 1).sum()
    with pytest.raises(ValueError, match="below 10, got 17"):
        data.class_counts(10)


@pytest.mark.parametrize("damage", ["short", "missing", "format", "neighbors", "nothing", "text"])
def test_a_damaged_set_is_refused(tmp_path: Path, damage: str) -> None:
    write_panoramas(tmp_path, houses(), (16, 32))
    index = json.loads((tmp_path / "panoramas.json").read_text())
    if damage == "short":
        (tmp_path / "depth.bin").write_bytes(b"1234")
    elif damage == "missing":
        (tmp_path / "rgb.bin").unlink()
    elif damage == "format":
        index["format"] = 1
    elif damage == "neighbors":
        index["houses"][0]["neighbors"][0] = [77]
    elif damage == "nothing":
        index["houses"] = []
    (tmp_path / "panoramas.json").write_text(json.dumps(index) if damage != "text" else "{")
    with pytest.raises(ValueError, match=str(tmp_path)):
        open_panoramas(tmp_path)


def test_a_set_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"panoramas\.json"):
        open_panoramas(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": np.full((16, 32), np.nan, np.float32)}, "finite"),
        ({"depth": np.full((16, 32), -1, np.float32)}, "negative"),
        ({"depth": np.full((16, 32), 1e6, np.float32)}, "finite"),
        ({"semantic": np.zeros((8, 32), np.uint8)}, "16 x 32"),
        ({"rgb": np.zeros((16, 32, 3), np.float32)}, "uint8"),
        ({"position": np.array([np.inf, 0, 0])}, "positions"),
    ],
)
def test_panoramas_that_would_spoil_a_training_are_not_written(
    tmp_path: Path, change: dict[str, np.ndarray], message: str
) -> None:
    write_panoramas(tmp_path / "set", houses(1), (16, 32))
    house = houses(1)[0]
    first, *rest = house.panoramas
    bad = replace(house, panoramas=[replace(first, **change), *rest])
    with pytest.raises(ValueError, match=message):
        write_panoramas(tmp_path / "set", [bad], (16, 32))
    assert len(open_panoramas(tmp_path / "set")) == 3  # the old one is untouched


def test_two_houses_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two houses"):
        PanoramaSet.of_houses([houses(1)[0], houses(1)[0]])
    with pytest.raises(ValueError, match="at least one"):
        PanoramaSet.of_houses([])


# Walks


@given(seed=st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_a_walk_goes_along_edges_and_never_comes_back(seed: int) -> None:
    data = PanoramaSet.of_houses(houses(height=2))
    config = WalkConfig(context=(1, 3), hops=(1, 3))
    context, targets = draw_walk(data, np.random.default_rng(seed), config)
    way = context + targets
    assert len(set(way)) == len(way)
    assert all(b in data.neighbors[a] for a, b in pairwise(way))
    assert 1 <= len(context) <= 3
    assert 1 <= len(targets) <= 3


def test_all_lengths_of_context_and_all_hops_occur() -> None:
    data = PanoramaSet.of_houses([painted_house(np.random.default_rng(0), "long", 2, rooms=12)])
    rng = np.random.default_rng(0)
    drawn = {tuple(map(len, draw_walk(data, rng, WalkConfig()))) for _ in range(300)}
    assert drawn == {(k, h) for k in (1, 2, 3) for h in (1, 2, 3)}


def test_a_set_without_edges_cannot_be_walked() -> None:
    lone = PanoramaSet.of_houses([painted_house(np.random.default_rng(0), "lone", 2, rooms=1)])
    with pytest.raises(ValueError, match="nowhere to walk"):
        draw_walk(lone, np.random.default_rng(0), WalkConfig())


@pytest.mark.parametrize("bad", [(0, 3), (3, 1), (2, 0)])
def test_ranges_that_hold_nothing_are_refused(bad: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="context"):
        WalkConfig(context=bad)
    with pytest.raises(ValueError, match="hops"):
        WalkConfig(hops=bad)


# Turning the world, and mirroring it


def projected(context: Seen, target: Seen) -> tuple[np.ndarray, ...]:
    found = make_guidance([context], target.position)
    return found.valid, found.semantic, found.rgb, found.depth


@pytest.mark.parametrize("columns", [1, 8, 31])
def test_turning_the_world_rolls_the_guidance(columns: int) -> None:
    # The cloud is turned too: a panorama rolled alone would be projected to the wrong place.
    context, target = list(houses(1)[0].panoramas)[:2]
    straight = projected(context, target)
    after = projected(turned(context, columns), turned(target, columns))
    same = np.roll(straight[0], columns, axis=1) == after[0]
    assert same.mean() > 0.99  # points on the very edge of a pixel may round to the next
    for before, now in zip(straight[1:], after[1:], strict=True):
        close = np.isclose(
            np.roll(before, columns, axis=1).astype(float), now.astype(float), atol=0.1
        )
        assert close.mean() > 0.98
    alone = replace(context, rgb=np.roll(context.rgb, columns, axis=1))
    assert not np.array_equal(projected(alone, target)[2], straight[2])


def test_mirroring_the_world_mirrors_the_guidance() -> None:
    context, target = list(houses(1)[0].panoramas)[:2]
    straight = projected(context, target)
    after = projected(mirrored(context), mirrored(target))
    for before, now in zip(straight, after, strict=True):
        close = np.isclose(before[:, ::-1].astype(float), now.astype(float), atol=0.1)
        assert close.mean() > 0.98


def test_turning_all_the_way_round_changes_nothing() -> None:
    seen = next(iter(houses(1)[0].panoramas))
    full = turned(seen, 32)
    np.testing.assert_array_equal(full.rgb, seen.rgb)
    np.testing.assert_allclose(full.position, seen.position, atol=1e-12)


# Batches


def test_an_example_is_a_function_of_seed_and_number() -> None:
    data = painted_set(0, 3, 16)
    one, same = (Examples(data, make_guidance, WalkConfig(), seed=3)[5] for _ in range(2))
    assert one.draw == same.draw
    np.testing.assert_array_equal(one.guidance.depth, same.guidance.depth)
    draws = {
        Examples(data, make_guidance, WalkConfig(), seed)[n].draw for seed in (3, 4) for n in (5, 6)
    }
    assert len(draws) == 4


def test_guidance_of_an_example_is_right_where_it_is_valid() -> None:
    examples = Examples(painted_set(0, 4, 32), make_guidance, WalkConfig(hops=(1, 1)), seed=0)
    right = total = 0
    for number in range(8):
        example = examples[number]
        valid = example.guidance.valid
        right += int((example.guidance.semantic == example.targets[-1].semantic)[valid].sum())
        total += int(valid.sum())
    assert right / total > 0.85  # edges of things fall on neighbouring pixels


def test_the_target_is_the_origin() -> None:
    example = Examples(painted_set(0, 3, 16), make_guidance, WalkConfig(), seed=0)[0]
    np.testing.assert_allclose(example.targets[-1].position, 0, atol=1e-12)
    assert np.linalg.norm(example.context[-1].position) > 1


def drawn(stream: object, steps: int) -> list[list[float]]:
    return [[example.draw for example in batch] for batch in islice(stream, steps)]  # type: ignore[call-overload]


def test_processes_share_each_batch_and_a_resumed_one_goes_on() -> None:
    examples = Examples(painted_set(0, 3, 16), make_guidance, WalkConfig(), seed=0)
    whole = drawn(batches(examples, 4), 3)
    halves = [drawn(batches(examples, 4, rank=rank, world=2), 3) for rank in (0, 1)]
    assert [a + b for a, b in zip(*halves, strict=True)] == whole
    assert drawn(batches(examples, 4, step=1), 2) == whole[1:]
    with pytest.raises(ValueError, match="multiple of 3"):
        batches(examples, 4, world=3)


def test_workers_give_the_same_examples() -> None:
    examples = Examples(painted_set(0, 3, 16), make_guidance, WalkConfig(), seed=0)
    ahead: list[Example] = next(batches(examples, 2, workers=1))
    assert [e.draw for e in ahead] == drawn(batches(examples, 2), 1)[0]


def test_stacked_arrays_keep_their_values() -> None:
    examples = [
        Examples(painted_set(0, 3, 16), make_guidance, WalkConfig(), seed=0)[k] for k in (0, 1)
    ]
    guidance = stack_guidance([e.guidance for e in examples])
    truth = stack_truth([e.targets[-1] for e in examples])
    assert guidance.rgb.shape == truth.rgb.shape == (2, 3, 16, 32)
    np.testing.assert_array_equal(guidance.valid[1], examples[1].guidance.valid)
    np.testing.assert_allclose(truth.depth[0], examples[0].targets[-1].depth)
    np.testing.assert_allclose(
        truth.rgb[1].movedim(0, -1) * 255, examples[1].targets[-1].rgb, atol=1e-4
    )
    assert (guidance.filled_depth > 0).all()
    with pytest.raises(ValueError, match="at least one"):
        stack_guidance([])


# Walks that come up several times


def test_an_echo_is_the_walk_with_the_world_turned_or_mirrored() -> None:
    data = painted_set(0, 3, 16)
    echoes = Echoes(Examples(data, make_guidance, WalkConfig(), seed=3), times=2)
    straight = Examples(data, make_guidance, WalkConfig(turn=False, mirror=False), seed=3)
    walks = [straight[number] for number in np.random.default_rng([3, 0]).permutation(POOL)[:8]]
    mirrorings = set()
    for number, walk in enumerate(walks):
        found, rng = echoes[number], np.random.default_rng([3, number])
        columns, mirror = int(rng.integers(32)), bool(rng.integers(2))
        mirrorings.add(mirror)

        def moved(seen: Seen, columns: int = columns, mirror: bool = mirror) -> Seen:
            return mirrored(turned(seen, columns)) if mirror else turned(seen, columns)

        target = moved(walk.targets[-1])
        for name in ("rgb", "semantic", "depth"):
            np.testing.assert_array_equal(getattr(found.targets[-1], name), getattr(target, name))
        np.testing.assert_allclose(target.position, found.targets[-1].position, atol=1e-12)
        again = make_guidance([moved(seen) for seen in walk.context], target.position)
        for name in ("valid", "semantic", "filled_semantic", "depth", "filled_depth", "rgb"):
            close = np.isclose(getattr(found.guidance, name).astype(float), getattr(again, name))
            assert close.mean() > 0.95, name  # points on the edge of a pixel may round to the next
    assert mirrorings == {False, True}


def test_every_walk_comes_up_as_often_as_asked_and_then_others_do() -> None:
    data = painted_set(0, 3, 16)
    made: list[int] = []

    class Counted(Examples):
        def __getitem__(self, index: int) -> Example:
            made.append(index)
            return walk

    examples = Examples(data, make_guidance, WalkConfig(), seed=0)
    walk = examples[0]
    echoes = Echoes(examples, times=3)
    echoes._straight = Counted(data, make_guidance, WalkConfig(), 0)
    for number in range(3 * POOL + 5):
        echoes[number]
    assert sorted(made[:POOL]) == list(range(POOL))
    assert len(made) == POOL + 5
    assert min(made[POOL:]) >= POOL


def test_an_echo_does_not_depend_on_what_was_asked_before() -> None:
    examples = Examples(painted_set(0, 3, 16), make_guidance, WalkConfig(), seed=0)
    one, other = Echoes(examples, times=2), Echoes(examples, times=2)
    for number in (0, POOL + 3, 2 * POOL + 1, 7):
        one[number]
    for number in (7, 2 * POOL + 1, POOL + 3):
        a, b = one[number], other[number]
        np.testing.assert_array_equal(a.guidance.filled_depth, b.guidance.filled_depth)
        np.testing.assert_array_equal(a.targets[-1].rgb, b.targets[-1].rgb)
        assert a.room == b.room
