"""Saving and loading policies: the same decisions, and one clear line for anything broken."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from policy_cases import STATES_ONLY, demonstrations, observation_at, small_config

import agents
from agents import POLICIES, Policy, load_policy, make_policy, save_policy, shipped_policies
from learning.checkpoint import CheckpointError


def saved(folder: Path, method: str = "mse", **changes) -> Policy:
    torch.manual_seed(0)
    policy = make_policy(method, demonstrations(), small_config(method, **changes))
    save_policy(policy, folder, {"steps": 3}, "# A card\n")
    return policy


def edit(folder: Path, **changes) -> None:
    path = folder / "config.json"
    document = json.loads(path.read_text())
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(document.get(key), dict):
            document[key].update(value)
        else:
            document[key] = value
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("method", "observation"),
    [(m, o) for m in POLICIES for o in ("state", "both") if o == "state" or m not in STATES_ONLY],
)
def test_a_loaded_policy_decides_as_the_saved_one_did(tmp_path, method, observation):
    torch.manual_seed(0)
    demos = demonstrations(observation)
    policy = make_policy(method, demos, small_config(method, n_obs_steps=2))
    save_policy(policy, tmp_path / "p", {"steps": 3}, "# A card\n")
    loaded = load_policy(tmp_path / "p")
    assert loaded.method == method
    assert loaded.config == policy.config
    assert loaded.spec == policy.spec
    assert not loaded.training
    obs = observation_at(demos, 3)
    policy.reset(4)
    loaded.reset(4)
    np.testing.assert_array_equal(policy.act(obs), loaded.act(obs))
    assert (tmp_path / "p" / "README.md").read_text() == "# A card\n"
    assert json.loads((tmp_path / "p" / "config.json").read_text())["training"] == {"steps": 3}


@pytest.mark.parametrize(
    "changes",
    [
        {"frame": "slot", "horizon": 2},
        {"relations": True},
        {"spectral_norm": True, "negatives": [["proposal", 1.0], ["uniform", 1.0]]},
        {"inference": "autoregressive"},
    ],
)
def test_implicit_variants_come_back(tmp_path, changes):
    policy = saved(tmp_path / "p", "ibc", **changes).eval()
    loaded = load_policy(str(tmp_path / "p"))
    obs = observation_at(demonstrations(), 0)
    policy.reset(1)
    loaded.reset(1)
    np.testing.assert_array_equal(policy.act(obs), loaded.act(obs))


def test_infinite_action_bounds_survive(tmp_path):
    import dataclasses

    demos = demonstrations()
    demos = dataclasses.replace(
        demos,
        action_low=np.full(2, -np.inf, np.float32),
        action_high=np.full(2, np.inf, np.float32),
    )
    save_policy(make_policy("mse", demos, small_config("mse")), tmp_path / "p", {}, "")
    assert load_policy(tmp_path / "p").spec.action_high == (math.inf, math.inf)


def test_an_unknown_policy_lists_the_shipped_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(agents.registry, "CHECKPOINTS", tmp_path)
    with pytest.raises(CheckpointError, match=r"no policy 'nope': .* shipped: none"):
        load_policy("nope")
    saved(tmp_path / "task-mse")
    (tmp_path / "not-a-checkpoint").mkdir()
    assert shipped_policies() == {"task-mse": tmp_path / "task-mse"}
    assert load_policy("task-mse").method == "mse"
    with pytest.raises(CheckpointError, match="shipped: task-mse"):
        load_policy("nope")


def test_every_shipped_policy_loads():
    for name in shipped_policies():
        assert name.rsplit("-", 1)[1] in POLICIES
        assert load_policy(name).spec.action_dim >= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "magic"}, "unknown policy method 'magic'; known: ibc, mse"),
        ({"method": "mdn"}, "does not fit|missing|unknown"),
        ({"config": {"wdith": 2}}, "unknown settings wdith; known: "),
        ({"config": {"width": 17}}, "must be"),
        ({"config": {"width": "wide"}}, "must be int; got 'wide'"),
        ({"config": {"width": 8192, "depth": 64}}, "does not fit|missing|must be"),
        ({"config": {"frame": "moon"}}, "known frames: slot"),
        ({"spec": {"action_dim": 3}}, "must be 3 numbers"),
        ({"spec": {"observation": {"state": [9]}}}, "9 entries"),
        ({"spec": {"observation": None}}, "must map keys"),
        ({"spec": {"action_low": "low"}}, "policy spec|must be|could not convert"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_in_one_line(tmp_path, changes, message):
    saved(tmp_path / "p")
    edit(tmp_path / "p", **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_policy(tmp_path / "p")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("fault", ["nan", "missing", "extra", "shape", "truncated", "gone"])
def test_broken_weights_are_refused_in_one_line(tmp_path, fault):
    saved(tmp_path / "p")
    path = tmp_path / "p" / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    name = "head.bias"
    if fault == "nan":
        tensors[name][0] = float("nan")
    elif fault == "missing":
        del tensors[name]
    elif fault == "extra":
        tensors["more"] = torch.zeros(1)
    elif fault == "shape":
        tensors[name] = torch.zeros(5)
    safetensors.torch.save_file(tensors, path)
    if fault == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    elif fault == "gone":
        path.unlink()
    with pytest.raises(CheckpointError) as caught:
        load_policy(tmp_path / "p")
    assert "\n" not in str(caught.value)


def test_nan_weights_are_not_saved_and_the_old_checkpoint_stays(tmp_path):
    policy = saved(tmp_path / "p")
    before = (tmp_path / "p" / "model.safetensors").read_bytes()
    with torch.no_grad():
        next(policy.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN"):
        save_policy(policy, tmp_path / "p", {}, "")
    assert (tmp_path / "p" / "model.safetensors").read_bytes() == before


def test_saved_files_hold_no_code_and_normalisers_travel_inside(tmp_path):
    policy = saved(tmp_path / "p")
    assert {file.name for file in (tmp_path / "p").iterdir()} == {
        "config.json",
        "model.safetensors",
        "README.md",
    }
    tensors = safetensors.torch.load_file(tmp_path / "p" / "model.safetensors")
    torch.testing.assert_close(tensors["action_normalizer.high"], policy.action_normalizer.high)
    assert tensors.keys() == policy.state_dict().keys()


def test_a_policy_without_a_card_gets_a_plain_one(tmp_path):
    save_policy(make_policy("mse", demonstrations(), small_config("mse")), tmp_path / "p")
    assert "mse policy" in (tmp_path / "p" / "README.md").read_text()
