"""Maps of what is occupied: shapes on grids, walkers in houses, blocks on a table, and the verb."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from decisive.cli import main
from envs.indoor.house import generate_house
from envs.indoor.walkers import WalkerConfig, draw_walkers, house_occupancy
from envs.rasters import Raster
from envs.tabletop.occupancy import table_occupancy, table_raster
from envs.tabletop.sorting import BlockSortingEnv
from learning.radar import read_event, read_events

RASTER = Raster(left=-1.0, top=2.0, cell=0.1, rows=30, columns=40)


# Shapes.


def test_a_disc_covers_cells_whose_middles_it_covers():
    mask = RASTER.empty()
    RASTER.disc(mask, -0.95, 1.95, 0.11)  # the middle of the first cell
    assert np.argwhere(mask).tolist() == [[0, 0], [0, 1], [1, 0]]


def test_row_0_is_the_greatest_y():
    mask = RASTER.empty()
    RASTER.disc(mask, 0.0, 1.8, 0.15)
    rows, columns = np.nonzero(mask)
    assert rows.mean() == pytest.approx(1.5)
    assert columns.mean() == pytest.approx(9.5)


@settings(max_examples=50, deadline=None)
@given(
    x=st.floats(-2, 4), y=st.floats(-2, 3), yaw=st.floats(-4, 4), a=st.floats(0.02, 1),
    b=st.floats(0.02, 1),
)  # fmt: skip
def test_a_rectangle_covers_what_lies_within_it(x, y, yaw, a, b):
    mask = RASTER.empty()
    RASTER.square(mask, x, y, yaw, (a, b))
    columns, rows = np.meshgrid(np.arange(40), np.arange(30))
    px, py = -1 + (columns + 0.5) * 0.1 - x, 2 - (rows + 0.5) * 0.1 - y
    along = px * np.cos(yaw) + py * np.sin(yaw)
    across = -px * np.sin(yaw) + py * np.cos(yaw)
    near = (np.abs(np.abs(along) - a) < 1e-9) | (np.abs(np.abs(across) - b) < 1e-9)
    expected = (np.abs(along) <= a) & (np.abs(across) <= b)
    assert (mask == expected)[~near].all()


def test_a_thin_wall_has_no_holes():
    mask = RASTER.empty()
    RASTER.boxes(mask, np.array([[-0.5, 0.501, 1.5, 0.509], [5.0, 0.0, 6.0, 1.0]]))
    assert mask.any(axis=1).sum() == 1
    assert mask.any(axis=0).sum() == 20


def test_an_empty_raster_is_refused():
    with pytest.raises(ValueError, match="needs cells"):
        replace(RASTER, rows=0)
    with pytest.raises(ValueError, match="cell above 0"):
        replace(RASTER, cell=0.0)


# Walkers.


@pytest.fixture(scope="module")
def house():
    return generate_house(3)


def test_walkers_stay_in_the_house_and_keep_their_pace(house):
    rng = np.random.default_rng(0)
    config = WalkerConfig(people=(4, 4), carts=(1, 1), rest=0.5)
    walkers = draw_walkers(house, config, rng)
    assert len(walkers) == 5
    moved = 0.0
    for _ in range(200):
        before = [walker.place.copy() for walker in walkers]
        for k, walker in enumerate(walkers):
            walker.step(0.1, walkers[:k] + walkers[k + 1 :], config.rest)
        for walker, place in zip(walkers, before, strict=True):
            step = float(np.linalg.norm(walker.place - place))
            assert step <= 0.1 * walker.pace + 1e-9
            assert house.room_at(walker.place) is not None
            moved += step
    assert moved > 20


def test_somebody_in_the_way_is_waited_for_and_then_passed(house):
    rng = np.random.default_rng(1)
    config = WalkerConfig(people=(2, 2), carts=(0, 0), rest=0.0)
    first, second = draw_walkers(house, config, rng)
    ahead = first.ahead(0.3)
    second.place = first.place + (ahead - first.place) * 1.01 + 1e-6
    waits, start = 0, first.place.copy()
    while np.allclose(first.place, start):
        first.step(0.1, [second], 0.0)
        waits += 1
        assert waits < 40
    assert waits == pytest.approx(16, abs=1)  # 1.5 s of patience


@pytest.mark.parametrize(
    "changes", [{"people": (3, 2)}, {"pace": (0.0, 1.0)}, {"people": (0, 0)}, {"rest": -1.0}]
)
def test_walkers_that_cannot_be_drawn_are_refused(changes):
    with pytest.raises(ValueError, match="must"):
        WalkerConfig(**changes)


def test_walkers_cover_no_wall_more_than_a_cell_deep(house):
    x, y = house.graph.positions[0, :2]
    raster = Raster(float(x) - 5, float(y) + 5, 0.1, 100, 100)
    moving, static = house_occupancy(house, 80, 0.1, raster, np.random.default_rng(2))
    assert moving.shape == (80, 100, 100)
    assert moving.any(axis=(1, 2)).mean() > 0.5
    assert 0.02 < static.mean() < 0.6
    # Ways keep BODY_RADIUS to each side; people and carts are wider by up to two cells.
    inner = static.copy()
    for _ in range(2):
        inner &= np.roll(inner, 1, 0) & np.roll(inner, -1, 0)
        inner &= np.roll(inner, 1, 1) & np.roll(inner, -1, 1)
    assert (moving & inner).mean() < 1e-4


# A table.


@pytest.fixture(scope="module")
def env():
    made = BlockSortingEnv()
    yield made
    made.close()


def test_blocks_on_the_table_cover_their_area_and_are_pushed(env):
    raster = table_raster()
    assert raster.shape == (192, 100)
    moving, static = table_occupancy(env, 40, raster, seed=5)
    assert not static.any()
    # Eight squares of 30 mm and a disc of 25.4 mm, which may hide a little of each other.
    area = 8 * 0.03**2 + np.pi * 0.0127**2
    covered = moving.sum(axis=(1, 2)) * 0.005**2
    assert covered.max() == pytest.approx(area, rel=0.05)
    assert covered.min() > 0.9 * area
    assert (moving[0] != moving[-1]).sum() > 30


def test_a_table_is_repeated_by_its_seed(env):
    first, second, third = (
        table_occupancy(env, 3, table_raster(0.01), seed)[0] for seed in (1, 1, 2)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)


# The verb.


def render(out: Path, *words: str) -> int:
    return main(["data", "render-occupancy", "--out", str(out), *words])


def test_sequences_are_written_and_read(tmp_path, capsys):
    words = ("--sequences", "3", "--frames", "12", "--size", "48")
    assert render(tmp_path / "a", *words, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["sequences"], told["synthetic"], told["shape"]) == (3, True, [48, 48])
    found = read_events(tmp_path / "a")
    assert [one.name for one in found] == [f"house train 0 {k}" for k in range(3)]
    assert found[0].channels == ("occupancy", "static")
    assert found[0].step == pytest.approx(0.1)
    assert found[0].cell == 0.1
    assert set(np.unique(found[0].frames)) <= {0.0, 1.0}
    assert (found[0].frames[:, 1] == found[0].frames[0, 1]).all()
    assert (tmp_path / "a" / "pictures.png").read_bytes().startswith(b"\x89PNG")


def test_a_sequence_does_not_depend_on_how_many_there_are(tmp_path):
    words = ("--frames", "4", "--size", "32", "--seed", "7")
    assert render(tmp_path / "a", "--sequences", "9", *words) == 0
    assert render(tmp_path / "b", "--sequences", "2", *words) == 0
    for k in range(2):
        first, second = (
            read_event(tmp_path / name / f"house-{k:05d}.npz").frames for name in ("a", "b")
        )
        assert np.array_equal(first, second)


def test_splits_share_nothing(tmp_path):
    for split in ("train", "test"):
        words = ("--sequences", "1", "--frames", "2", "--size", "32", "--split", split)
        assert render(tmp_path / split, *words) == 0
    first, second = (read_event(tmp_path / split).frames for split in ("train", "test"))
    assert not np.array_equal(first, second)


def test_the_table_is_rendered_too(tmp_path):
    words = ("--world", "tabletop", "--sequences", "1", "--frames", "5")
    assert render(tmp_path / "t", *words) == 0
    sequence = read_event(tmp_path / "t")
    assert sequence.shape == (192, 100)
    assert sequence.cell == 0.005


@pytest.mark.parametrize(
    "words",
    [("--sequences", "0"), ("--frames", "1"), ("--size", "8"), ("--world", "moon"),
     ("--split", "dev"), ("--seed", "-1")],
)  # fmt: skip
def test_what_cannot_be_rendered_is_one_line_and_nothing_is_written(words, tmp_path, capsys):
    assert render(tmp_path / "a", *words) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "a").exists()


def test_a_folder_that_exists_is_kept(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    assert render(tmp_path / "a") == 2
    assert "--overwrite" in capsys.readouterr().err
