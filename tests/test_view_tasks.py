"""Pictures of what perception tasks say, and the page of `decisive view --tasks`."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from task_cases import saved, squares

from decisive import cli
from decisive.task_tiles import CLASS_COLORS, class_colors, class_overlay, tile
from decisive.view_tasks import look
from perception.multi_task_checkpoint import save_tasks

# Tiles


def test_every_class_has_a_colour_and_only_the_first_is_pale() -> None:
    drawn = class_colors(np.arange(256, dtype=np.uint8)[None])[0]
    np.testing.assert_array_equal(drawn[:12], CLASS_COLORS)
    np.testing.assert_array_equal(drawn[12], CLASS_COLORS[1])
    assert not (drawn[1:] == CLASS_COLORS[0]).all(-1).any()


def test_tiles_are_as_by_hand() -> None:
    near = tile("values", np.array([[0.5, 1.0, 1.5]], np.float32))
    assert near[0, :, 0].tolist() == [255, 127, 0]
    assert tile("values", np.full((2, 2), 0.7, np.float32)).max() == 0  # no division by nothing
    edges = tile("mask", np.array([[1.0, 0.0, 0.2]]))
    assert edges[0, :, 1].tolist() == [0, 255, 204]
    assert tile("mask", np.array([[True, False]]))[0, :, 2].tolist() == [0, 255]
    facing = tile("directions", np.array([[[0.0, 1.0, -1.0]]]))
    assert facing.tolist() == [[[128, 255, 0]]]
    assert (tile("classes", np.array([[3]], np.uint8)) == CLASS_COLORS[3]).all()


def test_an_overlay_has_the_size_of_the_picture_and_leaves_the_first_class_clear() -> None:
    image = np.full((6, 4, 3), 100, np.uint8)
    drawn = class_overlay(image, np.array([[0, 1], [0, 0], [0, 0]], np.uint8))
    tint = np.rint((115 * 100 + 141 * CLASS_COLORS[1].astype(float)) / 256)
    np.testing.assert_array_equal(drawn[:2, 2:], np.broadcast_to(tint, (2, 2, 3)))
    assert (drawn[2:] == 100).all()
    assert (drawn[:, :2] == 100).all()


# The page


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("view")
    save_tasks(made / "seer", saved(scores={"images": 1}), "")
    Image.fromarray(squares(1).images[0]).resize((40, 24)).save(made / "photo.png")
    return made


def view(place: Path, *words: str) -> int:
    known = ("--checkpoint", str(place / "seer"), "--image", str(place / "photo.png"))
    return cli.main(["view", "--tasks", *known, *words])


def test_the_page_shows_every_task(place: Path, tmp_path: Path, capsys) -> None:
    assert view(place, "--out", str(tmp_path / "a.png"), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told["tasks"]) == ["segmentation", "depth", "normals", "edges", "count"]
    assert told["tasks"]["count"].endswith("things")
    assert told["tasks"]["depth"].endswith("metres")
    with Image.open(tmp_path / "a.png") as page:
        assert page.width > 5 * 220
    assert view(place, "--out", str(tmp_path / "b.png")) == 0
    said = capsys.readouterr().out
    assert f"count: {told['tasks']['count']}" in said
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("shape", [(1, 1), (3, 400), (500, 2), (30, 30)])
def test_pictures_of_any_shape_are_drawn(shape: tuple[int, int]) -> None:
    page, told = look(saved(), np.zeros((*shape, 3), np.uint8), "a name that is longer than a tile")
    assert page.ndim == 3
    assert set(told["tasks"]) == {"segmentation", "depth", "normals", "edges", "count"}


def test_what_cannot_be_shown_is_refused_in_one_line(place: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "text.png").write_text("no picture")
    out = ("--out", str(tmp_path / "x.png"))
    for words, said in (
        (("--out", "x.jpg"), "--out must end in .png"),
        (("--image", str(tmp_path / "absent.png"), *out), "no such file"),
        (("--image", str(tmp_path / "text.png"), *out), "text.png"),
        (("--checkpoint", "absent", *out), "neither a folder nor a shipped multi-task network"),
        (("--checkpoint", "tabletop-coatnet", *out), "neither a folder nor a shipped multi-task"),
    ):
        assert view(place, *words) == 2
        line = capsys.readouterr().err
        assert said in line
        assert line.count("\n") == 1
    assert not (tmp_path / "x.png").exists()
