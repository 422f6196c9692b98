"""Few points that teach as much as many: kernels of wide networks, KIP and Label Solve."""

from learning.distillation.distilled import (
    Distilled,
    load_distilled,
    save_distilled,
    shipped_sets,
)
from learning.distillation.kernel_config import KERNELS, KernelConfig, named_kernel
from learning.distillation.kernels import kernel_diagonal, kernel_tile
from learning.distillation.kip import KipConfig, KipResult, distil
from learning.distillation.ridge import KernelRidge, fit_ridge
from learning.distillation.tiles import kernel

__all__ = [
    "KERNELS",
    "Distilled",
    "KernelConfig",
    "KernelRidge",
    "KipConfig",
    "KipResult",
    "distil",
    "fit_ridge",
    "kernel",
    "kernel_diagonal",
    "kernel_tile",
    "load_distilled",
    "named_kernel",
    "save_distilled",
    "shipped_sets",
]
