"""Forecasts by tiles equal those in one piece."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metnet2_cases import TINY, rain, tiny

from world_models.metnet2 import partition
from world_models.metnet2.config import size
from world_models.metnet2.forecaster import Forecaster
from world_models.metnet2.model import MetNet2
from world_models.metnet2.partition import grown, tile_bytes, tile_for, tiles


@settings(max_examples=12, deadline=None)
@given(
    rows=st.integers(18, 90),
    columns=st.integers(18, 90),
    tile=st.sampled_from([4, 8, 20, 32]),
    lead=st.sampled_from([300.0, 750.0, 1200.0]),
    speed=st.floats(-6, 6),
    coordinates=st.sampled_from(["eulerian", "lagrangian"]),
    scales=st.sampled_from([(), (4.0, 8.0)]),
)
def test_tiles_give_what_the_whole_gives(rows, columns, tile, lead, speed, coordinates, scales):
    model = tiny(coordinates=coordinates, scales=scales)
    sequence = rain(5, (rows, columns), (speed, 1.0))
    whole, parts = Forecaster(model), Forecaster(model, tile=tile)
    one = whole.at(whole.read(sequence), lead)
    other = parts.at(parts.read(sequence), lead)
    assert np.abs(one.probabilities - other.probabilities).max() <= 1e-5
    assert np.array_equal(one.known, other.known)
    assert one.probabilities.max() > 0.3  # not all alike


def test_a_halo_that_is_too_small_would_show(monkeypatch):
    model = tiny()
    sequence = rain(5, (64, 64))
    whole, parts = Forecaster(model), Forecaster(model, tile=16)
    one = whole.at(whole.read(sequence), 600.0).probabilities
    right = partition.grown
    monkeypatch.setattr(
        partition, "grown", lambda window, reach, shape, size=1: right(window, 0, shape, size)
    )
    other = parts.at(parts.read(sequence), 600.0).probabilities
    assert np.abs(one - other).max() > 1e-4


def test_strips_give_what_the_whole_gives(monkeypatch):
    forecaster = Forecaster(tiny())
    reading = forecaster.read(rain(5, (67, 45)))
    whole = forecaster.at(reading, 600.0).probabilities
    monkeypatch.setattr(partition, "_STRIP", 400)
    assert np.abs(forecaster.at(reading, 600.0).probabilities - whole).max() <= 1e-6


@pytest.mark.slow
def test_the_small_network_is_the_same_by_tiles():
    torch.manual_seed(0)
    model = MetNet2(size("small")).eval()
    sequence = rain(8, (200, 300), (3.0, 1.0))
    whole, parts = Forecaster(model), Forecaster(model, tile=64)
    one, other = (f.at(f.read(sequence), 3600.0).probabilities for f in (whole, parts))
    assert np.abs(one - other).max() <= 1e-5


def test_a_bound_of_memory_chooses_tiles():
    config = size("small")
    small, large = tile_for(config, 120), tile_for(config, 400)
    assert small < large
    assert small % config.downsample == 0
    assert tile_bytes(config, small) <= 120 * 2**20 < tile_bytes(config, small + 4)
    assert Forecaster(tiny(), megabytes=2).tile == tile_for(TINY, 2)
    with pytest.raises(ValueError, match="at least"):
        tile_for(config, 0.1)


@pytest.mark.slow
def test_tiles_stay_within_the_bound_of_memory():
    """Peak of torch's allocations while a lead time is decoded, beyond the maps themselves."""
    torch.manual_seed(0)
    model = MetNet2(size("small")).eval()
    sequence = rain(8, (512, 512), (2.0, 1.0))
    bound = 60
    forecaster = Forecaster(model, megabytes=bound)
    reading = forecaster.read(sequence)
    kept = _allocated(lambda: partition.decode(
        model, reading.code, reading.velocity, 1800.0, forecaster.tile
    ))  # fmt: skip
    whole = _allocated(lambda: partition.decode(model, reading.code, reading.velocity, 1800.0))
    map_bytes = 512 * 512 * size("small").n_bins * 4
    assert kept - map_bytes <= bound * 2**20
    assert whole - map_bytes > 2 * (kept - map_bytes)


def _allocated(run) -> int:
    """The most bytes that torch held at once, of those that the call allocated."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        run()
    held, most = 0, 0
    for event in sorted(found.events() or (), key=lambda e: e.time_range.start):
        if event.name == "[memory]":
            held += event.cpu_memory_usage
            most = max(most, held)
    return most


def test_tiles_cover_the_grid_once():
    seen = np.zeros((10, 14), int)
    for top, left, rows, columns in tiles((10, 14), 4, 2):
        seen[top : top + rows, left : left + columns] += 1
    assert (seen == 1).all()
    with pytest.raises(ValueError, match="multiple of 2"):
        list(tiles((10, 14), 5, 2))


def test_a_window_grows_as_far_as_the_grid_goes():
    around, inner = grown((4, 0, 4, 8), 3, (20, 10))
    assert around == (1, 0, 10, 10)
    assert inner == (3, 0, 4, 8)
    assert grown((8, 8, 4, 4), 3, (40, 40), 4) == ((4, 4, 12, 12), (4, 4, 4, 4))


def test_forecasts_of_several_leads_are_those_of_each():
    forecaster = Forecaster(tiny())
    sequence = rain()
    both = forecaster.forecast(sequence, [300.0, 900.0])
    assert both.probabilities.shape == (2, 4, 48, 56)
    assert both.edges.tolist() == list(TINY.edges)
    alone = forecaster.at(forecaster.read(sequence), 900.0)
    assert np.array_equal(both.probabilities[1], alone.probabilities)
    assert np.array_equal(both.known[1], alone.known)


def test_an_unknown_target_is_refused():
    forecaster = Forecaster(tiny())
    with pytest.raises(ValueError, match="instantaneous, not 'weekly'"):
        forecaster.at(forecaster.read(rain()), 300.0, "weekly")
    both = Forecaster(MetNet2(replace(TINY, targets=("instantaneous", "cumulative"))))
    reading = both.read(rain())
    assert both.at(reading, 300.0, "cumulative").probabilities.shape == (4, 48, 56)
