"""What is in a data set, in numbers."""

from typing import Any

import numpy as np

from learning.demonstrations import Demonstrations

_QUANTILES = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}


def summary(demos: Demonstrations) -> dict[str, Any]:
    """Numbers about a data set, ready for JSON.

    Returns:
        `episodes`, `steps`, `observations` (shape and kind per key), `actions` (`dim`, `low`,
        `high`; an infinite bound is None), `return` and `length` quartiles, `terminated_share`
        (None where not known), `clipped_share` (share of action values that lay outside the action
        space when the data were read), `at_bound_share` (share of action values that lie on a
        bound), `bytes` in memory, and `meta`.
    """
    starts = demos.episode_offsets[:-1]
    returns = np.add.reduceat(demos.rewards.astype(np.float64), starts)
    on_bound = (demos.actions <= demos.action_low) | (demos.actions >= demos.action_high)
    arrays = [demos.actions, demos.rewards, *demos.observations.values()]
    return {
        "episodes": demos.n_episodes,
        "steps": len(demos),
        "observations": {
            key: {"shape": list(value.shape[1:]), "dtype": str(value.dtype)}
            for key, value in demos.observations.items()
        },
        "actions": {
            "dim": demos.actions.shape[1],
            "low": [_finite(x) for x in demos.action_low],
            "high": [_finite(x) for x in demos.action_high],
        },
        "return": _quartiles(returns),
        "length": _quartiles(demos.lengths),
        "terminated_share": (
            None if demos.terminated is None else float(np.mean(demos.terminated))
        ),
        "clipped_share": float(demos.meta.get("clipped_share", 0.0)),
        "at_bound_share": float(on_bound.mean()),
        "bytes": int(sum(array.nbytes for array in arrays)),
        "meta": demos.meta,
    }


def _quartiles(values: np.ndarray) -> dict[str, float]:
    return {name: float(np.quantile(values, q)) for name, q in _QUANTILES.items()}


def _finite(value: np.float32) -> float | None:
    return float(value) if np.isfinite(value) else None
