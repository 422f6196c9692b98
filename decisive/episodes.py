"""One episode: an actor in an environment, a function of (environment, actor, seed) alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from decisive.options import make_env, merged

if TYPE_CHECKING:
    from agents.policy import Policy

BUILT_IN = ("expert", "random")
"""Names that `--policy` takes beside folders and shipped policies."""


class Actor(Protocol):
    """Whatever acts in an episode: a policy, a scripted expert, or chance."""

    def reset(self, env: gym.Env, seed: int) -> None:
        """Start an episode that `env.reset` has just begun with this seed."""

    def act(self, obs: Any, info: Mapping[str, Any]) -> NDArray[np.floating]:
        """The action for one observation."""
        ...


class PolicyActor:
    """A learned policy; its sampling is reseeded with the seed of every episode."""

    def __init__(self, policy: Policy) -> None:
        """Wrap a policy."""
        self.policy = policy

    def reset(self, env: gym.Env, seed: int) -> None:
        """Clear history and reseed."""
        self.policy.reset(seed)

    def act(self, obs: Any, info: Mapping[str, Any]) -> NDArray[np.floating]:
        """The policy's action; it never sees `info`."""
        return self.policy.act(obs)


class ExpertActor:
    """The scripted expert of the environment, a fresh one each episode."""

    def __init__(self, mode: str = "consistent") -> None:
        """Choose `consistent` or `diverse`."""
        self.mode = mode
        self._expert: Any = None

    def reset(self, env: gym.Env, seed: int) -> None:
        """Ask the environment for the expert of this episode."""
        maker = getattr(env.unwrapped, "expert", None)
        if maker is None:
            name = env.spec.id if env.spec else type(env.unwrapped).__name__
            raise ValueError(f"{name} has no scripted expert; use a policy, or --policy random")
        self._expert = maker(mode=self.mode, seed=seed)

    def act(self, obs: Any, info: Mapping[str, Any]) -> NDArray[np.floating]:
        """The expert's action, which may use all of `info`."""
        action: NDArray[np.floating] = self._expert.act(obs, info)
        return action


class RandomActor:
    """Actions drawn from the action space: the floor below every score."""

    def __init__(self) -> None:
        """Nothing to choose; the first `reset` gives the space."""
        self._space: gym.Space[Any] | None = None

    def reset(self, env: gym.Env, seed: int) -> None:
        """Seed the space with the seed of the episode."""
        self._space = env.action_space
        self._space.seed(seed)

    def act(self, obs: Any, info: Mapping[str, Any]) -> NDArray[np.floating]:
        """A draw from the action space."""
        assert self._space is not None, "reset comes before act"
        return np.asarray(self._space.sample())


@dataclass(frozen=True)
class Perception:
    """What a camera showed a policy in one episode.

    Attributes:
        pictures: how many were looked at, one a decision.
        unseen: by object: how many of them did not show it.
        errors: by field of the state: metres or rad at every decision of the policy.
        segment_ms: CPU milliseconds of the segmenter for each picture; empty without one.
        fit_ms: those of finding and measuring the objects.
    """

    pictures: int
    unseen: Mapping[str, int]
    errors: Mapping[str, tuple[float, ...]]
    segment_ms: tuple[float, ...]
    fit_ms: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """All of it, for resuming an evaluation."""
        return {
            "pictures": self.pictures,
            "unseen": dict(self.unseen),
            "errors": {name: list(values) for name, values in self.errors.items()},
            "segment_ms": [round(ms, 4) for ms in self.segment_ms],
            "fit_ms": [round(ms, 4) for ms in self.fit_ms],
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Perception:
        """The inverse of `to_json`."""
        return cls(
            pictures=int(row["pictures"]),
            unseen={str(name): int(count) for name, count in row["unseen"].items()},
            errors={str(name): tuple(values) for name, values in row["errors"].items()},
            segment_ms=tuple(row["segment_ms"]),
            fit_ms=tuple(row["fit_ms"]),
        )


@dataclass(frozen=True)
class Episode:
    """What one episode came to.

    Attributes:
        seed: its seed.
        success: `info["success"]` at the last step; `None` where the environment does not say.
        score: `info["score"]` at the last step, likewise.
        total_reward: undiscounted return.
        length: steps taken.
        act_ms: wall time of each decision in milliseconds.
        perception: what the policy was shown, where it saw by a camera.
    """

    seed: int
    success: bool | None
    score: float | None
    total_reward: float
    length: int
    act_ms: tuple[float, ...]
    perception: Perception | None = None

    def row(self) -> dict[str, Any]:
        """The row of `per_episode`; it holds nothing that depends on the machine."""
        return {
            "seed": self.seed,
            "success": self.success,
            "score": self.score,
            "return": self.total_reward,
            "length": self.length,
        }

    def to_json(self) -> dict[str, Any]:
        """The row with its times, for resuming an evaluation."""
        row = {**self.row(), "act_ms": [round(ms, 4) for ms in self.act_ms]}
        return row if self.perception is None else {**row, "perception": self.perception.to_json()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Episode:
        """The inverse of `to_json`."""
        return cls(
            seed=int(row["seed"]),
            success=row["success"],
            score=row["score"],
            total_reward=float(row["return"]),
            length=int(row["length"]),
            act_ms=tuple(row["act_ms"]),
            perception=Perception.from_json(row["perception"]) if "perception" in row else None,
        )


def run_episode(
    env: gym.Env,
    actor: Actor,
    seed: int,
    stream: str = "evaluate",
    on_step: Callable[[gym.Env], None] | None = None,
) -> Episode:
    """Run one episode to its end.

    Args:
        env: the environment; its state before the call does not matter.
        actor: who acts.
        seed: seed of the episode and of the actor's sampling.
        stream: which stream of seeds: `evaluate`, `select` (checkpoint selection) or `record`.
        on_step: called after the reset and after every step, for films.
    """
    # Third-party environments know nothing of streams, and some refuse options.
    options = None if stream == "evaluate" else {"stream": stream}
    obs, info = env.reset(seed=seed, options=options)
    actor.reset(env, seed)
    if on_step is not None:
        on_step(env)
    times: list[float] = []
    total, done = 0.0, False
    while not done:
        start = time.perf_counter()
        action = actor.act(obs, info)
        times.append((time.perf_counter() - start) * 1e3)
        obs, reward, terminated, truncated, info = env.step(action)
        total += float(reward)
        done = terminated or truncated
        if on_step is not None:
            on_step(env)
    success, score = info.get("success"), info.get("score")
    return Episode(
        seed=seed,
        success=None if success is None else bool(success),
        score=None if score is None or math.isnan(score) else float(score),
        total_reward=total,
        length=len(times),
        act_ms=tuple(times),
    )


def run_episodes(
    env: gym.Env, actor: Actor, seeds: Iterable[int], stream: str = "evaluate"
) -> Iterator[Episode]:
    """Run episodes one after the other; each is what it would be alone."""
    for seed in seeds:
        yield run_episode(env, actor, seed, stream)


def make_actor(
    policy: str, expert_mode: str = "consistent", settings: Mapping[str, Any] | None = None
) -> Actor:
    """The actor a `--policy` word names.

    Args:
        policy: `expert`, `random`, a checkpoint folder, or the name of a shipped policy.
        expert_mode: for `expert`: `consistent` or `diverse`.
        settings: settings of a learned policy to change, nested as its config is; only those that
            leave its network alone, such as how it searches for the action.

    Raises:
        ValueError: for an unknown policy, an unreadable checkpoint or settings that do not fit.
    """
    if policy in BUILT_IN:
        if settings:
            raise ValueError(f"policy settings are for learned policies, {policy!r} has none")
        return ExpertActor(expert_mode) if policy == "expert" else RandomActor()
    from agents import load_policy  # torch, which the built-in actors do without

    loaded = load_policy(policy)
    return PolicyActor(resettle(loaded, settings) if settings else loaded)


def resettle(policy: Policy, settings: Mapping[str, Any]) -> Policy:
    """The same weights under changed settings.

    Raises:
        ValueError: for unknown settings, or those that the weights do not fit.
    """
    from agents.config import config_from_dict, config_to_dict

    changed = merged(config_to_dict(policy.config), settings)
    other = type(policy)(policy.spec, config_from_dict(policy.config_class, changed))
    try:
        other.load_state_dict(policy.state_dict())
    except RuntimeError:
        raise ValueError(
            f"the settings {dict(settings)} change the network, which is trained for others"
        ) from None
    other.eval()
    return other


class Runner:
    """An environment and an actor, ready to run episodes of one stream by seed."""

    def __init__(
        self,
        env_id: str,
        options: Mapping[str, Any],
        policy: str,
        expert_mode: str = "consistent",
        stream: str = "evaluate",
        render_mode: str | None = None,
        settings: Mapping[str, Any] | None = None,
        perceived: str | None = None,
    ) -> None:
        """Build both, and check that they fit.

        Args:
            env_id: the environment.
            options: its options.
            policy: as for `make_actor`.
            expert_mode: likewise.
            stream: as for `run_episode`.
            render_mode: of the environment.
            settings: as for `make_actor`.
            perceived: what tells the objects that the policy sees only by a camera, see
                `decisive.perceived`; None gives it the exact state.

        Raises:
            ValueError: where they do not fit.
        """
        self.actor: Actor = make_actor(policy, expert_mode, settings)
        extra = {} if render_mode is None else {"render_mode": render_mode}
        self.env = make_env(env_id, options, **extra)
        self.stream = stream
        if isinstance(self.actor, PolicyActor):
            import torch

            torch.set_num_threads(1)  # two spinning threads made a step 30 times dearer
            try:
                check_fit(self.actor.policy, self.env, env_id)
                if perceived is not None:
                    self._see(self.actor, env_id, perceived)
            except ValueError:
                self.env.close()
                raise

    def _see(self, actor: PolicyActor, env_id: str, segmenter: str) -> None:
        """Show the objects to the policy only by a camera."""
        from decisive.perceived import perceiving

        self.actor, self.env = perceiving(actor, self.env, env_id, segmenter)

    def run(self, seed: int, on_step: Callable[[gym.Env], None] | None = None) -> Episode:
        """Run the episode of a seed."""
        episode = run_episode(self.env, self.actor, seed, self.stream, on_step)
        perception = getattr(self.actor, "perception", None)
        return episode if perception is None else replace(episode, perception=perception())

    def close(self) -> None:
        """Close the environment."""
        self.env.close()


def check_fit(policy: Policy, env: gym.Env, env_id: str) -> None:
    """Raise `ValueError` where a policy and an environment differ in their spaces."""
    spec = policy.spec
    space = env.action_space
    if space.shape != (spec.action_dim,):
        raise ValueError(
            f"the policy acts in {spec.action_dim} dimensions, {env_id} with these options takes "
            f"{space.shape}; use the environment and the --set options it was trained with"
        )
    offered = observation_shapes(env.observation_space)
    for key, shape in spec.observation.items():
        if offered.get(key) != tuple(shape):
            raise ValueError(
                f"the policy needs the observation {key!r} of shape {tuple(shape)}, {env_id} with "
                f"these options gives {offered}; use the --set options it was trained with"
            )


def observation_shapes(space: gym.Space[Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of an observation space by key; a bare Box is `pixels` if an image, else `state`."""
    if isinstance(space, gym.spaces.Dict):
        return {key: tuple(box.shape or ()) for key, box in space.spaces.items()}
    shape = tuple(space.shape or ())
    return {"pixels" if len(shape) == 3 else "state": shape}
