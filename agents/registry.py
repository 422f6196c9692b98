"""Policies by name: making, saving and loading them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from agents.config import PolicyConfig, config_from_dict, config_to_dict
from agents.explicit.binned import BinnedPolicy
from agents.explicit.diffusion import DiffusionPolicy
from agents.explicit.mdn import MdnPolicy
from agents.explicit.mse import MsePolicy
from agents.implicit_bc.policy import ImplicitPolicy
from agents.kernel_ridge.policy import KernelPolicy
from agents.policy import Policy
from agents.spec import PolicySpec
from agents.tanh_mlp import read_tanh_mlp
from learning.checkpoint import find_shipped, list_checkpoints, load_module, save_module

if TYPE_CHECKING:
    from learning.demonstrations import Demonstrations

CHECKPOINTS = Path(__file__).parent / "checkpoints"
"""Where shipped policies lie, one folder each."""


def _registry(*classes: type[Policy]) -> dict[str, type[Policy]]:
    table: dict[str, type[Policy]] = {}
    for policy_class in classes:
        if policy_class.method in table:
            raise ValueError(f"two policies are called {policy_class.method!r}")
        table[policy_class.method] = policy_class
    return table


POLICIES: dict[str, type[Policy]] = _registry(
    ImplicitPolicy, MsePolicy, MdnPolicy, BinnedPolicy, DiffusionPolicy, KernelPolicy
)
"""Every method. Adding one is a module, a row here and a test."""


def policy_class(method: str) -> type[Policy]:
    """Looks a method up.

    Args:
        method: a key of `POLICIES`.

    Returns:
        The class.

    Raises:
        ValueError: if it is unknown; the known ones are listed.
    """
    if method not in POLICIES:
        raise ValueError(f"unknown policy method {method!r}; known: {', '.join(POLICIES)}")
    return POLICIES[method]


def make_policy(
    method: str, demos: Demonstrations, config: PolicyConfig | Mapping[str, Any] | None = None
) -> Policy:
    """Builds a policy for a data set, its normalisers fitted, its networks fresh.

    Networks are initialised from torch's global generator: call `torch.manual_seed` first.

    Args:
        method: a key of `POLICIES`.
        demos: demonstrations that give spaces and scales.
        config: settings, or a mapping of those that differ from the defaults.

    Returns:
        The policy, in training mode.

    Raises:
        ValueError: if the method is unknown, or the config does not fit it.
    """
    chosen = policy_class(method)
    if config is None or isinstance(config, Mapping):
        config = config_from_dict(chosen.config_class, dict(config or {}))
    policy = chosen(PolicySpec.from_demonstrations(demos), config)
    policy.fit(demos)
    return policy


def save_policy(
    policy: Policy, folder: str | Path, training: Mapping[str, Any] | None = None, card: str = ""
) -> None:
    """Writes a checkpoint folder.

    Args:
        policy: what to save.
        folder: where to; replaced as a whole if it exists.
        training: JSON values on how it was trained.
        card: model card, Markdown.

    Raises:
        ValueError: if a weight is not finite.
    """
    document = {
        "format": 1,
        "method": policy.method,
        "config": config_to_dict(policy.config),
        "spec": policy.spec.to_dict(),
        "training": dict(training or {}),
    }
    save_module(folder, document, policy, card or _plain_card(policy), _build)


def load_policy(path_or_name: str | Path) -> Policy:
    """Reads a checkpoint folder, a shipped policy by its name, or plain weights of a tanh network.

    Args:
        path_or_name: a folder, a key of `shipped_policies()`, or an `.npz` file as
            `agents.tanh_mlp` describes it.

    Returns:
        The policy, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: if there is no such folder or name (the shipped ones are listed), or the
            checkpoint is broken; a `ValueError` with one clear line.
    """
    place = find_shipped(path_or_name, shipped_policies(), "policy")
    return read_tanh_mlp(place) if place.is_file() else load_module(place, _build)[0]


def _build(document: Mapping[str, Any]) -> Policy:
    chosen = policy_class(document["method"])
    config = config_from_dict(chosen.config_class, document["config"])
    return chosen(PolicySpec.from_dict(document["spec"]), config)


def shipped_policies() -> dict[str, Path]:
    """Folders of the policies that come with the package, by name."""
    return list_checkpoints(CHECKPOINTS)


def _plain_card(policy: Policy) -> str:
    n = sum(parameter.numel() for parameter in policy.parameters())
    return f"# {policy.method} policy\n\n{n} parameters. No model card was given.\n"


def count_parameters(policy: torch.nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in policy.parameters() if p.requires_grad)
