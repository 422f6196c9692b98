"""`decisive view --boxes`: masks of found and of given boxes over an image, and refusals."""

import json
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image
from segmenter_cases import saved

from decisive import cli
from decisive.pictures import MARGIN
from decisive.segment_pictures import PALETTE, Shown, displayed_size, overlay, segment_page
from decisive.video import VideoWriter
from decisive.view_boxes import Given, read_boxes
from decisive.view_tokens import read_image
from perception.deep_mac.checkpoint import load_segmenter, save_segmenter

BOXES = [[10, 10, 50, 40], {"box": [0, 0, 80, 60], "label": "mug", "score": 0.8}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("segmenter") / "tiny"
    save_segmenter(place, saved(), "untrained, of a test")
    return place


@pytest.fixture
def photo(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "photo.png"
    Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)
    return path


def view(folder: Path | str, image: Path | str, *words: str) -> int:
    return cli.main(["view", "--boxes", "--checkpoint", str(folder), "--image", str(image), *words])


def test_what_is_found_is_drawn_and_told(folder, photo, tmp_path, capsys) -> None:
    out = tmp_path / "boxes.png"
    words = ("--out", str(out), "--threshold", "0", "--n", "5")
    assert view(folder, photo, *words, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    expected = load_segmenter(folder).segment(read_image(str(photo)), threshold=0.0, n=5)
    assert len(told["instances"]) == len(expected) == 5
    for one, box, name, mask in zip(
        told["instances"], expected.boxes, expected.names, expected.masks, strict=True
    ):
        assert one["box"] == pytest.approx(box.tolist(), abs=0.01)
        assert (one["name"], one["pixels"]) == (name, mask.sum())
    with Image.open(out) as page:
        height, width = displayed_size(60, 80)
        assert (height, width) == (480, 640)
        assert page.width > MARGIN + width + 200
        assert page.height > height
    assert view(folder, photo, *words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out)


def test_given_boxes_have_masks_labels_and_scores(folder, photo, tmp_path, capsys) -> None:
    given = tmp_path / "boxes.json"
    given.write_text(json.dumps(BOXES))
    words = ("--given", str(given), "--out", str(tmp_path / "x.png"), "--json")
    assert view(folder, photo, *words) == 0
    first, second = json.loads(capsys.readouterr().out)["instances"]
    assert first == {"box": [10, 10, 50, 40], "name": "", "score": None, "pixels": 40 * 30}
    assert second == {"box": [0, 0, 80, 60], "name": "mug", "score": 0.8, "pixels": 80 * 60}
    plain = (tmp_path / "x.png").read_bytes()
    assert view(folder, photo, *words, "--refine", "1") == 0
    assert (tmp_path / "x.png").read_bytes() != plain
    given.write_text("[]")
    assert view(folder, photo, *words) == 0


def test_masks_are_tinted_and_outlined_where_they_are() -> None:
    image = np.full((48, 48, 3), 100, np.uint8)
    mask = np.zeros((48, 48), bool)
    mask[12:24, 24:36] = True
    found = overlay(image, [Shown((24, 12, 36, 24), mask, "mug", 0.9)])
    assert found.shape == (480, 480, 3)
    tinted = np.rint(0.55 * 100 + 0.45 * np.array(PALETTE[0]))
    np.testing.assert_array_equal(found[200, 320], tinted)
    assert (found[:115] == 100).all()
    assert (found[:, :235] == 100).all()
    # The lower side of box and mask.
    np.testing.assert_array_equal(found[239, 330], PALETTE[0])
    empty = overlay(image, [Shown((-60, -60, -50, -50), np.zeros((48, 48), bool), "")])
    assert (empty[50:, 50:] == 100).all()


def test_pages_of_a_film_have_one_size_and_the_list_ends_in_time() -> None:
    image = np.full((48, 64, 3), 100, np.uint8)
    mask = np.zeros((48, 64), bool)
    mask[20:30, 20:30] = True
    pages = [
        segment_page(image, [Shown((1, 1, 9, 9), mask, "x" * 99, 0.5)] * n, "t" * 300, "n" * 300)
        for n in (0, 1, 20, 21, 60)
    ]
    assert len({page.shape for page in pages}) == 1
    assert not np.array_equal(pages[2], pages[3])
    for height, width in ((1, 5000), (5000, 1), (16384, 16384)):
        assert min(displayed_size(height, width)) >= 1
        assert max(displayed_size(height, width)) <= 720


def test_a_film_gives_a_film(folder, tmp_path, capsys) -> None:
    film, out = tmp_path / "in.mp4", tmp_path / "out.mp4"
    with VideoWriter(film, fps=10) as writer:
        for level in (40, 120, 200):
            writer.add(np.full((64, 64, 3), level, np.uint8))
    assert view(folder, film, "--out", str(out), "--threshold", "0", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["frames"] == len(told["found"]) == 3
    assert imageio_ffmpeg.count_frames_and_secs(str(out))[0] == 3


def test_boxes_are_read_in_both_forms(tmp_path) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(BOXES))
    assert read_boxes(str(path)) == [
        Given((10, 10, 50, 40)),
        Given((0, 0, 80, 60), "mug", 0.8),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "must hold a list of boxes, got dict"),
        ("[1, 2, 3, 4]", "item 0 must be [x1, y1, x2, y2] in pixels, got 1"),
        ("[[1, 2, 3]]", "item 0 must be"),
        ('[[1, 2, 3, "4"]]', "item 0 must be"),
        ("[[1, 2, 3, true]]", "item 0 must be"),
        ("[[1, 2, 3, NaN]]", "item 0 must be"),
        (f"[[1, 2, 3, {10**400}]]", "item 0 must be"),
        ('[[1, 2, 3, 4], {"label": "mug"}]', "item 1 must be"),
        ('[{"box": [1, 2, 3, 4], "label": 3}]', "label must be text"),
        ('[{"box": [1, 2, 3, 4], "score": 1.5}]', "score must be in 0..1"),
        ("[[", "not JSON"),
        ("[" * 200_000, "not JSON"),
        ("\x00", "not JSON"),
    ],
)
def test_bad_boxes_are_refused(folder, photo, tmp_path, capsys, text: str, said: str) -> None:
    given, out = tmp_path / "boxes.json", tmp_path / "x.png"
    given.write_text(text)
    assert view(folder, photo, "--given", str(given), "--out", str(out)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_files_that_cannot_be_are_refused(folder, photo, tmp_path, capsys) -> None:
    text = tmp_path / "text.png"
    text.write_text("no image")
    out, film = str(tmp_path / "x.png"), str(tmp_path / "x.mp4")
    broken = tmp_path / "broken.mp4"
    broken.write_text("no film")
    for image, words, said in (
        (tmp_path / "none.png", ("--out", out), "no such file"),
        (text, ("--out", out), "is no image that can be read"),
        (broken, ("--out", film), "is no film that can be read"),
        (photo, ("--out", film), "--out must end in .png"),
        (photo, ("--out", out, "--given", str(tmp_path / "none.json")), "no such file"),
        (broken, ("--out", film, "--given", "boxes.json"), "--given is for an image"),
        (photo, ("--out", out, "--threshold", "2"), "--threshold must be in 0..1"),
        (photo, ("--out", out, "--n", "0"), "--n must be 1 or more"),
        (photo, ("--out", out, "--refine", "-1"), "--refine must be in 0..10"),
    ):
        assert view(folder, image, *words) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert not Path(out).exists()
    assert not Path(film).exists()


def test_other_checkpoints_are_refused(photo, tmp_path, capsys) -> None:
    assert view(tmp_path / "nothing", photo, "--out", str(tmp_path / "x.png")) == 2
    assert "neither a folder nor a shipped segmenter" in capsys.readouterr().err
