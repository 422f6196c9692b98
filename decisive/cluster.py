"""Episodes on a Ray cluster: many machines, the same rows."""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from decisive.episodes import Episode, Runner
    from decisive.evaluation import EvaluationConfig

MAX_RETRIES = 5
"""How often an episode or a tile is started again after its worker died."""
STARTS = 3
"""How often a local cluster is started before this is given up."""


def run_on_ray(config: EvaluationConfig, seeds: list[int]) -> Iterator[Episode]:
    """Run episodes as Ray tasks, one a seed.

    An episode is a function of its seed, so one whose worker or machine died is simply run again,
    elsewhere, to the same end. The checkpoint travels with the task: no shared disk is needed.

    Args:
        config: what to run; `config.ray` is `local` or the address of a cluster.
        seeds: seeds of the episodes.

    Yields:
        The episodes, in the order they finish.

    Raises:
        ValueError: as in `decisive.evaluation.evaluate`, or if Ray is not installed.
        OSError: if the cluster is not there, or an episode lost its worker too often.
    """
    try:
        import ray
        from ray.exceptions import RayError, RayTaskError
    except ImportError as error:
        raise ValueError("--ray needs Ray: pip install 'decisive[cluster]'") from error
    from decisive.evaluation import policy_files

    connect(str(config.ray), config.workers)
    try:
        files = ray.put(policy_files(config.policy))
        task = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(_episode)
        waiting = [task.remote(config, files, seed) for seed in seeds]
        while waiting:
            ready, waiting = ray.wait(waiting, num_returns=1)
            yield ray.get(ready[0])
    except RayTaskError as error:
        if isinstance(error.cause, ValueError | OSError):
            raise error.cause from error
        raise
    except RayError as error:
        raise OSError(f"Ray gave up on an episode: {error}") from error
    finally:
        ray.shutdown()


def connect(address: str, workers: int) -> None:
    """Connect this process to Ray; `ray.shutdown()` undoes it.

    Args:
        address: `local`, or that of a cluster.
        workers: tasks at a time of a local one.

    Raises:
        OSError: if the cluster is not there.
    """
    import ray

    # The root of the source, for workers that do not start in it; one thread an episode.
    root = str(Path(__file__).resolve().parents[1])
    known = os.environ.get("PYTHONPATH", "")
    environment = {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(part for part in (root, known) if part),
    }
    common: dict[str, Any] = {
        "runtime_env": {"env_vars": environment},
        "log_to_driver": False,
        "logging_level": "error",
    }
    if address == "local":
        _start(num_cpus=workers, include_dashboard=False, **common)
        return
    _knock(address)
    try:
        ray.init(address=address, **common)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise OSError(
            f"no Ray cluster at {address!r} (start one with `ray start --head`): {error}"
        ) from error


def _start(**settings: Any) -> None:
    """Start a cluster of this machine; Ray gives its own processes 30 s, a busy one needs more."""
    import ray

    for attempt in range(STARTS):
        try:
            ray.init(**settings)
            return
        except Exception as error:  # Ray has no kind of its own for this
            if "timed out during startup" not in str(error):
                raise
            ray.shutdown()
            if attempt == STARTS - 1:
                raise OSError("Ray did not start in time: is this machine very busy?") from error


def _knock(address: str) -> None:
    """Raise `OSError` where nobody listens at `host:port`; Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():  # `auto` and the like: Ray knows
        return
    try:
        socket.create_connection((host, int(port)), timeout=5.0).close()
    except (OSError, OverflowError) as error:
        raise OSError(
            f"no Ray cluster at {address!r} (start one with `ray start --head`): {error}"
        ) from error


_runners: dict[str, Runner] = {}
"""Runners of this Ray worker by what they run; it serves one task after the other."""


def _episode(config: EvaluationConfig, files: dict[str, bytes], seed: int) -> Episode:
    """Run one episode in a Ray worker."""
    digest = hashlib.sha256(repr((config, sorted(files.items()))).encode()).hexdigest()
    if digest not in _runners:
        for old in _runners.values():
            old.close()
        _runners.clear()
        _runners[digest] = _unpack(config, files)
    return _runners[digest].run(seed)


def _unpack(config: EvaluationConfig, files: dict[str, bytes]) -> Runner:
    if not files:
        return config.runner()
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        # A checkpoint is a folder of two files; one file alone is a policy by itself.
        policy = folder if len(files) > 1 else str(Path(folder, *files))
        return replace(config, policy=policy).runner()
