"""Episodes in which a policy sees the objects only through a calibrated camera.

Every object's pose in the state is what `robots.pose_estimation` makes of one colour and depth
picture a step (640x480, `envs.tabletop.camera.ROBOT_CAMERA`), told by the objects' colours or by
the masks of a segmenter. The effector's own position stays, as a robot knows it. What is not seen
keeps its last pose; until everything has been seen once, the policy is not asked and the effector
stays.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from decisive.episodes import BUILT_IN, Perception, PolicyActor
from decisive.perceived_summary import COLORS, TURNS
from envs.fields import Field, slices
from envs.tabletop.base import EFFECTOR_FIELDS, TabletopEnv
from envs.tabletop.camera import ROBOT_CAMERA, rgbd
from envs.tabletop.push import HALF
from robots.instance_labels import InstanceLabels
from robots.pose_estimation import MODELS, Model, Pose2D, SceneEstimator, SlotModel, wrap

CONTROL_PERIOD = 0.1
_EFFECTOR = frozenset(field.name for field in EFFECTOR_FIELDS)

Labeller = Callable[[NDArray[np.uint8]], InstanceLabels]
"""Says which instance each pixel of an `(H, W, 3)` uint8 picture belongs to."""


class Pictured(gym.Wrapper[Any, Any, Any, Any]):
    """Puts what the robot's camera sees into `info["picture"]`: colour and depth.

    Drawn here and not by whoever looks, so that the time of a decision holds no rendering.
    """

    def __init__(self, env: gym.Env[Any, Any], depth_noise: float = 0.0) -> None:
        """Wrap an environment.

        Args:
            env: a tabletop.
            depth_noise: standard deviation of the noise on every pixel's depth, metres.
        """
        super().__init__(env)
        self.depth_noise = depth_noise
        self._rng = np.random.default_rng(0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; its noise is of its seed."""
        obs, info = self.env.reset(seed=seed, options=options)
        self._rng = np.random.default_rng(seed)
        return obs, {**info, "picture": self._picture()}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Act, and look."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, reward, terminated, truncated, {**info, "picture": self._picture()}

    def _picture(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        base = _tabletop(self)
        rgb, depth = rgbd(base.scene.client, ROBOT_CAMERA, base.variation.light)
        if self.depth_noise > 0:
            depth += self._rng.normal(0.0, self.depth_noise, depth.shape).astype(np.float32)
        return rgb, depth


class PerceivingActor:
    """A policy that sees the objects through the camera of a `Pictured` environment."""

    def __init__(
        self, policy: PolicyActor, models: Sequence[Model], labeller: Labeller | None = None
    ) -> None:
        """Wrap a policy.

        Args:
            policy: takes the state.
            models: what lies on the table.
            labeller: tells the objects; None has their colours tell them.
        """
        self.policy = policy
        self.labeller = labeller
        self._scene = SceneEstimator(models)
        self._begin()

    def _begin(self) -> None:
        self._scene.reset()
        self._poses: dict[str, Pose2D] = {}
        self._errors: dict[str, list[float]] = defaultdict(list)
        self._unseen = dict.fromkeys((model.name for model in self._scene.models), 0)
        self._segment_ms: list[float] = []
        self._fit_ms: list[float] = []

    def reset(self, env: gym.Env[Any, Any], seed: int) -> None:
        """Forget the last episode."""
        base = _tabletop(env)
        self._fields = base.state_fields
        self._stay = np.zeros(base.action_space.shape or (), np.float32)
        self.policy.reset(env, seed)
        self._begin()

    def act(self, obs: Any, info: Mapping[str, Any]) -> NDArray[np.floating]:
        """The policy's action for the perceived state; none while something was never seen."""
        self._look(*info["picture"])
        if len(self._poses) < len(self._unseen):
            return self._stay
        perceived = perceived_state(obs, self._fields, self._poses)
        for name, error in field_errors(obs, perceived, self._fields).items():
            self._errors[name].append(error)
        return self.policy.act(perceived, info)

    def perception(self) -> Perception:
        """What was perceived in the episode so far."""
        return Perception(
            pictures=len(self._fit_ms),
            unseen=dict(self._unseen),
            errors={name: tuple(values) for name, values in self._errors.items()},
            segment_ms=tuple(self._segment_ms),
            fit_ms=tuple(self._fit_ms),
        )

    def _look(self, rgb: NDArray[np.uint8], depth: NDArray[np.float32]) -> None:
        labels = None
        if self.labeller is not None:
            began = time.thread_time()
            labels = self.labeller(rgb)
            self._segment_ms.append((time.thread_time() - began) * 1e3)
        began = time.thread_time()
        sightings = self._scene.update(
            rgb,
            depth,
            ROBOT_CAMERA.matrix,
            ROBOT_CAMERA.T_world_camera,
            len(self._fit_ms) * CONTROL_PERIOD,
            labels,
        )
        self._fit_ms.append((time.thread_time() - began) * 1e3)
        for name, sighting in sightings.items():
            if sighting is not None:
                self._poses[name] = sighting.pose
            self._unseen[name] += sighting is None or sighting.age > 0


def perceiving(
    policy: PolicyActor, env: gym.Env[Any, Any], env_id: str, segmenter: str
) -> tuple[PerceivingActor, Pictured]:
    """A policy that sees, and the environment that shows.

    Args:
        policy: of the state.
        env: the environment, as the policy was trained for.
        env_id: its id.
        segmenter: checkpoint folder, shipped name, or `COLORS`.

    Raises:
        ValueError: where the segmenter cannot be had, or does not know the objects.
    """
    if set(policy.policy.spec.observation) != {"state"}:
        raise ValueError("perceived poses replace those of the state; this policy sees pixels")
    models = models_of(env.unwrapped, env_id)
    labeller = None if segmenter == COLORS else _labeller(segmenter, models, env_id)
    return PerceivingActor(policy, models, labeller), Pictured(env)


def check_perceived(env_id: str, policy: str, segmenter: str, ray: str | None = None) -> None:
    """Refuse what cannot be perceived, before any episode is run.

    Raises:
        ValueError: for tasks without models, policies that are none of the state, or a segmenter
            that machines of a cluster would not find.
    """
    if env_id not in MODELS:
        raise ValueError(
            f"objects can be perceived in {', '.join(MODELS)}; of {env_id} there are no models"
        )
    if policy in BUILT_IN:
        raise ValueError(f"perceived poses are for learned policies; {policy!r} does without them")
    if ray is not None and Path(segmenter).exists():
        raise ValueError(
            f"on Ray use a shipped segmenter or {COLORS}: the folder {segmenter} stays here"
        )


def find_segmenter(segmenter: str) -> Path:
    """The folder of a segmenter, by its path or its shipped name.

    Raises:
        ValueError: if there is none; the shipped ones are listed.
    """
    from learning.checkpoint import find_shipped
    from perception.deep_mac.checkpoint import METHOD, shipped_segmenters

    try:
        return find_shipped(segmenter, shipped_segmenters(), METHOD)
    except ValueError as error:
        raise ValueError(f"{error}; {COLORS!r} needs none") from None


def _labeller(segmenter: str, models: Sequence[Model], env_id: str) -> Labeller:
    """Ask a segmenter; torch is loaded here."""
    from perception.deep_mac.checkpoint import load_segmenter

    saved = load_segmenter(find_segmenter(segmenter))
    missing = {model.kind for model in models if model.kind} - set(saved.classes)
    if missing:
        raise ValueError(
            f"segmenter {segmenter} knows {', '.join(saved.classes)}; {env_id} needs "
            f"{', '.join(sorted(missing))}, too; or take {COLORS!r}"
        )

    def labelled(rgb: NDArray[np.uint8]) -> InstanceLabels:
        segments = saved.segment(rgb)
        return InstanceLabels(segments.label_image(), segments.names)

    return labelled


def models_of(env: Any, env_id: str) -> tuple[Model, ...]:
    """What lies on an environment's table, with slots as wide as it builds them.

    Args:
        env: the bare environment.
        env_id: its id.
    """
    return tuple(
        replace(model, half_mouth=HALF + env.clearance) if isinstance(model, SlotModel) else model
        for model in MODELS[env_id]
    )


def perceived_state(
    state: NDArray[np.floating], fields: Sequence[Field], poses: Mapping[str, Pose2D]
) -> NDArray[np.float32]:
    """The state with every object's numbers replaced.

    Args:
        state: `(D,)` exact.
        fields: of the state, named `<object>_xy`, `<object>_yaw4` and `<object>_heading`.
        poses: by object.

    Raises:
        ValueError: if an object has no pose yet.
    """
    result = np.array(state, dtype=np.float32)
    for name, part in slices(fields).items():
        if name in _EFFECTOR:
            continue
        thing, _, kind = name.rpartition("_")
        if thing not in poses:
            raise ValueError(f"{thing} was not seen; the policy needs {name}")
        pose = poses[thing]
        if kind == "xy":
            result[part] = pose.x, pose.y
        else:
            angle = TURNS[kind] * pose.yaw
            result[part] = math.cos(angle), math.sin(angle)
    return result


def field_errors(
    exact: NDArray[np.floating], perceived: NDArray[np.floating], fields: Sequence[Field]
) -> dict[str, float]:
    """By field of an object: distance in metres, or turn in rad, between two states."""
    errors = {}
    for name, part in slices(fields).items():
        if name in _EFFECTOR:
            continue
        first, second = exact[part].astype(float), perceived[part].astype(float)
        turns = TURNS.get(name.rpartition("_")[2])
        if turns is None:
            errors[name] = float(np.hypot(*(first - second)))
        else:
            angle = math.atan2(second[1], second[0]) - math.atan2(first[1], first[0])
            errors[name] = abs(wrap(angle, 2 * math.pi)) / turns
    return errors


def _tabletop(env: gym.Env[Any, Any]) -> TabletopEnv:
    base = env.unwrapped
    assert isinstance(base, TabletopEnv)
    return base
