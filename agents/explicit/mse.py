"""Regression: the network outputs the action; loss is the mean squared error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from agents.config import PolicyConfig
from agents.policy import Policy
from agents.spec import PolicySpec
from agents.view_heads import ViewRegressionHead
from agents.views import ViewEncoder


@dataclass(frozen=True)
class MseConfig(PolicyConfig):
    """Settings of the regression policy; those of every policy."""


class MsePolicy(Policy):
    """Least-squares behavioural cloning.

    Where demonstrations disagree it returns their mean, which none of them need have done.

    Args:
        spec: spaces.
        config: settings.
    """

    method: ClassVar[str] = "mse"
    config_class: ClassVar[type[PolicyConfig]] = MseConfig
    has_views: ClassVar[bool] = True
    has_members: ClassVar[bool] = True

    def __init__(self, spec: PolicySpec, config: MseConfig) -> None:
        """Build the output layer."""
        super().__init__(spec, config)
        self.head: nn.Module = nn.Linear(self.code_dim, self.flat_action_dim)
        if isinstance(self.encoder, ViewEncoder):
            self.head = ViewRegressionHead(self.encoder, self.code_dim, spec.action_dim)

    def objective(
        self, code: Tensor, target: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of normalised actions; see `Policy.objective`."""
        loss = nn.functional.mse_loss(self.head(code), target)
        return loss, {"mse": loss.detach()}

    def predict(self, code: Tensor, generator: torch.Generator, previous: Tensor | None) -> Tensor:
        """The regressed action; see `Policy.predict`."""
        out: Tensor = self.head(code)
        return out.clamp(-1, 1)

    def decide(
        self, codes: Sequence[Tensor], generator: torch.Generator, previous: Tensor | None
    ) -> Tensor:
        """The mean of what the members regress; see `Policy.decide`."""
        members = (self, *self._others())
        actions = [m.predict(c, generator, previous) for m, c in zip(members, codes, strict=True)]
        return actions[0] if len(actions) == 1 else torch.stack(actions).mean(dim=0)
