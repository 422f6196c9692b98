"""What recorded episodes become: fields, bounds and meta of a data set.

Importable without rclpy: imported bags need it as well as the recorder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decisive import provenance
from decisive.episodes import observation_shapes
from decisive.options import make_env
from envs.fields import Field, to_json
from learning.demonstrations import Demonstrations, clip_actions, join_rows
from learning.shards import Episode
from robots.episode_layout import EpisodeArrays, feature_size
from robots.matching import FK, Feature, default_features, parse_feature

Bounds = NDArray[np.float32]


@dataclass(frozen=True)
class Target:
    """The data set that episodes are recorded for.

    Attributes:
        features: where the observation comes from, in the order of its fields.
        observation_fields: of the state, as JSON.
        action_fields: as JSON.
        low: `(A,)` float32 bounds of the action.
        high: `(A,)` float32.
        env: environment id; empty for none.
        options: its options.
        pixels: shape of the pictures; None for none.
    """

    features: tuple[Feature, ...]
    observation_fields: tuple[dict[str, Any], ...]
    action_fields: tuple[dict[str, Any], ...]
    low: Bounds
    high: Bounds
    env: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    pixels: tuple[int, ...] | None = None

    def meta(self) -> dict[str, Any]:
        """The part of a data set's meta that is known before anything is recorded."""
        told: dict[str, Any] = {
            "observation_fields": list(self.observation_fields),
            "action_fields": list(self.action_fields),
            "topics": {feature.field: describe(feature) for feature in self.features},
        }
        return {"env": self.env, "env_options": dict(self.options), **told} if self.env else told


def describe(feature: Feature) -> str:
    """The right side of the line that `parse_feature` reads."""
    if not feature.topic:
        return feature.source
    return f"{feature.source}:{feature.topic} {feature.part}".rstrip()


def choose_features(
    fields: Sequence[str], pixels: bool, lines: Sequence[str]
) -> tuple[Feature, ...]:
    """The topic-to-feature map of an observation.

    Args:
        fields: names of the state's fields, in order.
        pixels: whether there are pictures.
        lines: `FIELD = SOURCE:TOPIC PART` each; none: as the names of the fields suggest.

    Raises:
        ValueError: where lines and fields do not agree.
    """
    given = [parse_feature(line) for line in lines if line.strip()]
    if not given:
        return default_features(fields, pixels)
    wanted = [*fields, *(["pixels"] if pixels else [])]
    named = {feature.field: feature for feature in given}
    if set(named) != set(wanted) or len(named) != len(given):
        raise ValueError(f"features must name each of {wanted} once, got {list(named)}")
    if "pixels" in named and named["pixels"].source != "image":
        raise ValueError(f"pixels come from an image, got {named['pixels'].source}")
    if any(feature.source == FK for feature in given):
        raise ValueError("poses by forward kinematics are not recorded; record the tool's pose")
    return tuple(named[name] for name in wanted)


def environment_target(env_id: str, options: Mapping[str, Any], lines: Sequence[str]) -> Target:
    """The data set of an environment.

    Args:
        env_id: its id.
        options: its options; `observation` decides between state and pictures.
        lines: see `choose_features`.

    Raises:
        ValueError: for an unknown environment or option, or features that do not fit.
    """
    env = make_env(env_id, options)
    try:
        base: Any = env.unwrapped
        space: Any = env.action_space
        shapes = observation_shapes(env.observation_space)
        fields = to_json(base.state_fields) if "state" in shapes else []
        action_fields = to_json(base.action_fields)
        low, high = np.array(space.low), np.array(space.high)
    finally:
        env.close()
    pixels = tuple(shapes["pixels"]) if "pixels" in shapes else None
    features = choose_features([f["name"] for f in fields], pixels is not None, lines)
    _check_sizes(features, fields, len(low))
    return Target(features, tuple(fields), tuple(action_fields), low, high, env_id, options, pixels)


def plain_target(
    fields: Sequence[str],
    action_fields: Sequence[str],
    low: Sequence[float],
    high: Sequence[float],
    lines: Sequence[str],
) -> Target:
    """A data set of no environment.

    Args:
        fields: of the state, `NAME SIZE KIND UNIT` each, such as `cup_xy 2 point m`.
        action_fields: likewise, such as `delta_xy 2 vector m`.
        low: bounds of the action.
        high: bounds of the action.
        lines: see `choose_features`; one that names `pixels` adds pictures.

    Raises:
        ValueError: where they do not fit each other.
    """
    told = to_json([read_field(line) for line in fields if line.strip()])
    acts = to_json([read_field(line) for line in action_fields if line.strip()])
    bounds = np.array(low, np.float32), np.array(high, np.float32)
    n = sum(f["size"] for f in acts)
    if not n or any(bound.shape != (n,) for bound in bounds):
        raise ValueError(
            f"action_fields hold {n} numbers, action_low and action_high {len(low)} and {len(high)}"
        )
    given = [parse_feature(line) for line in lines if line.strip()]
    pixels = any(feature.field == "pixels" for feature in given)
    features = choose_features([f["name"] for f in told], pixels, lines)
    _check_sizes(features, told, n)
    return Target(features, tuple(told), tuple(acts), *bounds)


def read_field(line: str) -> Field:
    """Read `NAME SIZE KIND UNIT`, such as `block_xy 2 point m`.

    Raises:
        ValueError: for anything else.
    """
    words = line.split()
    if len(words) != 4 or not words[1].isdigit():
        raise ValueError(f"a field reads NAME SIZE KIND UNIT, as block_xy 2 point m; got {line!r}")
    name, size, kind, unit = words
    checked: Any = kind  # Field refuses unknown kinds
    return Field(name, int(size), checked, unit, "")


def to_episode(arrays: EpisodeArrays, target: Target, success: bool) -> tuple[Episode, int]:
    """An episode as the data sets keep it.

    Args:
        arrays: its rows.
        target: the data set.
        success: whether it succeeded; it ended by itself then. Its last step is rewarded with 1,
            the others with 0.

    Returns:
        The episode, and how many action values had to be clipped to the bounds.

    Raises:
        ValueError: if it does not fit the data set.
    """
    if target.pixels is not None and arrays.observations["pixels"].shape[1:] != target.pixels:
        raise ValueError(
            f"the data set has pictures of {target.pixels}, "
            f"got {arrays.observations['pixels'].shape[1:]}"
        )
    if arrays.actions.shape[1] != len(target.low):
        raise ValueError(
            f"the data set has actions of {len(target.low)}, got {arrays.actions.shape[1]}"
        )
    actions, clipped = clip_actions(arrays.actions, target.low, target.high)
    rewards = np.zeros(len(actions), np.float32)
    rewards[-1] = success
    return Episode(arrays.observations, actions, rewards, success), clipped["clipped"]


def recorded_meta(target: Target, **facts: Any) -> dict[str, Any]:
    """Meta of a recorded data set: of the target, of the recording, and of the software."""
    return {
        **target.meta(),
        **facts,
        "rewards": "1 in the last step of a success, else 0",
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }


def assemble(
    episodes: Sequence[Episode], target: Target, meta: Mapping[str, Any]
) -> Demonstrations:
    """A data set of episodes that are in memory.

    Raises:
        ValueError: if they do not fit each other.
    """
    keys = episodes[0].observations
    if any(episode.observations.keys() != keys.keys() for episode in episodes):
        raise ValueError("the episodes have different observations")
    lengths = np.array([len(episode.actions) for episode in episodes], np.int64)
    return Demonstrations(
        observations={
            key: join_rows([e.observations[key][:-1] for e in episodes], key) for key in keys
        },
        actions=np.concatenate([episode.actions for episode in episodes]),
        rewards=np.concatenate([episode.rewards for episode in episodes]),
        episode_offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
        action_low=target.low,
        action_high=target.high,
        meta=dict(meta),
        final_observations={
            key: join_rows([e.observations[key][-1:] for e in episodes], key) for key in keys
        },
        terminated=np.array([episode.terminated for episode in episodes], np.bool_),
    )


def _check_sizes(
    features: Sequence[Feature], fields: Sequence[Mapping[str, Any]], n_axes: int
) -> None:
    sizes = {f["name"]: f["size"] for f in fields}
    for feature in features:
        size = feature_size(feature, n_axes)
        if feature.field in sizes and size != sizes[feature.field]:
            raise ValueError(
                f"the field {feature.field!r} holds {sizes[feature.field]} numbers, "
                f"{describe(feature)} gives {size}"
            )
