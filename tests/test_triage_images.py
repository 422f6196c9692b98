"""Files of unknown origin: sizes, kinds, damage."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from triage_cases import photo

from decisive import triage_images
from decisive.triage_images import NotReadable, fit_picture, read_picture


def grey16(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.astype(np.uint16))


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is large, with next to no data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def test_small_pictures_stay_as_they_are(tmp_path) -> None:
    path = tmp_path / "a.png"
    photo(path, 1, (50, 40))
    found = read_picture(path, 64)
    with Image.open(path) as image:
        np.testing.assert_array_equal(found.pixels, np.asarray(image))
        np.testing.assert_array_equal(
            read_picture(path, 64, 1).pixels, np.asarray(image.convert("L"))
        )
    assert found.size == (50, 40)


def test_large_pictures_shrink_to_their_shorter_side(tmp_path) -> None:
    path = tmp_path / "a.png"
    photo(path, 1, (800, 600))
    found = read_picture(path, 60)
    assert found.pixels.shape == (60, 80, 3)
    assert found.size == (800, 600)
    with Image.open(path) as image:
        exact = np.asarray(image.reduce(10), np.int16)
    assert np.abs(found.pixels - exact).mean() < 4


def test_jpegs_are_shrunk_while_they_are_decoded(tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.jpg"
    Image.new("L", (20_000, 5_000), 200).save(path, quality=40)  # Pillow alone warns above 89 M
    seen = []
    plain = triage_images._eight_bits
    monkeypatch.setattr(triage_images, "_eight_bits", lambda i: seen.append(i.size) or plain(i))
    found = read_picture(path, 64)
    assert seen == [(2500, 625)]
    assert found.size == (20_000, 5_000)
    assert found.pixels.shape == (64, 256, 3)
    assert np.abs(found.pixels.astype(int) - 200).max() <= 2
    assert Image.MAX_IMAGE_PIXELS == 89_478_485


def test_bombs_are_refused_before_they_are_decoded(tmp_path) -> None:
    path = tmp_path / "bomb.png"
    for width, height, said in (
        (20_000, 20_000, "20,000 x 20,000 pixels take 1,526 MiB to decode, 512 are the most"),
        (30_000, 30_000, "more than 536,870,912 pixels"),
        (60_000, 60_000, "more than 536,870,912 pixels"),
    ):
        path.write_bytes(png_header(width, height))
        with pytest.raises(NotReadable, match=said):
            read_picture(path, 64)


def test_progressive_jpegs_count_their_coefficients(tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.jpg"
    photo(path, 1, (1600, 1600), progressive=True)
    read_picture(path, 64)
    monkeypatch.setattr(triage_images, "MAX_BYTES", 1600 * 1600)
    with pytest.raises(NotReadable, match="only baseline JPEG is shrunk"):
        read_picture(path, 64)
    photo(path, 1, (1600, 1600))
    read_picture(path, 64)


def test_strips_do_not_become_long(tmp_path) -> None:
    path = tmp_path / "strip.png"
    Image.new("RGB", (20_000, 3), (10, 200, 30)).save(path)
    assert read_picture(path, 64).pixels.shape == (1, 1024, 3)


def test_grey_of_sixteen_and_of_twelve_bits_is_read(tmp_path) -> None:
    ramp = np.tile(np.arange(256), (64, 1))
    for values in (ramp * 257, ramp * 16):
        for end in ("png", "tif"):
            path = tmp_path / f"a.{end}"
            grey16(values).save(path)
            found = read_picture(path, 64, 1).pixels
            np.testing.assert_array_equal(found, ramp)
    assert read_picture(path, 64, 3).pixels.shape == (64, 256, 3)


def test_other_modes_are_read_and_floats_are_not(tmp_path) -> None:
    photo(tmp_path / "a.png", 1, (40, 40))
    with Image.open(tmp_path / "a.png") as image:
        rgb = image.convert("RGB")
    for mode, end in (
        ("1", "png"), ("L", "png"), ("P", "gif"), ("P", "png"), ("RGBA", "png"), ("LA", "png"),
        ("CMYK", "jpg"), ("RGB", "webp"), ("RGB", "bmp"), ("RGB", "ppm"), ("CMYK", "tif"),
    ):  # fmt: skip
        path = tmp_path / f"b-{mode}.{end}"
        rgb.convert(mode).save(path)
        for side, channels, shape in ((64, 1, (40, 40)), (16, 3, (16, 16, 3))):
            assert read_picture(path, side, channels).pixels.shape == shape
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(NotReadable, match="pixels are floats"):
        read_picture(tmp_path / "f.tif", 64)
    Image.fromarray(np.full((8, 8), 70_000, np.int32)).save(tmp_path / "i.tif")
    with pytest.raises(NotReadable, match="pixels are from 70000 to 70000"):
        read_picture(tmp_path / "i.tif", 64)


def test_pictures_are_turned_as_the_camera_was_held(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.jpg"
    photo(path, 1, (400, 200), exif=exif.tobytes(), quality=95)
    turned = read_picture(path, 50).pixels
    photo(path, 1, (400, 200), quality=95)
    plain = read_picture(path, 50).pixels
    assert turned.shape == (100, 50, 3)
    np.testing.assert_array_equal(turned, np.rot90(plain, -1))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty file"),
        (b"no image at all", "no image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image of a known format"),
        (b"\x89PNG\r\n\x1a\n", "no image of a known format|damaged"),
    ],
)
def test_other_files_are_refused(tmp_path, content, said) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(NotReadable, match=said):
        read_picture(path, 64)


def test_pipes_links_to_nothing_and_folders_are_refused(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for name, said in (("pipe", "not a file"), (".", "not a file"), ("link", "link to nothing")):
        with pytest.raises(NotReadable, match=said):
            read_picture(tmp_path / name, 64)


@pytest.mark.parametrize("end", ["png", "jpg", "gif", "bmp", "tif", "webp"])
def test_truncated_files_are_refused(tmp_path, end) -> None:
    path = tmp_path / f"a.{end}"
    photo(path, 1, (200, 150))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(NotReadable, match=r"damaged|no image"):
        read_picture(path, 64)


_WHOLE: dict[str, bytes] = {}
for _end in ("png", "jpeg", "gif", "tiff", "webp"):
    _buffer = io.BytesIO()
    _patches = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(_patches).save(_buffer, format=_end)
    _WHOLE[_end] = _buffer.getvalue()


@given(
    st.sampled_from(sorted(_WHOLE)),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8),
)
@settings(max_examples=120)
def test_damaged_bytes_give_a_picture_or_a_reason(tmp_path_factory, end, changes) -> None:
    data = bytearray(_WHOLE[end])
    for place, value in changes:
        data[int(place * len(data))] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data)
    said, shape = "", (1, 1, 3)
    try:
        shape = read_picture(path, 16).pixels.shape
    except NotReadable as reason:
        said = str(reason)
    assert "\n" not in said
    assert str(path) not in said
    assert shape[2] == 3


def test_pictures_are_fitted() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    np.testing.assert_array_equal(fit_picture(pixels, (8, 8), "stretch"), pixels)
    np.testing.assert_array_equal(fit_picture(pixels, (8, 8), "crop"), pixels[:, 1:5])
    padded = fit_picture(pixels, (8, 8), "pad")
    assert padded.shape == (6, 6)
    np.testing.assert_array_equal(padded[1:5], pixels)
    assert (padded[[0, 5]] == 0).all()
    assert fit_picture(pixels.T, (2, 8), "crop").shape == (1, 4)
    assert fit_picture(np.zeros((1, 1024, 3), np.uint8), (64, 64), "crop").shape == (1, 1, 3)
    assert fit_picture(np.zeros((1, 1024, 3), np.uint8), (64, 64), "pad").shape == (1024, 1024, 3)


def test_a_jpeg_of_four_hundred_million_pixels_is_read(tmp_path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("L", (20_000, 20_000), 90).save(path, quality=30)
    found = read_picture(path, 64)
    assert found.size == (20_000, 20_000)
    assert found.pixels.shape == (64, 64, 3)
    assert np.abs(found.pixels.astype(int) - 90).max() <= 2
