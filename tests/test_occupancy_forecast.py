"""Forecasts of occupancy without a model, and their benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from decisive.benchmarks import forecast_occupancy
from decisive.cli import main
from learning.grid_files import write_sequence
from learning.grid_sequence import GridSequence
from world_models.metnet2.baselines import constant_velocity, movers, persistence


def moving(n: int = 60, right: float = 0.5, down: float = 0.0, size: int = 40) -> GridSequence:
    """A square of 3 x 3 cells that moves so many cells a frame, and one of 2 x 2 that stands."""
    frames = np.zeros((n, 1, size, size), np.float32)
    for k, frame in enumerate(frames[:, 0]):
        top, left = 8 + round(k * down), 4 + round(k * right)
        frame[top : top + 3, left : left + 3] = 1
        frame[30:32, 30:32] = 1
    times = np.arange(n, dtype=np.int64)
    return GridSequence(frames, ("occupancy",), times, 0.1, "moving", tick=0.1)


def test_persistence_is_the_newest_frame():
    sequence = moving(11)
    found = persistence(sequence, (0.5, 1.0))
    assert np.array_equal(found[1], sequence.quantity[-1])
    soft = persistence(sequence, (0.5, 1.0), (0.0, 2.0))
    assert np.array_equal(soft[0], found[0])
    assert soft[1].sum() == pytest.approx(found[1].sum(), rel=0.01)
    assert soft[1].max() < 0.8


def test_velocities_are_measured_in_cells_a_second():
    things = movers(moving(11, right=2.0, down=1.0))
    assert len(things) == 2
    fast, slow = sorted(things, key=lambda thing: -np.abs(thing.velocity).sum())
    np.testing.assert_allclose(fast.velocity, [10.0, 20.0])
    np.testing.assert_allclose(slow.velocity, [0.0, 0.0], atol=1e-9)


def test_constant_velocity_is_exact_for_what_moves_so():
    sequence = moving(16, right=2.0)
    past = sequence.window(0, 11)
    found = constant_velocity(past, (0.1, 0.5))
    np.testing.assert_allclose(found[0], sequence.quantity[11], atol=1e-6)
    np.testing.assert_allclose(found[1], sequence.quantity[15], atol=1e-6)


def test_part_of_a_cell_is_covered_in_part():
    found = constant_velocity(moving(11, right=2.0), (0.025,))[0]
    row = found[9, 22:30]
    np.testing.assert_allclose(row, [0, 0, 0.5, 1, 1, 0.5, 0, 0], atol=1e-6)


def test_what_leaves_the_map_is_gone_and_unknown_cells_stay_unknown():
    sequence = moving(14, right=2.0)
    frames = sequence.frames.copy()
    frames[:, 0, 0, 0] = np.nan
    found = constant_velocity(
        GridSequence(frames, ("occupancy",), sequence.times, 0.1, tick=0.1), (2.0,)
    )[0]
    assert np.isnan(found).sum() == 1
    assert np.nansum(found) == pytest.approx(4.0)  # only what stands


def test_a_thing_that_appears_has_no_velocity():
    frames = np.zeros((3, 1, 9, 9), np.float32)
    frames[2, 0, 4, 4] = 1
    times = np.arange(3, dtype=np.int64)
    (thing,) = movers(GridSequence(frames, ("occupancy",), times, 0.1, tick=0.1))
    assert thing.velocity.tolist() == [0.0, 0.0]


def test_an_empty_map_stays_empty():
    frames = np.zeros((3, 1, 9, 9), np.float32)
    times = np.arange(3, dtype=np.int64)
    sequence = GridSequence(frames, ("occupancy",), times, 0.1, tick=0.1)
    assert not constant_velocity(sequence, (1.0,)).any()


def test_rain_has_no_things_that_move():
    times = np.arange(3, dtype=np.int64)
    rain = GridSequence(np.ones((3, 1, 9, 9), np.float32), ("rain_rate",), times, 1000.0)
    with pytest.raises(ValueError, match="maps of occupancy"):
        constant_velocity(rain, (1.0,))
    with pytest.raises(ValueError, match="1 widths"):
        persistence(rain, (1.0,), (1.0, 2.0))


# The benchmark.


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name, speeds in (("test", (1.0, 0.5, 0.25)), ("tune", (0.75, 0.5))):
        (tmp_path / name).mkdir()
        for k, speed in enumerate(speeds):
            one = moving(right=speed, size=64)
            write_sequence(tmp_path / name / f"s{k}.npz", one)
    return tmp_path / "test", tmp_path / "tune"


def run(folders: tuple[Path, Path], out: Path, *words: str) -> int:
    test, tune = map(str, folders)
    return main(
        ["benchmark", "forecast", "--world", "occupancy", "--data", test, "--tune", tune,
         "--out", str(out), *words]
    )  # fmt: skip


def test_benchmark_ranks_constant_velocity_first_where_velocities_are_constant(
    folders, tmp_path, capsys
):
    out = tmp_path / "out"
    assert run(folders, out, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    rows = {row[0]: [float(cell.split()[0]) for cell in row[1:]] for row in told["rows"]}
    for ours, theirs in zip(rows["constant-velocity"][:8], rows["persistence"][:8], strict=True):
        assert ours < theirs
    page = (out / "README.md").read_text()
    assert "3 sequences of 64 x 64 cells of 0.1 m" in page
    assert (out / "forecast.png").read_bytes().startswith(b"\x89PNG")
    written = (out / "persistence.json").stat().st_mtime_ns
    assert run(folders, out) == 0
    assert (out / "persistence.json").stat().st_mtime_ns == written


def test_blur_is_chosen_by_log_loss():
    tune = [moving(right=speed, size=64) for speed in (0.75, 0.5)]
    still = [moving(right=0.0, size=64)]
    assert forecast_occupancy.fit(persistence, still) == [(0.0, 1e-4)] * 4
    chosen = forecast_occupancy.fit(persistence, tune)
    assert [width for width, _ in chosen] == sorted(width for width, _ in chosen)
    assert chosen[-1][0] > 1


def test_sequences_too_short_or_of_rain_are_refused(tmp_path, capsys):
    (tmp_path / "short").mkdir()
    write_sequence(tmp_path / "short" / "a.npz", moving(30))
    assert run((tmp_path / "short", tmp_path / "short"), tmp_path / "out") == 2
    assert "41 frames without gaps were expected" in capsys.readouterr().err
    times = np.arange(50, dtype=np.int64)
    rain = GridSequence(np.ones((50, 1, 9, 9), np.float32), ("rain_rate",), times, 1000.0)
    write_sequence(tmp_path / "short" / "a.npz", rain)
    assert run((tmp_path / "short", tmp_path / "short"), tmp_path / "out") == 2
    assert "occupancy was expected" in capsys.readouterr().err
