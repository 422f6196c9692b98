"""Training MetNet-2: losses are what they say, examples fit together, runs resume and spread."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from metnet2_cases import TINY, rain, tiny

from learning.grid_files import write_sequence
from learning.grid_sequence import GridSequence
from world_models.metnet2.config import geometric_edges
from world_models.metnet2.examples import Examples, batch_seeds, scaled, stacked, turned
from world_models.metnet2.inputs import check_sequence, motion_of, past_of, truth_of
from world_models.metnet2.losses import bin_of, cross_entropy, mean_crps
from world_models.metnet2.model import MetNet2, load_forecaster
from world_models.metnet2.scores import crps
from world_models.metnet2.train_config import ForecastTrainConfig
from world_models.metnet2.training import held_out_crps, train_metnet2, with_weights

QUICK = ForecastTrainConfig(
    steps=4, warmup_steps=1, log_every=1, save_every=2, validate_every=2, validation_crops=2,
    leads=2, tensorboard=False, device="cpu",
)  # fmt: skip
EDGES = torch.tensor([0.0, 0.5, 2.0, 8.0])


# Losses


def test_crps_of_a_certain_forecast_is_the_error():
    logits = torch.tensor([[50.0, 0.0, 0.0]])  # dry for certain: an atom at 0
    for observed in (0.0, 0.3, 5.0, 11.0):
        assert float(mean_crps(logits, torch.tensor([observed]), EDGES)) == pytest.approx(observed)


def test_crps_of_an_even_bin_by_hand():
    # Even in [0.5, 2], observed 0.5: the integral of (1 - x)^2 over the bin, 1.5 / 3.
    logits = torch.tensor([[-60.0, 0.0, -60.0]])
    assert float(mean_crps(logits, torch.tensor([0.5]), EDGES)) == pytest.approx(0.5)
    # In the middle: 2 * 1.5 * (1 / 3) * (1 / 2)^3.
    assert float(mean_crps(logits, torch.tensor([1.25]), EDGES)) == pytest.approx(0.125)


def test_crps_is_that_of_the_scores():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(60, 3, generator=generator)
    observed = torch.rand(60, generator=generator) * 10
    chances = logits.softmax(1).t().reshape(3, 6, 10).numpy()
    theirs = float(crps(chances, EDGES.numpy(), observed.reshape(6, 10).numpy()).mean())
    assert float(mean_crps(logits, observed, EDGES)) == pytest.approx(theirs, abs=1e-5)


def test_bins_hold_their_lower_edge():
    values = torch.tensor([0.0, 0.49, 0.5, 2.0, 7.9, 8.0, 99.0])
    assert bin_of(values, EDGES).tolist() == [0, 0, 1, 2, 2, 2, 2]


def test_cross_entropy_of_even_odds():
    found = cross_entropy(torch.zeros(5, 3), torch.rand(5) * 8, EDGES)
    assert float(found) == pytest.approx(math.log(3))


# Examples


def test_what_arrives_is_what_comes_true():
    """Synthetic rain that only moves: the newest frame, moved, is the truth."""
    config = replace(TINY, context=32, target=16)
    examples = Examples([rain(10, (80, 80), (2.0, -1.0), unknown=False)], config)
    start = examples.starts[0]
    example = examples.cut(start, 32, 32, [600.0])
    newest = example.frames[-1, 0]
    from world_models.metnet2.motion import warp

    arrived = warp(newest[None], example.moves[0], corner=(8, 8))[0]
    truth = example.truths["instantaneous"][0]
    assert float((arrived - truth).abs().mean()) < 0.15 * float(truth.abs().mean())
    # The older frames lie where the newest is: they were carried along.
    apart = float((example.frames[0, 0] - newest).abs().nanmean())
    still = Examples(examples.events, replace(config, coordinates="eulerian"))
    raw = still.cut(start, 32, 32, [600.0]).frames
    assert apart < 0.3 * float((raw[0, 0] - raw[-1, 0]).abs().mean())


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
@pytest.mark.parametrize("mirror", [False, True])
def test_turned_examples_are_those_of_a_turned_event(quarters, mirror):
    sequence = rain(10, (64, 64), (2.0, -1.0), unknown=False)
    frames = np.rot90(sequence.frames, quarters, (2, 3))
    frames = np.ascontiguousarray(frames[..., ::-1] if mirror else frames)
    one = Examples([sequence], TINY)
    other = Examples([replace(sequence, frames=frames)], TINY)
    place = (24, 24)  # the middle, which turning leaves
    ours = turned(one.cut(one.starts[0], *place, [300.0, 900.0]), quarters, mirror)
    theirs = other.cut(other.starts[0], *place, [300.0, 900.0])
    assert torch.allclose(ours.moves, theirs.moves, atol=0.02)
    assert torch.allclose(ours.truths["instantaneous"], theirs.truths["instantaneous"], atol=1e-6)
    assert torch.allclose(ours.frames, theirs.frames, atol=0.05, equal_nan=True)


def test_scaling_multiplies_past_and_future():
    examples = Examples([rain(10, (64, 64))], TINY)
    example = examples.cut(examples.starts[0], 24, 24, [300.0])
    twice = scaled(example, 2.0)
    assert torch.allclose(twice.frames, example.frames * 2, equal_nan=True)
    truth = example.truths["instantaneous"]
    assert torch.allclose(twice.truths["instantaneous"], truth * 2, equal_nan=True)


def test_examples_are_functions_of_their_seed():
    examples = Examples([rain(10, (64, 64))], TINY)
    one, other, third = (examples.draw(seed, QUICK) for seed in (5, 5, 6))
    assert torch.equal(one.frames.nan_to_num(), other.frames.nan_to_num())
    assert not torch.equal(one.frames.nan_to_num(), third.frames.nan_to_num())


def test_no_two_processes_see_the_same_examples():
    seeds = [s for step in range(3) for rank in range(2) for s in batch_seeds(1, step, 4, rank, 2)]
    assert len(set(seeds)) == len(seeds) == 24


def test_no_example_starts_where_a_frame_is_missing():
    sequence = rain(12, (64, 64))
    kept = [k for k in range(12) if k != 5]
    gap = replace(sequence, frames=sequence.frames[kept], times=sequence.times[kept])
    starts = [gap.times[s.index] for s in Examples([gap], TINY).starts]
    missing = int(sequence.times[5])
    assert all(not t - 2 * 300 <= missing <= t for t in starts)


def test_short_events_are_refused():
    with pytest.raises(ValueError, match="no event is longer"):
        Examples([rain(3)], TINY)


# Inputs that do not fit


def test_other_quantities_are_refused():
    occupancy = GridSequence(
        np.zeros((8, 1, 32, 32), np.float32), ("occupancy",), np.arange(8), 1000.0
    )
    with pytest.raises(ValueError, match="holds occupancy, the model forecasts rain_rate"):
        check_sequence(occupancy, TINY)


def test_other_cells_are_refused():
    with pytest.raises(ValueError, match="cells of 2000 m, the model was made for 1000 m"):
        check_sequence(replace(rain(), cell=2000.0), TINY)


def test_rare_frames_are_refused():
    sequence = rain()
    rare = replace(sequence, times=sequence.times[0] + (sequence.times - sequence.times[0]) * 3)
    with pytest.raises(ValueError, match="every 900 s, the model looks at one every 300 s"):
        check_sequence(rare, TINY)


def test_missing_frames_are_unknown():
    sequence = rain()
    kept = [0, 1, 2, 3, 4, 5, 6, 8]
    gap = replace(sequence, frames=sequence.frames[kept], times=sequence.times[kept])
    past = past_of(gap, 7, TINY)
    assert past.there == (True, False, True)
    assert bool(torch.isnan(past.frames[1]).all())
    assert past.ages == (600.0, 300.0, 0.0)


def test_frames_at_other_times_are_carried_by_their_own_age():
    # As MRMS: a frame every 4 minutes, for a model that looks every 5.
    sequence = rain(9, (96, 96), (2.0, 0.0), unknown=False)
    offsets = np.arange(9, dtype=np.int64) * 240
    past = past_of(replace(sequence, times=sequence.times[0] + offsets), 8, TINY)
    assert past.ages == (480.0, 240.0, 0.0) or past.ages == (720.0, 240.0, 0.0)
    velocity = motion_of(past, TINY)
    # 2 cells in 240 s are 2.5 in the model's 300 s.
    assert float(velocity[0, 8:-8, 8:-8].mean()) == pytest.approx(2.5, abs=0.2)


def test_truth_of_an_hour_is_its_mean():
    sequence = rain(20)
    hour = truth_of(sequence, 5, 3600.0, "cumulative", 30.0)
    assert hour is not None
    assert np.allclose(hour, sequence.quantity[6:18].mean(0), equal_nan=True)
    assert truth_of(sequence, 12, 3600.0, "cumulative", 30.0) is None  # it is not over
    near = truth_of(sequence, 5, 310.0, "instantaneous", 30.0)
    assert near is not None
    assert np.array_equal(near, sequence.quantity[6], equal_nan=True)
    assert truth_of(sequence, 5, 450.0, "instantaneous", 30.0) is None


# Runs


def events() -> tuple[list[GridSequence], list[GridSequence]]:
    return [rain(9, (48, 48), seed=k) for k in (1, 2)], [rain(9, (48, 48), seed=3)]


def run(out, config=QUICK, **more):
    torch.manual_seed(0)
    model = MetNet2(TINY)
    result = train_metnet2(model, *events(), config, out, progress=False, **more)
    return model, result


def same(one, other) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


class Killed(Exception):
    pass


def test_a_killed_run_goes_on_bit_by_bit(tmp_path):
    straight, _ = run(tmp_path / "straight")
    from world_models.metnet2.model import save_forecaster

    def dies(model, folder, training):
        save_forecaster(model, folder, training)
        if folder.name == "last" and training["step"] >= 4:
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path / "killed", save=dies)
    state = tmp_path / "killed" / "train_state.safetensors"
    assert state.is_file()
    again, result = run(tmp_path / "killed")
    assert result.step == 4
    assert same(straight, again)


def test_the_best_is_kept_by_the_held_out_crps(tmp_path):
    _, result = run(tmp_path / "run")
    scores = [row["validation/crps"] for row in result.history if "validation/crps" in row]
    assert len(scores) == 2
    assert result.best_score == pytest.approx(-min(scores))
    saved = load_forecaster(tmp_path / "run")
    _, held = events()
    examples = Examples(held, TINY).fixed(2, (300.0, 600.0, 1200.0), QUICK)
    with torch.no_grad():
        again = held_out_crps(saved, examples)["validation/crps"]
    assert again == pytest.approx(min(scores), rel=1e-4)


def test_another_run_in_the_folder_is_refused(tmp_path):
    run(tmp_path / "run")
    with pytest.raises(ValueError, match="other config"):
        run(tmp_path / "run", replace(QUICK, lr=0.5))


def test_both_targets_are_learned(tmp_path):
    torch.manual_seed(0)
    config = replace(TINY, targets=("instantaneous", "cumulative"))
    model = MetNet2(config)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    event = rain(20, (48, 48))
    result = train_metnet2(
        model, [event], [], replace(QUICK, steps=2), tmp_path / "both", progress=False
    )
    row = result.history[-1]
    assert {"instantaneous/crps", "cumulative/crps"} <= row.keys()
    assert not torch.equal(model.state_dict()["heads.cumulative.3.weight"],
                           before["heads.cumulative.3.weight"])  # fmt: skip


@pytest.mark.learning
def test_growth_that_always_comes_is_learned(tmp_path):
    """Synthetic rain that stands still and grows by a fifth in each frame."""
    base = rain(1, (48, 48), seed=1, unknown=False).frames[0]
    frames = np.stack([base * 1.2**k for k in range(9)]).astype(np.float32)
    grows = GridSequence(frames, ("rain_rate",), rain(9).times, 1000.0, "synthetic growth")
    network = replace(TINY, edges=geometric_edges(0.1, 16.0, 20))
    config = replace(QUICK, steps=200, lr=1e-2, scale=1.0, log_every=200, save_every=200)
    torch.manual_seed(0)
    model = MetNet2(network)
    shown = Examples([grows], network).fixed(4, (300.0, 1200.0), config)
    with torch.no_grad():
        before = held_out_crps(model.eval(), shown)["validation/crps"]
    train_metnet2(model, [grows], [], config, tmp_path / "run", progress=False)
    with torch.no_grad():
        after = held_out_crps(model, shown)["validation/crps"]
    assert after < 0.6 * before


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path):
    for k, event in enumerate(events()[0]):
        (tmp_path / f"event{k}").mkdir()
        write_sequence(tmp_path / f"event{k}" / "event.npz", event)
    words = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "decisive", "train", "metnet2", "--data", str(tmp_path / "event0"),
        "--validation", str(tmp_path / "event1"), "--steps", "2", "--out", str(tmp_path / "run"),
        "--set-train", "validation_crops=1", "--set-train", "device=cpu",
        "--set-train", "batch_size=1", "--json",
    ]  # fmt: skip
    for name, value in (
        ("context", 32), ("target", 16), ("n_frames", 3), ("n_leads", 4), ("width", 8),
        ("lstm_width", 6), ("fine_width", 6), ("motion.levels", "(4,2)"), ("motion.window", 8.0),
    ):  # fmt: skip
        words += ["--set-model", f"{name}={value}"]
    found = subprocess.run(words, capture_output=True, text=True, timeout=250)
    assert found.returncode == 0, found.stderr
    printed = json.loads(found.stdout)
    assert printed["step"] == 2
    document = json.loads((tmp_path / "run" / "last" / "config.json").read_text())
    assert document["training"]["processes"] == 2


def test_the_motion_of_a_model_can_be_changed():
    model = tiny()
    other = with_weights(model, coordinates="eulerian")
    assert other.config.coordinates == "eulerian"
    assert same(model, other)
    with pytest.raises(ValueError, match="do not fit"):
        with_weights(model, width=9)


@pytest.mark.parametrize(
    "changes",
    [{"leads": 0}, {"crps": 0.0, "cross_entropy": 0.0}, {"scale": 0.5}, {"points": 0.0},
     {"dry_share": 0.0, "wetness": 0.0}, {"precision": "float8"}, {"crps_unit": 0.0}],
)  # fmt: skip
def test_impossible_trainings_are_refused(changes):
    with pytest.raises(ValueError, match=r"must|weight"):
        replace(QUICK, **changes)


def test_examples_stack():
    examples = Examples([rain(10, (64, 64))], TINY)
    batch = stacked([examples.draw(seed, QUICK) for seed in range(3)])
    assert batch.frames.shape == (3, 3, 1, 32, 32)
    assert batch.moves.shape == (3, 2, 2, 16, 16)
    assert batch.truths["instantaneous"].shape == (3, 2, 16, 16)
