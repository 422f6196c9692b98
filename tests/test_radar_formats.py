"""Radar files of four services: scales, codes, times, and what pysteps reads in the same files."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import h5py
import numpy as np
import pytest
import radar_cases
from radar_cases import REAL, START

from learning.radar import FORMATS
from learning.radar.fmi import FMI
from learning.radar.frame import RadarFormat, rain_rate
from learning.radar.knmi import KNMI
from learning.radar.meteoswiss import METEOSWISS, SIZE
from learning.radar.mrms import MRMS

GOLDEN = json.loads((Path(__file__).parent / "data" / "pysteps_values.json").read_text())
SWISS = np.random.default_rng(0).integers(0, 256, SIZE, dtype=np.uint8)


def one_line(caught) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.data
@pytest.mark.parametrize("name", GOLDEN["files"])
def test_real_files_read_as_pysteps_reads_them(name):
    if name == "GRIB2":
        pytest.importorskip("pygrib")
    if not REAL.is_dir():
        pytest.skip("no radar data: set DECISIVE_DATA")
    assert GOLDEN["pysteps"] == "1.21.5"
    theirs = GOLDEN["files"][name]
    form = next(f for f in FORMATS if f.name == name)
    path = REAL / theirs["file"]
    rain = form.read(path, form.time_of(path), None).rain
    rows, columns = np.linspace(0, 1, 23), np.linspace(0, 1, 19)
    rows, columns = rows * (rain.shape[0] - 1), columns * (rain.shape[1] - 1)
    sample = rain[np.ix_(rows.astype(int), columns.astype(int))]
    expected = np.array([[np.nan if v is None else v for v in row] for row in theirs["sample"]])
    np.testing.assert_allclose(sample, expected, rtol=2e-6)
    assert list(rain.shape) == theirs["shape"]
    assert int(np.isnan(rain).sum()) == theirs["unknown"]
    assert int((np.nan_to_num(rain) > 0).sum()) == theirs["wet"]
    assert float(np.nansum(rain, dtype=np.float64)) == pytest.approx(theirs["sum"], rel=1e-6)
    assert float(np.nanmax(rain)) == pytest.approx(theirs["max"], rel=1e-6)


def test_fmi_scale_by_hand(tmp_path):
    # 2 dBZ + 64: 23 dBZ is pixel 110, and Z = 223 R^1.53.
    path = radar_cases.write_fmi(tmp_path, START, np.array([[0, 110, 255], [1, 64, 254]], np.uint8))
    frame = FMI.read(path, FMI.time_of(path), None)
    expected = (10**2.3 / 223) ** (1 / 1.53)
    assert frame.rain[0, 0] == 0
    assert frame.rain[0, 1] == pytest.approx(expected, rel=1e-6)
    assert np.isnan(frame.rain[0, 2])
    assert frame.rain[1, 1] == pytest.approx((1 / 223) ** (1 / 1.53), rel=1e-6)
    assert frame.rain[1, 2] == pytest.approx((10**9.5 / 223) ** (1 / 1.53), rel=1e-6)
    assert (frame.time, frame.shape, frame.cell) == (START, (2, 3), 1000.0)


def test_meteoswiss_scale_by_hand(tmp_path):
    pixels = SWISS.copy()
    pixels[0, :8] = [0, 1, 2, 71, 250, 251, 254, 255]
    path = radar_cases.write_meteoswiss(tmp_path, START, pixels)
    frame = METEOSWISS.read(path, METEOSWISS.time_of(path), None)
    in_five = [(10 ** ((k - 71.5) / 20) / 316) ** (1 / 1.5) for k in (2, 71, 250)]
    assert frame.rain[0, :2].tolist() == [0, 0]
    np.testing.assert_allclose(frame.rain[0, 2:5], [12 * depth for depth in in_five], rtol=1e-6)
    assert frame.rain[0, 5:7].tolist() == [0, 0]
    assert np.isnan(frame.rain[0, 7])
    ten = radar_cases.write_meteoswiss(tmp_path, START + 300, pixels, minutes=10)
    half = METEOSWISS.read(ten, START + 300, None)
    np.testing.assert_allclose(half.rain * 2, frame.rain, rtol=1e-6)


def test_knmi_scale_by_hand(tmp_path):
    pixels = np.array([[0, 1, 250], [65534, 65535, 7]], np.uint16)
    path = radar_cases.write_knmi(tmp_path, START, pixels)
    frame = KNMI.read(path, KNMI.time_of(path), None)
    assert frame.rain[0].tolist() == pytest.approx([0.0, 0.12, 30.0])
    assert frame.rain[1, 0] == pytest.approx(65534 * 0.12, rel=1e-6)
    assert np.isnan(frame.rain[1, 1])
    assert frame.origin == (0.0, -3_650_000.0)
    hourly = radar_cases.write_knmi(tmp_path, START + 300, pixels, seconds=3600)
    assert KNMI.read(hourly, START + 300, None).rain[0, 2] == pytest.approx(2.5)


def test_mrms_codes_are_no_rain_rates(tmp_path):
    pytest.importorskip("pygrib")
    values = np.array([[-3.0, 0.0, 0.1], [-1.0, 12.3, 150.0]])
    path = radar_cases.write_mrms(tmp_path, START, values)
    frame = MRMS.read(path, MRMS.time_of(path), None)
    assert np.isnan(frame.rain[:, 0]).all()
    np.testing.assert_allclose(frame.rain[:, 1:], values[:, 1:], rtol=1e-5)
    # Half a cell north and west of the first middle, on a sphere, at 39.995 degrees.
    degree = 6_371_000 * math.pi / 180
    narrow = math.cos(math.radians(39.995))
    assert frame.cell == pytest.approx(degree * 0.01 * math.sqrt(narrow))
    assert frame.origin[0] == pytest.approx(degree * narrow * (-100 - 0.005))
    assert frame.origin[1] == pytest.approx(degree * 40.005)


def test_longitudes_east_of_greenwich_from_0_to_360_are_no_other_place(tmp_path):
    # pysteps 1.21.5 crops such grids to nothing when longitudes are given from -180 to 180.
    pytest.importorskip("pygrib")
    a = radar_cases.write_mrms(tmp_path, START, np.zeros((2, 3)), west=260.0)
    frame = MRMS.read(a, START, (0, 1, 2, 2))
    assert frame.rain.shape == (2, 2)
    assert frame.origin[0] < 0


def test_rain_rate_inverts_the_relation():
    rates = np.array([0.1, 1.0, 37.0])
    for a, b in ((223.0, 1.53), (316.0, 1.5), (200.0, 1.6)):
        np.testing.assert_allclose(rain_rate(10 * np.log10(a * rates**b), a, b), rates)


@pytest.mark.parametrize(
    ("form", "name"),
    [
        (FMI, "202013312350_fmi.radar.composite.lowest_FIN_SUOMI1.pgm.gz"),
        (METEOSWISS, "AQC203672350V_00005.801.gif"),
        (KNMI, "RAD_NL25_RAP_5min_202006302460.h5"),
        (MRMS, "PrecipRate_00.00_20200631-000000.grib2"),
    ],
)
def test_a_name_without_a_date_is_refused(form: RadarFormat, name):
    with pytest.raises(ValueError, match="its name holds no date") as caught:
        form.time_of(Path(name))
    one_line(caught)
    with pytest.raises(ValueError, match="no name of"):
        form.time_of(Path("picture.png"))


PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 4)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def fmi_text(path: Path, text: bytes) -> None:
    path.write_bytes(gzip.compress(text))


HEAD = b"P5\n# metersperpixel_x 1\n# metersperpixel_y 1\n"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: cut(p, 60), "truncated or damaged gzip"),
        (lambda p: cut(p, 0), "no PGM file"),
        (lambda p: p.write_bytes(b"not gzip at all"), "truncated or damaged gzip"),
        (lambda p: fmi_text(p, b"P6\n1 1\n255\n0"), "must begin with P5"),
        (lambda p: fmi_text(p, HEAD + b"4 3\n255\n" + bytes(11)), "12 pixels were expected"),
        (lambda p: fmi_text(p, HEAD + b"4 3\n65535\n" + bytes(24)), "must go to 255"),
        (lambda p: fmi_text(p, HEAD + b"999999 999999\n255\n"), "is refused"),
        (lambda p: fmi_text(p, HEAD + b"-4 3\n255\n" + bytes(12)), "no PGM"),
        (lambda p: fmi_text(p, b"P5\n4 3\n255\n" + bytes(12)), "no number metersperpixel_x"),
        (lambda p: fmi_text(p, b"P5\n# obstime"), "truncated or no PGM"),
        (lambda p: fmi_text(p, HEAD + b"# obstime 199901010000\n4 3\n255\n" + bytes(12)),
         "its name says otherwise"),
        (lambda p: fmi_text(p, HEAD + b"# param Rain\n4 3\n255\n" + bytes(12)), "not reflectivity"),
    ],
)  # fmt: skip
def test_a_damaged_pgm_is_refused_in_one_line(spoil, words, tmp_path):
    path = radar_cases.write_fmi(tmp_path, START, PIXELS)
    spoil(path)
    with pytest.raises(ValueError, match=words) as caught:
        FMI.read(path, START, None)
    assert path.name in one_line(caught)


def test_a_damaged_gif_is_refused_in_one_line(tmp_path):
    path = radar_cases.write_meteoswiss(tmp_path, START, SWISS)
    content = path.read_bytes()
    for spoiled in (content[:3], content[:200], content[: len(content) // 2], b"", b"GIF89a"):
        path.write_bytes(spoiled)
        with pytest.raises(ValueError, match="no readable GIF") as caught:
            METEOSWISS.read(path, START, None)
        assert path.name in one_line(caught)
    radar_cases.write_meteoswiss(tmp_path, START, SWISS[:10, :10])
    with pytest.raises(ValueError, match="640 x 710"):
        METEOSWISS.read(path, START, None)


def test_a_damaged_hdf5_is_refused_in_one_line(tmp_path):
    pixels = np.zeros((3, 4), np.uint16)
    path = radar_cases.write_knmi(tmp_path, START, pixels, formula="GEO=exp(PV)")
    with pytest.raises(ValueError, match=r"expected a scale GEO=a\*PV\+b") as caught:
        KNMI.read(path, START, None)
    one_line(caught)
    radar_cases.write_knmi(tmp_path, START, pixels)
    with pytest.raises(ValueError, match="ends -300 s from what its name says"):
        KNMI.read(path, START + 300, None)
    with h5py.File(path, "r+") as file:
        del file["geographic"].attrs["geo_pixel_size_y"]
    with pytest.raises(ValueError, match="its header has no geo_pixel_size_y"):
        KNMI.read(path, START, None)
    radar_cases.write_knmi(tmp_path, START, pixels, seconds=0)
    with pytest.raises(ValueError, match="sums over 0 s"):
        KNMI.read(path, START, None)
    cut(path, 900)
    with pytest.raises(ValueError, match="corrupt or truncated HDF5"):
        KNMI.read(path, START, None)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_truncated_grib_is_refused_in_one_line(share, tmp_path):
    pytest.importorskip("pygrib")
    path = radar_cases.write_mrms(tmp_path, START, np.random.default_rng(0).random((20, 30)))
    cut(path, int(share * path.stat().st_size))
    with pytest.raises(ValueError, match="truncated") as caught:
        MRMS.read(path, START, None)
    assert path.name in one_line(caught)


def test_a_grib_of_another_product_or_time_is_refused(tmp_path):
    pytest.importorskip("pygrib")
    path = radar_cases.write_mrms(tmp_path, START, np.ones((2, 2)), category=7)
    with pytest.raises(ValueError, match="PrecipRate was expected") as caught:
        MRMS.read(path, START, None)
    one_line(caught)
    radar_cases.write_mrms(tmp_path, START, np.ones((2, 2)))
    with pytest.raises(ValueError, match="its name says otherwise"):
        MRMS.read(path, START + 120, None)


def test_grib_without_pygrib_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pygrib", None)
    with pytest.raises(ValueError, match=r"decisive\[weather\]"):
        MRMS.read(tmp_path / "PrecipRate_00.00_20200630-235000.grib2", START, None)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.service)
def test_a_missing_file_is_an_error_of_one_line(form, tmp_path):
    if form is MRMS:
        pytest.importorskip("pygrib")
    name = {"MeteoSwiss": "AQC201822350V_00005.801.gif"}.get(form.service, "nothing.gz")
    with pytest.raises((OSError, ValueError)) as caught:
        form.read(tmp_path / name, START, None)
    one_line(caught)


def test_a_crop_is_a_part_and_may_not_leave_the_picture(tmp_path):
    path = radar_cases.write_fmi(tmp_path, START, np.arange(12, dtype=np.uint8).reshape(3, 4) + 70)
    whole, part = FMI.read(path, START, None), FMI.read(path, START, (1, 2, 2, 2))
    assert np.array_equal(part.rain, whole.rain[1:3, 2:4])
    assert part.shape == whole.shape == (3, 4)
    with pytest.raises(ValueError, match="leaves the picture of 3 x 4"):
        FMI.read(path, START, (2, 0, 2, 2))
