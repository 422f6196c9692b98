"""Observations as they come from an environment, checked and made tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def read_observation(
    obs: Any, shapes: Mapping[str, tuple[int, ...]], device: torch.device
) -> tuple[dict[str, Tensor], bool]:
    """Checks an observation.

    Args:
        obs: one observation or a batch, an array or a mapping; see `Policy.act`.
        shapes: shape of one observation by key.
        device: where the tensors shall be.

    Returns:
        Tensors `(B, ...)` by key, and whether it came as a batch.

    Raises:
        ValueError: if a key is missing, a shape differs or a value is not finite.
    """
    if not isinstance(obs, Mapping):
        if len(shapes) > 1:
            raise ValueError(
                f"obs must be a mapping with the keys {', '.join(shapes)}; got {type(obs).__name__}"
            )
        obs = {next(iter(shapes)): obs}
    missing = [key for key in shapes if key not in obs]
    if missing:
        raise ValueError(
            f"obs must have the keys {', '.join(shapes)}; {', '.join(missing)} missing"
        )
    tensors: dict[str, Tensor] = {}
    sizes: dict[str, int | None] = {}
    for key, shape in shapes.items():
        array = _numeric(obs[key], key)
        if array.shape == shape:
            sizes[key] = None
            array = array[None]
        elif array.shape[1:] == shape and array.ndim == len(shape) + 1 and len(array):
            sizes[key] = len(array)
        else:
            batch = ", ".join(map(str, ("B", *shape)))
            raise ValueError(f"obs {key!r} must be {shape} or ({batch}); got {array.shape}")
        if key == "pixels":
            array = _as_uint8(array)
        else:
            array = np.asarray(array, dtype=np.float32)
            if not np.isfinite(array).all():
                where = tuple(np.argwhere(~np.isfinite(array))[0])
                raise ValueError(f"obs {key!r} must be finite; entry {where[-1]} is {array[where]}")
        tensors[key] = torch.as_tensor(array, device=device)
    if len(set(sizes.values())) > 1:
        raise ValueError(f"all observation keys must have the same batch size; got {sizes}")
    return tensors, next(iter(sizes.values())) is not None


def _numeric(value: Any, key: str) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"obs {key!r} must be an array of numbers; {error}") from None
    if array.dtype.kind not in "fiub":
        raise ValueError(f"obs {key!r} must be an array of numbers; got dtype {array.dtype}")
    return array


def _as_uint8(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype != np.uint8:
        raise ValueError(f"obs 'pixels' must be uint8 in [0, 255]; got dtype {array.dtype}")
    return array
