"""Several networks that decide together: how they are trained, and what they decide."""

import numpy as np
import pytest
import torch
from policy_cases import batch_of, demonstrations, fit, observation_at, plain, small_config

from agents import load_policy, make_policy, save_policy
from agents.implicit_bc.energy import EnergyModel, MeanEnergy
from agents.implicit_bc.langevin import action_gradient

SOURCES = {
    "mse": small_config("mse"),
    "proposal": small_config("ibc", negatives=[["proposal", 1.0]]),
    "langevin": small_config(
        "ibc",
        negatives=[["langevin", 1.0]],
        inference="langevin",
        langevin={"n_samples": 8, "n_steps": 4},
    ),
}


def make(name, demos, **changes):
    torch.manual_seed(0)
    method = "mse" if name == "mse" else "ibc"
    return make_policy(method, demos, {**SOURCES[name], **changes})


@pytest.mark.parametrize("name", SOURCES)
def test_every_parameter_of_every_member_gets_a_gradient(name):
    demos = demonstrations()
    policy = make(name, demos, members=3)
    loss, _ = policy.loss(batch_of(policy, demos), torch.Generator().manual_seed(0))
    loss.backward()
    assert len(policy.others) == 2
    for key, parameter in policy.named_parameters():
        assert parameter.grad is not None, key
        assert bool(parameter.grad.abs().sum() > 0), key


@pytest.mark.parametrize("name", SOURCES)
def test_members_differ_share_their_scales_and_survive_saving(name, tmp_path):
    demos = demonstrations()
    policy = make(name, demos, members=2).eval()
    other = policy.others[0]
    assert not torch.equal(
        policy.encoder.trunk.layers[0].weight, other.encoder.trunk.layers[0].weight
    )
    torch.testing.assert_close(policy.action_normalizer.low, other.action_normalizer.low)
    save_policy(policy, tmp_path / "p")
    loaded = load_policy(tmp_path / "p")
    obs = observation_at(demos, slice(0, 4))
    for one in (policy, loaded):
        one.reset(0)
    np.testing.assert_array_equal(loaded.act(obs), policy.act(obs))


def test_regressions_decide_by_their_mean():
    demos = demonstrations()
    policy = make("mse", demos, members=3).eval()
    obs = observation_at(demos, slice(0, 5))
    members = [make("mse", demos).eval() for _ in range(3)]
    for member, source in zip(members, (policy, *policy.others), strict=True):
        own = {k: v for k, v in source.state_dict().items() if not k.startswith("others.")}
        member.load_state_dict(own)
    expected = np.mean([member.act(obs) for member in members], axis=0)
    np.testing.assert_allclose(policy.act(obs), expected, atol=1e-6)


def test_the_mean_energy_has_the_mean_gradient():
    torch.manual_seed(0)
    models = [EnergyModel(4, 3, 8, 1) for _ in range(3)]
    code, actions = torch.randn(2, 4), torch.rand(2, 5, 3)
    mean = MeanEnergy([model.bind(code) for model in models])
    energies, gradient = action_gradient(mean, actions)
    expected = action_gradient(
        lambda y: torch.stack([model(code, y) for model in models]).mean(dim=0), actions
    )
    torch.testing.assert_close((energies, gradient), expected)
    torch.testing.assert_close(mean(actions), energies)


def test_implicit_members_that_mean_different_modes_do_not_meet_in_the_middle():
    # Two modes at -0.8 and 0.8: half way the mean energy is high, so one of them is chosen.
    rng = np.random.default_rng(0)
    sign = rng.choice([-1.0, 1.0], size=(400, 1))
    demos = plain(np.zeros((400, 2)), 0.8 * sign + 0.02 * rng.normal(size=(400, 1)))
    policy = make(
        "proposal",
        demos,
        members=2,
        proposal={"n_components": 2, "modes_first": True},
        dfo={"n_samples": 64, "n_iterations": 3},
    )
    fit(policy, demos, 200)
    policy.reset(0)
    assert abs(abs(float(policy.act(np.zeros(2, np.float32))[0])) - 0.8) < 0.15


def test_a_member_alone_is_what_it_was():
    demos = demonstrations()
    policy = make("proposal", demos).eval()
    assert len(policy.others) == 0
    assert not any(key.startswith("others") for key in policy.state_dict())


def test_methods_without_ensembles_say_so():
    demos = demonstrations()
    for method in ("mdn", "binned", "diffusion"):
        with pytest.raises(ValueError, match="has no ensembles; leave members 1"):
            make_policy(method, demos, small_config(method, members=2))
    with pytest.raises(ValueError, match="one member"):
        make_policy("ibc", demos, small_config("ibc", inference="autoregressive", members=2))
