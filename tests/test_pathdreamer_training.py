"""Training Pathdreamer: it learns what copying cannot give, goes on after a kill, and spreads."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pathdreamer_cases import TINY, make_guidance, painted_set

from learning.checkpoint import CheckpointError
from learning.loop import TrainResult
from world_models.pathdreamer.batches import WalkConfig
from world_models.pathdreamer.losses import LossConfig
from world_models.pathdreamer.model import Pathdreamer, load_world_model
from world_models.pathdreamer.panoramas import split_houses
from world_models.pathdreamer.scores import validate
from world_models.pathdreamer.train_config import DreamTrainConfig
from world_models.pathdreamer.training import train_pathdreamer

QUICK = DreamTrainConfig(
    steps=4,
    batch_size=2,
    holdout=0.0,
    warmup_steps=2,
    log_every=1,
    save_every=2,
    recurrent_from=0.5,
    adversarial_from=0.25,
    tensorboard=False,
    device="cpu",
    precision="float32",
)


def run(
    out: Path, config: DreamTrainConfig = QUICK, **more: Any
) -> tuple[Pathdreamer, TrainResult]:
    torch.manual_seed(0)
    model = Pathdreamer(TINY)
    result = train_pathdreamer(
        model, painted_set(0, 3, 16), config, out, make_guidance, progress=False, **more
    )
    return model, result


def same(one: Pathdreamer, other: Pathdreamer) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


class Killed(Exception):
    pass


# Learning


@pytest.mark.learning
@pytest.mark.slow
def test_the_model_beats_copying_where_nothing_was_seen(tmp_path: Path) -> None:
    # 24 painted houses of rooms in a row, a quarter of them held out; some 20 CPU-seconds. Copying
    # the nearest visible pixel smears the doorway that one came through over the new room.
    config = replace(
        QUICK,
        steps=60,
        batch_size=8,
        lr=3e-3,
        holdout=0.25,
        warmup_steps=10,
        log_every=60,
        validate_every=60,
        validate_samples=48,
        save_every=60,
        ema_decay=0.95,
        recurrent_from=0.8,
        losses=LossConfig(adversarial=0.0, feature_matching=0.0),
    )
    torch.manual_seed(0)
    model = Pathdreamer(TINY)
    result = train_pathdreamer(
        model, painted_set(0, 24), config, tmp_path, make_guidance, progress=False
    )
    found = {name.removeprefix("validation/"): v for name, v in result.history[-1].items()}
    assert found["hole_miou"] > found["hole_filled_miou"] + 0.2
    assert found["hole_depth_mae"] < 0.7 * found["hole_filled_depth_mae"]
    assert found["hole_rgb_mae"] < 0.7 * found["hole_filled_rgb_mae"]
    # And where something was seen it does not unlearn to copy.
    assert found["visible_miou"] > found["visible_filled_miou"] - 0.03
    loaded = load_world_model(tmp_path)
    held = split_houses(painted_set(0, 24), 0.25)[1]
    assert held is not None
    again = validate(loaded, held, make_guidance, config.walks, 1, 48, 8)
    assert again == pytest.approx({name: found[name] for name in again}, rel=1e-4)


@pytest.mark.learning
def test_a_few_steps_lower_the_loss_of_one_example(tmp_path: Path) -> None:
    walks = WalkConfig(context=(1, 1), hops=(1, 1), turn=False, mirror=False)
    config = replace(
        QUICK, steps=12, walks=walks, lr=1e-2, parts=("structure",), recurrent_from=1.0
    )
    _, result = run(tmp_path, config)
    losses = [row["loss"] for row in result.history]
    assert np.mean(losses[-4:]) < np.mean(losses[:4])


# Resuming


def test_a_killed_training_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole")
    calls = []

    def kill(model: Pathdreamer, folder: Path, training: dict[str, Any]) -> None:
        calls.append(training["step"])
        if training["step"] == 4:
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path / "killed", save=kill)
    assert calls == [2, 4]
    resumed, result = run(tmp_path / "killed")
    assert same(whole, resumed)
    assert result.step == 4
    assert [row["step"] for row in result.history] == [1, 2, 3, 4]


@pytest.mark.learning
def test_a_finished_training_is_not_trained_again(tmp_path: Path) -> None:
    first, _ = run(tmp_path)
    before = (tmp_path / "last" / "model.safetensors").stat().st_mtime_ns
    second, result = run(tmp_path)
    assert same(first, second)
    assert result.step == 4
    assert (tmp_path / "last" / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.learning
def test_another_run_in_the_folder_is_not_mixed_with_this_one(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(ValueError, match="other config"):
        run(tmp_path, replace(QUICK, lr=1e-4))
    _, result = run(tmp_path, replace(QUICK, lr=1e-4), resume=False)
    assert result.step == 4


@pytest.mark.learning
def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    state = tmp_path / "train_state.safetensors"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="corrupt"):
        run(tmp_path)


@pytest.mark.learning
def test_how_a_run_is_watched_may_change_on_the_way(tmp_path: Path) -> None:
    run(tmp_path)
    run(tmp_path, replace(QUICK, log_every=3, save_every=1))


# What is trained


def test_parts_that_are_not_trained_stay_as_they_were(tmp_path: Path) -> None:
    torch.manual_seed(0)
    fresh = Pathdreamer(TINY)
    # Without free nats: a latent that holds less than those leaves the prior alone.
    losses = LossConfig(free_nats=0.0)
    config = replace(QUICK, parts=("structure",), ema_decay=None, losses=losses)
    model, result = run(tmp_path, config)
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]) == name.startswith("image."), name
    assert "colour" not in result.history[-1]
    assert "discriminator" not in result.history[-1]


def test_the_discriminator_acts_from_its_time_on(tmp_path: Path) -> None:
    _, result = run(tmp_path, replace(QUICK, adversarial_from=0.5))
    acting = ["discriminator" in row for row in result.history]
    assert acting == [False, False, True, True]


def test_the_summary_is_learned_first_and_then_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Pathdreamer(replace(TINY, structure=replace(TINY.structure, summary=32)))
    before = {name: value.clone() for name, value in model.structure.state_dict().items()}
    config = replace(QUICK, parts=("summary", "structure"), steps=6, summary_share=0.5)
    data = painted_set(0, 3, 16)

    def changed() -> set[str]:
        now = model.structure.state_dict().items()
        return {name.split(".")[0] for name, v in now if not torch.equal(v, before[name])}

    first, then = config.in_turn()
    assert (first.steps, then.steps) == (3, 3)
    assert first.batch_size == 8 * config.batch_size
    train_pathdreamer(model, data, first, tmp_path / "summary", make_guidance, progress=False)
    assert changed() == {"summary"}
    learned = {k: v.clone() for k, v in model.structure.summary.state_dict().items()}
    result = train_pathdreamer(model, data, config, tmp_path, make_guidance, progress=False)
    assert result.step == 3
    for name, value in model.structure.summary.state_dict().items():
        assert torch.equal(value, learned[name])
    assert "decoder" in changed()
    assert same(model, load_world_model(tmp_path / "last"))


def test_a_summary_learns_to_name_the_rooms_that_the_data_name(tmp_path: Path) -> None:
    data = painted_set(0, 3, 16)
    rooms = tuple("den" if k % 2 else "study" for k in range(len(data)))
    torch.manual_seed(0)
    own = replace(TINY, structure=replace(TINY.structure, summary=32), rooms=("den", "study"))
    config = replace(QUICK, parts=("summary",), steps=3, log_every=1, weight_decay=0.0)
    for name, known in (("named", rooms), ("unnamed", ("",) * len(data))):
        model = Pathdreamer(own)
        assert model.structure.summary.rooms.weight.shape == (2, 32)
        before = model.structure.summary.rooms.weight.clone()
        told = replace(data, rooms=known)
        result = train_pathdreamer(
            model, told, config, tmp_path / name, make_guidance, progress=False
        )
        assert (result.history[-1]["room"] > 0) == (name == "named")
        learned = model.structure.summary.rooms.weight
        assert torch.equal(learned, before) == (name == "unnamed")
    assert load_world_model(tmp_path / "named" / "last").config.rooms == ("den", "study")


def test_a_model_without_a_summary_is_trained_without(tmp_path: Path) -> None:
    _, result = run(tmp_path, replace(QUICK, parts=("summary", "structure"), steps=4))
    assert not (tmp_path / "summary").exists()
    assert result.step == 4
    with pytest.raises(ValueError, match="no summary"):
        run(tmp_path / "alone", replace(QUICK, parts=("summary",)))


def test_roll_outs_begin_at_their_time(tmp_path: Path) -> None:
    seen: list[int] = []

    def counting(context: Any, position: Any) -> Any:
        seen.append(len(context))
        return make_guidance(context, position)

    torch.manual_seed(0)
    walks = WalkConfig(context=(1, 1), hops=(3, 3))
    config = replace(QUICK, walks=walks, recurrent_share=1.0, parts=("structure",))
    train_pathdreamer(
        Pathdreamer(TINY), painted_set(0, 3, 16), config, tmp_path, counting, progress=False
    )
    # Two steps of two teacher-forced examples; then two of examples that are projected at the
    # viewpoints between too, with one dream more each time. Some walks end early, at a dead end.
    assert seen[:4] == [1] * 4
    assert max(seen) == 3
    assert seen.count(2) >= seen.count(3)


def test_houses_held_out_are_not_trained_on() -> None:
    data = painted_set(0, 4)
    kept, held = split_houses(data, 0.25)
    assert held is not None
    assert set(kept.starts) & set(held.starts) == set()
    assert [name for name, _ in held.houses] == ["house-3"]
    assert split_houses(data, 0.0)[1] is None
    with pytest.raises(ValueError, match="split"):
        split_houses(painted_set(0, 1), 0.5)


def test_a_validation_repeats_itself_and_a_fresh_model_scores_as_copying() -> None:
    torch.manual_seed(0)
    model = Pathdreamer(TINY).eval()
    data = painted_set(0, 3, 16)
    one, two = (validate(model, data, make_guidance, WalkConfig(), 0, 4, 2) for _ in range(2))
    assert one == two
    for name in ("hole_accuracy", "hole_miou", "visible_accuracy"):
        where, score = name.split("_")
        assert one[name] == pytest.approx(one[f"{where}_filled_{score}"])


def test_panoramas_that_do_not_fit_the_strides_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        train_pathdreamer(Pathdreamer(TINY), painted_set(0, 2, 24), QUICK, tmp_path, make_guidance)


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lower lr"):
        run(tmp_path, replace(QUICK, steps=30, lr=1e18, warmup_steps=0, grad_clip=None))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parts": ()}, "parts"),
        ({"parts": ("structure", "sound")}, "parts"),
        ({"recurrent_from": 1.5}, "recurrent_from"),
        ({"recurrent_share": -0.5}, "recurrent_share"),
        ({"precision": "float8"}, "precision"),
        ({"workers": -1}, "workers"),
        ({"discriminator_lr": 0.0}, "discriminator_lr"),
        ({"return_temperature": 1.0}, "return_temperature"),
        ({"steps": None}, "budget"),
    ],
)
def test_configs_that_cannot_train_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(QUICK, **change)


# Precision and processes


@pytest.mark.learning
def test_bfloat16_trains_too(tmp_path: Path) -> None:
    # Slow where the CPU emulates it, right everywhere: the weights stay float32.
    model, result = run(tmp_path, replace(QUICK, precision="bfloat16"))
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert all(np.isfinite(row["loss"]) for row in result.history)
    reference = run(tmp_path / "float32")[1].history[0]["loss"]
    assert result.history[0]["loss"] == pytest.approx(reference, rel=0.05)


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    config = replace(QUICK, losses=LossConfig(free_nats=0.0))
    alone, _ = run(tmp_path / "one", config)
    here = Path(__file__).resolve()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    command += [str(here), str(tmp_path / "two")]
    subprocess.run(command, check=True, cwd=here.parent.parent, timeout=240, capture_output=True)
    spread = load_world_model(tmp_path / "two")
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(value, spread.state_dict()[name], rtol=1e-2, atol=2e-4)
    rows = (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [1, 2, 3, 4]


if __name__ == "__main__":
    run(Path(sys.argv[1]), replace(QUICK, losses=LossConfig(free_nats=0.0)))
