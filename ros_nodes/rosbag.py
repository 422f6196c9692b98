"""Data sets as rosbag2, and bags as data sets; through `rosbags`, so that no ROS is needed.

A recorded bag goes through the same pairing as the recorder's messages. An exported data set holds
its own fields and bounds in the bag's metadata, and comes back with equal arrays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learning.demonstrations import Demonstrations
from robots.matching import REFERENCE, Feature, parse_feature
from ros_nodes import bag_messages as bag
from ros_nodes.bag_files import BagWriter, new_bag, open_bag
from ros_nodes.bag_import import COMMANDS, EPISODES, REWARDS, BagImport, ImportConfig
from ros_nodes.bag_poses import FeatureWriter
from ros_nodes.recorded_data import (
    Target,
    choose_features,
    environment_target,
    plain_target,
)

META_KEY = "decisive"
SECOND = 1_000_000_000
FIRST = SECOND
"""Time of the first observation of an exported bag: a stamp of 0 means "unset" to ROS."""
PAUSE = SECOND
"""Between two exported episodes."""
TARGET = Feature("", "pose", "target_pose", "xy")
"""Where an exported bag has the commanded position, which a policy node keeps for itself."""


# Data set to bag.


def export_bag(
    demos: Demonstrations,
    path: str | Path,
    storage: str = "mcap",
    features: Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Write a data set as a rosbag2: poses, joints and pictures, commands, and episodes.

    Args:
        demos: its actions are at most six displacements or rotations, along x, y, z and about them.
        path: folder of the bag.
        storage: `mcap` or `sqlite3`.
        features: where each field goes, `FIELD = SOURCE:TOPIC PART`; none: as the data set says,
            or as the names of its fields suggest.
        overwrite: whether to replace a bag of this name.

    Returns:
        The folder.

    Raises:
        ValueError: if the data cannot be told by messages, or the name is taken.
        OSError: if it cannot be written; what was there before stays.
    """
    place = Path(path)
    if place.exists() and not overwrite:
        raise ValueError(f"{place} exists; choose another name, or say --overwrite")
    n_axes = demos.actions.shape[1]
    if n_axes > 6:
        raise ValueError(f"a TwistStamped holds 6 numbers, the actions of these data {n_axes}")
    rate = _rate(demos.meta)
    chosen = _exported_features(demos, features)
    writer = FeatureWriter(chosen, demos.meta.get("observation_fields") or [], n_axes)
    told = {
        "rate": rate,
        "features": [f"{f.field} = {_source(f)}" for f in chosen],
        "meta": demos.meta,
        "action_low": _plain(demos.action_low),
        "action_high": _plain(demos.action_high),
        "final_observations": demos.final_observations is not None,
    }
    with new_bag(place, storage, {META_KEY: json.dumps(told)}) as target:
        stamp = FIRST
        for index in range(demos.n_episodes):
            stamp = _write_episode(target, demos, index, writer, stamp, rate) + PAUSE
    return place


def _rate(meta: Mapping[str, Any]) -> float:
    rate = meta.get("rate", 10.0)
    if not isinstance(rate, int | float) or not 0 < rate <= 1000:
        raise ValueError(f"the data set says that its rate is {rate!r} Hz")
    return float(rate)


def _plain(bounds: NDArray[np.float32]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in bounds]


def _source(feature: Feature) -> str:
    return f"{feature.source}:{feature.topic} {feature.part}".rstrip()


def _exported_features(demos: Demonstrations, lines: Sequence[str]) -> tuple[Feature, ...]:
    names = [f["name"] for f in demos.meta.get("observation_fields") or []]
    if "state" in demos.observations and not names:
        raise ValueError("the data do not name the fields of their state; nothing tells a topic")
    state = names if "state" in demos.observations else []
    topics = demos.meta.get("topics")
    if not any(lines) and isinstance(topics, dict):
        lines = [f"{name} = {source}" for name, source in topics.items()]
    chosen = choose_features(state, "pixels" in demos.observations, lines)
    # A policy node knows its own reference; a bag has to say it.
    return tuple(
        replace(TARGET, field=feature.field) if feature.source == REFERENCE else feature
        for feature in chosen
    )


def _write_episode(
    target: BagWriter,
    demos: Demonstrations,
    index: int,
    writer: FeatureWriter,
    first: int,
    rate: float,
) -> int:
    """Write an episode from a time on; returns when it ended, nanoseconds."""
    rows = demos.episode(index)
    period = round(SECOND / rate)
    length = rows.stop - rows.start
    last = first + length * period
    finals = demos.final_observations
    start = {"event": "start", "episode": index, "stamp": first}
    target.write(f"/{EPISODES}", first, bag.text(json.dumps(start)))
    for i in range(length + 1):
        stamp = first + i * period
        row = rows.start + min(i, length - 1)  # the last is repeated where no final one is known
        seen = {key: value[row] for key, value in demos.observations.items()}
        if i == length and finals is not None:
            seen = {key: value[index] for key, value in finals.items()}
        writer.write(target, stamp, seen)
        if i < length:
            values = np.zeros(6)
            # Times the period and rounded, it is the action again, to the last bit.
            action = demos.actions[row].astype(np.float64)
            values[: len(action)] = action * rate
            target.write(f"/{COMMANDS}", stamp, bag.twist(stamp, values.tolist()))
            target.write(f"/{REWARDS}", stamp, bag.number(float(demos.rewards[row])))
    ended = None if demos.terminated is None else bool(demos.terminated[index])
    end = {"event": "end", "episode": index, "stamp": last, "length": length, "terminated": ended}
    target.write(f"/{EPISODES}", last, bag.text(json.dumps(end)))
    return last


# Bag to data set.


def import_bag(path: str | Path, config: ImportConfig | None = None) -> Demonstrations:
    """Read a data set from a rosbag2.

    Without the topic `episode` all of the bag is one episode, which counts as a success.

    Args:
        path: folder of the bag, or a file `.mcap` or `.db3`.
        config: how to read it.

    Raises:
        ValueError: one line: a damaged bag, a topic that is missing or of another type, or no
            episode that can be used, and why.
        OSError: if it is not there.
    """
    config = config or ImportConfig()
    try:
        with open_bag(Path(path)) as reader:
            told = _own(reader.custom)
            if told is not None and not config.env and not config.fields:
                return BagImport(reader, *_exported(told, config), told).run()
            return BagImport(reader, _target(config), config, None).run()
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _own(custom: Mapping[str, Any]) -> dict[str, Any] | None:
    """What an exported bag says of itself."""
    text = custom.get(META_KEY)
    if not isinstance(text, str):
        return None
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict) or not isinstance(told.get("meta"), dict):
        raise ValueError(f"the bag's own {META_KEY!r} is no description of a data set")
    return told


def _exported(told: Mapping[str, Any], config: ImportConfig) -> tuple[Target, ImportConfig]:
    try:
        features = tuple(parse_feature(line) for line in told["features"])
        low, high = (
            np.array([infinite if v is None else float(v) for v in told[name]], np.float32)
            for name, infinite in (("action_low", -np.inf), ("action_high", np.inf))
        )
        rate = _rate(told)
    except (KeyError, TypeError) as error:
        raise ValueError(f"the bag's own {META_KEY!r} lacks or misstates {error}") from None
    if not 1 <= len(low) <= 6 or len(high) != len(low):
        raise ValueError(f"the bag's own bounds are of {len(low)} and {len(high)} axes")
    pairing = replace(
        config.pairing,
        features=features,
        axes=tuple(range(len(low))),
        rate=rate,
        lockstep=True,
        longest=float(2**31),
    )
    return Target(features, (), (), low, high), replace(
        config, command="twist", namespace="", pairing=pairing, keep_failures=True
    )


def _target(config: ImportConfig) -> Target:
    if config.env:
        return environment_target(config.env, config.options, config.features)
    if not config.fields and not any("pixels" in line for line in config.features):
        raise ValueError("whose data shall it be? name an environment, or fields and features")
    return plain_target(
        config.fields,
        config.action_fields,
        config.action_low,
        config.action_high,
        config.features,
    )
