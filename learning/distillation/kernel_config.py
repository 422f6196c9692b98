"""Which infinitely wide network a kernel belongs to."""

import math
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["ntk", "nngp"]
Head = Literal["flatten", "mean"]


@dataclass(frozen=True)
class KernelConfig:
    """An infinitely wide ReLU network, in the NTK parameterisation.

    Without `convs` it is fully connected: `depth` times (dense, ReLU), then dense. With `convs` it
    is convolutional: for each number in it so many times (3x3 convolution, zero padded, ReLU), then
    2x2 average pooling; last the head and a dense layer.

    Sources: Jacot et al. 2018, "Neural Tangent Kernel"; Novak et al. 2019, "Bayesian Deep
    Convolutional Networks with Many Channels are Gaussian Processes"; Nguyen et al. 2021, "Dataset
    Distillation with Infinitely Wide Convolutional Networks" (the networks of `KERNELS`).

    Attributes:
        depth: hidden layers of a fully connected network.
        convs: convolutions before each pooling; empty: fully connected.
        prepend: whether one more convolution with ReLU comes first, without pooling.
        head: `flatten`, or `mean`: average over all positions, which takes the place of the last
            pooling.
        kind: `ntk`, or `nngp`: the kernel of the network's outputs at initialisation.
        w_std: standard deviation of weights, before the division by the root of the fan-in.
        b_std: standard deviation of biases.
    """

    depth: int = 1
    convs: tuple[int, ...] = ()
    prepend: bool = False
    head: Head = "flatten"
    kind: Kind = "ntk"
    w_std: float = math.sqrt(2)
    b_std: float = 0.1

    def __post_init__(self) -> None:
        """Refuse networks that do not exist."""
        if self.depth < 0:
            raise ValueError(f"depth must be at least 0, got {self.depth}")
        if any(count < 1 for count in self.convs):
            raise ValueError(f"convs must be at least 1 before each pooling, got {self.convs}")
        if not self.convs and (self.prepend or self.head != "flatten"):
            raise ValueError("prepend and head are of convolutional networks: give convs as well")
        if self.head not in ("flatten", "mean"):
            raise ValueError(f"head must be flatten or mean, got {self.head!r}")
        if self.kind not in ("ntk", "nngp"):
            raise ValueError(f"kind must be ntk or nngp, got {self.kind!r}")
        if not (math.isfinite(self.w_std) and self.w_std > 0):
            raise ValueError(f"w_std must be positive, got {self.w_std}")
        if not (math.isfinite(self.b_std) and self.b_std >= 0):
            raise ValueError(f"b_std must be at least 0, got {self.b_std}")

    @property
    def n_poolings(self) -> int:
        """How often 2x2 pooling halves the sides of an image."""
        return len(self.convs) - (self.head == "mean") if self.convs else 0

    @property
    def layers(self) -> tuple[str, ...]:
        """Of a convolutional network each `conv` (with ReLU) and `pool`, in order."""
        found = ["conv"] if self.prepend else []
        for number, count in enumerate(self.convs):
            found += ["conv"] * count
            if number < self.n_poolings:
                found.append("pool")
        return tuple(found)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse points that the network cannot take.

        Args:
            shape: of one point.

        Raises:
            ValueError: if there is nothing in it, or it is no image large enough for the poolings.
        """
        if not shape or min(shape) < 1:
            raise ValueError(f"points must be (N, ...) with at least one number each, got {shape}")
        if not self.convs:
            return
        least = 2**self.n_poolings
        if len(shape) != 3 or min(shape[1:]) < least:
            raise ValueError(
                f"a convolutional kernel needs images (C, H, W) of at least {least} x {least} "
                f"for {self.n_poolings} poolings, got {shape}"
            )


KERNELS: dict[str, KernelConfig] = {
    "fc": KernelConfig(),
    "convnet": KernelConfig(convs=(1, 1, 1), prepend=True),
    "convnet3": KernelConfig(convs=(1, 1, 1)),
    "myrtle5": KernelConfig(convs=(1, 1, 1), head="mean"),
    "myrtle7": KernelConfig(convs=(1, 2, 2), head="mean"),
    "myrtle10": KernelConfig(convs=(2, 3, 3), head="mean"),
}
"""Networks by name; `convnet` is the main one of Nguyen et al. 2021."""


def named_kernel(name: str, depth: int | None = None, kind: Kind = "ntk") -> KernelConfig:
    """A network of `KERNELS`.

    Args:
        name: of the network.
        depth: hidden layers of `fc`, or poolings of `convnet` and `convnet3`; None: 1 and 3.
        kind: of the kernel.

    Raises:
        ValueError: if there is no such network, or its depth cannot be chosen.
    """
    if name not in KERNELS:
        raise ValueError(f"unknown kernel {name!r}; known: {', '.join(KERNELS)}")
    config = replace(KERNELS[name], kind=kind)
    if depth is None:
        return config
    if not config.convs:
        return replace(config, depth=depth)
    if config.head == "mean":
        raise ValueError(f"the depth of {name} is fixed; leave it out, or choose fc or convnet")
    if depth < 1:
        raise ValueError(f"depth of {name} must be at least 1, got {depth}")
    return replace(config, convs=(1,) * depth)
