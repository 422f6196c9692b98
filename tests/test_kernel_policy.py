"""The kernel policy: closed form, variance, gate, refits, files, and what it refuses."""

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from policy_cases import batch_of, demonstrations

from agents import load_policy, make_policy, save_policy
from agents.config import config_from_dict
from agents.kernel_ridge import KernelPolicy, KernelPolicyConfig
from agents.kernel_ridge.points import as_examples, kept, points_of
from learning.demonstrations import Demonstrations


def curve(episodes: int = 20, seed: int = 0, spread: float = 1.0) -> Demonstrations:
    """States of two numbers in a box, and displacements that are smooth functions of them."""
    rng = np.random.default_rng(seed)
    state = spread * rng.uniform(-1, 1, (10 * episodes, 2))
    actions = 0.5 * np.stack((np.sin(2 * state[:, 0]), state[:, 1] * state[:, 0]), 1)
    return Demonstrations(
        observations={"state": state.astype(np.float32)},
        actions=actions.astype(np.float32),
        rewards=np.zeros(len(state), np.float32),
        episode_offsets=np.arange(0, len(state) + 1, 10).astype(np.int64),
        action_low=-np.ones(2, np.float32),
        action_high=np.ones(2, np.float32),
        meta={
            "observation_fields": [{"name": "tip_xy", "size": 2, "kind": "point"}],
            "action_fields": [{"name": "delta", "size": 2, "kind": "vector"}],
        },
    )


def fitted(demos: Demonstrations | None = None, **settings: Any) -> KernelPolicy:
    policy = make_policy("kernel", curve() if demos is None else demos, settings)
    assert isinstance(policy, KernelPolicy)
    policy.eval()
    return policy


def act_far(policy: KernelPolicy) -> np.ndarray:
    return policy.act(np.array([25.0, -30.0], np.float32))


def test_two_points_by_hand() -> None:
    """Depth 1, NNGP: K = 2 E[relu relu] + .01 of Sigma = x.x' + .01 (two numbers a point)."""
    policy = fitted(points=10, solve=False, depth=1, kind="nngp", regulariser=0.0)
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    policy.refit(x, torch.tensor([[0.5, 0.0], [-0.5, 0.2]]))

    def k(xx: float, xy: float, yy: float) -> float:
        norm = math.sqrt((xx + 0.01) * (yy + 0.01))
        cosine = min(1.0, (xy + 0.01) / norm)
        angle = math.acos(cosine)
        return norm * (math.sin(angle) + (math.pi - angle) * cosine) / math.pi + 0.01

    same, other = k(1, 1, 1), k(1, 0, 1)
    first, second = k(1.25, 1, 1), k(1.25, 0.5, 1)  # (1, .5) with either point
    # The centred labels (.5, -.1) and their opposite are an eigenvector, of value same - other.
    share = (first - second) / (same - other)
    found = policy.predict(torch.tensor([[1.0, 0.5]]), torch.Generator(), None)
    np.testing.assert_allclose(found, [[0.5 * share, 0.1 - 0.1 * share]], atol=1e-6)
    determinant = same**2 - other**2
    both = (same * (first**2 + second**2) - 2 * other * first * second) / determinant
    assert policy.variance is not None
    np.testing.assert_allclose(policy.variance, [k(1.25, 1.25, 1.25) - both], atol=1e-9)


def test_it_learns_a_smooth_function() -> None:
    policy = fitted(points=0, depth=2, regulariser=1e-5)
    held = curve(seed=7)
    actions = policy.act(held.observations["state"])
    assert np.abs(actions - held.actions).mean() < 0.02
    assert np.abs(held.actions).mean() > 0.2


def test_where_demonstrations_disagree_it_returns_their_mean() -> None:
    demos = curve()
    sign = np.where(np.arange(len(demos)) % 2, 1.0, -1.0)[:, None].astype(np.float32)
    states = np.repeat(demos.observations["state"][::2], 2, axis=0)
    both = dataclasses.replace(
        demos, observations={"state": states}, actions=0.5 * sign.repeat(2, axis=1)
    )
    actions = fitted(both, points=0, regulariser=1e-2).act(states)
    assert np.abs(actions).max() < 0.05


def test_variance_is_nothing_at_points_without_noise_and_never_negative() -> None:
    policy = fitted(points=60, solve=False, regulariser=0.0)
    policy.predict(policy.points, torch.Generator(), None)
    assert policy.variance is not None
    largest = float(policy.regression().ridge.variance(100 * torch.ones(1, 2))[0])
    assert np.all(policy.variance >= 0)
    assert policy.variance.max() < 1e-9 * largest
    rng = torch.Generator().manual_seed(0)
    policy.predict(20 * torch.randn(500, 2, generator=rng), rng, None)
    assert np.all(policy.variance >= 0)


def test_variance_grows_away_from_the_points() -> None:
    policy = fitted()
    variances = []
    for distance in (0.5, 2.0, 4.0, 8.0):
        policy.reset()
        policy.act(np.array([distance, distance], np.float32))
        assert policy.variance is not None
        variances.append(float(policy.variance[0]))
    assert variances == sorted(variances)
    assert variances[-1] > 100 * variances[0]


def test_the_gate_fires_far_away_and_rarely_on_held_out_states() -> None:
    policy = fitted()
    policy.act(curve(episodes=100, seed=5).observations["state"])
    assert policy.beyond is not None
    assert policy.beyond.mean() < 0.02
    policy.reset()
    act_far(policy)
    assert policy.beyond is not None
    assert policy.beyond.tolist() == [True]


def test_doubt_tells_variance_threshold_and_whether_it_is_beyond() -> None:
    policy = fitted()
    assert policy.doubt == {}
    policy.act(np.zeros(2, np.float32))
    near = policy.doubt
    assert near["variance"] <= near["threshold"] == policy.threshold
    assert near["beyond"] == 0
    policy.reset()
    act_far(policy)
    assert policy.doubt["variance"] > near["threshold"]
    assert policy.doubt["beyond"] == 1
    policy.reset()
    assert policy.doubt == fitted(gate="off").doubt == {}


def test_what_is_done_beyond_the_gate_is_what_the_config_says() -> None:
    near = np.array([0.4, 0.5], np.float32)
    actions = {gate: act_far(fitted(gate=gate)) for gate in ("off", "flag", "hold")}
    assert np.array_equal(actions["off"], actions["flag"])
    assert np.abs(actions["flag"]).max() > 0.05
    assert np.array_equal(actions["hold"], np.zeros(2, np.float32))
    holding = fitted(gate="hold")
    assert np.abs(holding.act(near)).max() > 0.05
    off = fitted(gate="off")
    act_far(off)
    assert off.variance is None
    assert off.beyond is None


def test_a_batch_holds_only_the_rows_that_are_beyond() -> None:
    policy = fitted(gate="hold")
    actions = policy.act(np.array([[0.4, 0.5], [25, -30], [0.3, -0.4]], np.float32))
    assert np.any(actions != 0, axis=1).tolist() == [True, False, True]


def test_solved_actions_predict_all_demonstrations_better() -> None:
    policy = fitted()
    points, labels = points_of(policy, curve(episodes=60, seed=3))
    errors = {}
    for solve in (False, True):
        network, regulariser = policy.config.network, 1e-6
        some = kept(network, points, labels, 12, "random", solve, regulariser, 0)
        policy.refit(*some)
        found = policy._mean(points)
        errors[solve] = float((found - labels).square().mean())
    assert errors[True] < 0.7 * errors[False]


@pytest.mark.parametrize("keep", ["random", "kmeans", "herding"])
def test_so_many_points_are_kept_as_asked_for(keep: str) -> None:
    policy = fitted(points=17, keep=keep)
    assert policy.points.shape == (17, 2)
    assert policy.config.points == 17
    assert fitted(points=0).config.points == 180  # a tenth of 200 is held out


def test_a_refitted_policy_decides_by_its_new_points() -> None:
    policy = fitted()
    other = dataclasses.replace(curve(seed=9), actions=-curve(seed=9).actions)
    before = policy.act(np.array([0.5, 0.5], np.float32))
    points, labels = points_of(policy, other)
    threshold = policy.threshold
    policy.refit(points, labels)
    policy.reset()
    after = policy.act(np.array([0.5, 0.5], np.float32))
    np.testing.assert_allclose(after, -before, atol=0.05)
    assert len(policy.points) == len(other) == policy.config.points
    assert policy.threshold != threshold


def test_a_refit_of_a_hundred_points_takes_milliseconds() -> None:
    """Measured: see docs/distillation.md. A bound that a busy machine keeps."""
    policy = fitted(points=100)
    began = time.process_time()
    for _ in range(10):
        policy.refit(policy.points, policy.labels)
    assert (time.process_time() - began) / 10 < 0.1


def test_a_loaded_policy_is_the_saved_one(tmp_path: Path) -> None:
    policy = fitted(points=40, gate="hold")
    save_policy(policy, tmp_path / "p", {}, "# A card\n")
    loaded = load_policy(tmp_path / "p")
    assert isinstance(loaded, KernelPolicy)
    assert loaded.config == policy.config
    assert loaded.threshold == policy.threshold
    states = curve(seed=4).observations["state"]
    np.testing.assert_array_equal(loaded.act(states), policy.act(states))
    np.testing.assert_array_equal(loaded.beyond, policy.beyond)


def test_histories_and_chunks_work() -> None:
    policy = fitted(demonstrations(), n_obs_steps=2, horizon=3, n_action_steps=2, frame="slot")
    states = demonstrations().observations["state"][:5]
    assert policy.code_dim == 2 * 7
    actions = np.stack([policy.act(state) for state in states])
    assert actions.shape == (5, 2)
    assert np.abs(actions).max() <= 1


def test_validation_tells_the_error_and_keeps_no_gradient() -> None:
    policy = fitted()
    metrics = policy.validate(batch_of(policy, curve(seed=2)), torch.Generator())
    assert 0 <= metrics["action_error"] < 0.05
    loss, _ = policy.loss(batch_of(policy, curve(seed=2)), torch.Generator())
    assert not loss.requires_grad
    assert list(policy.parameters()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gate": "stop"}, "gate must be off, flag or hold; got 'stop'"),
        ({"keep": "best"}, "keep must be random, kmeans or herding"),
        ({"kind": "rbf"}, "kind must be ntk or nngp"),
        ({"points": -1}, r"points must be in \[0, 100000\]"),
        ({"regulariser": -1.0}, "regulariser must be in"),
        ({"members": 2}, "no ensembles"),
        ({"views": ("block",)}, "no heads for views"),
        ({"action_noise": 0.1}, "leave action_noise"),
        ({"holdout": 0.0}, "needs held-out episodes"),
        ({"probes": 0}, "the gate needs probes"),
        ({"frame": "block"}, "block"),
    ],
)
def test_bad_settings_are_one_clear_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        fitted(**settings)
    assert "\n" not in str(caught.value)


def test_bad_demonstrations_are_one_clear_line() -> None:
    demos = curve()
    with pytest.raises(ValueError, match="all actions are equal"):
        fitted(dataclasses.replace(demos, actions=np.full_like(demos.actions, 0.3)))
    broken = demos.observations["state"].copy()
    broken[3, 1] = math.nan
    with pytest.raises(ValueError, match="NaN or infinite in episode 0, step 3"):
        fitted(dataclasses.replace(demos, observations={"state": broken}))
    policy = fitted()
    demos.observations["state"][3, 1] = math.nan  # after the data set was checked
    with pytest.raises(ValueError, match="states of the demonstrations must be finite"):
        points_of(policy, demos)
    demos = curve()
    twice = {"state": np.repeat(demos.observations["state"][:100], 2, axis=0)}
    with pytest.raises(ValueError, match="is singular with a regulariser of 0; raise it"):
        fitted(dataclasses.replace(demos, observations=twice), points=0, regulariser=0.0)
    with pytest.raises(ValueError, match="sees states only; got observations pixels"):
        fitted(demonstrations("pixels"))


def test_hold_is_refused_where_zero_is_not_standing_still() -> None:
    demos = curve()
    demos.meta["action_fields"] = [{"name": "target_xy", "size": 2, "kind": "point"}]
    with pytest.raises(ValueError, match="displacements"):
        fitted(demos, gate="hold")
    demos.meta["action_fields"] = []
    with pytest.raises(ValueError, match="displacements"):
        fitted(demos, gate="hold")
    assert fitted(demos, gate="flag").threshold is not None


def test_a_refused_refit_leaves_the_policy_as_it_was() -> None:
    policy = fitted(points=30)
    before = policy.act(np.zeros(2, np.float32))
    points, labels = policy.points, policy.labels
    for bad, message in (
        ((points[:, :1], labels), r"points must be \(N, 2\)"),
        ((points, labels[:, :1]), r"actions must be \(N, 2\)"),
        ((points[:5], labels), r"labels must be \(5, C\)"),
        ((points[:0], labels[:0]), r"points must be \(N, 2\)"),
        ((points * math.nan, labels), "points must be finite"),
        ((points, labels * math.nan), "actions must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            policy.refit(*bad)
    policy.reset()
    np.testing.assert_array_equal(policy.act(np.zeros(2, np.float32)), before)


def test_a_policy_without_points_says_so() -> None:
    spec = fitted().spec
    config = config_from_dict(KernelPolicyConfig, {"points": 0})
    with pytest.raises(ValueError, match="no points yet: fit it"):
        KernelPolicy(spec, config).act(np.zeros(2, np.float32))


def test_examples_centre_their_actions() -> None:
    labels = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    examples = as_examples(torch.zeros(2, 3), labels, "two")
    assert examples.targets.tolist() == [[-1, 0], [1, 0]]
    assert examples.offset.tolist() == [2, 5]


@pytest.mark.learning
def test_blocks_outside_the_demonstrated_box_trip_the_gate(tmp_path: Path) -> None:
    from decisive.recording import RecordConfig, record

    demos = record(
        RecordConfig("decisive/BlockInsertion-v0", episodes=40, noise=0.001), tmp_path / "staging"
    )
    policy = fitted(demos, frame="slot1", relations=True, points=500)
    fresh = record(
        RecordConfig("decisive/BlockInsertion-v0", episodes=5, noise=0.001, seed=1000),
        tmp_path / "fresh",
    )
    policy.act(fresh.observations["state"])
    assert policy.beyond is not None
    assert policy.beyond.mean() < 0.05
    env = gym.make("decisive/BlockInsertion-v0")
    fields, at = env.unwrapped.state_fields, 0  # type: ignore[attr-defined]
    states = np.stack([env.reset(seed=seed)[0] for seed in range(20)])
    for field in fields:
        if field.name.startswith("block") and field.kind == "point":
            states[:, at : at + 2] += 0.4  # metres: beyond the table's far corner
        at += field.size
    env.close()
    policy.reset()
    policy.act(states)
    assert policy.beyond is not None
    assert policy.beyond.mean() > 0.95
