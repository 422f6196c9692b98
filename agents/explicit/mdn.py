"""Mixture density network: the network outputs a Gaussian mixture over actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from agents.config import PolicyConfig, check_limits
from agents.mixture import Mixture, MixtureHead
from agents.policy import Policy
from agents.spec import PolicySpec
from agents.view_heads import ViewMixture, ViewMixtureHead
from agents.views import ViewEncoder

DECODINGS = ("sample", "mean")


@dataclass(frozen=True)
class MdnConfig(PolicyConfig):
    """Settings of the mixture density policy.

    Attributes:
        n_components: Gaussians per mixture.
        min_std: smallest standard deviation, normalised action units.
        decode: `sample` draws an action; `mean` takes the mean of the likeliest component, which
            narrow spurious components break.
        linear_means: whether the means are linear in the state, see `MixtureHead`; needs `skip`.
    """

    n_components: int = 8
    min_std: float = 0.01
    decode: str = "sample"
    linear_means: bool = False

    def __post_init__(self) -> None:
        """Rejects impossible combinations."""
        super().__post_init__()
        check_limits(self, {"n_components": (1, 256), "min_std": (1e-6, 1.0)})
        if self.decode not in DECODINGS:
            raise ValueError(f"decode must be one of {', '.join(DECODINGS)}; got {self.decode!r}")


class MdnPolicy(Policy):
    """Maximum-likelihood behavioural cloning with a Gaussian mixture.

    Args:
        spec: spaces.
        config: settings.
    """

    method: ClassVar[str] = "mdn"
    config_class: ClassVar[type[PolicyConfig]] = MdnConfig
    has_views: ClassVar[bool] = True
    config: MdnConfig

    def __init__(self, spec: PolicySpec, config: MdnConfig) -> None:
        """Build the mixture head."""
        super().__init__(spec, config)
        sizes = (self.code_dim, self.flat_action_dim, config.n_components, config.min_std)
        self.head: nn.Module = (
            ViewMixtureHead(self.encoder, *sizes)
            if isinstance(self.encoder, ViewEncoder)
            else MixtureHead(*sizes, n_linear=self.n_linear(config.linear_means))
        )

    def objective(
        self, code: Tensor, target: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Negative log likelihood per row, nats; see `Policy.objective`."""
        loss = -self.head(code).log_prob(target[:, None]).mean()
        return loss, {"nll": loss.detach()}

    def predict(self, code: Tensor, generator: torch.Generator, previous: Tensor | None) -> Tensor:
        """A draw from the mixture, or the likeliest mean; see `Policy.predict`."""
        mixture: Mixture | ViewMixture = self.head(code)
        if self.config.decode == "mean":
            return mixture.likeliest_mean().clamp(-1, 1)
        return mixture.sample(1, generator)[:, 0].clamp(-1, 1)
