"""The training loop: schedule, averaging, budgets, best checkpoints, resume, many processes."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_trainable import TinyPolicy, run, tiny_demos
from torch import nn

from learning import loop
from learning.adamw import FlatAdamW
from learning.batches import BatchOrder, DemoTensors
from learning.checkpoint import CheckpointError, read_checkpoint
from learning.ema import Ema
from learning.flat import FlatParameters
from learning.loop import TrainConfig, train
from learning.ranks import pick_device
from learning.train_config import learning_rate
from learning.train_log import read_metrics

TESTS = Path(__file__).parent
QUICK = TrainConfig(steps=60, batch_size=16, log_every=20, validate_every=20, tensorboard=False)


def fresh(seed: int = 0, dropout: float = 0.1, noise: float = 0.01) -> TinyPolicy:
    torch.manual_seed(seed)
    return TinyPolicy(dropout=dropout, noise=noise)


# The order of the data


def test_an_epoch_shows_every_row_once():
    order = BatchOrder(n_rows=23, batch_size=5, seed=3)
    rows = torch.cat([order.rows(step) for step in range(23)])
    for epoch in rows.view(5, 23):
        assert sorted(epoch.tolist()) == list(range(23))
    assert rows[:23].tolist() != rows[23:46].tolist()


def test_the_order_is_a_function_of_seed_and_step():
    forwards = BatchOrder(17, 6, seed=1)
    seen = [forwards.rows(step).tolist() for step in range(9)]
    jumping = BatchOrder(17, 6, seed=1)
    assert [jumping.rows(step).tolist() for step in (8, 2, 5)] == [seen[8], seen[2], seen[5]]
    assert BatchOrder(17, 6, seed=2).rows(0).tolist() != seen[0]


def test_batches_may_be_larger_than_the_data():
    rows = BatchOrder(n_rows=3, batch_size=10, seed=0).rows(0)
    assert sorted(rows.tolist()[:9]) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_processes_share_the_global_batch():
    whole = BatchOrder(50, 12, seed=4)
    parts = [BatchOrder(50, 12, seed=4, rank=rank, world=3) for rank in range(3)]
    for step in range(10):
        joined = torch.cat([part.rows(step) for part in parts])
        assert joined.tolist() == whole.rows(step).tolist()
    with pytest.raises(ValueError, match="multiple of 5 processes"):
        BatchOrder(50, 12, seed=4, rank=0, world=5)


def test_batches_are_windows_of_the_data():
    demos = tiny_demos()
    data = DemoTensors(demos, 3, 2, torch.device("cpu"))
    rows = torch.tensor([0, 4, 11])
    batch = data.batch(rows)
    windows = demos.windows(3, 2)
    seen = demos.observations["state"][windows.observations[rows.numpy()]]
    np.testing.assert_array_equal(batch.observations["state"].numpy(), seen)
    np.testing.assert_array_equal(
        batch.actions.numpy(), demos.actions[windows.actions[rows.numpy()]]
    )
    assert len(batch) == 3


@pytest.mark.parametrize("steps", [1, 2])
def test_large_arrays_are_gathered_by_row_and_stay_bytes(monkeypatch, steps):
    monkeypatch.setattr("learning.batches._LAID_OUT_BYTES", 0)
    demos = tiny_demos()
    images = np.random.default_rng(0).integers(0, 255, (len(demos), 4, 5, 3), np.uint8)
    demos = replace(demos, observations={**demos.observations, "pixels": images})
    data = DemoTensors(demos, steps, 1, torch.device("cpu"))
    batch = data.batch(torch.tensor([5, 0]))
    assert batch.observations["pixels"].dtype == torch.uint8
    expected = images[demos.windows(steps, 1).observations[[5, 0]]]
    np.testing.assert_array_equal(batch.observations["pixels"].numpy(), expected)


# Parameters, optimiser and average


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_our_adamw_is_torchs_bit_by_bit(weight_decay):
    ours, theirs = (fresh(dropout=0, noise=0) for _ in range(2))
    flat = FlatParameters(ours, matrices_apart=weight_decay > 0)
    optimizer = FlatAdamW(flat, weight_decay)
    groups = [
        {"params": [p for p in theirs.parameters() if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in theirs.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, fused=True)
    data = DemoTensors(tiny_demos(), 2, 1, torch.device("cpu"))
    generator = torch.Generator()
    for step in range(5):
        batch = data.batch(torch.arange(step, step + 8))
        flat.zero_grad()
        ours.loss(batch, generator)[0].backward()
        optimizer.step(1e-2)
        reference.zero_grad()
        theirs.loss(batch, generator)[0].backward()
        for group in reference.param_groups:
            group["lr"] = 1e-2
        reference.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("largest", [0.01, 1e6])
def test_clipping_is_torchs(apart, largest):
    ours, theirs = (fresh(dropout=0, noise=0) for _ in range(2))
    flat = FlatParameters(ours, apart)
    batch = DemoTensors(tiny_demos(), 2, 1, torch.device("cpu")).batch(torch.arange(8))
    for model in (ours, theirs):
        model.loss(batch, torch.Generator())[0].backward()
    flat.clip_grad(largest)
    nn.utils.clip_grad_norm_(theirs.parameters(), largest)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-5, atol=1e-9)


def test_flattening_keeps_values_and_names():
    model, before = fresh(), fresh().state_dict()
    flat = FlatParameters(model, matrices_apart=True)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert sum(tensor.numel() for tensor in flat.tensors) == sum(
        p.numel() for p in model.parameters()
    )
    assert flat.intact()
    model.zero_grad(set_to_none=True)
    assert not flat.intact()
    with pytest.raises(ValueError, match="no parameters to train"):
        FlatParameters(nn.Identity(), False)


def test_the_average_follows_with_a_warmed_up_decay():
    model = nn.Linear(1, 1, bias=False)
    flat = FlatParameters(model, False)
    with torch.no_grad():
        model.weight.fill_(0)
    ema = Ema(flat, decay=0.9)
    expected = 0.0
    for step in range(200):
        with torch.no_grad():
            model.weight.fill_(step + 1.0)
        ema.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * (step + 1)
    assert float(ema.tensors[0][0]) == pytest.approx(expected, rel=1e-5)
    with ema.applied():
        assert model.weight.item() == pytest.approx(expected, rel=1e-5)
    assert model.weight.item() == 200
    with pytest.raises(ValueError, match="ema_decay"):
        Ema(flat, 1.0)


def test_the_learning_rate_rises_then_falls_to_zero():
    config = TrainConfig(steps=100, lr=0.5, warmup_steps=10)
    rates = [learning_rate(config, step, step / 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.05)
    assert rates[50] == pytest.approx(0.25)
    assert rates[100] == 0
    assert rates.index(max(rates)) == 9
    assert learning_rate(replace(config, warmup_steps=0), 0, 0) == 0.5


# Training


def test_training_learns_and_writes_what_it_promises(tmp_path):
    config = replace(QUICK, steps=300, lr=1e-2, tensorboard=True)
    model = fresh(dropout=0)
    result = train(model, tiny_demos(), config, tmp_path)
    losses = [row["loss"] for row in result.history]
    assert losses[-1] < 0.05 * losses[0]
    assert result.history[-1]["validation/error"] < 0.1
    assert result.history[-1]["lr"] == 0
    assert result.step == 300
    assert result.best_score is None
    assert result.folder == tmp_path / "last"
    assert result.cpu_seconds > 0
    assert not model.training
    found = read_checkpoint(tmp_path)[1]
    for name, value in model.state_dict().items():
        assert torch.equal(found[name], value)
    assert read_metrics(tmp_path / "metrics.jsonl") == result.history
    assert list((tmp_path / "tensorboard").glob("events*"))
    assert not list(tmp_path.glob(".*"))


def test_saved_weights_are_the_averaged_ones(tmp_path):
    averaged = train(fresh(), tiny_demos(), QUICK, tmp_path / "a")
    plain = train(fresh(), tiny_demos(), replace(QUICK, ema_decay=None), tmp_path / "b")
    first, second = (read_checkpoint(result.folder)[1] for result in (averaged, plain))
    assert not torch.equal(first["net.0.weight"], second["net.0.weight"])
    state = load_file(tmp_path / "a" / "train_state.safetensors")
    assert torch.equal(state["model/net.0.weight"], second["net.0.weight"])


def test_the_best_score_is_kept_and_ties_go_to_the_later(tmp_path):
    scores = iter([0.5, 0.9, 0.2, 0.9, 0.1])
    seen = []

    def evaluate(model: nn.Module) -> float:
        assert not model.training
        seen.append(model.state_dict()["net.0.weight"].clone())
        return next(scores)

    config = replace(QUICK, steps=50, evaluate_every=10)
    result = train(fresh(), tiny_demos(), config, tmp_path, evaluate)
    assert result.best_score == 0.9
    assert result.folder == tmp_path / "best"
    document, found = read_checkpoint(tmp_path)
    assert document["training"]["step"] == 40
    assert document["training"]["score"] == 0.9
    assert torch.equal(found["net.0.weight"], seen[3])
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["score"] for row in rows if "score" in row] == [0.5, 0.9, 0.2, 0.9, 0.1]


def test_evaluations_are_spread_over_the_budget(tmp_path):
    steps = []
    config = replace(QUICK, steps=50, evaluations=5)
    model = fresh()
    train(model, tiny_demos(), config, tmp_path, lambda m: float(steps.append(0) or len(steps)))
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows if "score" in row] == [10, 20, 30, 40, 50]


def test_evaluation_does_not_touch_the_training(tmp_path):
    def noisy(model: nn.Module) -> float:
        return float(torch.rand(17).sum())

    with_it = train(fresh(), tiny_demos(), QUICK, tmp_path / "a", noisy)
    without = train(fresh(), tiny_demos(), QUICK, tmp_path / "b")
    assert with_it.step == without.step
    first, second = (read_checkpoint(tmp_path / name / "last")[1] for name in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_caller_saves_checkpoints_its_own_way(tmp_path):
    saved = []
    train(
        fresh(),
        tiny_demos(),
        QUICK,
        tmp_path,
        lambda model: 1.0,
        save=lambda model, folder, training: saved.append((folder.name, training)),
    )
    assert {name for name, _ in saved} == {"best", "last"}
    json.dumps(saved[-1][1], allow_nan=False)
    assert saved[-1][1]["train"]["steps"] == 60
    assert saved[-1][1]["episodes"] == 20


def test_a_budget_of_seconds_ends_with_the_rate_at_zero(tmp_path):
    config = replace(QUICK, steps=None, cpu_seconds=0.3, holdout=0.0)
    result = train(fresh(), tiny_demos(), config, tmp_path)
    assert 0.3 <= result.cpu_seconds < 0.6
    assert result.history[-1]["lr"] == 0
    assert result.step > 10


def test_evaluations_are_not_charged_to_the_budget(tmp_path):
    def slow(model: nn.Module) -> float:
        until = time.process_time() + 0.3
        while time.process_time() < until:
            pass
        return 0.0

    config = replace(QUICK, steps=None, cpu_seconds=0.3, evaluations=2)
    result = train(fresh(), tiny_demos(), config, tmp_path, slow)
    assert len([row for row in result.history if "score" in row]) == 2
    assert result.cpu_seconds < 0.6


class Normalised(TinyPolicy):
    """With batch normalisation behind the first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.net.insert(1, nn.BatchNorm1d(16))


def test_averaged_weights_have_statistics_of_their_own(tmp_path, monkeypatch):
    errors = []

    def evaluate(model):
        layer, norm = model.net[0], model.net[1]
        train_part, _ = tiny_demos().split(QUICK.holdout, QUICK.seed)
        data = DemoTensors(train_part, 2, 1, torch.device("cpu"))
        states = data.batch(torch.arange(len(data))).observations["state"].flatten(1)
        with torch.no_grad():
            right = layer(states).mean(0)
        errors.append(float((norm.running_mean - right).abs().max() / right.std()))
        return 1.0

    # Half way the weights still run, and their average is far behind them.
    # 16 batches of 12 are all 192 windows, and 32 steps two epochs.
    config = replace(QUICK, steps=64, batch_size=12, warmup_steps=0, lr=0.3, evaluations=2)
    for name in ("own", "live"):
        torch.manual_seed(0)
        train(Normalised(), tiny_demos(), config, tmp_path / name, evaluate)
        monkeypatch.setattr(loop._Run, "renew_norms", lambda _: None)
    own, live = errors[0], errors[2]
    assert own < 1e-4
    assert live > 0.1


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    class Broken(TinyPolicy):
        def loss(self, batch, generator):
            loss, values = super().loss(batch, generator)
            return loss * math.nan, values

    with pytest.raises(ValueError, match="loss became nan by step 20"):
        train(Broken(), tiny_demos(), QUICK, tmp_path)
    assert not (tmp_path / "last").exists()


def test_what_cannot_train_is_refused(tmp_path):
    with pytest.raises(ValueError, match="methods loss and validate"):
        train(nn.Linear(1, 1), tiny_demos(), QUICK, tmp_path)
    model = fresh()
    model.horizon = 0
    with pytest.raises(ValueError, match="must tell horizon"):
        train(model, tiny_demos(), QUICK, tmp_path)


def test_a_loss_that_clears_gradients_is_told(tmp_path):
    class Clearing(TinyPolicy):
        def loss(self, batch, generator):
            self.zero_grad(set_to_none=True)
            return super().loss(batch, generator)

    with pytest.raises(ValueError, match="gradients"):
        train(Clearing(), tiny_demos(), QUICK, tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": None}, "budget"),
        ({"steps": 0}, "steps"),
        ({"cpu_seconds": -1.0}, "cpu_seconds"),
        ({"batch_size": 0}, "batch_size"),
        ({"lr": math.nan}, "lr"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"holdout": 1.0}, "holdout"),
        ({"threads": 0}, "threads"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"grad_clip": 0.0}, "grad_clip"),
    ],
)
def test_impossible_settings_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        replace(QUICK, **changes)


def test_devices_are_checked():
    assert pick_device("cpu") == torch.device("cpu")
    for name in ("tpu9", "mps", ""):
        with pytest.raises(ValueError, match="device must be"):
            pick_device(name)
    if not torch.cuda.is_available():
        assert pick_device("auto") == torch.device("cpu")
        with pytest.raises(ValueError, match="finds no GPU"):
            pick_device("cuda")


def test_threads_are_put_back(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        train(fresh(), tiny_demos(), replace(QUICK, steps=2), tmp_path)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# Resuming


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state = load_file(folder / "train_state.safetensors")
    return {name: value for name, value in state.items() if not name.startswith("rng")}


def assert_same_weights(first: Path, second: Path) -> None:
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize("stop", [20, 40])
def test_a_stopped_run_ends_bit_by_bit_as_an_unbroken_one(tmp_path, stop):
    class Stopped(Exception):
        pass

    def stopping(model: nn.Module) -> float:
        if stopping.calls == stop // 20:
            raise Stopped
        stopping.calls += 1
        return 0.5

    stopping.calls = 0
    config = replace(QUICK, evaluate_every=20, weight_decay=0.01)
    train(fresh(), tiny_demos(), config, tmp_path / "whole", lambda model: 0.5)
    with pytest.raises(Stopped):
        train(fresh(), tiny_demos(), config, tmp_path / "cut", stopping)
    # Other initial weights: everything must come from the state.
    result = train(fresh(seed=9), tiny_demos(), config, tmp_path / "cut", lambda model: 0.5)
    assert result.step == 60
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")
    whole, cut = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "cut"))
    for row in whole + cut:
        row.pop("cpu_seconds", None)
    assert cut == whole


def test_a_finished_run_is_not_repeated(tmp_path):
    first = train(fresh(), tiny_demos(), QUICK, tmp_path)
    model = fresh(seed=3)
    again = train(model, tiny_demos(), QUICK, tmp_path)
    assert (again.step, again.history) == (first.step, first.history)
    found = read_checkpoint(tmp_path)[1]
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())


def test_starting_afresh_forgets_the_old_run(tmp_path):
    train(fresh(), tiny_demos(), QUICK, tmp_path)
    result = train(fresh(), tiny_demos(), replace(QUICK, steps=20), tmp_path, resume=False)
    assert result.step == 20
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [20]


def test_other_settings_or_data_do_not_continue_a_run(tmp_path):
    train(fresh(), tiny_demos(), QUICK, tmp_path)
    with pytest.raises(ValueError, match=r"other config \(lr 0\.001, now 0\.01\)"):
        train(fresh(), tiny_demos(), replace(QUICK, lr=0.01), tmp_path)
    with pytest.raises(ValueError, match="other data"):
        train(fresh(), tiny_demos(seed=5), QUICK, tmp_path)
    with pytest.raises(ValueError, match="other model"):
        train(TinyPolicy(width=8), tiny_demos(), QUICK, tmp_path)
    assert train(fresh(), tiny_demos(), replace(QUICK, log_every=7), tmp_path).step == 60


@pytest.mark.parametrize("keep", [0, 7, 100, -3])
def test_a_damaged_state_is_told(tmp_path, keep):
    train(fresh(), tiny_demos(), replace(QUICK, steps=2), tmp_path)
    path = tmp_path / "train_state.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="delete it to train from the start"):
        train(fresh(), tiny_demos(), replace(QUICK, steps=2), tmp_path)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}", "OMP_NUM_THREADS": "1"}


def test_a_killed_process_resumes_bit_by_bit(tmp_path):
    command = [sys.executable, "-m", "tiny_trainable", str(tmp_path / "cut")]
    process = subprocess.Popen(command, env=environment(), cwd=TESTS)
    state = tmp_path / "cut" / "train_state.safetensors"
    deadline = time.monotonic() + 120
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the training ended before the kill"
    with_header = state.read_bytes()
    at = json.loads(
        json.loads(with_header[8 : 8 + int.from_bytes(with_header[:8], "little")])["__metadata__"][
            "state"
        ]
    )["at"]
    assert 0 < at["step"] < 1500
    run(tmp_path / "cut")
    run(tmp_path / "whole")
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")
    first, second = (read_checkpoint(tmp_path / name)[1] for name in ("whole", "cut"))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_two_processes_train_as_one_on_the_same_global_batch(tmp_path):
    subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            "-m",
            "tiny_trainable",
            str(tmp_path / "two"),
            "--plain",
        ],
        env=environment(),
        cwd=TESTS,
        check=True,
        timeout=240,
    )
    run(tmp_path / "one", plain=True)
    two, one = (read_checkpoint(tmp_path / name)[1] for name in ("two", "one"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5)
    rows = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("two", "one")]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]


@pytest.mark.gpu
def test_training_runs_on_a_gpu(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    result = train(fresh(), tiny_demos(), replace(QUICK, device="cuda"), tmp_path, lambda m: 1.0)
    assert result.step == 60
    again = train(fresh(), tiny_demos(), replace(QUICK, device="cuda"), tmp_path, lambda m: 1.0)
    assert again.history == result.history
