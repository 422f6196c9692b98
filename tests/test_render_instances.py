"""`decisive data render-instances`: what is written, by how many workers, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from decisive import cli
from decisive.render_instances import chunks, draw_block, overlay, page
from decisive.workers import in_order
from envs.tabletop.insertion_views import InsertionConfig, InsertionViews
from envs.tabletop.instances import CLASSES, InstanceConfig, InstanceScenes
from learning.instance_set import Scene, open_instance_set

SMALL = InstanceConfig(size=64)


def render(out: Path, *words: str) -> int:
    return cli.main(["data", "render-instances", "--out", str(out), *words])


def test_a_set_of_clutter_is_written_with_masks_and_facts(tmp_path, capsys) -> None:
    out = tmp_path / "set"
    words = ("--frames", "3", "--size", "64", "--split", "test", "--seed", "7", "--pictures", "2")
    assert render(out, *words, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    written = open_instance_set(out)
    with InstanceScenes(InstanceConfig(size=64, split="test", seed=7)) as scenes:
        picture = scenes.draw(2)
    scene = written[2]
    np.testing.assert_array_equal(scene.image, picture.image)
    assert scene.classes.tolist() == picture.classes.tolist()
    for k, mask in enumerate(scene.masks):
        np.testing.assert_array_equal(mask, picture.ids == k + 1)
    assert (len(written), written.classes) == (3, CLASSES)
    assert written.source.startswith("Synthetic")
    facts = written.facts
    assert (facts["scenes"], facts["split"], facts["seed"]) == ("clutter", "test", 7)
    assert sum(told["counts"].values()) == told["instances"] == sum(map(len, written))
    assert told["pictures"] == str(out / "pictures.png")
    with Image.open(out / "pictures.png") as file:
        assert file.width > 2 * 320


def test_views_of_the_insertion_are_written(tmp_path, capsys) -> None:
    out = tmp_path / "views"
    words = ("--scenes", "insertion", "--frames", "2", "--size", "96", "--camera", "robot")
    assert render(out, *words, "--arm", "xarm6") == 0
    written = open_instance_set(out)
    assert written.classes == ("block", "slot", "effector")
    assert written[0].image.shape == (72, 96, 3)
    assert (written.facts["arm"], written.facts["camera"]) == ("xarm6", "robot")
    with InsertionViews(InsertionConfig(size=96, arm="xarm6", camera="robot")) as views:
        np.testing.assert_array_equal(written[1].image, views.draw(1).image)
    assert "2 pictures of 96 pixels" in capsys.readouterr().out


def test_the_bytes_do_not_depend_on_the_workers_or_on_how_many_are_drawn() -> None:
    config = InsertionConfig(size=64)
    one, two = list(chunks(config, 18, 1)), list(chunks(config, 20, 2))
    for part in range(2):
        first, second = (np.concatenate([chunk[part] for chunk in found]) for found in (one, two))
        np.testing.assert_array_equal(first, second[:18])
    kinds = [[list(row) for chunk in found for row in chunk[2]] for found in (one, two)]
    assert kinds[0] == kinds[1][:18]
    np.testing.assert_array_equal(draw_block(config, range(17, 18))[0][0], one[1][0][1])


def double(block: range) -> list[int]:
    return [2 * k for k in block]


def test_blocks_come_in_their_order() -> None:
    blocks = [range(3 * k, 3 * k + 3) for k in range(7)]
    found = list(in_order(double, blocks, 2))
    assert found == [[2 * k for k in block] for block in blocks]


def scene() -> Scene:
    image = np.full((64, 64, 3), 100, np.uint8)
    ids = np.zeros((64, 64), np.uint8)
    ids[8:32, 8:56], ids[32:, :20] = 1, 2
    return Scene.from_ids(image, ids, np.array([0, 1]))


def test_an_overlay_tints_instances_and_draws_their_outlines_inside() -> None:
    drawn = overlay(scene(), ("duck", "mug"), 128)
    assert drawn.shape == (128, 128, 3)
    # Outside nothing changes, up to the very border.
    assert (drawn[:16] == 100).all()
    assert (drawn[64:, 40:] == 100).all()
    assert (drawn[16, 16:112] == (230, 159, 0)).all()
    assert (drawn[63, 100] == (230, 159, 0)).all()
    assert (drawn[20, 20] == (152, 124, 60)).all()
    # A border of the picture is none of the instance.
    assert (drawn[110, 0] == (94, 132, 153)).all()
    # The name, in white, in the middle of the box.
    assert (drawn[36:46, 50:78] == 255).all(-1).any()


def test_a_page_holds_all_pictures() -> None:
    sheet = page([scene()] * 5, ("duck", "mug"))
    tile = overlay(scene(), ("duck", "mug"))
    height, width = tile.shape[:2]
    np.testing.assert_array_equal(sheet[16 : 16 + height, 16 : 16 + width], tile)
    second_row = 16 + height + 30
    np.testing.assert_array_equal(sheet[second_row:, 16:][:height, :width], tile)
    assert (sheet[16 + height : second_row, 16:100] < 60).any()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--frames", "0"), "--frames must be at least 1, got 0"),
        (("--size", "32"), "size must be 64 to 512 pixels, got 32"),
        (("--workers", "0"), "--workers must be at least 1, got 0"),
        (("--pictures", "101"), "--pictures must be in 0..100, got 101"),
        (("--split", "exam"), "exam"),
        (("--arm", "xarm6"), "--arm and --camera are of --scenes insertion"),
        (("--scenes", "insertion", "--camera", "robot", "--size", "98"), "multiple of 4"),
    ],
)
def test_what_cannot_be_rendered_ends_with_one_line(tmp_path, capsys, words, said: str) -> None:
    assert render(tmp_path / "set", *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "set").exists()


def test_a_folder_that_is_there_stays(tmp_path, capsys) -> None:
    out = tmp_path / "set"
    words = ("--scenes", "insertion", "--size", "64")
    assert render(out, *words, "--frames", "1") == 0
    assert render(out, *words, "--frames", "2") == 2
    assert "say --overwrite" in capsys.readouterr().err
    assert len(open_instance_set(out)) == 1
    assert render(out, *words, "--frames", "2", "--overwrite") == 0
    assert len(open_instance_set(out)) == 2


def test_the_help_tells_of_scenes(capsys) -> None:
    with pytest.raises(SystemExit):
        cli.main(["data", "render-instances", "--help"])
    assert "--scenes" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["data", "--help"])
    assert "render-instances" in capsys.readouterr().out
