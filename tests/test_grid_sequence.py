"""Sequences of grids: what they refuse, parts of them, and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from learning.grid_files import read_sequence, write_sequence
from learning.grid_sequence import GridSequence


def made(**changes: Any) -> GridSequence:
    values = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(3, 2, 4, 5)
    given = {
        "frames": values,
        "channels": ("rain_rate", "static"),
        "times": np.array([100, 400, 1000], np.int64),
        "cell": 500.0,
        "name": "one",
        "origin": (10.0, 2000.0),
    }
    return GridSequence(**(given | changes))


def test_properties_say_what_is_there():
    sequence = made()
    assert len(sequence) == 3
    assert sequence.shape == (4, 5)
    assert sequence.step == 450.0  # the median of 300 and 600
    assert sequence.seconds.tolist() == [0.0, 300.0, 900.0]
    assert np.array_equal(sequence.quantity, sequence.frames[:, 0])
    assert made(tick=0.1).step == pytest.approx(45.0)


def test_crop_moves_the_corner_east_and_south():
    part = made().crop(1, 2, 2, 3)
    assert part.shape == (2, 3)
    assert part.origin == (10.0 + 2 * 500, 2000.0 - 500)
    assert np.array_equal(part.frames, made().frames[:, :, 1:3, 2:5])


def test_center_crop_lies_in_the_middle():
    sequence = made(frames=np.zeros((3, 2, 9, 12), np.float32))
    assert sequence.center_crop(5, 4).origin == (10.0 + 4 * 500, 2000.0 - 2 * 500)


@pytest.mark.parametrize("part", [(0, 0, 5, 5), (-1, 0, 2, 2), (3, 3, 2, 2), (0, 0, 0, 3)])
def test_crop_that_leaves_the_grid_is_refused(part):
    with pytest.raises(ValueError, match="leaves the grid of 4 x 5"):
        made().crop(*part)


def test_window_takes_frames_and_their_times():
    part = made().window(1, 3)
    assert part.times.tolist() == [400, 1000]
    with pytest.raises(ValueError, match="are not among the 3"):
        made().window(2, 2)


def test_index_of_a_time_is_exact():
    assert made().index_of(400) == 1
    with pytest.raises(ValueError, match="no frame at 401"):
        made().index_of(401)


def test_gaps_are_found():
    times = np.array([0, 300, 600, 1500, 1800, 2101], np.int64)
    sequence = made(frames=np.zeros((6, 2, 1, 1), np.float32), times=times)
    assert sequence.gaps() == (2,)


def test_one_frame_has_no_step():
    with pytest.raises(ValueError, match="one frame has no step"):
        _ = made().window(0, 1).step


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"frames": np.zeros((3, 2, 4, 5))}, "float32"),
        ({"frames": np.zeros((3, 4, 5), np.float32)}, "T, C, H, W"),
        ({"frames": np.zeros((3, 2, 0, 5), np.float32)}, "at least one value"),
        ({"frames": np.full((3, 2, 4, 5), np.inf, np.float32)}, "infinite"),
        ({"channels": ("rain_rate",)}, "2 different names"),
        ({"channels": ("rain_rate", "rain_rate")}, "2 different names"),
        ({"channels": ("rain_rate", "")}, "must be names"),
        ({"times": np.array([0, 300], np.int64)}, "int64 .3,."),
        ({"times": np.array([0, 300, 300], np.int64)}, "rise strictly"),
        ({"times": np.array([0.0, 1.0, 2.0])}, "int64"),
        ({"cell": 0.0}, "cell"),
        ({"tick": float("nan")}, "tick"),
        ({"origin": (float("inf"), 0.0)}, "origin"),
        ({"name": "two\nlines"}, "one line"),
        ({"channels": ("occupancy", "static")}, "occupancy must be in"),
    ],
)
def test_what_does_not_belong_together_is_refused_in_one_line(changes, words):
    with pytest.raises(ValueError, match=words) as caught:
        made(**changes)
    assert "\n" not in str(caught.value)


def test_occupancy_may_be_unknown():
    frames = np.array([0.0, 0.5, 1.0, np.nan], np.float32).reshape(1, 1, 2, 2)
    made(frames=frames, channels=("occupancy",), times=np.array([0], np.int64))


# Files.


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 4)] * 4),
    seed=st.integers(0, 1000),
    kind=st.sampled_from(["bits", "bytes", "floats"]),
)
def test_a_file_gives_back_what_was_written(shape, seed, kind, tmp_path_factory):
    rng = np.random.default_rng(seed)
    values = {
        "bits": lambda: rng.integers(0, 2, shape),
        "bytes": lambda: rng.integers(0, 256, shape) / 255,
        "floats": lambda: np.where(rng.random(shape) < 0.2, np.nan, rng.normal(size=shape)),
    }[kind]().astype(np.float32)
    sequence = GridSequence(
        frames=values,
        channels=tuple(f"channel {k}" for k in range(shape[1])),
        times=np.sort(rng.choice(10_000, shape[0], replace=False)).astype(np.int64),
        cell=0.1,
        name="höhe",
        origin=(1.5, -2.5),
        tick=0.1,
    )
    path = tmp_path_factory.mktemp("grids") / "one.npz"
    write_sequence(path, sequence)
    read = read_sequence(path)
    assert np.array_equal(read.frames, sequence.frames, equal_nan=True)
    assert np.array_equal(read.times, sequence.times)
    for name in ("channels", "cell", "name", "origin", "tick"):
        assert getattr(read, name) == getattr(sequence, name)


def test_maps_of_bits_take_a_byte_a_cell_before_compression(tmp_path: Path):
    frames = (np.random.default_rng(0).random((3, 2, 4, 5)) < 0.5).astype(np.float32)
    write_sequence(tmp_path / "a.npz", made(frames=frames))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert file["frames"].dtype == np.uint8


def damaged(path: Path, **changes: Any) -> None:
    write_sequence(path, made())
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    for name, value in changes.items():
        if value is None:
            del arrays[name]
        else:
            arrays[name] = value
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"facts": None}, "it lacks facts"),
        ({"facts": np.array([1.0, 1.0, 0.0, 0.0, 2.0])}, "the last 1"),
        ({"channels": np.array([1, 2])}, "row of names"),
        ({"frames": np.zeros((3, 2, 4, 5), np.int32)}, "float32, float16 or uint8"),
        ({"times": np.array([3, 2, 1], np.int64)}, "rise strictly"),
        ({"name": np.array(["a", "b"])}, "must be text"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(changes, words, tmp_path):
    path = tmp_path / "bad.npz"
    damaged(path, **changes)
    with pytest.raises(ValueError, match=words) as caught:
        read_sequence(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_and_one_with_objects_are_refused(tmp_path: Path):
    path = tmp_path / "cut.npz"
    write_sequence(path, made())
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="corrupt or truncated"):
        read_sequence(path)
    np.savez(path, frames=np.array([{}], object))
    with pytest.raises(ValueError, match="frames"):
        read_sequence(path)
