"""The plain `.npz` layout of demonstrations, defined in docs/data.md.

Headers are checked before any array is read: kinds, sizes and the ratio of claimed to stored bytes,
so that neither an object array nor a zip bomb gets as far as memory.
"""

import io
import json
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learning.atomic import write_file
from learning.d4rl_tasks import environment_of_name
from learning.demonstrations import Demonstrations, as_float32, clip_actions

MAX_BYTES = 8 * 2**30
MAX_MEMBERS = 256
# Deflate cannot shrink below 1:1032; what claims more is not what a compressor wrote.
MAX_RATIO = 1100
_SLACK = 2**20
_MAX_OUTSIDE = 0.25
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
    OverflowError,
    MemoryError,
    AttributeError,
)


def read_arrays(path: str | Path, max_bytes: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """Read every array of an `.npz` file; nothing is unpickled.

    Args:
        path: the file.
        max_bytes: the most bytes all arrays together may take.

    Raises:
        ValueError: one line: corrupt, truncated, object arrays, or claims that are too large.
        OSError: if the file cannot be opened.
    """
    place = Path(path)
    try:
        with open(place, "rb") as file, zipfile.ZipFile(file) as archive:
            members = _check_members(archive, max_bytes)
            return {name: _read_member(archive, info) for name, info in members.items()}
    except _Refused as error:
        raise ValueError(f"{place}: {error}") from None
    except _DAMAGE as error:
        detail = " ".join(str(error).split())[:160] or type(error).__name__
        raise ValueError(f"{place}: corrupt or truncated .npz: {detail}") from None


def read_npz(path: str | Path, max_bytes: int = MAX_BYTES) -> Demonstrations:
    """Read demonstrations in the layout of docs/data.md.

    Actions outside the action space are clipped, and counted in `meta["clipped"]`. The action
    space is `action_low`, `action_high` of the file, or [-1, 1] where it has none. A file without
    `meta` is of the environment that its name and sizes tell, see `d4rl_tasks`.

    Raises:
        ValueError: one line saying what is missing, of the wrong shape or not finite.
        OSError: if the file cannot be opened.
    """
    arrays = read_arrays(path, max_bytes)
    try:
        return from_arrays(arrays, Path(path).stem)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def write_npz(demos: Demonstrations, path: str | Path, compress: bool = True) -> None:
    """Write demonstrations in the layout of docs/data.md, replacing the file in one step.

    Raises:
        OSError: if it cannot be written; an old file is untouched.
    """
    write_file(Path(path), pack_arrays(to_arrays(demos), compress))


def pack_arrays(arrays: dict[str, np.ndarray], compress: bool = True) -> bytes:
    """The content of an `.npz` file; unlike `np.savez` it cannot pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(
        buffer, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    ) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
    return buffer.getvalue()


def to_arrays(demos: Demonstrations) -> dict[str, np.ndarray]:
    """The arrays of the layout, by name."""
    last = demos.episode_offsets[1:] - 1
    terminals = np.zeros(len(demos), np.bool_)
    if demos.terminated is not None:
        terminals[last] = demos.terminated
    timeouts = np.zeros(len(demos), np.bool_)
    timeouts[last] = ~terminals[last]
    arrays: dict[str, np.ndarray] = {
        "actions": demos.actions,
        "rewards": demos.rewards,
        "terminals": terminals,
        "timeouts": timeouts,
        "episode_offsets": demos.episode_offsets,
        "action_low": demos.action_low,
        "action_high": demos.action_high,
        "meta": np.array(json.dumps(demos.meta)),
    }
    for key, name in _observation_names(demos.observations).items():
        arrays[name] = demos.observations[key]
        if demos.final_observations is not None:
            arrays[f"final_{name}"] = demos.final_observations[key]
    return arrays


def from_arrays(arrays: dict[str, np.ndarray], stem: str = "") -> Demonstrations:
    """Demonstrations from the arrays of the layout.

    Args:
        arrays: by name.
        stem: file name without its ending; it may tell the environment where there is no `meta`.

    Raises:
        ValueError: one line saying what is missing, of the wrong shape or not finite.
    """
    for name in ("observations", "actions", "rewards"):
        if name not in arrays:
            raise ValueError(f"has no array {name!r}, only {sorted(arrays)}; see docs/data.md")
    if arrays["actions"].ndim != 2:
        raise ValueError(f"actions must be (N, A), got {arrays['actions'].shape}")
    offsets = _episode_offsets(arrays)
    low, high, declared = _bounds(arrays)
    actions, clipped = clip_actions(arrays["actions"], low, high)
    if not declared and clipped["clipped_share"] > _MAX_OUTSIDE:
        raise ValueError(
            f"{clipped['clipped_share']:.0%} of the action values lie outside [-1, 1]; "
            "add arrays action_low and action_high with the bounds of the action space"
        )
    meta = _meta(arrays)
    if clipped["clipped"]:
        meta.update(clipped)
    observations = _observations(arrays, "")
    state = observations.get("state")
    if "meta" not in arrays and len(observations) == 1 and state is not None and state.ndim == 2:
        meta.update(environment_of_name(stem, state.shape[1], actions.shape[1]))
    final = _observations(arrays, "final_")
    terminals = arrays.get("terminals")
    return Demonstrations(
        observations=observations,
        actions=actions,
        rewards=as_float32(arrays["rewards"], "rewards"),
        episode_offsets=offsets,
        action_low=low,
        action_high=high,
        meta=meta,
        final_observations=final or None,
        terminated=None if terminals is None else terminals.astype(np.bool_)[offsets[1:] - 1],
    )


class _Refused(Exception):
    """A reason to refuse a file, already in words for the user."""


def _check_members(archive: zipfile.ZipFile, max_bytes: int) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise _Refused(f"holds {len(infos)} arrays, more than {MAX_MEMBERS}")
    claimed = sum(info.file_size for info in infos)
    if claimed > max_bytes:
        raise _Refused(f"claims {claimed / 1e9:.1f} GB, more than {max_bytes / 1e9:.1f} GB")
    members = {}
    for info in infos:
        if not info.filename.endswith(".npy") or info.filename in members:
            raise _Refused(f"holds {info.filename[:60]!r}, which is no array of its own")
        if info.file_size > MAX_RATIO * info.compress_size + _SLACK:
            raise _Refused(
                f"{info.filename[:60]!r} claims {info.file_size} bytes from "
                f"{info.compress_size} stored ones"
            )
        members[info.filename.removesuffix(".npy")] = info
    return members


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise _Refused(f"{info.filename[:60]!r} has the unknown array version {version}")
        if dtype.hasobject or dtype.kind not in "biufU":
            raise _Refused(
                f"{info.filename[:60]!r} holds {dtype}; expected plain numbers (no pickled objects)"
            )
        count = math.prod(shape)
        if count * dtype.itemsize > info.file_size or any(size < 0 for size in shape):
            raise _Refused(
                f"{info.filename[:60]!r} claims shape {shape} {dtype}, "
                f"more than its {info.file_size} bytes"
            )
        data = file.read(count * dtype.itemsize)
        if len(data) != count * dtype.itemsize or file.read(1):
            raise _Refused(f"{info.filename[:60]!r} has not the size of shape {shape} {dtype}")
    array = np.frombuffer(bytearray(data), dtype=dtype)
    return array.reshape(shape, order="F" if fortran else "C")


def _episode_offsets(arrays: dict[str, np.ndarray]) -> NDArray[np.int64]:
    n_rows = len(arrays["actions"])
    ends = [_flags(arrays, name, n_rows) for name in ("timeouts", "terminals")]
    if "episode_offsets" in arrays:
        offsets = arrays["episode_offsets"]
        if offsets.ndim != 1 or offsets.dtype.kind not in "iu":
            raise ValueError(
                f"episode_offsets must be (E + 1,) integers, got {offsets.shape} {offsets.dtype}"
            )
        return offsets.astype(np.int64)
    if ends[0] is None:
        raise ValueError(
            "has neither 'timeouts' nor 'episode_offsets': where an episode was cut cannot be "
            "told, and windows over the seams would teach jumps; add one of them"
        )
    marks = ends[0] if ends[1] is None else ends[0] | ends[1]
    last = np.flatnonzero(marks)
    if n_rows and (len(last) == 0 or last[-1] != n_rows - 1):
        last = np.append(last, n_rows - 1)
    return np.concatenate([np.zeros(1, np.int64), last.astype(np.int64) + 1])


def _flags(arrays: dict[str, np.ndarray], name: str, n_rows: int) -> NDArray[np.bool_] | None:
    if name not in arrays:
        return None
    flags = arrays[name]
    if flags.shape != (n_rows,) or flags.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be ({n_rows},) bool, got {flags.shape} {flags.dtype}")
    return flags.astype(np.bool_)


def _bounds(
    arrays: dict[str, np.ndarray],
) -> tuple[NDArray[np.float32], NDArray[np.float32], bool]:
    if ("action_low" in arrays) != ("action_high" in arrays):
        raise ValueError("must have both 'action_low' and 'action_high', or neither")
    dim = arrays["actions"].shape[1]
    if "action_low" not in arrays:
        return -np.ones(dim, np.float32), np.ones(dim, np.float32), False
    bounds = [as_float32(arrays[name], name) for name in ("action_low", "action_high")]
    for bound in bounds:
        if bound.shape != (dim,):
            raise ValueError(f"action_low and action_high must be ({dim},), got {bound.shape}")
    return bounds[0], bounds[1], True


def _meta(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    if "meta" not in arrays:
        return {}
    text = arrays["meta"]
    if text.shape != () or text.dtype.kind != "U":
        raise ValueError(f"meta must be one JSON string, got {text.shape} {text.dtype}")
    try:
        meta = json.loads(str(text))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"meta is not valid JSON: {error}") from None
    if not isinstance(meta, dict):
        raise ValueError(f"meta must be a JSON object, got {type(meta).__name__}")
    return meta


def _observation_names(observations: dict[str, np.ndarray]) -> dict[str, str]:
    """Array name of each observation key: a lone one is `observations`, beside state `pixels`."""
    if "state" in observations:
        return {key: "observations" if key == "state" else key for key in observations}
    return {"pixels": "observations"}


def _observations(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for name in ("observations", "pixels"):
        value = arrays.get(prefix + name)
        if value is not None:
            image = value.ndim == 4 and value.dtype == np.uint8
            found["pixels" if image else "state"] = (
                value if image else as_float32(value, prefix + name)
            )
    return found
