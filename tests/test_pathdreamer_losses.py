"""The losses and scores of Pathdreamer, against answers known by hand or from torch."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal
from torch.distributions import kl_divergence as torch_kl

from world_models.pathdreamer.losses import (
    HALF_SHOWN,
    VOID,
    LossConfig,
    adversarial_loss,
    class_weights,
    depth_loss,
    discriminator_loss,
    feature_matching_loss,
    kl_divergence,
    latent_loss,
    room_loss,
    semantic_loss,
    shown_classes,
    structure_loss,
    summary_loss,
)
from world_models.pathdreamer.scores import StructureScores
from world_models.pathdreamer.structure import Gaussian, Structure


def gaussian(seed: int, shape: tuple[int, ...] = (2, 3, 2, 4)) -> Gaussian:
    rng = torch.Generator().manual_seed(seed)
    return Gaussian(torch.randn(shape, generator=rng), torch.randn(shape, generator=rng))


def test_weights_are_one_on_average_over_the_pixels() -> None:
    counts = torch.tensor([500, 900, 90, 10, 0])
    weights = class_weights(counts, 0.35)
    assert weights[0] == 0  # void
    assert weights[4] == 0  # never seen
    assert (weights[1:4] * counts[1:4]).sum() / 1000 == pytest.approx(1)
    assert weights[3] / weights[1] == pytest.approx(90**0.35)


def test_power_zero_weighs_all_alike() -> None:
    assert class_weights(torch.tensor([5, 9, 1]), 0.0).tolist() == [0, 1, 1]


def test_weights_of_nothing_but_void_are_refused() -> None:
    with pytest.raises(ValueError, match="labelled"):
        class_weights(torch.tensor([5, 0, 0]), 0.35)


def test_void_pixels_cost_nothing() -> None:
    logits = torch.randn(1, 3, 2, 2)
    weights = torch.ones(3)
    semantic = torch.tensor([[[0, 1], [2, 0]]])
    expected = -logits.log_softmax(1)[0]
    both = expected[1, 0, 1] + expected[2, 1, 0]
    assert semantic_loss(logits, semantic, weights) == pytest.approx(both.item() / 4, rel=1e-5)
    # torch's own mean would be 0 / 0 here.
    assert semantic_loss(logits, torch.zeros_like(semantic), weights) == 0


def test_a_batch_costs_the_mean_of_its_samples() -> None:
    torch.manual_seed(0)
    logits, semantic = torch.randn(4, 5, 6, 8), torch.randint(5, (4, 6, 8))
    weights = torch.tensor([0.0, 1.0, 2.0, 0.5, 3.0])
    alone = [semantic_loss(logits[k : k + 1], semantic[k : k + 1], weights) for k in range(4)]
    torch.testing.assert_close(semantic_loss(logits, semantic, weights), torch.stack(alone).mean())


def test_depth_is_compared_where_it_is_known_and_up_to_the_largest() -> None:
    depth = torch.tensor([[[1.0, 2.0, 9.0, 3.0]]])
    truth = torch.tensor([[[1.5, 0.0, 30.0, 3.0]]])
    assert depth_loss(depth, truth, 10.0) == pytest.approx((0.5 + 0 + 1 + 0) / 4)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_the_divergence_is_that_of_torch(seed: int) -> None:
    a, b = gaussian(seed), gaussian(seed + 1)
    ours = kl_divergence(a, b)
    theirs = torch_kl(
        Normal(a.mean, (0.5 * a.log_variance).exp()), Normal(b.mean, (0.5 * b.log_variance).exp())
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert (ours > -1e-6).all()


def test_equal_distributions_cost_the_free_nats_and_pull_at_nothing() -> None:
    prior = gaussian(0)
    mean = prior.mean.clone().requires_grad_()
    loss = latent_loss(Gaussian(mean, prior.log_variance), prior, 0.05)
    assert loss.item() == pytest.approx(3 * 0.05)
    loss.backward()
    assert mean.grad is not None
    assert mean.grad.abs().max() == 0


def test_a_channel_beyond_its_free_share_costs_all_it_holds() -> None:
    prior = Gaussian(torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1))
    posterior = Gaussian(torch.tensor([2.0, 0.1]).view(1, 2, 1, 1), prior.log_variance)
    assert latent_loss(posterior, prior, 0.05) == pytest.approx(2.0 + 0.05)


def test_what_a_panorama_shows_counts_by_solid_angle() -> None:
    semantic = torch.zeros(1, 4, 8, dtype=torch.int64)
    semantic[:, 0] = 1  # the uppermost of four rows: 1 - sin(45 deg), of 2
    semantic[:, 2, :4] = 2  # half of the row below the horizon: sin(45 deg) / 2, of 2
    shown = shown_classes(semantic, 4)[0]
    top, low = (1 - math.sqrt(0.5)) / 2, math.sqrt(0.5) / 4
    assert shown[1].item() == pytest.approx(top / (top + HALF_SHOWN), rel=1e-5)
    assert shown[2].item() == pytest.approx(low / (low + HALF_SHOWN), rel=1e-5)
    assert shown[3] == 0


def test_a_summary_costs_least_where_it_tells_the_truth_and_void_costs_nothing() -> None:
    semantic = torch.randint(0, 5, (2, 8, 16))
    truth = shown_classes(semantic, 5)
    told = torch.logit(truth.clamp(1e-6, 1 - 1e-6))
    least = summary_loss(told, semantic)
    assert summary_loss(told + 0.3, semantic) > least
    other = told.clone()
    other[:, VOID] += 5.0
    assert summary_loss(other, semantic) == least


def test_the_structure_loss_is_the_weighted_sum_of_its_parts() -> None:
    torch.manual_seed(0)
    seen = Structure(
        torch.randn(2, 3, 4, 8),
        torch.rand(2, 4, 8) * 9,
        torch.zeros(2, 3, 2, 4),
        gaussian(0),
        gaussian(1),
    )
    semantic, depth = torch.randint(3, (2, 4, 8)), torch.rand(2, 4, 8) * 9
    config = LossConfig(depth=2.0, kl=0.5)
    loss, parts = structure_loss(seen, semantic, depth, torch.ones(3), 10.0, config)
    expected = parts["semantic"] + 2 * parts["depth"] + 0.5 * parts["kl"]
    torch.testing.assert_close(loss, expected)
    with pytest.raises(ValueError, match="truth="):
        structure_loss(
            Structure(seen.logits, seen.depth, seen.z, seen.prior),
            semantic,
            depth,
            torch.ones(3),
            10.0,
            config,
        )


def scores(*values: float) -> list[list[torch.Tensor]]:
    return [[torch.full((1, 2, 2, 2), 3.0), torch.full((1, 1, 2, 2), value)] for value in values]


def test_hinge_losses_worked_by_hand() -> None:
    # Scale 1: max(0, 1 - 0.5) + max(0, 1 + -2) = 0.5; scale 2: 0 + 1.25.
    assert discriminator_loss(scores(0.5, 2.0), scores(-2.0, 0.25)) == pytest.approx(0.875)
    assert adversarial_loss(scores(-2.0, 0.25)) == pytest.approx(0.875)


def test_features_are_matched_but_not_scores_and_not_both_ways() -> None:
    real = [[torch.zeros(1, 1, 2, 2, requires_grad=True), torch.full((1, 1, 1, 1), 5.0)]]
    fake = [[torch.full((1, 1, 2, 2), 3.0, requires_grad=True), torch.full((1, 1, 1, 1), -5.0)]]
    loss = feature_matching_loss(real, fake)
    assert loss.item() == pytest.approx(3.0)
    loss.backward()
    assert real[0][0].grad is None
    assert fake[0][0].grad is not None


@pytest.mark.parametrize("name", ["kl", "depth", "adversarial", "class_power"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_weights_that_are_no_weights_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        LossConfig(**{name: value})


def test_scores_worked_by_hand() -> None:
    score = StructureScores(4)
    truth = torch.tensor([[[1, 1, 2, 0, 3]]])
    answer = torch.tensor([[[1, 2, 2, 1, 1]]])
    mask = torch.tensor([[[True, True, True, True, False]]])
    depth = torch.tensor([[[1.0, 2.0, 3.0, 4.0, 5.0]]])
    true_depth = torch.tensor([[[1.5, 2.0, 0.0, 3.0, 9.0]]])
    score.add(answer, depth, truth, true_depth, mask)
    score.add_colours(torch.full((1, 3, 1, 5), 1.5), torch.full((1, 3, 1, 5), 0.75), mask)
    found = score.results()
    # Void and what is masked are left out. Class 1: 1 of 2; class 2: 1 of 2; class 3 is not there.
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["miou"] == pytest.approx(0.5)
    assert found["depth_mae"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert found["rgb_mae"] == pytest.approx(0.25)


def test_scores_of_no_pixels_are_left_out() -> None:
    assert StructureScores(4).results() == {}


def test_scores_do_not_depend_on_how_panoramas_are_batched() -> None:
    torch.manual_seed(0)
    arrays = [torch.randint(4, (6, 4, 8)), torch.rand(6, 4, 8), torch.randint(4, (6, 4, 8))]
    arrays += [torch.rand(6, 4, 8), torch.rand(6, 4, 8) < 0.5]
    together, apart = StructureScores(4), StructureScores(4)
    together.add(*arrays)
    for row in zip(*(array.split(2) for array in arrays), strict=True):
        apart.add(*row)
    assert together.results() == pytest.approx(apart.results())


def test_the_loss_of_rooms_counts_known_ones_over_the_whole_batch() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [5.0, -5.0]])
    nats = torch.tensor([math.log(1 + math.exp(-2)), math.log(1 + math.exp(-1))])
    found = room_loss(logits, torch.tensor([0, 1, -1]))
    torch.testing.assert_close(found, nats.sum() / 3)
    assert room_loss(logits, torch.tensor([-1, -1, -1])) == 0
