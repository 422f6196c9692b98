"""Room-to-Room as a Gymnasium environment: actions, observations, episodes, experts."""

import json
import math
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from r2r_cases import DATA, entry, horseshoe, joined, needs_data, street
from stable_baselines3.common.env_checker import check_env as check_env_sb3

import envs
from envs.indoor.graph import NavigationGraph
from envs.indoor.r2r_nav import LOW_LEVEL, MAX_CANDIDATES, R2RNavEnv
from envs.indoor.viewing import view_of
from envs.indoor.worlds import open_world

envs.register_envs()

STOP, FORWARD, LEFT, RIGHT, UP, DOWN = range(6)
# SB3 would rather have one vector than a table of ways and one of views.
RECOMMENDATION = ".*has an unconventional shape"


def make(
    folder: Path, graph: NavigationGraph, *entries: dict[str, Any], **options: Any
) -> R2RNavEnv:
    """An environment in a building of our own, from files."""
    (folder / "connectivity").mkdir(exist_ok=True)
    place = folder / "connectivity" / "case_connectivity.json"
    place.write_text(json.dumps(graph.connectivity()))
    file = folder / "told.json"
    file.write_text(json.dumps(list(entries)))
    options = {"views": "none", **options}
    return R2RNavEnv(world="r2r", data=str(folder), split=str(file), **options)


def run(env: R2RNavEnv, mode: Any = "consistent", choices: int = 0, **reset: Any) -> dict[str, Any]:
    """An episode of the expert; its last info."""
    obs, info = env.reset(**reset)
    expert = env.expert(mode, choices)
    done = False
    while not done:
        obs, _, terminated, truncated, info = env.step(expert.act(obs, info))
        done = terminated or truncated
    return info


@pytest.fixture(scope="module")
def sketch() -> Iterator[R2RNavEnv]:
    env = R2RNavEnv()
    yield env
    env.close()


@pytest.mark.parametrize(
    "options",
    [{}, {"actions": "low-level"}, {"views": "none"}, {"split": "val_unseen", "render_mode": None}],
)
def test_checkers_of_gymnasium_and_sb3_find_nothing(options: dict[str, Any]) -> None:
    options = {"render_mode": "rgb_array", **options}
    env = gymnasium.make("decisive/R2RNav-v0", disable_env_checker=True, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=options["render_mode"] is None)
        warnings.filterwarnings("ignore", message=RECOMMENDATION)
        check_env_sb3(env, warn=True)
    env.close()


def test_it_starts_without_data_and_loads_neither_torch_nor_a_simulator(tmp_path: Path) -> None:
    code = (
        "import sys, gymnasium, envs\n"
        "env = gymnasium.make('decisive/R2RNav-v0')\n"
        "env.reset(seed=0)\n"
        "print([m for m in ('torch', 'open3d', 'pybullet', 'habitat_sim') if m in sys.modules])"
    )
    environment = {"DECISIVE_DATA": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1])}
    told = subprocess.check_output([sys.executable, "-c", code], text=True, env=environment)
    assert told.strip() == "[]"


def test_a_seed_names_an_episode(sketch: R2RNavEnv) -> None:
    first, info = sketch.reset(seed=3)
    again, other = sketch.reset(seed=3)
    assert info["instr_id"] == other["instr_id"]
    assert all(np.array_equal(first[key], again[key]) for key in first)
    drawn = {sketch.reset(seed=k)[1]["instr_id"] for k in range(40)}
    assert len(drawn) > 30
    recorded = {
        sketch.reset(seed=k, options={"stream": "record"})[1]["instr_id"] for k in range(40)
    }
    assert recorded != drawn


def test_reset_refuses_what_it_does_not_know(sketch: R2RNavEnv) -> None:
    with pytest.raises(ValueError, match="unknown instruction '7_0'; known are such as"):
        sketch.reset(options={"instr_id": "7_0"})
    with pytest.raises(ValueError, match="got \\['colour'\\]"):
        sketch.reset(options={"colour": 1})
    with pytest.raises(ValueError, match="needs a seed"):
        sketch.reset(options={"stream": "record"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"world": "mars"}, "unknown world 'mars'"),
        ({"split": "x"}, "unknown split 'x'"),
        ({"scan": "x"}, "has no scan 'x'; known: sketch_train_00"),
        ({"actions": "fly"}, "actions must be one of"),
        ({"views": "x"}, "views must be"),
        ({"image_size": (0, 4)}, "image_size must be"),
        ({"render_mode": "human"}, "render_mode must be"),
        ({"max_episode_steps": 0}, "max_episode_steps must be"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        R2RNavEnv(**options)


def test_pixels_need_a_world_that_has_them() -> None:
    with pytest.raises(ValueError, match="sketches have no pixels"):
        R2RNavEnv(views="pixels").reset(seed=0)


def test_pixels_of_houses(tmp_path: Path) -> None:
    scan = "house_val_000003"
    graph = open_world("houses").graph(scan)
    path = graph.shortest_path(graph.viewpoints[0], graph.viewpoints[-1])[:3]
    file = tmp_path / "told.json"
    file.write_text(json.dumps([entry(scan=scan, path=path)]))
    env = R2RNavEnv(world="houses", split=str(file), views="pixels", image_size=(16, 32))
    check_env(env, skip_render_check=True)
    obs, info = env.reset(seed=0)
    assert obs["rgb"].shape == (16, 32, 3)
    assert obs["depth"].shape == obs["semantic"].shape == (16, 32)
    assert env.observation_space.contains(obs)
    moved = env.step(1)[0]
    assert (moved["rgb"] != obs["rgb"]).any()
    assert info["scan"] == scan
    env.close()
    env.reset(seed=0)  # a closed one may be used again


def test_one_scan_only(sketch: R2RNavEnv) -> None:
    env = R2RNavEnv(scan="sketch_train_03")
    assert {one.scan for one in env.instructions.values()} == {"sketch_train_03"}
    assert len(env.instructions) < len(sketch.instructions)


def test_observation_says_what_is_there(tmp_path: Path) -> None:
    env = make(tmp_path, street(), entry(heading=math.radians(80), instructions=["Go to c, café."]))
    obs, info = env.reset()
    assert bytes(obs["instruction"]).rstrip(b"\0").decode() == "Go to c, café."
    # The heading snaps to 90 degrees: east.
    assert obs["direction"] == pytest.approx([1.0, 0.0, 0.0, 1.0], abs=1e-6)
    assert obs["candidate_mask"].tolist() == [1] + [0] * (MAX_CANDIDATES - 1)
    assert obs["candidates"][0] == pytest.approx([0.0, 1.0, 0.0, 2.0], abs=1e-6)
    assert not obs["candidates"][1:].any()
    assert info["view_index"] == view_of(math.radians(90), 0.0)
    assert info["candidates"] == ("b",)
    assert info["viewpoint"] == "a"
    assert (info["distance_to_goal"], info["path_length"], info["steps"]) == (4.0, 0.0, 0)
    assert info["instruction"] == "Go to c, café."


def test_long_texts_are_cut_between_letters(tmp_path: Path) -> None:
    env = make(tmp_path, street(), entry(instructions=["走" * 400]))  # 1,200 bytes
    obs, info = env.reset()
    assert bytes(obs["instruction"]).rstrip(b"\0").decode() == "走" * 341
    assert info["instruction"] == "走" * 400


def test_a_walk_to_the_goal_and_a_stop(tmp_path: Path) -> None:
    env = make(tmp_path, street(), entry(heading=0.0, instructions=["Go."]))
    _, info = env.reset()
    assert info["success"] is False  # 4 m away
    obs, reward, terminated, truncated, info = env.step(1)
    assert (info["viewpoint"], info["distance_to_goal"], info["path_length"]) == ("b", 2.0, 2.0)
    assert info["success"] is True  # 2 m away: if it ended now
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert info["view_index"] == view_of(math.radians(90), 0.0)  # looks where it walked
    assert info["candidates"] == ("c", "a")  # ahead first
    assert math.degrees(math.atan2(*obs["candidates"][1, :2])) == pytest.approx(-180)
    _, _, _, _, info = env.step(1)
    assert "metrics" not in info
    _, reward, terminated, truncated, info = env.step(0)
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info["score"] == info["metrics"]["spl"] == info["metrics"]["ndtw"] == 1.0
    assert info["trajectory"] == (
        ("a", 0.0, 0.0),
        ("b", pytest.approx(math.pi / 2), 0.0),
        ("c", pytest.approx(math.pi / 2), 0.0),
    )
    with pytest.raises(RuntimeError, match="reset"):
        env.step(0)


def test_stopping_far_away_earns_nothing(tmp_path: Path) -> None:
    env = make(tmp_path, street(), entry(instructions=["Go."]))
    env.reset()
    _, reward, terminated, _, info = env.step(0)
    assert (reward, terminated, info["success"]) == (0.0, True, False)
    assert info["metrics"]["navigation_error"] == 4.0


def test_success_is_judged_on_the_graph_and_not_through_walls(tmp_path: Path) -> None:
    path = ["a", "b", "c", "d", "e", "f"]
    env = make(tmp_path, horseshoe(), entry(path=path, instructions=["Go round."]))
    _, info = env.reset()  # the goal is 1 m behind the wall
    assert (info["success"], info["distance_to_goal"]) == (False, 17.0)


def test_a_way_that_is_not_there_does_nothing_and_costs_a_step(tmp_path: Path) -> None:
    env = make(tmp_path, street(), entry(instructions=["Go."]))
    _, before = env.reset()
    _, _, terminated, _, info = env.step(7)
    assert not terminated
    assert (info["viewpoint"], info["view_index"]) == ("a", before["view_index"])
    assert (info["steps"], info["path_length"]) == (1, 0.0)


def test_low_level_actions_turn_and_walk(tmp_path: Path) -> None:
    env = make(tmp_path, street(), entry(heading=0.0, instructions=["Go."]), actions="low-level")
    assert env.action_space.n == len(LOW_LEVEL) == 6
    obs, info = env.reset()
    assert info["candidates"] == ()  # looking north, nothing within 40 degrees
    assert not obs["candidate_mask"].any()
    _, _, _, _, info = env.step(FORWARD)
    assert info["viewpoint"] == "a"  # nowhere to go
    for action, view in ((RIGHT, 13), (RIGHT, 14), (LEFT, 13), (UP, 25), (UP, 25), (DOWN, 13)):
        _, _, _, _, info = env.step(action)
        assert info["view_index"] == view
    _, _, _, _, info = env.step(RIGHT)
    assert info["candidates"] == ("b",)  # 30 degrees to the right
    _, _, _, _, info = env.step(FORWARD)
    assert (info["viewpoint"], info["view_index"]) == ("b", 14)  # walking does not turn
    assert env.pose == (1, 14)


def test_low_level_agents_see_the_view_they_look_at() -> None:
    whole, part = R2RNavEnv(), R2RNavEnv(actions="low-level")
    a, info = whole.reset(seed=1)
    b, _ = part.reset(seed=1)
    assert a["views"].shape == (36, 41)
    assert np.array_equal(b["views"], a["views"][[info["view_index"]]])


def test_episodes_are_cut_at_the_limit(tmp_path: Path) -> None:
    env = make(tmp_path, street(), entry(instructions=["Go."]), max_episode_steps=3)
    env.reset()
    cut = [env.step(1)[3] for _ in range(3)]
    assert cut == [False, False, True]
    longer = gymnasium.make("decisive/R2RNav-v0", max_episode_steps=20)  # the own limit is 15
    longer.reset(seed=0)
    assert [longer.step(1)[3] for _ in range(20)] == [False] * 19 + [True]


def test_a_stop_at_the_limit_is_a_stop(tmp_path: Path) -> None:
    env = make(tmp_path, street(), entry(instructions=["Go."]), max_episode_steps=1)
    env.reset()
    assert env.step(0)[2:4] == (True, False)


@pytest.mark.parametrize("action", [-1, 17, 1.0, "1", None, [1, 2]])
def test_actions_outside_the_space_are_refused(sketch: R2RNavEnv, action: Any) -> None:
    sketch.reset(seed=0)
    with pytest.raises(ValueError, match="action must be"):
        sketch.step(action)


def test_before_the_first_reset_there_is_nothing() -> None:
    env = R2RNavEnv()
    with pytest.raises(RuntimeError, match="reset"):
        env.step(0)
    with pytest.raises(RuntimeError, match="reset"):
        env.expert()
    assert env.render() is None


def test_paths_that_the_graph_does_not_hold_are_refused_when_they_are_walked(
    tmp_path: Path,
) -> None:
    env = make(tmp_path, street(), entry(path=["a", "z"]))
    with pytest.raises(ValueError, match="instruction 7_0: case has no viewpoint 'z'"):
        env.reset(options={"instr_id": "7_0"})


def test_a_viewpoint_with_too_many_ways_is_refused(tmp_path: Path) -> None:
    angle = np.arange(18) / 3.0
    ends = np.column_stack([np.cos(angle), np.sin(angle), np.zeros(18)])
    ends[0] = 0.0
    graph = joined(ends, [(0, k) for k in range(1, 18)])
    env = make(tmp_path, graph, entry(path=["a", "b"]))
    with pytest.raises(ValueError, match="17 ways leave it, 16 is the most"):
        env.reset()


def test_secret_goals_are_kept(tmp_path: Path) -> None:
    secret = entry(path=["a"])
    del secret["distance"]
    env = make(tmp_path, street(), secret)
    env.reset()
    _, reward, _, _, info = env.step(0)
    assert info["success"] is None
    assert info["score"] is None
    assert math.isnan(info["distance_to_goal"])
    assert reward == 0.0
    assert "metrics" not in info
    assert info["trajectory"]
    env.reset()
    with pytest.raises(ValueError, match="secret: there is no expert"):
        env.expert()


@pytest.mark.parametrize("actions", ["panoramic", "low-level"])
@pytest.mark.parametrize("mode", ["consistent", "diverse"])
def test_the_expert_succeeds_on_every_seed(actions: Any, mode: str) -> None:
    env = R2RNavEnv(actions=actions, views="none")
    for seed in range(25):
        info = run(env, mode, seed, seed=seed)
        assert info["success"]
        assert info["score"] >= (1.0 - 1e-9 if mode == "consistent" else 1 / 1.1)
        assert info["distance_to_goal"] == 0.0


def test_the_diverse_expert_takes_different_ways_of_nearly_one_length(tmp_path: Path) -> None:
    square = joined(
        np.array([[0, 0, 0], [2, 0, 0], [0, 2.1, 0], [2, 2.1, 0]]), [(0, 1), (1, 3), (0, 2), (2, 3)]
    )
    env = make(tmp_path, square, entry(path=["a", "b", "d"]))
    walks = {tuple(p[0] for p in run(env, "diverse", k)["trajectory"]) for k in range(20)}
    assert walks == {("a", "b", "d"), ("a", "c", "d")}
    assert len({run(env, choices=k)["trajectory"] for k in range(5)}) <= 3  # three instructions
    with pytest.raises(ValueError, match="mode must be"):
        env.expert("wild")  # type: ignore[arg-type]


def test_the_low_level_expert_goes_round_what_forward_cannot_walk(tmp_path: Path) -> None:
    # From a, b (2 m) and c (4 m) lie in one direction: forward always takes b.
    positions = np.array([[0, 0, 0], [2, 0.0, 0], [4, 0.0, 0]])
    env = make(
        tmp_path, joined(positions, [(0, 1), (0, 2), (1, 2)]), entry(path=["a", "c"]),
        actions="low-level",
    )  # fmt: skip
    walked = [pose[0] for pose in run(env)["trajectory"]]
    assert list(dict.fromkeys(walked)) == ["a", "b", "c"]


def test_the_low_level_expert_stops_where_nothing_leads_on(tmp_path: Path) -> None:
    positions = np.array([[0, 0, 0], [2, 0.0, 0], [8, 0.0, 0]])
    graph = joined(positions, [(0, 1), (0, 2)])
    env = make(tmp_path, graph, entry(path=["a", "c"]), actions="low-level")
    info = run(env)
    assert info["steps"] == 1
    assert not info["success"]


def test_the_map_shows_the_walk(tmp_path: Path) -> None:
    env = make(tmp_path, street(), entry(heading=0.0), render_mode="rgb_array")
    env.reset()
    before = env.render()
    env.step(1)
    after = env.render()
    assert before.shape == after.shape == (576, 480, 3)
    assert before.dtype == np.uint8
    blue = [(frame == (0x1E, 0x88, 0xE5)).all(axis=-1).sum() for frame in (before, after)]
    assert blue[1] > blue[0]
    env = make(tmp_path, street(), entry(instructions=["走到沙发"]), render_mode="rgb_array")
    env.reset()
    assert env.render().shape == (576, 480, 3)


@needs_data
@pytest.mark.data
def test_on_real_graphs_the_expert_walks_shortest_ways() -> None:
    env = R2RNavEnv(world="r2r", split="val_unseen", views="none", data=str(DATA))
    for name in list(env.instructions)[::40]:
        info = run(env, options={"instr_id": name})
        assert info["metrics"]["spl"] == pytest.approx(1.0)
        assert info["metrics"]["navigation_error"] == 0.0


@needs_data
@pytest.mark.data
def test_on_real_graphs_low_level_actions_nearly_do() -> None:
    env = R2RNavEnv(
        world="r2r", split="val_unseen", actions="low-level", views="none", data=str(DATA)
    )
    infos = [run(env, options={"instr_id": name}) for name in list(env.instructions)[::40]]
    assert all(info["success"] for info in infos)
    assert np.mean([info["score"] for info in infos]) > 0.98
    assert max(info["steps"] for info in infos) < 40


def test_recording_choices_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from decisive.cli import main

    assert main(["record", "--env", "decisive/R2RNav-v0", "--out", str(tmp_path / "a.npz")]) == 2
    assert "acts by choices" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
