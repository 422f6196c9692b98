"""Policies that see through a camera: what they are shown, what is counted, what is refused."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_cases import labels_of
from policy_cases import demonstrations, small_config
from segmenter_cases import saved, tiny

from agents import load_policy, make_policy
from decisive import cli
from decisive.episodes import Episode, PolicyActor, run_episode
from decisive.evaluation import EvaluationConfig, compare, evaluate, fingerprint
from decisive.options import make_env
from decisive.perceived import (
    PerceivingActor,
    Pictured,
    field_errors,
    models_of,
    perceived_state,
    perceiving,
)
from decisive.perceived_summary import COLORS, perception_lines, summarize_perception
from envs.fields import Field
from envs.tabletop.camera import ROBOT_CAMERA, rgbd
from envs.tabletop.push import BlockPushEnv
from perception.deep_mac.checkpoint import save_segmenter
from robots.instance_labels import InstanceLabels
from robots.pose_estimation import Pose2D

INSERTION = "decisive/BlockInsertion-v0"
POLICY = "block-insertion-ibc"
SHORT = EvaluationConfig(
    INSERTION, POLICY, episodes=2, seed=4, options={"max_episode_steps": 3}, perceived=COLORS
)
TABLETOP = ("block", "slot", "effector")


def perceive(env: Any, labeller: Any, name: str = POLICY) -> Episode:
    """One episode of a shipped policy, shown what a labeller tells."""
    policy = PolicyActor(load_policy(name))
    actor = PerceivingActor(policy, models_of(env.unwrapped, INSERTION), labeller)
    episode = run_episode(Pictured(env), actor, 0)
    return replace(episode, perception=actor.perception())


def paint_blue(env: Any) -> None:
    scene = env.unwrapped.scene
    scene.client.changeVisualShape(scene.blocks[0], -1, rgbaColor=(0.1, 0.2, 0.8, 1.0))


# States and pictures.


def test_a_perceived_state_holds_nothing_exact_but_the_effector() -> None:
    env = BlockPushEnv()
    state, _ = env.reset(seed=0)
    assert isinstance(state, np.ndarray)
    poses = {"block": Pose2D(1.0, 2.0, 0.1), "zone": Pose2D(3.0, 4.0, 0.0)}
    perceived = perceived_state(state, env.state_fields, poses)
    np.testing.assert_array_equal(perceived[:4], state[:4])
    np.testing.assert_allclose(
        perceived[4:], [1.0, 2.0, math.cos(0.4), math.sin(0.4), 3.0, 4.0], rtol=1e-6
    )
    with pytest.raises(ValueError, match="zone was not seen"):
        perceived_state(state, env.state_fields, {"block": poses["block"]})
    env.close()


def test_errors_of_fields_are_metres_and_radians() -> None:
    fields = (
        Field("effector_xy", 2, "point", "m", ""),
        Field("block_xy", 2, "point", "m", ""),
        Field("block_yaw4", 2, "yaw4", "1", ""),
        Field("slot_heading", 2, "heading", "1", ""),
    )
    turned = [math.cos(0.4), math.sin(0.4)]
    exact = np.array([0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0])
    errors = field_errors(exact, np.array([9.0, 9.0, 3.0, 4.0, *turned, *turned]), fields)
    assert errors == pytest.approx({"block_xy": 5.0, "block_yaw4": 0.1, "slot_heading": 0.4})


def test_a_pictured_environment_shows_what_the_camera_sees_and_is_otherwise_the_same() -> None:
    bare, shown = make_env(INSERTION), Pictured(make_env(INSERTION))
    action = np.array([0.02, 0.01], np.float32)
    for act in (lambda env: env.reset(seed=3), lambda env: env.step(action)):
        first, second = act(bare), act(shown)
        np.testing.assert_array_equal(first[0], second[0])
        rgb, depth = second[-1]["picture"]
        expected = rgbd(shown.unwrapped.scene.client, ROBOT_CAMERA)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(rgb, expected[0])
        np.testing.assert_array_equal(depth, expected[1])
    bare.close()
    shown.close()


def test_noise_on_the_depth_is_as_large_as_said_and_of_the_seed() -> None:
    env = Pictured(make_env(INSERTION), depth_noise=0.002)
    depths = [env.reset(seed=seed)[1]["picture"][1] for seed in (3, 3, 3)]
    clean = rgbd(env.unwrapped.scene.client, ROBOT_CAMERA)[1]  # type: ignore[attr-defined]
    np.testing.assert_array_equal(depths[0], depths[1])
    assert np.nanstd(depths[0] - clean) == pytest.approx(0.002, rel=0.02)
    assert depths[0].dtype == np.float32
    env.close()


# Episodes.


def check_poses(episode: Episode) -> None:
    """Everything was seen in every picture, within a millimetre and a degree."""
    found = episode.perception
    assert found is not None
    assert found.pictures == episode.length
    assert set(found.unseen.values()) == {0}
    assert len(found.segment_ms) == len(found.fit_ms) == found.pictures
    for field, errors in found.errors.items():
        assert len(errors) == episode.length
        limit = 0.001 if field.endswith("_xy") else math.radians(1.0)
        assert max(errors) < limit, field


@pytest.mark.slow
@pytest.mark.parametrize("slots", [1, 2])
def test_faultless_masks_insert_a_block_of_a_colour_nobody_told(slots: int) -> None:
    env = make_env(INSERTION, {"slots": slots})
    paint_blue(env)
    policy = POLICY if slots == 1 else "block-insertion-two-slots-ibc"
    episode = perceive(env, lambda _: labels_of(env.unwrapped), policy)
    assert episode.success
    check_poses(episode)
    env.close()


def test_faultless_masks_show_the_policy_a_block_of_a_colour_nobody_told() -> None:
    env = make_env(INSERTION, {"max_episode_steps": 8})
    paint_blue(env)
    check_poses(perceive(env, lambda _: labels_of(env.unwrapped)))
    env.close()


def test_by_colours_the_policy_waits_for_a_block_of_another_colour() -> None:
    env = make_env(INSERTION, {"max_episode_steps": 5})
    paint_blue(env)
    before, _ = env.reset(seed=0)
    episode = perceive(env, None)
    assert (episode.success, episode.length) == (False, 5)
    assert episode.total_reward == pytest.approx(0.0, abs=1e-3)
    np.testing.assert_allclose(env.unwrapped.scene.tip()[:2], before[2:4], atol=1e-3)  # type: ignore[attr-defined]
    assert episode.perception is not None
    assert episode.perception.unseen == {"block": 5, "slot1": 0, "slot2": 0}
    assert episode.perception.errors == {}
    summary = summarize_perception(COLORS, [episode])
    assert (summary["unseen"]["block"], summary["waited"]) == (1.0, 1.0)
    assert "in 100.0 % of the pictures the policy waited" in perception_lines(summary)[-1]
    env.close()


def test_what_is_no_longer_seen_keeps_its_pose_and_is_counted() -> None:
    env = make_env(INSERTION, {"max_episode_steps": 6})
    calls: list[int] = []

    def blind_after_two(rgb: Any) -> InstanceLabels:
        calls.append(len(calls))
        labels = labels_of(env.unwrapped)
        return labels if len(calls) <= 2 else InstanceLabels(labels.ids * 0, ())

    episode = perceive(env, blind_after_two)
    assert episode.perception is not None
    assert episode.perception.unseen == {"block": 4, "slot1": 0, "slot2": 0}
    assert {len(errors) for errors in episode.perception.errors.values()} == {6}
    env.close()


# Evaluations.


def test_perceived_evaluations_are_the_same_with_more_workers_and_in_json() -> None:
    alone, together = evaluate(SHORT), evaluate(replace(SHORT, workers=2))
    assert alone["per_episode"] == together["per_episode"]
    first, second = alone["perceived"], together["perceived"]
    assert first["errors"] == second["errors"]
    assert json.loads(json.dumps(alone)) == alone
    assert first["segmenter"] == "colors"
    assert first["pictures"] == 6
    assert first["unseen"] == {"block": 0.0, "slot1": 0.0, "slot2": 0.0}
    assert first["waited"] == 0.0
    assert first["segment_ms"] is None
    assert 0 < first["fit_ms"]["median"] <= first["fit_ms"]["p95"]
    assert first["errors"]["block_xy"]["unit"] == "mm"
    assert 0 < first["errors"]["block_xy"]["median"] <= first["errors"]["block_xy"]["p95"] < 1
    assert first["errors"]["block_yaw4"]["unit"] == "deg"
    assert "target_xy" not in first["errors"]
    exact = evaluate(replace(SHORT, perceived=None))
    assert "perceived" not in exact
    assert compare(alone, exact)["neither"] == 2


def test_a_stopped_perceived_evaluation_keeps_what_was_seen(tmp_path: Path) -> None:
    log = tmp_path / "partial.jsonl"
    whole = evaluate(SHORT)["perceived"]
    evaluate(replace(SHORT, episodes=1), partial=log)
    resumed = evaluate(SHORT, partial=log)["perceived"]
    timed = {"segment_ms", "fit_ms"}
    assert {k: v for k, v in resumed.items() if k not in timed} == {
        k: v for k, v in whole.items() if k not in timed
    }


def test_a_retrained_segmenter_begins_anew(tmp_path: Path) -> None:
    config = replace(SHORT, perceived=str(tmp_path / "segmenter"))
    prints = []
    for seed in (0, 1, 1):
        model = tiny(seed)
        save_segmenter(tmp_path / "segmenter", saved(model, classes=TABLETOP), "card")
        prints.append(fingerprint(config))
    assert prints[0] != prints[1] == prints[2]
    assert "perceived" not in fingerprint(replace(SHORT, perceived=None))


def test_a_segmenter_that_knows_nothing_leaves_the_policy_waiting(tmp_path: Path) -> None:
    save_segmenter(tmp_path / "segmenter", saved(tiny(), classes=TABLETOP), "card")
    result = evaluate(replace(SHORT, perceived=str(tmp_path / "segmenter")))
    found = result["perceived"]
    assert result["success_rate"] == 0.0
    assert found["pictures"] == 6
    assert found["unseen"] == {"block": 1.0, "slot1": 1.0, "slot2": 1.0}
    assert found["waited"] == 1.0
    assert found["errors"] == {}
    assert found["segment_ms"]["median"] > 0
    lines = perception_lines(found)
    assert "not seen: block 100.0 %, slot1 100.0 %, slot2 100.0 %" in lines
    assert "segmenter" in lines[0]


# What is refused.


def test_a_segmenter_without_the_classes_is_refused(tmp_path: Path) -> None:
    save_segmenter(tmp_path / "segmenter", saved(tiny()), "card")
    with pytest.raises(ValueError, match=r"knows red, green, blue; .* needs block, slot, too"):
        evaluate(replace(SHORT, perceived=str(tmp_path / "segmenter")))


def test_a_missing_segmenter_says_that_colours_need_none() -> None:
    with pytest.raises(ValueError, match=r"no segmenter 'nobody'.*'colors' needs none"):
        evaluate(replace(SHORT, perceived="nobody"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"env": "decisive/Particle-v0"}, "perceived in .*; of decisive/Particle-v0 there are no"),
        ({"policy": "expert"}, "for learned policies; 'expert'"),
        ({"policy": "random"}, "for learned policies; 'random'"),
        ({"perceived": ".", "ray": "local"}, "the folder . stays here"),
    ],
)
def test_what_cannot_be_perceived_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SHORT, **change)


def test_a_policy_of_pixels_is_refused() -> None:
    policy = make_policy("mse", demonstrations("pixels"), small_config("mse"))
    env = make_env(INSERTION)
    with pytest.raises(ValueError, match="this policy sees pixels"):
        perceiving(PolicyActor(policy), env, INSERTION, COLORS)
    env.close()


WORDS = ("evaluate", "--env", INSERTION, "--policy", POLICY)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--segmenter", "colors"), "--segmenter is of --perceived"),
        (("--perceived", "--compare", "random"), "leave out --compare"),
        (("--perceived", "--segmenter", "nobody", "--episodes", "1"), "no segmenter 'nobody'"),
    ],
)
def test_the_command_line_says_in_a_line_what_does_not_go(
    words: tuple[str, ...], message: str, capsys: Any
) -> None:
    assert cli.main([*WORDS, *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_the_command_line_shows_both_and_the_errors(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "results.json"
    words = (*WORDS, "--perceived", "--segmenter", "colors", "--episodes", "1")
    short = ("--set", "max_episode_steps=3")
    assert cli.main([*words, *short, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"{POLICY} (perceived)" in printed
    assert f"{POLICY} (exact state)" in printed
    assert "McNemar exact p = 1" in printed
    assert "block_xy" in printed
    assert "3 pictures, told by colors; CPU ms each: fit" in printed
    written = json.loads(out.read_text())
    assert written["policy"] == POLICY
    assert written["perceived"]["pictures"] == 3
    assert written["comparison"]["results"]["policy"] == POLICY
    assert "perceived" not in written["comparison"]["results"]
    assert written["comparison"]["policies"] == [f"{POLICY} (perceived)", f"{POLICY} (exact state)"]
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
