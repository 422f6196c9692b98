"""A recording in progress: shards of episodes that survive a kill, joined at the end.

Every shard appears whole or not at all, and its name says how many attempts it covers and how many
it kept, so that resuming is counting names.
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learning.atomic import write_file
from learning.demonstrations import Demonstrations, as_float32, join_rows
from learning.minari_format import write_minari
from learning.npz_format import pack_arrays, read_arrays

_SIGNATURE = "recording.json"
_SHARD = re.compile(r"shard-(\d+)-(\d+)-(\d+)\.npz")


@dataclass(frozen=True)
class Episode:
    """One recorded episode of T actions.

    Attributes:
        observations: `T + 1` rows per key, the last after the last action.
        actions: `(T, A)` float32, the expert's clean labels.
        rewards: `(T,)` float32.
        terminated: whether it ended by itself rather than at a limit of time.
    """

    observations: dict[str, np.ndarray]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    terminated: bool

    def __post_init__(self) -> None:
        """Check that the rows fit."""
        length = len(self.actions)
        if length == 0 or len(self.rewards) != length:
            raise ValueError(f"an episode has {length} actions and {len(self.rewards)} rewards")
        for key, value in self.observations.items():
            if len(value) != length + 1:
                raise ValueError(
                    f"{key} has {len(value)} rows for {length} actions, expected one more"
                )


class Recording:
    """The work folder of a recording; opening it again goes on where it stopped."""

    def __init__(self, folder: str | Path, signature: Mapping[str, Any]) -> None:
        """Open or make the folder.

        Args:
            folder: the work folder.
            signature: JSON values that make the recording what it is (env, options, expert, seed).

        Raises:
            ValueError: if the folder holds another recording, naming what differs.
            OSError: if it cannot be made.
        """
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(dict(signature), sort_keys=True)
        place = self.folder / _SIGNATURE
        if place.is_file():
            _check_signature(place, json.loads(text))
        else:
            write_file(place, text.encode())
        self._shards = self._found()

    @property
    def attempts(self) -> int:
        """Episodes tried so far; the next one has this number."""
        return sum(attempts for _, attempts, _ in self._shards)

    @property
    def kept(self) -> int:
        """Episodes recorded so far."""
        return sum(kept for _, _, kept in self._shards)

    @property
    def failed(self) -> int:
        """Episodes tried and left out."""
        return self.attempts - self.kept

    def append(self, episodes: Sequence[Episode | None], compress: bool = True) -> None:
        """Write the next attempts as one shard.

        Args:
            episodes: in the order of their numbers; None for one that failed.
            compress: whether to deflate the arrays.

        Raises:
            OSError: if it cannot be written; earlier shards are untouched.
        """
        if not episodes:
            return
        kept = [episode for episode in episodes if episode is not None]
        first = self.attempts
        name = f"shard-{first:08d}-{len(episodes)}-{len(kept)}.npz"
        write_file(self.folder / name, pack_arrays(_pack(kept), compress))
        self._shards.append((first, len(episodes), len(kept)))

    def demonstrations(
        self,
        action_low: NDArray[np.float32],
        action_high: NDArray[np.float32],
        meta: Mapping[str, Any],
        episodes: int | None = None,
    ) -> Demonstrations:
        """Join the shards.

        Args:
            action_low: `(A,)` bounds of the action space.
            action_high: `(A,)`.
            meta: of the data set; `failed_episodes` and `attempts` are added.
            episodes: keep the first so many; None keeps all.

        Raises:
            ValueError: if nothing was recorded or a shard is damaged.
        """
        packs = [
            read_arrays(self.folder / f"shard-{first:08d}-{attempts}-{kept}.npz")
            for first, attempts, kept in self._shards
            if kept
        ]
        if not packs:
            raise ValueError(f"{self.folder}: no episode was recorded")
        joined = {name: join_rows([pack[name] for pack in packs], name) for name in packs[0]}
        lengths = joined["lengths"]
        # A shard keeps T + 1 observations an episode; the last of each is the final one.
        ends = np.cumsum(lengths + 1) - 1
        before = np.ones(int(lengths.sum() + len(lengths)), np.bool_)
        before[ends] = False
        seen = {
            name.removeprefix("obs_"): value
            for name, value in joined.items()
            if name.startswith("obs_")
        }
        demos = Demonstrations(
            observations={key: value[before] for key, value in seen.items()},
            actions=joined["actions"],
            rewards=joined["rewards"],
            episode_offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
            action_low=action_low,
            action_high=action_high,
            meta={**meta, "attempts": self.attempts, "failed_episodes": self.failed},
            final_observations={key: value[ends] for key, value in seen.items()},
            terminated=joined["terminated"],
        )
        return demos if episodes is None else demos.episodes(episodes)

    def finish(
        self,
        dataset_id: str,
        action_low: NDArray[np.float32],
        action_high: NDArray[np.float32],
        meta: Mapping[str, Any],
        episodes: int | None = None,
        root: str | Path | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Write one Minari data set of all shards, then delete the work folder.

        Arguments as of `demonstrations` and `minari_format.write_minari`.

        Returns:
            The folder of the data set.
        """
        demos = self.demonstrations(action_low, action_high, meta, episodes)
        target = write_minari(demos, dataset_id, root, overwrite=overwrite)
        shutil.rmtree(self.folder)
        return target

    def _found(self) -> list[tuple[int, int, int]]:
        """Shards in order: first attempt, attempts, kept."""
        shards = sorted(
            (int(match[1]), int(match[2]), int(match[3]))
            for path in self.folder.iterdir()
            if (match := _SHARD.fullmatch(path.name)) is not None
        )
        expected = 0
        for first, attempts, _ in shards:
            if first != expected:
                raise ValueError(
                    f"{self.folder}: the shard of attempt {expected} is missing; "
                    "delete the folder to record afresh"
                )
            expected += attempts
        return shards


def _pack(episodes: Sequence[Episode]) -> dict[str, np.ndarray]:
    if not episodes:
        return {"lengths": np.zeros(0, np.int64)}
    arrays: dict[str, np.ndarray] = {
        "lengths": np.array([len(episode.actions) for episode in episodes], np.int64),
        "actions": as_float32(join_rows([e.actions for e in episodes], "actions"), "actions"),
        "rewards": as_float32(join_rows([e.rewards for e in episodes], "rewards"), "rewards"),
        "terminated": np.array([episode.terminated for episode in episodes], np.bool_),
    }
    for key in episodes[0].observations:
        value = join_rows([episode.observations[key] for episode in episodes], key)
        arrays[f"obs_{key}"] = value if value.dtype == np.uint8 else as_float32(value, key)
    return arrays


def _check_signature(place: Path, expected: dict[str, Any]) -> None:
    try:
        found = json.loads(place.read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{place}: not valid JSON; delete the folder to record afresh")
    changed = [
        f"{key} {found.get(key)!r}, now {expected.get(key)!r}"
        for key in sorted({**found, **expected})
        if found.get(key) != expected.get(key)
    ]
    if changed:
        raise ValueError(
            f"{place.parent} holds another recording ({'; '.join(changed[:4])}); "
            "choose another name or delete the folder"
        )
