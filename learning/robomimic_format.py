"""robomimic-style HDF5: `data/demo_k/{obs/..., next_obs/..., actions, rewards, dones}`.

robomimic keeps no bounds and assumes actions in [-1, 1]; ours and the meta travel in an attribute
of `data` that robomimic ignores.
"""

import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from learning.atomic import new_file
from learning.d4rl_tasks import environment_of_name
from learning.demonstrations import Demonstrations, as_float32, clip_actions, join_rows
from learning.safe_hdf5 import MAX_BYTES, SafeFile, open_hdf5

ATTRIBUTE = "decisive"
_DEMO = re.compile(r"demo_(\d{1,9})")
_MAX_OUTSIDE = 0.25


def write_robomimic(
    demos: Demonstrations, path: str | Path, masks: dict[str, list[int]] | None = None
) -> None:
    """Write a file in robomimic's layout, replacing an old one in one step.

    Args:
        demos: what to write.
        path: the `.hdf5` file.
        masks: named subsets of episode numbers (`{"train": [...], "valid": [...]}`).

    Raises:
        OSError: if it cannot be written; an old file is untouched.
    """
    env_args = {
        "env_name": str(demos.meta.get("env", "")),
        "env_type": "gymnasium",
        "env_kwargs": demos.meta.get("env_options") or {},
    }
    own = {
        "action_low": _listed(demos.action_low),
        "action_high": _listed(demos.action_high),
        "meta": demos.meta,
        "has_final": demos.final_observations is not None,
        "has_terminated": demos.terminated is not None,
    }
    with new_file(Path(path)) as beside, h5py.File(beside, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = len(demos)
        data.attrs["env_args"] = json.dumps(env_args)
        data.attrs[ATTRIBUTE] = json.dumps(own)
        for index in range(demos.n_episodes):
            _write_demo(data.create_group(f"demo_{index}"), demos, index)
        for name, members in (masks or {}).items():
            names = np.array([f"demo_{number}" for number in members], dtype="S")
            file.create_dataset(f"mask/{name}", data=names)


def read_robomimic(
    path: str | Path, mask: str | None = None, max_bytes: int = MAX_BYTES
) -> Demonstrations:
    """Read a file in robomimic's layout.

    Images (uint8, three channels) become `pixels`, of which there may be one; all other
    observations are laid end to end, by name, as `state`.

    Args:
        path: the file.
        mask: keep only the demonstrations of this subset.
        max_bytes: the most bytes to read.

    Raises:
        ValueError: one line saying what is missing, refused or does not fit.
    """
    try:
        with open_hdf5(path, max_bytes) as file:
            return _read(file, mask)
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith(str(path)) else f"{path}: {text}") from None


def _write_demo(group: h5py.Group, demos: Demonstrations, index: int) -> None:
    rows = demos.episode(index)
    length = rows.stop - rows.start
    dones = np.zeros(length, np.uint8)
    dones[-1] = demos.terminated is None or demos.terminated[index]
    group.attrs["num_samples"] = length
    packed: dict[str, Any] = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
    group.create_dataset("actions", data=demos.actions[rows], **packed)
    group.create_dataset("rewards", data=demos.rewards[rows], **packed)
    group.create_dataset("dones", data=dones)
    for key, value in demos.observations.items():
        seen = value[rows]
        final = (
            seen[-1] if demos.final_observations is None else demos.final_observations[key][index]
        )
        group.create_dataset(f"obs/{key}", data=seen, **packed)
        group.create_dataset(
            f"next_obs/{key}", data=np.concatenate([seen[1:], final[None]]), **packed
        )


def _read(file: SafeFile, mask: str | None) -> Demonstrations:
    if not file.has("/data"):
        raise ValueError(
            f"no group 'data' of robomimic's layout and no 'observations' of D4RL's, only "
            f"{file.names('/')[:8]}"
        )
    names = _demo_names(file, mask)
    own = _own(file)
    has_final = bool(own.get("has_final", True))
    actions, rewards, dones = [], [], []
    rows: dict[str, list[np.ndarray]] = {}
    finals: dict[str, list[np.ndarray]] = {}
    for name in names:
        group = f"/data/{name}"
        actions.append(file.read(f"{group}/actions", ndim=2))
        length = len(actions[-1])
        if length == 0:
            raise ValueError(f"{group} is empty")
        rewards.append(_optional(file, f"{group}/rewards", length))
        dones.append(bool(_optional(file, f"{group}/dones", length)[-1]))
        for key, value in _observations(file, f"{group}/obs", length).items():
            rows.setdefault(key, []).append(value)
        has_final = has_final and file.has(f"{group}/next_obs")
        if has_final:
            for key, value in _observations(file, f"{group}/next_obs", length).items():
                finals.setdefault(key, []).append(value[-1:])
    joined = join_rows(actions, "actions")
    low, high, declared = _bounds(own, joined.shape[1])
    clipped, counts = clip_actions(joined, low, high)
    if not declared and counts["clipped_share"] > _MAX_OUTSIDE:
        raise ValueError(
            f"{counts['clipped_share']:.0%} of the action values lie outside [-1, 1], the bounds "
            "that robomimic assumes; rescale them"
        )
    lengths = np.array([len(value) for value in actions], np.int64)
    meta = _meta(file, own) | (counts if counts["clipped"] else {})
    if "meta" not in own and list(rows) == ["state"]:
        # robomimic's converter writes D4RL's name of the data set as the environment.
        n_obs = rows["state"][0].shape[1]
        meta |= environment_of_name(str(meta.get("env", "")), n_obs, joined.shape[1])
    return Demonstrations(
        observations={key: join_rows(values, key) for key, values in rows.items()},
        actions=clipped,
        rewards=as_float32(join_rows(rewards, "rewards"), "rewards"),
        episode_offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
        action_low=low,
        action_high=high,
        meta=meta,
        final_observations=(
            {key: join_rows(values, key) for key, values in finals.items()} if has_final else None
        ),
        terminated=np.array(dones) if own.get("has_terminated", True) else None,
    )


def _demo_names(file: SafeFile, mask: str | None) -> list[str]:
    numbered = {
        int(match[1]): name
        for name in file.names("/data")
        if (match := _DEMO.fullmatch(name)) is not None
    }
    names = [numbered[number] for number in sorted(numbered)]
    if mask is not None:
        known = file.names("/mask") if file.has("/mask") else []
        if mask not in known:
            raise ValueError(f"has no mask {mask!r}, only {known}")
        members = {bytes(item).decode("utf-8", "replace") for item in file.read(f"/mask/{mask}", 1)}
        names = [name for name in names if name in members]
    if not names:
        raise ValueError("the data set holds no episodes")
    return names


def _observations(file: SafeFile, group: str, length: int) -> dict[str, np.ndarray]:
    states, images = [], {}
    for name in sorted(file.names(group)):
        value = file.read(f"{group}/{name}")
        if len(value) != length:
            raise ValueError(f"{group}/{name} has {len(value)} rows for {length} actions")
        if value.ndim == 4 and value.dtype == np.uint8 and value.shape[3] == 3:
            images[name] = value
        elif value.ndim <= 2:
            states.append(as_float32(value.reshape(length, -1), name))
        else:
            raise ValueError(f"{group}/{name} has the shape {value.shape}, not a vector or image")
    if len(images) > 1:
        raise ValueError(f"{group} holds {len(images)} cameras {sorted(images)}; keep one")
    found = {"state": np.concatenate(states, axis=1)} if states else {}
    if images:
        found["pixels"] = next(iter(images.values()))
    return found


def _optional(file: SafeFile, path: str, length: int) -> np.ndarray:
    """A row of numbers; zeros where the file has none."""
    if not file.has(path):
        return np.zeros(length, np.float32)
    value = file.read(path, ndim=1)
    if len(value) != length:
        raise ValueError(f"{path} has {len(value)} rows for {length} actions")
    return as_float32(value, path)


def _own(file: SafeFile) -> dict[str, Any]:
    text = file.text_attribute("/data", ATTRIBUTE)
    return {} if text is None else _object(text, ATTRIBUTE)


def _meta(file: SafeFile, own: dict[str, Any]) -> dict[str, Any]:
    if isinstance(own.get("meta"), dict):
        return dict(own["meta"])
    text = file.text_attribute("/data", "env_args")
    env_args = {} if text is None else _object(text, "env_args")
    return {
        "env": str(env_args.get("env_name", "")),
        "env_options": env_args.get("env_kwargs", {}),
        "observation_keys": sorted(file.names("/data/" + _demo_names(file, None)[0] + "/obs")),
    }


def _object(text: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"attribute {name!r} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"attribute {name!r} must be a JSON object, got {type(value).__name__}")
    return value


def _bounds(own: dict[str, Any], dim: int) -> tuple[NDArray[np.float32], NDArray[np.float32], bool]:
    if "action_low" not in own or "action_high" not in own:
        return -np.ones(dim, np.float32), np.ones(dim, np.float32), False
    try:
        low = np.array([_number(x) for x in own["action_low"]], np.float32)
        high = np.array([_number(x) for x in own["action_high"]], np.float32)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("action_low and action_high must be lists of numbers") from None
    if low.shape != (dim,) or high.shape != (dim,):
        raise ValueError(f"action_low and action_high must have {dim} numbers each")
    return low, high, True


def _listed(bounds: NDArray[np.float32]) -> list[float | str]:
    """JSON has no infinity: it is written as text."""
    return [float(x) if np.isfinite(x) else str(float(x)) for x in bounds]


def _number(value: Any) -> float:
    return {"inf": np.inf, "-inf": -np.inf}[value] if isinstance(value, str) else float(value)
