"""Lets `gymnasium.make(..., max_episode_steps=n)` lengthen an episode, not only shorten it."""

from typing import Any

import gymnasium
from gymnasium.utils import RecordConstructorArgs
from gymnasium.wrappers import TimeLimit


class EpisodeLimit(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Hands the limit of an inner `TimeLimit` on to the environment; changes nothing else.

    Our environments truncate by themselves, because their own limit depends on their options
    (30 steps a block in sorting). `gymnasium.make` keeps `max_episode_steps` for a `TimeLimit`
    and never shows it to the environment, which would still stop at its own limit when that is the
    shorter one. Registered as an additional wrapper, so it is put around that `TimeLimit`.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        """Find the limit, if there is one.

        Args:
            env: whose `unwrapped` looks at `spec.max_episode_steps` in every step.
        """
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        layer: gymnasium.Env[Any, Any] = env
        while isinstance(layer, gymnasium.Wrapper):
            if isinstance(layer, TimeLimit) and env.unwrapped.spec is not None:
                env.unwrapped.spec.max_episode_steps = layer._max_episode_steps
            layer = layer.env
