"""Films are complete or absent."""

import imageio_ffmpeg
import numpy as np
import pytest

from decisive.video import VideoWriter

# imageio-ffmpeg leaves the pipes of a finished reader to the garbage collector.
LEAKS = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def frame(value=0, shape=(48, 64, 3)):
    return np.full(shape, value, np.uint8)


def write(path, *pictures):
    with VideoWriter(path, fps=10) as film:
        for picture in pictures:
            film.add(picture)


@LEAKS
def test_a_film_has_its_frames_size_rate_and_colours(tmp_path):
    path = tmp_path / "deep" / "film.mp4"
    with VideoWriter(path, fps=10) as film:
        for value in (0, 120, 240):
            film.add(frame(value), repeat=2)
    assert film.frames == 6
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    assert meta["size"] == (64, 48)
    assert meta["fps"] == 10
    assert meta["pix_fmt"].startswith("yuv420p")
    assert meta["codec"] == "h264"
    means = [np.frombuffer(data, np.uint8).mean() for data in reader]
    assert means == pytest.approx([0, 0, 120, 120, 240, 240], abs=4)


@LEAKS
def test_odd_sizes_are_padded(tmp_path):
    path = tmp_path / "odd.mp4"
    with VideoWriter(path, fps=5) as film:
        film.add(frame(shape=(47, 63, 3)))
    reader = imageio_ffmpeg.read_frames(str(path))
    assert next(reader)["size"] == (64, 48)
    reader.close()


def test_an_error_leaves_the_old_film_and_no_half_one(tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="uint8"):
        write(path, frame(), frame(), frame().astype(np.float64))
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["film.mp4"]


def test_an_empty_film_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one frame"), VideoWriter(tmp_path / "f.mp4", 10):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "bad", [frame().astype(np.float32), frame()[..., 0], np.zeros((4, 4, 4), np.uint8)]
)
def test_what_is_no_picture_is_refused(bad, tmp_path):
    with (
        pytest.raises(ValueError, match=r"\(H, W, 3\) uint8"),
        VideoWriter(tmp_path / "f.mp4", 10) as film,
    ):
        film.add(bad)


def test_frames_of_another_size_are_refused(tmp_path):
    with pytest.raises(ValueError, match="all frames"):
        write(tmp_path / "f.mp4", frame(), frame(shape=(48, 48, 3)))


def test_name_and_rate_are_checked(tmp_path):
    with pytest.raises(ValueError, match=r"\.mp4"):
        VideoWriter(tmp_path / "film.avi", 10)
    with pytest.raises(ValueError, match="fps"):
        VideoWriter(tmp_path / "film.mp4", 0)
