"""Minari data sets (HDF5), written so that Minari itself opens them, and read without it.

Reading goes through `safe_hdf5` rather than Minari: a data set from elsewhere may hold links out of
the file, false sizes, or an environment to be made.
"""

import copy
import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
from gymnasium import spaces

from learning.atomic import new_folder
from learning.d4rl_tasks import environment_of_spec
from learning.demonstrations import Demonstrations, as_float32, clip_actions, join_rows
from learning.minari_store import declare_namespaces, minari_root, minari_root_set
from learning.safe_hdf5 import MAX_BYTES, SafeFile, open_hdf5

META_KEY = "decisive"
_DATA_FILE = "main_data.hdf5"
_MAX_METADATA_BYTES = 64 * 2**20


def write_minari(
    demos: Demonstrations,
    dataset_id: str,
    root: str | Path | None = None,
    compression: bool = True,
    overwrite: bool = False,
) -> Path:
    """Write a data set that `minari.load_dataset(dataset_id)` opens.

    Minari keeps one observation more than actions; where the last one is not known, the last known
    row is repeated and `meta["final_observation"]` says `"repeated"`. Pixels are stored raw, not as
    JPEG, so that they come back bit by bit.

    Args:
        demos: what to write; `meta["env"]` and `meta["env_options"]`, if registered with
            Gymnasium, become the data set's environment.
        dataset_id: `namespace/name-v0`, the version suffix is Minari's rule.
        root: folder of all data sets, see `minari_root`.
        compression: gzip the arrays (Minari reads either).
        overwrite: replace a data set of this name; otherwise that is an error.

    Returns:
        The folder of the data set.

    Raises:
        ValueError: if the id is malformed or taken.
        OSError: if it cannot be written; nothing is left behind.
    """
    from minari.dataset.minari_dataset import parse_dataset_id

    try:
        namespace, _, _ = parse_dataset_id(dataset_id)
    except (ValueError, TypeError):
        raise ValueError(
            f"data set id must be like 'decisive/blockpush/diverse-v0' "
            f"(letters, digits, - and _, ending in -v and a number), got {dataset_id!r}"
        ) from None
    base = minari_root(root)
    target = base / dataset_id
    if target.exists() and not overwrite:
        raise ValueError(f"data set {dataset_id} exists at {target}; choose another name")
    with new_folder(target) as beside:
        # Minari insists on its own folders, so it works in a hidden root inside the new folder.
        workplace = beside / ".root"
        workplace.mkdir()
        with minari_root_set(workplace):
            _create(demos, dataset_id)
        os.rename(workplace / dataset_id / "data", beside / "data")
        shutil.rmtree(workplace)
        if compression:
            _compress(beside / "data" / _DATA_FILE)
    declare_namespaces(base, namespace)
    return target


def read_minari(folder: str | Path, max_bytes: int = MAX_BYTES) -> Demonstrations:
    """Read the folder of a Minari data set (the one holding `data/`, or `data/` itself).

    Raises:
        ValueError: one line saying what is missing, corrupt or does not fit.
        OSError: if it cannot be opened.
    """
    place = Path(folder)
    data = place / "data" if (place / "data").is_dir() else place
    metadata = _read_metadata(data / "metadata.json")
    try:
        with open_hdf5(data / _DATA_FILE, max_bytes) as file:
            return _read_episodes(file, metadata)
    except KeyError as error:
        raise ValueError(f"{data / _DATA_FILE}: {error.args[0]}") from None
    except ValueError as error:
        prefix = "" if str(data) in str(error) else f"{data}: "
        raise ValueError(f"{prefix}{error}") from None


def _create(demos: Demonstrations, dataset_id: str) -> None:
    import minari
    from minari.data_collector import EpisodeBuffer

    meta = dict(demos.meta)
    if demos.final_observations is None:
        meta["final_observation"] = "repeated"
    buffers = []
    for index in range(demos.n_episodes):
        length = int(demos.lengths[index])
        ended = demos.terminated is not None and bool(demos.terminated[index])
        flags = np.zeros((2, length), np.bool_)
        flags[0, -1], flags[1, -1] = ended, not ended
        rows = demos.episode(index)
        seen = {key: _with_final(demos, key, index) for key in demos.observations}
        # Minari's annotation says lists; its storage takes arrays, a hundred times faster.
        content: dict[str, Any] = {
            "observations": seen if len(seen) > 1 else next(iter(seen.values())),
            "actions": demos.actions[rows],
            "rewards": demos.rewards[rows],
            "terminations": flags[0],
            "truncations": flags[1],
            "infos": {},
        }
        buffers.append(EpisodeBuffer(**content))
    with warnings.catch_warnings():
        # Minari warns about each field left out (author, mail, link); ours are in META_KEY.
        warnings.simplefilter("ignore", UserWarning)
        dataset = minari.create_dataset_from_buffers(
            dataset_id,
            buffers,
            algorithm_name=str(meta.get("expert", "unknown")),
            description=str(meta.get("description", "Demonstrations recorded with Decisive")),
            observation_space=_observation_space(demos),
            action_space=spaces.Box(demos.action_low, demos.action_high, dtype=np.float32),
            jpeg_encoding=False,
        )
    dataset.storage.update_metadata({META_KEY: json.dumps(meta), **_env_spec(meta)})


def _with_final(demos: Demonstrations, key: str, index: int) -> np.ndarray:
    rows = demos.observations[key][demos.episode(index)]
    final = rows[-1] if demos.final_observations is None else demos.final_observations[key][index]
    return np.concatenate([rows, final[None]])


def _observation_space(demos: Demonstrations) -> gym.Space[Any]:
    boxes: dict[str, gym.Space[Any]] = {}
    for key, value in demos.observations.items():
        shape = value.shape[1:]
        boxes[key] = (
            spaces.Box(0, 255, shape, np.uint8)
            if key == "pixels"
            else spaces.Box(-np.inf, np.inf, shape, np.float32)
        )
    return spaces.Dict(boxes) if len(boxes) > 1 else next(iter(boxes.values()))


def _env_spec(meta: dict[str, Any]) -> dict[str, str]:
    """Metadata entry of the environment, empty where Gymnasium does not know its id."""
    try:
        spec = copy.deepcopy(gym.spec(str(meta["env"])))
        spec.kwargs.update(meta.get("env_options") or {})
        return {"env_spec": spec.to_json()}
    except (KeyError, TypeError, gym.error.Error):
        return {}


def _compress(path: Path) -> None:
    packed = path.with_suffix(".packed")
    with h5py.File(path, "r") as source, h5py.File(packed, "w", track_order=True) as target:
        for name, group in source.items():
            _copy_compressed(group, target.create_group(name))
    os.replace(packed, path)


def _copy_compressed(source: h5py.Group, target: h5py.Group) -> None:
    target.attrs.update(source.attrs)
    for name, item in source.items():
        if isinstance(item, h5py.Group):
            _copy_compressed(item, target.create_group(name))
        else:
            target.create_dataset(
                name,
                data=item[()],
                maxshape=item.maxshape,
                chunks=True,
                compression="gzip",
                compression_opts=1,
                shuffle=True,
            )


def _read_metadata(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path.parent}: not a Minari data set: it has no metadata.json")
    if path.stat().st_size > _MAX_METADATA_BYTES:
        raise ValueError(f"{path}: larger than {_MAX_METADATA_BYTES} bytes; not a metadata file")
    try:
        metadata = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON: {' '.join(str(error).split())[:160]}") from None
    if not isinstance(metadata, dict):
        raise ValueError(f"{path}: must hold a JSON object, got {type(metadata).__name__}")
    if metadata.get("data_format", "hdf5") != "hdf5":
        raise ValueError(
            f"{path}: data format {str(metadata['data_format'])[:40]!r} is not read, only 'hdf5'"
        )
    return metadata


def _read_episodes(file: SafeFile, metadata: dict[str, Any]) -> Demonstrations:
    n_episodes = metadata.get("total_episodes")
    if not isinstance(n_episodes, int) or isinstance(n_episodes, bool) or n_episodes < 1:
        raise ValueError(f"total_episodes must be at least 1, got {str(n_episodes)[:40]}")
    present = len([name for name in file.names("/") if name.startswith("episode_")])
    if present != n_episodes:
        raise ValueError(f"metadata says {n_episodes} episodes, the file holds {present}")
    meta = _own_meta(metadata)
    rows: dict[str, list[np.ndarray]] = {}
    actions, rewards, ended = [], [], []
    for index in range(n_episodes):
        group = f"/episode_{index}"
        actions.append(file.read(f"{group}/actions", ndim=2))
        rewards.append(file.read(f"{group}/rewards", ndim=1))
        ended.append(bool(file.read(f"{group}/terminations", ndim=1)[-1:].any()))
        for key, value in _read_observation(file, f"{group}/observations").items():
            if len(value) != len(actions[-1]) + 1:
                raise ValueError(
                    f"episode {index}: {len(value)} observations for {len(actions[-1])} actions, "
                    "expected one more observation than actions"
                )
            rows.setdefault(key, []).append(value)
        if len(rewards[-1]) != len(actions[-1]) or not len(actions[-1]):
            raise ValueError(
                f"episode {index}: {len(rewards[-1])} rewards for {len(actions[-1])} actions"
            )
    low, high = _action_bounds(metadata, actions[0].shape[1])
    clipped_actions, clipped = clip_actions(join_rows(actions, "actions"), low, high)
    if clipped["clipped"]:
        meta.update(clipped)
    meta |= _environment(metadata, rows, low)
    repeated = meta.pop("final_observation", None) == "repeated"
    lengths = np.array([len(value) for value in actions], np.int64)
    return Demonstrations(
        observations={k: join_rows([v[:-1] for v in values], k) for k, values in rows.items()},
        actions=clipped_actions,
        rewards=as_float32(join_rows(rewards, "rewards"), "rewards"),
        episode_offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
        action_low=low,
        action_high=high,
        meta=meta,
        final_observations=(
            None
            if repeated
            else {k: np.stack([v[-1] for v in values]) for k, values in rows.items()}
        ),
        terminated=np.array(ended, np.bool_),
    )


def _read_observation(file: SafeFile, path: str) -> dict[str, np.ndarray]:
    """One episode's observations: an array, or a group of `state`, `observation`, `pixels`."""
    if file.is_dataset(path):
        return dict([_classify(file.read(path))])
    names = file.names(path)
    known = {"state", "observation", "pixels"} & set(names)
    if not known:
        raise ValueError(f"{path}: expected 'state', 'observation' or 'pixels', got {names[:8]}")
    return dict(_classify(file.read(f"{path}/{name}")) for name in sorted(known))


def _classify(value: np.ndarray) -> tuple[str, np.ndarray]:
    if value.ndim == 4 and value.dtype == np.uint8:
        return "pixels", value
    return "state", as_float32(value, "observations")


def _own_meta(metadata: dict[str, Any]) -> dict[str, Any]:
    text = metadata.get(META_KEY)
    if not isinstance(text, str):
        kept = ("dataset_id", "algorithm_name", "description")
        return {key: metadata[key] for key in kept if isinstance(metadata.get(key), str)}
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"metadata {META_KEY!r} is not valid JSON: {error}") from None
    if not isinstance(meta, dict):
        raise ValueError(f"metadata {META_KEY!r} must be an object, got {type(meta).__name__}")
    return meta


def _environment(
    metadata: dict[str, Any], rows: dict[str, list[np.ndarray]], low: np.ndarray
) -> dict[str, Any]:
    """Entries of meta for D4RL's data sets, whose environment the metadata name."""
    spec = metadata.get("env_spec")
    if META_KEY in metadata or not isinstance(spec, str) or list(rows) != ["state"]:
        return {}
    n_obs = rows["state"][0].shape[-1]
    return environment_of_spec(spec, str(metadata.get("dataset_id", "")), n_obs, len(low))


def _action_bounds(metadata: dict[str, Any], dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the action space in the metadata: a Box, as Minari serialises it."""
    try:
        space = json.loads(metadata["action_space"])
        if space["type"] != "Box":
            raise ValueError(f"is a {space['type']}")
        bounds = [np.array(space[name], np.float32) for name in ("low", "high")]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        detail = " ".join(str(error).split())[:100]
        raise ValueError(f"the action space must be a serialised Box: {detail}") from None
    if any(bound.shape != (dim,) for bound in bounds):
        raise ValueError(f"the action space must be ({dim},) like the actions")
    return bounds[0], bounds[1]
