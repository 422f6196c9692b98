"""The first guess: shares of the levels around a place, mixed, and turned into bins."""

from dataclasses import replace

import pytest
import torch
from metnet2_cases import TINY

from world_models.metnet2.blocks import nearness
from world_models.metnet2.neighbourhood import Neighbourhood

PLAIN = replace(TINY, transform="linear", unit=1.0, edges=(0.0, 1.0, 2.0, 4.0), levels=5)


@pytest.fixture
def around() -> Neighbourhood:
    torch.manual_seed(0)
    return Neighbourhood(PLAIN)


def seen(values: torch.Tensor, known: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    near = nearness(values[:, None], PLAIN.levels, PLAIN.largest) * known[:, None]
    return near, known[:, None]


def guess(around: Neighbourhood, near: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    n, _, rows, columns = near.shape
    lead = torch.rand(n, PLAIN.lead_width)
    latent = torch.rand(n, PLAIN.width, rows // 4, columns // 4)
    fine = torch.rand(n, PLAIN.fine_width, rows // 2, columns // 2)
    mixed = around.mix(around.shares(near, known), latent, lead)
    return around.guess(mixed, near, known, fine, lead)


def test_shares_are_of_what_is_known(around):
    known = torch.ones(1, 32, 32)
    known[:, :, 20:] = 0
    values = torch.rand(1, 32, 32) * 4
    shares = around.shares(*seen(values, known))
    sums = shares.sum(dim=2)
    assert torch.allclose(sums[..., :5], torch.ones_like(sums[..., :5]), atol=1e-4)


def test_what_is_unknown_does_not_count(around):
    known = (torch.rand(1, 32, 32) > 0.3).float()
    values = torch.rand(1, 32, 32) * 4
    other = torch.where(known > 0, values, 3.0)
    one, two = (around.shares(*seen(v, known)) for v in (values, other))
    assert torch.allclose(one, two)


def test_a_half_and_a_half_around_an_edge(around):
    values = torch.zeros(1, 64, 64)
    values[:, :, 32:] = 4.0
    shares = around.shares(*seen(values, torch.ones(1, 64, 64)))
    # The coarse cells on both sides of the edge, far from the rows' ends, on the scale of 4 cells:
    # Gaussian weights of one coarse cell; the two sides mirror each other.
    left, right = shares[0, 0, :, 8, 7], shares[0, 0, :, 8, 8]
    assert torch.allclose(left.flip(0), right, atol=1e-5)
    assert 0.5 < float(left[0]) < 0.8
    assert float(left[1:4].abs().max()) < 1e-6


def test_wider_scales_know_less(around):
    values = torch.zeros(1, 64, 64)
    values[:, :, 32:] = 4.0
    shares = around.shares(*seen(values, torch.ones(1, 64, 64)))
    far = shares[0, :, 0, 8, 5]  # two and a half coarse cells from the edge
    assert float(far[0]) > float(far[1]) > 0.5


def test_a_uniform_field_is_guessed_whatever_the_weights(around):
    near, known = seen(torch.full((2, 32, 32), 4.0), torch.ones(2, 32, 32))
    found = guess(around, near, known)
    climate = around.climate.softmax(0)
    # All that is not the climate's share lies in the bin that holds the level 4.
    assert torch.allclose(found.sum(1), torch.ones(2, 32, 32), atol=1e-3)
    assert bool((found[:, 2] > climate[2]).all())
    assert torch.allclose(found[:, 0], found[:, 1], atol=1e-3)


def test_where_nothing_is_known_the_climate_is_guessed(around):
    with torch.no_grad():
        around.climate.copy_(torch.tensor([2.0, 1.0, -1.0]))
    near, known = seen(torch.zeros(1, 32, 32), torch.zeros(1, 32, 32))
    found = guess(around, near, known)
    climate = around.climate.softmax(0)[None, :, None, None].expand_as(found)
    assert torch.allclose(found, climate, atol=1e-5)


def test_no_bin_is_impossible(around):
    near, known = seen(torch.zeros(1, 32, 32), torch.ones(1, 32, 32))
    assert float(guess(around, near, known).detach().min()) > 0
