"""Poses from pictures: the camera is metric, and what it shows is found where it stands."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decisive.perceived import models_of
from envs import register_envs
from envs.tabletop import camera, insertion
from envs.tabletop.base import TabletopEnv
from envs.tabletop.insertion import BlockInsertionEnv
from envs.tabletop.push import BLOCK, HALF
from envs.tabletop.scene import COLORS, WORKSPACE_HIGH, WORKSPACE_LOW
from robots import pose_estimation
from robots.pose_estimation import (
    DEFAULT,
    FACING,
    INSERTION,
    MODELS,
    ONE_BLOCK,
    TWO_BLOCKS,
    BlockModel,
    EstimationConfig,
    Model,
    Pose2D,
    SceneEstimator,
    SlotModel,
    ZoneModel,
    estimate,
    project,
    unproject,
    wrap,
)

CAMERA = camera.ROBOT_CAMERA
K, T = CAMERA.matrix, CAMERA.T_world_camera
CASES = (
    ("decisive/BlockInsertion-v0", {"slots": 1}),
    ("decisive/BlockInsertion-v0", {"slots": 2}),
    ("decisive/BlockPush-v0", {}),
    ("decisive/BlockPushMultimodal-v0", {}),
)


@pytest.fixture(scope="module")
def made() -> Iterator[Any]:
    """Environments by id and options, built once for the module."""
    register_envs()
    built: dict[tuple[Any, ...], gymnasium.Env[Any, Any]] = {}

    def make(env_id: str, **options: Any) -> Any:
        key = (env_id, *sorted(options.items()))
        if key not in built:
            built[key] = gymnasium.make(env_id, disable_env_checker=True, **options)
        return built[key].unwrapped

    yield make
    for env in built.values():
        env.close()


def picture(env: TabletopEnv, light: Sequence[float] = camera.LIGHT) -> tuple[Any, Any]:
    return camera.rgbd(env.scene.client, CAMERA, light)


def look(env: TabletopEnv, models: Sequence[Model]) -> dict[str, Pose2D | None]:
    return estimate(*picture(env), K, T, models)


def true_poses(env: Any) -> dict[str, Pose2D]:
    """Where everything stands, by the names of the models."""
    blocks = [Pose2D(*row) for row in env.scene.block_poses().tolist()]
    if isinstance(env, BlockInsertionEnv):
        slots = (env.slot_poses[0], env.slot_poses[-1])
        return {"block": blocks[0]} | {f"slot{i + 1}": Pose2D(*s) for i, s in enumerate(slots)}
    zones = [Pose2D(x, y, 0.0) for x, y in env.zones.tolist()]
    if len(blocks) == 1:
        return {"block": blocks[0], "zone": zones[0]}
    return {f"block{i + 1}": pose for i, pose in enumerate(blocks)} | {
        f"zone{i + 1}": pose for i, pose in enumerate(zones)
    }


def error(found: Pose2D | None, true: Pose2D, model: Model) -> tuple[float, float]:
    """Millimetres and degrees."""
    assert found is not None, f"{model.name} was not found"
    turn = math.degrees(abs(wrap(found.yaw - true.yaw, model.period)))
    return 1e3 * math.hypot(found.x - true.x, found.y - true.y), turn


# The camera.


def test_the_table_lies_at_height_zero_and_the_blocks_top_at_30_mm(made: Any) -> None:
    env = made("decisive/BlockInsertion-v0")
    env.reset(seed=0)
    _, depth = picture(env)
    assert depth.dtype == np.float32
    z = unproject(depth, K, T)[..., 2]
    table = z[np.abs(z) < 0.001]
    assert table.size > 0.9 * z.size
    assert np.quantile(np.abs(table), 0.999) < 1e-5  # the rest are feet of walls
    top = z[np.abs(z - 0.03) < 0.001]
    assert top.size > 400
    assert abs(np.median(top) - 0.03) < 1e-5


def test_beside_the_table_there_is_no_depth(made: Any) -> None:
    env = made("decisive/BlockPush-v0")
    env.reset(seed=0)
    rgb, depth = picture(env)
    beside = (rgb == camera.BACKGROUND).all(axis=-1)
    assert beside.any()
    np.testing.assert_array_equal(np.isnan(depth), beside)


@pytest.mark.parametrize("seed", range(3))
def test_a_pixel_shows_what_its_centre_sees(made: Any, seed: int) -> None:
    # Half a pixel of bias would put some 50 pixels of the block's border on the wrong side.
    env = made("decisive/BlockInsertion-v0", slots=2)
    env.reset(seed=seed)
    rgb, depth = picture(env)
    points = unproject(depth, K, T)
    shown = (np.abs(points[..., 2] - 0.03) < 1e-4) & (rgb[..., 0] > 2 * rgb[..., 2])
    pose = true_poses(env)["block"]
    eye = T[:3, 3]
    at_top = eye + (points - eye) * ((0.03 - eye[2]) / (points[..., 2:] - eye[2]))
    x, y = at_top[..., 0] - pose.x, at_top[..., 1] - pose.y
    cos, sin = math.cos(pose.yaw), math.sin(pose.yaw)
    inside = np.maximum(np.abs(cos * x + sin * y), np.abs(cos * y - sin * x)) < HALF
    assert (shown != inside).sum() <= 2


def test_the_corners_of_a_block_are_where_they_are_projected(made: Any) -> None:
    env = made("decisive/BlockPush-v0")
    env.reset(seed=0)
    env.scene.place(env.scene.blocks[0], (0.35, -0.2), math.pi / 4, BLOCK[2])
    rgb, depth = picture(env)
    top = (rgb[..., 0] > 2 * rgb[..., 2]) & (unproject(depth, K, T)[..., 2] > 0.029)
    rows, columns = np.nonzero(top)
    reach = HALF * math.sqrt(2)
    left, right = project(np.array([[0.35, -0.2 - reach, 0.03], [0.35, -0.2 + reach, 0.03]]), K, T)
    assert columns.min() == pytest.approx(left[0], abs=1)
    assert columns.max() == pytest.approx(right[0], abs=1)
    far, near = project(np.array([[0.35 - reach, -0.2, 0.03], [0.35 + reach, -0.2, 0.03]]), K, T)
    assert rows.min() == pytest.approx(far[1], abs=1)
    assert rows.max() == pytest.approx(near[1], abs=1)


def test_a_shifted_principal_point_shifts_the_picture(made: Any) -> None:
    env = made("decisive/BlockInsertion-v0", slots=2)
    env.reset(seed=0)
    rgb, depth = picture(env)
    shifted = dataclasses.replace(CAMERA, cx=CAMERA.cx + 7, cy=CAMERA.cy - 5)
    rgb2, depth2 = camera.rgbd(env.scene.client, shifted)
    same = (rgb[5:, :-7] == rgb2[:-5, 7:]).all(axis=-1)
    assert same.mean() > 0.9999  # rounding may turn single pixels of a border
    np.testing.assert_allclose(depth[5:, :-7][same], depth2[:-5, 7:][same], atol=1e-5)


def test_the_robots_camera_sees_the_workspace() -> None:
    (x0, y0), (x1, y1) = WORKSPACE_LOW, WORKSPACE_HIGH
    corners = np.array([(x, y, z) for x in (x0, x1) for y in (y0, y1) for z in (0.0, 0.03)])
    pixels = project(corners, K, T)
    assert (pixels > 5).all()
    assert (pixels < (CAMERA.width - 6, CAMERA.height - 6)).all()
    assert CAMERA.fx == CAMERA.fy


def test_look_at_puts_the_target_in_the_middle_upright() -> None:
    view = camera.PinholeCamera.look_at((1.0, 0.5, 2.0), (0.3, 0.1, 0.0), (100, 200), 40.0)
    pixels = project(np.array([[0.3, 0.1, 0.0], [0.3, 0.1, 0.1]]), view.matrix, view.T_world_camera)
    np.testing.assert_allclose(pixels[0], (99.5, 49.5))
    assert pixels[1, 0] == pytest.approx(99.5)
    assert pixels[1, 1] < 49.5  # higher in the world is higher in the picture
    rotation = view.T_world_camera[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)


def test_the_vertical_field_of_view_spans_the_rows() -> None:
    view = camera.PinholeCamera.look_at((1.0, 0.0, 1.0), (0.0, 0.0, 0.0), (100, 200), 40.0)
    assert 2 * math.degrees(math.atan(50 / view.fy)) == pytest.approx(40.0)


@pytest.mark.parametrize(
    "change", [{"height": 0}, {"fx": 0.0}, {"fy": -1.0}, {"T_world_camera": np.eye(3)}]
)
def test_impossible_cameras_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|needs"):
        dataclasses.replace(CAMERA, **change)


@pytest.mark.parametrize(
    ("eye", "angle"), [((0.0, 0.0, 1.0), 40.0), ((1.0, 0.0, 1.0), 0.0), ((1.0, 0.0, 1.0), 180.0)]
)
def test_look_at_refuses_straight_down_and_impossible_angles(
    eye: tuple[float, float, float], angle: float
) -> None:
    with pytest.raises(ValueError, match=r"differ|field_of_view"):
        camera.PinholeCamera.look_at(eye, (0.0, 0.0, 0.0), (100, 200), angle)


# Projection.


@given(
    st.floats(-1, 1), st.floats(-1, 1), st.floats(0.5, 2), st.integers(0, 63), st.integers(0, 47)
)
def test_what_a_pixel_sees_appears_at_that_pixel(
    x: float, y: float, distance: float, column: int, row: int
) -> None:
    view = camera.PinholeCamera.look_at((x, y, 1.5), (x + 0.3, y - 0.2, 0.0), (48, 64), 50.0)
    depth = np.full((48, 64), distance)
    points = unproject(depth, view.matrix, view.T_world_camera)
    pixel = project(points[row, column], view.matrix, view.T_world_camera)
    np.testing.assert_allclose(pixel, (column, row), atol=1e-9)
    along_axis = (points[row, column] - view.T_world_camera[:3, 3]) @ view.T_world_camera[:3, 2]
    assert along_axis == pytest.approx(distance)  # REP-118: depth is no distance from the eye


def test_points_behind_the_camera_appear_nowhere() -> None:
    assert np.isnan(project(T[:3, 3] + np.array([0.0, 0.0, 1.0]), K, T)).all()


@given(st.floats(-50, 50), st.sampled_from([math.pi / 2, 2 * math.pi]))
def test_wrapping_keeps_an_angle_up_to_whole_periods(angle: float, period: float) -> None:
    wrapped = wrap(angle, period)
    assert -period / 2 <= wrapped <= period / 2
    turns = (angle - wrapped) / period
    assert turns == pytest.approx(round(turns), abs=1e-9)


# Accuracy.


@pytest.mark.parametrize(("env_id", "options"), CASES)
def test_everything_is_found_where_it_stands(
    made: Any, env_id: str, options: dict[str, Any]
) -> None:
    env = made(env_id, **options)
    rng = np.random.default_rng(0)
    rows: dict[str, list[tuple[float, float]]] = {model.name: [] for model in MODELS[env_id]}
    for seed in range(6):
        env.reset(seed=seed)
        light = (*rng.uniform((-0.4, -0.6), (1.6, 1.4)), 1.6)
        found = estimate(*picture(env, light), K, T, MODELS[env_id])
        true = true_poses(env)
        for model in MODELS[env_id]:
            rows[model.name].append(error(found[model.name], true[model.name], model))
    for model in MODELS[env_id]:
        millimetres, degrees = np.array(rows[model.name]).T
        # A zone's sides lie along the pixels, and it has no sides that the camera could see.
        limit = 1.5 if isinstance(model, ZoneModel) else 0.3
        assert millimetres.max() < limit
        assert degrees.max() < (2.0 if isinstance(model, ZoneModel) else 0.5)


@pytest.mark.parametrize("slots", [1, 2])
def test_a_block_is_followed_into_the_slot(made: Any, slots: int) -> None:
    env = made("decisive/BlockInsertion-v0", slots=slots)
    obs, info = env.reset(seed=3)
    expert = env.expert(seed=3)
    over, step, half_inside = False, 0, 0
    while not over:
        obs, _, terminated, truncated, info = env.step(expert.act(obs, info))
        over, step = terminated or truncated, step + 1
        if step % 5 == 0 or (info["score"] > 0 and step % 2 == 0):
            half_inside += info["score"] > 0
            found, true = look(env, INSERTION), true_poses(env)
            for model in INSERTION:
                millimetres, degrees = error(found[model.name], true[model.name], model)
                assert millimetres < 0.8
                assert degrees < 0.8
    assert half_inside >= 1


@pytest.mark.parametrize("clearance", [0.5, 2.5])
def test_a_slot_of_other_measures_is_described_by_its_model(made: Any, clearance: float) -> None:
    env = made("decisive/BlockInsertion-v0", clearance=clearance)
    env.reset(seed=1)
    models = models_of(env, "decisive/BlockInsertion-v0")
    found = look(env, models)
    assert error(found["slot1"], true_poses(env)["slot1"], models[1])[0] < 0.3


@pytest.mark.parametrize("angle", np.arange(0.0, 2 * math.pi, math.pi / 4).tolist())
def test_the_effector_beside_a_block_moves_nothing(made: Any, angle: float) -> None:
    env = made("decisive/BlockPush-v0")
    env.reset(seed=0)
    xy = np.array([0.3, -0.3])
    env.scene.place(env.scene.blocks[0], xy, angle, BLOCK[2])
    beside = xy + 0.034 * np.array([math.cos(angle), math.sin(angle)])
    env.scene.effector.home(np.array([*beside, 0.004]))
    found = look(env, ONE_BLOCK)["block"]
    millimetres, degrees = error(found, Pose2D(*xy, angle), ONE_BLOCK[0])
    assert millimetres < 0.5
    assert degrees < 0.5


def test_blocks_that_touch_are_told_apart(made: Any) -> None:
    env = made("decisive/BlockPushMultimodal-v0")
    env.reset(seed=0)
    true = (
        Pose2D(0.4, -0.2, 0.3),
        Pose2D(0.4 + 0.04 * math.cos(0.3), -0.2 + 0.04 * math.sin(0.3), 0.3),
    )
    for body, pose in zip(env.scene.blocks, true, strict=True):
        env.scene.place(body, (pose.x, pose.y), pose.yaw, BLOCK[2])
    found = look(env, TWO_BLOCKS)
    for model, pose in zip(TWO_BLOCKS, true, strict=False):
        assert error(found[model.name], pose, model)[0] < 0.3


def hidden(depth: Any, block: Pose2D, part: float, angle: float) -> Any:
    """Depth with something 10 cm high over a part of the block, from the side opposite `angle`."""
    offset = unproject(depth, K, T)[..., :2] - (block.x, block.y)
    near = np.abs(offset).max(axis=-1) < 0.045
    over = near & (offset @ (math.cos(angle), math.sin(angle)) < 0.06 * part - 0.03)
    return np.where(over, depth - 0.1, depth).astype(np.float32)


@pytest.mark.parametrize("angle", np.arange(0.2, 6.2, 1.0).tolist())
def test_a_half_hidden_block_is_measured_and_a_hidden_one_not_guessed(
    made: Any, angle: float
) -> None:
    env = made("decisive/BlockPush-v0")
    env.reset(seed=0)
    rgb, depth = picture(env)
    true = true_poses(env)["block"]

    def found(part: float) -> Pose2D | None:
        return estimate(rgb, hidden(depth, true, part, angle), K, T, ONE_BLOCK)["block"]

    millimetres, degrees = error(found(0.5), true, ONE_BLOCK[0])
    assert millimetres < 0.5
    assert degrees < 1.0
    for part in (0.7, 0.75, 0.8, 0.85):
        pose = found(part)
        assert pose is None or error(pose, true, ONE_BLOCK[0])[0] < 1.0
    assert found(0.95) is None
    assert found(1.6) is None


@pytest.mark.parametrize(
    "tint", [(1.0, 1.0, 1.0), (0.5, 0.5, 0.5), (1.0, 0.85, 0.7), (0.7, 0.8, 1.0)]
)
def test_dim_and_tinted_light_change_nothing(made: Any, tint: tuple[float, ...]) -> None:
    env = made("decisive/BlockPushMultimodal-v0")
    env.reset(seed=2)
    rgb, depth = picture(env)
    found = estimate((rgb * np.array(tint)).astype(np.uint8), depth, K, T, TWO_BLOCKS)
    true = true_poses(env)
    for model in TWO_BLOCKS:
        limit = 1.5 if isinstance(model, ZoneModel) else 0.3
        assert error(found[model.name], true[model.name], model)[0] < limit


def test_a_millimetre_of_noise_on_the_depth_is_averaged_out(made: Any) -> None:
    env = made("decisive/BlockInsertion-v0", slots=2)
    env.reset(seed=0)
    rgb, depth = picture(env)
    noise = np.random.default_rng(0).normal(0.0, 0.001, depth.shape).astype(np.float32)
    found, true = estimate(rgb, depth + noise, K, T, INSERTION), true_poses(env)
    for model in INSERTION:
        assert error(found[model.name], true[model.name], model)[0] < 0.3


def relative(first: Pose2D, second: Pose2D) -> tuple[float, float, float]:
    """The second pose in the frame of the first."""
    dx, dy = second.x - first.x, second.y - first.y
    cos, sin = math.cos(first.yaw), math.sin(first.yaw)
    yaw = (second.yaw - first.yaw) % (2 * math.pi)
    return cos * dx + sin * dy, cos * dy - sin * dx, yaw


def test_the_simulators_two_slots_are_arranged_as_the_model_says(made: Any) -> None:
    env = made("decisive/BlockInsertion-v0", slots=2)
    for seed in range(5):
        env.reset(seed=seed)
        true = true_poses(env)
        offset = relative(true["slot1"], true["slot2"])
        assert offset == pytest.approx(dataclasses.astuple(FACING), abs=1e-9)


def test_slots_of_one_piece_are_reported_in_their_exact_arrangement(made: Any) -> None:
    env = made("decisive/BlockInsertion-v0", slots=2)
    env.reset(seed=0)
    rgb, depth = picture(env)
    rng = np.random.default_rng(0)
    scene = SceneEstimator(INSERTION)
    for i in range(3):
        noisy = depth + rng.normal(0.0, 0.001, depth.shape).astype(np.float32)
        sightings = scene.update(rgb, noisy, K, T, 0.1 * i)
        assert sightings["slot1"] is not None
        assert sightings["slot2"] is not None
        offset = relative(sightings["slot1"].pose, sightings["slot2"].pose)
        assert offset == pytest.approx(dataclasses.astuple(FACING), abs=1e-9)
        for name in ("slot1", "slot2"):
            sighting = sightings[name]
            assert sighting is not None
            assert error(sighting.pose, true_poses(env)[name], INSERTION[1])[1] < 0.05


@pytest.mark.parametrize("shift", [(0.01, 0.0, 0.0), (0.0, 0.03, 0.0), (0.0, 0.0, 0.1)])
def test_slots_in_another_arrangement_are_left_as_found(
    made: Any, shift: tuple[float, float, float]
) -> None:
    env = made("decisive/BlockInsertion-v0", slots=2)
    env.reset(seed=0)
    x, y, yaw = env.slot_poses[1] + shift
    env.scene.place(env._slot_bodies[1], (x, y), yaw)
    found = look(env, INSERTION)
    assert error(found["slot1"], Pose2D(*env.slot_poses[0]), INSERTION[1])[0] < 0.3
    assert error(found["slot2"], Pose2D(x, y, yaw), INSERTION[2])[0] < 0.3
    assert error(found["slot2"], Pose2D(x, y, yaw), INSERTION[2])[1] < 0.5


# What is not there, and what is no picture.


def test_what_is_not_on_the_table_has_no_pose(made: Any) -> None:
    env = made("decisive/BlockPush-v0")
    env.reset(seed=0)
    found = look(env, (*TWO_BLOCKS, *INSERTION[1:]))
    assert [name for name, pose in found.items() if pose is not None] == ["block1", "zone1"]


def test_a_single_slot_stands_for_both(made: Any) -> None:
    env = made("decisive/BlockInsertion-v0", slots=1)
    env.reset(seed=0)
    found = look(env, INSERTION)
    assert found["slot1"] is not None
    assert found["slot1"] == found["slot2"]


@pytest.mark.parametrize("value", [math.nan, 0.0, math.inf, -math.inf, 1.2])
def test_depth_without_a_scene_shows_nothing(value: float) -> None:
    rgb = np.full((480, 640, 3), 200, np.uint8)
    depth = np.full((480, 640), value, np.float32)
    found = estimate(rgb, depth, K, T, (*TWO_BLOCKS, *INSERTION))
    assert set(found.values()) == {None}


def test_random_pictures_show_nothing_and_do_no_harm() -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)
    matrix = np.array([[160.0, 0, 80], [0, 160, 60], [0, 0, 1]])
    depth = rng.uniform(1.1, 1.4, (120, 160)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.2] = np.nan
    assert set(estimate(rgb, depth, matrix, T, (*TWO_BLOCKS, *INSERTION)).values()) == {None}


RGB, DEPTH = np.zeros((48, 64, 3), np.uint8), np.ones((48, 64), np.float32)


@pytest.mark.parametrize(
    ("rgb", "depth", "intrinsics", "pose", "message"),
    [
        (RGB[..., 0], DEPTH, K, T, "rgb must be"),
        (RGB.astype(np.float32), DEPTH, K, T, "rgb must be"),
        (RGB, DEPTH[:-1], K, T, "depth must be"),
        (RGB, DEPTH.astype(np.uint16), K, T, "divide 16UC1"),
        (RGB, DEPTH, K[:2], T, "intrinsics must be"),
        (RGB, DEPTH, np.zeros((3, 3)), T, "intrinsics must be"),
        (RGB, DEPTH, K, T[:3], "T_world_camera must be"),
        (RGB, DEPTH, K, np.full((4, 4), np.nan), "T_world_camera must be"),
    ],
)
def test_malformed_pictures_are_refused(
    rgb: Any, depth: Any, intrinsics: Any, pose: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        estimate(rgb, depth, intrinsics, pose, ONE_BLOCK)


def test_projection_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match="depth must be"):
        unproject(np.zeros(5), K, T)
    with pytest.raises(ValueError, match="points must be"):
        project(np.zeros((5, 2)), K, T)


@pytest.mark.parametrize(
    "change", [{"workspace_low": (0.8, 0.0)}, {"stride": 0}, {"fixture_frames": 0}]
)
def test_settings_that_find_nothing_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        dataclasses.replace(DEFAULT, **change)


# Models.


def test_the_models_measure_what_the_simulator_builds() -> None:
    for color, name in (
        ("RED", "red"),
        ("GREEN", "green"),
        ("WHITE", "fixture"),
        ("TABLE", "table"),
    ):
        assert getattr(pose_estimation, color) == COLORS[name][:3]
    for color, name in (("PALE_BLUE", "blue"), ("PALE_YELLOW", "yellow")):
        mixed = 0.45 * np.array(COLORS[name]) + 0.55 * np.array(COLORS["table"])
        np.testing.assert_allclose(getattr(pose_estimation, color), mixed[:3], atol=1e-9)
    slot = SlotModel("slot", pose_estimation.WHITE)
    assert (slot.depth, slot.wall) == (insertion.DEPTH, insertion.WALL)
    assert (slot.chamfer, slot.height) == (insertion.CHAMFER, insertion.WALL_HEIGHT)
    assert slot.half_mouth == pytest.approx(HALF + 0.001)
    block = BlockModel("block", pose_estimation.RED)
    assert (block.half_xy, block.half_xy, block.height / 2) == BLOCK


@pytest.mark.parametrize("model", [*ONE_BLOCK, INSERTION[1]], ids=lambda model: model.name)
def test_outlines_are_anticlockwise_and_as_large_as_the_face(model: Model) -> None:
    x, y = model.outline.T
    area = float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2
    if isinstance(model, SlotModel):
        expected = 0.066 * 0.057 - 0.042 * 0.045 - 0.002**2
    else:
        expected = (2 * model.half_xy) ** 2
    assert area == pytest.approx(expected)


@pytest.mark.parametrize("env_id", sorted(MODELS))
def test_the_models_name_the_fields_of_the_state(made: Any, env_id: str) -> None:
    env = made(env_id)
    things = {field.name.rpartition("_")[0] for field in env.state_fields[2:]}
    assert things == {model.name for model in MODELS[env_id]}


# From picture to picture.


def test_fixtures_stay_and_a_hidden_block_ages(made: Any) -> None:
    env = made("decisive/BlockInsertion-v0")
    env.reset(seed=0)
    rgb, depth = picture(env)
    nothing = np.full_like(depth, np.nan)
    scene = SceneEstimator(INSERTION, EstimationConfig(hold=0.5))
    first = scene.update(rgb, depth, K, T, 10.0)
    assert all(sighting is not None and sighting.age == 0.0 for sighting in first.values())
    later = scene.update(rgb, nothing, K, T, 10.4)
    assert later["block"] is not None
    assert later["block"].age == pytest.approx(0.4)
    assert first["block"] is not None
    assert later["block"].pose == first["block"].pose
    assert later["slot1"] == first["slot1"]
    gone = scene.update(rgb, nothing, K, T, 11.0)
    assert gone["block"] is None
    assert gone["slot1"] == first["slot1"]
    scene.reset()
    assert set(scene.update(rgb, nothing, K, T, 12.0).values()) == {None}


def test_fixtures_are_the_median_of_the_first_pictures(made: Any) -> None:
    env = made("decisive/BlockInsertion-v0")
    env.reset(seed=0)
    rgb, depth = picture(env)
    scene = SceneEstimator(INSERTION, EstimationConfig(fixture_frames=3))
    rng = np.random.default_rng(0)
    poses = []
    for i in range(5):
        noisy = depth + rng.normal(0.0, 0.001, depth.shape).astype(np.float32)
        single = estimate(rgb, noisy, K, T, INSERTION)["slot1"]
        assert single is not None
        poses.append(single.x)
        sighting = scene.update(rgb, noisy, K, T, 0.1 * i)["slot1"]
        assert sighting is not None
        assert sighting.pose.x == pytest.approx(np.median(poses[: min(i + 1, 3)]), abs=1e-12)
