"""Several multi-task networks beside each other, as a choice of groups asks for them.

Groups may overlap: a task can be worth learning beside another that a second network serves. Each
task is served by one network; what the others say of it is not computed.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from perception.multi_task import MultiTaskNet
from perception.multi_task_set import Target

MAX_NETWORKS = 64


class TaskNetworks(nn.Module):
    """Images to what each task says, by the network that serves it.

    Attributes:
        networks: one for each group.
        serves: by task, in the order of the answers, the number of its network.
        targets: likewise.
    """

    def __init__(self, networks: Sequence[MultiTaskNet], serves: Mapping[str, int]) -> None:
        """Put networks beside each other.

        Raises:
            ValueError: for no networks, a task that its network does not have, or a network that
                serves nothing.
        """
        super().__init__()
        groups = [tuple(network.targets) for network in networks]
        check_groups(groups, serves)
        self.networks = nn.ModuleList(networks)
        self.serves = dict(serves)
        self.targets: dict[str, Target] = {
            task: networks[k].targets[task] for task, k in self.serves.items()
        }

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Tasks that each network has learned."""
        return tuple(tuple(cast(MultiTaskNet, one).targets) for one in self.networks)

    def served(self, k: int) -> tuple[str, ...]:
        """Tasks that network k serves."""
        return tuple(task for task, number in self.serves.items() if number == k)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """What each task says of images `(B, 3, H, W)`; shapes as of `MultiTaskNet`."""
        told: dict[str, Tensor] = {}
        for k, network in enumerate(self.networks):
            told |= network(images, self.served(k))
        return {task: told[task] for task in self.serves}


class FlatTasks(nn.Module):
    """All that the tasks say of an image in one row, which is what `perception.runtime` takes."""

    def __init__(self, model: TaskNetworks) -> None:
        """Wrap networks, which stay as they are."""
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """`(B, 3, H, W)` to `(B, n)`, one task after the other."""
        return torch.cat([one.flatten(1) for one in self.model(images).values()], 1)


def unflatten(
    rows: Tensor, targets: Mapping[str, Target], size: tuple[int, int]
) -> dict[str, Tensor]:
    """What `FlatTasks` has put into rows, by task.

    Args:
        rows: `(B, n)`.
        targets: of the tasks, in their order.
        size: `(H, W)` of the images.

    Raises:
        ValueError: for rows of another length.
    """
    shapes = [
        (target.channels, *size) if target.dense else (target.channels,)
        for target in targets.values()
    ]
    lengths = [torch.Size(shape).numel() for shape in shapes]
    if rows.ndim != 2 or rows.shape[1] != sum(lengths):
        raise ValueError(f"rows must be (B, {sum(lengths)}), got {tuple(rows.shape)}")
    parts = rows.split(lengths, 1)
    return {
        task: part.reshape(-1, *shape)
        for task, part, shape in zip(targets, parts, shapes, strict=True)
    }


def check_groups(groups: Sequence[Sequence[str]], serves: Mapping[str, int]) -> None:
    """Refuse a choice of groups that serves nothing, or not as it says.

    Args:
        groups: tasks of each network.
        serves: by task, the number of its network.

    Raises:
        ValueError: saying which network or task does not fit.
    """
    if not 1 <= len(groups) <= MAX_NETWORKS:
        raise ValueError(f"there must be 1 to {MAX_NETWORKS} networks, got {len(groups)}")
    for task, k in serves.items():
        if not isinstance(k, int) or isinstance(k, bool) or not 0 <= k < len(groups):
            raise ValueError(f"{task} must be served by one of {len(groups)} networks, got {k!r}")
        if task not in groups[k]:
            raise ValueError(f"{task} is served by network {k}, which has {', '.join(groups[k])}")
    for k, group in enumerate(groups):
        if k not in serves.values():
            raise ValueError(f"network {k} ({'+'.join(group)}) serves no task; leave it out")
