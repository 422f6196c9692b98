"""Rendered pictures with targets of five tasks: true to each other, to geometry and to a seed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from decisive import render_tasks
from envs.tabletop.camera import PinholeCamera
from envs.tabletop.task_pictures import (
    CLASSES,
    TaskPicture,
    TaskPictureConfig,
    TaskScenes,
    edges,
    rays,
    surface_normals,
    table_depth,
)
from perception.multi_task_set import open_task_set


@pytest.fixture(scope="module")
def drawn() -> list[TaskPicture]:
    with TaskScenes(TaskPictureConfig()) as scenes:
        return [scenes.draw(k) for k in range(6)]


def arrays(picture: TaskPicture) -> list[Any]:
    return [getattr(picture, name) for name in picture.__dataclass_fields__]


def test_a_picture_is_a_function_of_its_number(drawn) -> None:
    with TaskScenes(TaskPictureConfig()) as scenes:
        for one, other in zip(arrays(scenes.draw(4)), arrays(drawn[4]), strict=True):
            np.testing.assert_array_equal(one, other)
    with TaskScenes(TaskPictureConfig(split="test")) as scenes:
        assert (scenes.draw(4).image != drawn[4].image).any()


def test_targets_have_their_shapes_and_ranges(drawn) -> None:
    for one in drawn:
        assert one.image.shape == (64, 64, 3)
        assert one.image.dtype == one.segmentation.dtype == np.uint8
        assert one.segmentation.max() < len(CLASSES)
        assert one.depth.dtype == one.normals.dtype == np.float32
        assert 0.2 < one.depth.min() < one.depth.max() < 1.2
        np.testing.assert_allclose(np.linalg.norm(one.normals, axis=-1), 1, atol=1e-5)
        assert 1 <= one.count <= 6
        assert one.edges.dtype == np.bool_


def test_targets_agree_with_each_other(drawn) -> None:
    for one in drawn:
        things = one.segmentation > 0
        assert things.any()
        # Where the class changes a thing ends, so there is an edge on both sides.
        across = one.segmentation[:, 1:] != one.segmentation[:, :-1]
        assert one.edges[:, 1:][across].mean() > 0.95
        # Things stand on the table, so they are nearer than it would be.
        rows = np.arange(64)[:, None].repeat(64, 1)
        table = ~things & ~one.edges
        fit = np.polyfit(rows[table], 1 / one.depth[table], 1)
        nearer = 1 / one.depth[things] - np.polyval(fit, rows[things])
        assert (nearer > 0).mean() > 0.9
        # The table is flat: its normals hardly differ.
        assert one.normals[table].std(0).max() < 0.05


def camera(height: float = 0.5) -> PinholeCamera:
    return PinholeCamera.look_at((-0.4, 0.0, height), (0.0, 0.0, 0.0), (32, 32), 32.0)


def test_the_depth_of_the_table_is_that_of_a_plane() -> None:
    lens = camera()
    depth = table_depth(lens)
    points = rays(lens) * depth[..., None]
    world = points @ lens.T_world_camera[:3, :3].T + lens.T_world_camera[:3, 3]
    np.testing.assert_allclose(world[..., 2], 0, atol=1e-12)
    # The optical axis, between the four middle pixels, meets the target.
    assert depth[15:17, 15:17].mean() == pytest.approx(np.hypot(0.4, 0.5), rel=1e-3)
    with pytest.raises(ValueError, match="look down on the table with all of its pixels"):
        table_depth(PinholeCamera.look_at((0, 0, 0.5), (1, 0, 0.5), (32, 32), 32.0))


def test_normals_of_the_table_point_up() -> None:
    lens = camera()
    normals = surface_normals(table_depth(lens).astype(np.float32), lens)
    up = normals @ lens.T_world_camera[:3, :3].T
    np.testing.assert_allclose(up, np.broadcast_to((0, 0, 1), up.shape), atol=2e-3)


def test_a_wall_across_the_axis_faces_the_camera_and_a_step_is_no_wall() -> None:
    lens = camera()
    depth = np.full((32, 32), 0.8, np.float32)
    depth[:, 16:] = 0.6
    normals = surface_normals(depth, lens)
    np.testing.assert_allclose(normals, np.broadcast_to((0, 0, -1), normals.shape), atol=1e-5)


def test_a_slope_of_one_in_one_is_turned_by_45_degrees() -> None:
    lens = camera()
    # z = 0.8 + x in the camera's frame, so z = 0.8 / (1 - x / z) along each ray.
    depth = (0.8 / (1 - rays(lens)[..., 0])).astype(np.float32)
    expected = np.array([1, 0, -1]) / np.sqrt(2)
    normals = surface_normals(depth, lens)
    np.testing.assert_allclose(normals, np.broadcast_to(expected, normals.shape), atol=2e-3)


def test_an_edge_has_another_body_beside_it() -> None:
    seen = np.zeros((4, 5), np.int64)
    seen[1:3, 2:] = 7
    found = edges(seen)
    expected = ["00111", "01111", "01111", "00111"]
    assert ["".join(str(int(x)) for x in row) for row in found] == expected


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"size": 32}, "size must be 64 to 512 pixels, got 32"),
        ({"things": (0, 2)}, "things must be a range within 1 to 8"),
        ({"things": (3, 2)}, "things must be a range within 1 to 8"),
        ({"seed": -1}, "seed must not be negative"),
        ({"split": "exam"}, "split must be one of"),
    ],
)
def test_scenes_that_cannot_be_are_refused(values: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TaskPictureConfig(**values)


def test_a_set_is_rendered_with_its_facts_and_a_page(tmp_path: Path, capsys, drawn) -> None:
    out = tmp_path / "set"
    words = ["--out", str(out), "--frames", "3", "--pictures", "2", "--json"]
    assert render_tasks.main(words) == 0
    told = json.loads(capsys.readouterr().out)
    written = open_task_set(out)
    assert told["tasks"] == list(written.targets)
    assert told["tasks"] == ["segmentation", "depth", "normals", "edges", "count"]
    np.testing.assert_array_equal(written.images[2], drawn[2].image)
    np.testing.assert_array_equal(written.arrays["segmentation"][2], drawn[2].segmentation)
    np.testing.assert_array_equal(written.arrays["depth"][2], drawn[2].depth)
    assert written.arrays["count"][2, 0] == drawn[2].count
    assert written.source.startswith("Synthetic")
    assert (written.facts["split"], written.facts["synthetic"]) == ("train", True)
    assert told["mean_count"] == pytest.approx(np.mean([d.count for d in drawn[:3]]), abs=1e-3)
    with Image.open(out / "pictures.png") as page:
        assert page.width > 5 * 128
    with pytest.raises(ValueError, match="say --overwrite"):
        render_tasks.main(words)


def test_blocks_do_not_depend_on_where_they_begin(drawn) -> None:
    images, targets = render_tasks.draw_block(TaskPictureConfig(), range(3, 5))
    np.testing.assert_array_equal(images[1], drawn[4].image)
    np.testing.assert_array_equal(targets["edges"][0], drawn[3].edges)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--frames", "0"), "--frames must be at least 1, got 0"),
        (("--size", "32"), "size must be 64 to 512"),
        (("--workers", "0"), "--workers must be at least 1"),
        (("--pictures", "101"), r"--pictures must be in 0\.\.100"),
        (("--split", "exam"), "exam"),
    ],
)
def test_what_cannot_be_rendered_is_refused(tmp_path: Path, words, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        render_tasks.main(["--out", str(tmp_path / "set"), *words])
    assert not (tmp_path / "set").exists()
