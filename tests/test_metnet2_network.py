"""The network of MetNet-2: what the one public port gets wrong is right here, and more."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from metnet2_cases import TINY, rain, tiny

from learning.checkpoint import CheckpointError
from world_models.metnet2.blocks import CellNorm, ConvLstm, Film, LeadTime, nearness
from world_models.metnet2.config import SIZES, MetNet2Config, geometric_edges, size
from world_models.metnet2.forecaster import Forecaster, expected, quantiles
from world_models.metnet2.inputs import past_frames, past_of
from world_models.metnet2.model import (
    MetNet2,
    load_forecaster,
    middle,
    save_forecaster,
    shipped_forecasters,
)
from world_models.metnet2.neighbourhood import level_bins

LEADS = torch.tensor([300.0, 1200.0])
PLAIN = {"scales": (), "levels": 0}


def frames(n: int = 1, side: int = 32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, TINY.n_frames, 1, side, side, generator=generator) * 4


# The faults of the public port (openclimatefix/metnet), each mended


def test_the_lstm_has_one_layer_however_many_frames_there_are():
    few, many = (MetNet2(replace(TINY, n_frames=n)) for n in (2, 13))
    shapes = [[p.shape for p in model.lstm.parameters()] for model in (few, many)]
    assert shapes[0] == shapes[1]
    assert len(shapes[0]) == 3


def test_the_lead_time_network_has_a_non_linearity():
    torch.manual_seed(0)
    lead = LeadTime(4, 300.0, 16)
    one, other = lead(torch.tensor([300.0])), lead(torch.tensor([900.0]))
    between = lead(torch.tensor([600.0]))
    with torch.no_grad():
        linear = lead.second(lead.first(lead.one_hot(torch.tensor([600.0]))))
    assert not torch.allclose(between, linear)
    # An affine map of one-hots halfway between two leads would give the mean of both.
    half = lead(torch.tensor([450.0]))
    assert not torch.allclose(half, 0.5 * (one + between), atol=1e-4)
    assert not torch.allclose(one, other)


def test_space_to_depth_is_called_and_loses_no_cell():
    # The port builds a preprocessor and never calls it: here every cell of the input matters.
    model = tiny(**PLAIN)
    given = frames().requires_grad_()
    model(given, LEADS)["instantaneous"].square().sum().backward()
    assert given.grad is not None
    assert bool((given.grad[0, :, 0] != 0).all())


@pytest.mark.parametrize("upsample", ["tile", "shuffle"])
@pytest.mark.parametrize("fine_step", [1, 2, 4])
def test_every_way_of_upsampling_works(upsample, fine_step):
    found = tiny(upsample=upsample, fine_step=fine_step)(frames(), LEADS)["instantaneous"]
    assert found.shape == (1, 2, 4, 32, 32)


def test_probabilities_are_distributions():
    found = Forecaster(tiny()).forecast(rain(), [300.0, 600.0]).probabilities
    assert np.allclose(found.sum(axis=1), 1, atol=1e-5)
    assert found.min() >= 0


def test_the_past_is_encoded_once_for_all_leads():
    model = tiny()
    calls = []
    model.lstm.register_forward_hook(lambda *_: calls.append(1))
    forecaster = Forecaster(model)
    reading = forecaster.read(rain())
    for lead in (300.0, 600.0, 1200.0):
        forecaster.at(reading, lead)
    assert len(calls) == 1


def test_encoding_once_gives_what_each_lead_alone_gives():
    model = tiny()
    given = frames(2)
    both = model(given, LEADS)["instantaneous"]
    for k, lead in enumerate(LEADS):
        alone = model(given, lead[None])["instantaneous"][:, 0]
        assert torch.allclose(both[:, k], alone, atol=1e-5)


# Lead times


def test_forecasts_depend_on_the_lead_time():
    # "Outputs barely change with lead" is an open issue of the port.
    found = tiny()(frames(), LEADS)["instantaneous"].softmax(2).detach()
    assert float((found[:, 0] - found[:, 1]).abs().max()) > 0.01


def test_without_modulation_all_leads_get_one_forecast():
    model = tiny(lead_modulation=False)
    found = model(frames(), LEADS)["instantaneous"]
    assert torch.equal(found[:, 0], found[:, 1])


def test_every_norm_of_a_led_block_is_followed_by_film():
    model = tiny()
    for stack in (model.led, model.fine):
        for block in stack.blocks:
            norms = [m for m in block.modules() if isinstance(m, CellNorm)]
            films = [m for m in block.modules() if isinstance(m, Film)]
            assert len(norms) == len(films) == 2
            assert all(film.layer is not None for film in films)


def test_each_film_changes_the_forecast_by_lead():
    model = tiny()
    given = frames()
    films = [m for m in model.modules() if isinstance(m, Film) and m.layer is not None]
    before = model(given, LEADS)["instantaneous"]
    for film in films:
        assert film.layer is not None
        kept = film.layer.weight.clone()
        with torch.no_grad():
            film.layer.weight.zero_()
        assert not torch.allclose(model(given, LEADS)["instantaneous"], before)
        with torch.no_grad():
            film.layer.weight.copy_(kept)


def test_between_two_leads_both_have_a_share():
    one_hot = LeadTime(4, 300.0, 8).one_hot(torch.tensor([300.0, 450.0, 1200.0]))
    expected_shares = [[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 0, 1]]
    assert torch.allclose(one_hot, torch.tensor(expected_shares))


@pytest.mark.parametrize("lead", [0.0, 150.0, 1500.0, -300.0])
def test_unknown_leads_are_refused(lead):
    with pytest.raises(ValueError, match="300 to 1200 seconds"):
        tiny()(frames(), torch.tensor([lead]))


# Places


def spread_of(model: MetNet2, side: int = 96) -> tuple[int, int]:
    """How far around the middle the inputs lie that a forecast there looks at, rows and columns."""
    given = frames(side=side).requires_grad_()
    code = model.encode(given)
    logits = model.decode(code, LEADS[:1])["instantaneous"]
    logits[0, 0, :, side // 2, side // 2].square().sum().backward()
    assert given.grad is not None
    rows, columns = torch.nonzero(given.grad[0].abs().sum((0, 1)), as_tuple=True)
    return int((rows - side // 2).abs().max()), int((columns - side // 2).abs().max())


@pytest.mark.parametrize("dilations", [(1,), (1, 2), (1, 2, 4)])
def test_dilations_are_applied(dilations):
    changes = {"shared_dilations": (), "lead_dilations": dilations, "coordinates": "eulerian"}
    model = tiny(**changes, **PLAIN)
    reach = spread_of(model, 160)
    # Seen from the first of the four cells that make a coarse one: frames + 2 * sum of dilations
    # coarse cells around all those that the finest layers look at, to the last of their cells.
    coarse = TINY.n_frames + 2 * sum(dilations)
    fine = 2 * TINY.fine_blocks * TINY.fine_step
    last = (fine + TINY.fine_step - 1) // 4 * 4 + 3
    assert reach == (4 * coarse + last, 4 * coarse + last)
    assert max(reach) == model.config.reach


def test_the_centre_crop_is_in_the_middle():
    assert middle(32, 40, 16) == (8, 12, 16, 16)
    with pytest.raises(ValueError, match="middle"):
        middle(32, 32, 15)
    model = tiny(coordinates="eulerian", **PLAIN)
    given = frames()
    whole = model(given, LEADS)["instantaneous"]
    cropped = model(given, LEADS, window=middle(32, 32, 16))["instantaneous"]
    # Away from the crop's edges, where fine layers see nothing beyond, it is the whole's middle.
    assert torch.allclose(cropped[..., 4:-4, 4:-4], whole[..., 12:-12, 12:-12], atol=1e-5)


def test_turning_the_view_with_a_symmetric_target_keeps_its_middle():
    # A crop that is off by a cell would show: what is lit lies in the middle, and stays there.
    window = middle(32, 32, 16)
    lit = torch.zeros(32, 32)
    lit[15:17, 15:17] = 1
    top, left, rows, columns = window
    cut = lit[top : top + rows, left : left + columns]
    assert torch.equal(cut, torch.rot90(cut))


def test_a_target_off_the_middle_is_refused():
    with pytest.raises(ValueError, match="middle"):
        replace(TINY, context=36, target=16)


def test_what_moves_is_forecast_where_it_arrives():
    model = tiny()
    given = frames(side=48)
    code = model.encode(given)
    way = torch.zeros(1, 1, 2, 48, 48)
    stays = model.decode(code, LEADS[:1], way)["instantaneous"]
    way[:, :, 0] = 8.0
    moved = model.decode(code, LEADS[:1], way)["instantaneous"]
    inner = slice(8, -8)
    assert torch.allclose(moved[..., inner, 16:40], stays[..., inner, 8:32], atol=1e-4), (
        "what has come 8 cells to the right was 8 cells to the left"
    )


@pytest.mark.parametrize("changes", [{}, PLAIN])
def test_chances_are_the_softmax_of_the_logits(changes):
    model = tiny(**changes)
    code = model.encode(frames())
    assert model.lead_time is not None
    lead = model.lead_time(LEADS[:1])
    latent = model.lead_latent(code.latent, code.nearby, lead)
    logits = model.finish(latent, code.now, lead)["instantaneous"]
    chances = model.chances(latent, code.now, lead, "instantaneous")
    assert torch.allclose(chances, logits.softmax(1), atol=1e-6)


def test_no_movement_is_the_eulerian_forecast():
    model = tiny()
    code = model.encode(frames())
    still = model.decode(code, LEADS, torch.zeros(1, 2, 2, 32, 32))["instantaneous"]
    assert torch.allclose(still, model.decode(code, LEADS)["instantaneous"], atol=1e-4)


def test_a_window_outside_is_refused():
    model = tiny()
    code = model.encode(frames())
    for window in ((0, 0, 40, 32), (2, 0, 8, 8), (-4, 0, 8, 8)):
        with pytest.raises(ValueError, match="window"):
            model.decode(code, LEADS, window=window)


# Parameters


@pytest.mark.parametrize("changes", [{}, {"coordinates": "eulerian"}, PLAIN, {"upsample": "tile"}])
def test_every_parameter_gets_a_gradient(changes):
    torch.manual_seed(0)
    model = MetNet2(replace(TINY, targets=("instantaneous", "cumulative"), **changes))
    given = frames(2)
    given[:, :, :, :5, :5] = math.nan
    moves = None if model.config.coordinates == "eulerian" else torch.ones(2, 2, 2, 16, 16)
    found = model(given, LEADS, moves, middle(32, 32, 16))
    torch.stack([value.log_softmax(2).square().sum() for value in found.values()]).sum().backward()
    without = [
        name
        for name, p in model.named_parameters()
        if p.grad is None or not bool((p.grad != 0).any())
    ]
    assert without == []


def test_the_paper_has_its_sizes():
    config = size("paper")
    assert (config.n_bins, config.edges[-1], config.edges[1]) == (512, 102.4, 0.2)
    assert config.lead_dilations == (1, 2, 4, 8, 16, 32, 64, 128) * 3
    assert (config.shared_dilations, config.scales, config.levels) == ((), (), 0)
    assert (config.context, config.target, config.downsample) == (2048, 512, 4)
    assert config.n_leads * config.lead_step == 12 * 3600
    with torch.device("meta"):
        model = MetNet2(config)
    assert sum(p.numel() for p in model.parameters()) == 225_784_192


def test_the_small_one_is_small():
    with torch.device("meta"):
        n = sum(p.numel() for p in MetNet2(size("small")).parameters())
    assert n < 500_000


@pytest.mark.parametrize("name", SIZES)
def test_configurations_survive_json(name):
    config = size(name)
    assert MetNet2Config.from_dict(config.to_dict()) == config


def test_checkpoints_come_back(tmp_path):
    model = tiny()
    save_forecaster(model, tmp_path / "saved")
    back = load_forecaster(tmp_path / "saved")
    assert back.config == model.config
    assert torch.equal(
        back(frames(), LEADS)["instantaneous"], model(frames(), LEADS)["instantaneous"]
    )


def test_an_unknown_forecaster_is_refused_in_one_line():
    with pytest.raises(CheckpointError, match="no forecaster 'nonsense'"):
        load_forecaster("nonsense")


@pytest.mark.parametrize("name", shipped_forecasters())
def test_shipped_forecasters_load_and_forecast(name):
    forecaster = Forecaster.load(name)
    if forecaster.config.quantity == "rain_rate":
        found = forecaster.forecast(rain(12, (64, 64)), [forecaster.config.leads[-1]])
        assert np.isfinite(found.probabilities).all()


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    model = tiny()
    save_forecaster(model, tmp_path / "saved")
    config = tmp_path / "saved" / "config.json"
    config.write_text(config.read_text().replace('"width": 8', '"width": 9'))
    with pytest.raises(CheckpointError, match="must be"):
        load_forecaster(tmp_path / "saved")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"channels": ()}, "channels"),
        ({"still": ("rain_rate",)}, "different"),
        ({"planes": ("moon",)}, "planes"),
        ({"targets": ()}, "targets"),
        ({"edges": (0.0, 1.0, 1.0)}, "rise"),
        ({"coordinates": "polar"}, "coordinates"),
        ({"n_leads": 0}, "n_leads"),
        ({"lead_step": -1.0}, "lead_step"),
        ({"levels": 1}, "levels"),
        ({"fine_step": 3}, "fine_step"),
        ({"dropout": 1.0}, "dropout"),
        ({"scales": (0.0,)}, "scales"),
        ({"levels": 0}, "levels"),
        ({"target": 15}, "multiple"),
        ({"lead_dilations": (0,)}, "dilations"),
        ({"normal": ((0.0, 1.0),)}, "normal"),
    ],
)
def test_impossible_configurations_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        replace(TINY, **changes)


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="unknown settings of MetNet-2: wings"):
        MetNet2Config.from_dict({"wings": 2})


# Layers


def test_norms_look_at_one_cell_alone():
    planes = torch.rand(1, 5, 3, 3)
    changed = planes.clone()
    changed[..., 0, 0] = 9
    one, other = CellNorm()(planes), CellNorm()(changed)
    assert torch.equal(one[..., 1:, :], other[..., 1:, :])
    assert torch.allclose(one.mean(1), torch.zeros(1, 3, 3), atol=1e-6)


def test_the_lstm_is_the_lstm_of_torch_on_one_cell():
    torch.manual_seed(0)
    ours, theirs = ConvLstm(3, 4), torch.nn.LSTMCell(3, 4)
    with torch.no_grad():
        theirs.weight_ih.copy_(_order(ours.inputs.weight[:, :, 1, 1]))
        theirs.weight_hh.copy_(_order(ours.hidden.weight[:, :, 1, 1]))
        assert ours.inputs.bias is not None
        theirs.bias_ih.copy_(_order(ours.inputs.bias))
        theirs.bias_hh.zero_()
    steps = torch.rand(5, 2, 3)
    state = None
    for step in steps:
        state = theirs(step, state)
    assert state is not None
    found = ours([step[..., None, None] for step in steps])
    assert torch.allclose(found[..., 0, 0], state[0], atol=1e-6)


def _order(gates: torch.Tensor) -> torch.Tensor:
    """Ours are input, forget, output, value; torch's input, forget, value, output."""
    write, forget, read, value = gates.chunk(4)
    return torch.cat([write, forget, value, read])


def test_nearness_of_a_level_and_halfway():
    found = nearness(torch.tensor([0.0, 2.0, 3.0, 99.0]).view(1, 1, 1, 4), 3, 4.0)[0, :, 0]
    expected_levels = [[1, 0, 0], [0, 1, 0], [0, 0.5, 0.5], [0, 0, 1]]
    assert torch.allclose(found.t(), torch.tensor(expected_levels))


def test_levels_share_the_bins_they_lie_in():
    table = level_bins(replace(TINY, transform="linear", unit=1.0, edges=(0.0, 1.0, 2.0, 4.0)))
    assert torch.allclose(table.sum(1), torch.ones(5))
    # Levels 0 to 4: the hat of level 0 lies in [0, 1] alone, that of level 4 in [3, 4].
    assert torch.allclose(table[0], torch.tensor([1.0, 0, 0]), atol=1e-6)
    assert torch.allclose(table[4], torch.tensor([0, 0, 1.0]), atol=1e-6)
    assert torch.allclose(table[1], torch.tensor([0.5, 0.5, 0]), atol=1e-3)


def test_bins_grow_by_one_factor():
    edges = geometric_edges(0.1, 10.0, 3)
    assert edges == (0.0, 0.1, 1.0, 10.0)


def test_the_mean_and_the_quantiles_of_a_known_distribution():
    model = tiny()
    forecast = Forecaster(model).at(Forecaster(model).read(rain()), 300.0)
    chances = np.zeros_like(forecast.probabilities)
    chances[0], chances[2] = 0.4, 0.6  # dry, or evenly in [0.5, 2]... after 0.1
    known = replace(forecast, probabilities=chances)
    assert np.allclose(expected(known), 0.6 * 1.25)
    low, half, high = quantiles(known, (0.3, 0.7, 0.999999))[:, 0, 0]
    assert low == 0
    assert half == pytest.approx(0.5 + 1.5 * 0.5)
    assert high == pytest.approx(2.0, abs=1e-3)


# Inputs


def test_unknown_cells_are_zero_and_said_to_be_unknown():
    model = tiny()
    given = frames()
    given[:, -1, :, :4, :4] = math.nan
    code = model.encode(given)
    assert torch.equal(code.now[0, :, :4, :4], torch.zeros(2, 4, 4))
    assert bool((code.now[0, 1, 4:] == 1).all())
    assert bool(torch.isfinite(model.decode(code, LEADS)["instantaneous"]).all())


def test_unknown_is_not_the_same_as_dry():
    model = tiny()
    dry, unknown = torch.zeros(1, 3, 1, 32, 32), torch.full((1, 3, 1, 32, 32), math.nan)
    one, other = (model(given, LEADS)["instantaneous"] for given in (dry, unknown))
    assert not torch.allclose(one, other)


def test_named_channels_join_and_may_be_absent():
    config = replace(TINY, channels=("rain_rate", "satellite"), still=("elevation",))
    model = MetNet2(config).eval()
    sequence = rain()
    wide = np.concatenate([sequence.frames, sequence.frames * 2, sequence.frames + 1], axis=1)
    names = ("rain_rate", "elevation", "satellite")
    full = replace(sequence, frames=wide, channels=names)
    past = past_of(full, 5, config)
    assert torch.equal(past.frames[-1, 1].nan_to_num(), torch.from_numpy(wide[5, 2]).nan_to_num())
    bare = past_of(sequence, 5, config)
    assert bool(torch.isnan(bare.frames[:, 1:]).all())
    shape = (0, 0, 48, 56)
    rows = [past_frames(p, None, config, shape)[None] for p in (past, bare)]
    one, other = (model(given, LEADS)["instantaneous"] for given in rows)
    assert bool(torch.isfinite(other).all())
    assert not torch.allclose(one, other)


def test_computed_planes_know_time_and_place():
    config = replace(TINY, planes=("time_of_day", "time_of_year", "position"))
    sequence = replace(rain(), origin=(2_000_000.0, 5_000_000.0))
    past = past_of(sequence, 8, config)
    planes = past_frames(past, None, config, (4, 8, 16, 16))[-1, 1:]
    assert planes.shape == (6, 16, 16)
    day = 2 * math.pi * (float(sequence.times[8]) % 86_400) / 86_400
    assert float(planes[0, 0, 0]) == pytest.approx(math.sin(day), abs=1e-4)
    assert float(planes[4, 0, 0]) == pytest.approx(2.0085, abs=1e-4)
    assert float(planes[5, 0, 0]) == pytest.approx(4.9955, abs=1e-4)
