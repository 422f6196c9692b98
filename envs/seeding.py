"""Random streams that never meet: evaluation, recording, checkpoint selection and training."""

import numpy as np

STREAMS: dict[str, tuple[int, ...]] = {
    "evaluate": (),
    "record": (1,),
    "select": (2,),
    "train": (3,),
}
"""Stream name to the spawn key of its NumPy SeedSequence; `evaluate` is what a bare seed gives."""


def episode_rng(seed: int, stream: str = "evaluate") -> np.random.Generator:
    """Generator from which an episode draws its layout.

    The same seed in two streams gives unrelated episodes, so that no seed used for evaluation
    reproduces an episode that was recorded, or one by which a checkpoint was selected.

    Args:
        seed: non-negative integer.
        stream: a key of `STREAMS`.

    Returns:
        A fresh generator, a function of the arguments alone.

    Raises:
        ValueError: for an unknown stream or a negative seed.
    """
    if stream not in STREAMS:
        raise ValueError(f"unknown stream {stream!r}; known streams: {', '.join(STREAMS)}")
    if seed < 0:
        raise ValueError(f"seed must be a non-negative integer, got {seed}")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=STREAMS[stream]))
