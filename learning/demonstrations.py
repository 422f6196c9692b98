"""Demonstrations: whole episodes of expert actions, held as flat arrays."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IndexArray = NDArray[np.int64]

OBSERVATION_KEYS = ("state", "pixels")


@dataclass(frozen=True)
class Windows:
    """Row numbers of the observations before, and the actions from, every row.

    Attributes:
        observations: `(N, n_obs_steps)`; the last column is the row itself, earlier ones stop at
            the first row of its episode.
        actions: `(N, horizon)`; the first column is the row itself, later ones stop at the last
            row of its episode.
    """

    observations: IndexArray
    actions: IndexArray


@dataclass(frozen=True)
class Demonstrations:
    """Episodes laid end to end; one row is one action taken. Checked on construction.

    Attributes:
        observations: `"state"` `(N, D)` float32 and/or `"pixels"` `(N, H, W, 3)` uint8, what the
            expert saw before the action of the same row.
        actions: `(N, A)` float32, the expert's clean labels, inside the bounds.
        rewards: `(N,)` float32.
        episode_offsets: `(E + 1,)` int64; episode i is rows `offsets[i]:offsets[i + 1]`.
        action_low: `(A,)` float32 lower bounds of the action space, may be infinite.
        action_high: `(A,)` float32 upper bounds.
        meta: JSON values: env, env_options, observation_fields, action_fields, expert, seed, ...
        final_observations: what was seen after the last action of each episode, `(E, ...)` per
            key; None where the source does not tell.
        terminated: `(E,)` bool, whether an episode ended by itself (usually: success) rather than
            at a limit of time; None where the source does not tell.
    """

    observations: dict[str, np.ndarray]
    actions: FloatArray
    rewards: FloatArray
    episode_offsets: IndexArray
    action_low: FloatArray
    action_high: FloatArray
    meta: dict[str, Any] = field(default_factory=dict)
    final_observations: dict[str, np.ndarray] | None = None
    terminated: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        """Check shapes, kinds, bounds and finiteness."""
        _check_offsets(self.episode_offsets, len(self.actions))
        _check_arrays(self)
        _check_values(self)
        try:
            json.dumps(self.meta)
        except (TypeError, ValueError) as error:
            raise ValueError(f"meta must hold JSON values only: {error}") from None
        _check_meta(self.meta)

    def __len__(self) -> int:
        """Number of rows (actions taken)."""
        return len(self.actions)

    @property
    def n_episodes(self) -> int:
        """Number of episodes."""
        return len(self.episode_offsets) - 1

    @property
    def lengths(self) -> IndexArray:
        """`(E,)` number of actions of each episode."""
        return np.diff(self.episode_offsets)

    def episode(self, index: int) -> slice:
        """The rows of one episode."""
        return slice(int(self.episode_offsets[index]), int(self.episode_offsets[index + 1]))

    def select(self, indices: Sequence[int] | IndexArray) -> "Demonstrations":
        """Keep the episodes with these numbers, in this order.

        Raises:
            ValueError: if none is given or a number is out of range.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        if chosen.size == 0:
            raise ValueError("at least one episode must be kept, got none")
        if chosen.min() < 0 or chosen.max() >= self.n_episodes:
            raise ValueError(f"episode numbers must be in 0..{self.n_episodes - 1}")
        rows = np.concatenate([np.arange(*self.episode_offsets[i : i + 2]) for i in chosen])
        final = self.final_observations
        return replace(
            self,
            observations={key: value[rows] for key, value in self.observations.items()},
            actions=self.actions[rows],
            rewards=self.rewards[rows],
            episode_offsets=_offsets(self.lengths[chosen]),
            final_observations=None if final is None else {k: v[chosen] for k, v in final.items()},
            terminated=None if self.terminated is None else self.terminated[chosen],
        )

    def episodes(self, n: int) -> "Demonstrations":
        """Keep the first `n` episodes.

        Raises:
            ValueError: if there are fewer, or `n` is not positive.
        """
        if not 1 <= n <= self.n_episodes:
            raise ValueError(f"episodes must be in 1..{self.n_episodes}, got {n}")
        return self if n == self.n_episodes else self.select(np.arange(n))

    def split(self, fraction: float, seed: int) -> "tuple[Demonstrations, Demonstrations | None]":
        """Hold whole episodes out.

        Args:
            fraction: share of episodes held out, in [0, 1); at least one where it is positive.
            seed: of the choice.

        Returns:
            The rest and the held-out part; None where `fraction` is 0 or there is one episode.
        """
        if not 0 <= fraction < 1:
            raise ValueError(f"the held-out fraction must be in [0, 1), got {fraction}")
        n_held = max(1, round(fraction * self.n_episodes)) if fraction > 0 else 0
        n_held = min(n_held, self.n_episodes - 1)
        if n_held == 0:
            return self, None
        order = np.random.default_rng(seed).permutation(self.n_episodes)
        return self.select(np.sort(order[n_held:])), self.select(np.sort(order[:n_held]))

    def windows(self, n_obs_steps: int, horizon: int) -> Windows:
        """Index arrays of observation histories and action chunks, one of each a row."""
        if n_obs_steps < 1 or horizon < 1:
            raise ValueError(
                f"n_obs_steps and horizon must be at least 1, got {n_obs_steps} and {horizon}"
            )
        rows = np.arange(len(self), dtype=np.int64)[:, None]
        first = np.repeat(self.episode_offsets[:-1], self.lengths)[:, None]
        last = np.repeat(self.episode_offsets[1:] - 1, self.lengths)[:, None]
        return Windows(
            observations=np.maximum(rows + np.arange(1 - n_obs_steps, 1), first),
            actions=np.minimum(rows + np.arange(horizon), last),
        )


def concatenate(parts: Sequence[Demonstrations]) -> Demonstrations:
    """Join data sets of the same spaces; meta keeps what all agree on, and lists the rest.

    Raises:
        ValueError: if there are none, or observations, actions or fields differ.
    """
    if not parts:
        raise ValueError("at least one data set is needed, got none")
    if len(parts) == 1:
        return parts[0]
    head = parts[0]
    for number, part in enumerate(parts[1:], start=1):
        _check_same_spaces(head, part, number)
    finals = [part.final_observations for part in parts]
    ends = [part.terminated for part in parts]
    agreed = {
        key: value
        for key, value in head.meta.items()
        if all(key in part.meta and part.meta[key] == value for part in parts)
    }
    return Demonstrations(
        observations={
            key: np.concatenate([part.observations[key] for part in parts])
            for key in head.observations
        },
        actions=np.concatenate([part.actions for part in parts]),
        rewards=np.concatenate([part.rewards for part in parts]),
        episode_offsets=_offsets(np.concatenate([part.lengths for part in parts])),
        action_low=head.action_low,
        action_high=head.action_high,
        meta={**agreed, "parts": [part.meta for part in parts]},
        final_observations=(
            {key: np.concatenate([f[key] for f in finals if f]) for key in head.observations}
            if all(final is not None for final in finals)
            else None
        ),
        terminated=(
            np.concatenate([end for end in ends if end is not None])
            if all(end is not None for end in ends)
            else None
        ),
    )


def load_demonstrations(name_or_path: str | Path) -> Demonstrations:
    """Read demonstrations from a file, a folder or the local Minari data sets.

    Args:
        name_or_path: an `.npz` file (docs/data.md), an HDF5 file as D4RL or robomimic writes it,
            the folder of a Minari data set, or the id of one (`decisive/blockpush/diverse-v0`);
            an id such as `D4RL/door/human-v2` that is not local is downloaded.

    Raises:
        ValueError: one line saying what is wrong with the content, or which names are known.
        OSError: if a file cannot be read.
    """
    # Imported here: the formats import this module.
    from learning import d4rl_format, minari_format, minari_store, npz_format, robomimic_format

    path = Path(name_or_path)
    if path.is_file():
        with open(path, "rb") as file:
            magic = file.read(8)
        if magic.startswith(b"\x89HDF\r\n\x1a\n"):
            if path.name == "main_data.hdf5":
                return minari_format.read_minari(path.parent)
            if d4rl_format.is_d4rl(path):
                return d4rl_format.read_d4rl(path)
            return robomimic_format.read_robomimic(path)
        if magic.startswith(b"PK") or path.suffix == ".npz":
            return npz_format.read_npz(path)
        raise ValueError(f"{path}: neither .npz nor HDF5 (first bytes {magic!r})")
    if path.is_dir():
        return minari_format.read_minari(path)
    return minari_format.read_minari(minari_store.find_or_download(str(name_or_path)))


def clip_actions(
    actions: NDArray[Any], low: NDArray[Any], high: NDArray[Any]
) -> tuple[FloatArray, dict[str, Any]]:
    """Clip recorded actions to the action space and say how many were outside.

    Args:
        actions: `(N, A)`.
        low: `(A,)` lower bounds.
        high: `(A,)` upper bounds.

    Returns:
        The clipped actions, float32, and `{"clipped": values outside, "clipped_share": share of all
        values, "clipped_max": the furthest distance outside}`.
    """
    values = as_float32(actions, "actions")
    bounds = np.asarray(low, np.float32), np.asarray(high, np.float32)
    finite = np.isfinite(values)
    # NaN and infinite values are no actions a little too large: they are left to be refused.
    clipped = np.where(finite, np.clip(values, *bounds), values)
    distance = np.abs(np.subtract(values, clipped, out=np.zeros_like(values), where=finite))
    outside = int(np.count_nonzero(distance))
    return clipped, {
        "clipped": outside,
        "clipped_share": outside / max(1, values.size),
        "clipped_max": float(distance.max(initial=0.0)),
    }


def as_float32(values: NDArray[Any], name: str) -> FloatArray:
    """Real numbers as float32.

    Raises:
        ValueError: if they are not numbers or do not fit.
    """
    if values.dtype.kind not in "fiub":
        raise ValueError(f"{name} must be numbers, got {values.dtype}")
    with np.errstate(over="ignore"):
        result = values.astype(np.float32)
    if values.dtype == np.float64 and bool((np.isinf(result) & np.isfinite(values)).any()):
        raise ValueError(f"{name} holds values too large for float32")
    return result


def join_rows(parts: list[np.ndarray], name: str) -> np.ndarray:
    """Concatenate the arrays of all episodes.

    Raises:
        ValueError: naming the first episode whose rows have another shape or kind.
    """
    for index, part in enumerate(parts):
        if part.shape[1:] != parts[0].shape[1:] or part.dtype != parts[0].dtype:
            raise ValueError(
                f"episode {index}: {name} has rows of {part.shape[1:]} {part.dtype}, "
                f"episode 0 of {parts[0].shape[1:]} {parts[0].dtype}"
            )
    return np.concatenate(parts)


def _offsets(lengths: IndexArray) -> IndexArray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def _check_arrays(demos: Demonstrations) -> None:
    n_rows, n_episodes = len(demos.actions), len(demos.episode_offsets) - 1
    if demos.actions.ndim != 2 or demos.actions.dtype != np.float32 or demos.actions.shape[1] < 1:
        raise ValueError(
            f"actions must be (N, A) float32, got {demos.actions.shape} {demos.actions.dtype}"
        )
    if demos.rewards.shape != (n_rows,) or demos.rewards.dtype != np.float32:
        raise ValueError(
            f"rewards must be ({n_rows},) float32 like the actions, "
            f"got {demos.rewards.shape} {demos.rewards.dtype}"
        )
    _check_observations(demos.observations, n_rows, "observations")
    if demos.final_observations is not None:
        if demos.final_observations.keys() != demos.observations.keys():
            raise ValueError("final_observations must have the keys of observations")
        _check_observations(demos.final_observations, n_episodes, "final_observations")
        for key, value in demos.final_observations.items():
            if value.shape[1:] != demos.observations[key].shape[1:]:
                raise ValueError(f"final_observations {key!r} must have the shape of observations")
    if demos.terminated is not None and (
        demos.terminated.shape != (n_episodes,) or demos.terminated.dtype != np.bool_
    ):
        raise ValueError(f"terminated must be ({n_episodes},) bool, got {demos.terminated.shape}")
    for name, bound in (("action_low", demos.action_low), ("action_high", demos.action_high)):
        if bound.shape != demos.actions.shape[1:] or bound.dtype != np.float32:
            raise ValueError(
                f"{name} must be {demos.actions.shape[1:]} float32, got {bound.shape} {bound.dtype}"
            )


def _check_observations(observations: dict[str, np.ndarray], n_rows: int, name: str) -> None:
    if not observations or not set(observations) <= set(OBSERVATION_KEYS):
        raise ValueError(f"{name} must have the keys 'state' or 'pixels', got {list(observations)}")
    for key, value in observations.items():
        if len(value) != n_rows:
            raise ValueError(f"{name} {key!r} has {len(value)} rows, expected {n_rows}")
        right = (
            value.ndim == 2 and value.dtype == np.float32
            if key == "state"
            else value.ndim == 4 and value.shape[3] == 3 and value.dtype == np.uint8
        )
        if not right:
            expected = "(N, D) float32" if key == "state" else "(N, H, W, 3) uint8"
            raise ValueError(f"{name} {key!r} must be {expected}, got {value.shape} {value.dtype}")


def _check_meta(meta: dict[str, Any]) -> None:
    """The keys that others read have the types that these expect."""
    if not isinstance(meta.get("env", ""), str):
        raise ValueError(f"meta 'env' must be an environment id, got {meta['env']!r}")
    if not isinstance(meta.get("env_options") or {}, dict):
        raise ValueError(f"meta 'env_options' must be an object, got {meta['env_options']!r}")
    for key in ("observation_fields", "action_fields"):
        fields = meta.get(key) or []
        told = isinstance(fields, list) and all(
            isinstance(field, dict) and {"name", "size", "kind"} <= set(field) for field in fields
        )
        if not told:
            raise ValueError(
                f"meta {key!r} must be a list of objects with name, size and kind, got {fields!r}"
            )


def _check_offsets(offsets: IndexArray, n_rows: int) -> None:
    if offsets.ndim != 1 or offsets.dtype != np.int64:
        raise ValueError(
            f"episode_offsets must be (E + 1,) int64, got {offsets.shape} {offsets.dtype}"
        )
    if len(offsets) < 2 or n_rows == 0:
        raise ValueError("the data set holds no episodes")
    if offsets[0] != 0 or offsets[-1] != n_rows:
        raise ValueError(
            f"episode_offsets must run from 0 to the number of rows {n_rows}, "
            f"got {offsets[0]} to {offsets[-1]}"
        )
    if (np.diff(offsets) < 1).any():
        empty = int(np.argmax(np.diff(offsets) < 1))
        raise ValueError(f"episode_offsets must increase: episode {empty} is empty")


def _check_values(demos: Demonstrations) -> None:
    low, high = demos.action_low, demos.action_high
    if np.isnan(low).any() or np.isnan(high).any() or (low > high).any():
        raise ValueError("action_low must not exceed action_high, and neither may be NaN")
    arrays = {"actions": demos.actions, "rewards": demos.rewards, **demos.observations}
    for name, value in arrays.items():
        if value.dtype == np.float32:
            bad = ~np.isfinite(value.reshape(len(value), -1)).all(axis=1)
            if bad.any():
                row = int(np.argmax(bad))
                episode = int(np.searchsorted(demos.episode_offsets, row, side="right")) - 1
                step = row - int(demos.episode_offsets[episode])
                raise ValueError(f"{name} is NaN or infinite in episode {episode}, step {step}")
    for name, value in (demos.final_observations or {}).items():
        if value.dtype == np.float32 and not np.isfinite(value).all():
            raise ValueError(f"the final observation {name!r} is NaN or infinite")
    outside = (demos.actions < low) | (demos.actions > high)
    if outside.any():
        raise ValueError(
            f"{int(outside.sum())} action values lie outside the action space; use clip_actions"
        )


def _check_same_spaces(head: Demonstrations, part: Demonstrations, number: int) -> None:
    for name, mine, theirs in (
        (
            "observations",
            {key: value.shape[1:] for key, value in head.observations.items()},
            {key: value.shape[1:] for key, value in part.observations.items()},
        ),
        ("actions", head.actions.shape[1:], part.actions.shape[1:]),
        ("action_low", head.action_low.tolist(), part.action_low.tolist()),
        ("action_high", head.action_high.tolist(), part.action_high.tolist()),
        (
            "observation_fields",
            head.meta.get("observation_fields"),
            part.meta.get("observation_fields"),
        ),
        ("action_fields", head.meta.get("action_fields"), part.meta.get("action_fields")),
    ):
        if mine != theirs:
            raise ValueError(
                f"data set {number + 1} has other {name}: expected {mine}, got {theirs}"
            )
