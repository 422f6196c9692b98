"""Tiles of kernels and their backward passes on a Ray cluster: many machines, the same numbers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decisive.cluster import MAX_RETRIES, connect
from learning.distillation.tile_work import Here, Job, KeptTiles, TileWork, do

if TYPE_CHECKING:
    from torch import Tensor

    from learning.distillation.kernel_config import KernelConfig

AHEAD = 3
"""Tiles that are given out for each one that is awaited: workers do not wait for this process."""


@contextmanager
def tile_work(
    address: str | None, workers: int, kept: Path | None = None, pairs: int | None = None
) -> Iterator[TileWork | None]:
    """Work for `learning.distillation.kernel`, on Ray while the context lasts.

    Args:
        address: `local`, that of a Ray cluster, or None for this process alone.
        workers: tiles at a time of a local one.
        kept: folder in which finished tiles wait until the run is over; None keeps none.
        pairs: of points in a tile; None: by the network.

    Yields:
        The work; None without an address.

    Raises:
        ValueError: if Ray is not installed.
        OSError: if the cluster is not there.
    """
    if address is None:
        yield None
        return
    try:
        import ray
    except ImportError as error:
        raise ValueError("--ray needs Ray: pip install 'decisive[cluster]'") from error
    connect(address, workers)
    try:
        work = RayTiles(pairs)
        yield work if kept is None else KeptTiles(work, kept)
    finally:
        ray.shutdown()


@dataclass(frozen=True)
class RayTiles:
    """Jobs as Ray tasks; one whose worker or machine died is done again, elsewhere.

    Attributes:
        most: pairs of points in a tile; None: by the network.
    """

    most: int | None = None

    def pairs(self, config: KernelConfig) -> int:
        """See `TileWork`."""
        return Here(self.most).pairs(config)

    def __call__(self, jobs: Iterable[Job]) -> Iterator[tuple[Tensor, ...]]:
        """See `TileWork`.

        Raises:
            ValueError: as the kernel would in this process.
            OSError: if a tile lost its worker too often, or the cluster is gone.
        """
        import ray
        from ray.exceptions import RayError, RayTaskError

        task = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(kernel_tile_task)
        ahead = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        waiting: deque[Any] = deque()
        try:
            for job in jobs:
                waiting.append(task.remote(_packed(job)))
                if len(waiting) >= ahead:
                    yield _unpacked(ray.get(waiting.popleft()))
            while waiting:
                yield _unpacked(ray.get(waiting.popleft()))
        except RayTaskError as error:
            if isinstance(error.cause, ValueError | OSError):
                raise error.cause from error
            raise
        except RayError as error:
            raise OSError(f"Ray gave up on a tile: {error}") from error


def kernel_tile_task(packed: dict[str, Any]) -> list[Any]:
    """Does a job in a Ray worker, on one thread, as every machine would."""
    import torch

    torch.set_num_threads(1)
    x, y = (torch.from_numpy(packed[name].copy()) for name in ("x", "y"))
    grad = None if packed["grad"] is None else torch.from_numpy(packed["grad"].copy())
    job = Job(packed["config"], x, y, grad, packed["needed"])
    return [part.contiguous().numpy() for part in do(job)]


def _packed(job: Job) -> dict[str, Any]:
    """A job as arrays of its own: a part of a tensor would take all of it along."""
    arrays = {
        name: None if part is None else part.detach().cpu().contiguous().numpy().copy()
        for name, part in (("x", job.x), ("y", job.y), ("grad", job.grad))
    }
    return {"config": job.config, "needed": job.needed, **arrays}


def _unpacked(arrays: list[Any]) -> tuple[Tensor, ...]:
    import torch

    return tuple(torch.from_numpy(array.copy()) for array in arrays)
