"""The processes of a distributed training, as `torchrun` starts them."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """This process among the processes of a training.

    Attributes:
        rank: number of this process; 0 writes files and prints.
        world: how many there are; 1 without `torchrun`.
        device: where this process computes.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The CPU tensors of all processes, in the order of their ranks."""
        if self.world == 1:
            return [tensor]
        found = [torch.empty_like(tensor) for _ in range(self.world)]
        dist.all_gather(found, tensor)
        return found

    def from_first(self, value: float) -> float:
        """The number that the first process holds."""
        if self.world == 1:
            return value
        box = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(box, src=0)
        return float(box)

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Put the means over all processes in place of each one's tensors."""
        if self.world > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)
                tensor /= self.world

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Put the first process's tensors in place of each one's."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)


def pick_device(name: str) -> torch.device:
    """The device of a name, `auto` being CUDA where there is one.

    Raises:
        ValueError: if the name is unknown or the device is absent.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(
                "device cuda was asked for, but torch finds no GPU; "
                "use device cpu (--set-train device=cpu)"
            )
        if ":" not in name:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        if device.index >= torch.cuda.device_count():
            raise ValueError(f"device {device} is absent: {torch.cuda.device_count()} GPUs found")
    return device


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the other processes where `torchrun` started several, and leave them afterwards.

    Raises:
        ValueError: if the device is unknown or absent.
    """
    own = pick_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        yield Ranks(0, 1, own)
        return
    started = not dist.is_initialized()
    if started:
        # gloo beside nccl: random states and budgets travel as CPU tensors.
        dist.init_process_group("cpu:gloo,cuda:nccl" if own.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), own)
    finally:
        if started:
            dist.destroy_process_group()
