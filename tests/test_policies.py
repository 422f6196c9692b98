"""Every policy keeps the contract: gradients, shapes, history, chunks, seeds, bad input."""

import dataclasses
import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from policy_cases import (
    ACTION_FIELDS,
    FIELDS,
    N_STATE,
    OBSERVATIONS,
    SMALL,
    STATES_ONLY,
    batch_of,
    demonstrations,
    fit,
    observation_at,
    plain,
    small_config,
)

from agents import POLICIES, Policy, PolicySpec, make_policy
from agents.config import config_from_dict, config_to_dict
from agents.mixture import MixtureHead
from agents.spec import PolicySpec as Spec

METHODS = tuple(method for method in POLICIES if method not in STATES_ONLY)

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{method: (method, {}) for method in METHODS},
    "ibc-deep": ("ibc", {"head_depth": 2, "activation": "silu", "residual": True}),
    "ibc-proposal": ("ibc", {"negatives": (("proposal", 0.5), ("uniform", 0.5))}),
    "ibc-dfo": ("ibc", {"negatives": (("dfo", 0.5), ("uniform", 0.5))}),
    "ibc-langevin": (
        "ibc",
        {
            "negatives": (("langevin", 1.0),),
            "inference": "langevin",
            "langevin": {"n_steps": 3, "n_samples": 16},
            "gradient_penalty": 1.0,
            "activation": "silu",
        },
    ),
    "ibc-spectral": ("ibc", {"spectral_norm": True}),
    "ibc-autoregressive": ("ibc", {"inference": "autoregressive"}),
    "ibc-persistent": ("ibc", {"persistence": 1.0, "warm_start": 0.25}),
    "ibc-linear": (
        "ibc",
        {
            "skip": True,
            "negatives": (("proposal", 0.5), ("uniform", 0.5)),
            "proposal": {"linear_means": True, "modes_first": True},
        },
    ),
    "mdn-linear": ("mdn", {"skip": True, "linear_means": True}),
    "mse-skip": ("mse", {"skip": True}),
    "mse-residual": ("mse", {"residual": True, "dropout": 0.1, "depth": 4}),
    "mdn-mean": ("mdn", {"decode": "mean"}),
    "binned-joint": ("binned", {"layout": "joint", "decode": "argmax"}),
    "diffusion-ancestral": ("diffusion", {"eta": 1.0}),
}


CASES = [
    (variant, observation)
    for variant, observation in product(VARIANTS, OBSERVATIONS)
    if not ("skip" in VARIANTS[variant][1] and observation == "pixels")
]


def build(variant: str, observation: str = "state", **changes: Any) -> Policy:
    method, settings = VARIANTS[variant]
    torch.manual_seed(0)
    config = small_config(method, **{**settings, **changes})
    return make_policy(method, demonstrations(observation), config)


def test_the_promised_methods_exist_and_have_a_small_config():
    assert set(POLICIES) == {"ibc", "mse", "mdn", "binned", "diffusion", "kernel"} == set(SMALL)
    assert all(POLICIES[name].method == name for name in POLICIES)


@pytest.mark.parametrize(("variant", "observation"), CASES)
def test_every_parameter_gets_a_gradient(variant, observation):
    changes = {} if variant == "binned-joint" else {"n_obs_steps": 2, "horizon": 2}
    policy = build(variant, observation, **changes)
    loss, logs = policy.loss(
        batch_of(policy, demonstrations(observation)), torch.Generator().manual_seed(0)
    )
    loss.backward()
    without = [
        name
        for name, parameter in policy.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert without == []
    assert loss.ndim == 0
    assert all(torch.isfinite(value) and not value.requires_grad for value in logs.values())


@pytest.mark.parametrize(("variant", "observation"), CASES)
def test_act_returns_bounded_float32_for_one_and_for_many(variant, observation):
    policy = build(variant, observation)
    demos = demonstrations(observation)
    one = policy.act(observation_at(demos, 0))
    policy.reset()
    many = policy.act(observation_at(demos, slice(0, 5)))
    assert one.shape == (2,)
    assert many.shape == (5, 2)
    assert one.dtype == many.dtype == np.float32
    assert np.abs(many).max() <= 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_seed_repeats_an_episode(variant):
    policy = build(variant)
    states = demonstrations().observations["state"][:4]

    def episode(seed: int) -> np.ndarray:
        policy.reset(seed)
        return np.stack([policy.act(state) for state in states])

    first = episode(7)
    np.testing.assert_array_equal(first, episode(7))
    if variant in ("ibc", "mdn", "binned", "diffusion"):
        assert not np.array_equal(first, episode(8))


@pytest.mark.parametrize("method", ["mse", "mdn-mean", "binned-joint"])
def test_a_batch_decides_each_row_as_if_it_were_alone(method):
    policy = build(method)
    states = demonstrations().observations["state"][:6]
    together = policy.act(states)
    for state, action in zip(states, together, strict=True):
        policy.reset()
        np.testing.assert_allclose(policy.act(state), action, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_validation_reports_an_action_error_and_leaves_training_mode_alone(variant):
    policy = build(variant)
    assert policy.training
    batch = batch_of(policy, demonstrations())
    metrics = policy.validate(batch, torch.Generator().manual_seed(0))
    assert policy.training
    assert 0 <= metrics["action_error"] < 2 * np.sqrt(2) * 1.1
    assert all(np.isfinite(value) for value in metrics.values())
    if variant.startswith("ibc"):
        assert 0 <= metrics["accuracy"] <= 1
        assert 0 <= metrics["expert_rank"] <= 1
    again = policy.validate(batch, torch.Generator().manual_seed(0))
    assert metrics == again


def test_forward_is_loss_so_that_wrappers_can_call_the_module():
    policy = build("ibc")
    batch = batch_of(policy, demonstrations())
    ours, _ = policy.loss(batch, torch.Generator().manual_seed(3))
    called, _ = policy(batch, torch.Generator().manual_seed(3))
    assert float(ours.detach()) == float(called.detach())


# History and chunks.


class Recorder(Policy):
    """Decides the mean of the history's first state entry, plus the step within the chunk."""

    method = "recorder"
    uses_previous = True

    def objective(self, code, target, generator):
        return code.sum(), {}

    def predict(self, code, generator, previous):
        self.seen.append(self._history["state"][..., 0].clone())
        self.previous.append(None if previous is None else previous.clone())
        steps = torch.arange(self.config.horizon, dtype=torch.float32) / 10
        base = self._history["state"][:, :, 0].mean(dim=1, keepdim=True)
        return base + steps


def recorder(**settings: Any) -> Recorder:
    config = config_from_dict(Recorder.config_class, {"width": 4, "depth": 1, **settings})
    spec = PolicySpec({"state": (1,)}, 1, (-10.0,), (10.0,))
    policy = Recorder(spec, config)
    policy.seen, policy.previous = [], []
    return policy.eval()


def test_linear_means_see_the_state_and_nothing_else_of_a_code():
    head = MixtureHead(8, 2, 3, 0.1, n_linear=3)
    code = torch.randn(5, 8)
    other = torch.cat((torch.randn(5, 5), code[:, 5:]), dim=1)
    torch.testing.assert_close(head(code).means, head(other).means)
    assert not torch.allclose(head(code).log_weights, head(other).log_weights)
    doubled = torch.cat((code[:, :5], 2 * code[:, 5:]), dim=1)
    none = torch.cat((code[:, :5], 0 * code[:, 5:]), dim=1)
    slope = head(code).means - head(none).means
    torch.testing.assert_close(head(doubled).means, head(none).means + 2 * slope)


def test_a_code_that_skips_ends_with_the_normalised_state():
    policy = build("mse-skip")
    state = torch.from_numpy(demonstrations().observations["state"][:4])[:, None]
    code, _ = policy._encode({"state": state}, None)
    assert code.shape == (4, policy.code_dim) == (4, 16 + state.shape[-1])
    torch.testing.assert_close(code[:, 16:], policy.observation_normalizer(state)[:, 0])


@pytest.mark.parametrize(
    ("method", "settings", "observation", "message"),
    [
        ("mse", {"skip": True}, "pixels", "skip needs a state"),
        ("mdn", {"linear_means": True}, "state", "set skip"),
    ],
)
def test_codes_without_a_state_have_nothing_to_skip(method, settings, observation, message):
    with pytest.raises(ValueError, match=message):
        make_policy(method, demonstrations(observation), small_config(method, **settings))


def test_history_starts_full_of_the_first_observation_and_then_slides():
    policy = recorder(n_obs_steps=3)
    for value in (1.0, 2.0, 3.0, 4.0):
        policy.act(np.array([value], np.float32))
    assert [seen[0].tolist() for seen in policy.seen] == [
        [1, 1, 1],
        [1, 1, 2],
        [1, 2, 3],
        [2, 3, 4],
    ]
    policy.reset()
    policy.act(np.array([9.0], np.float32))
    assert policy.seen[-1][0].tolist() == [9, 9, 9]


def test_history_is_kept_row_by_row():
    policy = recorder(n_obs_steps=2)
    policy.act(np.array([[1.0], [10.0]], np.float32))
    policy.act(np.array([[2.0], [20.0]], np.float32))
    assert policy.seen[-1].tolist() == [[1, 2], [10, 20]]


def test_history_matches_the_windows_that_training_sees():
    demos = demonstrations()
    policy = recorder(n_obs_steps=3)
    windows = demos.windows(3, 1)
    states = demos.observations["state"][:, :1]
    start, stop = demos.episode_offsets[1], demos.episode_offsets[2]
    for row in range(start, stop):
        policy.act(states[row])
        expected = states[windows.observations[row], 0]
        np.testing.assert_array_equal(policy.seen[-1][0], expected)


def test_a_chunk_runs_for_n_action_steps_before_the_next_decision():
    policy = recorder(horizon=4, n_action_steps=3)
    actions = [float(policy.act(np.array([v], np.float32))[0]) for v in (0.0, 5.0, 5.0, 0.5)]
    assert actions == pytest.approx([0.0, 0.1, 0.2, 0.5])
    assert len(policy.seen) == 2


def test_history_also_fills_while_a_chunk_runs():
    policy = recorder(n_obs_steps=2, horizon=2, n_action_steps=2)
    for value in (0.0, 1.0, 2.0):
        policy.act(np.array([value], np.float32))
    assert policy.seen[-1][0].tolist() == [1, 2]


def test_the_previous_decision_is_moved_on_by_the_steps_executed():
    policy = recorder(horizon=4, n_action_steps=3)
    for value in (0.0, 0.0, 0.0, 0.5):
        policy.act(np.array([value], np.float32))
    assert policy.previous[0] is None
    assert policy.previous[1][0].tolist() == pytest.approx([0.3, 0.3, 0.3, 0.3])
    policy.reset()
    policy.act(np.array([0.0], np.float32))
    assert policy.previous[-1] is None


def test_actions_are_clipped_to_the_action_space():
    policy = recorder()
    assert policy.act(np.array([50.0], np.float32)).tolist() == [10.0]


# Bad input.


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        (np.zeros(N_STATE + 1, np.float32), r"'state' must be \(7,\) or \(B, 7\); got \(8,\)"),
        (np.zeros((2, 2, N_STATE), np.float32), r"got \(2, 2, 7\)"),
        (np.zeros((0, N_STATE), np.float32), r"got \(0, 7\)"),
        (np.full(N_STATE, np.nan, np.float32), "must be finite; entry 0"),
        (np.array([0, 0, np.inf, 0, 0, 0, 0]), "must be finite; entry 2 is inf"),
        (np.array(["a"] * N_STATE), "must be an array of numbers"),
        ([[0.0], [0.0, 1.0]], "must be an array of numbers"),
        ({"pixels": np.zeros(3)}, "state missing"),
        (None, "must be an array of numbers"),
    ],
)
def test_a_bad_observation_is_refused_in_one_clear_line(obs, message):
    policy = build("mse")
    with pytest.raises(ValueError, match=message) as caught:
        policy.act(obs)
    assert "\n" not in str(caught.value)


def test_pixels_must_be_uint8_and_mappings_complete():
    policy = build("mse", "both")
    good = observation_at(demonstrations("both"), 0)
    policy.act(good)
    with pytest.raises(ValueError, match="uint8"):
        policy.act({**good, "pixels": good["pixels"].astype(np.float32)})
    with pytest.raises(ValueError, match="mapping with the keys state, pixels; got ndarray"):
        policy.act(good["state"])
    with pytest.raises(ValueError, match="pixels missing"):
        policy.act({"state": good["state"]})
    with pytest.raises(ValueError, match="same batch size"):
        policy.act({"state": good["state"][None], "pixels": good["pixels"]})


def test_a_refused_observation_leaves_the_episode_as_it_was():
    policy = recorder(n_obs_steps=2)
    policy.act(np.array([1.0], np.float32))
    with pytest.raises(ValueError, match="finite"):
        policy.act(np.array([np.nan], np.float32))
    policy.act(np.array([2.0], np.float32))
    assert policy.seen[-1][0].tolist() == [1, 2]


def test_the_batch_size_may_change_only_at_reset():
    policy = build("mse")
    states = demonstrations().observations["state"]
    policy.act(states[:3])
    with pytest.raises(ValueError, match="keep its 3 rows within an episode; got 2; call reset"):
        policy.act(states[:2])
    policy.reset()
    assert policy.act(states[:2]).shape == (2, 2)


def test_batches_of_another_shape_are_refused_in_training():
    policy = build("mse", horizon=2)
    good = batch_of(policy, demonstrations())
    generator = torch.Generator()
    with pytest.raises(ValueError, match=r"actions must be \(B, 2, 2\); got \(60, 1, 2\)"):
        policy.loss(dataclasses.replace(good, actions=good.actions[:, :1]), generator)
    wrong = {"state": good.observations["state"][..., :3]}
    with pytest.raises(ValueError, match=r"'state' must be \(60, 1, 7\); got \(60, 1, 3\)"):
        policy.loss(dataclasses.replace(good, observations=wrong), generator)


def test_fit_refuses_other_spaces():
    policy = build("mse")
    with pytest.raises(ValueError, match="demonstrations must have observations"):
        policy.fit(demonstrations("pixels"))
    with pytest.raises(ValueError, match="2-D actions"):
        policy.fit(demonstrations(action_dim=1))


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("nope", {}, "unknown policy method 'nope'; known: ibc, mse, mdn, binned, diffusion"),
        ("mse", {"widht": 3}, r"unknown settings widht; known: .*activation"),
        ("mse", {"width": "3"}, "config.width must be int; got '3'"),
        ("mse", {"width": 0}, r"width must be in \[1, 8192\]; got 0"),
        ("mse", {"width": 10**9}, "width must be in"),
        ("mse", {"dropout": float("nan")}, "dropout must be in"),
        ("mse", {"horizon": 2, "n_action_steps": 3}, "must not exceed horizon; got 3 > 2"),
        ("mse", {"activation": "gelu"}, "one of relu, silu, tanh; got 'gelu'"),
        ("mse", {"conv_channels": []}, "conv_channels must be"),
        ("mse", {"frame": "block"}, "needs the fields block_xy .* known frames: slot"),
        ("mdn", {"decode": "mode"}, "one of sample, mean"),
        ("binned", {"layout": "tree"}, "one of autoregressive, joint"),
        ("binned", {"layout": "joint", "horizon": 2}, "at most 2 numbers per decision; got 4"),
        ("diffusion", {"n_steps": 200}, r"n_steps must be in \[1, 10\]"),
        ("ibc", {"inference": "guess"}, "one of dfo, autoregressive, langevin"),
        ("ibc", {"negatives": [["typo", 1.0]]}, "must name some of uniform, dfo"),
        ("ibc", {"negatives": [["uniform", 0.0]]}, "shares above 0, at most 1e"),
        ("ibc", {"negatives": [["uniform", 1e308]]}, "shares above 0, at most 1e"),
        ("ibc", {"negatives": [["proposal", 1.0], ["dfo", 1.0]]}, "mix with uniform ones only"),
        ("ibc", {"inference": "autoregressive", "persistence": 1.0}, "neither gradient penalty"),
        ("ibc", {"dfo": {"n_samples": -1}}, "n_samples must be in"),
        ("ibc", {"dfo": {"steps": 1}}, "config.dfo has unknown settings steps"),
        ("ibc", {"langevin": {"noise_scaling": "cube"}}, "one of sqrt, linear"),
    ],
)
def test_impossible_settings_are_refused_in_one_clear_line(method, settings, message):
    settings = small_config(method, **settings) if method in SMALL else settings
    with pytest.raises(ValueError, match=message) as caught:
        make_policy(method, demonstrations(), settings)
    assert "\n" not in str(caught.value)


def test_a_policy_refuses_another_methods_config():
    spec = PolicySpec.from_demonstrations(demonstrations())
    with pytest.raises(ValueError, match="needs a MdnConfig; got MseConfig"):
        POLICIES["mdn"](spec, POLICIES["mse"].config_class())


# Spec and config as JSON.


@pytest.mark.parametrize("variant", VARIANTS)
def test_configs_survive_json(variant):
    method, settings = VARIANTS[variant]
    config = config_from_dict(POLICIES[method].config_class, small_config(method, **settings))
    assert config_from_dict(type(config), config_to_dict(config)) == config


def test_specs_survive_json_with_infinite_bounds():
    spec = PolicySpec.from_demonstrations(demonstrations("both"))
    spec = dataclasses.replace(spec, action_low=(-np.inf, -1.0), action_high=(1.0, np.inf))
    values = spec.to_dict()
    assert values["action_low"] == [None, -1.0]
    assert Spec.from_dict(values) == spec
    assert [f["name"] for f in values["observation_fields"]] == [f["name"] for f in FIELDS]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observation": {"sound": [3]}}, "must be among state, pixels; got sound"),
        ({"observation": {"state": [0]}}, "1 positive sizes"),
        ({"observation": [1]}, "must map keys to shapes"),
        ({"action_dim": 2.0}, "a size must be an integer"),
        ({"action_low": [0.0]}, "action_low must be 2 numbers"),
        ({"action_low": [3.0, 0.0]}, "must not exceed action_high"),
        ({"observation_fields": FIELDS[:2]}, "7 entries, but its fields cover 4"),
        ({"action_fields": [*ACTION_FIELDS, *ACTION_FIELDS]}, "fields cover 4"),
        ({"action_fields": [{"name": "x", "size": 3, "kind": "point"}]}, "even size"),
        ({"action_fields": [{"name": "x", "size": 2, "kind": "colour"}]}, "of a kind in point"),
        ({"action_fields": [7]}, "must give name, size and kind"),
    ],
)
def test_bad_specs_are_refused(change, message):
    values = PolicySpec.from_demonstrations(demonstrations()).to_dict() | change
    with pytest.raises(ValueError, match=message):
        Spec.from_dict(values)
    missing = dict(values)
    del missing["action_dim"]
    with pytest.raises(ValueError, match="KeyError: 'action_dim'"):
        Spec.from_dict({**missing, "observation": {"state": [7]}})


# Learning.


def two_modes(n: int = 512) -> Any:
    """The same observation, two answers: +0.6 and -0.6, and nothing between."""
    rng = np.random.default_rng(0)
    states = rng.uniform(-1, 1, (n, 1))
    actions = rng.choice([-0.6, 0.6], (n, 1)) + 0.01 * rng.normal(size=(n, 1))
    return plain(states, actions)


LEARNERS: dict[str, dict[str, Any]] = {
    "ibc": {"n_negatives": 32, "head_width": 32, "dfo": {"n_samples": 128}},
    "mdn": {"n_components": 3},
    "binned": {"n_bins": 16, "head_width": 32},
    "diffusion": {"n_train_steps": 20, "n_steps": 10, "head_width": 64},
}


@pytest.mark.learning
@pytest.mark.parametrize("method", LEARNERS)
def test_multimodal_policies_keep_a_mode_where_regression_averages(method):
    torch.manual_seed(0)
    demos = two_modes()
    policy = make_policy(method, demos, {"width": 32, "depth": 2, **LEARNERS[method]})
    fit(policy, demos, 300, rate=1e-2)
    policy.reset(0)
    actions = policy.act(np.linspace(-1, 1, 64, dtype=np.float32)[:, None])[:, 0]
    near = np.minimum(np.abs(actions - 0.6), np.abs(actions + 0.6))
    assert np.median(near) < 0.06
    assert np.mean(near < 0.15) > 0.9


@pytest.mark.learning
def test_regression_averages_two_modes():
    torch.manual_seed(0)
    demos = two_modes()
    policy = make_policy("mse", demos, {"width": 32, "depth": 2})
    fit(policy, demos, 150, rate=1e-2)
    actions = policy.act(np.linspace(-1, 1, 64, dtype=np.float32)[:, None])
    assert np.abs(actions).max() < 0.3


@pytest.mark.learning
@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_a_function_of_the_state(method):
    rng = np.random.default_rng(0)
    states = rng.uniform(-1, 1, (512, 2))
    demos = plain(states, 0.8 * states[:, ::-1])
    spread = float(np.linalg.norm(demos.actions - demos.actions.mean(0), axis=1).mean())
    torch.manual_seed(0)
    policy = make_policy(method, demos, {"width": 32, "depth": 2, **LEARNERS.get(method, {})})
    fit(policy, demos, 250, rate=1e-2)
    metrics = policy.validate(batch_of(policy, demos), torch.Generator().manual_seed(0))
    assert metrics["action_error"] < 0.3 * spread


@pytest.mark.parametrize("high", [1e308, 1e10])
def test_bounds_that_would_overflow_are_refused(high):
    with pytest.raises(ValueError, match="finite action bounds must lie within 1e"):
        PolicySpec({"state": (1,)}, 1, (-1.0,), (high,))


def test_an_infinite_bound_is_no_bound():
    assert PolicySpec({"state": (1,)}, 1, (-math.inf,), (math.inf,)).action_dim == 1
