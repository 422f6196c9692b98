"""Poses by labels: masks say which object and where, the picture says the rest, colours nothing."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_cases import BLOCK, EFFECTOR, SLOT, Look, grown, labels_of, looks, only, resized

from envs.tabletop.camera import ROBOT_CAMERA, rgbd
from envs.tabletop.insertion import BlockInsertionEnv
from envs.tabletop.push import BLOCK as BLOCK_HALF
from envs.tabletop.push import BlockPushEnv, BlockPushMultimodalEnv
from robots.instance_labels import InstanceLabels
from robots.outline_fit import covers
from robots.pose_estimation import (
    INSERTION,
    ONE_BLOCK,
    RED,
    TWO_BLOCKS,
    WHITE,
    BlockModel,
    Pose2D,
    SceneEstimator,
    SlotModel,
    estimate,
    wrap,
)

MODELS = (BlockModel("block", RED), SlotModel("slot", WHITE))
K, T = ROBOT_CAMERA.matrix, ROBOT_CAMERA.T_world_camera
CLASSES = ("block", "slot", "effector")


@pytest.fixture(scope="module")
def varied() -> list[Look]:
    """Pictures in colours of which the models know nothing."""
    return looks(12, 1.0)


@pytest.fixture(scope="module")
def plain() -> list[Look]:
    """Pictures in the environment's own colours."""
    return looks(8, 0.0)


def errors(look: Look, labels: InstanceLabels | None, **changes: Any) -> dict[str, Any]:
    """Millimetres and degrees of what was found, by model."""
    found = estimate(*look.picture, MODELS, labels=labels, **changes)
    return {model.name: error(found[model.name], getattr(look, model.name), model.period)
            for model in MODELS}  # fmt: skip


def error(found: Pose2D | None, true: Pose2D, period: float) -> tuple[float, float] | None:
    if found is None:
        return None
    turn = math.degrees(abs(wrap(found.yaw - true.yaw, period)))
    return 1e3 * math.hypot(found.x - true.x, found.y - true.y), turn


def assert_right(found: dict[str, Any], millimetres: float = 0.5, degrees: float = 0.8) -> None:
    for name, pair in found.items():
        assert pair is not None, f"{name} was not found"
        assert pair[0] < millimetres, name
        assert pair[1] < degrees, name


def assert_not_wild(found: dict[str, Any]) -> None:
    """Nothing, or the object itself."""
    assert_right({name: pair for name, pair in found.items() if pair is not None})


# Labels.


@pytest.mark.parametrize(
    ("ids", "classes", "message"),
    [
        (np.zeros((4, 4)), ("block",), "integers"),
        (np.zeros((4, 4, 1), int), ("block",), r"\(H, W\)"),
        (np.zeros((0, 4), int), ("block",), "pixels"),
        (np.full((4, 4), 2), ("block",), "0 to 1, the number of classes, got 2 to 2"),
        (np.full((4, 4), -1), ("block",), "got -1 to -1"),
        (np.zeros((4, 4), int), "block", "a name for each"),
        (np.zeros((4, 4), int), (1,), "a name for each"),
        (np.zeros((4, 4), int), None, "a name for each"),
    ],
)
def test_labels_that_are_none_are_refused(ids: Any, classes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InstanceLabels(ids, classes)


def test_instances_of_a_class_are_found_by_its_name() -> None:
    labels = InstanceLabels(np.zeros((2, 3), np.uint16), ("slot", "block", "slot"))
    assert labels.of_class("slot") == (1, 3)
    assert labels.of_class("block") == (2,)
    assert labels.of_class("duck") == ()


def test_labels_of_another_size_are_refused(plain: list[Look]) -> None:
    labels = InstanceLabels(np.zeros((240, 320), np.uint8), ())
    with pytest.raises(ValueError, match=r"labels must be \(480, 640\) .*got \(240, 320\)"):
        estimate(*plain[0].picture, MODELS, labels=labels)


# Accuracy.


def test_colours_that_no_model_has_are_found_by_labels_and_not_without(varied: list[Look]) -> None:
    unseen = 0
    for look in varied:
        if look is varied[7]:
            continue  # see the test below
        assert_right(errors(look, InstanceLabels(look.ids, CLASSES)))
        without = errors(look, None)
        assert_not_wild(without)
        unseen += sum(pair is None for pair in without.values())
    assert unseen > len(varied)


def test_a_block_in_a_slot_of_its_own_hue_costs_a_millimetre(varied: list[Look]) -> None:
    # The walls beside it look like its own side, whose points lie on the outline.
    found = errors(varied[7], InstanceLabels(varied[7].ids, CLASSES))
    assert_right(found, millimetres=1.5)


def test_labels_find_what_colours_find_where_both_do(plain: list[Look]) -> None:
    for look in plain:
        by_labels = errors(look, InstanceLabels(look.ids, CLASSES))
        assert_right(by_labels)
        by_colors = errors(look, None)
        for name, pair in by_labels.items():
            assert pair == pytest.approx(by_colors[name], abs=0.02)


def spoilt(ids: Any, how: str, n: int) -> Any:
    if how == "resized":
        return resized(ids, n)
    if how == "shifted":
        return np.roll(ids, (n, -n), (0, 1))
    near = grown(ids == (BLOCK if how == "leaking" else EFFECTOR), n)
    taken = ids.copy()
    taken[near & (ids == EFFECTOR) if how == "leaking" else near] = (
        BLOCK if how == "leaking" else EFFECTOR
    )
    return taken


@pytest.mark.parametrize(
    ("how", "n"),
    [
        *(("resized", n) for n in (-3, -2, -1, 1, 2, 3)),
        *(("shifted", n) for n in (-2, 2, 4)),
        ("leaking", 8),
        ("hidden", 3),
    ],
)
def test_sloppy_masks_cost_nothing(varied: list[Look], plain: list[Look], how: str, n: int) -> None:
    for look in (*varied[:6], *plain[:3]):
        exact = errors(look, InstanceLabels(look.ids, CLASSES))
        found = errors(look, InstanceLabels(spoilt(look.ids, how, n), CLASSES))
        for name, pair in exact.items():
            assert found[name] == pytest.approx(pair, abs=0.1)


@pytest.mark.parametrize("angle", np.arange(0.0, 2 * math.pi, math.pi / 4).tolist())
def test_the_effector_beside_a_block_moves_nothing(angle: float) -> None:
    env = BlockPushEnv()
    env.reset(seed=0)
    scene, true = env.scene, Pose2D(0.3, -0.3, angle)
    scene.place(scene.blocks[0], (true.x, true.y), angle, BLOCK_HALF[2])
    beside = true.x + 0.034 * math.cos(angle), true.y + 0.034 * math.sin(angle)
    scene.effector.home(np.array([*beside, 0.004]))
    labels = labels_of(env)
    picture = (*rgbd(scene.client, ROBOT_CAMERA), K, T)
    block = labels.ids == 1
    for mask in (block, block | grown(block, 8) & (labels.ids == 2), labels.ids > 0):
        found = estimate(*picture, ONE_BLOCK, labels=only(mask, "block"))["block"]
        pair = error(found, true, math.pi / 2)
        assert pair is not None
        assert pair[0] < 0.5
        assert pair[1] < 0.5
    env.close()


def test_a_millimetre_of_noise_on_the_depth_is_averaged_out(varied: list[Look]) -> None:
    rng = np.random.default_rng(0)
    for look in varied[:5]:
        noise = rng.normal(0.0, 0.001, look.depth.shape).astype(np.float32)
        noisy = replace(look, depth=look.depth + noise)
        assert_right(errors(noisy, InstanceLabels(look.ids, CLASSES)))


def test_dark_objects_are_found() -> None:
    env = BlockInsertionEnv()
    env.reset(seed=0)
    env.scene.client.changeVisualShape(env.scene.blocks[0], -1, rgbaColor=(0.02, 0.05, 0.10, 1.0))
    rgb, depth = rgbd(env.scene.client, ROBOT_CAMERA)
    found = estimate(rgb, depth, K, T, INSERTION, labels=labels_of(env))["block"]
    pair = error(found, Pose2D(*env.scene.block_poses()[0].tolist()), math.pi / 2)
    assert pair is not None
    assert pair[0] < 0.3
    assert estimate(rgb, depth, K, T, INSERTION)["block"] is None
    env.close()


# Wrong labels.


def test_nothing_labelled_is_nothing_found(plain: list[Look]) -> None:
    nothing = InstanceLabels(np.zeros((480, 640), np.uint8), ())
    assert set(errors(plain[0], nothing).values()) == {None}
    unseen = InstanceLabels(np.zeros((480, 640), np.uint8), CLASSES)
    assert set(errors(plain[0], unseen).values()) == {None}


@pytest.mark.parametrize("wrong", [SLOT, EFFECTOR, 0])
def test_what_is_called_a_block_and_is_none_is_not_measured(
    plain: list[Look], varied: list[Look], wrong: int
) -> None:
    for look in (*plain, *varied[:6]):
        assert_not_wild(errors(look, only(look.ids == wrong, "block")))
        assert errors(look, only(look.ids == wrong, "duck")) == {"block": None, "slot": None}


@pytest.mark.parametrize("wrong", [BLOCK, EFFECTOR, 0])
def test_what_is_called_a_slot_and_is_none_is_not_measured(
    plain: list[Look], varied: list[Look], wrong: int
) -> None:
    for look in (*plain, *varied[:6]):
        assert_not_wild(errors(look, only(look.ids == wrong, "slot")))


def test_of_several_things_called_a_block_the_block_is_taken(plain: list[Look]) -> None:
    for look in plain:
        ids = look.ids.copy()
        ids[(ids == 0) & (np.indices(ids.shape)[1] < 320)] = 4  # half of the table
        found = errors(look, InstanceLabels(ids, ("block", "slot", "block", "block")))
        assert_right(found)


def test_an_instance_in_two_pieces_is_one_object(plain: list[Look]) -> None:
    columns = np.indices((480, 640))[1]
    for look in plain:
        ids = look.ids.copy()
        for k, piece in ((BLOCK, 4), (SLOT, 5)):
            ids[(look.ids == k) & (columns > np.nonzero(look.ids == k)[1].mean())] = piece
        labels = InstanceLabels(ids, (*CLASSES, "block", "slot"))
        assert_right(errors(look, labels))
        found = estimate(*look.picture, INSERTION, labels=labels)
        assert found["slot1"] == found["slot2"]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 7), st.integers(0, 479), st.integers(0, 639), st.integers(1, 200), st.booleans()
)
def test_a_pose_is_right_or_there_is_none_whatever_is_labelled(
    plain: list[Look], k: int, top: int, left: int, size: int, swapped: bool
) -> None:
    ids = np.zeros((480, 640), np.uint8)
    ids[top : top + size, left : left + size] = 1
    assert_not_wild(errors(plain[k], InstanceLabels(ids, ("slot" if swapped else "block",))))


# Several of one class.


def multimodal(paints: Sequence[tuple[float, ...]], apart: float) -> tuple[Any, list[Pose2D]]:
    """Two painted blocks in a row along their own x, `apart` metres from middle to middle."""
    env = BlockPushMultimodalEnv()
    env.reset(seed=0)
    poses = [Pose2D(0.40, -0.2, 0.3),
             Pose2D(0.40 + apart * math.cos(0.3), -0.2 + apart * math.sin(0.3), 0.3)]  # fmt: skip
    for body, pose, paint in zip(env.scene.blocks, poses, paints, strict=True):
        env.scene.place(body, (pose.x, pose.y), pose.yaw, BLOCK_HALF[2])
        env.scene.client.changeVisualShape(body, -1, rgbaColor=(*paint, 1.0))
    return env, poses


def test_each_model_takes_the_block_that_comes_nearest_to_its_colour() -> None:
    orange, blue = (0.9, 0.5, 0.1), (0.1, 0.3, 0.7)
    env, (first, second) = multimodal((blue, orange), 0.15)
    rgb, depth = rgbd(env.scene.client, ROBOT_CAMERA)
    labels = labels_of(env)
    found = estimate(rgb, depth, K, T, TWO_BLOCKS, labels=labels)
    for name, true in (("block1", second), ("block2", first)):  # red: orange; green: blue
        pair = error(found[name], true, math.pi / 2)
        assert pair is not None
        assert pair[0] < 0.3
    assert found["zone1"] is not None  # paint has no class: its colour finds it
    alone = InstanceLabels(np.where(labels.ids == 1, 1, 0), ("block",))
    found = estimate(rgb, depth, K, T, TWO_BLOCKS, labels=alone)
    assert (found["block1"] is None, found["block2"] is None) == (True, False)
    env.close()


@pytest.mark.parametrize("apart", [0.04, 0.05, 0.07, 0.12])
def test_two_blocks_alike_are_never_mixed_up_into_one(apart: float) -> None:
    env, poses = multimodal(((0.2, 0.4, 0.8),) * 2, apart)
    rgb, depth = rgbd(env.scene.client, ROBOT_CAMERA)
    found = estimate(rgb, depth, K, T, TWO_BLOCKS, labels=labels_of(env))
    both = [pose for name, pose in found.items() if name.startswith("block") and pose is not None]
    nearest = [min(error(pose, true, math.pi / 2) or (9.0,) for true in poses) for pose in both]
    assert all(pair[0] < 0.5 for pair in nearest)
    if apart > 0.1:
        assert len(both) == 2
    env.close()


def test_two_slots_are_told_apart_by_their_heading() -> None:
    env = BlockInsertionEnv(slots=2)
    env.reset(seed=0)
    for body in env.scene.fixtures:
        env.scene.client.changeVisualShape(body, -1, rgbaColor=(0.1, 0.5, 0.2, 1.0))
    rgb, depth = rgbd(env.scene.client, ROBOT_CAMERA)
    found = estimate(rgb, depth, K, T, INSERTION, labels=labels_of(env))
    for k in (0, 1):
        pair = error(found[f"slot{k + 1}"], Pose2D(*env.slot_poses[k].tolist()), 2 * math.pi)
        assert pair is not None
        assert pair[0] < 0.3
    env.close()


# From picture to picture, and the parts.


def test_a_scene_is_followed_by_labels(varied: list[Look]) -> None:
    look = varied[0]
    scene = SceneEstimator(MODELS)
    labels = InstanceLabels(look.ids, CLASSES)
    nothing = InstanceLabels(np.zeros_like(look.ids), ())
    first = scene.update(*look.picture, 0.0, labels)
    later = scene.update(*look.picture, 0.4, nothing)
    gone = scene.update(*look.picture, 1.4, nothing)
    assert first["block"] is not None
    assert later["block"] is not None
    assert (first["block"].age, later["block"].age) == (0.0, 0.4)
    assert later["block"].pose == first["block"].pose
    assert gone["block"] is None
    assert gone["slot"] == first["slot"] is not None


def test_a_point_is_covered_where_the_walls_are() -> None:
    slot = SlotModel("slot", WHITE)  # walls 12 mm thick round a pocket 42 mm wide and 45 mm deep
    body = [(0.05, 0.0), (0.02, 0.03), (0.02, -0.03), (0.02, 0.0), (0.06, 0.0), (-0.01, 0.0),
            (0.02, 0.035), (0.0005, 0.0215), (math.nan, 0.0)]  # fmt: skip
    pose = Pose2D(0.4, -0.1, 2.0)
    cos, sin = math.cos(pose.yaw), math.sin(pose.yaw)
    xy = np.array([(pose.x + cos * x - sin * y, pose.y + sin * x + cos * y) for x, y in body])
    assert covers(pose, slot, xy).tolist() == [True, True, True] + [False] * 6


def test_a_square_covers_as_much_as_it_is_large() -> None:
    side = np.linspace(0.3, 0.5, 401)
    xy = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    block = BlockModel("block", RED)
    share = covers(Pose2D(0.4, 0.41, 0.5), block, xy).mean()
    assert share * (0.2 * 401 / 400) ** 2 == pytest.approx(0.04**2, rel=0.01)
