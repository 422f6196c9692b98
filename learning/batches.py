"""Batches gathered by index from demonstrations that stay in memory on the device."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from learning.demonstrations import Demonstrations


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
    """Demonstrations as tensors on one device, and their windows."""

    def __init__(
        self, demos: Demonstrations, n_obs_steps: int, horizon: int, device: torch.device
    ) -> None:
        """Copy the arrays to the device; pixels stay uint8."""
        windows = demos.windows(n_obs_steps, horizon)
        self._observations = {
            key: torch.from_numpy(np.ascontiguousarray(value)).to(device)
            for key, value in demos.observations.items()
        }
        self._actions = torch.from_numpy(np.ascontiguousarray(demos.actions)).to(device)
        self._observation_rows = torch.from_numpy(windows.observations).to(device)
        self._action_rows = torch.from_numpy(windows.actions).to(device)

    def __len__(self) -> int:
        """Number of windows, one a row."""
        return len(self._actions)

    def batch(self, rows: Tensor) -> Batch:
        """The windows of these rows.

        Args:
            rows: `(B,)` int64 on the device.
        """
        seen = self._observation_rows.index_select(0, rows)
        done = self._action_rows.index_select(0, rows)
        return Batch(
            observations={
                key: value.index_select(0, seen.view(-1)).view(*seen.shape, *value.shape[1:])
                for key, value in self._observations.items()
            },
            actions=self._actions.index_select(0, done.view(-1)).view(*done.shape, -1),
        )


class BatchOrder:
    """Which rows make the batch of a step: epochs of permutations, laid end to end.

    A function of (seed, step) alone, so that a resumed training sees the same data and every process
    of a distributed one its own share of the same global batch.
    """

    def __init__(
        self, n_rows: int, batch_size: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        """Order for one of `world` processes.

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
            self._permutation = torch.randperm(self._n_rows, generator=generator)
            self._epoch = epoch
        return self._permutation
