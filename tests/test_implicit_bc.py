"""Implicit BC: the loss by hand, the argmin, the chains, and the public faults, mended."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_cases import batch_of, demonstrations, fit, plain, small_config
from torch import Tensor

from agents import make_policy
from agents.implicit_bc import DfoConfig, ImplicitPolicy, LangevinConfig
from agents.implicit_bc.autoregressive import autoregressive_dfo, autoregressive_energies
from agents.implicit_bc.dfo import dfo, resample
from agents.implicit_bc.energy import AutoregressiveEnergy, EnergyModel
from agents.implicit_bc.info_nce import accuracy, expert_rank, info_nce
from agents.implicit_bc.langevin import (
    action_gradient,
    gradient_penalty,
    langevin,
    langevin_step,
    minimise,
    step_sizes,
)
from agents.implicit_bc.negatives import Context, draw_negatives
from agents.implicit_bc.proposal import Proposal, ProposalConfig
from agents.mixture import Mixture, MixtureHead


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cube(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=seeded(seed)) * 2 - 1


def bowl(centre: Tensor, width: float) -> Callable[[Tensor], Tensor]:
    """Gaussian energy bowl: `|y - centre|^2 / (2 width^2)`."""
    return lambda y: (y - centre).square().sum(-1) / (2 * width**2)


# The loss.


def test_info_nce_of_a_case_worked_by_hand():
    # Energies 0, ln 2, ln 4: probabilities proportional to 1, 1/2, 1/4, so p(expert) = 4/7.
    energy = torch.tensor([[0.0, math.log(2), math.log(4)]])
    assert float(info_nce(energy)) == pytest.approx(math.log(7 / 4))
    # At temperature 1/2 the odds are squared: 1, 1/4, 1/16.
    assert float(info_nce(energy, 0.5)) == pytest.approx(math.log(21 / 16))


def test_info_nce_of_equal_energies_is_chance():
    np.testing.assert_allclose(info_nce(torch.full((3, 10), 5.0)), math.log(10), rtol=1e-6)


@given(st.integers(0, 2**31), st.integers(1, 20), st.floats(-50, 50))
@settings(max_examples=50, deadline=None)
def test_info_nce_ignores_the_order_of_negatives_and_a_constant(seed, n, shift):
    energy = torch.randn(4, n + 1, generator=seeded(seed), dtype=torch.float64)
    order = torch.randperm(n, generator=seeded(seed)) + 1
    shuffled = torch.cat((energy[:, :1], energy[:, order]), dim=1)
    loss = info_nce(energy)
    torch.testing.assert_close(info_nce(shuffled), loss)
    torch.testing.assert_close(info_nce(energy + shift), loss)
    assert (loss >= 0).all()


def test_info_nce_needs_a_negative():
    with pytest.raises(ValueError, match=r"at least one negative; got \(3, 1\)"):
        info_nce(torch.zeros(3, 1))


def test_accuracy_and_rank_of_known_rows():
    energy = torch.tensor([[0.0, 1.0, 2.0, 3.0], [2.0, 1.0, 3.0, 4.0], [1.0, 1.0, 1.0, 1.0]])
    assert float(accuracy(energy)) == pytest.approx(1 / 3)
    assert float(expert_rank(energy)) == pytest.approx((0 + 1 / 3 + 1 / 2) / 3)


# The network.


@pytest.mark.parametrize("activation", ["relu", "silu"])
@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("shape", [(1, 5), (3, 7), (2, 2500), (40, 100)])
def test_the_quick_energy_equals_the_plain_one(activation, depth, shape):
    torch.manual_seed(0)
    model = EnergyModel(6, 3, 8, depth, activation)
    code, actions = torch.randn(shape[0], 6), cube((*shape, 3))
    with torch.inference_mode():
        quick = model.bind(code)
        torch.testing.assert_close(quick(actions), model(code, actions), atol=1e-5, rtol=1e-4)
        # Again with other numbers of candidates: buffers are reused.
        fewer = actions[:, :3]
        torch.testing.assert_close(quick(fewer), model(code, fewer), atol=1e-5, rtol=1e-4)


def test_spectral_norm_bounds_the_slope_of_the_energy():
    config = small_config("ibc", spectral_norm=True)
    policy = make_policy("ibc", demonstrations(), config)
    assert isinstance(policy, ImplicitPolicy)
    for _ in range(30):  # Power iterations run in training mode.
        policy.energy(torch.zeros(1, 16), torch.zeros(1, 1, 2))
    policy.eval()
    code, a, b = torch.randn(4, 16), cube((4, 50, 2), 1), cube((4, 50, 2), 2)
    rise = (policy.energy(code, a) - policy.energy(code, b)).abs()
    assert (rise <= (a - b).norm(dim=-1) * 1.02).all()
    weights = [m.weight for m in policy.modules() if isinstance(m, torch.nn.Linear)]
    norms = [float(torch.linalg.matrix_norm(w.detach(), 2)) for w in weights]
    assert max(norms) < 1.1


# Derivative-free optimisation.


def released_pick(energy, samples, config, generator):
    """Selection as in the released code: old probabilities, new samples."""
    std = config.noise_std
    for i in range(config.n_iterations):
        probabilities = torch.softmax(-energy(samples), dim=1)
        index = torch.multinomial(probabilities, samples.shape[1], True, generator=generator)
        samples = samples.gather(1, index[..., None].expand_as(samples))
        if i + 1 < config.n_iterations:
            noise = torch.randn(samples.shape, generator=generator)
            samples = (samples + noise * std).clamp(-1, 1)
            std *= config.decay
    best = probabilities.argmax(dim=1)
    return samples[torch.arange(len(samples)), best]


@pytest.mark.parametrize(("width", "reference"), [(0.02, 0.0012), (0.05, 0.0019), (0.1, 0.0016)])
def test_the_argmin_is_the_argmin(width, reference):
    """Fault 1. The reference column is "true argmax" of the measurement at 16,384 samples."""
    centre = cube((16, 1, 2)) * 0.8
    config = DfoConfig(n_samples=16_384, n_iterations=3)
    samples = cube((16, config.n_samples, 2), 1)
    energy = bowl(centre, width)
    found = dfo(energy, samples, config, seeded()).action
    error = float((found - centre[:, 0]).norm(dim=-1).mean())
    faulty = released_pick(energy, samples, config, seeded())
    faulty_error = float((faulty - centre[:, 0]).norm(dim=-1).mean())
    assert error < 3 * reference
    assert faulty_error > 8 * error


def test_the_result_is_the_best_of_everything_evaluated():
    seen: list[tuple[Tensor, Tensor]] = []
    centre = cube((5, 1, 3))

    def energy(y: Tensor) -> Tensor:
        values = bowl(centre, 0.1)(y)
        seen.append((y.clone(), values.clone()))
        return values

    result = dfo(energy, cube((5, 64, 3), 1), DfoConfig(n_samples=64, n_iterations=4), seeded())
    assert len(seen) == 4
    actions, energies = (torch.cat(parts, dim=1) for parts in zip(*seen, strict=True))
    lowest, index = energies.min(dim=1)
    torch.testing.assert_close(result.energy, lowest)
    torch.testing.assert_close(result.action, actions[torch.arange(5), index])
    # Clipped after the noise (fault 10): no candidate left the box.
    assert float(actions.abs().max()) <= 1


@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 40), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_more_iterations_never_make_the_result_worse(seed, dim, n, n_iterations):
    weights = torch.randn(2, dim, generator=seeded(seed))

    def energy(y: Tensor) -> Tensor:
        return torch.sin(5 * (y * weights[:, None]).sum(-1)) + y.square().sum(-1)

    samples = cube((2, n, dim), seed)
    config = DfoConfig(n_samples=n, n_iterations=n_iterations)
    result = dfo(energy, samples, config, seeded(seed))
    assert (result.energy <= energy(samples).min(dim=1).values + 1e-6).all()
    torch.testing.assert_close(energy(result.action[:, None])[:, 0], result.energy)
    assert result.action.abs().max() <= 1


def test_dfo_leaves_its_first_candidates_unchanged():
    samples = cube((2, 32, 2))
    before = samples.clone()
    dfo(bowl(torch.zeros(2), 0.1), samples, DfoConfig(n_samples=32), seeded())
    assert torch.equal(samples, before)


def test_resampling_takes_each_candidate_its_expected_number_of_times():
    energies = torch.randn(4, 200, generator=seeded())
    expected = torch.softmax(-energies, dim=1) * 200
    counts = torch.zeros(4, 200).scatter_add_(1, resample(energies, seeded()), torch.ones(4, 200))
    assert float((counts - expected).abs().max()) < 1.01
    assert counts.sum(1).tolist() == [200] * 4


def test_resampling_survives_extreme_energies():
    energies = torch.tensor([[0.0, 1e30, 1e30], [-1e30, 0.0, 5.0]])
    assert resample(energies, seeded()).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_autoregressive_search_finds_a_minimum_in_many_dimensions():
    class Bowls(EnergyModel):
        """`E_j = (y_j - t_j)^2 / (2 w^2)`, where t_j depends on the entry before."""

        def __init__(self, j: int) -> None:
            super().__init__(1, j + 1, 1, 0)
            self.j = j

        def target(self, before: Tensor) -> Tensor:
            return 0.5 - before

        def bind(self, code):
            def energy(y: Tensor) -> Tensor:
                before = y[..., self.j - 1] if self.j else torch.zeros_like(y[..., 0])
                return (y[..., self.j] - self.target(before)).square() / (2 * 0.05**2)

            return energy

    model = AutoregressiveEnergy(1, 12, 1, 0)
    model.heads = torch.nn.ModuleList([Bowls(j) for j in range(12)])
    config = DfoConfig(n_samples=256, n_iterations=3)
    found = autoregressive_dfo(model, torch.zeros(3, 1), config, seeded())
    expected = torch.tensor([0.5, 0.0] * 6).expand(3, -1)
    assert float((found - expected).abs().max()) < 0.03


def test_autoregressive_heads_see_only_the_entries_before():
    torch.manual_seed(0)
    model = AutoregressiveEnergy(4, 3, 8, 1)
    code, target = torch.randn(5, 4), cube((5, 3))
    changed = target.clone()
    changed[:, 2] = 0
    first = autoregressive_energies(model, code, target, 6, seeded())
    second = autoregressive_energies(model, code, changed, 6, seeded())
    assert first.shape == (3, 5, 7)
    torch.testing.assert_close(first[:2], second[:2])
    assert not torch.equal(first[2, :, 0], second[2, :, 0])
    total = sum(first[j, :, 0] for j in range(3))
    torch.testing.assert_close(model(code, target[:, None])[:, 0], total)


# Langevin.


def test_the_schedule_runs_polynomially_between_its_ends():
    config = LangevinConfig(n_steps=5, step_size=0.1, final_step_size=0.02, power=2.0)
    expected = [0.08 * (1 - k / 4) ** 2 + 0.02 for k in range(5)]
    assert step_sizes(config) == pytest.approx(expected)
    assert step_sizes(dataclasses.replace(config, n_steps=1)) == pytest.approx([0.1])


def test_a_langevin_chain_samples_the_boltzmann_density():
    """Fault 3: with sqrt(lambda) noise, `E = y^2 / (2 s^2)` is sampled with variance `s^2`."""
    s = 0.2
    config = LangevinConfig(
        n_steps=150, step_size=0.004, final_step_size=0.004, noise=1.0, delta_clip=None
    )
    start = torch.zeros(1, 20_000, 1)
    drawn = langevin(bowl(torch.zeros(1), s), start, config, seeded()).samples
    # Exact for the discretised chain: y' = (1 - l/2s^2) y + sqrt(l) w has var s^2/(1 - l/4s^2).
    expected = s**2 / (1 - 0.004 / (4 * s**2))
    assert float(drawn.var()) == pytest.approx(expected, rel=0.04)
    linear = dataclasses.replace(config, noise_scaling="linear")
    sharper = langevin(bowl(torch.zeros(1), s), start, linear, seeded()).samples
    assert float(sharper.var()) < 0.05 * expected


def test_one_step_is_the_formula():
    y, gradient = torch.tensor([[[0.1, -0.2]]]), torch.tensor([[[1.0, -2.0]]])
    config = LangevinConfig(noise=0.7, delta_clip=None)
    noise = torch.randn(1, 1, 2, generator=seeded(3))
    out = langevin_step(y, gradient, 0.04, config, seeded(3))
    torch.testing.assert_close(out, y - 0.02 * gradient + 0.2 * 0.7 * noise)
    linear = dataclasses.replace(config, noise_scaling="linear")
    out = langevin_step(y, gradient, 0.04, linear, seeded(3))
    torch.testing.assert_close(out, y - 0.04 * (0.5 * gradient - 0.7 * noise))
    clipped = dataclasses.replace(config, noise=0.0, delta_clip=0.03)
    out = langevin_step(y, gradient * 100, 0.04, clipped, seeded(3))
    torch.testing.assert_close(out, y + torch.tensor([[[-0.03, 0.03]]]))


@pytest.mark.parametrize("run", [langevin, minimise])
def test_the_configured_noise_is_used_in_every_chain(run):
    """Fault 2: without noise the result cannot depend on the seed; with noise it must."""
    quiet = LangevinConfig(n_steps=4, noise=0.0)
    start = cube((1, 8, 2))
    energy = bowl(torch.zeros(2), 0.3)
    first, second = (run(energy, start, quiet, seeded(seed)).samples for seed in (0, 1))
    assert torch.equal(first, second)
    loud = dataclasses.replace(quiet, noise=0.5)
    first, second = (run(energy, start, loud, seeded(seed)).samples for seed in (0, 1))
    assert not torch.equal(first, second)


def test_langevin_finds_the_minimum_and_keeps_the_best_position():
    centre = cube((4, 1, 5)) * 0.8
    config = LangevinConfig(n_samples=64, n_steps=60, step_size=0.05, noise=0.1)
    result = minimise(bowl(centre, 0.3), cube((4, 64, 5), 1), config, seeded())
    assert float((result.action - centre[:, 0]).norm(dim=-1).max()) < 0.1
    torch.testing.assert_close(bowl(centre, 0.3)(result.action[:, None])[:, 0], result.energy)
    assert (result.energy <= bowl(centre, 0.3)(result.samples).min(dim=1).values).all()
    assert float(result.samples.abs().max()) <= 1


def test_the_gradient_penalty_of_a_known_slope():
    slope = torch.tensor([3.0, -0.5], requires_grad=True)
    penalty = gradient_penalty(lambda y: y @ slope, cube((2, 4, 2)), margin=1.0)
    assert float(penalty.detach()) == pytest.approx((3 - 1) ** 2)
    penalty.backward()
    assert slope.grad is not None
    assert slope.grad.tolist() == pytest.approx([4.0, 0.0])
    gentle = gradient_penalty(lambda y: 0.9 * y.sum(-1), cube((2, 4, 2)))
    assert float(gentle) == 0


def test_action_gradients_work_inside_inference_mode():
    with torch.inference_mode():
        values, gradient = action_gradient(bowl(torch.zeros(2), 1.0), cube((1, 3, 2)))
    torch.testing.assert_close(gradient, cube((1, 3, 2)))
    assert not values.requires_grad


# Counter-examples and the proposal.


@pytest.mark.parametrize(
    "negatives",
    [
        (("uniform", 1.0),),
        (("dfo", 1.0), ("uniform", 2.0)),
        (("langevin", 0.3), ("dfo", 0.3), ("uniform", 0.4)),
        (("proposal", 1.0), ("uniform", 1.0)),
    ],
)
@pytest.mark.parametrize("n", [1, 2, 7, 10])
def test_sources_add_up_to_the_number_asked_for(negatives, n):
    config = small_config("ibc", negatives=negatives, n_negatives=n, langevin={"n_steps": 2})
    policy = make_policy("ibc", demonstrations(), config)
    assert isinstance(policy, ImplicitPolicy)
    torch.manual_seed(0)
    mixture = MixtureHead(4, 2, 3, 0.05)(torch.randn(5, 4))
    context = Context(cube((5, 2)), bowl(torch.zeros(2), 0.1), mixture, policy.config)
    drawn = draw_negatives(context, seeded())
    assert drawn.shape == (5, n, 2)
    assert not drawn.requires_grad


def test_dfo_negatives_gather_where_the_energy_is_low():
    config = make_policy("ibc", demonstrations(), small_config("ibc")).config
    hard = dataclasses.replace(config, negatives=(("dfo", 1.0),), n_negatives=256)  # type: ignore[call-arg]
    easy = dataclasses.replace(hard, negatives=(("uniform", 1.0),))  # type: ignore[call-arg]
    energy = bowl(torch.full((2,), 0.5), 0.1)
    means = [
        float(energy(draw_negatives(Context(cube((4, 2)), energy, None, c), seeded())).mean())
        for c in (hard, easy)  # type: ignore[arg-type]
    ]
    assert means[0] < 0.3 * means[1]


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_the_corrected_ranking_loss_starts_at_chance(share):
    """Residual parametrisation: a fresh head puts the loss near ln(N + 1), whatever q is."""
    torch.manual_seed(0)
    n = 24
    negatives = (("proposal", share), ("uniform", 1 - share))
    config = small_config("ibc", width=64, n_negatives=n, negatives=negatives)
    config["proposal"] = {"min_std": 0.03}
    demos = demonstrations(n=600)
    policy = make_policy("ibc", demos, config)
    _, logs = policy.loss(batch_of(policy, demos), seeded())
    assert float(logs["info_nce"]) == pytest.approx(math.log(n + 1), abs=0.03)


def test_the_energy_of_a_fresh_network_is_minus_the_proposals_log_density():
    torch.manual_seed(0)
    config = small_config("ibc", negatives=(("proposal", 1.0), ("uniform", 1.0)))
    policy = make_policy("ibc", demonstrations(), config)
    assert isinstance(policy, ImplicitPolicy)
    assert policy.proposal is not None
    assert isinstance(policy.energy, EnergyModel)
    with torch.no_grad():
        policy.energy.out.weight.zero_()
    code, actions = torch.randn(3, 16), cube((3, 20, 2))
    density = policy.proposal.log_prob(policy.proposal(code), actions).detach()
    torch.testing.assert_close(
        policy._bind(*policy._considered(code))(actions), -density, atol=1e-4, rtol=1e-4
    )


def test_the_ranking_loss_sends_no_gradient_into_the_proposal_nor_its_likelihood_into_the_code():
    config = small_config("ibc", negatives=(("proposal", 1.0), ("uniform", 1.0)))
    config["proposal"] = {"weight": 0.0}
    policy = make_policy("ibc", demonstrations(), config)
    assert isinstance(policy, ImplicitPolicy)
    assert policy.proposal is not None
    policy.loss(batch_of(policy, demonstrations()), seeded())[0].backward()
    assert all(not p.grad.abs().sum() for p in policy.proposal.parameters() if p.grad is not None)
    code = torch.randn(2, 16, requires_grad=True)
    policy.proposal.nll(policy.proposal(code), cube((2, 2))).backward()
    assert code.grad is None


def test_the_proposals_density_integrates_to_one_and_matches_its_draws():
    torch.manual_seed(1)
    config = small_config("ibc", negatives=(("proposal", 3.0), ("uniform", 1.0)))
    policy = make_policy("ibc", plain(np.zeros((9, 1)), np.linspace(-1, 1, 9)[:, None]), config)
    assert isinstance(policy, ImplicitPolicy)
    assert policy.proposal is not None
    mixture = Mixture(
        torch.tensor([[0.6, 0.4]]).log(),
        torch.tensor([[[-0.3], [0.4]]]),
        torch.tensor([[[0.05], [0.1]]]).log(),
    )
    grid = torch.linspace(-1, 1, 4001).view(1, -1, 1)
    density = policy.proposal.log_prob(mixture, grid).exp()[0]
    assert float(torch.trapezoid(density, grid[0, :, 0])) == pytest.approx(1, abs=1e-3)
    drawn = policy.proposal.sample(mixture, 40_000, seeded())[0, :, 0]
    share = float(((drawn > -0.4) & (drawn < -0.2)).float().mean())
    inside = density[(grid[0, :, 0] > -0.4) & (grid[0, :, 0] < -0.2)]
    assert share == pytest.approx(float(inside.sum()) * 0.0005, abs=0.01)


@pytest.mark.parametrize("n", [3, 50])
def test_the_mixtures_density_is_that_of_torch_distributions(n):
    torch.manual_seed(0)
    mixture = MixtureHead(4, 3, 5, 0.05, hidden=8)(torch.randn(6, 4))
    actions = cube((6, n, 3))
    reference = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=mixture.log_weights[:, None]),
        torch.distributions.Independent(
            torch.distributions.Normal(mixture.means[:, None], mixture.log_stds[:, None].exp()), 1
        ),
    ).log_prob(actions)
    torch.testing.assert_close(mixture.log_prob(actions), reference, atol=1e-4, rtol=1e-4)
    drawn = mixture.sample(20_000, seeded())
    expected = (mixture.log_weights.exp()[..., None] * mixture.means).sum(1)
    torch.testing.assert_close(drawn.mean(1), expected, atol=0.03, rtol=0)


# Deciding.


def symmetric(persistence: float, warm_start: float = 0.0) -> ImplicitPolicy:
    """A policy whose energy has two equal minima at -0.5 and +0.5, whatever it sees."""

    class TwoBowls(EnergyModel):
        def bind(self, code):
            return lambda y: (
                -torch.logsumexp(
                    torch.stack([-bowl(torch.tensor([c]), 0.1)(y) for c in (-0.5, 0.5)]), dim=0
                )
            )

    demos = plain(np.zeros((9, 1)), np.linspace(-0.9, 0.9, 9)[:, None])
    config = small_config("ibc", persistence=persistence, warm_start=warm_start)
    policy = make_policy("ibc", demos, config)
    assert isinstance(policy, ImplicitPolicy)
    policy.energy = TwoBowls(16, 1, 4, 0)
    return policy.eval()


def changes_of_mind(policy: ImplicitPolicy) -> int:
    policy.reset(0)
    signs = [np.sign(policy.act(np.zeros(1, np.float32))[0]) for _ in range(40)]
    return int((np.diff(signs) != 0).sum())


def test_persistence_ends_redeciding_between_equal_minima():
    assert changes_of_mind(symmetric(0.0)) > 8
    assert changes_of_mind(symmetric(1.0)) == 0
    assert changes_of_mind(symmetric(1.0, warm_start=0.5)) == 0


def test_persistence_is_forgotten_at_reset():
    policy = symmetric(1.0)
    first = []
    for seed in range(12):
        policy.reset(seed)
        first.append(np.sign(policy.act(np.zeros(1, np.float32))[0]))
    assert {-1.0, 1.0} == set(first)


def test_the_landscape_is_lowest_where_the_policy_acts():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    states = rng.uniform(-1, 1, (256, 2))
    demos = plain(states, states * 0.05, low=-0.1, high=0.1)
    config = {"width": 32, "depth": 2, "n_negatives": 16, "dfo": {"n_samples": 512}}
    policy = make_policy("ibc", demos, config)
    assert isinstance(policy, ImplicitPolicy)
    with pytest.raises(ValueError, match="call act"):
        policy.landscape(np.zeros((3, 2)))
    fit(policy, demos, 100, rate=1e-2)
    action = policy.act(np.array([0.5, -0.5], np.float32))
    axis = np.linspace(-0.05, 0.05, 41)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    energies = policy.landscape(grid)
    assert energies.shape == (1681,)
    assert energies.dtype == np.float32
    assert float(policy.landscape(action[None])[0]) < np.quantile(energies, 0.01)
    with pytest.raises(ValueError, match=r"must be \(N, 2\); got \(3,\)"):
        policy.landscape(np.zeros(3))


def test_the_landscape_turns_with_the_frame_and_takes_chunks():
    torch.manual_seed(0)
    config = small_config("ibc", frame="slot", horizon=2)
    policy = make_policy("ibc", demonstrations(), config)
    assert isinstance(policy, ImplicitPolicy)
    policy.eval()
    action = policy.act(demonstrations().observations["state"][0])
    assert policy.landscape(np.stack([action, -action])).shape == (2,)


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_a_bound_proposal_has_the_same_density(share: float) -> None:
    torch.manual_seed(0)
    proposal = Proposal(6, 2, share, ProposalConfig(n_components=3))
    mixture = proposal(torch.randn(4, 6))
    for n in (3, 40):
        actions = torch.rand(4, n, 2) * 2 - 1
        bound = proposal.bind(mixture)(actions)
        assert torch.allclose(bound, proposal.log_prob(mixture, actions), atol=1e-4)


@pytest.mark.parametrize("modes_first", [False, True])
def test_inference_looks_at_the_proposals_modes_if_it_is_told_to(modes_first: bool) -> None:
    torch.manual_seed(0)
    config = small_config(
        "ibc",
        negatives=(("proposal", 1.0),),
        proposal={"modes_first": modes_first, "n_components": 3},
    )
    policy = make_policy("ibc", demonstrations(), config)
    assert isinstance(policy, ImplicitPolicy)
    assert policy.proposal is not None
    code = torch.randn(2, policy.code_dim)
    mixture = policy.proposal(code)
    candidates = policy._first_candidates(code, 64, seeded(), mixture, None)
    assert candidates.shape == (2, 64, 2)
    modes = mixture.modes().clamp(-1, 1)
    found = (candidates[:, :, None] == modes[:, None]).all(-1).any(1).all()
    assert bool(found) == modes_first


@pytest.mark.parametrize("activation", ["relu", "silu", "tanh"])
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_the_gradient_by_hand_is_that_of_autograd(activation, depth):
    torch.manual_seed(0)
    model = EnergyModel(6, 4, 16, depth, activation)
    code, actions = torch.randn(3, 6), torch.rand(3, 10, 4) * 2 - 1
    energies, gradient = action_gradient(lambda y: model(code, y), actions)
    by_hand = action_gradient(model.bind(code), actions)
    torch.testing.assert_close(by_hand[0], energies, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(by_hand[1], gradient, rtol=1e-5, atol=1e-6)


def test_searching_counter_examples_records_no_graph_and_trains_every_parameter():
    torch.manual_seed(0)
    demos = demonstrations()
    changes = {"negatives": [["langevin", 1.0]], "langevin": {"n_steps": 3}}
    policy = make_policy("ibc", demos, small_config("ibc", **changes, gradient_penalty=1.0))
    loss, _ = policy.loss(batch_of(policy, demos), seeded())
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in policy.parameters())
