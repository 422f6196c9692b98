"""Gymnasium environments and their scripted experts. NumPy and PyBullet only: no torch, no ROS."""

# Not `import gymnasium`: as an entry point this runs while that package is still half imported.
from gymnasium.envs.registration import WrapperSpec, register, registry

_ENTRY_POINTS = {
    "decisive/Particle-v0": "envs.particle:ParticleEnv",
    "decisive/BlockPush-v0": "envs.tabletop.push:BlockPushEnv",
    "decisive/BlockPushMultimodal-v0": "envs.tabletop.push:BlockPushMultimodalEnv",
    "decisive/BlockInsertion-v0": "envs.tabletop.insertion:BlockInsertionEnv",
    "decisive/BlockSorting-v0": "envs.tabletop.sorting:BlockSortingEnv",
}

_EPISODE_LIMIT = WrapperSpec("EpisodeLimit", "envs.limits:EpisodeLimit", kwargs={})

ENV_IDS: tuple[str, ...] = tuple(_ENTRY_POINTS)
"""Every id that `register_envs` registers."""


def register_envs() -> None:
    """Register every environment of this package with Gymnasium; a second call changes nothing.

    Importing this package calls it. Where the project is installed, Gymnasium knows the ids without
    any import of ours. Nothing but the names is loaded here. No step limit is registered: the
    environments truncate by themselves, at their own limit or at the one that
    `gymnasium.make(..., max_episode_steps=n)` gives.
    """
    for env_id, entry_point in _ENTRY_POINTS.items():
        if env_id not in registry:
            register(env_id, entry_point=entry_point, additional_wrappers=(_EPISODE_LIMIT,))


register_envs()
