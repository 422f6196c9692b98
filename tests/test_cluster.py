"""Episodes on Ray: the same rows, also when a worker dies."""

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from decisive.evaluation import EvaluationConfig, evaluate, policy_files
from learning.npz_format import write_npz

# Ray leaves sockets and log files to the garbage collector.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # a busy machine takes minutes to start Ray
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CONFIG = EvaluationConfig(
    "decisive/BlockPush-v0", "expert", episodes=24, expert_mode="diverse", workers=2
)


def ray_workers():
    """Process ids of Ray workers that are running one of our episodes."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::_episode"):
            found.append(int(folder.name))
    return found


def kill_one(killed, before, stop):
    """Kill one worker that began after the test did, once episodes run."""
    while not stop.is_set():
        fresh = sorted(set(ray_workers()) - before)
        if fresh:
            os.kill(fresh[0], signal.SIGKILL)
            killed.append(fresh[0])
            return
        time.sleep(0.002)


def test_a_killed_worker_changes_nothing(tmp_path):
    killed, stop = [], threading.Event()
    killer = threading.Thread(target=kill_one, args=(killed, set(ray_workers()), stop))
    killer.start()
    try:
        result = evaluate(replace(CONFIG, ray="local"))
    finally:
        stop.set()
        killer.join()
    assert killed, "no worker was seen running an episode"
    assert result["per_episode"] == evaluate(replace(CONFIG, workers=1))["per_episode"]


def test_a_checkpoint_travels_with_its_episodes(tmp_path):
    import torch

    from agents import make_policy, save_policy
    from decisive.recording import RecordConfig, record

    demos = record(RecordConfig("decisive/Particle-v0", episodes=2), tmp_path / "staging")
    write_npz(demos, tmp_path / "demos.npz")
    torch.manual_seed(0)
    save_policy(make_policy("mdn", demos, {"width": 16}), tmp_path / "policy")
    config = EvaluationConfig("decisive/Particle-v0", str(tmp_path / "policy"), episodes=3)
    assert set(policy_files(config.policy)) == {"config.json", "model.safetensors"}
    here = evaluate(config)["per_episode"]
    assert evaluate(replace(config, ray="local"))["per_episode"] == here


def test_bad_input_on_ray_is_the_same_error():
    with pytest.raises(ValueError, match="unknown option"):
        evaluate(replace(CONFIG, options={"nonsense": 1}, ray="local"))


def test_a_cluster_that_is_not_there_is_an_error():
    with pytest.raises(OSError, match="no Ray cluster"):
        evaluate(replace(CONFIG, ray="127.0.0.1:1"))
