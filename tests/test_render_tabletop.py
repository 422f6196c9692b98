"""`decisive data render-tabletop`: what is written, by how many workers, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from decisive import cli
from decisive.render_tabletop import Arguments, chunks, draw_block, sheet
from envs.tabletop.clutter import TASKS, ClutterConfig, ClutterScenes, plan
from envs.tabletop.clutter_clips import MOTIONS
from learning.image_set import open_image_set

SMALL = ClutterConfig(size=32)


def render(out: Path, *words: str) -> int:
    return cli.main(["data", "render-tabletop", "--out", str(out), *words])


def width_of(picture: Path) -> int:
    with Image.open(picture) as file:
        return file.width


def test_a_set_of_pictures_is_written_with_labels_and_facts(tmp_path, capsys) -> None:
    out = tmp_path / "set"
    words = ("--frames", "5", "--size", "32", "--split", "test", "--seed", "7", "--pictures", "3")
    assert render(out, *words, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    written = open_image_set(out)
    config = ClutterConfig(size=32, split="test", seed=7)
    with ClutterScenes(config) as scenes:
        np.testing.assert_array_equal(written.images[4], scenes.draw(4)[0])
    assert written.images.shape == (5, 32, 32, 3)
    assert written.labels.tolist() == [list(plan(config, k).labels()) for k in range(5)]
    assert dict(written.tasks) == TASKS
    assert written.source.startswith("Synthetic")
    assert (written.facts["split"], written.facts["seed"]) == ("test", 7)
    assert sum(told["counts"]["object"].values()) == 5
    assert told["pictures"] == str(out / "pictures.png")
    assert width_of(out / "pictures.png") > 3 * 128


def test_the_bytes_do_not_depend_on_the_workers_or_on_how_many_are_drawn() -> None:
    one = [np.concatenate(part) for part in zip(*chunks(SMALL, 18, False, 1), strict=True)]
    two = [np.concatenate(part) for part in zip(*chunks(SMALL, 20, False, 2), strict=True)]
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first, second[:18])
    np.testing.assert_array_equal(draw_block(SMALL, range(17, 18), False)[0][0], one[0][17])


def test_clips_are_written_with_one_task(tmp_path, capsys) -> None:
    out = tmp_path / "clips"
    assert render(out, "--clips", "--frames", "2", "--size", "32", "--pictures", "2") == 0
    written = open_image_set(out)
    assert written.images.shape == (2, 8, 32, 32, 3)
    assert dict(written.tasks) == {"motion": MOTIONS}
    printed = capsys.readouterr().out
    assert "2 clips of 32 pixels" in printed
    assert "motion: push left" in printed
    assert width_of(out / "pictures.png") > 8 * 128


def test_a_sheet_shows_the_pictures_as_they_are() -> None:
    images = np.zeros((3, 36, 36, 3), np.uint8)
    images[1] = (200, 10, 30)
    labels = np.array([[0, 1, -1], [3, -1, 2], [1, -1, -1]])
    page = sheet(images, labels, TASKS)
    tile = page[16 : 16 + 144, 16 + 156 : 16 + 156 + 144]
    assert (tile == (200, 10, 30)).all()
    assert (page[:16] == 255).all()
    # Labels are written in ink below, those not asked for in grey.
    assert (page[16 + 144 :, 16:160] < 60).any()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--frames", "0"), "--frames must be at least 1, got 0"),
        (("--size", "4"), "size must be 16 to 512 pixels, got 4"),
        (("--workers", "0"), "--workers must be at least 1, got 0"),
        (("--pictures", "999"), "--pictures must be in 0..400, got 999"),
        (("--split", "exam"), "exam"),
    ],
)
def test_what_cannot_be_rendered_ends_with_one_line(tmp_path, capsys, words, said: str) -> None:
    assert render(tmp_path / "set", *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "set").exists()


def test_a_folder_that_is_there_stays(tmp_path, capsys) -> None:
    (tmp_path / "mine").write_text("keep")
    assert render(tmp_path) == 2
    assert "say --overwrite" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "keep"
    out = tmp_path / "set"
    assert render(out, "--frames", "1", "--size", "16") == 0
    assert render(out, "--frames", "2", "--size", "16", "--overwrite") == 0
    assert len(open_image_set(out)) == 2


def test_the_help_tells_of_clips(capsys) -> None:
    with pytest.raises(SystemExit):
        cli.main(["data", "render-tabletop", "--help"])
    assert "--clips" in capsys.readouterr().out
    assert Arguments("x").config() == ClutterConfig()
