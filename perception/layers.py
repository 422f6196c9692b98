"""Layers that several backbones share."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class StochasticDepth(nn.Module):
    """Leaves out a residual branch of whole samples in training, and scales the others up.

    Source: Huang et al. 2016, "Deep Networks with Stochastic Depth", with the survivors divided by
    the chance to survive, so that nothing changes in evaluation.
    """

    def __init__(self, rate: float = 0.0) -> None:
        """Args: chance in [0, 1) that a sample goes without the branch.

        Raises:
            ValueError: for another chance.
        """
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be in [0, 1), got {rate}")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """The branch `(B, ...)`, of some samples 0."""
        if not (self.training and self.rate):
            return x
        kept = torch.rand(len(x), *(1,) * (x.ndim - 1), device=x.device) >= self.rate
        return x * kept.to(x.dtype) / (1 - self.rate)

    def extra_repr(self) -> str:
        """For `repr`."""
        return f"rate={self.rate:g}"


class Conv2d(nn.Conv2d):
    """A convolution that learns in float32 where a CPU is slow to learn in bfloat16.

    Of grouped convolutions with a stride, with kernels above 3, or of maps smaller than the kernel
    torch has no quick backward pass in bfloat16: depthwise ones take 1.4 to 4 times as long as by
    way of float32 (`python -m benchmarks.bfloat16_training`). All others, and all inference, are as
    ever.
    """

    def forward(self, input: Tensor) -> Tensor:
        """As every convolution; what a slow one gives is rounded to bfloat16 afterwards."""
        if not self._slow(input):
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float()).to(torch.bfloat16)

    def _slow(self, input: Tensor) -> bool:
        kernel = max(self.kernel_size)
        quick = max(self.stride) == 1 and kernel <= 3 and min(input.shape[-2:]) >= kernel
        if self.groups == 1 or quick:
            return False
        learning = torch.is_grad_enabled() and self.weight.requires_grad
        if not (learning and input.device.type == "cpu" and torch.is_autocast_enabled("cpu")):
            return False
        return torch.get_autocast_dtype("cpu") == torch.bfloat16


class SqueezeExcite(nn.Module):
    """Scales each channel by what the means of all channels say (Hu et al. 2018)."""

    def __init__(self, width: int, squeezed: int) -> None:
        """Build from torch's global random generator.

        Args:
            width: channels of the map.
            squeezed: channels between the two layers.
        """
        super().__init__()
        self.reduce = nn.Conv2d(width, squeezed, 1)
        self.restore = nn.Conv2d(squeezed, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, width, h, w)`, each channel times a number in (0, 1)."""
        means = x.mean(dim=(2, 3), keepdim=True)
        return x * self.restore(F.silu(self.reduce(means))).sigmoid()


def check_images(images: Tensor, channels: int = 3) -> None:
    """Refuse what no backbone can take.

    Raises:
        ValueError: for anything but a batch `(B, channels, H, W)` of floats with B, H, W above 0.
    """
    if images.ndim != 4 or images.shape[1] != channels or not images.numel():
        raise ValueError(f"images must be (B, {channels}, H, W), got {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(
            f"images must be floats, got {images.dtype}; divide bytes by 255 and normalise them"
        )
