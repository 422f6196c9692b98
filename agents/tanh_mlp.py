"""Policies that others trained, as plain weights: a tanh network in an `.npz` file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.encoders import ObservationEncoder
from agents.explicit.mse import MseConfig, MsePolicy
from agents.spec import PolicySpec
from learning.npz_format import read_arrays

_SCALES = ("in_shift", "in_scale", "out_shift", "out_scale")
_MAX_BYTES = 2**28
_EPSILON = 1e-8
"""What the sources of these files (aravindr93/mjrl) add to the scale of an observation."""
_UNCLIPPED = 2.0**10
"""Our normaliser clips at ten deviations, these networks do not: a deviation of 1,024 never clips,
and as a power of two it costs no digit."""


def read_tanh_mlp(path: str | Path) -> MsePolicy:
    """Read a tanh network as a regression policy.

    The file holds `W0, b0, W1, b1, ...` with `W` `(out, in)`, all hidden layers of one width, and
    `in_shift`, `in_scale` `(D,)`, `out_shift`, `out_scale` `(A,)`. The action is
    `clip(mlp((obs - in_shift) / (in_scale + 1e-8)) * out_scale + out_shift, -1, 1)`, tanh after
    every layer but the last; `log_std` and other arrays are left alone (the mean acts).

    Args:
        path: an `.npz` file such as the DAPG policies of Adroit (Rajeswaran et al. 2018).

    Returns:
        The policy, in evaluation mode; `save_policy` makes it a checkpoint like any other.

    Raises:
        ValueError: one line: not such a file, or shapes that do not fit together.
        OSError: if it cannot be opened.
    """
    arrays = read_arrays(path, _MAX_BYTES)
    try:
        return _build(arrays)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _build(arrays: dict[str, NDArray[np.generic]]) -> MsePolicy:
    n_layers = sum(name.startswith("W") and name[1:].isdigit() for name in arrays)
    names = [f"{letter}{i}" for i in range(n_layers) for letter in "Wb"]
    missing = [name for name in (*names, *_SCALES) if name not in arrays]
    if n_layers < 2 or missing:
        raise ValueError(
            "a tanh network needs W0, b0, W1, b1, ..., "
            f"{', '.join(_SCALES)}; got {', '.join(sorted(arrays)) or 'nothing'}"
        )
    values = {name: _numbers(name, arrays[name]) for name in (*names, *_SCALES)}
    sizes = [values["in_shift"].size, *(values[f"b{i}"].size for i in range(n_layers))]
    shapes: dict[str, tuple[int, ...]] = {
        f"W{i}": (sizes[i + 1], sizes[i]) for i in range(n_layers)
    }
    shapes |= {f"b{i}": (sizes[i + 1],) for i in range(n_layers)}
    shapes |= {name: (sizes[0] if name.startswith("in") else sizes[-1],) for name in _SCALES}
    for name, shape in shapes.items():
        if values[name].shape != shape:
            raise ValueError(f"{name} must be {shape}; got {values[name].shape}")
    widths = set(sizes[1:-1])
    if len(widths) != 1:
        raise ValueError(f"all hidden layers must have one width; got {sorted(widths)}")
    return _filled(values, sizes)


def _filled(values: dict[str, NDArray[np.float64]], sizes: list[int]) -> MsePolicy:
    """The policy with these weights; scales go into the first and the last layer."""
    dim = sizes[-1]
    spec = PolicySpec({"state": (sizes[0],)}, dim, (-1.0,) * dim, (1.0,) * dim)
    config = MseConfig(width=sizes[1], depth=len(sizes) - 2, activation="tanh")
    policy = MsePolicy(spec, config)
    first = values["W0"] / (values["in_scale"] + _EPSILON)
    values["b0"] = values["b0"] - first @ values["in_shift"]
    values["W0"] = first * _UNCLIPPED
    last = len(sizes) - 2
    values[f"b{last}"] = values[f"b{last}"] * values["out_scale"] + values["out_shift"]
    values[f"W{last}"] = values[f"W{last}"] * values["out_scale"][:, None]
    assert isinstance(policy.encoder, ObservationEncoder)
    layers = [m for m in (*policy.encoder.trunk.layers, policy.head) if isinstance(m, nn.Linear)]
    with torch.no_grad():
        policy.observation_normalizer.std.fill_(_UNCLIPPED)
        for i, layer in enumerate(layers):
            layer.weight.copy_(_tensor(values[f"W{i}"]))
            layer.bias.copy_(_tensor(values[f"b{i}"]))
    return policy.eval()


def _numbers(name: str, array: NDArray[np.generic]) -> NDArray[np.float64]:
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise ValueError(f"{name} must hold finite numbers; got {array.dtype}")
    return array.astype(np.float64)


def _tensor(values: NDArray[np.float64]) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)
