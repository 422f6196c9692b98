"""Rendered scenes with masks: masks lie on the picture, poses and depth are true, splits apart."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from envs.tabletop.camera import ROBOT_CAMERA, render, rgbd, rgbd_ids
from envs.tabletop.clutter_bodies import N_COLORS, SPLITS, color, ids
from envs.tabletop.insertion_views import CLASSES as PARTS
from envs.tabletop.insertion_views import (
    POLICY_EYE,
    POLICY_TARGET,
    InsertionConfig,
    InsertionViews,
    policy_camera,
    robot_camera,
)
from envs.tabletop.instance_pictures import halved_ids, instances, picture_rng
from envs.tabletop.instances import CLASSES, InstanceConfig, InstanceScenes, _Pile
from envs.tabletop.push import BLOCK, BlockPushEnv
from robots.pinhole import project, unproject

SMALL = InstanceConfig(size=64)


@pytest.fixture(scope="module")
def scenes():
    with InstanceScenes(SMALL) as artist:
        yield artist


@pytest.fixture(scope="module")
def drawn(scenes):
    return [scenes.draw(k) for k in range(20)]


@pytest.fixture(scope="module")
def views():
    with InsertionViews(InsertionConfig(size=160)) as artist:
        yield artist


# Ids


def test_a_pixel_shows_what_fills_most_of_it() -> None:
    seen = np.array(
        [
            [3, 3, 0, 0, 2, 5, 0, 0, 7, -1],
            [3, 5, 0, 9, 5, 2, 4, 4, -1, 7],
        ]
    )
    assert halved_ids(seen).tolist() == [[3, 0, 2, 4, 7]]


@given(hnp.arrays(np.int64, (6, 8), elements=st.integers(-1, 4)))
def test_halved_ids_are_those_of_a_count(seen: np.ndarray) -> None:
    found = halved_ids(seen)
    for i, j in np.ndindex(3, 4):
        parts = np.maximum(seen[2 * i : 2 * i + 2, 2 * j : 2 * j + 2], 0).ravel().tolist()
        best = max(set(parts), key=lambda body: (parts.count(body), body > 0, -body))
        assert found[i, j] == best


def test_too_little_is_no_instance_and_ids_count_up() -> None:
    seen = np.full((10, 10), -1)
    seen[0, :4], seen[1:3], seen[5, 5] = 7, 2, 9
    numbers, classes = instances(seen, {9: 4, 2: 1, 7: 3, 30: 5}, 0.04)
    assert classes.tolist() == [1, 3]
    assert (numbers == 1).sum() == 20
    assert (numbers[0, :4] == 2).all()
    assert (numbers > 0).sum() == 24
    every, classes = instances(seen, {9: 4, 2: 1, 7: 3, 30: 5}, 1e-9)
    assert classes.tolist() == [4, 1, 3]
    assert every[5, 5] == 1
    nothing, classes = instances(seen, {}, 0.01)
    assert not nothing.any()
    assert classes.shape == (0,)


# Clutter


def test_a_picture_depends_on_its_number_alone(scenes, drawn) -> None:
    backwards = [scenes.draw(k) for k in (4, 3, 2)][::-1]
    with InstanceScenes(SMALL) as other:
        alone = other.draw(4)
    for one, again in (*zip(drawn[2:5], backwards, strict=True), (drawn[4], alone)):
        np.testing.assert_array_equal(one.image, again.image)
        np.testing.assert_array_equal(one.ids, again.ids)
        np.testing.assert_array_equal(one.classes, again.classes)
    assert not np.array_equal(drawn[0].image, drawn[1].image)


def test_pictures_hold_what_the_configuration_says(drawn) -> None:
    counts, kinds, repeated = set(), set(), 0
    for picture in drawn:
        n = len(picture.classes)
        pixels = np.bincount(picture.ids.ravel(), minlength=n + 1)
        assert len(pixels) == n + 1
        assert pixels[1:].min() >= SMALL.min_share * 64 * 64
        assert 2 <= n <= 8
        assert (picture.classes == CLASSES.index("slot")).sum() <= 1
        counts.add(n)
        kinds |= set(picture.classes.tolist())
        repeated += len(set(picture.classes.tolist())) < n
    assert len(counts) >= 5
    assert len(kinds) == len(CLASSES) == 14
    assert repeated >= 5


def test_other_seeds_splits_and_streams_are_other_pictures() -> None:
    first = [picture_rng(21, split, 0, 0).random() for split in SPLITS]
    first += [picture_rng(21, "train", 1, 0).random(), picture_rng(21, "train", 0, 1).random()]
    first += [picture_rng(22, "train", 0, 0).random(), picture_rng(21, "train", 0, 0, 0).random()]
    assert len(set(first)) == 7


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_draws_from_its_own_colors_and_shapes(split) -> None:
    with InstanceScenes(InstanceConfig(split=split)) as artist:
        pile = _Pile(artist._client, np.random.default_rng(0), artist._shapes, artist._colors)
        for name in ("block", "small cube", "shape", "block", "shape"):
            pile.add(CLASSES.index(name))
        found = [artist._client.getVisualShapeData(body)[0] for body in pile.free]
    known = [color(int(i)) for i in ids(split, N_COLORS)]
    for shape in found:
        assert min(math.dist(shape[7][:3], one) for one in known) < 1e-6
        if b"random_urdfs" in shape[4]:
            number = int(shape[4].decode().split("/")[-1][:3])
            assert number in ids(split, 1000)
    assert len(known) == {"train": 480, "validation": 60, "test": 60}[split]


def test_things_rest_on_the_table_or_on_each_other(scenes) -> None:
    for seed in range(4):
        pile = _Pile(scenes._client, np.random.default_rng(seed), scenes._shapes, scenes._colors)
        for kind in np.random.default_rng(seed).integers(len(CLASSES), size=6):
            pile.add(int(kind))
        assert pile.bodies.settle(pile.free, 360)
        for body in pile.free:
            points = scenes._client.getContactPoints(body)
            assert points, "it floats"
            assert min(point[8] for point in points) > -0.002, "it has sunk in"


def borders_of(ids: np.ndarray) -> np.ndarray:
    """Between which neighbours there is a border: `(2, H, W)`, across and down."""
    found = np.zeros((2, *ids.shape), bool)
    found[0, :, :-1] = ids[:, 1:] != ids[:, :-1]
    found[1, :-1] = ids[1:] != ids[:-1]
    return found


def test_masks_of_clutter_lie_on_the_edges_of_the_picture(drawn) -> None:
    shifts = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1)]
    strengths = dict.fromkeys(shifts, 0.0)
    for picture in drawn:
        grey = picture.image.astype(float).sum(-1)
        edges = np.zeros((2, *grey.shape))
        edges[0, :, :-1] = np.abs(np.diff(grey, axis=1))
        edges[1, :-1] = np.abs(np.diff(grey, axis=0))
        for i, j in shifts:
            strengths[i, j] += (np.roll(edges, (-i, -j), (1, 2)) * borders_of(picture.ids)).sum()
    best = strengths.pop((0, 0))
    assert best > 1.4 * max(strengths.values())
    # No side is better than the other: not even by half a pixel are they off.
    assert strengths[0, 1] == pytest.approx(strengths[0, -1], rel=0.08)
    assert strengths[1, 0] == pytest.approx(strengths[-1, 0], rel=0.08)


def test_things_hide_each_other(drawn) -> None:
    hidden = 0
    for picture in drawn:
        left, right = picture.ids[:, :-1], picture.ids[:, 1:]
        hidden += bool(((left != right) & (left > 0) & (right > 0)).any())
    assert hidden >= 8


# BlockInsertion


def test_the_policy_camera_is_that_of_pixel_policies(views) -> None:
    views.draw(0)
    client = views.scene.client
    image, _ = rgbd(client, policy_camera((96, 96)))
    np.testing.assert_array_equal(image, render(client, (96, 96), POLICY_EYE, POLICY_TARGET))
    env = BlockPushEnv(observation="pixels", image_size=(64, 80))
    pixels, _ = env.reset(seed=3)
    np.testing.assert_array_equal(rgbd(env.scene.client, policy_camera((64, 80)))[0], pixels)
    env.close()


def test_ids_come_with_the_very_picture_and_depth_of_the_measuring_camera(views) -> None:
    views.draw(1)
    for camera in (ROBOT_CAMERA, policy_camera((96, 128))):
        image, depth = rgbd(views.scene.client, camera)
        again, same, seen = rgbd_ids(views.scene.client, camera)
        np.testing.assert_array_equal(again, image)
        np.testing.assert_array_equal(same, depth)
        assert set(np.unique(seen)) <= {-1, 0, 1, 2, 3}
        assert (np.isnan(depth) == (seen == -1)).all()


def test_the_robot_camera_keeps_its_view_at_another_size() -> None:
    half = robot_camera((240, 320))
    point = np.array([0.5, 0.1, 0.02])
    column, row = project(point, ROBOT_CAMERA.matrix, ROBOT_CAMERA.T_world_camera)
    small = project(point, half.matrix, half.T_world_camera)
    # Whole numbers are centres of pixels.
    np.testing.assert_allclose(small, ((column + 0.5) / 2 - 0.5, (row + 0.5) / 2 - 0.5))


@pytest.mark.parametrize("arm", ["cylinder", "xarm6"])
def test_a_view_depends_on_its_number_alone(arm) -> None:
    with InsertionViews(InsertionConfig(size=64, arm=arm)) as artist:
        forwards = [artist.draw(k) for k in range(3)]
        backwards = [artist.draw(k) for k in (2, 1, 0)][::-1]
    for one, again in zip(forwards, backwards, strict=True):
        np.testing.assert_array_equal(one.image, again.image)
        np.testing.assert_array_equal(one.ids, again.ids)
        np.testing.assert_array_equal(one.depth, again.depth)
        assert one.block_pose == again.block_pose
    assert forwards[0].block_pose != forwards[1].block_pose


def test_pose_camera_mask_and_depth_belong_together(views) -> None:
    top, checked = 2 * BLOCK[2], 0
    for k in range(20):
        view = views.draw(k)
        assert view.depth.dtype == np.float32
        assert view.depth.shape == view.ids.shape == view.image.shape[:2] == (160, 160)
        block, effector = (
            np.isin(view.ids, 1 + np.flatnonzero(view.classes == PARTS.index(name)))
            for name in ("block", "effector")
        )
        matrix, pose = view.camera.matrix, view.camera.T_world_camera
        points = unproject(view.depth, matrix, pose)
        assert points[block][:, 2].min() > -1e-3
        assert points[block][:, 2].max() < top + 1e-3
        # Where each pixel's ray meets the plane of the block's top face, in the block's frame.
        rays = unproject(np.ones((160, 160)), matrix, pose) - pose[:3, 3]
        on_plane = pose[:3, 3] + rays * ((top - pose[2, 3]) / rays[..., 2:])
        x, y, yaw = view.block_pose
        turn = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
        reach = np.abs((on_plane[..., :2] - (x, y)) @ turn.T).max(-1)
        # To a tenth of a pixel: the face fills the mask, and nothing beside it is the face.
        assert (block | effector)[reach < BLOCK[0] - 2e-4].all()
        face = block & (points[..., 2] > top - 5e-4)
        assert reach[face].max() < BLOCK[0] + 2e-4
        checked += face.sum()
    assert checked > 1000


def test_block_and_effector_are_all_over_the_place_and_never_in_each_other(views) -> None:
    inside = touching = 0
    places = []
    for k in range(60):
        views.draw(k)
        scene = views.scene
        x, y, yaw = scene.pose(scene.blocks[0])
        depth, offset, turn = views._env.block_in_slot(0)
        tip = scene.tip()
        dx, dy = tip[0] - x, tip[1] - y
        local = np.array([np.cos(yaw) * dx + np.sin(yaw) * dy, np.cos(yaw) * dy - np.sin(yaw) * dx])
        gap = np.linalg.norm(np.maximum(np.abs(local) - BLOCK[0], 0)) - 0.0127
        if tip[2] < 0.03:
            assert gap > -3e-4
            touching += gap < 0.015
        inside += 0 < depth < 0.03 and abs(offset) < 0.0012 and abs(turn) < 0.06
        places.append((x, y))
    assert touching >= 10
    assert inside >= 4
    assert np.ptp(np.array(places), axis=0).min() > 0.25


def test_varied_views_have_other_colors_and_a_camera_that_has_moved() -> None:
    plain = InsertionConfig(size=64, varied=0.0)
    with InsertionViews(plain) as artist:
        still = [artist.draw(k) for k in range(3)]
    with InsertionViews(InsertionConfig(size=64, varied=1.0)) as artist:
        other = [artist.draw(k) for k in range(3)]
    nominal = policy_camera((64, 64)).T_world_camera[:3, 3]
    for one, two in zip(still, other, strict=True):
        assert one.block_pose == two.block_pose
        np.testing.assert_array_equal(one.camera.T_world_camera[:3, 3], nominal)
        moved = np.abs(two.camera.T_world_camera[:3, 3] - nominal)
        assert 0 < moved.max() <= 0.015
    tables = {tuple(view.image[2, 2].tolist()) for view in still}
    assert len(tables) == 1
    assert len({tuple(view.image[2, 2].tolist()) for view in other} | tables) == 4


def test_the_arm_is_the_effector_and_hides_things() -> None:
    with InsertionViews(InsertionConfig(size=160, arm="xarm6", camera="robot")) as artist:
        found = [artist.draw(k) for k in range(8)]
    shares = []
    for view in found:
        assert view.image.shape == (120, 160, 3)
        effector = 1 + view.classes.tolist().index(PARTS.index("effector"))
        shares.append((view.ids == effector).mean())
    assert np.mean(shares) > 0.03
    assert any(PARTS.index("block") not in view.classes for view in found)


# What is refused


@pytest.mark.parametrize(
    ("make", "wrong", "words"),
    [
        (InstanceConfig, {"size": 32}, "size must be 64 to 512 pixels, got 32"),
        (InstanceConfig, {"split": "exam"}, "split must be one of train, validation, test"),
        (InstanceConfig, {"seed": -1}, "seed must not be negative"),
        (InstanceConfig, {"things": (5, 4)}, r"things must be a range within 1 to 12, got \(5, 4"),
        (InstanceConfig, {"min_share": 0.5}, r"min_share must be in \(0, 0.1\)"),
        (InsertionConfig, {"size": 1000}, "size must be 64 to 512 pixels, got 1000"),
        (InsertionConfig, {"camera": "film"}, "camera must be policy or robot, got 'film'"),
        (InsertionConfig, {"camera": "robot", "size": 150}, "multiple of 4"),
        (InsertionConfig, {"varied": 2.0}, r"varied must be in \[0, 1\]"),
    ],
)
def test_impossible_pictures_are_refused(make, wrong, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(**wrong)


def test_negative_numbers_and_unknown_arms_are_refused(scenes, views) -> None:
    for artist in (scenes, views):
        with pytest.raises(ValueError, match="must not be negative, got -1"):
            artist.draw(-1)
    with pytest.raises(ValueError, match="arm must be one of"):
        InsertionViews(InsertionConfig(arm="hand"))  # type: ignore[arg-type]


def test_closing_twice_is_harmless() -> None:
    for artist in (InstanceScenes(SMALL), InsertionViews(InsertionConfig(size=64))):
        artist.close()
        artist.close()
