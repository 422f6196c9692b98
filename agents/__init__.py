"""Policies: their networks, losses, samplers, and reading and writing them."""

from agents.policy import Policy
from agents.registry import (
    POLICIES,
    load_policy,
    make_policy,
    save_policy,
    shipped_policies,
)
from agents.spec import PolicySpec

__all__ = [
    "POLICIES",
    "Policy",
    "PolicySpec",
    "load_policy",
    "make_policy",
    "save_policy",
    "shipped_policies",
]
