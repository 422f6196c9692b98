"""One pass through a rosbag2: its messages to episodes, as the recorder would have made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from learning.demonstrations import Demonstrations
from learning.shards import Episode
from robots.commanded_motion import VelocityTrack
from robots.episode_layout import PairingConfig
from robots.episode_recording import Pairing, make_pairing
from robots.episode_session import EpisodeSession, Finished
from robots.matching import REFERENCE, Feature
from ros_nodes import bag_messages as bag
from ros_nodes.bag_files import BagReader
from ros_nodes.recorded_data import Target, assemble, recorded_meta, to_episode

SECOND = 1_000_000_000
MAX_BYTES = 8 * 2**30
COMMANDS, EPISODES, REWARDS = "robot/command", "episode", "reward"
"""Topics beside those of the observation."""


@dataclass(frozen=True)
class ImportConfig:
    """How a bag is read; an exported data set needs none of it.

    Attributes:
        env: environment that the data shall be of.
        options: its options.
        features: where each field comes from, see `parse_feature`.
        fields: without `env`: fields of the state, `NAME SIZE KIND UNIT` each.
        action_fields: without `env`: fields of the action.
        action_low: without `env`: bounds of the action.
        action_high: without `env`: bounds of the action.
        command: kind of the commands: `twist`, `trajectory` or `positions`.
        joints: names of the axes that positions are commanded of.
        namespace: of the topics in the bag.
        keep_failures: whether to keep episodes that say that they did not succeed.
        expert: who or what acted.
        license: of the data; empty where nobody tells.
        pairing: how rows are made; its features are replaced.
    """

    env: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    features: Sequence[str] = ()
    fields: Sequence[str] = ()
    action_fields: Sequence[str] = ("delta_xy 2 vector m",)
    action_low: Sequence[float] = (-0.03, -0.03)
    action_high: Sequence[float] = (0.03, 0.03)
    command: str = "twist"
    joints: Sequence[str] = ("x", "y", "z")
    namespace: str = ""
    keep_failures: bool = False
    expert: str = "teleoperation"
    license: str = ""
    pairing: PairingConfig = field(
        default_factory=lambda: PairingConfig((Feature("", REFERENCE),), longest=3600.0)
    )

    def __post_init__(self) -> None:
        """Refuse unknown kinds of commands."""
        if self.command not in ("twist", "trajectory", "positions"):
            raise ValueError(
                f"command must be twist, trajectory or positions, got {self.command!r}"
            )


class BagImport:
    """What is read, and what has come of it so far."""

    def __init__(
        self,
        reader: BagReader,
        target: Target,
        config: ImportConfig,
        told: Mapping[str, Any] | None,
    ) -> None:
        """Prepare.

        Args:
            reader: an open bag.
            target: the data set.
            config: how to read it.
            told: what an exported bag says of itself; None for a recorded one.
        """
        self._reader, self._target, self._config, self._told = reader, target, config, told
        self._pairing_config = replace(config.pairing, features=target.features)
        self._pairing: Pairing = make_pairing(self._pairing_config, config.command != "twist")
        self._session = EpisodeSession(self._pairing)
        self._now = 0  # the newest stamp: ages do not count in what is over
        self._largest: dict[str, int] = {}
        self._rewards: dict[int, float] = {}
        self._episodes: list[Episode] = []
        self._ends: list[Any] = []
        self._dropped: list[str] = []
        self._clipped = 0

    def run(self) -> Demonstrations:
        """Read everything."""
        inputs = self._inputs()
        has_episodes = self._resolve(EPISODES) in self._reader.types
        if not has_episodes:
            self._session.start(0, 0)
        topics = [*inputs, *(self._resolve(name) for name in (COMMANDS, EPISODES, REWARDS))]
        last = 0
        for topic, time, message, size in self._reader.messages(topics):
            self._feed(topic, inputs.get(topic, []), time, message, size)
            self._collect(time)
            last = time
        if not has_episodes:
            self._session.stop(self._now, last, {"success": True})
        self._collect(last + 60 * SECOND)  # nothing more will come
        return self._finished()

    def _resolve(self, name: str) -> str:
        if name.startswith("/"):
            return name
        parts = [part for part in (self._config.namespace.strip("/"), name) if part]
        return "/" + "/".join(parts)

    def _inputs(self) -> dict[str, list[tuple[str, Feature]]]:
        """Topics of observations with what is read from each; all topics are checked here."""
        found: dict[str, list[tuple[str, Feature]]] = {}
        for key, feature in self._pairing_config.sources.items():
            topic = self._resolve(feature.topic)
            self._check(topic, bag.TYPES[feature.source])
            found.setdefault(topic, []).append((key, feature))
        self._check(self._resolve(COMMANDS), bag.TYPES[self._config.command])
        for name, kind in ((EPISODES, "episode"), (REWARDS, "reward")):
            if self._resolve(name) in self._reader.types:
                self._check(self._resolve(name), bag.TYPES[kind])
        return found

    def _check(self, topic: str, kind: str) -> None:
        if topic not in self._reader.types:
            held = ", ".join(sorted(self._reader.types)[:20]) or "no topics"
            raise ValueError(f"the bag lacks {topic} ({kind}); it holds {held}")
        if self._reader.types[topic] != {kind}:
            held = ", ".join(sorted(self._reader.types[topic]))
            raise ValueError(f"{topic} must be {kind}, the bag has {held}")

    # Messages.

    def _feed(
        self,
        topic: str,
        features: Sequence[tuple[str, Feature]],
        time: int,
        message: Any,
        size: int,
    ) -> None:
        if topic == self._resolve(EPISODES):
            self._session.word(message.data, self._clock(time), time)
        elif topic == self._resolve(REWARDS):
            self._rewards[time] = float(message.data)
        elif topic == self._resolve(COMMANDS):
            self._command(message, time)
        else:
            stamp = bag.stamp_of(message)
            self._now = stamp if stamp < self._now - 5 * SECOND else max(self._now, stamp)
            self._largest[topic] = max(size, self._largest.get(topic, 0))
            for key, feature in features:
                self._pairing.observe(key, stamp, bag.feature_value(message, feature), self._now)

    def _clock(self, time: int) -> int:
        """A time of the recording on the clock of the stamps, which may be a simulator's."""
        return time if abs(time - self._now) < 5 * SECOND or not self._now else self._now

    def _command(self, message: Any, time: int) -> None:
        commands, joints = self._pairing.commands, list(self._config.joints)
        if isinstance(commands, VelocityTrack):
            stamp = bag.stamp_of(message) or self._clock(time)
            commands.add(stamp, bag.twist_array(message))
        elif self._config.command == "trajectory":
            positions, times = bag.trajectory_arrays(message, joints)
            commands.add(bag.stamp_of(message) or self._clock(time), positions, times)
        else:
            values = bag.multi_array_values(message, len(joints))
            commands.add(self._clock(time), values[None], np.zeros(1))

    # Episodes.

    def _collect(self, now: int) -> None:
        for finished in self._session.poll(now):
            self._keep(finished)
        held = self._pairing.n_rows * sum(self._largest.values())
        if held > MAX_BYTES:
            raise ValueError(f"an episode needs more than {MAX_BYTES} bytes of memory")

    def _keep(self, finished: Finished) -> None:
        success = finished.success is not False
        if finished.arrays is None or not (success or self._config.keep_failures):
            self._dropped.append(finished.why or "failed")
            return
        episode, clipped = to_episode(finished.arrays, self._target, success)
        rewards = [self._rewards.get(int(stamp)) for stamp in finished.arrays.stamps[:-1]]
        if None not in rewards:
            episode = replace(episode, rewards=np.array(rewards, np.float32))
        self._rewards.clear()
        self._clipped += clipped
        self._episodes.append(episode)
        self._ends.append(finished.facts.get("terminated", success))

    def _finished(self) -> Demonstrations:
        if not self._episodes:
            why = ", ".join(dict.fromkeys(self._dropped)) or "none begins and ends in it"
            raise ValueError(f"no episode of the bag can be used: {why}")
        if self._told is None:
            return assemble(self._episodes, self._target, self._meta())
        demos = assemble(self._episodes, self._target, self._told["meta"])
        ended = None if None in self._ends else np.array(self._ends, np.bool_)
        finals = demos.final_observations if self._told.get("final_observations") else None
        return replace(demos, terminated=ended, final_observations=finals)

    def _meta(self) -> dict[str, Any]:
        config = self._config
        facts: dict[str, Any] = {
            "expert": config.expert,
            "command": config.command,
            "rate": config.pairing.rate,
            "lockstep": config.pairing.lockstep,
            "clipped_values": self._clipped,
            "attempts": len(self._episodes) + len(self._dropped),
            "failed_episodes": len(self._dropped),
        }
        if config.license:
            facts["license"] = config.license
        return recorded_meta(self._target, **facts)
