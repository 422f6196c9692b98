"""Gymnasium environments and their scripted experts. NumPy and simulators: no torch, no ROS."""

# Not `import gymnasium`: as an entry point this runs while that package is still half imported.
from gymnasium.envs.registration import WrapperSpec, register, registry

_ENTRY_POINTS = {
    "decisive/Particle-v0": "envs.particle:ParticleEnv",
    "decisive/BlockPush-v0": "envs.tabletop.push:BlockPushEnv",
    "decisive/BlockPushMultimodal-v0": "envs.tabletop.push:BlockPushMultimodalEnv",
    "decisive/BlockInsertion-v0": "envs.tabletop.insertion:BlockInsertionEnv",
    "decisive/BlockSorting-v0": "envs.tabletop.sorting:BlockSortingEnv",
    "decisive/R2RNav-v0": "envs.indoor.r2r_nav:R2RNavEnv",
    "decisive/HouseNav-v0": "envs.indoor.continuous:HouseNavEnv",
    # Inside a world model: a name only, so that nothing of another room is imported here.
    "decisive/Dream-v0": "decisive.dream_env:DreamEnv",
}

_EPISODE_LIMIT = WrapperSpec("EpisodeLimit", "envs.limits:EpisodeLimit", kwargs={})

_D4RL = {
    "decisive/AdroitPen-v0": ("envs.d4rl.adroit:AdroitPenEnv", 100),
    "decisive/AdroitHammer-v0": ("envs.d4rl.adroit:AdroitHammerEnv", 200),
    "decisive/AdroitDoor-v0": ("envs.d4rl.adroit:AdroitDoorEnv", 200),
    "decisive/AdroitRelocate-v0": ("envs.d4rl.adroit:AdroitRelocateEnv", 200),
    "decisive/FrankaKitchen-v0": ("envs.d4rl.kitchen:FrankaKitchenEnv", 280),
}
"""Entry point and D4RL's limit of steps."""

D4RL_IDS: tuple[str, ...] = tuple(_D4RL)
"""Those that need the extra `d4rl`."""
ENV_IDS: tuple[str, ...] = (*_ENTRY_POINTS, *_D4RL)
"""Every id that `register_envs` registers."""


def register_envs() -> None:
    """Register every environment of this package with Gymnasium; a second call changes nothing.

    Importing this package calls it. Where the project is installed, Gymnasium knows the ids without
    any import of ours. Nothing but the names is loaded here. For our own environments no step
    limit is registered: they truncate by themselves, at their own limit or at the one that
    `gymnasium.make(..., max_episode_steps=n)` gives.
    """
    for env_id, entry_point in _ENTRY_POINTS.items():
        if env_id not in registry:
            register(env_id, entry_point=entry_point, additional_wrappers=(_EPISODE_LIMIT,))
    for env_id, (entry_point, limit) in _D4RL.items():
        if env_id not in registry:
            register(env_id, entry_point=entry_point, max_episode_steps=limit)


register_envs()
