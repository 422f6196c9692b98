"""D4RL's own HDF5: one flat array for each quantity, episodes cut by terminals and timeouts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from learning.d4rl_tasks import dataset_of_name
from learning.demonstrations import Demonstrations, as_float32
from learning.npz_format import from_arrays
from learning.safe_hdf5 import MAX_BYTES, SafeFile, open_hdf5

# Number of axes of the arrays that are read; `infos` and `metadata` are left alone.
_NEEDED = {"observations": 2, "actions": 2, "rewards": 1, "terminals": 1, "timeouts": 1}
_OPTIONAL = {"action_low": 1, "action_high": 1}
_NEXT = "next_observations"


def is_d4rl(path: str | Path) -> bool:
    """Whether an HDF5 file is in D4RL's layout, complete or not.

    Raises:
        ValueError: if the file cannot be read.
    """
    with open_hdf5(path) as file:
        names = set(file.names("/"))
        return bool(names & (set(_NEEDED) | {_NEXT})) and (
            "data" not in names or ("observations" in names and file.is_dataset("/observations"))
        )


def read_d4rl(path: str | Path, max_bytes: int = MAX_BYTES) -> Demonstrations:
    """Read a file in D4RL's layout.

    Episodes end after every row marked in `terminals` or `timeouts`; rows after the last mark are
    an episode too. Actions outside [-1, 1] are clipped, and counted in `meta["clipped"]`. The
    observation after the last action of an episode is known where there are `next_observations`.

    Args:
        path: the file; its name may tell the task (`door-human-v1.hdf5`), see `d4rl_tasks`.
        max_bytes: the most bytes to read.

    Returns:
        The demonstrations; meta holds `format`, `file`, `d4rl_dataset` where the name tells it,
        and `env`, `env_options` where name and sizes agree.

    Raises:
        ValueError: one line saying what is missing, refused or does not fit.
    """
    place = Path(path)
    try:
        with open_hdf5(place, max_bytes) as file:
            return _read(file, place)
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith(str(place)) else f"{place}: {text}") from None


def _read(file: SafeFile, place: Path) -> Demonstrations:
    present = file.names("/")
    if "timeouts" not in present:
        raise ValueError(
            "has no 'timeouts': where an episode was cut by its limit of time cannot be told from "
            "'terminals', and windows over the seams would teach jumps; add (N,) bool, true after "
            "the last row of such an episode"
        )
    missing = [name for name in _NEEDED if name not in present]
    if missing:
        raise ValueError(f"has no {', '.join(map(repr, missing))}, only {present[:8]}")
    wanted = {**_NEEDED, **{name: n for name, n in _OPTIONAL.items() if name in present}}
    arrays = {name: file.read(f"/{name}", ndim) for name, ndim in wanted.items()}
    demos = from_arrays(arrays, place.stem)
    final = None
    if _NEXT in present:
        following = file.read(f"/{_NEXT}", ndim=2)
        if following.shape != arrays["observations"].shape:
            raise ValueError(
                f"{_NEXT} must be {arrays['observations'].shape} like the observations, "
                f"got {following.shape}"
            )
        final = {"state": as_float32(following[demos.episode_offsets[1:] - 1], _NEXT)}
    meta: dict[str, Any] = {"format": "d4rl", "file": place.name}
    dataset = dataset_of_name(place.stem)
    if dataset is not None and "env" in demos.meta:
        meta["d4rl_dataset"] = dataset
    return replace(demos, meta={**meta, **demos.meta}, final_observations=final)
