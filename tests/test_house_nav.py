"""Walking through houses: geometry, rules of the environment, fields and the demonstrator."""

import heapq
import math
import os
import time
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

import envs
from agents import shipped_policies
from decisive.benchmarks.recipes import TASKS, find_recipe
from decisive.episodes import Runner
from decisive.options import make_env
from envs.fields import slices
from envs.indoor.continuous import (
    ARRIVED,
    EPISODE_STEPS,
    HOUSES,
    MAX_STEP,
    MAX_TURN,
    N_RAYS,
    REACH,
    HouseNavEnv,
)
from envs.indoor.ground import PARTS, Ground
from envs.indoor.house import BODY_RADIUS, generate_house
from envs.indoor.way_field import CELL, ROOMY, cost_to_go, downhill, open_window

envs.register_envs()

TURN_ONLY = np.array([1.0, -1.0], np.float32)
AHEAD = np.array([0.0, 1.0], np.float32)
ROOM = np.array([[-2, -2, 2, -1.9], [-2, 1.9, 2, 2], [-2, -2, -1.9, 2], [1.9, -2, 2, 2]], float)
"""Walls of a room of 3.8 m around the origin."""


def finish(env: HouseNavEnv, mode: Any, seed: int, **where: Any) -> dict[str, Any]:
    """Let the expert walk an episode to its end."""
    obs, info = env.reset(seed=seed, **where)
    expert, over = env.expert(mode, seed), False
    while not over:
        obs, _, terminated, truncated, info = env.step(expert.act(obs, info))
        over = terminated or truncated
    return info


# Ground


def test_distances_from_a_box_are_those_of_its_sides_and_corners() -> None:
    ground = Ground(np.array([[0.0, 0.0, 1.0, 2.0]]))
    points = np.array([[-0.5, 1.0], [0.5, 2.25], [-3.0, -4.0], [0.5, 0.5], [1.0, 1.0]])
    np.testing.assert_allclose(ground.clearance(points), [0.5, 0.25, 5.0, 0.0, 0.0])


def test_rays_in_a_room_end_at_its_walls() -> None:
    ground = Ground(ROOM)
    angles = np.radians([0, 90, 180, 270, 45, math.degrees(math.atan2(1, 2))])
    seen = ground.rays(np.array([0.4, -0.5]), angles, 10.0)
    expected = [1.5, 2.4, 2.3, 1.4, 1.5 * math.sqrt(2), 1.5 * math.sqrt(1.25)]
    np.testing.assert_allclose(seen, expected, rtol=1e-12)
    np.testing.assert_allclose(ground.rays(np.zeros(2), angles, 1.0), 1.0)


def test_a_ray_along_the_face_of_a_box_or_away_from_it_does_not_end_there() -> None:
    ground = Ground(np.array([[1.0, 0.0, 2.0, 1.0]]))
    seen = ground.rays(np.array([0.0, 0.5]), np.array([0.0, math.pi]), 3.0)
    np.testing.assert_allclose(seen, [1.0, 3.0])
    assert ground.rays(np.array([0.0, -1e-6]), np.zeros(1), 3.0)[0] == 3.0


@settings(max_examples=50, deadline=None)
@given(st.floats(-1.8, 1.8), st.floats(-1.8, 1.8), st.floats(-math.pi, math.pi), st.integers(0, 99))
def test_rays_agree_with_marching(x: float, y: float, angle: float, seed: int) -> None:
    corners = np.random.default_rng(seed).uniform(-2, 1.5, (6, 2))
    ground = Ground(np.concatenate([ROOM, np.hstack([corners, corners + 0.4])]))
    start = np.array([x, y])
    if ground.clearance(start[None])[0] <= 0.01:
        return
    seen = float(ground.rays(start, np.array([angle]), 4.0)[0])
    slope = np.array([math.cos(angle), math.sin(angle)])
    free = start + np.linspace(0.0, 0.999, 50)[:, None] * seen * slope
    assert ground.clearance(free).min() > 0.0
    if seen < 4.0:
        assert ground.clearance((start + (seen + 1e-6) * slope)[None])[0] < 1e-5


def test_a_body_stops_before_what_it_would_touch_and_does_not_slide() -> None:
    ground = Ground(ROOM)
    end, stopped = ground.walk(np.array([1.5, 0.0]), math.radians(30), 0.25, 0.2)
    # 1.7 is as far as a radius of 0.2 lets it go; the fifth part of the step, 0.217 m along x.
    assert stopped
    np.testing.assert_allclose(end, np.array([1.5, 0.0]) + 0.2 * np.array([math.sqrt(0.75), 0.5]))
    end, stopped = ground.walk(np.array([1.69, 0.0]), 0.0, 0.25, 0.2)
    assert stopped
    np.testing.assert_array_equal(end, [1.69, 0.0])
    end, stopped = ground.walk(np.array([1.69, 0.0]), math.pi, 0.25, 0.2)
    assert not stopped
    np.testing.assert_allclose(end, [1.44, 0.0], atol=1e-12)


def test_touching_along_a_wall_is_free() -> None:
    end, stopped = Ground(ROOM).walk(np.array([1.7, -1.0]), math.pi / 2, 0.25, 0.2)
    assert not stopped
    assert end[1] == pytest.approx(-0.75)


def test_no_step_jumps_over_an_open_door() -> None:
    assert MAX_STEP <= PARTS * BODY_RADIUS
    leaf = Ground(np.array([[0.0, -1.0, 0.04, 1.0]]))
    for start in np.linspace(-0.45, -0.2, 26):
        end, _ = leaf.walk(np.array([start, 0.0]), 0.0, MAX_STEP, BODY_RADIUS)
        assert end[0] <= -BODY_RADIUS + 1e-5


def test_ground_refuses_what_are_no_boxes() -> None:
    with pytest.raises(ValueError, match=r"must be \(N, 4\)"):
        Ground(np.zeros((0, 4)))
    with pytest.raises(ValueError, match="x0 <= x1"):
        Ground(np.array([[1.0, 0.0, 0.0, 1.0]]))


# Fields


def test_the_cost_of_the_way_is_what_dijkstra_finds() -> None:
    rng = np.random.default_rng(0)
    price = np.where(rng.random((12, 9)) < 0.25, math.inf, rng.uniform(1, 5, (12, 9)))
    price[0, 0] = 1.0
    seeds = np.full_like(price, math.inf)
    seeds[0, 0] = 0.7
    expected, queue = np.full_like(price, math.inf), [(0.7, (0, 0))]
    while queue:
        cost, (i, j) = heapq.heappop(queue)
        if cost >= expected[i, j]:
            continue
        expected[i, j] = cost
        for k in range(max(0, i - 1), min(12, i + 2)):
            for m in range(max(0, j - 1), min(9, j + 2)):
                step = CELL * math.hypot(k - i, m - j) * (price[i, j] + price[k, m]) / 2
                heapq.heappush(queue, (cost + step, (k, m)))
    np.testing.assert_allclose(cost_to_go(price, seeds), expected)


def test_downhill_goes_round_what_is_between_and_ends_at_the_target() -> None:
    price = np.ones((21, 21))
    price[10, 3:] = math.inf
    seeds = np.full_like(price, math.inf)
    seeds[18, 18] = 0.0
    cells = downhill(cost_to_go(price, seeds), (2, 18), 100)
    assert cells[-1] == (18, 18)
    assert min(j for i, j in cells if i == 10) <= 2
    assert all(np.isfinite(price[cell]) for cell in cells)
    assert downhill(np.full((5, 5), math.inf), (2, 2), 10) == []


def test_a_window_knows_how_roomy_its_cells_are() -> None:
    ground = Ground(ROOM)
    window = open_window(ground, np.array([-1.0, -1.0]), np.array([1.85, 1.0]), 0.2)
    points = window.points().reshape(-1, 2)
    exact = np.minimum(ground.clearance(points), ROOMY).reshape(window.price.shape)
    np.testing.assert_allclose(window.clearance, exact, atol=1e-12)
    np.testing.assert_array_equal(np.isinf(window.price), exact < 0.2)
    assert window.price[window.cell(np.zeros(2))] == 1.0
    assert window.price[window.cell(np.array([1.65, 0.0]))] > 3.0
    assert window.cell(np.array([99.0, -99.0])) == (window.price.shape[0] - 1, 0)


# Environment


@pytest.mark.parametrize("guide", ["route", "goal"])
def test_it_is_a_gymnasium_environment(guide: str) -> None:
    env = gymnasium.make("decisive/HouseNav-v0", guide=guide, disable_env_checker=True)
    check_env(env.unwrapped, skip_render_check=True)
    base: Any = env.unwrapped
    parts = slices(base.state_fields)
    assert env.observation_space.shape == (list(parts.values())[-1].stop,)
    assert env.observation_space.shape == {"route": (46,), "goal": (40,)}[guide]


def test_same_seed_and_actions_repeat_and_other_seeds_do_not() -> None:
    first, second = HouseNavEnv(), HouseNavEnv()
    actions = np.random.default_rng(0).uniform(-1, 1, (30, 2)).astype(np.float32)
    np.testing.assert_array_equal(first.reset(seed=4)[0], second.reset(seed=4)[0])
    for action in actions:
        np.testing.assert_array_equal(first.step(action)[0], second.step(action)[0])
    assert first.trail.tolist() == second.trail.tolist()
    assert first.reset(seed=5)[1]["route"] != second.reset(seed=6)[1]["route"]


@pytest.mark.parametrize(
    ("stream", "split"),
    [(None, "test"), ("evaluate", "test"), ("select", "val"), ("record", "train")],
)
def test_the_stream_of_an_episode_says_which_houses_it_may_see(stream: Any, split: str) -> None:
    options = None if stream is None else {"stream": stream}
    env = HouseNavEnv()
    for seed in (0, 1):
        name = env.reset(seed=seed, options=options)[1]["house"]
        assert name.startswith(f"house_{split}_")
        assert int(name[-6:]) < HOUSES
    assert env.reset()[1]["house"].startswith(f"house_{split}_")  # no seed: goes on there
    other = HouseNavEnv(split="val")
    assert other.reset(seed=0, options=options)[1]["house"].startswith("house_val_")


def test_routes_are_those_of_room_to_room() -> None:
    env = HouseNavEnv()
    for seed in range(5):
        _, info = env.reset(seed=seed)
        assert 4 <= len(info["route"]) <= 7
        assert info["shortest_length"] >= 5.0
        start, goal = info["route"][0], info["route"][-1]
        assert info["shortest_length"] == pytest.approx(env.house.graph.distance(start, goal))
        np.testing.assert_allclose(info["pose"][:2], env.route[0])


def test_a_goal_is_at_most_a_room_away() -> None:
    env = HouseNavEnv(guide="goal")
    for seed in range(5):
        _, info = env.reset(seed=seed)
        assert len({env.house.room_of(name) for name in info["route"]}) <= 2
        assert info["shortest_length"] >= 3.0
        assert env.next_waypoint == len(info["route"]) - 1


def test_a_route_may_be_chosen_in_a_house_of_any_number() -> None:
    house = generate_house(100, "val")
    far = house.graph.viewpoints[int(house.graph.distances[0].argmax())]
    way = house.graph.shortest_path(house.graph.viewpoints[0], far)
    env = HouseNavEnv(split="val")
    _, info = env.reset(seed=0, options={"house": 100, "route": way})
    assert (info["house"], info["route"]) == (house.name, way)
    with pytest.raises(ValueError, match="no way leads straight"):
        env.reset(seed=0, options={"house": 100, "route": (way[0], way[-1])})
    with pytest.raises(ValueError, match="a route is in a house"):
        env.reset(seed=0, options={"route": way})
    with pytest.raises(ValueError, match="at least two"):
        env.reset(seed=0, options={"house": 100, "route": way[:1]})


def test_turns_and_steps_are_as_long_as_promised() -> None:
    env = HouseNavEnv()
    _, info = env.reset(seed=0)
    x, y, yaw = info["pose"]
    *_, info = env.step(TURN_ONLY)
    assert info["pose"][:2] == (x, y)
    assert math.remainder(info["pose"][2] - yaw, math.tau) == pytest.approx(math.radians(30))
    *_, info = env.step(np.array([-0.5, -1.0], np.float32))
    assert math.remainder(info["pose"][2] - yaw, math.tau) == pytest.approx(math.radians(15))
    while env.ground.rays(env.trail[-1], env.ray_angles()[:1], REACH)[0] < 0.6:
        env.step(TURN_ONLY)
    before = env.trail[-1]
    *_, info = env.step(np.array([0.0, 0.0], np.float32))  # half a step
    angle = info["pose"][2]
    moved = env.trail[-1] - before
    np.testing.assert_allclose(moved, 0.125 * np.array([math.cos(angle), math.sin(angle)]))
    assert info["path_length"] == pytest.approx(0.125)


def test_what_is_observed_is_relative_to_the_body() -> None:
    env = HouseNavEnv()
    obs, info = env.reset(seed=2)
    parts = slices(env.state_fields)
    x, y, yaw = info["pose"]
    for name, point in zip(("waypoint", "waypoint2", "goal"), env.route[[1, 2, -1]], strict=True):
        distance, cosine, sine = obs[parts[name]]
        angle = yaw + math.atan2(sine, cosine)
        found = (x + distance * math.cos(angle), y + distance * math.sin(angle))
        np.testing.assert_allclose(found, point, atol=1e-5)
    turned, *_ = env.step(TURN_ONLY)
    # Three rays are 30 degrees: what was seen there on the left is now ahead.
    np.testing.assert_allclose(turned[:N_RAYS], np.roll(obs[:N_RAYS], -3), atol=1e-5)
    assert obs[:N_RAYS].max() <= REACH
    assert turned[parts["touching"]] == 0.0


def test_a_body_at_a_wall_tells_so_and_counts() -> None:
    env = HouseNavEnv()
    obs, _ = env.reset(seed=0)
    while not env.touching:  # straight ahead ends at something
        obs, *_ = env.step(AHEAD)
    assert obs[N_RAYS] == 1.0
    place = env.pose
    *_, info = env.step(AHEAD)
    assert info["collisions"] == 2
    assert math.dist(info["pose"][:2], place[:2]) < MAX_STEP
    obs, *_ = env.step(TURN_ONLY)
    assert obs[N_RAYS] == 0.0


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 500))
def test_nothing_that_is_done_brings_the_body_into_a_wall(seed: int) -> None:
    env = HouseNavEnv(split="train")
    env.reset(seed=0, options={"house": seed % 8})
    rng = np.random.default_rng(seed)
    over = False
    while not over:
        obs, _, terminated, truncated, info = env.step(rng.uniform((-0.5, 0), 1).astype(np.float32))
        over = terminated or truncated
        assert obs in env.observation_space
        assert env.house.free(info["pose"][:2], BODY_RADIUS - 1e-5)


def test_viewpoints_count_in_their_order_and_the_last_one_ends_it() -> None:
    env = HouseNavEnv()
    env.reset(seed=3)
    goal = env.route[-1]
    env._xy = goal.copy()  # beamed there: the others were not visited
    *_, terminated, truncated, info = env.step(TURN_ONLY)
    assert not info["success"]
    assert not terminated
    assert info["waypoints_left"] == len(env.route) - 1
    for point in env.route[1:]:
        assert not terminated
        env._xy = point.copy()
        *_, terminated, truncated, info = env.step(TURN_ONLY)
    assert terminated
    assert not truncated
    assert info["success"]
    assert info["waypoints_left"] == 0
    with pytest.raises(RuntimeError, match="no episode is under way"):
        env.step(AHEAD)


def test_arrival_is_twice_the_radius_and_the_score_is_spl() -> None:
    env = HouseNavEnv(guide="goal")
    _, info = env.reset(seed=0)
    assert pytest.approx(0.4) == ARRIVED
    env._length = 2 * info["shortest_length"]
    env._xy = env.route[-1] + (0.0, 0.41)
    *_, reward, terminated, _, info = env.step(TURN_ONLY)
    assert (reward, terminated, info["score"]) == (0.0, False, 0.0)
    env._xy = env.route[-1] + (0.0, 0.39)
    *_, reward, terminated, _, info = env.step(TURN_ONLY)
    assert (reward, terminated) == (1.0, True)
    assert info["score"] == pytest.approx(0.5)


def test_episodes_end_after_their_limit_which_may_be_changed() -> None:
    def length(env: gymnasium.Env) -> int:
        env.reset(seed=0)
        for count in range(1, 400):
            if env.step(TURN_ONLY)[3]:
                return count
        raise AssertionError("the episode never ended")

    assert length(gymnasium.make("decisive/HouseNav-v0")) == EPISODE_STEPS == 150
    assert length(gymnasium.make("decisive/HouseNav-v0", max_episode_steps=200)) == 200
    assert length(HouseNavEnv(max_episode_steps=7)) == 7


def test_bad_input_is_refused_in_one_clear_line() -> None:
    for options, message in (
        ({"guide": "map"}, 'guide must be "route" or "goal"'),
        ({"split": "live"}, "split must be one of"),
        ({"render_mode": "human"}, "render_mode"),
        ({"max_episode_steps": 0}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            HouseNavEnv(**options)  # type: ignore[arg-type]
    env = HouseNavEnv()
    for read in (lambda: env.pose, lambda: env.house, lambda: env.step(AHEAD), env.expert):
        with pytest.raises(RuntimeError, match="reset"):
            read()
    with pytest.raises(ValueError, match="needs a seed"):
        env.reset(options={"stream": "select"})
    with pytest.raises(ValueError, match="reset options"):
        env.reset(seed=0, options={"scan": "x"})
    with pytest.raises(ValueError, match="unknown stream"):
        env.reset(seed=0, options={"stream": "test"})
    env.reset(seed=0)
    for action in (np.zeros(3, np.float32), np.array([math.nan, 0.0], np.float32)):
        with pytest.raises(ValueError, match=r"must be \(2,\) finite"):
            env.step(action)
    with pytest.raises(ValueError, match="mode must be"):
        env.expert("best")  # type: ignore[arg-type]


# Expert


@pytest.mark.parametrize("guide", ["route", "goal"])
@pytest.mark.parametrize("mode", ["consistent", "diverse"])
def test_the_expert_arrives_and_touches_nothing(guide: Any, mode: str) -> None:
    env = HouseNavEnv(guide=guide)
    for seed in range(3):
        info = finish(env, mode, seed)
        assert info["success"]
        assert info["collisions"] == 0
        assert info["score"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("guide", ["route", "goal"])
def test_the_expert_arrives_in_every_house_of_every_split(guide: Any) -> None:
    done = [
        finish(HouseNavEnv(guide=guide, split=split), "diverse", house, options={"house": house})
        for split in ("train", "val", "test")
        for house in range(HOUSES)
    ]
    assert all(info["success"] for info in done)
    assert np.mean([info["collisions"] for info in done]) < 0.05


def test_the_consistent_expert_ignores_its_seed_and_diverse_ones_differ() -> None:
    env = HouseNavEnv(guide="goal")
    ways: dict[str, set[tuple[float, ...]]] = {"consistent": set(), "diverse": set()}
    for mode, found in ways.items():
        for seed in range(3):
            obs, info = env.reset(seed=11)
            expert, over = env.expert(mode, seed), False  # type: ignore[arg-type]
            while not over:
                obs, _, over, _, info = env.step(expert.act(obs, info))
            found.add(tuple(env.trail.ravel().round(6).tolist()))
    assert len(ways["consistent"]) == 1
    assert len(ways["diverse"]) > 1


def test_diverse_experts_turn_about_to_either_side_and_stay_with_it() -> None:
    env = HouseNavEnv(guide="goal")
    obs, info = env.reset(seed=0)
    x, y = env._xy
    sides = set()
    for seed in range(8):
        expert = env.expert("diverse", seed)
        target = expert._target(env._xy)
        env._yaw = math.remainder(math.atan2(target[1] - y, target[0] - x) + math.pi, math.tau)
        first = expert.act(obs, info)
        assert abs(first[0]) == 1.0
        assert first[1] == -1.0  # nothing ahead yet
        env._yaw = math.remainder(env._yaw + float(first[0]) * MAX_TURN, math.tau)
        assert expert.act(obs, info)[0] == first[0]
        sides.add(float(first[0]))
    assert sides == {-1.0, 1.0}


def test_the_expert_finds_back_from_where_it_was_pushed() -> None:
    env = HouseNavEnv()
    obs, info = env.reset(seed=1)
    expert, over = env.expert(), False
    rng = np.random.default_rng(0)
    while not over:
        noisy = expert.act(obs, info) + 0.5 * rng.standard_normal(2)
        obs, _, terminated, truncated, info = env.step(noisy.astype(np.float32))
        over = terminated or truncated
    assert info["success"]


# Policies


def test_recipes_know_the_routes_and_the_goals() -> None:
    for task, size in (("house-nav", 46), ("house-nav-goal", 40)):
        described = TASKS[task]
        env = make_env(described.env, described.options)
        assert env.observation_space.shape == (size,)
        for method in ("ibc", "mse"):
            assert find_recipe(f"{task}-{method}").train["cpu_seconds"] == described.cpu_seconds


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in shipped_policies() if n.startswith("house-nav")])
def test_shipped_controllers_arrive_in_unseen_houses(name: str) -> None:
    runner = Runner("decisive/HouseNav-v0", {}, name)
    episodes = [runner.run(seed) for seed in range(100, 120)]
    runner.close()
    assert sum(bool(episode.success) for episode in episodes) >= 16


# Picture and speed


def test_the_picture_shows_body_goal_and_contact() -> None:
    env = HouseNavEnv(render_mode="rgb_array")
    env.reset(seed=0)
    assert HouseNavEnv().render() is None
    first = env.render()
    assert first is not None
    assert first.dtype == np.uint8
    assert first.ndim == 3
    assert max(first.shape[:2]) == pytest.approx(720, abs=2)
    while not env.touching:
        env.step(AHEAD)
    touching = env.render()
    assert touching is not None
    red = np.array([229, 57, 53])
    assert (np.abs(touching.astype(int) - red).max(axis=-1) < 8).sum() > 50
    assert (np.abs(first.astype(int) - red).max(axis=-1) < 8).sum() < 50


@pytest.mark.slow
def test_a_cpu_second_has_a_thousand_steps() -> None:
    env = HouseNavEnv(max_episode_steps=10**6)
    env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (1000, 2)).astype(np.float32)
    best = math.inf
    for _ in range(3):
        began = time.process_time()
        for action in actions:
            env.step(action)
        best = min(best, time.process_time() - began)
    assert best < 1.0, f"{1000 / best:.0f} steps a CPU-second; load {os.getloadavg()[0]:.1f}"
