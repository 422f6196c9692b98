"""Where tiles are computed: here, or by workers anywhere, with the same numbers.

A tile, and what a gradient with respect to it makes of its two sides, are pure functions of a
`Job`. A `TileWork` may do jobs in any order and anywhere, and do one twice, as long as it hands
over their results in order: sums are then the same to the last bit.
"""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from learning.atomic import write_file
from learning.distillation.kernel_config import KernelConfig
from learning.distillation.kernels import kernel_tile

FC_PAIRS, CONV_PAIRS = 2**18, 2**8
"""Pairs of a tile that is sent away: a hundredth of a second and seconds of work."""
MOST_BYTES = 2**32
"""Of tiles that are kept in files."""


@dataclass(frozen=True)
class Job:
    """A tile that is wanted, or its backward pass.

    Attributes:
        config: the network.
        x: `(n, ...)` points of its rows.
        y: `(m, ...)` points of its columns.
        grad: `(n, m)` gradient with respect to the tile; None: the tile itself is wanted.
        needed: of which side the gradient is wanted.
    """

    config: KernelConfig
    x: Tensor
    y: Tensor
    grad: Tensor | None = None
    needed: tuple[bool, bool] = (True, True)

    def digest(self) -> str:
        """Tells jobs apart by all that decides their result."""
        found = hashlib.sha256(repr((self.config, self.needed)).encode())
        for part in (self.x, self.y, self.grad):
            if part is None:
                continue
            found.update(repr((tuple(part.shape), part.dtype)).encode())
            found.update(part.detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()


class TileWork(Protocol):
    """Somebody who does jobs."""

    def pairs(self, config: KernelConfig) -> int:
        """Most pairs of points of a tile, beside what the memory allows."""
        ...

    def __call__(self, jobs: Iterable[Job]) -> Iterator[tuple[Tensor, ...]]:
        """The results of jobs, in their order; see `do`."""
        ...


def do(job: Job) -> tuple[Tensor, ...]:
    """Does a job.

    Returns:
        The tile `(n, m)`; or the gradients of the sides that are needed.
    """
    if job.grad is None:
        with torch.no_grad():
            return (kernel_tile(job.config, job.x, job.y),)
    with torch.enable_grad():
        sides = [
            side.detach().requires_grad_(need)
            for side, need in zip((job.x, job.y), job.needed, strict=True)
        ]
        tile = kernel_tile(job.config, *sides)
        wanted = [side for side in sides if side.requires_grad]
        return torch.autograd.grad(tile, wanted, job.grad)


def do_here(jobs: Iterable[Job]) -> Iterator[tuple[Tensor, ...]]:
    """Does jobs one after the other in this process."""
    yield from map(do, jobs)


@dataclass(frozen=True)
class Here:
    """Work in this process, cut as for workers elsewhere: what theirs is compared with.

    Attributes:
        most: pairs of a tile; None: those of `FC_PAIRS` and `CONV_PAIRS`.
    """

    most: int | None = None

    def pairs(self, config: KernelConfig) -> int:
        """See `TileWork`."""
        return self.most or (CONV_PAIRS if config.convs else FC_PAIRS)

    def __call__(self, jobs: Iterable[Job]) -> Iterator[tuple[Tensor, ...]]:
        """See `TileWork`."""
        return do_here(jobs)


class KeptTiles:
    """Work whose results are kept in files, so that what a kill interrupts is not done again."""

    def __init__(self, work: TileWork, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        """Go on with the files that are there.

        Args:
            work: does what is not there yet.
            folder: of the files; made when the first is written.
            most_bytes: the oldest files are removed beyond it.
        """
        self.work, self.folder, self.most_bytes = work, folder, most_bytes
        self.n_read = self.n_done = 0
        found = [(path.stat(), path) for path in folder.glob("*.safetensors")]
        found.sort(key=lambda pair: (pair[0].st_mtime_ns, pair[1]))
        self._files = deque((path, stat.st_size) for stat, path in found)
        self._bytes = sum(size for _, size in self._files)

    def pairs(self, config: KernelConfig) -> int:
        """See `TileWork`."""
        return self.work.pairs(config)

    def __call__(self, jobs: Iterable[Job]) -> Iterator[tuple[Tensor, ...]]:
        """See `TileWork`."""
        plan = [(job, self.folder / f"{job.digest()}.safetensors") for job in jobs]
        kept = [self._read(path) for _, path in plan]
        missing = [job for (job, _), found in zip(plan, kept, strict=True) if found is None]
        done = iter(self.work(missing))
        for (_, path), found in zip(plan, kept, strict=True):
            if found is not None:
                self.n_read += 1
                yield found
                continue
            result = next(done)
            self.n_done += 1
            self._write(path, result)
            yield result

    def _read(self, path: Path) -> tuple[Tensor, ...] | None:
        try:
            parts = safetensors.torch.load(path.read_bytes())
            return tuple(parts[str(index)] for index in range(len(parts)))
        except (OSError, safetensors.SafetensorError, KeyError):
            return None  # not there, or damaged: done again

    def _write(self, path: Path, result: tuple[Tensor, ...]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        parts = {str(index): part.cpu().contiguous() for index, part in enumerate(result)}
        data = safetensors.torch.save(parts)
        write_file(path, data)
        self._files.append((path, len(data)))
        self._bytes += len(data)
        while self._bytes > self.most_bytes and len(self._files) > 1:
            oldest, size = self._files.popleft()
            oldest.unlink(missing_ok=True)
            self._bytes -= size
