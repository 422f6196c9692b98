"""Batches gathered by index from demonstrations that stay in memory on the device."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learning.demonstrations import Demonstrations

_LAID_OUT_BYTES = 2**28


@dataclass(frozen=True, slots=True)
class Batch:
    """What a loss sees, raw: normalisation is the policy's business.

    Attributes:
        observations: per key `(B, n_obs_steps, ...)`; float32 `state`, uint8 `pixels`
            `(..., H, W, 3)`; the last step is the present.
        actions: `(B, horizon, A)` float32; the first is the action of the present step.
    """

    observations: dict[str, Tensor]
    actions: Tensor

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.actions)


class DemoTensors:
    """Demonstrations as tensors on one device, and their windows.

    Small arrays are laid out window by window, one gather a batch; large ones (pixels) stay as they
    are, uint8, and are gathered through row numbers.
    """

    def __init__(
        self, demos: Demonstrations, n_obs_steps: int, horizon: int, device: torch.device
    ) -> None:
        """Copy the arrays to the device."""
        windows = demos.windows(n_obs_steps, horizon)
        self._n_rows = len(demos)
        self._observations = {
            key: _Windowed(value, windows.observations, device)
            for key, value in demos.observations.items()
        }
        self._actions = _Windowed(demos.actions, windows.actions, device)

    def __len__(self) -> int:
        """Number of windows, one a row."""
        return self._n_rows

    def batch(self, rows: Tensor) -> Batch:
        """The windows of these rows.

        Args:
            rows: `(B,)` int64 on the device.
        """
        return Batch(
            observations={key: value.take(rows) for key, value in self._observations.items()},
            actions=self._actions.take(rows),
        )


class _Windowed:
    """An array `(N, ...)` seen through windows `(N, T)`."""

    def __init__(self, array: np.ndarray, windows: NDArray[np.int64], device: torch.device) -> None:
        width = windows.shape[1]
        self._windows: Tensor | None = None
        if array.nbytes * width <= _LAID_OUT_BYTES:
            array = array[windows]
        elif width == 1:
            array = array[:, None]
        else:
            self._windows = torch.from_numpy(windows).to(device)
        self._values = torch.from_numpy(np.ascontiguousarray(array)).to(device)

    def take(self, rows: Tensor) -> Tensor:
        if self._windows is None:
            return self._values.index_select(0, rows)
        inner = self._windows.index_select(0, rows)
        taken = self._values.index_select(0, inner.view(-1))
        return taken.view(*inner.shape, *self._values.shape[1:])


def return_weights(demos: Demonstrations, temperature: float) -> Tensor:
    """Weights of reward-weighted regression: `exp(z / temperature)`, z the standardised return.

    Source: Peters and Schaal 2007, "Reinforcement learning by reward-weighted regression for
    operational space control", applied to whole episodes.

    Args:
        demos: episodes with their rewards.
        temperature: in standard deviations of the return; small ones trust the best episodes only.

    Returns:
        `(N,)` positive weights, one a row; all equal where all returns are.
    """
    returns = np.add.reduceat(demos.rewards.astype(np.float64), demos.episode_offsets[:-1])
    spread = returns.std() or 1.0
    # The best episode has weight 1: nothing overflows.
    weights = np.exp((returns - returns.max()) / (spread * temperature))
    return torch.from_numpy(np.repeat(weights, demos.lengths))


class BatchOrder:
    """Which rows make the batch of a step: epochs of permutations, laid end to end.

    With weights, an epoch is as many draws in proportion to them: every loss is then weighted.

    A function of (seed, step) alone, so that a resumed training sees the same data, and every
    process of a distributed one its own share of the same global batch.
    """

    def __init__(
        self,
        n_rows: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        weights: Tensor | None = None,
    ) -> None:
        """Order for one of `world` processes; `weights` `(n_rows,)` are relative.

        Raises:
            ValueError: if the batch cannot be shared out equally.
        """
        if batch_size % world:
            raise ValueError(f"batch_size {batch_size} must be a multiple of {world} processes")
        self._n_rows = n_rows
        self._batch_size = batch_size
        self._seed = seed
        self._share = batch_size // world
        self._rank = rank
        self._weights = weights
        self._epoch = -1
        self._permutation = torch.empty(0, dtype=torch.int64)

    def rows(self, step: int) -> Tensor:
        """`(batch_size / world,)` rows of this process at a step, int64 on the CPU."""
        position = step * self._batch_size + self._rank * self._share
        epoch, offset = divmod(position, self._n_rows)
        first = self._rows_of(epoch)[offset : offset + self._share]
        if len(first) == self._share:
            return first
        parts, missing = [first], self._share - len(first)
        while missing > 0:
            epoch += 1
            parts.append(self._rows_of(epoch)[:missing])
            missing -= len(parts[-1])
        return torch.cat(parts)

    def _rows_of(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed((self._seed * 1_000_003 + epoch) % 2**63)
            self._permutation = (
                torch.randperm(self._n_rows, generator=generator)
                if self._weights is None
                else torch.multinomial(self._weights, self._n_rows, True, generator=generator)
            )
            self._epoch = epoch
        return self._permutation
