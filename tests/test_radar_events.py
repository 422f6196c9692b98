"""Folders of radar files as events: what is refused, repeats, and the real ones."""

from __future__ import annotations

import logging
import shutil

import numpy as np
import pytest
import radar_cases
from radar_cases import REAL, START, STEP

from learning.grid_files import write_sequence
from learning.grid_sequence import GridSequence
from learning.radar import describe_event, event_files, read_event, read_events, repeated_shares


def event(folder, frames=4, rows=5, columns=6):
    """FMI files whose rain moves one column a step."""
    rng = np.random.default_rng(0)
    wide = rng.integers(80, 120, (rows, columns + frames), dtype=np.uint8)
    for k in range(frames):
        part = wide[:, frames - k : frames - k + columns]
        radar_cases.write_fmi(folder, START + k * STEP, part)
    return folder


def test_files_become_frames_in_order_of_time(tmp_path):
    (tmp_path / "readme.txt").write_text("other files are left alone")
    sequence = read_event(event(tmp_path))
    assert sequence.frames.shape == (4, 1, 5, 6)
    assert sequence.times.tolist() == [START + k * STEP for k in range(4)]
    assert sequence.channels == ("rain_rate",)
    assert sequence.step == STEP
    assert sequence.name == "FMI 2020-06-30 23:50"
    np.testing.assert_array_equal(sequence.frames[1, 0, :, 1:], sequence.frames[0, 0, :, :-1])


def test_a_crop_and_a_span_are_read_alone(tmp_path):
    whole = read_event(event(tmp_path))
    part = read_event(tmp_path, crop=(1, 2, 3, 4), start=START + STEP, stop=START + 2 * STEP)
    assert np.array_equal(part.frames, whole.window(1, 3).crop(1, 2, 3, 4).frames)
    assert part.origin == whole.crop(1, 2, 3, 4).origin
    with pytest.raises(ValueError, match="no frame from"):
        read_event(tmp_path, start=START + 99 * STEP)


def test_missing_frames_are_gaps_and_nothing_is_filled_in(tmp_path):
    folder = event(tmp_path, frames=6)
    sorted(folder.glob("*.gz"))[3].unlink()
    sequence = read_event(folder)
    assert len(sequence) == 5
    assert sequence.gaps() == (2,)


def test_an_event_may_lie_below(tmp_path):
    (tmp_path / "2020" / "06").mkdir(parents=True)
    event(tmp_path / "2020" / "06")
    assert len(read_event(tmp_path)) == 4
    (tmp_path / "other").mkdir()
    event(tmp_path / "other")
    with pytest.raises(ValueError, match="2 events below it"):
        read_event(tmp_path)


def test_mixed_grids_are_refused_naming_the_file(tmp_path):
    event(tmp_path)
    odd = radar_cases.write_fmi(tmp_path, START + 9 * STEP, np.full((5, 7), 90, np.uint8))
    with pytest.raises(ValueError, match="another grid than") as caught:
        read_event(tmp_path)
    assert odd.name in str(caught.value)
    odd.unlink()
    radar_cases.write_fmi(tmp_path, START + 9 * STEP, np.full((5, 6), 90, np.uint8), cell=2000.0)
    with pytest.raises(ValueError, match=r"cells of 2000\.0 m"):
        read_event(tmp_path)


@pytest.mark.parametrize("prepare", ["missing", "empty", "others", "file"])
def test_a_folder_without_radar_files_is_one_line(prepare, tmp_path):
    folder = tmp_path / "event"
    if prepare != "missing":
        folder.mkdir()
    if prepare == "others":
        (folder / "a.png").touch()
    if prepare == "file":
        folder = folder / "a.txt"
        folder.touch()
    with pytest.raises(ValueError, match=r"no radar files|no such folder") as caught:
        read_event(folder)
    assert "\n" not in str(caught.value)


def test_files_of_two_services_or_of_one_time_are_refused(tmp_path):
    event(tmp_path)
    twin = sorted(tmp_path.glob("*.gz"))[0]
    (tmp_path / twin.name.removesuffix(".gz")).write_bytes(b"")
    with pytest.raises(ValueError, match="same time"):
        event_files(tmp_path)
    (tmp_path / twin.name.removesuffix(".gz")).unlink()
    radar_cases.write_knmi(tmp_path, START, np.zeros((5, 6), np.uint16))
    with pytest.raises(ValueError, match="several formats: PGM, HDF5"):
        event_files(tmp_path)


def test_a_hostile_name_stays_on_one_line(tmp_path):
    folder = tmp_path / "rain\n\x1b[31mred"
    folder.mkdir()
    with pytest.raises(ValueError, match="no radar files") as caught:
        read_event(folder)
    assert str(caught.value).isprintable()
    event(folder)
    (sorted(folder.glob("*.gz"))[0]).write_bytes(b"spoiled")
    with pytest.raises(ValueError, match="gzip") as caught:
        read_event(folder)
    assert str(caught.value).isprintable()


def test_a_dry_event_is_read(tmp_path):
    for k in range(3):
        radar_cases.write_fmi(tmp_path, START + k * STEP, np.zeros((4, 4), np.uint8))
    sequence = read_event(tmp_path)
    assert (sequence.frames == 0).all()
    assert np.isnan(repeated_shares(sequence)).all()
    assert describe_event(tmp_path)["repeated_share"] == [None, None]


def test_repeats_are_counted_over_wet_cells_and_warned_of(tmp_path, caplog):
    pixels = np.zeros((4, 5), np.uint8)
    pixels[0] = 100
    radar_cases.write_fmi(tmp_path, START, pixels)
    later = pixels.copy()
    later[0, :2] = 120
    later[1, 0] = 90
    radar_cases.write_fmi(tmp_path, START + STEP, later)
    with caplog.at_level(logging.WARNING, "learning.radar"):
        sequence = read_event(tmp_path)
    assert repeated_shares(sequence).tolist() == [pytest.approx(3 / 6)]
    assert not caplog.messages
    radar_cases.write_fmi(tmp_path, START + 2 * STEP, later)
    with caplog.at_level(logging.WARNING, "learning.radar"):
        read_event(tmp_path)
    assert "50 to 100 %" in caplog.messages[0]


def test_a_folder_of_sequences_is_read_too(tmp_path):
    for k in range(2):
        frames = np.full((2, 1, 3, 3), k, np.float32)
        times = np.array([0, 1], np.int64)
        one = GridSequence(frames, ("occupancy",), times, 0.1, f"s{k}", tick=0.1)
        write_sequence(tmp_path / f"s{k}.npz", one)
    assert [one.name for one in read_events(tmp_path)] == ["s0", "s1"]
    assert read_event(tmp_path / "s1.npz", crop=(0, 1, 2, 2)).shape == (2, 2)
    with pytest.raises(ValueError, match="2 sequences; name one"):
        read_event(tmp_path)
    (tmp_path / "s0.npz").unlink()
    assert read_event(tmp_path).name == "s1"


# Real ones.


@pytest.mark.data
@pytest.mark.parametrize(
    ("folder", "frames", "shape"),
    [
        ("fmi/20160928", 40, (1226, 760)),
        ("mch/20170131", 40, (640, 710)),
        ("knmi/2010", 92, (765, 700)),
    ],
)
def test_real_events_are_whole(folder, frames, shape):
    if not REAL.is_dir():
        pytest.skip("no radar data: set DECISIVE_DATA")
    sequence = read_event(REAL / folder)
    assert (len(sequence), sequence.shape, sequence.step) == (frames, shape, 300.0)
    assert not sequence.gaps()
    assert 0 < np.nanmean(sequence.frames) < 2


def mrms():
    pytest.importorskip("pygrib")
    if not REAL.is_dir():
        pytest.skip("no radar data: set DECISIVE_DATA")
    return REAL / "mrms"


@pytest.mark.data
def test_frames_of_mrms_repeat_and_are_warned_of(caplog):
    with caplog.at_level(logging.WARNING, "learning.radar"):
        sequence = read_event(mrms(), crop=(768, 4352, 256, 256), stop=1560124800 + 960)
    shares = repeated_shares(sequence)
    assert shares.max() > 0.6
    assert "repeat the one before" in caplog.text
    # The wettest square at 00:20, as other evaluations of this event found it.
    assert float(np.nanmean(sequence.quantity[-1])) > 1.5


@pytest.mark.data
def test_a_truncated_grib_among_good_ones_is_named(tmp_path):
    files = sorted(mrms().glob("*.grib2"))[:2]
    for path in files:
        shutil.copy(path, tmp_path)
    broken = tmp_path / files[1].name
    broken.write_bytes(broken.read_bytes()[:100_000])
    with pytest.raises(ValueError, match="truncated") as caught:
        read_event(tmp_path, crop=(0, 0, 10, 10))
    assert broken.name in str(caught.value)
    assert "\n" not in str(caught.value)
