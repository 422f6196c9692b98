"""A policy without training: regression by the kernel of an infinitely wide network."""

from agents.kernel_ridge.config import KernelPolicyConfig
from agents.kernel_ridge.policy import KernelPolicy

__all__ = ["KernelPolicy", "KernelPolicyConfig"]
